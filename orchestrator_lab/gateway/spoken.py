"""What was said in a request to a model, whatever the API: the conversation without what programs add on their own."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator_lab.gateway import anthropic, responses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Line", "setting_of", "spoken_of"]

# Claude Code writes reminders also behind the text of a tool's result.
_REMINDER = re.compile(r"\s*<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
#: Of Claude Code's own system prompt, a line for the provider's bills.
_BILLING = "x-anthropic-billing-header"


class Line(NamedTuple):
    """One thing that was said.

    Parameters
    ----------
    who : str
        ``user``, ``assistant``, ``calls NAME`` (the model wants a tool), ``result`` or ``failed result``.
    text : str
        What; a tool's input as JSON with sorted keys.
    """

    who: str
    text: str


def spoken_of(path: str, body: Mapping[str, Any]) -> list[Line]:
    """Return the conversation that a request holds.

    Left out is what programs add on their own, and at other moments each time: system prompts, reminders, notes of
    commands, thoughts, marks for the provider's cache, the list of tools.

    Parameters
    ----------
    path : str
        The request's path; its end names the API.
    body : dict
        The request.

    Returns
    -------
    list of Line
        Oldest first.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        When `body` is no request of the API.

    Examples
    --------
    >>> said = [{"role": "user", "content": [{"type": "text", "text": "<system-reminder>x</system-reminder>"},
    ...                                      {"type": "text", "text": "hi"}]}]
    >>> spoken_of("/v1/messages", {"messages": said})
    [Line(who='user', text='hi')]
    """
    if path.endswith("/responses"):
        return _responses(body["input"])
    if path.endswith("/chat/completions"):
        return _chat(body["messages"])
    return _messages(body["messages"])


def setting_of(path: str, body: Mapping[str, Any]) -> list[Line]:
    """Return what stands around the conversation: model, system prompt, names of the tools, form of the answer.

    Parameters
    ----------
    path : str
        The request's path.
    body : dict
        The request.

    Returns
    -------
    list of Line
        ``model``, ``system`` (for each text), ``tools`` and ``form``, as far as there are any.

    Examples
    --------
    >>> setting_of("/v1/messages", {"model": "m", "system": "Be brief.", "messages": []})
    [Line(who='model', text='m'), Line(who='system', text='Be brief.')]
    """
    if path.endswith("/responses"):
        systems = [str(body.get("instructions") or ""), *_developer(body.get("input"))]
        names = responses.tool_names(body.get("tools"))
        form = body.get("text")
    elif path.endswith("/chat/completions"):
        systems = [anthropic.text_of(m.get("content")) for m in _dicts(body["messages"]) if m.get("role") in _SYSTEM]
        names = [str((tool.get("function") or {}).get("name", "")) for tool in _dicts(body.get("tools"))]
        form = body.get("response_format")
    else:
        system = body.get("system")
        systems = [system] if isinstance(system, str) else [anthropic.text_of([block]) for block in _dicts(system)]
        names = [str(tool.get("name", "")) for tool in _dicts(body.get("tools"))]
        form = (body.get("output_config") or {}).get("format") or body.get("output_format")
    found = [Line("model", str(body.get("model") or ""))]
    found += [Line("system", text) for text in systems if text.strip() and not text.startswith(_BILLING)]
    if names:
        found.append(Line("tools", ", ".join(sorted(names))))
    if form:
        found.append(Line("form", _plain_json(form)))
    return found


_SYSTEM = frozenset({"system", "developer"})


def _dicts(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _plain_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _input(value: object) -> str:
    """Return a tool's input in one form; the APIs of OpenAI have it as a text."""
    if not isinstance(value, str):
        return _plain_json(value)
    try:
        return _plain_json(json.loads(value))
    except ValueError:
        return value


def _sorted_results(lines: Iterable[tuple[Line, str | None]], calls: Mapping[str, int]) -> list[Line]:
    """Return lines with the results of tools that ran side by side in the order of their calls."""
    found: list[Line] = []
    row: list[tuple[int, Line]] = []

    def flush() -> None:
        found.extend(line for _, line in sorted(row, key=lambda pair: pair[0]))
        row.clear()

    for line, call in lines:
        if call is None:
            flush()
            found.append(line)
        else:
            row.append((calls.get(call, len(calls)), line))
    flush()
    return found


