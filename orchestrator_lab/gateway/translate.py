"""Recorded answers, said for the cluster that asks now: with its ids and its places in them.

A model that was recorded names what it was told: the id of a message that it answers, a file in the work folder. In a
replay these have other names. They are replaced in the whole answer, also where a stream cuts a name in two.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["names_pattern", "translated"]

#: A text that comes in pieces: the part of an event that holds each, and under which key.
_Row = list[tuple[dict[str, Any], str]]

#: Keys of stream events that hold a piece of a longer text.
_PIECES = frozenset({"text", "partial_json", "thinking", "delta", "content", "arguments"})
#: Where a number is the name of something that goes on.
_NUMBERED = r'(?:(?<="session_id":)|(?<="session_id": )|(?<=session ID ))'
#: Keys that tell to which text a piece belongs.
_BELONGS = ("index", "item_id", "output_index", "content_index")


def translated(
    pieces: list[str], names: Mapping[str, str], *, stream: bool, pattern: re.Pattern[str] | None = None
) -> list[str]:
    r"""Return an answer with other names in it.

    Parameters
    ----------
    pieces : list of str
        The answer's body as it was streamed.
    names : mapping of str to str
        Recorded names, and what they are now.
    stream : bool
        True for an event stream, False for one JSON value.
    pattern : re.Pattern, optional
        Finds the names; by default where they stand alone.

    Returns
    -------
    list of str
        `pieces` themselves when no name is in them.

    Examples
    --------
    >>> body = ['data: {"delta": {"text": "see /old"}}\n\n', 'data: {"delta": {"text": "/work/a"}}\n\n']
    >>> translated(body, {"/old/work": "/new"}, stream=True)
    ['data: {"delta":{"text":"see /new"}}\n\ndata: {"delta":{"text":"/a"}}\n\n']
    """
    pattern = pattern or names_pattern(names)
    if pattern is None:
        return pieces
    whole = "".join(pieces)
    if not stream:
        try:
            value = json.loads(whole)
        except ValueError:
            return pieces
        other = _replaced(value, pattern, names)
        return pieces if other == value else [json.dumps(other, ensure_ascii=False)]
    events = [(event, _data(event)) for event in re.split(r"(?<=\n\n)", whole) if event]
    values = [value for _, value in events if value is not None]
    rows = _rows(values)
    # As a rule there is none: one look at all texts costs less than one at each. No name has a null character in it.
    texts = itertools.chain(("".join(str(holder[key]) for holder, key in row) for row in rows), _strings(values))
    if not pattern.search("\0".join(texts)):
        return pieces
    slots = _replace_cut(rows, pattern, names)
    found = []
    for event, value in events:
        other = None if value is None else _replaced(value, pattern, names, slots)
        found.append(event if value is None or other == _data(event) else _event(event, other))
    text = "".join(found)
    return pieces if text == whole else [text]


def names_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    r"""Return the pattern that finds names where they stand alone; None when there are none.

    Examples
    --------
    >>> pattern = names_pattern(["/root"])
    >>> names_pattern(["4330"]).sub("N", '{"session_id":4330, "chars":"4330"}')
    '{"session_id":N, "chars":"4330"}'
    >>> [pattern.sub("/new", text) for text in ("cat /root/a", "/home/root", "/rooted", r'{"text": "a\n/root"}')]
    ['cat /new/a', '/home/root', '/rooted', '{"text": "a\\n/new"}']
    """
    listed = sorted(names, key=len, reverse=True)
    numbers, words = ([one for one in listed if one.isdigit() is number] for number in (True, False))
    # In a text of JSON a name may follow the two characters that stand for the end of a line.
    ways = [rf"(?:(?<![\w.-])|(?<=\\[nrt]))(?:{'|'.join(map(re.escape, words))})(?![\w-])"] if words else []
    # A number may be anything: it is a name only where Codex says and takes one.
    ways += [rf"{_NUMBERED}(?:{'|'.join(numbers)})(?!\d)"] if numbers else []
    return re.compile("|".join(ways)) if ways else None


def _data(event: str) -> Any:  # noqa: ANN401 - any JSON
    lines = [line[5:].strip() for line in event.split("\n") if line.startswith("data:")]
    try:
        value = json.loads("\n".join(lines))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _event(event: str, value: object) -> str:
    """Return an event with other data, its other lines as they were."""
    rows = [row for row in event.rstrip("\n").split("\n") if not row.startswith("data:")]
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "\n".join([*rows, f"data: {data}"]) + "\n\n"


def _replaced(
    value: Any,  # noqa: ANN401 - any JSON
    pattern: re.Pattern[str],
    names: Mapping[str, str],
    done: frozenset[tuple[int, str]] = frozenset(),
) -> Any:  # noqa: ANN401
    """Return a value with other names in it; what is done already stays."""
    if isinstance(value, str):
        return pattern.sub(lambda found: names[found[0]], value)
    if isinstance(value, list):
        return [_replaced(one, pattern, names, done) for one in value]
    if isinstance(value, dict):
        return {
            key: one if (id(value), key) in done else _replaced(one, pattern, names, done) for key, one in value.items()
        }
    return value


def _rows(values: Iterable[dict[str, Any]]) -> list[_Row]:
    """Return the texts that come in pieces, each as the places of its pieces."""
    rows: dict[tuple[Any, ...], _Row] = {}
    for value in values:
        for holder, key, belongs in _slots(value, ()):
            rows.setdefault((*belongs, key), []).append((holder, key))
    return list(rows.values())


def _strings(values: Iterable[Any]) -> Iterator[str]:
    """Yield each text in JSON values."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _strings(value)
        elif isinstance(value, dict):
            yield from _strings(value.values())


def _replace_cut(rows: list[_Row], pattern: re.Pattern[str], names: Mapping[str, str]) -> frozenset[tuple[int, str]]:
    """Replace names in texts that come in pieces, each whole in its first piece; return which pieces there are."""
    for row in rows:
        texts = [str(holder[key]) for holder, key in row]
        for found in reversed(list(pattern.finditer("".join(texts)))):
            _put(texts, found.start(), found.end(), names[found[0]])
        for (holder, key), text in zip(row, texts, strict=True):
            holder[key] = text
    return frozenset((id(holder), key) for row in rows for holder, key in row)


def _slots(value: object, belongs: tuple[Any, ...]) -> Iterator[tuple[dict[str, Any], str, tuple[Any, ...]]]:
    """Yield where pieces of longer texts stand in an event's data, and to which text each belongs."""
    if isinstance(value, list):
        for one in value:
            yield from _slots(one, belongs)
    if not isinstance(value, dict):
        return
    mine = (*belongs, *((key, value[key]) for key in _BELONGS if isinstance(value.get(key), str | int)))
    for key, one in value.items():
        if isinstance(one, str):
            # Whole texts stand in events that end something.
            if key in _PIECES and not str(value.get("type", "")).endswith((".done", "_stop")):
                yield value, key, mine
        else:
            yield from _slots(one, (*mine, key))


def _put(texts: list[str], start: int, end: int, name: str) -> None:
    """Replace what stands from `start` to `end` of joined texts."""
    at = 0
    for place, text in enumerate(texts):
        low, high = max(start - at, 0), min(end - at, len(text))
        if low < high:
            texts[place] = text[:low] + name + text[high:]
            name = ""
        at += len(text)
