"""Terminals at panes: whom they are shared by, what they show when the agent is gone, and how they end."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_server_terminals.terminalmanager import TerminalManager
from web_helpers import attributes

from orchestrator_lab.acting import Actor
from orchestrator_lab.server import models
from orchestrator_lab.server.asked import Asked
from orchestrator_lab.server.clusters import Clusters
from orchestrator_lab.server.terminals import open_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import websocket
    from web_helpers import Door

    from orchestrator_lab import Cluster

CAT = {"kind": "program", "command": ["cat"], "turn_end": {"quiet_s": 1.0}}


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def tmux(cluster: Cluster, *command: str) -> list[str]:
    socket = str(cluster.client.folder / "tmux.sock")
    done = subprocess.run(["tmux", "-S", socket, *command], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


class Screen:
    """What a terminal's page reads, and types."""

    def __init__(self, door: Door, name: str) -> None:
        import websocket

        self.socket: websocket.WebSocket = websocket.create_connection(
            f"{door.url.replace('http', 'ws')}/base/terminals/websocket/{name}", header=door.authorization, timeout=30
        )
        door.sockets.append(self.socket)
        self.socket.send(json.dumps(["set_size", 40, 120, 800, 1200]))
        self.seen = ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.seen!r}"
            kind, *data = json.loads(self.socket.recv())
            self.seen += data[0] if kind == "stdout" else ""

    def type(self, text: str) -> None:
        self.socket.send(json.dumps(["stdin", text]))


def opened(door: Door, agent: str, **body: Any) -> str:
    return str(door.post(f"api/clusters/lab/agents/{agent}/terminal", body).json()["name"])


def test_a_terminal_whose_agent_is_removed_says_so_and_keys_reach_no_other(door: Door, cluster: Cluster) -> None:
    cluster.add({"name": "eve", **CAT})
    screens = [Screen(door, opened(door, "eve", take_over=flag)) for flag in (True, False)]
    screens[0].type("heard\r")
    for screen in screens:
        screen.until("heard")
    cluster.remove("eve")
    for screen in screens:
        screen.until("agent eve is gone")
        screen.type("to nobody\r")
    assert [one["name"] for one in cluster.status()["agents"]] == ["ada", "bob"]
    # Another agent of that name has another pane, and whoever watches it gets another terminal.
    cluster.add({"name": "eve", **CAT})
    again = Screen(door, opened(door, "eve"))
    Screen(door, opened(door, "eve", take_over=True)).type("anew\r")
    again.until("anew")
    cluster.remove("eve")
    for name in ("ada", "bob"):
        assert "to nobody" not in cluster[name].screen().text


def terminals(door: Door) -> list[str]:
    with door.client() as client:
        return [one["name"] for one in client.get(f"{door.url}/base/api/terminals").json()]


def test_an_agent_without_a_pane_gets_no_terminal(door: Door, cluster: Cluster) -> None:
    cluster.add({"name": "eve", **CAT})
    tmux(cluster, "kill-pane", "-t", cluster["eve"].facts["pane_id"])
    before = terminals(door)
    for flag in (False, True):
        refused = door.post("api/clusters/lab/agents/eve/terminal", {"take_over": flag})
        assert refused.status_code == 409
        assert refused.json()["error"] == {
            "type": "ClusterStopped",
            "message": "cluster 'lab': agent 'eve' has no pane to attach to: restart it first",
            "details": {"cluster": "lab", "agent": "eve"},
        }
    assert set(terminals(door)) <= set(before)  # those of agents that are gone may end at any time
    assert attributes(cluster, "attach")[-1]["agent"] == "eve"
    cluster.remove("eve")


# in this process ----------------------------------------------------------------------------------


@pytest.fixture
async def asked(cluster: Cluster) -> AsyncIterator[Asked]:
    manager = TerminalManager(shell_command=["sh"])
    clusters = Clusters()
    yield Asked(
        clusters,
        Actor("someone", "127.0.0.1"),
        Path("/"),
        {"cluster": cluster.name, "agent": "ada"},
        body=models.TerminalRequest(take_over=False),
        terminals=manager,
    )
    await manager.terminate_all()
    clusters.close()


async def test_one_terminal_is_enough_for_all_who_watch_until_somebody_closes_it(asked: Asked) -> None:
    assert asked.terminals is not None
    names = []
    for _ in range(3):
        first, second = [(await open_terminal(asked))["name"] for _ in range(2)]
        assert first == second
        names.append(first)
        await asked.terminals.terminate(first, force=True)
    await open_terminal(asked)
    assert len(asked.clusters.terminals) == 1, names


async def test_the_terminals_end_with_the_server(asked: Asked, cluster: Cluster) -> None:
    assert asked.terminals is not None
    own = asked.terminals.create(name="own", shell_command=["cat"])
    sessions = ("list-sessions", "-F", "#{session_id}")  # those of earlier terminals may end at any time
    before = set(tmux(cluster, *sessions))
    await open_terminal(asked)
    until(lambda: set(tmux(cluster, *sessions)) - before)
    (made,) = set(tmux(cluster, *sessions)) - before
    await asked.clusters.terminals.close(asked.terminals)
    assert list(asked.terminals.terminals) == [own["name"]]
    until(lambda: made not in tmux(cluster, *sessions))
