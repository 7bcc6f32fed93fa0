"""What of a configuration goes into a backup: its file, what that names, and the settings, without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.backup.listing import OUTSIDE
from orchestrator_lab.config import (
    FILE_NAMES,
    here,
    is_secret_name,
    known_secrets,
    load_config,
    mask_address,
    mask_text,
    settings_given,
    to_yaml,
)
from orchestrator_lab.errors import BackupError
from orchestrator_lab.resuming import default_runs_dir

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator_lab.config import ClusterConfig

__all__ = ["Setup", "collect_setup"]

#: Stands in place of a secret.
_MASK = "***"
#: Characters of a secret that is looked for everywhere.
_SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Setup:
    """A cluster's configuration as it is kept.

    Parameters
    ----------
    name : str or None
        The cluster's; None when there is no configuration.
    folder : pathlib.Path
        The folder that it is relative to.
    runs_dir : pathlib.Path
        Where its runs are.
    config : str or None
        Name of its file.
    files : dict of str to bytes
        What is kept, by the name below `folder`.
    outside : dict of str to str
        Where those lay that are not below it.
    settings : str
        Variables, in the form of an ``.env``.
    masked : tuple of str
        What held secrets, which are not kept.
    """

    name: str | None
    folder: Path
    runs_dir: Path
    config: str | None
    files: dict[str, bytes]
    outside: dict[str, str]
    settings: str
    masked: tuple[str, ...]


def collect_setup(source: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Setup:
    """Read what is to be kept of a configuration.

    Parameters
    ----------
    source : path-like, optional
        The configuration or its folder; the current folder when omitted, which may have none.
    environ : mapping
        The environment: what is secret in it is not kept, wherever it stands.

    Returns
    -------
    Setup
        Nothing was changed.

    Raises
    ------
    ConfigError
        When the configuration is wrong.
    BackupError
        When a file that it names cannot be read.
    """
    folder = here()
    if source is None and not any((folder / name).is_file() for name in FILE_NAMES):
        settings, masked = _settings(folder, environ)
        return Setup(None, folder, default_runs_dir().absolute(), None, {}, {}, settings, masked)
    config = load_config(None if source is None else Path(source))
    place = config.source
    assert place is not None  # noqa: S101 - it was read from a file
    folder = place.parent.parent if place.parent.name == "config" and place.name in _OLD_NAMES else place.parent
    settings, masked = _settings(folder, environ)
    found: list[str] = list(masked)
    secrets = _secrets(config, _parsed(_read(place)), {**_variables(folder), **environ})
    files: dict[str, bytes] = {}
    outside: dict[str, str] = {}
    for path in dict.fromkeys([place, *_named(config)]):
        name = _name(path, folder, len(outside))
        if name.startswith(f"{OUTSIDE}/"):
            outside[name] = str(path)
        text = _read(path)
        kept = text if text is None else _without(text, secrets, config if path == place else None)
        files[name] = path.read_bytes() if kept is None or kept == text else kept.encode()
        if kept != text:
            found.append(name)
    name = place.relative_to(folder).as_posix()
    return Setup(config.name, folder, config.runs_dir, name, files, outside, settings, tuple(found))


#: orchestrator-cc kept its file in a folder of its own, with paths relative to the folder above.
_OLD_NAMES = {Path(name).name for name in FILE_NAMES if "/" in name}


def _named(config: ClusterConfig) -> Iterator[Path]:
    """Yield the files that a configuration names, but for programs and models."""
    scripts = [config.gateway.script]
    for agent in config.agents:
        if agent.instructions_file is not None:
            yield agent.instructions_file
        if agent.screens is not None:
            yield agent.screens
        if agent.gateway is not None:
            scripts.append(agent.gateway.script)
    yield from (Path(script) for script in scripts if isinstance(script, str))


def _name(path: Path, folder: Path, number: int) -> str:
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return f"{OUTSIDE}/{number + 1}/{path.name}"


def _read(path: Path) -> str | None:
    """Return a file's text; None for one that is no text, in which nothing is looked for."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise BackupError(
            f"{path}, which the configuration names, cannot be read ({error.strerror}): no backup was made; check its "
            "owner",
            path=str(path),
        ) from error


# secrets ---------------------------------------------------------------------------------------------


def _secrets(config: ClusterConfig, written: Any, environ: Mapping[str, str]) -> dict[str, str]:  # noqa: ANN401
    """Return what stands for each secret that is known, the longest first."""
    found = dict.fromkeys(known_secrets(config, environ), _MASK)
    # What the file says, be it overridden by a variable.
    for key, value in _pairs(written):
        if key == "env" and isinstance(value, dict):
            found |= {str(text): _MASK for name, text in value.items() if text and is_secret_name(str(name))}
        elif key == "notify":
            for address in value if isinstance(value, list) else [value]:
                if "${" not in str(address) and (masked := mask_address(str(address))) != address:
                    found[str(address)] = masked
    return dict(sorted(found.items(), key=lambda pair: len(pair[0]), reverse=True))


def _parsed(text: str | None) -> Any:  # noqa: ANN401 - what a file holds
    import yaml

    try:
        return yaml.safe_load(text or "")
    except yaml.YAMLError:
        return None


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - what a file holds
    """Yield every key and value, at any depth."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield str(key), one
            yield from _pairs(one)
    elif isinstance(value, list):
        for one in value:
            yield from _pairs(one)


def _without(text: str, secrets: Mapping[str, str], config: ClusterConfig | None) -> str:
    """Return a text without secrets; a configuration is one still, with its comments where that can be."""
    masked = text
    # A short one would be found in ordinary words.
    long = {secret: mask for secret, mask in secrets.items() if len(secret) >= _SHORTEST}
    for secret, mask in long.items():
        if config is not None:
            # Without quotes YAML takes asterisks for the name of an anchor.
            bare = rf"(?<=[:,\-\[{{] ){re.escape(secret)}(?=[ \t]*(?:[,\]}}#\r\n]|$))"
            masked = re.sub(bare, f'"{mask}"'.replace("\\", r"\\"), masked)
        masked = masked.replace(secret, mask)
    masked = mask_text(masked)
    if config is None:
        return masked
    data = _parsed(masked)
    return masked if data is not None and not _told(data, secrets) else to_yaml(config, secrets=long)


def _told(value: Any, secrets: Iterable[str]) -> bool:  # noqa: ANN401 - what a file holds
    """Tell whether a configuration still says a secret, be it written in another way."""
    if isinstance(value, dict):
        return any(_told(one, secrets) for one in [*value, *value.values()])
    if isinstance(value, list):
        return any(_told(one, secrets) for one in value)
    text = str(value)
    whole = any(text == secret if len(secret) < _SHORTEST else secret in text for secret in secrets)
    return whole or mask_text(text) != text


# settings --------------------------------------------------------------------------------------------


def _variables(folder: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    place = folder / ".env"
    return {name: value for name, value in dotenv_values(place).items() if value} if place.is_file() else {}


def _settings(folder: Path, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the settings that count now, in the form of an ``.env``, and the names of those that are secret."""
    lines, secret = [], []
    for name, value in settings_given(folder / ".env", environ).items():
        # Who is told of alerts is written with a login.
        if is_secret_name(name) or mask_text(value) != value or "notify" in (name + value).lower():
            secret.append(name)
            lines.append(f"# {name}: a secret, which a backup does not hold")
        else:
            lines.append(f"{name}='{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'")
    return "".join(f"{line}\n" for line in lines), tuple(secret)
