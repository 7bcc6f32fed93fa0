"""The pure parts of the chat program."""

# ruff: noqa: ANN001, ANN002, ANN003, ANN201, ANN202
from __future__ import annotations

import itertools
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_toolkit.keys import Keys

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.programs.chat.api import sse_events
from orchestrator_lab.programs.chat.pastes import PasteShelf
from orchestrator_lab.programs.chat.session import Session
from orchestrator_lab.programs.chat.settings import parse_arguments
from orchestrator_lab.programs.chat.terminal import PASTE_END, PASTE_START, PasteParser
from orchestrator_lab.programs.chat.text import RowWrapper, fold, neutralise, width
from orchestrator_lab.programs.chat.transcript import Transcript, load_messages

TEXT = st.text(st.sampled_from("ab \t\n日🙂é\u0301\x1b[20~1;\\"), max_size=60)


def in_pieces(text, cuts):
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(TEXT, min_size=1, max_size=4), st.lists(st.integers(0, 400), max_size=12))
def test_pastes_survive_any_split(bodies, cuts):
    bodies = [body.replace("\x1b", "") for body in bodies]
    stream = "".join(f"{PASTE_START}{body}{PASTE_END}\r" for body in bodies)
    keys = []
    parser = PasteParser(keys.append)
    for piece in in_pieces(stream, cuts):
        parser.feed(piece)
    pastes = [key.data for key in keys if key.key == Keys.BracketedPaste]
    assert pastes == bodies
    assert sum(key.key == Keys.ControlM for key in keys) == len(bodies)
    assert len(keys) == 2 * len(bodies)


def test_one_byte_reads():
    keys = []
    parser = PasteParser(keys.append)
    for char in f"{PASTE_START}hello\r\nyou{PASTE_END}\rx\x1b[A":
        parser.feed(char)
    assert [key.data for key in keys] == ["hello\nyou", "\r", "x", "\x1b[A"]


@given(st.text(max_size=300), st.integers(4, 40), st.lists(st.integers(0, 400), max_size=8))
def test_rows_fit_and_pieces_do_not_matter(text, cells, cuts):
    whole = RowWrapper(cells)
    rows = whole.feed(text) + whole.close()
    assert all(width(row) <= cells for row in rows)
    assert not any(ord(char) < 32 for row in rows for char in row)
    pieces = RowWrapper(cells)
    got = [row for piece in in_pieces(text, cuts) for row in pieces.feed(piece)] + pieces.close()
    visible = lambda rows: "".join("".join(rows).split())  # noqa: E731
    assert visible(got) == visible(rows)


@given(st.text())
def test_neutralised_text_holds_no_controls(text):
    assert not any(ord(c) < 32 and c not in "\n\t" for c in neutralise(text))
    assert not any(0x7F <= ord(c) < 0xA0 for c in neutralise(text))


@settings(deadline=None)
@given(st.lists(st.one_of(TEXT, st.text(max_size=20)), max_size=6))
def test_the_shelf_gives_back_what_it_took(texts):
    shelf = PasteShelf()
    texts = [*texts, "y" * 5000, "\n" * 50]
    assert shelf.expand("".join(shelf.put(text) for text in texts)) == "".join(texts)


def test_wrapping_and_folding_a_megabyte_is_quick():
    text = "日本語 word " * 100_000
    assert len(RowWrapper(80).feed(text)) > 1000
    assert len(fold(text, 80)) < 10
    assert len(fold("x\n" * 500_000, 80)) < 20


@given(st.lists(st.text(min_size=1), max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_events_survive_any_split(texts, cuts):
    stream = "".join(f"event: e\r\ndata: {json.dumps(text)}\r\n\r\n" for text in texts).encode()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert [json.loads(data) for _, data in sse_events(iter(pieces))] == texts


def test_transcript_repairs_a_torn_line_and_knows_what_was_forgotten(tmp_path):
    path = tmp_path / "deep" / "t.jsonl"
    first = Transcript(path, session_id="s")
    first.append("user", message={"content": "old"})
    first.append("assistant", message={"content": "forgotten"})
    first.append("clear")
    first.append("user", message={"content": "a\udc80"})
    first.append("assistant", message={"content": [{"type": "text", "text": "b"}]})
    first.append("user", message={"content": "no answer"})
    first.append("error", error="x")
    first.close()
    with path.open("ab") as file:
        file.write(b'{"type": "assist')
    second = Transcript(path, session_id="s")
    second.append("user", message={"content": "c"})
    second.append("assistant", message={"content": ""}, outcome="interrupted")
    second.close()
    assert [m["content"] for m in load_messages(path)] == ["a?", "b", "c", "[interrupted]"]


def test_keys_of_the_environment_go_to_their_own_vendor_only():
    assert parse_arguments(["--model", "m"]).key_env == "ANTHROPIC_API_KEY"
    assert parse_arguments(["--model", "m", "--api", "openai"]).key_env == "OPENAI_API_KEY"
    assert parse_arguments(["--model", "m", "--base-url", "http://x"]).key_env is None
    with pytest.raises(ConfigError, match="no model is named"):
        parse_arguments([])


def test_what_comes_after_an_interrupted_turn_was_given_up_is_no_part_of_its_answer(tmp_path, monkeypatch):
    settings = parse_arguments(["--model", "m", "--base-url", "http://x", "--transcript", str(tmp_path / "t.jsonl")])
    shown, ended = [], threading.Event()
    session = Session(
        settings,
        on_text=lambda _, text: shown.append(text),
        on_note=lambda _: None,
        on_done=lambda _: ended.set(),
    )

    def ask(*_, answer, on_text, **__):
        for text in ("what was said", ", and what was not"):
            answer.text.append(text)
            if shown:
                session.abandon(turn)
            on_text(text)

    begun = threading.Event()
    monkeypatch.setattr("orchestrator_lab.programs.chat.session.ask", lambda *a, **k: begun.wait(30) and ask(*a, **k))
    turn = session.start("go")
    begun.set()
    assert ended.wait(30)
    session.close("other", wait_s=0)
    assert (turn.outcome, turn.text, shown) == ("interrupted", "what was said", ["what was said"])
    assert load_messages(tmp_path / "t.jsonl")[-1]["content"] == "what was said"
