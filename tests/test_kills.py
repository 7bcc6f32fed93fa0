"""Kill -9 of everybody but the agents, in the middle of deliveries.

The truth is what the chat program itself wrote into its transcript: a prompt stands there once for each time that it
was taken. The journal must agree with it, message by message.
"""

# ruff: noqa: S311 - chance decides when to kill, not who may enter

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.runtime import is_locked, process_alive, read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FINAL = {"answered", "refused", "expired", "failed", "uncertain"}
BIG = 100_000
#: Long enough that a kill can fall into a turn, short enough for twenty turns.
SCRIPT = [{"reply": "{agent} read {text}", "delay_s": 0.15, "chunk": 20_000}]


def until(condition: Callable[[], Any], timeout: float = 40.0, what: str = "the condition") -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    pytest.fail(f"{what} did not come true within {timeout} s")


class Lab:
    """A running cluster, and the hand that kills."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.folder = cluster.client.folder
        self.run_dir = cluster.run_dir
        self.pids = {agent["name"]: agent["pid"] for agent in cluster.status()["agents"]}
        self.sent: dict[str, str] = {}

    def record(self) -> Any:
        found = read_record(self.folder)
        assert found is not None
        return found

    def pid(self, who: str) -> int:
        pid = getattr(self.record(), f"{who}_pid")
        assert pid is not None
        return int(pid)

    def kill(self, *who: str) -> None:
        kill_at_once([self.pid(one) for one in who])

    def send(self, name: str, text: str) -> None:
        exchange = self.cluster[name].send(text)
        self.sent[exchange.message_id] = text

    def events(self, name: str | None = None) -> list[Any]:
        events, _ = read_events(self.run_dir / "journal.jsonl")
        return [event for event in events if name is None or event.event == name]

    def kill_when(
        self,
        event: str,
        nth: int,
        *who: str,
        before: Callable[[], None] | None = None,
        first: Callable[[], None] | None = None,
        since: int | None = None,
    ) -> threading.Thread:
        """Kill as soon as the journal shows an event for the nth time, behind a byte of it (its end by default)."""
        pids = [self.pid(one) for one in who]
        journal = self.run_dir / "journal.jsonl"
        needle = f'"event":"{event}"'.encode()
        seen, start = 0, journal.stat().st_size if since is None else since
        armed = threading.Event()

        def watch() -> None:
            nonlocal seen
            with journal.open("rb") as file:
                file.seek(start)
                armed.set()
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    seen += file.read().count(needle)
                    if seen >= nth:
                        if first is not None:
                            first()
                        kill_at_once(pids)
                        if before is not None:
                            before()
                        return
                    time.sleep(0.0002)

        thread = threading.Thread(target=watch)
        thread.start()
        armed.wait()
        return thread

    def settled(self, timeout: float = 60.0) -> None:
        """Wait until all messages have reached their final rung."""

        def final() -> bool:
            status: dict[str, str] = {}
            for event in self.events():
                if event.event.startswith("message.") and event.message_id:
                    status[event.message_id] = event.event.removeprefix("message.")
            return set(self.sent) <= set(status) and all(one in FINAL for one in status.values())

        until(final, timeout, "a final rung for every message")

    def check(self, *, lost_turns: bool = False) -> Counter[str]:
        """Compare the journal with what the programs took; return the rungs."""
        now = {agent["name"]: agent["pid"] for agent in self.cluster.status()["agents"]}
        assert now == self.pids, "an agent was started anew"
        rows = open_run(self.run_dir).messages.set_index("message_id")
        assert set(self.sent) <= set(rows.index), "a message vanished"
        assert set(rows[rows["sender"] == "user"].index) == set(self.sent), "a message that nobody sent"
        for name in self.pids:
            prompts = taken(self.run_dir / "transcripts" / f"{name}.jsonl")
            for message_id, row in rows[rows["recipient"] == name].iterrows():
                times = prompts[str(row["content"])]
                assert times <= 1, f"{message_id} was taken {times} times ({row['status']})"
                if row["status"] == "answered" or str(row["error_type"]).startswith("turn_"):
                    assert times == 1, f"{message_id} is {row['status']} and was never taken"
                if row["status"] == "failed" and not lost_turns:
                    pytest.fail(f"{message_id} failed: {row['error_message']}")
            known = set(rows[rows["recipient"] == name]["content"])
            assert set(prompts) <= known, "the program took a prompt that is no message"
            answered = rows[(rows["recipient"] == name) & (rows["status"] == "answered")]
            turns = open_run(self.run_dir).turns.set_index("turn_id")
            for _, row in answered.iterrows():
                assert turns.loc[row["turn_id"], "reply"] == f"{name} read {row['content']}"
        return Counter(rows["status"])

    def order(self, name: str) -> list[str]:
        return list(taken(self.run_dir / "transcripts" / f"{name}.jsonl"))


def kill_at_once(pids: list[int]) -> None:
    """Kill processes, held first: between two kills one would start the other anew."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def taken(path: Path) -> Counter[str]:
    prompts: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["type"] == "user":
            prompts[record["message"]["content"]] += 1
    return prompts


