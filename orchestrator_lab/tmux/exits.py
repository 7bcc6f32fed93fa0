"""Exits of the programs in panes, each with its status, none missed.

A pidfd (kqueue on macOS) fires within a millisecond. tmux may then have lost its own SIGCHLD (builds with utempter do
in nine cases of ten), and would never learn the status: so it gets one from us before it is asked. A
sweep each second finds what no descriptor told.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator_lab.errors import TmuxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.tmux.panes import Pulse

__all__ = ["ExitWatcher", "PaneExit"]

logger = logging.getLogger(__name__)

_SWEEP_S = 1.0
_POLL_S = 0.25  # where there is neither pidfd nor kqueue
#: When to poke and ask again, seconds after the exit was seen; then every 100 ms.
_RETRIES_S = (0.0, 0.001, 0.004, 0.010, 0.020, 0.040, 0.080, 0.150)
#: After this long without a status (tmux 3.2a never tells a signal) the exit is told without one.
_GIVE_UP_S = 0.5
_FEW = 16


@dataclass(frozen=True, slots=True)
class PaneExit:
    """The end of a program in a pane.

    Parameters
    ----------
    pane_id : str
        The pane.
    pid : int
        The process that ended.
    status : int or None
        Exit status; None when a signal ended it, or when tmux does not know.
    signal : int or None
        Number of the signal that ended it. Both are None when the pane was closed by somebody else, or the tmux
        server is gone.
    """

    pane_id: str
    pid: int
    status: int | None
    signal: int | None


class _Poller:
    """Tells which processes ended. This one cannot: it leaves everything to the sweep."""

    interval = _POLL_S
    #: Whether :meth:`wait` tells of ends at all.
    tells = False

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def add(self, pid: int) -> bool:  # noqa: ARG002
        """Watch a process; False when it is gone already."""
        return True

    def remove(self, pid: int) -> None:
        """Stop watching a process."""

    def wait(self, timeout: float) -> list[int]:
        """Return the processes that ended, after `timeout` seconds at most."""
        select.select([self._read], [], [], timeout)
        self._drain()
        return []

    def wake(self) -> None:
        """End a :meth:`wait` from another thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"x")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        """Free the descriptors."""
        os.close(self._read)
        os.close(self._write)


class _PidfdPoller(_Poller):
    interval = _SWEEP_S
    tells = True

    def __init__(self) -> None:
        super().__init__()
        self._fds: dict[int, int] = {}
        self._pids: dict[int, int] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._read, select.EPOLLIN)

    def add(self, pid: int) -> bool:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self._fds[pid] = fd
        self._pids[fd] = pid
        self._epoll.register(fd, select.EPOLLIN)
        return True

    def remove(self, pid: int) -> None:
        fd = self._fds.pop(pid, None)
        if fd is not None:
            del self._pids[fd]
            self._epoll.unregister(fd)
            os.close(fd)

    def wait(self, timeout: float) -> list[int]:
        ended = []
        for fd, _ in self._epoll.poll(timeout):
            if fd == self._read:
                self._drain()
            elif fd in self._pids:
                ended.append(self._pids[fd])
        return ended

    def close(self) -> None:
        for pid in list(self._fds):
            self.remove(pid)
        self._epoll.close()
        super().close()


class _KqueuePoller(_Poller):  # pragma: no cover - macOS and BSD
    interval = _SWEEP_S
    tells = True

    def __init__(self) -> None:
        super().__init__()
        if sys.platform != "linux":
            self._queue = select.kqueue()
            self._queue.control([select.kevent(self._read, select.KQ_FILTER_READ, select.KQ_EV_ADD)], 0)

    def add(self, pid: int) -> bool:
        if sys.platform != "linux":
            event = select.kevent(
                pid,
                select.KQ_FILTER_PROC,
                select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
                select.KQ_NOTE_EXIT,
            )
            try:
                self._queue.control([event], 0)
            except ProcessLookupError:
                return False
        return True

    def remove(self, pid: int) -> None:
        if sys.platform != "linux":
            event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_DELETE)
            with contextlib.suppress(OSError):
                self._queue.control([event], 0)

    def wait(self, timeout: float) -> list[int]:
        ended: list[int] = []
        if sys.platform != "linux":
            for event in self._queue.control([], 64, timeout):
                if event.filter == select.KQ_FILTER_PROC:
                    ended.append(event.ident)
                else:
                    self._drain()
        return ended

    def close(self) -> None:
        if sys.platform != "linux":
            self._queue.close()
        super().close()


