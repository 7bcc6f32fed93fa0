"""Replaying: recorded answers for the requests of real programs, and what is done where the two differ."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator_lab.cassette import SUFFIX, Take, read_cassette
from orchestrator_lab.errors import ConfigError, ReplayDiverged
from orchestrator_lab.gateway.plain import Places, Plain, PlainForm, difference
from orchestrator_lab.gateway.translate import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["ASIDE", "Player", "Told", "stopped"]

logger = logging.getLogger(__name__)

#: What programs ask on the side, at other moments each time, and whose answers change nothing of the conversation.
ASIDE = frozenset({"title", "probe", "suggestion", "side", "count"})
_NUMBERED = re.compile(r"<id (\d+)>")
#: Seconds without any request after which an order that cannot be followed is given up.
_ORDER_S = 5.0
#: The longest pause that is kept between the answers to two agents, in seconds.
_PAUSE_S = 0.2


class Told(Protocol):
    """Who is told of a divergence."""

    def __call__(self, agent: str, kind: str, sentence: str, *, take: int | None, diff: str, strict: bool) -> None:
        """Journal it."""


@dataclass(slots=True)
class _Agent:
    """What is left of one agent's recording."""

    places: Places
    takes: list[Take]
    now: PlainForm
    left: dict[int, Take] = field(default_factory=dict)
    #: Takes by the digest of what was spoken, oldest first.
    by_key: dict[str, list[Take]] = field(default_factory=lambda: defaultdict(list))
    #: Recorded ids and places, and what they are now.
    names: dict[str, str] = field(default_factory=dict)
    #: Settings that were told to differ.
    told: set[tuple[Any, ...]] = field(default_factory=set)


