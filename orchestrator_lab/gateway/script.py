"""The scripted model: finds the rule for a request and makes the reply.

A :class:`ScriptedModel` belongs to one agent. It counts (``times``, ``sequence``, ``{n}``) only
what belongs to the agent's conversation; what Claude Code asks on the side is answered without
touching the counts.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator_lab.errors import GatewayError
from orchestrator_lab.gateway.anthropic import side_reply
from orchestrator_lab.gateway.rules import Answer, Rule, Script, When
from orchestrator_lab.gateway.traffic import ApiError, Reply, Request, ToolCall

__all__ = ["ScriptFunction", "ScriptedModel", "fill"]

#: A Python function in the place of rules.
ScriptFunction = Callable[[Request], Reply]

_FIELD = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")

# How many tool calls with a `then` are remembered: calls whose result never comes must not pile up.
_REMEMBERED = 1000


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into a template; unknown words in braces stay as they are.

    Parameters
    ----------
    template : str
        Text with ``{word}``; ``{{word}}`` stands for ``{word}`` itself.
    values : dict
        The words.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> fill("{agent}: {1} {x} {{agent}}", {"agent": "boss", "1": "yes"})
    'boss: yes {x} {agent}'
    """

    def word(match: re.Match[str]) -> str:
        if match[1]:
            return "{" + match[1] + "}"
        return values.get(match[2], match[0])

    return _FIELD.sub(word, template)


def _fill_all(value: Any, values: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON in, JSON out
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, dict):
        return {key: _fill_all(part, values) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill_all(part, values) for part in value]
    return value


def _plain(name: str) -> str:
    """Return a tool's name as all programs can have it: Codex writes the ``-`` of an MCP server's name as ``_``."""
    return name.replace("-", "_")


def _match(when: When, request: Request) -> dict[str, str] | None:
    """Return the groups when all conditions hold, else None."""
    results = request.tool_results
    wanted = when.tool_result
    if request.purpose != when.purpose:
        return None
    if bool(results) != bool(wanted):
        return None
    if isinstance(wanted, list) and not {_plain(name) for name in wanted} & {_plain(r.name) for r in results}:
        return None
    if when.result_contains is not None and not any(when.result_contains in r.text for r in results):
        return None
    if when.agent is not None and request.agent not in when.agent:
        return None
    if when.sender is not None and request.fields.get("sender") not in when.sender:
        return None
    if when.turn is not None and request.turn not in when.turn:
        return None
    if when.text is not None and request.text.strip() != when.text.strip():
        return None
    if when.contains is not None and not all(part in request.text for part in when.contains):
        return None
    if when.matches is None:
        return {}
    found = when.matches.search(request.text)
    if found is None:
        return None
    groups = {"0": found[0]}
    groups |= {str(i): group or "" for i, group in enumerate(found.groups(), start=1)}
    groups |= {name: group or "" for name, group in found.groupdict().items()}
    return groups


@dataclass(slots=True)
class _Pending:
    """The answer for a tool call's result."""

    answer: Answer
    groups: dict[str, str]
    rule: str


