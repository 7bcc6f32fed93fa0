"""What a slow browser gets: every event in order, the newest status, and a fresh screen instead of a backlog."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.server.outbox import Events, Metrics, Outbox, Repaint, Resume, Screens, Status

ALL = {"status", "metrics", "agent", "message", "screen", "alert"}


def event(seq: int, name: str = "message.queued") -> dict[str, Any]:
    return {"seq": seq, "event": name}


def screen(data: bytes, *, agent: str = "ada", repaint: bool = False) -> Screens:
    return Screens("lab", agent, data, repaint, 80, 24)


def opened(**limits: int) -> Outbox:
    box = Outbox(**limits)
    box.open("lab", ALL)
    return box


def everything(box: Outbox) -> list[Any]:
    found = []
    while (item := box.take()) is not None:
        found.append(item)
    return found


def test_events_come_before_the_status_and_screens_last() -> None:
    box = opened()
    box.put_screen(screen(b"x", repaint=True))
    box.put_status("lab", {"status": "old"})
    box.put_status("lab", {"status": "new"})
    box.put_metrics("lab")
    box.put_events("lab", [event(1), event(2, "process.sample"), event(3, "alert.opened")])
    assert everything(box) == [
        Events("lab", (event(1), event(3, "alert.opened"))),
        Status("lab", {"status": "new"}),
        Metrics("lab"),
        screen(b"x", repaint=True),
    ]


def test_a_pane_that_falls_behind_gets_one_repaint_and_nothing_before_it() -> None:
    box = opened(most_bytes=10)
    box.put_screen(screen(b"first", repaint=True))
    box.put_screen(screen(b"12345"))
    box.put_screen(screen(b"6"))  # too much
    box.put_screen(screen(b"lost"))
    assert everything(box) == [Repaint("lab", "ada")]
    box.put_screen(screen(b"lost too"))
    assert everything(box) == []
    box.put_screen(screen(b"whole", repaint=True))
    box.put_screen(screen(b"+"))
    assert everything(box) == [screen(b"whole+", repaint=True)]


def test_panes_take_turns() -> None:
    box = opened()
    for agent in ("ada", "bob"):
        box.put_screen(screen(b"x", agent=agent, repaint=True))
    first = box.take()
    assert isinstance(first, Screens)
    box.put_screen(screen(b"y", agent="ada"))
    assert [item.agent for item in everything(box)] == ["bob", "ada"]


def test_events_beyond_the_limit_are_read_from_the_journal() -> None:
    box = opened(most_events=3)
    box.put_events("lab", [event(number) for number in range(1, 8)])
    assert everything(box) == [Events("lab", (event(1), event(2), event(3))), Resume("lab", 3)]
    box.put_events("lab", [event(4)])
    assert everything(box) == [Events("lab", (event(4),))]


def test_what_nobody_asked_for_is_not_kept() -> None:
    box = Outbox()
    box.put_events("lab", [event(1)])
    box.open("lab", {"alert", "event"})
    box.put_events("lab", [event(2), event(3, "run.started")])
    box.put_status("lab", {})
    box.put_screen(screen(b"x"))
    assert everything(box) == [Events("lab", (event(2), event(3, "run.started")))]
    box.put_events("lab", [event(4)])
    box.close("lab")
    assert everything(box) == []


@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 9))
def test_no_event_is_lost_or_told_twice_whatever_the_pace(pace: list[int], most: int) -> None:
    total, sent = 60, 0
    box = opened(most_events=most)
    told: list[int] = []
    for step in [*pace, total, total]:
        box.put_events("lab", [event(number) for number in range(sent + 1, min(total, sent + step) + 1)])
        sent = min(total, sent + step)
        for _ in range(3):
            item = box.take()
            if isinstance(item, Events):
                told += [one["seq"] for one in item.events]
            elif isinstance(item, Resume):
                box.put_events("lab", [event(number) for number in range(item.since + 1, sent + 1)])
    while (item := box.take()) is not None:
        if isinstance(item, Events):
            told += [one["seq"] for one in item.events]
        else:
            assert isinstance(item, Resume)
            box.put_events("lab", [event(number) for number in range(item.since + 1, sent + 1)])
    assert told == list(range(1, total + 1))
