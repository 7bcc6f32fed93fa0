"""Between a cluster's feed and the views in a browser: what is sent to them, and what they ask for.

A kernel that runs a synchronous cell hears nothing from the browser, and sends all the same: this works on the feed's
thread and on one of its own. What comes from the browser is only put into a queue where it is received.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import OrchestratorLabError, addressed
from orchestrator_lab.live import Feed
from orchestrator_lab.messagenews import message_news

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.client import Client
    from orchestrator_lab.live import Listener, Tick

__all__ = ["Pump", "shown_facts"]

logger = logging.getLogger(__name__)

#: Messages that a view begins with.
_MESSAGES = 200
#: Events of the past in which they are looked for.
_PAST = 4_000
#: Views of one widget that are remembered before they are asked who is still there: a reloaded page says no goodbye.
_VIEWS = 4
#: What a view shows of an agent.
_SHOWN = (
    "name",
    "role",
    "kind",
    "state",
    "state_s",
    "turns",
    "input_tokens",
    "output_tokens",
    "queued",
    "dialog",
    "error",
)


def shown_facts(status: dict[str, Any], only: frozenset[str] | None = None) -> list[dict[str, Any]]:
    """Return what a view shows of the agents.

    Parameters
    ----------
    status : dict
        The supervisor's status.
    only : frozenset of str, optional
        Whose; all by default.

    Returns
    -------
    list of dict
        One for each agent.

    Examples
    --------
    >>> shown_facts({"agents": [{"name": "boss", "pid": 7, "state": "idle"}]})
    [{'name': 'boss', 'state': 'idle'}]
    """
    return [
        {key: agent[key] for key in _SHOWN if key in agent}
        for agent in status.get("agents", ())
        if only is None or agent["name"] in only
    ]


class Pump:
    """Tells the views of one widget what happens, and does what they ask.

    Parameters
    ----------
    name : str
        The cluster.
    client : Client
        To its supervisor.
    send : callable
        Takes a message and buffers for the browser; called on two threads, never at the same time.
    agents : frozenset of str, optional
        Whose panes are shown; all by default.
    on_end : callable, optional
        Called once, on the feed's thread, when the cluster has ended.
    on_output : callable, optional
        Called on the feed's thread with the agents whose panes have changed.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        send: Callable[[dict[str, Any], list[bytes]], None],
        *,
        agents: frozenset[str] | None = None,
        on_end: Callable[[], None] | None = None,
        on_output: Callable[[frozenset[str]], None] | None = None,
    ) -> None:
        self._client, self._send, self._agents, self._on_end = client, send, agents, on_end
        self._on_output = on_output
        self._lock = threading.RLock()
        self._views: dict[str, frozenset[str]] = {}
        self._messages: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._status: dict[str, Any] = {}
        self._gap: str | None = None
        #: The take-over in which a view's keys could not be typed: what follows in it is dropped.
        self._refused: dict[str, object] = {}
        self._asked: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._closed = False
        feed = Feed.of(name)
        self._status = client.get("/status", timeout_s=20.0)
        since = max(0, int(self._status["events"]) - _PAST)
        self._listener: Listener = feed.listen(self._tick, since=since)

    @property
    def agents(self) -> list[dict[str, Any]]:
        """What is known of the agents that are shown."""
        with self._lock:
            return shown_facts(self._status, self._agents)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The newest messages."""
        with self._lock:
            return [dict(one) for one in self._messages.values()]

    def ask(self, message: object) -> None:
        """Take in what a view says; it is done on another thread."""
        if not isinstance(message, dict) or self._closed:
            return
        self._asked.put(message)
        with self._lock:
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="orchestrator-lab-view", daemon=True)
                self._worker.start()

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        self._listener.close()
        self._asked.put(None)

    # on the feed's thread -----------------------------------------------------------------------

    def _tick(self, tick: Tick) -> None:
        news = [one for one in map(message_news, tick.events) if one is not None]
        with self._lock:
            for one in news:
                self._messages[one["message_id"]] = {**self._messages.get(one["message_id"], {}), **one}
            while len(self._messages) > _MESSAGES:
                self._messages.popitem(last=False)
            message: dict[str, Any] = {"type": "tick", "panes": []}
            if tick.status is not None:
                self._status = tick.status
                message |= {"agents": self.agents, "alerts": tick.status.get("alerts", [])}
            if news:
                message["messages"] = news
            if tick.gap != self._gap:
                self._gap = message["gap"] = tick.gap
            message["panes"] = [
                {"agent": one.agent, "repaint": one.repaint, "cols": one.cols, "rows": one.rows} for one in tick.panes
            ]
            # Without a view in a browser nobody needs to be told.
            if self._views and (tick.panes or len(message) > 2):
                self._send(message, [one.data for one in tick.panes])
        if self._on_output is not None and tick.panes:
            self._on_output(frozenset(one.agent for one in tick.panes))
        if self._on_end is not None and tick.gap is not None and tick.gap.endswith("has ended"):
            self._on_end()

    # on a thread of its own ---------------------------------------------------------------------

    def _work(self) -> None:
        while (message := self._asked.get()) is not None:
            try:
                self._do(message)
            except OrchestratorLabError as error:
                agent = message.get("agent")
                self._refuse(error, str(message.get("view")), agent if isinstance(agent, str) else None)
            except Exception:
                logger.exception("a view's message could not be handled: %s", str(message)[:200])
            # Done, or said why not: the view knows that it is heard.
            if message.get("type") != "bye":
                self._tell({"type": "ack", "view": message.get("view"), "n": message.get("n")})

    def _tell(self, message: dict[str, Any]) -> None:
        with self._lock:
            if not self._closed:
                self._send(message, [])

    def _do(self, message: dict[str, Any]) -> None:
        view = str(message.get("view"))
        if message.get("type") in {"ping", "repaint", "keys"}:
            self._know(view)
        match message.get("type"):
            case "hello":
                self._greet(view)
            case "bye":
                with self._lock:
                    self._views.pop(view, None)
                self._refused.pop(view, None)
                self._watch()
            case "watch":
                agents = message.get("agents")
                names = frozenset(map(str, agents)) if isinstance(agents, list) else frozenset()
                with self._lock:
                    new = names - self._views.get(view, frozenset())
                    # Of a pane that another view watches already, this one has not seen the picture.
                    known = frozenset().union(*self._views.values()) & new
                    self._views[view] = names
                self._watch()
                for agent in sorted(known):
                    self._listener.repaint(agent)
            case "repaint":
                self._listener.repaint(str(message.get("agent")))
            case "keys":
                agent, keys = str(message.get("agent")), message.get("data")
                if isinstance(keys, str) and keys and self._mine(agent):
                    self._type(view, agent, keys, message.get("hold"))

    def _type(self, view: str, agent: str, keys: str, hold: object) -> None:
        """Type into a pane, unless keys of the same take-over failed: the rest would meet another screen."""
        if view in self._refused and self._refused[view] == hold:
            return
        try:
            self._client.post_once(f"/agents/{agent}/keys", {"keys": keys})
        except OrchestratorLabError as error:
            self._refused[view] = hold
            self._refuse(error, view, agent)

    def _refuse(self, error: OrchestratorLabError, view: str, agent: str | None) -> None:
        """Say to the view that asked what could not be done, and whom it is about."""
        about = {} if agent is None else {"agent": agent}
        said = addressed(error, cluster=self._client.name, agent=agent).message
        self._tell({"type": "error", "view": view, **about, "message": said})

    def _know(self, view: str) -> None:
        """Ask a view that is not known (any more) to begin anew; else it would stand still and not know."""
        with self._lock:
            unknown = view not in self._views
        if unknown:
            self._tell({"type": "again", "view": view})

    def _mine(self, agent: str) -> bool:
        return any(agent == one["name"] for one in self.agents)

    def _greet(self, view: str) -> None:
        with self._lock:
            self._views[view] = frozenset()
            if len(self._views) > _VIEWS:
                # Only the living answer, however many they are: none is left out for its age.
                self._views = {view: frozenset()}
                self._refused = {one: hold for one, hold in self._refused.items() if one == view}
                self._send({"type": "again", "view": None}, [])
            facts = {"agents": self.agents, "alerts": self._status.get("alerts", [])}
            self._send({"type": "tick", "panes": [], **facts, "messages": self.messages, "gap": self._gap}, [])

    def _watch(self) -> None:
        with self._lock:
            wanted = frozenset().union(*self._views.values())
        self._listener.watch(wanted if self._agents is None else wanted & self._agents)