def body(number: int, size: int = 0) -> str:
    head = f"message {number}: "
    return head + "".join(random.Random(number).choices("abcdefghij \n", k=max(0, size - len(head)))).strip()


@pytest.fixture
def lab(runtime: Path, script_config: Any) -> Iterator[Lab]:
    cluster = Cluster.start(script_config("ada", "bob", name="kills", script=SCRIPT))
    lab = Lab(cluster)
    try:
        yield lab
    finally:
        with contextlib.suppress(OrchestratorLabError):
            cluster.shutdown()
    assert not (runtime / "kills").exists()
    assert not any(process_alive(pid) for pid in lab.pids.values())


def stream(lab: Lab, count: int, size: int = 0) -> None:
    for number in range(count):
        lab.send("ada" if number % 2 else "bob", body(number, size if number % 3 == 0 else 0))


# the supervisor -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "size"),
    [
        ("message.claimed", 0),
        ("message.claimed", BIG),
        ("message.written", BIG),
        ("message.submitted", 0),
        ("message.submitted", BIG),
        ("message.accepted", 0),
        ("turn.first_output", BIG),
        ("turn.ended", 0),
        ("message.queued", 0),
    ],
)
def test_supervisor_killed_at(lab: Lab, event: str, size: int) -> None:
    killer = lab.kill_when(event, 3, "supervisor")
    stream(lab, 8, size)
    killer.join()
    lab.settled()
    rungs = lab.check()
    # At most what was on its way into the two panes may be undecided.
    assert rungs["uncertain"] <= 2
    assert rungs["answered"] >= 6
    (gap,) = lab.events("supervisor.gap")
    assert 0 < gap.attributes["gap_s"] < 20
    assert len(lab.events("supervisor.started")) == 2
    # Messages to one agent are taken in the order in which they were sent.
    numbers = [int(text.split(":")[0].removeprefix("message ")) for text in lab.order("ada")]
    assert numbers == sorted(numbers)
    assert lab.cluster["ada"].ask("still there?", timeout=30).reply == "ada read still there?"


@pytest.mark.parametrize("seed", [1, 2])
def test_supervisor_killed_at_any_time_again_and_again(lab: Lab, seed: int) -> None:
    chance = random.Random(seed)

    def killer() -> None:
        for number in (1, 2):
            time.sleep(chance.uniform(0.05, 0.8))
            lab.kill("supervisor")
            until(lambda number=number: len(lab.events("supervisor.gap")) == number, what="its successor")

    thread = threading.Thread(target=killer)
    thread.start()
    stream(lab, 16, 20_000)
    thread.join()
    lab.settled()
    rungs = lab.check()
    assert rungs["uncertain"] <= 4
    assert len(lab.events("supervisor.gap")) == len(lab.events("supervisor.started")) - 1


def test_text_that_was_pasted_but_not_entered_is_entered_by_the_next_supervisor(lab: Lab) -> None:
    # The program is held, so that the text is in its terminal and nowhere else when the supervisor dies.
    os.kill(lab.pids["ada"], signal.SIGSTOP)
    killer = lab.kill_when("message.written", 1, "supervisor", before=lambda: os.kill(lab.pids["ada"], signal.SIGCONT))
    lab.send("ada", body(1, 5000))
    killer.join()
    lab.settled()
    assert lab.check() == {"answered": 1}


