"""The websocket: what happens is told, a reader that comes back misses nothing, and one that is slow gets pictures."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import websocket
from jupyter_server.extension.handler import ExtensionHandlerMixin

from orchestrator_lab.client import find
from orchestrator_lab.live import Feed
from orchestrator_lab.server.socket import Socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from web_helpers import Door

    from orchestrator_lab import Cluster
    from orchestrator_lab.live import Listener


class Browser:
    """Reads frames, and keeps them."""

    def __init__(self, door: Door) -> None:
        self.socket = door.socket()
        self.frames: list[dict[str, Any]] = []

    def say(self, **request: Any) -> None:
        self.socket.send(json.dumps(request))

    def frame(self) -> dict[str, Any]:
        """Return the next frame that is not the list of clusters, which comes when it comes (test_watching.py)."""
        while True:
            frame = json.loads(self.socket.recv())
            assert set(frame) == {"event", "cluster", "seq", "data"}
            if frame["event"] != "clusters":
                self.frames.append(frame)
                return frame

    def until(self, fits: Callable[[dict[str, Any]], bool], timeout_s: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.socket.settimeout(max(0.1, deadline - time.monotonic()))
            frame = self.frame()
            if fits(frame):
                return frame
        raise AssertionError(f"not told: {[one['event'] for one in self.frames]}")

    def done(self, cluster: str) -> None:
        """Wait until what was asked of a cluster is done: its status is told in its turn, unlike a pong."""
        self.say(op="get_status", cluster=cluster)
        self.until(lambda frame: frame["event"] == "status")

    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.frames if frame["seq"] is not None]


@pytest.fixture
def browser(door: Door) -> Browser:
    return Browser(door)


def message(status: str, text: str) -> Callable[[dict[str, Any]], bool]:
    def fits(frame: dict[str, Any]) -> bool:
        data = frame["data"]
        return data.get("event") == f"message.{status}" and data.get("message", {}).get("content") == text

    return fits


# who may ------------------------------------------------------------------------------------------


def test_without_a_token_there_is_no_socket(door: Door) -> None:
    for headers in ({}, {"Authorization": "token wrong"}):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            door.socket(headers=headers)
        assert refused.value.status_code == 403


def test_a_page_of_another_origin_gets_no_socket(door: Door) -> None:
    """The browser sends its cookie for every page; whoever knows the token needs no browser."""
    with door.client(headers={}) as client:
        client.get("", params={"token": door.token})
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
    door.socket(headers=cookie).shutdown()
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        door.socket(headers=cookie, origin="http://evil.example")
    assert refused.value.status_code == 403


# what is told -------------------------------------------------------------------------------------


def test_a_browser_is_greeted_and_answered(browser: Browser, cluster: Cluster) -> None:
    greeted = browser.frame()
    assert greeted["event"] == "connected"
    assert [one["name"] for one in greeted["data"]["clusters"]] == ["lab"]
    browser.say(op="ping", data="x")
    assert browser.frame() == {"event": "pong", "cluster": None, "seq": None, "data": {"data": "x"}}
    browser.say(op="get_status", cluster="lab")
    status = browser.frame()
    assert (status["event"], status["cluster"], status["data"]["run_id"]) == ("status", "lab", cluster.run_id)


def test_messages_states_and_figures_are_told_as_they_happen(browser: Browser, cluster: Cluster) -> None:
    browser.say(op="subscribe", cluster="lab")
    browser.until(lambda frame: frame["event"] == "status")
    browser.until(lambda frame: frame["event"] == "metrics")
    cluster["ada"].send("over the wire")
    queued = browser.until(message("queued", "over the wire"))
    assert (queued["event"], queued["data"]["message"]["recipient"]) == ("message", "ada")
    browser.until(message("answered", "over the wire"))
    assert any(frame["data"].get("event") == "agent.state" for frame in browser.frames)

    def counts(frame: dict[str, Any]) -> bool:
        return frame["event"] == "status" and frame["data"]["messages"] > 0

    # Status and events come by two ways: the last status may have been told before the last event.
    assert any(map(counts, browser.frames)) or browser.until(counts)
    assert browser.seqs() == sorted(browser.seqs())


def test_only_what_is_asked_for_is_told(browser: Browser, cluster: Cluster) -> None:
    browser.say(op="subscribe", cluster="lab", events=["alert", "event"])
    browser.done("lab")
    cluster["bob"].send("unheard").result(20)
    browser.until(lambda frame: frame["data"].get("event") == "turn.ended")
    assert {frame["event"] for frame in browser.frames} <= {"connected", "status", "message", "agent", "event"}
    browser.say(op="unsubscribe", cluster="lab")
    browser.done("lab")
    cluster["bob"].send("unheard too").result(20)
    browser.say(op="ping", data="last")
    assert browser.frame()["data"] == {"data": "last"}


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("{", "JSON"),
        ("[]", "frame"),
        ('{"op": "dance"}', "subscribe"),
        ('{"op": "subscribe", "cluster": "../x"}', "cluster"),
        ('{"op": "subscribe", "cluster": "lab", "events": ["everything"]}', "events"),
        ('{"op": "subscribe", "cluster": "nobody"}', "nobody"),
        ('{"op": "repaint", "cluster": "lab", "agent": "ada"}', "subscribe"),
        ('{"op": "get_status", "cluster": "nobody"}', "nobody"),
        ('{"op": "log", "cluster": "nobody", "process": "keeper"}', "nobody"),
        ('{"op": "log", "cluster": "lab", "process": "../cluster"}', "process"),
    ],
)
def test_what_is_wrong_is_said_and_the_socket_stays(browser: Browser, said: str, word: str) -> None:
    browser.frame()
    browser.socket.send(said)
    frame = browser.frame()
    assert frame["event"] == "error"
    assert word in frame["data"]["message"]
    browser.say(op="ping")
    assert browser.frame()["event"] == "pong"


def test_a_request_that_is_too_long_ends_the_socket(browser: Browser, door: Door) -> None:
    browser.frame()
    browser.socket.send('{"op": "ping", "data": "' + "x" * 70_000 + '"}')
    said = None
    with contextlib.suppress(websocket.WebSocketConnectionClosedException, ConnectionError):
        while (said := browser.socket.recv()) and json.loads(said)["event"] == "clusters":
            pass  # the list of clusters comes when it comes
        assert said == ""
    assert not browser.socket.connected or browser.socket.recv() == ""
    assert door.get("api/clusters").status_code == 200


# coming back --------------------------------------------------------------------------------------


def test_a_reader_that_comes_back_misses_nothing(door: Door, cluster: Cluster) -> None:
    first = Browser(door)
    first.say(op="subscribe", cluster="lab", events=["message"])
    first.done("lab")
    cluster["ada"].send("before").result(20)
    first.until(message("answered", "before"))
    last = max(first.seqs())
    first.socket.shutdown()
    for number in range(20):
        cluster["ada"].send(f"meanwhile {number}")
    cluster.wait(timeout=90)
    second = Browser(door)
    second.say(op="subscribe", cluster="lab", events=["message"], since=last)
    second.until(message("answered", "meanwhile 19"))
    cluster["ada"].send("after")
    second.until(message("answered", "after"))
    seqs = second.seqs()
    assert len(set(seqs)) == len(seqs)
    assert seqs == sorted(seqs)
    assert seqs[0] > last
    told = [f["data"]["message"]["content"] for f in second.frames if f["data"].get("event") == "message.queued"]
    assert told == [*(f"meanwhile {number}" for number in range(20)), "after"]


# panes --------------------------------------------------------------------------------------------


def shown(frames: list[dict[str, Any]], agent: str = "ada") -> bytes:
    """Return what a terminal was told since its last repaint."""
    data = b""
    for frame in frames:
        if frame["event"] == "screen" and frame["data"]["agent"] == agent:
            piece = base64.b64decode(frame["data"]["data"])
            data = piece if frame["data"]["repaint"] else data + piece
    return data


def test_a_watched_pane_begins_with_a_picture_and_goes_on(browser: Browser, cluster: Cluster) -> None:
    browser.say(op="subscribe", cluster="lab", events=["screen"], panes=["ada"])
    first = browser.until(lambda frame: frame["event"] == "screen")
    assert (first["data"]["agent"], first["data"]["repaint"]) == ("ada", True)
    assert first["data"]["cols"] > 20
    cluster["ada"].send("painted-here")
    browser.until(lambda _: b"painted-here" in shown(browser.frames))
    browser.say(op="subscribe", cluster="lab", events=["screen"], panes=["bob"])
    browser.until(lambda frame: frame["event"] == "screen" and frame["data"]["agent"] == "bob")
    browser.say(op="repaint", cluster="lab", agent="bob")
    browser.until(
        lambda frame: frame["event"] == "screen" and frame["data"]["agent"] == "bob" and frame["data"]["repaint"]
    )


_FLOOD = "i=0; while :; do i=$((i+1)); printf '\\033[3%dm%0200d\\n' $((i%8)) $i; done"


def test_a_slow_browser_gets_pictures_and_every_message(door: Door, cluster: Cluster) -> None:
    cluster.add(
        {"name": "flood", "kind": "program", "command": ["sh", "-c", f"printf '> '; read line; {_FLOOD}"]}
        | {"turn_end": {"prompt": "> "}}
    )
    process = psutil.Process(door.process.pid)
    browser = Browser(door)
    browser.socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    browser.say(op="subscribe", cluster="lab", events=["screen", "message"], panes=["flood"])
    browser.until(lambda frame: frame["event"] == "screen")
    before = process.memory_info().rss
    cluster["flood"].send("go")
    # Nothing is read meanwhile, and what the pane writes would fill every buffer on the way many times over.
    for number in range(30):
        cluster["ada"].send(f"heard {number}").result(30)
    grown = process.memory_info().rss - before
    assert grown < 64 * 1024 * 1024, f"{grown} bytes wait for a browser that does not read"
    browser.until(message("answered", "heard 29"))
    told = [f["data"]["message"]["content"] for f in browser.frames if f["data"].get("event") == "message.queued"]
    assert told == ["go", *(f"heard {number}" for number in range(30))]
    read = len(browser.frames)
    browser.until(lambda frame: frame["event"] == "screen" and frame["data"]["repaint"])
    cluster.remove("flood")
    assert browser.seqs() == sorted(set(browser.seqs()))
    assert sum(len(frame["data"].get("data", "")) for frame in browser.frames[:read]) < 8_000_000


# logs ---------------------------------------------------------------------------------------------


def test_a_log_is_told_from_its_end_and_goes_on(browser: Browser, cluster: Cluster) -> None:
    def log(frame: dict[str, Any]) -> bool:
        return frame["event"] == "log"

    path = find(cluster.name) / "logs" / "local-model.log"
    browser.say(op="log", cluster="lab", process="local-model")
    begun = browser.until(log)
    assert (begun["cluster"], begun["seq"]) == ("lab", None)
    assert begun["data"] == {"process": "local-model", "text": "", "begin": True, "truncated": False}
    path.write_text("loading\n", encoding="utf-8")
    assert browser.until(log)["data"]["text"] == "loading\n"
    browser.say(op="log", cluster="lab", process="supervisor")
    assert browser.until(log)["data"]["process"] == "supervisor"
    browser.say(op="log", cluster="lab")
    browser.done("lab")
    with path.open("a", encoding="utf-8") as more:
        more.write("unheard\n")
    browser.say(op="ping")
    assert browser.until(lambda frame: frame["event"] in {"log", "pong"})["event"] == "pong"


# leaving ------------------------------------------------------------------------------------------


async def test_a_browser_that_leaves_while_its_cluster_is_looked_up_leaves_no_listener(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lookup is held until the browser is gone; feed and cluster are real."""
    looked_up, gone = asyncio.Event(), asyncio.Event()
    listening: list[object] = []
    listen = Feed.listen

    class Clusters:
        @staticmethod
        def get(name: str) -> Cluster:
            assert name == "lab"
            return cluster

        @staticmethod
        async def call(_: str, look: Callable[[], Any]) -> Any:
            looked_up.set()
            await gone.wait()
            return look()

    def heard(feed: Feed, *args: Any, **kwargs: Any) -> Listener:
        listening.append(feed)
        return listen(feed, *args, **kwargs)

    monkeypatch.setattr(Feed, "listen", heard)
    monkeypatch.setattr(Socket, "clusters", Clusters)
    monkeypatch.setattr(ExtensionHandlerMixin, "initialize", lambda *_: None)
    one = object.__new__(Socket)
    one.initialize("orchestrator_lab")
    for _ in range(2):  # the second waits for the first, and is forgotten with the browser
        await one.on_message('{"op": "subscribe", "cluster": "lab", "panes": ["ada"]}')
    await looked_up.wait()
    one.on_close()
    gone.set()
    await one._lanes.idle()
    assert listening == []
    assert one._followed == {}
