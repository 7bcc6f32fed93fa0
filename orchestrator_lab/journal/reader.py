"""Read a journal, whole or only what is new.

Parsing (bytes to events) is apart from folding (events to tables), so that either can be made
faster alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.event import Event

if TYPE_CHECKING:
    import os

__all__ = ["JournalReader", "parse_lines", "read_events"]

logger = logging.getLogger(__name__)


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
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < offset:
                raise JournalError(
                    f"{path}: the journal is {size} bytes long, shorter than the {offset} bytes "
                    "read before; it was replaced, so open the run again",
                    path=str(path),
                )
            file.seek(offset)
            data = file.read()
    except OSError as error:
        raise JournalError(
            f"{path}: the journal cannot be read ({error.strerror}); give the journal.jsonl of a "
            "run folder",
            path=str(path),
        ) from error
    end = data.rfind(b"\n") + 1
    return parse_lines(data[:end], place=f"{path}, byte {offset}"), offset + end


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
    events: list[Event] = []
    from_json = Event.from_json
    # Not splitlines(): U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line:
            try:
                events.append(from_json(line))
            except (ValueError, KeyError, TypeError) as error:
                logger.warning(
                    "%s: line %d from there is damaged and was skipped (%s)", place, number, error
                )
    return events


class JournalReader:
    """Read a growing journal, each time only its new bytes.

    Parameters
    ----------
    path : path-like
        The ``journal.jsonl``; it need not exist yet.

    Examples
    --------
    >>> JournalReader("/nonexistent/journal.jsonl").read()
    []
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        #: Byte offset of the next line to read.
        self.offset = 0

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
        try:
            # A run that nobody writes to costs one stat a look, not an open and a read.
            if self.path.stat().st_size == self.offset:
                return []
        except FileNotFoundError:
            if self.offset == 0:
                return []
        events, self.offset = read_events(self.path, offset=self.offset)
        return events
