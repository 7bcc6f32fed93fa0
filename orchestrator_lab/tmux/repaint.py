r"""What a pane shows, as bytes that make a fresh terminal show the same.

tmux has drawn all that a program wrote; who comes later gets its picture: cells with colours, the cursor, the modes.
:func:`paint` is pure, :func:`picture` asks tmux.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import TmuxError
from orchestrator_lab.tmux.paste import check_pane_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator_lab.tmux.control import ControlChannel

__all__ = ["PaneModes", "Picture", "paint", "picture"]

#: Format of :class:`PaneModes`; what a version of tmux does not know is empty.
MODES = (
    "#{pane_id} #{pane_width} #{pane_height} #{cursor_x} #{cursor_y} "
    "#{scroll_region_upper} #{scroll_region_lower} #{alternate_saved_x} #{alternate_saved_y} "
    "#{?alternate_on,1,0} #{?cursor_flag,1,0} #{?insert_flag,1,0} #{?origin_flag,1,0} #{?wrap_flag,1,0} "
    "#{?keypad_cursor_flag,1,0} #{?keypad_flag,1,0} "
    "#{?mouse_standard_flag,1,0} #{?mouse_button_flag,1,0} #{?mouse_all_flag,1,0} #{?mouse_sgr_flag,1,0}"
)

#: So many of them are numbers, the others are flags.
_PLACES = 8
#: Looks at a pane whose cursor or modes change while it is captured.
_TRIES = 4
#: What tmux says for "no saved cursor": the greatest unsigned number.
_NOWHERE = 0xFFFF
_OCTAL = re.compile(rb"\\([0-7]{3})")

#: Reset; G0 is ASCII and G1 the line drawing set, as tmux's own terminal type has it; no wrapping while it is painted.
_BEGIN = b"\x1bc\x1b(B\x1b)0\x1b[?7l"


@dataclass(frozen=True, slots=True)
class PaneModes:
    """How a pane's terminal stands, beside its cells.

    Parameters
    ----------
    cols, rows : int
        Size in characters.
    cursor_x, cursor_y : int
        Place of the cursor, from 0; one column more than there are while a line is full and the next character wraps.
    region_top, region_bottom : int
        First and last line of the scrolling region, from 0.
    saved_x, saved_y : int
        Where the cursor was when the alternate screen was entered.
    alternate : bool
        Whether the alternate screen is shown.
    cursor : bool
        Whether the cursor can be seen.
    insert, origin, wrap : bool
        Insert mode, origin mode, wrapping at the end of a line.
    cursor_keys, keypad : bool
        Application cursor keys and application keypad.
    mouse_standard, mouse_button, mouse_all, mouse_sgr : bool
        What the program wants to be told of the mouse.
    """

    cols: int
    rows: int
    cursor_x: int
    cursor_y: int
    region_top: int
    region_bottom: int
    saved_x: int = 0
    saved_y: int = 0
    alternate: bool = False
    cursor: bool = True
    insert: bool = False
    origin: bool = False
    wrap: bool = True
    cursor_keys: bool = False
    keypad: bool = False
    mouse_standard: bool = False
    mouse_button: bool = False
    mouse_all: bool = False
    mouse_sgr: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A pane at one moment.

    Parameters
    ----------
    data : bytes
        Recreates it, whatever the terminal showed before.
    cols, rows : int
        The size that the terminal must have.
    """

    data: bytes
    cols: int
    rows: int


def parse_modes(line: bytes) -> tuple[str, PaneModes]:
    """Return the pane's id and its modes, from a line of :data:`MODES`."""
    pane_id, *words = line.decode("ascii", "replace").split(" ")
    numbers = [int(word) if word.isdigit() else 0 for word in words]
    places: Any = numbers[:_PLACES]
    flags: Any = [number == 1 for number in numbers[_PLACES:]]
    return pane_id, PaneModes(*places, *flags)


