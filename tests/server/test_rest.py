"""The REST API on a real server and a real cluster: what it shows, what it does, and what the journal says of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from web_helpers import events

if TYPE_CHECKING:
    from web_helpers import Door

    from orchestrator_lab import Cluster


def test_clusters_and_status(door: Door, cluster: Cluster) -> None:
    listed = door.get("api/clusters").json()["clusters"]
    assert [(one["name"], one["run_id"]) for one in listed] == [("lab", cluster.run_id)]
    status = door.get("api/clusters/lab/status").json()
    assert (status["status"], status["monitoring"]) == ("running", "on")
    agents = door.get("api/clusters/lab/agents").json()["agents"]
    assert [one["name"] for one in agents] == ["ada", "bob"]
    assert "duo" in door.get("api/templates").json()["templates"]


def test_a_question_is_asked_answered_and_audited(door: Door, cluster: Cluster) -> None:
    asked = door.post("api/clusters/lab/ask", {"to": "ada", "text": "hello"}).json()
    assert (asked["reply"], asked["timed_out"]) == ("ada: hello", False)
    (event,) = [one for one in events(cluster, "action.requested") if one["attributes"]["action"] == "send"]
    facts = event["attributes"]
    assert facts["origin"] == "127.0.0.1"
    assert len(facts["by"]) > 3
    assert facts["details"]["message_ids"] == [asked["message"]["message_id"]]
    queued = next(
        one for one in events(cluster, "message.queued") if one["message_id"] == asked["message"]["message_id"]
    )
    assert queued["seq"] > event["seq"]
    assert queued["source"] == "human"


def test_an_ask_that_is_not_answered_in_time_goes_on(door: Door, cluster: Cluster) -> None:
    asked = door.post("api/clusters/lab/ask", {"to": "bob", "text": "slowly please", "timeout_s": 0.5}).json()
    assert (asked["reply"], asked["timed_out"]) == (None, True)
    path = f"api/clusters/lab/messages/{asked['message']['message_id']}"
    # A busy machine may not have typed it yet: there would be nothing to interrupt.
    begun = door.get(path, params={"until": "accepted", "timeout_s": 20}).json()
    assert begun["status"] in {"accepted", "started"}
    door.post("api/clusters/lab/agents/bob/interrupt").raise_for_status()
    ended = door.get(path, params={"until": "final", "timeout_s": 20}).json()
    assert ended["status"] == "failed"  # its answer would come after a minute
    cluster.wait(timeout=20)


def test_messages_are_paged_and_filtered(door: Door, cluster: Cluster) -> None:
    sent = [cluster["ada" if number % 2 else "bob"].send(f"number {number}") for number in range(6)]
    for one in sent:
        one.result(30)

    def page(**params: Any) -> tuple[list[str], bool]:
        got = door.get("api/clusters/lab/messages", params={"contains": "NUMBER", **params}).json()
        return [one["content"] for one in got["messages"]], got["more"]

    everything, more = page()
    assert (everything, more) == ([f"number {number}" for number in range(6)], False)
    assert page(agent="ada")[0] == ["number 1", "number 3", "number 5"]
    assert page(status="queued")[0] == []
    latest = door.get("api/clusters/lab/messages", params={"contains": "number", "limit": 2}).json()
    assert ([one["content"] for one in latest["messages"]], latest["more"]) == (["number 4", "number 5"], True)
    assert page(before=latest["messages"][0]["seq"], limit=2) == (["number 2", "number 3"], True)
    assert page(since=latest["messages"][0]["seq"]) == (["number 5"], False)


def test_events_can_be_read_to_their_end_page_by_page(door: Door, cluster: Cluster) -> None:
    there = cluster.status()["events"]
    seen: list[int] = []
    since, more = 0, True
    while more:
        got = door.get("api/clusters/lab/events", params={"since": since, "limit": 7}).json()
        seen += [event["seq"] for event in got["events"]]
        since, more = got["last_seq"], got["more"]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) >= there
    latest = door.get("api/clusters/lab/events", params={"limit": 3}).json()["events"]
    assert [event["seq"] for event in latest] == sorted(event["seq"] for event in latest)
    turns = door.get("api/clusters/lab/events", params={"since": 0, "event": "turn.ended", "agent": "ada"}).json()
    assert {(one["event"], one["agent"]) for one in turns["events"]} == {("turn.ended", "ada")}


def test_tables_metrics_logs_and_screen(door: Door) -> None:
    states = door.get("api/clusters/lab/tables/states", params={"agent": "ada", "offset": 0}).json()
    assert states["rows"][0]["state"] == "starting"
    assert states["total"] == len(states["rows"])
    assert door.get("api/clusters/lab/metrics", params={"samples": 5}).json()["figures"]["name"] == "lab"
    assert door.get("api/clusters/lab/logs", params={"process": "keeper"}).json()["truncated"] is False
    door.post("api/clusters/lab/ask", {"to": "ada", "text": "on the screen"}).raise_for_status()
    deadline = time.monotonic() + 30  # its answer is told by its hook, and tmux may read what it painted later
    while "on the screen" not in door.get("api/clusters/lab/agents/ada/screen").json()["screen"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert door.get("api/clusters/lab/dialogs").json() == {"dialogs": []}
    assert door.get("api/clusters/lab/guards").json() == {"guards": []}


def test_to_all_goes_to_everybody(door: Door, cluster: Cluster) -> None:
    sent = door.post("api/clusters/lab/messages", {"to": "all", "text": "everybody"}).json()["messages"]
    assert [one["recipient"] for one in sent] == ["ada", "bob"]
    cluster.wait(timeout=20)
    assert {one["kind"] for one in sent} == {"broadcast"}


def test_monitoring_is_paused_and_goes_on(door: Door, cluster: Cluster) -> None:
    assert door.post("api/clusters/lab/monitoring/stop").json() == {"monitoring": "paused"}
    assert door.post("api/clusters/lab/monitoring/stop").json() == {"monitoring": "paused"}
    assert cluster.status()["monitoring"] == "paused"
    assert door.post("api/clusters/lab/monitoring/start").json() == {"monitoring": "on"}
    assert [len(events(cluster, f"monitoring.{name}")) for name in ("paused", "resumed")] == [1, 1]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("GET", "api/clusters/nobody/status", None, 404, "nobody"),
        ("GET", "api/clusters/lab/agents/eve/screen", None, 404, "eve"),
        ("GET", "api/clusters/lab/messages?limit=0", None, 400, "limit"),
        ("GET", "api/clusters/lab/messages?since=x", None, 400, "since"),
        ("GET", "api/clusters/lab/tables/secrets", None, 400, "table"),
        ("GET", "api/clusters/lab/logs?process=../../environ.json", None, 400, "process"),
        ("GET", "api/nothing", None, 404, "openapi.json"),
        ("GET", "api/clusters/lab/stop", None, 405, "method"),
        ("POST", "api/clusters/lab/messages", {"to": "eve", "text": "x"}, 404, "eve"),
        ("POST", "api/clusters/lab/messages", {"to": ["ada", "ada"], "text": "x"}, 400, "twice"),
        ("POST", "api/clusters/lab/messages", {"to": "ada", "text": 3}, 400, "text"),
        ("POST", "api/clusters/lab/messages", {"to": "ada", "text": "x", "as": "root"}, 400, "as"),
        ("POST", "api/clusters/lab/ask", {"to": "all", "text": "x"}, 400, "one agent"),
        ("POST", "api/clusters/lab/alerts/alr_x/resolve", {}, 404, "alr_x"),
        ("POST", "api/clusters/lab/guards/lift", {"guard_id": "grd_x"}, 404, "grd_x"),
        ("POST", "api/clusters/lab/agents/ada/dialog", {"dialog_id": "dlg_x", "option": 1}, 409, "dlg_x"),
        ("POST", "api/clusters", {"template": "duo", "config": {}}, 400, "one of"),
        ("POST", "api/clusters", {"config": {"agents": []}}, 400, "agents"),
        ("POST", "api/clusters", {"file": "../../etc/passwd"}, 400, "root folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    door: Door, cluster: Cluster, method: str, path: str, body: Any, status: int, word: str
) -> None:
    del cluster
    with door.client() as client:
        answer = client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "details"}
    assert word in error["message"]


def test_a_cluster_is_started_and_ended_from_the_browser(door: Door, script_config: Any) -> None:
    config = script_config("eve")
    started = door.post("api/clusters", {"config": config, "name": "second", "tags": ["web"]})
    assert started.status_code == 200, started.text
    path = "api/clusters/second"
    try:
        first = door.get(f"{path}/events", params={"since": 0}).json()["events"][:2]
        assert [one["event"] for one in first] == ["run.started", "action.requested"]
        assert (first[1]["attributes"]["action"], first[1]["attributes"]["origin"]) == ("start", "127.0.0.1")
        again = door.post("api/clusters", {"config": config, "name": "second"})
        assert (again.status_code, again.json()["error"]["type"]) == (409, "ClusterExists")
        assert door.post(f"{path}/agents/eve/restart").status_code == 200
        pid = door.get(f"{path}/agents").json()["agents"][0]["pid"]
        assert door.post(f"{path}/start").json()["agents"][0]["pid"] == pid, "what runs is left as it is"
        assert door.post(f"{path}/stop").json()["status"] == "stopped"
        assert door.post(f"{path}/start").json()["status"] == "running"
    finally:
        ended = door.post(f"{path}/shutdown", {"status": "cancelled"})
    assert ended.json()["run_dir"] == started.json()["run_dir"]
    assert door.get(f"{path}/status").status_code == 404
