"""Terminals on panes, keys, figures for Prometheus, alerts and dialogs: what else the web API gives an operator."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import websocket
from prometheus_client.parser import text_string_to_metric_families
from web_helpers import attributes, events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from web_helpers import Door

    from orchestrator_lab import Cluster


@pytest.fixture
def terminal(door: Door) -> Iterator[Callable[[str], websocket.WebSocket]]:
    """Connect to a terminal of Jupyter as its page does."""
    opened: list[str] = []

    def connect(name: str) -> websocket.WebSocket:
        opened.append(name)
        made = websocket.create_connection(
            f"{door.url.replace('http', 'ws')}/base/terminals/websocket/{name}", header=door.authorization, timeout=30
        )
        door.sockets.append(made)
        return made

    yield connect
    with door.client() as client:
        for name in opened:
            client.delete(f"{door.url}/base/api/terminals/{name}")


def read_until(screen: websocket.WebSocket, text: str) -> str:
    seen = ""
    deadline = time.monotonic() + 30
    while text not in seen:
        assert time.monotonic() < deadline, f"{text!r} is not in {seen!r}"
        kind, *data = json.loads(screen.recv())
        if kind == "stdout":
            seen += data[0]
    return seen


def test_a_terminal_watches_and_can_type_nothing(
    door: Door, cluster: Cluster, terminal: Callable[[str], websocket.WebSocket]
) -> None:
    cluster["ada"].ask("look here", timeout=20)
    made = door.post("api/clusters/lab/agents/ada/terminal").json()
    assert made == {"name": "lab_lab_ada_1", "take_over": False}
    assert door.post("api/clusters/lab/agents/ada/terminal").json() == made
    assert door.post("api/clusters/lab/agents/ada/terminal", {"take_over": True}).json()["name"] == "lab_lab_ada_2"
    screen = terminal(made["name"])
    screen.send(json.dumps(["set_size", 40, 120, 800, 1200]))
    read_until(screen, "look here")
    screen.send(json.dumps(["stdin", "typed by a watcher\r"]))
    # What it typed is nowhere once something else has come after it.
    cluster["ada"].ask("after it", timeout=20)
    assert "typed by a watcher" not in read_until(screen, "after it")
    assert "typed by a watcher" not in cluster["ada"].screen().text
    watched = attributes(cluster, "attach")[0]
    assert (watched["agent"], watched["details"]["read_only"]) == ("ada", True)


def test_taking_over_needs_a_word_of_its_own(
    door: Door, cluster: Cluster, terminal: Callable[[str], websocket.WebSocket]
) -> None:
    made = door.post("api/clusters/lab/agents/bob/terminal", {"take_over": True}).json()
    assert made["take_over"] is True
    screen = terminal(made["name"])
    screen.send(json.dumps(["set_size", 40, 120, 800, 1200]))
    read_until(screen, "❯" if "❯" in cluster["bob"].screen().text else " ")
    screen.send(json.dumps(["stdin", "typed by hand\r"]))
    read_until(screen, "bob: typed by hand")
    assert attributes(cluster, "attach")[-1]["details"]["read_only"] is False


def test_keys_go_to_the_pane_and_the_journal_keeps_their_number(door: Door, cluster: Cluster) -> None:
    assert door.post("api/clusters/lab/agents/ada/keys", {"data": "by key"}).json() == {"bytes": 6}
    assert door.post("api/clusters/lab/agents/ada/keys", {"data": "\r"}).status_code == 200
    cluster.wait(timeout=20)
    deadline = time.monotonic() + 30
    while "ada: by key" not in cluster["ada"].screen().text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [one["attributes"]["bytes"] for one in events(cluster, "agent.keys")] == [6, 1]
    audit = attributes(cluster, "keys")
    assert [one["agent"] for one in audit] == ["ada", "ada"]
    assert "by key" not in json.dumps(audit)
    too_many = door.post("api/clusters/lab/agents/ada/keys", {"data": "x" * 70_000})
    assert too_many.status_code == 400


def test_figures_are_prometheus_own_format(door: Door, cluster: Cluster) -> None:
    answer = door.get("metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [one for family in text_string_to_metric_families(answer.text) for one in family.samples]
    info = next(one for one in samples if one.name == "orchestrator_lab_info")
    assert (info.labels["cluster"], info.labels["run_id"]) == ("lab", cluster.run_id)
    agents = sum(one.value for one in samples if one.name == "orchestrator_lab_agents")
    assert agents == 2
    # As a scraper sends it: the word before the token is its own choice.
    for word in ("token", "Bearer"):
        assert door.get("metrics", headers={"Authorization": f"{word} {door.token}"}).status_code == 200


def test_alerts_are_listed_seen_resolved_and_cleared(door: Door, cluster: Cluster) -> None:
    import signal

    pid = cluster["bob"].facts["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    rows: list[dict[str, Any]] = []
    while not rows:
        rows = door.get("api/clusters/lab/alerts").json()["alerts"]
        assert time.monotonic() < deadline, "an agent that was killed opens an alert"
    alert = rows[0]
    path = f"api/clusters/lab/alerts/{alert['alert_id']}"
    assert door.get("api/clusters/lab/alerts", params={"state": "acknowledged"}).json()["alerts"] == []
    assert door.post(f"{path}/acknowledge").json()["alerts"][0]["alert_id"] == alert["alert_id"]
    seen = door.get("api/clusters/lab/alerts", params={"state": "acknowledged"}).json()["alerts"]
    assert [one["alert_id"] for one in seen] == [alert["alert_id"]]
    assert door.get("api/clusters/lab/alerts", params={"level": "critical"}).json()["alerts"] == []
    assert door.post(f"{path}/resolve").json()["alerts"][0]["alert_id"] == alert["alert_id"]
    assert door.get("api/clusters/lab/alerts").json()["alerts"] == []
    over = door.get("api/clusters/lab/alerts", params={"state": "resolved"}).json()["alerts"]
    assert alert["alert_id"] in [one["alert_id"] for one in over]
    assert door.post("api/clusters/lab/alerts/clear").json() == {"alerts": []}
    assert {one["by"] for one in (event["attributes"] for event in events(cluster, "alert.acknowledged"))} != {"human"}
