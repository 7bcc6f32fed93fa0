"""The keeper itself: sockets, lock, record, and what happens at the end."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.keeper.clients import Clients, Hub
from orchestrator_lab.keeper.loop import Loop
from orchestrator_lab.keeper.pane import Panes
from orchestrator_lab.keeper.supervise import Supervision
from orchestrator_lab.runtime import (
    ClusterRecord,
    acquire_lock,
    private_dir,
    read_record,
    update_record,
)

__all__ = ["Keeper", "main"]

logger = logging.getLogger(__name__)

#: Connections that wait in the backlog while the supervisor restarts.
BACKLOG = 512

#: Seconds to wait for the port of before when something still holds it.
PORT_PATIENCE_S = 2.0

#: Seconds a supervisor has to end after SIGTERM.
TERM_GRACE_S = 30.0

#: Failures in a row after which a supervisor without any tmux server is given up: nothing was ever
#: started, and a client waits to hear so.
TRIES_BEFORE_TMUX = 3

#: The same when there was a tmux server and it is gone.
TRIES_WITHOUT_TMUX = 5

EXIT_LOST = 3
EXIT_LOCKED = 75


class Keeper:
    """One cluster's keeper.

    Parameters
    ----------
    folder : pathlib.Path
        The cluster's runtime folder.
    options : argparse.Namespace
        The command line (see :func:`main`).
    lock : int
        Descriptor of the cluster's lock, taken.
    """

    def __init__(self, folder: Path, options: argparse.Namespace, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self._exit_code: int | None = None
        self._terms = 0
        self._begun = time.time()
        self._bound: dict[Path, tuple[int, int]] = {}
        record = read_record(folder)
        if record is None:
            raise OrchestratorLabError(
                f"{folder / 'cluster.json'} is missing or unreadable: the client writes it before it starts the keeper"
            )
        self._record = record
        self._loop = Loop()
        if options.adopt:
            self._api = socket.socket(fileno=options.api_fd)
            self._tcp = socket.socket(fileno=options.tcp_fd)
            self._remember(folder / "api.sock")
        else:
            self._api = self._bind_unix("api.sock")
            self._tcp = _bind_loopback(record.port)
        for listener in (self._api, self._tcp):
            listener.set_inheritable(False)
        control = self._bind_unix("keeper.sock")
        self._hub = Hub(self._loop)
        self._supervision = Supervision(
            self._loop,
            folder,
            command=options.supervisor_cmd,
            descriptors={
                "--api-fd": self._api.fileno(),
                "--tcp-fd": self._tcp.fileno(),
                "--lock-fd": lock,
            },
            on_message=self._on_message,
            hello=self._hello,
            on_started=self._on_started,
            on_end=self._finish,
            may_restart=self._may_restart,
            restarts=options.restarts,
        )
        self._panes = Panes(self._loop, self._hub, self._supervision.tell, self._supervision.listens)
        self._clients = Clients(self._loop, control, self._hub, self._panes.attach, self._status)
        self._loop.on_signal(signal.SIGTERM, self._on_term)
        self._loop.on_signal(signal.SIGINT, self._on_term)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        # The record is written before the supervisor starts, which reads it.
        self._update(port=self._tcp.getsockname()[1], keeper_pid=os.getpid())

    def run(self, options: argparse.Namespace) -> int:
        """Serve until the supervisor ends in an orderly way; return the exit status."""
        if options.adopt:
            self._supervision.adopt(options.supervisor_pid, options.supervisor_fd)
        else:
            self._supervision.start()
        while self._exit_code is None:
            self._loop.turn()
        return self._exit_code

    # the supervisor -----------------------------------------------------------------------------

    def _on_started(self, pid: int) -> None:
        self._update(supervisor_pid=pid)

    def _hello(self) -> dict[str, Any]:
        return {
            "op": "hello",
            "pid": os.getpid(),
            "restarts": self._supervision.restarts,
            "panes": [pane.describe() for pane in self._panes],
        }

    def _on_message(self, message: dict[str, Any]) -> None:
        panes = self._panes
        agent = str(message.get("agent", ""))
        match message.get("op"):
            case "record":
                panes.record(message)
            case "resize":
                panes.resize(agent, int(message["cols"]), int(message["rows"]))
            case "mark":
                panes.mark(agent, str(message["label"]))
            case "reset":
                panes.reset(agent)
            case "end":
                status = message.get("status")
                panes.end(agent, None if status is None else int(status))
            case "forget":
                panes.forget(agent)
            case other:
                logger.error("the supervisor sent an unknown op %r", other)

    def _may_restart(self, failures: int) -> bool:
        """Decide whether there is anything left to supervise."""
        record = read_record(self._folder) or self._record
        self._record = record
        if record.lifetime == "owner" and failures > 1 and not record.alive("owner"):
            logger.error("the owner %s is gone and the supervisor does not start: ending", record.owner_pid)
            self._end_tmux(record)
            return self._lost()
        if record.alive("tmux"):
            return True
        tries = TRIES_BEFORE_TMUX if record.tmux_pid is None else TRIES_WITHOUT_TMUX
        if failures < tries:
            return True
        logger.error(
            "no tmux server and %d supervisors in a row ended: giving up; see %s",
            failures,
            self._folder / "logs" / "supervisor.log",
        )
        return self._lost()

    def _lost(self) -> bool:
        self._exit_after = EXIT_LOST
        return False

    _exit_after = 0

    @staticmethod
    def _end_tmux(record: ClusterRecord) -> None:
        """End the agents of an owner who is gone: nobody else is left to do it."""
        if record.tmux_pid is not None and record.alive("tmux"):
            with contextlib.suppress(OSError):
                os.kill(record.tmux_pid, signal.SIGTERM)

    def _on_term(self) -> None:
        self._terms += 1
        self._supervision.stop(signal.SIGTERM if self._terms == 1 else signal.SIGKILL)
        if self._exit_code is None and not self._loop.due("term"):
            self._loop.at("term", time.monotonic() + TERM_GRACE_S, self._on_term)

    # sockets and record -------------------------------------------------------------------------

    def _bind_unix(self, name: str) -> socket.socket:
        path = self._folder / name
        with contextlib.suppress(FileNotFoundError):
            # We hold the lock, so this is a dead keeper's.
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        self._remember(path)
        return listener

    def _remember(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            found = path.stat()
            self._bound[path] = (found.st_dev, found.st_ino)

    def _update(self, **changes: Any) -> None:  # noqa: ANN401 - any field's value
        try:
            self._record = update_record(self._folder, **changes)
        except OrchestratorLabError as error:
            # A full disk or a removed folder must not end a keeper that serves living agents.
            logger.warning("%s", error)

    def _status(self) -> dict[str, Any]:
        supervision = self._supervision
        return {
            "pid": os.getpid(),
            "started_at": self._begun,
            "port": self._tcp.getsockname()[1],
            "supervisor_pid": supervision.pid,
            "restarts": supervision.restarts,
            "failures": supervision.failures,
            "gap_since": supervision.gap_since if supervision.pid is None else None,
            "subscribers": len(self._hub),
            "cut_backs": self._hub.cut_backs,
            "panes": [pane.describe() for pane in self._panes],
        }

    def _finish(self) -> None:
        """Drain, finish the recordings, take the sockets away."""
        self._exit_code = self._exit_after
        # What the programs wrote last is still on its way through tmux, or tmux is ending.
        time.sleep(0.05)
        self._panes.close()
        self._hub.close()
        self._clients.close()
        self._supervision.close()
        for path, identity in self._bound.items():
            with contextlib.suppress(OSError):
                found = path.stat()
                # Never another keeper's.
                if (found.st_dev, found.st_ino) == identity:
                    path.unlink()
        self._api.close()
        self._tcp.close()
        logger.info("keeper ends with status %d", self._exit_code)


def _bind_loopback(port: int) -> socket.socket:
    """Bind the port of before, so that the agents' hooks still find it; any when it is taken."""
    deadline = time.monotonic() + PORT_PATIENCE_S
    while True:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or not port:
                raise
            if time.monotonic() > deadline:
                logger.warning("port %d is taken by another program: binding a new one", port)
                port = 0
            else:
                time.sleep(0.1)
        else:
            return listener


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchestrator_lab.keeper")
    parser.add_argument("folder", type=Path, help="the cluster's runtime folder")
    parser.add_argument("--adopt", action="store_true", help="take over from a dead keeper")
    for name in ("--api-fd", "--tcp-fd", "--lock-fd", "--supervisor-pid", "--supervisor-fd"):
        parser.add_argument(name, type=int)
    parser.add_argument("--restarts", type=int, default=0, help="restarts of the supervisor so far")
    # For tests, and for whoever runs a supervisor of his own: a JSON list of arguments.
    parser.add_argument("--supervisor-cmd", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    needed = ("api_fd", "tcp_fd", "lock_fd", "supervisor_pid", "supervisor_fd")
    if options.adopt and any(getattr(options, name) is None for name in needed):
        parser.error("--adopt needs --api-fd --tcp-fd --lock-fd --supervisor-pid --supervisor-fd")
    if options.supervisor_cmd is None:
        # -P: a file json.py in the user's folder must not become ours.
        options.supervisor_cmd = [sys.executable, "-P", "-m", "orchestrator_lab.supervisor"]
    return options


def main(arguments: list[str]) -> int:
    """Run a keeper.

    Parameters
    ----------
    arguments : list of str
        ``R``, or ``R --adopt --api-fd N --tcp-fd N --lock-fd N --supervisor-pid P --supervisor-fd
        N [--restarts N]``.

    Returns
    -------
    int
        0 after an orderly end, 3 when the supervisor could not be kept alive, 75 when another
        keeper or supervisor lives here, 1 after any other trouble.
    """
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s keeper %(process)d %(levelname)s %(message)s")
    os.umask(0o077)
    folder = options.folder.absolute()
    try:
        private_dir(folder)
        private_dir(folder / "logs")
        if options.adopt:
            lock = options.lock_fd
        else:
            taken = acquire_lock(folder)
            if taken is None:
                logger.info("%s is locked: another keeper or supervisor lives", folder)
                return EXIT_LOCKED
            lock = taken
        # Only the supervisor gets it, by name; nothing else that is ever started.
        os.set_inheritable(lock, False)
        os.chdir("/")
        return Keeper(folder, options, lock).run(options)
    except (OrchestratorLabError, OSError) as error:
        logger.critical("%s", error)
        return 1
