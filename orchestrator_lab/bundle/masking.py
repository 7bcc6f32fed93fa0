"""Files of a run with what is private masked: JSON by its texts, everything else as it reads."""

from __future__ import annotations

import codecs
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator_lab.bundle.ahead import ahead, copy_bytes
from orchestrator_lab.bundle.recordings import mask_recording
from orchestrator_lab.bundle.streams import mask_pieces
from orchestrator_lab.cassette import SUFFIX
from orchestrator_lab.cassette_writer import rewrite_cassette

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab.bundle.privacy import Masker

__all__ = ["Findings", "mask_content", "mask_file", "mask_json", "mask_lines", "mask_value"]

_PIECE = 8 << 20
#: A file of another kind is looked through as text up to this size.
_LONGEST_TEXT = 64 << 20
#: Encodings that a text names in its first bytes, the mark being part of the text.
_MARKED = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
#: What no text holds.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
#: Outputs of notebooks that are no text; to look for words in them would break them.
_PICTURES = ("image/", "audio/", "video/", "application/pdf", "application/vnd.apache.parquet")


@dataclass(slots=True)
class Findings:
    """What else is to be known of a file that was looked through.

    Parameters
    ----------
    damage : list of str
        A sentence for each stretch that cannot be read, and is left out.
    events : set of str or None
        Names of the events in whose lines something was masked; None is one of a line that is no event.
    """

    damage: list[str] = field(default_factory=list)
    events: set[str | None] = field(default_factory=set)


def mask_file(source: Path, target: Path, masker: Masker, findings: Findings | None = None) -> bool | None:
    """Write a file with what is private masked.

    Parameters
    ----------
    source : pathlib.Path
        Any file of a run.
    target : pathlib.Path
        The file to write, mode 0600; it is there only when it is another one than the source.
    masker : Masker
        What is private.
    findings : Findings, optional
        Takes what else was found.

    Returns
    -------
    bool or None
        Whether anything was masked, or left out because it cannot be read; None when the file is no text, and was not
        looked into.

    Raises
    ------
    JournalError
        When nothing of a recording can be read.
    CassetteDamaged
        When a cassette is damaged, or was changed since it was recorded.
    """
    found = Findings() if findings is None else findings
    changed: bool | None
    if source.name.endswith((".cast.zst", ".cast")):
        changed = mask_recording(source, target, masker, found.damage)
    elif source.name.endswith(SUFFIX):
        before = sum(masker.counts.values())
        rewrite_cassette(source, target, lambda text: _of_cassette(text, masker))
        changed = sum(masker.counts.values()) > before
    elif source.suffix == ".jsonl":
        changed = _write_lines(source, target, masker, found.events)
    else:
        text, encoding = _text(source)
        if text is None:
            return None
        masked = mask_json(text, masker) if source.suffix in {".json", ".ipynb"} else masker.text(text)
        changed = masked != text
        if changed:
            with open(target, "xb", opener=_private) as file:
                file.write(_encoded(masked, encoding, "surrogateescape"))
    if not changed:
        target.unlink(missing_ok=True)
    return changed


def mask_content(source: Path, target: Path, masker: Masker) -> bool | None:
    """Write a file of somebody's own with what is private masked, and everything else as it was written.

    Parameters
    ----------
    source : pathlib.Path
        A file of a work folder: nothing of the lab's, whatever its name says.
    target : pathlib.Path
        As of :func:`mask_file`.
    masker : Masker
        What is private.

    Returns
    -------
    bool or None
        As of :func:`mask_file`.
    """
    text, encoding = _text(source)
    if text is None:
        return None
    masked = masker.text(text)
    # What JSON writes as escapes is not seen in the text; only then it is written anew.
    if source.suffix in {".json", ".ipynb"}:
        masked = mask_json(masked, masker)
    elif source.suffix == ".jsonl":
        masked = "\n".join(mask_json(line, masker) for line in masked.split("\n"))
    if masked == text:
        return False
    with open(target, "xb", opener=_private) as file:
        file.write(_encoded(masked, encoding, "surrogateescape"))
    return True


