"""The journal of a replay: its events have the numbers and the times of the recorded ones."""

from __future__ import annotations

import dataclasses
import heapq
import logging
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.writer import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.conductor import Conductor

__all__ = ["ScoredJournal"]

logger = logging.getLogger(__name__)


class ScoredJournal(JournalWriter):
    """A journal that is written in the order of another one.

    What happens earlier than it did then waits for its place; so the file of a replay that is killed ends a little
    sooner than what was done. What did not happen then is written where it comes.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``.
    run_id : str
        The run that replays.
    conductor : Conductor
        Knows the recorded events, and how far the replay has come.
    mask : callable, optional
        Applied to every string before it is written.
    """

    def __init__(
        self, path: Path, *, run_id: str, conductor: Conductor, mask: Callable[[str], str] | None = None
    ) -> None:
        super().__init__(path, run_id=run_id, mask=mask)
        self._conductor = conductor
        self._held: list[tuple[int, Event]] = []
        #: What did not happen then, and whether the replay is another one by now: its numbers need not be the same.
        self._beside: list[Event] = []
        self._diverged = False
        #: Place of the last recorded event that was written, and how many numbers the file is ahead of the recording.
        self._last_place = -1
        self._ahead = 0
        self._last_at = ""
        #: When the last event of the recording was played.
        self._end: float | None = None
        conductor.moved = self.write_due

    def append(  # the base's signature
        self,
        event: str,
        /,
        *,
        agent: str | None = None,
        message_id: str | None = None,
        turn_id: str | None = None,
        source: str | None = None,
        level: str = "info",
        **attributes: Any,  # noqa: ANN401 - any JSON value
    ) -> Event:
        """Write an event at the time at which it was recorded, once all before it is written.

        Returns
        -------
        Event
            As it will be written.
        """
        conductor = self._conductor
        facts = (agent, message_id, turn_id, source, level, attributes)
        place = conductor.score.find(event, agent, message_id, turn_id, attributes)
        if place is None or place <= self._last_place:
            at, now_s = self._between()
            record = self._made(0, event, at, now_s, *facts)
            self._beside.append(record)
            self._diverged = self._diverged or event == "replay.divergence"
            if self._diverged or conductor.over:
                self._write_beside()
            return record
        then = conductor.score.events[place]
        record = self._made(then.seq + self._ahead, event, then.at, then.monotonic_s, *facts)
        heapq.heappush(self._held, (place, record))
        try:
            conductor.came(place)
            self.write_due()
        except JournalError:
            # It stays held, in its place: whoever writes next writes it as well.
            logger.exception("%s: event %d waits for room", self.path, record.seq)
        return record

    def write_due(self) -> None:
        """Write what has waited for its place, as far as all before it has happened."""
        while self._held and self._held[0][0] < self._conductor.cursor:
            self._write_next()

    def write_all(self) -> None:
        """Write whatever has waited: nothing more is to come before it."""
        while self._held:
            self._write_next()
        self._write_beside()

    def close(self) -> None:
        """Write the rest and close the file."""
        try:
            if self._fd >= 0:
                self.write_all()
        finally:
            super().close()

    def _write_next(self) -> None:
        """Write the first event that waits, with its recorded number where that is free; before it what fits there."""
        place, record = self._held[0]
        if place > self._last_place:
            then = self._conductor.score.events[place].seq
            self._write_beside(room=then + self._ahead - self.seq - 1)
            seq = max(self.seq + 1, then + self._ahead)
            self._put(dataclasses.replace(record, seq=seq))
            self._ahead, self._last_place = seq - then, place
            self._last_at, self._end = record.at, time.monotonic()
        heapq.heappop(self._held)

    def _write_beside(self, room: int | None = None) -> None:
        """Write what did not happen in the recording: as much as there is room for between two recorded numbers."""
        while self._beside and (room is None or room > 0):
            self._put(dataclasses.replace(self._beside[0], seq=self.seq + 1))
            del self._beside[0]
            room = None if room is None else room - 1

    def _between(self) -> tuple[str, float]:
        """Return the time of what did not happen in the recording: that of the event before it.

        After the recording's end time passes as it does.
        """
        if not self._last_at:
            first = self._conductor.score.events[0]
            return first.at, first.monotonic_s
        if not self._conductor.over or self._end is None:
            return self._last_at, self._last_s
        now = time.monotonic()
        passed, self._end = now - self._end, now
        at = datetime.fromisoformat(self._last_at) + timedelta(seconds=passed)
        return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z", round(self._last_s + passed, 6)

    @property
    def now_s(self) -> float:
        """The present instant on the run's clock: that of the last event."""
        return self._last_s
