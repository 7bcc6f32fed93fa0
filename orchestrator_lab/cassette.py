"""Cassettes: what an agent asked its model and what it was answered, one file an agent, written as it happens.

A cassette is JSON lines in independent zstd frames (``zstd -dc ada.jsonl.zst`` shows them). The first line says what
it is and where the cluster's places were. Then come *parts*, *lists* and *takes*. A part is a piece of requests (a
message, the tools, …) under its digest: each stands in the file once, however often it was sent. A list is the messages
of a request, by their names, under the digest of them all: what it has more than an earlier list. So a cassette grows
with the conversation and not with its square. A take is one request, its parts and lists named, with its answer as it
was streamed. Each take holds a digest of all that it says, so that a change is noticed.

Requests stand in it as they were sent, known secrets masked; what of them counts is computed when they are replayed
(:mod:`orchestrator_lab.gateway.plain`), so that older cassettes profit from what is learnt later.

Both sides read cassettes: the gateway writes and replays them, and a run is asked what it can be replayed at.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import CassetteDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "CASSETTES",
    "FORMAT",
    "SUFFIX",
    "Take",
    "cassette_lines",
    "compact",
    "digest",
    "list_digest",
    "read_cassette",
]

#: How the name of a cassette ends, behind its agent's.
SUFFIX = ".jsonl.zst"
#: Folder of a run with its cassettes.
CASSETTES = "cassettes"
#: Version of the format; the first one had no lists: each take named all its messages.
FORMAT = 2
#: Names in lists that are read at most: those of a conversation of some 5,000 turns.
_MOST = 50_000_000
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


def read_cassette(path: Path) -> tuple[dict[str, str], Iterator[Take]]:
    """Read a cassette.

    Parameters
    ----------
    path : Path
        The file. A torn end is left out.

    Returns
    -------
    tuple of (dict, iterator of Take)
        Where the recorded cluster's places were, and the takes in their order, read as they are asked for. A take that
        is not what was recorded says so.

    Raises
    ------
    CassetteDamaged
        When the file is no cassette, or, from the iterator, is damaged before its end.
    """
    lines = (line for line, _ in cassette_lines(path))
    with _told_of(path):
        first = next(lines, None)
        if first is None:
            raise CassetteDamaged(
                f"the cassette {path} is empty: take it from the run or the bundle again", path=str(path)
            )
        _check_format(path, first["cassette"])
        places = {str(name): str(place) for name, place in dict(first["places"]).items()}
    return places, _takes(path, lines)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CassetteDamaged(
            f"the cassette {path} is not one ({type(error).__name__}: {error}): take it from the run or the bundle "
            "again",
            path=str(path),
        ) from error


def _takes(path: Path, lines: Iterator[dict[str, Any]]) -> Iterator[Take]:
    agent = path.name.removesuffix(SUFFIX)
    parts: dict[str, Any] = {}
    lists = _Lists(path)
    damaged: set[str] = set()
    with _told_of(path):
        for line in lines:
            if "part" in line:
                parts[line["part"]] = line["value"]
                if digest(compact(line["value"])) != line["part"]:
                    damaged.add(line["part"])
            elif "list" in line:
                if not lists.add(**line):
                    damaged.add(line["list"])
            elif "take" in line:
                yield _take(agent, line, parts, lists, damaged)


class _Lists:
    """The lists of a cassette by their names: each as what it has more than another, as in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._added: dict[str, tuple[str, int, list[str]]] = {list_digest([]): ("", 0, [])}
        self._read = 0

    def add(self, list: str, of: str, first: int, then: list[str]) -> bool:  # noqa: A002 - the file's word
        """Add a list; return whether it is what its name says."""
        if list in self._added or (of and of not in self._added):
            raise ValueError(f"the list {list} stands twice, or before the one that it goes on from")
        self._added[list] = (of, first, then)
        return list_digest(self.names(list)) == list

    def names(self, name: str) -> list[str]:
        """Return the names of a list's parts."""
        pieces, upto = [], sys.maxsize
        while name:
            of, first, then = self._added[name]
            pieces.append(then[: max(0, upto - first)])
            upto = min(upto, first)
            self._read += 1 + len(pieces[-1])
            if self._read > _MOST:
                raise CassetteDamaged(
                    f"the cassette {self._path} repeats more than conversations do: it is not used",
                    path=str(self._path),
                )
            name = of
        return [name for piece in reversed(pieces) for name in piece]

    def __contains__(self, name: object) -> bool:
        return name in self._added


def _check_format(path: Path, found: object) -> None:
    if not isinstance(found, int) or found > FORMAT:
        raise CassetteDamaged(
            f"the cassette {path} is of format {found}, and this version knows {FORMAT}: replay it with the version "
            "that recorded it, or a newer one",
            path=str(path),
        )


def _take(agent: str, line: dict[str, Any], parts: dict[str, Any], lists: _Lists, damaged: set[str]) -> Take:
    facts = line["take"]
    named: set[str] = set()
    body = _put_together(facts["body"], parts, lists, named)
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
        changed=line.get("sha256") != digest(compact(facts)) or bool(named & damaged),
    )


def _put_together(
    apart: Any,  # noqa: ANN401 - any JSON
    parts: dict[str, Any],
    lists: _Lists,
    named: set[str],
) -> Any:  # noqa: ANN401
    """Return the body of which a writer made this; `named` learns which parts and lists it is made of."""

    def value(name: Any) -> Any:  # noqa: ANN401
        if isinstance(name, list):  # so it was in the first format
            named.update(name)
            return [parts[one] for one in name]
        named.add(name)
        return value(lists.names(name)) if name in lists else parts[name]

    if not isinstance(apart, dict):
        return value(apart)
    return {**value(apart["rest"]), **{key: value(names) for key, names in apart.items() if key != "rest"}}


def cassette_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
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


def compact(value: object) -> str:
    """Return a value as JSON, as it stands in a cassette."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def list_digest(names: list[str]) -> str:
    """Return the name of a list: the digest of the names in it."""
    return digest(f"list {' '.join(names)}")


def digest(text: str) -> str:
    """Return the name of a part: the digest of its JSON."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
