"""What of a damaged recording can be read, and a mark in the place of what cannot.

A disk that failed, a keeper that was killed, a byte that fell over: pieces that cannot be unpacked are left out, so
that nothing leaves that nobody has looked into. The mark goes on for as long as they did.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from orchestrator_lab.journal.recording import (
    foreign_lines,
    header_of,
    iter_stretches,
    piece_content,
    piece_span,
    piece_with,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab.journal.recording import Stretch

__all__ = ["Piece", "iter_readable", "marked", "readable_lines"]

#: The size of a terminal of which nothing else is known (DEC VT100).
_SIZE = (80, 24)
_RESIZE = re.compile(rb'^\[[^"\n]*"r", ?"(\d{1,4})x(\d{1,4})"\]$', re.MULTILINE)


class Piece(NamedTuple):
    """A piece of a recording.

    Parameters
    ----------
    offset : int
        Where it stood in its file, in bytes.
    raw : bytes
        As it stands in the file; empty in a recording that is none of ours.
    content : bytes
        Its lines.
    new : bool
        Whether it stands in for pieces that are lost.
    """

    offset: int
    raw: bytes
    content: bytes
    new: bool = False

    def damaged(self, why: str) -> str:
        """Return the sentence that tells that this piece is left out."""
        start, end = piece_span(self.raw)[:2] if self.raw else (0.0, 0.0)
        return _sentence(self.offset, len(self.raw), start, end, why)


def iter_readable(path: Path, damage: list[str]) -> Iterator[Piece]:
    """Yield the pieces of one of our recordings; a mark stands in the place of those that cannot be read.

    Parameters
    ----------
    path : pathlib.Path
        A ``.cast.zst``.
    damage : list of str
        Takes a sentence for each stretch that is left out.

    Yields
    ------
    Piece
        Nothing of a file that is none of ours, or of which nothing can be read.
    """
    lost: list[tuple[Stretch, str]] = []
    end = 0.0
    last = b""
    for stretch in iter_stretches(path):
        try:
            content = piece_content(stretch.data) if stretch.data else b""
            why = "" if stretch.data else "it is no piece of a recording"
        except ValueError as error:
            content, why = b"", str(error)
        if why:
            lost.append((stretch, why))
            continue
        start, after, _ = piece_span(stretch.data)
        if lost:
            yield _stand_in(path, lost, (end, max(end, start)), stretch.data, damage)
            lost = []
        yield Piece(stretch.offset, stretch.data, content)
        end, last = after, stretch.data
    if lost and last:
        yield _stand_in(path, lost, (end, end), last, damage)


def marked(piece: Piece) -> str:
    """Return the line of a mark that goes on for as long as a piece does."""
    start, end, _ = piece_span(piece.raw) if piece.raw else (0.0, 0.0, 0.0)
    return _mark(len(piece.raw), end - start)


def readable_lines(path: Path, damage: list[str]) -> list[str]:
    """Return the lines of a recording that another program made, without those that are no events.

    Parameters
    ----------
    path : pathlib.Path
        The recording, plain or packed.
    damage : list of str
        Takes a sentence for what is left out.

    Returns
    -------
    list of str
        Header and events.

    Raises
    ------
    JournalError
        When it is no recording.
    """
    lines, torn = foreign_lines(path)
    header = header_of(lines[0] if lines else "", path)
    kept, lost = [json.dumps(header, ensure_ascii=False)], 0
    for line in lines[1:]:
        if not line or line.startswith("#"):
            continue
        try:
            interval, code, data = json.loads(line)
            kept.append(f'[{float(interval)}, "{_code(code)}", {json.dumps(str(data), ensure_ascii=False)}]')
        except (ValueError, TypeError):
            lost += 1
    if lost:
        damage.append(f"{lost} of its lines are no events: left out")
    if torn:
        damage.append("its end is torn: left out")
    return kept


def _code(code: object) -> str:
    if not isinstance(code, str) or not re.fullmatch(r"[a-zA-Z]", code):
        raise ValueError(code)
    return code


def _stand_in(
    path: Path, lost: list[tuple[Stretch, str]], span: tuple[float, float], near: bytes, damage: list[str]
) -> Piece:
    """Return a piece with a mark in the place of what is lost; ``near`` is a whole one of the same recording."""
    offset, length = lost[0][0].offset, sum(stretch.length for stretch, _ in lost)
    start, end = span
    damage.append(_sentence(offset, length, start, end, lost[0][1]))
    lines = [_mark(length, end - start)]
    if not offset:
        lines.insert(0, _header(path, near))
    raw = piece_with(lines, near, span=span)
    return Piece(offset, raw, "".join(f"{line}\n" for line in lines).encode(), new=True)


def _header(path: Path, near: bytes) -> str:
    """Return a header in place of one that is lost."""
    cols, rows = _SIZE
    for stretch in iter_stretches(path):
        try:
            found = _RESIZE.search(piece_content(stretch.data)) if stretch.data else None
        except ValueError:
            continue
        if found is not None:
            cols, rows = int(found[1]), int(found[2])
            break
    header = {"version": 3, "term": {"cols": cols, "rows": rows}, "timestamp": int(piece_span(near)[2])}
    return json.dumps(header)


def _mark(length: int, seconds: float) -> str:
    return f'[{round(max(0.0, seconds), 3)}, "m", "damaged: {length} bytes of the recording could not be read"]'


def _sentence(offset: int, length: int, start: float, end: float, why: str) -> str:
    return (
        f"{length} bytes from byte {offset} on, seconds {start:.3f} to {end:.3f}, could not be read ({why}): left out"
    )
