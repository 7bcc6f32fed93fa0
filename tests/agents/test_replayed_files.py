"""The real Claude Code on files: replayed by somebody who has nothing but the bundle."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster, open_run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab import Run

pytestmark = [pytest.mark.claude, pytest.mark.codex, pytest.mark.slow, pytest.mark.timeout(600)]

NOTE = "alpha\nbeta\ngamma\n"


def rules(work: Path) -> list[dict[str, Any]]:
    note = str(work / "docs" / "note.txt")
    edit = {"file_path": note, "old_string": "beta", "new_string": "BETA"}
    return [
        {"when": {"contains": "read the note"}, "tool": {"name": "Read", "input": {"file_path": note}}},
        {"when": {"contains": "change the note"}, "tool": {"name": "Edit", "input": edit}},
        {
            "when": {"contains": "look around"},
            "tool": {"name": "Bash", "input": {"command": "cat docs/note.txt; ls -l docs; ./run.sh"}},
        },
        {"when": {"tool_result": True}, "reply": "after it: {tool_result}"},
        {"reply": "{agent}: {text}"},
    ]


def story(cluster: Cluster) -> list[str]:
    asked = ("read the note", "change the note", "look around")
    return [str(cluster["clara"].ask(one, timeout=90).reply) for one in asked]


def calls(run: Run, work: Path) -> list[list[str]]:
    rows = run.tool_calls[["agent", "name", "input", "status"]].to_numpy().tolist()
    return [[str(value).replace(str(work), "<work>") for value in row] for row in rows]


def messages(run: Run) -> list[list[str]]:
    rows = run.messages[["sender", "recipient", "kind", "content", "status"]].to_numpy().tolist()
    return [[str(value) for value in row] for row in rows]


def test_a_bundle_alone_gives_the_same_tool_calls_on_the_same_files(
    runtime: Path, tmp_path: Path, claude_command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del runtime
    work = tmp_path / "project"
    (work / "docs").mkdir(parents=True)
    (work / "docs" / "note.txt").write_text(NOTE)
    (work / "run.sh").write_text("#!/bin/sh\necho it runs\n")
    (work / "run.sh").chmod(0o755)
    config = {
        "cluster": {
            "name": "files",
            "work_dir": str(work),
            "runs_dir": str(tmp_path / "runs"),
            "gateway": {"mode": "script", "script": rules(work)},
            "start_timeout_s": 120,
        },
        "agents": [{"name": "clara", "kind": "claude", "command": claude_command, "dialogs": "allow"}],
    }
    with Cluster.start(config) as cluster:
        first = story(cluster)
    assert "beta" in first[0]
    assert "BETA" in first[2]
    assert "it runs" in first[2]
    assert (work / "docs" / "note.txt").read_text() == NOTE.replace("beta", "BETA")
    recorded = open_run(cluster.run_dir)
    bundle = tmp_path / "files.olab.zip"
    recorded.export(bundle)
    there = open_run(bundle)
    kept = there.initial_state()
    assert kept is not None
    assert kept.folders[0]["docs/note.txt"].read_text() == NOTE
    expected = calls(recorded, work), messages(recorded)

    shutil.rmtree(work)
    shutil.rmtree(tmp_path / "runs")
    elsewhere = tmp_path / "another place"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with Cluster.start(mode="replay_strict", level="model", run=bundle) as cluster:
        again = story(cluster)
        assert not [event for event in cluster.events() if event.event == "replay.divergence"]
    made = elsewhere / "files-replay"
    assert cluster.config.work_dir == made
    assert (made / "docs" / "note.txt").read_text() == NOTE.replace("beta", "BETA")
    run = open_run(cluster.run_dir)
    assert (calls(run, made), messages(run)) == expected
    assert "BETA" in again[2]
    restored = [event for event in run.events() if event.event == "initial.restored"]
    assert [event.attributes["files"] for event in restored] == [2]


def test_commands_that_go_on_have_other_ids_and_are_the_same(
    runtime: Path, tmp_path: Path, claude_command: str, codex_command: str
) -> None:
    """Codex numbers such commands by chance, and Claude Code names them so."""
    del runtime
    (tmp_path / "work").mkdir()
    script = [
        {
            "when": {"contains": "start", "agent": "cody"},
            "tool": {"name": "exec_command", "input": {"cmd": "cat", "tty": True, "yield_time_ms": 250}},
        },
        {
            "when": {"contains": "start", "agent": "clara"},
            "tool": {"name": "Bash", "input": {"command": "cat", "run_in_background": True}},
        },
        {"when": {"tool_result": True}, "reply": "after it: {tool_result}"},
        {"reply": "{agent}: {text}"},
    ]
    config = {
        "cluster": {
            "name": "going-on",
            "work_dir": str(tmp_path / "work"),
            "runs_dir": str(tmp_path / "runs"),
            "gateway": {"mode": "script", "script": script},
            "start_timeout_s": 120,
        },
        "agents": [
            {"name": "clara", "kind": "claude", "command": claude_command, "dialogs": "allow"},
            {"name": "cody", "kind": "codex", "command": codex_command, "permission_mode": "bypassPermissions"},
        ],
    }

    def ids(cluster: Cluster) -> list[str]:
        said = "".join(str(cluster[name].ask("start", timeout=90).reply) for name in ("clara", "cody"))
        return re.findall(r"(?:background with|session) ID:? (\w+)", said)

    with Cluster.start(config) as cluster:
        first = ids(cluster)
    with Cluster.start(config, mode="replay_strict", level="model", run=cluster.run) as again:
        second = ids(again)
        assert not [event for event in again.events() if event.event == "replay.divergence"]
    assert len(first) == len(second) == 2
    assert not set(first) & set(second)
    # The recorded answers name the commands of now, as their tools do.
    told = [str(one) for one in again.run.tool_calls["output"]]
    assert all(one in "".join(told) for one in second)
