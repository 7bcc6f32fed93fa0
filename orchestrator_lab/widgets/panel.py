"""The control panel of a notebook: the clusters of this machine, and a start from a template."""

from __future__ import annotations

import html
import weakref
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from orchestrator_lab.cluster import Cluster
from orchestrator_lab.config import template_names, template_text
from orchestrator_lab.discovery import follow
from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.live import Feed
from orchestrator_lab.widgets import opened
from orchestrator_lab.widgets.cells import CellWatch
from orchestrator_lab.widgets.controls import ClusterControls
from orchestrator_lab.widgets.facts import Facts, coloured, counted
from orchestrator_lab.widgets.saved import Saved
from orchestrator_lab.widgets.stage import Stage, in_background
from orchestrator_lab.widgets.starting import written

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.live import Listener, Tick

__all__ = ["ControlPanel", "panel"]

_WRAPS = {"flex_flow": "row wrap", "align_items": "center"}
_KINDS = (("as in the template", None), ("claude", "claude"), ("codex", "codex"), ("chat (local model)", "chat"))


def panel() -> ControlPanel:
    """Show the clusters of this machine: start, look, shut down.

    Returns
    -------
    ControlPanel
        Displays itself as the last expression of a cell.
    """
    return ControlPanel()


class ControlPanel(Saved, widgets.VBox):  # type: ignore[misc]
    """The clusters that run on this machine for this user, with their states and alerts, and a start from a template.

    It follows them by push, whoever starts or ends them.
    """

    def __init__(self) -> None:
        self._stage = Stage()
        self._rows: dict[str, _ClusterRow] = {}
        self._closed = False
        self._list = widgets.VBox()
        self._said = widgets.HTML()
        self._build_start()
        super().__init__([self._start_box, self._list, self._said])
        self.add_class("olab-panel")
        watch = CellWatch.here()
        if watch is not None:
            for one in (self._template, self._kind, self._name, self._folder):
                watch.receipt(one)
        found = weakref.WeakMethod(self._found)
        self._ends = [watch(lambda: (met := found()) and met()) for watch in (opened.listen, follow)]
        self._show([one.name for one in Cluster.list()])

    # starting -----------------------------------------------------------------------------------

    def _build_start(self) -> None:
        names = [
            (f"{name}: {template_text(name).partition(chr(10))[0].lstrip('# ')}", name) for name in template_names()
        ]
        narrow = {"width": "18em"}
        self._template = widgets.Dropdown(options=names, value="duo", description="template", layout={"width": "40em"})
        self._kind = widgets.Dropdown(options=_KINDS, description="agents", layout=narrow)
        self._name = widgets.Text(description="name", placeholder="the template's own", layout=narrow)
        self._folder = widgets.Text(description="folder", placeholder="this folder", layout={"width": "26em"})
        self._start_button = _button("Start", "Write the template into the folder, and start it", self._on_start)
        self._start_button.button_style = "primary"
        self._start_box = widgets.VBox(
            [
                widgets.HBox([self._template, self._kind], layout=_WRAPS),
                widgets.HBox([self._name, self._folder, self._start_button], layout=_WRAPS),
            ]
        )

    def _on_start(self) -> None:
        chosen = (self._template.value, self._kind.value, self._name.value.strip(), self._folder.value.strip())
        self._start_button.disabled = True
        self._say("Starting …", well=True)

        def heard(event: dict[str, Any]) -> None:
            if event["event"] in {"agent.started", "agent.ready"}:
                word = event["event"].removeprefix("agent.")
                self._stage.change(
                    lambda: self._say(f"Starting … {event.get('agent')}: {word}", well=True), key="start"
                )

        def work() -> str:
            cluster = Cluster.start(written(*chosen), on_event=heard)
            return f"Cluster {cluster.name} is running: {', '.join(cluster.names)}."

        def done(said: str, well: bool) -> None:
            def tell() -> None:
                self._start_button.disabled = False
                self._say(said if well else f"Nothing was started: {said}", well=well)

            self._stage.change(tell, key="start")
            self._found()

        in_background(work, done)

    # the list -----------------------------------------------------------------------------------

    def _found(self) -> None:
        """Look which clusters run, on any thread, and show them."""
        try:
            names = [one.name for one in Cluster.list()]
        except OrchestratorLabError as error:
            said = error.message
            self._stage.change(lambda: self._say(said, well=False))
            return
        self._stage.change(lambda: self._show(names), key="list")

    def _show(self, names: list[str]) -> None:
        # Outside of a kernel it is closed on another thread than this one.
        if self._closed:
            return
        before, rows = dict(self._rows), {}
        for name in names:
            row = before.pop(name, None)
            if row is None or not row.follows:
                if row is not None:
                    row.leave()
                row = _ClusterRow(name, self._stage, self._say, self._found)
            rows[name] = row
            row.draw()
        for row in before.values():
            row.leave()
        self._rows = rows
        if self._closed:
            self._leave()
            return
        none = widgets.HTML("<i>No cluster is running.</i>")
        shown = tuple(rows.values()) or (none,)
        if tuple(self._list.children) != shown:
            self._list.children = shown

    def _say(self, text: str, *, well: bool) -> None:
        colour = "inherit" if well else "#d64545"
        self._said.value = f'<div role="status" style="color:{colour};white-space:pre-wrap">{html.escape(text)}</div>'

    @property
    def clusters(self) -> list[str]:
        """Names of the clusters that are shown."""
        return list(self._rows)

    def close(self) -> None:
        """Take the panel away, with the views that it opened; the clusters go on."""
        for end in self._ends:
            end()
        self._ends, self._closed = [], True
        self._leave()
        super().close()

    def _leave(self) -> None:
        rows, self._rows = self._rows, {}
        for row in rows.values():
            row.leave()

    def still_html(self) -> str:
        """Return what a notebook without a kernel shows."""
        return "<i>The control panel of Orchestrator Lab; it works while its kernel runs.</i>"

    def __repr__(self) -> str:
        return "ControlPanel()"


