"""Whatever a journal holds: the same tables live, read again, sealed; of a journal that is cut, what was before."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from any_journal import Step, journals, make_run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab import frames, tables
from orchestrator_lab.folds import growing
from orchestrator_lab.journal import Event, JournalReader, blocks, reader
from orchestrator_lab.run import Run
from orchestrator_lab.schema import build_frame
from orchestrator_lab.sealing import open_seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLES = {
    "runs": frames.runs_df,
    "agents": frames.agents_df,
    "messages": frames.messages_df,
    "turns": frames.turns_df,
    "tool_calls": frames.tool_calls_df,
    "dialogs": frames.dialogs_df,
    "states": frames.states_df,
    "alerts": frames.alerts_df,
    "processes": frames.processes_df,
    "events": frames.events_df,
}


class Held:
    """Events that are at hand, as a source of tables."""

    def __init__(self, run: Path, events: list[Event]) -> None:
        self.run_id, self.manifest, self._events = run.name, Run(run).manifest, events

    def events(self) -> list[Event]:
        return self._events


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a place that every example makes a folder of its own in."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def new_run(folder: Path) -> Path:
    return make_run(Path(tempfile.mkdtemp(dir=folder)))


def tables_of(source: object) -> dict[str, pd.DataFrame]:
    return {name: table(source) for name, table in TABLES.items()}


def check_same(got: Mapping[str, pd.DataFrame], wanted: Mapping[str, pd.DataFrame]) -> None:
    for name, frame in wanted.items():
        pd.testing.assert_frame_equal(got[name], frame, obj=f"table {name}")


@settings(max_examples=15)
@given(steps=journals(), looks=st.sets(st.integers(0, 70), max_size=4), picked=st.sampled_from(sorted(TABLES)))
def test_live_and_read_again_and_sealed_are_the_same(
    folder: Path, steps: list[Step], looks: set[int], picked: str
) -> None:
    path = new_run(folder)
    live, written = Run(path), []
    for number, event in enumerate(write(path, steps)):
        written.append(event)
        if number in looks:
            tables_of(live)
        elif number - 1 in looks:  # one table alone: what it has read must not be missing in another one
            pd.testing.assert_frame_equal(TABLES[picked](live), TABLES[picked](Held(path, written)))
    assert Run(path).events() == written
    again = tables_of(path)
    assert len(again["events"]) == len(written)
    check_same(tables_of(live), again)
    check_same(tables_of(Held(path, written)), again)
    Run(path).seal()
    check_same(tables_of(path), again)
    check_same(tables_of(live), again)


@settings(max_examples=12)
@given(steps=journals(max_size=40), names=st.lists(st.sampled_from(["ada", "bob", "user"]), min_size=1), data=st.data())
def test_what_is_picked_of_a_sealed_run_is_what_is_picked_of_its_journal(
    folder: Path, steps: list[Step], names: list[str], data: st.DataObject
) -> None:
    path = new_run(folder)
    for _ in write(path, steps):
        pass
    table = data.draw(st.sampled_from([name for name in TABLES if name != "runs"]))
    whole = TABLES[table](path)
    columns = data.draw(st.lists(st.sampled_from(whole.columns.tolist()), min_size=1, unique=True))
    since = data.draw(st.one_of(st.none(), st.integers(0, 40)) if "seq" in whole else st.none())
    ways: list[dict[str, object]] = [
        {"columns": columns},
        {"agents": names},
        {"agents": names, "columns": columns, "since": since},
    ]
    column = data.draw(st.sampled_from(columns))
    values = [None if pd.isna(value) else value for value in whole[column].tolist()[:3]]
    ways.append({"where": {column: values}, "columns": columns})
    before = [TABLES[table](path, **way) for way in ways]
    Run(path).seal()
    for way, frame in zip(ways, before, strict=True):
        pd.testing.assert_frame_equal(TABLES[table](path, **way), frame, obj=f"{table} with {way}")


@settings(max_examples=20)
@given(steps=journals(max_size=25), part=st.floats(0, 1))
def test_a_journal_cut_at_any_byte_is_what_was_before(folder: Path, steps: list[Step], part: float) -> None:
    path, shorter = new_run(folder), new_run(folder)
    written = list(write(path, steps))
    data = (path / "journal.jsonl").read_bytes()
    cut = data[: round(part * len(data))]
    (shorter / "journal.jsonl").write_bytes(cut)
    live = Run(shorter)
    whole = cut.count(b"\n")
    check_same(tables_of(live), tables_of(Held(shorter, written[:whole])))
    # The next writer goes on behind the last whole line.
    (after,) = write(shorter, [Step("note", {"text": "here again"})])
    assert after.seq == (written[whole - 1].seq if whole else 0) + 1
    check_same(tables_of(live), tables_of(Held(shorter, [*written[:whole], after])))
    check_same(tables_of(shorter), tables_of(live))


@settings(max_examples=15)
@given(steps=journals(max_size=25), piece=st.integers(1, 3000))
def test_the_size_of_what_is_read_at_a_time_changes_nothing(folder: Path, steps: list[Step], piece: int) -> None:
    path = new_run(folder)
    written = list(write(path, steps))
    wanted = tables_of(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_PIECE", piece)
        assert Run(path).events() == written
        check_same(tables_of(path), wanted)


@settings(max_examples=15)
@given(
    steps=journals(),
    looks=st.sets(st.integers(0, 70), max_size=4),
    size=st.sampled_from([300, 2000, 1 << 20]),
    kept=st.sampled_from([(4, 2, 6, 2), (20, 5, 40, 10), (1024, 64, 8192, 512)]),
)
def test_a_long_journal_is_the_same_as_a_short_one(
    folder: Path, steps: list[Step], looks: set[int], size: int, kept: tuple[int, ...]
) -> None:
    path = new_run(folder)
    live, written = Run(path), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_LONG", 1)
        patch.setattr(blocks, "_SIZE", size)
        for name, value in zip(("_MANY", "_RECENT", "_MOST", "_BACK"), kept, strict=True):
            patch.setattr(growing, name, value)
        for number, event in enumerate(write(path, steps)):
            written.append(event)
            if number in looks:
                tables_of(live)
                patch.setattr(tables, "_LONG", 1 << 30)  # from here on as a run grows: a few events at a time
        wanted = tables_of(Held(path, written))
        check_same(tables_of(live), wanted)
        patch.setattr(tables, "_LONG", 1)
        check_same(tables_of(path), wanted)
        lists = {name: build_frame(name, live.tables.columns(name)) for name in TABLES if name != "runs"}
        check_same(lists, {name: wanted[name] for name in lists})
        assert len(live.tables.fold("messages")) == len(wanted["messages"])
        patch.setattr(tables, "_PIECE", 7)
        Run(path).seal()
        check_same(tables_of(path), wanted)
        assert open_seal(path) is not None
        check_same(tables_of(live), wanted)


def test_blocks_larger_than_what_is_read_at_a_time(folder: Path) -> None:
    path = new_run(folder)
    piece = reader._PIECE
    # A line longer than a piece, then lines of an odd length over the borders of the next ones.
    long = Step(
        "message.queued", {"message_id": "msg_1", "sender": "user", "recipient": "ada", "content": "日" * piece}
    )
    lines = [
        Step("message.queued", {"message_id": f"m{number}", "agent": "ada", "content": "é\u2028\ud800" * 1500})
        for number in range(1500)
    ]
    written = list(write(path, [*lines[:700], long, *lines[700:]]))
    assert (path / "journal.jsonl").stat().st_size > 4 * piece
    messages = frames.messages_df(path, columns=["seq", "message_id", "content"])
    assert messages["seq"].tolist() == [event.seq for event in written]
    assert messages["content"][700] == long.facts["content"]
    assert messages["content"].drop(700).eq("é\u2028?" * 1500).all()
    batches = list(JournalReader(path / "journal.jsonl").batches())
    assert len(batches) > 3
    assert [event for batch in batches for event in batch] == written
