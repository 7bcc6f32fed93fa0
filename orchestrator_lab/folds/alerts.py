"""The table of alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator_lab.folds.base import Fold

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event

__all__ = ["AlertFold"]


class AlertFold(Fold):
    """The alerts table: each alert once, with the gravest level and the newest sentence that it had."""

    table = "alerts"
    grows = False

    def __init__(self) -> None:
        super().__init__()
        self.handlers = {
            "alert.opened": self._opened,
            "alert.escalated": self._escalated,
            "alert.acknowledged": self._acknowledged,
            "alert.resolved": self._resolved,
        }

    def _opened(self, event: Event) -> None:
        facts = event.attributes
        self._add(
            facts["alert_id"],
            {
                "alert_id": facts["alert_id"],
                "level": event.level,
                "agent": event.agent,
                "rule": facts.get("rule"),
                "message": facts.get("message"),
                "opened_at": event.at,
            },
        )

    def _escalated(self, event: Event) -> None:
        row = self._rows.get(event.attributes["alert_id"])
        if row is None:
            return
        cells = self._cells
        if cells["level"][row] != event.level:
            # What was seen was a lesser one.
            cells["acknowledged_at"][row] = None
        cells["level"][row] = event.level
        cells["message"][row] = event.attributes.get("message")

    def _acknowledged(self, event: Event) -> None:
        row = self._rows.get(event.attributes["alert_id"])
        if row is not None:
            self._cells["acknowledged_at"][row] = event.at

    def _resolved(self, event: Event) -> None:
        row = self._rows.get(event.attributes["alert_id"])
        if row is not None:
            self._cells["resolved_at"][row] = event.at
