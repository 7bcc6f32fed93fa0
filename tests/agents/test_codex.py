from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster
from orchestrator_lab.agents.codex_rollout import RolloutTail
from orchestrator_lab.errors import TurnFailed
from orchestrator_lab.frames import agents_df, dialogs_df, messages_df, tool_calls_df, turns_df
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.codex, pytest.mark.timeout(300)]

ESCALATED = {"sandbox_permissions": "require_escalated", "justification": "because"}
NAP = "while [ ! -e wake ]; do sleep 0.1; done; echo awake"
SCRIPT = [
    {"when": {"contains": "make a file"}, "tool": {"name": "exec_command", "input": {"cmd": "{text}"}}},
    {
        "when": {"matches": "^may I (.*)"},
        "tool": {"name": "exec_command", "input": {"cmd": "echo {1}", **ESCALATED}},
        "then": {"reply": "it said {tool_result}"},
    },
    {
        "when": {"contains": "look around"},
        "tool": {"name": "exec_command", "input": {"cmd": "echo one; exit 3"}},
        "then": {"reply": "looked"},
    },
    {"when": {"contains": "take your time"}, "reply": "slow " * 5000, "tokens_per_s": 20},
    {"when": {"contains": "take a nap"}, "tool": {"name": "exec_command", "input": {"cmd": NAP}}},
    {"when": {"contains": "take a nap", "tool_result": True}, "reply": "rested"},
    {"when": {"contains": "break"}, "error": {"status": 400, "type": "invalid_request_error", "message": "Broken."}},
    {"when": {"matches": "^count"}, "reply": "text number {turn}"},
    {"reply": "{agent}: read"},
]


def config(command: str, work: Path, *names: str, **agent: Any) -> dict[str, Any]:
    for folder in ("w", "runs"):
        (work / folder).mkdir(exist_ok=True)
    cluster = {"name": "lab", "work_dir": str(work / "w"), "runs_dir": str(work / "runs")}
    cluster["gateway"] = {"mode": "script", "script": SCRIPT}  # type: ignore[assignment]
    return {
        "cluster": cluster,
        "agents": [{"name": name, "kind": "codex", "command": command, **agent} for name in names],
    }


class CodexLab:
    """A running cluster with Codex agents, and what they recorded of themselves."""

    def __init__(self, cluster: Cluster, work: Path) -> None:
        self.cluster = cluster
        self.work = work
        self.folder: Path = cluster.client.folder

    def rollouts(self, agent: str = "ada") -> list[Path]:
        return sorted((self.folder / "agents" / agent / "codex" / "sessions").glob("*/*/*/*.jsonl"))

    def rollout(self, agent: str = "ada") -> RolloutTail:
        """The record of the agent's one session."""
        (path,) = self.rollouts(agent)
        tail = RolloutTail(path)
        tail.KEEP = 1000  # type: ignore[misc]
        tail.read()
        return tail

    def until(self, what: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := what()):
            if time.monotonic() > deadline:
                pytest.fail(f"did not happen; the screens show:\n{self.cluster.screens()}")
            time.sleep(0.02)
        return found

    def key(self, name: str, agent: str = "ada") -> None:
        self.cluster[agent].pane.send_keys(name, enter=False)


@pytest.fixture(scope="module")
def lab(codex_command: str, module_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodexLab]:
    del module_runtime
    work = tmp_path_factory.mktemp("codex")
    with Cluster.start(config(codex_command, work, "ada")) as cluster:
        yield CodexLab(cluster, work / "w")


def test_it_is_ready_when_its_composer_is_there(lab: CodexLab) -> None:
    (row,) = agents_df(lab.cluster.run).to_dict("records")
    assert (row["kind"], row["program"], row["program_version"]) == ("codex", "codex", "0.169.0")
    (ready,) = [event for event in lab.cluster.events() if event.event == "agent.ready"]
    assert ready.source == "screen"
    assert "Ask Codex" in str(lab.cluster["ada"].screen().text)


def story(lab: CodexLab) -> str:
    """Say what happened, as the lab and as Codex tell it."""
    lines = [
        f"{one.monotonic_s:.3f} {one.event} {one.source} {one.turn_id} {one.attributes}" for one in lab.cluster.events()
    ]
    turns = [f"{turn.turn_id} {turn.prompts} {turn.reply} {turn.reason}" for turn in lab.rollout().turns]
    return "\n".join(["", *lines, *turns])


