"""Runs that ended without an end: found, checked, and turned back into a configuration that can be started."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle import is_bundle
from orchestrator_lab.errors import (
    ClusterExists,
    ConfigError,
    JournalError,
    RunNotFound,
    VersionMismatch,
)
from orchestrator_lab.journal.event import Event, members
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.runtime import is_locked, list_clusters, runtime_dir
from orchestrator_lab.schema import SCHEMA_VERSION
from orchestrator_lab.tables import JOURNAL, MANIFEST, find_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator_lab.config import ClusterConfig

__all__ = ["Resumable", "default_runs_dir", "find_run", "has_no_end", "is_recorded", "prepare", "resumable_runs"]

#: What stands in a run's record in place of a secret.
_MASK = "***"
#: Bytes at the end of a journal in which its last event is looked for.
_TAIL = 1 << 16
#: Seconds within which a process that was killed lets go of its files.
_RELEASE_S = 2.0


@dataclass(frozen=True, slots=True)
class Resumable:
    """A run that can go on.

    Parameters
    ----------
    run_dir : pathlib.Path
        Its folder.
    config : ClusterConfig
        What to start: the agents that belonged to it last, secrets filled in.
    last_seq : int
        Number of its last event.
    """

    run_dir: Path
    config: ClusterConfig
    last_seq: int


def default_runs_dir() -> Path:
    """Return the folder of runs that the current folder means.

    Returns
    -------
    pathlib.Path
        That of its ``cluster.yaml``, else of ``ORCHESTRATOR_RUNS_DIR``, else ``runs``.
    """
    from orchestrator_lab.config import FILE_NAMES, load_config

    if any(Path(name).is_file() for name in FILE_NAMES):
        with contextlib.suppress(ConfigError):
            return load_config().runs_dir
    return Path(os.environ.get("ORCHESTRATOR_RUNS_DIR") or "runs").expanduser()


def prepare(where: str | os.PathLike[str], environ: Mapping[str, str]) -> Resumable:
    """Find a run that is to go on, check that it may, and read what it started with.

    Parameters
    ----------
    where : path-like
        The run's folder, its id, or ``last``.
    environ : mapping
        Where secrets are taken from that the run's record does not hold.

    Returns
    -------
    Resumable
        Nothing has been changed yet.

    Raises
    ------
    RunNotFound, ClusterExists, VersionMismatch, ConfigError
        When there is no such run, it is running, it was ended in order, or something that it needs is missing.
    """
    run_dir = find_run(where)
    manifest = _object(run_dir / MANIFEST)
    version = manifest.get("schema_version") or 0
    if version > SCHEMA_VERSION:
        raise VersionMismatch(
            f"run {run_dir.name} was recorded by a newer orchestrator-lab (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): resume it with that version or a newer one"
        )
    _refuse_running(run_dir)
    events = read_events(run_dir / JOURNAL)[0] if (run_dir / JOURNAL).is_file() else []
    if not events:
        raise ConfigError(f"run {run_dir.name} holds no event: there is nothing to go on with; start a new one")
    ended = next((event for event in events if event.event == "run.ended"), None)
    if ended is not None:
        raise ConfigError(
            f"run {run_dir.name} was ended in order ({ended.attributes.get('status')}) and does not go on; start a new "
            f"one with what it started with: orchestrator-lab start {run_dir / 'config.yaml'}"
        )
    config = _config(run_dir, events, environ)
    return Resumable(run_dir, config, events[-1].seq)


def resumable_runs(folder: Path) -> list[Path]:
    """Return the runs of a folder that have no end and that nobody is recording, the newest first.

    Parameters
    ----------
    folder : pathlib.Path
        A folder of runs; need not exist.

    Returns
    -------
    list of pathlib.Path
        Run folders.

    Examples
    --------
    >>> resumable_runs(Path("/nonexistent"))
    []
    """
    found = find_runs(folder) if folder.is_dir() else []
    return [run for run in reversed(found) if has_no_end(run) and not is_recorded(run)]


def has_no_end(run_dir: Path) -> bool:
    """Tell whether a run's journal has events and no end, from its last lines alone.

    Parameters
    ----------
    run_dir : pathlib.Path
        The run's folder.

    Returns
    -------
    bool
        False also when there is no journal.
    """
    try:
        with (run_dir / JOURNAL).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return False
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return Event.from_json(line).event != "run.ended"
    return size > _TAIL


def find_run(where: str | os.PathLike[str]) -> Path:
    """Return the folder of a run.

    Parameters
    ----------
    where : path-like
        The run's folder, its id or the beginning of it, or ``last``.

    Returns
    -------
    pathlib.Path
        Absolute.

    Raises
    ------
    RunNotFound
        When there is no such run, or more than one.
    """
    folder = default_runs_dir()
    known = find_runs(folder) if folder.is_dir() else []
    name = os.fspath(where)
    if name == "last":
        if not known:
            raise RunNotFound(f"there is no run in {folder.absolute()}", path=str(folder))
        return known[-1].resolve()
    place = Path(name).expanduser()
    if is_bundle(place):
        raise RunNotFound(
            f"{place} is a bundle, which is not changed: unpack it with `orchestrator-lab runs import`, then resume "
            "the run that it gives",
            path=str(place),
        )
    if place.exists():
        found = find_runs(place)
        if len(found) == 1:
            return found[0].resolve()
        raise RunNotFound(f"{place} holds {len(found)} runs, not one: give the folder of one run", path=str(place))
    by_id = [run for run in known if run.name == name] or [run for run in known if run.name.startswith(name)]
    if len(by_id) == 1:
        return by_id[0].resolve()
    many = f"{len(by_id)} runs in {folder.absolute()} begin with {name!r}: give more of the id"
    none = (
        f"there is no run {name!r}: give a run's folder, an id from {folder.absolute()}, or 'last'; "
        "'orchestrator-lab runs' lists those there are"
    )
    raise RunNotFound(many if by_id else none, path=str(folder))


def _refuse_running(run_dir: Path) -> None:
    for record in list_clusters():
        live = is_locked(runtime_dir() / record.name) or record.alive("tmux")
        if live and Path(record.run_dir).resolve() == run_dir:
            raise ClusterExists(
                f"run {run_dir.name} is running still, as cluster {record.name!r}: attach to it with "
                f"orchestrator-lab attach --cluster {record.name}",
                cluster=record.name,
            )
    deadline = time.monotonic() + _RELEASE_S
    while held := is_recorded(run_dir):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    if held:
        raise ClusterExists(
            f"run {run_dir.name} is being recorded by another process, of a cluster in another runtime folder: end "
            "that one first"
        )


def is_recorded(run_dir: Path) -> bool:
    """Tell whether a supervisor holds the journal of a run, wherever it keeps its sockets.

    Parameters
    ----------
    run_dir : pathlib.Path
        The run's folder.

    Returns
    -------
    bool
        False also when there is no journal.
    """
    try:
        descriptor = os.open(run_dir / JOURNAL, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _config(run_dir: Path, events: Iterable[Event], environ: Mapping[str, str]) -> ClusterConfig:
    """Return what the run was started with, with the agents that belong to it now."""
    import yaml

    from orchestrator_lab.config import load_config

    place = run_dir / "config.yaml"
    try:
        data = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{place} cannot be read ({error}): without it the run cannot go on") from error
    listed = {str(agent["name"]): agent for agent in data["agents"]}
    names = members(events, listed)
    agents = [listed.get(name) or _object(run_dir / "sessions" / f"{name}.json").get("config") for name in names]
    data["agents"] = [_unmasked(agent, data["cluster"], environ) for agent in agents if agent]
    if not data["agents"]:
        raise ConfigError(f"run {run_dir.name} has no agents any more: there is nothing to go on with; start a new one")
    if isinstance(data["cluster"].get("topology"), list):
        known = {*names, "user", "all", "*"}
        data["cluster"]["topology"] = [edge for edge in data["cluster"]["topology"] if _ends(edge) <= known]
    return load_config(data, base_dir=run_dir, overrides=False)


def _ends(edge: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for key in ("from", "to"):
        value = edge.get(key) or []
        found |= {value} if isinstance(value, str) else set(value)
    return found


def _unmasked(agent: dict[str, Any], cluster: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return an agent with its masked values filled in, or say which of them is missing."""
    name = agent.get("name")
    filled = {}
    for key, value in (agent.get("env") or {}).items():
        if _MASK not in str(value):
            filled[key] = value
            continue
        found = environ.get(key) or _dot_env(agent.get("work_dir") or cluster.get("work_dir")).get(key)
        if not found:
            raise ConfigError(
                f"agent {name!r}: the run's record holds no secrets, and its env.{key} is one: set {key} in your "
                "environment, or in the .env of its work folder, and resume again"
            )
        filled[key] = found
    for key in ("args", "command"):
        words = agent.get(key) or []
        if any(_MASK in str(word) for word in ([words] if isinstance(words, str) else words)):
            raise ConfigError(
                f"agent {name!r}: its {key} held a secret, which the run's record does not hold; such a run cannot go "
                "on, start a new one (and give secrets by the environment)"
            )
    return {**agent, "env": filled} if filled else agent


def _dot_env(folder: str | None) -> dict[str, str]:
    """Return the variables of the .env files of the current folder and of a work folder, the latter's first."""
    from dotenv import dotenv_values

    found: dict[str, str] = {}
    for place in (Path(".env"), Path(folder or ".") / ".env"):
        if place.is_file():
            found |= {key: value for key, value in dotenv_values(place).items() if value}
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise JournalError(f"{path} cannot be read: {error}", path=str(path)) from error
    return value if isinstance(value, dict) else {}
