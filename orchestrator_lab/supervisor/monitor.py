"""Watches the agents of a cluster: what their processes cost, and what is worth an alert.

What the journal tells is acted on when it tells it, and what time alone changes (an agent that stays idle, a turn that
does not end) by one timer at the next due instant. Only what nothing tells of is looked at again and again: processes,
and a journal that takes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError, JournalError
from orchestrator_lab.runtime import read_record
from orchestrator_lab.supervisor.figures import Figures
from orchestrator_lab.supervisor.health import AGENT_RULES, Finding, Health, judge_agent, judge_stopped
from orchestrator_lab.supervisor.sampling import Reading, Sample, differs, own_cost, percent, read_tree

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["Monitor"]

logger = logging.getLogger(__name__)

#: An agent that is idle and uses less than this share of a core, in percent, is looked at less often.
_QUIET_PERCENT = 1.0
#: Seconds between two looks at the processes of such an agent.
_QUIET_LOOK_S = 60.0
#: Seconds after which a sample is journalled although nothing changed: of one at work, and of a quiet one.
_SAMPLE_S, _QUIET_SAMPLE_S = 60.0, 600.0
#: Events after which a rule may say something else.
_TELLING = frozenset(
    {
        "agent.state",
        "agent.started",
        "agent.stopping",
        "agent.restarting",
        "agent.exited",
        "agent.failed",
        "agent.removed",
        "turn.started",
        "turn.ended",
        "dialog.opened",
        "dialog.answered",
        # A policy could not give its answer.
        "note",
        "cluster.stopped",
        "tmux.lost",
    }
)


class _Cost:
    """What the processes of one agent cost, as far as it was looked at."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.reading: Reading | None = None
        self.sample: Sample | None = None
        self.kept: Sample | None = None
        self.kept_at = 0.0
        self.looked_at = 0.0


