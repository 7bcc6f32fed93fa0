"""Passing on, against a second gateway in script mode and against a raw server that shows what arrives."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from gateway_helpers import Running, asks, running_gateway, serving, settings

RULES = {
    "rules": [
        {"when": {"contains": "slow"}, "reply": "abcdefgh" * 2000, "tokens_per_s": 40},
        {"when": {"contains": "never"}, "reply": "x", "delay_s": 300},
        {"when": {"contains": "busy"}, "error": {"status": 529, "type": "overloaded_error", "message": "Busy."}},
    ],
    "default": {"reply": "You said: {text}", "chunk": 3},
}
PLACE = "/gateway/a-secret/"


@pytest.fixture
async def provider() -> Any:
    async with running_gateway() as value:
        value.gateway.bind("model", "provider", settings(script=RULES))
        yield value


@pytest.fixture
async def url(running: Running, provider: Running) -> Any:
    running.gateway.bind("boss", "a-secret", settings("upstream", base_url=provider.url("provider")))
    return running.url("a-secret")


class Mirror:
    """An HTTP server that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        self.body = b"{}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        target = scope["raw_path"].decode() + "?" + scope["query_string"].decode()
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.seen.append((scope["method"], target, headers, body))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


@pytest.fixture
async def mirror() -> Any:
    app = Mirror()
    async with serving(app) as port:
        app.port = port  # type: ignore[attr-defined]
        yield app


async def test_a_stream_passes_untouched_and_its_usage_is_journalled(
    url: str, client: httpx.AsyncClient, running: Running
) -> None:
    answer = await client.post(f"{url}/v1/messages?beta=true", json=asks("hi", stream=True))
    assert answer.status_code == 200
    assert answer.text.count("content_block_delta") == 2 * 4
    assert answer.text.endswith('data: {"type":"message_stop"}\n\n')
    (answered,) = await running.wait_for("gateway.response")
    assert (answered["model"], answered["output_tokens"], answered["status"]) == ("script", 3, 200)
    assert running.of("gateway.request")[0]["mode"] == "upstream"
    assert answered["first_byte_s"] <= answered["duration_s"]


async def test_a_slow_stream_is_not_held_back(url: str, client: httpx.AsyncClient) -> None:
    told = ""
    async with client.stream("POST", f"{url}/v1/messages", json=asks("slow", stream=True)) as answer:
        async for piece in answer.aiter_text():
            told += piece
            if told.count("event: content_block_delta") >= 3:
                break  # all of it would take longer than this client waits
    assert "message_stop" not in told


async def test_errors_of_the_provider_pass_untouched(url: str, client: httpx.AsyncClient, running: Running) -> None:
    answer = await client.post(f"{url}/v1/messages", json=asks("busy"))
    assert answer.status_code == 529
    assert answer.json()["error"]["type"] == "overloaded_error"
    (answered,) = await running.wait_for("gateway.response")
    assert "answered with status 529" in answered["error"]


async def test_method_path_query_headers_and_body_as_the_client_sent_them(
    running: Running, mirror: Mirror, client: httpx.AsyncClient
) -> None:
    running.gateway.bind("boss", "a-secret", settings("upstream", base_url=f"http://127.0.0.1:{mirror.port}/base/"))
    url = running.url("a-secret")
    packed = gzip.compress(json.dumps(asks("hi")).encode())
    await client.post(
        f"{url}/v1/a%2Fb%20c?x=%2F&x=2",
        content=packed,
        headers={
            "content-encoding": "gzip",
            "authorization": "Bearer the-user-s-own",
            "anthropic-beta": "a,b",
            "accept-encoding": "gzip, br;q=0.5, zstd",
            "connection": "keep-alive, x-hop",
            "x-hop": "1",
        },
    )
    method, target, headers, body = mirror.seen[0]
    assert (method, target, body) == ("POST", "/base/v1/a%2Fb%20c?x=%2F&x=2", packed)
    assert headers["authorization"] == "Bearer the-user-s-own"
    assert headers["anthropic-beta"] == "a,b"
    assert headers["accept-encoding"] == "gzip, zstd"
    assert headers["host"] == f"127.0.0.1:{mirror.port}"
    assert "x-hop" not in headers
    await client.head(url)
    assert mirror.seen[1][:2] == ("HEAD", "/base?")
    await running.wait_for("gateway.response", 2)
    assert "the-user-s-own" not in json.dumps(running.events)


