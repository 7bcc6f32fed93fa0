"""Where the journal tells of messages that are over.

A run may have any number of messages. One that is over is kept as three byte offsets, and read from the journal in the
rare case that somebody asks for it: who repeats a request, answers an old message, or reads the history.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.journal.writer import JournalWriter

__all__ = ["NOWHERE", "Archive", "Places"]

#: No event tells of it.
NOWHERE = -1


class Places(NamedTuple):
    """Byte offsets of the events that tell of one message.

    Parameters
    ----------
    queued, ended, reply : int
        ``message.queued``, its last rung, and the ``turn.ended`` that holds its answer.
    """

    queued: int
    ended: int = NOWHERE
    reply: int = NOWHERE


class Archive:
    """Finds messages that are over in the journal.

    Parameters
    ----------
    journal : JournalWriter
        What it reads.
    """

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal
        self._rows: dict[str, int] = {}
        # Columns instead of an object each: a message that is over takes a quarter of a kilobyte, its id included.
        self._queued, self._ended, self._reply = array("q"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._rows)

    def file(self, message_id: str, places: Places) -> None:
        """Keep where the journal tells of a message."""
        self._rows[message_id] = len(self._rows)
        self._queued.append(places.queued)
        self._ended.append(places.ended)
        self._reply.append(places.reply)

    def places(self, message_id: str) -> Places | None:
        """Return where the journal tells of a message, None when it is not filed here."""
        row = self._rows.get(message_id)
        return None if row is None else Places(self._queued[row], self._ended[row], self._reply[row])

    def read(self, places: Places) -> tuple[Event, Event, Event | None]:
        """Return the events that tell of a message: queued, its last rung, the end of its turn."""
        read = self._journal.event_at
        return read(places.queued), read(places.ended), None if places.reply == NOWHERE else read(places.reply)
