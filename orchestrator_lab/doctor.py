"""What this machine needs to run clusters, and what dead clusters left on it.

Each check is a function that looks and returns findings; nothing is changed but by :func:`repair`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.runtime import (
    LONGEST_SOCKET_PATH,
    PROTOCOL,
    ClusterRecord,
    acquire_lock,
    is_locked,
    process_alive,
    process_start_time,
    read_record,
    runtime_dir,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "Finding",
    "Leftover",
    "check_agents",
    "check_claude_login",
    "check_claude_settings",
    "check_clusters",
    "check_disk",
    "check_leftovers",
    "check_local_model",
    "check_locale",
    "check_loopback",
    "check_processes",
    "check_runtime_dir",
    "check_terminfo",
    "check_tmux",
    "examine",
    "repair",
]

Level = Literal["ok", "warn", "fail"]

_RECOMMENDED_TMUX = (3, 6, 0)
#: Bytes free below which a run is likely to stop in the middle, and below which it soon will.
_LITTLE, _TOO_LITTLE = 1_000_000_000, 100_000_000
#: Seconds that a program may take to say its version.
_VERSION_S = 15.0
#: Seconds that a folder without a record is left alone: it may just be being made.
_BEING_MADE_S = 60.0
_TERM_S = 5.0

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


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that a dead cluster left behind and that :func:`repair` can take away.

    Parameters
    ----------
    kind : {"folder", "process"}
        What it is.
    path : str
        The runtime folder that it is, or belongs to.
    pid : int or None
        The process.
    started : float or None
        Its :func:`~orchestrator_lab.runtime.process_start_time`: a pid alone may be someone else's by then.
    """

    kind: Literal["folder", "process"]
    path: str
    pid: int | None = None
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Parameters
    ----------
    check : str
        What was looked at.
    level : {"ok", "warn", "fail"}
        ``fail``: clusters cannot run; ``warn``: something is missing or left behind.
    found : str
        What is there.
    advice : str
        What to do about it; empty when nothing is to be done.
    leftover : Leftover or None
        What :func:`repair` may take away.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    leftover: Leftover | None = None


