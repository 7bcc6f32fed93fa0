"""One selector, a handful of named deadlines, and signals that wake it."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READ", "WRITE", "Loop"]

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

logger = logging.getLogger(__name__)


class Loop:
    """Call back when a descriptor is ready, a deadline has come or a signal arrived."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._deadlines: dict[str, tuple[float, Callable[[], None]]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self.watch(self._woken.fileno(), READ, self._on_wake)

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` whenever the descriptor is ready; replaces an earlier watch."""
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, events, callback)
        else:
            self._selector.register(descriptor, events, callback)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; must be called before the descriptor is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def at(self, name: str, when: float, callback: Callable[[], None]) -> None:
        """Call once at ``when`` (monotonic s); a deadline of this name is replaced."""
        self._deadlines[name] = (when, callback)

    def due(self, name: str) -> bool:
        """Tell whether a deadline of this name is set."""
        return name in self._deadlines

    def cancel(self, name: str) -> None:
        """Drop a deadline, if it is set."""
        self._deadlines.pop(name, None)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call back in the loop, not in the handler, when the signal arrives."""
        self._signals[number] = callback
        signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def turn(self) -> None:
        """Wait for what comes first and handle it; a failing callback is logged, not fatal."""
        timeout = None
        if self._deadlines:
            first = min(when for when, _ in self._deadlines.values())
            timeout = max(0.0, first - time.monotonic())
        for key, events in self._selector.select(timeout):
            # An earlier callback of this turn may have closed this one.
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:
                self._call(key.data, events)
        now = time.monotonic()
        for name, (when, callback) in list(self._deadlines.items()):
            if when <= now and self._deadlines.get(name) == (when, callback):
                del self._deadlines[name]
                self._call(callback)

    def _on_wake(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._woken.fileno(), 4096):
                if number in self._signals:
                    self._signals[number]()

    @staticmethod
    def _call(callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception:
            # The keeper outlives any one pane, subscriber or message.
            logger.exception("a callback failed")
