"""Folds: from events to the columns of each table, incrementally, without pandas.

A fold takes events in order, as many at a time as there are, and keeps plain lists, one a column.
What it says after all events does not depend on how they were cut into batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.folds.agents import AgentFold, StateFold
from orchestrator_lab.folds.alerts import AlertFold
from orchestrator_lab.folds.base import Fold
from orchestrator_lab.folds.bulk import event_bulks, load_bulk
from orchestrator_lab.folds.growing import GrowingTable
from orchestrator_lab.folds.messages import MessageFold
from orchestrator_lab.folds.processes import ProcessFold
from orchestrator_lab.folds.runs import EventFold, RunFold
from orchestrator_lab.folds.turns import DialogFold, ToolCallFold, TurnFold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator_lab.journal.event import Event

__all__ = [
    "AgentFold",
    "AlertFold",
    "DialogFold",
    "EventFold",
    "Fold",
    "GrowingTable",
    "MessageFold",
    "ProcessFold",
    "RunFold",
    "StateFold",
    "ToolCallFold",
    "TurnFold",
    "event_bulks",
    "fold",
    "fold_messages",
    "fold_turns",
    "load_bulk",
    "make_folds",
]


def make_folds() -> dict[str, Fold]:
    """Return a new fold for each table that is worth keeping up to date.

    Returns
    -------
    dict of str to Fold
        By table name, without ``events`` (a copy of the journal in memory) and ``runs``.
    """
    kinds = (AgentFold, MessageFold, TurnFold, ToolCallFold, DialogFold, StateFold, AlertFold, ProcessFold)
    return {kind.table: kind() for kind in kinds}


def fold(table: str, events: Iterable[Event]) -> Fold:
    """Fold events into one table.

    Parameters
    ----------
    table : str
        ``agents``, ``messages``, ``turns``, ``tool_calls``, ``dialogs``, ``states``, ``alerts``, ``processes``
        or ``events``.
    events : iterable of Event
        From the first of the run on.

    Returns
    -------
    Fold
        Takes the events that follow by :meth:`Fold.update`.

    Raises
    ------
    ConfigError
        When no events make this table.
    """
    kinds = {**make_folds(), "events": EventFold()}
    if table not in kinds:
        raise ConfigError(f"events make no table {table!r}; they make: {', '.join(kinds)}")
    return kinds[table].update(events)


def fold_messages(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Fold events into rows of the messages table.

    Parameters
    ----------
    events : iterable of Event
        From the first of the run on, or at least all that concern the messages wanted.

    Returns
    -------
    list of dict
        One a message, in the order of their events; instants are ISO 8601 texts.
    """
    return fold("messages", events).rows()


def fold_turns(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Fold events into rows of the turns table.

    Parameters
    ----------
    events : iterable of Event
        From the first of the run on, or at least all that concern the turns wanted.

    Returns
    -------
    list of dict
        One a turn, in the order of their events; instants are ISO 8601 texts.
    """
    return fold("turns", events).rows()
