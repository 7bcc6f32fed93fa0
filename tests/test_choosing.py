"""Which rows of a table are wanted, and wrong wishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from test_frames import FRAMES, Story, write

from orchestrator_lab import frames
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from pathlib import Path


def ring(folder: Path) -> Path:
    """Six messages between three agents, a second apart; every other one is answered."""
    story = Story()(0, "run.started", name="ring")
    names = ["ada", "bob", "cy"]
    for number in range(6):
        at, sender, recipient = number + 1.0, names[number % 3], names[(number + 1) % 3]
        note = {"agent": recipient, "message_id": f"msg_{number}"}
        story(at, "message.queued", **note, sender=sender, recipient=recipient, content=str(number), hop=number)
        if number % 2 == 0:
            story(at + 0.1, "message.accepted", **note)
            story(at + 0.2, "message.answered", **note)
    return write(folder, story(9, "run.ended", status="completed").events)


CHOICES: list[tuple[dict[str, Any], list[str]]] = [
    ({"agents": "ada"}, ["0", "2", "3", "5"]),
    ({"agents": ["ada", "nobody"]}, ["0", "2", "3", "5"]),
    ({"agents": []}, []),
    ({"where": {"sender": "ada"}}, ["0", "3"]),
    ({"where": {"sender": ["ada", "bob"], "status": "answered"}}, ["0", "4"]),
    ({"where": {"accepted_at": None}}, ["1", "3", "5"]),
    ({"where": {"hop": [1, 2]}}, ["1", "2"]),
    ({"where": {"hop": []}}, []),
    ({"since": "2026-11-23T06:00:04Z"}, ["3", "4", "5"]),
    ({"since": "2026-11-23T06:00:04"}, ["3", "4", "5"]),
    ({"since": pd.Timestamp("2026-11-23T07:00:05+01:00")}, ["4", "5"]),
    ({"since": 6}, ["3", "4", "5"]),
    ({"since": "2026-11-23T06:00:03Z", "agents": "ada", "where": {"status": "answered"}}, ["2"]),
]


@pytest.mark.parametrize("sealed", [False, True], ids=["journal", "sealed"])
@pytest.mark.parametrize("columns", [None, ["content"]], ids=["all columns", "one column"])
@pytest.mark.parametrize(("wanted", "contents"), CHOICES, ids=[str(one[0]) for one in CHOICES])
def test_rows(tmp_path: Path, wanted: dict[str, Any], contents: list[str], columns: Any, sealed: bool) -> None:
    path = ring(tmp_path)
    whole = frames.messages_df(path, columns=columns)
    if sealed:
        Run(path).seal()
    frame = frames.messages_df(path, columns=columns, **wanted)
    assert frame["content"].tolist() == contents
    assert frame.dtypes.equals(whole.dtypes)
    assert frame.attrs == whole.attrs
    assert frame.index.tolist() == list(range(len(contents)))


def test_several_runs(tmp_path: Path) -> None:
    first, _ = ring(tmp_path), ring(tmp_path)
    Run(first).seal()
    frame = frames.messages_df(tmp_path, where={"status": "answered"}, columns=["content"])
    assert frame["content"].tolist() == ["0", "2", "4"] * 2


@pytest.mark.parametrize("table", FRAMES)
def test_every_table_has_a_beginning(table: str, tmp_path: Path) -> None:
    path = ring(tmp_path)
    assert len(FRAMES[table](path, since="2100-01-01")) == 0
    assert len(FRAMES[table](path, where={"run_id": path.name})) == len(FRAMES[table](path))


@pytest.mark.parametrize(
    ("table", "wish", "sentence"),
    [
        ("messages", {"where": {"sendr": "ada"}}, "has no column 'sendr'; did you mean 'sender'"),
        ("messages", {"where": "sender"}, "expected a mapping of columns to values"),
        ("messages", {"since": "yesterday"}, "expected a seq of the journal, an instant"),
        ("messages", {"since": True}, "expected a seq of the journal, an instant"),
        ("states", {"since": 3}, "the table 'states' has no seq"),
    ],
)
def test_wrong_wishes(table: str, wish: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        FRAMES[table](ring(tmp_path), **wish)
