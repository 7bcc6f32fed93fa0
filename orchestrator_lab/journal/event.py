"""One journal event: the envelope that every line of a journal has."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Event", "members"]

_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


@dataclass(frozen=True, slots=True)
class Event:
    """Something observed or done, as one line of the journal tells it.

    Parameters
    ----------
    seq : int
        Number of the event in its run, from 1.
    event : str
        Dotted name; see :data:`orchestrator_lab.schema.EVENTS`.
    at : str
        Wall-clock instant in UTC, ISO 8601 with microseconds and ``Z``.
    monotonic_s : float
        Seconds since the start of the run, taken together with ``at``; never goes back.
    agent, message_id, turn_id, source : str or None
        What the event is about, and where the fact comes from.
    level : str
        ``debug``, ``info``, ``warning`` or ``error``.
    attributes : dict
        Everything else, JSON values only.

    Examples
    --------
    >>> event = Event(1, "note", "2026-11-23T06:00:00.000000Z", 0.5, attributes={"text": "hello"})
    >>> Event.from_json(event.to_json()) == event
    True
    """

    seq: int
    event: str
    at: str
    monotonic_s: float
    agent: str | None = None
    message_id: str | None = None
    turn_id: str | None = None
    source: str | None = None
    level: str = "info"
    attributes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope as a dict, without the keys that are None or empty.

        Returns
        -------
        dict
            In the order of the journal's lines.
        """
        envelope: dict[str, Any] = {
            "seq": self.seq,
            "event": self.event,
            "at": self.at,
            "monotonic_s": self.monotonic_s,
        }
        if self.agent is not None:
            envelope["agent"] = self.agent
        if self.message_id is not None:
            envelope["message_id"] = self.message_id
        if self.turn_id is not None:
            envelope["turn_id"] = self.turn_id
        if self.source is not None:
            envelope["source"] = self.source
        envelope["level"] = self.level
        if self.attributes:
            envelope["attributes"] = self.attributes
        return envelope

    def to_json(self) -> str:
        r"""Return the event as one line of JSON, without the newline.

        Returns
        -------
        str
            Encodes to UTF-8 always: a lone surrogate (a byte that was no UTF-8) is escaped.
        """
        envelope = self.to_dict()
        line = _encode(envelope)
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError:
                line = json.dumps(envelope, allow_nan=False, separators=(",", ":"))
        return line

    @classmethod
    def from_dict(cls, envelope: dict[str, Any]) -> Event:
        """Return the event that an envelope describes; keys that it does not know are ignored.

        Parameters
        ----------
        envelope : dict
            A line of the journal, decoded.

        Returns
        -------
        Event
            The same event.

        Raises
        ------
        KeyError, TypeError
            When it is no envelope.
        """
        get = envelope.get
        return cls(
            envelope["seq"],
            envelope["event"],
            envelope["at"],
            envelope["monotonic_s"],
            get("agent"),
            get("message_id"),
            get("turn_id"),
            get("source"),
            get("level", "info"),
            get("attributes") or {},
        )

    @classmethod
    def from_json(cls, line: str | bytes) -> Event:
        """Return the event of one line.

        Parameters
        ----------
        line : str or bytes
            One line of a journal, with or without its newline.

        Returns
        -------
        Event
            The event.

        Raises
        ------
        ValueError, KeyError, TypeError
            When the line is no event.
        """
        envelope = json.loads(line)
        if not isinstance(envelope, dict):
            raise TypeError(f"a journal line is a JSON object, not a {type(envelope).__name__}")
        return cls.from_dict(envelope)


def members(events: Iterable[Event], configured: Iterable[str] = ()) -> list[str]:
    """Return the agents that belong to a cluster after these events.

    Parameters
    ----------
    events : iterable of Event
        In their order; all but those of agents that join and leave are passed over.
    configured : iterable of str
        Those with whom the cluster starts: they belong to it also when its start ended before it had named them.

    Returns
    -------
    list of str
        Names, in the order in which they joined.

    Examples
    --------
    >>> added, removed = (Event(n, f"agent.{what}", "", 0.0, "ada") for n, what in enumerate(("added", "removed")))
    >>> members([added]), members([added, removed]), members([added], ["ada", "bob"])
    (['ada'], [], ['ada', 'bob'])
    """
    found: dict[str, None] = dict.fromkeys(configured)
    for event in events:
        if event.event == "agent.added" and event.agent:
            found[event.agent] = None
        elif event.event == "agent.removed" and event.agent:
            found.pop(event.agent, None)
    return list(found)
