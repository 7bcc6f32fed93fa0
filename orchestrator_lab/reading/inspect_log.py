"""A run as an Inspect AI log: one sample an agent, its messages as Inspect's chat messages.

Written through Inspect's own classes, so that ``inspect view``, ``samples_df`` and ``messages_df`` of the version that
is installed can read it. Only what an agent was told and what it answered becomes its transcript; the rest (rungs,
sender, ids) is metadata.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestrator_lab.errors import ConfigError, EnvironmentProblem
from orchestrator_lab.reading.entries import ids_of, rows_of
from orchestrator_lab.reading.texts import instant

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.tables import RunTables

__all__ = ["check_suffix", "write_inspect_log"]

#: When, the message, and how long it took.
_Said: TypeAlias = "tuple[str | None, Any, float | None]"
_STATUS: dict[str, Any] = {"completed": "success", "failed": "error", "cancelled": "cancelled"}
_RUNGS = ("queued_at", "claimed_at", "written_at", "accepted_at", "answered_at", "acceptance_source", "status")


def check_suffix(path: Path) -> None:
    """Refuse a name by which Inspect would not know its own file.

    Raises
    ------
    ConfigError
        When it does not end in .eval.
    """
    if path.suffix != ".eval":
        raise ConfigError(f"{path}: Inspect knows its logs by their suffix, so call it {path.stem or 'run'}.eval")


def write_inspect_log(tables: RunTables, path: Path, agents: set[str] | None = None) -> None:
    """Write a run as a log of Inspect AI.

    Parameters
    ----------
    tables : RunTables
        The run.
    path : pathlib.Path
        The file, ``.eval``.
    agents : set of str, optional
        Only these agents.

    Raises
    ------
    EnvironmentProblem
        When inspect_ai is not installed.
    """
    try:
        from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, EvalStats, write_eval_log
    except ImportError as error:
        raise EnvironmentProblem(
            f"an Inspect log is written by Inspect AI itself, which cannot be loaded ({error}); install it: "
            "pip install 'orchestrator-lab[inspect]'"
        ) from error
    run = rows_of(tables, "runs")[0]
    samples = [sample for sample in _samples(tables, run) if agents is None or sample.id in agents]
    models = list(dict.fromkeys(usage for sample in samples for usage in sample.model_usage))
    started = str(run["started_at"] or "1970-01-01T00:00:00Z")
    ended = str(run["ended_at"] or "")
    kept = ("params", "tags", "seed", "mode", "git_commit", "platform", "tmux_version", "error_type", "error_message")
    spec = EvalSpec(
        created=started,
        run_id=tables.run_id,
        eval_id=tables.run_id,
        task_id=tables.run_id,
        task=_text(run["experiment"] or tables.manifest.get("name") or "run"),
        task_args=_object(run["params"]),
        tags=[_text(tag) for tag in ids_of(run["tags"])] or None,
        dataset=EvalDataset(name=tables.run_id, samples=len(samples), sample_ids=[str(one.id) for one in samples]),
        model=models[0] if models else "none",
        config=EvalConfig(),
        packages={"orchestrator_lab": str(run["package_version"] or "unknown")},
        metadata={name: run[name] for name in kept if run[name] is not None},
    )
    log = EvalLog(
        status=_STATUS.get(str(run["status"]), "started"),
        eval=spec,
        stats=EvalStats(started_at=started, completed_at=ended, model_usage=_summed(samples)),
        samples=samples,
    )
    write_eval_log(log, str(path), format="eval")


def _samples(tables: RunTables, run: dict[str, Any]) -> list[Any]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput

    messages = {row["message_id"]: row for row in rows_of(tables, "messages")}
    calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in rows_of(tables, "tool_calls"):
        calls[str(call["turn_id"])].append(call)
    turns: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in rows_of(tables, "turns"):
        turns[str(turn["agent"])].append(turn)
    samples = []
    for agent in rows_of(tables, "agents"):
        name = str(agent["name"])
        model = str(agent["model"] or agent["program"] or agent["kind"] or "unknown")
        started = agent["started_at"] or run["started_at"]
        said: list[_Said] = []
        for turn in turns[name]:
            asked = [messages[one] for one in ids_of(turn["message_ids"]) if one in messages]
            said += [(row["accepted_at"] or turn["started_at"], _user(row), None) for row in asked]
            said += _answer(turn, calls[str(turn["turn_id"])], model)
        chat = [message for _, message, _ in said]
        unanswered = [
            {
                "message_id": row["message_id"],
                "sender": row["sender"],
                "status": row["status"],
                "content": row["content"],
            }
            for row in messages.values()
            if row["recipient"] == name and row["turn_id"] is None
        ]
        facts = ("agent_id", "role", "kind", "program", "program_version", "session_id", "state", "busy_s", "restarts")
        ended = [turn["ended_at"] for turn in turns[name] if turn["ended_at"]]
        samples.append(
            EvalSample(
                id=name,
                epoch=1,
                uuid=f"{tables.run_id}-{name}",
                input=[chat[0]] if chat else "",
                target="",
                messages=chat,
                events=_events(said, model, started),
                output=ModelOutput.from_content(model, _text(turns[name][-1]["reply"] or "") if turns[name] else ""),
                model_usage=_usage(turns[name], model),
                started_at=started,
                completed_at=agent["ended_at"] or (max(ended) if ended else None),
                working_time=agent["busy_s"],
                metadata={
                    "run_id": tables.run_id,
                    **{one: _plain(agent[one]) for one in facts if agent[one] is not None},
                    **({"unanswered": _plain(unanswered)} if unanswered else {}),
                },
            )
        )
    return samples


def _user(row: dict[str, Any]) -> Any:  # noqa: ANN401 - Inspect's own class
    from inspect_ai.model import ChatMessageUser

    facts = ("sender", "recipient", "kind", "source", "conversation_id", "in_reply_to", "hop", *_RUNGS)
    metadata = {name: _plain(row[name]) for name in facts if row[name] is not None}
    return ChatMessageUser(id=row["message_id"], content=_text(row["content"] or ""), source="input", metadata=metadata)


def _answer(turn: dict[str, Any], calls: list[dict[str, Any]], model: str) -> list[_Said]:
    """Return a turn as Inspect has it: an assistant that calls tools, their results, the final text."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageTool
    from inspect_ai.tool import ToolCall, ToolCallError

    facts = (
        "turn_id",
        "started_at",
        "ended_at",
        "duration_s",
        "end_reason",
        "input_tokens",
        "output_tokens",
        "cost_usd",
    )
    metadata = {name: turn[name] for name in facts if turn[name] is not None}
    said = str(turn["model"] or model)
    made: list[_Said] = []
    for number, call in enumerate(calls):
        call_id = str(call["tool_call_id"] or f"{turn['turn_id']}-{number}")
        name = _text(call["name"] or "unknown")
        asked = ToolCall(id=call_id, function=name, arguments=_object(call["input"]))
        asking = ChatMessageAssistant(
            id=f"{turn['turn_id']}-call-{number}", content="", tool_calls=[asked], model=said, source="generate"
        )
        made.append((call["started_at"], asking, None))
        error = None
        if call["status"] in {"error", "denied"}:
            reason = _text(call["error_message"] or call["output"] or call["status"])
            kind: Any = "permission" if call["status"] == "denied" else "unknown"
            error = ToolCallError(type=kind, message=reason)
        output = _text(call["output"] or "")
        result_id = f"{turn['turn_id']}-result-{number}"
        result = ChatMessageTool(id=result_id, content=output, tool_call_id=call_id, function=name, error=error)
        made.append((call["started_at"], result, call["duration_s"]))
    if turn["ended_at"] is not None or turn["reply"]:
        reply = ChatMessageAssistant(
            id=turn["turn_id"],
            content=_text(turn["reply"] or ""),
            model=said,
            source="generate",
            metadata=metadata,
        )
        made.append((turn["ended_at"], reply, turn["duration_s"]))
    return made


