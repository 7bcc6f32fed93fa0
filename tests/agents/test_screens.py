"""Screen rules: read and checked once, chosen by version, and each on a screen as the program draws it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.agents.claude import ClaudeAdapter
from orchestrator_lab.agents.reading import option_for
from orchestrator_lab.agents.screens import choose, load, load_file, region
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FRAME = "─" * 60
MENU = " ❯ 1. Yes\n   2. Yes, and always allow access to w/ from this project\n   3. No"


def claude() -> ClaudeAdapter:
    adapter = ClaudeAdapter()
    adapter.use_rules("2.1.197")
    return adapter


@pytest.mark.parametrize(
    ("screen", "starting", "kind", "rule"),
    [
        (f"{FRAME}\n Bash command\n   touch a1\n Do you want to proceed?\n{MENU}", False, "permission", "permission"),
        (f"{FRAME}\n Edit file\n Do you want to make this edit to a.py?\n{MENU}", False, "permission", "permission"),
        ("Choose the text style that looks best\n ❯ 1. Dark\n   2. Light", True, "choice", "text style"),
        ("Select login method:\n ❯ 1. Claude account\n   2. Console", True, "login", "login method"),
        ("In Bypass Permissions mode\n ❯ 1. No, exit\n   2. Yes, I accept", True, "choice", "bypass of permissions"),
        (
            "Resume from where?\n ❯ 1. Resume from summary\n   2. Resume full session as-is",
            True,
            "choice",
            "long session",
        ),
        (f"the text said Do you want to proceed? once\n{FRAME}\n Pick\n ❯ 1. One\n   2. Two", False, None, None),
        ("Choose the text style\n ❯ 1. Dark\n   2. Light", False, None, None),
    ],
)
def test_questions_of_claude_code(screen: str, starting: bool, kind: str | None, rule: str | None) -> None:
    asked = claude().question(screen, starting=starting)
    assert (asked.kind if asked else None, asked.rule if asked else None) == (kind, rule)


def test_work_is_seen_below_the_box() -> None:
    box = f"{FRAME}\n❯\xa0\n{FRAME}\n  {{}}"
    rule = claude().state_rule(box.format("esc to interrupt"))
    assert rule is not None
    assert (rule.name, rule.state) == ("offers to interrupt", "busy")
    assert claude().state_rule(box.format("? for shortcuts")) is None
    assert claude().state_rule(f"esc to interrupt\n{box.format('? for shortcuts')}") is None


def test_rules_are_chosen_by_version() -> None:
    assert choose("claude", "2.1.197") == (choose("claude")[0], None)
    rules, note = choose("claude", "3.0.1")
    assert rules.measured == "2.1.197"
    assert note is not None
    assert "3.0.1 is newer than the versions that they were measured with (2.1.197)" in note
    assert "older" in str(choose("claude", "1.0.5")[1])
    assert choose("claude", "unknown") == (rules, None)
    assert choose("chat", "1")[0].rules == []
    for one in load():
        assert one.fits(one.measured), one.file
        names = [rule.name for rule in one.rules]
        assert len(names) == len(set(names)), one.file


def test_a_file_of_the_users_own_comes_first(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[[rule]]\nname = "mine"\nregion = "last 3"\npattern = "Ready\\\\?"\ndialog = "choice"\n')
    adapter = claude()
    adapter.use_rules("9.9", mine)
    assert adapter.screens_note is None  # whoever writes rules knows the version
    asked = adapter.question("Are you Ready?\n ❯ 1. Yes\n   2. No")
    assert asked is not None
    assert (asked.rule, asked.subject, asked.options) == ("mine", "Are you Ready?", ("Yes", "No"))
    assert adapter.screens.layout["frame"].match(FRAME)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[rule]", "Expected"),
        ('[[rule]]\nname = "x"\nregion = "attic"\npattern = "x"\nstate = "busy"\n', "'attic' is no region"),
        ('[[rule]]\nname = "x"\nregion = "whole"\npattern = "("\nstate = "busy"\n', "is no regular expression"),
        ('[[rule]]\nname = "x"\nregion = "whole"\npattern = "x"\n', "either a 'dialog' or a 'state'"),
        ('[[rule]]\nname = "x"\nregion = "whole"\npattern = "x"\nstate = "asleep"\n', "rule.0.state"),
        ("colour = 1\n", "colour"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"screen rules .*wrong\.toml: .*{re.escape(why)}"):
        load_file(file, "claude")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(tmp_path / "absent.toml", "claude")


@pytest.mark.parametrize(
    ("kind", "options", "allow", "deny"),
    [
        ("claude", ("Yes", "Yes, and always allow access to w/", "No"), "Yes", "No"),
        ("claude", ("Yes, and don't ask again", "No, and say what to do"), None, "No, and say what to do"),
        ("codex", ("Yes, proceed (y)", "Yes, and don't ask again (p)", "No, and tell Codex (esc)"), "Yes, proceed (y)",
         "No, and tell Codex (esc)"),
        ("chat", ("Yes, and do not ask again", "Yes", "No, and say"), "Yes", "No, and say"),
    ],
)  # fmt: skip
def test_allow_never_means_for_ever(kind: str, options: tuple[str, ...], allow: str | None, deny: str) -> None:
    answers = choose(kind)[0].answers
    assert (option_for("allow", options, answers), option_for("deny", options, answers)) == (allow, deny)


@given(st.text(max_size=300))
def test_no_screen_breaks_the_rules(screen: str) -> None:
    for kind in ("claude", "codex", "chat", "program"):
        adapter = adapter_for(kind)
        adapter.screens = choose(kind)[0]
        adapter.question(screen, starting=True)
        adapter.unknown(screen)
        adapter.state_rule(screen)
    for name in ("whole", "question", "options", "last 3", "title"):
        region(name, screen)
