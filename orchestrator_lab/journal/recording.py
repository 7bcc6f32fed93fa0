r"""Pane recordings: asciicast v3 in independent zstd frames.

A recording is a file of *pieces*. A piece is a small zstd *skippable frame* (which every zstd tool
passes over) that says which time the piece covers and how long it is, followed by one ordinary,
independent zstd frame of asciicast v3 lines. ``zstd -dc boss.cast.zst`` therefore gives a complete
asciicast v3, while this module can hop from piece to piece without decompressing: to seek, and to
continue a file whose writer was killed.

A piece is written with one call at least every second, so a killed writer loses at most that
second and whatever is torn at the end is found and cut off.

Bytes that are no UTF-8 are kept. They are decoded with ``surrogateescape`` (byte ``0xff`` becomes
U+DCFF) and stand in the JSON as ``\udcff``; :meth:`Recording.output` turns them back into the
same bytes. Some JSON parsers refuse a lone surrogate, therefore :func:`to_cast` exports them as
U+FFFD unless told otherwise.

References
----------
asciicast v3: https://docs.asciinema.org/manual/asciicast/v3/ ; zstd skippable frames: RFC 8878,
section 3.1.2.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from orchestrator_lab.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CastEvent",
    "CastWriter",
    "Recording",
    "Stretch",
    "iter_cast",
    "iter_stretches",
    "piece_content",
    "piece_span",
    "piece_with",
    "read_cast",
    "to_cast",
]

logger = logging.getLogger(__name__)

#: First four bytes of our skippable frame; zstd reserves 0x184D2A50 to 0x184D2A5F.
_SKIPPABLE = 0x184D2A5C
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TAG = b"OLC1"

#: magic, payload length | tag, length of the zstd frame, first and last ms, start of the recording
#: (s since 1970), the same instant on this machine's monotonic clock (s).
_PIECE = struct.Struct("<II4sIQQdd")
_PIECE_PAYLOAD = _PIECE.size - 8

#: How each piece begins.
_MARK = struct.pack("<II4s", _SKIPPABLE, _PIECE_PAYLOAD, _TAG)
#: Bytes that are looked through at once for the next piece; the most that a piece holds, unpacked.
_LOOKED, _LARGEST = 1 << 20, 256 << 20

#: Characters of JSON lines after which a piece is written before its second is over.
_PIECE_CHARS = 1 << 20

#: Bytes of the largest piece that is read: ours have some megabytes.
_LARGEST_PIECE = 256 << 20

#: Monotonic and wall clock must agree this well for a continued recording to trust the monotonic
#: one (after a reboot they do not).
_CLOCKS_AGREE_S = 5.0

_SURROGATES_TO_REPLACEMENT = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")


class CastEvent(NamedTuple):
    """One event of a recording.

    Parameters
    ----------
    time_s : float
        Seconds since the recording began.
    code : str
        ``o`` output, ``r`` resize, ``m`` marker, ``x`` exit status, ``i`` input.
    data : str
        The event's text; output holds bytes that are no UTF-8 as lone surrogates.
    """

    time_s: float
    code: str
    data: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory.

    Parameters
    ----------
    header : dict
        The asciicast v3 header.
    events : list of CastEvent
        In order.
    torn_bytes : int
        Bytes at the end of the file that are no whole piece: the writer was killed while it wrote.
    """

    header: dict[str, Any]
    events: list[CastEvent] = field(default_factory=list)
    torn_bytes: int = 0

    @property
    def duration_s(self) -> float:
        """Seconds from the beginning to the last event."""
        return self.events[-1].time_s if self.events else 0.0

    def output(self) -> bytes:
        """Return the bytes that the program wrote, invalid UTF-8 included."""
        text = "".join(event.data for event in self.events if event.code == "o")
        return text.encode("utf-8", "surrogateescape")


class Piece(NamedTuple):
    """Where a piece lies in the file and which time it covers."""

    offset: int
    length: int
    start_ms: int
    end_ms: int
    started_at: float
    monotonic: float


