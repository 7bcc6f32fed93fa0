r"""What is private in a text, and what stands in its place.

Each private text gets a substitute of the same width in terminal cells, the same one wherever it comes again:
``/home/ada`` and ``ada@laptop`` become ``/home/u1_`` and ``u1_@h1____``. Keys become asterisks, as where the lab itself
masks them.

Examples
--------
>>> masker = Masker(users=["ada"], hosts=["laptop"])
>>> masker.text("ada@laptop:/home/ada$ mail eve@example.org")
'u1_@h1____:/home/u1_$ mail e1_____________'
>>> masker.text("\x1b[1ma\x1b[0mda")
'\x1b[1mu\x1b[0m1_'
"""

from __future__ import annotations

import contextlib
import fnmatch
import getpass
import json
import os
import re
import socket
import subprocess
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator_lab.bundle.seen import SPACE, Projection, project
from orchestrator_lab.bundle.sieve import Sieve
from orchestrator_lab.config import SECRET_TEXT
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Hit", "Known", "Masker", "home_names", "own_identity"]

#: Words that name many people and much else: masked in home paths, not wherever they stand.
_COMMON = frozenset(
    {
        *("admin", "administrator", "agent", "app", "build", "ci", "claude", "codespace", "codex", "container"),
        *("debian", "default", "dev", "developer", "docker", "ec2-user", "fedora", "gitpod", "guest", "home", "host"),
        *("jovyan", "lab", "local", "localhost", "macbook", "main", "me", "node", "nobody", "orchestrator", "pi"),
        *("root", "runner", "server", "system", "test", "tester", "tmux", "ubuntu", "user", "users", "vagrant", "vm"),
        *("vscode", "worker", "www-data"),
    }
)
_SHORTEST_WORD = 3
#: A text that is cut into pieces on a screen is recognised from this length on.
_SHORTEST_LOOSE = 6

# In front of a word: no letter, or what ends an escape that stands for one (\n, %2F, the m of a colour).
_BEFORE = r"(?:(?<!\w)|(?<=\\[nrtbf])|(?<=%2[Ff])|(?<=[0-9;\[]m))"
_AFTER = r"(?!\w)"
_HOME = re.compile(
    r"(?:(?<![\w.\-])/(?:(?:var|export|usr)\\{0,3}/)?home\\{0,3}/|/Users\\{0,3}/|[A-Za-z]:\\{1,4}Users\\{1,4}"
    r"|%(?:25)*2[Ff](?:home|Users)%(?:25)*2[Ff])"
    r"(?P<hide>[^/\\\s\"'`:;,<>|()\[\]{}*?$%\x00-\x1f]{1,64})"
)
#: What each home path holds, in lower case.
_HOME_MARKS = ("home/", "home\\", "users/", "users\\", "2fhome%", "2fusers%")
_EMAIL = re.compile(
    r"(?:(?<=\\[nrtbf])|(?<![A-Za-z0-9._%+\-\\]))(?P<hide>[A-Za-z0-9._%+-]{1,64}"
    r"(?:@|%40)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9-])"
)
#: What each known form of a key holds, in lower case.
_KEY_MARKS = (
    *("sk-", "sk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "akia", "aiza", "glpat-", "hf_", "eyj"),
    *(f"xox{kind}-" for kind in "abprs"),
)
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?P<hide>.{1,16384}?)-----END [A-Z ]{0,40}-----", re.DOTALL)

_STRING = re.compile(r"\x1b[\]PX^_]([^\x07\x1b]*)(?:\x07|\x1b\\)")


class _Rule(NamedTuple):
    """How one kind of private text is recognised; one of ``needs`` is in every text that holds any, in lower case."""

    pattern: str
    label: str
    expression: re.Pattern[str]
    needs: tuple[str, ...] = ()


class Known(NamedTuple):
    """What is known to be private, white space left out: one of ``marks`` is wherever ``expression`` finds anything.

    ``hits`` are those texts as they were found: text, pattern, label.
    """

    marks: tuple[str, ...]
    expression: re.Pattern[str]
    hits: dict[str, tuple[str, str, str]]

    def hit(self, found: re.Match[str]) -> Hit:
        """Return what the expression found."""
        return Hit(*found.span(), *self.hits[found[0]])


class Hit(NamedTuple):
    """A private text within another one.

    Parameters
    ----------
    start, end : int
        Where it stands.
    text : str
        What it is.
    pattern : str
        What it was recognised by.
    label : str
        What its substitute begins with.
    """

    start: int
    end: int
    text: str
    pattern: str
    label: str


def own_identity() -> tuple[list[str], list[str], list[str]]:
    """Return the user names, host names and full names of this machine's user, also as git knows them."""
    import pwd

    users, names = [Path.home().name], []
    with contextlib.suppress(KeyError, OSError):
        users.append(getpass.getuser())
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(os.getuid())
        users += [entry.pw_name, Path(entry.pw_dir).name]
        names.append(entry.pw_gecos.split(",")[0].strip())
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # Claude Code tells its model whose commits they are
        told = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=5, check=False)  # noqa: S607 - git as the user has it
        names.append(told.stdout.strip())
    host = socket.gethostname()
    return list(dict.fromkeys(users)), list(dict.fromkeys([host, host.split(".")[0]])), [n for n in names if " " in n]


