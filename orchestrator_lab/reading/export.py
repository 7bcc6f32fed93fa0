"""A run for other tools: spreadsheets, pandas and Arrow, browsers, editors, players, Inspect AI."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator_lab.annotations import annotations_frame
from orchestrator_lab.casting import to_values
from orchestrator_lab.choosing import Choice
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.journal.recording import to_cast
from orchestrator_lab.reading.conversation import Conversation
from orchestrator_lab.reading.entries import agent_names, chosen_agents
from orchestrator_lab.reading.screens import recording_of
from orchestrator_lab.reading.staging import staged_file, staged_folder
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    import pandas as pd

    from orchestrator_lab.tables import RunTables

__all__ = ["FORMATS", "export_as", "harmless"]

#: What each format is, in a few words.
FORMATS = {
    "csv": "tables for spreadsheets",
    "parquet": "tables for pandas, Arrow, DuckDB",
    "jsonl": "tables as JSON, one object a line",
    "html": "the conversation as a page",
    "markdown": "the conversation as Markdown",
    "cast": "the panes' recordings for any asciicast v3 player",
    "inspect": "an Inspect AI log",
}
#: What a spreadsheet takes for the beginning of a formula, also in the full width of East Asian scripts.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def export_as(
    tables: RunTables,
    to: str,
    output: str | os.PathLike[str],
    *,
    table: str | Iterable[str] | None = None,
    agent: str | Iterable[str] | None = None,
    exact: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write a run, or a part of it, in a format of other tools.

    Parameters
    ----------
    tables : RunTables
        The run.
    to : str
        One of :data:`FORMATS`.
    output : path-like
        A folder for ``csv``, ``parquet``, ``jsonl`` and ``cast``; a file for the others, and for these too when it is
        named like one (``messages.csv``) and only one table or agent is asked for.
    table : str or iterable of str, optional
        Only these tables; all of them, and the annotations when there are any, otherwise.
    agent : str or iterable of str, optional
        Only what concerns these.
    exact : bool
        Leave texts in CSV as they are, also those that a spreadsheet takes for formulas.
    overwrite : bool
        Replace what is there.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    ConfigError
        When there is no such format or table, or something is in the way.
    AgentNotFound
        When nobody of this name is in the run.
    EnvironmentProblem, DiskFull
        When it cannot be written, or what writes it is not installed.
    """
    if to not in FORMATS:
        raise ConfigError(f"there is no format {to!r} to export to; the formats are: {', '.join(FORMATS)}")
    place = Path(output).expanduser()
    agents = chosen_agents(tables, agent)
    if table is not None and to not in {"csv", "parquet", "jsonl"}:
        raise ConfigError(f"table={table!r} does not go with {to!r}: only csv, parquet and jsonl are tables")
    if exact and to != "csv":
        raise ConfigError(f"exact does not go with {to!r}: only texts in CSV are ever changed")
    if to == "inspect":
        from orchestrator_lab.reading.inspect_log import check_suffix, write_inspect_log

        check_suffix(place)
        with staged_file(place, overwrite=overwrite) as file:
            write_inspect_log(tables, file, agents)
        return [place]
    if to in {"html", "markdown"}:
        talk = Conversation(tables, agents)
        with staged_file(place, overwrite=overwrite) as file:
            file.write_text(talk.to_html() if to == "html" else talk.to_markdown(), encoding="utf-8")
        return [place]
    parts = _casts(tables, agents) if to == "cast" else _tables(tables, to, table, agents, exact=exact)
    if place.suffix == f".{to}":
        if len(parts) != 1:
            raise ConfigError(f"{place} is one file, but {len(parts)} are to be written: give a folder, or ask for one")
        with staged_file(place, overwrite=overwrite) as file:
            next(iter(parts.values()))(file)
        return [place]
    with staged_folder(place, overwrite=overwrite) as folder:
        for name, write in parts.items():
            write(folder / name)
    return [place / name for name in parts]


def _casts(tables: RunTables, agents: set[str] | None) -> dict[str, Callable[[Path], object]]:
    parts: dict[str, Callable[[Path], object]] = {}
    for name in agent_names(tables):
        path = None if tables.path is None else recording_of(tables.path, name)
        if path is None or (agents is not None and name not in agents):
            continue
        parts[f"{name}.cast"] = _unpacked(path)
    if not parts:
        raise ConfigError(f"run {tables.run_id} holds no recording of the agents asked for: nothing to export as cast")
    return parts


def _unpacked(path: Path) -> Callable[[Path], object]:
    if path.suffix == ".cast":
        return lambda file: shutil.copyfile(path, file)
    return lambda file: to_cast(path, file)


def _tables(
    tables: RunTables, to: str, table: str | Iterable[str] | None, agents: set[str] | None, *, exact: bool
) -> dict[str, Callable[[Path], object]]:
    known = [*TABLES, "annotations"]
    wanted = known if table is None else [table] if isinstance(table, str) else list(dict.fromkeys(table))
    for name in wanted:
        if name not in known:
            raise ConfigError(f"there is no table {name!r} to export; the tables are: {', '.join(known)}")
    parts: dict[str, Callable[[Path], object]] = {}
    for name in wanted:
        if name == "annotations":
            frame = annotations_frame(tables.path, tables.run_id)
            if table is None and frame.empty:
                continue
        else:
            frame = tables.frame(name)
            if agents is not None:
                frame = Choice.of(name, sorted(agents), None, None).rows(frame)
        # Files are given away: where the run lies on this machine is nobody's business.
        frame.attrs = {"schema_version": frame.attrs["schema_version"], "source": [tables.run_id]}
        parts[f"{name}.{to}"] = _writer(to, frame, exact=exact)
    return parts


def _writer(to: str, frame: pd.DataFrame, *, exact: bool) -> Callable[[Path], object]:
    if to == "parquet":
        return lambda file: frame.to_parquet(file, index=False, compression="zstd")
    if to == "csv":
        shown = frame if exact else harmless(frame)
        return lambda file: shown.to_csv(file, index=False)
    return lambda file: _write_jsonl(frame, file)


def harmless(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which no text begins like a formula: an apostrophe stands before those that do.

    Parameters
    ----------
    frame : pandas.DataFrame
        Any table; numbers and instants stay as they are.

    Returns
    -------
    pandas.DataFrame
        A new one.

    Examples
    --------
    >>> import pandas as pd
    >>> harmless(pd.DataFrame({"said": pd.array(["=1+1", "1+1"], dtype="string")}))["said"].tolist()
    ["'=1+1", '1+1']
    """
    changed = frame.copy(deep=False)
    for name in frame.select_dtypes(include=["string", "object"]).columns:
        risky = frame[name].str.startswith(_FORMULA).fillna(value=False).astype(bool)
        if risky.any():
            changed[name] = frame[name].where(~risky, "'" + frame[name])
    return changed


def _write_jsonl(frame: pd.DataFrame, path: Path) -> None:
    columns = {name: to_values(frame[name]) for name in frame.columns}
    names = list(columns)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in zip(*columns.values(), strict=True):
            file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False) + "\n")
