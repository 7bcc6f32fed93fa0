"""Which backups stay: by number and age, the rules of runs; never is the newest of a cluster removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator_lab.backup.listing import find_backups
from orchestrator_lab.folders import size_of
from orchestrator_lab.retention import Kept, expired, remove

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.backup.listing import Backup

__all__ = ["keep_newest"]


def keep_newest(newest: Backup, *, keep: int | None, days: float | None) -> tuple[Path, ...]:
    """Remove the backups of a cluster beyond a number or an age.

    Parameters
    ----------
    newest : Backup
        The one that stays whatever its age. Those in its folder that are of the same cluster are looked at; one whose
        ``backup.json`` cannot be read is never removed.
    keep : int, optional
        So many of the newest stay, this one counted.
    days : float, optional
        Those of so many days stay.

    Returns
    -------
    tuple of pathlib.Path
        Those that went, the oldest first.

    Raises
    ------
    EnvironmentProblem
        When one cannot be removed.
    """
    if keep is days is None:
        return ()
    known = [one for one in find_backups(newest.path.parent)[0] if one.source == newest.source]
    kept = [Kept(one.path, one.created_at, size_of(one.path), "completed", annotated=False) for one in known]
    going = [one for one in expired(kept, keep=keep, days=days) if one.path != newest.path]
    remove(going)
    return tuple(one.path for one in going)
