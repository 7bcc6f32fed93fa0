"""Processes of agents that outlived the pane they ran in: found by proof, ended in order.

What counts as proof: the recorded pid with its start time; for what such a process started, the agent's secret in its
environment, within the terminal session that the agent led. A name or a command line proves nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.runtime import process_alive, process_start_time

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HANGUP", "Kept", "Survivor", "end", "environment_of", "kept_in", "survivors"]

#: Variable by which an agent knows its secret; everything that it starts inherits it.
_TOKEN = "ORCHESTRATOR_LAB_AGENT_TOKEN"  # noqa: S105 - a name
#: Seconds between two looks at processes that are to end (they are no children of ours).
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Kept:
    """What is recorded of the process that an agent had last.

    Parameters
    ----------
    name : str
        The agent.
    pid : int
        Its process, the leader of its terminal session.
    started : float
        Its :func:`~orchestrator_lab.runtime.process_start_time`.
    token : str
        The agent's secret.
    """

    name: str
    pid: int
    started: float
    token: str


@dataclass(frozen=True, slots=True)
class Survivor:
    """A process that is proved to be an agent's, or started by it.

    Parameters
    ----------
    name : str
        The agent.
    pid : int
        The process.
    started : float
        Its start time.
    """

    name: str
    pid: int
    started: float


def kept_in(folder: Path) -> list[Kept]:
    """Return what a cluster's runtime folder records of its agents' processes.

    Parameters
    ----------
    folder : pathlib.Path
        The runtime folder.

    Returns
    -------
    list of Kept
        Without agents that were never started.

    Examples
    --------
    >>> kept_in(Path("/no/such/folder"))
    []
    """
    found = []
    for place in sorted(folder.glob("agents/*/agent.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(place.read_text(encoding="utf-8"))
            found.append(
                Kept(place.parent.name, int(facts["pid"]), float(facts["process_started"]), str(facts["token"]))
            )
    return found


def survivors(kept: Iterable[Kept]) -> list[Survivor]:
    """Return the processes of agents that live, and what they started in their terminal's session.

    Parameters
    ----------
    kept : iterable of Kept
        What is recorded of the agents.

    Returns
    -------
    list of Survivor
        Only what is proved: see the module's docstring.
    """
    sessions = {one.pid: one for one in kept}
    found = []
    for pid in _pids() if sessions else ():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            one = sessions.get(os.getsid(pid))
            started = process_start_time(pid) if one is not None else None
            if one is None or started is None:
                continue
            environ = environment_of(pid)
            carries = environ is not None and environ.get(_TOKEN) == one.token
            # A process may hide its environment; pid and start time alone then say that it is the very one.
            leads = pid == one.pid and process_alive(pid, one.started) and environ is None
            if carries or leads:
                found.append(Survivor(one.name, pid, started))
    return found


def end(processes: Iterable[Survivor], *, signals: Iterable[tuple[int, float]]) -> list[Survivor]:
    """Have processes end, each time only those that are still the same.

    Parameters
    ----------
    processes : iterable of Survivor
        Whom to end.
    signals : iterable of (int, float)
        A signal, and the seconds that follow it; signal 0 only waits.

    Returns
    -------
    list of Survivor
        Those that live all the same.
    """
    left = list(processes)
    for number, patience_s in signals:
        for one in left:
            if number and process_alive(one.pid, one.started):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(one.pid, number)
        deadline = time.monotonic() + patience_s
        while (left := [one for one in left if process_alive(one.pid, one.started)]) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        if not left:
            break
    return left


def environment_of(pid: int) -> dict[str, str] | None:
    """Return the environment that a process of this user was started with.

    Parameters
    ----------
    pid : int
        The process.

    Returns
    -------
    dict or None
        None when it is gone, or not ours to read.

    Examples
    --------
    >>> environment_of(os.getpid()) is not None
    True
    """
    if sys.platform == "linux":
        try:
            raw = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return None
        pairs = (os.fsdecode(part).partition("=") for part in raw.split(b"\0") if b"=" in part)
        return {name: value for name, _, value in pairs}
    import psutil

    try:
        return dict(psutil.Process(pid).environ())
    except (psutil.Error, OSError):
        return None


def _pids() -> list[int]:
    if sys.platform == "linux":
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - names only
    import psutil

    return list(psutil.pids())


#: How programs are ended that their terminal's end has not ended: given a moment, asked, killed.
HANGUP = ((0, 1.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))
