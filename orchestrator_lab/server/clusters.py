"""The clusters of this machine as the web server holds them: one client each, its tables, and threads for its calls."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator_lab.client import find
from orchestrator_lab.cluster import Cluster
from orchestrator_lab.frames import JOURNAL, RunTables
from orchestrator_lab.runtime import read_record
from orchestrator_lab.server.pages import EventPages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.folds.base import Fold

__all__ = ["Clusters", "Tables"]

#: Threads for calls, and how many of them one cluster may hold: one that hangs must not hold up the others.
_THREADS, _THREADS_EACH = 32, 8

T = TypeVar("T")


class Tables:
    """The tables of a run, read by several threads.

    Parameters
    ----------
    run_dir : Path
        The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._tables = RunTables(run_dir)
        self._lock = threading.Lock()

    def read(self, table: str, look: Callable[[Fold], T]) -> T:
        """Look at a table, up to date, while nobody else changes it."""
        with self._lock:
            return look(self._tables.fold(table))


@dataclass
class _Known:
    cluster: Cluster
    run_id: str
    tables: Tables
    events: EventPages


class Clusters:
    """Finds clusters by name, and makes the blocking calls to them off the server's loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="orchestrator-lab")
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        #: Names of the terminals that only watch, by cluster and agent: one is enough for all who watch.
        self.watching: dict[tuple[str, str], str] = {}

    async def call(self, name: str | None, function: Callable[[], T]) -> T:
        """Make a blocking call in a thread; `name` is the cluster that it may hang on."""
        if name is None:
            return await self._run(function)
        turn = self._turns.setdefault(name, asyncio.Semaphore(_THREADS_EACH))
        try:
            async with turn:
                return await self._run(function)
        finally:
            # Names are anybody's: only clusters that exist keep an entry.
            if name not in self._known and not turn.locked():
                self._turns.pop(name, None)

    async def _run(self, function: Callable[[], T]) -> T:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(function))

    def get(self, name: str) -> Cluster:
        """Return a cluster that runs.

        Raises
        ------
        ClusterNotFound, VersionMismatch
            As :meth:`orchestrator_lab.Cluster.attach`.
        """
        return self._find(name).cluster

    def tables(self, name: str) -> Tables:
        """Return the tables of a cluster's run."""
        return self._find(name).tables

    def events(self, name: str) -> EventPages:
        """Return the journal of a cluster's run."""
        return self._find(name).events

    def _find(self, name: str) -> _Known:
        try:
            record = read_record(find(name))
        except BaseException:
            self.forget(name)
            raise
        with self._lock:
            known = self._known.get(name)
        if known is not None and record is not None and known.run_id == record.run_id:
            return known
        cluster = Cluster.attach(name)
        journal = cluster.run_dir / JOURNAL
        made = _Known(cluster, cluster.run_id, Tables(cluster.run_dir), EventPages(journal))
        with self._lock:
            self._known[name] = made
        return made

    def forget(self, name: str) -> None:
        """Let go of a cluster that is gone."""
        with self._lock:
            self._known.pop(name, None)

    def close(self) -> None:
        """Start no more calls; those that wait for a supervisor end with it or with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def listed(self) -> list[dict[str, Any]]:
        """Return the clusters that run, without asking any of them; those that have ended are let go of."""
        running = Cluster.list()
        for gone in set(self._known) - {one.name for one in running}:
            self.forget(gone)
        return [
            {
                "name": one.name,
                "run_id": one.run_id,
                "run_dir": one.run_dir,
                "version": one.version,
                "lifetime": one.lifetime,
                "started_at": one.started_at,
                "supervisor_alive": one.alive("supervisor"),
            }
            for one in running
        ]
