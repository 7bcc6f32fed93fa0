"""What a new supervisor does: read the journal, adopt the panes, settle what was in flight.

Nothing is typed again on a guess. A message that was only queued is queued again; one that was claimed is looked for
in the program's own record and on its screen; what neither shows is ``uncertain``.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from orchestrator_lab.agents.base import Accepted, DialogSeen, TurnEnded
from orchestrator_lab.config import Agent
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.supervisor.conversations import Conversation
from orchestrator_lab.supervisor.messages import Message
from orchestrator_lab.supervisor.turns import Turn

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.tmux import PaneInfo

__all__ = ["recover"]

logger = logging.getLogger(__name__)


async def recover(supervisor: Supervisor, *, gap_since: float | None) -> None:
    """Bring a supervisor to where its predecessor was.

    Parameters
    ----------
    supervisor : Supervisor
        Connected to tmux, without agents yet.
    gap_since : float or None
        Epoch seconds at which the predecessor was found dead.
    """
    events, _ = read_events(supervisor.run_dir / "journal.jsonl")
    last = datetime.fromisoformat(events[-2].at).timestamp() if len(events) > 1 else time.time()
    supervisor.journal.append(
        "supervisor.gap",
        level="warning",
        gap_s=round(max(0.0, time.time() - (gap_since or last)), 6),
        reason="the supervisor ended" if gap_since else "supervisor and keeper ended",
    )
    panes = {pane.tags.get("agent"): pane for pane in await supervisor.tmux.run(supervisor.driver.panes)}
    turns = _read(supervisor, events)
    for name in _members(events):
        await _adopt(supervisor, name, panes.get(name), events)
    for name, turn in turns.items():
        runner = supervisor.runners.get(name)
        if runner is not None and runner.running:
            runner.turn = turn
            runner.publish()
    for runner in supervisor.runners.values():
        await _settle(supervisor, runner)
    for message in list(supervisor.ledger.messages.values()):
        if message.status == "queued" and message.recipient in supervisor.mailboxes:
            supervisor.mailboxes[message.recipient].put(message)
        elif message.status == "answered":
            supervisor.conversations.follow_up(message)
    supervisor.stopped = _was_stopped(events)
    supervisor.status_text = "stopped" if supervisor.stopped else "running"


def _members(events: list[Event]) -> list[str]:
    members: dict[str, None] = {}
    for event in events:
        if event.event == "agent.added" and event.agent:
            members[event.agent] = None
        elif event.event == "agent.removed" and event.agent:
            members.pop(event.agent, None)
    return list(members)


def _was_stopped(events: list[Event]) -> bool:
    for event in reversed(events):
        if event.event in {"cluster.stopped", "cluster.restarted"}:
            return event.event == "cluster.stopped"
    return False


def _read(supervisor: Supervisor, events: list[Event]) -> dict[str, Turn]:
    """Fill the ledger and the conversations; return the turns in progress."""
    ledger, conversations = supervisor.ledger, supervisor.conversations
    turns: dict[str, Turn] = {}
    for event in events:
        facts = event.attributes
        message = ledger.messages.get(event.message_id or "")
        if event.event == "message.queued":
            expires = facts.get("expires_s")
            queued_at = datetime.fromisoformat(event.at).timestamp()
            ledger.messages[str(event.message_id)] = Message(
                message_id=str(event.message_id),
                conversation_id=facts.get("conversation_id", ""),
                sender=facts["sender"],
                recipient=facts["recipient"],
                content=facts["content"],
                kind=facts.get("kind", "direct"),
                source=event.source or "program",
                in_reply_to=facts.get("in_reply_to"),
                hop=facts.get("hop", 0),
                when=facts.get("when", "idle"),
                header=facts.get("header"),
                expires_at=None if expires is None else queued_at + float(expires),
            )
        elif message is not None and event.event.startswith("message.") and event.event != "message.submitted":
            message.status = event.event.removeprefix("message.")
            message.turn_id = event.turn_id or message.turn_id
            message.error_type = facts.get("error_type")
            message.error_message = facts.get("error_message")
            if message.status == "claimed":
                message.claimed_at = datetime.fromisoformat(event.at).timestamp()
        elif event.event == "turn.started" and event.agent:
            ids = list(facts.get("message_ids", ()))
            first = ledger.messages.get(ids[0]) if ids else None
            turns[event.agent] = Turn(
                str(event.turn_id),
                None,
                None,
                ids,
                event.source or "hook",
                hop=first.hop if first else 0,
                conversation_id=first.conversation_id if first else None,
                began_at=first.claimed_at
                if first and first.claimed_at
                else datetime.fromisoformat(event.at).timestamp(),
            )
        elif event.event == "turn.first_output" and event.agent in turns:
            turns[event.agent].first_output = True
        elif event.event == "turn.ended" and event.agent:
            turns.pop(event.agent, None)
            for one in ledger.messages.values():
                if one.turn_id == event.turn_id:
                    one.reply = facts.get("reply")
        elif event.event == "conversation.started":
            identity = str(facts["conversation_id"])
            conversations.running[identity] = Conversation(identity, tuple(facts["agents"]), int(facts["rounds"]))
        elif event.event == "conversation.ended":
            identity = str(facts["conversation_id"])
            if identity in conversations.running:
                conversations.running[identity].ended = facts.get("reason")
    for conversation in conversations.running.values():
        conversation.turns = sum(
            one.status == "answered" and one.conversation_id == conversation.conversation_id
            for one in ledger.messages.values()
        )
    return turns


def _ready_source(events: list[Event], name: str) -> str | None:
    """Return what said that an agent's present process is ready."""
    for event in reversed(events):
        if event.agent == name and event.event == "agent.ready":
            return event.source
        if event.agent == name and event.event == "agent.started":
            return None
    return None


