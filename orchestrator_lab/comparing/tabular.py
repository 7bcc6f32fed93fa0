"""A difference of two runs for programs: as frames, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator_lab.casting import frame_of
from orchestrator_lab.comparing.difference import TOTALS
from orchestrator_lab.schema import SCHEMA_VERSION, Column

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator_lab.comparing.difference import RunDiff
    from orchestrator_lab.comparing.rows import TableDiff

__all__ = ["COLUMNS", "differences", "frames", "plain"]

_OPS = ("same", "changed", "moved", "removed", "added")
_PARTS = ("run", "versions", "config", "agents", "messages", "turns", "tool_calls", "dialogs")
_NAME = Column("name", "string", None, "Key path or column; NA for a row as a whole.")
_A = Column("a", "string", None, "In the first run; what is no text is JSON. NA where there is nothing.")
_B = Column("b", "string", None, "In the second run.")
COLUMNS = (
    Column("part", "category", None, "Where: a table, or run, versions, config.", None, _PARTS),
    Column("op", "category", None, "What became of it from the first run to the second.", None, _OPS[1:]),
    Column("whose", "string", None, "The agent, sender → recipient, or agent and tool; NA beside the tables."),
    _NAME,
    _A,
    _B,
    Column("id_a", "string", None, "The row's id in the first run."),
    Column("id_b", "string", None, "The row's id in the second run."),
)


def differences(diff: RunDiff) -> pd.DataFrame:
    """Return every difference as a row; see :data:`COLUMNS`."""
    rows: list[tuple[Any, ...]] = [
        (part, _op(one.a, one.b), None, one.name, _text(one.a), _text(one.b), None, None)
        for part, changes in diff.facts.items()
        for one in changes
    ]
    for name, table in diff.tables.items():
        for row in table.rows:
            whose, ids = " → ".join(row.whose), (row.id_a, row.id_b)
            if row.op != "changed":
                rows.append((name, row.op, whose, None, row.text_a, row.text_b, *ids))
            for one in row.changes:
                rows.append((name, "changed", whose, one.name, _text(one.a), _text(one.b), *ids))  # noqa: PERF401
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    data = {column.name: list(values) for column, values in zip(COLUMNS, columns, strict=True)}
    return _attributed(frame_of(COLUMNS, data, len(rows)), diff)


def frames(diff: RunDiff, sources: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Return both runs side by side; see :meth:`RunDiff.to_frames`."""
    found: dict[str, pd.DataFrame] = {}
    for part, changes in diff.facts.items():
        values: dict[str, list[str | None]] = {
            "name": [one.name for one in changes],
            "a": [_text(one.a) for one in changes],
            "b": [_text(one.b) for one in changes],
        }
        found[part] = frame_of((_NAME, _A, _B), values, len(changes))
    for name, table in diff.tables.items():
        found[name] = _beside(table, sources[0][name], sources[1][name])
    found["costs"] = _costs(diff)
    return {name: _attributed(frame, diff) for name, frame in found.items()}


def _beside(table: TableDiff, a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    ops = dict.fromkeys(table.pairs, "same") | {(row.a, row.b): row.op for row in table.rows}
    told = pd.Categorical([ops[pair] for pair in table.pairs], categories=_OPS)
    sides = [
        # A place that no frame has makes a row of NA.
        frame.reindex([-1 if place is None else place for place in places]).reset_index(drop=True)
        for frame, places in ((a, [i for i, _ in table.pairs]), (b, [j for _, j in table.pairs]))
    ]
    data: dict[str, Any] = {"op": told}
    for column in a.columns:
        data |= {f"{column}_a": sides[0][column], f"{column}_b": sides[1][column]}
    return pd.DataFrame(data)


def _costs(diff: RunDiff) -> pd.DataFrame:
    columns = [Column("agent", "string", None, "The agent; NA: all.")]
    data: dict[str, list[Any]] = {"agent": list(dict.fromkeys(one.agent for one in diff.costs))}
    for name in TOTALS:
        dtype = "float64" if name.endswith(("_usd", "_s")) else "Int64"
        told = [one for one in diff.costs if one.name == name]
        for kind, values in (
            ("a", [one.a for one in told]),
            ("b", [one.b for one in told]),
            ("difference", [one.difference for one in told]),
        ):
            columns.append(Column(f"{name}_{kind}", dtype))
            data[f"{name}_{kind}"] = values
    return frame_of(columns, data, len(data["agent"]))


def plain(diff: RunDiff) -> dict[str, Any]:
    """Return what differs as JSON can hold it; see :meth:`RunDiff.to_dict`."""
    told: dict[str, Any] = {"equal": diff.equal, "exact": diff.exact, "a": asdict(diff.a), "b": asdict(diff.b)}
    told |= {part: [asdict(one) for one in changes] for part, changes in diff.facts.items()}
    told |= {name: {"same": one.same, "rows": [asdict(row) for row in one.rows]} for name, one in diff.tables.items()}
    told["costs"] = [{**asdict(one), "difference": one.difference} for one in diff.costs]
    return told


def _op(a: object, b: object) -> str:
    return "added" if a is None else "removed" if b is None else "changed"


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _attributed(frame: pd.DataFrame, diff: RunDiff) -> pd.DataFrame:
    frame.attrs = {"schema_version": SCHEMA_VERSION, "source": [diff.a.source, diff.b.source], "exact": diff.exact}
    return frame
