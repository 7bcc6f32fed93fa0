"""Places in the life of a message where a test may hold the supervisor, to see what its death there does.

:func:`step` does nothing. Only when the environment of the supervisor's own process names a folder in
``ORCHESTRATOR_LAB_TEST_STEPS`` (a developer's hand; no configuration, client or agent can set it) it is another
function: when the file ``armed`` there names the step, ``armed`` is taken away, ``reached`` is written, and the process
stops itself with all its threads, until it is continued or killed.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["STEPS", "VARIABLE", "step"]

VARIABLE = "ORCHESTRATOR_LAB_TEST_STEPS"

#: All steps, in the order in which a message comes by.
STEPS = (
    "queued",  # the message is journalled, and in no mailbox yet
    "acknowledging",  # it is on the disk, and its client has not been told
    "claiming",  # the recipient is free, and nothing is journalled of the delivery
    "claimed",  # the claim is journalled
    "typing",  # the claim is on the disk, no byte has been typed
    "part_typed",  # between the parts of a paste
    "typed",  # all is pasted, for a program that reads in order with its Enter, and not journalled as written
    "written",  # that is journalled
    "entering",  # before an Enter of its own
    "entered",  # Enter was pressed, and not journalled as submitted
    "submitted",  # that is journalled
    "told",  # a report of the program has come, and nothing was made of it
    "accepted",  # the acceptance is journalled, its turn is not
    "turn_started",  # that is journalled
    "first_output",  # the first output is journalled, that the message is answered now is not
    "turn_ended",  # the end of the turn is journalled, what it means for its messages is not
    "answered",  # the answer is journalled, what follows from it is not
    "followed",  # what follows is queued
    "noted",  # a report was dealt with, and the program has not been told so
)


def _nothing(name: str) -> None:
    """Do nothing: the step of every supervisor but those of these tests."""


def _holding(folder: Path) -> Callable[[str], None]:
    armed = folder / "armed"

    def hold(name: str) -> None:
        try:
            wanted, left = armed.read_text().split()
        except FileNotFoundError:
            return
        if wanted != name:
            return
        if int(left) > 1:
            armed.write_text(f"{wanted} {int(left) - 1}")
            return
        armed.unlink()
        (folder / "reached").write_text(str(os.getpid()))
        # To this very thread: a signal to the process may be dealt with by another one, while this one goes on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    return hold


step: Callable[[str], None] = _holding(Path(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else _nothing
