"""Keeps a replay in the order of its recording: nobody acts before their turn, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import heapq
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.supervisor.score import Score

__all__ = ["Conductor"]

logger = logging.getLogger(__name__)

#: Seconds without any event after which what should have followed by itself is given up.
_PATIENCE_S = 8.0
#: Seconds after which somebody outside, whose turn has not come, goes before somebody else who has not come either.
_USER_PATIENCE_S = 0.3


class Conductor:
    """Knows how far a replay has come.

    Parameters
    ----------
    score : Score
        What is played.
    gave_up : callable
        Told of a recorded event that did not happen again.
    """

    def __init__(self, score: Score, gave_up: Callable[[Event], None]) -> None:
        self.score = score
        #: Place of the first expected event that has not happened; everything before it has, or never will.
        self.cursor = 0
        #: Called when the cursor has moved.
        self.moved: Callable[[], None] = lambda: None
        self._gave_up = gave_up
        self._came = bytearray(len(score))
        self._waiting: list[tuple[int, int, bool, asyncio.Future[None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._skip()

    @property
    def over(self) -> bool:
        """Whether all has been played."""
        return self.cursor >= len(self.score)

    @property
    def next(self) -> Event | None:
        """The event that is expected now, None when all has been played."""
        return None if self.over else self.score.events[self.cursor]

    def came(self, place: int) -> None:
        """Take note that a recorded event has happened again."""
        self._came[place] = 1
        if place == self.cursor:
            self._skip()
            self._arm()

    async def turn(self, place: int, *, user: bool = False) -> None:
        """Wait until all that was recorded before a place has happened.

        Parameters
        ----------
        place : int
            Of an event in the score.
        user : bool, default False
            Whether somebody outside acts: another one, whose turn comes first and who is not there, holds them up for
            a moment only.
        """
        if place <= self.cursor or self._closed:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._waiting, (place, self._number, user, future))
        if user:
            self._arm(again=True)
        elif self._timer is None:
            self._arm()
        await future

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

    def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for *_, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def _skip(self) -> None:
        before, causes = self.cursor, self.score.causes
        while self.cursor < len(causes) and (self._came[self.cursor] or causes[self.cursor] == "aside"):
            self.cursor += 1
        if self.cursor == before:
            return
        self.moved()
        while self._waiting and self._waiting[0][0] <= self.cursor:
            future = heapq.heappop(self._waiting)[3]
            if not future.done():
                future.set_result(None)

    def _arm(self, *, again: bool = False) -> None:
        """Look again when nothing has happened for a while; not more than one timer at a time."""
        if self._closed or self.over or (self._timer is not None and not again):
            return
        if self._timer is not None:
            self._timer.cancel()
        users = any(user for _, _, user, future in self._waiting if not future.done())
        patience = _USER_PATIENCE_S if users and self.score.causes[self.cursor] == "user" else _PATIENCE_S
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
            for _, _, user, future in sorted(self._waiting):
                if user and not future.done():
                    future.set_result(None)
                    break
            else:
                return
        elif cause == "lab" or self._passed_by(cursor):
            self._came[cursor] = 1
            self._gave_up(self.score.events[cursor])
            self._skip()
        self._arm()

    def _passed_by(self, cursor: int) -> bool:
        """Tell whether the program that should report waits for something later already, or nobody reports at all."""
        agent = self.score.events[cursor].agent
        theirs = [place for place, _, user, _ in self._waiting if not user and self.score.events[place].agent == agent]
        return bool(theirs) and min(theirs) > cursor
