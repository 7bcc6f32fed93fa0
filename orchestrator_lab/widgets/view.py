"""The live view of a cluster in a notebook: panes, states, messages, and the controls below."""

from __future__ import annotations

import contextlib
import html
import logging
import threading
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets
import traitlets

from orchestrator_lab.errors import EnvironmentProblem, OrchestratorLabError
from orchestrator_lab.stills import Screen, Screens
from orchestrator_lab.widgets import opened
from orchestrator_lab.widgets.pump import Pump, shown_facts
from orchestrator_lab.widgets.refresh import Refresher
from orchestrator_lab.widgets.saved import Saved, static_only
from orchestrator_lab.widgets.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator_lab.cluster import Cluster

__all__ = ["ClusterView", "part"]

logger = logging.getLogger(__name__)

#: Bytes of one screen in what a new view begins with.
_STILL_LIMIT = 1 << 16
#: Seconds in which changes are gathered for what a new view begins with, and for what a saved notebook keeps.
_SNAPSHOT_S, _STILL_S = 1.0, 5.0


def part(name: str) -> str:
    """Return a file of the browser's part.

    Parameters
    ----------
    name : str
        ``panes.js`` or ``panes.css``.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    EnvironmentProblem
        When it was not built with this installation; says why.
    """
    static = files("orchestrator_lab.widgets") / "static"
    try:
        return (static / name).read_text(encoding="utf-8")
    except OSError:
        pass
    try:
        why = (static / "missing.txt").read_text(encoding="utf-8").strip()
    except OSError:
        why = "it was installed without building it"
    raise EnvironmentProblem(
        f"this installation has no live views ({why}); build them with 'python extensions/build_hook.py' in the "
        "source's folder, or install orchestrator-lab again",
        file=name,
    )


