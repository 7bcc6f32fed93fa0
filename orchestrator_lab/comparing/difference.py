"""What is not the same in two runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import fsum
from typing import TYPE_CHECKING, Any

from orchestrator_lab.comparing.facts import Change, changes_of, config_of, run_facts, versions_of
from orchestrator_lab.comparing.rows import TableDiff, compare_rows, signature
from orchestrator_lab.comparing.sides import IDS, Side
from orchestrator_lab.journal.reader import without_gc
from orchestrator_lab.reading.texts import one_line

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator_lab.tables import RunTables

__all__ = ["TOTALS", "RunDiff", "Said", "Total", "compare"]

#: What is added up over turns.
TOTALS = (
    "turns",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cost_usd",
    "duration_s",
)


@dataclass(frozen=True, slots=True)
class Said:
    """Which run is meant.

    Parameters
    ----------
    run_id, name : str
        Its id, and the name of its cluster.
    source : str
        Where it was read from.
    """

    run_id: str
    name: str
    source: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over the turns of an agent in two runs.

    Parameters
    ----------
    agent : str or None
        Whose turns; None: all.
    name : str
        One of :data:`TOTALS`; durations in seconds, costs in USD.
    a, b : int, float or None
        The sums over those turns of which it is known; None when it is of none.
    """

    agent: str | None
    name: str
    a: float | None
    b: float | None

    @property
    def difference(self) -> float | None:
        """By how much the second is more; None when one is not known."""
        return None if self.a is None or self.b is None else round(self.b - self.a, 12)

    def inverted(self) -> Total:
        """Return the same, seen from the other run."""
        return Total(self.agent, self.name, self.b, self.a)


@dataclass(frozen=True, repr=False)
class RunDiff:
    """What is not the same in two runs, by :meth:`orchestrator_lab.run.Run.diff`.

    ``print`` gives it as text, a notebook shows it as HTML.

    Parameters
    ----------
    a, b : Said
        The runs.
    exact : bool
        Whether ids, instants, durations and process ids were compared as well.
    run : tuple of Change
        What it was for and how it ended: name, experiment, params, tags, seed, mode, status, error.
    versions : tuple of Change
        Of the lab, Python, tmux; platform and commits.
    config : tuple of Change
        The configuration, by key path.
    agents, messages, turns, tool_calls, dialogs : TableDiff
        The rows of each table, aligned.
    costs : tuple of Total
        Turns, tokens, cost and time of each agent and of all. They follow from the turns, and make no difference of
        their own.
    """

    a: Said
    b: Said
    exact: bool
    run: tuple[Change, ...]
    versions: tuple[Change, ...]
    config: tuple[Change, ...]
    agents: TableDiff
    messages: TableDiff
    turns: TableDiff
    tool_calls: TableDiff
    dialogs: TableDiff
    costs: tuple[Total, ...]
    _frames: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]] = field(compare=False)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not any(self.facts.values()) and not any(table.rows for table in self.tables.values())

    @property
    def facts(self) -> dict[str, tuple[Change, ...]]:
        """What differs beside the tables: ``run``, ``versions``, ``config``."""
        return {"run": self.run, "versions": self.versions, "config": self.config}

    @property
    def tables(self) -> dict[str, TableDiff]:
        """The tables by name, agents first."""
        return {table: getattr(self, table) for table in IDS}

    @property
    def summary(self) -> dict[str, str]:
        """How much differs in each part, in words."""
        told = {part: _number(len(changes), "difference") for part, changes in self.facts.items() if changes}
        for name, table in self.tables.items():
            counts = Counter(row.op for row in table.rows)
            words = [f"{counts[op]} {op}" for op in ("changed", "moved", "removed", "added") if counts[op]]
            if words:
                told[name] = ", ".join([*words, f"{table.same} same"])
        return told

    @property
    def title(self) -> str:
        """Both runs and how they compare, on one line."""
        names = " and ".join(dict.fromkeys(one_line(one.name, 60) for one in (self.a, self.b)))
        how = "the same" if self.equal else "not the same"
        return f"{names}: two runs, {how}{' to the last value' if self.equal and self.exact else ''}"

    def value(self, table: str, column: str, a: int | None, b: int | None) -> tuple[Any, Any]:
        """Return what stands in a column of a row of each run; None where there is no row, or nothing is known."""
        import pandas as pd

        found = [
            None if place is None else frames[table][column].iloc[place]
            for frames, place in zip(self._frames, (a, b), strict=True)
        ]
        first, second = (None if pd.isna(one) else one for one in found)
        return first, second

    def inverted(self) -> RunDiff:
        """Return the difference seen from the other run: what was added is removed.

        Returns
        -------
        RunDiff
            Equal to that of the runs the other way round.
        """
        run, versions, config = (tuple(one.inverted() for one in told) for told in self.facts.values())
        return RunDiff(
            a=self.b,
            b=self.a,
            exact=self.exact,
            run=run,
            versions=versions,
            config=config,
            agents=self.agents.inverted(),
            messages=self.messages.inverted(),
            turns=self.turns.inverted(),
            tool_calls=self.tool_calls.inverted(),
            dialogs=self.dialogs.inverted(),
            costs=tuple(one.inverted() for one in self.costs),
            _frames=self._frames[::-1],
        )

    @property
    def frame(self) -> pd.DataFrame:
        """Every difference as a row: ``part``, ``op``, ``whose``, ``name``, ``a``, ``b``, and the ids of both rows."""
        from orchestrator_lab.comparing.tabular import differences

        return differences(self)

    def to_frames(self) -> dict[str, pd.DataFrame]:
        """Return both runs side by side, with what is the same.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``run``, ``versions``, ``config``: name, a, b of what differs. ``agents``, ``messages``, ``turns``,
            ``tool_calls``, ``dialogs``: all rows, ``op`` (``same`` and those of :class:`RowDiff`), each column of the
            table with ``_a`` and ``_b``. ``costs``: a row an agent, and one without a name for all; each of the totals
            with ``_a``, ``_b`` and ``_difference``.
        """
        from orchestrator_lab.comparing.tabular import frames

        return frames(self, self._frames)

    def to_dict(self) -> dict[str, Any]:
        """Return what differs as JSON can hold it.

        Returns
        -------
        dict
            With ``equal``.
        """
        from orchestrator_lab.comparing.tabular import plain

        return plain(self)

    def to_text(self) -> str:
        """Return all of it as plain text.

        Returns
        -------
        str
            Control characters of the runs' texts are shown as their pictures.
        """
        from orchestrator_lab.comparing.as_text import text_of

        return text_of(self, limit=None)

    def to_html(self) -> str:
        """Return a whole page with all of it.

        Returns
        -------
        str
            HTML without script or anything from elsewhere, for light and dark.
        """
        from orchestrator_lab.comparing.as_html import html_of
        from orchestrator_lab.reading.chat import page

        return page(self.title, html_of(self, limit=None, most=None))

    def __repr__(self) -> str:
        from orchestrator_lab.comparing.as_text import text_of

        return text_of(self, limit=12)

    def _repr_html_(self) -> str:
        from orchestrator_lab.comparing.as_html import html_of

        return html_of(self, limit=50, most=4000)


