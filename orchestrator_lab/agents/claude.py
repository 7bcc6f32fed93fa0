"""Claude Code: driven by its hooks, its MCP client and its transcript.

Facts measured with 2.1.197 (pinned in ``tests/agents``): a paste in brackets reaches the prompt whole, at any length,
with or without ``-r``; tabs become four spaces; text becomes Unicode NFC; white space at the end is cut, and so is a
closing ``[I`` or ``[O`` (taken for a focus event); a backslash right before Enter makes a newline instead of
submitting; a leading ``/`` opens commands and a leading ``!`` the shell, which a space before them prevents; ``@`` or
``/`` in the last word open a picker that takes the Enter, unless a space follows; a line that is the absolute path of
an image becomes the image, unless the path comes in two pastes; ``exit`` and its like end the program. An Enter that
comes before the paste is in the input line may be lost. ``UserPromptSubmit`` reports the prompt as it was taken.
"""

from __future__ import annotations

import itertools
import json
import re
import time
import unicodedata
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
    Program,
    Queued,
    Ready,
    SessionEnded,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Typed,
    Usage,
    Watch,
    find_program,
)
from orchestrator_lab.agents.claude_screen import box_parts, gave_back, read_composer
from orchestrator_lab.agents.claude_transcript import TranscriptTail, holds_a_prompt
from orchestrator_lab.agents.reading import ScreenReader
from orchestrator_lab.agents.usage_limits import claude_limit
from orchestrator_lab.errors import ProgramNotFound
from orchestrator_lab.runtime import private_dir, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.config import AgentConfig

__all__ = ["MCP_SERVER", "ClaudeAdapter", "installed_version", "project_folder"]

#: Name under which Claude Code knows the lab's tools (``mcp__orchestrator-lab__send_message``).
MCP_SERVER = "orchestrator-lab"

_HTTP_EVENTS = (
    "UserPromptSubmit",
    "MessageDisplay",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PermissionRequest",
    "Notification",
    "Stop",
    "StopFailure",
    "SessionEnd",
)
#: Hooks of a subagent that count: its question stands on the agent's screen.
_ASKING = frozenset({"PermissionRequest", "PostToolUse", "PostToolUseFailure"})
#: Whole bodies that end the program when they are submitted.
_EXIT_WORDS = frozenset({"exit", "quit", ":q", ":q!", ":wq", ":wq!"})
#: What JavaScript's ``trim`` cuts.
_SPACE = " \t\n\v\f\r\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
#: A mention or a command at the end, whose picker would take the Enter.
_PICKER = re.compile(r"(?:^|\s)[@/][^\s]*\Z")
#: The end of a line, or of a part before `` /``, that looks like a path to an image.
_IMAGE_PATH = re.compile(
    r"(?P<stem>\.(?=png|jpe?g|gif|webp|bmp)[a-z]{2})[a-z]{1,2}[\"']?[ \t]*(?=$| /| [A-Za-z]:\\)",
    re.IGNORECASE | re.MULTILINE,
)
#: The transcript's stamps are cut to milliseconds.
_CLOCK_S = 0.002
_DUMMY_KEY = "sk-ant-orchestrator-lab-script-gateway-0000000000"
#: Settings that would lead an agent of a lab gateway to another endpoint.
_OTHER_ENDPOINTS = (
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_MODEL",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_OAUTH_TOKEN",
)


