"""Which files of a run go into a bundle."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator_lab.bundle.layout import INITIAL, PARTS, fault_of_name
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["OPTIONAL", "Chosen", "choose"]

#: What a bundle can be without.
OPTIONAL = tuple(part for part in PARTS if part not in {"manifest.json", "journal.jsonl"})


@dataclass(frozen=True, slots=True)
class Chosen:
    """What goes in, and what does not.

    Parameters
    ----------
    files : dict of str to pathlib.Path
        Where each file lies, by its name in the bundle, in the order of the parts.
    left_out : dict of str to str
        What does not go in though the run has it, and why.
    """

    files: dict[str, Path]
    left_out: dict[str, str]


def choose(folder: Path, *, leave_out: Iterable[str], initial_limit: int) -> Chosen:
    """Choose the files of a run that go into a bundle.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    leave_out : iterable of str
        Parts that are not wanted; see :data:`OPTIONAL`.
    initial_limit : int
        Bytes beyond which the work folder's initial state is left out.

    Returns
    -------
    Chosen
        Links are never followed; they and other odd files are left out.

    Raises
    ------
    ConfigError
        When there is no such part.
    """
    unwanted = list(leave_out)
    for part in unwanted:
        if part not in OPTIONAL:
            raise ConfigError(f"there is no part {part!r} to leave out; these can be: {', '.join(OPTIONAL)}")
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for part in PARTS:
        place = folder / part
        if not place.exists():
            continue
        if part in unwanted:
            left_out[part] = "as asked"
            continue
        found: dict[str, Path] = {}
        folded: dict[str, str] = {}
        for name, path in _files(place, part):
            # Where case does not count, one of the two would take the other's place.
            same = folded.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
            why = _fault(name, path)
            if why is None and same != name:
                why = f"on some machines it has the name of {same!r}"
            if why is not None:
                left_out[name] = why
            else:
                found[name] = path
        if part == INITIAL:
            size = sum(path.stat().st_size for path in found.values())
            if size > initial_limit:
                left_out[part] = f"{size} bytes, more than {initial_limit}"
                continue
        files |= found
    return Chosen(files, left_out)


def _files(place: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Yield what lies below a folder, in one order everywhere."""
    if place.is_symlink() or not place.is_dir():
        yield name, place
        return
    for entry in sorted(os.scandir(place), key=lambda one: one.name):
        inner = place / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _files(inner, f"{name}/{entry.name}")
        else:
            yield f"{name}/{entry.name}", inner


def _fault(name: str, path: Path) -> str | None:
    if path.is_symlink():
        return "a link"
    if not path.is_file():
        return "no ordinary file"
    return fault_of_name(name)
