"""What recording the models costs: a turn, and processor time, with and without it.

    python tests/benchmarks/bench_record.py [--quick] [--kind chat|claude] [--json FILE]

Two clusters of the same agents on a scripted model that answers at once take turns; the one is in mode ``record``, the
other in mode ``live``. With a model that thinks, the share of what is recorded is smaller.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, claude_command, cluster_config, main, relative, shuffled, used_s

from orchestrator_lab import Cluster
from orchestrator_lab.runtime import cluster_dir, read_record

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

#: Turns after which processor time is read.
_BLOCK = 10


def processor_s(cluster: Cluster) -> float:
    """Return the seconds of a processor that a cluster's own processes and its agents have used."""
    record = read_record(cluster_dir(cluster.name))
    assert record is not None
    assert record.tmux_pid is not None
    agents = [child.pid for child in psutil.Process(record.tmux_pid).children(recursive=True)]
    return used_s([pid for pid in (record.supervisor_pid, record.keeper_pid, record.tmux_pid) if pid] + agents)


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    for kind in [args.kind] if args.kind else ["chat", "claude"]:
        agent = {"kind": "chat"} if kind == "chat" else {"kind": "claude", "command": claude_command()}
        blocks = (3 if args.quick else 40) if kind == "chat" else (1 if args.quick else 12)
        times: dict[str, list[float]] = {"live": [], "record": []}
        cost: dict[str, list[float]] = {"live": [], "record": []}
        with ExitStack() as stack:
            clusters = {
                mode: stack.enter_context(
                    Cluster.start(cluster_config(place, f"{kind}-{mode}", [{"name": "ada", **agent}]), mode=mode)
                )
                for mode in times
            }
            for cluster in clusters.values():
                cluster["ada"].ask("warm up", timeout=60)
            for block, mode in shuffled(list(times), blocks):
                before = processor_s(clusters[mode])
                for turn in range(_BLOCK):
                    begun = time.perf_counter()
                    clusters[mode]["ada"].ask(f"turn {turn} of block {block}", timeout=60)
                    times[mode].append(time.perf_counter() - begun)
                cost[mode].append((processor_s(clusters[mode]) - before) / _BLOCK)
        yield relative(f"{kind}: a turn, recorded", times["live"], times["record"], at_most=1.05)
        yield relative(f"{kind}: processor time of a turn, recorded", cost["live"], cost["record"], at_most=1.05)


if __name__ == "__main__":
    main("What recording the models costs", bench, ("--kind", {"choices": ["chat", "claude"]}))
