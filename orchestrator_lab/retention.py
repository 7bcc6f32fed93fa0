"""Which recorded runs are kept: by number, age and size. Nothing is ever removed by itself."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator_lab.annotations import ANNOTATIONS
from orchestrator_lab.errors import EnvironmentProblem, OrchestratorLabError
from orchestrator_lab.folders import size_of
from orchestrator_lab.frames import runs_df
from orchestrator_lab.tables import find_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["REMOVED", "Kept", "expired", "look_at", "remove"]

logger = logging.getLogger(__name__)

#: How the name of something begins that is being removed.
REMOVED = ".removed-"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a decision about a run needs to know.

    Parameters
    ----------
    path : pathlib.Path
        The run's folder.
    began : datetime.datetime or None
        When it began, UTC.
    size : int
        Bytes of all its files.
    status : str or None
        ``running`` while it is recorded, None when it has no end.
    annotated : bool
        Whether an analyst has said something of its messages.
    """

    path: Path
    began: datetime | None
    size: int
    status: str | None
    annotated: bool

    @property
    def removable(self) -> bool:
        """Whether it is over, and nobody's work beside the journal would go with it."""
        return self.status not in {None, "running"} and not self.annotated


def look_at(folder: Path) -> list[Kept]:
    """Return the runs of a folder, the oldest first.

    Parameters
    ----------
    folder : pathlib.Path
        A folder of runs.

    Returns
    -------
    list of Kept
        Damaged runs have no status.

    Raises
    ------
    RunNotFound
        When there is no such folder.
    """
    found = [_facts(path) for path in find_runs(folder)]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda run: (run.began or oldest, run.path.name))


def expired(
    runs: Sequence[Kept],
    *,
    keep: int | None = None,
    days: float | None = None,
    size: int | None = None,
    now: datetime | None = None,
) -> list[Kept]:
    """Choose the runs that may go.

    Parameters
    ----------
    runs : sequence of Kept
        The oldest first.
    keep : int, optional
        So many of the newest stay.
    days : float, optional
        Those that began within so many days stay.
    size : int, optional
        The oldest go until the rest has at most so many bytes.
    now : datetime.datetime, optional
        The instant from which days count; the present one when omitted.

    Returns
    -------
    list of Kept
        Those beyond any of the limits, the oldest first; never one that is recorded, has no end, or is annotated.

    Examples
    --------
    >>> from pathlib import Path
    >>> runs = [Kept(Path(name), None, 10, "completed", False) for name in "abc"]
    >>> [run.path.name for run in expired(runs, keep=1)], [run.path.name for run in expired(runs, size=25)]
    (['a', 'b'], ['a'])
    """
    chosen: dict[Path, Kept] = {}
    if keep is not None:
        chosen.update((run.path, run) for run in runs[: max(0, len(runs) - keep)])
    if days is not None:
        before = (now or datetime.now(UTC)) - timedelta(days=days)
        chosen.update((run.path, run) for run in runs if run.began is not None and run.began < before)
    chosen = {path: run for path, run in chosen.items() if run.removable}
    if size is not None:
        left = sum(run.size for run in runs if run.path not in chosen)
        for run in runs:
            if left <= size:
                break
            if run.removable and run.path not in chosen:
                chosen[run.path] = run
                left -= run.size
    return [run for run in runs if run.path in chosen]


def remove(runs: Iterable[Kept]) -> int:
    """Remove runs for good.

    Parameters
    ----------
    runs : iterable of Kept
        What :func:`expired` chose.

    Returns
    -------
    int
        Bytes that were freed.

    Raises
    ------
    EnvironmentProblem
        When one cannot be removed; those before it are gone.
    """
    freed = 0
    for run in runs:
        # Under another name first: what is half removed is no run that a later look would take for one.
        gone = run.path.with_name(f"{REMOVED}{run.path.name}")
        try:
            run.path.rename(gone)
            shutil.rmtree(gone)
        except OSError as error:
            raise EnvironmentProblem(
                f"{run.path} cannot be removed ({error.strerror}); check its owner", path=str(run.path)
            ) from error
        freed += run.size
    return freed


def _facts(path: Path) -> Kept:
    began: datetime | None = None
    status: str | None = None
    try:
        row = runs_df(path, columns=["started_at", "status"])
        if len(row) and row["started_at"].notna()[0]:
            began = row["started_at"][0].to_pydatetime()
        if len(row) and row["status"].notna()[0]:
            status = str(row["status"][0])
    except OrchestratorLabError as error:
        logger.warning("%s is kept: %s", path, error.message)
    return Kept(path, began, size_of(path), status, (path / ANNOTATIONS).exists())
