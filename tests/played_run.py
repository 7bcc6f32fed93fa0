"""A run of a minute with recorded panes, written in a blink by the real writers on a clock that is set.

Two agents: ada is asked at 5 s and asks bob, who asks a person, and answers at 40 s; ada is done at 50 s. What the
panes show says when it was written, so a test can tell what an instant has to look like.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

from orchestrator_lab.beginning import create_run
from orchestrator_lab.journal.recording import CastWriter
from orchestrator_lab.journal.writer import JournalWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEGIN = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


class Clock:
    """The wall clock and the monotonic one, as the writers ask for them."""

    def __init__(self, begin: datetime = BEGIN) -> None:
        self.begin, self.now_s = begin, 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.now_s

    def time(self) -> float:
        return self.begin.timestamp() + self.now_s

    def now(self, zone: Any = None) -> datetime:
        return (self.begin + timedelta(seconds=self.now_s)).astimezone(zone)


@contextmanager
def set_clock(begin: datetime = BEGIN) -> Iterator[Clock]:
    """Have journal and recordings written at the time that the clock shows."""
    clock, package = Clock(begin), "orchestrator_lab.journal"
    with ExitStack() as stack:
        for where in ("writer.time", "writer.datetime", "recording.time"):
            stack.enter_context(mock.patch(f"{package}.{where}", clock))
        yield clock


class _Stage:
    """Journal, recordings and clock of a run that is written."""

    def __init__(self, path: Path, clock: Clock, journal: JournalWriter) -> None:
        self.path, self.clock, self.journal = path, clock, journal
        self.casts: dict[str, CastWriter] = {}

    def add(self, at: float, name: str, role: str, cols: int = 60, rows: int = 12) -> None:
        self.at(at)
        self.journal.append("agent.added", agent=name, agent_id=f"agt_{name}", name=name, role=role, kind="chat",
                            cols=cols, rows=rows)  # fmt: skip
        cast = self.casts[name] = CastWriter(self.path / "panes" / f"{name}.cast.zst", cols=cols, rows=rows)
        begun = datetime.fromtimestamp(cast.started_at, UTC).isoformat(timespec="microseconds")
        self.journal.append("recording.started", agent=name, path=str(cast.path), started_at=begun)
        self.state(name, "idle")

    def at(self, seconds: float) -> None:
        for cast in self.casts.values():  # a keeper writes each second
            cast.flush()
        self.clock.now_s = seconds

    def state(self, agent: str, state: str) -> None:
        self.journal.append("agent.state", agent=agent, state=state, source="hook")

    def draw(self, agent: str, text: str) -> None:
        """Write to a pane: a line, and when it was."""
        self.casts[agent].write(f"{text} \x1b[2m[{self.clock.now_s:g} s]\x1b[0m\r\n".encode())

    def send(self, at: float, number: int, sender: str, recipient: str, text: str) -> None:
        self.at(at)
        about: dict[str, Any] = {"agent": recipient, "message_id": f"msg_{number}"}
        self.journal.append("message.queued", **about, sender=sender, recipient=recipient, content=text, hop=0,
                            kind="direct", source="human" if sender == "user" else "agent")  # fmt: skip
        self.journal.append("message.written", **about)
        self.journal.append("message.accepted", **about, source="hook", turn_id=f"trn_{number}")
        self.journal.append("turn.started", agent=recipient, turn_id=f"trn_{number}", message_ids=[f"msg_{number}"])
        self.state(recipient, "busy")
        self.draw(recipient, f"\x1b[1m> {text}\x1b[0m")

    def answer(self, at: float, number: int, agent: str, text: str) -> None:
        self.at(at)
        turn = {"agent": agent, "turn_id": f"trn_{number}"}
        self.journal.append("turn.usage", **turn, input_tokens=1200, output_tokens=80, final=True, model="m")
        self.journal.append("turn.ended", **turn, reply=text, end_reason="completed", source="hook")
        self.journal.append("message.answered", agent=agent, message_id=f"msg_{number}", turn_id=f"trn_{number}")
        self.state(agent, "idle")
        self.draw(agent, f"\x1b[32m● {text}\x1b[0m")


def write_played(folder: Path, *, flood_bytes: int = 0) -> Path:
    """Write the run.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of runs.
    flood_bytes : int
        Output of bob's between 20 s and 30 s, besides.

    Returns
    -------
    pathlib.Path
        The run's folder.
    """
    path = create_run(folder, config={}, name="played")
    (path / "panes").mkdir(mode=0o700)
    with set_clock() as clock, JournalWriter(path / "journal.jsonl", run_id=path.name) as journal:
        stage = _Stage(path, clock, journal)
        journal.append("run.started", name="played")
        stage.add(0.5, "ada", "asks")
        stage.draw("ada", "\x1b[38;2;12;200;99mada\x1b[1;48;5;201m is\x1b[0m ready")
        stage.add(1.5, "bob", "answers")
        stage.draw("bob", "bob is ready")
        stage.send(5, 1, "user", "ada", "Find out what seven times six is.")
        for second in range(6, 12):
            stage.at(second)
            stage.draw("ada", f"thinking {second}")
        stage.send(12, 2, "ada", "bob", "What is seven times six?")
        _flood(stage, flood_bytes)
        stage.at(31)
        journal.append("dialog.opened", agent="bob", turn_id="trn_2", dialog_id="dlg_1", kind="permission",
                       subject="May bob multiply?", options=["yes", "no"])  # fmt: skip
        stage.state("bob", "waiting")
        stage.draw("bob", "May bob multiply?")
        stage.at(36)
        journal.append("dialog.answered", agent="bob", turn_id="trn_2", dialog_id="dlg_1", answered_by="human",
                       decision="yes")  # fmt: skip
        stage.state("bob", "busy")
        stage.answer(40, 2, "bob", "42 — forty-two ✓ 四十二")
        stage.answer(50, 1, "ada", "It is 42.")
        stage.at(60)
        stage.draw("ada", "\x1b[?25lgood night")
        journal.append("run.ended", status="completed")
        for cast in stage.casts.values():
            cast.close()
    return path


def _flood(stage: _Stage, size: int) -> None:
    line = "".join(f"\x1b[3{number % 8}m{number:04d} " for number in range(11)) + "%9d\r\n"
    for number in range(size // len(line)):
        seconds = 20 + 10 * number * len(line) / size
        if int(seconds * 4) > int(stage.clock.now_s * 4):
            stage.at(seconds)
        stage.casts["bob"].write((line % number).encode())
