"""What begins a run: its folder, and what is known of it then."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError, disk_error
from orchestrator_lab.runtime import sync_folder
from orchestrator_lab.schema import SCHEMA_VERSION, new_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MODES", "create_run", "package_version"]

#: How a run's models may answer.
MODES = ("live", "record", "replay", "replay_strict")


def create_run(
    runs_dir: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    name: str,
    experiment: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Iterable[str] = (),
    seed: int | None = None,
    mode: str = "live",
    work_dir: str | os.PathLike[str] | None = None,
    tmux_version: str | None = None,
    parent_run_id: str | None = None,
    started_by: Mapping[str, Any] | None = None,
) -> Path:
    """Make the folder of a new run, with its manifest.

    Parameters
    ----------
    runs_dir : path-like
        Folder of runs; made when it is not there.
    config : mapping
        The whole configuration of the cluster, as JSON values; never a secret.
    name : str
        Name of the cluster.
    experiment : str, optional
        Name of the experiment.
    params : mapping, optional
        Parameters of the run, JSON values.
    tags : iterable of str
        Tags of the run.
    seed : int, optional
        Seed of the run.
    mode : str
        ``live``, ``record``, ``replay`` or ``replay_strict``.
    work_dir : path-like, optional
        Where the agents work; ``config["work_dir"]``, or else the current folder.
    tmux_version : str, optional
        Version of tmux; asked of the one on the PATH otherwise.
    parent_run_id : str, optional
        The run that this one replays or continues.
    started_by : mapping, optional
        Who asked for it through another program: ``by`` and ``origin``.

    Returns
    -------
    pathlib.Path
        The new folder, mode 0700; its name is the run's id.

    Raises
    ------
    ConfigError
        When the mode is unknown, or a value is no JSON.
    EnvironmentProblem
        When the folder cannot be made.
    DiskFull
        When there is no room for it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = create_run(folder, config={"agents": []}, name="duo", seed=1)
    ...     json.loads((path / "manifest.json").read_text())["seed"]
    1
    """
    if mode not in MODES:
        raise ConfigError(f"there is no mode {mode!r}; the modes are: {', '.join(MODES)}")
    cwd = _current_folder()
    work = Path(work_dir or config.get("work_dir") or ".").expanduser().resolve()
    run_id = new_id("run_")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "parent_run_id": parent_run_id,
        "name": name,
        "experiment": experiment,
        "mode": mode,
        "params": dict(params or {}),
        "tags": [tags] if isinstance(tags, str) else list(tags),
        "seed": seed,
        "started_at": datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z",
        "versions": {
            "orchestrator_lab": package_version(),
            "python": platform.python_version(),
            "tmux": tmux_version or _output(["tmux", "-V"]),
        },
        "platform": platform.platform(),
        "work_dir": str(work),
        "cwd": None if cwd is None else str(cwd),
        "git": {
            "work_dir": _git_state(work),
            "cwd": None if cwd is None else _git_state(cwd),
        },
        "command": _command(),
        "started_by": None if started_by is None else dict(started_by),
        "config": dict(config),
    }
    try:
        text = json.dumps(manifest, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
        data = text.encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config and params of run {name!r} must be JSON values ({error}); "
            "use text, finite numbers, booleans, lists and dicts"
        ) from error
    # Absolute, so that a process with another current folder means the same run.
    folder = Path(runs_dir).expanduser().resolve() / run_id
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        _write_atomically(folder / "manifest.json", data)
    except OSError as error:
        _discard(folder)
        raise disk_error(
            f"the run folder {folder} cannot be made ({error.strerror}); check runs_dir, its owner and the space left",
            error,
            path=folder,
        ) from error
    return folder


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a private file so that it is there whole or not at all, also after a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def _discard(folder: Path) -> None:
    """Leave nothing of a run that could not be made."""
    try:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    except OSError:
        pass


def package_version() -> str:
    """Return the version of this package."""
    from orchestrator_lab import __version__

    return __version__


def _current_folder() -> Path | None:
    """Return the current folder; None when somebody has deleted it."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and dirtiness of a folder's repository; None where there is none."""
    commit = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if commit is None:
        return None
    # Only tracked files count, and no lock is taken that could disturb somebody's git.
    changes = _output(
        ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain", "-uno"],
        timeout_s=10,
    )
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _command() -> str | None:
    """Return the program that starts the run; of one that is installed, its place below Python's own."""
    if not sys.argv:
        return None
    program = Path(sys.argv[0])
    return str(program.relative_to(sys.prefix)) if program.is_relative_to(sys.prefix) else sys.argv[0]


def _output(argv: list[str], *, timeout_s: float = 5) -> str | None:
    """Return what a command prints, None when it fails or is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
