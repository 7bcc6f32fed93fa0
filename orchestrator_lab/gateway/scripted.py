"""Giving the answer of a scripted model to a client, in the client's API."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator_lab.errors import GatewayError
from orchestrator_lab.gateway import anthropic, openai, responses
from orchestrator_lab.gateway.http import send_json, start
from orchestrator_lab.gateway.traffic import Api, ApiError, Request, Usage, input_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Send

    from orchestrator_lab.gateway.script import ScriptedModel

__all__ = [
    "CONVERSATIONS",
    "RefusedError",
    "answer_lookup",
    "answer_scripted",
    "encode_error",
    "new_reply_id",
    "not_json",
]

#: Ends of the paths behind which models are talked to.
CONVERSATIONS = ("/messages", "/messages/count_tokens", "/chat/completions", "/responses")
#: Where a request holds its conversation, by far the most of it, which is of no use once the answer is known.
_SPOKEN = frozenset({"messages", "input"})


class RefusedError(Exception):
    """Carries an error of the API to where it is sent.

    Parameters
    ----------
    error : ApiError
        What the client gets.
    """

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Call(Protocol):
    """The parts of a call that answering it reads and fills."""

    path: str
    request_id: str
    status: int | None
    usage: Usage
    rule: str | None

    def first_byte(self) -> None:
        """Note when the first byte came."""


def encode_error(api: Api, error: ApiError, request_id: str) -> dict[str, Any]:
    """Return an error as an API's JSON object."""
    return openai.encode_error(error) if api == "openai" else anthropic.encode_error(error, request_id)


def new_reply_id(prefix: str) -> str:
    """Return a new id of a request or an answer."""
    from ulid import ULID

    return prefix + str(ULID()).lower()


async def answer_lookup(api: Api, path: str, method: str, send: Send) -> None:
    """Answer what clients look up before they talk: reachability and the list of models."""
    if method == "HEAD" or path == "/":
        await start(send, 200, [(b"content-length", b"0")])
        await send({"type": "http.response.body", "body": b""})
        return
    if path == "/v1/models":
        entry = {"id": "script", "type": "model", "object": "model", "display_name": "Script"}
        entry |= {"created_at": "2026-01-01T00:00:00Z", "owned_by": "orchestrator-lab"}
        value = {"object": "list", "data": [entry], "has_more": False}
        value |= {"first_id": "script", "last_id": "script"}
        await send_json(send, 200, value)
        return
    error = _not_found(path)
    await send_json(send, error.status, encode_error(api, error, ""))


async def not_json() -> None:
    """Refuse a request whose body cannot be read."""
    sentence = "The request's body is no JSON object, or is compressed in an unknown way."
    raise RefusedError(ApiError(400, "invalid_request_error", sentence, retry=False))


async def answer_scripted(model: ScriptedModel | None, call: Call, request: Request | None, send: Send) -> None:
    """Answer a request by a script.

    Parameters
    ----------
    model : ScriptedModel or None
        The script.
    call : Call
        What the journal will say; status, usage and rule are filled in.
    request : Request or None
        None when it is not of the API's form.
    send : callable
        ASGI's.

    Raises
    ------
    RefusedError
        When the script answers with an error, or the request cannot be answered.
    """
    path = call.path
    if model is None or not path.endswith(CONVERSATIONS):
        raise RefusedError(_not_found(path))
    if request is None:
        key = "input" if path.endswith("/responses") else "messages"
        sentence = f"The request is not of the API's form: '{key}' must be a list of objects."
        raise RefusedError(ApiError(400, "invalid_request_error", sentence, retry=False))
    # Counted here, not when parsed: it costs a millisecond a 100 kB, which passing on need not pay.
    request = replace(request, input_tokens=input_tokens(request.body))
    if path.endswith("/count_tokens"):
        call.status = 200
        await send_json(send, 200, {"input_tokens": request.input_tokens})
        return
    try:
        reply = model.answer(request)
    except GatewayError as problem:
        raise RefusedError(ApiError(500, "api_error", problem.message, retry=False)) from problem
    call.rule = reply.rule
    request = replace(request, body={key: request.body[key] for key in request.body if key not in _SPOKEN})
    if reply.delay_s:
        await asyncio.sleep(reply.delay_s)
    if reply.error is not None:
        raise RefusedError(reply.error)
    call.usage = Usage("script", request.input_tokens, reply.output_tokens)
    wire: Any = openai if request.api == "openai" else anthropic
    reply_id = new_reply_id("chatcmpl-" if request.api == "openai" else "msg_")
    if path.endswith("/responses"):
        wire, reply_id = responses, new_reply_id("resp_")
    call.usage.reply_id = reply_id
    if not request.stream:
        call.first_byte()
        call.status = 200
        extra = [("request-id", call.request_id)]
        await send_json(send, 200, wire.encode(request, reply, reply_id), extra)
        return
    await _send_stream(call, wire.stream(request, reply, reply_id), send)


async def _send_stream(call: Call, events: AsyncIterator[bytes], send: Send) -> None:
    head = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"request-id", call.request_id.encode()),
    ]
    call.status = 200
    await start(send, 200, head)
    async for piece in events:
        call.first_byte()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _not_found(path: str) -> ApiError:
    sentence = f"The scripted model has no {path}; it speaks /v1/messages, /v1/chat/completions and /v1/responses."
    return ApiError(404, "not_found_error", sentence, retry=False)
