"""What a new supervisor does: read the journal, adopt the panes, settle what was in flight.

Nothing is typed again on a guess. A message that was only queued is queued again; one that was claimed is looked for
in the program's own record and on its screen, for as long as a living supervisor would wait for it; what neither shows
is ``uncertain``, and later evidence may still settle it. A step that was half journalled is brought to its end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from orchestrator_lab import __version__
from orchestrator_lab.agents import adapter_for
from orchestrator_lab.agents.base import clean_environment
from orchestrator_lab.config import Agent
from orchestrator_lab.errors import ConfigError, ProgramNotFound, TmuxError
from orchestrator_lab.journal.event import members
from orchestrator_lab.supervisor.archive import NOWHERE
from orchestrator_lab.supervisor.journalled import read_journal
from orchestrator_lab.supervisor.launching import kept_session
from orchestrator_lab.supervisor.rebuild import Incident, by_record, end_survivors, last_incident, settle_by_record
from orchestrator_lab.supervisor.supervision import HUNG
from orchestrator_lab.supervisor.turns import Turn
from orchestrator_lab.tmux import PaneExit

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import Typed
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message
    from orchestrator_lab.tmux import PaneInfo

__all__ = ["check_resumable", "recover"]

logger = logging.getLogger(__name__)

#: Seconds that a keeper has to say which panes it drains.
_HELLO_S = 3.0
#: Seconds for which a text that may be on its way is looked for, and one more for each 100 000 characters.
_LOOK_FOR_S = 12.0
#: Seconds after which a text is given up earlier, when the program has read all input and shows an empty line.
_NOTHING_CAME_S = 4.0
#: Seconds between two looks.
_LOOK_EVERY_S = 0.1


async def recover(supervisor: Supervisor, *, gap_since: float | None) -> list[AgentRunner]:
    """Bring a supervisor to where its predecessor was.

    Parameters
    ----------
    supervisor : Supervisor
        Connected to tmux, without agents yet; or without a tmux server, and then all that ran in it is settled and the
        house is built again.
    gap_since : float or None
        Epoch seconds at which the keeper found the predecessor dead; None when the keeper is new too.

    Returns
    -------
    list of AgentRunner
        Those whose first start is not over.
    """
    supervisor.guards.begin()
    known = await asyncio.to_thread(read_journal, supervisor, supervisor.monitor.take, supervisor.guards.restore)
    supervisor.guards.catch_up()
    events, turns = known.events, known.turns
    supervisor.alerts.restore(events)
    rebuild, lost = supervisor.rebuild, supervisor.rebuild.gone
    hello = await supervisor.keeper.hello(_HELLO_S)
    drained = {str(pane["agent"]): pane for pane in hello.get("panes", ()) if pane.get("open")}
    gap_s = 0.0 if supervisor.resumed else _gaps(supervisor, known.last_at, gap_since)
    panes = {} if lost else await _panes(supervisor)
    _close_what_ended(supervisor, turns)
    incident, losses = _incident(supervisor, events, known.last_at)
    # Where not even one had been announced, the start begins from its beginning.
    announced = [name for name in members(events, supervisor.config.names) if _has(events, name, "agent.added")]
    belonging = members(events, supervisor.config.names) if announced else []
    new = [name for name in belonging if not _has(events, name, "agent.started")]
    unfinished: list[AgentRunner] = []
    exits: list[tuple[AgentRunner, PaneInfo]] = []
    for name in belonging:
        pane = panes.get(name)
        runner = _adopt(supervisor, name, pane, events)
        if name not in announced:
            runner.announce()
        # A run that is resumed had its first start long ago.
        if name in new or (not _has(events, name, "agent.ready") and not supervisor.resumed):
            unfinished.append(runner)
        if pane is not None:
            await _record(supervisor, runner, drained.get(name), gap_s)
    if lost:
        await end_survivors(supervisor, [one for one in supervisor.runners.values() if one.running])
    # Looked at once more: what ended since then was reported before there was anyone to hear it.
    for pane in [] if lost else await supervisor.tmux.run(supervisor.driver.panes):
        adopted = supervisor.runners.get(pane.tags.get("agent", ""))
        if pane.dead and adopted is not None and adopted.running:
            exits.append((adopted, pane))
    for name, taken in known.prompts.items():
        if name in supervisor.runners:
            for prompt_id in taken:
                supervisor.runners[name].prompts_taken.add(prompt_id)
    for name, turn in turns.items():
        adopted = supervisor.runners.get(name)
        if adopted is not None and adopted.running:
            adopted.turn = turn
            adopted.publish()
    for name, ended in known.unaccounted.items():
        for turn in ended if name in supervisor.runners else ():
            supervisor.runners[name].turns.account_for(turn)
    for runner in supervisor.runners.values():
        runner.files.catch_up()
        runner.returning = incident is not None and incident.open and runner.name in incident.agents
    for runner, pane in exits:
        await runner.exited(PaneExit(pane.pane_id, pane.pid, pane.exit_status, pane.exit_signal))
    if lost:
        for runner in supervisor.runners.values():
            await settle_by_record(supervisor, runner)
        for runner in supervisor.runners.values():
            runner.lost()
    supervisor.stopped = _was_stopped(events) and not supervisor.resumed
    for runner in supervisor.runners.values():
        runner.supervision.resume()
    for runner in supervisor.runners.values():
        await _settle(supervisor, runner)
    for message in list(supervisor.ledger.messages.values()):
        if message.status == "queued":
            _queue_again(supervisor, message)
        else:
            supervisor.conversations.follow_up(message)
    supervisor.conversations.end_stranded()
    supervisor.status_text = "stopped" if supervisor.stopped else "running"
    supervisor.monitor.resume()
    if incident is not None and incident.given_up and lost:
        supervisor.status_text = "failed"
    elif lost or (incident is not None and incident.open):
        names = [*(incident.agents if incident is not None else ()), *(new if lost else ())]
        rebuild.carry_on(names, losses, time.time() if incident is None else incident.at, new=new)
    for runner in unfinished if not lost else ():
        if runner.pane_id is None and not runner.returning:
            await supervisor.lifecycle.start_pane(runner)
    return unfinished


def check_resumable(supervisor: Supervisor) -> None:
    """Check that the agents of a run that is to go on can be started, before anything is written to it.

    Raises
    ------
    ProgramNotFound, ConfigError
        When a program or a work folder is missing.
    """
    for agent in supervisor.config.agents:
        environ = {**clean_environment(supervisor.environ), **agent.env}
        adapter_for(agent.kind).locate(agent, environ)
        folder = supervisor.config.work_dir_of(agent)
        if not folder.is_dir():
            raise ConfigError(f"agent {agent.name!r}: its work folder {folder} does not exist any more")


async def _panes(supervisor: Supervisor) -> dict[str, PaneInfo]:
    """Return the panes by their agent; one that was just being made is given to the agent whose program runs in it."""
    driver = supervisor.driver
    panes = await supervisor.tmux.run(driver.panes)
    nameless = [pane.pane_id for pane in panes if not pane.tags]
    if nameless:
        listed = await supervisor.tmux.run(driver.run, "list-panes", "-a", "-F", "#{pane_id} #{pane_start_command}")
        started = dict(line.partition(" ")[::2] for line in listed)
        agents = (supervisor.folder / "agents").glob("*/launch.sh")
        scripts = {str(script): script.parent.name for script in agents}
        for pane_id in nameless:
            for script, name in scripts.items():
                if script in started.get(pane_id, ""):
                    await supervisor.tmux.run(driver.tag_pane, pane_id, agent=name)
        panes = await supervisor.tmux.run(driver.panes)
    return {pane.tags["agent"]: pane for pane in panes if "agent" in pane.tags}


def _incident(supervisor: Supervisor, events: list[Event], last_at: str | None) -> tuple[Incident | None, list[float]]:
    """Return the loss of the house that this supervisor has to deal with, journalled if nobody has done it yet."""
    incident, losses = last_incident(events)
    pid = supervisor.record.tmux_pid
    if not supervisor.rebuild.gone:
        return (incident if incident is not None and incident.open else None), losses
    if incident is not None and (incident.given_up or (incident.open and incident.pid == pid)):
        return incident, losses
    names = list(incident.agents) if incident is not None and incident.open else []
    names += [name for name in members(events) if _has(events, name, "agent.started") and _wanted(events, name)]
    names = list(dict.fromkeys(names))
    if not supervisor.resumed:
        supervisor.rebuild.announce(pid, names=names)
        return Incident("tmux.lost", pid, time.time(), tuple(names), True, False, len(events)), [*losses, time.time()]
    if _was_stopped(events):
        names = members(events)  # whoever resumes a run that was stopped wants its agents
    last = time.time() if last_at is None else datetime.fromisoformat(last_at).timestamp()
    supervisor.journal.append(
        "run.resumed",
        level="warning",
        gap_s=round(max(0.0, time.time() - last), 6),
        agents=names,
        package_version=__version__,
    )
    if _was_stopped(events):
        supervisor.journal.append("cluster.restarted")
    return Incident("run.resumed", pid, last, tuple(names), True, False, len(events)), []


def _gaps(supervisor: Supervisor, last_at: str | None, gap_since: float | None) -> float:
    """Journal for how long nobody watched; return it in seconds."""
    if gap_since is not None:
        gap_s = max(0.0, time.time() - gap_since)
        supervisor.journal.append(
            "supervisor.gap", level="warning", gap_s=round(gap_s, 6), reason="the supervisor ended"
        )
        return gap_s
    # Nobody noted when both ended: it was after their last event, so the gap is at most this long.
    gap_s = 0.0 if last_at is None else max(0.0, time.time() - datetime.fromisoformat(last_at).timestamp())
    for name in ("supervisor.gap", "keeper.gap"):
        supervisor.journal.append(
            name,
            level="warning",
            gap_s=round(gap_s, 6),
            reason="supervisor and keeper ended; counted from the last event",
        )
    return gap_s


async def _record(supervisor: Supervisor, runner: AgentRunner, drained: dict[str, Any] | None, gap_s: float) -> None:
    """Go on recording a pane; one that the keeper does not drain is handed over again."""
    if runner.pane_id is None:
        return
    if drained is not None:
        supervisor.lifecycle.record_again(runner)
        if drained.get("modes"):
            runner.looks.pane_activity(drained)
        return
    try:
        await supervisor.tmux.run(supervisor.driver.pipe, runner.pane_id, None)
        await supervisor.lifecycle.record_pane(runner, runner.pane_id)
    except TmuxError as error:
        logger.warning("%s: its pane is not recorded: %s", runner.name, error)
        return
    supervisor.journal.append(
        "recording.gap", agent=runner.name, level="warning", gap_s=round(gap_s, 6), reason="keeper"
    )


def _queue_again(supervisor: Supervisor, message: Message) -> None:
    mailbox = supervisor.mailboxes.get(message.recipient)
    if mailbox is None:
        supervisor.ledger.advance(
            message, "failed", error_type="removed", error_message=f"{message.recipient} left the cluster"
        )
    elif supervisor.routing.may_pass(message):
        mailbox.put(message)
    else:
        supervisor.routing.refuse(message)


def _has(events: list[Event], name: str, what: str) -> bool:
    return any(event.agent == name and event.event == what for event in events)


def _runs(events: list[Event], name: str) -> bool:
    """Tell whether an agent's end has not been journalled."""
    for event in reversed(events):
        if event.agent == name and event.event in {"agent.started", "agent.exited"}:
            return event.event == "agent.started"
    return True


