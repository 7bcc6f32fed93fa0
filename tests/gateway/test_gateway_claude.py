"""The real Claude Code on a scripted model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from gateway_helpers import Running, settings

KEY = "sk-ant-lab-0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def claude() -> str:
    named = os.environ.get("ORCHESTRATOR_LAB_TEST_CLAUDE")
    here = Path(__file__).parents[1] / "agents/node_modules/.bin/claude"
    path = Path(named) if named else here
    if not path.exists():
        pytest.fail(
            f"there is no Claude Code at {path}: run 'npm ci' in tests/agents, "
            "or set ORCHESTRATOR_LAB_TEST_CLAUDE to the program's path"
        )
    return str(path)


class Screen:
    """One program in one pane of a tmux server of its own."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "tmux.sock")

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", "-u", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def text(self) -> str:
        return self.tmux("capture-pane", "-p", "-J")

    async def shows(self, words: str, seconds: float = 30) -> str:
        for _ in range(int(seconds * 20)):
            if words in self.text():
                return self.text()
            await asyncio.sleep(0.05)
        raise AssertionError(f"{words!r} is not on the screen:\n{self.text()}")

    async def say(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)
        await self.shows(text)
        await asyncio.sleep(0.2)
        self.tmux("send-keys", "Enter")


@pytest.fixture
def screen(tmp_path: Path) -> Any:
    value = Screen(tmp_path)
    yield value
    with suppress(subprocess.CalledProcessError):
        value.tmux("kill-server")


@pytest.mark.claude
@pytest.mark.slow
async def test_claude_code_talks_to_a_script(claude: str, running: Running, screen: Screen, tmp_path: Path) -> None:
    config, work = tmp_path / "config", tmp_path / "work"
    config.mkdir()
    work.mkdir()
    (work / "note.txt").write_text("the note says 4711\n")
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    seed = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {str(work): trusted},
    }
    (config / ".claude.json").write_text(json.dumps(seed))
    script = [
        # Side requests must not use these up.
        {"when": {"text": "hello there"}, "times": 1, "reply": "Hello from {agent}, turn {turn}."},
        {
            "when": {"matches": r"^read (\S+)"},
            "tool": {"name": "Read", "input": {"file_path": str(work / "{1}")}},
            "then": {"reply": "Read gave: {tool_result}"},
        },
        {
            "when": {"contains": "busy"},
            "times": 1,
            "error": {"status": 529, "type": "overloaded_error", "retry_after_s": 0.1},
        },
        {"when": {"contains": "busy"}, "reply": "Free again.", "tokens_per_s": 20},
        {
            "when": {"contains": "refuse"},
            "error": {"status": 400, "type": "invalid_request_error", "message": "Not this."},
        },
    ]
    running.gateway.bind("boss", "a-secret", settings(script=script))
    environment = {
        "CLAUDE_CONFIG_DIR": str(config),
        "ANTHROPIC_BASE_URL": running.url("a-secret"),
        "ANTHROPIC_API_KEY": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    words = [f"{name}={value}" for name, value in environment.items()]
    unset = ["-u", "TMUX", "-u", "CLAUDECODE", "-u", "ANTHROPIC_AUTH_TOKEN"]
    screen.tmux("new-session", "-d", "-x", "120", "-y", "60", "-c", str(work), "env", *unset, *words, claude)
    await screen.shows("? for shortcuts")
    await screen.say("hello there")
    await screen.shows("Hello from boss, turn 1.")
    await screen.say("read note.txt")
    await screen.shows("the note says 4711")
    await screen.say("are you busy")
    await screen.shows("Free again.")
    await screen.say("refuse me")
    await screen.shows("Not this.")

    asked = {e["request_id"]: e for e in running.of("gateway.request")}
    done = [(asked[e["request_id"]]["purpose"], e["status"], e["rule"]) for e in running.of("gateway.response")]
    assert [d for d in done if d[0] == "main"] == [
        ("main", 200, "rule 1"),
        ("main", 200, "rule 2"),
        ("main", 200, "rule 2"),
        ("main", 529, "rule 3"),
        ("main", 200, "rule 4"),
        ("main", 400, "rule 5"),
    ]
    assert {d[0] for d in done} <= {"main", "title", "probe", "suggestion", "side"}
    (transcript,) = (config / "projects").glob("*/*.jsonl")
    lines = [json.loads(line) for line in transcript.read_text().splitlines()]
    usages = [x["message"]["usage"] for x in lines if x["type"] == "assistant" and x["message"]["model"] == "script"]
    journalled = [e for e in running.of("gateway.response") if e.get("rule") == "rule 1"]
    assert usages[0]["input_tokens"] == journalled[0]["input_tokens"]
    assert usages[0]["output_tokens"] == journalled[0]["output_tokens"]