def test_twenty_asks_in_a_row(lab: CodexLab) -> None:
    ada = lab.cluster["ada"]
    replies = [ada.ask(f"count {number}", timeout=60).reply for number in range(20)]
    assert replies == [f"text number {number + 1}" for number in range(20)], story(lab)
    lab.cluster.wait(timeout=30)
    messages, turns = messages_df(lab.cluster.run), turns_df(lab.cluster.run)
    assert set(messages.status) == {"answered"}
    assert set(messages.acceptance_source) == {"hook"}
    assert set(turns.end_reason) == {"completed"}
    assert turns.output_tokens.tolist() == [4] * 9 + [4] * 11
    assert turns.input_tokens.is_monotonic_increasing
    assert turns.input_tokens.iloc[0] > 1000
    assert set(turns.model) == {"gpt-5-codex"}
    assert set(turns.tokens_source) == {"reported"}
    facts = lab.cluster["ada"].facts
    assert facts["session_id"] in lab.rollouts()[0].name
    assert lab.rollout().unknown == 0
    # No message is typed before Codex has closed the turn before it, which is after its Stop hook.
    records = [json.loads(text) for text in lab.rollouts()[0].read_text().splitlines()]
    closed = [one["timestamp"] for one in records if one["payload"].get("type") == "task_complete"]
    claimed = [one.at for one in lab.cluster.events() if one.event == "message.claimed"]
    assert all(before[:23] <= after[:23] for before, after in zip(closed, claimed[1:], strict=False))


BODIES = {
    "lines": "\n".join(f"line {number}" for number in range(200)),
    "empty lines": "one\n\n\nfour",
    "long": "x y" * 33_000,
    "tabs": "a\tb\t\tc",
    "wide": "日本語 👩‍👩‍👧 é",
    "semicolon": "trail ;",
    "backslash": "trail \\",
    "slash": "/help me",
    "command": "/etc",
    "bang": "! ls",
    "hash": "# heading",
    "at": "@file.txt",
    "mention": "read @file.txt",
    "dollar": "costs $imagegen",
    "image": "{work}/shot.png",
    "exit": "exit",
    "quit": "/quit",
    "menu": "1. first\n2. second",
    "question": "?",
    "white space": "  around  ",
    "markup": "› not a prompt · /tmp",
}


def test_every_shape_of_body_arrives_whole(lab: CodexLab) -> None:
    (lab.work / "file.txt").write_text("content")
    (lab.work / "shot.png").write_bytes(bytes.fromhex("89504e470d0a1a0a0000000d49484452"))
    ada = lab.cluster["ada"]
    for name, shape in BODIES.items():
        body = shape.replace("{work}", str(lab.work))
        exchange = ada.ask(body, timeout=60)
        assert exchange.reply == "ada: read", name
        assert lab.rollout().turns[-1].prompts == [body.strip()], name
    assert not Path("/opt/x").exists()


def test_a_permission_waits_for_a_person(lab: CodexLab) -> None:
    ada = lab.cluster["ada"]
    allowed = ada.send("may I one")
    lab.until(lambda: ada.state == "waiting" and ada.facts["dialog"]["options"])
    dialog = ada.facts["dialog"]
    assert dialog["kind"] == "permission"
    assert "echo one" in dialog["subject"]
    assert dialog["options"][0].startswith("Yes, proceed")
    held = ada.send("count held")
    time.sleep(0.3)
    assert held.status == "queued"
    lab.key("Enter")
    assert "one" in allowed.result(timeout=30)
    assert held.result(timeout=30).startswith("text number")
    lab.cluster.wait(timeout=30)
    (row,) = dialogs_df(lab.cluster.run).to_dict("records")
    assert (row["kind"], row["answered_by"]) == ("permission", "human")
    assert row["wait_s"] > 0.2
    (call,) = tool_calls_df(lab.cluster.run).to_dict("records")
    assert (call["name"], call["status"]) == ("Bash", "ok")


def test_a_permission_denied_ends_the_turn(lab: CodexLab) -> None:
    ada = lab.cluster["ada"]
    denied = ada.send("may I two")
    lab.until(lambda: ada.state == "waiting" and ada.facts["dialog"]["options"])
    lab.key("Escape")
    with pytest.raises(TurnFailed, match="interrupted"):
        denied.result(timeout=30)
    again = ada.send("may I three")
    chosen = lab.until(lambda: ada.dialog).answer("deny")
    assert chosen.startswith("No")
    with pytest.raises(TurnFailed, match="interrupted"):
        again.result(timeout=30)
    assert [row["decision"] for row in dialogs_df(lab.cluster.run).to_dict("records")][-2:] == ["deny", "deny"]
    lab.until(lambda: ada.state == "idle")
    assert ada.facts["dialog"] is None
    assert ada.ask("count", timeout=30).reply.startswith("text number")


