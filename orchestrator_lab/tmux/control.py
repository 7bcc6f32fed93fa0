"""The command channel: one ``tmux -C`` client that carries commands and never output.

A forked tmux command costs 4 ms, a command here 0.1 ms. Replies come in the order of the commands. Whoever misses a
deadline kills the client; the next command opens another (3 ms).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator_lab.errors import TmuxError, TmuxTimeout
from orchestrator_lab.tmux.binary import client_environ
from orchestrator_lab.tmux.process import dying_with_us, process_started
from orchestrator_lab.tmux.text import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator_lab.tmux.binary import TmuxBinary

__all__ = ["ONE_BLOCK", "THEN", "ControlChannel", "Reply", "control_tail"]

logger = logging.getLogger(__name__)

_CHUNK = 1 << 16

# Commands that answer with exactly one block. What attaches, waits, asks or nests (attach-session, wait-for, if-shell,
# source-file, ...) would confuse the channel or hang it, and goes through a process of its own.
ONE_BLOCK = frozenset(  # a block of words reads better than sixty quoted ones
    """
    break-pane capture-pane clear-history copy-mode delete-buffer display-message has-session join-pane kill-pane
    kill-window last-pane last-window link-window list-buffers list-clients list-commands list-keys list-panes
    list-sessions list-windows load-buffer move-pane move-window new-window next-layout next-window paste-buffer
    pipe-pane previous-layout previous-window rename-session rename-window resize-pane resize-window respawn-pane
    respawn-window rotate-window save-buffer select-layout select-pane select-window send-keys set-buffer
    set-environment set-hook set-option set-window-option show-buffer show-environment show-hooks show-options
    show-window-options split-window swap-pane swap-window unlink-window
    """.split()  # noqa: SIM905
)

#: Between two commands of one line: when one fails, those after it are dropped. (No argument can hold a NUL.)
THEN = "\0;"

# What is asked last where commands nest, and how many blocks they answer with depends on what happens.
_END = "olab-end"

# Asking twice does no harm: these are sent again when the client was lost on the way.
_ASKING = frozenset({"capture-pane", "display-message", "has-session"})


def _only_asks(commands: Sequence[Sequence[str]]) -> bool:
    return all(c[0] in _ASKING or c[0].startswith(("list-", "show-")) for c in commands)


@dataclass(frozen=True, slots=True)
class Reply:
    """What tmux answered to one command.

    Parameters
    ----------
    ok : bool
        False when tmux reported an error.
    lines : list of bytes
        The lines of the answer or of the error.
    """

    ok: bool
    lines: list[bytes]

    @property
    def text(self) -> str:
        """The answer as one text."""
        return b"\n".join(self.lines).decode("utf-8", "replace")


class _Lost(Exception):
    """The client is gone; `sent` tells whether any byte of the commands had been written."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__()
        self.sent = sent


class _Batch:
    """Commands written together, and the replies to them so far; a size of None: up to the answer to `_END`."""

    __slots__ = ("done", "replies", "size")

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.replies: list[Reply] = []
        self.done = False

    def take(self, reply: Reply) -> None:
        self.replies.append(reply)
        self.done = reply.text == _END if self.size is None else len(self.replies) == self.size


def control_tail(socket: Path, session: str) -> list[str]:
    """Return the arguments by which our control clients on a socket are recognised.

    Parameters
    ----------
    socket : Path
        The server's socket.
    session : str
        The session attached to.

    Returns
    -------
    list of str
        All arguments after the program's path.
    """
    attach = ["attach-session", "-E", "-f", "no-output,ignore-size", "-t", f"={session}"]
    return ["-u", "-S", str(socket), "-C", *attach]


