"""The one source of every table and event: names, dtypes, units, meanings, OpenTelemetry names.

Empty frames, casting and the documentation pages are made from here, so a column that is not in
:data:`TABLES` does not exist. The schema only grows: a change that would break a reader raises
:data:`SCHEMA_VERSION`.

Notes
-----
OpenTelemetry names are those of the GenAI semantic conventions (still *Development*), kept in
:attr:`Column.otel` and never in a frame, so that their renaming breaks nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

__all__ = [
    "EVENTS",
    "KEYS",
    "REFERENCES",
    "SCHEMA_VERSION",
    "TABLES",
    "Column",
    "EventType",
    "Reference",
    "build_frame",
    "columns_of",
    "conform",
    "empty_frame",
    "new_id",
]

#: Version of tables and envelope, kept in manifests and in every frame's ``.attrs``.
SCHEMA_VERSION = 1

INSTANT = "datetime64[us, UTC]"
STATES = ("starting", "idle", "busy", "waiting", "limited", "exited", "failed", "unknown")
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of one table.

    Parameters
    ----------
    name : str
        Name in the frame.
    dtype : str
        The pandas dtype: ``string``, ``category``, ``Int64``, ``float64``, ``boolean`` or
        ``datetime64[us, UTC]``.
    unit : str or None
        Unit of the values: ``s``, ``USD``, ``tokens``, ``bytes``, ``percent``, ``JSON`` …
    meaning : str
        What the value says, and when it is NA.
    otel : str or None
        The attribute of the OpenTelemetry GenAI conventions with the same meaning.
    categories : tuple of str or None
        The closed set of a ``category`` column, in order.
    """

    name: str
    dtype: str
    unit: str | None = None
    meaning: str = ""
    otel: str | None = None
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of journal event.

    Parameters
    ----------
    name : str
        Dotted name, subject first.
    meaning : str
        What was observed or done.
    attributes : tuple of str
        Names that its ``attributes`` may hold, beside the envelope.
    """

    name: str
    meaning: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """A column whose values are found in another table of the same run; ``run_id`` joins as well.

    Parameters
    ----------
    table, column : str
        Where the value stands.
    to_table, to_column : str
        Where the row is that it means.
    """

    table: str
    column: str
    to_table: str
    to_column: str


def _text(name: str, meaning: str, *, unit: str | None = None, otel: str | None = None) -> Column:
    return Column(name, "string", unit, meaning, otel)


def _at(name: str, meaning: str) -> Column:
    return Column(name, INSTANT, "UTC", meaning)


def _seconds(name: str, meaning: str, *, otel: str | None = None) -> Column:
    return Column(name, "float64", "s", meaning, otel)


def _count(name: str, meaning: str, *, unit: str | None = None, otel: str | None = None) -> Column:
    return Column(name, "Int64", unit, meaning, otel)


def _tokens(name: str, meaning: str, otel: str) -> Column:
    return Column(name, "Int64", "tokens", meaning, otel)


def _one_of(name: str, categories: tuple[str, ...], meaning: str) -> Column:
    return Column(name, "category", None, meaning, None, categories)


_RUN_ID = _text("run_id", "The run that the row belongs to.")
_SEQ = _count("seq", "Sequence number of the event that opened the row; orders a run's rows.")
_COST = Column(
    "cost_usd",
    "float64",
    "USD",
    "Sum over the turns whose cost is known, by the prices of the configuration: the least that was spent, since turns "
    "without a known cost are left out; NA when no turn has one.",
)
_ERROR = (
    _text("error_type", "Class of the error; NA when there was none.", otel="error.type"),
    _text("error_message", "One sentence about the error."),
)
_INPUT = _tokens("input_tokens", "Input tokens, cached ones included.", "gen_ai.usage.input_tokens")
_OUTPUT = _tokens("output_tokens", "Output tokens.", "gen_ai.usage.output_tokens")
_AGENT = _text("agent", "Name of the agent.", otel="gen_ai.agent.name")
_TURN_ID = _text("turn_id", "The turn; NA when it is not known.")

#: Every table: its columns in order.
TABLES: dict[str, tuple[Column, ...]] = {
    "runs": (
        _RUN_ID,
        _text("parent_run_id", "The run that this one replays or continues."),
        _text("experiment", "Name of the experiment.", otel="gen_ai.workflow.name"),
        _one_of("mode", ("live", "record", "replay", "replay_strict"), "Where replies came from."),
        _one_of(
            "status",
            ("running", "completed", "failed", "cancelled"),
            "How the run stands; NA when it has no end and nobody is running it any more.",
        ),
        _at("started_at", "Start of the run."),
        _at("ended_at", "End of the run; NA while it has none."),
        _seconds("duration_s", "From start to end."),
        _text("params", "Parameters of the run.", unit="JSON object"),
        _text("tags", "Tags of the run.", unit="JSON array"),
        _count("seed", "Seed given to the run."),
        _count("agent_count", "Agents that were ever part of the run."),
        _count("message_count", "Messages of the run, whatever became of them."),
        _count("event_count", "Events in the journal."),
        _INPUT,
        _OUTPUT,
        _COST,
        *_ERROR,
        _text("git_commit", "Commit of the work folder at the start."),
        Column("git_dirty", "boolean", None, "Whether the work folder had uncommitted changes."),
        _text("package_version", "Version of orchestrator-lab."),
        _text("python_version", "Version of Python."),
        _text("tmux_version", "Version of tmux."),
        _text("platform", "Operating system and architecture."),
    ),
    "agents": (
        _RUN_ID,
        _text("agent_id", "Unique id of the agent.", otel="gen_ai.agent.id"),
        _text("name", "Name of the agent in its cluster.", otel="gen_ai.agent.name"),
        _text("role", "What the agent is for.", otel="gen_ai.agent.description"),
        _text("kind", "Adapter: claude, codex, chat or program; of a replayed agent that of the recorded one."),
        _text("program", "Program that runs in the pane."),
        _text("program_version", "Its version.", otel="gen_ai.agent.version"),
        _text("provider", "Provider of the model.", otel="gen_ai.provider.name"),
        _text("model", "Model asked for or reported.", otel="gen_ai.request.model"),
        _text("session_id", "The program's newest session.", otel="gen_ai.conversation.id"),
        _one_of("state", STATES, "The last state published."),
        _at("started_at", "First start of the program."),
        _at("ready_at", "First time that it was ready."),
        _at("ended_at", "End of the program; NA while it lives."),
        _seconds("busy_s", "Time in the state busy, over intervals that have ended."),
        _count("restarts", "Starts after the first."),
        _count("exit_code", "Exit status; negative: the signal that ended it."),
        _count("pid", "Process id, the newest."),
        _text("pane_id", "Pane of tmux, such as %3."),
        _count("cols", "Width of the pane.", unit="characters"),
        _count("rows", "Height of the pane.", unit="lines"),
        _text("cwd", "Work folder of the program."),
        _text("instructions_sha256", "SHA-256 of its instructions."),
        _count("message_count", "Messages that it sent or was sent."),
        _INPUT,
        _OUTPUT,
        _COST,
    ),
    "messages": (
        _RUN_ID,
        _SEQ,
        _text("message_id", "Unique id, sorts by time."),
        _text("conversation_id", "The conversation it belongs to."),
        _text("in_reply_to", "The message that it answers."),
        _count("hop", "Steps from the message that began the chain, which has 0."),
        _text("sender", "Name of the sender; user for people and programs outside."),
        _text("recipient", "Name of the recipient."),
        _one_of("kind", ("direct", "broadcast", "reply"), "What kind of message."),
        _one_of("source", ("human", "program", "agent"), "Who made the text."),
        _text("content", "The text, without the sender line.", otel="gen_ai.input.messages"),
        _text("content_sha256", "SHA-256 of the text as UTF-8."),
        _at("queued_at", "Taken into the recipient's queue."),
        _at("claimed_at", "Taken out of the queue, before any byte was written."),
        _at("written_at", "Written to the pane."),
        _at("accepted_at", "The program took it as its prompt."),
        _at("started_at", "The turn that answers it began."),
        _at("answered_at", "The turn that answers it ended."),
        _one_of(
            "acceptance_source",
            ("hook", "transcript", "terminal", "screen", "echo"),
            "The evidence of acceptance, exact first.",
        ),
        _one_of(
            "status",
            (
                "queued",
                "claimed",
                "written",
                "accepted",
                "started",
                "answered",
                "refused",
                "expired",
                "failed",
                "uncertain",
            ),
            "Furthest rung of the ladder, or how it ended.",
        ),
        _seconds("queue_s", "From queued to claimed."),
        _seconds("delivery_s", "From claimed to accepted."),
        _seconds("response_s", "From accepted to answered."),
        _text("turn_id", "The turn that answers it."),
        *_ERROR,
    ),
    "turns": (
        _RUN_ID,
        _SEQ,
        _text("turn_id", "Unique id, sorts by time."),
        _AGENT,
        _text("message_ids", "Messages that the turn answers.", unit="JSON array"),
        _at("started_at", "Start of the turn."),
        _at("first_output_at", "First output of the turn."),
        _at("ended_at", "End of the turn; NA while it runs."),
        _seconds(
            "time_to_first_output_s",
            "From start to first output.",
            otel="gen_ai.response.time_to_first_chunk",
        ),
        _seconds("duration_s", "From start to end."),
        _text("reply", "Final text of the turn.", otel="gen_ai.output.messages"),
        _one_of(
            "end_reason",
            (
                "completed",
                "interrupted",
                "error",
                "limit",
                "exited",
                "quiet",
                "marker",
                "prompt",
                "unknown",
            ),
            "Why the turn ended.",
        ),
        _text("model", "Model that answered.", otel="gen_ai.response.model"),
        _INPUT,
        _OUTPUT,
        _tokens(
            "cache_read_input_tokens",
            "Input tokens read from the cache.",
            "gen_ai.usage.cache_read.input_tokens",
        ),
        _tokens(
            "cache_creation_input_tokens",
            "Input tokens written to the cache.",
            "gen_ai.usage.cache_creation.input_tokens",
        ),
        _one_of("tokens_source", ("reported",), "Where the tokens come from; never estimated."),
        Column(
            "cost_usd",
            "float64",
            "USD",
            "Cost by the prices of the configuration; NA unless each class of its tokens has a price.",
        ),
        _count("tool_call_count", "Tool calls of the turn."),
        _seconds("cast_offset_s", "Start of the turn in the agent's recording."),
        _count("files_changed", "Files of its work folder that differ after the turn; NA where that is not under git."),
        _count("lines_added", "Lines added to them.", unit="lines"),
        _count("lines_removed", "Lines removed from them.", unit="lines"),
        _text("patch", "File in the run's folder that holds the difference; NA when there is none."),
        Column(
            "changes_shared",
            "boolean",
            None,
            "Whether another agent had a turn in the same folder meanwhile, and may have a part in it.",
        ),
    ),
    "tool_calls": (
        _RUN_ID,
        _SEQ,
        _text("tool_call_id", "The program's id of the call.", otel="gen_ai.tool.call.id"),
        _TURN_ID,
        _AGENT,
        _text("name", "Name of the tool.", otel="gen_ai.tool.name"),
        _text("input", "Arguments.", unit="JSON or text", otel="gen_ai.tool.call.arguments"),
        _text("output", "Result.", unit="JSON or text", otel="gen_ai.tool.call.result"),
        _at("started_at", "Start of the call."),
        _seconds("duration_s", "From start to end."),
        _one_of("status", ("ok", "error", "denied"), "How it ended; NA while it runs."),
        _text("error_message", "One sentence about the error."),
    ),
    "dialogs": (
        _RUN_ID,
        _SEQ,
        _text("dialog_id", "Unique id, sorts by time."),
        _AGENT,
        _TURN_ID,
        _one_of(
            "kind",
            ("permission", "trust", "choice", "login", "update", "limit", "unknown"),
            "What the program asks about.",
        ),
        _text("subject", "What it asks, in its own words."),
        _text("options", "The answers it offers.", unit="JSON array"),
        _at("opened_at", "When the question was seen."),
        _at("answered_at", "When it was answered or went away."),
        _seconds("wait_s", "From opened to answered."),
        _one_of("answered_by", ("human", "policy"), "Who answered."),
        _text("decision", "The answer."),
    ),
    "states": (
        _RUN_ID,
        _AGENT,
        _one_of("state", STATES, "State during the interval."),
        _at("started_at", "Start of the interval."),
        _at("ended_at", "End of the interval; NA while it lasts."),
        _seconds("duration_s", "Length of the interval."),
        _text("source", "The evidence for it: hook, transcript, terminal, screen, process …"),
    ),
    "alerts": (
        _RUN_ID,
        _text("alert_id", "Unique id, sorts by time."),
        _one_of("level", LEVELS, "How serious it is."),
        _AGENT,
        _text("rule", "The rule that raised it."),
        _text("message", "One sentence for people."),
        _at("opened_at", "When it was raised."),
        _at("acknowledged_at", "When somebody saw it."),
        _at("resolved_at", "When it went away."),
    ),
    "processes": (
        _RUN_ID,
        _AGENT,
        _at("at", "When the sample was taken."),
        Column("cpu_percent", "float64", "percent", "Share of one core since the last look, with children."),
        _count("rss_bytes", "Resident memory, with children; what they share is counted for each.", unit="bytes"),
        _count("children", "Descendant processes."),
    ),
    "events": (
        _RUN_ID,
        _SEQ,
        _text("event", "Name of the event."),
        _at("at", "Wall-clock instant."),
        _seconds("monotonic_s", "Since the start of the run, by a clock that never jumps."),
        _AGENT,
        _text("message_id", "The message concerned."),
        _TURN_ID,
        _text("source", "Where the fact comes from."),
        _one_of("level", LEVELS, "How serious it is."),
        _text("attributes", "Everything else about it.", unit="JSON object"),
        _seconds("cast_offset_s", "The instant in the agent's recording."),
    ),
}

#: Columns that a row of each table is known by; each table has ``run_id``, which is the first of them.
KEYS: dict[str, tuple[str, ...]] = {
    "runs": ("run_id",),
    "agents": ("run_id", "agent_id"),
    "messages": ("run_id", "message_id"),
    "turns": ("run_id", "turn_id"),
    "tool_calls": ("run_id", "tool_call_id"),
    "dialogs": ("run_id", "dialog_id"),
    "states": ("run_id", "agent", "started_at"),
    "alerts": ("run_id", "alert_id"),
    "processes": ("run_id", "agent", "at"),
    "events": ("run_id", "seq"),
}

#: What the columns of one table mean in another. An agent is meant by its name, which a later one may have again.
REFERENCES: tuple[Reference, ...] = (
    Reference("runs", "parent_run_id", "runs", "run_id"),
    Reference("messages", "sender", "agents", "name"),
    Reference("messages", "recipient", "agents", "name"),
    Reference("messages", "in_reply_to", "messages", "message_id"),
    Reference("messages", "turn_id", "turns", "turn_id"),
    *(
        Reference(table, "agent", "agents", "name")
        for table in ("turns", "tool_calls", "dialogs", "states", "alerts", "processes", "events")
    ),
    *(Reference(table, "turn_id", "turns", "turn_id") for table in ("tool_calls", "dialogs", "events")),
    Reference("events", "message_id", "messages", "message_id"),
)

_USAGE = (
    "model",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_FAILURE = ("error_type", "error_message")

#: Every event that this version writes. Readers pass unknown events through.
EVENTS: dict[str, EventType] = {
    event.name: event
    for event in (
        EventType(
            "run.started",
            "The run began.",
            ("name", "experiment", "params", "tags", "seed", "mode", "parent_run_id"),
        ),
        EventType(
            "initial.recorded",
            "A work folder is kept in the run as it was before any agent started; the start waited for that.",
            ("folder", "agents", "files", "bytes", "skipped", "commit", "waited_s"),
        ),
        EventType(
            "initial.restored",
            "A work folder was made as it was when the replayed run began.",
            ("folder", "agents", "files"),
        ),
        EventType("run.ended", "The run is over.", ("status", *_FAILURE)),
        EventType(
            "run.resumed",
            "A run without an end goes on under a new supervisor, after everything had ended.",
            ("gap_s", "agents", "package_version"),
        ),
        EventType(
            "tmux.lost", "The tmux server ended, and the agents that ran in it with it.", ("pid", "agents", "losses")
        ),
        EventType("tmux.rebuilt", "Session, panes and agents are there again.", ("pid", "agents", "failed", "gap_s")),
        EventType("tmux.given_up", "The tmux server ended too often: it is not started again.", ("losses", "window_s")),
        EventType("cluster.stopped", "All agents were stopped; the session stays."),
        EventType("cluster.restarted", "The agents were started again in the same run."),
        EventType("supervisor.started", "A supervisor took over.", ("pid", "restart", "package_version")),
        EventType("supervisor.gap", "Nobody watched the cluster.", ("gap_s", "reason")),
        EventType("keeper.started", "A keeper took over.", ("pid",)),
        EventType("keeper.gap", "Nobody drained the panes.", ("gap_s",)),
        EventType("journal.repaired", "A torn last line was cut off.", ("bytes",)),
        EventType(
            "agent.added",
            "An agent became part of the cluster.",
            (
                "agent_id",
                "name",
                "role",
                "kind",
                "program",
                "program_version",
                "provider",
                "model",
                "cwd",
                "cols",
                "rows",
                "instructions_sha256",
            ),
        ),
        EventType("agent.started", "Its program was started.", ("pid", "pane_id", "session_id", "restart")),
        EventType("agent.ready", "It takes input now."),
        EventType("agent.tools", "Its program listed the lab's tools; its first message waits for that."),
        EventType("agent.state", "Its published state changed.", ("state", "previous", "votes", "decision")),
        EventType("agent.exited", "Its program ended.", ("exit_code", "signal", "reason")),
        EventType("agent.failed", "It could not be started or kept.", (*_FAILURE, "screen")),
        EventType("agent.stopping", "It is about to be ended on purpose.", ("reason",)),
        EventType(
            "agent.restarting",
            "Its program ended by itself, and will be started again after a pause.",
            ("delay_s", "attempt", "reason"),
        ),
        EventType("agent.hung", "It is busy and made no progress; what is done about it.", ("quiet_s", "step")),
        EventType(
            "agent.left",
            "Processes that its program had started and that outlived it.",
            ("processes", "action"),
        ),
        EventType("agent.removed", "It is no longer part of the cluster."),
        EventType("agent.session", "Its program began another session.", ("session_id",)),
        EventType("agent.keys", "A person who took its pane over is about to type: how much, never what.", ("bytes",)),
        EventType("agent.model", "Its program told its model.", ("model", "program_version")),
        EventType(
            "message.queued",
            "A message was taken in; the envelope's source says who made the text.",
            (
                "conversation_id",
                "in_reply_to",
                "hop",
                "sender",
                "recipient",
                "kind",
                "content",
                "content_sha256",
                "when",
                "header",
                "removed_controls",
                "expires_s",
                "step",
            ),
        ),
        EventType("message.claimed", "It left the queue; nothing was written yet."),
        EventType("message.written", "It was written to the pane.", ("bytes",)),
        EventType("message.submitted", "Enter was pressed.", ("attempt",)),
        EventType("message.accepted", "The program took it; the envelope's source is the proof.", ("prompt_id",)),
        EventType("message.started", "The turn that answers it began."),
        EventType("message.answered", "The turn that answers it ended.", ("reply_message_id",)),
        EventType("message.refused", "It may not be sent; nothing was written.", _FAILURE),
        EventType("message.expired", "Its time ran out; nothing was written.", _FAILURE),
        EventType("message.failed", "It certainly did not arrive.", _FAILURE),
        EventType("message.uncertain", "It may have arrived; nothing proves it.", _FAILURE),
        EventType("turn.started", "An agent began a turn.", ("message_ids", "prompt_id")),
        EventType("turn.first_output", "The first output of the turn was seen."),
        EventType("turn.ended", "The turn ended.", ("reply", "end_reason")),
        EventType(
            "turn.usage",
            "Tokens of a turn (input includes cached tokens), with their cost where it is known; the last one of a "
            "turn counts.",
            (*_USAGE, "final", "cost_usd"),
        ),
        EventType(
            "turn.changes",
            "What the turn changed in its agent's work folder, by git; or why that is not known.",
            (
                "files_changed",
                "lines_added",
                "lines_removed",
                "patch",
                "truncated",
                "left_out",
                "shared_with",
                "took_s",
                "error",
            ),
        ),
        EventType("tool.started", "A tool was called.", ("tool_call_id", "name", "input")),
        EventType(
            "tool.ended",
            "A tool call ended.",
            ("tool_call_id", "output", "status", "error_message"),
        ),
        EventType(
            "dialog.opened",
            "A program asks its user.",
            ("dialog_id", "kind", "subject", "options", "tool", "rule"),
        ),
        EventType(
            "dialog.answering",
            "An option is about to be chosen on the screen.",
            ("dialog_id", "option", "decision", "answered_by", "rule", "answer_id"),
        ),
        EventType(
            "dialog.answered",
            "Its question was answered.",
            ("dialog_id", "answered_by", "decision", "option", "rule"),
        ),
        EventType("gateway.request", "A model was asked.", ("request_id", "path", "model", "mode", "purpose")),
        EventType(
            "gateway.response",
            "A model answered.",
            ("request_id", "status", "duration_s", "first_byte_s", *_USAGE, "reply_id", "rule", "error"),
        ),
        EventType(
            "replay.divergence",
            "A replay came to something that its recording does not hold, or holds otherwise; shown as a diff.",
            ("kind", "request", "message", "diff"),
        ),
        EventType(
            "record.disagrees",
            "The program's own record of a turn and what the gateway saw of it are not the same: both figures of each.",
            ("differences",),
        ),
        EventType("recording.started", "A pane is recorded.", ("path", "started_at")),
        EventType("recording.gap", "A pane was not recorded.", ("gap_s", "reason")),
        EventType(
            "conversation.started",
            "A conversation between agents began.",
            ("conversation_id", "agents", "rounds", "reason"),
        ),
        EventType(
            "conversation.ended",
            "A conversation between agents ended.",
            ("conversation_id", "agents", "rounds", "reason"),
        ),
        EventType(
            "alert.opened",
            "Something is wrong and somebody should know; the envelope's level says how serious it is. "
            "What else its rule knew are attributes too.",
            ("alert_id", "rule", "message"),
        ),
        EventType(
            "alert.escalated",
            "An open alert became graver, or its sentence changed.",
            ("alert_id", "rule", "message", "previous_level"),
        ),
        EventType(
            "alert.repeated", "An open alert that nobody acknowledged is told again.", ("alert_id", "rule", "message")
        ),
        EventType("alert.acknowledged", "Somebody has seen an alert.", ("alert_id", "rule", "by")),
        EventType("alert.resolved", "An alert is over: by itself, or closed by a person.", ("alert_id", "rule", "by")),
        EventType(
            "alert.notified",
            "A channel was told of an alert, or could not be; of its address only the scheme is written.",
            ("alert_id", "rule", "channel", "number", "ok", "error"),
        ),
        EventType(
            "process.sample",
            "What an agent's processes cost; journalled when it differs, and now and then.",
            ("cpu_percent", "rss_bytes", "children"),
        ),
        EventType(
            "guard.tripped",
            "A limit was reached, and delivery pauses: of the agent, or of the cluster when none is named.",
            ("guard_id", "scope", "rule", "limit", "value", "chain", "path", "message"),
        ),
        EventType(
            "guard.lifted",
            "Delivery goes on, up to a new limit or as much further as the allowance.",
            ("guard_id", "rule", "by", "limit", "allowance"),
        ),
        EventType(
            "agent.limited",
            "Its program reported a usage limit: agents of its kind hold their messages. Instants in epoch seconds.",
            ("guard_id", "kind", "provider", "resets_at", "until", "reason"),
        ),
        EventType(
            "agent.limit_lifted",
            "Agents of a kind go on: the reset has come, somebody said so, or the program has answered again.",
            ("guard_id", "kind", "provider", "by"),
        ),
        EventType("monitoring.paused", "Somebody stopped the monitoring: no rule is asked until it is resumed."),
        EventType("monitoring.resumed", "Somebody started the monitoring again."),
        EventType(
            "action.requested",
            "Somebody asked for something through the web API; journalled before it has an effect.",
            ("action", "by", "origin", "details"),
        ),
        EventType(
            "import.started",
            "The record of a conversation that the lab did not start was read, by this importer.",
            ("path", "program", "importer", "importer_version"),
        ),
        EventType(
            "import.unknown",
            "A record that the importer does not know or cannot read: its line, and as much of it as is kept.",
            ("kind", "line", "bytes", "record"),
        ),
        EventType(
            "import.ended",
            "The record is read: how many records it has, how many were unknown or copies of another session's, and "
            "which kinds say nothing that a table holds.",
            ("program_version", "records", "unknown", "copied", "unknown_kinds", "passed_over"),
        ),
        EventType(
            "agent.api_error",
            "By its program's own record, a request to its model failed.",
            ("kind", "status", "attempt", "error_message"),
        ),
        EventType(
            "agent.compacted",
            "By its program's own record, its conversation was compacted.",
            ("trigger", "tokens_before", "tokens_after"),
        ),
        EventType("note", "A remark for people.", ("text",)),
    )
}


def new_id(prefix: str) -> str:
    """Return a new id that sorts by the time it was made.

    Parameters
    ----------
    prefix : str
        ``run_``, ``agt_``, ``msg_``, ``trn_``, ``cnv_``, ``dlg_``, ``tcl_`` or ``alr_``; the underscore may
        be left out.

    Returns
    -------
    str
        The prefix and a ULID in lower case.

    Examples
    --------
    >>> new_id("msg_")[:4], len(new_id("msg"))
    ('msg_', 30)
    """
    from ulid import ULID

    return f"{prefix.rstrip('_')}_{str(ULID()).lower()}"


def columns_of(table: str) -> tuple[Column, ...]:
    """Return the columns of a table.

    Parameters
    ----------
    table : str
        Name of the table, such as ``messages``.

    Returns
    -------
    tuple of Column
        In the order of the frame.

    Raises
    ------
    ConfigError
        When there is no such table.
    """
    try:
        return TABLES[table]
    except KeyError:
        raise ConfigError(f"there is no table {table!r}; the tables are: {', '.join(TABLES)}") from None


def empty_frame(table: str) -> pd.DataFrame:
    """Return a table without rows, with all its columns and dtypes.

    Parameters
    ----------
    table : str
        Name of the table.

    Returns
    -------
    pandas.DataFrame
        No rows.

    Raises
    ------
    ConfigError
        When there is no such table.

    Examples
    --------
    >>> str(empty_frame("messages")["queue_s"].dtype)
    'float64'
    """
    return build_frame(table, {})


def build_frame(
    table: str,
    columns: Mapping[str, Sequence[Any]],
    *,
    only: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Make a frame from plain lists, one a column.

    Parameters
    ----------
    table : str
        Name of the table.
    columns : mapping of str to sequence
        Values by column name, all of one length; None is NA. Columns that are absent become NA.
    only : sequence of str, optional
        Columns wanted, in this order; all of the table otherwise.

    Returns
    -------
    pandas.DataFrame
        With the declared dtypes and ``.attrs["schema_version"]``.

    Raises
    ------
    ConfigError
        When the table or one of the columns does not exist.

    Examples
    --------
    >>> build_frame("states", {"agent": ["boss"]}, only=["agent", "duration_s"]).shape
    (1, 2)
    """
    import pandas as pd

    from orchestrator_lab.casting import to_array

    length = max((len(values) for values in columns.values()), default=0)
    wanted = _wanted(table, only)
    data = {column.name: to_array(columns.get(column.name), column, length) for column in wanted}
    frame = pd.DataFrame(data, index=pd.RangeIndex(length), copy=False)
    frame.attrs["schema_version"] = SCHEMA_VERSION
    return frame


