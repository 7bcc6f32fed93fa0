"""Recordings with what is private masked, also where a program wrote it in pieces.

A recording is looked through as what it shows: without its escape sequences, over the bounds of its events and pieces.
A piece in which nothing changes is copied byte by byte. Beside that, what is known to be private from elsewhere is
looked for with all white space and movements of the cursor left out: a path that a program breaks into two lines is
found too.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from orchestrator_lab.bundle.privacy import Projection, joined, project, visible
from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.recording import iter_pieces, piece_lines, piece_with, read_cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.bundle.privacy import Known, Masker

__all__ = ["mask_recording"]

#: Characters on the screen that are looked at once more with what comes behind them: longer than any private text.
_BACK = 1024
#: What begins a title, a link or another string for the terminal.
_STRINGS = ("\x1b]", "\x1bP", "\x1bX", "\x1b^", "\x1b_")
#: Where no private text goes on.
_BREAK = re.compile(r"[\x00-\x20\"'<>|]")


@dataclass(slots=True)
class _Held:
    """A piece that cannot be written yet: what is private may go on in the next one."""

    raw: bytes
    lines: list[str]
    #: Number of the line, place of its text in the whole stream, the text.
    outputs: list[tuple[int, int, str]] = field(default_factory=list)
    end: int = 0
    changed: bool = False


def mask_recording(source: Path, target: Path, masker: Masker) -> bool:
    """Write a recording with what is private masked.

    Parameters
    ----------
    source : pathlib.Path
        A ``.cast.zst`` or ``.cast``.
    target : pathlib.Path
        The file to write, mode 0600.
    masker : Masker
        What is private.

    Returns
    -------
    bool
        Whether anything was masked.

    Raises
    ------
    JournalError
        When it is no recording.
    """
    with open(target, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        stream = _Stream(masker, lambda held: out.write(piece_with(held.lines, held.raw) if held.changed else held.raw))
        for raw in iter_pieces(source):
            stream.take(raw, piece_lines(raw))
        if stream.taken:
            stream.finish()
            return stream.changed
        return _foreign(source, out, masker)


class _Stream:
    """What one pane's program wrote, as far as it is not settled."""

    def __init__(self, masker: Masker, emit: Callable[[_Held], object]) -> None:
        self.taken = 0
        self.changed = False
        self._masker, self._emit = masker, emit
        self._held: deque[_Held] = deque()
        self._text, self._base, self._done = "", 0, 0
        self._edits: dict[int, str] = {}
        # What the other files held: recordings come last.
        self._known = masker.known()

    def take(self, raw: bytes, lines: list[str]) -> None:
        """Take the next piece."""
        held = _Held(raw, lines)
        place = self._base + len(self._text)
        first = 0
        if not self.taken:
            first = 1
            self._line(held, 0, _header(lines[0], self._masker))
        self.taken += 1
        try:
            events = json.loads(f"[{','.join(lines[first:])}]")
            for number, (_, code, data) in enumerate(events, first):
                if code == "o":
                    held.outputs.append((number, place, data))
                    place += len(data)
                elif code in {"i", "m"} and (text := self._masker.text(data)) != data:
                    self._line(held, number, _with(lines[number], text))
        except (ValueError, TypeError) as error:
            raise JournalError(f"a piece of a recording holds no asciicast events ({error})") from error
        held.end = place
        self._held.append(held)
        self._text += "".join(text for _, _, text in held.outputs)
        self._look(final=False)

    def finish(self) -> None:
        """Settle what is left."""
        self._look(final=True)

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
            settled, back = _settled(shown, 0, final=final)
            safe = len(shown.text) if final else _break_before(shown.text)
            for hit in self._masker.hits(shown.text):
                if hit.end <= safe and shown.origin(hit.start) + self._base >= self._done:
                    self._masker.note(hit, shown, self._edits, offset=self._base)
            for hit, inside in self._masker.within_strings(text):
                if self._done <= inside.origin(0) + self._base and (final or inside.origin(0) < settled):
                    self._masker.note(hit, inside, self._edits, offset=self._base)
        else:
            # Nothing that anything private holds: only its end is looked at, for what may go on.
            start = text.rfind("\n", 0, max(0, len(text) - 2 * _BACK)) + 1
            settled, back = _settled(project(text[start:]), start, final=final)
        if self._known is not None:
            close = joined(seen)
            if any(mark in close for mark in self._known.marks):
                whole = project(text, loose=True)
                for found in self._known.expression.finditer(whole.text):
                    self._note_known(self._known, found, whole)
        keep = len(text) if final else min(back, settled)
        self._done = max(self._done, self._base + (len(text) if final else settled))
        self._text, self._base = text[keep:], self._base + keep
        while self._held and (final or self._held[0].end <= self._base):
            self._write(self._held.popleft())

    def _note_known(self, known: Known, found: re.Match[str], whole: Projection) -> None:
        """Mask what is known to be private, drawn in pieces."""
        places = [whole.origin(place) + self._base for place in range(*found.span())]
        if any(place in self._edits for place in places) or places[-1] - places[0] > _BACK:
            return
        self._masker.note(known.hit(found), whole, self._edits, offset=self._base)

    def _write(self, held: _Held) -> None:
        edited = sorted(self._edits)
        for number, start, text in held.outputs:
            first = bisect_right(edited, start - 1)
            last = bisect_right(edited, start + len(text) - 1)
            if first < last:
                chars = list(text)
                for place in edited[first:last]:
                    chars[place - start] = self._edits[place]
                self._line(held, number, _with(held.lines[number], "".join(chars)))
        for place in edited[: bisect_right(edited, held.end - 1)]:
            del self._edits[place]
        self._emit(held)


def _settled(shown: Projection, start: int, *, final: bool) -> tuple[int, int]:
    """Return up to where a text is settled, and from where on it is looked at once more with what comes.

    Escape sequences behind the last character that is settled belong to what comes.
    """
    safe = len(shown.text) if final else _break_before(shown.text)
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


def _foreign(source: Path, out: BinaryIO, masker: Masker) -> bool:
    """Mask a recording that another program made, in one piece; it stays plain, or packed, as it was."""
    import zstandard

    recording = read_cast(source)
    lines, now = [json.dumps(recording.header, ensure_ascii=False)], 0.0
    for event in recording.events:
        lines.append(f'[{round(event.time_s - now, 6)}, "{event.code}", {json.dumps(event.data, ensure_ascii=False)}]')
        now = event.time_s
    masked: list[str] = []
    stream = _Stream(masker, lambda held: masked.extend(held.lines))
    stream.take(b"", lines)
    stream.finish()
    if not stream.changed:
        out.write(source.read_bytes())
        return False
    data = "".join(f"{line}\n" for line in masked).encode("utf-8", "backslashreplace")
    packed = source.suffix == ".zst"
    out.write(zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data) if packed else data)
    return True
