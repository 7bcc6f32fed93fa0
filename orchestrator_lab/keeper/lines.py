"""JSON lines over a socket that is never waited for."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from orchestrator_lab.keeper.loop import READ, WRITE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from orchestrator_lab.keeper.loop import Loop

__all__ = ["Lines", "encode"]

logger = logging.getLogger(__name__)

#: Bytes of one line, in either direction.
LINE_LIMIT = 1 << 20

#: Bytes that may wait for a peer that does not read.
BACKLOG_LIMIT = 4 << 20


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as one line of JSON."""
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Both directions of the talk with the supervisor.

    Parameters
    ----------
    loop : Loop
        Where it is watched.
    connection : socket.socket
        A stream socket; it becomes non-blocking and is owned by this object.
    on_message : callable
        Called with each object that arrives.
    on_end : callable
        Called once when the peer closed, broke off, or sent what is no message.
    """

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        on_message: Callable[[dict[str, Any]], None],
        on_end: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._socket: socket.socket | None = connection
        self._on_message = on_message
        self._on_end = on_end
        self._in = b""
        self._out: deque[bytes] = deque()
        self._waiting = 0
        loop.watch(connection.fileno(), READ, self._ready)

    @property
    def clear(self) -> bool:
        """Whether nothing waits to be sent: what may be dropped is best sent only then."""
        return not self._out

    @property
    def closed(self) -> bool:
        """Whether the talk is over."""
        return self._socket is None

    def send(self, message: dict[str, Any]) -> bool:
        """Send when the peer reads; False when it has not read for so long that this is dropped."""
        if self._socket is None:
            return False
        if self._waiting > BACKLOG_LIMIT:
            logger.warning("the supervisor does not read: dropped %s", message.get("op"))
            return False
        line = encode(message)
        self._out.append(line)
        self._waiting += len(line)
        self._flush()
        return True

    def close(self) -> None:
        """Close without telling anyone."""
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def read_rest(self) -> None:
        """Handle what the peer sent before it died."""
        while self._socket is not None and self._receive():
            pass

    def _end(self) -> None:
        if self._socket is not None:
            self.close()
            self._on_end()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ:
            self._receive()

    def _receive(self) -> bool:
        assert self._socket is not None  # noqa: S101 - for the type checker
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        *lines, self._in = (self._in + data).split(b"\n")
        if len(self._in) > LINE_LIMIT:
            logger.error("the supervisor sent a line of more than %d bytes", LINE_LIMIT)
            self._end()
            return False
        for line in lines:
            self._handle(line)
        return True

    def _handle(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise TypeError("expected an object")  # noqa: TRY301 - one place reports both
        except (ValueError, TypeError) as error:
            logger.warning("the supervisor sent %r: %s", line[:200], error)
            return
        try:
            self._on_message(message)
        except Exception:
            logger.exception("the message %r failed", line[:200])

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._out:
                line = self._out[0]
                sent = self._socket.send(line)
                self._waiting -= sent
                if sent < len(line):
                    self._out[0] = line[sent:]
                    break
                self._out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            # The end shows on the reading side too, with what the peer said last.
            self._out.clear()
            self._waiting = 0
        self._loop.watch(self._socket.fileno(), READ | WRITE if self._out else READ, self._ready)
