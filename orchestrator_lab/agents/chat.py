"""The lab's own chat program: it reports over the same hooks as Claude Code, and keeps a transcript.

A program of your own may take its place (``command``) when it speaks the same protocol:

- it is called with ``--settings FILE``, a JSON object with ``hook_url``, ``session_id``, ``transcript_path``,
  ``model``, ``base_url``, ``system_file``, ``resume`` and what else :meth:`ChatAdapter.prepare` writes;
- it turns bracketed paste on, and its input line begins with ``›`` in the first column, whether it works or waits. A
  suggestion there is dim; a long paste may stand there as ``[pasted …]``. Enter (CR) submits;
- it posts one JSON object an event to ``hook_url``, with the bearer ``ORCHESTRATOR_LAB_AGENT_TOKEN``:
  ``{"hook_event_name", "hook_id", "session_id", …}``. ``SessionStart``: it takes input. ``UserPromptSubmit``:
  ``prompt`` is exactly what it took, ``prompt_id`` its turn. ``MessageDisplay``: the answer begins. ``Stop``:
  ``last_assistant_message``, ``usage``. ``StopFailure``: ``error`` (``interrupted``, or a sentence), ``error_type``
  (``usage_limit``, with ``resets_at`` in epoch seconds if it is known). ``Notification``: ``notification_type``
  ``dialog_opened`` (``kind``, ``subject``, ``options``) and ``dialog_closed`` while it asks its user something.
  ``SessionEnd``: it leaves;
- it appends the prompts that it took to ``transcript_path``, if it can: one JSON object a line with ``type`` ``user``,
  ``timestamp`` and ``message.content``, followed by one of type ``assistant`` or ``error``.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import (
    Accepted,
    Composer,
    DialogClosed,
    DialogSeen,
    Evidence,
    FirstOutput,
    Launch,
    LaunchContext,
    Limited,
    Program,
    Ready,
    SessionEnded,
    TurnEnded,
    Typed,
    Usage,
    Watch,
    find_program,
)
from orchestrator_lab.agents.claude_screen import own_text, plain
from orchestrator_lab.agents.menu import read_menu
from orchestrator_lab.agents.reading import ScreenReader
from orchestrator_lab.errors import ProgramNotFound
from orchestrator_lab.runtime import write_private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.config import AgentConfig

__all__ = ["ChatAdapter"]

#: Asked for when the configuration names no model; a gateway in script or local mode answers to any name.
_DEFAULT_MODEL = {"anthropic": "claude-haiku-4-5", "openai": "gpt-5-mini"}
#: How the line of help begins that the lab's own program shows below an empty input line.
_HINT = "Write a message"
#: Characters of the input line that are compared: as many as every screen shows.
_COMPARED = 40
_DIALOGS = frozenset({"permission", "trust", "choice", "login", "update", "limit"})
_LOCAL_MODEL = "smollm2-135m"
_DEFAULT_KEY = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
_DEFAULT_BASE = {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}


class ChatAdapter(ScreenReader):
    """The adapter of one chat agent."""

    kind = "chat"
    reports = True
    styled = True
    interrupt_key = "C-c"
    clear_key: str | None = None
    #: No wait: it takes what is pasted and typed strictly in order.
    echo_timeout_s = 0.0
    accept_timeout_s = 3.0
    starts_on_screen = False
    doubt_quiet_s = 2.5
    question_quiet_s = 2.5
    animates = True
    #: The line of help tells the time; measured below 1 % while an answer is awaited, 2 to 4 % while one comes in.
    idle_cpu = 0.1

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:
        """Return this Python running the chat program, which is part of the package, or find the one configured."""
        from orchestrator_lab import __version__

        provider = "anthropic" if getattr(config, "api", "anthropic") == "anthropic" else "openai"
        mode = config.gateway.mode if config.gateway else "none"
        command: list[str] | None = getattr(config, "command", None)
        self.use_rules(None, config.screens)
        if command is not None:
            path = find_program(command[0], environ)
            if path is None:
                raise ProgramNotFound(
                    f"agent {config.name!r}: there is no program {command[0]!r} on the PATH; install it, name its "
                    "path under 'command', or leave 'command' out for the lab's own chat program",
                    agent=config.name,
                    program=command[0],
                )
            return Program((path, *command[1:]), path.rsplit("/", 1)[-1])
        argv = (sys.executable, "-m", "orchestrator_lab.programs.chat")
        return Program(argv, "chat", __version__, None if mode in {"script", "local"} else provider)

    def prepare(self, config: AgentConfig, program: Program, context: LaunchContext) -> Launch:
        """Write the settings file and the role."""
        api = str(getattr(config, "api", "anthropic"))
        gateway = context.gateway_url
        if gateway is not None:
            base_url, key_env = (gateway if api == "anthropic" else f"{gateway}/v1"), None
            named = config.gateway is not None and config.gateway.key_env
            if not named and not context.keyless(config):
                key_env = _DEFAULT_KEY[api]
        else:
            base_url = getattr(config, "base_url", None) or _DEFAULT_BASE[api]
            key_env = getattr(config, "key_env", None) or _DEFAULT_KEY[api]
        role = f" Your role: {config.role}." if config.role else ""
        text = f"You are {config.name}.{role}"
        write_private(context.folder / "role.md", f"{text}\n\n{context.instructions or ''}".strip() + "\n")
        transcript = context.transcripts / f"{config.name}.jsonl"
        model = config.model or _model_behind(config) or _DEFAULT_MODEL[api]
        settings: dict[str, Any] = {
            "name": config.name,
            "api": api,
            "base_url": base_url,
            "model": model,
            "system_file": str(context.folder / "role.md"),
            "max_tokens": getattr(config, "max_tokens", 1024),
            "temperature": getattr(config, "temperature", None),
            "remember_turns": getattr(config, "remember_turns", None),
            "key_env": key_env,
            "hook_url": f"{context.url}/hooks",
            "session_id": context.session_id,
            "transcript_path": str(transcript),
            "resume": context.resume,
        }
        write_private(context.folder / "settings.json", json.dumps(settings, indent=1))
        argv = (*program.argv, "--settings", str(context.folder / "settings.json"))
        return Launch(argv, dict(context.environ), transcript, model)

    def typed(self, text: str) -> Typed:
        """Return the body as it is: the program takes any text that is pasted."""
        return Typed(text, text)

    def hook(self, payload: Mapping[str, Any]) -> list[Evidence]:
        """Read one hook of the chat program."""
        name = payload.get("hook_event_name")
        session = payload.get("session_id")
        if name == "SessionStart":
            return [Ready("hook", session, payload.get("transcript_path"), payload.get("model"))]
        if name == "UserPromptSubmit":
            return [Accepted("hook", str(payload.get("prompt", "")), payload.get("prompt_id"), session)]
        if name == "MessageDisplay":
            return [FirstOutput("hook")]
        if name == "Stop":
            return [
                TurnEnded(
                    "hook",
                    str(payload.get("last_assistant_message") or ""),
                    "completed",
                    payload.get("prompt_id"),
                    usage=_usage(payload.get("usage"), payload.get("model")),
                )
            ]
        if name == "StopFailure":
            error = str(payload.get("error") or "the endpoint failed")
            return [
                TurnEnded(
                    "hook",
                    payload.get("last_assistant_message"),
                    _failure(error, payload.get("error_type")),
                    payload.get("prompt_id"),
                    None if error == "interrupted" else error,
                    _usage(payload.get("usage"), payload.get("model"), whole=False),
                    _limit("hook", error, payload.get("error_type"), payload.get("resets_at")),
                )
            ]
        if name == "Notification" and payload.get("notification_type") == "dialog_opened":
            options = payload.get("options")
            labels = tuple(str(label) for label in options) if isinstance(options, list) else ()
            kind = str(payload.get("kind"))
            subject = str(payload.get("subject") or "")
            tool = payload.get("tool_name")
            return [
                DialogSeen(
                    "hook",
                    kind if kind in _DIALOGS else "unknown",
                    subject,
                    labels,
                    tool=tool if isinstance(tool, str) else None,
                    tool_input=payload.get("tool_input"),
                    cwd=payload.get("cwd") if isinstance(payload.get("cwd"), str) else None,
                )
            ]
        if name == "Notification" and payload.get("notification_type") == "dialog_closed":
            return [DialogClosed("hook")]
        if name == "SessionEnd":
            return [SessionEnded("hook", str(payload.get("reason", "")))]
        return []

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:
        """Find what a rule of the user's own knows: the lab's program has no startup questions."""
        asked = self.question(screen, starting=True, work_dir=str(context.work_dir), ours=context.work_dir_is_ours)
        return [] if asked is None else [asked]

    def composer(self, screen: str, typed: Typed) -> Composer:
        """Read the line that begins with the prompt sign, and those below it."""
        lines = screen.splitlines()
        starts = [index for index, line in enumerate(lines) if plain(line).startswith("›")]
        if not starts:
            return "unknown"
        menu = read_menu(plain("\n".join(lines[starts[-1] + 1 :])))
        if menu is not None and menu.selected is not None:
            return "unknown"  # a question of a program of the user's own: the sign above it is an old prompt's
        first, *others = [own_text(line).strip() for line in lines[starts[-1] :]]
        first = first.removeprefix("›").strip()
        below = [line for line in others if not line.startswith(_HINT)]
        if not first and not any(below):
            return "empty"
        if not typed.text:
            return "other"
        if first.startswith("[pasted"):
            return "holds_text"
        held, wanted = "".join("".join([first, *below]).split())[:_COMPARED], "".join(typed.text.split())
        # Of a long text only the end may be in sight.
        ours = wanted.startswith(held) or (len(held) == _COMPARED and held in wanted) or _alike(wanted[:4000], held)
        return "holds_text" if ours else "other"

    def restored(self, screen: str, prompt: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False: this program never gives a prompt back."""
        return False

    def transcript(self, path: Path, *, prompt: str, since: float) -> list[Evidence]:
        """Settle a prompt from the program's own record."""
        found: list[Evidence] = []
        mine = False
        for record in _records(path):
            message = record.get("message")
            if not isinstance(message, dict):
                message = {}
            if record.get("type") == "user":
                # Of the same words taken twice, the last; what came after them takes nothing back.
                mine = message.get("content") == prompt and _epoch(record.get("timestamp")) >= since - 2.0
                if mine:
                    found = [Accepted("transcript", prompt, _word(record.get("uuid")))]
            elif mine and record.get("type") in ("assistant", "error"):
                mine = False
                failed = record.get("type") == "error" or record.get("outcome") == "error"
                interrupted = record.get("outcome") == "interrupted"
                error = str(record.get("error"))
                limited = _limit("transcript", error, record.get("error_type"), record.get("resets_at"))
                found.append(
                    TurnEnded(
                        "transcript",
                        _text(message.get("content")),
                        "interrupted" if interrupted else "limit" if limited else "error" if failed else "completed",
                        _word(record.get("promptId")),
                        error_message=error if failed else None,
                        usage=_usage(
                            message.get("usage") or record.get("usage"),
                            message.get("model"),
                            whole=not (failed or interrupted),
                        ),
                        limited=limited,
                    )
                )
        return found

    def usage(self, path: Path, *, prompt_id: str | None, prompt: str | None) -> Usage | None:  # noqa: ARG002
        """Return None: the Stop hook carries the tokens."""
        return None

    def resumable(self, path: Path) -> bool:
        """Return True for any record: what it does not hold was never said."""
        return path.exists()

    def turn_over(self, path: Path, prompt_id: str | None) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True: a turn whose end was reported takes no more text."""
        return True

    def watch(self, config: AgentConfig) -> Watch | None:  # noqa: ARG002 - the protocol's signature
        """Return None: the chat program reports."""
        return None


def _failure(error: str, kind: object) -> str:
    if error == "interrupted":
        return "interrupted"
    return "limit" if kind == "usage_limit" else "error"


def _limit(source: str, error: str, kind: object, resets_at: object) -> Limited | None:
    if kind != "usage_limit" or error == "interrupted":
        return None
    return Limited(source, float(resets_at) if isinstance(resets_at, int | float) else None, error)


def _alike(wanted: str, held: str) -> bool:
    """Compare letters and digits: terminals draw the rest each in its own way."""
    ours, theirs = ("".join(char for char in text if char.isalnum()) for text in (wanted, held))
    return bool(theirs) and ours.startswith(theirs)


def _model_behind(config: AgentConfig) -> str | None:
    """Return the name of what answers behind a keyless gateway, so that no pane claims another model."""
    gateway = config.gateway
    if gateway is None or gateway.mode not in {"script", "local"}:
        return None
    return "script" if gateway.mode == "script" else Path(gateway.model or _LOCAL_MODEL).stem


def _usage(usage: object, model: object, *, whole: bool = True) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    read, made = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    parts = [part for part in (usage.get("input_tokens"), read, made) if isinstance(part, int)]
    return Usage(
        sum(parts) if parts else None,
        _count(usage.get("output_tokens")),
        _count(read),
        _count(made),
        str(model) if model else None,
        whole=whole,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _text(content: object) -> str | None:
    """Return the text of an answer's blocks."""
    if not isinstance(content, list):
        return None if content is None else str(content)
    return "".join(str(block.get("text", "")) for block in content if isinstance(block, dict))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def _epoch(stamp: object) -> float:
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return 0.0
