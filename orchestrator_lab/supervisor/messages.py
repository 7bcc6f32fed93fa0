"""Messages in flight: their ladder, and whoever waits for them.

Every change of a message's rung passes through :class:`Ledger`, which journals it first. The journal is the truth;
what is kept here is only what delivery and waiting clients need.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.journal.writer import JournalWriter

__all__ = ["FINAL", "Ledger", "Message"]

#: Rungs after which nothing more is expected; evidence may still settle ``uncertain``.
FINAL = frozenset({"answered", "refused", "expired", "failed", "uncertain"})
_LOST = frozenset({"refused", "expired", "failed", "uncertain"})
_RUNGS = ("queued", "claimed", "written", "accepted", "started", "answered")


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

    @property
    def final(self) -> bool:
        """Whether nothing more is expected."""
        return self.status in FINAL

    @property
    def in_pane(self) -> bool:
        """Whether bytes may have reached the pane without the turn being over."""
        return self.status in {"claimed", "written", "accepted", "started"}

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
    """All messages of a run that this supervisor knows, and the only place where their rung changes.

    Parameters
    ----------
    journal : JournalWriter
        Written first, always.
    """

    def __init__(self, journal: JournalWriter) -> None:
        self.journal = journal
        self.messages: dict[str, Message] = {}
        self._waiters: set[asyncio.Event] = set()
        #: Told of messages that end without having been answered by a turn.
        self.on_lost: Callable[[Message], None] | None = None

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
            content_sha256=hashlib.sha256(content.encode()).hexdigest(),
            when=when,
            header=message.header,
            removed_controls=removed_controls or None,
            expires_s=expires_s,
            step=step,
        )
        self.messages[message_id] = message
        return message

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
        event = self.journal.append(
            f"message.{status}",
            agent=message.recipient,
            message_id=message.message_id,
            turn_id=turn_id,
            source=source,
            level="warning" if status in {"failed", "uncertain", "expired"} else "info",
            error_type=error_type,
            error_message=error_message,
            **attributes,
        )
        message.status = status
        message.turn_id = turn_id or message.turn_id
        message.error_type, message.error_message = error_type, error_message
        self.poke()
        if self.on_lost is not None and message.turn_id is None and status in _LOST:
            self.on_lost(message)
        return event

    def poke(self) -> None:
        """Wake whoever waits for anything in the cluster to change."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.set()

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
