from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from html_page import Page
from telling import NASTY

from orchestrator_lab.beginning import create_run
from orchestrator_lab.errors import AgentNotFound, ConfigError
from orchestrator_lab.plots import agent_colors
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_entries_are_in_the_order_in_which_they_happened(told: Run) -> None:
    talk = told.conversation()
    assert [(entry.kind, entry.who, entry.to) for entry in talk] == [
        ("message", "user", ("boss",)),
        ("dialog", "boss", ()),
        ("message", "boss", ("worker",)),
        ("turn", "worker", ("boss",)),
        ("message", "worker", ("boss",)),
        ("turn", "boss", ("user",)),
        ("turn", "boss", ("worker",)),
        ("message", "user", ("worker",)),
    ]
    assert [entry.repeats for entry in talk].count(True) == 1
    assert talk.entries[4].repeats
    assert [call["name"] for call in talk.entries[5].calls] == ["Bash"]


def test_nothing_that_agents_write_is_more_than_text(told: Run) -> None:
    for shown in (told.conversation()._repr_html_(), told.conversation().to_html()):
        page = Page(shown)
        assert page.open == []
        assert set(page.tags) <= {
            "html", "head", "meta", "title", "style", "body", "div", "span", "b", "i", "bdi", "details", "summary", "a",
        }  # fmt: skip
        assert page.attributes <= {
            "lang", "charset", "http-equiv", "content", "name", "style", "role", "aria-label", "aria-hidden", "title",
            "dir", "id", "href",
        }  # fmt: skip
        assert "<script>alert(1)</script>" in page.text
        assert "\x1b" not in shown
        assert "␛]0;title␇" in page.text
        shown.encode()  # a lone surrogate would not go into a file


def test_a_page_loads_nothing_and_knows_light_and_dark(told: Run) -> None:
    page = told.conversation().to_html()
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert "color-scheme:light dark" in page
    assert not re.search(r"\bsrc=", page)


def test_each_entry_is_linked_to_itself_and_to_nothing_else(told: Run) -> None:
    talk = told.conversation()
    page = Page(talk.to_html())
    assert page.anchors == [f"olab-{entry.id}" for entry in talk] == [link.removeprefix("#") for link in page.links]
    talk.entries[0].row["message_id"] = "\"><script>'\udcff %"
    page = Page(talk.to_html())
    assert "script" not in page.tags
    assert page.links[0] == "#olab-%22%3E%3Cscript%3E%27%3F%20%25"


def test_colours_rungs_tools_and_tokens_are_shown(told: Run) -> None:
    shown = told.conversation()._repr_html_()
    colors = agent_colors(told.agents["name"])
    assert f"border-left:4px solid {colors['boss']}" in shown
    assert f"border-left:4px solid {colors['worker']}" in shown
    hover = re.search(r'title="(queued [^"]+accepted [^"]+\(hook\)[^"]+)"', shown)
    assert hover is not None
    assert "msg_1" in hover[1]
    assert '<summary style="cursor:pointer">1 tool call: Bash</summary>' in shown
    assert "100 tokens in, 7 out" in shown
    assert "answer by human after" in shown
    assert "user may not write" in shown
    assert "of boss&#x27;s recording" in shown
    assert "the text of the reply above" in shown
    assert "(1801 characters)" in shown or "(2700 characters)" in shown


def test_markdown_shows_texts_as_they_are(told: Run) -> None:
    text = told.conversation().to_markdown()
    assert text.startswith("# duo: conversation\n")
    assert "````text\nAsk the worker. <script>alert(1)</script>\n```\n=HYPERLINK" in text
    assert "**worker answers boss (" in text
    assert "- tool Bash, ok" in text
    assert "Answered by human: yes" in text
    outside = re.sub(r"^ *(`{3,})text\n.*?^ *\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script>" not in outside
    assert "⋮" not in outside


def test_one_agent_and_several(told: Run) -> None:
    assert {"boss", "user"} == {entry.who for entry in told.conversation("boss")} - {"worker"}
    assert [entry.kind for entry in told.conversation("worker")] == ["message", "turn", "message", "turn", "message"]
    assert len(told.conversation(["boss", "worker"])) == len(told.conversation())
    with pytest.raises(AgentNotFound, match="nobody called 'bos' is in this run; there are: boss, worker, user"):
        told.conversation("bos")
    with pytest.raises(ConfigError, match="limit=0: expected a number of entries"):
        told.conversation(limit=0)


def test_text(told: Run) -> None:
    lines = repr(told.conversation()).splitlines()
    assert lines[0] == "duo: conversation (4 messages, 3 turns, 1 dialog)"
    assert "user → boss (answered)" in lines[1]
    assert lines[2].strip().startswith("Ask the worker. <script>")
    assert max(map(len, lines)) < 320
    assert NASTY not in repr(told.conversation())


def test_a_run_without_messages(tmp_path: Path) -> None:
    talk = Run(create_run(tmp_path, config={}, name="duo")).conversation()
    assert "nothing was said" in talk._repr_html_()
    assert repr(talk) == "duo: conversation (0 messages, 0 turns)"
    assert talk.to_markdown().startswith("# duo: conversation")


def test_long_conversations_of_many_agents(tmp_path: Path, many: Callable[[Path, int, int], Run]) -> None:
    run = many(tmp_path, 1500, 30)
    begin = time.process_time()
    talk = run.conversation()
    shown = talk._repr_html_()
    assert time.process_time() - begin < 10
    assert "2800 more entries before these" in shown
    assert len(shown) < 400_000
    assert "answer 1499" in shown
    assert "answer 1399<" not in shown
    assert len(set(talk.colors.values())) == 30
    whole = talk.to_html()
    assert whole.count("content-visibility:auto") == 3000
    assert "more entries" not in whole
    assert "… 2980 earlier entries" in repr(talk)
    assert "200 more" not in run.conversation(limit=None)._repr_html_()
