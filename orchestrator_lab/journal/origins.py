"""Where each agent's recording begins on the run's clock."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event

__all__ = ["Recordings"]


class Recordings:
    """Where the recording of each agent begins on the run's clock."""

    def __init__(self) -> None:
        self._origins: dict[tuple[str | None, str], float] = {}
        self._current: dict[str, float] = {}

    def started(self, event: Event) -> None:
        """Take a ``recording.started``."""
        facts = event.attributes
        origin = event.monotonic_s
        try:
            begun = datetime.fromisoformat(facts["started_at"])
            # `at` and `monotonic_s` of one event are one instant on two clocks.
            origin -= (datetime.fromisoformat(event.at) - begun).total_seconds()
        except (KeyError, TypeError, ValueError):
            pass  # then the event itself is the best account of the start
        # A file that is continued after a gap keeps its own time from its first start.
        key = (event.agent, str(facts.get("path")))
        if event.agent is not None:
            self._current[event.agent] = self._origins.setdefault(key, origin)

    def origin(self, agent: str | None) -> float | None:
        """Return where an agent's recording begins on the run's clock, in seconds; None before it has one."""
        return self._current.get(agent or "")

    def offset(self, event: Event) -> float | None:
        """Return where an event is in its agent's recording, in seconds; None outside of it."""
        origin = self.origin(event.agent)
        if origin is None or event.monotonic_s < origin:
            return None
        return round(event.monotonic_s - origin, 6)
