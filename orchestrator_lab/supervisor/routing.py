"""Who may write to whom: messages are checked here, journalled and put into mailboxes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator_lab.config import USER
from orchestrator_lab.errors import ClusterStopped, ConfigError, DiskFull, MessageRefused
from orchestrator_lab.supervisor.header import header_line
from orchestrator_lab.supervisor.steps import step
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message

__all__ = ["Routing"]

_MESSAGE_ID = re.compile(r"msg_[0-9a-z]{26}")
#: What an agent is told of a message: not the text of another's turn, which is that one's own to send.
_TOLD = (
    "message_id",
    "conversation_id",
    "in_reply_to",
    "hop",
    "sender",
    "recipient",
    "kind",
    "content",
    "status",
    "error_message",
)


class Routing:
    """Takes messages in.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._cluster = supervisor

    def send(
        self,
        *,
        sender: str,
        recipient: str,
        text: str,
        source: str,
        kind: str = "direct",
        in_reply_to: str | None = None,
        conversation_id: str | None = None,
        when: str = "idle",
        expires_s: float | None = None,
        hop: int = 0,
        message_id: str | None = None,
        step: int | None = None,
    ) -> Message:
        """Take in a message: check who may write to whom, journal it, queue it.

        A client that repeats a request, because the answer was lost, gives the same `message_id`.
        """
        if message_id is not None:
            known = self._cluster.ledger.find(self._cluster.replaying.known_as(message_id))
            if known is not None:
                return known
        self._cluster.replaying.refuse()
        if recipient == "user":
            raise MessageRefused(
                "the user reads the transcript of your turn: end your turn with what you want to say instead",
                sender=sender,
                recipient=recipient,
            )
        runner = self._cluster.runner(recipient)
        if when not in {"idle", "now"}:
            raise ConfigError(f"when={when!r} is not known; use 'idle' (wait for the end of a turn) or 'now'")
        parent = self._parent(sender, in_reply_to)
        if parent is not None:
            conversation_id, hop = parent.conversation_id, parent.hop + 1
            if sender == USER or _answers(sender, recipient, parent):
                kind = "reply"
        clean, _ = sanitize(text)
        if not clean.strip():
            raise MessageRefused("an empty message cannot be typed; send some text", recipient=recipient)
        if self._cluster.stopped or runner.gone:
            raise ClusterStopped(
                f"agent {recipient!r} of cluster {self._cluster.config.name!r} is {runner.state} and takes no "
                "messages; restart it first"
            )
        mailbox = self._cluster.mailboxes[recipient]
        if mailbox.halted and mailbox.waiting:  # else this message is the first to try again
            raise DiskFull(mailbox.halted)
        from_agent = source == "agent"
        message = self.queue(
            sender=sender,
            recipient=recipient,
            text=text,
            kind=kind,
            source=source,
            in_reply_to=in_reply_to,
            conversation_id=conversation_id,
            when=when,
            expires_s=expires_s,
            hop=hop,
            message_id=message_id,
            step=step,
            header=(lambda identity: header_line(sender, identity)) if from_agent else None,
        )
        if not self.may_pass(message):
            self.refuse(message)
        return message

    def _parent(self, sender: str, in_reply_to: str | None) -> Message | None:
        """Return the message that is replied to; an agent knows only those that it sent or got."""
        if not in_reply_to:
            return None
        parent = self._cluster.ledger.find(in_reply_to)
        if parent is None or (sender != USER and not parent.known_to(sender)):
            yours = "" if sender == USER else " that you sent or got"
            raise MessageRefused(
                f"there is no message {in_reply_to!r}{yours}; give the id from the first line of the message that you "
                "answer, or leave in_reply_to out",
                in_reply_to=in_reply_to,
            )
        return parent

    def refuse(self, message: Message) -> None:
        """Refuse a message that the topology forbids, and say what it allows."""
        sender = message.sender
        if sender == message.recipient:
            self._cluster.ledger.advance(
                message, "refused", error_type="topology", error_message=f"{sender} cannot write to itself"
            )
            return
        may = self._cluster.config.topology.recipients(sender, self._cluster.config.names)
        self._cluster.ledger.advance(
            message,
            "refused",
            error_type="topology",
            error_message=(
                f"the topology does not let {sender} write to {message.recipient}; "
                f"{sender} may write to: {', '.join(may) or 'nobody'}"
            ),
        )

    def may_pass(self, message: Message) -> bool:
        """Tell whether a journalled message may be delivered.

        The topology says who may write to whom. An answer to the very agent that asked passes on a one-way edge too,
        and the order of a conversation was checked when it began.
        """
        if message.step is not None or self._cluster.config.topology.allows(message.sender, message.recipient):
            return True
        parent = self._cluster.ledger.find(message.in_reply_to or "")
        return parent is not None and _answers(message.sender, message.recipient, parent)

    def queue(
        self,
        *,
        text: str,
        recipient: str,
        header: Callable[[str], str] | None,
        **rest: Any,  # noqa: ANN401
    ) -> Message:
        """Journal a message that may be delivered and put it into the recipient's mailbox."""
        content, removed = sanitize(text)
        message = self._cluster.ledger.queue(
            recipient=recipient, content=content, header=header, removed_controls=removed, **rest
        )
        step("queued")
        if self.may_pass(message):
            self._cluster.mailboxes[recipient].put(message)
        return message

    def send_from_agent(
        self,
        sender: AgentRunner,
        to: str,
        text: str,
        *,
        in_reply_to: str | None = None,
        kind: str = "direct",
        conversation_id: str | None = None,
        message_id: str | None = None,
    ) -> Message:
        """Take in a message that an agent wrote; its name is known by its secret.

        An agent that repeats a request, because the answer was lost, gives the same `message_id`.
        """
        if message_id is not None and not _MESSAGE_ID.fullmatch(message_id):
            raise MessageRefused(f"{message_id!r} is no id of a message; leave message_id out", sender=sender.name)
        known = self._cluster.ledger.find(message_id or "")
        if known is not None and (known.sender, known.recipient) != (sender.name, to):
            raise MessageRefused(f"another message has the id {message_id!r}; leave message_id out", sender=sender.name)
        turn = sender.turn
        conversation_id = conversation_id or (turn.conversation_id if turn else None)
        return self.send(
            sender=sender.name,
            recipient=to,
            text=text,
            source="agent",
            kind=kind,
            in_reply_to=in_reply_to,
            conversation_id=conversation_id,
            hop=turn.hop + 1 if turn else 0,
            message_id=message_id,
        )

    def broadcast(self, sender: AgentRunner, text: str) -> list[Message]:
        """Take in one message for each agent that the sender may write to."""
        names = [
            name
            for name in self._cluster.config.topology.recipients(sender.name, list(self._cluster.runners))
            if name != sender.name
        ]
        if not names:
            raise MessageRefused(f"the topology does not let {sender.name} write to anybody", sender=sender.name)
        takes = [name for name in names if not self._cluster.runners[name].gone]
        if not takes:
            raise ClusterStopped(f"none of {', '.join(names)} takes messages now; they have ended")
        sent: list[Message] = []
        for name in takes:
            together = sent[0].conversation_id if sent else None
            sent.append(self.send_from_agent(sender, name, text, kind="broadcast", conversation_id=together))
        return sent

    def history(self, name: str, since: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return messages that an agent sent or got, oldest first: those after `since`, or else the newest.

        What is not typed yet, and what was refused, it has not got.
        """
        return [_told(one) for one in self._cluster.ledger.history(name, since, limit)]

    def unsettled(self, name: str, prompt: str) -> Message | None:
        """Return a message to this agent that bytes were written for, and that this prompt proves."""
        for message in self._cluster.ledger.to(name):
            if (
                message.status in {"claimed", "written", "uncertain"}
                and message.expected is not None
                and message.expected.rstrip() == prompt.rstrip()
            ):
                return message
        return None


def _answers(sender: str, recipient: str, parent: Message) -> bool:
    """Tell whether a message answers another one, to the one that wrote it."""
    return (parent.recipient, parent.sender) == (sender, recipient) and parent.status != "refused"


def _told(message: Message) -> dict[str, Any]:
    facts = message.to_dict()
    return {key: facts[key] for key in _TOLD}
