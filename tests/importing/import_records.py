"""Records as Claude Code and Codex write them, for the tests of the importers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path  # noqa: TC003 - at run time too
from typing import Any

BEGIN = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    stamp = (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


class Session:
    """A transcript of Claude Code in the making: each record is the child of the one before."""

    def __init__(self, session_id: str, *, prefix: str = "u", **common: Any) -> None:
        self.session_id = session_id
        self.records: list[dict[str, Any]] = []
        self._prefix, self._common = prefix, common

    def add(self, seconds: float, **record: Any) -> dict[str, Any]:
        made = {
            "parentUuid": self.records[-1].get("uuid") if self.records else None,
            "isSidechain": False,
            "uuid": f"{self._prefix}{len(self.records)}",
            "sessionId": self.session_id,
            "version": "2.1.197",
            "cwd": "/work",
            "timestamp": at(seconds),
            **self._common,
            **record,
        }
        self.records.append(made)
        return made

    def prompt(self, seconds: float, text: str, prompt_id: str, **more: Any) -> None:
        self.add(seconds, type="user", promptId=prompt_id, message={"role": "user", "content": text}, **more)

    def said(self, seconds: float, message_id: str, *blocks: Any, stop: str | None = None, **usage: int) -> None:
        content = [{"type": "text", "text": one} if isinstance(one, str) else one for one in blocks]
        message = {"id": message_id, "model": "m-1", "content": content, "usage": usage, "stop_reason": stop}
        self.add(seconds, type="assistant", message=message)

    def result(self, seconds: float, call: str, content: Any, **more: Any) -> None:
        block = {"type": "tool_result", "tool_use_id": call, "content": content, **more}
        self.add(seconds, type="user", message={"role": "user", "content": [block]})

    def over(self, seconds: float, ms: int) -> None:
        self.add(seconds, type="system", subtype="turn_duration", durationMs=ms)

    def write(self, folder: Path, name: str | None = None) -> Path:
        return written(folder / f"{name or self.session_id}.jsonl", self.records)


def tool(call: str, name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": name, "input": given}


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in records), encoding="utf-8")
    return path


def two_turns(session_id: str = "s-1") -> Session:
    """One turn with a tool call, one without."""
    session = Session(session_id)
    session.prompt(0, "what is in a.txt?", "p1")
    session.said(1, "a", "I look.", input_tokens=10, output_tokens=1, cache_read_input_tokens=5)
    session.said(1.5, "a", tool("t1", "Read", file_path="a.txt"), input_tokens=10, output_tokens=7, stop="tool_use")
    session.result(2, "t1", "hello")
    session.said(
        3, "b", "It says hello.", input_tokens=20, output_tokens=4, cache_creation_input_tokens=30, stop="end_turn"
    )
    session.over(3.2, 3100)
    session.prompt(10, "thanks", "p2")
    session.said(11, "c", "Welcome.", input_tokens=1, output_tokens=2, stop="end_turn")
    return session


def rollout(folder: Path, *payloads: tuple[float, str, dict[str, Any]], session_id: str = "c-1", **meta: Any) -> Path:
    """Write a rollout of Codex."""
    about = {"id": session_id, "cwd": "/work", "cli_version": "0.169.0", "model_provider": "openai", **meta}
    records = [{"timestamp": at(seconds), "type": kind, "payload": one} for seconds, kind, one in payloads]
    first = {"timestamp": at(0), "type": "session_meta", "payload": about}
    return written(folder / f"rollout-2026-11-23T07-00-00-{session_id}.jsonl", [first, *records])
