"""The tables of one run: its journal folded, as far as it has come, or its Parquet files where it is sealed."""

from __future__ import annotations

import glob
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle import is_bundle
from orchestrator_lab.costs import price_table
from orchestrator_lab.errors import JournalError, OrchestratorLabError, RunNotFound
from orchestrator_lab.folds import EventFold, Fold, GrowingTable, RunFold, event_bulks, load_bulk, make_folds
from orchestrator_lab.folds.base import MALFORMED, warn_malformed
from orchestrator_lab.journal.blocks import line_end, read_some
from orchestrator_lab.journal.reader import JournalReader, without_gc
from orchestrator_lab.mirrors import present
from orchestrator_lab.schema import SCHEMA_VERSION, TABLES, build_frame, columns_of
from orchestrator_lab.sealing import open_seal, read_sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from orchestrator_lab.choosing import Choice
    from orchestrator_lab.importing import Conversation
    from orchestrator_lab.importing.conversation import ConversationReader
    from orchestrator_lab.journal.event import Event

__all__ = ["JOURNAL", "MANIFEST", "RunTables", "attributed", "find_runs", "is_run", "touched_tables"]

logger = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"
MANIFEST = "manifest.json"

#: Bytes of journal from which on each table is read by itself, and by Arrow: less is decoded once for all of them.
_LONG = 4 << 20
#: What a run's own row counts and adds up.
_OF_RUNS = frozenset({"agents", "messages", "turns"})
#: Events that are held at a time when those of a long journal are sealed.
_PIECE = 1 << 18


