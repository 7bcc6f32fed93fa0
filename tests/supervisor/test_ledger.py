"""The ledger keeps few messages in memory and knows them all."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.errors import JournalError, MessageRefused
from orchestrator_lab.journal.writer import JournalWriter
from orchestrator_lab.supervisor.conversations import Conversations
from orchestrator_lab.supervisor.crosscheck import CrossCheck
from orchestrator_lab.supervisor.journalled import Journalled, read_journal
from orchestrator_lab.supervisor.messages import Ledger, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDS = ("answered", "answered", "answered", "failed", "expired", "refused", "uncertain")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalWriter]:
    with JournalWriter(tmp_path / "journal.jsonl", run_id="run_x") as writer:
        yield writer


def live(ledger: Ledger, number: int, end: str, *, parent: Message | None = None) -> Message:
    """Take a message through its life as the supervisor does."""
    chance = random.Random(number)  # noqa: S311 - the same life for the same number
    sender, recipient = chance.sample(["ada", "bob", "user"], 2) if parent is None else ("bob", "ada")
    recipient = "cid" if recipient == "user" else recipient
    message = ledger.queue(
        sender=sender,
        recipient=recipient,
        content=f"number {number} " + "x" * 400,
        kind="direct",
        source="program" if sender == "user" else "agent",
        in_reply_to=parent.message_id if parent else None,
        step=number if number % 10 == 0 else None,
    )
    if end in {"expired", "refused", "failed"}:
        ledger.advance(message, end, error_type="t", error_message=f"why {number}")
        return message
    ledger.advance(message, "claimed")
    ledger.advance(message, "written")
    if end == "answered":
        ledger.advance(message, "accepted", turn_id=f"trn_{number}", prompt_id=f"p{number}")
        place = ledger.journal.size
        ledger.journal.append("turn.ended", agent=recipient, turn_id=f"trn_{number}", reply=f"reply {number}")
        ledger.answer(message, f"reply {number}", place)
        ledger.advance(message, "answered", turn_id=f"trn_{number}")
    elif end == "uncertain":
        ledger.advance(message, "uncertain", error_type="t", error_message="nobody knows")
    return message


def again(path: Path) -> tuple[Ledger, Journalled]:
    """Read a journal as a new supervisor does."""
    with JournalWriter(path, run_id="run_x") as writer:
        ledger = Ledger(writer)
        supervisor: Any = SimpleNamespace(journal=writer, ledger=ledger, crosscheck=CrossCheck(lambda *_: None))
        supervisor.conversations = Conversations(supervisor)
        known = read_journal(supervisor)
    # The file may be written by one at a time; it is read by this one alone from here on.
    ledger.journal = JournalWriter(path, run_id="run_x")
    ledger._archive._journal = ledger.journal
    return ledger, known


def told(ledger: Ledger, name: str, since: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    return [one.to_dict() for one in ledger.history(name, since, limit)]


def test_messages_that_are_over_are_found_as_they_were(journal: JournalWriter, tmp_path: Path) -> None:
    ledger = Ledger(journal)
    lived = [live(ledger, number, ENDS[number % len(ENDS)]) for number in range(700)]
    facts = {one.message_id: one.to_dict() for one in lived}
    assert ledger.count == 700
    # Three recipients, of each the last ones and those that may still be settled.
    assert len(ledger.messages) <= 3 * (8 + 64)
    assert {one: ledger[one].to_dict() for one in facts} == facts
    assert ledger.find("msg_unknown") is None
    with pytest.raises(KeyError):
        ledger["msg_unknown"]

    for name in ("ada", "bob"):
        known = [one.to_dict() for one in lived if one.known_to(name)]
        assert told(ledger, name) == known[-50:]
        assert told(ledger, name, limit=10_000) == known
        for index in (0, 3, len(known) // 2, len(known) - 1):
            assert told(ledger, name, known[index]["message_id"], 7) == known[index + 1 :][:7]
        foreign = next(one for one in lived if not one.known_to(name))
        with pytest.raises(MessageRefused, match="that you sent or got"):
            ledger.history(name, foreign.message_id)

    open_one = live(ledger, 1000, "open")
    histories = {name: told(ledger, name, limit=10_000) for name in ("ada", "bob")}
    journal.close()
    restored, found = again(tmp_path / "journal.jsonl")
    assert restored.count == 701
    assert {one: restored[one].to_dict() for one in facts} == facts
    assert restored.messages.keys() == ledger.messages.keys()
    assert restored[open_one.message_id].status == "written"
    for name in ("ada", "bob"):
        assert told(restored, name, limit=10_000) == histories[name]
    assert found.events == []
    assert list(found.prompts["ada"])
    restored.journal.close()


@settings(max_examples=40)
@given(cut=st.integers(0, 200_000))
def test_a_journal_cut_anywhere_is_taken_over_as_far_as_it_goes(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    whole = _lived()
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    data = whole[: cut % len(whole)]
    path.write_bytes(data)
    ledger, known = again(path)
    queued = [line for line in data.split(b"\n")[:-1] if b'"event":"message.queued"' in line]
    assert ledger.count == len(queued)
    status: dict[str, str] = {}
    for line in data.split(b"\n")[:-1]:
        event = json.loads(line)
        if event["event"].startswith("message."):
            status[event["message_id"]] = event["event"].removeprefix("message.")
    assert {one: ledger[one].status for one in status} == status
    assert known.turns == {}
    ledger.journal.close()


@functools.cache
def _lived() -> bytes:
    path = Path(tempfile.mkdtemp()) / "journal.jsonl"
    with JournalWriter(path, run_id="run_x") as writer:
        ledger = Ledger(writer)
        for number in range(120):
            live(ledger, number, ENDS[number % len(ENDS)])
    return path.read_bytes()


def test_late_evidence_settles_an_uncertain_message_that_was_kept(journal: JournalWriter) -> None:
    ledger = Ledger(journal)
    first = live(ledger, 1, "uncertain")
    for number in range(2, 60):
        live(ledger, number, "answered")
    assert ledger.messages[first.message_id] is first
    ledger.advance(first, "accepted", turn_id="trn_late")
    ledger.advance(first, "answered", turn_id="trn_late")
    for number in range(60, 120):
        live(ledger, number, "answered")
    assert first.message_id not in ledger.messages
    assert ledger[first.message_id].status == "answered"
    assert ledger[first.message_id].turn_id == "trn_late"


def test_an_answer_marks_the_message_that_it_answers(journal: JournalWriter, tmp_path: Path) -> None:
    ledger = Ledger(journal)
    asked = ledger.queue(sender="ada", recipient="bob", content="?", kind="direct", source="agent")
    other = ledger.queue(sender="ada", recipient="bob", content="??", kind="direct", source="agent")
    live(ledger, 1, "answered", parent=asked)
    assert asked.replied
    assert not other.replied
    journal.close()
    restored, _ = again(tmp_path / "journal.jsonl")
    assert [restored[one.message_id].replied for one in (asked, other)] == [True, False]
    restored.journal.close()


def test_who_waits_for_one_message_is_woken_by_it_alone(journal: JournalWriter) -> None:
    async def wait() -> None:
        ledger = Ledger(journal)
        mine, other = (
            ledger.queue(sender="user", recipient="ada", content=one, kind="direct", source="human") for one in "ab"
        )
        looks = 0

        def over() -> bool:
            nonlocal looks
            looks += 1
            return mine.final

        waiting = asyncio.create_task(ledger.until_rung(mine, over, 5))
        await asyncio.sleep(0)
        for status in ("claimed", "written", "accepted", "answered"):
            ledger.advance(other, status)
            await asyncio.sleep(0)
        assert looks == 1
        ledger.advance(mine, "failed")
        assert await waiting
        assert not await ledger.until_rung(other, lambda: False, 0.01)
        assert ledger._watchers == {}

    asyncio.run(wait())


def test_an_event_is_read_at_its_place(journal: JournalWriter) -> None:
    places = []
    for size in (0, 10, 4095, 4096, 100_000):
        places.append(journal.size)
        journal.append("note", text="é" * size)
    for place, size in zip(places, (0, 10, 4095, 4096, 100_000), strict=True):
        assert len(journal.event_at(place).attributes["text"]) == size
    for wrong in (journal.size, places[1] + 1):
        with pytest.raises(JournalError, match=f"no event begins at byte {wrong}"):
            journal.event_at(wrong)
