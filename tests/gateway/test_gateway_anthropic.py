from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from typing import Any

import httpx
import pytest
import zstandard
from gateway_helpers import Running, asks, running_gateway, settings

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.gateway import Reply
from orchestrator_lab.gateway.anthropic import parse_request, true_texts

RULES = {
    "rules": [
        {"when": {"contains": "slow"}, "reply": "abcdefgh" * 4, "tokens_per_s": 40},
        {"when": {"contains": "endless"}, "reply": "abcdefgh" * 2000, "tokens_per_s": 40},
        {"when": {"contains": "late"}, "reply": "x", "delay_s": 0.3},
        {"when": {"contains": "tool"}, "reply": "So:", "tool": [{"name": "a"}, {"name": "b", "input": {"x": "ü"}}]},
        {
            "when": {"contains": "busy"},
            "error": {"status": 529, "type": "overloaded_error", "message": "Busy.", "retry_after_s": 2},
        },
    ],
    "default": {"reply": "You said: {text}", "chunk": 3},
}

REMINDER = "<system-reminder>\nToday's date is …\n</system-reminder>\n\n"


def read_sse(text: str) -> list[dict]:
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        events.append(value)
    return events


@pytest.fixture
async def url(running: Running) -> Any:
    running.gateway.bind("boss", "secret", settings(script=RULES))
    return running.url("secret")


async def test_a_message(url: str, client: httpx.AsyncClient, running: Running) -> None:
    begun = time.perf_counter()
    answer = (await client.post(f"{url}/v1/messages?beta=true", json=asks("hi ünï"))).json()
    assert answer["content"] == [{"type": "text", "text": "You said: hi ünï"}]
    assert answer["model"] == "script"
    assert answer["stop_reason"] == "end_turn"
    assert answer["usage"]["output_tokens"] == -(-len("You said: hi ünï".encode()) // 4)
    (asked,), (answered,) = running.of("gateway.request"), await running.wait_for("gateway.response")
    took = time.perf_counter() - begun
    assert asked == {
        "event": "gateway.request",
        "agent": "boss",
        "request_id": asked["request_id"],
        "path": "/v1/messages",
        "model": "m",
        "mode": "script",
        "purpose": "main",
    }
    assert answered["request_id"] == asked["request_id"]
    assert answered["status"] == 200
    assert answered["rule"] == "default"
    assert 0 < answered["first_byte_s"] <= answered["duration_s"] < took
    assert answered["input_tokens"] == answer["usage"]["input_tokens"]
    assert "secret" not in json.dumps(running.events)


async def test_a_stream_has_the_api_s_events(url: str, client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{url}/v1/messages", json=asks("hi", stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = read_sse(answer.text)
    kinds = [e["type"] for e in events]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    pieces = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(pieces) == "You said: hi"
    assert {len(p) for p in pieces} == {3}


async def test_tool_calls(url: str, client: httpx.AsyncClient) -> None:
    whole = (await client.post(f"{url}/v1/messages", json=asks("tool"))).json()
    assert whole["stop_reason"] == "tool_use"
    assert [b["type"] for b in whole["content"]] == ["text", "tool_use", "tool_use"]
    assert whole["content"][2]["input"] == {"x": "ü"}
    events = read_sse((await client.post(f"{url}/v1/messages", json=asks("tool", stream=True))).text)
    starts = [e for e in events if e["type"] == "content_block_start"]
    assert [(e["index"], e["content_block"]["type"]) for e in starts] == [(0, "text"), (1, "tool_use"), (2, "tool_use")]
    inputs = [e["delta"]["partial_json"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"]
    assert [json.loads(i) for i in inputs] == [{}, {"x": "ü"}]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_pace_and_delay(url: str, client: httpx.AsyncClient) -> None:
    async def slow() -> float:
        begun = time.perf_counter()
        events = read_sse((await client.post(f"{url}/v1/messages", json=asks("slow", stream=True))).text)
        took = time.perf_counter() - begun
        assert sum(event["type"] == "content_block_delta" for event in events) == 8  # tokens of four bytes
        assert took >= 0.2
        return took

    for _ in range(20):  # on a busy machine it may take longer than its pace
        if await slow() < 0.6:
            break
    else:
        pytest.fail("eight tokens at 40 a second never came within 0.6 s")
    # The first ones are there long before the last ones.
    async with client.stream("POST", f"{url}/v1/messages", json=asks("endless", stream=True)) as answer:
        pieces = answer.aiter_text()
        while "content_block_delta" not in await anext(pieces):
            pass
    begun = time.perf_counter()
    await client.post(f"{url}/v1/messages", json=asks("late"))
    assert time.perf_counter() - begun >= 0.3


async def test_errors(url: str, client: httpx.AsyncClient, running: Running) -> None:
    answer = await client.post(f"{url}/v1/messages", json=asks("busy", stream=True))
    assert answer.status_code == 529
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["error"] == {"type": "overloaded_error", "message": "Busy."}
    (answered,) = await running.wait_for("gateway.response")
    assert (answered["status"], answered["error"]) == (529, "Busy.")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/messages", b"no json", 400),
        ("/v1/messages", b"[]", 400),
        ("/v1/messages", b'{"messages": 5}', 400),
        ("/v1/messages", b"{}", 400),
        ("/v1/complete", b"{}", 404),
    ],
)
async def test_malformed_requests_get_errors_of_the_api(
    url: str, client: httpx.AsyncClient, path: Any, body: Any, status: Any
) -> None:
    answer = await client.post(url + path, content=body)
    assert answer.status_code == status
    assert answer.json()["type"] == "error"


async def test_what_clients_look_up_first(url: str, client: httpx.AsyncClient) -> None:
    assert (await client.head(url)).status_code == 200
    assert (await client.get(f"{url}/v1/models")).json()["data"][0]["id"] == "script"
    assert (await client.get(f"{url}/v1/other")).status_code == 404
    counted = await client.post(f"{url}/v1/messages/count_tokens?beta=true", json=asks("hi"))
    assert counted.json()["input_tokens"] > 0


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress)],
)
async def test_compressed_requests(url: str, client: httpx.AsyncClient, coding: Any, pack: Any) -> None:
    body = pack(json.dumps(asks("hi")).encode())
    headers = {"content-encoding": coding}
    answer = await client.post(f"{url}/v1/messages", content=body, headers=headers)
    assert answer.json()["content"][0]["text"] == "You said: hi"
    broken = await client.post(f"{url}/v1/messages", content=body[:9], headers=headers)
    assert broken.status_code == 400


