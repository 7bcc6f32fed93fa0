"""Giving a recorded answer to a client, as it was given when it was recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator_lab.gateway.http import start
from orchestrator_lab.gateway.traffic import Usage

if TYPE_CHECKING:
    from starlette.types import Send

    from orchestrator_lab.cassette import Take
    from orchestrator_lab.gateway.player import Player
    from orchestrator_lab.gateway.upstream import Passage

__all__ = ["play"]

#: Events that end a stream: of a block, of what the answer cost, of the whole.
_LAST_EVENTS = 3


async def play(player: Player, take: Take, call: Passage, request_id: str, send: Send) -> None:
    """Give a recorded answer.

    One that the recorded client did not wait for is held open behind its last byte, until this client leaves as well;
    one that broke off breaks off.

    Parameters
    ----------
    player : Player
        Knows the order, and what things are called now.
    take : Take
        The answer.
    call : Passage
        What the journal will say; status, usage and error are filled in.
    request_id : str
        The request's id in the journal, sent along.
    send : callable
        ASGI's.
    """
    try:
        await player.may_begin(take)
        if take.status is not None:
            body = player.answer(take)
            # What a client does follows the end of its answer: the end keeps the recorded order as well.
            tail = len(body) if take.ended != "complete" else _tail(body) if take.is_stream else 0
            await _begin(body, take, call, request_id, send)
            await _send(body[:tail], call, send)
            if tail < len(body):
                await player.may_end(take)
            await _send(body[tail:], call, send)
        if take.ended == "client":
            await asyncio.Event().wait()  # until the client leaves, which cancels this
        elif take.ended == "complete":
            await send({"type": "http.response.body", "body": b""})
        else:
            call.error = "as in the recording, the answer has no end"
    finally:
        player.over(take)


async def _begin(body: bytes, take: Take, call: Passage, request_id: str, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in take.headers]
    headers.append((b"request-id", request_id.encode()))
    if not take.is_stream and take.ended == "complete":
        headers.append((b"content-length", str(len(body)).encode()))
    known = {name: value for name, value in take.usage.items() if name in Usage.__slots__}
    call.status, call.usage = take.status, Usage(**known)
    if take.status is not None and take.status >= 400:
        call.error = f"as in the recording, the model endpoint answered with status {take.status}"
    await start(send, take.status or 200, headers)


async def _send(body: bytes, call: Passage, send: Send) -> None:
    if body:
        call.first_byte()
        await send({"type": "http.response.body", "body": body, "more_body": True})


def _tail(body: bytes) -> int:
    """Return where the last events of a stream begin, from which a client knows that it is over."""
    place = len(body.rstrip())
    for _ in range(_LAST_EVENTS):
        place = body.rfind(b"\n\n", 0, place)
        if place < 0:
            return 0
    return place + 2
