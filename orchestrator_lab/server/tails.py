"""Logs as they grow: the end of a file, and then what is appended to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from watchdog.events import FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileSystemEventHandler

from orchestrator_lab.folders import observe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from watchdog.events import FileSystemEvent

__all__ = ["Piece", "Tail", "follow"]

#: Bytes that are told at once. A log that has grown by more is told from its end again.
_MOST = 65_536
_EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileDeletedEvent, FileModifiedEvent]


class Piece(NamedTuple):
    """Whole lines of a log."""

    text: str
    #: Whether they take the place of all before them.
    begin: bool
    #: Whether there are lines before them that were not told.
    truncated: bool


class Tail:
    """The end of a file, and then what is new of it.

    Parameters
    ----------
    path : Path
        The file; it need not be there yet.
    most : int
        Bytes of one piece.

    Examples
    --------
    >>> from pathlib import Path
    >>> Tail(Path("/nonexistent/a.log")).read()
    Piece(text='', begin=True, truncated=False)
    """

    def __init__(self, path: Path, *, most: int = _MOST) -> None:
        self._path, self._most = path, most
        self._file: tuple[int, int] | None = None
        self._offset: int | None = None

    def read(self) -> Piece | None:
        """Return what is new, None when nothing is.

        Raises
        ------
        FileNotFoundError
            When the file is gone.
        """
        try:
            log = self._path.open("rb")
        except FileNotFoundError:
            if self._offset is None:
                self._offset = 0
                return Piece("", begin=True, truncated=False)
            if self._file is None:
                return None
            raise
        with log:
            facts = os.fstat(log.fileno())
            size, file = facts.st_size, (facts.st_dev, facts.st_ino)
            known = self._offset if self._file in {None, file} else None
            self._file = file
            begin = known is None or not known <= size <= known + self._most
            start = max(0, size - self._most) if begin else known or 0
            log.seek(start)
            data = log.read(size - start)
        if begin and start:
            # The line that it was cut in is left out.
            cut = data.find(b"\n") + 1
            start, data = start + cut, data[cut:]
        end = data.rfind(b"\n") + 1
        if not end and len(data) < self._most:
            self._offset = start
            # An empty log is told, half a line is not.
            return Piece("", begin=True, truncated=start > 0) if begin else None
        data = data[: end or len(data)]
        self._offset = start + len(data)
        return Piece(data.decode("utf-8", "replace"), begin=begin, truncated=begin and start > 0)


async def follow(
    path: Path, read: Callable[[Callable[[], Piece | None]], Awaitable[Piece | None]]
) -> AsyncGenerator[Piece]:
    """Give the pieces of a log, each once the one before was taken; end when the log is gone.

    Parameters
    ----------
    path : Path
        The log; its folder must be there.
    read : callable
        Reads in a thread.
    """
    loop, grown = asyncio.get_running_loop(), asyncio.Event()

    def stir() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(grown.set)

    tail = Tail(path)
    # Watched first and read then: what is written in between is read once more.
    stop = observe(_Ear(path.name, stir), path.parent, events=_EVENTS)
    try:
        while True:
            grown.clear()
            piece = await read(tail.read)
            if piece is not None:
                yield piece
            else:
                await grown.wait()
    except FileNotFoundError:
        return
    finally:
        stop()


class _Ear(FileSystemEventHandler):
    """Hears of one file, in a thread of the observer's."""

    def __init__(self, name: str, told: Callable[[], None]) -> None:
        self._name, self._told = name, told

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Tell when the file has changed."""
        if Path(os.fsdecode(event.src_path)).name == self._name:
            self._told()
