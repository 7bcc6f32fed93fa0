"""A difference of two runs as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator_lab.comparing.aligning import Effort
from orchestrator_lab.comparing.difference import TOTALS
from orchestrator_lab.comparing.wording import (
    HEADS,
    MARKS,
    amount,
    change_of,
    is_long,
    line_diff,
    number_of,
    shown_pair,
    took,
)
from orchestrator_lab.reading.texts import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator_lab.comparing.difference import RunDiff
    from orchestrator_lab.comparing.facts import Change
    from orchestrator_lab.comparing.rows import RowDiff

__all__ = ["text_of"]

#: Lines of one text that are shown where not all is.
_LINES = 12


def text_of(diff: RunDiff, *, limit: int | None) -> str:
    """Return a difference as text.

    Parameters
    ----------
    diff : RunDiff
        Of two runs.
    limit : int or None
        Differences to show of each part; None: all.

    Returns
    -------
    str
        Lines without an end of line behind the last.
    """
    effort = Effort()
    lines = [diff.title, f"- {_run(diff, 'a')}", f"+ {_run(diff, 'b')}"]
    if diff.equal:
        counts = ", ".join(f"{one.same} {name.replace('_', ' ')}" for name, one in diff.tables.items() if one.same)
        return "\n".join([*lines, counts or "neither holds anything"])
    lines += [f"  {part.replace('_', ' ')}: {said}" for part, said in diff.summary.items()]
    for part, changes in diff.facts.items():
        lines += _part(part, [list(_change(one, effort, limit, "  ")) for one in changes], limit)
    for name, table in diff.tables.items():
        chosen = table.rows if limit is None else table.rows[:limit]
        told = [list(_row(diff, name, row, effort, limit)) for row in chosen]
        lines += _part(name, told, limit, hidden=len(table.rows) - len(chosen))
    return "\n".join([*lines, "", "costs", *_costs(diff)])


def _run(diff: RunDiff, which: str) -> str:
    said = diff.a if which == "a" else diff.b
    return f"{one_line(said.name, 60)} ({one_line(said.run_id, 60)})"


def _part(name: str, blocks: Sequence[list[str]], limit: int | None, hidden: int = 0) -> Iterator[str]:
    if not blocks:
        return
    shown_blocks = blocks if limit is None else blocks[:limit]
    hidden += len(blocks) - len(shown_blocks)
    yield from ("", name.replace("_", " "))
    for block in shown_blocks:
        yield from block
    if hidden:
        yield f"  … {hidden} more; to_text() has all"


def _change(change: Change, effort: Effort, limit: int | None, indent: str) -> Iterator[str]:
    name = one_line(change.name, 120)
    if not is_long(change.a, change.b):
        a, b = shown_pair(change.a, change.b)
        yield f"{indent}{name}: {a} → {b}"
        return
    yield f"{indent}{name}:"
    lines = _texts(change.a, change.b, effort)
    most = len(lines) if limit is None else _LINES
    yield from (f"{indent}  {line}".rstrip() for line in lines[:most])
    if len(lines) > most:
        yield f"{indent}  … {len(lines) - most} more lines"


def _texts(a: str | None, b: str | None, effort: Effort) -> list[str]:
    if a is None or b is None:
        mark, text = ("+", b) if a is None else ("-", a)
        return [f"{mark} {line.text}" for line in line_diff("", text or "", effort) if line.mark == "+"]
    return [f"{line.mark} {line.text}" for line in line_diff(a, b, effort)]


def _row(diff: RunDiff, table: str, row: RowDiff, effort: Effort, limit: int | None) -> Iterator[str]:
    whose = (" → " if table == "messages" else ", ").join(one_line(name, 60) for name in row.whose)
    facts = [number_of(row), took(diff, table, row)]
    yield f"{MARKS[row.op]} {whose} ({', '.join(one for one in facts if one)}){' moved' if row.op == 'moved' else ''}"
    if row.op in {"removed", "added"}:
        text = row.text_a if row.op == "removed" else row.text_b
        if text and limit is not None:
            yield f"    {one_line(text, 160)}"
        elif text:
            a, b = (text, None) if row.op == "removed" else (None, text)
            yield from (f"    {line}".rstrip() for line in _texts(a, b, effort))
    elif row.op == "moved" and not any(one.name == "content" for one in row.changes) and row.text_a:
        yield f"    {one_line(row.text_a, 160)}"
    for change in row.changes:
        yield from _change(change, effort, limit, "    ")


def _costs(diff: RunDiff) -> list[str]:
    names = [name for name in TOTALS if any(one.name == name and (one.a or one.b) for one in diff.costs)]
    known = {(one.agent, one.name): one for one in diff.costs}
    table = [["", *(HEADS[name] for name in names)]]
    for agent in dict.fromkeys(one.agent for one in diff.costs):
        cells = ["all" if agent is None else one_line(agent, 40)]
        for name in names:
            one = known[agent, name]
            a, b, more = amount(name, one.a), amount(name, one.b), change_of(one)
            cells.append(a if a == b else f"{a} → {b}" + (f" ({more})" if more else ""))
        table.append(cells)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  "
        + "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in table
    ]