class RunTables:
    """The tables of one run, folded from its journal as far as it has come.

    Parameters
    ----------
    path : path-like or None
        The run's folder, or its bundle; None for events that come another way, see :meth:`from_events`.
    run_id : str, optional
        The run of such events.
    manifest : dict, optional
        The manifest of such a run, or what is taken instead of the folder's own.

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
            if is_bundle(self.path):
                from orchestrator_lab.bundle.opening import open_bundle

                self.path = open_bundle(self.path).folder
            if not is_run(self.path):
                raise RunNotFound(
                    f"{self.path} is no run: expected a folder with {MANIFEST} or {JOURNAL}, such "
                    "as runs/run_…; `orchestrator-lab runs` lists those there are",
                    path=str(self.path),
                )
            self.manifest = _read_manifest(self.path) if manifest is None else manifest
            run_id = str(self.manifest.get("run_id") or self.path.resolve().name)
        self.run_id = run_id or ""
        self.source = self.run_id if path is None else str(path)
        #: How the record of a conversation that the lab did not start was read; None for a run of the lab.
        self.imported: dict[str, Any] | None = None
        self._journal = None if self.path is None else self.path / JOURNAL
        self._conversation: ConversationReader | None = None
        self._run, self._run_offset = RunFold(), 0
        self._tables = {name: GrowingTable(fold, self.run_id) for name, fold in (*make_folds().items(), _events())}
        if self._journal is None:
            for table in self._tables.values():
                table.keep_plain()

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
        tables._conversation = conversation.reader()
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

    @property
    def is_long(self) -> bool:
        """Whether the journal is so long that its tables are better kept than made again."""
        try:
            return self._journal is not None and self._journal.stat().st_size >= _LONG
        except OSError:
            return False

    def feed(self, events: Iterable[Event]) -> None:
        """Take events that do not come from the journal's file.

        Parameters
        ----------
        events : iterable of Event
            Those that follow the ones taken before.
        """
        known = list(events)
        for table in self._tables.values():
            table.take(known)
        self._count(known)

    def refresh(self) -> int:
        """Read what the journal has gained since the last call.

        Returns
        -------
        int
            Number of events that were new.
        """
        before = self._run.event_count
        self._advance("runs")
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
            With all rows; not to be changed.
        """
        growing = self._tables[table]
        if not growing.is_plain:  # some of its rows are in arrays: from the first line on once more
            growing = self._tables[table] = GrowingTable(growing.fold.fresh(), self.run_id)
        growing.keep_plain()
        self._advance(table)
        return growing.fold

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
        return "running" if self.path is not None and _is_live(self.path, self.run_id) else None

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
        self._advance(table)
        return self._tables[table].columns()

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
            return attributed(build_frame(table, self.columns(table)), [self])
        self._advance(table)
        return attributed(self._tables[table].frame().copy(deep=False), [self])

    def pieces(self, table: str) -> Iterator[pd.DataFrame]:
        """Yield a table in frames one behind the other: a long journal's events are more than memory should hold.

        Parameters
        ----------
        table : str
            Any table of the schema.

        Yields
        ------
        pandas.DataFrame
            One at least; the same each time, while the journal does not grow.
        """
        if table != "events" or self._journal is None or not self.is_long:
            yield self.frame(table)
            return
        for bulk in event_bulks(self._journal, line_end(self._journal), lines=_PIECE):
            growing = GrowingTable(EventFold(), self.run_id)
            growing.load(bulk)
            yield growing.frame()

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
        if self.path is None or self._offset(table):
            return None
        seal = open_seal(self.path)
        frame = None if seal is None else read_sealed(seal, table, columns=columns, filters=filters)
        return None if frame is None else attributed(frame, [self])

    def _run_row(self) -> dict[str, Any]:
        manifest = self.manifest
        versions, git = _object(manifest.get("versions")), _object(_object(manifest.get("git")).get("work_dir"))
        for table in sorted(_OF_RUNS):
            self._advance(table)
        turns = self._tables["turns"]
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
        row["agent_count"] = len(set(self._tables["agents"].fold.cells("name")))
        row["message_count"] = len(self._tables["messages"])
        row["event_count"] = self._run.event_count
        for name in ("input_tokens", "output_tokens"):
            row[name] = turns.total(name)
        cost = turns.total("cost_usd")
        row["cost_usd"] = None if cost is None else round(cost, 12)
        return row

    # the journal ----------------------------------------------------------------------------------------------

    def _offset(self, table: str) -> int:
        return self._run_offset if table == "runs" else self._tables[table].offset

    def _advance(self, table: str) -> None:
        """Read what a table has not seen yet; of a short journal, for all tables that are as far as it."""
        if self._conversation is not None:
            with without_gc():
                for events in self._conversation.batches():
                    self.feed(events)
            return
        if self._journal is None:
            return
        try:
            waiting = present(self._journal).stat().st_size - self._offset(table)
            if waiting >= _LONG:
                with without_gc():
                    self._read_long(self._journal, table)
        except FileNotFoundError:
            pass  # whoever reads on tells
        except OSError as error:
            raise JournalError(
                f"{self._journal}: the journal cannot be read ({error.strerror}); give the journal.jsonl of a run "
                "folder",
                path=str(self._journal),
            ) from error
        self._read_on(self._journal, table)

    def _read_on(self, journal: Path, table: str) -> None:
        offset = self._offset(table)
        reader = JournalReader(journal, offset=offset)
        # The events table is a copy of the journal in memory: read only once it is asked for.
        together = [
            growing
            for name, growing in self._tables.items()
            if growing.offset == offset and (name == table or name != "events" or offset)
        ]
        count = self._run_offset == offset
        with without_gc():
            for events in reader.batches():
                for growing in together:
                    growing.take(events)
                if count:
                    self._count(events)
        for growing in together:
            growing.offset = reader.offset
        if count:
            self._run_offset = reader.offset

    def _read_long(self, journal: Path, table: str) -> None:
        end = line_end(journal)
        if table == "runs":
            for lines, events in read_some(journal, self._run.handlers, begin=self._run_offset, end=end):
                self._count(events, lines)
            self._run_offset = end
            return
        growing = self._tables[table]
        if not load_bulk(growing, journal, end):
            if not growing.fold.handlers:
                return  # all events are wanted
            fold = growing.fold
            for _, events in read_some(journal, fold.handlers, begin=growing.offset, end=end, reads=fold.reads):
                growing.take(events)
        growing.offset = end

    def _count(self, events: Sequence[Event], lines: int | None = None) -> None:
        """Take what events say of the run as a whole."""
        for event in events:
            handler = self._run.handlers.get(event.event)
            if handler is not None:
                try:
                    handler(event)
                except MALFORMED as error:
                    warn_malformed(event, error)
        self._run.event_count += len(events) if lines is None else lines


