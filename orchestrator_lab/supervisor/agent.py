"""One agent under its supervisor: its process, its state, its turns.

The runner owns the facts. Evidence comes in from hooks, MCP, the keeper (activity of the pane), the pane's exit and,
where nothing better exists, its screen; each piece may change the facts, and every change of the published state is
journalled with the votes behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import (
    Accepted,
    DialogClosed,
    DialogSeen,
    Evidence,
    FirstOutput,
    LaunchContext,
    Limited,
    Ready,
    Recorded,
    SessionEnded,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Typed,
    clean_environment,
    well_formed,
)
from orchestrator_lab.agents.claude_screen import plain
from orchestrator_lab.errors import AgentFailed, OrchestratorLabError
from orchestrator_lab.runtime import new_token, private_dir, process_start_time
from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.dialogs import Dialogs
from orchestrator_lab.supervisor.launching import LaunchFiles
from orchestrator_lab.supervisor.looking import Looking
from orchestrator_lab.supervisor.remembered import Remembered
from orchestrator_lab.supervisor.screenwatch import ScreenWatch
from orchestrator_lab.supervisor.states import Facts, deciding
from orchestrator_lab.supervisor.supervision import Supervision
from orchestrator_lab.supervisor.turnbook import TurnBook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator_lab.agents.base import Launch, Program
    from orchestrator_lab.config import Agent
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message
    from orchestrator_lab.supervisor.turns import Turn
    from orchestrator_lab.tmux import PaneExit

__all__ = ["AgentRunner"]

logger = logging.getLogger(__name__)

#: Quiet after which the screen of a program that is still starting is read for questions, in seconds.
_STARTUP_QUIET_S = 0.25
#: How long a program that is ready, and could list the lab's tools, gets no message before it has done so, in seconds.
_TOOLS_WAIT_S = 8.0
#: Longest wait for tmux to show the end of a program that is gone, in seconds.
_FINAL_SCREEN_S = 0.5
#: A program that ends this soon after its start did not start.
_END_GRACE_S = 3.0
#: Prompts whose ids are remembered: one is told again only by a program that got no answer.
_PROMPTS = 256
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
        self.adapter = supervisor.replaying.adapter(config)
        self.token = token or new_token()
        self.gateway_secret = new_token()
        self.folder = private_dir(supervisor.folder / "agents" / self.name)
        self.agent_id = new_id("agt_")
        self.program: Program | None = None
        self.launch: Launch | None = None
        self.context: LaunchContext | None = None
        self.session_id = supervisor.replaying.session_id(self.name) or str(uuid.uuid4())
        self.session_used = False
        self.transcript: Path | None = None
        self.model: str | None = config.model
        self.pane_id: str | None = None
        self.pid: int | None = None
        #: Start time of that process, its identity beside the pid.
        self.process_started: float | None = None
        self.restarts = 0
        self.started_at = 0.0
        # Facts.
        self.state = "starting"
        self.running = False
        #: From the launch files on until the pane is known: what the program reports then counts already.
        self.launching = False
        #: Lost with the tmux server, and about to be started again: what is sent to it waits.
        self.returning = False
        #: When its last process was seen to have ended.
        self.ended_at: float | None = None
        #: Whether its last end was by a signal, in the middle of anything.
        self.killed = False
        self.stopping = False
        self.ready: str | None = None
        self.session_ready: Ready | None = None
        self.bracketed_paste = False
        self.tools_listed = False
        #: Since when messages wait for the tools to be listed (monotonic), None when they do not.
        self._holds_since: float | None = None
        self.dialog: DialogSeen | None = None
        self.dialog_id: str | None = None
        self.turn: Turn | None = None
        self.last_turn: Turn | None = None
        #: Source of a turn whose end was reported and which the program has not closed yet.
        self.closing: str | None = None
        self.delivering: Message | None = None
        self.typed: Typed | None = None
        #: Journals that a text was written, while it is being typed together with its Enter.
        self.wrote: Callable[[], None] | None = None
        self.doubt: str | None = None
        #: The usage limit that its program reported and that holds still.
        self.limited: Limited | None = None
        #: Why its input line, which is always in sight, was not when it was looked at.
        self.hidden: str | None = None
        #: The rule by which its screen shows work that nothing reports.
        self.shown: str | None = None
        #: For each fact what it was when it was last decided by, and since when it is that.
        self._since: dict[str, tuple[object, float]] = {}
        self.error: OrchestratorLabError | None = None
        self.last_screen = ""
        #: Turns whose tokens are still being read.
        self.amending = 0
        self.activity = asyncio.Event()
        self.last_activity = 0.0
        #: When the program last reported anything, on the monotonic clock.
        self.last_report = 0.0
        #: True from adoption until what the last supervisor knew is restored.
        self.recovering = False
        self._exiting = False
        #: True for a process that an earlier supervisor started.
        self.was_adopted = False
        #: The program's own ids of the prompts that it is known to have taken.
        self.prompts_taken = Remembered(_PROMPTS)
        self.watch = ScreenWatch(self)
        self.files = LaunchFiles(self)
        self.looks = Looking(self)
        self.turns = TurnBook(self)
        self.dialogs = Dialogs(self)
        self.supervision = Supervision(self)
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
        if self.adapter.screens_note is not None:
            self.supervisor.journal.append(
                "note", agent=self.name, level="warning", source="screen", text=self.adapter.screens_note
            )

    def started(self, pane_id: str, pid: int, *, restart: int | None = None) -> None:
        """Take note of a process that was started in the pane."""
        self.pane_id, self.pid = pane_id, pid
        self.process_started = process_start_time(pid)
        self.files.save()
        self.launching = self.was_adopted = False
        self.running, self.stopping, self.doubt, self.error = True, False, None, None
        self.returning = False
        self.hidden = self.shown = None
        self._holds_since = None
        self.started_at = time.monotonic()
        self.supervision.began()
        self.supervisor.journal.append(
            "agent.started", agent=self.name, pid=pid, pane_id=pane_id, session_id=self.session_id, restart=restart
        )
        self.publish()
        self.check_ready()
        self.looks.arm(_STARTUP_QUIET_S)
        self.supervisor.tell_early_exit(pane_id, pid)

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take on the identity that an earlier supervisor gave to this agent."""
        self.agent_id = kept.get("agent_id", self.agent_id)
        self.gateway_secret = kept.get("gateway_secret", self.gateway_secret)
        self.session_id = kept.get("session_id", self.session_id)
        self.session_used = bool(kept.get("session_used", False))
        self.pid, self.process_started = kept.get("pid"), kept.get("process_started")
        self.transcript = Path(kept["transcript"]) if kept.get("transcript") else None

    def adopted(
        self,
        pane_id: str,
        pid: int,
        *,
        alive: bool,
        ready: str | None,
        dialog: DialogSeen | None,
        tools_listed: bool,
    ) -> None:
        """Go on with a pane that an earlier supervisor started."""
        self.tools_listed = tools_listed
        self.pane_id, self.pid, self.running = pane_id, pid, alive
        self.ready = ready if alive else None
        self.dialog = dialog if alive else None
        self.started_at = time.monotonic()
        self.recovering = self.was_adopted = True
        self.files.open_fifo()
        self.supervisor.note_state(self.name)
        if alive and ready is None:
            self.context = self.files.launch_context()
            self.files.read_session_file()
        elif alive:
            # They may be asked for once more, or were asked for while nobody was there to note it.
            self._hold_for_tools()
        if alive and self.dialog is not None and self.ready is not None and self.adapter.styled:
            self.dialogs.look_soon()
        if alive:
            # A program that has long been quiet reports nothing more by itself.
            self.looks.arm(_STARTUP_QUIET_S if ready is None else self.adapter.doubt_quiet_s)
        self.publish()

    def publish(self) -> None:
        """Decide the state from the facts, and journal it when it changed."""
        if self.launching or (self.running and self.supervisor.rebuild.gone):
            return  # what is to be published follows in a moment
        facts = self.known()
        state, source, fact = deciding(facts)
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
                decision=fact,
            )
        self.looks.follow(self.looks.closely())
        self.supervisor.ledger.poke()

    def known(self) -> Facts:
        """Return what is known of it now, and since when."""
        now = time.monotonic()
        marks: dict[str, object] = {
            "running": (self.running, self.pid),
            "ready": self.ready,
            "dialog": self.dialog_id,
            "turn": self.turn.turn_id if self.turn else self.closing,
            "composing": self.delivering.message_id if self.delivering else None,
            "limited": self.limited,
            "shown": self.shown,
            "doubt": self.doubt,
            "hidden": self.hidden,
        }
        for name, mark in marks.items():
            if name not in self._since or self._since[name][0] != mark:
                self._since[name] = (mark, now)
        ages = {name: now - since for name, (_, since) in self._since.items()}
        if self.last_activity:
            ages["terminal"] = now - self.last_activity
        return Facts(
            running=self.running,
            ready=self.ready,
            dialog=self.dialog.source if self.dialog else None,
            turn=self.turn.source if self.turn else self.closing,
            composing=self.delivering is not None,
            doubt=self.doubt,
            failed=self.error is not None,
            limited=self.limited.source if self.limited else None,
            shown=self.shown,
            hidden=self.hidden,
            ages=ages,
        )

    async def explain(self) -> dict[str, Any]:
        """Return why it is in its state: the votes with their ages, and what its screen shows by which rule."""
        screen, title = "", ""
        if self.pane_id is not None:
            screen = await self.supervisor.screen(self, escapes=self.adapter.styled)
            title = "".join(
                await self.supervisor.tmux.run(
                    self.supervisor.driver.run, "display-message", "-p", "-t", self.pane_id, "#{pane_title}"
                )
            )
            await self.looks.look_at_rest()
        text = plain(screen)
        facts = self.known()
        state, source, fact = deciding(facts)
        rules = self.adapter.screens
        return {
            "agent": self.name,
            "state": state,
            "source": source,
            "decision": fact,
            "votes": facts.votes(),
            "screen": {
                "input_line": self.adapter.composer(screen, Typed("", "")) if self.adapter.styled else None,
                "title": title,
                "rules": rules.file or None,
                "measured": rules.measured or None,
                "note": self.adapter.screens_note,
                "matched": [
                    {"rule": rule.name, "region": rule.region, "means": rule.dialog or rule.state, "line": line}
                    for rule, line in self.adapter.matches(text, starting=self.ready is None, title=title)
                ],
            },
            "dialog": self.describe()["dialog"],
        }

    async def exited(self, exit: PaneExit) -> None:  # noqa: A002 - tmux's word
        """Settle everything that hung on the process."""
        if not self.running or self._exiting:
            return
        early = self.ready is None and not self.stopping
        quick = time.monotonic() - self.started_at < _END_GRACE_S and not self.stopping and self.turn is None
        failed = early or (quick and exit.status not in {0, None})
        watched = not self.adapter.reports and (self.turn is not None or self.delivering is not None)
        self.last_screen = ""
        if failed or watched:  # else nobody needs it, and its end is told at once
            self._exiting = True
            try:
                with contextlib.suppress(OrchestratorLabError):
                    self.last_screen = await self._final_screen()
            finally:
                self._exiting = False
        if not self.running:
            return  # lost with the tmux server meanwhile, and settled
        # From here to the published state nothing waits: whoever sees that it ends sees how.
        self.running, self.killed, self.ended_at = False, bool(exit.signal), time.monotonic()
        if failed and not self.stopping:
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
        self.dialogs.close_all(None, "gone with the program", "process")
        self.supervision.ended(exit)
        self.turns.ended_in_turn()
        if not self.supervision.pending:
            self.supervisor.conversations.agent_ended(self.name)
        self.publish()
        await self.files.keep_transcript()
        if not self.stopping:
            self.supervisor.background(self.supervisor.lifecycle.tell_left(self))

    @property
    def gone(self) -> bool:
        """Whether its program ended, and nothing but a person will start it again."""
        return not self.running and self.state in {"exited", "failed"} and not self.comes_back

    @property
    def comes_back(self) -> bool:
        """Whether its program ended and is about to be started again, by its policy or with a new tmux server."""
        return self.supervision.pending or self.returning

    @property
    def was_stopped(self) -> bool:
        """Whether somebody ended its program."""
        return self.stopping and not self.running

    def unhoused(self) -> None:
        """Take on an agent whose pane went with a tmux server, until what hung on it is settled."""
        self.running = self.recovering = self.was_adopted = True
        self.supervisor.note_state(self.name)

    def lost(self) -> None:
        """Settle what hung on a process that ended with its tmux server: no failure of its own."""
        self.pane_id, self.killed, self.ready = None, True, None
        self.supervision.lost()
        if not self.running:
            return
        self.running = self.launching = False
        self.supervisor.journal.append("agent.exited", agent=self.name, source="process", reason="tmux")
        self.dialogs.close_all(None, "gone with the program", "process")
        self.turns.ended_in_turn()
        self.publish()

    def lives(self) -> bool:
        """Tell whether its process lives at this moment, sooner than its end is told."""
        return self.running and self.pid is not None and process_start_time(self.pid) is not None

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

    def close(self) -> None:
        """Let go of timers, pipes and tasks."""
        self.supervision.close()
        self.looks.stop()
        self.dialogs.stop()
        self.files.close()
        for task in self._tasks:
            task.cancel()

    # evidence -----------------------------------------------------------------------------------

    def hook(self, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Take in one hook of the program; return what it is to be told, None when it waits for nothing."""
        self.last_report = time.monotonic()
        self.apply(self.adapter.hook(well_formed(payload)))
        if self.turn is not None and not self.running and not self.launching:
            # It was on its way when the program ended, and is the last that will be heard of this turn.
            self.turns.ended_in_turn()
        return self.dialogs.take_reply()

    def tools_were_listed(self) -> None:
        """Take note that the program's MCP client asked for the tools, and got them."""
        if not self.tools_listed:
            self.tools_listed = True
            self.supervisor.journal.append("agent.tools", agent=self.name, source="mcp")
            self.check_ready()
            self.supervisor.ledger.poke()

    def apply(self, evidence: list[Evidence]) -> None:
        """Act on evidence, piece by piece."""
        for piece in evidence:
            match piece:
                case Ready():
                    self.session(piece)
                case Accepted():
                    self.turns.accepted(piece)
                case FirstOutput():
                    self.turns.first_output(piece.source)
                case ToolStarted():
                    self.turns.tool_started(piece)
                case ToolEnded():
                    self.turns.tool_ended(piece)
                case TurnEnded():
                    self.turns.ended(piece)
                case DialogSeen():
                    self.dialogs.seen(piece)
                case DialogClosed():
                    self.dialogs.closed(piece)
                case Limited():
                    self.supervisor.guards.breakers.report(self, piece)
                case Recorded():
                    self.supervisor.replaying.told_by(self, piece)
                case SessionEnded():
                    logger.info("%s: session ended (%s)", self.name, piece.reason)
                case _:
                    logger.error("%s: unknown evidence %r", self.name, piece)
        self.publish()

    def session(self, ready: Ready) -> None:
        """Bind to the session that the program reports."""
        self.session_ready = ready
        old = self.transcript
        if ready.transcript:
            self.transcript = Path(ready.transcript)
        if ready.session_id and ready.session_id != self.session_id:
            if old is not None and old != self.transcript and self.session_used:
                self.spawn(self.files.keep_transcript(old, f"{self.name}.{self.session_id}"))
            self.session_id = ready.session_id
            self.supervisor.journal.append(
                "agent.session", agent=self.name, source=ready.source, session_id=ready.session_id
            )
        self.session_used = True
        self.files.save()
        if ready.model:
            self.saw_model(ready.model)
        self.check_ready()

    def saw_model(self, model: str) -> None:
        """Take note of the model that the program names."""
        if model != self.model:
            self.model = model
            self.supervisor.journal.append("agent.model", agent=self.name, model=model)

    def check_ready(self) -> None:
        """Take the program for ready once its reports and its terminal agree."""
        if self.ready is not None or not self.running or self.session_ready is None:
            return
        on_screen = self.session_ready.source == "screen" and not self.looks.starts_on_screen
        if not self.bracketed_paste and not on_screen and not self.supervisor.replaying.terminal:
            return
        if self.looks.starts_on_screen:
            # An input line that the screen shows for a moment, before a question, is not meant: that it asks for its
            # tools confirms it.
            if self._holds_since is None:
                self._hold_for_tools()
            if self.awaits_tools:
                self._later(_TOOLS_WAIT_S / 8, self.check_ready)
                return
        self._now_ready(self.session_ready.source)

    def _now_ready(self, source: str) -> None:
        self.ready = source
        self.supervision.served = True
        self.dialogs.close("human", None, "screen")
        self._hold_for_tools()
        self.supervisor.journal.append("agent.ready", agent=self.name, source=source)
        self.publish()

    def _hold_for_tools(self) -> None:
        """Let messages wait for the tools, however the program was seen to be ready."""
        if not getattr(self.config, "mcp", False) or self.tools_listed:
            return
        self._holds_since = self._holds_since or time.monotonic()
        if self.supervisor.tools_since is not None:
            self.give_up_tools_later()

    def give_up_tools_later(self) -> None:
        """Look again at what waits for tools that were never asked for."""
        self._later(_TOOLS_WAIT_S + 0.01, self.supervisor.ledger.poke)

    @property
    def awaits_tools(self) -> bool:
        """Whether messages wait until the program has listed the lab's tools: a prompt before would find none."""
        if self.tools_listed or self._holds_since is None:
            return False
        # While the lab itself cannot answer yet, no program is late.
        served = self.supervisor.tools_since
        return served is None or time.monotonic() - max(served, self._holds_since) < _TOOLS_WAIT_S

    def is_ready(self, source: str) -> None:
        """Take the program for ready on another evidence than its own report."""
        if self.session_ready is None:
            self.session_ready = Ready(source)
        self.check_ready()
        if self.ready is None and self.running:
            self._now_ready(source)

    # small helpers ------------------------------------------------------------------------------

    def _later(self, delay_s: float, call: Any) -> None:  # noqa: ANN401 - a callable without arguments
        asyncio.get_running_loop().call_later(delay_s, call)

    def spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        """Run background work that may fail without harm."""
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
            "restarting": self.supervision.pending,
            "cwd": str(self.supervisor.config.work_dir_of(self.config)),
            "queued": self.supervisor.mailboxes[self.name].waiting if self.name in self.supervisor.mailboxes else 0,
            "dialog": None
            if self.dialog is None
            else {
                "dialog_id": self.dialog_id,
                "kind": self.dialog.kind,
                "subject": self.dialog.subject,
                "options": list(self.dialog.options),
                "opened_at": self.dialogs.opened_at,
            },
            "error": None if self.error is None else self.error.message,
        }
