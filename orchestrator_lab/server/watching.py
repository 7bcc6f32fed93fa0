"""The list of clusters by push: a watch over the runtime folder, and over the processes of the clusters that run.

The folder tells when a cluster begins, ends in order, or when its record changes. A process that is killed leaves no
trace there: its end is told by a pidfd. Where there is none (macOS), such an end is told with the next change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from orchestrator_lab.discovery import RuntimeWatch
from orchestrator_lab.errors import OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.server.clusters import Clusters

__all__ = ["ClusterWatch"]

logger = logging.getLogger(__name__)

#: Seconds without a change after which the list is looked at, and the longest time that changes are waited out.
_QUIET_S, _BURST_S = 0.1, 1.0
_PROCESSES = ("keeper", "supervisor", "tmux")

Told = list[dict[str, Any]] | OrchestratorLabError


class ClusterWatch:
    """Tells everybody who listens the list of clusters: to begin with, and after each change of it.

    Nothing is watched while nobody listens.

    Parameters
    ----------
    clusters : Clusters
        Where they are found.
    """

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        self._ears: dict[object, Callable[[Told], None]] = {}
        self._heard: dict[object, Told] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def listen(self, ear: Callable[[Told], None]) -> Callable[[], None]:
        """Call `ear` with the list, or with why there is none, until the function that is returned is called."""
        key = object()
        self._ears[key] = ear
        self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="orchestrator-lab clusters")

        def leave() -> None:
            self._ears.pop(key, None)
            self._heard.pop(key, None)
            if not self._ears:
                self.close()

        return leave

    def close(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()

        def stir() -> None:
            with contextlib.suppress(RuntimeError):  # the server's loop has ended
                loop.call_soon_threadsafe(self._news.set)

        folder, ends = RuntimeWatch(stir), _Ends(self._news.set)
        try:
            while True:
                self._news.clear()
                # Watched first and looked at then: what changes in between is looked at once more.
                folder.renew()
                self._tell(await self._look(ends))
                await self._news.wait()
                await self._settled()
        except Exception:
            logger.exception("the list of clusters is told no more until a page connects anew")
            self._task = None
        finally:
            ends.watch(set())
            folder.close()

    async def _look(self, ends: _Ends) -> Told:
        try:
            rows, processes = await self._clusters.call(None, self._read)
        except OrchestratorLabError as error:
            return error
        ends.watch(processes)
        return rows

    def _read(self) -> tuple[list[dict[str, Any]], set[tuple[int, float | None]]]:
        running = self._clusters.running()
        processes = {
            (getattr(one, f"{who}_pid"), getattr(one, f"{who}_start"))
            for one in running
            for who in _PROCESSES
            if one.alive(who)
        }
        return self._clusters.rows(running), processes

    def _tell(self, told: Told) -> None:
        for key, ear in list(self._ears.items()):
            if not _same(self._heard.get(key), told):
                self._heard[key] = told
                ear(told)

    async def _settled(self) -> None:
        """Wait until nothing changes for a moment: a start writes its record many times."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + _BURST_S
        while (left := min(_QUIET_S, latest - loop.time())) > 0:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                return


def _same(one: Told | None, other: Told) -> bool:
    if isinstance(one, OrchestratorLabError) and isinstance(other, OrchestratorLabError):
        return one.message == other.message
    return one == other


class _Ends:
    """Tells when one of some processes ends."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._watched: dict[tuple[int, float | None], int] = {}

    def watch(self, processes: set[tuple[int, float | None]]) -> None:
        """Watch these, by pid and start time, and no others."""
        for one in self._watched.keys() - processes:
            self._drop(one)
        if not hasattr(os, "pidfd_open"):
            return
        for one in processes - self._watched.keys():
            try:
                descriptor = os.pidfd_open(one[0])
            except ProcessLookupError:
                self._told()  # it ended since it was looked for
                continue
            except OSError as error:
                logger.warning("the end of process %d cannot be watched (%s)", one[0], error)
                continue
            self._watched[one] = descriptor
            self._loop.add_reader(descriptor, self._ended, one)

    def _ended(self, one: tuple[int, float | None]) -> None:
        self._drop(one)
        self._told()

    def _drop(self, one: tuple[int, float | None]) -> None:
        descriptor = self._watched.pop(one)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
