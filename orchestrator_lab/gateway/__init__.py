"""The loopback model endpoint that agents may be pointed at.

One address per agent, behind it a model: the real one (``upstream``), a script (``script``) or a
local one (``local``). :class:`Gateway` is the whole of it; a script's format is described in
:mod:`orchestrator_lab.gateway.rules`.
"""

from __future__ import annotations

from orchestrator_lab.gateway.gateway import Gateway
from orchestrator_lab.gateway.rules import Script, load_script
from orchestrator_lab.gateway.script import ScriptedModel, ScriptFunction
from orchestrator_lab.gateway.traffic import ApiError, Reply, Request, ToolCall, ToolResult, Usage

__all__ = [
    "ApiError",
    "Gateway",
    "Reply",
    "Request",
    "Script",
    "ScriptFunction",
    "ScriptedModel",
    "ToolCall",
    "ToolResult",
    "Usage",
    "load_script",
]
