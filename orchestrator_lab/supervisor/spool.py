"""Reports that a program's command hooks left as files.

A command hook must be quick, and nothing may be lost while nobody reads: it writes its payload under a name of its own,
moves it to ``<nanoseconds>-<pid>.json`` when it is whole, and wakes the supervisor by a byte in a pipe. Whoever reads
takes the reports in their order, and removes each one after it is dealt with; one that a dying supervisor dealt with
but did not remove is told again, which its reader must bear.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from orchestrator_lab.supervisor.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["take_reports"]

logger = logging.getLogger(__name__)


def take_reports(folder: Path, deal: Callable[[dict[str, Any]], object]) -> int:
    """Hand over the reports that wait in a folder, oldest first, and remove them.

    Parameters
    ----------
    folder : Path
        Where the hooks leave them; may not exist.
    deal : callable
        Takes one report. One that it fails on is logged and removed like the others.

    Returns
    -------
    int
        How many there were.

    Examples
    --------
    >>> from pathlib import Path
    >>> take_reports(Path("/no/such/folder"), print)
    0
    """
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith(".")]
    except FileNotFoundError:
        return 0
    count = 0
    for path in sorted(found, key=_order):
        try:
            report = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (ValueError, RecursionError):
            logger.warning("%s is no report of a hook; it is left out", path)
            report = None
        if isinstance(report, dict):
            step("told")
            try:
                deal(report)
            except Exception:
                logger.exception("the report %s failed", path)
            step("noted")
        path.unlink(missing_ok=True)
        count += 1
    return count


def _order(path: Path) -> tuple[int, str]:
    stamp = path.name.split("-", 1)[0]
    if len(stamp) == 19 and stamp.isdigit():
        return int(stamp), path.name
    try:  # the hook's `date` knows no nanoseconds
        return path.stat().st_mtime_ns, path.name
    except FileNotFoundError:
        return 0, path.name
