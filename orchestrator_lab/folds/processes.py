"""The table of what agents' processes cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator_lab.folds.base import Fold, as_count

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event

__all__ = ["ProcessFold"]


class ProcessFold(Fold):
    """The processes table: one row a sample."""

    table = "processes"

    def __init__(self) -> None:
        super().__init__()
        self.handlers = {"process.sample": self._sample}

    def _sample(self, event: Event) -> None:
        facts = event.attributes
        self._add(
            None,
            {
                "agent": event.agent,
                "at": event.at,
                "cpu_percent": facts.get("cpu_percent"),
                "rss_bytes": as_count(facts.get("rss_bytes")),
                "children": as_count(facts.get("children")),
            },
        )