async def test_an_unknown_or_closed_address_is_refused(url: str, client: httpx.AsyncClient, running: Running) -> None:
    running.gateway.unbind("secret")
    answer = await client.post(f"{url}/v1/messages", json=asks("hi"))
    assert answer.status_code == 403
    assert "not known" in answer.json()["error"]["message"]


async def test_a_client_that_leaves_ends_the_wait(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("boss", "s", settings(script=[{"reply": "x", "delay_s": 300}]))
    with pytest.raises(httpx.ReadTimeout):
        await client.post(f"{running.url('s')}/v1/messages", json=asks("hi"), timeout=httpx.Timeout(60, read=0.2))
    (answered,) = await running.wait_for("gateway.response")
    assert answered["error"] == "the client closed the connection"


async def test_a_python_function_and_the_labs_header(client: httpx.AsyncClient) -> None:
    def split(text: str) -> tuple[dict[str, str], str]:
        head, _, body = text.partition("\n")
        return {"sender": head.strip("[]")}, body

    async with running_gateway(split_header=split) as running:
        running.gateway.bind("a", "f", settings(), script=lambda r: Reply(f"{r.fields['sender']}: {r.text}"))
        running.gateway.bind(
            "b", "r", settings(script=[{"when": {"sender": "ann"}, "reply": "{sender}|{text}|{prompt}"}])
        )
        texts = [
            (await client.post(f"{running.url(s)}/v1/messages", json=asks("[ann]\nhi"))).json()["content"][0]["text"]
            for s in ("f", "r")
        ]
    assert texts == ["ann: hi", "ann|hi|[ann]\nhi"]


async def test_a_failing_function_is_an_error_of_the_api(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("a", "f", settings(), script=lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
    answer = await client.post(f"{running.url('f')}/v1/messages", json=asks("hi"))
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]["message"]


async def test_requests_in_parallel(url: str, client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(client.post(f"{url}/v1/messages", json=asks(f"n{i}", stream=True)) for i in range(40))
    )
    for i, answer in enumerate(answers):
        events = read_sse(answer.text)
        text = "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
        assert text == f"You said: n{i}"


def test_settings_are_checked() -> None:
    from orchestrator_lab.gateway import Gateway

    gateway = Gateway(lambda *_a, **_k: None)
    with pytest.raises(ConfigError, match="agent 'a': gateway mode 'script' needs 'script'"):
        gateway.bind("a", "s", settings())
    with pytest.raises(ConfigError, match="must begin with http"):
        gateway.bind("a", "s", settings("upstream", base_url="api.example"))
    with pytest.raises(ConfigError, match="mode 'none' has no address"):
        gateway.bind("a", "s", settings("none"))


def test_the_users_true_text_as_claude_code_sends_it() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": REMINDER}, {"type": "text", "text": "first"}]},
        {"role": "system", "content": "Available agent types …"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "42"}],
                    "is_error": True,
                },
                {"type": "text", "text": REMINDER},
            ],
        },
    ]
    request = parse_request("boss", {"messages": messages}, {})
    assert (request.text, request.turn) == ("first", 1)
    (result,) = request.tool_results
    assert (result.name, result.text, result.is_error) == ("Bash", "42", True)
    messages.append({"role": "user", "content": "second, about <system-reminder> tags"})
    request = parse_request("boss", {"messages": messages}, {})
    assert (request.text, request.turn) == ("second, about <system-reminder> tags", 2)
    assert not request.tool_results


