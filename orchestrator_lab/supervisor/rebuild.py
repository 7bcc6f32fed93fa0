"""The end of the tmux server is one incident: settled once, and the house is built again with all who lived there.

The agents did not fail, so no restart policy is asked: who was running is started again, with its own conversation, and
who had been stopped stays stopped. What this module knows stands in the journal (``tmux.lost``, ``agent.started``,
``tmux.rebuilt``), so that a supervisor that is killed at any line of it has a successor that carries on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator_lab.agents.base import Accepted, TurnEnded
from orchestrator_lab.errors import AgentFailed, JournalError, OrchestratorLabError, TmuxError
from orchestrator_lab.supervisor.kin import find_kin, wait_for_kin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator_lab.agents.base import Typed
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message

__all__ = ["Incident", "Rebuild", "by_record", "last_incident", "pause_before", "settle_by_record"]

logger = logging.getLogger(__name__)

#: A server that was lost this often within so many seconds is not started again.
_MOST_LOSSES = 5
_WINDOW_S = 120.0
#: Pause before the second rebuild within the window, doubled for each further one, in seconds.
_PAUSE_S = 1.0
#: Longest wait for deliveries that were cut off to come to their end, in seconds.
_QUIET_S = 5.0
#: An end that nobody asked for and that was told this shortly before the server's counts as part of it, in seconds.
_SAME_MOMENT_S = 1.0
#: Seconds that programs have to end after their terminal has hung up on them.
_HANGUP_S = 1.5
#: A message that became uncertain this long after its claim may have done so by the loss itself, in seconds.
_RECENT_S = 30.0
#: Pause until a journal that takes nothing is tried again, in seconds.
_ROOM_S = 2.0
_RULE = "tmux_lost"


def pause_before(losses: Sequence[float], now: float) -> float | None:
    """Return how long to wait before the server is started again.

    Parameters
    ----------
    losses : sequence of float
        Epoch seconds at which it was lost, the latest included.
    now : float
        Epoch seconds.

    Returns
    -------
    float or None
        Seconds; nothing after a first loss. None: it was lost too often, and is given up.

    Examples
    --------
    >>> [pause_before(list(range(n)), 10.0) for n in range(1, 6)]
    [0.0, 1.0, 2.0, 4.0, None]
    >>> pause_before([0.0, 1.0, 2.0, 3.0, 4.0], 1000.0)
    0.0
    """
    recent = sum(now - at < _WINDOW_S for at in losses)
    if recent >= _MOST_LOSSES:
        return None
    return 0.0 if recent <= 1 else _PAUSE_S * 2.0 ** (recent - 2)


@dataclass(frozen=True, slots=True)
class Incident:
    """The last loss of the house that a journal tells of.

    Parameters
    ----------
    event : str
        ``tmux.lost`` or ``run.resumed``.
    pid : int or None
        The server that was lost.
    at : float
        Epoch seconds.
    agents : tuple of str
        Who was running then and has not been started again since.
    open : bool
        False once the house was rebuilt or given up.
    given_up : bool
        Whether it was given up.
    place : int
        Its place among the events, from 0.
    """

    event: str
    pid: int | None
    at: float
    agents: tuple[str, ...]
    open: bool
    given_up: bool
    place: int = 0


def last_incident(events: Iterable[Event]) -> tuple[Incident | None, list[float]]:
    """Return the last loss that a journal tells of, and when each was.

    Parameters
    ----------
    events : iterable of Event
        All events of the run.

    Returns
    -------
    tuple of (Incident or None, list of float)
        None when there was none; epoch seconds of all losses of a server since it was last given up.
    """
    found: Incident | None = None
    waiting: dict[str, None] = {}
    losses: list[float] = []
    for place, event in enumerate(events):
        if event.event in {"tmux.lost", "run.resumed"}:
            at = datetime.fromisoformat(event.at).timestamp()
            pid = event.attributes.get("pid")
            waiting = dict.fromkeys(event.attributes.get("agents") or ())
            found = Incident(event.event, pid, at, (), open=True, given_up=False, place=place)
            if event.event == "tmux.lost":
                losses.append(at)
        elif found is None:
            continue
        elif event.event in {"agent.started", "agent.failed", "agent.removed"} and event.agent:
            waiting.pop(event.agent, None)
        elif event.event == "tmux.rebuilt":
            waiting = {}
            found = replace(found, open=False)
        elif event.event == "tmux.given_up":
            found = replace(found, open=False, given_up=True)
            losses = []
        elif event.event == "cluster.stopped":
            waiting = {}
    return (None if found is None else replace(found, agents=tuple(waiting))), losses


def by_record(runner: AgentRunner, message: Message, typed: Typed) -> bool:
    """Settle a message whose bytes may have reached the pane from the program's own record."""
    if runner.transcript is not None:
        found = runner.adapter.transcript(runner.transcript, prompt=typed.expected, since=message.claimed_at)
        runner.apply([piece for piece in found if isinstance(piece, Accepted | TurnEnded)])
    return message.status not in {"claimed", "written"}


