"""What a folder under git held at two instants, without touching it: no index, object, lock or file of its repository.

Looks use an index and an object folder of their own; the repository's objects are only read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator_lab.folders import size_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Change", "LookFailedError", "WorkTree", "in_repository", "read_numstat"]

#: Longest time for one look at a folder, in seconds.
TIMEOUT_S = 10.0
#: Larger files are left out, and so are all changes of a turn that are more than so many files or bytes.
MAX_FILE, MAX_FILES, MAX_BYTES = 4 << 20, 5000, 64 << 20
#: Objects of looks are thrown away when they are more than this, in bytes.
_MAX_OBJECTS = 256 << 20
#: Longest patch that is kept, in bytes.
MAX_PATCH = 1 << 20
#: Nothing of the repository's own is run but its filters, and nothing is fetched.
_OPTIONS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false")


class LookFailedError(Exception):
    """A look at a folder did not succeed; its text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """What changed between two looks.

    Parameters
    ----------
    files : int
        Files that differ.
    lines_added, lines_removed : int
        Lines of text files.
    patch : bytes
        The difference, at most :data:`MAX_PATCH` bytes of it.
    truncated : bool
        Whether the patch is longer.
    """

    files: int
    lines_added: int
    lines_removed: int
    patch: bytes
    truncated: bool


def in_repository(folder: Path) -> bool:
    """Tell whether a folder is in a work tree of git, which costs a few looks at the disk.

    Parameters
    ----------
    folder : Path
        Any folder.
    """
    return any((place / ".git").exists() for place in (folder, *folder.parents))


def read_numstat(data: bytes) -> tuple[int, int, int]:
    r"""Return files, added and removed lines of ``git diff-tree --numstat -z``.

    Parameters
    ----------
    data : bytes
        What git printed.

    Examples
    --------
    >>> read_numstat(b"3\t1\ta.txt\0-\t-\tpicture.png\0")
    (2, 3, 1)
    """
    files = added = removed = 0
    for row in data.split(b"\0"):
        parts = row.split(b"\t", 2)
        if len(parts) == 3:
            files += 1
            if parts[0].isdigit() and parts[1].isdigit():
                added, removed = added + int(parts[0]), removed + int(parts[1])
    return files, added, removed