class Monitor:
    """The watch over one cluster.

    Parameters
    ----------
    supervisor : Supervisor
        Its journal is followed; its alerts are opened and resolved.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._agents: dict[str, Health] = {}
        self._costs: dict[str, _Cost] = {}
        self.figures = Figures()
        self._dues: dict[str, float | None] = {}
        self._told: set[str] = set()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._paused = False
        supervisor.journal.subscribe(self._event)

    def resume(self) -> None:
        """Ask all rules, once an earlier supervisor's agents are adopted and its events were taken in."""
        self._told.update(self._agents)
        self._judge_soon()

    def start(self) -> None:
        """Begin to look at processes."""
        if self._supervisor.config.alerts.enabled and self._looking is None:
            self._looking = asyncio.create_task(self._look_on(), name="monitor")

    @property
    def mode(self) -> str:
        """``on``, ``paused`` by somebody, or ``off`` by the configuration."""
        if not self._supervisor.config.alerts.enabled:
            return "off"
        return "paused" if self._paused else "on"

    def pause(self) -> None:
        """Look at no processes and ask no rules until :meth:`go_on`, also after a restart of the supervisor."""
        if self.mode == "on":
            self._supervisor.journal.append("monitoring.paused", source="human")

    def go_on(self) -> None:
        """Watch again, and ask all rules at once.

        Raises
        ------
        ConfigError
            When the configuration has switched it off.
        """
        if self.mode == "off":
            raise ConfigError(
                f"monitoring of cluster {self._supervisor.config.name!r} is switched off by its configuration "
                "(alerts.enabled): start the cluster with it on"
            )
        if self._paused:
            self._supervisor.journal.append("monitoring.resumed", source="human")
            self._told.update(self._agents)
            self._judge_soon()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    # what clients see ---------------------------------------------------------------------------

    def describe(self, name: str) -> dict[str, Any]:
        """Return what is known of an agent's health and cost; None where nothing is known yet."""
        health, cost = self._agents.get(name), self._costs.get(name)
        runner = self._supervisor.runners.get(name)
        sample = cost.sample if cost is not None and runner is not None and runner.running else None
        now = self._supervisor.journal.now_s
        quiet_s = None if health is None else now - health.active_at
        if quiet_s is not None and runner is not None and runner.last_activity:
            quiet_s = min(quiet_s, time.monotonic() - runner.last_activity)
        known = health is not None and health.state is not None
        return {
            "state_s": round(now - health.state_since, 3) if health is not None and known else None,
            "last_activity_s": None if quiet_s is None else round(max(0.0, quiet_s), 3),
            "turns": 0 if health is None else health.turns,
            # Not 0 where no program has told any.
            "input_tokens": self.figures.tokens.get((name, "input")),
            "output_tokens": self.figures.tokens.get((name, "output")),
            "cpu_percent": None if sample is None else sample.cpu_percent,
            "rss_bytes": None if sample is None else sample.rss_bytes,
            "children": None if sample is None else sample.children,
        }

    def totals(self) -> dict[str, Any]:
        """Return the figures of the whole cluster."""
        runners = self._supervisor.runners.values()
        described = [self.describe(runner.name) for runner in runners]
        cpu = [one["cpu_percent"] for one in described if one["cpu_percent"] is not None]
        rss = [one["rss_bytes"] for one in described if one["rss_bytes"] is not None]
        tokens: Counter[str] = Counter()
        for (_, direction), count in self.figures.tokens.items():
            tokens[direction] += count
        return {
            "states": dict(Counter(runner.state for runner in runners)),
            "turns": sum(one["turns"] for one in described),
            "restarts": sum(runner.restarts for runner in runners),
            "queued": sum(box.waiting for box in self._supervisor.mailboxes.values()),
            "messages": dict(+self.figures.messages),
            "input_tokens": tokens["input"],
            "output_tokens": tokens["output"],
            "cpu_percent": round(sum(cpu), 1) if cpu else None,
            "rss_bytes": sum(rss) if rss else None,
        }

    def measured(self) -> dict[str, Any]:
        """Return the figures of agents, alerts, messages and of the lab's own processes."""
        supervisor = self._supervisor
        agents = [
            {"name": one.name, "kind": one.config.kind, "state": one.state, "restarts": one.restarts}
            | {"queued": supervisor.mailboxes[one.name].waiting if one.name in supervisor.mailboxes else 0}
            | self.describe(one.name)
            for one in supervisor.runners.values()
        ]
        keeper = read_record(supervisor.folder)
        pids = {"supervisor": os.getpid(), "keeper": keeper.keeper_pid if keeper is not None else None}
        return {
            "agents": agents,
            "alerts": dict(Counter(alert.level for alert in supervisor.alerts.open_alerts)),
            "processes": {name: own_cost(pid) for name, pid in pids.items()},
            **self.figures.to_dict(),
        }

    # what the journal tells ---------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        self.take(event)
        if event.event not in _TELLING:
            return
        # Nothing may be journalled from within the journal: others are to hear of this event first.
        self._judge_soon()
        if event.agent is None:
            return
        cost = self._costs.get(event.agent)
        if cost is not None and event.event == "agent.state":
            cost.looked_at = 0.0
        self._told.add(event.agent)

    def take(self, event: Event) -> None:
        """Take in an event without acting on it, such as those of an earlier supervisor.

        Parameters
        ----------
        event : Event
            The next one of the journal.
        """
        self.figures.take(event)
        if event.event in {"monitoring.paused", "monitoring.resumed"}:
            self._paused = event.event == "monitoring.paused"
        elif event.event == "cluster.stopped":
            # Whoever stops all of them does not miss those that had ended before.
            for health in self._agents.values():
                health.fell = False
        elif event.event == "tmux.lost":
            # One incident with an alert of its own, not as many as there are agents.
            for name in event.attributes.get("agents", ()):
                self._agents.setdefault(name, Health(name)).lost()
        if event.agent is None:
            return
        if event.event == "agent.removed":
            self._agents.pop(event.agent, None)
            self._dues.pop(event.agent, None)
            return
        self._agents.setdefault(event.agent, Health(event.agent)).take(event)

    # the rules ----------------------------------------------------------------------------------

    def _judge_soon(self) -> None:
        if not self._scheduled and self.mode == "on":
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._judge)

    def _judge(self) -> None:
        """Have the rules look at all agents of which something was told, or for which the time has come."""
        self._scheduled = False
        supervisor = self._supervisor
        if self._paused or supervisor.status_text == "ending" or supervisor.ending.is_set():
            return
        now = supervisor.journal.now_s
        due = {name for name, at in self._dues.items() if at is not None and at <= now}
        told, self._told = self._told | due, set()
        config = supervisor.config
        for name in told & set(self._agents):
            runner = supervisor.runners.get(name)
            if runner is None:
                continue
            found, self._dues[name] = judge_agent(
                self._agents[name],
                config.alerts,
                now,
                asks=runner.running and runner.asks_a_person and runner.dialogs.policy_answers != runner.dialog_id,
                calm_s=config.restart_of(runner.config).window_s,
                cluster=config.name,
            )
            for rule in AGENT_RULES:
                self._say(rule, found[rule], name)
        self._say("stopped_agents", judge_stopped(self._agents.values(), config.alerts.stopped_agents, config.name))
        self._arm(now)

    def _say(self, rule: str, finding: Finding | None, agent: str | None = None) -> None:
        """Open or resolve; what a person has cleared stays so until it is graver, or was gone."""
        alerts = self._supervisor.alerts
        if finding is None:
            alerts.resolve(rule, agent)
        elif not alerts.holds_back(rule, agent, finding.level):
            alerts.open(rule, finding.message, level=finding.level, agent=agent, **finding.facts)

    def _arm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((at for at in self._dues.values() if at is not None), default=None)
        if due is not None:
            # A little late rather than a little early: the clock is rounded.
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now) + 0.002, self._judge)

    # processes and the disk ---------------------------------------------------------------------

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(self._supervisor.config.alerts.check_s)
            if self._paused:
                self._supervisor.alerts.catch_up()
                continue
            try:
                await self._look()
            except JournalError as error:
                logger.warning("what processes cost is not journalled: %s", error)
            except Exception:
                logger.exception("a look at the processes failed")
            self._check_journal()

    async def _look(self) -> None:
        """Read the process trees that are due, off the loop, and journal what is worth it."""
        now = time.monotonic()
        for gone in set(self._costs) - set(self._supervisor.runners):
            del self._costs[gone]
        due: dict[str, int] = {}
        for name, runner in self._supervisor.runners.items():
            cost = self._costs.setdefault(name, _Cost())
            if runner.pid != cost.pid:
                self._costs[name] = cost = _Cost()
                cost.pid = runner.pid
            if runner.running and runner.pid is not None and now >= cost.looked_at + self._pause_s(name, cost):
                due[name] = runner.pid
        if not due:
            return
        readings = await asyncio.to_thread(lambda: {name: read_tree(pid) for name, pid in due.items()})
        for name, reading in readings.items():
            now_there, cost = self._supervisor.runners.get(name), self._costs[name]
            if reading is None or now_there is None or not now_there.running or now_there.pid != due[name]:
                continue
            cost.sample = Sample(percent(cost.reading, reading), reading.rss_bytes, reading.children)
            cost.reading, cost.looked_at = reading, reading.at_s
            wait_s = _QUIET_SAMPLE_S if self._quiet(name, cost) else _SAMPLE_S
            if differs(cost.kept, cost.sample) or reading.at_s - cost.kept_at >= wait_s:
                self._supervisor.journal.append(
                    "process.sample",
                    agent=name,
                    source="process",
                    cpu_percent=cost.sample.cpu_percent,
                    rss_bytes=cost.sample.rss_bytes,
                    children=cost.sample.children,
                )
                cost.kept, cost.kept_at = cost.sample, reading.at_s

    def _quiet(self, name: str, cost: _Cost) -> bool:
        runner = self._supervisor.runners[name]
        used = cost.sample.cpu_percent if cost.sample is not None else None
        return runner.state == "idle" and used is not None and used < _QUIET_PERCENT

    def _pause_s(self, name: str, cost: _Cost) -> float:
        """Return the seconds between two looks at an agent's processes; a second look follows soon on a first."""
        return _QUIET_LOOK_S if self._quiet(name, cost) else 0.0

    def _check_journal(self) -> None:
        """Say when nothing can be journalled, and therefore nothing is delivered."""
        supervisor = self._supervisor
        supervisor.alerts.catch_up()
        halted = (box.halted for box in supervisor.mailboxes.values() if box.halted)
        why = supervisor.journal.problem or next(halted, None)
        if why is not None:
            self._say("disk", Finding("critical", why, {"path": str(supervisor.journal.path)}))
        elif not supervisor.alerts.behind:
            self._say("disk", None)
