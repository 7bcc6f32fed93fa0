"""Exchanges and conversations: what a caller holds of messages that are on their way."""

from __future__ import annotations

import html
import warnings
from typing import TYPE_CHECKING, Any, Self

from orchestrator_lab.errors import (
    DeliveryFailed,
    DeliveryUncertain,
    ExchangeTimeout,
    MessageExpired,
    MessageRefused,
    ReplayWarning,
    RunNotFound,
    TurnFailed,
    from_payload,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Protocol

    import pandas as pd

    from orchestrator_lab.client import Client
    from orchestrator_lab.run import Run

    class Cluster(Protocol):
        """What an exchange needs of the cluster in which it happens."""

        @property
        def client(self) -> Client: ...

        @property
        def run(self) -> Run: ...

        def status(self) -> dict[str, Any]: ...


__all__ = ["Conversation", "Exchange"]

_FAILURES = {"refused": MessageRefused, "expired": MessageExpired, "uncertain": DeliveryUncertain}


class Exchange:
    """A message together with the turn that answers it.

    Returned by :meth:`Agent.send` at once. ``exchange.result(timeout)`` waits for the answer's text, and so does
    ``await exchange``.

    Parameters
    ----------
    cluster : Cluster
        Where it happens.
    facts : dict
        What the supervisor said of the message.
    """

    def __init__(self, cluster: Cluster, facts: dict[str, Any]) -> None:
        self._cluster = cluster
        self._facts = facts

    @property
    def message_id(self) -> str:
        """Identity of the message."""
        return str(self._facts["message_id"])

    @property
    def recipient(self) -> str:
        """Name of the agent that was written to."""
        return str(self._facts["recipient"])

    @property
    def content(self) -> str:
        """The text that was sent."""
        return str(self._facts["content"])

    @property
    def divergence(self) -> str | None:
        """What was not as recorded while a replay answered this, None when nothing was; the first of several."""
        found = self._facts.get("divergence")
        return None if found is None else str(found)

    @property
    def done(self) -> bool:
        """Whether nothing more is expected."""
        return self.status in {"answered", "refused", "expired", "failed", "uncertain"}

    @property
    def status(self) -> str:
        """Rung of the delivery ladder that is reached now."""
        if self._facts["status"] not in {"answered", "refused", "expired", "failed"}:
            self._refresh()
        return str(self._facts["status"])

    @property
    def reply(self) -> str | None:
        """Text of the answer, None while there is none."""
        if self._facts.get("reply") is None and not self.done:
            self._refresh()
        reply = self._facts.get("reply")
        return None if reply is None else str(reply)

    def result(self, timeout: float | None = None) -> str:
        """Wait for the answer.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; without end by default.

        Returns
        -------
        str
            The final text of the turn that answered.

        Raises
        ------
        ExchangeTimeout
            When the time is over; the exchange goes on.
        MessageRefused, MessageExpired, DeliveryFailed, DeliveryUncertain
            When the message did not arrive, or nobody knows.
        TurnFailed
            When it arrived, and the turn ended without an answer.
        ReplayDiverged
            When a strict replay came to something that its recording does not hold.
        """
        self._facts = self._client.get(self._path, timeout_s=timeout, until="final")
        return self.settled(timeout)

    def accepted(self, timeout: float | None = None) -> Self:
        """Wait until the program has taken the message.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; without end by default.

        Returns
        -------
        Exchange
            Itself.

        Raises
        ------
        ExchangeTimeout, MessageRefused, MessageExpired, DeliveryFailed, DeliveryUncertain
            As :meth:`result`.
        """
        self._facts = self._client.get(self._path, timeout_s=timeout, until="accepted")
        if self._facts["status"] not in {"accepted", "started", "answered"}:
            self.settled(timeout)
        return self

    def __await__(self) -> Generator[Any, None, str]:
        return self._aresult().__await__()

    async def _aresult(self) -> str:
        self._facts = await self._client.aget(self._path, until="final")
        return self.settled(None)

    def settled(self, timeout: float | None) -> str:
        """Return the answer, or raise what became of the message instead, after so many seconds of waiting."""
        status, recipient = self._facts["status"], self.recipient
        why = self._facts.get("error_message") or "no reason is known"
        if self.divergence is not None and not self._facts.get("diverged"):
            told = f"{self.divergence}; the replay goes on, and the event replay.divergence shows the difference"
            warnings.warn(told, ReplayWarning, stacklevel=3)
        if status == "answered":
            return str(self._facts.get("reply") or "")
        if self._facts.get("diverged"):
            raise from_payload(self._facts["diverged"])
        if status in _FAILURES:
            raise _FAILURES[status](f"message to {recipient}: {why}", message_id=self.message_id)
        if status == "failed":
            kind = TurnFailed if str(self._facts.get("error_type", "")).startswith("turn_") else DeliveryFailed
            raise kind(f"message to {recipient}: {why}", message_id=self.message_id)
        held = self._facts.get("held_by")
        stands = f"the message is {status}" if not held else f"the message is {status}, since {held}"
        raise ExchangeTimeout(
            f"{recipient} has not answered within {timeout:g} s ({stands}); the exchange goes on: "
            "wait again with .result()",
            message_id=self.message_id,
            status=status,
        )

    @property
    def message(self) -> pd.Series[Any]:
        """The message's row of ``messages_df``."""
        return self._row(self._cluster.run.messages, "message_id", self.message_id)

    @property
    def turn(self) -> pd.Series[Any] | None:
        """The row of ``turns_df`` of the turn that answered, None before it began."""
        if self._facts.get("turn_id") is None:
            self._refresh()
        turn_id = self._facts.get("turn_id")
        return None if turn_id is None else self._row(self._cluster.run.turns, "turn_id", str(turn_id))

    @property
    def timings(self) -> dict[str, float]:
        """Seconds in the queue, to acceptance and to the answer, as far as they are known."""
        row = self.message
        found = {name: row[name] for name in ("queue_s", "delivery_s", "response_s")}
        return {name: float(value) for name, value in found.items() if value == value}  # noqa: PLR0124 - not NaN

    @staticmethod
    def _row(frame: pd.DataFrame, column: str, value: str) -> pd.Series[Any]:
        rows = frame[frame[column] == value]
        if rows.empty:
            raise RunNotFound(f"the run has no row with {column} {value!r} yet")
        return rows.iloc[0]

    @property
    def _client(self) -> Client:
        return self._cluster.client

    @property
    def _path(self) -> str:
        return f"/messages/{self.message_id}"

    def _refresh(self) -> None:
        self._facts = self._client.get(self._path, timeout_s=10.0)

    def __repr__(self) -> str:
        text = _short(self.content)
        answer = f", reply={_short(str(self._facts['reply']))!r}" if self._facts.get("reply") is not None else ""
        return f"Exchange({self._facts['sender']} → {self.recipient}: {text!r}, {self._facts['status']}{answer})"

    def _repr_html_(self) -> str:
        reply = self._facts.get("reply")
        rows = [(str(self._facts["sender"]), self.content), (self.recipient, "" if reply is None else str(reply))]
        body = "".join(
            f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(who)}</th>"
            f"<td style='text-align:left;white-space:pre-wrap'>{html.escape(_short(text, 4000))}</td></tr>"
            for who, text in rows
        )
        return f"<table>{body}</table><i>{html.escape(str(self._facts['status']))}</i>"


