"""Five real Claude Codes that write to each other with the lab's tool, and are asked all at once."""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import agents_df, messages_df, turns_df
from orchestrator_lab.frames import tool_calls_df

if TYPE_CHECKING:
    import pandas as pd

pytestmark = [pytest.mark.claude, pytest.mark.timeout(300)]

SEND = "mcp__orchestrator-lab__send_message"
SPECIALISTS = ("coder", "tester", "writer")
TASK = 'Plan the release;\n\n\ttabs, 日本語 🎉, `$(date)`, "quotes" and a \\ at the end \\'
PARTS = {name: f"Part for {name}:\n1. read\n2. write — {name}’s job; \\" for name in SPECIALISTS}
RESULT = "All three are done.\n```\n{'ok': True}\n```"
SCRIPT: list[dict[str, Any]] = [
    {
        "when": {"agent": "boss", "text": "begin"},
        "tool": {"name": SEND, "input": {"to": "manager", "text": TASK}},
        "then": {"reply": "The manager has it."},
    },
    {"when": {"agent": "boss", "sender": "manager"}, "reply": "Thank you, {sender}."},
    {
        "when": {"agent": "manager", "sender": "boss"},
        "tool": [{"name": SEND, "input": {"to": name, "text": text}} for name, text in PARTS.items()],
        "then": {"reply": "Delegated to three."},
    },
    {
        # The topology does not let a specialist write to the boss: the tool says so, and the manager gets the answer.
        "when": {"agent": list(SPECIALISTS), "sender": "manager"},
        "tool": {"name": SEND, "input": {"to": "boss", "text": "past the manager"}},
        "then": {
            "reply": "The lab said: {tool_result}",
            "tool": {
                "name": SEND,
                "input": {"to": "manager", "text": "{agent} is done", "in_reply_to": "{message_id}"},
            },
            "then": {"reply": "{agent} has answered."},
        },
    },
    {"when": {"agent": "manager", "sender": list(SPECIALISTS), "turn": [2, 3]}, "reply": "Noted, {sender}."},
    {
        "when": {"agent": "manager", "sender": list(SPECIALISTS), "turn": 4},
        "tool": {"name": SEND, "input": {"to": "boss", "text": RESULT}},
        "then": {"reply": "Reported."},
    },
    {"when": {"matches": "^ask (\\d+)$"}, "reply": "{agent} answers {1}"},
]


@pytest.fixture(scope="module")
def five(start_lab: Any) -> Any:
    agents = [{"name": "boss", "role": "leads"}, {"name": "manager"}, *({"name": name} for name in SPECIALISTS)]
    topology = ["boss <-> manager", "manager <-> coder, tester, writer"]
    return start_lab(*agents, script=SCRIPT, name="five", topology=topology)


@pytest.fixture(scope="module")
def told(five: Any) -> dict[str, pd.DataFrame]:
    """The tables after the chain of messages has run through."""
    exchange = five.cluster["boss"].ask("begin", timeout=60)
    assert exchange.reply == "The manager has it."
    five.cluster.wait(timeout=120)
    run = five.cluster.run
    return {
        "messages": messages_df(run),
        "turns": turns_df(run),
        "tools": tool_calls_df(run),
        "agents": agents_df(run).set_index("name"),
    }


def _between(told: dict[str, pd.DataFrame], sender: str, recipient: str) -> pd.DataFrame:
    frame = told["messages"]
    return frame[(frame["sender"] == sender) & (frame["recipient"] == recipient)]


