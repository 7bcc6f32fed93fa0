"""The messages table: each message with its ladder of delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orchestrator_lab.folds.base import Fold

if TYPE_CHECKING:
    from orchestrator_lab.folds.base import Handler
    from orchestrator_lab.journal.event import Event

__all__ = ["RUNGS", "MessageFold"]

#: Ladder of delivery, lowest rung first; accepted and above prove that the recipient has it.
RUNGS = ("queued", "claimed", "written", "accepted", "started", "answered")
_RANK = {rung: rank for rank, rung in enumerate(RUNGS)}
_ACCEPTED = _RANK["accepted"]
#: Outcomes after which nothing was written, so no evidence can speak against them.
_FINAL = ("refused", "expired")


class MessageFold(Fold):
    """The messages table: each message with its ladder of delivery.

    Examples
    --------
    >>> from orchestrator_lab.journal import Event
    >>> fold = MessageFold()
    >>> at = "2026-11-23T06:00:00.000000Z"
    >>> _ = fold.update([Event(1, "message.queued", at, 0.0, "boss", "msg_1")])
    >>> _ = fold.update([Event(2, "message.claimed", at, 0.5, "boss", "msg_1")])
    >>> fold.rows()[0]["status"], fold.rows()[0]["queue_s"]
    ('claimed', 0.5)
    """

    table = "messages"
    key = "message_id"
    durations: ClassVar = {
        "queue_s": ("_queued_s", "_claimed_s"),
        "delivery_s": ("_claimed_s", "_accepted_s"),
        "response_s": ("_accepted_s", "_answered_s"),
    }
    hidden = ("_queued_s", "_claimed_s", "_accepted_s", "_answered_s", "_rank")

    def __init__(self) -> None:
        super().__init__()
        self.handlers = {"message.queued": self._queued}
        for rung in RUNGS[1:]:
            self.handlers[f"message.{rung}"] = self._rung(rung)
        for outcome in (*_FINAL, "failed", "uncertain"):
            self.handlers[f"message.{outcome}"] = self._outcome(outcome)

    def key_of(self, event: Event) -> str | None:
        """Return the message that an event is about."""
        return event.message_id

    def _settled(self, row: int) -> bool:
        return self._cells["status"][row] in {"answered", "failed", *_FINAL}

    def _queued(self, event: Event) -> None:
        facts = event.attributes
        values = {
            "seq": event.seq,
            "message_id": event.message_id,
            "conversation_id": facts.get("conversation_id"),
            "in_reply_to": facts.get("in_reply_to"),
            "hop": facts.get("hop"),
            "sender": facts.get("sender"),
            "recipient": facts.get("recipient") or event.agent,
            "kind": facts.get("kind"),
            "source": event.source or facts.get("source"),
            "content": facts.get("content"),
            "content_sha256": facts.get("content_sha256"),
            "queued_at": event.at,
            "_queued_s": event.monotonic_s,
        }
        row = self._rows.get(event.message_id or "")
        if row is None:
            self._add(event.message_id, {**values, "status": "queued", "_rank": 0})
            return
        # Its story began before it was queued (two journals merged by hand): add what is missing.
        for name, value in values.items():
            if self._cells[name][row] is None:
                self._cells[name][row] = value

    def _row_of(self, event: Event) -> int:
        row = self._rows.get(event.message_id or "")
        if row is None:
            values = {
                "seq": event.seq,
                "message_id": event.message_id,
                "recipient": event.agent,
                "_rank": -1,
            }
            row = self._add(event.message_id, values)
        return row

    def _rung(self, rung: str) -> Handler:
        rank = _RANK[rung]
        cells = self._cells
        instants, status, ranks = cells[f"{rung}_at"], cells["status"], cells["_rank"]
        clock = cells.get(f"_{rung}_s")
        turns, sources = cells["turn_id"], cells["acceptance_source"]
        errors = cells["error_type"], cells["error_message"]

        def handle(event: Event) -> None:
            row = self._row_of(event)
            # A claim or a write may be repeated until the message is accepted; the one that led
            # there counts. Proofs may come twice (hook, then transcript); the first counts.
            if instants[row] is None or (rank < _ACCEPTED and ranks[row] < _ACCEPTED):
                instants[row] = event.at
                if clock is not None:
                    clock[row] = event.monotonic_s
                if rung == "accepted":
                    sources[row] = event.source
            if event.turn_id is not None:
                turns[row] = event.turn_id
            if rank <= ranks[row] and status[row] in _RANK:
                return
            ranks[row] = max(rank, ranks[row])
            if status[row] is None or status[row] in _RANK:
                status[row] = RUNGS[ranks[row]]
            elif rank >= _ACCEPTED and status[row] not in _FINAL:
                # Late evidence settles what was uncertain, or was taken for failed.
                status[row] = RUNGS[ranks[row]]
                for cell in errors:
                    cell[row] = None

        return handle

    def _outcome(self, outcome: str) -> Handler:
        status, ranks = self._cells["status"], self._cells["_rank"]
        types, sentences = self._cells["error_type"], self._cells["error_message"]

        def handle(event: Event) -> None:
            row = self._row_of(event)
            # Answered is the end of the story, and a definite outcome is not made vague again.
            if status[row] == "answered" or (
                outcome == "uncertain" and (status[row] in {*_FINAL, "failed"} or ranks[row] >= _ACCEPTED)
            ):
                return
            status[row] = outcome
            types[row] = event.attributes.get("error_type")
            sentences[row] = event.attributes.get("error_message")

        return handle
