"""The web API's table of routes: what is checked, what is called, and what the OpenAPI document says, in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter

from orchestrator_lab.server import doing, looking, models, terminals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator_lab.server.asked import Asked

    Call = Callable[[Asked], "dict[str, Any] | Awaitable[dict[str, Any]]"]

__all__ = ["API", "PLACES", "ROUTES", "Route", "pattern"]

#: Where the API is, below the server's base URL.
API = "/orchestrator-lab/api/"

#: What may stand in the variable parts of a path.
PLACES: dict[str, TypeAdapter[Any]] = {
    "cluster": TypeAdapter(models.Name),
    "agent": TypeAdapter(models.Name),
    "message": TypeAdapter(models.Identity),
    "alert": TypeAdapter(models.Identity),
    "table": TypeAdapter(models.TableName),
}


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked of the API.

    Parameters
    ----------
    method : str
        ``GET`` looks, ``POST`` acts.
    path : str
        Below :data:`API`; variable parts in braces.
    call : callable
        What does it: a function that blocks and is called in a thread, or a coroutine function.
    reply : type of BaseModel
        What it answers.
    query, body : type of BaseModel
        What else it takes; None for no body at all.
    files : bool
        Whether it only reads files: no supervisor is asked, and none can hold it up.
    terminals : bool
        Whether it needs the right to make terminals, too.
    """

    method: str
    path: str
    call: Call
    reply: type[BaseModel]
    query: type[BaseModel] = models.NoQuery
    body: type[BaseModel] | None = None
    files: bool = False
    terminals: bool = False

    @property
    def operation(self) -> str:
        """Its name in the OpenAPI document."""
        return f"{self.call.__module__.rpartition('.')[2]}_{self.call.__name__}"

    @property
    def summary(self) -> str:
        """One sentence."""
        return (self.call.__doc__ or "").strip().split("\n", 1)[0].rstrip(".")


def _get(path: str, call: Call, reply: type[BaseModel], query: type[BaseModel] = models.NoQuery) -> Route:
    return Route("GET", path, call, reply, query)


def _file(path: str, call: Call, reply: type[BaseModel], query: type[BaseModel]) -> Route:
    return Route("GET", path, call, reply, query, files=True)


def _post(path: str, call: Call, reply: type[BaseModel], body: type[BaseModel] = models.EmptyRequest) -> Route:
    return Route("POST", path, call, reply, body=body)


_CLUSTER = "clusters/{cluster}"
_AGENT = f"{_CLUSTER}/agents/{{agent}}"

ROUTES: tuple[Route, ...] = (
    _get("clusters", looking.clusters, models.ClustersReply),
    _post("clusters", doing.start, models.StartReply, models.StartRequest),
    _get("templates", looking.templates, models.TemplatesReply),
    _get(f"{_CLUSTER}/status", looking.status, models.StatusReply),
    _get(f"{_CLUSTER}/agents", looking.agents, models.AgentsReply),
    _get(f"{_AGENT}/screen", looking.screen, models.ScreenReply, models.ScreenQuery),
    _get(f"{_CLUSTER}/messages", looking.messages, models.MessagesReply, models.MessagesQuery),
    _get(f"{_CLUSTER}/messages/{{message}}", looking.message, models.MessageReply, models.MessageQuery),
    _get(f"{_CLUSTER}/metrics", looking.metrics, models.MetricsReply, models.MetricsQuery),
    _get(f"{_CLUSTER}/alerts", looking.alerts, models.AlertsReply, models.AlertsQuery),
    _get(f"{_CLUSTER}/dialogs", looking.dialogs, models.DialogsReply),
    _get(f"{_CLUSTER}/guards", looking.guards, models.GuardsReply),
    _file(f"{_CLUSTER}/events", looking.events, models.EventsReply, models.EventsQuery),
    _file(f"{_CLUSTER}/logs", looking.logs, models.LogsReply, models.LogsQuery),
    _file(f"{_CLUSTER}/tables/{{table}}", looking.table, models.TableReply, models.TableQuery),
    _post(f"{_CLUSTER}/start", doing.start_again, models.ActReply),
    _post(f"{_CLUSTER}/stop", doing.stop, models.ActReply),
    _post(f"{_CLUSTER}/restart", doing.restart, models.ActReply),
    _post(f"{_CLUSTER}/shutdown", doing.shutdown, models.ShutdownReply, models.ShutdownRequest),
    _post(f"{_CLUSTER}/messages", doing.send, models.SendReply, models.SendRequest),
    _post(f"{_CLUSTER}/ask", doing.ask, models.AskReply, models.AskRequest),
    _post(f"{_AGENT}/interrupt", doing.interrupt, models.ActReply),
    _post(f"{_AGENT}/restart", doing.restart_agent, models.ActReply),
    _post(f"{_AGENT}/stop", doing.stop_agent, models.ActReply),
    _post(f"{_AGENT}/keys", doing.keys, models.KeysReply, models.KeysRequest),
    _post(f"{_AGENT}/dialog", doing.answer, models.DialogReply, models.DialogRequest),
    Route(
        "POST",
        f"{_AGENT}/terminal",
        terminals.open_terminal,
        models.TerminalReply,
        body=models.TerminalRequest,
        terminals=True,
    ),
    _post(f"{_CLUSTER}/alerts/clear", doing.clear_alerts, models.AlertsReply),
    _post(f"{_CLUSTER}/alerts/{{alert}}/acknowledge", doing.acknowledge_alert, models.AlertsReply),
    _post(f"{_CLUSTER}/alerts/{{alert}}/resolve", doing.resolve_alert, models.AlertsReply),
    _post(f"{_CLUSTER}/guards/lift", doing.lift, models.LiftReply, models.LiftRequest),
    _post(f"{_CLUSTER}/monitoring/start", doing.start_monitoring, models.MonitoringReply),
    _post(f"{_CLUSTER}/monitoring/stop", doing.stop_monitoring, models.MonitoringReply),
)


def pattern(path: str) -> str:
    """Return a path as a regular expression for Tornado; what stands in its variable parts is checked later.

    Examples
    --------
    >>> pattern("clusters/{cluster}/status")
    '/orchestrator-lab/api/clusters/(?P<cluster>[^/]*)/status'
    """
    return API + re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]*)", re.escape(path).replace(r"\-", "-"))
