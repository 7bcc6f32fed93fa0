"""The supervisor's API on its unix socket: every route, wrong requests, streams, waiting, and who may connect."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from lab_helpers import folder, rows

from orchestrator_lab import Cluster
from orchestrator_lab.errors import ConfigError, ExchangeTimeout
from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCRIPT = [{"when": {"contains": "never"}, "delay_s": 600, "reply": "at last"}, {"reply": "{agent}: {text}"}]


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    with Cluster.start(script_config("ada", "bob", script=SCRIPT, name="api")) as started:
        yield started


@pytest.fixture(scope="module")
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(folder(cluster) / "api.sock"))
    with httpx.Client(transport=transport, base_url="http://supervisor", timeout=30) as client:
        yield client


def test_what_can_be_read(cluster: Cluster, http: httpx.Client) -> None:
    hello = http.get("/hello").json()
    assert (hello["name"], hello["protocol"]) == ("api", 1)
    status = http.get("/status").json()
    assert [agent["name"] for agent in status["agents"]] == ["ada", "bob"]
    assert status["status"] == "running"
    assert http.get("/ready").json()["run_id"] == status["run_id"]
    assert http.get("/wait", params={"agents": "ada", "timeout": 20}).status_code == 200
    assert "Write a message" in http.get("/agents/ada/screen").json()["screen"]
    assert http.get("/attach").json()["argv"][0].endswith("tmux")
    assert cluster["bob"].facts["pane_id"] in " ".join(http.get("/agents/bob/attach").json()["argv"])


@pytest.mark.parametrize(
    ("method", "path", "body", "why"),
    [
        ("POST", "/messages", {}, "a message needs 'text', a string"),
        ("POST", "/messages", {"text": 5, "to": "ada"}, "a message needs 'text', a string"),
        ("POST", "/messages", {"text": "x"}, "a message needs 'to'"),
        ("POST", "/messages", {"text": "x", "to": []}, "a message needs 'to'"),
        ("POST", "/messages", {"text": "x", "to": {"a": 1}}, "a message needs 'to'"),
        ("POST", "/messages", {"text": "x", "to": ["ada", "zoe"]}, "no agent 'zoe' in cluster 'api'; it has: ada, bob"),
        ("POST", "/messages", {"text": "x", "to": "user"}, "no agent 'user'"),
        ("POST", "/messages", {"text": " ", "to": "ada"}, "an empty message cannot be typed"),
        ("POST", "/messages", {"text": "x", "to": "ada", "when": "later"}, "when='later' is not known"),
        ("POST", "/messages", {"text": "x", "to": "ada", "in_reply_to": "msg_x"}, "there is no message 'msg_x'"),
        ("POST", "/messages", {"text": "x", "to": "ada", "in_reply_to": ["x"]}, "in_reply_to"),
        ("POST", "/messages", {"text": "x", "to": "ada", "expires_s": "soon"}, "expires_s"),
        ("POST", "/messages", {"text": "x", "to": "ada", "expires_s": -1}, "expires_s"),
        ("POST", "/messages", {"text": "x", "to": "ada", "message_ids": ["a", "b"]}, "message_ids"),
        ("POST", "/messages", {"text": "x", "to": "ada", "message_ids": 3}, "message_ids"),
        ("POST", "/messages", ["ada"], "a request's body is one JSON object"),
        ("POST", "/messages", b"{no json", "not JSON"),
        ("POST", "/messages", b"\xff", "not JSON"),
        ("GET", "/messages/msg_x", None, "there is no message 'msg_x' in this run"),
        ("GET", "/messages/msg_x?until=final&timeout=x", None, "msg_x"),
        ("GET", "/wait?timeout=soon", None, "timeout"),
        ("GET", "/wait?agents=zoe", None, "no agent 'zoe'"),
        ("GET", "/events?since=first", None, "since"),
        ("GET", "/conversations/cnv_x", None, "there is no conversation 'cnv_x'"),
        ("POST", "/conversations", {}, "a conversation needs"),
        ("POST", "/conversations", {"agents": "ada", "opening": "x"}, "a list of names"),
        ("POST", "/conversations", {"agents": ["ada", "bob"], "opening": 5}, "'opening'"),
        ("POST", "/conversations", {"agents": ["ada", "bob"], "opening": "x", "rounds": "many"}, "'rounds'"),
        ("POST", "/agents", {}, "agents: "),
        ("POST", "/agents", {"agents": [{"name": "ada", "kind": "chat"}]}, "has an agent 'ada' already"),
        ("POST", "/agents", {"agents": [{"name": "z z", "kind": "chat"}]}, "agents.0"),
        ("POST", "/agents", {"agents": [{"name": "zed", "kind": "unheard"}]}, "agents.0"),
        ("DELETE", "/agents/zoe", None, "no agent 'zoe'"),
        ("GET", "/agents/zoe/screen", None, "no agent 'zoe'"),
        ("GET", "/agents/ada/screen?history=all", None, "history"),
        ("GET", "/agents/zoe/attach", None, "no agent 'zoe'"),
        ("POST", "/agents/zoe/interrupt", {}, "no agent 'zoe'"),
        ("POST", "/agents/zoe/restart", {}, "no agent 'zoe'"),
        ("POST", "/agents/zoe/stop", {}, "no agent 'zoe'"),
        ("POST", "/shutdown", {"status": "great"}, "status='great' is not known"),
    ],
)
def test_wrong_requests_get_one_sentence(
    cluster: Cluster, http: httpx.Client, method: str, path: str, body: Any, why: str
) -> None:
    before = len(rows(cluster))
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    answer = http.request(method, path, content=content)
    assert answer.status_code in {409, 422}, answer.text
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "details"}
    assert why in error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in answer.text
    assert len(rows(cluster)) == before


def test_unknown_routes(http: httpx.Client) -> None:
    assert http.get("/nothing").status_code == 404
    assert http.put("/messages", json={}).status_code == 405
    for path in ("/hooks", "/mcp", "/gateway/x/v1/messages", "/agent/messages"):
        assert http.post(path, json={}).status_code == 404


def test_a_repeated_request_sends_once(cluster: Cluster, http: httpx.Client) -> None:
    body = {"to": "ada", "text": "once", "message_ids": [new_id("msg_")]}
    first, second = (http.post("/messages", json=body).json()["messages"][0] for _ in range(2))
    assert first["message_id"] == second["message_id"] == body["message_ids"][0]
    cluster.wait(timeout=30)
    assert len(rows(cluster, content="once")) == 1


def test_waiting_for_a_rung(cluster: Cluster, http: httpx.Client) -> None:
    sent = http.post("/messages", json={"to": "ada", "text": "never"}).json()["messages"][0]
    path = f"/messages/{sent['message_id']}"
    accepted = http.get(path, params={"until": "accepted", "timeout": 20}).json()
    assert accepted["status"] in {"accepted", "started"}
    short = http.get(path, params={"until": "final", "timeout": 0.1}).json()
    assert short["status"] in {"accepted", "started"}
    with pytest.raises(ExchangeTimeout, match=r"ada has not answered within 0\.01 s"):
        cluster["ada"].send("behind it").result(0.01)
    with pytest.raises(ExchangeTimeout, match="not all agents are idle"):
        cluster.wait("ada", timeout=0.01)
    cluster["ada"].interrupt()
    assert http.get(path, params={"until": "final", "timeout": 20}).json()["error_type"] == "turn_interrupted"
    cluster.wait(timeout=30)
    (row,) = rows(cluster, content="behind it")
    path = f"/messages/{row['message_id']}"
    assert http.get(path, params={"until": "final", "timeout": 20}).json()["reply"] == "ada: behind it"


def test_the_stream_of_events(cluster: Cluster, http: httpx.Client) -> None:
    """From a number on, without a gap and in order, and then as they come."""
    last = cluster.events()[-1].seq
    since = last - 5
    got: list[dict[str, Any]] = []
    with http.stream("GET", "/events", params={"since": since}) as reply:
        lines = (line for line in reply.iter_lines() if line.strip())
        got += [json.loads(next(lines)) for _ in range(5)]
        exchange = cluster["bob"].send("stream this")
        got.append(json.loads(next(lines)))
        while (got[-1]["event"], got[-1].get("agent")) != ("turn.ended", "bob"):
            got.append(json.loads(next(lines)))
    assert [event["seq"] for event in got] == list(range(since + 1, since + 1 + len(got)))
    ours = [event["event"] for event in got if event.get("message_id") == exchange.message_id]
    assert ours[0] == "message.queued"
    assert exchange.result(20) == "bob: stream this"
    journal = {event.seq: event.event for event in cluster.events()}
    assert all(journal[event["seq"]] == event["event"] for event in got)


def test_two_clients_at_once(cluster: Cluster) -> None:
    """Two notebooks send, wait and read at the same time; every message is answered once, in each one's own order."""
    clients = [Cluster.attach("api"), Cluster.attach("api")]
    barrier = threading.Barrier(2)

    def work(number: int) -> list[str]:
        barrier.wait()
        return [
            clients[number].ask("ada" if at % 2 else "bob", f"{number}.{at}", timeout=60).reply or "" for at in range(6)
        ]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, range(2)))
    for number, replies in enumerate(results):
        assert replies == [f"{'ada' if at % 2 else 'bob'}: {number}.{at}" for at in range(6)]
    assert len({row["turn_id"] for row in rows(cluster) if row["content"][:2] in {"0.", "1."}}) == 12


