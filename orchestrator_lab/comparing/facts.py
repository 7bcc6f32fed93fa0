"""What two runs were set to: configuration, versions and circumstances, by key path."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.casting import to_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator_lab.tables import RunTables

__all__ = ["Change", "changes_of", "config_of", "flat", "run_facts", "versions_of"]

_ROW = ("experiment", "mode", "status", "seed", "error_type", "error_message")
#: What no two runs have in common.
_ROW_EXACT = ("run_id", "parent_run_id", "started_at", "ended_at", "duration_s", "event_count")
_MANIFEST_EXACT = ("command", "cwd", "started_by", "work_dir")
_PLAIN_KEY = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is not the same in two runs.

    Parameters
    ----------
    name : str
        Its key path or column.
    a, b : object
        The value in each; None where there is none.
    """

    name: str
    a: Any
    b: Any

    def inverted(self) -> Change:
        """Return the same, seen from the other run."""
        return Change(self.name, self.b, self.a)


def flat(value: object) -> dict[tuple[str, ...], Any]:
    """Return a nested value as one value a key path.

    Parameters
    ----------
    value : object
        JSON. Lists of named things (agents, rules) are known by the names, other lists by the place.

    Returns
    -------
    dict of tuple of str to object
        Texts, numbers, truth values, empty lists and dicts; no None.

    Examples
    --------
    >>> flat({"agents": [{"name": "ada", "model": "m"}], "tags": ["x"]})[("agents", "ada", "model")]
    'm'
    """
    found: dict[tuple[str, ...], Any] = {}
    todo: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while todo:  # no recursion: a manifest may come from anybody
        path, one = todo.pop()
        if isinstance(one, dict) and one:
            todo += [((*path, str(key)), inner) for key, inner in one.items()]
        elif isinstance(one, list) and one:
            names = _names(one)
            todo += [((*path, name), inner) for name, inner in zip(names, one, strict=True)]
        elif one is not None:
            found[path] = one
    return found


def _names(values: list[Any]) -> list[str]:
    """Return what the items of a list are called: their names when each has its own, or else their places."""
    names = [one.get("name") if isinstance(one, dict) else None for one in values]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return [str(name) for name in names]
    return [f"[{place}]" for place in range(len(values))]


def changes_of(a: object, b: object) -> tuple[Change, ...]:
    """Return the values that two nested values do not have in common, in the order of their paths.

    Parameters
    ----------
    a, b : object
        JSON.

    Returns
    -------
    tuple of Change
        None where a value is absent or null.

    Examples
    --------
    >>> changes_of({"cols": 80, "rows": 24}, {"cols": 96, "rows": 24})
    (Change(name='cols', a=80, b=96),)
    """
    flat_a, flat_b = flat(a), flat(b)
    paths = sorted(path for path in {*flat_a, *flat_b} if not _same(flat_a.get(path), flat_b.get(path)))
    return tuple(Change(_shown(path), flat_a.get(path), flat_b.get(path)) for path in paths)


def _same(a: object, b: object) -> bool:
    # True is no 1 in a configuration, and what is no number equals itself
    return (a == b and isinstance(a, bool) == isinstance(b, bool)) or (a != a and b != b)  # noqa: PLR0124 - NaN


def _shown(path: tuple[str, ...]) -> str:
    parts = [part if _PLAIN_KEY.fullmatch(part) or part[:1] == "[" else json.dumps(part) for part in path]
    return ".".join(parts).replace(".[", "[") or "value"


def config_of(tables: RunTables) -> object:
    """Return the whole configuration that a run began with."""
    return tables.manifest.get("config")


def versions_of(tables: RunTables) -> dict[str, Any]:
    """Return which programs, machine and commit a run had."""
    return _chosen(tables.manifest, ("versions", "platform", "git"), lift="versions")


def run_facts(tables: RunTables, *, exact: bool) -> dict[str, Any]:
    """Return what a run was for and how it ended.

    Parameters
    ----------
    tables : RunTables
        Of the run.
    exact : bool
        With what no two runs have in common: ids, instants, where it was started from.

    Returns
    -------
    dict
        Nested JSON.
    """
    row = tables.frame("runs")
    names = (*_ROW, *_ROW_EXACT) if exact else _ROW
    facts = {name: to_values(row[name])[0] for name in names}
    keys = ("name", "params", "tags", *(_MANIFEST_EXACT if exact else ()))
    return {**facts, **_chosen(tables.manifest, keys)}


def _chosen(manifest: Mapping[str, Any], keys: Iterable[str], lift: str | None = None) -> dict[str, Any]:
    chosen = {key: manifest.get(key) for key in keys}
    inner = chosen.get(lift) if lift else None
    if isinstance(inner, dict):
        del chosen[str(lift)]
        chosen = {**inner, **chosen}
    return chosen
