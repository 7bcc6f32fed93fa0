"""Read a long journal by Arrow: only the events that are wanted, in columns, on all cores.

A line of the journal begins with its number and its event, so what it is about is seen without
decoding it. What Arrow's JSON reader cannot take (a damaged line, an attribute of another type
than it should be, half a surrogate pair) is read line by line as :mod:`~orchestrator_lab.journal.reader`
does, block by block, so that nothing is lost.
"""

from __future__ import annotations

import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator_lab.journal.event import Event
from orchestrator_lab.journal.reader import parse_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    import pyarrow as pa

_Read = TypeVar("_Read")

__all__ = ["Block", "Wanted", "line_end", "read_blocks", "read_envelopes", "read_lines", "read_some"]

#: Bytes that one thread takes at a time: large enough for Arrow, small enough for the caches.
_SIZE = 2 << 20
#: A line's number and event are within its first bytes.
_HEAD = 64
#: Blocks that are read ahead of whoever takes them.
_AHEAD = 16
_BEGIN = rb'^\{"seq":\d+,"event":"(?P<event>[^"\\]*)"'
_TAIL = 1 << 16
_REQUIRED = ("seq", "event", "at", "monotonic_s")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Events of some kinds, and what is read of them.

    Parameters
    ----------
    names : tuple of str
        The events; the code of one is its place here.
    texts : tuple of str
        Which of ``agent``, ``message_id``, ``turn_id`` and ``source`` are wanted.
    attributes : mapping of str to pyarrow.DataType
        The attributes wanted. What is not here costs nothing.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """The wanted events of some megabytes of a journal.

    Parameters
    ----------
    begin, end : int
        Byte offsets of its first line and behind its last.
    lines : int
        Lines that it has, wanted or not.
    tables : list of pyarrow.Table
        One for each :class:`Wanted`: ``line`` (int64, from 0 in this block), ``code`` (int8), ``seq``, ``at``,
        ``monotonic_s``, the texts and the attributes.
    events : list of (int, Event)
        Instead of those, with their lines: of a block that Arrow could not read.
    """

    begin: int
    end: int
    lines: int
    tables: list[pa.Table] = field(default_factory=list)
    events: list[tuple[int, Event]] = field(default_factory=list)


