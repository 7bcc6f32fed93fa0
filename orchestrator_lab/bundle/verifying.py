"""Is a bundle what was packed? Any damage is found, and where it is.

This finds accidents: a bit that fell over, a file that was changed or lost. It is no signature: whoever changes a
bundle on purpose can make its checksums anew.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle.archive import Archive
from orchestrator_lab.bundle.layout import CHECKSUMS, FACTS, JOURNAL, MANIFEST, TABLES
from orchestrator_lab.bundle.packing import SEAL_MARK, seal_of
from orchestrator_lab.bundle.upgrades import check_facts
from orchestrator_lab.errors import BundleError, JournalError

if TYPE_CHECKING:
    import os

__all__ = ["Damage", "Verified", "verify_bundle"]

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was packed.

    Parameters
    ----------
    where : str
        The file in the bundle; ``archive`` for what lies between the files.
    what : str
        What is wrong with it.
    """

    where: str
    what: str


@dataclass(frozen=True, slots=True, repr=False)
class Verified:
    """What was found.

    Parameters
    ----------
    path : pathlib.Path
        The bundle.
    files : int
        Files that were checked.
    size : int
        Bytes of them, unpacked.
    damages : tuple of Damage
        Empty when the bundle is whole.
    facts : dict
        What the bundle says of itself; empty when that cannot be read.
    """

    path: Path
    files: int
    size: int
    damages: tuple[Damage, ...]
    facts: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was packed."""
        return not self.damages

    def __bool__(self) -> bool:
        return self.ok

    @property
    def before(self) -> tuple[Damage, ...]:
        """What was damaged already when the bundle was made: this is as it was packed."""
        told = self.facts.get("damaged")
        return tuple(
            Damage(str(name), str(sentence))
            for name, sentences in (told.items() if isinstance(told, dict) else ())
            for sentence in (sentences if isinstance(sentences, list) else ())
        )

    def __repr__(self) -> str:
        if not self.ok:
            return "\n".join([f"{self.path}: damaged", *(f"  {one.where}: {one.what}" for one in self.damages)])
        whole = (
            f"{self.path}: whole: {self.files} files, {self.size} bytes, every one as it was packed "
            "(checksums find damage; they do not say who packed it)"
        )
        before = (f"  {one.where}: damaged before it was packed: {one.what}" for one in self.before)
        return "\n".join([whole, *before])


def verify_bundle(path: str | os.PathLike[str]) -> Verified:
    """Check every byte of a bundle.

    Parameters
    ----------
    path : path-like
        The bundle.

    Returns
    -------
    Verified
        True when it is whole.

    Raises
    ------
    BundleError
        When there is no such file.

    Examples
    --------
    >>> verify_bundle("runs/night.olab.zip").ok  # doctest: +SKIP
    True
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise BundleError(f"{place}: there is no such bundle; give a file such as run.olab.zip", path=str(place))
    with ThreadPoolExecutor(1) as other:
        whole = other.submit(_seal, place)
        try:
            archive = Archive(place)
        except BundleError as error:
            return Verified(place, 0, 0, (Damage("archive", error.message),), {})
        damages, facts = _files(archive)
        sealed = whole.result()
    if sealed is not None and not damages:
        damages.append(Damage("archive", sealed))
    total = sum(info.file_size for info in archive.members.values())
    return Verified(place, len(archive.members), total, tuple(damages), facts)


def _seal(path: Path) -> str | None:
    """Return what is wrong with the archive as a whole."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - len(SEAL_MARK) - 64))
        end = file.read()
        if not end.startswith(SEAL_MARK):
            return (
                "its last bytes are not the archive's own digest: they are damaged, or another program has packed the "
                "files again (each of them is as it was)"
            )
        if seal_of(file).encode() != end[len(SEAL_MARK) :]:
            return "bytes between the files (headers, directory) are damaged; each file is as it was packed"
    return None


def _files(archive: Archive) -> tuple[list[Damage], dict[str, Any]]:
    damages: list[Damage] = []
    facts: dict[str, Any] = {}
    found: dict[str, str] = {}
    with archive.reading():
        for name in archive.members:
            try:
                found[name] = _digest(archive, name)
            except BundleError as error:
                damages.append(Damage(name, f"{_reason(error)}, {_place(archive, name)}"))
    try:
        listed = archive.checksums()
    except BundleError as error:
        if not any(one.where == CHECKSUMS for one in damages):
            damages.append(Damage(CHECKSUMS, error.message))
        return damages, facts
    told = {one.where for one in damages}
    for name, digest in listed.items():
        if name not in archive.members:
            damages.append(Damage(name, "it is missing"))
        elif name not in told and found[name] != digest:
            damages.append(Damage(name, f"it is not what {CHECKSUMS} says, {_place(archive, name)}"))
    damages += [
        Damage(name, f"it is not in {CHECKSUMS}: it was put there later")
        for name in archive.members
        if name not in listed and name != CHECKSUMS
    ]
    try:
        facts = check_facts(json.loads(archive.read(FACTS)), str(archive.path)) if FACTS in listed else {}
        if FACTS not in listed or MANIFEST not in listed:
            damages.append(Damage("archive", "it is no bundle of a run"))
    except (BundleError, ValueError) as error:
        if FACTS not in told:
            damages.append(Damage(FACTS, str(error)))
    if not damages:
        damages += _inside(archive)
    return damages, facts


def _inside(archive: Archive) -> list[Damage]:
    """Tell what is whole and yet of no use: packed wrongly, or by somebody else."""
    damages = []
    seal = f"{TABLES}/seal.json"
    if seal in archive.members:
        try:
            facts = json.loads(archive.read(seal))
            journal = archive.members.get(JOURNAL)
            listed = archive.checksums()
            digest = facts.get("journal_sha256")
            same = not digest or journal is None or digest == listed.get(JOURNAL)
            if not same or facts["journal_bytes"] != (journal.file_size if journal else 0):
                damages.append(Damage(seal, "the tables are of another journal than this; the journal is read instead"))
            damages += [
                Damage(f"{TABLES}/{table}.parquet", f"it is not what {seal} says")
                for table, digest in facts["sha256"].items()
                if listed.get(f"{TABLES}/{table}.parquet") != digest
            ]
        except (ValueError, KeyError, TypeError, AttributeError, JournalError) as error:
            damages.append(Damage(seal, f"it is no seal ({error})"))
    return damages


def _digest(archive: Archive, name: str) -> str:
    digest = hashlib.sha256()
    try:
        with archive.open(name) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except (OSError, struct.error, zipfile.LargeZipFile, RuntimeError) as error:
        raise BundleError(f"{name}: it cannot be read ({error})", path=str(archive.path)) from error
    return digest.hexdigest()


def _place(archive: Archive, name: str) -> str:
    """Return where in the archive a file lies: which of its bytes changed no checksum can tell."""
    info = archive.members[name]
    return f"bytes {info.header_offset} to {info.header_offset + info.compress_size} of the archive"


def _reason(error: BundleError) -> str:
    cause = error.__cause__
    return f"it is damaged ({cause})" if cause is not None else error.message
