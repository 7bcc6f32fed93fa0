"""Follow the few terminal modes that tell what a program in a pane is doing."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["ModeTracker"]

#: Bytes of an OSC that are looked at; longer titles are passed over.
_OSC_LIMIT = 4096

_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?([0-9;]{1,64})([hl])"
    rb"|\](0|2|133);([^\x07\x1b\x9c]{0,4096})(?:\x07|\x1b\\)"
    rb"|(c))"
)

#: An end of the data that may be the beginning of a sequence.
_OPEN_CSI = re.compile(rb"\x1b(?:\[(?:\?[0-9;]{0,64})?)?\Z")
_OPEN_OSC = re.compile(rb"\x1b\](?:[0-9]{0,3}|(?:0|2|133);[^\x07\x1b\x9c]{0,4096}\x1b?)\Z")

_MODES = {
    b"2004": "bracketed_paste",
    b"1049": "alternate_screen",
    b"1047": "alternate_screen",
    b"47": "alternate_screen",
}

_NAMES = frozenset(_MODES.values())

#: Shell-integration marks kept between two reports.
_MARKS_LIMIT = 32


class ModeTracker:
    r"""Bracketed paste, alternate screen, title and OSC 133 marks of one pane.

    Reads without an escape sequence of interest cost three ``in`` checks; sequences may be split
    anywhere between reads.

    Examples
    --------
    >>> tracker = ModeTracker()
    >>> tracker.feed(b"hello \x1b[?20")
    False
    >>> tracker.feed(b"04h")
    True
    >>> tracker.modes
    {'bracketed_paste': True}
    """

    __slots__ = ("_carry", "marks", "modes", "osc133", "title")

    def __init__(self) -> None:
        #: ``bracketed_paste`` and ``alternate_screen``, each only once it was seen to change: a
        #: keeper that takes over in the middle of a stream does not know them, and a program that
        #: has just started has neither.
        self.modes: dict[str, bool] = {}
        #: The title last set by OSC 0 or 2, or None.
        self.title: str | None = None
        #: The last OSC 133 mark, as ``"A"`` or ``"D;0"``, or None.
        self.osc133: str | None = None
        #: OSC 133 marks since the last :meth:`take_marks`.
        self.marks: list[str] = []
        self._carry = b""

    def feed(self, data: bytes) -> bool:
        """Look through what the program wrote.

        Parameters
        ----------
        data : bytes
            The next raw bytes.

        Returns
        -------
        bool
            Whether a mode changed or a mark came (a new title alone does not count: spinners live
            there).
        """
        if self._carry:
            data = self._carry + data
            self._carry = b""
        elif b"\x1b" not in data:
            return False
        changed = False
        if b"\x1b[?" in data or b"\x1b]" in data or b"\x1bc" in data:
            for match in _SEQUENCE.finditer(data):
                changed |= self._apply(*match.groups())
        self._carry = self._open_end(data)
        return changed

    def reset(self) -> None:
        """Forget everything: another program runs in the pane now."""
        self.modes = {}
        self.title = self.osc133 = None
        self.marks.clear()
        self._carry = b""

    def take_marks(self) -> list[str]:
        """Return the OSC 133 marks since the last call."""
        marks, self.marks = self.marks, []
        return marks

    def seed(self, modes: dict[str, Any]) -> None:
        """Take over what an earlier keeper had seen."""
        self.modes |= {name: bool(value) for name, value in modes.items() if name in _NAMES}

    def _apply(
        self,
        numbers: bytes | None,
        setting: bytes | None,
        command: bytes | None,
        text: bytes | None,
        full_reset: bytes | None,
    ) -> bool:
        before = dict(self.modes)
        if numbers is not None:
            for number in numbers.split(b";"):
                if (name := _MODES.get(number)) is not None:
                    self.modes[name] = setting == b"h"
        elif full_reset is not None:
            self.modes = dict.fromkeys(_NAMES, False)
        elif command == b"133":
            self.osc133 = (text or b"").decode("utf-8", "replace")
            if len(self.marks) < _MARKS_LIMIT:
                self.marks.append(self.osc133)
            return True
        else:
            self.title = (text or b"").decode("utf-8", "replace")
        return self.modes != before

    @staticmethod
    def _open_end(data: bytes) -> bytes:
        """Return the end of ``data`` that the next read may complete."""
        last = data.rfind(b"\x1b")
        if last < 0:
            return b""
        start = data.rfind(b"\x1b]", max(0, len(data) - _OSC_LIMIT - 16))
        if start >= 0 and _OPEN_OSC.match(data, start):
            return data[start:]
        return data[last:] if _OPEN_CSI.match(data, last) else b""