class _Client:
    """One control client process, its pipes and its unanswered commands.

    Whoever waits for a reply reads, for himself and for all others who wait (replies come in the order of the
    commands). A thread that only reads would cost each command one more change of threads, and under load that is
    most of its time; with ``no-output`` there is nothing to read between commands but a few notifications.
    """

    def __init__(self, argv: list[str]) -> None:
        self.pending: deque[_Batch] = deque()
        self.lost = False
        self.owner = os.getpid()
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self.process = subprocess.Popen(
            dying_with_us(argv),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a notebook's interrupt is not meant for it
            env=client_environ(),
        )
        assert self.process.stdin is not None  # noqa: S101 - for the type checker: we asked for a pipe
        assert self.process.stdout is not None  # noqa: S101
        self._stdin = self.process.stdin
        self._stdout = self.process.stdout
        self._in = self._stdin.fileno()
        self._out = self._stdout.fileno()
        # Our end only: a pipe's two ends are two open files.
        os.set_blocking(self._in, False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        # What the parser keeps between two reads.
        self._tail = b""
        self._end = self._error = b""
        self._own = False
        self._body: list[bytes] = []

    def run(self, data: bytes, size: int | None, deadline: float) -> list[Reply] | None:
        """Write commands and wait for their replies; None when the deadline is missed."""
        batch = _Batch(size)
        if not self._write_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return None
        try:
            if self.lost:
                raise _Lost(sent=False)
            self.pending.append(batch)
            if not self._write(data, deadline):
                return None
        finally:
            self._write_lock.release()
        return self.wait(batch, deadline)

    def wait(self, batch: _Batch, deadline: float) -> list[Reply] | None:
        """Wait for the replies to commands that were written; None when the deadline is missed."""
        if not self._read_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return None
        try:
            while not batch.done:
                if self.lost:
                    raise _Lost(sent=True)
                left = deadline - time.monotonic()
                if left <= 0 or not self._poll.poll(left * 1000):
                    return None
                self._read()
        finally:
            self._read_lock.release()
        return batch.replies

    def _write(self, data: bytes, deadline: float) -> bool:
        view = memoryview(data)
        sent = False
        while view:
            try:
                written = os.write(self._in, view)
            except BlockingIOError:
                # tmux answers while it is still being asked: a pipe full of answers would stop it.
                if self._read_lock.acquire(blocking=False):
                    try:
                        if self._poll.poll(0):
                            self._read()
                    finally:
                        self._read_lock.release()
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                select.select([], [self._in], [], min(left, 0.01))
                continue
            except (OSError, ValueError) as error:
                raise _Lost(sent=sent) from error
            sent = True
            view = view[written:]
        return True

    def _read(self) -> None:
        """Take in what is there to be read."""
        try:
            chunk = os.read(self._out, _CHUNK)
        except OSError:
            chunk = b""
        if not chunk:
            self.lost = True
            return
        lines = (self._tail + chunk).split(b"\n")
        self._tail = lines.pop()
        position, count = 0, len(lines)
        while position < count:
            if not self._end:
                line = lines[position]
                position += 1
                if line.startswith(b"%begin "):
                    tag = line[7:]
                    self._end, self._error = b"%end " + tag, b"%error " + tag
                    # Flag 1 marks our own commands; hooks and the attach itself have 0.
                    self._own = tag.endswith(b" 1")
                    self._body = []
                continue
            # A body may hold lines that look like marks: only the full tag ends it.
            ok = True
            try:
                stop = lines.index(self._end, position)
            except ValueError:
                ok = False
                try:
                    stop = lines.index(self._error, position)
                except ValueError:
                    self._body += lines[position:]
                    break
            self._body += lines[position:stop]
            position = stop + 1
            self._end = b""
            if self._own:
                self._answer(Reply(ok, self._body))

    def _answer(self, reply: Reply) -> None:
        if not self.pending:
            logger.warning("tmux sent a reply that nobody asked for: %s", reply.text[:200])
            return
        batch = self.pending[0]
        batch.take(reply)
        if batch.done:
            self.pending.popleft()

    # -- the end

    def kill(self) -> None:
        """SIGKILL the client: nothing gentler frees a server that waits for it."""
        self.lost = True
        if os.getpid() != self.owner or self._stdin.closed:
            return
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        # Nobody may be reading or writing when a descriptor's number becomes free.
        with self._write_lock, contextlib.suppress(OSError):
            self._stdin.close()
        with self._read_lock, contextlib.suppress(OSError):
            self._poll.unregister(self._out)
            self._stdout.close()


class ControlChannel:
    """Commands to one tmux server, through a control client that is replaced when it fails.

    Parameters
    ----------
    binary : TmuxBinary
        The tmux program.
    socket : Path
        The server's socket.
    session : str
        The session that the client attaches to.
    timeout : float, default 10.0
        Seconds that a command may take.
    on_open : callable, optional
        Called with ``(channel, pid, started)`` whenever a client was opened.

    Notes
    -----
    Any thread may call; the client dies with the thread that opened it (parent-death signal), and the next
    command opens another.
    """

    def __init__(
        self,
        binary: TmuxBinary,
        socket: Path,
        session: str,
        *,
        timeout: float = 10.0,
        on_open: Callable[[ControlChannel, int, str], None] | None = None,
    ) -> None:
        self.timeout = timeout
        self._argv = [binary.path, *control_tail(socket, session)]
        self._socket = socket
        self._on_open = on_open
        self._client: _Client | None = None
        #: Opened on a server that has not answered yet. To kill it before the server has let it in crashes tmux 3.3a
        #: when it wakes up, in some cases of a hundred: it is waited for again instead.
        self._knocking: _Client | None = None
        self._closed = False
        self._open_lock = threading.RLock()

    def run(self, *args: str, timeout: float | None = None) -> list[bytes]:
        """Run one command.

        Parameters
        ----------
        *args : str
            The command and its arguments, unquoted.
        timeout : float, optional
            Seconds; the channel's own when omitted.

        Returns
        -------
        list of bytes
            The lines of the answer.

        Raises
        ------
        TmuxTimeout
            When the deadline is missed.
        TmuxError
            When tmux reports an error or is gone; ``details["executed"]`` is ``"unknown"`` when the client was
            lost while the command was on its way.
        """
        (reply,) = self.batch([args], timeout=timeout)
        if not reply.ok:
            raise TmuxError(f"tmux '{args[0]}' failed: {reply.text}", command=args[0], said=reply.text)
        return reply.lines

    def batch(
        self,
        commands: Sequence[Sequence[str]],
        *,
        timeout: float | None = None,
        nested: bool = False,
    ) -> list[Reply]:
        """Run several commands in one write; all are executed, whatever becomes of the others.

        Parameters
        ----------
        commands : sequence of sequence of str
            Commands and arguments, unquoted. Each must be one that answers with one block.
        timeout : float, optional
            Seconds for the whole batch; the channel's own, and 50 ms per command, when omitted.
        nested : bool, default False
            The commands may run others, or be joined by :data:`THEN`, which answer with blocks of their own.

        Returns
        -------
        list of Reply
            One reply a block, in order: one a command, unless they nest.

        Raises
        ------
        TmuxTimeout, TmuxError
            As :meth:`run`, but not for the errors of single commands.
        """
        if not commands:
            return []
        if nested:
            commands = [*commands, ["display-message", "-p", _END]]
        else:
            for command in commands:
                if command[0] not in ONE_BLOCK:
                    raise TmuxError(
                        f"'{command[0]}' cannot go through the control channel; run it by server.cmd()",
                        command=command[0],
                        executed="no",
                    )
        if timeout is None:
            timeout = self.timeout + 0.05 * (len(commands) - 1)
        # The first word stays unquoted; an empty line would detach the client.
        lines = [" ".join([c[0], *(";" if word is THEN else quote(word) for word in c[1:])]) for c in commands]
        data = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
        if b"\0" in data:
            raise TmuxError("a tmux command cannot hold a NUL character")
        for last in (False, True):
            client = self._opened()
            try:
                replies = client.run(data, None if nested else len(commands), time.monotonic() + timeout)
            except _Lost as lost:
                self._drop(client)
                if not last and (not lost.sent or _only_asks(commands)):
                    continue
                raise TmuxError(
                    f"the control client on {self._socket} was lost during '{commands[0][0]}'",
                    command=commands[0][0],
                    executed="unknown" if lost.sent else "no",
                ) from None
            if replies is None:
                self._drop(client)
                raise TmuxTimeout(
                    f"tmux did not answer '{commands[0][0]}' within {timeout:g} s on {self._socket}",
                    command=commands[0][0],
                    executed="unknown",
                )
            return replies[:-1] if nested else replies
        raise AssertionError  # pragma: no cover - the loop returns or raises

    @property
    def is_open(self) -> bool:
        """Whether a client is there that has not failed yet."""
        client = self._client
        if client is None or client.lost or client.owner != os.getpid():
            return False
        return client.process.poll() is None

    @property
    def client_pid(self) -> int | None:
        """Pid of the control client, None when there is none."""
        return self._client.process.pid if self._client is not None else None

    def _opened(self) -> _Client:
        client = self._client
        if client is not None and not client.lost and client.owner == os.getpid():
            return client
        with self._open_lock:
            if self._closed:
                raise TmuxError(f"the driver of {self._socket} is closed", executed="no")
            client = self._client
            if client is not None and not client.lost and client.owner == os.getpid():
                return client
            if client is not None:
                client.kill()
            self._client = client = self._knock(time.monotonic() + min(5.0, self.timeout))
            if client is None:
                raise TmuxError(
                    f"no control client could be opened on {self._socket}: "
                    "the tmux server is gone, hangs, or has lost its session",
                    executed="no",
                )
            pid = client.process.pid
            if self._on_open is not None:
                self._on_open(self, pid, process_started(pid) or "")
            return client

    def _knock(self, deadline: float) -> _Client | None:
        """Open a client and wait until the server lets it in; None when it is lost, or has to be waited for again."""
        client = self._knocking
        asked = client is not None and not client.lost and client.owner == os.getpid() and bool(client.pending)
        if client is None or not asked:
            self._knocking = client = _Client(self._argv)
        try:
            if asked:
                answered = client.wait(client.pending[0], deadline)
            else:
                answered = client.run(b"display-message -p ''\n", 1, deadline)
        except _Lost:
            client.kill()
            self._knocking = None
            return None
        if answered is None:
            return None
        self._knocking = None
        return client

    def _drop(self, client: _Client) -> None:
        with self._open_lock:
            client.kill()
            if self._client is client:
                self._client = None

    def close(self) -> None:
        """End the control client; the server stays."""
        with self._open_lock:
            self._closed = True
            for client in (self._client, self._knocking):
                if client is not None:
                    client.kill()
            self._client = self._knocking = None
