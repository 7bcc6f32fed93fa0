"""Tables of runs as pandas DataFrames: ``runs_df``, ``messages_df`` and their siblings.

Each function takes the same sources: a :class:`~orchestrator_lab.run.Run`, a live cluster, the
path of a run folder, of a bundle (``*.olab.zip``) or of a folder of runs, a glob, or a list of
those. A path may also mean conversations that the lab did not start: a transcript of Claude Code,
a rollout of Codex, or a folder of either. Columns and dtypes are those of
:data:`orchestrator_lab.schema.TABLES`, always all of them, also when there are no rows.

Examples
--------
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     messages_df(folder).shape[0]
0
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from orchestrator_lab.choosing import Choice
from orchestrator_lab.errors import ConfigError, JournalError
from orchestrator_lab.folds import fold_messages, fold_turns
from orchestrator_lab.importing import find_conversations
from orchestrator_lab.schema import TABLES, build_frame, columns_of
from orchestrator_lab.tables import JOURNAL, RunTables, attributed, find_runs

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from orchestrator_lab.config import ModelPrice
    from orchestrator_lab.journal.event import Event

__all__ = [
    "RunTables",
    "agents_df",
    "alerts_df",
    "dialogs_df",
    "events_df",
    "fold_messages",
    "fold_turns",
    "messages_df",
    "processes_df",
    "runs_df",
    "states_df",
    "tool_calls_df",
    "turns_df",
]

logger = logging.getLogger(__name__)


@runtime_checkable
class EventSource(Protocol):
    """Anything that has a run's events."""

    run_id: str

    def events(self) -> list[Event]:
        """Return the events of the run, in order."""
        ...


Source: TypeAlias = (
    "str | os.PathLike[str] | EventSource | RunTables | Iterable[str | os.PathLike[str] | EventSource | RunTables]"
)
Names: TypeAlias = "str | Iterable[str] | None"
#: A number in the journal, or an instant (ISO 8601 as text; UTC where it has no zone).
Since: TypeAlias = "int | datetime | str | None"
#: What columns are to hold: one value, or one of several; None is NA.
Where: TypeAlias = "Mapping[str, Any] | None"
#: ``dated`` for the table that comes with the package, or prices by name or pattern of models.
Prices: TypeAlias = "str | Mapping[str, ModelPrice | Mapping[str, Any]] | None"


def runs_df(
    source: Source, *, columns: Names = None, since: Since = None, where: Where = None, prices: Prices = None
) -> pd.DataFrame:
    """Return one row a run: experiment, params, status, counts, versions.

    Parameters
    ----------
    source : Run, Cluster, path, glob or list of those
        What to read; a folder that is no run is read as a folder of runs.
    columns : str or iterable of str, optional
        Columns wanted, in this order; all of them otherwise.
    since : int, datetime or str, optional
        Only rows behind this ``seq`` of the journal (in tables that have one), or from this instant on.
    where : mapping of str to value, optional
        Only rows that hold, in each of these columns, this value or one of a list of values; None stands for NA.
    prices : str or mapping, optional
        Prices for conversations that the lab did not start: ``dated`` for the table that comes with the package, or
        prices by name or pattern of models. Runs of the lab keep the cost that their journal holds.

    Returns
    -------
    pandas.DataFrame
        Table ``runs`` of the schema; ``.attrs`` hold ``schema_version`` and ``source``.

    Raises
    ------
    RunNotFound
        When a path does not exist.
    ConfigError
        When a column does not exist.

    Examples
    --------
    >>> runs_df([]).shape[0]
    0
    """
    return _table(source, "runs", columns, None, prices, since=since, where=where)


def agents_df(
    source: Source,
    *,
    columns: Names = None,
    agents: Names = None,
    since: Since = None,
    where: Where = None,
    prices: Prices = None,
) -> pd.DataFrame:
    """Return one row an agent: what it is, how it stands, time busy, tokens.

    Parameters
    ----------
    source, columns, since, where
        As for :func:`runs_df`.
    agents : str or iterable of str, optional
        Names of the agents wanted.
    prices
        As for :func:`runs_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``agents`` of the schema.

    Examples
    --------
    >>> agents_df([], columns=["name", "busy_s"]).columns.tolist()
    ['name', 'busy_s']
    """
    return _table(source, "agents", columns, agents, prices, since=since, where=where)