class CastWriter:
    r"""Writes one pane's recording, or continues one whose writer is gone.

    Nothing here waits: bytes are turned into lines in memory, :meth:`flush` writes them as one
    piece. The caller flushes at least each second while :attr:`pending`. A full disk never raises
    out of :meth:`write`; the piece is dropped, :attr:`error` says why, and the next piece is tried
    again.

    Parameters
    ----------
    path : pathlib.Path
        The ``.cast.zst`` file, made with mode 0600. An existing recording is continued: a torn end
        is cut off, time goes on from the recording's own start, and a marker ``recording resumed``
        tells the gap.
    cols, rows : int
        Size of the pane in cells.
    title : str, optional
        Title in the header.
    term : str
        Terminal type in the header.
    started_at : float, optional
        A recording of something recorded: when that began, in seconds since 1970. Time does not pass by itself then;
        :meth:`clock` says it.

    Raises
    ------
    JournalError
        The file cannot be opened, or is no recording.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "boss.cast.zst"
    >>> with CastWriter(path, cols=80, rows=24) as writer:
    ...     writer.write(b"caf\xc3")
    ...     writer.write(b"\xa9 \xff")
    >>> [event.data for event in read_cast(path).events]
    ['caf', 'é \udcff']
    >>> read_cast(path).output()
    b'caf\xc3\xa9 \xff'
    """

    def __init__(
        self,
        path: Path,
        *,
        cols: int,
        rows: int,
        title: str | None = None,
        term: str = "tmux-256color",
        started_at: float | None = None,
    ) -> None:
        import zstandard

        self.path = Path(path)
        #: Milliseconds of the recording, where its time is told.
        self._clock_ms: int | None = None if started_at is None else 0
        #: Sentence about the last piece that could not be written, or None.
        self.error: str | None = None
        #: Seconds without a writer before a continued recording; 0.0 for a new one.
        self.gap_s = 0.0
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._lines: list[str] = []
        self._chars = 0
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(
                f"cannot open the recording {self.path}: {error.strerror}; check that its folder exists and is yours",
                path=str(self.path),
            ) from error
        try:
            self._begin(cols, rows, title, term, started_at)
        except BaseException:
            os.close(self._file)
            raise

    def _begin(self, cols: int, rows: int, title: str | None, term: str, started_at: float | None) -> None:
        last = None
        size = os.fstat(self._file).st_size
        self._end = 0
        for last in pieces_of(self._file, size):
            self._end = last.offset + last.length
        wall, monotonic = time.time(), time.monotonic()
        if last is None:
            if size and os.pread(self._file, 4, 0) not in {struct.pack("<I", _SKIPPABLE), b""}:
                raise JournalError(f"{self.path} exists and is no recording: move it away", path=str(self.path))
            self.started_at = wall if started_at is None else started_at
            self._monotonic = monotonic
            self._last_ms = 0
            header: dict[str, Any] = {
                "version": 3,
                "term": {"cols": cols, "rows": rows, "type": term},
                "timestamp": int(self.started_at),
            }
            if title:
                header["title"] = title
            self._header = json.dumps(header, ensure_ascii=False)
            self._append(self._header)
        else:
            self.started_at = last.started_at
            by_wall, by_monotonic = wall - last.started_at, monotonic - last.monotonic
            trusted = by_monotonic if abs(by_wall - by_monotonic) < _CLOCKS_AGREE_S else by_wall
            offset = max(trusted, last.end_ms / 1000)
            self._monotonic = monotonic - offset
            self._last_ms = last.end_ms
            if self._clock_ms is not None:
                self._clock_ms = last.end_ms
            self.gap_s = offset - last.end_ms / 1000
        self._first_ms = self._last_ms
        if self._end < size:
            logger.warning("%s: cut off a torn end of %d bytes", self.path, size - self._end)
            os.ftruncate(self._file, self._end)
        if last is not None:
            self._event("m", "recording resumed")
            self.resize(cols, rows)
        self.flush()

    @property
    def pending(self) -> bool:
        """Whether lines wait for :meth:`flush`."""
        return bool(self._lines)

    @property
    def offset_s(self) -> float:
        """Seconds since the recording began, now."""
        return time.monotonic() - self._monotonic

    @property
    def monotonic_start(self) -> float:
        """The recording's beginning on this machine's monotonic clock (s)."""
        return self._monotonic

    def write(self, data: bytes) -> None:
        """Add what the program wrote; a character split between two calls is joined.

        Parameters
        ----------
        data : bytes
            Raw bytes of the pane.
        """
        text = self._decoder.decode(data)
        if text:
            self._event("o", text)

    def clock(self, at_ms: int) -> None:
        """Say what time it is in the recording, in milliseconds; for one whose time does not pass by itself."""
        self._clock_ms = at_ms

    def resize(self, cols: int, rows: int) -> None:
        """Note that the pane has a new size, in cells."""
        self._event("r", f"{cols}x{rows}")

    def mark(self, label: str) -> None:
        """Add a marker, on which players stop and jump."""
        self._event("m", label)

    def exit(self, status: int) -> None:
        """Note the program's exit status; more may follow when it is started again."""
        self._rest()
        self._event("x", str(status))

    def flush(self) -> None:
        """Write what is pending as one piece; the kernel has it when this returns."""
        if not self._lines:
            return
        content = "\n".join(self._lines) + "\n"
        self._lines.clear()
        self._chars = 0
        frame = self._compressor.compress(content.encode("utf-8", "backslashreplace"))
        piece = _PIECE.pack(
            _SKIPPABLE,
            _PIECE_PAYLOAD,
            _TAG,
            len(frame),
            self._first_ms,
            self._last_ms,
            self.started_at,
            self._monotonic,
        )
        first, self._first_ms = self._first_ms, self._last_ms
        data = memoryview(piece + frame)
        position = self._end
        try:
            while data:
                written = os.pwrite(self._file, data, position)
                position += written
                data = data[written:]
        except OSError as error:
            # The next event's interval must cover the time of those that are lost.
            self._first_ms = self._last_ms = first
            self._lost(error)
            return
        self._end = position
        if self.error is not None:
            logger.warning("%s: recording goes on", self.path)
            self.error = None
            self._event("m", "recording gap: the disk was full or failed")

    def close(self) -> None:
        """Write the rest and close the file."""
        if self._file < 0:
            return
        self._rest()
        self.flush()
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rest(self) -> None:
        """Keep the bytes of a character that never became whole."""
        if text := self._decoder.decode(b"", final=True):
            self._event("o", text)
        self._decoder.reset()

    def _event(self, code: str, data: str) -> None:
        passed = round((time.monotonic() - self._monotonic) * 1000) if self._clock_ms is None else self._clock_ms
        now = max(passed, self._last_ms)
        interval = (now - self._last_ms) / 1000
        self._last_ms = now
        self._append(f'[{interval}, "{code}", {json.dumps(data, ensure_ascii=False)}]')

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._chars += len(line)
        if self._chars >= _PIECE_CHARS:
            self.flush()

    def _lost(self, error: OSError) -> None:
        self._decoder.reset()  # half a character of what is lost is lost with it
        if self.error is None:
            logger.error("%s: recording stops for now: %s", self.path, error.strerror)
        self.error = f"{self.path}: {error.strerror}"
        if self._end == 0:
            # Without its header the file would be no asciicast: the next piece brings it again.
            self._lines.insert(0, self._header)
        try:
            os.ftruncate(self._file, self._end)
        except OSError:
            logger.exception("%s: a torn piece could not be cut off", self.path)


