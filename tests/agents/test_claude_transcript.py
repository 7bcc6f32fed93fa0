"""Reading Claude Code's record, whole, torn, and strange."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.agents.claude import ClaudeAdapter
from orchestrator_lab.agents.claude_transcript import TranscriptTail

if TYPE_CHECKING:
    from pathlib import Path

AT = "2026-11-23T07:00:00.{:03d}Z"


def user(text: Any, prompt_id: str, ms: int, **more: Any) -> dict[str, Any]:
    return {"type": "user", "promptId": prompt_id, "timestamp": AT.format(ms), "message": {"content": text}, **more}


def said(text: str, message_id: str, tokens: int, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": tokens, "cache_read_input_tokens": 5}
    return {
        "type": "assistant",
        "message": {"id": message_id, "model": "m", "content": [{"type": "text", "text": text}], "usage": usage},
        **more,
    }


RECORDS: list[dict[str, Any]] = [
    {"type": "mode", "version": "2.1.197"},
    user("first", "p1", 0),
    said("half", "a", 1),
    said("half and more", "a", 1),  # one API message is repeated on each of its lines
    {"type": "queue-operation", "operation": "enqueue", "content": "joins", "timestamp": AT.format(100)},
    user([{"type": "tool_result", "content": "ok"}], "p1", 150),
    {
        "type": "attachment",
        "attachment": {"type": "queued_command", "prompt": "joins", "timestamp": AT.format(100)},
    },
    said("to a subagent", "x", 100, isSidechain=True),
    said("the answer", "b", 2),
    {"type": "system", "subtype": "turn_duration"},
    {"type": "queue-operation", "operation": "enqueue", "content": "waits", "timestamp": AT.format(300)},
    user("second", "p2", 400),
    user("with the second", "p2", 401),
    user("[Request interrupted by user]", "p2", 500),
    user("third", "p3", 600),
    {"type": "assistant", "isApiErrorMessage": True, "message": {"content": [{"type": "text", "text": "API Error"}]}},
]


def chained(*records: dict[str, Any]) -> list[dict[str, Any]]:
    """Give each record its uuid and its parent, as Claude Code does."""
    return [
        {**one, "uuid": f"u{at}", "parentUuid": f"u{at - 1}" if at else None, "timestamp": AT.format(at * 10)}
        for at, one in enumerate(records)
    ]


def written(tmp_path: Path, data: bytes | None = None) -> Path:
    path = tmp_path / "session.jsonl"
    path.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in RECORDS) if data is None else data)
    return path


def test_turns_replies_tokens(tmp_path: Path) -> None:
    tail = TranscriptTail(written(tmp_path))
    tail.read()
    first, second, third = tail.turns
    assert (first.prompt, first.reply, first.ended, first.joined) == ("first", "the answer", True, ["joins"])
    total = first.total()
    assert total is not None
    assert (total.input_tokens, total.output_tokens, total.cache_read_input_tokens, total.final) == (30, 3, 10, True)
    assert total.whole
    assert "whole" not in total.attributes()
    assert (second.joined, second.interrupted, second.total()) == (["with the second"], True, None)
    assert (third.error, third.ended) == ("API Error", True)
    assert tail.version == "2.1.197"
    assert tail.is_queued("waits", since=0.0)
    assert not tail.is_queued("never", since=0.0)


def test_a_prompt_is_found_only_after_it_was_typed(tmp_path: Path) -> None:
    path = written(tmp_path)
    tail = TranscriptTail(path)
    tail.read()
    at = tail.turns[0].at
    adapter = ClaudeAdapter()
    found = adapter.transcript(path, prompt="first", since=at)
    assert [type(one).__name__ for one in found] == ["Accepted", "Accepted", "TurnEnded"]
    # The same words, typed later, are not proven by what was taken before.
    assert adapter.transcript(path, prompt="first", since=at + 0.01) == []
    [joined] = adapter.transcript(path, prompt="joins", since=at)
    assert getattr(joined, "joined", None) is True
    [queued] = adapter.transcript(path, prompt="waits", since=at)
    assert type(queued).__name__ == "Queued"


def test_a_reply_that_was_cut_off_has_no_tokens(tmp_path: Path) -> None:
    cut = said("wor", "c", 0)
    cut["message"]["usage"] = {"input_tokens": 0, "output_tokens": 0}
    lines = [user("go", "p", 0), cut, user("[Request interrupted by user]", "p", 10)]
    tail = TranscriptTail(written(tmp_path, b"".join(json.dumps(one).encode() + b"\n" for one in lines)))
    tail.read()
    assert tail.turns[0].interrupted
    assert tail.turns[0].total() is None


@given(st.integers(0, 4000), st.integers(0, 4000))
def test_a_record_cut_anywhere_is_read_in_the_end(tmp_path_factory: Any, one: int, two: int) -> None:
    data = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)
    path = tmp_path_factory.mktemp("t") / "session.jsonl"
    tail = TranscriptTail(path)
    tail.read()
    for end in (*sorted((one, two)), len(data)):
        path.write_bytes(data[:end])
        tail.read()
    assert [turn.prompt for turn in tail.turns] == ["first", "second", "third"]
    assert tail.unknown == 0


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.recursive(st.none() | st.text(max_size=5), st.lists).map(
                lambda value: json.dumps({"type": "user", "message": value}).encode()
            ),
        )
    )
)
def test_strange_lines_harm_nothing(tmp_path_factory: Any, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("t") / "session.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    tail = TranscriptTail(path)
    tail.read()
    assert all(isinstance(turn.prompt, str) for turn in tail.turns)


@given(st.data())
def test_answers_may_stand_before_what_they_answer(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Claude Code 2.1.197 writes an answer before its prompt when it is busy (seen with five at once on two cores)."""
    records = chained(
        user("first", "p1", 0),
        {"type": "attachment"},
        said("half", "a", 1),
        said("whole", "b", 2),
        {"type": "system", "subtype": "turn_duration"},
        user("second", "p2", 0),
        said("more", "c", 4),
        {"type": "system", "subtype": "turn_duration"},
    )
    order = list(range(len(records)))
    for at in data.draw(st.lists(st.sampled_from([2, 3, 6]), unique=True)):
        order.remove(at)
        order.insert(data.draw(st.integers(max(0, at - 3), at)), at)
    path = tmp_path_factory.mktemp("early") / "session.jsonl"
    tail = TranscriptTail(path)
    with path.open("ab") as file:
        for at in order:
            file.write(json.dumps(records[at]).encode() + b"\n")
            file.flush()
            tail.read()
    totals = [one.total() for one in tail.turns]
    assert [one.output_tokens for one in totals if one is not None] == [3, 4]
    assert [one.ended for one in tail.turns] == [True, True]


