"""The recorded panes of a run on one clock, with the conversation beside them: what a player asks for, bit by bit."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from orchestrator_lab.errors import ConfigError, JournalError
from orchestrator_lab.reading.chat import anchor_of, entries_html
from orchestrator_lab.reading.conversation import Conversation, said
from orchestrator_lab.reading.entries import agent_names, chosen_agents
from orchestrator_lab.reading.happened import happened
from orchestrator_lab.reading.moment import on_clock
from orchestrator_lab.reading.screens import recording_of, resized
from orchestrator_lab.reading.tape import Tape
from orchestrator_lab.reading.texts import one_line
from orchestrator_lab.stills import Screens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchestrator_lab.frames import RunTables
    from orchestrator_lab.reading.entries import Entry

__all__ = ["Film", "Shown"]

#: Entries of the conversation that a page has at a time, and how many of them lie before the moment that is shown.
_WINDOW, _BEFORE = 120, 50
#: Marks beside a scrubber: as many as can be told apart.
_MARKS = 400
#: Changes of facts in one stretch.
_FACTS = 1_000
_TEXT = 4_000


class Shown(NamedTuple):
    """What a page needs to show a pane from an instant on.

    Parameters
    ----------
    head : dict
        ``agent``; ``from`` and ``to``, the seconds of the run that it covers, without a ``to`` all that is left;
        ``next``, when something happens after it; ``picture``, columns and rows, if there is one to begin with;
        ``facts``, what was known of the agent then; ``events``, each with its instant, its code and either the bytes of
        its output, its new size, or the facts that change.
    picture : bytes
        Makes a terminal show the pane at ``from``; empty when it goes on from what was shown before.
    output : bytes
        The output of all events.
    """

    head: dict[str, Any]
    picture: bytes
    output: bytes


class Film:
    """Recorded panes on the run's clock.

    Parameters
    ----------
    tables : RunTables
        The run; as far as it has come when this is made.
    agent : str or iterable of str, optional
        Whose panes; all that were recorded by default.

    Raises
    ------
    AgentNotFound
        When nobody of this name is in the run.
    ConfigError
        When no pane was recorded.
    JournalError
        When a recording that was asked for, or each of them, is none.
    """

    def __init__(self, tables: RunTables, agent: str | Iterable[str] | None = None) -> None:
        chosen = chosen_agents(tables, agent)
        paths = {
            name: path
            for name in agent_names(tables)
            if (chosen is None or name in chosen)
            and tables.path is not None
            and (path := recording_of(tables.path, name)) is not None
        }
        if not paths:
            whose = "any pane" if chosen is None else f"the pane of {', '.join(sorted(chosen))}"
            raise ConfigError(f"run {tables.run_id} holds no recording of {whose}: there is nothing to play")
        self._tables = tables
        self._tapes: dict[str, Tape] = {}
        #: What is not shown, and why: a sentence for each recording that cannot be read.
        self.lacks: list[str] = []
        try:
            for number, (name, path) in enumerate(paths.items(), 1):
                try:
                    self._tapes[name] = Tape(path)
                except JournalError as error:
                    # The others can be played all the same, if there is any.
                    if chosen is not None or (number == len(paths) and not self._tapes):
                        raise
                    self.lacks.append(error.message)
            self._happened = happened(tables)
        except BaseException:
            self.close()
            raise
        self._origins = {name: self._happened.origins.get(name, 0.0) for name in self._tapes}
        self._talk = Conversation(tables, None if chosen is None else sorted(chosen))
        self._entries, self._moments = self._in_order()
        ends = [self._origins[name] + tape.duration_s for name, tape in self._tapes.items()]
        #: Seconds of the run at which the last of it happens.
        self.duration_s = max([*ends, *self._moments[-1:]])

    def _in_order(self) -> tuple[list[Entry], list[float]]:
        """Return the entries in the order in which they can be seen, and when that is."""
        timed: list[tuple[float, int, Entry]] = []
        last = 0.0
        for number, entry in enumerate(self._talk.entries):
            last = self._happened.moments.get(entry.id, last)
            timed.append((last, number, entry))
        timed.sort(key=lambda one: one[:2])
        return [entry for _, _, entry in timed], [when for when, _, _ in timed]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the recordings."""
        for tape in self._tapes.values():
            tape.close()

    @property
    def agents(self) -> list[str]:
        """Whose panes are shown, in the run's order."""
        return list(self._tapes)

    @property
    def colors(self) -> dict[str, str]:
        """The colour of each agent, as everywhere."""
        return self._talk.colors

    @property
    def title(self) -> str:
        """The run's name, on one line."""
        return str(self._tables.manifest.get("name") or "run")

    def seconds(self, at: object = None) -> float:
        """Return an instant as seconds on the run's clock, within what there is.

        Parameters
        ----------
        at : float, datetime, str or None
            Seconds, an instant, or the id of a message (as it came in), turn (its end), tool call (its end) or question
            (as it was asked); the end when omitted.

        Returns
        -------
        float
            From 0 to ``duration_s``.

        Raises
        ------
        ConfigError
            When it is none of these.
        """
        if at is None:
            return self.duration_s
        found = on_clock(self._tables, at, self._happened.moments.get)
        return min(max(0.0, found), self.duration_s)

    def screens(self, at_s: float) -> Screens:
        """Return what all panes showed at an instant.

        Parameters
        ----------
        at_s : float
            Seconds of the run.

        Returns
        -------
        Screens
            One an agent; that of a pane that was not there yet is empty.
        """
        return Screens([tape.screen(at_s - self._origins[name], name) for name, tape in self._tapes.items()])

    def known(self, at_s: float) -> list[dict[str, Any]]:
        """Return what was known of the agents at an instant.

        Parameters
        ----------
        at_s : float
            Seconds of the run.

        Returns
        -------
        list of dict
            Names with role, state, turns, tokens and the question that is open, as a live view has them.
        """
        return [{"name": name} | self._happened.known(name, at_s) for name in self._tapes]

    def marks(self) -> list[dict[str, Any]]:
        """Return what stands beside a scrubber: the conversation's entries, as many as can be told apart.

        Returns
        -------
        list of dict
            ``at`` in seconds of the run, ``kind``, ``who`` and ``text``, which tells what it is.
        """
        marks: list[dict[str, Any]] = []
        taken: set[tuple[int, str]] = set()
        for entry, when in zip(self._entries, self._moments, strict=True):
            place = (int(when / self.duration_s * _MARKS) if self.duration_s else 0, entry.kind)
            if place in taken:
                continue
            taken.add(place)
            text = ": ".join(part for part in (said(entry), one_line(entry.text, 120)) if part)
            marks.append({"at": when, "kind": entry.kind, "who": entry.who, "text": text})
        return marks

    def talk(self, at_s: float) -> dict[str, Any]:
        """Return the conversation around an instant.

        Parameters
        ----------
        at_s : float
            Seconds of the run.

        Returns
        -------
        dict
            ``html``, the entries; ``entries``, anchor and moment of each; ``from`` and ``to``, between which it is
            enough, None at either end; ``before`` and ``after``, how many others there are.
        """
        place = bisect_right(self._moments, at_s)
        first = max(0, min(place - _BEFORE, len(self._entries) - _WINDOW))
        end = min(first + _WINDOW, len(self._entries))
        shown = self._entries[first:end]
        return {
            "html": entries_html(self._talk, shown, most=_TEXT),
            "entries": [
                {"anchor": anchor_of(entry), "at": when}
                for entry, when in zip(shown, self._moments[first:end], strict=True)
            ],
            "from": None if first == 0 else self._moments[min(first + _BEFORE // 5, end - 1)],
            "to": None if end == len(self._entries) else self._moments[max(end - _BEFORE // 5, first)],
            "before": first,
            "after": len(self._entries) - end,
        }

    def shown(
        self,
        agent: str,
        after_s: float,
        *,
        anew: bool,
        most: int,
        progress: Callable[[float], None] | None = None,
    ) -> Shown:
        """Return what a pane shows from an instant on.

        Parameters
        ----------
        agent : str
            Whose pane.
        after_s : float
            Seconds of the run.
        anew : bool
            Whether it begins with a picture; otherwise it goes on after what was shown until then.
        most : int
            Characters of output after which it ends.
        progress : callable, optional
            Told which part from 0 to 1 of a long way through the recording is done.

        Returns
        -------
        Shown
            To be told to a page.
        """
        tape, origin = self._tapes[agent], self._origins[agent]
        after = round(after_s - origin, 6)  # what was told as the end of a stretch is that again
        picture = tape.picture(after, progress=progress) if anew else None
        stretch = tape.stretch(after, most=most)
        ends = math.inf if stretch.next_s is None else origin + stretch.to_s
        changes = [one for one in self._happened.facts.get(agent, ()) if after_s < one[0] <= ends]
        following = [] if stretch.next_s is None else [origin + stretch.next_s]
        if len(changes) > _FACTS:
            ends, following = changes[_FACTS][0] - 1e-6, [changes[_FACTS][0]]
            changes = changes[:_FACTS]
        else:
            following += [when for when, _ in self._happened.facts.get(agent, ()) if when > ends][:1]
        output: list[bytes] = []
        told: list[list[Any]] = [[when, "f", facts] for when, facts in changes]
        for event in stretch.events:
            when = origin + event.time_s
            if when > ends:
                break
            if event.code == "o":
                output.append(event.data.encode("utf-8", "surrogateescape"))
                told.append([when, "o", len(output[-1])])
            elif event.code == "r" and (size := resized(event.data)) is not None:
                told.append([when, "r", size])
        told.sort(key=lambda one: one[0])
        head = {
            "agent": agent,
            "from": after_s,
            "to": None if math.isinf(ends) else ends,
            "next": min(following, default=None),
            "picture": None if picture is None else [picture.cols, picture.rows],
            "facts": self._happened.known(agent, after_s) if anew else None,
            "events": told,
        }
        return Shown(head, b"" if picture is None else picture.data, b"".join(output))
