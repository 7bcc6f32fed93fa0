"""Screen rules: what is known of a program's screen, as data.

One TOML file a program and range of versions. A rule names a region of the screen and a pattern, and what it means when
the pattern is found there: a dialog of some kind, or a state. Rules are asked only where the program reports nothing
better. The files lie beside this module; a file of the user's own goes before them.
"""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator_lab.agents.menu import question, read_menu
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["NO_RULES", "Rule", "ScreenRules", "choose", "load", "load_file", "matching", "region"]

_REGION = re.compile(r"whole|title|question|options|input|below input|last [1-9]\d{0,2}")
_NUMBERS = re.compile(r"\d+")


def _pattern(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return re.compile(value, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error


Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Answers(_Model):
    """Which of a program's options mean ``allow`` and ``deny``; of several, the first that fits."""

    allow: Pattern = re.compile(r"(?i)^(?:yes|allow|approve|accept)\b(?!.*(?:always|again|all\b|session|every))")
    deny: Pattern = re.compile(r"(?i)^(?:no|deny|reject|decline)\b")
    #: Whether the digit before an option chooses it, whatever the cursor stands on (measured with the program).
    by_number: bool = False


class Rule(_Model):
    """What a pattern in a region means.

    Parameters
    ----------
    name : str
        Named in the journal and by ``explain``.
    region : str
        ``whole``, ``last N`` (lines that are not empty), ``question`` (what stands above a menu, and its options),
        ``options``, ``input`` (the input line), ``below input``, ``title``.
    pattern : str
        Regular expression that must be found there; ``^`` and ``$`` are a line's ends.
    unless : str, optional
        Regular expression that must not be found there.
    menu : bool
        Whether a menu must be in sight.
    at_start : bool
        True: only while the program starts.
    dialog : str, optional
        Kind of dialog that it is.
    state : str, optional
        State that it is.
    subject : str
        What the dialog is about; the line with the pattern when left out.
    own_folder : str, optional
        The option to choose when the lab itself made the agent's work folder.
    """

    name: str
    region: str
    pattern: Pattern
    unless: Pattern | None = None
    menu: bool = False
    at_start: bool = False
    dialog: Literal["permission", "trust", "choice", "login", "update", "limit"] | None = None
    state: Literal["busy", "idle"] | None = None
    subject: str = ""
    own_folder: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not _REGION.fullmatch(self.region):
            raise ValueError(
                f"{self.region!r} is no region; use whole, last N, question, options, input, below input or title"
            )
        if (self.dialog is None) == (self.state is None):
            raise ValueError("a rule means either a 'dialog' or a 'state'")
        return self


class ScreenRules(_Model):
    """The rules of one program, for a range of its versions.

    Parameters
    ----------
    kind : str
        The agents' kind.
    measured : str
        Version with which they were measured.
    since, below : str
        The versions that they are for: from the first on, up to and without the second.
    answers : Answers
        Its words for ``allow`` and ``deny``.
    layout : mapping of str to pattern
        What the kind's own code needs to find the input line.
    rules : list of Rule
        In order; the first that fits counts.
    """

    kind: str
    measured: str = ""
    since: str = "0"
    below: str = ""
    answers: Answers = Answers()
    layout: dict[str, Pattern] = Field(default_factory=dict)
    rules: list[Rule] = Field(default_factory=list, alias="rule")
    #: Where they come from.
    file: str = ""

    def fits(self, version: str) -> bool:
        """Tell whether they are for a version.

        Examples
        --------
        >>> ScreenRules(kind="x", since="2.0", below="2.2").fits("2.1.197")
        True
        """
        return _key(self.since) <= _key(version) and not (self.below and _key(version) >= _key(self.below))


NO_RULES = ScreenRules(kind="")


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _NUMBERS.findall(version)[:4])


def load_file(path: Path, kind: str) -> ScreenRules:
    """Read a file of rules.

    Parameters
    ----------
    path : Path
        A TOML file.
    kind : str
        Kind of the agents that it is for.

    Raises
    ------
    ConfigError
        When it cannot be read, or says something that no rule can say.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"screen rules {path}: cannot be read: {error}") from error
    return _parse(text, str(path), kind)


def _parse(text: str, file: str, kind: str | None = None) -> ScreenRules:
    try:
        facts: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"screen rules {file}: {error}") from error
    try:
        return ScreenRules.model_validate({"kind": kind, **facts, "file": file} if kind else {**facts, "file": file})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"screen rules {file}: {place}: {first['msg'].removeprefix('Value error, ')}") from error


@functools.cache
def load() -> tuple[ScreenRules, ...]:
    """Return the rules that the package has, newest first; read and checked once.

    Examples
    --------
    >>> sorted({one.kind for one in load()})
    ['claude', 'codex']
    """
    folder = resources.files(__name__)
    found = [
        _parse(file.read_text(encoding="utf-8"), file.name) for file in folder.iterdir() if file.name.endswith(".toml")
    ]
    return tuple(sorted(found, key=lambda one: (one.kind, _key(one.since)), reverse=True))


@functools.cache
def choose(kind: str, version: str | None = None) -> tuple[ScreenRules, str | None]:
    """Return the rules for a program, and what is to be said about the choice.

    Parameters
    ----------
    kind : str
        Kind of the agent.
    version : str, optional
        The program's version; the newest rules when nobody knows.

    Returns
    -------
    ScreenRules
        :data:`NO_RULES` for a kind without any.
    str or None
        A sentence when no rules are for this very version.

    Examples
    --------
    >>> choose("claude", "2.1.197")[0].kind
    'claude'
    >>> print(choose("claude", "99.0")[1])
    screen rules: claude 99.0 is newer than the versions that they were measured with (2.1.197); its questions may not be recognised
    """  # noqa: E501 - the sentence is one
    known = [one for one in load() if one.kind == kind]
    if not known:
        return NO_RULES, None
    if version is None or not _NUMBERS.search(version):
        return known[0], None
    fitting = next((one for one in known if one.fits(version)), None)
    if fitting is not None:
        return fitting, None
    newer = _key(version) >= _key(known[0].since)
    chosen = known[0] if newer else known[-1]
    return chosen, (
        f"screen rules: {kind} {version} is {'newer' if newer else 'older'} than the versions that they were measured "
        f"with ({chosen.measured}); its questions may not be recognised"
    )


def region(name: str, screen: str, *, title: str = "", parts: Mapping[str, str] | None = None) -> str:
    r"""Return the text of a region of a screen.

    Parameters
    ----------
    name : str
        See :class:`Rule`.
    screen : str
        A capture without escapes.
    title : str
        The pane's title.
    parts : mapping, optional
        ``input`` and ``below input``, as the kind's own code finds them.

    Returns
    -------
    str
        Empty when there is no such region on this screen.

    Examples
    --------
    >>> region("last 2", "one\n\ntwo\nthree\n\n")
    'two\nthree'
    """
    if name == "whole":
        return screen
    if name == "title":
        return title
    if name in {"input", "below input"}:
        return (parts or {}).get(name, "")
    if name == "options":
        menu = read_menu(screen)
        return "\n".join(menu.options) if menu is not None else ""
    if name == "question":
        return question(screen)
    count = int(name.removeprefix("last "))
    return "\n".join([line for line in screen.splitlines() if line.strip()][-count:])


def matching(
    rules: ScreenRules,
    screen: str,
    *,
    starting: bool,
    title: str = "",
    parts: Mapping[str, str] | None = None,
) -> list[tuple[Rule, str]]:
    """Return the rules that fit a screen, in order, each with the line in which its pattern was found.

    Parameters
    ----------
    rules : ScreenRules
        Of its program.
    screen : str
        A capture without escapes.
    starting : bool
        Whether the program starts.
    title, parts
        As for :func:`region`.
    """
    menu = read_menu(screen) is not None
    found = []
    for rule in rules.rules:
        if (rule.menu and not menu) or (rule.at_start and not starting):
            continue
        text = region(rule.region, screen, title=title, parts=parts)
        hit = rule.pattern.search(text)
        if hit is None or (rule.unless is not None and rule.unless.search(text)):
            continue
        begin, end = text.rfind("\n", 0, hit.start()) + 1, text.find("\n", hit.end())
        found.append((rule, text[begin : end if end >= 0 else len(text)].strip()))
    return found
