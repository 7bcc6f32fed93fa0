"""Codex's own record of a session, read as it grows.

The format (``sessions/YYYY/MM/DD/rollout-<time>-<session>.jsonl``) is internal to Codex and shifts between versions:
records that are not known are counted, never fatal. Seen with 0.169: ``task_started`` opens a turn and carries the id
that the hooks call ``turn_id``; ``item_completed`` holds what the user and the agent said; ``token_usage_record`` tells
the turn's tokens so far; ``task_complete`` (with ``error`` when the endpoint failed) or ``turn_aborted`` closes it.
A resumed session goes on in the same file.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import Limited, Usage
from orchestrator_lab.agents.usage_limits import codex_limit
from orchestrator_lab.records import (
    CODEX_CALLS,
    CODEX_OUTPUTS,
    codex_arguments,
    codex_call_name,
    codex_error,
    codex_failed,
    codex_text,
    epoch,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RecordedCall", "RecordedTurn", "RolloutTail"]

#: Records that say nothing of a turn.
_PASSED_OVER = frozenset({"world_state", "compacted", "inter_agent_communication"})
#: Notices that say nothing that is not said elsewhere.
_PASSED_OVER_EVENTS = frozenset(
    {
        "agent_reasoning",
        "agent_reasoning_raw_content",
        "context_compacted",
        "entered_review_mode",
        "exec_command_end",
        "exited_review_mode",
        "mcp_tool_call_end",
        "patch_apply_end",
        "thread_goal_updated",
        "thread_name_updated",
        "thread_rolled_back",
        "thread_settings_applied",
        "web_search_end",
        "view_image_tool_call",
        "item_started",
    }
)
_PASSED_OVER_ITEMS = frozenset(
    {"message", "reasoning", "web_search_call", "ghost_snapshot", "compaction", "image_generation_call", "other"}
)


@dataclass(slots=True)
class RecordedCall:
    """One tool call of a turn.

    Parameters
    ----------
    call_id : str
        Codex's id of it.
    name : str
        The tool, an MCP tool as ``mcp__SERVER__TOOL``.
    input : object
        Its arguments.
    output : object
        What the model got back; None while it has none.
    failed : bool
        True when the record says that it did not end well.
    ended : bool
        True once it has a result.
    """

    call_id: str
    name: str
    input: Any = None
    output: Any = None
    failed: bool = False
    ended: bool = False


@dataclass(slots=True)
class RecordedTurn:
    """One turn as the rollout tells it.

    Parameters
    ----------
    turn_id : str or None
        Codex's id of it.
    at : float
        Epoch seconds.
    prompts : list of str
        What the user said, the first of which began the turn.
    reply : str or None
        Text of the agent's last message.
    ended : bool
        True once the turn is closed in the record.
    reason : str
        ``completed``, ``interrupted``, ``error`` or ``limit``; only of meaning once it ended.
    error : str or None
        The error that ended it.
    limited : Limited or None
        The usage limit that ended it.
    usage : dict or None
        Its tokens so far.
    model : str or None
        The model that was asked.
    models : set of str
        All models that were.
    calls : dict
        Tool calls by their id.
    """

    turn_id: str | None
    at: float
    prompts: list[str] = field(default_factory=list)
    reply: str | None = None
    ended: bool = False
    reason: str = "completed"
    error: str | None = None
    limited: Limited | None = None
    usage: dict[str, Any] | None = None
    model: str | None = None
    models: set[str] = field(default_factory=set)
    calls: dict[str, RecordedCall] = field(default_factory=dict)

    def total(self) -> Usage | None:
        """Return the turn's tokens; None when none were reported."""
        if self.usage is None:
            return None

        def count(key: str) -> int | None:
            figure = self.usage.get(key) if self.usage else None
            return figure if isinstance(figure, int) and not isinstance(figure, bool) else None

        return Usage(
            input_tokens=count("input_tokens"),
            output_tokens=count("output_tokens"),
            cache_read_input_tokens=count("cached_input_tokens"),
            cache_creation_input_tokens=count("cache_write_input_tokens"),
            model=self.model,
            final=self.ended,
            whole=len(self.models) < 2,
        )


