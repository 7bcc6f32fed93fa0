"""Kill -9 of everybody at the steps of a message's life; ``make soak`` does every pair, four kinds, all victims."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from fault_rig import ChatRig, ClaudeRig, CodexRig, FakeRig, Rig

from orchestrator_lab.supervisor import steps

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Every step with the supervisor's death, and with one of the other deaths; three kinds have them in turn.
STEPS = FakeRig.steps
OTHERS = ("agent", "client", "keeper")
FAKE = [(step, "supervisor") for step in STEPS[::2]] + [
    (step, OTHERS[number % 3]) for number, step in enumerate(STEPS) if number % 2
]
CHAT = [(step, "supervisor") for step in STEPS[1::2]] + [
    (step, OTHERS[number % 3]) for number, step in enumerate(STEPS) if not number % 2
]
#: What only a program has whose text goes in by parts, and whose Enter waits for its echo.
CLAUDE = [("part_typed", "supervisor"), ("typed", "agent"), ("entering", "supervisor"), ("entered", "supervisor")]
#: Its reports are files, which a dying supervisor may have dealt with and not removed.
CODEX = [("told", "supervisor"), ("noted", "supervisor"), ("entered", "agent"), ("turn_ended", "supervisor")]
TMUX = ["claimed", "typed", "turn_ended"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_runtime")]


@pytest.fixture(scope="module")
def fake(module_runtime: object) -> Iterator[Rig]:  # noqa: ARG001 - its place
    rig = FakeRig()
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def chat(module_runtime: object) -> Iterator[Rig]:  # noqa: ARG001 - its place
    rig = ChatRig()
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def claude(module_runtime: object, claude_command: str) -> Iterator[Rig]:  # noqa: ARG001 - its place
    rig = ClaudeRig(claude_command)
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def codex(module_runtime: object, codex_command: str) -> Iterator[Rig]:  # noqa: ARG001 - its place
    rig = CodexRig(codex_command)
    yield rig
    rig.close()


def mixed(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return pairs so that the same one is not killed again at once: it comes back more slowly then."""
    supervisor = [pair for pair in pairs if pair[1] == "supervisor"]
    others = [pair for pair in pairs if pair[1] != "supervisor"]
    return [pair for two in itertools.zip_longest(supervisor, others) for pair in two if pair is not None]


def fault(rig: Rig, step: str, victim: str) -> None:
    case = rig.run(step, victim)
    assert not case.problem, case


@pytest.mark.parametrize(("step", "victim"), mixed(FAKE))
def test_the_fake(fake: Rig, step: str, victim: str) -> None:
    fault(fake, step, victim)


@pytest.mark.parametrize(("step", "victim"), mixed(CHAT))
def test_the_chat_program(chat: Rig, step: str, victim: str) -> None:
    fault(chat, step, victim)


@pytest.mark.parametrize("step", TMUX)
def test_the_tmux_server(fake: Rig, step: str) -> None:
    fault(fake, step, "tmux")


@pytest.mark.claude
@pytest.mark.parametrize(("step", "victim"), CLAUDE)
def test_claude_code(claude: Rig, step: str, victim: str) -> None:
    fault(claude, step, victim)


@pytest.mark.codex
@pytest.mark.parametrize(("step", "victim"), CODEX)
def test_codex(codex: Rig, step: str, victim: str) -> None:
    fault(codex, step, victim)


def test_nothing_is_held_unless_the_environment_says_so() -> None:
    assert steps.VARIABLE not in os.environ
    assert steps.step is steps._nothing
