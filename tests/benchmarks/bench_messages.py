"""From ``ask()`` to acceptance and to the reply of a model that answers at once, against the hand-written way.

    python tests/benchmarks/bench_messages.py [--kind chat] [--kind claude] [--quick] [--json FILE]

The baseline (``_hand.py``) does the least that is correct. The lab's way includes what it promises: the message on the
disk before its first byte is typed, one writer for each agent, every rung in the journal, a recording.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _hand import Hand, chat_launch, claude_launch, session_started
from _lab import Figure, claude_command, cluster_config, main, relative, shuffled

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

#: Pause after a turn: what a program does behind its answer must not fall into the other side's time.
REST_S = {"chat": 0.02, "claude": 0.35}


def compare(kind: str, place: Path, rounds: int) -> Iterator[Figure]:
    loop = asyncio.new_event_loop()
    hand = Hand(place / f"h{kind}")
    agent = {"name": "ada", "kind": kind}
    if kind == "claude":
        agent["command"] = claude_command()
    try:
        loop.run_until_complete(hand.open())
        if kind == "chat":
            launch = chat_launch(hand, "ada", place / "work")
        else:
            launch = claude_launch(hand, "ada", place / "work", claude_command())
        pane = loop.run_until_complete(_start(hand, launch, kind))
        with Cluster.start(cluster_config(place, f"m{kind}", [agent])) as cluster:
            times: dict[str, list[tuple[float, float]]] = {"hand": [], "lab": []}
            for turn, side in shuffled(["hand", "lab"], rounds + 3):
                text = f"message-{turn}-of-{side}"  # one word: a screen may move the cursor over blanks
                if side == "hand":
                    took = loop.run_until_complete(hand.ask("ada", pane, text, echo=kind == "claude"))
                else:
                    took = _lab(cluster, text)
                    cluster.wait()
                if turn >= 3:
                    times[side].append(took)
                loop.run_until_complete(asyncio.sleep(REST_S[kind]))
    finally:
        loop.run_until_complete(hand.close())
        loop.close()
    for index, what in enumerate(("acceptance", "the reply")):
        yield relative(
            f"{kind}: ask() to {what}",
            [pair[index] for pair in times["hand"]],
            [pair[index] for pair in times["lab"]],
            at_most=1.3,
        )


def _lab(cluster: Cluster, text: str) -> tuple[float, float]:
    """Time one ask(); when its message was accepted is what the supervisor wrote into the journal."""
    at, began = time.time(), time.perf_counter()
    exchange = cluster["ada"].ask(text, timeout=20)
    ended_s = time.perf_counter() - began
    assert exchange.reply == f"ok: {text}", exchange.reply
    accepted = next(
        event
        for event in reversed(cluster.events())
        if event.event == "message.accepted" and event.message_id == exchange.message_id
    )
    return datetime.fromisoformat(accepted.at).timestamp() - at, ended_s


async def _start(hand: Hand, launch: Path, kind: str) -> str:
    if kind == "chat":
        ready = hand.hook("ada", "SessionStart")
        pane = hand.start("ada", launch)
        await asyncio.wait_for(ready, 30)
    else:
        pane = hand.start("ada", launch)
        await asyncio.wait_for(session_started(hand, "ada"), 30)
    await asyncio.wait_for(hand.until("ada", b"\x1b[?2004h"), 30)
    await asyncio.sleep(1.0)
    return pane


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    for kind in args.kind or ["chat", "claude"]:
        yield from compare(kind, place, 25 if args.quick else {"chat": 150, "claude": 60}[kind])


if __name__ == "__main__":
    main("Messages", bench, ("--kind", {"action": "append", "choices": ["chat", "claude"]}))
