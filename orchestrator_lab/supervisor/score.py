"""A recorded journal as the score of its replay: what happens in which order, by whom, under which ids.

A replay does everything again: messages are typed, programs report, tables are derived anew. What cannot be done again
is chance: ids are drawn, instants pass. Both are taken from the recording: each event of the replay is one of the
recorded ones, found by what it is about, and has its number and its time.

Who makes an event happen decides what a replay does about it:

``user``
    Somebody outside: a notebook's ``send``, a dialog's answer. The replay waits for it.
``reel``
    A program: it reports it, as it did then, when it is its turn.
``lab``
    The lab itself, which follows from what it was told. It is expected.
``aside``
    Anything else (samples, notes, model calls): it has its old place and time when it happens again, and may not.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Literal

from orchestrator_lab.config import USER
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator_lab.journal.event import Event

__all__ = ["SCREEN_FACTS", "Cause", "Score", "causes"]

Cause = Literal["user", "reel", "lab", "aside"]

#: Facts that the screen told, and no report.
SCREEN_FACTS = frozenset({"limited", "shown", "doubt", "hidden"})
#: Why an agent ends on somebody's wish.
_WISHES = frozenset({"stop", "restart", "remove", "shutdown"})
_LAB = frozenset(
    {
        "run.started",
        "run.ended",
        "supervisor.started",
        "recording.started",
        "agent.started",
        "agent.restarting",
        "agent.failed",
        "conversation.ended",
        "message.claimed",
        "message.written",
        "message.refused",
        "message.started",
        "message.answered",
        "turn.started",
    }
)
_REEL = frozenset(
    {
        "agent.ready",
        "agent.session",
        "message.accepted",
        "message.uncertain",
        "message.expired",
        "turn.first_output",
        "tool.started",
        "tool.ended",
        "dialog.opened",
    }
)
_USER = frozenset({"conversation.started", "cluster.stopped", "cluster.restarted", "agent.removed"})
#: By which attribute an event of these is known.
_BY_ATTRIBUTE = {"tool": "tool_call_id", "dialog": "dialog_id", "conversation": "conversation_id"}


def causes(events: Sequence[Event]) -> list[Cause]:
    """Return who made each event of a recorded run happen.

    Parameters
    ----------
    events : sequence of Event
        All of the run, in order.

    Returns
    -------
    list of str
        One for each event: ``user``, ``reel``, ``lab`` or ``aside``.
    """
    return _Reader(events).read()


class _Reader:
    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._claimed: set[str] = set()
        self._accepted: set[str] = set()
        self._queued: dict[str, Event] = {}
        #: The text of each message's turn, once it is over.
        self._replies: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._stopping: set[str] = set()
        self._shown: set[str] = set()
        self._by_policy: set[str] = set()
        self._running = False

    def read(self) -> list[Cause]:
        self._claimed = {str(one.message_id) for one in self._events if one.event == "message.claimed"}
        self._accepted = {str(one.message_id) for one in self._events if one.event == "message.accepted"}
        return [self._cause(event) for event in self._events]

    def _cause(self, event: Event) -> Cause:
        name, agent = event.event, str(event.agent)
        special = getattr(self, f"_{name.replace('.', '_')}", None)
        if special is not None:
            return special(event, agent)  # type: ignore[no-any-return]
        if name in _LAB:
            return "lab"
        if name in _REEL:
            return "reel"
        return "user" if name in _USER else "aside"

    def _agent_added(self, _event: Event, _agent: str) -> Cause:
        return "user" if self._running else "lab"

    def _agent_started(self, _event: Event, agent: str) -> Cause:
        self._running = True
        self._stopping.discard(agent)
        return "lab"

    def _agent_stopping(self, event: Event, agent: str) -> Cause:
        self._stopping.add(agent)
        return "user" if event.attributes.get("reason") in _WISHES else "aside"

    def _agent_exited(self, _event: Event, agent: str) -> Cause:
        return "lab" if agent in self._stopping else "reel"

    def _read_by_the_lab(self, _event: Event, agent: str) -> Cause:
        """Tell of what is read of a turn, as from the program's record: after the program's end it tells nothing."""
        return "lab" if agent in self._stopping else "reel"

    _turn_usage = _turn_changes = _agent_model = _read_by_the_lab

    def _agent_state(self, event: Event, agent: str) -> Cause:
        fact = event.attributes.get("decision")
        was_shown = agent in self._shown
        self._shown.discard(agent)
        if fact in SCREEN_FACTS:
            self._shown.add(agent)
            return "reel"
        return "reel" if was_shown and fact == "ready" else "lab"

    def _message_queued(self, event: Event, _agent: str) -> Cause:
        facts, message_id = event.attributes, str(event.message_id)
        self._queued[message_id] = event
        if facts.get("step") is not None:
            return "lab"
        if facts.get("sender") == USER:
            typed = event.source == "human" and message_id in self._accepted - self._claimed
            return "reel" if typed else "user"
        if event.source == "program":
            return "lab"
        reply = self._replies.get(str(facts.get("in_reply_to")))
        parent = self._queued.get(str(facts.get("in_reply_to")))
        forwarded = (
            reply is not None
            and facts.get("kind") == "reply"
            and parent is not None
            and parent.attributes.get("sender") == facts.get("recipient")
            and sanitize(reply)[0] == facts.get("content")
        )
        if forwarded:
            del self._replies[str(facts.get("in_reply_to"))]
        return "lab" if forwarded else "reel"

    def _message_submitted(self, event: Event, _agent: str) -> Cause:
        return "lab" if event.attributes.get("attempt", 1) == 1 else "aside"

    def _message_answered(self, event: Event, _agent: str) -> Cause:
        self._replies[str(event.message_id)] = self._texts.get(str(event.turn_id), "")
        return "lab"

    def _message_failed(self, event: Event, _agent: str) -> Cause:
        return "lab" if str(event.attributes.get("error_type")).startswith("turn_") else "reel"

    def _turn_ended(self, event: Event, _agent: str) -> Cause:
        self._texts[str(event.turn_id)] = str(event.attributes.get("reply") or "")
        return "lab" if event.source == "process" else "reel"

    def _dialog_answering(self, event: Event, _agent: str) -> Cause:
        self._by_policy.add(str(event.attributes.get("dialog_id")))
        return "user" if event.attributes.get("answered_by") == "human" else "lab"

    def _dialog_answered(self, event: Event, _agent: str) -> Cause:
        facts = event.attributes
        in_hook = facts.get("answered_by") == "policy" and str(facts.get("dialog_id")) not in self._by_policy
        return "lab" if event.source == "process" or in_hook else "reel"

    def _note(self, event: Event, _agent: str) -> Cause:
        return "user" if event.attributes.get("text") == "interrupted" and event.source == "human" else "aside"


class Score:
    """A recorded run, as it is to be played.

    Parameters
    ----------
    events : sequence of Event
        All of the run, in order.
    speed : float, optional
        How many times faster than then; as fast as it can be when omitted.
    """

    def __init__(self, events: Sequence[Event], speed: float | None = None) -> None:
        self.events = list(events)
        self.causes = causes(self.events)
        self.speed = speed
        self._open: dict[tuple[str, ...], deque[int]] = defaultdict(deque)
        #: Messages that were not sent again yet, by sender and recipient; turns and dialogs by agent.
        self._messages: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self._turns: dict[str, list[Event]] = defaultdict(list)
        self._dialogs: dict[str, list[str]] = defaultdict(list)
        self._conversations: list[Event] = []
        for index, event in enumerate(self.events):
            self._open[_key(event.event, event.agent, event.message_id, event.turn_id, event.attributes)].append(index)
            facts = event.attributes
            if event.event == "message.queued":
                self._messages[str(facts.get("sender")), str(facts.get("recipient"))].append(event)
            elif event.event == "turn.started":
                self._turns[str(event.agent)].append(event)
            elif event.event == "dialog.opened" and str(facts.get("dialog_id")) not in self._dialogs[str(event.agent)]:
                self._dialogs[str(event.agent)].append(str(facts.get("dialog_id")))
            elif event.event == "conversation.started":
                self._conversations.append(event)

    def __len__(self) -> int:
        return len(self.events)

    def find(
        self,
        event: str,
        agent: str | None,
        message_id: str | None,
        turn_id: str | None,
        attributes: dict[str, Any],
    ) -> int | None:
        """Return the place of the recorded event that this one is, and take it; None when there is none left.

        Of an agent's states those that did not come this time are passed over.
        """
        places = self._open.get(_key(event, agent, message_id, turn_id, attributes))
        if not places:
            return None
        if event != "agent.state":
            return places.popleft()
        for ahead, place in enumerate(places):
            if self.events[place].attributes.get("state") == attributes.get("state"):
                for _ in range(ahead + 1):
                    places.popleft()
                return place
        return None

    def consequences(self, place: int) -> set[int]:
        """Return the places of what would not have happened without an event, and its own.

        Known of messages: their ladder, the turn that they began, what was said in it and what followed from it.
        """
        found, left = {place}, [place]
        while left:
            event = self.events[left.pop()]
            if event.event != "message.queued":
                continue
            mine = self._of_message(event)
            left += [one for one in mine - found if self.events[one].event == "message.queued"]
            found |= mine
        return found

    def _of_message(self, queued: Event) -> set[int]:
        identity, agent = queued.message_id, queued.agent
        found = {place for place, one in enumerate(self.events) if one.message_id == identity}
        follow_ups = {
            place
            for place, one in enumerate(self.events)
            if one.event == "message.queued"
            and one.attributes.get("in_reply_to") == identity
            and self.causes[place] == "lab"
        }
        begun = next((self.events[one] for one in found if self.events[one].event == "turn.started"), None)
        if begun is None:
            return found | follow_ups
        turn = {place for place, one in enumerate(self.events) if one.turn_id == begun.turn_id}
        first, last = min(found), max(turn)
        for place in range(first, len(self.events)):
            one = self.events[place]
            if one.agent == agent and one.event == "agent.state":
                turn.add(place)
                if place > last:
                    break
            said = one.event == "message.queued" and one.attributes.get("sender") == agent
            if said and place < last and self.causes[place] == "reel":
                turn.add(place)
        return found | follow_ups | turn

    def next_message(self, sender: str, recipient: str, content: str) -> Event | None:
        """Return the recorded ``message.queued`` that a message is, and take it.

        That is the first one with the same text; else the first of all, and it is the caller's to say that they differ.
        """
        found = self.peek_message(sender, recipient, content)
        if found is not None:
            self._messages[sender, recipient].remove(found)
        return found

    def peek_message(self, sender: str, recipient: str, content: str) -> Event | None:
        """Return what :meth:`next_message` would return, and leave it there."""
        left = self._messages[sender, recipient]
        return next((one for one in left if one.attributes.get("content") == content), left[0] if left else None)

    def next_turn(self, agent: str, message_id: str) -> str | None:
        """Return the id of the recorded turn that began with a message, or else of the next one, and take it."""
        left = self._turns[agent]
        found = next((one for one in left if one.message_id == message_id), left[0] if left else None)
        if found is None:
            return None
        left.remove(found)
        return str(found.turn_id)

    def next_dialog(self, agent: str) -> str | None:
        """Return the id of the next recorded dialog, and take it."""
        left = self._dialogs[agent]
        return left.pop(0) if left else None

    def next_conversation(self, agents: list[str]) -> Event | None:
        """Return the recorded ``conversation.started`` of these speakers, and take it."""
        found = next((one for one in self._conversations if one.attributes.get("agents") == agents), None)
        if found is not None:
            self._conversations.remove(found)
        return found

    def place(self, event: Event) -> int:
        """Return the place of a recorded event."""
        low = event.seq - self.events[0].seq
        if low < len(self.events) and self.events[low] is event:
            return low
        return self.events.index(event)

    def first(self, event: str, agent: str | None = None, **attributes: object) -> int | None:
        """Return the place of the first such event that did not come yet, None when there is none."""
        found = [
            place
            for key, places in self._open.items()
            if key[0] == event
            for place in places
            if (agent is None or self.events[place].agent == agent)
            and all(self.events[place].attributes.get(name) == value for name, value in attributes.items())
        ]
        return min(found, default=None)


def _key(
    event: str, agent: str | None, message_id: str | None, turn_id: str | None, attributes: dict[str, Any]
) -> tuple[str, ...]:
    family = event.split(".", 1)[0]
    if family == "message":
        return event, str(message_id)
    if family == "turn":
        return event, str(turn_id)
    if family in _BY_ATTRIBUTE:
        return event, str(agent), str(attributes.get(_BY_ATTRIBUTE[family]))
    return event, str(agent)
