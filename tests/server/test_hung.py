"""A cluster whose supervisor hangs: calls to it end with a sentence, its files can be read, and others are as ever."""

from __future__ import annotations

import json
import queue
import signal
import threading
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.client import Client
from orchestrator_lab.errors import ExchangeTimeout
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from web_helpers import Door


def supervisor(cluster: Cluster) -> psutil.Process:
    record = read_record(cluster.client.folder)
    assert record is not None
    assert record.supervisor_pid is not None
    return psutil.Process(record.supervisor_pid)


@pytest.fixture(scope="module")
def hung(door: Door, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:
    """A cluster that the server knows, and whose supervisor was stopped."""
    with Cluster.start(script_config("eve", name="hung")) as made:
        made["eve"].ask("before", timeout=30)
        assert door.get("api/clusters/hung/status").status_code == 200
        process = supervisor(made)
        process.send_signal(signal.SIGSTOP)
        try:
            yield made
        finally:
            process.send_signal(signal.SIGCONT)


def test_a_turn_that_does_not_come_is_said_and_files_are_read_all_the_same(door: Door, hung: Cluster) -> None:
    answers: queue.SimpleQueue[httpx.Response] = queue.SimpleQueue()

    def act() -> None:
        answers.put(door.post(f"api/clusters/{hung.name}/agents/eve/interrupt", timeout=60))

    # One more than may wait: that it is refused tells that the others do.
    actors = [threading.Thread(target=act) for _ in range(9)]
    for actor in actors:
        actor.start()
    refused = answers.get(timeout=30)
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "SupervisorLost")
    assert "8 calls wait for the supervisor of cluster 'hung'" in refused.json()["error"]["message"]
    for path in ("events", "tables/turns", "tables/states", "logs"):
        assert door.get(f"api/clusters/hung/{path}").status_code == 200
    assert answers.empty()
    supervisor(hung).send_signal(signal.SIGCONT)
    assert [answers.get(timeout=60).status_code for _ in range(8)] == [200] * 8
    supervisor(hung).send_signal(signal.SIGSTOP)
    for actor in actors:
        actor.join(60)


@pytest.mark.usefixtures("hung")
def test_its_figures_hold_up_nothing_that_is_told_of_other_clusters(door: Door, cluster: Cluster) -> None:
    socket = door.socket()
    socket.send(json.dumps({"op": "subscribe", "cluster": "hung", "events": ["metrics"]}))
    socket.send(json.dumps({"op": "subscribe", "cluster": "lab", "events": ["message"]}))
    socket.send(json.dumps({"op": "get_status", "cluster": "lab"}))  # answered once that is done
    while (frame := json.loads(socket.recv()))["event"] != "status":
        pass
    cluster["ada"].send("as ever")
    while frame["event"] != "message" or frame["data"]["event"] != "message.answered":
        frame = json.loads(socket.recv())


def test_its_requests_hold_up_no_other_clusters(door: Door, cluster: Cluster, hung: Cluster) -> None:
    socket = door.socket()
    for name, number in (("hung", 1), ("lab", 2), ("hung", 3), ("lab", 4)):
        socket.send(json.dumps({"op": "get_status", "cluster": name}))
        # In a cluster's lane too: what is asked next comes after it.
        socket.send(json.dumps({"op": "repaint", "cluster": name, "agent": f"number-{number}"}))

    def told(cluster: str, count: int) -> list[str]:
        found = []
        while len(found) < count:
            frame = json.loads(socket.recv())
            if frame["event"] not in {"connected", "clusters"}:
                assert frame["cluster"] == cluster
                found.append(frame["event"])
        return found

    assert told(cluster.name, 4) == ["status", "error"] * 2
    supervisor(hung).send_signal(signal.SIGCONT)
    assert told(hung.name, 4) == ["status", "error"] * 2
    supervisor(hung).send_signal(signal.SIGSTOP)


def test_more_requests_than_may_wait_are_refused_with_a_sentence(door: Door, hung: Cluster) -> None:
    socket = door.socket()
    for _ in range(40):
        socket.send(json.dumps({"op": "get_status", "cluster": hung.name}))
    refused = []
    while len(refused) < 7:  # one is under way, 32 wait
        frame = json.loads(socket.recv())
        if frame["event"] not in {"connected", "clusters"}:
            refused.append((frame["event"], frame["cluster"], frame["data"]["type"]))
    assert refused == [("error", "hung", "SupervisorLost")] * 7
    assert "'get_status' was not done" in frame["data"]["message"]


def test_a_call_without_a_timeout_of_its_own_is_given_up(hung: Cluster) -> None:
    client = Client(hung.client.folder, hung.name)
    client.patience_s = 0.3
    with pytest.raises(ExchangeTimeout, match=r"no answer to /restart within 0\.3 s"):
        client.post("/restart")
    client.close()