async def settle_by_record(supervisor: Supervisor, runner: AgentRunner) -> None:
    """Take in what an agent's own record says of messages and turn, when there is no pane any more."""
    for message in supervisor.ledger.to(runner.name):
        just_given_up = message.status == "uncertain" and time.time() - message.claimed_at < _RECENT_S
        if message.status in {"claimed", "written"} or just_given_up:
            typed = runner.adapter.typed(message.text)
            message.expected = typed.expected
            by_record(runner, message, typed)
    if runner.turn is not None:
        await runner.turns.reconcile()


class Rebuild:
    """Watches over the cluster's tmux server, and builds the house again when it ends.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        #: True while there is no tmux server to type into.
        self.gone = False
        self._losses: list[float] = []
        #: Agents whose first start the loss has cut off.
        self._new: set[str] = set()
        #: A loss that is not dealt with yet: the server's pid, and why it could not be started if that is the reason.
        self._news: tuple[int | None, str | None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether the house is being rebuilt."""
        return self._task is not None and not self._task.done()

    async def settled(self) -> None:
        """Return once nothing is being rebuilt."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def ensure(self) -> None:
        """See that there is a house, also after it was given up: a person asks for it."""
        await self.settled()
        if self.gone and not self._ending:
            since = time.time()
            self._losses = []
            await self._open()
            self._built([], since)

    # the loss -----------------------------------------------------------------------------------

    def server_lost(self, pid: int | None, error: str | None = None) -> None:
        """Take note of the server's end, told once for each server, or that none could be started."""
        self.gone = True
        if not self._ending and self._supervisor.replaying.server_lost():
            return
        self._news = (pid, error)
        self._supervisor.ledger.poke()
        if not self.under_way:
            self._task = asyncio.create_task(self._run(), name="rebuild")

    def carry_on(self, names: Sequence[str], losses: list[float], since: float, *, new: Iterable[str] = ()) -> None:
        """Go on with a rebuild that an earlier supervisor began, or left to this one."""
        self._losses, self._new = losses, set(new)
        self._task = asyncio.create_task(self._run(names, since), name="rebuild")

    async def _run(self, names: Sequence[str] | None = None, since: float = 0.0) -> None:
        pid: int | None = None
        try:
            while names is not None or self._news is not None:
                try:
                    if names is None and self._news is not None:
                        (pid, error), since = self._news, time.time()
                        names = () if self._ending else self.announce(pid, error)
                        self._news = None
                        await self._supervisor.journal.asynced()
                        await self._clear_away(names)
                    if self._ending:
                        return
                    await self._bring_back(names or (), since)
                except JournalError:
                    # What cannot be journalled must not be done: it is begun anew when there is room again.
                    logger.exception("the rebuild waits for the journal")
                    self._news, self.gone = self._news or (pid, None), True
                    with contextlib.suppress(TmuxError):
                        await self._supervisor.tmux.run(self._supervisor.driver.kill)
                    await self._supervisor.ledger.until(lambda: self._ending, _ROOM_S)
                names = None
        except Exception as error:
            logger.exception("the rebuild failed")
            self._give_up(f"the rebuild failed inside the supervisor: {error!r}")
        finally:
            self._supervisor.ledger.poke()

    @property
    def _ending(self) -> bool:
        return self._supervisor.status_text == "ending" or self._supervisor.ending.is_set()

    def announce(self, pid: int | None, error: str | None = None, names: Sequence[str] | None = None) -> list[str]:
        """Journal the loss and raise the one alert; return who is to be started again."""
        supervisor = self._supervisor
        if names is None:
            names = [one.name for one in supervisor.runners.values() if one.returning or self._ran(one)]
        self._losses.append(time.time())
        supervisor.journal.append(
            "tmux.lost",
            level="critical",
            source="process",
            pid=pid,
            agents=list(names),
            losses=len(self._losses),
            error_message=error,
        )
        who = f"with {', '.join(names)}" if names else "with no agent running"
        supervisor.alerts.open(
            _RULE,
            f"the tmux server of this cluster ended, {who}; it is started again, and they go on with their "
            "conversations",
            level="critical",
            pid=pid,
        )
        return list(names)

    @staticmethod
    def _ran(runner: AgentRunner) -> bool:
        """Tell whether an agent was running until the server ended."""
        if runner.running:
            return not runner.stopping or runner.supervision.hung
        if runner.supervision.pending:
            return True
        just_now = runner.ended_at is not None and time.monotonic() - runner.ended_at < _SAME_MOMENT_S
        return just_now and not runner.stopping and runner.error is None

    async def _clear_away(self, names: Sequence[str]) -> None:
        """End what survived the server, and settle what was in flight."""
        supervisor = self._supervisor
        runners = list(supervisor.runners.values())
        for runner in runners:
            runner.pane_id = None
        await end_survivors(supervisor, [one for one in runners if one.running or one.name in names])
        for runner in runners:
            runner.files.read_reports()
            await settle_by_record(supervisor, runner)
        for runner in runners:
            runner.returning = runner.name in names
        for runner in runners:
            runner.lost()
        # A delivery that was cut off settles its message itself; none may meet the new server, whose panes have the
        # old ones' ids.
        boxes = [supervisor.mailboxes[one.name] for one in runners if one.name in supervisor.mailboxes]
        if not await supervisor.ledger.until(lambda: not any(box.delivering for box in boxes), _QUIET_S):
            for box in boxes:
                box.start_over()
        supervisor.forget_exits()
        await asyncio.gather(*(one.files.keep_transcript() for one in runners))

    # the new house ------------------------------------------------------------------------------

    async def _bring_back(self, names: Sequence[str], since: float) -> None:
        supervisor = self._supervisor
        if self.gone:
            pause = pause_before(self._losses, time.time())
            if pause is None:
                self._give_up()
                return
            if await supervisor.ledger.until(lambda: self._ending, pause) or self._ending:
                return
            try:
                await self._open()
            except OrchestratorLabError as error:
                logger.warning("no tmux server could be started: %s", error)
                self.server_lost(None, error.message)
                return
        runners = [supervisor.runners[name] for name in names if name in supervisor.runners]
        # Those that a person has started meanwhile are there already.
        runners = [one for one in runners if not one.running and not one.launching]
        if runners:
            supervisor.status_text = "starting"
        await asyncio.gather(*(self._start(one, since) for one in runners))
        await supervisor.ledger.until(
            lambda: (
                self._ending
                or self.gone
                # One that could not be started since the server ended again is not done: its loss is told in a moment.
                or all(one.ready is not None or one.asks_a_person or one.gone for one in runners)
            ),
            supervisor.config.start_timeout_s,
        )
        if not self._ending and not self.gone and supervisor.driver.alive:
            self._built(runners, since)

    async def _open(self) -> None:
        """Start the new server on the old socket."""
        supervisor = self._supervisor
        await supervisor.tmux.run(supervisor.driver.close)
        await supervisor.move_in(await supervisor.new_driver())
        # It may have ended already, while it was being moved into.
        self.gone = self._news is not None

    async def _start(self, runner: AgentRunner, since: float) -> None:
        supervisor = self._supervisor
        gap_s = round(max(0.0, time.time() - since), 6)
        runner.restarts += runner.name not in self._new
        self._new.discard(runner.name)
        session, used = runner.session_id, runner.session_used
        try:
            await supervisor.lifecycle.start_pane(runner, restart=runner.restarts or None)
        except OrchestratorLabError as error:
            runner.launching = False
            if isinstance(error, TmuxError) and not supervisor.driver.alive:
                return  # lost again: the next round starts it
            self._failed(runner, error.message)
            return
        supervisor.keeper.tell(op="mark", agent=runner.name, label=f"recording gap: no tmux server for {gap_s:.1f} s")
        supervisor.journal.append("recording.gap", agent=runner.name, level="warning", gap_s=gap_s, reason="tmux")
        if used and runner.session_id != session:
            supervisor.journal.append(
                "note",
                agent=runner.name,
                level="warning",
                source="transcript",
                text=f"its program ended before it had recorded session {session}: it begins a new conversation",
            )

    def _built(self, runners: Sequence[AgentRunner], since: float) -> None:
        supervisor = self._supervisor
        failed = [one.name for one in runners if not one.running]
        supervisor.journal.append(
            "tmux.rebuilt",
            level="warning" if failed else "info",
            pid=supervisor.driver.pid,
            agents=[one.name for one in runners],
            failed=failed or None,
            gap_s=round(max(0.0, time.time() - since), 6),
        )
        supervisor.alerts.resolve(_RULE)
        supervisor.status_text = "stopped" if supervisor.stopped else "running"

    def _failed(self, runner: AgentRunner, why: str, error_type: str = "AgentFailed") -> None:
        supervisor = self._supervisor
        runner.returning = False
        runner.error = AgentFailed(f"agent {runner.name!r} was not started again: {why}", agent=runner.name)
        supervisor.journal.append(
            "agent.failed",
            agent=runner.name,
            level="error",
            error_type=error_type,
            error_message=runner.error.message.split("\n", 1)[0],
        )
        supervisor.conversations.agent_ended(runner.name)
        runner.publish()

    def _give_up(self, why: str | None = None) -> None:
        """Leave it at that: a server that ends again and again is not started in a circle."""
        supervisor = self._supervisor
        why = why or f"it ended {len(self._losses)} times within {_WINDOW_S:g} s"
        supervisor.journal.append(
            "tmux.given_up", level="critical", losses=len(self._losses), window_s=_WINDOW_S, error_message=why
        )
        supervisor.alerts.open(
            _RULE,
            f"the tmux server of this cluster is not started again: {why}; find out what ends it, then run: "
            f"orchestrator-lab restart {supervisor.config.name}",
            level="critical",
        )
        for runner in supervisor.runners.values():
            if runner.returning:
                self._failed(runner, f"the tmux server is gone ({why})", _RULE)
        supervisor.status_text = "failed"


async def end_survivors(supervisor: Supervisor, runners: Iterable[AgentRunner]) -> None:
    """End what lives on of old panes without a terminal: programs that do not mind, and what they have started."""
    agents = list(runners)

    def wait() -> None:
        found = find_kin({one.agent_id: None for one in agents})
        wait_for_kin([kin for its in found.values() for kin in its], _HANGUP_S)

    # Their terminal hung up on them: most end by that, in their own way.
    await asyncio.to_thread(wait)
    await supervisor.lifecycle.end_left(agents)
