"""``import orchestrator_lab`` and ``orchestrator-lab --help`` beside a Python that does nothing.

python tests/benchmarks/bench_import.py [--quick] [--json FILE]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, main, relative, shuffled

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    commands = {
        "bare": ["-c", "pass"],
        "import orchestrator_lab": ["-c", "import orchestrator_lab"],
        "from orchestrator_lab import Cluster": ["-c", "from orchestrator_lab import Cluster"],
        "orchestrator-lab --help": ["-m", "orchestrator_lab", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn, name in shuffled(list(commands), 8 if args.quick else 40):
        began = time.perf_counter()
        subprocess.run([sys.executable, *commands[name]], stdout=subprocess.DEVNULL, check=True, cwd=place)
        if turn >= 2:
            times[name].append(time.perf_counter() - began)
    for name, sample in times.items():
        if name != "bare":
            yield relative(name, times["bare"], sample, note="baseline: python -c pass")


if __name__ == "__main__":
    main("Import and help", bench)
