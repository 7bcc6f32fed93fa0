from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from telling import NASTY
from test_conversation import Page

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.journal.recording import CastWriter, to_cast
from orchestrator_lab.reading.screens import recording_of, screens_at
from orchestrator_lab.reading.story import Story
from orchestrator_lab.run import open_run
from orchestrator_lab.tables import RunTables

if TYPE_CHECKING:
    from orchestrator_lab.run import Run


def test_every_rung_with_its_evidence(told: Run) -> None:
    story = told.story("msg_1")
    assert [step.event.event for step in story.steps] == [
        "message.queued", "message.claimed", "message.written", "message.submitted", "message.accepted",
        "turn.started", "message.started", "tool.started", "dialog.opened", "dialog.answered", "tool.ended",
        "turn.ended", "message.answered", "turn.usage",
    ]  # fmt: skip
    assert story.steps[0].after_s == 0
    assert [step.after_s for step in story.steps] == sorted(step.after_s for step in story.steps)
    assert story.steps[4].event.source == "hook"
    assert all(step.offset_s is not None for step in story.steps)
    assert "bytes=" in story.steps[2].details
    assert story.turn is not None
    assert story.turn["turn_id"] == "trn_1"
    assert [call["name"] for call in story.tool_calls] == ["Bash"]
    assert [dialog["decision"] for dialog in story.dialogs] == ["yes"]
    assert [reply["message_id"] for reply in story.replies] == ["msg_2"]


def pictures(story: Story) -> dict[str, str]:
    """Return the text of the screen at each instant."""
    return {what: moment.screen.text for moment in story.screens for what in moment.what.split(", ")}


def test_screens_at_the_instants_that_matter(told: Run) -> None:
    shown = pictures(told.story("msg_1", settle_s=0.01))
    assert shown["written"] == shown["accepted"] == "boss is ready"
    assert shown["dialog opened"] == "boss is ready\n❯ Ask the worker"
    assert shown["answered"] == "finished ✓"
    at = {step.event.event: step.after_s for step in told.story("msg_1").steps}
    settle_s = at["dialog.answered"] - at["dialog.opened"] - 0.005  # just before somebody answered
    later = pictures(told.story("msg_1", settle_s=settle_s))
    assert later["dialog opened"].endswith("Run ls?\n1. yes\n2. no")
    red = told.story("msg_1", settle_s=0.01).screens[1].screen
    assert "color: #f14c4c" in red.html()


def test_a_screen_says_once_what_happened() -> None:
    """A real program's question is seen twice: by its hook, and with its options on the screen."""
    run = open_run(Path(__file__).resolve().parents[2] / "notebooks" / "recorded" / "claude-team.olab.zip")
    (asked,) = run.messages.loc[run.messages["content"].str.contains("run your tests against"), "message_id"]
    story = run.story(asked)
    assert [step.event.event for step in story.steps].count("dialog.opened") == 2
    (question,) = [moment for moment in story.screens if "dialog opened" in moment.what]
    assert question.what.split(", ").count("dialog opened") == 1
    assert "Do you want to proceed?" in question.screen


def test_as_text_and_as_html(told: Run) -> None:
    story = told.story("msg_1")
    text = repr(story)
    assert text.startswith("Message msg_1, user → boss: answered\n")
    assert re.search(r"\+0\.\d+ s  message\.accepted +by hook", text)
    assert "tool Bash (ok, 0.0" in text
    assert "dialog (permission): Run ls <b>? → yes by human" in text
    assert "answered by msg_2, boss → worker" in text
    assert "\x1b" not in text
    for shown in (story._repr_html_(), story.to_html()):
        page = Page(shown)
        assert page.open == []
        assert "script" not in page.tags
        assert "b" in page.tags
        assert not page.attributes & {"href", "src", "onclick", "onerror"}
        assert NASTY.split("\n")[0] in page.text
        assert "100 tokens in, 7 out" in page.text
        assert "finished ✓" in page.text


def test_a_message_that_answers_another(told: Run) -> None:
    story = told.story("msg_3")
    assert story.asked is not None
    assert story.asked["message_id"] == "msg_2"
    assert "answers msg_2: What is seven times six?" in repr(story)


def test_a_refused_message_has_a_short_story(told: Run) -> None:
    story = told.story("msg_4")
    assert (story.turn, story.tool_calls, story.dialogs, story.screens) == (None, [], [], [])
    assert "user may not write" in repr(story)
    assert "not recorded" in story._repr_html_()


def test_no_such_message(told: Run) -> None:
    with pytest.raises(ConfigError, match=r"no message 'msg_9' in run run_\w+: it has 4; run\.messages lists them"):
        told.story("msg_9")


def test_events_that_come_another_way(told: Run) -> None:
    tables = RunTables.from_events("run_x", told.events())
    story = Story(tables, "msg_1")
    assert [step.event.event for step in story.steps] == [step.event.event for step in told.story("msg_1").steps]
    assert story.screens == []


def test_a_pane_of_any_size_and_script(tmp_path: Path) -> None:
    path = tmp_path / "panes" / "ada.cast.zst"
    path.parent.mkdir()
    with CastWriter(path, cols=20, rows=3) as cast:
        cast.write("日本 \x1b[1;38;2;1;2;3mrgb\x1b[0m\r\n".encode() + b"\xff\r\n")
        cast.resize(40, 5)
        cast.write(b"x" * 40)
    (screen,) = screens_at(path, "ada", [9.0])
    assert "日本 rgb" in screen.text
    assert "\ufffd" in screen.text
    assert "x" * 40 in screen.text
    assert "\x1b[0;1;38;2;1;2;3mrgb\x1b[0m" in screen.ansi
    assert recording_of(tmp_path, "ada") == path
    assert recording_of(tmp_path, "../ada") is None
    plain = to_cast(path, tmp_path / "panes" / "bob.cast")
    assert recording_of(tmp_path, "bob") == plain
    assert screens_at(plain, "bob", [9.0])[0].text == screen.text