class ClusterView(Saved, anywidget.AnyWidget):
    """Live panes, states and messages of a running cluster.

    ``Cluster.view()`` makes one, and a cluster that is the last line of a cell shows itself as one. It is no owner: the
    cluster goes on without it, and may have any number of views.

    Parameters
    ----------
    cluster : Cluster
        A running cluster, whoever started it.
    agents : iterable of str, optional
        Whose panes; all by default.
    controls : bool
        Whether there are controls: to take a pane over, and those of :class:`ClusterControls` below.
    theme : {"auto", "light", "dark"}
        Colours; those of the page by default.

    Raises
    ------
    AgentNotFound
        When the cluster has no such agent.
    EnvironmentProblem
        When this installation lacks the browser's part.

    Examples
    --------
    >>> from orchestrator_lab import Cluster
    >>> Cluster.attach("duo").view()  # doctest: +SKIP
    ClusterView(agents=2)
    """

    options = traitlets.Dict().tag(sync=True)
    snapshot = traitlets.Dict(allow_none=True).tag(sync=True)
    #: What a notebook that is saved now keeps of it: JupyterLab's extension writes it into the file.
    still = traitlets.Unicode().tag(sync=True)

    # Also of one whose making failed: ipywidgets closes it all the same.
    _pump: Pump | None = None
    _whole: ipywidgets.VBox | None = None
    _screens: Screens | None = None
    _refreshers: tuple[Refresher, ...] = ()
    _replaced = False
    _count = 0

    def __init__(
        self,
        cluster: Cluster,
        *,
        agents: Iterable[str] | None = None,
        controls: bool = True,
        theme: str = "auto",
    ) -> None:
        self._cluster = cluster
        self._only = None if agents is None else frozenset(cluster[name].name for name in agents)
        self._controls = controls
        self._count = len(self._only) if self._only is not None else len(cluster)
        self._frozen = threading.Event()
        self._stage = Stage()
        if static_only():
            super().__init__()
            self._look()
            return
        self._esm, self._css = part("panes.js"), part("panes.css")
        super().__init__(options={"controls": controls, "theme": theme})
        self._refreshers = (
            Refresher(self._refresh, period_s=_SNAPSHOT_S),
            Refresher(self._restill, period_s=_STILL_S),
        )
        self._pump = Pump(
            cluster.name,
            cluster.client,
            self._to_browser,
            agents=self._only,
            on_end=self._ended,
            on_output=self._refreshers[0].changed,
        )
        self.snapshot = self._look()
        self.on_msg(self._from_browser)
        self.kept()
        opened.opened(self)

    @property
    def cluster_name(self) -> str:
        """The cluster that is shown."""
        return self._cluster.name

    def __repr__(self) -> str:
        return f"ClusterView(agents={self._count})"

    # the browser --------------------------------------------------------------------------------

    def _to_browser(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(message, buffers)

    def _from_browser(self, _: object, content: object, __: object) -> None:
        if self._pump is not None:
            self._pump.ask(content)

    # stills -------------------------------------------------------------------------------------

    def _look(self) -> dict[str, Any]:
        """Take a still of every pane: what a notebook without a kernel shows; return what a new view begins with."""
        status = self._cluster.status()
        facts = shown_facts(status, self._only)
        screens = [
            Screen(agent["name"], str(self._cluster[agent["name"]].screen().ansi))
            for agent in facts
            if agent["name"] in self._cluster.config.names or self._only is None
        ]
        self._screens, self._count = Screens(screens), len(facts)
        return self._snapshot(facts)

    def _snapshot(self, facts: list[dict[str, Any]]) -> dict[str, Any]:
        sizes = {one.name: self._cluster.config.size_of(one) for one in self._cluster.config.agents}
        usual = (self._cluster.config.cols, self._cluster.config.rows)
        return {
            "agents": facts,
            "messages": [] if self._pump is None else self._pump.messages,
            "screens": {
                one.agent: dict(zip(("cols", "rows"), sizes.get(one.agent, usual), strict=True))
                | {"data": painted(one.ansi)}
                for one in self._screens or ()
            },
        }

    def _restill(self, _: frozenset[str]) -> None:
        still = self.still_html()
        self._stage.change(lambda: self._keep(still), key="still")

    def _keep(self, still: str) -> None:
        if not self._frozen.is_set():
            self.still = still

    def _refresh(self, agents: frozenset[str]) -> None:
        """Take stills of panes that have changed, on the refresher's thread."""
        if self._pump is None or self._frozen.is_set():
            return
        known = {one.agent: one for one in self._screens or ()}
        for name in sorted(agents):
            with contextlib.suppress(OrchestratorLabError, OSError):  # it is gone: what it showed last stays
                known[name] = Screen(name, str(self._cluster[name].screen().ansi))
        facts = self._pump.agents
        self._screens, self._count = Screens([known[one["name"]] for one in facts if one["name"] in known]), len(facts)
        snapshot = self._snapshot(facts)
        self._stage.change(lambda: self._begin_with(snapshot), key="snapshot")
        self._refreshers[1].changed(agents)

    def _begin_with(self, snapshot: dict[str, Any]) -> None:
        if not self._frozen.is_set():
            self.snapshot = snapshot

    def still_html(self) -> str:
        """Return the panes as they were at the last look, with their colours."""
        name = html.escape(self._cluster.name)
        # JupyterLab's extension knows a still that it may bring up to date by the class.
        title = f'<div class="orchestrator-lab-still"><b>{name}</b>: {self._count} agents</div>'
        return title + (self._screens or Screens([]))._repr_html_()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # noqa: ANN401
        if static_only() or self._frozen.is_set():
            return self._still()
        if self._controls and self._whole is None:
            from orchestrator_lab.widgets.controls import ClusterControls

            self._whole = ipywidgets.VBox([self, ClusterControls(self._cluster)])
        if self._whole is not None:
            return {**(self._whole._repr_mimebundle_(**kwargs) or {}), **self._still()}
        data, _ = anywidget.AnyWidget._repr_mimebundle_(self, **kwargs) or ({}, {})
        return {**data, **self._still()}

    # end ----------------------------------------------------------------------------------------

    def freeze(self, *, look: bool = True) -> None:
        """Replace each place where this is shown by a still, which is what a saved notebook keeps.

        Called by ``Cluster.shutdown()``, at the end of the cluster, and at the end of the kernel. From another thread
        than the main one it only begins: the kernel's event loop does the rest.

        Parameters
        ----------
        look : bool
            Whether to take a last look at the panes.
        """
        if self._frozen.is_set():
            return
        self._frozen.set()
        if look:
            with contextlib.suppress(OrchestratorLabError, OSError):
                self._look()
        # Widgets change on one thread; at the end of the kernel, its loop stands still already.
        if threading.current_thread() is threading.main_thread():
            self._replace()
        else:
            self._stage.change(self._replace)

    def _replace(self) -> None:
        if not self._replaced:
            self._replaced = True
            super().freeze()
            self.close()

    def leave(self) -> None:
        """Leave a still behind as the kernel ends; without a last look, which could take long."""
        self.freeze(look=False)

    def _ended(self) -> None:
        # The panes are gone, the last look has to do.
        self.freeze(look=False)

    def close(self) -> None:
        """Close the widget; the cluster goes on."""
        for refresher in self._refreshers:
            refresher.close()
        if self._pump is not None:
            self._pump.close()
        opened.closed(self)
        if self._whole is not None:
            # The controls below follow the cluster by themselves.
            self._whole.children[1].close()
        super().close()
        # ipywidgets takes this away from what is closed; a still can be shown all the same.
        self.__dict__.pop("_repr_mimebundle_", None)


def painted(ansi: str) -> bytes:
    r"""Return a still as a terminal is to be told it.

    Examples
    --------
    >>> painted("a\nb")
    b'\x1bc\x1b[?25l\x1b(B\x1b)0\x1b[1;1Ha\x1b[2;1Hb\x1b[m'
    """
    lines = "".join(f"\x1b[{number};1H{line}" for number, line in enumerate(ansi.split("\n"), 1))
    data = f"\x1bc\x1b[?25l\x1b(B\x1b)0{lines}\x1b[m".encode("utf-8", "replace")
    return data if len(data) <= _STILL_LIMIT else data[:_STILL_LIMIT].rsplit(b"\x1b[", 1)[0]