def _pid(events: list[Event], name: str) -> int | None:
    """Return the process that an agent was last known to have."""
    for event in reversed(events):
        if event.agent == name and event.event == "agent.started":
            pid = event.attributes.get("pid")
            return pid if isinstance(pid, int) else None
        if event.agent == name and event.event == "agent.added":
            return None
    return None


def _wanted(events: list[Event], name: str) -> bool:
    """Tell whether an agent was running, or about to be started again, and nobody was ending it."""
    for event in reversed(events):
        if event.agent != name:
            continue
        if event.event == "agent.stopping" and event.attributes.get("reason") != HUNG:
            return False
        if event.event in {"agent.started", "agent.restarting"}:
            return True
        if event.event in {"agent.exited", "agent.failed"}:
            return False
    return True


def _close_what_ended(supervisor: Supervisor, turns: dict[str, Turn]) -> None:
    """Bring steps to their end that take several events and were cut off between two of them."""
    ledger = supervisor.ledger
    running = {turn.turn_id: turn for turn in turns.values()}
    for message in list(ledger.messages.values()):
        if message.status not in {"accepted", "started"} or message.turn_id is None:
            continue
        if message.places.reply != NOWHERE:
            end = supervisor.journal.event_at(message.places.reply)
            reason = end.attributes.get("end_reason")
            if reason in {"interrupted", "error", "exited", "limit"}:
                why = end.attributes.get("error_message") or f"the turn of {message.recipient} was {reason}"
                ledger.advance(
                    message,
                    "failed",
                    source=end.source,
                    turn_id=message.turn_id,
                    error_type=f"turn_{reason}",
                    error_message=why,
                )
            else:
                ledger.advance(message, "answered", source=end.source, turn_id=message.turn_id)
                supervisor.conversations.restore_step(message, queued=False)
        elif message.turn_id in running:
            turn = running[message.turn_id]
            if message.message_id not in turn.message_ids:
                turn.message_ids.append(message.message_id)
        else:
            turn = Turn(
                message.turn_id,
                None,
                None,
                [message.message_id],
                "hook",
                hop=message.hop,
                conversation_id=message.conversation_id,
                began_at=message.claimed_at or time.time(),
            )
            turns[message.recipient] = running[turn.turn_id] = turn
            supervisor.journal.append(
                "turn.started",
                agent=message.recipient,
                turn_id=turn.turn_id,
                message_id=message.message_id,
                source=turn.source,
                message_ids=[message.message_id],
            )


