"""The list of clusters comes by push: nobody asks, nothing is looked at again and again, and no end is missed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.client import wait_until_gone
from orchestrator_lab.errors import EnvironmentProblem, OrchestratorLabError
from orchestrator_lab.runtime import ClusterRecord, acquire_lock, private_dir, read_record, update_record, write_record
from orchestrator_lab.server.clusters import Clusters
from orchestrator_lab.server.watching import _QUIET_S, ClusterWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from web_helpers import Door


class Ear:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[list[dict[str, Any]] | OrchestratorLabError] = []
        self._news = asyncio.Event()

    def __call__(self, told: list[dict[str, Any]] | OrchestratorLabError) -> None:
        self.told.append(told)
        self._news.set()

    async def until(self, fits: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(30):
            while not (self.told and fits(self.told[-1])):
                self._news.clear()
                await self._news.wait()
        return self.told[-1]

    async def named(self, *names: str) -> None:
        await self.until(lambda told: isinstance(told, list) and [one["name"] for one in told] == list(names))


@pytest.fixture
async def watch() -> AsyncIterator[ClusterWatch]:
    clusters = Clusters()
    made = ClusterWatch(clusters)
    yield made
    made.close()
    await asyncio.sleep(0)  # its task ends
    clusters.close()


@contextlib.contextmanager
def looks_running(runtime: Path, name: str) -> Iterator[Path]:
    """Make the folder of a cluster that holds its lock, as a keeper does."""
    folder = private_dir(runtime / name)
    lock = acquire_lock(folder)
    assert lock is not None
    write_record(folder, ClusterRecord(name=name, run_dir=str(runtime / "runs"), run_id=f"run_{name}"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


async def test_beginnings_changes_and_ends_are_told_once_they_have_settled(runtime: Path, watch: ClusterWatch) -> None:
    ear = Ear()
    leave = watch.listen(ear)
    await ear.named()
    with looks_running(runtime, "duo") as folder:
        await ear.named("duo")
        with looks_running(runtime, "trio"):
            await ear.named("duo", "trio")
            known, begun = len(ear.told), time.monotonic()
            for port in range(20):  # a burst is one change
                update_record(folder, port=port, version=f"9.{port}")
            await ear.until(lambda told: told[0]["version"] == "9.19")
            # One look may have been under way; between any two others it is waited for quiet.
            assert len(ear.told) - known <= 2 + (time.monotonic() - begun) / _QUIET_S
        await ear.named("duo")
        folder.rename(runtime / "solo")
        update_record(runtime / "solo", name="solo")
        await ear.named("solo")
        (runtime / "solo").rename(folder)
    await ear.named()
    leave()
    assert all(one != other for one, other in zip(ear.told, ear.told[1:], strict=False))


async def test_what_a_running_cluster_writes_all_the_time_is_not_looked_at(
    runtime: Path, watch: ClusterWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    running = Clusters.running

    def counted(clusters: Clusters) -> list[ClusterRecord]:
        looks.append(time.monotonic())
        return running(clusters)

    monkeypatch.setattr(Clusters, "running", counted)
    with looks_running(runtime, "duo") as folder:
        private_dir(folder / "buffers")
        ear = Ear()
        leave = watch.listen(ear)
        await ear.named("duo")
        # News of what was written before may still come, and may come late: it is looked at once. News of texts
        # would come with each of them.
        for _ in range(5):
            before = len(looks)
            for number in range(50):
                (folder / "buffers" / f"msg_{number}").write_text("x", encoding="utf-8")
                (folder / "buffers" / f"msg_{number}").unlink()
            await asyncio.sleep(0.5)
            if len(looks) == before:
                break
        assert len(looks) == before
        leave()


async def test_a_folder_that_is_removed_and_comes_anew_is_watched_again(runtime: Path, watch: ClusterWatch) -> None:
    ear = Ear()
    leave = watch.listen(ear)
    await ear.named()
    for _ in range(3):
        shutil.rmtree(runtime)
        private_dir(runtime)
        with looks_running(runtime, "duo"):
            await ear.named("duo")
        await ear.named()
    leave()


async def test_a_folder_that_cannot_be_had_is_said_and_waited_for(runtime: Path, watch: ClusterWatch) -> None:
    Path.chmod(runtime, 0o755)
    ear = Ear()
    leave = watch.listen(ear)
    problem = await ear.until(lambda told: isinstance(told, EnvironmentProblem))
    assert "is open to other users" in problem.message
    Path.chmod(runtime, 0o700)
    await ear.named()
    with looks_running(runtime, "duo"):
        await ear.named("duo")
    leave()


async def test_nothing_is_watched_while_nobody_listens(runtime: Path, watch: ClusterWatch) -> None:
    before = set(threading.enumerate()), descriptors()
    one, other = Ear(), Ear()
    leave_one = watch.listen(one)
    await one.named()
    leave_other = watch.listen(other)
    await other.named()  # who comes later is told as well
    assert descriptors() == before[1] + 1
    leave_one()
    with looks_running(runtime, "duo"):
        await other.named("duo")
        leave_other()

        def left() -> set[threading.Thread]:
            new = set(threading.enumerate()) - before[0]
            return {thread for thread in new if "orchestrator-lab" not in thread.name}

        # It may be in the midst of waiting for quiet, and ends that first.
        deadline = time.monotonic() + 30
        while descriptors() != before[1] or left():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        again = Ear()
        leave = watch.listen(again)
        await again.named("duo")
        leave()
    assert len(one.told) == 1


def descriptors(pid: int | str = "self") -> int:
    """Count the watches over folders that a process holds."""
    found = 0
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += one.readlink().name == "anon_inode:inotify"
    return found


async def test_where_the_system_has_no_watch_left_the_folder_is_looked_at(
    runtime: Path, watch: ClusterWatch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left() -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("watchdog.observers.Observer", none_left)
    monkeypatch.setattr("orchestrator_lab.folders._POLL_S", 0.1)
    ear = Ear()
    leave = watch.listen(ear)
    await ear.named()
    with looks_running(runtime, "duo"):
        await ear.named("duo")
    await ear.named()
    leave()
    assert "cannot be watched" in caplog.text


# over the websocket -------------------------------------------------------------------------------


def heard(socket: Any, fits: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Read frames until one of the list fits, and return all."""
    frames: list[dict[str, Any]] = []
    while not frames or not (frames[-1]["event"] == "clusters" and fits(frames[-1])):
        frames.append(json.loads(socket.recv()))
    return frames


