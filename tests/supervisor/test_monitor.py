"""What is watched: rules and figures as pure folds, process trees, and all of it on a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from listeners import Heard, webhook

from orchestrator_lab import Cluster
from orchestrator_lab.config import AlertsConfig, RestartPolicy, Thresholds
from orchestrator_lab.errors import TurnFailed
from orchestrator_lab.frames import alerts_df, processes_df
from orchestrator_lab.journal.event import Event
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.runtime import read_record
from orchestrator_lab.supervisor.alerts import Alerts
from orchestrator_lab.supervisor.figures import Figures
from orchestrator_lab.supervisor.health import Health, judge_agent, judge_stopped
from orchestrator_lab.supervisor.monitor import Monitor
from orchestrator_lab.supervisor.sampling import Reading, percent, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIG = AlertsConfig()


def event(name: str, at: float, **facts: Any) -> Event:
    envelope = {key: facts.pop(key) for key in ("turn_id", "message_id", "agent") if key in facts}
    return Event(1, name, "2026-11-24T06:00:00.000000Z", at, attributes=facts, **{"agent": "ada", **envelope})


def health(*events: Event) -> Health:
    made = Health("ada")
    for one in events:
        made.take(one)
    return made


def found(of: Health, now: float, *, config: AlertsConfig = CONFIG, asks: bool = False) -> tuple[dict[str, str], Any]:
    """Levels of what the rules find, and when they want to be asked again."""
    findings, due = judge_agent(of, config, now, asks=asks, calm_s=600.0)
    return {rule: finding.level for rule, finding in findings.items() if finding is not None}, due


# rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle_s", "level", "due_in"),
    [(299.9, None, 0.1), (300, "warning", 300), (599, "warning", 1), (600, "error", 300), (900, "critical", None)],
)
def test_idle_grows_graver_at_the_thresholds_of_orchestrator_cc(idle_s: float, level: str, due_in: float) -> None:
    levels, due = found(health(event("agent.state", 100.0, state="idle")), 100.0 + idle_s)
    assert levels == ({} if level is None else {"idle": level})
    assert due == (None if due_in is None else pytest.approx(100.0 + idle_s + due_in))


def test_only_ends_that_nobody_asked_for_count_as_restarts_and_a_calm_window_forgets_them() -> None:
    started = event("agent.started", 0.0, pid=1)
    ada = health(started, event("agent.stopping", 1.0, reason="stop"), event("agent.exited", 2.0))
    assert judge_stopped([ada], CONFIG.stopped_agents, "lab") is None
    ada.take(event("agent.started", 3.0, restart=1))
    assert ada.restarts == 0
    for number, level in ((1, None), (2, None), (3, "warning"), (4, "warning"), (5, "error"), (10, "critical")):
        while ada.restarts < number:
            ada.take(event("agent.exited", 10.0, signal=9))
            ada.take(event("agent.started", 10.0 + number, restart=number))
        levels, due = found(ada, 12.0 + number)
        assert levels.get("restarts") == level
        assert due == 10.0 + number + 600.0
    assert found(ada, 10.0 + 10 + 601.0)[0] == {}
    assert ada.restarts == 0


def test_stopped_agents_are_counted_unless_a_restart_is_on_its_way() -> None:
    fallen = [health(event("agent.exited", 1.0, signal=9)) for _ in range(3)]
    for number, one in enumerate(fallen):
        one.name = f"a{number}"
    levels = [judge_stopped(fallen[:count], CONFIG.stopped_agents, "lab") for count in range(4)]
    assert [one.level if one else None for one in levels] == [None, "warning", "error", "critical"]
    assert "2 agents ended and nobody had asked for it: a0, a1" in levels[2].message  # type: ignore[union-attr]
    assert "orchestrator-lab restart lab --agent a0 --agent a1" in levels[2].message  # type: ignore[union-attr]
    fallen[0].take(event("agent.restarting", 2.0, delay_s=1.0))
    assert judge_stopped(fallen[:1], CONFIG.stopped_agents, "lab") is None
    fallen[1].take(event("agent.started", 3.0, restart=1))
    assert judge_stopped(fallen[:2], CONFIG.stopped_agents, "lab") is None
    assert judge_stopped(fallen, None, "lab") is None


def test_a_turn_without_an_end_and_a_question_without_an_answer() -> None:
    ada = health(event("agent.state", 1.0, state="busy"), event("turn.started", 1.0, turn_id="trn_1"))
    assert found(ada, 60.9) == ({}, 61.0)
    assert found(ada, 61.0) == ({"response_timeout": "warning"}, None)
    ada.take(event("dialog.opened", 62.0, dialog_id="dlg_1", kind="permission", subject="Bash:  rm\n-r /"))
    findings, _ = judge_agent(ada, CONFIG, 62.0, asks=True, calm_s=1.0, cluster="lab")
    assert findings["waiting"] is not None
    assert findings["waiting"].message == (
        "ada asks a person (permission: Bash: rm -r /); choose an answer where it is shown, with "
        "'orchestrator-lab answer ada OPTION --cluster lab', or in its pane: orchestrator-lab attach ada --cluster lab"
    )
    login = health(event("dialog.opened", 62.0, dialog_id="dlg_2", kind="login", subject="", options=[]))
    findings, _ = judge_agent(login, CONFIG, 62.0, asks=True, calm_s=1.0, cluster="lab")
    assert findings["waiting"] is not None
    assert findings["waiting"].message == (
        "ada asks a person (login); answer it in its pane: orchestrator-lab attach ada --cluster lab"
    )
    # What a policy or the lab itself answers is no person's business.
    assert "waiting" not in found(ada, 62.0, asks=False)[0]
    ada.take(event("dialog.answered", 63.0, dialog_id="dlg_1"))
    ada.take(event("turn.ended", 64.0, turn_id="trn_1"))
    assert found(ada, 65.0, asks=True) == ({}, None)
    assert ada.turns == 1


def test_a_failure_is_an_alert_until_the_next_start_unless_somebody_told_it_better() -> None:
    ada = health(event("agent.failed", 1.0, error_message="it ended with exit status 1"))
    assert found(ada, 1.0)[0] == {"agent_failed": "error"}
    ada.take(event("agent.started", 2.0))
    assert found(ada, 2.0)[0] == {}
    ada.take(event("agent.failed", 3.0, error_type="restarts_exhausted", error_message="too often"))
    assert found(ada, 3.0)[0] == {}


def test_every_rule_can_be_switched_off() -> None:
    none = AlertsConfig(idle_s=None, restarts=None, response_timeout_s=None, stopped_agents=None)
    ada = health(
        event("agent.state", 0.0, state="idle"),
        event("turn.started", 0.0, turn_id="trn_1"),
        event("agent.exited", 0.0),
        event("agent.started", 0.0, restart=1),
        event("turn.started", 0.0, turn_id="trn_1"),
    )
    assert found(ada, 1e9, config=none) == ({}, None)


# figures ------------------------------------------------------------------------------------------


def test_figures_count_each_message_once_and_keep_nothing_of_what_is_over() -> None:
    figures = Figures()
    for number, rungs in enumerate((["answered"], ["failed"], ["uncertain"], ["uncertain", "answered"], [])):
        for place, rung in enumerate(["queued", "claimed", "written", "accepted", "started", *rungs]):
            figures.take(event(f"message.{rung}", number + place * 0.1, message_id=f"msg_{number}"))
    figures.take(event("message.submitted", 9.0, message_id="msg_0"))
    assert dict(+figures.messages) == {"answered": 2, "failed": 1, "uncertain": 1, "started": 1}
    assert figures.delivered[4] == 5
    assert sum(figures.delivered) == 5
    assert figures.delivery_s == pytest.approx(1.0)
    assert set(figures._rungs) == {"msg_2", "msg_4"}


def test_tokens_of_a_turn_are_amended_and_a_final_account_stays() -> None:
    figures = Figures()
    for tokens, final in ((10, False), (12, True), (99, False)):
        figures.take(event("turn.usage", 1.0, turn_id="trn_1", input_tokens=tokens, output_tokens=1, final=final))
    for number in range(1000):
        figures.take(event("turn.usage", 1.0, turn_id=f"trn_x{number}", input_tokens=1))
    assert figures.tokens["ada", "input"] == 1012
    assert figures.tokens["ada", "output"] == 1
    assert len(figures._usage) < 300


# processes ----------------------------------------------------------------------------------------


def test_a_tree_of_processes_is_read_and_what_ends_in_it_costs_no_less() -> None:
    # Each waits for a word of this test before it goes on.
    burn = "import os, time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nos.read(0, 1)"
    code = (
        "import os, subprocess, sys\nos.read(0, 1)\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\nprint('done', flush=True)\nos.read(0, 1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdin is not None
        first = read_tree(process.pid)
        assert first is not None
        os.write(process.stdin.fileno(), b".")
        until(lambda: psutil.Process(process.pid).children(), "a child")
        during = read_tree(process.pid)
        assert during is not None
        assert during.children == 1
        assert during.rss_bytes > first.rss_bytes / 2
        assert process.stdout is not None
        os.write(process.stdin.fileno(), b".")
        process.stdout.readline()
        after = read_tree(process.pid)
        assert after is not None
        assert after.children == 0
        assert after.cpu_s - first.cpu_s >= 0.29
        assert (percent(first, after) or 0.0) > 0.0
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert read_tree(process.pid) is None
    finally:
        process.kill()
        process.communicate()
    assert read_tree(process.pid) is None
    assert percent(None, after) is None
    assert percent(Reading(1.0, 5.0, 0, 0), Reading(2.0, 4.0, 0, 0)) == 0.0


# the monitor on a journal ---------------------------------------------------------------------------


class Lab:
    """What the monitor needs of a supervisor."""

    def __init__(self, folder: Path, **alerts: Any) -> None:
        self.path = folder / "journal.jsonl"
        self.folder = folder
        self.journal = JournalWriter(self.path, run_id="run_x")
        self.config = SimpleNamespace(
            name="lab", alerts=AlertsConfig(**alerts), restart_of=lambda _: RestartPolicy(window_s=600)
        )
        self.status_text = "running"
        self.ending = asyncio.Event()
        runner = SimpleNamespace(
            name="ada", running=True, stopping=False, asks_a_person=True, state="idle", config=None, pid=os.getpid()
        )
        runner.restarts, runner.last_activity = 0, 0.0
        runner.dialog_id, runner.dialogs = "dlg_1", SimpleNamespace(policy_answers=None)
        self.runners = {"ada": runner}
        self.mailboxes: dict[str, Any] = {"ada": SimpleNamespace(halted=None, waiting=0)}
        self.alerts = Alerts(self)  # type: ignore[arg-type]
        self.monitor = Monitor(self)  # type: ignore[arg-type]

    def alert_events(self) -> list[tuple[str, str, str]]:
        events = read_events(self.path)[0]
        return [(one.event[6:], one.attributes["rule"], one.level) for one in events if one.event.startswith("alert.")]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - a test
                await asyncio.sleep(0.01)

    def close(self) -> None:
        self.monitor.stop()
        self.alerts.stop()
        self.journal.close()


async def test_time_alone_makes_an_alert_graver_and_another_supervisor_goes_on_counting(tmp_path: Path) -> None:
    # The first at once: a machine that takes its time must not come to it when the second is due.
    lab = Lab(tmp_path, idle_s=[0, 1, None], check_s=100)
    lab.journal.append("agent.state", agent="ada", state="idle")
    await lab.until(lambda: len(lab.alert_events()) == 2)
    assert lab.alert_events() == [("opened", "idle", "warning"), ("escalated", "idle", "error")]
    lab.close()

    lab = Lab(tmp_path, idle_s=[0, 1, 1.2], check_s=100)
    events = read_events(lab.path)[0]
    lab.alerts.restore(events)
    for one in events:
        lab.monitor.take(one)
    lab.monitor.resume()
    await lab.until(lambda: len(lab.alert_events()) == 3)
    assert lab.alert_events()[2] == ("escalated", "idle", "critical")
    identity = lab.alerts.open_alerts[0].alert_id
    # What a person has cleared stays so while the same is wrong …
    lab.alerts.clear(identity)
    lab.journal.append("dialog.opened", agent="ada", dialog_id="dlg_1", kind="choice", subject="which?")
    await lab.until(lambda: ("opened", "waiting", "warning") in lab.alert_events())
    assert [one.rule for one in lab.alerts.open_alerts] == ["waiting"]
    # … and comes again after it was gone.
    lab.journal.append("agent.state", agent="ada", state="busy")
    await lab.until(lambda: not lab.alerts.holds_back("idle", "ada", "critical"))
    lab.journal.append("agent.state", agent="ada", state="idle")
    await lab.until(lambda: lab.alert_events().count(("opened", "idle", "warning")) == 2)
    lab.close()


async def test_a_removed_agent_takes_its_alerts_with_it_and_an_ending_cluster_opens_none(tmp_path: Path) -> None:
    lab = Lab(tmp_path, idle_s=[0, None, None])
    lab.journal.append("agent.state", agent="ada", state="idle")
    await lab.until(lambda: len(lab.alerts.open_alerts) == 1)
    lab.journal.append("agent.removed", agent="ada")
    lab.alerts.forget("ada")
    assert lab.alerts.open_alerts == []
    lab.status_text = "ending"
    lab.journal.append("agent.state", agent="ada", state="idle")
    await asyncio.sleep(0.05)
    assert lab.alerts.open_alerts == []
    lab.close()


async def test_a_person_is_called_for_what_no_policy_answers(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.runners["ada"].dialogs.policy_answers = "dlg_1"
    lab.journal.append("dialog.opened", agent="ada", dialog_id="dlg_1", kind="permission", subject="Bash: ls")
    lab.journal.append("dialog.opened", agent="ada", dialog_id="dlg_2", kind="permission", subject="Bash: rm")
    await asyncio.sleep(0.05)
    assert lab.alerts.open_alerts == []
    lab.runners["ada"].dialogs.policy_answers = None
    lab.journal.append("note", agent="ada", text="the policy's answer (allow) was not given")
    await lab.until(lambda: len(lab.alerts.open_alerts) == 1)
    assert "permission: Bash: ls" in lab.alerts.open_alerts[0].message
    lab.journal.append("dialog.answered", agent="ada", dialog_id="dlg_1")
    await lab.until(lambda: "Bash: rm" in lab.alerts.open_alerts[0].message)
    lab.journal.append("dialog.answered", agent="ada", dialog_id="dlg_2")
    await lab.until(lambda: lab.alerts.open_alerts == [])
    lab.close()


async def test_the_end_of_tmux_is_no_end_of_each_agent(tmp_path: Path) -> None:
    lab = Lab(tmp_path, stopped_agents=[1, 2, 3])
    lab.journal.append("agent.exited", agent="ada")
    lab.journal.append("tmux.lost", agents=["ada", "bob"])
    lab.journal.append("agent.exited", agent="bob")
    await asyncio.sleep(0.05)
    assert lab.alerts.open_alerts == []
    lab.journal.append("agent.started", agent="ada", restart=1)
    lab.journal.append("agent.exited", agent="ada", signal=9)
    await lab.until(lambda: [one.rule for one in lab.alerts.open_alerts] == ["stopped_agents"])
    # Whoever stops what has ended already knows of it.
    lab.journal.append("cluster.stopped")
    await lab.until(lambda: lab.alerts.open_alerts == [])
    lab.close()


# a real cluster -------------------------------------------------------------------------------------

SCRIPT = [
    {"when": {"contains": "slowly"}, "reply": "at last", "delay_s": 600},
    {"reply": "{agent}: {text}"},
]


@pytest.fixture(scope="module")
def hook() -> Iterator[Heard]:
    with webhook() as heard:
        yield heard


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]], hook: Heard) -> Iterator[Cluster]:
    alerts = {
        "check_s": 0.2,
        "idle_s": [1, 2, None],
        "response_timeout_s": 0.5,
        "restarts": [1, 2, 3],
        "notify": [hook.address],
        "notify_level": "error",
    }
    config = script_config("ada", "bob", name="watch", script=SCRIPT, alerts=alerts, restart={"window_s": 600})
    with Cluster.start(config) as running:
        yield running
    assert not (module_runtime / "watch").exists()


def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.02)
    return value


def rules(cluster: Cluster) -> set[tuple[str, str | None, str]]:
    alerts = cluster.client.get("/alerts", timeout_s=10.0)["alerts"]
    return {(one["rule"], one["agent"], one["level"]) for one in alerts}


def test_idle_agents_are_told_and_work_resolves_it(cluster: Cluster, hook: Heard) -> None:
    until(lambda: {("idle", "ada", "error"), ("idle", "bob", "error")} <= rules(cluster), "two idle agents")
    hook.wait(2)
    assert {one["title"] for one in hook.told[:2]} == {"[watch] error: idle (ada)", "[watch] error: idle (bob)"}
    cluster.acknowledge(str(cluster.alerts()["alert_id"][0]), by="eve")
    assert cluster.alerts()["acknowledged_at"].notna().sum() == 1
    exchange = cluster["ada"].send("slowly")
    until(lambda: ("response_timeout", "ada", "warning") in rules(cluster), "a turn that takes long")
    assert not [rule for rule in rules(cluster) if rule[:2] == ("idle", "ada")]
    cluster["ada"].interrupt()
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(20)
    until(lambda: not [rule for rule in rules(cluster) if rule[0] == "response_timeout"], "the end of the turn")
    table = alerts_df(cluster, agents="ada").head(2)  # by now it may be idle for too long again
    assert table["resolved_at"].notna().all()
    assert table["rule"].tolist() == ["idle", "response_timeout"]


def test_an_agent_that_is_killed_is_told_and_its_restart_resolves_it(cluster: Cluster) -> None:
    os.kill(cluster["bob"].facts["pid"], signal.SIGKILL)
    until(lambda: ("stopped_agents", None, "warning") in rules(cluster), "a stopped agent")
    cluster["bob"].restart()
    until(lambda: not [rule for rule in rules(cluster) if rule[0] == "stopped_agents"], "no stopped agent")
    until(lambda: ("restarts", "bob", "warning") in rules(cluster), "a restarted agent")
    # One that is stopped on purpose is nobody's worry.
    cluster["bob"].stop()
    time.sleep(0.5)
    assert not [rule for rule in rules(cluster) if rule[0] == "stopped_agents"]
    cluster["bob"].restart()


def test_status_tells_of_health_and_cost(cluster: Cluster) -> None:
    before = cluster.status()["totals"]
    cluster["ada"].ask("hello", timeout=20)
    ada = until(
        lambda: next((one for one in cluster.status()["agents"] if one["rss_bytes"] is not None), None), "a sample"
    )
    assert ada["rss_bytes"] > 1_000_000
    assert 0 <= ada["state_s"] < 60
    assert 0 <= ada["last_activity_s"] < 60
    totals = cluster.status()["totals"]
    assert totals["turns"] == before["turns"] + 1
    assert totals["messages"]["answered"] == before["messages"].get("answered", 0) + 1
    assert totals["rss_bytes"] > ada["rss_bytes"] / 2
    assert totals["states"]["idle"] >= 1
    until(lambda: set(processes_df(cluster)["agent"]) == {"ada", "bob"}, "a sample of each")
    frame = processes_df(cluster)
    # A program that has just been started may be small.
    assert (frame.groupby("agent")["rss_bytes"].max() > 1_000_000).all()


def test_a_killed_supervisor_has_a_successor_that_opens_none_twice(cluster: Cluster) -> None:
    until(lambda: ("idle", "ada", "error") in rules(cluster), "an idle agent")
    before = {one["alert_id"] for one in cluster.client.get("/alerts", timeout_s=10.0)["alerts"]}
    messages = cluster.status()["totals"]["messages"]
    record = read_record(cluster.client.folder)
    assert record is not None
    assert record.supervisor_pid is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)
    after = {one["alert_id"] for one in cluster.client.get("/alerts", timeout_s=20.0)["alerts"]}
    assert before <= after
    time.sleep(0.5)
    opened = [one.attributes["alert_id"] for one in cluster.events() if one.event == "alert.opened"]
    assert len(opened) == len(set(opened))
    table = cluster.alerts(all=True)
    still = table[table["resolved_at"].isna()]
    assert not still.duplicated(["rule", "agent"]).any()
    assert cluster.status()["totals"]["messages"] == messages


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prlimit is Linux's")
def test_a_full_disk_is_told_of_while_it_is_full(cluster: Cluster, hook: Heard) -> None:
    record = read_record(cluster.client.folder)
    assert record is not None
    assert record.supervisor_pid is not None
    journal = cluster.run_dir / "journal.jsonl"
    limits = (journal.stat().st_size, resource.RLIM_INFINITY)
    before = resource.prlimit(record.supervisor_pid, resource.RLIMIT_FSIZE, limits)
    with contextlib.suppress(Exception):
        cluster["ada"].ask("what cannot be journalled", timeout=5)
    told = until(lambda: [one for one in hook.told if one["title"] == "[watch] critical: disk"], "news of the disk")
    assert "disk is full" in told[0]["message"]
    assert ("disk", None, "critical") in rules(cluster)
    resource.prlimit(record.supervisor_pid, resource.RLIMIT_FSIZE, before)
    until(lambda: ("disk", None, "critical") not in rules(cluster), "room again")
    row = alerts_df(cluster).set_index("rule").loc["disk"]
    assert row["level"] == "critical"
    assert row["opened_at"] <= row["resolved_at"]


@pytest.mark.parametrize("moment", ["before anybody was told", "after the channel heard, before it was journalled"])
def test_an_alert_is_told_at_least_once_and_twice_at_worst(
    moment: str, runtime: Path, script_config: Callable[..., dict[str, Any]]
) -> None:
    del runtime
    known: list[int] = []
    begun = threading.Event()

    def kill() -> None:
        # It is told half a second after its start, which may be sooner than this test knows whom to kill.
        assert begun.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.kill(known[0], signal.SIGKILL)

    with webhook() as heard:
        if not moment.startswith("before"):
            heard.on_request = kill
        alerts = {"idle_s": [0.5, None, None], "notify": [heard.address], "repeat_s": None}
        with Cluster.start(script_config("ada", name="told", alerts=alerts)) as cluster:
            record = read_record(cluster.client.folder)
            assert record is not None
            assert record.supervisor_pid is not None
            known.append(record.supervisor_pid)
            begun.set()
            if moment.startswith("before"):
                assert any(one["event"] == "alert.opened" for one in cluster.client.events())
                kill()
            else:
                heard.wait(1)
            cluster.status()
            until(lambda: [one for one in cluster.events() if one.event == "alert.notified"], "its journalling")
            told = [one for one in heard.wait(1) if "idle" in one["title"]]
            # On a machine that is busy the channel may have heard before the kill came.
            assert len(told) in ({1, 2} if moment.startswith("before") else {2})
            assert [one.event for one in cluster.events()].count("alert.opened") == 1


def test_what_ended_with_the_tmux_server_did_not_fall() -> None:
    lost = health(event("agent.exited", 1.0, reason="tmux"))
    assert judge_stopped([lost], Thresholds(warning=1), "lab") is None
    lost.take(event("agent.started", 2.0, restart=1))
    assert lost.restarts == 0
    fell = health(event("agent.exited", 1.0, exit_code=1))
    assert judge_stopped([fell], Thresholds(warning=1), "lab") is not None
