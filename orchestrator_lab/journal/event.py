"""One journal event: the envelope that every line of a journal has."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import NoneType
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
        TypeError
            When it is no envelope: a key is missing or holds a value of another type.
        """
        get = envelope.get
        values: tuple[Any, ...] = (
            get("seq"),
            get("event"),
            get("at"),
            get("monotonic_s"),
            get("agent"),
            get("message_id"),
            get("turn_id"),
            get("source"),
            get("level", "info"),
            get("attributes") or {},
        )
        # One look at all types, of which events have few combinations, costs less than a question for each.
        if tuple(map(type, values)) not in _KNOWN_TYPES:
            _check_types(values)
        return cls(*values)

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
        ValueError, TypeError
            When the line is no event.
        """
        # Not left to json, which takes a line that begins with NUL bytes for UTF-16.
        envelope = json.loads(line if isinstance(line, str) else line.decode())
        if not isinstance(envelope, dict):
            raise TypeError(f"a journal line is a JSON object, not a {type(envelope).__name__}")
        return cls.from_dict(envelope)


_EXPECTED: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(Event.__slots__, (str, NoneType)),
    **dict.fromkeys(("event", "at", "level"), (str,)),
    "seq": (int,),
    "monotonic_s": (float, int),
    "attributes": (dict,),
}
#: Combinations of types that were found to be right.
_KNOWN_TYPES: Final[set[tuple[type, ...]]] = set()


def _check_types(values: tuple[Any, ...]) -> None:
    """Note that the types of these values are right, or raise and name the first that is not."""
    for (name, expected), value in zip(_EXPECTED.items(), values, strict=True):
        if value is None and NoneType not in expected:
            raise TypeError(f"it has no {name!r}")
        if type(value) not in expected:
            raise TypeError(f"its {name!r} is of type {type(value).__name__}, not {expected[0].__name__}")
    _KNOWN_TYPES.add(tuple(map(type, values)))


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
