"""The whole story of one message: each rung with its evidence, the turn, its tool calls, its dialogs, the screens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator_lab.annotations import read_annotations
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.journal.origins import Recordings
from orchestrator_lab.plots import agent_colors
from orchestrator_lab.reading.entries import agent_names, events_with, lists_of, rows_of
from orchestrator_lab.reading.screens import recording_of, screens_at
from orchestrator_lab.reading.texts import clean, one_line, shown_seconds

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.stills import Screen
    from orchestrator_lab.tables import RunTables

__all__ = ["Moment", "Step", "Story", "annotated", "check_message"]

#: Attributes of a message's events that say nothing beside what its row says.
_KNOWN = {
    "content",
    "content_sha256",
    "sender",
    "recipient",
    "conversation_id",
    "kind",
    "hop",
    "in_reply_to",
    "reply",
    "votes",
}
_PICTURED = {
    "message.written": "written",
    "message.accepted": "accepted",
    "dialog.opened": "dialog opened",
    "message.answered": "answered",
    "message.failed": "failed",
    "message.uncertain": "uncertain",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a message's life.

    Parameters
    ----------
    event : Event
        As it stands in the journal.
    after_s : float
        Seconds after the first one, by the clock that never jumps.
    offset_s : float or None
        The instant in the recording of the agent whose event it is.
    """

    event: Event
    after_s: float
    offset_s: float | None

    @property
    def details(self) -> str:
        """What the event says beside what the message's row says."""
        facts = self.event.attributes.items()
        return ", ".join(f"{name}={one_line(str(value), 80)}" for name, value in facts if name not in _KNOWN)


@dataclass(frozen=True, slots=True)
class Moment:
    """A screen at an instant of the story.

    Parameters
    ----------
    what : str
        What happened then; several things, with commas, when the picture stayed the same.
    offset_s : float
        Seconds of the recording.
    screen : Screen
        What the recipient's pane showed.
    """

    what: str
    offset_s: float
    screen: Screen


def check_message(tables: RunTables, message_id: str) -> int:
    """Return the row of a message.

    Parameters
    ----------
    tables : RunTables
        Of its run.
    message_id : str
        Its id.

    Returns
    -------
    int
        Where it stands in the messages table.

    Raises
    ------
    ConfigError
        When the run has no such message.
    """
    ids = lists_of(tables, "messages", ["message_id"])["message_id"]
    try:
        return ids.index(message_id)
    except ValueError:
        raise ConfigError(
            f"there is no message {message_id!r} in run {tables.run_id}: it has {len(ids)}; run.messages lists them",
            message_id=message_id,
        ) from None


