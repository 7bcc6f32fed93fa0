"""Sentences for what is wrong in a configuration: file, line, key, what was expected."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import ValidationError

    from orchestrator_lab.config._yaml import Document, KeyPath

    Known = Callable[[KeyPath], list[str]]
    Elsewhere = Callable[[KeyPath], str]

__all__ = ["Problems", "key_text", "suggestion", "translate"]

_SHOWN = 60


def key_text(path: KeyPath) -> str:
    """Return a key path as people write it.

    Examples
    --------
    >>> key_text(("agents", 1, "env", "A"))
    'agents[1].env.A'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def suggestion(word: str, known: Iterable[str], *, what: str) -> str:
    """Return ``; did you mean 'kind'?`` for a near miss, else the list of what is known."""
    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; {what}: {', '.join(names)}"


class Problems:
    """Collects problems of one document, and raises them together.

    Parameters
    ----------
    document : Document
        Where line numbers come from.
    name_of : callable, optional
        How a key path is shown; :func:`key_text` when omitted.
    """

    def __init__(self, document: Document, name_of: Callable[[KeyPath], str] = key_text) -> None:
        self._document = document
        self._name_of = name_of
        self._found: list[dict[str, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: KeyPath, sentence: str, *, at: KeyPath | None = None) -> None:
        """Note that the value at `path` is wrong (the line is that of `at` when given)."""
        line = self._document.line(path if at is None else at)
        where = f"{self._document.source}, line {line}" if line else self._document.source
        key = self._name_of(path)
        text = f"{where}: {key}: {sentence}" if key else f"{where}: {sentence}"
        if all(text != other["message"] for other in self._found):
            self._found.append({"file": self._document.source, "line": line, "key": key, "message": text})

    def raise_any(self) -> None:
        """Raise one ConfigError with a sentence per problem, in the order of the file."""
        if self._found:
            found = sorted(self._found, key=lambda problem: problem["line"] or 0)
            text = "\n".join(problem["message"] for problem in found)
            raise ConfigError(text, problems=found) from None


def translate(
    error: ValidationError,
    problems: Problems,
    *,
    place: Callable[[KeyPath], KeyPath],
    known: Known,
    elsewhere: Elsewhere = lambda _: "",
) -> None:
    """Add pydantic's complaints to `problems`, in the words of a user.

    Parameters
    ----------
    error : ValidationError
        What pydantic raised.
    problems : Problems
        Where to.
    place : callable
        From pydantic's location to the key path in the document.
    known : callable
        From pydantic's location of a mapping to the keys allowed there.
    elsewhere : callable, optional
        From the location of an unknown key to the kinds that do have it.
    """
    for item in error.errors(include_url=False):
        if item["type"] == "default_factory_not_called":
            continue  # it depends on a value that has its own problem
        loc = tuple(item["loc"])
        problems.add(*_sentence(place(loc), loc, dict(item), known, elsewhere))


def _sentence(
    path: KeyPath, loc: KeyPath, item: dict[str, Any], known: Known, elsewhere: Elsewhere
) -> tuple[KeyPath, str]:
    kind, given, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = known(loc[:-1])
        others = elsewhere(loc)
        if others:
            return path, f"only agents of kind {others} have this key"
        return path, "unknown key" + suggestion(str(path[-1]), allowed, what="known keys")
    if kind == "union_tag_not_found":
        kinds = known((*path, "kind"))
        near = difflib.get_close_matches("kind", [str(key) for key in given or {}], n=1, cutoff=0.6)
        if near:
            return (*path, near[0]), "unknown key; did you mean 'kind'?"
        return path, f"the key 'kind' is missing; known kinds: {', '.join(kinds)}"
    if kind == "union_tag_invalid":
        kinds = known((*path, "kind"))
        word = str(context.get("tag", ""))
        return (*path, "kind"), f"unknown kind {word[:_SHOWN]!r}" + suggestion(word, kinds, what="known kinds")
    if kind == "missing":
        return path[:-1], f"the key {str(path[-1])!r} is missing"
    if kind == "value_error":
        return path, str(context.get("error", item["msg"]))
    # Values of env may be secrets: they are not shown.
    shown = "" if "env" in path or given is None else f" (found {_short(given)})"
    if kind == "string_type":
        wanted = "text is expected"
        if isinstance(given, int | float) and "env" not in path:
            return path, f"text is expected, found {given!r}; put it in quotes"
    elif kind in {"literal_error", "enum"}:
        wanted = f"one of {context.get('expected', '')} is expected"
        if isinstance(given, str):
            options = [part.strip(" '") for part in str(context.get("expected", "")).replace(" or ", ",").split(",")]
            close = difflib.get_close_matches(given, options, n=1, cutoff=0.6)
            wanted += f"; did you mean {close[0]!r}?" if close else ""
    elif kind in {"model_type", "model_attributes_type", "dict_type"}:
        wanted = "a mapping of keys is expected"
    elif kind == "list_type":
        wanted = "a list is expected"
    elif kind.startswith("int_"):
        wanted = "a whole number is expected"
    elif kind.startswith("float_"):
        wanted = "a number is expected"
    elif kind.startswith("bool_"):
        wanted = "true or false is expected"
    elif kind == "too_short":
        wanted = "at least one is needed"
    elif given is None and kind.endswith(("_type", "_parsing")):
        wanted = str(item["msg"]).replace("Input", "the value")
    else:
        wanted = (
            str(item["msg"]).replace("Input should", "the value should").replace("String should", "the text should")
        )
    if given is None and kind != "missing":
        wanted += " (found nothing)"
    return path, wanted + shown


def _short(value: Any) -> str:  # noqa: ANN401 - any input
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
