"""The journal's append, and frames of a large run beside the simplest ways to write and read the same content.

python tests/benchmarks/bench_journal.py [--messages N] [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, main, relative, shuffled

from orchestrator_lab import messages_df
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.run import create_run, open_run

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


def large_run(place: Path, messages: int) -> Path:
    """Write a run of answered messages as a supervisor would (without flushing each)."""
    path = create_run(place / "runs", config={}, name="large")
    with JournalWriter(path / "journal.jsonl", run_id=path.name) as writer:
        writer.append("run.started", name="large")
        for number in range(messages):
            recipient, message_id, turn_id = f"a{number % 5}", f"msg_{number:08d}", f"trn_{number:08d}"
            about = {"agent": recipient, "message_id": message_id}
            writer.append(
                "message.queued", **about, conversation_id=f"cnv_{number // 10}", hop=0, sender="user",
                recipient=recipient, kind="direct", source="program", content=f"question {number} " * 8,
                content_sha256=f"{number:064x}", when="idle",
            )  # fmt: skip
            writer.append("message.claimed", **about)
            writer.append("message.written", **about, source="terminal", bytes=100)
            writer.append("message.submitted", **about, attempt=1)
            writer.append("message.accepted", **about, source="hook", turn_id=turn_id)
            writer.append("turn.started", agent=recipient, turn_id=turn_id, source="hook", message_ids=[message_id])
            writer.append("turn.ended", agent=recipient, turn_id=turn_id, source="hook", reply="answer " * 20,
                          end_reason="completed")  # fmt: skip
            writer.append("message.answered", **about, source="hook", turn_id=turn_id)
        writer.append("run.ended", status="completed")
    return path


def loads(path: Path) -> int:
    """Read every line by json.loads into one dict a message, as one would by hand."""
    rows: dict[str, dict[str, object]] = {}
    with (path / "journal.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            if event.get("message_id"):
                rows.setdefault(event["message_id"], {}).update(
                    event.get("attributes", {}), **{event["event"]: event["at"]}
                )
    import pandas as pd

    return len(pd.DataFrame(list(rows.values())))


def frames(place: Path, messages: int, rounds: int) -> Iterator[Figure]:
    """A messages frame of a large run."""
    import pandas as pd

    path = large_run(place, messages)
    frame = messages_df(path)
    assert len(frame) == messages
    frame.to_parquet(place / "messages.parquet")
    times: dict[str, list[float]] = {"loads": [], "parquet": [], "lab": [], "again": []}
    for turn, side in shuffled(list(times), rounds):
        if side in {"lab", "again"}:
            copy = place / "runs" / f"copy{turn}{side}"
            shutil.copytree(path, copy)
            run = open_run(copy)
            if side == "again":
                _ = run.messages
        began = time.perf_counter()
        if side == "loads":
            loads(path)
        elif side == "parquet":
            pd.read_parquet(place / "messages.parquet")
        else:
            _ = run.messages
        times[side].append(time.perf_counter() - began)
    title = f"messages frame of {messages:,} messages"
    yield relative(f"{title}, first read", times["loads"], times["lab"], note="baseline: a json.loads loop")
    yield relative(f"{title}, first read, as Parquet", times["parquet"], times["lab"], note="baseline: pd.read_parquet")
    yield relative(f"{title}, read again", times["parquet"], times["again"], note="baseline: pd.read_parquet")


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    yield from appends(place, 100 if args.quick else 1000)
    yield from frames(place, 5000 if args.quick else args.messages, 2 if args.quick else 3)


if __name__ == "__main__":
    main("Journal and frames", bench, ("--messages", {"type": int, "default": 100_000}))
