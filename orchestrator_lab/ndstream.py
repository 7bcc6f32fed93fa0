"""Streams without an end, read on an asyncio loop: the supervisor's events and the keeper's panes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
from typing import TYPE_CHECKING, Any

from orchestrator_lab.wire import read_head

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection
    from pathlib import Path

__all__ = ["KeeperStream", "events", "keeper_counts"]

#: Seconds without a line (the supervisor sends an empty one each 15 s) after which a stream is dead.
_SILENCE_S = 45.0
#: Seconds for the keeper, which is never busy for long, to answer.
_KEEPER_S = 10.0
#: Bytes of one line of the keeper: 64 KiB of output in base64, and what stands around it.
_LONGEST = 1 << 17


async def events(
    place: Path, since: int, opened: Callable[[], None] | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield journal events behind a sequence number, and then as they come.

    Parameters
    ----------
    place : Path
        The supervisor's socket.
    since : int
        The last event that is known.
    opened : callable, optional
        Called when the supervisor has answered.

    Yields
    ------
    dict
        An event.

    Raises
    ------
    ConnectionError
        When the supervisor goes.
    """
    reader, writer = await asyncio.open_unix_connection(str(place), limit=_LONGEST)
    try:
        writer.write(f"GET /events?since={since} HTTP/1.1\r\nHost: supervisor\r\n\r\n".encode("ascii"))
        # While the supervisor is being replaced, its socket is open and nobody answers: the new one will.
        status, _, _ = read_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
        if status != 200:
            raise ConnectionError(f"the supervisor answered with status {status}")
        if opened is not None:
            opened()
        held = b""
        while True:
            async with asyncio.timeout(_SILENCE_S):
                size = int((await reader.readline()).split(b";")[0] or b"0", 16)
                piece = await reader.readexactly(size + 2)
            if size == 0:
                return
            *lines, held = (held + piece[:-2]).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, http.client.HTTPException) as error:
        raise ConnectionError(f"the supervisor went away: {error}") from error
    finally:
        writer.close()


async def keeper_counts(place: Path) -> dict[str, int]:
    """Return how many bytes the keeper has seen of each pane, all of them read that were there when it was asked."""
    counts: dict[str, int] = {}
    for _ in range(2):  # it may answer the first time before it reads a pane that was ready as well
        reader, writer = await asyncio.open_unix_connection(str(place), limit=1 << 22)
        try:
            async with asyncio.timeout(_KEEPER_S):
                writer.write(b'{"op":"status"}\n')
                status = json.loads(await reader.readline())
        except ValueError as error:
            raise ConnectionError(f"the keeper went away: {error}") from error
        finally:
            writer.close()
        counts = {str(pane["agent"]): int(pane["bytes"]) for pane in status["panes"]}
    return counts


class KeeperStream:
    """The keeper's live output of some panes.

    Made by :meth:`open`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, place: Path, agents: Collection[str]) -> KeeperStream:
        """Connect to ``keeper.sock`` and wait until output is sent.

        Parameters
        ----------
        place : Path
            The socket.
        agents : collection of str
            Whose output.

        Raises
        ------
        ConnectionError
            When there is no keeper.
        """
        reader, writer = await asyncio.open_unix_connection(str(place), limit=_LONGEST)
        stream = cls(reader, writer)
        try:
            stream.choose(agents)
            await stream.next()
        except BaseException:
            stream.close()
            raise
        return stream

    def choose(self, agents: Collection[str]) -> None:
        """Change whose output is sent."""
        self._writer.write(json.dumps({"op": "subscribe", "agents": sorted(agents)}).encode() + b"\n")

    async def next(self) -> tuple[dict[str, Any], int]:
        """Return what the keeper says next, with its length; ``data`` is bytes.

        Raises
        ------
        ConnectionError
            When the keeper goes.
        """
        try:
            line = await self._reader.readuntil(b"\n")
            message: dict[str, Any] = json.loads(line)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise ConnectionError(f"the keeper went away: {error}") from error
        if "data" in message:
            message["data"] = base64.b64decode(message["data"])
        return message, len(line)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._writer.close()
