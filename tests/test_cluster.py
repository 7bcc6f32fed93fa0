"""Cluster, Agent and Exchange: what a notebook holds."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from last_words import last_words

from orchestrator_lab import Cluster, agents_df, errors, messages_df, open_run, runs_df
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.runtime import process_alive, read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    ConfigMaker = Callable[..., dict[str, Any]]

SCRIPT = [
    {"when": {"contains": "slow"}, "reply": "done", "delay_s": 0.6},
    {"when": {"contains": "for ever"}, "reply": "x" * 2000, "tokens_per_s": 5},
    {
        "when": {"contains": "fail"},
        "error": {"status": 400, "type": "invalid_request_error", "message": "no such thing"},
    },
    {"reply": "{agent}: {text}"},
]


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: ConfigMaker) -> Iterator[Cluster]:
    agents = {"ada": {"role": "mathematician", "instructions": "Count."}, "bob": {}}
    config = script_config(name="duo", script=SCRIPT, agents=agents)
    with Cluster.start(config, experiment="counting", params={"n": 3}, tags=["test", "ci"], seed=7) as cluster:
        yield cluster
    assert not (module_runtime / "duo").exists()


# messages -----------------------------------------------------------------------------------------


def test_ask_gives_the_exchange_with_its_rows(cluster: Cluster) -> None:
    exchange = cluster["ada"].ask("one", timeout=20)
    assert exchange.reply == "ada: one"
    assert exchange.done
    assert exchange.message["status"] == "answered"
    assert exchange.message["acceptance_source"] == "hook"
    assert exchange.turn is not None
    assert exchange.turn["reply"] == "ada: one"
    assert set(exchange.timings) == {"queue_s", "delivery_s", "response_s"}
    assert all(0 <= seconds < 20 for seconds in exchange.timings.values())
    assert cluster.ask("bob", "two", timeout=20).reply == "bob: two"


def test_send_returns_at_once_and_keeps_the_order(cluster: Cluster) -> None:
    first = cluster["ada"].send("for ever")
    second = cluster["ada"].send("two")
    assert not second.done
    assert second.reply is None
    assert first.accepted(20).status in {"accepted", "started"}
    cluster["ada"].interrupt()
    assert second.result(20) == "ada: two"
    assert first.status == "failed"
    assert first.message["seq"] < second.message["seq"]


async def test_exchanges_are_awaited(cluster: Cluster) -> None:
    replies = await asyncio.gather(*(cluster[name].send(f"hello {name}") for name in ("ada", "bob")))
    assert replies == ["ada: hello ada", "bob: hello bob"]
    assert await cluster.await_idle(timeout=20) is cluster
    conversation = await cluster.converse(["bob", "ada"], "go", rounds=1)
    assert repr(conversation) == "Conversation(bob → ada, rounds=1, completed)"


def test_broadcast_reaches_every_agent_in_one_conversation(cluster: Cluster) -> None:
    exchanges = cluster.broadcast("all of you")
    assert [one.recipient for one in exchanges] == ["ada", "bob"]
    assert [one.result(20) for one in exchanges] == ["ada: all of you", "bob: all of you"]
    rows = cluster.run.messages.set_index("message_id").loc[[one.message_id for one in exchanges]]
    assert set(rows["kind"]) == {"broadcast"}
    assert rows["conversation_id"].nunique() == 1


def test_conversation_runs_by_itself(cluster: Cluster) -> None:
    conversation = cluster.converse([cluster["ada"], "bob"], "start", rounds=2).wait(30)
    rows = conversation.messages
    assert list(rows["recipient"]) == ["ada", "bob", "ada", "bob"]
    assert list(rows["hop"]) == [0, 1, 2, 3]
    assert list(rows["content"])[1] == "ada: start"
    assert set(rows["status"]) == {"answered"}


def test_a_turn_that_fails_is_told(cluster: Cluster) -> None:
    with pytest.raises(errors.TurnFailed, match=r"ada.*no such thing"):
        cluster["ada"].ask("fail", timeout=20)


def test_interrupt_ends_the_turn(cluster: Cluster) -> None:
    exchange = cluster["bob"].send("for ever").accepted(20)
    cluster["bob"].interrupt()
    with pytest.raises(errors.TurnFailed, match="interrupted"):
        exchange.result(20)
    assert cluster["bob"].ask("again", timeout=20).reply == "bob: again"
    assert exchange.turn is not None
    assert exchange.turn["end_reason"] == "interrupted"


def test_wait_is_over_when_all_are_idle(cluster: Cluster) -> None:
    exchanges = [cluster[name].send("slow") for name in ("ada", "bob")]
    assert cluster.wait(timeout=20) is cluster
    assert [one.status for one in exchanges] == ["answered", "answered"]
    assert {agent.state for agent in cluster} == {"idle"}


def test_expired_message_was_never_typed(cluster: Cluster) -> None:
    cluster["ada"].send("for ever").accepted(20)
    exchange = cluster["ada"].send("too late", expires=0.05)
    with pytest.raises(errors.MessageExpired, match="nothing was typed"):
        exchange.result(20)
    cluster["ada"].interrupt()
    cluster.wait(timeout=20)
    assert "too late" not in cluster["ada"].screen(history=2000).text


# looking ------------------------------------------------------------------------------------------


def test_reprs_are_worth_reading_and_stable(cluster: Cluster) -> None:
    exchange = cluster["ada"].ask("one", timeout=20)
    texts = [repr(cluster), repr(cluster["ada"]), repr(exchange), repr(cluster.run)]
    assert texts[:3] == [
        "Cluster('duo', agents=[ada, bob])",
        "Agent('ada')",
        "Exchange(user → ada: 'one', answered, reply='ada: one')",
    ]
    pages = [cluster._repr_html_(), exchange._repr_html_(), cluster.run._repr_html_()]
    for text in texts + pages:
        assert not re.search(r"0x[0-9a-f]{6,}|\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d", text), text
    assert cluster._repr_html_() == cluster._repr_html_()
    assert "mathematician" in cluster._repr_html_()


def test_status_and_agents(cluster: Cluster) -> None:
    status = cluster.status()
    assert (status["name"], status["status"], status["lifetime"]) == ("duo", "running", "detached")
    assert cluster.names == ["ada", "bob"]
    assert len(cluster) == 2
    assert cluster["ada"].role == "mathematician"
    assert cluster["ada"].pane.pane_id == cluster["ada"].facts["pane_id"]
    assert re.match(r"\S*tmux .*-S \S+/duo/tmux.sock attach-session", cluster.attach_command)
    assert "ada" in str(cluster["ada"].screen())
    assert [one.name for one in Cluster.list()] == ["duo"]


def test_attached_cluster_is_the_same_one(cluster: Cluster) -> None:
    other = Cluster.attach("duo")
    assert other.run_id == cluster.run_id
    assert other["bob"].ask("from another client", timeout=20).reply == "bob: from another client"
    assert repr(other) == repr(cluster)


def test_what_the_run_was_for_is_in_its_row(cluster: Cluster) -> None:
    row = runs_df(cluster).iloc[0]
    assert (row["experiment"], row["params"], list(row["tags"]), row["seed"]) == (
        "counting",
        {"n": 3},
        ["test", "ci"],
        7,
    ) or (row["experiment"], row["seed"]) == ("counting", 7)
    assert row["mode"] == "record"
    assert row["agent_count"] == 2
    assert agents_df(cluster)["role"].iloc[0] == "mathematician"
    assert len(messages_df(cluster)) == row["message_count"]


# life ---------------------------------------------------------------------------------------------


def test_agents_join_and_leave(cluster: Cluster) -> None:
    eve = cluster.add({"name": "eve", "kind": "chat"})
    assert eve.ask("welcome", timeout=20).reply == "eve: welcome"
    pid = eve.facts["pid"]
    assert cluster.names == ["ada", "bob", "eve"]
    cluster.remove("eve")
    assert cluster.names == ["ada", "bob"]
    assert not process_alive(pid)
    with pytest.raises(errors.AgentNotFound):
        cluster["eve"]
    assert "eve" in set(agents_df(cluster)["name"])


def test_agent_restarts_and_its_session_goes_on(cluster: Cluster) -> None:
    before = cluster["ada"].facts
    cluster["ada"].restart()
    after = cluster["ada"].facts
    assert after["pid"] != before["pid"]
    assert after["session_id"] == before["session_id"]
    assert after["restarts"] == before["restarts"] + 1
    assert cluster["ada"].ask("back?", timeout=20).reply == "ada: back?"


async def test_stop_restart_and_shutdown_with_their_twins(runtime: Path, script_config: ConfigMaker) -> None:
    async with await Cluster.astart(script_config("ada", name="twins")) as cluster:
        await stop_restart_and_shutdown(runtime, cluster)


async def stop_restart_and_shutdown(runtime: Path, cluster: Cluster) -> None:
    record = read_record(runtime / "twins")
    assert record is not None
    tmux = record.tmux_pid
    assert tmux is not None
    await cluster["ada"].send("one")
    await cluster.astop()
    assert cluster.status()["status"] == "stopped"
    assert cluster["ada"].state == "exited"
    assert process_alive(tmux), "the session goes with the cluster, not with its agents"
    await cluster.arestart()
    assert await cluster["ada"].send("two") == "ada: two"
    assert (await Cluster.aattach("twins")).run_id == cluster.run_id
    run_dir = await cluster.ashutdown()
    assert await cluster.ashutdown() == run_dir
    assert not process_alive(tmux)
    assert not (runtime / "twins").exists()
    run = open_run(run_dir)
    assert list(run.messages["status"]) == ["answered", "answered"]
    assert runs_df(run).iloc[0]["status"] == "completed"
    assert repr(cluster) == "Cluster('twins', shut down)"
    assert cluster.run.messages.shape == run.messages.shape


def test_block_that_fails_ends_the_run_as_failed(runtime: Path, script_config: ConfigMaker) -> None:
    with pytest.raises(ZeroDivisionError), Cluster.start(script_config("ada", name="block")) as cluster:
        1 / 0  # noqa: B018
    assert runs_df(cluster).iloc[0]["status"] == "failed"
    assert not (runtime / "block").exists()


OWNER = """
import sys, time
from orchestrator_lab import Cluster
cluster = Cluster.start(sys.argv[1])
print(cluster.run_dir, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_owner_takes_its_cluster_with_it(
    runtime: Path, script_config: ConfigMaker, tmp_path: Path, number: int
) -> None:
    import yaml

    place = tmp_path / "cluster.yaml"
    place.write_text(yaml.safe_dump(script_config("ada", "bob", name="owned", lifetime="owner")))
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(place)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    run_dir = Path(owner.stdout.readline().strip())
    record = read_record(runtime / "owned")
    assert record is not None
    pids = [record.keeper_pid, record.supervisor_pid, record.tmux_pid]
    pids += [agent["pid"] for agent in Cluster.attach("owned").status()["agents"]]
    os.kill(owner.pid, number)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 60
    while (runtime / "owned").exists() or any(process_alive(int(pid or 0)) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert runs_df(run_dir).iloc[0]["status"] == "cancelled"


def test_the_recording_of_a_program_that_cannot_start_has_its_first_byte(cluster: Cluster) -> None:
    brief = {
        "kind": "program",
        "command": ["sh", "-c", last_words("first and last", "exit 3")],
        "turn_end": {"quiet_s": 0.5},
        "ready": {"quiet_s": 60},
    }
    with pytest.raises(errors.AgentFailed, match="exit status 3"):
        cluster.add({"name": "brief", **brief})
    path = cluster.run.path / "panes" / "brief.cast.zst"
    deadline = time.monotonic() + 30
    while b"first and last" not in read_cast(path).output():
        assert time.monotonic() < deadline
        time.sleep(0.05)
