"""The published states against the truth, over time: never idle while an agent works or asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confusion import KINDS, Matrix, Span, confusion, measure_all
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def measured(
    module_runtime: Path,  # noqa: ARG001 - where the clusters live
    claude_command: str,  # noqa: ARG001 - it is there
    codex_command: str,  # noqa: ARG001
) -> dict[str, Matrix | BaseException]:
    return measure_all(KINDS, {})


@pytest.mark.timeout(400)
@pytest.mark.claude
@pytest.mark.codex
@pytest.mark.parametrize("kind", KINDS)
def test_never_idle_while_it_works_or_asks(measured: dict[str, Matrix | BaseException], kind: str) -> None:
    found = measured[kind]
    if isinstance(found, BaseException):
        raise found
    print(kind, *found.rows(), sep="\n")
    assert found.idle_for_work == 0, "\n".join(found.rows())
    assert found.share("unknown") < 0.02, "\n".join(found.rows())
    # Everything that was to be measured was there.
    assert {true for true, _ in found.seconds} >= {"idle", "busy", "exited"}
    assert ("waiting", "waiting") in found.seconds or kind == "chat"


def test_what_is_near_a_change_may_be_either() -> None:
    truth = [Span(0, 10, "idle"), Span(10, 20, "busy")]
    late = confusion(truth, [Span(0, 10.4, "idle"), Span(10.4, 20, "busy")])
    assert dict(late.seconds) == {("idle", "idle"): 10, ("busy", "busy"): pytest.approx(10)}
    later = confusion(truth, [Span(0, 12, "idle"), Span(12, 20, "busy")])
    assert later.idle_for_work == pytest.approx(1.5)


states = st.sampled_from(["idle", "busy", "waiting", "unknown"])
lengths = st.lists(st.tuples(st.floats(0.01, 5), states), min_size=1, max_size=8)


def _spans(parts: list[tuple[float, str]]) -> list[Span]:
    at, found = 0.0, []
    for length, state in parts:
        found.append(Span(at, at + length, state))
        at += length
    return found


@given(lengths, lengths)
def test_all_time_is_counted_once(truth: list[tuple[float, str]], said: list[tuple[float, str]]) -> None:
    true, published = _spans(truth), _spans(said)
    found = confusion(true, published)
    assert found.total == pytest.approx(min(true[-1].end, published[-1].end))
    assert confusion(true, true).total == pytest.approx(
        sum(v for (a, b), v in confusion(true, true).seconds.items() if a == b)
    )