class Player:
    """Finds recorded answers.

    Answers are found by what was spoken, whoever asks first; the order of the recording decides only among equals. So
    that agents meet each other's messages in the recorded order too, an answer begins, and ends, once all requests are
    here that had been made by then in the recording, and all answers are over that were over then.

    Parameters
    ----------
    folder : Path
        The recorded run's cassettes.
    strict : bool
        Stop at the first difference, instead of going on with the nearest take.
    tell : Told
        Told each divergence, before it has an effect.
    mask : callable
        Replaces known secrets in a text by asterisks, as they are in the recording.

    Raises
    ------
    CassetteDamaged
        When a cassette cannot be read.
    ReplayDiverged
        When one holds a take that is not what was recorded, and `strict` is set.
    """

    def __init__(self, folder: Path, *, strict: bool, tell: Told, mask: Callable[[str], str] = str) -> None:
        self.strict = strict
        self._mask = mask
        self._tell = tell
        self._agents: dict[str, _Agent] = {}
        self._plain: dict[int, Plain] = {}
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            named, takes = read_cassette(path)
            form = PlainForm(Places(named))
            agent = self._agents[path.name.removesuffix(SUFFIX)] = _Agent(form.places, [], form)
            for take in takes:
                self._plain[take.n] = form.of(take.path, take.body, take.purpose)
                take.body = None  # its plain form says all that is needed
                agent.takes.append(take)
        every = [take for agent in self._agents.values() for take in agent.takes]
        #: Requests of conversations by number, and how far each has come: asked, and answered to the end.
        self._main = {take.n: take for take in every if take.purpose == "main"}
        self._asked: set[int] = set()
        self._over: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._heard = time.monotonic()
        for agent in self._agents.values():
            for take in agent.takes:
                agent.left[take.n] = take
                agent.by_key[self._plain[take.n].key].append(take)
        self._check(every)

    def _check(self, takes: Iterable[Take]) -> None:
        for take in takes:
            if take.changed:
                sentence = (
                    f"agent {take.agent!r}: request {take.n} of its cassette is not what was recorded: the file was "
                    "changed, or damaged"
                )
                self._diverged(take.agent, "changed", sentence, take.n, "")

    @property
    def agents(self) -> list[str]:
        """Names of the agents whose models were recorded."""
        return sorted(self._agents)

    def takes(self, agent: str) -> int:
        """Return how many requests of an agent are recorded."""
        return len(self._agents[agent].takes) if agent in self._agents else 0

    def open(self, agent: str, places: Places) -> None:
        """Learn where an agent's places are now.

        Raises
        ------
        ConfigError
            When the recording does not hold this agent's model.
        """
        if agent not in self._agents:
            raise ConfigError(
                f"agent {agent!r} cannot be replayed: the run has no cassette of its model; it has those of: "
                f"{', '.join(self.agents) or 'nobody'}",
                agent=agent,
            )
        found = self._agents[agent]
        found.now = PlainForm(places, self._mask)
        found.names |= found.places.moves(places)

    def missing(self) -> dict[str, list[int]]:
        """Return, for each agent that has some, the requests of its conversation that nobody has asked."""
        found = {
            name: [n for n, take in sorted(agent.left.items()) if take.purpose == "main"]
            for name, agent in self._agents.items()
        }
        return {name: numbers for name, numbers in found.items() if numbers}

    def restore(self, used: Iterable[int]) -> None:
        """Go on where an earlier player was, which answered with these takes."""
        for n in used:
            for agent in self._agents.values():
                agent.left.pop(n, None)
            self._asked.add(n)
            self._over[n] = 0.0

    def lookup(self, agent: str, method: str, path: str) -> Take | None:
        """Return the answer to a request without a body, None when none is recorded."""
        wanted = [take for take in self._agents[agent].takes if (take.method, take.path) == (method, path)]
        return next((take for take in wanted if take.n in self._agents[agent].left), wanted[-1] if wanted else None)

    def find(self, agent: str, path: str, body: object, purpose: str | None) -> Take | None:
        """Return the take that answers a request, and count it as used.

        Parameters
        ----------
        agent : str
            Who asks.
        path : str
            The request's path.
        body : object
            Its JSON value.
        purpose : str or None
            What it is for.

        Returns
        -------
        Take or None
            None for what is asked on the side and was not recorded.

        Raises
        ------
        ReplayDiverged
            When the replay is strict, and nothing like this was recorded.
        """
        mine = self._agents[agent]
        asked = mine.now.of(path, body, purpose)
        take = next((one for one in mine.by_key.get(asked.key, ()) if one.n in mine.left), None)
        if take is None:
            if purpose in ASIDE or purpose is None:
                return None
            take = self._nearest(agent, asked, purpose)
        if take is None:
            return None
        plain = self._plain[take.n]
        mine.left.pop(take.n, None)
        mine.names |= _pairs(plain, asked)
        if purpose not in ASIDE:
            self._compare_setting(agent, take, plain, asked)
        self._asked.add(take.n)
        self._wake()
        return take

    def _nearest(self, agent: str, asked: Plain, purpose: str | None) -> Take | None:
        """Tell that a request is not in the recording; return the take that goes on from where it stands."""
        mine = self._agents[agent]
        again = mine.by_key.get(asked.key)
        left = [take for take in mine.left.values() if take.purpose == purpose]
        last = asked.spoken[-1:]
        near = next((take for take in left if self._plain[take.n].spoken[-1:] == last), left[0] if left else None)
        if again:
            sentence = f"agent {agent!r} asks its model once more than the recording what request {again[-1].n} asked"
            self._diverged(agent, "surplus", sentence, again[-1].n, difference((), asked.spoken[-1:]))
            return again[-1]
        if near is None:
            sentence = f"agent {agent!r} asks its model more than the recording holds ({len(mine.takes)} requests)"
            self._diverged(agent, "surplus", sentence, None, difference((), asked.spoken[-3:]))
            return None
        sentence = f"agent {agent!r} asks its model something else than the recording's request {near.n}"
        self._diverged(agent, "request", sentence, near.n, difference(self._plain[near.n].spoken, asked.spoken))
        return near

    def _compare_setting(self, agent: str, take: Take, recorded: Plain, asked: Plain) -> None:
        """Tell once of each difference in model, system prompt or tools."""
        mine = self._agents[agent]
        pair = (recorded.setting, asked.setting)
        if recorded.setting == asked.setting or pair in mine.told:
            return
        mine.told.add(pair)
        sentence = f"agent {agent!r} has another model, system prompt or other tools than in the recording"
        self._diverged(agent, "setting", sentence, take.n, difference(recorded.setting, asked.setting))

    def _diverged(self, agent: str, kind: str, sentence: str, take: int | None, diff: str) -> None:
        self._tell(agent, kind, sentence, take=take, diff=diff, strict=self.strict)
        if self.strict:
            raise stopped(sentence, diff, agent=agent, kind=kind, request=take)

    # order --------------------------------------------------------------------------------------

    async def may_begin(self, take: Take) -> None:
        """Wait until all is done that was done when an answer began in the recording."""
        await self._wait(take, take.after, take.began_s)

    async def may_end(self, take: Take) -> None:
        """Wait until all is done that was done when an answer ended: what an agent does with it follows its end."""
        await self._wait(take, take.until, take.ended_s)

    async def _wait(self, take: Take, arrived: int, at_s: float) -> None:
        if take.n not in self._main:
            return
        before = [one for one in self._main.values() if one.agent != take.agent and one.n <= arrived]
        asked = {one.n for one in before}
        over = {one.n for one in before if one.ended_s < at_s}
        while not (asked <= self._asked and over <= self._over.keys()):
            left = _ORDER_S - (time.monotonic() - self._heard)
            if left <= 0:
                logger.info("the answer to request %d waits no longer for what came before it", take.n)
                self._asked |= asked
                self._over |= dict.fromkeys(over - self._over.keys(), 0.0)
                break
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                continue
        last = max((one for one in before if one.n in over), key=lambda one: one.ended_s, default=None)
        if last is not None:
            # What an agent does with its answer takes a moment, in which the next one must not overtake it.
            pause = min(at_s - last.ended_s, _PAUSE_S) - (time.monotonic() - self._over[last.n])
            await asyncio.sleep(max(pause, 0.0))

    def over(self, take: Take) -> None:
        """Note that an answer has been given to its end."""
        self._over[take.n] = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        self._heard = time.monotonic()
        self._changed.set()

    # answers ------------------------------------------------------------------------------------

    def answer(self, take: Take) -> bytes:
        """Return a take's body as it is sent now: with the ids and places of this cluster."""
        if take.binary is not None:
            return take.binary
        pieces = translated(take.pieces, self._agents[take.agent].names, stream=take.is_stream)
        return "".join(pieces).encode("utf-8", "surrogatepass")


def stopped(sentence: str, diff: str, **facts: Any) -> ReplayDiverged:  # noqa: ANN401 - any JSON value
    """Return the error of a strict replay that came to a difference."""
    text = f"the replay stopped: {sentence}"
    return ReplayDiverged(f"{text}:\n{diff}" if diff else text, diff=diff, **facts)


def _pairs(recorded: Plain, asked: Plain) -> dict[str, str]:
    """Return which recorded id is which id now, as far as both conversations are the same."""
    common = 0
    for ours, theirs in zip(recorded.spoken, asked.spoken, strict=False):
        if ours != theirs:
            break
        common = max([common, *(int(number) for number in _NUMBERED.findall(ours.text))])
    pairs = zip(recorded.ids[:common], asked.ids[:common], strict=False)
    return {was: now for was, now in pairs if was != now}
