"""What the real programs recorded of themselves, read as if the lab had not started them."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster, events_df, messages_df, turns_df
from orchestrator_lab.frames import agents_df, runs_df, tool_calls_df

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

pytestmark = [pytest.mark.claude, pytest.mark.codex, pytest.mark.timeout(240)]

SCRIPT = [
    {"when": {"purpose": "subagent"}, "reply": "b.txt is empty"},
    {
        "when": {"contains": "delegate"},
        "tool": {
            "name": "Agent",
            "input": {"description": "look", "prompt": "look into b.txt", "subagent_type": "general-purpose"},
        },
        "then": {"reply": "It is empty."},
    },
    {"when": {"contains": "list"}, "tool": {"name": "exec_command", "input": {"cmd": "ls /"}}},
    {"when": {"contains": "read"}, "tool": {"name": "Read", "input": {"file_path": "{text}"}}},
    {"when": {"tool_result": True}, "reply": "I saw it."},
    {"reply": "{agent}: {text}"},
]
#: USD per million tokens, so that each class counts otherwise.
PRICES = {
    "script": {"input": 1, "output": 10, "cache_read": 100, "cache_creation": 1000},
    "gpt-*": {"input": 2, "output": 20, "cache_read": 200},
}


class Recorded:
    """A run of both programs that has ended, and the folders with their own records."""

    def __init__(self, run_dir: Path, claude: Path) -> None:
        self.run_dir = run_dir
        self.claude = claude


def fork(lab: Cluster, home: Path, claude: str, work: Path) -> None:
    """Let Claude Code go on with a conversation in a session of its own, as `--fork-session` does."""
    session = agents_df(lab)["session_id"].iloc[0]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CLAUDE", "ANTHROPIC"))}
    kept = json.loads((home / "agent.json").read_text())
    port = json.loads((home.parent.parent / "cluster.json").read_text())["port"]
    environment |= {
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}/gateway/{kept['gateway_secret']}",
        "ANTHROPIC_API_KEY": "sk-ant-none",
    }
    command = [claude, "-p", "--resume", session, "--fork-session", "once more"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "clara: once more", done.stderr


@pytest.fixture(scope="module")
def recorded(
    module_runtime: Path, tmp_path_factory: pytest.TempPathFactory, claude_command: str, codex_command: str
) -> Recorded:
    folder = tmp_path_factory.mktemp("imported")
    for name in ("w", "runs", "claude"):
        (folder / name).mkdir()
    cluster: dict[str, Any] = {
        "name": "imp",
        "lifetime": "owner",
        "work_dir": str(folder / "w"),
        "runs_dir": str(folder / "runs"),
        "gateway": {"mode": "script", "script": SCRIPT},
        "prices": PRICES,
        "start_timeout_s": 120,
    }
    agents = [
        {"name": "clara", "kind": "claude", "command": claude_command},
        {"name": "cody", "kind": "codex", "command": codex_command},
    ]
    with Cluster.start({"cluster": cluster, "agents": agents}) as lab:
        assert lab["clara"].ask("hello", timeout=60).reply == "clara: hello"
        assert lab["clara"].ask("delegate it", timeout=60).reply == "It is empty."
        assert lab["cody"].ask("list the files", timeout=60).reply == "I saw it."
        assert lab["cody"].ask("hello", timeout=60).reply == "cody: hello"
        lab.wait(timeout=30)
        fork(lab, module_runtime / "imp" / "agents" / "clara", claude_command, folder / "w")
        home = next((module_runtime / "imp" / "agents" / "clara").glob("claude/projects"))
        subprocess.run(["cp", "-r", f"{home}/.", str(folder / "claude")], check=True)
        run_dir = lab.shutdown()
    return Recorded(run_dir, folder / "claude")


def by_agent(frame: pd.DataFrame, names: dict[str, str], *columns: str) -> list[list[Any]]:
    """Rows of the two agents in one order, under the lab's names."""
    rows = frame[frame["agent"].isin(names)].assign(agent=frame["agent"].map(names))
    rows = rows.sort_values(["agent", "seq"])[["agent", *columns]]
    return rows.astype(object).where(rows.notna(), None).to_numpy().tolist()


OURS = {"clara": "clara", "cody": "cody"}
THEIRS = {"claude": "clara", "codex": "cody"}


def test_the_gateway_and_the_programs_agree(recorded: Recorded) -> None:
    events = events_df(recorded.run_dir)
    found = events[events["event"] == "record.disagrees"]
    assert found["attributes"].tolist() == []
    assert (events["event"] == "turn.usage").sum() >= 4


