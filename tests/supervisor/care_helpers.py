"""What the tests of supervision share: clusters of the fake agent, told what to do, and looked at."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.runtime import process_start_time, read_record

if TYPE_CHECKING:
    from collections.abc import Callable

FAKE = Path(__file__).resolve().parents[1] / "fake_agent" / "fake_agent.py"


def until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true within {timeout_s} s")
        time.sleep(0.01)
    return found


class Fakes:
    """A running cluster of fake agents that report as the chat program does."""

    def __init__(self, place: Path, *names: str, options: dict[str, Any] | None = None, **cluster: Any) -> None:
        self.place = place
        for folder in ("work", "runs"):
            (place / folder).mkdir(exist_ok=True)
        (place / "script.json").write_text(json.dumps(options or {}))
        listed = [{"name": name, "kind": "chat", "command": self._command(name)} for name in names]
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
                "agents": listed,
            }
        )

    def _command(self, name: str) -> list[str]:
        options = ["--log", str(self.log(name)), "--script", str(self.place / "script.json")]
        return [sys.executable, "-S", "-E", str(FAKE), *options]

    def log(self, name: str) -> Path:
        return self.place / f"{name}.log"

    def options(self, **options: Any) -> None:
        """Say how the fakes behave from their next start on."""
        (self.place / "script.json").write_text(json.dumps(options))

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

    def events(self, *names: str, agent: str | None = None) -> list[Any]:
        return [one for one in self.cluster.events() if one.event in names and agent in {None, one.agent}]

    def starts(self, name: str) -> list[Any]:
        return self.events("agent.started", agent=name)

    def restarted(self, name: str, times: int) -> None:
        """Wait until an agent has been started again, and takes messages."""
        until(lambda: len(self.starts(name)) == times + 1 and self.cluster[name].facts["ready"])


def lives(pid: int) -> bool:
    return process_start_time(pid) is not None
