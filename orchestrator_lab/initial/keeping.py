"""Work folders kept in a run: their files below ``initial/NUMBER``, and beside them what a file alone does not say.

They are read at once, which takes little time, and written later, which takes more: what is read is what the folders
were, whatever happens in them meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import disk_error
from orchestrator_lab.initial.state import FORMAT, INDEX, INITIAL
from orchestrator_lab.initial.walking import Limits, Look, TooMuchError, look

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from orchestrator_lab.config import InitialStateConfig

__all__ = ["Gathered", "broken_off", "gather", "limits_of"]

#: Where it is made, until it is whole.
_PARTIAL = f".{INITIAL}.partial"
#: Bytes that are held until they are written.
_IN_MEMORY = 64 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
#: Earlier runs beside a new one that are looked at for the same files.
_EARLIER = 8
#: Smaller files are not worth two names.
_SMALL = 4096


@dataclass(slots=True)
class _Root:
    """A folder, and what was found in it; None with the reason when it is not kept."""

    folder: Path
    found: Look | None
    why: str | None = None
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Bytes of the files that are read; those of the others are read when they are written.
    data: dict[str, bytes] = field(default_factory=dict)


class Gathered:
    """Work folders that are looked through, and read as far as they are not too large.

    Parameters
    ----------
    roots : list
        What was found.
    agents : mapping of str to pathlib.Path
        The work folder of each agent.
    limits : Limits
        What a file may have.
    mask : callable
        Replaces what is secret.
    """

    def __init__(
        self, roots: list[_Root], agents: Mapping[str, Path], limits: Limits, mask: Callable[[bytes], bytes]
    ) -> None:
        self._roots, self._agents, self._limits, self._mask = roots, agents, limits, mask
        room = _IN_MEMORY
        #: Whether all is read, so that the folders may change.
        self.read = True
        for root in roots:
            size = 0 if root.found is None else root.found.size
            if size > room:
                self.read = False
                continue
            room -= size
            for path in () if root.found is None else tuple(root.found.files):
                self._take(root, path)

    def _take(self, root: _Root, path: str) -> bytes | None:
        """Read a file, or note why it is left out."""
        try:
            data, found = _content(f"{root.folder}/{path}", self._limits.file_size)
        except _SkippedError as skipped:
            if root.found is not None:
                root.found.skip(path, str(skipped))
            return None
        masked = self._mask(data)
        facts: dict[str, Any] = {"mode": f"{found.st_mode & 0o777:o}", "mtime_ns": found.st_mtime_ns}
        root.facts[path] = facts if masked == data else {**facts, "masked": True}
        if self.read:
            root.data[path] = masked
        return masked

    def write(self, run_dir: Path) -> None:
        """Put all of it into a run, whole or not at all.

        A file that the last run beside it has kept with the same bytes is that file under another name: many runs in
        one folder take little more room than one.

        Parameters
        ----------
        run_dir : pathlib.Path
            The run's folder, in which ``initial`` is not there yet.

        Raises
        ------
        EnvironmentProblem, DiskFull
            When it cannot be written; nothing of it is left.
        """
        partial = run_dir / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        earlier = _earlier(run_dir)
        try:
            partial.mkdir(mode=0o700)
            for number, root in enumerate(self._roots, 1):
                self._write(root, partial / str(number), earlier / str(number) if earlier is not None else None)
            text = json.dumps(self._index(), ensure_ascii=False, indent=1) + "\n"
            _write(partial / INDEX, text.encode())
            partial.rename(run_dir / INITIAL)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise disk_error(
                f"{run_dir / INITIAL}: the work folders as they were cannot be kept there ({error.strerror}); check "
                "the room and the folder's owner, or set initial_state: false",
                error,
                path=run_dir,
            ) from error

    def _write(self, root: _Root, place: Path, earlier: Path | None) -> None:
        if root.found is None:
            return
        place.mkdir(mode=0o700)
        for parent in sorted({path.rpartition("/")[0] for path in root.found.files}):
            (place / parent).mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in root.found.files:
            data = root.data.pop(path, None)
            if data is None and path not in root.facts and path not in root.found.skipped:
                data = self._take(root, path)
            if data is not None and not (earlier is not None and _same(f"{earlier}/{path}", data, place / path)):
                _write(place / path, data)

    def _index(self) -> dict[str, Any]:
        rows = []
        for number, root in enumerate(self._roots, 1):
            row: dict[str, Any] = {"number": number, "path": str(root.folder)}
            found = root.found
            if found is None:
                rows.append({**row, "why": root.why})
                continue
            row |= {
                "commit": found.commit,
                "files": root.facts,
                "links": found.links,
                "empty": found.empty,
                "skipped": dict(sorted(found.skipped.items())),
                "more_skipped": found.more_skipped,
            }
            rows.append(row)
        return {"format": FORMAT, "agents": self._places(), "folders": rows}

    def _places(self) -> dict[str, dict[str, Any]]:
        places = {}
        for agent, folder in self._agents.items():
            for number, root in enumerate(self._roots, 1):
                if root.found is not None and folder.is_relative_to(root.folder):
                    places[agent] = {"folder": number, "inside": str(folder.relative_to(root.folder))}
                    break
        return places


def gather(
    agents: Mapping[str, Path],
    limits: Limits,
    *,
    mask: Callable[[bytes], bytes],
    without: Collection[Path] = (),
) -> Gathered:
    """Look through work folders, and read them.

    Parameters
    ----------
    agents : mapping of str to pathlib.Path
        The work folder of each agent, with no link in its path. One that lies in another is kept with it.
    limits : Limits
        What the folders may hold together.
    mask : callable
        Replaces what is secret in a file's bytes.
    without : collection of pathlib.Path
        Folders that do not count.

    Returns
    -------
    Gathered
        To be written into a run.
    """
    roots: list[_Root] = []
    left, room = limits.files, limits.size
    # What lies above comes first, and what lies in it is kept with it; where it is too much, its parts may do.
    for folder in sorted(set(agents.values()), key=lambda one: (len(one.parts), str(one))):
        if any(folder.is_relative_to(root.folder) for root in roots if root.found is not None):
            continue
        try:
            found = look(folder, Limits(left, room, limits.file_size, limits.leave_out), without=without)
        except TooMuchError as error:
            roots.append(_Root(folder, None, str(error)))
        except OSError as error:
            roots.append(_Root(folder, None, f"it cannot be read ({error.strerror})"))
        else:
            roots.append(_Root(folder, found))
            left -= len(found.files) + len(found.links) + len(found.empty)
            room -= found.size
    return Gathered(roots, agents, limits, mask)


def limits_of(chosen: InitialStateConfig) -> Limits:
    """Return how much is kept by a configuration.

    Parameters
    ----------
    chosen : InitialStateConfig
        The section ``initial_state``.
    """
    megabytes = 1 << 20
    size, file_size = int(chosen.max_mb * megabytes), int(chosen.max_file_mb * megabytes)
    return Limits(chosen.max_files, size, file_size, tuple(chosen.leave_out))


def broken_off(run_dir: Path) -> bool:
    """Remove what a process that was killed has written; tell whether there was any.

    Parameters
    ----------
    run_dir : pathlib.Path
        The run's folder.
    """
    partial = run_dir / _PARTIAL
    there = partial.exists()
    shutil.rmtree(partial, ignore_errors=True)
    return there


def _earlier(run_dir: Path) -> Path | None:
    """Return where the newest run beside a new one has kept work folders."""
    try:
        names = sorted((one.name for one in run_dir.parent.iterdir() if one.name < run_dir.name), reverse=True)
    except OSError:
        return None
    places = (run_dir.parent / name / INITIAL for name in names[:_EARLIER])
    return next((place for place in places if (place / INDEX).is_file() and not place.is_symlink()), None)


def _same(known: str, data: bytes, target: Path) -> bool:
    """Give a file that holds the same bytes another name; False when there is none, or it cannot be."""
    if len(data) < _SMALL:
        return False
    try:
        descriptor = os.open(known, _READ)
        try:
            found = os.fstat(descriptor)
            alike = stat.S_ISREG(found.st_mode) and found.st_size == len(data) and found.st_uid == os.geteuid()
            if not alike or stat.S_IMODE(found.st_mode) != 0o600 or os.read(descriptor, len(data) + 1) != data:
                return False
        finally:
            os.close(descriptor)
        os.link(known, target, follow_symlinks=False)
    except OSError:  # gone meanwhile, or a disk without such names
        return False
    return True


class _SkippedError(Exception):
    """A file is left out; the text says why."""


def _content(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """Return a file's bytes, and what is known of it; whatever it has become since it was found."""
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        raise _SkippedError(f"it cannot be read ({error.strerror})") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _SkippedError("no ordinary file")
        pieces, size = [], 0
        while size <= most and (piece := os.read(descriptor, max(_PIECE, found.st_size + 1))):
            pieces.append(piece)
            size += len(piece)
            if size == found.st_size:
                break
    except OSError as error:
        raise _SkippedError(f"it cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)
    if size > most:
        raise _SkippedError(f"more than {most} bytes (max_file_mb)")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), found


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, _WRITE, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
