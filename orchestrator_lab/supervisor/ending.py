"""What is left to do for a run that has ended: its tables, for which the supervisor itself has no pandas."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator_lab.journal.writer import JournalWriter

__all__ = ["seal_when_long"]

logger = logging.getLogger(__name__)

#: Bytes of journal from which on a run is sealed: a shorter one loads at once as it is.
LONG = 4 << 20


def seal_when_long(journal: JournalWriter) -> subprocess.Popen[bytes] | None:
    """Seal a run in a process of its own, which outlives this one; what it says is in the run's ``logs/seal.log``.

    Parameters
    ----------
    journal : JournalWriter
        Of the run, closed.

    Returns
    -------
    subprocess.Popen or None
        None for a short run, and when it cannot be started: the journal is all that counts.
    """
    if journal.size < LONG:
        return None
    folder = journal.path.parent
    command = [sys.executable, "-m", "orchestrator_lab", "runs", "seal", str(folder)]
    try:
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
        log = os.open(folder / "logs" / "seal.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )
        finally:
            os.close(log)
    except OSError as error:
        logger.warning("%s is not sealed (%s); orchestrator-lab runs seal does it", folder, error)
        return None
