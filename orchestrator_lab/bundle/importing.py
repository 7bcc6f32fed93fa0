"""From a bundle back to a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.bundle.opening import open_bundle
from orchestrator_lab.bundle.staging import sync_tree, workshop
from orchestrator_lab.errors import BundleError, disk_error, disk_errors_as_they_are
from orchestrator_lab.runtime import sync_folder

if TYPE_CHECKING:
    import os

    from orchestrator_lab.bundle.opening import OpenedBundle

__all__ = ["import_bundle", "unpack_run"]


def import_bundle(path: str | os.PathLike[str], runs_dir: str | os.PathLike[str]) -> Path:
    """Unpack the run of a bundle into a folder of runs, every file checked against its checksum.

    Parameters
    ----------
    path : path-like
        The bundle.
    runs_dir : path-like
        The folder of runs; made when it is not there.

    Returns
    -------
    pathlib.Path
        The run's folder, mode 0700; its name is the run's id.

    Raises
    ------
    BundleError
        When the bundle is refused or damaged, or the run is there already. Nothing of it is left then.
    EnvironmentProblem, DiskFull
        When it cannot be written.
    """
    bundle = open_bundle(path)
    folder = Path(runs_dir).expanduser()
    target = folder / bundle.run_id
    if target.exists() or target.is_symlink():
        raise BundleError(
            f"{bundle.path}: run {bundle.run_id} is in {folder} already; give another folder, or move that run away",
            path=str(bundle.path),
            run_id=bundle.run_id,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with disk_errors_as_they_are(), workshop(folder, ".importing-") as partial:
            unpack_run(bundle, partial)
            partial.rename(target)
        sync_folder(folder)
    except OSError as error:
        raise disk_error(
            f"{folder}: run {bundle.run_id} cannot be unpacked there ({error.strerror}); check its owner and the room",
            error,
            path=folder,
        ) from error
    return target


def unpack_run(bundle: OpenedBundle, folder: Path) -> None:
    """Unpack all files of a run, each checked and brought to the disk.

    Parameters
    ----------
    bundle : OpenedBundle
        Where they are.
    folder : pathlib.Path
        Where they go: an empty folder.

    Raises
    ------
    BundleError
        When one is damaged.
    EnvironmentProblem, DiskFull
        When one cannot be written.
    """
    with bundle.archive.reading():
        for name in bundle.names():
            bundle.unpack(name, folder / name)
    sync_tree(folder)
