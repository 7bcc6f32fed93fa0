"""What the web API takes and gives: the models that check requests, and from which its OpenAPI document is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "ActReply",
    "AgentsReply",
    "AlertsQuery",
    "AlertsReply",
    "AskReply",
    "AskRequest",
    "ClustersReply",
    "DialogReply",
    "DialogRequest",
    "DialogsReply",
    "EmptyRequest",
    "ErrorReply",
    "EventsQuery",
    "EventsReply",
    "GuardsReply",
    "Identity",
    "KeysReply",
    "KeysRequest",
    "LiftReply",
    "LiftRequest",
    "LogsQuery",
    "LogsReply",
    "MessageQuery",
    "MessageReply",
    "MessagesQuery",
    "MessagesReply",
    "MetricsQuery",
    "MetricsReply",
    "MonitoringReply",
    "Name",
    "NoQuery",
    "OpenApiReply",
    "ScreenQuery",
    "ScreenReply",
    "SendReply",
    "SendRequest",
    "ShutdownReply",
    "ShutdownRequest",
    "StartReply",
    "StartRequest",
    "StatusReply",
    "TableName",
    "TableQuery",
    "TableReply",
    "TemplatesReply",
    "TerminalReply",
    "TerminalRequest",
]

Level = Literal["info", "warning", "error", "critical"]
LogName = Literal["supervisor", "keeper", "local-model"]
TableName = Literal["agents", "turns", "tool_calls", "states", "processes", "dialogs", "alerts"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
Identity = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Sequence = Annotated[int, Field(ge=0, le=2**53)]
Text = Annotated[str, Field(max_length=10_000_000)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Figure = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class _Asked(BaseModel):
    """A request's body: nothing is passed over, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Query(BaseModel):
    """What stands behind the question mark; Jupyter's own words (``token``) pass by."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Reply(BaseModel):
    """An answer; more may stand in it than is promised."""

    model_config = ConfigDict(extra="allow")


# errors ------------------------------------------------------------------------------------------


class Problem(_Reply):
    """What went wrong: the class of the error, one sentence, facts for programs."""

    type: str
    message: str
    details: dict[str, Any]


class ErrorReply(_Reply):
    """The one shape of every error."""

    error: Problem


# queries -----------------------------------------------------------------------------------------


class NoQuery(_Query):
    """Nothing."""


class MessagesQuery(_Query):
    """Which messages: the latest, those after a number (`since`), or those before one (`before`)."""

    since: Sequence | None = Field(None, description="only messages queued after this sequence number, oldest first")
    before: Sequence | None = Field(None, description="only messages queued before this sequence number")
    limit: int = Field(100, ge=1, le=1000, description="at most so many")
    agent: Name | None = Field(None, description="only what this agent sent or was sent")
    status: Annotated[str, Field(pattern=r"^[a-z]{1,16}$")] | None = Field(None, description="only this rung")
    contains: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="only messages with this text, in any case"
    )


class MessageQuery(_Query):
    """Whether to wait, and how long."""

    until: Literal["accepted", "started", "final"] | None = Field(None, description="wait for this rung")
    timeout_s: Seconds = Field(30.0, description="seconds to wait")


class AlertsQuery(_Query):
    """Which alerts."""

    level: Level | None = Field(None, description="this level and graver ones")
    state: Literal["open", "acknowledged", "resolved", "all"] = Field("open", description="how they stand")
    limit: int = Field(1000, ge=1, le=10_000, description="at most so many, the latest")


class EventsQuery(_Query):
    """Which events of the journal: the latest, or those after a number."""

    since: Sequence | None = Field(None, description="only events after this sequence number, oldest first")
    limit: int = Field(500, ge=1, le=5000, description="at most so many")
    agent: Name | None = Field(None, description="only events of this agent")
    event: Annotated[str, Field(pattern=r"^[a-z_.]{1,40}$")] | None = Field(
        None, description="only events whose name begins so, such as 'turn.'"
    )


class ScreenQuery(_Query):
    """How much of the screen."""

    history: int = Field(0, ge=0, le=100_000, description="lines above the visible part")
    escapes: bool = Field(False, description="with colours, as escape sequences")


class MetricsQuery(_Query):
    """How much of the past."""

    samples: int = Field(0, ge=0, le=10_000, description="so many of the last samples of the agents' processes")


class TableQuery(_Query):
    """Which rows."""

    offset: Sequence | None = Field(None, description="first row; the latest rows when omitted")
    limit: int = Field(500, ge=1, le=5000, description="at most so many")
    agent: Name | None = Field(None, description="only rows of this agent")


class LogsQuery(_Query):
    """Which log, and how much of its end."""

    process: LogName = Field("supervisor", description="whose log")
    bytes: int = Field(65_536, ge=1, le=1_048_576, description="at most so many bytes of its end")


# requests ----------------------------------------------------------------------------------------


class EmptyRequest(_Asked):
    """Nothing more needs to be said."""


class StartRequest(_Asked):
    """A configuration, a template's name, or a file below the server's root folder."""

    config: dict[str, Any] | None = Field(None, description="the same keys as cluster.yaml")
    template: Name | None = Field(None, description="name of a template")
    file: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="path of a cluster.yaml, relative to the server's root folder"
    )
    name: Name | None = Field(None, description="start it under this name")
    experiment: Annotated[str, Field(max_length=200)] | None = None
    params: dict[str, Any] | None = None
    tags: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=100)
    seed: Annotated[int, Field(ge=-(2**53), le=2**53)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(given is not None for given in (self.config, self.template, self.file)) != 1:
            raise ValueError("give one of 'config', 'template' and 'file'")
        return self


class ShutdownRequest(_Asked):
    """How the run ended."""

    status: Literal["completed", "failed", "cancelled"] = "completed"


class SendRequest(_Asked):
    """A message to one agent, several (a list of names), or all of them (``all``)."""

    to: Name | Annotated[list[Name], Field(min_length=1, max_length=1000)]
    text: Text
    when: Literal["idle", "now"] = Field("idle", description="wait for the end of its turn, or type while it works")
    in_reply_to: Identity | None = None
    expires_s: Seconds | None = Field(None, description="seconds after which an undelivered message is given up")


class AskRequest(_Asked):
    """A message to one agent whose answer is waited for."""

    to: Name
    text: Text
    when: Literal["idle", "now"] = "idle"
    timeout_s: Seconds = Field(60.0, description="seconds to wait for the answer; the exchange goes on after that")


class DialogRequest(_Asked):
    """The answer to an open dialog."""

    dialog_id: Identity
    option: Annotated[str, Field(min_length=1, max_length=500)] | Annotated[int, Field(ge=1, le=1000)] = Field(
        description="a label or its beginning, 'allow', 'deny', or the option's number from 1"
    )


class KeysRequest(_Asked):
    """What a person typed into a pane after taking it over."""

    data: Annotated[str, Field(min_length=1, max_length=65_536)]


class LiftRequest(_Asked):
    """Which guard is lifted, and how far delivery may go on."""

    guard_id: Identity | None = Field(None, description="the guard; all when omitted")
    limit: Figure | None = None
    allowance: Figure | None = None


class TerminalRequest(_Asked):
    """A terminal that watches, or one that takes the pane over."""

    take_over: bool = False


# replies -----------------------------------------------------------------------------------------


class ClusterFacts(_Reply):
    """A cluster that runs on the server's machine."""

    name: str
    run_id: str
    run_dir: str
    version: str
    lifetime: str
    started_at: str
    supervisor_alive: bool


