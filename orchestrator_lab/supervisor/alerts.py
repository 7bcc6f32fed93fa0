"""What is wrong in a cluster and somebody should know: opened once, made graver, told, seen, over.

Whoever finds something wrong calls :meth:`Alerts.open`, and :meth:`Alerts.resolve` when its cause is gone. An alert is
known by its rule and its agent: opening it again changes nothing, unless it became graver or its sentence changed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import AlertNotFound, JournalError
from orchestrator_lab.schema import LEVELS, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.core import Supervisor

__all__ = ["Alert", "Alerts", "graver"]

logger = logging.getLogger(__name__)

Key = tuple[str, str | None]

#: Events of alerts that wait for a journal that takes nothing; more than these are given up.
_UNWRITTEN = 1_000
#: What `alert.opened` holds beside the facts of whoever opened it.
_OWN = frozenset({"alert_id", "rule", "message", "previous_level"})


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as it stands.

    Parameters
    ----------
    alert_id : str
        Unique id, sorts by time.
    rule : str
        The rule that raised it.
    agent : str or None
        The agent that it is about; None for the cluster.
    level : str
        ``info``, ``warning``, ``error`` or ``critical``; never sinks while the alert is open.
    message : str
        One sentence for people.
    opened_at : str
        Instant in UTC, ISO 8601.
    facts : dict
        What the rule knew.
    acknowledged_by, acknowledged_at : str or None
        Who has seen it, at the level that it has, and when.
    told_s : float
        Epoch seconds at which it was opened, became graver or was repeated last.
    notified : frozenset of int
        Channels that were tried since then, by their number from 1.
    resolved : bool
        Whether it is over.
    """

    alert_id: str
    rule: str
    agent: str | None
    level: str
    message: str
    opened_at: str
    facts: dict[str, Any] = field(default_factory=dict)
    acknowledged_by: str | None = None
    acknowledged_at: str | None = None
    told_s: float = 0.0
    notified: frozenset[int] = frozenset()
    resolved: bool = False

    @property
    def key(self) -> Key:
        """Rule and agent, by which an open alert is known."""
        return self.rule, self.agent

    def to_dict(self) -> dict[str, Any]:
        """Return what clients see of it."""
        return {
            "alert_id": self.alert_id,
            "level": self.level,
            "agent": self.agent,
            "rule": self.rule,
            "message": self.message,
            "opened_at": self.opened_at,
            "acknowledged_by": self.acknowledged_by,
            "acknowledged_at": self.acknowledged_at,
            "facts": self.facts,
        }


def graver(level: str, other: str) -> bool:
    """Tell whether a level is graver than another.

    Examples
    --------
    >>> graver("critical", "error"), graver("info", "info")
    (True, False)
    """
    return LEVELS.index(level) > LEVELS.index(other)


