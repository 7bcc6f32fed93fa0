"""Agents that are busy and make no progress are told, interrupted and started again, each step as configured."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from care_helpers import Fakes, kill_at, until
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.config import HangPolicy
from orchestrator_lab.errors import TurnFailed
from orchestrator_lab.frames import turns_df
from orchestrator_lab.supervisor.hangs import HangWatch, Sample, due_step, progress, still_words
from orchestrator_lab.supervisor.messages import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

seconds = st.none() | st.floats(0.01, 1e5)


# the decisions ------------------------------------------------------------------------------------


@given(st.lists(seconds, min_size=3, max_size=3), st.floats(0.0, 1e6))
def test_steps_come_in_order_each_once_and_none_before_its_time(given: list[float | None], quiet_s: float) -> None:
    times = sorted(one for one in given if one is not None)
    alert, interrupt, restart = [times.pop(0) if one is not None else None for one in given]
    policy = HangPolicy(alert_s=alert, interrupt_s=interrupt, restart_s=restart)
    taken: list[str] = []
    while (step := due_step(policy, quiet_s, taken)) is not None:
        at = getattr(policy, f"{step}_s")
        assert at is not None
        assert at <= quiet_s
        assert step not in taken
        taken.append(step)
    assert taken == [one for one in ("alert", "interrupt", "restart") if one in taken]
    overdue = [one for one in (alert, interrupt, restart) if one is not None and one <= quiet_s]
    assert len(taken) == len(overdue)


def test_what_counts_as_progress() -> None:
    quiet = Sample(0.0, 10.0, frozenset({1, 2}), 5, (100, 1), 3.0)

    def later(**changes: object) -> Sample:
        facts = {"cpu_s": 10.0, "processes": frozenset({1, 2}), "output": 5, "record": (100, 1), "reported": 3.0}
        return Sample(10.0, **{**facts, **changes})  # type: ignore[arg-type]

    assert progress(quiet, later(), idle_cpu=0.01) is None
    assert progress(quiet, later(cpu_s=10.05), idle_cpu=0.01) is None
    assert progress(quiet, later(cpu_s=12.0), idle_cpu=0.6) is None, "a spinner"
    assert progress(quiet, later(cpu_s=12.0), idle_cpu=0.01) == "cpu"
    assert progress(quiet, later(output=6), idle_cpu=0.01) == "output"
    assert progress(quiet, later(record=(101, 2)), idle_cpu=0.01) == "record"
    assert progress(quiet, later(processes=frozenset({1, 3})), idle_cpu=0.01) == "processes"
    assert progress(quiet, later(reported=4.0), idle_cpu=0.01) == "report"
    # A child that was not waited for takes its processor time with it.
    assert progress(quiet, later(cpu_s=2.0), idle_cpu=0.01) is None


def test_a_spinner_changes_no_words() -> None:
    claude = "✢ Smooshing… (1m 58s · esc to interrupt)"
    assert still_words(claude) == still_words("✻ Smooshing… (3s · esc to interrupt)")
    assert still_words("✻ Puttering… (12s · ↓ 62 tokens)") != still_words("✻ Puttering… (13s · ↓ 75 tokens)")
    codex = "• Working (14m 02s • esc to interrupt)\n  └ Tip: Use /title to choose a title."
    assert still_words(codex) == still_words("◦ Working (2s • esc to interrupt)\n  └ Tip: NEW! Restart Codex.")
    assert still_words("waiting for script 6 s") == still_words("waiting for script 130 s")


# real programs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(module_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    del module_runtime
    fakes = Fakes(tmp_path_factory.mktemp("hangs"), hang={"alert_s": 0.6})
    with fakes.cluster:
        yield fakes


def steps(lab: Fakes, name: str) -> list[str]:
    return [one.attributes["step"] for one in lab.events(name, "agent.hung")]


def test_an_agent_that_hangs_at_no_cpu_is_told_and_the_alert_goes_with_the_next_progress(lab: Fakes) -> None:
    (ada,) = lab.add("ada")
    lab.control(ada.name, set={"turn_ms": 60_000})
    ada.send("think").accepted(10)
    alert = until(lambda: lab.alerts(ada.name, "hung"))[0]
    hung = lab.events(ada.name, "agent.hung")[0]
    assert (hung.attributes["step"], hung.level) == ("alert", "warning")
    assert hung.attributes["quiet_s"] >= 0.6
    assert hung.seq < alert.seq
    assert alert.level == "warning"
    assert ada.state == "busy"
    lab.control(ada.name, do="draft", text="something new on the screen")
    resolved = until(lambda: lab.alerts(ada.name, "hung", "resolved"))
    # It falls quiet again: another alert, and the end of the turn resolves it.
    until(lambda: len(lab.alerts(ada.name, "hung")) > len(resolved))
    lab.control(ada.name, do="clear")
    ada.interrupt()
    until(lambda: len(lab.alerts(ada.name, "hung", "resolved")) == len(lab.alerts(ada.name, "hung")) >= 2)
    assert set(steps(lab, ada.name)) == {"alert"}


def test_an_idle_agent_and_one_that_asks_a_person_are_left_alone(lab: Fakes) -> None:
    idle, asks = lab.add("idle", "asks")
    lab.control(idle.name, do="hang")
    lab.control(asks.name, set={"turn_ms": 3_000})
    asks.send("may I").accepted(10)
    lab.control(asks.name, do="dialog", kind="permission")
    until(lambda: asks.state == "waiting")
    told = len(steps(lab, asks.name))
    time.sleep(1.2)  # nothing may happen in it
    assert len(steps(lab, asks.name)) == told
    assert steps(lab, idle.name) == []


def test_the_turn_is_interrupted(lab: Fakes) -> None:
    (ada,) = lab.add("ada", hang={"alert_s": None, "interrupt_s": 0.6})
    lab.control(ada.name, set={"turn_ms": 60_000})
    exchange = ada.send("think")
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    assert steps(lab, ada.name) == ["interrupt"]
    (note,) = [one for one in lab.events(ada.name, "note") if one.attributes["text"] == "interrupted"]
    assert note.source == "policy"
    until(lambda: ada.state == "idle")


def test_one_that_hears_no_interrupt_is_started_again_with_its_session(lab: Fakes) -> None:
    keys = {"hang": {"alert_s": 1.0, "interrupt_s": 1.5, "restart_s": 2.0}, "restart": {"backoff_s": 0.1}}
    (ada,) = lab.add("ada", **keys)
    session, pid = ada.facts["session_id"], ada.facts["pid"]
    lab.control(ada.name, set={"turn_ms": 60_000, "hang_at": "turn"})
    exchange = ada.send("think")
    queued = ada.send("behind it")
    with pytest.raises(TurnFailed, match="ended during the turn"):
        exchange.result(30)
    assert queued.result(30) == "took 9 characters"
    # What it drew last may come late, and is progress then.
    assert steps(lab, ada.name)[-3:] == ["alert", "interrupt", "restart"]
    (planned,) = lab.events(ada.name, "agent.restarting")
    assert planned.attributes["reason"] == "no progress"
    assert ada.facts["session_id"] == session
    assert ada.facts["pid"] != pid
    assert ada.facts["restarts"] == 1
    until(lambda: lab.alerts(ada.name, "hung", "resolved"))
    reasons = turns_df(lab.cluster.run).set_index("agent").loc[[ada.name], "end_reason"].tolist()
    assert reasons == ["exited", "completed"]


def test_a_supervisor_that_dies_over_a_hung_agent_has_a_successor_that_goes_on(lab: Fakes) -> None:
    (ada,) = lab.add("ada", hang={"alert_s": None, "restart_s": 0.6}, restart={"backoff_s": 0.1})
    lab.control(ada.name, set={"turn_ms": 60_000})
    killer = kill_at(lab, "agent.stopping")
    ada.send("think").accepted(10)
    killer.join()
    lab.restarted(ada.name, 1)
    assert len(lab.events(ada.name, "agent.restarting")) == 1
    assert len(lab.records(ada.name, "started")) == 2


def test_what_was_watched_is_forgotten_though_nobody_is_busy_any_more() -> None:
    """A turn may end, and a short one after it, before the watch runs again."""
    resolved: list[str] = []

    async def watch() -> None:
        ledger = Ledger(None)  # type: ignore[arg-type] - nothing is journalled
        alerts = SimpleNamespace(resolve=lambda rule, agent: resolved.append(f"{rule} {agent}"))
        cluster = SimpleNamespace(ledger=ledger, alerts=alerts, runners={})
        hangs = HangWatch(cluster)  # type: ignore[arg-type] - as much of one as is used
        hangs._watched["ada"] = SimpleNamespace()  # type: ignore[assignment]
        hangs.open()
        await asyncio.sleep(0.05)
        hangs.close()

    asyncio.run(watch())
    assert resolved == ["hung ada"]
