"""Which item of one sequence is which of another: in time that grows with their length, whatever they hold.

What is the same at both ends is taken away, then items that occur once on both sides are anchors (as in "patience"
diffs), and only what lies between two anchors and has none is left to :mod:`difflib`, as long as the effort lasts: its
time grows with the cube of the length in the worst case. Beyond it, the nth occurrence of an item on one side is taken
for the nth on the other.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

__all__ = ["Effort", "Items", "align", "match_items"]

#: Anchors within anchors, so deep; deeper only what was made for it goes.
_DEPTH = 40
#: Characters of a text that its likeness to others is judged by.
_LOOKED_AT = 4000


@dataclass
class Effort:
    """How much may be spent on what is not linear, in comparisons of two items at the worst.

    Parameters
    ----------
    left : int
        What is left of it.
    """

    left: int = 20_000_000

    def spend(self, first: int, second: int) -> bool:
        """Take what a comparison of so many items with so many may need; False when that is not there any more."""
        need = first * second * min(first, second)
        if need > self.left:
            return False
        self.left -= need
        return True


@dataclass(frozen=True)
class Items:
    """One side of what is matched, a value an item in each list.

    Parameters
    ----------
    key : sequence of hashable
        Items with the same key are the same.
    route : sequence of hashable
        Only items with the same route can be versions of each other.
    text : sequence of str
        What decides between several that can.
    """

    key: Sequence[Hashable]
    route: Sequence[Hashable]
    text: Sequence[str]
    _words: dict[int, frozenset[str]] = field(default_factory=dict)

    def words(self, item: int) -> frozenset[str]:
        """Return the words of an item's text."""
        if item not in self._words:
            self._words[item] = frozenset(re.findall(r"\w+", self.text[item][:_LOOKED_AT]))
        return self._words[item]


def align(a: Sequence[Hashable], b: Sequence[Hashable], effort: Effort) -> list[tuple[int, int]]:
    """Return pairs of equal items, in the order of both sequences.

    Parameters
    ----------
    a, b : sequence of hashable
        The sequences.
    effort : Effort
        Is used up.

    Returns
    -------
    list of (int, int)
        Places in ``a`` and in ``b``, both increasing.

    Examples
    --------
    >>> align("abcd", "axcd", Effort())
    [(0, 0), (2, 2), (3, 3)]
    """
    if len(a) == len(b) and all(x == y for x, y in zip(a, b, strict=True)):
        return [(place, place) for place in range(len(a))]
    pairs: list[tuple[int, int]] = []
    todo = [(0, len(a), 0, len(b), 0)]
    while todo:
        a0, a1, b0, b1, depth = todo.pop()
        while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
            pairs.append((a0, b0))
            a0, b0 = a0 + 1, b0 + 1
        while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
            a1, b1 = a1 - 1, b1 - 1
            pairs.append((a1, b1))
        if a0 == a1 or b0 == b1:
            continue
        anchors = _once_on_both(a, b, (a0, a1, b0, b1)) if depth < _DEPTH else []
        if anchors:
            pairs += anchors
            bounds = [(a0 - 1, b0 - 1), *anchors, (a1, b1)]
            todo += [(i + 1, k, j + 1, m, depth + 1) for (i, j), (k, m) in pairwise(bounds) if k > i + 1 and m > j + 1]
        elif effort.spend(a1 - a0, b1 - b0):
            blocks = SequenceMatcher(None, a[a0:a1], b[b0:b1], autojunk=False).get_matching_blocks()
            pairs += [(a0 + i + k, b0 + j + k) for i, j, length in blocks for k in range(length)]
        else:
            pairs += _by_occurrence(a, b, (a0, a1, b0, b1))
    pairs.sort()
    return pairs


