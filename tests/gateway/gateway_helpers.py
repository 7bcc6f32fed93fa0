"""A real gateway on a real port, for the tests of this folder."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from orchestrator_lab.gateway import Gateway


def settings(mode: str = "script", **more: Any) -> Any:
    """Return what the gateway reads of an agent's configuration."""
    given = {"base_url": None, "api": "anthropic", "script": None, "model": None, **more}
    return SimpleNamespace(mode=mode, **given)


@dataclass
class Running:
    gateway: Gateway
    port: int
    events: list[dict[str, Any]] = field(default_factory=list)

    def url(self, secret: str) -> str:
        return f"http://127.0.0.1:{self.port}/gateway/{secret}"

    def of(self, event: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == event]

    async def wait_for(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if len(self.of(event)) >= count:
                return self.of(event)
            await asyncio.sleep(0.01)
        raise AssertionError(f"{event} was not journalled {count} times: {self.events}")


@asynccontextmanager
async def serving(app: Any) -> Any:
    # The protocol is named, or asyncio leaves Nagle on: 40 ms a request.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        sock.close()


@asynccontextmanager
async def running_gateway(**options: Any) -> Any:
    running = Running(None, 0)  # type: ignore[arg-type]

    def record(event: str, *, agent: str, **attributes: Any) -> None:
        running.events.append({"event": event, "agent": agent, **attributes})

    running.gateway = Gateway(record, **options)
    async with serving(Starlette(routes=[Mount("/gateway", app=running.gateway.app)])) as port:
        running.port = port
        try:
            yield running
        finally:
            await running.gateway.aclose()


def asks(text: str, **more: Any) -> dict[str, Any]:
    """Return a minimal Messages request."""
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **more}