def paint(
    modes: PaneModes,
    lines: Sequence[bytes],
    saved: Sequence[bytes] = (),
    *,
    pending: bytes = b"",
    bracketed_paste: bool = False,
) -> bytes:
    r"""Return the bytes that make a terminal of the same size show a pane.

    Parameters
    ----------
    modes : PaneModes
        Cursor and modes.
    lines : sequence of bytes
        The screen's lines with their escape sequences; a colour goes on into the next line.
    saved : sequence of bytes
        Likewise the normal screen, while the alternate one is shown.
    pending : bytes
        The beginning of an escape sequence whose rest the program has not written yet.
    bracketed_paste : bool
        Whether the program wants pastes to be marked, which tmux does not tell.

    Returns
    -------
    bytes
        Escape sequences and text.

    Examples
    --------
    >>> paint(PaneModes(80, 24, 2, 0, 0, 23), [b"hi"])
    b'\x1bc\x1b(B\x1b)0\x1b[?7l\x1b[1;1Hhi\x1b[m\x0f\x1b[?7h\x1b[1;3H'
    """
    parts = [_BEGIN]
    if modes.alternate:
        parts.append(_cells(saved, modes.rows))
        if modes.saved_x < _NOWHERE and modes.saved_y < _NOWHERE:
            parts.append(_at(modes.saved_x, modes.saved_y))
        parts.append(b"\x1b[?1049h")
    parts.append(_cells(lines, modes.rows))
    if (modes.region_top, modes.region_bottom) != (0, modes.rows - 1):
        parts.append(b"\x1b[%d;%dr" % (modes.region_top + 1, modes.region_bottom + 1))
    switches = (
        (modes.wrap, b"\x1b[?7h"),
        (modes.cursor_keys, b"\x1b[?1h"),
        (modes.keypad, b"\x1b="),
        (modes.mouse_standard, b"\x1b[?1000h"),
        (modes.mouse_button, b"\x1b[?1002h"),
        (modes.mouse_all, b"\x1b[?1003h"),
        (modes.mouse_sgr, b"\x1b[?1006h"),
        (bracketed_paste, b"\x1b[?2004h"),
        (modes.insert, b"\x1b[4h"),
        (modes.origin, b"\x1b[?6h"),
        (not modes.cursor, b"\x1b[?25l"),
    )
    parts += [sequence for on, sequence in switches if on]
    # With origin mode lines are counted from the top of the region.
    top = modes.region_top if modes.origin else 0
    if modes.cursor_x >= modes.cols and modes.wrap and not modes.insert and not modes.origin:
        # A cursor that is about to wrap cannot be placed, only written to. Colours come from the lines above.
        parts.append(_cells(lines, modes.cursor_y + 1))
    else:
        parts.append(_at(min(modes.cursor_x, modes.cols - 1), modes.cursor_y - top))
    return b"".join([*parts, pending])


def _cells(lines: Sequence[bytes], rows: int) -> bytes:
    painted = [b"\x1b[%d;1H%b" % (number, line) for number, line in enumerate(lines[:rows], 1) if line]
    return b"".join([*painted, b"\x1b[m\x0f"])


def _at(x: int, y: int) -> bytes:
    return b"\x1b[%d;%dH" % (y + 1, x + 1)


def unescape(text: bytes) -> bytes:
    r"""Return bytes that tmux printed with octal escapes.

    Parameters
    ----------
    text : bytes
        What ``capture-pane -C`` printed.

    Returns
    -------
    bytes
        The bytes themselves.

    Examples
    --------
    >>> unescape(rb"\033[38;5")
    b'\x1b[38;5'
    """
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), text)


def picture(channel: ControlChannel, pane_id: str, *, bracketed_paste: bool = False) -> Picture:
    """Return what a pane shows now.

    The size, the cursor and the modes are asked before and after the cells, and all of it again when they differ.

    Parameters
    ----------
    channel : ControlChannel
        To the tmux server.
    pane_id : str
        The pane.
    bracketed_paste : bool
        As for :func:`paint`.

    Returns
    -------
    Picture
        The pane; of one that never stands still, the last look.

    Raises
    ------
    TmuxError
        When there is no such pane.
    """
    check_pane_id(pane_id)
    modes = ["display-message", "-p", "-t", pane_id, MODES]
    cells = ["capture-pane", "-p", "-e", "-N", "-t", pane_id]
    saved = ["capture-pane", "-p", "-e", "-N", "-a", "-q", "-t", pane_id]
    begun = ["capture-pane", "-p", "-P", "-C", "-t", pane_id]
    for _ in range(_TRIES):
        before, shown, hidden, pending, after = channel.batch([modes, cells, saved, begun, modes])
        # display-message answers for another pane when its target does not exist
        if not before.ok or not shown.ok or not before.text.startswith(f"{pane_id} "):
            raise TmuxError(f"there is no pane {pane_id}", pane_id=pane_id)
        if before.lines == after.lines:
            break
    _, found = parse_modes(before.lines[0])
    data = paint(
        found,
        shown.lines,
        hidden.lines if hidden.ok else [],
        pending=unescape(b"".join(pending.lines)) if pending.ok else b"",
        bracketed_paste=bracketed_paste,
    )
    return Picture(data, found.cols, found.rows)
