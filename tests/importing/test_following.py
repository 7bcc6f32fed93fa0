"""Conversations that are read again: what has not changed is not read, what has grown only where it grew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_records import Session, at, rollout, tool, two_turns, written

from orchestrator_lab.frames import agents_df, events_df, messages_df, runs_df, tool_calls_df, turns_df
from orchestrator_lab.importing import conversation, finding
from orchestrator_lab.importing.kept import Keep, Signature, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLES = {"runs": runs_df, "messages": messages_df, "turns": turns_df, "tool_calls": tool_calls_df, "events": events_df}


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    conversation._KEPT.clear()
    finding._LOOKED.clear()


class Reads:
    """Counts what is read of files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, below: Path) -> None:
        self.bytes = 0
        opens: Callable[..., Any] = Path.open

        def counted(path: Path, *args: Any, **more: Any) -> Any:
            file = opens(path, *args, **more)
            if path.is_relative_to(below):
                line, read = file.readline, file.read

                class Counted:
                    def __enter__(self) -> Any:
                        return self

                    def __exit__(self, *_: object) -> None:
                        file.close()

                    def readline(_, size: int = -1) -> Any:  # noqa: N805 - self is the counter
                        return self._add(line(size))

                    def read(_, size: int = -1) -> Any:  # noqa: N805
                        return self._add(read(size))

                    def __getattr__(self, name: str) -> Any:
                        return getattr(file, name)

                return Counted()
            return file

        monkeypatch.setattr(Path, "open", counted)

    def _add(self, data: bytes) -> bytes:
        self.bytes += len(data)
        return data

    def take(self) -> int:
        count, self.bytes = self.bytes, 0
        return count


def read_anew(source: Path) -> dict[str, pd.DataFrame]:
    known = conversation._KEPT, dict(finding._LOOKED)
    try:
        conversation._KEPT = Keep()
        finding._LOOKED.clear()
        return {name: table(source) for name, table in TABLES.items()}
    finally:
        conversation._KEPT = known[0]
        finding._LOOKED.update(known[1])


def check(source: Path) -> None:
    """Check that what is known of a source is what reading it anew gives."""
    kept = {name: table(source) for name, table in TABLES.items()}
    for name, frame in read_anew(source).items():
        pd.testing.assert_frame_equal(kept[name], frame, obj=name)
        assert kept[name].attrs == frame.attrs


def long_session(turns: int) -> Session:
    session = Session("s-1")
    for number in range(turns):
        session.prompt(number * 10, f"question {number}", f"p{number}")
        session.said(number * 10 + 1, f"a{number}", tool(f"t{number}", "Read", path="x"), input_tokens=1)
        session.result(number * 10 + 2, f"t{number}", "x" * 500)
        session.said(number * 10 + 3, f"b{number}", f"answer {number}", stop="end_turn", output_tokens=2)
        session.over(number * 10 + 4, 3500)
    return session


def test_an_unchanged_file_is_not_read_again_and_one_that_grew_only_where_it_grew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = long_session(200)
    whole = session.write(tmp_path).read_bytes()
    path = tmp_path / "s-1.jsonl"
    cut = whole.rindex(b'{"parentUuid"', 0, -10_000)
    path.write_bytes(whole[:cut])
    reads = Reads(monkeypatch, tmp_path)
    turns_df(path)
    assert reads.take() > cut
    for table in TABLES.values():
        table(path)
        table(tmp_path)
    assert reads.take() == 0
    with path.open("ab") as file:
        file.write(whole[cut:])
    turns = turns_df(path)
    # What is new, and the first records, by which its kind is known.
    assert len(whole) - cut < reads.take() < 3 * (len(whole) - cut) < len(whole)
    assert turns["reply"].tolist() == [f"answer {number}" for number in range(200)]
    check(path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.floats(0, 1), min_size=1, max_size=4), data=st.data())
