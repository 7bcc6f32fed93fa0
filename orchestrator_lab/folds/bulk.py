"""Fold a long journal without a Python loop over its events: plain stories by Arrow and NumPy.

Nearly all messages and turns have a plain story: each thing happened once, in its order. Those become columns
at once. All others (a second claim, late evidence, an outcome without delivery) are left to the folds
that take one event at a time, so there is one place that says what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.folds.messages import RUNGS, MessageFold
from orchestrator_lab.folds.turns import TOKENS, TurnFold
from orchestrator_lab.journal.blocks import Wanted, read_blocks, read_envelopes, read_lines
from orchestrator_lab.journal.event import Event
from orchestrator_lab.journal.origins import Recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from orchestrator_lab.folds.growing import GrowingTable

    Ints = np.ndarray[Any, Any]

__all__ = ["Bulk", "event_bulks", "load_bulk"]


@dataclass(frozen=True, slots=True)
class Bulk:
    """What a journal says of one table, up to some line.

    Parameters
    ----------
    columns : dict of str to array
        Rows with a plain story: the fold's own columns and hidden ones, as Arrow or NumPy arrays; instants are in
        microseconds since 1970, with NumPy's NaT.
    places : numpy.ndarray
        int64, rising: the line that opened each row.
    odd : list of (int, Event)
        The events of all other rows, with their lines.
    lines : int
        Lines that were read.
    known : list of (int, Event)
        Events whose rows are among the columns, and which what comes later depends on.
    """

    columns: dict[str, Any]
    places: Ints
    odd: list[tuple[int, Event]]
    lines: int
    known: list[tuple[int, Event]] = field(default_factory=list)


# what all have in common ------------------------------------------------------------------------------------------


class _Journal:
    """The wanted events of a journal, one table for each kind of them."""

    def __init__(self, path: Path, wanted: Sequence[Wanted], end: int) -> None:
        import numpy as np
        import pyarrow as pa

        self.path, self.blocks = path, list(read_blocks(path, wanted, begin=0, end=end))
        counts = np.array([block.lines for block in self.blocks], np.int64)
        #: The line with which each block begins.
        self.firsts = np.concatenate([[0], np.cumsum(counts)])
        #: Events of blocks that Arrow could not read.
        self.strange: list[tuple[int, Event]] = []
        tables: list[list[pa.Table]] = [[] for _ in wanted]
        for first, block in zip(self.firsts.tolist(), self.blocks, strict=False):
            self.strange += [(first + line, event) for line, event in block.events]
            for found, table in zip(tables, block.tables, strict=False):
                lines = pa.array(table.column("line").to_numpy() + first)
                found.append(table.set_column(0, "line", lines))
            block.tables.clear()
        #: One for each kind; without any when Arrow could read no block.
        self.tables: list[pa.Table] = [pa.concat_tables(found) for found in tables if found]

    @property
    def lines(self) -> int:
        return int(self.firsts[-1])

    def events(self, lines: Ints) -> list[tuple[int, Event]]:
        """Return the events of some lines, in their order."""
        import numpy as np

        lines = np.unique(lines)
        found: list[tuple[int, Event]] = []
        owners = np.searchsorted(self.firsts, lines, "right") - 1
        for owner in np.unique(owners).tolist():
            first, block = int(self.firsts[owner]), self.blocks[owner]
            wanted = (lines[owners == owner] - first).tolist()
            found += [(first + line, event) for line, event in read_lines(self.path, block, wanted)]
        return found


class _Keys:
    """Ids as numbers, in the order in which they appear in tables one behind the other."""

    def __init__(self, columns: Sequence[pa.ChunkedArray]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        together = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
        encoded = together.dictionary_encode().combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0)
        self.names = encoded.dictionary
        codes = pc.fill_null(encoded.indices, -1).to_numpy()
        self.codes: list[Ints] = []
        begin = 0
        for column in columns:
            self.codes.append(codes[begin : begin + len(column)])
            begin += len(column)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, ids: Iterable[str | None]) -> Ints:
        """Return the numbers of ids that are known."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array([one for one in dict.fromkeys(ids) if isinstance(one, str)], pa.string())
        known: Ints = pc.index_in(wanted, value_set=self.names).drop_null().to_numpy()
        return known


