"""The routes that agents reach over TCP: whoever has no secret gets nothing, and no secret leaves its place."""

from __future__ import annotations

import io
import json
import os
import secrets as random
import stat
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import zstandard
from lab_helpers import address, bearer, folder, kept, rows

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = f"sk-test-{random.token_hex(16)}"


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    os.environ["SOME_PROVIDER_API_KEY"] = KEY
    try:
        # bob is a shell: whatever is in its environment can be printed.
        shell = {
            "kind": "program",
            "command": ["/bin/bash", "--norc", "--noprofile"],
            "env": {"PS1": "sh> "},
            "turn_end": {"prompt": "^sh> $"},
        }
        with Cluster.start(script_config("ada", agents={"bob": shell}, name="loop")) as started:
            yield started
    finally:
        del os.environ["SOME_PROVIDER_API_KEY"]


def hook(cluster: Cluster, body: Any, **more: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = more.pop("headers", bearer(cluster, "ada"))
    return httpx.post(f"{address(cluster)}/hooks", content=content, headers=headers, timeout=60, **more)


ROUTES = [
    ("POST", "/hooks"),
    ("POST", "/agent/messages"),
    ("GET", "/agent/messages"),
    ("GET", "/agent/agents"),
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("secret", [None, "Bearer wrong", "Basic YWRhOmFkYQ==", "Bearer \xff\xfe"])
def test_every_route_asks_for_a_secret(cluster: Cluster, method: str, path: str, secret: str | None) -> None:
    headers = {} if secret is None else {"authorization": secret.encode("latin-1")}
    answer = httpx.request(
        method, address(cluster) + path, headers=headers, content=b"{}" if method == "POST" else None
    )
    assert answer.status_code == 403
    assert answer.json() == {"error": "this secret belongs to no agent of the cluster"}


@pytest.mark.parametrize(
    "path", ["/status", "/shutdown", "/agents/ada/stop", "/events", "/hello", "/", "/gateway", "/x/y"]
)
def test_no_administration_here(cluster: Cluster, path: str) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(method, address(cluster) + path, headers=bearer(cluster, "ada"))
        assert answer.status_code in {403, 404, 405}, (method, path, answer.text)


def test_the_gateway_is_an_unguessable_path(cluster: Cluster) -> None:
    secret = kept(cluster, "ada")["gateway_secret"]
    assert len(secret) >= 32
    assert secret != kept(cluster, "ada")["token"] != kept(cluster, "bob")["token"]
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    right = httpx.post(f"{address(cluster)}/gateway/{secret}/v1/messages", json=body)
    assert right.status_code == 200
    for guess in ("ada", secret[:-1], secret + "a", kept(cluster, "ada")["token"], "..", "%2e%2e/hooks"):
        wrong = httpx.post(f"{address(cluster)}/gateway/{guess}/v1/messages", json=body, headers=bearer(cluster, "ada"))
        assert wrong.status_code in {401, 403, 404}, guess
        assert "ada: hi" not in wrong.text


def test_no_page_of_a_browser_gets_in(cluster: Cluster) -> None:
    """A preflight gets no permission, whatever the page or the name by which it found us."""
    secret = kept(cluster, "ada")["gateway_secret"]
    asks = {
        "origin": "https://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    for path in ("/hooks", "/agent/messages", "/mcp", f"/gateway/{secret}/v1/messages"):
        for host in ({}, {"host": "evil.example"}):
            answer = httpx.options(address(cluster) + path, headers={**asks, **host})
            allowed = [name for name in answer.headers if name.startswith("access-control-")]
            assert allowed == [], path
    # A name that was made to point here is not the agents' own address.
    rebound = httpx.post(
        f"{address(cluster)}/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        headers={**bearer(cluster, "ada"), "host": "evil.example", "accept": "application/json, text/event-stream"},
    )
    assert rebound.status_code in {403, 421}


def test_it_listens_on_the_loopback_only(cluster: Cluster) -> None:
    port = int(address(cluster).rsplit(":", 1)[1])
    record = json.loads((folder(cluster) / "cluster.json").read_text())
    listening = [
        one.laddr
        for pid in (record["keeper_pid"], record["supervisor_pid"])
        for one in psutil.Process(pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {(one.ip, one.port) for one in listening} == {("127.0.0.1", port)}


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[1, 2]", b'"text"', b"null", b"\xff\xfe\x00", b'{"a": ', b"[" * 100_000],
)
def test_hooks_that_are_no_object(cluster: Cluster, body: bytes) -> None:
    answer = hook(cluster, body)
    assert answer.status_code == 400
    assert answer.json() == {"error": "the body is one JSON object"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"hook_event_name": "NeverHeardOf", "x": [1, {"y": None}]},
        {"hook_event_name": 7},
        {"hook_event_name": ["Stop"]},
        {"hook_event_name": "Stop"},
        {"hook_event_name": "StopFailure", "error": {"a": 1}, "usage": "many"},
        {"hook_event_name": "Stop", "usage": {"input_tokens": "x"}, "last_assistant_message": ["?"]},
        {"hook_event_name": "SessionEnd", "reason": None},
        {"hook_event_name": "Notification", "message": 5},
    ],
)
def test_hooks_that_make_no_sense(cluster: Cluster, body: dict[str, Any]) -> None:
    """They are taken and lead to nothing; the agent goes on."""
    turns = len(cluster.run.turns)
    assert hook(cluster, body).status_code == 200
    assert len(cluster.run.turns) == turns
    assert cluster["ada"].state == "idle"


def test_huge_hooks(cluster: Cluster) -> None:
    large = hook(cluster, {"hook_event_name": "NeverHeardOf", "output": "x" * (16 << 20)})
    assert large.status_code == 200
    assert cluster["ada"].ask("still there?", timeout=30).reply == "ada: still there?"
    answer = hook(cluster, b'{"x": "' + b"x" * (65 << 20) + b'"}')
    assert answer.status_code == 413
    assert answer.json() == {"error": "a body of more than 64 MiB is not taken"}
    # Without a secret nothing of a body is read.
    assert hook(cluster, b"x" * (8 << 20), headers={}).status_code == 403


def test_a_repeated_hook_counts_once(cluster: Cluster) -> None:
    """A program repeats a hook whose answer was lost, under the same id."""
    messages = len(rows(cluster, recipient="ada"))
    session = cluster["ada"].facts["session_id"]
    typed = {"hook_event_name": "UserPromptSubmit", "prompt": "typed by hand", "session_id": session, "hook_id": "h-1"}
    for _ in range(3):
        assert hook(cluster, typed).status_code == 200
    stop = {"hook_event_name": "Stop", "last_assistant_message": "done", "session_id": session, "hook_id": "h-2"}
    for _ in range(2):
        assert hook(cluster, stop).status_code == 200
    found = rows(cluster, recipient="ada")
    assert len(found) == messages + 1
    assert (found[-1]["content"], found[-1]["source"], found[-1]["status"]) == ("typed by hand", "human", "answered")
    turns = cluster.run.turns
    assert list(turns[turns["turn_id"] == found[-1]["turn_id"]]["reply"]) == ["done"]


@pytest.mark.parametrize(
    "body",
    [{}, {"to": "bob"}, {"text": "x"}, {"to": ["bob"], "text": "x"}, {"to": "bob", "text": 5},
     {"to": "bob", "text": "x", "in_reply_to": {"a": 1}}],
)  # fmt: skip
def test_wrong_messages_from_a_pane(cluster: Cluster, body: dict[str, Any]) -> None:
    answer = httpx.post(f"{address(cluster)}/agent/messages", json=body, headers=bearer(cluster, "ada"))
    assert answer.status_code == 400
    assert "'to' and 'text'" in answer.json()["error"]


def test_a_repeated_message_from_a_pane_is_one(cluster: Cluster) -> None:
    def post(name: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{address(cluster)}/agent/messages", json=body, headers=bearer(cluster, name))

    message = {"to": "ada", "text": "echo once", "message_id": new_id("msg_")}
    first, second = post("bob", **message), post("bob", **message)
    assert first.json()["messages"][0]["message_id"] == second.json()["messages"][0]["message_id"]
    assert [event.event for event in cluster.events() if event.message_id == message["message_id"]].count(
        "message.queued"
    ) == 1
    # Nobody reads another's message by guessing its id.
    stolen = post("ada", **{**message, "to": "bob"})
    assert (stolen.status_code, "another message has the id" in stolen.text) == (409, True)
    wrong = post("bob", **{**message, "message_id": "../x"})
    assert (wrong.status_code, "is no id of a message" in wrong.text) == (409, True)
    cluster.wait("ada", timeout=30)


def test_reading_from_a_pane(cluster: Cluster) -> None:
    agents = httpx.get(f"{address(cluster)}/agent/agents", headers=bearer(cluster, "bob")).json()
    assert agents["you"] == "bob"
    assert [one["name"] for one in agents["agents"]] == ["ada", "bob"]
    answer = httpx.get(f"{address(cluster)}/agent/messages?since=msg_x", headers=bearer(cluster, "bob"))
    assert answer.status_code == 409
    assert "there is no message 'msg_x'" in answer.json()["error"]["message"]


def test_no_secret_on_a_command_line(cluster: Cluster) -> None:
    secrets = [kept(cluster, name)[kind] for name in ("ada", "bob") for kind in ("token", "gateway_secret")] + [KEY]
    seen = 0
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        seen += "orchestrator_lab" in words
        assert not any(secret in words for secret in secrets), words
    assert seen >= 3


def test_private_files(cluster: Cluster) -> None:
    for root in (folder(cluster), cluster.run_dir):
        for path in root.rglob("*"):
            try:
                mode = stat.S_IMODE(path.lstat().st_mode)
            except FileNotFoundError:  # a file that was about to get its name
                continue
            assert mode == 0o700 if path.is_dir() else not mode & 0o077, (path, oct(mode))


def test_no_secret_in_a_run(cluster: Cluster) -> None:
    """An agent prints every secret that it has; nothing that a run keeps holds one. Ends the cluster."""
    token, gateway = kept(cluster, "bob")["token"], kept(cluster, "ada")["gateway_secret"]
    shown = cluster["bob"].ask("echo $ORCHESTRATOR_LAB_AGENT_TOKEN; echo ${SOME_PROVIDER_API_KEY}", timeout=30)
    assert shown.reply is not None
    cluster["ada"].ask(f"the key is {KEY}, the path {gateway}, the token {token}", timeout=30)
    cluster.broadcast("to all")
    cluster.wait(timeout=30)
    run_dir = cluster.shutdown()
    secrets = {"token": token, "gateway": gateway, "key": KEY}
    checked = 0
    for path in run_dir.rglob("*"):
        if path.is_dir():
            continue
        data = path.read_bytes()
        if path.suffix == ".zst":
            lines = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
            # A secret may also be cut in two by the reads of which a recording is made.
            data = lines
            if path.name.endswith(".cast.zst"):
                data += b"".join(str(json.loads(line)[2]).encode() for line in lines.splitlines()[1:])
        checked += 1
        for kind, secret in secrets.items():
            assert secret.encode() not in data, (kind, path)
    assert checked >= 6
    assert len(open_run(run_dir).messages) >= 4