def conform(df: pd.DataFrame, table: str) -> pd.DataFrame:
    """Return a frame with exactly the columns, order and dtypes of a table.

    Parameters
    ----------
    df : pandas.DataFrame
        Any frame; columns that the table does not have are dropped, missing ones become NA.
    table : str
        Name of the table.

    Returns
    -------
    pandas.DataFrame
        A new frame with the same rows and ``.attrs``.

    Raises
    ------
    ConfigError
        When there is no such table.

    Examples
    --------
    >>> import pandas as pd
    >>> str(conform(pd.DataFrame({"hop": [1.0]}), "messages")["hop"].dtype)
    'Int64'
    """
    import pandas as pd

    from orchestrator_lab.casting import to_array

    data: dict[str, Any] = {}
    for column in columns_of(table):
        series = df.get(column.name)
        if series is not None and _has_dtype(series, column):
            data[column.name] = series.array
            continue
        values = None
        if series is not None:
            objects = series.astype(object)
            values = objects.where(series.notna(), None).tolist()
        data[column.name] = to_array(values, column, len(df))
    frame = pd.DataFrame(data, index=df.index)
    frame.attrs = {**df.attrs, "schema_version": SCHEMA_VERSION}
    return frame


def _wanted(table: str, only: Sequence[str] | None) -> list[Column]:
    declared = columns_of(table)
    if only is None:
        return list(declared)
    by_name = {column.name: column for column in declared}
    names = [only] if isinstance(only, str) else list(only)
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ConfigError(
            f"the table {table!r} has no column {', '.join(map(repr, missing))}; it has: {', '.join(by_name)}"
        )
    return [by_name[name] for name in dict.fromkeys(names)]


def _has_dtype(series: pd.Series[Any], column: Column) -> bool:
    import pandas as pd

    if column.dtype == "category":
        return bool(series.dtype == pd.CategoricalDtype(list(column.categories or ())))
    return str(series.dtype) == column.dtype
