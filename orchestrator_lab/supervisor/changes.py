"""What each turn changed in its agent's work folder, where that is under git.

A look at the folder when a message is about to be typed, another one when the turn ends, both in a thread beside
everything else: neither delivery nor a turn's end waits for git. What lies between is the turn's; another agent that
worked in the same folder meanwhile may have had a part in it, which is said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.runtime import private_dir, write_private
from orchestrator_lab.supervisor.worktree import LookFailedError, WorkTree, in_repository

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.turns import Turn

__all__ = ["Changes", "overlap"]

logger = logging.getLogger(__name__)

#: A first look that comes later than this may miss what the turn has done already, in seconds.
_LATE_S = 2.0
#: A look of before a message that is older than this belongs to one that began no turn, in seconds.
_STALE_S = 60.0
#: Looks that failed one after the other, after which a folder is left alone.
_FAILURES = 3
#: Longest wait for looks that are under way at the end, in seconds.
_CLOSE_S = 15.0
#: Kinds whose programs cannot change files.
_WITHOUT_FILES = frozenset({"chat"})


@dataclass(slots=True)
class _Watch:
    """One turn whose folder is looked at."""

    runner: AgentRunner
    folder: Path
    asked: float = field(default_factory=time.monotonic)
    #: When its program was given what it may change files for, None before that.
    given: float | None = None
    #: Agents that had a turn in the same folder meanwhile.
    others: set[str] = field(default_factory=set)
    tree: str | None = None
    error: str | None = None


def overlap(one: Path, other: Path) -> bool:
    """Tell whether what happens in one folder is seen in another.

    Examples
    --------
    >>> from pathlib import Path
    >>> overlap(Path("/w"), Path("/w/a")), overlap(Path("/w/a"), Path("/w/b"))
    (True, False)
    """
    return one.is_relative_to(other) or other.is_relative_to(one)


class Changes:
    """Looks at the folders of turns.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._watched: dict[str, _Watch] = {}
        #: Looks of before a turn that has not begun, by agent.
        self._prepared: dict[str, _Watch] = {}
        self._trees: dict[str, WorkTree] = {}
        self._failures: dict[str, int] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def before(self, runner: AgentRunner) -> None:
        """Look at an agent's folder as a message is about to be typed, which as a rule begins a turn."""
        self._prepared.pop(runner.name, None)
        watch = self._watch(runner)
        if watch is not None:
            self._prepared[runner.name] = watch

    def typing(self, runner: AgentRunner) -> None:
        """Take note that the first of the message is typed now: a look that comes much later is none of before it."""
        watch = self._prepared.get(runner.name)
        if watch is not None and watch.given is None:
            watch.given = time.monotonic()

    def begin(self, runner: AgentRunner, turn: Turn) -> None:
        """Take the look of before the turn; without one (somebody else typed), look as it begins."""
        watch = self._prepared.pop(runner.name, None)
        if watch is None or time.monotonic() - watch.asked > _STALE_S:
            watch = self._watch(runner)
        if watch is None:
            return
        watch.given = watch.given or time.monotonic()
        for other in self._watched.values():
            if other.runner is not runner and overlap(watch.folder, other.folder):
                other.others.add(runner.name)
                watch.others.add(other.runner.name)
        self._watched[turn.turn_id] = watch

    def _watch(self, runner: AgentRunner) -> _Watch | None:
        config = self._supervisor.config
        if not config.record_changes or runner.config.kind in _WITHOUT_FILES:
            return None
        folder = config.work_dir_of(runner.config).resolve()
        if self._failures.get(runner.name, 0) >= _FAILURES or not in_repository(folder):
            return None
        watch = _Watch(runner, folder)
        self._soon(self._first(watch))
        return watch

    def end(self, turn: Turn) -> None:
        """Look again as it ends, and journal what lies between."""
        watch = self._watched.pop(turn.turn_id, None)
        if watch is not None:
            self._soon(self._last(watch, turn.turn_id))

    async def close(self) -> None:
        """Wait for what is under way, but not for ever."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        for task in self._tasks:
            task.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _soon(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_thread(self, work: Any, *given: Any) -> Any:  # noqa: ANN401
        if self._thread is None:
            # One look at a time, in the order in which they were asked for.
            self._thread = ThreadPoolExecutor(1, "changes")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    async def _first(self, watch: _Watch) -> None:
        tree = self._tree(watch)

        def look() -> None:
            # In the thread, where the second look finds it.
            late = 0.0 if watch.given is None else time.monotonic() - watch.given
            if late > _LATE_S:
                watch.error = f"the folder was looked at {late:.1f} s after it should have been"
                return
            try:
                watch.tree = tree.look()
            except LookFailedError as error:
                watch.error = str(error)

        await self._in_thread(look)

    async def _last(self, watch: _Watch, turn_id: str) -> None:
        runner, tree = watch.runner, self._tree(watch)
        facts: dict[str, Any] = {}

        def look() -> dict[str, Any]:
            # There is one thread, so the first look is over.
            if watch.tree is None:
                return {}
            begun = time.monotonic()
            change = tree.change(watch.tree, tree.look())
            found: dict[str, Any] = {
                "files_changed": change.files,
                "lines_added": change.lines_added,
                "lines_removed": change.lines_removed,
                "truncated": change.truncated or None,
                "left_out": tree.left_out or None,
            }
            if change.patch:
                place = f"changes/{runner.name}/{turn_id}.patch"
                file = self._supervisor.run_dir / place
                private_dir(file.parent.parent)
                private_dir(file.parent)
                write_private(file, self._supervisor.mask_bytes(change.patch))
                found["patch"] = place
            return {**found, "took_s": round(time.monotonic() - begun, 6)}

        try:
            facts = await self._in_thread(look)
        except (LookFailedError, OSError) as error:
            watch.error = str(error)
        failures = 0 if watch.error is None else self._failures.get(runner.name, 0) + 1
        self._failures[runner.name] = failures
        if watch.others:
            facts["shared_with"] = sorted(watch.others)
        if watch.error is not None:
            facts["error"] = watch.error
        level = "info" if watch.error is None else "warning"
        known = {key: value for key, value in facts.items() if value is not None}
        try:
            self._supervisor.journal.append(
                "turn.changes", agent=runner.name, turn_id=turn_id, source="git", level=level, **known
            )
        except OrchestratorLabError as error:
            logger.warning("what a turn of %s changed is not recorded: %s", runner.name, error)

    def _tree(self, watch: _Watch) -> WorkTree:
        """Return what looks at an agent's folder, with an index of its own."""
        name = watch.runner.name
        tree = self._trees.get(name)
        if tree is None or tree.folder != watch.folder:
            exclude = [self._supervisor.run_dir.resolve().parent, self._supervisor.folder.resolve()]
            tree = self._trees[name] = WorkTree(watch.folder, watch.runner.folder / "changes", exclude)
        return tree
