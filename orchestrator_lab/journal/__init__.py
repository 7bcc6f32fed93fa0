"""The append-only record of one run, and the recordings of its panes.

The names below are imported when first used: the keeper, which needs only the recordings, starts
without asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.journal.reader import JournalReader, read_events
    from orchestrator_lab.journal.writer import JournalWriter, SecretMask

__all__ = ["Event", "JournalReader", "JournalWriter", "SecretMask", "read_events"]

_HOMES = {
    "Event": "event",
    "JournalReader": "reader",
    "JournalWriter": "writer",
    "SecretMask": "writer",
    "read_events": "reader",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