def _was_stopped(events: list[Event]) -> bool:
    for event in reversed(events):
        if event.event in {"cluster.stopped", "cluster.restarted"}:
            return event.event == "cluster.stopped"
    return False


def _ready_source(events: list[Event], name: str) -> str | None:
    """Return what said that an agent's present process is ready."""
    for event in reversed(events):
        if event.agent == name and event.event == "agent.ready":
            return event.source
        if event.agent == name and event.event in {"agent.started", "agent.exited"}:
            return None
    return None


def _tools_listed(events: list[Event], name: str) -> bool:
    """Tell whether an agent's present process has listed the lab's tools."""
    for event in reversed(events):
        if event.agent == name and event.event in {"agent.tools", "agent.started"}:
            return event.event == "agent.tools"
    return False


def _adopt(supervisor: Supervisor, name: str, pane: PaneInfo | None, events: list[Event]) -> AgentRunner:
    """Make a runner for an agent whose pane lives on, or was lost with its tmux server."""
    kept: dict[str, Any] = {}
    place = supervisor.folder / "agents" / name / "agent.json"
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        agent = TypeAdapter(Agent).validate_python(kept["config"])
    except (FileNotFoundError, ValueError, KeyError):
        agent = supervisor.config.agent(name)
        kept = kept_session(supervisor.run_dir, name)
    known = [one for one in supervisor.config.agents if one.name != name]
    supervisor.config = supervisor.config.model_copy(update={"agents": [*known, agent]})
    runner = supervisor.lifecycle.adopt_runner(agent, kept)
    if supervisor.resumed:
        runner.files.bring_back_transcript(kept)
    try:
        runner.locate()
    except ProgramNotFound:
        if not supervisor.rebuild.gone:  # where its pane is gone as well, its start will tell
            raise
    if pane is None and supervisor.rebuild.gone:
        runner.supervision.restore(events)
        if _has(events, name, "agent.started") and _runs(events, name):
            runner.unhoused()
            return runner
    runner.pane_id, runner.pid = (None, None) if pane is None else (pane.pane_id, pane.pid)
    if pane is not None and _pid(events, name) not in {None, pane.pid}:
        # It was started anew, and whoever did that had no time to say so.
        starts = sum(one.agent == name and one.event == "agent.started" for one in events)
        events.append(
            supervisor.journal.append(
                "agent.started",
                agent=name,
                pid=pane.pid,
                pane_id=pane.pane_id,
                session_id=runner.session_id,
                restart=starts,
            )
        )
    runner.supervision.restore(events)
    if pane is None:
        if _runs(events, name) and _has(events, name, "agent.started"):
            supervisor.journal.append(
                "agent.failed", agent=name, level="error", error_type="lost", error_message="its pane is gone"
            )
            supervisor.journal.append("agent.exited", agent=name, source="process")
        runner.publish()
        return runner
    if not _has(events, name, "agent.started"):
        supervisor.journal.append(
            "agent.started", agent=name, pid=pane.pid, pane_id=pane.pane_id, session_id=runner.session_id
        )
    runner.adopted(
        pane.pane_id,
        pane.pid,
        # One whose end nobody has seen yet is taken for alive until its end is journalled with all that hangs on it.
        alive=not pane.dead or _runs(events, name),
        ready=_ready_source(events, name),
        dialog=runner.dialogs.restore(events),
        tools_listed=_tools_listed(events, name),
    )
    return runner


