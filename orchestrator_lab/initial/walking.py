"""What of a folder is content: by git where the folder is under git, else all ordinary files but what tools make.

The look is bounded by entries and by time, so that a home folder or a network disk holds nobody up. Nothing is read
but names and sizes, and no link is followed.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch, translate
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["CREATED_MARK", "Limits", "Look", "TooMuchError", "leads_out", "look"]

#: Says in a work folder that the lab made it.
CREATED_MARK = ".orchestrator-lab-created"
#: Made by tools from something else, and made again by them.
_MADE = frozenset(
    {
        ".git", ".hg", ".svn", ".jj", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".nox", ".mypy_cache",
        ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints", ".gradle", ".terraform", ".direnv",
    }
)  # fmt: skip
#: A folder that holds one of these is a virtual environment, or a cache.
_SIGNS = ("pyvenv.cfg", "CACHEDIR.TAG")
#: Files that hold keys as a rule; what ends in the second is an example of one.
_SECRET = (
    ".env", ".env.*", ".netrc", ".pgpass", ".pypirc", ".git-credentials", ".htpasswd", "id_rsa", "id_dsa", "id_ecdsa",
    "id_ed25519", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx",
)  # fmt: skip
_SECRET_NAME = re.compile("|".join(translate(one) for one in _SECRET))
_EXAMPLES = (".example", ".sample", ".template", ".dist")
_ODD = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
#: Seconds for a look.
_TIMEOUT_S = 5.0
#: Entries that are looked at for each file that may be kept.
_ENTRIES = 10
#: Repositories in each other that git is asked about.
_REPOSITORIES = 20
#: Things left out that are listed one by one.
_LISTED = 500
#: Bytes of git's list for each file that may be kept.
_NAME_BYTES = 256
#: Nothing of the repository's own is run, and no lock is taken.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false")


class TooMuchError(Exception):
    """A folder is not looked at any further; its text says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a folder is kept.

    Parameters
    ----------
    files : int
        Files, links and empty folders; with more, nothing is kept.
    size : int
        Bytes in all; with more, nothing is kept.
    file_size : int
        Bytes of one file; a larger one is left out.
    leave_out : sequence of str
        Patterns of paths that are left out; ``*`` stands for anything.
    """

    files: int
    size: int
    file_size: int
    leave_out: Sequence[str] = ()


@dataclass(slots=True)
class Look:
    """What of a folder is content.

    Parameters
    ----------
    files : dict of str to os.stat_result
        Ordinary files, by their path in the folder.
    links : dict of str to str
        Links that lead to something in the folder, and where to.
    empty : list of str
        Folders without anything in them.
    skipped : dict of str to str
        What is left out, and why.
    more_skipped : int
        How much else is left out.
    size : int
        Bytes of the files.
    commit : str or None
        Of the repository, where there is one.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    more_skipped: int = 0
    size: int = 0
    commit: str | None = None

    def skip(self, path: str, why: str) -> None:
        """Note that something is left out."""
        if len(self.skipped) < _LISTED:
            self.skipped[path] = why
        else:
            self.more_skipped += 1


def look(folder: Path, limits: Limits, *, without: Collection[Path] = ()) -> Look:
    """Look through a folder.

    Parameters
    ----------
    folder : pathlib.Path
        The folder, with no link in its own path.
    limits : Limits
        How much it may hold.
    without : collection of pathlib.Path
        Folders that do not count, such as that of the runs.

    Returns
    -------
    Look
        Sorted by path, whatever the order on the disk.

    Raises
    ------
    TooMuchError
        When it holds more, or takes too long.
    OSError
        When the folder cannot be read.
    """
    walk = _Walk(folder, limits, {str(one) for one in without})
    found = walk.found
    if not (_in_repository(folder) and walk.by_git("")):
        os.scandir(folder).close()
        walk.plainly("")
    found.files = dict(sorted(found.files.items()))
    found.links = dict(sorted(found.links.items()))
    found.skipped = dict(sorted(found.skipped.items()))
    found.empty.sort()
    return found


