"""Who may write to whom."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["USER", "Edge", "Replies", "Topology"]

#: How the answer to a message gets back to its sender.
Replies = Literal["tool", "forward"]

#: The sender of what a person or a notebook writes.
USER = "user"

_EVERYONE = "*"


def _names(value: Any) -> Any:  # noqa: ANN401 - whatever the file says
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, tuple) else value


class Edge(BaseModel):
    """One line of the topology: these agents may write to those.

    Parameters
    ----------
    from_ : list of str
        Senders (key ``from`` in a file); ``*`` is every agent.
    to : list of str
        Recipients; ``*`` is every agent.
    both : bool
        The other direction too.
    replies : {"tool", "forward"}
        ``tool``: the recipient answers by writing back itself; ``forward``: the lab types the final
        text of its turn to the sender, once.

    Examples
    --------
    >>> Edge.model_validate("boss <-> manager").both
    True
    >>> Edge.model_validate({"from": "a", "to": "b, c", "replies": "forward"}).to
    ['b', 'c']
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: list[str] = Field(alias="from", min_length=1, description="senders; * is every agent")
    to: list[str] = Field(min_length=1, description="recipients; * is every agent")
    both: bool = Field(default=False, description="the other direction too")
    replies: Replies = Field(
        default="tool",
        description="tool: the recipient writes back itself; forward: the lab types its final text",
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, str):
            return value
        for arrow, both in (("<->", True), ("->", False)):
            left, found, right = value.partition(arrow)
            if found:
                if not left.strip() or not right.strip() or "->" in right:
                    break
                return {"from": left, "to": right, "both": both}
        raise ValueError(f"{value[:60]!r} is not an edge; write 'a -> b', 'a <-> b' or 'a -> b, c'")

    @field_validator("from_", "to", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401
        return _names(value)

    @field_validator("from_", "to")
    @classmethod
    def _filled(cls, value: list[str]) -> list[str]:
        if not all(value):
            raise ValueError("an agent's name is missing between the commas")
        return value

    def joins(self, sender: str, recipient: str) -> bool:
        """Tell whether this edge lets `sender` write to `recipient`."""
        return _within(sender, self.from_, recipient, self.to) or (
            self.both and _within(sender, self.to, recipient, self.from_)
        )


def _within(sender: str, senders: list[str], recipient: str, recipients: list[str]) -> bool:
    # `*` is every agent; the user is no agent.
    return (sender in senders or (sender != USER and _EVERYONE in senders)) and (
        recipient in recipients or (recipient != USER and _EVERYONE in recipients)
    )


class Topology(BaseModel):
    """Who may write to whom; without edges declared, everyone to everyone.

    Parameters
    ----------
    edges : list of Edge or None
        None lets every agent write to every other and to the user; an empty list lets no agent
        write to any.

    Examples
    --------
    >>> topology = Topology.model_validate(["boss <-> manager", "manager -> coder"])
    >>> topology.allows("boss", "manager"), topology.allows("boss", "coder")
    (True, False)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    edges: list[Edge] | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:  # noqa: ANN401
        if value is None:
            return {}
        if isinstance(value, str):
            return {} if value == "all" else {"edges": [value]}
        return {"edges": value} if isinstance(value, list | tuple) else value

    @property
    def all_to_all(self) -> bool:
        """Whether every agent may write to every other."""
        return self.edges is None

    def allows(self, sender: str, recipient: str) -> bool:
        """Tell whether `sender` may write to `recipient`.

        The user may write to every agent; nobody writes to itself.

        Parameters
        ----------
        sender, recipient : str
            Names of agents, or ``user``.

        Returns
        -------
        bool
            True when the message may be delivered.
        """
        if sender == recipient:
            return False
        if sender == USER or self.edges is None:
            return True
        return any(edge.joins(sender, recipient) for edge in self.edges)

    def replies(self, sender: str, recipient: str) -> Replies:
        """Tell how the answer to a message from `sender` to `recipient` gets back.

        Parameters
        ----------
        sender, recipient : str
            Names of agents, or ``user``.

        Returns
        -------
        {"tool", "forward"}
            What the last edge that joins the two says; ``tool`` when none does.
        """
        for edge in reversed(self.edges or []):
            if edge.joins(sender, recipient):
                return edge.replies
        return "tool"

    def recipients(self, sender: str, names: list[str]) -> list[str]:
        """Return those of `names` that `sender` may write to, in their order."""
        return [name for name in names if self.allows(sender, name)]
