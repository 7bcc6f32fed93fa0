"""Export, check and open a bundle beside ``zip``, ``unzip -t`` and the folder, on the same bytes.

python tests/benchmarks/bench_bundle.py [--messages N] [--megabytes N] [--quick] [--json FILE]
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, main, relative, shuffled
from _long import write_long_run

from orchestrator_lab import messages_df
from orchestrator_lab.bundle.verifying import verify_bundle
from orchestrator_lab.journal.recording import CastWriter
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

#: A program of this process opens a bundle as a reader does who was sent one: nothing is loaded, nothing unpacked yet.
OPEN = """
import sys, time
import pandas, pyarrow.parquet
from orchestrator_lab import messages_df, open_run
began = time.perf_counter()
run = open_run(sys.argv[1])
assert len(run.messages)
print(time.perf_counter() - began)
"""


def record(path: Path, megabytes: int) -> None:
    """Write recordings of so many megabytes on the disk: a screen of changing words and numbers, as programs paint."""
    path.mkdir()
    draw = random.Random(5)  # noqa: S311 - made-up output
    words = [f"{draw.randrange(16**8):08x}" for _ in range(4000)]
    for number in range(4):
        with CastWriter(path / f"a{number}.cast.zst", cols=100, rows=30) as cast:
            while cast.path.stat().st_size < megabytes * 250_000:
                for _ in range(200):
                    row, column = draw.randrange(1, 31), draw.randrange(1, 60)
                    text = " ".join(draw.choices(words, k=6))
                    cast.write(f"\x1b[{row};{column}H\x1b[3{draw.randrange(8)}m{text}\x1b[0m\x1b[K\r\n".encode())
                cast.flush()


def command(*words: str | Path, cwd: Path) -> float:
    began = time.perf_counter()
    subprocess.run(words, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def opened(path: Path) -> float:
    done = subprocess.run([sys.executable, "-c", OPEN, path], check=True, capture_output=True, text=True)
    return float(done.stdout)


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    messages, megabytes = (1000, 2) if args.quick else (args.messages, args.megabytes)
    path = write_long_run(place, messages)
    record(path / "panes", megabytes)
    run, bundle, same = Run(path), place / "lab.olab.zip", place / "same"
    run.export(bundle)
    subprocess.run(["unzip", "-q", bundle, "-d", same], check=True)
    sealed = place / "sealed" / path.name
    shutil.copytree(path, sealed)
    Run(sealed).seal()
    made = place / "made.zip"
    times: dict[str, list[float]] = {}
    sides = [
        "zip",
        "export",
        "export unsealed",
        "export unmasked",
        "seal",
        "unzip -t",
        "verify",
        "open",
        "open sealed",
        "read",
        "read sealed",
    ]
    # One sample would tell of the machine as much: what is asked of a short run is measured three times.
    asked = {"unzip -t", "verify", "open", "open sealed"}
    for turn, side in shuffled(sides, 3 if args.quick else args.rounds):
        if args.quick and turn and side not in asked:
            continue
        made.unlink(missing_ok=True)
        began = time.perf_counter()
        spent: float | None = None
        if side == "zip":
            spent = command("zip", "-q", "-r", "-n", ".zst:.parquet", made, ".", cwd=same)
        elif side == "unzip -t":
            spent = command("unzip", "-tq", bundle, cwd=place)
        elif side.startswith("export"):
            # A long run is sealed by itself when it ends.
            Run(path if side == "export unsealed" else sealed).export(made, mask=side != "export unmasked")
        elif side == "seal":
            Run(path).seal()
            spent = time.perf_counter() - began
            Run(path).unseal()
        elif side == "verify":
            assert verify_bundle(bundle).ok
        elif side.startswith("open"):
            spent = opened(bundle if side == "open" else sealed)
        else:
            assert len(messages_df(bundle if side == "read" else sealed)) == messages
        times.setdefault(side, []).append(time.perf_counter() - began if spent is None else spent)
    size = f"{messages:,} messages, {megabytes} MB of recordings"
    yield relative(f"export: {size}", times["zip"], times["export"], note="baseline: zip of the same bytes")
    yield relative("export without masking", times["zip"], times["export unmasked"], note="baseline: zip")
    yield relative("export of a run that is not sealed", times["zip"], times["export unsealed"], note="baseline: zip")
    yield relative("making the tables (a part of that)", times["zip"], times["seal"], note="baseline: zip")
    yield relative("verify", times["unzip -t"], times["verify"], note="baseline: unzip -t; verify adds SHA-256, twice")
    yield relative("open, and its messages", times["unzip -t"], times["open"], note="baseline: unzip -t")
    note = "baseline: the run's sealed folder"
    yield relative("open, and its messages, beside a folder", times["open sealed"], times["open"], note=note)
    yield relative("messages_df of a bundle that is open", times["read sealed"], times["read"], note=note)


if __name__ == "__main__":
    main(
        "Bundles",
        bench,
        ("--messages", {"type": int, "default": 100_000}),
        ("--megabytes", {"type": int, "default": 100}),
        ("--rounds", {"type": int, "default": 3}),
    )