async def _settle(supervisor: Supervisor, runner: AgentRunner) -> None:
    """Find out what became of the messages whose bytes may have reached the pane."""
    ledger = supervisor.ledger
    for message in ledger.to(runner.name):
        if message.final:
            continue
        typed = runner.adapter.typed(message.text)
        message.expected = typed.expected
        if message.status in {"accepted", "started"} and runner.turn is not None:
            runner.turn.prompt = typed.expected
            if not await runner.turns.reconcile() and not runner.adapter.reports:
                await runner.watch.resume(typed.text)
        elif message.status in {"accepted", "started"} and not runner.running:
            ledger.advance(message, "failed", error_type="turn_exited", error_message=f"{runner.name} ended")
        elif message.status in {"claimed", "written"} and not by_record(runner, message, typed):
            came = await _how_far(supervisor, runner, message, typed)
            if came == "nothing":
                supervisor.journal.append(
                    "note",
                    agent=runner.name,
                    message_id=message.message_id,
                    source="terminal",
                    text="nothing of this message was typed before the supervisor died; it is queued again",
                )
                message.status = "queued"
            elif came == "whole":
                # Nothing else is written to this pane until it is clear what became of the text.
                runner.delivering, runner.typed = message, typed
                runner.publish()
                supervisor.background(_look_for(supervisor, runner, message, typed))
            else:
                _give_up(supervisor, runner, message)


