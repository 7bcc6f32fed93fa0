"""The real Claude Code and the real Codex against what their models answered in an earlier run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.errors import ReplayDiverged

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab import Run

pytestmark = [pytest.mark.claude, pytest.mark.codex, pytest.mark.slow, pytest.mark.timeout(600)]

SEND = "mcp__orchestrator-lab__send_message"


def rules(work: Path) -> list[dict[str, Any]]:
    return [
        {"when": {"matches": r"^tell (\w+)"}, "tool": {"name": SEND, "input": {"to": "{1}", "text": "a question"}}},
        {
            "when": {"contains": "a question"},
            "tool": {"name": SEND, "input": {"to": "{sender}", "text": "an answer", "in_reply_to": "{message_id}"}},
        },
        {"when": {"tool_result": SEND}, "reply": "sent by {agent}"},
        {
            "when": {"contains": "read the note"},
            "tool": {"name": "Read", "input": {"file_path": str(work / "note.txt")}},
        },
        {"when": {"contains": "run it"}, "tool": {"name": "exec_command", "input": {"cmd": "cat note.txt; date"}}},
        {"when": {"tool_result": True}, "reply": "after the tool: {tool_result}"},
        {"reply": "{agent}: {text}", "chunk": 2},
    ]


def story(cluster: Cluster) -> None:
    assert cluster["clara"].ask("hello", timeout=90).reply == "clara: hello"
    assert cluster["clara"].ask("tell cody", timeout=90).reply == "sent by clara"
    cluster.wait(timeout=90)
    assert cluster["cody"].ask("tell clara", timeout=90).reply == "sent by cody"
    cluster.wait(timeout=90)
    assert "4711" in str(cluster["clara"].ask("read the note", timeout=90).reply)
    assert "4711" in str(cluster["cody"].ask("run it", timeout=90).reply)


def said(run: Run, table: str, *columns: str) -> list[list[str]]:
    rows: list[list[Any]] = getattr(run, table)[list(columns)].to_numpy().tolist()
    return [[str(value) for value in row] for row in rows]


def answers_to(run: Run) -> list[int | None]:
    """For each message, the number of the one that it answers."""
    numbers = {identity: number for number, identity in enumerate(run.messages.message_id)}
    return [numbers.get(identity) for identity in run.messages.in_reply_to]


def test_real_programs_do_the_same_again_on_recorded_answers(
    runtime: Path, tmp_path: Path, claude_command: str, codex_command: str
) -> None:
    """In another work folder, on a script that is not asked: texts, tool calls and messages are the recorded ones."""
    del runtime
    (tmp_path / "runs").mkdir()
    agents = [
        {"name": "clara", "kind": "claude", "command": claude_command, "instructions": "Be brief."},
        {"name": "cody", "kind": "codex", "command": codex_command},
    ]

    def config(name: str, script: Any) -> dict[str, Any]:
        work = tmp_path / name
        work.mkdir(exist_ok=True)
        (work / "note.txt").write_text("4711\n")
        gateway = {"mode": "script", "script": script}
        folders = {"work_dir": str(work), "runs_dir": str(tmp_path / "runs")}
        return {"cluster": {"name": "lab", "gateway": gateway, "start_timeout_s": 120, **folders}, "agents": agents}

    with Cluster.start(config("first", rules(tmp_path / "first"))) as cluster:
        story(cluster)
    recorded = open_run(cluster.run_dir)
    assert recorded.replayable() == dict.fromkeys(["clara", "cody"], ("data", "terminal", "model"))
    agents[0]["instructions"] = "Be long-winded."
    with Cluster.start(config("second", []), mode="replay_strict", run=recorded, level="model") as cluster:
        with pytest.raises(ReplayDiverged, match="agent 'clara' has another model, system prompt") as stopped:
            cluster["clara"].ask("hello", timeout=90)
        diff = stopped.value.details["diff"].split("\n")
        assert [row for row in diff[3:] if row[0] in "+-"] == ["-    Be brief.", "+    Be long-winded."]
    agents[0]["instructions"] = "Be brief."
    with Cluster.start(config("second", []), mode="replay_strict", run=recorded, level="model") as cluster:
        story(cluster)
        assert not [event for event in cluster.events() if event.event == "replay.divergence"]
    again = open_run(cluster.run_dir)
    for table, columns in {
        "messages": ("sender", "recipient", "kind", "content", "hop", "status", "acceptance_source"),
        "turns": ("agent", "reply", "end_reason", "model", "input_tokens", "output_tokens", "tool_call_count"),
        "tool_calls": ("agent", "name", "status"),
    }.items():
        assert said(again, table, *columns) == said(recorded, table, *columns), table
    assert answers_to(again) == answers_to(recorded)
    asked = again.tool_calls[again.tool_calls.name == "Read"].input.iloc[0]
    assert str(tmp_path / "second" / "note.txt") in asked
