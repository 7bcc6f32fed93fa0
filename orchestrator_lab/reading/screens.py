"""What a recorded pane showed at an instant, by a terminal in memory: without tmux, on any machine."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.seeking import CastReader
from orchestrator_lab.mirrors import present
from orchestrator_lab.stills import Screen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from orchestrator_lab.journal.recording import CastEvent

__all__ = ["ansi_of", "feed", "recording_of", "resized", "screens_at"]

#: Columns and rows of the largest terminal that is drawn.
LARGEST = 1000

_STYLES = (
    ("bold", "1"),
    ("faint", "2"),
    ("italic", "3"),
    ("underline", "4"),
    ("inverse", "7"),
    ("strikethrough", "9"),
)


def recording_of(folder: Path, agent: str) -> Path | None:
    """Return the recording of an agent's pane in a run's folder; None when there is none.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    agent : str
        Its name.

    Returns
    -------
    pathlib.Path or None
        Packed, or plain when somebody has unpacked it.
    """
    if "/" in agent or agent in {"", ".", ".."}:  # a journal is a text that anybody may write
        return None
    for name in (f"{agent}.cast.zst", f"{agent}.cast"):
        path = present(folder / "panes" / name)
        if path.is_file():
            return path
    return None


def screens_at(path: Path, agent: str, offsets_s: Sequence[float]) -> list[Screen]:
    """Return what a pane showed at several instants, the recording read once.

    Parameters
    ----------
    path : pathlib.Path
        The recording.
    agent : str
        Whose pane.
    offsets_s : sequence of float
        Seconds of the recording, in any order.

    Returns
    -------
    list of Screen
        One an instant, in the order given.

    Raises
    ------
    JournalError
        When it is no recording.
    """
    import avt

    shown: dict[int, Screen] = {}
    with CastReader(path) as reader:
        terminal = avt.Vt(*reader.size, 0)  # type: ignore[attr-defined]
        events = chain.from_iterable(reader.events(number) for number in range(len(reader)))
        event = next(events, None)
        for number in sorted(range(len(offsets_s)), key=lambda one: offsets_s[one]):
            due = []
            while event is not None and event.time_s <= offsets_s[number]:
                due.append(event)
                event = next(events, None)
            feed(terminal, due)
            shown[number] = Screen(agent, ansi_of(terminal))
    return [shown[number] for number in range(len(offsets_s))]


def feed(terminal: Any, events: Iterable[CastEvent]) -> None:  # noqa: ANN401 - a terminal of avt
    """Have events of a recording happen in a terminal."""
    output: list[str] = []
    for event in events:
        if event.code == "o":
            output.append(event.data)
        elif event.code == "r" and (size := resized(event.data)) is not None:
            _write(terminal, output)
            output = []
            terminal.resize(*size)
    _write(terminal, output)


def _write(terminal: Any, output: list[str]) -> None:  # noqa: ANN401 - a terminal of avt
    terminal.feed_str("".join(output).encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def resized(data: str) -> tuple[int, int] | None:
    """Return columns and rows of an event of a change of size; None when it says none that could be drawn.

    Examples
    --------
    >>> resized("90x30"), resized("90x0")
    ((90, 30), None)
    """
    cols, _, rows = data.partition("x")
    if not (cols.isdecimal() and rows.isdecimal() and len(data) < 12):
        return None
    size = (min(int(cols), LARGEST), min(int(rows), LARGEST))
    return size if min(size) >= 1 else None


def ansi_of(terminal: Any) -> str:  # noqa: ANN401 - a terminal of avt
    """Return the cells of a terminal as lines with escape sequences for their colours."""
    lines = []
    for line in terminal.view():
        parts, now = [], ""
        for cell in line.cells:
            if cell.width == 0:  # the second half of a wide character
                continue
            look = "" if cell.pen.is_default() else _look(cell.pen)
            if look != now:
                parts.append(f"\x1b[0;{look}m" if look else "\x1b[0m")
                now = look
            parts.append(cell.char)
        lines.append("".join([*parts, "\x1b[0m" if now else ""]))
    return "\n".join(lines)


def _look(pen: Any) -> str:  # noqa: ANN401 - a pen of avt
    codes = [code for name, code in _STYLES if getattr(pen, name)]
    codes += [_color(color, kind) for color, kind in ((pen.foreground, 38), (pen.background, 48)) if color is not None]
    return ";".join(codes)


def _color(color: Any, kind: int) -> str:  # noqa: ANN401 - a colour of avt
    import avt

    if isinstance(color, avt.Color.RGB):  # type: ignore[attr-defined]
        return f"{kind};2;{color[0]};{color[1]};{color[2]}"
    return f"{kind};5;{color[0]}"
