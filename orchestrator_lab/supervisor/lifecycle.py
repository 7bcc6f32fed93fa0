"""The life of a cluster's agents: start, stop, restart, join, leave, end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import (
    AgentFailed,
    ClusterExists,
    ClusterStopped,
    ConfigError,
    OrchestratorLabError,
    TmuxError,
)
from orchestrator_lab.runtime import handoff_argv, private_dir, write_private
from orchestrator_lab.supervisor.agent import AgentRunner
from orchestrator_lab.supervisor.delivery import Mailbox
from orchestrator_lab.supervisor.kin import Kin, find_kin, signal_kin, wait_for_kin
from orchestrator_lab.supervisor.supervision import HUNG
from orchestrator_lab.tmux.process import interrupt_missed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator_lab.config import Agent
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.turns import Turn

__all__ = ["Lifecycle"]

#: Seconds that programs have to end after SIGTERM (Claude Code writes its session's end).
_TERM_GRACE_S = 4.0
#: Seconds that a program has to write down the turn that it has just ended.
_RECORD_S = 2.0
#: Seconds after which a program that was asked to end by a key is hung up on, as by a closed terminal.
_HANGUP_AFTER_S = 0.5
#: Seconds in which the children of a program that has ended may end by themselves.
_CHILDREN_END_S = 0.3
#: Seconds that they have after SIGTERM, and after SIGKILL.
_CHILD_TERM_S, _CHILD_KILL_S = 2.0, 2.0
#: Rounds of looking for them: what is being ended may start more.
_CHILD_ROUNDS = 3


class Lifecycle:
    """Starts and ends agents, one change at a time.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor
        self._lock = asyncio.Lock()

    async def launch(self) -> None:
        """Start the configured agents, all at once, and wait until they are ready."""
        self._cluster.status_text = "starting"
        for agent in self._cluster.config.agents:
            self._add_runner(agent).locate()
        self._check_work_dirs()
        await self._cluster.initial.settle()
        for runner in self._cluster.runners.values():
            runner.announce()
        await self._cluster.journal.asynced()
        self._cluster.initial.over()
        await asyncio.gather(*(self.start_pane(runner) for runner in self._cluster.runners.values()))
        await self.wait_ready(list(self._cluster.runners.values()))
        self._cluster.initial.ready()

    async def wait_ready(self, runners: list[AgentRunner]) -> None:
        """Wait until agents take messages; raise AgentFailed for the first that ended instead.

        An agent that asks its user something is no failure: it waits, and its status says for what.
        """
        done = await self._cluster.ledger.until(
            lambda: (
                self._cluster.status_text == "ending"
                or all(
                    one.ready is not None or one.error is not None or one.asks_a_person or one.was_stopped
                    for one in runners
                )
            ),
            self._cluster.config.start_timeout_s,
        )
        if self._cluster.status_text == "ending":
            raise ClusterStopped(f"cluster {self._cluster.config.name!r} was shut down while it started")
        for runner in runners:
            if runner.error is not None:
                raise runner.error
            if runner.was_stopped:
                raise ClusterStopped(f"agent {runner.name!r} was stopped while it started")
        if not done:
            late = [one for one in runners if one.ready is None and one.dialog is None]
            screen = (await self._cluster.screen(late[0])).strip()
            waited = self._cluster.config.start_timeout_s
            raise AgentFailed(
                f"agent {late[0].name!r} was not ready within {waited:g} s (start_timeout_s); its screen shows:\n"
                f"{screen[-2000:]}",
                agent=late[0].name,
            )
        self._cluster.status_text = "running"

    def _add_runner(self, agent: Agent, agent_id: str | None = None) -> AgentRunner:
        resolved = agent.model_copy(update={"gateway": self._cluster.config.gateway_of(agent)})
        runner = AgentRunner(self._cluster, resolved)
        runner.agent_id = agent_id or runner.agent_id
        self._cluster.runners[agent.name] = runner
        self._introduce(runner)
        return runner

    def _introduce(self, runner: AgentRunner) -> None:
        """Give a runner its mailbox and its gateway."""
        self._cluster.mask.add(runner.token)
        self._cluster.mask.add(runner.gateway_secret)
        mailbox = self._cluster.mailboxes[runner.name] = Mailbox(runner)
        mailbox.open()
        self.bind_gateway(runner)

    def adopt_runner(self, agent: Agent, kept: dict[str, Any]) -> AgentRunner:
        """Make a runner for an agent that an earlier supervisor started, with the identity it has."""
        resolved = agent.model_copy(update={"gateway": self._cluster.config.gateway_of(agent)})
        runner = AgentRunner(self._cluster, resolved, token=kept.get("token"))
        runner.restore(kept)
        self._cluster.runners[agent.name] = runner
        self._introduce(runner)
        return runner

    def bind_gateway(self, runner: AgentRunner) -> None:
        """Point the agent's secret address at the model that its configuration names."""
        replaying = self._cluster.replaying
        replaying.check(runner)
        gateway = runner.config.gateway
        if gateway is None or gateway.mode == "none" or replaying.terminal:
            return
        if self._cluster.gateway is None:
            self._cluster.gateway = replaying.gateway()
        key = self._cluster.environ.get(gateway.key_env) if gateway.key_env else None
        if gateway.key_env and key is None and not replaying.replays:
            raise ConfigError(
                f"agent {runner.name!r}: gateway.key_env names {gateway.key_env}, which is not set in the environment "
                "of whoever started the cluster"
            )
        self._cluster.gateway.bind(
            runner.name, runner.gateway_secret, gateway, key=key, places=replaying.places(runner)
        )

    def record_again(self, runner: AgentRunner) -> None:
        """Ask a keeper that may be new to go on recording a pane (one that has the pane changes nothing)."""
        recordings = private_dir(self._cluster.run_dir / "panes")
        cols, rows = self._cluster.config.size_of(runner.config)
        self._cluster.keeper.tell(
            op="record",
            agent=runner.name,
            pane=runner.pane_id,
            cols=cols,
            rows=rows,
            path=str(recordings / f"{runner.name}.cast.zst"),
            title=runner.name,
            # Another agent's token, or the owner's key, may be printed here as well.
            mask=self._cluster.mask.secrets,
            replayed_at=self._cluster.replaying.recorded_at(runner.name),
        )
        runner.looks.follow_again()

    async def start_pane(self, runner: AgentRunner, *, restart: int | None = None) -> None:
        """Start an agent's program in a pane of its own."""
        argv = runner.files.write()
        cols, rows = self._cluster.config.size_of(runner.config)
        runner.pane_id = None
        self.record_again(runner)
        pane = await self._cluster.tmux.run(
            self._cluster.driver.create_pane,
            runner.name,
            argv,
            cwd=self._cluster.config.work_dir_of(runner.config),
            cols=cols,
            rows=rows,
            tags={"agent": runner.name},
            pipe=handoff_argv(self._cluster.folder, runner.name),
        )
        self._cluster.keeper.tell(op="pane", agent=runner.name, pane=pane.pane_id)
        runner.started(pane.pane_id, pane.pid, restart=restart)

    async def record_pane(self, runner: AgentRunner, pane_id: str) -> None:
        """Have the pane's bytes sent to the keeper, and kept."""
        runner.pane_id = pane_id
        self.record_again(runner)
        try:
            await self._cluster.tmux.run(
                self._cluster.driver.pipe, pane_id, handoff_argv(self._cluster.folder, runner.name)
            )
        except TmuxError as error:
            # A program that ended at once has nothing more to record; its end is told like any other.
            if "has exited" not in error.message:
                raise

    async def add(self, agents: list[Agent], ids: list[str | None]) -> list[AgentRunner]:
        """Add agents to the running cluster, started side by side; all of them, or none.

        A client that repeats a request, because a supervisor died over it, gives the same `ids`.
        """
        async with self._lock:
            await self._cluster.rebuild.ensure()
            members = self._cluster.runners
            begun_before = [
                members[agent.name]
                for agent, agent_id in zip(agents, ids, strict=True)
                if agent_id is not None and agent.name in members and members[agent.name].agent_id == agent_id
            ]
            if begun_before and len(begun_before) == len(agents):
                await self.wait_ready(begun_before)
                return begun_before
            for one in begun_before:  # the supervisor died between two of them: they start together again
                await self._forget(one)
            for agent in agents:
                if agent.name in self._cluster.runners or [one.name for one in agents].count(agent.name) > 1:
                    raise ClusterExists(f"cluster {self._cluster.config.name!r} has an agent {agent.name!r} already")
            self._cluster.config = self._cluster.config.model_copy(
                update={"agents": [*self._cluster.config.agents, *agents]}
            )
            runners = [self._add_runner(agent, agent_id) for agent, agent_id in zip(agents, ids, strict=True)]
            try:
                for runner in runners:
                    runner.locate()
                for runner in runners:
                    runner.files.save()  # whoever finds it in the journal finds what it is
                    runner.announce()
                await self._cluster.journal.asynced()
                # Each start is over before one that failed is told: nothing comes up behind it.
                begun = await asyncio.gather(*(self.start_pane(one) for one in runners), return_exceptions=True)
                for outcome in begun:
                    if isinstance(outcome, BaseException):
                        raise outcome
            except OrchestratorLabError:
                for runner in runners:
                    await self._forget(runner)
                raise
        try:
            await self.wait_ready(runners)
        except OrchestratorLabError:
            async with self._lock:
                for runner in runners:
                    await self._forget(runner)
            raise
        return runners

    async def remove(self, name: str) -> None:
        """End an agent and take it out of the cluster."""
        async with self._lock:
            await self._cluster.rebuild.settled()
            runner = self._cluster.runner(name)
            await self._end_agents([runner], "remove")
            await self._forget(runner)

    async def _forget(self, runner: AgentRunner) -> None:
        if self._cluster.runners.get(runner.name) is not runner or self._cluster.ending.is_set():
            return  # somebody was faster
        if runner.running or runner.supervision.pending:
            await self._end_agents([runner], "remove")
        if runner.pane_id is not None:
            with contextlib.suppress(TmuxError):
                await self._cluster.tmux.run(self._cluster.driver.kill_pane, runner.pane_id)
        self._cluster.keeper.tell(op="forget", agent=runner.name)
        self._cluster.mailboxes.pop(runner.name).close()
        for message in self._cluster.ledger.to(runner.name):
            if message.status == "queued":
                self._cluster.ledger.advance(
                    message, "failed", error_type="removed", error_message=f"{runner.name} left the cluster"
                )
        if self._cluster.gateway is not None:
            self._cluster.gateway.unbind(runner.gateway_secret)
        runner.close()
        shutil.rmtree(runner.folder, ignore_errors=True)  # its secrets end with it
        del self._cluster.runners[runner.name]
        self._cluster.config = self._cluster.config.model_copy(
            update={"agents": [agent for agent in self._cluster.config.agents if agent.name != runner.name]}
        )
        self._cluster.journal.append("agent.removed", agent=runner.name)
        self._cluster.alerts.forget(runner.name)

    async def stop(self, names: list[str] | None = None) -> None:
        """End the agents; the tmux session, the journal and the supervisor stay."""
        async with self._lock:
            await self._cluster.rebuild.settled()
            runners = [self._cluster.runner(name) for name in names] if names else list(self._cluster.runners.values())
            await self._end_agents(runners, "stop")
            if names is None:
                self._cluster.stopped = True
                self._cluster.status_text = "stopped"
                self._cluster.journal.append("cluster.stopped")

    async def _end_agents(self, runners: list[AgentRunner], why: str) -> None:
        """End programs, and all that they have started; a restart that is pending is given up."""
        for runner in runners:
            runner.supervision.asked(why)
        if why != HUNG:
            # Claude Code writes a turn down a moment after it told its end: ended before, it would not know of it.
            await self._cluster.ledger.until(lambda: not any(one.amending for one in runners), _RECORD_S)
        # While the programs live their children are known by descent, too.
        pids = {one.agent_id: one.pid if one.running else None for one in runners}
        known = await asyncio.to_thread(find_kin, pids)
        await self._end_programs([one for one in runners if one.running and one.pid is not None])
        await self.end_left([one for one in runners if not one.running], known)

    async def _end_programs(self, alive: list[AgentRunner]) -> None:
        """End programs: asked first, hung up on when they stay, killed when they do not go."""
        if not alive:
            return
        patience = max([_HANGUP_AFTER_S, *await asyncio.gather(*(self._ask_to_end(one) for one in alive))])

        def gone() -> bool:
            return not any(one.running for one in alive)

        for number, wait_s in ((signal.SIGHUP, patience), (signal.SIGTERM, _TERM_GRACE_S), (signal.SIGKILL, 1.0)):
            if await self._cluster.ledger.until(gone, wait_s):
                return
            for runner in alive:
                if runner.running:
                    _signal_group(runner, number)
        if not await self._cluster.ledger.until(gone, 5.0):
            for runner in alive:
                if runner.running:
                    self._cluster.journal.append(
                        "note", agent=runner.name, level="error", text=f"process {runner.pid} does not end"
                    )

    async def end_left(self, runners: list[AgentRunner], known: Mapping[str, list[Kin]] | None = None) -> None:
        """End what programs have left running: their children, wherever they went."""
        agents = {one.agent_id: one for one in runners}
        left = {kin: identity for identity in agents for kin in (known or {}).get(identity, ())}
        told: set[Kin] = set()

        def tell(kin: Collection[Kin], action: str) -> None:
            for identity, runner in agents.items():
                if its := [one for one in kin if left[one] == identity]:
                    self._tell_left(runner, its, action)

        async def those_after(wait_s: float) -> None:
            living = set(await asyncio.to_thread(wait_for_kin, left, wait_s))
            for gone in [one for one in left if one not in living]:
                del left[gone]

        await those_after(_CHILDREN_END_S)
        for number, wait_s in ((signal.SIGTERM, _CHILD_TERM_S), *[(signal.SIGKILL, _CHILD_KILL_S)] * _CHILD_ROUNDS):
            found = await asyncio.to_thread(find_kin, dict.fromkeys(agents))
            left.update({kin: identity for identity, its in found.items() for kin in its})
            if not left:
                return
            tell([one for one in left if one not in told], "ended")
            told.update(left)
            await asyncio.to_thread(signal_kin, left, number)
            if number == signal.SIGTERM:  # one that is stopped takes it only when it goes on
                await asyncio.to_thread(signal_kin, left, signal.SIGCONT)
            await those_after(wait_s)
        tell(left, "survived")

    async def tell_left(self, runner: AgentRunner) -> None:
        """Say what still runs of a program that has ended by itself, and that nobody starts again.

        It may be at work that somebody waits for: it is ended with the agent, or before its next start.
        """
        await asyncio.sleep(_CHILDREN_END_S)
        async with self._lock:
            if runner.running or runner.supervision.pending or self._cluster.status_text == "ending":
                return
            if runner.stopping or self._cluster.runners.get(runner.name) is not runner:
                return
            found = await asyncio.to_thread(find_kin, {runner.agent_id: None})
            if found[runner.agent_id]:
                self._tell_left(runner, found[runner.agent_id], "kept")

    def _tell_left(self, runner: AgentRunner, kin: list[Kin], action: str) -> None:
        self._cluster.journal.append(
            "agent.left",
            agent=runner.name,
            level="error" if action == "survived" else "warning",
            source="process",
            processes=[one.to_dict() for one in sorted(kin, key=lambda one: one.pid)],
            action=action,
        )

    async def _ask_to_end(self, runner: AgentRunner) -> float:
        """Ask a program to end in its own way; return the seconds that it should be given."""
        await self._cluster.replaying.at_exit(runner)
        stop = getattr(runner.config, "stop", None)
        played = self._cluster.replaying.terminal
        if stop is None or runner.pane_id is None or runner.ready is None or played:
            _signal_group(runner, signal.SIGTERM)
            return _TERM_GRACE_S
        try:
            if stop.text is not None:
                await self._cluster.tmux.run(self._cluster.driver.paste, runner.pane_id, stop.text)
                await self._cluster.tmux.run(self._cluster.driver.enter, runner.pane_id)
            else:
                await self._cluster.tmux.run(self._cluster.driver.press, runner.pane_id, stop.key or "C-d")
        except TmuxError:
            return 0.0
        return float(stop.timeout_s) if "stop" in runner.config.model_fields_set else _HANGUP_AFTER_S

    async def restart(self, names: list[str] | None = None) -> None:
        """Start ended agents again, end and start living ones; their sessions and the run go on."""
        async with self._lock:
            runners = [self._cluster.runner(name) for name in names] if names else list(self._cluster.runners.values())
            await self._cluster.rebuild.ensure()
            await self._end_agents(runners, "restart")
            self._cluster.stopped = False
            if names is None:
                self._cluster.journal.append("cluster.restarted")
            for runner in runners:
                await self._start_anew(runner)
        # Nobody else has to wait for that, least of all whoever wants to stop one of them.
        await self.wait_ready(runners)

    async def start_again(self, runner: AgentRunner) -> None:
        """Start an agent's program that ended by itself, unless somebody was faster."""
        async with self._lock:
            if runner.running or not runner.supervision.pending or self._cluster.tmux_died():
                return
            await self.end_left([runner])
            await self._start_anew(runner)

    async def end_hung(self, runner: AgentRunner) -> None:
        """End a program that makes no progress; its supervision starts it again."""
        async with self._lock:
            if runner.running:
                await self._end_agents([runner], HUNG)

    async def _start_anew(self, runner: AgentRunner) -> None:
        runner.restarts += 1
        try:
            panes = await self._cluster.tmux.run(self._cluster.driver.panes)
            if runner.pane_id not in {pane.pane_id for pane in panes}:  # lost with a tmux server, or closed by hand
                await self.start_pane(runner, restart=runner.restarts)
                return
            argv = runner.files.write()
            self.record_again(runner)
            pane = await self._cluster.tmux.run(
                self._cluster.driver.respawn,
                runner.pane_id,
                argv,
                cwd=self._cluster.config.work_dir_of(runner.config),
                pipe=handoff_argv(self._cluster.folder, runner.name),
            )
        except BaseException:
            runner.restarts -= 1
            runner.launching = False
            raise
        runner.started(pane.pane_id, pane.pid, restart=runner.restarts)

    async def interrupt(self, name: str, *, source: str = "human") -> None:
        """Interrupt an agent's turn, as a person would; `source` says who wants it."""
        runner = self._cluster.runner(name)
        if not runner.running or runner.pane_id is None:
            raise ClusterStopped(f"agent {name!r} is {runner.state}; there is nothing to interrupt")
        turn = await self._press_interrupt(runner, "interrupted", source)
        if turn is None:
            return
        for _ in range(20):
            if (
                await self._cluster.ledger.until(lambda: runner.turn is not turn, 0.25)
                or await runner.turns.reconcile()
            ):
                return
            if not runner.adapter.reports and runner.lives() and interrupt_missed(int(runner.pid or 0)):
                # Typed in the instant before a shell's command took the terminal, it reached the shell only.
                await self._press_interrupt(runner, "interrupted again", "process")

    async def _press_interrupt(self, runner: AgentRunner, text: str, source: str) -> Turn | None:
        """Press the key, once the journal says so; return the turn that it is for."""
        name, pane_id, pid = runner.name, runner.pane_id, runner.pid
        self._cluster.journal.append("note", agent=name, text=text, source=source)
        await self._cluster.journal.asynced()
        # It may have ended while the disk was written to, and another program may have its pane.
        if pane_id is None or not runner.running or (runner.pane_id, runner.pid) != (pane_id, pid):
            raise ClusterStopped(f"agent {name!r} has just ended; there is nothing to interrupt", agent=name)
        turn = runner.turn
        if turn is not None:
            turn.interrupted = True
        await self._cluster.tmux.run(self._cluster.driver.press, pane_id, runner.adapter.interrupt_key)
        return turn

    async def shutdown(self, status: str = "completed") -> None:
        """End everything: agents, tmux, run."""
        async with self._lock:
            if self._cluster.ending.is_set():
                return
            self._cluster.replaying.ends()
            self._cluster.status_text = "ending"
            self._cluster.end_status = status
            # Whoever comes after this supervisor, if it is killed now, goes on with the end.
            write_private(self._cluster.folder / "ending", status)
            self._cluster.ledger.poke()
            await self._cluster.rebuild.settled()
            runners = list(self._cluster.runners.values())
            await self._end_agents(runners, "shutdown")
            # What was used by a turn that was cut short is told before the run's end.
            await self._cluster.ledger.until(lambda: not any(one.amending for one in runners), _RECORD_S)
            for mailbox in self._cluster.mailboxes.values():
                mailbox.close()
            await asyncio.gather(*(one.files.keep_transcript() for one in self._cluster.runners.values()))
            self._cluster.ending.set()
            self._cluster.ledger.poke()

    def _check_work_dirs(self) -> None:
        for runner in self._cluster.runners.values():
            folder = self._cluster.config.work_dir_of(runner.config)
            if not folder.is_dir():
                raise ConfigError(f"agent {runner.name!r}: its work folder {folder} does not exist")


def _signal_group(runner: AgentRunner, number: int) -> None:
    """Signal a pane's process and its group (tmux makes each pane's process a session leader)."""
    if runner.pid is None or not runner.lives():
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(runner.pid, number)
        if number == signal.SIGTERM:  # one that is stopped takes it only when it goes on
            os.killpg(runner.pid, signal.SIGCONT)