def test_a_prompt_after_a_refused_one_counts_alone() -> None:
    blocks = [{"type": "text", "text": t} for t in (REMINDER, "refused", "again")]
    request = parse_request("boss", {"messages": [{"role": "user", "content": blocks}]}, {})
    assert (request.text, request.turn) == ("again", 2)


def test_a_prompt_typed_while_it_worked_is_the_last_text() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}]},
        {
            "role": "system",
            "content": "The user sent a new message while you were working:\nsecond\nline\n\n"
            "IMPORTANT: After completing …",
        },
    ]
    assert parse_request("boss", {"messages": messages[:3]}, {}).tool_results[0].text == "42"
    request = parse_request("boss", {"messages": messages}, {})
    assert (request.text, request.turn, request.tool_results) == ("second\nline", 2, ())


def test_records_of_local_commands_are_not_the_users_text() -> None:
    texts = [
        "<local-command-caveat>Caveat: …</local-command-caveat>",
        "<command-name>/model</command-name>\n  <command-message>model</command-message>",
        "<local-command-stdout>Set model</local-command-stdout>",
        "<bash-stdout>hi</bash-stdout><bash-stderr></bash-stderr>",
        "[Request interrupted by user for tool use]",
        "after it",
    ]
    assert true_texts([{"type": "text", "text": t} for t in texts]) == ["after it"]


CLAUDE = [{"type": "text", "text": "You are Claude Code, Anthropic's official CLI for Claude."}]
TITLE = {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"title": {"type": "string"}}}}}


@pytest.mark.parametrize(
    ("body", "headers", "purpose"),
    [
        ({"system": CLAUDE, "tools": [{"name": "Bash"}]}, {}, "main"),
        ({"system": CLAUDE, "tools": []}, {"anthropic-beta": "claude-code-20250219,x"}, "main"),
        ({"system": CLAUDE, "tools": []}, {}, "side"),
        ({"system": CLAUDE, "output_config": TITLE}, {}, "title"),
        ({"system": CLAUDE, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, {}, "web_search"),
        ({"system": CLAUDE, "tools": [{"name": "Bash"}]}, {"x-claude-code-agent-id": "1"}, "subagent"),
        ({"max_tokens": 1}, {}, "probe"),
        ({}, {}, "main"),
    ],
)
def test_side_requests_are_recognised(body: Any, headers: Any, purpose: Any) -> None:
    request = parse_request("boss", {"messages": [{"role": "user", "content": "hi"}], **body}, headers)
    assert request.purpose == purpose


async def test_the_title_comes_in_the_asked_schema(url: str, client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{url}/v1/messages", json=asks("hi", system=CLAUDE, output_config=TITLE))
    assert json.loads(answer.json()["content"][0]["text"]) == {"title": "boss on a script"}
