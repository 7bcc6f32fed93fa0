"""Records of a JSON lines file, one after the other, whatever the file went through."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MAX_LINE", "Line", "LineReader", "read_lines"]

#: Longest line that is decoded, in bytes; one that is longer is passed over, piece by piece.
MAX_LINE = 64 << 20
#: Bytes of a damaged line that are kept, and of what was read last, to know a file again.
_KEPT, _MARK = 2000, 256


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a record.

    Parameters
    ----------
    number : int
        From 1.
    record : dict or None
        What stands there; None when it cannot be read.
    problem : str or None
        What is wrong with it: ``encoding`` (read all the same, with U+FFFD for what is no UTF-8), ``json``,
        ``no object``, ``too long`` or ``torn``.
    raw : str
        The beginning of a line that cannot be read.
    size : int
        Bytes.
    """

    number: int
    record: dict[str, Any] | None
    problem: str | None = None
    raw: str = ""
    size: int = 0

    def __deepcopy__(self, _: object) -> Line:
        """Return itself: nobody changes a line."""
        return self


def read_lines(path: Path, *, limit: int = MAX_LINE) -> Iterator[Line]:
    r"""Yield the lines of a file, one at a time; empty ones are left out.

    Parameters
    ----------
    path : Path
        The file.
    limit : int
        Longest line to decode, in bytes.

    Yields
    ------
    Line
        A last line without its newline is ``torn``, unless it is a whole object all the same.

    Raises
    ------
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.jsonl")
    ...     _ = path.write_bytes(b'{"type":"user"}\n[1]\n{"ty')
    ...     [(line.number, line.problem) for line in read_lines(path)]
    [(1, None), (2, 'no object'), (3, 'torn')]
    """
    reader = LineReader(path, limit=limit)
    yield from reader.whole()
    yield from reader.rest()


class LineReader:
    """Read a growing file of JSON lines, each time only what is new.

    Parameters
    ----------
    path : Path
        The file.
    limit : int
        Longest line to decode, in bytes.
    """

    def __init__(self, path: Path, *, limit: int = MAX_LINE) -> None:
        self.path = path
        #: Bytes of the lines that were read: the next one begins there.
        self.offset = 0
        self._limit = limit
        self._number = 0
        #: What stands before the offset.
        self._mark = b""

    def whole(self) -> Iterator[Line]:
        """Yield the lines that are new and end with a newline; :attr:`offset` is behind each then.

        Yields
        ------
        Line
            In order; empty ones are left out.

        Raises
        ------
        OSError
            When the file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while data := file.readline(self._limit + 1):
                size, start = len(data), data[:_KEPT]
                last = data
                while not last.endswith(b"\n") and size > self._limit and (more := file.readline(1 << 20)):
                    size, last = size + len(more), more
                if not last.endswith(b"\n"):
                    return
                self.offset += size
                self._number += 1
                self._mark = (self._mark + last)[-_MARK:]
                if size > max(self._limit, len(data)):
                    yield Line(self._number, None, "too long", start.decode(errors="replace"), size)
                elif data.strip():
                    yield _line(self._number, data)

    def rest(self) -> Iterator[Line]:
        """Yield what stands behind the last newline, if anything does; it will be read again.

        Yields
        ------
        Line
            ``torn``, unless it is a whole object all the same.

        Raises
        ------
        OSError
            When the file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self._limit + 1)
            size = os.fstat(file.fileno()).st_size - self.offset
        if len(data) > self._limit:
            yield Line(self._number + 1, None, "too long", data[:_KEPT].decode(errors="replace"), size)
        elif data.strip() and not data.endswith(b"\n"):
            yield _line(self._number + 1, data)

    def goes_on(self) -> bool:
        """Tell whether what stands before :attr:`offset` is what was read, by its last bytes."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset - len(self._mark))
                return file.read(len(self._mark)) == self._mark
        except OSError:
            return False


def _line(number: int, data: bytes) -> Line:
    problem = None
    try:
        record = json.loads(data)
    except UnicodeDecodeError:
        problem = "encoding"
        try:
            record = json.loads(data.decode(errors="replace"))
        except (ValueError, RecursionError):
            return _damaged(number, data)
    except (ValueError, RecursionError):
        return _damaged(number, data)
    if not isinstance(record, dict):
        return Line(number, None, "no object", data[:_KEPT].decode(errors="replace"), len(data))
    return Line(number, record, problem, size=len(data))


def _damaged(number: int, data: bytes) -> Line:
    problem = "json" if data.endswith(b"\n") else "torn"
    return Line(number, None, problem, data[:_KEPT].decode(errors="replace"), len(data))
