"""``keeper.sock``: panes handed over by tmux, live subscribers, the status.

A connection begins with one line of JSON. ``{"op":"pane","agent":A}`` brings a descriptor and gets
one byte back; ``{"op":"status"}`` gets one line; ``{"op":"subscribe","agents":[…]|null}`` gets
``{"op":"subscribed"}`` and from then on the live output (said again on the same connection, it
changes whose), one line a read:
``{"agent","at","bytes","data"}`` with base64 data, ``{"agent","resize":[cols,rows]}``,
``{"agent","closed":true}`` and, where a subscriber was too slow, ``{"agent","repaint":true}``:
fetch a screen, then go on with what follows.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import logging
import os
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from orchestrator_lab.keeper.lines import encode
from orchestrator_lab.keeper.loop import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.keeper.loop import Loop

__all__ = ["Clients", "Hub"]

logger = logging.getLogger(__name__)

#: Bytes that may wait for one slow subscriber before it is cut back.
SUBSCRIBER_LIMIT = 1 << 20

#: Bytes of the first line of a connection.
REQUEST_LIMIT = 1 << 16

#: Seconds until connections are accepted again after a failure.
ACCEPT_RETRY_S = 0.2

#: Connections at one time; more are closed at once.
CONNECTION_LIMIT = 512


class _Subscriber:
    """One reader of the live stream; what waits for it never passes SUBSCRIBER_LIMIT by more than one line."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        agents: frozenset[str] | None,
        on_end: Callable[[_Subscriber], None],
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._agents = agents
        self._on_end = on_end
        self._queue: deque[tuple[str, bytes]] = deque()
        self._waiting = 0
        self._begun = False
        self._behind: set[str] = set()
        self._asked = b""
        self.cut_backs = 0
        loop.watch(connection.fileno(), READ, self._ready)

    def wants(self, agent: str) -> bool:
        return self._agents is None or agent in self._agents

    def offer(self, agent: str, line: bytes) -> None:
        """Send or queue a line; cut the queue back when it grows too long."""
        if agent in self._behind:
            return
        if self._waiting + len(line) > SUBSCRIBER_LIMIT:
            self._cut_back()
            self._behind.add(agent)
            return
        self._queue.append((agent, line))
        self._waiting += len(line)
        if len(self._queue) == 1:
            self._flush()

    def close(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._queue.clear()

    def _cut_back(self) -> None:
        """Drop what waits, but for a line that is half sent; its agents need a repaint."""
        kept = self._queue.popleft() if self._begun and self._queue else None
        self._behind.update(agent for agent, _ in self._queue)
        self._queue.clear()
        if kept is not None:
            self._queue.append(kept)
        self._waiting = sum(len(line) for _, line in self._queue)
        self.cut_backs += 1

    def _ready(self, events: int) -> None:
        if events & READ:
            try:
                data = self._socket.recv(4096)
                if not data or not self._asked_again(data):
                    self._on_end(self)
                    return
            except BlockingIOError:
                pass
            except OSError:
                self._on_end(self)
                return
        if events & WRITE:
            self._flush()

    def _asked_again(self, data: bytes) -> bool:
        """Take in what the reader says; False when it makes no sense."""
        *lines, self._asked = (self._asked + data).split(b"\n")
        try:
            for line in lines:
                agents = json.loads(line)["agents"]
                self._agents = None if agents is None else frozenset(map(str, agents))
                self.greet()
        except (ValueError, TypeError, LookupError) as error:
            logger.warning("keeper.sock: refused %r: %s", data[:200], error)
            return False
        return len(self._asked) <= REQUEST_LIMIT

    def greet(self) -> None:
        """Say whose output comes from here on."""
        self.offer("", encode({"op": "subscribed", "agents": None if self._agents is None else sorted(self._agents)}))

    def _flush(self) -> None:
        try:
            while True:
                if not self._queue:
                    if not self._behind:
                        break
                    # The reader has caught up with all that was left of the past.
                    for agent in sorted(self._behind):
                        line = encode({"agent": agent, "repaint": True})
                        self._queue.append((agent, line))
                        self._waiting += len(line)
                    self._behind.clear()
                agent, line = self._queue[0]
                sent = self._socket.send(line)
                self._waiting -= sent
                if sent < len(line):
                    self._queue[0] = (agent, line[sent:])
                    self._begun = True
                    break
                self._begun = False
                self._queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._on_end(self)
            return
        self._loop.watch(self._socket.fileno(), READ | WRITE if self._queue else READ, self._ready)


class Hub:
    """Everyone who watches the panes live."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._subscribers: list[_Subscriber] = []

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def cut_backs(self) -> int:
        """How often the present subscribers were too slow."""
        return sum(subscriber.cut_backs for subscriber in self._subscribers)

    def add(self, connection: socket.socket, agents: frozenset[str] | None) -> None:
        """Take a connection that asked for the live stream."""
        subscriber = _Subscriber(self._loop, connection, agents, self._remove)
        self._subscribers.append(subscriber)
        subscriber.greet()

    def output(self, agent: str, at: float, total: int, data: bytes) -> None:
        """Pass on what a program wrote; encoded once, and only when someone watches."""
        line = b""
        for subscriber in list(self._subscribers):
            if not subscriber.wants(agent):
                continue
            if not line:
                line = b'{"agent":"%b","at":%.6f,"bytes":%d,"data":"%b"}\n' % (
                    agent.encode(),
                    at,
                    total,
                    binascii.b2a_base64(data, newline=False),
                )
            subscriber.offer(agent, line)

    def offer(self, agent: str, message: dict[str, Any]) -> None:
        """Pass on anything else about an agent."""
        for subscriber in list(self._subscribers):
            if subscriber.wants(agent):
                subscriber.offer(agent, encode(message))

    def close(self) -> None:
        """Close all streams."""
        for subscriber in list(self._subscribers):
            self._remove(subscriber)

    def _remove(self, subscriber: _Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
            subscriber.close()


class Clients:
    """Accepts connections on ``keeper.sock`` and reads what they ask.

    Parameters
    ----------
    loop : Loop
        Where they are watched.
    listener : socket.socket
        The bound and listening ``keeper.sock``.
    hub : Hub
        Where subscribers go.
    on_pane : callable
        Takes the agent's name and the descriptor that tmux handed over.
    status : callable
        Returns the keeper's status.
    """

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        hub: Hub,
        on_pane: Callable[[str, int], None],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._hub = hub
        self._on_pane = on_pane
        self._status = status
        self._open: dict[int, tuple[socket.socket, bytearray, list[int]]] = {}
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Stop listening and drop unfinished requests."""
        self._loop.cancel("accept")
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        for key in list(self._open):
            self._drop(key)

    def _listen(self) -> None:
        self._loop.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors, most likely: it would be tried again at once, and again.
                logger.warning("keeper.sock: %s", error)
                self._loop.unwatch(self._listener.fileno())
                self._loop.at("accept", time.monotonic() + ACCEPT_RETRY_S, self._listen)
                return
            if len(self._open) + len(self._hub) >= CONNECTION_LIMIT or not _same_user(connection):
                connection.close()
                continue
            connection.setblocking(False)
            key = connection.fileno()
            self._open[key] = (connection, bytearray(), [])
            self._loop.watch(key, READ, lambda _, key=key: self._read(key))  # type: ignore[misc]

    def _read(self, key: int) -> None:
        connection, buffer, descriptors = self._open[key]
        try:
            data, received, _flags, _address = socket.recv_fds(
                connection, 4096, 4, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
        except BlockingIOError:
            return
        except OSError:
            self._drop(key)
            return
        for descriptor in received:
            os.set_inheritable(descriptor, False)
        descriptors += received
        buffer += data
        line, end, _rest = bytes(buffer).partition(b"\n")
        if not end:
            if not data or len(buffer) > REQUEST_LIMIT:
                self._drop(key)
            return
        try:
            request = json.loads(line)
            operation = request["op"]
            if operation == "pane":
                self._on_pane(str(request["agent"]), descriptors.pop(0))
                connection.send(b"+")
            elif operation == "status":
                # One line of some kilobytes: the socket's own buffer takes it.
                connection.send(encode(self._status()))
            elif operation == "subscribe":
                agents = request.get("agents")
                wanted = None if agents is None else frozenset(map(str, agents))
                del self._open[key]
                self._loop.unwatch(key)
                self._hub.add(connection, wanted)
                return
            else:
                connection.send(encode({"error": f"unknown op {operation!r}"}))
        except (ValueError, TypeError, LookupError) as error:
            logger.warning("keeper.sock: refused %r: %s", line[:200], error)
            with contextlib.suppress(OSError):
                connection.send(encode({"error": f"bad request: {error}"}))
        except OSError as error:
            logger.warning("keeper.sock: %s", error)
        self._drop(key)

    def _drop(self, key: int) -> None:
        connection, _buffer, descriptors = self._open.pop(key)
        self._loop.unwatch(key)
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)


def _same_user(connection: socket.socket) -> bool:
    """Tell whether our own user connects; the folder is private already, this says it twice."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())
