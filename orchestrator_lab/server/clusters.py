"""The clusters of this machine as the web server holds them: one client each, its tables, and threads for its calls."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator_lab.client import find
from orchestrator_lab.cluster import Cluster
from orchestrator_lab.errors import ClusterNotFound, ExchangeTimeout, SupervisorLost
from orchestrator_lab.runtime import read_record
from orchestrator_lab.server.pages import EventPages
from orchestrator_lab.server.terminals import Terminals
from orchestrator_lab.tables import JOURNAL, RunTables

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.folds.base import Fold
    from orchestrator_lab.runtime import ClusterRecord

__all__ = ["Clusters", "Tables"]

#: Threads for calls (made as they are needed), and how many of them one cluster may hold: clusters that hang must not
#: hold up the others.
_THREADS, _THREADS_EACH = 256, 8
#: Threads for reading what lies on the disk, which no supervisor can hold up.
_READERS = 8
#: Seconds that a call waits for its turn while as many as one cluster may hold have no answer yet.
_TURN_S = 5.0
#: Seconds for a call that names no timeout of its own.
_PATIENCE_S = 60.0

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
class _Files:
    run_id: str
    tables: Tables
    events: EventPages


class Clusters:
    """Finds clusters by name, and makes the blocking calls to them off the server's loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="orchestrator-lab")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="orchestrator-lab files")
        self._lock = threading.Lock()
        self._known: dict[str, Cluster] = {}
        self._files: dict[str, _Files] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self.terminals = Terminals()

    async def call(self, name: str | None, function: Callable[[], T]) -> T:
        """Make a blocking call in a thread; `name` is the cluster that it may hang on.

        Raises
        ------
        SupervisorLost
            When the cluster's supervisor gave no answer in time, or none to the calls before this one.
        """
        if name is None:
            return await self._run(self._pool, function)
        turn = self._turns.setdefault(name, asyncio.Semaphore(_THREADS_EACH))
        try:
            try:
                await asyncio.wait_for(turn.acquire(), _TURN_S)
            except TimeoutError:
                raise SupervisorLost(
                    f"{_THREADS_EACH} calls wait for the supervisor of cluster {name!r}, and none got an answer within "
                    f"{_TURN_S:g} s: nothing was done; try again, and see its log if it stays so"
                ) from None
            under_way = asyncio.ensure_future(self._run(self._pool, function))
            # The turn is over with the call: whoever gives up waiting for it does not free its thread.
            under_way.add_done_callback(lambda _: turn.release())
            try:
                return await asyncio.shield(under_way)
            except ExchangeTimeout as error:
                raise SupervisorLost(
                    f"{error.message}: its supervisor hangs or is overloaded, and whether it was done is not known"
                ) from error
        finally:
            # Names are anybody's: only clusters that exist keep an entry.
            if name not in self._known and not turn.locked():
                self._turns.pop(name, None)

    async def read(self, function: Callable[[], T]) -> T:
        """Read files in a thread: answered also while the supervisors hang, whom `function` must not call."""
        return await self._run(self._readers, function)

    async def _run(self, pool: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(function))

    def get(self, name: str) -> Cluster:
        """Return a cluster that runs.

        Raises
        ------
        ClusterNotFound, VersionMismatch
            As :meth:`orchestrator_lab.Cluster.attach`.
        """
        record = self._record(name)
        with self._lock:
            known = self._known.get(name)
        if known is not None and record is not None and known.run_id == record.run_id:
            return known
        made = self.attach(name)
        _ = made.run_id  # asked for here, where it may take its time
        with self._lock:
            self._known[name] = made
        return made

    @staticmethod
    def attach(name: str) -> Cluster:
        """Return a cluster that runs, through a client of its own that waits for nothing without end."""
        made = Cluster.attach(name)
        made.client.patience_s = _PATIENCE_S
        return made

    def tables(self, name: str) -> Tables:
        """Return the tables of a cluster's run; its supervisor is not asked."""
        return self._run_files(name).tables

    def events(self, name: str) -> EventPages:
        """Return the journal of a cluster's run; its supervisor is not asked."""
        return self._run_files(name).events

    def _record(self, name: str) -> ClusterRecord | None:
        try:
            return read_record(find(name))
        except BaseException:
            self.forget(name)
            raise

    def _run_files(self, name: str) -> _Files:
        record = self._record(name)
        if record is None:
            raise ClusterNotFound(f"cluster {name!r} has just ended", cluster=name)
        with self._lock:
            files = self._files.get(name)
            if files is None or files.run_id != record.run_id:
                folder = Path(record.run_dir)
                files = self._files[name] = _Files(record.run_id, Tables(folder), EventPages(folder / JOURNAL))
        return files

    def forget(self, name: str) -> None:
        """Let go of a cluster that is gone."""
        with self._lock:
            self._known.pop(name, None)
            self._files.pop(name, None)

    def close(self) -> None:
        """Start no more calls; those that wait for a supervisor end with it or with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def running(self) -> list[ClusterRecord]:
        """Return the clusters that run, without asking any of them; those that have ended are let go of."""
        running = Cluster.list()
        for gone in {*self._known, *self._files} - {one.name for one in running}:
            self.forget(gone)
        return running

    @staticmethod
    def rows(running: list[ClusterRecord]) -> list[dict[str, Any]]:
        """Return clusters as the web API tells them."""
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

    def listed(self) -> list[dict[str, Any]]:
        """Return the clusters that run as the web API tells them."""
        return self.rows(self.running())
