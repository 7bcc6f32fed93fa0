"""A difference of two runs as HTML: styles in place, no script, no link, every text escaped."""

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
from orchestrator_lab.plots import agent_colors
from orchestrator_lab.reading.chat import named
from orchestrator_lab.reading.texts import block, escaped, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator_lab.comparing.difference import RunDiff, Said
    from orchestrator_lab.comparing.facts import Change
    from orchestrator_lab.comparing.rows import RowDiff
    from orchestrator_lab.comparing.wording import Line

__all__ = ["html_of"]

_QUIET = "opacity:.75;font-size:.9em"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.92em"
#: The same on light and dark grounds; the marks say it to whoever sees no colour.
_TINTS = {"removed": "248,81,73", "added": "46,160,67", "changed": "210,153,34", "moved": "110,118,129"}
_SIGNS = {"-": ("removed", "−"), "+": ("added", "+")}
_ROW = "margin:6px 0;padding:3px 0 3px 10px;border-left:4px solid rgb({tint});content-visibility:auto"
_ROW += ";contain-intrinsic-size:auto 4em"
_CELL = "text-align:left;padding:1px 14px 1px 0;vertical-align:top"
_FIGURE = "text-align:right;padding:1px 0 1px 18px;white-space:nowrap;font-variant-numeric:tabular-nums"
_HEAD = "margin:14px 0 4px;font-size:1.05em;font-weight:600"


def html_of(diff: RunDiff, *, limit: int | None, most: int | None) -> str:
    """Return a difference as HTML.

    Parameters
    ----------
    diff : RunDiff
        Of two runs.
    limit : int or None
        Differences to show of each part; None: all.
    most : int or None
        Characters of each text to show; None: all.

    Returns
    -------
    str
        One ``<div>``.
    """
    return _Page(diff, limit, most).html()


