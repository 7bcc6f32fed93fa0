"""Time to five ready Claude agents, against five bare ``claude`` processes started side by side by a shell script.

    python tests/benchmarks/bench_start.py [--agents N] [--quick] [--json FILE]

Ready is the same on both sides: the SessionStart hook has come and the terminal is in bracketed-paste mode. The bare
processes have the settings, hooks and fresh configuration folders of the lab's agents, and panes of a tmux server that
runs already. The lab's agents also have the lab's tools (an MCP server), unless the row says that they have not. They
are ready before they have listed these, and only their first message waits for that: one row says how long.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from _hand import Hand, bare_environment, claude_launch, session_started
from _lab import Figure, claude_command, cluster_config, main, relative, shuffled

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


async def bare(hand: Hand, names: list[str], place: Path) -> float:
    """Start programs by one shell script; return the seconds until the last is ready. Preparing them is not timed."""
    tmux = f"tmux -S {hand.socket}"
    lines = []
    for name in names:
        launch = claude_launch(hand, name, place / "work", claude_command())
        out = hand.follow(name)
        lines.append(f"{tmux} new-window -d -n {name} 'sh {launch}' ';' pipe-pane -t hand:{name} 'exec cat >{out}' &")
    script = hand.folder / "start.sh"
    script.write_text("\n".join([*lines, "wait", ""]), encoding="utf-8")
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec("sh", str(script), env=bare_environment())

    async def ready(name: str) -> None:
        await asyncio.gather(session_started(hand, name), hand.until(name, b"\x1b[?2004h"))

    await asyncio.wait_for(asyncio.gather(*(ready(name) for name in names)), 90)
    took = time.perf_counter() - began
    await process.wait()
    await asyncio.sleep(0.5)
    for name in names:
        subprocess.run([*tmux.split(), "kill-window", "-t", f"hand:{name}"], check=False)  # noqa: ASYNC221
    await gone(hand)
    return took


async def gone(hand: Hand) -> None:
    """Wait until the ended programs have freed the processors."""
    for _ in range(200):
        if not any(
            str(hand.folder) in word for process in psutil.process_iter(["cmdline"]) for word in _words(process)
        ):
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)


def listed(cluster: Cluster, names: set[str]) -> None:
    """Wait until these agents have listed the lab's tools."""
    deadline = time.monotonic() + 30
    while not names <= {event.agent for event in cluster.events() if event.event == "agent.tools"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _words(process: psutil.Process) -> list[str]:
    words = process.info["cmdline"] or []
    return words if any(word.endswith("settings.json") for word in words) else []


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    loop = asyncio.new_event_loop()
    hand = Hand(place / "h")
    sides = ["bare", "warm", "warm, no tools", "cold"]
    times: dict[str, list[float]] = {side: [] for side in [*sides, "tools"]}

    def agents(turn: int, *, tools: bool) -> list[dict[str, Any]]:
        letter = "t" if tools else "n"
        names = [f"a{turn}{letter}{number}" for number in range(args.agents)]
        return [{"name": name, "kind": "claude", "command": claude_command(), "mcp": tools} for name in names]

    loop.run_until_complete(hand.open())
    try:
        with Cluster.start(cluster_config(place, "warm", [{"name": "first", "kind": "chat"}])) as warm:
            for turn, side in shuffled(sides, 2 if args.quick else args.rounds):
                if side == "bare":
                    names = [f"b{turn}x{number}" for number in range(args.agents)]
                    took = loop.run_until_complete(bare(hand, names, place))
                elif side == "cold":
                    config = cluster_config(place, f"cold{turn}", agents(turn, tools=True))
                    began = time.perf_counter()
                    cluster = Cluster.start(config)
                    took = time.perf_counter() - began
                    time.sleep(0.5)
                    cluster.shutdown()
                    time.sleep(1.0)
                else:
                    new = agents(turn, tools=side == "warm")
                    began = time.perf_counter()
                    warm.add(*new)
                    took = time.perf_counter() - began
                    if side == "warm":
                        listed(warm, {agent["name"] for agent in new})
                        times["tools"].append(time.perf_counter() - began)
                    time.sleep(0.5)
                    for agent in new:
                        warm.remove(agent["name"])
                    time.sleep(1.0)
                times[side].append(took)
                print(f"  {side:<16} {took:.2f} s", flush=True)
    finally:
        loop.run_until_complete(hand.close())
        loop.close()
    count = args.agents
    yield relative(f"{count} ready Claude agents, supervisor warm", times["bare"], times["warm"], at_most=1.1)
    name = f"{count} Claude agents, supervisor warm, until the tools are listed"
    yield relative(name, times["bare"], times["tools"], note="the baseline has no tools")
    name = f"{count} ready Claude agents, supervisor warm, without tools"
    yield relative(name, times["bare"], times["warm, no tools"])
    name = f"{count} ready Claude agents, from nothing (Cluster.start)"
    yield relative(name, times["bare"], times["cold"], note="the baseline's tmux runs already")


if __name__ == "__main__":
    main(
        "Start of Claude agents",
        bench,
        ("--agents", {"type": int, "default": 5}),
        ("--rounds", {"type": int, "default": 13}),
    )