class ClustersReply(_Reply):
    """The clusters that run."""

    clusters: list[ClusterFacts]


class TemplatesReply(_Reply):
    """What comes with the package."""

    templates: list[str]


class StartReply(_Reply):
    """The cluster that was started."""

    name: str
    run_id: str
    run_dir: str
    notes: list[str]


class StatusReply(_Reply):
    """What the supervisor knows now."""

    name: str
    status: str
    run_id: str
    monitoring: Literal["on", "paused", "off"]
    agents: list[dict[str, Any]]
    alerts: list[dict[str, Any]]
    guards: list[dict[str, Any]]
    totals: dict[str, Any]
    events: int


class AgentsReply(_Reply):
    """The agents, in the order of the configuration."""

    agents: list[dict[str, Any]]


class MessagesReply(_Reply):
    """One page of messages, oldest first."""

    messages: list[dict[str, Any]]
    last_seq: int = Field(description="sequence number of the last event that was read: ask 'since' from here on")
    more: bool = Field(description="whether there are more in the direction that was asked for")


class MessageReply(_Reply):
    """A message as it stands."""

    message_id: str
    status: str


class EventsReply(_Reply):
    """One page of the journal."""

    events: list[dict[str, Any]]
    last_seq: int
    more: bool


class TableReply(_Reply):
    """Rows of one table of the run."""

    table: TableName
    rows: list[dict[str, Any]]
    offset: int
    total: int


class MetricsReply(_Reply):
    """What is counted and measured, and the last samples of the agents' processes."""

    figures: dict[str, Any]
    samples: list[dict[str, Any]]


class AlertsReply(_Reply):
    """Alerts, oldest first."""

    alerts: list[dict[str, Any]]


class DialogsReply(_Reply):
    """The questions that agents ask their user now."""

    dialogs: list[dict[str, Any]]


class GuardsReply(_Reply):
    """What pauses delivery."""

    guards: list[dict[str, Any]]


class LiftReply(_Reply):
    """The guards that were lifted."""

    lifted: list[dict[str, Any]]


class ScreenReply(_Reply):
    """What a pane shows."""

    agent: str
    screen: str


class LogsReply(_Reply):
    """The end of a log."""

    process: str
    text: str
    truncated: bool


class SendReply(_Reply):
    """The messages, each with its id."""

    messages: list[dict[str, Any]]


class AskReply(_Reply):
    """The message and its answer; `reply` is null while there is none."""

    message: dict[str, Any]
    reply: str | None
    timed_out: bool


class ActReply(_Reply):
    """The state after it was done."""

    agents: list[dict[str, Any]]


class ShutdownReply(_Reply):
    """Where the run is."""

    run_dir: str


class DialogReply(_Reply):
    """The label that was chosen."""

    option: str


class KeysReply(_Reply):
    """It was typed."""


class MonitoringReply(_Reply):
    """Whether the cluster is watched."""

    monitoring: Literal["on", "paused", "off"]


class TerminalReply(_Reply):
    """Name of the terminal, as in ``/api/terminals``."""

    name: str
    take_over: bool


class OpenApiReply(_Reply):
    """What the API takes and gives."""

    openapi: str