def pieces_of(descriptor: int, size: int, offset: int = 0) -> Iterator[Piece]:
    """Yield the whole pieces of a recording from a place on; stop at the first that is torn or foreign."""
    while offset + _PIECE.size <= size:
        head = os.pread(descriptor, _PIECE.size, offset)
        if len(head) < _PIECE.size:
            return
        magic, payload, tag, length, start, end, started_at, monotonic = _PIECE.unpack(head)
        if (magic, payload, tag) != (_SKIPPABLE, _PIECE_PAYLOAD, _TAG):
            return
        total = _PIECE.size + length
        if offset + total > size:
            return
        yield Piece(offset, total, start, end, started_at, monotonic)
        offset += total


def _unpacked(frame: bytes) -> bytes:
    import zstandard

    if zstandard.frame_content_size(frame) > _LARGEST_PIECE:
        raise zstandard.ZstdError(f"its piece would have more than {_LARGEST_PIECE} bytes")
    return zstandard.ZstdDecompressor().decompress(frame)


def _piece_lines(descriptor: int, piece: Piece, path: Path) -> list[str]:
    import zstandard

    frame = os.pread(descriptor, piece.length - _PIECE.size, piece.offset + _PIECE.size)
    try:
        content = _unpacked(frame).decode("utf-8")
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise JournalError(
            f"{path} is damaged at byte {piece.offset} ({error}): some output is lost there; run.play() and "
            "run.screen() pass over it",
            path=str(path),
        ) from error
    return content.split("\n")[:-1]


def piece_events(descriptor: int, piece: Piece, path: Path) -> tuple[dict[str, Any], list[CastEvent]]:
    """Return the events of a piece, and the recording's header if it is the first."""
    lines = _piece_lines(descriptor, piece, path)
    header = header_of(lines.pop(0), path) if piece.offset == 0 and lines else {}
    now = piece.start_ms / 1000
    events = []
    for interval, code, data in _parsed(lines, path):
        now = round(now + interval, 3)
        events.append(CastEvent(now, code, data))
    return header, events


