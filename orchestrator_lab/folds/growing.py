"""A table that grows with its journal: what is settled is kept in arrays, what may still change in a fold.

A frame of a long run is then put together of arrays that are there already and the few rows that are new, whatever
the length of the run.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from orchestrator_lab.casting import cast_array, to_values
from orchestrator_lab.folds.base import MALFORMED, warn_malformed
from orchestrator_lab.schema import build_frame, columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from orchestrator_lab.folds.base import Fold
    from orchestrator_lab.folds.bulk import Bulk
    from orchestrator_lab.journal.event import Event

__all__ = ["GrowingTable"]

#: Rows in the fold before those that are settled move on, and how many of the newest stay.
_MANY, _RECENT = 1024, 64
#: Rows that stay in the fold at most, settled or not; and rows that came back to it.
_MOST, _BACK = 8192, 512


class _Settled:
    """Rows in arrays of their final dtypes, in the order of their places."""

    def __init__(
        self, key: str | None, frame: pd.DataFrame, hidden: pd.DataFrame, places: np.ndarray[Any, Any]
    ) -> None:
        self.key, self.frame, self.hidden, self.places = key, frame, hidden, places
        self._ids: pa.Array | None = None
        self._order: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.places)

    def find(self, key: str) -> int | None:
        """Return the row with a key."""
        if self.key is None:
            return None
        ids = self._sorted_ids()
        count = len(ids) - ids.null_count

        def at(place: int) -> str:
            return str(ids[place if self._order is None else self._order[place].as_py()].as_py())

        place = bisect.bisect_left(range(count), key, key=at)
        if place == count or at(place) != key:
            return None
        return int(place if self._order is None else self._order[place].as_py())

    def row(self, number: int) -> dict[str, Any]:
        """Return a row as its fold had it."""
        wanted = slice(number, number + 1)
        return {
            name: to_values(frame[name].iloc[wanted])[0]
            for frame in (self.frame, self.hidden)
            for name in frame.columns
        }

    def _sorted_ids(self) -> pa.Array:
        """Return the keys; ids are made in the order of time, so they are seldom to be sorted."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._ids is None:
            ids = pa.array(self.frame[self.key], pa.large_string())
            if isinstance(ids, pa.ChunkedArray):
                ids = ids.combine_chunks()
            self._ids = ids
            rising = not ids.null_count and pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False
            self._order = None if rising else pc.sort_indices(ids)
        return self._ids


