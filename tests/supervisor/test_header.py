"""The line above a message that names its sender."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.schema import new_id
from orchestrator_lab.supervisor.header import header_line, split_header

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,31}", fullmatch=True)


@given(names, st.text())
def test_what_is_put_on_comes_off(sender: str, body: str) -> None:
    message_id = new_id("msg_")
    typed = f"{header_line(sender, message_id)}\n{body}"
    assert split_header(typed) == ({"sender": sender, "message_id": message_id}, body)


@given(st.text())
def test_other_texts_stay_whole(text: str) -> None:
    found, body = split_header(text)
    assert body == text or found


def test_only_the_first_line_is_a_header() -> None:
    nested = "From boss (msg_01k):\nFrom ada (msg_02k):\nhello"
    assert split_header(nested) == ({"sender": "boss", "message_id": "msg_01k"}, "From ada (msg_02k):\nhello")
    for text in ("x From boss (msg_01k):\nhi", "From boss (msg_01k):", "From the boss (msg_01k):\nhi", ""):
        assert split_header(text) == ({}, text)
