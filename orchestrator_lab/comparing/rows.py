"""Rows of two runs: which is which, and what is not the same in them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator_lab.comparing.aligning import Effort, Items, align, match_items
from orchestrator_lab.comparing.facts import Change
from orchestrator_lab.comparing.sides import COMPARED, IDS
from orchestrator_lab.reading.entries import ids_of
from orchestrator_lab.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from orchestrator_lab.comparing.sides import Side

__all__ = ["RowDiff", "TableDiff", "compare_rows", "signature"]

Matches = list[tuple[int, int, bool]]

#: What a row of each table says, and whose it is.
_TEXTS = {"agents": "role", "messages": "content", "turns": "reply", "tool_calls": "input", "dialogs": "subject"}
_WHOSE = {
    "agents": ("name",),
    "messages": ("sender", "recipient"),
    "turns": ("agent",),
    "tool_calls": ("agent", "name"),
    "dialogs": ("agent", "kind"),
}


@dataclass(frozen=True, slots=True)
class RowDiff:
    """A row that is not the same in both runs.

    Parameters
    ----------
    op : str
        ``removed`` (only in the first run), ``added`` (only in the second), ``changed``, or ``moved``: it stands
        elsewhere in its conversation or turn, and may have changes as well.
    whose : tuple of str
        The agent, or sender and recipient, or agent and tool.
    a, b : int or None
        The row's place in the table of each run, from 0; None where it is not.
    id_a, id_b : str or None
        Its id in each.
    text_a, text_b : str or None
        What it says in each: content, reply, input, subject, or an agent's role.
    changes : tuple of Change
        By column. ``rungs`` are those that a message came to; ``in_reply_to`` and ``answers`` name messages by number.
    """

    op: str
    whose: tuple[str, ...]
    a: int | None
    b: int | None
    id_a: str | None
    id_b: str | None
    text_a: str | None
    text_b: str | None
    changes: tuple[Change, ...] = ()

    def inverted(self) -> RowDiff:
        """Return the same, seen from the other run."""
        op = {"removed": "added", "added": "removed"}.get(self.op, self.op)
        changes = tuple(change.inverted() for change in self.changes)
        return RowDiff(op, self.whose, self.b, self.a, self.id_b, self.id_a, self.text_b, self.text_a, changes)


@dataclass(frozen=True, slots=True)
class TableDiff:
    """One table of two runs.

    Parameters
    ----------
    table : str
        Its name.
    pairs : tuple of (int or None, int or None)
        Every row of both runs, by its place in each; None where it is not.
    rows : tuple of RowDiff
        Those that are not the same.
    """

    table: str
    pairs: tuple[tuple[int | None, int | None], ...]
    rows: tuple[RowDiff, ...]

    @property
    def same(self) -> int:
        """How many rows are the same."""
        return len(self.pairs) - len(self.rows)

    def inverted(self) -> TableDiff:
        """Return the same, seen from the other run."""
        pairs = tuple((b, a) for a, b in self.pairs)
        return TableDiff(self.table, pairs, tuple(row.inverted() for row in self.rows))


def signature(side: Side) -> tuple[list[Any], ...]:
    """Return all that decides which row is which: two runs are put into an order by it.

    So the first of two runs is always the same one, whichever way round they are compared, and both ways agree.
    """
    messages, turns = side.places("messages"), side.places("turns")
    groups: dict[object, int] = {}
    conversations = [groups.setdefault(one, len(groups)) for one in side.column("messages", "conversation_id")]
    return (
        side.keys("agents", "name"),
        side.keys("messages", *_WHOSE["messages"], "content"),
        conversations,
        [turns.get(one, -1) for one in side.column("messages", "turn_id")],
        [messages.get(one, -1) for one in side.column("messages", "in_reply_to")],
        side.keys("turns", "agent", "reply"),
        *(side.keys(table, *_WHOSE[table], _TEXTS[table]) for table in ("tool_calls", "dialogs")),
        *([turns.get(one, -1) for one in side.column(table, "turn_id")] for table in ("tool_calls", "dialogs")),
    )


def compare_rows(a: Side, b: Side, *, exact: bool) -> dict[str, TableDiff]:
    """Align the rows of two runs and say what is not the same.

    Parameters
    ----------
    a, b : Side
        The runs.
    exact : bool
        Compare every column as it is, ids, instants and durations too.

    Returns
    -------
    dict of str to TableDiff
        By table.
    """
    effort = Effort()
    matches: dict[str, Matches] = {"messages": _messages(a, b, effort)}
    matches["turns"] = _turns(a, b, matches["messages"], effort)
    for table in ("tool_calls", "dialogs"):
        matches[table] = _of_turns(a, b, table, matches["turns"], effort)
    names = _items(a, "agents", "name"), _items(b, "agents", "name")
    agents = match_items(names, (range(a.count("agents")), range(b.count("agents"))), effort)
    matches["agents"] = [(i, j, False) for i, j, _ in agents]  # their order says nothing
    partner = {table: {i: j for i, j, _ in found} for table, found in matches.items()}
    return {table: _table(a, b, table, matches[table], partner["messages"], exact=exact) for table in IDS}


# which is which ---------------------------------------------------------------------------------


def _items(side: Side, table: str, *whose: str) -> Items:
    """Return rows as what they say, whose they are, and the text that tells how alike they are."""
    keys = side.keys(table, *whose, _TEXTS[table]) if table != "agents" else side.keys(table, *whose)
    return Items(keys, [key[: len(whose)] for key in keys], [key[-1] for key in keys])


def _messages(a: Side, b: Side, effort: Effort) -> Matches:
    items = _items(a, "messages", *_WHOSE["messages"]), _items(b, "messages", *_WHOSE["messages"])
    groups = [list(_groups(enumerate(side.column("messages", "conversation_id"))).values()) for side in (a, b)]
    talks = _talks(items[0], groups[0]), _talks(items[1], groups[1])
    found: Matches = []
    for x, y, _ in match_items(talks, (range(len(groups[0])), range(len(groups[1]))), effort):
        found += match_items(items, (groups[0][x], groups[1][y]), effort)
    return found


def _talks(messages: Items, groups: list[list[int]]) -> Items:
    """Return conversations: the same when all is, and any may be a version of any."""
    whole = [tuple(messages.key[place] for place in places) for places in groups]
    beginnings = [" ".join(messages.text[place] for place in places[:8]) for places in groups]
    return Items(whole, [""] * len(groups), beginnings)


def _turns(a: Side, b: Side, messages: Matches, effort: Effort) -> Matches:
    """Match the turns that answer the same message, and by their order those that nobody asked for."""
    asked = _asked(a), _asked(b)
    found: Matches = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for i, j, _ in messages:
        x, y = asked[0][i], asked[1][j]
        if x >= 0 and y >= 0 and x not in taken[0] and y not in taken[1]:
            found.append((x, y, False))
            taken[0].add(x)
            taken[1].add(y)
    items = _items(a, "turns", "agent"), _items(b, "turns", "agent")
    agents = [side.column("turns", "agent") for side in (a, b)]

    def free(but: tuple[set[int], set[int]]) -> Iterator[tuple[list[int], list[int]]]:
        groups = [
            _groups((place, agent) for place, agent in enumerate(names) if place not in gone)
            for names, gone in zip(agents, but, strict=True)
        ]
        yield from ((places, groups[1][agent]) for agent, places in groups[0].items() if agent in groups[1])

    for of_a, of_b in free(taken):  # whose message was removed, or is not known: the very same turn
        for x, y in align([items[0].key[i] for i in of_a], [items[1].key[j] for j in of_b], effort):
            found.append((of_a[x], of_b[y], False))
            taken[0].add(of_a[x])
            taken[1].add(of_b[y])
    for of_a, of_b in free((taken[0] | set(asked[0]), taken[1] | set(asked[1]))):
        found += [(i, j, False) for i, j, _ in match_items(items, (of_a, of_b), effort)]
    return found


def _asked(side: Side) -> list[int]:
    """Return the place of the turn that answers each message, -1 when there is none."""
    places = side.places("turns")
    return [places.get(one, -1) for one in side.column("messages", "turn_id")]


def _groups(pairs: Iterable[tuple[int, Hashable]]) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, value in pairs:
        groups[value].append(place)
    return dict(groups)


def _of_turns(a: Side, b: Side, table: str, turns: Matches, effort: Effort) -> Matches:
    """Match the tool calls or dialogs of turns that are matched, and those of no turn by agent."""
    items = _items(a, table, *_WHOSE[table]), _items(b, table, *_WHOSE[table])
    of_a, of_b = _by_turn(a, table), _by_turn(b, table)
    same = [(x, y) for x, y, _ in turns if x in of_a and y in of_b]
    outside = [(one, one) for one in of_a if isinstance(one, str) and one in of_b]
    found: Matches = []
    for x, y in (*same, *outside):
        found += match_items(items, (of_a[x], of_b[y]), effort)
    return found


def _by_turn(side: Side, table: str) -> dict[Hashable, list[int]]:
    """Return rows by the place of their turn, or by their agent's name where there is none."""
    places = side.places("turns")
    turns = (places.get(one) for one in side.column(table, "turn_id"))
    agents = side.column(table, "agent")
    return _groups((row, str(agents[row]) if turn is None else turn) for row, turn in enumerate(turns))


