"""How long a replay on the terminal takes, beside the run that it replays, and whether it comes out the same.

    python tests/benchmarks/bench_replay.py [--quick] [--runs PATH ...] [--load N] [--json FILE]

Each run (by default those that come with the notebooks) is replayed ten times from its beginning to its end, start and
end included. ``--load`` keeps so many processors busy meanwhile. A replay that differs ends the benchmark.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _lab import ROOT, Figure, main, relative

from orchestrator_lab.rehearsing import rehearse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

RECORDED = ROOT / "notebooks" / "recorded"


def _busy() -> None:
    while True:
        pass


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep so many processors busy."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_busy, daemon=True) for _ in range(processes)]
    for one in started:
        one.start()
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.join()


def shipped() -> list[Path]:
    """Return the recorded runs that come with the notebooks."""
    return sorted(RECORDED.rglob("*.olab.zip"))


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    os.environ["ORCHESTRATOR_RUNS_DIR"] = str(place / "runs")
    times = 2 if args.quick else 10
    for path in [one.absolute() for one in args.runs or shipped()]:
        os.chdir(place)
        took: list[float] = []
        recorded: list[float] = []
        with load(args.load):
            for _ in range(times):
                done = rehearse(path, mode="replay_strict")
                if not done.same:
                    differs = [name for name, same in done.tables.items() if not same]
                    sys.exit(
                        f"{path.name}: {', '.join(differs) or done.divergences} came out otherwise: {done.run.path}"
                    )
                took.append(done.took_s)
                recorded.append(done.recorded_s)
        rows = sum(len(getattr(done.recorded, name)) for name in done.tables)
        note = f"{times} of {times} the same: {rows} rows"
        yield relative(f"{path.name.removesuffix('.olab.zip')}: replay, beside the run", recorded, took, note=note)


if __name__ == "__main__":
    main(
        "Replays on the terminal",
        bench,
        ("--runs", {"nargs": "*", "type": Path, "help": "folders or bundles of runs"}),
        ("--load", {"type": int, "default": 0, "help": "processors to keep busy meanwhile"}),
    )
