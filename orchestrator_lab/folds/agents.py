"""The tables of the agents themselves: agents and their states."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator_lab.folds.base import Fold, as_amount, as_count

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event

__all__ = ["AgentFold", "StateFold", "state_after"]

_TOKENS = ("input_tokens", "output_tokens")


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def state_after(event: Event, current: str | None) -> str | None:
    """Return the state that an agent is in after an event of its own.

    Parameters
    ----------
    event : Event
        An event of the agent.
    current : str or None
        Its state before; None when it had none.

    Returns
    -------
    str or None
        None when it has none any more.
    """
    if event.event == "agent.state":
        return event.attributes.get("state") or current
    if event.event == "agent.started":
        return "starting" if current in {None, "exited", "failed"} else current
    if event.event == "agent.removed":
        return None
    return {"agent.exited": "exited", "agent.failed": "failed"}.get(event.event, current)


class StateFold(Fold):
    """The states table: an agent's published states as intervals without gaps or overlaps."""

    table = "states"
    reads: ClassVar = {"agent.state": {"state": "text"}}
    durations: ClassVar = {"duration_s": ("_started_s", "_ended_s")}
    hidden = ("_started_s", "_ended_s")

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, int] = {}
        self.handlers = {
            "agent.state": self._enter,
            "agent.started": self._enter,
            "agent.exited": self._enter,
            "agent.failed": self._enter,
            "agent.removed": self._enter,
            "run.ended": self._close_all,
            "run.resumed": self._break_off,
        }

    def state_of(self, agent: str) -> str | None:
        """Return the state that an agent is in.

        Parameters
        ----------
        agent : str
            Name of the agent.

        Returns
        -------
        str or None
            None when it has none (yet, or any more).
        """
        row = self._open.get(agent)
        return None if row is None else self._cells["state"][row]

    def _settled(self, row: int) -> bool:
        return row not in self._open.values()

    def _renumber(self, new: dict[int, int]) -> None:
        self._open = {agent: new[row] for agent, row in self._open.items()}

    def _enter(self, event: Event) -> None:
        agent = event.agent
        if agent is None:
            return
        current = self.state_of(agent)
        state = state_after(event, current)
        if state == current:
            return
        self._close(event)
        if state is None:
            return
        self._open[agent] = self._add(
            None,
            {
                "agent": agent,
                "state": state,
                "started_at": event.at,
                # Starts and exits are seen in the process itself.
                "source": event.source or (None if event.event == "agent.state" else "process"),
                "_started_s": event.monotonic_s,
            },
        )

    def _close(self, event: Event) -> None:
        row = self._open.pop(event.agent or "", None)
        if row is not None:
            self._cells["ended_at"][row] = event.at
            self._cells["_ended_s"][row] = event.monotonic_s

    def _break_off(self, event: Event) -> None:
        """Close what was open when the run stopped without an end: what came after that is not known."""
        gap_s = float(event.attributes.get("gap_s") or 0.0)
        at = datetime.fromisoformat(event.at) - timedelta(seconds=gap_s)
        self._close_all(replace(event, at=_instant(at), monotonic_s=event.monotonic_s - gap_s))

    def _close_all(self, event: Event) -> None:
        for row in self._open.values():
            self._cells["ended_at"][row] = event.at
            self._cells["_ended_s"][row] = event.monotonic_s
        self._open.clear()