@pytest.mark.parametrize(
    ("api", "name", "value"), [("anthropic", "x-api-key", "KEY"), ("openai", "authorization", "Bearer KEY")]
)
async def test_a_configured_key_takes_the_place_of_the_clients(
    running: Running, mirror: Mirror, client: httpx.AsyncClient, *, api: str, name: str, value: str
) -> None:
    config = settings("upstream", base_url=f"http://127.0.0.1:{mirror.port}/v1", api=api)
    running.gateway.bind("boss", "a-secret", config, key="KEY")
    sent = {"x-api-key": "dummy", "authorization": "Bearer dummy"}
    await client.post(f"{running.url('a-secret')}/v1/messages", json=asks("hi"), headers=sent)
    _, target, headers, _ = mirror.seen[0]
    assert target == "/v1/messages?"
    assert headers[name] == value
    assert "dummy" not in "".join(headers.values())
    await running.wait_for("gateway.response")
    assert "KEY" not in json.dumps(running.events)


async def test_compressed_answers_pass_and_are_read(
    running: Running, mirror: Mirror, client: httpx.AsyncClient
) -> None:
    mirror.body = gzip.compress(b'{"model": "m", "usage": {"input_tokens": 2, "output_tokens": 3}}')
    mirror.headers += [(b"content-encoding", b"gzip"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    running.gateway.bind("boss", "a-secret", settings("upstream", base_url=f"http://127.0.0.1:{mirror.port}"))
    async with client.stream("POST", f"{running.url('a-secret')}/v1/messages", json=asks("hi")) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert raw == mirror.body
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert len(answer.headers.get_list("date")) == 1
    (answered,) = await running.wait_for("gateway.response")
    assert (answered["input_tokens"], answered["output_tokens"]) == (2, 3)


async def test_redirects_are_not_followed(running: Running, mirror: Mirror, client: httpx.AsyncClient) -> None:
    mirror.status = 307
    mirror.headers.append((b"location", b"http://elsewhere.example/v1/messages"))
    running.gateway.bind(
        "boss", "a-secret", settings("upstream", base_url=f"http://127.0.0.1:{mirror.port}"), key="KEY"
    )
    answer = await client.post(f"{running.url('a-secret')}/v1/messages", json=asks("hi"))
    assert answer.status_code == 502
    assert "redirect to http://elsewhere.example/v1/messages" in answer.json()["error"]["message"]
    assert len(mirror.seen) == 1


async def test_nobody_there(running: Running, client: httpx.AsyncClient) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]  # nobody listens there as long as it is held
        running.gateway.bind("boss", "a-secret", settings("upstream", base_url=f"http://127.0.0.1:{port}"))
        answer = await client.post(f"{running.url('a-secret')}/v1/messages?a=b", json=asks("hi"))
    assert answer.status_code == 502
    message = answer.json()["error"]["message"]
    assert f"http://127.0.0.1:{port}/v1/messages cannot be reached" in message
    (answered,) = await running.wait_for("gateway.response")
    assert answered["error"] == message


async def test_a_client_that_leaves_ends_the_providers_work(
    url: str, client: httpx.AsyncClient, running: Running, provider: Running
) -> None:
    asked = asyncio.create_task(client.post(f"{url}/v1/messages", json=asks("never")))
    await provider.wait_for("gateway.request")
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    (ours,) = await running.wait_for("gateway.response")
    (theirs,) = await provider.wait_for("gateway.response")
    assert ours["error"] == theirs["error"] == "the client closed the connection"


@asynccontextmanager
async def answering(running: Running, answer: Any) -> Any:
    """Let the gateway ask a server of bare bytes: `answer` gets the reader and the writer of each connection."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        running.gateway.bind("boss", "a-secret", settings("upstream", base_url=f"http://127.0.0.1:{port}"))
        yield


async def test_a_provider_that_breaks_off_is_no_complete_answer(running: Running, client: httpx.AsyncClient) -> None:
    async def half(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"6\r\ndata: \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()

    async with answering(running, half):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"{running.url('a-secret')}/v1/messages", json=asks("hi"))
    (answered,) = await running.wait_for("gateway.response")
    assert "broke off in the middle of its answer" in answered["error"]


async def test_a_server_of_this_machine_that_closes_after_its_answer_loses_no_request(
    running: Running, client: httpx.AsyncClient
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"

    async def once(reader: Any, writer: Any) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
        writer.write(answer)
        await reader.read(1)  # it does not say that it closes: its patience ends as the next request comes
        writer.close()
        await writer.wait_closed()

    async with answering(running, once):
        for _ in range(3):
            got = await client.post(f"{running.url('a-secret')}/v1/messages", json=asks("hi"))
            assert (got.status_code, got.content) == (200, b"{}")