def _once(codes: Ints, count: int) -> tuple[Ints, Ints]:
    """Return in which row each id stands (-1 for none), and whether it stands in several."""
    import numpy as np

    rows = np.full(count, -1, np.int64)
    known = codes >= 0
    rows[codes[known]] = np.flatnonzero(known)
    return rows, np.bincount(codes[known], minlength=count) > 1


def _picked(values: pa.ChunkedArray | pa.Array, rows: Ints) -> Any:  # noqa: ANN401 - an array of text
    """Return the values of some rows; NA for -1."""
    import numpy as np
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray) and len(rows) == len(values) and np.array_equal(rows, np.arange(len(rows))):
        return values
    return values.take(pa.array(rows, mask=rows < 0))


def _at(values: Ints, rows: Ints, missing: Any) -> Ints:  # noqa: ANN401 - of the values' type
    """Return the values of some rows; ``missing`` for -1."""
    import numpy as np

    return np.where(rows >= 0, values[rows], missing) if len(values) else np.full(len(rows), missing)


def _floats(values: Ints, rows: Ints) -> Ints:
    return _at(values, rows, float("nan"))


def _instants(values: Ints, rows: Ints) -> Ints:
    import numpy as np

    return _at(values, rows, np.datetime64("NaT", "us"))


def _clock(table: pa.Table) -> tuple[Ints, Ints, Ints]:
    """Return the lines, instants and clock readings of a table."""
    import numpy as np

    at = table.column("at").to_numpy().astype("datetime64[us]")
    return table.column("line").to_numpy(), at, np.asarray(table.column("monotonic_s").to_numpy())


def _spans(starts: Ints, ends: Ints) -> Ints:
    import numpy as np

    return np.round(ends - starts, 6)


def _or_else(first: Any, second: Any) -> Any:  # noqa: ANN401 - arrays of text
    """Return the first text where there is one that is not empty, as ``a or b`` does."""
    import pyarrow.compute as pc

    return pc.if_else(pc.fill_null(pc.greater(pc.utf8_length(first), 0), fill_value=False), first, second)


# messages ---------------------------------------------------------------------------------------------------------

_QUEUED = ("conversation_id", "in_reply_to", "sender", "recipient", "kind", "source", "content", "content_sha256")


def _messages(path: Path, end: int) -> Bulk | None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.large_string()
    outcomes = tuple(name for name in MessageFold().handlers if name.split(".")[1] not in RUNGS)
    journal = _Journal(
        path,
        [
            Wanted(
                ("message.queued",),
                ("agent", "message_id", "source"),
                {**dict.fromkeys(_QUEUED, text), "hop": pa.int64()},
            ),
            Wanted(tuple(f"message.{rung}" for rung in RUNGS[1:]), ("message_id", "turn_id", "source")),
            Wanted(outcomes, ("message_id",)),
        ],
        end,
    )
    if not journal.tables:
        return None
    queued, rungs, _ = journal.tables
    keys = _Keys([table.column("message_id") for table in journal.tables])
    n = len(keys)
    queued_codes, rung_codes, end_codes = keys.codes
    odd = np.zeros(n, bool)
    odd[end_codes[end_codes >= 0]] = True
    odd[keys.of(event.message_id for _, event in journal.strange)] = True
    queued_row, twice = _once(queued_codes, n)
    odd |= twice | (queued_row < 0)
    queued_line, queued_at, queued_s = _clock(queued)
    line, at, clock = _clock(rungs)
    code = rungs.column("code").to_numpy()
    rows: dict[str, Ints] = {"queued": queued_row}
    before = _at(queued_line, queued_row, -1)
    for number, rung in enumerate(RUNGS[1:]):
        mine = np.flatnonzero(code == number)
        within, twice = _once(rung_codes[mine], n)
        row = rows[rung] = _at(mine, within, -1)
        reached = row >= 0
        its = _at(line, row, -1)
        odd |= twice | (reached & (its < before))
        before = np.where(reached, its, before)
    # The order of the table is that of the first event of each.
    plain = np.flatnonzero(~odd)
    first = queued_line[queued_row[plain]]
    plain = plain[np.argsort(first, kind="stable")]
    strange = [*journal.strange]
    lost = [np.flatnonzero(np.isin(codes, np.flatnonzero(odd)) | (codes < 0)) for codes in keys.codes]
    lines = np.concatenate(
        [table.column("line").to_numpy()[rows_] for table, rows_ in zip(journal.tables, lost, strict=True)]
    )
    strange += journal.events(lines)
    strange.sort(key=lambda one: one[0])

    own = queued_row[plain]
    columns: dict[str, Any] = {
        "seq": _picked(queued.column("seq"), own),
        "message_id": _picked(queued.column("message_id"), own),
        "hop": _picked(queued.column("attributes.hop"), own),
    }
    said = {name: _picked(queued.column(f"attributes.{name}"), own) for name in _QUEUED}
    columns |= {name: said[name] for name in _QUEUED if name not in {"recipient", "source"}}
    columns["recipient"] = _or_else(said["recipient"], _picked(queued.column("agent"), own).cast(text))
    columns["source"] = _or_else(_picked(queued.column("source"), own).cast(text), said["source"])
    columns["queued_at"], columns["_queued_s"] = queued_at[own], queued_s[own]
    rank = np.zeros(len(plain), np.int8)
    turn = np.full(len(plain), -1, np.int64)
    turns = rungs.column("turn_id")
    told = turns.is_valid().to_numpy() if len(turns) else np.zeros(0, bool)
    for number, rung in enumerate(RUNGS[1:], 1):
        row = rows[rung][plain]
        columns[f"{rung}_at"] = _instants(at, row)
        if rung in {"claimed", "accepted", "answered"}:
            columns[f"_{rung}_s"] = _floats(clock, row)
        if rung == "accepted":
            columns["acceptance_source"] = _picked(rungs.column("source"), row)
        rank[row >= 0] = number
        if len(told):
            turn = np.where(_at(told, row, missing=False), row, turn)
    columns["turn_id"] = _picked(turns, turn)
    columns["_rank"] = rank
    columns["status"] = pc.take(pa.array(RUNGS), pa.array(rank))
    for name, (start, stop) in MessageFold.durations.items():
        columns[name] = _spans(columns[start], columns[stop])
    return Bulk(columns, queued_line[own], strange, journal.lines)


