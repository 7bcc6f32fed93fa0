"""Folders: how much is in one, and when something in it changes, as the system tells or else by looking."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver

__all__ = ["observe", "size_of"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at a folder that the system cannot watch.
_POLL_S = 5.0


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; links are not followed.

    Parameters
    ----------
    folder : Path
        The folder; what goes away meanwhile does not count.

    Returns
    -------
    int
        0 for a folder that is not there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = Path(place, "a").write_bytes(b"four")
    ...     size_of(Path(place))
    4
    """
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - one call a file
            except OSError:
                continue
    return total


def observe(
    handler: FileSystemEventHandler,
    *folders: Path,
    events: list[type[FileSystemEvent]] | None = None,
) -> Callable[[], None]:
    """Tell a handler of changes, in threads of the observer's; return what ends that.

    Parameters
    ----------
    handler : FileSystemEventHandler
        Who is told.
    *folders : Path
        The folders; what is in the folders in them does not count.
    events : list of type, optional
        Kinds of changes; all by default.

    Raises
    ------
    FileNotFoundError
        When one of the folders is gone.
    """
    from watchdog.observers import Observer
    from watchdog.observers.polling import PollingObserver

    observer: BaseObserver | None = None
    for polled in (False, True):
        try:
            observer = PollingObserver(timeout=_POLL_S) if polled else Observer()
            for folder in folders:
                observer.schedule(handler, str(folder), event_filter=events)
            observer.start()
        except OSError as error:
            if observer is not None:
                observer.stop()
            if polled or isinstance(error, FileNotFoundError):
                raise
            logger.warning("%s cannot be watched (%s): it is looked at each %g s", folders[0], error, _POLL_S)
        else:
            break
    assert observer is not None  # noqa: S101 - the loop is left by it or by an error
    begun = observer

    def stop() -> None:
        begun.stop()
        begun.join()

    return stop
