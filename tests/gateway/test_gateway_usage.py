from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.gateway.anthropic import stream
from orchestrator_lab.gateway.openai import stream as openai_stream
from orchestrator_lab.gateway.traffic import Reply, Request, ToolCall, Usage
from orchestrator_lab.gateway.usage import UsageReader


def drained(generator: Any) -> bytes:
    parts = []
    try:
        while True:
            generator.asend(None).send(None)
    except StopIteration as item:
        parts.append(item.value)
    except StopAsyncIteration:
        pass
    return b"".join(parts)


SSE = "text/event-stream; charset=utf-8"
MESSAGES = (
    b'event: message_start\r\ndata: {"type":"message_start","message":{"model":"m-1","usage":'
    b'{"input_tokens":25,"cache_read_input_tokens":7,"cache_creation_input_tokens":3,"output_tokens":1}}}\r\n\r\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a \\"usage\\" \xc3\xa9"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":15}}\n\n'
)
RESPONSES = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"model":"m-1","usage":'
    b'{"input_tokens":25,"input_tokens_details":{"cached_tokens":7},"output_tokens":15}}}\n\n'
)
CHAT = (
    b'data: {"model":"m-1","choices":[{"delta":{"content":"usage"}}],"usage":null}\n\n'
    b'data: {"model":"m-1","choices":[],"usage":{"prompt_tokens":25,"completion_tokens":15,'
    b'"prompt_tokens_details":{"cached_tokens":7}}}\n\ndata: [DONE]\n\n'
)
JSON = json.dumps({"model": "m-1", "usage": {"input_tokens": 25, "output_tokens": 15}}).encode()
CASES = [
    (SSE, MESSAGES, Usage("m-1", 25, 15, 7, 3)),
    (SSE, MESSAGES.rstrip(b"\n"), Usage("m-1", 25, 15, 7, 3)),
    (SSE, RESPONSES, Usage("m-1", 25, 15, 7)),
    (SSE, CHAT, Usage("m-1", 25, 15, 7)),
    ("application/json", JSON, Usage("m-1", 25, 15)),
    ("text/plain", JSON, Usage()),
    (SSE, b'data: {broken usage\n\ndata: [1]\n\ndata: "usage"\n\n', Usage()),
    ("application/json", b"{broken", Usage()),
]


def read(kind: str, raw: bytes, cuts: list[int], encoding: str = "") -> Usage:
    reader = UsageReader(kind, encoding)
    places = [0, *sorted(c % (len(raw) + 1) for c in cuts), len(raw)]
    for start, end in itertools.pairwise(places):
        reader.feed(raw[start:end])
    return reader.finish()


@given(st.sampled_from(CASES), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_split_gives_the_same_usage(case: Any, cuts: Any) -> None:
    kind, raw, usage = case
    assert read(kind, raw, cuts) == usage


@given(
    st.sampled_from(CASES),
    st.sampled_from([("gzip", gzip.compress), ("zstd", zstandard.compress)]),
    st.lists(st.integers(0, 10_000), max_size=10),
)
def test_any_split_of_a_compressed_answer_too(case: Any, coding: Any, cuts: Any) -> None:
    kind, raw, usage = case
    name, pack = coding
    assert read(kind, pack(raw), cuts, name) == usage


@given(st.binary(max_size=400), st.sampled_from(["", "gzip", "zstd", "br"]))
def test_no_answer_can_break_it(raw: Any, encoding: Any) -> None:
    read(SSE, raw, [3, 50], encoding)
    read("application/json", raw, [3, 50], encoding)


@given(st.text(max_size=80), st.integers(1, 9), st.booleans())
def test_what_the_script_streams_is_what_is_read(text: Any, chunk: Any, tool: Any) -> None:
    tools = (ToolCall("t", {"a": text}, "id"),) if tool else ()
    reply = Reply(text, tools, chunk=chunk)
    request = Request("a", "anthropic", "hi", input_tokens=5)
    usage = read(SSE, drained(stream(request, reply, "msg_1")), [7, 99])
    assert usage == Usage("script", 5, reply.output_tokens, 0, 0, "msg_1")
    request = Request("a", "openai", "hi", input_tokens=5, body={"stream_options": {"include_usage": True}})
    usage = read(SSE, drained(openai_stream(request, reply, "c_1")), [7, 99])
    assert usage == Usage("script", 5, reply.output_tokens, reply_id="c_1")


@pytest.mark.parametrize("size", [1, 17 * 1024 * 1024])
def test_a_line_without_end_is_let_go(size: Any) -> None:
    reader = UsageReader(SSE)
    reader.feed(b"data: " + b"x" * size)
    reader.feed(b'\ndata: {"usage":{"output_tokens":1}}\n')
    assert reader.finish().output_tokens == (1 if size == 1 else None)
