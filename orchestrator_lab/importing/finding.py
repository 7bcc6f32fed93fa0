"""Which files are conversations, what belongs to each, and which begins with a copy of another."""

from __future__ import annotations

import glob
import logging
import os
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import RunNotFound
from orchestrator_lab.importing.conversation import Conversation
from orchestrator_lab.importing.kept import Stamp
from orchestrator_lab.importing.lines import read_lines
from orchestrator_lab.records import epoch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator_lab.config import ModelPrice

__all__ = ["find_conversations"]

logger = logging.getLogger(__name__)

#: Folders below a given one that are looked into: Codex keeps one a year, a month and a day.
_DEPTH = 5
#: Records at which a file's kind is known, if ever, and the longest that is looked at.
_LOOK, _LOOK_BYTES = 40, 8 << 20
#: What a run of the lab has; its copies of transcripts are told by its own journal.
_RUN_FILES = ("journal.jsonl", "manifest.json")
#: Files whose first records are remembered, the longest unused first.
_LOOKED: dict[Path, tuple[Stamp, _Found | None]] = {}
_LOOKED_MOST = 10_000
_CLAUDE_TYPES = frozenset({"user", "assistant", "summary"})


@dataclass(slots=True)
class _Found:
    """A transcript, and what its first records say."""

    path: Path
    kind: str
    session_id: str
    first_at_s: float = 0.0
    #: The record that begins the conversation: what was forked from it begins with a copy.
    first_uuid: str | None = None
    rooted: bool = False
    #: The last time that stands before that record and not in the conversation; where it is later, this is a copy.
    beside_at_s: float = 0.0
    copied_at_s: float = 0.0
    parent_id: str | None = None
    side: bool = False
    parts: list[Path] = field(default_factory=list)


