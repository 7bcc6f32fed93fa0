"""Tells when clusters of this user begin or end, whoever starts or ends them.

A cluster is a folder in the runtime folder. Linux tells of changes in folders (inotify); where it cannot be asked,
:func:`follow` says so, and the caller looks when a person wants it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import threading
from typing import TYPE_CHECKING

from orchestrator_lab.runtime import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["follow"]

_IN_MOVED_TO, _IN_CREATE, _IN_DELETE, _IN_DELETE_SELF = 0x80, 0x100, 0x200, 0x400
_WATCHED = _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF
_CLOEXEC, _NONBLOCK = 0o2000000, 0o4000


def follow(on_change: Callable[[], None]) -> Callable[[], None] | None:
    """Call something whenever a cluster may have begun or ended; return what ends that.

    Parameters
    ----------
    on_change : callable
        Called on a thread of its own. That something has changed in the folders is all that is known.

    Returns
    -------
    callable or None
        None where the system does not tell of changes in folders.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        return None
    watch = libc.inotify_init1(_CLOEXEC | _NONBLOCK)
    if watch < 0:
        return None
    root = runtime_dir()

    def add(folder: Path) -> None:
        # The same folder again changes nothing; one that is gone is none any more.
        libc.inotify_add_watch(watch, os.fsencode(folder), _WATCHED)

    reading, writing = os.pipe2(os.O_CLOEXEC)
    thread = threading.Thread(
        target=_read, args=(watch, reading, root, add, on_change), name="orchestrator-lab-discovery", daemon=True
    )
    add(root)
    _add_all(root, add)
    thread.start()

    ends = [writing]

    def end() -> None:
        while ends:
            os.close(ends.pop())

    return end


def _add_all(root: Path, add: Callable[[Path], None]) -> None:
    with contextlib.suppress(OSError):
        for one in root.iterdir():
            if one.is_dir():
                add(one)


def _read(watch: int, ended: int, root: Path, add: Callable[[Path], None], on_change: Callable[[], None]) -> None:
    try:
        while True:
            ready, _, _ = select.select([watch, ended], [], [])
            if ended in ready:
                return
            with contextlib.suppress(BlockingIOError):
                while os.read(watch, 1 << 16):
                    pass
            _add_all(root, add)
            on_change()
    finally:
        os.close(watch)
        os.close(ended)
