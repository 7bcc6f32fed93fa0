"""Writes cassettes (:mod:`orchestrator_lab.cassette`): as it happens, and anew with other words."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import marshal
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator_lab.cassette import (
    FORMAT,
    SUFFIX,
    Take,
    cassette_lines,
    compact,
    digest,
    list_digest,
    read_cassette,
)
from orchestrator_lab.errors import CassetteDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["CassetteWriter", "rewrite_cassette"]

#: Lists of a body whose entries are parts of their own.
_LISTS = ("messages", "input", "system", "tools")
#: Conversations whose newest list is known, so that the next one is told by what it has more.
_CONVERSATIONS = 8


class _List(NamedTuple):
    """A list that was written: its name, the names in it, and bytes and digest of what it was made of."""

    name: str
    names: list[str]
    size: int
    met: bytes


_NO_LIST = _List("", [], 0, b"")
#: Bytes before the entries of a list that is marshalled.
_MARSHALLED = 5


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
        # Names of parts that were met, by a digest that costs less than theirs: a conversation comes again with each
        # request, and only its end is new.
        self._met: dict[bytes, str] = {}
        # By a conversation's first message.
        self._newest: dict[str, _List] = {}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            whole = 0
            for line, end in cassette_lines(path):
                whole = end
                self._parts |= {line[kind] for kind in ("part", "list") if kind in line}
                if "take" in line:
                    self.last = max(self.last, int(line["take"]["n"]))
                    self.last_s = max(self.last_s, float(line["take"]["ended_s"]))
            os.ftruncate(self._file, whole)
            if not whole:
                self._write([compact({"cassette": FORMAT, "agent": agent, "places": dict(places)})])
        except BaseException:
            os.close(self._file)
            raise

    def apart(self, body: Any) -> Any:  # noqa: ANN401 - what `Take.body` is until it is read again
        """Take a request apart: return the names of its parts; those that are new wait for :meth:`flush`."""
        if not isinstance(body, dict):
            return self._part(body)
        apart = {"rest": self._part({key: value for key, value in body.items() if key not in _LISTS})}
        for key in _LISTS:
            value = body.get(key)
            if key in body:
                apart[key] = self._listed(value) if isinstance(value, list) and key != "tools" else self._part(value)
        return apart

    def _part(self, value: Any) -> str:  # noqa: ANN401 - any JSON
        """Return the name of a part; a new one waits for :meth:`flush`."""
        met = hashlib.blake2b(marshal.dumps(value, 2), digest_size=16).digest()
        name = self._met.get(met)
        if name is None:
            text = self._mask(compact(value))
            name = self._met[met] = digest(text)
            if self._enter(name):
                self._lines.append(f'{{"part":"{name}","value":{text}}}')
        return name

    def _listed(self, value: list[Any]) -> str:
        """Return the name of a list; a new one waits for :meth:`flush`, told by what it has more than another."""
        if not value:
            return list_digest([])
        first = self._part(value[0])
        newest = self._newest.pop(first, _NO_LIST)
        entries = memoryview(marshal.dumps(value, 2))[_MARSHALLED:]
        met = hashlib.blake2b(entries[: newest.size])
        if met.digest() == newest.met:  # as a rule a conversation goes on
            same = len(newest.names)
            names = [*newest.names, *map(self._part, value[same:])]
            met.update(entries[newest.size :])
        else:
            names = list(map(self._part, value))
            pairs = zip(newest.names, names, strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            met = hashlib.blake2b(entries)
        name = list_digest(names)
        if self._enter(name):
            self._lines.append(compact({"list": name, "of": newest.name, "first": same, "then": names[same:]}))
        self._newest[first] = _List(name, names, len(entries), met.digest())
        if len(self._newest) > _CONVERSATIONS:
            del self._newest[next(iter(self._newest))]
        return name

    def _enter(self, name: str) -> bool:
        """Note a name as one that is written next; False when it was written before."""
        if name in self._parts or name in self._new:
            return False
        self._new.add(name)
        return True

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
        text = self._mask(compact(facts))
        self._lines.append(f'{{"take":{text},"sha256":"{digest(text)}"}}')
        self.last = max(self.last, take.n)

    def flush(self) -> None:
        """Write what waits, as one frame.

        Raises
        ------
        OSError
            When it cannot be written; the file ends with a whole frame then, and what waited is lost.
        """
        lines, new, self._lines, self._new = self._lines, self._new, [], set()
        try:
            if lines:
                self._write(lines)
                self._parts |= new
        except OSError:
            self._met.clear()  # among them are names of what is lost
            self._newest.clear()
            raise

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
        When `source` cannot be read, or holds what was not recorded; `target` is not there then.
    OSError
        When `target` cannot be written.
    """
    places, takes = read_cassette(source)
    agent = source.name.removesuffix(SUFFIX)
    target.unlink(missing_ok=True)
    other = {str(name): str(place) for name, place in json.loads(change(compact(places))).items()}
    writer = CassetteWriter(target, agent=agent, places=other, mask=change)
    try:
        for take in takes:
            _check_unchanged(take, source)
            take.body = writer.apart(take.body)
            writer.add(take)
    except CassetteDamaged:
        target.unlink()
        raise
    finally:
        writer.close()


def _check_unchanged(take: Take, path: Path) -> None:
    if take.changed:
        raise CassetteDamaged(
            f"the cassette {path} was changed since it was recorded (request {take.n}): it is not passed on",
            path=str(path),
        )