def test_an_import_tells_what_the_lab_recorded(recorded: Recorded) -> None:
    transcripts = recorded.run_dir / "transcripts"
    columns = ("reply", "end_reason", "model", "input_tokens", "output_tokens", "tool_call_count", "cost_usd")
    ours = by_agent(turns_df(recorded.run_dir), OURS, *columns)
    assert by_agent(turns_df(transcripts, prices=PRICES), THEIRS, *columns) == ours
    assert [row[1] for row in ours] == ["clara: hello", "It is empty.", "I saw it.", "cody: hello"]
    # the script gateway knows no cache: the rest is input, at 1 and 2, and output, at 10 and 20
    for agent, *_, given, made, _, cost in ours:
        rates = (1, 10) if agent == "clara" else (2, 20)
        assert cost == pytest.approx((given * rates[0] + made * rates[1]) / 1_000_000, abs=1e-12)
    assert messages_df(transcripts)["content"].tolist() == messages_df(recorded.run_dir)["content"].tolist()
    gateway = events_df(recorded.run_dir)
    spent = gateway[gateway["event"] == "gateway.response"]["attributes"].map(json.loads)
    assert sum(one["output_tokens"] for one in spent) >= sum(row[5] for row in ours)
    versions = agents_df(recorded.run_dir).set_index("name")["program_version"]
    theirs = agents_df(transcripts).set_index("name")["program_version"]
    assert {THEIRS[name]: version for name, version in theirs.items()} == versions.to_dict()


def by_hand(*texts: str) -> int:
    """Tokens of an answer as the script gateway counts them: bytes of each part, divided by four and rounded up."""
    return sum(-(-len(text.encode()) // 4) for text in texts)


def test_tokens_and_cost_are_those_counted_by_hand(recorded: Recorded) -> None:
    delegate = '{"description":"look","prompt":"look into b.txt","subagent_type":"general-purpose"}'
    made = {
        "clara": [by_hand("clara: hello"), by_hand("Agent", delegate, "It is empty.")],
        "cody": [by_hand("exec_command", '{"cmd":"ls /"}', "I saw it."), by_hand("cody: hello")],
    }
    assert made == {"clara": [3, 26], "cody": [10, 3]}
    # What each request was worth when it passed the gateway, which has not seen the programs' records.
    events = events_df(recorded.run_dir)
    asked: dict[str, tuple[str, str]] = {}
    given: dict[tuple[str, str], list[int]] = {}
    for event, agent, facts in zip(events["event"], events["agent"], events["attributes"].map(json.loads), strict=True):
        if event == "gateway.request":
            asked[facts["request_id"]] = agent, facts["purpose"]
        elif event == "gateway.response":
            given.setdefault(asked[facts["request_id"]], []).append(facts["input_tokens"])
    clara, cody, side = given["clara", "main"], given["cody", "main"], given["clara", "subagent"]
    inputs = {"clara": [clara[0], clara[1] + clara[2]], "cody": [cody[0] + cody[1], cody[2]]}
    transcripts = recorded.run_dir / "transcripts"
    turns = turns_df(transcripts, prices=PRICES)
    for theirs, agent in THEIRS.items():
        rows = turns[turns["agent"] == theirs]
        assert rows["output_tokens"].tolist() == made[agent]
        assert rows["input_tokens"].tolist() == inputs[agent]
        rates = (1, 10) if agent == "clara" else (2, 20)
        costs = [(one * rates[0] + two * rates[1]) / 1e6 for one, two in zip(inputs[agent], made[agent], strict=True)]
        assert rows["cost_usd"].tolist() == pytest.approx(costs, abs=1e-12)
    # A subagent's turns count for its session, too.
    session = runs_df(recorded.claude, prices=PRICES).iloc[0]
    output = sum(made["clara"]) + by_hand("b.txt is empty")
    assert (session["input_tokens"], session["output_tokens"]) == (sum(inputs["clara"]) + sum(side), output)
    assert session["cost_usd"] == pytest.approx((sum(inputs["clara"]) + sum(side) + 10 * output) / 1e6, abs=1e-12)


def test_nothing_of_the_pinned_versions_is_unknown(recorded: Recorded) -> None:
    for source in (recorded.run_dir / "transcripts", recorded.claude):
        events = events_df(source)
        assert events[events["event"] == "import.unknown"]["attributes"].tolist() == []
        assert all(one["unknown"] == 0 and one["program_version"] for one in events.attrs["imported"])


def test_a_subagent_of_the_real_program(recorded: Recorded) -> None:
    agents = agents_df(recorded.claude)
    (name,) = [name for name in agents["name"] if name != "claude"]
    assert name.startswith("general-purpose-")
    assert agents.set_index("name")["role"][name] == "look"
    turn = turns_df(recorded.claude, agents=name).iloc[0]
    assert (turn["reply"], turn["end_reason"]) == ("b.txt is empty", "completed")
    message = messages_df(recorded.claude, agents=name).iloc[0]
    assert (message["sender"], message["source"], message["content"]) == ("claude", "agent", "look into b.txt")
    call = tool_calls_df(recorded.claude).iloc[0]
    assert (call["agent"], call["name"], call["status"]) == ("claude", "Agent", "ok")


def test_a_fork_of_the_real_program(recorded: Recorded) -> None:
    runs = runs_df(recorded.claude)
    assert runs["message_count"].tolist() == [3, 1]
    assert runs["parent_run_id"].tolist()[1] == runs["run_id"].tolist()[0]
    copied = [one["copied"] for one in runs.attrs["imported"]]
    assert copied[0] == 0
    assert copied[1] > 5
    turns = turns_df(recorded.claude, agents="claude")
    assert turns["reply"].tolist() == ["clara: hello", "It is empty.", "clara: once more"]
    assert not turns["turn_id"].duplicated().any()
