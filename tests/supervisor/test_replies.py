"""What of a screen is the reply, and what is the echo or the prompt."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.agents.base import Watch
from orchestrator_lab.agents.program import extract_reply, prompt_start

PYTHON = Watch(prompt=re.compile(r"^>>> $"))
SHELL = Watch(prompt=re.compile(r"^sh> $"))
MARKED = Watch(marker="END")
QUIET = Watch(quiet_s=1.0)


@pytest.mark.parametrize(
    ("watch", "screen", "typed", "reply"),
    [
        (PYTHON, ">>> 1+1\n2\n>>> ", "1+1", "2"),
        (PYTHON, ">>> x=1\n>>> ", "x=1", ""),
        (PYTHON, ">>> p()\n\n\n>>> ", "p()", "\n"),
        (PYTHON, ">>> p()\ntail>>> ", "p()", "tail"),
        (PYTHON, ">>> p()\n>>> \n>>> ", "p()", ">>>"),
        (PYTHON, ">>> for i in x: p(i)\n... \n0\n1\n>>> ", "for i in x: p(i)\n", "0\n1"),
        (PYTHON, ">>> p('b')\nb\n>>> b\n'c'\n>>> ", "p('b')\nb", "b\n'c'"),
        (PYTHON, ">>> p()\t# x\nok\n>>> ", "p()\t# x", "ok"),
        (SHELL, "sh> echo a\necho b\na\nb\nsh> ", "echo a\necho b", "a\nb"),
        (SHELL, "sh> cat <<X\n> hi\n> X\nhi\nsh> ", "cat <<X\nhi\nX", "hi"),
        (SHELL, "left over\nsh> ls\nfile\nsh> ", "ls", "file"),
        (MARKED, "$ work END\nhalf\nEND\n$ ", "work END", "half"),
        (MARKED, "$ work\nhalf END and more\nEND", "work", "half"),
        (QUIET, "me\nme\n", "me", "me"),
        (QUIET, "one\none\ntwo\ntwo\n\n\nx\nx\n", "one\ntwo\n\nx", "one\ntwo\n\nx"),
        (QUIET, "db> go\nrow\ndb> ", "go", "row"),
    ],
)
def test_replies(watch: Watch, screen: str, typed: str, reply: str) -> None:
    assert extract_reply(screen, typed, watch) == reply


def test_without_an_echo_everything_after_the_prompt_is_the_reply() -> None:
    watch = Watch(prompt=re.compile("^pw> $"))
    assert extract_reply("pw> \nok\npw> ", "secret", watch, prefix="pw> ", echo=False) == "ok"
    assert extract_reply("pw> ok\npw> ", "secret", watch, prefix="pw> ", echo=False) == "ok"


@given(st.lists(st.text(alphabet="abc >.1日", max_size=12).map(str.rstrip), max_size=8))
def test_any_output_of_a_line_is_kept(output: list[str]) -> None:
    screen = "\n".join([">>> run()", *output, ">>> "])
    assert extract_reply(screen, "run()", PYTHON, prefix=">>> ") == "\n".join(output)


def test_where_a_prompt_begins() -> None:
    assert prompt_start(re.compile("^a> $"), "a> ") == 0
    assert prompt_start(re.compile("^a> $"), "text a> ") == 5
    assert prompt_start(re.compile("^a> $"), "text a> ", anywhere=False) is None
    assert prompt_start(re.compile("^a>$"), "a> ") == 0
    assert prompt_start(re.compile("^a> $"), "a> typed") is None