def test_text_that_never_reached_tmux_is_typed_by_the_next_supervisor_once(lab: Lab) -> None:
    # tmux is held from the claim on, and the supervisor dies before it can hand the text over.
    tmux = lab.pid("tmux")
    supervisor = lab.pid("supervisor")
    killer = lab.kill_when(
        "message.claimed",
        1,
        "supervisor",
        first=lambda: os.kill(supervisor, signal.SIGSTOP),
        before=lambda: os.kill(tmux, signal.SIGCONT),
    )
    lab.send("ada", body(1, BIG))
    killer.join()
    lab.settled()
    assert set(lab.check()) <= {"answered", "uncertain"}
    if "nothing of this message was typed" in str([one.attributes for one in lab.events("note")]):
        assert lab.check() == {"answered": 1}
        assert len(lab.events("message.claimed")) == 2


def test_conversation_goes_on_after_a_supervisor_was_killed(lab: Lab) -> None:
    killer = lab.kill_when("turn.ended", 3, "supervisor")
    conversation = lab.cluster.converse(["ada", "bob"], "go", rounds=4)
    killer.join()
    conversation.wait(60)
    assert repr(conversation) == "Conversation(ada → bob, rounds=4, completed)"
    rows = conversation.messages
    assert list(rows["status"]) == ["answered"] * 8
    assert list(rows["recipient"]) == ["ada", "bob"] * 4
    for name in lab.pids:
        assert max(taken(lab.run_dir / "transcripts" / f"{name}.jsonl").values()) == 1


