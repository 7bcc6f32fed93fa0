"""Codex's rollout, screens, bodies and configuration, without the program."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.agents.base import Accepted, ToolEnded, ToolStarted, TurnEnded
from orchestrator_lab.agents.codex import CodexAdapter, to_toml
from orchestrator_lab.agents.codex_rollout import RolloutTail
from orchestrator_lab.agents.codex_screen import read_composer

if TYPE_CHECKING:
    from pathlib import Path

USAGE = {"input_tokens": 11, "cached_input_tokens": 3, "cache_write_input_tokens": 0, "output_tokens": 5}


def line(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-11-23T06:54:06.341Z", "type": kind, "payload": payload}


def event(kind: str, **payload: Any) -> dict[str, Any]:
    return line("event_msg", type=kind, **payload)


def said(turn: str, who: str, text: str) -> dict[str, Any]:
    return event("item_completed", turn_id=turn, item={"type": who, "content": [{"type": "text", "text": text}]})


SESSION = [
    line("session_meta", id="s", cli_version="0.169.0"),
    event("task_started", turn_id="t1"),
    line("turn_context", turn_id="t1", model="gpt-5-codex"),
    line("response_item", type="message", role="user", content=[]),
    said("t1", "UserMessage", "hello\nthere"),
    line(
        "response_item",
        type="function_call",
        call_id="c1",
        name="send_message",
        namespace="mcp__lab",
        arguments='{"a": 1}',
    ),
    line("response_item", type="function_call_output", call_id="c1", output=[{"type": "input_text", "text": "fine"}]),
    line("response_item", type="function_call", call_id="c2", name="exec_command", arguments="not json"),
    line("response_item", type="function_call_output", call_id="c2", output="Process exited with code 3\nOutput:\n"),
    line("response_item", type="function_call", call_id="c3", name="exec_command", arguments="{}"),
    line("response_item", type="function_call_output", call_id="c3", output="exec_command failed: rejected by user"),
    line("token_usage_record", turn_id="t1", turn_token_usage=USAGE),
    said("t1", "AgentMessage", "bye"),
    event("token_count", info={}, rate_limits={}),
    event("task_complete", turn_id="t1", last_agent_message="bye"),
    event("task_started", turn_id="t2"),
    said("t2", "UserMessage", "stop"),
    said("t2", "UserMessage", "and this"),
    event("turn_aborted", turn_id="t2", reason="interrupted"),
    event("task_started", turn_id="t3"),
    said("t3", "UserMessage", "fail"),
    event(
        "task_complete", turn_id="t3", error={"message": '{"error":{"message":"Bad."}}', "codex_error_info": "other"}
    ),
    event("task_started", turn_id="t4"),
    said("t4", "UserMessage", "more"),
    event("task_complete", turn_id="t4", error={"message": "limit", "codex_error_info": "usage_limit_reached"}),
    line("something_new", a=1),
    event("something_new"),
]


def write(path: Path, records: list[Any]) -> bytes:
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(data)
    return data


def test_tokens_of_two_models_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "rollout.jsonl"
    for other, whole in (("gpt-5-codex", True), ("gpt-5-mini", False)):
        write(path, [*SESSION[:12], line("turn_context", turn_id="t1", model=other), *SESSION[12:]])
        tail = RolloutTail(path)
        tail.read()
        usage = tail.turns[0].total()
        assert usage is not None
        assert usage.whole is whole


def test_a_rollout_is_read_turn_by_turn(tmp_path: Path) -> None:
    path = tmp_path / "rollout.jsonl"
    write(path, SESSION)
    tail = RolloutTail(path)
    tail.read()
    assert tail.version == "0.169.0"
    assert tail.unknown == 2
    first, second, third, fourth = tail.turns
    assert (first.prompts, first.reply, first.ended, first.reason) == (["hello\nthere"], "bye", True, "completed")
    usage = first.total()
    assert usage is not None
    assert usage.attributes() == {
        "input_tokens": 11,
        "output_tokens": 5,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "model": "gpt-5-codex",
        "final": True,
    }
    assert first.calls["c1"].name == "mcp__lab__send_message"
    assert (first.calls["c1"].input, first.calls["c1"].output) == ({"a": 1}, "fine")
    assert (first.calls["c2"].input, first.calls["c2"].failed) == ("not json", True)
    assert (second.reason, second.prompts, second.total()) == ("interrupted", ["stop", "and this"], None)
    assert (third.reason, third.error, third.reply) == ("error", "Bad.", None)
    assert fourth.reason == "limit"
    assert tail.find(turn_id="t2", prompt=None) is second
    assert tail.find(turn_id=None, prompt=" and this ") is second
    assert tail.find(turn_id=None, prompt="hello\nthere", since=9e9) is None


def test_a_rollout_that_grows_is_read_on_from_every_cut(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    data = write(whole, SESSION)
    reference = RolloutTail(whole)
    reference.read()
    for cut in range(0, len(data), 7):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(data[:cut])
        tail = RolloutTail(path)
        tail.read()
        path.write_bytes(data)
        tail.read()
        assert (tail.turns, tail.unknown) == (reference.turns, reference.unknown)
        path.unlink()


def test_evidence_from_a_rollout(tmp_path: Path) -> None:
    path = tmp_path / "rollout.jsonl"
    write(path, SESSION)
    adapter = CodexAdapter()
    found = adapter.transcript(path, prompt="stop", since=0)
    assert [(one.prompt, one.joined) for one in found if isinstance(one, Accepted)] == [
        ("stop", False),
        ("and this", True),
    ]
    assert isinstance(found[-1], TurnEnded)
    assert (found[-1].reason, found[-1].prompt_id) == ("interrupted", "t2")
    assert adapter.transcript(path, prompt="never typed", since=0) == []
    assert adapter.version(path) == "0.169.0"


def test_calls_without_hooks_are_told_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rollout.jsonl"
    write(path, SESSION)
    adapter = CodexAdapter()
    common = {"transcript_path": str(path), "turn_id": "t1", "session_id": "s"}
    tool = {"tool_name": "Bash", "tool_input": {"command": "x"}}
    adapter.hook({**common, **tool, "hook_event_name": "PreToolUse", "tool_use_id": "c2"})
    ended = adapter.hook(
        {**common, **tool, "hook_event_name": "PostToolUse", "tool_use_id": "c2", "tool_response": "x"}
    )
    assert [one.status for one in ended if isinstance(one, ToolEnded)] == ["error"]
    adapter.hook({**common, **tool, "hook_event_name": "PreToolUse", "tool_use_id": "c3"})
    found = adapter.hook({**common, "hook_event_name": "Stop", "last_assistant_message": "bye"})
    assert [one.tool_call_id for one in found if isinstance(one, ToolStarted)] == ["c1"]
    ends = {one.tool_call_id: one.status for one in found if isinstance(one, ToolEnded)}
    assert ends == {"c1": "ok", "c3": "denied"}
    assert isinstance(found[-1], TurnEnded)
    assert found[-1].reply == "bye"


def test_a_subagents_hooks_are_not_the_agents() -> None:
    assert adapter_for("codex").hook({"hook_event_name": "Stop", "agent_id": "a1", "last_assistant_message": "x"}) == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_KINDS = st.sampled_from(["session_meta", "event_msg", "response_item", "turn_context", "token_usage_record"])
_TYPES = st.sampled_from(
    ["task_started", "task_complete", "turn_aborted", "item_completed", "user_message", "token_count", "error"]
) | st.sampled_from(["function_call", "function_call_output", "custom_tool_call"])
_PAYLOAD = st.fixed_dictionaries(
    {},
    optional={
        "type": _TYPES | _JSON,
        "turn_id": st.sampled_from(["t1", "t2"]) | _JSON,
        "item": st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["UserMessage", "CommandExecution"]),
                "content": _JSON,
                "id": _JSON,
                "exit_code": st.integers() | st.none(),
            },
        ),
        "call_id": st.sampled_from(["c1"]) | _JSON,
        "arguments": _JSON,
        "output": _JSON,
        "error": _JSON,
        "info": _JSON,
        "rate_limits": _JSON,
        "turn_token_usage": _JSON,
        "model": _JSON,
    },
)


@given(st.lists(st.fixed_dictionaries({"type": _KINDS | _JSON, "payload": _PAYLOAD | _JSON}) | _JSON, max_size=8))
def test_no_record_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, records: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    write(path, records)
    tail = RolloutTail(path)
    tail.read()
    for turn in tail.turns:
        turn.total()
        tail.find(turn_id=turn.turn_id, prompt="x")


_FIELDS = st.sampled_from(["turn_id", "tool_name", "tool_input", "tool_response", "prompt", "session_id"])
_HOOKS = st.sampled_from(["Stop", "UserPromptSubmit", "PreToolUse", "PostToolUse", "PermissionRequest", "SessionStart"])


@given(st.dictionaries(_FIELDS, _JSON), _HOOKS)
def test_no_payload_breaks_the_hooks(payload: dict[str, Any], name: str) -> None:
    CodexAdapter().hook({**payload, "hook_event_name": name})


# bodies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "typed", "expected"),
    [
        ("hello", "hello", "hello"),
        ("/help", " /help", "/help"),
        ("  !ls", " !ls", "!ls"),
        ("see @file", "see @file ", "see @file"),
        (" a \n", "a \n", "a"),
        ("mail a@b", "mail a@b", "mail a@b"),
    ],
)
def test_bodies(body: str, typed: str, expected: str) -> None:
    found = CodexAdapter().typed(body)
    assert (found.text, found.expected, found.parts) == (typed, expected, ())


def test_a_path_of_an_image_goes_in_parts() -> None:
    found = CodexAdapter().typed("/tmp/a b.png")
    assert "".join(found.parts) == found.text == " /tmp/a b.png"
    assert CodexAdapter().typed("look at a.png please").parts == ()


@given(st.text(min_size=1, max_size=60))
def test_what_is_typed_is_what_is_expected(body: str) -> None:
    found = CodexAdapter().typed(body)
    assert found.text.strip() == found.expected == body.strip()
    assert "".join(found.parts or (found.text,)) == found.text


# screens ------------------------------------------------------------------------------------------

FOOT = "\n\n  gpt-5-codex default · /work\n  ← for agents · ? for shortcuts"
HINT = "\x1b[1m›\x1b[0m \x1b[2mAsk Codex to do anything\x1b[0m"


@pytest.mark.parametrize(
    ("screen", "text", "held"),
    [
        (HINT + FOOT, "hello", "empty"),
        ("› hello" + FOOT, "hello", "holds_text"),
        ("› hello\n  you\n\n  there" + FOOT, "hello\nyou\n\nthere", "holds_text"),
        ("› [Pasted Content 6400 chars]" + FOOT, "x" * 6400, "holds_text"),
        ("› 1. first\n  2. second" + FOOT, "1. first\n2. second", "holds_text"),
        ("› a draft" + FOOT, "hello", "other"),
        ("› ???" + FOOT, "???", "holds_text"),
        ("› old prompt\n\n• reply\n\n" + HINT + FOOT, "old prompt", "empty"),
        (HINT + "\n\n  my own status line", "hello", "empty"),
        ("› old prompt\n\n• working", "old prompt", "unknown"),
        (
            "  Would you like to run it?\n\n› 1. Yes\n  2. No\n\n  Press enter to confirm or esc to cancel",
            "",
            "unknown",
        ),
        ("  Trust this folder?\n\n› 1. Trust and continue\n  2. Back\n\n  enter continue · esc back", "", "unknown"),
        ("", "hello", "unknown"),
    ],
)
def test_the_composer(screen: str, text: str, held: str) -> None:
    assert read_composer(screen, text) == held


@pytest.mark.parametrize(
    ("above", "options", "kind", "subject"),
    [
        ("  Trust this folder? Codex can read", ["Trust and continue", "Back"], "trust", "/w"),
        ("  Hooks need review\n  1 hook is new", ["Review hooks", "Trust all and continue"], "trust", "hooks"),
        ("  Choose how you want to use Codex.", ["Sign in with ChatGPT", "Sign in another way"], "login", "login"),
        (
            "  Update available! 0.1 -> 0.2",
            ["Update now", "Skip until next version"],
            "update",
            "a new version of Codex",
        ),
        ("  A better one", ["Try new model", "Use existing model"], "choice", "a new model"),
        ("  Would you like to run this?", ["Yes, proceed (y)", "No"], "permission", "Would you like to run this?"),
        ("  What now?", ["One", "Two"], "unknown", "What now?"),
    ],
)
def test_questions_are_named(above: str, options: list[str], kind: str, subject: str) -> None:
    rows = "\n".join(f"{'›' if number == 0 else ' '} {number + 1}. {option}" for number, option in enumerate(options))
    asked = _codex().question(f"{above}\n\n{rows}\n\n  enter to confirm", starting=True, work_dir="/w", ours=True)
    assert asked is not None
    assert (asked.kind, asked.subject, asked.options) == (kind, subject, tuple(options))
    assert asked.answer == ("Trust and continue" if subject == "/w" else None)
    assert (asked.rule is None) == (kind == "unknown")


def _codex() -> CodexAdapter:
    adapter = CodexAdapter()
    adapter.use_rules("0.169.0")
    return adapter


def test_no_question_where_the_composer_is() -> None:
    assert _codex().question("› 1. one\n  2. two" + FOOT) is None
    assert _codex().question("• working") is None


@given(st.text(max_size=200))
def test_no_screen_breaks_the_reader(screen: str) -> None:
    read_composer(screen, "text")
    _codex().question(screen)


# configuration ------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from(["a", "b-c", "d_e"]),
        st.recursive(
            st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        ),
    )
)
def test_settings_are_toml(settings: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(settings)) == settings
