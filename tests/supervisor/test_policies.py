"""What a policy says of a request for permission: pure, so that everything can be tried."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.config import DialogPolicy
from orchestrator_lab.supervisor.policies import Verdict, commands, decide, touched

GIT = DialogPolicy(allow=["Bash(git *)", "Bash(ls*)", "Read(/srv/*)"], deny=["Bash(git push*)", "Read(*secret*)"])


def bash(line: str) -> dict[str, Any]:
    return {"command": line, "description": "git status, says the model"}


@pytest.mark.parametrize(
    ("line", "decision"),
    [
        ("git status", "allow"),
        ("git log; ls -l", "allow"),
        ("git log | ls", "allow"),
        ("git commit -m 'a; b && rm x'", "allow"),
        ('git commit -m "a | b"', "allow"),
        ("git status; rm -rf x", "ask"),
        ("git status && rm -rf x", "ask"),
        ("git status || rm -rf x", "ask"),
        ("git status | sh", "ask"),
        ("git status & rm x", "ask"),
        ("git status\nrm -rf x", "ask"),
        ("git status $(rm x)", "ask"),
        ('git status "$(rm x)"', "ask"),
        ("git status `rm x`", "ask"),
        ("git log > /etc/passwd", "ask"),
        ("git log <(rm x)", "ask"),
        ("git log $'\\n' rm", "ask"),
        ("git log 'open", "ask"),
        ("git log \\\nrm", "ask"),
        ("git log {a,b}", "ask"),
        ("(git log)", "ask"),
        ("rm -rf x", "ask"),
        ("", "ask"),
        ("git push", "deny"),
        ("git status && git push origin", "deny"),
        ("ls; (git push)", "deny"),
        ("ls $(git push)", "deny"),
        ("GIT_DIR=x git push", "deny"),
        ("if true; then git push; fi", "deny"),
        ("sudo git push", "deny"),
    ],
)
def test_commands(line: str, decision: str) -> None:
    assert decide(GIT, "Bash", bash(line)).decision == decision


@pytest.mark.parametrize(
    ("tool", "tool_input", "decision"),
    [
        ("Read", {"file_path": "/srv/a.txt"}, "allow"),
        ("Read", {"file_path": "/srv/../etc/passwd"}, "ask"),
        ("Read", {"file_path": "/srv/sub/../../etc/passwd"}, "ask"),
        ("Read", {"file_path": "/srv//./a"}, "allow"),
        ("Read", {"file_path": "/srv/secret.txt"}, "deny"),
        ("Read", {"file_path": "/srv/a", "path": "/etc/b"}, "ask"),
        ("Read", {}, "ask"),
        ("Read", None, "ask"),
        ("Write", {"file_path": "/srv/a.txt"}, "ask"),
        ("Bash", {"command": ["bash", "-lc", "git status; rm x"]}, "ask"),
        ("Bash", {"command": ["bash", "-lc", "git status"]}, "allow"),
        ("Bash", {"command": ["git", "status; rm x"]}, "allow"),  # one word of an argv, no shell
        ("Bash", {"command": {"odd": "git status"}}, "ask"),
    ],
)
def test_paths_and_odd_inputs(tool: str, tool_input: Any, decision: str) -> None:
    assert decide(GIT, tool, tool_input).decision == decision


def test_rules_are_named() -> None:
    assert decide(GIT, "Bash", bash("git log; ls")) == Verdict("allow", "allow: Bash(git *), Bash(ls*)")
    assert decide(GIT, "Bash", bash("git push")).rule == "deny: Bash(git push*)"
    assert decide(DialogPolicy(default="deny"), "Bash", bash("ls")) == Verdict("deny", "default")
    assert decide(DialogPolicy(), "Bash", bash("ls")) == Verdict("ask")


def test_tools_by_name() -> None:
    policy = DialogPolicy(allow=["Read", "mcp__lab__*", "Bash(*)"], deny=["Web*"])
    assert decide(policy, "Read", {"file_path": "/anything"}).decision == "allow"
    assert decide(policy, "mcp__lab__send", {"to": "x"}).decision == "allow"
    assert decide(policy, "mcp__other__send", {"to": "x"}).decision == "ask"
    assert decide(policy, "WebFetch", {"url": "https://example.org"}).decision == "deny"
    assert decide(policy, "Bash", bash("a; b > c")).decision == "allow"
    fetch = DialogPolicy(allow=["WebFetch(https://example.org/*)"])
    assert decide(fetch, "WebFetch", {"url": "https://example.org/a", "prompt": "p"}).decision == "allow"
    assert decide(fetch, "WebFetch", {"url": "https://evil.org/?https://example.org/"}).decision == "ask"


def test_a_patch_is_known_by_its_files() -> None:
    patch = "*** Begin Patch\n*** Update File: src/a.py\n@@\n+x\n*** Add File: ../b.py\n+y\n*** End Patch"
    assert touched("apply_patch", {"command": patch}, "/srv").parts == ("/srv/src/a.py", "/b.py")
    policy = DialogPolicy(allow=["apply_patch(/srv/*)"])
    assert decide(policy, "apply_patch", {"command": patch}, "/srv").decision == "ask"
    assert decide(policy, "apply_patch", {"command": patch.replace("../b", "b")}, "/srv").decision == "allow"


def test_a_tool_that_nobody_names_is_not_allowed_past_denials() -> None:
    assert decide(DialogPolicy(default="allow"), None, None).decision == "allow"
    assert decide(DialogPolicy(default="allow", deny=["Bash"]), None, None).decision == "ask"
    assert decide(DialogPolicy(allow=["*"]), None, None).decision == "ask"
    assert decide(DialogPolicy(default="deny"), None, None).decision == "deny"


words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(st.lists(words, min_size=1, max_size=5))
def test_quoted_words_are_one_command(argv: list[str]) -> None:
    line = shlex.join(["git", *argv])
    parts, sure = commands(line)
    assert parts == [line.strip()]
    assert sure


@given(st.text(max_size=60), st.sampled_from([";", "&&", "||", "|", "&", "\n", "|&"]))
def test_nothing_rides_on_an_allowed_command(tail: str, operator: str) -> None:
    """Whatever follows an operator is a command of its own, and must be allowed by itself."""
    verdict = decide(DialogPolicy(allow=["Bash(git *)"]), "Bash", {"command": f"git status {operator} rm {tail}"})
    assert verdict.decision == "ask"


@given(st.text(max_size=80))
def test_a_denied_command_is_found_wherever_it_stands(before: str) -> None:
    policy = DialogPolicy(default="allow", deny=["Bash(rm *)"])
    line = f"{before}\nrm -rf x"
    parts, sure = commands(line)
    if sure and not any(part.startswith("rm ") for part in parts):
        assert any("\nrm " in part for part in parts)  # inside quotes, so no command
    elif sure or not before.endswith(("'", '"', "\\")):
        assert decide(policy, "Bash", {"command": line}).decision == "deny"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["command", "path", "x"]), inner),
    max_leaves=8,
)
rules = st.lists(st.sampled_from(["Bash", "Bash(a*)", "*", "*(*)", "Read(/x/*)"]), max_size=3)


@given(st.sampled_from(["Bash", "Read", "apply_patch"]), json_values, rules, rules)
def test_deny_wins_and_nothing_breaks(tool: str, tool_input: Any, allow: list[str], deny: list[str]) -> None:
    policy = DialogPolicy(allow=allow, deny=deny)
    verdict = decide(policy, tool, tool_input)
    if any(rule in {"*", tool} for rule in deny):
        assert verdict.decision == "deny"
    if not allow:
        assert verdict.decision in {"ask", "deny"}
    if verdict.decision == "allow":
        assert decide(DialogPolicy(deny=deny), tool, tool_input).decision == "ask"