def home_names(text: str) -> list[str]:
    """Return the users in whose homes the paths of a text lie.

    Examples
    --------
    >>> home_names("/home/ada/lab and /Users/eve")
    ['ada', 'eve']
    """
    return list(dict.fromkeys(found["hide"] for found in _HOME.finditer(text)))


class Masker:
    """Finds what is private, and gives each its substitute.

    Parameters
    ----------
    users, hosts, names : iterable of str
        Of people and machines, masked as words wherever they stand. Common words (``user``, ``root``) and those of
        fewer than three letters are passed over and listed in :attr:`passed_over`.
    words : iterable of str
        More texts to be masked, as words.
    patterns : mapping of str to str
        More regular expressions, by a name; a group called ``hide`` says which part is masked.
    keep : iterable of str
        What is not masked though it would be; ``*`` stands for anything.
    public : iterable of str
        Names of the run's own things, such as its agents: no user is recognised by one of these.

    Raises
    ------
    ConfigError
        When an expression is none.
    """

    def __init__(
        self,
        *,
        users: Iterable[str] = (),
        hosts: Iterable[str] = (),
        names: Iterable[str] = (),
        words: Iterable[str] = (),
        patterns: Mapping[str, str] | None = None,
        keep: Iterable[str] = (),
        public: Iterable[str] = (),
    ) -> None:
        #: What was masked, by pattern; :meth:`count` begins a new one.
        self.counts: Counter[str] = Counter()
        #: Each private text with its pattern and substitute, in the order in which they were found.
        self.found: dict[str, tuple[str, str]] = {}
        #: User and host names that are too short or too common to be masked as words.
        self.passed_over: list[str] = []
        self._keep = list(keep)
        self._numbers: Counter[str] = Counter()
        self._folded: dict[str, str] = {}
        common = _COMMON | {word.casefold() for word in public}
        self._rules = [
            _Rule("key", "*", SECRET_TEXT, _KEY_MARKS),
            _Rule("key", "*", _PEM, ("private key",)),
        ]
        literals = {
            "word": _written(words),
            "name": _written(names),
            "user": _written(self._usable(users, common)),
            "host": _written(self._usable(hosts, common)),
        }
        for name, written in (patterns or {}).items():
            try:
                self._rules.append(_Rule(name, "p", re.compile(written)))
            except re.error as error:
                raise ConfigError(
                    f"privacy.patterns.{name}: {written!r} is no regular expression ({error}); see Python's re"
                ) from error
        self._rules += [_Rule("email", "e", _EMAIL, ("@", "%40")), _Rule("home", "u", _HOME, _HOME_MARKS)]
        self._by_name = literals
        for name, texts in literals.items():
            if texts := [text for text in texts if text]:
                # The longest first: one may begin with another.
                either = "|".join(map(re.escape, sorted(set(texts), key=lambda one: (-len(one), one))))
                expression = re.compile(f"{_BEFORE}(?P<hide>{either}){_AFTER}", re.IGNORECASE)
                # Of letters beyond ASCII that have cases it cannot be told by which text each is found.
                plain = all(one.isascii() or one.lower() == one.upper() for text in texts for one in text)
                needs = tuple(sorted({text.lower() for text in texts})) if plain else ()
                self._rules.append(_Rule(name, name[0], expression, needs))
        #: Lets through what may hold anything private; None when that cannot be told without looking.
        self.sieve = Sieve(self._marks) if self._marks else None

    def _usable(self, texts: Iterable[str], common: Iterable[str]) -> list[str]:
        usable = []
        for text in dict.fromkeys(texts):
            if len(text) < _SHORTEST_WORD or text.casefold() in common:
                self.passed_over.append(text)
            else:
                usable.append(text)
        return usable

    @property
    def _marks(self) -> list[str]:
        """One of these is in whatever is private, in some case; none when a pattern has none."""
        if not all(rule.needs for rule in self._rules):
            return []
        return [one for rule in self._rules for one in rule.needs]

    def text(self, text: str) -> str:
        """Return a text with what is private masked, and count it.

        Parameters
        ----------
        text : str
            Any text; escape sequences within a private text stay where they are.

        Returns
        -------
        str
            As wide.
        """
        if "\x1b" not in text:
            hits = self.hits(text)
            if not hits:
                return text
            parts, last = [], 0
            for hit in hits:
                self.counts[hit.pattern] += 1
                parts += [text[last : hit.start], self.substitute(hit)]
                last = hit.end
            return "".join([*parts, text[last:]])
        shown = project(text)
        edits: dict[int, str] = {}
        for hit, place in [*self.within_strings(text), *((one, shown) for one in self.hits(shown.text))]:
            self.note(hit, place, edits)
        if not edits:
            return text
        return "".join(edits.get(number, one) for number, one in enumerate(text))

    def note(self, hit: Hit, shown: Projection, edits: dict[int, str], *, offset: int = 0) -> None:
        """Spread a substitute over the characters that a hit covers.

        Parameters
        ----------
        hit : Hit
            In what is left of a text.
        shown : Projection
            What is left.
        edits : dict of int to str
            Takes the new text of each character, by its place in the whole text.
        offset : int
            Added to each place.
        """
        self.counts[hit.pattern] += 1
        left = self.substitute(hit)
        for place in range(hit.start, hit.end):
            char = shown.text[place]
            if char == "\0":
                continue
            width = _cells(char)
            edits[shown.origin(place) + offset], left = left[:width], left[width:]

    def within_strings(self, text: str) -> Iterator[tuple[Hit, Projection]]:
        """Yield what is private in titles, links and other strings that a program gives its terminal."""
        for found in _STRING.finditer(text):
            inside = Projection(found[1], [0], [found.start(1)])
            for hit in self.hits(found[1]):
                yield hit, inside

    def hits(self, text: str) -> list[Hit]:
        """Return what is private in a text without escape sequences.

        Parameters
        ----------
        text : str
            Any.

        Returns
        -------
        list of Hit
            In order, none over another.
        """
        found: list[Hit] = []
        starts: list[int] = []
        ends: list[int] = []
        lower = text.lower()
        for pattern, label, rule, needs in self._rules:
            if needs and not any(one in lower for one in needs):
                continue
            hide = "hide" in rule.groupindex
            for match in rule.finditer(text):
                start, end = match.span("hide" if hide else 0)
                place = bisect_right(starts, start)
                free = (place == 0 or ends[place - 1] <= start) and (place == len(starts) or end <= starts[place])
                if start >= end or not free:
                    continue
                value = text[start:end]
                starts.insert(place, start)
                ends.insert(place, end)
                if any(fnmatch.fnmatchcase(value, one) for one in self._keep):
                    continue
                found.append(Hit(start, end, value, pattern, label))
        return sorted(found)

    def may(self, text: str) -> bool:
        """Tell whether anything in a text may be private: most texts hold nothing that could be."""
        lower = text.lower()
        return any(not needs or any(one in lower for one in needs) for _, _, _, needs in self._rules)

    def known(self) -> Known | None:
        """Return an expression for what is known to be private, to find it where white space is left out.

        Returns
        -------
        Known or None
            Short texts are found behind a folder of homes only; None when nothing is known.
        """
        hits: dict[str, tuple[str, str, str]] = {}
        for name, texts in self._by_name.items():
            hits.update({SPACE.sub("", text): (text, name, name[0]) for text in texts})
        for text, (pattern, made) in self.found.items():
            hits[SPACE.sub("", text)] = (text, pattern, made[0])
        hits.pop("", None)
        ordered = sorted(hits, key=lambda one: (-len(one), one))
        long = [text for text in ordered if len(text) >= _SHORTEST_LOOSE]
        short = [text for text in ordered if len(text) < _SHORTEST_LOOSE]
        behind = [rf"(?:(?<=/home/)|(?<=/Users/)){re.escape(text)}" for text in short]
        homes = [f"/{home}/{text}" for text in short for home in ("home", "Users")]
        expression = "|".join([*map(re.escape, long), *behind])
        return Known((*long, *homes), re.compile(expression), hits) if hits else None

    def sieve_with(self, known: Known | None) -> Sieve | None:
        """Return what lets through all that may be private or is known to be; None when that cannot be told."""
        return Sieve([*self._marks, *(known.marks if known else ())]) if self._marks else None

    def substitute(self, hit: Hit) -> str:
        """Return what stands in place of a private text: as wide, and the same one each time."""
        value, label = hit.text, hit.label
        # One name for a person, in whichever way it was recognised.
        if value in self.found:
            return self.found[value][1]
        width = sum(map(_cells, value))
        if label == "*":
            made = "*" * width
        else:
            same = self._folded.get(value.casefold())
            if same is not None and len(same) == width:
                made = same
            else:
                self._numbers[label] += 1
                mark = f"{label}{self._numbers[label]}"
                made = mark.ljust(width, "_") if len(mark) <= width else label * width
        self.found[value] = (hit.pattern, made)
        self._folded.setdefault(value.casefold(), made)
        return made


def _written(texts: Iterable[str]) -> list[str]:
    """Return texts as they are, and as JSON within a text writes those that are not ASCII."""
    given = list(texts)
    return [*given, *(json.dumps(text)[1:-1] for text in given if not text.isascii())]


def _cells(char: str) -> int:
    if char.isascii():
        return 1 if char.isprintable() else 0
    from rich.cells import get_character_cell_size

    return get_character_cell_size(char)
