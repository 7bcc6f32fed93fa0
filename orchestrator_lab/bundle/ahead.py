"""Files gone through piece by piece: what other threads do meanwhile, and what is copied."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

__all__ = ["ahead", "copy_bytes"]

_PIECE = 8 << 20

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def ahead(given: Iterable[_Given], make: Callable[[_Given], _Made]) -> Iterator[_Made]:
    """Yield what is made of each thing, in order, made on as many threads as there are cores.

    Parameters
    ----------
    given : iterable
        Taken no further ahead than the threads need: what it holds is never in memory as a whole.
    make : callable
        What is done to each; it pays off where it lets other threads run meanwhile.

    Yields
    ------
    object
        What `make` returned.

    Examples
    --------
    >>> list(ahead(range(5), str))
    ['0', '1', '2', '3', '4']
    """
    cores = os.cpu_count() or 1
    waiting: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(cores, "bundle") as pool:
        try:
            for one in given:
                waiting.append(pool.submit(make, one))
                if len(waiting) > 2 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def copy_bytes(source: BinaryIO, target: BinaryIO, count: int) -> None:
    """Copy so many bytes of a file that is open to another one.

    Parameters
    ----------
    source, target : binary file
        Where they come from, and where they go.
    count : int
        How many; fewer when there are no more.
    """
    while count and (piece := source.read(min(count, _PIECE))):
        target.write(piece)
        count -= len(piece)
