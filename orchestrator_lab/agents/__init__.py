"""What the lab must know about each kind of agent: one adapter module per kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator_lab.agents.base import Adapter

__all__ = ["adapter_for"]


def adapter_for(kind: str) -> Adapter:
    """Return a new adapter for one agent.

    Parameters
    ----------
    kind : str
        ``claude``, ``codex``, ``chat`` or ``program``.

    Returns
    -------
    Adapter
        It belongs to one agent: it may keep what it has read of that agent's transcript.

    Raises
    ------
    ConfigError
        When this version knows no such kind.

    Examples
    --------
    >>> adapter_for("chat").kind
    'chat'
    """
    if kind == "claude":
        from orchestrator_lab.agents.claude import ClaudeAdapter

        return ClaudeAdapter()
    if kind == "codex":
        from orchestrator_lab.agents.codex import CodexAdapter

        return CodexAdapter()
    if kind == "chat":
        from orchestrator_lab.agents.chat import ChatAdapter

        return ChatAdapter()
    if kind == "program":
        from orchestrator_lab.agents.program import ProgramAdapter

        return ProgramAdapter()
    raise ConfigError(f"no adapter for kind {kind!r}; this version knows: claude, codex, chat, program")
