"""The Anthropic Messages format: requests read, answers and event streams written.

What the real Claude Code sends was found by running it (2.1.197); the rules for telling its own
side requests from the conversation are in :func:`purpose_of`, each with its evidence.

Notes
-----
Format: Anthropic, "Messages API" and "Streaming messages" of the public API reference.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from orchestrator_lab.gateway.traffic import ApiError, Reply, Request, ToolResult, count_tokens

__all__ = [
    "SplitHeader",
    "encode",
    "encode_error",
    "parse_request",
    "purpose_of",
    "stream",
    "text_of",
    "true_texts",
    "typed_meanwhile",
]

#: Splits a text into what the lab's header line says and the body below it.
SplitHeader = Callable[[str], tuple[dict[str, str], str]]

# Blocks that Claude Code itself puts into the user's messages; each such text block is wholly of this kind.
_OWN_BLOCK = re.compile(
    r"\s*<(system-reminder|local-command-caveat|local-command-stdout|local-command-stderr|command-name"
    r"|command-message|bash-stdout|bash-stderr)>.*</[a-z-]+>\s*\Z|\s*\[Request interrupted by user[^\]]*\]\s*\Z",
    re.DOTALL,
)

_MEANWHILE = re.compile(r"The user sent a new message while you were working:\n(.*)\n\nIMPORTANT: ", re.DOTALL)


def text_of(content: object) -> str:
    """Return the text of a message's or a tool result's content.

    Parameters
    ----------
    content : str or list of dict
        As the API has it.

    Returns
    -------
    str
        The text blocks, joined by newlines.

    Examples
    --------
    >>> text_of([{"type": "text", "text": "a"}, {"type": "image"}])
    'a'
    """
    if isinstance(content, str):
        return content
    return "\n".join(_texts(content))


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    return [str(b.get("text", "")) for b in blocks if isinstance(b, dict) and b.get("type") in {"text", "input_text"}]


def true_texts(content: object) -> list[str]:
    """Return what the user really wrote, without the blocks that Claude Code adds on its own.

    A block is left out when it is wholly a ``<system-reminder>``, the record of a local command or
    the note of an interrupt. A user's own text that merely contains such a tag stays. There is one
    block a prompt; when an earlier prompt was answered with an error of the API, the next request
    holds both, in one message.

    Parameters
    ----------
    content : str or list of dict
        Content of a user message.

    Returns
    -------
    list of str
        The user's texts, oldest first.

    Examples
    --------
    >>> blocks = ["<system-reminder>x</system-reminder>", "hi"]
    >>> true_texts([{"type": "text", "text": text} for text in blocks])
    ['hi']
    """
    return [t for t in _texts(content) if t.strip() and not _OWN_BLOCK.match(t)]


def typed_meanwhile(role: object, content: object) -> list[str]:
    """Return what the user typed while Claude Code was working: it comes in a system message."""
    if role != "system":
        return []
    return [found[1] for text in _texts(content) if (found := _MEANWHILE.match(text))]


def _blocks(message: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    content = message.get("content")
    if not isinstance(content, list):
        return []
    return [b for b in content if isinstance(b, dict) and b.get("type") == kind]


def purpose_of(body: Mapping[str, Any], headers: Mapping[str, str], text: str) -> str:
    """Tell the conversation itself from what Claude Code asks on the side.

    ====================  ==========================================================================
    purpose               evidence
    ====================  ==========================================================================
    ``probe``             ``max_tokens`` is 1 (quota and key checks)
    ``subagent``          the header ``x-claude-code-agent-id`` (its Agent tool; carries tools)
    ``title``             no tools, and an output format whose JSON schema asks for a ``title``
    ``suggestion``        the last text begins with ``[SUGGESTION MODE:`` (it carries all tools)
    ``compact``           the last text asks for "a detailed summary of" the conversation
    ``web_search``        every tool is one of the provider's own (``web_search_…``)
    ``side``              the system prompt is Claude Code's, there are no tools, and the
                        ``anthropic-beta`` header
                          does not hold ``claude-code-…`` (summaries, explanations, names)
    ``main``              everything else; programs that are not Claude Code have no side requests
    ====================  ==========================================================================

    Parameters
    ----------
    body : dict
        The request.
    headers : dict
        HTTP headers, names in lower case.
    text : str
        The last text of the user.

    Returns
    -------
    str
        The purpose.

    Examples
    --------
    >>> purpose_of({"max_tokens": 1}, {}, "quota")
    'probe'
    >>> purpose_of({"max_tokens": 100}, {}, "hello")
    'main'
    """
    if body.get("max_tokens") == 1:
        return "probe"
    if "x-claude-code-agent-id" in headers:
        return "subagent"
    system = _texts(body.get("system"))
    ours = any(s.startswith(("x-anthropic-billing-header", "You are Claude Code")) for s in system)
    if not ours and not headers.get("user-agent", "").startswith("claude-cli/"):
        return "main"
    tools = [t for t in body.get("tools") or [] if isinstance(t, dict)]
    if not tools:
        schema = _schema(body)
        if schema is not None:
            return "title" if "title" in schema.get("properties", {}) else "side"
        return "main" if "claude-code-" in headers.get("anthropic-beta", "") else "side"
    if all(str(t.get("type", "")).startswith("web_search") for t in tools):
        return "web_search"
    if text.lstrip().startswith("[SUGGESTION MODE:"):
        return "suggestion"
    if "task is to create a detailed summary of" in text[:2000]:
        return "compact"
    return "main"


def _schema(body: Mapping[str, Any]) -> dict[str, Any] | None:
    config = body.get("output_config")
    form = (config.get("format") if isinstance(config, dict) else None) or body.get("output_format")
    if form is None and isinstance(body.get("text"), dict):  # as the Responses API has it
        form = body["text"].get("format")
    schema = form.get("schema") if isinstance(form, dict) else None
    return schema if isinstance(schema, dict) else None


def side_reply(request: Request) -> Reply:
    """Return the built-in answer to a side request, in the form that was asked for.

    Parameters
    ----------
    request : Request
        With a purpose other than ``main``.

    Returns
    -------
    Reply
        JSON of the asked schema, a summary, or a short text.

    Examples
    --------
    >>> side_reply(Request("boss", "anthropic", "", purpose="suggestion")).text
    ''
    """
    rule = f"built-in: {request.purpose}"
    schema = _schema(request.body)
    if schema is not None:
        value = {
            name: f"{request.agent} on a script" if name == "title" else _minimal(kind)
            for name, kind in schema.get("properties", {}).items()
        }
        return Reply(json.dumps(value), rule=rule)
    if request.purpose == "compact":
        return Reply("<summary>\nThe conversation so far was answered by a script.\n</summary>", rule=rule)
    texts = {"probe": ".", "suggestion": "", "web_search": "A script cannot search the web."}
    return Reply(texts.get(request.purpose, "answered by a script"), rule=rule)


def _minimal(schema: object) -> object:
    """Return the plainest value that a JSON schema's type allows."""
    if not isinstance(schema, dict):
        return ""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: _minimal(part) for name, part in schema.get("properties", {}).items()}
    plain: dict[Any, object] = {
        "array": [],
        "boolean": False,
        "integer": 0,
        "number": 0,
        "null": None,
    }
    return plain.get(kind, "") if not isinstance(kind, list) else ""


