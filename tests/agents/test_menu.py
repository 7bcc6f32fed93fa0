"""Menus and the input box, read off screens as the real programs draw them."""

from __future__ import annotations

import pytest

from orchestrator_lab.agents.claude import ClaudeAdapter, installed_version
from orchestrator_lab.agents.claude_screen import gave_back, read_composer
from orchestrator_lab.agents.menu import Menu, read_menu

RULE = "\x1b[38;2;136;136;136m" + "─" * 60
TRUST = """ Accessing workspace:
 /home/me/project
 Quick safety check: Is this a project you created or one you trust?
 1. not a row of the menu
 ❯ 1. Yes, I trust this folder
   2. No, exit
 Enter to confirm · Esc to cancel"""


def box(*lines: str, below: str = "  ? for shortcuts") -> str:
    return "\n".join([RULE, *lines, RULE, below])


def test_the_lowest_menu_counts() -> None:
    assert read_menu(TRUST) == Menu(("Yes, I trust this folder", "No, exit"), 0)
    assert read_menu("no menu") is None
    preselected = read_menu("  1. Yes\n❯ 2. No, exit")
    assert preselected is not None
    assert (preselected.selected, preselected.find("yes"), preselected.find("maybe")) == (1, 0, None)
    assert Menu(("Yes", "Yes, always"), 0).find("yes") == 0
    assert Menu(("Yes, once", "Yes, always"), 0).find("yes") is None


@pytest.mark.parametrize(
    ("lines", "text", "held"),
    [
        (["\x1b[39m❯\xa0\x1b[7m \x1b[0m"], "anything", "empty"),
        (["\x1b[39m❯\xa0hello\x1b[7m \x1b[0m"], "hello", "holds_text"),
        (["\x1b[39m❯\xa0hello\x1b[7m \x1b[0m"], "", "other"),
        (["\x1b[39m❯\xa0a draft\x1b[7m \x1b[0m"], "hello", "other"),
        (["❯\xa0[Pasted text #3 +12 lines]"], "one\ntwo", "holds_text"),
        (["❯\xa0line1", "  line2"], "line1\nline2\n", "holds_text"),
        # A suggestion is dim, its first letter under the cursor.
        (["❯\xa0\x1b[7mT\x1b[0;2mry this\x1b[0m"], "", "empty"),
        (["❯\xa0see /he\x1b[7ml\x1b[0;2mp\x1b[0m"], "see /he", "holds_text"),
    ],
)
def test_the_input_box(lines: list[str], text: str, held: str) -> None:
    assert read_composer(box(*lines), text) == held


def test_a_dialog_is_no_input_box() -> None:
    assert read_composer(TRUST, "") == "unknown"
    assert (
        read_composer(RULE + "\n Bash command\n   ls\n Do you want to proceed?\n ❯ 1. Yes\n   2. No", "") == "unknown"
    )


def test_a_prompt_that_was_given_back() -> None:
    assert gave_back(box("❯\xa0do it"), "do it")
    assert not gave_back(box("❯\xa0do it", below="  esc to interrupt"), "do it")
    assert not gave_back(box("❯\xa0"), "do it")
    assert not gave_back(box("❯\xa0something else"), "do it")


@pytest.mark.parametrize(
    ("body", "text", "expected"),
    [
        ("plain", "plain", "plain"),
        ("/help", " /help ", " /help"),
        ("!ls", " !ls", " !ls"),
        ("exit", "From user:\nexit", "From user:\nexit"),
        ("a\tb", "a\tb", "a    b"),
        ("end \n", "end", "end"),
        ("C:\\", "C:\\ ", "C:\\"),
        ("look at @", "look at @ ", "look at @"),
        ("in /tmp", "in /tmp ", "in /tmp"),
        ("mail a@b", "mail a@b", "mail a@b"),
        ("e\u0301", "\u00e9", "\u00e9"),
        ("[I", "[I ", "[I"),
    ],
)
def test_what_is_typed_and_what_is_taken(body: str, text: str, expected: str) -> None:
    typed = ClaudeAdapter().typed(body)
    assert (typed.text, typed.expected) == (text, expected)
    assert bool(typed.notes) == (body not in {text, expected} or text != expected)


def test_a_path_to_an_image_comes_in_two_pastes() -> None:
    typed = ClaudeAdapter().typed("see /tmp/a.png\nand b.jpeg not here, /c.gif /d.webp")
    assert "".join(typed.parts) == typed.text
    assert [part[-3:] for part in typed.parts[:-1]] == [".pn", ".gi", ".we"]


def test_hooks_of_a_subagent_say_nothing() -> None:
    hook = {"hook_event_name": "Stop", "agent_id": "sub", "last_assistant_message": "done"}
    assert ClaudeAdapter().hook(hook) == []
    assert ClaudeAdapter().hook({"hook_event_name": "of the future"}) == []


def test_the_version_of_the_pinned_program(claude_command: str) -> None:
    assert installed_version(claude_command) == "2.1.197"
    assert installed_version("/bin/sh") is None
