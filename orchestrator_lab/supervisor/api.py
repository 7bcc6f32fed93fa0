"""The supervisor's API: HTTP on a unix socket that only its user can open.

Errors come as ``{"error": {"type", "message", "details"}}`` with status 409 (422 for a wrong request), and are raised
again by the client. Waiting calls are answered when what they wait for happens; event streams are NDJSON.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from orchestrator_lab import __version__
from orchestrator_lab.config import Agent
from orchestrator_lab.errors import ConfigError, ExchangeTimeout, OrchestratorLabError, to_payload
from orchestrator_lab.runtime import PROTOCOL
from orchestrator_lab.supervisor.audit import action_of, audited
from orchestrator_lab.supervisor.steps import step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Message

__all__ = ["Api"]

logger = logging.getLogger(__name__)

#: Events that a slow reader of the stream may lag behind before it is cut off and has to read the journal.
_STREAM_LAG = 50_000
#: A message that is delivered at once waits so long for the flush of its claim, in seconds, which is its own as well.
_CLAIM_S = 0.01
_RUNGS = ("queued", "claimed", "written", "accepted", "started", "answered")


class Api:
    """The application for clients.

    Parameters
    ----------
    supervisor : Supervisor
        Does what is asked.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        routes: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/hello", self._hello),
            ("GET", "/status", self._status),
            ("GET", "/ready", self._ready),
            ("GET", "/wait", self._wait),
            ("GET", "/events", self._events),
            ("POST", "/messages", self._send),
            ("GET", "/messages/{message_id}", self._message),
            ("POST", "/conversations", self._converse),
            ("GET", "/conversations/{conversation_id}", self._conversation),
            ("POST", "/agents", self._add),
            ("DELETE", "/agents/{name}", self._remove),
            ("GET", "/agents/{name}/screen", self._screen),
            ("GET", "/agents/{name}/repaint", self._repaint),
            ("POST", "/agents/{name}/keys", self._keys),
            ("GET", "/agents/{name}/attach", self._attach),
            ("GET", "/agents/{name}/explain", self._explain),
            ("POST", "/agents/{name}/dialog", self._answer),
            ("POST", "/agents/{name}/interrupt", self._interrupt),
            ("POST", "/agents/{name}/restart", self._restart),
            ("POST", "/agents/{name}/stop", self._stop),
            ("GET", "/attach", self._attach),
            ("GET", "/alerts", self._alerts),
            ("POST", "/alerts/{alert_id}/acknowledge", self._acknowledge),
            ("POST", "/alerts/{alert_id}/clear", self._clear),
            ("GET", "/figures", self._figures),
            ("POST", "/monitoring/start", self._monitor),
            ("POST", "/monitoring/stop", self._pause),
            ("POST", "/stop", self._stop),
            ("POST", "/restart", self._restart),
            ("GET", "/guards", self._guards),
            ("POST", "/guards/lift", self._lift),
            ("POST", "/shutdown", self._shutdown),
        ]
        calls = [
            (method, path, _answering(audited(supervisor, action_of(method, path), call)))
            for method, path, call in routes
        ]
        self._routes = Starlette(routes=[Route(path, call, methods=[method]) for method, path, call in calls])
        #: Paths without a variable part, which are found by looking them up.
        self._direct = {(method, path): call for method, path, call in calls if "{" not in path}
        #: Set once the first start is over; holds its error.
        self.launched: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        direct = self._direct.get((scope.get("method", ""), scope.get("path", "")))
        if direct is None:
            await self._routes(scope, receive, send)
            return
        response = await direct(Request(scope, receive))
        await response(scope, receive, send)

    async def _hello(self, _: Request) -> Response:
        return JSONResponse({"version": __version__, "protocol": PROTOCOL, "name": self._supervisor.config.name})

    async def _status(self, _: Request) -> Response:
        return JSONResponse(self._supervisor.status())

    async def _ready(self, _: Request) -> Response:
        await asyncio.shield(self.launched)
        return JSONResponse(self._supervisor.status())

    async def _wait(self, request: Request) -> Response:
        names = [name for name in request.query_params.get("agents", "").split(",") if name]
        timeout = _seconds(request)
        if not await self._supervisor.until_idle(names or None, timeout):
            busy = [f"{one.name} ({one.state})" for one in self._supervisor.runners.values() if one.state != "idle"]
            held = "".join(f"; {one['message']}" for one in self._supervisor.guards.listed())
            raise ExchangeTimeout(
                f"not all agents are idle after {timeout:.3g} s: {', '.join(busy) or 'messages are on their way'}{held}"
            )
        return JSONResponse(self._supervisor.status())

    async def _send(self, request: Request) -> Response:
        body = await _body(request)
        if not isinstance(body.get("text"), str):
            raise ConfigError("a message needs 'text', a string")
        recipients = body.get("to")
        names = [recipients] if isinstance(recipients, str) else recipients
        if names == ["all"]:
            names = list(self._supervisor.runners)
        if not isinstance(names, list) or not names:
            raise ConfigError("a message needs 'to': an agent's name, or a list of names")
        # All or none: a name that does not exist must not leave the others with a message.
        for name in names:
            await self._supervisor.replaying.joined(str(name), patient=_again(request) is not None)
            self._supervisor.runner(str(name))
        source = "human" if body.get("source") == "human" else "program"
        kind = "broadcast" if body.get("broadcast") else "direct"
        ids = body.get("message_ids") or [None] * len(names)
        if not isinstance(ids, list) or len(ids) != len(names):
            raise ConfigError("'message_ids' is a list with one id for each name in 'to'")
        for key in ("in_reply_to", "conversation_id"):
            if not isinstance(body.get(key), str | None):
                raise ConfigError(f"{key!r} is the id of a message or a conversation, a string")
        expires = body.get("expires_s")
        if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float) or expires < 0):
            raise ConfigError(f"'expires_s' is a number of seconds, got {expires!r}")
        conversation = None
        sent: list[Message] = []
        for name, identity in zip(names, ids, strict=True):
            await self._supervisor.replaying.before_message(str(name), body["text"], identity, again=_again(request))
            message = self._supervisor.routing.send(
                sender="user",
                recipient=str(name),
                text=body["text"],
                source=source,
                kind=kind,
                in_reply_to=body.get("in_reply_to"),
                conversation_id=body.get("conversation_id") or conversation,
                when=body.get("when", "idle"),
                expires_s=expires,
                message_id=identity,
            )
            conversation = message.conversation_id if kind == "broadcast" else None
            sent.append(message)
        begins = any(self._supervisor.mailboxes[message.recipient].begins for message in sent)
        await self._supervisor.journal.asynced(shared_within_s=_CLAIM_S if begins else 0.0)
        step("acknowledging")
        await self._reached(sent, request)
        return JSONResponse({"messages": [self._told(message) for message in sent]})

    def _told(self, message: Message) -> dict[str, Any]:
        """Return a message as clients see it, with what holds it in its queue."""
        hold = self._supervisor.guards.hold_of(message.recipient) if message.status == "queued" else None
        stopped = self._supervisor.replaying.stopped
        return {
            **message.to_dict(),
            "held_by": None if hold is None else hold.message,
            "diverged": None if stopped is None else to_payload(stopped),
            "divergence": self._supervisor.replaying.told.get(message.message_id),
        }

    async def _reached(self, messages: list[Message], request: Request) -> None:
        """Wait, as long as the request says, until messages are on the rung that it names, or expect nothing more."""
        until = request.query_params.get("until")
        if not until:
            return
        rung = _RUNGS.index(until) if until in _RUNGS else len(_RUNGS)

        def reached(message: Message) -> bool:
            if self._supervisor.replaying.stopped is not None:
                return True
            return message.final or (message.status in _RUNGS and _RUNGS.index(message.status) >= rung)

        timeout = _seconds(request)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._supervisor.replaying.awaited():
            for message in messages:
                left = None if deadline is None else deadline - time.monotonic()
                await self._supervisor.ledger.until_rung(message, functools.partial(reached, message), left)

    async def _message(self, request: Request) -> Response:
        message = self._supervisor.ledger.find(request.path_params["message_id"])
        if message is None:
            raise ConfigError(f"there is no message {request.path_params['message_id']!r} in this run")
        await self._reached([message], request)
        return JSONResponse(self._told(message))

    async def _converse(self, request: Request) -> Response:
        body = await _body(request)
        agents, opening, rounds = body.get("agents", []), body.get("opening", ""), body.get("rounds", 1)
        if not isinstance(agents, list) or not all(isinstance(name, str) for name in agents):
            raise ConfigError("'agents' is a list of names, in the order of speaking")
        if not isinstance(opening, str):
            raise ConfigError("'opening' is what the first agent is told, a string")
        if isinstance(rounds, bool) or not isinstance(rounds, int):
            raise ConfigError(f"'rounds' is a whole number, got {rounds!r}")
        await self._supervisor.replaying.before("conversation.started", agents=agents, again=_again(request))
        conversation = self._supervisor.conversations.start(
            agents,
            opening,
            rounds,
            source="human" if body.get("source") == "human" else "program",
            conversation_id=body.get("conversation_id"),
        )
        await self._supervisor.journal.asynced()
        return JSONResponse(conversation.to_dict())

    async def _conversation(self, request: Request) -> Response:
        return JSONResponse(
            await self._supervisor.conversation_over(request.path_params["conversation_id"], _seconds(request))
        )

    async def _add(self, request: Request) -> Response:
        try:
            body = await _body(request)
            agents = TypeAdapter(list[Agent]).validate_python(body.get("agents"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(["agents", *(str(part) for part in first["loc"])])
            raise ConfigError(f"{place}: {first['msg']}") from error
        ids = body.get("agent_ids") or [None] * len(agents)
        if not isinstance(ids, list) or len(ids) != len(agents) or not all(isinstance(one, str | None) for one in ids):
            raise ConfigError("'agent_ids' is a list with one id for each of 'agents'")
        if agents:
            await self._supervisor.replaying.before("agent.added", agents[0].name, again=_again(request))
        runners = await self._supervisor.lifecycle.add(agents, ids)
        return JSONResponse({"agents": [runner.describe() for runner in runners]})

    async def _remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._supervisor.replaying.before("agent.stopping", name, reason="remove", again=_again(request))
        await self._supervisor.lifecycle.remove(name)
        return JSONResponse(self._supervisor.status())

    async def _screen(self, request: Request) -> Response:
        runner = self._supervisor.runner(request.path_params["name"])
        escapes = request.query_params.get("escapes") == "1"
        history = int(_number(request, "history", 0))
        await self._supervisor.replaying.at_rest(runner)
        screen = await self._supervisor.screen(runner, escapes=escapes, history=history)
        await runner.looks.look_at_rest()
        return JSONResponse({"screen": screen})

    async def _repaint(self, request: Request) -> Response:
        """Return tmux's own picture of a pane; an agent without a pane has none."""
        return JSONResponse(await self._supervisor.hands.repaint(request.path_params["name"]))

    async def _keys(self, request: Request) -> Response:
        """Type what a person typed who has taken a pane over."""
        keys = (await _body(request)).get("keys")
        if not isinstance(keys, str) or not keys:
            raise ConfigError("typing needs 'keys': what the terminal sends for them, a text")
        return JSONResponse({"bytes": await self._supervisor.hands.type(request.path_params["name"], keys)})

    async def _explain(self, request: Request) -> Response:
        return JSONResponse(await self._supervisor.runner(request.path_params["name"]).explain())

    async def _attach(self, request: Request) -> Response:
        read_only = request.query_params.get("read_only") == "1"
        name = request.path_params.get("name")
        if name is None:
            return JSONResponse({"argv": self._supervisor.attach(read_only=read_only)})
        return JSONResponse({"argv": await self._supervisor.attach_agent(name, read_only=read_only)})

    async def _answer(self, request: Request) -> Response:
        """Answer a dialog, by its id: an answer to one that is gone must not meet the next."""
        await self._supervisor.replaying.joined(request.path_params["name"], patient=_again(request) is not None)
        runner = self._supervisor.runner(request.path_params["name"])
        body = await _body(request)
        dialog_id, option = body.get("dialog_id"), body.get("option")
        if not isinstance(dialog_id, str) or isinstance(option, bool) or not isinstance(option, str | int):
            raise ConfigError("an answer needs 'dialog_id', and 'option': a label, allow, deny, or a number from 1")
        await self._supervisor.replaying.before(
            "dialog.answering", runner.name, dialog_id=dialog_id, again=_again(request)
        )
        answer_id = body.get("answer_id")
        label = await runner.dialogs.answer(
            dialog_id, option, answer_id=answer_id if isinstance(answer_id, str) else None
        )
        return JSONResponse({"option": label, "agent": runner.describe()})

    async def _interrupt(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._supervisor.replaying.before("note", name, text="interrupted", again=_again(request))
        await self._supervisor.lifecycle.interrupt(name)
        return JSONResponse(self._supervisor.runner(name).describe())

    async def _restart(self, request: Request) -> Response:
        name = request.path_params.get("name")
        await self._supervisor.replaying.before("agent.stopping", name, reason="restart", again=_again(request))
        await self._supervisor.lifecycle.restart([name] if name else None)
        return JSONResponse(self._supervisor.status())

    async def _stop(self, request: Request) -> Response:
        name = request.path_params.get("name")
        await self._supervisor.replaying.before("agent.stopping", name, reason="stop", again=_again(request))
        await self._supervisor.lifecycle.stop([name] if name else None)
        return JSONResponse(self._supervisor.status())

    async def _guards(self, _: Request) -> Response:
        return JSONResponse({"guards": self._supervisor.guards.listed()})

    async def _lift(self, request: Request) -> Response:
        body = await _body(request)
        guard_id, by = body.get("guard_id"), body.get("by", "user")
        if not isinstance(guard_id, str | None) or not isinstance(by, str) or not by.strip():
            raise ConfigError("'guard_id' is the id of a guard, and 'by' says who lifts it: texts, both")
        figures = {key: body.get(key) for key in ("limit", "allowance")}
        for key, value in figures.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"{key!r} is a number, got {value!r}")
        which: dict[str, Any] = {} if guard_id is None else {"guard_id": guard_id}
        await self._supervisor.replaying.before("guard.lifted", again=_again(request), **which)
        lifted = self._supervisor.guards.lift(guard_id, by=by, **figures)
        await self._supervisor.journal.asynced()
        return JSONResponse({"lifted": lifted})

    async def _shutdown(self, request: Request) -> Response:
        body = await _body(request)
        status = body.get("status", "completed")
        if status not in {"completed", "failed", "cancelled"}:
            raise ConfigError(f"status={status!r} is not known; use completed, failed or cancelled")
        await self._supervisor.replaying.before("agent.stopping", reason="shutdown", again=_again(request))
        await self._supervisor.lifecycle.shutdown(status)
        return JSONResponse({"run_dir": str(self._supervisor.run_dir)})

    async def _alerts(self, _: Request) -> Response:
        return JSONResponse({"alerts": [alert.to_dict() for alert in self._supervisor.alerts.open_alerts]})

    async def _acknowledge(self, request: Request) -> Response:
        by = str((await _body(request)).get("by") or "human")
        seen = self._supervisor.alerts.acknowledge(request.path_params["alert_id"], by)
        return JSONResponse({"alerts": [alert.to_dict() for alert in seen]})

    async def _clear(self, request: Request) -> Response:
        by = str((await _body(request)).get("by") or "human")
        over = self._supervisor.alerts.clear(request.path_params["alert_id"], by)
        return JSONResponse({"alerts": [alert.to_dict() for alert in over]})

    async def _figures(self, _: Request) -> Response:
        return JSONResponse(self._supervisor.figures())

    async def _monitor(self, _: Request) -> Response:
        self._supervisor.monitor.go_on()
        return JSONResponse({"monitoring": self._supervisor.monitor.mode})

    async def _pause(self, _: Request) -> Response:
        self._supervisor.monitor.pause()
        return JSONResponse({"monitoring": self._supervisor.monitor.mode})

    async def _events(self, request: Request) -> Response:
        """Stream events from a sequence number on, and then as they come."""
        since = int(_number(request, "since", 0))
        queue: asyncio.Queue[Event] = asyncio.Queue(_STREAM_LAG)
        supervisor = self._supervisor

        def take(event: Event) -> None:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                stop()

        stop = supervisor.journal.subscribe(take)

        async def stream() -> AsyncIterator[str]:
            from orchestrator_lab.journal.reader import JournalReader

            last = since
            try:
                batches = JournalReader(supervisor.journal.path).batches()
                # Piece by piece: a long journal is never held whole.
                while (events := await asyncio.to_thread(next, batches, None)) is not None:
                    for event in events:
                        if event.seq > last:
                            last = event.seq
                            yield event.to_json() + "\n"
                while not supervisor.ending.is_set() or not queue.empty():
                    try:
                        event = await asyncio.wait_for(queue.get(), 15)
                    except TimeoutError:
                        yield "\n"  # a sign of life
                        continue
                    if event.seq > last:
                        last = event.seq
                        yield event.to_json() + "\n"
                        if event.event == "run.ended":
                            return
            finally:
                stop()

        return StreamingResponse(stream(), media_type="application/x-ndjson")


def _answering(call: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await call(request)
        except OrchestratorLabError as error:
            return JSONResponse({"error": to_payload(error)}, status_code=409)
        except (ValueError, KeyError, TypeError) as error:
            logger.exception("a request failed")
            wrong = ConfigError(f"the supervisor could not read this request: {error}")
            return JSONResponse({"error": to_payload(wrong)}, status_code=422)

    return answer


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"a request's body is one JSON object, this is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError("a request's body is one JSON object")
    return body


def _number(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name)
    try:
        return float(text) if text else default
    except ValueError as error:
        raise ConfigError(f"'{name}' is a number, got {text!r}") from error


def _again(request: Request) -> int | None:
    """Return the number of the recorded event that is brought about again, by somebody who waits for its turn."""
    text = request.query_params.get("again")
    return int(_number(request, "again", 0)) if text else None


def _seconds(request: Request) -> float | None:
    text = request.query_params.get("timeout")
    return _number(request, "timeout", 0.0) if text else None