def parse_request(
    agent: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    split_header: SplitHeader | None = None,
) -> Request:
    """Read a Messages request.

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
    >>> parse_request("boss", {"messages": [{"role": "user", "content": "hi"}]}, {}).text
    'hi'
    """
    messages = [m for m in body["messages"] if isinstance(m, dict)]
    if not messages:
        msg = "the request holds no messages"
        raise ValueError(msg)
    names = {b.get("id"): str(b.get("name", "")) for m in messages for b in _blocks(m, "tool_use")}
    texts: list[str] = []
    results: tuple[ToolResult, ...] = ()
    for message in messages:
        role, content = message.get("role"), message.get("content")
        # Claude Code also has messages of role "system" in the conversation, even behind the user's.
        new = true_texts(content) if role == "user" else typed_meanwhile(role, content)
        if role == "user":
            results = tuple(
                ToolResult(
                    str(b.get("tool_use_id", "")),
                    names.get(b.get("tool_use_id"), ""),
                    text_of(b.get("content")),
                    bool(b.get("is_error", False)),
                )
                for b in _blocks(message, "tool_result")
            )
        if new or role == "assistant":
            results = ()  # what the user wrote below the results is what counts
        texts += new
    prompt = texts[-1] if texts else ""
    fields, text = split_header(prompt) if split_header else ({}, prompt)
    return Request(
        agent=agent,
        api="anthropic",
        text=text,
        prompt=prompt,
        model=str(body.get("model") or ""),
        turn=len(texts),
        tool_results=results,
        purpose=purpose_of(body, headers, prompt),
        stream=bool(body.get("stream", False)),
        tools=tuple(str(t.get("name", "")) for t in body.get("tools") or [] if isinstance(t, dict)),
        fields=fields,
        body=dict(body),
    )


