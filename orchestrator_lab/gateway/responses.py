"""The OpenAI Responses format: requests read, answers and event streams written.

What the real Codex sends was found by running it (0.169.0): the conversation is ``input``, a list of items; MCP tools
are offered in ``namespace`` tools and called by ``namespace`` and ``name``; what it asks on the side says so in the
header ``x-codex-turn-metadata``.

Notes
-----
Format: OpenAI, "Responses" and "Streaming responses" of the public API reference.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any

from orchestrator_lab.gateway.traffic import Reply, Request, ToolCall, ToolResult, count_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from orchestrator_lab.gateway.anthropic import SplitHeader

__all__ = [
    "CALLS",
    "OUTPUTS",
    "encode",
    "full_name",
    "kind_of",
    "output_text",
    "parse_request",
    "purpose_of",
    "stream",
    "texts_of",
    "tool_names",
    "true_texts",
]

# Texts that Codex itself puts into the user's messages; each such text is wholly of this kind.
_OWN_TEXT = re.compile(
    r"\s*<(environment_context|user_instructions|turn_aborted|skill|user_shell_command|subagent_notification"
    r"|permissions instructions|model_switch|hook_prompt|recommended_plugins)\b.*</[a-z_ ]+>\s*\Z"
    r"|\s*# AGENTS\.md instructions for .*</INSTRUCTIONS>\s*\Z",
    re.DOTALL,
)
#: Kinds of items that hold a tool's result, and that call one.
OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output", "mcp_tool_call_output"})
CALLS = frozenset({"function_call", "custom_tool_call"})


def parse_request(
    agent: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    split_header: SplitHeader | None = None,
) -> Request:
    """Read a Responses request.

    Parameters
    ----------
    agent : str
        Whose request it is.
    body : dict
        The JSON body.
    headers : dict
        HTTP headers, names in lower case.
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
    >>> parse_request("boss", {"input": [{"role": "user", "content": "hi"}]}, {}).text
    'hi'
    """
    given = body["input"]
    items = (
        [{"role": "user", "content": given}] if isinstance(given, str) else [i for i in given if isinstance(i, dict)]
    )
    if not items:
        raise ValueError("the request holds no input")
    names = {str(i.get("call_id")): full_name(i.get("namespace"), i.get("name")) for i in items if kind_of(i) in CALLS}
    texts: list[str] = []
    results: list[ToolResult] = []
    for item in items:
        kind = kind_of(item)
        if kind in OUTPUTS:
            call = str(item.get("call_id"))
            results.append(ToolResult(call, names.get(call, ""), output_text(item.get("output"))))
        elif kind == "message" and item.get("role") == "user":
            new = true_texts(item.get("content"))
            texts += new
            if new:
                results = []  # what the user wrote below the results is what counts
        elif kind in CALLS or (kind == "message" and item.get("role") == "assistant"):
            # Results in a row belong together; what the model said after them ends the row.
            results = []
    prompt = texts[-1] if texts else ""
    fields, text = split_header(prompt) if split_header else ({}, prompt)
    return Request(
        agent=agent,
        api="openai",
        text=text,
        prompt=prompt,
        model=str(body.get("model") or ""),
        turn=len(texts),
        tool_results=tuple(results),
        purpose=purpose_of(body, headers),
        stream=bool(body.get("stream", False)),
        tools=tuple(tool_names(body.get("tools"))),
        fields=fields,
        body=dict(body),
    )


def purpose_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Tell the conversation itself from what Codex asks on the side.

    ================  ==============================================================================
    purpose           evidence, in the header ``x-codex-turn-metadata``
    ================  ==============================================================================
    ``title``         ``thread_source`` is ``thread_title`` (once for each prompt until it has one)
    ``compact``       ``request_kind`` says ``compact…``
    ``subagent``      ``thread_source`` says ``subagent``
    ``side``          any other kind of request, or a thread of Codex's own
    ``main``          everything else; programs that are not Codex have no side requests
    ================  ==============================================================================

    Parameters
    ----------
    body : dict
        The request.
    headers : dict
        HTTP headers, names in lower case.

    Returns
    -------
    str
        The purpose.

    Examples
    --------
    >>> purpose_of({}, {"x-codex-turn-metadata": '{"thread_source": "thread_title"}'})
    'title'
    >>> purpose_of({}, {})
    'main'
    """
    raw: object = headers.get("x-codex-turn-metadata")
    if raw is None and isinstance(body.get("client_metadata"), dict):
        raw = body["client_metadata"].get("x-codex-turn-metadata")
    try:
        facts = json.loads(str(raw))
    except ValueError:
        return "main"
    if not isinstance(facts, dict):
        return "main"
    kind, source = str(facts.get("request_kind") or "turn"), str(facts.get("thread_source") or "user")
    if "compact" in kind:
        return "compact"
    if source == "thread_title":
        return "title"
    if "subagent" in source:
        return "subagent"
    return "main" if kind == "turn" and source == "user" else "side"


def kind_of(item: Mapping[str, Any]) -> str:
    """Return an item's kind; one that names none is a message."""
    return str(item.get("type", "message"))


def texts_of(content: object) -> list[str]:
    """Return the texts of a message's content."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    kinds = {"input_text", "output_text", "text"}
    return [str(p.get("text", "")) for p in parts if isinstance(p, dict) and p.get("type") in kinds]


def true_texts(content: object) -> list[str]:
    """Return what the user really wrote, without the texts that Codex adds on its own."""
    return [text for text in texts_of(content) if text.strip() and not _OWN_TEXT.match(text)]


def tool_names(tools: object) -> list[str]:
    """Return the names of the tools that a request offers."""
    return [full for full, _, _, _ in _offered(tools)]


def output_text(output: object) -> str:
    """Return the text of a tool's result (Codex puts a head of its own before it: ``Wall time: …``)."""
    if isinstance(output, dict):
        return output_text(output.get("content"))
    return "\n".join(texts_of(output))


