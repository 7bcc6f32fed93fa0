"""The gateway: one unguessable address per agent, behind it whatever model the configuration names."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator_lab.errors import ConfigError, OrchestratorLabError, ReplayDiverged
from orchestrator_lab.gateway import anthropic, openai, responses
from orchestrator_lab.gateway.http import (
    ClientGone,
    decoded,
    headers_of,
    read_body,
    send_json,
    until_gone,
)
from orchestrator_lab.gateway.local import LocalModel
from orchestrator_lab.gateway.plain import Places
from orchestrator_lab.gateway.player import ASIDE
from orchestrator_lab.gateway.playing import play
from orchestrator_lab.gateway.recorder import Tap
from orchestrator_lab.gateway.rules import Script, load_script
from orchestrator_lab.gateway.script import ScriptedModel, ScriptFunction
from orchestrator_lab.gateway.scripted import (
    CONVERSATIONS,
    RefusedError,
    answer_lookup,
    answer_scripted,
    encode_error,
    new_reply_id,
    not_json,
)
from orchestrator_lab.gateway.traffic import Api, ApiError, Request, Usage
from orchestrator_lab.gateway.upstream import SECRET_HEADER, Target, Upstream, UpstreamError
from orchestrator_lab.models import find

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from orchestrator_lab.gateway.player import Player
    from orchestrator_lab.gateway.recorder import Recorder

__all__ = ["Gateway", "GatewaySettings"]

logger = logging.getLogger(__name__)

#: What each API's clients expect when the configuration names no base URL.
DEFAULT_BASE_URLS = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
}


#: The place of the secret in the address of a program that sends it in a header (its address is open to all).
BY_HEADER = "by-header"


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
    client_left: bool = False
    tap: Tap | None = None

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
    recorder : Recorder, optional
        Takes down what is asked and answered.
    player : Player, optional
        Answers every agent from a recording, whatever the configuration names.
    diverged : callable, optional
        Told when a strict replay comes to something that its recording does not hold.

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
        recorder: Recorder | None = None,
        player: Player | None = None,
        diverged: Callable[[ReplayDiverged], None] | None = None,
    ) -> None:
        self._recorder = recorder
        self._player = player
        self._diverged = diverged
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
        places: Places | None = None,
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
        places : Places, optional
            Where the agent's folders are, for recording and replaying.

        Raises
        ------
        ConfigError
            When the recording that is replayed does not hold this agent's model.
        ConfigError
            When the script is wrong (with file, line and rule) or a setting is missing.
        ModelNotAvailable
            When the local model is not on this machine.
        """
        api: Api = "openai" if config.api == "openai" else "anthropic"
        binding = _Binding(agent, config.mode, api, key)
        if self._player is not None:
            self._player.open(agent, places or Places({}))
            binding.mode = "replay"
            self._bindings[secret] = binding
            return
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
        if self._recorder is not None:
            self._recorder.open(agent, places or Places({}))
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
        if self._recorder is not None:
            await self._recorder.aclose()

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
        if asks and self._answers_itself(binding, path, scope["method"]):
            await answer_lookup(binding.api, path, scope["method"], send)
            return
        call = _Call(binding, path, new_reply_id("req_"))
        if self._recorder is not None:
            call.tap = Tap(send, self._recorder)
            send = call.tap.send
        try:
            await until_gone(receive, await self._begin(call, scope, secret, receive, send))
        except ClientGone:
            call.client_left = True
            call.error = "the client closed the connection"
        except (RefusedError, UpstreamError) as refused:
            call.error = refused.error.message
            await self._send_error(call, refused.error, send)
        except asyncio.CancelledError:
            call.error = "the gateway was stopped"
            raise
        finally:
            if call.journalled:
                self._journal_response(call)
            if self._recorder is not None and call.tap is not None:
                self._recorder.keep(call.tap, call.usage, client_left=call.client_left)

    def _answers_itself(self, binding: _Binding, path: str, method: str) -> bool:
        """Tell whether what clients look up before they talk is answered here."""
        if self._player is not None:
            return self._player.lookup(binding.agent, method, path) is None
        return binding.mode == "script" or (binding.mode == "local" and path == "/")

    async def _begin(
        self, call: _Call, scope: Scope, secret: str, receive: Receive, send: Send
    ) -> Coroutine[Any, Any, None]:
        """Take a request in, and return what answers it; a conversation of megabytes is not kept meanwhile."""
        raw = await _read(receive)
        headers = headers_of(scope)
        body = _json(raw, headers.get("content-encoding", ""))
        request = None
        if isinstance(body, dict) and call.path.endswith(CONVERSATIONS):
            request = self._parse(call.binding, call.path, body, headers)
        purpose = request.purpose if request is not None else None
        self._journal_request(call, body, purpose)
        call.journalled = True
        # What counts tokens is no part of the conversation.
        counted = "count" if purpose is not None and call.path.endswith("/count_tokens") else purpose
        if call.tap is not None and self._recorder is not None:
            asked = raw.decode("utf-8", "replace") if body is None else body
            call.tap.take = self._recorder.take(call.binding.agent, scope["method"], call.path, counted, asked)
        if self._player is not None:
            return self._replay(self._player, call, scope["method"], body, counted, request, send)
        if call.binding.mode != "script":
            return self._pass_on(call, scope, secret, raw, send)
        if not isinstance(body, dict):
            return not_json()
        return answer_scripted(call.binding.scripted, call, request, send)

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

    # -- replay

    async def _replay(
        self,
        player: Player,
        call: _Call,
        method: str,
        body: object,
        purpose: str | None,
        request: Request | None,
        send: Send,
    ) -> None:
        agent = call.binding.agent
        try:
            if method in {"HEAD", "GET"}:
                take = player.lookup(agent, method, call.path)
            else:
                take = player.find(agent, call.path, body, purpose)
        except ReplayDiverged as problem:
            if self._diverged is not None:
                self._diverged(problem)
            sentence = problem.message.partition("\n")[0].rstrip(":")
            raise RefusedError(ApiError(400, "invalid_request_error", sentence, retry=False)) from problem
        if take is not None:
            call.rule = f"take {take.n}"
            await play(player, take, call, call.request_id, send)
        elif request is not None and purpose in ASIDE:
            await answer_scripted(ScriptedModel(Script()), call, request, send)
        else:
            sentence = "The recording that is replayed holds no answer to this request."
            raise RefusedError(ApiError(400, "invalid_request_error", sentence, retry=False))

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
            raise RefusedError(ApiError(status, "api_error", problem.message)) from problem

    async def _send_error(self, call: _Call, error: ApiError, send: Send) -> None:
        if call.status is not None:
            return  # the answer has begun: all that is left is to end it
        call.status = error.status
        call.first_byte()
        api: Api = "openai" if "/chat/" in call.path or "/responses" in call.path else "anthropic"
        extra = [("request-id", call.request_id), *error.headers()]
        await send_json(send, error.status, encode_error(api, error, call.request_id), extra)

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


async def _read(receive: Receive) -> bytes:
    try:
        return await read_body(receive)
    except ValueError as problem:
        raise RefusedError(ApiError(413, "request_too_large", str(problem), retry=False)) from problem


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
