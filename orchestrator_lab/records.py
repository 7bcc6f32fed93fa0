"""Pieces of the programs' own records that whoever follows a session and whoever imports one read alike."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "CODEX_CALLS",
    "CODEX_OUTPUTS",
    "INTERRUPTED",
    "claude_hour",
    "claude_largest",
    "claude_plain",
    "claude_total",
    "codex_arguments",
    "codex_call_name",
    "codex_error",
    "codex_failed",
    "codex_text",
    "epoch",
    "is_claude_limit",
    "is_codex_limit",
    "message_text",
    "milliseconds",
]

#: How Claude Code's record of an interruption begins.
INTERRUPTED = "[Request interrupted by user"
#: Codex's kinds of calls, and of what they gave.
CODEX_CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call"})
CODEX_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_CLAUDE_LIMITS = frozenset({"rate_limit", "billing_error"})
#: A busy endpoint, which is no account's limit.
_NOT_A_LIMIT = "not your usage limit"
_EXIT_CODE = re.compile(r"^Process exited with code (\d+)", re.MULTILINE)


def epoch(stamp: object) -> float:
    """Return the epoch seconds of a record's timestamp; nought when it has none.

    Parameters
    ----------
    stamp : object
        ISO 8601 text.

    Returns
    -------
    float
        Seconds.

    Examples
    --------
    >>> epoch("1970-01-01T00:01:00.500Z"), epoch(None)
    (60.5, 0.0)
    """
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def milliseconds(value: object) -> float | None:
    """Return a duration in seconds, None for what is none.

    Examples
    --------
    >>> milliseconds(1500), milliseconds("soon")
    (1.5, None)
    """
    known = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return float(value) / 1000 if known else None  # type: ignore[arg-type]


def message_text(content: object) -> tuple[str, bool]:
    """Return the text of a Claude message's content, and whether it is a tool's result.

    Parameters
    ----------
    content : object
        Text, or a list of blocks.

    Returns
    -------
    tuple of (str, bool)
        All text blocks, one a line; True when there is a ``tool_result`` among the blocks.
    """
    if isinstance(content, str):
        return content, False
    if not isinstance(content, list):
        return "", False
    blocks = [block for block in content if isinstance(block, dict)]
    text = "\n".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")
    return text, any(block.get("type") == "tool_result" for block in blocks)


def claude_total(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tokens of API messages, those of the cache counted among the input; None for what none reported.

    Parameters
    ----------
    usages : iterable of mapping
        Each message's ``usage``, each message once.

    Returns
    -------
    dict of str to int or None
        By the names of the turns table.

    Examples
    --------
    >>> claude_total([{"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 10}])["input_tokens"]
    13
    """
    given = list(usages)

    def add(key: str) -> int | None:
        known = [figure for one in given if isinstance(figure := one.get(key), int) and not isinstance(figure, bool)]
        return sum(known) if known else None

    plain, read, made = map(add, ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"))
    parts = [part for part in (plain, read, made) if part is not None]
    return {
        "input_tokens": sum(parts) if parts else None,
        "output_tokens": add("output_tokens"),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": made,
    }


def claude_hour(usages: Iterable[Mapping[str, Any]]) -> int:
    """Return how many tokens API messages wrote to the cache for an hour."""
    split = [made for one in usages if isinstance(made := one.get("cache_creation"), dict)]
    return sum(hour for one in split if isinstance(hour := one.get("ephemeral_1h_input_tokens"), int))


def claude_largest(usages: Iterable[Mapping[str, Any]]) -> int | None:
    """Return the input of the largest API message; None when none is known."""
    return max((total for one in usages if (total := claude_total([one])["input_tokens"]) is not None), default=None)


def claude_plain(usage: Mapping[str, Any]) -> bool:
    """Tell whether an API message was answered at usual conditions, and nothing else is charged for it.

    Parameters
    ----------
    usage : mapping
        Its ``usage``.

    Examples
    --------
    >>> claude_plain({"service_tier": "standard"}), claude_plain({"service_tier": "batch"})
    (True, False)
    """
    tools = usage.get("server_tool_use")
    return (
        usage.get("service_tier") in {None, "standard"}
        and usage.get("speed") in {None, "standard"}
        and not (isinstance(tools, dict) and any(tools.values()))
    )


def is_claude_limit(error: object, status: object, text: str) -> bool:
    """Tell whether an API error of Claude Code says that an account's limit is used up.

    Parameters
    ----------
    error : str or None
        Claude Code's word for it.
    status : int or None
        HTTP status.
    text : str
        Its text.
    """
    return (error in _CLAUDE_LIMITS or status == 429) and _NOT_A_LIMIT not in text


def is_codex_limit(info: object) -> bool:
    """Tell whether the ``codex_error_info`` of an error says that an account's limit is used up."""
    attempts = info.get("response_too_many_failed_attempts") if isinstance(info, dict) else None
    in_vain = isinstance(attempts, dict) and attempts.get("http_status_code") == 429
    return in_vain or "usage_limit" in json.dumps(info)


def codex_text(content: object) -> str:
    """Return the text of a Codex item's content or of a call's output."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)


def codex_call_name(payload: Mapping[str, Any]) -> str:
    """Return the tool's name, an MCP tool as ``mcp__SERVER__TOOL``."""
    space, name = payload.get("namespace"), str(payload.get("name") or payload.get("type"))
    return f"{space}__{name}" if isinstance(space, str) and space else name


def codex_arguments(payload: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    """Return a call's arguments, decoded where they are JSON."""
    given = payload.get("arguments", payload.get("input", payload.get("action")))
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return given


def codex_failed(output: str) -> bool:
    """Tell whether a call's output says that a command failed."""
    code = _EXIT_CODE.search(output)
    return bool(code and code[1] != "0")


def codex_error(message: str) -> str:
    """Return the sentence of an endpoint's error, which Codex hands on as it came."""
    try:
        error = json.loads(message)["error"]
        return str(error["message"])
    except (ValueError, KeyError, TypeError):
        return message
