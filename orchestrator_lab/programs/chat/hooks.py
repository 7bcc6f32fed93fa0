"""Telling the lab what happens: one queue, one thread, in order, again until it is heard."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HookSender"]

POST_TIMEOUT_S = 5.0
RETRY_FOR_S = 30.0
DISPLAY_INTERVAL_S = 0.25


class HookSender:
    """Post events to the lab without ever making the typist wait.

    Parameters
    ----------
    url : str or None
        The receiver; every call does nothing when None.
    token : str or None
        Sent as ``Authorization: Bearer``.
    session_id : str
        Put into every event.
    transcript_path : Path or None
        Put into every event.
    on_problem : callable, optional
        Called on the sender's thread with a sentence when an event could not be delivered.

    Notes
    -----
    Each event carries a ``hook_id`` of its own, the same in every attempt, so that a receiver
    which answered too late recognises the repetition. Streamed text is collected: the first
    piece goes at once, the following ones at most four times a second, and everything that was
    held goes before the next other event.

    Examples
    --------
    >>> HookSender(None, token=None, session_id="s", transcript_path=None).send("Stop")
    """

    def __init__(
        self,
        url: str | None,
        *,
        token: str | None,
        session_id: str,
        transcript_path: Path | None,
        on_problem: Callable[[str], None] | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._common = {
            "session_id": session_id,
            "cwd": str(Path.cwd()),
            "transcript_path": str(transcript_path) if transcript_path else None,
        }
        self.on_problem = on_problem
        self._queue: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._held: dict[str, Any] | None = None  # streamed text that is not due yet
        self._held_deltas: list[str] = []
        self._display_due = 0.0
        self._busy = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()

    def send(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """Queue one event.

        Parameters
        ----------
        event : str
            ``hook_event_name``.
        **fields
            The event's own keys; those that are None are left out.
        """
        if self._url is None:
            return
        with self._changed:
            self._release_held()
            self._queue.append(self._event(event, fields))
            self._start()
            self._changed.notify_all()

    def display(self, delta: str, *, first: bool = False, **fields: Any) -> None:  # noqa: ANN401
        """Queue streamed text, collected to at most four events a second.

        Parameters
        ----------
        delta : str
            The new text.
        first : bool
            True for the first text of an answer, which is sent at once.
        **fields
            Keys of the event.
        """
        if self._url is None or not delta:
            return
        with self._changed:
            if first:
                self._release_held()
                self._display_due = 0.0
            if self._held is None:
                self._held = fields
            self._held_deltas.append(delta)
            self._start()
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything was delivered, or the time is over.

        Parameters
        ----------
        timeout_s : float
            Longest wait in seconds.

        Returns
        -------
        bool
            True when nothing is left.
        """
        with self._changed:
            self._release_held()
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Wait as :meth:`drain` does, then stop trying.

        Parameters
        ----------
        timeout_s : float
            Longest wait in seconds.

        Returns
        -------
        bool
            True when nothing is left.
        """
        done = self.drain(timeout_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        return done

    def _event(self, event: str, fields: dict[str, Any]) -> dict[str, Any]:
        body = {"hook_event_name": event, "hook_id": str(uuid.uuid4()), **self._common, **fields}
        return {key: value for key, value in body.items() if value is not None}

    def _release_held(self) -> None:
        if self._held is not None:
            delta = "".join(self._held_deltas)
            self._queue.append(self._event("MessageDisplay", {"delta": delta, **self._held}))
            self._held = None
            self._held_deltas = []

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    left = self._display_due - time.monotonic()
                    if self._held is not None and left <= 0:
                        self._release_held()
                        break
                    self._changed.wait(left if self._held is not None else None)
                if not self._queue:
                    return
                event = self._queue.popleft()
                self._busy = True
                if event["hook_event_name"] == "MessageDisplay":
                    self._display_due = time.monotonic() + DISPLAY_INTERVAL_S
            try:
                self._deliver(event)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _deliver(self, event: dict[str, Any]) -> None:
        body = json.dumps(event).encode()
        started = time.monotonic()
        pause = 0.05
        while True:
            problem = self._post(body)
            if problem is None:
                return
            if self._closing or time.monotonic() - started > RETRY_FOR_S:
                self._tell(f"the lab does not take events: {problem}")
                return
            time.sleep(pause)
            pause = min(1.0, pause * 2)

    def _post(self, body: bytes) -> str | None:
        """Return None when the receiver took it, else what was wrong (worth another attempt)."""
        import http.client

        assert self._url is not None  # noqa: S101 - for the type checker; send() returned otherwise
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=POST_TIMEOUT_S)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        target = parts.path or "/"
        if parts.query:
            target += "?" + parts.query
        try:
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        finally:
            with contextlib.suppress(OSError):
                connection.close()
        # A receiver that is starting says 5xx; any other answer will not change by asking again.
        if response.status >= 500:
            return f"HTTP {response.status}"
        if response.status >= 300:
            self._tell(f"the lab refuses events: HTTP {response.status}")
        return None

    def _tell(self, problem: str) -> None:
        """Say a problem once: a stream of the same sentence would bury the conversation."""
        if self.on_problem is not None and problem not in self._told:
            self._told.add(problem)
            self.on_problem(problem)
