"""Whether a policy answers a request for permission, and by which rule. Pure: no process, no clock.

A rule is ``TOOL`` or ``TOOL(PATTERN)``. A pattern is compared with what the tool is about to touch: the command, the
path or the address in its input. Two things make an *allow* harder to get than a *deny*:

- A shell command is taken apart at its operators. It is allowed only when each of its commands is, and never by a
  pattern when it holds what a pattern cannot judge: substitutions, redirections, open quotes.
- A path is compared after ``..`` is resolved.

``deny`` wins over ``allow``, and one denied command denies the whole line.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from orchestrator_lab.config import tool_rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator_lab.config import DialogPolicy

__all__ = ["Touched", "Verdict", "commands", "decide", "touched"]

_COMMANDS = ("command", "cmd")
_PATHS = ("file_path", "path", "notebook_path")
_OTHERS = ("url", "uri", "query")
#: The line of a patch that names a file.
_PATCHED = re.compile(r"^\*\*\* (?:Add|Update|Delete) File: (.+)$|^\*\*\* Move to: (.+)$", re.MULTILINE)
#: Shells whose ``-c`` argument is the command that counts.
_SHELL = re.compile(r"(?:.*/)?(?:ba|da|z|k)?sh")
#: What may stand before a command and does not hide it from a denial: variables, keywords, wrappers.
_BEFORE = re.compile(
    r"^(?:(?:[A-Za-z_]\w*=\S*|!|if|then|elif|else|while|until|do|time|exec|command|builtin|env|nohup|nice|sudo)\s+)+"
)
#: Where a line is cut that cannot be read for sure, so that a denied command is found in it all the same.
_ANY_OPERATOR = re.compile(r"[;&|\n(){}`<>]|\$\(")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says.

    Parameters
    ----------
    decision : {"ask", "allow", "deny"}
        ``ask``: a person decides.
    rule : str or None
        What decided: ``allow: Bash(git *)``, ``deny: Bash(rm *)``, ``default``; None for ``ask`` by default.
    """

    decision: Literal["ask", "allow", "deny"]
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Touched:
    """What a tool is about to touch.

    Parameters
    ----------
    parts : tuple of str
        Commands, paths, addresses; each must be allowed.
    lines : tuple of str
        Whole command lines, which only denials are compared with.
    sure : bool
        False when the parts are guessed: then no pattern allows them.
    """

    parts: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    sure: bool = True

    def __add__(self, other: Touched) -> Touched:
        return Touched(self.parts + other.parts, self.lines + other.lines, self.sure and other.sure)


def commands(line: str) -> tuple[list[str], bool]:
    r"""Take a shell command apart at its operators.

    Parameters
    ----------
    line : str
        What a shell would be given.

    Returns
    -------
    list of str
        Its commands.
    bool
        False when they cannot be told for sure: substitutions, redirections, groups, open quotes, odd escapes.

    Examples
    --------
    >>> commands("git status; rm -rf x && echo 'a;b'")
    (['git status', 'rm -rf x', "echo 'a;b'"], True)
    >>> commands("echo $(rm x)")
    (['echo', 'rm x'], False)
    """
    found: list[str] = []
    part: list[str] = []
    quote = ""
    at = 0
    while at < len(line):
        char = line[at]
        if quote == "'":
            quote = "" if char == "'" else quote
        elif char == "\\":
            if line[at + 1 : at + 2] in {"", "\n", "\r"}:
                return _guess(line), False
            part.append(char)
            at += 1
            char = line[at]
        elif char == "`" or (char == "$" and line[at + 1 : at + 2] in {"(", "{", "'", '"', "["}):
            return _guess(line), False
        elif quote == '"':
            quote = "" if char == '"' else quote
        elif char in {"'", '"'}:
            quote = char
        elif char in "<>(){}\r\0":
            return _guess(line), False
        elif char in ";&|\n":
            found.append("".join(part))
            part = []
            at += 1
            continue
        part.append(char)
        at += 1
    if quote:
        return _guess(line), False
    found.append("".join(part))
    return [one.strip() for one in found if one.strip()], True


def _guess(line: str) -> list[str]:
    """Return what may be commands in a line that cannot be read for sure."""
    return [part.strip() for part in _ANY_OPERATOR.split(line) if part and part.strip()]


