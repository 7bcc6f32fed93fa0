"""The adapter protocol: what the lab must know about one kind of program.

An adapter turns the lab's wishes into what its program understands (launch files, the text to type, the key that
interrupts) and the program's reports into :class:`Evidence`. It holds no lab state and touches no tmux: the supervisor
feeds it hooks, screens and transcripts and acts on what comes back.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.agents.screens import Rule, ScreenRules
    from orchestrator_lab.config import AgentConfig

__all__ = [
    "Accepted",
    "Adapter",
    "Composer",
    "DialogClosed",
    "DialogSeen",
    "Evidence",
    "FirstOutput",
    "Launch",
    "LaunchContext",
    "Limited",
    "Program",
    "Queued",
    "Ready",
    "Recorded",
    "SessionEnded",
    "ToolEnded",
    "ToolStarted",
    "TurnEnded",
    "Typed",
    "Usage",
    "clean_environment",
    "find_program",
    "well_formed",
]

#: Variables that tell a program that it runs inside another agent or inside tmux; never the user's provider settings.
_NESTING = re.compile(
    r"^(TMUX.*|CLAUDECODE|CLAUDE_CODE_ENTRYPOINT|CLAUDE_CODE_SSE_PORT|CLAUDE_CODE_SESSION_ID|CLAUDE_CODE_CHILD_SESSION"
    r"|CLAUDE_CODE_REMOTE.*|CLAUDE_PROJECT_DIR|CODEX_SANDBOX.*|CODEX_THREAD_ID|ORCHESTRATOR_LAB_AGENT.*)$"
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program found on this machine.

    Parameters
    ----------
    argv : tuple of str
        How to call it, absolute path first.
    name : str
        What it is called in tables (``claude-code``, ``chat``).
    version : str or None
        Its own version, None when it was not asked.
    provider : str or None
        Who makes its model, by OpenTelemetry's names (``anthropic``).
    """

    argv: tuple[str, ...]
    name: str
    version: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """All that an adapter needs to write its launch files.

    Parameters
    ----------
    cluster : str
        Name of the cluster.
    folder : Path
        The agent's own private folder (0700), for generated files.
    work_dir : Path
        Where the program runs.
    work_dir_is_ours : bool
        True when the lab itself created the work folder.
    transcripts : Path
        Folder of the run for transcripts.
    environ : Mapping
        The owner's environment, nesting variables removed.
    url : str
        Base of the loopback application, ``http://127.0.0.1:PORT``.
    token : str
        The agent's secret.
    gateway_url : str or None
        Base URL of the agent's gateway (Anthropic's form, no ``/v1``), None without one.
    instructions : str or None
        The role text.
    roster : str
        One line that says who else is in the cluster, for the role text.
    session_id : str
        Assigned before the launch.
    resume : bool
        True when the session exists and is to be continued.
    replayed : bool
        True when the gateway answers from a recording: no key is needed, whatever it is configured to do.
    """

    cluster: str
    folder: Path
    work_dir: Path
    work_dir_is_ours: bool
    transcripts: Path
    environ: Mapping[str, str]
    url: str
    token: str
    gateway_url: str | None
    instructions: str | None
    roster: str
    session_id: str
    resume: bool
    replayed: bool = False

    def keyless(self, config: AgentConfig) -> bool:
        """Tell whether the agent's gateway answers by itself, without a provider and its key."""
        return config.gateway is not None and (config.gateway.mode in {"script", "local"} or self.replayed)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start an agent's program.

    Parameters
    ----------
    argv : tuple of str
        The command; holds no secret.
    environ : dict
        Its whole environment, written to a private file and never to a command line.
    transcript : Path or None
        Where the program will keep its own record.
    model : str or None
        The model asked for, if known before the start.
    """

    argv: tuple[str, ...]
    environ: dict[str, str]
    transcript: Path | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Typed:
    """A body as it will be typed, and as the program will report it.

    Parameters
    ----------
    text : str
        What is pasted.
    expected : str
        What the program's own record of the prompt will hold.
    notes : tuple of str
        What was changed and why, for the journal.
    parts : tuple of str
        The text in pieces, each a paste of its own; the whole text when empty.
    """

    text: str
    expected: str
    notes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


#: What an input line holds: nothing, our own text, a text of somebody else, or nobody can tell.
Composer = Literal["empty", "holds_text", "other", "unknown"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something a program reported or showed.

    Parameters
    ----------
    source : str
        ``hook``, ``transcript``, ``terminal``, ``screen``, ``echo`` or ``process``, best first.
    """

    source: str


@dataclass(frozen=True, slots=True)
class Ready(Evidence):
    """The program is up and its input line takes text."""

    session_id: str | None = None
    transcript: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted(Evidence):
    """The program took a prompt; ``prompt`` is exactly what it took.

    ``joined`` says that it went into a turn which was running, instead of beginning one.
    """

    prompt: str
    prompt_id: str | None = None
    session_id: str | None = None
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Queued(Evidence):
    """The program took a text out of its input line and keeps it until its turn lets it in."""

    prompt: str