def messages_df(
    source: Source,
    *,
    columns: Names = None,
    agents: Names = None,
    since: Since = None,
    where: Where = None,
    annotations: bool = False,
) -> pd.DataFrame:
    """Return one row a message: text, ladder of delivery, times, outcome.

    Parameters
    ----------
    source, columns, since, where
        As for :func:`runs_df`.
    agents : str or iterable of str, optional
        Messages that these sent or were sent.
    annotations : bool
        Join what analysts said of each (:meth:`orchestrator_lab.run.Run.annotate`): ``label``, ``note``,
        ``annotated_by``, ``annotated_at``; the last of each counts.

    Returns
    -------
    pandas.DataFrame
        Table ``messages`` of the schema. Durations are in seconds: ``queue_s`` from queued to
        claimed, ``delivery_s`` from claimed to accepted, ``response_s`` from accepted to answered.

    Examples
    --------
    >>> str(messages_df([])["accepted_at"].dtype)
    'datetime64[us, UTC]'
    >>> messages_df([], annotations=True).columns[-4:].tolist()
    ['label', 'note', 'annotated_by', 'annotated_at']
    """
    if not annotations:
        return _table(source, "messages", columns, agents, since=since, where=where)
    from orchestrator_lab.annotations import JOINED, join

    runs = list(_resolve(source))
    wanted = None if columns is None else _names(columns)
    added = [column.name for column in JOINED]
    own = None if wanted is None else ["run_id", "message_id", *(name for name in wanted if name not in added)]
    frame = join(
        _table(runs, "messages", own, agents, since=since, where=where), [(run.run_id, run.path) for run in runs]
    )
    if wanted is None:
        return frame
    chosen = frame[wanted]
    chosen.attrs = frame.attrs
    return chosen


def turns_df(
    source: Source,
    *,
    columns: Names = None,
    agents: Names = None,
    since: Since = None,
    where: Where = None,
    prices: Prices = None,
) -> pd.DataFrame:
    """Return one row a turn: reply, times, tokens as the program reported them.

    Parameters
    ----------
    source, columns, since, where
        As for :func:`runs_df`.
    agents : str or iterable of str, optional
        Names of the agents wanted.
    prices
        As for :func:`runs_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``turns`` of the schema; ``input_tokens`` include cached ones.

    Examples
    --------
    >>> str(turns_df([])["output_tokens"].dtype)
    'Int64'
    """
    return _table(source, "turns", columns, agents, prices, since=since, where=where)


def tool_calls_df(
    source: Source, *, columns: Names = None, agents: Names = None, since: Since = None, where: Where = None
) -> pd.DataFrame:
    """Return one row a tool call: arguments, result, time.

    Parameters
    ----------
    source, columns, agents, since, where
        As for :func:`turns_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``tool_calls`` of the schema.

    Examples
    --------
    >>> tool_calls_df([], columns="name").shape
    (0, 1)
    """
    return _table(source, "tool_calls", columns, agents, since=since, where=where)


def dialogs_df(
    source: Source, *, columns: Names = None, agents: Names = None, since: Since = None, where: Where = None
) -> pd.DataFrame:
    """Return one row a dialog: what a program asked its user, who answered and how.

    Parameters
    ----------
    source, columns, agents, since, where
        As for :func:`turns_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``dialogs`` of the schema.

    Examples
    --------
    >>> dialogs_df([], columns="kind").shape
    (0, 1)
    """
    return _table(source, "dialogs", columns, agents, since=since, where=where)


def states_df(
    source: Source, *, columns: Names = None, agents: Names = None, since: Since = None, where: Where = None
) -> pd.DataFrame:
    """Return one row an interval in which an agent was in one state.

    Parameters
    ----------
    source, columns, agents, since, where
        As for :func:`turns_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``states`` of the schema; an interval that lasts has no end and no duration.

    Examples
    --------
    >>> "busy" in states_df([])["state"].cat.categories
    True
    """
    return _table(source, "states", columns, agents, since=since, where=where)


def alerts_df(
    source: Source, *, columns: Names = None, agents: Names = None, since: Since = None, where: Where = None
) -> pd.DataFrame:
    """Return one row an alert.

    Parameters
    ----------
    source, columns, agents, since, where
        As for :func:`turns_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``alerts`` of the schema.

    Examples
    --------
    >>> alerts_df([], columns="rule").shape
    (0, 1)
    """
    return _table(source, "alerts", columns, agents, since=since, where=where)


def processes_df(
    source: Source, *, columns: Names = None, agents: Names = None, since: Since = None, where: Where = None
) -> pd.DataFrame:
    """Return one row a sample of an agent's processes.

    Parameters
    ----------
    source, columns, agents, since, where
        As for :func:`turns_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``processes`` of the schema.

    Examples
    --------
    >>> processes_df([], columns="rss_bytes").shape
    (0, 1)
    """
    return _table(source, "processes", columns, agents, since=since, where=where)


def events_df(
    source: Source, *, columns: Names = None, agents: Names = None, since: Since = None, where: Where = None
) -> pd.DataFrame:
    """Return one row an event: the journal itself.

    Parameters
    ----------
    source, columns, agents, since, where
        As for :func:`turns_df`.

    Returns
    -------
    pandas.DataFrame
        Table ``events`` of the schema; ``attributes`` are JSON.

    Examples
    --------
    >>> events_df([], columns=["seq", "event"]).shape
    (0, 2)
    """
    return _table(source, "events", columns, agents, since=since, where=where)


