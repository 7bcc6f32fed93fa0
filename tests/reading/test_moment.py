"""The screen of a pane at any instant, from the recording alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from orchestrator_lab.errors import AgentNotFound, ConfigError
from orchestrator_lab.stills import Screen

if TYPE_CHECKING:
    from orchestrator_lab.run import Run


def event(run: Run, name: str, agent: str = "boss") -> Any:
    return next(one for one in run.events() if one.event == name and one.agent == agent)


def test_at_an_instant_however_it_is_said(told: Run) -> None:
    asked = event(told, "dialog.answered")
    before = event(told, "message.queued")
    for at in (asked.monotonic_s, asked.at, datetime.fromisoformat(asked.at), told.dialogs["answered_at"][0]):
        shown = told.screen("boss", at)
        assert "1. yes" in shown.text
        assert "boss is ready" in shown.text
    assert told.screen("boss", before.monotonic_s).text == "boss is ready"
    assert "\x1b[0;38;5;1m❯ Ask the worker" in told.screen("boss", asked.monotonic_s).ansi


def test_at_what_an_id_names_and_at_the_end(told: Run) -> None:
    last = told.screen("boss")
    assert told.screen("boss", 9999.0).ansi == last.ansi
    for identity in ("msg_1", "trn_1", "tcl_1", "dlg_1"):
        # The whole run is shorter than a program is given to draw what it has reported.
        assert told.screen("boss", identity).ansi == last.ansi
    assert "finished" in last


@pytest.mark.parametrize(
    ("agent", "at", "sentence"),
    [
        ("nobody", None, "nobody called 'nobody' is in this run"),
        ("boss", "msg_nothing", "has no message, turn, tool call or dialog with this id"),
        ("boss", True, "expected seconds, an instant, or an id"),
        ("boss", -1.0, "was not recorded yet"),
        ("user", None, "holds no recording of user's pane"),
    ],
)
def test_what_there_is_no_screen_of(told: Run, agent: str, at: Any, sentence: str) -> None:
    with pytest.raises((AgentNotFound, ConfigError), match=sentence):
        told.screen(agent, at)


def test_before_the_recording_and_between_two_events(told: Run) -> None:
    first = datetime.fromisoformat(told.events()[0].at)
    with pytest.raises(ConfigError, match="was not recorded yet"):
        told.screen("boss", first - timedelta(seconds=5))


def test_a_picture_for_a_paper() -> None:
    screen = Screen("boss", "\x1b[31m❯ 日本 <b>\x1b[0m\n\nplain & more")
    picture = screen.svg()
    assert picture == screen.svg()
    root = ET.fromstring(picture)  # noqa: S314 - made here
    texts = "".join(node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "日本" in texts
    assert "boss" in texts
    assert "<b>" in texts
    assert "#f14c4c" in picture  # its red
    assert "url(http" not in picture.replace('"', "")
    assert "src:" not in picture
