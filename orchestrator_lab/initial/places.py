"""Where the work folders of a replay are: new ones, made as they were when the recording began."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError, disk_error
from orchestrator_lab.initial.restoring import fill, is_blank, not_made
from orchestrator_lab.initial.state import INITIAL, read_state

if TYPE_CHECKING:
    from orchestrator_lab.initial.state import InitialState

__all__ = ["give_state", "place_folders", "restore_state"]


def place_folders(data: dict[str, Any], run_dir: Path, wanted: Path) -> None:
    """Send the agents of a recorded configuration to new work folders.

    Parameters
    ----------
    data : dict
        The configuration, in the form of a file; it is changed.
    run_dir : pathlib.Path
        The run that was recorded with it. Where it has kept no work folder, nothing changes.
    wanted : pathlib.Path
        The new folder; with a number behind it where it holds something already. Where the agents had several, they
        are in it.

    Raises
    ------
    ConfigError
        When what the run knows of its work folders is damaged.
    """
    state = read_state(run_dir)
    if state is None or not any(one.why is None for one in state.folders):
        return
    places = _places(state, _free(wanted))
    for agent in data["agents"]:
        kept = state.of(str(agent["name"]))
        if kept is None:
            continue
        folder = places[kept.number] / kept.agents[str(agent["name"])]
        part = agent if agent.get("work_dir") else data["cluster"]
        part.update(work_dir=str(folder), create_work_dir=True)


def _free(wanted: Path) -> Path:
    """Return a place at which there is nothing."""
    place, number = wanted, 1
    while os.path.lexists(place) and not (place.is_dir() and not place.is_symlink() and is_blank(place)):
        number += 1
        place = wanted.with_name(f"{wanted.name}-{number}")
    return place


def _places(state: InitialState, base: Path) -> dict[int, Path]:
    """Return the new place of each folder: the base itself, or a folder in it of the name that it had."""
    kept = [one for one in state.folders if one.why is None]
    if len(kept) == 1:
        return {kept[0].number: base}
    places: dict[int, Path] = {}
    for one in kept:
        name = Path(one.path).name
        taken = name in {"", ".", ".."} or "\0" in name or base / name in places.values()
        places[one.number] = base / (str(one.number) if taken else name)
    return places


def restore_state(state: InitialState, to: str | os.PathLike[str]) -> Path:
    """Make the work folders of a run as they were; see :meth:`InitialState.restore`."""
    target = Path(to).expanduser()
    there = os.path.lexists(target)
    try:
        if there and not (target.is_dir() and is_blank(target)):
            raise ConfigError(f"{target} holds something already: name a new folder, or an empty one", path=str(target))
        target.mkdir(parents=True, exist_ok=True)
        _make(state, target)
    except OSError as error:
        raise not_made(target, error) from error
    return target


def _make(state: InitialState, target: Path) -> None:
    try:
        for number, place in _places(state, target).items():
            place.mkdir(exist_ok=True)
            fill(place, next(one for one in state.folders if one.number == number))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def give_state(source: Path, run_dir: Path) -> None:
    """Copy what a run has kept of its work folders into the run that replays it.

    Parameters
    ----------
    source, run_dir : pathlib.Path
        The two runs' folders.

    Raises
    ------
    EnvironmentProblem, DiskFull
        When it cannot be copied.
    """
    if not (source / INITIAL).is_dir():
        return
    try:
        # Links stay links, which nobody follows.
        shutil.copytree(source / INITIAL, run_dir / INITIAL, symlinks=True, copy_function=_copy)
    except (OSError, shutil.Error) as error:
        raise disk_error(
            f"{source / INITIAL}: the recorded work folder cannot be copied into the new run ({error}); check its "
            "owner and the space left",
            error,
            path=source / INITIAL,
        ) from error


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    Path(target).chmod(0o600)
