"""Bundles of earlier versions, read as if they were of this one.

A bundle has a format (how it is laid out) and its journal a schema (what its events hold). What changes in either gets
a function here, from one version to the next, and a bundle of the earlier version in ``tests/bundle/old/``. Whatever a
bundle's journal has to be changed for, its Parquet tables are passed over: they are made of the journal again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle.layout import FACTS, FORMAT, JOURNAL
from orchestrator_lab.errors import BundleError
from orchestrator_lab.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["EVENTS", "NAMES", "check_facts", "names_now", "upgrade_file"]

#: From a format to the next one: the name of each file there, from its name here.
NAMES: dict[int, Callable[[str], str]] = {}
#: From a schema to the next one: the event as it is there, from the event as it was written (both JSON objects).
EVENTS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def check_facts(facts: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - what a file holds
    """Return what a bundle says of itself, when this version can read it.

    Parameters
    ----------
    facts
        The content of ``bundle.json``.
    place : str
        The bundle, for the error.

    Returns
    -------
    dict
        With ``format`` and ``schema_version`` as numbers.

    Raises
    ------
    BundleError
        When it is damaged, or of a later version.
    """
    known = facts if isinstance(facts, dict) else {}
    for what, key, mine in (("format", "format", FORMAT), ("schema", "schema_version", SCHEMA_VERSION)):
        number = known.get(key)
        if not isinstance(number, int) or isinstance(number, bool):
            raise BundleError(
                f"{place}: {FACTS} in it does not say its {what} as a number; get the bundle again", path=place
            )
        if number > mine:
            raise BundleError(
                f"{place} is of {what} {number}, this version of orchestrator-lab reads up to {mine}: install a newer "
                "one",
                path=place,
            )
    return dict(facts)


def names_now(facts: Mapping[str, Any], names: list[str]) -> dict[str, str]:
    """Return the file of the archive behind each name of today.

    Parameters
    ----------
    facts : mapping
        From :func:`check_facts`.
    names : list of str
        The files of the archive.

    Returns
    -------
    dict of str to str
        Their names in the archive, by their names of today.
    """
    found = {}
    for name in names:
        today = name
        for version in range(facts["format"], FORMAT):
            today = NAMES[version](today)
        found[today] = name
    return found


def upgrade_file(path: Path, name: str, schema: int) -> None:
    """Bring an unpacked file to the schema of today.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    name : str
        What it is, by its name of today.
    schema : int
        What it was written in.
    """
    if name != JOURNAL or schema >= SCHEMA_VERSION:
        return
    partial = path.with_name(f".{path.name}.new")
    with path.open("rb") as source, partial.open("xb") as out:
        partial.chmod(0o600)
        for line in source:
            out.write(_event(line, schema))
    partial.replace(path)


def _event(line: bytes, schema: int) -> bytes:
    try:
        event = json.loads(line)
        for version in range(schema, SCHEMA_VERSION):
            event = EVENTS[version](event)
    except (ValueError, TypeError, RecursionError):
        return line  # a damaged line is told of by whoever reads the journal
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"
