"""How the real Claude Code starts, what it asks before it is ready, and how it comes back."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import messages_df, turns_df
from orchestrator_lab.agents.claude import ClaudeAdapter
from orchestrator_lab.errors import TurnFailed
from orchestrator_lab.frames import agents_df, dialogs_df
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from pathlib import Path

    from claude_helpers import Lab

pytestmark = [pytest.mark.claude, pytest.mark.timeout(240)]

SCRIPT: list[dict[str, Any]] = [
    {"when": {"text": "think slowly"}, "reply": "thought", "delay_s": 300},
    {"when": {"text": "never answer"}, "reply": "too late", "delay_s": 300},
    {"reply": "answer {turn}"},
]
#: The key that the lab gives to agents of a keyless gateway; a test user has approved it.
KEY = "sk-ant-orchestrator-lab-script-gateway-0000000000"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Configuration folder of a user who has been through the onboarding and has a hook and a server of their own."""
    folder = tmp_path / "user"
    folder.mkdir()
    mine = tmp_path / "hook.log"
    settings = {
        "hooks": {"UserPromptSubmit": [{"hooks": [{"type": "command", "command": f"cat >>'{mine}'; echo >>'{mine}'"}]}]}
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    known = {
        "theme": "dark",
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "mcpServers": {"mine": {"type": "stdio", "command": "/bin/false", "args": []}},
    }
    (folder / ".claude.json").write_text(json.dumps(known))
    return folder


def inherit(user: Path) -> dict[str, Any]:
    return {"name": "ada", "config": "inherit", "env": {"CLAUDE_CONFIG_DIR": str(user)}}


def test_an_untrusted_folder_is_a_persons_question(start_lab: Any, user: Path, tmp_path: Path) -> None:
    lab = start_lab(inherit(user), script=SCRIPT, name="trust")
    ada = lab.cluster["ada"]
    assert ada.state == "waiting"
    assert ada.facts["dialog"]["kind"] == "trust"
    assert ada.facts["dialog"]["options"] == ["Yes, I trust this folder", "No, exit"]
    exchange = ada.send("too early")
    time.sleep(1.0)  # nothing may happen in it
    assert exchange.status == "queued"
    assert ada.state == "waiting"
    lab.presses("ada", "Enter")
    assert exchange.result(60) == "answer 1"
    row = dialogs_df(lab.cluster.run).iloc[0]
    assert (row["kind"], row["answered_by"]) == ("trust", "human")
    assert row["wait_s"] > 1.0
    # The user's own hook ran beside the lab's, with the same prompt; their server is still known to the program.
    heard = [json.loads(line) for line in (tmp_path / "hook.log").read_text().split("\n") if line]
    assert [one["prompt"] for one in heard] == ["too early"]
    assert "mine" in json.loads((user / ".claude.json").read_text())["mcpServers"]
    assert exchange.message["acceptance_source"] == "hook"
    record = user / "projects"
    # Claude Code writes its record some time after it has told of a turn's end.
    [transcript] = lab.until(lambda: list(record.glob("*/*.jsonl")))
    assert transcript.stem == ada.facts["session_id"]
    lab.cluster.shutdown()


def test_a_folder_that_the_lab_made_is_trusted_by_its_label(start_lab: Any, user: Path, tmp_path: Path) -> None:
    made = tmp_path / "made by the lab"
    lab = start_lab({**inherit(user), "work_dir": str(made), "create_work_dir": True}, script=SCRIPT, name="made")
    assert lab.cluster["ada"].state == "idle"
    assert lab.cluster["ada"].ask("hello", timeout=60).reply == "answer 1"
    row = dialogs_df(lab.cluster.run).iloc[0]
    assert (row["kind"], row["answered_by"], row["decision"]) == ("trust", "policy", "Yes, I trust this folder")
    lab.cluster.shutdown()


def test_the_first_message_waits_for_the_tools(start_lab: Any) -> None:
    lab = start_lab({"name": "ada"}, script=SCRIPT, name="tools")
    ada = lab.cluster["ada"]
    assert ada.ask("hello", timeout=60).reply == "answer 1"
    # A prompt before that would reach a model that has no tools.
    order = [event.event for event in lab.events("agent.ready", "agent.tools", "message.queued", "message.claimed")]
    assert order.count("agent.tools") == 1
    assert order[-1] == "message.claimed"

    # A new supervisor knows that they were listed, and holds nothing back.
    def held_s(turn: int) -> float:
        os.kill(read_record(lab.runtime / "tools").supervisor_pid, signal.SIGKILL)
        exchange = ada.ask("again", timeout=60)
        assert exchange.reply == f"answer {turn}"
        told = lab.events("message.queued", "message.claimed")
        queued, claimed = (event for event in told if event.message_id == exchange.message_id)
        return float(claimed.monotonic_s - queued.monotonic_s)

    # One that does not know holds it for eight seconds, each time; a busy machine may once take as long.
    assert any(held_s(turn) < 7.5 for turn in (2, 3, 4))
    lab.cluster.shutdown()


def test_a_login_that_is_asked_for_is_named(start_lab: Any, user: Path, tmp_path: Path) -> None:
    """The login screen of the real program is recognised; an agent without a login fails its turn with the reason."""
    made = tmp_path / "made"
    agent = {**inherit(user), "work_dir": str(made), "create_work_dir": True, "gateway": {"mode": "none"}}
    agent["env"] = {**agent["env"], "ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
    lab = start_lab(agent, script=SCRIPT, name="login")
    ada = lab.cluster["ada"]
    with pytest.raises(TurnFailed, match=r"(?i)log ?in"):
        ada.ask("hello", timeout=120)
    lab.types("ada", "/login")
    lab.shows("ada", "/login")
    lab.presses("ada", "Enter")
    screen = lab.shows("ada", "Select login method")
    adapter = ClaudeAdapter()
    adapter.use_rules("2.1.197")
    seen = adapter.question(screen, starting=True)
    assert (seen.kind, seen.subject, seen.answer) == ("login", "login", None)
    assert any("subscription" in option for option in seen.options)
    # A message does not go into the menu.
    exchange = ada.send("not into the menu")
    note = lab.until(lambda: [one for one in lab.events("note") if one.message_id == exchange.message_id])[0]
    assert "not in sight" in note.attributes["text"]
    assert exchange.status == "queued"
    lab.cluster.shutdown()


def test_sessions_go_on_through_restarts_and_kills(start_lab: Any) -> None:
    lab: Lab = start_lab("ada", script=SCRIPT, name="life")
    ada = lab.cluster["ada"]
    session = ada.facts["session_id"]
    assert ada.ask("one", timeout=60).reply == "answer 1"
    ada.restart()
    assert ada.facts["session_id"] == session
    # The model is given the history: two texts of the user.
    assert ada.ask("two", timeout=60).reply == "answer 2"
    lab.cluster.restart()
    assert ada.facts["session_id"] == session
    assert ada.ask("three", timeout=60).reply == "answer 3"

    # kill -9 in the middle of a turn
    exchange = ada.send("think slowly")
    exchange.accepted(60)
    lab.until(lambda: "think slowly" in lab.prompts("ada"))
    queued = ada.send("waits for the restart")
    before = len(lab.events("agent.exited"))
    os.kill(ada.facts["pid"], signal.SIGKILL)
    with pytest.raises(TurnFailed, match="ended during the turn"):
        exchange.result(30)
    assert ada.state == "exited"
    [exited] = lab.events("agent.exited")[before:]
    assert exited.attributes["signal"] in (9, "SIGKILL")
    assert turns_df(lab.cluster.run).iloc[-1]["end_reason"] == "exited"
    ada.restart()
    assert queued.result(60).startswith("answer ")
    assert lab.prompts("ada").count("think slowly") == 1
    assert agents_df(lab.cluster.run).iloc[0]["restarts"] == 3

    # /clear by hand: another session, the agent and its rows go on
    lab.types("ada", "/clear")
    lab.shows("ada", "/clear")
    lab.presses("ada", "Enter")
    lab.until(lambda: ada.facts["session_id"] != session)
    assert ada.ask("in a new session", timeout=60).reply.startswith("answer ")
    lab.cluster.wait(timeout=30)
    assert agents_df(lab.cluster.run).iloc[0]["session_id"] == ada.facts["session_id"] != session
    assert turns_df(lab.cluster.run).iloc[-1][["input_tokens", "output_tokens"]].notna().all()
    assert set(messages_df(lab.cluster.run)["status"]) == {"answered", "failed"}
    run = lab.cluster.run
    lab.cluster.shutdown()
    # Both sessions' records are in the run.
    kept = {path.name for path in (run.path / "transcripts").glob("*.jsonl")}
    assert kept == {"ada.jsonl", f"ada.{session}.jsonl"}


def test_a_killed_one_comes_back_by_itself_and_knows_what_was_said(start_lab: Any) -> None:
    care = {"restart": {"policy": "on-failure", "backoff_s": 0.5}, "hang": {"alert_s": 4}}
    lab: Lab = start_lab("ada", script=SCRIPT, name="care", **care)
    ada = lab.cluster["ada"]
    session, pid = ada.facts["session_id"], ada.facts["pid"]
    exchange = ada.send("never answer").accepted(60)
    lab.until(lambda: lab.prompts("ada") == ["never answer"])

    # Its spinner turns, draws and costs processor time, and is no progress.
    def alerts(what: str) -> list[Any]:
        return [event for event in lab.events(f"alert.{what}") if event.attributes["rule"] == "hung"]

    lab.until(lambda: alerts("opened"), 60)
    assert [event.attributes["step"] for event in lab.events("agent.hung")] == ["alert"]

    def resolved() -> set[str]:
        return {event.attributes["alert_id"] for event in alerts("resolved")}

    hung = alerts("opened")[-1].attributes["alert_id"]
    assert hung not in resolved()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(TurnFailed, match="ended during the turn"):
        exchange.result(30)
    # The model is given the history: the prompt that was cut off (and a word on that), and this one.
    assert ada.ask("what now", timeout=120).reply in {"answer 2", "answer 3"}
    assert ada.facts["session_id"] == session
    assert ada.facts["pid"] != pid
    lab.took("ada", "never answer", "what now")
    (planned,) = lab.events("agent.restarting")
    assert planned.attributes["reason"] == "signal 9"
    assert hung in resolved()
    assert agents_df(lab.cluster.run).iloc[0]["restarts"] == 1
    assert turns_df(lab.cluster.run)["end_reason"].tolist() == ["exited", "completed"]

    # A record that was cut off before its first prompt cannot be gone on with: a new session begins.
    ada.stop()
    [record] = (lab.runtime / "care" / "agents" / "ada" / "claude" / "projects").glob("*/*.jsonl")
    record.write_bytes(record.read_bytes().split(b"\n")[0] + b'\n{"parentUuid":null,"type":"us')
    ada.restart()
    assert ada.facts["session_id"] != session
    assert ada.ask("from the start", timeout=60).reply == "answer 1"
    lab.cluster.shutdown()
