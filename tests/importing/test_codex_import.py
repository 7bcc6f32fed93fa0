"""Rollouts of Codex that the lab did not start, as tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from import_records import at, rollout, two_turns, written

from orchestrator_lab.errors import JournalError, RunNotFound
from orchestrator_lab.frames import agents_df, events_df, messages_df, runs_df, tool_calls_df, turns_df

if TYPE_CHECKING:
    from pathlib import Path

Payload = tuple[float, str, dict[str, Any]]


def event(seconds: float, kind: str, **more: Any) -> Payload:
    return seconds, "event_msg", {"type": kind, **more}


def item(seconds: float, kind: str, **more: Any) -> Payload:
    return seconds, "response_item", {"type": kind, **more}


def said(seconds: float, kind: str, text: str) -> Payload:
    return event(seconds, "item_completed", item={"type": kind, "content": [{"type": "text", "text": text}]})


def tokens(seconds: float, turn_id: str, **figures: int) -> Payload:
    return seconds, "token_usage_record", {"turn_id": turn_id, "turn_token_usage": figures}


TURN = (
    event(1, "task_started", turn_id="t1"),
    (1.1, "turn_context", {"turn_id": "t1", "model": "gpt-5-codex"}),
    said(1.2, "UserMessage", "list the files"),
    event(1.2, "user_message", message="list the files"),
    item(2, "function_call", call_id="k1", name="exec_command", arguments='{"cmd":"ls"}'),
    item(3, "function_call_output", call_id="k1", output="Process exited with code 2\nno"),
    said(4, "AgentMessage", "There are none."),
    tokens(4.1, "t1", input_tokens=100, cached_input_tokens=60, output_tokens=20),
    event(4.2, "task_complete", turn_id="t1", last_agent_message="There are none.", duration_ms=3200),
)


def test_a_rollout(tmp_path: Path) -> None:
    path = rollout(tmp_path, *TURN)
    turn = turns_df(path).iloc[0]
    assert (turn["reply"], turn["duration_s"], turn["model"]) == ("There are none.", 3.2, "gpt-5-codex")
    assert (turn["input_tokens"], turn["cache_read_input_tokens"], turn["output_tokens"]) == (100, 60, 20)
    messages = messages_df(path)
    assert messages[["content", "status", "turn_id"]].to_numpy().tolist() == [["list the files", "answered", "trn_t1"]]
    call = tool_calls_df(path).iloc[0]
    assert (call["name"], call["input"], call["status"], call["duration_s"]) == (
        "exec_command",
        '{"cmd":"ls"}',
        "error",
        1.0,
    )
    agent = agents_df(path).iloc[0]
    assert (agent["name"], agent["provider"], agent["program_version"]) == ("codex", "openai", "0.169.0")
    assert runs_df(path)["run_id"].tolist() == ["c-1"]


def test_older_versions_count_for_the_session(tmp_path: Path) -> None:
    def total(seconds: float, given: int, out: int) -> Payload:
        return event(seconds, "token_count", info={"total_token_usage": {"input_tokens": given, "output_tokens": out}})

    path = rollout(
        tmp_path,
        (0.5, "turn_context", {"model": "old"}),
        event(1, "user_message", message="one"),
        total(2, 10, 3),
        total(2.1, 10, 3),
        event(2.2, "agent_message", message="1"),
        event(3, "user_message", message="two"),
        total(4, 25, 4),
        event(5, "agent_message", message="2"),
        (6, "compacted", {"message": ""}),
        event(7, "turn_aborted", reason="interrupted"),
        event(8, "new_thing"),
    )
    turns = turns_df(path)
    assert turns["input_tokens"].tolist() == [10, 15]
    assert turns["output_tokens"].tolist() == [3, 1]
    assert turns["end_reason"].tolist() == ["completed", "interrupted"]
    assert turns["model"].tolist() == ["old", "old"]
    events = events_df(path)
    assert (events["event"] == "agent.compacted").sum() == 1
    assert json.loads(events[events["event"] == "import.unknown"]["attributes"].iloc[0])["kind"] == (
        "event_msg new_thing"
    )


def test_limits_and_errors(tmp_path: Path) -> None:
    limit = {"message": '{"error":{"message":"Too much."}}', "codex_error_info": "usage_limit_exceeded"}
    path = rollout(
        tmp_path,
        event(1, "task_started", turn_id="t1"),
        event(1.5, "stream_error", message="again"),
        event(2, "task_complete", turn_id="t1", error=limit),
        event(3, "task_started", turn_id="t2"),
        event(4, "task_complete", turn_id="t2", error={"message": "down"}),
    )
    assert turns_df(path)["end_reason"].tolist() == ["limit", "error"]
    events = events_df(path)
    errors = events[events["event"] == "agent.api_error"]["attributes"]
    assert [json.loads(one)["error_message"] for one in errors] == ["again", "Too much.", "down"]


def test_a_fork_tells_what_is_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "2026" / "11" / "23"
    rollout(folder, *TURN)
    own = (event(9, "task_started", turn_id="t2"), said(9.1, "UserMessage", "else"))
    rollout(folder, *TURN, *own, session_id="c-2", forked_from_id="c-1", timestamp=at(8))
    runs = runs_df(tmp_path).set_index("run_id")
    assert runs["message_count"].to_dict() == {"c-1": 1, "c-2": 1}
    assert runs["parent_run_id"].to_dict()["c-2"] == "c-1"
    assert turns_df(tmp_path)["input_tokens"].sum() == 100


def test_folders_globs_and_what_is_no_conversation(tmp_path: Path) -> None:
    two_turns().write(tmp_path / "projects" / "-work")
    rollout(tmp_path / "sessions" / "2026" / "11" / "23", *TURN)
    written(tmp_path / "history.jsonl", [{"display": "hello", "project": "/work"}])
    assert runs_df(tmp_path)["run_id"].tolist() == ["c-1", "s-1"] or len(runs_df(tmp_path)) == 2
    assert len(runs_df(tmp_path / "sessions" / "**" / "rollout-*.jsonl")) == 1
    assert len(turns_df([tmp_path / "projects", tmp_path / "sessions"], agents="codex")) == 1
    assert len(messages_df(tmp_path / "projects" / "*", columns="content")) == 2
    with pytest.raises(RunNotFound, match="neither a run nor a conversation"):
        runs_df(tmp_path / "history.jsonl")
    (tmp_path / "empty").mkdir()
    assert runs_df(tmp_path / "empty").empty


def test_a_run_keeps_its_own_account(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run_x"
    two_turns().write(run / "transcripts" / "boss")
    (run / "journal.jsonl").write_text("")
    assert runs_df(tmp_path / "runs")["run_id"].tolist() == ["run_x"]
    assert runs_df(tmp_path)["run_id"].tolist() == []  # what is below another folder is looked for by a glob
    assert runs_df(run / "transcripts")["run_id"].tolist() == ["s-1"]


def test_one_that_goes_away_is_named(tmp_path: Path) -> None:
    from orchestrator_lab.importing import find_conversations
    from orchestrator_lab.tables import RunTables

    path = two_turns().write(tmp_path)
    (conversation,) = find_conversations(path)
    path.unlink()
    with pytest.raises(JournalError, match="the conversation cannot be read"):
        RunTables.from_conversation(conversation).frame("turns")