class Alerts:
    """The alerts of one cluster, and the only place where they change.

    Parameters
    ----------
    supervisor : Supervisor
        Its journal is written first, and its configuration says how often an open alert is told again.

    Notes
    -----
    When the journal takes nothing (the disk is full), alerts are opened all the same: that is what somebody has to
    hear. Their events are kept, and written in order once there is room.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._open: dict[Key, Alert] = {}
        #: Level at which a person cleared an alert whose cause has not gone since.
        self._cleared: dict[Key, str] = {}
        self._unwritten: list[tuple[str, dict[str, Any]]] = []
        self._catching_up = False
        self._timer: asyncio.TimerHandle | None = None
        #: Called with each alert that somebody has to hear of, once it is journalled.
        self.on_tell: Callable[[Alert], None] | None = None
        supervisor.journal.subscribe(self._journal_takes)

    @property
    def open_alerts(self) -> list[Alert]:
        """Those whose cause has not gone, the oldest first."""
        return list(self._open.values())

    def holds_back(self, rule: str, agent: str | None, level: str) -> bool:
        """Tell whether a person has cleared this alert at this level or a graver one, and its cause has not gone since.

        For rules that say again and again that they hold.
        """
        cleared = self._cleared.get((rule, agent))
        return cleared is not None and not graver(level, cleared)

    @property
    def behind(self) -> bool:
        """Whether events of alerts wait for a journal that takes nothing."""
        return bool(self._unwritten)

    def open(
        self,
        rule: str,
        message: str,
        *,
        level: str = "warning",
        agent: str | None = None,
        **facts: Any,  # noqa: ANN401 - any JSON value
    ) -> str:
        """Open an alert, or make the open one of this rule and agent graver.

        Parameters
        ----------
        rule : str
            Name of the rule: ``idle``, ``disk`` …
        message : str
            One sentence for people: what, where, what to do. The same words as long as the same is wrong.
        level : {"info", "warning", "error", "critical"}
            How serious it is.
        agent : str, optional
            Name of the agent that it is about.
        **facts
            What else is known, for the journal.

        Returns
        -------
        str
            Id of the alert; empty when alerts are switched off.
        """
        if not self._supervisor.config.alerts.enabled:
            return ""
        known = self._open.get((rule, agent))
        if known is not None:
            level = known.level if graver(known.level, level) else level
            if (level, message) == (known.level, known.message):
                return known.alert_id
        alert = Alert(
            alert_id=known.alert_id if known else new_id("alr_"),
            rule=rule,
            agent=agent,
            level=level,
            message=message,
            opened_at=known.opened_at if known else _now(),
            facts=facts,
            # Seen is what was seen: at a graver level it is news again.
            acknowledged_by=known.acknowledged_by if known and level == known.level else None,
            acknowledged_at=known.acknowledged_at if known and level == known.level else None,
            told_s=time.time(),
        )
        self._cleared.pop(alert.key, None)
        self._open[alert.key] = alert
        self._journal(
            "alert.escalated" if known else "alert.opened",
            alert,
            message=message,
            **({"previous_level": known.level} if known else {}),
            **facts,
        )
        self._tell(alert)
        return alert.alert_id

    def resolve(self, rule: str, agent: str | None = None) -> None:
        """Take note that the cause of an alert is gone; nothing happens when none is open.

        Parameters
        ----------
        rule : str
            Name of the rule.
        agent : str, optional
            Name of the agent.
        """
        self._cleared.pop((rule, agent), None)
        alert = self._open.get((rule, agent))
        if alert is not None:
            self._close(alert, "itself")

    def forget(self, agent: str) -> None:
        """Resolve all alerts of an agent that is no longer part of the cluster."""
        for rule, name in [*self._open, *self._cleared]:
            if name == agent:
                self.resolve(rule, agent)

    def acknowledge(self, alert_id: str, by: str = "human") -> list[Alert]:
        """Take note that somebody has seen an alert: it is not told again unless it becomes graver.

        Parameters
        ----------
        alert_id : str
            The alert; ``all`` for all open ones.
        by : str
            Who has seen it.

        Returns
        -------
        list of Alert
            Those that were not acknowledged before.

        Raises
        ------
        AlertNotFound
            When no open alert has this id.
        """
        seen = []
        for alert in self._chosen(alert_id):
            if alert.acknowledged_by is None:
                after = dataclasses.replace(alert, acknowledged_by=by, acknowledged_at=_now())
                self._open[alert.key] = after
                self._journal("alert.acknowledged", after, by=by)
                seen.append(after)
        self._arm()
        return seen

    def clear(self, alert_id: str, by: str = "human") -> list[Alert]:
        """Close an alert by hand; its rule opens it again only after its cause has gone, or at a graver level.

        Parameters
        ----------
        alert_id : str
            The alert; ``all`` for all open ones.
        by : str
            Who closes it.

        Returns
        -------
        list of Alert
            Those that are over now.

        Raises
        ------
        AlertNotFound
            When no open alert has this id.
        """
        chosen = self._chosen(alert_id)
        for alert in chosen:
            self._cleared[alert.key] = alert.level
            self._close(alert, by)
        return chosen

    def notified(self, alert: Alert, number: int, channel: str, *, ok: bool, error: str | None = None) -> None:
        """Journal that a channel was told of an alert, or could not be."""
        current = self._open.get(alert.key)
        if current is not None and (current.alert_id, current.told_s) == (alert.alert_id, alert.told_s):
            self._open[alert.key] = dataclasses.replace(current, notified=current.notified | {number})
        self._journal("alert.notified", alert, channel=channel, number=number, ok=ok, error=error)

    def restore(self, events: Iterable[Event]) -> None:
        """Take over the alerts of an earlier supervisor, and have told what it could not tell any more.

        Parameters
        ----------
        events : iterable of Event
            All events of the run.
        """
        alerts, cleared = _fold(events)
        self._open = {alert.key: alert for alert in alerts if not alert.resolved}
        self._cleared = cleared
        if self.on_tell is not None:
            for alert in alerts:
                self.on_tell(alert)
        self._arm()

    def stop(self) -> None:
        """Repeat nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # telling ------------------------------------------------------------------------------------

    def _tell(self, alert: Alert) -> None:
        if self.on_tell is not None:
            self.on_tell(alert)
        self._arm()

    def _arm(self) -> None:
        """Wake when the first open alert that nobody has seen is due to be told again."""
        self.stop()
        repeat_s = self._supervisor.config.alerts.repeat_s
        waiting = [alert.told_s for alert in self._open.values() if alert.acknowledged_by is None]
        if repeat_s is not None and waiting:
            delay = min(max(0.0, min(waiting) + repeat_s - time.time()), repeat_s)
            self._timer = asyncio.get_running_loop().call_later(delay, self._repeat)

    def _repeat(self) -> None:
        self._timer = None
        repeat_s = self._supervisor.config.alerts.repeat_s
        now = time.time()
        for alert in self.open_alerts:
            if alert.acknowledged_by is None and repeat_s is not None and now - alert.told_s >= repeat_s:
                again = dataclasses.replace(alert, told_s=now, notified=frozenset())
                self._open[alert.key] = again
                self._journal("alert.repeated", again, message=again.message)
                if self.on_tell is not None:
                    self.on_tell(again)
        self._arm()

    def _close(self, alert: Alert, by: str) -> None:
        del self._open[alert.key]
        self._journal("alert.resolved", alert, by=by)
        self._arm()

    def _chosen(self, alert_id: str) -> list[Alert]:
        chosen = [alert for alert in self._open.values() if alert_id in {"all", alert.alert_id}]
        if not chosen and alert_id != "all":
            listed = ", ".join(f"{alert.alert_id} ({alert.rule})" for alert in self._open.values())
            raise AlertNotFound(
                f"no open alert {alert_id!r} in cluster {self._supervisor.config.name!r}; open: {listed or 'none'}",
                alert_id=alert_id,
            )
        return chosen

    # the journal --------------------------------------------------------------------------------

    def _journal(self, event: str, alert: Alert, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        level = alert.level if event in {"alert.opened", "alert.escalated", "alert.repeated"} else "info"
        if event == "alert.notified" and not facts["ok"]:
            level = "warning"
        line = {"agent": alert.agent, "level": level, "alert_id": alert.alert_id, "rule": alert.rule, **facts}
        if not self._unwritten:
            try:
                self._supervisor.journal.append(event, **line)
            except JournalError as error:
                logger.warning("%s of rule %s is not journalled yet: %s", event, alert.rule, error)
            else:
                return
        if len(self._unwritten) < _UNWRITTEN:
            self._unwritten.append((event, line))

    def _journal_takes(self, _: Event) -> None:
        """Go on once the journal took an event: what waits is written behind it, not from within it."""
        if self._unwritten and not self._catching_up:
            self._catching_up = True
            asyncio.get_running_loop().call_soon(self.catch_up)

    def catch_up(self) -> None:
        """Write what waits for the journal, as far as it takes it."""
        try:
            while self._unwritten:
                event, line = self._unwritten[0]
                self._supervisor.journal.append(event, **line)
                del self._unwritten[0]
        except JournalError as error:
            logger.warning("%d events of alerts are not journalled yet: %s", len(self._unwritten), error)
        finally:
            self._catching_up = False


def _fold(events: Iterable[Event]) -> tuple[list[Alert], dict[Key, str]]:
    """Return all alerts of a journal as they stand, and what people cleared."""
    alerts: dict[str, Alert] = {}
    cleared: dict[Key, str] = {}
    for event in events:
        if not event.event.startswith("alert."):
            continue
        facts = event.attributes
        identity = str(facts.get("alert_id"))
        told_s = datetime.fromisoformat(event.at).timestamp()
        known = alerts.get(identity)
        if event.event == "alert.opened":
            alerts[identity] = Alert(
                alert_id=identity,
                rule=str(facts.get("rule")),
                agent=event.agent,
                level=event.level,
                message=str(facts.get("message")),
                opened_at=event.at,
                facts={name: value for name, value in facts.items() if name not in _OWN},
                told_s=told_s,
            )
            cleared.pop(alerts[identity].key, None)
        elif known is None:
            continue
        elif event.event == "alert.escalated":
            alerts[identity] = dataclasses.replace(
                known,
                level=event.level,
                message=str(facts.get("message")),
                facts={name: value for name, value in facts.items() if name not in _OWN},
                acknowledged_by=known.acknowledged_by if event.level == known.level else None,
                acknowledged_at=known.acknowledged_at if event.level == known.level else None,
                told_s=told_s,
                notified=frozenset(),
            )
        elif event.event == "alert.repeated":
            alerts[identity] = dataclasses.replace(known, told_s=told_s, notified=frozenset())
        elif event.event == "alert.acknowledged":
            alerts[identity] = dataclasses.replace(
                known, acknowledged_by=str(facts.get("by")), acknowledged_at=event.at
            )
        elif event.event == "alert.notified":
            alerts[identity] = dataclasses.replace(known, notified=known.notified | {int(facts.get("number", 0))})
        elif event.event == "alert.resolved":
            alerts[identity] = dataclasses.replace(known, resolved=True)
            if facts.get("by") != "itself":
                cleared[known.key] = known.level
    return list(alerts.values()), cleared


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
