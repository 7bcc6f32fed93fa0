"""How far a cluster and its agents have gone, and which limits that reaches: a fold over the journal's events.

Nothing here acts. Whoever reads the same events comes to the same figures, so that a new supervisor neither counts
twice nor forgets what was lifted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.supervisor.chains import Chains, Link, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.config import Limits
    from orchestrator_lab.journal.event import Event

__all__ = ["CHAIN_RULES", "Guard", "Tally", "Trip", "sentence"]

#: Rules that hold for a chain, not for a sum.
CHAIN_RULES = ("hops", "loops")
#: Rules that a running count is held against.
_SUMS = ("turns", "messages", "tokens", "cost_usd")
#: Digits of a sum of money after the point, so that ten turns of ten cents reach a limit of one dollar.
_DIGITS = 12
#: Rules whose limit may be reached and not passed: the message that would pass it is the first that is held.
_PASSED = frozenset({"messages", "hops"})
#: Names of a path that are shown before it is cut.
_SHOWN = 6

Scope = str | None
Rule = str


@dataclass(frozen=True, slots=True)
class Guard:
    """A limit that was reached and has not been lifted.

    Parameters
    ----------
    guard_id : str
        Identity.
    agent : str or None
        Whose limit it is; None for the cluster's.
    rule : str
        ``turns``, ``messages``, ``tokens``, ``cost_usd``, ``wall_s``, ``hops`` or ``loops``.
    limit, value : float
        The limit, and the figure that reached it.
    chain : tuple of str
        Ids of the messages that led to it, oldest first.
    path : tuple of str
        Names that the chain passed through.
    message : str
        One sentence for people.
    tripped_at : str
        Instant in UTC.
    """

    guard_id: str
    agent: Scope
    rule: Rule
    limit: float
    value: float
    chain: tuple[str, ...]
    path: tuple[str, ...]
    message: str
    tripped_at: str

    def to_dict(self) -> dict[str, Any]:
        """Return what clients see of it."""
        return {
            "guard_id": self.guard_id,
            "scope": "cluster" if self.agent is None else "agent",
            "agent": self.agent,
            "rule": self.rule,
            "limit": self.limit,
            "value": self.value,
            "chain": list(self.chain),
            "path": list(self.path),
            "message": self.message,
            "since": self.tripped_at,
            "until": None,
        }


@dataclass(frozen=True, slots=True)
class Trip:
    """A limit that is reached.

    Parameters
    ----------
    agent : str or None
        Whose limit; None for the cluster's.
    rule : str
        Which one.
    limit, value : float
        The limit as it stands, and the figure.
    link : Link or None
        The message that reached it, where one did.
    """

    agent: Scope
    rule: Rule
    limit: float
    value: float
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class _Lift:
    limit: float | None
    allowance: float | None


class Tally:
    """Counts what limits are about.

    Parameters
    ----------
    limits : Limits
        The cluster's.

    Examples
    --------
    >>> from orchestrator_lab.config import Limits
    >>> from orchestrator_lab.journal.event import Event
    >>> tally = Tally(Limits(turns=1))
    >>> tally.take(Event(1, "turn.ended", "", 0.5, agent="ada"))
    >>> [(trip.rule, trip.value) for trip in tally.reached({None: Limits(turns=1)}, now_s=1.0)]
    [('turns', 1)]
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.guards: dict[str, Guard] = {}
        self._sums: defaultdict[tuple[Scope, Rule], float] = defaultdict(int)
        #: Tokens of each turn so far, and whose it is: a later report replaces an earlier one.
        self._turn_tokens: dict[str, int] = {}
        #: Cost of each turn where it is known, in the same way.
        self._turn_costs: dict[str, float] = {}
        self._started: dict[Scope, float] = {}
        #: Limits that a lift has moved.
        self._moved: dict[tuple[Scope, Rule], float] = {}
        # Links are kept for as long as the run: only where somebody asks for them.
        self._chains = Chains() if any(getattr(limits, rule) is not None for rule in CHAIN_RULES) else None
        self._lifts: dict[Rule, list[_Lift]] = {rule: [] for rule in CHAIN_RULES}
        #: For each message: the limits of its chain, and how many lifts they know of.
        self._bounds: dict[tuple[str, Rule], tuple[float, int]] = {}
        #: The first message of a chain that is over its limit, since the last lift.
        self._over: dict[Rule, Link] = {}
        self._last: Link | None = None

    # the fold -----------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Take in one event."""
        link = self._chains.take(event) if self._chains is not None else None
        if link is not None:
            self._last = link
            self._hold_against(link)
        name, agent, facts = event.event, event.agent, event.attributes
        if name == "turn.ended":
            self._add("turns", agent, 1)
        elif name in {"message.queued", "message.refused"}:
            self._add("messages", agent, 1 if name == "message.queued" else -1)
        elif name == "turn.usage":
            self._usage(event)
        elif name == "run.started":
            self._started[None] = event.monotonic_s
        elif name == "agent.added" and agent:
            self._forget(agent)
        elif name == "agent.started" and agent:
            self._started.setdefault(agent, event.monotonic_s)
        elif name == "agent.removed" and agent:
            self._forget(agent)
        elif name == "guard.tripped":
            guard = _guard(event)
            self.guards[guard.guard_id] = guard
        elif name == "guard.lifted":
            self._lifted(str(facts.get("guard_id")), _Lift(facts.get("limit"), facts.get("allowance")), event)

    def _add(self, rule: Rule, agent: Scope, count: int) -> None:
        self._sums[None, rule] += count
        if agent is not None:
            self._sums[agent, rule] += count

    def _usage(self, event: Event) -> None:
        figures = [event.attributes.get(key) for key in ("input_tokens", "output_tokens")]
        known = [one for one in figures if isinstance(one, int)]
        if not known or event.turn_id is None:
            return
        before = self._turn_tokens.get(event.turn_id, 0)
        self._turn_tokens[event.turn_id] = sum(known)
        self._add("tokens", event.agent, sum(known) - before)
        cost, paid = event.attributes.get("cost_usd"), self._turn_costs.pop(event.turn_id, None)
        if isinstance(cost, int | float) and cost >= 0:
            self._turn_costs[event.turn_id] = cost
        elif paid is None:
            return
        for scope in {None, event.agent}:
            spent = self._sums[scope, "cost_usd"] + self._turn_costs.get(event.turn_id, 0) - (paid or 0)
            self._sums[scope, "cost_usd"] = round(spent, _DIGITS)

    def _forget(self, agent: str) -> None:
        """Begin anew with an agent that joins, or has left."""
        for scope, rule in list(self._sums):
            if scope == agent:
                del self._sums[scope, rule]
        for scope, rule in list(self._moved):
            if scope == agent:
                del self._moved[scope, rule]
        self._started.pop(agent, None)
        self.guards = {key: guard for key, guard in self.guards.items() if guard.agent != agent}

    def _lifted(self, guard_id: str, lift: _Lift, event: Event) -> None:
        guard = self.guards.pop(guard_id, None)
        if guard is None:
            return
        if guard.rule in CHAIN_RULES:
            self._lifts[guard.rule].append(lift)
            self._over.pop(guard.rule, None)
        else:
            reached = self.figure(guard.agent, guard.rule, event.monotonic_s) or 0
            moved = lift.limit if lift.limit is not None else reached + (lift.allowance or guard.limit)
            self._moved[guard.agent, guard.rule] = moved

    def _hold_against(self, link: Link) -> None:
        """Find out how far a message's chain may go, and whether this one is too far."""
        for rule in CHAIN_RULES:
            configured = getattr(self._limits, rule)
            if configured is None:
                continue
            lifts = self._lifts[rule]
            if link.parent is None:
                # A chain of its own starts from the limit: the configured one, or the one that was set since.
                bound = next((one.limit for one in reversed(lifts) if one.limit is not None), float(configured))
            else:
                bound, known = self._bounds[link.parent.message_id, rule]
                for lift in lifts[known:]:
                    at = _measure(link.parent, rule)
                    if lift.limit is not None:
                        bound = lift.limit
                    elif _beyond(rule, at, bound):
                        bound = at + (lift.allowance or float(configured))
            self._bounds[link.message_id, rule] = bound, len(lifts)
            if _beyond(rule, _measure(link, rule), bound):
                self._over.setdefault(rule, link)

    # what follows -------------------------------------------------------------------------------

    def figure(self, agent: Scope, rule: Rule, now_s: float) -> float | None:
        """Return how far a scope has come by a rule; None when it is not known.

        Parameters
        ----------
        agent : str or None
            An agent, or None for the cluster.
        rule : str
            One of the rules that are sums, or ``wall_s``.
        now_s : float
            The run's clock.
        """
        if rule == "wall_s":
            began = self._started.get(agent)
            return None if began is None else now_s - began
        # No turn with a known cost is not the same as a cost of nought.
        return self._sums.get((agent, rule), None if rule == "cost_usd" else 0) if rule in _SUMS else None

    def bound(self, agent: Scope, rule: Rule, limits: Limits) -> float | None:
        """Return the figure at which a limit is reached, as it stands now."""
        configured = getattr(limits, rule)
        return None if configured is None else self._moved.get((agent, rule), float(configured))

    def is_open(self, agent: Scope, rule: Rule) -> bool:
        """Tell whether a limit was reached already and has not been lifted."""
        return any((guard.agent, guard.rule) == (agent, rule) for guard in self.guards.values())

    def reached(self, limits: Mapping[Scope, Limits], *, now_s: float) -> list[Trip]:
        """Return the limits that are reached and not told yet.

        Parameters
        ----------
        limits : mapping
            The cluster's (None) and each agent's.
        now_s : float
            The run's clock.
        """
        found = [
            Trip(None, rule, self._bounds[link.message_id, rule][0], _measure(link, rule), link)
            for rule, link in self._over.items()
            if not self.is_open(None, rule)
        ]
        for agent, given in limits.items():
            for rule in (*_SUMS, "wall_s"):
                bound, value = self.bound(agent, rule, given), self.figure(agent, rule, now_s)
                if bound is None or value is None or not _beyond(rule, value, bound) or self.is_open(agent, rule):
                    continue
                found.append(Trip(agent, rule, bound, value, self._last if rule == "messages" else None))
        return found

    def next_wall_s(self, limits: Mapping[Scope, Limits]) -> float | None:
        """Return the instant on the run's clock at which the next limit of time is reached."""
        due = []
        for agent, given in limits.items():
            bound, began = self.bound(agent, "wall_s", given), self._started.get(agent)
            if bound is not None and began is not None and not self.is_open(agent, "wall_s"):
                due.append(began + bound)
        return min(due, default=None)


