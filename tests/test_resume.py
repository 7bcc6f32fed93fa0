"""Everything of a cluster is gone but its run, as after a reboot, and the run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from power_cut import events, power_cut, until

from orchestrator_lab import Cluster, open_run, runs_df
from orchestrator_lab.errors import (
    ClusterExists,
    ConfigError,
    ProgramNotFound,
    RunNotFound,
    VersionMismatch,
)
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.resuming import resumable_runs
from orchestrator_lab.runtime import read_record

SCRIPT = [
    {"when": {"contains": "slow"}, "reply": "{agent} read {text}", "delay_s": 600},
    {"reply": "{agent} read {text}"},
]


def taken(run_dir: Path, name: str) -> list[str]:
    lines = (run_dir / "transcripts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [one["message"]["content"] for one in map(json.loads, lines) if one["type"] == "user"]


def test_a_run_goes_on_after_a_reboot(runtime: Path, script_config: Any) -> None:
    cluster = Cluster.start(script_config("ada", "bob", "cleo", name="ship", script=SCRIPT))
    assert cluster["ada"].ask("first", timeout=30).reply == "ada read first"
    cluster.add({"name": "dora", "kind": "chat"})
    cluster.remove("bob")
    cluster["cleo"].stop()
    slow = cluster["dora"].send("slow one").accepted(30)
    talk = cluster.converse(["ada", "dora"], "go", rounds=2)  # it comes to dora, and no further
    queued = cluster["dora"].send("queued")
    until(lambda: len(events(cluster.run_dir, "message.answered")) >= 2)
    talking = events(cluster.run_dir, "conversation.ended")
    run_dir, run_id = power_cut(cluster), cluster.run_id
    assert open_run(run_dir).status is None
    until(lambda: resumable_runs(run_dir.parent) == [run_dir])
    before = len(events(run_dir))

    cluster = Cluster.start(resume=run_dir)
    try:
        assert cluster.run_dir == run_dir
        assert cluster.run_id == run_id
        assert runs_df(run_dir)["status"].tolist() == ["running"]
        facts = {agent["name"]: agent for agent in cluster.status()["agents"]}
        assert set(facts) == {"ada", "cleo", "dora"}
        assert facts["cleo"]["state"] == "exited"
        # What was queued is delivered; what was in a program is settled.
        until(lambda: [one for one in events(run_dir, "message.answered") if one.message_id == queued.message_id])
        rows = open_run(run_dir).messages.set_index("message_id")
        assert rows.loc[slow.message_id, "status"] == "failed"
        assert rows.loc[slow.message_id, "error_type"] == "turn_exited"
        assert not talking
        until(lambda: events(run_dir, "conversation.ended"))
        assert list(rows[rows["conversation_id"] == talk.conversation_id]["status"])[:1] == ["answered"]
        # One event says so, with the length of the gap; sessions are the old ones.
        (resumed,) = events(run_dir, "run.resumed")
        assert resumed.attributes["agents"] == ["ada", "dora"]
        assert 0 < resumed.attributes["gap_s"] < 60
        assert not events(run_dir, "tmux.lost", "alert.opened", "run.ended")
        for name in ("ada", "dora"):
            sessions = {one.attributes["session_id"] for one in events(run_dir, "agent.started") if one.agent == name}
            assert len(sessions) == 1
        assert cluster["ada"].ask("after", timeout=30).reply == "ada read after"
        assert taken(run_dir, "ada").count("first") == 1
        seqs = [one.seq for one in events(run_dir)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert before < len(seqs)
        with pytest.raises(ClusterExists, match="is running still, as cluster 'ship'"):
            Cluster.start(resume=run_dir)
        # It can be killed again, and again.
        power_cut(cluster)
        cluster = Cluster.start(resume=run_dir)
        assert cluster["dora"].ask("twice", timeout=30).reply == "dora read twice"
        assert len(events(run_dir, "run.resumed")) == 2
    finally:
        cluster.shutdown()
    assert open_run(run_dir).status == "completed"
    states = open_run(run_dir).states
    assert states["ended_at"].notna().all()
    cast = read_cast(run_dir / "panes" / "ada.cast.zst").events
    assert any("no tmux server" in str(one.data) for one in cast if one.code == "m")
    assert not (runtime / "ship").exists()
    with pytest.raises(ConfigError, match=r"was ended in order \(completed\) and does not go on"):
        Cluster.start(resume=run_dir)
    assert resumable_runs(run_dir.parent) == []


def test_the_command_resumes_and_refuses_in_one_sentence(
    runtime: Path, script_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setenv("ORCHESTRATOR_RUNS_DIR", str(runs))
    monkeypatch.chdir(tmp_path)
    config = script_config("ada", name="ship", script=SCRIPT, runs_dir=str(runs))
    cluster = Cluster.start(config)
    cluster.stop()
    run_dir = power_cut(cluster)

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator_lab", *words], capture_output=True, text=True, check=False
        )

    done = command("start", "--resume", "run_nothing")
    assert done.returncode == 2
    assert "there is no run 'run_nothing'" in done.stderr
    done = command("start", "--resume", "last", "--seed", "3")
    assert done.returncode == 2
    assert "give it alone" in done.stderr
    done = command("start", "--resume", "last", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["run_dir"] == str(run_dir)
    # The whole cluster had been stopped: whoever starts it again wants its agents.
    assert [agent["state"] for agent in facts["agents"]] == ["idle"]
    done = command("start", "--resume", run_dir.name)
    assert done.returncode == 2
    assert "is running still" in done.stderr
    assert command("ask", "ada", "hello").stdout.strip() == "ada read hello"
    assert command("shutdown", "ship").returncode == 0
    assert command("start", "--resume", "last").returncode == 2
    assert not (runtime / "ship").exists()


def test_a_run_that_cannot_go_on_is_left_as_it_was(runtime: Path, script_config: Any, tmp_path: Path) -> None:
    program = tmp_path / "answer"
    program.write_text("#!/bin/sh\nprintf '> '; while read line; do echo \"got $line\"; printf '> '; done\n")
    program.chmod(0o755)
    config = script_config("ada", name="ship", script=SCRIPT)
    config["agents"].append(
        {"name": "old", "kind": "program", "command": [str(program)], "turn_end": {"prompt": "^> $"}}
    )
    config["agents"][0]["env"] = {"SHIP_TOKEN": "a-very-long-secret", "COLOUR": "blue"}
    cluster = Cluster.start(config)
    run_dir = power_cut(cluster)
    before = (run_dir / "journal.jsonl").read_bytes()

    def refused(kind: type[Exception], match: str) -> None:
        with pytest.raises(kind, match=match):
            Cluster.start(resume=run_dir)
        assert (run_dir / "journal.jsonl").read_bytes() == before
        assert not (runtime / "ship").exists()

    refused(ConfigError, r"its env.SHIP_TOKEN is one: set SHIP_TOKEN in your environment")
    os.environ["SHIP_TOKEN"] = "a-very-long-secret"
    try:
        program.rename(tmp_path / "gone")
        refused(ProgramNotFound, "there is no program")
        (tmp_path / "gone").rename(program)
        work = Path(config["cluster"]["work_dir"])
        work.rename(work.with_name("elsewhere"))
        refused(ConfigError, "the work folder .* does not exist")
        work.with_name("elsewhere").rename(work)
        manifest = json.loads((run_dir / "manifest.json").read_text())
        (run_dir / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
        refused(VersionMismatch, "recorded by a newer orchestrator-lab")
        (run_dir / "manifest.json").write_text(json.dumps(manifest))
        other = Cluster.start({**config, "cluster": {**config["cluster"], "runs_dir": str(tmp_path / "other")}})
        with pytest.raises(ClusterExists, match="is running already"):
            Cluster.start(resume=run_dir)
        other.shutdown()
        with pytest.raises(RunNotFound):
            Cluster.start(resume=tmp_path / "nothing")
        with Cluster.start(resume=run_dir) as cluster:
            assert cluster["old"].ask("hello", timeout=30).reply == "got hello"
            text = (cluster.client.folder / "agents" / "ada" / "launch.sh").read_text()
            assert "SHIP_TOKEN=a-very-long-secret" in text
    finally:
        del os.environ["SHIP_TOKEN"]


@pytest.mark.parametrize("event", ["run.resumed", "agent.exited", "agent.started", "agent.ready"])
def test_a_supervisor_killed_while_it_resumes(runtime: Path, script_config: Any, event: str) -> None:
    import threading

    cluster = Cluster.start(script_config("ada", "bob", name="ship", script=SCRIPT))
    slow = cluster["ada"].send("slow one")
    queued = cluster["ada"].send("queued")
    until(lambda: events(cluster.run_dir, "message.accepted"))
    run_dir = power_cut(cluster)
    size = (run_dir / "journal.jsonl").stat().st_size

    def killer() -> None:
        needle = f'"event":"{event}"'.encode()
        until(lambda: needle in (run_dir / "journal.jsonl").read_bytes()[size:])
        record = read_record(runtime / "ship")
        assert record is not None
        os.kill(int(record.supervisor_pid or 0), signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    cluster = Cluster.start(resume=run_dir)
    thread.join()
    try:
        for agent in cluster:
            assert agent.ask("there?", timeout=40).reply == f"{agent.name} read there?"
            started = [one for one in events(run_dir, "agent.started") if one.agent == agent.name]
            assert len(started) == 2
        rows = open_run(run_dir).messages.set_index("message_id")
        assert rows.loc[queued.message_id, "status"] == "answered"
        assert rows.loc[slow.message_id, "status"] == "failed"
        assert len(events(run_dir, "run.resumed")) == 1
        assert taken(run_dir, "ada") == ["slow one", "queued", "there?"]
    finally:
        cluster.shutdown()
