"""What the tests of messaging share: agents' secrets, their routes, and the official MCP client."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from orchestrator_lab.errors import OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp import ClientSession

    from orchestrator_lab import Cluster


def folder(cluster: Cluster) -> Path:
    """Return the runtime folder of a cluster."""
    return Path(os.environ["ORCHESTRATOR_RUNTIME_DIR"]) / cluster.name


def kept(cluster: Cluster, agent: str) -> dict[str, Any]:
    """Return what the supervisor keeps of an agent: its secrets among it."""
    found: dict[str, Any] = json.loads((folder(cluster) / "agents" / agent / "agent.json").read_text())
    return found


def address(cluster: Cluster) -> str:
    """Return the base of the loopback application."""
    port = json.loads((folder(cluster) / "cluster.json").read_text())["port"]
    return f"http://127.0.0.1:{port}"


def bearer(cluster: Cluster, agent: str) -> dict[str, str]:
    """Return the header by which an agent is known."""
    return {"authorization": f"Bearer {kept(cluster, agent)['token']}"}


def write(cluster: Cluster, agent: str, to: str, text: str, in_reply_to: str | None = None) -> dict[str, Any]:
    """Write as an agent, by the route that a pane's command line uses; return the message."""
    answer = httpx.post(
        f"{address(cluster)}/agent/messages",
        headers=bearer(cluster, agent),
        json={"to": to, "text": text, "in_reply_to": in_reply_to},
        timeout=30,
    )
    body = answer.json()
    if answer.is_error:
        raise OrchestratorLabError(f"{answer.status_code} {body['error']}")
    found: dict[str, Any] = body["messages"][0]
    return found


def accepted(cluster: Cluster, message_id: str) -> None:
    """Wait until a message's recipient has taken it."""
    facts = cluster.client.get(f"/messages/{message_id}", timeout_s=30.0, until="accepted")
    assert facts["status"] in {"accepted", "started"}, facts


def rows(cluster: Cluster, **where: Any) -> list[dict[str, Any]]:
    """Return rows of messages_df as dicts, those that match."""
    frame = cluster.run.messages
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return [dict(row) for row in frame.to_dict("records")]


@asynccontextmanager
async def tools(cluster: Cluster, agent: str | None, *, token: str | None = None) -> AsyncIterator[ClientSession]:
    """Connect the official SDK's client with an agent's bearer."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    headers = bearer(cluster, agent) if agent else {"authorization": f"Bearer {token}"}
    try:
        import httpx2 as web
    except ImportError:  # the SDK's own choice of library
        import httpx as web  # type: ignore[no-redef]
    async with (
        web.AsyncClient(headers=headers, timeout=30) as http,
        streamable_http_client(f"{address(cluster)}/mcp", http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        yield session


async def call(session: ClientSession, tool: str, **arguments: Any) -> tuple[bool, Any]:
    """Call a tool; return whether it was an error, and what it gave."""
    result = await asyncio.wait_for(session.call_tool(tool, arguments), 20)
    texts = [json.loads(part.text) if not result.is_error else part.text for part in result.content]  # type: ignore[union-attr]
    structured = result.structured_content
    if result.is_error:
        return True, "\n".join(texts)
    if isinstance(structured, dict) and set(structured) == {"result"}:
        return False, structured["result"]
    return False, structured if structured is not None else texts