@dataclass(frozen=True, slots=True)
class FirstOutput(Evidence):
    """The answer began to appear."""


@dataclass(frozen=True, slots=True)
class ToolStarted(Evidence):
    """A tool call began."""

    tool_call_id: str
    name: str
    input: Any = None


@dataclass(frozen=True, slots=True)
class ToolEnded(Evidence):
    """A tool call ended."""

    tool_call_id: str
    output: Any = None
    status: Literal["ok", "error", "denied"] = "ok"
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class Limited(Evidence):
    """The program says that its account's usage limit is reached.

    ``resets_at`` is the stated reset in epoch seconds, None when the program names none.
    """

    resets_at: float | None = None
    reason: str = "a usage limit is reached"


@dataclass(frozen=True, slots=True)
class TurnEnded(Evidence):
    """A turn came to its end; ``limited`` is the usage limit that ended it."""

    reply: str | None
    reason: str = "completed"
    prompt_id: str | None = None
    error_message: str | None = None
    usage: Usage | None = None
    limited: Limited | None = None


#: What a ``turn.usage`` does not hold.
_FOR_COSTS = frozenset({"whole", "cache_creation_1h_input_tokens", "largest_input", "message_ids"})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn as the program reported them.

    ``input_tokens`` counts cached tokens too (OpenTelemetry's rule). ``whole`` is False when more
    than ``model`` answered, or when the turn may have used tokens that are not among these: it has no cost then.
    ``cache_creation_1h_input_tokens`` and ``largest_input`` (of one request) are for the cost alone; ``message_ids``,
    the provider's ids of the answers, are for the comparison with what the gateway saw.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    model: str | None = None
    final: bool = True
    whole: bool = True
    cache_creation_1h_input_tokens: int | None = None
    largest_input: int | None = None
    message_ids: frozenset[str] = frozenset()

    def attributes(self) -> dict[str, Any]:
        """Return what a ``turn.usage`` event holds, unknown figures left out."""
        facts = dataclasses.asdict(self)
        return {key: value for key, value in facts.items() if value is not None and key not in _FOR_COSTS}


@dataclass(frozen=True, slots=True)
class DialogSeen(Evidence):
    """The program asks its user something.

    ``answer`` is the label to choose when the lab may answer by itself, None when a person must. ``tool`` and
    ``tool_input`` are what a permission is asked for, ``tool_call_id`` the call that waits for it. ``by_hook``: whoever
    reports waits for an answer and takes it. ``rule`` is the screen rule that knew the question.
    """

    kind: str
    subject: str
    options: tuple[str, ...] = ()
    answer: str | None = None
    tool: str | None = None
    tool_input: Any = None
    cwd: str | None = None
    tool_call_id: str | None = None
    by_hook: bool = False
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class DialogClosed(Evidence):
    """The question is answered.

    ``subject`` names which one, where several may stand; ``decision`` is what the evidence says of the answer.
    """

    subject: str | None = None
    decision: str | None = None


@dataclass(frozen=True, slots=True)
class SessionEnded(Evidence):
    """The program says that its session is over."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Recorded(Evidence):
    """Something of a recorded run that nothing else tells of: tokens, changes in files, what a screen showed."""

    what: str
    facts: Mapping[str, Any]


@dataclass(slots=True)
class Watch:
    """How the end of a turn is found on a screen, for programs that report nothing.

    Exactly one of the three is set.
    """

    prompt: re.Pattern[str] | None = None
    marker: str | None = None
    quiet_s: float | None = None
    #: How the program is known to be up: its prompt, a text that it prints, or quiet.
    ready: re.Pattern[str] | None = None
    ready_marker: str | None = None
    ready_quiet_s: float | None = None


class Adapter(Protocol):
    """One kind of program. See the module's docstring."""

    kind: str
    #: True when the program reports accepted prompts and ended turns by itself.
    reports: bool
    #: True when the input line is always in sight, and is read with its styles.
    styled: bool
    #: Key that interrupts a turn.
    interrupt_key: str
    #: Key that clears the input line, None when nothing ever needs it.
    clear_key: str | None
    #: Longest wait for the screen to echo a paste before the separate Enter, in seconds.
    echo_timeout_s: float
    #: How long acceptance may take before the screen is read, in seconds.
    accept_timeout_s: float
    #: True when readiness shows on the screen alone, and while it is still being drawn.
    starts_on_screen: bool
    #: Quiet after which a busy agent that reports is doubted, and its own record is read, in seconds.
    doubt_quiet_s: float
    #: Quiet after which a question that nothing reported is believed to stand on the screen, in seconds.
    question_quiet_s: float
    #: True when its screen moves while it waits: its output is progress only when the words on the screen change.
    animates: bool
    #: Share of a core, of its whole process tree, up to which processor time is no sign of progress.
    idle_cpu: float

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:
        """Find the program; raise ProgramNotFound with what to install."""
        ...

    def prepare(self, config: AgentConfig, program: Program, context: LaunchContext) -> Launch:
        """Write the launch files and say how to start."""
        ...

    def typed(self, text: str) -> Typed:
        """Return the body as it is typed and as it will be reported."""
        ...

    def hook(self, payload: Mapping[str, Any]) -> list[Evidence]:
        """Return what one hook call says."""
        ...

    def parts(self, screen: str) -> Mapping[str, str]:
        """Return regions of a screen: ``input`` is what stands in the input line, as far as it is known."""
        ...

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:
        """Return what the screen of a program that is not ready yet says."""
        ...

    def composer(self, screen: str, typed: Typed) -> Composer:
        """Say what the input line holds; a screen with escapes lets suggestions be told from text."""
        ...

    def restored(self, screen: str, prompt: str) -> bool:
        """Tell whether the program stopped and gave a turn's prompt back to the input line."""
        ...

    def transcript(self, path: Path, *, prompt: str, since: float) -> list[Evidence]:
        """Return what the program's own record says of a prompt typed after ``since`` (epoch seconds)."""
        ...

    def usage(self, path: Path, *, prompt_id: str | None, prompt: str | None) -> Usage | None:
        """Return the tokens of the turn that answered a prompt, None when the record does not say."""
        ...

    def resumable(self, path: Path) -> bool:
        """Tell whether the program can go on with a session of which it keeps this record."""
        ...

    def turn_over(self, path: Path, prompt_id: str | None) -> bool:
        """Tell whether a turn whose end was reported is closed: before that a text would still go into it."""
        ...

    def watch(self, config: AgentConfig) -> Watch | None:
        """Return how to find turns on the screen, None for programs that report."""
        ...

    # From ScreenReader, which every adapter is.

    screens: ScreenRules
    screens_note: str | None

    def matches(self, screen: str, *, starting: bool = False, title: str = "") -> list[tuple[Rule, str]]:
        """Return the screen rules that fit a screen without escapes, with the lines that they fit."""
        ...

    def question(
        self, screen: str, *, starting: bool = False, work_dir: str = "", ours: bool = False
    ) -> DialogSeen | None:
        """Return the question that a screen without an input line asks, as far as a rule knows it."""
        ...

    def unknown(self, screen: str) -> DialogSeen:
        """Return a screen that no rule knows as a dialog."""
        ...

    def state_rule(self, screen: str, *, title: str = "") -> Rule | None:
        """Return the rule that tells a state from a screen."""
        ...

    def permission_reply(self, decision: str, reason: str) -> dict[str, Any] | None:
        """Return what a waiting hook is told, None when the program takes no answer from its hooks."""
        ...


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that mark nesting.

    Parameters
    ----------
    environ : Mapping of str to str
        The owner's environment.

    Returns
    -------
    dict
        The same without ``TMUX*``, ``CLAUDECODE`` and their like. Provider settings and keys stay.

    Examples
    --------
    >>> clean_environment({"TMUX": "/tmp/x,1,0", "ANTHROPIC_BASE_URL": "http://x"})
    {'ANTHROPIC_BASE_URL': 'http://x'}
    """
    return {key: value for key, value in environ.items() if not _NESTING.match(key)}


#: What a program's report says in words, where it says it.
_TEXTS = frozenset(
    {"session_id", "transcript_path", "model", "prompt", "prompt_id", "turn_id", "tool_name", "tool_use_id"}
    | {"last_assistant_message", "agent_id", "hook_id", "notification_type"}
)


def well_formed(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a program's report without what cannot be meant: another program may post anything.

    A text that is none is left out, as if it had not been said, and so is a prompt of nothing.

    Examples
    --------
    >>> well_formed({"hook_event_name": "UserPromptSubmit", "prompt": ["?"], "usage": {}})
    {'usage': {}}
    """
    said = {key: value for key, value in payload.items() if key not in _TEXTS or isinstance(value, str)}
    if "\0" in said.get("transcript_path", ""):
        del said["transcript_path"]
    if said.get("hook_event_name") == "UserPromptSubmit" and "prompt" not in said:
        del said["hook_event_name"]
    if not isinstance(said.get("hook_event_name", ""), str):
        del said["hook_event_name"]
    return said


def find_program(command: str, environ: Mapping[str, str]) -> str | None:
    """Return the absolute path of a command as its agent would find it.

    Parameters
    ----------
    command : str
        A name or a path.
    environ : Mapping of str to str
        The agent's environment; its ``PATH`` decides.

    Returns
    -------
    str or None
        None when there is no such program.

    Examples
    --------
    >>> find_program("no-such-program-here", {"PATH": "/usr/bin"}) is None
    True
    """
    import shutil

    found = shutil.which(str(Path(command).expanduser()), path=environ.get("PATH"))
    return str(Path(found).absolute()) if found else None