def _plain(name: str) -> str:
    """Return a tool's name as Codex writes it: what is no letter, digit or ``_`` becomes ``_``."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def full_name(namespace: object, name: object) -> str:
    """Return a tool's name with its namespace, as other programs write it."""
    return f"{namespace}__{name}" if namespace else str(name or "")


def _offered(tools: object) -> list[tuple[str, str | None, str, str]]:
    """Return full name, namespace, name and type of each tool that can be called."""
    found: list[tuple[str, str | None, str, str]] = []
    for tool in tools if isinstance(tools, list) else []:
        if not isinstance(tool, dict):
            continue
        name, kind = str(tool.get("name") or ""), str(tool.get("type") or "function")
        if kind == "namespace":
            inners = tool.get("tools")
            for inner in inners if isinstance(inners, list) else []:
                if isinstance(inner, dict) and inner.get("name"):
                    full = full_name(name, inner["name"])
                    found.append((full, name, str(inner["name"]), str(inner.get("type") or "function")))
        elif name:
            found.append((name, None, name, kind))
    return found


def _item(request: Request, tool: ToolCall, number: int, reply_id: str) -> dict[str, Any]:
    """Return a tool call as an item; a script may name MCP tools as Claude Code does."""
    wanted = _plain(tool.name)
    namespace, name, kind = next(
        (
            (space, name, kind)
            for full, space, name, kind in _offered(request.body.get("tools"))
            if _plain(full) == wanted
        ),
        (None, tool.name, "function"),
    )
    call = {"id": f"fc_{reply_id}_{number}", "call_id": tool.id, "name": name, "status": "completed"}
    if kind == "custom":
        text = tool.input.get("input")
        text = text if isinstance(text, str) else json.dumps(tool.input, ensure_ascii=False)
        return {"type": "custom_tool_call", **call, "input": text}
    item = {"type": "function_call", **call, "arguments": json.dumps(tool.input, ensure_ascii=False)}
    return item | ({"namespace": namespace} if namespace else {})


def _message(reply: Reply, reply_id: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": reply.text, "annotations": []}]
    return {"type": "message", "id": f"msg_{reply_id}", "role": "assistant", "status": "completed", "content": content}


def _items(request: Request, reply: Reply, reply_id: str) -> list[dict[str, Any]]:
    items = [_message(reply, reply_id)] if reply.text or not reply.tools else []
    return items + [_item(request, tool, number, reply_id) for number, tool in enumerate(reply.tools)]


def _usage(request: Request, reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": request.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": request.input_tokens + reply.output_tokens,
    }


def _response(reply_id: str, status: str, output: Iterable[dict[str, Any]], **more: object) -> dict[str, Any]:
    return {
        "id": reply_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "model": "script",
        "output": list(output),
        **more,
    }


def encode(request: Request, reply: Reply, reply_id: str) -> dict[str, Any]:
    """Return an answer as one JSON object.

    Parameters
    ----------
    request : Request
        The question.
    reply : Reply
        The answer.
    reply_id : str
        The response's id.

    Returns
    -------
    dict
        A response of the API.

    Examples
    --------
    >>> done = encode(Request("boss", "openai", "hi"), Reply("Hello."), "resp_1")
    >>> done["output"][0]["content"][0]["text"]
    'Hello.'
    """
    return _response(reply_id, "completed", _items(request, reply, reply_id), usage=_usage(request, reply))


async def stream(request: Request, reply: Reply, reply_id: str) -> AsyncIterator[bytes]:
    """Yield an answer as the API's event stream, at the pace that the reply asks for.

    Parameters
    ----------
    request : Request
        The question.
    reply : Reply
        The answer.
    reply_id : str
        The response's id.

    Yields
    ------
    bytes
        One or more whole events; everything that is due at once comes in one piece.
    """
    number = -1

    def event(kind: str, **data: object) -> bytes:
        nonlocal number
        number += 1
        text = json.dumps({"type": kind, "sequence_number": number, **data}, ensure_ascii=False, separators=(",", ":"))
        return f"event: {kind}\ndata: {text}\n\n".encode("utf-8", "replace")

    pending = event("response.created", response=_response(reply_id, "in_progress", []))
    items = _items(request, reply, reply_id)
    for index, item in enumerate(items):
        if item["type"] == "message":
            begun = {**item, "status": "in_progress", "content": []}
            where = {"item_id": item["id"], "output_index": index, "content_index": 0}
            pending += event("response.output_item.added", output_index=index, item=begun)
            empty = {"type": "output_text", "text": "", "annotations": []}
            pending += event("response.content_part.added", **where, part=empty)
            for piece in reply.pieces():
                if reply.tokens_per_s:
                    yield pending
                    pending = b""
                    await asyncio.sleep(count_tokens(piece) / reply.tokens_per_s)
                pending += event("response.output_text.delta", **where, delta=piece)
            pending += event("response.output_text.done", **where, text=reply.text)
            pending += event("response.content_part.done", **where, part=item["content"][0])
        else:
            key, word = (
                ("input", "custom_tool_call_input") if "input" in item else ("arguments", "function_call_arguments")
            )
            begun = {**item, "status": "in_progress", key: ""}
            pending += event("response.output_item.added", output_index=index, item=begun)
            where = {"item_id": item["id"], "output_index": index}
            pending += event(f"response.{word}.delta", **where, delta=item[key])
            pending += event(f"response.{word}.done", **where, **{key: item[key]})
        pending += event("response.output_item.done", output_index=index, item=item)
    done = _response(reply_id, "completed", items, usage=_usage(request, reply))
    yield pending + event("response.completed", response=done)
