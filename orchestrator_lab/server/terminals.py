"""Jupyter terminals on an agent's pane: to watch, or, after a second and explicit word, to take it over."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import EnvironmentProblem, TmuxMissing
from orchestrator_lab.server import models

if TYPE_CHECKING:
    from collections.abc import Collection

    from jupyter_server_terminals.terminalmanager import TerminalManager

    from orchestrator_lab.server.asked import Asked

__all__ = ["Terminals", "open_terminal", "terminal_name"]

#: Taken out of the terminal's environment: tmux refuses to attach from within another tmux.
_NESTED = ("TMUX", "TMUX_PANE")


class Terminals:
    """The terminals that were opened at panes: one is enough for all who watch a pane, and all end with the server."""

    def __init__(self) -> None:
        #: What each of them runs, and whether it only watches.
        self._opened: dict[str, tuple[tuple[str, ...], bool]] = {}

    def __len__(self) -> int:
        return len(self._opened)

    def watching(self, manager: TerminalManager, argv: list[str]) -> str | None:
        """Return the terminal that watches a pane; its command names the pane, which is never given to another."""
        self._opened = {name: one for name, one in self._opened.items() if name in manager.terminals}
        for name, one in self._opened.items():
            if one == (tuple(argv), True) and manager.terminals[name].ptyproc.isalive():
                return name
        return None

    def add(self, name: str, argv: list[str], *, watches: bool) -> None:
        """Remember one that was opened."""
        self._opened[name] = (tuple(argv), watches)

    async def close(self, manager: TerminalManager) -> None:
        """Close those that are still there."""
        for name in self._opened:
            if name in manager.terminals:  # Jupyter closes all of its terminals at the same time
                await manager.terminate(name, force=True)
        self._opened.clear()


async def open_terminal(asked: Asked) -> dict[str, Any]:
    """Open a Jupyter terminal that is attached to an agent's pane, read-only unless it takes over."""
    take_over = asked.body_as(models.TerminalRequest).take_over
    manager = asked.terminals
    if manager is None:
        raise EnvironmentProblem(
            "terminals are switched off on this Jupyter server: install jupyter_server_terminals and leave "
            "ServerApp.terminals_enabled on"
        )
    attach = await asked.clusters.call(
        asked.name,
        lambda: asked.cluster.client.get(
            f"/agents/{asked.agent}/attach", timeout_s=20.0, read_only="0" if take_over else "1"
        ),
    )
    argv = [str(word) for word in attach["argv"]]
    watching = asked.clusters.terminals.watching(manager, argv)
    if watching is not None:
        return {"name": watching, "take_over": False}
    # Made of what the supervisor says alone: nothing of the request becomes a word of the command.
    program = shutil.which(argv[0])
    if program is None:
        raise TmuxMissing(f"{argv[0]} is not on the PATH of the Jupyter server: install tmux there")
    name = terminal_name(asked.name or "", asked.agent, manager.terminals)
    manager.create(name=name, shell_command=[program, *argv[1:]], extra_env=dict.fromkeys(_NESTED), cwd=str(asked.root))
    asked.clusters.terminals.add(name, argv, watches=not take_over)
    return {"name": name, "take_over": take_over}


def terminal_name(cluster: str, agent: str, taken: Collection[str]) -> str:
    """Return a free name of letters, digits and ``_``, as Jupyter's terminals have them.

    Examples
    --------
    >>> terminal_name("my-lab", "ada", {"lab_my_lab_ada_1"})
    'lab_my_lab_ada_2'
    """
    stem = f"lab_{cluster}_{agent}".replace("-", "_")
    number = 1
    while f"{stem}_{number}" in taken:
        number += 1
    return f"{stem}_{number}"
