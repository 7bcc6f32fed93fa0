"""Claude Code's transcripts as events.

Seen with 2.0 and 2.1, and as others describe older ones: one API message stands in several ``assistant`` records, one
a block, each with its usage (the last one counts); ``tool_result`` blocks come in ``user`` records; subagents have
files of their own (``<session>/subagents/agent-<id>.jsonl``) or, in older versions, ``isSidechain`` records among the
others; ``system`` records tell of turn durations, compaction and failed requests. A session that was forked begins with
copies of its parent's records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator_lab.costs import Spent, cost_of
from orchestrator_lab.importing.telling import Told
from orchestrator_lab.records import (
    INTERRUPTED,
    claude_hour,
    claude_plain,
    claude_total,
    epoch,
    is_claude_limit,
    message_text,
    milliseconds,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator_lab.config import ModelPrice
    from orchestrator_lab.importing.lines import Line
    from orchestrator_lab.importing.telling import Teller

__all__ = ["MAIN", "ClaudeImporter"]

#: Name of the agent that a transcript is of.
MAIN = "claude"
#: Records that say nothing of which there is a table.
_PASSED = frozenset(
    {
        "agent-color",
        "agent-name",
        "agent-setting",
        "ai-title",
        "attribution-snapshot",
        "bridge-session",
        "content-replacement",
        "custom-title",
        "file-history-snapshot",
        "last-prompt",
        "marble-origami-commit",
        "marble-origami-snapshot",
        "mode",
        "permission-mode",
        "pr-link",
        "progress",
        "queue-operation",
        "speculation-accept",
        "summary",
        "tag",
        "task-summary",
        "worktree-state",
    }
)
_PASSED_SYSTEM = frozenset(
    {
        "agents_killed",
        "api_metrics",
        "away_summary",
        "bridge_status",
        "file_snapshot",
        "informational",
        "local_command",
        "memory_saved",
        "microcompact_boundary",
        "permission_retry",
        "scheduled_task_fire",
        "stop_hook_summary",
        "thinking",
    }
)
#: Texts in the user's name that are no prompt.
_LOCAL = ("<local-command-", "<bash-input>", "<bash-stdout>", "<bash-stderr>")
#: Texts in the user's name that the program made.
_BY_PROGRAM = ("<task-notification>", "<teammate-message", "<cross-session-message")
_SPAWNS = frozenset({"Task", "Agent"})
_DENIED = ("The user doesn't want to proceed", "The user doesn't want to take this action", "User rejected tool use")
_STOPPED = frozenset({"end_turn", "stop_sequence", "max_tokens", "refusal"})
#: Records that wait for their parent, at most.
_EARLY = 256


@dataclass(slots=True)
class _Agent:
    name: str
    side: bool
    turn: Told | None = None
    #: Prompts that no turn has begun with, with their instants.
    prompts: list[tuple[str, float]] = field(default_factory=list)
    prompt_id: str | None = None
    #: API message -> its usage and its model.
    usage: dict[str, tuple[dict[str, Any], str | None]] = field(default_factory=dict)
    #: API messages that carried no tokens.
    cut: set[str] = field(default_factory=set)
    stop: str | None = None
    model: str | None = None
    version: str | None = None
    #: How its last turn ended.
    outcome: str | None = None


class ClaudeImporter:
    """Tells a session of Claude Code.

    Parameters
    ----------
    tell : Teller
        Makes the events.
    session_id : str
        The session.
    copies : collection of str
        Ids of records that another session of the same source tells.
    about : mapping of str to mapping
        What is known of subagents, by their id.
    prices : mapping, optional
        Prices of models.
    """

    name = "claude-transcript"
    version = 1
    program = "claude-code"

    def __init__(
        self,
        tell: Teller,
        session_id: str,
        copies: Collection[str] = (),
        about: Mapping[str, Mapping[str, Any]] | None = None,
        prices: Mapping[str, ModelPrice] | None = None,
    ) -> None:
        self.program_version: str | None = None
        self._tell = tell
        self._session_id = session_id
        self._copies = copies
        self._about = about or {}
        self._prices = prices or {}
        self._agents: dict[str, _Agent] = {}
        self._seen: set[str] = set()
        self._early: dict[str, list[tuple[Line, str | None]]] = {}
        #: Agent of each sidechain record of versions that give it no id.
        self._side: dict[str, str] = {}
        #: Prompts that main agents gave to subagents: what for, and whom.
        self._spawned: dict[str, tuple[str, str]] = {}
        #: Open tool calls: agent and turn.
        self._calls: dict[str, tuple[str, str]] = {}
        #: Texts put into the program's queue, with their instants.
        self._queued: dict[str, float] = {}

    def take(self, line: Line, subagent: str | None = None) -> None:
        """Take one record.

        Parameters
        ----------
        line : Line
            It.
        subagent : str, optional
            Id of the subagent whose file it stands in.
        """
        record = line.record
        if record is None:
            self._tell.stranger(line, line.problem or "json")
            return
        uuid, parent = record.get("uuid"), record.get("parentUuid")
        if isinstance(uuid, str):
            if uuid in self._seen or uuid in self._copies:
                self._tell.copied += 1
                self._is_there(uuid)
                return
            orphan = record.get("type") == "assistant" and isinstance(parent, str) and parent not in self._seen
            if orphan and sum(map(len, self._early.values())) < _EARLY:
                self._early.setdefault(str(parent), []).append((line, subagent))
                return
        self._take(line, record, subagent)
        if isinstance(uuid, str):
            self._is_there(uuid)

    @property
    def teller(self) -> Teller:
        """What takes its events."""
        return self._tell

    @property
    def shared(self) -> tuple[object, ...]:
        """What it only reads: a copy of it need not have its own."""
        return self._copies, self._about, self._prices

    @property
    def outcome(self) -> str | None:
        """How the last turn of the conversation itself ended; None while there is none, or it goes on."""
        main = self._agents.get(MAIN) or next(iter(self._agents.values()), None)
        return None if main is None or main.turn is not None else main.outcome

    def finish(self) -> None:
        """Take the end of the record: what is over is told as such, what may go on is left open."""
        self._take_orphans()
        for agent in self._agents.values():
            turn = agent.turn
            if turn is None:
                continue
            if agent.stop in _STOPPED and not turn.calls:
                self._end(agent, turn.last_s, "completed")
            else:
                self._usage(agent, turn, final=False)

    def _is_there(self, uuid: str) -> None:
        self._seen.add(uuid)
        for line, subagent in self._early.pop(uuid, ()):
            self.take(line, subagent)

    def _take_orphans(self, before_s: float = float("inf")) -> None:
        """Take the answers of before an instant whose parent is nowhere."""
        early, self._early = self._early, {}
        for parent, held in early.items():
            for line, subagent in held:
                record = line.record or {}
                uuid = str(record.get("uuid"))
                if epoch(record.get("timestamp")) > before_s:
                    self._early.setdefault(parent, []).append((line, subagent))
                elif uuid not in self._seen:
                    self._take(line, record, subagent)
                    self._is_there(uuid)

    def _take(self, line: Line, record: dict[str, Any], subagent: str | None) -> None:
        kind = str(record.get("type"))
        at = self._tell.tick(epoch(record.get("timestamp")))
        if line.problem == "encoding":
            self._tell.passed["encoding mended"] += 1
        if kind == "user":
            self._user(line, record, at, subagent)
        elif kind == "assistant":
            self._assistant(record, self._agent(record, at, subagent), at)
        elif kind == "system":
            self._system(line, record, at, subagent)
        elif kind == "attachment":
            self._attachment(record, at, subagent)
        elif kind == "queue-operation" and record.get("operation") == "enqueue":
            self._queued[str(record.get("content", "")).strip()] = at
        elif kind in _PASSED:
            self._tell.passed[kind] += 1
        else:
            self._tell.stranger(line, kind, record)

    def _agent(self, record: Mapping[str, Any], at: float, subagent: str | None) -> _Agent:
        """Return the agent that a record is of; a new one is told of."""
        identity = record.get("agentId") or subagent
        side = bool(record.get("isSidechain")) or subagent is not None
        if not side:
            key = MAIN
        elif isinstance(identity, str):
            key = identity
        else:
            parent = record.get("parentUuid")
            key = self._side.get(str(parent), str(record.get("uuid")))
            self._side[str(record.get("uuid"))] = key
        agent = self._agents.get(key)
        if agent is None:
            agent = self._agents[key] = self._added(key, record, at, side=side)
        version = record.get("version")
        if isinstance(version, str) and version != agent.version:
            agent.version = self.program_version = version
            self._tell.event("agent.model", at, agent=agent.name, model=agent.model, program_version=version)
        return agent

    def _added(self, key: str, record: Mapping[str, Any], at: float, *, side: bool) -> _Agent:
        name, role = MAIN, None
        if side:
            about, text = self._about.get(key, {}), _content_text(record)
            kind, role = self._spawned.pop(text.strip(), (about.get("agentType"), about.get("description")))
            name = f"{kind or 'subagent'}-{key[:8]}"
        version = record.get("version")
        self._tell.event(
            "agent.added",
            at,
            agent=name,
            agent_id=key if side else self._session_id,
            name=name,
            role=role,
            kind="claude",
            program=self.program,
            program_version=version if isinstance(version, str) else None,
            cwd=record.get("cwd") if isinstance(record.get("cwd"), str) else None,
        )
        if not side:
            self._tell.event("agent.session", at, agent=name, session_id=self._session_id)
        self.program_version = version if isinstance(version, str) else self.program_version
        return _Agent(name, side, version=version if isinstance(version, str) else None)

    # -- what the user says, and what stands in the user's name

    def _user(self, line: Line, record: dict[str, Any], at: float, subagent: str | None) -> None:
        agent = self._agent(record, at, subagent)
        message = record.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        text, is_result = message_text(content)
        if text.startswith(INTERRUPTED):
            if agent.turn is None and agent.prompts:
                self._begin(agent, record, at)
            if agent.turn is not None:
                self._end(agent, at, "interrupted")
        elif is_result:
            for block in content if isinstance(content, list) else ():
                if isinstance(block, dict) and block.get("type") == "tool_result":
                    self._result(agent, block, record.get("toolUseResult"), at)
        elif record.get("isMeta") or record.get("isCompactSummary"):
            self._tell.passed["meta" if record.get("isMeta") else "compact summary"] += 1
        elif text.startswith(_LOCAL):
            self._tell.passed["local command"] += 1
        elif content is None:
            self._tell.stranger(line, "user", record)
        else:
            self._prompt(agent, record, text, at)

    def _prompt(self, agent: _Agent, record: Mapping[str, Any], text: str, at: float) -> None:
        prompt_id = record.get("promptId")
        same = isinstance(prompt_id, str) and prompt_id == agent.prompt_id
        agent.prompt_id = prompt_id if isinstance(prompt_id, str) else None
        if same and agent.turn is not None:
            self._message(agent, record, text, at, agent.turn)
            return
        if not agent.side:
            self._take_orphans(at)
        if agent.turn is not None:
            over = not agent.turn.calls and (agent.stop in _STOPPED or agent.turn.reply is not None)
            self._end(agent, agent.turn.last_s, "completed" if over else "unknown")
        if not same:
            agent.prompts.clear()
        agent.prompts.append((self._message(agent, record, text, at), at))

    def _message(self, agent: _Agent, record: Mapping[str, Any], text: str, at: float, turn: Told | None = None) -> str:
        message_id = f"msg_{record.get('uuid') or f'{self._session_id}-{self._tell.now_s}'}"
        source = "agent" if agent.side else "program" if text.startswith(_BY_PROGRAM) else "human"
        queued = self._queued.pop(text.strip(), None)
        self._tell.message(
            message_id,
            at,
            sender=MAIN if agent.side else "user",
            recipient=agent.name,
            source=source,
            content=text,
            queued_s=queued,
            turn=turn,
        )
        return message_id

    def _attachment(self, record: dict[str, Any], at: float, subagent: str | None) -> None:
        attachment = record.get("attachment")
        if not isinstance(attachment, dict) or attachment.get("type") != "queued_command":
            self._tell.passed["attachment"] += 1
            return
        agent = self._agent(record, at, subagent)
        text, _ = message_text(attachment.get("prompt"))
        message_id = self._message(agent, record, text, at, agent.turn)
        if agent.turn is None:
            agent.prompts.append((message_id, at))

    # -- what the model says

    def _begin(self, agent: _Agent, record: Mapping[str, Any], at: float) -> Told:
        prompts, agent.prompts = agent.prompts, []
        began = prompts[0][1] if prompts else at
        first = prompts[0][0].removeprefix("msg_") if prompts else str(record.get("uuid") or at)
        agent.turn = Told(f"trn_{first}", agent.name, began, at, [one for one, _ in prompts])
        agent.usage, agent.cut, agent.stop = {}, set(), None
        self._tell.begin(agent.turn)
        return agent.turn

    def _assistant(self, record: dict[str, Any], agent: _Agent, at: float) -> None:
        message = record.get("message")
        if not isinstance(message, dict):
            self._tell.passed["empty answer"] += 1
            return
        turn = agent.turn or self._begin(agent, record, at)
        turn.last_s = max(turn.last_s, at)
        content = message.get("content")
        text, _ = message_text(content)
        if record.get("isApiErrorMessage"):
            self._failed(agent, record, text, at)
            return
        model, api_id = message.get("model"), str(message.get("id") or record.get("uuid"))
        usage = message.get("usage")
        if isinstance(model, str) and not model.startswith("<"):
            turn.model = model
            if model != agent.model:
                agent.model = model
                self._tell.event("agent.model", at, agent=agent.name, model=model, program_version=agent.version)
            if isinstance(usage, dict) and any(claude_total([usage]).values()):
                agent.usage[api_id] = usage, model
            elif api_id not in agent.usage:
                agent.cut.add(api_id)
        stop = message.get("stop_reason")
        agent.stop = stop if isinstance(stop, str) else None
        if text:
            turn.reply = text.strip()
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") in {"tool_use", "server_tool_use"}:
                self._call(agent, turn, block, at)

    def _call(self, agent: _Agent, turn: Told, block: Mapping[str, Any], at: float) -> None:
        call, given = str(block.get("id")), block.get("input")
        turn.calls.add(call)
        self._calls[call] = agent.name, turn.turn_id
        if block.get("type") == "server_tool_use":
            turn.calls.discard(call)  # its result is a part of the same answer
        if block.get("name") in _SPAWNS and isinstance(given, dict) and isinstance(given.get("prompt"), str):
            kind, role = str(given.get("subagent_type") or "subagent"), str(given.get("description") or "")
            self._spawned[given["prompt"].strip()] = kind, role
        self._tell.event(
            "tool.started",
            at,
            agent=agent.name,
            turn_id=turn.turn_id,
            tool_call_id=call,
            name=str(block.get("name")),
            input=given,
        )

    def _result(self, agent: _Agent, block: Mapping[str, Any], told: object, at: float) -> None:
        call = str(block.get("tool_use_id"))
        name, turn_id = self._calls.pop(call, (agent.name, agent.turn.turn_id if agent.turn else None))
        output = _output(block.get("content"))
        text = output if isinstance(output, str) else ""
        status = "error" if block.get("is_error") else "ok"
        if text.startswith(_DENIED) or (isinstance(told, str) and told.startswith(_DENIED)):
            status = "denied"
        if agent.turn is not None:
            agent.turn.calls.discard(call)
            agent.turn.last_s = max(agent.turn.last_s, at)
        self._tell.event(
            "tool.ended",
            at,
            agent=name,
            turn_id=turn_id,
            tool_call_id=call,
            output=output,
            status=status,
            error_message=(text.strip().splitlines() or [""])[0][:500] or None if status != "ok" else None,
        )

    def _failed(self, agent: _Agent, record: Mapping[str, Any], text: str, at: float) -> None:
        kind, status = record.get("error"), record.get("apiErrorStatus")
        sentence = text or "API error"
        self._tell.event(
            "agent.api_error",
            at,
            agent=agent.name,
            turn_id=agent.turn.turn_id if agent.turn else None,
            level="warning",
            kind=kind if isinstance(kind, str) else None,
            status=status if isinstance(status, int) else None,
            error_message=sentence,
        )
        self._end(agent, at, "limit" if is_claude_limit(kind, status, sentence) else "error", error=sentence)

    # -- what the program says

    def _system(self, line: Line, record: dict[str, Any], at: float, subagent: str | None) -> None:
        kind = str(record.get("subtype"))
        if kind == "turn_duration":
            agent = self._agent(record, at, subagent)
            self._take_orphans(at)
            if agent.turn is not None:
                self._end(agent, at, "completed", duration_s=milliseconds(record.get("durationMs")))
        elif kind == "compact_boundary":
            facts = record.get("compactMetadata")
            facts = facts if isinstance(facts, dict) else {}
            agent = self._agent(record, at, subagent)
            self._tell.event(
                "agent.compacted",
                at,
                agent=agent.name,
                turn_id=agent.turn.turn_id if agent.turn else None,
                trigger=facts.get("trigger"),
                tokens_before=facts.get("preTokens"),
                tokens_after=facts.get("postTokens"),
            )
        elif kind == "api_error":
            agent = self._agent(record, at, subagent)
            error = record.get("error")
            error = error if isinstance(error, dict) else {"message": error}
            self._tell.event(
                "agent.api_error",
                at,
                agent=agent.name,
                turn_id=agent.turn.turn_id if agent.turn else None,
                level="warning",
                status=error.get("status"),
                error_message=str(error.get("message") or record.get("content") or "the request failed"),
                attempt=record.get("retryAttempt"),
            )
        elif kind in _PASSED_SYSTEM:
            self._tell.passed[f"system {kind}"] += 1
        else:
            self._tell.stranger(line, f"system {kind}", record)

    # -- ends

    def _end(
        self, agent: _Agent, at: float, reason: str, *, error: str | None = None, duration_s: float | None = None
    ) -> None:
        turn = agent.turn
        if turn is None:
            return
        self._usage(agent, turn, final=True)
        self._tell.end(turn, at, reason, error=error, duration_s=duration_s)
        agent.turn, agent.stop, agent.outcome = None, None, reason

    def _usage(self, agent: _Agent, turn: Told, *, final: bool) -> None:
        if not agent.usage:
            return
        costs = [self._cost(usage, model) for usage, model in agent.usage.values()] if self._prices else [None]
        known = [cost for cost in costs if cost is not None]
        whole = len(known) == len(costs) and agent.cut <= agent.usage.keys()
        self._tell.event(
            "turn.usage",
            turn.last_s,
            agent=agent.name,
            turn_id=turn.turn_id,
            **claude_total([usage for usage, _ in agent.usage.values()]),
            model=turn.model,
            final=final,
            cost_usd=round(sum(known), 12) if whole else None,
        )

    def _cost(self, usage: Mapping[str, Any], model: str | None) -> float | None:
        """Return what one API message cost."""
        spent = Spent(
            **claude_total([usage]),
            cache_creation_1h_input_tokens=claude_hour([usage]),
            model=model,
            whole=claude_plain(usage),
        )
        return cost_of(spent, self._prices)


def _content_text(record: Mapping[str, Any]) -> str:
    message = record.get("message")
    return message_text(message.get("content"))[0] if isinstance(message, dict) else ""


def _output(content: object) -> Any:  # noqa: ANN401 - any JSON
    """Return a tool's result: text where it is nothing else, pictures without their bytes."""
    if not isinstance(content, list):
        return content
    blocks = [block for block in content if isinstance(block, dict)]
    if all(block.get("type") == "text" for block in blocks):
        return message_text(content)[0]
    return [block if block.get("type") == "text" else {"type": block.get("type")} for block in blocks]
