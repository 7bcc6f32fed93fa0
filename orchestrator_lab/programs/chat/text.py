"""Text for a terminal: neutralised, measured and wrapped."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["RowWrapper", "clip", "fold", "neutralise", "width"]

TAB_WIDTH: Final = 4

# Control pictures instead of controls: a reply must never drive the terminal (titles, cursor,
# clipboard, paste end).
_TABLE: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in {0x09, 0x0A}},
    0x7F: "␡",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **dict.fromkeys((0x2028, 0x2029), "\n"),
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
}


def neutralise(text: str) -> str:
    """Return text in which no character can control a terminal.

    Parameters
    ----------
    text : str
        Anything, for example a model's reply.

    Returns
    -------
    str
        The same text with C0 and C1 controls, DEL, lone surrogates and bidirectional overrides
        replaced by visible characters; tabs and newlines are kept, CRLF becomes LF.

    Examples
    --------
    >>> neutralise("a" + chr(27) + "[2Jb")
    'a␛[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").translate(_TABLE)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text


@lru_cache(maxsize=4096)
def _char_width(char: str) -> int:
    from wcwidth import wcwidth

    return max(0, wcwidth(char))


def width(text: str) -> int:
    """Return the number of terminal cells that a text without controls takes.

    Parameters
    ----------
    text : str
        Text without newlines and tabs.

    Returns
    -------
    int
        Cells: two for wide characters, none for combining ones.

    Examples
    --------
    >>> width("日本a")
    5
    """
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def clip(text: str, cells: int) -> str:
    """Return the longest beginning of a text that fits, with an ellipsis where it was cut.

    Parameters
    ----------
    text : str
        One line.
    cells : int
        Room, in terminal cells.

    Returns
    -------
    str
        At most ``cells`` cells wide.

    Examples
    --------
    >>> clip("a long line", 6)
    'a lon…'
    """
    if width(text[: cells + 1]) <= cells and len(text) <= cells:
        return text
    used = 0
    for index, char in enumerate(text):
        used += _char_width(char)
        if used > cells - 1:
            return text[:index] + "…"
    return text


class RowWrapper:
    """Fold a stream of text into terminal rows, at spaces where there are some.

    Parameters
    ----------
    cells : int
        Width of a row, in terminal cells; may be changed at any time.

    Examples
    --------
    >>> wrapper = RowWrapper(10)
    >>> wrapper.feed("hello wide world")
    ['hello wide']
    >>> wrapper.tail
    'world'
    """

    def __init__(self, cells: int) -> None:
        self.cells = max(2, cells)
        self.tail = ""
        self._held = ""  # a CR that may be the first half of a CRLF

    def feed(self, text: str) -> list[str]:
        """Take more text and return the rows that are complete now.

        Parameters
        ----------
        text : str
            The next piece of the stream, raw.

        Returns
        -------
        list of str
            Rows of at most ``cells`` cells, neutralised, without newlines.
        """
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        text = neutralise(text[:-1] if self._held else text)
        rows: list[str] = []
        first, *others = text.split("\n")
        self.tail = self._wrap(self.tail, first, rows)
        for line in others:
            rows.append(self.tail)
            self.tail = self._wrap("", line, rows)
        return rows

    def close(self) -> list[str]:
        """Return what is left and begin anew.

        Returns
        -------
        list of str
            The last row, if there is one.
        """
        rows = [self.tail] if self.tail.strip() else []
        self.tail = self._held = ""
        return rows

    def _wrap(self, row: str, added: str, rows: list[str]) -> str:
        if "\t" in added:
            # Tab stops count from the row's beginning; expandtabs counts characters, which is
            # right for indents.
            added = (row + added).expandtabs(TAB_WIDTH)[len(row) :]
        line = row + added
        if width(line) <= self.cells:
            return line
        start = used = 0
        break_at = -1  # index of the character after the last possible break
        index = 0
        while index < len(line):
            char = line[index]
            cells = _char_width(char)
            if used + cells > self.cells:
                if char == " " or cells == 2:  # wide scripts break anywhere
                    break_at = index
                cut = break_at if break_at > start else index
                rows.append(line[start:cut].rstrip(" "))
                start = cut
                while start < len(line) and line[start] == " ":
                    start += 1
                index, used, break_at = start, 0, -1
                continue
            used += cells
            index += 1
            if (char == " " and used > 1) or cells == 2:
                break_at = index
        return line[start:]


def fold(text: str, cells: int, *, head: int = 8, tail: int = 3) -> list[str]:
    """Return the rows that show a message: whole when short, else its two ends with a count.

    Parameters
    ----------
    text : str
        The message, raw.
    cells : int
        Width of a row, in terminal cells.
    head, tail : int
        Lines kept at either end of a long message.

    Returns
    -------
    list of str
        Neutralised rows.

    Examples
    --------
    >>> fold(chr(10).join("abcdefghijklmnopq"), 40, head=2, tail=1)
    ['a', 'b', '… 14 more lines …', 'q']
    """
    lines = text.split("\n")
    if len(lines) > head + tail + 2:
        hidden = len(lines) - head - tail
        shown: list[str | None] = [*lines[:head], None, *lines[-tail:]]
        note = f"… {hidden:,} more lines …"
    else:
        shown, note = [*lines], ""
    rows: list[str] = []
    room = cells * 4
    for line in shown:
        if line is None:
            rows.append(note)
            continue
        wrapper = RowWrapper(cells)
        if len(line) > room + cells:
            rows += wrapper.feed(line[: room - cells]) + wrapper.close()
            rows.append(f"… {len(line) - room:,} more characters …")
            rows += wrapper.feed(line[-cells:]) + wrapper.close()
        else:
            rows += wrapper.feed(line)
            rows.append(wrapper.tail)
    return rows
