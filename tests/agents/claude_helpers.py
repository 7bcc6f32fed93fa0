"""A running cluster of real Claude Codes, and what they recorded of themselves."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.claude import ClaudeAdapter
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab import Cluster


class Lab:
    """A running cluster of Claude Code agents, and what they recorded of themselves."""

    def __init__(self, cluster: Cluster, runtime: Path) -> None:
        self.cluster = cluster
        self.runtime = runtime

    def transcript(self, agent: str) -> list[dict[str, Any]]:
        """All records of all sessions of an agent that runs in a seeded folder, oldest session first."""
        folder = self.runtime / self.cluster.name / "agents" / agent / "claude" / "projects"
        files = sorted(folder.glob("*/*.jsonl"), key=lambda path: path.stat().st_ctime)
        # What follows the last newline is still being written.
        return [json.loads(line) for path in files for line in path.read_bytes().split(b"\n")[:-1] if line]

    def prompts(self, agent: str) -> list[str]:
        """The prompts that reached the model as turns of their own, in Claude Code's own record."""
        records = [
            record["message"]["content"]
            for record in self.transcript(agent)
            if record.get("type") == "user" and not record.get("isMeta") and not record.get("isSidechain")
        ]
        return [content.rstrip() for content in records if isinstance(content, str)]

    def took(self, agent: str, *prompts: str) -> None:
        """Check the newest prompts in Claude Code's record, which is written a moment after they were taken."""
        deadline = time.monotonic() + 30.0
        while (found := self.prompts(agent)[-len(prompts) :]) != list(prompts) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found == list(prompts)

    def events(self, *names: str) -> list[Any]:
        return [event for event in self.cluster.run.events() if event.event in names]

    def screen(self, agent: str) -> str:
        return str(self.cluster[agent].screen().text)

    def until(self, what: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Wait for something that only the program, a person's keys or the screen can bring about."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline, f"did not happen; the screens show:\n{self.cluster.screens()}"
            time.sleep(0.05)
        return found

    def shows(self, agent: str, words: str, seconds: float = 30.0) -> str:
        return str(self.until(lambda: words in (text := self.screen(agent)) and text, seconds))

    def types(self, agent: str, text: str) -> None:
        """Type as a person does, key by key, without Enter."""
        self.cluster[agent].pane.cmd("send-keys", "-l", text)

    def presses(self, agent: str, *keys: str) -> None:
        self.cluster[agent].pane.cmd("send-keys", *keys)


def expected(body: str) -> str:
    """What Claude Code is declared to take when a body is sent."""
    return ClaudeAdapter().typed(sanitize(body)[0]).expected
