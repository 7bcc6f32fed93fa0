"""Keeps a replay in the order of its recording: nobody acts before their turn, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.score import Score

__all__ = ["Conductor", "Who"]

Who = Literal["player", "user", "lab"]

#: Seconds without any event after which what should have followed by itself is given up.
_PATIENCE_S = 8.0
#: Seconds after which somebody outside, whose turn has not come, goes before somebody else who has not come either.
_USER_PATIENCE_S = 0.3
#: The same where all who act wait for their turn, as when a run is replayed by itself: only what cannot be done any
#: more is given up.
_PATIENT_S = 30.0
#: Seconds after which what somebody outside did is not waited for any longer, while somebody waits for what follows.
_AWAITED_S = 2.0


class _Waiter(NamedTuple):
    """Somebody who waits for a place; numbered, so that those of one place keep their order."""

    place: int
    number: int
    who: Who
    agent: str | None
    future: asyncio.Future[None]
    patient: bool


class Conductor:
    """Knows how far a replay has come.

    Parameters
    ----------
    score : Score
        What is played.
    gave_up : callable
        Told of a recorded event that did not happen again.
    plays : callable
        Tells of an agent whether its player lives, or is about to.
    rests : callable
        Tells of an agent whether its player waits for what is to be typed.
    """

    def __init__(
        self,
        score: Score,
        gave_up: Callable[[Event], None],
        plays: Callable[[str], bool] = lambda _: True,
        rests: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.score = score
        #: Place of the first expected event that has not happened; everything before it has, or never will.
        self.cursor = 0
        #: Called when the cursor has moved.
        self.moved: Callable[[], None] = lambda: None
        self._gave_up, self._plays, self._rests = gave_up, plays, rests
        self._came = bytearray(len(score))
        self._waiting: list[_Waiter] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        #: How many wait outside for something to happen.
        self._awaited = 0
        self._closed = False
        #: Whether the cluster ends: no player goes on then.
        self.ended = False
        self._skip()

    @property
    def over(self) -> bool:
        """Whether all has been played."""
        return self.cursor >= len(self.score)

    def came(self, place: int) -> None:
        """Take note that a recorded event has happened again."""
        self._came[place] = 1
        if place == self.cursor:
            self._skip()
            self._arm()

    def settled(self, place: int) -> None:
        """Take note that a program has reported an event: if it has not happened by now, it will not."""
        later = {"agent.session", "agent.ready", "agent.exited"}  # the terminal and the process have a say in these
        if place >= len(self.score) or self._came[place] or self.score.events[place].event in later:
            return
        if self.score.causes[place] == "reel":
            self._pass_over(place)
            self._arm()

    async def turn(self, place: int, who: Who, agent: str | None = None, *, patient: bool = False) -> None:
        """Wait until all that was recorded before a place has happened.

        Parameters
        ----------
        place : int
            Of an event in the score.
        who : {"player", "user", "lab"}
            Who acts. Somebody outside is held up for a moment only by another one, whose turn comes first and who is
            not there.
        agent : str, optional
            Whose player it is.
        patient : bool
            Whether somebody outside knows that others come first, and waits for them.
        """
        if place <= self.cursor or (self._closed and who == "user"):
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._waiting, _Waiter(place, self._number, who, agent, future, patient))
        if who == "user":
            self._arm(again=True)
        elif self._timer is None:
            self._arm()
        await future

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Take note that somebody outside waits for something to happen: they may not do what would come first."""
        self._awaited += 1
        self._arm(again=True)
        try:
            yield
        finally:
            self._awaited -= 1

    def give_up(self, before: int) -> list[Event]:
        """Expect nothing more that stands before a place; return what did not happen."""
        left = [
            place
            for place in range(self.cursor, before)
            if not self._came[place] and self.score.causes[place] != "aside"
        ]
        for place in left:
            self._came[place] = 1
        self._skip()
        return [self.score.events[place] for place in left]

    def stop(self) -> None:
        """Let nobody's program go on, and hold up nobody else."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in self._waiting:
            if one.who != "player" and not one.future.done():
                one.future.set_result(None)

    def close(self) -> None:
        """Let everybody go."""
        self.stop()
        for one in self._waiting:
            if not one.future.done():
                one.future.set_result(None)
        self._waiting.clear()

    def _skip(self) -> None:
        before, causes = self.cursor, self.score.causes
        while self.cursor < len(causes) and (self._came[self.cursor] or causes[self.cursor] == "aside"):
            self.cursor += 1
        if self.cursor == before:
            return
        try:
            self.moved()
        finally:
            while self._waiting and self._waiting[0].place <= self.cursor:
                future = heapq.heappop(self._waiting).future
                if not future.done():
                    future.set_result(None)

    def _arm(self, *, again: bool = False) -> None:
        """Look again when nothing has happened for a while; not more than one timer at a time."""
        if self._closed or self.over or (self._timer is not None and not again):
            return
        if self._timer is not None:
            self._timer.cancel()
        patience = _PATIENCE_S
        if self.score.causes[self.cursor] == "user":
            users = self._waiting_users()
            patience = _AWAITED_S
            if users:
                patience = _PATIENT_S if all(one.patient for one in users) else _USER_PATIENCE_S
        self._timer = asyncio.get_running_loop().call_later(patience, self._look, self.cursor)

    def _look(self, cursor: int) -> None:
        self._timer = None
        if self._closed or self.over:
            return
        if cursor != self.cursor:
            self._arm()
            return
        cause = self.score.causes[cursor]
        if cause == "user":
            # Nobody hurries a reader. But two who act in another order than then must not wait for each other.
            users = sorted(self._waiting_users(), key=lambda one: one.patient)
            if users:
                users[0].future.set_result(None)
            elif self._awaited:
                self._pass_over_users(cursor)
            else:
                return
        elif cause == "lab" or self._passed_by(cursor) or self._rests(str(self.score.events[cursor].agent)):
            self._pass_over(cursor)
        elif not self._plays(str(self.score.events[cursor].agent)):
            self._pass_over_player(cursor)
        self._arm()

    def _waiting_users(self) -> list[_Waiter]:
        """Return those from outside who wait, the first of them first."""
        return [one for one in sorted(self._waiting) if one.who == "user" and not one.future.done()]

    def _pass_over_users(self, cursor: int) -> None:
        """Expect nothing more from outside of what was done before that for which a program waits."""
        until = min((one.place for one in self._waiting if one.who == "player"), default=cursor + 1)
        for place in range(cursor, max(until, cursor + 1)):
            if self.score.causes[place] == "user" and not self._came[place]:
                self._pass_over(place)

    def _pass_over_player(self, cursor: int) -> None:
        """Expect nothing more of a player that is gone."""
        gone = self.score.events[cursor]
        for place in range(cursor, len(self.score)):
            event = self.score.events[place]
            if event.agent == gone.agent and event.event == "agent.started":
                break
            if event.agent == gone.agent and self.score.causes[place] in {"reel", "lab"}:
                self._came[place] = 1
        self._gave_up(gone)
        self._skip()

    def _pass_over(self, place: int) -> None:
        """Expect an event no longer; with a message that was not sent, nothing that became of it."""
        event = self.score.events[place]
        for one in self.score.consequences(place):
            self._came[one] = 1
        self._gave_up(event)
        self._skip()

    def _passed_by(self, cursor: int) -> bool:
        """Tell whether the program that should report waits for something later already, or nobody reports at all."""
        agent = self.score.events[cursor].agent
        theirs = [one.place for one in self._waiting if one.who == "player" and one.agent == agent]
        return bool(theirs) and min(theirs) > cursor
