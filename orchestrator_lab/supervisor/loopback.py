"""The loopback application: hooks, MCP and gateway. No administration here.

It is reached over TCP by the agents' programs, so every route asks for an agent's secret.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from orchestrator_lab.errors import MessageRefused, OrchestratorLabError, to_payload
from orchestrator_lab.gateway.http import ClientGone, TooLargeError, read_body, send_json
from orchestrator_lab.supervisor.remembered import Remembered
from orchestrator_lab.supervisor.steps import step

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.tools import Tools

__all__ = ["Loopback"]

logger = logging.getLogger(__name__)

#: Hooks whose ids are remembered: one is repeated within half a minute or not at all.
_HOOKS = 4096
_STRANGER = "this secret belongs to no agent of the cluster"
_NO_OBJECT = "the body is one JSON object"


class Loopback:
    """The application for agents.

    Parameters
    ----------
    supervisor : Supervisor
        Who is told.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        #: Loading the MCP SDK takes a second: requests wait for it.
        self.tools: asyncio.Future[Tools] = asyncio.get_running_loop().create_future()
        #: Whether a program has asked for them.
        self.tools_wanted = False
        self._seen = Remembered(_HOOKS)
        self._routes = Starlette(
            routes=[
                Route("/agent/messages", self._message, methods=["POST"]),
                Route("/agent/messages", self._messages, methods=["GET"]),
                Route("/agent/agents", self._agents, methods=["GET"]),
                Mount("/", app=self._mcp),
            ]
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Hooks and model calls lie on the way of each message, and take the short one here."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path == "/hooks" and scope["method"] == "POST":
            status, answer = await self._hook(scope, receive)
            await send_json(send, status, answer)
        elif path.startswith("/gateway/"):
            await self._gateway({**scope, "root_path": "/gateway"}, receive, send)
        else:
            await self._routes(scope, receive, send)

    def _agent(self, request: Request) -> AgentRunner | None:
        header = request.headers.get("authorization", "")
        return self._supervisor.by_token(header.removeprefix("Bearer ").strip())

    async def _hook(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, Any]]:
        bearer = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        runner = self._supervisor.by_token(bearer.decode("latin-1").removeprefix("Bearer ").strip())
        if runner is None:
            return 403, {"error": _STRANGER}
        try:
            payload = json.loads(await read_body(receive))
        except ClientGone:
            return 400, {}
        except TooLargeError as problem:
            return 413, {"error": str(problem)}
        except (ValueError, RecursionError):
            payload = None
        if not isinstance(payload, dict):
            return 400, {"error": _NO_OBJECT}
        # A program that repeats a hook, because our answer was lost, gives it the same id.
        hook_id = payload.get("hook_id")
        if isinstance(hook_id, str) and not self._seen.add(hook_id):
            return 200, {}
        step("told")
        if not await self._supervisor.replaying.due(runner, payload):
            return 503, {}
        reply = None
        try:
            reply = runner.hook(payload)
            if reply is not None:
                # What a policy decided is on the disk before the program acts on it.
                await self._supervisor.journal.asynced()
        except OrchestratorLabError as error:
            logger.warning("hook of %s: %s", runner.name, error)
            reply = None
        self._supervisor.replaying.done(payload)
        step("noted")
        return 200, reply or {}

    async def _message(self, request: Request) -> Response:
        runner = self._agent(request)
        if runner is None:
            return _forbidden()
        body = await _json_object(request)
        if isinstance(body, Response):
            return body
        to, text, in_reply_to = body.get("to"), body.get("text"), body.get("in_reply_to")
        message_id = body.get("message_id")
        if not (isinstance(to, str) and isinstance(text, str)) or not (
            isinstance(in_reply_to, str | None) and isinstance(message_id, str | None)
        ):
            sentence = "a message needs 'to' and 'text', and may have 'in_reply_to' and 'message_id': all texts"
            return _problem(sentence, 400)
        try:
            if to == "all":
                sent = self._supervisor.routing.broadcast(runner, text)
                return JSONResponse({"messages": [message.to_dict() for message in sent]})
            message = self._supervisor.routing.send_from_agent(
                runner, to, text, in_reply_to=in_reply_to, message_id=message_id
            )
            if message.status == "refused":
                raise MessageRefused(f"refused: {message.error_message}", message_id=message.message_id)
        except OrchestratorLabError as error:
            return JSONResponse({"error": to_payload(error)}, status_code=409)
        return JSONResponse({"messages": [message.to_dict()]})

    async def _messages(self, request: Request) -> Response:
        runner = self._agent(request)
        if runner is None:
            return _forbidden()
        try:
            found = self._supervisor.routing.history(runner.name, request.query_params.get("since"))
        except OrchestratorLabError as error:
            return JSONResponse({"error": to_payload(error)}, status_code=409)
        return JSONResponse({"messages": found})

    async def _agents(self, request: Request) -> Response:
        runner = self._agent(request)
        if runner is None:
            return _forbidden()
        agents: list[dict[str, Any]] = [
            {"name": one.name, "role": one.config.role, "state": one.state} for one in self._supervisor.runners.values()
        ]
        return JSONResponse({"agents": agents, "you": runner.name})

    async def _gateway(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._supervisor.gateway
        if gateway is None:
            await JSONResponse({"error": "this cluster has no gateway"}, status_code=404)(scope, receive, send)
            return
        await gateway.app(scope, receive, send)

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") != "/mcp":
            await JSONResponse({"error": "not found"}, status_code=404)(scope, receive, send)
            return
        runner = self._agent(Request(scope))
        if runner is None:
            await _forbidden()(scope, receive, send)
            return
        if not self.tools_wanted:
            self.tools_wanted = True
            self._supervisor.ledger.poke()
        tools = await asyncio.shield(self.tools)
        body = await _whole_body(receive)
        await tools.app({**scope, "path": "/mcp", "root_path": ""}, _replay(body, receive), send)
        if b'"tools/list"' in body:
            runner.tools_were_listed()


def _forbidden() -> Response:
    return _problem(_STRANGER, 403)


def _problem(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status_code=status)


async def _json_object(request: Request) -> dict[str, Any] | Response:
    """Return a request's body, or what is wrong with it."""
    try:
        body = json.loads(await read_body(request.receive))
    except TooLargeError as problem:
        return _problem(str(problem), 413)
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else _problem(_NO_OBJECT, 400)


async def _whole_body(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body that was read already, then what comes."""
    given = False

    async def again() -> Any:  # noqa: ANN401 - an ASGI message
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