def _result(text: str, *, failed: bool = False) -> Line:
    return Line("failed result" if failed else "result", _REMINDER.sub("", text))


# Messages -----------------------------------------------------------------------------------------


def _messages(messages: Iterable[Any]) -> list[Line]:
    calls: dict[str, int] = {}
    return _sorted_results(list(_message_lines(messages, calls)), calls)


def _message_lines(messages: Iterable[Any], calls: dict[str, int]) -> Iterator[tuple[Line, str | None]]:
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role == "assistant":
            yield from _answer_lines(content, calls)
            continue
        if role != "user":
            yield from ((Line("user", text), None) for text in anthropic.typed_meanwhile(role, content))
            continue
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else _dicts(content):
            if block.get("type") == "tool_result":
                call, failed = str(block.get("tool_use_id")), bool(block.get("is_error", False))
                yield _result(anthropic.text_of(block.get("content")), failed=failed), call
            elif block.get("type") == "text":
                yield from ((Line("user", text), None) for text in anthropic.true_texts([block]))
            else:
                yield Line("user", _plain_json({k: v for k, v in block.items() if k != "cache_control"})), None


def _answer_lines(content: object, calls: dict[str, int]) -> Iterator[tuple[Line, str | None]]:
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else _dicts(content):
        if block.get("type") == "text" and str(block.get("text", "")).strip():
            yield Line("assistant", str(block["text"]).strip()), None
        elif block.get("type") == "tool_use":
            calls[str(block.get("id"))] = len(calls)
            yield Line(f"calls {block.get('name')}", _plain_json(block.get("input"))), None


# chat completions -----------------------------------------------------------------------------------


def _chat(messages: Iterable[Any]) -> list[Line]:
    calls: dict[str, int] = {}
    lines: list[tuple[Line, str | None]] = []
    for message in messages:
        role, text = message.get("role"), anthropic.text_of(message.get("content") or "")
        if role == "tool":
            lines.append((_result(text), str(message.get("tool_call_id"))))
        elif role not in _SYSTEM and text.strip():
            lines.append((Line(str(role), text.strip() if role == "assistant" else text), None))
        for call in _dicts(message.get("tool_calls")):
            function = call.get("function") or {}
            calls[str(call.get("id"))] = len(calls)
            lines.append((Line(f"calls {function.get('name')}", _input(function.get("arguments"))), None))
    return _sorted_results(lines, calls)


# Responses --------------------------------------------------------------------------------------------


def _responses(given: object) -> list[Line]:
    items = [{"role": "user", "content": given}] if isinstance(given, str) else _dicts(given)
    calls: dict[str, int] = {}
    lines: list[tuple[Line, str | None]] = []
    for item in items:
        kind, role = responses.kind_of(item), item.get("role")
        if kind in responses.OUTPUTS:
            lines.append((_result(responses.output_text(item.get("output"))), str(item.get("call_id"))))
        elif kind in responses.CALLS:
            calls[str(item.get("call_id"))] = len(calls)
            name = responses.full_name(item.get("namespace"), item.get("name"))
            lines.append((Line(f"calls {name}", _input(item.get("arguments", item.get("input")))), None))
        elif kind == "message" and role == "user":
            lines += [(Line("user", text), None) for text in responses.true_texts(item.get("content"))]
        elif kind == "message" and role == "assistant":
            texts = [text for text in responses.texts_of(item.get("content")) if text.strip()]
            lines += [(Line("assistant", text.strip()), None) for text in texts]
    return _sorted_results(lines, calls)


def _developer(given: object) -> list[str]:
    """Return what the program tells the model before the conversation begins."""
    found: list[str] = []
    for item in _dicts(given):
        if responses.kind_of(item) != "message":
            break
        if item.get("role") in _SYSTEM:
            found += responses.texts_of(item.get("content"))
        elif responses.true_texts(item.get("content")):
            break
    return found
