"""Limits that pause delivery: among real agents, over the client and the command line, and over kills."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from lab_helpers import write
from typer.testing import CliRunner

from orchestrator_lab import Cluster
from orchestrator_lab.cli.app import app
from orchestrator_lab.config import AlertsConfig, Limits, load_config
from orchestrator_lab.errors import ConfigError, DeliveryPaused, ExchangeTimeout, GuardNotFound
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.runtime import read_record
from orchestrator_lab.supervisor.alerts import Alerts
from orchestrator_lab.supervisor.guards import Guards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator_lab.journal.event import Event

NAMES = ("ada", "bob", "cyd", "dot", "eve", "fay")
LIMITS = {"loops": 2, "hops": 7, "messages": 60}


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Any) -> Iterator[Cluster]:  # noqa: ARG001 - a place of its own
    agents = {"dot": {"limits": {"turns": 2}}, "eve": {"limits": {"tokens": 30}}, "fay": {"limits": {"wall_s": 0.5}}}
    config = script_config(*NAMES, agents=agents, name="guarded", limits=LIMITS, lifetime="owner")
    with Cluster.start(config) as running:
        # Lifted like the others, it would hold again half a second later, in the midst of whatever is tested then.
        (time_is_up,) = until(lambda: [one for one in running.guards if one["rule"] == "wall_s"])
        running.lift(time_is_up["guard_id"], limit=3600)
        yield running


@pytest.fixture(autouse=True)
def _lifted(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cluster" in request.fixturenames:
        shared: Cluster = request.getfixturevalue("cluster")
        shared.lift(by="the next test")


def events(cluster: Cluster, *names: str) -> list[Event]:
    return [event for event in cluster.run.events() if event.event in names]


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)
    return found


def passes_on(cluster: Cluster, *path: str) -> list[str]:
    """Have each agent write to the next one, in reply to what it got; return the ids."""
    sent: list[str] = []
    for sender, recipient in itertools.pairwise(path):
        sent.append(write(cluster, sender, recipient, f"step {len(sent)}", sent[-1] if sent else None)["message_id"])
        until(
            lambda: status(cluster, sent[-1]) == "answered" or any(one["scope"] == "cluster" for one in cluster.guards)
        )
    return sent


def status(cluster: Cluster, message_id: str) -> str:
    return str(cluster.client.get(f"/messages/{message_id}", timeout_s=10.0)["status"])


def only(cluster: Cluster, rule: str) -> dict[str, Any]:
    (guard,) = [one for one in cluster.guards if one["rule"] == rule]
    return guard


# loops and hops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [("ada", "bob", "ada", "bob", "ada"), ("ada", "bob", "cyd", "ada", "bob", "cyd", "ada")]
)
def test_a_loop_pauses_delivery_until_it_is_lifted(cluster: Cluster, path: tuple[str, ...]) -> None:
    cluster.lift()
    sent = passes_on(cluster, *path)
    guard = only(cluster, "loops")
    arrows = " -> ".join(path if len(path) < 7 else [*path[:6], "..."])
    assert f"{arrows}: {len(sent)} messages in 2 rounds, limit loops: 2" in guard["message"]
    assert (guard["scope"], guard["limit"], guard["value"]) == ("cluster", 2, 2)
    assert (guard["chain"], guard["path"]) == (sent, list(path))
    # The message that closed the round, and whatever is sent now, is taken in and waits.
    exchange = cluster["cyd"].send("wait for me")
    with pytest.raises(ExchangeTimeout, match="the message is queued, since delivery in the cluster is paused: ada ->"):
        exchange.result(0.3)
    with pytest.raises(DeliveryPaused, match="limit loops: 2") as caught:
        cluster.wait()
    assert caught.value.details["guard_id"] == guard["guard_id"]
    with pytest.raises(DeliveryPaused):
        asyncio.run(cluster.await_idle("cyd"))
    assert status(cluster, sent[-1]) == "queued"
    assert cluster.lift(guard["guard_id"], by="me")[0]["guard_id"] == guard["guard_id"]
    assert exchange.result(20) == "cyd: wait for me"
    cluster.wait("ada", "bob", "cyd", timeout=20)
    assert status(cluster, sent[-1]) == "answered"
    # Another round is allowed now: it does not trip at once.
    write(cluster, path[-1], path[1], "and on", sent[-1])
    cluster.wait("ada", "bob", "cyd", timeout=20)
    assert cluster.lift(guard["guard_id"]) == []
    lifted = events(cluster, "guard.lifted")[-1]
    assert (lifted.attributes["by"], lifted.attributes["allowance"]) == ("me", 2)


def test_it_is_journalled_before_it_acts_and_somebody_is_told(cluster: Cluster) -> None:
    passes_on(cluster, "bob", "cyd", "bob", "cyd", "bob")
    guard = only(cluster, "loops")
    told = [one for one in events(cluster, "guard.tripped", "alert.opened") if guard["guard_id"] in str(one.attributes)]
    assert [event.event for event in told] == ["guard.tripped", "alert.opened"]
    assert told[0].attributes["chain"] == guard["chain"]
    assert (told[1].attributes["rule"], told[1].level) == ("guard_loops", "error")
    assert told[1].attributes["message"] == guard["message"]
    cluster.lift()
    resolved = [one.attributes["alert_id"] for one in events(cluster, "alert.resolved")]
    assert told[1].attributes["alert_id"] in resolved


def test_chains_of_their_own_are_not_mixed_up(cluster: Cluster) -> None:
    for _ in range(4):
        passes_on(cluster, "ada", "bob", "ada")
    assert [one for one in cluster.guards if one["rule"] == "loops"] == []


def test_a_declared_conversation_is_no_loop(cluster: Cluster) -> None:
    talk = cluster.converse(["ada", "bob"], "begin", rounds=5).wait(30)
    assert talk.ok
    assert [one for one in cluster.guards if one["scope"] == "cluster"] == []


def test_a_conversation_that_is_held_is_not_waited_for(cluster: Cluster) -> None:
    passes_on(cluster, "ada", "bob", "ada", "bob", "ada")
    talk = cluster.converse(["cyd", "bob"], "begin", rounds=1)
    with pytest.raises(DeliveryPaused, match="limit loops"):
        talk.wait()
    with pytest.raises(DeliveryPaused, match="limit loops"):
        cluster.wait()
    cluster.lift()
    assert talk.wait(20).ok


def test_a_chain_that_goes_round_nowhere_is_too_long(cluster: Cluster) -> None:
    sent = passes_on(cluster, "ada", "bob", "cyd", "dot", "ada", "cyd", "bob", "ada", "dot")
    guard = only(cluster, "hops")
    assert len(sent) == guard["value"] == 8
    assert "ada -> bob -> cyd -> dot -> ada -> cyd -> ...: a chain of 8 messages, limit hops: 7" in guard["message"]


# of single agents -------------------------------------------------------------------------------------


def test_an_agents_own_limit_holds_its_messages_alone(cluster: Cluster) -> None:
    cluster.wait("dot", timeout=20)
    while not [one for one in cluster.guards if one["agent"] == "dot"]:
        cluster["dot"].ask("a turn", timeout=20)
    guard = only(cluster, "turns")
    assert f"delivery to dot is paused: {guard['value']} turns of dot have ended" in guard["message"]
    held = cluster["dot"].send("one more")
    assert cluster["ada"].ask("and you?", timeout=20).reply == "ada: and you?"
    cluster.wait("ada", timeout=20)
    with pytest.raises(DeliveryPaused, match="to dot is paused"):
        cluster.wait("dot")
    with pytest.raises(ConfigError, match="is reached already"):
        cluster.lift(guard["guard_id"], limit=guard["value"])
    with pytest.raises(ConfigError, match="not both"):
        cluster.lift(guard["guard_id"], limit=1, allowance=1)
    with pytest.raises(GuardNotFound, match="no guard 'grd_x' holds in cluster 'guarded'; there are: grd_"):
        cluster.lift("grd_x")
    assert held.status == "queued"
    cluster.lift(guard["guard_id"], limit=guard["value"] + 1)
    assert held.result(20) == "dot: one more"
    until(lambda: [one for one in cluster.guards if one["rule"] == "turns"])
    assert only(cluster, "turns")["limit"] == guard["value"] + 1


def test_tokens_count_as_they_are_reported(cluster: Cluster) -> None:
    cluster["eve"].ask("word " * 40, timeout=20)
    guard = until(lambda: [one for one in cluster.guards if one["rule"] == "tokens"])[0]
    used = sum(
        event.attributes.get("input_tokens", 0) + event.attributes.get("output_tokens", 0)
        for event in events(cluster, "turn.usage")
        if event.agent == "eve"
    )
    assert guard["value"] == used > 30


def test_time_is_up_by_itself_at_the_moment(cluster: Cluster) -> None:
    tripped = next(event for event in events(cluster, "guard.tripped") if event.attributes["rule"] == "wall_s")
    began = next(event for event in events(cluster, "agent.started") if event.agent == "fay")
    assert tripped.agent == "fay"
    # Nobody had written to fay; how late it is seen is for the machine to say.
    assert 0.5 <= tripped.attributes["value"] <= tripped.monotonic_s - began.monotonic_s + 1e-3


def test_a_limit_on_costs_holds_over_a_kill_until_it_is_lifted(
    runtime: Path,  # noqa: ARG001 - where the cluster lives
    script_config: Any,
) -> None:
    price = {"input": 1_000_000, "output": 2_000_000}  # a dollar and two for each token
    limits = {"cost_usd": 100_000}
    config = script_config(
        "ada", "bob", agents={"eve": {"limits": {"cost_usd": 1}}}, name="paid", lifetime="owner", limits=limits
    )
    config["cluster"]["prices"] = {"script": price, "*": {"input": 0, "output": 0}}
    with Cluster.start(config) as cluster:
        cluster["eve"].ask("one", timeout=30)
        guard = until(lambda: [one for one in cluster.guards if one["agent"] == "eve"])[0]
        cluster["ada"].ask("two", timeout=30)
        usage = until(lambda: [one for one in events(cluster, "turn.usage") if one.agent == "ada"])[0].attributes
        assert usage["model"] == "script"
        assert usage["cost_usd"] == usage["input_tokens"] + 2 * usage["output_tokens"]
        assert (guard["rule"], guard["limit"]) == ("cost_usd", 1)
        said = f"delivery to eve is paused: {guard['value']:.0f} USD of eve were spent, limit cost_usd: 1; to go on: "
        assert guard["message"].startswith(said)
        alert = next(one for one in events(cluster, "alert.opened") if one.attributes["rule"] == "guard_cost_usd")
        assert (alert.agent, alert.attributes["message"]) == ("eve", guard["message"])
        held = cluster["eve"].send("three")
        record = read_record(cluster.client.folder)
        assert record is not None
        assert record.supervisor_pid is not None
        os.kill(record.supervisor_pid, signal.SIGKILL)
        assert [one["guard_id"] for one in cluster.guards] == [guard["guard_id"]]
        assert held.status == "queued"
        cluster.lift(guard["guard_id"], limit=90_000)
        assert held.result(30) == "eve: three"
        spent = until(lambda: [one for one in events(cluster, "turn.usage") if one.agent == "eve"][1:])
        assert cluster.guards == []
        turns = cluster.run.turns
        assert turns["cost_usd"].notna().all()
        agents = cluster.run.agents.set_index("name")["cost_usd"]
        assert agents["eve"] == guard["value"] + spent[0].attributes["cost_usd"]
        assert agents.isna().tolist() == [False, True, False]
        # Together they reach the cluster's limit, counted over the kill.
        cluster["ada"].ask("word " * 30_000, timeout=60)
        guard = until(lambda: [one for one in cluster.guards if one["agent"] is None])[0]
        assert guard["value"] == cluster.run.turns["cost_usd"].sum() > 100_000
        assert "delivery in the cluster is paused: " in guard["message"]
        cluster["bob"].send("four")
        with pytest.raises(DeliveryPaused, match="limit cost_usd: 100000"):
            cluster.wait("bob", timeout=30)
        cluster.lift()
        cluster.wait(timeout=30)


# from a shell -----------------------------------------------------------------------------------------


def test_from_a_shell(cluster: Cluster) -> None:
    run = CliRunner().invoke
    cluster.lift()
    passes_on(cluster, "ada", "cyd", "ada", "cyd", "ada")
    guard = only(cluster, "loops")
    listed = run(app, ["guards", "list", "-c", "guarded"]).stdout
    assert guard["guard_id"] in listed
    assert "limit loops: 2" in " ".join(listed.split())
    assert "is paused: ada -> cyd" in run(app, ["status", "guarded"]).stderr
    assert cluster.status()["guards"][0]["rule"]
    wrong = run(app, ["guards", "lift", "grd_x", "-c", "guarded"])
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: no guard 'grd_x' holds in cluster 'guarded'")
    done = run(app, ["guards", "lift", guard["guard_id"], "--allowance", "3", "--by", "ann", "-c", "guarded"])
    assert done.stdout == f"lifted {guard['guard_id']} (loops)\n"
    assert events(cluster, "guard.lifted")[-1].attributes["allowance"] == 3
    cluster.lift()
    assert "nothing pauses delivery" in run(app, ["guards", "-c", "guarded"]).stdout


def test_a_limit_on_costs_without_prices_is_told_to_be_without_effect(script_config: Any) -> None:
    config = script_config("ada", agents={"bob": {"limits": {"cost_usd": 1}}}, limits={"cost_usd": 2.5})
    notes = [note for note in load_config(config).notes if "cost_usd" in note]
    assert len(notes) == 2
    assert "of cluster has no effect: no price of any model is known; set 'prices' under 'cluster:'" in notes[0]
    config["cluster"]["prices"] = {"*": {"input": 1, "output": 1}}
    assert [note for note in load_config(config).notes if "cost_usd" in note] == []
    with pytest.raises(ConfigError, match=r"limits.retry_s"):
        load_config(script_config(agents={"bob": {"limits": {"retry_s": 1}}}))


# kills ------------------------------------------------------------------------------------------------


def kill_at(cluster: Cluster, event: str) -> Callable[[], None]:
    """Return what waits for the next event of this name and kills the supervisor at once."""
    journal = cluster.run_dir / "journal.jsonl"
    start, needle = journal.stat().st_size, f'"event":"{event}"'.encode()
    record = read_record(cluster.client.folder)
    assert record is not None
    assert record.supervisor_pid is not None
    pid = record.supervisor_pid

    def kill() -> None:
        with journal.open("rb") as file:
            file.seek(start)
            seen, deadline = b"", time.monotonic() + 20
            while needle not in seen:
                assert time.monotonic() < deadline
                seen += file.read()
        os.kill(pid, signal.SIGKILL)

    return kill


def test_tripped_stays_tripped_and_lifted_stays_lifted_over_kills(
    runtime: Path,  # noqa: ARG001 - where the cluster lives
    script_config: Any,
) -> None:
    config = script_config("ada", "bob", name="killed", limits={"turns": 2}, lifetime="owner")
    with Cluster.start(config) as cluster:
        cluster["ada"].ask("one", timeout=30)
        kill = kill_at(cluster, "turn.ended")
        cluster["ada"].send("two")
        kill()  # between the turn that reaches the limit and what follows, or a little later
        guard = until(lambda: cluster.guards)[0]
        assert guard["value"] == 2
        held = cluster["bob"].send("held")
        time.sleep(0.2)
        assert held.status == "queued"
        # The answer is lost with the supervisor; the client asks again.
        killer = threading.Thread(target=kill_at(cluster, "guard.lifted"))
        killer.start()
        cluster.lift(guard["guard_id"], allowance=2)
        killer.join()
        assert held.result(30) == "bob: held"
        assert cluster.guards == []
        tripped, lifted = events(cluster, "guard.tripped"), events(cluster, "guard.lifted")
        assert [one.attributes["value"] for one in tripped] == [2]
        assert len(lifted) == 1
        opened, resolved = events(cluster, "alert.opened"), events(cluster, "alert.resolved")
        mine = [one.attributes["alert_id"] for one in opened if one.attributes["rule"] == "guard_turns"]
        assert mine == [one.attributes["alert_id"] for one in resolved if one.attributes["rule"] == "guard_turns"]
        assert len(mine) == 1


class Stand:
    """What guards need of a supervisor, on a journal that somebody else began."""

    def __init__(self, folder: Path, lines: list[str], limits: Limits) -> None:
        folder.mkdir()
        path = folder / "journal.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines))
        self.config = SimpleNamespace(limits=limits, alerts=AlertsConfig(), name="stand")
        self.journal = JournalWriter(path, run_id="run_x")
        self.runners: dict[str, Any] = {}
        self.ledger = SimpleNamespace(poke=lambda: None)
        self.replaying = SimpleNamespace(stopped=None, guard_id=lambda *_: None)
        self.alerts = Alerts(self)  # type: ignore[arg-type]
        self.guards = Guards(self)  # type: ignore[arg-type]

    def recover(self) -> list[Event]:
        past, _ = read_events(self.journal.path)
        self.alerts.restore(past)
        self.guards.begin()
        for event in past:
            self.guards.restore(event)
        self.guards.catch_up()
        self.guards.resume()
        self.guards.stop()
        self.journal.close()
        return read_events(self.journal.path)[0]


def test_a_successor_brings_each_step_to_its_end_wherever_the_journal_was_cut(tmp_path: Path) -> None:
    limits = Limits(turns=2, messages=3)

    async def whole() -> list[Event]:
        stand = Stand(tmp_path / "whole", [], limits)
        stand.guards.resume()
        stand.journal.append("run.started")
        for number in range(5):
            message = f"m{number}"
            stand.journal.append(
                "message.queued", agent="ada", message_id=message, sender="user", recipient="ada", kind="direct"
            )
            stand.guards.hold_of("ada")
            stand.journal.append("turn.ended", agent="ada", turn_id=f"t{number}")
            if stand.guards.hold_of("ada") is not None and number % 2:
                stand.guards.lift(by="me")
        stand.journal.close()
        return read_events(stand.journal.path)[0]

    async def cut(lines: list[str], at: int) -> list[Event]:
        return Stand(tmp_path / f"cut{at}", lines[:at], limits).recover()

    events = asyncio.run(whole())
    lines = [event.to_json() for event in events]
    assert {"guard.tripped", "guard.lifted", "alert.opened", "alert.resolved"} <= {event.event for event in events}
    for at in range(len(lines) + 1):
        after = asyncio.run(cut(lines, at))
        standing: dict[str, str] = {}
        alerts: dict[str, str] = {}
        for event in after:
            rule = str(event.attributes.get("rule"))
            if event.event == "guard.tripped":
                assert rule not in standing, f"tripped twice after {at} events"
                standing[rule] = event.attributes["guard_id"]
            elif event.event == "guard.lifted":
                assert standing.pop(rule) == event.attributes["guard_id"]
            elif event.event == "alert.opened":
                assert rule not in alerts
                alerts[rule] = event.attributes["alert_id"]
            elif event.event == "alert.resolved":
                assert alerts.pop(rule) == event.attributes["alert_id"]
        assert {f"guard_{rule}" for rule in standing} == set(alerts), f"after {at} events"
        counted = [event.event for event in after]
        turns, messages = counted.count("turn.ended"), counted.count("message.queued")
        lifts = [event.attributes["rule"] for event in after if event.event == "guard.lifted"]
        assert turns < 2 or "turns" in standing or "turns" in lifts
        assert messages < 4 or "messages" in standing or "messages" in lifts
