"""Rows that come and go in the controls: an open dialog, an alert, a guard."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import ipywidgets as widgets

from orchestrator_lab.widgets.facts import AlertFact, DialogFact, GuardFact, coloured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["AlertRow", "DialogRow", "GuardRow", "Rows"]

_WRAPS = {"flex_flow": "row wrap", "align_items": "center"}


class _Row(Protocol):
    def inputs(self) -> list[Any]: ...

    def close_all(self) -> None: ...


FactT = TypeVar("FactT")


class Rows(widgets.VBox, Generic[FactT]):  # type: ignore[misc]
    """A list of rows; one whose fact stays the same stays the same widget, with the focus that it may have.

    Parameters
    ----------
    make : callable
        Makes the row of a fact.
    """

    def __init__(self, make: Callable[[FactT], _Row]) -> None:
        self._make = make
        self._rows: dict[FactT, _Row] = {}
        self._shown: tuple[Any, ...] = ()
        super().__init__([])

    def show(self, facts: Iterable[FactT]) -> None:
        """Show these facts, in this order."""
        before, now = dict(self._rows), {}
        for fact in facts:
            now[fact] = before.pop(fact) if fact in before else self._make(fact)
        self._rows = now
        shown: tuple[Any, ...] = tuple(self._rows.values())
        if self._shown != shown:
            self._shown = self.children = shown
        for row in before.values():
            row.close_all()

    def inputs(self) -> list[Any]:
        """Return whatever takes a click."""
        return [one for row in list(self._rows.values()) for one in row.inputs()]


class _Box(widgets.HBox):  # type: ignore[misc]
    """A text with buttons behind it."""

    def __init__(self, said: str, buttons: list[widgets.Button]) -> None:
        self._buttons = buttons
        super().__init__([widgets.HTML(said), *buttons], layout=_WRAPS)

    def inputs(self) -> list[Any]:
        return list(self._buttons)

    def close_all(self) -> None:
        """Close the row with all that is in it: widgets live until they are closed."""
        for one in (*self.children, self):
            one.close()


def _button(label: str, tooltip: str, work: Callable[[], None], style: str = "") -> widgets.Button:
    button = widgets.Button(description=label, tooltip=tooltip, button_style=style, layout={"width": "auto"})
    button.on_click(lambda _: work())
    return button


class DialogRow(_Box):
    """A question, with a button for each answer that its program offers.

    Parameters
    ----------
    fact : DialogFact
        The question.
    answer : callable
        Called with this row and the label that was chosen.
    """

    def __init__(self, fact: DialogFact, answer: Callable[[DialogRow, str], None]) -> None:
        self.fact = fact
        subject = f': <code style="white-space:pre-wrap">{html.escape(fact.subject)}</code>' if fact.subject else ""
        waits = "" if fact.options else " <i>(its answers are not on its screen yet)</i>"
        said = f"{coloured('waiting', fact.agent)} asks ({html.escape(fact.kind)}){subject}{waits}"
        buttons = [
            _button(label, f"Answer {fact.agent}: {label}", lambda label=label: answer(self, label), "info")  # type: ignore[misc]
            for label in fact.options
        ]
        super().__init__(said, buttons)


class AlertRow(_Box):
    """An open alert, to be acknowledged or cleared."""

    def __init__(
        self,
        fact: AlertFact,
        acknowledge: Callable[[AlertRow], None],
        clear: Callable[[AlertRow], None],
    ) -> None:
        self.fact = fact
        seen = " <i>(seen)</i>" if fact.acknowledged else ""
        buttons = [_button("Clear", "Close this alert", lambda: clear(self))]
        if not fact.acknowledged:
            said = "Say that you have seen it: it is not told again"
            buttons.insert(0, _button("Acknowledge", said, lambda: acknowledge(self)))
        super().__init__(f"{coloured(fact.level)}: {html.escape(fact.message)}{seen}", buttons)


class GuardRow(_Box):
    """A guard that holds delivery, to be lifted."""

    def __init__(self, fact: GuardFact, lift: Callable[[GuardRow], None]) -> None:
        self.fact = fact
        until = f" <i>(until {html.escape(fact.until)})</i>" if fact.until else ""
        said = f"{coloured('limited', 'delivery paused')}: {html.escape(fact.message)}{until}"
        super().__init__(said, [_button("Lift", "Let delivery go on", lambda: lift(self))])
