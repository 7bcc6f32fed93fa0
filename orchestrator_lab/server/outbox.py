"""What waits for one browser: events in order, never dropped; pictures of panes, dropped as soon as it falls behind.

No clock, no threads, no sockets: the socket's writer takes one thing after another, each as soon as the browser has
taken the one before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["Events", "Listing", "Metrics", "Outbox", "Repaint", "Resume", "Screens", "Status", "kind_of"]

#: Events of one cluster that are kept; what comes then is read from the journal once these are gone.
_MOST_EVENTS = 5000
#: Events that leave together.
_BATCH = 200
#: Bytes of one pane that are kept; more, and a fresh screen takes their place.
_MOST_BYTES = 1 << 16

_KINDS = {
    "message": "message",
    "alert": "alert",
    "agent": "agent",
    "turn": "agent",
    "tool": "agent",
    "dialog": "agent",
    "process": "metrics",
}


def kind_of(event: str) -> str | None:
    """Return the frame in which an event of the journal is told, None when it has none of its own.

    Examples
    --------
    >>> kind_of("message.queued"), kind_of("turn.ended"), kind_of("run.started")
    ('message', 'agent', None)
    """
    return _KINDS.get(event.partition(".")[0])


@dataclass(frozen=True, slots=True)
class Events:
    """Events of the journal, in order."""

    cluster: str
    events: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Status:
    """The newest status, with the sentence of a gap."""

    cluster: str
    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures have changed: they are to be fetched."""

    cluster: str


@dataclass(frozen=True, slots=True)
class Screens:
    """Output of one pane."""

    cluster: str
    agent: str
    data: bytes
    repaint: bool
    cols: int
    rows: int


@dataclass(frozen=True, slots=True)
class Repaint:
    """Output of a pane was dropped: a fresh screen is to be asked for."""

    cluster: str
    agent: str


@dataclass(frozen=True, slots=True)
class Resume:
    """More events came than are kept: what follows this number is to be read from the journal."""

    cluster: str
    since: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest list of clusters (`event` is ``clusters``), or why there is none (``error``); of no one cluster."""

    event: str
    data: Any
    cluster: None = None


@dataclass(slots=True)
class _Pane:
    data: bytearray = field(default_factory=bytearray)
    repaint: bool = False
    lost: bool = False
    asked: bool = False
    cols: int = 0
    rows: int = 0


@dataclass(slots=True)
class _Channel:
    kinds: frozenset[str]
    events: deque[dict[str, Any]] = field(default_factory=deque)
    last: int | None = None
    behind: bool = False
    status: dict[str, Any] | None = None
    metrics: bool = False
    panes: dict[str, _Pane] = field(default_factory=dict)


Item = Listing | Events | Status | Metrics | Screens | Repaint | Resume


class Outbox:
    """The queue of one socket.

    Parameters
    ----------
    most_events, most_bytes : int
        What is kept of a cluster's events, and of a pane's output.

    Examples
    --------
    >>> box = Outbox()
    >>> box.open("lab", {"message"})
    >>> box.put_events("lab", [{"seq": 7, "event": "message.queued"}, {"seq": 8, "event": "turn.started"}])
    >>> [event["seq"] for event in box.take().events], box.take()
    ([7], None)
    """

    def __init__(self, *, most_events: int = _MOST_EVENTS, most_bytes: int = _MOST_BYTES) -> None:
        self._most_events, self._most_bytes = most_events, most_bytes
        self._channels: dict[str, _Channel] = {}
        self._listing: Listing | None = None

    def open(self, cluster: str, kinds: Collection[str]) -> None:
        """Take what is told of a cluster from here on; what waits of kinds that are still wanted stays."""
        channel = self._channels.get(cluster)
        if channel is None:
            self._channels[cluster] = _Channel(frozenset(kinds))
        else:
            channel.kinds = frozenset(kinds)

    def close(self, cluster: str) -> None:
        """Forget a cluster, and what waits of it."""
        self._channels.pop(cluster, None)

    def put_listing(self, listing: Listing) -> None:
        """Put the newest list of clusters in the place of an older one."""
        self._listing = listing

    def put_events(self, cluster: str, events: Iterable[dict[str, Any]]) -> None:
        """Add events; once too many wait, later ones are left in the journal."""
        channel = self._channels.get(cluster)
        if channel is None:
            return
        for event in events:
            if channel.behind:
                return
            if len(channel.events) >= self._most_events:
                channel.behind = True
                return
            channel.last = event["seq"]
            kind = kind_of(event["event"])
            if kind == "metrics" and "metrics" in channel.kinds:
                channel.metrics = True
            if (kind is not None and kind != "metrics" and kind in channel.kinds) or "event" in channel.kinds:
                channel.events.append(event)

    def put_status(self, cluster: str, status: dict[str, Any]) -> None:
        """Put the newest status in the place of an older one."""
        channel = self._channels.get(cluster)
        if channel is not None and "status" in channel.kinds:
            channel.status = status

    def put_metrics(self, cluster: str) -> None:
        """Say that the figures are to be told."""
        channel = self._channels.get(cluster)
        if channel is not None and "metrics" in channel.kinds:
            channel.metrics = True

    def put_screen(self, screen: Screens) -> None:
        """Add output of a pane; a repaint replaces what waits, and too much is dropped for one."""
        channel = self._channels.get(screen.cluster)
        if channel is None or "screen" not in channel.kinds:
            return
        pane = channel.panes.setdefault(screen.agent, _Pane())
        if screen.repaint:
            channel.panes[screen.agent] = _Pane(
                bytearray(screen.data), repaint=True, cols=screen.cols, rows=screen.rows
            )
        elif pane.lost or len(pane.data) + len(screen.data) > self._most_bytes:
            pane.data.clear()
            pane.lost, pane.repaint = True, False
        else:
            pane.data += screen.data
            pane.cols, pane.rows = screen.cols, screen.rows

    def drop_panes(self, cluster: str, kept: Collection[str]) -> None:
        """Forget the output of panes that are no longer watched."""
        channel = self._channels.get(cluster)
        if channel is not None:
            channel.panes = {name: pane for name, pane in channel.panes.items() if name in kept}

    def take(self) -> Item | None:
        """Return what the browser gets next, None when nothing waits: the list, events, the status, panes last."""
        if self._listing is not None:
            listing, self._listing = self._listing, None
            return listing
        for cluster, channel in self._channels.items():
            if channel.events:
                batch = [channel.events.popleft() for _ in range(min(_BATCH, len(channel.events)))]
                return Events(cluster, tuple(batch))
            if channel.behind:
                channel.behind = False
                return Resume(cluster, channel.last or 0)
        for cluster, channel in self._channels.items():
            if channel.status is not None:
                status, channel.status = channel.status, None
                return Status(cluster, status)
            if channel.metrics:
                channel.metrics = False
                return Metrics(cluster)
        return self._take_screen()

    def _take_screen(self) -> Screens | Repaint | None:
        for cluster, channel in self._channels.items():
            for agent, pane in channel.panes.items():
                if pane.lost:
                    if not pane.asked:
                        pane.asked = True
                        return Repaint(cluster, agent)
                elif pane.data or pane.repaint:
                    # Whoever was served goes to the end: one busy pane does not starve the others.
                    del channel.panes[agent]
                    channel.panes[agent] = _Pane(cols=pane.cols, rows=pane.rows)
                    return Screens(cluster, agent, bytes(pane.data), pane.repaint, pane.cols, pane.rows)
        return None
