"""Clusters apart from the user's own: a runtime folder for them alone, and nothing of them left when it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

__all__ = ["Apart", "apart", "environment"]

_VARIABLE = "ORCHESTRATOR_RUNTIME_DIR"
#: Python's own helpers of this process end with it.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
#: Seconds that processes have to end by themselves once their cluster is shut down.
_GRACE_S = 6.0


@dataclass(slots=True)
class Apart:
    """A runtime folder of its own.

    Parameters
    ----------
    folder : pathlib.Path
        Where clusters are found while it lasts.
    left : list of str
        Processes that outlived their clusters and were killed, a line each; known at its end.
    """

    folder: Path
    left: list[str] = field(default_factory=list)


@contextlib.contextmanager
def environment(values: dict[str, str | None]) -> Iterator[None]:
    """Set variables of this process's environment for a while.

    Parameters
    ----------
    values : dict
        By name; None takes a variable away.

    Examples
    --------
    >>> with environment({"OLAB_EXAMPLE": "1"}):
    ...     os.environ["OLAB_EXAMPLE"]
    '1'
    >>> "OLAB_EXAMPLE" in os.environ
    False
    """
    before = {name: os.environ.get(name) for name in values}
    try:
        _put(values)
        yield
    finally:
        _put(before)


def _put(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def apart() -> Iterator[Apart]:
    """Give clusters that this process and its children start a runtime folder of their own, and end them afterwards.

    Yields
    ------
    Apart
        The folder; it goes with all that still runs in it.

    Examples
    --------
    >>> with apart() as place:
    ...     place.folder == Path(os.environ["ORCHESTRATOR_RUNTIME_DIR"])
    True
    >>> place.folder.exists(), place.left
    (False, [])
    """
    # Sockets need a short path.
    place = Apart(Path(tempfile.mkdtemp(prefix="ol")))
    with environment({_VARIABLE: str(place.folder)}):
        try:
            yield place
        finally:
            try:
                _shut_down_all()
            finally:
                place.left = _end_survivors(place.folder)
                shutil.rmtree(place.folder, ignore_errors=True)


def _shut_down_all() -> None:
    from orchestrator_lab.runtime import list_clusters

    if not list_clusters():
        return
    from orchestrator_lab.cluster import Cluster

    for record in Cluster.list():
        # One that cannot be reached any more is ended by its processes.
        with contextlib.suppress(OrchestratorLabError, OSError):
            Cluster.attach(record.name).shutdown("cancelled")


def _end_survivors(folder: Path) -> list[str]:
    import time

    deadline = time.monotonic() + _GRACE_S
    while (left := _inhabitants(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not left:
        return []
    import psutil

    # Keepers first: they would start the others again.
    left.sort(key=lambda one: "orchestrator_lab.keeper" not in _words(one))
    said = [f"{one.pid} {_words(one)[:160]}" for one in left]
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.send_signal(signal.SIGKILL)
    psutil.wait_procs(left, timeout=5)
    return said


def _inhabitants(folder: Path) -> list[psutil.Process]:
    """Return the processes that were started for clusters of this folder: all of them carry its name."""
    import psutil

    kin = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in kin:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real != os.getuid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = process.cmdline()
            if any(helper in word for word in words for helper in _HELPERS):
                continue
            named = any(word == str(folder) or f"{folder}/" in word for word in words)
            if named or process.environ().get(_VARIABLE) == str(folder):
                found.append(process)
    return found


def _words(process: psutil.Process) -> str:
    import psutil

    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
