"""Recordings with what is private masked, also where a program wrote it in pieces.

A recording is looked through as what it shows: without its escape sequences, over the bounds of its events and pieces.
A piece in which nothing changes is copied byte by byte, and stretches in which nothing can be private are not even
decoded. Beside that, what is known to be private from elsewhere is looked for with all white space and movements of the
cursor left out: a path that a program breaks into two lines is found too.

What of a recording cannot be read is left out: a mark stands in its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from orchestrator_lab.bundle.ahead import ahead, copy_bytes
from orchestrator_lab.bundle.salvage import Piece, iter_readable, marked, readable_lines
from orchestrator_lab.bundle.seen import Projection, joined, project, visible
from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.recording import piece_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator_lab.bundle.privacy import Known, Masker
    from orchestrator_lab.bundle.sieve import Sieve

__all__ = ["mask_recording"]

#: Characters on the screen that are looked at once more with what comes behind them: longer than any private text.
_BACK = 1024
#: Of a private key, more.
_LONGEST_KEY = 17_000
#: Bytes of packed pieces that are looked through together, and how many pieces at most.
_TOGETHER, _MANY = 256 << 10, 512
#: What begins a title, a link or another string for the terminal.
_STRINGS = ("\x1b]", "\x1bP", "\x1bX", "\x1b^", "\x1b_")
#: Where no private text goes on.
_BREAK = re.compile(r"[\x00-\x20\"'<>|]")
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?!.*-----END )", re.DOTALL)


@dataclass(slots=True)
class _Held:
    """A piece that cannot be written yet: what is private may go on in the next one."""

    raw: bytes
    lines: list[str]
    #: Number of the line, place of its text in the whole stream, the text.
    outputs: list[tuple[int, int, str]] = field(default_factory=list)
    end: int = 0
    changed: bool = False


class _Batch(NamedTuple):
    """Pieces one behind the other, and whether nothing in them can be private."""

    pieces: list[Piece]
    quiet: bool


def mask_recording(source: Path, target: Path, masker: Masker, damage: list[str] | None = None) -> bool:
    """Write a recording with what is private masked.

    Parameters
    ----------
    source : pathlib.Path
        A ``.cast.zst`` or ``.cast``.
    target : pathlib.Path
        The file to write, mode 0600; it is there only when anything in it is another.
    masker : Masker
        What is private.
    damage : list of str, optional
        Takes a sentence for each stretch that cannot be read, and is left out.

    Returns
    -------
    bool
        Whether anything was masked or left out.

    Raises
    ------
    JournalError
        When it is no recording.
    """
    told = [] if damage is None else damage
    known = masker.known()
    with contextlib.ExitStack() as stack:
        writer = _Writer(source, target, stack)
        stream = _Stream(masker, known, writer.take, told)
        for batch in _batches(source, masker.sieve_with(known), told):
            if batch.quiet:
                stream.pass_over(batch.pieces)
            else:
                stream.take(batch.pieces)
        if stream.taken:
            stream.finish()
            return writer.wrote
    return _foreign(source, target, masker, told)


class _Writer:
    """Writes a recording once a piece of it is another one than in its source: most are as they were."""

    def __init__(self, source: Path, target: Path, stack: contextlib.ExitStack) -> None:
        self._source, self._target, self._stack = source, target, stack
        self._out: BinaryIO | None = None
        self._same = 0

    @property
    def wrote(self) -> bool:
        """Whether there is a target."""
        return self._out is not None

    def take(self, held: _Held) -> None:
        """Write a piece behind the others."""
        if held.changed and self._out is None:
            self._out = self._stack.enter_context(open(self._target, "xb", opener=_private))  # noqa: SIM115
            with self._source.open("rb") as before:
                copy_bytes(before, self._out, self._same)
        if self._out is not None:
            self._out.write(piece_with(held.lines, held.raw) if held.changed else held.raw)
        else:
            self._same += len(held.raw)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _batches(source: Path, sieve: Sieve | None, damage: list[str]) -> Iterator[_Batch]:
    """Yield the pieces of a recording, some at a time, looked through by other threads."""

    def quiet(pieces: list[Piece]) -> _Batch:
        return _Batch(pieces, sieve is not None and not sieve.shown(b"".join(piece.content for piece in pieces)))

    def grouped() -> Iterator[list[Piece]]:
        group: list[Piece] = []
        size = 0
        for piece in iter_readable(source, damage):
            group.append(piece)
            size += len(piece.raw)
            if size >= _TOGETHER or len(group) >= _MANY:
                yield group
                group, size = [], 0
        if group:
            yield group

    return ahead(grouped(), quiet)


class _Stream:
    """What one pane's program wrote, as far as it is not settled."""

    def __init__(self, masker: Masker, known: Known | None, emit: Callable[[_Held], object], damage: list[str]) -> None:
        self.taken = 0
        self.changed = False
        self._masker, self._known, self._emit, self._damage = masker, known, emit, damage
        self._marks = () if known is None else tuple(one.encode("utf-8", "surrogatepass") for one in known.marks)
        self._held: deque[_Held] = deque()
        self._text, self._base, self._done = "", 0, 0
        self._edits: dict[int, str] = {}

    def take(self, pieces: list[Piece]) -> None:
        """Take the next pieces, and look through them together."""
        place = self._base + len(self._text)
        texts = [self._text]
        for piece in pieces:
            held = self._decoded(piece, place)
            place = held.end
            texts += [text for _, _, text in held.outputs]
            self._held.append(held)
        self._text = "".join(texts)
        self._look(final=False)

    def pass_over(self, pieces: list[Piece]) -> None:
        """Take the next pieces, in which nothing is private: only what came before may go on in them."""
        begin = self._base + len(self._text)
        first = 0
        while first < len(pieces) and (not self.taken or self._base < begin):
            self.take(pieces[first : first + 1])
            first += 1
        last = self._tail(pieces)
        if first < last:
            # All that is not settled lies in these pieces.
            self._base = self._done = self._base + len(self._text)
            self._text = ""
            self._settle()
            for piece in pieces[first:last]:
                self._emit(
                    _Held(piece.raw, piece.content.decode().split("\n")[:-1] if piece.new else [], changed=piece.new)
                )
            first = last
        if first < len(pieces):
            self.take(pieces[first:])

    def finish(self) -> None:
        """Settle what is left."""
        self._look(final=True)

    def _decoded(self, piece: Piece, place: int) -> _Held:
        """Return a piece whose text begins at a place."""
        lines = piece.content.decode().split("\n")[:-1]
        # What stands in for pieces that are lost is in no file yet.
        held, first = _Held(piece.raw, lines, changed=piece.new), 0
        if not self.taken:
            first = 1
            self._line(held, 0, _header(lines[0] if lines else "", self._masker))
        self.taken += 1
        try:
            events = json.loads(f"[{','.join(lines[first:])}]")
            for number, (_, code, data) in enumerate(events, first):
                if code == "o":
                    held.outputs.append((number, place, data))
                    place += len(data)
                elif code in {"i", "m"} and (text := self._masker.text(data)) != data:
                    self._line(held, number, _with(lines[number], text))
            if len(events) != len(lines) - first:
                raise ValueError("lines and events are not as many")  # noqa: TRY301 - one thing is done about both
        except (ValueError, TypeError) as error:
            self._damage.append(piece.damaged(f"it holds no asciicast events: {error}"))
            self.changed = True
            return _Held(piece.raw, [*lines[:first], marked(piece)], end=place, changed=True)
        held.end = place
        return held

    def _tail(self, pieces: list[Piece]) -> int:
        """Return from which piece on they hold all that what comes may go on from."""
        count = 0
        for number in range(len(pieces) - 1, -1, -1):
            if count > 2 * _BACK:
                return number + 1
            # More than these is never seen of it; less only of a program that writes little else than escapes.
            shown = visible("".join(_outputs(pieces[number])))
            count += len(shown) - shown.count("\0")
        return 0

    def _line(self, held: _Held, number: int, line: str) -> None:
        if held.lines[number] != line:
            held.lines[number] = line
            held.changed = self.changed = True

    def _look(self, *, final: bool) -> None:
        """Find what is private as far as the text is settled, and let go of what is behind that."""
        text = self._text
        seen = visible(text)
        if self._masker.may(seen) or (any(mark in text for mark in _STRINGS) and self._masker.may(text)):
            shown = project(text)
            safe = _safe(shown.text, final=final)
            settled, back = _settled(shown, safe, 0)
            for hit in self._masker.hits(shown.text):
                if hit.end <= safe and shown.origin(hit.start) + self._base >= self._done:
                    self._masker.note(hit, shown, self._edits, offset=self._base)
            for hit, inside in self._masker.within_strings(text):
                if self._done <= inside.origin(0) + self._base and (final or inside.origin(0) < settled):
                    self._masker.note(hit, inside, self._edits, offset=self._base)
        else:
            # Nothing that anything private holds: only its end is looked at, for what may go on.
            start = text.rfind("\n", 0, max(0, len(text) - 2 * _BACK)) + 1
            shown = project(text[start:])
            settled, back = _settled(shown, _safe(shown.text, final=final), start)
        if self._known is not None:
            close = joined(seen)
            if any(mark in close for mark in self._marks):
                whole = project(text, loose=True)
                for found in self._known.expression.finditer(whole.text):
                    self._note_known(self._known, found, whole)
        keep = len(text) if final else min(back, settled)
        self._done = max(self._done, self._base + (len(text) if final else settled))
        self._text, self._base = text[keep:], self._base + keep
        self._settle(final=final)

    def _settle(self, *, final: bool = False) -> None:
        """Write the pieces that nothing changes any more."""
        edited = sorted(self._edits)
        written = 0
        while self._held and (final or self._held[0].end <= self._base):
            held = self._held.popleft()
            if edited:
                self._edit(held, edited)
            self._emit(held)
            written = held.end
        for place in edited[: bisect_left(edited, written)]:
            del self._edits[place]

    def _note_known(self, known: Known, found: re.Match[str], whole: Projection) -> None:
        """Mask what is known to be private, drawn in pieces."""
        places = [whole.origin(place) + self._base for place in range(*found.span())]
        if any(place in self._edits for place in places) or places[-1] - places[0] > _BACK:
            return
        self._masker.note(known.hit(found), whole, self._edits, offset=self._base)

    def _edit(self, held: _Held, edited: list[int]) -> None:
        for number, start, text in held.outputs:
            first, last = bisect_left(edited, start), bisect_left(edited, start + len(text))
            if first < last:
                chars = list(text)
                for place in edited[first:last]:
                    chars[place - start] = self._edits[place]
                self._line(held, number, _with(held.lines[number], "".join(chars)))


