"""Recording: each request of an agent and its answer, taken down beside what is passed on."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import queue
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator_lab.cassette import SUFFIX, Take
from orchestrator_lab.cassette_writer import CassetteWriter
from orchestrator_lab.errors import CassetteDamaged
from orchestrator_lab.gateway.http import decoded_part
from orchestrator_lab.gateway.translate import translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import Send

    from orchestrator_lab.gateway.plain import Places
    from orchestrator_lab.gateway.traffic import Usage

__all__ = ["Recorder", "Tap"]

logger = logging.getLogger(__name__)

#: Headers of answers that clients act on; all others are the wire's business, or nobody's.
_KEPT = frozenset({"content-type", "retry-after", "retry-after-ms", "x-should-retry"})
#: Seconds for which takes are gathered: an answer that an agent waits for is not held up by the last one's record.
_GATHER_S = 0.05
_KEPT_BEGINNINGS = ("anthropic-ratelimit-", "x-ratelimit-", "x-codex-")


class Mask(Protocol):
    """What is never to be written."""

    @property
    def secrets(self) -> list[str]:
        """The known secrets."""

    def __call__(self, text: str) -> str:
        """Return a text with the secrets masked."""


@dataclass(slots=True)
class _Work:
    """A request to be taken apart, or an answer to be added."""

    writer: CassetteWriter
    take: Take
    body: object = None
    answer: list[bytes] | None = None


class Recorder:
    """Takes down what the agents of a cluster ask and are answered.

    Parameters
    ----------
    folder : Path
        Of the cassettes; is there, and private.
    mask : Mask
        Known secrets, which are not written.
    failed : callable
        ``failed(agent, sentence)`` is told once when a cassette cannot be written, and has holes from then on.
    """

    def __init__(self, folder: Path, *, mask: Mask, failed: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._mask = mask
        self._failed = failed
        self._writers: dict[str, CassetteWriter] = {}
        self._told: set[str] = set()
        #: Agents of whose cassettes something is lost: what goes on from it would be no cassette.
        self._broken: set[str] = set()
        #: Requests that have arrived.
        self.arrived = 0
        self._began = time.monotonic()
        # One thread: takes are written in their order, and a slow disk holds up no answer.
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def now_s(self) -> float:
        """Seconds since the recording began."""
        return time.monotonic() - self._began

    def open(self, agent: str, places: Places) -> None:
        """Make an agent's cassette, or go on with it."""
        if agent in self._writers:
            return
        try:
            writer = CassetteWriter(
                self._folder / f"{agent}{SUFFIX}", agent=agent, places=places.named, mask=self._mask
            )
        except (OSError, CassetteDamaged) as error:
            self._tell(agent, error)
            return
        self._writers[agent] = writer
        self.arrived = max(self.arrived, writer.last)
        # A cassette that is continued continues its clock.
        self._began = min(self._began, time.monotonic() - writer.last_s)

    def take(self, agent: str, method: str, path: str, purpose: str | None, body: object) -> Take | None:
        """Note that a request has arrived; None when this agent is not recorded."""
        writer = self._writers.get(agent)
        if writer is None or agent in self._told:
            return None
        self.arrived += 1
        take = Take(self.arrived, agent, method, path, purpose, None, self.now_s)
        # At once: a conversation of megabytes is not kept until its answer is over.
        self._put(_Work(writer, take, body=body))
        return take

    def keep(self, tap: Tap, usage: Usage, *, client_left: bool) -> None:
        """Write a take whose answer is over, beside the loop."""
        take = tap.take
        writer = None if take is None else self._writers.get(take.agent)
        if take is None or writer is None:
            return
        take.usage = usage.attributes()
        if not tap.whole:
            tap.over()
            take.ended = "client" if client_left else "broken"
        self._put(_Work(writer, take, answer=tap.body))

    def _put(self, work: _Work) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="cassettes", daemon=True)
            self._thread.start()
        self._work.put(work)

    def _run(self) -> None:
        """Write what there is, several takes at once: what agents wait for goes first."""
        going = True
        while going:
            found = [self._work.get()]
            if found[0] is not None:
                time.sleep(_GATHER_S)
            with contextlib.suppress(queue.Empty):
                while found[-1] is not None:
                    found.append(self._work.get_nowait())
            going = found[-1] is not None
            self._write([work for work in found if work is not None])

    def _write(self, works: list[_Work]) -> None:
        failed: dict[str, BaseException] = {}
        works = [work for work in works if work.take.agent not in self._broken]
        for work in works:
            try:
                if work.answer is None:
                    work.take.body = work.writer.apart(work.body)
                else:
                    _add(work.writer, work.take, work.answer, self._mask)
            except (ValueError, TypeError, RecursionError) as error:
                failed[work.take.agent] = error
            work.body = None
        for writer, agent in {work.writer: work.take.agent for work in works}.items():
            try:
                writer.flush()
            except OSError as error:
                failed[agent] = error
        self._broken |= failed.keys()
        for agent, why in failed.items():
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._tell, agent, why)

    def _tell(self, agent: str, error: BaseException) -> None:
        """Tell once of a cassette with a hole: what comes behind it could not be replayed."""
        logger.error("the cassette of %s cannot be written", agent, exc_info=error)
        if agent not in self._told:
            self._told.add(agent)
            reason = getattr(error, "strerror", None) or str(error)
            self._failed(agent, f"its cassette cannot be written ({reason}): the run cannot be replayed from here on")

    async def aclose(self) -> None:
        """Wait until all is written, and close the files."""
        if self._thread is not None:
            self._work.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        for writer in self._writers.values():
            with contextlib.suppress(OSError):
                writer.close()
        self._writers.clear()