def test_a_browser_is_told_the_list_and_each_change_of_it(
    door: Door, cluster: Cluster, script_config: Callable[..., dict[str, Any]]
) -> None:
    socket = door.socket()
    connected, first = heard(socket, lambda _: True)
    assert connected["event"] == "connected"
    listed = door.get("api/clusters").json()["clusters"]
    assert first == {"event": "clusters", "cluster": None, "seq": None, "data": listed}
    assert [one["name"] for one in listed] == ["lab"]
    with Cluster.start(script_config("eve", name="second")):
        frames = heard(socket, lambda frame: [one["name"] for one in frame["data"]] == ["lab", "second"])
        assert {frame["event"] for frame in frames} == {"clusters"}
    heard(socket, lambda frame: [one["name"] for one in frame["data"]] == ["lab"])
    assert cluster.status()["status"] == "running"


def test_a_cluster_that_is_killed_as_a_whole_leaves_the_list(
    door: Door, module_runtime: Path, script_config: Callable[..., dict[str, Any]]
) -> None:
    """Nothing is written or removed then: only the ends of its processes tell."""
    Cluster.start(script_config("eve", name="killed")).client.close()
    socket = door.socket()
    heard(socket, lambda frame: "killed" in [one["name"] for one in frame["data"]])
    record = read_record(module_runtime / "killed")
    assert record is not None
    processes = [psutil.Process(pid) for pid in (record.keeper_pid, record.supervisor_pid, record.tmux_pid) if pid]
    assert len(processes) == 3
    processes += [child for process in processes for child in process.children(recursive=True)]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: each of them would start another anew
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    heard(socket, lambda frame: "killed" not in [one["name"] for one in frame["data"]])
    wait_until_gone(module_runtime / "killed")


def test_the_server_watches_while_a_socket_is_open(door: Door, cluster: Cluster) -> None:
    del cluster
    for socket in door.sockets:
        socket.shutdown()
    until(lambda: descriptors(door.process.pid) == 0)
    one, other = door.socket(), door.socket()
    for socket in (one, other):
        heard(socket, lambda _: True)
    assert descriptors(door.process.pid) == 1
    one.shutdown()
    other.shutdown()
    until(lambda: descriptors(door.process.pid) == 0)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
