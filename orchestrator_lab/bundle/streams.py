"""Streamed answers of models with what is private masked, also where an answer came in many small pieces.

A stream is server-sent events, each with a JSON object. Texts of the same place in these objects (the text of a
delta, the arguments of a tool call) are one text that goes on from event to event: it is looked through as such, and
each event gets back as much of it as it had.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator_lab.bundle.privacy import Masker

__all__ = ["mask_pieces"]

_DATA = "data:"


def mask_pieces(pieces: list[str], masker: Masker) -> list[str]:
    r"""Return the pieces of a streamed answer with what is private masked.

    Parameters
    ----------
    pieces : list of str
        As they came; a line may begin in one and end in another.
    masker : Masker
        What is private.

    Returns
    -------
    list of str
        As many; a line that was cut stands where it ended.

    Examples
    --------
    >>> from orchestrator_lab.bundle.privacy import Masker
    >>> parts = ['data: {"delta": {"text": "by a"}}\n\n', 'data: {"delta": {"text": "da."}}\n\n']
    >>> mask_pieces(parts, Masker(users=["ada"]))
    ['data: {"delta":{"text":"by u"}}\n\n', 'data: {"delta":{"text":"1_."}}\n\n']
    """
    whole, rest = [], ""
    for piece in pieces:
        lines = (rest + piece).split("\n")
        rest = lines.pop()
        whole.append(lines)
    events: dict[tuple[int, int], Any] = {}
    before: dict[tuple[int, int], str] = {}
    texts: dict[tuple[str, ...], list[tuple[Any, Any]]] = defaultdict(list)
    for number, lines in enumerate(whole):
        for place, line in enumerate(lines):
            if line.startswith(_DATA):
                try:
                    event = events[number, place] = json.loads(line.removeprefix(_DATA))
                except (ValueError, RecursionError):
                    continue
                before[number, place] = json.dumps(event)
                leaves = list(_leaves(event, ()))
                often = Counter(path for path, _, _ in leaves)
                for path, holder, key in leaves:
                    if often[path] == 1:
                        texts[path].append((holder, key))
                    else:  # texts side by side, none of which goes on in another event
                        holder[key] = masker.text(holder[key])
    for holders in texts.values():
        _mask_joined(holders, masker)
    made = []
    for number, lines in enumerate(whole):
        for place, line in enumerate(lines):
            key = (number, place)
            if key not in events:
                lines[place] = masker.text(line)
            elif json.dumps(events[key]) != before[key]:
                end = "\r" if line.endswith("\r") else ""
                lines[place] = f"{_DATA} {json.dumps(events[key], ensure_ascii=False, separators=(',', ':'))}{end}"
        made.append("".join(f"{line}\n" for line in lines))
    if rest and made:
        made[-1] += masker.text(rest)
    return made


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:  # noqa: ANN401 - JSON
    """Yield where texts stand: the names that lead there, what holds the text, and its key in that."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        inner = (*path, key) if isinstance(key, str) else path
        if isinstance(one, str):
            yield inner, value, key
        else:
            yield from _leaves(one, inner)


def _mask_joined(holders: list[tuple[Any, Any]], masker: Masker) -> None:
    """Mask texts as one."""
    joined = "".join(holder[key] for holder, key in holders)
    edits: dict[int, str] = {}
    for hit in masker.hits(joined):
        masker.counts[hit.pattern] += 1
        made = masker.substitute(hit)
        # A wide letter has two in its place: what is left over stands where the last one stood.
        edits.update(dict.fromkeys(range(hit.start, hit.end), ""))
        edits.update(zip(range(hit.start, hit.end), made, strict=False))
        edits[hit.end - 1] += made[len(hit.text) :]
    if not edits:
        return
    start = 0
    for holder, key in holders:
        text = holder[key]
        holder[key] = "".join(edits.get(start + place, char) for place, char in enumerate(text))
        start += len(text)