def compare(a: RunTables, b: RunTables, *, exact: bool = False) -> RunDiff:
    """Compare two runs as far as they have come.

    Parameters
    ----------
    a, b : RunTables
        The runs.
    exact : bool
        Compare what is expected to differ as well: ids, instants, durations, process ids, pane ids.

    Returns
    -------
    RunDiff
        What differs.
    """
    folders = [one.manifest.get("work_dir") for one in (a, b)]
    differ = folders[0] != folders[1]
    known = [one if differ and isinstance(one, str) and len(one) > 1 else None for one in folders]
    first, second = Side(a, known[0]), Side(b, known[1])
    with without_gc():
        turned = signature(second) < signature(first)
        if turned:
            first, second = second, first
        tables = compare_rows(first, second, exact=exact)
    of_first, of_second = first.tables, second.tables
    found = RunDiff(
        a=_said(of_first),
        b=_said(of_second),
        exact=exact,
        run=changes_of(run_facts(of_first, exact=exact), run_facts(of_second, exact=exact)),
        versions=changes_of(versions_of(of_first), versions_of(of_second)),
        config=_config(first, second, exact=exact),
        agents=tables["agents"],
        messages=tables["messages"],
        turns=tables["turns"],
        tool_calls=tables["tool_calls"],
        dialogs=tables["dialogs"],
        costs=tuple(_costs(first, second)),
        _frames=(first.frames, second.frames),
    )
    return found.inverted() if turned else found


def _config(a: Side, b: Side, *, exact: bool) -> tuple[Change, ...]:
    """Return what differs in the configuration; where the work folder is, is said once."""
    return tuple(
        one
        for one in changes_of(config_of(a.tables), config_of(b.tables))
        if exact or one.name.endswith("work_dir") or a.plain(one.a) != b.plain(one.b)
    )


def _said(tables: RunTables) -> Said:
    return Said(tables.run_id, str(tables.manifest.get("name") or "a run without a name"), tables.source)


def _costs(a: Side, b: Side) -> list[Total]:
    sums = [_sums(side) for side in (a, b)]
    names = [name for side in (a, b) for table, column in (("agents", "name"), ("turns", "agent"))
             for name in side.column(table, column)]  # fmt: skip
    agents = [name for name in dict.fromkeys(names) if name is not None]
    return [
        Total(agent, name, sums[0].get((agent, name)), sums[1].get((agent, name)))
        for agent in (*agents, None)
        for name in TOTALS
    ]


def _sums(side: Side) -> dict[tuple[str | None, str], float]:
    agents = side.column("turns", "agent")
    sums: dict[tuple[str | None, str], float] = {(None, "turns"): len(agents)}
    sums.update({(name, "turns"): 0 for name in side.column("agents", "name")})
    sums.update({(agent, "turns"): count for agent, count in Counter(agents).items()})
    for name in TOTALS[1:]:
        values: dict[str | None, list[float]] = {}
        for agent, value in zip(agents, side.column("turns", name), strict=True):
            if value is not None:
                values.setdefault(agent, []).append(value)
        everyone = [value for told in values.values() for value in told]
        for agent, told in ((None, everyone), *((one, told) for one, told in values.items() if one is not None)):
            if told:
                sums[agent, name] = round(fsum(told), 9) if name.endswith(("_usd", "_s")) else sum(told)
    return sums


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