def leads_out(path: str, target: str) -> bool:
    """Tell whether a link leads, or may lead, out of its folder; other links on the way make no difference.

    Parameters
    ----------
    path : str
        The link's, in the folder.
    target : str
        What it holds.

    Examples
    --------
    >>> leads_out("a/link", "../b"), leads_out("link", "../b"), leads_out("link", "/etc"), leads_out("link", "b/../c")
    (False, True, True, True)
    """
    if not target or target.startswith("/") or "\0" in target:
        return True
    parts = [part for part in target.split("/") if part not in {"", "."}]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    # Behind a link to a folder, ".." is that folder's parent, wherever it is: only the way up from here is known.
    return up > path.count("/") or ".." in parts[up:]


def _in_repository(folder: Path) -> bool:
    return any(os.path.lexists(place / ".git") for place in (folder, *folder.parents))


class _Walk:
    def __init__(self, folder: Path, limits: Limits, without: set[str]) -> None:
        self.found = Look()
        self._folder, self._limits, self._without = folder, limits, without
        self._deadline = time.monotonic() + _TIMEOUT_S
        self._entries = limits.files * _ENTRIES + 1000
        self._repositories = _REPOSITORIES
        #: Folders of which it is known whether they are left out, by their path.
        self._left_out: dict[str, str | None] = {"": None}

    # ways to look --------------------------------------------------------------------------------

    def by_git(self, base: str) -> bool:
        """Take what git tracks, and what it does not ignore; False when git does not know, or knows nothing."""
        if self._repositories <= 0:
            return False
        self._repositories -= 1
        listed = self._listed(base)
        if not listed:
            return False
        if not base:
            self.found.commit = self._commit()
        for name in listed:
            self._tick()
            try:
                path = base + name.decode()
            except UnicodeDecodeError:
                self.found.skip(base + os.fsdecode(name).encode(errors="replace").decode(), "its name is no UTF-8")
                continue
            nested = path.endswith("/")
            path = path.rstrip("/")
            why, at = self._why_above(path)
            if why is not None:
                if why and at not in self.found.skipped:
                    self.found.skip(at, why)
                continue
            try:
                found = (self._folder / path).lstat()
            except OSError:
                continue  # tracked, and deleted
            if nested or stat.S_ISDIR(found.st_mode):
                self._folder_found(path)
            else:
                self._take(path, found)
        return True

    def plainly(self, base: str) -> None:
        """Take all that is in a folder."""
        left = [base]
        while left:
            here = left.pop()
            try:
                with os.scandir(self._folder / here) as scan:
                    entries = sorted(scan, key=lambda one: one.name)
            except OSError as error:
                self.found.skip(here, f"it cannot be read ({error.strerror})")
                continue
            if not entries and here:
                self._count()
                self.found.empty.append(here.rstrip("/"))
            for entry in entries:
                self._tick()
                path = here + entry.name
                try:
                    path.encode()
                except UnicodeEncodeError:
                    self.found.skip(path.encode(errors="replace").decode(), "its name is no UTF-8")
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        why, _ = self._why_above(path + "/")
                        if why:
                            self.found.skip(path + "/", why)
                        elif why is None and not self._repository(path):
                            left.append(path + "/")
                    else:
                        self._take(path, entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self.found.skip(path, f"it cannot be read ({error.strerror})")

    def _folder_found(self, path: str) -> None:
        """Look through a folder that git names as one: a repository within."""
        why, _ = self._why_above(path + "/")
        if why:
            self.found.skip(path + "/", why)
        elif why is None and not self._repository(path):
            self.plainly(path + "/")

    def _repository(self, path: str) -> bool:
        return os.path.lexists(self._folder / path / ".git") and self.by_git(path + "/")

    # one thing -----------------------------------------------------------------------------------

    def _take(self, path: str, found: os.stat_result) -> None:
        name = path.rpartition("/")[2]
        if name == CREATED_MARK:
            return
        why = self._why_not(path, name, found)
        if why is not None:
            self.found.skip(path, why)
            return
        self._count()
        if stat.S_ISLNK(found.st_mode):
            self.found.links[path] = str((self._folder / path).readlink())
            return
        self.found.files[path] = found
        self.found.size += found.st_size
        if self.found.size > self._limits.size:
            raise TooMuchError(f"it holds more than {self._limits.size / (1 << 20):g} MB (max_mb)")

    def _why_not(self, path: str, name: str, found: os.stat_result) -> str | None:
        if self._unwanted(path):
            return "left out by the configuration"
        if stat.S_ISLNK(found.st_mode):
            target = str((self._folder / path).readlink())
            out = leads_out(path, target) or not target.isprintable()
            return "a link that leads out of the folder" if out else None
        if not stat.S_ISREG(found.st_mode):
            return _ODD.get(stat.S_IFMT(found.st_mode), "no ordinary file")
        if _SECRET_NAME.match(name) and not name.endswith(_EXAMPLES):
            return "such files hold secrets"
        if found.st_size > self._limits.file_size:
            return f"{found.st_size} bytes, more than {self._limits.file_size} (max_file_mb)"
        return None

    def _unwanted(self, path: str) -> bool:
        return bool(self._limits.leave_out) and any(fnmatch(path, one.rstrip("/")) for one in self._limits.leave_out)

    def _why_above(self, path: str) -> tuple[str | None, str]:
        """Return why a folder on the way to a path is left out (an empty text: it is the lab's own), and which one."""
        parent = path.rpartition("/")[0]
        known = self._left_out.get(parent)
        if parent not in self._left_out:
            known, at = self._why_above(parent)
            if known is not None:
                return known, at
            known = self._left_out[parent] = self._why_not_folder(parent)
        return known, parent + "/"

    def _why_not_folder(self, path: str) -> str | None:
        place = self._folder / path
        name = path.rpartition("/")[2]
        if str(place) in self._without:
            return ""
        if self._unwanted(path):
            return "left out by the configuration"
        if name in _MADE or any(os.path.lexists(place / sign) for sign in _SIGNS):
            return "made by tools"
        if os.path.ismount(place):
            return "another file system"
        return None

    # bounds --------------------------------------------------------------------------------------

    def _count(self) -> None:
        found = self.found
        if len(found.files) + len(found.links) + len(found.empty) >= self._limits.files:
            raise TooMuchError(f"it holds more than {self._limits.files} files (max_files)")

    def _tick(self) -> None:
        self._entries -= 1
        if self._entries < 0:
            raise TooMuchError(f"it holds more than {self._limits.files} files (max_files), with those left out")
        if self._entries % 256 == 0 and time.monotonic() > self._deadline:
            raise TooMuchError(f"looking through it takes more than {_TIMEOUT_S:g} s")

    # git -----------------------------------------------------------------------------------------

    def _listed(self, base: str) -> list[bytes]:
        most = self._limits.files * _NAME_BYTES + (1 << 20)
        here = self._folder / base
        apart = [
            f":(exclude,literal){Path(one).relative_to(here)}"
            for one in sorted(self._without)
            if Path(one).is_relative_to(here) and Path(one) != here
        ]
        data = self._git(base, most, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".", *apart)
        if len(data) >= most:
            raise TooMuchError(f"it holds more than {self._limits.files} files (max_files)")
        return sorted({name for name in data.split(b"\0") if name})

    def _commit(self) -> str | None:
        return self._git("", 200, "rev-parse", "--verify", "--quiet", "HEAD").decode(errors="replace").strip() or None

    def _git(self, base: str, most: int, *arguments: str) -> bytes:
        """Return what git prints, up to so many bytes; nothing when it fails."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
        command = [*_GIT, "-C", str(self._folder / base), *arguments]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError:
            return b""
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        # A read of a pipe has no time limit of its own.
        timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), end)
        timer.start()
        try:
            with process:
                data = process.stdout.read(most) if process.stdout is not None else b""
                if len(data) >= most:
                    process.kill()
        finally:
            timer.cancel()
        if late.is_set():
            raise TooMuchError(f"looking through it takes more than {_TIMEOUT_S:g} s")
        return data if process.returncode == 0 or len(data) >= most else b""
