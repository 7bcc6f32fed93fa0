"""What the benchmarks of the lab share: a private place, figures with an interval, and how they are printed.

A figure compares what the lab takes with a baseline that takes turns with it in the same run. ``ratio`` is always
lab over baseline, with the 95 % bootstrap interval of the ratio of medians; a goal is either a ceiling of the ratio
("at most 1.3 x the hand-written way"), or a number of times that the lab has to be faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Figure", "absolute", "claude_command", "main", "private_place", "relative", "spoken"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a report. Times in seconds, shares of a core in percent; ``met`` is None without a goal."""

    name: str
    baseline: float | None
    ours: float
    unit: str = "s"
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    goal: str = ""
    met: bool | None = None
    note: str = ""

    def __str__(self) -> str:
        base = "" if self.baseline is None else spoken(self.baseline, self.unit)
        ratio = "" if self.ratio is None else f"{self.ratio:.3g} x [{self.low:.3g}, {self.high:.3g}]"
        verdict = "" if self.met is None else f"goal {self.goal}: {'met' if self.met else 'MISSED'}"
        cells = f"{self.name:<58}{base:>10}{spoken(self.ours, self.unit):>10}  {ratio:<26}{verdict}  {self.note}"
        return cells.rstrip()


def spoken(value: float, unit: str = "s") -> str:
    """Return a value with its unit as people say it."""
    if unit == "%":
        return f"{value:.2f} %"
    if unit != "s":
        return f"{value:.3g} {unit}"
    for name, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1e9:.3g} ns"


def relative(
    name: str,
    baseline: Sequence[float],
    ours: Sequence[float],
    *,
    at_most: float | None = None,
    times_faster: float | None = None,
    unit: str = "s",
    note: str = "",
) -> Figure:
    """Return the ratio of two samples' medians, lab over baseline, with its bootstrap interval."""
    rng = random.Random(11)  # noqa: S311 - a resampling, not a secret
    ratios = sorted(
        statistics.median(rng.choices(ours, k=len(ours))) / statistics.median(rng.choices(baseline, k=len(baseline)))
        for _ in range(2000)
    )
    base, own = statistics.median(baseline), statistics.median(ours)
    goal, met = "", None
    if at_most is not None:
        goal, met = f"≤ {at_most:g} x", own / base <= at_most
    elif times_faster is not None:
        goal, met = f"≥ {times_faster:g} x faster", base / own >= times_faster
    rounds = min(len(baseline), len(ours))
    return Figure(name, base, own, unit, own / base, ratios[50], ratios[1949], rounds, goal, met, note)


def absolute(
    name: str, ours: float, *, unit: str, below: float | None, baseline: float | None = None, note: str = ""
) -> Figure:
    """Return a figure whose goal is a number of its own."""
    goal = "" if below is None else f"< {below:g} {unit}"
    return Figure(name, baseline, ours, unit, goal=goal, met=None if below is None else ours < below, note=note)


def shuffled(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield each name once a round, in a new random order each round."""
    shuffle = random.Random(7).shuffle  # noqa: S311
    order = list(names)
    for turn in range(rounds):
        shuffle(order)
        for name in order:
            yield turn, name


def used_s(pids: list[int]) -> float:
    """Return the processor seconds of processes so far, all their threads, to the nanosecond where Linux tells."""
    total = 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return total


@contextlib.contextmanager
def private_place() -> Iterator[Path]:
    """A short folder of this run's own for clusters, sockets and runs; Python may keep its compiled modules."""
    # Some shells forbid Python to keep compiled modules, which would make each process of either side start slowly.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if "utf" not in (os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "").lower():
        os.environ["LC_ALL"] = "C.UTF-8"
    place = Path(tempfile.mkdtemp(prefix="ob", dir="/tmp")).resolve()
    before = os.environ.get("ORCHESTRATOR_RUNTIME_DIR")
    os.environ["ORCHESTRATOR_RUNTIME_DIR"] = str(place / "r")
    for name in ("r", "work", "runs"):
        (place / name).mkdir(mode=0o700)
    try:
        yield place
    finally:
        if before is None:
            os.environ.pop("ORCHESTRATOR_RUNTIME_DIR", None)
        else:
            os.environ["ORCHESTRATOR_RUNTIME_DIR"] = before
        shutil.rmtree(place, ignore_errors=True)


def cluster_config(place: Path, name: str, agents: list[dict[str, Any]], **cluster: Any) -> dict[str, Any]:
    """Return a configuration of agents on a scripted model that answers at once."""
    return {
        "cluster": {
            "name": name,
            "work_dir": str(place / "work"),
            "runs_dir": str(place / "runs"),
            "lifetime": "owner",
            "gateway": {"mode": "script", "script": [{"reply": "ok: {text}"}]},
            **cluster,
        },
        "agents": agents,
    }


def claude_command() -> str:
    """Return the path of the real Claude Code that the benchmarks drive."""
    chosen = os.environ.get("ORCHESTRATOR_LAB_TEST_CLAUDE")
    path = Path(chosen) if chosen else ROOT / "tests" / "agents" / "node_modules" / ".bin" / "claude"
    if not path.exists():
        sys.exit(f"the real Claude Code is not at {path}: run 'npm ci' in {ROOT / 'tests' / 'agents'}")
    return str(path)


def about() -> dict[str, str]:
    """Return machine, versions and date."""
    import orchestrator_lab

    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    tmux = subprocess.run(["tmux", "-V"], capture_output=True, text=True, check=False).stdout.strip()
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.2f}",
        "orchestrator-lab": orchestrator_lab.__version__,
        "python": platform.python_version(),
        "tmux": tmux.removeprefix("tmux "),
    }
    package = ROOT / "tests" / "agents" / "node_modules" / "@anthropic-ai" / "claude-code" / "package.json"
    with contextlib.suppress(OSError):
        facts["claude-code"] = json.loads(package.read_text(encoding="utf-8"))["version"]
    return facts


def main(title: str, bench: Callable[[argparse.Namespace, Path], Sequence[Figure]], *options: tuple[str, Any]) -> None:
    """Run one benchmark from the command line: ``--quick`` for a short run, ``--json FILE`` for a machine."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="few rounds: is something badly wrong?")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    for name, kwargs in options:
        parser.add_argument(name, **kwargs)
    args = parser.parse_args()
    with private_place() as place:
        facts = about()
        print(", ".join(f"{key} {value}" for key, value in facts.items()))
        print(f"{'':<58}{'baseline':>10}{'lab':>10}  lab / baseline")
        figures = []
        for figure in bench(args, place):
            figures.append(figure)
            print(figure, flush=True)
    if args.json is not None:
        report = {"title": title, "about": facts, "figures": [asdict(figure) for figure in figures]}
        args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
