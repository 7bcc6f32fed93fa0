"""Alerts: opened once, graver, repeated, seen, over; and the same after another supervisor took over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.config import AlertsConfig
from orchestrator_lab.errors import AlertNotFound, DiskFull
from orchestrator_lab.folds import AlertFold
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.supervisor.alerts import Alert, Alerts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Lab:
    """A journal, and the alerts that are written to it."""

    def __init__(self, folder: Path, **alerts: Any) -> None:
        self.path = folder / "journal.jsonl"
        self.told: list[str] = []
        self.journal = JournalWriter(self.path, run_id="run_x")
        config = SimpleNamespace(name="lab", alerts=AlertsConfig(**alerts))
        self.alerts = Alerts(SimpleNamespace(journal=self.journal, config=config))  # type: ignore[arg-type]
        self.alerts.on_tell = self._hear
        self._heard = asyncio.Event()

    def _hear(self, alert: Alert) -> None:
        self.told.append(alert.message)
        self._heard.set()

    async def until_told(self, times: int) -> None:
        while len(self.told) < times:
            self._heard.clear()
            await asyncio.wait_for(self._heard.wait(), 10)

    def events(self) -> list[tuple[str, str, str]]:
        """What the journal says: event, rule, level."""
        return [(one.event, one.attributes["rule"], one.level) for one in read_events(self.path)[0]]

    def rows(self) -> list[dict[str, Any]]:
        return AlertFold().update(read_events(self.path)[0]).rows()

    def close(self) -> None:
        self.alerts.stop()
        self.journal.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


async def test_an_alert_is_opened_once_and_only_becomes_graver(lab: Lab) -> None:
    first = lab.alerts.open("idle", "ada is idle", agent="ada", since="noon")
    assert lab.alerts.open("idle", "ada is idle", agent="ada") == first
    assert lab.alerts.open("idle", "bob is idle", agent="bob") != first
    assert lab.alerts.open("idle", "ada is idle", agent="ada", level="critical") == first
    # It does not sink; a lesser level with other words is told with the level that it has.
    lab.alerts.open("idle", "ada is still idle", agent="ada", level="info")
    assert lab.events() == [
        ("alert.opened", "idle", "warning"),
        ("alert.opened", "idle", "warning"),
        ("alert.escalated", "idle", "critical"),
        ("alert.escalated", "idle", "critical"),
    ]
    assert lab.told == ["ada is idle", "bob is idle", "ada is idle", "ada is still idle"]
    row = lab.rows()[0]
    assert (row["level"], row["agent"], row["message"]) == ("critical", "ada", "ada is still idle")
    assert row["opened_at"]
    assert row["acknowledged_at"] is row["resolved_at"] is None


async def test_resolved_by_itself_and_then_open_anew(lab: Lab) -> None:
    lab.alerts.resolve("idle", "ada")
    first = lab.alerts.open("idle", "ada is idle", agent="ada")
    lab.alerts.resolve("idle", "bob")
    assert [one.alert_id for one in lab.alerts.open_alerts] == [first]
    lab.alerts.resolve("idle", "ada")
    assert lab.alerts.open_alerts == []
    assert lab.alerts.open("idle", "ada is idle", agent="ada") != first
    assert [event for event, *_ in lab.events()] == ["alert.opened", "alert.resolved", "alert.opened"]
    assert [row["resolved_at"] is None for row in lab.rows()] == [False, True]


async def test_what_is_acknowledged_stays_quiet_until_it_is_graver(tmp_path: Path) -> None:
    lab = Lab(tmp_path, repeat_s=0.05)
    first = lab.alerts.open("idle", "ada is idle", agent="ada")
    assert [one.acknowledged_by for one in lab.alerts.acknowledge(first, "eve")] == ["eve"]
    assert lab.alerts.acknowledge("all") == []
    await asyncio.sleep(0.12)
    assert lab.told == ["ada is idle"]
    assert lab.rows()[0]["acknowledged_at"]
    lab.alerts.open("idle", "ada is idle", agent="ada", level="error")
    assert lab.rows()[0]["acknowledged_at"] is None
    await lab.until_told(4)
    assert ("alert.repeated", "idle", "error") in lab.events()
    with pytest.raises(AlertNotFound, match=r"no open alert 'alr_x' in cluster 'lab'; open: alr_\w+ \(idle\)"):
        lab.alerts.acknowledge("alr_x")
    lab.close()


async def test_repeats_come_no_sooner_than_they_may(tmp_path: Path) -> None:
    lab = Lab(tmp_path, repeat_s=0.2)
    begun = asyncio.get_running_loop().time()
    lab.alerts.open("disk", "the disk is full", level="critical")
    lab.alerts.open("disk", "the disk is full", level="critical")
    assert lab.told == ["the disk is full"]
    await lab.until_told(3)
    assert asyncio.get_running_loop().time() - begun >= 0.39
    lab.close()


async def test_what_a_person_cleared_is_known_until_its_cause_is_gone(lab: Lab) -> None:
    first = lab.alerts.open("restarts", "ada was restarted 3 times", agent="ada")
    assert [one.alert_id for one in lab.alerts.clear(first)] == [first]
    assert lab.alerts.holds_back("restarts", "ada", "warning")
    assert not lab.alerts.holds_back("restarts", "ada", "error")
    assert lab.rows()[0]["resolved_at"]
    lab.alerts.resolve("restarts", "ada")
    assert not lab.alerts.holds_back("restarts", "ada", "warning")
    with pytest.raises(AlertNotFound, match="open: none"):
        lab.alerts.clear(first)
    assert lab.alerts.clear("all") == []


async def test_switched_off(tmp_path: Path) -> None:
    lab = Lab(tmp_path, enabled=False)
    assert lab.alerts.open("idle", "ada is idle") == ""
    assert lab.alerts.open_alerts == []
    assert lab.events() == []
    lab.close()


async def test_another_supervisor_goes_on_with_them_and_opens_none_twice(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    first = lab.alerts.open("idle", "ada is idle", agent="ada", since="noon")
    second = lab.alerts.open("disk", "the disk is full", level="critical")
    lab.alerts.open("waiting", "bob asks", agent="bob")
    cleared = lab.alerts.open("restarts", "ada was restarted", agent="ada")
    lab.alerts.notified(lab.alerts.open_alerts[0], 1, "json", ok=True)
    lab.alerts.acknowledge(second, "eve")
    lab.alerts.resolve("waiting", "bob")
    lab.alerts.clear(cleared)
    lab.close()

    other = Lab(tmp_path)
    other.alerts.restore(read_events(other.path)[0])
    assert [(one.alert_id, one.acknowledged_by) for one in other.alerts.open_alerts] == [(first, None), (second, "eve")]
    assert other.alerts.open_alerts[0].notified == {1}
    assert other.alerts.open_alerts[0].facts == {"since": "noon"}
    assert other.alerts.holds_back("restarts", "ada", "warning")
    # Whatever may not have been told is handed over again; who told it already sees that it has.
    assert other.told == ["ada is idle", "the disk is full", "bob asks", "ada was restarted"]
    count = len(other.events())
    assert other.alerts.open("idle", "ada is idle", agent="ada") == first
    assert len(other.events()) == count
    other.close()


async def test_a_full_disk_is_told_all_the_same_and_journalled_later(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(lab.journal, "_write", full)
        first = lab.alerts.open("disk", "the disk is full", level="critical")
        lab.alerts.acknowledge(first)
        assert lab.told == ["the disk is full"]
    assert lab.events() == []
    lab.journal.append("note", text="room again")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    events = [one.event for one in read_events(lab.path)[0]]
    assert events == ["note", "alert.opened", "alert.acknowledged"]
    lab.alerts.resolve("disk")
    assert lab.rows()[0]["resolved_at"]
