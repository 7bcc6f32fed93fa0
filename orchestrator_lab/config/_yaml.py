"""YAML as plain data with line numbers: safe, bounded, and strict where YAML is treacherous.

Only text, numbers, true/false, null, lists and mappings come out (the YAML 1.2 core schema, so
``no`` and ``12:30`` stay text). Duplicate keys, tags, recursive aliases and alias bombs are refused
with their line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator_lab.errors import ConfigError

__all__ = [
    "MAX_BYTES",
    "Document",
    "KeyPath",
    "display_path",
    "parse_yaml",
    "read_text",
    "read_yaml",
]

#: Largest configuration or instructions file that is read.
MAX_BYTES = 1 << 20
_MAX_NODES = 20_000
_MAX_TEXT = 4 << 20
_MAX_DEPTH = 50

#: Where a value stands: mapping keys and list positions from the top.
KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the YAML 1.2 core schema (1.1 reads `no` as false, `12:30` as 750)."""

    # yaml's own protocol: an attribute of the class
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _name, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("merge", r"^<<$", "<"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), ["" if c == "\0" else c for c in _first])


def implicit_resolvers(
    others: dict[str, list[tuple[str, re.Pattern[str]]]],
) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return the patterns by which this module's YAML knows numbers and words, after `others`."""
    own = _Loader.yaml_implicit_resolvers
    return {first: [*others.get(first, []), *own.get(first, [])] for first in {*others, *own}}


@dataclass(frozen=True, slots=True)
class Document:
    """What a configuration says, and where each value stands.

    Parameters
    ----------
    data : object
        Plain data: str, int, float, bool, None, list, dict.
    source : str
        How errors name the place, for example ``cluster.yaml``.
    lines : dict
        The 1-based line of each key path; empty for data that came from Python.
    """

    data: Any
    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of `path`, or of the nearest value around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def display_path(path: Path) -> str:
    """Return `path` as a person would name it here: relative when inside this folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_text(path: Path, what: str) -> str:
    """Read a small UTF-8 file.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it is to the user, for the sentence of an error.

    Returns
    -------
    str
        Its text, without a byte order mark.

    Raises
    ------
    ConfigError
        When it is missing, no file, unreadable, too large or not text.
    """
    shown = display_path(path)
    try:
        if path.is_dir():
            raise ConfigError(f"{what} {shown} is a folder; a file is expected")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{what} {shown} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{what} {shown} cannot be read: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{what} {shown} is larger than {MAX_BYTES >> 20} MiB; is it the right file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{what} {shown}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        raise ConfigError(f"{what} {shown} is a binary file; text is expected")
    return text


def read_yaml(path: Path) -> Document:
    """Read a YAML file; see :func:`parse_yaml`."""
    return parse_yaml(read_text(path, "the configuration"), display_path(path))


def parse_yaml(text: str, source: str) -> Document:
    r"""Parse YAML into plain data with line numbers.

    Parameters
    ----------
    text : str
        The document.
    source : str
        How errors name it.

    Returns
    -------
    Document
        Data and lines; values below a key ``env`` keep their spelling as text (``1.10`` stays
        ``"1.10"``).

    Raises
    ------
    ConfigError
        When it is not YAML, has duplicate keys, tags, recursion, or grows beyond reason.

    Examples
    --------
    >>> document = parse_yaml("cluster:\n  name: duo\n", "cluster.yaml")
    >>> document.data, document.line(("cluster", "name"))
    ({'cluster': {'name': 'duo'}}, 2)
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        told = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{source}{where}: not valid YAML: {told}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(
            f"{source}, line {line}: not valid YAML: the character U+{error.character:04X} is not allowed"
            if isinstance(error.character, int)
            else f"{source}, line {line}: not valid YAML: {error.reason}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{source}: not a configuration: nested too deeply") from None
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        # PyYAML lets some of its own slips through, for example chr() of an escape beyond Unicode.
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()
    walk = _Walk(source)
    data = walk.value(node, ()) if node is not None else None
    return Document(data, source, walk.lines)


class _Walk:
    """Turns yaml's node tree into data, counting what it visits so that aliases cannot explode."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self._nodes = 0
        self._text = 0
        self._open: set[int] = set()

    def fail(self, node: yaml.Node, sentence: str) -> ConfigError:
        mark = node.start_mark
        return ConfigError(f"{self.source}, line {mark.line + 1}, column {mark.column + 1}: {sentence}")

    def value(self, node: yaml.Node, path: KeyPath) -> Any:  # noqa: ANN401
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise self.fail(node, f"more than {_MAX_NODES:,} values (aliases counted each time they are used)")
        if len(path) > _MAX_DEPTH:
            raise self.fail(node, f"nested more than {_MAX_DEPTH} levels deep")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, as_text=len(path) > 1 and path[-2] == "env")
        if id(node) in self._open:
            raise self.fail(node, "an alias that contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self.check_tag(node, "seq")
                return [self.value(item, (*path, place)) for place, item in enumerate(node.value)]
            self.check_tag(node, "map")
            return self.mapping(node, path)
        finally:
            self._open.discard(id(node))

    def check_tag(self, node: yaml.Node, *allowed: str) -> str:
        name = str(node.tag).removeprefix(_TAG)
        if name not in allowed or not str(node.tag).startswith(_TAG):
            shown = "!!" + name if str(node.tag).startswith(_TAG) else str(node.tag)
            raise self.fail(node, f"the tag {shown[:60]} is not allowed; a configuration is plain data")
        return name

    def scalar(self, node: yaml.ScalarNode, *, as_text: bool = False) -> Any:  # noqa: ANN401
        name = self.check_tag(node, "str", "int", "float", "bool", "null", "merge")
        text: str = node.value
        self._text += len(text)
        if self._text > _MAX_TEXT:
            raise self.fail(node, f"more than {_MAX_TEXT >> 20} MiB of text (aliases counted each time)")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self.fail(node, "half of a surrogate pair; write the character itself")
        if name == "null":
            return None
        if as_text or name in {"str", "merge"}:
            return text
        try:
            if name == "bool":
                return {"true": True, "false": False}[text.lower()]
            if name == "int":
                return int(text, 0 if text[:2] in {"0x", "0o"} else 10)
            number = float(text)
        except (ValueError, KeyError):
            raise self.fail(node, f"{text[:40]!r} is not a valid {name}") from None
        if number in {float("inf"), float("-inf")}:
            raise self.fail(node, f"the number {text[:40]} is too large")
        return number

    def mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(key_node, "a key must be plain text")
            if key_node.tag == _TAG + "merge":
                many = isinstance(value_node, yaml.SequenceNode)
                merged.extend(value_node.value if many else [value_node])
                continue
            self.check_tag(key_node, "str", "int", "float", "bool", "null")
            key = self.scalar(key_node, as_text=True)
            key = "null" if key is None else key
            if key in own:
                first = self.lines.get((*path, key))
                raise self.fail(key_node, f"the key {key[:60]!r} appears twice (first in line {first})")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            own[key] = self.value(value_node, (*path, key))
        if merged:
            kept = dict(self.lines)  # a merged mapping stands elsewhere: own keys keep their lines
            for other in merged:
                if not isinstance(other, yaml.MappingNode):
                    raise self.fail(other, "'<<' merges mappings only")
                for key, value in self.value(other, path).items():
                    own.setdefault(key, value)
            self.lines |= kept
        return own