def examine(*, runs_dir: Path, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Run every check.

    Parameters
    ----------
    runs_dir : pathlib.Path
        Where runs are recorded.
    environ : mapping, optional
        The environment that clusters would start with; this process's when omitted.

    Returns
    -------
    list of Finding
        In the order of the checks.
    """
    env = dict(os.environ if environ is None else environ)
    checks: list[Callable[[], list[Finding]]] = [
        check_python,
        check_tmux,
        lambda: check_locale(env),
        lambda: check_terminfo(env),
        check_runtime_dir,
        lambda: check_agents(env),
        lambda: check_claude_login(env),
        lambda: check_claude_settings(env),
        check_local_model,
        lambda: check_disk(runs_dir),
        lambda: check_loopback(env),
        check_clusters,
        check_leftovers,
        check_processes,
    ]
    with ThreadPoolExecutor(4) as pool:
        return [finding for found in pool.map(_guarded, checks) for finding in found]


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Run a check; one that fails itself must not hide the others."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        name = getattr(check, "__name__", "check").removeprefix("check_")
        return [Finding(name, "warn", f"could not be checked: {type(error).__name__}: {error}")]


# the machine ------------------------------------------------------------------------------------


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


# clusters ---------------------------------------------------------------------------------------


def _folders() -> list[Path]:
    try:
        return sorted(entry for entry in runtime_dir().iterdir() if entry.is_dir() and not entry.is_symlink())
    except OrchestratorLabError:
        return []


def check_clusters() -> list[Finding]:
    """Check that the supervisor of each running cluster answers, in this version's words."""
    found = []
    for folder in _folders():
        record = read_record(folder)
        if record is None:
            continue
        if is_locked(folder):
            found.append(_ask(folder, record))
        elif record.alive("tmux"):
            cure = f"'orchestrator-lab status {record.name}' brings them back"
            sentence = f"{record.name}: its agents live, but keeper and supervisor do not"
            found.append(Finding("cluster", "warn", sentence, cure))
    return found or [Finding("clusters", "ok", "none is running")]


def _ask(folder: Path, record: ClusterRecord) -> Finding:
    import httpx

    log = folder / "logs" / "supervisor.log"
    try:
        transport = httpx.HTTPTransport(uds=str(folder / "api.sock"))
        with httpx.Client(transport=transport, base_url="http://supervisor", timeout=5.0) as http:
            hello = http.get("/hello").json()
    except (httpx.HTTPError, ValueError) as error:
        sentence = f"{record.name}: its supervisor does not answer ({type(error).__name__})"
        return Finding("cluster", "fail", sentence, f"see {log}; orchestrator-lab shutdown {record.name} ends it")
    if hello.get("protocol") != PROTOCOL:
        sentence = f"{record.name}: run by version {hello.get('version')}, which this one does not understand"
        return Finding("cluster", "warn", sentence, "end it with that version, then start it with this one")
    return Finding("cluster", "ok", f"{record.name} answers (run {record.run_id})")


def check_leftovers() -> list[Finding]:
    """Find the runtime folders (sockets, settings, secrets) of clusters that are dead."""
    found = []
    for folder in _folders():
        if not _is_dead(folder):
            continue
        cure = "orchestrator-lab doctor --fix removes it"
        sentence = f"{folder} belongs to a cluster that is gone (its run is kept)"
        found.append(Finding("leftover", "warn", sentence, cure, Leftover("folder", str(folder))))
    return found or [Finding("leftovers", "ok", "no stale sockets or folders")]


def _is_dead(folder: Path) -> bool:
    """Tell whether a folder is ours and its cluster is gone."""
    if is_locked(folder):
        return False
    record = read_record(folder)
    if record is not None:
        return not any(record.alive(who) for who in ("tmux", "keeper", "supervisor"))
    # Without a record: only what is unmistakably a cluster's folder, and not one that is being made now.
    ours = (folder / "lock").is_file() or (folder / "cluster.json").is_file() or (folder / "config.json").is_file()
    return ours and time.time() - folder.stat().st_mtime > _BEING_MADE_S


def check_processes() -> list[Finding]:
    """Find tmux servers, keepers and supervisors whose cluster is gone."""
    try:
        ours = runtime_dir()
    except OrchestratorLabError:
        return []
    found = []
    for pid, what, folder in _our_processes():
        if folder.parent == ours and not _is_orphan(pid, what, folder):
            continue
        if folder.parent == ours:
            cure = "orchestrator-lab doctor --fix ends it"
            leftover = Leftover("process", str(folder), pid, process_start_time(pid))
            found.append(Finding("orphan", "warn", f"{what} {pid} of {folder}, whose cluster is gone", cure, leftover))
        elif not folder.exists():
            # Another runtime folder, perhaps of a test: nobody can reach it any more, but it is not ours to end.
            found.append(Finding("orphan", "warn", f"{what} {pid} of {folder}, which is gone", f"end it: kill {pid}"))
    return found or [Finding("orphans", "ok", "no process without its cluster")]


def _our_processes() -> list[tuple[int, str, Path]]:
    """Return this user's tmux servers, keepers and supervisors of the lab, with their runtime folders."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, IndexError, ValueError):
            if process.uids().real != os.getuid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            argv = process.cmdline()
            for what in ("keeper", "supervisor"):
                if f"orchestrator_lab.{what}" in argv:
                    at = argv.index(f"orchestrator_lab.{what}") + 1
                    found.append((process.pid, what, Path(argv[at])))
            # A server's own command line is that of the client that became it; clients attach or run a command and
            # have the server as no descendant: the session leader without a terminal is the server.
            if argv and Path(argv[0]).name.startswith("tmux") and "-S" in argv and process.ppid() == 1:
                server = Path(argv[argv.index("-S") + 1])
                if server.name == "tmux.sock" and process.terminal() is None:
                    found.append((process.pid, "tmux", server.parent))
    return found


def _is_orphan(pid: int, what: str, folder: Path) -> bool:
    record = read_record(folder) if folder.is_dir() else None
    if record is None:
        return not is_locked(folder)
    if is_locked(folder):
        # Someone runs this cluster; a second tmux server or keeper is one that was replaced.
        return what == "tmux" and record.tmux_pid is not None and record.tmux_pid != pid and record.alive("tmux")
    return bool(getattr(record, f"{what}_pid") != pid)


def repair(findings: Iterable[Finding]) -> list[str]:
    """Take away what dead clusters left behind, after looking again at each.

    Parameters
    ----------
    findings : iterable of Finding
        Of :func:`examine`.

    Returns
    -------
    list of str
        A sentence for each thing that was done, or could not be.
    """
    leftovers = [finding.leftover for finding in findings if finding.leftover is not None]
    # Processes first: they hold files of the folders.
    done = [_end(one) for one in leftovers if one.kind == "process"]
    done += [_remove(Path(one.path)) for one in leftovers if one.kind == "folder"]
    return done


def _end(leftover: Leftover) -> str:
    pid, started = leftover.pid, leftover.started
    if pid is None or started is None or not process_alive(pid, started):
        return f"process {pid} had ended already"
    what = next((what for one, what, folder in _our_processes() if one == pid and str(folder) == leftover.path), None)
    if what is None or not _is_orphan(pid, what, Path(leftover.path)):
        return f"process {pid} belongs to a cluster again: left alone"
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + _TERM_S
        while process_alive(pid, started) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not process_alive(pid, started):
            return f"ended {what} {pid} of {leftover.path}"
    return f"{what} {pid} of {leftover.path} could not be ended"


def _remove(folder: Path) -> str:
    # With the lock in hand nobody can start the cluster while its folder is being removed.
    (folder / "lock").touch(mode=0o600)
    lock = acquire_lock(folder)
    if lock is None:
        return f"{folder} belongs to a cluster again: left alone"
    try:
        record = read_record(folder)
        if record is not None and any(record.alive(who) for who in ("tmux", "keeper", "supervisor")):
            return f"{folder} belongs to a cluster again: left alone"
        shutil.rmtree(folder)
    except OSError as error:
        if error.errno != errno.ENOENT:
            return f"{folder} could not be removed: {error.strerror}"
    finally:
        os.close(lock)
    return f"removed {folder}"
