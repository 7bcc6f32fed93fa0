"""What browser and server say to each other on the websocket: the models that check requests, and what is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from orchestrator_lab.server import models

__all__ = ["REQUESTS", "TOLD", "Kind", "OfCluster", "OfLog", "OfPane", "Ping", "Request", "Subscribe", "described"]

#: What of a cluster can be asked for.
Kind = Literal["status", "metrics", "agent", "message", "screen", "alert", "event"]


class _Op(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Subscribe(_Op):
    """Follow a cluster, or change what is told of it."""

    op: Literal["subscribe"]
    cluster: models.Name
    events: Annotated[list[Kind], Field(max_length=20)] = Field(
        default=["status", "metrics", "agent", "message", "screen", "alert"]
    )
    panes: Annotated[list[models.Name], Field(max_length=1000)] = Field(default_factory=list)
    since: models.Sequence | None = None


class OfCluster(_Op):
    """Something of one cluster."""

    op: Literal["unsubscribe", "get_status"]
    cluster: models.Name


class OfPane(_Op):
    """A fresh screen of one pane."""

    op: Literal["repaint"]
    cluster: models.Name
    agent: models.Name


class OfLog(_Op):
    """Follow a log of the cluster's own processes in the place of the one before; None to follow none."""

    op: Literal["log"]
    cluster: models.Name
    process: models.LogName | None = None


class Ping(_Op):
    """Ask whether anybody is there."""

    op: Literal["ping"]
    data: Annotated[str, Field(max_length=100)] | None = None


Request = Subscribe | OfCluster | OfPane | OfLog | Ping
REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


class Connected(BaseModel):
    """The first frame."""

    version: str
    clusters: list[models.ClusterFacts]


class Screen(BaseModel):
    """Output of a pane; with `repaint` the terminal is cleared first, and `data` draws all of it."""

    agent: str
    repaint: bool
    cols: int
    rows: int
    data: str = Field(description="base64")


class Log(BaseModel):
    """Whole lines of a log; with `begin` they are its end, in the place of all before."""

    process: models.LogName
    text: str
    begin: bool
    truncated: bool = Field(description="whether there are lines before them that were not told")


class Pong(BaseModel):
    """The answer to a ping."""

    data: str | None


_JOURNAL = dict[str, Any]
#: What each event tells, and the type of its `data`.
TOLD: dict[str, tuple[str, Any]] = {
    "connected": ("the first frame", Connected),
    "clusters": (
        "the clusters that run: once after 'connected', and after each change of the list",
        list[models.ClusterFacts],
    ),
    "status": ("what the supervisor knows, whenever it changes; with the sentence of a 'gap'", _JOURNAL),
    "metrics": ("the figures, when they change, at most every two seconds", _JOURNAL),
    "agent": ("an event of an agent, its turns, tools and dialogs, as in the journal", _JOURNAL),
    "message": ("an event of a message, with its row of messages_df", _JOURNAL),
    "alert": ("an event of an alert, with its row of alerts_df", _JOURNAL),
    "event": ("any other event of the journal", _JOURNAL),
    "screen": ("output of a pane that is watched", Screen),
    "log": ("what is written into the log that is followed", Log),
    "pong": ("the answer to 'ping'", Pong),
    "error": ("what could not be done, and for which cluster; the socket stays", models.Problem),
}


def described() -> dict[str, Any]:
    """Return the websocket as the OpenAPI document has it, which knows no websockets: an extension of its own.

    Examples
    --------
    >>> sorted(described()["events"]) == sorted(TOLD), described()["path"]
    (True, '/ws')
    """
    assert set(get_args(Kind)) <= set(TOLD)  # noqa: S101 - what can be asked for is described
    return {
        "path": "/ws",
        "description": "Both sides send JSON texts. Each frame of the server is {event, cluster, seq, data}.",
        "requests": REQUESTS.json_schema(),
        "events": {
            event: {"description": what, "data": TypeAdapter(data).json_schema(mode="serialization")}
            for event, (what, data) in TOLD.items()
        },
    }