class ScriptedModel:
    """Answers one agent's requests by rules or by a function.

    Parameters
    ----------
    script : Script or callable
        Checked rules (:func:`~orchestrator_lab.gateway.rules.load_script`), or a function of the
        request.

    Examples
    --------
    >>> from orchestrator_lab.gateway.rules import load_script
    >>> rules = [{"when": {"matches": "I am (.*)"}, "reply": "Hello {1}!"}]
    >>> model = ScriptedModel(load_script(rules))
    >>> model.answer(Request("boss", "anthropic", "I am Ada")).text
    'Hello Ada!'
    """

    def __init__(self, script: Script | ScriptFunction) -> None:
        self._function: ScriptFunction | None = None
        self._script = Script()
        if isinstance(script, Script):
            self._script = script
        else:
            self._function = script
        self._used = [0] * len(self._script.rules)
        self._answered = 0
        self._calls = 0
        self._then: OrderedDict[str, _Pending] = OrderedDict()

    def answer(self, request: Request) -> Reply:
        """Return the reply to a request, and count it.

        Parameters
        ----------
        request : Request
            What the agent asks.

        Returns
        -------
        Reply
            The reply; tool calls have their ids.

        Raises
        ------
        GatewayError
            When a script function fails or returns something else than a reply.
        """
        if request.purpose == "main":
            self._answered += 1
        function = self._function
        reply = self._call(function, request) if function else self._by_rules(request)
        return self._with_ids(reply)

    def _call(self, function: ScriptFunction, request: Request) -> Reply:
        if request.purpose != "main":
            return side_reply(request)
        try:
            reply: object = function(request)
        except Exception as problem:
            name = type(problem).__name__
            msg = f"the script function of agent '{request.agent}' failed: {name}: {problem}"
            raise GatewayError(msg, agent=request.agent) from problem
        if not isinstance(reply, Reply):
            msg = (
                f"the script function of agent '{request.agent}' returned {type(reply).__name__}; "
                "it must return a Reply"
            )
            raise GatewayError(msg, agent=request.agent)
        return reply if reply.rule else replace(reply, rule="function")

    def _by_rules(self, request: Request) -> Reply:
        for result in request.tool_results:
            # Kept, not popped: a client that tries again after a broken connection must get the same.
            pending = self._then.get(result.tool_use_id)
            if pending is not None and request.purpose == "main":
                return self._make(pending.answer, request, pending.groups, pending.rule)
        for index, rule in enumerate(self._script.rules):
            if rule.times is not None and self._used[index] >= rule.times:
                continue
            groups = _match(rule.when, request)
            if groups is None:
                continue
            answer = self._next(rule, self._used[index])
            if answer is None:
                continue
            self._used[index] += 1
            return self._make(answer, request, groups, rule.name or f"rule {index + 1}")
        if request.purpose != "main":
            return side_reply(request)
        return self._otherwise(request)

    def _otherwise(self, request: Request) -> Reply:
        default = self._script.default
        # A default that calls a tool would call it again for each result, without end.
        if default is not None and not (default.tool and request.tool_results):
            return self._make(default, request, {}, "default")
        if request.tool_results:
            return Reply("Done.", rule="built-in: tool result")
        start = request.text if len(request.text) <= 80 else request.text[:79] + "…"
        message = f"No rule of the script matches {start!r}; add a rule or a default to the script."
        error = ApiError(400, "invalid_request_error", message, retry=False)
        return Reply(error=error, rule="built-in: no rule")

    @staticmethod
    def _next(rule: Rule, used: int) -> Answer | None:
        if rule.sequence is None:
            return rule
        if used < len(rule.sequence):
            return rule.sequence[used]
        if rule.after == "skip":
            return None
        return rule.sequence[used % len(rule.sequence) if rule.after == "cycle" else -1]

    def _make(self, answer: Answer, request: Request, groups: dict[str, str], rule: str) -> Reply:
        results = request.tool_results
        values = {
            "sender": "",
            "message_id": "",
            **request.fields,
            **groups,
            "agent": request.agent,
            "text": request.text,
            "prompt": request.prompt,
            "n": str(self._answered),
            "turn": str(request.turn),
            "tool_result": "\n".join(r.text for r in results),
            "tool": results[0].name if results else "",
        }
        if answer.error is not None:
            e = answer.error
            error = ApiError(
                e.status, e.type, fill(e.message, values), e.retry, e.retry_after_s, dict(e.headers), dict(e.fields)
            )
            return Reply(error=error, delay_s=answer.delay_s, rule=rule)
        text = fill(answer.reply or "", values)
        if answer.echo:
            text = values["tool_result"] if results else request.text
        tools = []
        for tool in answer.tool:
            call = ToolCall(fill(tool.name, values), _fill_all(tool.input, values), self._new_id())
            if answer.then is not None:
                self._then[call.id] = _Pending(answer.then, groups, rule)
            tools.append(call)
        while len(self._then) > _REMEMBERED:
            self._then.popitem(last=False)
        return Reply(
            text=text,
            tools=tuple(tools),
            delay_s=answer.delay_s,
            chunk=answer.chunk,
            tokens_per_s=answer.tokens_per_s,
            rule=rule,
        )

    def _new_id(self) -> str:
        from ulid import ULID

        return f"toolu_{str(ULID()).lower()}"

    def _with_ids(self, reply: Reply) -> Reply:
        if all(tool.id for tool in reply.tools):
            return reply
        tools = tuple(t if t.id else replace(t, id=self._new_id()) for t in reply.tools)
        return replace(reply, tools=tools)