def line_end(path: Path) -> int:
    """Return where the last complete line of a journal ends.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``.

    Returns
    -------
    int
        Byte offset behind its newline; 0 when there is none.
    """
    with path.open("rb") as file:
        stop = file.seek(0, os.SEEK_END)
        while stop > 0:
            start = max(0, stop - _TAIL)
            file.seek(start)
            found = file.read(stop - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            stop = start
    return 0


def read_blocks(path: Path, wanted: Sequence[Wanted], *, begin: int, end: int) -> Iterator[Block]:
    """Yield the wanted events between two lines, in the order of the journal.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``.
    wanted : sequence of Wanted
        Which events; those of one are decoded together.
    begin, end : int
        Byte offsets at which lines begin and end.

    Yields
    ------
    Block
        Read on as many threads as there are cores.

    Raises
    ------
    OSError
        When the file cannot be read.
    """
    return _read(path, begin, end, lambda place, data: _block(place, data, wanted, path))


def read_lines(path: Path, block: Block, numbers: Iterable[int]) -> list[tuple[int, Event]]:
    """Return the events of some lines of a block.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``.
    block : Block
        Of this journal.
    numbers : iterable of int
        Lines, from 0.

    Returns
    -------
    list of (int, Event)
        In their order.
    """
    with path.open("rb") as file:
        file.seek(block.begin)
        lines = file.read(block.end - block.begin).split(b"\n")
    return [(number, Event.from_json(lines[number])) for number in sorted(numbers)]


def read_envelopes(path: Path, *, begin: int, end: int) -> Iterator[Block]:
    """Yield all events between two lines with their attributes as JSON text, in the order of the journal.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``.
    begin, end : int
        Byte offsets at which lines begin and end.

    Yields
    ------
    Block
        One table, with ``line``, ``event``, ``level`` and ``attributes`` (text) instead of ``code``.

    Raises
    ------
    OSError
        When the file cannot be read.
    """
    return _read(path, begin, end, lambda place, data: _block(place, data, None, path))


def read_some(
    path: Path,
    names: Iterable[str],
    *,
    begin: int,
    end: int,
    reads: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[tuple[int, list[Event]]]:
    """Yield the events of some kinds, without decoding the others.

    Parameters
    ----------
    path : pathlib.Path
        The ``journal.jsonl``.
    names : iterable of str
        Which events.
    begin, end : int
        Byte offsets at which lines begin and end.
    reads : mapping of str to mapping, optional
        Of events that come in great numbers: the attributes that are wanted, and what they are: ``text``, ``count``,
        ``amount`` or ``flag``. Such events have no others.

    Yields
    ------
    tuple of (int, list of Event)
        Of some megabytes: how many events they have, and the wanted ones, in the order of the journal.

    Raises
    ------
    OSError
        When the file cannot be read.
    """
    wanted = frozenset(names)
    light = {name: reads[name] for name in wanted if reads and name in reads}
    return _read(path, begin, end, lambda place, data: _some(data, wanted, light, f"{path}, byte {place}"))


def _some(
    data: bytes, wanted: frozenset[str], light: Mapping[str, Mapping[str, str]], place: str
) -> tuple[int, list[Event]]:
    import numpy as np
    import pyarrow as pa

    found = _split(data)
    if found is not None:
        lines, known = found
        mask = _among(known, wanted - light.keys())
        numbers = np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist()
        events = parse_lines(_text_of(lines.filter(mask)).to_pybytes(), place=place)
        try:
            others = _light(lines, known, light) if light and len(events) == len(numbers) else []
        except pa.ArrowException:
            others = None
        if len(events) == len(numbers) and others is not None:
            if others:
                together = [*zip(numbers, events, strict=True), *others]
                together.sort(key=itemgetter(0))
                events = [event for _, event in together]
            return _whole(lines), events
    events = parse_lines(data, place=place)
    return len(events), [event for event in events if event.event in wanted]


def _light(lines: Any, known: Any, light: Mapping[str, Mapping[str, str]]) -> list[tuple[int, Event]] | None:  # noqa: ANN401
    """Return events with a few of their attributes; None when one of them is not as it should be."""
    import numpy as np
    import pyarrow as pa

    kinds = {"text": pa.string(), "count": pa.int64(), "amount": pa.float64(), "flag": pa.bool_()}
    found: list[tuple[int, Event]] = []
    for name, reads in light.items():
        mask = _among(known, frozenset({name}))
        numbers = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        if not len(numbers):
            continue
        wanted = Wanted((name,), (*_TEXTS, "level"), {one: kinds[kind] for one, kind in reads.items()})
        table = _decoded(_text_of(lines.filter(mask)), wanted, numbers, at=pa.string())
        if table is None:
            return None
        plain = [table.column(column).to_pylist() for column in ("seq", "at", "monotonic_s", *_TEXTS)]
        levels = table.column("level").fill_null("info").to_pylist()
        said = zip(*(table.column(f"attributes.{one}").to_pylist() for one in reads), strict=True)
        attributes = (dict(zip(reads, values, strict=True)) for values in said)
        rows = zip(numbers.tolist(), *plain, levels, attributes, strict=True)
        found += [
            (number, Event(seq, name, at, clock, agent, message_id, turn_id, source, level, facts))
            for number, seq, at, clock, agent, message_id, turn_id, source, level, facts in rows
        ]
    return found


def _read(path: Path, begin: int, end: int, make: Callable[[int, bytes], _Read]) -> Iterator[_Read]:
    """Yield what is made of each piece of a journal and its place, in order, on as many threads as there are cores.

    It is read no further ahead than the threads need: a long journal is never held whole.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def piece(start: int) -> _Read:
        return make(*_piece(handle, start, min(start + _SIZE, end), begin, end))

    waiting: deque[Future[_Read]] = deque()
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1, "journal-blocks") as pool:
            for start in range(begin, end, _SIZE):
                waiting.append(pool.submit(piece, start))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        os.close(handle)


def _piece(handle: int, start: int, stop: int, begin: int, end: int) -> tuple[int, bytes]:
    """Return the lines that begin between two offsets, and where the first does."""
    # A line begins behind a newline: the byte before the piece may be one.
    first = start if start == begin else start - 1
    data = os.pread(handle, stop - first, first)
    skipped = 0 if start == begin else data.find(b"\n") + 1
    if start != begin and skipped in {0, len(data)}:
        return stop, b""
    place = first + len(data)
    pieces = [data]
    while place < end and not pieces[-1].endswith(b"\n"):
        more = os.pread(handle, min(_TAIL, end - place), place)
        if not more:
            break
        found = more.find(b"\n") + 1
        pieces.append(more[:found] if found else more)
        place += len(pieces[-1])
    return first + skipped, b"".join(pieces)[skipped:]


def _block(place: int, data: bytes, wanted: Sequence[Wanted] | None, path: Path) -> Block:
    """Return the wanted events of some lines; all of them where None are named."""
    import pyarrow as pa

    end = place + len(data)
    if not data:
        return Block(place, end, 0)
    try:
        read = _envelopes(data) if wanted is None else _columns(data, wanted)
    except pa.ArrowException:
        read = None
    if read is not None:
        return Block(place, end, *read)
    names = None if wanted is None else {name for one in wanted for name in one.names}
    lines = data.split(b"\n")[:-1]
    events = [
        (number, event)
        for number, line in enumerate(lines)
        if line
        for event in parse_lines(line + b"\n", place=f"{path}, byte {place}, line {number + 1} from there")
        if names is None or event.event in names
    ]
    return Block(place, end, len(lines), events=events)


def _columns(data: bytes, wanted: Sequence[Wanted]) -> tuple[int, list[pa.Table]] | None:
    """Return lines in columns, and their number; None when columns would not tell what the lines say."""
    import numpy as np

    found = _split(data)
    if found is None:
        return None
    lines, names = found
    tables = []
    for one in wanted:
        mask = _among(names, one.names)
        numbers = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        table = _decoded(_text_of(lines.filter(mask)), one, numbers)
        if table is None:
            return None
        tables.append(table)
    return len(lines), tables


_ATTRIBUTES = b',"attributes":'
_TEXTS = ("agent", "message_id", "turn_id", "source")


def _envelopes(data: bytes) -> tuple[int, list[pa.Table]] | None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = _split(data)
    if found is None:
        return None
    lines, names = found
    count = len(lines)
    # Quotes within a text are escaped: these bytes end the envelope, and the attributes end the line.
    halves = pc.split_pattern(lines, _ATTRIBUTES, max_splits=1)
    both = pc.list_value_length(halves).to_numpy() == 2
    flat = halves.flatten()
    # The whole line is decoded, so that what is damaged is seen; its attributes stay the text that they are.
    table = _decoded(_text_of(lines), Wanted((), (*_TEXTS, "level")), np.arange(count, dtype=np.int64), coded=False)
    if table is None:
        return None
    first = np.cumsum(both) - both + np.arange(count)
    attributes = pc.take(flat, pa.array(first + 1, mask=~both))
    if not pc.all(pc.match_substring_regex(attributes, rb"\}\}\n$"), skip_nulls=True).as_py():
        return None
    texts = pc.fill_null(pc.binary_slice(attributes, 0, -2), b"{}").cast(pa.string())
    texts = _unescaped(texts)
    event = pc.take(names.dictionary, names.indices).cast(pa.string())
    level = pc.fill_null(table.column("level"), "info")
    table = table.drop_columns(["level"])
    return count, [table.append_column("event", event).append_column("level", level).append_column("attributes", texts)]


def _unescaped(texts: Any) -> Any:  # noqa: ANN401 - an array of text
    """Return JSON texts as they are written elsewhere: no escapes but those that JSON wants."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    where = np.flatnonzero(pc.match_substring(texts, "\\u").to_numpy(zero_copy_only=False))
    if not len(where):
        return texts
    again = [
        json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()
        for text in pc.take(texts, pa.array(where)).to_pylist()
    ]
    mask = np.zeros(len(texts), bool)
    mask[where] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(again, texts.type))


def _split(data: bytes) -> tuple[Any, Any] | None:
    """Return lines and the names of their events; None when a line does not begin as it should."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends + 1
    lines = pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    found = pc.extract_regex(pc.binary_slice(lines, 0, _HEAD), _BEGIN)
    if found.null_count:
        return None
    return lines, pc.struct_field(found, "event").dictionary_encode()


def _whole(lines: Any) -> int:  # noqa: ANN401 - an array
    """Return how many lines end as an event does."""
    import pyarrow.compute as pc

    return int(pc.sum(pc.equal(pc.binary_slice(lines, -2, None), b"}\n")).as_py() or 0)


def _among(names: Any, wanted: Sequence[str] | frozenset[str]) -> Any:  # noqa: ANN401 - arrays
    """Return which names are wanted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.take(pc.is_in(names.dictionary, value_set=pa.array(sorted(wanted), pa.binary())), names.indices)


def _text_of(chosen: Any) -> Any:  # noqa: ANN401 - a binary array, a buffer
    """Return the lines of an array one behind the other, newlines included."""
    import numpy as np

    _, offsets, data = chosen.buffers()
    places = np.frombuffer(offsets, np.int32)[chosen.offset : chosen.offset + len(chosen) + 1]
    return data.slice(int(places[0]), int(places[-1] - places[0]))


def _decoded(
    text: Any,  # noqa: ANN401 - a buffer
    wanted: Wanted,
    numbers: Any,  # noqa: ANN401 - an array
    *,
    coded: bool = True,
    at: Any = None,  # noqa: ANN401 - an Arrow type
) -> pa.Table | None:
    """Return the events of some lines; None when one of them is not as it should be."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj

    fields = [
        pa.field("seq", pa.int64()),
        pa.field("event", pa.string()),
        pa.field("at", at or pa.timestamp("us", "UTC")),
        pa.field("monotonic_s", pa.float64()),
        *(pa.field(name, pa.string()) for name in wanted.texts),
    ]
    said = pa.struct([pa.field(name, kind) for name, kind in wanted.attributes.items()])
    if wanted.attributes:
        fields.append(pa.field("attributes", said))
    if not len(numbers):
        table = pa.schema(fields).empty_table()
    else:
        # Arrow takes any bytes for text.
        if (np.frombuffer(text, np.uint8) >= 0x80).any():
            try:
                str(memoryview(text), "utf-8")
            except UnicodeDecodeError:
                return None
        table = pj.read_json(
            pa.BufferReader(text),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pj.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore"),
        )
    if table.num_rows != len(numbers) or any(table.column(name).null_count for name in _REQUIRED):
        return None
    kept = {name: table.column(name) for name in ("seq", "at", "monotonic_s", *wanted.texts)}
    if not coded:
        return pa.table({"line": pa.array(numbers, pa.int64()), **kept})
    codes = pc.index_in(table.column("event"), value_set=pa.array(wanted.names)).cast(pa.int8())
    if codes.null_count:
        return None
    more = {f"attributes.{name}": pc.struct_field(table.column("attributes"), name) for name in wanted.attributes}
    return pa.table({"line": pa.array(numbers, pa.int64()), "code": codes, **kept, **more})
