"""Telling the lab: the chat program's hooks and its record, on one thread, in order."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Hooks:
    """Post events; ``faults`` may lose, double or delay them."""

    def __init__(self, settings: dict[str, Any] | None, note: Any) -> None:
        self._url = urlsplit(settings["hook_url"]) if settings else None
        self._settings = settings or {}
        self._token = os.environ.get("ORCHESTRATOR_LAB_AGENT_TOKEN", "")
        self._queue: deque[tuple[float, bytes, str]] = deque()
        self._ready = threading.Condition()
        self._note = note
        self._sent = 0
        self._done = 0
        self.lose: set[str] = set()
        self.double: set[str] = set()
        self.delay_s = 0.0
        if self._url is not None:
            threading.Thread(target=self._run, daemon=True).start()

    def send(self, event: str, **fields: Any) -> None:
        if self._url is None or event in self.lose:
            return
        with self._ready:
            for _ in range(2 if event in self.double else 1):
                self._sent += 1
                body = {
                    "hook_event_name": event,
                    "hook_id": os.urandom(8).hex(),
                    "session_id": self._settings.get("session_id", ""),
                    "transcript_path": self._settings.get("transcript_path"),
                    "cwd": str(Path.cwd()),
                    **{key: value for key, value in fields.items() if value is not None},
                }
                self._queue.append((time.monotonic() + self.delay_s, json.dumps(body).encode(), event))
            self._ready.notify()

    def record(self, kind: str, **fields: Any) -> None:
        """Append to the program's own record."""
        path = self._settings.get("transcript_path")
        if not path or "transcript" in self.lose:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
        line = json.dumps({"type": kind, "timestamp": stamp, **fields}, ensure_ascii=False).encode("utf-8", "replace")
        with Path(path).open("ab", 0) as file:
            file.write(line + b"\n")

    def drain(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._done < self._sent and time.monotonic() < deadline:
            time.sleep(0.005)

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._queue:
                    self._ready.wait()
                due, body, event = self._queue.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            while not self._post(body) and time.monotonic() - began < 20:
                time.sleep(0.1)
            self._note("hook", name=event)
            self._done += 1

    def _post(self, body: bytes) -> bool:
        assert self._url is not None
        head = (
            f"POST {self._url.path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            with socket.create_connection((self._url.hostname or "", self._url.port or 80), timeout=5) as line:
                line.sendall(head.encode() + body)
                answer = b""
                while b"\r\n" not in answer and (piece := line.recv(4096)):
                    answer += piece
        except OSError:
            return False
        return answer[9:12] == b"200"
