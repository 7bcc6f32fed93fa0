"""Runs that are recorded, and replayed: the same tables without a model, and what happens where something differs."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import zstandard
from typer.testing import CliRunner

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.cli.app import app
from orchestrator_lab.errors import ConfigError, ReplayDiverged, ReplayWarning, RunNotFound, TurnFailed
from orchestrator_lab.modes import choose_level, choose_mode, recorded_run
from orchestrator_lab.runtime import cluster_dir, read_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab import Run

SECRET = "tk-0123456789abcdef"
SCRIPT = [
    {"when": {"contains": "break"}, "error": {"status": 400, "message": "no such thing"}},
    {"reply": "{agent} no {n}: {text}", "chunk": 3},
]
#: What a run's rows say beside ids and instants.
SAID = {
    "messages": ["sender", "recipient", "kind", "source", "content", "content_sha256", "hop", "status", "error_type"],
    "turns": ["agent", "reply", "end_reason", "model", "input_tokens", "output_tokens", "tool_call_count"],
}
SHELL = {"kind": "program", "command": ["sh", "-i"], "turn_end": {"prompt": "ready> $"}}


def said(run: Run, table: str) -> list[list[Any]]:
    return [[str(value) for value in row] for row in getattr(run, table)[SAID[table]].to_numpy().tolist()]


def states(run: Run, agent: str) -> list[str]:
    table = run.states
    return list(table[table.agent == agent].state)


def breaks(cluster: Cluster) -> None:
    with pytest.raises(TurnFailed, match="no such thing"):
        cluster["ada"].ask("break", timeout=30)


def story(cluster: Cluster) -> None:
    assert cluster["ada"].ask("hello", timeout=30).reply == "ada no 1: hello"
    breaks(cluster)
    assert "42" in str(cluster["sh"].ask("echo $((6*7))", timeout=30).reply)
    assert str(cluster["bob"].ask(f"hello {SECRET}", timeout=30).reply).startswith("bob no 1: hello ")
    assert cluster.converse(["ada", "bob"], "talk", rounds=2).wait(timeout=60).ok


def agents() -> dict[str, dict[str, Any]]:
    return {"ada": {"env": {"MY_TOKEN": SECRET}}, "bob": {"api": "openai"}, "sh": {**SHELL, "env": {"PS1": "ready> "}}}


@pytest.fixture(scope="module")
def recorded(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Run:
    del module_runtime
    with Cluster.start(script_config(script=SCRIPT, agents=agents(), lifetime="owner")) as cluster:
        story(cluster)
    return open_run(cluster.run_dir)


@pytest.fixture
def config(script_config: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The same agents on a script that would say something else."""
    return script_config(agents=agents(), script=[{"reply": "not asked"}], lifetime="owner")


def divergences(cluster: Cluster) -> list[dict[str, Any]]:
    return [{"level": e.level, **e.attributes} for e in cluster.run.events() if e.event == "replay.divergence"]


def kill_supervisor(cluster: Cluster) -> None:
    """Kill it; the next call of a client waits for its successor."""
    record = read_record(cluster_dir(cluster.name))
    assert record is not None
    assert record.supervisor_pid is not None
    process = psutil.Process(record.supervisor_pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)


def test_a_run_is_recorded_unless_somebody_says_otherwise(
    recorded: Run, script_config: Callable[..., dict[str, Any]]
) -> None:
    assert recorded.manifest["mode"] == "record"
    both = ("data", "terminal")
    assert recorded.replayable() == {"ada": (*both, "model"), "bob": (*both, "model"), "sh": both}
    for place in sorted((recorded.path / "cassettes").iterdir()):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        with place.open("rb") as file:
            text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read().decode()
        assert SECRET not in text
        assert ("hello " + "*" * len(SECRET) in text) == (place.name == "bob.jsonl.zst")
    with Cluster.start(script_config("ada", lifetime="owner"), mode="live") as cluster:
        cluster["ada"].ask("hello", timeout=30)
        assert cluster.status()["mode"] == "live"
    run = open_run(cluster.run_dir)
    assert run.replayable() == {"ada": ("data", "terminal")}
    assert not (run.path / "cassettes").exists()
    with pytest.raises(ConfigError, match="holds no cassette: it was made in mode live"):
        recorded_run(run, "model")


