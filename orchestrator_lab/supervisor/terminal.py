"""A replay on the terminal: recorded agents are played in real panes, and everything else happens again.

No agent, no model and no key is needed. The lab types what it typed, the players answer as the programs did, and
states, turns and messages are derived from what they report, as they always are. Ids, numbers and times are those of
the recording (see :mod:`~orchestrator_lab.supervisor.score`), so that the tables come out the same.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import Program
from orchestrator_lab.agents.replay import ReplayAdapter
from orchestrator_lab.config import USER
from orchestrator_lab.errors import ConfigError, JournalError, ReplayDiverged
from orchestrator_lab.gateway.player import stopped
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.recording import read_cast
from orchestrator_lab.supervisor.conductor import Conductor, Who
from orchestrator_lab.supervisor.reels import reels, verbatim
from orchestrator_lab.supervisor.replaying import REPLAYED, Replaying
from orchestrator_lab.supervisor.reports import Reports, diff_of
from orchestrator_lab.supervisor.score import Score
from orchestrator_lab.supervisor.scored import ScoredJournal
from orchestrator_lab.tmux import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from orchestrator_lab.agents.base import Adapter, Recorded
    from orchestrator_lab.config import AgentConfig
    from orchestrator_lab.journal.event import Event
    from orchestrator_lab.journal.recording import CastEvent
    from orchestrator_lab.journal.writer import JournalWriter
    from orchestrator_lab.supervisor.agent import AgentRunner
    from orchestrator_lab.supervisor.core import Supervisor
    from orchestrator_lab.supervisor.messages import Ledger, Message

__all__ = ["TerminalReplaying"]

#: What the lab reads of a turn by itself.
_READ_BY_THE_LAB = frozenset({"turn.usage", "turn.changes", "agent.model"})
#: Longest wait for a player to have written what comes before the next text, in seconds.
_REST_S = 2.0
#: Seconds of the longest run that is replayed: ten years.
_LONGEST_S = 10 * 366 * 86400.0
#: Seconds without an event after which who ends a replay is held up no longer.
_STANDS_STILL_S = 3.0
#: What tells that an agent which had ended is started again or leaves, and that all were stopped or started at once.
_OF_ENDED = {"restart": "agent.started", "remove": "agent.removed"}
_OF_ALL = {"restart": "cluster.restarted", "stop": "cluster.stopped", "shutdown": "run.ended"}
#: Looks at a pane until two show the same, and the pause between them, in seconds.
_LOOKS, _LOOK_S = 10, 0.01


class TerminalReplaying(Replaying):
    """Plays a recorded run's programs on the terminals of a cluster.

    Parameters
    ----------
    supervisor : Supervisor
        The cluster that replays.
    """

    terminal = True

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(supervisor)
        self._folder = supervisor.run_dir / REPLAYED
        events, _ = read_events(self._folder / "journal.jsonl")
        how = json.loads((self._folder / "how.json").read_text(encoding="utf-8"))
        _check(events)
        self._score = Score(events, how.get("speed"))
        self._conductor = Conductor(self._score, self._gave_up, self._plays, self._rests)
        self._reports = Reports(supervisor, self._differs, lambda: self.stopped is not None)
        #: What a client calls a message or a conversation, and its recorded id.
        self._aliases: dict[str, str] = {}
        #: Where each agent was added, the last time.
        self._since: dict[str, int] = {}
        #: Agents that somebody ends as they did then, and whether somebody ends it all sooner.
        self._asked: set[str] = set()
        self._hurry = asyncio.Event()
        #: Agents whose players wait for the next text.
        self._resting: set[str] = set()
        journal = supervisor.run_dir / "journal.jsonl"
        #: Where the end of the run begins, once it has come to it with all that was before.
        self._end: int | None = None
        self._broken = journal.exists() and journal.stat().st_size > 0

    # what is played -----------------------------------------------------------------------------

    def journal(self) -> JournalWriter:
        """Return a journal that has the numbers and times of the recorded one."""
        cluster = self._cluster
        if self._broken:
            return super().journal()
        journal = ScoredJournal(
            cluster.run_dir / "journal.jsonl",
            run_id=cluster.record.run_id,
            conductor=self._conductor,
            mask=cluster.mask,
        )
        write_due = self._conductor.moved

        def moved() -> None:
            write_due()
            cluster.ledger.poke()  # a message may be the next one

        self._conductor.moved = moved
        return journal

    def adapter(self, config: AgentConfig) -> Adapter:
        """Return the adapter that plays an agent's recording."""
        place = self._score.first("agent.added", config.name)
        if place is None:
            names = ", ".join(sorted({str(one.agent) for one in self._score.events if one.event == "agent.added"}))
            raise ConfigError(
                f"agent {config.name!r} is not in the run that is replayed, which has: {names}; leave it out, or run "
                "the real programs against the recorded model (level: model)",
                agent=config.name,
            )
        # One that was taken out and added again has a life of its own.
        self._since[config.name] = place
        earlier = sum(one.event == "agent.started" and one.agent == config.name for one in self._score.events[:place])
        facts = self._score.events[place].attributes
        program = Program((), str(facts.get("program")), facts.get("program_version"), facts.get("provider"))
        lines = [[one.head, *one.steps] for one in reels(self._score, config.name, self._cast(config.name))]
        return ReplayAdapter(str(facts.get("kind")), program, lines[earlier:])

    def check(self, runner: AgentRunner) -> None:
        """Accept any agent: no model is asked."""

    def take_over(self, ledger: Ledger) -> None:
        """Have messages get the ids that they had."""
        ledger.recorded, ledger.keeps_all = self._message_ids, True
        for place, (event, cause) in enumerate(zip(self._score.events, self._score.causes, strict=True)):
            if cause == "lab" and event.event in _READ_BY_THE_LAB:
                self._cluster.background(self._read_again(place, event))

    def session_id(self, agent: str) -> str | None:
        """Return the session with which an agent was started."""
        started = self._first("agent.started", agent)
        return None if started is None else started.attributes.get("session_id")

    def turn_id(self, agent: str, message_id: str) -> str | None:
        """Return the id of the recorded turn that began with a message."""
        return self._score.next_turn(agent, message_id)

    def dialog_id(self, agent: str) -> str | None:
        """Return the id of the next recorded dialog."""
        return self._score.next_dialog(agent)

    def turn_over(self, runner: AgentRunner) -> bool:
        """Tell whether a program was done with a turn before it ended itself: it was seen at rest then."""
        state = self._score.next_state(runner.name)
        return state != "exited"

    def may_claim(self, message: Message) -> bool:
        """Tell whether all has happened that came before a message was written."""
        if not self._score.holds(message.message_id):
            return True
        place = self._score.claim(message.message_id)
        return self._conductor.over if place is None else place <= self._conductor.cursor

    def guard_id(self, agent: str | None, rule: str) -> str | None:
        """Return the id of the next recorded guard on a limit."""
        return self._score.next_guard(agent, rule)

    def conversation_id(self, agents: list[str], conversation_id: str | None) -> str | None:
        """Return the id of the recorded conversation of these speakers."""
        if conversation_id in self._aliases:
            return self._aliases[conversation_id]
        found = self._score.next_conversation(agents)
        if found is None:
            return conversation_id
        recorded = str(found.attributes.get("conversation_id"))
        if conversation_id is not None:
            self._aliases[conversation_id] = recorded
        return recorded

    def known_as(self, message_id: str) -> str:
        """Return the recorded id of a message."""
        return self._aliases.get(message_id, message_id)

    def recording(self, agent: str) -> dict[str, Any] | None:
        """Return what the recorded run says of the recording of an agent's pane."""
        found = self._first("recording.started", agent)
        return None if found is None else {key: found.attributes.get(key) for key in ("started_at", "offset_s")}

    def recorded_at(self, agent: str) -> float | None:
        """Return when the recording of an agent's pane began."""
        started_at = (self.recording(agent) or {}).get("started_at")
        return None if started_at is None else datetime.fromisoformat(str(started_at)).timestamp()

    def broken_off(self) -> str | None:
        """End a replay whose supervisor was killed: nobody knows where the players are."""
        if not self._broken:
            return None
        self.stopped = _ended("its supervisor")
        return "failed"

    def server_lost(self) -> bool:
        """End a replay whose tmux server is gone, and the players with it."""
        self._stop(_ended("its tmux server"))
        for runner in self._cluster.runners.values():
            runner.lost()
        self._cluster.background(self._cluster.lifecycle.shutdown("failed"))
        return True

    # turns --------------------------------------------------------------------------------------

    async def due(self, runner: AgentRunner, payload: Mapping[str, Any]) -> bool:
        """Wait until all is done that was done before a report; False when it is not to be taken in any more."""
        if payload.get("what") == "rests":
            self._resting.add(runner.name)
            return True
        self._resting.discard(runner.name)
        place = payload.get("place")
        if isinstance(place, int):
            asked = payload.get("what") == "asked"  # goes on once it is asked to end
            await self._conductor.turn(place + asked, "player", runner.name)
        if self._conductor.ended:
            return self._end is not None and not (isinstance(place, int) and place < self._end)
        return True

    async def at_rest(self, runner: AgentRunner) -> None:
        """Wait until a player has written all that comes before the next text, and tmux has read it."""
        cluster = self._cluster

        def rests() -> bool:
            busy = runner.turn is not None or runner.delivering is not None or not runner.running
            return busy or runner.name in self._resting or self.stopped is not None

        await cluster.ledger.until(rests, _REST_S)
        before = None
        for _ in range(_LOOKS):
            screen = await cluster.screen(runner)
            if screen == before:
                return
            before = screen
            await asyncio.sleep(_LOOK_S)

    def done(self, payload: Mapping[str, Any]) -> None:
        """Take note that a report was taken in: what has not come of it by now will not."""
        place = payload.get("place")
        if isinstance(place, int):
            self._conductor.settled(place)

    async def before(
        self,
        event: str,
        agent: str | None = None,
        *,
        again: int | None = None,
        **facts: Any,  # noqa: ANN401 - any JSON value
    ) -> None:
        """Wait until all is done that was done before somebody outside did this."""
        ending = event == "agent.stopping"
        if ending and self._conductor.ended:
            return
        if not ending:
            self.refuse()
        elif facts.get("reason") == "shutdown" and again is None:
            self._hurry.set()
        place = self._score.at(again) if again is not None else self._place_of(event, agent, facts)
        place = self._score.begin(place)
        if self.stopped is None and ending:
            await self._come_to(len(self._score) if place is None else place, "user", patient=again is not None)
            if place is not None and place <= self._conductor.cursor:
                self._asked.update(self._cluster.runners if agent is None else [agent])
        elif self.stopped is None and place is not None:
            await self._conductor.turn(place, "user", patient=again is not None)
        if not ending:
            self.refuse()

    def _place_of(self, event: str, agent: str | None, facts: dict[str, Any]) -> int | None:
        """Return the place of the next recorded event that somebody outside may mean."""
        reason = str(facts.get("reason"))
        places = [self._score.first(event, agent, **facts)]
        # Of one that has ended something else tells.
        if other := _OF_ENDED.get(reason):
            places.append(self._score.first(other, agent, cause="user"))
        if agent is None and (other := _OF_ALL.get(reason)):
            places.append(self._score.first(other))
        return min((one for one in places if one is not None), default=None)

    async def joined(self, agent: str, *, patient: bool = False) -> None:
        """Wait for an agent that joins in the middle, and is written to by somebody who did not wait for it."""
        place = None if agent in self._cluster.runners else self._score.first("agent.added", agent)
        if self.stopped is None and place is not None:
            await self._conductor.turn(place + 1, "user", patient=patient)

    async def before_start(self, runner: AgentRunner) -> None:
        """Wait for the turn of a program that is started again; one that was not comes too late."""
        place = self._score.begin(self._score.first("agent.started", runner.name))
        await self._conductor.turn(len(self._score) if place is None else place, "lab")

    async def at_exit(self, runner: AgentRunner) -> None:
        """Wait until a player has done what its program did after somebody had asked it to end, as they do now."""
        place = self._score.first("agent.exited", runner.name)
        asked = self._end is not None if self._conductor.ended else runner.name in self._asked
        self._asked.discard(runner.name)
        if place is not None and self.stopped is None and asked:
            await self._come_to(place, "lab", hurry=None if self._conductor.ended else self._hurry)

    async def _come_to(
        self, place: int, who: Who, *, patient: bool = False, hurry: asyncio.Event | None = None
    ) -> None:
        """Let the replay come to a place, for as long as anything happens and nobody is in a hurry."""
        turn = asyncio.ensure_future(self._conductor.turn(place, who, patient=patient))
        hurried = None if hurry is None else asyncio.ensure_future(hurry.wait())
        still_s = _STANDS_STILL_S
        if who == "lab" and self._score.speed:  # at a pace nothing may happen for a while
            still_s += max(0.0, self._score.events[place].monotonic_s - self._cluster.journal.now_s) / self._score.speed
        before = -1
        while not turn.done() and before != self._conductor.cursor and not (hurried is not None and hurried.done()):
            before = self._conductor.cursor
            either = [turn] if hurried is None else [turn, hurried]
            await asyncio.wait(either, timeout=None if patient else still_s, return_when=asyncio.FIRST_COMPLETED)
        for one in (turn, hurried):
            if one is not None:
                one.cancel()

    async def before_message(
        self, recipient: str, text: str, message_id: str | None, *, again: int | None = None
    ) -> None:
        """Wait for the turn of a message from outside, and tell when it is another than then."""
        self.refuse()
        if message_id is not None and message_id in self._aliases:
            return
        content = self._cluster.mask(sanitize(text)[0])
        then = self._score.peek_message(USER, recipient, content)
        place = self._score.at(again) if again is not None else None if then is None else self._score.place(then)
        if place is not None or not self._conductor.over:
            await self._conductor.turn(len(self._score) if place is None else place, "user", patient=again is not None)
        self._compare(USER, recipient, content, then)
        self.refuse()

    def timeout_of(self, dialog_id: str, over: Callable[[], None]) -> bool:
        """Say that a person's time to answer is over when it was then, if it was."""
        place = self._score.first("dialog.answering", dialog_id=dialog_id, answered_by="policy")

        async def then() -> None:
            if place is not None:
                await self._conductor.turn(place, "lab")
                if self.stopped is None:
                    over()

        self._cluster.background(then())
        return True

    def awaited(self) -> AbstractContextManager[None]:
        """Take note that somebody outside waits for something to happen."""
        return self._conductor.awaited()

    def _stop(self, error: ReplayDiverged) -> None:
        super()._stop(error)
        self._conductor.stop()

    def _message_ids(
        self, message_id: str, conversation_id: str | None, sender: str, recipient: str, content: str
    ) -> tuple[str, str | None, str | None]:
        # What is recorded has known secrets in stars.
        content = self._cluster.mask(content)
        then = self._score.next_message(sender, recipient, content)
        if sender != USER or then is None:
            self._compare(sender, recipient, content, then)
        if then is None:
            return message_id, conversation_id, None
        recorded, facts = str(then.message_id), then.attributes
        self._aliases[message_id] = recorded
        digest = facts.get("content_sha256") if facts.get("content") == content else None
        return recorded, facts.get("conversation_id") or conversation_id, digest

    def _compare(self, sender: str, recipient: str, content: str, then: Event | None) -> None:
        """Tell when a message is another than the recorded one."""
        if then is None:
            if sender != USER:
                sentence = f"{sender} writes to {recipient} once more than the recording does"
                self._differs(recipient, "surplus", sentence, "")
            return
        was = str(then.attributes.get("content"))
        if was != content:
            sentence = f"what {sender} writes to {recipient} is not what is recorded (message {then.message_id})"
            self._differs(recipient, "message", sentence, diff_of(was, content), message_id=str(then.message_id))

    # what players tell --------------------------------------------------------------------------

    def told_by(self, runner: AgentRunner, told: Recorded) -> None:
        """Take in what only the recording tells."""
        self._reports.take(runner, told)

    async def _read_again(self, place: int, event: Event) -> None:
        """Journal what the lab read of a turn when its program was ended."""
        await self._conductor.turn(place, "lab")
        if place > self._conductor.cursor:
            return  # the replay has ended before
        self._reports.again(event.agent, event.source, verbatim(event))

    async def answer(self, runner: AgentRunner, dialog_id: str, label: str) -> bool:
        """Type the chosen option: the player waits for it, and shows what the program showed."""
        cluster = self._cluster
        await cluster.tmux.run(cluster.driver.paste, runner.pane_id, label, framed=True, submit=True)
        await cluster.ledger.until(
            lambda: runner.dialog_id != dialog_id or not runner.running or self.stopped is not None, None
        )
        self.refuse()
        return True

    # the end ------------------------------------------------------------------------------------

    def ends(self) -> None:
        """Expect nothing more that was recorded before the end of the run."""
        self._conductor.ended = True
        end = self._score.first("agent.stopping", reason="shutdown")
        if end is None:
            end = self._score.first("run.ended")
        left = self._conductor.give_up(len(self._score) if end is None else end)
        if left and self.stopped is None:
            first = left[0]
            sentence = (
                f"not all that is recorded was replayed: {len(left)} events are left, the first is {first.event}"
                + (f" of {first.agent}" if first.agent else "")
                + f" (seq {first.seq})"
            )
            self._tell(first.agent or "", "missing", sentence, take=first.seq, diff="", strict=False)
        if not left:
            self._end = end

    def finish(self) -> None:
        """Let go of those who wait for their turn."""
        self._conductor.close()

    def close(self) -> None:
        """Remove the copy of what was replayed."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # small helpers ------------------------------------------------------------------------------

    def _plays(self, agent: str) -> bool:
        runner = self._cluster.runners.get(agent)
        return runner is None or runner.running or runner.launching or runner.comes_back

    def _rests(self, agent: str) -> bool:
        return agent in self._resting

    def _gave_up(self, event: Event) -> None:
        about = f" of {event.agent}" if event.agent else ""
        sentence = f"{event.event}{about} (seq {event.seq} of the recording) has not come this time"
        if self._score.causes[self._score.place(event)] == "user":
            sentence += ": somebody outside did it then, before what is waited for now"
        self._differs(event.agent or "", "event", sentence, "", take=event.seq)

    def _differs(
        self, agent: str, kind: str, sentence: str, diff: str, *, take: int | None = None, message_id: str | None = None
    ) -> None:
        if message_id is not None and message_id in self.told:
            return
        self._tell(agent, kind, sentence, take=take, diff=diff, strict=self.strict, message_id=message_id)
        if self.strict:
            self._stop(stopped(sentence, diff, agent=agent, kind=kind, message_id=message_id))

    def _first(self, name: str, agent: str) -> Event | None:
        """Return an agent's first event of a name, since it was added last."""
        since = islice(self._score.events, self._since.get(agent, 0), None)
        return next((one for one in since if one.event == name and one.agent == agent), None)

    def _cast(self, agent: str) -> list[CastEvent]:
        path = self._folder / "panes" / f"{agent}.cast.zst"
        if not path.is_file():
            return []
        try:
            recording = read_cast(path)
        except JournalError as error:
            raise ConfigError(f"agent {agent!r} cannot be replayed: {error.message}", agent=agent) from error
        if recording.torn_bytes:
            raise ConfigError(
                f"agent {agent!r} cannot be replayed: the recording of its pane is damaged or cut off "
                f"{recording.torn_bytes} bytes before its end",
                agent=agent,
            )
        return recording.events


def _check(events: list[Event]) -> None:
    """Refuse a journal that somebody has written by hand: what is no time cannot be kept."""
    last = 0.0
    for event in events:
        try:
            moments = [event.at, *([event.attributes["started_at"]] if event.event == "recording.started" else [])]
            told = all(datetime.fromisoformat(str(one)).tzinfo is not None for one in moments)
        except (KeyError, ValueError):
            told = False
        if not told or not last <= event.monotonic_s < _LONGEST_S:
            raise ConfigError(f"the run cannot be replayed: event {event.seq} of its journal has a time that is none")
        last = event.monotonic_s


def _ended(what: str) -> ReplayDiverged:
    return stopped(f"{what} was ended; start it again, a replay goes on from its beginning only", "")
