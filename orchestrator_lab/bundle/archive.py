"""Bundles as they are read: a zip file of which nothing is believed before it is checked.

The directory is checked before anything is read: names, kinds, sizes, how much a file grows when it is unpacked,
whether two files share bytes. Files that are stored without compression (Parquet tables, recordings) are read in place.

References
----------
PKWARE, APPNOTE.TXT, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import threading
import unicodedata
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from orchestrator_lab.bundle.layout import CHECKSUMS, fault_of_name
from orchestrator_lab.errors import BundleError, disk_error

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Archive", "Limits", "too_dense"]

_PIECE = 1 << 20
#: End of the directory, its locator and its long form, in zip files of any size.
_END, _END_SIGNATURE = struct.Struct("<4s4H2IH"), b"PK\x05\x06"
_LOCATOR, _LOCATOR_SIGNATURE = struct.Struct("<4sIQI"), b"PK\x06\x07"
_LONG_END, _LONG_END_SIGNATURE = struct.Struct("<4sQ2H2I4Q"), b"PK\x06\x06"
_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED, _STRONGLY = 0x1, 0x40
#: A file that grows beyond this many times its packed size is taken for a bomb, small ones excepted.
_DENSEST, _SMALL = 400, 32 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is believed of a bundle.

    Parameters
    ----------
    files : int
        How many files it may hold.
    directory : int
        Bytes of its directory.
    total : int
        Bytes of all files, unpacked.
    """

    files: int = 100_000
    directory: int = 64 << 20
    total: int = 1 << 40


def too_dense(size: int, packed: int) -> bool:
    """Tell whether a file grows more than any honest one when it is unpacked.

    Examples
    --------
    >>> too_dense(1 << 20, 10), too_dense(1 << 30, 1 << 20)
    (False, True)
    """
    return size > _SMALL and size > packed * _DENSEST


