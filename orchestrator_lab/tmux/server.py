"""The life of a private tmux server: started, found again, ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import EnvironmentProblem, TmuxError, TmuxTimeout
from orchestrator_lab.tmux.binary import client_environ, run_tmux
from orchestrator_lab.tmux.control import control_tail
from orchestrator_lab.tmux.panes import LOBBY_OPTION
from orchestrator_lab.tmux.process import (
    command_line,
    find_by_argv,
    kill_if_same,
    process_started,
    wait_gone,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.tmux.binary import TmuxBinary

__all__ = ["ServerFacts", "check_socket", "find_server", "kill_server", "make_way", "start_server"]

logger = logging.getLogger(__name__)

#: Server option with the facts below, as JSON; and the one with the control clients of ours.
FACTS_OPTION = "@olab_server"
CLIENTS_OPTION = "@olab_clients"

_SUN_PATH = 103 if sys.platform == "darwin" else 107
_TERMINFO = ("/usr/share/terminfo", "/lib/terminfo", "/etc/terminfo", "/usr/lib/terminfo")
_LOBBY = "The agents of this cluster have ended; this window keeps its session."


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a private server remembers of itself.

    Parameters
    ----------
    pid : int
        Process id of the tmux server.
    started : str
        Its start time, to be compared only.
    session : str
        Name of its one session.
    layout : str
        ``"windows"`` or ``"tiled"``.
    cols, rows : int
        Size of a new window in characters.
    """

    pid: int
    started: str
    session: str
    layout: str
    cols: int
    rows: int

    def to_json(self) -> str:
        """Return the facts as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ServerFacts:
        """Return the facts in a line of :meth:`to_json`."""
        return cls(**json.loads(text))


def check_socket(socket: Path) -> None:
    """Check that a path is short enough for a unix socket.

    Parameters
    ----------
    socket : Path
        The path.

    Raises
    ------
    EnvironmentProblem
        When it is too long for the operating system.
    """
    length = len(os.fsencode(socket))
    if length > _SUN_PATH:
        raise EnvironmentProblem(
            f"the socket path {socket} has {length} bytes, but the system allows {_SUN_PATH}; "
            "set ORCHESTRATOR_RUNTIME_DIR to a shorter folder",
            path=str(socket),
        )


def default_terminal() -> str:
    """Return the TERM for panes: tmux's own where its description is installed, else screen's."""
    name = "tmux-256color"
    folders = [os.environ.get("TERMINFO", ""), *os.environ.get("TERMINFO_DIRS", "").split(":")]
    folders += [str(Path.home() / ".terminfo"), f"{sys.prefix}/share/terminfo", *_TERMINFO]
    for folder in filter(None, folders):
        if any((Path(folder) / sub / name).exists() for sub in ("t", "74")):
            return name
    return "screen-256color"


def lobby_command(facts_session: str, cols: int, rows: int) -> list[str]:
    """Return the command that makes the session with its lobby, a dead pane without a process."""
    size = ["-x", str(cols), "-y", str(rows)]
    command = f"exec printf '%s\\n' {shlex.quote(_LOBBY)}"
    return ["new-session", "-d", "-s", facts_session, *size, "-n", "lobby", "-c", "/", command]


def start_server(
    binary: TmuxBinary,
    socket: Path,
    *,
    session: str,
    cols: int,
    rows: int,
    layout: str,
    env: Mapping[str, str],
) -> ServerFacts:
    """Start a private server with an empty session (see :meth:`TmuxDriver.start`)."""
    check_socket(socket)
    nonce = uuid.uuid4().hex
    size = f"{cols}x{rows}"
    options = [
        # -o refuses to overwrite: of two that start on one socket at once, one wins and the other is told.
        ("-so", "@olab_start", nonce),
        ("-s", "exit-empty", "off"),
        ("-s", "escape-time", "20"),
        ("-s", "set-clipboard", "off"),
        # The log of commands would keep what was typed.
        ("-s", "message-limit", "0"),
        ("-g", "default-shell", "/bin/sh"),
        ("-g", "default-terminal", default_terminal()),
        ("-g", "default-size", size),
        ("-g", "history-limit", "5000"),
        ("-g", "detach-on-destroy", "on"),
        ("-g", "update-environment", ""),
        ("-g", "status-right", ""),
        ("-wg", "remain-on-exit", "on"),
        # No "window-size manual" here: tmux 3.3a crashes when a window is made under it. Each window gets it by
        # resize-window once it is there, and until then nobody's terminal counts.
        ("-wg", "automatic-rename", "off"),
        ("-wg", "allow-rename", "off"),
    ]
    argv = ["start-server"]
    for option in options:
        argv += [";", "set-option", *option]
    argv += [";", *lobby_command(session, cols, rows)]
    argv += [";", "display-message", "-p", "#{pid}"]
    environ = {**client_environ(), **env}
    for name in ("TMUX", "TMUX_PANE"):
        environ.pop(name, None)
    deadline = time.monotonic() + 10
    while True:
        try:
            done = run_tmux(binary, socket, argv, environ=environ, cwd="/")
            break
        except TmuxTimeout:
            raise
        except TmuxError as error:
            said = str(error.details.get("said", ""))
            if "already set" in said or "duplicate session" in said:
                raise TmuxError(
                    f"a tmux server of the lab is running on {socket} already; "
                    "attach to its cluster, or shut it down first",
                    socket=str(socket),
                ) from error
            # A server that is just ending takes the connection and drops it.
            if "exited" not in said and "lost server" not in said:
                raise
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    pid = int(done.stdout.split()[-1])
    facts = ServerFacts(pid, process_started(pid) or "", session, layout, cols, rows)
    commands = ["set-option", "-s", FACTS_OPTION, facts.to_json()]
    commands += [";", "set-option", "-p", "-t", f"={session}:", LOBBY_OPTION, "1"]
    run_tmux(binary, socket, commands)
    return facts


def find_server(binary: TmuxBinary, socket: Path) -> ServerFacts:
    """Find the server of ours on a socket, and free it from stale control clients.

    Parameters
    ----------
    binary : TmuxBinary
        The tmux program.
    socket : Path
        The socket.

    Returns
    -------
    ServerFacts
        What the server remembers.

    Raises
    ------
    TmuxError
        When there is no server, or it is not one of ours.
    """
    check_socket(socket)
    if not socket.exists():
        raise TmuxError(f"there is no tmux server on {socket}: the socket is gone")
    query = ["show-options", "-sqv", FACTS_OPTION, ";", "show-options", "-sqv", CLIENTS_OPTION]
    try:
        done = run_tmux(binary, socket, query, timeout=3.0, check=False)
    except TmuxTimeout:
        # A client that nobody drains can stop the whole server; ours are known by their arguments.
        _kill_all_clients(socket)
        done = run_tmux(binary, socket, query, timeout=5.0, check=False)
    if done.returncode:
        raise TmuxError(f"there is no tmux server on {socket}: {done.stderr.strip()}", socket=str(socket))
    known, _, clients = done.stdout.partition("\n")
    try:
        facts = ServerFacts.from_json(known)
    except (ValueError, TypeError) as error:
        raise TmuxError(
            f"the tmux server on {socket} was not started by the lab; choose another socket",
            socket=str(socket),
        ) from error
    kill_stale_clients(socket, clients.strip())
    return facts


def make_way(binary: TmuxBinary, socket: Path) -> bool:
    """Make a socket free for a new server, unless one of ours is on it that can be adopted.

    Parameters
    ----------
    binary : TmuxBinary
        The tmux program.
    socket : Path
        The socket.

    Returns
    -------
    bool
        True when a server of ours is there, whole. One that was cut off in its start holds nothing yet, and is ended.

    Raises
    ------
    TmuxError
        When a server is there that is not ours.
    """
    query = ["show-options", "-sqv", FACTS_OPTION, ";", "display-message", "-p", "#{pid} #{@olab_start}"]
    deadline = time.monotonic() + 5.0
    while socket.exists():
        done = run_tmux(binary, socket, query, timeout=3.0, check=False)
        # A server that is just ending takes the connection and drops it.
        if (
            done.returncode
            and time.monotonic() < deadline
            and ("exited" in done.stderr or "lost server" in done.stderr)
        ):
            time.sleep(0.02)
            continue
        if done.returncode:
            socket.unlink(missing_ok=True)
            break
        *known, last = done.stdout.splitlines()
        pid, _, nonce = last.partition(" ")
        if known:
            return True
        if not nonce:
            raise TmuxError(f"the tmux server on {socket} was not started by the lab", socket=str(socket))
        started = process_started(int(pid))
        kill_server(binary, socket, ServerFacts(int(pid), started or "", "", "windows", 1, 1), {})
    return False


def kill_stale_clients(socket: Path, recorded: str) -> int:
    """SIGKILL the control clients that a former driver left.

    Parameters
    ----------
    socket : Path
        The server's socket.
    recorded : str
        ``pid:started`` pairs, as the server option holds them.

    Returns
    -------
    int
        How many were killed.
    """
    killed = 0
    for pair in recorded.split():
        pid, _, started = pair.partition(":")
        if not pid.isdigit() or not started:
            continue
        words = command_line(int(pid))
        # Pid and start time say who it is, its arguments that it is a control client on this very socket.
        if "-C" in words and str(socket) in words and kill_if_same(int(pid), started):
            wait_gone(int(pid), started, 1.0)
            killed += 1
    return killed


def _kill_all_clients(socket: Path) -> None:
    tail = control_tail(socket, "x")[:-1]
    # The session may have been renamed: every word but the last has to be the same.
    for pid, started in find_by_argv(tail, skip_last=1):
        kill_if_same(pid, started)
        wait_gone(pid, started, 1.0)


def kill_server(binary: TmuxBinary, socket: Path, facts: ServerFacts, panes: Mapping[int, str]) -> None:
    """End a server, its programs and its socket.

    Parameters
    ----------
    binary : TmuxBinary
        The tmux program.
    socket : Path
        The server's socket.
    facts : ServerFacts
        The server.
    panes : mapping of int to str
        Programs that run in panes: pids and start times.

    Raises
    ------
    TmuxError
        When the server cannot be ended.
    """
    with contextlib.suppress(TmuxError):
        run_tmux(binary, socket, ["kill-server"], timeout=5.0, check=False)
    if not wait_gone(facts.pid, facts.started, 3.0):
        _kill_all_clients(socket)
        if not wait_gone(facts.pid, facts.started, 2.0):
            logger.warning("the tmux server %d does not end by itself, it is killed", facts.pid)
            kill_if_same(facts.pid, facts.started)
            if not wait_gone(facts.pid, facts.started, 3.0):
                raise TmuxError(f"the tmux server {facts.pid} on {socket} cannot be ended")
    # Programs got SIGHUP with their terminals; those that ignore it are ended all the same.
    deadline = time.monotonic() + 2.0
    for pid, started in panes.items():
        if not wait_gone(pid, started, max(0.0, deadline - time.monotonic())):
            kill_if_same(pid, started)
    socket.unlink(missing_ok=True)
