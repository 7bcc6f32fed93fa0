"""Progress of a start, and Ctrl-C during it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from orchestrator_lab.cli import common

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from rich.console import Console, ConsoleOptions, RenderResult

    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.config import ClusterConfig

__all__ = ["interruptible", "starting"]


@contextlib.contextmanager
def interruptible(cleaning: str) -> Iterator[None]:
    """Let the first Ctrl-C (or a hang-up, or SIGTERM) end the block in order, and further ones not disturb that.

    Parameters
    ----------
    cleaning : str
        What is said while the block cleans up.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    interrupted = False

    def once(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        if number != signal.SIGHUP and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{cleaning} …\n")
        raise KeyboardInterrupt

    # A command under nohup ignores SIGHUP, one in a script's background ignores SIGINT: that stays so.
    before = {one: signal.getsignal(one) for one in numbers}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, once)
    try:
        yield
    finally:
        if not interrupted:  # else this process ends now, and nothing may stop it half-way
            for one, handler in before.items():
                signal.signal(one, handler)


class _Starting:
    """The agents as they come up; drawn again by rich as long as it is live."""

    def __init__(self, config: ClusterConfig) -> None:
        self._names = config.names
        self._begun = time.monotonic()
        self._states = dict.fromkeys(self._names, "")
        self._since: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, event: dict[str, Any]) -> None:
        """Note what an event says (called by the thread that follows the journal)."""
        agent, name = event.get("agent"), event["event"]
        if agent not in self._states:
            return
        with self._lock:
            if name == "agent.started":
                self._states[agent] = "starting"
            elif name == "agent.ready":
                self._states[agent] = "idle"
                self._since[agent] = time.monotonic()
            elif name == "agent.failed":
                self._states[agent] = "failed"
            elif name == "dialog.opened":
                self._states[agent] = "waiting"
            elif name == "agent.state":
                self._states[agent] = str((event.get("attributes") or {}).get("state") or self._states[agent])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        del console, options
        rows = Table.grid(padding=(0, 2))
        with self._lock:
            for name in self._names:
                state = self._states[name]
                mark: Any = Spinner("dots", style="cyan") if state in {"", "starting"} else common.state_text(state)
                if state in {"", "starting"}:
                    grid = Table.grid(padding=(0, 1))
                    grid.add_row(mark, Text("starting" if state else "preparing", style="cyan"))
                    mark = grid
                at = self._since.get(name)
                took = f"{at - self._begun:.1f} s" if at is not None else ""
                rows.add_row(Text(name, style=common.agent_style(name, self._names)), mark, Text(took, style="dim"))
        yield rows


def starting(config: ClusterConfig, *, quiet: bool = False, **rest: Any) -> Cluster:  # noqa: ANN401 - see Cluster.start
    """Start a cluster, showing its agents as they come up.

    Parameters
    ----------
    config : ClusterConfig
        What to start.
    quiet : bool
        Show nothing.
    **rest
        Passed on to :meth:`Cluster.start`.

    Returns
    -------
    Cluster
        Started.
    """
    from orchestrator_lab.cluster import Cluster

    # A run that is resumed brings its own.
    source = None if rest.get("resume") is not None else config
    if quiet or not sys.stderr.isatty():
        return Cluster.start(source, **rest)
    from rich.live import Live

    shown = _Starting(config)
    console = common.err()
    console.print(f"Starting [bold]{config.name}[/bold] ({len(config.agents)} agents)")
    with Live(shown, console=console, refresh_per_second=12, transient=True):
        return Cluster.start(source, on_event=shown.take, **rest)