def test_contents_arrive_to_the_byte(five: Any, told: dict[str, pd.DataFrame]) -> None:
    [task] = _between(told, "boss", "manager")["content"]
    assert task == TASK
    for name, text in PARTS.items():
        [row] = _between(told, "manager", name).to_dict("records")
        assert row["content"] == text
        assert row["content_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        # What the model was given: the sender's line, set by the lab, and the text as Claude Code takes it.
        [prompt] = five.prompts(name)[:1]
        assert prompt == f"From manager ({row['message_id']}):\n{text}"
    [prompt] = five.prompts("manager")[:1]
    assert prompt.split("\n", 1)[1] == TASK.replace("\t", "    ")
    assert list(_between(told, "manager", "boss")["content"]) == [RESULT]


def test_every_delivery_is_proven_by_the_program(told: dict[str, pd.DataFrame]) -> None:
    messages = told["messages"]
    delivered = messages[messages["status"] != "refused"]
    assert set(delivered["status"]) == {"answered"}
    assert set(delivered["acceptance_source"]) == {"hook"}
    assert len(delivered) == 1 + 1 + 3 + 3 + 1
    ladder = ["queued_at", "claimed_at", "written_at", "accepted_at", "started_at", "answered_at"]
    assert delivered[ladder].notna().all(axis=None)
    for earlier, later in itertools.pairwise(ladder):
        assert (delivered[earlier] <= delivered[later]).all()
    assert set(delivered["source"]) == {"program", "agent"}
    assert not delivered["message_id"].duplicated().any()


def test_answers_name_what_they_answer(told: dict[str, pd.DataFrame]) -> None:
    for name in SPECIALISTS:
        [part] = _between(told, "manager", name).to_dict("records")
        [answer] = _between(told, name, "manager").to_dict("records")
        assert answer["in_reply_to"] == part["message_id"]
        assert answer["kind"] == "reply"
        assert answer["conversation_id"] == part["conversation_id"]
        assert answer["hop"] == part["hop"] + 1 == 3


def test_a_forbidden_message_is_refused_and_the_sender_told(five: Any, told: dict[str, pd.DataFrame]) -> None:
    for name in SPECIALISTS:
        [row] = _between(told, name, "boss").to_dict("records")
        assert (row["status"], row["error_type"]) == ("refused", "topology")
        assert f"does not let {name} write to boss" in row["error_message"]
        assert "may write to: manager" in row["error_message"]
        calls = told["tools"][told["tools"]["agent"] == name]
        [failed] = calls[calls["status"] == "error"].to_dict("records")
        assert f"does not let {name} write to boss" in failed["error_message"]
        told_to_model = [str(one["message"]["content"]) for one in five.transcript(name) if one.get("type") == "user"]
        assert any(f"does not let {name} write to boss" in text for text in told_to_model)


def test_turns_hold_what_the_program_said(five: Any, told: dict[str, pd.DataFrame]) -> None:
    turns = told["turns"]
    assert set(turns["end_reason"]) == {"completed"}
    replies = {agent: list(rows["reply"]) for agent, rows in turns.groupby("agent", observed=True)}
    assert replies["boss"] == ["The manager has it.", "Thank you, manager."]
    assert replies["manager"][0] == "Delegated to three."
    assert sorted(replies["manager"][1:3] + replies["manager"][3:]) == sorted(
        [*(reply for reply in replies["manager"] if reply.startswith("Noted, ")), "Reported."]
    )
    for name in SPECIALISTS:
        assert replies[name] == [f"{name} has answered."]
    assert list(turns.set_index("agent").loc["coder", ["tool_call_count"]]) == [2]
    # Tokens are the sums over the API messages of the transcript, each counted once.
    for name in ("boss", "manager", *SPECIALISTS):
        usage = {
            record["message"]["id"]: record["message"]["usage"]
            for record in five.transcript(name)
            if record.get("type") == "assistant"
        }
        rows = turns[turns["agent"] == name]
        assert rows[["input_tokens", "output_tokens"]].notna().all(axis=None)
        assert rows["output_tokens"].sum() == sum(one["output_tokens"] for one in usage.values())
        cached = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        assert rows["input_tokens"].sum() == sum(one[key] for one in usage.values() for key in cached)
    assert set(turns["tokens_source"]) == {"reported"}


def test_tool_calls_are_recorded_with_input_and_output(told: dict[str, pd.DataFrame]) -> None:
    tools = told["tools"]
    assert set(tools["name"]) == {SEND}
    assert len(tools[tools["agent"] == "manager"]) == 4
    assert (tools["status"] == "ok").sum() == 1 + 3 + 3 + 1
    assert tools["turn_id"].notna().all()
    assert tools["duration_s"].notna().all()
    by_boss = tools[tools["agent"] == "boss"].iloc[0]
    assert "Plan the release" in str(by_boss["input"])
    assert "msg_" in str(by_boss["output"])


def test_agents_are_described(five: Any, told: dict[str, pd.DataFrame]) -> None:
    agents = told["agents"]
    assert set(agents["program"]) == {"claude-code"}
    versions = {record["version"] for record in five.transcript("boss") if "version" in record}
    assert set(agents["program_version"]) == versions
    assert agents["model"].notna().all()
    assert set(agents["state"]) == {"idle"}
    assert agents["session_id"].nunique() == 5
    assert agents.loc["manager", "message_count"] == 8
    assert agents["input_tokens"].notna().all()


def test_twenty_asks_to_each_of_five_at_the_same_time(five: Any, told: dict[str, pd.DataFrame]) -> None:
    names = ["boss", "manager", *SPECIALISTS]
    before = {name: len(five.prompts(name)) for name in names}

    def ask_all(name: str) -> list[str]:
        return [five.cluster[name].ask(f"ask {number}", timeout=120).reply or "" for number in range(20)]

    with ThreadPoolExecutor(len(names)) as pool:
        replies = dict(zip(names, pool.map(ask_all, names), strict=True))
    for name in names:
        assert replies[name] == [f"{name} answers {number}" for number in range(20)]
        five.took(name, *(f"ask {number}" for number in range(20)))
        assert len(five.prompts(name)) == before[name] + 20
    five.cluster.wait(timeout=60)
    messages = messages_df(five.cluster.run)
    asked = messages[messages["content"].str.startswith("ask ")]
    assert len(asked) == 100
    assert set(asked["status"]) == {"answered"}
    assert set(asked["acceptance_source"]) == {"hook"}
    assert turns_df(five.cluster.run)["input_tokens"].notna().all()
    # No Enter had to be repeated: each was pressed when the text stood in the input line.
    assert {event.attributes["attempt"] for event in five.events("message.submitted")} == {1}
    del told
