"""Real lines, changed anywhere and cut at any byte: no reader of a program's record or report may break on them."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_claude_transcript import RECORDS as CLAUDE
from test_codex_parts import SESSION as CODEX

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.agents.base import Accepted, Evidence, TurnEnded, well_formed

if TYPE_CHECKING:
    from pathlib import Path

AT = "2026-11-23T07:00:00.000Z"
CHAT: list[dict[str, Any]] = [
    {"type": "user", "uuid": "u1", "timestamp": AT, "message": {"role": "user", "content": "first"}},
    {
        "type": "assistant",
        "promptId": "u1",
        "outcome": "completed",
        "message": {"model": "m", "content": [{"type": "text", "text": "one"}], "usage": {"output_tokens": 2}},
    },
    {"type": "clear"},
    {"type": "user", "uuid": "u2", "timestamp": AT, "message": {"role": "user", "content": "second"}},
    {"type": "error", "promptId": "u2", "error": "overloaded"},
]
SESSIONS = {"claude": CLAUDE, "codex": CODEX, "chat": CHAT}
PROMPTS = {"claude": ["first", "second", "third", "joins"], "codex": ["hello\nthere", "stop", "fail"]}
PROMPTS["chat"] = ["first", "second"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all parts of a JSON value."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        found += places(part, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    result = copy.deepcopy(value)
    at = result
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return result


def read(kind: str, path: Path) -> list[Evidence]:
    """Read a record in all the ways in which the supervisor does."""
    adapter = adapter_for(kind)
    found: list[Evidence] = []
    for prompt in PROMPTS[kind]:
        found += adapter.transcript(path, prompt=prompt, since=0.0)
        adapter.usage(path, prompt_id=None, prompt=prompt)
    for prompt_id in ("p1", "t1", "u1"):
        adapter.usage(path, prompt_id=prompt_id, prompt=None)
        adapter.turn_over(path, prompt_id)
    return found


def check(found: list[Evidence], prompts: list[str]) -> None:
    """What was found proves only what was asked for, in values that the journal can hold."""
    for piece in found:
        if isinstance(piece, Accepted):
            assert piece.prompt in prompts or piece.joined
            assert isinstance(piece.prompt_id, str | None)
        if isinstance(piece, TurnEnded):
            assert isinstance(piece.reply, str | None)
            assert isinstance(piece.prompt_id, str | None)
            assert isinstance(piece.error_message, str | None)


@pytest.mark.parametrize("kind", sorted(SESSIONS))
@settings(max_examples=80)
@given(data=st.data())
def test_a_record_with_any_part_changed(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    records = SESSIONS[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(records)))
        try:
            records = changed(records, path, data.draw(JSON))
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            continue
    place = tmp_path_factory.getbasetemp() / f"{kind}.jsonl"
    place.unlink(missing_ok=True)
    place.write_text("".join(json.dumps(record) + "\n" for record in records))
    check(read(kind, place), PROMPTS[kind])


@pytest.mark.parametrize("kind", sorted(SESSIONS))
@settings(max_examples=60)
@given(data=st.data())
def test_a_record_cut_at_any_byte(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    whole = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in SESSIONS[kind]).encode()
    cut = data.draw(st.integers(0, len(whole)))
    place = tmp_path_factory.mktemp("c") / "record.jsonl"
    place.write_bytes(whole[:cut])
    found = read(kind, place)
    check(found, PROMPTS[kind])
    place.write_bytes(whole)
    again = read(kind, place)
    # What a torn record proves stays proven when the rest is there.
    proven = {one.prompt for one in found if isinstance(one, Accepted)}
    assert proven <= {one.prompt for one in again if isinstance(one, Accepted)}


# reports ------------------------------------------------------------------------------------------

NAMES = [
    *("SessionStart", "UserPromptSubmit", "MessageDisplay", "PreToolUse", "PostToolUse", "PostToolUseFailure"),
    *("PermissionRequest", "Stop", "StopFailure", "Notification", "SessionEnd", "SubagentStop", "PreCompact"),
]
FIELDS = [
    *("session_id", "transcript_path", "model", "prompt", "prompt_id", "turn_id", "tool_name", "tool_input"),
    *("tool_use_id", "tool_response", "last_assistant_message", "error", "error_type", "usage", "reason"),
    *("notification_type", "kind", "subject", "options", "agent_id", "hook_id", "message", "delta"),
]
NOTIFICATIONS = st.sampled_from(["dialog_opened", "dialog_closed", "idle_prompt", "prompt_queued", "cleared"])
PAYLOADS = st.builds(
    lambda fields, name, kind: {**fields, "hook_event_name": name, **({"notification_type": kind} if kind else {})},
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8),
    st.sampled_from(NAMES) | JSON,
    NOTIFICATIONS | st.none(),
)


@pytest.mark.parametrize("kind", sorted(SESSIONS))
@settings(max_examples=150)
@given(payload=PAYLOADS)
def test_a_report_of_any_content(kind: str, payload: dict[str, Any]) -> None:
    found = adapter_for(kind).hook(well_formed(payload))
    prompt = payload.get("prompt")
    for piece in found:
        if isinstance(piece, Accepted):
            assert payload["hook_event_name"] == "UserPromptSubmit"
            assert piece.prompt == prompt, "a prompt that nobody typed"
            assert isinstance(piece.prompt_id, str | None)
            assert isinstance(piece.session_id, str | None)
        if isinstance(piece, TurnEnded):
            assert isinstance(piece.reply, str | None)
            assert isinstance(piece.prompt_id, str | None)
