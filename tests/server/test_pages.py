"""Pages of a journal: the latest that fit are found however far back they are, and `more` says what was not read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator_lab.server import pages
from orchestrator_lab.server.pages import EventPages

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def journal(path: Path, agents: list[str]) -> EventPages:
    lines = (json.dumps({"seq": seq, "event": "x.y", "agent": agent}) for seq, agent in enumerate(agents, 1))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return EventPages(path)


def test_the_latest_of_an_agent_are_found_behind_those_of_others(tmp_path: Path) -> None:
    events = journal(tmp_path / "journal.jsonl", ["ada"] * 1000 + ["bob"] * 1000)
    found, last, more = events.page(None, 500, agent="ada")
    assert ([one["seq"] for one in found], last, more) == (list(range(501, 1001)), 2000, True)
    found, _, more = events.page(None, 1000, agent="ada")
    assert (len(found), more) == (1000, False)
    assert events.page(None, 10, agent="zoe") == ([], 2000, False)
    assert events.page(None, 10, prefix="z") == ([], 2000, False)


def test_without_a_filter_the_latest_are_the_last(tmp_path: Path) -> None:
    events = journal(tmp_path / "journal.jsonl", ["ada"] * 1203)
    found, last, more = events.page(None, 7)
    assert ([one["seq"] for one in found], last, more) == (list(range(1197, 1204)), 1203, True)
    found, _, more = events.page(None, 1203)
    assert (found[0]["seq"], len(found), more) == (1, 1203, False)
    assert journal(tmp_path / "empty.jsonl", []).page(None, 7) == ([], 0, False)


def test_what_was_not_read_may_be_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_SCANNED", 1000)
    events = journal(tmp_path / "journal.jsonl", ["ada"] + ["bob"] * 2000)
    assert events.page(None, 5, agent="ada") == ([], 2001, True)
