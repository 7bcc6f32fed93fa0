"""What changed in a text, line by line and word by word, and values as people read them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from orchestrator_lab.comparing.aligning import align
from orchestrator_lab.reading.texts import clean, one_line, shown_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator_lab.comparing.aligning import Effort
    from orchestrator_lab.comparing.difference import RunDiff, Total
    from orchestrator_lab.comparing.rows import RowDiff

__all__ = [
    "HEADS",
    "MARKS",
    "NOTHING",
    "Line",
    "amount",
    "change_of",
    "is_long",
    "line_diff",
    "number_of",
    "shown",
    "shown_pair",
    "took",
]

NOTHING = "—"
MARKS = {"changed": "~", "moved": "⇅", "removed": "-", "added": "+"}
#: What each total is called above its column.
HEADS = {
    "turns": "turns",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "cache_read_input_tokens": "cache read",
    "cache_creation_input_tokens": "cache written",
    "cost_usd": "USD",
    "duration_s": "seconds",
}
#: Lines around a change, and characters of a long line around what changed in it.
_AROUND, _CHARACTERS = 1, 80
#: A longer line is cut where it is the same on both sides; one of more characters is not compared word by word.
_LONG_LINE, _CHARACTERS_BY_WORD = 400, 20_000
#: Lines in a row that changed and are compared word by word.
_LINES_BY_WORD = 200
#: A text up to this length stands on the line of its name.
_SHORT = 60
_WORD = re.compile(r"\w+|\s+|.")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text that changed.

    Parameters
    ----------
    mark : str
        ``-`` only in the first, ``+`` only in the second, a space in both; ``…`` where lines that are the same are
        left out.
    parts : tuple of (str, bool)
        The line in pieces, and whether each is what changed in it.
    """

    mark: str
    parts: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        """The line."""
        return "".join(part for part, _ in self.parts)


def line_diff(a: str, b: str, effort: Effort) -> list[Line]:
    r"""Return what changed from one text to another.

    Parameters
    ----------
    a, b : str
        Of whoever; control characters become their pictures.
    effort : Effort
        Is used up.

    Returns
    -------
    list of Line
        What changed, with a line around.

    Examples
    --------
    >>> from orchestrator_lab.comparing.aligning import Effort
    >>> [line.mark + line.text for line in line_diff("one\ntwo", "one\n2", Effort())]
    [' one', '-two', '+2']
    """
    old, new = clean(a).split("\n"), clean(b).split("\n")
    same = align(old, new, effort)
    found: list[Line] = []
    for (i, j), (k, m) in pairwise([(-1, -1), *same, (len(old), len(new))]):
        if k > i + 1 or m > j + 1:
            found += _replaced(old[i + 1 : k], new[j + 1 : m], effort)
        if k < len(old):
            found.append(Line(" ", ((old[k], False),)))
    return _folded(found)


def _replaced(old: Sequence[str], new: Sequence[str], effort: Effort) -> list[Line]:
    removed: list[Line] = []
    added: list[Line] = []
    for number, (before, after) in enumerate(zip_longest(old, new)):
        if before is None or after is None or number >= _LINES_BY_WORD:
            removed += [] if before is None else [Line("-", ((before, False),))]
            added += [] if after is None else [Line("+", ((after, False),))]
            continue
        left, right = _words(before, after, effort)
        removed.append(Line("-", left))
        added.append(Line("+", right))
    return [*removed, *added]


def _words(a: str, b: str, effort: Effort) -> tuple[tuple[tuple[str, bool], ...], tuple[tuple[str, bool], ...]]:
    """Return two versions of a line in pieces; nothing is marked where they have nothing in common."""
    sides: list[tuple[tuple[str, bool], ...]]
    if max(len(a), len(b)) > _CHARACTERS_BY_WORD:
        begin = _common(a, b)
        end = _common(a[begin:][::-1], b[begin:][::-1])
        sides = [
            ((one[:begin], False), (one[begin : len(one) - end], True), (one[len(one) - end :], False))
            for one in (a, b)
        ]
    else:
        old, new = _WORD.findall(a), _WORD.findall(b)
        same = align(old, new, effort)
        if not any(old[i].strip() for i, _ in same):
            return ((a, False),), ((b, False),)
        kept = {i for i, _ in same}, {j for _, j in same}
        sides = [
            tuple((word, place not in known) for place, word in enumerate(words))
            for words, known in zip((old, new), kept, strict=True)
        ]
    cut = max(len(a), len(b)) > _LONG_LINE
    left, right = (_joined(parts, cut=cut) for parts in sides)
    return left, right


