"""The supervisor: what is true of one cluster, and the only one who changes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab import __version__
from orchestrator_lab.config import ClusterConfig, instructions_text, known_secrets
from orchestrator_lab.errors import (
    AgentNotFound,
    ClusterStopped,
    ConfigError,
    DeliveryPaused,
    ExchangeTimeout,
    JournalError,
    OrchestratorLabError,
)
from orchestrator_lab.initial.walking import CREATED_MARK
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.writer import SecretMask
from orchestrator_lab.runtime import private_dir, read_record, update_record, write_private
from orchestrator_lab.supervisor.alerts import Alerts
from orchestrator_lab.supervisor.changes import Changes
from orchestrator_lab.supervisor.conversations import Conversations
from orchestrator_lab.supervisor.crosscheck import CrossCheck
from orchestrator_lab.supervisor.ending import seal_when_long
from orchestrator_lab.supervisor.guards import Guards
from orchestrator_lab.supervisor.hands import Hands
from orchestrator_lab.supervisor.hangs import HangWatch
from orchestrator_lab.supervisor.initial import InitialFolders
from orchestrator_lab.supervisor.keeperlink import KeeperLink
from orchestrator_lab.supervisor.lifecycle import Lifecycle
from orchestrator_lab.supervisor.messages import Ledger
from orchestrator_lab.supervisor.monitor import Monitor
from orchestrator_lab.supervisor.notify import Notifier
from orchestrator_lab.supervisor.rebuild import Rebuild
from orchestrator_lab.supervisor.replaying import replaying_of
from orchestrator_lab.supervisor.routing import Routing
from orchestrator_lab.supervisor.tmuxthread import TmuxThread
from orchestrator_lab.tmux import PaneExit, TmuxDriver, attach_argv
from orchestrator_lab.tmux.process import process_ending

if TYPE_CHECKING:
    import argparse

    from orchestrator_lab.config import AgentConfig
    from orchestrator_lab.gateway.gateway import Gateway
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.delivery import Mailbox
    from orchestrator_lab.supervisor.guards import Hold

__all__ = ["Supervisor"]

logger = logging.getLogger(__name__)

#: Seconds that programs have to end after SIGTERM (Claude Code writes its session's end).
_TERM_GRACE_S = 4.0
#: Seconds after which a program that was asked to end by a key is hung up on, as by a closed terminal.
_HANGUP_AFTER_S = 0.5


#: States of agents that do nothing and will not do anything by themselves.
_AT_REST = frozenset({"idle", "limited", "exited", "failed"})


class Supervisor:
    """One cluster.

    Parameters
    ----------
    folder : Path
        Its runtime folder.
    options : argparse.Namespace
        Descriptors from the keeper, and what it says of a gap.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self._options = options
        record = read_record(folder)
        if record is None:
            raise ClusterStopped(f"{folder} holds no record of a cluster")
        self.record = record
        self.run_dir = Path(record.run_dir)
        self.config = ClusterConfig.from_json((folder / "config.json").read_bytes())
        #: Names of the agents that it was started with; others joined it.
        self.configured = frozenset(self.config.names)
        self.environ: dict[str, str] = json.loads((folder / "environ.json").read_text(encoding="utf-8"))
        self.url = f"http://127.0.0.1:{record.port}"
        self.mask = SecretMask(known_secrets(self.config, self.environ))
        self.replaying = replaying_of(self)
        self.journal = self.replaying.journal()
        self.alerts = Alerts(self)
        self.monitor = Monitor(self)
        self.notifier = Notifier(self)
        self.ledger = Ledger(self.journal)
        self.tmux = TmuxThread()
        self.driver: TmuxDriver
        self.runners: dict[str, AgentRunner] = {}
        #: Ends of panes that no agent is known to have, by pane.
        self._early_exits: dict[str, PaneExit] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self.conversations = Conversations(self)
        self.guards = Guards(self)
        self.hands = Hands(self)
        self.ledger.on_lost = self.conversations.lost
        self.gateway: Gateway | None = None
        self.crosscheck = CrossCheck(self._disagrees)
        self.changes = Changes(self)
        self.initial = InitialFolders(self)
        #: Since when the agents' tools can be had (monotonic), or it is known that they cannot; None before.
        self.tools_since: float | None = None
        self.keeper = KeeperLink(
            folder,
            api_fd=options.api_fd,
            tcp_fd=options.tcp_fd,
            lock_fd=options.lock_fd,
            keeper_fd=options.keeper_fd,
            supervisor_restarts=options.restart,
            on_message=self._keeper_said,
            on_restarted=self._keeper_restarted,
        )
        self.ending = asyncio.Event()
        #: Agents whose first start an earlier supervisor did not see to its end.
        self.unfinished: list[AgentRunner] = []
        self.stopped = False
        #: Whether this cluster goes on with a run of which nothing but the record was left.
        self.resumed = False
        #: ... and its agents are not all back yet: broken off now, the run is as it was.
        self.resuming = False
        self.status_text = "starting"
        self._states: set[str] = set()
        self.lifecycle = Lifecycle(self)
        self.hangs = HangWatch(self)
        self.rebuild = Rebuild(self)
        self.routing = Routing(self)
        self.end_status = "completed"
        self._run_ended = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.replaying.take_over(self.ledger)

    # life ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the cluster, or adopt it when it runs already."""
        private_dir(self.run_dir / "panes")
        await self.keeper.open()
        left = self._left_to_end() or self.replaying.broken_off()
        if left is not None:
            self.status_text, self.end_status = "ending", left
        if left is not None and not self.record.alive("tmux"):
            events, _ = read_events(self.journal.path)
            self._run_ended = bool(events) and events[-1].event == "run.ended"
            if not self._run_ended:
                self._journal_start()
            self.ending.set()
            return
        adopted = self.record.alive("tmux")
        # A run that has events but no server: it ended, unseen or in a rebuild, or all that was here before is gone.
        lost = not adopted and (self.record.tmux_pid is not None or self.journal.seq > 0)
        if lost:
            self.driver = await self.tmux.run(
                TmuxDriver.absent,
                self.folder / "tmux.sock",
                session=self.config.session_name,
                cols=self.config.cols,
                rows=self.config.rows,
                layout=self.config.layout,
            )
            self.record = update_record(self.folder, supervisor_pid=os.getpid(), version=__version__)
            self.rebuild.gone = True
            self.resumed = self.resuming = self.record.tmux_pid is None
            if self.resumed:
                from orchestrator_lab.supervisor.recovery import check_resumable

                check_resumable(self)
        elif adopted:
            await self.move_in(await self.tmux.run(TmuxDriver.adopt, self.folder / "tmux.sock"))
        else:
            self.initial.begin()
            await self.move_in(await self.new_driver())
        self._journal_start()
        if adopted or lost or self._options.restart:
            from orchestrator_lab.supervisor.recovery import recover

            self.unfinished = await recover(self, gap_since=self._options.gap_since)
            if self.runners:
                self.initial.resume()
        self.guards.resume()
        if left is not None:
            self.status_text = "ending"
            self.background(self.lifecycle.shutdown(left))
        self.monitor.start()
        if not self.replaying.terminal:
            self.hangs.open()
        self._watch_owner()

    async def new_driver(self) -> TmuxDriver:
        """Start a tmux server for this cluster, on its socket."""
        return await self.tmux.run(
            TmuxDriver.take_over,
            self.folder / "tmux.sock",
            session=self.config.session_name,
            cols=self.config.cols,
            rows=self.config.rows,
            layout=self.config.layout,
            tags={"cluster": self.config.name, "run_id": self.record.run_id},
            env=self._tmux_environment(),
        )

    async def move_in(self, driver: TmuxDriver) -> None:
        """Use a tmux server from now on, and watch over it and over what ends in it."""
        loop = asyncio.get_running_loop()
        self.driver = driver
        self.record = update_record(self.folder, tmux_pid=driver.pid, supervisor_pid=os.getpid(), version=__version__)
        await self.tmux.run(
            driver.watch_exits,
            lambda exit_: loop.call_soon_threadsafe(self._pane_exited, exit_),
            lambda: loop.call_soon_threadsafe(self.rebuild.server_lost, driver.pid),
        )

    def forget_exits(self) -> None:
        """Forget ends of panes that no agent is known to have: their ids come again in another server."""
        self._early_exits.clear()

    def _left_to_end(self) -> str | None:
        """Return the status with which a killed supervisor was about to end the run, None when it was not."""
        try:
            return (self.folder / "ending").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _journal_start(self) -> None:
        if self.journal.seq == 0:
            manifest = json.loads((self.run_dir / "manifest.json").read_text(encoding="utf-8"))
            known = ("name", "experiment", "params", "tags", "seed", "mode", "parent_run_id")
            self.journal.append("run.started", **{key: manifest.get(key) for key in known})
            if manifest.get("started_by") is not None:
                self.journal.append("action.requested", source="human", action="start", **manifest["started_by"])
        if self.journal.repaired:
            self.journal.append("journal.repaired", level="warning", bytes=self.journal.repaired)
        self.journal.append(
            "supervisor.started",
            pid=os.getpid(),
            restart=self._options.restart,
            package_version=__version__,
        )

    def record_event(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        """Journal an event of the gateway."""
        self.journal.append(event, **facts)
        self.crosscheck.saw(event, facts)

    def _disagrees(self, agent: str, turn_id: str, differences: dict[str, dict[str, Any]]) -> None:
        self.journal.append(
            "record.disagrees", agent=agent, turn_id=turn_id, source="gateway", level="warning", differences=differences
        )

    async def close(self, *, error: OrchestratorLabError | None = None) -> None:
        """Close what is open, the journal last."""
        self.hangs.close()
        await self.changes.close()
        await self.initial.close()
        await self.notifier.close()
        if not self._run_ended and not self.resuming:
            with contextlib.suppress(JournalError):
                self.replaying.finish()
        if self.gateway is not None:
            await self.gateway.aclose()
        with contextlib.suppress(OrchestratorLabError, AttributeError):
            await self.tmux.run(self.driver.kill)
        self.monitor.stop()
        self.alerts.stop()
        self.guards.stop()
        for runner in self.runners.values():
            self.keeper.tell(op="end", agent=runner.name)
            runner.close()
        if not self._run_ended and not self.resuming:
            self._journal_end(error)
        self._keep_logs()
        self.keeper.tell(op="bye")
        await self.keeper.close()
        self.tmux.close()
        self.journal.close()
        self.replaying.close()
        if self.config.seal and not self.resuming:
            seal_when_long(self.journal)

    async def let_go(self) -> None:
        """Close what is open and leave the run as it is."""
        self.keeper.tell(op="bye")
        await self.keeper.close()
        self.tmux.close()
        self.journal.close()

    def _journal_end(self, error: OrchestratorLabError | None) -> None:
        error = error or self.replaying.stopped
        with contextlib.suppress(JournalError):
            self.journal.append(
                "run.ended",
                status="failed" if error else self.end_status,
                error_type=type(error).__name__ if error else None,
                error_message=error.message.split("\n", 1)[0] if error else None,
            )
            self.journal.sync()

    # messages -----------------------------------------------------------------------------------

    async def until_idle(self, names: list[str] | None, timeout_s: float | None) -> bool:
        """Wait until agents are idle and nothing is on its way to them.

        Raises DeliveryPaused when a guard holds all that is left, until somebody lifts it.
        """
        runners = [self.runner(name) for name in names] if names else list(self.runners.values())

        def idle() -> bool:
            if self.conversations.going_on:
                return False
            return all(
                not self.mailboxes[one.name].busy and not one.amending and not one.comes_back and one.state in _AT_REST
                for one in runners
            )

        with self.replaying.awaited():
            done = await self.ledger.until(
                lambda: idle() or self._stuck(runners) is not None or self.replaying.stopped is not None, timeout_s
            )
        self.replaying.refuse()
        hold = None if idle() else self._stuck(runners)
        if hold is not None:
            raise DeliveryPaused(hold.message, guard_id=hold.guard_id)
        return done

    def _stuck(self, runners: list[AgentRunner]) -> Hold | None:
        """Return the guard without whose lifting nothing more will happen to these agents, or to a conversation."""
        if not self.guards.active or (self.conversations.going_on and self.conversations.stuck() is None):
            return None
        moves, hold = self.guards.stuck(runners)
        return None if moves else hold or self.conversations.stuck()

    async def conversation_over(self, conversation_id: str, timeout_s: float | None) -> dict[str, Any]:
        """Wait for the end of a conversation."""
        conversation = self.conversations.known.get(conversation_id)
        if conversation is None:
            raise ConfigError(f"there is no conversation {conversation_id!r} in this run")
        held = self.conversations.hold_of
        with self.replaying.awaited():
            done = await self.ledger.until(
                lambda: (
                    conversation.ended is not None
                    or held(conversation) is not None
                    or self.replaying.stopped is not None
                ),
                timeout_s,
            )
        self.replaying.refuse()
        hold = held(conversation) if conversation.ended is None else None
        if hold is not None:
            raise DeliveryPaused(hold.message, guard_id=hold.guard_id)
        if not done:
            raise ExchangeTimeout(
                f"the conversation is not over after {timeout_s:.3g} s "
                f"({conversation.turns} of {conversation.rounds * len(conversation.agents)} turns); it goes on"
            )
        return conversation.to_dict()

    # looking ------------------------------------------------------------------------------------

    def runner(self, name: str) -> AgentRunner:
        """Return an agent, or say which ones there are."""
        found = self.runners.get(name)
        if found is None:
            raise AgentNotFound(
                f"no agent {name!r} in cluster {self.config.name!r}; it has: {', '.join(self.runners) or 'none'}",
                agent=name,
            )
        return found

    def by_token(self, token: str) -> AgentRunner | None:
        """Return the agent that a secret belongs to."""
        import hmac

        given = token.encode("utf-8", "surrogateescape")
        for runner in self.runners.values():
            if hmac.compare_digest(runner.token.encode(), given):
                return runner
        return None

    async def screen(self, runner: AgentRunner, *, escapes: bool = False, history: int = 0) -> str:
        """Return what an agent's pane shows."""
        if runner.pane_id is None:
            return ""
        return await self.tmux.run(
            self.driver.capture, runner.pane_id, escapes=escapes, join=not escapes, history=history
        )

    def attach(self, *, read_only: bool = False) -> list[str]:
        """Return the command that attaches a terminal to the cluster."""
        return attach_argv(self.folder / "tmux.sock", self.config.session_name, read_only=read_only)

    async def attach_agent(self, name: str, *, read_only: bool = False) -> list[str]:
        """Return the command that attaches a terminal to the pane of an agent that has one."""
        pane = self.runner(name).pane_id
        # Somebody may have closed it by hand: tmux itself is asked.
        if pane is None or pane not in {one.pane_id for one in await self.tmux.run(self.driver.panes)}:
            raise ClusterStopped(f"agent {name!r} has no pane to attach to: restart it first", agent=name)
        return attach_argv(self.folder / "tmux.sock", self.config.session_name, pane, read_only, agent=name)

    def status(self) -> dict[str, Any]:
        """Return what clients see of the cluster."""
        return {
            "name": self.config.name,
            "status": self.status_text,
            "mode": self.replaying.mode,
            "run_id": self.record.run_id,
            "run_dir": str(self.run_dir),
            "version": __version__,
            "protocol": self.record.protocol,
            "lifetime": self.config.lifetime,
            "session_name": self.config.session_name,
            "tmux_version": self.driver.version,
            "tmux_socket": str(self.folder / "tmux.sock"),
            "attach": shlex.join(self.attach()),
            "agents": [{**runner.describe(), **self.monitor.describe(runner.name)} for runner in self.runners.values()],
            "monitoring": self.monitor.mode,
            "totals": self.monitor.totals(),
            "alerts": [alert.to_dict() for alert in self.alerts.open_alerts],
            "messages": self.ledger.count,
            "events": self.journal.seq,
            "conversations": [one.to_dict() for one in self.conversations.recent()],
            "guards": self.guards.listed(),
            "problem": self._problem(),
        }

    def _problem(self) -> str | None:
        """Return why nothing is delivered, None when it is."""
        if self.replaying.stopped is not None:
            return self.replaying.stopped.message
        return next((box.halted for box in self.mailboxes.values() if box.halted), None)

    def figures(self) -> dict[str, Any]:
        """Return what is counted and measured of the cluster, for whoever collects such figures."""
        return {
            "name": self.config.name,
            "status": self.status_text,
            "run_id": self.record.run_id,
            "version": __version__,
            "run_s": self.journal.now_s,
            "events": self.journal.seq,
            **self.monitor.measured(),
        }

    def roster(self, name: str) -> str:
        """Return the sentence that tells an agent who else is there."""
        others = [agent for agent in self.config.agents if agent.name != name]
        may = set(self.config.topology.recipients(name, self.config.names))
        listed = ", ".join(f"{one.name} ({one.role})" if one.role else one.name for one in others if one.name in may)
        return f"You may write to: {listed}." if listed else "You may write to nobody."

    def instructions(self, config: AgentConfig) -> str | None:
        """Return an agent's role text, and keep a copy in the run."""
        text = instructions_text(config)
        if text:
            write_private(private_dir(self.run_dir / "instructions") / f"{config.name}.md", text)
        return text

    def made_by_lab(self, folder: Path) -> bool:
        """Tell whether the lab itself created a work folder."""
        return (folder / CREATED_MARK).is_file()

    def journalled_state(self, name: str) -> bool:
        """Tell whether the journal has a state of this agent yet."""
        return name in self._states

    def note_state(self, name: str) -> None:
        """Remember that the journal has a state of this agent."""
        self._states.add(name)

    def mask_bytes(self, data: bytes) -> bytes:
        """Return a text file's bytes with the known secrets masked."""
        return self.mask(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    # what others say ----------------------------------------------------------------------------

    def _keeper_said(self, message: dict[str, Any]) -> None:
        op = message.get("op")
        if op == "hello":
            for pane in message.get("panes", ()):
                self._keeper_said({**pane, "op": "activity"} if pane.get("modes") else {"op": "ignored"})
            return
        runner = self.runners.get(str(message.get("agent")))
        if runner is None:
            return
        if op == "activity":
            runner.looks.pane_activity(message)
        elif op == "recording":
            self.journal.append(
                "recording.started",
                agent=runner.name,
                path=f"panes/{runner.name}.cast.zst",
                **(
                    self.replaying.recording(runner.name)
                    or {"started_at": _instant(message.get("started_at")), "offset_s": message.get("offset_s")}
                ),
            )
        elif op == "recording_failed" or (op == "pane_closed" and runner.running and self.driver.alive):
            self.journal.append(
                "note", agent=runner.name, level="warning", text=f"{op}: {message.get('error', '')}".rstrip(": ")
            )

    async def _keeper_restarted(self, gap_s: float) -> None:
        self.journal.append("keeper.started", level="warning", restart=self.keeper.restarts)
        self.journal.append("keeper.gap", level="warning", gap_s=round(gap_s, 6), reason="the keeper ended")
        for runner in self.runners.values():
            if runner.pane_id is None:
                continue
            await self.tmux.run(self.driver.pipe, runner.pane_id, None)
            await self.lifecycle.record_pane(runner, runner.pane_id)
            self.journal.append(
                "recording.gap", agent=runner.name, level="warning", gap_s=round(gap_s, 6), reason="keeper"
            )

    def _pane_exited(self, exit_: PaneExit) -> None:
        for runner in self.runners.values():
            if runner.pane_id == exit_.pane_id and runner.pid == exit_.pid and not runner.launching:
                self.keeper.tell(op="end", agent=runner.name, status=exit_.status)
                self.background(runner.exited(exit_))
                return
        # A program may end before the news of its start is here.
        self._early_exits[exit_.pane_id] = exit_

    def tmux_died(self) -> bool:
        """Tell whether the tmux server is gone, or in its end, and all panes with it."""
        return process_ending(self.driver.pid)

    def tell_early_exit(self, pane_id: str, pid: int) -> None:
        """Tell an agent that has just been started of its end, when that was seen already."""
        exit_ = self._early_exits.pop(pane_id, None)
        if exit_ is not None and exit_.pid == pid:
            self._pane_exited(exit_)

    def _watch_owner(self) -> None:
        """End the cluster with its owner, where the configuration says so."""
        record = self.record
        if record.lifetime != "owner" or record.owner_pid is None:
            return
        if not record.alive("owner"):
            self.background(self.lifecycle.shutdown("cancelled"))
            return
        if not hasattr(os, "pidfd_open"):
            self.background(self._poll_owner())
            return
        descriptor = os.pidfd_open(record.owner_pid)
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            logger.info("the owner %s ended: shutting down", record.owner_pid)
            self.background(self.lifecycle.shutdown("cancelled"))

        loop.add_reader(descriptor, gone)

    async def _poll_owner(self) -> None:
        """Where no pidfd exists (macOS), the owner is looked at twice a second."""
        while self.record.alive("owner"):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.5)
        await self.lifecycle.shutdown("cancelled")

    def tools_settled(self) -> None:
        """Take note that the agents' tools can be had, or never will be."""
        self.tools_since = time.monotonic()
        for runner in self.runners.values():
            runner.give_up_tools_later()

    def background(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        """Let work go on beside everything else; its failure is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work failed", exc_info=task.exception())

    def _keep_logs(self) -> None:
        """Copy the processes' logs into the run: the runtime folder goes with the cluster."""
        logs = private_dir(self.run_dir / "logs")
        for log in (self.folder / "logs").glob("*.log"):
            with contextlib.suppress(OSError):
                write_private(logs / log.name, self.mask_bytes(log.read_bytes()))

    # small helpers ------------------------------------------------------------------------------

    def _tmux_environment(self) -> dict[str, str]:
        return {
            name: self.environ[name]
            for name in ("PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
            if name in self.environ
        }


def _instant(epoch_s: object) -> str | None:
    """Return epoch seconds as the journal writes instants."""
    if not isinstance(epoch_s, int | float):
        return None
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