def _untouched(piece: Piece) -> _Held:
    return _Held(piece.raw, piece.content.decode().split("\n")[:-1] if piece.new else [], changed=piece.new)


def _outputs(piece: Piece) -> Iterator[str]:
    try:
        for event in json.loads(f"[{','.join(piece.content.decode().split(chr(10))[:-1])}]"):
            if isinstance(event, list) and len(event) == 3 and event[1] == "o":
                yield str(event[2])
    except ValueError:
        return


def _safe(text: str, *, final: bool) -> int:
    """Return up to which character on the screen a text is settled, whatever comes behind it."""
    if final:
        return len(text)
    safe = _break_before(text)
    # What is inside a private key is private only once its end is there.
    begun = _KEY_BEGINS.search(text, max(0, len(text) - _LONGEST_KEY))
    return safe if begun is None else min(safe, begun.start())


def _settled(shown: Projection, safe: int, start: int) -> tuple[int, int]:
    """Return up to where a text is settled, and from where on it is looked at once more with what comes.

    Escape sequences behind the last character that is settled belong to what comes.
    """
    settled = start + (shown.origin(safe - 1) + 1 if safe else 0)
    return settled, start + (shown.origin(max(0, safe - _BACK)) if shown.text else 0)


def _break_before(text: str) -> int:
    """Return up to where a text is settled, whatever comes behind it."""
    for place in range(len(text) - 1, max(-1, len(text) - 1 - _BACK), -1):
        if _BREAK.match(text[place]):
            return place
    return max(0, len(text) - _BACK)


