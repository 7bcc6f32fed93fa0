"""Messages in flight: their ladder, and whoever waits for them.

Every change of a message's rung passes through :class:`Ledger`, which journals it first. The journal is the truth;
what is kept here is only what delivery and waiting clients need.
"""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.config import USER
from orchestrator_lab.errors import MessageRefused
from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.archive import NOWHERE, Archive, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.journal.writer import JournalWriter

__all__ = ["FINAL", "Ledger", "Message"]

#: Rungs after which nothing more is expected; evidence may still settle ``uncertain``.
FINAL = frozenset({"answered", "refused", "expired", "failed", "uncertain"})
_LOST = frozenset({"refused", "expired", "failed", "uncertain"})
_RUNGS = ("queued", "claimed", "written", "accepted", "started", "answered")
#: Messages of each recipient that are kept whole after their end: its last turn may still be looked into.
_KEPT = 8
#: Uncertain messages of each recipient that late evidence may settle: it takes texts in their order.
_KEPT_UNCERTAIN = 64


@dataclass(slots=True, eq=False)
class Message:
    """One message and how far it has come.

    Parameters
    ----------
    message_id, conversation_id : str
        Identity, and the conversation it belongs to.
    sender, recipient : str
        Names; ``user`` is whoever holds the notebook or the shell.
    content : str
        The text without the sender line, controls removed.
    kind : str
        ``direct``, ``broadcast`` or ``reply``.
    source : str
        ``human``, ``program`` or ``agent``.
    step : int or None
        Which step of a conversation that runs by itself this is; None for what is said besides.
    """

    message_id: str
    conversation_id: str
    sender: str
    recipient: str
    content: str
    kind: str = "direct"
    source: str = "program"
    in_reply_to: str | None = None
    hop: int = 0
    when: str = "idle"
    header: str | None = None
    expires_at: float | None = None
    step: int | None = None
    status: str = "queued"
    turn_id: str | None = None
    reply: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    claimed_at: float = 0.0
    expected: str | None = None
    #: Whether its recipient has written back by itself.
    replied: bool = False
    #: Where the journal tells of it.
    places: Places = field(default=Places(NOWHERE))

    @property
    def final(self) -> bool:
        """Whether nothing more is expected."""
        return self.status in FINAL

    @property
    def in_pane(self) -> bool:
        """Whether bytes may have reached the pane without the turn being over."""
        return self.status in {"claimed", "written", "accepted", "started"}

    def answers(self, other: Message) -> bool:
        """Whether this is what the recipient of another message wrote back to its sender."""
        return self.in_reply_to == other.message_id and (self.sender, self.recipient) == (other.recipient, other.sender)

    def known_to(self, name: str) -> bool:
        """Whether an agent sent it, or got it: what is not typed yet, or was refused, it has not got."""
        if self.sender == name:
            return True
        reached = self.status not in {"queued", "claimed", "refused", "expired"}
        return self.recipient == name and reached and not (self.status == "failed" and self.turn_id is None)

    @property
    def text(self) -> str:
        """What is typed before the program's own transformation."""
        return f"{self.header}\n{self.content}" if self.header else self.content

    def to_dict(self) -> dict[str, Any]:
        """Return what clients see."""
        return {
            "message_id": self.message_id,
            "conversation_id": self.conversation_id,
            "in_reply_to": self.in_reply_to,
            "hop": self.hop,
            "sender": self.sender,
            "recipient": self.recipient,
            "kind": self.kind,
            "source": self.source,
            "content": self.content,
            "status": self.status,
            "turn_id": self.turn_id,
            "reply": self.reply,
            "error_type": self.error_type,
            "error_message": self.error_message,
        }