class GrowingTable:
    """One table of one run, as far as its events have been taken.

    Parameters
    ----------
    fold : Fold
        What makes it; without rows yet.
    run_id : str
        The run.

    Notes
    -----
    The *place* of a row is the ordinal of the event that opened it. Rows are ordered by their places; a row of the
    fold with the place of a settled one replaces it.
    """

    def __init__(self, fold: Fold, run_id: str) -> None:
        self.fold, self.run_id = fold, run_id
        #: Byte of the journal up to which events have been taken.
        self.offset = 0
        self._taken = 0
        self._plain = False
        self._places: list[int] = []
        #: Places of settled rows that came back to the fold.
        self._back: set[int] = set()
        self._settled: list[_Settled] = []
        self._kept: tuple[int, pd.DataFrame] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._settled)) + len(self._places) - len(self._back)

    @property
    def _last_place(self) -> int:
        return int(self._settled[-1].places[-1]) if self._settled else -1

    @property
    def is_plain(self) -> bool:
        """Whether all rows are in the fold."""
        return not self._settled

    @property
    def is_fresh(self) -> bool:
        """Whether it may be loaded at once: nothing was taken yet, and nobody wants the fold."""
        return not (self._taken or self.offset or self._plain)

    def keep_plain(self) -> None:
        """Keep all rows in the fold from now on, for those who look at them there."""
        self._plain = True

    def take(self, events: Iterable[Event]) -> None:
        """Take events that follow those taken before.

        Parameters
        ----------
        events : iterable of Event
            Those that the fold does not know pass by.
        """
        if not self.fold.handlers:  # it wants all
            before = len(self.fold)
            self.fold.update(events)
            self._places += range(self._taken, self._taken + len(self.fold) - before)
            self._taken += len(self.fold) - before
            return
        known = [event for event in events if event.event in self.fold.handlers]
        self._bring_back(known)
        for event in known:
            self._handle(event, self._taken)
            self._taken += 1

    def load(self, bulk: Bulk) -> None:
        """Take all that a journal says, at once, instead of its events.

        Parameters
        ----------
        bulk : Bulk
            From the first line on.
        """
        import pandas as pd

        if self.fold.handlers:
            for line, event in bulk.odd:
                self._handle(event, line)
        else:
            odd = {line for line, _ in bulk.odd}
            for line, event in sorted((*bulk.odd, *bulk.known), key=lambda one: one[0]):
                if line in odd:
                    self.fold.update([event])
                    self._places.append(line)
                else:
                    self.fold.note(event)
        count = len(bulk.places)
        if count:
            hidden = {name: bulk.columns[name] for name in self.fold.hidden}
            self._settled = [
                _Settled(
                    self.fold.key,
                    self._frame({name: cast for name, cast in bulk.columns.items() if name not in hidden}, count),
                    pd.DataFrame(
                        {name: _plain(values) for name, values in hidden.items()},
                        index=pd.RangeIndex(count),
                        copy=False,
                    ),
                    bulk.places,
                )
            ]
        self._taken = bulk.lines
        self._kept = None

    def settle(self) -> None:
        """Move rows of which nothing more is expected from the fold into arrays."""
        count = len(self._places)
        if self._plain or not self.fold.grows or count < _MANY:
            return
        last = self._last_place
        over = max(0, count - _MOST)
        settled = self.fold.settled()
        ripe = [
            row
            for row in range(count - _RECENT)
            if self._places[row] > last and (settled[row] or (row < over and self.fold.key is not None))
        ]
        if len(ripe) >= _MANY // 2:
            self._settle(ripe)
        if sum(place <= self._last_place for place in self._places) > _BACK:
            self._rebuild()

    def frame(self) -> pd.DataFrame:
        """Return the table so far.

        Returns
        -------
        pandas.DataFrame
            With ``run_id``; not to be changed, since it is kept.
        """
        if self._kept is None or self._kept[0] != self._taken:
            self.settle()
            self._kept = (self._taken, self._whole())
        return self._kept[1]

    def columns(self) -> dict[str, list[Any]]:
        """Return the table so far as plain lists.

        Returns
        -------
        dict of str to list
            With ``run_id``; instants are ISO 8601 texts.
        """
        if self.is_plain:
            return {"run_id": [self.run_id] * len(self.fold), **self.fold.columns()}
        frame = self.frame()
        return {name: to_values(frame[name]) for name in frame.columns}

    def total(self, name: str) -> Any:  # noqa: ANN401 - a number
        """Return the sum of a column.

        Parameters
        ----------
        name : str
            A column of numbers that is no duration.

        Returns
        -------
        int, float or None
            None when nothing is known.
        """
        if not self.is_plain:
            values = self.frame()[name].dropna().tolist()
        else:
            values = [value for value in self.fold.cells(name) if value is not None]
        return sum(values) if values else None

    # rows -----------------------------------------------------------------------------------------------------

    def _handle(self, event: Event, place: int) -> None:
        handler = self.fold.handlers.get(event.event)
        if handler is None:
            return
        try:
            handler(event)
        except MALFORMED as error:
            warn_malformed(event, error)
        while len(self._places) < len(self.fold):
            self._places.append(place)

    def _bring_back(self, events: list[Event]) -> None:
        """Return settled rows to the fold that these events are about."""
        if not self._settled or self.fold.key is None:
            return
        for key in dict.fromkeys(map(self.fold.key_of, events)):
            if not isinstance(key, str) or self.fold.knows(key):
                continue
            for part in reversed(self._settled):
                row = part.find(key)
                if row is not None:
                    self.fold.restore(part.row(row))
                    self._places.append(int(part.places[row]))
                    self._back.add(self._places[-1])
                    break

    def _moved(self, rows: list[int]) -> _Settled:
        """Take rows out of the fold, into arrays."""
        import numpy as np
        import pandas as pd

        known = self.fold.everything(rows)
        hidden = pd.DataFrame({name: known.pop(name) for name in self.fold.hidden}, index=pd.RangeIndex(len(rows)))
        frame = build_frame(self.fold.table, {"run_id": [self.run_id] * len(rows), **known})
        places = np.array([self._places[row] for row in rows], np.int64)
        gone = set(rows)
        self.fold.forget(gone)
        self._places = [place for row, place in enumerate(self._places) if row not in gone]
        return _Settled(self.fold.key, frame, hidden, places)

    def _settle(self, rows: list[int]) -> None:
        self._settled.append(self._moved(rows))
        # Few parts, each much longer than the next: that keeps both looking for rows and joining parts cheap.
        while len(self._settled) > 1 and len(self._settled[-2]) < 2 * len(self._settled[-1]):
            one, other = self._settled[-2:]
            self._settled[-2:] = [_joined(one, other)]

    def _rebuild(self) -> None:
        """Take the rows that came back to the fold among the settled ones again."""
        import numpy as np
        import pandas as pd

        last, settled = self._last_place, self.fold.settled()
        rows = [row for row, place in enumerate(self._places) if place <= last and settled[row]]
        if len(rows) <= _BACK // 2:
            return
        back = self._moved(rows)
        whole = self._settled[0]
        for part in self._settled[1:]:
            whole = _joined(whole, part)
        stays = ~np.isin(whole.places, back.places)
        places = np.concatenate([whole.places[stays], back.places])
        order = np.argsort(places, kind="stable")
        frame, hidden = (
            pd.concat([one[stays], other], ignore_index=True).take(order).reset_index(drop=True)
            for one, other in ((whole.frame, back.frame), (whole.hidden, back.hidden))
        )
        self._settled = [_Settled(self.fold.key, frame, hidden, places[order])]
        self._back -= set(back.places.tolist())

    # frames ---------------------------------------------------------------------------------------------------

    def _frame(self, columns: dict[str, Any], count: int) -> pd.DataFrame:
        import pandas as pd
        import pyarrow as pa

        columns = {"run_id": pa.repeat(pa.scalar(self.run_id, pa.large_string()), count), **columns}
        data = {
            column.name: cast_array(columns.get(column.name), column, count) for column in columns_of(self.fold.table)
        }
        return pd.DataFrame(data, index=pd.RangeIndex(count), copy=False)

    def _whole(self) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        columns = {"run_id": [self.run_id] * len(self.fold), **self.fold.columns()}
        new = build_frame(self.fold.table, columns)
        if self.is_plain:
            return new
        places = np.array(self._places, np.int64)
        if (places[1:] < places[:-1]).any():
            order = np.argsort(places, kind="stable")
            new, places = new.take(order), places[order]
        pieces: list[pd.DataFrame] = []
        taken = 0
        for part in self._settled:
            begin = 0
            while taken < len(places) and places[taken] <= part.places[-1]:
                row = int(np.searchsorted(part.places, places[taken]))
                pieces += [part.frame.iloc[begin:row], new.iloc[taken : taken + 1]]
                begin = row + int(part.places[row] == places[taken])
                taken += 1
            pieces.append(part.frame.iloc[begin:])
        pieces.append(new.iloc[taken:])
        return pd.concat([piece for piece in pieces if len(piece)], ignore_index=True)


def _joined(one: _Settled, other: _Settled) -> _Settled:
    import numpy as np
    import pandas as pd

    return _Settled(
        one.key,
        pd.concat([one.frame, other.frame], ignore_index=True),
        pd.concat([one.hidden, other.hidden], ignore_index=True),
        np.concatenate([one.places, other.places]),
    )


def _plain(values: Any) -> Any:  # noqa: ANN401 - an array
    """Return a hidden column for a frame."""
    import pyarrow as pa

    return values.to_pandas() if isinstance(values, pa.Array | pa.ChunkedArray) else values
