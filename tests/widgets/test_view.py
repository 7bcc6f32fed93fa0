"""The view's half in the kernel: what it sends, when it is silent, what it leaves behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.errors import AgentNotFound, EnvironmentProblem, TmuxError
from orchestrator_lab.live import Listener
from orchestrator_lab.messagenews import message_news
from orchestrator_lab.widgets import pump as pump_module
from orchestrator_lab.widgets import view as view_module
from orchestrator_lab.widgets.pump import Pump
from orchestrator_lab.widgets.view import ClusterView, painted, part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    with Cluster.start(script_config("ada", "bob", name="viewed", lifetime="owner")) as started:
        yield started


class Browser:
    """Takes what a pump sends, and says what a view would."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        self._news = threading.Condition()
        self.number = 0
        self.pump = Pump(cluster.name, cluster.client, self._take, **options)

    def _take(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        with self._news:
            self.sent.append((message, buffers))
            self._news.notify_all()

    def says(self, type_: str, view: str = "v1", **more: Any) -> int:
        self.number += 1
        self.pump.ask({"type": type_, "view": view, "n": self.number, **more})
        return self.number

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((message for message, _ in self.sent if condition(message)), None)

        with self._news:
            got = self._news.wait_for(found, 20)
            assert got, self.sent
            return got


@pytest.fixture
def browser(cluster: Cluster) -> Iterator[Browser]:
    made = Browser(cluster)
    yield made
    made.pump.close()


def test_nothing_is_sent_before_a_view_says_hello(cluster: Cluster, browser: Browser, until: Any) -> None:
    cluster["ada"].ask("unseen", timeout=30)
    until(lambda: browser.pump.agents[0]["turns"] >= 1)
    until(lambda: any(one["content"] == "unseen" and one["status"] == "answered" for one in browser.pump.messages))
    assert browser.sent == []
    browser.says("hello")
    first = browser.until(lambda message: message["type"] == "tick")
    assert [agent["name"] for agent in first["agents"]] == ["ada", "bob"]
    assert first["agents"][0]["turns"] >= 1
    assert "pid" not in first["agents"][0]
    assert any(one["content"] == "unseen" and one["status"] == "answered" for one in first["messages"])
    browser.until(lambda message: message["type"] == "ack" and message["n"] == 1)


def test_one_message_a_tick_with_a_buffer_for_each_pane(cluster: Cluster, browser: Browser, until: Any) -> None:
    browser.says("hello")
    browser.says("watch", agents=["ada", "bob"])
    browser.until(lambda message: {"bob"} <= {pane["agent"] for pane in message.get("panes", ())})
    for message, buffers in browser.sent:
        assert len(message.get("panes", ())) == len(buffers)
    cluster["bob"].ask("to bob", timeout=30)
    news = browser.until(lambda message: any(one.get("content") == "to bob" for one in message.get("messages", ())))
    assert news["type"] == "tick"

    def silent() -> bool:
        before = len(browser.sent)
        time.sleep(1.0)
        return len(browser.sent) == before

    until(silent)  # once all of the turn was told, however long that takes


def test_a_second_view_of_a_watched_pane_gets_its_picture(browser: Browser) -> None:
    browser.says("hello")
    browser.says("watch", agents=["ada"])
    browser.until(lambda message: any(pane["repaint"] for pane in message.get("panes", ())))
    browser.sent.clear()
    browser.says("hello", view="v2")
    browser.says("watch", view="v2", agents=["ada"])
    browser.until(lambda message: any(pane["repaint"] for pane in message.get("panes", ())))


def test_a_living_view_outlives_any_number_of_reloads(cluster: Cluster, browser: Browser) -> None:
    """Those that went say no goodbye; the one that stays is asked whether it is there, and says so."""
    browser.says("hello", view="stays")
    browser.says("watch", view="stays", agents=["bob"])
    for number in range(pump_module._VIEWS):
        browser.says("hello", view=f"gone{number}")
        browser.says("watch", view=f"gone{number}", agents=["ada"])
    browser.until(lambda message: message == {"type": "again", "view": None})
    browser.says("watch", view="stays", agents=["bob"])
    number = browser.says("ping", view="stays")
    browser.until(lambda message: message.get("n") == number)
    browser.sent.clear()
    cluster["bob"].ask("to one that stays", timeout=30)
    browser.until(lambda message: any(pane["agent"] == "bob" for pane in message.get("panes", ())))
    assert not any(message["type"] == "again" for message, _ in browser.sent)


def test_a_view_that_is_not_known_is_asked_to_begin_anew(browser: Browser) -> None:
    browser.says("hello")

    def asked() -> list[Any]:
        # Ticks come whenever something happens.
        return [message["view"] for message, _ in browser.sent if message["type"] == "again"]

    for count, said in enumerate(({"type_": "ping"}, {"type_": "repaint", "agent": "ada"}), 1):
        number = browser.says(view="stranger", **said)
        browser.until(lambda message, number=number: message.get("n") == number)
        assert asked() == ["stranger"] * count
    browser.says("hello", view="stranger")
    number = browser.says("ping", view="stranger")
    browser.until(lambda message: message.get("n") == number)
    assert asked() == ["stranger"] * 2


def test_what_a_new_view_begins_with_follows_the_panes(cluster: Cluster) -> None:
    shown = cluster.view(controls=False)
    writers: set[threading.Thread] = set()
    written: list[float] = []
    new, kept = threading.Event(), threading.Event()

    def changed(change: dict[str, Any]) -> None:
        writers.add(threading.current_thread())
        written.append(time.monotonic())
        if b"newer than the view" in change["new"]["screens"]["bob"]["data"]:
            new.set()

    try:
        assert b"newer than the view" not in shown.snapshot["screens"]["bob"]["data"]
        shown.observe(changed, "snapshot")
        shown.observe(lambda change: kept.set() if "newer than the view" in change["new"] else None, "still")
        for said in ({"type": "hello"}, {"type": "watch", "agents": ["bob"]}):
            shown._from_browser(None, {**said, "view": "v", "n": 1}, None)
        cluster["bob"].ask("newer than the view", timeout=30)
        assert new.wait(20)
        assert len(writers) == 1
        assert all(after - before >= 0.9 for before, after in itertools.pairwise(written))
        assert "newer than the view" in shown.still_html()
        assert kept.wait(20)  # what a notebook that is saved now keeps
    finally:
        shown.freeze()


def test_a_view_is_replaced_on_the_stage(cluster: Cluster) -> None:
    """The feed's thread says that the cluster has ended; the widget changes on the kernel's loop."""
    where: list[threading.Thread] = []

    async def cell() -> None:
        shown = cluster.view(controls=False)
        closed = asyncio.Event()

        def close() -> None:
            where.append(threading.current_thread())
            ClusterView.close(shown)
            closed.set()

        shown.close = close  # type: ignore[method-assign]
        feeds = threading.Thread(target=shown._ended)
        feeds.start()
        feeds.join()
        assert where == []
        await asyncio.wait_for(closed.wait(), 20)

    asyncio.run(cell())
    assert where == [threading.main_thread()]


def test_what_cannot_be_done_is_said(browser: Browser) -> None:
    browser.says("hello")
    number = browser.says("keys", agent="ada", data="x" * 70_000)
    trouble = browser.until(lambda message: message["type"] == "error")
    assert "70000 bytes are too many" in trouble["message"]
    assert trouble["message"].startswith("cluster 'viewed': 70000 bytes")
    browser.until(lambda message: message.get("n") == number)
    for nonsense in (None, 5, {"type": "keys", "agent": "zoe", "data": "x"}, {"type": "watch", "agents": 7}, {}):
        browser.pump.ask(nonsense)
    number = browser.says("ping")
    browser.until(lambda message: message.get("n") == number)


def test_whatever_fails_is_said_to_the_view_that_asked_and_names_whom_it_is_about(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence to all views would have each of them let go of its pane."""

    def gone(_: object, agent: str) -> None:
        raise TmuxError(f"there is no pane of {agent}")

    monkeypatch.setattr(Listener, "repaint", gone)
    browser.says("hello")
    browser.says("repaint", agent="bob")
    trouble = browser.until(lambda message: message["type"] == "error")
    assert trouble == {
        "type": "error",
        "view": "v1",
        "agent": "bob",
        "message": "cluster 'viewed': there is no pane of bob",
    }


def test_after_keys_that_failed_the_rest_of_their_take_over_is_dropped(cluster: Cluster, browser: Browser) -> None:
    browser.says("hello")
    browser.says("keys", agent="bob", data="x" * 70_000, hold=1)
    browser.says("keys", agent="bob", data="dropped", hold=1)
    number = browser.says("keys", agent="bob", data="\x15", hold=2)
    trouble = browser.until(lambda message: message["type"] == "error")
    assert (trouble["view"], trouble["agent"]) == ("v1", "bob")
    browser.until(lambda message: message.get("n") == number)
    journal = (cluster.run_dir / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    typed = [one for one in map(json.loads, journal) if one["event"] == "agent.keys" and one["agent"] == "bob"]
    assert [one["attributes"]["bytes"] for one in typed] == [1]


def test_the_widget_and_its_still(cluster: Cluster) -> None:
    shown = cluster.view(controls=False)
    try:
        assert repr(shown) == "ClusterView(agents=2)"
        data = shown._repr_mimebundle_()
        assert data["text/plain"] == "ClusterView(agents=2)"
        assert "Write a message" in data["text/html"]
        assert "<script" not in data["text/html"]
        assert "application/vnd.jupyter.widget-view+json" in data
        assert set(shown.snapshot["screens"]) == {"ada", "bob"}
        assert shown.snapshot["screens"]["ada"]["data"].startswith(b"\x1bc")
    finally:
        shown.freeze()
    assert "application/vnd.jupyter.widget-view+json" not in shown._repr_mimebundle_()
    with pytest.raises(AgentNotFound):
        ClusterView(cluster, agents=["zoe"])


def test_stills_only_where_that_is_asked_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_LAB_WIDGETS", "static")
    assert set(cluster.view()._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_part_that_was_not_built_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "missing.txt").write_text("there is no Node\n")
    monkeypatch.setattr(view_module, "files", lambda _: tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"no live views .there is no Node"):
        part("panes.js")


def test_news_of_messages() -> None:
    assert message_news({"event": "agent.state", "message_id": None}) is None
    assert message_news({"event": "message.submitted", "message_id": "m"}) is None
    failed = {"event": "message.failed", "message_id": "m", "attributes": {"error_message": "gone"}}
    assert message_news(failed) == {"message_id": "m", "status": "failed", "error_message": "gone"}
    queued = {"event": "message.queued", "message_id": "m", "at": "t", "attributes": {"content": "x" * 9000}}
    news = message_news(queued)
    assert news is not None
    assert news["content"].endswith("[5000 more characters]")


def test_a_still_is_bounded() -> None:
    assert len(painted("\n".join(["x" * 1000] * 200))) <= 1 << 16
