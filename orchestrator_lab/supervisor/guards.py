"""Limits that pause delivery: counted from the journal, told before they act, lifted by people.

What is in a pane goes on, and messages are still taken in; they wait in their queues until the guard is lifted.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError, GuardNotFound, JournalError
from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.breakers import Breakers
from orchestrator_lab.supervisor.chains import path_of
from orchestrator_lab.supervisor.tally import Guard, Tally, sentence

if TYPE_CHECKING:
    from orchestrator_lab.config import Limits
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.tally import Trip

__all__ = ["Guards", "Hold"]

logger = logging.getLogger(__name__)

#: Events that figures are counted from, or that change who is counted.
_COUNTED = frozenset(
    {
        "run.started",
        "agent.added",
        "agent.started",
        "agent.removed",
        "message.queued",
        "message.refused",
        "message.accepted",
        "turn.started",
        "turn.ended",
        "turn.usage",
        "guard.tripped",
        "guard.lifted",
    }
)
_BREAKERS = frozenset({"agent.limited", "agent.limit_lifted"})
#: Seconds until a journal that took nothing is tried again.
_AGAIN_S = 1.0
#: Links of a chain that are kept with a guard.
_CHAIN = 200


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps an agent's messages in their queue.

    Parameters
    ----------
    guard_id : str
        Identity; empty while the journal takes nothing.
    message : str
        One sentence for people.
    ends : bool
        Whether it ends by itself.
    """

    guard_id: str
    message: str
    ends: bool = False


