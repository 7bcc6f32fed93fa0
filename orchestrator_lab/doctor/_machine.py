"""Checks of the machine and of the agents' programs. Each looks and changes nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.doctor._findings import Finding, Level
from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.runtime import LONGEST_SOCKET_PATH, runtime_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "check_agents",
    "check_claude_login",
    "check_claude_settings",
    "check_disk",
    "check_local_model",
    "check_locale",
    "check_loopback",
    "check_python",
    "check_runtime_dir",
    "check_screen_rules",
    "check_terminfo",
    "check_tmux",
]

_RECOMMENDED_TMUX = (3, 6, 0)
#: Bytes free below which a run is likely to stop in the middle, and below which it soon will.
_LITTLE, _TOO_LITTLE = 1_000_000_000, 100_000_000
#: Seconds that a program may take to say its version.
_VERSION_S = 15.0

_AGENTS = (
    ("claude", "npm install -g @anthropic-ai/claude-code", "needed by agents of kind claude"),
    ("codex", "npm install -g @openai/codex", "optional"),
)
#: Any of these is a way to be logged in that needs no file.
_CLAUDE_LOGINS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)


def check_python() -> list[Finding]:
    """Say which Python and which version of the lab this is."""
    from orchestrator_lab import __version__

    version = ".".join(map(str, sys.version_info[:3]))
    return [Finding("orchestrator-lab", "ok", f"{__version__}, Python {version} ({sys.executable})")]


def check_tmux(path: str | None = None) -> list[Finding]:
    """Check that there is a tmux, and that it is new enough.

    Parameters
    ----------
    path : str, optional
        The program; the first on the PATH when omitted.
    """
    from orchestrator_lab.tmux.binary import find_tmux

    try:
        found = find_tmux(path)
    except OrchestratorLabError as error:
        what, _, cure = error.message.partition("; ")
        return [Finding("tmux", "fail", what, cure)]
    advice = ""
    if found.number < _RECOMMENDED_TMUX:
        advice = "works; 3.6 or newer is recommended (conda install -c conda-forge tmux)"
    return [Finding("tmux", "ok", f"{found.version} ({found.path})", advice)]


def check_locale(environ: Mapping[str, str]) -> list[Finding]:
    """Check that agents would run in a UTF-8 locale that this system has.

    Parameters
    ----------
    environ : mapping
        The environment.
    """
    from orchestrator_lab.client import check_locale as check

    try:
        checked = check(dict(environ))
    except OrchestratorLabError as error:
        what, _, cure = error.message.partition(": ")
        return [Finding("locale", "fail", what, cure)]
    name = next(key for key in ("LC_ALL", "LC_CTYPE", "LANG") if checked.get(key))
    value = checked[name]
    said = f"{name}={value}" if environ.get(name) else "none is set; agents get LANG=C.UTF-8"
    probe = subprocess.run(
        [sys.executable, "-I", "-c", "import locale; locale.setlocale(locale.LC_ALL, '')"],
        env={**{key: environ[key] for key in ("PATH", "HOME") if key in environ}, "LC_ALL": value},
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        cure = "use one that 'locale -a' lists, for example LC_ALL=C.UTF-8"
        return [Finding("locale", "warn", f"{said}, but this system does not have that locale", cure)]
    return [Finding("locale", "ok", said)]


def check_terminfo(environ: Mapping[str, str]) -> list[Finding]:
    """Check that programs in panes find a description of their terminal.

    Parameters
    ----------
    environ : mapping
        The environment.
    """
    name = "tmux-256color"
    code = f"import curses; curses.setupterm({name!r}, 1)"
    probe = subprocess.run(
        [sys.executable, "-I", "-c", code],
        env=dict(environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if probe.returncode == 0:
        return [Finding("terminfo", "ok", name)]
    if b"No module named" in probe.stderr:
        return [Finding("terminfo", "ok", "not checked: this Python has no curses")]
    cure = "install ncurses-term (Debian, Ubuntu), ncurses (macOS: brew install ncurses) or ncurses-base"
    return [Finding("terminfo", "warn", f"no description of {name}: programs in panes may draw without colours", cure)]


def check_runtime_dir() -> list[Finding]:
    """Check the folder of sockets: private, and its path short enough."""
    try:
        folder = runtime_dir()
    except OrchestratorLabError as error:
        return [
            Finding("runtime folder", "fail", error.message, "or set ORCHESTRATOR_RUNTIME_DIR to a folder of yours")
        ]
    room = LONGEST_SOCKET_PATH - len(os.fsencode(folder)) - len("//keeper.sock")
    if room < 1:
        cure = "set ORCHESTRATOR_RUNTIME_DIR to a shorter folder"
        return [Finding("runtime folder", "fail", f"{folder} is too long a path for sockets", cure)]
    if room < 32:
        cure = "set ORCHESTRATOR_RUNTIME_DIR to a shorter folder for longer names"
        return [Finding("runtime folder", "warn", f"{folder}: cluster names of up to {room} letters fit", cure)]
    return [Finding("runtime folder", "ok", str(folder))]


def check_disk(runs_dir: Path) -> list[Finding]:
    """Check the space left where runs and sockets are.

    Parameters
    ----------
    runs_dir : pathlib.Path
        Where runs are recorded; need not exist yet.
    """
    places = [("runs", runs_dir.absolute())]
    with contextlib.suppress(OrchestratorLabError):
        places.append(("sockets", runtime_dir()))
    found = []
    for name, place in places:
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        facts = os.statvfs(there)
        free = facts.f_bavail * facts.f_frsize
        said = f"{name}: {free / 1e9:.1f} GB free ({place})"
        if facts.f_files and facts.f_favail == 0:
            found.append(
                Finding("disk", "fail", f"{name}: no inodes left ({place})", "remove files you no longer need")
            )
        elif free < _TOO_LITTLE:
            found.append(
                Finding("disk", "fail", said, "free some space: delivery stops when the journal cannot be written")
            )
        elif free < _LITTLE:
            found.append(Finding("disk", "warn", said, "free some space, or set ORCHESTRATOR_RUNS_DIR to another disk"))
        elif not os.access(there, os.W_OK):
            found.append(Finding("disk", "fail", f"{name}: {there} may not be written to", "choose another runs_dir"))
        else:
            found.append(Finding("disk", "ok", said))
    return found


def check_loopback(environ: Mapping[str, str]) -> list[Finding]:
    """Check that agents can reach their supervisor on 127.0.0.1, past any proxy.

    Parameters
    ----------
    environ : mapping
        The environment.
    """
    try:
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.settimeout(5)
            client.connect(server.getsockname())
    except OSError as error:
        cure = "allow local connections: hooks, MCP and gateway need them"
        return [Finding("loopback", "fail", f"no connection to 127.0.0.1 is possible ({error.strerror})", cure)]
    proxies = sorted(name for name in environ if name.lower() in {"http_proxy", "all_proxy"} and environ[name])
    spared = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    names = {name.strip() for name in spared.split(",")}
    if proxies and not names & {"127.0.0.1", "127.0.0.0/8", "*"}:
        cure = "set NO_PROXY=127.0.0.1,localhost, or agents send their hooks to the proxy"
        return [Finding("loopback", "warn", f"{', '.join(proxies)} is set, NO_PROXY does not name 127.0.0.1", cure)]
    return [Finding("loopback", "ok", "127.0.0.1 answers")]


# the agents -------------------------------------------------------------------------------------


def check_agents(environ: Mapping[str, str]) -> list[Finding]:
    """Say which agents' programs are on the PATH, and their versions.

    Parameters
    ----------
    environ : mapping
        The environment.
    """
    found = []
    for name, install, need in _AGENTS:
        path = shutil.which(name, path=environ.get("PATH"))
        if path is None:
            level: Level = "ok" if need == "optional" else "warn"
            found.append(Finding(name, level, f"not on the PATH ({need})", f"to get it: {install}"))
            continue
        try:
            done = subprocess.run(
                [path, "--version"],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_VERSION_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or f"no answer within {_VERSION_S:g} s"
            found.append(Finding(name, "warn", f"{path} --version failed: {reason}", f"install it again: {install}"))
            continue
        said = (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
        if done.returncode:
            sentence = f"{path} --version ended with status {done.returncode}: {said[:200]}"
            found.append(Finding(name, "warn", sentence, f"install it again: {install}"))
        else:
            found.append(Finding(name, "ok", f"{said} ({path})"))
    return found


def _claude_dir(environ: Mapping[str, str]) -> Path:
    chosen = environ.get("CLAUDE_CONFIG_DIR")
    return Path(chosen).expanduser() if chosen else Path(environ.get("HOME", "~")).expanduser() / ".claude"


def check_screen_rules(environ: Mapping[str, str]) -> list[Finding]:
    """Say whether the lab knows the screens of the installed versions of Claude Code and Codex.

    Parameters
    ----------
    environ : mapping
        The environment.
    """
    from orchestrator_lab.agents.claude import installed_version
    from orchestrator_lab.agents.codex import package_version
    from orchestrator_lab.agents.screens import choose

    found = []
    for kind in ("claude", "codex"):
        path = shutil.which(kind, path=environ.get("PATH"))
        if path is None:
            continue
        version = installed_version(path) if kind == "claude" else package_version(Path(path))
        rules, note = choose(kind, version)
        if note is None:
            known = f"{kind}: measured with {rules.measured}; this is {version or 'of an unknown version'}"
            found.append(Finding("screen rules", "ok", known))
        else:
            cure = "look at what it asks with 'orchestrator-lab explain AGENT'; rules of your own go under 'screens'"
            found.append(Finding("screen rules", "warn", note.removeprefix("screen rules: "), cure))
    return found


def check_claude_login(environ: Mapping[str, str]) -> list[Finding]:
    """Say whether Claude Code seems to be logged in; no secret is read, and nobody is called.

    Parameters
    ----------
    environ : mapping
        The environment.
    """
    if shutil.which("claude", path=environ.get("PATH")) is None:
        return []
    variable = next((name for name in _CLAUDE_LOGINS if environ.get(name)), None)
    if variable:
        return [Finding("claude login", "ok", f"{variable} is set")]
    folder = _claude_dir(environ)
    if (folder / ".credentials.json").is_file():
        return [Finding("claude login", "ok", f"logged in ({folder})")]
    # On macOS the login is in the keychain; what remains in files is the account that it belongs to.
    state = folder / ".claude.json" if environ.get("CLAUDE_CONFIG_DIR") else folder.parent / ".claude.json"
    if _object(state).get("oauthAccount"):
        return [Finding("claude login", "ok", f"an account is known ({state})")]
    helper = _object(folder / "settings.json").get("apiKeyHelper")
    if helper:
        return [Finding("claude login", "ok", f"apiKeyHelper is set ({folder / 'settings.json'})")]
    cure = "run claude once and log in; agents with 'config: isolated' and a gateway need no login"
    return [Finding("claude login", "warn", f"none found in {folder}", cure)]


def _object(path: Path) -> dict[str, Any]:
    """Return a JSON file's object, empty when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def managed_settings_files() -> list[Path]:
    """Return the files in which an administrator may set Claude Code's settings, those that exist."""
    folder = Path("/Library/Application Support/ClaudeCode" if sys.platform == "darwin" else "/etc/claude-code")
    files = [folder / "managed-settings.json"]
    with contextlib.suppress(OSError):
        files += sorted((folder / "managed-settings.d").glob("*.json"))
    return [path for path in files if path.is_file()]


