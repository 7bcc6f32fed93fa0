"""What is typed at a terminal, told from what the terminal itself answers."""

from __future__ import annotations

import re

__all__ = ["Typing"]

#: What a terminal sends by itself: answers to questions, news of its focus. Keys such as arrows look alike, and were
#: never a message.
_ANSWERS = re.compile(
    rb"\x1b\[(?!20[01]~)[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS and their like
    rb"|\x1bO[ -~]"  # SS3
)
#: The beginning of any of them, of which the rest is still on its way.
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]P_^X][^\x07\x1b]*\x1b?|O)?\Z")
_START, _END = b"\x1b[200~", b"\x1b[201~"


class Typing:
    r"""Takes apart what a terminal in raw mode reads: pastes, Enter, keys.

    A text is whole with the Enter behind it. One may come as a bracketed paste, as several, or bare; a line break
    within a paste is no Enter.

    Examples
    --------
    >>> typing = Typing()
    >>> typing.feed(b"\x1b[200~two\rlines\x1b[201~"), typing.text()
    (None, None)
    >>> typing.feed(b"\r"), typing.text()
    (None, 'two\nlines')
    """

    def __init__(self) -> None:
        self._raw = b""
        #: What was typed and has no Enter behind it yet, and whether a paste is going on.
        self._line = b""
        self._pasting = False
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take more of what was read.

        Parameters
        ----------
        data : bytes
            Of any length; sequences may be cut in two.
        """
        self._raw += data
        while self._raw:
            if self._pasting:
                if not self._paste():
                    return
                continue
            if self._raw.startswith(_START):
                self._raw, self._pasting = self._raw[len(_START) :], True
                continue
            answer = _ANSWERS.match(self._raw)
            if answer is not None:
                self._raw = self._raw[answer.end() :]
                continue
            if self._raw[:1] == b"\x1b" and len(self._raw) < len(_START) + 4096 and _BEGUN.match(self._raw):
                return
            self._key(self._raw[:1])
            self._raw = self._raw[1:]

    def text(self, expected: str | None = None) -> str | None:
        r"""Return the next text that was entered, None while there is none.

        Parameters
        ----------
        expected : str, optional
            What should come: a bare text of several lines cannot be told from several texts but by this.
        """
        if expected is not None:
            wanted = expected.encode("utf-8", "surrogateescape")
            joined = b""
            for number, line in enumerate(self._lines, 1):
                joined += (b"\n" if number > 1 else b"") + line
                if joined == wanted:
                    del self._lines[:number]
                    return expected
                if not wanted.startswith(joined + b"\n"):
                    break
            else:
                return None
        if not self._lines:
            return None
        return self._lines.pop(0).decode("utf-8", "surrogateescape")

    def key(self, key: bytes) -> bool:
        """Take one key out of the line that is being typed; False when it was not pressed."""
        at = self._line.find(key)
        if at < 0:
            return False
        self._line = self._line[at + len(key) :]
        return True

    def _key(self, key: bytes) -> None:
        if key in {b"\r", b"\n"}:
            self._lines.append(self._line)
            self._line = b""
        else:
            self._line += key

    def _paste(self) -> bool:
        """Take what there is of a paste; False when its end is still on its way."""
        end = self._raw.find(_END)
        kept = 0 if end >= 0 else len(_END) - 1
        piece = self._raw[:end] if end >= 0 else self._raw[: max(0, len(self._raw) - kept)]
        # A terminal sends a pasted line break as Enter would be sent.
        self._line += piece.replace(b"\r", b"\n")
        self._raw = self._raw[end + len(_END) :] if end >= 0 else self._raw[len(piece) :]
        self._pasting = end < 0
        return end >= 0
