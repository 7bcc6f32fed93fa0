"""Runs that are played again in real panes: the same tables to the byte, and what is said where something differs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from typer.testing import CliRunner

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.cli.app import app
from orchestrator_lab.errors import (
    ClusterStopped,
    ConfigError,
    MessageExpired,
    ReplayDiverged,
    ReplayWarning,
    TurnFailed,
)
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.modes import recorded_run
from orchestrator_lab.rehearsing import TABLES
from orchestrator_lab.runtime import cluster_dir, read_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab import Run

SCRIPT = [
    {"when": {"contains": "slow again"}, "reply": "for ever", "delay_s": 600},
    # Slow enough that the next message can be late, whatever else the machine does.
    {"when": {"contains": "slow"}, "reply": "one two three four five six", "delay_s": 2.5, "tokens_per_s": 20},
    {"reply": "{agent} heard: {text}"},
]
SHELL = {"kind": "program", "command": ["sh", "-i"], "turn_end": {"prompt": "ready> $"}, "env": {"PS1": "ready> "}}
AGENTS: dict[str, dict[str, Any]] = {
    "ada": {},
    "bob": {"restart": {"policy": "on-failure", "backoff_s": 0.1}},
    "sh": SHELL,
}


def story(cluster: Cluster) -> None:
    """What a notebook does: it knows nothing of how its agents answer."""
    assert cluster["ada"].ask("hello", timeout=30).reply == "ada heard: hello"
    sent = cluster["ada"].send("two\nlines"), cluster["bob"].send("to you")
    assert [one.result(30) for one in sent] == ["ada heard: two\nlines", "bob heard: to you"]
    assert "42" in str(cluster["sh"].ask("echo $((6*7))", timeout=30).reply)
    assert cluster.converse(["ada", "bob"], "talk", rounds=2).wait(timeout=30).ok
    slow, late = cluster["ada"].send("slow please"), cluster["ada"].send("never", expires=0.05)
    with pytest.raises(MessageExpired):
        late.result(30)
    assert slow.result(30).startswith("one two")


def troubles(cluster: Cluster, *, first: bool) -> None:
    """What befalls a cluster: the second time nobody has to bring it about."""
    slow = cluster["ada"].send("slow again")
    if first:
        slow.accepted(30)
    cluster["ada"].interrupt()
    with pytest.raises(TurnFailed):
        slow.result(30)
    if first:
        pane = cluster["ada"].pane
        pane.cmd("send-keys", "-l", "typed by hand")
        pane.cmd("send-keys", "Enter")
        while "heard: typed by hand" not in cluster["ada"].screen().text:
            time.sleep(0.02)
        os.kill(cluster["bob"].facts["pid"], signal.SIGKILL)
        while cluster["bob"].facts["restarts"] < 1 or not cluster["bob"].facts["ready"]:
            time.sleep(0.02)
    assert cluster["bob"].ask("again?", timeout=30).reply == "bob heard: again?"
    cluster["bob"].restart()
    assert cluster["bob"].ask("and again?", timeout=30).reply == "bob heard: and again?"


@pytest.fixture(scope="module")
def config(script_config: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return script_config(script=SCRIPT, agents=AGENTS, lifetime="owner")


@pytest.fixture(scope="module")
def recorded(module_runtime: Path, config: dict[str, Any]) -> Run:
    del module_runtime
    with Cluster.start(config) as cluster:
        story(cluster)
        troubles(cluster, first=True)
    return open_run(cluster.run_dir)


@pytest.fixture
def elsewhere(config: dict[str, Any]) -> dict[str, Any]:
    """The same agents with a model that would say something else."""
    return {**config, "cluster": {**config["cluster"], "gateway": {"script": [{"reply": "not asked"}]}}}


def divergences(run: Run) -> list[dict[str, Any]]:
    return [{"level": one.level, **one.attributes} for one in run.events() if one.event == "replay.divergence"]


def same(recorded: Run, again: Run) -> None:
    for name in TABLES:
        mine, theirs = (getattr(one, name).drop(columns="run_id") for one in (recorded, again))
        assert len(mine) == len(theirs), name
        assert mine.equals(theirs), f"{name}:\n{mine.compare(theirs).T.to_string()}"


def test_tables_screens_and_recordings_come_out_the_same(recorded: Run, elsewhere: dict[str, Any]) -> None:
    with Cluster.start(elsewhere, mode="replay_strict", run=recorded) as cluster:
        story(cluster)
        troubles(cluster, first=False)
        assert cluster.status()["mode"] == "replay_strict"
    again = open_run(cluster.run_dir)
    assert divergences(again) == []
    same(recorded, again)
    for agent, turn_id in recorded.turns[["agent", "turn_id"]].to_numpy():
        assert str(again.screen(agent, at=turn_id)) == str(recorded.screen(agent, at=turn_id))
    for name in AGENTS:
        output = [read_cast(run.path / "panes" / f"{name}.cast.zst").output() for run in (recorded, again)]
        assert output[0] == output[1]
    row = again.runs.iloc[0]
    assert (row["mode"], row["parent_run_id"], row["status"]) == ("replay_strict", recorded.run_id, "completed")
    # Nothing of the recorded run is left in it, and it can be replayed itself.
    assert not (again.path / "replayed").exists()
    assert set(again.replayable().values()) == {("data", "terminal")}


def test_it_replays_by_itself_from_a_bundle(recorded: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without programs on the PATH; what was done from outside is done again in its order."""
    monkeypatch.chdir(tmp_path)
    recorded.export(tmp_path / "sent.olab.zip")
    said = CliRunner().invoke(app, ["runs", "replay", "sent.olab.zip", "--strict", "--json"])
    assert said.exit_code == 0, said.output
    assert '"same": true' in said.output
    (again,) = (tmp_path / "runs").iterdir()
    assert CliRunner().invoke(app, ["runs", "path", "last"]).output.strip() == str(again)
    assert not list(tmp_path.glob("*-replay"))


