"""Tables of runs as pandas DataFrames: ``runs_df``, ``messages_df`` and their siblings.

Each function takes the same sources: a :class:`~orchestrator_lab.run.Run`, a live cluster, the
path of a run folder or of a folder of runs, a glob, or a list of those. A path may also mean
conversations that the lab did not start: a transcript of Claude Code, a rollout of Codex, or a
folder of either. Columns and dtypes are
those of :data:`orchestrator_lab.schema.TABLES`, always all of them, also when there are no rows.

Examples
--------
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     messages_df(folder).shape[0]
0
"""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from orchestrator_lab.choosing import Choice
from orchestrator_lab.costs import price_table
from orchestrator_lab.errors import ConfigError, JournalError, OrchestratorLabError, RunNotFound
from orchestrator_lab.folds import EventFold, Fold, RunFold, fold_messages, fold_turns, make_folds
from orchestrator_lab.folds.base import MALFORMED, warn_malformed
from orchestrator_lab.importing import find_conversations
from orchestrator_lab.journal.reader import JournalReader, without_gc
from orchestrator_lab.schema import SCHEMA_VERSION, TABLES, build_frame, columns_of
from orchestrator_lab.sealing import open_seal, read_sealed

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from orchestrator_lab.config import ModelPrice
    from orchestrator_lab.folds.base import Handler
    from orchestrator_lab.importing import Conversation
    from orchestrator_lab.importing.conversation import ConversationReader
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

JOURNAL = "journal.jsonl"
MANIFEST = "manifest.json"


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