def _usage(request: Request, output_tokens: int) -> dict[str, int]:
    return {
        "input_tokens": request.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _message(request: Request, reply_id: str, content: list[Any], **more: object) -> dict[str, Any]:
    return {
        "id": reply_id,
        "type": "message",
        "role": "assistant",
        "model": "script",
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(request, 0),
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
        The message's id.

    Returns
    -------
    dict
        A message of the API.

    Examples
    --------
    >>> encode(Request("boss", "anthropic", "hi"), Reply("Hello."), "msg_1")["content"]
    [{'type': 'text', 'text': 'Hello.'}]
    """
    content: list[Any] = [{"type": "text", "text": reply.text}] if reply.text else []
    content += [{"type": "tool_use", "id": t.id, "name": t.name, "input": t.input} for t in reply.tools]
    return _message(
        request,
        reply_id,
        content,
        stop_reason="tool_use" if reply.tools else "end_turn",
        usage=_usage(request, reply.output_tokens),
    )


def encode_error(error: ApiError, request_id: str) -> dict[str, Any]:
    """Return an error as the API's JSON object.

    Parameters
    ----------
    error : ApiError
        What went wrong.
    request_id : str
        The request's id in the journal.

    Returns
    -------
    dict
        ``{"type": "error", "error": {"type", "message"}, "request_id"}``.

    Examples
    --------
    >>> encode_error(ApiError(529, "overloaded_error", "Busy."), "req_1")["error"]
    {'type': 'overloaded_error', 'message': 'Busy.'}
    """
    return {
        "type": "error",
        "error": {"type": error.type, "message": error.message, **error.fields},
        "request_id": request_id,
    }


def _event(name: str, **data: object) -> bytes:
    payload = json.dumps({"type": name, **data}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {payload}\n\n".encode("utf-8", "replace")


def _text_events(pieces: Iterable[str]) -> list[tuple[bytes, int]]:
    events = [(_event("content_block_start", index=0, content_block={"type": "text", "text": ""}), 0)]
    events += [
        (
            _event("content_block_delta", index=0, delta={"type": "text_delta", "text": p}),
            count_tokens(p),
        )
        for p in pieces
    ]
    return [*events, (_event("content_block_stop", index=0), 0)]


async def stream(request: Request, reply: Reply, reply_id: str) -> AsyncIterator[bytes]:
    """Yield an answer as the API's event stream, at the pace that the reply asks for.

    Parameters
    ----------
    request : Request
        The question.
    reply : Reply
        The answer.
    reply_id : str
        The message's id.

    Yields
    ------
    bytes
        One or more whole events; everything that is due at once comes in one piece.
    """
    pending = _event("message_start", message=_message(request, reply_id, []))
    pending += _event("ping")
    # An empty answer has an empty text block, as the real API's has.
    has_text = bool(reply.text) or not reply.tools
    for event, tokens in _text_events(reply.pieces()) if has_text else ():
        if tokens and reply.tokens_per_s:
            yield pending
            pending = b""
            await asyncio.sleep(tokens / reply.tokens_per_s)
        pending += event
    for index, tool in enumerate(reply.tools, start=int(has_text)):
        block = {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}
        pending += _event("content_block_start", index=index, content_block=block)
        delta = {"type": "input_json_delta", "partial_json": json.dumps(tool.input)}
        pending += _event("content_block_delta", index=index, delta=delta)
        pending += _event("content_block_stop", index=index)
    stop = {"stop_reason": "tool_use" if reply.tools else "end_turn", "stop_sequence": None}
    pending += _event("message_delta", delta=stop, usage=_usage(request, reply.output_tokens))
    yield pending + _event("message_stop")
