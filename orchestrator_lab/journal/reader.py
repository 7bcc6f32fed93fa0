"""Read a journal, whole or only what is new.

Parsing (bytes to events) is apart from folding (events to tables), so that either can be made
faster alone.
"""

from __future__ import annotations

import gc
import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.event import Event
from orchestrator_lab.mirrors import present

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["JournalReader", "parse_lines", "read_events", "without_gc"]

logger = logging.getLogger(__name__)

#: Bytes read at a time: a long journal is folded piece by piece, never held whole.
_PIECE = 8 << 20


def read_events(path: str | os.PathLike[str], *, offset: int = 0) -> tuple[list[Event], int]:
    """Read the complete lines of a journal from an offset on.

    A last line without its newline is not read: it is either being written or torn by a crash. A
    damaged line in the middle is skipped with a warning that names it; whatever can be read is
    read.

    Parameters
    ----------
    path : path-like
        The ``journal.jsonl`` of a run.
    offset : int
        Byte offset of a line's start, as an earlier call returned it.

    Returns
    -------
    events : list of Event
        In the order of the journal.
    offset : int
        Where the next call goes on.

    Raises
    ------
    JournalError
        When the file cannot be read, or is shorter than ``offset``.

    Examples
    --------
    >>> events, offset = read_events("runs/run_x/journal.jsonl")  # doctest: +SKIP
    >>> new, offset = read_events("runs/run_x/journal.jsonl", offset=offset)  # doctest: +SKIP
    """
    reader = JournalReader(path, offset=offset)
    if not present(reader.path).exists():
        raise JournalError(f"{path}: there is no journal; give the journal.jsonl of a run folder", path=str(path))
    return reader.read(), reader.offset


def parse_lines(data: bytes, *, place: str = "journal") -> list[Event]:
    """Return the events of complete lines, skipping damaged ones with a warning.

    Parameters
    ----------
    data : bytes
        Lines that end with a newline.
    place : str
        Where they come from, for the warning.

    Returns
    -------
    list of Event
        In the order of the lines.
    """
    try:
        # One call for all lines is twice as fast as one a line.
        joined = data.decode().rstrip("\n").replace("\n", ",")
        envelopes = json.loads(f"[{joined}]")
        if len(envelopes) == data.count(b"\n"):
            return list(map(Event.from_dict, envelopes))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # line by line then, to find the damage
    events: list[Event] = []
    # Not splitlines(): U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line:
            try:
                events.append(Event.from_json(line))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                logger.warning("%s: line %d from there is damaged and was skipped (%s)", place, number, error)
    return events


class JournalReader:
    """Read a growing journal, each time only its new bytes.

    Parameters
    ----------
    path : path-like
        The ``journal.jsonl``; it need not exist yet.
    offset : int
        Byte offset of a line's start, to go on from there.

    Examples
    --------
    >>> JournalReader("/nonexistent/journal.jsonl").read()
    []
    """

    def __init__(self, path: str | os.PathLike[str], *, offset: int = 0) -> None:
        self.path = Path(path)
        #: Byte offset of the next line to read.
        self.offset = offset

    def read(self) -> list[Event]:
        """Return the events appended since the last call.

        Returns
        -------
        list of Event
            Empty when there are none, or no journal yet.

        Raises
        ------
        JournalError
            When the journal cannot be read or was replaced by a shorter one.
        """
        events: list[Event] = []
        for batch in self.batches():
            events += batch
        return events

    def batches(self) -> Iterator[list[Event]]:
        """Yield the events appended since the last call, some megabytes of journal at a time.

        Yields
        ------
        list of Event
            Those of one piece; :attr:`offset` is behind it then.

        Raises
        ------
        JournalError
            When the journal cannot be read or was replaced by a shorter one.
        """
        for place, data in self._pieces():
            with without_gc():
                events = parse_lines(data, place=f"{self.path}, byte {place}")
            yield events

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines appended since the last call, each with the byte offset at which it begins.

        Yields
        ------
        tuple of (int, bytes)
            Offset, and the line without its newline; whoever reads it decides what is worth decoding.

        Raises
        ------
        JournalError
            When the journal cannot be read or was replaced by a shorter one.
        """
        for begin, data in self._pieces():
            place = begin
            for line in data.split(b"\n")[:-1]:
                yield place, line
                place += len(line) + 1

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield the complete lines that are new, some megabytes at a time, with their place."""
        try:
            # A run that nobody writes to costs one stat a look, not an open and a read.
            size = present(self.path).stat().st_size
            if size == self.offset:
                return
            if size < self.offset:
                raise JournalError(
                    f"{self.path}: the journal is {size} bytes long, shorter than the "
                    f"{self.offset} bytes read before; it was replaced, so open the run again",
                    path=str(self.path),
                )
            with self.path.open("rb") as file:
                file.seek(self.offset)
                rest = b""
                while piece := file.read(_PIECE):
                    rest += piece
                    end = rest.rfind(b"\n") + 1
                    if end:
                        lines, rest = rest[:end], rest[end:]
                        begin, self.offset = self.offset, self.offset + end
                        yield begin, lines
        except FileNotFoundError:
            if self.offset == 0:
                return
            raise JournalError(
                f"{self.path}: the journal is gone; its run folder was moved or deleted",
                path=str(self.path),
            ) from None
        except OSError as error:
            raise JournalError(
                f"{self.path}: the journal cannot be read ({error.strerror}); give the journal.jsonl of a run folder",
                path=str(self.path),
            ) from error


@contextmanager
def without_gc() -> Iterator[None]:
    """Work without the garbage collector, which finds nothing in fresh data but takes its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
