"""Bundles of earlier versions stay readable: one of each lies in ``old/``, with the tables that it must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bundle_helpers import members, repacked

from orchestrator_lab import frames
from orchestrator_lab.bundle import layout, opening, upgrades
from orchestrator_lab.bundle.importing import import_bundle
from orchestrator_lab.bundle.layout import FORMAT
from orchestrator_lab.bundle.verifying import verify_bundle
from orchestrator_lab.run import Run, open_run
from orchestrator_lab.schema import SCHEMA_VERSION, TABLES

OLD = Path(__file__).parent / "old"
BUNDLES = sorted(OLD.glob("*.olab.zip"))


def told(source: object, table: str) -> list[dict[str, Any]]:
    frame = getattr(frames, f"{table}_df")(source)
    return [dict(row) for row in json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us"))]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_an_old_bundle_gives_its_tables(bundle: Path, tmp_path: Path) -> None:
    assert verify_bundle(bundle).ok
    expected = json.loads(bundle.with_suffix("").with_suffix(".json").read_text())
    bare = repacked(
        tmp_path / "bare.olab.zip", {n: c for n, c in members(bundle).items() if not n.startswith("tables/")}
    )
    back = import_bundle(bundle, tmp_path / "back")
    # As packed, made of its journal, and as a folder.
    for source in (bundle, bare, back):
        for table, rows in expected.items():
            found = told(source, table)
            # Later versions may have more columns.
            assert [{key: row[key] for key in was} for row, was in zip(found, rows, strict=True)] == rows, table
    run = open_run(bundle)
    assert "boss is ready" in run.screen("boss").text
    assert "Plan the parser." in str(run.conversation())


def test_there_is_one_of_each_format_and_schema() -> None:
    found = {(facts["format"], facts["schema_version"]) for facts in (verify_bundle(path).facts for path in BUNDLES)}
    assert {number for number, _ in found} == set(range(1, FORMAT + 1))
    assert {number for _, number in found} == set(range(1, SCHEMA_VERSION + 1))
    assert set(upgrades.NAMES) == set(range(1, FORMAT))
    assert set(upgrades.EVENTS) == set(range(1, SCHEMA_VERSION))


def test_what_changed_since_is_changed_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a later version would do it: files lie elsewhere, and an attribute has another name."""

    def renamed(event: dict[str, Any]) -> dict[str, Any]:
        facts = event.get("attributes", {})
        if event["event"] == "message.queued":
            facts["content"] = f"changed: {facts['content']}"
        return event

    monkeypatch.setattr(upgrades, "EVENTS", {SCHEMA_VERSION: renamed})
    monkeypatch.setattr(upgrades, "NAMES", {FORMAT: lambda name: name.replace("recordings/", "panes/")})
    for module in (upgrades, opening):
        monkeypatch.setattr(module, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    for module in (upgrades, layout):
        monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    old = {name.replace("panes/", "recordings/"): data for name, data in members(BUNDLES[-1]).items()}
    path = repacked(tmp_path / "old.olab.zip", old)
    run = open_run(path)
    assert run.messages["content"].tolist() == ["changed: Plan the parser."], "its tables are those of the old journal"
    assert "boss is ready" in run.screen("boss").text
    assert not caplog.records
    back = import_bundle(path, tmp_path / "back")
    assert Run(back).messages["content"].tolist() == ["changed: Plan the parser."]
    assert (back / "panes" / "boss.cast.zst").exists()
    assert not (back / "tables").exists()
    pd.testing.assert_frame_equal(Run(back).turns, run.turns)


def test_every_table_of_today_is_in_the_newest() -> None:
    expected = json.loads(BUNDLES[-1].with_suffix("").with_suffix(".json").read_text())
    assert set(expected) == set(TABLES)
