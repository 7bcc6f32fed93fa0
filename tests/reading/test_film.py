"""What a player of a run asks for: pictures of any instant, what comes after, the conversation around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import avt
import pytest
from played_run import write_played

from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import AgentNotFound, ConfigError, JournalError
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.reading import tape as tape_module
from orchestrator_lab.reading.film import Film
from orchestrator_lab.reading.screens import ansi_of, screens_at
from orchestrator_lab.reading.tape import Tape
from orchestrator_lab.run import Run
from orchestrator_lab.stills import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab.reading.film import Shown


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(write_played(tmp_path_factory.mktemp("played"), flood_bytes=300_000))


@pytest.fixture
def film(played: Run) -> Iterator[Film]:
    with Film(played.tables) as made:
        yield made


def drawn(picture: bytes, cols: int, rows: int) -> str:
    """Return what a terminal shows that is told a picture."""
    terminal = avt.Vt(cols, rows, 0)
    terminal.feed_str(picture.decode())
    return Screen("anybody", ansi_of(terminal)).text


def test_a_picture_of_any_instant_is_the_screen_of_it(played: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_module, "_STEP", 40_000)  # several pictures on the way
    path = played.path / "panes" / "bob.cast.zst"
    moments = [0.0, 10.6, 18.4, 20.11, 23.5, 29.99, 29.9, 3.0, 38.5, 99.0, 21.0]
    wanted = screens_at(path, "bob", moments)
    done: list[float] = []
    with Tape(path) as tape:
        for at_s, screen in zip(moments, wanted, strict=True):
            picture = tape.picture(at_s, progress=done.append)
            assert (picture.cols, picture.rows) == (60, 12)
            assert drawn(picture.data, 60, 12) == screen.text
            assert tape.screen(at_s, "bob").ansi == screen.ansi
        assert len(tape._kept) > 5
    assert done
    assert all(0 < part <= 1 for part in done)


def test_stretches_joined_are_the_recording_and_none_is_long(played: Run) -> None:
    path = played.path / "panes" / "bob.cast.zst"
    whole = read_cast(path).events
    with Tape(path) as tape:
        events, at_s, count = [], -1.0, 0
        while True:
            stretch = tape.stretch(at_s, most=10_000)
            assert all(at_s < event.time_s <= stretch.to_s for event in stretch.events)
            events += stretch.events
            count += 1
            if stretch.next_s is None:
                break
            assert stretch.next_s > stretch.to_s
            at_s = stretch.to_s
        assert events == whole
        assert count > 10
        assert tape.stretch(12.0, most=10_000).events[0].time_s > 12.0


def test_on_the_runs_clock_what_comes_after_a_picture_makes_the_next_one(film: Film) -> None:
    assert film.agents == ["ada", "bob"]
    assert film.duration_s == pytest.approx(60.0, abs=0.01)
    begun = film.shown("bob", 20.5, anew=True, most=9_000)
    terminal = avt.Vt(60, 12, 0)
    terminal.feed_str(begun.picture.decode())
    part: Shown | None = begun
    parts = 0
    while part is not None:
        parts += 1
        output, place = part.output, 0
        for event in part.head["events"]:
            if event[1] == "o":
                if event[0] <= 41.0:
                    terminal.feed_str(output[place : place + event[2]].decode())
                place += event[2]
        assert place == len(output)
        to_s = part.head["to"]
        part = None if to_s is None else film.shown("bob", to_s, anew=False, most=9_000)
        assert part is None or not part.picture
    assert parts > 10
    text = Screen("bob", ansi_of(terminal)).text
    assert text == film.screens(41.0)["bob"].text
    assert "42 — forty-two ✓ 四十二" in text


def test_facts_are_those_of_the_instant(film: Film) -> None:
    def known(at_s: float) -> dict[str, Any]:
        return next(one for one in film.known(at_s) if one["name"] == "bob")

    assert known(1.0)["state"] is None
    assert known(3.0)["state"] == "idle"
    assert known(3.0)["turns"] is None
    assert known(33.0)["dialog"] == {"subject": "May bob multiply?"}
    assert known(33.0)["state_s"] == pytest.approx(2.0)
    assert known(60.0) | {"state_s": 0} == {
        "name": "bob", "role": "answers", "kind": "chat", "state": "idle", "state_s": 0, "turns": 1,
        "input_tokens": 1200, "output_tokens": 80, "dialog": None,
    }  # fmt: skip
    changes = [event for event in film.shown("bob", 30.5, anew=True, most=9_000).head["events"] if event[1] == "f"]
    assert [event[2] for event in changes[:2]] == [{"dialog": {"subject": "May bob multiply?"}}, {"state": "waiting"}]
    assert changes[0][0] == pytest.approx(31.0)


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (None, 60.0),
        (7.5, 7.5),
        (1e9, 60.0),
        (-3, 0.0),
        ("2026-11-23T06:00:12Z", 12.0),
        ("msg_2", 12.2),  # as it came in, and a program draws a little later
        ("trn_2", 40.2),
        ("dlg_1", 31.2),
    ],
)
def test_an_instant_however_it_is_said(film: Film, at: object, seconds: float) -> None:
    assert film.seconds(at) == pytest.approx(seconds, abs=0.01)


def test_the_conversation_comes_in_windows_that_follow_the_clock(
    played: Run, many: Any, tmp_path: Path, film: Film
) -> None:
    told = film.talk(13.0)
    assert [entry["anchor"] for entry in told["entries"]] == [
        "olab-msg_1", "olab-msg_2", "olab-dlg_1", "olab-trn_2", "olab-trn_1",
    ]  # fmt: skip
    assert [round(entry["at"]) for entry in told["entries"]] == [5, 12, 31, 40, 50]
    assert (told["from"], told["to"], told["before"], told["after"]) == (None, None, 0, 0)
    assert told["html"].count('<div id="olab-') == 5
    assert [mark["kind"] for mark in film.marks()] == ["message", "message", "dialog", "turn", "turn"]
    assert film.marks()[1]["text"].startswith("ada → bob (answered): What is seven")
    # A long one: every entry is in some window, and each window holds what lies around its instant.
    run = many(tmp_path, 300, 3)
    (run.path / "panes").symlink_to(played.path / "panes")
    (run.path / "panes" / "agent-00.cast.zst").symlink_to("ada.cast.zst")
    try:
        with Film(run.tables) as long:
            moments, at_s, seen = long._moments, 0.0, 0
            while True:
                told = long.talk(at_s)
                assert len(told["entries"]) == 120
                assert told["before"] + 120 + told["after"] == 600
                assert told["before"] <= seen
                seen = told["before"] + 120
                if told["to"] is None:
                    break
                assert told["to"] > at_s
                at_s = told["to"]
            assert seen == 600
            assert len(long.marks()) <= 2 * 401
            assert long.talk(moments[300])["from"] <= moments[300]
    finally:
        (run.path / "panes" / "agent-00.cast.zst").unlink()


def test_one_recording_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    run = Run(write_played(tmp_path))
    (run.path / "panes" / "ada.cast.zst").write_bytes(b"no recording")
    with Film(run.tables) as film:
        assert film.agents == ["bob"]
        assert "ada.cast.zst: expected an asciicast v3 header" in film.lacks[0]
    assert "expected an asciicast" in run.play().options["film"]["lacks"][0]
    with pytest.raises(JournalError, match="expected an asciicast v3 header"):
        Film(run.tables, "ada")
    (run.path / "panes" / "bob.cast.zst").write_bytes(b"no recording")
    with pytest.raises(JournalError, match="bob"):
        Film(run.tables)


def test_what_cannot_be_played(played: Run, tmp_path: Path) -> None:
    with pytest.raises(AgentNotFound, match="nobody called 'eve'"):
        Film(played.tables, "eve")
    with pytest.raises(ConfigError, match=r"holds no recording of the pane of user: there is nothing to play"):
        Film(played.tables, "user")
    with pytest.raises(ConfigError, match="has no message, turn, tool call or dialog"):
        played.play(at="msg_9")
    with pytest.raises(ConfigError, match="expected seconds, an instant, or an id"):
        played.play(at=float("nan"))
    with pytest.raises(ConfigError, match="holds no recording of any pane"):
        Run(create_run(tmp_path, config={}, name="empty")).play()