def test_the_command_line_replays_what_the_run_was_started_with(
    recorded: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the bundle that somebody was sent, without script, work folder and secrets: the same tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_TOKEN", SECRET)
    recorded.export(tmp_path / "sent.olab.zip")
    given = [
        "start",
        "--mode",
        "replay_strict",
        "--run",
        "sent.olab.zip",
        "--level",
        "model",
        "--name",
        "again",
        "--json",
    ]
    run = CliRunner().invoke(app, given)
    assert run.exit_code == 0, run.output
    with Cluster.attach("again") as cluster:
        story(cluster)
        assert cluster.status()["mode"] == "replay_strict"
        assert divergences(cluster) == []
    assert cluster.run_dir.parent == tmp_path / "runs"
    again = open_run(cluster.run_dir)
    for table in SAID:
        assert said(again, table) == said(recorded, table), table
    for agent in ("ada", "bob"):
        assert states(again, agent) == states(recorded, agent)
    row = again.runs.iloc[0]
    assert (row["mode"], row["parent_run_id"], row["status"]) == ("replay_strict", recorded.run_id, "completed")
    # It can be replayed itself: it has all that it needs.
    assert again.replayable() == recorded.replayable()


def test_a_strict_replay_stops_where_it_differs_and_stays_so(recorded: Run, config: dict[str, Any]) -> None:
    with Cluster.start(config, mode="replay_strict", run=recorded, level="model") as cluster:
        cluster["ada"].ask("hello", timeout=30)
        kill_supervisor(cluster)
        breaks(cluster)  # its successor knows what was answered
        with pytest.raises(ReplayDiverged, match="agent 'bob' asks its model something else") as stopped:
            cluster["bob"].ask("goodbye", timeout=30)
        diff = stopped.value.details["diff"].split("\n")
        assert diff[-2:] == ["-user: hello <secret>", "+user: goodbye"]
        (told,) = divergences(cluster)
        assert (told["level"], told["kind"], told["diff"]) == ("error", "request", "\n".join(diff))
        # Nothing more is delivered, and everybody who waits is told why.
        for call in (lambda: cluster["ada"].send("hello"), lambda: cluster.wait(timeout=30)):
            with pytest.raises(ReplayDiverged):
                call()
        assert "something else" in cluster.status()["problem"]
        kill_supervisor(cluster)
        with pytest.raises(ReplayDiverged, match=r"\+user: goodbye"):
            cluster["ada"].send("hello")
    row = open_run(cluster.run_dir).runs.iloc[0]
    assert (row["status"], row["error_type"]) == ("failed", "ReplayDiverged")


def test_a_replay_goes_on_where_it_differs(recorded: Run, config: dict[str, Any]) -> None:
    with Cluster.start(config, run=recorded.path, level="model") as cluster:
        assert cluster.status()["mode"] == "replay"
        with pytest.warns(ReplayWarning, match="agent 'ada' asks its model something else .*; the replay goes on"):
            assert cluster["ada"].ask("good day", timeout=30).reply == "ada no 1: hello"
        (told,) = divergences(cluster)
        diff = ["-user: hello", "+user: good day"]
        assert (told["level"], told["kind"], told["diff"].split("\n")[-2:]) == ("warning", "request", diff)
        assert "something else than the recording's request 1" in told["message"]
        asked = CliRunner().invoke(app, ["ask", "ada", "and now?"])
        assert "note: agent 'ada' asks its model something else than the recording's request 2" in asked.output
    _, *rest = divergences(cluster)
    assert [(one["kind"], one["request"]) for one in rest] == [("request", 2), ("missing", 4), ("missing", 3)]
    assert "not asked all that is recorded: 2 of its 4 requests are left" in rest[1]["message"]


def test_what_cannot_be_replayed_does_not_start(recorded: Run, config: dict[str, Any], tmp_path: Path) -> None:
    config["agents"][0]["gateway"] = "none"
    with pytest.raises(ConfigError, match="agent 'ada' talks to its model itself, not through the gateway"):
        Cluster.start(config, run=recorded, level="model")
    del config["agents"][0]["gateway"]
    other = tmp_path / recorded.run_id
    shutil.copytree(recorded.path, other)
    place = other / "cassettes" / "bob.jsonl.zst"
    with place.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    place.write_bytes(zstandard.compress(text.replace(b'"status":200', b'"status":201', 1)))
    with pytest.raises(ReplayDiverged, match=r"agent 'bob': request \d of its cassette is not what was recorded"):
        Cluster.start(config, mode="replay_strict", run=other, level="model")


def test_the_switch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose_mode(None, None) == "record"
    assert choose_mode(None, "run_x") == "replay"
    assert choose_mode("record", "run_x") == "record"
    monkeypatch.setenv("ORCHESTRATOR_LAB_MODE", "live")
    assert choose_mode(None, "run_x") == "live"
    assert choose_mode("replay_strict", "run_x") == "replay_strict"
    monkeypatch.setenv("ORCHESTRATOR_LAB_MODE", "replay")
    with pytest.raises(ConfigError, match="mode replay needs the run that is to be replayed: give run="):
        choose_mode(None, None)
    monkeypatch.setenv("ORCHESTRATOR_LAB_MODE", "liv")
    with pytest.raises(ConfigError, match="ORCHESTRATOR_LAB_MODE: one of 'live'"):
        choose_mode(None, None)
    monkeypatch.delenv("ORCHESTRATOR_LAB_MODE")
    with pytest.raises(ConfigError, match="no mode 'dead'; the modes are: live, record, replay, replay_strict, auto"):
        choose_mode("dead", None)
    assert choose_level(None) == "terminal"
    monkeypatch.setenv("ORCHESTRATOR_LAB_LEVEL", "model")
    assert (choose_level(None), choose_level("terminal")) == ("model", "terminal")
    with pytest.raises(ConfigError, match="there is no level 'data' of replay; the levels are: terminal, model"):
        choose_level("data")
    with pytest.raises(ConfigError, match=r"speed='fast' is no speed of a replay; give 'max', 1\.0"):
        recorded_run("run_x", speed="fast")
    with pytest.raises(RunNotFound, match="there is no run 'run_x'"):
        recorded_run("run_x")
    wrong = CliRunner().invoke(app, ["start", "--mode", "replay_strict", "--resume", "last"])
    assert wrong.exit_code == 2
    assert "--resume goes on with what the run had" in wrong.output


def test_auto_replays_what_is_there_and_records_what_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = tmp_path / "night.olab.zip"
    for run in (None, bundle, "night.olab.zip", "run_x", "last"):
        assert choose_mode("auto", run) == "record"
    bundle.touch()  # what is wrong with it is told by whoever opens it
    assert choose_mode("auto", bundle) == choose_mode("auto", "night.olab.zip") == "replay"
    monkeypatch.setenv("ORCHESTRATOR_LAB_MODE", "record")
    assert choose_mode("auto", bundle) == "record"
    monkeypatch.setenv("ORCHESTRATOR_LAB_MODE", "replay_strict")
    assert choose_mode("auto", bundle) == "replay_strict"
    with pytest.raises(ConfigError, match="mode replay_strict needs the run that is to be replayed"):
        choose_mode("auto", None)
    monkeypatch.setenv("ORCHESTRATOR_LAB_MODE", "auto")
    assert choose_mode(None, bundle) == "replay"
    assert choose_mode(None, "run_x") == choose_mode(None, None) == "record"
    assert choose_mode("live", bundle) == "live"
