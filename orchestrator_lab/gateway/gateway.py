"""The gateway: one unguessable address per agent, behind it whatever model the configuration names."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator_lab.errors import ConfigError, GatewayError, OrchestratorLabError
from orchestrator_lab.gateway import anthropic, openai, responses
from orchestrator_lab.gateway.http import (
    ClientGone,
    decoded,
    headers_of,
    read_body,
    send_json,
    start,
    until_gone,
)
from orchestrator_lab.gateway.local import LocalModel
from orchestrator_lab.gateway.rules import load_script
from orchestrator_lab.gateway.script import ScriptedModel, ScriptFunction
from orchestrator_lab.gateway.traffic import Api, ApiError, Request, Usage, input_tokens
from orchestrator_lab.gateway.upstream import SECRET_HEADER, Target, Upstream, UpstreamError
from orchestrator_lab.models import find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

__all__ = ["Gateway", "GatewaySettings"]

logger = logging.getLogger(__name__)

#: What each API's clients expect when the configuration names no base URL.
DEFAULT_BASE_URLS = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
}


#: The place of the secret in the address of a program that sends it in a header (its address is open to all).
BY_HEADER = "by-header"

#: Where a request holds its conversation, by far the most of it, which is of no use once the answer is known.
_SPOKEN = frozenset({"messages", "input"})

_CONVERSATIONS = ("/messages", "/messages/count_tokens", "/chat/completions", "/responses")


class GatewaySettings(Protocol):
    """What the gateway reads of an agent's configuration (``config.GatewayConfig`` has it)."""

    @property
    def mode(self) -> str:
        """One of ``none``, ``upstream``, ``script`` and ``local``."""

    @property
    def base_url(self) -> str | None:
        """Where ``upstream`` passes requests on to."""

    @property
    def api(self) -> str:
        """``anthropic`` or ``openai``."""

    @property
    def script(self) -> Any:  # noqa: ANN401 - a path, a list or a mapping
        """The rules of ``script``."""

    @property
    def model(self) -> str | None:
        """The model of ``local``: a name or a GGUF file's path."""


@dataclass(slots=True)
class _Binding:
    agent: str
    mode: str
    api: Api
    key: str | None
    scripted: ScriptedModel | None = None
    base_url: str | None = None
    model: str | None = None


@dataclass(slots=True)
class _Call:
    """One request on its way, with what the journal will say of it."""

    binding: _Binding
    path: str
    request_id: str
    begun: float = field(default_factory=time.perf_counter)
    first_byte_s: float | None = None
    status: int | None = None
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    rule: str | None = None
    journalled: bool = False

    def first_byte(self) -> None:
        if self.first_byte_s is None:
            self.first_byte_s = time.perf_counter() - self.begun


