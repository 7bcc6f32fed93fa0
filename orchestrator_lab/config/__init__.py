"""Configuration: ``cluster.yaml`` to typed values, with the environment's overrides.

A configuration is data: nothing in it is executed but the agents' own commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.config._care import (
    AlertsConfig,
    DialogPolicy,
    HangPolicy,
    Limits,
    ModelPrice,
    RestartPolicy,
    Thresholds,
    ToolRule,
    tool_rule,
)
from orchestrator_lab.config._dump import agent_dict, json_schema, to_dict, to_yaml
from orchestrator_lab.config._initial import InitialStateConfig
from orchestrator_lab.config._load import (
    FILE_NAMES,
    add_agent,
    instructions_text,
    load_config,
)
from orchestrator_lab.config._models import (
    AGENT_NAME,
    KINDS,
    RESERVED_NAMES,
    Agent,
    AgentConfig,
    ChatAgent,
    ClaudeAgent,
    ClusterConfig,
    CodexAgent,
    GatewayConfig,
    ProgramAgent,
    Stop,
    TurnEnd,
)
from orchestrator_lab.config._notes import SECRET_TEXT, is_secret_name, known_secrets, mask_text, without_secrets
from orchestrator_lab.config._notify import address_secrets, mask_address, notify_addresses, scheme_of
from orchestrator_lab.config._params import parse_params
from orchestrator_lab.config._prices import dated_prices
from orchestrator_lab.config._resolve import here
from orchestrator_lab.config._templates import template_files, template_names, template_text
from orchestrator_lab.config._topology import USER, Edge, Topology

if TYPE_CHECKING:
    from orchestrator_lab.config._settings import (
        Backups,
        ClusterOverrides,
        Retention,
        Settings,
        load_settings,
        settings_given,
    )

__all__ = [
    "AGENT_NAME",
    "FILE_NAMES",
    "KINDS",
    "RESERVED_NAMES",
    "SECRET_TEXT",
    "USER",
    "Agent",
    "AgentConfig",
    "AlertsConfig",
    "Backups",
    "ChatAgent",
    "ClaudeAgent",
    "ClusterConfig",
    "ClusterOverrides",
    "CodexAgent",
    "DialogPolicy",
    "Edge",
    "GatewayConfig",
    "HangPolicy",
    "InitialStateConfig",
    "Limits",
    "ModelPrice",
    "ProgramAgent",
    "RestartPolicy",
    "Retention",
    "Settings",
    "Stop",
    "Thresholds",
    "ToolRule",
    "Topology",
    "TurnEnd",
    "add_agent",
    "address_secrets",
    "agent_dict",
    "dated_prices",
    "here",
    "instructions_text",
    "is_secret_name",
    "json_schema",
    "known_secrets",
    "load_config",
    "load_settings",
    "mask_address",
    "mask_text",
    "notify_addresses",
    "parse_params",
    "scheme_of",
    "settings_given",
    "template_files",
    "template_names",
    "template_text",
    "to_dict",
    "to_yaml",
    "tool_rule",
    "without_secrets",
]

_SETTINGS = {"Backups", "ClusterOverrides", "Retention", "Settings", "load_settings", "settings_given"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    # pydantic-settings costs more than the rest of this package: loaded when first used.
    if name in _SETTINGS:
        from orchestrator_lab.config import _settings

        return getattr(_settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