class _ClusterRow(widgets.VBox):  # type: ignore[misc]
    """One cluster in the list: what it does, its alerts, the view of it."""

    def __init__(self, name: str, stage: Stage, say: Callable[..., None], changed: Callable[[], None]) -> None:
        self.name = name
        self._stage, self._say, self._changed = stage, say, changed
        self._facts = Facts("unknown")
        self._gap: str | None = None
        self._listener: Listener | None = None
        self._text = widgets.HTML()
        self._alerts = widgets.HTML()
        self._open = _button("Open", "Show its panes and controls here", self._on_open)
        self._close = _button("Close view", "Take the view away; the cluster goes on", self._on_close)
        self._shut = _button("Shut down …", "End its agents and its run", self._on_doubt)
        self._really = _button("Yes, shut it down", "End its agents and its run now", self._on_shutdown, "danger")
        self._keep = _button("Keep it", "Change nothing", self._on_keep)
        self._parts: list[Any] = []
        self._bar = widgets.HBox([self._text, self._open, self._shut], layout=_WRAPS)
        super().__init__([self._bar, self._alerts])
        try:
            self._cluster = Cluster.attach(name)
            self._facts = Facts.of(self._cluster.status())
            # It may end between any two of these lines.
            self._feed = Feed.of(name)
        except OrchestratorLabError as error:
            self._gap = error.message
            return
        mine = weakref.WeakMethod(self._tick)
        self._listener = self._feed.listen(lambda tick: (met := mine()) and met(tick))

    @property
    def follows(self) -> bool:
        """Whether the cluster answers, so that the row is of it and of no earlier one of its name."""
        return self._listener is not None

    def _tick(self, tick: Tick) -> None:
        facts = None if tick.status is None else Facts.of(tick.status)
        if self._feed.ended:
            self._stage.change(self.leave)
            self._changed()
        elif facts is not None or tick.gap != self._gap:
            self._stage.change(lambda: self._take(facts, tick.gap), key=self.name)

    def _take(self, facts: Facts | None, gap: str | None) -> None:
        if facts is not None and facts.events >= self._facts.events:
            self._facts = facts
        self._gap = gap
        self.draw()

    def draw(self) -> None:
        """Show what is known now."""
        facts = self._facts
        count = len(opened.views(self.name))
        views = "" if not count else f" · {count} open view{'s' if count > 1 else ''}"
        said = counted(facts) if self._gap is None else self._gap
        text = f"<b>{html.escape(self.name)}</b> {coloured(facts.status)} · {html.escape(said)}{views}"
        if self._text.value != text:
            self._text.value = text
        lines = "".join(
            f"<div>{coloured(one.level)}: {html.escape(one.message)}</div>"
            for one in facts.alerts
            if not one.acknowledged
        )
        asked = "".join(
            f"<div>{coloured('waiting', one.agent)} asks: {html.escape(one.subject or one.kind)}</div>"
            for one in facts.dialogs
        )
        if self._alerts.value != asked + lines:
            self._alerts.value = asked + lines

    # doing --------------------------------------------------------------------------------------

    def _buttons(self, *buttons: widgets.Button) -> None:
        self._bar.children = (self._text, *buttons)

    def _usual(self) -> None:
        self._buttons(self._close if self._parts else self._open, self._shut)

    def _on_open(self) -> None:
        try:
            self._parts = [self._cluster.view(), ClusterControls(self._cluster)]
        except OrchestratorLabError as error:
            # Without the part that draws panes there are still the controls.
            self._say(error.message, well=False)
            self._parts = [ClusterControls(self._cluster)]
        self.children = [self._bar, self._alerts, *self._parts]
        self._usual()

    def _on_close(self) -> None:
        parts, self._parts = self._parts, []
        self.children = [self._bar, self._alerts]
        for part in parts:
            part.close()
        self._usual()

    def _on_doubt(self) -> None:
        self._buttons(self._really, self._keep)

    def _on_keep(self) -> None:
        self._usual()

    def _on_shutdown(self) -> None:
        self._buttons()
        self._say(f"Shutting down {self.name} …", well=True)

        def work() -> str:
            return f"Cluster {self.name} was shut down; its run is {self._cluster.shutdown()}."

        def done(said: str, well: bool) -> None:
            self._stage.change(lambda: self._say(said, well=well))
            if not well:
                self._stage.change(self._usual)
            self._changed()

        in_background(work, done)

    def leave(self) -> None:
        """Follow no longer; close the view."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._parts:
            self._on_close()


def _first_line(template: str) -> str:
    """Return what a template says of itself."""
    return template_text(template).partition("\n")[0].lstrip("# ")


def _button(label: str, tooltip: str, work: Callable[[], None], style: str = "") -> widgets.Button:
    button = widgets.Button(description=label, tooltip=tooltip, button_style=style, layout={"width": "auto"})
    button.on_click(lambda _: work())
    return button
