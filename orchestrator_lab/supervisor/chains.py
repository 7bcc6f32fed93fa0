"""Chains of messages that agents write to each other: how long they are, and how often they go round.

A message follows from the one in whose turn it was written, or from the one that it answers, whichever has come
further: an agent that always answers the first message of all does not get out of its chain. What a person sends, and
each step of a declared conversation (which is bounded by itself), begins a chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.config import USER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator_lab.journal.event import Event

__all__ = ["Chains", "Link", "path_of"]


@dataclass(frozen=True, slots=True)
class Link:
    """One message in its chain.

    Parameters
    ----------
    message_id, sender, recipient : str
        The message.
    parent : Link or None
        The message that it follows from; None where a chain begins.
    hops : int
        Steps that agents have written so far, this one included.
    rounds : int
        How often the chain has come back to the same agent from the same one.
    comes_back : bool
        Whether the recipient has been in the chain before.
    """

    message_id: str
    sender: str
    recipient: str
    parent: Link | None = None
    hops: int = 0
    rounds: int = 0
    comes_back: bool = False

    def back(self) -> Iterator[Link]:
        """Yield this link and those before it, the newest first."""
        link: Link | None = self
        while link is not None:
            yield link
            link = link.parent


def path_of(link: Link) -> list[str]:
    """Return the names that a chain has passed through, in order.

    Examples
    --------
    >>> path_of(Link("m2", "worker", "boss", Link("m1", "boss", "worker")))
    ['boss', 'worker', 'boss']
    """
    names = [one.recipient for one in link.back()][::-1]
    first = list(link.back())[-1].sender
    return names if first == USER else [first, *names]


class Chains:
    """A fold over a run's events that knows each message's place in its chain.

    Examples
    --------
    >>> from orchestrator_lab.journal.event import Event
    >>> chains = Chains()
    >>> def queued(number: int, sender: str, recipient: str, parent: str | None = None) -> Link:
    ...     facts = {"sender": sender, "recipient": recipient, "in_reply_to": parent}
    ...     event = Event(number, "message.queued", "", 0.0, message_id=f"m{number}", attributes=facts)
    ...     return chains.take(event)
    >>> links = [queued(1, "a", "b"), queued(2, "b", "a", "m1"), queued(3, "a", "b", "m2"), queued(4, "b", "a", "m3")]
    >>> [(link.hops, link.rounds) for link in links]
    [(1, 0), (2, 1), (3, 1), (4, 2)]
    """

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        #: Messages of the turn that each agent is in.
        self._turns: dict[str, tuple[str | None, list[str]]] = {}

    def take(self, event: Event) -> Link | None:
        """Take in one event; return the place of the message that it queues."""
        facts = event.attributes
        if event.event == "turn.started" and event.agent:
            self._turns[event.agent] = event.turn_id, [str(one) for one in facts.get("message_ids", ())]
        elif event.event == "turn.ended" and event.agent:
            self._turns.pop(event.agent, None)
        elif event.event == "message.accepted" and event.agent and event.message_id:
            turn_id, messages = self._turns.get(event.agent, (None, []))
            if turn_id is not None and turn_id == event.turn_id and event.message_id not in messages:
                messages.append(event.message_id)
        elif event.event == "message.queued" and event.message_id:
            return self._queued(event.message_id, facts)
        return None

    def _queued(self, message_id: str, facts: dict[str, Any]) -> Link:
        sender, recipient = str(facts.get("sender")), str(facts.get("recipient"))
        if sender == USER or facts.get("step") is not None:
            link = Link(message_id, sender, recipient)
        else:
            causes = [str(facts.get("in_reply_to")), *self._turns.get(sender, (None, []))[1]]
            link = _after(self._furthest(causes), message_id, sender, recipient)
        self.links[message_id] = link
        return link

    def _furthest(self, causes: Iterable[str]) -> Link | None:
        known = [self.links[one] for one in causes if one in self.links]
        return max(known, key=lambda link: link.hops, default=None)


def _after(parent: Link | None, message_id: str, sender: str, recipient: str) -> Link:
    before = [] if parent is None else list(parent.back())
    seen = {name for link in before for name in (link.sender, link.recipient)} - {USER}
    comes_back = recipient in seen
    again = sum(link.comes_back and (link.sender, link.recipient) == (sender, recipient) for link in before)
    return Link(
        message_id,
        sender,
        recipient,
        parent,
        hops=(parent.hops if parent is not None else 0) + 1,
        rounds=max(parent.rounds if parent is not None else 0, again + 1 if comes_back else 0),
        comes_back=comes_back,
    )