def _common(a: str, b: str) -> int:
    """Return how many characters two texts begin with in common."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _joined(parts: Sequence[tuple[str, bool]], *, cut: bool) -> tuple[tuple[str, bool], ...]:
    """Put pieces of one kind together; a long piece that is the same keeps its ends."""
    joined: list[tuple[str, bool]] = []
    for text, changed in parts:
        if joined and joined[-1][1] == changed:
            joined[-1] = (joined[-1][0] + text, changed)
        elif text:
            joined.append((text, changed))
    if not cut:
        return tuple(joined)
    shown = []
    for place, (text, changed) in enumerate(joined):
        head = _CHARACTERS if place else 0
        tail = _CHARACTERS if place < len(joined) - 1 else 0
        if changed or len(text) <= head + tail + 1:
            shown.append((text, changed))
        else:
            shown.append((f"{text[:head]}…{text[len(text) - tail :] if tail else ''}", changed))
    return tuple(shown)


def _folded(lines: list[Line]) -> list[Line]:
    """Leave out lines that are the same and far from a change."""
    changed = [place for place, line in enumerate(lines) if line.mark != " "]
    near = {place + step for place in changed for step in range(-_AROUND, _AROUND + 1)}
    found: list[Line] = []
    for place, line in enumerate(lines):
        if place in near:
            found.append(line)
        elif not found or found[-1].mark != "…":
            found.append(Line("…", (("", False),)))
    return found


# values -----------------------------------------------------------------------------------------


def shown(value: Any, length: int = _SHORT) -> str:  # noqa: ANN401 - any JSON value
    r"""Return a value on one line.

    Examples
    --------
    >>> shown(None), shown(""), shown("two\nlines"), shown(0.1 + 0.2), shown(True)
    ('—', '""', 'two lines', '0.3', 'true')
    """
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return one_line(value, length) if value.strip() else json.dumps(value)
    if isinstance(value, float):
        return f"{value:.12g}"
    return one_line(json.dumps(value, ensure_ascii=False), length)


def shown_pair(a: Any, b: Any) -> tuple[str, str]:  # noqa: ANN401 - any JSON value
    """Return two values that differ on a line each: so that the difference is seen."""
    told = shown(a), shown(b)
    if told[0] != told[1]:
        return told
    # What is a text in one and a number in the other looks the same.
    left, right = (one_line(json.dumps(one, ensure_ascii=False), 2 * _SHORT) for one in (a, b))
    return left, right


def is_long(a: object, b: object) -> bool:
    """Tell whether two values are better shown as a text that changed."""
    texts = [one for one in (a, b) if isinstance(one, str)]
    return (
        bool(texts)
        and all(isinstance(one, str) or one is None for one in (a, b))
        and any("\n" in one or len(one) > _SHORT for one in texts)
    )


def amount(name: str, value: float | None) -> str:
    """Return a figure of the costs.

    Examples
    --------
    >>> amount("input_tokens", 12345), amount("cost_usd", 0.5), amount("duration_s", 12.345), amount("turns", None)
    ('12 345', '0.5000', '12.3', '—')
    """
    if value is None:
        return NOTHING
    if name.endswith(("_usd", "_s")):
        return f"{value:,.{4 if name.endswith('_usd') else 1}f}".replace(",", " ")
    return f"{value:,}".replace(",", " ")


def change_of(total: Total) -> str:
    """Return by how much the second of two figures is more; nothing when they are shown the same."""
    if total.difference is None or amount(total.name, total.a) == amount(total.name, total.b):
        return ""
    told = amount(total.name, abs(total.difference))
    return f"{'+' if total.difference > 0 else '−'}{told}"


def number_of(row: RowDiff) -> str:
    """Return which rows are meant, counted from 1.

    Examples
    --------
    >>> from orchestrator_lab.comparing.rows import RowDiff
    >>> number_of(RowDiff("moved", ("ada",), 1, 3, None, None, None, None))
    '#2 → #4'
    """
    numbers = [f"#{place + 1}" for place in (row.a, row.b) if place is not None]
    return " → ".join(dict.fromkeys(numbers))


def took(diff: RunDiff, table: str, row: RowDiff) -> str:
    """Return how long a turn took in each run; nothing of other rows."""
    if table != "turns":
        return ""
    known = [shown_seconds(one) for one in diff.value(table, "duration_s", row.a, row.b) if one is not None]
    return f"took {' → '.join(dict.fromkeys(known))}" if known else ""
