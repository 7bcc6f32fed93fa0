"""What a pane showed at an instant of a run."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.journal.event import Event
from orchestrator_lab.journal.origins import Recordings
from orchestrator_lab.reading.entries import chosen_agents, events_with
from orchestrator_lab.reading.happened import SETTLE_S
from orchestrator_lab.reading.screens import recording_of, screens_at
from orchestrator_lab.reading.texts import instant

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.stills import Screen
    from orchestrator_lab.tables import RunTables

__all__ = ["on_clock", "screen_at"]

#: Of several events with an id, the one whose screen is meant.
_MEANT = ("turn.ended", "message.answered", "message.accepted", "tool.ended", "dialog.opened")


def screen_at(tables: RunTables, agent: str, at: object = None) -> Screen:
    """Return what an agent's pane showed, from its recording, without tmux.

    Parameters
    ----------
    tables : RunTables
        Of the run.
    agent : str
        Whose pane.
    at : float, datetime, str or None
        Seconds on the run's clock, an instant (a text in ISO 8601 is one), or the id of a message, turn, tool call or
        dialog; the last instant that was recorded when omitted.

    Returns
    -------
    Screen
        With its colours.

    Raises
    ------
    AgentNotFound
        When nobody of this name is in the run.
    ConfigError
        When the pane was not recorded (then), or there is no such id.
    """
    chosen_agents(tables, agent)
    path = None if tables.path is None else recording_of(tables.path, agent)
    if path is None:
        raise ConfigError(f"run {tables.run_id} holds no recording of {agent}'s pane: there is no screen of it")
    offset = math.inf if at is None else _offset(tables, agent, at)
    return screens_at(path, agent, [offset])[0]


def on_clock(tables: RunTables, at: object, of_id: Callable[[str], float | None]) -> float:
    """Return an instant as seconds on the run's clock, however it is said.

    Parameters
    ----------
    tables : RunTables
        Of the run.
    at : float, datetime or str
        See :func:`screen_at`.
    of_id : callable
        Returns the seconds of an id; None when there is no such id.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    ConfigError
        When it is none of these.
    """
    if isinstance(at, bool) or (isinstance(at, float) and math.isnan(at)):
        raise ConfigError(f"at={at!r}: expected seconds, an instant, or an id of the run")
    if isinstance(at, int | float):
        return float(at)
    moment = instant(at)
    if moment is not None:
        return _at_instant(tables, moment)
    found = of_id(str(at))
    if found is None:
        raise ConfigError(
            f"at={at!r}: run {tables.run_id} has no message, turn, tool call or dialog with this id; give one, "
            "seconds since its start, or an instant such as 2026-01-31T12:00:00Z"
        )
    return found


def _offset(tables: RunTables, agent: str, at: object) -> float:
    """Return where an instant is in the recording."""
    settled: list[float] = []

    def of_id(identity: str) -> float | None:
        found = _of_id(tables, identity)
        if found is not None:
            settled.append(SETTLE_S)
        return found

    probe = Event(0, "", "", on_clock(tables, at, of_id), agent)
    recordings = Recordings()
    for event in events_with(tables, [b'"recording.started"']):
        if event.event == "recording.started" and event.agent == agent and event.monotonic_s <= probe.monotonic_s:
            recordings.started(event)
    offset = recordings.offset(probe)
    if offset is None:
        raise ConfigError(f"at={at!r}: {agent}'s pane was not recorded yet; its recording begins later")
    return offset + sum(settled)


def _at_instant(tables: RunTables, moment: datetime) -> float:
    """Return the instant on the run's clock: counted from the last event before it."""
    before: Event | None = None
    for event in events_with(tables, [b""]):
        if before is not None and datetime.fromisoformat(event.at) > moment:
            break
        before = event
    if before is None:
        raise ConfigError(f"run {tables.run_id} holds no event: no instant of it is known")
    after = moment - datetime.fromisoformat(before.at)
    return before.monotonic_s + after.total_seconds()


def _of_id(tables: RunTables, identity: str) -> float | None:
    """Return when what is meant by an id happened."""
    found = [event for event in events_with(tables, [identity.encode()]) if identity in _ids(event)]
    if not found:
        return None
    return next((event for name in _MEANT for event in found if event.event == name), found[-1]).monotonic_s


def _ids(event: Event) -> set[object]:
    facts = event.attributes
    return {event.message_id, event.turn_id, facts.get("tool_call_id"), facts.get("dialog_id")} - {None}
