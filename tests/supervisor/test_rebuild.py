"""The tmux server is killed, and everybody is back: once, whole, with their conversations.

The truth is what the chat programs wrote into their transcripts, as in ``test_kills.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.errors import ClusterStopped, OrchestratorLabError, TurnFailed
from orchestrator_lab.journal.event import Event
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.orphans import Kept, survivors
from orchestrator_lab.runtime import is_locked, process_alive, process_start_time, read_record
from orchestrator_lab.supervisor import rebuild
from orchestrator_lab.tmux import TmuxDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCRIPT = [
    {"when": {"contains": "slow"}, "reply": "{agent} read {text}", "delay_s": 600},
    {"reply": "{agent} read {text}"},
]


def until(condition: Callable[[], Any], timeout: float = 30.0, what: str = "the condition") -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"{what} did not come true within {timeout} s")


class House:
    """A cluster whose tmux server is killed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.folder = cluster.client.folder
        self.run_dir = cluster.run_dir

    def events(self, *names: str, agent: str | None = None) -> list[Any]:
        events, _ = read_events(self.run_dir / "journal.jsonl")
        return [one for one in events if (not names or one.event in names) and (agent is None or one.agent == agent)]

    def pid(self, who: str) -> int:
        record = read_record(self.folder)
        assert record is not None
        return int(getattr(record, f"{who}_pid"))

    def kill(self, *who: str, number: int = signal.SIGKILL) -> None:
        for pid in [self.pid(one) for one in who]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def rebuilt(self, times: int = 1) -> list[Any]:
        until(lambda: len(self.events("tmux.rebuilt")) >= times, what="the rebuild")
        found = self.events("tmux.rebuilt")
        assert len(found) == times
        return found

    def taken(self, name: str) -> Counter[str]:
        prompts: Counter[str] = Counter()
        for line in (self.run_dir / "transcripts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["type"] == "user":
                prompts[record["message"]["content"]] += 1
        return prompts

    def processes(self) -> dict[str, int]:
        return {agent["name"]: agent["pid"] for agent in self.cluster.status()["agents"]}


@pytest.fixture
def house(runtime: Path, script_config: Any) -> Iterator[House]:
    cluster = Cluster.start(script_config("ada", "bob", "cleo", name="house", script=SCRIPT, cols=120, rows=30))
    made = House(cluster)
    try:
        yield made
    finally:
        with contextlib.suppress(OrchestratorLabError):
            cluster.shutdown()
    assert not (runtime / "house").exists()


# the decision -------------------------------------------------------------------------------------


def test_pauses_grow_and_come_to_an_end() -> None:
    losses: list[float] = []
    pauses = []
    for at in range(0, 10, 2):
        losses.append(float(at))
        pauses.append(rebuild.pause_before(losses, float(at)))
    assert pauses == [0.0, 1.0, 2.0, 4.0, None]
    assert rebuild.pause_before(losses, 500.0) == 0.0


def told(*events: tuple[str, str | None, dict[str, Any]]) -> list[Event]:
    at = "2026-01-01T00:00:0{}.000000Z"
    return [
        Event(seq, name, at.format(seq % 10), float(seq), agent, None, None, None, "info", facts)
        for seq, (name, agent, facts) in enumerate(events, 1)
    ]


def test_who_is_to_come_back_stands_in_the_journal() -> None:
    lost = ("tmux.lost", None, {"pid": 7, "agents": ["ada", "bob", "cleo"]})
    assert rebuild.last_incident(told(("agent.started", "ada", {}))) == (None, [])
    incident, losses = rebuild.last_incident(
        told(("agent.started", "ada", {}), lost, ("agent.exited", "ada", {}), ("agent.started", "ada", {}))
    )
    assert incident is not None
    assert (incident.pid, incident.agents, incident.open, incident.place) == (7, ("bob", "cleo"), True, 1)
    assert len(losses) == 1
    # One that could not be started, or left, is waited for no more; and when all are there it is over.
    incident, _ = rebuild.last_incident(told(lost, ("agent.failed", "bob", {}), ("agent.removed", "cleo", {})))
    assert incident is not None
    assert incident.agents == ("ada",)
    incident, losses = rebuild.last_incident(told(lost, ("tmux.rebuilt", None, {}), lost))
    assert incident is not None
    assert (incident.open, incident.place, len(losses)) == (True, 2, 2)
    incident, losses = rebuild.last_incident(told(lost, lost, ("tmux.given_up", None, {})))
    assert incident is not None
    assert (incident.open, incident.given_up, losses) == (False, True, [])
    # A stop that came in between is a stop.
    incident, _ = rebuild.last_incident(told(lost, ("cluster.stopped", None, {})))
    assert incident is not None
    assert incident.agents == ()


# one loss -----------------------------------------------------------------------------------------


def test_everything_of_one_loss(house: House) -> None:
    """One cluster goes through a loss in the middle of everything; each promise is looked up in its record."""
    cluster = house.cluster
    assert cluster["ada"].ask("first", timeout=30).reply == "ada read first"
    cluster["cleo"].stop()
    slow = cluster["ada"].send("slow one")
    later = cluster["ada"].send("later")
    until(lambda: house.events("turn.first_output", "gateway.request", agent="ada")[1:])
    before, tmux = house.processes(), house.pid("tmux")
    since = len(house.events())
    begun = time.monotonic()
    house.kill("tmux")

    with pytest.raises(TurnFailed, match="ended with the tmux server"):
        slow.result(30)
    assert later.result(30) == "ada read later"
    (rebuilt,) = house.rebuilt()

    # One incident, one alert, and it is over.
    (lost,) = house.events("tmux.lost")
    assert lost.level == "critical"
    assert lost.attributes["pid"] == tmux
    assert lost.attributes["agents"] == ["ada", "bob"]
    (opened,) = house.events("alert.opened")
    (resolved,) = until(lambda: house.events("alert.resolved"))
    assert opened.attributes["rule"] == "tmux_lost"
    assert opened.level == "critical"
    assert resolved.attributes["alert_id"] == opened.attributes["alert_id"]
    assert not house.events("agent.failed")
    assert rebuilt.attributes["agents"] == ["ada", "bob"]
    assert 0 < rebuilt.attributes["gap_s"] < time.monotonic() - begun

    # The turn ended as exited; who was stopped stays stopped; who ran is there again, once, in its own session.
    assert [one.attributes["end_reason"] for one in house.events("turn.ended")] == ["completed", "exited", "completed"]
    after = house.processes()
    assert after["cleo"] is None
    assert not {after["ada"], after["bob"]} & set(before.values())
    assert not any(process_alive(pid) for pid in before.values() if pid)
    for name in ("ada", "bob"):
        first, second = house.events("agent.started", agent=name)
        assert first.attributes["session_id"] == second.attributes["session_id"]
        assert second.attributes["restart"] == 1
    assert house.taken("ada") == {"first": 1, "slow one": 1, "later": 1}

    # Session, windows, sizes and tags are as they were.
    driver = TmuxDriver.adopt(house.folder / "tmux.sock")
    try:
        assert driver.tags() == {"cluster": "house", "run_id": cluster.run_id}
        panes = {pane.tags["agent"]: pane for pane in driver.panes()}
        assert {name: (pane.cols, pane.rows) for name, pane in panes.items()} == {"ada": (120, 30), "bob": (120, 30)}
        assert driver.session == "house"
    finally:
        driver.close()

    # No event of the lab's own says anything else went wrong.
    # The keeper may see a pane's end before anybody sees that of tmux, which is its reason; and so may a message.
    notes = [one.attributes["text"] for one in house.events()[since:] if one.event == "note"]
    noise = [text for text in notes if text != "pane_closed" and not text.endswith("; it is queued again")]
    assert not noise, noise

    # Everything works, also for whoever comes now.
    found = Cluster.attach("house")
    assert found["bob"].ask("hello", timeout=30).reply == "bob read hello"
    with pytest.raises(ClusterStopped):
        found["cleo"].send("are you there?")
    done = subprocess.run([*cluster.attach_command.split()[:4], "list-sessions"], capture_output=True, check=False)
    assert done.returncode == 0
    cluster.restart()
    assert cluster["cleo"].ask("and you?", timeout=30).reply == "cleo read and you?"

    # The recordings go on, and say where they lack something.
    cluster.shutdown()
    assert {one.agent for one in house.events("recording.gap")} == {"ada", "bob"}
    cast = read_cast(house.run_dir / "panes" / "ada.cast.zst").events
    assert any(one.code == "m" and "no tmux server" in str(one.data) for one in cast)
    text = "".join(str(one.data) for one in cast if one.code == "o")
    assert text.index("first") < text.rindex("later")


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_a_server_that_is_ended_by_hand_comes_back_too(house: House, number: int | None) -> None:
    if number is None:
        subprocess.run(["tmux", "-S", str(house.folder / "tmux.sock"), "kill-server"], check=True)
    else:
        house.kill("tmux", number=number)
    (rebuilt,) = house.rebuilt()
    assert rebuilt.attributes["agents"] == ["ada", "bob", "cleo"]
    assert len(house.events("tmux.lost")) == 1
    assert not house.events("agent.failed")
    assert house.cluster["bob"].ask("hello", timeout=30).reply == "bob read hello"


def test_a_conversation_goes_on(house: House) -> None:
    talk = house.cluster.converse(["ada", "bob"], "go", rounds=3)
    until(lambda: len(house.events("message.answered")) >= 2)
    house.kill("tmux")
    talk.wait(40)
    rows = talk.messages
    # The message that was in a program when it ended may be lost, and the conversation says so; else it is complete.
    if "completed" in repr(talk):
        assert list(rows["status"]) == ["answered"] * 6
    else:
        assert list(rows["status"])[-1] in {"failed", "uncertain"}
    for name in ("ada", "bob"):
        assert max(house.taken(name).values()) == 1


def test_a_stopped_cluster_gets_its_session_back_and_no_agent(house: House) -> None:
    house.cluster.stop()
    house.kill("tmux")
    (rebuilt,) = house.rebuilt()
    assert "agents" not in rebuilt.attributes or not rebuilt.attributes["agents"]
    assert house.cluster.status()["status"] == "stopped"
    assert len(house.events("agent.started")) == 3
    house.cluster.restart()
    assert house.cluster["ada"].ask("hello", timeout=30).reply == "ada read hello"


def test_a_cluster_that_is_ending_ends(house: House) -> None:
    ender = threading.Thread(target=house.cluster.shutdown)
    until(lambda: house.pid("tmux"))
    tmux = house.pid("tmux")
    ender.start()
    until(lambda: (house.folder / "ending").exists() or not house.folder.exists())
    with contextlib.suppress(ProcessLookupError):
        os.kill(tmux, signal.SIGKILL)
    ender.join(40)
    assert not ender.is_alive()
    assert [one.attributes["status"] for one in house.events("run.ended")] == ["completed"]
    assert not house.events("tmux.rebuilt")


def test_a_server_that_dies_again_and_again_is_given_up(runtime: Path, script_config: Any) -> None:
    cluster = Cluster.start(script_config("ada", name="house", script=SCRIPT))
    house = House(cluster)
    try:
        stop = threading.Event()

        def killer() -> None:
            last = 0
            while not stop.is_set():
                pid = house.pid("tmux")
                if pid != last:
                    last = pid
                    house.kill("tmux")
                time.sleep(0.005)

        thread = threading.Thread(target=killer)
        thread.start()
        until(lambda: house.events("tmux.given_up"), 90)
        stop.set()
        thread.join()
        assert len(house.events("tmux.lost")) == 5
        facts = cluster.status()
        assert facts["status"] == "failed"
        assert [agent["state"] for agent in facts["agents"]] == ["failed"]
        assert (
            "orchestrator-lab restart house"
            in house.events("alert.opened", "alert.escalated")[-1].attributes["message"]
        )
        assert not house.events("alert.resolved")
        # It stays so, also under another supervisor, until a person asks for it.
        house.kill("supervisor")
        until(lambda: len(house.events("supervisor.started")) == 2)
        assert cluster.status()["status"] == "failed"
        assert len(house.events("tmux.lost")) == 5
        cluster.restart()
        assert cluster["ada"].ask("hello", timeout=30).reply == "ada read hello"
        assert cluster.status()["status"] == "running"
        assert house.events("alert.resolved")
    finally:
        cluster.shutdown()
    assert not (runtime / "house").exists()


@pytest.mark.usefixtures("runtime")
def test_what_survives_its_terminal_is_ended_and_a_look_alike_is_not(script_config: Any) -> None:
    program = [
        "/bin/sh",
        "-c",
        # Neither the end of its terminal nor a word makes it go; it has a child that does not mind either.
        "trap '' HUP TERM; sh -c \"trap '' HUP TERM; while :; do sleep 1; done\" & while :; do sleep 1; done",
    ]
    stubborn = {
        "name": "stubborn",
        "kind": "program",
        "command": program,
        "ready": {"quiet_s": 0.1},
        "turn_end": {"quiet_s": 0.5},
    }
    config = script_config("ada", name="house", script=SCRIPT)
    config["agents"].append(stubborn)
    cluster = Cluster.start(config)
    house = House(cluster)
    decoy = subprocess.Popen(program, start_new_session=True)
    try:
        pid = house.processes()["stubborn"]
        # Each sleep that it begins looks like itself for a moment; the child has a name of its own.
        children = until(lambda: [one for one in psutil.Process(pid).children() if _words(one)[:1] == ["sh"]])
        old = [psutil.Process(pid), *children]
        assert len(old) == 2
        house.kill("tmux")
        (rebuilt,) = house.rebuilt()
        assert rebuilt.attributes["agents"] == ["ada", "stubborn"]
        assert not any(one.is_running() and one.status() != "zombie" for one in old)
        assert decoy.poll() is None
        assert house.processes()["stubborn"] != pid
    finally:
        os.killpg(decoy.pid, signal.SIGKILL)
        decoy.wait()
        cluster.shutdown()


def test_a_pid_alone_and_a_secret_alone_prove_nothing(spawn: Callable[..., Any]) -> None:
    ours = spawn(["sleep", "60"], start_new_session=True, env={**os.environ, "ORCHESTRATOR_LAB_AGENT_TOKEN": "secret"})
    # The kernel shows a new program's environment a moment after it began.
    until(lambda: "ORCHESTRATOR_LAB_AGENT_TOKEN" in psutil.Process(ours.pid).environ())
    started = process_start_time(ours.pid)
    assert started is not None
    assert [one.pid for one in survivors([Kept("x", ours.pid, started, "secret")])] == [ours.pid]
    assert survivors([Kept("x", ours.pid, started, "another")]) == []
    assert survivors([Kept("x", os.getpid(), started, "secret")]) == []


# a supervisor that is killed in the middle of it ---------------------------------------------------


def kill_at(house: House, event: str, delay_s: float = 0.0, nth: int = 1) -> threading.Thread:
    """Kill the supervisor as soon as the journal shows an event for the nth time from now on."""
    pid, journal = house.pid("supervisor"), house.run_dir / "journal.jsonl"
    needle, start = f'"event":"{event}"'.encode(), journal.stat().st_size

    def watch() -> None:
        with journal.open("rb") as file:
            file.seek(start)
            seen, deadline = 0, time.monotonic() + 30
            while seen < nth and time.monotonic() < deadline:
                seen += file.read().count(needle)
                time.sleep(0.0002)
        time.sleep(delay_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("event", "nth", "delay_s"),
    [
        ("tmux.lost", 1, 0.0),
        ("agent.exited", 1, 0.0),
        ("agent.exited", 3, 0.05),
        ("recording.started", 1, 0.0),
        ("agent.started", 2, 0.0),
        ("agent.ready", 2, 0.0),
    ],
)
def test_supervisor_killed_in_the_rebuild_carries_on(house: House, event: str, nth: int, delay_s: float) -> None:
    cluster = house.cluster
    assert cluster["ada"].ask("first", timeout=30).reply == "ada read first"
    slow = cluster["bob"].send("slow one")
    until(lambda: house.events("message.accepted", agent="bob"))
    queued = cluster["bob"].send("queued")
    killer = kill_at(house, event, delay_s, nth)
    house.kill("tmux")
    killer.join()
    assert queued.result(60) == "bob read queued"
    with pytest.raises(TurnFailed):
        slow.result(30)
    house.rebuilt()
    until(lambda: len(house.events("supervisor.started")) == 2)
    assert len(house.events("tmux.lost")) == 1
    check_once(house)
    assert house.taken("bob") == {"slow one": 1, "queued": 1, "still there?": 1}
    ends = [one.attributes["end_reason"] for one in house.events("turn.ended", agent="bob")]
    assert ends == ["exited", "completed", "completed"]


def check_once(house: House) -> None:
    """Each agent was started again once, and answers; no second process of it runs."""
    for agent in house.cluster:
        assert agent.ask("still there?", timeout=30).reply == f"{agent.name} read still there?"
        assert len(house.events("agent.started", agent=agent.name)) == 2
    mine = [
        one
        for one in psutil.process_iter()
        if "orchestrator_lab.programs.chat" in _words(one) and str(house.folder) in " ".join(_words(one))
    ]
    assert sorted(one.pid for one in mine) == sorted(house.processes().values())
    server = psutil.Process(house.pid("tmux"))
    words = server.cmdline()
    assert str(house.folder / "tmux.sock") in words
    assert (server.ppid(), "-C" in words) == (1, False)


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def test_server_and_supervisor_killed_together(house: House) -> None:
    queued = house.cluster["ada"].send("slow one")
    until(lambda: house.events("message.accepted"))
    house.kill("supervisor", "tmux")
    with pytest.raises(TurnFailed):
        queued.result(40)
    house.rebuilt()
    (lost,) = house.events("tmux.lost")
    assert lost.attributes["agents"] == ["ada", "bob", "cleo"]
    check_once(house)


def test_server_and_keeper_killed_together(house: House) -> None:
    house.kill("keeper", "tmux")
    house.rebuilt()
    check_once(house)
    assert is_locked(house.folder)
    assert len(open_run(house.run_dir).alerts) <= 1
