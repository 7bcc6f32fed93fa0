"""What the environment and ``.env`` say: ``ORCHESTRATOR_*``."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from orchestrator_lab.config._care import (  # noqa: TC001 - pydantic reads the annotations
    AlertsConfig,
    DialogPolicy,
    HangPolicy,
    Limits,
    RestartPolicy,
)
from orchestrator_lab.config._initial import InitialStateConfig  # noqa: TC001 - pydantic reads the annotations
from orchestrator_lab.config._models import (
    NESTED,
    Columns,
    FilePath,
    GatewayConfig,
    Layout,
    Lifetime,
    Name,
    Rows,
    Seconds,
)
from orchestrator_lab.config._problems import Problems, translate
from orchestrator_lab.config._yaml import Document, KeyPath
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Backups",
    "ClusterOverrides",
    "Retention",
    "Settings",
    "load_settings",
    "settings_given",
    "unknown_variables",
]

_PREFIX = "ORCHESTRATOR_"
#: The variables behind the lab's own prefix that are overrides.
_MODE_VARIABLE, _LEVEL_VARIABLE = "ORCHESTRATOR_LAB_MODE", "ORCHESTRATOR_LAB_LEVEL"
#: How the names of variables begin that stand for one key of several.
_NESTED = tuple(f"{_PREFIX}{name}__" for name in ("CLUSTER", "RETENTION", "BACKUP"))
#: Where this machine keeps its sockets: of no use on another.
_OF_THIS_MACHINE = "ORCHESTRATOR_RUNTIME_DIR"


class ClusterOverrides(BaseModel):
    """Keys of ``cluster:`` that a variable may override, as ``ORCHESTRATOR_CLUSTER__<KEY>``."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    session_name: Name | None = None
    work_dir: FilePath | None = None
    create_work_dir: bool | None = None
    runs_dir: FilePath | None = None
    layout: Layout | None = None
    cols: Columns | None = None
    rows: Rows | None = None
    lifetime: Lifetime | None = None
    gateway: GatewayConfig | None = None
    start_timeout_s: Seconds | None = None
    restart: RestartPolicy | None = None
    hang: HangPolicy | None = None
    dialogs: DialogPolicy | None = None
    limits: Limits | None = None
    alerts: AlertsConfig | None = None
    initial_state: InitialStateConfig | None = None
    record_changes: bool | None = None
    seal: bool | None = None


class Retention(BaseModel):
    """Which runs ``orchestrator-lab runs prune`` keeps where its options say nothing."""

    model_config = ConfigDict(extra="forbid")

    keep: int | None = Field(default=None, ge=0, description="so many of the newest")
    days: float | None = Field(default=None, ge=0, description="those that began within so many days")
    gigabytes: float | None = Field(default=None, ge=0, description="the newest, up to so many gigabytes in all")


class Backups(BaseModel):
    """Where ``orchestrator-lab backup`` keeps its backups and how many, where its options say nothing."""

    model_config = ConfigDict(extra="forbid")

    dir: FilePath | None = Field(default=None, description="the folder of backups")
    keep: int | None = Field(default=None, ge=1, description="so many of the newest")
    days: float | None = Field(default=None, ge=0, description="those of so many days")