def mask_lines(source: Path, masker: Masker, events: set[str | None] | None = None) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines of a file of JSON lines, some megabytes at a time, with what is private in them masked.

    Parameters
    ----------
    source : pathlib.Path
        The file; a last line without its newline is one too.
    masker : Masker
        What is private.
    events : set of (str or None), optional
        Takes the names of the events whose lines were masked.

    Yields
    ------
    tuple of (bytes, bool)
        Lines, and whether anything in them was masked.
    """
    sieve = masker.sieve
    spans = _all_lines if sieve is None else sieve.lines
    for data, found in ahead(_blocks(source), lambda data: (data, spans(data))):
        parts, last = [], 0
        for start, stop in found:
            line = data[start:stop]
            masked = _line(line, masker, events)
            if masked != line:
                parts += [data[last:start], masked]
                last = stop
        yield (b"".join([*parts, data[last:]]), True) if parts else (data, False)


def _blocks(source: Path) -> Iterator[bytes]:
    """Yield a file, some megabytes of whole lines at a time."""
    with source.open("rb") as file:
        rest = b""
        while piece := file.read(_PIECE):
            data = rest + piece
            cut = data.rfind(b"\n") + 1
            data, rest = data[:cut], data[cut:]
            if data:
                yield data
        if rest:
            yield rest


def _all_lines(data: bytes) -> list[tuple[int, int]]:
    spans, start = [], 0
    for line in data.split(b"\n"):
        spans.append((start, start + len(line)))
        start += len(line) + 1
    return spans


def _line(line: bytes, masker: Masker, events: set[str | None] | None) -> bytes:
    text = line.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        made = masker.text(text)
        if made == text:
            return line
        if events is not None:
            events.add(None)
        return made.encode("utf-8", "surrogateescape")
    masked = mask_value(value, masker)
    if masked == value:
        return line
    if events is not None:
        events.update(map(_event_name, (value, masked)))
    return _encoded(_compact(masked))


def _event_name(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    name = value.get("event") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def _of_cassette(text: str, masker: Masker) -> str:
    """Return a piece of a cassette masked; an answer in it came as a stream."""
    value = json.loads(text)
    pieces = value.get("pieces") if isinstance(value, dict) else None
    if not isinstance(pieces, list) or not all(isinstance(one, str) for one in pieces):
        return _compact(mask_value(value, masker))
    rest = mask_value({name: one for name, one in value.items() if name != "pieces"}, masker)
    return _compact({**rest, "pieces": mask_pieces(pieces, masker)})


def _compact(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def mask_json(text: str, masker: Masker) -> str:
    """Return a JSON document with what is private in its texts masked; as text where it is none.

    Parameters
    ----------
    text : str
        The document.
    masker : Masker
        What is private.

    Returns
    -------
    str
        The same text when nothing was masked.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return masker.text(text)
    masked = mask_value(value, masker)
    if masked == value:
        return text
    indent = 1 if text.startswith("{\n ") and not text.startswith("{\n  ") else 2 if "\n" in text.strip() else None
    return json.dumps(masked, ensure_ascii=False, indent=indent) + ("\n" if text.endswith("\n") else "")


def mask_value(value: Any, masker: Masker) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with what is private in its texts and keys masked.

    Parameters
    ----------
    value
        Any JSON value.
    masker : Masker
        What is private.

    Returns
    -------
    JSON value
        A new one.
    """
    if isinstance(value, str):
        return masker.text(value)
    if isinstance(value, list):
        return [mask_value(one, masker) for one in value]
    if isinstance(value, dict):
        return {
            masker.text(key): one if key.startswith(_PICTURES) else mask_value(one, masker)
            for key, one in value.items()
        }
    return value


def _encoded(text: str, encoding: str = "utf-8", errors: str = "backslashreplace") -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:  # a byte that was no UTF-8; JSON holds it as an escape
        return text.encode(encoding, errors)


def _text(source: Path) -> tuple[str | None, str]:
    """Return a file's text and its encoding; None when it is no text, or too long."""
    if source.stat().st_size > _LONGEST_TEXT:
        return None, ""
    data = source.read_bytes()
    # What Windows calls Unicode begins by saying so.
    encoding = next((name for mark, name in _MARKED.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:8192]:
        return None, ""
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError:
        # Text of an older encoding: its bytes beyond ASCII stay what they are.
        return (None, "") if _CONTROL.search(data) else (data.decode("utf-8", "surrogateescape"), "utf-8")


def _write_lines(source: Path, target: Path, masker: Masker, events: set[str | None]) -> bool:
    """Write lines with what is private masked; nothing is written before the first in which there is any."""
    out: BinaryIO | None = None
    place = 0
    try:
        for data, masked in mask_lines(source, masker, events):
            if masked and out is None:
                out = open(target, "xb", opener=_private)  # noqa: SIM115 - closed below
                with source.open("rb") as before:
                    copy_bytes(before, out, place)
            if out is not None:
                out.write(data)
            else:
                place += len(data)
    finally:
        if out is not None:
            out.close()
    return out is not None


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
