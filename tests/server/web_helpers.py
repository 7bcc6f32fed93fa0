"""What the tests of the web server share: a dashboard as users start it, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator_lab import Cluster

BASE = "/base/orchestrator-lab"
DASHBOARD = ("orchestrator_lab", "dashboard", "--no-browser", "--port", "0")


@dataclass
class Door:
    """What a browser or a script knows of a server: its address and its token."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    root: Path
    sockets: list[websocket.WebSocket] = field(default_factory=list)

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}

    def client(self, **kwargs: Any) -> httpx.Client:
        kwargs.setdefault("headers", self.authorization)
        return httpx.Client(base_url=f"{self.url}{BASE}/", timeout=60, **kwargs)

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **kwargs)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body or {}, **kwargs)

    def socket(self, *, headers: dict[str, str] | None = None, origin: str | None = None) -> websocket.WebSocket:
        made = websocket.create_connection(
            f"{self.url.replace('http', 'ws')}{BASE}/api/ws",
            header=self.authorization if headers is None else headers,
            origin=self.url if origin is None else origin,
            timeout=30,
        )
        self.sockets.append(made)
        return made


@contextlib.contextmanager
def served(*more: str, command: tuple[str, ...] = DASHBOARD, **variables: str) -> Iterator[Door]:
    """Start ``orchestrator-lab dashboard`` on a free port, wait until it says where, and end it."""
    root = Path(tempfile.mkdtemp(prefix="d"))
    environ = {
        **os.environ,
        **{f"JUPYTER_{name}_DIR": str(root / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")},
        "HOME": str(root),
        # As if it was started in a pane: terminals must not take that for their own.
        "TMUX": f"{root}/none,1,0",
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--allow-root", "--ServerApp.base_url=/base/", *more],
        cwd=root,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    door = None
    try:
        url, token = said_by(process)
        listening(url)
        door = Door(url, token, process, root)
        yield door
    finally:
        for one in door.sockets if door is not None else ():
            with contextlib.suppress(OSError, websocket.WebSocketException):
                one.shutdown()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


def listening(url: str) -> None:
    """Wait until a server listens: it says where before it does, and nothing tells of it then."""
    place = urlsplit(url)
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((str(place.hostname), place.port or 0), timeout=30).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens at {url}"
            time.sleep(0.02)
        else:
            return


def said_by(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Return address and token, as the server's log tells them to its user; go on reading what it says."""
    assert process.stderr is not None
    text = b""
    deadline = time.monotonic() + 60
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            found = re.search(rb"(https?://127\.0\.0\.1:\d+)/base/(?:orchestrator-lab/|tree|lab|)\?token=(\w+)\s", text)
            if found:
                break
            assert selector.select(max(0.0, deadline - time.monotonic())), f"no address: {text.decode()}"
            piece = os.read(process.stderr.fileno(), 65536)
            assert piece, f"it ended: {text.decode()}"
            text += piece
    descriptor = os.dup(process.stderr.fileno())

    def drain() -> None:
        with os.fdopen(descriptor, "rb") as rest:
            for line in rest:
                sys.stderr.write(line.decode("utf-8", "replace"))

    threading.Thread(target=drain, daemon=True).start()
    return found[1].decode(), found[2].decode()


def events(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """Return the events of a name, as the journal has them."""
    return [event for event in journal(cluster) if event["event"] == name]


def journal(cluster: Cluster) -> list[dict[str, Any]]:
    """Return all events; the last line may be half written."""
    return [json.loads(line) for line in (cluster.run_dir / "journal.jsonl").read_bytes().split(b"\n")[:-1]]


#: What the journal tells when somebody does something, unlike what comes by itself at any time: samples, ends of turns.
_DEEDS = ("action.", "message.queued", "agent.keys", "agent.started", "agent.exited", "monitoring.", "run.")


def deeds(cluster: Cluster) -> list[int]:
    """Return the numbers of the events that tell of something that was done."""
    return [event["seq"] for event in journal(cluster) if event["event"].startswith(_DEEDS)]


def attributes(cluster: Cluster, action: str) -> list[dict[str, Any]]:
    """Return what the audit says of an action."""
    found = [event["attributes"] | {"agent": event.get("agent")} for event in events(cluster, "action.requested")]
    return [one for one in found if one["action"] == action]
