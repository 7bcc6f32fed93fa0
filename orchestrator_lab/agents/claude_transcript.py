"""Claude Code's own record of a session, read as it grows.

The format (``projects/<folder>/<session>.jsonl``) is internal to Claude Code and shifts between versions: records that
are not known are passed over and counted, never fatal. Seen with 2.1.x: ``user`` records carry ``promptId``, the same
id that the hooks call ``prompt_id``; texts typed during a turn are ``queue-operation`` records first, then either an
attachment ``queued_command`` (the running turn took them in, no hook tells) or prompts of their own, several of them
with one ``promptId``; ``assistant`` records repeat the usage of one API message on each of its lines, and may stand
before the record that their ``parentUuid`` names when Claude Code is busy; a ``system`` record ``turn_duration``
closes a turn, and may come after the Stop hook.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import Usage
from orchestrator_lab.records import (
    INTERRUPTED,
    claude_hour,
    claude_largest,
    claude_plain,
    claude_total,
    epoch,
    message_text,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RecordedTurn", "TranscriptTail", "holds_a_prompt"]

_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@dataclass(slots=True)
class RecordedTurn:
    """One prompt and what followed, as the transcript tells it.

    Parameters
    ----------
    prompt : str
        The prompt as it was taken.
    prompt_id : str or None
        Claude Code's id of it.
    at : float
        Epoch seconds.
    reply : str or None
        Text of the last assistant message that has any.
    ended : bool
        True once the turn is closed in the record.
    interrupted : bool
        True when the user stopped it.
    error : str or None
        Text of an API error that ended it.
    error_kind : str or None
        Claude Code's word for that error.
    error_status : int or None
        Its HTTP status.
    error_at : float
        When it came, in epoch seconds.
    usage : dict
        API message id -> its usage.
    model : str or None
        Model of the last API message.
    models : set of str
        All models that answered.
    cut : set of str
        Ids of API messages that carried no tokens at some time, which those that were cut off never do.
    joined : list of str
        Texts that were typed while it ran and that it took in.
    """

    prompt: str
    prompt_id: str | None
    at: float
    reply: str | None = None
    ended: bool = False
    interrupted: bool = False
    error: str | None = None
    error_kind: str | None = None
    error_status: int | None = None
    error_at: float = 0.0
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str | None = None
    models: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    joined: list[str] = field(default_factory=list)

    def total(self) -> Usage | None:
        """Return the turn's tokens, each API message counted once; None when none was reported."""
        if not self.usage:
            return None

        usages = self.usage.values()
        return Usage(
            **claude_total(usages),
            model=self.model,
            final=self.ended,
            whole=len(self.models) < 2 and self.cut <= self.usage.keys() and all(map(claude_plain, usages)),
            cache_creation_1h_input_tokens=claude_hour(usages),
            largest_input=claude_largest(usages),
            message_ids=frozenset(self.usage),
        )