def test_hooks_fired_while_nobody_listens_wait_in_the_backlog(lab: Lab) -> None:
    lab.send("ada", "slow")
    until(lambda: lab.events("message.accepted"))
    # The supervisor is held while the turn ends, and never comes back: its successor hears what was said meanwhile.
    supervisor = lab.pid("supervisor")
    until(lambda: lab.events("gateway.response"))
    os.kill(supervisor, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(supervisor, signal.SIGKILL)
    lab.settled()
    assert lab.check() == {"answered": 1}
    assert len(lab.events("turn.ended")) == 1


# the keeper ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["message.claimed", "turn.ended"])
def test_keeper_killed_at(lab: Lab, event: str) -> None:
    killer = lab.kill_when(event, 3, "keeper")
    stream(lab, 8, BIG)
    killer.join()
    lab.settled()
    assert lab.check() == {"answered": 8}
    until(lambda: lab.events("keeper.gap"))
    (gap,) = lab.events("keeper.gap")
    assert 0 < gap.attributes["gap_s"] < 20
    until(lambda: {one.agent for one in lab.events("recording.gap")} == set(lab.pids))
    assert len(lab.events("supervisor.started")) == 1
    assert process_alive(lab.pid("keeper"))


def test_recordings_go_on_after_a_keeper_was_killed(lab: Lab) -> None:
    lab.send("ada", "before the kill")
    lab.settled()
    place = lab.run_dir / "panes" / "ada.cast.zst"
    until(lambda: b"before the kill" in read_cast(place).output())
    lab.kill("keeper")
    until(lambda: len(lab.events("recording.gap")) == 2)
    lab.send("ada", "after the kill")
    lab.settled()
    until(lambda: b"after the kill" in read_cast(place).output())
    lab.cluster.shutdown()
    text = "".join(str(one.data) for one in read_cast(place).events)
    assert text.index("before the kill") < text.index("after the kill")
    times = [one.time_s for one in read_cast(place).events]
    assert times == sorted(times)


def test_keeper_and_supervisor_heal_each_other_in_turn(lab: Lab) -> None:
    for who in ("keeper", "supervisor", "keeper"):
        before = lab.pid(who)
        lab.kill(who)
        until(lambda before=before, who=who: lab.pid(who) != before and process_alive(lab.pid(who)))
        lab.send("ada", f"after the {who} {before}")
        lab.settled()
    assert lab.check() == {"answered": 3}


# both, and the client -----------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["message.claimed", "message.written", "message.accepted", "turn.ended"])
def test_both_killed_and_the_next_client_heals(lab: Lab, event: str) -> None:
    since = (lab.run_dir / "journal.jsonl").stat().st_size
    for number in range(6):
        lab.send("ada" if number % 2 else "bob", body(number, BIG if number % 3 == 0 else 0))
    killer = lab.kill_when(event, 3, "keeper", "supervisor", since=since)
    killer.join()
    until(lambda: not is_locked(lab.folder))
    assert all(process_alive(pid) for pid in lab.pids.values())
    time.sleep(0.5)
    lab.cluster = Cluster.attach("kills")
    lab.settled()
    # A model call that the gateway held died with it, and there was no gateway to call again.
    rungs = lab.check(lost_turns=True)
    assert rungs["uncertain"] + rungs["failed"] <= 2
    for name in ("supervisor.gap", "keeper.gap"):
        (gap,) = lab.events(name)
        assert 0.4 < gap.attributes["gap_s"] < 60
    until(lambda: {one.agent for one in lab.events("recording.gap")} == set(lab.pids))
    assert lab.cluster["ada"].ask("still there?", timeout=30).reply == "ada read still there?"
    until(lambda: b"still there?" in read_cast(lab.run_dir / "panes" / "ada.cast.zst").output())
    lab.cluster.shutdown()


def test_any_call_of_a_client_that_was_there_heals_too(lab: Lab) -> None:
    lab.kill("keeper", "supervisor")
    lab.send("ada", "hello")
    lab.settled()
    assert lab.check() == {"answered": 1}


CLIENT = """
import sys, time
from orchestrator_lab import Cluster
cluster = Cluster.attach("kills")
for number in range(60):
    print(cluster["ada" if number % 2 else "bob"].send(f"message {number}").message_id, flush=True)
"""


def test_client_killed_in_a_stream_of_sends(lab: Lab) -> None:
    client = subprocess.Popen([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    told = [client.stdout.readline().strip() for _ in range(6)]
    client.kill()
    told += client.stdout.read().split()
    client.wait()
    client.stdout.close()
    lab.settled(120)  # its last request may be on its way still
    events = lab.events("message.queued")
    assert {one for one in told if len(one) == len(told[0])} <= {one.message_id for one in events}
    # What was asked for stays asked for, whoever asked.
    lab.sent = {str(one.message_id): one.attributes["content"] for one in events}
    lab.settled(120)
    assert lab.check() == {"answered": len(events)}
    assert not lab.events("supervisor.gap")


def test_repeated_posts_change_nothing(lab: Lab) -> None:
    body = {"to": ["ada", "bob"], "text": "once", "message_ids": ["msg_a", "msg_b"]}
    first = lab.cluster.client.post("/messages", body)
    lab.kill("supervisor")
    second = lab.cluster.client.post("/messages", body)
    assert [one["message_id"] for one in second["messages"]] == [one["message_id"] for one in first["messages"]]
    lab.sent = dict.fromkeys(["msg_a", "msg_b"], "once")
    lab.settled()
    assert lab.check() == {"answered": 2}
    talk = {"agents": ["ada", "bob"], "opening": "go", "rounds": 1, "conversation_id": "cnv_x"}
    lab.cluster.client.post("/conversations", talk)
    lab.kill("supervisor")
    lab.cluster.client.post("/conversations", talk)
    lab.cluster.client.get("/conversations/cnv_x", timeout_s=40)
    rows = open_run(lab.run_dir).messages
    assert list(rows[rows["conversation_id"] == "cnv_x"]["status"]) == ["answered", "answered"]


# the disk, the start, the end ---------------------------------------------------------------------


@pytest.mark.parametrize("event", ["agent.added", "agent.started"])
def test_supervisor_killed_while_agents_join(lab: Lab, event: str) -> None:
    """The client's repeated request finds them, whichever of them had begun."""
    killed = threading.Event()

    def kill() -> None:
        until(
            lambda: any(
                one.agent == "cy" and one.event == event for one in read_events(lab.run_dir / "journal.jsonl")[0]
            )
        )
        lab.kill("supervisor")
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    cy, _ = lab.cluster.add({"name": "cy", "kind": "chat"}, {"name": "di", "kind": "chat"})
    killer.join(timeout=60)
    assert killed.is_set()
    assert cy.ask("hello", timeout=60).reply == "cy read hello"
    assert sorted(agent["name"] for agent in lab.cluster.status()["agents"])[-2:] == ["cy", "di"]


def test_torn_tail_of_the_journal_is_cut_and_told(lab: Lab) -> None:
    lab.send("ada", "one")
    lab.settled()
    lab.kill("keeper", "supervisor")
    until(lambda: not is_locked(lab.folder))
    with (lab.run_dir / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"seq":99,"event":"message.queu')
    lab.cluster = Cluster.attach("kills")
    lab.send("ada", "two")
    lab.settled()
    assert lab.check() == {"answered": 2}
    (repaired,) = lab.events("journal.repaired")
    assert repaired.attributes["bytes"] == 31
    numbers = [event.seq for event in lab.events()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(("who", "delay"), [("supervisor", 0.2), ("supervisor", 0.6), ("keeper", 0.5)])
def test_killed_during_the_start(runtime: Path, script_config: Any, who: str, delay: float) -> None:
    config = script_config("ada", "bob", name="kills", script=SCRIPT)
    killed = threading.Event()

    def killer() -> None:
        folder = runtime / "kills"
        until(lambda: (record := read_record(folder)) is not None and getattr(record, f"{who}_pid") is not None)
        time.sleep(delay)
        record = read_record(folder)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(getattr(record, f"{who}_pid")), signal.SIGKILL)
        killed.set()

    thread = threading.Thread(target=killer)
    thread.start()
    cluster = Cluster.start(config)
    try:
        thread.join()
        assert killed.is_set()
        for agent in cluster:
            assert agent.ask("hello", timeout=30).reply == f"{agent.name} read hello"
        assert len([one for one in cluster.events() if one.event == "agent.started"]) == 2
    finally:
        cluster.shutdown()
    assert not (runtime / "kills").exists()


def test_killed_before_all_agents_were_named(lab: Lab) -> None:
    """The journal of a start that ended between the first agent's name and the second's."""
    keeper, panes = lab.pid("keeper"), [agent.pane for agent in lab.cluster]
    os.kill(keeper, signal.SIGSTOP)  # it starts another supervisor when it goes on
    try:
        lab.kill("supervisor")
        for pane in panes:
            pane.kill()
        journal = lab.run_dir / "journal.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        [end] = [number for number, line in enumerate(lines, 1) if '"event":"agent.added"' in line and '"ada"' in line]
        journal.write_text("".join(lines[:end]), encoding="utf-8")
    finally:
        os.kill(keeper, signal.SIGCONT)
    for name in ("ada", "bob"):
        assert lab.cluster[name].ask("hello", timeout=30).reply == f"{name} read hello"
    for event in ("agent.added", "agent.started", "agent.ready"):
        assert sorted(str(one.agent) for one in lab.events(event)) == ["ada", "bob"], event


@pytest.mark.parametrize(
    ("who", "delay"), [("supervisor", 0.0), ("supervisor", 0.2), ("supervisor", 0.5), ("keeper", 0.2), ("keeper", 0.5)]
)
def test_killed_during_the_shutdown(lab: Lab, who: str, delay: float) -> None:
    lab.send("ada", "one")
    lab.settled()
    pid = lab.pid(who)
    tmux = lab.pid("tmux")

    def killer() -> None:
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    lab.cluster.shutdown()
    thread.join()
    until(lambda: not lab.folder.exists(), what="the end of the runtime folder")
    assert not process_alive(tmux)
    assert not any(psutil.pid_exists(pid) and process_alive(pid) for pid in lab.pids.values())
    ends = lab.events("run.ended")
    assert [one.attributes["status"] for one in ends] == ["completed"]
    assert lab.events()[-1].event == "run.ended"