class Conversation:
    """Agents that speak in turn by themselves, for a number of rounds.

    Parameters
    ----------
    cluster : Cluster
        Where it happens.
    facts : dict
        What the supervisor said of it.
    """

    def __init__(self, cluster: Cluster, facts: dict[str, Any]) -> None:
        self._cluster = cluster
        self._facts = facts

    @property
    def conversation_id(self) -> str:
        """Identity; a column of ``messages_df``."""
        return str(self._facts["conversation_id"])

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it is over.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; without end by default.

        Returns
        -------
        Conversation
            Itself.

        Raises
        ------
        ExchangeTimeout
            When the time is over; the conversation goes on.
        DeliveryPaused
            When a guard holds its next message until somebody lifts it.
        """
        self._facts = self._cluster.client.get(f"/conversations/{self.conversation_id}", timeout_s=timeout)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._await().__await__()

    async def _await(self) -> Self:
        self._facts = await self._cluster.client.aget(f"/conversations/{self.conversation_id}")
        return self

    @property
    def ended(self) -> str | None:
        """Why it is over: ``completed``, or what went wrong; None while it goes on."""
        if self._facts.get("ended") is None:
            known = self._cluster.status()["conversations"]
            self._facts = next((one for one in known if one["conversation_id"] == self.conversation_id), self._facts)
        ended = self._facts.get("ended")
        return None if ended is None else str(ended)

    @property
    def ok(self) -> bool:
        """Whether everybody has spoken in every round."""
        return self.ended == "completed"

    @property
    def messages(self) -> pd.DataFrame:
        """Its rows of ``messages_df``."""
        frame = self._cluster.run.messages
        return frame[frame["conversation_id"] == self.conversation_id]

    def __repr__(self) -> str:
        ended = self._facts.get("ended") or "going on"
        return f"Conversation({' → '.join(self._facts['agents'])}, rounds={self._facts['rounds']}, {ended})"


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
