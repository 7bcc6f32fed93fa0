"""Bringing a backup back: all of it is checked and unpacked before anything gets its name."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.backup.listing import CONFIG, FACTS, SETTINGS, full, run_file
from orchestrator_lab.backup.verifying import verify_backup
from orchestrator_lab.backup.working import WORK, bring_work
from orchestrator_lab.bundle.importing import unpack_run
from orchestrator_lab.bundle.layout import TABLES, part_of
from orchestrator_lab.bundle.opening import open_bundle
from orchestrator_lab.bundle.staging import clear_abandoned, sync_tree, workshop
from orchestrator_lab.errors import BackupError, ClusterExists, disk_error
from orchestrator_lab.resuming import has_no_end, is_recorded
from orchestrator_lab.runtime import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator_lab.backup.listing import Backup

__all__ = ["Restored", "restore_backup"]

_WORKSHOP = ".restoring-"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was brought back.

    Parameters
    ----------
    backup : Backup
        Of which.
    into : pathlib.Path
        The folder of the cluster.
    runs_dir : pathlib.Path
        The folder of its runs.
    files : tuple of pathlib.Path
        Files of the configuration that were written.
    runs : tuple of pathlib.Path
        Runs that were unpacked.
    work : tuple of pathlib.Path
        Work folders that are as they were in the backup.
    same : tuple of pathlib.Path
        What was there already, as it is in the backup.
    resumable : tuple of pathlib.Path
        Runs of the backup that can go on.
    notes : tuple of str
        What is left to do.
    """

    backup: Backup
    into: Path
    runs_dir: Path
    files: tuple[Path, ...]
    runs: tuple[Path, ...]
    work: tuple[Path, ...]
    same: tuple[Path, ...]
    resumable: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Plan:
    """What goes where."""

    #: By where it goes: where it comes from. Files of the configuration, and bundles.
    files: dict[Path, Path] = field(default_factory=dict)
    runs: dict[Path, Path] = field(default_factory=dict)
    same: list[Path] = field(default_factory=list)
    in_the_way: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def restore_backup(
    backup: Backup,
    into: str | os.PathLike[str] = ".",
    *,
    runs_dir: str | os.PathLike[str] | None = None,
    runs: Iterable[str] = (),
    overwrite: bool = False,
) -> Restored:
    """Bring a cluster back: its configuration, its settings and its runs.

    Everything is checked and unpacked beside its place first; what is not there whole at the end is not there at all.
    What is there already as it is in the backup stays, so that a restore that was cut off is finished by another.

    Parameters
    ----------
    backup : Backup
        See :func:`find_backup`.
    into : path-like
        The folder of the cluster; made when it is not there.
    runs_dir : path-like, optional
        The folder of runs; where the configuration has it when omitted.
    runs : iterable of str
        Bring back these runs alone, and no configuration.
    overwrite : bool
        Replace what is there and differs. An ``.env`` is never replaced: it holds secrets that the backup does not.

    Returns
    -------
    Restored
        What was written, and what is left to do.

    Raises
    ------
    BackupError
        When the backup is damaged, holds no such run, or something is in the way. Nothing was changed then.
    ClusterExists
        When a run in its place is being recorded.
    EnvironmentProblem, DiskFull
        When it cannot be written.

    Examples
    --------
    >>> restore_backup(find_backup("20260301"), "team").runs  # doctest: +SKIP
    (PosixPath('/home/ada/team/runs/run_01'),)
    """
    place = full(into)
    plan = _Plan()
    target = _runs_place(backup, place, runs_dir, plan)
    wanted = list(runs)
    listed = {run["run_id"] for run in backup.runs}
    for run_id in wanted:
        if run_id not in listed:
            raise BackupError(
                f"{backup.path} holds no run {run_id!r}; `orchestrator-lab backup list --runs` shows those in it",
                path=str(backup.path),
            )
    chosen = [run["run_id"] for run in backup.runs if not wanted or run["run_id"] in wanted]
    needed = {FACTS, *map(run_file, chosen)}
    needed |= set() if wanted else {SETTINGS, *(f"{CONFIG}/{name}" for name in backup.facts["files"])}
    has_work = not wanted and backup.facts.get("work") is not None
    needed |= {WORK} if has_work else set()
    found = verify_backup(backup, only=needed)
    if found.damages:
        first = found.damages[0]
        raise BackupError(
            f"{backup.path} is damaged, first at {first.where}: {first.what}; nothing was restored: take another "
            "backup, or what is whole with --run",
            path=str(backup.path),
        )
    try:
        if not wanted:
            _plan_files(backup, place, plan)
        _plan_runs(backup, chosen, target, plan)
        if plan.in_the_way and not overwrite:
            first_one, more = plan.in_the_way[0], len(plan.in_the_way) - 1
            others = f" (and {more} more)" if more else ""
            raise BackupError(
                f"{first_one}{others} is there already and differs from the backup: restore into another folder, or "
                "replace it (--overwrite); nothing was restored",
                path=str(first_one),
            )
        _bring(plan, place, target)
        work: list[Path] = []
        if has_work:
            theirs = {place / name for name in backup.facts["files"]} | {place / ".env"}
            work, said = bring_work(backup, place, target, theirs=theirs)
            plan.notes += said
    except OSError as error:
        raise disk_error(
            f"{place}: the backup cannot be restored there ({error.strerror or error}): check the place and the room "
            "there, and restore again",
            error,
            path=place,
        ) from error
    back = [target / run_id for run_id in chosen]
    return Restored(
        backup=backup,
        into=place,
        runs_dir=target,
        files=tuple(plan.files),
        runs=tuple(plan.runs),
        work=tuple(work),
        same=tuple(plan.same),
        resumable=tuple(path for path in back if has_no_end(path) and not is_recorded(path)),
        notes=tuple(plan.notes),
    )


