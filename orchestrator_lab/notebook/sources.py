"""The runs that a notebook was made from: found among the files that it opened, known again by their SHA-256."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle import is_bundle
from orchestrator_lab.bundle.layout import FACTS, JOURNAL, MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Source", "runs_among"]

#: How deep a run's files lie in its folder.
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Source:
    """A run that a notebook read or replayed.

    Parameters
    ----------
    file : str
        Its bundle, or its journal, relative to the notebook's folder; the last parts only when it lies outside.
    sha256 : str
        Of the file's bytes.
    outside : bool
        Whether it lies outside the notebook's folder, so that it does not travel with it.
    """

    file: str
    sha256: str
    outside: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what stands in a notebook's metadata."""
        told: dict[str, Any] = {"file": self.file, "sha256": self.sha256}
        return told | {"outside": True} if self.outside else told


def runs_among(opened: Iterable[str], folder: Path, *, before: float) -> list[Source]:
    """Return the runs to which files belong, without those that were made meanwhile.

    Parameters
    ----------
    opened : iterable of str
        Absolute paths.
    folder : pathlib.Path
        The notebook's.
    before : float
        An instant, in seconds since the epoch. What was written later is of the notebook's own making.

    Returns
    -------
    list of Source
        By name.

    Examples
    --------
    >>> runs_among(["/etc/hostname"], Path("/nonexistent"), before=0.0)
    []
    """
    found = {file for path in opened if (file := _file_of_run(Path(path))) is not None}
    sources = [_source(file, folder.resolve()) for file in found if file.stat().st_mtime < before]
    # A copy elsewhere is the same run.
    nearest = {one.sha256: one for one in sorted(sources, key=lambda one: (not one.outside, one.file))}
    return sorted(nearest.values(), key=lambda one: one.file)


def _file_of_run(path: Path) -> Path | None:
    """Return the file that stands for the run: its bundle, or its journal."""
    if is_bundle(path):
        return path.resolve() if _holds_a_run(path) else None
    # A look at the manifest alone is how runs are told apart: it does not say that this one was wanted.
    if path.name == MANIFEST:
        return None
    for parent in list(path.parents)[:_DEPTH]:
        if (parent / MANIFEST).is_file() and (parent / JOURNAL).is_file():
            return (parent / JOURNAL).resolve()
    return None


def _holds_a_run(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return FACTS in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _source(file: Path, folder: Path) -> Source:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if file.is_relative_to(folder):
        return Source(file.relative_to(folder).as_posix(), digest)
    # The way there would tell of this machine, and leads nowhere on another one.
    return Source("/".join(file.parts[-2:]) if file.name == JOURNAL else file.name, digest, outside=True)
