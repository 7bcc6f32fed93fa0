"""Cassettes: what an agent asked its model and what it was answered, one file an agent, written as it happens.

A cassette is JSON lines in independent zstd frames (``zstd -dc ada.jsonl.zst`` shows them). The first line says what
it is and where the cluster's places were. Then come *parts* and *takes*. A part is a piece of requests (a message, the
list of tools, …) under its digest: each stands in the file once, however often it was sent, so that a cassette grows
with the conversation and not with its square. A take is one request, its parts named, with its answer as it was
streamed. Each take holds a digest of all that it says, so that a change is noticed.

Requests stand in it as they were sent, known secrets masked; what of them counts is computed when they are replayed
(:mod:`orchestrator_lab.gateway.plain`), so that older cassettes profit from what is learnt later.

Both sides read cassettes: the gateway writes and replays them, and a run is asked what it can be replayed at.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import CassetteDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["CASSETTES", "SUFFIX", "CassetteWriter", "Take", "read_cassette", "rewrite_cassette"]

#: How the name of a cassette ends, behind its agent's.
SUFFIX = ".jsonl.zst"
#: Folder of a run with its cassettes.
CASSETTES = "cassettes"
#: Version of the format.
FORMAT = 1
#: Lists of a body whose entries are parts of their own.
_LISTS = ("messages", "input", "system", "tools")
#: The largest frame that is read, in bytes: a request of 64 MiB, its answer and their marks.
_LARGEST = 256 << 20
#: Bytes in which a frame says how large it is.
_HEADER = 18


@dataclass(slots=True)
class Take:
    """One request and its answer.

    Parameters
    ----------
    n : int
        Its number: requests of all agents of a run are counted together, from 1, as they arrive.
    agent : str
        Who asked.
    method, path : str
        Of the request, without its query.
    purpose : str or None
        What it was for; ``main`` for the conversation itself, None for what is no conversation.
    body : object
        The request's JSON value; a text where it was none.
    at_s : float
        When it arrived, in seconds since the recording began.
    after, until : int
        The highest number that had arrived when the answer began, and when it ended.
    began_s, ended_s : float
        When the answer began and ended, in seconds since the recording began.
    status : int or None
        HTTP status; None when there was no answer.
    headers : list of (str, str)
        Headers of the answer that clients act on.
    pieces : list of str
        The answer's body as it was streamed.
    binary : bytes or None
        The answer's body when it is no text.
    usage : dict
        What the provider reported about the answer (model, tokens, its id), as the journal has it.
    ended : str
        ``complete``; ``client`` when the client left first; ``broken`` when the answer has no end.
    changed : bool
        Whether it is not what was recorded.
    """

    n: int
    agent: str
    method: str
    path: str
    purpose: str | None
    body: object
    at_s: float
    after: int = 0
    until: int = 0
    began_s: float = 0.0
    ended_s: float = 0.0
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    binary: bytes | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    ended: str = "broken"
    changed: bool = False

    @property
    def is_stream(self) -> bool:
        """Whether the answer is an event stream."""
        return any(name == "content-type" and value.startswith("text/event-stream") for name, value in self.headers)


class CassetteWriter:
    """Writes one agent's cassette, or goes on with it.

    Parameters
    ----------
    path : Path
        The file, made with mode 0600. What a killed writer left torn is cut off.
    agent : str
        Whose it is.
    places : mapping of str to str
        Where things are in this cluster: ``work``, ``home``, …
    mask : callable
        Replaces known secrets in a text by as many asterisks.

    Raises
    ------
    OSError
        When the file cannot be made.
    CassetteDamaged
        When it exists and is no cassette.
    """

    def __init__(self, path: Path, *, agent: str, places: Mapping[str, str], mask: Callable[[str], str]) -> None:
        import zstandard

        self.path = path
        #: The highest number of a take in it.
        self.last = 0
        #: When its last answer ended, in seconds since the recording began.
        self.last_s = 0.0
        self._agent = agent
        self._mask = mask
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._parts: set[str] = set()
        self._lines: list[str] = []
        self._new: set[str] = set()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            whole = 0
            for line, end in _lines(path):
                whole = end
                self._parts |= {line["part"]} if "part" in line else set()
                if "take" in line:
                    self.last = max(self.last, int(line["take"]["n"]))
                    self.last_s = max(self.last_s, float(line["take"]["ended_s"]))
            os.ftruncate(self._file, whole)
            if not whole:
                self._write([_compact({"cassette": FORMAT, "agent": agent, "places": dict(places)})])
        except BaseException:
            os.close(self._file)
            raise

    def apart(self, body: object) -> Any:  # noqa: ANN401 - what `Take.body` is until it is read again
        """Take a request apart: return the names of its parts; those that are new wait for :meth:`flush`."""

        def part(value: object) -> str:
            text = self._mask(_compact(value))
            digest = _digest(text)
            if digest not in self._parts and digest not in self._new:
                self._new.add(digest)
                self._lines.append(f'{{"part":"{digest}","value":{text}}}')
            return digest

        return _taken_apart(body, part)

    def add(self, take: Take) -> None:
        """Add a take whose body is taken apart; it waits for :meth:`flush`."""
        facts: dict[str, Any] = {
            "n": take.n,
            "method": take.method,
            "path": take.path,
            "purpose": take.purpose,
            "body": take.body,
            "at_s": round(take.at_s, 4),
            "after": take.after,
            "until": take.until,
            "began_s": round(take.began_s, 4),
            "ended_s": round(take.ended_s, 4),
            "status": take.status,
            "headers": take.headers,
            "usage": take.usage,
            "ended": take.ended,
        }
        if take.binary is not None:
            facts["binary"] = base64.b64encode(take.binary).decode()
        else:
            facts["pieces"] = take.pieces
        text = self._mask(_compact(facts))
        self._lines.append(f'{{"take":{text},"sha256":"{_digest(text)}"}}')
        self.last = max(self.last, take.n)

    def flush(self) -> None:
        """Write what waits, as one frame.

        Raises
        ------
        OSError
            When it cannot be written; the file ends with a whole frame then, and what waited is lost.
        """
        lines, new, self._lines, self._new = self._lines, self._new, [], set()
        if lines:
            self._write(lines)
            self._parts |= new

    def _write(self, lines: list[str]) -> None:
        text = "\n".join([*lines, ""])
        data = memoryview(self._compressor.compress(text.encode("utf-8", "backslashreplace")))
        size = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def close(self) -> None:
        """Write what waits, and close the file."""
        if self._file < 0:
            return
        try:
            self.flush()
        finally:
            os.close(self._file)
            self._file = -1


def read_cassette(path: Path) -> tuple[dict[str, str], list[Take]]:
    """Read a cassette.

    Parameters
    ----------
    path : Path
        The file. A torn end is left out.

    Returns
    -------
    tuple of (dict, list of Take)
        Where the recorded cluster's places were, and the takes in their order. A take that is not what was recorded
        says so.

    Raises
    ------
    CassetteDamaged
        When the file is no cassette, or is damaged before its end.
    """
    agent = path.name.removesuffix(SUFFIX)
    places: dict[str, str] | None = None
    parts: dict[str, Any] = {}
    damaged: set[str] = set()
    takes: list[Take] = []
    try:
        for line, _ in _lines(path):
            if "cassette" in line:
                _check_format(path, line["cassette"])
                places = {str(name): str(path) for name, path in dict(line["places"]).items()}
            elif "part" in line:
                parts[line["part"]] = line["value"]
                if _digest(_compact(line["value"])) != line["part"]:
                    damaged.add(line["part"])
            elif "take" in line and places is not None:
                takes.append(_take(agent, line, parts, damaged))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CassetteDamaged(
            f"the cassette {path} is not one ({type(error).__name__}: {error}): take it from the run or the bundle "
            "again",
            path=str(path),
        ) from error
    if places is None:
        raise CassetteDamaged(f"the cassette {path} is empty: take it from the run or the bundle again", path=str(path))
    return places, takes


def rewrite_cassette(source: Path, target: Path, change: Callable[[str], str]) -> None:
    """Write a cassette anew with other texts in it, as before a run is given to others.

    Parameters
    ----------
    source, target : Path
        The cassette, and where the other one goes (mode 0600; not the same).
    change : callable
        Given the JSON of each piece, returns it with other words; what it returns is JSON as well.

    Raises
    ------
    CassetteDamaged
        When `source` cannot be read, or holds what was not recorded.
    OSError
        When `target` cannot be written.
    """
    places, takes = read_cassette(source)
    changed = [take.n for take in takes if take.changed]
    if changed:
        raise CassetteDamaged(
            f"the cassette {source} was changed since it was recorded (request {changed[0]}): it is not passed on",
            path=str(source),
        )
    agent = source.name.removesuffix(SUFFIX)
    target.unlink(missing_ok=True)
    other = {str(name): str(place) for name, place in json.loads(change(_compact(places))).items()}
    writer = CassetteWriter(target, agent=agent, places=other, mask=change)
    try:
        for take in takes:
            take.body = writer.apart(take.body)
            writer.add(take)
    finally:
        writer.close()


def _check_format(path: Path, found: object) -> None:
    if not isinstance(found, int) or found > FORMAT:
        raise CassetteDamaged(
            f"the cassette {path} is of format {found}, and this version knows {FORMAT}: replay it with the version "
            "that recorded it, or a newer one",
            path=str(path),
        )


def _take(agent: str, line: dict[str, Any], parts: dict[str, Any], damaged: set[str]) -> Take:
    facts = line["take"]
    named: set[str] = set()
    body = _put_together(facts["body"], parts, named)
    binary = facts.get("binary")
    return Take(
        n=int(facts["n"]),
        agent=agent,
        method=str(facts["method"]),
        path=str(facts["path"]),
        purpose=facts["purpose"],
        body=body,
        at_s=float(facts["at_s"]),
        after=int(facts["after"]),
        until=int(facts["until"]),
        began_s=float(facts["began_s"]),
        ended_s=float(facts["ended_s"]),
        status=facts["status"],
        headers=[(str(name), str(value)) for name, value in facts["headers"]],
        pieces=[str(piece) for piece in facts.get("pieces", ())],
        binary=None if binary is None else base64.b64decode(binary),
        usage=dict(facts["usage"]),
        ended=str(facts["ended"]),
        changed=line.get("sha256") != _digest(_compact(facts)) or bool(named & damaged),
    )


def _taken_apart(body: object, part: Callable[[object], str]) -> Any:  # noqa: ANN401 - a part's name, or names by key
    """Return a body by the names of its parts."""
    if not isinstance(body, dict):
        return part(body)
    apart: dict[str, Any] = {"rest": part({key: value for key, value in body.items() if key not in _LISTS})}
    for key in _LISTS:
        value = body.get(key)
        if key in body:
            apart[key] = [part(one) for one in value] if isinstance(value, list) and key != "tools" else part(value)
    return apart


def _put_together(apart: Any, parts: dict[str, Any], named: set[str]) -> Any:  # noqa: ANN401 - any JSON
    """Return the body of which :func:`_taken_apart` made this; `named` learns which parts it is made of."""

    def value(name: Any) -> Any:  # noqa: ANN401
        if isinstance(name, list):
            return [value(one) for one in name]
        named.add(name)
        return parts[name]

    if not isinstance(apart, dict):
        return value(apart)
    return {**value(apart["rest"]), **{key: value(names) for key, names in apart.items() if key != "rest"}}


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the lines of a cassette, each with the place in the file behind its frame; a torn end is left out."""
    import zstandard

    data = memoryview(path.read_bytes())
    at = 0
    while at < len(data):
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            # A frame cannot hold more than it says.
            size = zstandard.get_frame_parameters(data[at:]).content_size if len(data) - at >= _HEADER else 0
            text = b"" if size > _LARGEST else decompressor.decompress(data[at:])
        except zstandard.ZstdError as error:
            raise CassetteDamaged(
                f"the cassette {path} is damaged at byte {at} ({error}): take it from the run or the bundle again",
                path=str(path),
            ) from error
        if size > _LARGEST:
            raise CassetteDamaged(
                f"the cassette {path} holds {size} bytes in one piece, more than any request has: it is not used",
                path=str(path),
            )
        if not decompressor.eof:
            return
        at = len(data) - len(decompressor.unused_data)
        for row in text.decode("utf-8").split("\n"):
            if row:
                yield json.loads(row), at


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
