"""What a recorded agent is to do again: one reel for each life of its program, from the journal and the recording.

The steps, and the program that plays them, are those of :mod:`orchestrator_lab.programs.replay`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.causes import SCREEN_FACTS
from orchestrator_lab.journal.origins import Recordings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator_lab.journal.causes import Cause
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.journal.recording import CastEvent
    from orchestrator_lab.supervisor.score import Score

__all__ = ["Reel", "half_written", "reels", "verbatim"]

#: Rule by which a policy answers the question of a program that starts in a folder which the lab has made.
OWN_FOLDER = "a folder that the lab made"
_SEQUENCE = re.compile(
    r"[^\x1b]+"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-OQ-WYZ`-~\\]"
)
_TURN_FACTS = ("reply", "end_reason", "error_message")

Step = dict[str, Any]


@dataclass(slots=True)
class Reel:
    """What one life of a program does.

    Parameters
    ----------
    head : dict
        How it ends when it is asked to, and how fast it plays.
    steps : list of dict
        In order.
    """

    head: Step
    steps: list[Step] = field(default_factory=list)


def reels(score: Score, agent: str, cast: Iterable[CastEvent]) -> list[Reel]:
    """Return the reels of an agent, one for each start of its program.

    Parameters
    ----------
    score : Score
        The recorded run.
    agent : str
        Its name.
    cast : iterable of CastEvent
        The recording of its pane.

    Returns
    -------
    list of Reel
        In order.
    """
    return list(_Reels(score, agent, cast).all())


def verbatim(event: Event) -> dict[str, Any]:
    """Return what is to be journalled word by word, since nothing that happens leads to it."""
    return {"event": event.event, "turn_id": event.turn_id, "level": event.level, "facts": event.attributes}


class _Reels:
    def __init__(self, score: Score, agent: str, cast: Iterable[CastEvent]) -> None:
        self._score, self._agent = score, agent
        self._events = [
            (place, event, cause)
            for place, (event, cause) in enumerate(zip(score.events, score.causes, strict=True))
            if event.agent == agent or (event.event == "message.queued" and event.attributes.get("sender") == agent)
        ]
        self._recordings = Recordings()
        self._output = _Output(cast)
        self._reel: Reel | None = None
        self._session: str | None = None
        self._dialogs: dict[str, Event] = {}
        self._answers: dict[str, Event] = {}
        self._texts: dict[str, str] = {}
        self._shown: str | None = None
        self._prompts: dict[str, str | None] = {}
        self._outputs: dict[str, int] = {}
        self._tools: dict[str, Event] = {}
        self._started_messages: set[str] = set()
        self._by_hand: dict[str, int] = {}
        self._last_words = self._spoken_after_stops()
        self._talks_on = False

    def all(self) -> Iterator[Reel]:
        for place, event, _ in self._events:
            if event.event == "turn.first_output":
                self._outputs[str(event.turn_id)] = place
            elif event.event == "message.started":
                self._started_messages.add(str(event.message_id))
            elif event.event == "dialog.answering":
                self._answers.setdefault(str(event.attributes.get("dialog_id")), event)
        for place, event, cause in self._events:
            if event.event == "recording.started":
                self._recordings.started(event)
            if event.event == "agent.started":
                if self._reel is not None:
                    self._reel.steps.extend(self._output.until(self._at(event)))
                    yield self._reel
                self._reel = Reel({"speed": self._score.speed, "ends": self._ends(place)})
                self._session = event.attributes.get("session_id")
            if self._reel is not None:
                self._reel.steps.extend(self._steps(place, event, cause))
        if self._reel is not None:
            self._reel.steps.extend(self._output.rest())
            yield self._reel

    def _ends(self, place: int) -> Step:
        """Return how a life of the program ended."""
        for later, event, _ in self._events:
            if later > place and event.event == "agent.exited":
                facts = event.attributes
                return {"status": facts.get("exit_code"), "signal": facts.get("signal")}
            if later > place and event.event == "agent.started":
                break
        return {}

    def _spoken_after_stops(self) -> set[int]:
        """Return the places at which the agent was asked to end, and told something more before it did."""
        found: set[int] = set()
        asked: int | None = None
        for place, event, cause in self._events:
            if event.event == "agent.stopping":
                asked = place
            elif event.event in {"agent.exited", "agent.started"}:
                asked = None
            elif cause == "reel" and asked is not None:
                found.add(asked)
        return found

    def _steps(self, place: int, event: Event, cause: Cause) -> list[Step]:
        method = getattr(self, f"_{event.event.replace('.', '_')}", None)
        found: list[Step] = [] if method is None else method(event, place, cause)
        at = self._at(event)
        for one in found:
            one.setdefault("place", place)
            one["at"] = at
        return [*self._output.until(at), *found] if found else []

    def _at(self, event: Event) -> float:
        """Return where an event is in the recording of the agent's pane, in seconds."""
        origin = self._recordings.origin(self._agent)
        return 0.0 if origin is None else round(event.monotonic_s - origin, 6)

    def _say(self, event: Event, what: str, /, **facts: Any) -> Step:  # noqa: ANN401 - any JSON value
        return {"do": "say", "what": what, "source": event.source or "hook", **facts}

    def _agent_session(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        self._session = event.attributes.get("session_id")
        return [self._say(event, "ready", session_id=self._session)]

    def _agent_ready(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        return [self._say(event, "ready", session_id=self._session)]

    def _agent_model(self, event: Event, _place: int, cause: Cause) -> list[Step]:
        return [self._say(event, "model", model=event.attributes.get("model"))] if cause == "reel" else []

    def _agent_state(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        fact, facts = event.attributes.get("decision"), event.attributes
        before, self._shown = self._shown, fact if fact in SCREEN_FACTS else None
        if self._shown is not None:
            votes = [one for one in facts.get("votes", ()) if one.get("fact") == fact]
            says = str(votes[0].get("says")).split(": ", 1)[-1] if votes else str(fact)
            return [self._say(event, "shown", fact=fact, text=says)]
        return [] if before is None else [self._say(event, "shown", fact=before, text=None)]

    def _agent_stopping(self, event: Event, place: int, _cause: Cause) -> list[Step]:
        self._talks_on = place in self._last_words
        return [self._say(event, "asked") if self._talks_on else {"do": "rest"}]

    def _agent_exited(self, event: Event, _place: int, cause: Cause) -> list[Step]:
        facts = event.attributes
        ends = {"status": facts.get("exit_code"), "signal": facts.get("signal")}
        if cause == "reel":
            return [{"do": "exit", "what": "exit", **ends}]
        return [{"do": "rest"}] if self._talks_on else []

    def _message_queued(self, event: Event, place: int, cause: Cause) -> list[Step]:
        facts = event.attributes
        header, content = facts.get("header"), facts.get("content", "")
        self._texts[str(event.message_id)] = f"{header}\n{content}" if header else content
        if facts.get("sender") != self._agent:
            if cause == "reel":
                self._by_hand[str(event.message_id)] = place
            return []
        said = {"to": facts.get("recipient"), "text": content, "kind": facts.get("kind")}
        said.update({key: facts.get(key) for key in ("in_reply_to", "conversation_id")})
        return [self._say(event, "said", **said)] if cause == "reel" else []

    def _message_claimed(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        return [{"do": "read", "text": self._texts.get(str(event.message_id), ""), "message_id": event.message_id}]

    def _message_accepted(self, event: Event, place: int, _cause: Cause) -> list[Step]:
        turn_id, message_id = str(event.turn_id), str(event.message_id)
        prompt_id = event.attributes.get("prompt_id")
        first = self._outputs.get(turn_id)
        joined = turn_id in self._prompts and first is not None and first < place
        self._prompts.setdefault(turn_id, prompt_id)
        # Of what a person typed nothing is known before the program tells of it.
        by_hand = {"place": self._by_hand[message_id]} if message_id in self._by_hand else {}
        return [
            self._say(
                event,
                "accepted",
                prompt=self._texts.get(message_id, ""),
                prompt_id=prompt_id,
                session_id=self._session,
                joined=joined and message_id in self._started_messages,
                **by_hand,
            )
        ]

    def _settled(self, event: Event, _place: int, cause: Cause) -> list[Step]:
        if cause != "reel":
            return []
        status = event.event.removeprefix("message.")
        facts = {key: event.attributes.get(key) for key in ("error_type", "error_message")}
        return [self._say(event, "settled", status=status, message_id=event.message_id, **facts)]

    _message_failed = _message_uncertain = _message_expired = _settled

    def _turn_first_output(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        return [self._say(event, "first_output")]

    def _again(self, event: Event, _place: int, cause: Cause) -> list[Step]:
        """Tell what nothing that happens leads to, word by word."""
        if cause != "reel":
            return []
        return [self._say(event, "again", **verbatim(event))]

    _turn_usage = _turn_changes = _again

    def _turn_ended(self, event: Event, _place: int, cause: Cause) -> list[Step]:
        if cause != "reel":
            return []
        facts = {key: event.attributes.get(key) for key in _TURN_FACTS}
        return [self._say(event, "turn_ended", prompt_id=self._prompts.get(str(event.turn_id)), **facts)]

    def _tool_started(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        self._tools[str(event.attributes.get("name"))] = event
        return [self._say(event, "tool_started", **event.attributes)]

    def _tool_ended(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        return [self._say(event, "tool_ended", **event.attributes)]

    def _dialog_opened(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        facts = event.attributes
        dialog_id = str(facts.get("dialog_id"))
        first = self._dialogs.setdefault(dialog_id, event)
        if first is not event and not (first.source == "screen" and event.source == "hook"):
            return [self._say(event, "options", options=facts.get("options", []))]
        tool = self._tools.get(str(facts.get("tool")))
        answer = self._answers.get(dialog_id)
        own = answer is not None and answer.attributes.get("rule") == OWN_FOLDER
        asked = {key: facts.get(key) for key in ("kind", "subject", "options", "tool", "rule")}
        return [
            self._say(
                event,
                "dialog",
                **asked,
                tool_input=None if tool is None else tool.attributes.get("input"),
                answer=answer.attributes.get("option") if answer is not None and own else None,
                by_hook=self._by_hook(dialog_id),
            )
        ]

    def _by_hook(self, dialog_id: str) -> bool:
        """Tell whether a policy answered in the hook that reported a dialog."""
        return dialog_id not in self._answers and any(
            event.event == "dialog.answered"
            and event.attributes.get("dialog_id") == dialog_id
            and event.attributes.get("answered_by") == "policy"
            for _, event, _ in self._events
        )

    def _dialog_answering(self, event: Event, _place: int, _cause: Cause) -> list[Step]:
        return [{"do": "read", "text": str(event.attributes.get("option"))}]

    def _dialog_answered(self, event: Event, _place: int, cause: Cause) -> list[Step]:
        if cause != "reel":
            return []
        opened = self._dialogs.get(str(event.attributes.get("dialog_id")))
        subject = None if opened is None else opened.attributes.get("subject", "")
        return [self._say(event, "dialog_closed", subject=subject, decision=event.attributes.get("decision"))]

    def _note(self, _event: Event, _place: int, cause: Cause) -> list[Step]:
        return [{"do": "key", "key": "\x03"}] if cause == "user" else []


class _Output:
    """What the program wrote, in pieces; each with the time of the recording that stands before it where it may."""

    def __init__(self, cast: Iterable[CastEvent]) -> None:
        self._pieces = [(one.time_s, one.data) for one in cast if one.code == "o"]
        self._next = 0
        #: What was written since the last place at which no sequence was half written.
        self._half = ""

    def until(self, at: float) -> list[Step]:
        """Return what was written up to an instant, and not returned yet."""
        found = []
        while self._next < len(self._pieces) and self._pieces[self._next][0] <= at:
            time_s, data = self._pieces[self._next]
            self._next += 1
            found.append({"do": "out", "at": time_s, "data": data, "mark": not self._half})
            self._half = half_written(self._half + data)
        return found

    def rest(self) -> list[Step]:
        """Return what is left."""
        return self.until(float("inf"))


def half_written(text: str) -> str:
    r"""Return the end of a text that is the beginning of an escape sequence.

    Examples
    --------
    >>> half_written("a\x1b[1"), half_written("a\x1b[1m")
    ('\x1b[1', '')
    """
    last = text.rfind("\x1b")
    # The last one may be the end of what the one before it began.
    place = max(text.rfind("\x1b", 0, max(last, 0)), 0) if last >= 0 else len(text)
    while place < len(text):
        found = _SEQUENCE.match(text, place)
        if found is None:
            # What is longer is no sequence that a terminal would still wait for.
            return text[place:] if len(text) - place < 1 << 16 else ""
        place = found.end()
    return ""
