"""Whether a recorded run can be played on the terminal."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from orchestrator_lab.journal.reader import JournalReader
from orchestrator_lab.mirrors import present

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["unplayable"]

_NAME = re.compile(rb'\{"seq":\d+,"event":"([a-z_.]+)"')
#: What cannot be done again, since nobody knows what happened meanwhile, or in which order.
_BROKEN = {
    "tmux.lost": "its tmux server ended in the middle",
    "run.resumed": "it was resumed after all its processes had ended",
    "keeper.gap": "its keeper ended in the middle, and part of what the panes showed is lost",
    "journal.repaired": "its journal was torn in the middle",
}


def unplayable(folder: Path) -> str | None:
    """Return why a run cannot be played on the terminal, None when it can.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.

    Returns
    -------
    str or None
        Part of a sentence: ``its tmux server ended in the middle``.
    """
    journal = present(folder / "journal.jsonl")
    if not journal.is_file():
        return "it holds no journal"
    counted: Counter[str] = Counter()
    for _, line in JournalReader(journal).lines():
        name = _NAME.match(line)
        if name is not None:
            counted[name[1].decode()] += 1
            if name[1] == b"agent.stopping" and b'"reason":"hung"' in line:
                return "an agent was restarted since it made no progress"
    if not counted["agent.started"]:
        return "no agent was started in it"
    for event, why in _BROKEN.items():
        if counted[event]:
            return why
    if counted["supervisor.started"] > 1:
        return "its supervisor was started again in the middle"
    return None