def _events(said: list[_Said], model: str, started: str | None) -> list[Any]:
    """Return the transcript as Inspect's events, from which its ``messages_df`` is made.

    The input of each model event is what was new: what else a program showed to its model only that program knows, and
    a whole history in each event would grow with the square of the turns.
    """
    from inspect_ai.event import ModelEvent, ToolEvent
    from inspect_ai.model import ChatCompletionChoice, GenerateConfig, ModelOutput

    events: list[Any] = []
    new: list[Any] = []
    begin = instant(started)
    now = begin or datetime.fromtimestamp(0, UTC)
    calls: dict[str, Any] = {}

    def when() -> dict[str, Any]:
        return {"timestamp": now, "working_start": max(0.0, (now - (begin or now)).total_seconds())}

    def model_event(choices: list[Any], name: str, took_s: float | None = None) -> None:
        output = ModelOutput(model=name, choices=choices)
        events.append(
            ModelEvent(
                model=name,
                input=list(new),
                tools=[],
                tool_choice="auto",
                config=GenerateConfig(),
                output=output,
                completed=now,
                working_time=took_s,
                **when(),
            )
        )
        new.clear()

    for at, message, took_s in said:
        now = instant(at) or now
        if message.role == "assistant":
            calls.update({call.id: call for call in message.tool_calls or []})
            reason: Any = "tool_calls" if message.tool_calls else "stop"
            choice = ChatCompletionChoice(message=message, stop_reason=reason)
            model_event([choice], message.model or model, took_s)
            continue
        if message.role == "tool":
            call = calls[message.tool_call_id]
            done = ToolEvent(
                id=call.id,
                function=call.function,
                arguments=call.arguments,
                result=message.content,
                error=message.error,
                completed=now + timedelta(seconds=took_s or 0.0),
                working_time=took_s,
                message_id=message.id,
                **when(),
            )
            events.append(done)
        new.append(message)
    if new:
        model_event([], model)  # still at work, or ended without an answer
    return events


def _usage(turns: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """Return tokens by model as Inspect counts them; a turn without reported tokens adds nothing."""
    from inspect_ai.model import ModelUsage

    usage: dict[str, Any] = {}
    for turn in turns:
        if turn["input_tokens"] is None and turn["output_tokens"] is None:
            continue
        read, made = turn["cache_read_input_tokens"] or 0, turn["cache_creation_input_tokens"] or 0
        into, out = turn["input_tokens"] or 0, turn["output_tokens"] or 0
        # Inspect counts cached input tokens apart, this lab within the input.
        one = ModelUsage(
            input_tokens=max(0, into - read - made),
            output_tokens=out,
            total_tokens=into + out,
            input_tokens_cache_read=read,
            input_tokens_cache_write=made,
        )
        name = str(turn["model"] or model)
        usage[name] = one if name not in usage else usage[name] + one
    return usage


def _summed(samples: list[Any]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for sample in samples:
        for name, usage in sample.model_usage.items():
            total[name] = usage if name not in total else total[name] + usage
    return total


def _object(text: str | None) -> dict[str, Any]:
    """Return arguments as the object that Inspect wants; what is none stands under one name."""
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    plain = _plain(found)
    return dict(plain) if isinstance(plain, dict) else {"value": plain}


def _text(value: object) -> str:
    """Return a text that UTF-8 can hold."""
    return str(value).encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
