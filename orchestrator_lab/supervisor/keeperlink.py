"""The supervisor's end of the line to its keeper: panes' activity comes in, recordings are asked for.

When the keeper dies, the line ends; the supervisor then starts a new keeper and hands it the listeners and the lock
that both hold, so that no address changes and no connection is refused in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["KeeperLink"]

logger = logging.getLogger(__name__)

#: A keeper that lived this long is replaced at once when it dies, in seconds.
_SETTLED_S = 5.0
#: Longest pause between two starts of a keeper, in seconds.
_LONGEST_PAUSE_S = 10.0


class KeeperLink:
    """One line of JSON each way.

    Parameters
    ----------
    folder : Path
        The cluster's runtime folder.
    api_fd, tcp_fd, lock_fd, keeper_fd : int
        Descriptors that the keeper gave to this process.
    supervisor_restarts : int
        How often this supervisor's cluster has had a new one; a new keeper counts on from it.
    on_message : callable
        Takes each message of the keeper.
    on_restarted : callable
        Awaited with the length of the gap in seconds when a new keeper runs and listens.
    """

    def __init__(
        self,
        folder: Path,
        *,
        api_fd: int,
        tcp_fd: int,
        lock_fd: int,
        keeper_fd: int,
        supervisor_restarts: int,
        on_message: Callable[[dict[str, Any]], None],
        on_restarted: Callable[[float], Awaitable[None]],
    ) -> None:
        self._folder = folder
        self._fds = {"--api-fd": api_fd, "--tcp-fd": tcp_fd, "--lock-fd": lock_fd}
        self._socket = socket.socket(fileno=keeper_fd)
        self._supervisor_restarts = supervisor_restarts
        self._on_message = on_message
        self._on_restarted = on_restarted
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._children: list[subprocess.Popen[bytes]] = []
        self._lost_at: float | None = None
        self._telling: asyncio.Task[None] | None = None
        self._greeted = asyncio.Event()
        self._hello: dict[str, Any] = {}
        self.restarts = 0

    async def open(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._run(), name="keeper link")

    async def hello(self, timeout_s: float) -> dict[str, Any]:
        """Return what the keeper said of itself and of the panes that it drains; nothing when it is silent."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._greeted.wait(), timeout_s)
        return self._hello

    def tell(self, **message: Any) -> None:  # noqa: ANN401 - JSON values
        """Send a message; it is lost when the keeper is just dying, and the new one is told everything anew."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """Stop listening, so that the keeper's orderly end is not taken for a death."""
        self._closing = True
        if self._writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._writer.drain(), 2)
        for task in (self._task, self._telling):
            if task is not None:
                task.cancel()

    async def _run(self) -> None:
        pause_s, begun = 0.0, time.monotonic()
        while True:
            # Dead by kill -9 or alive: end of file says so at once.
            with contextlib.suppress(OSError):
                await self._listen()
            if self._closing:
                return
            if self._telling is not None:
                self._telling.cancel()
            now = time.monotonic()
            # A keeper that dies before it has greeted makes the gap longer, not a second one.
            self._lost_at = now if self._lost_at is None else self._lost_at
            # A keeper that cannot live must not be started in a circle; one that lived a while starts at once.
            pause_s = 0.0 if now - begun > _SETTLED_S else min(_LONGEST_PAUSE_S, max(0.5, 2 * pause_s))
            await asyncio.sleep(pause_s)
            begun = time.monotonic()
            logger.warning("the keeper is gone; starting a new one")
            self._greeted.clear()
            self._respawn()
            self.restarts += 1

    async def _tell_anew(self, lost_at: float) -> None:
        """Tell a new keeper, which has just greeted, what it has to do."""
        try:
            await self._on_restarted(time.monotonic() - lost_at)
        except Exception:  # a keeper without panes is still better than none
            logger.exception("telling the new keeper failed")

    async def _listen(self) -> None:
        # A line may hold the title and marks of a pane; a megabyte is far above that.
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=1 << 20)
        while line := await reader.readline():
            try:
                message = json.loads(line)
            except ValueError:
                logger.warning("the keeper sent a line that is not JSON: %.80r", line)
                continue
            if message.get("op") == "hello":
                self._hello = message
                self._greeted.set()
                if self._lost_at is not None:
                    lost_at, self._lost_at = self._lost_at, None
                    self._telling = asyncio.create_task(self._tell_anew(lost_at), name="new keeper")
            try:
                self._on_message(message)
            except Exception:  # one message must not end the line
                logger.exception("handling the keeper's %.80r failed", message)
        self._writer.close()

    def _respawn(self) -> None:
        ours, theirs = socket.socketpair()
        fds = {**self._fds, "--supervisor-fd": theirs.fileno()}
        argv = [sys.executable, "-P", "-m", "orchestrator_lab.keeper", str(self._folder), "--adopt"]
        for name, fd in fds.items():
            argv += [name, str(fd)]
        argv += ["--supervisor-pid", str(os.getpid()), "--restarts", str(self._supervisor_restarts)]
        with (self._folder / "logs" / "keeper.log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=list(fds.values()),
                start_new_session=True,
            )
        theirs.close()
        self._children = [one for one in self._children if one.poll() is None] + [child]
        self._socket = ours