class RunTables:
    """The tables of one run, folded from its journal as far as it has come.

    Parameters
    ----------
    path : path-like or None
        The run's folder; None for events that come another way, see :meth:`from_events`.
    run_id : str, optional
        The run of such events.
    manifest : dict, optional
        The manifest of such a run.

    Raises
    ------
    RunNotFound
        When the folder is no run.
    JournalError
        When its manifest is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        run_id: str | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.manifest = manifest or {}
        if self.path is not None:
            if not is_run(self.path):
                raise RunNotFound(
                    f"{self.path} is no run: expected a folder with {MANIFEST} or {JOURNAL}, such "
                    "as runs/run_…; `orchestrator-lab runs` lists those there are",
                    path=str(self.path),
                )
            self.manifest = _read_manifest(self.path)
            run_id = str(self.manifest.get("run_id") or self.path.resolve().name)
        self.run_id = run_id or ""
        self.source = self.run_id if path is None else str(path)
        # The events table is a copy of the journal in memory: read only once it is asked for.
        self._reader: JournalReader | ConversationReader | None
        self._events_reader: JournalReader | ConversationReader | None
        self._reader, self._events_reader = (
            None if self.path is None else JournalReader(self.path / JOURNAL) for _ in range(2)
        )
        self._events = EventFold()
        self._run = RunFold()
        self._folds = make_folds()
        self._handlers: dict[str, list[Handler]] = {}
        for handlers in (self._run.handlers, *(fold.handlers for fold in self._folds.values())):
            for name, handler in handlers.items():
                self._handlers.setdefault(name, []).append(handler)
        self._frames: dict[str, tuple[int, pd.DataFrame]] = {}
        #: How the record of a conversation that the lab did not start was read; None for a run of the lab.
        self.imported: dict[str, Any] | None = None

    @classmethod
    def from_conversation(cls, conversation: Conversation) -> RunTables:
        """Return the tables of a conversation that the lab did not start.

        Parameters
        ----------
        conversation : Conversation
            A program's own record, which is read when a table is asked for, and not again.

        Returns
        -------
        RunTables
            Without a folder.
        """
        tables = cls(None, run_id=conversation.run_id, manifest=conversation.manifest)
        tables.source, tables.imported = str(conversation.path), conversation.imported
        tables._reader, tables._events_reader = conversation.reader(), conversation.reader()
        return tables

    @classmethod
    def from_events(cls, run_id: str, events: Iterable[Event], manifest: dict[str, Any] | None = None) -> RunTables:
        """Return the tables of events that are at hand already.

        Parameters
        ----------
        run_id : str
            Their run.
        events : iterable of Event
            From the first on.
        manifest : dict, optional
            The run's manifest.

        Returns
        -------
        RunTables
            Without a folder.
        """
        tables = cls(None, run_id=run_id, manifest=manifest)
        tables.feed(events)
        return tables

    def feed(self, events: Iterable[Event]) -> None:
        """Take events that do not come from the journal's file.

        Parameters
        ----------
        events : iterable of Event
            Those that follow the ones taken before.
        """
        known = list(events)
        self._take(known)
        self._events.update(known)

    def _take(self, events: list[Event]) -> None:
        """Give each event to the folds that want it, in one pass."""
        get = self._handlers.get
        for event in events:
            handlers = get(event.event)
            if handlers is not None:
                for handler in handlers:
                    try:
                        handler(event)
                    except MALFORMED as error:
                        warn_malformed(event, error)
        self._run.event_count += len(events)

    def refresh(self) -> int:
        """Read what the journal has gained since the last call.

        Returns
        -------
        int
            Number of events that were new.
        """
        if self._reader is None:
            return 0
        before = self._run.event_count
        with without_gc():
            for events in self._reader.batches():
                self._take(events)
        return self._run.event_count - before

    def fold(self, table: str) -> Fold:
        """Return the fold behind a table, up to date.

        Parameters
        ----------
        table : str
            ``agents``, ``messages``, ``turns``, ``tool_calls``, ``dialogs``, ``states``, ``alerts``,
            ``processes`` or ``events``.

        Returns
        -------
        Fold
            Not to be changed.
        """
        if table == "events":
            if self._events_reader is not None:
                with without_gc():
                    for events in self._events_reader.batches():
                        self._events.update(events)
            return self._events
        self.refresh()
        return self._folds[table]

    def status(self) -> str | None:
        """Return how the run stands.

        Returns
        -------
        str or None
            The status of its end; ``running`` while a cluster of this machine holds it; None when
            it has no end and nobody here is running it.
        """
        ended = self._run.facts.get("status")
        if ended is not None:
            return str(ended)
        return "running" if self.path is not None and _is_live(self.run_id) else None

    def columns(self, table: str) -> dict[str, list[Any]]:
        """Return a table as plain lists, one a column, up to date.

        Parameters
        ----------
        table : str
            Any table of the schema.

        Returns
        -------
        dict of str to list
            All of one length, with ``run_id``; columns that nothing is known of are absent.
        """
        columns_of(table)
        if table == "runs":
            self.refresh()
            return {name: [value] for name, value in self._run_row().items()}
        fold = self.fold(table)
        return {"run_id": [self.run_id] * len(fold), **fold.columns()}

    def frame(self, table: str) -> pd.DataFrame:
        """Return a table, built again only when the journal has grown.

        Parameters
        ----------
        table : str
            Any table of the schema.

        Returns
        -------
        pandas.DataFrame
            A copy of its own (copy-on-write, so it costs nothing).
        """
        if (sealed := self._sealed(table, None, None)) is not None:
            return sealed
        if table == "runs":  # its status depends on more than the journal
            return _attributed(build_frame(table, self.columns(table)), [self])
        columns = None
        self.fold(table)
        count = len(self._events) if table == "events" else self._run.event_count
        kept = self._frames.get(table)
        if kept is None or kept[0] != count:
            columns = self.columns(table)
            kept = (count, _attributed(build_frame(table, columns), [self]))
            self._frames[table] = kept
        frame = kept[1].copy(deep=False)
        frame.attrs = dict(kept[1].attrs)
        return frame

    def part(self, table: str, columns: list[str] | None, chosen: Choice | None = None) -> pd.DataFrame | None:
        """Return a part of a table from the run's Parquet files, without reading the rest of it.

        Parameters
        ----------
        table : str
            Any table of the schema.
        columns : list of str or None
            Columns wanted, in this order; None for all.
        chosen : Choice, optional
            Which rows are wanted, all of them when omitted; more may come.

        Returns
        -------
        pandas.DataFrame or None
            None when the run is not sealed, or is read from its journal already.
        """
        return self._sealed(table, columns, None if chosen is None else chosen.filters())

    def _sealed(
        self, table: str, columns: list[str] | None, filters: list[list[tuple[str, str, Any]]] | None
    ) -> pd.DataFrame | None:
        columns_of(table)
        if self.path is None or self._run.event_count:
            return None
        seal = open_seal(self.path)
        frame = None if seal is None else read_sealed(seal, table, columns=columns, filters=filters)
        return None if frame is None else _attributed(frame, [self])

    def _run_row(self) -> dict[str, Any]:
        manifest = self.manifest
        versions = manifest.get("versions") or {}
        git = (manifest.get("git") or {}).get("work_dir") or {}
        agents, turns = self._folds["agents"].columns(), self._folds["turns"].columns()
        facts = self._run.facts
        row: dict[str, Any] = {
            "run_id": self.run_id,
            "parent_run_id": manifest.get("parent_run_id"),
            "experiment": manifest.get("experiment"),
            "mode": manifest.get("mode"),
            "started_at": manifest.get("started_at"),
            "params": _json(manifest.get("params")),
            "tags": _json(manifest.get("tags")),
            "seed": manifest.get("seed"),
            "git_commit": git.get("commit"),
            "git_dirty": git.get("dirty"),
            "package_version": versions.get("orchestrator_lab"),
            "python_version": versions.get("python"),
            "tmux_version": versions.get("tmux"),
            "platform": manifest.get("platform"),
        }
        row.update({name: value for name, value in facts.items() if value is not None})
        row["status"] = self.status()
        row["agent_count"] = len(set(agents["name"]))
        row["message_count"] = len(self._folds["messages"])
        row["event_count"] = self._run.event_count
        for name in ("input_tokens", "output_tokens"):
            known = [tokens for tokens in turns[name] if tokens is not None]
            row[name] = sum(known) if known else None
        costs = [cost for cost in turns["cost_usd"] if cost is not None]
        row["cost_usd"] = round(sum(costs), 12) if costs else None
        return row


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


def is_run(path: Path) -> bool:
    """Return whether a folder is a run.

    Parameters
    ----------
    path : pathlib.Path
        Any path.

    Returns
    -------
    bool
        True when it holds a manifest or a journal.
    """
    return (path / MANIFEST).is_file() or (path / JOURNAL).is_file()


def find_runs(path: str | os.PathLike[str]) -> list[Path]:
    """Return the run folders that a path or glob means, oldest first.

    Parameters
    ----------
    path : path-like
        A run, its journal or manifest, a folder of runs, or a glob of any of these.

    Returns
    -------
    list of pathlib.Path
        Empty for a folder without runs.

    Raises
    ------
    RunNotFound
        When there is nothing at this path.
    """
    text = str(Path(path).expanduser())
    place = Path(text)
    if not place.exists():
        if glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - takes a full path
            found = [run for match in matches for run in find_runs(match)]
            return list(dict.fromkeys(found))
        raise RunNotFound(
            f"there is no run at {text}: expected a run folder, a folder of runs or a glob",
            path=text,
        )
    if place.is_file():
        return [place.parent] if place.name in {JOURNAL, MANIFEST} else []
    if is_run(place):
        return [place]
    return sorted(child for child in place.iterdir() if is_run(child))


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
    parts = {number: part for number, run in enumerate(runs) if (part := run.part(table, needed, chosen)) is not None}
    if len(runs) == 1 and wanted is None and not parts:
        frame = runs[0].frame(table)
    elif len(runs) == 1 and parts:
        frame = parts[0]
    else:
        frame = _attributed(_together(runs, parts, table, needed), runs)
    frame = chosen.rows(frame)
    if wanted is not None:
        attrs = frame.attrs
        frame = frame[wanted]
        frame.attrs = attrs
    return frame


def _together(
    runs: Sequence[RunTables], parts: dict[int, pd.DataFrame], table: str, columns: list[str] | None
) -> pd.DataFrame:
    """Put runs one behind the other: those that are sealed as they were read, the others in one piece each time."""
    import pandas as pd

    pieces: list[pd.DataFrame] = []
    open_: list[RunTables] = []
    for number, run in enumerate(runs):
        if number not in parts:
            open_.append(run)
            continue
        if open_:
            pieces.append(build_frame(table, _merge(open_, table), only=columns))
            open_ = []
        pieces.append(parts[number])
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
            yield RunTables(path)
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


def _attributed(frame: pd.DataFrame, runs: Sequence[RunTables]) -> pd.DataFrame:
    frame.attrs = {"schema_version": SCHEMA_VERSION, "source": [run.source for run in runs]}
    imported = [dict(run.imported) for run in runs if run.imported is not None]
    if imported:
        frame.attrs["imported"] = imported
    used = {run.run_id: table for run in runs if (table := price_table(_prices_of(run.manifest))) is not None}
    if used:
        frame.attrs["prices"] = used
    return frame


def _prices_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    config = manifest.get("config")
    cluster = config.get("cluster") if isinstance(config, dict) else None
    prices = cluster.get("prices") if isinstance(cluster, dict) else None
    return prices if isinstance(prices, dict) else None


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise JournalError(
            f"{file}: the manifest cannot be read ({error}); it is one JSON object, so restore it "
            "or move it away to read the journal alone",
            path=str(file),
        ) from error
    if not isinstance(manifest, dict):
        raise JournalError(
            f"{file}: the manifest is a {type(manifest).__name__}, not a JSON object; restore it "
            "or move it away to read the journal alone",
            path=str(file),
        )
    if (manifest.get("schema_version") or 0) > SCHEMA_VERSION:
        logger.warning(
            "%s was written by a newer orchestrator-lab (schema %s, this is %s); what this version "
            "does not know is left out",
            file,
            manifest["schema_version"],
            SCHEMA_VERSION,
        )
    return manifest


def _is_live(run_id: str) -> bool:
    """Return whether a cluster of this user, on this machine, is recording the run."""
    try:
        from orchestrator_lab import runtime

        return any(
            record.run_id == run_id and runtime.is_locked(runtime.cluster_dir(record.name))
            for record in runtime.list_clusters()
        )
    except (OrchestratorLabError, OSError) as error:
        logger.debug("cannot tell whether %s is running: %s", run_id, error)
        return False


def _json(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
