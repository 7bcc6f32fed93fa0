"""What the web API shows of clusters. Each function makes blocking calls, and is called in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.client import find
from orchestrator_lab.config import template_names
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.server import models
from orchestrator_lab.server.pages import message_page, table_page

if TYPE_CHECKING:
    from orchestrator_lab.folds.base import Fold
    from orchestrator_lab.server.asked import Asked

__all__ = [
    "agents",
    "alerts",
    "clusters",
    "dialogs",
    "events",
    "guards",
    "logs",
    "message",
    "messages",
    "metrics",
    "screen",
    "status",
    "table",
    "templates",
]

_LEVELS = ("info", "warning", "error", "critical")
#: Seconds that a supervisor may take for an answer that it has at hand.
_ANSWER_S = 20.0


def clusters(asked: Asked) -> dict[str, Any]:
    """Return the clusters that run."""
    return {"clusters": asked.clusters.listed()}


def templates(_: Asked) -> dict[str, Any]:
    """Return the names of the templates."""
    return {"templates": template_names()}


def status(asked: Asked) -> dict[str, Any]:
    """Return what the supervisor knows now."""
    return asked.cluster.status()


def agents(asked: Asked) -> dict[str, Any]:
    """Return the agents."""
    return {"agents": asked.cluster.status()["agents"]}


def messages(asked: Asked) -> dict[str, Any]:
    """Return one page of messages."""
    query = asked.query_as(models.MessagesQuery)
    last = asked.cluster.status()["events"]

    def look(fold: Fold) -> tuple[list[dict[str, Any]], bool]:
        return message_page(
            fold,
            since=query.since,
            before=query.before,
            limit=query.limit,
            agent=query.agent,
            status=query.status,
            contains=query.contains,
        )

    found, more = asked.tables.read("messages", look)
    return {"messages": found, "last_seq": last, "more": more}


async def message(asked: Asked) -> dict[str, Any]:
    """Return one message, on a rung that is waited for."""
    query = asked.query_as(models.MessageQuery)
    cluster = await asked.attached()
    path = f"/messages/{asked.message}"
    if query.until is None:
        return await cluster.client.aget(path, timeout_s=_ANSWER_S)
    return await cluster.client.aget(path, timeout_s=query.timeout_s, until=query.until)


def alerts(asked: Asked) -> dict[str, Any]:
    """Return alerts by level and state."""
    query = asked.query_as(models.AlertsQuery)
    if query.state in {"open", "acknowledged"}:
        # From the supervisor itself: what a full disk keeps out of the journal is not in the run.
        rows = asked.cluster.client.get("/alerts", timeout_s=_ANSWER_S)["alerts"]
        rows = [{**row, "resolved_at": row.get("resolved_at")} for row in rows]
    else:
        rows = asked.tables.read("alerts", lambda fold: fold.rows())
    if query.state != "all":
        rows = [row for row in rows if _state(row) == query.state or (query.state == "open" and not row["resolved_at"])]
    least = _LEVELS.index(query.level) if query.level is not None else 0
    rows = [row for row in rows if row["level"] not in _LEVELS or _LEVELS.index(row["level"]) >= least]
    return {"alerts": rows[-query.limit :]}


def _state(row: dict[str, Any]) -> str:
    if row.get("resolved_at"):
        return "resolved"
    return "acknowledged" if row.get("acknowledged_at") else "open"


def dialogs(asked: Asked) -> dict[str, Any]:
    """Return the questions that agents ask their user now."""
    return {"dialogs": [one.to_dict() for one in asked.cluster.dialogs]}


def guards(asked: Asked) -> dict[str, Any]:
    """Return what pauses delivery."""
    return {"guards": asked.cluster.guards}


def events(asked: Asked) -> dict[str, Any]:
    """Return one page of the journal."""
    query = asked.query_as(models.EventsQuery)
    found, last, more = asked.events.page(query.since, query.limit, agent=query.agent, prefix=query.event)
    return {"events": found, "last_seq": last, "more": more}


def table(asked: Asked) -> dict[str, Any]:
    """Return rows of a table."""
    query, name = asked.query_as(models.TableQuery), asked.table
    rows, first, total = asked.tables.read(
        name, lambda fold: table_page(fold, name, offset=query.offset, limit=query.limit, agent=query.agent)
    )
    return {"table": name, "rows": rows, "offset": first, "total": total}


def metrics(asked: Asked) -> dict[str, Any]:
    """Return what is counted and measured."""
    samples: list[dict[str, Any]] = []
    count = asked.query_as(models.MetricsQuery).samples
    if count:
        samples, _, _ = asked.tables.read(
            "processes", lambda fold: table_page(fold, "processes", offset=None, limit=count, agent=None)
        )
    return {"figures": asked.cluster.figures(), "samples": samples}


def screen(asked: Asked) -> dict[str, Any]:
    """Return what a pane shows."""
    query = asked.query_as(models.ScreenQuery)
    asked_for = {"history": query.history, "escapes": "1" if query.escapes else None}
    shown = asked.cluster.client.get(f"/agents/{asked.agent}/screen", timeout_s=_ANSWER_S, **asked_for)
    return {"agent": asked.agent, "screen": shown["screen"]}


def logs(asked: Asked) -> dict[str, Any]:
    """Return the end of a log of the lab's own processes."""
    query = asked.query_as(models.LogsQuery)
    path = find(asked.places["cluster"]) / "logs" / f"{query.process}.log"
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - query.bytes))
            text = log.read(query.bytes).decode("utf-8", "replace")
    except FileNotFoundError:
        return {"process": query.process, "text": "", "truncated": False}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check its owner") from error
    return {"process": query.process, "text": text, "truncated": size > query.bytes}