async def _how_far(supervisor: Supervisor, runner: AgentRunner, message: Message, typed: Typed) -> str:
    """Return how much of a text can have been typed: ``nothing``, a ``part``, the ``whole``, or ``unknown``."""
    if not runner.adapter.reports or not runner.running or runner.pane_id is None:
        return "unknown"
    try:
        mark = await supervisor.tmux.run(supervisor.driver.paste_mark, runner.pane_id)
    except TmuxError:
        return "unknown"
    identity, _, number = mark.rpartition(":")
    if identity != message.message_id:
        return "nothing" if message.status == "claimed" else "whole"
    return "whole" if number == str(len(typed.parts) or 1) else "part"


async def _look_for(supervisor: Supervisor, runner: AgentRunner, message: Message, typed: Typed) -> None:
    """Wait for a text that a dead supervisor wrote, or was about to write, and see it to its end."""
    begun = time.monotonic()
    patience = _LOOK_FOR_S + len(typed.text) / 1e5
    handed_on = False
    try:
        while runner.running and time.monotonic() - begun < patience:
            if by_record(runner, message, typed):
                return
            screen = await supervisor.screen(runner, escapes=runner.adapter.styled)
            held = runner.adapter.composer(screen, typed)
            if held == "holds_text":
                supervisor.ledger.advance(message, "written", source="screen")
                supervisor.mailboxes[runner.name].finish(message, typed)
                handed_on = True
                return
            waited = time.monotonic() - begun
            if held == "empty" and waited > _NOTHING_CAME_S + len(typed.text) / 1e5 and runner.pane_id is not None:
                unread = await supervisor.tmux.run(supervisor.driver.unread_input, runner.pane_id)
                quiet = time.monotonic() - max(runner.last_activity, begun) > 1.0
                if quiet and unread == 0:
                    break
            await supervisor.ledger.until(lambda: message.status not in {"claimed", "written"}, _LOOK_EVERY_S)
            if message.status not in {"claimed", "written"}:
                return
        _give_up(supervisor, runner, message)
    except TmuxError as error:
        logger.warning("%s: %s", runner.name, error)
        _give_up(supervisor, runner, message)
    finally:
        if not handed_on and runner.delivering is message:
            runner.delivering = None
            runner.publish()


def _give_up(supervisor: Supervisor, runner: AgentRunner, message: Message) -> None:
    supervisor.ledger.advance(
        message,
        "uncertain",
        error_type="supervisor_died",
        error_message=(
            f"the supervisor died while it wrote to {runner.name}; neither its record nor its screen shows the text, "
            "which may still arrive"
        ),
    )
