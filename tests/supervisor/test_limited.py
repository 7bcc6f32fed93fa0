"""Usage limits that programs report: what they say, who holds messages then, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab import Cluster
from orchestrator_lab.agents.usage_limits import claude_limit, codex_limit, stated_reset
from orchestrator_lab.errors import DeliveryPaused, ExchangeTimeout, TurnFailed
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator_lab.journal.event import Event

FAKE = Path(__file__).parent.parent / "fake_agent" / "fake_agent.py"
#: 2026-11-24 13:54:21 UTC
NOW = 1795528461.0


# what programs say ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reset"),
    [
        ("You've hit your session limit · resets 2:54pm (UTC)", "2026-11-24T14:55"),
        ("You've hit your session limit · resets 3pm (UTC)", "2026-11-24T15:01"),
        ("You've hit your weekly limit · resets Nov 26, 3pm (UTC)", "2026-11-26T15:01"),
        ("You've hit your weekly limit · resets Jan 2, 2027, 12:30am (UTC)", "2027-01-02T00:31"),
        ("You've hit your weekly limit · resets Jan 2 at 12am (UTC)", "2027-01-02T00:01"),
        ("You've hit your Opus limit · resets 9am (America/New_York)", "2026-11-24T14:01"),
        ("You've hit your Opus limit · resets 8am (America/New_York)", "2026-11-25T13:01"),
        ("You've hit your session limit · resets 1:54pm (UTC)", "2026-11-24T13:55"),
        ("You've hit your session limit · resets 1:53pm (UTC)", "2026-11-25T13:54"),
    ],
)
def test_stated_resets(text: str, reset: str) -> None:
    found = stated_reset(text, NOW)
    assert found is not None
    assert datetime.fromtimestamp(found, UTC).isoformat(timespec="minutes") == f"{reset}+00:00"


def test_a_reset_without_a_zone_is_in_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert stated_reset("purchase more credits or try again at 11:49 PM.", NOW) == 1795531800.0
        assert stated_reset("or try again at Nov 26th, 2026 9:05 AM.", NOW) == 1795651560.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["try again later", "resets soon", "resets 99pm (UTC)", "resets 3pm (Moon/Base)", ""])
def test_what_states_no_reset(text: str) -> None:
    assert stated_reset(text, NOW) is None


@given(
    st.text(),
    st.sampled_from(["resets ", "try again at "]),
    st.text(alphabet="0123456789:apm Nov,stUTC/()", max_size=30),
)
def test_no_sentence_breaks_it(before: str, words: str, after: str) -> None:
    found = stated_reset(before + words + after, NOW)
    assert found is None or isinstance(found, float)


@pytest.mark.parametrize(
    ("text", "error", "status", "limited"),
    [
        ("API Error: Request rejected (429) · slow", "rate_limit", 429, True),
        ("API Error: Request rejected (429) · slow", "rate_limit", None, True),
        ("Credit balance is too low", "billing_error", 400, True),
        ("API Error: Server is temporarily limiting requests (not your usage limit) · x", "rate_limit", 429, False),
        ("Overloaded", "server_error", 529, False),
        ("API Error: 400", "invalid_request", 400, False),
    ],
)
def test_errors_of_claude_code(text: str, error: str, status: int | None, limited: bool) -> None:
    assert (claude_limit("hook", text, error, status, NOW) is not None) is limited


WINDOWS = {
    "primary": {"used_percent": 100.0, "window_minutes": 300, "resets_at": 1795531762},
    "secondary": {"used_percent": 40.0, "resets_at": 1795999999},
}


@pytest.mark.parametrize(
    ("message", "info", "windows", "reset"),
    [
        ("Used up.", "usage_limit_exceeded", WINDOWS, 1795531762.0),
        ("Used up.", "usage_limit_exceeded", None, None),
        ("Used up.", "usage_limit_exceeded", {"primary": None, "plan_type": "plus"}, None),
        ("429", {"response_too_many_failed_attempts": {"http_status_code": 429}}, None, None),
        ("503", {"response_too_many_failed_attempts": {"http_status_code": 503}}, None, "no limit"),
        ("broken", "bad_request", WINDOWS, "no limit"),
    ],
)
def test_errors_of_codex(message: str, info: object, windows: Any, reset: object) -> None:
    found = codex_limit("transcript", message, info, windows, NOW)
    assert (found.resets_at if found is not None else "no limit") == reset


# fakes ------------------------------------------------------------------------------------------------


class Lab:
    """Two fakes that report like the chat program, and a program of another kind."""

    def __init__(self, place: Path, **cluster: Any) -> None:
        self.place = place
        (place / "work").mkdir()
        names = {"one": "chat", "two": "chat", "other": "program"}
        agents = []
        for name, kind in names.items():
            (place / f"{name}.json").write_text("{}")
            log, script = str(place / f"{name}.jsonl"), str(place / f"{name}.json")
            command = [sys.executable, "-S", "-E", str(FAKE), "--log", log, "--script", script]
            extra = {"turn_end": {"prompt": "^› $"}} if kind == "program" else {}
            agents.append({"name": name, "kind": kind, "command": command, **extra})
        facts = {"work_dir": str(place / "work"), "runs_dir": str(place / "runs"), "lifetime": "owner"}
        self.cluster = Cluster.start({"cluster": {"name": "used-up", **facts, **cluster}, "agents": agents})

    def control(self, name: str, **action: Any) -> None:
        log = self.place / f"{name}.jsonl"

        def done() -> int:
            return sum(json.loads(line)["event"] == "control" for line in log.read_text().splitlines())

        before = done()
        with Path(f"{log}.ctl").open("w") as pipe:
            pipe.write(json.dumps(action) + "\n")
        until(lambda: done() > before)

    def limit(self, name: str, resets_s: float | None) -> None:
        """Have an agent run into its limit, once."""
        self.control(name, set={"limit": True, "limit_resets_s": resets_s})
        with pytest.raises(TurnFailed, match="usage limit"):
            self.cluster[name].ask("too much", timeout=20)
        self.control(name, do="limit", on=False)

    def events(self, *names: str) -> list[Event]:
        return [event for event in self.cluster.run.events() if event.event in names]

    def alerts(self) -> list[Event]:
        """What was told of limits, and taken back."""
        told = self.events("alert.opened", "alert.resolved")
        return [event for event in told if event.attributes["rule"] == "limited"]


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def lab(module_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:  # noqa: ARG001 - its place
    made = Lab(tmp_path_factory.mktemp("limited"))
    yield made
    made.cluster.shutdown()


def test_new_work_of_the_kind_waits(lab: Lab) -> None:
    lab.limit("one", 3600)
    assert lab.cluster["one"].state == "limited"
    assert lab.cluster["two"].state == "idle"
    (guard,) = lab.cluster.guards
    assert guard["rule"] == "limited"
    assert guard["until"] is not None
    held = lab.cluster["two"].send("hello")
    assert lab.cluster["other"].ask("hello", timeout=20).status == "answered"
    why = r"agents of kind chat hold their messages until 2.* one reported: You have reached your usage limit"
    with pytest.raises(ExchangeTimeout, match=why):
        held.result(0.2)
    # It ends by itself, so that waiting makes sense.
    with pytest.raises(ExchangeTimeout, match=why):
        lab.cluster.wait(timeout=0.2)
    assert held.status == "queued"
    turn = [event for event in lab.events("turn.ended") if event.agent == "one"][-1]
    assert turn.attributes["end_reason"] == "limit"
    assert lab.events("message.failed")[-1].attributes["error_type"] == "turn_limit"
    lab.cluster.lift()
    assert held.result(20)
    assert lab.cluster["one"].state == "idle"
    alert, over = lab.alerts()[-2:]
    assert (alert.agent, alert.level) == ("one", "error")
    assert over.attributes["alert_id"] == alert.attributes["alert_id"]


def test_delivery_goes_on_when_the_reset_has_come(lab: Lab) -> None:
    # Told after its reset it would be none: as long as a report may take.
    lab.limit("one", 3.0)
    held = lab.cluster["two"].send("hello")
    lab.cluster.wait(timeout=20)
    assert held.status == "answered"
    assert lab.cluster.guards == []
    limited, lifted = lab.events("agent.limited", "agent.limit_lifted")[-2:]
    assert lifted.attributes["by"] == "reset"
    assert lifted.attributes["guard_id"] == limited.attributes["guard_id"]
    claimed = next(event for event in lab.events("message.claimed") if event.message_id == held.message_id)
    assert limited.attributes["resets_at"] <= datetime.fromisoformat(claimed.at).timestamp()


def test_without_a_stated_reset_somebody_lifts_it(lab: Lab) -> None:
    lab.limit("one", None)
    held = lab.cluster["one"].send("hello")
    with pytest.raises(DeliveryPaused, match="until somebody lifts it"):
        lab.cluster.wait()
    guard_id = lab.cluster.guards[0]["guard_id"]
    assert lab.cluster.lift(guard_id, by="ann")[0]["rule"] == "limited"
    assert held.result(20)
    assert lab.cluster.lift(guard_id) == []
    assert lab.events("agent.limit_lifted")[-1].attributes["by"] == "ann"


def test_a_reset_that_is_over_and_yet_reported_is_none(lab: Lab) -> None:
    lab.limit("one", -60)
    assert lab.cluster.guards[0]["until"] is None
    lab.cluster.lift()


def test_a_program_that_answers_at_its_pane_is_limited_no_more(lab: Lab) -> None:
    lab.limit("two", None)
    held = lab.cluster["one"].send("waiting")
    pane = lab.cluster["two"].pane
    pane.send_keys("are you back?", enter=True)
    assert held.result(20)
    assert lab.events("agent.limit_lifted")[-1].attributes["by"] == "program"
    assert lab.cluster["two"].state == "idle"


def kill_supervisor(lab: Lab) -> None:
    record = read_record(lab.cluster.client.folder)
    assert record is not None
    assert record.supervisor_pid is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)


def test_it_outlives_the_supervisor(lab: Lab) -> None:
    lab.limit("one", 3600)
    guards = lab.cluster.guards
    kill_supervisor(lab)
    assert lab.cluster["one"].state == "limited"
    assert lab.cluster.guards == guards
    held = lab.cluster["two"].send("hello")
    time.sleep(0.3)
    assert held.status == "queued"
    lab.cluster.lift()
    assert held.result(20)
    opened, resolved = lab.alerts()[-2:]
    assert opened.attributes["alert_id"] == resolved.attributes["alert_id"]


def test_the_reset_is_waited_for_by_the_next_supervisor_too(lab: Lab) -> None:
    lab.limit("one", 3.0)
    kill_supervisor(lab)
    assert lab.cluster["one"].ask("hello", timeout=30).status == "answered"
    assert lab.events("agent.limit_lifted")[-1].attributes["by"] == "reset"
    assert lab.cluster["one"].state == "idle"


# the chat program, and real ones ----------------------------------------------------------------------


def used_up(**fields: Any) -> dict[str, Any]:
    return {
        "status": 429,
        "type": "usage_limit_reached",
        "message": "The usage limit has been reached",
        "fields": fields,
    }


def test_the_chat_program_tries_again_by_itself_where_it_was_told_to(
    runtime: Path,  # noqa: ARG001 - where the cluster lives
    script_config: Any,
) -> None:
    script = [{"when": {"contains": "much"}, "times": 1, "error": used_up()}, {"reply": "{agent}: {text}"}]
    config = script_config("ada", script=script, name="again", limits={"retry_s": 1.0}, lifetime="owner")
    with Cluster.start(config) as cluster:
        with pytest.raises(TurnFailed, match="usage limit has been reached"):
            cluster["ada"].ask("too much", timeout=20)
        assert cluster["ada"].ask("much", timeout=20).reply == "ada: much"
        assert "limited" in [one.attributes["state"] for one in cluster.run.events() if one.event == "agent.state"]
        limited = next(event for event in cluster.run.events() if event.event == "agent.limited")
        assert "resets_at" not in limited.attributes
        assert limited.attributes["until"] is not None


def wait_for_lift(cluster: Cluster, reset: float) -> None:
    """Check what a real program's limit led to, and that it works again when it is lifted."""
    ada = cluster["ada"]
    assert until(lambda: ada.state == "limited")
    until(lambda: [event for event in cluster.run.events() if event.event == "dialog.answered"], 60)
    (guard,) = cluster.guards
    told = next(event for event in cluster.run.events() if event.event == "agent.limited")
    assert 0 <= told.attributes["resets_at"] - reset <= 60
    assert guard["until"] is not None
    held = ada.send("are you there?")
    with pytest.raises(ExchangeTimeout, match="hold their messages until"):
        held.result(0.5)
    answered = [event for event in cluster.run.events() if event.event == "dialog.answered"]
    assert [event.attributes["answered_by"] for event in answered] == ["policy"]
    cluster.lift(by="test")
    assert held.result(60) == "back again"
    assert cluster.run.turns["end_reason"].tolist() == ["limit", "completed"]


