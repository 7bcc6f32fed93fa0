"""One conversation: a transcript with what belongs to it, told as the events of one run."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from orchestrator_lab import __version__
from orchestrator_lab.errors import JournalError
from orchestrator_lab.importing.claude import ClaudeImporter
from orchestrator_lab.importing.codex import CodexImporter
from orchestrator_lab.importing.following import Following, subagent
from orchestrator_lab.importing.kept import Keep, Signature, Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator_lab.config import ModelPrice
    from orchestrator_lab.importing.telling import Teller
    from orchestrator_lab.journal.event import Event

__all__ = ["Conversation", "ConversationReader"]

#: Bytes of a file that are searched for ids at a time, and by how much the pieces overlap.
_PIECE, _OVERLAP = 8 << 20, 256
_IDS = {
    "claude": re.compile(rb'"uuid"\s*:\s*"([^"\\]{1,64})"'),
    "codex": re.compile(rb'"turn_id"\s*:\s*"([^"\\]{1,64})"'),
}


#: The conversations of this process.
_KEPT: Keep[Following] = Keep()
#: Events given at a time.
_BATCH = 4096


class Conversation:
    """A program's own record of a session that the lab did not start.

    Parameters
    ----------
    path : Path
        The transcript or rollout.
    kind : str
        ``claude`` or ``codex``.
    session_id : str
        The session, which is the run's id.
    parts : sequence of Path
        Files of its subagents.
    side : bool
        Whether the file itself is a subagent's.
    first_at_s : float
        Epoch seconds of its first record.
    parent_run_id : str, optional
        The session that it was forked from.
    before : sequence of Path
        Records of the same source whose copies it may hold: what they tell is left out here.
    prices : mapping, optional
        Prices of models.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        session_id: str,
        *,
        parts: Sequence[Path] = (),
        side: bool = False,
        first_at_s: float = 0.0,
        parent_run_id: str | None = None,
        before: Sequence[Path] = (),
        prices: Mapping[str, ModelPrice] | None = None,
    ) -> None:
        self.path = path
        self.kind = kind
        self.run_id = session_id
        self.parts = list(parts)
        self.side = side
        self.first_at_s = first_at_s
        self.before = list(before)
        self.prices = prices
        #: What a manifest would tell.
        self.manifest: dict[str, Any] = {"versions": {"orchestrator_lab": __version__}}
        if prices:
            self.manifest["config"] = {"cluster": {"prices": prices}}
        if parent_run_id is not None:
            self.manifest["parent_run_id"] = parent_run_id
        importer = ClaudeImporter if kind == "claude" else CodexImporter
        #: What was read how, for the frame's ``attrs``; figures are there once it was read.
        self.imported: dict[str, Any] = {
            "path": str(path),
            "program": importer.program,
            "importer": importer.name,
            "importer_version": importer.version,
        }

    def reader(self) -> ConversationReader:
        """Return what reads it, once, from the beginning."""
        return ConversationReader(self)

    def tell(self) -> Iterator[list[Event]]:
        """Yield its events, some thousands at a time; what was read before is not read again.

        Yields
        ------
        list of Event
            In order.

        Raises
        ------
        JournalError
            When a file cannot be read.
        """
        try:
            with _KEPT.following(self.key, self.signature, lambda: Following(self)) as following:
                events = following.events()
                ending, figures = following.ending()
        except OSError as error:
            raise JournalError(
                f"{error.filename or self.path}: the conversation cannot be read ({error.strerror or error}); check "
                "that the file is there and that you may read it",
                path=str(self.path),
            ) from error
        self.imported |= figures
        for begin in range(0, len(events), _BATCH):
            yield events[begin : begin + _BATCH]
        yield ending

    @property
    def files(self) -> list[Path]:
        """Its own files."""
        return [self.path, *self.parts]

    @property
    def key(self) -> tuple[object, ...]:
        """What it is told by: other prices or another neighbour make another account of it."""
        prices = None if self.prices is None else repr(sorted(self.prices.items()))
        return (*map(str, self.files), "before", *map(str, self.before), self.side, self.first_at_s, prices)

    def signature(self) -> Signature:
        """Return what tells whether its files are as they were.

        Raises
        ------
        OSError
            When one of them cannot be looked at.
        """
        beside = [part.with_suffix(".meta.json") for part in self.parts]
        return Signature(
            tuple(Stamp.of(file.stat()) for file in self.files),
            tuple(Stamp.of_any(file) for file in (*beside, *self.before)),
        )

    def importer(self, tell: Teller) -> ClaudeImporter | CodexImporter:
        """Return what makes events of its records.

        Parameters
        ----------
        tell : Teller
            Takes them.
        """
        copies = self._copies()
        if self.kind == "codex":
            return CodexImporter(tell, self.run_id, copies, self.prices)
        return ClaudeImporter(tell, self.run_id, copies, self._about(), self.prices)

    def _copies(self) -> frozenset[str]:
        """Return the ids of records that other sessions tell."""
        found: set[str] = set()
        for path in self.before:
            try:
                with path.open("rb") as file:
                    rest = b""
                    while piece := file.read(_PIECE):
                        found.update(one.decode(errors="replace") for one in _IDS[self.kind].findall(rest + piece))
                        rest = piece[-_OVERLAP:]
            except OSError:
                continue  # then nobody else tells them
        return frozenset(found)

    def _about(self) -> dict[str, dict[str, Any]]:
        """Return what Claude Code noted of subagents beside their files."""
        about: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            try:
                facts = json.loads(part.with_suffix(".meta.json").read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(facts, dict):
                about[subagent(part)] = facts
        return about


class ConversationReader:
    """Gives a conversation's events as a journal's reader does, once: what is added later is not followed.

    Parameters
    ----------
    conversation : Conversation
        It.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation: Conversation | None = conversation

    def batches(self) -> Iterator[list[Event]]:
        """Yield all events at the first call, nothing afterwards.

        Yields
        ------
        list of Event
            Some thousands.
        """
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            yield from conversation.tell()
