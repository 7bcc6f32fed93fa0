"""Private folders in which something is made before it is put in its place; nothing of them is left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.runtime import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["claim", "clear_abandoned", "sync_tree", "workshop"]


def claim(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder that is this process's own; those of processes that were killed are removed.

    Parameters
    ----------
    parent : pathlib.Path
        Where.
    prefix : str
        How its name begins.

    Returns
    -------
    (pathlib.Path, int)
        The folder, mode 0700, and the open file that says that its process lives.

    Raises
    ------
    OSError
        When it cannot be made.
    """
    clear_abandoned(parent, prefix)
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError):  # somebody took it for a dead one's before it was locked
            lives = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            # A file system without locks cannot tell whose folders are left over: they stay.
            with contextlib.suppress(OSError):
                fcntl.flock(lives, fcntl.LOCK_EX)
            if place.exists():
                return place, lives
            os.close(lives)


@contextmanager
def workshop(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a folder of this process's own, which is gone at the end unless it was renamed.

    Parameters
    ----------
    parent : pathlib.Path
        Where.
    prefix : str
        How its name begins.

    Yields
    ------
    pathlib.Path
        The folder, mode 0700.

    Raises
    ------
    OSError
        When it cannot be made.

    Examples
    --------
    >>> with workshop(Path(tempfile.mkdtemp()), ".making-") as shop:
    ...     made = (shop / "a").write_text("text")
    >>> shop.exists()
    False
    """
    place, lives = claim(parent, prefix)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lives)


def sync_tree(folder: Path) -> None:
    """Bring everything below a folder to the disk, so that its name, once it has one, stands for something whole.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.

    Raises
    ------
    OSError
        When the disk refuses.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync_folder(Path(place, name))
        sync_folder(Path(place))


def clear_abandoned(parent: Path, prefix: str) -> None:
    """Remove the folders of processes that ended without doing so: nobody holds them.

    Parameters
    ----------
    parent : pathlib.Path
        Where they were made; need not exist.
    prefix : str
        How their names begin.

    Raises
    ------
    OSError
        When `parent` cannot be looked into.
    """
    if not parent.is_dir():
        return
    for entry in os.scandir(parent):
        if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):
            handle = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(handle)
