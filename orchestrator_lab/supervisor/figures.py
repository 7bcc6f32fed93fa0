"""Figures of a run that grow for ever: messages, turns, tokens, how long deliveries took.

A fold whose memory depends on what is under way, not on how long the run has gone on.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event

__all__ = ["DELIVERY_BUCKETS_S", "Figures"]

#: Upper bounds of the histogram of deliveries, in seconds.
DELIVERY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Of `uncertain` late evidence may still settle something.
_FINAL = frozenset({"answered", "refused", "expired", "failed"})
_RUNGS = frozenset({"queued", "claimed", "written", "accepted", "started", "uncertain", *_FINAL})
_TOKENS = ("input_tokens", "output_tokens")
#: Turns whose tokens may still be amended.
_AMENDED = 256


class Figures:
    """Counts what a journal tells."""

    def __init__(self) -> None:
        #: Messages by their rung.
        self.messages: Counter[str] = Counter()
        #: Turns that ended, by agent and why.
        self.turns: Counter[tuple[str, str]] = Counter()
        #: Tokens, by agent and direction.
        self.tokens: Counter[tuple[str, str]] = Counter()
        #: Deliveries whose duration is at most the bound of the same place; the last place has no bound.
        self.delivered = [0] * (len(DELIVERY_BUCKETS_S) + 1)
        self.delivery_s = 0.0
        self._rungs: dict[str, str] = {}
        self._claimed: dict[str, float] = {}
        self._usage: dict[str, tuple[dict[str, int], bool]] = {}

    def take(self, event: Event) -> None:
        """Take in the next event of the journal.

        Parameters
        ----------
        event : Event
            Any.
        """
        name = event.event
        if name.startswith("message.") and event.message_id is not None:
            self._message(name[8:], event.message_id, event.monotonic_s)
        elif name == "turn.ended" and event.agent is not None:
            self.turns[event.agent, str(event.attributes.get("end_reason") or "unknown")] += 1
        elif name == "turn.usage" and event.agent is not None and event.turn_id is not None:
            self._used(event.agent, event.turn_id, event.attributes)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in JSON's types."""
        return {
            "messages": dict(+self.messages),
            "turns": [[agent, reason, count] for (agent, reason), count in self.turns.items()],
            "tokens": [[agent, direction, count] for (agent, direction), count in self.tokens.items()],
            "delivery": {"bounds_s": list(DELIVERY_BUCKETS_S), "counts": self.delivered, "sum_s": self.delivery_s},
        }

    def _message(self, rung: str, message_id: str, now: float) -> None:
        if rung not in _RUNGS:
            return
        before = self._rungs.get(message_id)
        if before is not None:
            self.messages[before] -= 1
        self.messages[rung] += 1
        self._rungs[message_id] = rung
        if rung == "claimed":
            self._claimed[message_id] = now
        elif rung == "accepted":
            claimed = self._claimed.pop(message_id, None)
            if claimed is not None:
                self._delivered(now - claimed)
        if rung in _FINAL:
            del self._rungs[message_id]
            self._claimed.pop(message_id, None)

    def _delivered(self, duration_s: float) -> None:
        place = sum(duration_s > bound for bound in DELIVERY_BUCKETS_S)
        self.delivered[place] += 1
        self.delivery_s = round(self.delivery_s + duration_s, 6)

    def _used(self, agent: str, turn_id: str, facts: dict[str, Any]) -> None:
        """Add a turn's tokens; a later account of the same turn replaces the earlier."""
        known, final = self._usage.pop(turn_id, ({}, False))
        if not final or facts.get("final"):
            new = {name: int(facts[name]) for name in _TOKENS if isinstance(facts.get(name), int)}
            for name in new | known:
                self.tokens[agent, name.removesuffix("_tokens")] += new.get(name, 0) - known.get(name, 0)
            known, final = new, bool(facts.get("final"))
        self._usage[turn_id] = (known, final)
        if len(self._usage) > _AMENDED:
            del self._usage[next(iter(self._usage))]
