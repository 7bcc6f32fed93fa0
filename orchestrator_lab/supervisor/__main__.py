"""``python -m orchestrator_lab.supervisor R …``: started by the keeper, never by hand."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import OrchestratorLabError, SupervisorLost
from orchestrator_lab.runtime import write_private
from orchestrator_lab.supervisor.core import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn

    from orchestrator_lab.supervisor.loopback import Loopback

logger = logging.getLogger("orchestrator_lab.supervisor")

#: Seconds for which the MCP SDK waits while agents start.
_STARTING_S = 6.0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchestrator_lab.supervisor")
    parser.add_argument("folder", type=Path, help="the cluster's runtime folder")
    for name in ("--api-fd", "--tcp-fd", "--lock-fd", "--keeper-fd"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--restart", type=int, default=0)
    parser.add_argument("--gap-since", type=float)
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace) -> int:
    supervisor = Supervisor(options.folder, options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: asyncio.ensure_future(supervisor.lifecycle.shutdown("cancelled")))
    try:
        await supervisor.open()
    except OrchestratorLabError as error:
        if not supervisor.resumed:
            raise
        # A run that cannot go on is left as it was, and trying again would change nothing.
        write_private(options.folder / "failure.json", _as_json(error))
        await supervisor.let_go()
        return 0
    # The servers' libraries load while tmux and the agents start.
    from orchestrator_lab.supervisor.api import Api
    from orchestrator_lab.supervisor.loopback import Loopback

    api, loopback = Api(supervisor), Loopback(supervisor)
    servers = [
        (_server(api.app), socket.socket(fileno=os.dup(options.api_fd))),
        (_server(loopback.app), socket.socket(fileno=os.dup(options.tcp_fd))),
    ]
    running = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in servers]
    failure: OrchestratorLabError | None = None
    tools = asyncio.create_task(_load_tools(supervisor, loopback))
    if supervisor.status_text != "ending" and (supervisor.unfinished or not supervisor.runners):
        try:
            if supervisor.runners:
                # Who was joining is no part of the cluster's own start: whoever adds it asks again.
                mine = [one for one in supervisor.unfinished if one.name in supervisor.configured]
                await supervisor.lifecycle.wait_ready(mine)
            else:
                await supervisor.lifecycle.launch()
        except OrchestratorLabError as error:
            failure = error
        except Exception as error:
            logger.exception("the start failed")
            failure = SupervisorLost(f"the start failed inside the supervisor: {error!r}")
    # What the start made lives as long as the process; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    if supervisor.resuming:
        await supervisor.rebuild.settled()
        supervisor.resuming = supervisor.status_text == "ending"
    if failure is None:
        api.launched.set_result(None)
        await supervisor.ending.wait()
    else:
        write_private(options.folder / "failure.json", _as_json(failure))
        api.launched.set_exception(failure)
        await supervisor.lifecycle.shutdown("failed")
        await asyncio.sleep(0)
    for server, _ in servers:
        server.should_exit = True
    await asyncio.wait(running, timeout=3)
    tools.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tools
    await supervisor.close(error=failure)
    return 0


async def _load_tools(supervisor: Supervisor, loopback: Loopback) -> None:
    """Load the MCP SDK off the loop, once somebody can want it.

    It takes a second of a processor, which agents that start have better use for, unless they are ready with their
    tools only; and no agent gets a message before it has listed the tools.
    """
    await supervisor.ledger.until(
        lambda: loopback.tools_wanted or any(getattr(one.config, "mcp", False) for one in supervisor.runners.values()),
        None,
    )
    await supervisor.ledger.until(
        lambda: all(one.state != "starting" or one.looks.starts_on_screen for one in supervisor.runners.values()),
        _STARTING_S,
    )

    def load() -> type:
        import mcp.server.mcpserver  # noqa: F401

        from orchestrator_lab.supervisor.tools import Tools

        return Tools

    try:
        tools = (await asyncio.to_thread(load))(supervisor)
        async with tools.run():
            loopback.tools.set_result(tools)
            supervisor.tools_settled()
            await asyncio.Event().wait()
    except Exception as error:
        logger.exception("the agents' tools cannot be had")
        if not loopback.tools.done():
            loopback.tools.set_exception(SupervisorLost(f"the lab's tools cannot be had: {error!r}"))
            loopback.tools.exception()  # seen, also when no program ever asks
        supervisor.tools_settled()


def _server(app: Any) -> uvicorn.Server:  # noqa: ANN401 - an ASGI application
    import uvicorn

    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
        backlog=512,
    )
    server = uvicorn.Server(config)
    # Signals are the supervisor's own business.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    return server


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop: uvloop's does the same work in half the time, where it can be had."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _as_json(error: OrchestratorLabError) -> str:
    import json

    from orchestrator_lab.errors import to_payload

    return json.dumps(to_payload(error))


def main() -> int:
    """Run the supervisor of one cluster; exit status 0 is an orderly end."""
    options = _options(sys.argv[1:])
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s supervisor %(process)d %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(options))
    except OrchestratorLabError as error:
        # Said where the client that waits for the start will look.
        write_private(options.folder / "failure.json", _as_json(error))
        logger.exception("the supervisor cannot go on")
        return 1


if __name__ == "__main__":
    sys.exit(main())