class ClaudeAdapter(ScreenReader):
    """The adapter of one Claude Code agent."""

    kind = "claude"
    reports = True
    styled = True
    interrupt_key = "Escape"
    clear_key: str | None = "C-c"
    echo_timeout_s = 2.0
    accept_timeout_s = 3.0
    starts_on_screen = False
    doubt_quiet_s = 0.5
    question_quiet_s = 2.5
    animates = True
    #: Its spinner takes 5 to 20 % of a core here (2.1.x, measured over a turn without an answer): three times that.
    idle_cpu = 0.6

    def __init__(self) -> None:
        self._tails: dict[Path, TranscriptTail] = {}
        #: What tools were called with -> the call, as long as it has not ended.
        self._called: dict[str, str] = {}

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:
        """Find Claude Code on the agent's PATH."""
        command = getattr(config, "command", ["claude"])
        path = find_program(command[0], environ)
        if path is None:
            raise ProgramNotFound(
                f"agent {config.name!r}: there is no program {command[0]!r} on the PATH; install it with "
                "'npm install -g @anthropic-ai/claude-code' or name its path under 'command'",
                agent=config.name,
                program=command[0],
            )
        version = installed_version(path)
        self.use_rules(version, config.screens)
        return Program((path, *command[1:]), "claude-code", version, "anthropic")

    def prepare(self, config: AgentConfig, program: Program, context: LaunchContext) -> Launch:
        """Write settings, hooks, MCP configuration and the role; seed an isolated folder."""
        environ = dict(context.environ)
        isolated = self.isolated(config, context)
        scripted = context.gateway_url is not None and context.keyless(config)
        if context.gateway_url is not None:
            environ["ANTHROPIC_BASE_URL"] = context.gateway_url
        if scripted:
            for name in _OTHER_ENDPOINTS:
                environ.pop(name, None)
            environ["ANTHROPIC_API_KEY"] = _DUMMY_KEY
            environ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] = "1"
        environ["DISABLE_AUTOUPDATER"] = "1"
        config_dir = Path(environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME", "~")).expanduser() / ".claude")
        if isolated:
            config_dir = private_dir(context.folder / "claude")
            environ["CLAUDE_CONFIG_DIR"] = str(config_dir)
            self._seed(config_dir, context.work_dir, environ.get("ANTHROPIC_API_KEY"), config)
        write_private(context.folder / "settings.json", json.dumps(self._settings(context), indent=1))
        argv = [*program.argv, "--settings", str(context.folder / "settings.json")]
        argv += ["--resume" if context.resume else "--session-id", context.session_id]
        write_private(context.folder / "role.md", self._role(config, context))
        argv += ["--append-system-prompt-file", str(context.folder / "role.md")]
        allowed = list(getattr(config, "allowed_tools", ()))
        if getattr(config, "mcp", True):
            write_private(context.folder / "mcp.json", json.dumps(self._mcp(context), indent=1))
            argv += ["--mcp-config", str(context.folder / "mcp.json")]
            allowed.append(f"mcp__{MCP_SERVER}")
        if config.model:
            argv += ["--model", config.model]
        if config.permission_mode and config.permission_mode != "ask":
            argv += ["--permission-mode", config.permission_mode]
        argv += list(getattr(config, "args", ()))
        if allowed:
            argv += ["--allowedTools", ",".join(allowed)]
        transcript = config_dir / "projects" / project_folder(context.work_dir) / f"{context.session_id}.jsonl"
        return Launch(tuple(argv), environ, transcript, config.model)

    @staticmethod
    def isolated(config: AgentConfig, context: LaunchContext) -> bool:
        """Tell whether the agent gets a seeded configuration folder of its own.

        A gateway that needs no key implies it unless the configuration says ``inherit`` itself: the user's login has
        no business there.
        """
        if "config" in config.model_fields_set:
            return getattr(config, "config", "inherit") == "isolated"
        return context.gateway_url is not None and context.keyless(config)

    @staticmethod
    def _settings(context: LaunchContext) -> dict[str, Any]:
        http = {
            "type": "http",
            "url": f"{context.url}/hooks",
            "headers": {"Authorization": "Bearer $ORCHESTRATOR_LAB_AGENT_TOKEN"},
            "allowedEnvVars": ["ORCHESTRATOR_LAB_AGENT_TOKEN"],
            "timeout": 10,
        }
        hooks: dict[str, Any] = {name: [{"hooks": [http]}] for name in _HTTP_EVENTS}
        # SessionStart takes command hooks only. The file is what counts; the byte in the pipe wakes the supervisor,
        # and opening it for both directions never blocks, even while nobody reads.
        folder = str(context.folder)
        command = (
            f"cat >'{folder}/session.tmp' && mv -f '{folder}/session.tmp' '{folder}/session.json' "
            f"&& printf x 1<>'{folder}/ready.fifo'"
        )
        hooks["SessionStart"] = [{"hooks": [{"type": "command", "command": command, "timeout": 10}]}]
        return {"hooks": hooks}

    @staticmethod
    def _mcp(context: LaunchContext) -> dict[str, Any]:
        return {
            "mcpServers": {
                MCP_SERVER: {
                    "type": "http",
                    "url": f"{context.url}/mcp",
                    "headers": {"Authorization": "Bearer ${ORCHESTRATOR_LAB_AGENT_TOKEN}"},
                }
            }
        }

    @staticmethod
    def _role(config: AgentConfig, context: LaunchContext) -> str:
        tools = (
            f"You write to another agent with the tool mcp__{MCP_SERVER}__send_message(to, text), to all with "
            f"broadcast(text); list_agents() says who is there, read_messages() shows your messages so far. A message "
            "from another agent arrives as a prompt whose first line is 'From NAME (MESSAGE_ID):'. To answer it, call "
            "send_message with in_reply_to set to that id; your final text of a turn is seen only by whoever asked "
            "through the lab, not by other agents."
            if getattr(config, "mcp", True)
            else "A message from another agent arrives as a prompt whose first line is 'From NAME (MESSAGE_ID):'."
        )
        role = f" Your role: {config.role}." if config.role else ""
        about = f"You are the agent '{config.name}' of the cluster '{context.cluster}'.{role} {context.roster} {tools}"
        return f"{about}\n\n{context.instructions}\n" if context.instructions else f"{about}\n"

    @staticmethod
    def _seed(folder: Path, work_dir: Path, key: str | None, config: AgentConfig) -> None:
        place = folder / ".claude.json"
        try:
            seeded = json.loads(place.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            seeded = {"theme": "dark", "numStartups": 1}
        seeded["hasCompletedOnboarding"] = True
        if key:
            seeded["customApiKeyResponses"] = {"approved": [key[-20:]], "rejected": []}
        if config.permission_mode == "bypassPermissions":
            seeded["bypassPermissionsModeAccepted"] = True
        project = seeded.setdefault("projects", {}).setdefault(str(work_dir.resolve()), {})
        project.update(hasTrustDialogAccepted=True, hasCompletedProjectOnboarding=True)
        write_private(place, json.dumps(seeded, indent=1))

    def typed(self, text: str) -> Typed:
        """Return the body as Claude Code takes it; see the module's docstring for the reasons."""
        notes: list[str] = []
        body = unicodedata.normalize("NFC", text)
        if body != text:
            notes.append("letters and their accents are composed (Unicode NFC)")
        if body != body.rstrip(_SPACE):
            body = body.rstrip(_SPACE)
            notes.append("white space at the end is cut")
        if "\t" in body:
            notes.append("tabs become four spaces")
        if body[:1] in {"/", "!"}:
            body = f" {body}"
            notes.append(f"a space before the leading {text[0]!r}")
        if body.strip(_SPACE).casefold() in _EXIT_WORDS:
            body = f"From user:\n{body}"
            notes.append("a first line, since the word alone ends the program")
        if body.endswith(("\\", "[I", "[O")) or _PICKER.search(body):
            body = f"{body} "
            notes.append("a space after the end, which would open a picker or be taken for a key")
        cuts = [found.end("stem") for found in _IMAGE_PATH.finditer(body)]
        if cuts:
            notes.append("in parts, since a path to an image would become the image")
        parts = tuple(body[start:end] for start, end in itertools.pairwise([0, *cuts, len(body)]))
        # A space that was added at the end stays in a text that is shown collapsed, and is cut in any other.
        expected = body.replace("\t", "    ").rstrip(_SPACE)
        return Typed(body, expected, tuple(notes), parts)

    def hook(self, payload: Mapping[str, Any]) -> list[Evidence]:
        """Read one hook of Claude Code."""
        name = payload.get("hook_event_name")
        prompt_id = payload.get("prompt_id")
        session = payload.get("session_id")
        if payload.get("agent_id") and name not in _ASKING:  # a subagent's hook says nothing of the agent's own turn
            return []
        if name == "SessionStart":
            return [Ready("hook", session, payload.get("transcript_path"), payload.get("model"))]
        if name == "UserPromptSubmit":
            return [
                DialogClosed("hook"),
                Accepted("hook", str(payload.get("prompt", "")), prompt_id, session),
            ]
        if name == "MessageDisplay":
            return [FirstOutput("hook")]
        if name == "PreToolUse":
            call = str(payload.get("tool_use_id", ""))
            self._called[_subject(payload)] = call
            return [
                FirstOutput("hook"),
                ToolStarted("hook", call, str(payload.get("tool_name", "")), payload.get("tool_input")),
            ]
        if name in {"PostToolUse", "PostToolUseFailure"}:
            failed = name == "PostToolUseFailure"
            self._called.pop(_subject(payload), None)
            if payload.get("agent_id"):
                return [DialogClosed("hook", _subject(payload), "allow")]
            return [
                DialogClosed("hook", _subject(payload), "allow"),
                ToolEnded(
                    "hook",
                    str(payload.get("tool_use_id", "")),
                    payload.get("tool_response"),
                    "error" if failed else "ok",
                    str(payload.get("error", "")) or None if failed else None,
                ),
            ]
        if name == "PermissionRequest":
            subject = _subject(payload)
            return [
                DialogSeen(
                    "hook",
                    "permission",
                    subject,
                    tool=str(payload.get("tool_name", "")),
                    tool_input=payload.get("tool_input"),
                    cwd=payload.get("cwd") if isinstance(payload.get("cwd"), str) else None,
                    tool_call_id=None if payload.get("agent_id") else self._called.get(subject),
                    by_hook=True,
                )
            ]
        if name == "Stop":
            reply = payload.get("last_assistant_message")
            self._called.clear()
            return [
                DialogClosed("hook"),
                TurnEnded("hook", reply if isinstance(reply, str) else None, "completed", prompt_id),
            ]
        if name == "StopFailure":
            kind = str(payload.get("error") or payload.get("error_type") or "unknown")
            text = str(payload.get("last_assistant_message") or "API error")
            error = text if kind == "unknown" else f"{text} ({kind})"
            limited = claude_limit("hook", text, kind, None, time.time())
            reason = "error" if limited is None else "limit"
            return [DialogClosed("hook"), TurnEnded("hook", None, reason, prompt_id, error, limited=limited)]
        if name == "Notification" and payload.get("notification_type") == "idle_prompt":
            return [TurnEnded("hook", None, "unknown", prompt_id)]
        if name == "SessionEnd":
            return [SessionEnded("hook", str(payload.get("reason", "")))]
        return []

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:
        """Recognise the questions that Claude Code asks before any hook fires."""
        asked = self.question(screen, starting=True, work_dir=str(context.work_dir), ours=context.work_dir_is_ours)
        return [] if asked is None else [asked]

    def parts(self, screen: str) -> Mapping[str, str]:
        """Return the input box, and what stands below it."""
        return box_parts(screen, self.screens)

    def permission_reply(self, decision: str, reason: str) -> dict[str, Any] | None:
        """Return the decision in the form that Claude Code takes from a ``PermissionRequest`` hook."""
        made = {"behavior": "allow"} if decision == "allow" else {"behavior": "deny", "message": reason}
        return {"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": made}}

    def composer(self, screen: str, typed: Typed) -> Composer:
        """Read the input box, styles and all where the screen has them."""
        return read_composer(screen, typed.text, self.screens)

    def restored(self, screen: str, prompt: str) -> bool:
        """Tell whether an interrupt before any output gave the prompt back, which leaves no record."""
        return gave_back(screen, prompt, self.screens)

    def transcript(self, path: Path, *, prompt: str, since: float) -> list[Evidence]:
        """Settle a prompt from the session's record."""
        tail = self._tail(path)
        since -= _CLOCK_S
        turn = tail.find(prompt_id=None, prompt=prompt, since=since)
        if turn is None:
            joined = tail.find_joined(prompt, since)
            if joined is not None:
                return [Accepted("transcript", prompt, joined.prompt_id, joined=True)]
            return [Queued("transcript", prompt)] if tail.is_queued(prompt, since) else []
        found: list[Evidence] = [Accepted("transcript", turn.prompt, turn.prompt_id)]
        found += [Accepted("transcript", text, turn.prompt_id, joined=True) for text in turn.joined]
        if turn.ended:
            limited = (
                claude_limit("transcript", turn.error, turn.error_kind, turn.error_status, turn.error_at)
                if turn.error
                else None
            )
            failed = "limit" if limited is not None else "error"
            reason = "interrupted" if turn.interrupted else failed if turn.error else "completed"
            found.append(TurnEnded("transcript", turn.reply, reason, turn.prompt_id, turn.error, turn.total(), limited))
        return found

    def usage(self, path: Path, *, prompt_id: str | None, prompt: str | None) -> Usage | None:
        """Return the tokens of one turn from the session's record."""
        turn = self._tail(path).find(prompt_id=prompt_id, prompt=prompt, since=time.time() - 86400)
        return None if turn is None else turn.total()

    def version(self, path: Path) -> str | None:
        """Return the program's version as its transcript tells it."""
        return self._tail(path).version

    def resumable(self, path: Path) -> bool:
        """Tell whether the record holds a prompt: in one without, Claude Code 2.1 finds no conversation, and ends."""
        return holds_a_prompt(path)

    def turn_over(self, path: Path, prompt_id: str | None) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True: a turn whose end was reported takes no more text."""
        return True

    def watch(self, config: AgentConfig) -> Watch | None:  # noqa: ARG002 - the protocol's signature
        """Return None: Claude Code reports."""
        return None

    def _tail(self, path: Path) -> TranscriptTail:
        tail = self._tails.setdefault(path, TranscriptTail(path))
        tail.read()
        return tail


def _subject(payload: Mapping[str, Any]) -> str:
    """Return what a permission is asked for: the tool and its input."""
    return f"{payload.get('tool_name', 'a tool')} {json.dumps(payload.get('tool_input'), ensure_ascii=False)}"


def installed_version(path: str) -> str | None:
    """Return the version of an installed Claude Code without starting it.

    Parameters
    ----------
    path : str
        The command.

    Returns
    -------
    str or None
        What its npm package says, or the name of the native installer's file; None for anything else (a wrapper).

    Examples
    --------
    >>> installed_version("/bin/sh") is None
    True
    """
    real = Path(path).resolve()
    for folder in (real.parent, real.parent.parent):
        try:
            package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(package, dict) and str(package.get("name", "")).startswith("@anthropic-ai/claude-code"):
            return str(package.get("version")) or None
    return real.name if re.fullmatch(r"\d+\.\d+\.\d+\S*", real.name) else None


def project_folder(work_dir: Path) -> str:
    """Return the name that Claude Code gives to a work folder's transcripts.

    Parameters
    ----------
    work_dir : Path
        The folder in which the program runs.

    Returns
    -------
    str
        The real path with every character but letters and digits replaced by ``-``.

    Examples
    --------
    >>> project_folder(Path("/no/such.place"))
    '-no-such-place'
    """
    return re.sub(r"[^A-Za-z0-9]", "-", str(work_dir.resolve()))
