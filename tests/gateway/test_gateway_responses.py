from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import zstandard
from gateway_helpers import Running, running_gateway, settings
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.gateway.responses import parse_request, purpose_of

if TYPE_CHECKING:
    import httpx

SEND = "mcp__orchestrator-lab__send_message"
RULES = {
    "rules": [
        {
            "when": {"contains": "write to"},
            "tool": {"name": SEND, "input": {"to": "ada", "text": "hi"}},
            "then": {"reply": "It gave {tool_result} by {tool}."},
        },
        {"when": {"contains": "shell"}, "reply": "Look:", "tool": {"name": "exec_command", "input": {"cmd": "ls"}}},
        {"when": {"contains": "patch"}, "tool": {"name": "apply_patch", "input": {"input": "*** Begin"}}},
        {"when": {"contains": "pace"}, "reply": "x" * 40, "tokens_per_s": 50},
        {"when": {"tool_result": "mcp__orchestrator-lab__list_agents"}, "reply": "listed"},
        {
            "when": {"contains": "busy"},
            "times": 1,
            "error": {"status": 503, "type": "server_error", "message": "Busy.", "retry_after_s": 1},
        },
    ],
    "default": {"reply": "You said: {text}", "chunk": 4},
}
TOOLS = [
    {"type": "function", "name": "exec_command", "parameters": {}},
    {"type": "custom", "name": "apply_patch"},
    {"type": "web_search"},
    {
        "type": "namespace",
        "name": "mcp__orchestrator_lab",
        "tools": [{"type": "function", "name": "send_message"}, {"type": "function", "name": "list_agents"}],
    },
]


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def read_sse(text: str) -> list[dict[str, Any]]:
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        events.append(value)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def test_a_text_streams_in_the_events_that_clients_know(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("boss", "s", settings(script=RULES, api="openai"))
    url = f"{running.url('s')}/v1/responses"
    body = {"model": "m", "instructions": "Be nice.", "input": [user("hi")], "tools": TOOLS}
    whole = (await client.post(url, json=body)).json()
    assert whole["status"] == "completed"
    assert whole["output"][0]["content"][0]["text"] == "You said: hi"
    events = read_sse((await client.post(url, json={**body, "stream": True})).text)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:3] == ["created", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert "".join(event["delta"] for event in events if "delta" in event) == "You said: hi"
    assert events[-1]["response"]["usage"] == whole["usage"]
    assert whole["usage"]["output_tokens"] == 3
    assert whole["usage"]["input_tokens"] > 50
    answered = await running.wait_for("gateway.response", 2)
    assert [one["output_tokens"] for one in answered] == [3, 3]
    assert running.of("gateway.request")[0]["purpose"] == "main"


async def test_tools_are_called_as_the_program_offers_them(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("boss", "s", settings(script=RULES, api="openai"))
    url = f"{running.url('s')}/v1/responses"

    async def ask(*items: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await client.post(url, json={"model": "m", "input": list(items), "tools": TOOLS, "stream": True})
        return list(read_sse(answer.text)[-1]["response"]["output"])

    (call,) = await ask(user("write to ada"))
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "mcp__orchestrator_lab", "send_message")
    assert json.loads(call["arguments"]) == {"to": "ada", "text": "hi"}
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "queued"}
    (answer,) = await ask(user("write to ada"), call, result)
    assert answer["content"][0]["text"] == "It gave queued by mcp__orchestrator_lab__send_message."
    text, shell = await ask(user("shell"))
    assert text["content"][0]["text"] == "Look:"
    assert (shell["name"], "namespace" in shell) == ("exec_command", False)
    (patch,) = await ask(user("patch it"))
    assert (patch["type"], patch["input"]) == ("custom_tool_call", "*** Begin")
    listed = {"type": "function_call", "call_id": "c", "name": "list_agents", "namespace": "mcp__orchestrator_lab"}
    parts = [{"type": "input_text", "text": "Output:"}, {"type": "input_text", "text": "[]"}]
    (answer,) = await ask(user("who"), listed, {"type": "function_call_output", "call_id": "c", "output": parts})
    assert answer["content"][0]["text"] == "listed"


async def test_errors_pace_and_forms(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("boss", "s", settings(script=RULES, api="openai"))
    url = f"{running.url('s')}/v1/responses"
    refused = await client.post(url, json={"input": "busy"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"] == {"message": "Busy.", "type": "server_error", "param": None, "code": None}
    assert (await client.post(url, json={"input": "busy"})).status_code == 200
    begun = time.perf_counter()
    events = read_sse((await client.post(url, json={"input": "pace", "stream": True})).text)
    assert time.perf_counter() - begun >= 0.18
    assert sum(event["type"] == "response.output_text.delta" for event in events) == 10
    wrong = await client.post(url, json={"input": 5})
    assert wrong.status_code == 400
    assert "'input'" in wrong.json()["error"]["message"]
    packed = zstandard.ZstdCompressor().compress(json.dumps({"input": [user("packed")]}).encode())
    answer = await client.post(url, content=packed, headers={"content-encoding": "zstd"})
    assert answer.json()["output"][0]["content"][0]["text"] == "You said: packed"


async def test_side_requests_are_answered_beside_the_script(running: Running, client: httpx.AsyncClient) -> None:
    counted = {"default": {"reply": "{n}"}}
    running.gateway.bind("boss", "s", settings(script=counted, api="openai"))
    url = f"{running.url('s')}/v1/responses"
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    title = {"input": [user("Generate a title")], "text": {"format": {"type": "json_schema", "schema": schema}}}
    facts = json.dumps({"thread_source": "thread_title", "request_kind": "turn"})
    answer = await client.post(url, json=title, headers={"x-codex-turn-metadata": facts})
    assert json.loads(answer.json()["output"][0]["content"][0]["text"]) == {"title": "boss on a script"}
    assert running.of("gateway.request")[0]["purpose"] == "title"
    answer = await client.post(url, json={"input": "one"})
    assert answer.json()["output"][0]["content"][0]["text"] == "1"


async def test_upstream_passes_through_and_counts(client: httpx.AsyncClient) -> None:
    async with running_gateway() as behind, running_gateway() as front:
        behind.gateway.bind("model", "m", settings(script=RULES, api="openai"))
        base = f"{behind.url('m')}/v1"
        front.gateway.bind("boss", "s", settings("upstream", base_url=base, api="openai"), key="k")
        body = {"model": "m", "input": [user("hi")], "stream": True}
        answer = await client.post(f"{front.url('s')}/v1/responses", json=body)
        assert read_sse(answer.text)[-1]["type"] == "response.completed"
        (counted,) = await front.wait_for("gateway.response")
        assert (counted["model"], counted["output_tokens"]) == ("script", 3)
        assert counted["input_tokens"] > 0


def test_what_the_program_adds_is_not_the_users_text() -> None:
    own = [
        "<environment_context>\n  <cwd>/w</cwd>\n</environment_context>",
        "# AGENTS.md instructions for /w\n\n<INSTRUCTIONS>\nx\n</INSTRUCTIONS>",
        "<turn_aborted>\nThe user interrupted\n</turn_aborted>",
    ]
    items = [user(own[0]), user(own[1]), user("one"), {"type": "message", "role": "assistant", "content": "a"}]
    request = parse_request("boss", {"input": [*items, user(own[2]), user("<b>two</b>")]}, {})
    assert (request.text, request.turn) == ("<b>two</b>", 2)
    assert parse_request("boss", {"input": [user(own[0])]}, {}).text == ""


def test_purposes() -> None:
    def purpose(**facts: str) -> str:
        return purpose_of({"client_metadata": {"x-codex-turn-metadata": json.dumps(facts)}}, {})

    assert purpose(thread_source="user", request_kind="turn") == "main"
    assert purpose(thread_source="thread_title", request_kind="turn") == "title"
    assert purpose(thread_source="user", request_kind="compaction") == "compact"
    assert purpose(thread_source="subagent", request_kind="turn") == "subagent"
    assert purpose(thread_source="user", request_kind="prewarm") == "side"
    assert purpose_of({}, {"x-codex-turn-metadata": "no json"}) == "main"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning"]) | _JSON,
        "role": st.sampled_from(["user", "assistant"]) | _JSON,
        "content": _JSON,
        "call_id": st.text(max_size=3),
        "name": _JSON,
        "namespace": _JSON,
        "output": _JSON,
    },
)


@given(st.lists(_ITEM, min_size=1, max_size=6), _JSON)
def test_no_input_breaks_the_reader(items: list[dict[str, Any]], tools: Any) -> None:
    assert parse_request("boss", {"input": items, "tools": tools}, {}).agent == "boss"
