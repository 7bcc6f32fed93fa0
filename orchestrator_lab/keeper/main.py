"""The keeper itself: sockets, lock, record, and what happens at the end."""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.keeper.loop import Loop
from orchestrator_lab.keeper.supervise import Supervision
from orchestrator_lab.runtime import (
    PROTOCOL,
    ClusterRecord,
    acquire_lock,
    private_dir,
    read_record,
    update_record,
)

if TYPE_CHECKING:
    from orchestrator_lab.keeper.clients import Clients, Hub
    from orchestrator_lab.keeper.pane import Panes

__all__ = ["Keeper", "Options", "main"]

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

_ADOPTION = ("--api-fd", "--tcp-fd", "--lock-fd", "--supervisor-pid", "--supervisor-fd")

EXIT_LOST = 3
EXIT_LOCKED = 75


class Options:
    """The command line.

    ``R``, or ``R --adopt --api-fd N --tcp-fd N --lock-fd N --supervisor-pid P --supervisor-fd N
    [--restarts N]``. ``--supervisor-cmd JSON`` names another program than our supervisor, for
    tests. Parsed by hand: argparse would be a tenth of the keeper's start.

    Parameters
    ----------
    arguments : list of str
        What follows the program's name.

    Raises
    ------
    OrchestratorLabError
        An argument is unknown, or one is missing.

    Examples
    --------
    >>> options = Options(["/tmp/olab-1000/duo", "--restarts", "2"])
    >>> options.adopt, options.restarts
    (False, 2)
    """

    def __init__(self, arguments: list[str]) -> None:
        self.adopt = False
        self.restarts = 0
        # -P: a file json.py in the user's folder must not be imported instead of Python's.
        self.supervisor_cmd = [sys.executable, "-P", "-m", "orchestrator_lab.supervisor"]
        numbers: dict[str, int] = {}
        folders: list[str] = []
        rest = iter(arguments)
        try:
            for argument in rest:
                if argument == "--adopt":
                    self.adopt = True
                elif argument == "--supervisor-cmd":
                    self.supervisor_cmd = json.loads(next(rest))
                elif argument in {*_ADOPTION, "--restarts"}:
                    numbers[argument] = int(next(rest))
                elif argument.startswith("-"):
                    raise OrchestratorLabError(f"the keeper knows no option {argument!r}")
                else:
                    folders.append(argument)
        except (StopIteration, ValueError) as error:
            raise OrchestratorLabError(f"{argument} needs a value: {error}") from error
        missing = [name for name in _ADOPTION if self.adopt and name not in numbers]
        if missing or len(folders) != 1:
            raise OrchestratorLabError(
                f"the keeper needs one runtime folder, and with --adopt also {' '.join(missing or _ADOPTION)}"
            )
        self.folder = Path(folders[0]).absolute()
        self.restarts = numbers.get("--restarts", 0)
        self.api_fd, self.tcp_fd, self.lock_fd, self.supervisor_pid, self.supervisor_fd = (
            numbers.get(name, -1) for name in _ADOPTION
        )


class Keeper:
    """One cluster's keeper.

    Parameters
    ----------
    options : Options
        The command line.
    lock : int
        Descriptor of the cluster's lock, taken.
    """

    _hub: Hub
    _panes: Panes
    _clients: Clients

    def __init__(self, options: Options, lock: int) -> None:
        self._options = options
        self._folder = folder = options.folder
        self._lock = lock
        self._exit_after = 0
        self._serving = False
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
        self._control = self._bind_unix("keeper.sock")
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
        self._loop.on_signal(signal.SIGTERM, self._on_term)
        self._loop.on_signal(signal.SIGINT, self._on_term)
        # Not ignored but swallowed: what is ignored would stay so in the supervisor.
        self._loop.on_signal(signal.SIGHUP, lambda: None)
        # The record is written before the supervisor starts, which reads it.
        self._update(port=self._tcp.getsockname()[1], keeper_pid=os.getpid())

    def run(self) -> int:
        """Serve until the supervisor ends in an orderly way; return the exit status."""
        if self._options.adopt:
            self._supervision.adopt(self._options.supervisor_pid, self._options.supervisor_fd)
        else:
            self._supervision.start()
        # The supervisor is on its way; who comes to keeper.sock meanwhile waits in its backlog.
        self._serve()
        while self._exit_code is None:
            self._loop.turn()
        return self._exit_code

    def _serve(self) -> None:
        """Open for panes and subscribers: the slower half of the imports."""
        from orchestrator_lab.keeper.clients import Clients, Hub
        from orchestrator_lab.keeper.pane import Panes

        self._hub = Hub(self._loop)
        self._panes = Panes(self._loop, self._hub, self._supervision.tell, self._supervision.listens)
        self._clients = Clients(self._loop, self._control, self._hub, self._panes.attach, self._status)
        self._serving = True

    # the supervisor -----------------------------------------------------------------------------

    def _on_started(self, pid: int) -> None:
        self._update(supervisor_pid=pid)

    def _hello(self) -> dict[str, Any]:
        return {
            "op": "hello",
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "restarts": self._supervision.restarts,
            "panes": [pane.describe() for pane in self._panes] if self._serving else [],
        }

    def _on_message(self, message: dict[str, Any]) -> None:
        panes = self._panes
        agent = str(message.get("agent", ""))
        match message.get("op"):
            case "record":
                panes.record(message)
            case "pane":
                panes.get(agent).pane = str(message["pane"])
            case "resize":
                panes.resize(agent, int(message["cols"]), int(message["rows"]))
            case "mark":
                panes.mark(agent, str(message["label"]))
            case "follow":
                every_s = message.get("every_s")
                panes.follow(agent, None if every_s is None else float(every_s))
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
        if not (self._folder / "cluster.json").exists():
            logger.info("the cluster's record was removed: there is nothing left to supervise")
            return False
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
        if self._serving:
            # What the programs wrote last may still be on its way through tmux.
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
        # The client of a failed start still has to read why; it takes the folder away itself.
        if self._exit_code == 0 and not (self._folder / "failure.json").exists():
            _remove(self._folder)


def _remove(folder: Path) -> None:
    """Take a runtime folder away: out of its name's way first, so that a new cluster of the name is never hit."""
    import shutil

    gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        folder.rename(gone)
    except OSError as error:
        logger.warning("%s stays: %s", folder, error)
        return
    shutil.rmtree(gone, ignore_errors=True)


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


def main(arguments: list[str]) -> int:
    """Run a keeper.

    Parameters
    ----------
    arguments : list of str
        See :class:`Options`.

    Returns
    -------
    int
        0 after an orderly end, 3 when the supervisor could not be kept alive, 75 when another
        keeper or supervisor lives here, 1 after any other trouble.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s keeper %(process)d %(levelname)s %(message)s")
    os.umask(0o077)
    try:
        options = Options(arguments)
        private_dir(options.folder)
        private_dir(options.folder / "logs")
        lock = options.lock_fd if options.adopt else acquire_lock(options.folder)
        if lock is None:
            logger.info("%s is locked: another keeper or supervisor lives", options.folder)
            return EXIT_LOCKED
        # Only the supervisor gets it, by name; nothing else that is ever started.
        os.set_inheritable(lock, False)
        os.chdir("/")
        return Keeper(options, lock).run()
    except (OrchestratorLabError, OSError) as error:
        logger.critical("%s", error)
        return 1
