"""What tmux knows of a pane, read in as few fields as possible.

Each field costs tmux about a microsecond a pane, so what cannot change while a process lives in a pane
(:data:`FIXED`) is read once, and the rest (:data:`STATE`) each time.
"""

from __future__ import annotations

import functools
import json
import signal
from dataclasses import dataclass, field

__all__ = ["FIXED", "PULSE", "STATE", "FixedFacts", "PaneInfo", "Pulse", "dump_tags", "load_tags"]

#: Option of a pane that holds our tags as one JSON object, and the server's: two names, because in a format the
#: server's option would hide the pane's of the same name.
TAGS_OPTION = "@olab_tags"
SERVER_TAGS_OPTION = "@olab_server_tags"
#: Option of the pane that keeps a session without agents alive.
LOBBY_OPTION = "@olab_lobby"
#: Option of the session of a terminal at one pane (the pane), and its window for when that pane is gone.
TERMINAL_OPTION = "@olab_terminal"
NOTICE_WINDOW = "(gone)"
#: Filter of what stands in the cluster's own session; of a terminal's, the notice is there before its option.
OURS = f"#{{&&:#{{!=:#{{window_name}},{NOTICE_WINDOW}}},#{{?{TERMINAL_OPTION},0,1}}}}"

_DEAD = "#{pane_dead}:#{pane_dead_status}:#{pane_dead_signal}"
#: Format of :class:`Pulse`: is the process there, and how did it end. The status is known before tmux calls the
#: pane dead when a grandchild still holds the terminal open.
PULSE = f"#{{pane_id}} #{{pane_pid}} {_DEAD}"
#: Format of what cannot change while one process lives in a pane.
FIXED = f"#{{pane_id}} #{{pane_pid}} #{{window_id}} #{{pane_tty}} #{{?{LOBBY_OPTION},1,0}} #{{{TAGS_OPTION}}}"
#: Format of the rest; the title comes last because it may hold anything.
STATE = (
    "#{pane_id} #{pane_pid} "
    "#{?pane_dead,1:#{pane_dead_status}:#{pane_dead_signal},0::} "
    "#{pane_in_mode} #{pane_width} #{pane_height} #{cursor_x} #{cursor_y} #{pane_title}"
)


@dataclass(frozen=True, slots=True)
class PaneInfo:
    """A pane at one moment.

    Parameters
    ----------
    pane_id, window_id : str
        tmux's ids (``%3``, ``@2``), unique while the server lives.
    pid : int
        Process that was started in the pane; it stays after that process is gone.
    tty : str
        Path of its terminal.
    dead : bool
        Whether the process is gone (the pane stays, with its last screen).
    exit_status, exit_signal : int or None
        How it ended; both None while it lives, and when tmux does not know.
    in_mode : bool
        Whether somebody scrolls in it (copy mode) or a tmux view covers it.
    cols, rows : int
        Size in characters.
    cursor_x, cursor_y : int
        Place of the cursor, from 0.
    title : str
        Title that the program set.
    tags : dict of str to str
        What the pane was tagged with.
    """

    pane_id: str
    window_id: str
    pid: int
    tty: str
    dead: bool
    exit_status: int | None
    exit_signal: int | None
    in_mode: bool
    cols: int
    rows: int
    cursor_x: int
    cursor_y: int
    title: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pulse:
    """Whether a pane's process lives, and how it ended.

    Parameters
    ----------
    pane_id : str
        tmux's id of the pane.
    pid : int
        The process started in it.
    dead : bool
        Whether tmux calls the pane dead.
    exit_status, exit_signal : int or None
        How it ended, as far as tmux knows.
    """

    pane_id: str
    pid: int
    dead: bool
    exit_status: int | None
    exit_signal: int | None

    @property
    def settled(self) -> bool:
        """Whether tmux knows how the process ended."""
        return self.exit_status is not None or self.exit_signal is not None


@dataclass(frozen=True, slots=True)
class FixedFacts:
    """What cannot change while one process lives in a pane."""

    pid: int
    window_id: str
    tty: str
    lobby: bool
    tags: dict[str, str]


def _signal_number(text: str) -> int | None:
    if not text:
        return None
    if text.isdigit():
        return int(text)
    try:
        return int(signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"])
    except KeyError:
        return None


@functools.lru_cache(maxsize=4096)  # of most panes the line says the same each time
def parse_pulse(line: bytes) -> Pulse:
    """Return the pulse in a line of :data:`PULSE`."""
    pane_id, pid, dead = line.decode().split(" ")
    flag, status, number = dead.split(":")
    return Pulse(pane_id, int(pid), flag == "1", int(status) if status else None, _signal_number(number))


def parse_fixed(line: bytes) -> tuple[str, FixedFacts]:
    """Return the pane's id and what is fixed, from a line of :data:`FIXED`."""
    words = line.decode("utf-8", "replace").split(" ", 5)
    pane_id, pid, window_id, tty, lobby, tags = words
    return pane_id, FixedFacts(int(pid), window_id, tty, lobby == "1", load_tags(tags))


def split_state(line: bytes) -> list[str]:
    """Return the words of a line of :data:`STATE`."""
    return line.decode("utf-8", "replace").split(" ", 8)


def join_state(words: list[str], fixed: FixedFacts) -> PaneInfo:
    """Return the pane that the words of :func:`split_state` and the fixed facts describe."""
    pane_id, pid, end, in_mode, cols, rows, cursor_x, cursor_y, title = words
    status = number = None
    dead = end != "0::"
    if dead:
        _, status_text, signal_text = end.split(":")
        status = int(status_text) if status_text else None
        number = _signal_number(signal_text)
    return PaneInfo(
        pane_id,
        fixed.window_id,
        int(pid),
        fixed.tty,
        dead,
        status,
        number,
        in_mode != "0",
        int(cols),
        int(rows),
        int(cursor_x),
        int(cursor_y),
        title,
        fixed.tags,
    )


def dump_tags(tags: dict[str, str]) -> str:
    """Return tags as the text of a tmux option: one line of ASCII JSON.

    Parameters
    ----------
    tags : dict of str to str
        The tags.

    Returns
    -------
    str
        The option's value.
    """
    return json.dumps(tags, sort_keys=True, separators=(",", ":"))


def load_tags(text: str) -> dict[str, str]:
    """Return the tags in the text of a tmux option; none when somebody else wrote it.

    Parameters
    ----------
    text : str
        The option's value.

    Returns
    -------
    dict of str to str
        The tags.
    """
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
