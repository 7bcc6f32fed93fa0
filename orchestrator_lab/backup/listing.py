"""What a backup is, and which there are."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle.layout import SUFFIX, fault_of_name
from orchestrator_lab.config import here
from orchestrator_lab.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CONFIG",
    "FACTS",
    "FORMAT",
    "OUTSIDE",
    "RUNS",
    "SETTINGS",
    "Backup",
    "backup_dir",
    "find_backup",
    "find_backups",
    "full",
    "name_of",
    "read_backup",
    "run_file",
]

#: Version of what a backup is; raised when an older reader would misread one.
FORMAT = 1
#: What a backup says of itself, and where its parts lie.
FACTS, CONFIG, SETTINGS, RUNS = "backup.json", "config", "settings.env", "runs"
#: Where files lie that the configuration names and that are not in its folder.
OUTSIDE = "outside"

_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z-.+")


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup, by what it says of itself.

    Parameters
    ----------
    path : pathlib.Path
        Its folder.
    created_at : datetime.datetime
        When it was begun, UTC.
    cluster : str or None
        The cluster's name; None where there was no configuration.
    folder : str
        The folder of the configuration.
    facts : mapping
        All of it; see ``backup.json``.
    """

    path: Path
    created_at: datetime
    cluster: str | None
    folder: str
    facts: Mapping[str, Any]

    @property
    def source(self) -> tuple[str | None, str]:
        """What it is a backup of: others of the same are its predecessors."""
        return self.cluster, self.folder

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs in it: ``run_id``, ``status``, ``size`` of the bundle in bytes, ``state`` of the files."""
        return list(self.facts["runs"])

    def bundle(self, run_id: str) -> Path:
        """Return the file of a run."""
        return self.path / run_file(run_id)


def run_file(run_id: str) -> str:
    """Return the name of a run's bundle in a backup."""
    return f"{RUNS}/{run_id}{SUFFIX}"


def name_of(at: datetime, what: str) -> str:
    """Return how a backup of an instant is called.

    Examples
    --------
    >>> name_of(datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC), "duo")
    '20260301T040506.000Z-duo'
    """
    return f"{at.strftime('%Y%m%dT%H%M%S')}.{at.microsecond // 1000:03d}Z-{what}"


def backup_dir(given: str | os.PathLike[str] | None) -> Path:
    """Return the folder of backups.

    Parameters
    ----------
    given : path-like, optional
        What the user said; ``ORCHESTRATOR_BACKUP__DIR`` when omitted, else ``orchestrator-lab/backups`` in the user's
        folder of data (``XDG_DATA_HOME``, ``~/.local/share``).

    Returns
    -------
    pathlib.Path
        Absolute; need not exist.
    """
    chosen = given or _configured()
    if chosen is None:
        chosen = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "orchestrator-lab" / "backups"
    return full(chosen)


def _configured() -> Path | None:
    from orchestrator_lab.config import load_settings

    return load_settings().backup.dir


def full(path: str | os.PathLike[str]) -> Path:
    """Return a path from the root, links kept.

    Raises
    ------
    ConfigError
        When it is relative, and the current folder is gone.
    """
    # Not Path.expanduser(), which raises where there is no such user.
    place = os.path.expanduser(path)  # noqa: PTH111
    return Path(os.path.normpath(place if os.path.isabs(place) else here() / place))  # noqa: PTH117


