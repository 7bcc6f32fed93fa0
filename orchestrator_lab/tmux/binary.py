"""Finding tmux, and running one tmux command as a process of its own.

Everything else goes through the control channel; this is for the bootstrap and for when the channel is lost.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import TmuxError, TmuxMissing, TmuxTimeout, TmuxTooOld

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FLOOR", "TmuxBinary", "client_environ", "find_tmux", "parse_version", "run_tmux"]

logger = logging.getLogger(__name__)

#: Oldest version supported (libtmux's own floor), as :attr:`TmuxBinary.number`.
FLOOR = (3, 2, 1)
#: What a tmux client or server gets of our environment, beside the locale; the last tells whose process it is.
_KEPT = frozenset({"PATH", "HOME", "LANG", "ORCHESTRATOR_LAB_CLUSTER"})
_NEWEST = (99, 0, 0)
_VERSION = re.compile(r"(\d+)\.(\d+)([a-z]?)")

#: How to install tmux, by the package manager found on the PATH.
_INSTALLERS = (
    ("apt-get", "sudo apt-get install tmux"),
    ("dnf", "sudo dnf install tmux"),
    ("pacman", "sudo pacman -S tmux"),
    ("zypper", "sudo zypper install tmux"),
    ("apk", "sudo apk add tmux"),
    ("brew", "brew install tmux"),
)
_CONDA = "conda install -c conda-forge tmux"


@dataclass(frozen=True, slots=True)
class TmuxBinary:
    """A tmux program that is new enough.

    Parameters
    ----------
    path : str
        Absolute path of the program.
    version : str
        What ``tmux -V`` says without the program's name, for example ``"3.3a"``.
    number : tuple of int
        ``(major, minor, letter)`` for comparisons; the letter counts from 1 for ``a``, 0 is none.
    """

    path: str
    version: str
    number: tuple[int, int, int]


def parse_version(text: str) -> tuple[str, tuple[int, int, int]] | None:
    """Return the version in the output of ``tmux -V``.

    Parameters
    ----------
    text : str
        The output, for example ``"tmux 3.3a"`` or ``"tmux next-3.6"``.

    Returns
    -------
    tuple of (str, tuple of int) or None
        The version and its number; None when the text is no tmux version. Unnumbered development
        versions (``master``) and OpenBSD's own count as newer than any number.

    Examples
    --------
    >>> parse_version("tmux 3.3a")
    ('3.3a', (3, 3, 1))
    >>> parse_version("screen 4") is None
    True
    """
    words = text.split()
    if len(words) < 2 or words[0] != "tmux":
        return None
    version = words[1]
    if version.startswith(("master", "openbsd")):
        return version, _NEWEST
    found = _VERSION.search(version)
    if found is None:
        return None
    major, minor, letter = found.groups()
    return version, (int(major), int(minor), ord(letter) - ord("a") + 1 if letter else 0)


def _install_hint(*, newer: bool = False) -> str:
    if newer:  # the system's package manager has most likely given the old one already
        return f"install a newer one, for example: {_CONDA}"
    for program, command in _INSTALLERS:
        if shutil.which(program):
            return f"install it: {command} (or: {_CONDA})"
    return f"install it, for example: {_CONDA}"


def find_tmux(path: str | Path | None = None) -> TmuxBinary:
    """Find tmux and check its version.

    Parameters
    ----------
    path : str or Path, optional
        The program; the first ``tmux`` of the PATH when omitted.

    Returns
    -------
    TmuxBinary
        The program with its version.

    Raises
    ------
    TmuxMissing
        When there is none, or it does not run.
    TmuxTooOld
        When it is older than 3.2a.

    Examples
    --------
    >>> find_tmux().number >= FLOOR
    True
    """
    found = shutil.which(str(path) if path is not None else "tmux")
    if found is None:
        where = f"at {path}" if path is not None else "on the PATH"
        raise TmuxMissing(f"there is no tmux {where}; {_install_hint()}")
    found = str(Path(found).absolute())
    stamp = Path(found).stat()
    return _checked(found, stamp.st_mtime_ns, stamp.st_size)


@functools.lru_cache(maxsize=8)
def _checked(found: str, _mtime_ns: int, _size: int) -> TmuxBinary:
    try:
        said = subprocess.run([found, "-V"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TmuxMissing(f"{found} does not run ({error}); {_install_hint()}") from error
    parsed = parse_version(said)
    if parsed is None:
        raise TmuxMissing(f"{found} does not look like tmux: 'tmux -V' printed {said.strip()!r}; {_install_hint()}")
    version, number = parsed
    if number < FLOOR:
        raise TmuxTooOld(
            f"{found} is version {version}, but 3.2a or newer is needed; {_install_hint(newer=True)}",
            version=version,
        )
    return TmuxBinary(found, version, number)


def client_environ(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the few variables that a tmux client, or a new server, gets from us.

    tmux hands the environment of whoever starts the server to every pane, so nothing else may be in it.

    Parameters
    ----------
    environ : mapping of str to str, optional
        Where to take them from; this process's environment when omitted.

    Returns
    -------
    dict of str to str
        ``PATH``, ``HOME``, ``TERM``, ``LANG``, ``LC_*`` and the mark of a cluster; with a UTF-8 ``LC_CTYPE`` when the
        locale has none.
    """
    source = os.environ if environ is None else environ
    kept = {key: value for key, value in source.items() if key in _KEPT or key.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    # Only the terminal of whoever attaches matters to tmux, and that is not us.
    kept["TERM"] = "xterm-256color"
    spoken = kept.get("LC_ALL") or kept.get("LC_CTYPE") or kept.get("LANG") or ""
    if "utf-8" not in spoken.lower() and "utf8" not in spoken.lower():
        kept.pop("LC_ALL", None)
        kept["LC_CTYPE"] = "UTF-8" if sys.platform == "darwin" else "C.UTF-8"
    return kept


def run_tmux(
    binary: TmuxBinary,
    socket: Path,
    args: Sequence[str],
    *,
    timeout: float = 10.0,
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run one tmux command line as a process (4 ms), with a deadline.

    Parameters
    ----------
    binary : TmuxBinary
        The program.
    socket : Path
        The server's socket.
    args : sequence of str
        The command and its arguments; an argument ``;`` separates commands.
    timeout : float, default 10.0
        Seconds to wait.
    environ : mapping of str to str, optional
        The process's environment; :func:`client_environ` when omitted.
    cwd : str, optional
        Folder to run it in, which a new server keeps as its own.
    check : bool, default True
        Raise when tmux fails.

    Returns
    -------
    subprocess.CompletedProcess
        With text output.

    Raises
    ------
    TmuxTimeout
        When the deadline is missed.
    TmuxError
        When the command fails and `check` is true.
    """
    argv = [binary.path, "-u", "-f", "/dev/null", "-S", str(socket), *args]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=cwd,
            env=dict(environ) if environ is not None else client_environ(),
            # Ctrl-C in a notebook or shell is not meant for tmux.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise TmuxTimeout(
            f"tmux did not answer '{args[0]}' within {timeout:g} s on {socket}", command=args[0]
        ) from error
    except OSError as error:
        raise TmuxMissing(f"{binary.path} does not run: {error}") from error
    if check and done.returncode:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise TmuxError(f"tmux '{args[0]}' failed on {socket}: {said}", command=args[0], said=said)
    return done
