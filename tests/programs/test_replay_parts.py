"""The player of recorded agents, by its parts; tests/test_replay_terminal.py has it play."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.programs.replay.told import Lab, LabGoneError

if TYPE_CHECKING:
    from pathlib import Path


class Forgetful(BaseHTTPRequestHandler):
    """Promises to keep a connection, and closes it: as a server does with one that was idle for long."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def test_a_connection_that_was_closed_meanwhile_ends_nothing() -> None:
    server = HTTPServer(("127.0.0.1", 0), Forgetful)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        lab = Lab(f"http://127.0.0.1:{server.server_port}", "secret")
        assert [lab.report({"what": "rests"}) for _ in range(3)] == [{}, {}, {}]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with pytest.raises(LabGoneError):
        lab.report({"what": "rests"})


@pytest.mark.parametrize("content", ["", "no json\n"])
def test_it_says_what_it_needs(tmp_path: Path, content: str) -> None:
    reel = tmp_path / "reel.jsonl"
    reel.write_text(content)
    command = [sys.executable, "-m", "orchestrator_lab.programs.replay", str(reel)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is played on a terminal" in done.stderr
