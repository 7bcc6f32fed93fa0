"""Requests of one socket: in order for each cluster, and no cluster waits for another."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Job = Callable[[], Awaitable[None]]

__all__ = ["Lanes"]


class Lanes:
    """Does what is put in, one job after another for each name, those of different names side by side.

    Parameters
    ----------
    most : int
        Jobs of one name that may wait.
    most_names : int
        Names that may have a job at once.

    Examples
    --------
    >>> done = []
    >>> async def job() -> None:
    ...     done.append(len(done))
    >>> async def main() -> None:
    ...     lanes = Lanes(most=1, most_names=1)
    ...     print(lanes.put("lab", job), lanes.put("lab", job), lanes.put("lab", job), lanes.put("other", job))
    ...     await lanes.idle()
    >>> asyncio.run(main())
    True True False False
    >>> done
    [0, 1]
    """

    def __init__(self, *, most: int, most_names: int) -> None:
        self._most, self._most_names = most, most_names
        self._waiting: dict[str, deque[Job]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, name: str, job: Job) -> bool:
        """Take a job, which tells its own failures; False when too many wait already."""
        waiting = self._waiting.get(name)
        if waiting is None:
            if len(self._waiting) >= self._most_names:
                return False
            self._waiting[name] = deque()
            task = asyncio.create_task(self._work(name, job), name=f"orchestrator-lab requests of {name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return True
        if len(waiting) >= self._most:
            return False
        waiting.append(job)
        return True

    async def _work(self, name: str, job: Job) -> None:
        waiting = self._waiting[name]
        try:
            await job()
            while waiting:
                await waiting.popleft()()
        finally:
            del self._waiting[name]

    def clear(self) -> None:
        """Forget the jobs that wait; those that are being done go on to their end."""
        for waiting in self._waiting.values():
            waiting.clear()

    async def idle(self) -> None:
        """Wait until nothing is being done."""
        while self._tasks:
            await asyncio.wait(self._tasks)
