"""What the tests of resumed runs share: a power cut, and how to wait for what follows."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.runtime import process_alive, process_start_time, read_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab import Cluster


def until(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail("it did not happen")


def events(run_dir: Path, *names: str) -> list[Any]:
    found, _ = read_events(run_dir / "journal.jsonl")
    return [one for one in found if not names or one.event in names]


def power_cut(cluster: Cluster) -> Path:
    """End everything of a cluster at once, and clear the temporary folder; what is left is the run."""
    folder, run_dir = cluster.client.folder, cluster.run_dir
    record = read_record(folder)
    assert record is not None
    pids = [record.keeper_pid, record.supervisor_pid, record.tmux_pid]
    with contextlib.suppress(OrchestratorLabError):
        pids += [agent["pid"] for agent in cluster.status()["agents"]]
    processes = [psutil.Process(pid) for pid in pids if pid]
    starts = {one.pid: process_start_time(one.pid) for one in processes}
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()
    until(lambda: not any(process_alive(pid, start) for pid, start in starts.items()))
    cluster.client.close()
    shutil.rmtree(folder)
    return run_dir
