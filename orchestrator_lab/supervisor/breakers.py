"""Usage limits that programs report: all agents of the kind hold their messages until the stated reset.

One agent that has used up an account's quota tells of all that use it: each further message would only be lost in the
same way. When the reset has come, when somebody lifts it, or when the program has answered again, delivery goes on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import DialogSeen, Limited
from orchestrator_lab.agents.claude_screen import plain
from orchestrator_lab.agents.menu import read_menu
from orchestrator_lab.agents.usage_limits import WAIT_LABELS
from orchestrator_lab.errors import JournalError
from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["Breaker", "Breakers", "retry_at"]

logger = logging.getLogger(__name__)

#: An endpoint's clock may be a little behind ours, in seconds: a try that comes too early costs a message.
_MARGIN_S = 1.0
#: The wall clock may be set, and a machine may sleep: a reset far away is looked at again this often, in seconds.
_LONGEST_TIMER_S = 600.0
#: A program asks what to do about its limit within this time, in seconds (its pane is looked at when it writes).
_ASKS_WITHIN_S = 60.0

Key = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Breaker:
    """A kind whose new work has stopped.

    Parameters
    ----------
    guard_id : str
        Identity.
    kind : str
        Kind of the agents that hold their messages.
    provider : str or None
        Who makes their model.
    agents : tuple of str
        Those that reported it.
    reason : str
        What the program said, the last time.
    resets_at : float or None
        Epoch seconds of the stated reset.
    until : float or None
        Epoch seconds at which delivery goes on by itself; None: when somebody lifts it.
    since : str
        Instant in UTC of the first report.
    """

    guard_id: str
    kind: str
    provider: str | None
    agents: tuple[str, ...]
    reason: str
    resets_at: float | None
    until: float | None
    since: str

    @property
    def message(self) -> str:
        """One sentence for people."""
        until = (
            f"until {_clock(self.until)}"
            if self.until is not None
            else "until somebody lifts it (cluster.lift() or 'orchestrator-lab guards lift')"
        )
        return f"agents of kind {self.kind} hold their messages {until}: {self.agents[-1]} reported: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return what clients see of it."""
        return {
            "guard_id": self.guard_id,
            "scope": "kind",
            "agent": self.agents[-1],
            "rule": "limited",
            "limit": None,
            "value": None,
            "chain": [],
            "path": list(self.agents),
            "message": self.message,
            "since": self.since,
            "until": None if self.until is None else _instant(self.until),
        }


def retry_at(limited: Limited, now: float, retry_s: float | None) -> float | None:
    """Return when a program that reported a limit is tried again, in epoch seconds; None: not by itself.

    Examples
    --------
    >>> retry_at(Limited("hook", 1000.0), now=900.0, retry_s=None)
    1001.0
    >>> retry_at(Limited("hook", None), now=900.0, retry_s=60.0)
    960.0
    >>> retry_at(Limited("hook", 800.0), now=900.0, retry_s=None) is None
    True
    """
    if limited.resets_at is not None and limited.resets_at > now:
        return limited.resets_at + _MARGIN_S
    # A reset that is over and yet reported says nothing: trying at once would only lose messages.
    return None if retry_s is None else now + retry_s