def check_claude_settings(environ: Mapping[str, str], managed: Iterable[Path] | None = None) -> list[Finding]:
    """Check that no setting forbids the hooks that agents report by.

    Parameters
    ----------
    environ : mapping
        The environment.
    managed : iterable of pathlib.Path, optional
        The administrator's settings; those of this system when omitted.
    """
    if shutil.which("claude", path=environ.get("PATH")) is None:
        return []
    found = []
    for path in managed_settings_files() if managed is None else managed:
        settings = _object(path)
        if settings.get("disableAllHooks") or settings.get("allowManagedHooksOnly"):
            key = "disableAllHooks" if settings.get("disableAllHooks") else "allowManagedHooksOnly"
            cure = "ask your administrator; until then use kind: program or chat"
            found.append(Finding("claude hooks", "fail", f"{key} in {path} forbids the lab's hooks", cure))
        urls = settings.get("allowedHttpHookUrls")
        if isinstance(urls, list) and not any("127.0.0.1" in str(url) or str(url) == "*" for url in urls):
            cure = "ask your administrator to add http://127.0.0.1:*"
            found.append(Finding("claude hooks", "fail", f"allowedHttpHookUrls in {path} has no 127.0.0.1", cure))
    path = _claude_dir(environ) / "settings.json"
    if _object(path).get("disableAllHooks"):
        cure = "remove it, or use 'config: isolated'"
        found.append(Finding("claude hooks", "fail", f"disableAllHooks is set in {path}", cure))
    return found or [Finding("claude hooks", "ok", "allowed")]


def check_local_model() -> list[Finding]:
    """Say whether the local language model can run."""
    from orchestrator_lab.models import DEFAULT_MODEL, installed

    if importlib.util.find_spec("xllamacpp") is None:
        cure = "for gateway: {mode: local}: pip install 'orchestrator-lab[local]'"
        return [Finding("local model", "warn", "xllamacpp is not installed (optional)", cure)]
    models = [model.name for model in installed()]
    if not models:
        cure = "orchestrator-lab models pull"
        return [Finding("local model", "warn", f"{DEFAULT_MODEL} is not here yet (optional)", cure)]
    return [Finding("local model", "ok", ", ".join(models))]
