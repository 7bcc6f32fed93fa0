"""What the tests of supervision share: clusters of the fake agent, told what to do, and looked at."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.runtime import process_start_time, read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab import Agent

FAKE = Path(__file__).resolve().parents[1] / "fake_agent" / "fake_agent.py"


def until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true within {timeout_s} s")
        time.sleep(0.01)
    return found


class Fakes:
    """A running cluster of fake agents that report as the chat program does; each test adds agents of its own."""

    def __init__(self, place: Path, **cluster: Any) -> None:
        self.place = place
        for folder in ("work", "runs"):
            (place / folder).mkdir(exist_ok=True)
        self.cluster = Cluster.start(
            {
                "cluster": {
                    "name": f"care-{uuid.uuid4().hex[:6]}",
                    "lifetime": "owner",
                    "work_dir": str(place / "work"),
                    "runs_dir": str(place / "runs"),
                    "gateway": {"mode": "script", "script": [{"reply": "unused"}]},
                    **cluster,
                },
                "agents": [self.config("first")],
            }
        )

    def config(self, name: str, **keys: Any) -> dict[str, Any]:
        self.options(name)
        options = ["--log", str(self.log(name)), "--script", str(self.place / f"{name}.json")]
        command = [sys.executable, "-S", "-E", str(FAKE), *options]
        return {"name": name, "kind": "chat", "command": command, **keys}

    def add(self, *names: str, **keys: Any) -> list[Agent]:
        """Add agents with names that nobody had before."""
        given = [f"{name}-{uuid.uuid4().hex[:6]}" for name in names]
        self.cluster.add(*[self.config(name, **keys) for name in given])
        return [self.cluster[name] for name in given]

    def log(self, name: str) -> Path:
        return self.place / f"{name}.log"

    def options(self, name: str, **options: Any) -> None:
        """Say how a fake behaves from its next start on."""
        (self.place / f"{name}.json").write_text(json.dumps(options))

    def control(self, name: str, **action: Any) -> None:
        with Path(f"{self.log(name)}.ctl").open("w") as pipe:
            pipe.write(json.dumps(action) + "\n")

    def records(self, name: str, event: str) -> list[dict[str, Any]]:
        lines = self.log(name).read_text().split("\n")[:-1]
        return [one for one in map(json.loads, lines) if one["event"] == event]

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        pid = int(self.cluster[name].facts["pid"])
        os.kill(pid, number)
        return pid

    def kill_supervisor(self, *others: str) -> None:
        record = read_record(self.cluster.client.folder)
        assert record is not None
        for who in ("supervisor", *others):
            os.kill(int(getattr(record, f"{who}_pid")), signal.SIGKILL)

    def events(self, agent: str | None, *names: str) -> list[Any]:
        return [one for one in self.cluster.events() if one.event in names and agent in {None, one.agent}]

    def alerts(self, agent: str, rule: str, what: str = "opened") -> list[Any]:
        return [one for one in self.events(agent, f"alert.{what}") if one.attributes["rule"] == rule]

    def starts(self, name: str) -> list[Any]:
        return self.events(name, "agent.started")

    def restarted(self, name: str, times: int) -> None:
        """Wait until an agent has been started again, and takes messages."""
        until(lambda: len(self.starts(name)) == times + 1 and self.cluster[name].facts["ready"])


def kill_at(lab: Fakes, event: str, *others: str, after_s: float = 0.0) -> threading.Thread:
    """Kill the supervisor as soon as an event is in the journal."""
    journal, armed = lab.cluster.run_dir / "journal.jsonl", threading.Event()

    def watch() -> None:
        needle, seen = f'"event":"{event}"'.encode(), b""
        with journal.open("rb") as file:
            file.seek(0, os.SEEK_END)
            armed.set()
            while needle not in seen:
                seen += file.read()
                time.sleep(0.0005)
        time.sleep(after_s)
        lab.kill_supervisor(*others)

    thread = threading.Thread(target=watch)
    thread.start()
    armed.wait()
    return thread


def lives(pid: int) -> bool:
    return process_start_time(pid) is not None
