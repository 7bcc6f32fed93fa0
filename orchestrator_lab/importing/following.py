"""Follows the files of a conversation: what they tell for good, and how it would end if nothing more came."""

from __future__ import annotations

import copy
import heapq
from typing import TYPE_CHECKING, Any

from orchestrator_lab.importing.lines import LineReader
from orchestrator_lab.importing.telling import Teller
from orchestrator_lab.records import epoch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab.importing.claude import ClaudeImporter
    from orchestrator_lab.importing.codex import CodexImporter
    from orchestrator_lab.importing.conversation import Conversation
    from orchestrator_lab.importing.lines import Line
    from orchestrator_lab.journal.event import Event

__all__ = ["Following", "subagent"]

#: What an importer raises on a record whose parts are not of the types that they should be.
MALFORMED = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
#: How a conversation stands, by the end of its last turn.
_STATUS = {"completed": "completed", "interrupted": "cancelled", "error": "failed", "limit": "failed"}

_Record = tuple[float, int, "Line"]


class Following:
    """A conversation as far as its files have come.

    Parameters
    ----------
    conversation : Conversation
        It.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._about = {key: conversation.imported[key] for key in ("path", "program", "importer", "importer_version")}
        self._begun_s = conversation.first_at_s
        self._tell = Teller(conversation.run_id, conversation.first_at_s)
        self._importer = conversation.importer(self._tell)
        self._files = [LineReader(path) for path in conversation.files]
        self._subagents = [
            subagent(path) if number or conversation.side else None for number, path in enumerate(conversation.files)
        ]
        #: Instant of the newest record of each file.
        self._last_s = [0.0] * len(self._files)
        #: The latest place in the order of all records so far.
        self._newest = (-1.0, -1)
        self._count = 0
        self._tell.event("run.started", self._begun_s)
        self._tell.event("import.started", self._begun_s, **self._about)
        self._events: list[Event] = self._tell.take()
        self._ending: tuple[list[Event], dict[str, Any]] | None = None
        #: Whether the importer itself has run ahead of the record.
        self._spent = False

    def advance(self) -> bool:
        """Take the whole lines that are new.

        Returns
        -------
        bool
            False when this must be made anew: a file was changed before its end, or new records belong before
            others that were taken.

        Raises
        ------
        OSError
            When a file cannot be read.
        """
        if self._spent or not all(file.goes_on() for file in self._files):
            return False
        self._ending = None
        new = heapq.merge(*map(self._stamped, range(len(self._files))), key=lambda one: one[:2])
        first = self._count == 0
        for at, order, line in new:
            if not first and len(self._files) > 1 and (at, order) <= self._newest:
                return False
            self._take(self._importer, self._tell, line, self._subagents[order])
            self._count += 1
            if len(self._files) > 1:
                self._newest = max(self._newest, (at, order))
        self._events += self._tell.take()
        return True

    def events(self) -> list[Event]:
        """Return the events of all lines that were taken."""
        return list(self._events)

    def ending(self) -> tuple[list[Event], dict[str, Any]]:
        """Return the events at the end of what there is now, and figures of how it was read.

        Returns
        -------
        events : list of Event
            Of last lines without a newline, of what is over by them, and of the end itself.
        figures : dict
            ``program_version``, ``records``, ``unknown``, ``copied``.

        Raises
        ------
        OSError
            When a file cannot be read.
        """
        if self._ending is not None:
            return self._ending
        importer = self._ahead()
        tell = importer.teller
        count = self._count
        for order, file in enumerate(self._files):
            for line in file.rest():
                self._take(importer, tell, line, self._subagents[order])
                count += 1
        importer.finish()
        at = tell.now_s or self._begun_s
        status = _STATUS.get(importer.outcome or "")
        if status is not None:
            tell.event("run.ended", at, status=status)
        figures: dict[str, Any] = {
            "program_version": importer.program_version,
            "records": count,
            "unknown": sum(tell.unknown.values()),
            "copied": tell.copied,
        }
        tell.event(
            "import.ended",
            at,
            **figures,
            unknown_kinds=dict(tell.unknown) or None,
            passed_over=dict(tell.passed) or None,
        )
        self._ending = tell.take(), figures
        return self._ending

    def _ahead(self) -> ClaudeImporter | CodexImporter:
        """Return a copy of the importer that may run ahead of the record."""
        try:
            return copy.deepcopy(self._importer, {id(one): one for one in self._importer.shared})
        except RecursionError:  # a record is nested too deep to be copied
            self._spent = True
            return self._importer

    @staticmethod
    def _take(importer: ClaudeImporter | CodexImporter, tell: Teller, line: Line, whose: str | None) -> None:
        try:
            importer.take(line, whose)
        except MALFORMED:
            tell.stranger(line, "malformed", line.record)

    def _stamped(self, order: int) -> Iterator[_Record]:
        for line in self._files[order].whole():
            if line.record is not None:
                self._last_s[order] = epoch(line.record.get("timestamp")) or self._last_s[order]
            yield self._last_s[order], order, line


def subagent(path: Path) -> str:
    """Return the id of the subagent whose file it is.

    Parameters
    ----------
    path : Path
        Such as ``agent-abc.jsonl``.
    """
    return path.stem.removeprefix("agent-")
