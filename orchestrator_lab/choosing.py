"""Which rows of a table are wanted: of some agents, since an instant, with some values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.schema import columns_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Choice"]

#: The columns that name agents, where it is not ``agent``; and when a row begins, where it is not ``started_at``.
_AGENTS = {"messages": ("sender", "recipient"), "agents": ("name",), "runs": ()}
_BEGINS = {"messages": "queued_at", "dialogs": "opened_at", "alerts": "opened_at", "processes": "at", "events": "at"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows of one table, by :meth:`of`.

    Parameters
    ----------
    agents : tuple of (str, list of str)
        Columns of which one is to hold one of the names.
    since : tuple of (str, object) or None
        A column, and what its values are to be from on (an instant), or behind (a ``seq``).
    where : tuple of (str, list)
        Columns, and the values of which each is to hold one; None is NA.
    """

    agents: tuple[tuple[str, list[str]], ...] = ()
    since: tuple[str, Any] | None = None
    where: tuple[tuple[str, list[Any]], ...] = ()

    @classmethod
    def of(cls, table: str, agents: list[str] | None, since: object, where: Mapping[str, Any] | None) -> Choice:
        """Check what is asked of a table.

        Parameters
        ----------
        table : str
            Name of the table.
        agents : list of str or None
            Names of agents.
        since : int, datetime, str or None
            A ``seq``, or an instant.
        where : mapping or None
            Values by column.

        Returns
        -------
        Choice
            All rows when nothing is asked.

        Raises
        ------
        ConfigError
            When the table has no such column, or an instant is none.

        Examples
        --------
        >>> Choice.of("messages", ["boss"], None, {"status": "answered"}).columns
        ['sender', 'recipient', 'status']
        """
        names = _AGENTS.get(table, ("agent",)) if agents is not None else ()
        return cls(
            tuple((name, agents or []) for name in names),
            None if since is None else _since(table, since),
            () if not where else tuple(_where(table, where)),
        )

    @property
    def columns(self) -> list[str]:
        """The columns that decide."""
        since = () if self.since is None else (self.since[0],)
        return list(dict.fromkeys((*(name for name, _ in self.agents), *since, *(name for name, _ in self.where))))

    def filters(self) -> list[list[tuple[str, str, Any]]] | None:
        """Return what a reader of Parquet files may leave out by itself: filters in disjunctive normal form."""
        also: list[tuple[str, str, Any]] = []
        if self.since is not None:
            column, value = self.since
            also.append((column, ">" if column == "seq" else ">=", value))
        # Of other types than text, a reader would want each value in the type of its file.
        also += [(name, "in", values) for name, values in self.where if values and all(map(_is_text, values))]
        if not self.agents:
            return [also] if also else None
        # No name at all fits nothing.
        return [[(column, "in", names or [""]), *also] for column, names in self.agents]

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that are wanted.

        Parameters
        ----------
        frame : pandas.DataFrame
            The table, with :attr:`columns`.

        Returns
        -------
        pandas.DataFrame
            The frame itself when all are wanted, otherwise a new one; with the same ``.attrs``.
        """
        if not self.columns:
            return frame
        import pandas as pd

        keep = pd.Series(not self.agents, index=frame.index, dtype=bool)
        for column, names in self.agents:
            keep |= frame[column].isin(names)
        if self.since is not None:
            column, value = self.since
            keep &= ((frame[column] > value) if column == "seq" else (frame[column] >= value)).fillna(value=False)
        for column, values in self.where:
            known = [value for value in values if not _is_na(value)]
            fits = frame[column].isin(known)
            if len(known) < len(values):
                fits |= frame[column].isna()
            keep &= fits
        chosen = frame[keep.astype(bool)].reset_index(drop=True)
        chosen.attrs = frame.attrs
        return chosen


def _since(table: str, since: object) -> tuple[str, Any]:
    names = [column.name for column in columns_of(table)]
    if isinstance(since, int) and not isinstance(since, bool):
        if "seq" not in names:
            raise ConfigError(f"since={since}: the table {table!r} has no seq; give an instant, such as a started_at")
        return "seq", since
    instant = since
    if isinstance(since, str):
        try:
            instant = datetime.fromisoformat(since)
        except ValueError:
            instant = None
    if not isinstance(instant, datetime):
        raise ConfigError(
            f"since={since!r}: expected a seq of the journal, an instant, or its text such as 2026-01-31T12:00:00Z"
        )
    return _BEGINS.get(table, "started_at"), instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _where(table: str, where: Mapping[str, Any]) -> Iterable[tuple[str, list[Any]]]:
    if not isinstance(where, Mapping):
        raise ConfigError(f"where={where!r}: expected a mapping of columns to values, such as {{'status': 'answered'}}")
    have = [column.name for column in columns_of(table)]
    for name, wanted in where.items():
        if name not in have:
            close = difflib.get_close_matches(str(name), have, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"where: the table {table!r} has no column {name!r}{meant}; it has: {', '.join(have)}")
        single = isinstance(wanted, str | Mapping) or not isinstance(wanted, Iterable)
        yield name, [wanted] if single else list(wanted)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_na(value: object) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_scalar(value) and pd.isna(value))  # type: ignore[call-overload]
