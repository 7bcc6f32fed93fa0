"""A cluster as it happens: what its panes write, its events, its status, told to whoever listens.

One thread a cluster and process serves all its listeners. Panes come from the keeper, everything else from the
supervisor; both may be replaced at any time, and the feed goes on: it says that somebody is away, and begins the panes
anew with tmux's picture.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator_lab.client import Client, find, wake
from orchestrator_lab.errors import AgentNotFound, ClusterNotFound, OrchestratorLabError
from orchestrator_lab.journal.reader import JournalReader
from orchestrator_lab.ndstream import KeeperStream, events, keeper_counts
from orchestrator_lab.panestream import PaneBytes, PaneStream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["Feed", "Listener", "PaneBytes", "Tick"]

logger = logging.getLogger(__name__)

#: Seconds between two ticks at least.
TICK_S = 0.05
#: Seconds between two looks at the status at least.
_STATUS_S = 0.25
#: Bytes that are read of the panes in one tick; when more comes, the keeper is left to cut it down to a repaint.
_BUDGET = 1 << 19
#: Times that a picture is taken in a row of a pane that writes meanwhile.
_TRIES = 3
#: Seconds until a picture is taken again of a pane that did not stand still, doubling, and the longest.
_AGAIN_S, _LONGEST_AGAIN_S = 0.15, 0.5
#: Seconds in which tmux writes that a pane is dead, or a new pipe of a pane is in the keeper's hands.
_SETTLED_S = 0.6
#: Seconds until a place is tried again where nobody listens yet (nothing tells of it).
_RETRY_S = 0.05
#: Events that wait for one listener before its past is read on.
_PAST = 5_000

#: Events after which tmux shows something that did not come from the keeper.
_REDRAWN = frozenset({"agent.added", "agent.started", "agent.exited", "recording.gap"})
#: Events that change nothing of the status that a view shows.
_UNTOLD = frozenset({"process.sample", "agent.keys", "gateway.request", "gateway.response", "recording.started"})
#: Figures of the status that change with time alone.
_PASSING = frozenset(
    {"state_s", "last_activity_s", "cpu_percent", "rss_bytes", "children", "events", "totals", "cost_usd"}
)


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened since the last one.

    Parameters
    ----------
    panes : tuple of PaneBytes
        Output of the panes that the listener watches.
    events : tuple of dict
        New events of the journal, in order; none is ever left out.
    status : dict or None
        What the supervisor's ``/status`` says, when it changed.
    gap : str or None
        A sentence while supervisor or keeper are away, or the cluster has ended.
    """

    panes: tuple[PaneBytes, ...]
    events: tuple[dict[str, Any], ...]
    status: dict[str, Any] | None
    gap: str | None


class Listener:
    """One who is told; made by :meth:`Feed.listen`."""

    def __init__(self, run: _Run, on_tick: Callable[[Tick], None], agents: Collection[str], since: int | None) -> None:
        self._run = run
        self.on_tick = on_tick
        self.since = since
        self.watched = frozenset(agents)
        #: Watched panes whose first picture is still to come.
        self.fresh = set(self.watched)
        self.events: list[dict[str, Any]] = []
        #: Events that wait until the listener's past has been read.
        self.held: list[dict[str, Any]] = []
        self.caught_up = False
        self.left = False
        self.told_status: dict[str, Any] | None = None
        self.told_gap: str | None = None

    def watch(self, agents: Collection[str]) -> None:
        """Choose the panes that are told from here on; a new one begins with a repaint.

        Parameters
        ----------
        agents : collection of str
            Their agents.
        """
        self._run.call(self._run.rewatch, self, frozenset(agents))

    def repaint(self, agent: str) -> None:
        """Ask for the whole screen of a pane.

        Parameters
        ----------
        agent : str
            Whose pane.
        """
        self._run.call(self._run.wants_picture, agent)

    def close(self) -> None:
        """Be told nothing more."""
        self._run.leave(self)