def match_items(
    items: tuple[Items, Items], places: tuple[Sequence[int], Sequence[int]], effort: Effort
) -> list[tuple[int, int, bool]]:
    """Return which item is which: the same ones, those that moved, and between them those that changed.

    Parameters
    ----------
    items : tuple of Items
        Both sides.
    places : tuple of sequence of int
        The items of each that are meant, in their order.
    effort : Effort
        Is used up.

    Returns
    -------
    list of (int, int, bool)
        Item, item, and whether it stands elsewhere among the others; in the order of the first side.
    """
    (a, b), (a_places, b_places) = items, places
    a_keys, b_keys = [a.key[i] for i in a_places], [b.key[j] for j in b_places]
    same = align(a_keys, b_keys, effort)
    if len(same) == len(a_places) == len(b_places):
        return [(i, j, False) for i, j in zip(a_places, b_places, strict=True)]
    left_a, left_b = {x for x, _ in same}, {y for _, y in same}
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for y in reversed(range(len(b_keys))):
        if y not in left_b:
            waiting[b_keys[y]].append(y)
    elsewhere = [(x, waiting[key].pop()) for x, key in enumerate(a_keys) if x not in left_a and waiting.get(key)]
    taken_a, taken_b = {x for x, _ in elsewhere}, {y for _, y in elsewhere}
    found = same + elsewhere
    for (i, j), (k, m) in pairwise([(-1, -1), *same, (len(a_keys), len(b_keys))]):
        if k == i + 1 or m == j + 1:
            continue
        free_a = [x for x in range(i + 1, k) if x not in taken_a]
        free_b = [y for y in range(j + 1, m) if y not in taken_b]
        found += _versions(items, places, free_a, free_b, effort)
    found.sort()
    steady = {found[place] for place in _longest_increasing([y for _, y in found])}
    return [(a_places[x], b_places[y], (x, y) not in steady) for x, y in found]


def _versions(
    items: tuple[Items, Items],
    places: tuple[Sequence[int], Sequence[int]],
    free_a: Sequence[int],
    free_b: Sequence[int],
    effort: Effort,
) -> Iterator[tuple[int, int]]:
    """Yield which of the items between two anchors are versions of each other: as many as can be, the most alike."""
    (a, b), (a_places, b_places) = items, places
    routes: dict[Hashable, tuple[list[int], list[int]]] = {}
    for x in free_a:
        routes.setdefault(a.route[a_places[x]], ([], []))[0].append(x)
    for y in free_b:
        if (known := routes.get(b.route[b_places[y]])) is not None:
            known[1].append(y)
    for xs, ys in routes.values():
        if len(xs) == len(ys) or not ys or not effort.spend(len(xs), len(ys)):
            yield from zip(xs, ys, strict=False)
            continue
        words_a, words_b = [a.words(a_places[x]) for x in xs], [b.words(b_places[y]) for y in ys]
        yield from ((xs[i], ys[j]) for i, j in _most_alike(words_a, words_b))


def _most_alike(a: Sequence[frozenset[str]], b: Sequence[frozenset[str]]) -> list[tuple[int, int]]:
    """Return pairs in order: all of the shorter side, and of these the ones with most words in common."""
    likeness = [[1.0 + len(x & y) / (len(x | y) or 1) for y in b] for x in a]
    best = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], best[i][j] + likeness[i][j])
    pairs, i, j = [], len(a), len(b)
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _once_on_both(
    a: Sequence[Hashable], b: Sequence[Hashable], span: tuple[int, int, int, int]
) -> list[tuple[int, int]]:
    """Return the pairs of items that occur once on each side, as many as are in the same order."""
    a0, a1, b0, b1 = span
    in_a, in_b = Counter(a[a0:a1]), Counter(b[b0:b1])
    where = {b[j]: j for j in range(b0, b1) if in_b[b[j]] == 1}
    return _in_order((i, where[a[i]]) for i in range(a0, a1) if in_a[a[i]] == 1 and a[i] in where)


def _by_occurrence(
    a: Sequence[Hashable], b: Sequence[Hashable], span: tuple[int, int, int, int]
) -> list[tuple[int, int]]:
    """Return pairs of the nth occurrences of each item, as many as are in the same order."""
    a0, a1, b0, b1 = span
    where: dict[Hashable, list[int]] = defaultdict(list)
    for j in range(b0, b1):
        where[b[j]].append(j)
    seen: Counter[Hashable] = Counter()
    pairs = []
    for i in range(a0, a1):
        number, seen[a[i]] = seen[a[i]], seen[a[i]] + 1
        if number < len(where.get(a[i], ())):
            pairs.append((i, where[a[i]][number]))
    return _in_order(pairs)


def _in_order(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    known = list(pairs)
    return [known[place] for place in _longest_increasing([j for _, j in known])]


def _longest_increasing(values: Sequence[int]) -> list[int]:
    """Return the places of a longest increasing subsequence, by patience sorting."""
    tops: list[int] = []
    at: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values):
        pile = bisect_left(tops, value)
        before.append(at[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(value)
            at.append(place)
        else:
            tops[pile], at[pile] = value, place
    found = []
    place = at[-1] if at else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]