class AgentFold(Fold):
    """The agents table. An agent that is added again under its name gets a row of its own."""

    table = "agents"
    reads: ClassVar = {
        "agent.state": {"state": "text"},
        "message.queued": {"sender": "text", "recipient": "text"},
        "turn.usage": {**dict.fromkeys(_TOKENS, "count"), "cost_usd": "amount", "final": "flag"},
    }
    grows = False
    hidden = ("_starts", "_busy_since", "_priced")

    def __init__(self) -> None:
        super().__init__()
        self._current: dict[str, str | None] = {}
        self._usage: dict[str, tuple[int, tuple[int | None, ...], float | None, bool]] = {}
        self.handlers = {
            "agent.added": self._added,
            "agent.started": self._started,
            "agent.ready": self._ready,
            "agent.state": self._state,
            "agent.exited": self._exited,
            "agent.failed": self._failed,
            "agent.removed": self._removed,
            "agent.session": self._facts,
            "agent.model": self._facts,
            "message.queued": self._message,
            "turn.usage": self._tokens,
            "run.ended": self._run_ended,
            "run.resumed": self._run_resumed,
        }

    def _row_of(self, event: Event) -> int | None:
        if event.agent is None:
            return None
        row = self._rows.get(event.agent)
        return self._new(event.agent, {}) if row is None else row

    def _new(self, name: str, facts: dict[str, Any]) -> int:
        known = {key: facts.get(key) for key in self._cells if key in facts}
        return self._add(name, {**known, "name": name, "restarts": 0, "message_count": 0, "_starts": 0, "_priced": 0})

    def _added(self, event: Event) -> None:
        name = event.agent or event.attributes.get("name")
        if name is None:
            return
        row = self._rows.get(name)
        agent_id = event.attributes.get("agent_id")
        if row is None or self._cells["agent_id"][row] not in {None, agent_id}:
            self._new(name, event.attributes)
        else:
            self._facts(event)

    def _facts(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None:
            return
        for name, value in event.attributes.items():
            # The name is the envelope's: rows are found by it.
            if name in self._cells and name not in {"name", *self.hidden} and value is not None:
                self._cells[name][row] = value

    def _started(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None:
            return
        cells, facts = self._cells, event.attributes
        for name in ("pid", "pane_id", "session_id"):
            if facts.get(name) is not None:
                cells[name][row] = facts[name]
        cells["_starts"][row] += 1
        cells["restarts"][row] = cells["_starts"][row] - 1
        if cells["started_at"][row] is None:
            cells["started_at"][row] = event.at
        cells["ended_at"][row] = cells["exit_code"][row] = None
        self._follow(event, row)

    def _ready(self, event: Event) -> None:
        row = self._row_of(event)
        if row is not None and self._cells["ready_at"][row] is None:
            self._cells["ready_at"][row] = event.at

    def _state(self, event: Event) -> None:
        row = self._row_of(event)
        if row is not None:
            self._follow(event, row)

    def _exited(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None:
            return
        status, signal = event.attributes.get("exit_code"), event.attributes.get("signal")
        if status is None and isinstance(signal, int):
            status = -signal
        self._cells["exit_code"][row] = status
        self._cells["ended_at"][row] = event.at
        self._follow(event, row)

    def _failed(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None:
            return
        if self._cells["ended_at"][row] is None:
            self._cells["ended_at"][row] = event.at
        self._follow(event, row)

    def _removed(self, event: Event) -> None:
        row = self._row_of(event)
        if row is None:
            return
        if self._cells["ended_at"][row] is None:
            self._cells["ended_at"][row] = event.at
        self._idle(row, event.monotonic_s)
        self._current.pop(event.agent or "", None)

    def _run_ended(self, event: Event) -> None:
        for row in self._rows.values():
            self._idle(row, event.monotonic_s)
        self._current.pop(event.agent or "", None)

    def _run_resumed(self, event: Event) -> None:
        for row in self._rows.values():
            self._idle(row, event.monotonic_s - float(event.attributes.get("gap_s") or 0.0))

    def _follow(self, event: Event, row: int) -> None:
        """Take the agent's state after an event, and its busy time up to it."""
        name, cells = event.agent or "", self._cells
        state = self._current[name] = state_after(event, self._current.get(name))
        cells["state"][row] = state
        if state == "busy":
            if cells["_busy_since"][row] is None:
                cells["_busy_since"][row] = event.monotonic_s
        else:
            self._idle(row, event.monotonic_s)
        if cells["busy_s"][row] is None:
            cells["busy_s"][row] = 0.0

    def _idle(self, row: int, now_s: float) -> None:
        since = self._cells["_busy_since"][row]
        if since is not None:
            busy = self._cells["busy_s"][row] or 0.0
            self._cells["busy_s"][row] = round(busy + now_s - since, 6)
            self._cells["_busy_since"][row] = None

    def _message(self, event: Event) -> None:
        recipient = event.attributes.get("recipient") or event.agent
        for name in {event.attributes.get("sender"), recipient}:
            row = self._rows.get(name) if name is not None else None
            if row is not None:
                self._cells["message_count"][row] += 1

    def _tokens(self, event: Event) -> None:
        """Add a turn's tokens and cost; a later account of the same turn replaces the earlier."""
        if event.turn_id is None:
            return
        known = self._usage.get(event.turn_id)
        row = known[0] if known is not None else self._row_of(event)
        final = bool(event.attributes.get("final"))
        if row is None or (known is not None and known[3] and not final):
            return
        tokens = tuple(as_count(event.attributes.get(name)) for name in _TOKENS)
        before = known[1] if known is not None else (None, None)
        for name, new, old in zip(_TOKENS, tokens, before, strict=True):
            if new is not None or old is not None:
                total = self._cells[name][row] or 0
                self._cells[name][row] = total + (new or 0) - (old or 0)
        cost = as_amount(event.attributes.get("cost_usd"))
        self._spend(row, cost, known[2] if known is not None else None)
        self._usage[event.turn_id] = (row, tokens, cost, final)

    def _spend(self, row: int, new: float | None, old: float | None) -> None:
        cells = self._cells
        cells["_priced"][row] += (new is not None) - (old is not None)
        total = round((cells["cost_usd"][row] or 0.0) + (new or 0.0) - (old or 0.0), 12)
        # Nothing known is not nought.
        cells["cost_usd"][row] = total if cells["_priced"][row] else None
