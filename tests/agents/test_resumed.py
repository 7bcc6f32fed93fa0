"""The real programs lose their tmux server, then everything but a backup of their run: their conversations go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from power_cut import events, power_cut, until

from orchestrator_lab import Cluster
from orchestrator_lab.backup import create_backup, restore_backup
from orchestrator_lab.runtime import read_record

pytestmark = pytest.mark.timeout(600)

SCRIPT = [{"reply": "I read: {text}"}]


def texts(run_dir: Path, name: str) -> str:
    return (run_dir / "transcripts" / f"{name}.jsonl").read_text(encoding="utf-8")


@pytest.fixture
def config(runtime: Path, tmp_path: Path) -> dict[str, Any]:  # noqa: ARG001 - clusters start in it
    (tmp_path / "work").mkdir()
    cluster = {"name": "real", "work_dir": str(tmp_path / "work"), "runs_dir": str(tmp_path / "runs")}
    return {"cluster": {**cluster, "gateway": {"mode": "script", "script": SCRIPT}}, "agents": []}


def goes_on(config: dict[str, Any], name: str) -> None:
    """Kill the tmux server, then everything, and look for the first turn in the conversation each time.

    The second time the run itself is gone too, and comes from a backup.
    """
    cluster = Cluster.start(config)
    try:
        assert "violet" in str(cluster[name].ask("My word is violet.", timeout=60).reply)
        (session,) = {cluster[name].facts["session_id"]}
        # Claude Code writes a turn down a tenth of a second after its end: what it had not written cannot go on.
        until(lambda: "I read: My word is violet." in conversation(cluster, name))
        record = read_record(cluster.client.folder)
        assert record is not None
        os.kill(int(record.tmux_pid or 0), signal.SIGKILL)
        until(lambda: events(cluster.run_dir, "tmux.rebuilt"), 60)
        assert "second" in str(cluster[name].ask("And a second turn.", timeout=60).reply)
        assert cluster[name].facts["session_id"] == session
        assert "My word is violet." in conversation(cluster, name)

        until(lambda: "And a second turn." in texts(cluster.run_dir, name))
        until(lambda: "I read: And a second turn." in texts(cluster.run_dir, name))
        run_dir = power_cut(cluster)
        home = run_dir.parent.parent
        (home / "cluster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        backup = create_backup(home, home / "kept").backup
        shutil.rmtree(run_dir.parent)
        (home / "cluster.yaml").unlink()
        assert restore_backup(backup, home).resumable == (run_dir,)
        cluster = Cluster.start(resume=run_dir)
        assert cluster[name].facts["state"] == "idle", cluster[name].screen()
        assert "third" in str(cluster[name].ask("And a third turn.", timeout=60).reply)
        assert cluster[name].facts["session_id"] == session
        turns = ("My word is violet.", "And a second turn.", "And a third turn.")
        until(lambda: all(one in conversation(cluster, name) for one in turns))
    finally:
        cluster.shutdown()
    kept = texts(run_dir, name)
    assert all(one in kept for one in turns)
    assert len(events(run_dir, "agent.started")) == 3


def conversation(cluster: Cluster, name: str) -> str:
    """Return the program's own record of the session that it is in, as far as it is written."""
    found = json.loads((cluster.client.folder / "agents" / name / "agent.json").read_text(encoding="utf-8"))
    place = Path(found["transcript"])
    return place.read_text(encoding="utf-8") if place.exists() else ""


@pytest.mark.claude
def test_claude_code_goes_on(config: dict[str, Any], claude_command: str) -> None:
    config["agents"] = [{"name": "clara", "kind": "claude", "command": claude_command, "config": "isolated"}]
    goes_on(config, "clara")


@pytest.mark.codex
def test_codex_goes_on(config: dict[str, Any], codex_command: str) -> None:
    config["agents"] = [{"name": "cody", "kind": "codex", "command": codex_command, "config": "isolated"}]
    goes_on(config, "cody")
