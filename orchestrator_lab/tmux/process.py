"""Processes as tmux's driver sees them: known by pid and start time, so that none is ever mistaken."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = [
    "command_line",
    "dying_with_us",
    "find_by_argv",
    "interrupt_missed",
    "kill_if_same",
    "process_ending",
    "process_started",
    "wait_gone",
]

_LINUX = sys.platform == "linux"


#: Signals that a process blocks, ignores and handles, by their names in ``/proc/PID/status``.
_MASKS = ("SigBlk", "SigIgn", "SigCgt")
#: Linux's flag of a process in its end.
_PF_EXITING = 0x4


def _stat(pid: int, field: int) -> str | None:
    """Return a field of ``/proc/PID/stat``, counted from the state; None when only a zombie is left, or nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name may hold anything
    return None if fields[0] in {b"Z", b"X"} else fields[field].decode()


def process_started(pid: int) -> str | None:
    """Return when a process started, as a text that only serves to be compared.

    Parameters
    ----------
    pid : int
        Process id.

    Returns
    -------
    str or None
        The start time; None when there is no such process, or only its zombie.
    """
    if _LINUX:
        return _stat(pid, 19)
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def process_ending(pid: int) -> bool:
    """Tell whether a process is gone, or in its end.

    One that was killed closes its files, which others notice, before it is a zombie.

    Parameters
    ----------
    pid : int
        Process id.

    Returns
    -------
    bool
        Beside Linux only whether it is gone.

    Notes
    -----
    ``flags`` of ``/proc/PID/stat``: proc_pid_stat(5), and ``PF_EXITING`` of the kernel's ``sched.h``.
    """
    if not _LINUX:
        return process_started(pid) is None
    flags = _stat(pid, 6)
    return flags is None or bool(int(flags) & _PF_EXITING)


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process, empty when it is gone or not ours to read.

    Parameters
    ----------
    pid : int
        Process id.

    Returns
    -------
    list of str
        Program and arguments.
    """
    if _LINUX:
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]
    import psutil

    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def find_by_argv(tail: list[str], *, skip_last: int = 0) -> list[tuple[int, str]]:
    """Find processes of this user whose last arguments are exactly these.

    Parameters
    ----------
    tail : list of str
        The arguments to end with, distinctive enough to mean only processes of ours.
    skip_last : int, default 0
        How many arguments follow them that may be anything.

    Returns
    -------
    list of (int, str)
        Pids and start times.
    """
    if _LINUX:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - names only
    else:
        import psutil

        pids = psutil.pids()
    found = []
    for pid in pids:
        words = command_line(pid)
        if words[len(words) - skip_last - len(tail) : len(words) - skip_last] == tail:
            started = process_started(pid)
            if started is not None:
                found.append((pid, started))
    return found


def kill_if_same(pid: int, started: str, number: int = signal.SIGKILL) -> bool:
    """Send a signal to a process if it is still the one that was meant.

    Parameters
    ----------
    pid : int
        Process id.
    started : str
        Its start time as :func:`process_started` gave it.
    number : int, default SIGKILL
        The signal.

    Returns
    -------
    bool
        Whether it was sent.
    """
    if process_started(pid) != started:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False


def interrupt_missed(pid: int) -> bool:
    """Tell whether the program at work in a terminal cannot have received the interrupt that was typed there.

    A shell that has just read a line is still alone in the foreground for an instant: the signal of an interrupt typed
    then reaches the shell, and not the command that it is about to start. A process that would end by the signal, and
    lives, did not receive it.

    Parameters
    ----------
    pid : int
        A process of the terminal's session, such as a pane's.

    Returns
    -------
    bool
        True when a process of the foreground group neither handles, ignores nor blocks SIGINT; False when that is not
        known (macOS), and when none lives.
    """
    if not _LINUX:
        return False
    group = _stat(pid, 5)
    if group is None or int(group) <= 0 or process_started(int(group)) is None:
        return False
    try:
        lines = Path(f"/proc/{int(group)}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    masks = {key: int(value, 16) for key, _, value in (line.partition(":\t") for line in lines) if key in _MASKS}
    bit = 1 << (signal.SIGINT - 1)
    return len(masks) == len(_MASKS) and not any(mask & bit for mask in masks.values())


def wait_gone(pid: int, started: str, timeout: float) -> bool:
    """Wait until a process that need not be our child is gone.

    Parameters
    ----------
    pid : int
        Process id.
    started : str
        Its start time as :func:`process_started` gave it.
    timeout : float
        Seconds to wait at most.

    Returns
    -------
    bool
        Whether it is gone.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while process_started(pid) == started:
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    return True


@functools.lru_cache(maxsize=1)
def _setpriv() -> str | None:
    path = shutil.which("setpriv")
    if path is None:
        return None
    try:  # busybox has a setpriv without this option
        tried = subprocess.run(
            [path, "--pdeathsig", "KILL", "/bin/sh", "-c", ":"],
            capture_output=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if tried.returncode == 0 else None


_PRCTL = "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);os.execv(sys.argv[1],sys.argv[1:])"


def dying_with_us(argv: list[str]) -> list[str]:
    """Return the command that runs a program which the kernel kills when the starting thread ends.

    A control client whose owner was killed freezes panes for ever; SIGTERM does not end it, SIGKILL does. The
    signal is set by a helper that then becomes the program: a function between fork and exec
    (``preexec_fn``) is not safe in a process with threads.

    Parameters
    ----------
    argv : list of str
        Absolute program and arguments.

    Returns
    -------
    list of str
        The command; `argv` itself where there is no parent-death signal (macOS).
    """
    if not _LINUX:
        return argv
    setpriv = _setpriv()
    if setpriv is not None:
        return [setpriv, "--pdeathsig", "KILL", *argv]
    return [sys.executable, "-I", "-S", "-c", _PRCTL, *argv]
