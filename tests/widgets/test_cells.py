"""When a kernel is said to be kept by a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.widgets import cells
from orchestrator_lab.widgets.cells import CellWatch

if TYPE_CHECKING:
    from collections.abc import Callable


class Standin:
    """A shell with its events, and an event loop that stands still until it is let go."""

    def __init__(self) -> None:
        self.events = self
        self.hooks: dict[str, Callable[[], None]] = {}
        self.waiting: list[Callable[[], None]] = []

    def register(self, name: str, hook: Callable[[], None]) -> None:
        self.hooks[name] = hook

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        self.waiting.append(call)

    def begin(self) -> None:
        self.hooks["pre_run_cell"]()

    def end(self) -> None:
        self.hooks["post_run_cell"]()


@pytest.fixture
def watched() -> tuple[Standin, CellWatch, list[bool]]:
    standin, told = Standin(), []
    watch = CellWatch(standin, standin)  # type: ignore[arg-type]
    watch.listen(told.append)
    standin.end()  # the cell in which it was made
    return standin, watch, told


def test_quick_cells_are_told_to_nobody(watched: Any, until: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    standin, watch, told = watched
    # However long this machine takes for one, it is quick; and the loop has time to answer.
    monkeypatch.setattr(cells, "_QUICK_S", 60.0)
    monkeypatch.setattr(cells, "_ANSWER_S", 60.0)
    for _ in range(100):
        standin.begin()
        assert watch.running
        standin.end()
    assert not watch.running
    monkeypatch.setattr(cells, "_QUICK_S", 0.1)
    standin.begin()
    until(lambda: standin.waiting)
    # Only the last one, which goes on, was asked about.
    assert len(standin.waiting) == 1
    assert told == []
    standin.waiting.pop()()
    standin.end()


def test_a_cell_that_keeps_the_loop_is_told_and_its_end_too(watched: Any, until: Any) -> None:
    standin, _, told = watched
    standin.begin()
    until(lambda: told == [True])
    standin.waiting.pop()()
    until(lambda: told == [True, False])
    standin.end()


def test_nobody_is_told_who_has_left(watched: Any, until: Any) -> None:
    standin, watch, told = watched
    other: list[bool] = []
    leave = watch.listen(other.append)
    leave()
    leave()
    standin.begin()
    until(lambda: told == [True])
    assert other == []
