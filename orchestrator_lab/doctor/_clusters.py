"""Checks of clusters: those that run, and what dead ones left. Each looks and changes nothing.

A process counts as the lab's only by proof: it carries the mark of its cluster in its environment (only what the lab
starts has it), and its arguments say the same; or it is the very process, by pid and start time, that a cluster's
record or an agent's names. What merely looks like one is told, and never ended.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator_lab.doctor._findings import Finding, Leftover
from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.orphans import environment_of, kept_in, survivors
from orchestrator_lab.runtime import (
    CLUSTER_MARK,
    PROTOCOL,
    ClusterRecord,
    is_locked,
    process_alive,
    process_start_time,
    read_record,
    runtime_dir,
)

if TYPE_CHECKING:
    import psutil

    from orchestrator_lab.orphans import Survivor

__all__ = [
    "Process",
    "agents_left",
    "check_clusters",
    "check_leftovers",
    "check_processes",
    "check_runs",
    "is_dead",
    "is_orphan",
    "processes_of_clusters",
]

#: Seconds that a folder without a record is left alone: it may just be being made.
_BEING_MADE_S = 60.0
#: Runs without an end that are told.
_MOST_RUNS = 5

Kind = Literal["keeper", "supervisor", "tmux server", "control client", "local model"]
_RECORDED = {"keeper": "keeper", "supervisor": "supervisor", "tmux server": "tmux"}


@dataclass(frozen=True, slots=True)
class Process:
    """A process that looks like one of a cluster's.

    Parameters
    ----------
    pid : int
        The process.
    started : float
        Its :func:`~orchestrator_lab.runtime.process_start_time`.
    kind : str
        ``keeper``, ``supervisor``, ``tmux server``, ``control client`` or ``local model``.
    folder : pathlib.Path
        The runtime folder that it names.
    proved : bool
        Whether it is certainly the lab's.
    """

    pid: int
    started: float
    kind: Kind
    folder: Path
    proved: bool


def folders() -> list[Path]:
    """Return the runtime folders that there are, of whatever they are."""
    try:
        return sorted(entry for entry in runtime_dir().iterdir() if entry.is_dir() and not entry.is_symlink())
    except OrchestratorLabError:
        return []


def check_clusters() -> list[Finding]:
    """Check that the supervisor of each running cluster answers, in this version's words."""
    found = []
    for folder in folders():
        record = read_record(folder)
        if record is None:
            continue
        if is_locked(folder):
            found.append(_ask(folder, record))
        elif record.alive("tmux"):
            cure = f"'orchestrator-lab status {record.name}' brings them back"
            sentence = f"{record.name}: its agents live, but keeper and supervisor do not"
            found.append(Finding("cluster", "warn", sentence, cure))
    return found or [Finding("clusters", "ok", "none is running")]


def _ask(folder: Path, record: ClusterRecord) -> Finding:
    import httpx

    log = folder / "logs" / "supervisor.log"
    try:
        transport = httpx.HTTPTransport(uds=str(folder / "api.sock"))
        with httpx.Client(transport=transport, base_url="http://supervisor", timeout=5.0) as http:
            hello = http.get("/hello").json()
    except (httpx.HTTPError, ValueError) as error:
        sentence = f"{record.name}: its supervisor does not answer ({type(error).__name__})"
        return Finding("cluster", "fail", sentence, f"see {log}; orchestrator-lab shutdown {record.name} ends it")
    if hello.get("protocol") != PROTOCOL:
        sentence = f"{record.name}: run by version {hello.get('version')}, which this one does not understand"
        return Finding("cluster", "warn", sentence, "end it with that version, then start it with this one")
    return Finding("cluster", "ok", f"{record.name} answers (run {record.run_id})")


def check_leftovers() -> list[Finding]:
    """Find the runtime folders (sockets, settings, secrets) of clusters that are dead."""
    found = []
    for folder in folders():
        if not is_dead(folder):
            continue
        cure = "orchestrator-lab doctor --fix removes it"
        sentence = f"{folder} belongs to a cluster that is gone (its run is kept)"
        found.append(Finding("leftover", "warn", sentence, cure, Leftover("folder", str(folder))))
    return found or [Finding("leftovers", "ok", "no stale sockets or folders")]


def is_dead(folder: Path) -> bool:
    """Tell whether a folder is ours and its cluster is gone."""
    if is_locked(folder):
        return False
    record = read_record(folder)
    if record is not None:
        return not any(record.alive(who) for who in ("tmux", "keeper", "supervisor"))
    # Without a record: only what is unmistakably a cluster's folder, and not one that is being made now.
    ours = (folder / "lock").is_file() or (folder / "cluster.json").is_file() or (folder / "config.json").is_file()
    return ours and time.time() - folder.stat().st_mtime > _BEING_MADE_S