# turns ------------------------------------------------------------------------------------------------------------

_CHANGES = ("files_changed", "lines_added", "lines_removed")


def _turns(path: Path, end: int) -> Bulk | None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    text, count, about = pa.large_string(), pa.int64(), ("agent", "turn_id")
    kinds = {
        "turn.started": Wanted(("turn.started",), about, {"message_ids": pa.list_(pa.string())}),
        "turn.first_output": Wanted(("turn.first_output",), about),
        "turn.ended": Wanted(("turn.ended",), about, {"reply": text, "end_reason": text}),
        "turn.usage": Wanted(
            ("turn.usage",),
            about,
            {**dict.fromkeys(TOKENS, count), "cost_usd": pa.float64(), "model": text, "final": pa.bool_()},
        ),
        "tool.started": Wanted(("tool.started",), about),
        "turn.changes": Wanted(
            ("turn.changes",),
            about,
            {
                **dict.fromkeys(_CHANGES, count),
                "patch": text,
                "shared_with": pa.list_(pa.string()),
                "error": pa.string(),
            },
        ),
        "message.accepted": Wanted(("message.accepted",), ("turn_id",)),
        "recording.started": Wanted(("recording.started",), ("agent",), {"path": text, "started_at": pa.string()}),
    }
    journal = _Journal(path, list(kinds.values()), end)
    if not journal.tables:
        return None
    tables: dict[str, pa.Table] = dict(zip(kinds, journal.tables, strict=True))
    recordings = tables.pop("recording.started")
    keys = _Keys([table.column("turn_id") for table in tables.values()])
    codes = dict(zip(tables, keys.codes, strict=True))
    clocks = {name: _clock(table) for name, table in tables.items()}
    n = len(keys)
    odd = np.zeros(n, bool)
    odd[keys.of(event.turn_id for _, event in journal.strange)] = True
    rows: dict[str, Ints] = {}
    for name in ("turn.started", "turn.first_output", "turn.ended", "turn.usage", "turn.changes"):
        rows[name], twice = _once(codes[name], n)
        odd |= twice
    begun = rows["turn.started"]
    first = _at(clocks["turn.started"][0], begun, -1)
    # An id that only a message has is no turn.
    spoken = np.zeros(n, bool)
    for name in tables:
        mine = codes[name]
        known = mine >= 0
        if name != "message.accepted":
            spoken[mine[known]] = True
        # Before its start, or a message that joined it: not plain.
        early = clocks[name][0] < first[mine]
        wrong = known & ((first[mine] >= 0) & ~early if name == "message.accepted" else early)
        odd[mine[wrong]] = True
    odd |= spoken & (begun < 0)
    plain = np.flatnonzero(~odd & spoken)
    plain = plain[np.argsort(first[plain], kind="stable")]

    lost = np.flatnonzero(odd)
    lines = [table.column("line").to_numpy()[np.isin(codes[name], lost)] for name, table in tables.items()]
    origins = journal.events(recordings.column("line").to_numpy())
    # What comes later needs them too.
    strange = sorted([*journal.strange, *origins, *journal.events(np.concatenate(lines))], key=lambda one: one[0])
    origins = sorted(
        [*origins, *(one for one in journal.strange if one[1].event == "recording.started")], key=lambda one: one[0]
    )

    started, own = tables["turn.started"], begun[plain]
    columns: dict[str, Any] = {
        "seq": _picked(started.column("seq"), own),
        "turn_id": _picked(started.column("turn_id"), own),
        "agent": _picked(started.column("agent"), own),
        "message_ids": _picked(_as_json(started.column("attributes.message_ids")), own),
        "started_at": _instants(clocks["turn.started"][1], own),
        "_started_s": _floats(clocks["turn.started"][2], own),
    }
    for name, at, clock in (
        ("turn.first_output", "first_output_at", "_first_s"),
        ("turn.ended", "ended_at", "_ended_s"),
    ):
        row = rows[name][plain]
        columns[at], columns[clock] = _instants(clocks[name][1], row), _floats(clocks[name][2], row)
    for event, names in (("turn.ended", ("reply", "end_reason")), ("turn.usage", (*TOKENS, "model", "final"))):
        for name in names:
            kept = "_final" if name == "final" else name
            columns[kept] = _picked(tables[event].column(f"attributes.{name}"), rows[event][plain])
    usage = rows["turn.usage"][plain]
    cost = _picked(tables["turn.usage"].column("attributes.cost_usd"), usage)
    columns["cost_usd"] = pc.if_else(pc.greater_equal(cost, 0), cost, None)
    columns["tokens_source"] = pc.if_else(pa.array(usage >= 0), "reported", None)
    changes = tables["turn.changes"]
    told = changes.column("attributes.error").is_null().to_numpy() if len(changes) else np.zeros(0, bool)
    row = rows["turn.changes"][plain]
    row = np.where(_at(told, row, missing=False), row, -1)
    for name in (*_CHANGES, "patch"):
        columns[name] = _picked(changes.column(f"attributes.{name}"), row)
    shared = pc.fill_null(
        pc.greater(pc.list_value_length(changes.column("attributes.shared_with")), 0), fill_value=False
    )
    columns["changes_shared"] = _picked(shared, row)
    columns["tool_call_count"] = np.bincount(codes["tool.started"][codes["tool.started"] >= 0], minlength=n)[plain]
    columns["cast_offset_s"] = _offsets(origins, columns["agent"], first[plain], columns["_started_s"])
    for name, (start, stop) in TurnFold.durations.items():
        columns[name] = _spans(columns[start], columns[stop])
    return Bulk(columns, first[plain], strange, journal.lines)