class TranscriptTail:
    """Reads only what was added to a transcript since the last look.

    Parameters
    ----------
    path : Path
        The JSON lines file; may not exist yet.
    """

    #: Turns kept in memory; older ones were settled long ago.
    KEEP = 64
    #: Records whose turn is kept in memory.
    PLACES = 4096

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turns: list[RecordedTurn] = []
        self.version: str | None = None
        #: Records that could not be read or are of an unknown kind.
        self.unknown = 0
        self._offset = 0
        #: Texts that were put into the program's own queue, with their time (epoch seconds), newest last.
        self._queued: deque[tuple[str, float]] = deque(maxlen=self.KEEP)
        #: Of these, those that a running turn took in.
        self._joined: deque[tuple[str, float, RecordedTurn]] = deque(maxlen=self.KEEP)
        #: The turn of each record of late, by its uuid.
        self._places: OrderedDict[str, RecordedTurn] = OrderedDict()
        #: Answers whose parent is not in the file yet, by the parent's uuid.
        self._early: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def read(self) -> None:
        """Take in the complete lines that were added; may be called from several threads."""
        with self._lock:
            self._read()

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                self.unknown += 1
                continue
            if isinstance(record, dict):
                self._take(record)
        del self.turns[: -self.KEEP]

    def find(self, *, prompt_id: str | None, prompt: str | None, since: float = 0.0) -> RecordedTurn | None:
        """Return the newest turn with this id, or with this prompt typed after `since` (epoch seconds)."""
        for turn in reversed(self.turns):
            if prompt_id is not None and turn.prompt_id is not None:
                if turn.prompt_id == prompt_id:
                    return turn
            elif prompt is not None and turn.prompt.strip() == prompt.strip() and turn.at >= since:
                return turn
        return None

    def find_joined(self, prompt: str, since: float) -> RecordedTurn | None:
        """Return the turn that took in a text which was typed while it ran, after `since` (epoch seconds)."""
        for text, at, turn in reversed(self._joined):
            if at >= since and text.strip() == prompt.strip():
                return turn
        return None

    def is_queued(self, prompt: str, since: float) -> bool:
        """Tell whether the program put a text into its own queue after `since` (epoch seconds)."""
        return any(at >= since and text.strip() == prompt.strip() for text, at in self._queued)

    def _take(self, record: dict[str, Any]) -> None:
        kind = record.get("type")
        version = record.get("version")
        if isinstance(version, str):
            self.version = version
        if record.get("isSidechain"):
            return
        parent = record.get("parentUuid")
        place = self._places.get(parent) if isinstance(parent, str) else None
        if kind == "assistant" and place is None and isinstance(parent, str):
            self._early.setdefault(parent, []).append(record)
            return
        if kind == "queue-operation" and record.get("operation") == "enqueue":
            self._queued.append((str(record.get("content", "")), epoch(record.get("timestamp"))))
        if kind == "user" and self._is_prompt(record):
            place = self.turns[-1] if self.turns else None
        elif place is None and self.turns:
            place = self.turns[-1]
        if place is None:
            return
        if kind == "assistant":
            self._assistant(record, place)
        elif kind == "system" and record.get("subtype") == "turn_duration":
            self._take_orphans(epoch(record.get("timestamp")))
            place.ended = True
        elif kind == "attachment":
            self._attachment(record.get("attachment"), place)
        self._is_known(record.get("uuid"), place)

    def _is_known(self, uuid: object, turn: RecordedTurn) -> None:
        """Remember to which turn a record belongs, and take in what came before it."""
        if not isinstance(uuid, str):
            return
        self._places[uuid] = turn
        if len(self._places) > self.PLACES:
            self._places.popitem(last=False)
        for record in self._early.pop(uuid, ()):
            self._take(record)

    def _take_orphans(self, before: float) -> None:
        """Give answers of before that instant, whose parent is nowhere, to the turn in which they were written."""
        for parent, held in list(self._early.items()):
            for record in held:
                at = epoch(record.get("timestamp"))
                turn = next((one for one in reversed(self.turns) if one.at <= at), None)
                if at <= before and turn is not None:
                    self._assistant(record, turn)
            left = [record for record in held if epoch(record.get("timestamp")) > before]
            self._early[parent] = left
            if not left:
                del self._early[parent]

    def _attachment(self, attachment: object, turn: RecordedTurn) -> None:
        if not isinstance(attachment, dict) or attachment.get("type") != "queued_command":
            return
        text, _ = message_text(attachment.get("prompt"))
        self._join(text, attachment.get("timestamp"), turn)

    def _join(self, text: str, stamp: object, turn: RecordedTurn) -> None:
        turn.joined.append(text)
        self._joined.append((text, epoch(stamp), turn))

    def _is_prompt(self, record: dict[str, Any]) -> bool:
        """Take in a record of the user's; tell whether it belongs to the last turn, whatever its parent is."""
        message = record.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        text, is_result = message_text(content)
        if text.startswith(INTERRUPTED):
            if self.turns:
                self.turns[-1].ended = self.turns[-1].interrupted = True
            return True
        if is_result or record.get("isMeta") or record.get("isCompactSummary"):
            return False
        prompt_id = record.get("promptId")
        if self.turns and prompt_id is not None and self.turns[-1].prompt_id == prompt_id:
            self._join(text, record.get("timestamp"), self.turns[-1])
            return True
        if self.turns:
            self._take_orphans(epoch(record.get("timestamp")))
            self.turns[-1].ended = True
        self.turns.append(
            RecordedTurn(
                text,
                prompt_id if isinstance(prompt_id, str) else None,
                epoch(record.get("timestamp")),
            )
        )
        return True

    @staticmethod
    def _assistant(record: dict[str, Any], turn: RecordedTurn) -> None:
        message = record.get("message")
        if not isinstance(message, dict):
            return
        text, _ = message_text(message.get("content"))
        if record.get("isApiErrorMessage"):
            turn.error = text or "API error"
            kind, status = record.get("error"), record.get("apiErrorStatus")
            turn.error_kind = kind if isinstance(kind, str) else None
            turn.error_status = status if isinstance(status, int) else None
            turn.error_at = epoch(record.get("timestamp"))
            turn.ended = True
            return
        usage, model = message.get("usage"), message.get("model")
        api_id = str(message.get("id") or record.get("uuid"))
        # A reply that was cut off carries noughts, which stand for nothing known.
        if isinstance(usage, dict) and any(isinstance(usage.get(key), int) and usage[key] for key in _TOKENS):
            turn.usage[api_id] = usage
        if isinstance(model, str) and not model.startswith("<"):
            turn.model = model
            turn.models.add(model)
            if api_id not in turn.usage:
                turn.cut.add(api_id)
        if text:
            turn.reply = text.strip()


def holds_a_prompt(path: Path) -> bool:
    """Tell whether a transcript holds a whole record of a prompt, as a rule within its first lines.

    Parameters
    ----------
    path : Path
        The JSON lines file.

    Returns
    -------
    bool
        False when there is no such file.

    Examples
    --------
    >>> from pathlib import Path
    >>> holds_a_prompt(Path("/no/such/transcript.jsonl"))
    False
    """
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # cut off by the program's end
                if isinstance(record, dict) and record.get("type") == "user":
                    return True
    except OSError:
        return False
    return False
