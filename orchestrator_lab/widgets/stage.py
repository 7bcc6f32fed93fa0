"""The one thread on which widgets change, and work that must not hold it up.

Traits are not made for threads: what the browser sets and what a thread sets at the same time can get lost. In a kernel
the browser's messages are handled on its event loop, so everything else that changes a widget is handed to that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stage", "in_background", "sentence_of"]

logger = logging.getLogger(__name__)


class Stage:
    """Hands changes of widgets to the kernel's event loop, in order.

    While a synchronous cell runs the loop stands still and changes wait; they are few, since those that only replace
    each other carry the same key. Without a kernel (a plain Python program) changes are made at once.
    """

    def __init__(self) -> None:
        self._loop = kernel_loop()
        self._lock = threading.RLock()
        self._changes: deque[tuple[object, Callable[[], None]]] = deque()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The kernel's event loop, None without a kernel."""
        return self._loop

    def change(self, change: Callable[[], None], *, key: object = None) -> None:
        """Make a change on the stage, from any thread.

        Parameters
        ----------
        change : callable
            Sets traits.
        key : object, optional
            A change that waits still and has the same key is left out: this one replaces it.
        """
        if self._loop is None or self._loop.is_closed():
            with self._lock:
                change()
            return
        with self._lock:
            if key is not None:
                self._changes = deque(one for one in self._changes if one[0] != key)
            self._changes.append((key, change))
            waiting = len(self._changes) > 1
        if not waiting:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody looks any more
                self._loop.call_soon_threadsafe(self._make)

    def _make(self) -> None:
        while True:
            with self._lock:
                if not self._changes:
                    return
                _, change = self._changes.popleft()
            try:
                change()
            except Exception:  # one that fails must not hold up the others
                logger.exception("a widget could not be changed")


def kernel_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of the kernel's main thread, None outside of a kernel."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:  # a kernel has it
        return None
    shell: Any = get_ipython()
    loop = getattr(getattr(getattr(shell, "kernel", None), "io_loop", None), "asyncio_loop", None)
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def in_background(work: Callable[[], str], done: Callable[[str, bool], None]) -> threading.Thread:
    """Do something in a thread of its own; tell its result, or its error, as one sentence.

    Parameters
    ----------
    work : callable
        Returns what is to be said.
    done : callable
        Called in that thread with the sentence, and whether it is of a success.

    Returns
    -------
    threading.Thread
        It does not hold up the end of the kernel.
    """

    def run() -> None:
        try:
            said, well = work(), True
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the person who clicked
            said, well = sentence_of(error), False
        done(said, well)

    thread = threading.Thread(target=run, name="orchestrator-lab-widget", daemon=True)
    thread.start()
    return thread


def sentence_of(error: BaseException) -> str:
    """Return an error as one sentence; one that nobody foresaw goes to the log with its traceback.

    Examples
    --------
    >>> sentence_of(OrchestratorLabError("no agent 'bos' in cluster 'duo'"))
    "no agent 'bos' in cluster 'duo'"
    """
    if isinstance(error, OrchestratorLabError):
        return error.message
    logger.error("an action of a widget failed", exc_info=error)
    text = str(error).strip().partition("\n")[0]
    return f"this is a bug: {type(error).__name__}{f': {text}' if text else ''}"
