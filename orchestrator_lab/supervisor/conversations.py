"""What follows from a turn's end: replies that are forwarded, and conversations that run by themselves.

Both are decided from the answered message alone, so that a new supervisor that reads the journal comes to the same
decision: the follow-up of a message is queued exactly once, found again by its ``in_reply_to``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError, MessageRefused, OrchestratorLabError
from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.header import header_line

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import TurnEnded
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.guards import Hold
    from orchestrator_lab.supervisor.messages import Message

__all__ = ["Conversation", "Conversations"]

#: Ends of a message that are told to the asker on an edge that forwards.
_FORWARDED = frozenset({"answered", "failed", "expired"})
#: Conversations that a cluster's status tells of, beside those that go on.
_TOLD = 100


@dataclass(slots=True)
class Conversation:
    """Agents that speak in turn, each to the next.

    Parameters
    ----------
    conversation_id : str
        Identity.
    agents : tuple of str
        Who speaks, in order; after the last comes the first.
    rounds : int
        How often each speaks.
    turns : int
        Turns that have ended.
    ended : str or None
        Why it is over, None while it goes on.
    """

    conversation_id: str
    agents: tuple[str, ...]
    rounds: int
    turns: int = 0
    ended: str | None = None
    #: The last step, while it goes on; one that never had a step has not begun.
    last: Message | None = None
    begun: bool = False

    def next_speaker(self, speaker: str) -> str:
        """Return who speaks after this one."""
        return self.agents[(self.agents.index(speaker) + 1) % len(self.agents)]

    def to_dict(self) -> dict[str, Any]:
        """Return what clients see."""
        return {
            "conversation_id": self.conversation_id,
            "agents": list(self.agents),
            "rounds": self.rounds,
            "turns": self.turns,
            "turns_planned": self.rounds * len(self.agents),
            "ended": self.ended,
        }


class Conversations:
    """Forwards replies and runs conversations.

    Parameters
    ----------
    supervisor : Supervisor
        Ledger, topology and mailboxes.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        #: All of the run.
        self.known: dict[str, Conversation] = {}
        self._running: dict[str, Conversation] = {}

    @property
    def going_on(self) -> bool:
        """Whether any conversation is not over."""
        return bool(self._running)

    def stuck(self) -> Hold | None:
        """Return what holds all conversations until somebody lifts it; None while any of them goes on."""
        holds = [self.hold_of(one) for one in self._running.values()]
        return holds[0] if holds and all(holds) else None

    def recent(self) -> list[Conversation]:
        """Return those that go on, and the last ones that are over."""
        last = list(itertools.islice(reversed(self.known.values()), _TOLD))
        told = {one.conversation_id: one for one in [*self._running.values(), *reversed(last)]}
        return list(told.values())

    def restore(self, conversation: Conversation) -> None:
        """Take over a conversation that an earlier supervisor began."""
        self.known[conversation.conversation_id] = self._running[conversation.conversation_id] = conversation

    def restore_step(self, message: Message, *, queued: bool) -> None:
        """Take over a step that an earlier supervisor queued, or that was answered then."""
        conversation = self._conversation(message)
        if conversation is not None and queued:
            conversation.last, conversation.begun = message, True
        elif message.step is not None and message.status == "answered" and message.conversation_id in self.known:
            self.known[message.conversation_id].turns += 1

    def restore_end(self, conversation_id: str, reason: str) -> None:
        """Take over that a conversation is over."""
        conversation = self._running.pop(conversation_id, None)
        if conversation is not None:
            conversation.ended, conversation.last = reason, None

    def start(
        self,
        agents: list[str],
        opening: str,
        rounds: int,
        *,
        source: str = "program",
        conversation_id: str | None = None,
    ) -> Conversation:
        """Give the opening to the first agent; from then on each answer goes to the next one.

        A client that repeats a request, because the answer was lost, gives the same `conversation_id`.
        """
        supervisor = self._supervisor
        conversation_id = supervisor.replaying.conversation_id(agents, conversation_id)
        known = self.known.get(str(conversation_id))
        if known is not None and known.begun:
            return known
        for name in agents:
            supervisor.runner(name)
        if len(agents) < 2:
            raise ConfigError(f"a conversation needs two agents or more, got {len(agents)}")
        if len(set(agents)) != len(agents):
            raise ConfigError("a conversation names each agent once; its order is the order of speaking")
        if rounds < 1:
            raise ConfigError(f"a conversation has one round or more, got rounds={rounds}")
        # The last one writes to the first only when there is another round.
        for speaker, listener in itertools.pairwise(agents if rounds == 1 else [*agents, agents[0]]):
            if not supervisor.config.topology.allows(speaker, listener):
                raise MessageRefused(
                    f"the topology does not let {speaker} write to {listener}: add the edge "
                    f"'{speaker} -> {listener}' or choose another order of speaking",
                    sender=speaker,
                    recipient=listener,
                )
        conversation = Conversation(conversation_id or new_id("cnv_"), tuple(agents), rounds)
        self.restore(conversation)
        supervisor.journal.append(
            "conversation.started",
            conversation_id=conversation.conversation_id,
            agents=agents,
            rounds=rounds,
        )
        try:
            conversation.last = supervisor.routing.send(
                sender="user",
                recipient=agents[0],
                text=opening,
                source=source,
                conversation_id=conversation.conversation_id,
                step=0,
            )
        except OrchestratorLabError as error:
            self._end(conversation, error.message)
            raise
        conversation.begun = True
        return conversation

    def turn_over(self, message: Message, ended: TurnEnded) -> None:
        """Do what follows from the end of a message's turn: once, whoever asks."""
        conversation = self._conversation(message)
        if conversation is None:
            self._forward(message, ended.reply)
        elif message.status != "answered":
            self._end(conversation, f"{message.recipient}: {message.error_message or ended.reason}")
        else:
            conversation.turns += 1
            self._pass_on(conversation, message, ended.reply)

    def follow_up(self, message: Message) -> None:
        """Queue what should follow an answered message if a supervisor died before it did."""
        conversation = self._conversation(message)
        if conversation is None:
            self._forward(message, message.reply)
        elif message.status == "answered" and message is conversation.last:
            self._pass_on(conversation, message, message.reply)

    def lost(self, message: Message) -> None:
        """Do what follows from a message that nobody will answer."""
        conversation = self._conversation(message)
        if conversation is not None:
            self._end(conversation, f"{message.recipient}: {message.error_message or message.status}")
        else:
            self._forward(message, None)

    def hold_of(self, conversation: Conversation) -> Hold | None:
        """Return what holds the next step of a conversation until somebody lifts it."""
        last = conversation.last
        if last is None or last.status != "queued":
            return None
        hold = self._supervisor.guards.hold_of(last.recipient)
        return None if hold is None or hold.ends else hold

    def agent_ended(self, name: str) -> None:
        """End the conversations whose next step waits for an agent that has ended."""
        for conversation in list(self._running.values()):
            last = conversation.last
            if last is not None and last.recipient == name and last.status == "queued":
                self._supervisor.ledger.advance(
                    last,
                    "failed",
                    error_type="exited",
                    error_message=f"{name} ended before it was written to; nothing was typed",
                )

    def end_stranded(self) -> None:
        """End conversations that a dead supervisor left without a message that could carry them on."""
        for conversation in list(self._running.values()):
            last = conversation.last
            if last is None:
                self._end(conversation, "the supervisor ended before the opening was sent")
            elif last.status in {"refused", "expired", "failed", "uncertain"}:
                self.lost(last)

    def _conversation(self, message: Message) -> Conversation | None:
        """Return the conversation that goes on with a message; what is said besides carries nothing on."""
        return self._running.get(message.conversation_id) if message.step is not None else None

    def _pass_on(self, conversation: Conversation, message: Message, reply: str | None) -> None:
        if conversation.turns >= conversation.rounds * len(conversation.agents):
            self._end(conversation, "completed")
            return
        following = conversation.next_speaker(message.recipient)
        runner = self._supervisor.runners.get(following)
        if not (reply or "").strip():
            self._end(conversation, f"{message.recipient} gave no answer")
        elif runner is None:
            self._end(conversation, f"{following} has left the cluster")
        elif not runner.running and not runner.comes_back:
            self._end(conversation, f"{following} is {runner.state}")
        else:
            conversation.last = self._type(message, following, str(reply), step=(message.step or 0) + 1)

    def _forward(self, message: Message, reply: str | None) -> None:
        """Type an answer to the agent that asked, where the edge says so; never an answer to an answer.

        An agent that has answered by itself has answered. One that will never answer is answered for: the asker, which
        may have no other means of knowing, is told so in one line. Of what is uncertain nothing can be told yet.
        """
        supervisor = self._supervisor
        if message.kind == "reply" or message.source != "agent" or message.status not in _FORWARDED:
            return
        runner = supervisor.runners.get(message.sender)
        if runner is None or not (runner.running or runner.comes_back):
            return
        if supervisor.config.topology.replies(message.sender, message.recipient) != "forward":
            return
        if message.replied:
            return
        if message.status == "answered" and (reply or "").strip():
            self._type(message, message.sender, str(reply))
        else:
            why = message.error_message or "its turn ended without a text"
            self._type(message, message.sender, f"({message.recipient} did not answer: {why})", source="program")

    def _type(
        self, message: Message, recipient: str, reply: str, *, source: str = "agent", step: int | None = None
    ) -> Message:
        return self._supervisor.routing.queue(
            sender=message.recipient,
            recipient=recipient,
            text=reply,
            kind="reply",
            source=source,
            conversation_id=message.conversation_id,
            in_reply_to=message.message_id,
            hop=message.hop + 1,
            step=step,
            header=lambda message_id: header_line(message.recipient, message_id),
        )

    def _end(self, conversation: Conversation, reason: str) -> None:
        self.restore_end(conversation.conversation_id, reason)
        self._supervisor.journal.append(
            "conversation.ended",
            conversation_id=conversation.conversation_id,
            reason=reason,
            level="info" if reason == "completed" else "warning",
        )
        self._supervisor.ledger.poke()
