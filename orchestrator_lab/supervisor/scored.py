"""The journal of a replay: its events have the numbers and the times of the recorded ones."""

from __future__ import annotations

import dataclasses
import heapq
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.writer import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.conductor import Conductor

__all__ = ["ScoredJournal"]


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
        place = conductor.score.find(event, agent, message_id, turn_id, attributes)
        if place is None or place <= self._last_place:
            at, now_s = self._between()
            return self._numbered(
                self._made(0, event, at, now_s, agent, message_id, turn_id, source, level, attributes), None
            )
        then = conductor.score.events[place]
        record = self._made(
            then.seq + self._ahead,
            event,
            then.at,
            then.monotonic_s,
            agent,
            message_id,
            turn_id,
            source,
            level,
            attributes,
        )
        heapq.heappush(self._held, (place, record))
        conductor.came(place)
        self.write_due()
        return record

    def write_due(self) -> None:
        """Write what has waited for its place, as far as all before it has happened."""
        while self._held and self._held[0][0] < self._conductor.cursor:
            place, record = self._held[0]
            if place > self._last_place:
                self._numbered(record, place)
            heapq.heappop(self._held)

    def write_all(self) -> None:
        """Write whatever has waited: nothing more is to come before it."""
        while self._held:
            place, record = heapq.heappop(self._held)
            self._numbered(record, place)

    def close(self) -> None:
        """Write the rest and close the file."""
        if self._fd >= 0:
            self.write_all()
        super().close()

    def _numbered(self, record: Event, place: int | None) -> Event:
        seq = self.seq + 1
        if place is not None:
            then = self._conductor.score.events[place].seq
            seq = max(seq, then + self._ahead)
            self._ahead = seq - then
            self._last_place = place
            self._end = time.monotonic()
        self._last_at = record.at
        return self._put(dataclasses.replace(record, seq=seq))

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
