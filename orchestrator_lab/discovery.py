"""Tells when clusters of this user begin or end, whoever starts or ends them.

A cluster is a folder in the runtime folder, with a record and a lock. What a running cluster makes and removes all the
time is passed over.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from orchestrator_lab.errors import EnvironmentProblem
from orchestrator_lab.folders import observe
from orchestrator_lab.runtime import runtime_dir, runtime_place

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RuntimeWatch", "concerns", "follow"]

_EVENTS: list[type[FileSystemEvent]] = [
    *(DirCreatedEvent, DirDeletedEvent, DirMovedEvent),
    *(FileCreatedEvent, FileDeletedEvent, FileMovedEvent),
]
#: Seconds after the last change until it is looked once more.
_AGAIN_S = 1.0
#: Files of a cluster's folder that say whether and how it runs.
_TELLING = {"cluster.json", "lock"}


def follow(on_change: Callable[[], None]) -> Callable[[], None]:
    """Call something whenever a cluster may have begun or ended; return what ends that.

    Parameters
    ----------
    on_change : callable
        Called on a thread of its own. That something has changed in the folders is all that is known. Called once
        more when nothing has changed since for a second: a cluster that begins takes its time after its last file.

    Returns
    -------
    callable
        May be called twice, and from within ``on_change``.
    """
    news, ended = threading.Event(), threading.Event()
    watch = RuntimeWatch(news.set)
    # Watched before this returns: what begins then is not missed.
    watch.renew()

    def attend() -> None:
        quiet = True
        try:
            while True:
                changed = news.wait(None if quiet else _AGAIN_S)
                if ended.is_set():
                    return
                quiet = not changed
                news.clear()
                watch.renew()
                on_change()
        finally:
            watch.close()

    threading.Thread(target=attend, name="orchestrator-lab-discovery", daemon=True).start()

    def end() -> None:
        ended.set()
        news.set()

    return end


def concerns(root: Path, path: Path) -> bool:
    """Tell whether a change at a path can change the list of clusters.

    Parameters
    ----------
    root : Path
        The runtime folder.
    path : Path
        What was made, moved or removed.

    Returns
    -------
    bool
        False for what a running cluster makes and removes all the time.

    Examples
    --------
    >>> root = Path("/run/olab")
    >>> [concerns(root, root / place) for place in ("", "duo", "duo/cluster.json", "duo/buffers/msg_1", "duo/x.json")]
    [True, True, True, False, False]
    """
    below = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return len(below) < 2 or (len(below) == 2 and below[1] in _TELLING)


class RuntimeWatch(FileSystemEventHandler):
    """A watch over the runtime folder that is there now; where none can be had, over the folder above it.

    Parameters
    ----------
    told : callable
        Called in a thread of the observer's when the list of clusters may have changed. It must not call
        :meth:`renew` or :meth:`close`, which wait for that thread.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._stop: Callable[[], None] | None = None
        self._watched: list[tuple[Path, int, int]] = []
        self._usable = True

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Hear of a change, in a thread of the observer's."""
        watched = self._watched
        if not watched:
            return
        root, *_ = watched[0]
        paths = [Path(os.fsdecode(path)) for path in (event.src_path, event.dest_path) if path]
        if isinstance(event, DirDeletedEvent) and any(path in paths for path, *_ in watched):
            self._watched = []  # its number may be given to the next folder of that name
        elif self._usable and not any(concerns(root, path) for path in paths):
            return
        self._told()

    def renew(self) -> None:
        """Watch the folder and those of clusters anew, unless they are the ones that are watched."""
        for _ in range(3):  # it may be removed between two of these lines
            try:
                # Links are followed: macOS names the real place.
                place, self._usable = runtime_dir().resolve(), True
            except EnvironmentProblem:
                above = runtime_place().parents
                place, self._usable = next(one for one in above if one.is_dir()).resolve(), False
            try:
                # One by one: a watch of all that is below would hear of each text on its way into a pane.
                below = sorted(one for one in place.iterdir() if one.is_dir()) if self._usable else []
                now = [(one, found.st_dev, found.st_ino) for one in (place, *below) for found in (one.stat(),)]
                if now == self._watched:
                    return
                self.close()
                self._stop = observe(self, place, *below, events=_EVENTS if self._usable else None)
            except FileNotFoundError:
                continue
            self._watched = now
            return

    def close(self) -> None:
        """Watch nothing."""
        stop, self._stop, self._watched = self._stop, None, []
        if stop is not None:
            stop()
