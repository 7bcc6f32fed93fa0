"""A real pane, a real endpoint and a real hook receiver for the programs that we ship."""

# ruff: noqa: ANN001, ANN002, ANN003, ANN201, ANN202, ANN204
from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def wait_for(condition, timeout=30.0, what="condition"):
    """Return the first truthy value of a condition."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come within {timeout} s")


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        pass  # clients hang up on purpose here

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Endpoint(Server):
    """Streams what `reply(prompt)` returns: text, an iterable of pieces, or (status, headers, body).

    Where it returns None, nothing is said until the client has gone.
    """

    def __init__(self):
        self.requests = []
        self.pause = 0.0
        self.reply = lambda prompt: f"echo: {prompt[:40]}"
        self.arrived = threading.Event()
        self.left = threading.Event()
        super().__init__(("127.0.0.1", 0), EndpointHandler)


class EndpointHandler(Quiet):
    def do_POST(self):
        body = self.body()
        self.server.requests.append((self.path, dict(self.headers), body))
        self.server.arrived.set()
        reply = self.server.reply(body["messages"][-1]["content"])
        if reply is None:
            self.connection.recv(1)
            self.server.left.set()
            return
        if isinstance(reply, tuple):
            status, headers, text = reply
            data = text.encode()
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        pieces = [reply] if isinstance(reply, str) else reply
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        send = self.anthropic if self.path.endswith("/v1/messages") else self.openai
        for event in send(pieces, body["model"]):
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def anthropic(self, pieces, model):
        def event(name, **data):
            return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"

        usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 1}
        yield event("message_start", message={"model": model + "-1", "usage": usage})
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in pieces:
            time.sleep(self.server.pause)
            yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield event("content_block_stop", index=0)
        yield event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 42})
        yield event("message_stop")

    def openai(self, pieces, model):
        def event(**data):
            return f"data: {json.dumps({'model': model, **data})}\n\n"

        for piece in pieces:
            time.sleep(self.server.pause)
            yield event(choices=[{"index": 0, "delta": {"content": piece}}])
        yield event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        details = {"cached_tokens": 4}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": details}
        yield event(choices=[], usage=usage)
        yield "data: [DONE]\n\n"


class Receiver(Server):
    """Keeps the events that it is told; what is told again, because the answer came too late, counts once.

    With a socket that is bound already, it listens there: nobody else can take the port meanwhile.
    """

    def __init__(self, bound=None):
        self.events = []
        self.tokens = []
        self.known = set()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), ReceiverHandler, bind_and_activate=bound is None)
        if bound is not None:
            self.socket.close()
            self.socket = bound
            self.server_address = bound.getsockname()
            self.server_name, self.server_port = self.server_address
            self.server_activate()

    def of(self, name):
        return [event for event in list(self.events) if event["hook_event_name"] == name]

    def names(self):
        return [event["hook_event_name"] for event in list(self.events)]

    def take(self, event, token):
        with self.lock:
            if event["hook_id"] not in self.known:
                self.known.add(event["hook_id"])
                self.tokens.append(token)
                self.events.append(event)

    def wait(self, name, count=1, timeout=30.0):
        wait_for(lambda: len(self.of(name)) >= count, timeout, f"{count} x {name} in {self.names()}")
        return self.of(name)[count - 1]


class ReceiverHandler(Quiet):
    def do_POST(self):
        self.server.take(self.body(), self.headers.get("Authorization"))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


class Pane:
    """One program in a pane of a private tmux server."""

    def __init__(self, folder, cols=100, rows=30):
        self.socket = folder / "t"
        self.folder = folder
        self.cols, self.rows = cols, rows
        self.number = 0

    def tmux(self, *args, check=True):
        return subprocess.run(
            ["tmux", "-u", "-S", self.socket, "-f", "/dev/null", *args],
            check=check, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def run(self, argv, env=None):
        settings = [f"{key}={value}" for key, value in (env or {}).items()]
        self.tmux(
            "new-session", "-d", "-x", str(self.cols), "-y", str(self.rows),
            "env", "-u", "TMUX", *settings, *map(str, argv), ";", "set", "-g", "remain-on-exit", "on",
        )  # fmt: skip

    def paste(self, text, enter=True, bracketed=True):
        self.number += 1
        path = self.folder / f"b{self.number}"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        name = f"b{self.number}"
        args = ["load-buffer", "-b", name, str(path), ";", "paste-buffer", "-d", "-b", name]
        self.tmux(*args, *(["-p"] if bracketed else []))
        path.unlink()
        if enter:
            self.enter()

    def enter(self):
        self.paste("\r", enter=False, bracketed=False)

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def screen(self, *args):
        return self.tmux("capture-pane", "-p", *args)

    def wait_screen(self, text, timeout=30.0):
        try:
            wait_for(lambda: text in self.screen("-J"), timeout)
        except AssertionError:
            raise AssertionError(f"{text!r} not on screen:\n{self.screen()}") from None

    def dead(self):
        return self.tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def pid(self):
        return int(self.tmux("display-message", "-p", "#{pane_pid}"))

    def close(self):
        pid = self.tmux("display-message", "-p", "#{pid}", check=False).strip()
        self.tmux("kill-server", check=False)
        if pid:
            wait_for(lambda: not _alive(int(pid)))


def _alive(pid):
    """Tell whether a process lives; one that only waits for its parent's word does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        if Path("/proc/self").exists():
            return False
        try:
            os.kill(pid, 0)  # no /proc here
        except ProcessLookupError:
            return False
        return True
    return state != "Z"


class Chat:
    """The chat program in a pane, with its endpoint and its receiver."""

    def __init__(self, folder, endpoint, receiver):
        self.folder, self.endpoint, self.receiver = folder, endpoint, receiver
        self.pane = None
        self.transcript = folder / "transcript.jsonl"

    def start(self, *, env=None, cols=100, rows=30, wait=True, tells_end=False, api="anthropic", **settings):
        data = {
            "name": "ada", "api": api, "model": "tiny", "session_id": "s-1", "max_tokens": 100,
            "base_url": self.endpoint.url + ("/v1" if api == "openai" else ""),
            "hook_url": self.receiver.url + "/hooks/ada?x=1", "transcript_path": str(self.transcript),
        } | settings  # fmt: skip
        path = self.folder / "settings.json"
        path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
        if self.pane is not None:
            self.pane.close()
        self.pane = Pane(self.folder, cols, rows)
        argv = [sys.executable, "-m", "orchestrator_lab.programs.chat", "--settings", path]
        if tells_end:
            # tmux may let go of a pane whose program has ended before the kernel has handed over its last words.
            argv = ["sh", "-c", '"$@"; echo "ended with $?"; exec sleep 1000', "sh", *argv]
        before = len(self.receiver.of("SessionStart"))
        self.pane.run(argv, {"ORCHESTRATOR_LAB_AGENT_TOKEN": "tok-1"} | (env or {}))
        if wait:
            self.receiver.wait("SessionStart", before + 1)
        return self

    def records(self):
        return [json.loads(line) for line in self.transcript.read_text().splitlines()]
