"""What must not be done twice on a guess is sent once, whatever becomes of its answer."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path

import pytest

from orchestrator_lab.client import Client
from orchestrator_lab.cluster import Agent, Cluster
from orchestrator_lab.errors import SupervisorLost


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
        thread.join(10)
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert len(heard) == 1


def test_where_nobody_listens_nothing_was_done() -> None:
    folder = Path(tempfile.mkdtemp(prefix="c"))
    with pytest.raises(SupervisorLost, match="nothing was done"):
        Client(folder, "lab").post_once("/agents/ada/keys", {"keys": "x"})