# what is not the same ---------------------------------------------------------------------------


def _table(a: Side, b: Side, table: str, matches: Matches, messages: dict[int, int], *, exact: bool) -> TableDiff:
    moved = {(i, j) for i, j, elsewhere in matches if elsewhere}
    pairs = _in_order(matches, a.count(table), b.count(table))
    changes = _changes(a, b, table, [(i, j) for i, j, _ in matches], messages, exact=exact)
    rows = []
    for i, j in pairs:
        told = () if i is None or j is None else tuple(changes.get((i, j), ()))
        if i is None or j is None:
            op = "added" if i is None else "removed"
        elif (i, j) in moved:
            op = "moved"
        elif told:
            op = "changed"
        else:
            continue
        side, place = (b, j) if i is None else (a, i)
        whose = tuple(str(side.column(table, name)[place or 0] or "?") for name in _WHOSE[table])
        ids = (_at(a, table, IDS[table], i), _at(b, table, IDS[table], j))
        texts = (_at(a, table, _TEXTS[table], i), _at(b, table, _TEXTS[table], j))
        rows.append(RowDiff(op, whose, i, j, *ids, *texts, told))
    return TableDiff(table, tuple(pairs), tuple(rows))


def _at(side: Side, table: str, column: str, place: int | None) -> str | None:
    return None if place is None else side.column(table, column)[place]