def test_an_answer_without_its_parent_belongs_to_the_turn_of_its_time(tmp_path: Path) -> None:
    first, answer, end, second = chained(
        user("first", "p1", 0), said("lost", "a", 3), {"type": "system", "subtype": "turn_duration"}, user("2", "p2", 0)
    )
    answer["parentUuid"] = "nowhere"
    tail = TranscriptTail(written(tmp_path, b"".join(json.dumps(x).encode() + b"\n" for x in (first, answer, second))))
    tail.read()
    assert [len(one.usage) for one in tail.turns] == [1, 0]
    tail = TranscriptTail(written(tmp_path, b"".join(json.dumps(x).encode() + b"\n" for x in (first, answer, end))))
    tail.read()
    assert len(tail.turns[0].usage) == 1


@pytest.mark.parametrize(
    ("later", "whole"),
    [
        ({"model": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}, True),
        ({"model": "other", "usage": {"input_tokens": 1, "output_tokens": 1}}, False),
        ({"model": "m", "usage": {"input_tokens": 0, "output_tokens": 0}}, False),
        ({"model": "<synthetic>", "usage": {"input_tokens": 0, "output_tokens": 0}}, True),
    ],
)
def test_tokens_of_two_models_or_with_some_missing_are_told_apart(
    tmp_path: Path, later: dict[str, Any], whole: bool
) -> None:
    records = [user("first", "p1", 0), said("one", "a", 1), {"type": "assistant", "message": {"id": "b", **later}}]
    tail = TranscriptTail(written(tmp_path, b"".join(json.dumps(one).encode() + b"\n" for one in records)))
    tail.read()
    total = tail.turns[0].total()
    assert total is not None
    assert total.whole is whole