class WorkTree:
    """One folder under git, looked at again and again. Not to be used by several threads at once.

    Parameters
    ----------
    folder : Path
        The folder; what is above it in its repository is not looked at.
    own : Path
        A private folder for index and objects.
    exclude : sequence of Path
        Folders that do not count, such as that of the run itself.
    """

    def __init__(self, folder: Path, own: Path, exclude: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._own = own
        self._index = own / "index"
        self._objects = own / "objects"
        self._exclude = [
            f":(exclude,literal){path.relative_to(folder)}"
            for path in exclude
            if path != folder and path.is_relative_to(folder)
        ]
        self._environment: dict[str, str] | None = None
        #: Files that the last look left out, since they are too large.
        self.left_out = 0

    def look(self) -> str:
        """Return the id of the tree that the folder is now.

        Returns
        -------
        str
            For :meth:`change`.

        Raises
        ------
        LookFailedError
            When git is not there, fails or takes too long, or when too much has changed.
        """
        deadline = time.monotonic() + TIMEOUT_S
        self._prepare(deadline)
        # Only names come from here: what has changed since the last look, files that git does not know among it.
        listed = self._git(
            deadline, "ls-files", "-z", "-m", "-o", "-d", "--exclude-standard", "--", ".", *self._exclude
        )
        # A name that ends in a slash is a repository within this one.
        names = [name for name in dict.fromkeys(listed.split(b"\0")) if name and not name.endswith(b"/")]
        if len(names) > MAX_FILES:
            raise LookFailedError(f"{len(names)} files have changed, more than {MAX_FILES}")
        chosen, total = [], 0
        for name in names:
            try:
                size = (self.folder / os.fsdecode(name)).lstat().st_size
            except OSError:
                size = 0
            if size <= MAX_FILE:
                chosen.append(name)
                total += size
        self.left_out = len(names) - len(chosen)
        if total > MAX_BYTES:
            raise LookFailedError(f"{total} bytes have changed, more than {MAX_BYTES}")
        if chosen:
            names_in = b"".join(name + b"\0" for name in chosen)
            self._git(deadline, "update-index", "--add", "--remove", "-z", "--stdin", given=names_in)
        return self._git(deadline, "write-tree").decode().strip()

    def change(self, before: str, after: str) -> Change:
        """Return what changed between two looks.

        Parameters
        ----------
        before, after : str
            Trees, as :meth:`look` returned them.

        Returns
        -------
        Change
            Nothing at once when both are the same.

        Raises
        ------
        LookFailedError
            As of :meth:`look`.
        """
        if before == after:
            return Change(0, 0, 0, b"", truncated=False)
        deadline = time.monotonic() + TIMEOUT_S
        between = ("diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color")
        files, added, removed = read_numstat(self._git(deadline, *between, "--numstat", "-z", before, after))
        patch = self._git(deadline, *between, "-p", before, after, most=MAX_PATCH + 1)
        return Change(files, added, removed, patch[:MAX_PATCH], truncated=len(patch) > MAX_PATCH)

    def forget(self) -> None:
        """Throw index and objects away."""
        shutil.rmtree(self._own, ignore_errors=True)
        self._environment = None

    def _prepare(self, deadline: float) -> None:
        if self._environment is not None and size_of(self._objects) > _MAX_OBJECTS:
            self.forget()
        if self._environment is not None:
            return
        self._objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        self._environment = clean | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
        self._environment |= {"GIT_NO_LAZY_FETCH": "1", "GIT_CONFIG_COUNT": "0"}
        try:
            told = self._git(deadline, "rev-parse", "--git-path", "objects", "--git-path", "index").decode()
            objects, index = (self.folder / line for line in told.splitlines())
            with contextlib.suppress(FileNotFoundError):  # a repository in which nothing was ever added has none
                shutil.copyfile(index, self._index)
        except (OSError, ValueError, LookFailedError):
            self.forget()
            raise
        self._environment |= {
            "GIT_INDEX_FILE": str(self._index),
            "GIT_OBJECT_DIRECTORY": str(self._objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }

    def _git(self, deadline: float, *arguments: str, given: bytes | None = None, most: int | None = None) -> bytes:
        command = ["git", *_OPTIONS, "-C", str(self.folder), *arguments]
        left = deadline - time.monotonic()
        if left <= 0:
            raise LookFailedError(f"git {arguments[0]} took more than {TIMEOUT_S:g} s")
        try:
            if most is None:
                done = subprocess.run(
                    command, input=given or b"", capture_output=True, env=self._environment, timeout=left, check=False
                )
                output, status, errors = done.stdout, done.returncode, done.stderr
            else:
                output, status, errors = self._first(command, most, left)
        except subprocess.TimeoutExpired as error:
            raise LookFailedError(f"git {arguments[0]} took more than {TIMEOUT_S:g} s") from error
        except OSError as error:
            raise LookFailedError(f"git cannot be run ({error.strerror or error})") from error
        if status:
            told = errors.decode(errors="replace").strip().splitlines()
            raise LookFailedError(f"git {arguments[0]}: {told[-1] if told else f'status {status}'}"[:300])
        return output

    def _first(self, command: list[str], most: int, seconds: float) -> tuple[bytes, int, bytes]:
        """Return the first bytes that a command prints, and end it when there are more."""
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment
        ) as process:
            overdue = threading.Event()

            def end() -> None:
                overdue.set()
                process.kill()

            # A read of a pipe has no time limit of its own.
            timer = threading.Timer(seconds, end)
            timer.start()
            try:
                head = process.stdout.read(most) if process.stdout is not None else b""
                if len(head) == most:
                    process.kill()
                    process.communicate()
                    return head, 0, b""
                _, errors = process.communicate()
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
            if overdue.is_set():
                raise subprocess.TimeoutExpired(command, seconds)
            return head, process.returncode, errors