class _Page:
    def __init__(self, diff: RunDiff, limit: int | None, most: int | None) -> None:
        self._diff, self._limit, self._most = diff, limit, most
        self._effort = Effort()
        self._colors = agent_colors(one.agent for one in diff.costs if one.agent is not None)

    def html(self) -> str:
        diff = self._diff
        names, _, how = diff.title.rpartition(": ")
        parts = [
            f'<div role="group" aria-label="{escaped(diff.title)}">',
            f"<div><b><bdi>{escaped(names)}</bdi>: {escaped(how)}</b></div>",
            f"<div>{_run(diff.a, '-')}</div><div>{_run(diff.b, '+')}</div>",
        ]
        if diff.equal:
            counts = [f"{one.same} {name.replace('_', ' ')}" for name, one in diff.tables.items() if one.same]
            said = ", ".join(counts) or "neither holds anything"
            return "".join([*parts, f'<div style="{_QUIET}">{escaped(said)}</div></div>'])
        said = " · ".join(f"{part.replace('_', ' ')}: {how}" for part, how in diff.summary.items())
        parts.append(f'<div style="{_QUIET}">{escaped(said)}</div>')
        for part, changes in diff.facts.items():
            chosen = changes if self._limit is None else changes[: self._limit]
            parts.append(self._part(part, [self._fact(one) for one in chosen], len(changes)))
        for name, table in diff.tables.items():
            rows = table.rows if self._limit is None else table.rows[: self._limit]
            parts.append(self._part(name, [self._row(name, row) for row in rows], len(table.rows)))
        return "".join([*parts, self._costs(), "</div>"])

    def _part(self, name: str, blocks: Sequence[str], count: int) -> str:
        if not count:
            return ""
        hidden = count - len(blocks)
        more = f'<div style="{_QUIET}"><i>{hidden} more: to_html() is a page of all</i></div>' if hidden else ""
        return (
            f'<div role="heading" aria-level="3" style="{_HEAD}">{name.replace("_", " ")}</div>{"".join(blocks)}{more}'
        )

    def _fact(self, change: Change) -> str:
        op = "added" if change.a is None else "removed" if change.b is None else "changed"
        return f'<div style="{_ROW.format(tint=_TINTS[op])}">{self._change(change)}</div>'

    def _row(self, table: str, row: RowDiff) -> str:
        whose = [named(name, self._colors) for name in row.whose[: 2 if table == "messages" else 1]]
        rest = [f"<bdi>{escaped(one)}</bdi>" for one in row.whose[len(whose) :]]
        facts = " · ".join(escaped(one) for one in (row.op, number_of(row), took(self._diff, table, row)) if one)
        hover = escaped(", ".join(one for one in (row.id_a, row.id_b) if one))
        parts = [
            f'<div style="{_ROW.format(tint=_TINTS[row.op])}"><div title="{hover}">',
            f'<span aria-hidden="true" style="{_MONO}">{MARKS[row.op]} </span>',
            f'{", ".join([" → ".join(whose), *rest])} <span style="{_QUIET}">{facts}</span></div>',
        ]
        text = row.text_b if row.op == "added" else row.text_a
        if text and row.op in {"removed", "added", "moved"} and "content" not in {one.name for one in row.changes}:
            parts.append(block(text, most=self._most, mono=table == "tool_calls"))
        parts += [self._change(one) for one in row.changes]
        return "".join([*parts, "</div>"])

    def _change(self, change: Change) -> str:
        name = f'<span style="{_MONO}">{escaped(one_line(change.name, 200))}</span>'
        if not is_long(change.a, change.b):
            a, b = (f"<bdi>{escaped(one)}</bdi>" for one in shown_pair(change.a, change.b))
            return f'<div style="overflow-wrap:anywhere">{name}: {_marked("del", a)} → {_marked("ins", b)}</div>'
        if change.a is None or change.b is None:
            text = str(change.a if change.b is None else change.b)
            where = "first" if change.b is None else "second"
            return f"<div>{name}: only in the {where}{block(text, most=self._most)}</div>"
        lines = line_diff(change.a, change.b, self._effort)
        told, length = [], 0
        for line in lines:
            if self._most is not None and length > self._most:
                told.append(f'<div style="{_QUIET}"><i>more: to_html() and the tables have all of it</i></div>')
                break
            told.append(_line(line))
            length += len(line.text)
        return f'<div>{name}:<div style="margin:2px 0;{_MONO}">{"".join(told)}</div></div>'

    def _costs(self) -> str:
        diff = self._diff
        names = [name for name in TOTALS if any(one.name == name and (one.a or one.b) for one in diff.costs)]
        if not names:
            return ""
        heads = "".join(f'<th scope="col" style="{_FIGURE}">{HEADS[name]}</th>' for name in names)
        known = {(one.agent, one.name): one for one in diff.costs}
        rows = []
        for agent in dict.fromkeys(one.agent for one in diff.costs):
            cells = [f'<th scope="row" style="{_CELL}">{"all" if agent is None else named(agent, self._colors)}</th>']
            for name in names:
                one = known[agent, name]
                a, b, more = amount(name, one.a), amount(name, one.b), change_of(one)
                shown = a if a == b else f"{a} → <b>{b}</b>"
                shown += f' <span style="{_QUIET}">{more}</span>' if more else ""
                cells.append(f'<td style="{_FIGURE}">{shown}</td>')
            rows.append(f"<tr>{''.join(cells)}</tr>")
        return (
            f'<div role="heading" aria-level="3" style="{_HEAD}">costs</div><div style="overflow-x:auto">'
            f'<table style="font-size:.92em;border-collapse:collapse"><thead><tr><td></td>{heads}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )


def _run(said: Said, mark: str) -> str:
    op, sign = _SIGNS[mark]
    return (
        f'<span style="{_MONO};background:rgba({_TINTS[op]},.2)">&nbsp;{sign}&nbsp;</span> '
        f"<bdi>{escaped(one_line(said.name, 60))}</bdi> "
        f'<span style="{_QUIET}">{escaped(one_line(said.run_id, 60))}</span>'
    )


def _marked(tag: str, inner: str) -> str:
    tint = _TINTS["removed" if tag == "del" else "added"]
    return f'<{tag} style="text-decoration:none;background:rgba({tint},.28)">{inner}</{tag}>'


def _line(line: Line) -> str:
    """Return a line of a text; what changed in it stands out."""
    if line.mark == "…":
        return f'<div style="{_QUIET}">…</div>'
    style = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;padding:0 4px 0 1.4em;text-indent:-1.1em"
    if line.mark == " ":
        return f'<div dir="auto" style="{style};opacity:.75">  {escaped(line.text)}</div>'
    op, sign = _SIGNS[line.mark]
    tag = "del" if line.mark == "-" else "ins"
    whole = all(changed for _, changed in line.parts) or not any(changed for _, changed in line.parts)
    inner = "".join(
        _marked(tag, escaped(text)) if changed and not whole else escaped(text) for text, changed in line.parts
    )
    return f'<div dir="auto" style="{style};background:rgba({_TINTS[op]},.14)">{sign} {inner}</div>'
