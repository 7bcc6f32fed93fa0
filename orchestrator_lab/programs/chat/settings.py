"""What the chat program is told: a settings file from the lab, or arguments from a person."""

from __future__ import annotations

import argparse
import json
import os
import uuid
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from orchestrator_lab.errors import ConfigError

__all__ = ["Settings", "parse_arguments"]

Api = Literal["anthropic", "openai"]

_DEFAULT_BASE = {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}
_DEFAULT_KEY = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
_EXAMPLE_MODEL = {"anthropic": "claude-sonnet-4-5", "openai": "gpt-5"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the program needs to know.

    Parameters
    ----------
    name : str
        Shown in the header and in the terminal's title.
    api : {"anthropic", "openai"}
        The endpoint's dialect.
    base_url : str
        Anthropic's without ``/v1``, OpenAI's with it.
    model : str
        Model to ask for.
    system, system_file : str, optional
        The role text, or the file that holds it.
    max_tokens : int
        Longest reply, in tokens.
    temperature : float, optional
        Left to the endpoint when None.
    remember_turns : int, optional
        Turns of the conversation that go to the endpoint with a prompt; all when None.
    key_env : str, optional
        Name of the environment variable that holds the key; no key is sent when None.
    hook_url : str, optional
        Where events are posted; none are when None.
    hook_token : str, optional
        Bearer of those posts (from the environment, never from the file).
    session_id : str
        Identity of the conversation.
    transcript_path : Path, optional
        The program's own record of the conversation.
    resume : bool
        Continue the conversation of the transcript.
    timeout_s : float
        Longest silence of the endpoint, in seconds.

    Examples
    --------
    >>> Settings(name="ada", model="m", base_url="http://127.0.0.1:1").api
    'anthropic'
    """

    name: str
    model: str
    base_url: str
    api: Api = "anthropic"
    system: str | None = None
    system_file: str | None = None
    max_tokens: int = 4096
    temperature: float | None = None
    remember_turns: int | None = None
    key_env: str | None = None
    hook_url: str | None = None
    hook_token: str | None = None
    session_id: str = ""
    transcript_path: Path | None = None
    resume: bool = False
    timeout_s: float = 600.0

    def system_text(self) -> str | None:
        """Return the role text.

        Returns
        -------
        str or None
            Text, or None when there is none.

        Raises
        ------
        ConfigError
            When the file cannot be read.
        """
        if self.system_file is None:
            return self.system or None
        try:
            return Path(self.system_file).read_text(encoding="utf-8") or None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the system text {self.system_file} cannot be read as UTF-8 ({error}); "
                "name a readable text file in 'system_file'"
            ) from error


_FILE_KEYS = {field.name for field in fields(Settings)} - {"hook_token"}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the settings file {path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"the settings file {path} must hold one JSON object")
    unknown = sorted(set(data) - _FILE_KEYS)
    if unknown:
        raise ConfigError(
            f"the settings file {path} has an unknown key {unknown[0]!r}; known are: " + ", ".join(sorted(_FILE_KEYS))
        )
    return {key: value for key, value in data.items() if value is not None}


def parse_arguments(argv: list[str] | None = None) -> Settings:
    """Read the command line, and the settings file that it names.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; those of the process when None.

    Returns
    -------
    Settings
        Arguments win over the file.

    Raises
    ------
    ConfigError
        When the file, a key or a value is wrong.

    Examples
    --------
    >>> parse_arguments(["--base-url", "http://localhost:8080", "--model", "m"]).model
    'm'
    """
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator_lab.programs.chat",
        description="Chat in the terminal with any Anthropic- or OpenAI-compatible endpoint.",
    )
    parser.add_argument("--settings", type=Path, help="JSON file written by the lab")
    parser.add_argument("--base-url", help="Anthropic's without /v1, OpenAI's with it")
    parser.add_argument("--model")
    parser.add_argument("--api", choices=["anthropic", "openai"])
    parser.add_argument("--system", help="role text")
    parser.add_argument("--system-file", help="file with the role text")
    parser.add_argument("--name", help="shown in the header and the title")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--remember-turns", type=int, help="turns that go to the endpoint; all by default")
    parser.add_argument("--key-env", help="environment variable that holds the API key")
    parser.add_argument("--transcript", dest="transcript_path", help="JSONL record of the chat")
    parser.add_argument("--resume", action="store_true", default=None, help="continue it")
    arguments = vars(parser.parse_args(argv))
    path = arguments.pop("settings")
    values = _from_file(path) if path else {}
    values |= {key: value for key, value in arguments.items() if value is not None}

    api = values.setdefault("api", "anthropic")
    if api not in _DEFAULT_BASE:
        raise ConfigError(f"'api' is {api!r}; it must be 'anthropic' or 'openai'")
    if "base_url" not in values:
        values["base_url"] = _DEFAULT_BASE[api]
        # A key of the environment goes to its own vendor only, never to a base URL that someone
        # gave.
        values.setdefault("key_env", _DEFAULT_KEY[api])
    if not str(values["base_url"]).startswith(("http://", "https://")):
        raise ConfigError(f"'base_url' is {values['base_url']!r}; it must begin with http(s)://")
    if not values.get("model"):
        raise ConfigError(f"no model is named; add --model, for example {_EXAMPLE_MODEL[api]}")
    kinds = {"max_tokens": int, "remember_turns": int, "temperature": (int, float), "resume": bool}
    for key, kind in kinds.items():
        if key in values and not isinstance(values[key], cast("type", kind)):
            raise ConfigError(f"{key!r} is {values[key]!r}, which is of the wrong type")
    values.setdefault("name", "chat")
    values["session_id"] = values.get("session_id") or str(uuid.uuid4())
    if "transcript_path" in values:
        values["transcript_path"] = Path(values["transcript_path"]).expanduser().absolute()
    if values.get("resume") and "transcript_path" not in values:
        raise ConfigError("'resume' needs the transcript to continue; add 'transcript_path'")
    values["hook_token"] = os.environ.get("ORCHESTRATOR_LAB_AGENT_TOKEN") or None
    return Settings(**values)