def test_whatever_it_grew_by_it_is_as_read_anew(tmp_path: Path, cuts: list[float], data: st.DataObject) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    what = data.draw(st.sampled_from(["claude", "early answers", "codex", "subagents"]))
    session = two_turns()
    files = []
    if what == "codex":
        turn = [
            (1, "event_msg", {"type": "task_started", "turn_id": "t1"}),
            (1.1, "event_msg", {"type": "user_message", "message": "go"}),
            (2, "event_msg", {"type": "agent_message", "message": "done"}),
            (3, "event_msg", {"type": "task_complete", "turn_id": "t1", "last_agent_message": "done"}),
        ]
        files.append(rollout(folder, *turn))
    else:
        if what == "early answers":
            session.records[6], session.records[7] = session.records[7], session.records[6]
        files.append(session.write(folder))
    if what == "subagents":
        side = Session("s-1", prefix="side", isSidechain=True, agentId="abc")
        side.prompt(1.6, "look", "x")
        side.said(1.8, "sub", "seen", input_tokens=100, output_tokens=9, stop="end_turn")
        files.append(side.write(folder / "s-1" / "subagents", "agent-abc"))
    whole = {file: file.read_bytes() for file in files}
    for part in [*sorted(cuts), 1.0]:
        for file, content in whole.items():
            file.write_bytes(content[: max(len(content) // 8, round(part * len(content)))])
        check(folder)


def test_what_was_rewritten_or_replaced_is_read_anew(tmp_path: Path) -> None:
    path = two_turns().write(tmp_path)
    check(path)
    longer = long_session(3)
    longer.write(tmp_path)  # another record under the same name, and longer
    check(path)
    assert turns_df(path)["reply"].tolist() == [f"answer {number}" for number in range(3)]
    os.utime(path, ns=(1, 1))
    check(path)
    other = tmp_path / "other"
    other.mkdir()
    two_turns().write(other).replace(path)
    check(path)
    assert turns_df(path)["reply"].tolist() == ["It says hello.", "Welcome."]
    (tmp_path / "s-1" / "subagents").mkdir(parents=True)
    side = Session("s-1", prefix="side", isSidechain=True, agentId="abc")
    side.prompt(1.6, "look", "x")
    side.write(tmp_path / "s-1" / "subagents", "agent-abc")
    check(path)
    assert len(agents_df(path)) == 2


def test_prices_make_another_account(tmp_path: Path) -> None:
    path = two_turns().write(tmp_path)
    assert turns_df(path)["cost_usd"].isna().all()
    assert turns_df(path, prices={"m-1": {"input": 1, "output": 1, "cache_read": 1, "cache_creation": 1}})[
        "cost_usd"
    ].tolist() == [pytest.approx(71 / 1e6), pytest.approx(3 / 1e6)]
    assert turns_df(path)["cost_usd"].isna().all()


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ("nothing", "completed"),
        ("a prompt", None),
        ("an interrupt", "cancelled"),
        ("an error", "failed"),
        ("a limit", "failed"),
    ],
)
def test_how_a_conversation_stands_is_how_its_last_turn_ended(tmp_path: Path, last: str, status: str | None) -> None:
    session = two_turns()
    if last != "nothing":
        session.prompt(20, "go on", "p3")
        session.said(21, "d", tool("t2", "Bash", command="ls"), input_tokens=1)
    if last == "an interrupt":
        session.add(22, type="user", message={"content": "[Request interrupted by user]"})
    elif last in {"an error", "a limit"}:
        kind, code = ("rate_limit", 429) if last == "a limit" else ("server_error", 500)
        message = {"id": "x", "model": "<synthetic>", "content": [{"type": "text", "text": "no"}]}
        session.add(22, type="assistant", isApiErrorMessage=True, error=kind, apiErrorStatus=code, message=message)
    path = session.write(tmp_path)
    (row,) = runs_df(path).to_dict("records")
    assert (None if pd.isna(row["status"]) else row["status"]) == status
    assert pd.isna(row["ended_at"]) == (status is None)
    if status is not None:
        assert row["ended_at"] == pd.Timestamp(at(11 if last == "nothing" else 22))


def test_a_record_nested_too_deep_to_be_copied_is_read_all_the_same(tmp_path: Path) -> None:
    session = two_turns()
    deep: Any = 1
    for _ in range(400):
        deep = {"x": deep}
    session.records[-1]["message"]["usage"]["deep"] = deep
    path = session.write(tmp_path)
    check(path)
    session.prompt(20, "more", "p3")
    session.write(tmp_path)
    check(path)
    assert messages_df(path)["content"].tolist()[-1] == "more"


def test_only_so_much_is_kept_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    class Made:
        def advance(self) -> bool:
            return True

    keep: Keep[Made] = Keep(limit=100)

    def ask(name: str, size: int = 40) -> Made:
        with keep.following(name, lambda: Signature((Stamp(1, 1, size, 1),), ()), Made) as made:
            return made

    first, second = ask("a"), ask("b")
    assert ask("a") is first
    ask("c")
    assert (ask("a"), len(keep)) == (first, 2)
    assert ask("b") is not second
    huge = ask("huge", 101)
    assert ask("huge", 101) is not huge
    assert len(keep) == 2
    path = written(tmp_path / "gone.jsonl", two_turns().records)
    turns_df(path)
    known = len(conversation._KEPT)
    path.unlink()
    assert known == len(conversation._KEPT) == 1
