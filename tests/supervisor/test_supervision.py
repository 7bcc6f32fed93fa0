"""Programs that end are started again as their policy says, once, by whichever supervisor lives; never what was asked
to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from care_helpers import Fakes, until
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.config import RestartPolicy
from orchestrator_lab.errors import AgentFailed, ClusterStopped, TurnFailed
from orchestrator_lab.frames import agents_df, turns_df
from orchestrator_lab.supervisor.supervision import End, decide_restart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAST = {"policy": "on-failure", "backoff_s": 0.3, "max_restarts": 3}


# the decision -------------------------------------------------------------------------------------

policies = st.builds(
    RestartPolicy,
    policy=st.sampled_from(["never", "on-failure", "always"]),
    max_restarts=st.integers(1, 20),
    window_s=st.floats(0.1, 1e5),
    backoff_s=st.floats(0.01, 1e4),
    backoff_max_s=st.floats(0.01, 1e5),
)
ends = st.builds(
    End,
    status=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    asked=st.booleans(),
    hung=st.booleans(),
    served=st.booleans(),
)
histories = st.lists(st.floats(0.0, 1e6), max_size=40)


@given(policies, ends, histories, st.floats(0.0, 1.0))
def test_what_was_asked_to_end_or_never_served_is_left_alone(
    policy: RestartPolicy, end: End, restarts: list[float], chance: float
) -> None:
    decision = decide_restart(policy, end, restarts, 1e6, chance=chance)
    if end.asked or not end.served:
        assert decision.action == "nothing"
    elif end.hung:
        assert decision.action != "nothing"
    elif policy.policy == "never" or (policy.policy == "on-failure" and end.status == 0):
        assert decision.action == "nothing"
    else:
        assert decision.action != "nothing"


@given(policies, histories, st.floats(0.0, 1.0))
def test_no_more_restarts_than_the_window_holds_and_no_pause_longer_than_the_longest(
    policy: RestartPolicy, restarts: list[float], chance: float
) -> None:
    now = 1e6
    decision = decide_restart(policy, End(signal=9, hung=True), restarts, now, chance=chance)
    inside = [one for one in restarts if one > now - policy.window_s]
    assert (decision.action == "give_up") == (len(inside) >= policy.max_restarts)
    if decision.action == "restart":
        assert decision.attempt == len(inside) + 1
        whole = min(policy.backoff_max_s, policy.backoff_s * 2 ** len(inside))
        assert 0.9 * whole * 0.999 <= decision.delay_s <= whole


@given(policies, st.integers(1, 30))
def test_pauses_grow_until_it_is_given_up(policy: RestartPolicy, ends: int) -> None:
    now, restarts, pauses = 0.0, [], []
    for _ in range(ends):
        decision = decide_restart(policy, End(signal=9, hung=True), restarts, now)
        if decision.action == "give_up":
            break
        restarts.append(now)
        pauses.append(decision.delay_s)
    assert len(pauses) <= policy.max_restarts
    assert pauses == sorted(pauses)


# real programs ------------------------------------------------------------------------------------


@pytest.fixture
def lab(runtime: Path, tmp_path: Path) -> Iterator[Fakes]:
    del runtime
    fakes = Fakes(tmp_path, "ada", "bob", restart=FAST)
    yield fakes
    with contextlib.suppress(ClusterStopped):
        fakes.cluster.shutdown()


def test_a_crash_is_made_good_and_messages_wait_for_it(lab: Fakes) -> None:
    ada, bob = lab.cluster["ada"], lab.cluster["bob"].facts["pid"]
    session = ada.facts["session_id"]
    lab.control("ada", set={"turn_ms": 60_000})
    cut_off = ada.send("unfinished").accepted(10)
    behind = ada.send("behind it")
    lab.options(turn_ms=0)
    lab.kill("ada")
    with pytest.raises(TurnFailed, match="ended during the turn"):
        cut_off.result(10)
    assert ada.state == "exited"
    assert ada.facts["restarting"] is True
    later = ada.send("sent in the pause")
    # A cluster that waits for a restart is not idle.
    lab.cluster.wait(timeout=20)
    assert behind.result(10) == "took 9 characters"
    assert later.result(10) == "took 17 characters"
    assert ada.facts["restarting"] is False
    assert ada.facts["session_id"] == session
    (exited,) = lab.events("agent.exited")
    (planned,) = lab.events("agent.restarting")
    assert (planned.attributes["attempt"], planned.attributes["reason"]) == (1, "signal 9")
    assert 0.27 <= planned.attributes["delay_s"] <= 0.3
    started = lab.starts("ada")[-1]
    assert exited.seq < planned.seq < started.seq
    assert started.monotonic_s - planned.monotonic_s >= planned.attributes["delay_s"] - 0.01
    turns, agents = turns_df(lab.cluster.run), agents_df(lab.cluster.run).set_index("name")
    assert turns["end_reason"].tolist() == ["exited", "completed", "completed"]
    assert agents.loc[["ada", "bob"], "restarts"].tolist() == [1, 0]
    # What is healthy is left alone.
    assert lab.cluster["bob"].facts["pid"] == bob
    assert [one["prompt"] for one in lab.records("ada", "submitted")] == [
        "unfinished",
        "behind it",
        "sent in the pause",
    ]


def test_an_orderly_end_is_no_failure_and_what_is_stopped_stays_stopped(lab: Fakes) -> None:
    lab.control("ada", do="exit", status=0)
    until(lambda: lab.cluster["ada"].state == "exited")
    lab.cluster["bob"].stop()
    assert lab.cluster["bob"].state == "exited"
    assert [one.attributes["reason"] for one in lab.events("agent.stopping")] == ["stop"]
    for name in ("ada", "bob"):
        assert lab.cluster[name].facts["restarting"] is False
        with pytest.raises(ClusterStopped, match="restart it first"):
            lab.cluster[name].send("to nobody")
    assert lab.events("agent.restarting") == []


def test_one_that_fails_again_and_again_is_given_up_with_an_alert_until_somebody_restarts_it(lab: Fakes) -> None:
    lab.options(crash_at="start", crash_status=3)
    lab.kill("ada")
    until(lambda: lab.events("alert.opened"))
    attempts = lab.events("agent.restarting")
    assert [one.attributes["attempt"] for one in attempts] == [1, 2, 3]
    assert [one.attributes["reason"] for one in attempts] == ["signal 9", "exit status 3", "exit status 3"]
    assert attempts[1].attributes["delay_s"] > 1.5 * attempts[0].attributes["delay_s"]
    ada = lab.cluster["ada"]
    assert ada.state == "failed"
    assert "restarted 3 times" in ada.facts["error"]
    (alert,) = lab.events("alert.opened")
    assert (alert.level, alert.agent, alert.attributes["rule"]) == ("error", "ada", "restarts_exhausted")
    with pytest.raises(ClusterStopped):
        ada.send("to nobody")
    # The cause is gone, and a person starts it: the count begins anew.
    lab.options()
    ada.restart()
    assert ada.ask("hello", timeout=10).reply == "took 5 characters"
    assert len(lab.events("alert.resolved")) == 1
    lab.kill("ada")
    lab.restarted("ada", 5)
    assert lab.events("agent.restarting")[-1].attributes["attempt"] == 1
    assert agents_df(lab.cluster.run).set_index("name").loc["ada", "restarts"] == 5


@pytest.mark.parametrize("what", ["stop", "restart", "remove"])
def test_a_person_is_faster_than_the_pause(lab: Fakes, what: str) -> None:
    lab.kill("ada")
    until(lambda: lab.cluster["ada"].facts["restarting"])
    if what == "remove":
        lab.cluster.remove("ada")
    else:
        getattr(lab.cluster["ada"], what)()
    time.sleep(0.5)  # nothing may happen in it
    assert len(lab.starts("ada")) == (2 if what == "restart" else 1)
    assert len(lab.events("agent.restarting")) == 1
    if what == "stop":
        assert lab.cluster["ada"].facts["restarting"] is False


def test_a_shutdown_in_the_pause_ends_everything(lab: Fakes) -> None:
    lab.kill("ada")
    until(lambda: lab.cluster["ada"].facts["restarting"])
    run = lab.cluster.run
    lab.cluster.shutdown()
    assert [one.event for one in run.events()][-1] == "run.ended"
    assert len([one for one in run.events() if one.event == "agent.started"]) == 2


def test_the_first_start_is_not_tried_again(lab: Fakes) -> None:
    lab.options(crash_at="start", crash_status=3)
    config = {"name": "eve", "kind": "chat", "command": lab._command("eve")}
    with pytest.raises(AgentFailed, match="exit status 3 before it was ready"):
        lab.cluster.add(config)
    assert "eve" not in [agent.name for agent in lab.cluster]
    assert lab.events("agent.restarting") == []


# a supervisor that is killed over it --------------------------------------------------------------


def kill_at(lab: Fakes, event: str, *others: str, nth: int = 1, after_s: float = 0.0) -> threading.Thread:
    """Kill the supervisor as soon as an event is in the journal."""
    journal, armed = lab.cluster.run_dir / "journal.jsonl", threading.Event()

    def watch() -> None:
        needle, seen = f'"event":"{event}"'.encode(), 0
        with journal.open("rb") as file:
            file.seek(0, os.SEEK_END)
            armed.set()
            while seen < nth:
                seen += file.read().count(needle)
                time.sleep(0.0005)
        time.sleep(after_s)
        lab.kill_supervisor(*others)

    thread = threading.Thread(target=watch)
    thread.start()
    armed.wait()
    return thread


@pytest.mark.parametrize(
    ("event", "after_s"),
    [
        ("agent.exited", 0.0),
        ("agent.restarting", 0.0),
        ("agent.restarting", 0.31),
        ("agent.restarting", 0.36),
        ("agent.started", 0.0),
    ],
)
def test_a_supervisor_that_dies_over_a_restart_has_a_successor_that_makes_it_once(
    lab: Fakes, event: str, after_s: float
) -> None:
    ada = lab.cluster["ada"]
    killer = kill_at(lab, event, after_s=after_s)
    lab.kill("ada")
    killer.join()
    until(lambda: lab.events("supervisor.gap"))
    lab.restarted("ada", 1)
    assert ada.ask("hello", timeout=20).reply == "took 5 characters"
    assert len(lab.events("agent.restarting")) == 1
    assert len(lab.records("ada", "started")) == 2, "the program itself was started once more, no less"
    assert agents_df(lab.cluster.run).set_index("name").loc["ada", "restarts"] == 1
    assert ada.facts["restarts"] == 1
    assert len(lab.records("bob", "started")) == 1


def test_a_supervisor_killed_while_it_stops_an_agent_does_not_bring_it_back(lab: Fakes) -> None:
    killer = kill_at(lab, "agent.stopping")
    lab.cluster["ada"].stop()
    killer.join()
    until(lambda: lab.events("supervisor.gap") and lab.cluster["ada"].state == "exited")
    time.sleep(0.5)  # nothing may happen in it
    assert len(lab.starts("ada")) == 1
    assert lab.events("agent.restarting") == []


def test_a_given_up_agent_stays_so_for_the_next_supervisor(lab: Fakes) -> None:
    lab.options(crash_at="start", crash_status=3)
    lab.kill("ada")
    until(lambda: lab.events("alert.opened"))
    lab.kill_supervisor()
    until(lambda: lab.events("supervisor.gap"))
    assert lab.cluster["ada"].state == "failed"
    assert "restarted 3 times" in lab.cluster["ada"].facts["error"]
    assert len(lab.starts("ada")) == 4


def test_both_processes_killed_in_the_pause(lab: Fakes) -> None:
    killer = kill_at(lab, "agent.restarting", "keeper")
    lab.kill("ada")
    killer.join()
    assert lab.cluster["ada"].ask("hello", timeout=30).reply == "took 5 characters"
    assert len(lab.records("ada", "started")) == 2
    assert len(lab.events("agent.restarting")) == 1


def test_conversations_go_on_over_a_restart(lab: Fakes) -> None:
    lab.control("ada", set={"reply": "ada {turn}"})
    lab.control("bob", set={"reply": "bob {turn}"})
    conversation = lab.cluster.converse(["ada", "bob"], "go", rounds=4)
    until(lambda: len(lab.events("turn.ended")) >= 2)
    lab.control("bob", do="crash", signal=signal.SIGKILL)
    conversation.wait(30)
    ended = lab.events("conversation.ended")[-1].attributes["reason"]
    # Killed between two turns it goes on; in the middle of one, that turn's message has failed.
    assert ended == "completed" or "ended during the turn" in ended or "ended while" in ended
    lab.restarted("bob", 1)
