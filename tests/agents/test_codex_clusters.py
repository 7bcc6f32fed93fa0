"""Clusters with Codex: beside Claude Code, with the user's own settings, and at its own questions."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.agents.codex import _converse
from orchestrator_lab.frames import agents_df, dialogs_df, messages_df, tool_calls_df, turns_df

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.codex, pytest.mark.timeout(300)]

SEND = "mcp__orchestrator-lab__send_message"
SCRIPT = [
    {"when": {"matches": r"^tell (\w+)"}, "tool": {"name": SEND, "input": {"to": "{1}", "text": "a question"}}},
    {
        "when": {"contains": "a question"},
        "tool": {"name": SEND, "input": {"to": "{sender}", "text": "an answer", "in_reply_to": "{message_id}"}},
    },
    {"when": {"tool_result": SEND}, "reply": "sent by {agent}"},
    {"when": {"contains": "sleep"}, "tool": {"name": "exec_command", "input": {"cmd": "sleep 2"}}},
    {"when": {"tool_result": True}, "reply": "after the tool"},
    {"reply": "{agent}: {text}"},
]


def config(work: Path, *agents: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    (work / "w").mkdir(parents=True)
    (work / "runs").mkdir()
    gateway = {"mode": "script", "script": SCRIPT}
    folders = {"work_dir": str(work / "w"), "runs_dir": str(work / "runs")}
    return {"cluster": {"name": "lab", **folders, "gateway": gateway, **cluster}, "agents": list(agents)}


@pytest.mark.claude
def test_claude_and_codex_write_to_each_other(
    runtime: Path, tmp_path: Path, claude_command: str, codex_command: str
) -> None:
    del runtime
    agents = (
        {"name": "clara", "kind": "claude", "command": claude_command},
        {"name": "cody", "kind": "codex", "command": codex_command, "role": "coder", "instructions": "Be brief."},
    )
    with Cluster.start(config(tmp_path / "lab", *agents)) as cluster:
        assert cluster["clara"].ask("tell cody", timeout=60).reply == "sent by clara"
        cluster.wait(timeout=60)
        assert cluster["cody"].ask("tell clara", timeout=60).reply == "sent by cody"
        cluster.wait(timeout=60)
        messages = messages_df(cluster.run)
        sent = messages[messages.sender != "user"]
        assert sent[["sender", "recipient", "content", "kind"]].to_numpy().tolist() == [
            ["clara", "cody", "a question", "direct"],
            ["cody", "clara", "an answer", "reply"],
            ["cody", "clara", "a question", "direct"],
            ["clara", "cody", "an answer", "reply"],
        ]
        assert set(messages.status) == {"answered"}
        assert set(messages.acceptance_source) == {"hook"}
        assert sent.in_reply_to.notna().tolist() == [False, True, False, True]
        calls = tool_calls_df(cluster.run)
        assert sorted(zip(calls.agent, calls.status, strict=True)) == [("clara", "ok")] * 2 + [("cody", "ok")] * 2
        assert set(calls.name) == {SEND, SEND.replace("-", "_")}
        turns = turns_df(cluster.run)
        assert turns.output_tokens.notna().all()
        assert set(turns.end_reason) == {"completed"}
        kinds = agents_df(cluster.run).set_index("name").program.to_dict()
        assert kinds == {"clara": "claude-code", "cody": "codex"}
        asked = [event for event in cluster.events() if event.event == "gateway.request"]
        assert {event.attributes["path"] for event in asked if event.agent == "cody"} == {"/v1/responses"}


def test_the_users_own_settings_stay_his(runtime: Path, tmp_path: Path, codex_command: str) -> None:
    """Hooks, their trust, instructions and files of a user, with ``config: inherit``."""
    del runtime
    home = tmp_path / "home"
    home.mkdir()
    mark = "[[hooks.{event}]]\n[[hooks.{event}.hooks]]\ntype = 'command'\ncommand = \"touch {home}/{name}\"\n"
    text = 'developer_instructions = "OWN INSTRUCTIONS"\n'
    text += mark.format(event="UserPromptSubmit", home=home, name="trusted")
    text += mark.format(event="Stop", home=home, name="never-trusted")
    place = home / "config.toml"
    place.write_text(text)
    environ = {**os.environ, "CODEX_HOME": str(home)}
    listed = _converse((codex_command,), [], environ, str(tmp_path))["data"][0]["hooks"]
    (own,) = [hook for hook in listed if hook["eventName"] == "userPromptSubmit"]
    text += f'[hooks.state."{own["key"]}"]\ntrusted_hash = "{own["currentHash"]}"\n'
    place.write_text(text)
    agent = {"name": "ada", "kind": "codex", "command": codex_command, "config": "inherit", "instructions": "BRIEF"}
    agent["env"] = {"CODEX_HOME": str(home)}  # type: ignore[assignment]
    with Cluster.start(config(tmp_path / "lab", agent)) as cluster:
        ada = cluster["ada"]
        # The user's other hook is for the user to review: Codex asks, and the lab leaves the answer to a person.
        assert ada.state == "waiting"
        dialog = ada.facts["dialog"]
        assert (dialog["kind"], dialog["subject"]) == ("trust", "hooks")
        assert "Continue without trusting (hooks won't run)" in dialog["options"]
        ada.pane.send_keys("Escape", enter=False)
        assert ada.ask("hello", timeout=60).reply == "ada: hello"
        launch = (cluster.client.folder / "agents" / "ada" / "launch.sh").read_text().splitlines()[-1]
        assert "OWN INSTRUCTIONS" in launch
        assert "BRIEF" in launch
        secrets = [json.loads((cluster.client.folder / "agents" / "ada" / "agent.json").read_text())[key] for key in
                   ("token", "gateway_secret")]  # fmt: skip
        assert not any(secret in launch for secret in secrets)
        assert "bypass" not in launch
    assert (home / "trusted").exists()
    assert not (home / "never-trusted").exists()
    assert place.read_text().startswith(text)


def test_a_folder_that_is_not_trusted_is_a_dialog(runtime: Path, tmp_path: Path, codex_command: str) -> None:
    del runtime
    home = tmp_path / "home"
    home.mkdir()
    # A user with another provider, whom nothing else is asked.
    (home / "config.toml").write_text("check_for_update_on_startup = false\n")
    agent = {"name": "ada", "kind": "codex", "command": codex_command, "config": "inherit"}
    agent["env"] = {"CODEX_HOME": str(home)}  # type: ignore[assignment]
    settings = config(tmp_path / "lab", agent)
    subprocess.run(["git", "init", "-q", str(tmp_path / "lab" / "w")], check=True)
    with Cluster.start(settings) as cluster:
        ada = cluster["ada"]
        assert ada.state == "waiting"
        assert ada.facts["dialog"]["kind"] == "trust"
        assert ada.facts["dialog"]["options"][0] == "Trust and continue"
        held = ada.send("hello")
        assert held.status == "queued"
        ada.pane.send_keys("Enter", enter=False)
        assert held.result(timeout=60) == "ada: hello"
        (row,) = dialogs_df(cluster.run).to_dict("records")
        assert (row["kind"], row["answered_by"]) == ("trust", "human")


def test_without_a_login_it_waits_at_its_login(runtime: Path, tmp_path: Path, codex_command: str) -> None:
    del runtime
    (tmp_path / "home").mkdir()
    agent = {"name": "ada", "kind": "codex", "command": codex_command, "gateway": {"mode": "none"}}
    agent["env"] = {"CODEX_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": ""}
    with Cluster.start(config(tmp_path / "lab", agent)) as cluster:
        assert cluster["ada"].state == "waiting"
        assert cluster["ada"].facts["dialog"]["kind"] == "login"


def test_a_text_joins_the_turn_that_runs(runtime: Path, tmp_path: Path, codex_command: str) -> None:
    del runtime
    agent = {"name": "ada", "kind": "codex", "command": codex_command}
    with Cluster.start(config(tmp_path / "lab", agent)) as cluster:
        first = cluster["ada"].send("sleep").accepted(timeout=60)
        deadline = time.monotonic() + 30
        while cluster["ada"].state != "busy":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = cluster["ada"].send("by the way", when="now")
        assert first.result(timeout=60)
        assert second.result(timeout=60)
        cluster.wait(timeout=30)
        messages = messages_df(cluster.run)
        assert messages.status.tolist() == ["answered", "answered"]
        assert messages.turn_id.nunique() == 1