class Archive:
    """The checked directory of a bundle.

    Parameters
    ----------
    path : path-like
        The bundle.
    limits : Limits, optional
        How much of it is believed.

    Raises
    ------
    BundleError
        When it is no zip file, is damaged, or holds what must not be unpacked.
    """

    def __init__(self, path: str | os.PathLike[str], *, limits: Limits | None = None) -> None:
        self.path = Path(path)
        self._limits = limits or Limits()
        self._local = _Open()
        with self._opened() as file:
            found = os.fstat(file.fileno())
            #: What tells this file from another one under the same name.
            self.identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            self.size = found.st_size
            self._check_end(file)
            with self._zip(file) as archive:
                #: What the directory says of each file, by name.
                self.members = self._checked(archive.infolist())
                self.comment = archive.comment

    def names(self) -> list[str]:
        """Return the names of all files, in the order of the archive."""
        return list(self.members)

    @contextmanager
    def reading(self) -> Iterator[zipfile.ZipFile]:
        """Hold the file open for all that this thread reads meanwhile: its directory is not gone through each time."""
        if self._local.zip is not None:
            yield self._local.zip
            return
        with self._same() as file, self._zip(file) as archive:
            self._local.zip = archive
            try:
                yield archive
            finally:
                self._local.zip = None

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file; what it yields is checked against the directory's CRC at its end.

        Parameters
        ----------
        name : str
            One of :meth:`names`.

        Yields
        ------
        binary file
            To be read from the front.

        Raises
        ------
        BundleError
            When the file is damaged.
        """
        with self.reading() as archive:
            try:
                with archive.open(self.members[name]) as member:
                    yield member  # type: ignore[misc] # an IO of bytes
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
                raise BundleError(
                    f"{self.path}: {name!r} in it is damaged ({error}); get the bundle again",
                    path=str(self.path),
                    member=name,
                ) from error

    def read(self, name: str, *, most: int = 64 << 20) -> bytes:
        """Return a whole file that is small.

        Parameters
        ----------
        name : str
            One of :meth:`names`.
        most : int
            Bytes that it may have.

        Returns
        -------
        bytes
            Its content.

        Raises
        ------
        BundleError
            When it is larger, or damaged.
        """
        if self.members[name].file_size > most:
            raise BundleError(
                f"{self.path}: {name!r} in it has {self.members[name].file_size} bytes, more than the {most} that such "
                "a file may have; it was not read",
                path=str(self.path),
                member=name,
            )
        with self.open(name) as file:
            return file.read()

    def in_place(self, name: str) -> BinaryIO | None:
        """Return a file that is read where it lies, from any place in it; None when it is compressed.

        Parameters
        ----------
        name : str
            One of :meth:`names`.

        Returns
        -------
        binary file or None
            To be closed by the caller.

        Raises
        ------
        BundleError
            When the bundle is damaged there.
        """
        info = self.members[name]
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with self._same() as file:
            start = self._start(file, info)
            return io.BufferedReader(_Part(os.dup(file.fileno()), start, info.file_size), 1 << 16)

    def extract(self, name: str, target: Path, *, sha256: str | None) -> None:
        """Unpack a file; it is in its place whole and checked, or not at all.

        Parameters
        ----------
        name : str
            One of :meth:`names`.
        target : pathlib.Path
            Where; missing folders are made, mode 0700.
        sha256 : str or None
            What its digest must be.

        Raises
        ------
        BundleError
            When it is damaged.
        EnvironmentProblem, DiskFull
            When it cannot be written.
        """
        partial = target.with_name(f".{os.getpid()}.{target.name}"[:255])
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(partial, "xb", opener=_private) as out, self.open(name) as member:
                digest = hashlib.sha256()
                while piece := member.read(_PIECE):
                    digest.update(piece)
                    out.write(piece)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise BundleError(
                    f"{self.path}: {name!r} in it is not what {CHECKSUMS} says; get the bundle again",
                    path=str(self.path),
                    member=name,
                )
            partial.replace(target)
        except OSError as error:
            raise disk_error(
                f"{self.path}: {name!r} cannot be unpacked to {target.parent} ({error.strerror}); check the room there",
                error,
                path=target,
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def checksums(self) -> dict[str, str]:
        """Return the digest of each file, as the bundle lists them.

        Raises
        ------
        BundleError
            When the list is missing or damaged.
        """
        if CHECKSUMS not in self.members:
            raise BundleError(
                f"{self.path} is no bundle of a run: it holds no {CHECKSUMS}; `orchestrator-lab runs export` makes one",
                path=str(self.path),
            )
        found = {}
        for line in self.read(CHECKSUMS).decode("utf-8", "replace").splitlines():
            digest, _, name = line.partition("  ")
            if len(digest) != 64 or not name:
                raise BundleError(
                    f"{self.path}: a line of {CHECKSUMS} is no digest and name ({line[:80]!r}); get the bundle again",
                    path=str(self.path),
                )
            found[name] = digest
        return found

    # -- opening -----------------------------------------------------------------------------

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise BundleError(
                f"{self.path}: the bundle cannot be read ({error.strerror}); check its name and owner",
                path=str(self.path),
            ) from error
        with file:
            yield file

    @contextmanager
    def _same(self) -> Iterator[BinaryIO]:
        """Open the file again, and make sure that it is the one whose directory was checked."""
        with self._opened() as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) != self.identity:
                raise BundleError(
                    f"{self.path} was replaced since it was opened; open the run again", path=str(self.path)
                )
            yield file

    @contextmanager
    def _zip(self, file: BinaryIO) -> Iterator[zipfile.ZipFile]:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError) as error:
            raise BundleError(
                f"{self.path} is no zip file, or its directory is damaged ({error}); get the bundle again",
                path=str(self.path),
            ) from error
        with archive:
            yield archive

    def _start(self, file: BinaryIO, info: zipfile.ZipInfo) -> int:
        """Return where the bytes of a file begin, behind its own header."""
        head = os.pread(file.fileno(), _LOCAL.size, info.header_offset)
        fields = _LOCAL.unpack(head) if len(head) == _LOCAL.size else (b"",) * 11
        start = info.header_offset + _LOCAL.size + (fields[9] + fields[10] if fields[0] == b"PK\x03\x04" else 0)
        if fields[0] != b"PK\x03\x04" or start + info.file_size > self.size:
            raise BundleError(
                f"{self.path}: the header of {info.filename!r} in it is damaged; get the bundle again",
                path=str(self.path),
                member=info.filename,
            )
        return start

    # -- checking ----------------------------------------------------------------------------

    def _refused(self, why: str, **facts: object) -> BundleError:
        return BundleError(
            f"{self.path} is refused: {why}; nothing of it was unpacked", path=str(self.path), reason=why, **facts
        )

    def _check_end(self, file: BinaryIO) -> None:
        """Refuse a directory that is too long before it is read: each entry takes memory."""
        tail_at = max(0, self.size - _END.size - 0xFFFF)
        tail = os.pread(file.fileno(), self.size - tail_at, tail_at)
        place = tail.rfind(_END_SIGNATURE)
        if place < 0 or place + _END.size > len(tail):
            return  # zipfile says what is wrong
        _, disk, first, _, count, length, _, _ = _END.unpack_from(tail, place)
        locator_at = tail_at + place - _LOCATOR.size
        found = os.pread(file.fileno(), _LOCATOR.size, max(0, locator_at))
        if locator_at >= 0 and found[:4] == _LOCATOR_SIGNATURE:
            long_end = os.pread(file.fileno(), _LONG_END.size, min(_LOCATOR.unpack(found)[2], self.size))
            if len(long_end) == _LONG_END.size and long_end[:4] == _LONG_END_SIGNATURE:
                count, length = _LONG_END.unpack(long_end)[7:9]
        if disk or first:
            raise self._refused("it is a part of an archive in several files")
        if count > self._limits.files:
            raise self._refused(f"it holds {count} files, more than {self._limits.files}")
        if length > self._limits.directory:
            raise self._refused(f"its directory has {length} bytes, more than {self._limits.directory}")

    def _checked(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        if len(infos) > self._limits.files:
            raise self._refused(f"it holds {len(infos)} files, more than {self._limits.files}")
        members: dict[str, zipfile.ZipInfo] = {}
        folded: dict[str, str] = {}
        total = 0
        for info in infos:
            # As it is written: zipfile cuts a name at a NUL, and turns separators.
            name = info.orig_filename
            folder = name.endswith("/") and not info.file_size
            fault = fault_of_name(name.removesuffix("/") if folder else name)
            if fault is not None:
                raise self._refused(f"the name {name[:120]!r} must not be unpacked, {fault}", member=name)
            self._check_kind(info, folder=folder)
            if folder:
                continue
            same = unicodedata.normalize("NFC", name).casefold()
            if same in folded:
                raise self._refused(f"it holds {name!r} twice (the other is {folded[same]!r})", member=name)
            folded[same] = members_name = name
            total += info.file_size
            if too_dense(info.file_size, info.compress_size):
                raise self._refused(
                    f"{name!r} grows from {info.compress_size} to {info.file_size} bytes, as no honest file does",
                    member=name,
                )
            members[members_name] = info
        if total > self._limits.total:
            raise self._refused(f"it would unpack to {total} bytes, more than {self._limits.total}")
        for name in members:
            parent = name.rpartition("/")[0]
            while parent:
                if unicodedata.normalize("NFC", parent).casefold() in folded:
                    raise self._refused(f"{parent!r} is a file and a folder in it", member=name)
                parent = parent.rpartition("/")[0]
        self._check_overlap(list(members.values()))
        return members

    def _check_kind(self, info: zipfile.ZipInfo, *, folder: bool) -> None:
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG} and not (folder and kind == stat.S_IFDIR):
            what = "a link" if stat.S_ISLNK(kind) else "no ordinary file"
            raise self._refused(f"{name!r} is {what}", member=name)
        if info.flag_bits & (_ENCRYPTED | _STRONGLY):
            raise self._refused(f"{name!r} is encrypted", member=name)
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise self._refused(
                f"{name!r} is packed by method {info.compress_type}, not stored or deflated", member=name
            )
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise self._refused(f"{name!r} is stored, but with two sizes", member=name)

    def _check_overlap(self, infos: list[zipfile.ZipInfo]) -> None:
        """Refuse files that share bytes: a small archive would unpack to any size."""
        end, before = 0, ""
        for info in sorted(infos, key=lambda one: one.header_offset):
            if info.header_offset < end:
                raise self._refused(f"{info.filename!r} and {before!r} share bytes of it", member=info.filename)
            # Its own header is as long as its name at least.
            end = info.header_offset + _LOCAL.size + len(info.orig_filename.encode()) + info.compress_size
            before = info.filename
        if end > self.size:
            raise self._refused(f"{before!r} is longer than the archive", member=before)


class _Open(threading.local):
    """The archive as a thread has it open."""

    zip: zipfile.ZipFile | None = None


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        super().__init__()
        self._descriptor, self._start, self._size, self._place = descriptor, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # any writable buffer
        wanted = min(len(buffer), max(0, self._size - self._place))
        done = os.preadv(self._descriptor, [memoryview(buffer)[:wanted]], self._start + self._place) if wanted else 0
        self._place += done
        return done

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o600)