class Feed:
    """What happens in one cluster; see :meth:`of`.

    Parameters
    ----------
    folder : Path
        The cluster's runtime folder.
    name : str
        Its name.
    """

    _known: ClassVar[dict[Path, Feed]] = {}
    #: Also of what a run shares with other threads: who listens, and whether it is over.
    lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder
        self.client = Client(folder, name)
        self._run: _Run | None = None
        #: The last status that any run knew: it names the journal, also when the cluster is no more.
        self.last_status: dict[str, Any] | None = None
        #: Whether the cluster is no more; a new one of its name has a feed of its own.
        self.ended = False

    @classmethod
    def of(cls, cluster_name: str) -> Feed:
        """Return the feed of a running cluster, the same one for all listeners of this process.

        Parameters
        ----------
        cluster_name : str
            Its name.

        Returns
        -------
        Feed
            Without cost until somebody listens.

        Raises
        ------
        ClusterNotFound
            When no such cluster runs.
        """
        folder = find(cluster_name)
        with cls.lock:
            feed = cls._known.get(folder)
            if feed is None or feed.ended:
                feed = cls._known[folder] = cls(folder, cluster_name)
            return feed

    def listen(
        self, on_tick: Callable[[Tick], None], *, agents: Collection[str] = (), since: int | None = None
    ) -> Listener:
        """Be told what happens.

        Parameters
        ----------
        on_tick : callable
            Called with each :class:`Tick` on the feed's own thread: at most twenty a second, none when nothing changed.
        agents : collection of str
            Whose panes to begin with; see :meth:`Listener.watch`.
        since : int, optional
            Number of the last event that is known: those behind it come first. By default only what happens from now
            on. When the cluster has ended, the rest is read from its journal, and a gap says so last of all.

        Returns
        -------
        Listener
            To choose panes, and to leave.
        """
        with self.lock:
            if self._run is None or self._run.over:
                run = _Run(self)
                threading.Thread(target=run.run, name=f"feed-{self.name}", daemon=True).start()
                self._run = run
            listener = Listener(self._run, on_tick, agents, since)
            self._run.enter(listener)
        return listener

    def forget(self) -> None:
        """Leave the name to a new cluster."""
        with self.lock:
            if self._known.get(self.folder) is self:
                del self._known[self.folder]