class Ledger:
    """All messages of a run, and the only place where their rung changes.

    Those that go on, and the last ones of each recipient, are in memory. The others are found in the journal when
    somebody asks for them, so that a run may have any number.

    Parameters
    ----------
    journal : JournalWriter
        Written first, always.
    """

    def __init__(self, journal: JournalWriter) -> None:
        self.journal = journal
        #: Those in memory; :meth:`find` knows all.
        self.messages: dict[str, Message] = {}
        self._archive = Archive(journal)
        self._to: dict[str, dict[str, Message]] = defaultdict(dict)
        self._over: dict[tuple[str, bool], deque[Message]] = defaultdict(deque)
        #: Ids of what each agent sent or may have got, in the order of their queueing.
        self._history: dict[str, list[str]] = defaultdict(list)
        self._waiters: set[asyncio.Event] = set()
        self._watchers: dict[str, set[asyncio.Event]] = {}
        #: Gives a message of a replay what it had: its id, its conversation's, and the SHA-256 of its text.
        self.recorded: Callable[[str, str | None, str, str, str], tuple[str, str | None, str | None]] | None = None
        #: Whether all messages stay in memory.
        self.keeps_all = False
        #: Told of messages that end without having been answered by a turn.
        self.on_lost: Callable[[Message], None] | None = None

    @property
    def count(self) -> int:
        """How many messages the run has."""
        return len(self.messages) + len(self._archive)

    def __getitem__(self, message_id: str) -> Message:
        found = self.find(message_id)
        if found is None:
            raise KeyError(message_id)
        return found

    def find(self, message_id: str) -> Message | None:
        """Return a message, from the journal when it is over; None when the run has no such message."""
        message = self.messages.get(message_id)
        places = self._archive.places(message_id) if message is None else None
        if places is None:
            return message
        queued, last, ended = self._archive.read(places)
        message = _queued(queued, places)
        _advance(message, last)
        if ended is not None:
            message.reply = ended.attributes.get("reply")
        return message

    def to(self, recipient: str) -> list[Message]:
        """Return the messages to an agent that are in memory, oldest first."""
        return list(self._to[recipient].values())

    def history(self, name: str, since: str | None = None, limit: int = 50) -> list[Message]:
        """Return messages that an agent sent or got, oldest first: those after `since`, or else the newest."""
        ids = self._history[name]
        if since is None:
            newest: list[Message] = []
            for one in self._known(name, reversed(ids)):
                newest.append(one)
                if len(newest) == limit:
                    break
            return newest[::-1]
        found = self.find(since)
        if found is None or not found.known_to(name):
            raise MessageRefused(
                f"there is no message {since!r} that you sent or got; leave since out to read the newest"
            )
        start = bisect.bisect_right(ids, found.places.queued, key=self._place)
        after: list[Message] = []
        for one in self._known(name, iter(ids[start:])):
            after.append(one)
            if len(after) == limit:
                break
        return after

    def _known(self, name: str, ids: Iterator[str]) -> Iterator[Message]:
        return (message for message in map(self.__getitem__, ids) if message.known_to(name))

    def _place(self, message_id: str) -> int:
        message = self.messages.get(message_id)
        places = self._archive.places(message_id) if message is None else message.places
        return NOWHERE if places is None else places.queued

    def queue(
        self,
        *,
        sender: str,
        recipient: str,
        content: str,
        kind: str,
        source: str,
        conversation_id: str | None = None,
        in_reply_to: str | None = None,
        hop: int = 0,
        when: str = "idle",
        header: Callable[[str], str] | None = None,
        expires_s: float | None = None,
        removed_controls: int = 0,
        message_id: str | None = None,
        step: int | None = None,
    ) -> Message:
        """Journal a new message and return it."""
        message_id = message_id or new_id("msg_")
        digest = None
        if self.recorded is not None:
            message_id, conversation_id, digest = self.recorded(message_id, conversation_id, sender, recipient, content)
        message = Message(
            message_id=message_id,
            conversation_id=conversation_id or new_id("cnv_"),
            sender=sender,
            recipient=recipient,
            content=content,
            kind=kind,
            source=source,
            in_reply_to=in_reply_to,
            hop=hop,
            when=when,
            header=header(message_id) if header else None,
            expires_at=None if expires_s is None else time.time() + expires_s,
            step=step,
            places=Places(self.journal.size),
        )
        self.journal.append(
            "message.queued",
            agent=recipient,
            message_id=message_id,
            conversation_id=message.conversation_id,
            in_reply_to=in_reply_to,
            hop=hop,
            sender=sender,
            recipient=recipient,
            kind=kind,
            source=source,
            content=content,
            content_sha256=digest or hashlib.sha256(content.encode()).hexdigest(),
            when=when,
            header=message.header,
            removed_controls=removed_controls or None,
            expires_s=expires_s,
            step=step,
        )
        self._take(message)
        return message

    def _take(self, message: Message) -> None:
        self.messages[message.message_id] = self._to[message.recipient][message.message_id] = message
        for name in {message.sender, message.recipient} - {USER}:
            self._history[name].append(message.message_id)
        # What is over has been followed, or answered for: only one that goes on can be answered yet.
        parent = self.messages.get(message.in_reply_to or "")
        if parent is not None and message.answers(parent):
            parent.replied = True

    def restore(self, event: Event, place: int) -> Message | None:
        """Take over from the journal what an earlier supervisor wrote of a message; return the message."""
        if event.event == "message.queued":
            message = _queued(event, Places(place))
            self._take(message)
            return message
        known = self.messages.get(event.message_id or "")
        if known is not None and event.event != "message.submitted":
            _advance(known, event)
            if known.final:
                self._end(known, place)
        return known

    def _end(self, message: Message, place: int) -> None:
        """Keep the last ones whole that are over, and of the others where the journal tells of them."""
        message.places = message.places._replace(ended=place)
        uncertain = message.status == "uncertain"
        over = self._over[message.recipient, uncertain]
        over.append(message)
        while not self.keeps_all and len(over) > (_KEPT_UNCERTAIN if uncertain else _KEPT):
            oldest = over.popleft()
            # Late evidence may have taken an uncertain one on.
            if oldest.final and (oldest.status == "uncertain") == uncertain:
                self._file(oldest)

    def _file(self, message: Message) -> None:
        if self.messages.pop(message.message_id, None) is None:
            return
        del self._to[message.recipient][message.message_id]
        self._archive.file(message.message_id, message.places)
        if not message.known_to(message.recipient) and message.sender != message.recipient:
            ids = self._history[message.recipient]
            at = bisect.bisect_left(ids, message.places.queued, key=self._place)
            del ids[at]

    def answer(self, message: Message, reply: str | None, place: int) -> None:
        """Take note of a turn's text, which the journal has at this place."""
        message.reply, message.places = reply, message.places._replace(reply=place)

    def advance(
        self,
        message: Message,
        status: str,
        *,
        source: str | None = None,
        turn_id: str | None = None,
        error_type: str | None = None,
        error_message: str | None = None,
        **attributes: Any,  # noqa: ANN401 - any JSON value
    ) -> Event | None:
        """Journal a new rung of a message; going back, or past a final rung, does nothing.

        Late evidence settles an ``uncertain`` message.
        """
        settles = message.status == "uncertain" and status in {"accepted", "started", "answered", "failed"}
        if message.final and not settles:
            return None
        if status in _RUNGS and message.status in _RUNGS and _RUNGS.index(status) <= _RUNGS.index(message.status):
            return None
        place = self.journal.size
        event = self.journal.append(
            f"message.{status}",
            agent=message.recipient,
            message_id=message.message_id,
            turn_id=turn_id or message.turn_id,
            source=source,
            level="warning" if status in {"failed", "uncertain", "expired"} else "info",
            error_type=error_type,
            error_message=error_message,
            **attributes,
        )
        message.status = status
        message.turn_id = turn_id or message.turn_id
        message.error_type, message.error_message = error_type, error_message
        if message.final:
            self._end(message, place)
        self.poke()
        for watcher in self._watchers.pop(message.message_id, ()):
            watcher.set()
        if self.on_lost is not None and message.turn_id is None and status in _LOST:
            self.on_lost(message)
        return event

    def poke(self) -> None:
        """Wake whoever waits for anything in the cluster to change."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.set()

    def wake_all(self) -> None:
        """Wake whoever waits for anything, single messages included."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.set()
        self.poke()

    async def until_rung(self, message: Message, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until a condition on one message's rung holds; False when the time is over.

        Woken by this message alone, however many others are on their way.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            watcher = asyncio.Event()
            watchers = self._watchers.setdefault(message.message_id, set())
            watchers.add(watcher)
            try:
                await asyncio.wait_for(watcher.wait(), None if deadline is None else deadline - time.monotonic())
            except TimeoutError:
                return condition()
            finally:
                watchers.discard(watcher)
                if not watchers and self._watchers.get(message.message_id) is watchers:
                    del self._watchers[message.message_id]
        return True

    async def until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until a condition on messages or agents holds; False when the time is over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            waiter = asyncio.Event()
            self._waiters.add(waiter)
            left = None if deadline is None else deadline - time.monotonic()
            try:
                await asyncio.wait_for(waiter.wait(), left)
            except TimeoutError:
                return condition()
            finally:
                self._waiters.discard(waiter)
        return True


def _queued(event: Event, places: Places) -> Message:
    """Return the message that a ``message.queued`` tells of, as it was then."""
    facts = event.attributes
    expires = facts.get("expires_s")
    return Message(
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
        expires_at=None if expires is None else datetime.fromisoformat(event.at).timestamp() + float(expires),
        step=facts.get("step"),
        places=places,
    )


def _advance(message: Message, event: Event) -> None:
    """Bring a message to the rung that an event tells of."""
    message.status = event.event.removeprefix("message.")
    message.turn_id = event.turn_id or message.turn_id
    message.error_type = event.attributes.get("error_type")
    message.error_message = event.attributes.get("error_message")
    if message.status == "claimed":
        message.claimed_at = datetime.fromisoformat(event.at).timestamp()