class Settings(BaseSettings):
    """Overrides from ``ORCHESTRATOR_*`` variables, and from ``.env`` where no variable is set.

    Parameters
    ----------
    runtime_dir : Path, optional
        Folder of running clusters (``ORCHESTRATOR_RUNTIME_DIR``).
    runs_dir : Path, optional
        Folder of runs (``ORCHESTRATOR_RUNS_DIR``), relative to the current folder.
    mode : {"live", "record", "replay", "replay_strict", "auto"} or None
        How runs are made (``ORCHESTRATOR_LAB_MODE``); None leaves it to whoever starts one.
    level : {"terminal", "model"} or None
        How runs are replayed (``ORCHESTRATOR_LAB_LEVEL``); None leaves it to whoever starts one.
    retention : Retention
        Which runs are kept (``ORCHESTRATOR_RETENTION__KEEP``, ``__DAYS``, ``__GIGABYTES``).
    backup : Backups
        Where backups go, and which are kept (``ORCHESTRATOR_BACKUP__DIR``, ``__KEEP``, ``__DAYS``).
    cluster : ClusterOverrides
        Keys of ``cluster:``, for example ``ORCHESTRATOR_CLUSTER__COLS=120`` or
        ``ORCHESTRATOR_CLUSTER__GATEWAY__MODE=local``.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
    )

    runtime_dir: FilePath | None = None
    runs_dir: FilePath | None = None
    mode: Literal["live", "record", "replay", "replay_strict", "auto"] | None = Field(
        default=None, validation_alias=_MODE_VARIABLE
    )
    level: Literal["terminal", "model"] | None = Field(default=None, validation_alias=_LEVEL_VARIABLE)
    retention: Retention = Field(default_factory=Retention)
    backup: Backups = Field(default_factory=Backups)
    cluster: ClusterOverrides = Field(default_factory=ClusterOverrides)

    def cluster_values(self) -> dict[str, Any]:
        """Return what overrides keys of ``cluster:``; paths are relative to the current folder."""
        values = self.cluster.model_dump(exclude_none=True, exclude_unset=True)
        if "runs_dir" not in values and self.runs_dir is not None:
            values["runs_dir"] = self.runs_dir
        for key in ("work_dir", "runs_dir"):
            if key in values:
                values[key] = str(Path.cwd() / Path(values[key]).expanduser())
        return values


def load_settings(env_file: Path | str | None = ".env") -> Settings:
    """Read the environment and an env file.

    Parameters
    ----------
    env_file : Path or str, optional
        The file, which need not exist; None reads the environment only.

    Returns
    -------
    Settings
        What they say.

    Raises
    ------
    ConfigError
        With a sentence that names each variable that is wrong.
    """
    source = f"environment (or {env_file})" if env_file and Path(env_file).is_file() else "environment"
    try:
        return Settings(_env_file=env_file)
    except ValidationError as error:
        problems = Problems(Document(None, source), _variable)
        translate(error, problems, place=lambda loc: loc, known=_known)
        problems.raise_any()
        raise
    except (SettingsError, OSError, ValueError) as error:
        cause = error.__cause__
        reason = f"{error}: {cause}" if cause else str(error)
        raise ConfigError(f"{source}: {_PREFIX}* cannot be read: {reason}") from None


def settings_given(env_file: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say something to the settings, as they count now.

    Parameters
    ----------
    env_file : Path
        The ``.env``, which need not exist.
    environ : mapping
        The environment, which overrides the file.

    Returns
    -------
    dict of str to str
        Without ``ORCHESTRATOR_RUNTIME_DIR``, which is about one machine. They may hold secrets.
    """
    from dotenv import dotenv_values

    known = {_variable((name,)) for name in Settings.model_fields} - {_OF_THIS_MACHINE}
    given = {**(dotenv_values(env_file) if env_file.is_file() else {}), **environ}
    return {
        name: value
        for name, value in sorted(given.items())
        if value is not None and (name.upper() in known or name.upper().startswith(_NESTED))
    }


def _variable(path: KeyPath) -> str:
    for name, variable in (("mode", _MODE_VARIABLE), ("level", _LEVEL_VARIABLE)):
        if path in {(name,), (variable,)}:
            return variable
    return _PREFIX + "__".join(str(part).upper() for part in path)


def _known(path: KeyPath) -> list[str]:
    groups: dict[object, type[BaseModel]] = {"retention": Retention, "backup": Backups}
    if path and path[0] in groups:
        return list(groups[path[0]].model_fields)
    if len(path) > 1 and path[1] in NESTED:
        return list(NESTED[str(path[1])].model_fields)
    return list(ClusterOverrides.model_fields)


def unknown_variables() -> list[str]:
    """Return a note for each ``ORCHESTRATOR_*`` variable that is a near miss of a known one."""
    known = [_variable((name,)) for name in Settings.model_fields]
    notes = []
    for name in sorted(os.environ):
        if not name.upper().startswith(_PREFIX) or name.upper().startswith(_PREFIX + "LAB_"):
            continue
        if name.upper() in known or name.upper().startswith(_NESTED):
            continue
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85)
        if close:
            notes.append(f"environment: {name} has no effect; did you mean {close[0]}?")
    return notes
