"""Where running clusters are found: folders, the lock, the record, process identity.

Every running cluster has a folder of its own, ``runtime_dir() / <name>``, that only its user may
enter. Client and cluster meet there: ``cluster.json`` says who runs it, ``lock`` says whether
anyone does, the sockets lead in.

The keeper imports this module before it can bind a socket, so nothing slow is imported at its top:
``psutil`` and ``tempfile`` are only loaded where the kernel's own ``/proc`` does not answer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import stat
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ClusterNotFound, ConfigError, EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CLUSTER_MARK",
    "LONGEST_SOCKET_PATH",
    "PROTOCOL",
    "ClusterRecord",
    "acquire_lock",
    "cluster_dir",
    "handoff_argv",
    "is_locked",
    "keeper_argv",
    "list_clusters",
    "new_token",
    "private_dir",
    "process_alive",
    "process_start_time",
    "read_record",
    "runtime_dir",
    "runtime_place",
    "sync_folder",
    "update_record",
    "write_private",
    "write_record",
]

logger = logging.getLogger(__name__)

#: Version of what client, supervisor and keeper say to each other. Raised when they would
#: misunderstand.
PROTOCOL = 1

#: Variable in the environment of all that a cluster starts: its runtime folder. It proves whose a process is.
CLUSTER_MARK = "ORCHESTRATOR_LAB_CLUSTER"

#: Bytes. Linux allows 107 and macOS 103; the rest is room for tmux's and our temporary names.
LONGEST_SOCKET_PATH = 100

#: The longest socket name in a cluster's folder.
_LONGEST_SOCKET = "keeper.sock"

#: Start times further apart than this belong to two processes (psutil rounds, the clock is
#: stepped).
_SAME_START_S = 2.0

#: A start time above this is in seconds since 1970, below it in seconds since boot.
_EPOCH_FLOOR = 1e9


def runtime_dir() -> Path:
    """Return the folder of all running clusters of this user, made if it is missing.

    Returns
    -------
    pathlib.Path
        ``$ORCHESTRATOR_RUNTIME_DIR``, else ``olab-<uid>`` under the system's temporary folder,
        mode 0700.

    Raises
    ------
    EnvironmentProblem
        The folder belongs to someone else, is open to others, or cannot be made.

    Examples
    --------
    >>> import os, tempfile
    >>> os.environ["ORCHESTRATOR_RUNTIME_DIR"] = tempfile.mkdtemp()
    >>> runtime_dir().stat().st_mode & 0o777 == 0o700
    True
    >>> del os.environ["ORCHESTRATOR_RUNTIME_DIR"]
    """
    return private_dir(runtime_place())


def runtime_place() -> Path:
    """Return where the folder of all running clusters is, or would be; nothing is made or checked.

    Returns
    -------
    pathlib.Path
        As :func:`runtime_dir`.

    Examples
    --------
    >>> import os
    >>> os.environ["ORCHESTRATOR_RUNTIME_DIR"] = "/nowhere/olab"
    >>> str(runtime_place())
    '/nowhere/olab'
    >>> del os.environ["ORCHESTRATOR_RUNTIME_DIR"]
    """
    chosen = os.environ.get("ORCHESTRATOR_RUNTIME_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import tempfile

    return Path(tempfile.gettempdir()) / f"olab-{os.getuid()}"


def cluster_dir(name: str) -> Path:
    """Return the runtime folder of a cluster; it is not made.

    Parameters
    ----------
    name : str
        A letter, then up to 31 letters, digits, ``_`` or ``-``.

    Returns
    -------
    pathlib.Path
        ``runtime_dir() / name``.

    Raises
    ------
    ConfigError
        The name is not allowed.
    EnvironmentProblem
        The path is too long for a unix socket in it.

    Examples
    --------
    >>> import os, tempfile
    >>> os.environ["ORCHESTRATOR_RUNTIME_DIR"] = tempfile.mkdtemp()
    >>> cluster_dir("duo").name
    'duo'
    >>> del os.environ["ORCHESTRATOR_RUNTIME_DIR"]
    """
    if not (
        name.isascii()
        and name[:1].isalpha()
        and len(name) <= 32
        and all(character.isalnum() or character in "_-" for character in name)
    ):
        raise ConfigError(
            f"cluster name {name!r} is not allowed: it must be a letter followed by up to 31 "
            "letters, digits, '_' or '-'",
            name=name,
        )
    folder = runtime_dir() / name
    length = len(os.fsencode(folder / _LONGEST_SOCKET))
    if length > LONGEST_SOCKET_PATH:
        raise EnvironmentProblem(
            f"socket path {folder / _LONGEST_SOCKET} is {length} bytes long, the system allows "
            f"{LONGEST_SOCKET_PATH}: set ORCHESTRATOR_RUNTIME_DIR to a shorter folder or shorten "
            "the cluster's name",
            path=str(folder),
            length=length,
        )
    return folder


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What ``cluster.json`` says of a running (or crashed) cluster.

    Parameters
    ----------
    name : str
        The cluster's name, also its folder's.
    run_dir : str
        Absolute path of the run folder it writes to.
    run_id : str
        Identity of that run.
    version : str
        Package version of the supervisor.
    protocol : int
        :data:`PROTOCOL` of the supervisor.
    port : int
        Loopback TCP port of hooks, MCP and gateway; 0 before the keeper has bound one.
    keeper_pid, supervisor_pid, tmux_pid, owner_pid : int or None
        Who takes part. The owner is the process that a cluster with ``lifetime: owner`` ends with.
    keeper_start, supervisor_start, tmux_start, owner_start : float or None
        Their :func:`process_start_time`, filled in by :func:`update_record`: a pid alone may be
        someone else's by now.
    lifetime : str
        ``detached`` or ``owner``.
    session_name : str
        The tmux session.
    started_at : str
        ISO 8601 instant, UTC.

    Examples
    --------
    >>> record = ClusterRecord(name="duo", run_dir="/tmp/runs/x", run_id="run_1")
    >>> ClusterRecord.from_json(record.to_json()) == record
    True
    """

    name: str
    run_dir: str
    run_id: str
    version: str = ""
    protocol: int = PROTOCOL
    port: int = 0
    keeper_pid: int | None = None
    keeper_start: float | None = None
    supervisor_pid: int | None = None
    supervisor_start: float | None = None
    tmux_pid: int | None = None
    tmux_start: float | None = None
    owner_pid: int | None = None
    owner_start: float | None = None
    lifetime: str = "detached"
    session_name: str = ""
    started_at: str = ""

    def to_json(self) -> str:
        """Return the record as one JSON object on lines of its own."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ClusterRecord:
        """Return the record that :meth:`to_json` wrote; keys of later versions are passed over.

        Raises
        ------
        ValueError
            The text is not a record.
        """
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("a cluster record must be a JSON object")  # noqa: TRY004 - one kind of failure
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{key: value for key, value in data.items() if key in known})
        except TypeError as error:
            raise ValueError(f"a cluster record lacks a key: {error}") from error

    def alive(self, who: str) -> bool:
        """Tell whether one of the processes that this record names lives.

        Parameters
        ----------
        who : str
            ``"keeper"``, ``"supervisor"``, ``"tmux"`` or ``"owner"``.

        Returns
        -------
        bool
            False also when the record names no such process.
        """
        pid = getattr(self, f"{who}_pid")
        return pid is not None and process_alive(pid, getattr(self, f"{who}_start"))


def read_record(directory: Path) -> ClusterRecord | None:
    """Return the record of a cluster's runtime folder.

    Parameters
    ----------
    directory : pathlib.Path
        The runtime folder.

    Returns
    -------
    ClusterRecord or None
        None when there is no readable record (a damaged one is logged).
    """
    path = Path(directory) / "cluster.json"
    try:
        return ClusterRecord.from_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read as a cluster record: %s", path, error)
        return None


def write_record(directory: Path, record: ClusterRecord) -> ClusterRecord:
    """Write a record whole, as the client does before it starts the keeper.

    Parameters
    ----------
    directory : pathlib.Path
        The runtime folder; it must exist.
    record : ClusterRecord
        What to write; missing start times are looked up.

    Returns
    -------
    ClusterRecord
        The record as written.
    """
    with _record_lock(directory):
        return _store(directory, record)


def update_record(directory: Path, **changes: Any) -> ClusterRecord:  # noqa: ANN401 - any field's value
    """Change some fields of a cluster's record atomically.

    Parameters
    ----------
    directory : pathlib.Path
        The runtime folder.
    **changes
        Fields of :class:`ClusterRecord`. A pid without its start time gets it looked up here.

    Returns
    -------
    ClusterRecord
        The record as written.

    Raises
    ------
    ClusterNotFound
        The folder holds no record.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = write_record(folder, ClusterRecord(name="duo", run_dir="/tmp/x", run_id="run_1"))
    >>> update_record(folder, port=4711).port
    4711
    """
    with _record_lock(directory):
        record = read_record(directory)
        if record is None:
            raise ClusterNotFound(
                f"{Path(directory) / 'cluster.json'} is missing or unreadable: no cluster was started here",
                path=str(directory),
            )
        for who in ("keeper", "supervisor", "tmux", "owner"):
            if f"{who}_pid" in changes and f"{who}_start" not in changes:
                changes[f"{who}_start"] = None
        return _store(directory, replace(record, **changes))


def _store(directory: Path, record: ClusterRecord) -> ClusterRecord:
    found: dict[str, Any] = {}
    for who in ("keeper", "supervisor", "tmux", "owner"):
        pid = getattr(record, f"{who}_pid")
        if pid is not None and getattr(record, f"{who}_start") is None:
            found[f"{who}_start"] = process_start_time(pid)
    record = replace(record, **found) if found else record
    write_private(Path(directory) / "cluster.json", record.to_json())
    return record


@contextlib.contextmanager
def _record_lock(directory: Path) -> Iterator[None]:
    """Serialise writers of the record. Not ``R/lock``: that one says whether the cluster lives."""
    path = Path(directory) / "cluster.json.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def list_clusters() -> list[ClusterRecord]:
    """Return the record of every cluster that has a runtime folder, the dead ones too.

    Returns
    -------
    list of ClusterRecord
        By name. :func:`is_locked` of ``cluster_dir(record.name)`` tells which of them live.
    """
    return [
        record
        for entry in sorted(runtime_dir().iterdir())
        if not entry.name.startswith(".") and entry.is_dir() and (record := read_record(entry)) is not None
    ]


def acquire_lock(directory: Path) -> int | None:
    """Take the lock that says "this cluster lives".

    The lock belongs to the open file, not to the process (``flock``), so it is held until the last
    process that inherited the descriptor has closed it: the keeper hands it to the supervisor and
    the supervisor to the next keeper.

    Parameters
    ----------
    directory : pathlib.Path
        The runtime folder.

    Returns
    -------
    int or None
        An inheritable descriptor, or None when another process holds the lock.
    """
    path = Path(directory) / "lock"
    # A reader that only looks (is_locked) holds the lock for microseconds: a few tries tell it
    # from an owner.
    for attempt in range(8):
        if attempt:
            time.sleep(0.005)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = path.stat()
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            continue
        mine = os.fstat(descriptor)
        if (mine.st_dev, mine.st_ino) == (current.st_dev, current.st_ino):
            os.set_inheritable(descriptor, True)
            return descriptor
        # The folder was removed and made again between open and lock: this lock guards nothing.
        os.close(descriptor)
    return None


def is_locked(directory: Path) -> bool:
    """Tell whether a keeper or supervisor of this runtime folder lives.

    Parameters
    ----------
    directory : pathlib.Path
        The runtime folder.

    Returns
    -------
    bool
        False also when the folder does not exist.
    """
    try:
        descriptor = os.open(Path(directory) / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def new_token() -> str:
    """Return an unguessable secret: 256 random bits as 64 hexadecimal digits.

    Examples
    --------
    >>> len(new_token())
    64
    """
    return os.urandom(32).hex()


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that only its user may read, whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Where; an existing file is replaced in one step.
    content : str or bytes
        What; text is written as UTF-8.

    Raises
    ------
    EnvironmentProblem
        The file cannot be written; a half-written one is not left behind.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "token"
    >>> write_private(path, "secret")
    >>> oct(path.stat().st_mode & 0o777)
    '0o600'
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    # The name is not guessable and must not exist, so nobody can prepare a link for us to follow.
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        cure = (
            "free some space"
            if error.errno in {errno.ENOSPC, errno.EDQUOT}
            else "check that the folder exists and is yours"
        )
        raise EnvironmentProblem(
            f"cannot write {path}: {error.strerror}; {cure}", path=str(path), errno=error.errno
        ) from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: those of files that were made or replaced there.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.

    Raises
    ------
    OSError
        The disk refuses.

    Examples
    --------
    >>> import tempfile
    >>> sync_folder(Path(tempfile.mkdtemp()))
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_dir(path: Path) -> Path:
    """Return a folder that only its user may enter, made if it is missing.

    Parameters
    ----------
    path : pathlib.Path
        The folder; missing parents are made too.

    Returns
    -------
    pathlib.Path
        The same path.

    Raises
    ------
    EnvironmentProblem
        It cannot be made, is no folder, belongs to someone else, or is open to others.

    Examples
    --------
    >>> import tempfile
    >>> folder = private_dir(Path(tempfile.mkdtemp()) / "a" / "b")
    >>> oct(folder.stat().st_mode & 0o777)
    '0o700'
    """
    path = Path(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot make the folder {path}: {error.strerror}; choose one that you may write to",
            path=str(path),
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise EnvironmentProblem(f"{path} is not a folder: remove it or choose another", path=str(path))
    if found.st_uid != os.getuid():
        raise EnvironmentProblem(
            f"{path} belongs to uid {found.st_uid}, not to you (uid {os.getuid()}): choose another folder",
            path=str(path),
        )
    if found.st_mode & 0o077:
        raise EnvironmentProblem(
            f"{path} is open to other users (mode {found.st_mode & 0o777:04o}): run chmod 700 {path}",
            path=str(path),
        )
    return path


def process_start_time(pid: int) -> float | None:
    """Return when a process started, as its identity beside the pid.

    On Linux these are seconds since boot, which no clock adjustment can change; elsewhere psutil's
    ``create_time``.

    Parameters
    ----------
    pid : int
        Any process.

    Returns
    -------
    float or None
        Seconds; None when there is no such process, or only its zombie.

    Examples
    --------
    >>> process_start_time(os.getpid()) is not None
    True
    """
    if pid <= 0:
        return None
    if sys.platform == "linux":
        try:
            content = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        # The second field is the program's name in brackets and may itself hold spaces and
        # brackets.
        values = content[content.rfind(b")") + 2 :].split()
        if values[0] in {b"Z", b"X"}:
            return None
        return int(values[19]) / os.sysconf("SC_CLK_TCK")
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def process_alive(pid: int, create_time: float | None = None) -> bool:
    """Tell whether this very process still runs.

    Parameters
    ----------
    pid : int
        Its number.
    create_time : float, optional
        Its :func:`process_start_time`, or psutil's ``create_time`` (either is understood). Without
        it any process of that number counts.

    Returns
    -------
    bool
        False for a zombie and for another process that got the same number.

    Examples
    --------
    >>> process_alive(os.getpid(), process_start_time(os.getpid()))
    True
    """
    start = process_start_time(pid)
    if start is None:
        return False
    if create_time is None:
        return True
    if create_time > _EPOCH_FLOOR and start < _EPOCH_FLOOR:
        # The caller holds seconds since 1970: compare on the wall clock, as psutil does.
        start += time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return abs(start - create_time) < _SAME_START_S


def keeper_argv(directory: Path) -> list[str]:
    """Return the command that starts a keeper; whoever adopts one appends the options for that.

    Parameters
    ----------
    directory : pathlib.Path
        The cluster's runtime folder.

    Returns
    -------
    list of str
        For ``subprocess.Popen(..., start_new_session=True)`` with stdio to ``logs/keeper.log``.

    Examples
    --------
    >>> keeper_argv(Path("/tmp/olab-1000/duo"))[1:]
    ['-P', '-m', 'orchestrator_lab.keeper', '/tmp/olab-1000/duo']
    """
    # -P: a file json.py in the user's current folder must not be imported instead of Python's.
    return [sys.executable, "-P", "-m", "orchestrator_lab.keeper", str(directory)]


def handoff_argv(directory: Path, agent: str) -> list[str]:
    """Return the command for tmux's ``pipe-pane`` that gives a pane's output to the keeper.

    Parameters
    ----------
    directory : pathlib.Path
        The cluster's runtime folder.
    agent : str
        The agent in the pane.

    Returns
    -------
    list of str
        It ends after some 15 ms; from then on tmux writes to the keeper directly.

    Examples
    --------
    >>> handoff_argv(Path("/tmp/olab-1000/duo"), "boss")[-2:]
    ['/tmp/olab-1000/duo/keeper.sock', 'boss']
    """
    helper = Path(__file__).parent / "keeper" / "handoff.py"
    return [sys.executable, "-I", "-S", str(helper), str(Path(directory) / "keeper.sock"), agent]
