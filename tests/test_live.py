"""The feed of a running cluster: what its panes write and its journal says, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import avt
import pytest

from orchestrator_lab import Cluster, live
from orchestrator_lab.errors import ClusterNotFound, ClusterStopped, ConfigError
from orchestrator_lab.live import Feed, Tick, lasting
from orchestrator_lab.panestream import LIMIT, PaneStream
from orchestrator_lab.runtime import read_record, runtime_dir

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

PROGRAM = """
import os, sys, tty
tty.setraw(0)
out = sys.stdout
out.write('ready\\r\\n'); out.flush()
held = b''
while data := os.read(0, 65536):
    held += data
    while b'\\r' in held:
        line, _, held = held.partition(b'\\r')
        word, _, rest = line.decode('utf-8', 'replace').partition(' ')
        if word == 'flood':
            for number in range(int(rest) // 10):
                out.write(f'\\x1b[3{number % 8}mabcd\\r\\n' if number % 7 else '\\x1b[H')
        elif word == 'raw':
            out.write(rest.encode().decode('unicode_escape'))
        else:
            out.write(f'got {line!r}\\r\\n')
        out.flush()
"""


def program(name: str) -> dict[str, Any]:
    command = [sys.executable, "-S", "-E", "-c", PROGRAM]
    return {"name": name, "kind": "program", "command": command, "turn_end": {"quiet_s": 0.1}}


class Ear:
    """A listener that draws what it is told, as a view does."""

    def __init__(self, of: str | Feed, agents: list[str], since: int | None = None) -> None:
        self.ticks: list[Tick] = []
        self.at: list[float] = []
        self.screens: dict[str, Any] = {}
        self.gap: str | None = None
        self._news = threading.Condition()
        feed = of if isinstance(of, Feed) else Feed.of(of)
        self.listener = feed.listen(self._take, agents=agents, since=since)

    def _take(self, tick: Tick) -> None:
        with self._news:
            self.ticks.append(tick)
            self.at.append(time.monotonic())
            self.gap = tick.gap
            for pane in tick.panes:
                if pane.repaint:
                    self.screens[pane.agent] = avt.Vt(pane.cols, pane.rows)
                self.screens[pane.agent].feed_str(pane.data.decode("utf-8", "replace"))
            self._news.notify_all()

    def until(self, condition: Callable[[], Any], what: str = "", timeout_s: float = 30.0) -> None:
        with self._news:
            if not self._news.wait_for(condition, timeout_s):
                pytest.fail(f"not within {timeout_s} s: {what}; the last ticks: {self.ticks[-3:]}")

    def shows(self, agent: str) -> str:
        screen = self.screens.get(agent)
        return "" if screen is None else "\n".join(line.text.rstrip() for line in screen.view()).rstrip()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for tick in list(self.ticks) for event in tick.events]


def settle(ear: Ear, cluster: Cluster, agent: str) -> None:
    """Wait until the listener shows what tmux shows."""

    def same() -> bool:
        return ear.shows(agent) == str(cluster[agent].screen()).rstrip()

    deadline = time.monotonic() + 30
    while not same():
        if time.monotonic() > deadline:
            assert ear.shows(agent) == str(cluster[agent].screen()).rstrip()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    config = script_config("ada", name="live", lifetime="owner")
    config["agents"] += [program("one"), program("two")]
    with Cluster.start(config) as started:
        yield started


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    """Wait for the threads of a test's listeners, which end a moment after the last one has left."""
    yield
    for thread in feeds("live"):
        thread.join(30)


@pytest.fixture
def ear(cluster: Cluster) -> Iterator[Ear]:  # noqa: ARG001
    made = Ear("live", ["one"])
    made.until(lambda: any(tick.status for tick in made.ticks), "a status: from here on events are told")
    yield made
    made.listener.close()


def keys(cluster: Cluster, agent: str, text: str) -> int:
    return int(cluster.client.post(f"/agents/{agent}/keys", {"keys": text})["bytes"])


def test_a_pane_begins_with_its_picture_and_goes_on(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens, "a picture")
    first = next(tick for tick in ear.ticks if tick.panes)
    assert first.panes[0].repaint
    assert (first.panes[0].cols, first.panes[0].rows) == (cluster.config.cols, cluster.config.rows)
    assert "ready" in ear.shows("one")
    assert keys(cluster, "one", "héllo\r") == 7
    ear.until(lambda: "got" in ear.shows("one"), "an echo")
    told = [pane.repaint for tick in ear.ticks for pane in tick.panes]
    assert told == [True] + [False] * (len(told) - 1)
    assert len(told) > 1
    settle(ear, cluster, "one")


def test_keys_are_journalled_by_their_number_alone(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens)
    keys(cluster, "one", "s3cr3t-p4ss\r")
    ear.until(lambda: any(event["event"] == "agent.keys" for event in ear.events), "an event")
    (event,) = [event for event in ear.events if event["event"] == "agent.keys"]
    assert (event["agent"], event["source"], event["attributes"]) == ("one", "human", {"bytes": 12})
    journal = (cluster.run_dir / "journal.jsonl").read_text()
    assert "s3cr3t" not in journal
    ear.until(lambda: "s3cr3t" in ear.shows("one"), "an echo")


def test_wrong_keys(cluster: Cluster) -> None:
    def typed() -> int:
        return sum(event.event == "agent.keys" for event in cluster.events())

    before = typed()
    for body, why in (
        ({}, "'keys'"),
        ({"keys": 5}, "'keys'"),
        ({"keys": ""}, "'keys'"),
        ({"keys": "x" * 65537}, "65537 bytes"),
    ):
        with pytest.raises(ConfigError, match=why):
            cluster.client.post("/agents/one/keys", body)
    assert typed() == before
    assert keys(cluster, "one", "\r") == 1


def test_all_keys_arrive_as_they_are_and_in_order(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens)
    typed = "\x1b[A\x1bOP\x03\x01\t\x7f;$'\"{}é漢"
    for key in typed:
        keys(cluster, "one", key)
    keys(cluster, "one", "\r")
    ear.until(
        lambda: f"got {typed.encode()!r}".replace("\\\\", "\\") in ear.shows("one").replace("\n", ""), "all of them"
    )


def test_nothing_is_told_when_nothing_happens(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens)
    settle(ear, cluster, "one")
    # What was told before may have a sequel, and a sample of the processes is news.
    for _ in range(10):
        before = len(ear.ticks)
        time.sleep(1.0)
        if len(ear.ticks) == before:
            return
    pytest.fail(f"there is always something; the last ticks: {ear.ticks[-3:]}")


def test_events_from_a_number_on_and_none_twice(cluster: Cluster) -> None:
    cluster["ada"].ask("hello", timeout=30)
    ear = Ear("live", [], since=0)
    try:
        ear.until(lambda: any(event["event"] == "turn.ended" for event in ear.events))
        cluster["ada"].ask("again", timeout=30)
        last = cluster.status()["events"]
        ear.until(lambda: ear.events[-1]["seq"] >= last)
        numbers = [event["seq"] for event in ear.events]
        assert numbers == list(range(1, len(numbers) + 1))
        assert not any(tick.panes for tick in ear.ticks)
        ear.until(lambda: any(t.status and t.status["agents"][0]["turns"] >= 2 for t in ear.ticks), "a status")
    finally:
        ear.listener.close()


def test_only_watched_panes_are_told(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens)
    keys(cluster, "two", "unseen\r")
    keys(cluster, "one", "seen\r")
    ear.until(lambda: "b'seen'" in ear.shows("one"))
    assert "two" not in ear.screens
    ear.listener.watch(["two"])
    ear.until(lambda: "unseen" in ear.shows("two"), "the picture of a new one")
    keys(cluster, "two", "further\r")
    ear.until(lambda: "further" in ear.shows("two"))
    before = ear.shows("one")
    keys(cluster, "one", "passed over\r")
    keys(cluster, "two", "last\r")
    ear.until(lambda: "last" in ear.shows("two"))
    assert ear.shows("one") == before
    ear.listener.watch(["one", "two"])
    ear.until(lambda: "passed over" in ear.shows("one"), "its picture again")


def test_two_listeners_share_one_thread_that_ends_with_them(cluster: Cluster, ear: Ear) -> None:  # noqa: ARG001
    ear.until(lambda: "one" in ear.screens)
    other = Ear("live", ["one"])
    other.until(lambda: "ready" in other.shows("one") or "got" in other.shows("one"))
    threads = [thread for thread in threading.enumerate() if thread.name == "feed-live"]
    assert len(threads) == 1
    other.listener.close()
    ear.listener.close()
    threads[0].join(30)
    assert not threads[0].is_alive()


def feeds(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"feed-{name}"]


def test_one_who_comes_while_the_thread_ends_has_a_feed_of_its_own(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, begun = threading.Event(), threading.Event()
    follow = live._Run._follow_status

    async def slow_to_end(run: Any) -> None:
        try:
            await follow(run)
        finally:
            ending.set()
            await asyncio.to_thread(begun.wait, 60)

    monkeypatch.setattr(live._Run, "_follow_status", slow_to_end)
    first = Ear("live", ["one"])
    first.until(lambda: "one" in first.screens)
    (old,) = feeds("live")
    first.listener.close()
    assert ending.wait(30)
    second = Ear("live", ["one"])
    try:
        second.until(lambda: "one" in second.screens)
        begun.set()
        old.join(30)
        assert not old.is_alive()
        keys(cluster, "one", "still heard\r")
        second.until(lambda: "still heard" in second.shows("one"))
        (new,) = feeds("live")
        third = Ear("live", ["one"])
        third.until(lambda: "still heard" in third.shows("one"))
        assert feeds("live") == [new]
        third.listener.close()
    finally:
        begun.set()
        second.listener.close()
    new.join(30)
    assert not new.is_alive()


def test_two_who_come_at_once_are_told_each_event_once(cluster: Cluster) -> None:
    last = cluster.status()["events"]
    ears = [Ear("live", [], since=0) for _ in range(3)]
    try:
        for ear in ears:
            ear.until(lambda ear=ear: ear.events and ear.events[-1]["seq"] >= last)
            numbers = [event["seq"] for event in ear.events]
            assert numbers == list(range(1, len(numbers) + 1))
    finally:
        for ear in ears:
            ear.listener.close()


def test_nothing_more_is_read_for_one_who_left(cluster: Cluster, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    ear.until(lambda: "one" in ear.screens)
    last = cluster.status()["events"]
    assert last > 5
    read: list[int] = []
    left, ended = threading.Event(), threading.Event()
    stream = live.events

    async def gated(place: Path, since: int, opened: Callable[[], None] | None = None) -> AsyncIterator[dict[str, Any]]:
        try:
            async with contextlib.aclosing(stream(place, since, opened)) as past:
                async for event in past:
                    yield event
                    read.append(event["seq"])
                    await asyncio.to_thread(left.wait, 60)
        finally:
            ended.set()

    monkeypatch.setattr(live, "events", gated)
    late = Ear("live", [], since=0)
    late.until(lambda: late.events)
    late.listener.close()
    left.set()
    assert ended.wait(30)
    assert read[-1] < last
    assert len(read) <= 2


def test_a_repaint_on_demand(cluster: Cluster, ear: Ear) -> None:  # noqa: ARG001
    ear.until(lambda: "one" in ear.screens)
    before = sum(pane.repaint for tick in ear.ticks for pane in tick.panes)
    ear.listener.repaint("one")
    ear.until(lambda: sum(pane.repaint for tick in ear.ticks for pane in tick.panes) > before)


def test_a_flood_is_cut_down_and_the_end_is_right(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens)
    keys(cluster, "one", "flood 20000000\r")
    keys(cluster, "one", "raw \\x1b[0m\\x1b[2J\\x1b[Hthe end\r")
    ear.until(lambda: ear.shows("one") == "the end", "the end of the flood", 120)
    told = sum(len(pane.data) for tick in ear.ticks for pane in tick.panes)
    # However long a busy machine takes for it: a picture a tick, not the flood.
    assert told < max(5_000_000, 25 * LIMIT * (ear.at[-1] - ear.at[0]))
    assert max(len(pane.data) for tick in ear.ticks for pane in tick.panes) <= 2 * LIMIT
    assert min(b - a for a, b in zip(ear.at, ear.at[1:], strict=False)) > 0.04
    settle(ear, cluster, "one")


def test_a_keeper_that_is_killed(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens)
    record = read_record(runtime_dir() / "live")
    assert record is not None
    assert record.keeper_pid is not None
    os.kill(record.keeper_pid, signal.SIGKILL)
    ear.until(lambda: any("keeper" in (tick.gap or "") for tick in ear.ticks), "a gap")
    ear.until(lambda: ear.gap is None, "the gap's end")
    keys(cluster, "one", "after the keeper\r")
    ear.until(lambda: "after the keeper" in ear.shows("one"))
    settle(ear, cluster, "one")


def test_a_supervisor_that_is_killed(cluster: Cluster, ear: Ear) -> None:
    ear.until(lambda: "one" in ear.screens)
    record = read_record(runtime_dir() / "live")
    assert record is not None
    assert record.supervisor_pid is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)
    ear.until(lambda: any("supervisor" in (tick.gap or "") for tick in ear.ticks), "a gap")
    ear.until(lambda: ear.gap is None, "the gap's end")
    keys(cluster, "one", "after the supervisor\r")
    ear.until(lambda: "after the supervisor" in ear.shows("one"))
    ear.until(lambda: any(event["event"] == "supervisor.gap" for event in ear.events))
    settle(ear, cluster, "one")


def test_a_program_that_ends_and_comes_back(cluster: Cluster, ear: Ear) -> None:
    ear.listener.watch(["two"])
    ear.until(lambda: "two" in ear.screens)
    cluster["two"].stop()
    ear.until(lambda: "Pane is dead" in ear.shows("two"), "its end")
    settle(ear, cluster, "two")
    with pytest.raises(ClusterStopped, match="'two' does not run"):
        keys(cluster, "two", "x")
    cluster["two"].restart()
    ear.until(lambda: ear.shows("two") == "ready", "its new screen")


def test_agents_that_join_and_leave(cluster: Cluster, ear: Ear) -> None:
    ear.listener.watch(["one", "late"])
    cluster.add(program("late"))
    ear.until(lambda: ear.shows("late") == "ready", "the one who joined")
    ear.until(lambda: any("'late'" in str(tick.status["agents"]) for tick in ear.ticks if tick.status), "its facts")
    cluster.remove("late")
    ear.until(
        lambda: [t for t in ear.ticks if t.status] and "late" not in str([t for t in ear.ticks if t.status][-1].status)
    )
    keys(cluster, "one", "goes on\r")
    ear.until(lambda: "goes on" in ear.shows("one"))


def test_a_cluster_that_ends(runtime: Path, script_config: Callable[..., dict[str, Any]]) -> None:  # noqa: ARG001
    with Cluster.start(script_config("ada", name="brief")) as cluster:
        ear = Ear("brief", ["ada"])
        ear.until(lambda: "ada" in ear.screens)
        cluster.shutdown()
    ear.until(lambda: ear.gap == "cluster 'brief' has ended")
    assert ear.events[-1]["event"] == "run.ended"
    ear.listener.close()
    with pytest.raises(ClusterNotFound):
        Feed.of("brief")


def test_an_end_is_told_whole_to_those_who_are_still_catching_up_and_to_those_who_come_later(
    runtime: Path,  # noqa: ARG001
    script_config: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = live.events

    async def slow_past(place: Path, since: int, opened: Callable[[], None] | None = None) -> AsyncIterator[Any]:
        async with contextlib.aclosing(stream(place, since, opened)) as past:
            async for event in past:
                if since > 2 or event["seq"] <= 2:
                    yield event

    with Cluster.start(script_config("ada", name="brief")) as cluster:
        feed = Feed.of("brief")
        first = Ear(feed, [])
        first.until(lambda: first.ticks)
        monkeypatch.setattr(live, "events", slow_past)
        slow = Ear(feed, [], since=0)
        slow.until(lambda: len(slow.events) == 2)
        known = cluster.status()["events"]
        cluster.shutdown()
    ended = "cluster 'brief' has ended"
    first.until(lambda: first.gap == ended)
    slow.until(lambda: slow.gap == ended)
    for thread in feeds("brief"):
        thread.join(30)
    assert feeds("brief") == []
    numbers = [event["seq"] for event in slow.events]
    assert numbers == list(range(1, len(numbers) + 1))
    assert slow.events[-1]["event"] == "run.ended"
    assert [tick.gap for tick in slow.ticks].count(ended) == 1  # with or behind the last event

    late, deaf = Ear(feed, [], since=known), Ear(feed, ["ada"])
    late.until(lambda: late.gap == ended)
    deaf.until(lambda: deaf.gap == ended)
    assert late.events == slow.events[known:]
    assert deaf.events == []
    assert late.ticks[0].status is not None
    for thread in feeds("brief"):
        thread.join(30)
    assert feeds("brief") == []


def test_a_feed_that_has_ended_leaves_its_successor_alone(tmp_path: Path) -> None:
    old, new = Feed(tmp_path, "x"), Feed(tmp_path, "x")
    Feed._known[tmp_path] = new
    old.forget()
    assert Feed._known[tmp_path] is new
    new.forget()
    assert tmp_path not in Feed._known


# the pure part ------------------------------------------------------------------------------------


def test_bytes_before_the_picture_are_dropped_and_those_behind_it_kept() -> None:
    pane = PaneStream("x")
    pane.take(5, b"12345")
    assert pane.tick() is None  # nothing is told before a picture
    pane.take(8, b"678")
    pane.paint(b"P", 10, 5, count=6)
    told = pane.tick()
    assert told is not None
    assert (told.data, told.repaint, told.cols, told.rows) == (b"P78", True, 10, 5)
    pane.take(8, b"678")  # told already
    assert pane.tick() is None
    pane.take(10, b"890")
    assert pane.tick() is not None


def test_bytes_that_never_came_ask_for_a_picture() -> None:
    pane = PaneStream("x")
    pane.paint(b"P", 10, 5, count=6)
    pane.take(9, b"9")
    assert pane.unpainted


def test_too_many_bytes_ask_for_a_picture_of_their_end() -> None:
    pane = PaneStream("x")
    pane.paint(b"P", 10, 5, count=0)
    pane.tick()
    pane.take(LIMIT + 1, b"x" * (LIMIT + 1))
    assert pane.unpainted
    assert pane.tick() is None
    pane.take(LIMIT + 3, b"yy")
    pane.paint(b"early", 10, 5, count=LIMIT + 1)
    assert pane.unpainted  # two bytes are not in it, and are no longer here
    pane.paint(b"right", 10, 5, count=LIMIT + 3)
    assert not pane.unpainted
    told = pane.tick()
    assert told is not None
    assert told.data == b"right"


def test_time_alone_changes_no_status() -> None:
    status = {"events": 1, "agents": [{"name": "a", "state_s": 1.0}], "alerts": []}
    assert lasting(status) == lasting({"events": 2, "agents": [{"name": "a", "state_s": 2.0}], "alerts": []})
    assert lasting(status) != lasting({"events": 2, "agents": [{"name": "a", "state": "busy"}], "alerts": []})
