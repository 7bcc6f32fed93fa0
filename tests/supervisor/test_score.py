"""Who made each event of a recorded run happen, and the order that a replay keeps to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.journal.causes import causes
from orchestrator_lab.journal.event import Event
from orchestrator_lab.keeper.clock import Clock
from orchestrator_lab.programs.replay.typed import Typing
from orchestrator_lab.supervisor.conductor import Conductor
from orchestrator_lab.supervisor.reels import half_written, reels
from orchestrator_lab.supervisor.score import Score


def events(*told: tuple[str, dict[str, Any]]) -> list[Event]:
    """A journal: names of events, with what they say."""
    found = []
    for seq, (name, facts) in enumerate(told, 1):
        known = {key: facts.pop(key) for key in ("agent", "message_id", "turn_id", "source") if key in facts}
        found.append(Event(seq, name, f"2026-01-01T00:00:{seq:02d}.000000Z", float(seq), attributes=facts, **known))
    return found


def queued(message_id: str, sender: str, recipient: str, content: str, **facts: Any) -> tuple[str, dict[str, Any]]:
    said = {"sender": sender, "recipient": recipient, "content": content, "kind": "direct", **facts}
    return "message.queued", {"agent": recipient, "message_id": message_id, "source": "agent", **said}


def of(name: str, agent: str = "ada", **facts: Any) -> tuple[str, dict[str, Any]]:
    return name, {"agent": agent, **facts}


STORY = events(
    ("run.started", {}),
    of("agent.added"),
    of("agent.started", pid=1),
    of("agent.ready", source="hook"),
    of("agent.state", state="idle", decision="ready"),
    queued("m1", "user", "ada", "ask bob", source="program"),
    of("message.claimed", message_id="m1"),
    of("message.accepted", message_id="m1", turn_id="t1", source="hook"),
    of("turn.started", message_id="m1", turn_id="t1"),
    queued("m2", "ada", "bob", "a question"),
    of("message.accepted", "bob", message_id="m2", turn_id="t2", source="hook"),
    of("turn.started", "bob", message_id="m2", turn_id="t2"),
    of("turn.ended", "bob", turn_id="t2", reply="an answer", source="hook"),
    of("message.answered", "bob", message_id="m2", turn_id="t2"),
    queued("m3", "bob", "ada", "an answer", kind="reply", in_reply_to="m2"),
    of("agent.state", state="unknown", decision="hidden"),
    of("agent.state", state="idle", decision="ready"),
    ("process.sample", {"agent": "ada"}),
    queued("m4", "user", "ada", "by hand", source="human"),
    of("message.accepted", message_id="m4", turn_id="t3", source="hook"),
    of("agent.stopping", reason="shutdown"),
    of("agent.exited", exit_code=0),
)


def test_who_made_it_happen() -> None:
    told = dict(zip([one.seq for one in STORY], causes(STORY), strict=True))
    assert {told[seq] for seq in (1, 2, 3, 5, 7, 9, 12, 14)} == {"lab"}
    assert {told[seq] for seq in (4, 8, 11, 13)} == {"reel"}
    assert (told[6], told[10], told[15]) == ("user", "reel", "lab"), "sent, said by an agent, forwarded"
    assert (told[16], told[17], told[18]) == ("reel", "reel", "aside"), "what only the screen told is told again"
    assert (told[19], told[20]) == ("reel", "reel"), "typed at the pane"
    assert (told[21], told[22]) == ("user", "lab")


def test_ids_are_handed_out_in_the_recorded_order() -> None:
    score = Score(STORY)
    first = score.next_message("user", "ada", "something else")
    assert first is not None
    assert first.message_id == "m1", "the first one, when no text is the same"
    second = score.next_message("user", "ada", "by hand")
    assert second is not None
    assert second.message_id == "m4"
    assert score.next_message("user", "ada", "once more") is None
    assert (score.next_turn("bob", "m2"), score.next_turn("bob", "m2")) == ("t2", None)


def test_states_that_do_not_come_are_passed_over() -> None:
    score = Score(STORY)
    assert score.find("agent.state", "ada", None, None, {"state": "idle"}) == 4
    assert score.find("agent.state", "ada", None, None, {"state": "idle"}) == 16
    assert score.find("agent.state", "ada", None, None, {"state": "unknown"}) is None


def test_what_follows_from_a_message() -> None:
    """Its turn, what was said in it, and what came of that: nothing of it is waited for when it is not sent."""
    seqs = {STORY[place].seq for place in Score(STORY).consequences(5)}
    assert {6, 7, 8, 9} <= seqs
    assert not seqs & {1, 2, 3, 4, 5, 19, 20, 21, 22}


def test_reels_hold_what_a_program_did() -> None:
    score = Score(STORY)
    (ada,) = reels(score, "ada", [])
    done = [(one["do"], one.get("what")) for one in ada.steps]
    assert done[:4] == [("say", "ready"), ("read", None), ("say", "accepted"), ("say", "said")]
    said = ada.steps[3]
    assert (said["to"], said["text"], said["place"]) == ("bob", "a question", 9)
    typed, rest = ada.steps[-2:]
    assert rest["do"] == "rest", "somebody ended it"
    assert (typed["what"], typed["prompt"], typed["place"]) == ("accepted", "by hand", 18), "at the message's own place"
    assert ada.head["ends"] == {"status": 0, "signal": None}


def test_nobody_acts_before_their_turn() -> None:
    async def play() -> list[str]:
        gone: list[Event] = []
        conductor = Conductor(Score(STORY), gone.append)
        order: list[str] = []

        async def report(place: int, name: str) -> None:
            await conductor.turn(place, "player")
            order.append(name)
            conductor.came(place)

        late = asyncio.create_task(report(3, "ready"))
        await asyncio.sleep(0)
        assert order == []
        for place in (0, 1, 2):
            conductor.came(place)
        await asyncio.wait_for(late, 1)
        assert conductor.score.events[conductor.cursor] is STORY[4]
        left = conductor.give_up(20)
        assert [one.seq for one in left] == [one.seq for one in STORY[4:20] if one.event != "process.sample"]
        conductor.close()
        return order

    assert asyncio.run(play()) == ["ready"]


def test_somebody_waits_for_what_follows_something_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator_lab.supervisor.conductor._AWAITED_S", 0.02)

    async def play() -> list[Event]:
        gone: list[Event] = []
        conductor = Conductor(Score(STORY), gone.append)
        for place in range(5):
            conductor.came(place)
        bob = asyncio.create_task(conductor.turn(18, "player", "bob"))
        await asyncio.sleep(0.1)
        assert not bob.done(), "a reader may take as long as they like"
        with conductor.awaited():
            await asyncio.sleep(0.1)
        conductor.close()
        await bob
        return gone

    assert [one.message_id for one in asyncio.run(play())] == ["m1"]


TEXTS = st.text(st.characters(blacklist_categories=["Cc", "Cs"]) | st.sampled_from("\n\t"), min_size=1)


@given(TEXTS, st.booleans(), st.data())
def test_a_text_is_taken_however_it_comes(text: str, framed: bool, data: st.DataObject) -> None:
    """Pasted or bare, in pieces, with answers of the terminal before and after it."""
    typed = text.encode()
    if framed:
        typed = b"\x1b[200~" + typed.replace(b"\n", b"\r") + b"\x1b[201~"
    stream = b"\x1b[?1;2c\x1b]11;rgb:0/0/0\x1b\\" + typed + b"\r" + b"\x1b[O"
    typing = Typing()
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        typing.feed(stream[:cut])
        stream = stream[cut:]
    assert typing.text(text) == text
    assert typing.text() is None


def test_keys_and_other_texts() -> None:
    typing = Typing()
    typing.feed(b"\x03")
    assert typing.key(b"\x03")
    assert not typing.key(b"\x03")
    typing.feed(b"another\r")
    assert typing.text("expected") == "another"


@given(st.lists(st.tuples(st.integers(0, 10**9), st.binary(max_size=20)), max_size=8), st.data())
def test_times_are_taken_out_of_the_output(pieces: list[tuple[int, bytes]], data: st.DataObject) -> None:
    clean = [(at, piece.replace(b"\x1b", b"")) for at, piece in pieces]
    stream = b"".join(b"\x1b]6973;%d\x07" % at + piece for at, piece in clean)
    clock, found = Clock(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += clock.feed(stream[:cut])
        stream = stream[cut:]
    assert b"".join(piece for _, piece in found) == b"".join(piece for _, piece in clean)
    assert [at for at, _ in found if at is not None] == [at for at, _ in clean]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("plain", ""),
        ("a\x1b", "\x1b"),
        ("a\x1b[31", "\x1b[31"),
        ("a\x1b[31m", ""),
        ("\x1b]0;title", "\x1b]0;title"),
        ("\x1b]0;title\x1b", "\x1b]0;title\x1b"),
        ("\x1b]0;title\x1b\\", ""),
        ("\x1b(B", ""),
        ("\x1b7", ""),
    ],
)
def test_no_time_is_told_within_a_sequence(text: str, left: str) -> None:
    assert half_written(text) == left


def test_what_the_lab_reads_after_an_end_is_not_the_players_to_tell() -> None:
    """A program's record is read once more when it was ended: tokens, and the model that they name."""
    told = [
        *[(one.event, {"agent": one.agent, **one.attributes}) for one in STORY[:5]],
        of("agent.stopping", reason="shutdown"),
        of("turn.usage", turn_id="t1", output_tokens=3),
        of("agent.model", model="m"),
        of("turn.usage", turn_id="t1", output_tokens=4),
        of("agent.exited", exit_code=0),
    ]
    (ada,) = reels(Score(events(*told)), "ada", [])
    assert [(one["do"], one.get("what")) for one in ada.steps] == [("say", "ready"), ("rest", None)]


