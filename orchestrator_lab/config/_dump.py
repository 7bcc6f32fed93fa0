"""From a configuration back to a file's form, and the schema for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.config._load import CLUSTER_KEYS
from orchestrator_lab.config._models import ClusterConfig
from orchestrator_lab.config._notes import MASK, is_secret_name, mask_text, without_secrets
from orchestrator_lab.config._notify import mask_address
from orchestrator_lab.config._prices import DATED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from orchestrator_lab.config._models import AgentConfig

__all__ = ["agent_dict", "json_schema", "to_dict", "to_yaml"]

#: Keys of the cluster whose value is a policy; only what differs from its defaults is worth showing.
_CARE = ("restart", "hang", "dialogs", "limits", "alerts", "privacy", "initial_state")


def to_dict(config: ClusterConfig, *, masked: bool = True) -> dict[str, Any]:
    """Return a configuration in the form of a file.

    Parameters
    ----------
    config : ClusterConfig
        The configuration.
    masked : bool
        Replace what looks like a secret by ``***``: values of variables with KEY, TOKEN, SECRET or
        PASSWORD in their name, known forms of keys in variables and arguments, and of the
        addresses that are told of alerts all but scheme and host.

    Returns
    -------
    dict
        ``{"cluster": {...}, "agents": [...]}``; what has its default value is left out of agents.
    """
    dumped = config.model_dump(mode="json", by_alias=True)
    cluster = {key: dumped[key] for key in CLUSTER_KEYS if key not in {"topology", "gateway", "prices", *_CARE}}
    cluster |= {key: said for key in _CARE if (said := _said(getattr(config, key)))}
    if config.prices:
        cluster["prices"] = {model: _said(price) for model, price in config.prices.items()}
    if masked and config.alerts.notify:
        cluster["alerts"]["notify"] = [mask_address(address) for address in config.alerts.notify]
    cluster["gateway"] = config.gateway.model_dump(mode="json", exclude_defaults=True) or {"mode": "none"}
    if config.topology.edges is not None:
        cluster["topology"] = [
            edge.model_dump(by_alias=True, mode="json", exclude_defaults=True) for edge in config.topology.edges
        ]
    return {"cluster": cluster, "agents": [agent_dict(agent, masked=masked) for agent in config.agents]}


def _said(policy: BaseModel) -> dict[str, Any]:
    said: dict[str, Any] = policy.model_dump(mode="json", exclude_defaults=True)
    return said


def agent_dict(agent: AgentConfig, *, masked: bool = True) -> dict[str, Any]:
    """Return one agent in the form of a file's entry under ``agents``.

    Parameters
    ----------
    agent : AgentConfig
        The agent.
    masked : bool
        See :func:`to_dict`.

    Returns
    -------
    dict
        What has its default value is left out, but for name, role and kind.
    """
    values = agent.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    values = {"name": agent.name, "role": agent.role, "kind": agent.kind} | values
    if masked:
        if "env" in values:
            values["env"] = {
                name: MASK if is_secret_name(name) else mask_text(text) for name, text in agent.env.items()
            }
        for key in ("args", "command"):
            if key in values:
                values[key] = [mask_text(word) for word in values[key]]
    return values


def to_yaml(config: ClusterConfig, *, masked: bool = True, secrets: Iterable[str] = ()) -> str:
    """Return a configuration as YAML: paths absolute, secrets masked.

    Parameters
    ----------
    config : ClusterConfig
        The configuration.
    masked : bool
        See :func:`to_dict`.
    secrets : iterable of str
        Texts for which asterisks stand, wherever they are.

    Returns
    -------
    str
        A document that :func:`load_config` reads.
    """
    import yaml

    from orchestrator_lab.config._yaml import implicit_resolvers

    class _Dumper(yaml.SafeDumper):
        # quoted is what either YAML would take for something else than text
        yaml_implicit_resolvers = implicit_resolvers(yaml.SafeDumper.yaml_implicit_resolvers)

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - yaml's signature
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        if any(mark in value for mark in "\r\x85\u2028\u2029\ufeff"):
            style = '"'  # YAML would take these for line ends
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    _Dumper.add_representer(str, text)
    return yaml.dump(
        without_secrets(to_dict(config, masked=masked), secrets),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``cluster.yaml``, for editors.

    Returns
    -------
    dict
        JSON Schema, draft 2020-12.

    Examples
    --------
    >>> sorted(json_schema()["properties"])
    ['agents', 'cluster']
    """
    schema = ClusterConfig.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    properties = schema["properties"]
    definitions["TopologyEdge"] = definitions.pop("Edge")
    _allow_shorthands(definitions)
    cluster = {key: properties[key] for key in CLUSTER_KEYS if key != "topology"}
    for key in ("work_dir", "runs_dir"):
        cluster[key] = {**properties[key], "type": "string"}
    cluster["topology"] = {
        "description": "who may write to whom; every agent to every other when omitted",
        "anyOf": [
            {"const": "all"},
            {"type": "string", "pattern": "->"},
            {"type": "array", "items": {"$ref": "#/$defs/TopologyEdge"}},
            {"type": "null"},
        ],
    }
    definitions.pop("Topology", None)
    cluster["prices"] = {
        "description": cluster["prices"].get("description"),
        "anyOf": [{"const": DATED}, {key: value for key, value in cluster["prices"].items() if key != "description"}],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cluster.yaml of Orchestrator Lab",
        "type": "object",
        "additionalProperties": False,
        "required": ["cluster", "agents"],
        "properties": {
            "cluster": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": cluster,
            },
            "agents": properties["agents"],
        },
        "$defs": definitions,
    }


def _allow_shorthands(definitions: dict[str, Any]) -> None:
    """Tell the schema of the short forms that validators accept."""
    edge = definitions["TopologyEdge"]
    for key in ("from", "to"):
        edge["properties"][key] = {"anyOf": [edge["properties"][key], {"type": "string"}]}
    definitions["TopologyEdge"] = {"anyOf": [{"type": "string", "pattern": "->"}, edge]}
    gateway = definitions["GatewayConfig"]
    definitions["GatewayConfig"] = {"anyOf": [gateway, gateway["properties"]["mode"]]}
    for name in ("Stop", "RestartPolicy", "DialogPolicy"):
        definitions[name] = {"anyOf": [{"type": "string"}, definitions[name]]}
    definitions["InitialStateConfig"] = {"anyOf": [{"type": "boolean"}, definitions["InitialStateConfig"]]}
    three = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 3, "maxItems": 3}
    definitions["Thresholds"] = {"anyOf": [three, definitions["Thresholds"]]}
    number_or_text = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
    for definition in definitions.values():
        for key, value in definition.get("properties", {}).items():
            if key in {"command", "args"}:
                definition["properties"][key] = {"anyOf": [value, {"type": "string"}]}
            elif key == "env":
                value["additionalProperties"] = number_or_text
            elif key == "kind":
                definition["required"] = sorted({*definition.get("required", []), "kind"})
