from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import AgentNotFound, ConfigError
from orchestrator_lab.reading.search import COLUMNS
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_plain_text_everywhere(told: Run) -> None:
    hits = told.search("42")
    assert hits[["table", "field", "id", "agent", "recipient"]].fillna("").values.tolist() == [
        ["turns", "reply", "trn_2", "worker", ""],
        ["messages", "content", "msg_3", "worker", "boss"],
        ["turns", "reply", "trn_1", "boss", ""],
    ]
    assert hits["at"].is_monotonic_increasing
    assert hits["run_id"].eq(told.run_id).all()
    assert hits.attrs["search"] == "42"
    joined = hits[hits["table"] == "messages"].merge(told.messages, left_on="id", right_on="message_id")
    assert joined["content"].tolist() == ["42"]


def test_each_kind_of_text_is_found(told: Run) -> None:
    assert told.search("ls <b>")[["table", "field"]].values.tolist() == [
        ["tool_calls", "input"],
        ["dialogs", "subject"],
    ]
    assert told.search("bash")["field"].tolist() == ["name"]
    assert told.search("may not write")[["table", "field", "id"]].values.tolist() == [
        ["messages", "error_message", "msg_4"]
    ]
    assert told.search('"yes"', kind="dialogs")["match"].tolist() == ['"yes"']


def test_a_text_is_no_expression_and_case_is_asked_for(told: Run) -> None:
    assert told.search("sev.n").empty
    assert told.search("SEVEN")["match"].tolist() == ["seven"]
    assert told.search("SEVEN", case=True).empty
    assert told.search("(")["count"].sum() > 0


def test_expressions(told: Run) -> None:
    hits = told.search(r"sev\wn|s.x", regex=True)
    assert hits[["match", "count"]].values.tolist() == [["seven", 2]]
    assert told.search(re.compile(r"(?<=times )six")).iloc[0]["match"] == "six"
    assert told.search(re.compile("SEVEN")).empty
    assert told.search(re.compile("SEVEN", re.IGNORECASE | re.DEBUG)).shape[0] == 1
    assert told.search("€|✓|\u202e", regex=True)["match"].tolist() == ["\u202e", "\u202e"]


def test_excerpts_are_short_and_harmless(told: Run) -> None:
    (row,) = told.search("title", kind="messages").to_dict("records")
    assert row["excerpt"].startswith("…")
    assert "\x1b" not in row["excerpt"]
    assert "\n" not in row["excerpt"]
    (row,) = told.search(re.compile("a.*b", re.DOTALL), kind="tool_calls")[lambda f: f["field"] == "output"].to_dict(
        "records"
    )
    assert len(row["excerpt"]) < 400
    assert len(row["match"]) > 1000


def test_agents_and_kinds(told: Run) -> None:
    assert set(told.search("a", agent="worker")["agent"]) == {"boss", "user"}
    assert set(told.search("a", agent="worker")["recipient"]) == {"worker"}
    assert set(told.search("s", kind=["dialogs", "turns"])["table"]) == {"dialogs", "turns"}
    with pytest.raises(AgentNotFound, match="nobody called 'bos'"):
        told.search("a", agent="bos")
    with pytest.raises(ConfigError, match="no kind 'tools'; the kinds are the tables messages, turns"):
        told.search("a", kind="tools")


@pytest.mark.parametrize(
    ("what", "said"),
    [("", "expected some text"), (re.compile(b"a"), "expected some text"), ("(", "no regular expression"), (3, "3")],
)
def test_what_cannot_be_looked_for_is_named(told: Run, what: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        told.search(what, regex=True)  # type: ignore[arg-type]


def test_an_expression_without_end_is_ended(fresh: Run) -> None:
    with pytest.raises(ConfigError, match=r"not done after 0\.5 s, so it was ended"):
        fresh.search("(?:[ab\n]+)+!", regex=True, timeout_s=0.5, kind="tool_calls")


def test_no_hits_have_the_same_columns(told: Run, tmp_path: Path) -> None:
    empty = Run(create_run(tmp_path, config={}, name="duo"))
    for frame in (told.search("nowhere"), empty.search("x"), empty.search("x", regex=True), told.search("a")):
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
            column.name: column.dtype for column in COLUMNS
        }


def test_many_texts(tmp_path: Path, many: Callable[[Path, int, int], Run]) -> None:
    run = many(tmp_path, 1500, 5)
    assert len(run.search("question 1499")) == 1
    assert len(run.search(r"^answer \d*7$", regex=True, timeout_s=60)) == 150
