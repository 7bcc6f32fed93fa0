"""Records of a JSON lines file, one after the other, whatever the file went through."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MAX_LINE", "Line", "read_lines"]

#: Longest line that is decoded, in bytes; one that is longer is passed over, piece by piece.
MAX_LINE = 64 << 20
#: Bytes of a damaged line that are kept.
_KEPT = 2000


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
    with path.open("rb") as file:
        number = 0
        while data := file.readline(limit + 1):
            number += 1
            if len(data) > limit and not data.endswith(b"\n"):
                size, start = len(data), data[:_KEPT]
                while (more := file.readline(1 << 20)) and not more.endswith(b"\n"):
                    size += len(more)
                yield Line(number, None, "too long", start.decode(errors="replace"), size + len(more))
                continue
            if data.strip():
                yield _line(number, data)


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
