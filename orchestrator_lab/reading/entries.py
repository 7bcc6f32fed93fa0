"""What a conversation is made of: messages, turns and dialogs in the order in which they happened."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.casting import to_values
from orchestrator_lab.errors import AgentNotFound
from orchestrator_lab.folds.messages import RUNGS
from orchestrator_lab.journal.event import Event
from orchestrator_lab.journal.reader import JournalReader
from orchestrator_lab.reading.texts import instant, seconds_between, shown_seconds
from orchestrator_lab.schema import TABLES
from orchestrator_lab.tables import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator_lab.tables import RunTables

__all__ = [
    "Entry",
    "agent_names",
    "chosen_agents",
    "entries_of",
    "events_with",
    "ids_of",
    "ladder",
    "lists_of",
    "rows_of",
    "run_start",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing said, asked or answered.

    Parameters
    ----------
    kind : str
        ``message``, ``turn`` or ``dialog``.
    at : str or None
        When: a message as it was queued, a turn as it ended, a dialog as it opened.
    who : str
        Sender, or the agent whose turn or dialog it is.
    to : tuple of str
        The recipient, or those whom a turn answers.
    row : dict
        Its row in its table.
    calls : tuple of dict
        The tool calls of a turn.
    repeats : bool
        A message with the text of the reply that it forwards.
    """

    kind: str
    at: str | None
    who: str
    to: tuple[str, ...]
    row: dict[str, Any]
    calls: tuple[dict[str, Any], ...] = field(default=())
    repeats: bool = False

    @property
    def id(self) -> str:
        """The id of the message, turn or dialog."""
        return str(self.row[f"{self.kind}_id"])

    @property
    def text(self) -> str:
        """What was said."""
        name = {"message": "content", "turn": "reply", "dialog": "subject"}[self.kind]
        return str(self.row.get(name) or "")


def lists_of(
    tables: RunTables, table: str, names: list[str] | None = None, *, instants_as_text: bool = True
) -> dict[str, list[Any]]:
    """Return columns of a table as plain lists: of a sealed run only those asked for, from its Parquet files.

    Parameters
    ----------
    tables : RunTables
        The run.
    table : str
        Any table of the schema.
    names : list of str, optional
        Columns wanted; all of them otherwise. There may be more.
    instants_as_text : bool
        See :func:`orchestrator_lab.casting.to_values`; of a run that is not sealed they are texts anyway.

    Returns
    -------
    dict of str to list
        All of one length; None where a value is not known.
    """
    part = tables.part(table, names)
    if part is not None:
        return {name: to_values(part[name], instants_as_text=instants_as_text) for name in part.columns}
    known = tables.columns(table)
    length = len(known["run_id"])
    return {name: known.get(name) or [None] * length for name in names or [one.name for one in TABLES[table]]}


def rows_of(tables: RunTables, table: str) -> list[dict[str, Any]]:
    """Return a table as one dict a row, with every column of the schema."""
    columns = lists_of(tables, table)
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def run_start(tables: RunTables) -> str | None:
    """Return the instant from which seconds are counted."""
    started = lists_of(tables, "runs", ["started_at"])["started_at"][0]
    return None if started is None else str(started)


def agent_names(tables: RunTables) -> list[str]:
    """Return the agents of a run, in their order: that is their colour."""
    return [str(name) for name in dict.fromkeys(lists_of(tables, "agents", ["name"])["name"]) if name is not None]


