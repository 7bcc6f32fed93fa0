"""Makes the paths of a configuration absolute, and checks that they are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator_lab.config._yaml import KeyPath, display_path, read_text
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator_lab.config._models import AgentConfig, GatewayConfig
    from orchestrator_lab.config._problems import Problems

__all__ = ["absolute", "here", "resolve_agent", "resolve_folder", "resolve_gateway"]

AnyAgent = TypeVar("AnyAgent", bound="AgentConfig")


def here() -> Path:
    """Return the current folder, which a shell or a notebook may have lost."""
    try:
        return Path.cwd()
    except OSError:
        raise ConfigError("the current folder does not exist any more; change to another") from None


def absolute(path: Path, base: Path) -> Path:
    """Return `path` as an absolute one: relative to `base`, ``~`` expanded, links kept."""
    try:
        # normpath, not resolve(): a link stays the name that its owner chose.
        return Path(os.path.normpath(base / path.expanduser()))
    except RuntimeError as error:
        raise ConfigError(f"the path {str(path)!r} cannot be expanded: {error}") from None


def resolve_folder(path: Path, base: Path, at: KeyPath, problems: Problems, *, create: bool) -> Path:
    """Return `path` absolute; when it is no folder and may not be made, `problems` learns of it."""
    try:
        folder = absolute(path, base)
        if folder.is_dir():
            return folder
        if folder.exists():
            problems.add(at, f"{display_path(folder)} is not a folder")
        elif not create:
            problems.add(
                at,
                f"the work folder {display_path(folder)} does not exist; make it, or set create_work_dir: true",
            )
    except ConfigError as error:
        problems.add(at, error.message)
    except (OSError, ValueError) as error:
        problems.add(at, f"{str(path)[:200]!r} cannot be used: {getattr(error, 'strerror', None) or error}")
    else:
        return folder
    return path


def resolve_gateway(gateway: GatewayConfig, at: KeyPath, base: Path, problems: Problems) -> GatewayConfig:
    """Return `gateway` with absolute paths; a missing script goes to `problems`."""
    changes: dict[str, Any] = {}
    try:
        if isinstance(gateway.script, str):
            script = absolute(Path(gateway.script), base)
            if not script.is_file():
                problems.add((*at, "script"), f"the script {display_path(script)} does not exist")
            changes["script"] = str(script)
        if gateway.mode == "local" and gateway.model is not None and gateway.model.endswith(".gguf"):
            changes["model"] = str(absolute(Path(gateway.model), base))
    except ConfigError as error:
        problems.add(at, error.message)
    except (OSError, ValueError) as error:
        problems.add((*at, "script"), f"cannot be read: {getattr(error, 'strerror', None) or error}")
    return gateway.model_copy(update=changes) if changes else gateway


def resolve_agent(agent: AnyAgent, at: KeyPath, base: Path, text_base: Path, problems: Problems) -> AnyAgent:
    """Return `agent` with absolute paths; what is missing goes to `problems`."""
    changes: dict[str, Any] = {}
    if agent.work_dir is not None:
        changes["work_dir"] = resolve_folder(
            agent.work_dir, base, (*at, "work_dir"), problems, create=agent.create_work_dir
        )
    if agent.gateway is not None:
        changes["gateway"] = resolve_gateway(agent.gateway, (*at, "gateway"), base, problems)
    if agent.instructions_file is not None:
        try:
            path = absolute(agent.instructions_file, text_base)
            read_text(path, "the instructions file")
            changes["instructions_file"] = path
        except ConfigError as error:
            problems.add((*at, "instructions_file"), error.message)
    if agent.screens is not None:
        try:
            path = absolute(agent.screens, base)
            read_text(path, "the file of screen rules")
            changes["screens"] = path
        except ConfigError as error:
            problems.add((*at, "screens"), error.message)
    command = getattr(agent, "command", None)
    if command and "/" in command[0]:
        try:
            changes["command"] = [str(absolute(Path(command[0]), base)), *command[1:]]
        except ConfigError as error:
            problems.add((*at, "command"), error.message)
    return agent.model_copy(update=changes)
