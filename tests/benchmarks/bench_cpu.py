"""Processor time of supervisor, keeper and tmux with many panes, beside a bare tmux server with the same panes.

    python tests/benchmarks/bench_cpu.py [--seconds S] [--quick] [--json FILE]

Both servers run at the same time and are read over the same seconds, from the kernel's account of each thread. The bare
server shows what its panes alone cost tmux; everything above it is the price of being watched and recorded.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, absolute, cluster_config, main, used_s

from orchestrator_lab import Cluster
from orchestrator_lab.runtime import read_record

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

#: A line a second without starting a process each time.
_WRITER = "import time,itertools\nfor n in itertools.count():\n print('line',n,flush=True); time.sleep(1)"


def shares(groups: dict[str, list[int]], seconds: float) -> dict[str, float]:
    """Return what each group uses, in percent of one core."""
    began, before = time.monotonic(), {name: used_s(pids) for name, pids in groups.items()}
    time.sleep(seconds)
    spent = time.monotonic() - began
    return {name: (used_s(pids) - before[name]) / spent * 100 for name, pids in groups.items()}


def watched(place: Path, name: str, count: int, command: list[str], seconds: float) -> dict[str, float]:
    """Run the same panes twice, under the lab and bare; return what both cost."""
    agents: list[dict[str, Any]] = [
        {"name": f"a{number}", "kind": "program", "command": command, "turn_end": {"quiet_s": 0.2}}
        for number in range(count)
    ]
    tmux = ["tmux", "-S", str(place / f"{name}.sock"), "-f", "/dev/null", "-u"]
    with Cluster.start(cluster_config(place, name, agents, start_timeout_s=180)) as cluster:
        subprocess.run([*tmux, "new-session", "-d", "-s", "bare", "-x", "200", "-y", "50", "cat"], check=True)
        try:
            for number in range(1, count):
                subprocess.run([*tmux, "new-window", "-d", "-n", f"w{number}", *command], check=True)
            pid = subprocess.run([*tmux, "display-message", "-p", "#{pid}"], capture_output=True, check=True).stdout
            record = read_record(cluster.client.folder)
            assert record is not None
            supervisor = record.supervisor_pid or 0
            # The control client is a child of the supervisor; kept subprocesses count, too.
            children = [child.pid for child in psutil.Process(supervisor).children(recursive=True)]
            groups = {
                "supervisor": [supervisor, *children],
                "keeper": [record.keeper_pid or 0],
                "tmux": [record.tmux_pid or 0],
                "bare tmux": [int(pid)],
            }
            time.sleep(5)
            return shares(groups, seconds)
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    seconds = 5.0 if args.quick else args.seconds
    cases = (
        ("50 idle panes", "idle", 50, ["cat"], 1.0),
        ("100 panes that write a line a second", "busy", 100, [sys.executable, "-S", "-E", "-c", _WRITER], 10.0),
    )
    for title, name, count, command, goal in cases:
        cost = watched(place, name, count, command, seconds)
        bare = cost.pop("bare tmux")
        note = ", ".join(f"{part} {share:.2f} %" for part, share in cost.items())
        yield absolute(title, sum(cost.values()), unit="%", below=goal, baseline=bare, note=note)


if __name__ == "__main__":
    main("Processor time with many panes", bench, ("--seconds", {"type": float, "default": 20.0}))
