"""From the end of a turn to the reply in the caller, against asking the pane every half a second for a marker.

    python tests/benchmarks/bench_turn_end.py [--quick] [--json FILE]

The baseline is orchestrator-cc's way: type, then ``capture-pane`` every 0.5 s until the watchword has appeared. The
program says in its answer when it gave it, so both sides are timed from the program's own last output. For an agent
that reports by hook the clock starts when the supervisor has the Stop hook.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, cluster_config, main, relative, shuffled

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

#: Answers after a while that differs from turn to turn, so that no poll falls into step with it.
_PROGRAM = """
import sys, time
n = 0
print('> ', end='', flush=True)
for line in sys.stdin:
    n += 1
    time.sleep(0.3 + 0.37 * n % 0.5)
    print(f'answer {line.strip()} at={time.time():.6f}\\nALL-DONE\\n> ', end='', flush=True)
"""
_POLL_S = 0.5


def polled(tmux: list[str], text: str) -> float:
    """Ask the program as orchestrator-cc does; return the seconds from its answer to our having it."""

    def screen() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    subprocess.run([*tmux, "clear-history", ";", "send-keys", "-R", ";", "send-keys", text, "Enter"], check=True)
    while True:
        time.sleep(_POLL_S)
        shown = screen()
        found = re.search(rf"answer {text} at=([0-9.]+)\s+ALL-DONE", shown)
        if found is not None:
            return time.time() - float(found[1])


def asked(cluster: Cluster, text: str) -> float:
    """Ask the same program through the lab."""
    reply = cluster["program"].ask(text, timeout=30).reply
    now = time.time()
    found = re.search(r"at=([0-9.]+)", str(reply))
    assert found is not None, reply
    return now - float(found[1])


def hooked(cluster: Cluster, text: str) -> float:
    """Ask an agent that reports by hook."""
    exchange = cluster["chat"].ask(text, timeout=30)
    now = time.time()
    ended = next(event for event in reversed(cluster.events()) if event.event == "turn.ended")
    assert exchange.reply == f"ok: {text}"
    return now - datetime.fromisoformat(ended.at).timestamp()


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    (place / "program.py").write_text(_PROGRAM, encoding="utf-8")
    command = [sys.executable, "-S", str(place / "program.py")]
    tmux = ["tmux", "-S", str(place / "cc.sock"), "-f", "/dev/null", "-u"]
    subprocess.run([*tmux, "new-session", "-d", "-s", "cc", "-x", "200", "-y", "50", *command], check=True)
    agents = [
        {"name": "program", "kind": "program", "command": command, "turn_end": {"marker": "ALL-DONE"}},
        {"name": "chat", "kind": "chat"},
    ]
    times: dict[str, list[float]] = {"poll": [], "marker": [], "hook": []}
    try:
        with Cluster.start(cluster_config(place, "turns", agents)) as cluster:
            for turn, side in shuffled(list(times), 10 if args.quick else 40):
                text = f"q{turn}{side}"
                if side == "poll":
                    times[side].append(polled(tmux, text))
                else:
                    times[side].append((asked if side == "marker" else hooked)(cluster, text))
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    yield relative("end of a turn told by hook", times["poll"], times["hook"], times_faster=20)
    yield relative("end of a turn told by a marker on the screen", times["poll"], times["marker"], times_faster=20)


if __name__ == "__main__":
    main("From the end of a turn to the reply", bench)
