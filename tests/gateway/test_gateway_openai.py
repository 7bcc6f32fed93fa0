from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway_helpers import Running, settings

if TYPE_CHECKING:
    import httpx

RULES = {
    "rules": [
        {
            "when": {"contains": "tool"},
            "tool": {"name": "t", "input": {"x": 1}},
            "then": {"reply": "It gave {tool_result}."},
        },
        {"when": {"contains": "busy"}, "error": {"status": 429, "type": "rate_limit_error", "message": "Slow."}},
    ],
    "default": {"reply": "You said: {text}", "chunk": 4},
}


def read_sse(text: str) -> list[dict]:
    blocks = text.strip().split("\n\n")
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(b.removeprefix("data: ")) for b in blocks[:-1]]


async def test_chat_completions(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("boss", "s", settings(script=RULES, api="openai"))
    url = f"{running.url('s')}/v1/chat/completions"
    messages = [{"role": "system", "content": "Be nice."}, {"role": "user", "content": "hi"}]
    whole = (await client.post(url, json={"model": "m", "messages": messages})).json()
    assert whole["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "You said: hi"},
        "finish_reason": "stop",
    }
    body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    events = read_sse((await client.post(url, json=body)).text)
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"])
    assert text == "You said: hi"
    assert events[-1]["usage"] == whole["usage"]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    answered = await running.wait_for("gateway.response", 2)
    assert [a["output_tokens"] for a in answered] == [3, 3]


async def test_tool_calls_and_their_results(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("boss", "s", settings(script=RULES, api="openai"))
    url = f"{running.url('s')}/v1/chat/completions"
    messages = [{"role": "user", "content": "tool"}]
    choice = (await client.post(url, json={"messages": messages})).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"x": 1}
    events = read_sse((await client.post(url, json={"messages": messages, "stream": True})).text)
    assert events[1]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "t"
    messages += [choice["message"], {"role": "tool", "tool_call_id": call["id"], "content": "42"}]
    answer = (await client.post(url, json={"messages": messages})).json()
    assert answer["choices"][0]["message"]["content"] == "It gave 42."


async def test_errors_have_openais_form(running: Running, client: httpx.AsyncClient) -> None:
    running.gateway.bind("boss", "s", settings(script=RULES, api="openai"))
    body = {"messages": [{"role": "user", "content": "busy"}]}
    answer = await client.post(f"{running.url('s')}/v1/chat/completions", json=body)
    assert answer.status_code == 429
    assert answer.json()["error"]["message"] == "Slow."
