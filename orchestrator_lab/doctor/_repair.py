"""Taking away what dead clusters left behind, after looking again at each thing."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.doctor._clusters import agents_left, is_orphan, processes_of_clusters
from orchestrator_lab.orphans import HANGUP, Survivor, end
from orchestrator_lab.runtime import acquire_lock, process_alive, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator_lab.doctor._findings import Finding, Leftover

__all__ = ["repair"]

_TERM_S = 5.0
_ORDERLY = ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _TERM_S))


def repair(findings: Iterable[Finding]) -> list[str]:
    """Take away what dead clusters left behind, after looking again at each.

    Parameters
    ----------
    findings : iterable of Finding
        Of :func:`examine`.

    Returns
    -------
    list of str
        A sentence for each thing that was done, or could not be.
    """
    leftovers = [finding.leftover for finding in findings if finding.leftover is not None]
    # Processes first: they hold files of the folders. What ran in panes of a server is looked for once that is gone.
    done = [_end(one) for one in leftovers if one.kind == "process"]
    places = dict.fromkeys(one.path for one in leftovers)
    done += [line for place in places for line in _end_agents(Path(place))]
    done += [_remove(Path(one.path)) for one in leftovers if one.kind == "folder"]
    return done


def _end(leftover: Leftover) -> str:
    pid, started = leftover.pid, leftover.started
    if pid is None or started is None or not process_alive(pid, started):
        return f"process {pid} had ended already"
    seen = next((one for one in processes_of_clusters() if (one.pid, str(one.folder)) == (pid, leftover.path)), None)
    if seen is None or not seen.proved or not is_orphan(seen):
        return f"process {pid} is not proved to be a dead cluster's: left alone"
    if end([Survivor(seen.kind, pid, started)], signals=_ORDERLY):
        return f"{seen.kind} {pid} of {leftover.path} could not be ended"
    return f"ended {seen.kind} {pid} of {leftover.path}"


def _end_agents(folder: Path) -> list[str]:
    found = agents_left(folder)
    left = {one.pid for one in end(found, signals=HANGUP)}
    return [
        f"process {one.pid} of agent {one.name} could not be ended"
        if one.pid in left
        else f"ended process {one.pid} of agent {one.name} of {folder}"
        for one in found
    ]


def _remove(folder: Path) -> str:
    # With the lock in hand nobody can start the cluster while its folder is being removed.
    (folder / "lock").touch(mode=0o600)
    lock = acquire_lock(folder)
    if lock is None:
        return f"{folder} belongs to a cluster again: left alone"
    try:
        record = read_record(folder)
        if record is not None and any(record.alive(who) for who in ("tmux", "keeper", "supervisor")):
            return f"{folder} belongs to a cluster again: left alone"
        shutil.rmtree(folder)
    except OSError as error:
        if error.errno != errno.ENOENT:
            return f"{folder} could not be removed: {error.strerror}"
    finally:
        os.close(lock)
    return f"removed {folder}"
