"""What must not be done twice on a guess is sent once, whatever becomes of its answer."""

from __future__ import annotations

import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab.client import Client
from orchestrator_lab.cluster import Agent, Cluster
from orchestrator_lab.errors import ClusterNotFound, SupervisorLost
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from collections.abc import Callable


def ask(what: str, folder: Path) -> None:
    client = Client(folder, "lab")
    cluster = Cluster(folder, "lab")
    agent = Agent(cluster, "ada")
    match what:
        case "interrupt":
            agent.interrupt()
        case "restart":
            agent.restart()
        case "again":
            cluster.restart()
        case _:
            client.post_once("/agents/ada/keys", {"keys": "x"})


@pytest.mark.parametrize("what", ["keys", "interrupt", "restart", "again"])
def test_a_request_whose_answer_is_lost_is_not_sent_again(what: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="c"))
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "api.sock"))
        listening.listen()

        def hang_up() -> None:
            connection, _ = listening.accept()
            with connection:
                heard.append(connection.recv(65536))

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(SupervisorLost, match="whether it was done is not known"):
            ask(what, folder)
        thread.join(30)
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert len(heard) == 1


def test_where_no_cluster_is_left_nothing_was_done(runtime: Path) -> None:
    with pytest.raises(ClusterNotFound, match="no cluster 'lab' is running here"):
        Client(runtime / "lab", "lab").post_once("/agents/ada/keys", {"keys": "x"})


def test_a_cluster_whose_keeper_and_supervisor_are_dead_is_woken_first(
    runtime: Path, script_config: Callable[..., dict[str, Any]]
) -> None:
    with Cluster.start(script_config("ada")) as cluster:
        record = read_record(runtime / "lab")
        assert record is not None
        dead = [psutil.Process(pid) for pid in (record.keeper_pid, record.supervisor_pid) if pid]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: each would start the other anew
            for process in dead:
                process.send_signal(number)
        psutil.wait_procs(dead, 30)
        client = Client(runtime / "lab", "lab")
        assert client.post_once("/agents/ada/keys", {"keys": "x"}) == {"bytes": 1}
        client.close()
        typed = cluster.run.events_df
        assert (typed["event"] == "agent.keys").sum() == 1
