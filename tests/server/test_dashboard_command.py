"""The dashboard's server: how it is started, who may what, what it does when a supervisor is away or hangs."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import websocket
from web_helpers import deeds, served

import orchestrator_lab
from orchestrator_lab.runtime import read_record
from orchestrator_lab.server.clusters import _THREADS_EACH, _TURN_S
from orchestrator_lab.server.page import what_is_missing

if TYPE_CHECKING:
    from web_helpers import Door

    from orchestrator_lab import Cluster

ROOT = Path(orchestrator_lab.__file__).parents[1]

# how it is started --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--certfile", "none.pem"], "PEM"),
        (["--keyfile", __file__], "--certfile"),
        (["everything"], "no option"),
        (["--port", "99999"], "--port"),
    ],
)
def test_a_wrong_option_is_said_before_anything_is_served(argv: list[str], word: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator_lab", "dashboard", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_page_that_was_not_built_is_said_to_be_missing(tmp_path: Path) -> None:
    said = what_is_missing(tmp_path)
    assert said is not None
    assert str(tmp_path / "index.html") in said
    (tmp_path / "index.html").touch()
    assert what_is_missing(tmp_path) is None


def test_jupyter_finds_the_extension_by_itself() -> None:
    place = ROOT / "extensions" / "jupyter-config" / "jupyter_server_config.d" / "orchestrator_lab.json"
    config = json.loads(place.read_text(encoding="utf-8"))
    (module,) = config["ServerApp"]["jpserver_extensions"]
    (point,) = importlib.import_module(module)._jupyter_server_extension_points()
    assert point["app"].name == "orchestrator_lab"
    shipped = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{place.parent.relative_to(ROOT)}" = "etc/jupyter/jupyter_server_config.d"' in shipped


def test_any_jupyter_server_may_serve_it(module_runtime: Path, cluster: Cluster) -> None:
    del module_runtime
    command = ("jupyter_server", "--no-browser", "--port=0")
    extensions = "--ServerApp.jpserver_extensions={'orchestrator_lab.server': True, 'jupyter_server_terminals': True}"
    with served(extensions, command=command) as door:
        assert door.get("api/clusters/lab/status").json()["run_id"] == cluster.run_id
        assert httpx.get(f"{door.url}/base/api/contents", headers=door.authorization).status_code == 200
        assert door.get("api/clusters", headers={"Authorization": ""}).status_code == 403


# who may what -------------------------------------------------------------------------------------

_RULES = """
from jupyter_server.auth import Authorizer

class Watchers(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return action == "read" or resource not in {"orchestrator_lab", "terminals"}

class NoTerminals(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return resource != "terminals"

class Nobody(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return False
"""


@pytest.fixture
def rules(tmp_path: Path) -> str:
    (tmp_path / "lab_rules.py").write_text(_RULES, encoding="utf-8")
    return str(tmp_path)


def test_whoever_may_only_look_does_nothing(cluster: Cluster, rules: str) -> None:
    with served("--ServerApp.authorizer_class=lab_rules.Watchers", PYTHONPATH=rules) as door:
        assert door.get("api/clusters/lab/status").status_code == 200
        before = deeds(cluster)
        for path in ("stop", "messages", "monitoring/stop", "agents/ada/terminal", "agents/ada/keys"):
            assert door.post(f"api/clusters/lab/{path}", {}).status_code == 403
        assert deeds(cluster) == before
        assert json.loads(door.socket().recv())["event"] == "connected"


def test_terminals_need_their_own_right(cluster: Cluster, rules: str) -> None:
    del cluster
    with served("--ServerApp.authorizer_class=lab_rules.NoTerminals", PYTHONPATH=rules) as door:
        assert door.post("api/clusters/lab/messages", {"to": "ada", "text": "x"}).status_code == 200
        assert door.post("api/clusters/lab/agents/ada/terminal", {}).status_code == 403


def test_whoever_may_nothing_gets_nothing(cluster: Cluster, rules: str) -> None:
    del cluster
    with served("--ServerApp.authorizer_class=lab_rules.Nobody", PYTHONPATH=rules) as door:
        for path in ("", "api/clusters", "api/openapi.json", "metrics", "static/x.js"):
            assert door.get(path).status_code == 403
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            door.socket()
        assert refused.value.status_code == 403


# supervisors that are away ------------------------------------------------------------------------


def supervisor(cluster: Cluster) -> psutil.Process:
    record = read_record(Path(os.environ["ORCHESTRATOR_RUNTIME_DIR"]) / cluster.name)
    assert record is not None
    assert record.supervisor_pid is not None
    return psutil.Process(record.supervisor_pid)


def test_a_supervisor_that_hangs_does_not_hold_up_the_server(door: Door, cluster: Cluster) -> None:
    hung = supervisor(cluster)
    answers: list[tuple[int, float]] = []

    def ask() -> None:
        asked = time.monotonic()
        status = door.get("api/clusters/lab/status", timeout=60).status_code
        answers.append((status, time.monotonic() - asked))

    askers = [threading.Thread(target=ask) for _ in range(20)]
    hung.send_signal(signal.SIGSTOP)
    try:
        for asker in askers:
            asker.start()
        assert door.get("api/clusters").status_code == 200
        assert door.get("api/openapi.json").status_code == 200
        assert 200 not in [status for status, _ in answers]  # it hung all the while
    finally:
        hung.send_signal(signal.SIGCONT)
    for asker in askers:
        asker.join(60)
    assert len(answers) == 20
    assert [status for status, _ in answers].count(200) >= _THREADS_EACH
    # Whoever waited that long for a turn is refused: on a slow machine it may be so.
    assert all(status == 200 or (status == 503 and took_s >= _TURN_S) for status, took_s in answers), answers


def test_a_socket_outlives_the_supervisor(door: Door, cluster: Cluster) -> None:
    socket = door.socket()
    socket.send(json.dumps({"op": "subscribe", "cluster": "lab", "events": ["message", "status"]}))
    frames: list[dict[str, Any]] = []

    def until(text: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            frames.append(json.loads(socket.recv()))
            data = frames[-1]["data"]
            if (
                frames[-1]["event"] == "message"
                and data["event"] == "message.answered"
                and data["message"]["content"] == text
            ):
                return
        raise AssertionError(f"{text!r} was not told")

    # What happens before it listens is not told: its first status says that it does.
    while not frames or frames[-1]["event"] != "status":
        frames.append(json.loads(socket.recv()))
    cluster["ada"].send("before")
    until("before")
    supervisor(cluster).kill()
    cluster["ada"].send("behind")
    until("behind")
    seqs = [frame["seq"] for frame in frames if frame["seq"] is not None]
    assert seqs == sorted(set(seqs))
    # Events are told before the newest status: it may be behind them that nobody is away any more.
    while [frame for frame in frames if frame["event"] == "status"][-1]["data"].get("gap") is not None:
        frames.append(json.loads(socket.recv()))
    # A pause that somebody made outlives it, too.
    assert door.post("api/clusters/lab/monitoring/stop").json() == {"monitoring": "paused"}
    supervisor(cluster).kill()
    assert door.get("api/clusters/lab/status").json()["monitoring"] == "paused"
    assert door.post("api/clusters/lab/monitoring/start").json() == {"monitoring": "on"}
