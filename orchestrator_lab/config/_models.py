"""The typed configuration of a cluster and of each kind of agent."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from orchestrator_lab.config._care import (
    AlertsConfig,
    DialogPolicy,
    HangPolicy,
    Limits,
    ModelPrice,
    RestartPolicy,
    Thresholds,
)
from orchestrator_lab.config._initial import InitialStateConfig
from orchestrator_lab.config._prices import DATED, dated_prices
from orchestrator_lab.config._privacy import PrivacyConfig
from orchestrator_lab.config._topology import Topology
from orchestrator_lab.errors import AgentNotFound

__all__ = [
    "AGENT_NAME",
    "KINDS",
    "NESTED",
    "RESERVED_NAMES",
    "Agent",
    "AgentConfig",
    "ChatAgent",
    "ClaudeAgent",
    "ClusterConfig",
    "CodexAgent",
    "GatewayConfig",
    "ProgramAgent",
    "Stop",
    "TurnEnd",
]

#: Names that mean something else in a message's sender or recipient.
RESERVED_NAMES = frozenset({"user", "all", "*"})

#: What an agent may be called.
AGENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What the lab itself sets or removes in a pane.
_OWN_VARIABLES = re.compile(r"TMUX(?:_.*)?|ORCHESTRATOR_LAB_.*")


def _check_name(value: str) -> str:
    if not AGENT_NAME.fullmatch(value):
        raise ValueError(
            f"{value[:60]!r} is not a name; use a letter, then up to 31 letters, digits, '-' "
            f"or '_' "
            "(no spaces, ':' or '.')"
        )
    if value.lower() in RESERVED_NAMES:
        raise ValueError(f"{value!r} is reserved; choose another name")
    return value


def _check_text(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character")
    return value


def _check_path(value: Any) -> Any:  # noqa: ANN401 - runs before the type is known
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("an empty path")
        _check_text(value)
    return value


def _check_variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        # The value may be a key pasted into the wrong place: it is not shown.
        raise ValueError("give the name of an environment variable (letters, digits, '_'), never the key itself")
    return value


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{_without_login(value)!r} is no address; it must begin with http:// or https://")
    if parts.username or parts.password:
        raise ValueError("a login in an address would be recorded; name its variable in 'key_env' instead")
    return value.rstrip("/")


def _without_login(value: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", value)[:80]


def _split_command(value: Any) -> Any:  # noqa: ANN401 - runs before the type is known
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ValueError(f"the command cannot be split into words: {error}") from None
    return value


def _check_words(value: list[str]) -> list[str]:
    for word in value:
        _check_text(word)
    return value


def _check_command(value: list[str]) -> list[str]:
    if not value or not value[0].strip():
        raise ValueError("an empty command; name the program to run")
    return _check_words(value)


def _env_text(value: Any) -> Any:  # noqa: ANN401 - runs before the type is known
    if not isinstance(value, dict):
        return value
    shown = {True: "true", False: "false"}
    return {
        key: shown[item] if isinstance(item, bool) else str(item) if isinstance(item, int | float) else item
        for key, item in value.items()
    }


def _check_env(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name[:60]!r} is not a variable's name; use letters, digits and '_'")
        if _OWN_VARIABLES.fullmatch(name):
            raise ValueError(f"{name} is set by the lab itself; leave it out")
        if "\0" in text:
            raise ValueError(f"the value of {name} contains a NUL character")
    return value


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{value[:60]!r} is not a regular expression: {error}") from None
    return value


def _table(value: Any) -> Any:  # noqa: ANN401 - runs before the type is known
    if value == DATED:
        return dated_prices()
    if isinstance(value, str):
        sentence = f"{value[:60]!r} is no price table; write 'dated', or a mapping of models to prices"
        raise ValueError(sentence)  # noqa: TRY004 - pydantic's
    return value


def _check_models(value: dict[str, ModelPrice]) -> dict[str, ModelPrice]:
    for name in value:
        if not name or name != name.strip():
            raise ValueError(f"{name[:60]!r} is no model; write its name or a pattern, without spaces around it")
    return value


Name = Annotated[str, AfterValidator(_check_name)]
Text = Annotated[str, AfterValidator(_check_text)]
FilePath = Annotated[Path, BeforeValidator(_check_path)]
Variable = Annotated[str, AfterValidator(_check_variable)]
Url = Annotated[str, AfterValidator(_check_url)]
Command = Annotated[list[str], BeforeValidator(_split_command), AfterValidator(_check_command)]
Words = Annotated[list[str], BeforeValidator(_split_command), AfterValidator(_check_words)]
Environment = Annotated[dict[str, str], BeforeValidator(_env_text), AfterValidator(_check_env)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
Prices = Annotated[dict[str, ModelPrice], BeforeValidator(_table), AfterValidator(_check_models)]
Columns = Annotated[int, Field(ge=20, le=1000)]
Rows = Annotated[int, Field(ge=5, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Layout = Literal["windows", "tiled"]
Lifetime = Literal["detached", "owner"]
CodexPermissionMode = Literal["ask", "readOnly", "dontAsk", "bypassPermissions"]
PermissionMode = Literal["ask", "default", "acceptEdits", "auto", "plan", "dontAsk", "bypassPermissions"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class GatewayConfig(_Model):
    """The model endpoint that an agent is pointed at.

    Parameters
    ----------
    mode : {"none", "upstream", "script", "local"}
        ``none``: the program finds its own endpoint; ``upstream``: pass through to a real API and
        record usage; ``script``: rules decide the replies, no key needed; ``local``: a small
        language model on this machine. ``script`` when only `script` is given.
    base_url : str, optional
        Where ``upstream`` passes requests on; the API's own address when omitted.
    api : {"anthropic", "openai"}
        The protocol that the agent speaks.
    script : str, list or dict, optional
        Rules of ``script``, or the path of a YAML file with them.
    model : str, optional
        GGUF file or name for ``local``.
    key_env : str, optional
        Name of the variable that holds the API key; never the key.
    """

    mode: Literal["none", "upstream", "script", "local"] = Field(
        default="none",
        description="none: the program's own endpoint; others: through the lab's gateway",
    )
    base_url: Url | None = Field(default=None, description="where 'upstream' passes requests on")
    api: Literal["anthropic", "openai"] = Field(default="anthropic", description="the protocol the agent speaks")
    script: Any = Field(default=None, description="rules of 'script' mode, or the path of a YAML file with them")
    model: Text | None = Field(default=None, description="GGUF file or model name for 'local'")
    key_env: Variable | None = Field(default=None, description="name of the variable that holds the API key")

    @model_validator(mode="before")
    @classmethod
    def _infer_mode(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, str):
            return {"mode": value}
        if isinstance(value, dict) and "mode" not in value and value.get("script") is not None:
            return {**value, "mode": "script"}
        return value

    @field_validator("script")
    @classmethod
    def _check_script(cls, value: Any) -> Any:  # noqa: ANN401
        if value is not None and not isinstance(value, str | list | dict):
            raise ValueError("expected the path of a YAML file, or the rules themselves")
        if isinstance(value, str):
            _check_path(value)
        return value

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.mode == "script" and self.script is None:
            raise ValueError("mode 'script' needs 'script': the path of a YAML file, or the rules themselves")
        if self.mode != "script" and self.script is not None:
            raise ValueError(f"'script' has no effect in mode '{self.mode}'; use mode 'script'")
        if self.mode in {"script", "local"} and self.base_url is not None:
            raise ValueError(f"'base_url' has no effect in mode '{self.mode}'; use mode 'upstream'")
        return self


class TurnEnd(_Model):
    """How the end of a program's turn is found: exactly one of three.

    Parameters
    ----------
    prompt : str, optional
        Regular expression that the last line matches when the program waits for input.
    marker : str, optional
        A text that the program prints when it has finished.
    quiet_s : float, optional
        Seconds without output.
    """

    prompt: Pattern | None = Field(default=None, min_length=1, description="regular expression of the prompt's line")
    marker: Text | None = Field(default=None, min_length=1, description="text printed at the end of a turn")
    quiet_s: Seconds | None = Field(default=None, description="seconds without output")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("prompt", "marker", "quiet_s") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ValueError(f"give exactly one of 'prompt', 'marker' and 'quiet_s' (found {found})")
        return self


class Stop(_Model):
    """How a program is asked to end.

    Parameters
    ----------
    text : str, optional
        A line typed to end it, for example ``exit()``.
    key : str, optional
        A tmux key pressed to end it; ``C-d`` when neither is given.
    timeout_s : float
        Seconds until it is ended by a signal.
    """

    text: Text | None = None
    key: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,20}$")
    timeout_s: Seconds = 5.0

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:  # noqa: ANN401
        return {"text": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.text is not None and self.key is not None:
            raise ValueError("give 'text' or 'key', not both")
        return self


class AgentConfig(_Model):
    """What every agent has.

    Parameters
    ----------
    name : str
        A letter, then up to 31 letters, digits, ``-`` or ``_``.
    role : str
        One line for people and for ``list_agents``.
    kind : str
        Which program it is; decides the further keys.
    instructions, instructions_file : str or Path, optional
        Its personality, inline or in a file (not both).
    model : str, optional
        Model name passed to the program; the program's own default when omitted.
    env : dict of str to str
        Variables added to its environment, on top of the owner's.
    work_dir : Path, optional
        Its folder; the cluster's when omitted.
    create_work_dir : bool
        Create the folder at the start if it does not exist.
    gateway : GatewayConfig, optional
        Its model endpoint; the cluster's when omitted.
    cols, rows : int, optional
        Pane size in characters; the cluster's when omitted.
    permission_mode : str, optional
        What it may do without asking; asks when omitted.
    response_timeout_s : float, optional
        Seconds after which an unanswered ask gives up waiting, unless the caller says otherwise.
    restart, hang, dialogs : RestartPolicy, HangPolicy, DialogPolicy, optional
        How it is looked after; the cluster's when omitted.
    limits : Limits
        How far it may go by itself, beside the cluster's limits.
    screens : Path, optional
        File with screen rules of your own, tried before the lab's.
    """

    name: Name = Field(description="a letter, then up to 31 letters, digits, '-' or '_'")
    role: Text = Field(default="", description="one line for people and for list_agents")
    kind: str = Field(description="which program it is")
    instructions: Text | None = Field(default=None, description="its personality, inline")
    instructions_file: FilePath | None = Field(default=None, description="its personality, in a file")
    model: Text | None = Field(default=None, min_length=1, description="model name; the program's default when omitted")
    env: Environment = Field(default_factory=dict, description="variables added to its environment")
    work_dir: FilePath | None = Field(default=None, description="its folder; the cluster's when omitted")
    create_work_dir: bool = Field(default=False, description="create the folder if it does not exist")
    gateway: GatewayConfig | None = Field(default=None, description="its model endpoint; the cluster's when omitted")
    cols: Columns | None = None
    rows: Rows | None = None
    permission_mode: str | None = Field(default=None, description="what it may do without asking; asks when omitted")
    response_timeout_s: Seconds | None = Field(default=None, description="how long an ask waits unless told otherwise")
    restart: RestartPolicy | None = Field(default=None, description="when it is restarted; the cluster's when omitted")
    hang: HangPolicy | None = Field(default=None, description="when it makes no progress; the cluster's when omitted")
    dialogs: DialogPolicy | None = Field(default=None, description="who answers it; the cluster's when omitted")
    limits: Limits = Field(default_factory=Limits, description="how far it may go, beside the cluster's limits")
    screens: FilePath | None = Field(default=None, description="screen rules of your own, tried before the lab's")

    @field_validator("role")
    @classmethod
    def _one_line(cls, value: str) -> str:
        return " ".join(value.split())

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.instructions is not None and self.instructions_file is not None:
            raise ValueError("give 'instructions' or 'instructions_file', not both")
        if self.permission_mode is not None and self.kind not in {"claude", "codex"}:
            raise ValueError(f"'permission_mode' has no effect for kind '{self.kind}'; leave it out")
        for name in ("hops", "loops", "retry_s"):
            if getattr(self.limits, name) is not None:
                raise ValueError(f"'limits.{name}' is a limit of the whole cluster; set it under 'cluster:'")
        return self


class ClaudeAgent(AgentConfig):
    """The real Claude Code.

    Parameters
    ----------
    config : {"inherit", "isolated"}
        ``inherit``: the user's own login, settings and MCP servers; ``isolated``: a folder of the
        cluster's own. When nothing is said: ``isolated`` on a gateway that needs no key (``script``,
        ``local``), where a login has no business, else ``inherit``.
    command : list of str
        The program; a single text is split into words.
    args : list of str
        Further arguments.
    mcp : bool
        Give it the lab's tools (send_message, list_agents, …).
    allowed_tools : list of str
        Tools that need no permission, in Claude Code's own notation.
    """

    kind: Literal["claude"] = "claude"
    config: Literal["inherit", "isolated"] = Field(
        default="inherit",
        description="inherit: your own login and settings; isolated: a folder of the cluster's own",
    )
    command: Command = Field(default_factory=lambda: ["claude"], description="the program to run")
    args: Words = Field(default_factory=list, description="further arguments")
    mcp: bool = Field(default=True, description="give it the lab's tools")
    allowed_tools: list[Text] = Field(default_factory=list, description="tools that need no permission")
    permission_mode: PermissionMode | None = Field(
        default=None, description="what it may do without asking; asks when omitted"
    )

    @model_serializer(mode="wrap")
    def _keep_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Whether `config` was said at all matters to its adapter, so it survives every round trip.
        data: dict[str, Any] = handler(self)
        data.pop("config", None)
        return data | ({"config": self.config} if "config" in self.model_fields_set else {})


class CodexAgent(AgentConfig):
    """The real Codex, version 0.169 or newer.

    Parameters
    ----------
    config : {"inherit", "isolated"}
        ``inherit``: the user's own login, settings, hooks and MCP servers, the lab's added for this
        program only and no file of the user's changed; ``isolated``: a folder of the cluster's own.
        When nothing is said: ``isolated`` on a gateway that needs no key (``script``, ``local``),
        where a login has no business, else ``inherit``.
    command : list of str
        The program; a single text is split into words.
    args : list of str
        Further arguments, last on the command line.
    mcp : bool
        Give it the lab's tools (send_message, list_agents, …).
    permission_mode : {"ask", "readOnly", "dontAsk", "bypassPermissions"}, optional
        ``ask``: works in its folder, asks for more; ``readOnly``: asks for every change;
        ``dontAsk``: works in its folder, never asks; ``bypassPermissions``: no sandbox, never asks.
        When omitted: the user's own settings (``inherit``), else ``ask``.
    """

    kind: Literal["codex"] = "codex"
    config: Literal["inherit", "isolated"] = Field(
        default="inherit",
        description="inherit: your own login and settings; isolated: a folder of the cluster's own",
    )
    command: Command = Field(default_factory=lambda: ["codex"], description="the program to run")
    args: Words = Field(default_factory=list, description="further arguments")
    mcp: bool = Field(default=True, description="give it the lab's tools")
    permission_mode: CodexPermissionMode | None = Field(
        default=None, description="what it may do without asking; asks when omitted"
    )

    @model_serializer(mode="wrap")
    def _keep_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Whether `config` was said at all matters to its adapter, so it survives every round trip.
        data: dict[str, Any] = handler(self)
        data.pop("config", None)
        return data | ({"config": self.config} if "config" in self.model_fields_set else {})


class ChatAgent(AgentConfig):
    """The lab's own terminal chat program, or one of your own that speaks its protocol.

    Parameters
    ----------
    command : list of str, optional
        A chat program of your own; a single text is split into words. It is called with ``--settings FILE`` added and
        reports as the lab's own does (see :mod:`orchestrator_lab.agents.chat`). The lab's own when omitted.
    api : {"anthropic", "openai"}
        The protocol it speaks.
    base_url : str, optional
        Its endpoint when it uses no gateway; the API's own address when omitted.
    key_env : str, optional
        Name of the variable that holds the API key; never the key.
    max_tokens : int
        Longest reply, in tokens.
    temperature : float, optional
        Sampling temperature; the endpoint's default when omitted.
    remember_turns : int, optional
        Turns of the conversation that are sent to the model with a prompt; all of them when omitted, which a long
        conversation makes slow, and at last too long for any model.
    """

    kind: Literal["chat"] = "chat"
    command: Command | None = Field(default=None, description="the chat program to run; the lab's own when omitted")
    api: Literal["anthropic", "openai"] = Field(default="anthropic", description="the protocol it speaks")
    base_url: Url | None = Field(default=None, description="its endpoint when it uses no gateway")
    key_env: Variable | None = Field(default=None, description="name of the variable that holds the API key")
    max_tokens: int = Field(default=1024, ge=1, le=1_000_000, description="longest reply, in tokens")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    remember_turns: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="turns of the conversation that are sent to the model; all when omitted"
    )


class ProgramAgent(AgentConfig):
    """Any command with a prompt of its own: python, a debugger, a shell.

    Parameters
    ----------
    command : list of str
        What to run; a single text is split into words, no shell ever sees it.
    turn_end : TurnEnd
        How the end of a turn is found.
    ready : TurnEnd, optional
        How it is known to take input after the start; like `turn_end` when omitted.
    stop : Stop
        How it is asked to end.
    echo : bool
        Whether the program shows what is typed (that is then the proof of delivery).
    """

    kind: Literal["program"] = "program"
    command: Command = Field(description="what to run; no shell ever sees it")
    turn_end: TurnEnd = Field(description="how the end of a turn is found")
    ready: TurnEnd | None = Field(default=None, description="how it is known to be ready; like turn_end when omitted")
    stop: Stop = Field(default_factory=Stop, description="how it is asked to end")
    echo: bool = Field(default=True, description="whether it shows what is typed")


Agent = Annotated[ClaudeAgent | CodexAgent | ChatAgent | ProgramAgent, Field(discriminator="kind")]

#: The kinds of agents, in the order in which errors list them.
KINDS: tuple[str, ...] = tuple(model.model_fields["kind"].default for model in get_args(get_args(Agent)[0]))


#: Keys whose value is a mapping with keys of its own.
NESTED: dict[str, type[BaseModel]] = {
    "gateway": GatewayConfig,
    "turn_end": TurnEnd,
    "ready": TurnEnd,
    "stop": Stop,
    "restart": RestartPolicy,
    "hang": HangPolicy,
    "dialogs": DialogPolicy,
    "limits": Limits,
    "alerts": AlertsConfig,
    "privacy": PrivacyConfig,
    "initial_state": InitialStateConfig,
    "idle_s": Thresholds,
    "restarts": Thresholds,
    "stopped_agents": Thresholds,
}


class ClusterConfig(_Model):
    """A cluster, ready to start: paths absolute, names checked.

    Parameters
    ----------
    name : str
        Name under which it is found again.
    session_name : str
        Name of its tmux session; `name` when omitted.
    work_dir : Path
        Folder in which the agents work.
    create_work_dir : bool
        Create the folder at the start if it does not exist.
    runs_dir : Path
        Folder that takes a folder for each run.
    layout : {"windows", "tiled"}
        One window per agent, or panes side by side.
    cols, rows : int
        Size of each agent's pane, in characters.
    lifetime : {"detached", "owner"}
        Whether it ends with the process that started it.
    gateway : GatewayConfig
        Model endpoint of agents that declare none.
    topology : Topology
        Who may write to whom.
    start_timeout_s : float
        Seconds that an agent may take to be ready.
    restart, hang, dialogs : RestartPolicy, HangPolicy, DialogPolicy
        How agents are looked after that declare nothing else.
    limits : Limits
        How far the cluster may go before delivery pauses.
    prices : dict of str to ModelPrice
        What models cost, by their name or a pattern; what is not listed has no known cost.
    alerts : AlertsConfig
        What is watched, and who is told.
    privacy : PrivacyConfig
        What is masked when a run is exported, beside what is recognised anyway.
    initial_state : InitialStateConfig
        Whether the work folders are kept as they were before any agent started, and how much of them.
    record_changes : bool
        Whether what each turn changed in its work folder is recorded, where that is under git.
    seal : bool
        Whether the tables of a long run are kept as Parquet files once it has ended.
    agents : list of ClaudeAgent, CodexAgent, ChatAgent or ProgramAgent
        At least one.
    source : Path, optional
        The file it was read from.
    notes : list of str
        What the reader should know: keys without effect, keys written in the file.
    """

    name: Name = Field(description="name under which the cluster is found again")
    session_name: Name = Field(
        default_factory=lambda values: str(values.get("name", "")),
        description="tmux session; the name when omitted",
    )
    work_dir: FilePath = Field(default=Path(), description="folder in which the agents work")
    create_work_dir: bool = Field(default=False, description="create the folder if it does not exist")
    runs_dir: FilePath = Field(default=Path("runs"), description="folder that takes a folder for each run")
    layout: Layout = Field(default="windows", description="one window per agent, or panes side by side")
    cols: Columns = Field(default=200, description="pane width in characters")
    rows: Rows = Field(default=50, description="pane height in characters")
    lifetime: Lifetime = Field(default="detached", description="detached, or owner: ends with the starter")
    gateway: GatewayConfig = Field(default_factory=GatewayConfig, description="model endpoint of agents without one")
    topology: Topology = Field(default_factory=Topology, description="who may write to whom; all when omitted")
    start_timeout_s: Seconds = Field(default=60.0, description="seconds that an agent may take to be ready")
    restart: RestartPolicy = Field(default_factory=RestartPolicy, description="when agents are restarted")
    hang: HangPolicy = Field(default_factory=HangPolicy, description="when agents make no progress")
    dialogs: DialogPolicy = Field(default_factory=DialogPolicy, description="who answers agents that ask")
    limits: Limits = Field(default_factory=Limits, description="how far the cluster may go")
    prices: Prices = Field(default_factory=dict, description="what models cost, by name or pattern; or `dated`")
    alerts: AlertsConfig = Field(default_factory=AlertsConfig, description="what is watched, and who is told")
    privacy: PrivacyConfig = Field(
        default_factory=PrivacyConfig, description="what is masked when a run is exported, beside what is recognised"
    )
    initial_state: InitialStateConfig = Field(
        default_factory=InitialStateConfig, description="keep the work folders as they were before any agent started"
    )
    record_changes: bool = Field(
        default=True, description="record what each turn changed in its work folder, where that is under git"
    )
    seal: bool = Field(default=True, description="keep a long run's tables as Parquet files too, once it has ended")
    agents: list[Agent] = Field(min_length=1)
    source: Path | None = None
    notes: list[str] = Field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of the agents, in the order of the file."""
        return [agent.name for agent in self.agents]

    def renamed(self, name: str) -> ClusterConfig:
        """Return the same cluster under another name, which its tmux session shares where it shared the first."""
        session = name if self.session_name == self.name else self.session_name
        return self.model_copy(update={"name": name, "session_name": session})

    def agent(self, name: str) -> ClaudeAgent | CodexAgent | ChatAgent | ProgramAgent:
        """Return the agent called `name`.

        Raises
        ------
        AgentNotFound
            When there is none.
        """
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise AgentNotFound(
            f"no agent {name!r} in cluster {self.name!r}; it has: {', '.join(self.names)}",
            agent=name,
        )

    def gateway_of(self, agent: AgentConfig) -> GatewayConfig:
        """Return the model endpoint of `agent`: its own, or the cluster's."""
        gateway = agent.gateway or self.gateway
        if agent.kind == "codex" and gateway.api != "openai":  # the only one it speaks
            gateway = gateway.model_copy(update={"api": "openai"})
        return gateway

    def restart_of(self, agent: AgentConfig) -> RestartPolicy:
        """Return when `agent` is restarted: by its own policy, or the cluster's."""
        return agent.restart or self.restart

    def hang_of(self, agent: AgentConfig) -> HangPolicy:
        """Return what is done when `agent` makes no progress: by its own policy, or the cluster's."""
        return agent.hang or self.hang

    def dialogs_of(self, agent: AgentConfig) -> DialogPolicy:
        """Return who answers `agent` when it asks: by its own policy, or the cluster's."""
        return agent.dialogs or self.dialogs

    def work_dir_of(self, agent: AgentConfig) -> Path:
        """Return the folder of `agent`: its own, or the cluster's."""
        return agent.work_dir or self.work_dir

    def seen_folders(self) -> dict[str, Path]:
        """Return the folder of each agent that can see one, without links: the lab's own chat program sees no files."""
        return {
            agent.name: self.work_dir_of(agent).resolve()
            for agent in self.agents
            if not isinstance(agent, ChatAgent) or agent.command is not None
        }

    def size_of(self, agent: AgentConfig) -> tuple[int, int]:
        """Return columns and rows of the pane of `agent`."""
        return agent.cols or self.cols, agent.rows or self.rows

    def to_json(self) -> str:
        """Return everything as JSON for :meth:`from_json`; with secrets, for private files only."""
        return self.model_dump_json(by_alias=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ClusterConfig:
        """Return the configuration that :meth:`to_json` wrote.

        Raises
        ------
        ConfigError
            When the text is not such a configuration.
        """
        from orchestrator_lab.config._load import from_json

        return from_json(text)
