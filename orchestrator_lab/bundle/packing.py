"""Bundles as they are written: the same bytes for the same files, whoever packs them and when.

Order, times, owners and compression are fixed. The last bytes of the file, the archive's comment, are the SHA-256 of
all bytes before them, so that no bit of the archive can change unseen, its directory included. Python's own zlib packs:
another build of it (zlib-ng) may pack the same files into other bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from orchestrator_lab.bundle.ahead import ahead
from orchestrator_lab.bundle.archive import too_dense
from orchestrator_lab.bundle.layout import CHECKSUMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["SEAL_MARK", "pack", "seal_of"]

#: What stands before the archive's own digest.
SEAL_MARK = b"olab sha256 "
_DIGITS = 64
_PIECE = 1 << 20
#: How far deflate looks back.
_WINDOW = 1 << 15
#: The earliest instant that a zip file can name.
_NEVER = (1980, 1, 1, 0, 0, 0)
#: Packed already, or read in place.
_STORED = (".parquet", ".zst", ".gz", ".zip", ".png", ".jpg", ".jpeg", ".webp", ".pdf")


def pack(target: Path, files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """Write a bundle.

    Parameters
    ----------
    target : pathlib.Path
        The file to write, mode 0600; it must not be there.
    files : mapping of str to (pathlib.Path or bytes)
        Content by name, in the order in which it is packed; the list of checksums is made here.

    Returns
    -------
    dict of str to str
        SHA-256 of each file.
    """
    stored: set[str] = set()
    while True:
        digests: dict[str, str] = {}
        with open(target, "w+b", opener=_private) as file:
            with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
                for name, content in files.items():
                    digests[name] = _add(archive, name, content, stored=name in stored)
                listed = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
                _add(archive, CHECKSUMS, listed.encode(), stored=False)
                dense = {one.filename for one in archive.infolist() if too_dense(one.file_size, one.compress_size)}
                archive.comment = SEAL_MARK + b"0" * _DIGITS
            if not dense:
                file.flush()
                file.seek(-_DIGITS, os.SEEK_END)
                digest = seal_of(file).encode()
                file.seek(-_DIGITS, os.SEEK_END)
                file.write(digest)
                file.flush()
                os.fsync(file.fileno())
                return digests
        # Nobody would open it: a file that shrinks so much is taken for a bomb.
        stored |= dense


def seal_of(file: BinaryIO) -> str:
    """Return the SHA-256 of all bytes of a bundle but the digits at its end.

    Parameters
    ----------
    file : binary file
        The bundle, open for reading.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    left = os.fstat(file.fileno()).st_size - _DIGITS
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (piece := file.read(min(_PIECE, left))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


def _add(archive: zipfile.ZipFile, name: str, content: Path | bytes, *, stored: bool) -> str:
    info = zipfile.ZipInfo(name, date_time=_NEVER)
    info.create_system = 3  # Unix, wherever it is packed
    info.external_attr = (stat.S_IFREG | 0o600) << 16
    info.compress_type = zipfile.ZIP_STORED if stored or name.endswith(_STORED) else zipfile.ZIP_DEFLATED
    info.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha256()
    if isinstance(content, bytes):
        digest.update(content)
        with archive.open(info, "w") as member:
            member.write(content)
    elif info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > _PIECE:
        _add_deflated(archive, info, content, digest)
    else:
        with archive.open(info, "w") as member, content.open("rb") as source:
            while piece := source.read(_PIECE):
                digest.update(piece)
                member.write(piece)
    return digest.hexdigest()


def _add_deflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo, content: Path, digest: hashlib._Hash) -> None:
    """Add a long file that is compressed piece by piece, on as many cores as there are: zipfile uses one.

    The pieces are the same ones everywhere, so the bytes are too; each begins with what stood before it, as pigz does.
    """
    file = cast("BinaryIO", archive.fp)
    info.header_offset = file.tell()
    info.CRC = info.compress_size = 0
    long = info.file_size * 1.05 > zipfile.ZIP64_LIMIT
    file.write(info.FileHeader(long))
    info.file_size = 0
    for piece, packed in ahead(_pieces(content), _deflated):
        digest.update(piece)
        info.CRC = zlib.crc32(piece, info.CRC)
        info.file_size += len(piece)
        info.compress_size += len(packed)
        file.write(packed)
    archive.start_dir = file.tell()
    file.seek(info.header_offset)
    file.write(info.FileHeader(long))
    file.seek(archive.start_dir)
    archive.filelist.append(info)
    archive.NameToInfo[info.filename] = info


def _pieces(content: Path) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield the pieces of a file, each with what is looked back at, and whether it is the last."""
    with content.open("rb") as source:
        before, piece = b"", source.read(_PIECE)
        while piece:
            following = source.read(_PIECE)
            yield before, piece, not following
            before, piece = piece[-_WINDOW:], following


def _deflated(given: tuple[bytes, bytes, bool]) -> tuple[bytes, bytes]:
    before, piece, last = given
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=before)
    return piece, packer.compress(piece) + packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o600)
