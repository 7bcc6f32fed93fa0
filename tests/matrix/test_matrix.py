"""Every cell of the delivery matrix for the fake and a program, and a covering set for the real agents.

The kinds run side by side, each in a cluster of its own whose one agent is put into one state after the other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from matrix_cells import SHAPES, STATES, Truth, body, covering, judge
from matrix_rigs import ChatRig, ClaudeRig, FakeRig, ProgramRig, SilentFakeRig, cells, folder

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.errors import ConfigError

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
def synthetic(module_runtime: Path) -> Iterator[Results]:  # noqa: ARG001 - where the clusters live
    rigs = {rig.kind: _all(rig) for rig in (FakeRig(folder()), SilentFakeRig(folder()), ProgramRig(folder()))}
    found = Results({**rigs, "chat": _some(ChatRig(folder()), 0)})
    yield found
    found.join()


def _check(found: list[Cell]) -> None:
    wrong = [f"{one.state} × {one.shape}: {one.verdict} [{one.status}]\n{one.detail}" for one in found if one.wrong]
    assert not wrong, f"{len(wrong)} of {len(found)} cells are wrong:\n" + "\n\n".join(wrong)
    unsure = [one for one in found if "uncertain" in one.verdict and one.state != "dying"]
    assert not unsure, f"told as uncertain without need: {unsure}"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["fake", "fake, silent", "program"])
def test_every_cell(synthetic: Results, kind: str, state: str) -> None:
    found = [one for one in synthetic.of(kind) if one.state == state]
    assert len(found) >= len(SHAPES)
    _check(found)


def test_chat(synthetic: Results) -> None:
    _check(synthetic.of("chat"))


@pytest.mark.claude
@pytest.mark.usefixtures("runtime")
def test_claude(claude_command: str) -> None:
    rig, wanted = _some(ClaudeRig(folder(), command=claude_command), 2)
    _check(cells(rig, wanted))


@pytest.mark.codex
@pytest.mark.usefixtures("runtime")
def test_codex() -> None:
    try:
        adapter_for("codex")
    except ConfigError:
        pytest.skip("this version has no kind 'codex'")
    from matrix_rigs import CodexRig

    rig, wanted = _some(CodexRig(folder()), 4)
    _check(cells(rig, wanted))


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
