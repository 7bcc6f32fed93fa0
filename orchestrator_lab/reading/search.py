"""Search over everything that was said and done in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.casting import frame_of
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.reading.entries import chosen_agents, lists_of
from orchestrator_lab.reading.matching import compiled, find
from orchestrator_lab.reading.texts import clean
from orchestrator_lab.schema import INSTANT, SCHEMA_VERSION, Column

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

    import pandas as pd

    from orchestrator_lab.tables import RunTables

__all__ = ["COLUMNS", "FIELDS", "search"]

#: What is searched: the texts of each table, its id, who and when.
FIELDS = {
    "messages": (("content", "error_message"), "message_id", "sender", "queued_at"),
    "turns": (("reply",), "turn_id", "agent", "ended_at"),
    "tool_calls": (("name", "input", "output", "error_message"), "tool_call_id", "agent", "started_at"),
    "dialogs": (("subject", "options", "decision"), "dialog_id", "agent", "opened_at"),
}

COLUMNS = (
    Column("run_id", "string", None, "The run."),
    Column("table", "category", None, "The table of the hit.", None, tuple(FIELDS)),
    Column("field", "string", None, "The column of that table."),
    Column("id", "string", None, "Id of the row: a message_id, turn_id, tool_call_id or dialog_id."),
    Column("agent", "string", None, "Who said or did it; of a message, its sender."),
    Column("recipient", "string", None, "To whom; NA when it is no message."),
    Column("turn_id", "string", None, "The turn; of a message, the one that answers it."),
    Column("at", INSTANT, "UTC", "A message queued, a turn ended, a call started, a dialog opened."),
    Column("excerpt", "string", None, "The first match with what stands around it, on one line."),
    Column("match", "string", None, "The first match."),
    Column("count", "Int64", None, "Matches in this text."),
)
_AROUND = 60


def search(
    tables: RunTables,
    what: str | re.Pattern[str],
    *,
    agent: str | Iterable[str] | None = None,
    kind: str | Iterable[str] | None = None,
    regex: bool = False,
    case: bool = False,
    timeout_s: float = 10.0,
) -> pd.DataFrame:
    """Return where a text stands in a run.

    Parameters
    ----------
    tables : RunTables
        The run.
    what : str or re.Pattern
        Plain text; a regular expression when it is compiled, or with ``regex``.
    agent : str or iterable of str, optional
        Only what these said and did, and the messages that they were sent.
    kind : str or iterable of str, optional
        Only these tables: ``messages``, ``turns``, ``tool_calls``, ``dialogs``.
    regex : bool
        Whether a text is a regular expression.
    case : bool
        Whether upper and lower case of a text are told apart; a compiled expression says that itself.
    timeout_s : float
        Seconds after which a regular expression is given up. Plain text always ends.

    Returns
    -------
    pandas.DataFrame
        One row a text that matches, in order of time.

    Raises
    ------
    ConfigError
        When there is no such kind, it is no expression, or it took too long.
    AgentNotFound
        When nobody of this name is in the run.
    """
    agents = chosen_agents(tables, agent)
    pattern = compiled(what, regex=regex, case=case)
    plain = isinstance(what, str) and not regex
    rows: dict[str, list[Any]] = {column.name: [] for column in COLUMNS}
    texts: list[str] = []
    for table in _kinds(kind):
        fields, *keys = FIELDS[table]
        parties = ["recipient"] if table == "messages" else []
        needed = list(dict.fromkeys([*fields, *keys, "turn_id", *parties]))
        columns = lists_of(tables, table, needed, instants_as_text=False)
        to = columns["recipient"] if parties else None
        ids, who, at = (columns[key] for key in keys)
        for field in fields:
            for row, text in enumerate(columns[field]):
                if not isinstance(text, str) or not text:
                    continue
                recipient = None if to is None else to[row]
                if agents is not None and who[row] not in agents and recipient not in agents:
                    continue
                texts.append(text)
                found = (table, field, ids[row], who[row], recipient, columns["turn_id"][row], at[row])
                for name, value in zip(_FOUND, found, strict=True):
                    rows[name].append(value)
    hits = find(pattern, texts, timeout_s=None if plain else timeout_s)
    data = {name: [rows[name][hit.number] for hit in hits] for name in _FOUND}
    data["run_id"] = [tables.run_id] * len(hits)
    data["excerpt"] = [_excerpt(texts[hit.number], hit.start, hit.end) for hit in hits]
    data["match"] = [texts[hit.number][hit.start : hit.end] for hit in hits]
    data["count"] = [hit.matches for hit in hits]
    frame = frame_of(COLUMNS, data, len(hits)).sort_values("at", kind="stable", ignore_index=True)
    frame.attrs = {"schema_version": SCHEMA_VERSION, "source": [tables.source], "search": pattern.pattern}
    return frame


_FOUND = ("table", "field", "id", "agent", "recipient", "turn_id", "at")


def _kinds(kind: str | Iterable[str] | None) -> list[str]:
    if kind is None:
        return list(FIELDS)
    wanted = [kind] if isinstance(kind, str) else list(dict.fromkeys(kind))
    for one in wanted:
        if one not in FIELDS:
            raise ConfigError(f"search has no kind {one!r}; the kinds are the tables {', '.join(FIELDS)}")
    return wanted


def _excerpt(text: str, start: int, end: int) -> str:
    """Return a match with what stands around it, on one line."""
    left, right = max(0, start - _AROUND), min(len(text), max(end, start) + _AROUND)
    right = min(right, start + 5 * _AROUND)  # a match may be as long as the text
    line = " ".join(clean(text[left:right]).split())
    return f"{'…' if left else ''}{line}{'…' if right < len(text) else ''}"
