"""From a file, a mapping or a template to a checked configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator_lab.config import _legacy
from orchestrator_lab.config._care import ModelPrice
from orchestrator_lab.config._models import (
    KINDS,
    NESTED,
    Agent,
    AgentConfig,
    ClusterConfig,
)
from orchestrator_lab.config._notes import notes_for, secret_notes
from orchestrator_lab.config._problems import Problems, key_text, suggestion, translate
from orchestrator_lab.config._resolve import (
    absolute,
    here,
    resolve_agent,
    resolve_folder,
    resolve_gateway,
)
from orchestrator_lab.config._topology import USER, Edge
from orchestrator_lab.config._yaml import Document, KeyPath, display_path, read_text, read_yaml
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CLUSTER_KEYS",
    "FILE_NAMES",
    "add_agent",
    "from_json",
    "instructions_text",
    "load_config",
]

#: Where ``load_config(None)`` looks, in this order.
FILE_NAMES = ("cluster.yaml", "cluster.yml", "cc-cluster.yaml", "config/cc-cluster.yaml")

TEMPLATE_PREFIX = "template:"
_NOT_IN_FILE = {"agents", "source", "notes"}
CLUSTER_KEYS = [name for name in ClusterConfig.model_fields if name not in _NOT_IN_FILE]
_AGENT_MODELS: dict[str, type[AgentConfig]] = {
    model.model_fields["kind"].default: model for model in get_args(get_args(Agent)[0])
}
_MAX_DEPTH = 50


def load_config(
    source: str | Path | Mapping[str, Any] | ClusterConfig | None = None,
    *,
    base_dir: str | Path | None = None,
    overrides: bool = True,
) -> ClusterConfig:
    """Read, check and resolve the configuration of a cluster.

    Parameters
    ----------
    source : path, mapping or None
        A file (or the folder that holds it), the same as a mapping, ``template:NAME``, or None for
        the ``cluster.yaml`` of the current folder. orchestrator-cc's ``cc-cluster.yaml`` is read
        too. A ClusterConfig is returned as it is.
    base_dir : path, optional
        What relative paths of a mapping or a template are relative to; the current folder when
        omitted. Those of a file are relative to the file.
    overrides : bool
        Whether ``ORCHESTRATOR_*`` variables and the ``.env`` beside the file override what it says.

    Returns
    -------
    ClusterConfig
        Paths absolute; :attr:`ClusterConfig.notes` says what has no effect or needs attention.

    Raises
    ------
    ConfigError
        With one sentence per problem: file, line, key, what was expected.

    Examples
    --------
    >>> agents = [{"name": "a", "kind": "chat"}]
    >>> config = load_config({"cluster": {"name": "duo"}, "agents": agents})
    >>> config.names, config.topology.all_to_all
    (['a'], True)
    """
    if isinstance(source, ClusterConfig):
        return source
    base = here() if base_dir is None else absolute(Path(base_dir), here())
    notes: list[str] = []
    path: Path | None = None
    text_base: Path | None = None
    if isinstance(source, str) and source.startswith(TEMPLATE_PREFIX):
        from orchestrator_lab.config._templates import template_document

        document, text_base = template_document(source.removeprefix(TEMPLATE_PREFIX))
    elif source is None or isinstance(source, str | Path):
        path = _find(None if source is None else Path(source), base)
        document = read_yaml(path)
        base = path.parent
    elif isinstance(source, dict) or hasattr(source, "keys"):
        document = Document(_plain(dict(source)), "configuration")
    else:
        raise ConfigError(f"a configuration is a file, a mapping or 'template:NAME', not {type(source).__name__}")
    env_file = base / ".env"
    if _legacy.is_legacy(document.data):
        document, notes = _legacy.convert(document)
        # orchestrator-cc kept the file in config/ and its paths relative to the project.
        if path is not None and base.name == "config":
            base = base.parent
    return _build(
        document,
        base,
        text_base or base,
        path,
        notes,
        env_file=env_file if overrides else None,
        overrides=overrides,
    )


def add_agent(
    config: ClusterConfig,
    agent: Mapping[str, Any] | AgentConfig,
    *,
    base_dir: str | Path | None = None,
) -> ClusterConfig:
    """Return `config` with one more agent, checked like a file.

    Parameters
    ----------
    config : ClusterConfig
        The cluster.
    agent : mapping or AgentConfig
        Who joins it, with the keys of an entry of ``agents:``.
    base_dir : path, optional
        What relative paths are relative to; the current folder when omitted.

    Returns
    -------
    ClusterConfig
        A new configuration; the agent is its last.

    Raises
    ------
    ConfigError
        When a key is wrong or the name is taken.
    """
    base = here() if base_dir is None else absolute(Path(base_dir), here())
    plain = _plain(agent)
    document = Document({"agents": [plain]}, "the new agent")
    problems = Problems(document, lambda path: key_text(path[2:]))
    try:
        new = TypeAdapter[Any](Agent).validate_python(plain)
    except ValidationError as error:
        translate(
            error,
            problems,
            place=lambda loc: _untag(("agents", 0, *loc)),
            known=lambda loc: _known(("agents", 0, *loc)),
            elsewhere=lambda loc: _elsewhere(("agents", 0, *loc)),
        )
        problems.raise_any()
        raise
    if new.name.lower() in {name.lower() for name in config.names}:
        problems.add(("agents", 0, "name"), f"there is an agent {new.name!r} already; names must differ")
    new = resolve_agent(new, ("agents", 0), base, base, problems)
    problems.raise_any()
    notes = [*config.notes, *secret_notes([new], document)]
    return config.model_copy(update={"agents": [*config.agents, new], "notes": notes})


def from_json(text: str | bytes) -> ClusterConfig:
    """Return the configuration that :meth:`ClusterConfig.to_json` wrote; see there."""
    try:
        return ClusterConfig.model_validate_json(text)
    except ValidationError as error:
        problems = Problems(Document(None, "config.json"))
        translate(error, problems, place=_untag, known=_known)
        problems.raise_any()
        raise


def instructions_text(agent: AgentConfig, config: ClusterConfig | None = None) -> str | None:
    """Return the personality of an agent.

    Parameters
    ----------
    agent : AgentConfig
        The agent.
    config : ClusterConfig, optional
        Its cluster; a relative ``instructions_file`` is looked up beside the cluster's file.

    Returns
    -------
    str or None
        Its instructions, None when it has none.

    Raises
    ------
    ConfigError
        When the file is gone or is not text.
    """
    if agent.instructions is not None:
        return agent.instructions
    if agent.instructions_file is None:
        return None
    path = agent.instructions_file
    if not path.is_absolute() and config is not None and config.source is not None:
        path = config.source.parent / path
    return read_text(path, f"the instructions file of agent '{agent.name}',")


def _find(path: Path | None, base: Path) -> Path:
    folder = base if path is None else absolute(path, base)
    try:
        if folder.is_file() or (path is not None and not folder.is_dir()):
            return folder  # reading it says what is wrong
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return folder / name
    except (OSError, ValueError) as error:
        raise ConfigError(f"the configuration {str(path)[:200]!r} cannot be read: {error}") from None
    raise ConfigError(
        f"no cluster.yaml in {display_path(folder) if folder != here() else folder}; write "
        f"one with "
        "'orchestrator-lab init', or name a file",
        path=str(folder),
    )


def _plain(value: Any, path: KeyPath = ()) -> Any:  # noqa: ANN401 - data of any shape, from Python
    """Return Python data as the plain data that a file would give."""
    where = f"configuration: {key_text(path)}: " if path else "configuration: "
    if len(path) > _MAX_DEPTH:
        raise ConfigError(f"configuration: nested more than {_MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN
            raise ConfigError(f"{where}{value} is not a number that a file can hold")
        return value
    if isinstance(value, str | Path):
        text = str(value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(f"{where}half of a surrogate pair; write the character itself")
        return text
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(by_alias=True, mode="json"), path)
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, place)) for place, item in enumerate(value)]
    if isinstance(value, dict) or hasattr(value, "keys"):
        return {str(key): _plain(value[key], (*path, str(key))) for key in dict(value)}
    raise ConfigError(f"{where}text, numbers, lists and mappings only; found {type(value).__name__}")


def _build(
    document: Document,
    base: Path,
    text_base: Path,
    path: Path | None,
    notes: list[str],
    *,
    env_file: Path | None,
    overrides: bool,
) -> ClusterConfig:
    problems = Problems(document)
    flat = _flatten(document, problems)
    if overrides:
        from orchestrator_lab.config._settings import load_settings, unknown_variables

        flat |= load_settings(env_file).cluster_values()
        notes += unknown_variables()
    try:
        config = ClusterConfig.model_validate(flat)
    except ValidationError as error:
        translate(error, problems, place=_place, known=_known, elsewhere=_elsewhere)
        _check_names(document, problems)
        problems.raise_any()
        raise
    _check_names(document, problems)
    _check_topology(config, problems)
    agents = [
        resolve_agent(agent, ("agents", place), base, text_base, problems) for place, agent in enumerate(config.agents)
    ]
    changes: dict[str, Any] = {
        "agents": agents,
        "source": path,
        "work_dir": resolve_folder(
            config.work_dir, base, ("cluster", "work_dir"), problems, create=config.create_work_dir
        ),
        "runs_dir": resolve_folder(config.runs_dir, base, ("cluster", "runs_dir"), problems, create=True),
        "gateway": resolve_gateway(config.gateway, ("cluster", "gateway"), base, problems),
    }
    problems.raise_any()
    config = config.model_copy(update=changes)
    return config.model_copy(update={"notes": notes + notes_for(config, document)})


def _flatten(document: Document, problems: Problems) -> dict[str, Any]:
    data = document.data
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds a {'list' if isinstance(data, list) else 'single value'}"
        raise ConfigError(f"{document.source} {found}; a mapping with the keys 'cluster' and 'agents' is expected")
    for key in data:
        if key in {"cluster", "agents"}:
            continue
        if key in CLUSTER_KEYS:
            problems.add((key,), "unknown key at the top; it belongs under 'cluster:'")
        else:
            problems.add(
                (key,),
                "unknown key" + suggestion(str(key), ["cluster", "agents"], what="known keys"),
            )
    cluster = data.get("cluster")
    if not isinstance(cluster, dict):
        if "cluster" in data:
            problems.add(("cluster",), "a mapping of keys is expected, at least 'name'")
        elif not problems:
            problems.add((), "the key 'cluster' is missing; it holds at least 'name'")
        cluster = {"name": "unnamed"}
    flat = {key: value for key, value in cluster.items() if key in CLUSTER_KEYS and value is not None}
    for key in cluster:
        if key not in CLUSTER_KEYS:
            problems.add(
                ("cluster", key),
                "unknown key" + suggestion(str(key), CLUSTER_KEYS, what="known keys"),
            )
    if data.get("agents") is not None:
        flat["agents"] = _without_empty(data["agents"])
    elif "agents" in data or not problems:
        problems.add(("agents",), "at least one agent is needed")
        problems.raise_any()
    return flat


def _without_empty(agents: Any) -> Any:  # noqa: ANN401 - whatever the file says
    # a key with nothing behind it (all lines below it commented out) counts as left out
    if not isinstance(agents, list):
        return agents
    known = {*_known(("agents",)), "kind"}
    return [
        {key: value for key, value in agent.items() if value is not None or key not in known}
        if isinstance(agent, dict)
        else agent
        for agent in agents
    ]


def _untag(loc: KeyPath) -> KeyPath:
    # pydantic puts the kind into the location of an agent's keys
    return (*loc[:2], *loc[3:]) if loc[:1] == ("agents",) and len(loc) > 2 and loc[2] in KINDS else loc


def _place(loc: KeyPath) -> KeyPath:
    path = _untag(loc)
    if path[:2] == ("topology", "edges"):
        path = ("topology", *path[2:])
    return path if path[:1] == ("agents",) else ("cluster", *path)


def _known(path: KeyPath) -> list[str]:
    if path[:1] == ("prices",) and len(path) > 1:  # models may have any name
        return list(ModelPrice.model_fields)
    last = path[-1] if path else ""
    if last == "kind":
        return list(KINDS)
    if last in NESTED:
        return list(NESTED[str(last)].model_fields)
    if "topology" in path:
        return ["from", *(name for name in Edge.model_fields if name != "from_")]
    if path[:1] == ("agents",):
        models = [_AGENT_MODELS[str(path[2])]] if len(path) > 2 else list(_AGENT_MODELS.values())
        return sorted({name for model in models for name in model.model_fields})
    return CLUSTER_KEYS


def _elsewhere(loc: KeyPath) -> str:
    if loc[:1] != ("agents",) or len(loc) != 4:
        return ""
    kinds = [kind for kind, model in _AGENT_MODELS.items() if loc[3] in model.model_fields]
    return " or ".join(repr(kind) for kind in kinds)


def _check_names(document: Document, problems: Problems) -> None:
    seen: dict[str, tuple[int, str]] = {}
    agents = document.data.get("agents")
    for place, agent in enumerate(agents if isinstance(agents, list) else []):
        name = agent.get("name") if isinstance(agent, dict) else None
        if not isinstance(name, str):
            continue
        # Folders carry these names, and some file systems do not tell case apart.
        first = seen.setdefault(name.lower(), (place, name))
        if first[0] != place:
            line = document.line(("agents", first[0], "name"))
            where = f" (line {line})" if line else ""
            same = "" if first[1] == name else f" ({first[1]!r}; only the case differs)"
            problems.add(
                ("agents", place, "name"),
                f"{name[:60]!r} is also the name of agents[{first[0]}]{where}{same}; names must differ",
            )


def _check_topology(config: ClusterConfig, problems: Problems) -> None:
    for place, edge in enumerate(config.topology.edges or []):
        for name in (*edge.from_, *edge.to):
            if name not in {"*", USER, *config.names}:
                problems.add(
                    ("cluster", "topology", place),
                    f"unknown agent {name[:60]!r}; the agents are: {', '.join(config.names)}",
                )