def test_only_its_user_reaches_the_socket(cluster: Cluster) -> None:
    place = folder(cluster)
    for path in (place.parent, place):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("api.sock", "keeper.sock"):
        info = (place / name).stat()
        assert stat.S_ISSOCK(info.st_mode)
        assert info.st_uid == os.getuid()
        assert not stat.S_IMODE(info.st_mode) & 0o077
    if os.getuid() != 0:
        pytest.skip("only root can try it as somebody else")
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError:\n"
        "    sys.exit(13)\n"
    )
    for name in ("api.sock", "keeper.sock", "tmux.sock"):
        stranger = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, str(place / name)], check=False, timeout=30
        )
        assert stranger.returncode == 13, name


def test_agents_join_and_leave(cluster: Cluster, http: httpx.Client) -> None:
    """What is still queued for one that leaves is failed, not forgotten."""
    gateway = {"mode": "script", "script": SCRIPT}
    made = http.post("/agents", json={"agents": [{"name": "cy", "kind": "chat", "gateway": gateway}]})
    assert made.json()["agents"][0]["state"] == "idle"
    busy = Cluster.attach("api")["cy"].send("never")
    queued = Cluster.attach("api")["cy"].send("never typed")
    assert http.delete("/agents/cy").status_code == 200
    assert [agent["name"] for agent in http.get("/status").json()["agents"]] == ["ada", "bob"]
    assert rows(cluster, message_id=busy.message_id)[0]["status"] == "failed"
    (row,) = rows(cluster, message_id=queued.message_id)
    assert (row["status"], row["error_type"]) == ("failed", "removed")
    with pytest.raises(ConfigError):
        cluster.send("ada", 5)  # type: ignore[arg-type]