class Gateway:
    """The loopback model endpoint of a cluster.

    Parameters
    ----------
    record : callable
        ``record(event, agent=…, **attributes)`` writes one event into the journal.
    split_header : callable, optional
        Takes the lab's header line off a user's text: returns what it says (``{"sender": …}``) and
        the body below it. Scripts then match on the body.
    local_log : Path, optional
        Where the local model's process writes its log when it is started by the first request.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> gateway = Gateway(lambda event, **attributes: None)
    >>> rules = SimpleNamespace(mode="script", base_url=None, api="anthropic", model=None)
    >>> rules.script = [{"echo": True}]
    >>> gateway.bind("boss", "a-long-secret", rules, key=None)
    >>> gateway.unbind("a-long-secret")
    """

    def __init__(
        self,
        record: Callable[..., None],
        *,
        split_header: anthropic.SplitHeader | None = None,
        local_log: Path | None = None,
    ) -> None:
        self._record = record
        self._split_header = split_header
        self._local_log = local_log
        self._bindings: dict[str, _Binding] = {}
        self._upstream = Upstream()
        self._locals: dict[Path, LocalModel] = {}
        self._starting: dict[Path, asyncio.Task[LocalModel]] = {}

    def bind(
        self,
        agent: str,
        secret: str,
        config: GatewaySettings,
        *,
        key: str | None = None,
        script: ScriptFunction | None = None,
    ) -> None:
        """Open an address for an agent.

        Parameters
        ----------
        agent : str
            Its name.
        secret : str
            The unguessable part of its address.
        config : GatewayConfig
            Mode and the mode's settings.
        key : str, optional
            The provider's key (``upstream``); without it the client's own credentials pass on
            untouched.
        script : callable, optional
            A Python function in the place of rules (``script``).

        Raises
        ------
        ConfigError
            When the script is wrong (with file, line and rule) or a setting is missing.
        ModelNotAvailable
            When the local model is not on this machine.
        """
        api: Api = "openai" if config.api == "openai" else "anthropic"
        binding = _Binding(agent, config.mode, api, key)
        if config.mode == "script":
            if script is not None:
                binding.scripted = ScriptedModel(script)
            elif config.script is None:
                msg = f"agent '{agent}': gateway mode 'script' needs 'script' (a file of rules, or the rules)"
                raise ConfigError(msg, agent=agent)
            else:
                where = f"agent '{agent}', gateway.script"
                binding.scripted = ScriptedModel(load_script(config.script, where=where))
        elif config.mode == "upstream":
            url = config.base_url or DEFAULT_BASE_URLS[api]
            if not url.startswith(("http://", "https://")):
                msg = f"agent '{agent}': gateway base_url {url!r} must begin with http:// or https://"
                raise ConfigError(msg, agent=agent)
            binding.base_url = url
        elif config.mode == "local":
            find(config.model)  # a missing model is told now, not at the first request
            binding.model = config.model
        else:
            msg = f"agent '{agent}': gateway mode {config.mode!r} has no address; give upstream, script or local"
            raise ConfigError(msg, agent=agent)
        self._bindings[secret] = binding
        if config.mode == "local":
            self._start_early(config.model)

    def unbind(self, secret: str) -> None:
        """Close an address; requests to it are refused from now on.

        Parameters
        ----------
        secret : str
            The address's secret; unknown ones are ignored.
        """
        self._bindings.pop(secret, None)

    async def start_local(self, model: str | None = None, log_path: Path | None = None) -> LocalModel:
        """Start a local model's process, or return the running one.

        Each model is loaded once, however many agents use it; a process that died is started anew.

        Parameters
        ----------
        model : str, optional
            A model's name or a GGUF file's path; the default model when None.
        log_path : Path, optional
            Where its log goes; the constructor's `local_log` when None.

        Returns
        -------
        LocalModel
            The running model, with ``base_url``, ``load_s`` and ``pid``.

        Raises
        ------
        ModelNotAvailable
            When the model is not on this machine.
        GatewayError
            When the process does not start.
        """
        path = find(model)
        local = self._locals.get(path)
        if local is not None and local.running and local.base_url is not None:
            return local
        starting = self._starting.get(path)
        if starting is None or starting.done():
            local = LocalModel(model, log_path or self._local_log)
            starting = asyncio.ensure_future(self._start(path, local))
            self._starting[path] = starting
        # Shielded: one impatient client must not end the start for all others.
        return await asyncio.shield(starting)

    async def _start(self, path: Path, local: LocalModel) -> LocalModel:
        await local.start()
        self._locals[path] = local
        return local

    def _start_early(self, model: str | None) -> None:
        """Load the model while the agents start, when there is a loop to do it on."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        task = asyncio.ensure_future(self.start_local(model))
        # The first request asks again and reports; here the error is only marked as seen.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def aclose(self) -> None:
        """Close the connections and end the local model's process."""
        self._bindings.clear()
        for task in self._starting.values():
            task.cancel()
        if self._starting:
            await asyncio.wait(self._starting.values())
        for local in self._locals.values():
            await local.stop()
        self._locals.clear()
        self._starting.clear()
        await self._upstream.aclose()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an agent's program: ``/SECRET/…`` below the place where this is mounted."""
        if scope["type"] != "http":
            return
        secret, _, rest = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/").partition("/")
        path = f"/{rest}"
        binding = self._bindings.get(headers_of(scope).get(SECRET_HEADER, "") if secret == BY_HEADER else secret)
        if binding is None:
            sentence = "This gateway address is not known: its agent was removed or the cluster was restarted."
            refusal = ApiError(403, "permission_error", sentence, retry=False)
            await send_json(send, 403, anthropic.encode_error(refusal, ""), refusal.headers())
            return
        asks = scope["method"] in {"HEAD", "GET"}
        if asks and (binding.mode == "script" or (binding.mode == "local" and path == "/")):
            await self._script_get(binding, path, scope["method"], send)
            return
        call = _Call(binding, path, _new_id("req_"))
        try:
            await until_gone(receive, await self._begin(call, scope, secret, receive, send))
        except ClientGone:
            call.error = "the client closed the connection"
        except (_RefusedError, UpstreamError) as refused:
            call.error = refused.error.message
            await self._send_error(call, refused.error, send)
        except asyncio.CancelledError:
            call.error = "the gateway was stopped"
            raise
        finally:
            if call.journalled:
                self._journal_response(call)

    async def _begin(
        self, call: _Call, scope: Scope, secret: str, receive: Receive, send: Send
    ) -> Coroutine[Any, Any, None]:
        """Take a request in, and return what answers it; a conversation of megabytes is not kept meanwhile."""
        raw = await _read(receive)
        headers = headers_of(scope)
        body = _json(raw, headers.get("content-encoding", ""))
        request = None
        if isinstance(body, dict) and call.path.endswith(_CONVERSATIONS):
            request = self._parse(call.binding, call.path, body, headers)
        self._journal_request(call, body, request.purpose if request is not None else None)
        call.journalled = True
        if call.binding.mode != "script":
            return self._pass_on(call, scope, secret, raw, send)
        if not isinstance(body, dict):
            return self._not_json()
        return self._script_post(call, call.path, request, send)

    def _parse(self, binding: _Binding, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Request | None:
        """Understand a request; None when it is not of the API's form (which is its model's to say)."""
        try:
            if path.endswith("/chat/completions"):
                return openai.parse_request(binding.agent, body, self._split_header)
            if path.endswith("/responses"):
                return responses.parse_request(binding.agent, body, headers, self._split_header)
            return anthropic.parse_request(binding.agent, body, headers, self._split_header)
        except (KeyError, TypeError, ValueError, AttributeError):
            logger.debug("agent %s: %s is not understood", binding.agent, path, exc_info=True)
            return None

    # -- script

    async def _script_get(self, binding: _Binding, path: str, method: str, send: Send) -> None:
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
        await send_json(send, error.status, _encode_error(binding.api, error, ""))

    @staticmethod
    async def _not_json() -> None:
        sentence = "The request's body is no JSON object, or is compressed in an unknown way."
        raise _RefusedError(ApiError(400, "invalid_request_error", sentence, retry=False))

    async def _script_post(self, call: _Call, path: str, request: Request | None, send: Send) -> None:
        model = call.binding.scripted
        if model is None or not path.endswith(_CONVERSATIONS):
            raise _RefusedError(_not_found(path))
        if request is None:
            key = "input" if path.endswith("/responses") else "messages"
            sentence = f"The request is not of the API's form: '{key}' must be a list of objects."
            raise _RefusedError(ApiError(400, "invalid_request_error", sentence, retry=False))
        # Counted here, not when parsed: it costs a millisecond a 100 kB, which passing on need not pay.
        request = replace(request, input_tokens=input_tokens(request.body))
        if path.endswith("/count_tokens"):
            call.status = 200
            await send_json(send, 200, {"input_tokens": request.input_tokens})
            return
        try:
            reply = model.answer(request)
        except GatewayError as problem:
            raise _RefusedError(ApiError(500, "api_error", problem.message, retry=False)) from problem
        call.rule = reply.rule
        request = replace(request, body={key: request.body[key] for key in request.body if key not in _SPOKEN})
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        if reply.error is not None:
            raise _RefusedError(reply.error)
        call.usage = Usage("script", request.input_tokens, reply.output_tokens)
        wire: Any = openai if request.api == "openai" else anthropic
        reply_id = _new_id("chatcmpl-" if request.api == "openai" else "msg_")
        if path.endswith("/responses"):
            wire, reply_id = responses, _new_id("resp_")
        call.usage.reply_id = reply_id
        if not request.stream:
            call.first_byte()
            call.status = 200
            extra = [("request-id", call.request_id)]
            await send_json(send, 200, wire.encode(request, reply, reply_id), extra)
            return
        await self._send_stream(call, wire.stream(request, reply, reply_id), send)

    async def _send_stream(self, call: _Call, events: AsyncIterator[bytes], send: Send) -> None:
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

    # -- upstream and local

    async def _pass_on(self, call: _Call, scope: Scope, secret: str, raw: bytes, send: Send) -> None:
        binding = call.binding
        try:
            target = Target(binding.base_url or "", binding.key, binding.api)
            if binding.mode == "local":
                local = await self.start_local(binding.model)
                target = Target(local.base_url or "", local.key, "anthropic", local.explain)
            rest = _raw_rest(scope, secret)
            await self._upstream.forward(call, scope, send, rest=rest, body=raw, target=target)
        except OrchestratorLabError as problem:
            logger.warning("agent %s: %s", binding.agent, problem.message)
            status = int(problem.details.get("status", 502))
            raise _RefusedError(ApiError(status, "api_error", problem.message)) from problem

    async def _send_error(self, call: _Call, error: ApiError, send: Send) -> None:
        if call.status is not None:
            return  # the answer has begun: all that is left is to end it
        call.status = error.status
        call.first_byte()
        api: Api = "openai" if "/chat/" in call.path or "/responses" in call.path else "anthropic"
        extra = [("request-id", call.request_id), *error.headers()]
        await send_json(send, error.status, _encode_error(api, error, call.request_id), extra)

    # -- journal

    def _journal_request(self, call: _Call, body: object, purpose: str | None) -> None:
        model = body.get("model") if isinstance(body, dict) else None
        attributes = {
            "request_id": call.request_id,
            "path": call.path,
            "model": model,
            "mode": call.binding.mode,
            "purpose": purpose,
        }
        self._write("gateway.request", call, attributes)

    def _journal_response(self, call: _Call) -> None:
        attributes = {
            "request_id": call.request_id,
            "status": call.status,
            "duration_s": round(time.perf_counter() - call.begun, 6),
            "first_byte_s": None if call.first_byte_s is None else round(call.first_byte_s, 6),
            **call.usage.attributes(),
            "rule": call.rule,
            "error": call.error,
        }
        self._write("gateway.response", call, attributes)

    def _write(self, event: str, call: _Call, attributes: dict[str, Any]) -> None:
        known = {name: value for name, value in attributes.items() if value is not None}
        self._record(event, agent=call.binding.agent, **known)


class _RefusedError(Exception):
    """Carries an error of the API to where it is sent."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def _encode_error(api: Api, error: ApiError, request_id: str) -> dict[str, Any]:
    return openai.encode_error(error) if api == "openai" else anthropic.encode_error(error, request_id)


def _not_found(path: str) -> ApiError:
    sentence = f"The scripted model has no {path}; it speaks /v1/messages, /v1/chat/completions and /v1/responses."
    return ApiError(404, "not_found_error", sentence, retry=False)


def _new_id(prefix: str) -> str:
    from ulid import ULID

    return prefix + str(ULID()).lower()


async def _read(receive: Receive) -> bytes:
    try:
        return await read_body(receive)
    except ValueError as problem:
        raise _RefusedError(ApiError(413, "request_too_large", str(problem), retry=False)) from problem


def _raw_rest(scope: Scope, secret: str) -> str:
    """Return path and query behind the secret exactly as the client wrote them."""
    raw = scope.get("raw_path") or scope["path"].encode()
    rest = raw.decode("latin-1").split(f"/{secret}", 1)[-1]
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{rest}?{query}" if query else rest


def _json(raw: bytes, encoding: str) -> Any:  # noqa: ANN401 - any JSON
    """Return a body's JSON value, None when it is none: it is only looked at, never needed."""
    try:
        return json.loads(decoded(raw, encoding))
    except ValueError:
        return None
