"""Transcripts of Claude Code that the lab did not start, as tables."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_records import Session, at, tool, two_turns, written

from orchestrator_lab.errors import ConfigError, RunNotFound
from orchestrator_lab.frames import agents_df, events_df, messages_df, runs_df, tool_calls_df, turns_df
from orchestrator_lab.importing import find_conversations
from orchestrator_lab.importing.lines import read_lines
from orchestrator_lab.schema import EVENTS, TABLES, empty_frame
from orchestrator_lab.tables import RunTables

if TYPE_CHECKING:
    from pathlib import Path


def unknown(path: Path) -> list[str]:
    events = events_df(path)
    return [json.loads(one)["kind"] for one in events[events["event"] == "import.unknown"]["attributes"]]


def test_a_first_answer_that_is_written_before_its_prompt_belongs_to_it(tmp_path: Path) -> None:
    session = Session("s-1")
    session.prompt(0, "hello", "p1")
    session.said(1, "a", "hello to you", input_tokens=3, output_tokens=2, stop="end_turn")
    session.prompt(5, "and again", "p2")
    session.said(6, "b", "again", input_tokens=3, output_tokens=2, stop="end_turn")
    session.records[:2] = session.records[1::-1]  # as a busy Claude Code does
    path = session.write(tmp_path)
    messages, turns = messages_df(path), turns_df(path)
    assert messages["content"].tolist() == ["hello", "and again"]
    assert messages["status"].tolist() == ["answered", "answered"]
    assert messages["turn_id"].tolist() == turns["turn_id"].tolist()


def test_one_transcript_is_a_run_with_one_agent(tmp_path: Path) -> None:
    path = two_turns().write(tmp_path)
    turns = turns_df(path)
    assert turns["reply"].tolist() == ["It says hello.", "Welcome."]
    # Message a stands in two records, of which the last counts: 10 + (20 + 30), 7 + 4
    assert turns["input_tokens"].tolist() == [60, 1]
    assert turns["output_tokens"].tolist() == [11, 2]
    assert turns["cache_creation_input_tokens"].tolist()[0] == 30
    assert turns["duration_s"].tolist() == [3.1, 1.0]  # the program's own clock, else from record to record
    assert turns["end_reason"].tolist() == ["completed", "completed"]
    assert turns["model"].tolist() == ["m-1", "m-1"]
    assert turns["tool_call_count"].tolist() == [1, 0]
    assert turns["cost_usd"].isna().all()
    assert turns["first_output_at"].isna().all()  # the record tells of whole blocks, not of first words
    messages = messages_df(path)
    assert messages["content"].tolist() == ["what is in a.txt?", "thanks"]
    assert messages[["sender", "recipient", "source", "status"]].iloc[0].tolist() == [
        "user",
        "claude",
        "human",
        "answered",
    ]
    assert messages["turn_id"].tolist() == turns["turn_id"].tolist()
    call = tool_calls_df(path).iloc[0]
    assert (call["name"], call["output"], call["status"], call["duration_s"]) == ("Read", "hello", "ok", 0.5)
    assert json.loads(call["input"]) == {"file_path": "a.txt"}
    agent = agents_df(path).iloc[0]
    assert (agent["name"], agent["kind"], agent["session_id"], agent["model"]) == ("claude", "claude", "s-1", "m-1")
    assert (agent["program_version"], agent["cwd"], agent["output_tokens"]) == ("2.1.197", "/work", 13)


def test_the_run_tells_who_read_it_and_the_folder_is_left_alone(tmp_path: Path) -> None:
    path = two_turns().write(tmp_path)
    before = [(one.name, one.stat().st_mtime_ns) for one in tmp_path.iterdir()]
    runs = runs_df(tmp_path)
    assert runs["run_id"].tolist() == ["s-1"]
    assert runs[["agent_count", "message_count", "input_tokens"]].iloc[0].tolist() == [1, 2, 61]
    # No record tells that a session is over: its last one, and how its last turn ended.
    assert runs["ended_at"].tolist() == [pd.Timestamp("2026-11-23T07:00:11Z")]
    assert runs[["status", "duration_s"]].iloc[0].tolist() == ["completed", 11.0]
    assert runs["package_version"].iloc[0]
    assert runs.attrs["imported"] == [
        {
            "path": str(path),
            "program": "claude-code",
            "importer": "claude-transcript",
            "importer_version": 1,
            "program_version": "2.1.197",
            "records": 8,
            "unknown": 0,
            "copied": 0,
        }
    ]
    assert [(one.name, one.stat().st_mtime_ns) for one in tmp_path.iterdir()] == before


@pytest.mark.parametrize("table", ["runs", "agents", "messages", "turns", "tool_calls", "events"])
def test_columns_and_dtypes_are_the_schemas(tmp_path: Path, table: str) -> None:
    from orchestrator_lab import frames

    two_turns().write(tmp_path)
    frame: pd.DataFrame = getattr(frames, f"{table}_df")(tmp_path)
    assert frame.dtypes.to_dict() == empty_frame(table).dtypes.to_dict()
    assert list(frame) == [column.name for column in TABLES[table]]
    assert len(frame)


def test_all_events_are_declared(tmp_path: Path) -> None:
    events = events_df(everything(tmp_path))
    for name, attributes in zip(events["event"], events["attributes"], strict=True):
        declared = {*EVENTS[name].attributes, "error_message"}
        assert set(json.loads(attributes)) <= declared, name


def everything(tmp_path: Path) -> Path:
    """A session with all that may happen in one."""
    session = Session("all")
    session.records.append({"type": "mode", "mode": "normal", "sessionId": "all"})
    session.add(0, type="queue-operation", operation="enqueue", content="first")
    session.prompt(2, "first", "p1")
    session.add(2.5, type="system", subtype="api_error", error={"status": 529, "message": "busy"}, retryAttempt=1)
    session.said(3, "a", tool("t1", "Bash", command="rm"), output_tokens=1, input_tokens=1)
    session.result(4, "t1", "The user doesn't want to proceed with this tool use.", is_error=True)
    session.add(4.5, type="user", promptId="p1", message={"content": "[Request interrupted by user for tool use]"})
    session.prompt(5, "<command-name>/model</command-name>", "p2")
    session.add(5.1, type="user", promptId="p2", message={"content": "<local-command-stdout>m</local-command-stdout>"})
    session.add(6, type="system", subtype="compact_boundary", compactMetadata={"trigger": "auto", "preTokens": 9})
    session.add(6.1, type="user", isCompactSummary=True, message={"content": "so far …"})
    session.prompt(7, "second", "p3")
    session.add(7.5, type="attachment", attachment={"type": "queued_command", "prompt": "and third"})
    session.add(7.6, type="user", isMeta=True, message={"content": "a reminder"})
    session.said(8, "b", tool("t2", "Screenshot"), output_tokens=1, input_tokens=1)
    session.result(8.5, "t2", [{"type": "image", "source": {"data": "AAAA"}}, {"type": "text", "text": "seen"}])
    session.add(
        9,
        type="assistant",
        isApiErrorMessage=True,
        error="rate_limit",
        apiErrorStatus=429,
        message={"id": "x", "model": "<synthetic>", "content": [{"type": "text", "text": "limit reached"}]},
    )
    session.add(10, type="never-seen", data={"x": 1})
    session.add(11, type="system", subtype="never-heard-of")
    return session.write(tmp_path)


def test_what_may_happen_in_a_session(tmp_path: Path) -> None:
    path = everything(tmp_path)
    turns = turns_df(path)
    assert turns["end_reason"].tolist() == ["interrupted", "limit"]
    assert [len(json.loads(one)) for one in turns["message_ids"]] == [1, 2]
    messages = messages_df(path)
    assert messages["content"].tolist() == ["first", "<command-name>/model</command-name>", "second", "and third"]
    assert messages["status"].tolist() == ["failed", "accepted", "failed", "failed"]
    assert messages["error_type"].tolist()[-1] == "turn_limit"
    assert (messages["accepted_at"] - messages["queued_at"]).dt.total_seconds().tolist()[0] == 2.0
    calls = tool_calls_df(path)
    assert calls["status"].tolist() == ["denied", "ok"]
    assert json.loads(calls["output"].iloc[1]) == [{"type": "image"}, {"type": "text", "text": "seen"}]
    assert unknown(path) == ["never-seen", "system never-heard-of"]
    events = events_df(path)
    errors = [json.loads(one) for one in events[events["event"] == "agent.api_error"]["attributes"]]
    assert [(one["status"], one["error_message"]) for one in errors] == [(529, "busy"), (429, "limit reached")]
    compacted = events[events["event"] == "agent.compacted"]["attributes"].iloc[0]
    assert json.loads(compacted) == {"trigger": "auto", "tokens_before": 9}
    ended = json.loads(events[events["event"] == "import.ended"]["attributes"].iloc[0])
    assert ended["unknown"] == 2
    assert ended["passed_over"] == {"mode": 1, "local command": 1, "compact summary": 1, "meta": 1}


def subagent(*, identity: str | None = "abc123") -> Session:
    side = Session("s-1", prefix="side", isSidechain=True, **({"agentId": identity} if identity else {}))
    side.prompt(1.6, "look into b.txt", "x")
    side.said(1.8, "sub", "b is empty", input_tokens=100, output_tokens=9, stop="end_turn")
    return side


@pytest.mark.parametrize("place", ["own folder", "beside", "inline"])
def test_subagents_are_agents_of_their_own(tmp_path: Path, place: str) -> None:
    session = Session("s-1")
    session.prompt(0, "ask", "p1")
    spawn = tool("t1", "Task", prompt="look into b.txt", subagent_type="Explore", description="look")
    session.said(1, "a", spawn, input_tokens=1, output_tokens=1)
    side = subagent(identity=None if place == "inline" else "abc123")
    if place == "inline":
        session.records += side.records
    else:
        side.write(tmp_path if place == "beside" else tmp_path / "s-1" / "subagents", "agent-abc123")
    session.records.append({**session.records[1], "uuid": "last", "timestamp": "2026-11-23T07:00:03.000Z"})
    path = session.write(tmp_path)
    for source in (path, tmp_path):
        agents = agents_df(source)
        assert agents["name"].tolist() == ["claude", "Explore-side0" if place == "inline" else "Explore-abc123"]
        assert agents["role"].tolist()[1] == "look"
        assert agents["output_tokens"].tolist() == [1, 9]
        message = messages_df(source).iloc[1]
        assert (message["sender"], message["source"], message["status"]) == ("claude", "agent", "answered")
        assert runs_df(source)["output_tokens"].tolist() == [10]
        assert turns_df(source, agents="claude")["output_tokens"].tolist() == [1]


@pytest.mark.parametrize("names_its_parent", [True, False])
@pytest.mark.parametrize("early", [True, False])
def test_a_fork_is_told_without_what_it_copied(tmp_path: Path, names_its_parent: bool, early: bool) -> None:
    first = two_turns()
    answer_first = [first.records[1], first.records[0], *first.records[2:]]  # as a busy Claude Code writes it
    path = written(tmp_path / "s-1.jsonl", answer_first if early else first.records)
    os.utime(path, (1, 1))
    fork = Session("s-2", prefix="v")
    for one in first.records:
        origin = {"forkedFrom": {"sessionId": "s-1", "messageUuid": one["uuid"]}} if names_its_parent else {}
        fork.records.append({**one, "sessionId": "s-2", **origin})
    fork.prompt(20, "another way", "p3")
    fork.said(21, "d", "Yes.", input_tokens=5, output_tokens=5, stop="end_turn")
    fork.write(tmp_path)
    runs = runs_df(tmp_path).set_index("run_id")
    assert runs["message_count"].to_dict() == {"s-1": 2, "s-2": 1}
    assert runs["input_tokens"].to_dict() == {"s-1": 61, "s-2": 5}
    assert runs["parent_run_id"].to_dict()["s-2"] == "s-1"
    assert not turns_df(tmp_path)["turn_id"].duplicated().any()
    # The fork alone is a whole conversation.
    assert messages_df(tmp_path / "s-2.jsonl").shape[0] == 3


def test_a_fork_is_known_also_when_what_it_copied_was_written_to_later(tmp_path: Path) -> None:
    """As by `claude -p --resume ID --fork-session`, which queues its prompt before it copies."""
    fork = Session("s-0", prefix="v")  # its name comes first, too
    fork.records.append({"type": "queue-operation", "operation": "enqueue", "sessionId": "s-0", "timestamp": at(20)})
    fork.records += [{**one, "sessionId": "s-0"} for one in two_turns().records]
    fork.prompt(21, "another way", "p3")
    fork.said(22, "d", "Yes.", input_tokens=5, output_tokens=5, stop="end_turn")
    os.utime(fork.write(tmp_path), (1, 1))
    two_turns().write(tmp_path)
    runs = runs_df(tmp_path).set_index("run_id")
    assert runs["input_tokens"].to_dict() == {"s-1": 61, "s-0": 5}
    assert runs["parent_run_id"].to_dict()["s-0"] == "s-1"


def test_lines_twice_torn_broken_and_huge(tmp_path: Path) -> None:
    session = two_turns()
    path = session.write(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    mended = lines[6].replace(b"thanks", b"th\xffnks")
    path.write_bytes(
        b"".join([*lines[:3], lines[1], b"[1]\n", b"{broken\n", b"\n", *lines[3:6], mended, lines[7], b'{"ty'])
    )
    assert unknown(path) == ["no object", "json", "torn"]
    assert messages_df(path)["content"].tolist() == ["what is in a.txt?", "th\ufffdnks"]
    assert turns_df(path)["output_tokens"].tolist() == [11, 2]
    assert events_df(path).attrs["imported"][0]["copied"] == 1
    short = [line.problem for line in read_lines(path, limit=300)]
    assert "too long" in short
    assert sum(line.size for line in read_lines(path, limit=300)) == path.stat().st_size - 1  # but for the empty line


def test_an_answer_that_stands_before_its_prompt(tmp_path: Path) -> None:
    session = two_turns()
    session.records[6], session.records[7] = session.records[7], session.records[6]
    turns = turns_df(session.write(tmp_path))
    assert turns["reply"].tolist() == ["It says hello.", "Welcome."]
    assert [len(json.loads(one)) for one in turns["message_ids"]] == [1, 1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cut_anywhere_and_damaged_anywhere_it_is_read(tmp_path: Path, data: Any) -> None:
    whole = everything(tmp_path).read_bytes()
    place = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=6))
    path = tmp_path / "cut.jsonl"
    path.write_bytes(whole[:place] + junk + whole[place + data.draw(st.integers(0, 40)) :])
    try:
        events = events_df(path)
    except RunNotFound:
        return  # nothing is left of it
    assert events["seq"].tolist() == list(range(1, len(events) + 1))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["user", "assistant", "system", "attachment", "x"])},
            optional={
                "message": _JSON | st.fixed_dictionaries({"content": _JSON, "usage": _JSON, "id": _JSON}),
                "subtype": st.sampled_from(["turn_duration", "compact_boundary", "api_error"]) | _JSON,
                "attachment": _JSON,
                "durationMs": _JSON,
                "compactMetadata": _JSON,
                "error": _JSON,
                "uuid": _JSON,
                "parentUuid": _JSON,
                "timestamp": _JSON,
                "isSidechain": st.booleans(),
                "agentId": _JSON,
                "version": _JSON,
                "isApiErrorMessage": st.booleans(),
            },
        ),
        max_size=8,
    )
)
def test_no_record_is_fatal(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = written(tmp_path / "odd.jsonl", [*two_turns().records[:3], *records])
    (conversation,) = find_conversations(path)
    tables = RunTables.from_conversation(conversation)
    for table in ("turns", "messages", "tool_calls", "agents", "runs", "events"):
        tables.columns(table)
    assert tables.columns("events")["event"][-1] == "import.ended"


def test_cost_by_message_with_the_classes_of_the_cache(tmp_path: Path) -> None:
    session = Session("s-1")
    session.prompt(0, "go", "p1")
    split = {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 3000}
    plain = {"input_tokens": 100, "output_tokens": 50, "cache_read_input_tokens": 2000}
    session.said(1, "a", "one", **plain, cache_creation_input_tokens=4000, cache_creation=split)  # type: ignore[arg-type]
    session.said(2, "b", "two", stop="end_turn", input_tokens=1, output_tokens=1)
    session.records[1]["message"]["model"] = "claude-opus-4-5-20251101"
    session.records[2]["message"]["model"] = "claude-haiku-4-5-20251001"
    path = session.write(tmp_path)
    turns = turns_df(path, prices="dated")
    # opus: 100 in at 5, 50 out at 25, 2000 read at 0.5, 1000 at 6.25, 3000 at 10; haiku: 1 in at 1, 1 out at 5
    by_hand = (100 * 5 + 50 * 25 + 2000 * 0.5 + 1000 * 6.25 + 3000 * 10 + 1 + 5) / 1_000_000
    assert turns["cost_usd"].tolist() == [pytest.approx(by_hand, abs=1e-12)]
    assert runs_df(path, prices="dated")["cost_usd"].tolist() == [pytest.approx(by_hand, abs=1e-12)]
    assert agents_df(path, prices="dated")["cost_usd"].tolist() == [pytest.approx(by_hand, abs=1e-12)]
    assert turns.attrs["prices"]["s-1"]["as_of"] == "2026-11-24"
    assert turns_df(path)["cost_usd"].isna().all()
    assert "prices" not in turns_df(path).attrs
    own = {"claude-*": {"input": 1, "output": 2, "cache_read": 1, "cache_creation": 1}}
    assert turns_df(path, prices=own)["cost_usd"].tolist() == [pytest.approx((6101 + 51 * 2) / 1e6)]
    with pytest.raises(ConfigError, match="prices cannot be used"):
        turns_df(path, prices={"m": {"input": -1}})


def test_no_cost_where_something_else_was_charged(tmp_path: Path) -> None:
    session = Session("s-1")
    session.prompt(0, "search", "p1")
    session.said(1, "a", "found", stop="end_turn", input_tokens=1, output_tokens=1)
    session.records[-1]["message"]["usage"]["server_tool_use"] = {"web_search_requests": 1}
    assert turns_df(session.write(tmp_path), prices={"*": {"input": 1, "output": 1}})["cost_usd"].isna().all()
