"""A question that an agent's program asks its user, as a notebook holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator_lab.schema import new_id

if TYPE_CHECKING:
    from orchestrator_lab.client import Client

__all__ = ["Dialog"]


@dataclass(frozen=True)
class Dialog:
    """One open dialog.

    Got from ``agent.dialog`` and ``cluster.dialogs``; a value of that moment, which does not change when the dialog is
    answered elsewhere. :meth:`answer` then says so.

    Parameters
    ----------
    agent : str
        Whose it is.
    dialog_id : str
        Its id, as in ``dialogs_df``.
    kind : str
        ``permission``, ``trust``, ``choice``, ``login``, ``update``, ``limit`` or ``unknown``.
    subject : str
        What it is about; of an unknown one, what its screen shows.
    options : tuple of str
        Labels of the answers, from top to bottom; empty as long as they are not on the screen.
    opened_at : datetime
        When it was seen.
    """

    agent: str
    dialog_id: str
    kind: str
    subject: str
    options: tuple[str, ...]
    opened_at: datetime
    _client: Client = field(repr=False, compare=False)

    @classmethod
    def from_facts(cls, client: Client, agent: dict[str, Any]) -> Dialog | None:
        """Return the dialog in an agent's status, None when it asks nothing."""
        facts = agent["dialog"]
        if facts is None:
            return None
        return cls(
            str(agent["name"]),
            str(facts["dialog_id"]),
            str(facts["kind"]),
            str(facts["subject"] or ""),
            tuple(map(str, facts["options"])),
            datetime.fromisoformat(str(facts["opened_at"])),
            client,
        )

    def answer(self, option: str | int) -> str:
        """Choose an option; return its label once the dialog has left the screen.

        Parameters
        ----------
        option : str or int
            A label or its beginning, ``allow`` or ``deny`` (the program's own word for it), or the option's number on
            the screen, from 1.

        Returns
        -------
        str
            The label that was chosen. It was verified on the screen before Enter was pressed.

        Raises
        ------
        ConfigError
            When it has no such option; nothing was pressed.
        DialogNotAnswered
            When it is gone, is being answered by somebody else, or did not take the answer.
        """
        reply = self._client.post(
            f"/agents/{self.agent}/dialog",
            {"dialog_id": self.dialog_id, "option": option, "answer_id": new_id("ans_")},
        )
        return str(reply["option"])

    def to_dict(self) -> dict[str, Any]:
        """Return its facts, for JSON."""
        return {
            "agent": self.agent,
            "dialog_id": self.dialog_id,
            "kind": self.kind,
            "subject": self.subject,
            "options": list(self.options),
            "opened_at": self.opened_at.isoformat(),
        }
