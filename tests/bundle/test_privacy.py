"""What is private is masked: in every text, over the bounds of chunks and escape sequences, the same way everywhere."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.bundle import recordings
from orchestrator_lab.bundle.masking import Findings, mask_file, mask_json, mask_lines, mask_value
from orchestrator_lab.bundle.privacy import Masker, home_names, own_identity
from orchestrator_lab.bundle.recordings import mask_recording
from orchestrator_lab.bundle.seen import joined, project, visible
from orchestrator_lab.bundle.streams import mask_pieces
from orchestrator_lab.errors import JournalError
from orchestrator_lab.journal.recording import CastWriter, iter_stretches, piece_content, read_cast

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ADA = {"users": ["ada"], "hosts": ["laptop", "laptop.lan"], "names": ["Ada Lovelace"]}


def masker(**more: object) -> Masker:
    return Masker(**{**ADA, **more})  # type: ignore[arg-type] # a test's own


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("/home/ada/x", "/home/u1_/x"),
        ("/home/eve", "/home/u1_"),
        ("/Users/Ada", "/Users/u1_"),
        ("file:///home/ada/a%20b", "file:///home/u1_/a%20b"),
        ("scp host:/home/ada .", "scp host:/home/u1_ ."),
        (r"C:\Users\eve\x and C:\\Users\\eve", r"C:\Users\u1_\x and C:\\Users\\u1_"),
        ("/mnt/c/Users/eve", "/mnt/c/Users/u1_"),
        ("%2Fhome%2Fada%2Fx", "%2Fhome%2Fu1_%2Fx"),
        ("%252Fhome%252Feve%252Fx", "%252Fhome%252Fu1_%252Fx"),
        (r"\/home\/eve\/x \/Users\/eve", r"\/home\/u1_\/x \/Users\/u1_"),
        ("?to=eve%40example.org&x", "?to=e1_______________&x"),
        ("projects/-home-ada-lab", "projects/-home-u1_-lab"),
        ("https://example.org/home/index.html", "https://example.org/home/index.html"),
        ("ada@laptop:~$ ", "u1_@h1____:~$ "),
        ("laptop.lan, laptop, laptops", "h1________, h2____, laptops"),
        ("Ada, ADA and adamant", "u1_, u1_ and adamant"),
        ("eve@example.org, Eve.x+y@a-b.example.org.", "e1_____________, e2_____________________."),
        ("git@example.org:x.git", "e1_____________:x.git"),
        ("@pytest.fixture a@b x@y.z1", "@pytest.fixture a@b x@y.z1"),
        ("by Ada Lovelace", "by n1__________"),
        ("sk-ant-0123456789abcdef", "*" * 23),
        ("ghp_0123456789abcdef0123", "*" * 24),
        # a text within a text: what begins behind an escape is found, and the escape stays
        (r"{\"a\":\"x\nada@laptop\teve@example.org\"}", r"{\"a\":\"x\nu1_@h1____\te1_____________\"}"),
        (r"\u001b[32mada\u001b[0m", r"\u001b[32mu1_\u001b[0m"),
        # escapes of a terminal stay where they are
        ("\x1b[1ma\x1b[0md\x1b[32ma", "\x1b[1mu\x1b[0m1\x1b[32m_"),
        ("\x1b]0;ada@laptop: ~\x07", "\x1b]0;u1_@h1____: ~\x07"),
        ("\x1b]8;;file:///home/ada/x\x1b\\here\x1b]8;;\x1b\\", "\x1b]8;;file:///home/u1_/x\x1b\\here\x1b]8;;\x1b\\"),
    ],
)
def test_texts(text: str, masked: str) -> None:
    assert masker().text(text) == masked


def test_wide_letters_keep_their_width() -> None:
    made = Masker(users=["田中太郎"]).text("/home/田中太郎/x 田中太郎")
    assert made == "/home/u1______/x u1______"
    assert Masker(users=["田中太郎"]).text(r"{\"by\":\"\u7530\u4E2D\u592a\u90ce\"}") == (
        r"{\"by\":\"u1______________________\"}"
    ), "JSON within JSON"
    assert Masker(users=["田中太郎"]).text("\x1b[1m田中\x1b[0m太郎|") == "\x1b[1mu1__\x1b[0m____|"


def test_one_substitute_for_one_person() -> None:
    found = masker()
    assert [found.text(one) for one in ("/home/ada", "ada", "ADA", "/home/eve", "ada")] == [
        *("/home/u1_", "u1_", "u1_", "/home/u2_", "u1_")
    ]
    assert found.counts == {"home": 2, "user": 3}


def test_what_is_common_short_or_kept_stays() -> None:
    found = Masker(users=["root", "bo", "boss", "eve"], hosts=["localhost"], public=["boss"], keep=["*@example.org"])
    text = "root boss bo eve@example.org eve@example.com localhost /home/boss"
    assert found.text(text) == "root boss bo eve@example.org e1_____________ localhost /home/u1__"
    assert found.passed_over == ["root", "bo", "boss", "localhost"]


def test_more_by_the_configuration() -> None:
    found = Masker(words=["Falcon"], patterns={"ticket": r"ACME-(?P<hide>\d+)"})
    assert found.text("Falcon falcon falcons ACME-1234") == "w1____ w1____ falcons ACME-p1__"
    assert found.sieve is None, "no line is passed over unseen"


def test_who_i_am(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COUNT": "1", "KEY_0": "user.name", "VALUE_0": "Ada King"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    users, hosts, names = own_identity()
    assert "Ada King" in names
    assert users
    assert hosts
    assert home_names("cd /home/ada; ls /Users/eve/") == ["ada", "eve"]


def test_numbers_are_not_people() -> None:
    value = {"at": "2026-01-01T00:00:00Z", "n": 1.5, "id": "msg_01m8m", "/home/ada": [True, None, "/home/ada"]}
    made = mask_value(value, masker())
    assert made.pop("/home/u1_") == [True, None, "/home/u1_"]
    assert made == {key: one for key, one in value.items() if key != "/home/ada"}


def test_notebooks_keep_their_pictures() -> None:
    picture = "iVBOR/ada/laptop+ada@example.org"
    cell = {"outputs": [{"data": {"image/png": picture, "text/plain": ["/home/ada"]}}], "source": ["ada"]}
    text = json.dumps({"cells": [cell], "nbformat": 4}, indent=1) + "\n"
    made = mask_json(text, masker())
    (found,) = json.loads(made)["cells"]
    assert found["outputs"][0]["data"] == {"image/png": picture, "text/plain": ["/home/u1_"]}
    assert found["source"] == ["u1_"]
    assert made.startswith('{\n "cells"')


LINES = [
    b'{"at":"2026","text":"nothing"}',
    b'{"text":"/home/ada\\nada@example.org","n":1}',
    '{"text":"日本 ada"}'.encode(),
    b'{"text":"\\u002fhome\\u002fada \\ud800"}',
    b'{"text":"\\/home\\/ada"}',
    b"{torn /home/ada",
    b"\xff\xfe /home/ada",
    b"",
]


def test_lines_of_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(LINES))
    assert mask_file(tmp_path / "a.jsonl", tmp_path / "b.jsonl", masker())
    made = (tmp_path / "b.jsonl").read_bytes().split(b"\n")
    assert made[0] == LINES[0]
    assert [json.loads(line)["text"] for line in made[1:5]] == [
        *("/home/u1_\ne1_____________", "日本 u1_", "/home/u1_ \ud800", "/home/u1_")
    ]
    assert made[5:] == [b"{torn /home/u1_", b"\xff\xfe /home/u1_", b""]
    assert oct((tmp_path / "b.jsonl").stat().st_mode & 0o777) == "0o600"


def test_files_in_which_nothing_is_private_are_not_written(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": b'{"a":1}\n',
        "a.json": b"{}",
        "a.md": b"text",
        "a.bin": b"\0/home/ada",
        "b.bin": b"\xff\1 /home/ada",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert mask_file(tmp_path / name, tmp_path / "made", masker()) is (None if name.endswith(".bin") else False)
        assert not (tmp_path / "made").exists()


def test_a_text_with_very_many(tmp_path: Path) -> None:
    """As the output of a tool: no time that grows with the square of them."""
    paths = " ".join(f"/home/ada/{number}/eve{number}@example.org" for number in range(20_000))
    (tmp_path / "a.jsonl").write_text("{}\n" * 100 + json.dumps({"output": paths}) + "\n{}\n")
    found = masker()
    began = time.process_time()
    assert mask_file(tmp_path / "a.jsonl", tmp_path / "b.jsonl", found)
    assert time.process_time() - began < 10
    made = (tmp_path / "b.jsonl").read_text()
    assert found.counts == {"home": 20_000, "email": 20_000}
    assert "ada" not in made
    assert made.startswith("{}\n" * 100)
    assert made.endswith("\n{}\n")


def test_cassettes(tmp_path: Path) -> None:
    from orchestrator_lab.cassette import Take, read_cassette
    from orchestrator_lab.cassette_writer import CassetteWriter

    writer = CassetteWriter(tmp_path / "ada.jsonl.zst", agent="ada", places={"home": "/home/ada"}, mask=str)
    body = {"messages": [{"role": "user", "content": "cd /home/ada\neve@example.org"}], "model": "m"}
    take = Take(
        1, "ada", "POST", "/v1/messages", "main", writer.apart(body), 0.5, status=200, pieces=["by ada\n", "end"]
    )
    writer.add(take)
    writer.close()
    (tmp_path / "made").mkdir()
    assert mask_file(tmp_path / "ada.jsonl.zst", tmp_path / "made" / "ada.jsonl.zst", masker())
    places, (made,) = read_cassette(tmp_path / "made" / "ada.jsonl.zst")
    assert places == {"home": "/home/u1_"}
    assert made.body == {**body, "messages": [{"role": "user", "content": "cd /home/u1_\ne1_____________"}]}
    assert (made.pieces, made.at_s, made.status) == (["by u1_\n", "end"], 0.5, 200)
    assert not made.changed, "its digests are those of what it says now"
    quiet = Masker(users=["nobody-else"], keep=["ada", "eve@example.org"])
    assert mask_file(tmp_path / "ada.jsonl.zst", tmp_path / "none.jsonl.zst", quiet) is False
    assert not (tmp_path / "none.jsonl.zst").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("cut", [5, 40, 10_000])
def test_answers_that_come_in_pieces(size: int, cut: int) -> None:
    """A text split over the deltas of a stream, and the stream over the pieces in which it was received."""
    said = "In /home/ada I wrote to eve@example.org, as ada does; adamant."

    def stream(text: str) -> str:
        deltas = [text[start : start + size] for start in range(0, len(text), size)]
        events = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": d}} for d in deltas
        ]
        lines = [f"event: content_block_delta\ndata: {json.dumps(one, separators=(',', ':'))}\n\n" for one in events]
        return "".join(['event: ping\ndata: {"type": "ping"}\n\n', *lines, "data: [DONE]\n\n"])

    whole = stream(said)
    pieces = [whole[start : start + cut] for start in range(0, len(whole), cut)]
    found = masker()
    made = mask_pieces(pieces, found)
    assert len(made) == len(pieces)
    assert "".join(made) == stream(masker().text(said))
    quiet = "".join(mask_pieces(pieces, Masker(users=["nobody-else"], keep=["ada", "eve@*"])))
    assert quiet == whole, "what holds nothing private is as it was"


# recordings ---------------------------------------------------------------------------------------


def record(path: Path, chunks: Iterable[bytes], *, flush: bool = True) -> Path:
    with CastWriter(path, cols=80, rows=24, title="ada@laptop") as cast:
        for data in chunks:
            cast.write(data)
            if flush:
                cast.flush()
    return path


def _pieces(path: Path) -> list[bytes]:
    return [stretch.data for stretch in iter_stretches(path)]


def masked_output(path: Path, target: Path, found: Masker) -> str:
    mask_recording(path, target, found)
    return read_cast(target).output().decode("utf-8", "surrogateescape")


TEXT = (
    "ada@laptop:/home/ada$ mail eve@example.org\r\n\x1b[1;32mada\x1b[0m \x1b[31meve@\x1b[1mexample.org\x1b[0m "
    "adamant\r\n\x1b]0;ada@laptop\x07key sk-ant-0123456789abcdef 日本 \x1b[2;5Hada\x1b[Kx"
    "\x1b]7;file://laptop/home/ada\x1b\\ end ada"
)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), longest=st.sampled_from([1, 2, 5, 40]), flush=st.booleans())
def test_however_it_was_split(tmp_path_factory: pytest.TempPathFactory, seed: int, longest: int, flush: bool) -> None:
    folder = tmp_path_factory.mktemp("cast")
    draw = random.Random(seed)  # noqa: S311 - a test's dice
    data, chunks = TEXT.encode(), []
    while data:
        size = draw.randint(1, longest)
        chunks.append(data[:size])
        data = data[size:]
    path = record(folder / "a.cast.zst", chunks, flush=flush)
    assert masked_output(path, folder / "b.cast.zst", masker()) == masker().text(TEXT)
    before, after = (read_cast(folder / name) for name in ("a.cast.zst", "b.cast.zst"))
    assert [(event.time_s, event.code) for event in before.events] == [(one.time_s, one.code) for one in after.events]
    assert after.header == {**before.header, "title": "u1_@h1____"}


DRAWN = ["word ", "x" * 700, "\x1b[1m", "\x1b[2;5H", "\r\n", "日本 ", "\x1b]0;shell\x07", "\x1b[38;5;", "9m", '"\\']
PRIVATE_BITS = ["a", "d", "a", "/ho", "me/a", "da/x ", "eve@exa", "mple.org ", "\x1b]0;ada@lap", "top\x07"]
PRIVATE_BITS += ["planted.per", "son "]
DRAWN_BITS = st.one_of(*[st.sampled_from(DRAWN)] * 4, st.sampled_from(PRIVATE_BITS), st.just("word " * 600))


@settings(max_examples=150, deadline=None)
@given(bits=st.lists(DRAWN_BITS, min_size=1, max_size=60), together=st.sampled_from([1, 2, 5, 30]))
def test_what_the_sieve_stops_holds_nothing_private(
    tmp_path_factory: pytest.TempPathFactory, bits: list[str], together: int
) -> None:
    """Passed over or looked at: the same bytes, wherever a stretch ends."""
    folder = tmp_path_factory.mktemp("cast")
    path = record(folder / "a.cast.zst", [bit.encode() for bit in bits])
    made = []
    for sieve in (True, False):
        found = masker(words=["planted.person"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recordings, "_MANY", together)
            if not sieve:
                patch.setattr(Masker, "sieve_with", lambda *_: None)
            wrote = mask_recording(path, folder / f"{sieve}.cast.zst", found)
        made.append(((folder / f"{sieve}.cast.zst") if wrote else path).read_bytes())
        made.append(sorted(found.counts.items()))
    assert made[0] == made[2]
    assert made[1] == made[3]


@pytest.mark.parametrize(
    "text",
    [r"C:\Users\nora\x", r"C:\Users\u001b", r"\/home\/eve\/x", "C:\\Users\\\x1b[1mt\x1b[0mom ", 'say "/home/eve"'],
)
def test_what_json_escapes_is_seen_through(tmp_path: Path, text: str) -> None:
    """A backslash of the text is no escape of what follows it."""
    filler = "word " * 600
    path = tmp_path / "a.cast.zst"
    with CastWriter(path, cols=80, rows=24) as cast:
        for shown in (filler, text, filler, filler):  # the ends of a stretch are always looked at
            cast.write(f"{shown} ".encode())
            cast.flush()
    made = masked_output(path, tmp_path / "b.cast.zst", masker())
    assert made == masker().text(whole := f"{filler} {text} {filler} {filler} ") != whole


@pytest.mark.parametrize("before", range(8))
def test_what_goes_on_in_the_next_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """Neither stretch holds anything private by itself."""
    monkeypatch.setattr(recordings, "_MANY", 4)
    monkeypatch.setattr(recordings, "_BACK", 40)
    filler = ["word " * 600] * before
    chunks = [
        *filler,
        "by a",
        "\x1b[1m",
        "d",
        "a \x1b]0;a",
        "da at la",
        "ptop\x07",
        *filler,
        "eve@exa",
        "mple.org ",
        *filler,
    ]
    made = masked_output(
        record(tmp_path / "a.cast.zst", [one.encode() for one in chunks]), tmp_path / "b.cast.zst", masker()
    )
    assert made == masker().text("".join(chunks))


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(
        st.lists(st.sampled_from(["word", " ", "\n", '"', "ada", "@", "eve@x.org", "/home/b", "\x1b", "é", "/", "a"])),
        max_size=8,
    ),
    plain=st.booleans(),
    end=st.sampled_from(["", "\n", "torn"]),
)
def test_lines_that_the_sieve_stops(
    tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]], plain: bool, end: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_text("\n".join(json.dumps({"t": "".join(one)}, ensure_ascii=plain) for one in lines) + end)
    made = []
    for sieve in (True, False):
        found = masker()
        if not sieve:
            found.sieve = None
        made.append((list(mask_lines(path, found)), found.counts, found.found))
    assert made[0] == made[1]


def test_what_a_program_breaks_into_two_lines(tmp_path: Path) -> None:
    found = masker()
    found.text("ask planted.person@example.org")  # as the journal has it
    chunks = [b"path /home/a\r\n  da/x\r\n", b"mail planted.person@exa\x1b[3;1H", b"mple.org now\r\n"]
    made = masked_output(record(tmp_path / "a.cast.zst", chunks), tmp_path / "b.cast.zst", found)
    close = project(made, loose=True).text
    assert "/home/ada" not in close
    assert "planted" not in close
    assert "example" not in close


def test_pieces_without_anything_private_are_copied(tmp_path: Path) -> None:
    chunks = [f"line {number}\r\n".encode() for number in range(400)]
    chunks[200] = b"ada\r\n"
    path = record(tmp_path / "a.cast.zst", chunks)
    quiet = Masker(users=["nobody-else"])
    assert not mask_file(path, tmp_path / "c.cast.zst", quiet)
    # Its header has a title; that of the other pieces is as it was.
    assert mask_recording(path, tmp_path / "b.cast.zst", masker())
    before, after = _pieces(path), _pieces(tmp_path / "b.cast.zst")
    assert len(before) == len(after) > 400
    assert [number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [0, 201]


def test_a_long_text_without_a_break(tmp_path: Path) -> None:
    chunks = [b"x" * 5000 + b" /ho", b"me/ada/" + b"y" * 3000, b"z" * 5000]
    made = masked_output(record(tmp_path / "a.cast.zst", chunks), tmp_path / "b.cast.zst", masker())
    assert made == " ".join(["x" * 5000, "/home/u1_/" + "y" * 3000 + "z" * 5000])


def test_recordings_of_others(tmp_path: Path) -> None:
    import zstandard

    header = '{"version": 3, "term": {"cols": 80, "rows": 24}, "title": "ada@laptop"}'
    lines = f'{header}\n[0.5,"o","hello /home/a"]\n[0.25, "o", "da\\r\\n"]\n[0.1, "m", "ada"]\n[0.0, "x", "0"]\n'
    (tmp_path / "a.cast").write_text(lines)
    (tmp_path / "b.cast.zst").write_bytes(zstandard.ZstdCompressor().compress(lines.encode()))
    for name in ("a.cast", "b.cast.zst"):
        assert mask_file(tmp_path / name, tmp_path / f"made-{name}", masker())
        found = read_cast(tmp_path / f"made-{name}")
        assert found.output() == b"hello /home/u1_\r\n"
        assert [event.data for event in found.events][2:] == ["u1_", "0"]
        assert [event.time_s for event in found.events] == [0.5, 0.75, 0.85, 0.85]
        assert found.header["title"] == "u1_@h1____"


def broken(path: Path, number: int, *, at: int = -3, cut: int = 0) -> tuple[int, int]:
    """Damage one piece of a recording, and return where it lies and how long it is."""
    offset, length, _ = list(iter_stretches(path))[number]
    data = bytearray(path.read_bytes())
    data[offset + (at if at >= 0 else length + at)] ^= 0xFF
    path.write_bytes(data[: len(data) - cut])
    return offset, length


@pytest.mark.parametrize("at", [-3, 70, 0, 8, 13], ids=["checksum", "content", "mark", "tag", "length"])
@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_what_is_damaged_is_left_out_and_told(tmp_path: Path, at: int, number: int) -> None:
    words = ["one", "/home/ada/two", "three", "ada@laptop four", "five"]
    path = record(tmp_path / "a.cast.zst", [f"{word}\r\n".encode() for word in words])
    offset, length = broken(path, number, at=at)
    told = Findings()
    assert mask_file(path, tmp_path / "b.cast.zst", masker(), told) is True
    (sentence,) = told.damage
    assert sentence.startswith(f"{length} bytes from byte {offset} on, seconds ")
    found = read_cast(tmp_path / "b.cast.zst")
    lost = number - 1
    kept = [masker().text(word) for place, word in enumerate(words) if place != lost]
    assert found.output().decode().split() == " ".join(kept).split()
    marks = [event.data for event in found.events if event.code == "m"]
    assert marks == [f"damaged: {length} bytes of the recording could not be read"]
    assert found.header["version"] == 3
    assert found.torn_bytes == 0
    # Nothing that nobody could look into is in it, and what plays it keeps its time.
    raw = b"".join(piece_content(piece) for piece in _pieces(tmp_path / "b.cast.zst")).decode()
    assert "ada" not in raw
    assert sum(json.loads(line)[0] for line in raw.splitlines()[1:]) == pytest.approx(found.duration_s, abs=1e-6)


def test_a_recording_that_was_cut_off(tmp_path: Path) -> None:
    path = record(tmp_path / "a.cast.zst", [b"one\r\n", b"/home/ada\r\n", b"three\r\n"])
    offset, length, _ = list(iter_stretches(path))[-1]
    path.write_bytes(path.read_bytes()[:-5])
    told = Findings()
    assert mask_file(path, tmp_path / "b.cast.zst", masker(), told) is True
    assert told.damage[0].startswith(f"{length - 5} bytes from byte {offset} on, ")
    assert read_cast(tmp_path / "b.cast.zst").output() == b"one\r\n/home/u1_\r\n"


def test_damage_in_a_recording_in_which_nothing_is_private(tmp_path: Path) -> None:
    path = record(tmp_path / "a.cast.zst", [f"line {number}\r\n".encode() for number in range(2000)])
    broken(path, 1000)
    broken(path, 1500, at=0)
    told = Findings()
    assert mask_file(path, tmp_path / "b.cast.zst", Masker(users=["nobody-else"]), told) is True
    assert len(told.damage) == 2
    kept = [f"line {number}\r\n" for number in range(2000) if number not in {999, 1499}]
    assert read_cast(tmp_path / "b.cast.zst").output().decode() == "".join(kept)


def test_a_recording_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.cast.zst").write_bytes(b"\x5c\x2a\x4d\x18 no more")
    with pytest.raises(JournalError, match="expected an asciicast v3 header"):
        mask_file(tmp_path / "a.cast.zst", tmp_path / "b.cast.zst", masker())
    assert not (tmp_path / "b.cast.zst").exists()


def test_lines_of_others_that_are_no_events(tmp_path: Path) -> None:
    lines = [
        '{"version": 3, "term": {"cols": 9, "rows": 9}}',
        '[0.1, "o", "a "]',
        "no event",
        '[0.1, "o", "ada"]',
        "[0",
    ]
    (tmp_path / "a.cast").write_text("\n".join(lines))
    told = Findings()
    assert mask_file(tmp_path / "a.cast", tmp_path / "b.cast", masker(), told) is True
    assert told.damage == ["1 of its lines are no events: left out", "its end is torn: left out"]
    assert read_cast(tmp_path / "b.cast").output() == b"a u1_"


PIECES = [
    "a",
    "é",
    " ",
    "\n",
    "\r",
    "\x1b[1m",
    "\x1b[0;38;5;1m",
    "\x1b[2;5H",
    "\x1b[K",
    "\x1b]0;t\x07",
    "\x1b]8;;u\x1b\\",
]
PIECES += ["\x1b(B", "\x1b7", "\x1b=", "\x1bPq\x1b\\", "\x1b", "\x1b[", "\x1b[3", "\x1b]0;t", "\x1b]0;t\x1b", "\x1b("]


@settings(max_examples=300, deadline=None)
@given(whole=st.lists(st.sampled_from(PIECES[:15]), max_size=12), end=st.sampled_from(["", *PIECES[15:]]))
def test_what_is_seen_is_the_same_both_ways(whole: list[str], end: str) -> None:
    text = "".join(whole) + end
    assert joined(visible(text)).decode() == project(text, loose=True).text
    assert visible(text) == project(text).text
    for loose in (False, True):
        shown = project(text, loose=loose)
        places = [shown.origin(place) for place in range(len(shown.text))]
        assert places == sorted(places)
        assert all(text[at] == char or char == "\0" for at, char in zip(places, shown.text, strict=True))
