"""The lab's own chat program: it reports over the same hooks as Claude Code, and keeps a transcript."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import (
    Accepted,
    Composer,
    Evidence,
    FirstOutput,
    Launch,
    LaunchContext,
    Program,
    Ready,
    SessionEnded,
    TurnEnded,
    Typed,
    Usage,
    Watch,
)
from orchestrator_lab.runtime import write_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator_lab.config import AgentConfig

__all__ = ["ChatAdapter"]

#: Asked for when the configuration names no model; a gateway in script or local mode answers to any name.
_DEFAULT_MODEL = {"anthropic": "claude-haiku-4-5", "openai": "gpt-5-mini"}
_DEFAULT_KEY = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
_DEFAULT_BASE = {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}


class ChatAdapter:
    """The adapter of one chat agent."""

    kind = "chat"
    reports = True
    queues_input = True
    styled = False
    interrupt_key = "C-c"
    echo_timeout_s = 0.4
    accept_timeout_s = 3.0

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:
        """Return this Python running the chat program; it is part of the package."""
        del environ
        from orchestrator_lab import __version__

        provider = "anthropic" if getattr(config, "api", "anthropic") == "anthropic" else "openai"
        mode = config.gateway.mode if config.gateway else "none"
        argv = (sys.executable, "-m", "orchestrator_lab.programs.chat")
        return Program(argv, "chat", __version__, None if mode in {"script", "local"} else provider)

    def prepare(self, config: AgentConfig, program: Program, context: LaunchContext) -> Launch:
        """Write the settings file and the role."""
        api = str(getattr(config, "api", "anthropic"))
        gateway = context.gateway_url
        if gateway is not None:
            base_url, key_env = (gateway if api == "anthropic" else f"{gateway}/v1"), None
            if config.gateway is not None and config.gateway.mode == "upstream" and not config.gateway.key_env:
                key_env = _DEFAULT_KEY[api]
        else:
            base_url = getattr(config, "base_url", None) or _DEFAULT_BASE[api]
            key_env = getattr(config, "key_env", None) or _DEFAULT_KEY[api]
        role = f" Your role: {config.role}." if config.role else ""
        text = f"You are {config.name}.{role}"
        write_private(context.folder / "role.md", f"{text}\n\n{context.instructions or ''}".strip() + "\n")
        transcript = context.transcripts / f"{config.name}.jsonl"
        model = config.model or _DEFAULT_MODEL[api]
        settings: dict[str, Any] = {
            "name": config.name,
            "api": api,
            "base_url": base_url,
            "model": model,
            "system_file": str(context.folder / "role.md"),
            "max_tokens": getattr(config, "max_tokens", 1024),
            "temperature": getattr(config, "temperature", None),
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
                    "interrupted" if error == "interrupted" else "error",
                    payload.get("prompt_id"),
                    None if error == "interrupted" else error,
                    _usage(payload.get("usage"), payload.get("model")),
                )
            ]
        if name == "SessionEnd":
            return [SessionEnded("hook", str(payload.get("reason", "")))]
        return []

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:  # noqa: ARG002 - the protocol's
        """Ask nothing: the chat program has no startup questions."""
        return []

    def composer(self, screen: str, typed: Typed) -> Composer:
        """Read the lines after the last prompt sign."""
        lines = screen.splitlines()
        starts = [index for index, line in enumerate(lines) if line.lstrip().startswith("›")]
        if not starts:
            return "unknown"
        held = lines[starts[-1]].lstrip()[1:].strip()
        wanted = next((line.strip() for line in typed.text.splitlines() if line.strip()), "")
        if held.startswith("[pasted") or (held and wanted.startswith(held[:40])):
            return "holds_text"
        return "other" if held else "empty"

    def transcript(self, path: Path, *, prompt: str, since: float) -> list[Evidence]:
        """Settle a prompt from the program's own record."""
        found: list[Evidence] = []
        for record in _records(path):
            message = record.get("message") or {}
            if record.get("type") == "user":
                matches = message.get("content") == prompt and _epoch(record.get("timestamp")) >= since - 2.0
                found = [Accepted("transcript", prompt)] if matches else found[:0]
            elif len(found) == 1 and record.get("type") in {"assistant", "error"}:
                failed = record.get("type") == "error" or record.get("outcome") == "error"
                interrupted = record.get("outcome") == "interrupted"
                found.append(
                    TurnEnded(
                        "transcript",
                        _text(message.get("content")),
                        "interrupted" if interrupted else "error" if failed else "completed",
                        error_message=str(record.get("error")) if failed else None,
                        usage=_usage(message.get("usage") or record.get("usage"), message.get("model")),
                    )
                )
        return found

    def usage(self, path: Path, *, prompt_id: str | None, prompt: str | None) -> Usage | None:  # noqa: ARG002
        """Return None: the Stop hook carries the tokens."""
        return None

    def watch(self, config: AgentConfig) -> Watch | None:  # noqa: ARG002 - the protocol's signature
        """Return None: the chat program reports."""
        return None


def _usage(usage: object, model: object) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    read, made = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    parts = [part for part in (usage.get("input_tokens"), read, made) if isinstance(part, int)]
    return Usage(
        sum(parts) if parts else None,
        usage.get("output_tokens"),
        read,
        made,
        str(model) if model else None,
    )


def _text(content: object) -> str | None:
    """Return the text of an answer's blocks."""
    if not isinstance(content, list):
        return None if content is None else str(content)
    return "".join(str(block.get("text", "")) for block in content if isinstance(block, dict))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
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
