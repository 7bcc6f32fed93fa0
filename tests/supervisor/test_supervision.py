"""Programs that end are started again as their policy says, once, by whichever supervisor lives; never what was asked
to end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from care_helpers import Fakes, kill_at, until
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


@pytest.fixture(scope="module")
def lab(module_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    del module_runtime
    fakes = Fakes(tmp_path_factory.mktemp("care"), restart=FAST)
    with fakes.cluster:
        yield fakes


def row(lab: Fakes, name: str) -> dict[str, Any]:
    return dict(agents_df(lab.cluster.run).set_index("name").loc[name])


def test_a_crash_is_made_good_and_messages_wait_for_it(lab: Fakes) -> None:
    ada, bob = lab.add("ada", "bob")
    session, healthy = ada.facts["session_id"], bob.facts["pid"]
    lab.control(ada.name, set={"turn_ms": 60_000})
    cut_off = ada.send("unfinished").accepted(10)
    behind = ada.send("behind it")
    lab.kill(ada.name)
    with pytest.raises(TurnFailed, match="ended during the turn"):
        cut_off.result(30)
    later = ada.send("sent in the pause")
    # A cluster that waits for a restart is not idle.
    lab.cluster.wait(timeout=30)
    assert behind.result(30) == "took 9 characters"
    assert later.result(30) == "took 17 characters"
    assert ada.facts["restarting"] is False
    assert ada.facts["session_id"] == session
    (exited,) = lab.events(ada.name, "agent.exited")
    (planned,) = lab.events(ada.name, "agent.restarting")
    assert (planned.attributes["attempt"], planned.attributes["reason"]) == (1, "signal 9")
    assert 0.27 <= planned.attributes["delay_s"] <= 0.3
    started = lab.starts(ada.name)[-1]
    assert exited.seq < planned.seq < started.seq
    states = [one.attributes["state"] for one in lab.events(ada.name, "agent.state") if one.seq > exited.seq]
    assert states[0] == "exited"
    assert started.monotonic_s - planned.monotonic_s >= planned.attributes["delay_s"] - 0.01
    turns = turns_df(lab.cluster.run)
    assert turns[turns["agent"] == ada.name]["end_reason"].tolist() == ["exited", "completed", "completed"]
    assert (row(lab, ada.name)["restarts"], row(lab, bob.name)["restarts"]) == (1, 0)
    # What is healthy is left alone.
    assert bob.facts["pid"] == healthy
    prompts = [one["prompt"] for one in lab.records(ada.name, "submitted")]
    assert prompts == ["unfinished", "behind it", "sent in the pause"]


def test_an_orderly_end_is_no_failure_and_what_is_stopped_stays_stopped(lab: Fakes) -> None:
    left, stopped = lab.add("ada", "bob")
    lab.control(left.name, do="exit", status=0)
    until(lambda: left.state == "exited")
    stopped.stop()
    assert stopped.state == "exited"
    (asked,) = lab.events(stopped.name, "agent.stopping")
    assert asked.attributes["reason"] == "stop"
    for one in (left, stopped):
        assert one.facts["restarting"] is False
        with pytest.raises(ClusterStopped, match="restart it first"):
            one.send("to nobody")
        assert lab.events(one.name, "agent.restarting") == []


def test_always_means_after_an_orderly_end_too(lab: Fakes) -> None:
    (ada,) = lab.add("ada", restart={"policy": "always", "backoff_s": 0.1})
    lab.control(ada.name, do="exit", status=0)
    lab.restarted(ada.name, 1)
    assert lab.events(ada.name, "agent.restarting")[0].attributes["reason"] == "exit status 0"


def test_one_that_fails_again_and_again_is_given_up_with_an_alert_until_somebody_restarts_it(lab: Fakes) -> None:
    (ada,) = lab.add("ada")
    lab.options(ada.name, crash_at="start", crash_status=3)
    lab.kill(ada.name)
    until(lambda: lab.alerts(ada.name, "restarts_exhausted"))
    attempts = lab.events(ada.name, "agent.restarting")
    assert [one.attributes["attempt"] for one in attempts] == [1, 2, 3]
    assert [one.attributes["reason"] for one in attempts] == ["signal 9", "exit status 3", "exit status 3"]
    assert attempts[1].attributes["delay_s"] > 1.5 * attempts[0].attributes["delay_s"]
    until(lambda: ada.state == "failed")
    assert "restarted 3 times" in ada.facts["error"]
    (alert,) = lab.alerts(ada.name, "restarts_exhausted")
    assert alert.level == "error"
    with pytest.raises(ClusterStopped):
        ada.send("to nobody")
    # The next supervisor knows it, too.
    lab.kill_supervisor()
    until(lambda: lab.events(None, "supervisor.gap"))
    until(lambda: ada.state == "failed")
    assert "restarted 3 times" in ada.facts["error"]
    # The cause is gone, and a person starts it: the count begins anew.
    lab.options(ada.name)
    ada.restart()
    assert ada.ask("hello", timeout=30).reply == "took 5 characters"
    assert len(lab.alerts(ada.name, "restarts_exhausted", "resolved")) == 1
    lab.kill(ada.name)
    lab.restarted(ada.name, 5)
    assert lab.events(ada.name, "agent.restarting")[-1].attributes["attempt"] == 1
    assert row(lab, ada.name)["restarts"] == 5


def test_a_person_is_faster_than_the_pause(lab: Fakes) -> None:
    pause_s = 4.0
    stopped, restarted, removed = agents = lab.add("ada", "bob", "cy", restart={**FAST, "backoff_s": pause_s})
    for one in agents:
        lab.kill(one.name)
    for one in agents:
        until(lambda one=one: one.facts["restarting"])  # type: ignore[misc]
        assert one.state == "exited"
    stopped.stop()
    restarted.restart()
    lab.cluster.remove(removed.name)
    time.sleep(pause_s + 0.2)  # nothing may happen in it
    assert [len(lab.starts(one.name)) for one in agents] == [1, 2, 1]
    assert [len(lab.events(one.name, "agent.restarting")) for one in agents] == [1, 1, 1]
    assert stopped.facts["restarting"] is False


def test_the_first_start_is_not_tried_again(lab: Fakes) -> None:
    config = lab.config("eve")
    lab.options("eve", crash_at="start", crash_status=3)
    with pytest.raises(AgentFailed, match="exit status 3 before it was ready"):
        lab.cluster.add(config)
    assert "eve" not in [agent.name for agent in lab.cluster]
    assert lab.events("eve", "agent.restarting") == []


def test_a_pane_that_somebody_closed_is_made_anew(lab: Fakes) -> None:
    (ada,) = lab.add("ada")
    ada.pane.kill()
    lab.restarted(ada.name, 1)
    assert lab.events(ada.name, "agent.restarting")[0].attributes["reason"] == "unknown end"
    assert ada.ask("hello", timeout=30).reply == "took 5 characters"


def test_conversations_wait_for_a_restart(lab: Fakes) -> None:
    ada, bob = lab.add("ada", "bob")
    lab.control(ada.name, set={"turn_ms": 600_000, "reply": "from ada"})
    conversation = lab.cluster.converse([ada.name, bob.name], "go", rounds=1)
    until(lambda: lab.events(ada.name, "turn.started"))
    lab.kill(bob.name)  # while ada has the word
    until(lambda: lab.events(bob.name, "agent.exited"))
    lab.control(ada.name, do="finish")
    conversation.wait(30)
    assert lab.events(None, "conversation.ended")[-1].attributes["reason"] == "completed"
    assert len(lab.starts(bob.name)) == 2


# a supervisor that is killed over it --------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "others", "after_s"),
    [
        ("agent.exited", (), 0.0),
        ("agent.restarting", (), 0.0),
        ("agent.restarting", (), 0.31),
        ("agent.restarting", (), 0.34),
        ("agent.started", (), 0.0),
        ("agent.restarting", ("keeper",), 0.0),
    ],
)
def test_a_supervisor_that_dies_over_a_restart_has_a_successor_that_makes_it_once(
    lab: Fakes, event: str, others: tuple[str, ...], after_s: float
) -> None:
    (ada,) = lab.add("ada")
    gaps = len(lab.events(None, "supervisor.gap"))
    killer = kill_at(lab, event, *others, after_s=after_s)
    lab.kill(ada.name)
    killer.join()
    until(lambda: lab.cluster.status() and len(lab.events(None, "supervisor.gap")) > gaps)
    lab.restarted(ada.name, 1)
    assert ada.ask("hello", timeout=20).reply == "took 5 characters"
    assert len(lab.events(ada.name, "agent.restarting")) == 1
    assert len(lab.records(ada.name, "started")) == 2, "the program itself was started once more, no less"
    assert row(lab, ada.name)["restarts"] == ada.facts["restarts"] == 1
    assert len(lab.records("first", "started")) == 1, "one that was healthy was started anew"


def test_a_supervisor_killed_while_it_stops_an_agent_does_not_bring_it_back(lab: Fakes) -> None:
    (ada,) = lab.add("ada")
    gaps = len(lab.events(None, "supervisor.gap"))
    killer = kill_at(lab, "agent.stopping")
    ada.stop()
    killer.join()
    until(lambda: len(lab.events(None, "supervisor.gap")) > gaps and ada.state == "exited")
    time.sleep(0.5)  # nothing may happen in it
    assert len(lab.starts(ada.name)) == 1
    assert lab.events(ada.name, "agent.restarting") == []


def test_a_shutdown_in_the_pause_ends_everything(runtime: Path, tmp_path: Path) -> None:
    del runtime
    lab = Fakes(tmp_path, restart={**FAST, "backoff_s": 60.0})
    lab.kill("first")
    until(lambda: lab.cluster["first"].facts["restarting"])
    run = lab.cluster.run
    lab.cluster.shutdown()
    assert list(run.events())[-1].event == "run.ended"
    assert len([one for one in run.events() if one.event == "agent.started"]) == 1
