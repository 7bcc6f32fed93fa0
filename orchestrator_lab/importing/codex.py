"""Codex's rollouts as events.

Seen with 0.169; versions before it tell the user's and the agent's words in ``user_message`` and ``agent_message``,
may not say where a turn begins and ends, and count tokens for the whole session (``token_count``), not for a turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.costs import Spent, cost_of
from orchestrator_lab.importing.telling import Told
from orchestrator_lab.records import (
    CODEX_CALLS,
    CODEX_OUTPUTS,
    codex_arguments,
    codex_call_name,
    codex_error,
    codex_failed,
    codex_text,
    epoch,
    is_codex_limit,
    milliseconds,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator_lab.config import ModelPrice
    from orchestrator_lab.importing.lines import Line
    from orchestrator_lab.importing.telling import Teller

__all__ = ["MAIN", "CodexImporter"]

#: Name of the agent that a rollout is of.
MAIN = "codex"
_PASSED = frozenset({"ghost_snapshot", "inter_agent_communication", "world_state"})
_PASSED_EVENTS = frozenset(
    {
        "agent_reasoning",
        "agent_reasoning_raw_content",
        "context_compacted",
        "entered_review_mode",
        "exec_command_end",
        "exited_review_mode",
        "item_started",
        "mcp_tool_call_end",
        "patch_apply_end",
        "thread_goal_updated",
        "thread_name_updated",
        "thread_rolled_back",
        "thread_settings_applied",
        "view_image_tool_call",
        "web_search_end",
    }
)
_PASSED_ITEMS = frozenset(
    {"message", "reasoning", "web_search_call", "ghost_snapshot", "compaction", "image_generation_call", "other"}
)
#: Codex's names of tokens, by the table's.
_TOKENS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_input_tokens": "cached_input_tokens",
    "cache_creation_input_tokens": "cache_write_input_tokens",
}


class CodexImporter:
    """Tells a session of Codex.

    Parameters
    ----------
    tell : Teller
        Makes the events.
    session_id : str
        The session.
    copies : collection of str
        Ids of turns that another session of the same source tells.
    prices : mapping, optional
        Prices of models.
    """

    name = "codex-rollout"
    version = 1
    program = "codex"

    def __init__(
        self,
        tell: Teller,
        session_id: str,
        copies: Collection[str] = (),
        prices: Mapping[str, ModelPrice] | None = None,
    ) -> None:
        self.program_version: str | None = None
        self._tell = tell
        self._session_id = session_id
        self._copies = copies
        self._prices = prices or {}
        self._turn: Told | None = None
        #: Whether the record itself said that the turn began.
        self._stated = False
        self._skipping = False
        self._added = False
        self._models: set[str] = set()
        self._model: str | None = None
        self._usage: dict[str, Any] | None = None
        #: The session's tokens so far, and as they were when the turn began.
        self._total: dict[str, Any] = {}
        self._base: dict[str, Any] = {}
        self._said: set[tuple[bool, str]] = set()
        self._failed: set[str] = set()
        self._calls: dict[str, str | None] = {}
        self._error: str | None = None
        self._outcome: str | None = None
        self._prompts = 0

    def take(self, line: Line, subagent: str | None = None) -> None:  # noqa: ARG002 - as of all importers
        """Take one record.

        Parameters
        ----------
        line : Line
            It.
        subagent : str, optional
            Without meaning here: subagents of Codex have sessions of their own.
        """
        record = line.record
        if record is None:
            self._tell.stranger(line, line.problem or "json")
            return
        kind, payload = record.get("type"), record.get("payload")
        at = self._tell.tick(epoch(record.get("timestamp")))
        if line.problem == "encoding":
            self._tell.passed["encoding mended"] += 1
        if not isinstance(payload, dict) or not isinstance(kind, str):
            self._tell.stranger(line, str(kind), record)
        elif kind == "session_meta":
            self._meta(payload, at)
        elif self._is_copy(kind, payload):
            self._tell.copied += 1
        elif kind == "event_msg":
            self._event(line, record, payload, at)
        elif kind == "response_item":
            self._item(line, record, payload, at)
        elif kind == "turn_context":
            self._context(payload, at)
        elif kind == "token_usage_record":
            if isinstance(payload.get("turn_token_usage"), dict):
                self._usage = payload["turn_token_usage"]
        elif kind == "compacted":
            turn = self._turn.turn_id if self._turn else None
            self._tell.event("agent.compacted", at, agent=MAIN, turn_id=turn)
        elif kind in _PASSED:
            self._tell.passed[kind] += 1
        else:
            self._tell.stranger(line, kind, record)

    @property
    def teller(self) -> Teller:
        """What takes its events."""
        return self._tell

    @property
    def shared(self) -> tuple[object, ...]:
        """What it only reads: a copy of it need not have its own."""
        return self._copies, self._prices

    @property
    def outcome(self) -> str | None:
        """How the last turn ended; None while there is none, or it goes on."""
        return None if self._turn is not None else self._outcome

    def finish(self) -> None:
        """Take the end of the record: a turn whose end it does not tell is left open."""
        if self._turn is not None:
            self._account(self._turn, final=False)

    def _is_copy(self, kind: str, payload: Mapping[str, Any]) -> bool:
        """Tell whether a record belongs to a turn that another session tells."""
        identity = payload.get("turn_id")
        if isinstance(identity, str) and kind in {"event_msg", "turn_context"}:
            self._skipping = identity in self._copies
        return self._skipping

    def _meta(self, payload: Mapping[str, Any], at: float) -> None:
        version, provider = payload.get("cli_version"), payload.get("model_provider")
        if self._added:  # a copy of the parent's, or a session that goes on
            self._tell.passed["session_meta"] += 1
            return
        self._added = True
        self.program_version = version if isinstance(version, str) else None
        self._tell.event(
            "agent.added",
            at,
            agent=MAIN,
            agent_id=self._session_id,
            name=MAIN,
            kind="codex",
            program="codex",
            program_version=self.program_version,
            provider=provider if isinstance(provider, str) else None,
            cwd=payload.get("cwd") if isinstance(payload.get("cwd"), str) else None,
        )
        self._tell.event("agent.session", at, agent=MAIN, session_id=self._session_id)

    def _context(self, payload: Mapping[str, Any], at: float) -> None:
        model = payload.get("model")
        if not isinstance(model, str):
            return
        self._models.add(model)
        if self._turn is not None:
            self._turn.model = model
        if model != self._model:
            self._model = model
            self._tell.event("agent.model", at, agent=MAIN, model=model, program_version=self.program_version)

    # -- events

    def _event(self, line: Line, record: dict[str, Any], payload: Mapping[str, Any], at: float) -> None:
        kind = str(payload.get("type"))
        if kind in {"task_started", "turn_started"}:
            self._overtaken()
            identity = payload.get("turn_id")
            self._begin(identity if isinstance(identity, str) else f"{self._session_id}-{line.number}", at)
            self._stated = True
        elif kind in {"task_complete", "turn_complete"}:
            self._complete(payload, at)
        elif kind == "turn_aborted":
            if self._turn is not None:
                self._end(at, "interrupted", milliseconds(payload.get("duration_ms")))
        elif kind in {"user_message", "agent_message"}:
            text = payload.get("message")
            if isinstance(text, str):
                self._say(text, at, user=kind == "user_message", item=False)
        elif kind == "item_completed":
            item = payload.get("item")
            if isinstance(item, dict):
                self._completed(item, at)
        elif kind == "token_count":
            info = payload.get("info")
            if isinstance(info, dict) and isinstance(info.get("total_token_usage"), dict):
                self._total = info["total_token_usage"]
        elif kind in {"error", "stream_error"}:
            sentence = codex_error(str(payload.get("message") or "the endpoint failed"))
            if kind == "error":
                self._error = sentence
            self._fault(sentence, at)
        elif kind in _PASSED_EVENTS:
            self._tell.passed[kind] += 1
        else:
            self._tell.stranger(line, f"event_msg {kind}", record)

    def _fault(self, sentence: str, at: float) -> None:
        self._tell.event(
            "agent.api_error",
            at,
            agent=MAIN,
            turn_id=self._turn.turn_id if self._turn else None,
            level="warning",
            error_message=sentence,
        )

    def _completed(self, item: Mapping[str, Any], at: float) -> None:
        kind = str(item.get("type"))
        if kind in {"UserMessage", "AgentMessage"}:
            self._say(codex_text(item.get("content")), at, user=kind == "UserMessage", item=True)
        elif item.get("status") == "failed" or item.get("exit_code") not in (0, None):
            self._failed.add(str(item.get("id")))

    def _say(self, text: str, at: float, *, user: bool, item: bool) -> None:
        """Take words of the user's or the agent's, which some versions tell twice, in both ways."""
        if not user:
            if self._turn is not None:
                self._turn.reply, self._turn.last_s = text, at
            return
        if (not item, text) in self._said:
            return
        self._said.add((item, text))
        if self._turn is not None and not self._stated:
            self._overtaken()
            self._said = {(item, text)}
        self._prompts += 1
        message_id = f"msg_{self._session_id}-{self._prompts}"
        self._tell.message(message_id, at, sender="user", recipient=MAIN, source="human", content=text, turn=self._turn)
        if self._turn is None:
            self._begin(f"{self._session_id}-{self._prompts}", at, message_id)

    # -- items

    def _item(self, line: Line, record: dict[str, Any], payload: Mapping[str, Any], at: float) -> None:
        kind, call = str(payload.get("type")), payload.get("call_id")
        turn = self._turn
        if turn is not None:
            turn.last_s = at
        if kind in CODEX_CALLS and isinstance(call, str):
            self._calls[call] = turn.turn_id if turn else None
            self._tell.event(
                "tool.started",
                at,
                agent=MAIN,
                turn_id=self._calls[call],
                tool_call_id=call,
                name=codex_call_name(payload),
                input=codex_arguments(payload),
            )
        elif kind in CODEX_OUTPUTS and isinstance(call, str):
            output = codex_text(payload.get("output"))
            failed = call in self._failed or codex_failed(output)
            self._tell.event(
                "tool.ended",
                at,
                agent=MAIN,
                turn_id=self._calls.pop(call, turn.turn_id if turn else None),
                tool_call_id=call,
                output=output,
                status="error" if failed else "ok",
                error_message=(output.strip().splitlines() or [""])[0][:500] or None if failed else None,
            )
        elif kind in _PASSED_ITEMS:
            self._tell.passed[f"item {kind}"] += 1
        else:
            self._tell.stranger(line, f"response_item {kind}", record)

    # -- turns

    def _begin(self, identity: str, at: float, message_id: str | None = None) -> None:
        self._turn = Told(f"trn_{identity}", MAIN, at, at, [message_id] if message_id else [], model=self._model)
        self._stated, self._error, self._usage, self._base = False, None, None, dict(self._total)
        self._models = set()
        if message_id is None:
            self._said = set()
        self._tell.begin(self._turn)

    def _overtaken(self) -> None:
        """End a turn whose end the record does not tell, when another begins."""
        if self._turn is not None:
            self._end(self._turn.last_s, "completed" if self._turn.reply is not None else "unknown")

    def _complete(self, payload: Mapping[str, Any], at: float) -> None:
        turn, reply, error = self._turn, payload.get("last_agent_message"), payload.get("error")
        if turn is None:
            return
        if isinstance(reply, str):
            turn.reply = reply
        if isinstance(error, dict):
            self._error = codex_error(str(error.get("message") or "the endpoint failed"))
            limit = is_codex_limit(error.get("codex_error_info"))
            self._fault(self._error, at)
            self._end(at, "limit" if limit else "error", milliseconds(payload.get("duration_ms")))
        else:
            self._error = None
            self._end(at, "completed", milliseconds(payload.get("duration_ms")))

    def _end(self, at: float, reason: str, duration_s: float | None = None) -> None:
        if self._turn is not None:
            turn, self._turn, self._outcome = self._turn, None, reason
            self._account(turn, final=True)
            error = self._error if reason in {"error", "limit"} else None
            self._tell.end(turn, at, reason, error=error, duration_s=duration_s)

    def _account(self, turn: Told, *, final: bool) -> None:
        """Tell of the turn's tokens: as reported for it, or else by what the session's had grown."""
        tokens: dict[str, Any] = {}
        for name, theirs in _TOKENS.items():
            if self._usage is not None:
                figure = self._usage.get(theirs)
            else:
                figure, before = self._total.get(theirs), self._base.get(theirs, 0)
                figure = figure - before if isinstance(figure, int) and isinstance(before, int) else None
            tokens[name] = figure if isinstance(figure, int) and not isinstance(figure, bool) and figure >= 0 else None
        if self._usage is None and not any(tokens.values()):
            return
        spent = Spent(**tokens, model=turn.model, whole=len(self._models) < 2)
        self._tell.event(
            "turn.usage",
            turn.last_s,
            agent=MAIN,
            turn_id=turn.turn_id,
            **tokens,
            model=turn.model,
            final=final,
            cost_usd=cost_of(spent, self._prices),
        )
