"""The one thread that talks to tmux.

libtmux is synchronous, and the parent-death signal of the control client follows the thread that started it: so all
tmux work runs on one thread that lives as long as the process, and the asyncio loop never waits on it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TmuxThread"]

T = TypeVar("T")


class TmuxThread:
    """Runs calls one after the other on a permanent thread."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any]] | None]
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tmux", daemon=True)
        self._thread.start()

    async def run(self, call: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Run one call on the thread and return what it returns (or raise what it raises)."""
        return await self.submit(lambda: call(*args, **kwargs))

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Have a call run on the thread, while its caller goes on."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._work.put((loop, future, call))
        return future

    def close(self) -> None:
        """End the thread after what is queued."""
        self._work.put(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            loop, future, call = item
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - handed to whoever awaits
                _post(loop, _fail, future, error)
            else:
                _post(loop, _finish, future, result)


def _post(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


def _finish(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