# planning --------------------------------------------------------------------------------------------


def _runs_place(backup: Backup, into: Path, given: str | os.PathLike[str] | None, plan: _Plan) -> Path:
    if given is not None:
        return full(given)
    was = Path(backup.facts["runs_dir"])
    if not was.is_absolute():
        return into / was
    if str(into) == backup.folder:
        return was
    plan.notes.append(f"the runs lay in {was}, which the configuration or the settings name; they are in {into}/runs")
    return into / "runs"


def _plan_files(backup: Backup, into: Path, plan: _Plan) -> None:
    config = backup.facts["config"]
    # The configuration last: with it there is a cluster again.
    for name in sorted(backup.facts["files"], key=lambda one: one == config):
        source = backup.path / CONFIG / name
        was = backup.facts["files"][name]
        if was is not None:
            plan.notes.append(
                f"{was}, which the configuration names, is restored as {into / name}: put it in its place"
            )
        _plan_file(source, into / name, plan)
    settings = backup.path / SETTINGS
    if settings.stat().st_size:
        if os.path.lexists(into / ".env"):
            plan.notes.append(f"{into / '.env'} was left as it is; the settings of the backup are in {settings}")
        else:
            plan.files[into / ".env"] = settings
    plan.notes += [
        f"{name} held secrets, which a backup does not hold: put them back" for name in backup.facts["masked"]
    ]


def _plan_file(source: Path, target: Path, plan: _Plan) -> None:
    if not os.path.lexists(target):
        plan.files[target] = source
    elif target.is_file() and not target.is_symlink() and target.read_bytes() == source.read_bytes():
        plan.same.append(target)
    elif target.is_dir() and not target.is_symlink():
        raise BackupError(
            f"{target} is a folder, and the backup has a file of this name: move it away; nothing was restored",
            path=str(target),
        )
    else:
        plan.files[target] = source
        plan.in_the_way.append(target)


def _plan_runs(backup: Backup, chosen: list[str], runs_dir: Path, plan: _Plan) -> None:
    for run_id in chosen:
        target = runs_dir / run_id
        if not os.path.lexists(target):
            plan.runs[target] = backup.bundle(run_id)
        elif _is_there(target, backup.bundle(run_id)):
            plan.same.append(target)
        elif is_recorded(target):
            raise ClusterExists(
                f"run {run_id} is being recorded in {runs_dir}: shut its cluster down, or restore into another folder; "
                "nothing was restored",
                run_id=run_id,
            )
        else:
            plan.runs[target] = backup.bundle(run_id)
            plan.in_the_way.append(target)


def _is_there(folder: Path, bundle: Path) -> bool:
    """Tell whether a run's folder has everything that its bundle has; its tables can be made again."""
    opened = open_bundle(bundle)
    digests = opened.archive.checksums()
    if folder.is_symlink():
        return False
    for name in opened.names():
        if part_of(name) == TABLES:
            continue
        try:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digests.get(name):
                    return False
        except OSError:
            return False
    return True


# bringing --------------------------------------------------------------------------------------------


def _bring(plan: _Plan, into: Path, runs_dir: Path) -> None:
    """Make everything beside its place, then give it its name: a whole new folder in one step."""
    for place in (into, runs_dir, into.parent):
        clear_abandoned(place, _WORKSHOP)
    with ExitStack() as stack:
        moves: list[tuple[Path, Path, Path]] = []
        apart = runs_dir.exists() or not runs_dir.is_relative_to(into)
        if apart:
            moves += _make(stack, runs_dir, plan.runs, {})
            moves += _make(stack, into, {}, plan.files)
        else:
            moves += _make(stack, into, plan.runs, plan.files)
        for number, (made, target, shop) in enumerate(moves):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.path.lexists(target) or not made.is_dir():
                made.replace(target)
            else:
                _exchange(made, target, shop / f"old-{number}")
            sync_folder(target.parent)


def _make(
    stack: ExitStack, root: Path, runs: dict[Path, Path], files: dict[Path, Path]
) -> list[tuple[Path, Path, Path]]:
    """Make runs and files in a workshop; return what gets which name, and the workshop."""
    if not runs and not files:
        return []
    fresh = not root.exists()
    parent = root.parent if fresh else root
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shop = stack.enter_context(workshop(parent, _WORKSHOP))
    new = shop / "new"
    new.mkdir(mode=0o700)
    for target, bundle in runs.items():
        made = new / target.relative_to(root)
        made.mkdir(mode=0o700, parents=True)
        unpack_run(open_bundle(bundle), made)
        if has_no_end(made):  # it may go on: tables are for what does not change any more
            shutil.rmtree(made / TABLES, ignore_errors=True)
    for target, source in files.items():
        made = new / target.relative_to(root)
        made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(made, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(source.read_bytes())
    sync_tree(new)
    if fresh:
        return [(new, root, shop)]
    return [(new / target.relative_to(root), target, shop) for target in [*runs, *files]]


def _exchange(made: Path, target: Path, old: Path) -> None:
    """Put a folder in the place of another one, which goes with the workshop."""
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
