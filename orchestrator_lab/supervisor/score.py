"""A recorded journal as the score of its replay: what happens in which order, by whom, under which ids.

A replay does everything again: messages are typed, programs report, tables are derived anew. What cannot be done again
is chance: ids are drawn, instants pass. Both are taken from the recording: each event of the replay is one of the
recorded ones, found by what it is about, and has its number and its time.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.causes import causes
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator_lab.journal.causes import Cause
    from orchestrator_lab.journal.event import Event

__all__ = ["Score"]

#: By which attribute an event of these is known.
_BY_ATTRIBUTE = {"tool": "tool_call_id", "dialog": "dialog_id", "conversation": "conversation_id"}


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
        self.causes = causes(self.events, lambda text: sanitize(text)[0])
        self.speed = speed
        self._open: dict[tuple[str, ...], deque[int]] = defaultdict(deque)
        self._keys: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        #: Messages that were not sent again yet, by sender and recipient; turns and dialogs by agent.
        self._messages: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self._turns: dict[str, list[Event]] = defaultdict(list)
        self._dialogs: dict[str, list[str]] = defaultdict(list)
        self._guards: dict[tuple[str | None, str], list[str]] = defaultdict(list)
        self._conversations: list[Event] = []
        self._known = frozenset(str(one.message_id) for one in self.events if one.event == "message.queued")
        for index, event in enumerate(self.events):
            key = _key(event.event, event.agent, event.message_id, event.turn_id, event.attributes)
            self._open[key].append(index)
            self._keys[event.event].add(key)
            facts = event.attributes
            if event.event == "message.queued":
                self._messages[str(facts.get("sender")), str(facts.get("recipient"))].append(event)
            elif event.event == "turn.started":
                self._turns[str(event.agent)].append(event)
            elif event.event == "dialog.opened" and str(facts.get("dialog_id")) not in self._dialogs[str(event.agent)]:
                self._dialogs[str(event.agent)].append(str(facts.get("dialog_id")))
            elif event.event == "conversation.started":
                self._conversations.append(event)
            elif event.event == "guard.tripped":
                self._guards[event.agent, str(facts.get("rule"))].append(str(facts.get("guard_id")))

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

    def at(self, seq: int) -> int | None:
        """Return the place of the event with a number."""
        place = seq - self.events[0].seq
        return place if 0 <= place < len(self.events) and self.events[place].seq == seq else None

    def next_state(self, agent: str) -> str | None:
        """Return the state that an agent had next, None when it had no other."""
        places = self._open.get(("agent.state", agent))
        return self.events[places[0]].attributes.get("state") if places else None

    def holds(self, message_id: str) -> bool:
        """Tell whether a message is in the recording."""
        return message_id in self._known

    def claim(self, message_id: str) -> int | None:
        """Return the place at which a message was written next, None when it was not written any more."""
        places = self._open.get(("message.claimed", message_id))
        return places[0] if places else None

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

    def next_guard(self, agent: str | None, rule: str) -> str | None:
        """Return the id of the next recorded guard on a limit, and take it."""
        left = self._guards[agent, rule]
        return left.pop(0) if left else None

    def next_conversation(self, agents: list[str]) -> Event | None:
        """Return the recorded ``conversation.started`` of these speakers, and take it."""
        found = next((one for one in self._conversations if one.attributes.get("agents") == agents), None)
        if found is not None:
            self._conversations.remove(found)
        return found

    def place(self, event: Event) -> int:
        """Return the place of a recorded event."""
        found = self.at(event.seq)
        return found if found is not None and self.events[found] is event else self.events.index(event)

    def first(
        self, event: str, agent: str | None = None, *, cause: Cause | None = None, **attributes: object
    ) -> int | None:
        """Return the place of the first such event that did not come yet, None when there is none."""
        found = [
            place
            for key in self._keys[event]
            for place in self._open[key]
            if (agent is None or self.events[place].agent == agent)
            and cause in {None, self.causes[place]}
            and all(self.events[place].attributes.get(name) == value for name, value in attributes.items())
        ]
        return min(found, default=None)

    def begin(self, place: int | None) -> int | None:
        """Return the place at which what leads to an event begins: a program's start begins with its recording."""
        starts = place is not None and self.events[place].event == "agent.started"
        while starts and place and self._records(place - 1, self.events[place].agent):
            place -= 1
        return place

    def _records(self, place: int, agent: str | None) -> bool:
        event = self.events[place]
        return event.event == "recording.started" and event.agent == agent


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
    if event == "note":  # one that did not come again is no other one
        return event, str(agent), str(attributes.get("text"))
    return event, str(agent)
