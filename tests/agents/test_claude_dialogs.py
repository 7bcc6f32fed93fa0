"""Claude Code asks for permission: answered by the hook's reply, by a person through the lab, and in time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.errors import DialogNotAnswered, TurnFailed
from orchestrator_lab.frames import dialogs_df, tool_calls_df

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.claude, pytest.mark.timeout(300)]


def shell(command: str) -> dict[str, Any]:
    return {"name": "Bash", "input": {"command": command, "description": "d"}}


SCRIPT: list[dict[str, Any]] = [
    {"when": {"contains": "one file"}, "tool": shell("touch one"), "then": {"reply": "it said {tool_result}"}},
    {
        "when": {"contains": "two files"},
        "tool": [shell("touch two"), shell("touch three")],
        "then": {"reply": "it said {tool_result}"},
    },
    {"when": {"contains": "remove"}, "tool": shell("touch four; rm one"), "then": {"reply": "it said {tool_result}"}},
    {"reply": "nothing to do"},
]
AGENTS: list[dict[str, Any]] = [
    {"name": "ada"},
    {"name": "rules", "dialogs": {"allow": ["Bash(touch *)"], "deny": ["Bash(rm *)"]}},
    {"name": "hurries", "dialogs": {"timeout_s": 0.3, "on_timeout": "allow"}},
]


@pytest.fixture(scope="module")
def lab(start_lab: Any) -> Any:
    return start_lab(*AGENTS, script=SCRIPT, name="dialogs")


def made(lab: Any, name: str) -> Path:
    return lab.cluster.config.work_dir / name  # type: ignore[no-any-return]


def test_a_policy_answers_in_the_hook(lab: Any) -> None:
    exchange = lab.cluster["rules"].ask("two files", timeout=60)
    assert made(lab, "three").exists()
    lab.shows("rules", "Allowed by PermissionRequest hook")
    rows = dialogs_df(lab.cluster.run, agents="rules").to_dict("records")
    assert [(row["answered_by"], row["decision"], row["turn_id"]) for row in rows] == [
        ("policy", "allow", exchange.turn["turn_id"])
    ] * 2
    answered = [event for event in lab.events("dialog.answered") if event.agent == "rules"]
    assert {(event.source, event.attributes["rule"]) for event in answered} == {("hook", "allow: Bash(touch *)")}
    # It never waited: no key was pressed, and no state says so.
    states = [event.attributes["state"] for event in lab.events("agent.state") if event.agent == "rules"]
    assert "waiting" not in states


def test_a_policy_denies_in_the_hook_and_the_turn_goes_on(lab: Any) -> None:
    exchange = lab.cluster["rules"].ask("remove", timeout=60)
    assert "denied by the lab's policy (deny: Bash(rm *))" in exchange.reply
    assert not made(lab, "four").exists()
    row = dialogs_df(lab.cluster.run, agents="rules").iloc[-1]
    assert (row["answered_by"], row["decision"]) == ("policy", "deny")
    call = tool_calls_df(lab.cluster.run, agents="rules").iloc[-1]
    assert (call["status"], json.loads(call["input"])["command"]) == ("denied", "touch four; rm one")


def test_a_person_answers_through_the_lab(lab: Any) -> None:
    ada = lab.cluster["ada"]
    exchange = ada.send("two files")
    first = lab.until(lambda: ada.dialog)
    assert "touch two" in first.subject
    assert first.answer("allow") == "Yes"
    second = lab.until(lambda: (asked := ada.dialog) and asked.dialog_id != first.dialog_id and asked)
    assert "touch three" in second.subject
    with pytest.raises(DialogNotAnswered, match="something else now"):
        first.answer("deny")
    lab.until(lambda: ada.dialog.options)
    assert ada.dialog.answer(1) == "Yes"
    assert "it said" in exchange.result(30)
    rows = dialogs_df(lab.cluster.run, agents="ada").to_dict("records")
    assert [(row["answered_by"], row["decision"]) for row in rows] == [("human", "allow")] * 2
    assert all(row["wait_s"] > 0 for row in rows)
    assert [row["status"] for row in tool_calls_df(lab.cluster.run, agents="ada").to_dict("records")] == ["ok"] * 2


def test_a_person_denies_through_the_lab(lab: Any) -> None:
    """Claude Code's own "No" ends the turn: it waits to be told what to do instead."""
    ada = lab.cluster["ada"]
    exchange = ada.send("remove")
    assert lab.until(lambda: ada.dialog).answer("deny").startswith("No")
    with pytest.raises(TurnFailed, match="interrupted"):
        exchange.result(30)
    row = dialogs_df(lab.cluster.run, agents="ada").iloc[-1]
    assert (row["answered_by"], row["decision"]) == ("human", "deny")
    assert tool_calls_df(lab.cluster.run, agents="ada").iloc[-1]["status"] == "denied"
    assert ada.ask("go on", timeout=30).reply == "nothing to do"


def test_time_runs_out_on_the_screen(lab: Any) -> None:
    exchange = lab.cluster["hurries"].ask("one file", timeout=60)
    assert "it said" in exchange.reply
    row = dialogs_df(lab.cluster.run, agents="hurries").iloc[-1]
    assert (row["answered_by"], row["decision"]) == ("policy", "allow")
    assert row["wait_s"] >= 0.3