def _measure(link: Link, rule: Rule) -> int:
    return link.hops if rule == "hops" else link.rounds


def _beyond(rule: Rule, value: float, bound: float) -> bool:
    return value > bound if rule in _PASSED else value >= bound


def _guard(event: Event) -> Guard:
    facts = event.attributes
    return Guard(
        guard_id=str(facts["guard_id"]),
        agent=event.agent,
        rule=str(facts["rule"]),
        limit=facts["limit"],
        value=facts["value"],
        chain=tuple(facts.get("chain", ())),
        path=tuple(facts.get("path", ())),
        message=str(facts.get("message", "")),
        tripped_at=event.at,
    )


def sentence(trip: Trip) -> str:
    """Return why a limit is reached, in a few words for people.

    Examples
    --------
    >>> sentence(Trip("ada", "turns", 3, 3))
    '3 turns of ada have ended, limit turns: 3'
    """
    whose = f"of {trip.agent} " if trip.agent is not None else ""
    shown = _money if trip.rule == "cost_usd" else _figure
    limit, value = f"limit {trip.rule}: {shown(trip.limit)}", shown(trip.value)
    if trip.rule in CHAIN_RULES and trip.link is not None:
        path = path_of(trip.link)
        if trip.rule == "hops":
            return f"{_arrows(path)}: a chain of {value} messages, {limit}"
        path = path[path.index(trip.link.recipient) :]
        return f"{_arrows(path)}: {len(path) - 1} messages in {value} rounds, {limit}"
    said = {
        "turns": f"{value} turns {whose}have ended",
        "messages": f"{value} messages {f'to {trip.agent} ' if trip.agent is not None else ''}were taken in",
        "tokens": f"{value} tokens {whose}were used",
        "cost_usd": f"{value} USD {whose}were spent",
        "wall_s": f"{trip.value:.0f} s {whose}have passed",
    }
    return f"{said[trip.rule]}, {limit}"


def _figure(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.1f}"


def _money(value: float) -> str:
    text = f"{value:.{6 if value >= 1 else _DIGITS}f}"
    return text.rstrip("0").rstrip(".")


def _arrows(path: list[str]) -> str:
    shown = path if len(path) <= _SHOWN else [*path[:_SHOWN], "..."]
    return " -> ".join(shown)
