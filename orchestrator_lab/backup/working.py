"""The agents' work folders in a backup, as they are now: looked through as at the start of a run, in one file.

They are brought back only where nothing else is: into folders that are not there, that are empty, or that hold nothing
but the same files, as after a restore that was cut off.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle.archive import Archive
from orchestrator_lab.bundle.collecting import choose
from orchestrator_lab.bundle.layout import INITIAL, part_of
from orchestrator_lab.bundle.packing import pack
from orchestrator_lab.bundle.staging import workshop
from orchestrator_lab.config import known_secrets, load_config
from orchestrator_lab.errors import BackupError
from orchestrator_lab.initial.keeping import gather, limits_of
from orchestrator_lab.initial.restoring import fill
from orchestrator_lab.initial.state import read_state
from orchestrator_lab.initial.walking import CREATED_MARK
from orchestrator_lab.journal.writer import SecretMask

if TYPE_CHECKING:
    from collections.abc import Collection

    from orchestrator_lab.backup.collecting import Setup
    from orchestrator_lab.backup.listing import Backup
    from orchestrator_lab.initial.state import InitialFolder

__all__ = ["WORK", "bring_work", "keep_work"]

#: The file of a backup.
WORK = "work.zip"
_ANY_SIZE = 1 << 62


def keep_work(target: Path, setup: Setup, backups: Path) -> list[dict[str, Any]]:
    """Put the agents' work folders into a backup.

    Parameters
    ----------
    target : pathlib.Path
        The file to write.
    setup : Setup
        The cluster's.
    backups : pathlib.Path
        The folder of backups, which does not count, as that of the runs does not.

    Returns
    -------
    list of dict
        For each folder ``path``, ``files``, ``size`` in bytes and ``why``: None, or the reason for which it is not
        kept.

    Raises
    ------
    BackupError
        When there is no configuration that names them.
    """
    if setup.config is None:
        raise BackupError(
            f"{setup.folder} has no configuration that names work folders: leave out --work-folders",
            path=str(setup.folder),
        )
    config = load_config(setup.folder / setup.config)
    secrets = SecretMask(known_secrets(config, os.environ))

    def mask(data: bytes) -> bytes:
        return secrets(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    limits, own = limits_of(config.initial_state), (setup.runs_dir.resolve(), backups.resolve())
    with workshop(target.parent, ".work-") as place:
        gather(config.seen_folders(), limits, mask=mask, without=own).write(place)
        chosen = choose(place, leave_out=(), initial_limit=_ANY_SIZE)
        pack(target, dict(chosen.files))
        state = read_state(place)
        return [
            {"path": one.path, "files": len(one.files), "size": one.size, "why": one.why}
            for one in (() if state is None else state.folders)
        ]


def bring_work(backup: Backup, into: Path, runs_dir: Path, *, theirs: Collection[Path]) -> tuple[list[Path], list[str]]:
    """Bring work folders back.

    Parameters
    ----------
    backup : Backup
        It was checked.
    into : pathlib.Path
        The folder of the cluster. Work folders that were in it are in it again; others are where they were, or, when
        the cluster is brought to another place, in its folder ``work``.
    runs_dir : pathlib.Path
        The folder of runs, which does not count.
    theirs : collection of pathlib.Path
        Files of the configuration, which stay as they are.

    Returns
    -------
    (list of pathlib.Path, list of str)
        What was brought back, and what there is to know.
    """
    done: list[Path] = []
    notes: list[str] = []
    with workshop(Path(tempfile.gettempdir()), ".olab-work-") as shop:
        archive = Archive(backup.path / WORK)
        digests = archive.checksums()
        with archive.reading():
            for name in archive.names():
                if part_of(name) == INITIAL:
                    archive.extract(name, shop / name, sha256=digests.get(name))
        state = read_state(shop)
        for one in () if state is None else state.folders:
            if one.why is not None:
                notes.append(f"the work folder {one.path} is not in the backup: {one.why}")
                continue
            target = _place(Path(one.path), backup, into)
            other = _other(target, one, runs_dir, theirs)
            if other is not None:
                notes.append(f"the work folder {target} was left as it is: {other} is not of the backup")
                continue
            target.mkdir(parents=True, exist_ok=True)
            leave = {path.relative_to(target).as_posix() for path in theirs if path.is_relative_to(target)}
            fill(target, one, leave=leave)
            done.append(target)
            if target != Path(one.path):
                notes.append(f"the work folder {one.path} is in {target}")
    return done, notes


def _place(was: Path, backup: Backup, into: Path) -> Path:
    home = Path(backup.folder).resolve()
    if was.is_relative_to(home):
        return into / was.relative_to(home)
    return was if into.resolve() == home else into / "work" / was.name


def _other(target: Path, kept: InitialFolder, runs_dir: Path, theirs: Collection[Path]) -> Path | None:
    """Return something in a folder that is not as it is in the backup, None when there is nothing such."""
    if not os.path.lexists(target):
        return None
    if target.is_symlink() or not target.is_dir():
        return target
    files = dict(kept.contents())
    for place, folders, names in os.walk(target):
        here = Path(place)
        folders[:] = [name for name in folders if here / name != runs_dir]
        for name in [*names, *(one for one in folders if (here / one).is_symlink())]:
            path = here / name
            within = path.relative_to(target).as_posix()
            if path in theirs or name == CREATED_MARK:
                continue
            if path.is_symlink():
                if kept.links.get(within) == str(path.readlink()):
                    continue
            elif path.is_file() and within in files and path.read_bytes() == files[within].read_bytes():
                continue
            return path
    return None
