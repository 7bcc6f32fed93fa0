"""Start the supervisor, notice its end, start it again."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from orchestrator_lab.keeper.lines import Lines
from orchestrator_lab.keeper.loop import READ
from orchestrator_lab.runtime import process_alive, process_start_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.keeper.loop import Loop

__all__ = ["Supervision", "restart_delay"]

logger = logging.getLogger(__name__)

#: Seconds of life after which a supervisor's end counts as a first failure again.
HEALTHY_S = 30.0

#: Seconds of the longest wait between two starts.
LONGEST_DELAY_S = 10.0

#: Failures in a row after which each further one is logged as an error.
WORRYING = 6

#: Seconds between two looks at a process that cannot be watched by descriptor (no pidfd, not our
#: child).
POLL_S = 0.5


def restart_delay(failures: int) -> float:
    """Return the seconds to wait before the next start.

    Parameters
    ----------
    failures : int
        Ends in a row, the latest included.

    Returns
    -------
    float
        At once after the first, then 0.5 s, doubling to 10 s.

    Examples
    --------
    >>> [restart_delay(n) for n in range(1, 9)]
    [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    """
    if failures <= 1:
        return 0.0
    return min(LONGEST_DELAY_S, 0.5 * 2.0 ** min(failures - 2, 30))


class Supervision:
    """The keeper's one child, or the supervisor that adopted it.

    Parameters
    ----------
    loop : Loop
        Where it is watched.
    folder : pathlib.Path
        The cluster's runtime folder.
    command : list of str
        Program and first arguments; folder and descriptors are appended.
    descriptors : dict of str to int
        What is handed over: option name (``--api-fd``) to descriptor.
    on_message : callable
        Takes what the supervisor says.
    hello : callable
        Makes the first message to a new supervisor.
    on_started : callable
        Takes the new pid.
    on_end : callable
        Called when the supervisor ended in an orderly way.
    may_restart : callable
        Takes the number of failures in a row; False gives up.
    restarts : int
        Restarts of the supervisor so far in this cluster's life.
    """

    def __init__(
        self,
        loop: Loop,
        folder: Path,
        *,
        command: list[str],
        descriptors: dict[str, int],
        on_message: Callable[[dict[str, Any]], None],
        hello: Callable[[], dict[str, Any]],
        on_started: Callable[[int], None],
        on_end: Callable[[], None],
        may_restart: Callable[[int], bool],
        restarts: int = 0,
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._command = command
        self._descriptors = descriptors
        self._on_message = on_message
        self._hello = hello
        self._on_started = on_started
        self._on_end = on_end
        self._may_restart = may_restart
        self.restarts = restarts
        self.failures = 0
        #: The living supervisor, or None between two.
        self.pid: int | None = None
        #: When the last one was seen to be gone (seconds since 1970), or None.
        self.gap_since: float | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._start_time: float | None = None
        self._started = 0.0
        self._pidfd: int | None = None
        self._lines: Lines | None = None
        self._bye = False
        self._stopping = False

    def tell(self, message: dict[str, Any]) -> bool:
        """Send to the supervisor; False when there is none or it does not read."""
        return self._lines is not None and self._lines.send(message)

    def listens(self) -> bool:
        """Whether the supervisor has read everything so far."""
        return self._lines is not None and self._lines.clear and not self._lines.closed

    def start(self) -> None:
        """Start a supervisor; a failure to start counts like an early end."""
        ours, theirs = socket.socketpair()
        handed = {**self._descriptors, "--keeper-fd": theirs.fileno()}
        argv = [*self._command, str(self._folder)]
        for option, descriptor in handed.items():
            argv += [option, str(descriptor)]
        if self.gap_since is not None:
            argv += ["--restart", str(self.restarts), "--gap-since", f"{self.gap_since:.6f}"]
        self._bye = False
        self._started = time.monotonic()
        log = os.open(
            self._folder / "logs" / "supervisor.log",
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
            0o600,
        )
        try:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(handed.values()),
                start_new_session=True,
            )
        except OSError as error:
            logger.critical("cannot start the supervisor %s: %s", argv[0], error)
            ours.close()
            self._gone(None)
            return
        finally:
            theirs.close()
            os.close(log)
        self._begin(self._child.pid, ours)
        logger.info("started supervisor %d (restart %d)", self._child.pid, self.restarts)

    def adopt(self, pid: int, descriptor: int) -> None:
        """Watch the supervisor that started this keeper; it is not our child."""
        self._started = time.monotonic()
        self._begin(pid, socket.socket(fileno=descriptor))
        logger.info("adopted supervisor %d", pid)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Pass a signal on; whatever the supervisor's exit status, it is not started again."""
        self._stopping = True
        if self.pid is None:
            self._loop.cancel("restart")
            self._on_end()
            return
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            self._look()

    def close(self) -> None:
        """Let go of the supervisor without ending it."""
        self._release()

    def _begin(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._start_time = process_start_time(pid)
        self._lines = Lines(self._loop, connection, self._heard, self._broke_off)
        try:
            self._pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._pidfd = None
        if self._pidfd is not None:
            self._loop.watch(self._pidfd, READ, lambda _: self._look())
        else:
            self._loop.on_signal(signal.SIGCHLD, self._look)
            self._poll()
        self._on_started(pid)
        self.tell(self._hello())

    def _heard(self, message: dict[str, Any]) -> None:
        if message.get("op") == "bye":
            self._bye = True
        else:
            self._on_message(message)

    def _broke_off(self) -> None:
        # Only the process's end counts: a supervisor that closed this by mistake still serves its
        # agents.
        if self.pid is not None and process_alive(self.pid, self._start_time):
            logger.info("the supervisor closed its end of the keeper's line")

    def _poll(self) -> None:
        self._look()
        if self.pid is not None and self._pidfd is None:
            self._loop.at("poll", time.monotonic() + POLL_S, self._poll)

    def _look(self) -> None:
        """Settle whether the supervisor is gone, and how it went."""
        if self.pid is None:
            return
        status: int | None = None
        if self._child is not None:
            status = self._child.poll()
            if status is None:
                return
        elif process_alive(self.pid, self._start_time):
            return
        self._gone(status)

    def _gone(self, status: int | None) -> None:
        self.gap_since = time.time()
        lived = time.monotonic() - self._started
        if self._lines is not None:
            self._lines.read_rest()
        pid = self.pid
        self._release()
        # Of a supervisor that is not our child there is no status: it says goodbye before it exits.
        orderly = status == 0 or (status is None and self._bye)
        if orderly or self._stopping:
            logger.info("supervisor %s ended (status %s, bye %s)", pid, status, self._bye)
            self._on_end()
            return
        self.failures = 1 if lived >= HEALTHY_S else self.failures + 1
        delay = restart_delay(self.failures)
        level = logging.ERROR if self.failures >= WORRYING else logging.WARNING
        logger.log(
            level,
            "supervisor %s ended unexpectedly after %.1f s (status %s, %d in a row): next in %.1f s",
            pid,
            lived,
            "unknown" if status is None else status,
            self.failures,
            delay,
        )
        if not self._may_restart(self.failures):
            self._on_end()
            return
        self._loop.at("restart", time.monotonic() + delay, self._again)

    def _again(self) -> None:
        if not self._may_restart(self.failures):
            self._on_end()
            return
        self.restarts += 1
        self.start()

    def _release(self) -> None:
        if self._pidfd is not None:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._loop.cancel("poll")
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        self._child = None
        self.pid = None
        self._start_time = None
