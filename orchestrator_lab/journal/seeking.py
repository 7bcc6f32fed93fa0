"""A recording that is read a piece at a time, from any instant on, however long it is."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Self

from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.recording import CastEvent, Piece, piece_events, pieces_of, read_cast

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CastReader"]

logger = logging.getLogger(__name__)

#: Characters in one piece of a recording that has none of its own.
_PIECE_CHARS = 1 << 16


class CastReader:
    """A recording, open to be read in pieces.

    One of ours is read from the disk piece by piece; of it only the index is held. Any other asciicast v3 has no index,
    and is held whole.

    Parameters
    ----------
    path : pathlib.Path
        The recording; as far as it has come when this is made.

    Raises
    ------
    JournalError
        There is no such file, or it is no asciicast v3.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from orchestrator_lab.journal.recording import CastWriter
    >>> path = Path(tempfile.mkdtemp()) / "a.cast.zst"
    >>> with CastWriter(path, cols=80, rows=24) as writer:
    ...     writer.mark("here")
    >>> with CastReader(path) as reader:
    ...     reader.size, [event.data for number in range(len(reader)) for event in reader.events(number)]
    ((80, 24), ['here'])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._pieces: list[Piece] = []
        self._held: list[list[CastEvent]] = []
        self._damaged: set[int] = set()
        self._last: tuple[int, list[CastEvent]] = (-1, [])
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(f"cannot read the recording {path}: {error.strerror}", path=str(path)) from error
        try:
            self._pieces = list(pieces_of(descriptor, os.fstat(descriptor).st_size))
            if self._pieces:
                self.header = piece_events(descriptor, self._pieces[0], path)[0]
                self._descriptor, descriptor = descriptor, -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if not self._pieces:
            recording = read_cast(path)
            self.header = recording.header
            self._held = _grouped(recording.events)
        #: When each piece begins, in seconds of the recording.
        self._starts = [piece.start_ms / 1000 for piece in self._pieces] or [one[0].time_s for one in self._held]

    def __len__(self) -> int:
        return len(self._starts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows at the beginning."""
        term = self.header.get("term")
        facts: dict[str, Any] = term if isinstance(term, dict) else {}
        return _cells(facts.get("cols"), 80), _cells(facts.get("rows"), 24)

    @property
    def duration_s(self) -> float:
        """Seconds from the beginning to the last event."""
        if self._pieces:
            return self._pieces[-1].end_ms / 1000
        return self._held[-1][-1].time_s if self._held else 0.0

    def piece_at(self, time_s: float) -> int:
        """Return the last piece that holds something of before an instant, or of it; the first for any before it.

        Parameters
        ----------
        time_s : float
            Seconds of the recording.

        Returns
        -------
        int
            Its number, from 0.
        """
        return max(0, bisect_right(self._starts, time_s) - 1)

    def events(self, number: int) -> list[CastEvent]:
        """Return the events of a piece.

        Parameters
        ----------
        number : int
            From 0.

        Returns
        -------
        list of CastEvent
            In their order; those of an instant may lie in two pieces. None of a damaged piece, which is warned of once.
        """
        if self._held:
            return self._held[number]
        if number != self._last[0]:  # who plays a recording asks for parts of a piece, one after the other
            self._last = (number, self._read(number))
        return self._last[1]

    def _read(self, number: int) -> list[CastEvent]:
        try:
            return piece_events(self._descriptor, self._pieces[number], self.path)[1]
        except JournalError as error:
            if number not in self._damaged:
                self._damaged.add(number)
                logger.warning("%s", error.message)
            return []


def _grouped(events: list[CastEvent]) -> list[list[CastEvent]]:
    groups: list[list[CastEvent]] = []
    chars = 0
    for event in events:
        if not groups or chars >= _PIECE_CHARS:
            groups.append([])
            chars = 0
        groups[-1].append(event)
        chars += len(event.data)
    return groups


def _cells(value: object, usual: int) -> int:
    """Return a side of a terminal: a header is a text that anybody may write."""
    return min(value, 1000) if isinstance(value, int) and value >= 1 else usual
