"""HTTP to a supervisor over its unix socket, and the start of the processes behind it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab import __version__
from orchestrator_lab.errors import (
    ClusterExists,
    ClusterNotFound,
    EnvironmentProblem,
    ExchangeTimeout,
    SupervisorLost,
    VersionMismatch,
    from_payload,
)
from orchestrator_lab.runtime import (
    PROTOCOL,
    ClusterRecord,
    cluster_dir,
    is_locked,
    list_clusters,
    private_dir,
    read_record,
    runtime_dir,
    write_private,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

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
        self._http: httpx.Client | None = None
        self._stream: Any = None

    # synchronous --------------------------------------------------------------------------------

    def get(self, path: str, *, timeout_s: float | None = None, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask; `timeout_s` is passed on and bounds the wait (None waits for ever)."""
        return self._call("GET", path, timeout_s, params, None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do something; bodies carry ids of their own, so that repeating one changes nothing."""
        return self._call("POST", path, None, {}, body or {})

    def delete(self, path: str) -> dict[str, Any]:
        """Take something away."""
        return self._call("DELETE", path, None, {}, None)

    def _call(
        self, method: str, path: str, timeout_s: float | None, params: dict[str, Any], body: dict[str, Any] | None
    ) -> dict[str, Any]:
        import httpx

        begun = time.monotonic()
        give_up = begun + _HEAL_S
        while True:
            left = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - begun))
            try:
                response = self._open().request(
                    method,
                    path,
                    params={**params, **({} if left is None else {"timeout": left})},
                    json=body,
                    timeout=httpx.Timeout(5.0, read=None if left is None else left + _MARGIN_S, pool=None),
                )
                return _answer(response)
            except httpx.ReadTimeout as error:
                raise ExchangeTimeout(f"cluster {self.name!r} gave no answer to {path} within {timeout_s} s") from error
            except httpx.TransportError as error:
                self.close()
                if time.monotonic() > give_up:
                    raise SupervisorLost(
                        f"the supervisor of cluster {self.name!r} does not answer ({error}); see "
                        f"{self.folder / 'logs' / 'supervisor.log'}"
                    ) from error
                wake(self.name)
                time.sleep(0.02)

    def _open(self) -> httpx.Client:
        if self._http is None:
            import httpx

            self._http = httpx.Client(
                transport=httpx.HTTPTransport(uds=str(self.folder / "api.sock")), base_url="http://supervisor"
            )
        return self._http

    def close(self) -> None:
        """Close the connection; the cluster goes on."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def events(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Yield journal events from a sequence number on, and then as they come.

        A connection of its own: leaving the loop, or :meth:`hang_up` from another thread, ends it.
        """
        import httpx

        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.folder / "api.sock")), base_url="http://supervisor"
        ) as http:
            timeout = httpx.Timeout(5.0, read=_STREAM_SILENCE_S)
            with http.stream("GET", "/events", params={"since": since}, timeout=timeout) as reply:
                self._stream = reply.extensions.get("network_stream")
                for line in reply.iter_lines():
                    if line.strip():
                        yield json.loads(line)

    def hang_up(self) -> None:
        """End a running :meth:`events` from another thread."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    # asynchronous -------------------------------------------------------------------------------

    async def aget(self, path: str, *, timeout_s: float | None = None, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask without blocking the loop; see :meth:`get`."""
        import asyncio

        import httpx

        begun = time.monotonic()
        give_up = begun + _HEAL_S
        while True:
            left = None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - begun))
            try:
                async with httpx.AsyncClient(
                    transport=httpx.AsyncHTTPTransport(uds=str(self.folder / "api.sock")),
                    base_url="http://supervisor",
                ) as http:
                    response = await http.get(
                        path,
                        params={**params, **({} if left is None else {"timeout": left})},
                        timeout=httpx.Timeout(5.0, read=None if left is None else left + _MARGIN_S),
                    )
                return _answer(response)
            except httpx.ReadTimeout as error:
                raise ExchangeTimeout(f"cluster {self.name!r} gave no answer to {path} within {timeout_s} s") from error
            except httpx.TransportError as error:
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


def _answer(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_error and isinstance(body, dict) and isinstance(body.get("error"), dict):
        raise from_payload(body["error"])
    if response.is_error or not isinstance(body, dict):
        raise SupervisorLost(f"the supervisor answered with status {response.status_code}: {response.text[:200]}")
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
    raise ClusterNotFound(
        f"no cluster {name!r} is running here; running: {', '.join(sorted(running)) or 'none'}", cluster=name
    )


def wake(name: str) -> None:
    """Start keeper and supervisor again when both are gone but the agents live."""
    folder = find(name)
    if not is_locked(folder):
        _spawn_keeper(folder)


def launch(
    config: ClusterConfig, run_dir: Path, run_id: str, environ: dict[str, str]
) -> tuple[Path, subprocess.Popen[bytes]]:
    """Write the runtime folder of a new cluster and start its keeper.

    Returns
    -------
    tuple of (Path, subprocess.Popen)
        The runtime folder, and the keeper (detached; it outlives this process).

    Raises
    ------
    ClusterExists
        When a cluster of this name runs.
    EnvironmentProblem
        When the place of the sockets is too long or not private.
    """
    folder = cluster_dir(config.name)
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
    return folder, _spawn_keeper(folder)


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
    for leftover in folder.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _spawn_keeper(folder: Path) -> subprocess.Popen[bytes]:
    private_dir(folder / "logs")
    with (folder / "logs" / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator_lab.keeper", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
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
