"""Events made of a record: the envelope, the clock, and what all programs' records have in common."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.event import Event

if TYPE_CHECKING:
    from orchestrator_lab.importing.lines import Line

__all__ = ["Teller", "Told"]

#: Characters kept of a record that nobody knows.
_KEPT = 16_000
#: Digits of seconds: a record's instants are in milliseconds.
_DIGITS = 6


@dataclass(slots=True)
class Told:
    """A turn that is being told.

    Parameters
    ----------
    turn_id, agent : str
        Whose turn.
    began_s, last_s : float
        Epoch seconds of its prompt, and of the newest record that belongs to it.
    """

    turn_id: str
    agent: str
    began_s: float
    last_s: float
    message_ids: list[str] = field(default_factory=list)
    reply: str | None = None
    model: str | None = None
    #: Tool calls without a result yet.
    calls: set[str] = field(default_factory=set)


class Teller:
    """Makes the events of one conversation, in order.

    Parameters
    ----------
    run_id : str
        The run that the conversation is.
    before_s : float
        Epoch seconds that stand for records before the first one that has an instant.
    """

    def __init__(self, run_id: str, before_s: float = 0.0) -> None:
        self.run_id = run_id
        self.before_s = before_s
        self.begun = False
        #: Epoch seconds of the newest record that had an instant.
        self.now_s = 0.0
        #: What was passed over, by kind: known and of no table, copies of another session's, or unreadable.
        self.passed: Counter[str] = Counter()
        self.copied = 0
        self.unknown: Counter[str] = Counter()
        self._origin_s = 0.0
        self._seq = 0
        self._out: list[Event] = []
        self._instant = (-1.0, "")

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        out, self._out = self._out, []
        return out

    def tick(self, at_s: float) -> float:
        """Take a record's instant; return it, or the last one known for a record without."""
        if at_s > 0.0:
            self.now_s = at_s
        return self.now_s or self.before_s

    def event(
        self,
        event: str,
        at_s: float,
        /,
        *,
        agent: str | None = None,
        message_id: str | None = None,
        turn_id: str | None = None,
        source: str | None = "transcript",
        level: str = "info",
        clock_s: float | None = None,
        **attributes: Any,  # noqa: ANN401 - any JSON
    ) -> None:
        """Tell of an event.

        Parameters
        ----------
        event : str
            One of the schema's events.
        at_s : float
            Epoch seconds.
        agent, message_id, turn_id, source, level
            As in the envelope.
        clock_s : float, optional
            Another reading of the run's clock than this instant, where the program has measured a duration itself.
        **attributes
            The rest; None is left out.
        """
        if not self.begun:
            self.begun, self._origin_s = True, at_s
        self._seq += 1
        if self._instant[0] != at_s:
            stamp = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds")
            self._instant = (at_s, stamp.replace("+00:00", "Z"))
        clock = round(at_s - self._origin_s if clock_s is None else clock_s, _DIGITS)
        known = {key: value for key, value in attributes.items() if value is not None}
        self._out.append(
            Event(self._seq, event, self._instant[1], clock, agent, message_id, turn_id, source, level, known)
        )

    def clock(self, at_s: float) -> float:
        """Return the reading of the run's clock at an instant."""
        return at_s - self._origin_s

    def message(
        self,
        message_id: str,
        at_s: float,
        *,
        sender: str,
        recipient: str,
        source: str,
        content: str,
        queued_s: float | None = None,
        turn: Told | None = None,
    ) -> None:
        """Tell of a prompt that was taken, by a turn that runs when there is one."""
        self.event(
            "message.queued",
            at_s if queued_s is None else queued_s,
            agent=recipient,
            message_id=message_id,
            source=source,
            sender=sender,
            recipient=recipient,
            kind="direct",
            hop=0,
            content=content,
            content_sha256=hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest(),
        )
        turn_id = turn.turn_id if turn is not None else None
        self.event("message.accepted", at_s, agent=recipient, message_id=message_id, turn_id=turn_id)
        if turn is not None:
            turn.message_ids.append(message_id)
            self.event("message.started", at_s, agent=recipient, message_id=message_id, turn_id=turn_id)

    def begin(self, turn: Told) -> None:
        """Tell of a turn's begin, and that it answers its messages."""
        at, first = turn.began_s, turn.message_ids[0] if turn.message_ids else None
        self.event(
            "turn.started",
            at,
            agent=turn.agent,
            turn_id=turn.turn_id,
            message_id=first,
            message_ids=list(turn.message_ids),
        )
        for one in turn.message_ids:
            self.event("message.started", at, agent=turn.agent, message_id=one, turn_id=turn.turn_id)

    def end(
        self,
        turn: Told,
        at_s: float,
        reason: str,
        *,
        error: str | None = None,
        duration_s: float | None = None,
    ) -> None:
        """Tell of a turn's end, and of its messages' outcome."""
        clock = None if duration_s is None else self.clock(turn.began_s) + duration_s
        self.event(
            "turn.ended",
            at_s,
            agent=turn.agent,
            turn_id=turn.turn_id,
            clock_s=clock,
            reply=turn.reply,
            end_reason=reason,
            error_message=error,
        )
        failed = reason in {"interrupted", "error", "limit", "exited"}
        for one in turn.message_ids:
            facts = {}
            if failed:
                told = error or f"the turn of {turn.agent} was {reason}"
                facts = {"error_type": f"turn_{reason}", "error_message": told}
            self.event(
                "message.failed" if failed else "message.answered",
                at_s,
                agent=turn.agent,
                message_id=one,
                turn_id=turn.turn_id,
                clock_s=clock,
                **facts,
            )

    def stranger(self, line: Line, kind: str, record: dict[str, Any] | None = None) -> None:
        """Keep a record that nobody knows, or that cannot be read."""
        self.unknown[kind] += 1
        text = line.raw if record is None else json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        self.event(
            "import.unknown",
            self.now_s or self.before_s,
            level="warning" if record is None else "debug",
            kind=kind,
            line=line.number,
            bytes=line.size,
            record=text[:_KEPT].encode(errors="replace").decode(),
        )
