"""Pages of a journal and of its tables: what a browser asks for piece by piece, however long the run is."""

from __future__ import annotations

import bisect
import json
import threading
from typing import TYPE_CHECKING, Any

from orchestrator_lab.journal.reader import JournalReader
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from orchestrator_lab.folds.base import Fold

__all__ = ["EventPages", "message_page", "table_page"]

#: Lines between two entries of the index.
_STEP = 500
#: Lines that are read for one page at most; a page with a filter may end early, and says so.
_SCANNED = 50_000


class EventPages:
    """The events of a journal, by sequence number.

    A sparse index of where lines begin is kept and grows with the journal; nothing else is held.

    Parameters
    ----------
    path : Path
        The ``journal.jsonl``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reader = JournalReader(path)
        self._lines = 0
        self._seqs: list[int] = []
        self._offsets: list[int] = []
        self._last = b""

    def page(
        self, since: int | None, limit: int, *, agent: str | None = None, prefix: str | None = None
    ) -> tuple[list[dict[str, Any]], int, bool]:
        """Return events.

        Parameters
        ----------
        since : int or None
            Only those after this number; the latest when None.
        limit : int
            At most so many.
        agent, prefix : str, optional
            Only those of an agent; only those whose name begins so.

        Returns
        -------
        tuple of (list of dict, int, bool)
            The events, oldest first; the number up to which the journal was read; whether there is more: behind it,
            or for the latest before them (also where nobody looked: a page with a filter reads so far and no farther).
        """
        with self._lock:
            last = self._grow()
            seqs, offsets = tuple(self._seqs), tuple(self._offsets)

        def fits(event: dict[str, Any]) -> bool:
            return (agent is None or event.get("agent") == agent) and (
                prefix is None or str(event["event"]).startswith(prefix)
            )

        if since is None:
            found, more = self._latest(seqs, offsets, last, limit, fits)
            return found, last, more
        place = bisect.bisect_right(seqs, since) - 1
        offset = offsets[place] if place >= 0 else 0
        found = []
        read = since
        for scanned, line in enumerate(_lines(self._path, offset)):
            event = json.loads(line)
            if event["seq"] <= since:
                continue
            if event["seq"] > last:
                break
            if len(found) >= limit or scanned > _SCANNED + _STEP:
                return found, read, True
            read = event["seq"]
            if fits(event):
                found.append(event)
        return found, max(read, min(last, since)), False

    def _latest(
        self,
        seqs: Sequence[int],
        offsets: Sequence[int],
        last: int,
        limit: int,
        fits: Callable[[dict[str, Any]], bool],
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return the latest events that fit, and whether there may be more before them: from the end, step by step."""
        found: list[dict[str, Any]] = []
        for back, place in enumerate(reversed(range(len(offsets)))):
            if back * _STEP >= _SCANNED:
                return found, True
            end = seqs[place + 1] if place + 1 < len(seqs) else last + 1
            here: list[dict[str, Any]] = []
            for line in _lines(self._path, offsets[place]):
                event = json.loads(line)
                if event["seq"] >= end:
                    break
                if fits(event):
                    here.append(event)
            found = here + found
            if len(found) > limit:
                return found[-limit:], True
        return found, False

    def _grow(self) -> int:
        """Take in what is new; return the number of the last event."""
        for offset, line in self._reader.lines():
            if self._lines % _STEP == 0:
                self._seqs.append(int(json.loads(line)["seq"]))
                self._offsets.append(offset)
            self._lines += 1
            self._last = line
        return int(json.loads(self._last)["seq"]) if self._last else 0


def _lines(path: Path, offset: int) -> Iterator[bytes]:
    for _, line in JournalReader(path, offset=offset).lines():
        yield line


def message_page(
    fold: Fold,
    *,
    since: int | None = None,
    before: int | None = None,
    limit: int = 100,
    agent: str | None = None,
    status: str | None = None,
    contains: str | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """Return messages: those after `since`, oldest first, or else the latest (before `before`).

    Parameters
    ----------
    fold : Fold
        The messages table.
    since, before : int, optional
        Sequence numbers.
    limit : int
        At most so many.
    agent, status, contains : str, optional
        Only of or to an agent; only on this rung; only with this text.

    Returns
    -------
    tuple of (list of dict, bool)
        The messages, oldest first, and whether there are more in that direction.
    """
    seqs, senders, recipients = fold.cells("seq"), fold.cells("sender"), fold.cells("recipient")
    statuses, contents = fold.cells("status"), fold.cells("content")
    low = 0 if since is None else bisect.bisect_right(seqs, since)
    high = len(seqs) if before is None else bisect.bisect_left(seqs, before)
    wanted = contains.casefold() if contains is not None else None

    def fits(row: int) -> bool:
        return (
            (agent is None or agent in {senders[row], recipients[row]})
            and (status is None or statuses[row] == status)
            and (wanted is None or wanted in str(contents[row] or "").casefold())
        )

    rows, more = _take(range(low, high) if since is not None else range(high - 1, low - 1, -1), limit, fits)
    if since is None:
        rows.reverse()
    ids = fold.cells("message_id")
    return [found for row in rows if (found := fold.row(str(ids[row]))) is not None], more


def table_page(
    fold: Fold, table: str, *, offset: int | None, limit: int, agent: str | None
) -> tuple[list[dict[str, Any]], int, int]:
    """Return rows of a table: from `offset` on, or the latest.

    Returns
    -------
    tuple of (list of dict, int, int)
        The rows, the place of the first one, and how many there are.
    """
    columns = fold.columns()
    whose = next((name for name in ("agent", "name") if name in columns), None)
    if agent is None or whose is None:
        chosen: Sequence[int] = range(len(fold))
    else:
        chosen = [row for row, name in enumerate(columns[whose]) if name == agent]
    first = max(0, len(chosen) - limit) if offset is None else min(offset, len(chosen))
    names = [column.name for column in TABLES[table] if column.name in columns]
    rows = [{name: columns[name][row] for name in names} for row in chosen[first : first + limit]]
    return rows, first, len(chosen)


def _take(rows: range, limit: int, fits: Callable[[int], bool]) -> tuple[list[int], bool]:
    found: list[int] = []
    for row in rows:
        if fits(row):
            if len(found) == limit:
                return found, True
            found.append(row)
    return found, False
