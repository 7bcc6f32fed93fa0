"""The tables of what agents do in a turn: turns, tool calls, dialogs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from orchestrator_lab.folds.base import Fold, as_amount, as_count, as_json
from orchestrator_lab.journal.origins import Recordings

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event

__all__ = ["TOKENS", "DialogFold", "ToolCallFold", "TurnFold"]

TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


class TurnFold(Fold):
    """The turns table; usage that arrives after a turn's end amends its row."""

    table = "turns"
    key = "turn_id"
    durations: ClassVar = {
        "time_to_first_output_s": ("_started_s", "_first_s"),
        "duration_s": ("_started_s", "_ended_s"),
    }
    hidden = ("_started_s", "_first_s", "_ended_s", "_final")

    def __init__(self) -> None:
        super().__init__()
        self._recordings = Recordings()
        self.handlers = {
            "turn.started": self._started,
            "turn.first_output": self._first_output,
            "turn.ended": self._ended,
            "turn.usage": self._usage,
            "tool.started": self._tool,
            "turn.changes": self._changes,
            "message.accepted": self._joined,
            "recording.started": self._recordings.started,
        }

    def key_of(self, event: Event) -> str | None:
        """Return the turn that an event is about."""
        return event.turn_id

    def _settled(self, row: int) -> bool:
        return self._cells["ended_at"][row] is not None and self._cells["tokens_source"][row] is not None

    def _row_of(self, event: Event) -> int | None:
        if event.turn_id is None:
            return None
        row = self._rows.get(event.turn_id)
        if row is None:
            row = self._add(
                event.turn_id,
                {
                    "seq": event.seq,
                    "turn_id": event.turn_id,
                    "agent": event.agent,
                    "tool_call_count": 0,
                },
            )
        return row

    def _started(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None:
            return
        cells = self._cells
        if cells["started_at"][row] is None:
            cells["started_at"][row] = event.at
            cells["_started_s"][row] = event.monotonic_s
            cells["cast_offset_s"][row] = self._recordings.offset(event)
        message_ids = event.attributes.get("message_ids")
        if message_ids is not None:
            cells["message_ids"][row] = as_json(message_ids)

    def _joined(self, event: Event) -> None:
        """Add a text that was typed while the turn ran to the messages that it answers."""
        row = None if event.turn_id is None else self._rows.get(event.turn_id)
        if row is None or event.message_id is None:
            return
        known = self._cells["message_ids"][row]
        if known is not None and f'"{event.message_id}"' not in known:
            self._cells["message_ids"][row] = as_json([*json.loads(known), event.message_id])

    def _first_output(self, event: Event) -> None:
        row = self._row_of(event)
        if row is not None and self._cells["first_output_at"][row] is None:
            self._cells["first_output_at"][row] = event.at
            self._cells["_first_s"][row] = event.monotonic_s

    def _ended(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None:
            return
        cells, facts = self._cells, event.attributes
        if cells["ended_at"][row] is None:
            cells["ended_at"][row] = event.at
            cells["_ended_s"][row] = event.monotonic_s
        # A later account of the same end (the transcript after the hook) amends the text.
        for name in ("reply", "end_reason"):
            if facts.get(name) is not None:
                cells[name][row] = facts[name]

    def _usage(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None or (self._cells["_final"][row] and not event.attributes.get("final")):
            return
        cells, facts = self._cells, event.attributes
        for name in TOKENS:
            cells[name][row] = as_count(facts.get(name))
        cells["cost_usd"][row] = as_amount(facts.get("cost_usd"))
        if facts.get("model") is not None:
            cells["model"][row] = facts["model"]
        cells["tokens_source"][row] = "reported"
        cells["_final"][row] = facts.get("final")

    def _changes(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None or event.attributes.get("error") is not None:
            return
        cells, facts = self._cells, event.attributes
        for name in ("files_changed", "lines_added", "lines_removed"):
            cells[name][row] = as_count(facts.get(name))
        cells["patch"][row] = facts.get("patch")
        cells["changes_shared"][row] = bool(facts.get("shared_with"))

    def _tool(self, event: Event) -> None:
        row = self._row_of(event)
        if row is not None:
            self._cells["tool_call_count"][row] += 1


class ToolCallFold(Fold):
    """The tool_calls table."""

    table = "tool_calls"
    key = "tool_call_id"
    durations: ClassVar = {"duration_s": ("_started_s", "_ended_s")}
    hidden = ("_started_s", "_ended_s")

    def __init__(self) -> None:
        super().__init__()
        self.handlers = {"tool.started": self._started, "tool.ended": self._ended}

    def key_of(self, event: Event) -> str | None:
        """Return the tool call that an event is about."""
        return event.attributes.get("tool_call_id")

    def _settled(self, row: int) -> bool:
        return self._cells["_ended_s"][row] is not None

    def _row_of(self, event: Event) -> int:
        call = event.attributes.get("tool_call_id")
        row = self._rows.get(call) if call is not None else None
        if row is None:
            row = self._add(
                call,
                {
                    "seq": event.seq,
                    "tool_call_id": call,
                    "turn_id": event.turn_id,
                    "agent": event.agent,
                },
            )
        return row

    def _started(self, event: Event) -> None:
        row, facts = self._row_of(event), event.attributes
        self._cells["name"][row] = facts.get("name")
        self._cells["input"][row] = as_json(facts.get("input"))
        self._cells["started_at"][row] = event.at
        self._cells["_started_s"][row] = event.monotonic_s

    def _ended(self, event: Event) -> None:
        row, facts = self._row_of(event), event.attributes
        self._cells["output"][row] = as_json(facts.get("output"))
        self._cells["status"][row] = facts.get("status")
        self._cells["error_message"][row] = facts.get("error_message")
        self._cells["_ended_s"][row] = event.monotonic_s
        if self._cells["name"][row] is None:
            self._cells["name"][row] = facts.get("name")


class DialogFold(Fold):
    """The dialogs table."""

    table = "dialogs"
    key = "dialog_id"
    durations: ClassVar = {"wait_s": ("_opened_s", "_answered_s")}
    hidden = ("_opened_s", "_answered_s")

    def __init__(self) -> None:
        super().__init__()
        self.handlers = {"dialog.opened": self._opened, "dialog.answered": self._answered}

    def key_of(self, event: Event) -> str | None:
        """Return the dialog that an event is about."""
        return event.attributes.get("dialog_id")

    def _settled(self, row: int) -> bool:
        return self._cells["decision"][row] is not None

    def _opened(self, event: Event) -> None:
        facts = event.attributes
        known = self._rows.get(facts.get("dialog_id") or "")
        if known is not None:  # told again, with what its screen shows
            self._cells["options"][known] = as_json(facts.get("options"))
            return
        self._add(
            facts.get("dialog_id"),
            {
                "seq": event.seq,
                "dialog_id": facts.get("dialog_id"),
                "agent": event.agent,
                "turn_id": event.turn_id,
                "kind": facts.get("kind"),
                "subject": facts.get("subject"),
                "options": as_json(facts.get("options")),
                "opened_at": event.at,
                "_opened_s": event.monotonic_s,
            },
        )

    def _answered(self, event: Event) -> None:
        row = self._rows.get(event.attributes.get("dialog_id") or "")
        if row is None:
            return
        if self._cells["answered_at"][row] is not None:  # how it was answered may be known later than that it was
            if self._cells["decision"][row] is None:
                self._cells["decision"][row] = event.attributes.get("decision")
            return
        self._cells["answered_at"][row] = event.at
        self._cells["_answered_s"][row] = event.monotonic_s
        self._cells["answered_by"][row] = event.attributes.get("answered_by")
        self._cells["decision"][row] = event.attributes.get("decision")
