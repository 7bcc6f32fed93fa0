"""The cells of a pane, read from what tmux itself captures: the truth that a page is compared with."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

from wcwidth import wcwidth

if TYPE_CHECKING:
    from orchestrator_lab import Cluster

_TOKEN = re.compile(r"\x1b\[([0-9;:]*)m|\x1b\](?:[^\x07\x1b]*)(?:\x07|\x1b\\)|(\x0e)|(\x0f)|(.)", re.DOTALL)
#: The line drawing set, as far as the tests use it.
_DRAWN = dict(zip("jklmnqtuvwx", "┘┐┌└┼─├┤┴┬│", strict=True))
_ATTRIBUTES = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4, 9: 5, 5: 6}
_OFF = {22: (0, 1), 23: (2,), 24: (3,), 27: (4,), 29: (5,), 25: (6,)}


class Pen:
    """The colours and attributes that the next character gets."""

    def __init__(self) -> None:
        self.fg: Any = None
        self.bg: Any = None
        self.on = [False] * 7

    def apply(self, text: str) -> None:
        numbers = re.split(r"[;]", text) if text else ["0"]
        while numbers:
            word = numbers.pop(0)
            number = int(word.split(":")[0] or 0)
            if number == 0:
                self.__init__()  # type: ignore[misc]
            elif number in _ATTRIBUTES:
                self.on[_ATTRIBUTES[number]] = word != "4:0"
            elif number in _OFF:
                for place in _OFF[number]:
                    self.on[place] = False
            elif number in {38, 48, 58}:
                if numbers[0] == "5":
                    colour: Any = int(numbers[1])
                    del numbers[:2]
                else:
                    colour = "#{:02x}{:02x}{:02x}".format(*map(int, numbers[1:4]))
                    del numbers[:4]
                if number == 38:
                    self.fg = colour
                elif number == 48:
                    self.bg = colour
            elif number in {39, 49}:
                setattr(self, "fg" if number == 39 else "bg", None)
            elif 30 <= number <= 37 or 90 <= number <= 97:
                self.fg = number - 30 if number < 40 else number - 82
            elif 40 <= number <= 47 or 100 <= number <= 107:
                self.bg = number - 40 if number < 50 else number - 92

    def cell(self, text: str, width: int) -> tuple[Any, ...]:
        return (text, width, self.fg, self.bg, *self.on)


def run(cluster: Cluster, *argv: str) -> str:
    socket = cluster.status()["tmux_socket"]
    return subprocess.run(["tmux", "-S", socket, *argv], capture_output=True, check=True, timeout=10).stdout.decode()


def tmux_cells(cluster: Cluster, agent: str) -> list[list[tuple[Any, ...]]]:
    """Return each cell: character, width, colours, bold, dim, italic, underline, inverse, struck, blink."""
    pane = cluster[agent].facts["pane_id"]
    cols = int(run(cluster, "display-message", "-p", "-t", pane, "#{pane_width}"))
    pen, drawing, blank = Pen(), False, Pen().cell(" ", 1)
    lines = []
    for line in run(cluster, "capture-pane", "-p", "-e", "-N", "-t", pane).removesuffix("\n").split("\n"):
        cells: list[tuple[Any, ...]] = []
        for found in _TOKEN.finditer(line):
            sgr, out, back, text = found.groups()
            if sgr is not None:
                pen.apply(sgr)
            elif out or back:
                drawing = bool(out)
            elif text:
                width = wcwidth(text)
                if width == 0:
                    cells[-1] = (cells[-1][0] + text, *cells[-1][1:])
                    continue
                cells.append(pen.cell(_DRAWN.get(text, text) if drawing else text, width))
                cells += [pen.cell("", 0)] * (width - 1)
        lines.append([*cells, *[blank] * (cols - len(cells))])
    return lines


def tmux_cursor(cluster: Cluster, agent: str) -> tuple[int, int, bool]:
    """Return the cursor's column and line, and whether application cursor keys are on."""
    pane = cluster[agent].facts["pane_id"]
    x, y, keys = run(
        cluster, "display-message", "-p", "-t", pane, "#{cursor_x} #{cursor_y} #{keypad_cursor_flag}"
    ).split()
    return int(x), int(y), keys == "1"
