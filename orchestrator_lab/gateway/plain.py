"""Requests in their plain form: what is the same when the same is asked again, on another day and another machine.

Two things are made of a request. What was *spoken* (see :mod:`orchestrator_lab.gateway.spoken`) finds its recording;
what stands around it, the *setting*, is compared once the recording is found. In both, ids and the cluster's own places
are replaced by words in angle brackets. Instants and durations are replaced only where programs write them, in results
of tools and in system prompts, never in what somebody said.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from orchestrator_lab.gateway.spoken import Line, setting_of, spoken_of
from orchestrator_lab.gateway.translate import names_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["IDS", "Places", "Plain", "PlainForm", "difference"]

#: Ids that the lab, the programs and the providers make anew each time.
IDS = re.compile(
    r"\b[a-z]{2,9}_(?=[a-z]*[0-9])[0-9a-hjkmnp-tv-z]{26}\b"  # a ULID behind its prefix: the lab's, and its gateway's
    r"|\b(?:[a-z]{2,9}_)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    r"|\b(?:toolu|call|msg|req|resp|fc|srvtoolu)_(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}\b"
)
#: Where programs tell of ids that have no form of their own: Codex of a command that goes on, Claude Code of one in the
#: background. From there on they are ids wherever they stand.
_BORN = re.compile(
    r"(?:\bProcess running with session ID |\brunning in background with ID: )(?P<id>[A-Za-z0-9]{3,40})\b"
)
#: What stands in the place of a secret.
_STARS = re.compile(r"\*{8,}")
_MONTHS = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
#: What programs write of moments, of how long something took, and of the machine.
_MOMENTS = [
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<moment>"),
    (re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\w*,? [^\n]{0,24}\d\d:\d\d(?::\d\d)?(?: [AP]M)?(?: \w{3,5})?"
                r"(?: \d{4})?"), "<moment>"),
    # ... as `ls -l` writes them
    (re.compile(rf"\b(?:{_MONTHS} {{1,2}}\d{{1,2}}|\d{{1,2}} {_MONTHS}) +(?:\d\d:\d\d|\d{{4}})(?![:\d])"), "<moment>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "<day>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:\.\d+)?\b"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(?:ms|s|sec|secs|seconds?)\b"), "<duration>"),
    (re.compile(r"\bChunk ID: [0-9a-f]+"), "Chunk ID: <id>"),  # Codex's, of a command's output
    (re.compile(r"\b(?:127\.0\.0\.1|localhost):\d+"), "<address>"),
]  # fmt: skip
#: Lines of system prompts that tell of the machine and of the work folder's history, not of the task.
_MACHINE = [
    # In a repository Claude Code tells of it at the end, and remembers things by its root, not by the work folder.
    (re.compile(r"\n*^gitStatus: (?:.*\n)*?Recent commits:\n(?:[0-9a-f]{7,40} .*\n?)*", re.MULTILINE), ""),
    (re.compile(r"(?<=/claude/projects/)[^/\s]+(?=/memory/)"), "<work-slug>"),
    (
        re.compile(
            r"^( *- )?(OS Version|Platform|Shell|Is (a git repository|directory a git repo)): .*$", re.MULTILINE
        ),
        "",
    ),
    (re.compile(r"^(Current branch|Main branch[^:\n]*|Git user): .*$", re.MULTILINE), ""),
    # Codex names the folders that it may write to in the order of their paths.
    (re.compile(r"^ The writable roots? .*$", re.MULTILINE), ""),
    (re.compile(r"^Status:\n.*?^Recent commits:\n(?:[0-9a-f]{7,40} .*\n?)*", re.MULTILINE | re.DOTALL), ""),
]
#: Lines of which the plain form is remembered.
_REMEMBERED = 200_000
#: Where long rows are cut, so that a difference shows the sentence and not the page that it stands in.
_LONG, _SENTENCES = 200, re.compile(r"(?<=[.!?;:,]) +")
#: Characters of a difference that are shown.
_SHOWN = 6000
#: Shorter places are no places of the cluster's own, and would be found everywhere.
_SHORTEST = 4


class Places:
    """The cluster's own places, by a word for each.

    Parameters
    ----------
    named : mapping of str to str
        ``work``, ``agent``, ``home``, …: absolute paths.

    Examples
    --------
    >>> places = Places({"work": "/home/ada/project", "home": "/home/ada"})
    >>> places.plain("see /home/ada/project/a.txt and -home-ada-project")
    'see <work>/a.txt and <work-slug>'
    >>> places.moves(Places({"work": "/srv/w", "home": "/root"}))["/home/ada/project"]
    '/srv/w'
    """

    def __init__(self, named: Mapping[str, str]) -> None:
        self.named = {name: path.rstrip("/") for name, path in named.items() if len(path.rstrip("/")) >= _SHORTEST}
        words: dict[str, str] = {}
        for name, path in self.named.items():
            words.setdefault(path, f"<{name}>")
            # Claude Code names folders of its own after the work folder.
            words.setdefault(_slug(path), f"<{name}-slug>")
        self._words = words
        self._pattern = names_pattern(words)

    def plain(self, text: str) -> str:
        """Return a text with words for the places."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._words[found[0]], text)

    def moves(self, other: Places) -> dict[str, str]:
        """Return where each place is in another cluster, for those that are elsewhere."""
        found: dict[str, str] = {}
        for name, path in self.named.items():
            there = other.named.get(name)
            if there is not None and there != path:
                found.setdefault(path, there)
                found.setdefault(_slug(path), _slug(there))
        return found


def _slug(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "-", path)


