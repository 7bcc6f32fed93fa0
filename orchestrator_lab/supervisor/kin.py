"""The processes of agents: found by descent and by a mark, proven by pid and start time, and only then signalled.

A program's children may leave its process group, its session, and, as daemons, its family. So they are looked for in
two ways: as descendants of the pane's process while it lives, and, at any time, by the agent's id in the environment
that they were started with. Neither is ever decided by a name. What is itself the beginning of another cluster (a
keeper, or another cluster's agent) is nobody's kin.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.tmux.process import command_line, kill_if_same, process_started

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["MARK", "Kin", "find_kin", "signal_kin", "wait_for_kin"]

#: The variable that marks what an agent starts: its id, which is no secret and never used twice.
MARK = "ORCHESTRATOR_LAB_AGENT_ID"
_MARKED = f"\0{MARK}=".encode()
_KEEPER = ("-m", "orchestrator_lab.keeper")
#: Seconds between two looks, where the kernel does not tell of the end of a process that is not our child.
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Kin:
    """A process that belongs to an agent.

    Parameters
    ----------
    pid : int
        Its process id.
    started : str
        Its start time, which together with the pid means one process for ever.
    name : str
        Name of its program, for people.
    """

    pid: int
    started: str
    name: str

    @property
    def lives(self) -> bool:
        """Whether this very process still runs."""
        return process_started(self.pid) == self.started

    def to_dict(self) -> dict[str, Any]:
        """Return what the journal says of it: no command line, which may hold anything."""
        return {"pid": self.pid, "name": self.name}


def find_kin(agents: Mapping[str, int | None]) -> dict[str, list[Kin]]:
    """Find what agents have started and still runs, without the programs in their panes.

    Parameters
    ----------
    agents : mapping of str to int or None
        The process in the pane by the agent's id; None when it is gone.

    Returns
    -------
    dict
        The processes by the agent's id.
    """
    living = _own_processes()
    parents = {pid: facts[0] for pid, facts in living.items()}
    marks = {pid: facts[1] for pid, facts in living.items() if facts[1] is not None}
    ours = {pid: identity for identity, pid in agents.items() if pid is not None}
    spared = {os.getpid(), os.getppid(), *ours}
    found: dict[str, list[Kin]] = {identity: [] for identity in agents}
    for pid in living:
        owner = "" if pid in spared else _owner(pid, parents, marks, ours)
        if owner in found and not _in_another_cluster(pid, parents, ours):
            started = process_started(pid)
            if started is not None:
                found[owner].append(Kin(pid, started, Path((command_line(pid) or ["?"])[0]).name))
    return found


def _own_processes() -> dict[int, tuple[int, str | None]]:
    """Return parent and mark of each process of this user, by pid."""
    if sys.platform == "linux":
        entries = [place for place in Path("/proc").iterdir() if place.name.isdigit()]
        return {int(place.name): facts for place in entries if (facts := _read(place))}
    import psutil

    found: dict[int, tuple[int, str | None]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real == os.getuid():
                found[process.pid] = (process.ppid(), None)
                found[process.pid] = (process.ppid(), process.environ().get(MARK))
    return found


def _read(place: Path) -> tuple[int, str | None] | None:
    """Return parent and mark of one process from ``/proc``: psutil needs ten times as long."""
    try:
        if place.stat().st_uid != os.getuid():
            return None
        stat = (place / "stat").read_bytes()
    except OSError:
        return None
    parent = int(stat[stat.rindex(b")") + 2 :].split()[1])  # the name may hold anything
    try:
        environ = b"\0" + (place / "environ").read_bytes()
    except OSError:
        return parent, None
    at = environ.find(_MARKED)
    return parent, None if at < 0 else os.fsdecode(environ[at + len(_MARKED) :].split(b"\0", 1)[0])


def _owner(pid: int, parents: Mapping[int, int], marks: Mapping[int, str], ours: Mapping[int, str]) -> str:
    """Return the id of the agent that a process belongs to, empty when it is nobody's."""
    if pid in marks:
        return marks[pid]
    for above in _ancestors(pid, parents):
        if above in ours:
            return ours[above]
        if above in marks:
            return marks[above]
    return ""


def _in_another_cluster(pid: int, parents: Mapping[int, int], ours: Mapping[int, str]) -> bool:
    """Tell whether a process is, or comes from, the keeper of a cluster that an agent has started."""
    for one in (pid, *_ancestors(pid, parents)):
        if one in ours or one not in parents:
            return False
        if _KEEPER in itertools.pairwise(command_line(one)):
            return True
    return False


def _ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    seen = {pid}
    while (pid := parents.get(pid, 0)) and pid not in seen:
        seen.add(pid)
        yield pid


def signal_kin(kin: Iterable[Kin], number: signal.Signals) -> None:
    """Signal processes, each only while it is still the one that was found.

    Parameters
    ----------
    kin : iterable of Kin
        The processes.
    number : signal.Signals
        The signal.
    """
    for one in kin:
        if not hasattr(os, "pidfd_open"):
            kill_if_same(one.pid, one.started, number)
            continue
        try:
            descriptor = os.pidfd_open(one.pid)
        except OSError:
            continue
        try:
            # Compared after it is held: from here on the descriptor means this process and no later one of its pid.
            if one.lives:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def wait_for_kin(kin: Iterable[Kin], timeout_s: float) -> list[Kin]:
    """Wait until processes are gone.

    Parameters
    ----------
    kin : iterable of Kin
        The processes.
    timeout_s : float
        Longest wait, in seconds.

    Returns
    -------
    list of Kin
        Those that still run.
    """
    deadline = time.monotonic() + timeout_s
    left = [one for one in kin if one.lives]
    while left and (patience := deadline - time.monotonic()) > 0:
        _until_one_ends(left[0], patience)
        left = [one for one in left if one.lives]
    return left


def _until_one_ends(kin: Kin, timeout_s: float) -> None:
    if not hasattr(os, "pidfd_open"):
        time.sleep(min(_LOOK_S, timeout_s))
        return
    try:
        descriptor = os.pidfd_open(kin.pid)
    except OSError:
        return
    try:
        watch = select.poll()
        watch.register(descriptor, select.POLLIN)
        watch.poll(timeout_s * 1000)
    finally:
        os.close(descriptor)
