"""Codex: driven by its command hooks, its MCP client, its screen and its rollout.

Facts measured with 0.169.0 (pinned in ``tests/agents``): a paste in brackets and an Enter at any distance reach the
prompt whole, at any length (100 kB take a second); white space at both ends is cut; a leading ``/`` opens commands and
a leading ``!`` the shell, which a space before them prevents; the path of an image, alone, becomes the image. Hooks are
commands only, and a turn waits for each of them; ``SessionStart`` comes with the first prompt and not at the start, so
readiness is the composer on the screen. An interrupt and an error of the endpoint fire no hook: the rollout tells them.

Hooks run only when their content is trusted. The lab asks the program itself for the hash of its own hooks
(``hooks/list`` of ``codex app-server``, in an empty folder, 0.2 s, once for each version) and names exactly these as
trusted for this one start (``-c hooks.state=…``). No hook of the user or of a project is trusted by it, no file of the
user's is changed, and the flag that lets any hook run is never used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import subprocess
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from orchestrator_lab.agents.codex_rollout import RecordedTurn, RolloutTail
from orchestrator_lab.agents.codex_screen import composer_lines, has_footer, is_early, read_composer
from orchestrator_lab.agents.menu import read_menu
from orchestrator_lab.agents.reading import ScreenReader
from orchestrator_lab.errors import AgentFailed, ConfigError, ProgramNotFound
from orchestrator_lab.runtime import private_dir, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.config import AgentConfig

__all__ = ["MCP_SERVER", "CodexAdapter", "ask_hooks", "package_version", "to_toml"]

logger = logging.getLogger(__name__)

#: Name under which Codex knows the lab's tools (it writes the names as ``mcp__orchestrator_lab__send_message``).
MCP_SERVER = "orchestrator-lab"
#: Name under which it knows the lab's gateway.
_PROVIDER = "orchestrator-lab"
_EVENTS = ("SessionStart", "UserPromptSubmit", "PreToolUse", "PermissionRequest", "PostToolUse", "Stop")
#: One command for all hooks of all agents, so that one answer about its trust does for all. It leaves the report as a
#: file under a name that tells its place in the order, and wakes the supervisor; a report is whole or not there, and
#: waits while nobody reads. (Where `date` knows no nanoseconds, the file's own time tells the order.)
_HOOK = (
    'd="$ORCHESTRATOR_LAB_AGENT_HOOKS"; n="$(date +%s%N)-$$"; '
    'umask 077; cat >"$d/.$n" && mv "$d/.$n" "$d/$n.json" && printf x 1<>"$d/wake"'
)
_HOOK_TIMEOUT_S = 30
_ASK_TIMEOUT_S = 20.0
#: Longest role text that is passed on the command line (Linux takes 128 KiB in one argument).
_LONGEST_ROLE = 100_000
_DUMMY_KEY = "orchestrator-lab-script-gateway"
_DUMMY_KEY_NAME = "ORCHESTRATOR_LAB_AGENT_KEY"
_GATEWAY_NAME = "ORCHESTRATOR_LAB_AGENT_GATEWAY"
#: Asked for when the configuration names no model; a gateway in script or local mode answers to any name.
_DEFAULT_MODEL = "gpt-5-codex"
#: permission_mode -> when it asks, and what its sandbox lets it do.
_PERMISSIONS = {
    "ask": ("on-request", "workspace-write"),
    "readOnly": ("on-request", "read-only"),
    "dontAsk": ("never", "workspace-write"),
    "bypassPermissions": ("never", "danger-full-access"),
}
#: A mention at the end, whose picker would take the Enter.
_PICKER = re.compile(r"(?:^|\s)[@$][^\s]*\Z")
_IMAGE = re.compile(r"[\"']?\S[^\n]*\.(?:png|jpe?g|gif|webp|bmp)[\"']?", re.IGNORECASE)
#: A composer without the usual line below it is believed when it has stood this long, in seconds.
_SETTLED_S = 1.0
_READY_COMPOSER = frozenset({"empty", "other", "holds_text"})


@dataclass(frozen=True, slots=True)
class HookTrust:
    """What Codex says of the lab's hooks.

    Parameters
    ----------
    version : str or None
        Codex's own version.
    hashes : tuple of (str, str)
        The hooks' keys and the hashes of their content.
    """

    version: str | None
    hashes: tuple[tuple[str, str], ...]


_TRUST: dict[tuple[str, int, int], HookTrust] = {}


class CodexAdapter(ScreenReader):
    """The adapter of one Codex agent."""

    kind = "codex"
    reports = True
    styled = True
    #: Its start is animated, so that its screen is read while it writes; and its screen says that it is ready.
    starts_on_screen = True
    #: Quiet after which a running turn is looked up in the rollout, in seconds: an interrupt fires no hook.
    doubt_quiet_s = 0.4
    question_quiet_s = 0.4
    animates = True
    #: Its spinner takes 2 to 5 % of a core here (0.169, measured over a turn without an answer).
    idle_cpu = 0.2
    interrupt_key = "Escape"
    clear_key: str | None = None
    echo_timeout_s = 2.0
    accept_timeout_s = 3.0

    def __init__(self) -> None:
        self._tails: dict[Path, RolloutTail] = {}
        self._transcript: Path | None = None
        #: Since when a composer stands on the screen of a start.
        self._drawn: float | None = None
        #: Tool calls that hooks told of -> whether their end was told too.
        self._calls: dict[str, bool] = {}

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:
        """Find Codex on the agent's PATH."""
        command = getattr(config, "command", ["codex"])
        path = find_program(command[0], environ)
        if path is None:
            raise ProgramNotFound(
                f"agent {config.name!r}: there is no program {command[0]!r} on the PATH; install it with "
                "'npm install -g @openai/codex' or name its path under 'command'",
                agent=config.name,
                program=command[0],
            )
        mode = config.gateway.mode if config.gateway else "none"
        provider = None if mode in {"script", "local"} else "openai"
        version = package_version(Path(path))
        self.use_rules(version, config.screens)
        return Program((path, *command[1:]), "codex", version, provider)

    def prepare(self, config: AgentConfig, program: Program, context: LaunchContext) -> Launch:
        """Write the configuration of an isolated agent, or the overrides of one that inherits."""
        environ = dict(context.environ)
        isolated = self.isolated(config, context)
        environ["ORCHESTRATOR_LAB_AGENT_HOOKS"] = str(hooks_folder(context.folder))
        home = Path(environ.get("CODEX_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".codex")
        settings = self._settings(config, context, environ, isolated=isolated)
        role = self._role(config, context)
        write_private(context.folder / "role.md", role)
        argv = [*program.argv, *(("resume", context.session_id) if context.resume else ()), "--no-daemon"]
        if isolated:
            home = private_dir(context.folder / "codex")
            environ["CODEX_HOME"] = str(home)
            write_private(home / "config.toml", to_toml({**settings, "developer_instructions": role}))
        else:
            settings["developer_instructions"] = self._joined_role(home, role, config)
            for key, value in settings.items():
                argv += ["-c", f"{key}={_value(value)}"]
        argv += self._hooks(program, environ, config)
        if config.model:
            argv += ["--model", config.model]
        if config.permission_mode or isolated:
            # By flags, since a resumed session has settings of its own that a file does not change.
            ask, sandbox = _PERMISSIONS[config.permission_mode or "ask"]
            argv += ["--ask-for-approval", ask, "--sandbox", sandbox]
        argv += list(getattr(config, "args", ()))
        transcript = _rollout(home, context.session_id) if context.resume else None
        self._transcript = transcript
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

    def _settings(
        self, config: AgentConfig, context: LaunchContext, environ: dict[str, str], *, isolated: bool
    ) -> dict[str, Any]:
        """Return the settings that are the lab's; their keys are paths with dots."""
        settings: dict[str, Any] = {"check_for_update_on_startup": False}
        if context.gateway_url is not None:
            keyless = context.keyless(config)
            provider: dict[str, Any] = {"name": "Orchestrator Lab's gateway", "wire_api": "responses"}
            base, _, secret = context.gateway_url.rpartition("/")
            # The unguessable part of the address travels in a header, since overrides stand on the command line.
            environ[_GATEWAY_NAME] = secret
            provider["base_url"] = f"{base}/by-header/v1"
            provider["env_http_headers"] = {"x-orchestrator-lab-gateway": _GATEWAY_NAME}
            named = config.gateway.key_env if config.gateway else None
            if keyless or named:
                environ[_DUMMY_KEY_NAME] = _DUMMY_KEY
                provider["env_key"] = _DUMMY_KEY_NAME
            elif isolated and environ.get("OPENAI_API_KEY"):
                provider["env_key"] = "OPENAI_API_KEY"
            else:
                provider["requires_openai_auth"] = True
            settings["model_provider"] = _PROVIDER
            settings[f"model_providers.{_PROVIDER}"] = provider
            if keyless:
                settings["model"] = config.model or _DEFAULT_MODEL
                settings["analytics.enabled"] = False
        if isolated or context.work_dir_is_ours:
            settings["projects"] = {str(context.work_dir.resolve()): {"trust_level": "trusted"}}
        if getattr(config, "mcp", True):
            settings[f"mcp_servers.{MCP_SERVER}"] = {
                "url": f"{context.url}/mcp",
                "bearer_token_env_var": "ORCHESTRATOR_LAB_AGENT_TOKEN",
                "default_tools_approval_mode": "approve",
            }
        return settings

    @staticmethod
    def _hooks(program: Program, environ: Mapping[str, str], config: AgentConfig) -> list[str]:
        hook = {"type": "command", "command": _HOOK, "timeout": _HOOK_TIMEOUT_S}
        flags = [word for name in _EVENTS for word in ("-c", f"hooks.{name}={_value([{'hooks': [hook]}])}")]
        trust = ask_hooks(program.argv, flags, environ, agent=config.name)
        state = {key: {"trusted_hash": digest} for key, digest in trust.hashes}
        return [*flags, "-c", f"hooks.state={_value(state)}"]

    @staticmethod
    def _joined_role(home: Path, role: str, config: AgentConfig) -> str:
        """Return the role below the user's own developer instructions, which an override would replace."""
        own = None
        with contextlib.suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            own = tomllib.loads((home / "config.toml").read_text(encoding="utf-8")).get("developer_instructions")
        text = f"{own}\n\n{role}" if isinstance(own, str) and own.strip() else role
        if len(text.encode()) > _LONGEST_ROLE:
            raise ConfigError(
                f"agent {config.name!r}: its instructions are longer than {_LONGEST_ROLE} bytes, which Codex cannot "
                "be given with 'config: inherit'; shorten them, or set 'config: isolated'",
                agent=config.name,
            )
        return text

    @staticmethod
    def _role(config: AgentConfig, context: LaunchContext) -> str:
        arrives = "A message from another agent arrives as a prompt whose first line is 'From NAME (MESSAGE_ID):'."
        tools = (
            f"You write to another agent with the tool send_message(to, text) of the MCP server {MCP_SERVER}, to all "
            "with broadcast(text); list_agents() says who is there, read_messages() shows your messages so far. "
            f"{arrives} To answer it, call send_message with in_reply_to set to that id; your final text of a turn is "
            "seen only by whoever asked through the lab, not by other agents."
            if getattr(config, "mcp", True)
            else arrives
        )
        role = f" Your role: {config.role}." if config.role else ""
        about = f"You are the agent '{config.name}' of the cluster '{context.cluster}'.{role} {context.roster} {tools}"
        return f"{about}\n\n{context.instructions}\n" if context.instructions else f"{about}\n"

    def typed(self, text: str) -> Typed:
        """Return the body as Codex takes it; see the module's docstring for the reasons."""
        notes: list[str] = []
        body = text.lstrip()
        if body[:1] in {"/", "!"}:
            notes.append(f"a space before the leading {body[0]!r}")
            body = f" {body}"
        if _PICKER.search(body):
            notes.append("a space after the end, which would open a picker")
            body = f"{body} "
        parts: tuple[str, ...] = ()
        if _IMAGE.fullmatch(body.strip()):
            notes.append("in parts, since a path to an image would become the image")
            parts = (body[: len(body) // 2], body[len(body) // 2 :])
        if text.strip() != text:
            notes.append("white space at both ends is cut")
        return Typed(body, text.strip(), tuple(notes), parts)

    def hook(self, payload: Mapping[str, Any]) -> list[Evidence]:
        """Read one hook of Codex."""
        if payload.get("agent_id") or payload.get("parent_turn_id"):  # a subagent's, not the agent's own turn
            return []
        name, turn = payload.get("hook_event_name"), payload.get("turn_id")
        turn_id = turn if isinstance(turn, str) else None
        if isinstance(payload.get("transcript_path"), str):
            self._transcript = Path(payload["transcript_path"])
        if name == "SessionStart":
            return [Ready("hook", payload.get("session_id"), payload.get("transcript_path"), payload.get("model"))]
        if name == "UserPromptSubmit":
            prompt = str(payload.get("prompt", ""))
            return [DialogClosed("hook"), Accepted("hook", prompt, turn_id, payload.get("session_id"))]
        call, tool = str(payload.get("tool_use_id", "")), str(payload.get("tool_name", ""))
        if name == "PreToolUse":
            self._calls[call] = False
            return [FirstOutput("hook"), ToolStarted("hook", call, tool, payload.get("tool_input"))]
        if name == "PostToolUse":
            self._calls[call] = True
            answer = payload.get("tool_response")
            failed = bool(answer.get("isError")) if isinstance(answer, dict) else self._failed(turn_id, call)
            return [DialogClosed("hook"), ToolEnded("hook", call, answer, "error" if failed else "ok")]
        if name == "PermissionRequest":
            asked = json.dumps(payload.get("tool_input"), ensure_ascii=False)
            cwd = payload.get("cwd") if isinstance(payload.get("cwd"), str) else None
            subject = f"{tool or 'a tool'} {asked}"
            return [
                DialogSeen(
                    "hook", "permission", subject, tool=tool or None, tool_input=payload.get("tool_input"), cwd=cwd
                )
            ]
        if name == "Stop":
            reply = payload.get("last_assistant_message")
            text = reply if isinstance(reply, str) else None
            return [DialogClosed("hook"), *self._untold(turn_id), TurnEnded("hook", text, "completed", turn_id)]
        if name == "SessionEnd":
            return [SessionEnded("hook", str(payload.get("reason", "")))]
        return []

    def _failed(self, turn_id: str | None, call_id: str) -> bool:
        """Tell whether a command failed: its hook does not say, and the rollout does, a little earlier."""
        if self._transcript is None or turn_id is None:
            return False
        turn = self._tail(self._transcript).find(turn_id=turn_id, prompt=None)
        call = turn.calls.get(call_id) if turn is not None else None
        return call is not None and call.failed

    def _untold(self, turn_id: str | None) -> list[Evidence]:
        """Return the tool calls, and their ends, that fired no hook: refused ones, and tools without hooks."""
        if self._transcript is None:
            return []
        turn = self._tail(self._transcript).find(turn_id=turn_id, prompt=None)
        found: list[Evidence] = []
        for call in turn.calls.values() if turn is not None and turn_id is not None else ():
            if call.call_id not in self._calls:
                found.append(ToolStarted("transcript", call.call_id, call.name, call.input))
            if call.ended and not self._calls.get(call.call_id):
                status: Literal["ok", "error", "denied"]
                status = "error" if call.failed else "denied" if _refused(call.output) else "ok"
                message = str(call.output) if status != "ok" else None
                found.append(ToolEnded("transcript", call.call_id, call.output, status, message))
        self._calls.clear()
        return found

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:
        """Find the composer, or a question that Codex asks before it."""
        if is_early(screen, self.screens):
            return []
        if read_composer(screen, "", self.screens) in _READY_COMPOSER:
            # One with a line of the user's own below it is not known so well.
            now = time.monotonic()
            self._drawn = self._drawn or now
            settled = has_footer(screen, self.screens) or now - self._drawn >= _SETTLED_S
            return [Ready("screen")] if settled else []
        self._drawn = None
        asked = self.question(screen, starting=True, work_dir=str(context.work_dir), ours=context.work_dir_is_ours)
        return [] if asked is None else [asked]

    def question(
        self, screen: str, *, starting: bool = False, work_dir: str = "", ours: bool = False
    ) -> DialogSeen | None:
        """Return the question that stands in the composer's place, also one that no rule knows."""
        if composer_lines(screen, self.screens) is not None or read_menu(screen) is None:
            return None
        known = super().question(screen, starting=starting, work_dir=work_dir, ours=ours)
        return known or self.unknown(screen)

    def parts(self, screen: str) -> Mapping[str, str]:
        """Return what stands in the composer."""
        lines = composer_lines(screen, self.screens)
        return {} if lines is None else {"input": "\n".join(lines)}

    def composer(self, screen: str, typed: Typed) -> Composer:
        """Read the composer, styles and all where the screen has them."""
        return read_composer(screen, typed.text, self.screens)

    def restored(self, screen: str, prompt: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False: Codex keeps the prompt of an interrupted turn."""
        return False

    def transcript(self, path: Path, *, prompt: str, since: float) -> list[Evidence]:
        """Settle a prompt from the rollout."""
        turn = self._tail(path).find(turn_id=None, prompt=prompt, since=since - 2.0)
        if turn is None:
            return []
        found: list[Evidence] = [
            Accepted("transcript", text, turn.turn_id, joined=place > 0) for place, text in enumerate(turn.prompts)
        ]
        if turn.ended:
            found.append(_end(turn))
        return found

    def usage(self, path: Path, *, prompt_id: str | None, prompt: str | None) -> Usage | None:
        """Return the tokens of one turn from the rollout."""
        turn = self._tail(path).find(turn_id=prompt_id, prompt=prompt, since=time.time() - 86400)
        return None if turn is None else turn.total()

    def resumable(self, path: Path) -> bool:
        """Return True for any rollout, also one that was cut off in the middle (0.169)."""
        return path.exists()

    def turn_over(self, path: Path, prompt_id: str | None) -> bool:
        """Tell whether a turn is closed in the rollout, which it is a moment after its Stop hook.

        Until then Codex takes a text into the turn, and goes on with it. A turn that the rollout does not know is over.
        """
        turn = self._tail(path).find(turn_id=prompt_id, prompt=None) if prompt_id is not None else None
        return turn is None or turn.ended

    def version(self, path: Path) -> str | None:
        """Return the program's version as its rollout tells it."""
        return self._tail(path).version

    def watch(self, config: AgentConfig) -> Watch | None:  # noqa: ARG002 - the protocol's signature
        """Return None: Codex reports."""
        return None

    def _tail(self, path: Path) -> RolloutTail:
        tail = self._tails.setdefault(path, RolloutTail(path))
        tail.read()
        return tail


def _end(turn: RecordedTurn) -> TurnEnded:
    return TurnEnded(
        "transcript", turn.reply, turn.reason, turn.turn_id, turn.error, turn.total(), limited=turn.limited
    )


def _refused(output: object) -> bool:
    return isinstance(output, str) and bool(re.search(r"rejected by user|reject command|user cancelled", output))


def hooks_folder(folder: Path) -> Path:
    """Return where an agent's command hooks leave their reports, with the way to its supervisor's pipe.

    Parameters
    ----------
    folder : Path
        The agent's own folder.

    Returns
    -------
    Path
        ``hooks`` in it; ``hooks/wake`` is the pipe ``ready.fifo`` of the folder.
    """
    place = private_dir(folder / "hooks")
    with contextlib.suppress(FileExistsError):
        (place / "wake").symlink_to(folder / "ready.fifo")
    return place


def _rollout(home: Path, session_id: str) -> Path | None:
    """Return the rollout of a session; one that is resumed keeps its file."""
    return next(iter(sorted((home / "sessions").glob(f"*/*/*/rollout-*-{session_id}.jsonl"))), None)


def package_version(path: Path) -> str | None:
    """Return the version that the npm package of a command names, None when it is no npm package.

    Parameters
    ----------
    path : Path
        The command.

    Examples
    --------
    >>> package_version(Path("/bin/sh")) is None
    True
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        package = json.loads((path.resolve().parent.parent / "package.json").read_text(encoding="utf-8"))
        if package["name"] == "@openai/codex":
            return str(package["version"])
    return None


def ask_hooks(argv: tuple[str, ...], flags: list[str], environ: Mapping[str, str], *, agent: str) -> HookTrust:
    """Ask Codex itself under which keys and hashes it knows the lab's hooks.

    Parameters
    ----------
    argv : tuple of str
        How to call Codex.
    flags : list of str
        The overrides that declare the hooks.
    environ : Mapping
        The agent's environment.
    agent : str
        Whose start it is, for errors.

    Returns
    -------
    HookTrust
        Kept for as long as the program's file is the same.

    Raises
    ------
    AgentFailed
        When the program does not tell.
    """
    file = Path(argv[0]).resolve()
    facts = file.stat()
    key = (str(file), facts.st_mtime_ns, facts.st_size)
    if key in _TRUST:
        return _TRUST[key]
    with tempfile.TemporaryDirectory(prefix="olab-codex-", ignore_cleanup_errors=True) as home:
        # An empty folder: nothing of the user's is read or written for this.
        result = _converse(argv, flags, {**environ, "CODEX_HOME": home}, home)
    listed = [hook for one in result.get("data", ()) for hook in one.get("hooks", ()) if hook.get("command") == _HOOK]
    hashes = tuple((str(hook["key"]), str(hook["currentHash"])) for hook in listed if hook.get("currentHash"))
    if len(hashes) != len(_EVENTS):
        raise AgentFailed(
            f"agent {agent!r}: {argv[0]} does not tell how its hooks are trusted ({len(hashes)} of {len(_EVENTS)} "
            "hooks listed); the lab needs Codex 0.169 or newer: npm install -g @openai/codex",
            agent=agent,
        )
    _TRUST[key] = HookTrust(result.get("version"), hashes)
    return _TRUST[key]


def _converse(argv: tuple[str, ...], flags: list[str], environ: Mapping[str, str], cwd: str) -> dict[str, Any]:
    """Return the answer of ``hooks/list``; empty when there is none in time."""
    requests: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": {"clientInfo": {"name": "orchestrator-lab", "version": "1"}}},
        {"method": "initialized"},
        {"id": 2, "method": "hooks/list", "params": {"cwds": [cwd]}},
    ]
    try:
        process = subprocess.Popen(
            [*argv, "app-server", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as problem:
        logger.warning("%s cannot be asked about its hooks: %s", argv[0], problem)
        return {}
    with process:
        try:
            if process.stdin is None or process.stdout is None:
                return {}
            process.stdin.write(b"".join(json.dumps(one).encode() + b"\n" for one in requests))
            process.stdin.flush()
            return _answer(process.stdout.fileno(), time.monotonic() + _ASK_TIMEOUT_S)
        except OSError as problem:
            logger.warning("%s did not answer about its hooks: %s", argv[0], problem)
            return {}
        finally:
            with contextlib.suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


def _answer(descriptor: int, deadline: float) -> dict[str, Any]:
    """Read lines until the answer with id 2 comes."""
    found: dict[str, Any] = {}
    buffer = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        piece = os.read(descriptor, 65536) if ready else b""
        if not piece:
            break
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            result = message.get("result") if isinstance(message, dict) else None
            if not isinstance(result, dict):
                continue
            if message.get("id") == 1:
                agent = re.search(r"/(\d+\.\d+\.\d+\S*)", str(result.get("userAgent", "")))
                found["version"] = agent[1] if agent else None
            if message.get("id") == 2:
                return {**found, **result}
    return found


# TOML ---------------------------------------------------------------------------------------------


def _value(value: object) -> str:
    """Return a value in TOML's inline form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(part) for part in value) + "]"
    # JSON's strings are TOML's, but for DEL and for what is no character.
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def to_toml(settings: Mapping[str, Any]) -> str:
    r"""Return settings as a TOML document.

    Parameters
    ----------
    settings : Mapping
        Paths with dots, and their values.

    Returns
    -------
    str
        One line for each.

    Examples
    --------
    >>> print(to_toml({"model": "m", "projects": {"/w": {"trust_level": "trusted"}}}), end="")
    model = "m"
    projects = {"/w" = {trust_level = "trusted"}}
    """
    return "".join(f"{key} = {_value(value)}\n" for key, value in settings.items())
