"""How agents are looked after: restarts, hangs, dialogs, limits and alerts.

Each policy may be given for the cluster, and for single agents, which then replaces the cluster's.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from orchestrator_lab.config._notify import check_address

__all__ = [
    "AlertsConfig",
    "DialogPolicy",
    "HangPolicy",
    "Limits",
    "ModelPrice",
    "RestartPolicy",
    "Thresholds",
    "ToolRule",
    "tool_rule",
]

Level = Literal["info", "warning", "error", "critical"]
Seconds = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]

_RULE = re.compile(r"(?P<tool>[^()\s]{1,200})(?:\((?P<pattern>.*)\))?", re.DOTALL)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ToolRule(tuple[str, str | None]):
    """A tool, and a pattern for what it is about to do (None: whatever it does); ``*`` stands for anything in both."""

    __slots__ = ()

    @property
    def tool(self) -> str:
        """Name of the tool."""
        return self[0]

    @property
    def pattern(self) -> str | None:
        """What its command, path or address must match."""
        return self[1]


def tool_rule(text: str) -> ToolRule:
    """Return a rule from its notation.

    Parameters
    ----------
    text : str
        ``TOOL`` or ``TOOL(PATTERN)``.

    Returns
    -------
    ToolRule
        The tool and the pattern.

    Raises
    ------
    ValueError
        When the text is no rule.

    Examples
    --------
    >>> tool_rule("Bash(git *)").pattern
    'git *'
    >>> tool_rule("Read").pattern is None
    True
    """
    found = _RULE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:60]!r} is not a rule; write a tool, or a tool and a pattern: Bash(git *)")
    return ToolRule((found["tool"], found["pattern"]))


def _check_rule(value: str) -> str:
    tool_rule(value)
    return value


Address = Annotated[str, AfterValidator(check_address)]
Rule = Annotated[str, AfterValidator(_check_rule)]


class RestartPolicy(_Model):
    """What is done when an agent's program ends by itself.

    Parameters
    ----------
    policy : {"never", "on-failure", "always"}
        ``on-failure``: started again after a crash, a signal or an exit status other than 0; ``always``: after any end
        that nobody asked for.
    max_restarts : int
        How many restarts are made within `window_s`; after that the agent is ``failed``, with an alert.
    window_s : float
        Length of that window, in seconds.
    backoff_s, backoff_max_s : float
        Pause before the first restart, doubled for each further one within the window up to the second figure; a tenth
        of it is left to chance, so that several agents do not start at the same moment.
    """

    policy: Literal["never", "on-failure", "always"] = Field(
        default="never", description="when a program that ended by itself is started again"
    )
    max_restarts: Count = Field(default=5, description="restarts within the window; after that the agent is failed")
    window_s: Seconds = Field(default=600.0, description="length of the window, in seconds")
    backoff_s: Seconds = Field(default=1.0, description="pause before the first restart; doubled for each further one")
    backoff_max_s: Seconds = Field(default=60.0, description="longest pause, in seconds")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:  # noqa: ANN401
        return {"policy": value} if isinstance(value, str) else value


class HangPolicy(_Model):
    """What is done with an agent that is busy and makes no progress: no processor time, no output, no new record.

    Parameters
    ----------
    alert_s : float, optional
        Seconds without progress until an alert; None: never.
    interrupt_s : float, optional
        Seconds without progress until its turn is interrupted; None: never.
    restart_s : float, optional
        Seconds without progress until it is restarted, with its session; None: never.
    """

    alert_s: Seconds | None = Field(default=300.0, description="seconds without progress until an alert")
    interrupt_s: Seconds | None = Field(default=None, description="... until its turn is interrupted; never by default")
    restart_s: Seconds | None = Field(default=None, description="... until it is restarted; never by default")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        given = [one for one in (self.alert_s, self.interrupt_s, self.restart_s) if one is not None]
        if given != sorted(given):
            raise ValueError(
                "'alert_s', 'interrupt_s' and 'restart_s' follow each other: none may come before the last"
            )
        return self


class DialogPolicy(_Model):
    """What is answered when a program asks whether it may use a tool.

    Parameters
    ----------
    default : {"ask", "allow", "deny"}
        What is answered where no rule fits; ``ask`` leaves it to a person.
    allow, deny : list of str
        Rules, ``TOOL`` or ``TOOL(PATTERN)``; ``*`` stands for anything. A rule of `deny` counts more.
    timeout_s : float, optional
        Seconds that a person has to answer; None: for ever.
    on_timeout : {"allow", "deny"}
        What is answered then.
    """

    default: Literal["ask", "allow", "deny"] = Field(default="ask", description="the answer where no rule fits")
    allow: list[Rule] = Field(default_factory=list, description="tools that may run: Read, Bash(git *)")
    deny: list[Rule] = Field(default_factory=list, description="tools that may not; counts more than allow")
    timeout_s: Seconds | None = Field(default=None, description="seconds that a person has to answer; for ever if none")
    on_timeout: Literal["allow", "deny"] = Field(default="deny", description="the answer when nobody answered in time")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:  # noqa: ANN401
        return {"default": value} if isinstance(value, str) else value


class ModelPrice(_Model):
    """What a model costs, in USD per million tokens.

    Parameters
    ----------
    input, output : float
        Of input that is not cached, and of output.
    cache_read, cache_creation : float, optional
        Of input that is read from, or written to, the provider's cache; None: not known, as is then the cost of a turn
        with such tokens.
    cache_creation_1h : float, optional
        Of input that is written to the cache for an hour; None: as `cache_creation`.
    max_input : int, optional
        Tokens of input of one request up to which these prices hold; None: always.
    as_of, source : str, optional
        When and where the price was read.
    """

    input: Price = Field(description="input that is not cached")
    output: Price = Field(description="output")
    cache_read: Price | None = Field(default=None, description="input read from the provider's cache")
    cache_creation: Price | None = Field(default=None, description="input written to the provider's cache")
    cache_creation_1h: Price | None = Field(
        default=None, description="input written to the cache for an hour; `cache_creation` when omitted"
    )
    max_input: Count | None = Field(
        default=None, description="tokens of one request's input up to which the prices hold; always when omitted"
    )
    as_of: str | None = Field(default=None, description="date on which the price was read; a remark")
    source: str | None = Field(default=None, description="where it was read; a remark")


class Limits(_Model):
    """How far agents may go before delivery pauses; None sets no limit.

    Parameters
    ----------
    turns, messages, tokens : int, optional
        Turns that ended, messages taken in, tokens in and out.
    cost_usd : float, optional
        Money, by the cluster's `prices`.
    wall_s : float, optional
        Seconds since the start of the run (of an agent: since its own).
    hops : int, optional
        Steps in a chain of messages that agents write to each other. Of the whole cluster only.
    loops : int, optional
        Times that a chain may go round the same agents. Of the whole cluster only.
    retry_s : float, optional
        Seconds after which a kind of agents is tried again whose program reported a usage limit without saying when it
        is over; None: when somebody lifts it. Of the whole cluster only.
    """

    turns: Count | None = Field(default=None, description="turns that ended")
    messages: Count | None = Field(default=None, description="messages taken in")
    tokens: Count | None = Field(default=None, description="tokens, in and out")
    cost_usd: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] | None = Field(
        default=None, description="cost in USD, by the cluster's prices"
    )
    wall_s: Seconds | None = Field(default=None, description="seconds since the start")
    hops: Count | None = Field(default=None, description="steps in a chain of messages (cluster only)")
    loops: Count | None = Field(default=None, description="rounds of a chain through the same agents (cluster only)")
    retry_s: Seconds | None = Field(
        default=None,
        description="seconds until a usage limit without a stated reset is tried again; never if none (cluster only)",
    )


class Thresholds(_Model):
    """Three figures at which an alert becomes graver; None leaves a level out. A list of three is the short form.

    Parameters
    ----------
    warning, error, critical : float, optional
        The figures, each at least the one before.
    """

    warning: float | None = Field(default=None, ge=0, description="figure of a warning")
    error: float | None = Field(default=None, ge=0, description="figure of an error")
    critical: float | None = Field(default=None, ge=0, description="figure of a critical alert")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list | tuple):
            if len(value) != 3:
                raise ValueError("three figures are expected: warning, error, critical")
            return dict(zip(("warning", "error", "critical"), value, strict=True))
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        given = [one for one in (self.warning, self.error, self.critical) if one is not None]
        if given != sorted(given):
            raise ValueError("each figure is at least the one before: warning, error, critical")
        return self


class AlertsConfig(_Model):
    """What is watched, when it is worth an alert, and who is told.

    Parameters
    ----------
    enabled : bool
        False: nothing is watched and no alert raised.
    check_s : float
        Seconds between two looks at the processes and the thresholds.
    idle_s, restarts, stopped_agents : Thresholds, optional
        Seconds that an agent is idle; restarts of an agent; agents that have ended and were not asked to. None: never.
    response_timeout_s : float, optional
        Seconds after which a turn without an end is an alert.
    repeat_s : float, optional
        Seconds until an alert that is still open is told again; None: never.
    notify : list of str
        Addresses of apprise, one a channel. ``${NAME}`` is taken from the environment: no secrets in the file.
    notify_level : {"info", "warning", "error", "critical"}
        The least level that is told to them.
    """

    enabled: bool = Field(default=True, description="whether anything is watched")
    check_s: Seconds = Field(default=5.0, description="seconds between two looks")
    idle_s: Thresholds | None = Field(
        default_factory=lambda: Thresholds(warning=300, error=600, critical=900),
        description="seconds that an agent is idle: 300, 600, 900",
    )
    restarts: Thresholds | None = Field(
        default_factory=lambda: Thresholds(warning=3, error=5, critical=10),
        description="restarts of an agent: 3, 5, 10",
    )
    stopped_agents: Thresholds | None = Field(
        default_factory=lambda: Thresholds(warning=1, error=2, critical=3),
        description="agents that ended unasked: 1, 2, 3",
    )
    response_timeout_s: Seconds | None = Field(default=60.0, description="seconds until an unfinished turn is an alert")
    repeat_s: Seconds | None = Field(default=3600.0, description="seconds until an open alert is told again")
    notify: list[Address] = Field(
        default_factory=list, description="addresses of apprise; ${NAME} from the environment"
    )
    notify_level: Level = Field(default="warning", description="the least level that is told to them")