def check_runs(runs_dir: Path) -> list[Finding]:
    """Find runs without an end that nobody records: they can go on.

    Parameters
    ----------
    runs_dir : pathlib.Path
        Where runs are recorded; need not exist.
    """
    from orchestrator_lab.resuming import resumable_runs

    runs = resumable_runs(runs_dir)
    found = [
        Finding("run", "ok", f"{run.name} has no end", f"to go on with it: orchestrator-lab start --resume {run}")
        for run in runs[:_MOST_RUNS]
    ]
    if len(runs) > _MOST_RUNS:
        found.append(Finding("run", "ok", f"{len(runs) - _MOST_RUNS} older ones have no end either"))
    return found or [Finding("runs", "ok", "none without an end")]


def check_processes() -> list[Finding]:
    """Find processes whose cluster is gone: of the lab itself, and of agents."""
    try:
        ours = runtime_dir()
    except OrchestratorLabError:
        return []
    found = []
    for one in processes_of_clusters():
        inside = one.folder.parent == ours
        if inside and not is_orphan(one):
            continue
        if inside and one.proved:
            cure = "orchestrator-lab doctor --fix ends it"
            leftover = Leftover("process", str(one.folder), one.pid, one.started)
            sentence = f"{one.kind} {one.pid} of {one.folder}, whose cluster is gone"
            found.append(Finding("orphan", "warn", sentence, cure, leftover))
        elif inside:
            sentence = f"process {one.pid} looks like a {one.kind} of {one.folder}, and nothing proves it"
            found.append(Finding("orphan", "warn", sentence, f"it is left alone; if it is yours: kill {one.pid}"))
        elif not one.folder.exists():
            # Another runtime folder, perhaps of a test: nobody can reach it any more, but it is not ours to end.
            sentence = f"{one.kind} {one.pid} of {one.folder}, which is gone"
            found.append(Finding("orphan", "warn", sentence, f"end it: kill {one.pid}"))
    for folder in folders():
        if left := agents_left(folder):
            names = ", ".join(sorted({one.name for one in left}))
            sentence = f"{len(left)} processes of agents of {folder} live on without it ({names})"
            cure = "orchestrator-lab doctor --fix ends them"
            found.append(Finding("orphan", "warn", sentence, cure, Leftover("agents", str(folder))))
    return found or [Finding("orphans", "ok", "no process without its cluster")]


def agents_left(folder: Path) -> list[Survivor]:
    """Return what runs of the agents of a cluster that is dead."""
    record = read_record(folder)
    if is_locked(folder) or (record is not None and record.alive("tmux")):
        return []
    return survivors(kept_in(folder))


def processes_of_clusters() -> list[Process]:
    """Return this user's processes that look like those of clusters."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, IndexError, ValueError):
            if process.uids().real != os.getuid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            environ = environment_of(process.pid) or {}
            mark = environ.get(CLUSTER_MARK)
            named = _named(process, process.cmdline(), mark)
            started = process_start_time(process.pid)
            if named is None or started is None:
                continue
            kind, folder = named
            proved = mark == str(folder) or _is_recorded(folder, kind, process.pid)
            found.append(Process(process.pid, started, kind, folder, proved))
    return found


def _named(process: psutil.Process, argv: list[str], mark: str | None) -> tuple[Kind, Path] | None:
    """Return which process of which cluster's folder the arguments speak of."""
    kinds: tuple[Literal["keeper", "supervisor"], ...] = ("keeper", "supervisor")
    for what in kinds:
        if f"orchestrator_lab.{what}" in argv:
            return what, Path(argv[argv.index(f"orchestrator_lab.{what}") + 1])
    if "orchestrator_lab.gateway.local_server" in argv and mark is not None:
        return "local model", Path(mark)
    if not (argv and Path(argv[0]).name.startswith("tmux") and "-S" in argv):
        return None
    place = Path(argv[argv.index("-S") + 1])
    if place.name != "tmux.sock" or process.terminal() is not None:
        return None
    if "-C" in argv:
        return "control client", place.parent
    # A server's own command line is that of the client that became it; the session leader that nobody waits for is it.
    return ("tmux server", place.parent) if process.ppid() == 1 else None


def _is_recorded(folder: Path, kind: Kind, pid: int) -> bool:
    """Tell whether a cluster's record names this very process, by pid and start time."""
    record = read_record(folder) if folder.is_dir() else None
    who = _RECORDED.get(kind)
    if record is None or who is None or getattr(record, f"{who}_pid") != pid:
        return False
    started = getattr(record, f"{who}_start")
    return started is not None and process_alive(pid, started)


def is_orphan(one: Process) -> bool:
    """Tell whether a process of a cluster has no cluster any more."""
    folder = one.folder
    record = read_record(folder) if folder.is_dir() else None
    locked = is_locked(folder)
    if record is None or one.kind in {"control client", "local model"}:
        return not locked
    if locked:
        # Someone runs this cluster; a second tmux server is one that was replaced.
        return one.kind == "tmux server" and record.tmux_pid not in {None, one.pid} and record.alive("tmux")
    return bool(getattr(record, f"{_RECORDED[one.kind]}_pid") != one.pid)
