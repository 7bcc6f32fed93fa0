"""Every cell of the delivery matrix for the fake and a program, and a covering set for the real agents.

The kinds run side by side, each in a cluster of its own whose one agent is put into one state after the other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from matrix_cells import SHAPES, STATES, Truth, body, covering, judge
from matrix_rigs import ChatRig, ClaudeRig, CodexRig, FakeRig, ProgramRig, SilentFakeRig, cells, folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matrix_cells import Cell
    from matrix_rigs import Rig

pytestmark = pytest.mark.timeout(900)


class Results:
    """Runs what is asked for, the first time that it is asked for."""

    def __init__(self, rigs: dict[str, tuple[Rig, list[tuple[str, str]]]]) -> None:
        self._found: dict[str, list[Cell] | BaseException] = {}
        self._threads = {
            name: threading.Thread(target=self._run, args=(name, rig, wanted), name=f"matrix {name}")
            for name, (rig, wanted) in rigs.items()
        }
        for thread in self._threads.values():
            thread.start()

    def _run(self, name: str, rig: Rig, wanted: list[tuple[str, str]]) -> None:
        try:
            self._found[name] = cells(rig, wanted)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            self._found[name] = error

    def of(self, name: str) -> list[Cell]:
        self._threads[name].join()
        found = self._found[name]
        if isinstance(found, BaseException):
            raise found
        return found

    def join(self) -> None:
        for thread in self._threads.values():
            thread.join()


def _all(rig: Rig) -> tuple[Rig, list[tuple[str, str]]]:
    return rig, [(state, shape) for state in rig.states for shape in rig.shapes]


def _some(rig: Rig, shift: int) -> tuple[Rig, list[tuple[str, str]]]:
    # The states that need a new process come last, so that the others share one.
    chosen = covering(rig.states, rig.shapes, shift)
    return rig, sorted(chosen, key=lambda cell: STATES.index(cell[0]))


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, module_runtime: Path) -> Iterator[Results]:  # noqa: ARG001
    """What the selected tests need, all of it side by side."""
    selected = {item.originalname for item in request.session.items if item.path == request.path}
    rigs: dict[str, tuple[Rig, list[tuple[str, str]]]] = {}
    if "test_every_cell" in selected:
        rigs = {rig.kind: _all(rig) for rig in (FakeRig(folder()), SilentFakeRig(folder()), ProgramRig(folder()))}
    if "test_chat" in selected:
        rigs["chat"] = _some(ChatRig(folder()), 0)
    if "test_claude" in selected:
        command = request.getfixturevalue("claude_command")
        rigs["claude"] = _some(ClaudeRig(folder(), command=command), 2)
    if "test_codex" in selected:
        rigs["codex"] = _some(CodexRig(folder()), 4)
    found = Results(rigs)
    yield found
    found.join()


def _check(found: list[Cell]) -> None:
    wrong = [f"{one.state} × {one.shape}: {one.verdict} [{one.status}]\n{one.detail}" for one in found if one.wrong]
    assert not wrong, f"{len(wrong)} of {len(found)} cells are wrong:\n" + "\n\n".join(wrong)
    unsure = [one for one in found if "uncertain" in one.verdict and one.state != "dying"]
    assert not unsure, f"told as uncertain without need: {unsure}"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["fake", "fake, silent", "program"])
def test_every_cell(results: Results, kind: str, state: str) -> None:
    found = [one for one in results.of(kind) if one.state == state]
    assert len(found) >= len(SHAPES)
    _check(found)


def test_chat(results: Results) -> None:
    _check(results.of("chat"))


@pytest.mark.claude
def test_claude(results: Results) -> None:
    _check(results.of("claude"))


@pytest.mark.codex
def test_codex(results: Results) -> None:
    _check(results.of("codex"))


# the judge itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "truth", "wrong"),
    [
        ("answered", None, Truth(("x",)), ""),
        ("accepted", None, Truth(()), "never delivered"),
        ("failed", "tmux", Truth(("x",)), "delivered, but"),
        ("failed", "turn_limit", Truth(("x",)), ""),
        ("answered", None, Truth(("x", "x")), "2 times"),
        ("answered", None, Truth(("x y",)), "damaged"),
        ("expired", None, Truth((), ("x",)), "does not belong"),
        ("expired", None, Truth(()), ""),
        ("uncertain", None, Truth(()), ""),
        ("queued", None, Truth(()), "neither"),
    ],
)
def test_the_judge(status: str, error: str | None, truth: Any, wrong: str) -> None:
    verdict, why = judge("x", status, error, truth, ())
    assert bool(verdict) == bool(wrong)
    assert wrong in why


def test_shapes_are_what_they_say() -> None:
    assert body("200 lines", "t").count("\n") == 199
    assert 100_000 <= len(body("100 kB", "t")) < 110_000
    assert 1_000_000 <= len(body("1 MB", "t")) < 1_010_000
    assert body("100 kB", "t") != body("100 kB", "u")
    pairs = {pair for shift in range(len(STATES)) for pair in covering(STATES, SHAPES, shift)}
    assert pairs == {(state, shape) for state in STATES for shape in SHAPES}