class Breakers:
    """The kinds whose new work has stopped.

    Parameters
    ----------
    supervisor : Supervisor
        Journal, alerts and agents.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        self.open: dict[Key, Breaker] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: Alerts whose cause had gone when an earlier supervisor died.
        self._over: set[str] = set()

    # the fold -----------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Take in one event of the journal."""
        facts = event.attributes
        if event.event == "agent.limited" and event.agent:
            key = str(facts["kind"]), facts.get("provider")
            known = self.open.get(key)
            agents = known.agents if known is not None else ()
            self.open[key] = Breaker(
                guard_id=str(facts["guard_id"]),
                kind=key[0],
                provider=key[1],
                agents=(*(one for one in agents if one != event.agent), event.agent),
                reason=str(facts.get("reason", "")),
                resets_at=facts.get("resets_at"),
                until=facts.get("until"),
                since=known.since if known is not None else event.at,
            )
            self._over.discard(event.agent)
        elif event.event == "agent.limit_lifted":
            breaker = self.open.pop((str(facts["kind"]), facts.get("provider")), None)
            self._over.update(breaker.agents if breaker is not None else ())

    def resume(self) -> None:
        """Bring about what follows from the journal, once the agents are there."""
        for name in self._over:
            self._cluster.alerts.resolve("limited", name)
        self._over.clear()
        for breaker in self.open.values():
            for name in breaker.agents:
                runner = self._cluster.runners.get(name)
                if runner is not None:
                    if not self._cluster.alerts.holds_back("limited", name, "error"):
                        self._alert(breaker, name)
                    runner.limited = Limited("transcript", breaker.resets_at, breaker.reason)
                    runner.publish()
                    runner.spawn(self._close_question(runner))
        self._arm()

    # what happens -------------------------------------------------------------------------------

    def report(self, runner: AgentRunner, limited: Limited) -> None:
        """Stop new work for the kind of an agent whose program reports a usage limit."""
        key, now = _key(runner), time.time()
        known = self.open.get(key)
        before = runner.limited
        if known is not None and before is not None and before == dataclasses.replace(limited, source=before.source):
            return  # told by two sources
        until = retry_at(limited, now, self._cluster.config.limits.retry_s)
        if known is not None and known.until is not None:
            until = max(until or 0.0, known.until)
        self._cluster.journal.append(
            "agent.limited",
            agent=runner.name,
            turn_id=runner.turn.turn_id if runner.turn else None,
            source=limited.source,
            level="warning",
            guard_id=known.guard_id if known is not None else new_id("grd_"),
            kind=key[0],
            provider=key[1],
            resets_at=limited.resets_at,
            until=until,
            reason=limited.reason,
        )
        runner.limited = limited
        self._alert(self.open[key], runner.name)
        runner.spawn(self._close_question(runner))
        self._arm()

    def answered(self, runner: AgentRunner) -> None:
        """Go on with a kind whose limited agent has answered all the same, to somebody at its pane."""
        breaker = self.open.get(_key(runner))
        if runner.limited is not None and breaker is not None:
            self.lift(breaker, by="program")

    def hold_of(self, runner: AgentRunner) -> Breaker | None:
        """Return what holds an agent's messages."""
        return self.open.get(_key(runner)) if self.open else None

    def lift(self, breaker: Breaker, *, by: str) -> None:
        """Let the agents of a kind go on."""
        self._cluster.journal.append(
            "agent.limit_lifted", guard_id=breaker.guard_id, kind=breaker.kind, provider=breaker.provider, by=by
        )
        self._over.clear()
        for name in breaker.agents:
            self._cluster.alerts.resolve("limited", name)
            runner = self._cluster.runners.get(name)
            if runner is not None:
                runner.limited = None
                runner.publish()
        self._cluster.ledger.poke()
        self._arm()

    def stop(self) -> None:
        """Wait for no reset any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _alert(self, breaker: Breaker, name: str) -> None:
        self._cluster.alerts.open(
            "limited",
            breaker.message,
            level="error",
            agent=name,
            guard_id=breaker.guard_id,
            resets_at=breaker.resets_at,
        )

    def _arm(self) -> None:
        self.stop()
        due = min((one.until for one in self.open.values() if one.until is not None), default=None)
        if due is not None:
            delay_s = min(max(0.01, due - time.time()), _LONGEST_TIMER_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        try:
            for breaker in list(self.open.values()):
                if breaker.until is not None and breaker.until <= time.time():
                    self.lift(breaker, by="reset")
        except JournalError as error:
            logger.warning("a usage limit is over, which cannot be journalled yet: %s", error)
            self._timer = asyncio.get_running_loop().call_later(_MARGIN_S, self._look)
            return
        self._arm()

    async def _close_question(self, runner: AgentRunner) -> None:
        """Tell a program that asks what to do about its limit to wait, by the option that says so and changes nothing.

        Otherwise its question would stand where the input line is when the reset comes.
        """
        if not runner.adapter.styled:
            return
        deadline = time.monotonic() + _ASKS_WITHIN_S
        while runner.running and runner.limited is not None and runner.dialog is None:
            seen = runner.activity
            runner.looks.follow_closely()
            menu = read_menu(plain(await self._cluster.screen(runner)))
            label = next((one for one in WAIT_LABELS if menu is not None and menu.find(one) is not None), None)
            if menu is not None and label is not None:
                runner.apply([DialogSeen("screen", "limit", runner.limited.reason, menu.options, label)])
                return
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(seen.wait(), left)
            except TimeoutError:
                return


def _key(runner: AgentRunner) -> Key:
    return runner.config.kind, runner.program.provider if runner.program is not None else None


def _clock(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _instant(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
