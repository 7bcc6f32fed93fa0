"""Put a work folder that a run has kept into another folder. What is put there may come from others.

Names are those of files in the run, which cannot lead anywhere; what the index says is used where it stays within. All
files are written before the first link is made, and a link is made only where it cannot lead out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import disk_error
from orchestrator_lab.initial.state import is_safe
from orchestrator_lab.initial.walking import CREATED_MARK, leads_out

if TYPE_CHECKING:
    from collections.abc import Collection

    from orchestrator_lab.errors import DiskFull, EnvironmentProblem
    from orchestrator_lab.initial.state import InitialFolder

__all__ = ["fill", "is_blank", "not_made"]

#: Permissions that a file may have: none of another user or group is set.
_PERMISSIONS = 0o777


def is_blank(folder: Path) -> bool:
    """Tell whether a folder holds nothing but empty folders, and the lab's mark that it made them.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.

    Raises
    ------
    OSError
        When it cannot be read.
    """
    left = [folder]
    while left:
        with os.scandir(left.pop()) as scan:
            for entry in scan:
                if entry.is_dir(follow_symlinks=False):
                    left.append(Path(entry.path))
                elif entry.name != CREATED_MARK:
                    return False
    return True


def fill(target: Path, kept: InitialFolder, inside: str = ".", *, leave: Collection[str] = ()) -> int:
    """Put a folder's files where they are wanted.

    Parameters
    ----------
    target : pathlib.Path
        A folder that is there, and blank but for what an earlier attempt put there.
    kept : InitialFolder
        What was kept.
    inside : str
        Only what is in this folder of it.
    leave : collection of str
        Files that stay as they are in the target, when they are there.

    Returns
    -------
    int
        How many files.

    Raises
    ------
    EnvironmentProblem, DiskFull
        When something cannot be written.
    """
    at = "" if inside == "." else f"{inside}/"
    count = 0
    try:
        for path, source in kept.contents(inside):
            place = target / path
            if path in leave and os.path.lexists(place):
                continue
            _make_folders(target, path.rpartition("/")[0])
            place.unlink(missing_ok=True)
            facts = kept.files.get(at + path, {})
            _put(place, source, facts.get("mode"), facts.get("mtime_ns"))
            count += 1
        for path in kept.empty:
            if path.startswith(at) and is_safe(path):
                with contextlib.suppress(FileExistsError, NotADirectoryError):
                    _make_folders(target, path.removeprefix(at))
        links = {
            path.removeprefix(at): to
            for path, to in kept.links.items()
            if path.startswith(at) and is_safe(path) and not leads_out(path.removeprefix(at), to)
        }
        for path in links:
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                _make_folders(target, path.rpartition("/")[0])
        for path, to in links.items():
            _link(target / path, to)
        if count:
            # It says that nothing but the lab's own work is in there.
            (target / CREATED_MARK).unlink(missing_ok=True)
    except OSError as error:
        raise not_made(target, error) from error
    return count


def not_made(target: Path, error: OSError) -> DiskFull | EnvironmentProblem:
    """Return what is told when a work folder cannot be made as it was."""
    return disk_error(
        f"{target}: the work folder cannot be made as it was ({error.strerror}); check the room there and the "
        "folder's owner",
        error,
        path=target,
    )


def _make_folders(target: Path, path: str) -> None:
    """Make the folders on the way to one, as open to others as the first."""
    here = target
    for part in path.split("/") if path else ():
        here /= part
        with contextlib.suppress(FileExistsError):
            here.mkdir()
            here.chmod(stat.S_IMODE(target.stat().st_mode))


def _put(place: Path, source: Path, mode: object, mtime_ns: object) -> None:
    permissions = 0o600
    if isinstance(mode, str) and mode.isascii() and mode.isdigit() and len(mode) <= 4:
        with contextlib.suppress(ValueError):
            permissions = int(mode, 8) & _PERMISSIONS | 0o600
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, source.open("rb") as data:
        shutil.copyfileobj(data, file, 1 << 20)
        file.flush()
        os.fchmod(descriptor, permissions)
        if isinstance(mtime_ns, int):
            with contextlib.suppress(OverflowError, OSError):
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))


def _link(place: Path, to: str) -> None:
    if place.is_symlink():
        place.unlink()
    # What is there already is a file, or a folder that something lies in.
    with contextlib.suppress(FileExistsError, NotADirectoryError, ValueError):
        place.symlink_to(to)
