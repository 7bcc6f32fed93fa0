"""Who asked for what, and from where: an event in the journal before what was asked has any effect.

A program that acts for somebody, such as the web server, names him in two headers
(:func:`orchestrator_lab.acting.audit_headers`). What comes without them is a program's own business.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from orchestrator_lab.supervisor.core import Supervisor

    Call = Callable[[Request], Awaitable[Response]]

__all__ = ["action_of", "audited"]

#: Actions whose path does not end in their name.
_NAMES = {
    ("POST", "/messages"): "send",
    ("POST", "/conversations"): "converse",
    ("POST", "/agents"): "add",
    ("DELETE", "/agents/{name}"): "remove",
    ("POST", "/agents/{name}/dialog"): "answer",
    ("POST", "/monitoring/start"): "start_monitoring",
    ("POST", "/monitoring/stop"): "stop_monitoring",
}
#: What of a request is kept: who and what is meant, never what was written.
_KEPT = ("to", "message_ids", "dialog_id", "option", "guard_id", "limit", "allowance", "status", "agent_ids")
#: Characters of a text, and values of a list, that are kept.
_LONGEST, _MOST = 200, 100


def action_of(method: str, path: str) -> str | None:
    """Return what a route does, None when it only looks.

    Examples
    --------
    >>> action_of("POST", "/agents/{name}/interrupt"), action_of("GET", "/status")
    ('interrupt', None)
    >>> action_of("GET", "/agents/{name}/attach")
    'attach'
    """
    if method == "GET" and not path.endswith("/attach"):
        return None
    return _NAMES.get((method, path)) or path.rpartition("/")[2]


def audited(supervisor: Supervisor, action: str | None, call: Call) -> Call:
    """Return a call that is journalled, with who and from where, before it is made."""
    if action is None:
        return call

    async def answer(request: Request) -> Response:
        by = _told(request, "x-lab-by")
        if by is not None:
            name = request.path_params.get("name")
            supervisor.journal.append(
                "action.requested",
                # An agent that does not exist must not come to be by being named.
                agent=name if name in supervisor.runners else None,
                source="human",
                action=action,
                by=by,
                origin=_told(request, "x-lab-from"),
                details=_details(request, await request.body()),
            )
            await supervisor.journal.asynced()
        return await call(request)

    return answer


def _told(request: Request, header: str) -> str | None:
    """Return a header's text, as one line of a bounded length."""
    value = request.headers.get(header)
    if value is None:
        return None
    text = unquote(value, errors="replace")[:_LONGEST]
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _details(request: Request, raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        body = {}  # the call itself says what is wrong with it
    kept = {key: _short(body[key]) for key in _KEPT if isinstance(body, dict) and body.get(key) is not None}
    kept |= {key: _short(value) for key, value in request.path_params.items()}
    if "read_only" in request.query_params:
        kept["read_only"] = request.query_params["read_only"] == "1"
    return kept


def _short(value: object) -> object:
    if isinstance(value, list):
        return [_short(one) for one in value[:_MOST]]
    return value if isinstance(value, int | float) else str(value)[:_LONGEST]