def test_a_program_that_is_asked_to_end_says_what_it_said_then() -> None:
    """A turn that its end interrupts is told by itself; it rests once it has."""
    told = [
        *[(one.event, {"agent": one.agent, **one.attributes}) for one in STORY[:5]],
        of("agent.stopping", reason="stop"),
        of("turn.ended", turn_id="t1", end_reason="interrupted", source="hook"),
        of("agent.exited", exit_code=0),
    ]
    (ada,) = reels(Score(events(*told)), "ada", [])
    said = [(one["do"], one.get("what"), one.get("place")) for one in ada.steps]
    assert said == [("say", "ready", 3), ("say", "asked", 5), ("say", "turn_ended", 6), ("rest", None, 7)]


def test_who_started_and_removed_an_agent() -> None:
    told = [
        of("agent.added"),
        of("agent.started"),
        of("agent.exited"),
        of("agent.started"),
        of("agent.stopping", reason="restart"),
        of("agent.started"),
        ("cluster.stopped", {}),
        ("cluster.restarted", {}),
        of("agent.started"),
        of("agent.exited"),
        of("agent.restarting"),
        of("agent.started"),
        of("agent.stopping", reason="remove"),
        of("agent.removed"),
        of("agent.added", "eve"),
        of("agent.started", "eve"),
        of("agent.exited", "eve"),
        of("agent.removed", "eve"),
    ]
    made = causes(events(*told))
    starts = [cause for (name, _), cause in zip(told, made, strict=True) if name == "agent.started"]
    assert starts == ["lab", "user", "lab", "lab", "lab", "lab"]
    assert [made[0], made[14]] == ["lab", "user"], "one of the first, one that joined"
    assert [made[13], made[17]] == ["lab", "user"], "one that was ended for it, one that had ended"


def test_a_note_is_known_by_what_it_says() -> None:
    """That a pane was closed may not be noted again; an interrupt is none of it."""
    score = Score(events(of("note", text="pane_closed"), of("note", text="interrupted", source="human")))
    assert score.find("note", "ada", None, None, {"text": "interrupted"}) == 1
    assert score.find("note", "ada", None, None, {"text": "pane_closed"}) == 0
    assert score.find("note", "ada", None, None, {"text": "interrupted"}) is None
