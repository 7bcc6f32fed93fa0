"""The cheapest correct hand-written way to talk to an agent in tmux: the baseline of the message benchmarks.

One asyncio loop holds a control-mode client of a bare tmux server, a minimal HTTP server that takes the program's
hooks, and a model that answers at once. ``ask`` is: write a file, load-buffer and paste-buffer -p in one write, Enter
(for Claude Code once the pane shows the text), wait for UserPromptSubmit and Stop. No journal, no checks, no second
client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import subprocess
import time
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Hand", "bare_environment"]

_EVENTS = (
    ("message_start", {"message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m",
                                   "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}}),
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "ok"}}),
    ("content_block_stop", {"index": 0}),
    ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
    ("message_stop", {}),
)  # fmt: skip
_ANSWER = "".join(f"event: {name}\ndata: {json.dumps({'type': name, **body})}\n\n" for name, body in _EVENTS).encode()


def bare_environment() -> dict[str, str]:
    """Return this environment without what marks a program inside tmux or another agent."""
    from orchestrator_lab.agents.base import clean_environment

    return clean_environment(os.environ)


class Hand:
    """One bare tmux server, and programs in it that report to us."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = folder / "tmux.sock"
        self.port = 0
        self.token = "hand"
        self._control: asyncio.subprocess.Process | None = None
        self._server: asyncio.Server | None = None
        self._hooks: dict[tuple[str, str], asyncio.Future[dict[str, Any]]] = {}
        self._counts = 0
        self._screens: dict[str, asyncio.Event] = {}
        self._readers: list[int] = []
        self.modes: dict[str, bytes] = {}

    # the server -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start tmux, the control client and the HTTP server. Blocking calls are welcome: nothing is timed here."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        tmux = ["tmux", "-S", str(self.socket), "-f", "/dev/null", "-u"]
        subprocess.run(  # noqa: ASYNC221
            [*tmux, "new-session", "-d", "-s", "hand", "-x", "200", "-y", "50", "sleep 1000000"],
            env=bare_environment(),
            check=True,
        )
        self._control = await asyncio.create_subprocess_exec(
            *tmux, "-C", "attach", "-f", "no-output",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=bare_environment(),
        )  # fmt: skip
        assert self._control.stdout is not None
        self._drain = asyncio.create_task(self._control.stdout.read())
        await asyncio.sleep(0.2)

    async def close(self) -> None:
        """End everything."""
        for descriptor in self._readers:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        pid = subprocess.run(  # noqa: ASYNC221
            ["tmux", "-S", str(self.socket), "display-message", "-p", "#{pid}"], capture_output=True, check=False
        ).stdout
        subprocess.run(["tmux", "-S", str(self.socket), "kill-server"], check=False)  # noqa: ASYNC221
        if self._control is not None:
            await self._control.wait()
        for _ in range(400):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(pid), 0)
                await asyncio.sleep(0.01)
                continue
            break
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
                lengths = [int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(lengths[0]) if lengths else b""
                if head[0].startswith(b"POST /hooks"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
                    payload = json.loads(body)
                    # The agent is known by its bearer, as in the lab.
                    bearer = next(line for line in head if line.lower().startswith(b"authorization:"))
                    self._told(bearer.split()[-1].decode(), payload)
                elif b"/messages" in head[0] and b"count_tokens" not in head[0]:
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
                        % len(_ANSWER)
                    )
                    writer.write(_ANSWER)
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n")
                    writer.write(b'{"input_tokens":1}')
                await writer.drain()
        writer.close()

    def _told(self, agent: str, payload: dict[str, Any]) -> None:
        future = self._hooks.pop((agent, str(payload.get("hook_event_name"))), None)
        if future is not None and not future.done():
            future.set_result(payload)

    def hook(self, agent: str, name: str) -> asyncio.Future[dict[str, Any]]:
        """Return what the next hook of this name and agent will hold."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._hooks[agent, name] = future
        return future

    # programs -------------------------------------------------------------------------------------

    def launcher(self, agent: str, argv: list[str], environ: Mapping[str, str], cwd: Path) -> Path:
        """Write a launch script like the lab's own."""
        folder = self.folder / agent
        folder.mkdir(mode=0o700, exist_ok=True)
        lines = ["unset TMUX TMUX_PANE"]
        lines += [f"export {key}={shlex.quote(value)}" for key, value in environ.items() if key.isidentifier()]
        lines += [f"cd {shlex.quote(str(cwd))} || exit 97", f"exec {shlex.join(argv)}"]
        path = folder / "launch.sh"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.chmod(0o600)
        return path

    def follow(self, agent: str) -> Path:
        """Make a pipe for the pane's output; returns its path, for pipe-pane."""
        path = self.folder / agent / "output.fifo"
        os.mkfifo(path, 0o600)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._screens[agent] = asyncio.Event()
        self.modes[agent] = b""

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                data = os.read(descriptor, 65536)
                self.modes[agent] = (self.modes[agent] + data)[-100_000:]
                self._screens[agent].set()
                self._screens[agent] = asyncio.Event()

        asyncio.get_running_loop().add_reader(descriptor, read)
        self._readers.append(descriptor)
        return path

    async def until(self, agent: str, wanted: bytes) -> None:
        """Wait until the pane wrote something."""
        while wanted not in self.modes[agent]:
            await self._screens[agent].wait()

    def start(self, agent: str, launch: Path) -> str:
        """Start one program in a window of its own; returns its pane."""
        out = self.follow(agent)
        command = ["tmux", "-S", str(self.socket), "new-window", "-d", "-P", "-F", "#{pane_id}", f"sh {launch}"]
        command += [";", "pipe-pane", "-t", "hand:{end}", f"exec cat >{out}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    # messages -------------------------------------------------------------------------------------

    def _send(self, *lines: str) -> None:
        assert self._control is not None
        assert self._control.stdin is not None
        self._control.stdin.write("".join(f"{line}\n" for line in lines).encode())

    async def ask(self, agent: str, pane: str, text: str, *, echo: bool) -> tuple[float, float]:
        """Type a text and Enter; return the seconds to acceptance and to the reply."""
        began = time.perf_counter()
        accepted, ended = self.hook(agent, "UserPromptSubmit"), self.hook(agent, "Stop")
        self._counts += 1
        name = f"h{self._counts}"
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        self.modes[agent] = b""
        self._send(f"load-buffer -b {name} {path}", f"paste-buffer -p -d -b {name} -t {pane}")
        if echo:
            # Any output would be quicker by luck, and now and then lose the Enter.
            await asyncio.wait_for(self.until(agent, text.encode()), 20)
        self._send(f"send-keys -t {pane} Enter")
        prompt = await asyncio.wait_for(accepted, 20)
        accepted_s = time.perf_counter() - began
        assert prompt["prompt"] == text, prompt
        reply = await asyncio.wait_for(ended, 20)
        ended_s = time.perf_counter() - began
        assert reply["last_assistant_message"], reply
        path.unlink()
        return accepted_s, ended_s


def chat_launch(hand: Hand, agent: str, work_dir: Path) -> Path:
    """Write what starts the lab's chat program without the lab."""
    import sys

    folder = hand.folder / agent
    folder.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "name": agent, "api": "anthropic", "base_url": f"http://127.0.0.1:{hand.port}", "model": "m",
        "max_tokens": 1024, "hook_url": f"http://127.0.0.1:{hand.port}/hooks", "session_id": str(uuid.uuid4()),
        "transcript_path": str(folder / "transcript.jsonl"), "resume": False,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    environ = {**bare_environment(), "ORCHESTRATOR_LAB_AGENT_TOKEN": agent, "COLORTERM": "truecolor"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    argv = [sys.executable, "-m", "orchestrator_lab.programs.chat", "--settings", str(folder / "settings.json")]
    return hand.launcher(agent, argv, environ, work_dir)


def claude_launch(hand: Hand, agent: str, work_dir: Path, command: str) -> Path:
    """Write what starts the real Claude Code with the lab's own settings and hooks, without the lab."""
    from orchestrator_lab.agents import adapter_for
    from orchestrator_lab.agents.base import LaunchContext
    from orchestrator_lab.config import load_config

    settings = {
        "cluster": {"name": "hand", "work_dir": str(work_dir), "gateway": {"mode": "script", "script": []}},
        "agents": [{"name": agent, "kind": "claude", "command": [command], "mcp": False}],
    }  # fmt: skip
    loaded = load_config(settings)
    config = loaded.agents[0].model_copy(update={"gateway": loaded.gateway_of(loaded.agents[0])})
    folder = hand.folder / agent
    folder.mkdir(mode=0o700, exist_ok=True)
    environ = {**bare_environment(), "ORCHESTRATOR_LAB_AGENT_TOKEN": agent, "TERM": "tmux-256color"}
    url = f"http://127.0.0.1:{hand.port}"
    context = LaunchContext(
        cluster="hand", folder=folder, work_dir=work_dir, work_dir_is_ours=False, transcripts=folder, environ=environ,
        url=url, token=agent, gateway_url=f"{url}/{agent}", instructions=None, roster="You may write to nobody.",
        session_id=str(uuid.uuid4()), resume=False,
    )  # fmt: skip
    adapter = adapter_for("claude")
    launch = adapter.prepare(config, adapter.locate(config, environ), context)
    os.mkfifo(folder / "ready.fifo", 0o600)
    return hand.launcher(agent, list(launch.argv), launch.environ, work_dir)


async def session_started(hand: Hand, agent: str) -> None:
    """Wait for the byte that the SessionStart hook writes."""
    loop = asyncio.get_running_loop()
    descriptor = os.open(hand.folder / agent / "ready.fifo", os.O_RDWR | os.O_NONBLOCK)
    told = asyncio.Event()
    loop.add_reader(descriptor, told.set)
    try:
        await told.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