def _new_poller() -> _Poller:
    if hasattr(os, "pidfd_open"):
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:  # a kernel before 5.3, or a sandbox
            return _Poller()
        return _PidfdPoller()
    if hasattr(select, "kqueue"):  # pragma: no cover - macOS and BSD
        return _KqueuePoller()
    return _Poller()  # pragma: no cover


class _Dying:
    """An exit seen, whose status is still to be learnt."""

    __slots__ = ("pane_id", "pid", "since", "tries")

    def __init__(self, pane_id: str, pid: int) -> None:
        self.pane_id = pane_id
        self.pid = pid
        self.since = time.monotonic()
        self.tries = 0

    def due(self) -> float:
        """Instant of the next try."""
        if self.tries < len(_RETRIES_S):
            return self.since + _RETRIES_S[self.tries]
        return self.since + _RETRIES_S[-1] + 0.1 * (self.tries - len(_RETRIES_S) + 1)


class ExitWatcher:
    """Watches the processes of panes on a thread of its own.

    Parameters
    ----------
    query : callable
        Called with the panes asked for, or None for all; returns their pulses by pane id, without those that
        do not exist. Raises TmuxError when tmux does not answer.
    poke : callable
        Sends SIGCHLD to the tmux server; returns False when the server is gone.
    callback : callable
        Called with a :class:`PaneExit` on the watcher's thread.
    server : int, optional
        The tmux server's process.
    gone : callable, optional
        Called once, on the watcher's thread, when the server has ended. The ends of its panes are then not told one by
        one, and nothing more is watched. Without it they are told without a status.
    """

    def __init__(
        self,
        query: Callable[[list[str] | None], dict[str, Pulse]],
        poke: Callable[[], bool],
        callback: Callable[[PaneExit], None],
        *,
        server: int | None = None,
        gone: Callable[[], None] | None = None,
    ) -> None:
        self._gone = gone
        self._server = server if gone is not None else None
        self._query = query
        self._poke = poke
        self._callback = callback
        self._lock = threading.Lock()
        self._watched: dict[str, int] = {}
        self._dying: dict[str, _Dying] = {}
        self._poller = _new_poller()
        self._server_ended = self._server is not None and not self._poller.add(self._server)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tmux-exits", daemon=True)
        self._thread.start()

    def add(self, pane_id: str, pid: int) -> None:
        """Watch the process of a pane.

        Parameters
        ----------
        pane_id : str
            The pane.
        pid : int
            Its process; if that is gone already, its exit is told at once.
        """
        with self._lock:
            self._forget(pane_id)
            if self._poller.add(pid):
                self._watched[pane_id] = pid
            else:
                self._dying[pane_id] = _Dying(pane_id, pid)
        self._poller.wake()

    def forget(self, pane_id: str) -> None:
        """Stop watching a pane, because its process is about to be ended on purpose.

        Parameters
        ----------
        pane_id : str
            The pane.
        """
        with self._lock:
            self._forget(pane_id)

    def _forget(self, pane_id: str) -> None:
        pid = self._watched.pop(pane_id, None)
        if pid is not None:
            self._poller.remove(pid)
        self._dying.pop(pane_id, None)

    def close(self) -> None:
        """Stop the thread; no callback comes afterwards."""
        self._closing = True
        self._poller.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- the watcher's thread

    def _run(self) -> None:
        sweep = time.monotonic() + self._poller.interval
        try:
            while not self._closing:
                with self._lock:
                    due = min((d.due() for d in self._dying.values()), default=sweep)
                ended = [] if self._server_ended else self._poller.wait(max(0.0, min(due, sweep) - time.monotonic()))
                if self._closing:
                    return
                if self._server_ended or self._server in ended:
                    self._tell_gone()
                    continue
                now = time.monotonic()
                swept = now >= sweep
                if swept:
                    sweep = now + self._poller.interval
                with self._lock:
                    for pid in ended:
                        self._ended(pid)
                    # Where no descriptor tells of the server, it is asked also when nothing runs in it.
                    busy = swept and (bool(self._watched) or (self._server is not None and not self._poller.tells))
                    busy = busy or any(d.due() <= now + 0.0005 for d in self._dying.values())
                if busy or ended:
                    self._settle(swept=swept)
        finally:
            self._poller.close()

    def _ended(self, pid: int) -> None:
        for pane_id, watched in list(self._watched.items()):
            if watched == pid:
                self._forget(pane_id)
                self._dying[pane_id] = _Dying(pane_id, pid)

    def _settle(self, *, swept: bool) -> None:
        """Ask tmux for the pulses, and tell what is settled."""
        with self._lock:
            dying = list(self._dying)
            # What is added while tmux is asked is not in its answer, and has not ended for that.
            watched = dict(self._watched)
        alive = True
        if dying:
            alive = self._poke()
        pulses: dict[str, Pulse] | None
        try:
            # Of a hundred panes a few are asked sooner than all.
            pulses = self._query(dying if not swept and len(dying) <= _FEW else None)
        except TmuxError:
            # A client may have been replaced under us; only a dead server is an answer.
            pulses = None
            alive = alive and self._poke()
        told: list[PaneExit] = []
        with self._lock:
            if pulses is None:
                for waiting in self._dying.values():
                    waiting.tries += 1
                if not alive and self._gone is not None:
                    self._server_ended = True
                elif not alive:
                    told = [PaneExit(d.pane_id, d.pid, None, None) for d in self._dying.values()]
                    told += [PaneExit(pane, pid, None, None) for pane, pid in self._watched.items()]
                    self._dying.clear()
                    for pane_id in list(self._watched):
                        self._forget(pane_id)
            else:
                if swept:
                    dying += self._sweep(pulses, watched)
                told = self._tell(pulses, dying)
        for exit_ in told:
            if self._closing:
                return
            try:
                self._callback(exit_)
            except Exception:  # the watcher must outlive whoever it calls
                logger.exception("the callback for the exit of pane %s failed", exit_.pane_id)

    def _tell_gone(self) -> None:
        with self._lock:
            self._dying.clear()
            for pane_id in list(self._watched):
                self._forget(pane_id)
            if self._server is not None:
                self._poller.remove(self._server)
            self._server, self._server_ended = None, False
        gone, self._gone = self._gone, None
        if gone is not None:
            try:
                gone()
            except Exception:  # whoever is told must not break the thread's end
                logger.exception("the callback for the end of the tmux server failed")

    def _sweep(self, pulses: dict[str, Pulse], watched: dict[str, int]) -> list[str]:
        """Return the panes whose process has ended unseen, of those that were watched when tmux was asked."""
        found = []
        for pane_id, pid in watched.items():
            pulse = pulses.get(pane_id)
            over = pulse is None or pulse.pid != pid or pulse.dead or pulse.settled
            if over and self._watched.get(pane_id) == pid:
                self._ended(pid)
                found.append(pane_id)
        return found

    def _tell(self, pulses: dict[str, Pulse], asked: list[str]) -> list[PaneExit]:
        told = []
        now = time.monotonic()
        for waiting in [self._dying[pane_id] for pane_id in asked if pane_id in self._dying]:
            waiting.tries += 1
            pulse = pulses.get(waiting.pane_id)
            if pulse is not None and pulse.pid == waiting.pid:
                if pulse.settled:
                    told.append(PaneExit(waiting.pane_id, waiting.pid, pulse.exit_status, pulse.exit_signal))
                elif now - waiting.since < _GIVE_UP_S:
                    continue
                elif not pulse.dead and self._poller.add(waiting.pid):
                    self._watched[waiting.pane_id] = waiting.pid  # alive, or not yet reaped
                else:
                    told.append(PaneExit(waiting.pane_id, waiting.pid, None, None))
            else:  # somebody closed the pane, or put another process in it
                told.append(PaneExit(waiting.pane_id, waiting.pid, None, None))
            del self._dying[waiting.pane_id]
        return told
