"""One agent under its supervisor: its process, its state, its turns.

The runner owns the facts. Evidence comes in from hooks, MCP, the keeper (activity of the pane), the pane's exit and,
where nothing better exists, its screen; each piece may change the facts, and every change of the published state is
journalled with the votes behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shlex
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.agents.base import (
    Accepted,
    DialogClosed,
    DialogSeen,
    Evidence,
    FirstOutput,
    LaunchContext,
    ModelSeen,
    Ready,
    SessionEnded,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Typed,
    Usage,
    clean_environment,
)
from orchestrator_lab.agents.claude_screen import plain
from orchestrator_lab.agents.menu import read_menu
from orchestrator_lab.errors import AgentFailed, OrchestratorLabError
from orchestrator_lab.runtime import new_token, private_dir, process_start_time, write_private
from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.screenwatch import ScreenWatch
from orchestrator_lab.supervisor.spool import take_reports
from orchestrator_lab.supervisor.states import Facts, decide
from orchestrator_lab.supervisor.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.agents.base import Launch, Program
    from orchestrator_lab.config import Agent
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message
    from orchestrator_lab.tmux import PaneExit

__all__ = ["AgentRunner"]

logger = logging.getLogger(__name__)

#: Quiet after which the screen of a program that is still starting is read for questions, in seconds.
_STARTUP_QUIET_S = 0.25
#: The screen of a program whose screen says that it is ready is looked at this often, in seconds (it takes 0.3 ms).
_STARTUP_LOOK_S = 0.05
#: Without any report for this long after the terminal is ready, the screen alone may say so (hooks forbidden).
_SCREEN_READY_S = 6.0
#: Seconds between two reports of a pane's activity: where an echo or a prompt is awaited, and where quiet is.
_CLOSELY_S, _LOOSELY_S = 0.01, 1.0
#: Nothing was told yet: no interval is negative.
_UNTOLD = -1.0
#: Quiet after which a busy agent that reports is doubted, and its own record is read.
_DOUBT_QUIET_S = 2.5
#: How long readiness waits for the tools to be listed once everything else is there.
_TOOLS_WAIT_S = 8.0
#: Tries to find a turn's tokens in a record that may be written after the turn's end, in seconds from its end.
_USAGE_DELAYS_S = (0.0, 0.05, 0.2, 0.8, 2.0)
#: Pause before the screen of a reported dialog is read, in seconds.
_DIALOG_LOOK_S = 0.15
#: A reported dialog that is not on the screen after this long was answered without one, in seconds.
_DIALOG_APPEARS_S = 2.0
#: A turn's prompt is in the record a little before its report is here, in seconds.
_RECORD_SLACK_S = 2.0
#: Longest wait for an input line to be empty after it was cleared, in seconds.
_CLEAR_S = 2.0
#: Longest wait for tmux to show the end of a program that is gone, in seconds.
_FINAL_SCREEN_S = 0.5
#: A program that ends this soon after its start did not start.
_END_GRACE_S = 3.0
_PANE_IS_DEAD = re.compile(r"^Pane is dead \(.*\)$\s*\Z", re.MULTILINE)


class AgentRunner:
    """One agent of the cluster.

    Parameters
    ----------
    supervisor : Supervisor
        Journal, tmux, ledger and the other agents.
    config : ClaudeAgent, ChatAgent or ProgramAgent
        Its configuration, with the gateway resolved.
    token : str, optional
        Its secret, when it is adopted.
    """

    def __init__(self, supervisor: Supervisor, config: Agent, *, token: str | None = None) -> None:
        self.supervisor = supervisor
        self.config = config
        self.name = config.name
        self.adapter = adapter_for(config.kind)
        self.token = token or new_token()
        self.gateway_secret = new_token()
        self.folder = private_dir(supervisor.folder / "agents" / self.name)
        self.agent_id = new_id("agt_")
        self.program: Program | None = None
        self.launch: Launch | None = None
        self.context: LaunchContext | None = None
        self.session_id = str(uuid.uuid4())
        self.session_used = False
        self.transcript: Path | None = None
        self.model: str | None = config.model
        self.pane_id: str | None = None
        self.pid: int | None = None
        self.restarts = 0
        self.started_at = 0.0
        # Facts.
        self.state = "starting"
        self.running = False
        #: From the launch files on until the pane is known: what the program reports then counts already.
        self.launching = False
        #: Whether its last end was by a signal, in the middle of anything.
        self.killed = False
        self.stopping = False
        self.ready: str | None = None
        self.session_ready: Ready | None = None
        self.bracketed_paste = False
        self.tools_listed = False
        self.dialog: DialogSeen | None = None
        self.dialog_id: str | None = None
        self._undecided: tuple[str, str] | None = None
        self._dialog_since = 0.0
        self._dialog_shown = False
        self._dialog_look: asyncio.TimerHandle | None = None
        self.turn: Turn | None = None
        self.last_turn: Turn | None = None
        self.delivering: Message | None = None
        self.typed: Typed | None = None
        self.doubt: str | None = None
        self.error: OrchestratorLabError | None = None
        self.last_screen = ""
        #: Turns whose tokens are still being read.
        self.amending = 0
        self.activity = asyncio.Event()
        #: How closely the keeper was told to follow the pane.
        self._followed: float | None = _UNTOLD
        self.last_activity = 0.0
        #: True from adoption until what the last supervisor knew is restored.
        self._recovering = False
        self._exiting = False
        #: True for a process that an earlier supervisor started.
        self._adopted = False
        #: The program's own ids of the prompts that it is known to have taken.
        self.prompts_taken: set[str] = set()
        self.watch = ScreenWatch(self)
        self._quiet: asyncio.TimerHandle | None = None
        self._fifo_fd: int | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # start and end ------------------------------------------------------------------------------

    def locate(self) -> Program:
        """Find the program, or raise ProgramNotFound before anything is started."""
        environ = {**clean_environment(self.supervisor.environ), **self.config.env}
        self.program = self.adapter.locate(self.config, environ)
        return self.program

    def announce(self) -> None:
        """Journal that the agent belongs to the cluster."""
        program = self.program or self.locate()
        instructions = self.supervisor.instructions(self.config)
        cols, rows = self.supervisor.config.size_of(self.config)
        self.supervisor.journal.append(
            "agent.added",
            agent=self.name,
            agent_id=self.agent_id,
            name=self.name,
            role=self.config.role,
            kind=self.config.kind,
            program=program.name,
            program_version=program.version,
            provider=program.provider,
            model=self.config.model,
            cwd=str(self.supervisor.config.work_dir_of(self.config)),
            cols=cols,
            rows=rows,
            instructions_sha256=hashlib.sha256(instructions.encode()).hexdigest() if instructions else None,
        )

    def _launch_context(self) -> LaunchContext:
        supervisor = self.supervisor
        work_dir = supervisor.config.work_dir_of(self.config)
        gateway = self.config.gateway is not None and self.config.gateway.mode != "none"
        environ = {**clean_environment(supervisor.environ), **self.config.env}
        environ.update(
            ORCHESTRATOR_LAB_AGENT=self.name,
            ORCHESTRATOR_LAB_AGENT_TOKEN=self.token,
            ORCHESTRATOR_LAB_AGENT_URL=supervisor.url,
            TERM="tmux-256color",
            COLORTERM="truecolor",
        )
        for name in ("NO_PROXY", "no_proxy"):
            # A proxy for the world must not stand between an agent and the lab.
            known = [host for host in environ.get(name, "").split(",") if host]
            environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost"]))
        return LaunchContext(
            cluster=supervisor.config.name,
            folder=self.folder,
            work_dir=work_dir,
            work_dir_is_ours=supervisor.made_by_lab(work_dir),
            transcripts=private_dir(supervisor.run_dir / "transcripts"),
            environ=environ,
            url=supervisor.url,
            token=self.token,
            gateway_url=f"{supervisor.url}/gateway/{self.gateway_secret}" if gateway else None,
            instructions=supervisor.instructions(self.config),
            roster=supervisor.roster(self.name),
            session_id=self.session_id,
            # A session that never took a prompt has no record yet, and nothing to resume.
            resume=self.session_used and self.transcript is not None and self.transcript.exists(),
        )

    def write_launch(self) -> list[str]:
        """Write the launch files; return the command that a pane runs (it holds no secret)."""
        program = self.program or self.locate()
        self.context = self._launch_context()
        self._open_fifo()
        self.launching = True
        self.ready, self.session_ready, self.tools_listed, self.bracketed_paste = None, None, False, False
        self.launch = self.adapter.prepare(self.config, program, self.context)
        self.transcript = self.launch.transcript
        self.model = self.launch.model or self.model
        lines = ["unset TMUX TMUX_PANE"]
        lines += [
            f"export {key}={shlex.quote(value)}" for key, value in self.launch.environ.items() if key.isidentifier()
        ]
        lines.append(f"cd {shlex.quote(str(self.context.work_dir))} || exit 97")
        lines.append(f"exec {shlex.join(self.launch.argv)}")
        write_private(self.folder / "launch.sh", "\n".join(lines) + "\n")
        self.save()
        return ["/bin/sh", str(self.folder / "launch.sh")]

    def save(self) -> None:
        """Keep what a new supervisor needs to adopt this agent."""
        write_private(
            self.folder / "agent.json",
            json.dumps(
                {
                    "agent_id": self.agent_id,
                    "token": self.token,
                    "gateway_secret": self.gateway_secret,
                    "session_id": self.session_id,
                    "session_used": self.session_used,
                    "transcript": str(self.transcript) if self.transcript else None,
                    "restarts": self.restarts,
                    "config": json.loads(self.config.model_dump_json(by_alias=True)),
                }
            ),
        )

    def started(self, pane_id: str, pid: int, *, restart: int | None = None) -> None:
        """Take note of a process that was started in the pane."""
        self.pane_id, self.pid = pane_id, pid
        self.launching = self._adopted = False
        self.running, self.stopping, self.doubt, self.error = True, False, None, None
        self.started_at = time.monotonic()
        self.supervisor.journal.append(
            "agent.started", agent=self.name, pid=pid, pane_id=pane_id, session_id=self.session_id, restart=restart
        )
        self.publish()
        self._check_ready()
        self._arm_quiet(_STARTUP_QUIET_S)
        self.supervisor.tell_early_exit(pane_id, pid)

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take on the identity that an earlier supervisor gave to this agent."""
        self.agent_id = kept.get("agent_id", self.agent_id)
        self.gateway_secret = kept.get("gateway_secret", self.gateway_secret)
        self.session_id = kept.get("session_id", self.session_id)
        self.session_used = bool(kept.get("session_used", False))
        self.restarts = int(kept.get("restarts", 0))
        self.transcript = Path(kept["transcript"]) if kept.get("transcript") else None

    def adopted(self, pane_id: str, pid: int, *, alive: bool, ready: str | None, dialog: DialogSeen | None) -> None:
        """Go on with a pane that an earlier supervisor started."""
        self.pane_id, self.pid, self.running = pane_id, pid, alive
        self.ready = ready if alive else None
        self.dialog = dialog if alive else None
        self.started_at = time.monotonic()
        self._recovering = self._adopted = True
        self._open_fifo()
        self.supervisor.note_state(self.name)
        if alive and ready is None:
            self.context = self._launch_context()
            self.read_session_file()
        if alive:
            # A program that has long been quiet reports nothing more by itself.
            self._arm_quiet(_STARTUP_QUIET_S if ready is None else _DOUBT_QUIET_S)
        self.publish()

    def publish(self) -> None:
        """Decide the state from the facts, and journal it when it changed."""
        if self.launching:
            return
        facts = Facts(
            running=self.running,
            ready=self.ready,
            dialog=self.dialog.source if self.dialog else None,
            turn=self.turn.source if self.turn else None,
            composing=self.delivering is not None,
            doubt=self.doubt,
            failed=self.error is not None,
        )
        state, source = decide(facts)
        if state != self.state or not self.supervisor.journalled_state(self.name):
            previous, self.state = self.state, state
            self.supervisor.note_state(self.name)
            self.supervisor.journal.append(
                "agent.state",
                agent=self.name,
                turn_id=self.turn.turn_id if self.turn else None,
                source=source,
                state=state,
                previous=previous if previous != state else None,
                votes=facts.votes(),
            )
        self.follow(self._closely())
        self.supervisor.ledger.poke()

    def follow(self, every_s: float | None) -> None:
        """Have the keeper tell this pane's activity at most so often; None: only when its modes change."""
        if every_s != self._followed:
            self._followed = every_s
            self.supervisor.keeper.tell(op="follow", agent=self.name, every_s=every_s)

    def follow_closely(self) -> None:
        """Have this pane's activity told at once, until the state says otherwise."""
        self.follow(_CLOSELY_S)

    def follow_again(self) -> None:
        """Tell a keeper that may be new how closely this pane is followed."""
        if self._followed != _UNTOLD:
            every_s, self._followed = self._followed, _UNTOLD
            self.follow(every_s)

    def _closely(self) -> float | None:
        """Return how often this pane's activity is worth being told."""
        if self.state == "idle":
            return None
        # A program that reports is looked at for its echo and its questions; else quiet is all that counts.
        echo = self.delivering is not None and self.adapter.echo_timeout_s > 0
        looked_at = echo or not self.adapter.reports or self.state != "busy"
        return _CLOSELY_S if looked_at else _LOOSELY_S

    async def exited(self, exit: PaneExit) -> None:  # noqa: A002 - tmux's word
        """Settle everything that hung on the process."""
        if not self.running or self._exiting:
            return
        # From here to the published state nothing waits: whoever sees that it ends sees how.
        self._exiting = True
        try:
            with contextlib.suppress(OrchestratorLabError):
                self.last_screen = await self._final_screen()
        finally:
            self._exiting = False
        self.running, self.killed = False, bool(exit.signal)
        early = self.ready is None and not self.stopping
        quick = time.monotonic() - self.started_at < _END_GRACE_S and not self.stopping and self.turn is None
        if early or (quick and exit.status not in {0, None}):
            how = f"signal {exit.signal}" if exit.signal else f"exit status {exit.status}"
            tail = "\n".join(line for line in self.last_screen.splitlines() if line.strip())[-2000:]
            program = self.program.argv[0] if self.program else self.config.kind
            self.error = AgentFailed(
                f"agent {self.name!r}: {program} ended with {how} before it was ready; its last screen was:\n{tail}",
                agent=self.name,
                exit_code=exit.status,
                screen=tail,
            )
            self.supervisor.journal.append(
                "agent.failed",
                agent=self.name,
                level="error",
                error_type="AgentFailed",
                error_message=self.error.message.split("\n", 1)[0],
                screen=tail,
            )
        self.supervisor.journal.append(
            "agent.exited",
            agent=self.name,
            source="process",
            exit_code=exit.status,
            signal=exit.signal,
        )
        self._close_dialog("program", "gone with the program", "process")
        self.ended_in_turn()
        self.supervisor.conversations.agent_ended(self.name)
        self.publish()
        await self.keep_transcript()

    def lives(self) -> bool:
        """Tell whether its process lives at this moment, sooner than its end is told."""
        return self.running and self.pid is not None and process_start_time(self.pid) is not None

    def ended_in_turn(self) -> None:
        """End a turn that its program's end has cut off."""
        if self.turn is not None:
            self.apply([TurnEnded("process", None, "exited", None, f"{self.name} ended during the turn")])

    @property
    def asks_a_person(self) -> bool:
        """Whether a question stands on its screen that the lab may not answer by itself."""
        return self.dialog is not None and self.dialog.answer is None

    async def _final_screen(self) -> str:
        """Return what the pane showed at the end, once tmux has read the last of it.

        tmux writes "Pane is dead" below the last screen when it has, and pushes the first line out of sight for that.
        """
        deadline = time.monotonic() + _FINAL_SCREEN_S
        while True:
            screen = (await self.supervisor.screen(self, history=1)).rstrip()
            if _PANE_IS_DEAD.search(screen) or time.monotonic() > deadline:
                return _PANE_IS_DEAD.sub("", screen).rstrip()
            await asyncio.sleep(0.02)

    async def keep_transcript(self, source: Path | None = None, name: str | None = None) -> None:
        """Keep the program's own record, by default that of its present session, in the run, known secrets masked."""
        source = source or self.transcript
        if source is None:
            return
        target = self.supervisor.run_dir / "transcripts" / f"{name or self.name}.jsonl"
        if source.parent == target.parent:
            if self.running:
                return  # it is being written there, by the program itself
            target = source
        try:
            data = await asyncio.to_thread(source.read_bytes)
        except OSError:
            return
        masked = await asyncio.to_thread(self.supervisor.mask_bytes, data)
        if source != target or masked != data:
            await asyncio.to_thread(write_private, target, masked)

    def close(self) -> None:
        """Let go of timers, pipes and tasks."""
        for timer in (self._quiet, self._dialog_look):
            if timer is not None:
                timer.cancel()
        if self._fifo_fd is not None:
            asyncio.get_running_loop().remove_reader(self._fifo_fd)
            os.close(self._fifo_fd)
            self._fifo_fd = None
        for task in self._tasks:
            task.cancel()

    # evidence -----------------------------------------------------------------------------------

    def hook(self, payload: Mapping[str, Any]) -> None:
        """Take in one hook of the program."""
        self.apply(self.adapter.hook(payload))

    def tools_were_listed(self) -> None:
        """Take note that the program's MCP client asked for the tools."""
        self.tools_listed = True
        self._check_ready()

    def apply(self, evidence: list[Evidence]) -> None:
        """Act on evidence, piece by piece."""
        for piece in evidence:
            match piece:
                case Ready():
                    self._session(piece)
                case Accepted():
                    self._accepted(piece)
                case FirstOutput():
                    self._first_output(piece.source)
                case ToolStarted():
                    self._tool_started(piece)
                case ToolEnded():
                    self._tool_ended(piece)
                case TurnEnded():
                    self._turn_ended(piece)
                case DialogSeen():
                    self._dialog_seen(piece)
                case DialogClosed():
                    self._dialog_closed(piece)
                case ModelSeen():
                    self._model(piece.model)
                case SessionEnded():
                    logger.info("%s: session ended (%s)", self.name, piece.reason)
                case _:
                    logger.error("%s: unknown evidence %r", self.name, piece)
        self.publish()

    def _session(self, ready: Ready) -> None:
        self.session_ready = ready
        old = self.transcript
        if ready.transcript:
            self.transcript = Path(ready.transcript)
        if ready.session_id and ready.session_id != self.session_id:
            if old is not None and old != self.transcript and self.session_used:
                self._spawn(self.keep_transcript(old, f"{self.name}.{self.session_id}"))
            self.session_id = ready.session_id
            self.supervisor.journal.append(
                "agent.session", agent=self.name, source=ready.source, session_id=ready.session_id
            )
        self.session_used = True
        self.save()
        if ready.model:
            self._model(ready.model)
        self._check_ready()

    def _model(self, model: str) -> None:
        if model != self.model:
            self.model = model
            self.supervisor.journal.append("agent.model", agent=self.name, model=model)

    def _check_ready(self) -> None:
        if self.ready is not None or not self.running or self.session_ready is None:
            return
        on_screen = self.session_ready.source == "screen" and not self._starts_on_screen
        if not self.bracketed_paste and not on_screen:
            return
        if self._waits():
            self._later(_TOOLS_WAIT_S / 8, self._check_ready)
            return
        self.ready = self.session_ready.source
        self._close_dialog("human", None, "screen")
        self.supervisor.journal.append("agent.ready", agent=self.name, source=self.ready)
        self.publish()

    def _waits(self) -> bool:
        """Tell whether readiness waits for the tools to be listed."""
        wants_tools = getattr(self.config, "mcp", False) and self.session_ready is not None
        told = self.session_ready is not None and (self.session_ready.source == "hook" or self._starts_on_screen)
        listed = self.tools_listed or not told
        return wants_tools and not listed and time.monotonic() - self.started_at < _TOOLS_WAIT_S

    def is_ready(self, source: str) -> None:
        """Take the program for ready on another evidence than its own report."""
        if self.session_ready is None:
            self.session_ready = Ready(source)
        self._check_ready()
        if self.ready is None and self.running:
            self.ready = source
            self.supervisor.journal.append("agent.ready", agent=self.name, source=source)
            self.publish()

    # turns --------------------------------------------------------------------------------------

    def _accepted(self, accepted: Accepted) -> None:
        if accepted.session_id and accepted.session_id != self.session_id:
            self._session(Ready(accepted.source, accepted.session_id))
        if accepted.joined:
            self._joined(accepted)
            return
        if self._told_again(accepted):
            return
        self._end_overtaken(accepted)
        message = self.delivering if self.delivering is not None and self.delivering.in_pane else None
        if message is None:
            message = self.supervisor.routing.unsettled(self.name, accepted.prompt)
        if message is not None and message.expected is not None and not _same(accepted.prompt, message.expected):
            if message.status in {"claimed", "written"} and message.content.strip() in accepted.prompt:
                self.supervisor.ledger.advance(
                    message,
                    "uncertain",
                    source=accepted.source,
                    error_type="prompt_differs",
                    error_message=f"{self.name} took a prompt that holds more than the message",
                )
            message = self.supervisor.routing.unsettled(self.name, accepted.prompt)
        if message is None:
            message = self._typed_by_a_person(accepted)
        message.expected = message.expected or accepted.prompt
        if self.turn is None:
            self.turn = Turn(
                new_id("trn_"),
                accepted.prompt,
                accepted.prompt_id,
                [message.message_id],
                accepted.source,
                hop=message.hop,
                conversation_id=message.conversation_id,
            )
            self.supervisor.ledger.advance(message, "accepted", source=accepted.source, turn_id=self.turn.turn_id)
            self.supervisor.journal.append(
                "turn.started",
                agent=self.name,
                turn_id=self.turn.turn_id,
                message_id=message.message_id,
                source=accepted.source,
                message_ids=[message.message_id],
                prompt_id=accepted.prompt_id,
            )
        elif message.message_id not in self.turn.message_ids:
            self.turn.message_ids.append(message.message_id)
            self.turn.prompt_id = accepted.prompt_id or self.turn.prompt_id
            self.supervisor.ledger.advance(message, "accepted", source=accepted.source, turn_id=self.turn.turn_id)
        self.doubt = None

    def _end_overtaken(self, accepted: Accepted) -> None:
        """End a turn that nothing ended, since the program began another one."""
        turn = self.turn
        if turn is None or None in {turn.prompt_id, accepted.prompt_id} or turn.prompt_id == accepted.prompt_id:
            return
        record = self._by_record(turn.prompt or "", turn.began_at - _RECORD_SLACK_S)
        ended = [piece for piece in record if isinstance(piece, TurnEnded) and piece.prompt_id == turn.prompt_id]
        if ended and ended[0].reason == "completed" and ended[0].reply is None:
            ended = []
        self._turn_ended(ended[0] if ended else TurnEnded(accepted.source, None, "interrupted", turn.prompt_id))

    def _joined(self, accepted: Accepted) -> None:
        """Take note of a text that went into a turn which was running; no hook tells of it."""
        turns = [one for one in (self.turn, self.last_turn) if one is not None]
        turn = next((one for one in turns if one.prompt_id == accepted.prompt_id), None)
        if turn is None:
            return
        messages = self.supervisor.ledger.messages
        known = [messages[one].expected or "" for one in turn.message_ids]
        message = self.delivering if self.delivering is not None and self.delivering.in_pane else None
        if message is None or message.status != "written" or not _same(accepted.prompt, message.expected or ""):
            message = self.supervisor.routing.unsettled(self.name, accepted.prompt)
        if message is None:
            if any(_same(accepted.prompt, one) for one in known):
                return
            message = self._typed_by_a_person(accepted)
        turn.message_ids.append(message.message_id)
        self.supervisor.ledger.advance(message, "accepted", source=accepted.source, turn_id=turn.turn_id)
        if turn.first_output:
            self.supervisor.ledger.advance(message, "started", source=accepted.source, turn_id=turn.turn_id)
        if turn.ended is not None:
            self._settle(message, turn, turn.ended)

    def _by_record(self, prompt: str, since: float) -> list[Evidence]:
        """Read what was added to the program's own record, a few kilobytes, at once."""
        if self.transcript is None or not self.adapter.reports:
            return []
        return self.adapter.transcript(self.transcript, prompt=prompt, since=since)

    def _told_again(self, accepted: Accepted) -> bool:
        """Tell whether a prompt is known already: from the record, or told to a supervisor that died over it."""
        if accepted.prompt_id is None:
            return False
        turn = self.turn
        known = accepted.prompt_id in self.prompts_taken
        self.prompts_taken.add(accepted.prompt_id)
        if turn is not None and turn.prompt_id is None and turn.prompt and _same(accepted.prompt, turn.prompt):
            turn.prompt_id = accepted.prompt_id
            return True
        return known

    def _typed_by_a_person(self, accepted: Accepted) -> Message:
        """Make a row for a prompt that nobody sent through the lab."""
        ledger = self.supervisor.ledger
        message = ledger.queue(
            sender="user", recipient=self.name, content=accepted.prompt, kind="direct", source="human"
        )
        message.expected = accepted.prompt
        return message

    def _first_output(self, source: str) -> None:
        if self.turn is None or self.turn.first_output:
            return
        self.turn.first_output = True
        self.supervisor.journal.append("turn.first_output", agent=self.name, turn_id=self.turn.turn_id, source=source)
        for message_id in self.turn.message_ids:
            self.supervisor.ledger.advance(
                self.supervisor.ledger.messages[message_id], "started", source=source, turn_id=self.turn.turn_id
            )

    def _tool_started(self, tool: ToolStarted) -> None:
        if self.turn is not None:
            self.turn.tools.add(tool.tool_call_id)
        self.supervisor.journal.append(
            "tool.started",
            agent=self.name,
            turn_id=self.turn.turn_id if self.turn else None,
            source=tool.source,
            tool_call_id=tool.tool_call_id,
            name=tool.name,
            input=tool.input,
        )

    def _tool_ended(self, tool: ToolEnded) -> None:
        self.supervisor.journal.append(
            "tool.ended",
            agent=self.name,
            turn_id=self.turn.turn_id if self.turn else None,
            source=tool.source,
            tool_call_id=tool.tool_call_id,
            output=tool.output,
            status=tool.status,
            error_message=tool.error_message,
        )

    def _turn_ended(self, ended: TurnEnded) -> None:
        turn = self.turn
        if turn is None:
            return
        if ended.prompt_id and turn.prompt_id and ended.prompt_id != turn.prompt_id:
            return
        if turn.interrupted and not self.adapter.reports:
            ended = dataclasses.replace(ended, reason="interrupted")
        on_its_way = self.delivering
        if on_its_way is not None and on_its_way.status == "written" and on_its_way.message_id not in turn.message_ids:
            # Typed while the turn ran: the turn may have taken it in, which only the record tells.
            for piece in self._by_record(on_its_way.expected or "", on_its_way.claimed_at):
                if isinstance(piece, Accepted) and piece.joined:
                    self._joined(piece)
        if ended.reason == "interrupted" and self._undecided is not None:
            self._dialog_closed(DialogClosed(ended.source, self._undecided[1], "deny"))
        if self.dialog is not None and self.ready is not None:
            self._close_dialog("human", "deny" if ended.reason == "interrupted" else None, ended.source)
        self.turn, self.last_turn = None, turn
        turn.reply, turn.ended = ended.reply, ended
        if ended.usage is not None:
            self._usage(turn, ended.usage)
        self.supervisor.journal.append(
            "turn.ended",
            agent=self.name,
            turn_id=turn.turn_id,
            source=ended.source,
            reply=ended.reply,
            end_reason=ended.reason,
            error_message=ended.error_message,
        )
        for message_id in turn.message_ids:
            self._settle(self.supervisor.ledger.messages[message_id], turn, ended)
        if ended.usage is None and self.transcript is not None and self.adapter.reports:
            self.amending += 1
            self._spawn(self._amend_usage(turn))

    def _settle(self, message: Message, turn: Turn, ended: TurnEnded) -> None:
        """Give a message the outcome of the turn that took it."""
        ledger = self.supervisor.ledger
        message.reply = ended.reply
        if ended.reason in {"interrupted", "error", "exited", "limit"}:
            ledger.advance(
                message,
                "failed",
                source=ended.source,
                turn_id=turn.turn_id,
                error_type=f"turn_{ended.reason}",
                error_message=ended.error_message or f"the turn of {self.name} was {ended.reason}",
            )
        else:
            ledger.advance(message, "answered", source=ended.source, turn_id=turn.turn_id)
        self.supervisor.conversations.turn_over(message, ended)

    def _usage(self, turn: Turn, usage: Usage) -> None:
        self.supervisor.journal.append(
            "turn.usage", agent=self.name, turn_id=turn.turn_id, source="transcript", **usage.attributes()
        )
        if usage.model:
            self._model(usage.model)

    async def _amend_usage(self, turn: Turn) -> None:
        """Read the turn's tokens from the program's record, which may be written after the turn's end."""
        last: Usage | None = None
        try:
            for delay in _USAGE_DELAYS_S:
                await asyncio.sleep(delay)
                if self.transcript is None:
                    return
                usage = await asyncio.to_thread(
                    self.adapter.usage, self.transcript, prompt_id=turn.prompt_id, prompt=turn.prompt
                )
                if usage is not None and usage != last:
                    last = usage
                    if usage.final:
                        break
            # A person may have typed while it ran: the record alone tells of texts that the turn took in.
            for piece in await asyncio.to_thread(self._by_record, turn.prompt or "", turn.began_at - _RECORD_SLACK_S):
                if isinstance(piece, Accepted) and piece.joined:
                    self._joined(piece)
        finally:
            self.amending -= 1
            if last is not None:
                self._usage(turn, last)
            self.supervisor.ledger.poke()

    # dialogs ------------------------------------------------------------------------------------

    def _dialog_seen(self, dialog: DialogSeen) -> None:
        if self.dialog is not None and (self.dialog.kind, self.dialog.subject) == (dialog.kind, dialog.subject):
            return
        self._close_dialog("human", None, dialog.source)
        self.dialog, self.dialog_id = dialog, new_id("dlg_")
        self._dialog_since, self._dialog_shown = time.monotonic(), False
        self.supervisor.journal.append(
            "dialog.opened",
            agent=self.name,
            turn_id=self.turn.turn_id if self.turn else None,
            source=dialog.source,
            dialog_id=self.dialog_id,
            kind=dialog.kind,
            subject=dialog.subject,
            options=list(dialog.options),
        )
        if dialog.answer is not None:
            self._spawn(self._answer(dialog))
        if self.ready is not None and self.adapter.styled:
            self._look_at_dialog_soon()

    def _look_at_dialog_soon(self) -> None:
        if self._dialog_look is None:
            self._dialog_look = asyncio.get_running_loop().call_later(
                _DIALOG_LOOK_S, lambda: self._spawn(self._look_at_dialog())
            )

    async def _look_at_dialog(self) -> None:
        """Read the options of a reported dialog, and see when it has gone: what it let begin may take long."""
        self._dialog_look = None
        dialog, dialog_id = self.dialog, self.dialog_id
        if dialog is None or self.ready is None or not self.running:
            return
        screen = await self.supervisor.screen(self, escapes=True)
        if self.dialog_id != dialog_id or dialog_id is None:
            return
        if self.adapter.composer(screen, Typed("", "")) == "unknown":
            menu = read_menu(plain(screen))
            if not self._dialog_shown and menu is not None and not dialog.options:
                self.dialog = dataclasses.replace(dialog, options=menu.options)
                self.supervisor.journal.append(
                    "dialog.opened",
                    agent=self.name,
                    turn_id=self.turn.turn_id if self.turn else None,
                    source="screen",
                    dialog_id=dialog_id,
                    kind=dialog.kind,
                    subject=dialog.subject,
                    options=list(menu.options),
                )
                self._dialog_shown = True
            elif menu is None:
                self._look_at_dialog_soon()
        elif self._dialog_shown or time.monotonic() - self._dialog_since > _DIALOG_APPEARS_S:
            self._close_dialog("human", None, "screen")
            self.publish()
        else:
            self._look_at_dialog_soon()

    def _dialog_closed(self, closed: DialogClosed) -> None:
        if self.dialog is not None and closed.subject in {None, self.dialog.subject}:
            self._close_dialog("human", closed.decision, closed.source)
        elif closed.decision is not None and self._undecided is not None and self._undecided[1] == closed.subject:
            # The screen showed that it was answered; only now it is known how.
            self.supervisor.journal.append(
                "dialog.answered",
                agent=self.name,
                source=closed.source,
                dialog_id=self._undecided[0],
                answered_by="human",
                decision=closed.decision,
            )
            self._undecided = None

    def _close_dialog(self, by: str, decision: str | None, source: str) -> None:
        if self.dialog is None:
            return
        self.supervisor.journal.append(
            "dialog.answered",
            agent=self.name,
            source=source,
            dialog_id=self.dialog_id,
            answered_by=by,
            decision=decision,
        )
        undecided = self.dialog.kind == "permission" and decision is None
        self._undecided = (str(self.dialog_id), self.dialog.subject) if undecided else None
        self.dialog, self.dialog_id = None, None

    async def _answer(self, dialog: DialogSeen) -> None:
        """Choose an option by its label, and look at the screen before Enter is pressed."""
        if dialog.answer is None or self.pane_id is None:
            return
        if await self.watch.choose(dialog.answer):
            self._close_dialog("policy", dialog.answer, "screen")
            self.publish()

    # the pane -----------------------------------------------------------------------------------

    def pane_activity(self, message: Mapping[str, Any]) -> None:
        """Take note of output that the keeper saw."""
        self.last_activity = time.monotonic()
        modes = message.get("modes")
        if isinstance(modes, dict) and "bracketed_paste" in modes:
            self.bracketed_paste = bool(modes["bracketed_paste"])
        self.activity.set()
        self.activity = asyncio.Event()
        if self.dialog is not None and self.ready is not None and self.adapter.styled:
            self._look_at_dialog_soon()
        if self.ready is None:
            self._check_ready()
            if self._starts_on_screen and self._looks_within(_STARTUP_LOOK_S):
                return  # an animated start is never quiet: its screen is looked at while it goes on
        self._arm_quiet(self._quiet_s())

    @property
    def _starts_on_screen(self) -> bool:
        """Whether the program's screen, and nothing else, says that it is ready."""
        return bool(getattr(self.adapter, "starts_on_screen", False))

    @property
    def _doubt_quiet_s(self) -> float:
        return float(getattr(self.adapter, "doubt_quiet_s", _DOUBT_QUIET_S))

    def _looks_within(self, delay_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        return self._quiet is not None and not self._quiet.cancelled() and now < self._quiet.when() <= now + delay_s

    def _quiet_s(self) -> float:
        """Return the quiet after which screen or record are worth a look, in seconds."""
        if self.ready is None and self._starts_on_screen:
            return _STARTUP_LOOK_S
        return min(self.watch.quiet_s(), self._doubt_quiet_s) if self.turn is not None else self.watch.quiet_s()

    def look_in(self, delay_s: float) -> None:
        """Look at the screen later, also when nothing is written until then."""
        self._arm_quiet(delay_s)

    def _arm_quiet(self, delay_s: float) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(delay_s, self._on_quiet)

    def _on_quiet(self) -> None:
        if self.running and self.pane_id is not None:
            self._spawn(self._look())

    async def _look(self) -> None:
        """Read the screen or the record, where no better evidence came while the pane was quiet."""
        if self.watch.watch is not None:
            await self.watch.look()
        elif self.ready is None:
            await self._look_at_start()
        elif self.turn is not None and time.monotonic() - self.last_activity >= self._doubt_quiet_s - 0.1:
            await self.reconcile()
        elif self.doubt is not None and self.delivering is None:
            screen = await self.supervisor.screen(self, escapes=self.adapter.styled)
            if self.adapter.composer(screen, Typed("", "")) == "empty":
                self.doubt = None
                self.publish()

    async def _look_at_start(self) -> None:
        if self.context is None:
            return
        screen = await self.supervisor.screen(self)
        found = self.adapter.startup(screen, context=self.context)
        if found:
            self.apply(found)
        elif self.dialog is not None and self.dialog.source == "screen":
            self._close_dialog("human", None, "screen")
            self.publish()
        waited = time.monotonic() - self.started_at
        if self.ready is None and self.running and self.dialog is None:
            blank = self.typed or self.adapter.typed("")
            # Of a quick program nobody may have seen that it turned bracketed paste on.
            reported = self.session_ready is not None and self.session_ready.source == "hook" and not self._waits()
            # What an adopted one reported, and the modes that it set, may have been told to the dead.
            due = reported or self._adopted or waited > _SCREEN_READY_S
            if due and self.adapter.styled:  # a suggestion in the input line is no draft
                screen = await self.supervisor.screen(self, escapes=True)
            if due and self.ready is None and self.adapter.composer(screen, blank) == "empty":
                self.is_ready("screen")
            else:
                self._arm_quiet(1.0)
        elif self.dialog is not None:
            self._arm_quiet(1.0)

    async def reconcile(self) -> bool:
        """Settle the current turn from the program's own record; True when that ended it."""
        turn = self.turn
        if turn is None or self.transcript is None or turn.prompt is None:
            return False
        found = await asyncio.to_thread(
            self.adapter.transcript, self.transcript, prompt=turn.prompt, since=turn.began_at - _RECORD_SLACK_S
        )
        if turn.prompt_id is not None:
            found = [one for one in found if not isinstance(one, TurnEnded) or one.prompt_id in {None, turn.prompt_id}]
        ended = [piece for piece in found if isinstance(piece, TurnEnded)]
        if ended and self.turn is turn:
            self.apply(list(ended))
            return True
        return await self._given_back(turn)

    async def _given_back(self, turn: Turn) -> bool:
        """End a turn whose prompt stands in the input line again, and clear the line when the text is ours."""
        if self.pane_id is None or self.turn is not turn or self.adapter.clear_key is None:
            return False
        if self.delivering is not None and self.delivering.message_id not in turn.message_ids:
            return False
        screen = await self.supervisor.screen(self, escapes=True)
        if self.turn is not turn or not self.adapter.restored(screen, turn.prompt or ""):
            return False
        messages = self.supervisor.ledger.messages
        if all(messages[one].claimed_at for one in turn.message_ids):  # a person's own text is left to them
            await self.supervisor.tmux.run(self.supervisor.driver.press, self.pane_id, self.adapter.clear_key)
            deadline = time.monotonic() + _CLEAR_S
            while self.adapter.composer(screen, Typed("", "")) != "empty" and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
                screen = await self.supervisor.screen(self, escapes=True)
        if self.turn is turn:
            self.apply([TurnEnded("screen", None, "interrupted", turn.prompt_id)])
        return True

    # small helpers ------------------------------------------------------------------------------

    def _open_fifo(self) -> None:
        path = self.folder / "ready.fifo"
        if self._fifo_fd is not None:
            return
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # Open for both, so that the last writer's close is no end of file.
        self._fifo_fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._fifo_fd, self._on_fifo)

    def _on_fifo(self) -> None:
        if self._fifo_fd is None:
            return
        with contextlib.suppress(BlockingIOError):
            os.read(self._fifo_fd, 4096)
        self.read_session_file()
        if not self._recovering:
            self.read_reports()

    def read_reports(self) -> None:
        """Take in what command hooks reported, in order."""
        take_reports(self.folder / "hooks", self.hook)

    def catch_up(self) -> None:
        """Take in what was reported while no supervisor lived, once what the last one knew is restored."""
        self._recovering = False
        for message in self.supervisor.ledger.messages.values():
            if message.recipient == self.name and message.expected is None:
                message.expected = self.adapter.typed(message.text).expected
                if self.turn is not None and self.turn.prompt is None and message.message_id in self.turn.message_ids:
                    self.turn.prompt = message.expected
        self.read_reports()

    def read_session_file(self) -> None:
        """Take in the session file that a command hook wrote."""
        try:
            payload = json.loads((self.folder / "session.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        if isinstance(payload, dict):
            self.hook(payload)

    def _later(self, delay_s: float, call: Any) -> None:  # noqa: ANN401 - a callable without arguments
        asyncio.get_running_loop().call_later(delay_s, call)

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        try:
            await work
        except OrchestratorLabError as error:
            logger.warning("%s: %s", self.name, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("%s: background work failed", self.name)

    def describe(self) -> dict[str, Any]:
        """Return what clients see of this agent."""
        return {
            "name": self.name,
            "agent_id": self.agent_id,
            "role": self.config.role,
            "kind": self.config.kind,
            "program": self.program.name if self.program else None,
            "model": self.model,
            "state": self.state,
            "ready": self.ready is not None and self.running,
            "pane_id": self.pane_id,
            "pid": self.pid if self.running else None,
            "session_id": self.session_id,
            "restarts": self.restarts,
            "cwd": str(self.supervisor.config.work_dir_of(self.config)),
            "queued": self.supervisor.mailboxes[self.name].waiting if self.name in self.supervisor.mailboxes else 0,
            "dialog": None
            if self.dialog is None
            else {
                "dialog_id": self.dialog_id,
                "kind": self.dialog.kind,
                "subject": self.dialog.subject,
                "options": list(self.dialog.options),
            },
            "error": None if self.error is None else self.error.message,
        }


def _same(prompt: str, expected: str) -> bool:
    return prompt == expected or prompt.rstrip() == expected.rstrip()
