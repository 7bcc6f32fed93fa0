"""The supervisor: what is true of one cluster, and the only one who changes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab import __version__
from orchestrator_lab.config import ClusterConfig, instructions_text
from orchestrator_lab.errors import (
    AgentFailed,
    AgentNotFound,
    ClusterExists,
    ClusterStopped,
    ConfigError,
    DiskFull,
    ExchangeTimeout,
    JournalError,
    MessageRefused,
    OrchestratorLabError,
    TmuxError,
)
from orchestrator_lab.journal.writer import JournalWriter, SecretMask
from orchestrator_lab.runtime import handoff_argv, read_record, update_record
from orchestrator_lab.supervisor.agent import AgentRunner
from orchestrator_lab.supervisor.conversations import Conversations
from orchestrator_lab.supervisor.delivery import Mailbox
from orchestrator_lab.supervisor.header import header_line, split_header
from orchestrator_lab.supervisor.keeperlink import KeeperLink
from orchestrator_lab.supervisor.messages import Ledger, Message
from orchestrator_lab.supervisor.tmuxthread import TmuxThread
from orchestrator_lab.tmux import PaneExit, TmuxDriver, attach_argv, sanitize

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from orchestrator_lab.config import Agent, AgentConfig
    from orchestrator_lab.gateway.gateway import Gateway

__all__ = ["Supervisor"]

logger = logging.getLogger(__name__)

#: Names of variables whose values are secrets, masked wherever the lab writes.
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
#: Shortest value that is taken for a secret; shorter ones would mask ordinary words.
_SECRET_LENGTH = 8
#: Seconds that programs have to end after SIGTERM (Claude Code writes its session's end).
_TERM_GRACE_S = 4.0
#: Seconds after which a program that was asked to end by a key is hung up on, as by a closed terminal.
_HANGUP_AFTER_S = 0.5


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
        self.environ: dict[str, str] = json.loads((folder / "environ.json").read_text(encoding="utf-8"))
        self.url = f"http://127.0.0.1:{record.port}"
        self.mask = SecretMask(self._known_secrets())
        self.journal = JournalWriter(self.run_dir / "journal.jsonl", run_id=record.run_id, mask=self.mask)
        self.ledger = Ledger(self.journal)
        self.tmux = TmuxThread()
        self.driver: TmuxDriver
        self.runners: dict[str, AgentRunner] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self.conversations = Conversations(self)
        self.gateway: Gateway | None = None
        self.keeper = KeeperLink(
            folder,
            api_fd=options.api_fd,
            tcp_fd=options.tcp_fd,
            lock_fd=options.lock_fd,
            keeper_fd=options.keeper_fd,
            on_message=self._keeper_said,
            on_restarted=self._keeper_restarted,
        )
        self.ending = asyncio.Event()
        self.stopped = False
        self.problem: OrchestratorLabError | None = None
        self.status_text = "starting"
        self._states: set[str] = set()
        self._lifecycle = asyncio.Lock()
        self._end_status = "completed"
        self._tasks: set[asyncio.Task[Any]] = set()

    # life ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the cluster, or adopt it when it runs already."""
        await self.keeper.open()
        socket = self.folder / "tmux.sock"
        loop = asyncio.get_running_loop()
        adopted = False
        if self.record.tmux_pid is not None and self.record.alive("tmux"):
            self.driver = await self.tmux.run(TmuxDriver.adopt, socket)
            adopted = True
        else:
            self.driver = await self.tmux.run(
                TmuxDriver.start,
                socket,
                session=self.config.session_name,
                cols=self.config.cols,
                rows=self.config.rows,
                layout=self.config.layout,
                tags={"cluster": self.config.name, "run_id": self.record.run_id},
                env=self._tmux_environment(),
            )
        self.record = update_record(
            self.folder, tmux_pid=self.driver.pid, supervisor_pid=os.getpid(), version=__version__
        )
        await self.tmux.run(self.driver.watch_exits, lambda exit_: loop.call_soon_threadsafe(self._pane_exited, exit_))
        if self.journal.seq == 0:
            manifest = json.loads((self.run_dir / "manifest.json").read_text(encoding="utf-8"))
            known = ("name", "experiment", "params", "tags", "seed", "mode", "parent_run_id")
            self.journal.append("run.started", **{key: manifest.get(key) for key in known})
        self.journal.append(
            "supervisor.started",
            pid=os.getpid(),
            restart=self._options.restart,
            package_version=__version__,
        )
        if adopted or self._options.restart:
            from orchestrator_lab.supervisor.recovery import recover

            await recover(self, gap_since=self._options.gap_since)
        self._watch_owner()

    async def launch(self) -> None:
        """Start the configured agents, all at once, and wait until they are ready."""
        self.status_text = "starting"
        for agent in self.config.agents:
            self._add_runner(agent).locate()
        self._check_work_dirs()
        for runner in self.runners.values():
            runner.announce()
        await self.journal.asynced()
        await asyncio.gather(*(self._start_pane(runner) for runner in self.runners.values()))
        await self.wait_ready(list(self.runners.values()))

    async def wait_ready(self, runners: list[AgentRunner]) -> None:
        """Wait until agents take messages; raise AgentFailed for the first that ended instead.

        An agent that asks its user something is no failure: it waits, and its status says for what.
        """
        done = await self.ledger.until(
            lambda: (
                self.status_text == "ending"
                or all(one.ready is not None or one.error is not None or one.dialog is not None for one in runners)
            ),
            self.config.start_timeout_s,
        )
        if self.status_text == "ending":
            raise ClusterStopped(f"cluster {self.config.name!r} was shut down while it started")
        for runner in runners:
            if runner.error is not None:
                raise runner.error
        if not done:
            late = [one for one in runners if one.ready is None and one.dialog is None]
            screen = (await self.screen(late[0])).strip()
            raise AgentFailed(
                f"agent {late[0].name!r} was not ready within {self.config.start_timeout_s:g} s (start_timeout_s); "
                f"its screen shows:\n{screen[-2000:]}",
                agent=late[0].name,
            )
        self.status_text = "running"

    def _add_runner(self, agent: Agent, *, token: str | None = None) -> AgentRunner:
        resolved = agent.model_copy(update={"gateway": self.config.gateway_of(agent)})
        runner = AgentRunner(self, resolved, token=token)
        self.runners[agent.name] = runner
        self._introduce(runner)
        return runner

    def _introduce(self, runner: AgentRunner) -> None:
        """Give a runner its mailbox and its gateway."""
        self.mask.add(runner.token)
        self.mask.add(runner.gateway_secret)
        mailbox = self.mailboxes[runner.name] = Mailbox(runner)
        mailbox.open()
        self.bind_gateway(runner)

    def adopt_runner(self, agent: Agent, kept: dict[str, Any]) -> AgentRunner:
        """Make a runner for an agent that an earlier supervisor started, with the identity it has."""
        resolved = agent.model_copy(update={"gateway": self.config.gateway_of(agent)})
        runner = AgentRunner(self, resolved, token=kept.get("token"))
        runner.restore(kept)
        self.runners[agent.name] = runner
        self._introduce(runner)
        return runner

    def _record(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        self.journal.append(event, **facts)

    def record_again(self, runner: AgentRunner) -> None:
        """Ask a keeper that may be new to go on recording a pane (one that has the pane changes nothing)."""
        cols, rows = self.config.size_of(runner.config)
        self.keeper.tell(
            op="record",
            agent=runner.name,
            pane=runner.pane_id,
            cols=cols,
            rows=rows,
            path=str(self.run_dir / "panes" / f"{runner.name}.cast.zst"),
            title=runner.name,
        )

    def bind_gateway(self, runner: AgentRunner) -> None:
        """Point the agent's secret address at the model that its configuration names."""
        gateway = runner.config.gateway
        if gateway is None or gateway.mode == "none":
            return
        if self.gateway is None:
            from orchestrator_lab.gateway.gateway import Gateway

            self.gateway = Gateway(
                self._record,
                split_header=split_header,
                local_log=self.folder / "logs" / "local-model.log",
            )
        key = self.environ.get(gateway.key_env) if gateway.key_env else None
        if gateway.key_env and key is None:
            raise ConfigError(
                f"agent {runner.name!r}: gateway.key_env names {gateway.key_env}, which is not set in the environment "
                "of whoever started the cluster"
            )
        self.gateway.bind(runner.name, runner.gateway_secret, gateway, key=key)

    async def _start_pane(self, runner: AgentRunner) -> None:
        argv = runner.write_launch()
        cols, rows = self.config.size_of(runner.config)
        pane = await self.tmux.run(
            self.driver.create_pane,
            runner.name,
            argv,
            cwd=self.config.work_dir_of(runner.config),
            cols=cols,
            rows=rows,
            tags={"agent": runner.name},
        )
        await self._record_pane(runner, pane.pane_id)
        runner.started(pane.pane_id, pane.pid)

    async def _record_pane(self, runner: AgentRunner, pane_id: str) -> None:
        """Have the pane's bytes sent to the keeper, and kept."""
        runner.pane_id = pane_id
        self.record_again(runner)
        await self.tmux.run(self.driver.pipe, pane_id, handoff_argv(self.folder, runner.name))

    async def add(self, agent: Agent) -> AgentRunner:
        """Add an agent to the running cluster."""
        async with self._lifecycle:
            if agent.name in self.runners:
                raise ClusterExists(f"cluster {self.config.name!r} has an agent {agent.name!r} already")
            self.config = self.config.model_copy(update={"agents": [*self.config.agents, agent]})
            runner = self._add_runner(agent)
            try:
                runner.locate()
                runner.announce()
                await self.journal.asynced()
                await self._start_pane(runner)
                await self.wait_ready([runner])
            except OrchestratorLabError:
                await self._forget(runner)
                raise
            return runner

    async def remove(self, name: str) -> None:
        """End an agent and take it out of the cluster."""
        async with self._lifecycle:
            runner = self.runner(name)
            await self._end_agents([runner])
            await self._forget(runner)

    async def _forget(self, runner: AgentRunner) -> None:
        if runner.running:
            await self._end_agents([runner])
        if runner.pane_id is not None:
            with contextlib.suppress(TmuxError):
                await self.tmux.run(self.driver.kill_pane, runner.pane_id)
        self.keeper.tell(op="end", agent=runner.name)
        self.mailboxes.pop(runner.name).close()
        for message in list(self.ledger.messages.values()):
            if message.recipient == runner.name and message.status == "queued":
                self.ledger.advance(
                    message, "failed", error_type="removed", error_message=f"{runner.name} left the cluster"
                )
        if self.gateway is not None:
            self.gateway.unbind(runner.gateway_secret)
        runner.close()
        del self.runners[runner.name]
        self.config = self.config.model_copy(
            update={"agents": [agent for agent in self.config.agents if agent.name != runner.name]}
        )
        self.journal.append("agent.removed", agent=runner.name)

    async def stop(self, names: list[str] | None = None) -> None:
        """End the agents; the tmux session, the journal and the supervisor stay."""
        async with self._lifecycle:
            runners = [self.runner(name) for name in names] if names else list(self.runners.values())
            await self._end_agents(runners)
            if names is None:
                self.stopped = True
                self.status_text = "stopped"
                self.journal.append("cluster.stopped")

    async def _end_agents(self, runners: list[AgentRunner]) -> None:
        """End programs: asked first, hung up on when they stay, killed when they do not go."""
        alive = [one for one in runners if one.running and one.pid is not None]
        for runner in alive:
            runner.stopping = True
        patience = max([_HANGUP_AFTER_S, *await asyncio.gather(*(self._ask_to_end(one) for one in alive))])

        def gone() -> bool:
            return not any(one.running for one in alive)

        for number, wait_s in ((signal.SIGHUP, patience), (signal.SIGTERM, _TERM_GRACE_S), (signal.SIGKILL, 1.0)):
            if await self.ledger.until(gone, wait_s):
                return
            for runner in alive:
                if runner.running:
                    _signal_group(runner.pid, number)
        await self.ledger.until(gone, 5.0)

    async def _ask_to_end(self, runner: AgentRunner) -> float:
        """Ask a program to end in its own way; return the seconds that it should be given."""
        stop = getattr(runner.config, "stop", None)
        if stop is None or runner.pane_id is None or runner.ready is None:
            _signal_group(runner.pid, signal.SIGTERM)
            return _TERM_GRACE_S
        try:
            if stop.text is not None:
                await self.tmux.run(self.driver.paste, runner.pane_id, stop.text)
                await self.tmux.run(self.driver.enter, runner.pane_id)
            else:
                await self.tmux.run(self.driver.press, runner.pane_id, stop.key or "C-d")
        except TmuxError:
            return 0.0
        return float(stop.timeout_s) if "stop" in runner.config.model_fields_set else _HANGUP_AFTER_S

    async def restart(self, names: list[str] | None = None) -> None:
        """Start ended agents again, end and start living ones; their sessions and the run go on."""
        async with self._lifecycle:
            runners = [self.runner(name) for name in names] if names else list(self.runners.values())
            await self._end_agents(runners)
            self.stopped = False
            if names is None:
                self.journal.append("cluster.restarted")
            for runner in runners:
                runner.restarts += 1
                argv = runner.write_launch()
                if runner.pane_id is None:
                    continue
                pane = await self.tmux.run(
                    self.driver.respawn, runner.pane_id, argv, cwd=self.config.work_dir_of(runner.config)
                )
                await self._record_pane(runner, pane.pane_id)
                runner.started(pane.pane_id, pane.pid, restart=runner.restarts)
            await self.wait_ready(runners)

    async def interrupt(self, name: str) -> None:
        """Interrupt an agent's turn, as a person would."""
        runner = self.runner(name)
        if not runner.running or runner.pane_id is None:
            raise ClusterStopped(f"agent {name!r} is {runner.state}; there is nothing to interrupt")
        turn = runner.turn
        await self.tmux.run(self.driver.press, runner.pane_id, runner.adapter.interrupt_key)
        self.journal.append("note", agent=name, text="interrupted", source="human")
        if turn is None:
            return
        for _ in range(20):
            if await self.ledger.until(lambda: runner.turn is not turn, 0.25) or await runner.reconcile():
                return

    async def shutdown(self, status: str = "completed") -> None:
        """End everything: agents, tmux, run."""
        async with self._lifecycle:
            if self.ending.is_set():
                return
            self.status_text = "ending"
            self._end_status = status
            await self._end_agents(list(self.runners.values()))
            for mailbox in self.mailboxes.values():
                mailbox.close()
            await asyncio.gather(*(one.keep_transcript() for one in self.runners.values()))
            self.ending.set()
            self.ledger.poke()

    async def close(self, *, error: OrchestratorLabError | None = None) -> None:
        """Close what is open, the journal last."""
        if self.gateway is not None:
            await self.gateway.aclose()
        with contextlib.suppress(OrchestratorLabError, AttributeError):
            await self.tmux.run(self.driver.kill)
        for runner in self.runners.values():
            self.keeper.tell(op="end", agent=runner.name)
            runner.close()
        with contextlib.suppress(JournalError):
            self.journal.append(
                "run.ended",
                status="failed" if error else self._end_status,
                error_type=type(error).__name__ if error else None,
                error_message=error.message.split("\n", 1)[0] if error else None,
            )
            self.journal.sync()
        await self.keeper.close()
        self.tmux.close()
        self.journal.close()

    # messages -----------------------------------------------------------------------------------

    def send(
        self,
        *,
        sender: str,
        recipient: str,
        text: str,
        source: str,
        kind: str = "direct",
        in_reply_to: str | None = None,
        conversation_id: str | None = None,
        when: str = "idle",
        expires_s: float | None = None,
        hop: int = 0,
        message_id: str | None = None,
    ) -> Message:
        """Take in a message: check who may write to whom, journal it, queue it.

        A client that repeats a request, because the answer was lost, gives the same `message_id`.
        """
        if message_id is not None and message_id in self.ledger.messages:
            return self.ledger.messages[message_id]
        if recipient == "user":
            raise MessageRefused(
                "the user reads the transcript of your turn: end your turn with what you want to say instead",
                sender=sender,
                recipient=recipient,
            )
        runner = self.runner(recipient)
        if when not in {"idle", "now"}:
            raise ConfigError(f"when={when!r} is not known; use 'idle' (wait for the end of a turn) or 'now'")
        parent = self.ledger.messages.get(in_reply_to) if in_reply_to else None
        if in_reply_to and parent is None:
            raise MessageRefused(f"there is no message {in_reply_to!r} to reply to", in_reply_to=in_reply_to)
        if parent is not None:
            conversation_id = conversation_id or parent.conversation_id
            kind = "reply"
        clean, _ = sanitize(text)
        if not clean.strip():
            raise MessageRefused("an empty message cannot be typed; send some text", recipient=recipient)
        if self.stopped or (not runner.running and runner.state in {"exited", "failed"}):
            raise ClusterStopped(
                f"agent {recipient!r} of cluster {self.config.name!r} is {runner.state} and takes no messages; "
                "restart it first"
            )
        halted = self.mailboxes[recipient].halted
        if halted:
            raise DiskFull(halted)
        from_agent = source == "agent"
        message = self.queue(
            sender=sender,
            recipient=recipient,
            text=text,
            kind=kind,
            source=source,
            in_reply_to=in_reply_to,
            conversation_id=conversation_id,
            when=when,
            expires_s=expires_s,
            hop=hop,
            message_id=message_id,
            header=(lambda identity: header_line(sender, identity)) if from_agent else None,
        )
        if not self.config.topology.allows(sender, recipient):
            may = self.config.topology.recipients(sender, self.config.names)
            self.ledger.advance(
                message,
                "refused",
                error_type="topology",
                error_message=(
                    f"the topology does not let {sender} write to {recipient}; "
                    f"{sender} may write to: {', '.join(may) or 'nobody'}"
                ),
            )
        return message

    def queue(
        self,
        *,
        text: str,
        recipient: str,
        header: Callable[[str], str] | None,
        **rest: Any,  # noqa: ANN401
    ) -> Message:
        """Journal a message that may be delivered and put it into the recipient's mailbox."""
        content, removed = sanitize(text)
        message = self.ledger.queue(
            recipient=recipient, content=content, header=header, removed_controls=removed, **rest
        )
        allowed = rest["sender"] not in self.runners or self.config.topology.allows(rest["sender"], recipient)
        if allowed or message.conversation_id in self.conversations.running:
            self.mailboxes[recipient].put(message)
        return message

    def send_from_agent(
        self, sender: AgentRunner, to: str, text: str, *, in_reply_to: str | None = None, kind: str = "direct"
    ) -> Message:
        """Take in a message that an agent wrote; its name is known by its secret."""
        turn = sender.turn
        return self.send(
            sender=sender.name,
            recipient=to,
            text=text,
            source="agent",
            kind=kind,
            in_reply_to=in_reply_to,
            conversation_id=turn.conversation_id if turn else None,
            hop=turn.hop + 1 if turn else 0,
        )

    def broadcast(self, sender: AgentRunner, text: str) -> list[Message]:
        """Take in one message for each agent that the sender may write to."""
        names = [
            name for name in self.config.topology.recipients(sender.name, list(self.runners)) if name != sender.name
        ]
        if not names:
            raise MessageRefused(f"the topology does not let {sender.name} write to anybody", sender=sender.name)
        return [self.send_from_agent(sender, name, text, kind="broadcast") for name in names]

    def history(self, name: str, since: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return the newest messages that an agent sent or got, oldest first."""
        found = [one for one in self.ledger.messages.values() if name in {one.sender, one.recipient}]
        if since is not None:
            ids = [one.message_id for one in found]
            found = found[ids.index(since) + 1 :] if since in ids else found
        return [one.to_dict() for one in found[-limit:]]

    def unsettled(self, name: str, prompt: str) -> Message | None:
        """Return a message to this agent that bytes were written for, and that this prompt proves."""
        for message in self.ledger.messages.values():
            if (
                message.recipient == name
                and message.status in {"claimed", "written", "uncertain"}
                and message.expected is not None
                and message.expected.rstrip() == prompt.rstrip()
            ):
                return message
        return None

    async def until_idle(self, names: list[str] | None, timeout_s: float | None) -> bool:
        """Wait until agents are idle and nothing is on its way to them."""
        runners = [self.runner(name) for name in names] if names else list(self.runners.values())

        def idle() -> bool:
            if any(conversation.ended is None for conversation in self.conversations.running.values()):
                return False
            return all(
                not self.mailboxes[one.name].busy and one.state in {"idle", "exited", "failed"} for one in runners
            )

        return await self.ledger.until(idle, timeout_s)

    async def conversation_over(self, conversation_id: str, timeout_s: float | None) -> dict[str, Any]:
        """Wait for the end of a conversation."""
        conversation = self.conversations.running.get(conversation_id)
        if conversation is None:
            raise ConfigError(f"there is no conversation {conversation_id!r} in this run")
        if not await self.ledger.until(lambda: conversation.ended is not None, timeout_s):
            raise ExchangeTimeout(
                f"the conversation is not over after {timeout_s:g} s "
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

        for runner in self.runners.values():
            if hmac.compare_digest(runner.token, token):
                return runner
        return None

    async def screen(self, runner: AgentRunner, *, escapes: bool = False, history: int = 0) -> str:
        """Return what an agent's pane shows."""
        if runner.pane_id is None:
            return ""
        return await self.tmux.run(
            self.driver.capture, runner.pane_id, escapes=escapes, join=not escapes, history=history
        )

    def attach(self, name: str | None = None, *, read_only: bool = False) -> list[str]:
        """Return the command that attaches a terminal."""
        pane = self.runner(name).pane_id if name else None
        return attach_argv(self.folder / "tmux.sock", self.config.session_name, pane, read_only)

    def status(self) -> dict[str, Any]:
        """Return what clients see of the cluster."""
        return {
            "name": self.config.name,
            "status": self.status_text,
            "run_id": self.record.run_id,
            "run_dir": str(self.run_dir),
            "version": __version__,
            "protocol": self.record.protocol,
            "lifetime": self.config.lifetime,
            "session_name": self.config.session_name,
            "tmux_version": self.driver.version,
            "tmux_socket": str(self.folder / "tmux.sock"),
            "attach": shlex.join(self.attach()),
            "agents": [runner.describe() for runner in self.runners.values()],
            "messages": len(self.ledger.messages),
            "events": self.journal.seq,
            "conversations": [one.to_dict() for one in self.conversations.running.values()],
            "problem": next((box.halted for box in self.mailboxes.values() if box.halted), None)
            or (self.problem.message if self.problem else None),
        }

    def roster(self, name: str) -> str:
        """Return the sentence that tells an agent who else is there."""
        others = [agent for agent in self.config.agents if agent.name != name]
        may = set(self.config.topology.recipients(name, self.config.names))
        listed = ", ".join(f"{one.name} ({one.role})" if one.role else one.name for one in others if one.name in may)
        return f"You may write to: {listed}." if listed else "You may write to nobody."

    def instructions(self, config: AgentConfig) -> str | None:
        """Return an agent's role text, and keep a copy in the run."""
        from orchestrator_lab.runtime import private_dir, write_private

        text = instructions_text(config)
        if text:
            write_private(private_dir(self.run_dir / "instructions") / f"{config.name}.md", text)
        return text

    def made_by_lab(self, folder: Path) -> bool:
        """Tell whether the lab itself created a work folder."""
        return (folder / ".orchestrator-lab-created").is_file()

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
            runner.pane_activity(message)
        elif op == "recording":
            self.journal.append(
                "recording.started",
                agent=runner.name,
                path=f"panes/{runner.name}.cast.zst",
                started_at=message.get("started_at"),
                offset_s=message.get("offset_s"),
            )
        elif op in {"recording_failed", "pane_closed"} and runner.running:
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
            await self._record_pane(runner, runner.pane_id)
            self.journal.append(
                "recording.gap", agent=runner.name, level="warning", gap_s=round(gap_s, 6), reason="keeper"
            )

    def _pane_exited(self, exit_: PaneExit) -> None:
        for runner in self.runners.values():
            if runner.pane_id == exit_.pane_id and runner.pid == exit_.pid:
                self.keeper.tell(op="end", agent=runner.name, status=exit_.status)
                self._spawn(runner.exited(exit_))

    def _watch_owner(self) -> None:
        """End the cluster with its owner, where the configuration says so."""
        record = self.record
        if record.lifetime != "owner" or record.owner_pid is None:
            return
        if not record.alive("owner"):
            self._spawn(self.shutdown("cancelled"))
            return
        if not hasattr(os, "pidfd_open"):
            self._spawn(self._poll_owner())
            return
        descriptor = os.pidfd_open(record.owner_pid)
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            logger.info("the owner %s ended: shutting down", record.owner_pid)
            self._spawn(self.shutdown("cancelled"))

        loop.add_reader(descriptor, gone)

    async def _poll_owner(self) -> None:
        """Where no pidfd exists (macOS), the owner is looked at twice a second."""
        while self.record.alive("owner"):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.5)
        await self.shutdown("cancelled")

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work failed", exc_info=task.exception())

    # small helpers ------------------------------------------------------------------------------

    def _known_secrets(self) -> list[str]:
        pairs = [*self.environ.items(), *(pair for agent in self.config.agents for pair in agent.env.items())]
        return [
            value
            for name, value in pairs
            if len(value) >= _SECRET_LENGTH and any(word in name.upper() for word in _SECRET_NAMES)
        ]

    def _tmux_environment(self) -> dict[str, str]:
        return {
            name: self.environ[name]
            for name in ("PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
            if name in self.environ
        }

    def _check_work_dirs(self) -> None:
        for runner in self.runners.values():
            folder = self.config.work_dir_of(runner.config)
            if not folder.is_dir():
                raise ConfigError(f"agent {runner.name!r}: its work folder {folder} does not exist")


def _signal_group(pid: int | None, number: int) -> None:
    """Signal a pane's process and its group (tmux makes each pane's process a session leader)."""
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
