"""Bundles read like runs: a private folder stands for each, and its files come out of the archive when they are used.

Tables are read within the archive. A journal or a recording is unpacked once it is asked for, checked against its
SHA-256, into a folder of this process (mode 0700, in the system's temporary folder) that goes with it; what a killed
process left is cleared away by the next one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator_lab import mirrors
from orchestrator_lab.bundle.archive import Archive
from orchestrator_lab.bundle.layout import FACTS, GENERATED, JOURNAL, MANIFEST, NOTEBOOK, TABLES, part_of
from orchestrator_lab.bundle.staging import claim
from orchestrator_lab.bundle.upgrades import check_facts, names_now, upgrade_file
from orchestrator_lab.errors import BundleError
from orchestrator_lab.runtime import private_dir
from orchestrator_lab.schema import SCHEMA_VERSION

__all__ = ["OpenedBundle", "open_bundle"]

logger = logging.getLogger(__name__)

_SEAL = f"{TABLES}/seal.json"
#: A manifest is read at once.
_LONGEST_FACTS = 64 << 20

_lock = threading.RLock()
_opened: dict[tuple[object, ...], OpenedBundle] = {}
#: The folder of this process, and the open file that says that it lives.
_places: dict[int, tuple[Path, int]] = {}


class OpenedBundle:
    """A bundle whose directory was checked, and the folder that stands for it.

    Parameters
    ----------
    path : path-like
        The bundle.

    Raises
    ------
    BundleError
        When it is refused, damaged, or of a later version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The bundle.
        self.path = Path(path)
        #: Its directory.
        self.archive = Archive(path)
        self._digests = self.archive.checksums()
        #: What it says of itself.
        self.facts = check_facts(self._json(FACTS), str(self.path))
        self._names = names_now(self.facts, self.archive.names())
        self._lock = threading.RLock()
        manifest = self._json(self._names.get(MANIFEST, MANIFEST))
        #: The run in it.
        self.run_id = _run_id(manifest, self.path)
        #: Stands for it; empty but for what was used.
        self.folder = Path(tempfile.mkdtemp(prefix="b", dir=_place())) / self.run_id
        self.folder.mkdir(mode=0o700)
        self._sealed = self._seal_counts()
        mirrors.add(self.folder, self)
        self.bring(MANIFEST)
        self.bring(_SEAL)

    def names(self) -> list[str]:
        """Return the names of the run's files in it: without what was made for the bundle alone."""
        return [
            name
            for name in self._names
            if name not in GENERATED and part_of(name) != NOTEBOOK and (self._sealed or part_of(name) != TABLES)
        ]

    def bring(self, name: str) -> None:
        """Unpack a file into the folder, checked; nothing happens when the bundle has none of this name."""
        if name not in self._names or name in GENERATED or (part_of(name) == TABLES and not self._sealed):
            return
        target = self.folder / name
        with self._lock:
            if not target.exists():
                self.unpack(name, target)

    def reader(self, name: str) -> BinaryIO | None:
        """Return a file that is read within the archive; None when it has to be unpacked."""
        if name not in self._names or (part_of(name) == TABLES and not self._sealed):
            return None
        return self.archive.in_place(self._names[name])

    def unpack(self, name: str, target: Path) -> None:
        """Unpack a file to another place, checked.

        Parameters
        ----------
        name : str
            Its name.
        target : pathlib.Path
            Where.

        Raises
        ------
        BundleError
            When it is damaged, or no digest of it is listed.
        EnvironmentProblem, DiskFull
            When it cannot be written.
        """
        inside = self._names[name]
        if inside not in self._digests:
            raise BundleError(
                f"{self.path}: {inside!r} in it has no checksum: it was put there later, and is not unpacked",
                path=str(self.path),
                member=inside,
            )
        self.archive.extract(inside, target, sha256=self._digests[inside])
        upgrade_file(target, name, self.facts["schema_version"])

    def all(self) -> Path:
        """Unpack all files of the run, for a reader that goes through its folder.

        Returns
        -------
        pathlib.Path
            The folder.
        """
        return self.bring_all()

    def bring_all(self, part: str | None = None) -> Path:
        """Unpack all files of one part of the run, or of all; return the folder."""
        with self.archive.reading():
            for name in self.names():
                if part is None or part_of(name) == part:
                    self.bring(name)
        return self.folder

    def notebooks(self) -> list[str]:
        """Return the names of the notebooks that came with the run."""
        return [name for name in self._names if part_of(name) == NOTEBOOK]

    def _json(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        if name not in self.archive.members:
            raise BundleError(
                f"{self.path} is no bundle of a run: it holds no {name}; `orchestrator-lab runs export` makes one",
                path=str(self.path),
            )
        try:
            return json.loads(self.archive.read(name, most=_LONGEST_FACTS))
        except (ValueError, RecursionError) as error:
            raise BundleError(
                f"{self.path}: {name!r} in it is no JSON ({error}); get the bundle again",
                path=str(self.path),
                member=name,
            ) from error

    def _seal_counts(self) -> bool:
        """Tell whether the tables are of this journal and this schema."""
        if _SEAL not in self._names:
            return False
        try:
            seal = self._json(self._names[_SEAL])
            same = seal["schema_version"] == SCHEMA_VERSION == self.facts["schema_version"]
            size = self.archive.members[self._names[JOURNAL]].file_size if JOURNAL in self._names else 0
            counts = same and seal["journal_bytes"] == size
            if (digest := seal.get("journal_sha256")) and JOURNAL in self._names:
                counts = counts and digest == self._digests.get(self._names[JOURNAL])
        except (BundleError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s: its tables are passed over, the journal is read instead (%s)", self.path, error)
            return False
        return bool(counts)


def open_bundle(path: str | os.PathLike[str]) -> OpenedBundle:
    """Open a bundle; the same file is opened once in a process.

    Parameters
    ----------
    path : path-like
        The bundle.

    Returns
    -------
    OpenedBundle
        With the folder that stands for it.

    Raises
    ------
    BundleError
        When it is refused, damaged, or of a later version.
    """
    place = Path(path).expanduser()
    with _lock:
        try:
            found = place.stat()
        except OSError:
            return OpenedBundle(place)  # says what is wrong
        key = (os.getpid(), str(place.resolve()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        kept = _opened.get(key)
        if kept is None or not kept.folder.exists():
            kept = _opened[key] = OpenedBundle(place)
        return kept


def _run_id(manifest: Any, path: Path) -> str:  # noqa: ANN401 - what a file holds
    found = manifest.get("run_id") if isinstance(manifest, dict) else None
    if not isinstance(found, str) or not found or found.startswith(".") or not found.replace("_", "a").isalnum():
        raise BundleError(
            f"{path}: {MANIFEST} in it names no run ({str(found)[:80]!r}); get the bundle again", path=str(path)
        )
    if not found.isascii() or len(found) > 100:
        raise BundleError(
            f"{path}: {MANIFEST} in it names no run ({found[:80]!r}); get the bundle again", path=str(path)
        )
    return found


# the folder of this process -------------------------------------------------------------------------


def _place() -> Path:
    """Return this process's own folder for what is unpacked, made when it is first needed."""
    with _lock:
        kept = _places.get(os.getpid())
        if kept is not None and kept[0].exists():
            return kept[0]
        root = private_dir(Path(tempfile.gettempdir()) / f"olab-bundles-{os.getuid()}")
        place, lives = claim(root, "process-")
        _places[os.getpid()] = (place, lives)
        atexit.register(_leave, os.getpid())
        return place


def _leave(pid: int) -> None:
    """Take this process's folder away; a child that was forked from it has its own."""
    if pid == os.getpid() and (kept := _places.pop(pid, None)) is not None:
        shutil.rmtree(kept[0], ignore_errors=True)
        os.close(kept[1])
        with contextlib.suppress(OSError):
            kept[0].parent.rmdir()  # the last one closes the door