class _Run:
    """One life of a feed's thread, from a first listener to the last, and all that it works with.

    Nothing of it is the feed's: while its last tasks are still ending, the next run may have begun.

    Parameters
    ----------
    feed : Feed
        Of which cluster.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.name, self._folder, self._client = feed.name, feed.folder, feed.client
        #: Whether nobody may listen here any more; the next one starts another run.
        self.over = False
        self._listeners: list[Listener] = []
        self._loop = asyncio.new_event_loop()
        self._panes: dict[str, PaneStream] = {}
        self._again_s: dict[str, float] = {}
        self._gaps: dict[str, str] = {}
        self._seq: int | None = None
        self._status: dict[str, Any] | None = None
        self._stream: KeeperStream | None = None
        self._subscribed: frozenset[str] = frozenset()
        self._work: set[asyncio.Task[None]] = set()
        self._news, self._stale, self._chosen, self._unpainted, self._met = (asyncio.Event() for _ in range(5))

    def enter(self, listener: Listener) -> None:
        """Begin to tell a listener."""
        with Feed.lock:
            self._listeners.append(listener)
            self.call(self._join, listener)

    def leave(self, listener: Listener) -> None:
        """Tell a listener nothing more; the thread ends with the last one."""
        with Feed.lock:
            listener.left = True
            if listener in self._listeners:
                self._listeners.remove(listener)
            self.call(self._left)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have a function run on the thread, if it still runs."""
        with Feed.lock:
            if not self.over:
                self._loop.call_soon_threadsafe(function, *args)

    # on the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Tell the listeners what happens until none is left."""
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except Exception:
            logger.exception("the feed of cluster %s failed", self.name)
        finally:
            with Feed.lock:
                self.over = True
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _main(self) -> None:
        if self._feed.ended:
            self._end()
        else:
            for work in (self._follow_events, self._follow_status, self._follow_panes, self._take_pictures):
                self._spawn(work())
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                self._tell()
                with Feed.lock:
                    if self._feed.ended:
                        self._feed.forget()
                        self._listeners = [one for one in self._listeners if not self._knows_all(one)]
                    if not self._listeners:
                        self.over = True
                        return
                await asyncio.sleep(TICK_S)
        finally:
            for task in list(self._work):
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)

    def _knows_all(self, listener: Listener) -> bool:
        """Tell whether a listener has been told all events of a cluster that has ended, and its end."""
        return listener.caught_up and not listener.events and listener.told_gap == self._gap()

    def _gap(self) -> str | None:
        return "; ".join(self._gaps.values()) or None

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("the feed of cluster %s failed in part", self.name, exc_info=task.exception())

    def _tell(self) -> None:
        told = {name: bytes_ for name, pane in self._panes.items() if (bytes_ := pane.tick()) is not None}
        for listener in list(self._listeners):
            panes = tuple(
                one for one in told.values() if one.agent in listener.watched and self._follows(listener, one)
            )
            happened, listener.events = tuple(listener.events), []
            status = self._status if self._status is not listener.told_status else None
            # The end is told behind all that came before it.
            gap = self._gap() if listener.caught_up or not self._feed.ended else listener.told_gap
            if not (panes or happened or status is not None or gap != listener.told_gap):
                continue
            listener.told_status, listener.told_gap = self._status, gap
            try:
                listener.on_tick(Tick(panes, happened, status, gap))
            except Exception:
                logger.exception("a listener of cluster %s failed", self.name)

    @staticmethod
    def _follows(listener: Listener, told: PaneBytes) -> bool:
        """Tell whether a listener can make sense of output: it has had a picture, or this is one."""
        if told.repaint:
            listener.fresh.discard(told.agent)
        return told.agent not in listener.fresh

    # listeners ----------------------------------------------------------------------------------

    def _join(self, listener: Listener) -> None:
        self._spawn(self._catch_up(listener))
        self._choose()
        for agent in listener.watched:
            self.wants_picture(agent)
        self._news.set()

    def _left(self) -> None:
        self._choose()
        self._news.set()

    def rewatch(self, listener: Listener, agents: frozenset[str]) -> None:
        """Change whose panes a listener is told."""
        new = agents - listener.watched
        listener.watched = agents
        listener.fresh = (listener.fresh & agents) | new
        self._choose()
        for agent in new:
            self.wants_picture(agent)

    def _choose(self) -> None:
        wanted = frozenset().union(*(listener.watched for listener in list(self._listeners)))
        for gone in set(self._panes) - wanted:
            del self._panes[gone]
        for new in wanted - set(self._panes):
            self._panes[new] = PaneStream(new)
        if wanted != self._subscribed:
            self._subscribed = wanted
            if self._stream is not None:
                self._stream.choose(wanted)
            self._chosen.set()

    async def _catch_up(self, listener: Listener) -> None:
        """Tell a listener the events that it has not seen, then let it hear what comes."""
        try:
            await self._met.wait()
            last = await self._tell_past(listener)
            listener.events += [event for event in listener.held if event["seq"] > last]
        finally:
            listener.held, listener.caught_up = [], True
            self._news.set()

    async def _tell_past(self, listener: Listener) -> int:
        """Tell what is behind the last event that a listener knows; return the number of the last one told."""
        last = self._seq if listener.since is None else listener.since
        if last is None:
            return 0  # it ended before anything was known of it
        while not listener.left and not self._feed.ended and self._seq is not None and last < self._seq:
            try:
                async with contextlib.aclosing(events(self._folder / "api.sock", last)) as past:
                    async for event in past:
                        if listener.left:
                            return last
                        last = int(event["seq"])
                        listener.events.append(event)
                        self._news.set()
                        if len(listener.events) > _PAST:
                            await asyncio.sleep(2 * TICK_S)  # they are told meanwhile
                        if last >= self._seq:
                            break
                    else:
                        raise ConnectionError("the stream ended")
            except OSError:
                await asyncio.sleep(_RETRY_S)
        if self._feed.ended and self._status is not None:
            last = await self._tell_rest(listener, journal_of(self._status), last)
        return last

    async def _tell_rest(self, listener: Listener, journal: Path, last: int) -> int:
        """Tell a listener what is behind an event in the journal of a cluster that nobody can be asked about."""
        pieces = behind(journal, last)
        try:
            while not listener.left and (some := await asyncio.to_thread(next, pieces, None)) is not None:
                listener.events += some
                last = int(some[-1]["seq"])
                self._news.set()
                if len(listener.events) > _PAST:
                    await asyncio.sleep(2 * TICK_S)  # they are told meanwhile
        except (OSError, OrchestratorLabError) as error:
            logger.warning("the end of cluster %s is not told: %s", self.name, error)
        return last

    # the supervisor -----------------------------------------------------------------------------

    async def _follow_events(self) -> None:
        while not self._feed.ended:
            try:
                if self._seq is None:
                    self._status = self._feed.last_status = await self._client.aget("/status", timeout_s=20.0)
                    self._seq = int(self._status["events"])
                    self._met.set()
                    self._news.set()
                async with contextlib.aclosing(
                    events(self._folder / "api.sock", self._seq, self._back_again)
                ) as stream:
                    async for event in stream:
                        self._happened(event)
            except (OSError, TimeoutError) as error:
                logger.info("%s", error)
            except ClusterNotFound:
                await self._read_end()
                self._end()
                return
            except OrchestratorLabError as error:
                logger.info("%s", error.message)
            if self._feed.ended:
                return
            self._away("supervisor", f"the supervisor of cluster {self.name!r} is away; it is being started again")
            await self._revive()

    def _back_again(self) -> None:
        if self._gaps.pop("supervisor", None) is not None:
            self._news.set()
            self._all_anew()
        self._stale.set()

    def _away(self, who: str, sentence: str) -> None:
        if self._gaps.get(who) != sentence:
            self._gaps[who] = sentence
            self._news.set()

    async def _revive(self) -> None:
        """Bring back a cluster whose keeper and supervisor are both gone; find out that it has ended."""
        try:
            await asyncio.to_thread(wake, self.name)
        except ClusterNotFound:
            await self._read_end()
            self._end()
        except (OSError, OrchestratorLabError) as error:
            logger.info("%s", error)
        await asyncio.sleep(_RETRY_S)

    def _happened(self, event: dict[str, Any]) -> None:
        self._seq = int(event["seq"])
        for listener in list(self._listeners):
            (listener.events if listener.caught_up else listener.held).append(event)
        self._news.set()
        name, agent = event["event"], event.get("agent")
        if name not in _UNTOLD:
            self._stale.set()
        if name in _REDRAWN and agent is not None:
            self.wants_picture(agent)
            asyncio.get_running_loop().call_later(_SETTLED_S, self.wants_picture, agent)
        elif name == "tmux.rebuilt":
            self._all_anew()
        elif name == "run.ended":
            self._end()

    async def _read_end(self) -> None:
        """Tell what the supervisor journalled when it told nobody any more."""
        if self._status is None or self._seq is None or self._feed.ended:
            return
        pieces = behind(journal_of(self._status), self._seq)
        with contextlib.suppress(OSError, OrchestratorLabError):
            while (some := await asyncio.to_thread(next, pieces, None)) is not None:
                for event in some:
                    if event["seq"] > self._seq:
                        self._happened(event)

    def _end(self) -> None:
        self._feed.ended = True
        # One who came when it had ended already is told from the journal that an earlier run knew.
        self._status = self._feed.last_status = self._status or self._feed.last_status
        self._met.set()
        self._gaps = {"end": f"cluster {self.name!r} has ended"}
        self._news.set()

    async def _follow_status(self) -> None:
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                status = await self._client.aget("/status", timeout_s=20.0)
            except (OSError, OrchestratorLabError) as error:
                logger.info("no status: %s", error)  # who follows the events tells of it
            else:
                if self._status is None or lasting(status) != lasting(self._status):
                    self._status = status
                    self._news.set()
            await asyncio.sleep(_STATUS_S)

    # the panes ----------------------------------------------------------------------------------

    async def _follow_panes(self) -> None:
        while True:
            while not self._subscribed:
                self._chosen.clear()
                await self._chosen.wait()
            try:
                self._stream = await KeeperStream.open(self._folder / "keeper.sock", self._subscribed)
                self._gaps.pop("keeper", None)
                self._all_anew()
                self._stream.choose(self._subscribed)  # it may have changed meanwhile
                await self._read_panes(self._stream)
            except OSError as error:
                logger.info("%s", error)
            finally:
                if self._stream is not None:
                    self._stream.close()
                    self._stream = None
            if self._feed.ended:
                return
            self._away("keeper", f"the keeper of cluster {self.name!r} is away; it is being started again")
            await self._revive()

    async def _read_panes(self, stream: KeeperStream) -> None:
        left, until = _BUDGET, time.monotonic() + TICK_S
        while True:
            message, size = await stream.next()
            pane = self._panes.get(message.get("agent", ""))
            if pane is not None and "data" in message:
                pane.take(int(message["bytes"]), message["data"])
                if pane.unpainted:
                    self._unpainted.set()
                self._news.set()
            elif pane is not None:  # resized, closed, or this reader was too slow
                self.wants_picture(pane.agent)
            left -= size
            now = time.monotonic()
            if left < 0 and now < until:
                # What is left unread grows at the keeper, until it says "repaint" instead.
                await asyncio.sleep(until - now)
                now = until
            if now >= until:
                left, until = _BUDGET, now + TICK_S

    def wants_picture(self, agent: str) -> None:
        """Have tmux's picture of a pane taken."""
        pane = self._panes.get(agent)
        if pane is not None:
            pane.unpainted = True
            self._unpainted.set()

    def _all_anew(self) -> None:
        for pane in self._panes.values():
            pane.lost()
        self._unpainted.set()

    async def _take_pictures(self) -> None:
        while True:
            await self._unpainted.wait()
            self._unpainted.clear()
            for pane in list(self._panes.values()):
                if not pane.unpainted or self._panes.get(pane.agent) is not pane:
                    continue
                try:
                    await self._take_picture(pane)
                except AgentNotFound:
                    pane.unpainted = False  # it comes with `agent.added`
                except (OSError, TimeoutError, OrchestratorLabError) as error:
                    logger.info("no picture of %s: %s", pane.agent, error)
                    self._once_more(pane)

    async def _take_picture(self, pane: PaneStream) -> None:
        for _ in range(_TRIES):
            before = (await keeper_counts(self._folder / "keeper.sock")).get(pane.agent)
            reply = await self._client.aget(f"/agents/{pane.agent}/repaint", timeout_s=20.0)
            after = (await keeper_counts(self._folder / "keeper.sock")).get(pane.agent)
            if before == after:
                break
        data = base64.b64decode(reply["data"])
        pane.paint(data, int(reply["cols"]), int(reply["rows"]), count=before or 0)
        self._news.set()
        if before != after or pane.unpainted:
            # Between the two counts nobody knows which bytes it shows: it is taken once more when the pane is quiet.
            self._once_more(pane)
        else:
            self._again_s.pop(pane.agent, None)

    def _once_more(self, pane: PaneStream) -> None:
        """Take a picture again a little later, and later still while the pane goes on writing."""
        pane.unpainted = False  # until then
        wait = self._again_s.get(pane.agent, _AGAIN_S)
        self._again_s[pane.agent] = min(2 * wait, _LONGEST_AGAIN_S)
        asyncio.get_running_loop().call_later(wait, self.wants_picture, pane.agent)


