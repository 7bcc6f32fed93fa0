"""Real channels on this machine: a webhook and a mail server that keep what they were told."""

from __future__ import annotations

import contextlib
import email
import email.policy
import http.server
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Heard:
    """What a channel was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self._news = threading.Condition()
        #: Answers to the next requests; 200 when there is none.
        self.answers: list[int] = []
        self.address = ""
        #: Called once, with the next request, before it is answered.
        self.on_request: Callable[[], object] | None = None

    def take(self, notice: dict[str, Any]) -> None:
        with self._news:
            self.told.append(notice)
            self._news.notify_all()

    def wait(self, count: int = 1, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.told) >= count, timeout_s), f"told: {self.told}"
            return list(self.told)


@contextlib.contextmanager
def webhook(path: str = "hook") -> Iterator[Heard]:
    """A webhook that apprise reaches as ``json://127.0.0.1:PORT/PATH``."""
    heard = Heard()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            once, heard.on_request = heard.on_request, None
            if once is not None:
                once()
            status = heard.answers.pop(0) if heard.answers else 200
            # Before it is answered: who told it may go on at once, and the test with it.
            heard.take({**body, "path": self.path, "status": status})
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    heard.address = f"json://127.0.0.1:{server.server_address[1]}/{path}"
    try:
        yield heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def mail_server() -> Iterator[Heard]:
    """A mail server that apprise reaches as ``mailto://127.0.0.1:PORT``."""
    from aiosmtpd.controller import Controller

    heard = Heard()

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: ARG002, N802
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            part = mail.get_body(preferencelist=("plain", "html"))
            assert part is not None
            heard.take({"to": envelope.rcpt_tos, "subject": mail["subject"], "text": part.get_content()})
            return "250 OK"

    # A port that was only looked for may be somebody else's by the time that it is bound.
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]

    class Here(Controller):
        def _create_server(self) -> Any:
            return self.loop.create_server(self._factory_invoker, sock=bound)

    controller = Here(Handler(), hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    heard.address = f"mailto://127.0.0.1:{port}?from=lab@example.org&to=eve@example.org&mode=insecure"
    try:
        yield heard
    finally:
        controller.stop()
