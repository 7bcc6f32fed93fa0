"""The tables of alerts and of processes: columns, levels, and the same rows however the journal is cut."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from orchestrator_lab.folds import AlertFold, ProcessFold
from orchestrator_lab.frames import alerts_df, processes_df
from orchestrator_lab.journal import JournalWriter
from orchestrator_lab.journal.event import Event
from orchestrator_lab.tables import RunTables

if TYPE_CHECKING:
    from pathlib import Path


def event(seq: int, name: str, *, agent: str | None = "ada", level: str = "info", **facts: Any) -> Event:
    return Event(seq, name, f"2026-11-24T06:00:0{seq}.000000Z", float(seq), agent=agent, level=level, attributes=facts)


EVENTS = [
    event(1, "alert.opened", level="warning", alert_id="alr_1", rule="idle", message="ada is idle", idle_s=300),
    event(2, "alert.acknowledged", alert_id="alr_1", by="eve"),
    event(3, "alert.opened", agent=None, level="critical", alert_id="alr_2", rule="disk", message="full"),
    event(4, "alert.escalated", level="critical", alert_id="alr_1", rule="idle", message="ada is idle still"),
    event(5, "alert.repeated", level="critical", alert_id="alr_1", rule="idle", message="ada is idle still"),
    event(6, "alert.notified", alert_id="alr_1", rule="idle", channel="json", number=1, ok=True),
    event(7, "process.sample", rss_bytes=1_000_000, children=2),
    event(8, "process.sample", cpu_percent=12.5, rss_bytes=2_000_000, children=0),
    event(9, "alert.resolved", agent=None, alert_id="alr_2", rule="disk", by="itself"),
]


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
def test_rows_do_not_depend_on_how_the_journal_is_cut(cut: int) -> None:
    for kind in (AlertFold, ProcessFold):
        assert kind().update(EVENTS[:cut]).update(EVENTS[cut:]).rows() == kind().update(EVENTS).rows()


def test_alerts_as_a_frame() -> None:
    frame = alerts_df(RunTables.from_events("run_x", EVENTS)).set_index("alert_id")
    assert frame["level"].tolist() == ["critical", "critical"]
    assert "critical" in frame["level"].cat.categories
    assert frame.loc["alr_1", "message"] == "ada is idle still"
    assert frame.loc["alr_1", "opened_at"] == pd.Timestamp("2026-11-24T06:00:01Z")
    # What was seen was a warning; what it is now nobody has seen.
    assert frame["acknowledged_at"].isna().all()
    assert frame["resolved_at"].isna().tolist() == [True, False]
    assert pd.isna(frame.loc["alr_2", "agent"])
    assert frame["run_id"].unique().tolist() == ["run_x"]


def test_samples_as_a_frame() -> None:
    tables = RunTables.from_events("run_x", EVENTS)
    frame = processes_df(tables, agents="ada")
    assert frame["cpu_percent"].isna().tolist() == [True, False]
    assert frame["rss_bytes"].tolist() == [1_000_000, 2_000_000]
    assert str(frame["children"].dtype) == "Int64"
    assert processes_df(tables, agents="bob").empty


def test_a_live_journal_is_read_on(tmp_path: Path) -> None:
    with JournalWriter(tmp_path / "journal.jsonl", run_id="run_x") as journal:
        journal.append("alert.opened", level="error", alert_id="alr_1", rule="idle", message="ada is idle")
        tables = RunTables(tmp_path)
        assert len(alerts_df(tables)) == 1
        journal.append("process.sample", agent="ada", rss_bytes=5, children=0)
        journal.append("alert.resolved", alert_id="alr_1", rule="idle", by="human")
        assert alerts_df(tables)["resolved_at"].notna().all()
        assert len(processes_df([tmp_path])) == 1


def test_malformed_events_and_unknown_ids_make_no_row(caplog: pytest.LogCaptureFixture) -> None:
    wrong = [
        event(1, "alert.opened", rule="idle"),
        event(2, "alert.escalated", alert_id="alr_x", rule="idle"),
        event(3, "alert.resolved", alert_id="alr_x"),
        event(4, "alert.acknowledged", alert_id="alr_x"),
        event(5, "process.sample", rss_bytes="much", children=None),
    ]
    with caplog.at_level(logging.WARNING):
        assert AlertFold().update(wrong).rows() == []
    assert "malformed" in caplog.text
    assert ProcessFold().update(wrong).rows()[0]["rss_bytes"] is None
