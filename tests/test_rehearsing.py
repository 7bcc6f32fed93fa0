"""A recorded run that is replayed by itself: whatever was done from outside is done again, in its order."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.errors import ClusterStopped, ConfigError
from orchestrator_lab.modes import recorded_run
from orchestrator_lab.rehearsing import acts, rehearse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab import Run

SCRIPT = [
    {"when": {"contains": "slow"}, "delay_s": 1.0, "reply": "{agent} heard late: {text}"},
    {"reply": "{agent} heard: {text}"},
]


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def killed(cluster: Cluster, name: str) -> None:
    os.kill(cluster[name].facts["pid"], signal.SIGKILL)
    until(lambda: cluster[name].state == "exited")


def guards_and_meanwhile(cluster: Cluster) -> None:
    """A limit is reached and lifted; while one is started again others are written to."""
    cluster["bob"].ask("one", timeout=30)
    cluster["bob"].ask("two", timeout=30)
    guard = until(lambda: cluster.guards)[0]
    held = cluster["bob"].send("three")
    assert cluster["ada"].ask("and you?", timeout=30).reply == "ada heard: and you?"
    assert held.status == "queued"
    cluster.lift(guard["guard_id"], limit=50)
    held.result(30)
    starts = threading.Thread(target=cluster["ada"].restart)
    starts.start()
    until(lambda: cluster["ada"].facts["restarts"] == 1)
    assert cluster["bob"].ask("meanwhile", timeout=30).reply == "bob heard: meanwhile"
    starts.join()


def comings_and_goings(cluster: Cluster) -> None:
    """Some join, one is killed and started again, all are stopped at once and go on, two leave."""
    eve, _ = cluster.add({"name": "eve", "kind": "chat"}, {"name": "fay", "kind": "chat", "role": "late", "cols": 99})
    assert eve.ask("welcome", timeout=30).reply == "eve heard: welcome"
    killed(cluster, "fay")
    cluster["fay"].restart()
    cluster["fay"].ask("again?", timeout=30)
    cluster["bob"].send("slow").accepted(30)
    cluster["eve"].stop()
    cluster.stop()
    cluster.restart()
    assert cluster["bob"].ask("still there?", timeout=30).reply == "bob heard: still there?"
    cluster.remove("eve")
    killed(cluster, "fay")
    cluster.remove("fay")
    cluster.add({"name": "eve", "kind": "chat", "rows": 33}).ask("welcome back", timeout=30)
    for _ in range(2):
        cluster["eve"].interrupt()
    for what in ("stop", "restart", "stop"):
        getattr(cluster["ada"], what)()
    with pytest.raises(ClusterStopped):
        cluster.converse(["ada", "bob"], "nobody is there")


@pytest.fixture(scope="module")
def recorded(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Run:
    del module_runtime
    agents = {"ada": {}, "bob": {"limits": {"turns": 2}}}
    with Cluster.start(script_config(script=SCRIPT, agents=agents, lifetime="owner")) as cluster:
        guards_and_meanwhile(cluster)
        comings_and_goings(cluster)
    return open_run(cluster.run_dir)


def test_what_was_done_from_outside(recorded: Run) -> None:
    assert [act.words for act in acts(recorded_run(recorded), recorded.events())] == [
        "write to bob",
        "write to bob",
        "write to bob",
        "write to ada",
        "lift a guard (turns)",
        "restart ada",
        "write to bob",
        "add eve and fay",
        "write to eve",
        "restart fay",
        "write to fay",
        "write to bob",
        "stop eve",
        "stop all agents",
        "restart all agents",
        "write to bob",
        "remove eve",
        "remove fay",
        "add eve",
        "write to eve",
        "interrupt eve",
        "interrupt eve",
        "stop ada",
        "restart ada",
        "stop ada",
        "let ada and bob talk",
    ]


@pytest.mark.parametrize("mode", ["replay_strict", "replay"])
def test_all_of_it_comes_out_the_same(
    recorded: Run, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = rehearse(recorded.export(tmp_path / "sent.olab.zip"), mode=mode)
    assert done.divergences == []
    assert done.same, done.tables
    assert done.run.agents.set_index("name").loc["fay", "role"] == "late"
    tripped, lifted = (
        next(one for one in done.run.events() if one.event == f"guard.{how}") for how in ("tripped", "lifted")
    )
    assert tripped.attributes["guard_id"] == lifted.attributes["guard_id"]
    assert lifted.attributes["limit"] == 50


SHELL = {"kind": "program", "command": ["sh", "-i"], "turn_end": {"prompt": "ready> $"}, "env": {"PS1": "ready> "}}


@pytest.mark.parametrize("end", ["shutdown", "stop", "restart"])
@pytest.mark.usefixtures("runtime")
def test_what_was_ended_in_the_middle(script_config: Callable[..., dict[str, Any]], end: str) -> None:
    """One is in a turn, one has been written to, one has more in its queue: a player goes no further than they did."""
    agents = {"ada": {}, "bob": {"restart": {"policy": "always", "backoff_s": 30}}, "sh": SHELL}
    script = [{"reply": "a long answer", "delay_s": 600}]
    with Cluster.start(script_config(script=script, agents=agents, lifetime="owner")) as cluster:
        cluster["ada"].send("one").accepted(30)
        cluster["ada"].send("two")
        cluster["sh"].send("sleep 600").accepted(30)
        killed(cluster, "bob")  # it would be started again later
        cluster["bob"].send("never")
        if end != "shutdown":
            getattr(cluster["ada"], end)()
            getattr(cluster["sh"], end)()
    done = rehearse(cluster.run_dir, mode="replay_strict")
    assert done.divergences == []
    assert done.same, done.tables
    assert "queued" in set(done.run.messages["status"])


@pytest.mark.parametrize("kind", ["claude", "codex"])
@pytest.mark.usefixtures("runtime")
def test_real_programs_that_were_ended_in_the_middle(
    script_config: Callable[..., dict[str, Any]], kind: str, request: pytest.FixtureRequest
) -> None:
    command = request.getfixturevalue(f"{kind}_command")
    agents = {name: {"kind": kind, "command": command} for name in ("ada", "bob")}
    script = [{"when": {"contains": "slow"}, "reply": "a long answer", "delay_s": 600}, {"reply": "{text}"}]
    with Cluster.start(script_config(script=script, agents=agents, lifetime="owner")) as cluster:
        cluster["ada"].send("slow").accepted(60)
        cluster["ada"].send("in its queue")
        cluster["bob"].ask("quick", timeout=60)
        cluster["bob"].send("on its way")
    done = rehearse(cluster.run_dir, mode="replay_strict")
    assert done.divergences == []
    assert done.same, done.tables


def test_an_agent_that_joined_and_is_not_told_of(recorded: Run, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / recorded.run_id
    shutil.copytree(recorded.path, other)
    (other / "sessions" / "eve.json").unlink()
    with pytest.raises(
        ConfigError, match=r"sessions/eve.json cannot be read .* what agent 'eve' was that joined in the"
    ):
        rehearse(other)


def test_a_journal_names_no_file_elsewhere(recorded: Run, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"config": {"name": "eve", "kind": "chat"}}')
    added = next(one for one in recorded.events() if one.event == "agent.added" and one.agent == "eve")
    for name in ("../../secret", str(tmp_path / "secret")):
        with pytest.raises(ConfigError, match="is no name"):
            recorded_run(recorded).joined(dataclasses.replace(added, agent=name))