def test_a_permission_is_answered_by_label_and_by_policy(lab: CodexLab, codex_command: str) -> None:
    ada = lab.cluster["ada"]
    allowed = ada.send("may I four")
    assert lab.until(lambda: ada.dialog).answer("allow").startswith("Yes, proceed")
    assert "four" in allowed.result(timeout=30)
    policy = {"allow": ["Bash(echo *)"], "deny": ["Bash(echo no*)"]}
    pia = lab.cluster.add({"name": "pia", "kind": "codex", "command": codex_command, "dialogs": policy})
    assert "five" in str(pia.ask("may I five", timeout=60).reply)
    with pytest.raises(TurnFailed, match="interrupted"):
        pia.ask("may I no", timeout=60)
    rows = dialogs_df(lab.cluster.run, agents="pia").to_dict("records")
    assert [(row["answered_by"], row["decision"]) for row in rows] == [("policy", "allow"), ("policy", "deny")]
    answered = [one for one in lab.cluster.events() if one.event == "dialog.answered" and one.agent == "pia"]
    rules = [one.attributes["rule"] for one in answered]
    assert rules == ["allow: Bash(echo *)", "deny: Bash(echo no*)"]
    lab.cluster.remove("pia")


def test_tools_that_fail_are_told(lab: CodexLab) -> None:
    exchange = lab.cluster["ada"].ask("look around", timeout=30)
    assert exchange.reply == "looked"
    lab.cluster.wait(timeout=30)
    call = tool_calls_df(lab.cluster.run).iloc[-1]
    assert "one" in call.output
    assert call.status == "error"
    assert turns_df(lab.cluster.run).iloc[-1].tool_call_count == 1


def test_an_interrupt_and_an_error_end_the_turn_though_no_hook_fires(lab: CodexLab) -> None:
    ada = lab.cluster["ada"]
    slow = ada.send("take your time")
    lab.until(lambda: "slow slow" in str(ada.screen().text))
    ada.interrupt()
    with pytest.raises(TurnFailed, match="interrupted"):
        slow.result(timeout=30)
    with pytest.raises(TurnFailed, match=r"Broken\."):
        ada.ask("break", timeout=30)
    lab.cluster.wait(timeout=30)
    assert turns_df(lab.cluster.run).end_reason.tolist()[-2:] == ["interrupted", "error"]
    assert ada.ask("count", timeout=30).reply.startswith("text number")


def test_it_reports_while_no_supervisor_lives(lab: CodexLab) -> None:
    ada = lab.cluster["ada"]
    before = len(tool_calls_df(lab.cluster.run))
    exchange = ada.send("take a nap").accepted(timeout=30)
    lab.until(lambda: [event for event in lab.cluster.events() if event.event == "tool.started"][before:])
    record = read_record(lab.folder)
    assert record is not None
    os.kill(record.supervisor_pid or 0, signal.SIGSTOP)
    try:  # the tool ends, and its report waits
        (lab.work / "wake").touch()
        hooks = lab.folder / "agents" / "ada" / "hooks"
        deadline = time.monotonic() + 30
        while not (reports := list(hooks.glob("*.json"))):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(reports) == 1
    finally:
        os.kill(record.supervisor_pid or 0, signal.SIGKILL)
    assert exchange.result(timeout=60) == "rested"
    lab.cluster.wait(timeout=30)
    assert messages_df(lab.cluster.run).iloc[-1].status == "answered"
    assert turns_df(lab.cluster.run).iloc[-1].end_reason == "completed"
    call = tool_calls_df(lab.cluster.run).iloc[-1]
    assert (call.status, call.turn_id) == ("ok", turns_df(lab.cluster.run).iloc[-1].turn_id)
    assert "awake" in call.output
    assert len(tool_calls_df(lab.cluster.run)) == before + 1
    assert not list(hooks.glob("*.json"))


def test_a_restart_goes_on_with_the_conversation(lab: CodexLab) -> None:
    ada = lab.cluster["ada"]
    session, turn = ada.facts["session_id"], int(ada.ask("count", timeout=30).reply.rsplit(" ", 1)[1])
    ada.restart()
    assert ada.ask("count on", timeout=60).reply == f"text number {turn + 1}"
    assert ada.facts["session_id"] == session
    assert len(lab.rollouts()) == 1


def test_a_killed_one_comes_back_by_itself_and_knows_what_was_said(lab: CodexLab, codex_command: str) -> None:
    keys = {"restart": {"policy": "on-failure", "backoff_s": 0.3}}
    lab.cluster.add(*config(codex_command, lab.work.parent, "eve", **keys)["agents"])
    eve = lab.cluster["eve"]
    exchange = eve.send("take your time").accepted(timeout=30)
    # A turn stands in the record before its prompt does.
    lab.until(lambda: lab.rollouts("eve") and any(turn.prompts for turn in lab.rollout("eve").turns))
    pid, session = eve.facts["pid"], eve.facts["session_id"]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(TurnFailed, match="ended during the turn"):
        exchange.result(timeout=30)
    # The model is given the history: the prompt that was cut off, and this one.
    assert eve.ask("count", timeout=60).reply == "text number 2"
    assert eve.facts["session_id"] == session
    assert eve.facts["pid"] != pid
    prompts = [turn.prompts for turn in lab.rollout("eve").turns]
    assert prompts == [["take your time"], ["count"]]
    assert agents_df(lab.cluster.run).set_index("name").loc["eve", "restarts"] == 1
