"""Programs that ended by themselves: whether and when they are started again.

The decision is a function of the policy, the end and the restarts so far; it knows no clock and no chance of its own.
:class:`Supervision` carries it out for one agent: what it is about to do is journalled first (``agent.restarting``), so
that a supervisor which is killed in the pause, or in the middle of the start, has a successor that goes on with it,
once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from orchestrator_lab.errors import AgentFailed, JournalError, OrchestratorLabError
from orchestrator_lab.tmux import PaneExit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator_lab.config import RestartPolicy
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.agent import AgentRunner

__all__ = ["Decision", "End", "Supervision", "decide_restart"]

logger = logging.getLogger(__name__)

#: The share of a pause that is left to chance.
_JITTER = 0.1
#: Why an agent is ended that starts again by itself.
HUNG = "hung"


@dataclass(frozen=True, slots=True)
class End:
    """How a program ended.

    Parameters
    ----------
    status, signal : int or None
        Its exit status, or the signal that ended it; both are None when nobody knows.
    asked : bool
        Somebody stopped or removed it, or the cluster ends.
    hung : bool
        The lab ended it, because it made no progress.
    served : bool
        It had been ready before, now or in an earlier life. What fails at its very first start is told to whoever
        started it.
    error : str or None
        Why it could not even be started.
    """

    status: int | None = None
    signal: int | None = None
    asked: bool = False
    hung: bool = False
    served: bool = True
    error: str | None = None

    @property
    def failure(self) -> bool:
        """Whether it did not end well: an end that nobody can explain is no success."""
        return self.hung or self.error is not None or self.status != 0

    @property
    def reason(self) -> str:
        """How it ended, in words."""
        if self.error is not None:
            return self.error
        if self.hung:
            return "no progress"
        if self.signal:
            return f"signal {self.signal}"
        return "unknown end" if self.status is None else f"exit status {self.status}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from an end.

    Parameters
    ----------
    action : {"nothing", "restart", "give_up"}
        ``give_up``: it would be started again, and has been too often.
    delay_s : float
        Pause before the restart.
    attempt : int
        Which restart within the window this is, from 1.
    """

    action: Literal["nothing", "restart", "give_up"]
    delay_s: float = 0.0
    attempt: int = 0


def decide_restart(
    policy: RestartPolicy, end: End, restarts: Sequence[float], now: float, *, chance: float = 0.0
) -> Decision:
    """Decide what is done about a program that ended.

    Parameters
    ----------
    policy : RestartPolicy
        The agent's.
    end : End
        How it ended.
    restarts : sequence of float
        Instants of its earlier restarts, on the clock of `now`.
    now : float
        The present instant, in seconds.
    chance : float, default 0.0
        From 0 to 1; shortens the pause by up to a tenth.

    Returns
    -------
    Decision
        A hung agent is started again whatever the policy says: ``hang.restart_s`` has ordered it.

    Examples
    --------
    >>> from orchestrator_lab.config import RestartPolicy
    >>> policy = RestartPolicy(policy="on-failure", max_restarts=2, backoff_s=1.0)
    >>> decide_restart(policy, End(signal=9), [], now=100.0)
    Decision(action='restart', delay_s=1.0, attempt=1)
    >>> decide_restart(policy, End(signal=9), [90.0], now=100.0).delay_s
    2.0
    >>> decide_restart(policy, End(signal=9), [80.0, 90.0], now=100.0).action
    'give_up'
    >>> decide_restart(policy, End(status=0), [], now=100.0).action
    'nothing'
    """
    if end.asked or not end.served:
        return Decision("nothing")
    wanted = end.hung or policy.policy == "always" or (policy.policy == "on-failure" and end.failure)
    if not wanted:
        return Decision("nothing")
    before = sum(now - policy.window_s < instant for instant in restarts)
    if before >= policy.max_restarts:
        return Decision("give_up", attempt=before)
    # The exponent is bounded: a float would overflow long before the pause could matter.
    pause = min(policy.backoff_max_s, policy.backoff_s * 2.0 ** min(before, 64))
    return Decision("restart", pause * (1.0 - _JITTER * chance), before + 1)


