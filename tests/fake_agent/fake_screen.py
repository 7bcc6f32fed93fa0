"""The fake's own drawing: by position over the whole screen, or in lines that scroll up."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import unicodedata

_KEPT = 400
_SAID = 40  # lines of one text that are shown


class Screen:
    """Draw a conversation, an input line, a dialog."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._said: list[str] = []
        self._new: list[str] = []
        self._above = 0  # rows of the block above the cursor, in the scrolling layout
        self._opened = False

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        return len(data)

    def size(self) -> tuple[int, int]:
        try:
            rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._fd, termios.TIOCGWINSZ, b"\0" * 8))
        except OSError:
            return 80, 24
        return max(cols, 10), max(rows, 4)

    def say(self, text: str) -> None:
        lines = text.split("\n")
        if len(lines) > _SAID:
            lines = [*lines[: _SAID - 5], f"… {len(lines) - _SAID} lines …", *lines[-5:]]
        lines = [line if len(line) <= 4000 else line[:2000] + " … " + line[-1000:] for line in lines]
        self._new += lines
        self._said = [*self._said, *lines][-_KEPT:]

    def forget(self) -> None:
        """Something else has written on the screen."""
        self._above = 0

    def draw(
        self,
        layout: str,
        *,
        prompt: str | None,
        draft: str,
        ghost: str,
        status: str,
        queued: int,
        dialog: tuple[str, tuple[str, ...], int] | None,
    ) -> None:
        cols, rows = self.size()
        block: list[str] = []
        if status:
            block.append(f"\x1b[36m{status}\x1b[0m")
        if queued:
            block.append(f"\x1b[33m  queued: {queued}\x1b[0m")
        cursor: tuple[int, int]
        if dialog is not None:
            title, options, selected = dialog
            block.append(f"\x1b[1m{title}\x1b[0m")
            for index, option in enumerate(options):
                block.append(f" {'❯' if index == selected else ' '} {index + 1}. {option}")
            block.append("\x1b[2mEnter confirms · Esc cancels\x1b[0m")
            cursor = (len(block) - 1, 0)
        elif prompt is not None:
            typed = wrap(draft, cols - 1 - width(prompt))[-max(1, rows // 2) :]
            shown = [(prompt if index == 0 else " " * width(prompt)) + row for index, row in enumerate(typed)]
            cursor = (len(block) + len(shown) - 1, min(cols - 1, width(shown[-1])))
            if not draft and ghost:
                shown[0] += f"\x1b[2m{ghost[: cols - 10]}\x1b[0m"
            block += shown
        else:
            cursor = (max(0, len(block) - 1), width(status))
            block = block or [""]
        if layout == "scroll":
            self._scroll(block, cursor, cols, rows)
        else:
            self._full(block, cursor, cols, rows)

    def _scroll(self, block: list[str], cursor: tuple[int, int], cols: int, rows: int) -> None:
        out = ["\x1b[?25l", f"\x1b[{self._above}A" if self._above else "", "\r\x1b[J"]
        for line in self._new:
            out += [row + "\r\n" for row in wrap(line, cols - 1)]
        self._new = []
        block = block[-(rows - 1) :]
        out.append("\r\n".join(block))
        up = len(block) - 1 - min(cursor[0], len(block) - 1)
        out += [f"\x1b[{up}A" if up else "", f"\r\x1b[{cursor[1]}C" if cursor[1] else "\r", "\x1b[?25h"]
        self._above = min(cursor[0], len(block) - 1)
        self.write("".join(out).encode("utf-8", "replace"))

    def _full(self, block: list[str], cursor: tuple[int, int], cols: int, rows: int) -> None:
        self._new = []
        block = block[-(rows - 2) :]
        room = rows - len(block) - 1
        said = [row for line in self._said[-room:] for row in wrap(line, cols - 1)][-room:]
        screen = [*said, *[""] * (room - len(said)), "─" * (cols - 1), *block]
        out = ["\x1b[?25l\x1b[0m"]
        out += [f"\x1b[{index + 1};1H\x1b[0m{row}\x1b[0m\x1b[K" for index, row in enumerate(screen)]
        out.append(f"\x1b[{room + 2 + min(cursor[0], len(block) - 1)};{cursor[1] + 1}H\x1b[?25h")
        self.write("".join(out).encode("utf-8", "replace"))


def width(text: str) -> int:
    total = 0
    for char in text:
        if unicodedata.combining(char) or unicodedata.category(char) in {"Cf", "Mn", "Me"}:
            continue
        total += 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
    return total


def wrap(text: str, cols: int) -> list[str]:
    """Return rows of at most so many cells; control characters are not drawn."""
    rows = []
    for line in text.split("\n"):
        row, used = [], 0
        for char in line.expandtabs(4):
            if ord(char) < 32 or 127 <= ord(char) < 160:
                continue
            size = width(char)
            if used + size > cols:
                rows.append("".join(row))
                row, used = [], 0
            row.append(char)
            used += size
        rows.append("".join(row))
    return rows
