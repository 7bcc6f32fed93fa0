"""The journal's append beside the simplest ways to write the same line.

python tests/benchmarks/bench_journal.py [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, main, relative, shuffled

from orchestrator_lab.journal.writer import JournalWriter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def appends(place: Path, rounds: int) -> Iterator[Figure]:
    """One event on the disk: through the writer, and by hand."""
    fd = os.open(place / "hand.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    event = {
        "seq": 1,
        "event": "message.claimed",
        "at": "2026-01-01T00:00:00.000000Z",
        "agent": "ada",
        "message_id": "m",
    }
    event["attributes"] = {"text": "x" * 200}
    times: dict[str, list[float]] = {"hand": [], "lab": [], "hand, buffered": [], "lab, buffered": []}
    with JournalWriter(place / "lab.jsonl", run_id="run_x") as writer:
        for _, side in shuffled(list(times), rounds):
            began = time.perf_counter()
            if side.startswith("hand"):
                os.write(fd, json.dumps(event).encode() + b"\n")
                if side == "hand":
                    os.fdatasync(fd)
            else:
                writer.append("message.claimed", agent="ada", message_id="m", text="x" * 200)
                if side == "lab":
                    writer.sync()
            times[side].append(time.perf_counter() - began)
    os.close(fd)
    yield relative("journal: one event to the disk", times["hand"], times["lab"], note="baseline: write + fdatasync")
    name = "journal: one event to the operating system"
    yield relative(name, times["hand, buffered"], times["lab, buffered"], note="baseline: json.dumps + write")


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    yield from appends(place, 100 if args.quick else 1000)


if __name__ == "__main__":
    main("Journal", bench)
