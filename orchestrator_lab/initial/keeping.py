"""Work folders kept in a run: their files below ``initial/NUMBER``, and beside them what a file alone does not say."""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import DiskFull, EnvironmentProblem, is_full
from orchestrator_lab.initial.state import FORMAT, INDEX, INITIAL
from orchestrator_lab.initial.walking import Limits, TooMuchError, look

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

__all__ = ["keep"]

#: Where it is made, until it is whole.
_PARTIAL = f".{INITIAL}.partial"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def keep(
    run_dir: Path,
    folders: Mapping[str, Path],
    limits: Limits,
    *,
    mask: Callable[[bytes], bytes],
    without: Collection[Path] = (),
) -> None:
    """Keep the content of work folders in a run.

    Parameters
    ----------
    run_dir : pathlib.Path
        The run's folder, in which ``initial`` is not there yet; afterwards it is there, whole.
    folders : mapping of str to pathlib.Path
        The work folder of each agent, with no link in its path. One that lies in another is kept with it.
    limits : Limits
        What the folders may hold together.
    mask : callable
        Replaces what is secret in a file's bytes.
    without : collection of pathlib.Path
        Folders that do not count.

    Raises
    ------
    EnvironmentProblem, DiskFull
        When it cannot be written; nothing of it is left.
    """
    partial = run_dir / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir(mode=0o700)
        whole = _kept(partial, folders, limits, mask, without)
        text = json.dumps(whole, ensure_ascii=False, indent=1) + "\n"
        _write(partial / INDEX, text.encode())
        partial.rename(run_dir / INITIAL)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        kind = DiskFull if is_full(error) else EnvironmentProblem
        raise kind(
            f"{run_dir / INITIAL}: the work folder's initial state cannot be kept there ({error.strerror}); check the "
            "room and the folder's owner, or set initial_state: false",
            path=str(run_dir),
        ) from error


def _kept(
    place: Path,
    folders: Mapping[str, Path],
    limits: Limits,
    mask: Callable[[bytes], bytes],
    without: Collection[Path],
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    roots: dict[Path, int] = {}
    left, room = limits.files, limits.size
    # What lies above comes first, and what lies in it is kept with it; where it is too much, its parts may do.
    for folder in sorted(set(folders.values()), key=lambda one: (len(one.parts), str(one))):
        if any(folder.is_relative_to(root) for root in roots):
            continue
        number = len(rows) + 1
        row: dict[str, Any] = {"number": number, "path": str(folder)}
        rows.append(row)
        try:
            found = look(folder, Limits(left, room, limits.file_size, limits.leave_out), without=without)
        except TooMuchError as error:
            row["why"] = str(error)
            continue
        except OSError as error:
            row["why"] = f"it cannot be read ({error.strerror})"
            continue
        roots[folder] = number
        left, room = left - len(found.files) - len(found.links) - len(found.empty), room - found.size
        root = place / str(number)
        root.mkdir(mode=0o700)
        files: dict[str, dict[str, Any]] = {}
        for path in found.files:
            try:
                files[path] = _copy(folder / path, root, path, limits.file_size, mask)
            except _SkippedError as skipped:
                found.skip(path, str(skipped))
        row |= {
            "commit": found.commit,
            "files": files,
            "links": found.links,
            "empty": found.empty,
            "skipped": dict(sorted(found.skipped.items())),
            "more_skipped": found.more_skipped,
        }
    agents = {}
    for agent, folder in folders.items():
        root_of = next((root for root in roots if folder.is_relative_to(root)), None)
        if root_of is not None:
            agents[agent] = {"folder": roots[root_of], "inside": str(folder.relative_to(root_of))}
    return {"format": FORMAT, "agents": agents, "folders": rows}


class _SkippedError(Exception):
    """A file is left out; the text says why."""


def _copy(source: Path, root: Path, path: str, most: int, mask: Callable[[bytes], bytes]) -> dict[str, Any]:
    """Copy a file, and return what its bytes do not say."""
    try:
        descriptor = os.open(source, _READ)
    except OSError as error:
        raise _SkippedError(f"it cannot be read ({error.strerror})") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _SkippedError("no ordinary file")
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise _SkippedError(f"it cannot be read ({error.strerror})") from error
    if len(data) > most:
        raise _SkippedError(f"more than {most} bytes (max_file_mb)")
    masked = mask(data)
    target = root / path
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(target, masked)
    facts: dict[str, Any] = {"mode": f"{found.st_mode & 0o777:o}", "mtime_ns": found.st_mtime_ns}
    return facts if masked == data else {**facts, "masked": True}


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, _WRITE, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