def foreign_lines(path: Path) -> tuple[list[str], int]:
    """Return the lines of a plain asciicast, or of one compressed by other means."""
    import zstandard

    data = path.read_bytes()
    torn = 0
    if data[:4] == _ZSTD_MAGIC:
        parts = []
        try:
            with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
                while part := reader.read(1 << 20):
                    parts.append(part)
        except zstandard.ZstdError as error:
            logger.warning("%s: torn: %s", path, error)
            torn = 1
        data = b"".join(parts)
    cut = data.rfind(b"\n") + 1
    try:
        json.loads(data[cut:] or b"0")
        cut = len(data)
    except ValueError:
        torn = len(data) - cut
    # Not splitlines(): U+0085 and its like are output.
    return data[:cut].decode("utf-8", "replace").split("\n"), torn


def _parsed(lines: list[str], path: Path) -> list[tuple[float, str, str]]:
    """Parse the lines of a piece: all at once, which takes a third of the time, unless one of them is damaged."""
    try:
        told = json.loads(f"[{','.join(lines)}]")
        if len(told) == len(lines):
            return [(float(interval), str(code), str(data)) for interval, code, data in told]
    except (ValueError, TypeError):
        pass
    return [_parse(line, path) for line in lines]


def _parse(line: str, path: Path) -> tuple[float, str, str]:
    try:
        interval, code, data = json.loads(line)
        return float(interval), str(code), str(data)
    except (ValueError, TypeError) as error:
        raise JournalError(
            f"{path}: expected an asciicast event [interval, code, data], found {line[:80]!r}",
            path=str(path),
        ) from error


