"""The little HTTP that the gateway needs below Starlette: raw responses, and noticing that a client has gone."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from starlette.types import Receive, Scope, Send

__all__ = [
    "ClientGone",
    "TooLargeError",
    "decoded",
    "decoded_part",
    "headers_of",
    "read_body",
    "send_json",
    "start",
    "until_gone",
]

#: The largest request body taken, in bytes: the Messages API takes 32 MB.
MAX_BODY = 64 * 1024 * 1024


class ClientGone(Exception):
    """The client closed its connection before the answer was complete."""


class TooLargeError(ValueError):
    """A request's body is larger than any that is taken."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the request's headers, names in lower case.

    Parameters
    ----------
    scope : dict
        The ASGI scope.

    Returns
    -------
    dict
        Names and values; the last one of a repeated name.
    """
    return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}


async def read_body(receive: Receive) -> bytes:
    """Read the request's body.

    Parameters
    ----------
    receive : callable
        ASGI's.

    Returns
    -------
    bytes
        The body as it came (still compressed when it was).

    Raises
    ------
    ClientGone
        When the client left before its end.
    TooLargeError
        When it is larger than 64 MiB.
    """
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            msg = f"a body of more than {MAX_BODY >> 20} MiB is not taken"
            raise TooLargeError(msg)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def decoded(body: bytes, encoding: str) -> bytes:
    """Return a body without its compression.

    Parameters
    ----------
    body : bytes
        As it came.
    encoding : str
        The Content-Encoding header; "" for none.

    Returns
    -------
    bytes
        The plain body.

    Raises
    ------
    ValueError
        For an unknown encoding or broken data.

    Examples
    --------
    >>> decoded(zlib.compress(b"hello"), "deflate")
    b'hello'
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    try:
        if name in {"gzip", "x-gzip", "deflate"}:
            return zlib.decompress(body, 47)  # 47: either header is found out by itself
        if name == "zstd":
            import zstandard

            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    except Exception as problem:
        msg = f"the {name} body cannot be decompressed: {problem}"
        raise ValueError(msg) from problem
    msg = f"Content-Encoding {encoding!r} is not supported; send gzip, deflate, zstd or none"
    raise ValueError(msg)


def decoded_part(body: bytes, encoding: str) -> bytes:
    """Return what can be decompressed of a body that may have no end; the body itself when it cannot be read.

    Parameters
    ----------
    body : bytes
        As it came.
    encoding : str
        The Content-Encoding header; "" for none.

    Returns
    -------
    bytes
        The plain body.

    Examples
    --------
    >>> packed = zlib.compress(b"hello " * 1000)
    >>> decoded_part(packed[:-4], "deflate")[:6]
    b'hello '
    """
    name = encoding.strip().lower()
    try:
        if name in {"gzip", "x-gzip", "deflate"}:
            return zlib.decompressobj(47).decompress(body)
        if name == "zstd":
            import zstandard

            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    except Exception:  # noqa: BLE001 - any decoder's own error class; the bytes are kept as they came
        return body
    return body


async def start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """Send status and headers."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_json(
    send: Send, status: int, value: Mapping[str, Any], headers: list[tuple[str, str]] | None = None
) -> None:
    """Send a JSON answer.

    Parameters
    ----------
    send : callable
        ASGI's.
    status : int
        HTTP status.
    value : dict
        The answer.
    headers : list of (str, str), optional
        More headers.
    """
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    raw = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    raw += [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers or []]
    await start(send, status, raw)
    await send({"type": "http.response.body", "body": body})


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and cancel it as soon as the client closes its connection.

    Parameters
    ----------
    receive : callable
        ASGI's, the request's body already read.
    work : coroutine
        What answers.

    Raises
    ------
    ClientGone
        When the client left first.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return
        working.cancel()
        await asyncio.wait({working})
        raise ClientGone
    finally:
        for task in (working, watching):
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
