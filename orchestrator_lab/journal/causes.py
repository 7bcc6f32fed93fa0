"""Who made each event of a recorded run happen, which decides what a replay does about it.

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

from typing import TYPE_CHECKING, Literal

from orchestrator_lab.config import USER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator_lab.journal.event import Event

__all__ = ["SCREEN_FACTS", "Cause", "causes"]

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
_USER = frozenset({"conversation.started", "cluster.stopped", "guard.lifted"})


def causes(events: Sequence[Event], as_typed: Callable[[str], str] = str) -> list[Cause]:
    """Return who made each event of a recorded run happen.

    Parameters
    ----------
    events : sequence of Event
        All of the run, in order.
    as_typed : callable
        Given a text, returns what of it is typed into a terminal: an answer that the lab passed on is known by it.

    Returns
    -------
    list of str
        One for each event: ``user``, ``reel``, ``lab`` or ``aside``.
    """
    return _Reader(events, as_typed).read()


class _Reader:
    def __init__(self, events: Sequence[Event], as_typed: Callable[[str], str]) -> None:
        self._events, self._as_typed = events, as_typed
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
        #: Agents that something told before makes start.
        self._called_for: set[str] = set()
        self._agents: set[str] = set()
        self._removing: set[str] = set()

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

    def _agent_added(self, _event: Event, agent: str) -> Cause:
        self._agents.add(agent)
        self._called_for.add(agent)
        return "user" if self._running else "lab"

    def _agent_started(self, _event: Event, agent: str) -> Cause:
        called_for = agent in self._called_for
        self._running = True
        self._stopping.discard(agent)
        self._called_for.discard(agent)
        return "lab" if called_for else "user"  # one that had ended is started by somebody's wish

    def _agent_restarting(self, _event: Event, agent: str) -> Cause:
        self._called_for.add(agent)
        return "lab"

    def _agent_removed(self, _event: Event, agent: str) -> Cause:
        self._agents.discard(agent)
        if agent not in self._removing:
            return "user"
        self._removing.discard(agent)
        return "lab"

    def _cluster_restarted(self, _event: Event, _agent: str) -> Cause:
        self._called_for |= self._agents
        return "user"

    def _agent_stopping(self, event: Event, agent: str) -> Cause:
        self._stopping.add(agent)
        if event.attributes.get("reason") == "restart":
            self._called_for.add(agent)
        elif event.attributes.get("reason") == "remove":
            self._removing.add(agent)
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
            and self._as_typed(reply) == facts.get("content")
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
