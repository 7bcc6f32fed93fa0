"""Making a backup: beside the others under a name that nobody takes for one, until all of it is on the disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.backup.collecting import collect_setup
from orchestrator_lab.backup.keeping import keep_newest
from orchestrator_lab.backup.listing import (
    CONFIG,
    FACTS,
    FORMAT,
    RUNS,
    SETTINGS,
    Backup,
    backup_dir,
    find_backups,
    name_of,
    read_backup,
    run_file,
)
from orchestrator_lab.backup.verifying import listed_digests
from orchestrator_lab.backup.working import WORK, keep_work
from orchestrator_lab.bundle.collecting import choose
from orchestrator_lab.bundle.exporting import export_bundle
from orchestrator_lab.bundle.layout import CHECKSUMS, JOURNAL, MANIFEST, fault_of_name
from orchestrator_lab.bundle.opening import open_bundle
from orchestrator_lab.bundle.staging import clear_abandoned, sync_tree, workshop
from orchestrator_lab.errors import (
    BackupError,
    BundleError,
    ConfigError,
    OrchestratorLabError,
    RunNotFound,
    disk_error,
)
from orchestrator_lab.resuming import has_no_end, is_recorded
from orchestrator_lab.retention import REMOVED
from orchestrator_lab.run import Run
from orchestrator_lab.runtime import sync_folder
from orchestrator_lab.tables import find_runs

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.backup.collecting import Setup

__all__ = ["Created", "create_backup"]

logger = logging.getLogger(__name__)

_WORKSHOP = ".creating-"
#: A backup is for one's own machine: the work folder's initial state goes in, whatever its size.
_ANY_SIZE = 1 << 62
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Created:
    """What was made.

    Parameters
    ----------
    backup : Backup
        The new one.
    size : int
        Bytes of its files.
    new : int
        Bytes of those that an earlier backup did not have; the others are the same files under another name.
    masked : tuple of str
        Files and settings that held secrets, which are not in it.
    work : list of dict or None
        The work folders in it, or why not; None when they were not asked for.
    left_out : dict of str to str
        Runs that are not in it, and why.
    removed : tuple of pathlib.Path
        Earlier backups that went.
    """

    backup: Backup
    size: int
    new: int
    masked: tuple[str, ...]
    work: list[dict[str, Any]] | None
    left_out: dict[str, str]
    removed: tuple[Path, ...]


def create_backup(
    source: str | os.PathLike[str] | None = None,
    to: str | os.PathLike[str] | None = None,
    *,
    work_folders: bool = False,
    keep: int | None = None,
    days: float | None = None,
) -> Created:
    """Back a cluster up: its configuration and what that names, its settings, its runs; never secrets.

    A run that is recorded meanwhile is kept as far as its journal has come. One that has not changed since an earlier
    backup in the same folder is not written again: both have the same file.

    Parameters
    ----------
    source : path-like, optional
        The configuration or its folder; the current folder when omitted.
    to : path-like, optional
        The folder of backups, made when it is not there; ``ORCHESTRATOR_BACKUP__DIR`` when omitted, else one of the
        user's own.
    work_folders : bool
        Whether the agents' work folders go in as they are now, within the limits of ``initial_state``.
    keep : int, optional
        So many of the newest of this cluster stay, the new one counted.
    days : float, optional
        Those of so many days stay. The newest always does.

    Returns
    -------
    Created
        What is in it.

    Raises
    ------
    ConfigError
        When the configuration is wrong.
    BackupError
        When something of it cannot be read.
    EnvironmentProblem, DiskFull
        When the backup cannot be written; nothing of it is left then.

    Examples
    --------
    >>> create_backup("team", "/backups", keep=7).backup.path  # doctest: +SKIP
    PosixPath('/backups/20260301T040506.000Z-team')
    """
    setup = collect_setup(source, os.environ)
    folder = backup_dir(to)
    at = datetime.now(UTC)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_abandoned(folder, REMOVED)
        with workshop(folder, _WORKSHOP) as shop:
            facts = _fill(shop, setup, folder, at, work_folders=work_folders)
            sync_tree(shop)
            target = folder / name_of(at, re.sub(r"[^\w.-]+", "_", setup.name or "runs"))
            shop.rename(target)
        sync_folder(folder)
    except OSError as error:
        raise disk_error(
            f"{folder}: the backup cannot be written there ({error.strerror or error}); nothing of it was kept: check "
            "the place and the room there",
            error,
            path=folder,
        ) from error
    backup = read_backup(target)
    files = [path for path in target.rglob("*") if path.is_file()]
    return Created(
        backup=backup,
        size=sum(path.stat().st_size for path in files),
        new=sum(path.stat().st_size for path in files if path.stat().st_nlink == 1),
        masked=setup.masked,
        work=facts["work"],
        left_out=facts["left_out"],
        removed=keep_newest(backup, keep=keep, days=days),
    )


def _fill(shop: Path, setup: Setup, folder: Path, at: datetime, *, work_folders: bool) -> dict[str, Any]:
    """Write everything of a backup into a folder; return what it says of itself."""
    digests: dict[str, str] = {}
    for name, content in setup.files.items():
        digests[f"{CONFIG}/{name}"] = _write(shop / CONFIG / name, content)
    digests[SETTINGS] = _write(shop / SETTINGS, setup.settings.encode())
    work = keep_work(shop / WORK, setup, folder) if work_folders else None
    if work is not None:
        digests[WORK] = _digest(shop / WORK)
    (shop / RUNS).mkdir(mode=0o700)
    earlier = [one for one in find_backups(folder)[0] if one.source == (setup.name, str(setup.folder))]
    runs: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for path in find_runs(setup.runs_dir) if setup.runs_dir.is_dir() else []:
        try:
            told, digest = _keep_run(path, shop, earlier[-1] if earlier else None)
        except (BackupError, BundleError, ConfigError, RunNotFound) as error:
            logger.warning("run %s is left out: %s", path.name, error.message)
            left_out[path.name] = error.message
            continue
        except FileNotFoundError:
            if path.exists():
                raise
            continue  # somebody removed the run meanwhile
        runs.append(told)
        digests[run_file(told["run_id"])] = digest
    facts = {
        "format": FORMAT,
        "package_version": _package_version(),
        "created_at": at.isoformat(timespec="microseconds"),
        "cluster": setup.name,
        "folder": str(setup.folder),
        "runs_dir": os.path.relpath(setup.runs_dir, setup.folder)
        if setup.runs_dir.is_relative_to(setup.folder)
        else str(setup.runs_dir),
        "config": setup.config,
        "files": {name: setup.outside.get(name) for name in setup.files},
        "masked": list(setup.masked),
        "runs": runs,
        "left_out": left_out,
        "work": work,
    }
    digests[FACTS] = _write(shop / FACTS, (json.dumps(facts, ensure_ascii=False, indent=1) + "\n").encode())
    _write(shop / CHECKSUMS, "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode())
    return facts


def _package_version() -> str:
    from orchestrator_lab import __version__

    return __version__


def _write(path: Path, content: bytes) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


# runs ------------------------------------------------------------------------------------------------


def _keep_run(path: Path, shop: Path, earlier: Backup | None) -> tuple[dict[str, Any], str]:
    """Put a run into a backup; return what is said of it, and the digest of its file."""
    _check(path)
    state = _state(path)
    target = shop / run_file(path.name)
    if earlier is not None and (taken := _taken_over(earlier, path.name, state, target)) is not None:
        return taken
    recorded = is_recorded(path)
    with workshop(shop, ".run-") as place:
        source = path
        if has_no_end(path):
            source = place / path.name
            _snapshot(path, source)
        run = Run(source)
        export_bundle(
            source,
            target,
            seal=run.seal_copy,
            manifest=run.manifest,
            initial_limit=_ANY_SIZE,
            mask=False,
        )
        status = "running" if recorded else run.status
    open_bundle(target)  # says so when it could not be restored
    return {"run_id": path.name, "status": status, "size": target.stat().st_size, "state": state}, _digest(target)


def _check(path: Path) -> None:
    """Refuse a run that nobody could restore, or not all of which can be read."""
    fault = fault_of_name(run_file(path.name))
    if fault is not None:
        raise BackupError(f"{path}: a run of this name cannot be kept, {fault}; rename its folder", path=str(path))
    for file in choose(path, leave_out=(), initial_limit=_ANY_SIZE).files.values():
        if file.exists() and not os.access(file, os.R_OK):
            raise BackupError(f"{file} cannot be read: the run is not kept; check its owner", path=str(file))
    try:
        whole = isinstance(json.loads((path / MANIFEST).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        whole = False
    if not whole:
        raise BackupError(
            f"{path / MANIFEST} is missing or damaged: the run is not kept; copy its folder as it is", path=str(path)
        )


def _snapshot(path: Path, copy: Path) -> None:
    """Copy a run that may be recorded meanwhile: its journal first, so that it tells of nothing that is not there.

    What the others have more than it does is what a cluster finds that was killed at that moment.
    """
    copy.mkdir(mode=0o700)
    with (path / JOURNAL).open("rb") as source, (copy / JOURNAL).open("wb") as target:
        # A line that is being written belongs to the next backup.
        end = _last_line_end(source.fileno())
        while end > 0 and (piece := source.read(min(_PIECE, end))):
            target.write(piece)
            end -= len(piece)
    for name, file in choose(path, leave_out=(), initial_limit=_ANY_SIZE).files.items():
        if name != JOURNAL:
            (copy / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # It may be replaced or go while it is looked at.
            try:
                shutil.copyfile(file, copy / name)
            except FileNotFoundError:
                (copy / name).unlink(missing_ok=True)


def _last_line_end(descriptor: int) -> int:
    """Return where the last whole line ends, as the file is now."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _PIECE)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _state(path: Path) -> str:
    """Return what tells whether anything of a run has changed: names, lengths and instants of its files."""
    digest = hashlib.sha256()
    for name, file in sorted(choose(path, leave_out=(), initial_limit=_ANY_SIZE).files.items()):
        try:
            found = file.stat()
        except FileNotFoundError:
            continue
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _taken_over(earlier: Backup, run_id: str, state: str, target: Path) -> tuple[dict[str, Any], str] | None:
    """Give a run's file of an earlier backup another name, when the run has not changed and the file is whole."""
    told = next((run for run in earlier.runs if run["run_id"] == run_id and run["state"] == state), None)
    if told is None or told["status"] == "running":
        return None
    try:
        listed = listed_digests(earlier.path).get(run_file(run_id))
        if listed is None or _digest(earlier.bundle(run_id)) != listed:
            return None
        os.link(earlier.bundle(run_id), target)
    except (OSError, OrchestratorLabError):  # damaged there, or no place for links: it is written anew
        return None
    return told, listed


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
