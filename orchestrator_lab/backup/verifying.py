"""Is a backup what was written? Any damage is found, and where it is: in a run too, by the file in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator_lab.backup.listing import RUNS, run_file
from orchestrator_lab.bundle.layout import CHECKSUMS
from orchestrator_lab.bundle.verifying import Damage, verify_bundle
from orchestrator_lab.errors import BackupError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.backup.listing import Backup

__all__ = ["VerifiedBackup", "listed_digests", "verify_backup"]


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedBackup:
    """What was found.

    Parameters
    ----------
    path : pathlib.Path
        The backup.
    files : int
        Files that were checked.
    size : int
        Bytes of them.
    damages : tuple of Damage
        Empty when it is whole.
    """

    path: Path
    files: int
    size: int
    damages: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.damages

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        if self.ok:
            return f"{self.path}: whole: {self.files} files, {self.size} bytes, every one as it was written"
        return "\n".join([f"{self.path}: damaged", *(f"  {one.where}: {one.what}" for one in self.damages)])


def listed_digests(path: Path) -> dict[str, str]:
    """Return the digest of each file of a backup, as it lists them.

    Parameters
    ----------
    path : pathlib.Path
        Its folder.

    Returns
    -------
    dict of str to str
        SHA-256 by name; the list itself is not in it.

    Raises
    ------
    BackupError
        When the list is missing or damaged.
    """
    place = path / CHECKSUMS
    try:
        lines = place.read_bytes().decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise BackupError(
            f"{place} cannot be read ({error.strerror}): without it nobody can tell whether the backup is whole",
            path=str(place),
        ) from error
    found = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise BackupError(
                f"{place}: a line of it is no digest and name ({line[:80]!r}): it is damaged", path=str(place)
            )
        found[name] = digest
    return found


def verify_backup(backup: Backup, *, only: set[str] | None = None) -> VerifiedBackup:
    """Check every byte of a backup.

    Parameters
    ----------
    backup : Backup
        The backup.
    only : set of str, optional
        Look at these files alone, and not at what is there beside them.

    Returns
    -------
    VerifiedBackup
        True when it is whole.

    Examples
    --------
    >>> verify_backup(find_backup(None, Path("/backups"))).ok  # doctest: +SKIP
    True
    """
    try:
        listed = listed_digests(backup.path)
    except BackupError as error:
        return VerifiedBackup(backup.path, 0, 0, (Damage(CHECKSUMS, error.message),))
    damages: list[Damage] = []
    size = 0
    for name, digest in listed.items():
        if only is not None and name not in only:
            continue
        place = backup.path / name
        if place.is_symlink() or not place.is_file():
            damages.append(Damage(name, "it is missing"))
            continue
        size += place.stat().st_size
        try:
            with place.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == digest
        except OSError as error:
            damages.append(Damage(name, f"it cannot be read ({error.strerror})"))
            continue
        if not same:
            damages += _inside(backup.path, name)
    expected = {run_file(run["run_id"]) for run in backup.runs} if only is None else only
    damages += [
        Damage(name, f"it is not in {CHECKSUMS}: nobody can tell whether it is whole")
        for name in sorted(expected - set(listed))
    ]
    if only is None:
        there = {path.relative_to(backup.path).as_posix() for path in backup.path.rglob("*") if not path.is_dir()}
        damages += [
            Damage(name, f"it is not in {CHECKSUMS}: it was put there later")
            for name in sorted(there - set(listed) - {CHECKSUMS} - expected)
        ]
    return VerifiedBackup(backup.path, len(listed) if only is None else len(only), size, tuple(damages))


def _inside(folder: Path, name: str) -> list[Damage]:
    """Tell what is wrong with a file that is not what was written; of a run, which of its files."""
    if name.startswith(f"{RUNS}/"):
        found = verify_bundle(folder / name).damages
        if found:
            return [Damage(f"{name}: {one.where}", one.what) for one in found]
    return [Damage(name, f"it is not what {CHECKSUMS} says")]