def find_conversations(
    path: str | os.PathLike[str], prices: Mapping[str, ModelPrice] | None = None
) -> list[Conversation]:
    """Return the conversations that a path or a glob means, oldest first.

    Parameters
    ----------
    path : path-like
        A transcript of Claude Code, a rollout of Codex, a folder of either (looked into five levels deep), or a glob.
    prices : mapping, optional
        Prices of models, for the cost of turns.

    Returns
    -------
    list of Conversation
        Empty for a folder without any.

    Raises
    ------
    RunNotFound
        When a file is named that is none.
    """
    text = str(Path(path).expanduser())
    place = Path(text)
    if not place.exists() and glob.has_magic(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - a full path
        if not matches:
            logger.warning("nothing matches %s: its tables are empty", text)
    else:
        matches = [place]
        if place.is_file() and _look(place) is None:
            raise RunNotFound(
                f"{text} is neither a run nor a conversation: expected a run folder, its journal.jsonl, a transcript "
                "of Claude Code or a rollout of Codex",
                path=text,
            )
    files = dict.fromkeys(file for match in matches for file in _files(match))
    found = [one for file in files if (one := _look(file)) is not None]
    named = {match for match in matches if match.is_file()}
    sessions = _with_parts(found, named)
    return _related(sessions, prices)


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    root = len(place.parts)
    for folder, names, files in os.walk(place):
        here = Path(folder)
        if any(name in files for name in _RUN_FILES):
            names.clear()
            continue
        deep = len(here.parts) - root >= _DEPTH
        names[:] = [] if deep else sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(".jsonl"):
                yield here / name


def _look(path: Path) -> _Found | None:
    """Return what a file is, by its first records; None when it is no conversation."""
    if path.suffix != ".jsonl" or path.name in _RUN_FILES:
        return None
    stamp = Stamp.of_any(path)
    known = _LOOKED.pop(path, None)
    if known is None or known[0] != stamp:
        known = stamp, _look_into(path)
    _LOOKED[path] = known
    while len(_LOOKED) > _LOOKED_MOST:
        _LOOKED.pop(next(iter(_LOOKED)), None)
    # Its parts are told anew each time.
    return None if known[1] is None else replace(known[1], parts=[])


def _look_into(path: Path) -> _Found | None:
    found: _Found | None = None
    try:
        for line in islice(read_lines(path, limit=_LOOK_BYTES), _LOOK):
            if line.record is not None:
                found = _see(path, line.record, found)
            if found is not None and found.first_at_s and (found.rooted or found.kind == "codex"):
                break
    except OSError as error:
        logger.warning("%s cannot be read (%s) and was left out", path, error)
        return None
    return found


def _see(path: Path, record: dict[str, Any], found: _Found | None) -> _Found | None:
    kind, payload, session = record.get("type"), record.get("payload"), record.get("sessionId")
    if found is None:
        if isinstance(payload, dict) and (kind == "session_meta" or path.name.startswith("rollout-")):
            identity = payload.get("id") if kind == "session_meta" else None
            found = _Found(path, "codex", str(identity or path.stem))
            parent = payload.get("forked_from_id") or _spawner(payload)
            found.parent_id = parent if isinstance(parent, str) and parent != found.session_id else None
        elif isinstance(session, str) or (kind in _CLAUDE_TYPES and ("message" in record or "summary" in record)):
            found = _Found(path, "claude", path.stem)
        else:
            return None
    at_s = epoch(record.get("timestamp"))
    found.first_at_s = min(filter(None, (found.first_at_s, at_s)), default=0.0)
    if "uuid" not in record:  # of what is done beside the conversation
        found.beside_at_s = max(found.beside_at_s, at_s)
    # A busy Claude Code may write the first answer before its prompt.
    rooted = not isinstance(record.get("parentUuid"), str)
    if found.kind == "claude" and (found.first_uuid is None or rooted) and isinstance(record.get("uuid"), str):
        found.first_uuid, found.rooted = record["uuid"], rooted
        found.copied_at_s = found.beside_at_s if found.beside_at_s > at_s > 0.0 else 0.0
        if record.get("isSidechain") and path.stem.startswith("agent-"):
            found.side, found.parent_id = True, session if isinstance(session, str) else None
        forked = record.get("forkedFrom")
        if isinstance(forked, dict) and isinstance(forked.get("sessionId"), str):
            found.parent_id = forked["sessionId"]
    return found


def _spawner(payload: Mapping[str, Any]) -> object:
    """Return the session that began a session of Codex as its subagent."""
    source = payload.get("source")
    for one in (source, *source.values()) if isinstance(source, dict) else ():
        spawn = one.get("thread_spawn") if isinstance(one, dict) else None
        if isinstance(spawn, dict):
            return spawn.get("parent_thread_id")
    return payload.get("parent_thread_id")


def _with_parts(found: list[_Found], named: set[Path]) -> list[_Found]:
    """Give each session of Claude Code the files of its subagents."""
    sessions = [one for one in found if not one.side]
    by_place = {(one.path.parent, one.session_id): one for one in sessions if one.kind == "claude"}
    for (folder, session_id), one in by_place.items():
        one.parts = sorted((folder / session_id / "subagents").rglob("agent-*.jsonl"))
        if one.path in named:
            beside = (_look(path) for path in sorted(folder.glob("agent-*.jsonl")))
            one.parts += [side.path for side in beside if side is not None and side.parent_id == session_id]
    taken = {part for one in by_place.values() for part in one.parts}
    for side in (one for one in found if one.side and one.path not in taken):
        owner = by_place.get((side.path.parent, side.parent_id or ""))
        if owner is None:
            sessions.append(side)
        else:
            owner.parts.append(side.path)
    return sessions


def _related(sessions: list[_Found], prices: Mapping[str, ModelPrice] | None) -> list[Conversation]:
    """Make the conversations, each knowing those whose records it may hold copies of."""
    by_id = {one.session_id: one for one in sessions}
    # The one that is older goes on as well, maybe after its copy was made: when a file was changed is the last to tell.
    ordered = sorted(
        sessions,
        key=lambda one: (one.first_at_s, _depth(one, by_id), one.copied_at_s, _changed(one.path), one.path.name),
    )
    told: dict[str, list[_Found]] = {}
    made = []
    for one in ordered:
        before = list(told.get(one.first_uuid or "", []))
        parent = by_id.get(one.parent_id or "")
        if parent is not None and not one.side and parent not in before:
            before.append(parent)
        made.append(
            Conversation(
                one.path,
                one.kind,
                one.session_id,
                parts=one.parts,
                side=one.side,
                first_at_s=one.first_at_s or _changed(one.path),
                parent_run_id=one.parent_id or (before[-1].session_id if before else None),
                before=[earlier.path for earlier in before],
                prices=prices,
            )
        )
        if one.first_uuid is not None:
            told.setdefault(one.first_uuid, []).append(one)
    return made


def _depth(one: _Found, by_id: Mapping[str, _Found]) -> int:
    """Return how many sessions a session was forked from, one out of the other."""
    seen = {one.session_id}
    while (parent := by_id.get(one.parent_id or "")) is not None and parent.session_id not in seen:
        seen.add(parent.session_id)
        one = parent
    return len(seen) - 1


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
