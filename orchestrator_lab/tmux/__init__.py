"""The only place that talks to tmux."""

from __future__ import annotations

from orchestrator_lab.tmux.binary import FLOOR, TmuxBinary, find_tmux
from orchestrator_lab.tmux.driver import TmuxDriver, attach_argv
from orchestrator_lab.tmux.exits import PaneExit
from orchestrator_lab.tmux.panes import PaneInfo, Pulse
from orchestrator_lab.tmux.terminal import TerminalModes
from orchestrator_lab.tmux.text import sanitize

__all__ = [
    "FLOOR",
    "PaneExit",
    "PaneInfo",
    "Pulse",
    "TerminalModes",
    "TmuxBinary",
    "TmuxDriver",
    "attach_argv",
    "find_tmux",
    "sanitize",
]