def _as_json(lists: pa.ChunkedArray) -> pa.Array:
    """Return lists of ids as JSON texts."""
    import json

    import pyarrow as pa
    import pyarrow.compute as pc

    def one(chunk: pa.Array) -> pa.Array:
        flat = pc.list_flatten(chunk)
        quiet = pc.all(pc.match_substring_regex(flat, r"^[0-9A-Za-z_.:-]*$")).as_py() is not False
        if (
            quiet
            and not flat.null_count
            and pc.all(pc.equal(pc.list_value_length(chunk), 1)).as_py()
            and not chunk.null_count
        ):
            return pc.binary_join_element_wise('["', flat, '"]', "")
        return pa.array(
            [
                None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
                for value in chunk.to_pylist()
            ],
            pa.string(),
        )

    return pa.chunked_array([one(chunk) for chunk in lists.chunks], pa.string())


def _offsets(origins: Sequence[tuple[int, Event]], agents: Any, lines: Ints, clock: Ints) -> Ints:  # noqa: ANN401
    """Return where each turn begins in its agent's recording, in seconds."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    offsets = np.full(len(lines), np.nan)
    encoded = agents.dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    codes = pc.fill_null(encoded.indices, -1).to_numpy()
    names = encoded.dictionary.to_pylist()
    recordings = Recordings()
    for line, event in origins:
        recordings.started(event)
        origin = recordings.origin(event.agent)
        if origin is None or event.agent not in names:
            continue
        mine = (codes == names.index(event.agent)) & (lines > line)
        offsets[mine] = np.where(clock[mine] >= origin, np.round(clock[mine] - origin, 6), np.nan)
    return offsets


# events -----------------------------------------------------------------------------------------------------------

_ENVELOPE = ("seq", "event", "agent", "message_id", "turn_id", "source", "level", "attributes")


def event_bulks(path: Path, end: int, *, lines: int | None = None) -> Iterator[Bulk]:
    """Yield a journal's events in columns, piece by piece.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``.
    end : int
        Byte offset behind the last line to read.
    lines : int, optional
        So many lines make a piece, at least; all of them when omitted.

    Yields
    ------
    Bulk
        Places and lines count from the first line of the journal. The same pieces each time.
    """
    import pyarrow as pa

    tables: list[pa.Table] = []
    odd: list[tuple[int, Event]] = []
    known: list[tuple[int, Event]] = []
    done = first = 0
    for block in read_envelopes(path, begin=0, end=end):
        odd += [(first + line, event) for line, event in block.events]
        for table in block.tables:
            numbers = pa.array(table.column("line").to_numpy() + first)
            tables.append(table.set_column(0, "line", numbers))
            known += _started(table, first)
        first += block.lines
        if lines is not None and first - done >= lines:
            yield _event_bulk(tables, odd, known, first)
            known += [one for one in odd if one[1].event == "recording.started"]
            done, tables, odd = first, [], []
    if tables or odd or done == 0:
        yield _event_bulk(tables, odd, known, first)


def _event_bulk(
    tables: list[pa.Table], odd: list[tuple[int, Event]], known: list[tuple[int, Event]], lines: int
) -> Bulk:
    import numpy as np
    import pyarrow as pa

    if not tables:
        return Bulk({}, np.empty(0, np.int64), odd, lines, list(known))
    rows = pa.concat_tables(tables)
    line, at, clock = _clock(rows)
    columns: dict[str, Any] = {name: rows.column(name) for name in _ENVELOPE}
    columns |= {"at": at, "monotonic_s": clock}
    begun = sorted([*known, *(one for one in odd if one[1].event == "recording.started")], key=lambda one: one[0])
    columns["cast_offset_s"] = _offsets(begun, columns["agent"], line + 1, clock)
    return Bulk(columns, np.asarray(line), odd, lines, list(known))


def _events(path: Path, end: int) -> Bulk | None:
    return next(event_bulks(path, end))


def _started(table: pa.Table, first: int) -> list[tuple[int, Event]]:
    """Return the starts of recordings in a table."""
    import json

    import pyarrow.compute as pc

    begun = table.filter(pc.equal(table.column("event"), "recording.started"))
    return [
        (
            first + row["line"],
            Event(
                row["seq"],
                row["event"],
                row["at"].isoformat(timespec="microseconds").replace("+00:00", "Z"),
                row["monotonic_s"],
                row["agent"],
                attributes=json.loads(row["attributes"]),
            ),
        )
        for row in begun.to_pylist()
    ]


_BULK: dict[str, Callable[[Path, int], Bulk | None]] = {"messages": _messages, "turns": _turns, "events": _events}


def load_bulk(growing: GrowingTable, journal: Path, end: int) -> bool:
    """Load a table from the first line of a long journal on, at once.

    Parameters
    ----------
    growing : GrowingTable
        The table.
    journal : pathlib.Path
        The ``journal.jsonl``.
    end : int
        Byte offset behind the last line to read.

    Returns
    -------
    bool
        False when that is not possible: then its events are to be taken one by one.
    """
    make = _BULK.get(growing.fold.table)
    if make is None or not growing.is_fresh:
        return False
    bulk = make(journal, end)
    if bulk is None:
        return False
    growing.load(bulk)
    return True
