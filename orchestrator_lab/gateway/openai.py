"""The OpenAI chat-completions format: requests read, answers and event streams written.

Notes
-----
Format: OpenAI, "Chat completions" and "Streaming" of the public API reference.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from orchestrator_lab.gateway.anthropic import SplitHeader, text_of
from orchestrator_lab.gateway.traffic import ApiError, Reply, Request, ToolResult, count_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["encode", "encode_error", "parse_request", "stream"]


def parse_request(
    agent: str,
    body: Mapping[str, Any],
    split_header: SplitHeader | None = None,
) -> Request:
    """Read a chat-completions request.

    Parameters
    ----------
    agent : str
        Whose request it is.
    body : dict
        The JSON body.
    split_header : callable, optional
        Takes the lab's header line off the text.

    Returns
    -------
    Request
        The request as a script sees it.

    Raises
    ------
    KeyError, TypeError, ValueError
        When `body` is no request of this API.

    Examples
    --------
    >>> parse_request("boss", {"messages": [{"role": "user", "content": "hi"}]}).text
    'hi'
    """
    messages = [m for m in body["messages"] if isinstance(m, dict)]
    if not messages:
        msg = "the request holds no messages"
        raise ValueError(msg)
    texts = [t for t in (text_of(m.get("content")) for m in messages if m.get("role") == "user") if t]
    prompt = texts[-1] if texts else ""
    names: dict[Any, str] = {
        call.get("id"): str((call.get("function") or {}).get("name", ""))
        for m in messages
        for call in m.get("tool_calls") or []
        if isinstance(call, dict)
    }
    results: list[ToolResult] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        key = message.get("tool_call_id")
        results.insert(0, ToolResult(str(key), names.get(key, ""), text_of(message.get("content"))))
    tools = [t.get("function") or {} for t in body.get("tools") or [] if isinstance(t, dict)]
    fields, text = split_header(prompt) if split_header else ({}, prompt)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    return Request(
        agent=agent,
        api="openai",
        text=text,
        prompt=prompt,
        model=str(body.get("model") or ""),
        turn=len(texts),
        tool_results=tuple(results),
        purpose="probe" if limit == 1 else "main",
        stream=bool(body.get("stream", False)),
        tools=tuple(str(t.get("name", "")) for t in tools),
        fields=fields,
        body=dict(body),
    )


def _usage(request: Request, reply: Reply) -> dict[str, int]:
    prompt, completion = request.input_tokens, reply.output_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _calls(reply: Reply, *, indexed: bool) -> list[dict[str, Any]]:
    return [
        {
            **({"index": index} if indexed else {}),
            "id": tool.id,
            "type": "function",
            "function": {
                "name": tool.name,
                "arguments": json.dumps(tool.input, ensure_ascii=False),
            },
        }
        for index, tool in enumerate(reply.tools)
    ]


def encode(request: Request, reply: Reply, reply_id: str) -> dict[str, Any]:
    """Return an answer as one JSON object.

    Parameters
    ----------
    request : Request
        The question.
    reply : Reply
        The answer.
    reply_id : str
        The completion's id.

    Returns
    -------
    dict
        A chat completion.

    Examples
    --------
    >>> done = encode(Request("boss", "openai", "hi"), Reply("Hello."), "chatcmpl_1")
    >>> done["choices"][0]["message"]["content"]
    'Hello.'
    """
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tools:
        message["tool_calls"] = _calls(reply, indexed=False)
    else:
        message["content"] = reply.text
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "tool_calls" if reply.tools else "stop",
    }
    return {
        "id": reply_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "script",
        "choices": [choice],
        "usage": _usage(request, reply),
    }


def encode_error(error: ApiError) -> dict[str, Any]:
    """Return an error as the API's JSON object.

    Parameters
    ----------
    error : ApiError
        What went wrong.

    Returns
    -------
    dict
        ``{"error": {"message", "type", "param", "code"}}``.

    Examples
    --------
    >>> encode_error(ApiError(429, "rate_limit_error", "Slow down."))["error"]["type"]
    'rate_limit_error'
    """
    return {
        "error": {"message": error.message, "type": error.type, "param": None, "code": None, **error.fields},
    }


async def stream(request: Request, reply: Reply, reply_id: str) -> AsyncIterator[bytes]:
    """Yield an answer as the API's event stream, at the pace that the reply asks for.

    Parameters
    ----------
    request : Request
        The question.
    reply : Reply
        The answer.
    reply_id : str
        The completion's id.

    Yields
    ------
    bytes
        One or more whole events; everything that is due at once comes in one piece.
    """
    created = int(time.time())

    def event(choices: list[dict[str, Any]], **more: object) -> bytes:
        data = {
            "id": reply_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": "script",
            "choices": choices,
            **more,
        }
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return f"data: {text}\n\n".encode("utf-8", "replace")

    def delta(content: dict[str, Any], finish: str | None = None) -> bytes:
        return event([{"index": 0, "delta": content, "finish_reason": finish}])

    pending = delta({"role": "assistant", "content": ""})
    for piece in reply.pieces():
        if reply.tokens_per_s:
            yield pending
            pending = b""
            await asyncio.sleep(count_tokens(piece) / reply.tokens_per_s)
        pending += delta({"content": piece})
    if reply.tools:
        pending += delta({"tool_calls": _calls(reply, indexed=True)})
    pending += delta({}, "tool_calls" if reply.tools else "stop")
    options = request.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        pending += event([], usage=_usage(request, reply))
    yield pending + b"data: [DONE]\n\n"
