"""Tables of long runs beside the simplest ways to the same frame, and beside Inspect AI.

python tests/benchmarks/bench_tables.py [--messages N] [--inspect N] [--quick] [--json FILE]

Each read is a process of its own, so that its time and its memory are its own; the files are in the page cache.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _lab import absolute, main, relative, shuffled
from _long import AGENTS, extend, write_long_run

from orchestrator_lab import messages_df
from orchestrator_lab.run import open_run
from orchestrator_lab.sealing import open_seal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from _lab import Figure


# what is measured, each in a process of its own -------------------------------------------------------------------


def by_hand(path: str) -> int:
    """Read every line by json.loads into one dict a message, as one would by hand."""
    import pandas as pd

    rows: dict[str, dict[str, object]] = {}
    with Path(path, "journal.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            if event["event"].startswith("message."):
                row = rows.setdefault(event["message_id"], {})
                row[event["event"]] = event["at"]
                row.update(event.get("attributes", {}))
    return len(pd.DataFrame(list(rows.values())))


def journal(path: str) -> int:
    return len(open_run(path).messages)


def turns(path: str) -> int:
    return len(open_run(path).turns)


def events(path: str) -> int:
    return len(open_run(path).events_df)


def sealed(path: str) -> int:
    return len(messages_df(path))


def sealed_column(path: str) -> int:
    return len(messages_df(path, columns="content"))


def sealed_agent(path: str) -> int:
    return len(messages_df(path, agents=AGENTS[0]))


def parquet(path: str) -> int:
    import pandas as pd

    return len(pd.read_parquet(f"{path}.parquet"))


def parquet_column(path: str) -> int:
    import pandas as pd

    return len(pd.read_parquet(f"{path}.parquet", columns=["content"]))


def parquet_agent(path: str) -> int:
    import pandas as pd

    filters = [[("sender", "==", AGENTS[0])], [("recipient", "==", AGENTS[0])]]
    return len(pd.read_parquet(f"{path}.parquet", filters=filters))


def inspect(path: str) -> int:
    from inspect_ai.analysis import messages_df as inspect_df

    return len(inspect_df(f"{path}.eval", quiet=True))


def seal(path: str) -> int:
    return open_run(path).seal().rows["events"]


WAYS: dict[str, Callable[[str], int]] = {
    way.__name__: way
    for way in (
        *(by_hand, journal, turns, events, sealed, sealed_column, sealed_agent),
        *(parquet, parquet_column, parquet_agent, inspect, seal),
    )
}


def child(way: str, path: str) -> None:
    """Do one thing, and say how long it took and what memory it added to that of the libraries."""
    import pandas as pd
    import pyarrow.parquet as pq

    import orchestrator_lab.frames

    assert pd.DataFrame is not None, (pq, orchestrator_lab.frames)  # loaded, not part of what is measured
    if way == "inspect":
        import inspect_ai.analysis  # noqa: F401 - not part of what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    count = WAYS[way](path)
    taken = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"s": taken, "bytes": peak * 1024, "rows": count}))


def measured(way: str, path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", way, str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# the report -------------------------------------------------------------------------------------------------------


def reads(path: Path, title: str, rounds: int) -> Iterator[Figure]:
    """All ways to read one run, in turns."""
    found: dict[str, list[dict[str, float]]] = {}
    for _, way in shuffled(["by_hand", "journal", "turns", "events"], rounds):
        found.setdefault(way, []).append(measured(way, path))
    began = time.perf_counter()
    measured("seal", path)
    sealing = time.perf_counter() - began
    messages_df(path).to_parquet(f"{path}.parquet")
    for _, way in shuffled([way for way in WAYS if way.startswith(("sealed", "parquet"))], max(3, rounds)):
        found.setdefault(way, []).append(measured(way, path))

    def of(way: str, what: str = "s") -> list[float]:
        return [one[what] for one in found[way]]

    loop = "baseline: a json.loads loop"
    yield relative(f"{title}: journal, first load", of("by_hand"), of("journal"), times_faster=5, note=loop)
    yield relative(f"{title}: journal, turns, first load", of("by_hand"), of("turns"), note=loop)
    yield relative(f"{title}: journal, events, first load", of("by_hand"), of("events"), note=loop)
    name = f"{title}: journal, first load, memory"
    yield relative(name, _mega(of("by_hand", "bytes")), _mega(of("journal", "bytes")), unit="MB", note=loop)
    note = "baseline: pd.read_parquet of the same frame"
    yield relative(f"{title}: sealed", of("parquet"), of("sealed"), at_most=1.3, note=note)
    name = f"{title}: sealed, memory"
    yield relative(name, _mega(of("parquet", "bytes")), _mega(of("sealed", "bytes")), unit="MB", note=note)
    yield relative(f"{title}: sealed, one column", of("parquet_column"), of("sealed_column"), note=note)
    yield relative(f"{title}: sealed, one agent", of("parquet_agent"), of("sealed_agent"), note=note)
    made = open_seal(path)
    assert made is not None
    size, kept = (path / "journal.jsonl").stat().st_size, sum(made.file(table).stat().st_size for table in made.rows)
    yield relative(f"{title}: all tables on the disk", [size / 1e6], [kept / 1e6], unit="MB", note="baseline: journal")
    own, other = made.file("messages").stat().st_size, Path(f"{path}.parquet").stat().st_size
    yield relative(f"{title}: messages on the disk", [other / 1e6], [own / 1e6], unit="MB", note="baseline: to_parquet")
    yield relative(f"{title}: sealing all tables", of("by_hand"), [sealing], note=loop)


def beside_inspect(place: Path, messages: int, rounds: int) -> Iterator[Figure]:
    """The same messages as a log of Inspect AI."""
    path = write_long_run(place / "inspected", messages)
    run = open_run(path)
    run.export_as("inspect", f"{path}.eval")
    run.seal()
    found: dict[str, list[float]] = {}
    for _, way in shuffled(["inspect", "sealed"], rounds):
        found.setdefault(way, []).append(measured(way, path)["s"])
    title = f"{messages:,} messages beside Inspect AI: sealed"
    note = "baseline: inspect_ai.analysis.messages_df"
    yield relative(title, found["inspect"], found["sealed"], times_faster=20, note=note)


def grows(path: Path, title: str, rounds: int) -> Iterator[Figure]:
    """Ten new messages on a run that is being written."""
    run = open_run(path)
    began = time.perf_counter()
    _ = run.messages
    first = time.perf_counter() - began
    times = []
    for _ in range(rounds):
        extend(path, 10)
        before = time.perf_counter()
        _ = run.messages
        times.append(time.perf_counter() - before)
    yield relative(f"{title}: 10 new messages", [first], times, note="baseline: its first load")
    yield absolute(f"{title}: 10 new messages, median", sorted(times)[len(times) // 2] * 1e3, unit="ms", below=None)


def _mega(values: list[float]) -> list[float]:
    return [max(value, 1.0) / 1e6 for value in values]


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    if args.quick:
        path, title = write_long_run(place, 5000), "5,000 messages"
        yield from grows(path, title, 5)
        times: dict[str, list[float]] = {}
        for _, way in shuffled(["by_hand", "journal"], 3):
            times.setdefault(way, []).append(measured(way, path)["s"])
        yield relative(f"{title}: journal, first load", times["by_hand"], times["journal"])
        return
    for count in sorted({100_000, args.messages}):
        title = f"{count:,} messages"
        path = Path(args.run) if args.run and count == args.messages else write_long_run(place, count)
        yield from grows(path, title, 10)
        yield from reads(path, title, 1 if count > 100_000 else 3)
    yield from beside_inspect(place, args.inspect, 3)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:4])
    else:
        main(
            "Tables of long runs",
            bench,
            ("--messages", {"type": int, "default": 1_000_000}),
            ("--inspect", {"type": int, "default": 5000}),
            ("--run", {"help": "a folder that write_long_run() made of that many messages, instead of a new one"}),
        )
