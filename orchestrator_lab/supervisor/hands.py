"""A person at a pane, through a view: what it shows, and what is typed into it."""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ClusterStopped, ConfigError

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["KEYS_LIMIT", "Hands"]

#: Bytes that are typed in one call: a person's keys, or what a person pastes.
KEYS_LIMIT = 1 << 16


class Hands:
    """Repaints panes and types into them.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        # What a person types comes in the order of the calls, whatever the journal's flushes take.
        self._typing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def repaint(self, name: str) -> dict[str, Any]:
        """Return a pane's picture.

        Parameters
        ----------
        name : str
            The agent.

        Returns
        -------
        dict
            ``data`` (base64: bytes that make a terminal show it), ``cols``, ``rows``; no data for an agent without a
            pane.

        Raises
        ------
        AgentNotFound, TmuxError
            When there is none.
        """
        runner, cluster = self._cluster.runner(name), self._cluster
        if runner.pane_id is None:
            cols, rows = cluster.config.size_of(runner.config)
            return {"agent": name, "data": "", "cols": cols, "rows": rows}
        made = await cluster.tmux.run(
            cluster.driver.picture, runner.pane_id, bracketed_paste=runner.running and runner.bracketed_paste
        )
        # Once tmux has answered again, it has passed on to the keeper all that is in the picture.
        await cluster.tmux.run(cluster.driver.run, "display-message", "-p", "")
        return {"agent": name, "data": base64.b64encode(made.data).decode(), "cols": made.cols, "rows": made.rows}

    async def type(self, name: str, keys: str) -> int:
        """Type into a pane what a person typed into a view of it.

        Parameters
        ----------
        name : str
            The agent.
        keys : str
            What a terminal sends for the keys, control characters and all.

        Returns
        -------
        int
            Bytes typed.

        Raises
        ------
        ConfigError
            When it is too much; nothing was typed.
        ClusterStopped
            When the agent's program does not run.
        DiskFull, JournalError
            When it cannot be journalled: nothing was typed.
        """
        runner, cluster = self._cluster.runner(name), self._cluster
        data = keys.encode("utf-8", "replace")
        if len(data) > KEYS_LIMIT:
            raise ConfigError(
                f"{len(data)} bytes are too many keys for agent {name!r}: at most {KEYS_LIMIT} at a time; send a long "
                "text as a message"
            )
        async with self._typing[name]:
            if not runner.running or runner.pane_id is None:
                raise ClusterStopped(f"agent {name!r} does not run: nothing can be typed into its pane", agent=name)
            pane_id, pid = runner.pane_id, runner.pid
            # Passwords are typed as well as words: how much is all that is kept.
            cluster.journal.append("agent.keys", agent=name, source="human", bytes=len(data))
            await cluster.journal.asynced()
            # It may have ended while the disk was written to, and another program may have its pane.
            if (runner.running, runner.pane_id, runner.pid) != (True, pane_id, pid):
                raise ClusterStopped(f"agent {name!r} has just ended: nothing was typed into its pane", agent=name)
            await cluster.tmux.run(cluster.driver.paste, pane_id, data, bracketed=False, keep_newlines=True)
        return len(data)
