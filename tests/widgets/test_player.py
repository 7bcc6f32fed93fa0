"""The player's half in the kernel: it tells what it is asked for, in bounded messages, and leaves stills behind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from played_run import write_played

from orchestrator_lab.errors import ConfigError, EnvironmentProblem
from orchestrator_lab.reading.film import Film
from orchestrator_lab.run import Run
from orchestrator_lab.widgets import player as player_module
from orchestrator_lab.widgets.player import Projector, RunPlayer

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(write_played(tmp_path_factory.mktemp("played"), flood_bytes=3_000_000))


class Page:
    """Asks a projector as a page does, and holds what it is told."""

    def __init__(self, film: Film) -> None:
        self.heard: list[tuple[dict[str, Any], list[bytes]]] = []
        self._news = threading.Condition()
        self.projector = Projector(film, self._hear)
        self.number = 0

    def _hear(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        with self._news:
            self.heard.append((message, buffers))
            self._news.notify_all()

    def ask(self, **message: Any) -> tuple[dict[str, Any], list[bytes]]:
        self.number += 1
        number = self.number
        self.projector.ask({**message, "view": "p1", "n": number})

        def answer() -> Any:
            return next((one for one in self.heard if one[0]["n"] == number and one[0]["type"] != "progress"), None)

        with self._news:
            found = self._news.wait_for(answer, 20)
        assert found, self.heard
        return found  # type: ignore[no-any-return]


@pytest.fixture
def page(played: Run) -> Iterator[Page]:
    made = Page(Film(played.tables))
    yield made
    made.projector.close()


def test_nothing_is_sent_that_was_not_asked_for_and_each_answer_is_bounded(page: Page) -> None:
    assert page.heard == []
    wants = [{"agent": name, "at": 15.0, "anew": True} for name in ("ada", "bob", "nobody")]
    told, buffers = page.ask(type="need", wants=wants)
    assert told["type"] == "shown"
    assert [pane["agent"] for pane in told["panes"]] == ["ada", "bob"]
    assert [bool(part) for part in buffers] == [True, True, True, True]
    size, bob, count = 0, told["panes"][1], 0
    while bob["to"] is not None:
        told, buffers = page.ask(type="need", wants=[{"agent": "bob", "at": bob["to"], "anew": False}])
        bob, count = told["panes"][0], count + 1
        assert buffers[0] == b""
        assert len(buffers[1]) < player_module._MOST + 100_000
        size += len(buffers[1])
    assert 3 < count < 12
    assert size > 2_000_000
    answers = [message for message, _ in page.heard if message["type"] != "progress"]
    assert len(answers) == page.number  # one for each question


def test_a_long_way_is_told_and_what_fails_too(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.ask(type="need", wants=[{"agent": "bob", "at": 50.0, "anew": True}])
    done = [message["done"] for message, _ in page.heard if message["type"] == "progress"]
    assert done == sorted(done)
    assert 0 < done[0] <= 1
    monkeypatch.setattr(Film, "talk", lambda *_: 1 / 0)
    told, _ = page.ask(type="talk", at=1.0)
    assert told == {
        "type": "error",
        "message": "this is a bug: ZeroDivisionError: division by zero",
        "view": "p1",
        "n": 2,
    }
    told, _ = page.ask(type="need", wants=[])
    assert told["panes"] == []


def test_it_is_shown_with_stills_and_leaves_them_behind(played: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    player = played.play(at="dlg_1")
    assert isinstance(player, RunPlayer)
    assert repr(player) == "RunPlayer(agents=2)"
    shown = player._repr_mimebundle_()
    assert WIDGET_VIEW in shown
    assert "May bob multiply?" in shown["text/html"]
    assert "forty-two" not in shown["text/html"]
    assert "31.2 s of 60.0 s" in shown["text/html"]
    assert played.play("ada", at="dlg_1")._repr_mimebundle_()["text/plain"] == "RunPlayer(agents=1)"
    updated: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.update_display", lambda data, **_: updated.append(data))
    player._shown_as = ("one", "two")
    player.freeze()
    player.freeze()
    assert len(updated) == 2
    assert set(updated[0]) == {"text/plain", "text/html"}
    assert WIDGET_VIEW not in player._repr_mimebundle_()


def test_static_notebooks_get_stills_only(played: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise EnvironmentProblem("there is no bundle", file=name)

    monkeypatch.setattr(player_module, "part", missing)
    with pytest.raises(EnvironmentProblem):
        played.play()
    monkeypatch.setenv("ORCHESTRATOR_LAB_WIDGETS", "static")
    bundles = [played.play(at=at)._repr_mimebundle_() for at in (None, None, 12.0)]
    assert set(bundles[0]) == {"text/plain", "text/html"}
    assert bundles[0] == bundles[1] != bundles[2]
    assert "good night" in bundles[0]["text/html"]


def test_options_say_what_a_page_needs_first(played: Run) -> None:
    film = played.play(at=33.0).options["film"]
    assert (film["title"], film["at"]) == ("played", 33.0)
    assert [one["state"] for one in film["agents"]] == ["busy", "waiting"]
    assert [mark["who"] for mark in film["marks"]] == ["user", "ada", "bob", "bob", "ada"]
    assert set(film["colors"]) == {"ada", "bob"}


def test_files_are_closed_with_it(played: Run) -> None:
    def opened() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(link.readlink()).startswith(str(played.path)) for link in links)

    before = opened()
    player = played.play()
    assert opened() == before + 2
    player.close()
    assert opened() == before
    with pytest.raises(ConfigError, match="has no message"):
        played.play(at="msg_nothing")
    assert opened() == before