def _with(line: str, text: str) -> str:
    """Return an event's line with another text."""
    start = line.index('"', line.index('"', line.index('"') + 1) + 1)
    return f"{line[:start]}{json.dumps(text, ensure_ascii=False)}]"


def _header(line: str, masker: Masker) -> str:
    from orchestrator_lab.bundle.masking import mask_value

    try:
        header = json.loads(line)
    except ValueError as error:
        raise JournalError(f"a recording begins with no asciicast header, but with {line[:80]!r}") from error
    masked = mask_value(header, masker)
    return line if masked == header else json.dumps(masked, ensure_ascii=False)


def _foreign(source: Path, target: Path, masker: Masker, damage: list[str]) -> bool:
    """Mask a recording that another program made, in one piece; it stays plain, or packed, as it was."""
    import zstandard

    read = len(damage)
    content = "".join(f"{line}\n" for line in readable_lines(source, damage))
    masked: list[str] = []
    stream = _Stream(masker, masker.known(), lambda held: masked.extend(held.lines), damage)
    stream.take([Piece(0, b"", content.encode("utf-8", "backslashreplace"))])
    stream.finish()
    if not stream.changed and len(damage) == read:
        return False
    data = "".join(f"{line}\n" for line in masked).encode("utf-8", "backslashreplace")
    packed = source.suffix == ".zst"
    with open(target, "xb", opener=_private) as out:
        out.write(zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data) if packed else data)
    return True
