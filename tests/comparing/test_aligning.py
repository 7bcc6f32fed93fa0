from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.comparing.aligning import Effort, Items, align, match_items

if TYPE_CHECKING:
    from collections.abc import Callable

words = st.lists(st.sampled_from("abcdefg"), max_size=40)


@settings(max_examples=200)
@given(words, words, st.sampled_from([0, 200, 10_000_000]))
def test_pairs_are_equal_and_in_order_whatever_the_effort(a: list[str], b: list[str], effort: int) -> None:
    pairs = align(a, b, Effort(effort))
    assert all(a[i] == b[j] for i, j in pairs)
    for of in ([i for i, _ in pairs], [j for _, j in pairs]):
        assert of == sorted(set(of))
    # A pair more would be found by looking between two that are next to each other.
    for (i, j), (k, m) in zip([(-1, -1), *pairs], [*pairs, (len(a), len(b))], strict=True):
        if effort > 200:
            assert not set(a[i + 1 : k]) & set(b[j + 1 : m])


def test_what_was_inserted_in_the_middle_of_repeats_costs_no_pair() -> None:
    a = ["x", "y"] * 50
    b = [*a[:31], "new", *a[31:]]
    assert len(align(a, b, Effort())) == 100
    assert len(align(a, [*"yx" * 50], Effort())) == 99


def matched(a: list[tuple[str, str]], b: list[tuple[str, str]]) -> list[tuple[int, int, bool]]:
    sides = [Items(one, [route for route, _ in one], [text for _, text in one]) for one in (a, b)]
    return match_items((sides[0], sides[1]), (range(len(a)), range(len(b))), Effort())


def test_versions_are_the_most_alike_of_one_route() -> None:
    a = [("ada", "run the tests again"), ("bob", "hello")]
    b = [("ada", "who are you"), ("ada", "please run the tests"), ("cleo", "hello")]
    assert matched(a, b) == [(0, 1, False)]
    assert matched(b, a) == [(1, 0, False)]


def test_versions_of_several_routes_need_no_common_order() -> None:
    a = [("ada", "one"), ("bob", "two")]
    found = matched(a, [("bob", "2"), ("ada", "1")])
    assert [pair[:2] for pair in found] == [(0, 1), (1, 0)]
    assert sum(moved for *_, moved in found) == 1


def test_what_moved_is_no_removal() -> None:
    a = [("ada", text) for text in "abcde"]
    b = [a[place] for place in (1, 2, 3, 0, 4)]
    assert matched(a, b) == [(0, 3, True), (1, 0, False), (2, 1, False), (3, 2, False), (4, 4, False)]


def _distinct(count: int) -> tuple[list[int], list[int]]:
    rng = random.Random(1)  # noqa: S311 - the same each time
    a = list(range(count))
    b = [one if rng.random() > 0.05 else -one for one in a if rng.random() > 0.02]
    return a, b


def _few(count: int) -> tuple[list[int], list[int]]:
    rng = random.Random(2)  # noqa: S311 - the same each time
    return [rng.randrange(3) for _ in range(count)], [rng.randrange(3) for _ in range(count)]


@pytest.mark.parametrize("kind", [_distinct, _few])
def test_ten_times_as_many_take_some_ten_times_as_long(kind: Callable[[int], tuple[list[int], list[int]]]) -> None:
    # Without effort for what is not linear; 100 times as long would be quadratic.
    def cost(count: int) -> float:
        a, b = kind(count)
        rounds = []
        for _ in range(3):
            begin = time.process_time()
            align(a, b, Effort(0))
            rounds.append(time.process_time() - begin)
        return min(rounds)

    assert cost(100_000) < 40 * cost(10_000)
