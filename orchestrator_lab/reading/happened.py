"""When things happened on a run's clock: where recordings begin, messages and turns, what was known of agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.origins import Recordings
from orchestrator_lab.reading.entries import events_with

if TYPE_CHECKING:
    from orchestrator_lab.frames import RunTables
    from orchestrator_lab.journal.event import Event

__all__ = ["SETTLE_S", "Happened", "happened"]

#: A program draws a little after what it reports.
SETTLE_S = 0.2
#: The events of one thing, last the one at which it is to be seen: a message as it comes in, a turn and a tool call as
#: they end, a question as it is asked.
_SEEN = {
    "message_id": ("message.queued", "message.written", "message.accepted"),
    "turn_id": ("turn.started", "turn.ended"),
    "tool_call_id": ("tool.started", "tool.ended"),
    "dialog_id": ("dialog.opened",),
}
#: What is known of an agent.
_FACTS = ("role", "kind", "state", "turns", "input_tokens", "output_tokens", "dialog")
_MARKS = [f'"{name}"'.encode() for names in _SEEN.values() for name in names]
_MARKS += [b'"dialog.answered"', b'"recording.started"', b'"agent.added"', b'"agent.state"', b'"turn.usage"']


@dataclass
class Happened:
    """What is known of a run's course, in seconds on its clock.

    Parameters
    ----------
    origins : dict of str to float
        Where the recording of each agent begins.
    moments : dict of str to float
        When each message, turn, tool call and question can be seen, by its id: a message as it comes in, a turn and a
        tool call as they end, a question as it is asked, and a little later, as programs draw.
    facts : dict of str to list of (float, dict)
        What changes in what is known of each agent.
    ends_s : float
        The last event.
    """

    origins: dict[str, float] = field(default_factory=dict)
    moments: dict[str, float] = field(default_factory=dict)
    facts: dict[str, list[tuple[float, dict[str, Any]]]] = field(default_factory=dict)
    ends_s: float = 0.0

    def known(self, agent: str, at_s: float) -> dict[str, Any]:
        """Return what was known of an agent at an instant, with the seconds in its state; None is what was not."""
        known: dict[str, Any] = dict.fromkeys(_FACTS)
        since = 0.0
        for when, change in self.facts.get(agent, ()):
            if when > at_s:
                break
            if "state" in change:
                since = when
            known |= change
        return known | {"state_s": None if known["state"] is None else max(0.0, at_s - since)}


class _Reader:
    """Takes in the events of a run."""

    def __init__(self) -> None:
        self.found = Happened()
        self._recordings: dict[str, Recordings] = {}
        self._ranks: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._ended: set[str | None] = set()
        self._usage: dict[str, dict[str, tuple[int, int]]] = {}
        self._sums: dict[str, list[int]] = {}

    def take(self, event: Event) -> None:
        """Take in an event."""
        found, facts, at_s = self.found, event.attributes, event.monotonic_s
        found.ends_s = max(found.ends_s, at_s)
        self._moment(event)
        agent = event.agent
        if agent is None:
            return
        if event.event == "recording.started":
            self._recording(event)
        elif event.event == "agent.added":
            self._change(agent, at_s, {"role": facts.get("role"), "kind": facts.get("kind")})
        elif event.event == "agent.state":
            self._change(agent, at_s, {"state": facts.get("state")})
        elif event.event == "dialog.opened":
            self._change(agent, at_s, {"dialog": {"subject": facts.get("subject")}})
        elif event.event == "dialog.answered":
            self._change(agent, at_s, {"dialog": None})
        elif event.event == "turn.ended" and event.turn_id not in self._ended:  # its end may be told twice
            self._ended.add(event.turn_id)
            self._turns[agent] = self._turns.get(agent, 0) + 1
            self._change(agent, at_s, {"turns": self._turns[agent]})
        elif event.event == "turn.usage" and event.turn_id is not None:
            self._tokens(agent, event)

    def _change(self, agent: str, at_s: float, change: dict[str, Any]) -> None:
        self.found.facts.setdefault(agent, []).append((at_s, change))

    def _recording(self, event: Event) -> None:
        """Take the origin of the file that is there: one that is continued keeps its time."""
        agent = event.agent or ""
        recordings = self._recordings.setdefault(agent, Recordings())
        recordings.started(event)
        offset = recordings.offset(event)
        if offset is not None:
            self.found.origins[agent] = event.monotonic_s - offset

    def _moment(self, event: Event) -> None:
        kind, _, _ = event.event.partition(".")
        name = {"message": "message_id", "turn": "turn_id", "tool": "tool_call_id", "dialog": "dialog_id"}.get(kind, "")
        if event.event not in _SEEN.get(name, ()):
            return
        identity = event.message_id if name == "message_id" else event.turn_id if name == "turn_id" else None
        identity = identity or event.attributes.get(name)
        if not isinstance(identity, str):
            return
        rank = _SEEN[name].index(event.event)
        if rank > self._ranks.get(identity, -1):
            self._ranks[identity] = rank
            self.found.moments[identity] = round(event.monotonic_s + SETTLE_S, 6)

    def _tokens(self, agent: str, event: Event) -> None:
        usage = self._usage.setdefault(agent, {})
        facts = event.attributes
        told = (_count(facts.get("input_tokens")), _count(facts.get("output_tokens")))
        # A later account of the same turn takes the place of the earlier one.
        before = usage.get(event.turn_id or "", (0, 0))
        usage[event.turn_id or ""] = told
        sums = self._sums.setdefault(agent, [0, 0])
        for place in (0, 1):
            sums[place] += told[place] - before[place]
        self._change(agent, event.monotonic_s, {"input_tokens": sums[0], "output_tokens": sums[1]})


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def happened(tables: RunTables) -> Happened:
    """Return what is known of a run's course, its journal looked through once.

    Parameters
    ----------
    tables : RunTables
        Of the run.

    Returns
    -------
    Happened
        As far as the journal has come.
    """
    reader = _Reader()
    for event in events_with(tables, _MARKS):
        reader.take(event)
    return reader.found
