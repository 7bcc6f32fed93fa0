"""What an agent's processes cost: one look at the tree below its pane, and whether that is worth an event."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psutil

__all__ = ["Reading", "Sample", "differs", "own_cost", "percent", "read_tree"]

#: Smallest differences that are worth telling: of processor time in points, of memory in bytes and as a share.
_CPU_POINTS, _RSS_BYTES, _RSS_SHARE = 20.0, 10_000_000, 0.1


@dataclass(frozen=True, slots=True)
class Reading:
    """What the kernel tells of a tree of processes at one instant.

    Parameters
    ----------
    at_s : float
        The instant, on the monotonic clock.
    cpu_s : float
        Processor seconds of all its processes, and of the ended ones that they have waited for.
    rss_bytes : int
        Their resident memory; what they share is counted for each.
    children : int
        Descendants of the first process.
    """

    at_s: float
    cpu_s: float
    rss_bytes: int
    children: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A row of the processes table.

    Parameters
    ----------
    cpu_percent : float or None
        Share of one core since the look before; None at the first one.
    rss_bytes, children : int
        As in :class:`Reading`.
    """

    cpu_percent: float | None
    rss_bytes: int
    children: int


def percent(before: Reading | None, after: Reading) -> float | None:
    """Return the share of one core between two looks, in percent; None when there was no look before.

    Examples
    --------
    >>> percent(Reading(10.0, 1.0, 0, 0), Reading(15.0, 2.0, 0, 0))
    20.0
    """
    if before is None or after.at_s <= before.at_s:
        return None
    # A descendant that ends without having been waited for takes its time with it.
    return round(max(0.0, after.cpu_s - before.cpu_s) / (after.at_s - before.at_s) * 100, 1)


def differs(kept: Sample | None, new: Sample) -> bool:
    """Tell whether a sample differs noticeably from the one that was journalled last.

    Examples
    --------
    >>> differs(Sample(0.0, 50_000_000, 0), Sample(0.4, 50_100_000, 0))
    False
    >>> differs(Sample(0.0, 50_000_000, 0), Sample(0.0, 50_000_000, 1))
    True
    """
    if kept is None or kept.children != new.children:
        return True
    if abs((new.cpu_percent or 0.0) - (kept.cpu_percent or 0.0)) >= _CPU_POINTS:
        return True
    return abs(new.rss_bytes - kept.rss_bytes) >= max(_RSS_BYTES, _RSS_SHARE * kept.rss_bytes)


def read_tree(pid: int) -> Reading | None:
    """Look at a process and its descendants.

    Parameters
    ----------
    pid : int
        The process of a pane.

    Returns
    -------
    Reading or None
        None when it is gone, or may not be looked at.
    """
    import psutil

    try:
        root = psutil.Process(pid)
        kin = list(_descendants(root))
        at_s = time.monotonic()
        cpu_s, rss_bytes = _cost(root)
    except psutil.Error:
        return None
    if not rss_bytes:  # it has ended, and nobody has taken note yet
        return None
    counted = 0
    for process in kin:
        with contextlib.suppress(psutil.Error):
            more_s, more_bytes = _cost(process)
            cpu_s, rss_bytes, counted = cpu_s + more_s, rss_bytes + more_bytes, counted + 1
    return Reading(at_s, cpu_s, rss_bytes, counted)


def own_cost(pid: int | None) -> dict[str, float | None]:
    """Return how long a single process has lived, its processor seconds and its memory; None where it is gone."""
    import psutil

    try:
        if pid is None:
            raise psutil.NoSuchProcess(0)
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return {
                "uptime_s": round(max(0.0, time.time() - process.create_time()), 3),
                "cpu_s": round(times.user + times.system, 3),
                "rss_bytes": process.memory_info().rss,
            }
    except psutil.Error:
        return {"uptime_s": None, "cpu_s": None, "rss_bytes": None}


def _cost(process: psutil.Process) -> tuple[float, int]:
    with process.oneshot():
        times = process.cpu_times()
        # Children that were waited for: their time moves to whoever waited, so that the sum never jumps.
        waited = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return times.user + times.system + waited, process.memory_info().rss


def _descendants(root: psutil.Process) -> Iterable[psutil.Process]:
    """Return what a process has begun, and what that has begun."""
    import psutil

    if not _kernel_tells_children():
        return root.children(recursive=True)
    # psutil reads every process of the machine to find the children of one.
    found: list[psutil.Process] = []
    below = [root.pid]
    while below:
        for pid in _children(below.pop()):
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
                below.append(pid)
    return found


def _children(pid: int) -> list[int]:
    numbers: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                numbers += map(int, (task / "children").read_bytes().split())
    return numbers


@lru_cache
def _kernel_tells_children() -> bool:
    return sys.platform == "linux" and Path("/proc/thread-self/children").exists()
