"""Who may write to whom: messages are checked here, journalled and put into mailboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ClusterStopped, ConfigError, DiskFull, MessageRefused
from orchestrator_lab.supervisor.header import header_line
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message

__all__ = ["Routing"]


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
    ) -> Message:
        """Take in a message: check who may write to whom, journal it, queue it.

        A client that repeats a request, because the answer was lost, gives the same `message_id`.
        """
        if message_id is not None and message_id in self._cluster.ledger.messages:
            return self._cluster.ledger.messages[message_id]
        if recipient == "user":
            raise MessageRefused(
                "the user reads the transcript of your turn: end your turn with what you want to say instead",
                sender=sender,
                recipient=recipient,
            )
        runner = self._cluster.runner(recipient)
        if when not in {"idle", "now"}:
            raise ConfigError(f"when={when!r} is not known; use 'idle' (wait for the end of a turn) or 'now'")
        parent = self._cluster.ledger.messages.get(in_reply_to) if in_reply_to else None
        if in_reply_to and parent is None:
            raise MessageRefused(f"there is no message {in_reply_to!r} to reply to", in_reply_to=in_reply_to)
        if parent is not None:
            conversation_id = conversation_id or parent.conversation_id
            kind = "reply"
        clean, _ = sanitize(text)
        if not clean.strip():
            raise MessageRefused("an empty message cannot be typed; send some text", recipient=recipient)
        if self._cluster.stopped or (not runner.running and runner.state in {"exited", "failed"}):
            raise ClusterStopped(
                f"agent {recipient!r} of cluster {self._cluster.config.name!r} is {runner.state} and takes no "
                "messages; restart it first"
            )
        halted = self._cluster.mailboxes[recipient].halted
        if halted:
            raise DiskFull(halted)
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
            header=(lambda identity: header_line(sender, identity)) if from_agent else None,
        )
        if not self._cluster.config.topology.allows(sender, recipient):
            self.refuse(message)
        return message

    def refuse(self, message: Message) -> None:
        """Refuse a message that the topology forbids, and say what it allows."""
        sender = message.sender
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
        """Tell whether a journalled message may be delivered."""
        return (
            message.sender not in self._cluster.runners
            or self._cluster.config.topology.allows(message.sender, message.recipient)
            or message.conversation_id in self._cluster.conversations.running
        )

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
        if self.may_pass(message):
            self._cluster.mailboxes[recipient].put(message)
        return message

    def send_from_agent(
        self, sender: AgentRunner, to: str, text: str, *, in_reply_to: str | None = None, kind: str = "direct"
    ) -> Message:
        """Take in a message that an agent wrote; its name is known by its secret."""
        turn = sender.turn
        return self.send(
            sender=sender.name,
            recipient=to,
            text=text,
            source="agent",
            kind=kind,
            in_reply_to=in_reply_to,
            conversation_id=turn.conversation_id if turn else None,
            hop=turn.hop + 1 if turn else 0,
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
        return [self.send_from_agent(sender, name, text, kind="broadcast") for name in names]

    def history(self, name: str, since: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Return the newest messages that an agent sent or got, oldest first."""
        found = [one for one in self._cluster.ledger.messages.values() if name in {one.sender, one.recipient}]
        if since is not None:
            ids = [one.message_id for one in found]
            found = found[ids.index(since) + 1 :] if since in ids else found
        return [one.to_dict() for one in found[-limit:]]

    def unsettled(self, name: str, prompt: str) -> Message | None:
        """Return a message to this agent that bytes were written for, and that this prompt proves."""
        for message in self._cluster.ledger.messages.values():
            if (
                message.recipient == name
                and message.status in {"claimed", "written", "uncertain"}
                and message.expected is not None
                and message.expected.rstrip() == prompt.rstrip()
            ):
                return message
        return None