def header_of(line: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("version") != 3:
        raise JournalError(
            f"{path}: expected an asciicast v3 header in the first line, found {line[:80]!r}",
            path=str(path),
        )
    return header


def read_cast(path: Path, *, start_s: float = 0.0, end_s: float | None = None) -> Recording:
    """Read a recording, live ones and those of a killed writer too.

    Parameters
    ----------
    path : pathlib.Path
        A ``.cast.zst`` of ours, any other zstd-compressed asciicast v3, or a plain ``.cast``.
    start_s, end_s : float, optional
        Only the events in this span (s); of our own files only the pieces that touch it are
        decompressed.

    Returns
    -------
    Recording
        Header and events; a torn end is left out and counted.

    Raises
    ------
    JournalError
        There is no such file, or it is no asciicast v3.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.cast.zst"
    >>> with CastWriter(path, cols=80, rows=24) as writer:
    ...     writer.mark("here")
    >>> recording = read_cast(path)
    >>> recording.header["term"]["cols"], recording.events[0].data
    (80, 'here')
    """
    path = Path(path)
    limit = float("inf") if end_s is None else end_s
    header: dict[str, Any] = {}
    events: list[CastEvent] = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise JournalError(f"cannot read the recording {path}: {error.strerror}", path=str(path)) from error
    try:
        size = os.fstat(descriptor).st_size
        whole = 0
        for piece in pieces_of(descriptor, size):
            whole = piece.offset + piece.length
            if piece.offset and (piece.end_ms / 1000 < start_s or piece.start_ms / 1000 > limit):
                continue
            found, told = piece_events(descriptor, piece, path)
            header = found or header
            events += [event for event in told if start_s <= event.time_s <= limit]
        if whole:
            return Recording(header, events, size - whole)
        if os.pread(descriptor, 4, 0) == struct.pack("<I", _SKIPPABLE):
            raise JournalError(f"{path}: the writer was killed before the first piece was whole", path=str(path))
    finally:
        os.close(descriptor)
    lines, torn = foreign_lines(path)
    header = header_of(lines[0] if lines else "", path)
    now = 0.0
    for line in lines[1:]:
        if not line or line.startswith("#"):
            continue
        interval, code, data = _parse(line, path)
        now = round(now + interval, 6)
        if start_s <= now <= limit:
            events.append(CastEvent(now, code, data))
    return Recording(header, events, torn)


def iter_cast(path: Path) -> Iterator[str]:
    """Yield the asciicast lines of one of our recordings, piece by piece, in little memory.

    Parameters
    ----------
    path : pathlib.Path
        A ``.cast.zst`` of ours.

    Yields
    ------
    str
        The header, then one event at a time, without line ends.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for piece in pieces_of(descriptor, os.fstat(descriptor).st_size):
            yield from _piece_lines(descriptor, piece, path)
    finally:
        os.close(descriptor)


class Stretch(NamedTuple):
    """A stretch of the file of a recording.

    Parameters
    ----------
    offset, length : int
        Where it lies, in bytes.
    data : bytes
        Of a piece; empty for what lies between pieces.
    """

    offset: int
    length: int
    data: bytes


def iter_stretches(path: Path) -> Iterator[Stretch]:
    """Yield the pieces of one of our recordings as they stand in the file, and what is no piece any more.

    Parameters
    ----------
    path : pathlib.Path
        A ``.cast.zst``.

    Yields
    ------
    Stretch
        One behind the other they are the file: behind a piece whose head is damaged the next whole one is looked for.
        Nothing of a file in which there is none.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size, offset = os.fstat(descriptor).st_size, 0
        found = False
        while offset < size:
            length = 0
            for piece in pieces_of(descriptor, size, offset):
                after = os.pread(descriptor, len(_MARK), piece.offset + piece.length)
                if after and after != _MARK:  # what follows is none: its own length may be what is damaged
                    length = piece.length
                    break
                found = True
                yield Stretch(piece.offset, piece.length, os.pread(descriptor, piece.length, piece.offset))
                offset = piece.offset + piece.length
            if offset == size:
                return
            following = _next_mark(descriptor, offset + 1, size)
            if not found and following == size:
                return
            found = True
            if length and offset + length <= following:
                yield Stretch(offset, length, os.pread(descriptor, length, offset))
                offset += length
            if offset < following:
                yield Stretch(offset, following - offset, b"")
                offset = following
    finally:
        os.close(descriptor)


def _next_mark(descriptor: int, offset: int, size: int) -> int:
    """Return where the next piece begins; its mark cannot stand in a piece, whose lines hold no control characters."""
    place = offset
    while place < size:
        data = os.pread(descriptor, _LOOKED, place)
        at = data.find(_MARK)
        if at >= 0:
            return place + at
        if len(data) < _LOOKED:
            return size
        place += _LOOKED - len(_MARK)
    return size


def piece_content(piece: bytes) -> bytes:
    """Return the lines of a piece that :func:`iter_stretches` gave.

    Raises
    ------
    ValueError
        When it is damaged, or no text.
    """
    import zstandard

    frame = piece[_PIECE.size :]
    try:
        size = zstandard.frame_content_size(frame)
        if size > _LARGEST:
            raise ValueError(f"it holds {size} bytes, more than any piece has")
        content = zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    str(content, "utf-8")
    return content


def piece_span(piece: bytes) -> tuple[float, float, float]:
    """Return what the head of a piece says: from when to when it goes (s), and when the recording began (s since 1970).

    Of a head that is damaged the instants may be anything.
    """
    _, _, _, _, start, end, started_at, _ = _PIECE.unpack(piece[: _PIECE.size])
    return start / 1000, end / 1000, started_at


def piece_with(lines: list[str], piece: bytes, *, span: tuple[float, float] | None = None) -> bytes:
    """Return a piece with other lines.

    Parameters
    ----------
    lines : list of str
        Its lines, without line ends.
    piece : bytes
        The one in whose place it comes, or one of the same recording.
    span : (float, float), optional
        From when to when it goes (s); as long as the other one when omitted.

    Returns
    -------
    bytes
        Compressed as :class:`CastWriter` does.
    """
    import zstandard

    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    frame = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content)
    magic, payload, tag, _, start, end, *clocks = _PIECE.unpack(piece[: _PIECE.size])
    if span is not None:
        start, end = (round(second * 1000) for second in span)
    return _PIECE.pack(magic, payload, tag, len(frame), start, end, *clocks) + frame


def to_cast(path_zst: Path, path_plain: Path, *, lossless: bool = False) -> Path:
    r"""Export a recording as plain asciicast v3, for any player.

    Parameters
    ----------
    path_zst : pathlib.Path
        The ``.cast.zst``.
    path_plain : pathlib.Path
        The ``.cast`` to write, mode 0600.
    lossless : bool
        Keep bytes that are no UTF-8 as lone ``\udcXX`` escapes, which this module reads back but
        strict JSON parsers (asciinema's among them) refuse. By default they become U+FFFD.

    Returns
    -------
    pathlib.Path
        ``path_plain``.
    """
    read_cast(path_zst, start_s=float("inf"))  # says clearly what is wrong before a file is made
    descriptor = os.open(path_plain, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as target:
        for line in iter_cast(path_zst):
            target.write(line if lossless or "\\udc" not in line else _replaced(line))
            target.write("\n")
    return Path(path_plain)


def _replaced(line: str) -> str:
    interval, code, data = json.loads(line)
    text = json.dumps(data.translate(_SURROGATES_TO_REPLACEMENT), ensure_ascii=False)
    return f'[{interval}, "{code}", {text}]'