def events_with(tables: RunTables, marks: Sequence[bytes]) -> Iterator[Event]:
    """Yield the events that may concern something: a long journal is looked through, only its lines are decoded.

    Parameters
    ----------
    tables : RunTables
        Of the run.
    marks : sequence of bytes
        What a line holds, one of these at least. Of a run without a journal, all events come.

    Yields
    ------
    Event
        In their order.
    """
    if tables.path is None:
        for row in rows_of(tables, "events"):
            yield Event.from_dict({**row, "attributes": json.loads(row["attributes"] or "{}")})
        return
    for _, line in JournalReader(tables.path / JOURNAL).lines():
        if any(mark in line for mark in marks):
            try:
                yield Event.from_json(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # the tables have warned of it


def chosen_agents(tables: RunTables, agent: str | Iterable[str] | None) -> set[str] | None:
    """Return the agents that were asked for; None for all.

    Raises
    ------
    AgentNotFound
        When the run has no agent or party of this name.
    """
    if agent is None:
        return None
    wanted = [agent] if isinstance(agent, str) else list(dict.fromkeys(agent))
    known = agent_names(tables)
    messages = lists_of(tables, "messages", ["sender", "recipient"])
    parties = [*known, *messages["sender"], *messages["recipient"]]
    have = [str(name) for name in dict.fromkeys(parties) if name is not None]
    for name in wanted:
        if name not in have:
            raise AgentNotFound(
                f"nobody called {name!r} is in this run; there are: {', '.join(have) or 'none'}", agent=name, known=have
            )
    return set(wanted)


def ids_of(text: str | None) -> list[str]:
    """Return the ids in a JSON array of a table."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def entries_of(tables: RunTables, agents: set[str] | None = None) -> list[Entry]:
    """Return a conversation's entries in the order in which they happened.

    Parameters
    ----------
    tables : RunTables
        Of one run.
    agents : set of str, optional
        Messages that these sent or were sent, with the turns that answer them, their own turns and dialogs.

    Returns
    -------
    list of Entry
        A turn that nobody asked for is there too.
    """
    messages, turns = rows_of(tables, "messages"), rows_of(tables, "turns")
    by_id = {row["message_id"]: row for row in messages}
    by_turn = {row["turn_id"]: row for row in turns}
    calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in rows_of(tables, "tool_calls"):
        calls[call["turn_id"] or ""].append(call)
    entries: list[Entry] = []
    shown: set[str] = set()
    for row in messages:
        if agents is not None and row["sender"] not in agents and row["recipient"] not in agents:
            continue
        shown.add(row["turn_id"] or "")
        asked = by_id.get(row["in_reply_to"] or "", {})
        answer = by_turn.get(asked.get("turn_id") or "", {})
        repeats = bool(row["content"]) and answer.get("reply") == row["content"] and answer["agent"] == row["sender"]
        at = row["queued_at"] or row["claimed_at"] or row["accepted_at"]
        entries.append(Entry("message", at, row["sender"] or "?", (row["recipient"] or "?",), row, (), repeats=repeats))
    for row in turns:
        if agents is not None and row["agent"] not in agents and row["turn_id"] not in shown:
            continue
        asking = [by_id[one]["sender"] or "?" for one in ids_of(row["message_ids"]) if one in by_id]
        at = row["ended_at"] or row["first_output_at"] or row["started_at"]
        to = tuple(dict.fromkeys(asking))
        entries.append(Entry("turn", at, row["agent"] or "?", to, row, tuple(calls[row["turn_id"] or ""])))
    entries += [
        Entry("dialog", row["opened_at"], row["agent"] or "?", (), row)
        for row in rows_of(tables, "dialogs")
        if agents is None or row["agent"] in agents or row["turn_id"] in shown
    ]
    order = {"dialog": 0, "turn": 1, "message": 2}

    def when(entry: Entry) -> tuple[float, int]:
        known = instant(entry.at)
        return (0.0 if known is None else known.timestamp(), order[entry.kind])

    entries.sort(key=when)
    return entries


def ladder(row: dict[str, Any]) -> str:
    """Return a message's rungs on one line: the seconds of each after the first, and the proof.

    Examples
    --------
    >>> row = {"queued_at": "2026-11-23T06:00:00Z", "accepted_at": "2026-11-23T06:00:01.5Z"}
    >>> ladder({**row, "acceptance_source": "hook"})
    'queued 2026-11-23T06:00:00Z, accepted +1.500 s (hook)'
    """
    parts: list[str] = []
    first: str | None = None
    for rung in RUNGS:
        at = row.get(f"{rung}_at")
        if at is None:
            continue
        if first is None:
            first = at
            said = f"{rung} {at}"
        else:
            said = f"{rung} {shown_seconds(seconds_between(first, at), '+')}"
        if rung == "accepted" and row.get("acceptance_source"):
            said += f" ({row['acceptance_source']})"
        parts.append(said)
    if row.get("status") not in {None, *RUNGS}:
        parts.append(f"{row['status']}: {row.get('error_message') or row.get('error_type') or ''}".rstrip(": "))
    return ", ".join(parts)
