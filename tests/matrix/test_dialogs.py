"""Questions of agents: answered by label, by policies, in time, and by nobody else; judged by the fake's own log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from matrix_rigs import FAKE, PYTHON, Log, folder, until

from orchestrator_lab import Cluster
from orchestrator_lab.errors import ConfigError, DialogNotAnswered
from orchestrator_lab.frames import dialogs_df
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGENTS: dict[str, dict[str, Any]] = {
    "asks": {},
    "rules": {"dialogs": {"allow": ["Bash(git *)"], "deny": ["Bash(rm *)"]}},
    "hurries": {"dialogs": {"timeout_s": 0.4, "on_timeout": "deny"}},
    "obeys": {"dialogs": "allow"},
}


class Lab:
    """A cluster of fakes that ask."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "work").mkdir()
        self.logs: dict[str, Log] = {}
        facts = {"name": "asked", "work_dir": str(place / "work"), "runs_dir": str(place / "runs"), "lifetime": "owner"}
        agents = [self.agent(name, **more) for name, more in AGENTS.items()]
        self.cluster = Cluster.start({"cluster": facts, "agents": agents})

    def agent(self, name: str, script: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        self.logs[name] = Log(self.place / f"{name}.jsonl")
        path = self.place / f"{name}.json"
        path.write_text(json.dumps(script or {}))
        command = [*PYTHON, str(FAKE), "--log", str(self.logs[name].path), "--script", str(path)]
        return {"name": name, "kind": "chat", "command": command, **more}

    def control(self, name: str, **action: Any) -> None:
        count = len(self.happened(name, "control"))
        with (self.place / f"{name}.jsonl.ctl").open("w") as pipe:
            pipe.write(json.dumps(action) + "\n")
        until(lambda: len(self.happened(name, "control")) > count, 30, "control")

    def happened(self, name: str, *events: str) -> list[dict[str, Any]]:
        return [one for one in self.logs[name].read() if one["event"] in events]

    def asked(self, name: str, **action: Any) -> Any:
        """Have an agent ask, and return the dialog with its options."""
        self.control(name, do="dialog", **action)
        return until(lambda: self.cluster[name].dialog, 30, "a dialog")

    def row(self, name: str) -> dict[str, Any]:
        """The newest dialog of an agent, once it is answered."""
        frame = dialogs_df(self.cluster.run, agents=name)
        return dict(frame.iloc[-1])

    def events(self, agent: str, *names: str) -> list[Any]:
        return [one for one in self.cluster.events() if one.agent == agent and one.event in names]


@pytest.fixture(scope="module")
def lab(module_runtime: Path) -> Iterator[Lab]:  # noqa: ARG001 - where the cluster lives
    made = Lab(folder())
    yield made
    made.cluster.shutdown()


def test_a_menu_that_paints_before_it_moves_gets_no_early_enter(lab: Lab) -> None:
    """As Claude Code's: the cursor stands on "Yes" some time before Enter means it."""
    lab.control("asks", set={"stale_menu_ms": 80})
    dialog = lab.asked("asks", kind="permission")
    assert dialog.answer("allow") == "Yes"
    assert until(lambda: lab.happened("asks", "dialog_answered"), 30, "the answer")[-1]["choice"] == "Yes"
    lab.control("asks", set={"stale_menu_ms": 0})


@pytest.mark.parametrize(
    ("kind", "option", "chosen", "decision"),
    [
        ("permission", "allow", "Yes", "allow"),
        ("permission", "deny", "No, and say what to do", "deny"),
        ("permission", "Yes, and do not ask again", "Yes, and do not ask again", "allow"),
        ("permission", 2, "Yes, and do not ask again", "allow"),
        ("update", "skip", "Skip this version", "Skip this version"),
        ("choice", "The second", "The second", "The second"),
        ("choice", 1, "The first", "The first"),
        ("trust", "yes", "Yes, I trust this folder", "Yes, I trust this folder"),
    ],
)
def test_an_option_is_chosen_by_its_label(lab: Lab, kind: str, option: Any, chosen: str, decision: str) -> None:
    """The refusing option is preselected, and the one that is chosen is not."""
    before = datetime.now(UTC)
    dialog = lab.asked("asks", kind=kind)
    assert (dialog.agent, dialog.kind) == ("asks", kind)
    assert before - timedelta(seconds=1) < dialog.opened_at < datetime.now(UTC)
    assert [one.dialog_id for one in lab.cluster.dialogs] == [dialog.dialog_id]
    assert lab.cluster["asks"].state == "waiting"
    assert dialog.answer(option) == chosen
    assert lab.happened("asks", "dialog_answered")[-1]["choice"] == chosen
    assert lab.cluster["asks"].dialog is None
    row = lab.row("asks")
    assert (row["dialog_id"], row["answered_by"], row["decision"]) == (dialog.dialog_id, "human", decision)
    assert row["wait_s"] > 0
    answered = lab.events("asks", "dialog.answering", "dialog.answered")[-2:]
    assert [one.event for one in answered] == ["dialog.answering", "dialog.answered"]
    assert answered[1].attributes["option"] == chosen
    assert not lab.happened("asks", "stray")


def test_an_answer_meets_only_the_dialog_that_it_is_for(lab: Lab) -> None:
    first = lab.asked("asks", kind="choice")
    with pytest.raises(ConfigError, match=r"no single option 'the'; it offers 1: The first; 2: The second; 3: Cancel"):
        first.answer("the")
    for wrong in ("something else", "", 0, 4, "allow"):
        with pytest.raises(ConfigError, match="no single option"):
            first.answer(wrong)
    keys = len(lab.happened("asks", "keys"))
    lab.control("asks", do="close")
    until(lambda: lab.cluster["asks"].dialog is None, 30, "the end of the dialog")
    with pytest.raises(DialogNotAnswered, match=r"not open \(any more\); it asks nothing now"):
        first.answer("Cancel")
    second = lab.asked("asks", kind="update")
    with pytest.raises(DialogNotAnswered, match=f"it asks something else now .{second.dialog_id}"):
        first.answer(1)
    assert len(lab.happened("asks", "keys")) == keys
    assert second.answer(2) == "Skip this version"


def test_no_agent_answers_another(lab: Lab) -> None:
    """The unix socket alone takes answers; an agent's secret opens nothing of the kind."""
    dialog = lab.asked("asks", kind="permission")
    place = lab.cluster.client.folder
    record = json.loads((place / "cluster.json").read_text())
    for agent in ("rules", "asks"):
        token = json.loads((place / "agents" / agent / "agent.json").read_text())["token"]
        for path in ("/agents/asks/dialog", "/agent/dialog", "/agent/agents/asks/dialog", "/mcp/agents/asks/dialog"):
            answer = httpx.post(
                f"http://127.0.0.1:{record['port']}{path}",
                headers={"authorization": f"Bearer {token}"},
                json={"dialog_id": dialog.dialog_id, "option": "allow"},
                timeout=30,
            )
            assert answer.status_code in {404, 405}, path
    # Nor does the command line from inside a pane.
    pane = {
        "ORCHESTRATOR_LAB_AGENT": "rules",
        "ORCHESTRATOR_LAB_AGENT_TOKEN": "t",
        "ORCHESTRATOR_LAB_AGENT_URL": f"http://127.0.0.1:{record['port']}",
    }
    refused = command("answer", "asks", "allow", env=pane)
    assert refused.returncode == 2
    assert "an agent may not answer a dialog" in refused.stderr
    assert lab.cluster["asks"].dialog is not None
    dialog.answer("deny")


def command(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator_lab", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=60,
        check=False,
    )


def test_the_command_line_lists_and_answers(lab: Lab) -> None:
    assert "no agent asks anything" in command("dialogs").stdout
    dialog = lab.asked("asks", kind="choice")
    (listed,) = json.loads(command("dialogs", "--json").stdout)
    assert listed["dialog_id"] == dialog.dialog_id
    assert listed["options"] == ["The first", "The second", "Cancel"]
    shown = command("dialogs").stdout
    assert "asks (choice" in shown
    assert "  2. The second" in shown
    wrong = command("answer", "asks", "allow")
    assert (wrong.returncode, "it offers 1: The first" in wrong.stderr) == (2, True)
    stale = command("answer", "asks", "2", "--dialog", "dlg_gone")
    assert (stale.returncode, "not open (any more)" in stale.stderr) == (2, True)
    assert "answered asks: The second" in command("answer", "asks", "2").stdout
    assert lab.happened("asks", "dialog_answered")[-1]["choice"] == "The second"
    assert "asks nothing now" in command("answer", "asks", "2").stderr


@pytest.mark.parametrize(
    ("agent", "asked", "chosen", "rule"),
    [
        ("rules", "git status", "Yes", "allow: Bash(git *)"),
        ("rules", "rm -rf x", "No, and say what to do", "deny: Bash(rm *)"),
        ("rules", "git status; rm -rf x", "No, and say what to do", "deny: Bash(rm *)"),
        ("obeys", "anything", "Yes", "default"),
        ("hurries", "anything", "No, and say what to do", "timeout_s: 0.4"),
    ],
)
def test_policies_answer(lab: Lab, agent: str, asked: str, chosen: str, rule: str) -> None:
    count = len(lab.happened(agent, "dialog_answered"))
    lab.control(agent, do="dialog", kind="permission", command=asked)
    until(lambda: len(lab.happened(agent, "dialog_answered")) > count, 30, "the policy's answer")
    assert lab.happened(agent, "dialog_answered")[-1]["choice"] == chosen
    until(lambda: lab.cluster[agent].dialog is None, 30, "the end of the dialog")
    decision = "deny" if chosen.startswith("No") else "allow"
    row = lab.row(agent)
    assert (row["answered_by"], row["decision"]) == ("policy", decision)
    assert agent != "hurries" or row["wait_s"] >= 0.4
    assert lab.events(agent, "dialog.answered")[-1].attributes["rule"] == rule


def test_what_no_rule_decides_is_a_persons(lab: Lab) -> None:
    dialog = lab.asked("rules", kind="permission", command="git status; make")
    time.sleep(0.5)
    assert not lab.events("rules", "dialog.answering")[len(lab.events("rules", "dialog.answered")) :]
    assert lab.cluster["rules"].dialog == dialog
    dialog.answer("allow")
    for kind in ("update", "choice", "trust"):
        dialog = lab.asked("obeys", kind=kind)
        time.sleep(0.3)
        assert lab.cluster["obeys"].dialog == dialog  # a policy is for permissions only
        dialog.answer(1)


def test_an_answer_outlives_the_supervisor(lab: Lab) -> None:
    """The dialog that a dead supervisor left open is the same one for its successor."""
    dialog = lab.asked("asks", kind="permission")
    until(lambda: lab.cluster["asks"].dialog and lab.cluster["asks"].dialog.options, 30, "its options")
    record = read_record(lab.cluster.client.folder)
    assert record is not None
    os.kill(record.supervisor_pid or 0, signal.SIGKILL)
    again = until(lambda: lab.cluster["asks"].dialog, 30, "the dialog after the supervisor's death")
    assert again == dialog
    assert again.answer("allow") == "Yes"
    row = lab.row("asks")
    assert (row["dialog_id"], row["answered_by"], row["decision"]) == (dialog.dialog_id, "human", "allow")