def journal_of(status: dict[str, Any]) -> Path:
    """Return the journal of the run that a status is of."""
    return Path(status["run_dir"]) / "journal.jsonl"


def behind(journal: Path, since: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of a journal behind a sequence number, as the supervisor tells them.

    Parameters
    ----------
    journal : Path
        The ``journal.jsonl`` of a run.
    since : int
        The last event that is known.

    Yields
    ------
    list of dict
        Some of them, at least one.
    """
    for batch in JournalReader(journal).batches():
        new = [event for event in batch if event.seq > since]
        for start in range(0, len(new), _PAST):
            yield [json.loads(event.to_json()) for event in new[start : start + _PAST]]


def lasting(status: dict[str, Any]) -> dict[str, Any]:
    """Return a status without the figures that change with time alone.

    Parameters
    ----------
    status : dict
        As the supervisor tells it.

    Returns
    -------
    dict
        Two of them are equal when nothing has happened.

    Examples
    --------
    >>> lasting({"events": 7, "agents": [{"name": "boss", "state_s": 1.5}]})
    {'agents': [{'name': 'boss'}]}
    """
    kept = {key: value for key, value in status.items() if key not in _PASSING}
    kept["agents"] = [
        {key: value for key, value in agent.items() if key not in _PASSING} for agent in status.get("agents", ())
    ]
    return kept
