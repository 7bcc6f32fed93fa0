"""Questions that a program puts to its user: seen, held open, answered or gone."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from orchestrator_lab.agents.base import (
    DialogClosed,
    DialogSeen,
    Typed,
)
from orchestrator_lab.agents.claude_screen import plain
from orchestrator_lab.agents.menu import read_menu
from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from orchestrator_lab.supervisor.agent import AgentRunner

__all__ = ["Dialogs"]

logger = logging.getLogger(__name__)

#: Pause before the screen of a reported dialog is read, in seconds.
_DIALOG_LOOK_S = 0.15
#: A reported dialog that is not on the screen after this long was answered without one, in seconds.
_DIALOG_APPEARS_S = 2.0


class Dialogs:
    """The dialogs of one agent.

    Parameters
    ----------
    runner : AgentRunner
        Holds the facts.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self._runner = runner
        self.undecided: tuple[str, str] | None = None
        self._dialog_since = 0.0
        self._dialog_shown = False
        self._dialog_look: asyncio.TimerHandle | None = None

    def seen(self, dialog: DialogSeen) -> None:
        """Open a dialog that the program shows."""
        if self._runner.dialog is not None and (self._runner.dialog.kind, self._runner.dialog.subject) == (
            dialog.kind,
            dialog.subject,
        ):
            return
        self.close("human", None, dialog.source)
        self._runner.dialog, self._runner.dialog_id = dialog, new_id("dlg_")
        self._dialog_since, self._dialog_shown = time.monotonic(), False
        self._runner.supervisor.journal.append(
            "dialog.opened",
            agent=self._runner.name,
            turn_id=self._runner.turn.turn_id if self._runner.turn else None,
            source=dialog.source,
            dialog_id=self._runner.dialog_id,
            kind=dialog.kind,
            subject=dialog.subject,
            options=list(dialog.options),
        )
        if dialog.answer is not None:
            self._runner.spawn(self._answer(dialog))
        if self._runner.ready is not None and self._runner.adapter.styled:
            self.look_soon()

    def look_soon(self) -> None:
        """Look at an open dialog once its pane has settled."""
        if self._dialog_look is None:
            self._dialog_look = asyncio.get_running_loop().call_later(
                _DIALOG_LOOK_S, lambda: self._runner.spawn(self._look())
            )

    def stop(self) -> None:
        """Look no more."""
        if self._dialog_look is not None:
            self._dialog_look.cancel()

    async def _look(self) -> None:
        """Read the options of a reported dialog, and see when it has gone: what it let begin may take long."""
        self._dialog_look = None
        dialog, dialog_id = self._runner.dialog, self._runner.dialog_id
        if dialog is None or self._runner.ready is None or not self._runner.running:
            return
        screen = await self._runner.supervisor.screen(self._runner, escapes=True)
        if self._runner.dialog_id != dialog_id or dialog_id is None:
            return
        if self._runner.adapter.composer(screen, Typed("", "")) == "unknown":
            menu = read_menu(plain(screen))
            if not self._dialog_shown and menu is not None and not dialog.options:
                self._runner.dialog = dataclasses.replace(dialog, options=menu.options)
                self._runner.supervisor.journal.append(
                    "dialog.opened",
                    agent=self._runner.name,
                    turn_id=self._runner.turn.turn_id if self._runner.turn else None,
                    source="screen",
                    dialog_id=dialog_id,
                    kind=dialog.kind,
                    subject=dialog.subject,
                    options=list(menu.options),
                )
                self._dialog_shown = True
            elif menu is None:
                self.look_soon()
        elif self._dialog_shown or time.monotonic() - self._dialog_since > _DIALOG_APPEARS_S:
            self.close("human", None, "screen")
            self._runner.publish()
        else:
            self.look_soon()

    def closed(self, closed: DialogClosed) -> None:
        """Take in evidence that the question is gone."""
        if self._runner.dialog is not None and closed.subject in {None, self._runner.dialog.subject}:
            self.close("human", closed.decision, closed.source)
        elif closed.decision is not None and self.undecided is not None and self.undecided[1] == closed.subject:
            # The screen showed that it was answered; only now it is known how.
            self._runner.supervisor.journal.append(
                "dialog.answered",
                agent=self._runner.name,
                source=closed.source,
                dialog_id=self.undecided[0],
                answered_by="human",
                decision=closed.decision,
            )
            self.undecided = None

    def close(self, by: str, decision: str | None, source: str) -> None:
        """Journal who answered the open dialog, if there is one."""
        if self._runner.dialog is None:
            return
        self._runner.supervisor.journal.append(
            "dialog.answered",
            agent=self._runner.name,
            source=source,
            dialog_id=self._runner.dialog_id,
            answered_by=by,
            decision=decision,
        )
        undecided = self._runner.dialog.kind == "permission" and decision is None
        self.undecided = (str(self._runner.dialog_id), self._runner.dialog.subject) if undecided else None
        self._runner.dialog, self._runner.dialog_id = None, None

    async def _answer(self, dialog: DialogSeen) -> None:
        """Choose an option by its label, and look at the screen before Enter is pressed."""
        if dialog.answer is None or self._runner.pane_id is None:
            return
        if await self._runner.watch.choose(dialog.answer):
            self.close("policy", dialog.answer, "screen")
            self._runner.publish()
