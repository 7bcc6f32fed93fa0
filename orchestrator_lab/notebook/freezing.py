"""A notebook is frozen: executed in replay, stills in place of widgets, and the runs named that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.errors import NotebookError
from orchestrator_lab.notebook.executing import CELL_TIMEOUT_S, execute, numbered
from orchestrator_lab.notebook.sanitizing import REFERENCE, clean

if TYPE_CHECKING:
    import os

    from nbformat import NotebookNode

    from orchestrator_lab.notebook.sources import Source

__all__ = ["Frozen", "freeze", "write"]


@dataclass(frozen=True, slots=True)
class Frozen:
    """What was frozen.

    Parameters
    ----------
    path : pathlib.Path
        The notebook that was written.
    cells : int
        Code cells in it.
    sources : tuple of Source
        The runs that it was made from.
    """

    path: Path
    cells: int
    sources: tuple[Source, ...]


def freeze(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    mode: str = "replay",
    timeout_s: float = CELL_TIMEOUT_S,
) -> Frozen:
    """Execute a notebook in replay, and write it so that a reader can check it.

    Outputs are sanitized (ids, ports, addresses), widgets become stills, the state of widgets and sessions is left out,
    and the metadata ``orchestrator_lab`` names the runs that were read or replayed, with their SHA-256.

    Parameters
    ----------
    path : path-like
        The notebook.
    output : path-like, optional
        Where it is written, in one step; its own place when omitted.
    mode : {"replay", "replay_strict"}
        How clusters that it starts answer.
    timeout_s : float
        Seconds that a cell may take.

    Returns
    -------
    Frozen
        What was written.

    Raises
    ------
    NotebookError
        When it does not run in replay; nothing is written then.
    EnvironmentProblem
        When it cannot be written.
    """
    from orchestrator_lab import __version__

    source = Path(path).expanduser()
    target = source if output is None else Path(output).expanduser()
    if not (folder := target.resolve().parent).is_dir():
        raise NotebookError(f"{target} cannot be written: there is no folder {folder}; make it first")
    done = execute(source, mode=mode, timeout_s=timeout_s)
    notebook = clean(done.notebook)
    notebook.metadata[REFERENCE] = {"version": __version__, "runs": [one.to_json() for one in done.sources]}
    write(notebook, target)
    return Frozen(target, len(numbered(notebook)), done.sources)


def write(notebook: NotebookNode, target: Path) -> None:
    """Write a notebook in one step, readable by whom it was readable before.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        A valid one.
    target : pathlib.Path
        Where; a link is followed.

    Raises
    ------
    EnvironmentProblem
        When it cannot be written; what was there is whole.
    """
    import nbformat

    from orchestrator_lab.runtime import write_private

    place = target.resolve()
    mode = place.stat().st_mode & 0o777 if place.exists() else 0o644
    nbformat.validate(notebook)
    write_private(place, nbformat.writes(notebook) + "\n")
    place.chmod(mode)
