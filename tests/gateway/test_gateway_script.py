from __future__ import annotations

import doctest
from typing import Any

import pytest

import orchestrator_lab.gateway
from orchestrator_lab.errors import GatewayError
from orchestrator_lab.gateway import (
    Reply,
    Request,
    ScriptedModel,
    ToolCall,
    ToolResult,
    load_script,
)


def ask(model: ScriptedModel, text: str, **more: Any) -> Reply:
    return model.answer(Request(more.pop("agent", "boss"), "anthropic", text, **more))


def model(*rules: Any, **more: Any) -> ScriptedModel:
    return ScriptedModel(load_script({"rules": list(rules), **more}))


@pytest.mark.parametrize(
    ("when", "text", "more", "hit"),
    [
        ({"text": "hi"}, " hi\n", {}, True),
        ({"text": "hi"}, "hi you", {}, False),
        ({"contains": ["a", "b"]}, "b a", {}, True),
        ({"contains": ["a", "b"]}, "a", {}, False),
        ({"matches": "^x.*y$"}, "x\ny", {}, True),
        ({"agent": ["boss", "it"]}, "a", {}, True),
        ({"agent": "other"}, "a", {}, False),
        ({"sender": "ann"}, "a", {"fields": {"sender": "ann"}}, True),
        ({"sender": "ann"}, "a", {}, False),
        ({"turn": 2}, "a", {"turn": 2}, True),
        ({"turn": [1, 3]}, "a", {"turn": 2}, False),
        ({"tool_result": True}, "a", {"tool_results": (ToolResult("1", "x", "r"),)}, True),
        ({"tool_result": "x"}, "a", {"tool_results": (ToolResult("1", "x", "r"),)}, True),
        ({"tool_result": "y"}, "a", {"tool_results": (ToolResult("1", "x", "r"),)}, False),
        ({"tool_result": True}, "a", {}, False),
        ({"contains": "a"}, "a", {"tool_results": (ToolResult("1", "x", "r"),)}, False),
        ({"tool_result": True, "result_contains": "q"}, "a", {"tool_results": (ToolResult("1", "x", "r"),)}, False),
        ({"purpose": "title"}, "a", {"purpose": "title"}, True),
        ({"purpose": "title"}, "a", {}, False),
        ({"contains": "a"}, "a", {"purpose": "side"}, False),
    ],
)
def test_conditions(when: Any, text: Any, more: Any, hit: Any) -> None:
    reply = ask(model({"when": when, "reply": "hit"}), text, **more)
    assert (reply.text == "hit") is hit


def test_templates() -> None:
    scripted = model(
        {
            "when": {"matches": r"^tell (?P<who>\w+) (.*)"},
            "reply": "{agent}/{who}/{2}/{sender}/{n}/{turn}/{{agent}}/{other}/{{}}",
            "tool": {"name": "send", "input": {"to": "{1}", "list": ["{2}", 3], "deep": {"a": "{n}"}}},
        }
    )
    reply = ask(scripted, "tell it all {1}", fields={"sender": "ann"}, turn=4)
    assert reply.text == "boss/it/all {1}/ann/1/4/{agent}/{other}/{{}}"
    assert reply.tools[0].input == {"to": "it", "list": ["all {1}", 3], "deep": {"a": "1"}}
    assert reply.tools[0].id.startswith("toolu_")


def test_times_and_sequences_count_the_conversation_only() -> None:
    scripted = model(
        {"when": {"contains": "a"}, "times": 1, "reply": "first"},
        {"when": {"contains": "a"}, "sequence": [{"reply": "x"}, {"reply": "y"}], "after": "skip"},
        {"when": {"contains": "b"}, "sequence": [{"reply": "1"}, {"reply": "2"}], "after": "cycle"},
        {"when": {"contains": "c"}, "sequence": [{"reply": "1"}, {"reply": "2"}]},
        default={"reply": "default {n}"},
    )
    assert ask(scripted, "a", purpose="title").text != "first"
    assert [ask(scripted, "a").text for _ in range(4)] == ["first", "x", "y", "default 4"]
    assert [ask(scripted, "b").text for _ in range(3)] == ["1", "2", "1"]
    assert [ask(scripted, "c").text for _ in range(3)] == ["1", "2", "2"]


def test_then_follows_its_own_tool_call() -> None:
    scripted = model(
        {
            "when": {"matches": "ask (.*)"},
            "tool": [{"name": "send", "input": {"to": "{1}"}}, {"name": "look"}],
            "then": {"tool": {"name": "again"}, "then": {"reply": "{1}: {tool_result} ({tool})"}},
        }
    )
    one, two = ask(scripted, "ask ann"), ask(scripted, "ask bob")
    for reply, who in ((two, "bob"), (one, "ann"), (one, "ann")):
        results = tuple(ToolResult(t.id, t.name, "ok") for t in reply.tools)
        again = ask(scripted, "ask " + who, tool_results=results)
        assert [t.name for t in again.tools] == ["again"]
        last = ask(scripted, "x", tool_results=(ToolResult(again.tools[0].id, "again", "done"),))
        assert last.text == f"{who}: done (again)"


def test_what_no_rule_matches() -> None:
    reply = ask(model(), "hello?")
    assert reply.error is not None
    assert reply.error.status == 400
    assert "'hello?'" in reply.error.message
    assert reply.error.retry is False
    result = (ToolResult("1", "x", "r"),)
    assert ask(model(), "a", tool_results=result).text == "Done."
    assert ask(model(default={"echo": True}), "a", tool_results=result).text == "r"
    # A default that calls tools does not call them without end.
    assert ask(model(default={"tool": {"name": "t"}}), "a", tool_results=result).text == "Done."


def test_a_function_in_the_place_of_rules() -> None:
    scripted = ScriptedModel(lambda r: Reply(r.text.upper(), tools=(ToolCall("t", {"a": 1}),)))
    reply = ask(scripted, "hi")
    assert reply.text == "HI"
    assert reply.tools[0].id
    assert reply.rule == "function"
    assert ask(scripted, "hi", purpose="probe").text == "."
    with pytest.raises(GatewayError, match="failed: KeyError: 'x'"):
        ask(ScriptedModel(lambda _: {}["x"]), "a")
    with pytest.raises(GatewayError, match="returned str; it must return a Reply"):
        ask(ScriptedModel(lambda _: "x"), "a")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    "name", ["anthropic", "openai", "http", "rules", "script", "traffic", "upstream", "usage", "gateway"]
)
def test_examples_run(name: Any) -> None:
    module = __import__(f"{orchestrator_lab.gateway.__name__}.{name}", fromlist=["x"])
    assert doctest.testmod(module).failed == 0
