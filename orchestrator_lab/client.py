"""HTTP to a supervisor over its unix socket, and the start of the processes behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from orchestrator_lab import __version__
from orchestrator_lab.acting import audit_headers
from orchestrator_lab.errors import (
    ClusterExists,
    ClusterNotFound,
    EnvironmentProblem,
    ExchangeTimeout,
    SupervisorLost,
    VersionMismatch,
    from_payload,
)
from orchestrator_lab.orphans import HANGUP, end, kept_in, survivors
from orchestrator_lab.runtime import (
    CLUSTER_MARK,
    PROTOCOL,
    ClusterRecord,
    acquire_lock,
    cluster_dir,
    is_locked,
    list_clusters,
    private_dir,
    read_record,
    runtime_dir,
    write_private,
    write_record,
)
from orchestrator_lab.wire import Wire, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab.config import ClusterConfig

__all__ = ["Client", "check_locale", "find", "launch", "wake"]

#: Seconds that a new supervisor may take to answer its first call.
_FIRST_ANSWER_S = 20.0
#: Seconds for which a call is repeated while supervisor or keeper restart.
_HEAL_S = 20.0
#: Seconds between two looks at a socket that is just being made (nothing tells of it).
_LOOK_S = 0.005
#: Seconds without a line (the supervisor sends an empty one each 15 s) after which a stream is dead.
_STREAM_SILENCE_S = 45.0
#: Seconds for a connection: the keeper holds the socket even while its supervisor restarts.
_CONNECT_S = 5.0
#: Seconds added to a waiting call's own timeout before the connection is given up.
_MARGIN_S = 10.0


class Client:
    """Calls one supervisor; brings it back when it is gone but its agents live.

    Parameters
    ----------
    folder : Path
        The cluster's runtime folder.
    name : str
        The cluster's name, for errors.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        #: Seconds after which a call that names no timeout is given up; None waits for ever.
        self.patience_s: float | None = None
        self._idle: list[Wire] = []
        self._stream: _Connection | None = None
        self._hung_up = False

    # synchronous --------------------------------------------------------------------------------

    def get(self, path: str, *, timeout_s: float | None = None, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask; `timeout_s` is passed on and bounds the wait (None waits as long as `patience_s` says)."""
        return self._call("GET", path, timeout_s, params, None)

    def post(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        **params: Any,  # noqa: ANN401
    ) -> dict[str, Any]:
        """Do something; bodies carry ids of their own, so that repeating one changes nothing."""
        return self._call("POST", path, timeout_s, params, body or {})

    def post_once(self, path: str, body: dict[str, Any], *, timeout_s: float | None = 10.0) -> dict[str, Any]:
        """Do what must never be done twice on a guess, such as typing a key.

        A cluster whose keeper and supervisor are gone is woken before anything is sent.

        Parameters
        ----------
        path, body
            As :meth:`post`.
        timeout_s : float or None
            Seconds until the answer is given up; None waits for ever.

        Raises
        ------
        SupervisorLost
            When there is no answer; the sentence says whether it may have been done.
        ClusterNotFound
            When it runs no more; nothing was done.
        """
        give_up = time.monotonic() + _HEAL_S
        while True:
            try:
                # A connection of its own: of a kept one that breaks, nobody knows when it did.
                wire = Wire(self.folder / "api.sock")
                break
            except OSError as error:  # nothing was sent yet: it may be tried again
                if time.monotonic() > give_up:
                    raise SupervisorLost(
                        f"the supervisor of cluster {self.name!r} does not answer ({error}): nothing was done"
                    ) from error
                wake(self.name)
                time.sleep(0.02)
        try:
            status, raw, _ = wire.exchange("POST", quote(path), json.dumps(body).encode(), timeout_s, audit_headers())
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorLost(
                f"the supervisor of cluster {self.name!r} gave no answer ({error}): whether it was done is not known"
            ) from error
        finally:
            wire.close()
        return _answer(status, raw)

    def delete(self, path: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Take something away."""
        return self._call("DELETE", path, None, params, None)

    def _call(
        self, method: str, path: str, timeout_s: float | None, params: dict[str, Any], body: dict[str, Any] | None
    ) -> dict[str, Any]:
        begun = time.monotonic()
        give_up = begun + _HEAL_S
        while True:
            left = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - begun))
            wait = self.patience_s if left is None else left + _MARGIN_S
            try:
                return _answer(*self._exchange(method, _target(path, params, left), body, wait))
            except ExchangeTimeout:
                raise  # what the supervisor says of it
            except TimeoutError as error:
                within = self.patience_s if timeout_s is None else timeout_s
                raise ExchangeTimeout(f"cluster {self.name!r} gave no answer to {path} within {within} s") from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if time.monotonic() > give_up:
                    raise SupervisorLost(
                        f"the supervisor of cluster {self.name!r} does not answer ({error}); see "
                        f"{self.folder / 'logs' / 'supervisor.log'}"
                    ) from error
                wake(self.name)
                time.sleep(0.02)

    def _exchange(
        self, method: str, target: str, body: dict[str, Any] | None, wait_s: float | None
    ) -> tuple[int, bytes]:
        """Make one request; a kept connection that the other side has closed meanwhile is replaced."""
        payload = None if body is None else json.dumps(body).encode()
        while True:
            # One thread's connection is no other's: what is in use is not in the list.
            try:
                wire: Wire | None = self._idle.pop()
            except IndexError:
                wire = None
            kept = wire is not None
            wire = wire or Wire(self.folder / "api.sock")
            try:
                status, answer, stays = wire.exchange(method, target, payload, wait_s, audit_headers())
            except BaseException as error:
                wire.close()
                if kept and isinstance(error, ConnectionError | http.client.BadStatusLine):
                    continue
                raise
            if stays:
                self._idle.append(wire)
            else:
                wire.close()
            return status, answer

    def close(self) -> None:
        """Close the connections that are not in use; the cluster goes on."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            self.close()

    def events(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Yield journal events from a sequence number on, and then as they come.

        A connection of its own: leaving the loop, or :meth:`hang_up` from another thread, ends it.

        Raises ConnectionError when the supervisor goes: a caller that wants to go on asks again, from the last number.
        """
        connection = _Connection(self.folder / "api.sock")
        # The supervisor sends a sign of life each quarter of a minute.
        connection.wait(60.0)
        try:
            connection.request("GET", _target("/events", {"since": since}, None))
            self._stream = connection
            if self._hung_up:
                return
            response = connection.getresponse()
            if response.status != 200:
                _answer(response.status, response.read())
            for line in response:
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"the supervisor of cluster {self.name!r} went away: {error}") from error
        finally:
            self._stream = None
            connection.close()

    def hang_up(self) -> None:
        """End :meth:`events`, from another thread: its wait ends at once."""
        self._hung_up = True
        stream = self._stream
        sock = stream.sock if stream is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    # asynchronous -------------------------------------------------------------------------------

    async def aget(self, path: str, *, timeout_s: float | None = None, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask without blocking the loop; see :meth:`get`."""
        import asyncio

        begun = time.monotonic()
        give_up = begun + _HEAL_S
        while True:
            left = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - begun))
            try:
                async with asyncio.timeout(None if left is None else left + _MARGIN_S):
                    return _answer(*await _aexchange(self.folder / "api.sock", _target(path, params, left)))
            except ExchangeTimeout:
                raise  # what the supervisor says of it
            except TimeoutError as error:
                raise ExchangeTimeout(f"cluster {self.name!r} gave no answer to {path} within {timeout_s} s") from error
            except (OSError, EOFError, http.client.HTTPException) as error:
                if time.monotonic() > give_up:
                    raise SupervisorLost(
                        f"the supervisor of cluster {self.name!r} does not answer ({error})"
                    ) from error
                await asyncio.to_thread(wake, self.name)
                await asyncio.sleep(0.02)

    def check_version(self) -> None:
        """Raise VersionMismatch when the supervisor speaks another protocol than this client."""
        record = read_record(self.folder)
        if record is not None and record.protocol != PROTOCOL:
            raise VersionMismatch(_mismatch(self.name, record.version, record.protocol))
        hello = self.get("/hello", timeout_s=_FIRST_ANSWER_S)
        if hello.get("protocol") != PROTOCOL:
            raise VersionMismatch(_mismatch(self.name, hello.get("version"), hello.get("protocol")))


def _mismatch(name: str, version: object, protocol: object) -> str:
    return (
        f"cluster {name!r} is run by orchestrator-lab {version} (protocol {protocol}), this is {__version__} (protocol "
        f"{PROTOCOL}): use that version, or end the cluster with it and start it again with this one"
    )


class _Connection(http.client.HTTPConnection):
    """HTTP over the supervisor's unix socket, for answers without an end."""

    def __init__(self, place: Path) -> None:
        super().__init__("supervisor")
        self._place = place

    def connect(self) -> None:
        """Connect; the server answers at once or is not there."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_S)
        self.sock.connect(str(self._place))
        self.sock.settimeout(self.timeout)

    def wait(self, timeout_s: float | None) -> None:
        """Set how long an answer may take; None is without end."""
        self.timeout = timeout_s
        if self.sock is not None:
            self.sock.settimeout(timeout_s)


def _target(path: str, params: dict[str, Any], timeout_s: float | None) -> str:
    asked = {key: value for key, value in params.items() if value is not None}
    if timeout_s is not None:
        asked["timeout"] = timeout_s
    target = quote(path)
    return f"{target}?{urlencode(asked)}" if asked else target


async def _aexchange(place: Path, target: str) -> tuple[int, bytes]:
    """Make one GET request on a connection of its own, on the running loop."""
    import asyncio

    reader, writer = await asyncio.open_unix_connection(str(place))
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: supervisor\r\nConnection: close\r\n\r\n".encode("ascii"))
        status, length, _ = read_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
        body = await (reader.read() if length is None else reader.readexactly(length))
    finally:
        writer.close()
    return status, body


def _answer(status: int, raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if status >= 400 and isinstance(body, dict) and isinstance(body.get("error"), dict):
        raise from_payload(body["error"])
    if status >= 400 or not isinstance(body, dict):
        raise SupervisorLost(f"the supervisor answered with status {status}: {raw[:200].decode('utf-8', 'replace')}")
    return body


# the processes ----------------------------------------------------------------------------------


def find(name: str) -> Path:
    """Return the runtime folder of a cluster that runs, also when only its agents are left.

    Raises
    ------
    ClusterNotFound
        When no cluster of this name runs.
    """
    folder = runtime_dir() / name
    record = read_record(folder) if folder.is_dir() else None
    if record is not None and (is_locked(folder) or record.alive("tmux")):
        return folder
    running = [one.name for one in list_clusters() if is_locked(runtime_dir() / one.name) or one.alive("tmux")]
    if record is not None:
        raise ClusterNotFound(
            f"cluster {name!r} is not running any more: all its processes ended at once. Its run goes on with: "
            f"orchestrator-lab start --resume {record.run_dir}",
            cluster=name,
        )
    raise ClusterNotFound(
        f"no cluster {name!r} is running here; running: {', '.join(sorted(running)) or 'none'}", cluster=name
    )


def wake(name: str) -> None:
    """Start keeper and supervisor again when both are gone but the agents live."""
    folder = find(name)
    if not is_locked(folder):
        try:
            _spawn_keeper(folder)
        except FileNotFoundError:
            find(name)  # it has ended meanwhile, with its folder, which nobody may make again


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C wait until the block is over: a process that is just being started must not be lost."""
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def launch(config: ClusterConfig, run_dir: Path, run_id: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """Write the runtime folder of a new cluster and start its keeper.

    Returns
    -------
    subprocess.Popen
        The keeper (detached; it outlives this process).

    Raises
    ------
    ClusterExists
        When a cluster of this name runs.
    EnvironmentProblem
        When the place of the sockets is too long or not private.
    """
    folder = cluster_dir(config.name)
    try:
        for name in ("agents", "buffers", "logs"):
            private_dir(folder / name)
        write_private(folder / "config.json", config.to_json())
        write_private(folder / "environ.json", json.dumps(environ))
        owner = config.lifetime == "owner"
        write_record(
            folder,
            ClusterRecord(
                name=config.name,
                run_dir=str(run_dir),
                run_id=run_id,
                version=__version__,
                owner_pid=os.getpid() if owner else None,
                lifetime=config.lifetime,
                session_name=config.session_name,
                started_at=datetime.now(UTC).isoformat(),
            ),
        )
        return _spawn_keeper(folder)
    except BaseException:  # Ctrl-C before there is a keeper: the folder, with its secrets, is nobody's
        shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse_if_running(name: str) -> None:
    """Raise ClusterExists when a cluster of this name runs; clear away what a dead one left."""
    folder = cluster_dir(name)
    record = read_record(folder)
    if is_locked(folder) or (record is not None and record.alive("tmux")):
        raise ClusterExists(
            f"cluster {name!r} is running already (run {record.run_id if record else 'unknown'}): attach to it, "
            f"shut it down with 'orchestrator-lab shutdown {name}', or give this one another name",
            cluster=name,
        )
    if not folder.is_dir():
        return
    # Programs that outlived everything else of that cluster would go on unseen.
    end(survivors(kept_in(folder)), signals=HANGUP)
    for leftover in folder.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def clear(folder: Path) -> None:
    """Take away what a cluster left whose keeper was killed at its very end."""
    record = read_record(folder)
    if record is None or record.alive("tmux"):
        return
    lock = acquire_lock(folder)
    if lock is None:
        return
    # Held meanwhile, so that no new cluster of this name moves in.
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _spawn_keeper(folder: Path) -> subprocess.Popen[bytes]:
    with contextlib.suppress(FileExistsError):
        (folder / "logs").mkdir(mode=0o700)
    log_file = os.open(folder / "logs" / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(log_file, "ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator_lab.keeper", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            # A cluster that an agent starts is no child of that agent's: it must not carry its marks.
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRATOR_LAB_AGENT")},
                CLUSTER_MARK: str(folder),
            },
        )
    _reap()
    _keepers.append(keeper)
    return keeper


#: Keepers that this process started. They outlive it on purpose; one that ends earlier leaves no zombie behind.
_keepers: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    _keepers[:] = [one for one in _keepers if one.poll() is None]


def wait_for_socket(client: Client, keeper: subprocess.Popen[bytes]) -> None:
    """Wait until a new keeper listens; raise what it, or its supervisor, said when it ended instead."""
    deadline = time.monotonic() + _FIRST_ANSWER_S
    while not (client.folder / "api.sock").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise failure_of(client.folder, client.name)
        time.sleep(_LOOK_S)


def failure_of(folder: Path, name: str) -> Exception:
    """Return the error that a supervisor left behind when it could not go on."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return from_payload(json.loads((folder / "failure.json").read_text(encoding="utf-8")))
    log = ""
    for place in (folder / "logs" / "supervisor.log", folder / "logs" / "keeper.log"):
        with contextlib.suppress(OSError):
            log = log or place.read_text(encoding="utf-8", errors="replace").strip()[-800:]
    return SupervisorLost(f"the supervisor of cluster {name!r} did not start; the end of its log:\n{log or '(empty)'}")


def wait_until_gone(folder: Path, timeout_s: float = 30.0) -> None:
    """Wait until neither keeper nor supervisor of a folder lives."""
    deadline = time.monotonic() + timeout_s
    while folder.is_dir() and is_locked(folder) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    _reap()


def check_locale(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment with a UTF-8 locale in it.

    Parameters
    ----------
    environ : dict
        The owner's environment.

    Returns
    -------
    dict
        The same, with ``LANG=C.UTF-8`` where no locale is set at all.

    Raises
    ------
    EnvironmentProblem
        When a locale is set that is not UTF-8: agents would draw and read other characters than the lab.

    Examples
    --------
    >>> check_locale({})["LANG"]
    'C.UTF-8'
    """
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = environ.get(name)
        if value:
            if value.upper().replace("-", "").endswith("UTF8") or "UTF8" in value.upper().replace("-", ""):
                return environ
            raise EnvironmentProblem(
                f"{name}={value} is no UTF-8 locale, and agents would garble every other character: set "
                f"{name}=C.UTF-8 (or your language's UTF-8 locale) and start again",
                variable=name,
            )
    return {**environ, "LANG": "C.UTF-8"}
