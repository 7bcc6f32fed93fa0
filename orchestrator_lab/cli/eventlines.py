"""Journal events as lines for people."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator_lab.cli import common
from orchestrator_lab.cli.words import bytes_, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["event_line", "what"]

_TEXT = 400
_STYLES = {
    "message": "cyan",
    "turn": "green",
    "dialog": "magenta",
    "tool": "blue",
    "agent": "",
    "run": "bold",
    "cluster": "bold",
    "gateway": "dim",
    "recording": "dim",
    "supervisor": "dim",
    "keeper": "dim",
    "conversation": "bold",
    "alert": "bold",
    "process": "dim",
}
_LEVELS = {"warning": "yellow", "error": "bold red", "critical": "bold red reverse"}
#: Attributes that say nothing to a person, or are said otherwise.
_SILENT = {"content_sha256", "instructions_sha256", "votes", "conversation_id", "hop", "agent_id", "request_id"}


def _join(*parts: Any) -> str:  # noqa: ANN401 - texts and nothings
    return ", ".join(str(part) for part in parts if part is not None and part != "")


def _failure(facts: Mapping[str, Any]) -> str:
    return _join(facts.get("error_type"), facts.get("error_message"))


def _tokens(facts: Mapping[str, Any]) -> str:
    return f"{facts.get('input_tokens', '?')} in, {facts.get('output_tokens', '?')} out"


def _session(facts: Mapping[str, Any]) -> str:
    return _join(facts.get("session_id"))


_WHAT: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "run.started": lambda f: _join(f.get("name"), f.get("experiment"), f.get("params") or None),
    "run.ended": lambda f: _join(f.get("status"), _failure(f)),
    "agent.added": lambda f: _join(f.get("kind"), f.get("program_version"), f.get("role")),
    "agent.started": lambda f: _join(f"pid {f.get('pid')}", f.get("pane_id"), f.get("restart") and "restarted"),
    "agent.session": _session,
    "agent.state": lambda f: f"{f['previous']} → {f['state']}" if f.get("previous") else str(f.get("state", "")),
    "agent.exited": lambda f: _join(
        None if f.get("exit_code") is None else f"status {f['exit_code']}", f.get("signal") and f"signal {f['signal']}"
    ),
    "agent.failed": _failure,
    "message.queued": lambda f: f"{f.get('sender')} → {f.get('recipient')}: {f.get('content', '')}",
    "message.written": lambda f: f"{f.get('bytes')} bytes",
    "message.refused": _failure,
    "message.expired": _failure,
    "message.failed": _failure,
    "message.uncertain": _failure,
    "turn.ended": lambda f: _join(
        None if f.get("end_reason") == "completed" else f.get("end_reason"), f.get("reply"), f.get("error_message")
    ),
    "turn.usage": _tokens,
    "tool.started": lambda f: f"{f.get('name')} {f.get('input') or ''}",
    "tool.ended": lambda f: _join(f.get("status"), f.get("error_message")),
    "dialog.opened": lambda f: _join(f.get("kind"), f.get("subject")),
    "dialog.answered": lambda f: _join(f.get("answered_by"), f.get("decision")),
    "gateway.request": lambda f: _join(f.get("mode"), f.get("path"), f.get("model")),
    "gateway.response": lambda f: _join(
        f"status {f.get('status')}", seconds(f.get("duration_s")), f.get("model"), f.get("error")
    ),
    "conversation.started": lambda f: f"{' → '.join(f.get('agents') or ())}, {f.get('rounds')} rounds",
    "conversation.ended": lambda f: _join(f.get("reason")),
    "alert.opened": lambda f: f"{f.get('rule')}: {f.get('message')}",
    "alert.escalated": lambda f: f"{f.get('rule')}: {f.get('message')}",
    "alert.repeated": lambda f: f"{f.get('rule')}: {f.get('message')}",
    "alert.acknowledged": lambda f: f"{f.get('rule')}, by {f.get('by')}",
    "alert.resolved": lambda f: f"{f.get('rule')}, by {f.get('by')}",
    "alert.notified": lambda f: _join(f.get("rule"), f.get("channel"), None if f.get("ok") else f.get("error")),
    "process.sample": lambda f: _join(
        None if f.get("cpu_percent") is None else f"{f['cpu_percent']} % of a core", bytes_(f.get("rss_bytes") or 0)
    ),
    "guard.tripped": lambda f: str(f.get("message", "")),
    "guard.lifted": lambda f: _join(f.get("rule"), f"by {f.get('by')}"),
    "agent.limited": lambda f: _join(f.get("kind"), f.get("reason")),
    "agent.limit_lifted": lambda f: _join(f.get("kind"), f"by {f.get('by')}"),
    "note": lambda f: str(f.get("text", "")),
}


def what(name: str, facts: Mapping[str, Any]) -> str:
    """Return what an event says, on one line.

    Parameters
    ----------
    name : str
        The event.
    facts : mapping
        Its attributes.

    Examples
    --------
    >>> what("agent.state", {"state": "busy", "previous": "idle"})
    'idle → busy'
    >>> what("something.new", {"size": 3, "votes": {}})
    'size=3'
    >>> what("conversation.started", {"agents": 7})
    'agents=7'
    """
    known = _WHAT.get(name)
    if known is not None:
        # Attributes that are not of the types that they should be are shown as they are.
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            return common.fold(known(facts), _TEXT)
    shown = (f"{key}={value}" for key, value in facts.items() if key not in _SILENT and value not in ({}, [], None))
    return common.fold(" ".join(shown), _TEXT)


def event_line(event: Mapping[str, Any], names: Sequence[str]) -> Text:
    """Return one event as one line.

    Parameters
    ----------
    event : mapping
        As in the journal.
    names : sequence of str
        The agents so far, for their colours.

    Returns
    -------
    rich.text.Text
        Seconds of the run, agent, event, what it says.
    """
    name, agent = str(event["event"]), str(event.get("agent") or "")
    level = str(event.get("level", "info"))
    style = _LEVELS.get(level) or _STYLES.get(name.partition(".")[0], "")
    line = Text(f"{float(event['monotonic_s']):9.3f}  ", style="dim", end="")
    width = max([8, *(len(one) for one in names)])
    line.append(agent.ljust(width), style=common.agent_style(agent, names) if agent else "")
    line.append(f"  {name:<18}", style=style)
    line.append(f" {what(name, event.get('attributes') or {})}".rstrip(), style=_LEVELS.get(level, ""))
    return line