def _open_dialog(events: list[Event], name: str) -> DialogSeen | None:
    for event in reversed(events):
        if event.agent == name and event.event in {"dialog.answered", "agent.started"}:
            return None
        if event.agent == name and event.event == "dialog.opened":
            facts = event.attributes
            return DialogSeen(
                event.source or "screen", facts["kind"], facts.get("subject", ""), tuple(facts.get("options", ()))
            )
    return None


async def _adopt(supervisor: Supervisor, name: str, pane: PaneInfo | None, events: list[Event]) -> None:
    """Make a runner for an agent whose pane lives on."""
    kept: dict[str, Any] = {}
    place = supervisor.folder / "agents" / name / "agent.json"
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        agent = TypeAdapter(Agent).validate_python(kept["config"])
    except (FileNotFoundError, ValueError, KeyError):
        agent = supervisor.config.agent(name)
    known = [one for one in supervisor.config.agents if one.name != name]
    supervisor.config = supervisor.config.model_copy(update={"agents": [*known, agent]})
    runner = supervisor.lifecycle.adopt_runner(agent, kept)
    runner.locate()
    if pane is None:
        supervisor.journal.append("agent.failed", agent=name, level="error", error_type="lost", error_message="no pane")
        runner.publish()
        return
    runner.adopted(
        pane.pane_id,
        pane.pid,
        alive=not pane.dead,
        ready=_ready_source(events, name),
        dialog=_open_dialog(events, name),
    )
    supervisor.lifecycle.record_again(runner)


async def _settle(supervisor: Supervisor, runner: AgentRunner) -> None:
    """Find out what became of the messages whose bytes may have reached the pane."""
    ledger = supervisor.ledger
    for message in list(ledger.messages.values()):
        if message.recipient != runner.name:
            continue
        typed = runner.adapter.typed(message.text)
        message.expected = typed.expected
        if message.status in {"accepted", "started"} and runner.turn is not None:
            runner.turn.prompt = typed.expected
            if not await runner.reconcile() and not runner.adapter.reports:
                await runner.watch.resume(typed.text)
        elif message.status in {"accepted", "started"} and not runner.running:
            ledger.advance(message, "failed", error_type="turn_exited", error_message=f"{runner.name} ended")
        elif message.status in {"claimed", "written"}:
            found = (
                runner.adapter.transcript(runner.transcript, prompt=typed.expected, since=message.claimed_at)
                if runner.transcript is not None
                else []
            )
            runner.apply([piece for piece in found if isinstance(piece, Accepted | TurnEnded)])
            if message.status not in {"claimed", "written"}:
                continue
            screen = await supervisor.screen(runner)
            held = runner.running and runner.adapter.composer(screen, typed) == "holds_text"
            if held:
                supervisor.mailboxes[runner.name].finish(message, typed)
                continue
            ledger.advance(
                message,
                "uncertain",
                error_type="supervisor_died",
                error_message=(
                    f"the supervisor died while it wrote to {runner.name}; neither its record nor its screen shows "
                    "the text, which may still arrive"
                ),
            )
