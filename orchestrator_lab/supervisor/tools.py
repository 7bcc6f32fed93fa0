"""The lab's tools for agents, over MCP's streamable HTTP.

Stateless: who calls is read from each request's bearer, never from a session. A tool returns at once and never waits
for another agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import OrchestratorLabError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer
    from starlette.applications import Starlette

    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["Tools"]


class Tools:
    """The MCP server of one cluster.

    Parameters
    ----------
    supervisor : Supervisor
        Takes the messages.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        from mcp.server.mcpserver import MCPServer

        self._supervisor = supervisor
        self.server: MCPServer = MCPServer(
            "orchestrator-lab",
            instructions="Write to the other agents of your cluster, see who is there and what was said.",
        )
        self._register()
        self.app: Starlette = self.server.streamable_http_app(
            streamable_http_path="/mcp", json_response=True, stateless_http=True, max_request_body_size=32 << 20
        )

    def run(self) -> Any:  # noqa: ANN401 - the SDK's context manager
        """Return the context in which requests are served (a mounted application's lifespan does not run)."""
        return self.server.session_manager.run()

    def _register(self) -> None:
        from mcp.server.mcpserver import Context
        from mcp.server.mcpserver.exceptions import ToolError

        supervisor = self._supervisor

        def caller(context: Context[Any, Any]) -> AgentRunner:
            header = (context.headers or {}).get("authorization", "")
            runner = supervisor.by_token(header.removeprefix("Bearer "))
            if runner is None:
                raise ToolError("this secret belongs to no agent of the cluster")
            return runner

        async def send_message(
            to: str, text: str, context: Context[Any, Any], in_reply_to: str | None = None
        ) -> dict[str, Any]:
            """Write to another agent. It is typed into that agent's input once it is idle.

            Returns at once with the message's id; an answer, if one comes, arrives as a prompt of its own. To answer
            a message, give the id from its first line as in_reply_to.
            """
            runner = caller(context)
            try:
                message = supervisor.routing.send_from_agent(runner, to, text, in_reply_to=in_reply_to)
            except OrchestratorLabError as error:
                raise ToolError(error.message) from error
            if message.status == "refused":
                raise ToolError(f"refused: {message.error_message}")
            return {"message_id": message.message_id, "to": to, "status": message.status}

        async def broadcast(text: str, context: Context[Any, Any]) -> dict[str, Any]:
            """Write the same text to every agent that you may write to."""
            runner = caller(context)
            try:
                sent = supervisor.routing.broadcast(runner, text)
            except OrchestratorLabError as error:
                raise ToolError(error.message) from error
            return {"message_ids": {message.recipient: message.message_id for message in sent}}

        async def list_agents(context: Context[Any, Any]) -> list[dict[str, Any]]:
            """Say who is in the cluster: name, role, state, and whether you may write to them."""
            runner = caller(context)
            return [
                {
                    "name": other.name,
                    "role": other.config.role,
                    "kind": other.config.kind,
                    "state": other.state,
                    "you": other is runner,
                    "you_may_write": supervisor.config.topology.allows(runner.name, other.name),
                }
                for other in supervisor.runners.values()
            ]

        async def read_messages(
            context: Context[Any, Any], since: str | None = None, limit: int = 50
        ) -> list[dict[str, Any]]:
            """Return the messages that you sent and got, oldest first; since is the id of the last one you know.

            Without since they are the newest.
            """
            runner = caller(context)
            try:
                return supervisor.routing.history(runner.name, since, max(1, min(limit, 500)))
            except OrchestratorLabError as error:
                raise ToolError(error.message) from error

        # The SDK reads the annotations, which are texts in this module, in the functions' globals.
        for tool in (send_message, broadcast, list_agents, read_messages):
            tool.__globals__["Context"] = Context
            self.server.add_tool(tool)
