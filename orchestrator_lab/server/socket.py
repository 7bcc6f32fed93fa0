"""The websocket: what happens in clusters, told as it happens to a browser that may be slow."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from pydantic import ValidationError
from tornado import web
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from orchestrator_lab import __version__
from orchestrator_lab.client import find
from orchestrator_lab.errors import ConfigError, OrchestratorLabError, SupervisorLost, addressed, to_payload
from orchestrator_lab.live import Feed
from orchestrator_lab.server import tails
from orchestrator_lab.server.errors import wrong_request
from orchestrator_lab.server.handlers import LabMixin
from orchestrator_lab.server.lanes import Lanes
from orchestrator_lab.server.outbox import (
    Events,
    Listing,
    Metrics,
    Outbox,
    Repaint,
    Resume,
    Screens,
    Status,
    kind_of,
)
from orchestrator_lab.server.spoken import REQUESTS, OfCluster, OfLog, OfPane, Ping, Subscribe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator_lab.folds.base import Fold
    from orchestrator_lab.live import Listener, Tick
    from orchestrator_lab.server.models import LogName
    from orchestrator_lab.server.outbox import Item
    from orchestrator_lab.server.watching import ClusterWatch, Told

__all__ = ["Socket"]

#: Bytes of a request: they are all short.
_LONGEST = 64 * 1024
#: Seconds between two frames of figures at least.
_METRICS_S = 2.0
#: Clusters that one socket may follow.
_MOST_CLUSTERS = 64
#: Requests of one cluster that may wait for the one before them.
_MOST_REQUESTS = 32


@dataclass(slots=True)
class _Followed:
    """A cluster that this socket is told of."""

    feed: Feed
    listener: Listener
    panes: frozenset[str]
    status: dict[str, Any] | None = None
    gap: str | None = None
    metrics_at: float = 0.0
    metrics_due: bool = False
    metrics_task: asyncio.Task[None] | None = None


class Socket(LabMixin, WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One browser."""

    def initialize(self, name: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Tornado's
        """Begin with nothing to tell."""
        super().initialize(name, *args, **kwargs)
        self._outbox = Outbox()
        self._followed: dict[str, _Followed] = {}
        self._news = asyncio.Event()
        self._lanes = Lanes(most=_MOST_REQUESTS, most_names=_MOST_CLUSTERS)
        self._logs: dict[str, asyncio.Task[None]] = {}
        self._unlisten: Callable[[], None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._gone = False
        self._loop = asyncio.get_running_loop()

    @property
    def max_message_size(self) -> int:
        """Bytes of a request; a longer one ends the connection."""
        return _LONGEST

    def get_compression_options(self) -> None:
        """Compress nothing: a few bytes would be saved for much work, and screens are most of it."""

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Tornado's
        """Open the socket to those who may look."""
        user = self.current_user
        if not await ensure_async(self.authorizer.is_authorized(self, user, "read", self.auth_resource)):
            raise web.HTTPError(403)
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Tornado's
        """Greet, and begin to write."""
        super().open(*args, **kwargs)
        self._writer = asyncio.create_task(self._write_on(), name="orchestrator-lab socket")

    async def on_message(self, message: str | bytes) -> None:
        """Take what the browser asks: in order for each cluster, and none waits for a supervisor but its own."""
        try:
            request = REQUESTS.validate_json(message)
        except ValidationError as error:
            await self._problem(wrong_request(error, "frame"))
            return
        if isinstance(request, Ping):
            await self._send("pong", None, {"data": request.data})
        elif not self._lanes.put(request.cluster, functools.partial(self._do, request)):
            refused = SupervisorLost(
                f"too many requests of this socket wait for cluster {request.cluster!r} or for others: "
                f"'{request.op}' was not done; send it again after an answer"
            )
            await self._problem(refused, request.cluster)

    async def _do(self, request: Subscribe | OfCluster | OfPane | OfLog) -> None:
        name = request.cluster
        try:
            if isinstance(request, Subscribe):
                await self._subscribe(request)
            elif isinstance(request, OfPane):
                self._known(name).listener.repaint(request.agent)
            elif isinstance(request, OfLog):
                await self._follow_log(name, request.process)
            elif request.op == "unsubscribe":
                self._leave(name)
            else:
                status = await self.clusters.call(name, lambda: self.clusters.get(name).status())
                await self._send("status", name, {**status, "gap": None})
        except OrchestratorLabError as error:
            await self._problem(error, name, request.agent if isinstance(request, OfPane) else None)
        except Exception:
            self.log.exception("a request for cluster %s failed", name)
            self.close(1011, "the server failed; its log says more")

    def _known(self, cluster: str) -> _Followed:
        followed = self._followed.get(cluster)
        if followed is None:
            raise ConfigError(f"cluster {cluster!r} is not subscribed to: send 'subscribe' first")
        return followed

    # following ----------------------------------------------------------------------------------

    async def _subscribe(self, request: Subscribe) -> None:
        name, panes = request.cluster, frozenset(request.panes)
        followed = self._followed.get(name)
        if followed is None and len(self._followed) >= _MOST_CLUSTERS:
            raise ConfigError(f"one socket follows {_MOST_CLUSTERS} clusters: unsubscribe from one, or open another")
        if followed is None or request.since is not None or followed.feed.ended:
            # The first look says, in its own words, whether it runs and speaks this version.
            await self.clusters.call(name, lambda: self.clusters.get(name))
            feed = await self.clusters.call(name, lambda: Feed.of(name))
            self._leave(name)
            self._outbox.open(name, request.events)
            self._listen(name, feed, panes, request.since)
        else:
            self._outbox.open(name, request.events)
            self._outbox.drop_panes(name, panes)
            followed.panes = panes
            followed.listener.watch(panes)
            self._put_status(name)
        self._outbox.put_metrics(name)
        self._news.set()

    def _listen(self, name: str, feed: Feed, panes: frozenset[str], since: int | None) -> None:
        """Have the feed tell of a cluster; its thread only hands over."""
        if self._gone:
            return  # the browser left while the cluster was looked up: nobody would let go of the listener
        own: list[Listener] = []

        def on_tick(tick: Tick) -> None:
            with contextlib.suppress(RuntimeError):  # the server's loop has ended
                self._loop.call_soon_threadsafe(self._take, name, own, tick)

        own.append(feed.listen(on_tick, agents=panes, since=since))
        self._followed[name] = _Followed(feed, own[0], panes)

    def _take(self, name: str, own: list[Listener], tick: Tick) -> None:
        followed = self._followed.get(name)
        if followed is None or followed.listener not in own:
            return  # of a listener that was closed meanwhile
        self._outbox.put_events(name, tick.events)
        for pane in tick.panes:
            if pane.agent in followed.panes:
                self._outbox.put_screen(Screens(name, pane.agent, pane.data, pane.repaint, pane.cols, pane.rows))
        if tick.status is not None or tick.gap != followed.gap:
            followed.status, followed.gap = tick.status or followed.status, tick.gap
            self._put_status(name)
        self._news.set()

    def _put_status(self, name: str) -> None:
        followed = self._followed[name]
        if followed.status is not None:
            self._outbox.put_status(name, {**followed.status, "gap": followed.gap})

    def _leave(self, name: str) -> None:
        followed = self._followed.pop(name, None)
        if followed is not None:
            followed.listener.close()
            if followed.metrics_task is not None:
                followed.metrics_task.cancel()
        self._outbox.close(name)

    def on_close(self) -> None:
        """Let go of everything."""
        super().on_close()
        self._gone = True
        self._lanes.clear()
        if self._unlisten is not None:
            self._unlisten()
        for task in self._logs.values():
            task.cancel()
        for name in list(self._followed):
            self._leave(name)
        if self._writer is not None:
            self._writer.cancel()

    async def _follow_log(self, name: str, process: LogName | None) -> None:
        before = self._logs.pop(name, None)
        if before is not None:
            before.cancel()
        if process is None:
            return
        if len(self._logs) >= _MOST_CLUSTERS:
            raise ConfigError(f"one socket follows the logs of {_MOST_CLUSTERS} clusters: follow one less")
        folder = await self.clusters.read(lambda: find(name))
        if not self._gone:
            path = folder / "logs" / f"{process}.log"
            self._logs[name] = asyncio.create_task(self._tell_log(name, process, path), name="orchestrator-lab log")

    # telling ------------------------------------------------------------------------------------

    async def _tell_log(self, name: str, process: str, path: Path) -> None:
        """Tell what is written into a log, at the browser's pace, until it is gone."""
        try:
            async with contextlib.aclosing(tails.follow(path, self.clusters.read)) as pieces:
                async for piece in pieces:
                    await self._send("log", name, {"process": process, **piece._asdict()})
        except OSError as error:
            problem = ConfigError(f"{path} cannot be read ({error.strerror}): check its owner")
            await self._problem(problem, name)
        except Exception:
            self.log.exception("a log of cluster %s could not be told", name)

    def _hear(self, told: Told) -> None:
        """Take the list of clusters, or why there is none."""
        if isinstance(told, OrchestratorLabError):
            self._outbox.put_listing(Listing("error", to_payload(told)))
        else:
            self._outbox.put_listing(Listing("clusters", told))
        self._news.set()

    async def _write_on(self) -> None:
        """Write one thing after another, each once the browser has taken the one before."""
        try:
            running: list[dict[str, Any]] = []
            with contextlib.suppress(OrchestratorLabError):  # what is wrong is said by the watch
                running = await self.clusters.call(None, self.clusters.listed)
            await self._send("connected", None, {"version": __version__, "clusters": running})
            watch = cast("ClusterWatch", self.settings["orchestrator_lab_watch"])
            self._unlisten = watch.listen(self._hear)
            while True:
                item = self._outbox.take()
                if item is None:
                    self._news.clear()
                    await self._news.wait()
                    continue
                try:
                    await self._write(item)
                except OrchestratorLabError as error:
                    await self._problem(error, item.cluster)
        except (WebSocketClosedError, StreamClosedError):
            return
        except Exception:
            self.log.exception("a websocket of the dashboard failed")
            self.close(1011, "the server failed; its log says more")

    async def _write(self, item: Item) -> None:
        if isinstance(item, Listing):
            await self._send(item.event, None, item.data)
            return
        name = item.cluster
        if isinstance(item, Events):
            rows = await self._rows(item)
            for event in item.events:
                kind = kind_of(event["event"])
                await self._send(kind or "event", name, {**event, **_joined(event, rows)}, event["seq"])
        elif isinstance(item, Status):
            await self._send("status", name, item.status)
        elif isinstance(item, Screens):
            told = {"agent": item.agent, "repaint": item.repaint, "cols": item.cols, "rows": item.rows}
            await self._send("screen", name, {**told, "data": base64.b64encode(item.data).decode("ascii")})
        elif isinstance(item, Metrics):
            self._metrics(name)
        elif name in self._followed:
            self._ask_again(item, self._followed[name])

    def _ask_again(self, item: Repaint | Resume, followed: _Followed) -> None:
        """Have the feed tell once more what was dropped: a fresh screen, or events from the journal."""
        if isinstance(item, Repaint):
            followed.listener.repaint(item.agent)
        else:
            followed.listener.close()
            self._listen(item.cluster, followed.feed, followed.panes, item.since)

    def _metrics(self, name: str) -> None:
        """Have the figures sent, but not more often than somebody can read them."""
        followed = self._followed.get(name)
        if followed is None or followed.metrics_due:
            return
        under_way = followed.metrics_task is not None and not followed.metrics_task.done()
        wait = _METRICS_S if under_way else followed.metrics_at + _METRICS_S - time.monotonic()
        if wait > 0:
            followed.metrics_due = True

            def later() -> None:
                followed.metrics_due = False
                if self._followed.get(name) is followed:
                    self._outbox.put_metrics(name)
                    self._news.set()

            self._loop.call_later(wait, later)
            return
        followed.metrics_at = time.monotonic()
        # By itself: a supervisor that hangs must not hold up what is told of other clusters.
        followed.metrics_task = asyncio.create_task(self._figures(name), name="orchestrator-lab figures")

    async def _figures(self, name: str) -> None:
        try:
            figures = await self.clusters.call(name, lambda: self.clusters.get(name).figures())
            await self._send("metrics", name, figures)
        except OrchestratorLabError as error:
            await self._problem(error, name)
        except Exception:
            self.log.exception("the figures of cluster %s could not be told", name)

    async def _rows(self, item: Events) -> dict[str, dict[str, Any]]:
        """Return the rows of messages and alerts that events speak of, as the run's tables have them."""
        wanted: dict[str, set[str]] = {"messages": set(), "alerts": set()}
        for event in item.events:
            if kind_of(event["event"]) == "message" and event.get("message_id"):
                wanted["messages"].add(str(event["message_id"]))
            elif kind_of(event["event"]) == "alert":
                wanted["alerts"].add(str(event.get("attributes", {}).get("alert_id")))
        if not any(wanted.values()):
            return {}

        def look() -> dict[str, dict[str, Any]]:
            tables = self.clusters.tables(item.cluster)
            found: dict[str, dict[str, Any]] = {}
            for table, ids in wanted.items():
                if ids:
                    found |= tables.read(table, functools.partial(_found, ids))
            return found

        try:
            return await self.clusters.read(look)
        except OrchestratorLabError:
            return {}  # it has ended meanwhile: the events themselves are told all the same

    async def _problem(self, error: OrchestratorLabError, cluster: str | None = None, agent: str | None = None) -> None:
        await self._send("error", cluster, to_payload(addressed(error, cluster=cluster, agent=agent)))

    async def _send(
        self,
        event: str,
        cluster: str | None,
        data: Any,  # noqa: ANN401 - JSON
        seq: int | None = None,
    ) -> None:
        frame = {"event": event, "cluster": cluster, "seq": seq, "data": data}
        with contextlib.suppress(WebSocketClosedError, StreamClosedError):
            await self.write_message(json.dumps(frame))


def _found(ids: set[str], fold: Fold) -> dict[str, dict[str, Any]]:
    return {one: row for one in ids if (row := fold.row(one)) is not None}


def _joined(event: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the row that an event speaks of, under the name of its kind."""
    kind = kind_of(event["event"])
    key = event.get("message_id") if kind == "message" else event.get("attributes", {}).get("alert_id")
    return {kind: rows[key]} if kind in {"message", "alert"} and key in rows else {}
