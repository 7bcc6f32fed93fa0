"""What all folds share."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Self

from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestrator_lab.journal.event import Event

    Handler = Callable[[Event], None]

__all__ = ["MALFORMED", "Fold", "as_amount", "as_count", "as_json", "spans", "warn_malformed"]

logger = logging.getLogger(__name__)

#: What a handler raises on an event whose attributes are not of the types that they should be.
MALFORMED = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


class Fold:
    """Base of all folds: columns of one table, and what to do for each kind of event.

    Attributes
    ----------
    table : str
        Name of the table.
    handlers : dict of str to callable
        What takes an event, by event name. Unknown events pass by.
    """

    table: ClassVar[str]
    #: The column by whose value rows are found, if they are.
    key: ClassVar[str | None] = None
    #: Whether a long run makes many rows.
    grows: ClassVar[bool] = True
    #: Of events that come in great numbers: what the fold reads of their attributes, and what it is.
    reads: ClassVar[dict[str, dict[str, str]]] = {}
    #: Columns kept beside those of the table, such as clock readings for durations.
    hidden: ClassVar[tuple[str, ...]] = ()
    #: Columns that a fold does not know.
    derived: ClassVar[tuple[str, ...]] = ("run_id",)
    #: Durations: from which clock reading to which, by the clock that never jumps.
    durations: ClassVar[dict[str, tuple[str, str]]] = {}

    def __init__(self) -> None:
        unknown = {*self.derived, *self.durations}
        names = [column.name for column in TABLES[self.table] if column.name not in unknown]
        self._cells: dict[str, list[Any]] = {name: [] for name in (*names, *self.hidden)}
        self._appends = [(name, cells.append) for name, cells in self._cells.items()]
        self._rows: dict[str, int] = {}
        self._length = 0
        self.handlers: dict[str, Handler] = {}

    def __len__(self) -> int:
        return self._length

    def fresh(self) -> Self:
        """Return a fold of the same table, without rows."""
        return type(self)()

    def update(self, events: Iterable[Event]) -> Self:
        """Take more events, in the order of the journal.

        Parameters
        ----------
        events : iterable of Event
            Those that follow the ones taken before.

        Returns
        -------
        Fold
            Itself.
        """
        get = self.handlers.get
        for event in events:
            handler = get(event.event)
            if handler is not None:
                try:
                    handler(event)
                except MALFORMED as error:
                    warn_malformed(event, error)
        return self

    def columns(self) -> dict[str, list[Any]]:
        """Return the table so far, one list a column, without ``run_id``.

        Returns
        -------
        dict of str to list
            All of one length; None where a value is not known. Not to be changed.
        """
        columns = {name: cells for name, cells in self._cells.items() if name not in self.hidden}
        for name, (start, end) in self.durations.items():
            columns[name] = spans(self._cells[start], self._cells[end])
        return columns

    def cells(self, name: str) -> list[Any]:
        """Return one column so far, which costs nothing.

        Parameters
        ----------
        name : str
            A column that is no duration.

        Returns
        -------
        list
            One value a row. Not to be changed.
        """
        return self._cells[name]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table so far, one dict a row.

        Returns
        -------
        list of dict
            In the order of the table.
        """
        columns = self.columns()
        names = list(columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def row(self, key: str) -> dict[str, Any] | None:
        """Return one row by its id.

        Parameters
        ----------
        key : str
            The ``message_id``, ``turn_id``, ``tool_call_id`` or ``dialog_id``.

        Returns
        -------
        dict or None
            The columns of :meth:`columns`; None when there is no such row.
        """
        found = self._rows.get(key)
        if found is None:
            return None
        row = {name: cells[found] for name, cells in self._cells.items() if name not in self.hidden}
        for name, (start, end) in self.durations.items():
            begun, ended = self._cells[start][found], self._cells[end][found]
            row[name] = spans([begun], [ended])[0]
        return row

    def key_of(self, event: Event) -> str | None:  # noqa: ARG002 - see the folds that have one
        """Return the key of the row that an event is about; None where rows are not found by one."""
        return None

    def note(self, event: Event) -> None:
        """Take an event whose row is kept elsewhere, for what it says of those that follow.

        Parameters
        ----------
        event : Event
            Of a table of all events.
        """

    def knows(self, key: str) -> bool:
        """Return whether there is a row with a key."""
        return key in self._rows

    def settled(self) -> list[bool]:
        """Return, by row, whether nothing more is expected of it.

        Returns
        -------
        list of bool
            Later evidence may still come.
        """
        return [self._settled(row) for row in range(self._length)]

    def everything(self, rows: Sequence[int]) -> dict[str, list[Any]]:
        """Return some rows with all that is known of them, hidden columns included.

        Parameters
        ----------
        rows : sequence of int
            Numbers of rows.

        Returns
        -------
        dict of str to list
            Columns, without ``run_id``; :meth:`restore` takes one of its rows.
        """
        columns = {**self.columns(), **{name: self._cells[name] for name in self.hidden}}
        return {name: [cells[row] for row in rows] for name, cells in columns.items()}

    def forget(self, rows: Iterable[int]) -> None:
        """Drop rows that are kept elsewhere.

        Parameters
        ----------
        rows : iterable of int
            Numbers of rows; those that stay are numbered anew, in their order.
        """
        gone = set(rows)
        kept = [row for row in range(self._length) if row not in gone]
        new = {row: number for number, row in enumerate(kept)}
        for cells in self._cells.values():  # handlers hold these very lists
            cells[:] = [cells[row] for row in kept]
        self._rows = {key: new[row] for key, row in self._rows.items() if row in new}
        self._length = len(kept)
        self._renumber(new)

    def restore(self, values: dict[str, Any]) -> None:
        """Take back a row that was dropped.

        Parameters
        ----------
        values : dict
            What :meth:`everything` said of it.
        """
        self._add(values[self.key] if self.key is not None else None, values)

    def _settled(self, row: int) -> bool:  # noqa: ARG002 - see the folds whose rows change
        return True

    def _renumber(self, new: dict[int, int]) -> None:
        """Take the new numbers of the rows that stay."""

    def _add(self, key: str | None, values: dict[str, Any]) -> int:
        row = self._length
        get = values.get
        for name, append in self._appends:
            append(get(name))
        self._length = row + 1
        if key is not None:
            self._rows[key] = row
        return row


def spans(starts: Sequence[float | None], ends: Sequence[float | None]) -> list[float | None]:
    """Return the seconds from start to end, row by row."""
    return [
        None if start is None or end is None else round(end - start, 6) for start, end in zip(starts, ends, strict=True)
    ]


def as_json(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Text stays text; any other value becomes JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_count(value: object) -> int | None:
    """Return a count, or None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_amount(value: object) -> float | None:
    """Return an amount of money, or None for what is none."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return float(value) if known else None  # type: ignore[arg-type]


def warn_malformed(event: Event, error: Exception) -> None:
    """Say which event no table could take; the others are read on."""
    logger.warning("event %s (%s) is malformed and was left out of a table: %s", event.seq, event.event, error)
