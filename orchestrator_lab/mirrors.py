"""Folders whose files are put there when they are first used.

A bundle is read like a run's folder: :mod:`orchestrator_lab.bundle` makes a private folder that stands for it, and says
here where its files come from. Whoever opens a file of a run calls :func:`present` first; for a folder that is what it
seems to be, this does nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Origin", "add", "present", "readable"]

_origins: dict[str, Origin] = {}
_lock = threading.Lock()


class Origin(Protocol):
    """Where the files of a folder come from."""

    def bring(self, name: str) -> None:
        """Put a file into its place in the folder; nothing happens when there is none of this name."""
        ...

    def reader(self, name: str) -> BinaryIO | None:
        """Return a file that can be read from any place without being put anywhere; None when it has to be."""
        ...


def add(folder: Path, origin: Origin) -> None:
    """Say where the files of a folder come from.

    Parameters
    ----------
    folder : pathlib.Path
        Absolute; nobody else writes to it.
    origin : Origin
        What brings them.
    """
    with _lock:
        _origins[str(folder)] = origin


def present(path: Path) -> Path:
    """Make sure that a file is where it is looked for.

    Parameters
    ----------
    path : pathlib.Path
        A file of a run.

    Returns
    -------
    pathlib.Path
        The same path; there is a file now if the run has one.

    Examples
    --------
    >>> from pathlib import Path
    >>> present(Path("runs/run_x/journal.jsonl")).name
    'journal.jsonl'
    """
    for origin, name in _found(path):
        if not path.exists():
            origin.bring(name)
    return path


def readable(path: Path) -> Path | BinaryIO:
    """Return what a library reads a file from: the file itself, or a part of a larger one.

    Parameters
    ----------
    path : pathlib.Path
        A file of a run.

    Returns
    -------
    pathlib.Path or binary file
        The path, or an open file that the caller closes.
    """
    for origin, name in _found(path):
        if not path.exists():
            file = origin.reader(name)
            if file is not None:
                return file
            origin.bring(name)
    return path


def _found(path: Path) -> Iterator[tuple[Origin, str]]:
    """Yield the origin of a file, and its name there; nothing for a file of an ordinary folder."""
    if not _origins:
        return
    for parent in path.parents:
        origin = _origins.get(str(parent))
        if origin is not None:
            yield origin, path.relative_to(parent).as_posix()
            return