def _in_order(matches: Matches, a_count: int, b_count: int) -> list[tuple[int | None, int | None]]:
    """Return all rows of both in the order of the first, what is new behind what it follows in the second."""
    of_a = {i: (j, moved) for i, j, moved in matches}
    of_b = {j: (i, moved) for i, j, moved in matches}
    placed: list[tuple[tuple[int, int, int], tuple[int | None, int | None]]] = []
    for i in range(a_count):
        j, moved = of_a.get(i, (None, False))
        if not moved:
            placed.append(((i, 0, 0), (i, j)))
    last = -1
    for j in range(b_count):
        i_, moved = of_b.get(j, (None, False))
        if i_ is not None and not moved:
            last = max(last, i_)
        else:
            placed.append(((last, 1, j), (i_, j)))
    placed.sort(key=lambda one: one[0])
    return [pair for _, pair in placed]


def _changes(
    a: Side, b: Side, table: str, pairs: list[tuple[int, int]], messages: dict[int, int], *, exact: bool
) -> dict[tuple[int, int], list[Change]]:
    found: dict[tuple[int, int], list[Change]] = defaultdict(list)
    # run_id is said once, of the run
    names = [column.name for column in TABLES[table] if column.name != "run_id"] if exact else COMPARED[table]
    for name in names:
        of_a, of_b = a.column(table, name), b.column(table, name)
        for i, j in pairs:
            x, y = of_a[i], of_b[j]
            if x != y and (exact or a.plain(x) != b.plain(y)):
                found[i, j].append(Change(name, _told(x), _told(y)))
    if table == "agents":
        _with_instructions(a, b, found)
    if exact or table not in {"messages", "turns"}:
        return found
    if table == "messages":
        for i, j in pairs:
            if a.rungs[i] != b.rungs[j]:
                found[i, j].append(Change("rungs", a.rungs[i], b.rungs[j]))
    column, name = ("in_reply_to", "in_reply_to") if table == "messages" else ("message_ids", "answers")
    meant = [_meant(side, table, column) for side in (a, b)]
    for i, j in pairs:
        x, y = meant[0][i], meant[1][j]
        if (x or y) and [messages.get(one, -1) for one in x] != y:
            found[i, j].append(Change(name, _numbers(x), _numbers(y)))
    return found


def _told(value: object) -> object:
    """Return a value as JSON can hold it."""
    iso = getattr(value, "isoformat", None)
    return iso() if callable(iso) else value


def _with_instructions(a: Side, b: Side, found: dict[tuple[int, int], list[Change]]) -> None:
    """Put the instructions themselves where their digests differ."""
    for (i, j), changes in found.items():
        for place, change in enumerate(changes):
            if change.name == "instructions_sha256":
                texts = a.instructions(i), b.instructions(j)
                if None not in texts and texts[0] != texts[1]:
                    changes[place] = Change("instructions", *texts)


def _meant(side: Side, table: str, column: str) -> list[list[int]]:
    """Return the places of the messages that a column means."""
    places = side.places("messages")
    if table == "messages":
        return [[places[one]] if one in places else [] for one in side.column(table, column)]
    return [[places[one] for one in ids_of(text) if one in places] for text in side.column(table, column)]


def _numbers(places: list[int]) -> str | None:
    return ", ".join(f"#{place + 1}" for place in places) or None