def test_speed_is_that_of_the_recording(recorded: Run, elsewhere: dict[str, Any]) -> None:

    def took(speed: float | str) -> float:
        with Cluster.start(elsewhere, run=recorded, speed=speed) as cluster:
            began = time.monotonic()
            story(cluster)
            return time.monotonic() - began

    turn = recorded.turns[recorded.turns.reply.str.startswith("one two", na=False)].iloc[0]
    at_double = took(2.0)
    assert at_double > turn.duration_s / 2
    # Once is enough: a busy machine may make it as slow, by chance.
    assert any(took("max") < at_double for _ in range(4))


def test_who_ends_a_replay_is_not_held_up(recorded: Run, elsewhere: dict[str, Any]) -> None:
    """Ten times slower than then, it would go on for two minutes."""
    with Cluster.start(elsewhere, run=recorded, speed=0.1) as cluster:
        # What a bundle's configuration sets is for the program that it names.
        (own,) = [one for one in cluster if one.name == "sh"]
        assert "PS1" not in psutil.Process(own.facts["pid"]).environ()
        cluster["ada"].send("hello")
        began = time.monotonic()
    assert time.monotonic() - began < 40
    assert divergences(open_run(cluster.run_dir))[-1]["kind"] == "missing"


def test_a_strict_replay_stops_at_another_message(recorded: Run, elsewhere: dict[str, Any]) -> None:
    with Cluster.start(elsewhere, mode="replay_strict", run=recorded) as cluster:
        cluster["ada"].ask("hello", timeout=30)
        with pytest.raises(ReplayDiverged, match="what user writes to ada is not what is recorded") as stopped:
            cluster["ada"].ask("two\nother lines", timeout=30)
        diff = stopped.value.details["diff"].split("\n")
        assert diff[-3:] == [" two", "-lines", "+other lines"]
        for call in (lambda: cluster["bob"].send("to you"), lambda: cluster.wait(timeout=30)):
            with pytest.raises(ReplayDiverged):
                call()
        assert "is not what is recorded" in cluster.status()["problem"]
    again = open_run(cluster.run_dir)
    (told,) = divergences(again)
    assert (told["level"], told["kind"], told["diff"]) == ("error", "message", "\n".join(diff))
    assert (again.runs.iloc[0].status, again.runs.iloc[0].error_type) == ("failed", "ReplayDiverged")


def test_a_replay_goes_on_where_it_differs(recorded: Run, elsewhere: dict[str, Any]) -> None:
    with Cluster.start(elsewhere, run=recorded) as cluster:
        assert cluster.status()["mode"] == "replay"
        with pytest.warns(ReplayWarning, match="what user writes to ada is not what is recorded"):
            assert cluster["ada"].ask("good day", timeout=30).reply == "ada heard: hello"
        # In another order than then, and one after the other.
        assert cluster["bob"].ask("to you", timeout=30).reply == "bob heard: to you"
        assert cluster["ada"].ask("two\nlines", timeout=30).reply == "ada heard: two\nlines"
    again = open_run(cluster.run_dir)
    told = divergences(again)
    assert [one["kind"] for one in told] == ["message", "event", "missing"]
    assert "message.queued of ada (seq" in told[1]["message"]
    assert "not all that is recorded was replayed" in told[-1]["message"]
    assert again.messages.content.iloc[0] == "good day"


def test_more_than_was_recorded(elsewhere: dict[str, Any], recorded: Run) -> None:
    with Cluster.start(elsewhere, run=recorded) as cluster:
        cluster["sh"].ask("echo $((6*7))", timeout=30)
        with (
            pytest.warns(ReplayWarning, match="sh is written to once more than is recorded"),
            pytest.raises(TurnFailed, match="nothing more is recorded"),
        ):
            cluster["sh"].ask("echo more", timeout=30)
    kinds = [one["kind"] for one in divergences(open_run(cluster.run_dir))]
    assert kinds[-2:] == ["surplus", "missing"]
    assert set(kinds[:-2]) == {"event"}, "what was left out before it"


