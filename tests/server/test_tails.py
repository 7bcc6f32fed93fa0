"""Logs as they grow: whole lines, each once, from the end of what was there before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from orchestrator_lab.server.tails import Piece, Tail, follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


def append(path: Path, text: str) -> None:
    with path.open("ab") as log:
        log.write(text.encode())


def test_it_begins_with_the_end_and_goes_on_with_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "one\ntwo\nthr")
    tail = Tail(path)
    assert tail.read() == Piece("one\ntwo\n", begin=True, truncated=False)
    assert tail.read() is None
    append(path, "ee 日")
    assert tail.read() is None
    append(path, "本\nfour\nf")
    assert tail.read() == Piece("three 日本\nfour\n", begin=False, truncated=False)


def test_a_log_that_comes_later_is_told_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = Tail(path)
    assert tail.read() == Piece("", begin=True, truncated=False)
    assert tail.read() is None
    append(path, "one\n")
    assert tail.read() == Piece("one\n", begin=False, truncated=False)


def test_an_empty_log_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "")
    tail = Tail(path)
    assert tail.read() == Piece("", begin=True, truncated=False)
    append(path, "one\n")
    assert tail.read() == Piece("one\n", begin=False, truncated=False)


def test_of_a_long_one_only_the_end_is_told_also_when_it_grew_too_fast(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "".join(f"line {number}\n" for number in range(100)))
    tail = Tail(path, most=20)
    assert tail.read() == Piece("line 98\nline 99\n", begin=True, truncated=True)
    append(path, "".join(f"more {number}\n" for number in range(10)))
    assert tail.read() == Piece("more 8\nmore 9\n", begin=True, truncated=True)
    append(path, "x" * 30)
    found = tail.read()
    assert found is not None
    assert set(found.text) == {"x"}


def test_one_that_was_written_anew_begins_anew_and_one_that_is_gone_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "one\n")
    tail = Tail(path)
    tail.read()
    path.write_text("")
    append(path, "a\n")
    assert tail.read() == Piece("a\n", begin=True, truncated=False)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        tail.read()


async def read(look: Callable[[], Piece | None]) -> Piece | None:
    return look()


async def next_text(pieces: AsyncIterator[Piece]) -> str:
    return (await asyncio.wait_for(anext(pieces), 30)).text


async def test_what_is_appended_is_told_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    pieces = follow(path, read)
    assert await next_text(pieces) == ""
    append(path, "one\n")
    assert await next_text(pieces) == "one\n"
    append(path, "two\n")
    append(path, "three\n")
    told = ""
    while told != "two\nthree\n":
        told += await next_text(pieces)
    path.unlink()
    with pytest.raises(StopAsyncIteration):
        await next_text(pieces)
