from __future__ import annotations

import shlex

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator_lab.tmux import TmuxDriver, sanitize
from orchestrator_lab.tmux.text import escape_format, quote, shell_line

ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


@given(st.text())
def test_sanitized_text_has_no_controls_and_says_how_many_there_were(text: str) -> None:
    clean, removed = sanitize(text)
    assert not any(
        (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) <= 159 or 0xD800 <= ord(c) <= 0xDFFF for c in clean
    )
    assert removed == len(text.replace("\r\n", "\n")) - len(clean)
    assert sanitize(clean) == (clean, 0)
    clean.encode("utf-8")


def test_sanitize_keeps_what_people_write() -> None:
    text = "\tエージェント 🚀 é \u200d \\ ; $(x)\n"
    assert sanitize(text) == (text, 0)
    assert sanitize("\x1b[201~rm\r") == ("[201~rm", 2)
    assert sanitize("\x9b201~a\r\nb\x00\x7f") == ("201~a\nb", 3)


@given(ANY_TEXT)
def test_a_quoted_argument_is_one_line(text: str) -> None:
    quoted = quote(text)
    assert "\n" not in quoted
    assert "\r" not in quoted


def test_shell_line_and_format() -> None:
    assert shlex.split(shell_line(["a b", "$x"])) == ["exec", "a b", "$x"]
    assert escape_format("50% #S", time=True) == "50%% ##S"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_tmux_itself_reads_quoted_arguments_back(driver: TmuxDriver, text: str) -> None:
    driver.run("set-option", "-s", "@probe", text)
    path = driver.socket.parent / "probe"
    driver.run("set-buffer", "-b", "probe", f"x{text}")
    driver.run("save-buffer", "-b", "probe", str(path))
    assert path.read_bytes() == f"x{text}".encode()
