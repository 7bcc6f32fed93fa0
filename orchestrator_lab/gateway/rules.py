r"""The rules of a scripted model: their format, and reading them with errors that name the line.

A script is a YAML file (or the same as a list or mapping in ``cluster.yaml``)::

    rules:
      - when: {matches: "^ask (\\w+) to (.*)"}    # take this rule when …
        tool:                                     # … and answer with a tool call
          name: mcp__orchestrator-lab__send_message
          input: {to: "{1}", text: "{2}"}
        then: {reply: "I have asked {1}."}        # … and its result with this
      - when: {contains: weather}
        times: 1                                  # for the first such request only
        error: {status: 529, type: overloaded_error, message: Busy.}
      - when: {contains: count}
        sequence: [{reply: one}, {reply: two}, {reply: three}]
    default: {reply: "You said: {text}", tokens_per_s: 40}

The first rule whose conditions all hold answers; then ``default``; a plain list is a list of rules.
Without a default, a text that no rule matches is answered with an error of the API that says so,
and a tool result with "Done.".

==================  ================================================================================
``when``            condition (all given ones must hold; none: always)
==================  ================================================================================
``text``            the user's last text equals this (white space around both aside)
``contains``        the user's last text contains this (or all of these)
``matches``         this regular expression is found in the user's last text (``re.search``, ``.``
                    matches newlines)
``agent``           the agent's name is this (or one of these)
``sender``          the message's sender, by the lab's header line, is this (or one of these)
``tool_result``     true, a tool's name, or a list of names (``-`` and ``_`` are the same in it): the
                    request ends with the result of (such) a tool; without it a rule matches only
                    requests that end with a text of the user
``result_contains`` a tool result contains this
``turn``            the conversation holds this many texts of the user, this one included (or one
                    of these numbers)
``purpose``         ``main`` (default), or what the program asks on the side: ``title``, ``probe``,
                    ``suggestion``, ``compact``, ``web_search``, ``subagent``, ``side``; those that
                    no rule names get a built-in answer
==================  ================================================================================

==================  ================================================================================
rule                meaning
==================  ================================================================================
``name``            shown in the journal and in errors
``when``            conditions, as above
``times``           the rule answers so many requests, then never again
``sequence``        answers given one after the other
``after``           what follows the last one of ``sequence``: ``last`` (default: it is given again
                    and again), ``cycle`` (from the start), ``skip`` (the rule matches no longer)
(an answer's keys)  a rule without ``sequence`` holds its answer itself
==================  ================================================================================

==================  ================================================================================
answer              meaning
==================  ================================================================================
``reply``           text, a template
``echo``            true: the user's text itself (to a tool's result: the result's text)
``tool``            ``{name, input}`` or a list of them: tool calls, after ``reply`` if there is one
                    (``mcp__SERVER__TOOL`` names an MCP tool for every program);
                    strings anywhere in ``input`` are templates
``then``            the answer to the results of this answer's tool calls; may have ``tool`` and
                    ``then`` of its own
``delay_s``         wait before the first byte, in seconds
``chunk``           characters in one streamed piece
``tokens_per_s``    pace of the stream (a token: 4 UTF-8 bytes)
``error``           ``{status, type, message, retry, retry_after_s, headers, fields}``: an error of
                    the API instead (``retry: false`` tells the client not to try again; ``headers``
                    are sent as they are, ``fields`` are further keys of the error's object)
==================  ================================================================================

==================  ================================================================================
template            becomes
==================  ================================================================================
``{1}``, ``{2}`` …  groups of ``matches`` (``{0}`` the whole match; named groups by name)
``{agent}``         the agent's name
``{text}``          the user's last text, without the lab's header line
``{prompt}``        the same with it
``{sender}`` …      what the header line says (``message_id``, …); "" when there is none
``{n}``             how many requests the script has answered for this agent, this one included
``{turn}``          how many texts of the user the conversation holds
``{tool_result}``   text of the tool results; ``{tool}`` is the name of the first one's tool
``{{word}}``        ``{word}`` itself; any other braces stay as they are
==================  ================================================================================
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from orchestrator_lab.errors import ConfigError

__all__ = ["Answer", "ErrorAnswer", "Rule", "Script", "ToolAnswer", "When", "load_script"]


def _listed(value: object) -> object:
    return value if isinstance(value, list) or value is None else [value]


Words = Annotated[list[str], BeforeValidator(_listed)]
Numbers = Annotated[list[int], BeforeValidator(_listed)]
Purpose = Literal["main", "title", "probe", "suggestion", "compact", "web_search", "subagent", "side"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class When(_Strict):
    """The conditions of a rule; the module's first table describes each."""

    text: str | None = None
    contains: Words | None = None
    matches: re.Pattern[str] | None = None
    agent: Words | None = None
    sender: Words | None = None
    tool_result: StrictBool | Words | None = None
    result_contains: str | None = None
    turn: Numbers | None = None
    purpose: Purpose = "main"

    @field_validator("matches", mode="before")
    @classmethod
    def _compile(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return re.compile(value, re.DOTALL)
        except re.error as problem:
            message = f"not a regular expression: {problem}"
            raise ValueError(message) from problem


class ToolAnswer(_Strict):
    """A tool call of an answer."""

    name: str = Field(min_length=1)
    input: dict[str, Any] = {}


class ErrorAnswer(_Strict):
    """An error as an answer."""

    status: int = Field(ge=400, le=599)
    type: str = "api_error"
    message: str = "The script answered with this error."
    retry: bool | None = None
    retry_after_s: float | None = Field(default=None, ge=0)
    headers: dict[str, str] = {}
    fields: dict[str, Any] = {}


class Answer(_Strict):
    """One answer; the module's third table describes each key."""

    reply: str | None = None
    echo: bool = False
    tool: Annotated[list[ToolAnswer], BeforeValidator(_listed)] = []
    then: Answer | None = None
    delay_s: float = Field(default=0.0, ge=0)
    chunk: int | None = Field(default=None, ge=1)
    tokens_per_s: float | None = Field(default=None, gt=0)
    error: ErrorAnswer | None = None

    def says_something(self) -> bool:
        """Tell whether there is anything to answer with."""
        return self.reply is not None or self.echo or bool(self.tool) or self.error is not None

    @model_validator(mode="after")
    def _consistent(self) -> Answer:
        if self.reply is not None and self.echo:
            message = "give either 'reply' or 'echo'"
            raise ValueError(message)
        if self.error is not None and (self.reply is not None or self.echo or self.tool):
            message = "'error' stands alone: it is answered instead of a reply"
            raise ValueError(message)
        if self.then is not None and not self.tool:
            message = "'then' answers a tool's result: give 'tool' too"
            raise ValueError(message)
        return self


class Rule(Answer):
    """A rule: conditions and answers."""

    name: str | None = None
    when: When = When()
    times: int | None = Field(default=None, ge=1)
    sequence: list[Answer] | None = Field(default=None, min_length=1)
    after: Literal["last", "cycle", "skip"] = "last"

    @model_validator(mode="after")
    def _answers(self) -> Rule:
        if self.sequence is not None and self.says_something():
            message = "give either 'sequence' or an answer ('reply', 'echo', 'tool', 'error')"
            raise ValueError(message)
        if self.sequence is None and not self.says_something():
            message = "no answer: give 'reply', 'echo', 'tool', 'error' or 'sequence'"
            raise ValueError(message)
        for answer in self.sequence or ():
            if not answer.says_something():
                message = "an answer of 'sequence' is empty: give 'reply', 'echo', 'tool' or 'error'"
                raise ValueError(message)
        groups = self.when.matches.groups if self.when.matches else None
        for number in _group_numbers(self):
            if groups is None:
                message = f"{{{number}}} needs 'when.matches', whose group {number} it would be"
                raise ValueError(message)
            if number > groups:
                message = f"{{{number}}}: 'when.matches' has {groups} group(s) only"
                raise ValueError(message)
        return self


class Script(_Strict):
    """A whole script."""

    rules: list[Rule] = []
    default: Answer | None = None


def _group_numbers(answer: Answer) -> set[int]:
    """Return the numbers of the groups that an answer's templates ask for."""
    texts: list[str] = [answer.reply or ""]

    def collect(value: object) -> None:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            for part in value.values():
                collect(part)
        elif isinstance(value, list):
            for part in value:
                collect(part)

    for tool in answer.tool:
        collect(tool.input)
    found = {int(n) for text in texts for n in re.findall(r"(?<!\{)\{(\d)\}(?!\})", text)}
    parts = [answer.then] if answer.then else []
    if isinstance(answer, Rule):
        parts += answer.sequence or []
    return found.union(*map(_group_numbers, parts))


def load_script(source: str | Path | list[Any] | dict[str, Any], *, where: str = "script") -> Script:
    """Read and check a script.

    Parameters
    ----------
    source : str, Path, list or dict
        A YAML file's path, or the rules themselves.
    where : str
        How errors call rules that do not come from a file.

    Returns
    -------
    Script
        The checked script.

    Raises
    ------
    ConfigError
        Naming file, line and rule when a rule is wrong, or when the file cannot be read.

    Examples
    --------
    >>> load_script([{"when": {"contains": "hi"}, "reply": "Hello, {sender}."}]).rules[0].reply
    'Hello, {sender}.'
    """
    lines: dict[tuple[Any, ...], int] = {}
    data: Any = source
    if isinstance(source, str | Path):
        where = str(source)
        data, lines = _read(Path(source))
    listed = isinstance(data, list)
    if listed:
        data = {"rules": data}
    if not isinstance(data, dict):
        msg = f"{where}: a script is a list of rules, or a mapping with 'rules' and 'default'"
        raise ConfigError(msg, file=where)
    try:
        return Script.model_validate(data)
    except ValidationError as problem:
        raise _explain(problem, where, lines, listed=listed) from None


def _read(path: Path) -> tuple[Any, dict[tuple[Any, ...], int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        msg = f"{path}: the gateway's script cannot be read ({reason}); give the path of a YAML file"
        raise ConfigError(msg, file=str(path)) from problem
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        reason = getattr(problem, "problem", None) or str(problem)
        msg = f"{path}, line {line}: not YAML: {reason}"
        raise ConfigError(msg, file=str(path), line=line) from problem
    lines: dict[tuple[Any, ...], int] = {}

    def walk(part: yaml.Node, place: tuple[Any, ...]) -> None:
        lines.setdefault(place, part.start_mark.line + 1)
        if isinstance(part, yaml.MappingNode):
            for key, value in part.value:
                lines[(*place, key.value)] = key.start_mark.line + 1
                walk(value, (*place, key.value))
        elif isinstance(part, yaml.SequenceNode):
            for index, value in enumerate(part.value):
                walk(value, (*place, index))

    if node is not None:
        walk(node, ())
    return data, lines


def _explain(problem: ValidationError, where: str, lines: dict[tuple[Any, ...], int], *, listed: bool) -> ConfigError:
    """Turn pydantic's first complaint into one sentence with file, line and rule."""
    errors = problem.errors(include_url=False)
    # A mistyped key is also reported as a missing one: the typing error is what helps.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = tuple(first["loc"])
    # Pydantic adds the names of union members to the place; they are in no file.
    place = tuple(p for p in place if not (isinstance(p, str) and ("[" in p or p == "bool")))
    in_file = place[1:] if listed else place
    line = None
    for end in range(len(in_file), -1, -1):
        line = lines.get(in_file[:end])
        if line is not None:
            break
    spot = f"{where}, line {line}" if line is not None else where
    rule = ""
    if len(place) >= 2 and place[0] == "rules":
        rule = f"rule {int(place[1]) + 1}"
        place = place[2:]
    key = ".".join(str(p) for p in place)
    name = " ".join(part for part in (rule, f"key '{key}'" if key else "") if part)
    sentence = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _known(place) if rule or len(place) > 1 else ", ".join(Script.model_fields)
        sentence = f"unknown key; known are {known}"
    text = ": ".join(part for part in (spot, name, sentence) if part)
    return ConfigError(text, file=where, line=line, key=key, rule=rule)


def _known(place: tuple[Any, ...]) -> str:
    parents = [p for p in place[:-1] if isinstance(p, str)]
    model: type[BaseModel] = Rule if len(place) == 1 else Answer
    if parents:
        named: dict[str, type[BaseModel]] = {
            "when": When,
            "tool": ToolAnswer,
            "error": ErrorAnswer,
        }
        model = named.get(parents[-1], Answer)
    return ", ".join(model.model_fields)