@pytest.mark.parametrize("what", ["supervisor", "tmux"])
def test_what_holds_it_is_killed(recorded: Run, elsewhere: dict[str, Any], what: str) -> None:
    """Nobody knows where the players are: the replay ends, and says so."""
    with Cluster.start(elsewhere, run=recorded) as cluster:
        cluster["ada"].ask("hello", timeout=30)
        record = read_record(cluster_dir(cluster.name))
        assert record is not None
        pid = record.supervisor_pid if what == "supervisor" else record.tmux_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while cluster_dir(cluster.name).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    row = open_run(cluster.run_dir).runs.iloc[0]
    assert (row.status, row.error_type) == ("failed", "ReplayDiverged")
    assert f"its {what}" in row.error_message
    assert "a replay goes on from its beginning only" in row.error_message


def test_a_player_is_killed(recorded: Run, elsewhere: dict[str, Any]) -> None:
    """What it would have done is missing; the others go on."""
    with Cluster.start(elsewhere, run=recorded) as cluster:
        cluster["ada"].ask("hello", timeout=30)
        os.kill(cluster["sh"].facts["pid"], signal.SIGKILL)
        sent = cluster["ada"].send("two\nlines"), cluster["bob"].send("to you")
        assert [one.result(30) for one in sent] == ["ada heard: two\nlines", "bob heard: to you"]
        while cluster["sh"].state != "exited":
            time.sleep(0.02)
        with pytest.raises(ClusterStopped):
            cluster["sh"].ask("echo $((6*7))", timeout=30)


def test_what_cannot_be_replayed_does_not_start(recorded: Run, elsewhere: dict[str, Any], tmp_path: Path) -> None:
    more = {**elsewhere, "agents": [*elsewhere["agents"], {"name": "eve", "kind": "chat"}]}
    with pytest.raises(ConfigError, match="agent 'eve' is not in the run that is replayed, which has: ada, bob, sh"):
        Cluster.start(more, run=recorded)
    other = tmp_path / recorded.run_id
    shutil.copytree(recorded.path, other)
    journal = other / "journal.jsonl"
    event = '{"seq":9999,"event":"keeper.gap","at":"2026-01-01T00:00:00.000000Z","monotonic_s":99.0,"level":"warning"}'
    journal.write_text(f"{journal.read_text()}{event}\n")
    assert "terminal" not in open_run(other).replayable()["ada"]
    with pytest.raises(ConfigError, match="cannot be replayed on the terminal: its keeper ended in the middle"):
        recorded_run(other)


def changed(recorded: Run, folder: Path, was: str, now: str) -> Path:
    """A copy of the run, in whose journal one byte is another."""
    other = folder / recorded.run_id
    shutil.copytree(recorded.path, other)
    journal = other / "journal.jsonl"
    assert was in journal.read_text()
    journal.write_text(journal.read_text().replace(was, now, 1))
    return other


def test_one_byte_of_an_input_is_changed(recorded: Run, elsewhere: dict[str, Any], tmp_path: Path) -> None:
    other = changed(recorded, tmp_path, "two\\nlines", "two\\nlimes")
    with (
        Cluster.start(elsewhere, run=other, mode="replay_strict") as cluster,
        pytest.raises(ReplayDiverged, match=r"what user writes to ada is not what is recorded[^$]*\+lines"),
    ):
        story(cluster)


def test_one_byte_of_a_conversation_is_changed(recorded: Run, elsewhere: dict[str, Any], tmp_path: Path) -> None:
    """An answer is what the next one was told."""
    other = changed(recorded, tmp_path, '"reply":"ada heard: talk"', '"reply":"ada heard: tall"')
    with (
        Cluster.start(elsewhere, run=other, mode="replay_strict") as cluster,
        pytest.raises(ReplayDiverged, match=r"what ada writes to bob is not what is recorded[^$]*\+ada heard: tall"),
    ):
        story(cluster)


def test_one_byte_of_a_screen_is_changed(recorded: Run, elsewhere: dict[str, Any], tmp_path: Path) -> None:
    other = changed(recorded, tmp_path, '"name":"lab"', '"name":"lab"')
    cast = other / "panes" / "ada.cast.zst"
    data = bytearray(cast.read_bytes())
    # Within what was shown: of the times between the pieces a bit more or less changes no screen.
    frame = data.index(b"\x28\xb5\x2f\xfd", len(data) // 2)
    data[frame + 16] ^= 1
    cast.write_bytes(data)
    with pytest.raises(ConfigError, match=r"agent 'ada' cannot be replayed: .*ada.cast.zst is damaged at byte \d+"):
        Cluster.start(elsewhere, run=other)