@dataclass(frozen=True, slots=True)
class Plain:
    """A request in its plain form.

    Parameters
    ----------
    spoken : tuple of Line
        The conversation.
    setting : tuple of Line
        Model, system prompt, tools and form of the answer.
    ids : tuple of str
        Ids in the conversation, in the order in which they are first seen.
    key : str
        Digest of `spoken` and of what the request is for.
    """

    spoken: tuple[Line, ...]
    setting: tuple[Line, ...]
    ids: tuple[str, ...] = field(compare=False)
    key: str


class PlainForm:
    """Brings the requests of one agent into their plain form; what it has read before it does not read again.

    Parameters
    ----------
    places : Places
        Of the cluster in which the requests are made.
    mask : callable
        Replaces the known secrets in a text by asterisks; those of a recording are masked already.

    Examples
    --------
    >>> form = PlainForm(Places({}))
    >>> def ask(text):
    ...     return form.of("/v1/messages", {"messages": [{"role": "user", "content": text}]}, "main")
    >>> first, second = (f"From ada (msg_01m8m33s40aa9r6p1j99ncsrr{end}): hello" for end in "sz")
    >>> ask(first).key == ask(second).key, ask(first).key == ask("hello").key
    (True, False)
    """

    def __init__(self, places: Places, mask: Callable[[str], str] = str) -> None:
        self.places = places
        self._mask = mask
        #: Lines as they are said, and what they become but for the numbers of their ids.
        self._known: dict[Line, _Form] = {}

    def of(self, path: str, body: object, purpose: str | None) -> Plain:
        """Return a request in its plain form.

        Parameters
        ----------
        path : str
            Its path; the end names the API.
        body : object
            The JSON body; one that is no conversation is taken as a whole.
        purpose : str or None
            What it is for.

        Returns
        -------
        Plain
            Equal for requests that ask the same.
        """
        said, around = _lines(path, body)
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        ids: dict[str, str] = {}
        born: dict[str, None] = {}
        spoken = tuple(self._numbered(line, ids, born) for line in said)
        setting = tuple(self._form(line, setting=True).line for line in around)
        digest = hashlib.sha256(json.dumps([path.rsplit("/", 1)[-1], purpose, _answer_form(around)]).encode())
        for line in spoken:
            digest.update(f"{line.who}\0{line.text}\0".encode("utf-8", "surrogatepass"))
        return Plain(spoken, setting, tuple(ids), digest.hexdigest()[:32])

    def _numbered(self, line: Line, ids: dict[str, str], born: dict[str, None]) -> Line:
        form = self._form(line)
        born |= dict.fromkeys(form.born)
        text = form.line.text
        told = tuple(one for one in born if one in text)
        if not form.ids and not told:
            return form.line
        pattern = _ids_with(told) if told else IDS
        for found in pattern.finditer(text):
            ids.setdefault(found[0], f"<id {len(ids) + 1}>")
        return Line(line.who, pattern.sub(lambda found: ids[found[0]], text))

    def _form(self, line: Line, *, setting: bool = False) -> _Form:
        key = Line(f"{line.who} of the setting", line.text) if setting else line
        known = self._known.get(key)
        if known is None:
            # Whoever replays has other secrets, of another length.
            text = _STARS.sub("<secret>", self.places.plain(self._mask(line.text)))
            if setting:
                # What is left out at the end may leave empty lines.
                text = _without(IDS.sub("<id>", text), [*_MOMENTS, *_MACHINE]).rstrip()
            elif line.who.endswith("result"):
                text = _without(text, _MOMENTS)
            born = tuple(found["id"] for found in _BORN.finditer(text)) if line.who.endswith("result") else ()
            plain = line if text == line.text else Line(line.who, text)
            known = self._known[key] = _Form(plain, not setting and IDS.search(text) is not None, born)
        return known


class _Form(NamedTuple):
    """A line in its plain form, but for the numbers of the ids in it."""

    line: Line
    #: Whether there are ids in it that are known by their form.
    ids: bool
    #: Ids of which it tells first.
    born: tuple[str, ...]


@lru_cache(256)
def _ids_with(told: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of ids, with some that have no form of their own."""
    own = names_pattern(told)
    return IDS if own is None else re.compile(f"{own.pattern}|{IDS.pattern}")


def _answer_form(setting: Iterable[Line]) -> list[str]:
    return [line.text for line in setting if line.who == "form"]


def _lines(path: str, body: object) -> tuple[list[Line], list[Line]]:
    if isinstance(body, dict):
        try:
            return spoken_of(path, body), setting_of(path, body)
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # no request of an API that is known: it is compared as a whole
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, sort_keys=True)
    return [Line("request", text)], []


def _without(text: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, word in patterns:
        text = pattern.sub(word, text)
    return text


def difference(recorded: Iterable[Line], asked: Iterable[Line]) -> str:
    r"""Return where two requests differ, as a unified diff of their plain forms.

    Parameters
    ----------
    recorded, asked : iterable of Line
        What the recording holds, and what was asked instead.

    Returns
    -------
    str
        Empty when there is no difference; the end is cut off where it is very long.

    Examples
    --------
    >>> print(difference([Line("user", "add 2 and 2")], [Line("user", "add 2 and 3")]))
    --- recorded
    +++ asked
    @@ -1 +1 @@
    -user: add 2 and 2
    +user: add 2 and 3
    """
    was, now = ([row for who, text in lines for row in _rows(who, text)] for lines in (recorded, asked))
    text = "\n".join(difflib.unified_diff(was, now, "recorded", "asked", n=1, lineterm=""))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[{len(text) - _SHOWN} more characters]"


def _rows(who: str, text: str) -> list[str]:
    rows = [piece for row in text.split("\n") for piece in (_SENTENCES.split(row) if len(row) > _LONG else [row])]
    return [f"{who}: {rows[0]}", *(f"    {row}" for row in rows[1:])]