class Supervision:
    """Starts one agent again when its program has ended by itself.

    Parameters
    ----------
    runner : AgentRunner
        Holds the facts.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        #: A restart is decided and has not happened yet: messages wait for it.
        self.pending = False
        #: It was ready at least once.
        self.served = False
        #: The lab ends it because it hangs.
        self.hung = False
        #: Epoch seconds of the restarts that the lab made by itself.
        self._restarts: list[float] = []
        #: When the pending restart is due, in epoch seconds: the journal outlives this process's clock.
        self._due_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        #: What an earlier supervisor knew, and had not brought to its end.
        self._undecided: PaneExit | None = None
        self._stopping: str | None = None

    # what happens -------------------------------------------------------------------------------

    def ended(self, exit: PaneExit) -> None:  # noqa: A002 - tmux's word
        """Decide about a program whose end has just been journalled."""
        asked = (self._runner.stopping and not self.hung) or self._cluster_ends()
        self._decide(End(exit.status, exit.signal, asked, self.hung, self.served))

    def asked(self, why: str) -> None:
        """Journal that somebody ends the agent, and give up a restart that is pending.

        Parameters
        ----------
        why : str
            ``stop``, ``restart``, ``remove``, ``shutdown``, or ``hung``, which is nobody's wish.
        """
        if self._runner.running or self.pending:
            self._runner.supervisor.journal.append("agent.stopping", agent=self._runner.name, reason=why)
        self._runner.stopping = self._runner.running
        self.hung = why == HUNG
        if self.hung:
            return
        self._restarts.clear()
        was_pending = self.pending
        self._forget()
        if was_pending and why != "restart":
            self._runner.supervisor.conversations.agent_ended(self._runner.name)
        self._runner.supervisor.ledger.poke()

    def began(self) -> None:
        """Take note that the program was started."""
        self._forget()
        self.hung = False
        self._runner.supervisor.alerts.resolve("restarts_exhausted", agent=self._runner.name)

    def lost(self) -> None:
        """Give up a restart that is pending: with its tmux server gone, the agent comes back with the next one."""
        self._forget()
        self.hung = False

    def close(self) -> None:
        """Start nothing any more; what the journal says stays."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget(self) -> None:
        self.pending = False
        self.close()

    def _decide(self, end: End) -> None:
        runner, supervisor = self._runner, self._runner.supervisor
        if not end.asked and supervisor.tmux_died():
            # One incident for all agents, and not this one's.
            self._forget()
            return
        policy = supervisor.config.restart_of(runner.config)
        now = time.time()
        decision = decide_restart(policy, end, self._restarts, now, chance=random.random())  # noqa: S311 - no secret
        if decision.action == "restart":
            supervisor.journal.append(
                "agent.restarting",
                agent=runner.name,
                level="warning",
                delay_s=round(decision.delay_s, 6),
                attempt=decision.attempt,
                reason=end.reason,
            )
            self._restarts = [one for one in self._restarts if one > now - policy.window_s] + [now]
            self.pending = True
            # In a replay it is its turn that is waited for.
            self._arm(now if supervisor.replaying.terminal else now + decision.delay_s)
            return
        self._forget()
        if decision.action == "give_up":
            times = "once" if decision.attempt == 1 else f"{decision.attempt} times"
            message = (
                f"agent {runner.name!r} ended again ({end.reason}) and was restarted {times} within "
                f"{policy.window_s:g} s: it stays down until somebody restarts it"
            )
            runner.error = AgentFailed(message, agent=runner.name, exit_code=end.status, screen=runner.last_screen)
            supervisor.journal.append(
                "agent.failed",
                agent=runner.name,
                level="error",
                error_type="restarts_exhausted",
                error_message=message,
            )
            supervisor.alerts.open(
                "restarts_exhausted",
                message,
                level="error",
                agent=runner.name,
                restarts=decision.attempt,
                reason=end.reason,
            )

    def _cluster_ends(self) -> bool:
        supervisor = self._runner.supervisor
        return supervisor.stopped or supervisor.status_text == "ending" or supervisor.ending.is_set()

    def _arm(self, due_at: float) -> None:
        self.close()
        self._due_at = due_at
        delay_s = max(0.0, due_at - time.time())
        self._timer = asyncio.get_running_loop().call_later(
            delay_s, lambda: self._runner.supervisor.background(self._start_again())
        )

    async def _start_again(self) -> None:
        """Start the program in its pane, unless somebody was faster."""
        runner = self._runner
        try:
            await runner.supervisor.replaying.before_start(runner)
            await runner.supervisor.lifecycle.start_again(runner)
            if not runner.running and runner.supervisor.tmux_died():
                self._forget()
        except (OrchestratorLabError, OSError) as error:
            logger.warning("%s: could not be started again: %s", runner.name, error)
            runner.launching = False
            if isinstance(error, JournalError):
                # Nothing can be said, so nothing is done; what was decided is tried again later.
                self._arm(time.time() + runner.supervisor.config.restart_of(runner.config).backoff_max_s)
            elif self.pending:  # else somebody stopped it meanwhile
                why = str(error).split("\n", 1)[0]
                runner.error = AgentFailed(f"agent {runner.name!r} could not be started again: {why}")
                self._decide(End(hung=self.hung, error=f"could not be started: {why}"))
                if not self.pending:
                    runner.supervisor.conversations.agent_ended(runner.name)
                runner.publish()

    # a new supervisor ---------------------------------------------------------------------------

    def restore(self, events: Iterable[Event]) -> None:
        """Take on what an earlier supervisor had decided, from the journal.

        Parameters
        ----------
        events : iterable of Event
            All events of the run, oldest first.
        """
        runner = self._runner
        ended: Event | None = None
        due_at: float | None = None
        failed: Event | None = None
        starts = 0
        stopping: str | None = None
        for event in events:
            if event.agent != runner.name:
                continue
            if event.event == "agent.added":
                self.served, self._restarts, starts = False, [], 0
            elif event.event == "agent.ready":
                self.served = True
            elif event.event == "agent.started":
                ended, due_at, failed, stopping = None, None, None, None
                starts += 1
            elif event.event == "agent.stopping":
                stopping, due_at = str(event.attributes.get("reason")), None
                if stopping != HUNG:
                    self._restarts = []
            elif event.event == "agent.exited":
                # What ended with the tmux server is brought back with it, whatever the policy says.
                ended = None if event.attributes.get("reason") == "tmux" else event
            elif event.event == "agent.failed":
                failed, due_at = event, None
            elif event.event == "agent.restarting":
                at = datetime.fromisoformat(event.at).timestamp()
                self._restarts.append(at)
                due_at, ended = at + float(event.attributes.get("delay_s", 0.0)), None
        runner.restarts = max(0, starts - 1)
        runner.stopping, self._stopping, self.hung = stopping is not None, stopping, stopping == HUNG
        if failed is not None:
            runner.error = AgentFailed(
                str(failed.attributes.get("error_message")), agent=runner.name, screen=failed.attributes.get("screen")
            )
            if failed.attributes.get("error_type") == "restarts_exhausted":
                return
        if due_at is not None:
            self.pending, self._due_at = True, due_at
        elif ended is not None:
            facts = ended.attributes
            self._undecided = PaneExit(
                runner.pane_id or "", runner.pid or 0, facts.get("exit_code"), facts.get("signal")
            )

    def resume(self) -> None:
        """Go on with what was restored, once the agent is known to be down."""
        runner, lifecycle = self._runner, self._runner.supervisor.lifecycle
        undecided, self._undecided = self._undecided, None
        stopping, self._stopping = self._stopping, None
        if runner.running:
            self.pending = False
            if stopping == HUNG:
                runner.supervisor.background(lifecycle.end_hung(runner))
            elif stopping == "restart":
                runner.stopping = False  # whoever wants it asks again
            elif stopping is not None and not self._cluster_ends():
                runner.supervisor.background(lifecycle.stop([runner.name]))
        elif self.pending and self._cluster_ends():
            self._forget()
        elif self.pending and self._timer is None:
            self._arm(self._due_at)
        elif undecided is not None:
            self.ended(undecided)
            runner.publish()