def read_backup(path: Path) -> Backup:
    """Return the backup in a folder.

    Parameters
    ----------
    path : pathlib.Path
        The folder.

    Returns
    -------
    Backup
        Whether it is whole is told by :func:`verify_backup`.

    Raises
    ------
    BackupError
        When it is none, is damaged there, or is of a later version.
    """
    place = path / FACTS
    try:
        facts = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackupError(
            f"{path} is no backup: it holds no {FACTS}; `orchestrator-lab backup list` shows those there are",
            path=str(path),
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BackupError(
            f"{place} cannot be read ({error}): take another backup, or get this one again", path=str(place)
        ) from error
    if isinstance(facts, dict) and isinstance(facts.get("format"), int) and facts["format"] > FORMAT:
        raise BackupError(
            f"{path} is a backup of format {facts['format']}, this version of orchestrator-lab reads up to {FORMAT}: "
            "install a newer one",
            path=str(path),
        )
    try:
        return _checked(path, facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackupError(
            f"{place} does not say what it should ({error!r}): take another backup, or get this one again",
            path=str(place),
        ) from error


def _checked(path: Path, facts: Any) -> Backup:  # noqa: ANN401 - what a file holds
    at = datetime.fromisoformat(facts["created_at"]).astimezone(UTC)
    for name in [*facts["files"], *(run_file(run["run_id"]) for run in facts["runs"])]:
        if fault := fault_of_name(name):
            raise ValueError(f"{name!r}: {fault}")
    if not Path(facts["runs_dir"]).is_absolute() and facts["runs_dir"] != "." and fault_of_name(facts["runs_dir"]):
        raise ValueError(facts["runs_dir"])
    for run in facts["runs"]:
        if "/" in run["run_id"] or fault_of_name(run["run_id"]) or not isinstance(run["size"], int):
            raise ValueError(f"run {run['run_id']!r}")
    if not isinstance(facts["left_out"], dict) or not isinstance(facts["masked"], list):
        raise TypeError("left_out, masked")
    for key in ("config", "cluster"):
        if not isinstance(facts[key], str | None):
            raise TypeError(key)
    return Backup(path, at, facts["cluster"], str(facts["folder"]), facts)


def find_backups(folder: Path) -> tuple[list[Backup], list[BackupError]]:
    """Return the backups in a folder, the oldest first.

    Parameters
    ----------
    folder : pathlib.Path
        A folder of backups; need not exist.

    Returns
    -------
    (list of Backup, list of BackupError)
        Those that can be read, and what is wrong with the others.
    """
    found: list[Backup] = []
    faults: list[BackupError] = []
    try:
        names = sorted(one.name for one in os.scandir(folder) if _NAME.fullmatch(one.name) and one.is_dir())
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise BackupError(
            f"{folder} cannot be read as a folder of backups ({error.strerror}); check its name and owner",
            path=str(folder),
        ) from error
    for name in names:
        try:
            found.append(read_backup(folder / name))
        except BackupError as error:
            faults.append(error)
    return sorted(found, key=lambda one: (one.created_at, one.path.name)), faults


def find_backup(where: str | os.PathLike[str] | None, folder: Path, *, place: Path | None = None) -> Backup:
    """Return the backup that a word means.

    Parameters
    ----------
    where : path-like, optional
        Its folder, or its name in `folder` or the beginning of it; the newest when omitted.
    folder : pathlib.Path
        The folder of backups.
    place : pathlib.Path, optional
        The folder of the cluster: of several clusters' backups the newest of this one is meant.

    Returns
    -------
    Backup
        It can be read; whether it is whole is told by :func:`verify_backup`.

    Raises
    ------
    BackupError
        When there is none, or more than one.
    """
    if where is not None:
        for candidate in (full(where), folder / where):
            if candidate.is_dir():
                return read_backup(candidate)
    known, faults = find_backups(folder)
    if where is not None:
        named = [one for one in known if one.path.name.startswith(os.fspath(where))]
        if len(named) == 1:
            return named[0]
        many = f"{len(named)} backups in {folder} begin with {os.fspath(where)!r}: give more of the name"
        none = (
            f"there is no backup {os.fspath(where)!r} in {folder}: give its folder or its name; "
            "'orchestrator-lab backup list' shows those there are"
        )
        raise BackupError(many if named else none, path=str(folder))
    if not known:
        if faults:
            raise faults[-1]
        raise BackupError(
            f"there is no backup in {folder}: name the folder of backups (--in DIR, ORCHESTRATOR_BACKUP__DIR), or make "
            "one with 'orchestrator-lab backup create'",
            path=str(folder),
        )
    here = [one for one in known if place is not None and one.folder == str(place)]
    sources = {one.source for one in here or known}
    if len(sources) > 1:
        listed = ", ".join(sorted(str(name or place) for name, place in sources))
        raise BackupError(
            f"{folder} holds backups of several clusters ({listed}): name the one you mean", path=str(folder)
        )
    return (here or known)[-1]