def _add(writer: CassetteWriter, take: Take, body: list[bytes], mask: Mask) -> None:
    if take.body is None:
        return  # it could not be taken apart
    take.pieces, take.binary = _texts(body, _encoding(take))
    take.headers = [(name, value) for name, value in take.headers if name != "content-encoding"]
    stars = {secret: "*" * len(secret) for secret in mask.secrets}
    if stars:  # also those that the stream cut in two
        found = re.compile("|".join(map(re.escape, stars)))
        take.pieces = translated(take.pieces, stars, stream=take.is_stream, pattern=found)
    writer.add(take)


def _encoding(take: Take) -> str:
    """Return the Content-Encoding of a take's answer."""
    return next((value for name, value in take.headers if name == "content-encoding"), "")


class Tap:
    """Stands between whoever answers and the client, and takes down what passes.

    Parameters
    ----------
    send : callable
        ASGI's.
    recorder : Recorder
        Whose clock it is.
    """

    def __init__(self, send: Send, recorder: Recorder) -> None:
        self._send = send
        self._recorder = recorder
        self.take: Take | None = None
        self.body: list[bytes] = []
        #: Whether the answer came to its end.
        self.whole = False

    async def send(self, message: Any) -> None:  # noqa: ANN401 - an ASGI message
        """Pass one message on."""
        take = self.take
        if take is not None and message["type"] == "http.response.start":
            take.began_s, take.after, take.status = self._recorder.now_s, self._recorder.arrived, message["status"]
            take.headers = _headers(message.get("headers", ()))
        elif take is not None and message["type"] == "http.response.body":
            if message.get("body"):
                self.body.append(bytes(message["body"]))
            if not message.get("more_body", False):
                self.whole, take.ended = True, "complete"
                self.over()
        await self._send(message)

    def over(self) -> None:
        """Note that the answer is over."""
        if self.take is not None:
            self.take.ended_s, self.take.until = self._recorder.now_s, self._recorder.arrived


def _headers(raw: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - pairs of bytes
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
    return [
        (name, value)
        for name, value in pairs
        if name in _KEPT or name == "content-encoding" or name.startswith(_KEPT_BEGINNINGS)
    ]


def _texts(body: list[bytes], encoding: str) -> tuple[list[str], bytes | None]:
    """Return a body's pieces as texts, decompressed; as bytes when it is no text."""
    if encoding:
        body = [decoded_part(b"".join(body), encoding)]
    try:
        return _whole_characters(body), None
    except UnicodeDecodeError:
        return [], b"".join(body)


def _whole_characters(body: list[bytes]) -> list[str]:
    """Decode pieces; a character that was cut in two goes with the later one."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    texts = [decoder.decode(piece, final=number == len(body)) for number, piece in enumerate(body, start=1)]
    return [text for text in texts if text]
