"""Stills of panes: text and HTML that a notebook may show, whatever an agent wrote."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from orchestrator_lab.stills import Screen, Screens


def test_text_has_no_colours_and_no_blank_end() -> None:
    screen = Screen("ada", "\x1b[1mbold\x1b[0m  \n\n  in\x1b[31mdented\x1b[0m\n\n\n")
    assert screen.text == "bold\n\n  indented"
    assert "dented" in screen
    assert str(screen) == screen.text
    assert repr(screen) == "── ada ──\nbold\n\n  indented"


def test_a_colour_goes_on_into_the_next_line() -> None:
    lines = Screen("ada", "\x1b[41mred\nstill red\x1b[0m plain").html().split("\n")
    colours = [re.findall(r"background-color: (#\w+)", line) for line in lines]
    assert colours[0] == colours[1] != []
    assert lines[1].endswith("plain")
    assert "plain</span>" not in lines[1]


def test_default_colours_are_those_of_the_frame() -> None:
    screen = Screen("ada", "\x1b[39;49mdefault\x1b[0m")
    shown = screen._repr_html_()
    frame = re.search(r"background:(#\w+)", shown)
    assert frame is not None
    assert set(re.findall(r"background-color: (#\w+)", shown)) <= {frame[1]}


@pytest.mark.parametrize(
    "written",
    [
        "<script>alert(1)</script>",
        "\x1b]8;;javascript:alert(1)\x1b\\click\x1b]8;;\x1b\\",
        '\x1b]8;;x"><img src=x onerror=alert(1)>\x07click\x1b]8;;\x07',
        "\x1b]8;;javascript:alert(1)",
        "\x1b]0;<b>title</b>\x07&lt;&amp;",
    ],
)
def test_nothing_an_agent_writes_is_more_than_text(written: str) -> None:
    shown = Screen("ada", f"before {written} after").html()
    assert set(re.findall(r"<\s*/?\s*(\w+)", shown)) <= {"span"}
    assert "href" not in shown


def test_names_are_escaped() -> None:
    assert "<b>a&lt;b</b>" in Screen("a<b", "")._repr_html_()


def test_in_a_kernel_it_is_shown_once(tmp_path: object) -> None:
    # What rich does in a kernel is to show each line by itself: nothing may come but the picture that is asked for.
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "class ZMQInteractiveShell(InteractiveShell): pass\n"
        "shell = ZMQInteractiveShell.instance()\n"
        "import builtins; builtins.get_ipython = lambda: shell\n"
        "from orchestrator_lab.stills import Screen\n"
        "html = Screen('ada', 'hello').html()\n"
        "assert html == 'hello', html\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=str(tmp_path)
    )
    assert done.stdout == ""


def test_several_screens() -> None:
    screens = Screens([Screen("ada", "one"), Screen("bob", "two")])
    assert [screen.agent for screen in screens] == ["ada", "bob"]
    assert len(screens) == 2
    assert screens["bob"].text == "two"
    assert repr(screens) == "── ada ──\none\n\n── bob ──\ntwo"
    assert screens._repr_html_().count("<pre") == 2