class RolloutTail:
    """Reads only what was added to a rollout since the last look.

    Parameters
    ----------
    path : Path
        The JSON lines file; may not exist yet.
    """

    #: Turns kept in memory; older ones were settled long ago.
    KEEP = 64

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turns: list[RecordedTurn] = []
        self.version: str | None = None
        #: Records that could not be read or are of an unknown kind.
        self.unknown = 0
        self._offset = 0
        #: The account's limits as they were told last.
        self._rate_limits: dict[str, Any] | None = None
        # Read on the supervisor's loop when a hook comes, and beside it when a turn is looked up.
        self._lock = threading.Lock()

    def read(self) -> None:
        """Take in the complete lines that were added; safe to call from any thread."""
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
            except (ValueError, RecursionError):
                self.unknown += 1
                continue
            if isinstance(record, dict):
                self._take(record)
            else:
                self.unknown += 1
        del self.turns[: -self.KEEP]

    def find(self, *, turn_id: str | None, prompt: str | None, since: float = 0.0) -> RecordedTurn | None:
        """Return the newest turn with this id, or that took this prompt after `since` (epoch seconds)."""
        for turn in reversed(self.turns):
            if turn_id is not None and turn.turn_id is not None:
                if turn.turn_id == turn_id:
                    return turn
            elif prompt is not None and turn.at >= since and any(prompt.strip() == one.strip() for one in turn.prompts):
                return turn
        return None

    def _take(self, record: Mapping[str, Any]) -> None:
        kind, payload = record.get("type"), record.get("payload")
        if not isinstance(payload, dict) or not isinstance(kind, str):
            self.unknown += 1
        elif kind == "session_meta":
            version = payload.get("cli_version")
            self.version = version if isinstance(version, str) else self.version
        elif kind == "event_msg":
            self._event(payload, epoch(record.get("timestamp")))
        elif kind == "response_item":
            self._item(payload)
        elif kind == "turn_context":
            turn = self._turn(payload)
            if turn is not None and isinstance(payload.get("model"), str):
                turn.model = payload["model"]
                turn.models.add(turn.model)
        elif kind == "token_usage_record":
            turn = self._turn(payload)
            if turn is not None and isinstance(payload.get("turn_token_usage"), dict):
                turn.usage = payload["turn_token_usage"]
        elif kind not in _PASSED_OVER:
            self.unknown += 1

    def _turn(self, payload: Mapping[str, Any]) -> RecordedTurn | None:
        """Return the turn that a record speaks of: by its id, else the last one."""
        identity = payload.get("turn_id")
        if not isinstance(identity, str):
            return self.turns[-1] if self.turns else None
        return next((turn for turn in reversed(self.turns) if turn.turn_id == identity), None)

    def _event(self, payload: Mapping[str, Any], at: float) -> None:
        kind = str(payload.get("type"))
        if kind in {"task_started", "turn_started"}:
            identity = payload.get("turn_id")
            self.turns.append(RecordedTurn(identity if isinstance(identity, str) else None, at))
            return
        turn = self._turn(payload)
        if kind in {"task_complete", "turn_complete"}:
            if turn is not None:
                _complete(turn, payload, self._rate_limits, at)
        elif kind == "turn_aborted":
            if turn is not None:
                turn.ended, turn.reason = True, "interrupted"
        elif kind == "item_completed":
            item = payload.get("item")
            if turn is not None and isinstance(item, dict):
                _said(turn, item)
        elif kind in {"user_message", "agent_message"}:  # as versions before 0.1xx wrote it
            text = payload.get("message")
            if turn is not None and isinstance(text, str):
                _say(turn, text, user=kind == "user_message")
        elif kind == "token_count":
            self._count(payload)
        elif kind == "error":
            if turn is not None and isinstance(payload.get("message"), str):
                turn.error = payload["message"]
        elif kind not in _PASSED_OVER_EVENTS:
            self.unknown += 1

    def _count(self, payload: Mapping[str, Any]) -> None:
        """Note the account's limit, where the endpoint tells it; the tokens come in a record of their own."""
        limits = payload.get("rate_limits")
        if isinstance(limits, dict):
            self._rate_limits = limits
        if self.turns and isinstance(limits, dict) and limits.get("rate_limit_reached_type"):
            self.turns[-1].error = self.turns[-1].error or f"limit reached: {limits['rate_limit_reached_type']}"

    def _item(self, payload: Mapping[str, Any]) -> None:
        kind, call = str(payload.get("type")), payload.get("call_id")
        turn = self.turns[-1] if self.turns else None
        if kind in CODEX_CALLS:
            if turn is not None and isinstance(call, str):
                turn.calls[call] = RecordedCall(call, codex_call_name(payload), codex_arguments(payload))
        elif kind in CODEX_OUTPUTS:
            known = turn.calls.get(call) if turn is not None and isinstance(call, str) else None
            if known is not None:
                known.output, known.ended = codex_text(payload.get("output")), True
                known.failed = known.failed or codex_failed(known.output)
        elif kind not in _PASSED_OVER_ITEMS:
            self.unknown += 1


def _complete(turn: RecordedTurn, payload: Mapping[str, Any], rate_limits: Mapping[str, Any] | None, at: float) -> None:
    turn.ended = True
    reply, error = payload.get("last_agent_message"), payload.get("error")
    if isinstance(reply, str):
        turn.reply = reply
    if isinstance(error, dict):
        told = str(error.get("message") or "the endpoint failed")
        turn.error = codex_error(told)
        turn.limited = codex_limit("transcript", turn.error, error.get("codex_error_info"), rate_limits, at)
        turn.reason = "error" if turn.limited is None else "limit"


def _said(turn: RecordedTurn, item: Mapping[str, Any]) -> None:
    kind = str(item.get("type"))
    if kind in {"UserMessage", "AgentMessage"}:
        _say(turn, codex_text(item.get("content")), user=kind == "UserMessage")
    elif kind in {"CommandExecution", "McpToolCall", "FileChange"}:
        call = turn.calls.get(str(item.get("id")))
        if call is not None and (item.get("status") == "failed" or item.get("exit_code") not in (0, None)):
            call.failed = True


def _say(turn: RecordedTurn, text: str, *, user: bool) -> None:
    if user:
        turn.prompts.append(text)
    else:
        turn.reply = text
