"""Interleaved A/B timing for benchmarks: medians, their ratio, and a bootstrap interval of the ratio.

Absolute times on a shared machine say little. Here the baseline and what is measured against it take turns in
one run, so that both meet the same load, and the ratio is what is reported::

    times = interleave({"ours": ours, "libtmux": theirs}, rounds=50)
    result = compare("capture", times["libtmux"], times["ours"])
    print(result)                     # capture   4.35 ms   0.22 ms   19.8 x  [18.9, 20.6]
    assert result.ratio > 5
"""

from __future__ import annotations

import gc
import json
import platform
import random
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Ratio", "compare", "interleave", "report", "time_once"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster than its baseline something is.

    ``baseline_s`` and ``ours_s`` are medians in seconds, ``low`` and ``high`` the 95 % bootstrap interval of their
    ratio, ``target`` what was promised (None: nothing) and ``note`` what else there is to say.
    """

    name: str
    baseline_s: float
    ours_s: float
    ratio: float
    low: float
    high: float
    rounds: int
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        return self.target is None or self.ratio >= self.target

    def __str__(self) -> str:
        goal = "" if self.target is None else f"  target {self.target:g} x {'met' if self.met else 'MISSED'}"
        times = f"{_spoken(self.baseline_s):>10} {_spoken(self.ours_s):>10}"
        return (
            f"{self.name:<44}{times} {self.ratio:8.1f} x  [{self.low:.1f}, {self.high:.1f}]{goal}  {self.note}".rstrip()
        )


def _spoken(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def time_once(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def interleave(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, repeat: Mapping[str, int] | None = None, warm: int = 2
) -> dict[str, list[float]]:
    """Time calls in turns, in a new random order each round.

    ``repeat`` tells how often a call runs within one sample (its mean is taken): for what is too short for the
    clock. A call that returns a float is taken at its word, as seconds: for what times itself.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(7).shuffle  # noqa: S311 - an order, not a secret
    gc.collect()
    gc.disable()
    try:
        for turn in range(-warm, rounds):
            shuffle(order)
            for name in order:
                count = (repeat or {}).get(name, 1)
                told: list[float] = []
                started = time.perf_counter()
                for _ in range(count):
                    value = calls[name]()
                    if isinstance(value, float):
                        told.append(value)
                spent = statistics.fmean(told) if told else (time.perf_counter() - started) / count
                if turn >= 0:
                    times[name].append(spent)
    finally:
        gc.enable()
    return times


def compare(
    name: str,
    baseline: Sequence[float],
    ours: Sequence[float],
    *,
    target: float | None = None,
    note: str = "",
    draws: int = 1000,
) -> Ratio:
    """Return the ratio of the medians of two samples (seconds) with its bootstrap interval."""
    rng = random.Random(11)  # noqa: S311
    medians = sorted(
        statistics.median(rng.choices(baseline, k=len(baseline))) / statistics.median(rng.choices(ours, k=len(ours)))
        for _ in range(draws)
    )
    base, own = statistics.median(baseline), statistics.median(ours)
    low, high = medians[int(draws * 0.025)], medians[int(draws * 0.975)]
    return Ratio(name, base, own, base / own, low, high, min(len(baseline), len(ours)), target, note)


def report(ratios: Sequence[Ratio], *, versions: Mapping[str, str], json_path: Path | None = None) -> None:
    """Print the ratios with machine, versions and date; also write them as JSON."""
    cpu = platform.processor() or platform.machine()
    about = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.release()} {cpu}",
        "python": platform.python_version(),
        **versions,
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'':<44}{'baseline':>10} {'ours':>10}")
    for ratio in ratios:
        print(ratio)
    if json_path is not None:
        rows = [{**asdict(ratio), "met": ratio.met} for ratio in ratios]
        json_path.write_text(json.dumps({"about": about, "ratios": rows}, indent=1, ensure_ascii=False) + "\n")