class Story:
    """All that is known of one message.

    Parameters
    ----------
    tables : RunTables
        Of its run.
    message_id : str
        Its id.
    settle_s : float
        How long after an event the screen of it is taken: a program draws a little after what it reports.

    Attributes
    ----------
    message, turn : dict
        Their rows; the turn is None when none answers it.
    tool_calls, dialogs : list of dict
        Those of the turn.
    asked : dict or None
        The message that this one answers.
    replies : list of dict
        The messages that answer it.
    steps : list of Step
        Every event of the message and its turn, in order.
    annotations : list of dict
        What analysts said of it, in order.

    Raises
    ------
    ConfigError
        When the run has no such message.
    """

    def __init__(self, tables: RunTables, message_id: str, *, settle_s: float = 0.2) -> None:
        row = check_message(tables, message_id)
        messages = rows_of(tables, "messages")
        self.run_id = tables.run_id
        self.message = messages[row]
        asked = self.message["in_reply_to"]
        self.asked = next((one for one in messages if asked is not None and one["message_id"] == asked), None)
        self.replies = [one for one in messages if one["in_reply_to"] == message_id]
        turn_id = self.message["turn_id"]
        by_turn = {
            table: [] if turn_id is None else [one for one in rows_of(tables, table) if one["turn_id"] == turn_id]
            for table in ("turns", "tool_calls", "dialogs")
        }
        self.turn = next(iter(by_turn["turns"]), None)
        self.tool_calls, self.dialogs = by_turn["tool_calls"], by_turn["dialogs"]
        self.colors = agent_colors(agent_names(tables))
        self.steps = _steps(tables, message_id, turn_id, self.message["recipient"])
        said = [] if tables.path is None else read_annotations(tables.path)
        self.annotations = [one for one in said if one["message_id"] == message_id]
        self._settle_s = settle_s
        self._folder = tables.path

    @cached_property
    def screens(self) -> list[Moment]:
        """What the recipient's pane showed when the message was written, accepted and answered, and at each dialog.

        Empty when the pane was not recorded. Instants with the same picture, one after the other, share it.
        """
        agent = str(self.message["recipient"])
        path = None if self._folder is None else recording_of(self._folder, agent)
        wanted = [
            (_PICTURED[step.event.event], step.offset_s + self._settle_s)
            for step in self.steps
            if step.event.event in _PICTURED and step.offset_s is not None and step.event.agent == agent
        ]
        if path is None or not wanted:
            return []
        shown = screens_at(path, agent, [offset for _, offset in wanted])
        moments: list[Moment] = []
        for (what, offset), screen in zip(wanted, shown, strict=True):
            if moments and moments[-1].screen.ansi == screen.ansi:
                if what not in moments[-1].what.split(", "):
                    moments[-1] = replace(moments[-1], what=f"{moments[-1].what}, {what}")
            else:
                moments.append(Moment(what, round(offset, 3), screen))
        return moments

    @property
    def title(self) -> str:
        """Who wrote to whom, and what became of it."""
        row = self.message
        return f"{row['sender'] or '?'} → {row['recipient'] or '?'}: {row['status'] or 'unknown'}"

    def __repr__(self) -> str:
        lines = [f"Message {self.message['message_id']}, {self.title}"]
        if self.message["error_message"]:
            lines.append(f"  {clean(self.message['error_message'])}")
        if self.asked is not None:
            lines.append(f"  answers {self.asked['message_id']}: {one_line(self.asked['content'] or '', 100)}")
        lines += ["text", *_indented(self.message["content"])]
        lines.append("steps")
        width = max((len(step.event.event) for step in self.steps), default=0)
        for step in self.steps:
            source = f" by {step.event.source}" if step.event.source else ""
            details = f"  {step.details}" if step.details else ""
            after = shown_seconds(step.after_s, "+")
            lines.append(f"  {after:>10}  {step.event.event:<{width}}{source}{details}".rstrip())
        if self.turn is not None:
            lines.append(f"turn {self.turn['turn_id']} of {self.turn['agent']}: {self.turn_facts}")
            lines += _indented(self.turn["reply"]) if self.turn["reply"] else []
        for call in self.tool_calls:
            facts = ", ".join(one for one in (call["status"] or "running", shown_seconds(call["duration_s"])) if one)
            lines.append(f"tool {clean(str(call['name']))} ({facts}): {one_line(call['input'] or '', 120)}")
        for dialog in self.dialogs:
            answer = clean(str(dialog["decision"] or "not answered"))
            by = f" by {dialog['answered_by']}" if dialog["answered_by"] else ""
            lines.append(f"dialog ({dialog['kind']}): {one_line(dialog['subject'] or '', 120)} → {answer}{by}")
        for reply in self.replies:
            to = f"{reply['sender']} → {reply['recipient']}"
            lines.append(f"answered by {reply['message_id']}, {to}: {one_line(reply['content'] or '', 100)}")
        lines += [f"annotated: {annotated(one)}" for one in self.annotations]
        seen = ", ".join(f"{moment.what} at {shown_seconds(moment.offset_s)}" for moment in self.screens)
        lines.append(f"screens of {self.message['recipient']}: {seen or 'not recorded'}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from orchestrator_lab.reading.story_html import story_html

        return story_html(self)

    def to_html(self) -> str:
        """Return a whole page.

        Returns
        -------
        str
            HTML without script or anything from elsewhere, for light and dark.
        """
        from orchestrator_lab.reading.chat import page

        return page(f"Message {self.message['message_id']}", self._repr_html_())

    @property
    def turn_facts(self) -> str:
        """How the turn went, on one line."""
        turn = self.turn or {}
        end = "at work" if turn.get("ended_at") is None else str(turn.get("end_reason") or "unknown")
        tokens = None
        if turn.get("output_tokens") is not None:
            tokens = f"{turn['input_tokens']} tokens in, {turn['output_tokens']} out"
        facts = (end, shown_seconds(turn.get("duration_s")), turn.get("model"), tokens)
        return ", ".join(str(fact) for fact in facts if fact)


def annotated(annotation: dict[str, Any]) -> str:
    """Return an annotation on one line."""
    parts = [f"{name} {one_line(str(annotation[name]), 200)}" for name in ("label", "note") if annotation.get(name)]
    by = f" (by {one_line(str(annotation['by']), 60)})" if annotation.get("by") else ""
    return (", ".join(parts) or "taken back") + by


def _indented(text: str | None) -> list[str]:
    return [f"  {line}" for line in clean(text or "").rstrip().split("\n")]


def _steps(tables: RunTables, message_id: str, turn_id: str | None, agent: str | None) -> list[Step]:
    """Read the events of a message and its turn, and where each is in the recording."""
    recordings = Recordings()
    steps: list[Step] = []
    first: Event | None = None
    marks = [one.encode() for one in (message_id, turn_id, "recording.started") if one]
    for event in events_with(tables, marks):
        if event.event == "recording.started":
            recordings.started(event)
        elif event.message_id == message_id or (turn_id is not None and event.turn_id == turn_id):
            if event.message_id not in {None, message_id}:
                continue  # another message of the same turn has a story of its own
            first = first or event
            of = event if event.agent == agent else None
            after = round(event.monotonic_s - first.monotonic_s, 6)
            steps.append(Step(event, after, None if of is None else recordings.offset(of)))
    return steps
