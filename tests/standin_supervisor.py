"""A supervisor that only answers, beside which the keeper is tested; run as a program.

One line on the API or TCP listener is a command, one line of JSON the answer:
``state``, ``said`` (what the keeper said), ``keeper {...}`` (passed on to the keeper), ``bye``
(orderly end), ``crash N`` (exit status N), ``nobye`` (never starts another keeper).
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from orchestrator_lab import runtime


class Standin:
    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--die", type=int, default=None)
        parser.add_argument("folder", type=Path)
        for name in ("--api-fd", "--tcp-fd", "--lock-fd", "--keeper-fd"):
            parser.add_argument(name, type=int, required=True)
        parser.add_argument("--restart", type=int, default=0)
        parser.add_argument("--gap-since", type=float)
        self.options = parser.parse_args()
        if self.options.die is not None:
            sys.exit(self.options.die)
        self.api = socket.socket(fileno=self.options.api_fd)
        self.tcp = socket.socket(fileno=self.options.tcp_fd)
        self.keeper = socket.socket(fileno=self.options.keeper_fd)
        for descriptor in (self.api.fileno(), self.tcp.fileno(), self.options.lock_fd):
            os.set_inheritable(descriptor, False)
        self.keeper.set_inheritable(False)
        self.said: list[dict] = []
        self.rest = b""
        self.restart_keeper = True
        #: With which it ends, once it has answered.
        self.status: int | None = None
        self.keepers: list[subprocess.Popen] = []
        self.selector = selectors.DefaultSelector()
        for listener in (self.api, self.tcp):
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(self.keeper, selectors.EVENT_READ, self.hear)

    def accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.settimeout(30)
        with connection:
            command = connection.makefile("r").readline().strip()
            answer = self.answer(command)
            connection.sendall(json.dumps(answer).encode() + b"\n")
        if self.status is not None:
            os._exit(self.status)  # its answer is with whoever asked

    def answer(self, command: str) -> object:
        word, _, rest = command.partition(" ")
        if word == "said":
            return self.said
        if word == "keeper":
            self.keeper.sendall(rest.encode() + b"\n")
            return "ok"
        if word == "nobye":
            self.restart_keeper = False
            return "ok"
        if word == "bye":
            self.keeper.sendall(b'{"op":"bye"}\n')
            self.status = 0
        if word == "crash":
            self.status = int(rest)
        return {
            "pid": os.getpid(),
            "restart": self.options.restart,
            "gap_since": self.options.gap_since,
            "keepers": len(self.keepers),
        }

    def hear(self, connection: socket.socket) -> None:
        data = connection.recv(1 << 16)
        if not data:
            self.selector.unregister(connection)
            connection.close()
            if self.restart_keeper:
                self.adopt()
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.said += [json.loads(line) for line in lines]

    def adopt(self) -> None:
        ours, theirs = socket.socketpair()
        handed = {
            "--api-fd": self.api.fileno(),
            "--tcp-fd": self.tcp.fileno(),
            "--lock-fd": self.options.lock_fd,
            "--supervisor-fd": theirs.fileno(),
        }
        argv = [*runtime.keeper_argv(self.options.folder), "--adopt"]
        for name, descriptor in handed.items():
            argv += [name, str(descriptor)]
        argv += ["--supervisor-pid", str(os.getpid()), "--restarts", str(self.options.restart)]
        argv += ["--supervisor-cmd", json.dumps([sys.executable, __file__])]
        with (Path(runtime.read_record(self.options.folder).run_dir) / "keeper.log").open("ab") as log:
            self.keepers.append(
                subprocess.Popen(
                    argv,
                    pass_fds=tuple(handed.values()),
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
        theirs.close()
        self.keeper = ours
        self.rest = b""
        self.selector.register(ours, selectors.EVENT_READ, self.hear)

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select(1.0):
                key.data(key.fileobj)
            for keeper in self.keepers:
                keeper.poll()


if __name__ == "__main__":
    started = time.monotonic()
    Standin().run()