def touched_tables(events: Iterable[str | None]) -> set[str]:
    """Return the tables that may be others when some events are.

    Parameters
    ----------
    events : iterable of (str or None)
        Names of events; None for a line that is none.

    Returns
    -------
    set of str
        Names of tables; empty without events.

    Examples
    --------
    >>> sorted(touched_tables(["alert.opened"]))
    ['alerts', 'events']
    """
    changed = set(events)
    if not changed:
        return set()
    if None in changed:
        return set(TABLES)
    touched = {"events"} | {name for name, fold in make_folds().items() if changed & fold.handlers.keys()}
    if changed & RunFold().handlers.keys() or touched & _OF_RUNS:
        touched.add("runs")
    return touched


def _events() -> tuple[str, Fold]:
    return "events", EventFold()


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
    try:
        return _holds_run(path)
    except OSError:
        return False


def _holds_run(path: Path) -> bool:
    return (path / MANIFEST).is_file() or (path / JOURNAL).is_file()


def find_runs(path: str | os.PathLike[str]) -> list[Path]:
    """Return the run folders that a path or glob means, oldest first.

    Parameters
    ----------
    path : path-like
        A run, its journal or manifest, a bundle, a folder of runs, or a glob of any of these; bundles are meant by
        globs that end in ``.zip``.

    Returns
    -------
    list of pathlib.Path
        Empty for a folder without runs.

    Raises
    ------
    RunNotFound
        When there is nothing at this path, or it cannot be read. One run of several that cannot be read is warned of,
        and left out.
    """
    # Not Path.expanduser(), which raises where there is no such user.
    text = os.path.expanduser(path)  # noqa: PTH111
    try:
        return _find_runs(text)
    except OSError as error:
        raise RunNotFound(
            f"{text[:200]} cannot be read as a run ({error.strerror}): expected a run folder, a folder of runs or a "
            "glob, which you may read",
            path=text,
        ) from error


def _find_runs(text: str) -> list[Path]:
    place = Path(text)
    if not place.exists():
        if glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - takes a full path
            if not text.lower().endswith(".zip"):
                # A bundle beside the folder that it was made of is the same run once more.
                matches = [match for match in matches if not is_bundle(match)]
            found = [run for match in matches for run in find_runs(match)]
            return list(dict.fromkeys(found))
        raise RunNotFound(
            f"there is no run at {text}: expected a run folder, a folder of runs or a glob",
            path=text,
        )
    if is_bundle(place):
        return [place]
    if place.is_file():
        return [place.parent] if place.name in {JOURNAL, MANIFEST} else []
    if _holds_run(place):
        return [place]
    found = []
    for child in sorted(place.iterdir()):
        try:
            if _holds_run(child):
                found.append(child)
        except OSError as error:
            logger.warning("%s cannot be read (%s) and was left out", child, error.strerror)
    return found


def attributed(frame: pd.DataFrame, runs: Sequence[RunTables]) -> pd.DataFrame:
    """Say in a frame's ``.attrs`` what it was made of.

    Parameters
    ----------
    frame : pandas.DataFrame
        A table; its ``.attrs`` are replaced.
    runs : sequence of RunTables
        Whose rows it has.

    Returns
    -------
    pandas.DataFrame
        The same.
    """
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
        reason = error.strerror if isinstance(error, OSError) else error
        raise JournalError(
            f"{file}: the manifest cannot be read ({reason}); it is one JSON object, so restore it "
            "or move it away to read the journal alone",
            path=str(file),
        ) from error
    if not isinstance(manifest, dict):
        raise JournalError(
            f"{file}: the manifest is a {type(manifest).__name__}, not a JSON object; restore it "
            "or move it away to read the journal alone",
            path=str(file),
        )
    version = manifest.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        logger.warning(
            "%s was written by a newer orchestrator-lab (schema %s, this is %s); what this version "
            "does not know is left out",
            file,
            version,
            SCHEMA_VERSION,
        )
    return manifest


def _is_live(path: Path, run_id: str) -> bool:
    """Return whether a cluster of this user, on this machine, is recording the run there; a copy of it is not."""
    try:
        from orchestrator_lab import runtime

        return any(
            record.run_id == run_id
            and Path(record.run_dir).resolve() == path.resolve()
            and runtime.is_locked(runtime.cluster_dir(record.name))
            for record in runtime.list_clusters()
        )
    except (OrchestratorLabError, OSError) as error:
        logger.debug("cannot tell whether %s is running: %s", run_id, error)
        return False


def _object(value: object) -> dict[str, Any]:
    """Return an object of the manifest; an empty one where something else stands."""
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
