"""The run as a whole: its events, and what they say about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from orchestrator_lab.folds.base import Fold, as_json
from orchestrator_lab.journal.origins import Recordings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator_lab.folds.base import Handler
    from orchestrator_lab.journal.event import Event

__all__ = ["EventFold", "RunFold"]


class EventFold(Fold):
    """The events table: every event, known to this version or not."""

    table = "events"

    def __init__(self) -> None:
        super().__init__()
        self._recordings = Recordings()

    def note(self, event: Event) -> None:
        """Take the start of a recording whose row is kept elsewhere."""
        self._recordings.started(event)

    def update(self, events: Iterable[Event]) -> Self:
        """Take more events, in the order of the journal."""
        batch = list(events)
        cells = self._cells
        for name in (
            "seq",
            "event",
            "at",
            "monotonic_s",
            "agent",
            "message_id",
            "turn_id",
            "source",
            "level",
        ):
            cells[name] += [getattr(event, name) for event in batch]
        cells["attributes"] += [as_json(event.attributes) if event.attributes else "{}" for event in batch]
        offsets = cells["cast_offset_s"]
        for event in batch:
            if event.event == "recording.started":
                self._recordings.started(event)
            offsets.append(self._recordings.offset(event))
        self._length += len(batch)
        return self


class RunFold:
    """What a run's own events say about it: start, end, outcome, number of events.

    Attributes
    ----------
    facts : dict
        Values of the ``runs`` table; absent where the journal says nothing.
    event_count : int
        Events taken so far.
    """

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.event_count = 0
        self._started_s: float | None = None
        self.handlers: dict[str, Handler] = {
            "run.started": self._started,
            "run.ended": self._ended,
            "cluster.restarted": self._resumed,
            "run.resumed": self._resumed,
        }

    def _started(self, event: Event) -> None:
        for name in ("experiment", "mode", "parent_run_id", "seed"):
            if event.attributes.get(name) is not None:
                self.facts[name] = event.attributes[name]
        for name in ("params", "tags"):
            if event.attributes.get(name) is not None:
                self.facts[name] = as_json(event.attributes[name])
        self.facts.setdefault("started_at", event.at)
        if self._started_s is None:
            self._started_s = event.monotonic_s
        self._resumed(event)

    def _ended(self, event: Event) -> None:
        self.facts["ended_at"] = event.at
        for name in ("status", "error_type", "error_message"):
            self.facts[name] = event.attributes.get(name)
        # The journal's clock starts with the run, also when its first event was lost.
        self.facts["duration_s"] = round(event.monotonic_s - (self._started_s or 0.0), 6)

    def _resumed(self, _: Event) -> None:
        for name in ("ended_at", "status", "error_type", "error_message", "duration_s"):
            self.facts.pop(name, None)
