"""The controls of a cluster in a notebook: what a person does about its agents without writing code."""

from __future__ import annotations

import html
import weakref
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.live import Feed
from orchestrator_lab.widgets.cells import CellWatch
from orchestrator_lab.widgets.facts import AlertFact, DialogFact, Facts, GuardFact, coloured, shortened
from orchestrator_lab.widgets.rows import AlertRow, DialogRow, GuardRow, Rows
from orchestrator_lab.widgets.saved import Saved
from orchestrator_lab.widgets.stage import Stage, in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.exchange import Exchange
    from orchestrator_lab.live import Listener, Tick

__all__ = ["ClusterControls"]

#: The first choice of the list of agents.
ALL = "all agents"
#: Events after which nothing more is expected of a message.
_FINAL = {"message.answered", "message.refused", "message.expired", "message.failed", "message.uncertain"}
#: Results that stay in sight.
_KEPT = 12
_BLOCKED = (
    "View only until this cell ends: it keeps the kernel to itself. In a cell that waits with <code>await</code> "
    "(for example <code>await cluster.await_idle()</code>) the controls work."
)
_WRAPS = "row wrap"


class ClusterControls(Saved, widgets.VBox):  # type: ignore[misc]
    """Controls of a running cluster: write to agents, interrupt, restart, stop, answer, acknowledge, lift.

    They follow the cluster by its stream of events. What is clicked is done in a thread, so that the kernel stays free,
    and what became of it stands below.

    Parameters
    ----------
    cluster : Cluster
        A running cluster, whoever started it.

    Examples
    --------
    >>> from orchestrator_lab import Cluster
    >>> ClusterControls(Cluster.attach("duo"))  # doctest: +SKIP
    ClusterControls('duo')
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._facts = Facts("unknown")
        self._stage = Stage()
        self._said: list[tuple[str, str]] = []
        self._awaited: dict[str, tuple[Exchange, bool]] = {}
        self._over: str | None = None
        self._doing: set[Any] = set()
        self._listener: Listener | None = None
        self._no_cells: Callable[[], None] | None = None
        self._build()
        super().__init__(
            [
                self._notice,
                self._states,
                widgets.HBox([self._to, widgets.VBox([self._text, self._send_row], layout={"flex": "1 1 auto"})]),
                self._act_row,
                self._dialogs,
                self._alerts,
                self._guards,
                self._log,
            ]
        )
        self.add_class("olab-controls")
        self._follow()

    def _build(self) -> None:
        self._notice = widgets.HTML()
        self._states = widgets.HTML()
        self._to = widgets.SelectMultiple(
            options=[ALL],
            value=[ALL],
            rows=5,
            description="to",
            tooltip="Who is written to, interrupted, restarted or stopped",
            layout={"width": "15em", "flex": "0 0 auto"},
            style={"description_width": "1.5em"},
        )
        self._text = widgets.Textarea(
            placeholder="A message, as you would type it into the agent's input",
            tooltip="The message",
            rows=3,
            layout={"width": "auto"},
        )
        self._ask_button = self._button("Ask", "Send it and show the answers here", self._on_ask, style="primary")
        self._send_button = self._button("Send", "Send it; the answers are in the messages", self._on_send)
        self._now = widgets.Checkbox(
            value=False,
            description="even while busy",
            indent=False,
            tooltip="Type at once, also into an agent that works; it queues the text itself",
            layout={"width": "auto"},
        )
        self._send_row = widgets.HBox([self._ask_button, self._send_button, self._now])
        self._act_row = widgets.HBox(
            [
                self._button("Interrupt", "Interrupt the turns of those chosen, as Escape does", self._on_interrupt),
                self._button(
                    "Restart", "Start the programs of those chosen anew, with their sessions", self._on_restart
                ),
                self._button("Stop", "End the programs of those chosen; their panes stay", self._on_stop),
            ],
            layout={"flex_flow": _WRAPS},
        )
        self._dialogs: Rows[DialogFact] = Rows(lambda fact: DialogRow(fact, self._on_answer))
        self._alerts: Rows[AlertFact] = Rows(lambda fact: AlertRow(fact, self._on_acknowledge, self._on_clear))
        self._guards: Rows[GuardFact] = Rows(lambda fact: GuardRow(fact, self._on_lift))
        self._log = widgets.HTML()

    def _button(self, label: str, tooltip: str, work: Callable[[], None], *, style: str = "") -> widgets.Button:
        button = widgets.Button(description=label, tooltip=tooltip, button_style=style, layout={"width": "auto"})
        button.on_click(lambda _: work())
        return button

    # following ----------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Show what is, then what changes."""
        try:
            self._facts = Facts.of(self._cluster.status())
        except OrchestratorLabError as error:
            self._over = error.message
        self._draw()
        if self._over is not None:
            return
        # The feed outlives a widget that is no longer used: it must not keep it.
        mine = weakref.WeakMethod(self._tick)
        self._feed = Feed.of(self._cluster.name)
        self._listener = self._feed.listen(lambda tick: (met := mine()) and met(tick))
        watch = CellWatch.here()
        if watch is not None:
            cells = weakref.WeakMethod(self._cells)
            self._no_cells = watch.listen(lambda blocked: (met := cells()) and met(blocked))
            for one in (self._to, self._text, self._now):
                watch.receipt(one)

    def _tick(self, tick: Tick) -> None:
        """Take what is new, on the feed's thread."""
        for event in tick.events:
            if event["event"] in _FINAL and str(event.get("message_id")) in self._awaited:
                self._settle(str(event["message_id"]))
        if self._feed.ended:
            self._stage.change(self._end)
            return
        gap = tick.gap
        facts = None if tick.status is None else Facts.of(tick.status)
        if gap is not None or facts is not None:
            self._stage.change(lambda: self._show(facts, gap), key="facts")

    def _show(self, facts: Facts | None, gap: str | None) -> None:
        # What the feed knew already may be older than what was asked for at the beginning.
        if facts is not None and facts.events >= self._facts.events:
            self._facts = facts
        self._draw(gap)

    def _end(self) -> None:
        """Show that the cluster is gone; there is nothing more to control."""
        self._over = f"Cluster {self._cluster.name} was shut down."
        self._facts = Facts("ended")
        self._draw()
        self._leave()
        self.freeze()

    def _leave(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._no_cells is not None:
            self._no_cells()
            self._no_cells = None

    def close(self) -> None:
        """Stop following, and take the controls away; the cluster goes on."""
        self._leave()
        super().close()

    # drawing, on the stage only --------------------------------------------------------------

    def _draw(self, gap: str | None = None) -> None:
        facts = self._facts
        notice = self._over or gap
        _set(self._notice, "value", "" if notice is None else _note(html.escape(notice)))
        states = " &nbsp; ".join(f"<b>{html.escape(one.name)}</b> {coloured(one.state)}" for one in facts.agents)
        _set(self._states, "value", f'<div style="line-height:1.6">{states}</div>')
        options = (ALL, *facts.names) if len(facts.names) > 1 else facts.names
        if tuple(self._to.options) != options:
            chosen = [name for name in self._to.value if name in options]
            self._to.options = options
            self._to.value = chosen or options[:1]
        self._dialogs.show(facts.dialogs)
        self._alerts.show(facts.alerts)
        self._guards.show(facts.guards)
        for one in self._inputs():
            if one not in self._doing:
                _set(one, "disabled", self._over is not None)

    def _inputs(self) -> list[Any]:
        """Return whatever takes a click or a text."""
        rows = [*self._dialogs.inputs(), *self._alerts.inputs(), *self._guards.inputs()]
        return [self._to, self._text, *self._send_row.children, *self._act_row.children, *rows]

    def _say(self, text: str, kind: str) -> None:
        """Tell what became of something; the newest is the first."""
        self._said = [(kind, text), *self._said][:_KEPT]
        lines = "".join(
            f'<div style="white-space:pre-wrap;{_KINDS[kind]}">{html.escape(text)}</div>' for kind, text in self._said
        )
        self._log.value = f'<div role="log" aria-label="results" style="max-height:16em;overflow:auto">{lines}</div>'

    def _cells(self, blocked: bool) -> None:
        """Say that clicks wait, while a synchronous cell runs; on the watch's thread.

        The stage stands still then. The browser is told without a trait being touched; afterwards the traits are sent.
        """
        if blocked:
            _paint(self._notice, "value", _note(_BLOCKED))
            for one in self._inputs():
                _paint(one, "disabled", True)
        else:
            self._stage.change(self._repaint)

    def _repaint(self) -> None:
        self._notice.send_state("value")
        for one in self._inputs():
            one.send_state("disabled")

    # doing ------------------------------------------------------------------------------------

    def _chosen(self) -> list[str]:
        """Return the agents that are meant; those that have left meanwhile are not."""
        chosen = list(self._to.value)
        return list(self._facts.names) if ALL in chosen else [name for name in self._facts.names if name in chosen]

    def _do(self, doing: str, work: Callable[[], str], *buttons: Any) -> None:  # noqa: ANN401 - widgets
        """Do something in a thread, its buttons disabled meanwhile; tell what became of it."""
        self._doing.update(buttons)
        for one in buttons:
            _set(one, "disabled", True)

        def done(said: str, well: bool) -> None:
            def tell() -> None:
                self._say(said if well else f"{doing}: {said}", "done" if well else "wrong")
                self._doing.difference_update(buttons)
                for one in buttons:
                    _set(one, "disabled", self._over is not None)

            self._stage.change(tell)

        in_background(work, done)

    def _on_send(self) -> None:
        self._write(wants_reply=False)

    def _on_ask(self) -> None:
        self._write(wants_reply=True)

    def _write(self, *, wants_reply: bool) -> None:
        names, text = self._chosen(), self._text.value
        if not text.strip():
            self._say("There is no message to send: write one first.", "wrong")
            return
        if not names:
            self._say("Nobody is chosen: choose to whom the message goes.", "wrong")
            return
        when = "now" if self._now.value else "idle"
        everybody = len(names) > 1 and names == list(self._facts.names)
        buttons = (self._ask_button, self._send_button)

        def work() -> str:
            sent = self._cluster.send(names, text, when=when, source="human", broadcast=everybody)
            for exchange in sent:
                self._awaited[exchange.message_id] = (exchange, wants_reply)
            for exchange in sent:
                # An instant answer may have come before it was awaited.
                if exchange.done:
                    self._settle(exchange.message_id)
            self._stage.change(lambda: _set(self._text, "value", "") if self._text.value == text else None)
            return f"→ {', '.join(names)}: {shortened(text, 160)}"

        self._do(f"message to {', '.join(names)}", work, *buttons)

    def _settle(self, message_id: str) -> None:
        """Tell the end of a message that was sent from here."""
        exchange, wants_reply = self._awaited.pop(message_id, (None, False))
        if exchange is None:
            return

        def work() -> str:
            reply = exchange.result(20.0)
            return f"{exchange.recipient}: {reply}" if wants_reply else ""

        def done(said: str, well: bool) -> None:
            if said:
                self._stage.change(lambda: self._say(said, "reply" if well else "wrong"))

        in_background(work, done)

    def _on_interrupt(self) -> None:
        names = set(self._chosen())
        busy = [one.name for one in self._facts.agents if one.name in names and one.working]
        if not busy:
            self._say(f"Nothing to interrupt: {', '.join(sorted(names)) or 'nobody'} has no turn now.", "wrong")
        self._each("interrupt", "interrupted", busy)

    def _on_restart(self) -> None:
        self._each("restart", "restarted", self._chosen())

    def _on_stop(self) -> None:
        self._each("stop", "stopped", self._chosen())

    def _each(self, verb: str, past: str, names: Sequence[str]) -> None:
        for name in names:

            def work(name: str = name) -> str:
                getattr(self._cluster[name], verb)()
                return f"{name}: {past}"

            self._do(f"{verb} {name}", work, *(self._act_row.children if len(names) == 1 else ()))

    def _on_answer(self, row: DialogRow, option: str) -> None:
        fact = row.fact

        def work() -> str:
            asked = next((one for one in self._cluster.dialogs if one.dialog_id == fact.dialog_id), None)
            if asked is None:
                return f"{fact.agent}'s question was answered elsewhere"
            return f"{fact.agent}: answered {asked.answer(option)!r}"

        self._do(f"answer to {fact.agent}", work, *row.inputs())

    def _on_acknowledge(self, row: AlertRow) -> None:
        def work() -> str:
            self._cluster.acknowledge(row.fact.alert_id)
            return f"acknowledged: {shortened(row.fact.message, 100)}"

        self._do("acknowledge", work, *row.inputs())

    def _on_clear(self, row: AlertRow) -> None:
        def work() -> str:
            self._cluster.clear(row.fact.alert_id)
            return f"cleared: {shortened(row.fact.message, 100)}"

        self._do("clear", work, *row.inputs())

    def _on_lift(self, row: GuardRow) -> None:
        def work() -> str:
            self._cluster.lift(row.fact.guard_id, by="human")
            return f"lifted: {shortened(row.fact.message, 100)}"

        self._do("lift", work, *row.inputs())

    # saved --------------------------------------------------------------------------------------

    def still_html(self) -> str:
        """Return what a notebook without a kernel shows."""
        return f"<i>Controls of cluster <b>{html.escape(self._cluster.name)}</b>; they work while its kernel runs.</i>"

    def __repr__(self) -> str:
        return f"ClusterControls({self._cluster.name!r})"


_KINDS = {"done": "opacity:0.75", "reply": "", "wrong": "color:#d64545"}


def _note(said: str) -> str:
    return f'<div role="status" style="border-left:3px solid #c27c0e;padding:2px 8px">{said}</div>'


def _set(widget: Any, name: str, value: Any) -> None:  # noqa: ANN401 - any trait of any widget
    """Set a trait that differs: the same value again would cost a message."""
    if getattr(widget, name) != value:
        setattr(widget, name, value)


def _paint(widget: Any, name: str, value: Any) -> None:  # noqa: ANN401 - any trait of any widget
    """Tell the browser a value without touching the trait: a thread may do that at any time."""
    if widget.comm is not None:
        widget.comm.send({"method": "update", "state": {name: value}, "buffer_paths": []})
