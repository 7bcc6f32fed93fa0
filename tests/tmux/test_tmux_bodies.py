"""What a body may hold, and what of it a program in a real pane receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from _tmux_helpers import Receiver
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.tmux import TmuxDriver

NASTY = st.sampled_from(
    [
        *("\x1b[201~", "\x1b[200~", "\x9b201~", "\x1b]0;title\x07", "\x1bP+q\x1b\\", "\x1b[31m", "\x1b", "\x9b"),
        *("\r", "\r\n", "\n", "\t", "\0", "\x03", "\x04", "\x1a", "\x7f", "\ud800", "\udfff", "\u2028", "\ufeff"),
        *("#{pane_pid}", "#(id)", ";", "\\;", "$(id)", "`id`", "%1", "'", '"', "/a.png", "\x1b[20", "1~"),
    ]
)
BODIES = st.lists(NASTY | st.text(max_size=12) | st.text(st.characters(exclude_categories=()), max_size=6), max_size=12)


@pytest.mark.parametrize("kind", ["chat", "claude", "codex"])
def test_no_control_of_a_body_gets_out_of_its_frame(driver: TmuxDriver, folder: Path, kind: str) -> None:
    receiver = Receiver(driver, folder, "printf '\\033[?2004h';")
    adapter = adapter_for(kind)
    seen = 0

    @settings(max_examples=70)
    @given(BODIES)
    def each(pieces: list[str]) -> None:
        nonlocal seen
        body, _ = sanitize("".join(pieces))
        if not body.strip():
            return
        typed = adapter.typed(body)
        parts = [part for part in typed.parts or (typed.text,) if part]
        for number, part in enumerate(parts, 1):
            driver.paste(receiver.pane, part, mark=f"m:{number}", framed=True)
        driver.enter(receiver.pane)
        inside = [part.encode().replace(b"\n", b"\r") for part in parts]
        wanted = b"".join(b"\x1b[200~" + one + b"\x1b[201~" for one in inside) + b"\r"
        assert not any(byte < 0x20 and byte not in b"\r\t" for one in inside for byte in one)
        got = receiver.got(seen + len(wanted), settle_s=0.0)[seen:]
        seen += len(wanted)
        assert got == wanted

    each()