class Guards:
    """What pauses delivery in one cluster.

    Parameters
    ----------
    supervisor : Supervisor
        Its journal is counted, and written before anything is paused.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        self._tally = Tally(supervisor.config.limits)
        self.breakers = Breakers(supervisor)
        #: Limits by whose they are, of those that set any; None when somebody has joined or left since.
        self._limits: dict[str | None, Limits] | None = None
        #: Guards that were lifted, by their id: a request that is repeated finds them.
        self._lifted: dict[str, tuple[str, str | None]] = {}
        #: What is written while an earlier supervisor's journal is read, and the last event that was read.
        self._behind: list[Event] | None = None
        self._seq = 0
        self._live = False
        self._unsettled = False
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        supervisor.journal.subscribe(self._journalled)

    # the fold -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Count anew: :meth:`restore` is told an earlier supervisor's journal, beside the loop."""
        self._tally, self.breakers = Tally(self._cluster.config.limits), Breakers(self._cluster)
        self._lifted.clear()
        self._behind, self._seq = [], 0

    def restore(self, event: Event) -> None:
        """Count one event of the journal; nothing is delivered until :meth:`resume`."""
        self._take(event)
        self._seq = event.seq

    def catch_up(self) -> None:
        """Count what was written while the journal was read."""
        behind, self._behind = self._behind, None
        for event in behind or ():
            if event.seq > self._seq:
                self._take(event)

    def resume(self) -> None:
        """Act from now on, and bring to its end what an earlier supervisor had only journalled."""
        self._live, self._unsettled, self._limits = True, True, None
        for rule, agent in self._lifted.values():
            if not self._tally.is_open(agent, rule):
                self._cluster.alerts.resolve(f"guard_{rule}", agent)
        for guard in self._tally.guards.values():
            if not self._cluster.alerts.holds_back(f"guard_{guard.rule}", guard.agent, "error"):
                self._alert(guard)
        self.breakers.resume()
        self._look()
        self._cluster.ledger.poke()

    def _journalled(self, event: Event) -> None:
        if self._behind is not None:
            self._behind.append(event)
            return
        if event.event in _BREAKERS:
            self._take(event)
            return
        if event.event not in _COUNTED:
            return
        if event.event in {"agent.added", "agent.removed"}:
            self._limits = None
        if not self._live or self._given():
            self._take(event)
        if self._live and self._given():
            self._unsettled = True
            # Not here: an event must be told to all before the next one is written.
            if self._soon is None:
                self._soon = asyncio.get_running_loop().call_soon(self._look)

    def _take(self, event: Event) -> None:
        facts = event.attributes
        if event.event in _BREAKERS:
            self.breakers.take(event)
            return
        if event.event == "guard.lifted":
            self._lifted[str(facts["guard_id"])] = str(facts["rule"]), event.agent
        self._tally.take(event)

    def _given(self) -> dict[str | None, Limits]:
        if self._limits is None:
            every: dict[str | None, Limits] = {None: self._cluster.config.limits}
            every.update((name, runner.config.limits) for name, runner in self._cluster.runners.items())
            self._limits = {name: limits for name, limits in every.items() if limits.model_dump(exclude_none=True)}
        return self._limits

    # what happens -------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether anything is held at all."""
        return self._unsettled or not self._live or bool(self._tally.guards) or bool(self.breakers.open)

    def hold_of(self, name: str) -> Hold | None:
        """Return what keeps messages to an agent in their queue, None when nothing does."""
        stopped = self._cluster.replaying.stopped
        if stopped is not None:
            return Hold("", stopped.message.partition("\n")[0].rstrip(":"), ends=True)
        if self._unsettled:
            self._settle()
        if self._unsettled or not self._live:
            return Hold("", "what was counted so far is not journalled yet", ends=True)
        for guard in self._tally.guards.values():
            if guard.agent in {None, name}:
                return Hold(guard.guard_id, guard.message)
        runner = self._cluster.runners.get(name)
        breaker = self.breakers.hold_of(runner) if runner is not None else None
        return None if breaker is None else Hold(breaker.guard_id, breaker.message, ends=breaker.until is not None)

    def stuck(self, runners: list[AgentRunner]) -> tuple[bool, Hold | None]:
        """Tell whether anything goes on among these agents by itself, and what holds what they wait for if not."""
        found: Hold | None = None
        for runner in runners:
            box = self._cluster.mailboxes[runner.name]
            if runner.amending or runner.state not in {"idle", "limited", "exited", "failed"} or box.on_its_way:
                return True, None
            if box.waiting:
                hold = self.hold_of(runner.name)
                if hold is None or hold.ends:
                    return True, None
                found = found or hold
        return False, found

    def listed(self) -> list[dict[str, Any]]:
        """Return what clients see: the guards that hold, the oldest first."""
        if self._unsettled:
            self._settle()
        found = [guard.to_dict() for guard in self._tally.guards.values()]
        found += [breaker.to_dict() for breaker in self.breakers.open.values()]
        return sorted(found, key=lambda one: str(one["since"]))

    def lift(
        self,
        guard_id: str | None = None,
        *,
        by: str = "user",
        limit: float | None = None,
        allowance: float | None = None,
    ) -> list[dict[str, Any]]:
        """Let delivery go on.

        Parameters
        ----------
        guard_id : str, optional
            Which one; all of them by default.
        by : str
            Who lifts it.
        limit : float, optional
            The figure at which it holds again.
        allowance : float, optional
            How much further it may go; as far again as the limit by default.

        Returns
        -------
        list of dict
            Those that were lifted.

        Raises
        ------
        GuardNotFound
            When none of this id has ever held.
        ConfigError
            When the new limit is reached already, or it is not clear which one it is for.
        """
        self._time_is_up()  # it may be, and its timer did not come to it yet
        told = {one["guard_id"]: one for one in self.listed()}
        if guard_id is not None and guard_id not in told:
            if guard_id in self._lifted:
                return []
            raise GuardNotFound(
                f"no guard {guard_id!r} holds in cluster {self._cluster.config.name!r}; there are: "
                f"{', '.join(told) or 'none'}",
                guard_id=guard_id,
            )
        chosen = list(told) if guard_id is None else [guard_id]
        guards = [self._tally.guards[one] for one in chosen if one in self._tally.guards]
        breakers = [one for one in self.breakers.open.values() if one.guard_id in chosen]
        self._check(guards, breakers != [], limit, allowance)
        for guard in guards:
            self._lift(guard, by, limit, allowance)
        for breaker in breakers:
            self._lifted[breaker.guard_id] = "limited", None
            self.breakers.lift(breaker, by=by)
        self._cluster.ledger.poke()
        self._look()
        return [told[one] for one in chosen]

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._live = False
        self.breakers.stop()
        for timer in (self._timer, self._soon):
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _check(guards: list[Guard], breakers: bool, limit: float | None, allowance: float | None) -> None:
        if limit is None and allowance is None:
            return
        if limit is not None and allowance is not None:
            raise ConfigError("give a new 'limit', or an 'allowance' beyond where it stands, not both")
        if breakers or len(guards) != 1:
            raise ConfigError(
                f"'{'limit' if limit is not None else 'allowance'}' is for one guard on a limit of the configuration: "
                "name it by its guard_id"
            )
        if limit is not None and limit <= guards[0].value:
            raise ConfigError(
                f"limit {limit:g} is reached already ({guards[0].rule} stands at {guards[0].value:g}); give a "
                "greater one"
            )
        if allowance is not None and allowance <= 0:
            raise ConfigError(f"an allowance is greater than nought, got {allowance:g}")

    def _lift(self, guard: Guard, by: str, limit: float | None, allowance: float | None) -> None:
        if limit is None and allowance is None:
            given = self._given().get(guard.agent)
            allowance = getattr(given, guard.rule, None) or guard.limit
        self._cluster.journal.append(
            "guard.lifted",
            agent=guard.agent,
            guard_id=guard.guard_id,
            rule=guard.rule,
            by=by,
            limit=limit,
            allowance=allowance,
        )
        self._cluster.alerts.resolve(f"guard_{guard.rule}", guard.agent)

    def _look(self) -> None:
        """Trip what is reached, and wait for the next limit of time."""
        self._soon = None
        if not self._live:
            return
        self._settle()
        if self._timer is not None:
            self._timer.cancel()
        if self._unsettled:
            self._timer = asyncio.get_running_loop().call_later(_AGAIN_S, self._look)
            return
        due = self._tally.next_wall_s(self._given())
        if due is not None:
            delay_s = max(0.001, due - self._cluster.journal.now_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._time_is_up)

    def _time_is_up(self) -> None:
        self._unsettled = True
        self._look()

    def _settle(self) -> None:
        """Journal each limit that is reached; what cannot be journalled is tried again, and holds until then."""
        if not self._live or not self._unsettled:
            return
        try:
            for trip in self._tally.reached(self._given(), now_s=self._cluster.journal.now_s):
                self._trip(trip)
        except JournalError as error:
            logger.warning("a limit is reached, which cannot be journalled yet: %s", error)
            return
        self._unsettled = False

    def _trip(self, trip: Trip) -> None:
        chain = [one.message_id for one in trip.link.back()][::-1] if trip.link is not None else []
        path = path_of(trip.link) if trip.link is not None else []
        where = "in the cluster" if trip.agent is None else f"to {trip.agent}"
        guard_id = self._cluster.replaying.guard_id(trip.agent, trip.rule) or new_id("grd_")
        self._cluster.journal.append(
            "guard.tripped",
            agent=trip.agent,
            level="error",
            guard_id=guard_id,
            scope="cluster" if trip.agent is None else "agent",
            rule=trip.rule,
            limit=trip.limit,
            value=trip.value,
            chain=chain[-_CHAIN:],
            path=path[-_CHAIN:],
            message=(
                f"delivery {where} is paused: {sentence(trip)}; to go on: cluster.lift() or "
                "'orchestrator-lab guards lift'"
            ),
        )
        self._alert(self._tally.guards[guard_id])
        self._cluster.ledger.poke()

    def _alert(self, guard: Guard) -> None:
        self._cluster.alerts.open(
            f"guard_{guard.rule}", guard.message, level="error", agent=guard.agent, guard_id=guard.guard_id
        )
