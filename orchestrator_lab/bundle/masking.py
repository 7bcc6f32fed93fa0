"""Files of a run with what is private masked: JSON by its texts, everything else as it reads."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator_lab.bundle.recordings import mask_recording
from orchestrator_lab.bundle.streams import mask_pieces
from orchestrator_lab.cassette import SUFFIX, rewrite_cassette

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab.bundle.privacy import Masker

__all__ = ["mask_content", "mask_file", "mask_json", "mask_lines", "mask_value"]

_PIECE = 8 << 20
#: A file of another kind is looked through as text up to this size.
_LONGEST_TEXT = 64 << 20
#: Outputs of notebooks that are no text; to look for words in them would break them.
_PICTURES = ("image/", "audio/", "video/", "application/pdf", "application/vnd.apache.parquet")


def mask_file(source: Path, target: Path, masker: Masker) -> bool | None:
    """Write a file with what is private masked.

    Parameters
    ----------
    source : pathlib.Path
        Any file of a run.
    target : pathlib.Path
        The file to write, mode 0600; it is there only when something was masked.
    masker : Masker
        What is private.

    Returns
    -------
    bool or None
        Whether anything was masked; None when the file is no text, and was not looked into.

    Raises
    ------
    JournalError
        When a recording is damaged.
    CassetteDamaged
        When a cassette is damaged, or was changed since it was recorded.
    """
    changed: bool | None
    if source.name.endswith((".cast.zst", ".cast")):
        changed = mask_recording(source, target, masker)
    elif source.name.endswith(SUFFIX):
        before = sum(masker.counts.values())
        rewrite_cassette(source, target, lambda text: _of_cassette(text, masker))
        changed = sum(masker.counts.values()) > before
    elif source.suffix == ".jsonl":
        changed = _write_lines(source, target, masker)
    else:
        text = _text(source)
        if text is None:
            return None
        masked = mask_json(text, masker) if source.suffix in {".json", ".ipynb"} else masker.text(text)
        changed = masked != text
        if changed:
            with open(target, "xb", opener=_private) as file:
                file.write(_encoded(masked))
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
    text = _text(source)
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
        file.write(_encoded(masked))
    return True


def mask_lines(source: Path, masker: Masker) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines of a file of JSON lines, some megabytes at a time, with what is private in them masked.

    Parameters
    ----------
    source : pathlib.Path
        The file; a last line without its newline is one too.
    masker : Masker
        What is private.

    Yields
    ------
    tuple of (bytes, bool)
        Lines, and whether anything in them was masked.
    """
    with source.open("rb") as file:
        rest = b""
        while True:
            piece = file.read(_PIECE)
            data = rest + piece
            cut = data.rfind(b"\n") + 1 if piece else len(data)
            data, rest = data[:cut], data[cut:]
            marks = masker.marks
            if marks is not None:
                whole = data.lower()
                marks = tuple(mark for mark in marks if mark in whole)
            if marks == ():
                yield data, False
            elif data:
                lines = [_line(line, masker) if _may(line, marks) else line for line in data.split(b"\n")]
                masked = b"\n".join(lines)
                yield masked, masked != data
            if not piece:
                return


def _may(line: bytes, marks: tuple[bytes, ...] | None) -> bool:
    """Tell whether anything in a line may be private."""
    if marks is None:
        return bool(line)
    lower = line.lower()
    return any(mark in lower for mark in marks)


def _line(line: bytes, masker: Masker) -> bytes:
    text = line.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return masker.text(text).encode("utf-8", "surrogateescape")
    masked = mask_value(value, masker)
    return line if masked == value else _encoded(_compact(masked))


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


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a byte that was no UTF-8; JSON holds it as an escape
        return text.encode("utf-8", "backslashreplace")


def _text(source: Path) -> str | None:
    """Return a file's text; None when it is none, or too long."""
    if source.stat().st_size > _LONGEST_TEXT:
        return None
    data = source.read_bytes()
    if b"\0" in data[:8192]:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _write_lines(source: Path, target: Path, masker: Masker) -> bool:
    """Write lines with what is private masked; nothing is written before the first in which there is any."""
    out: BinaryIO | None = None
    place = 0
    try:
        for data, masked in mask_lines(source, masker):
            if masked and out is None:
                out = open(target, "xb", opener=_private)  # noqa: SIM115 - closed below
                with source.open("rb") as before:
                    _copy(before, out, place)
            if out is not None:
                out.write(data)
            else:
                place += len(data)
    finally:
        if out is not None:
            out.close()
    return out is not None


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count and (piece := source.read(min(count, _PIECE))):
        target.write(piece)
        count -= len(piece)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
