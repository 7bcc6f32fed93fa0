"""What the journal says of a cluster, read once by a new supervisor and kept in as little as it needs.

The journal of a long run has millions of lines, most of them about messages that are over: they go into the ledger's
archive on the way, and of the others only the events about agents, dialogs and the cluster are kept.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator_lab.agents.base import TurnEnded
from orchestrator_lab.journal.event import Event
from orchestrator_lab.journal.reader import JournalReader
from orchestrator_lab.supervisor.conversations import Conversation
from orchestrator_lab.supervisor.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message

__all__ = ["Journalled", "read_journal"]

logger = logging.getLogger(__name__)

#: What a supervisor journals before it recovers; the events before these are its predecessor's.
_OWN = frozenset({"run.started", "journal.repaired", "supervisor.started"})
#: Many and of no use here: they are not even decoded.
_PASSED_OVER = frozenset({"tool.started", "tool.ended", "message.submitted"})
#: Of these the last ones are decoded: more than turns that are still to be compared have.
_GATEWAY, _GATEWAY_KEPT = frozenset({"gateway.request", "gateway.response"}), 4000
#: Turns of each agent's that are looked at for tokens that were not journalled.
_ENDED = 8
#: Of interest to those who watch, and to nobody afterwards.
_PASSED_ON = frozenset({"agent.state", "agent.model", "process.sample"})
#: Ids of each agent's last prompts that are kept.
_PROMPTS = 256
_NAME = re.compile(rb'\{"seq":\d+,"event":"([a-z_.]+)","at":"([^"]+)"')


@dataclass(slots=True)
class Journalled:
    """What a new supervisor needs of the journal beside the messages, which are in its ledger.

    Parameters
    ----------
    events : list of Event
        Those about agents, dialogs and the cluster itself, in order (without states, tools, turns and messages).
    turns : dict
        The turn that goes on, by agent.
    prompts : dict
        Ids of the last prompts that each agent is known to have taken.
    unaccounted : dict
        The last turns that ended and of whose tokens nothing was journalled, by agent.
    last_at : str or None
        Instant of the predecessor's last event.
    """

    events: list[Event] = field(default_factory=list)
    turns: dict[str, Turn] = field(default_factory=dict)
    prompts: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=_PROMPTS)))
    unaccounted: dict[str, deque[Turn]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=_ENDED)))
    last_at: str | None = None


def read_journal(supervisor: Supervisor, *watchers: Callable[[Event], None]) -> Journalled:
    """Fill a new supervisor's ledger and conversations from its journal, and return the rest.

    Parameters
    ----------
    supervisor : Supervisor
        Has not taken anything in yet.
    *watchers : callable
        Told each event on the way, oldest first, but for those of the gateway and of tools: figures and limits are
        counted anew from them.

    Returns
    -------
    Journalled
        What else its predecessor knew.
    """
    fold = _Fold(supervisor, watchers)
    for place, line in JournalReader(supervisor.journal.path).lines():
        fold.line(place, line)
    fold.close()
    return fold.known


class _Fold:
    def __init__(self, supervisor: Supervisor, watchers: tuple[Callable[[Event], None], ...]) -> None:
        self._watchers = watchers
        self._ledger, self._conversations = supervisor.ledger, supervisor.conversations
        self._crosscheck = supervisor.crosscheck
        #: Lines of the gateway, and agents of which a turn was compared between them, with their instants.
        self._seen: deque[tuple[str, bytes | str]] = deque(maxlen=_GATEWAY_KEPT)
        #: The last turns of which tokens are known.
        self._accounted: deque[str] = deque(maxlen=1000)
        self.known = Journalled()
        self._in_turn: dict[str, list[Message]] = defaultdict(list)
        #: The last turn of each agent that is over: a text may be found afterwards to belong to it.
        self._over: dict[str, tuple[str, str | None, int]] = {}

    def line(self, place: int, line: bytes) -> None:
        head = _NAME.match(line)
        name = head[1].decode() if head is not None else None
        if head is not None and name not in _OWN:
            self.known.last_at = head[2].decode()
        if name in _PASSED_OVER:
            return
        if head is not None and name in _GATEWAY:
            self._seen.append((head[2].decode(), line))
            return
        try:
            event = Event.from_json(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning("the journal's line at byte %d is damaged and was skipped (%s)", place, error)
            return
        for watcher in self._watchers:
            watcher(event)
        if event.event.startswith("message."):
            self._message(event, place)
        elif event.event.startswith("turn."):
            self._turn(event, place)
        elif event.event == "conversation.started":
            facts = event.attributes
            identity = str(facts["conversation_id"])
            self._conversations.restore(Conversation(identity, tuple(facts["agents"]), int(facts["rounds"])))
        elif event.event == "conversation.ended":
            facts = event.attributes
            self._conversations.restore_end(str(facts["conversation_id"]), str(facts.get("reason")))
        elif event.event not in _PASSED_ON:
            self.known.events.append(event)

    def close(self) -> None:
        """Give the comparing of records what the gateway saw last."""
        for _, seen in self._seen:
            if isinstance(seen, str):
                self._crosscheck.passed(seen)
                continue
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                event = Event.from_json(seen)
                self._crosscheck.saw(event.event, {**event.attributes, "agent": event.agent})
        whole = len(self._seen) < _GATEWAY_KEPT
        self._crosscheck.restore(0.0 if whole else datetime.fromisoformat(self._seen[0][0]).timestamp())

    def _message(self, event: Event, place: int) -> None:
        message = self._ledger.restore(event, place)
        if message is None:
            return
        if event.event == "message.queued":
            self._conversations.restore_step(message, queued=True)
        elif event.event == "message.answered":
            self._conversations.restore_step(message, queued=False)
        elif event.event == "message.accepted" and event.turn_id:
            self._took(event)
            turn_id, reply, ended_at = self._over.get(message.recipient, ("", None, -1))
            if turn_id == event.turn_id:
                self._ledger.answer(message, reply, ended_at)
            else:
                self._in_turn[event.turn_id].append(message)

    def _turn(self, event: Event, place: int) -> None:
        agent, facts = event.agent or "", event.attributes
        if event.event == "turn.started":
            self._took(event)
            ids = list(facts.get("message_ids", ()))
            first = self._ledger.messages.get(ids[0]) if ids else None
            claimed_at = first.claimed_at if first is not None else 0.0
            self.known.turns[agent] = Turn(
                str(event.turn_id),
                None,
                facts.get("prompt_id"),
                ids,
                event.source or "hook",
                hop=first.hop if first else 0,
                conversation_id=first.conversation_id if first else None,
                began_at=claimed_at or datetime.fromisoformat(event.at).timestamp(),
            )
        elif event.event == "turn.first_output" and agent in self.known.turns:
            self.known.turns[agent].first_output = True
        elif event.event == "turn.usage":
            self._accounted.append(str(event.turn_id))
            for turn in [one for one in self.known.unaccounted[agent] if one.turn_id == event.turn_id]:
                self.known.unaccounted[agent].remove(turn)
            if facts.get("final"):
                self._seen.append((event.at, agent))
        elif event.event == "turn.ended":
            ended = self.known.turns.pop(agent, None)
            reply = facts.get("reply")
            if ended is not None and ended.turn_id == event.turn_id and event.turn_id not in self._accounted:
                ended.ended = TurnEnded(
                    event.source or "hook", reply, str(facts.get("end_reason") or "unknown"), ended.prompt_id
                )
                self.known.unaccounted[agent].append(ended)
            self._over[agent] = (str(event.turn_id), reply, place)
            for message in self._in_turn.pop(str(event.turn_id), ()):
                self._ledger.answer(message, reply, place)

    def _took(self, event: Event) -> None:
        """Remember a prompt: one that got no answer is told again, and is known by either of two events."""
        prompt_id = event.attributes.get("prompt_id")
        if prompt_id and event.agent:
            self.known.prompts[event.agent].append(str(prompt_id))
