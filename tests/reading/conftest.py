"""Runs as the real writers make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from telling import answer, deliver, tell

from orchestrator_lab.beginning import create_run
from orchestrator_lab.journal import JournalWriter
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, to be read only."""
    return Run(tell(tmp_path_factory.mktemp("runs")))


@pytest.fixture
def fresh(tmp_path: Path) -> Run:
    """The same, of a test's own."""
    return Run(tell(tmp_path))


@pytest.fixture(scope="session")
def many() -> Callable[[Path, int, int], Run]:
    """Return what writes long runs: agents in a ring, each message answered."""

    def write(folder: Path, messages: int, agents: int) -> Run:
        path = create_run(folder, config={}, name="ring")
        names = [f"agent-{number:02d}" for number in range(agents)]
        with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
            for name in names:
                writer.append("agent.added", agent=name, agent_id=name, name=name, kind="chat")
            for number in range(messages):
                sender, recipient = names[number % agents], names[(number + 1) % agents]
                message, turn = f"msg_{number:06d}", f"trn_{number:06d}"
                deliver(writer, message, turn, sender, recipient, f"question {number}: what comes next?")
                answer(writer, message, turn, recipient, f"answer {number}")
        return Run(path)

    return write
