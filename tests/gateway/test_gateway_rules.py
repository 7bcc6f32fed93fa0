from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.gateway import load_script

if TYPE_CHECKING:
    from pathlib import Path


def test_a_list_a_mapping_and_a_file_are_the_same_script(tmp_path: Path) -> None:
    rules = [{"when": {"contains": "hi"}, "reply": "Hello."}]
    path = tmp_path / "script.yaml"
    path.write_text("- when: {contains: hi}\n  reply: Hello.\n")
    assert load_script(rules) == load_script({"rules": rules}) == load_script(path)
    assert load_script(str(path)) == load_script(path)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("rules:\n- when: {text: a}\n  replay: b\n", 3, ["rule 1", "'replay'", "unknown key", "reply"]),
        ("rules:\n- when:\n    contain: a\n  reply: b\n", 3, ["'when.contain'", "contains"]),
        ("- reply: a\n- reply: b\n  echo: true\n", 2, ["rule 2", "either 'reply' or 'echo'"]),
        ("- when: {text: a}\n", 1, ["rule 1", "no answer"]),
        ("- when: {matches: '('}\n  reply: a\n", 1, ["when.matches", "regular expression"]),
        ("- when: {matches: 'a(b)'}\n  reply: '{2}'\n", 1, ["{2}", "1 group"]),
        ("- reply: '{1}'\n", 1, ["{1}", "when.matches"]),
        ("- error:\n    status: 200\n", 2, ["error.status", "400"]),
        ("- reply: a\n  then: {reply: b}\n", 1, ["'then'", "'tool'"]),
        ("- tool: {name: a}\n  then:\n    tool: {nam: b}\n", 3, ["then.tool", "unknown key"]),
        ("- sequence: [{reply: a}]\n  reply: b\n", 1, ["either 'sequence'"]),
        ("- sequence: [{delay_s: 1}]\n", 1, ["is empty"]),
        ("- reply: a\n  tokens_per_s: 0\n", 2, ["tokens_per_s", "greater than 0"]),
        ("default: {repl: a}\n", 1, ["default.repl", "unknown key"]),
        ("rulez: []\n", 1, ["rulez", "rules, default"]),
        ("rules: [\n", 2, ["not YAML"]),
    ],
)
def test_errors_name_file_line_and_rule(tmp_path: Path, text: Any, line: Any, words: Any) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_script(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: "), message
    assert all(word in message for word in words), message


def test_inline_rules_are_named_by_their_place() -> None:
    with pytest.raises(ConfigError, match=r"^agent 'boss', gateway.script: rule 1: .*no answer"):
        load_script([{"when": {"text": "a"}}], where="agent 'boss', gateway.script")


@pytest.mark.parametrize("text", ["just words", "42", ""])
def test_a_file_that_is_no_script(tmp_path: Path, text: Any) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="a script is a list of rules"):
        load_script(path)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: the gateway's script cannot be read"):
        load_script(tmp_path / "nowhere.yaml")