@pytest.mark.claude
def test_claude_code_with_a_subscription(
    runtime: Path,  # noqa: ARG001 - where the cluster lives
    tmp_path: Path,
    claude_command: str,
) -> None:
    reset = time.time() + 3600
    told = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(int(reset)),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    error = {"status": 429, "type": "rate_limit_error", "message": "Too much.", "retry": False, "headers": told}
    script = [{"when": {"contains": "much"}, "times": 1, "error": error}, {"reply": "back again"}]
    login = tmp_path / "claude"
    login.write_text(
        "#!/bin/sh\nunset ANTHROPIC_API_KEY\n"
        "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-orchestrator-lab-test-00000000000000000000\n"
        f'export CLAUDE_CODE_OAUTH_TOKEN\nexec {shlex.quote(claude_command)} "$@"\n'
    )
    login.chmod(0o700)
    with Cluster.start(real(tmp_path, script, kind="claude", command=str(login), mcp=False)) as cluster:
        with pytest.raises(TurnFailed, match="You've hit your session limit · resets"):
            cluster["ada"].ask("too much", timeout=60)
        wait_for_lift(cluster, reset)


@pytest.mark.codex
def test_codex(
    runtime: Path,  # noqa: ARG001 - where the cluster lives
    tmp_path: Path,
    codex_command: str,
) -> None:
    reset = int(time.time()) + 3600
    told = {
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": str(reset),
    }
    error = {**used_up(plan_type="plus", resets_at=reset), "headers": told}
    script = [{"when": {"contains": "much"}, "times": 1, "error": error}, {"reply": "back again"}]
    with Cluster.start(real(tmp_path, script, kind="codex", command=codex_command, mcp=False)) as cluster:
        with pytest.raises(TurnFailed, match="hit your usage limit"):
            cluster["ada"].ask("too much", timeout=60)
        wait_for_lift(cluster, reset)


def real(place: Path, script: Any, **agent: Any) -> dict[str, Any]:
    for name in ("work", "runs"):
        (place / name).mkdir()
    facts = {"work_dir": str(place / "work"), "runs_dir": str(place / "runs"), "lifetime": "owner"}
    gateway = {"mode": "script", "script": script}
    return {
        "cluster": {"name": "real", "gateway": gateway, "start_timeout_s": 120, **facts},
        "agents": [{"name": "ada", **agent}],
    }