def _table(
    source: Source,
    table: str,
    columns: Names,
    agents: Names,
    prices: Prices = None,
    *,
    since: Since = None,
    where: Where = None,
) -> pd.DataFrame:
    wanted = None if columns is None else _names(columns)
    _check_columns(table, wanted)
    chosen = Choice.of(table, None if agents is None else _names(agents), since, where)
    runs = list(_resolve(source, _priced(prices)))
    needed = None if wanted is None else list(dict.fromkeys((*wanted, *chosen.columns)))
    read = [(run, run.part(table, needed, chosen)) for run in runs]
    if len(runs) > 1:
        read = [(run, part) for run, part in read if part is not None or _can_be_read(run)]
        runs = [run for run, _ in read]
    parts = {number: part for number, (_, part) in enumerate(read) if part is not None}
    if len(runs) == 1 and wanted is None and not parts:
        frame = runs[0].frame(table)
    elif len(runs) == 1 and parts:
        frame = parts[0]
    else:
        frame = attributed(_together(runs, parts, table, needed), runs)
    frame = chosen.rows(frame)
    if wanted is not None:
        attrs = frame.attrs
        frame = frame[wanted]
        frame.attrs = attrs
    return frame


def _can_be_read(run: RunTables) -> bool:
    """Tell whether a run among others has a journal that can be opened, or none; say so if not."""
    if run.path is None:
        return True
    try:
        (run.path / JOURNAL).open("rb").close()
    except FileNotFoundError:
        return True
    except OSError as error:
        logger.warning("%s cannot be read (%s): the run was left out", run.path / JOURNAL, error.strerror)
        return False
    return True


def _together(
    runs: Sequence[RunTables], parts: dict[int, pd.DataFrame], table: str, columns: list[str] | None
) -> pd.DataFrame:
    """Put runs one behind the other: those that are sealed as they were read, the others in one piece each time."""
    import pandas as pd

    pieces: list[pd.DataFrame] = []
    open_: list[RunTables] = []
    for number, run in enumerate(runs):
        part = parts.get(number)
        if part is None and run.is_long:
            part = run.frame(table)
            part = part if columns is None else part[columns]
        if part is None:
            open_.append(run)
            continue
        if open_:
            pieces.append(build_frame(table, _merge(open_, table), only=columns))
            open_ = []
        pieces.append(part)
    if open_ or not pieces:
        pieces.append(build_frame(table, _merge(open_, table), only=columns))
    filled = [piece for piece in pieces if len(piece)] or pieces[:1]
    return filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)


def _merge(runs: Sequence[RunTables], table: str) -> dict[str, list[Any]]:
    """Put the columns of several runs one behind the other."""
    if len(runs) == 1:
        return runs[0].columns(table)
    merged: dict[str, list[Any]] = {column.name: [] for column in TABLES[table]}
    for run in runs:
        columns = run.columns(table)
        length = max((len(values) for values in columns.values()), default=0)
        for name, values in merged.items():
            values.extend(columns.get(name) or [None] * length)
    return merged


def _check_columns(table: str, wanted: list[str] | None) -> None:
    if wanted is None:
        return
    have = [column.name for column in columns_of(table)]
    missing = [name for name in wanted if name not in have]
    if missing:
        raise ConfigError(
            f"the table {table!r} has no column {', '.join(map(repr, missing))}; it has: {', '.join(have)}"
        )


def _names(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def _priced(prices: Prices) -> Mapping[str, ModelPrice] | None:
    """Return prices as the configuration would hold them."""
    if prices is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    from orchestrator_lab.config import ModelPrice, dated_prices

    if prices == "dated":
        return dated_prices()
    try:
        return TypeAdapter(dict[str, ModelPrice]).validate_python(prices)
    except ValidationError as error:
        place = " ".join(map(str, error.errors()[0]["loc"])) or "prices"
        raise ConfigError(
            f"prices cannot be used: {place}: {error.errors()[0]['msg']}; give 'dated', or a mapping of models to "
            "prices in USD per million tokens, such as {'large-*': {'input': 5, 'output': 25}}"
        ) from error


def _resolve(source: Any, prices: Mapping[str, ModelPrice] | None = None) -> Iterable[RunTables]:  # noqa: ANN401 - see Source
    """Yield the tables of each run that a source means."""
    tables = getattr(source, "tables", None)
    if isinstance(source, RunTables):
        yield source
    elif isinstance(tables, RunTables):
        yield tables
    elif isinstance(source, str | os.PathLike):
        runs = find_runs(source)
        for path in runs:
            try:
                tables = RunTables(path)
            except JournalError as error:
                if len(runs) == 1:
                    raise
                logger.warning("%s; here its journal alone is read", error.message)
                tables = RunTables(path, manifest={})
            yield tables
        if not runs:
            for conversation in find_conversations(source, prices):
                yield RunTables.from_conversation(conversation)
    elif getattr(source, "run", None) is not None:  # a cluster: its run's tables read what is new, and no more
        yield from _resolve(source.run, prices)
    elif callable(getattr(source, "events", None)) and hasattr(source, "run_id"):
        yield RunTables.from_events(source.run_id, source.events(), getattr(source, "manifest", None))
    elif isinstance(source, Iterable):
        for item in source:
            yield from _resolve(item, prices)
    else:
        raise ConfigError(
            f"cannot read runs from {type(source).__name__}; expected a run, a cluster, a path, a "
            "glob or a list of those"
        )