def touched(tool: str, tool_input: Any, cwd: str | None = None) -> Touched:  # noqa: ANN401 - any JSON value
    """Return what a tool is about to touch, as its input tells.

    Parameters
    ----------
    tool : str
        Its name.
    tool_input : JSON value
        Its input.
    cwd : str, optional
        Folder that relative paths start from.

    Returns
    -------
    Touched
        Commands, paths and addresses; every text of the input where it names none of these.

    Examples
    --------
    >>> touched("Read", {"file_path": "/srv/../etc/passwd"}).parts
    ('/etc/passwd',)
    """
    found = Touched()
    given: Mapping[str, Any] = tool_input if isinstance(tool_input, dict) else {}
    for name in _COMMANDS:
        if name in given:
            found += _of_command(tool, given[name], cwd)
    for name in _PATHS:
        if name in given:
            found += Touched(tuple(_path(text, cwd) for text in _texts(given[name])))
    for name in _OTHERS:
        if name in given:
            found += Touched(tuple(_texts(given[name])))
    return found if found.parts or found.lines else Touched(tuple(_texts(tool_input)))


def _of_command(tool: str, given: object, cwd: str | None) -> Touched:
    if isinstance(given, list) and all(isinstance(word, str) for word in given):
        words: list[str] = given
        wrapped = len(words) == 3 and _SHELL.fullmatch(words[0]) and re.fullmatch(r"-[a-z]*c", words[1])
        given = words[2] if wrapped else shlex.join(words)
    if not isinstance(given, str):
        return Touched(tuple(_texts(given)), sure=False)
    if tool == "apply_patch":
        files = tuple(_path((one or other).strip(), cwd) for one, other in _PATCHED.findall(given))
        return Touched(files, (given,), sure=bool(files))
    parts, sure = commands(given)
    return Touched(tuple(parts), (given,), sure)


def _path(text: str, cwd: str | None) -> str:
    """Return a path without ``..`` and double slashes, from the root where that is known."""
    return posixpath.normpath(posixpath.join(cwd, text) if cwd else text)


def _texts(value: object) -> list[str]:
    """Return every text in a JSON value."""
    found: list[str] = []
    left: list[object] = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
    return found[::-1]


def decide(
    policy: DialogPolicy,
    tool: str | None,
    tool_input: Any,  # noqa: ANN401 - any JSON value
    cwd: str | None = None,
) -> Verdict:
    """Say what a policy answers to a request for permission.

    Parameters
    ----------
    policy : DialogPolicy
        Of the agent that is asked for.
    tool : str or None
        Name of the tool; None when nobody tells (a question read off a screen).
    tool_input : JSON value
        What the tool is given.
    cwd : str, optional
        Folder that relative paths start from.

    Returns
    -------
    Verdict
        A tool that is not known is allowed by no rule, and not by default either while there are denials.

    Examples
    --------
    >>> from orchestrator_lab.config import DialogPolicy
    >>> policy = DialogPolicy(allow=["Bash(git *)"], deny=["Bash(git push*)"])
    >>> decide(policy, "Bash", {"command": "git status"})
    Verdict(decision='allow', rule='allow: Bash(git *)')
    >>> decide(policy, "Bash", {"command": "git status; rm -rf x"})
    Verdict(decision='ask', rule=None)
    >>> decide(policy, "Bash", {"command": "git status && git push"}).rule
    'deny: Bash(git push*)'
    """
    if tool is None:
        sure = policy.default == "deny" or (policy.default == "allow" and not policy.deny)
        return Verdict(policy.default, "default") if sure else Verdict("ask")
    found = touched(tool, tool_input, cwd)
    for rule in _rules(policy.deny, tool):
        pattern = tool_rule(rule).pattern
        if pattern is None or any(_denied(text, pattern) for text in (*found.parts, *found.lines)):
            return Verdict("deny", f"deny: {rule}")
    if allowing := _allowing(list(_rules(policy.allow, tool)), found):
        return Verdict("allow", f"allow: {allowing}")
    return Verdict(policy.default, None if policy.default == "ask" else "default")


def _rules(rules: list[str], tool: str) -> Iterator[str]:
    return (rule for rule in rules if fnmatchcase(tool, tool_rule(rule).tool))


def _denied(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern) or fnmatchcase(_BEFORE.sub("", text), pattern)


def _allowing(rules: list[str], found: Touched) -> str | None:
    """Return the rules that together allow everything that a tool is about to touch, None when they do not."""
    for rule in rules:
        if tool_rule(rule).pattern in {None, "*"}:
            return rule
    if not found.sure or not found.parts:
        return None
    used: dict[str, None] = {}
    for text in found.parts:
        by = next((rule for rule in rules if fnmatchcase(text, tool_rule(rule).pattern or "*")), None)
        if by is None:
            return None
        used[by] = None
    return ", ".join(used)
