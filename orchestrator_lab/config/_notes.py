"""What is allowed but needs attention: secrets in a file, agents that ask nobody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator_lab.config._notify import mask_address
from orchestrator_lab.config._topology import USER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator_lab.config._models import AgentConfig, ClusterConfig
    from orchestrator_lab.config._yaml import Document

__all__ = [
    "MASK",
    "SECRET_TEXT",
    "is_secret_name",
    "known_secrets",
    "mask_text",
    "notes_for",
    "secret_notes",
    "without_secrets",
]

#: What stands in place of a secret.
MASK = "***"

#: Names of variables whose values are masked wherever the lab writes, and the shortest value that is.
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
_SECRET_LENGTH = 8
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
# These hold one of those words and yet no secret: masked all the same, but no warning.
_HARMLESS_NAME = re.compile(r"MAX_.*TOKENS?$|TOKEN_?LIMIT|KEYBOARD|KEYMAP|_ENV$", re.IGNORECASE)
#: Known forms of keys.
SECRET_TEXT = re.compile(
    r"(?<![\w-])(?:(?:sk-|sk_|gh[pousr]_|github_pat_|xox[abprs]-|AKIA|AIza|glpat-|hf_)[\w-]{12,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
_ASK_NOTHING = frozenset({"--dangerously-skip-permissions", "--dangerously-bypass-approvals-and-sandbox", "--yolo"})


def is_secret_name(name: str) -> bool:
    """Tell whether a variable of this name usually holds a secret."""
    return _SECRET_NAME.search(name) is not None


def mask_text(text: str) -> str:
    """Return `text` with every known form of an API key replaced.

    Examples
    --------
    >>> mask_text("--key sk-ant-0123456789abcdef now")
    '--key *** now'
    """
    return SECRET_TEXT.sub(MASK, text)


def known_secrets(config: ClusterConfig, environ: Mapping[str, str]) -> list[str]:
    """Return the secrets that a cluster is given: values of variables whose names say so.

    Parameters
    ----------
    config : ClusterConfig
        Whose agents have variables of their own.
    environ : mapping
        The environment of whoever starts it.

    Returns
    -------
    list of str
        Of eight characters or more; shorter ones would mask ordinary words.
    """
    pairs = [*environ.items(), *(pair for agent in config.agents for pair in agent.env.items())]
    return [
        value
        for name, value in pairs
        if len(value) >= _SECRET_LENGTH and any(word in name.upper() for word in _SECRET_NAMES)
    ]


def without_secrets(value: Any, secrets: Iterable[str]) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value in whose texts asterisks stand for secrets, as many as they have characters.

    Examples
    --------
    >>> without_secrets({"say": ["the key is s3cret-s3cret"]}, ["s3cret-s3cret"])
    {'say': ['the key is *************']}
    """
    ordered = sorted(set(secrets), key=len, reverse=True)

    def clean(one: Any) -> Any:  # noqa: ANN401 - any JSON value
        if isinstance(one, str):
            for secret in ordered:
                one = one.replace(secret, "*" * len(secret))
            return one
        if isinstance(one, list):
            return [clean(item) for item in one]
        return {clean(key): clean(item) for key, item in one.items()} if isinstance(one, dict) else one

    return clean(value)


def secret_notes(agents: Sequence[AgentConfig], document: Document) -> list[str]:
    """Return a note for each variable of an agent that looks like a secret written down."""
    notes = []
    for place, agent in enumerate(agents):
        for name, value in agent.env.items():
            named = is_secret_name(name) and not _HARMLESS_NAME.search(name)
            if value and (named or SECRET_TEXT.search(value)):
                line = document.line(("agents", place, "env", name))
                where = f"{document.source}, line {line}" if line else document.source
                notes.append(
                    f"{where}: agents[{place}].env.{name} looks like a secret written into the "
                    f"file; agents "
                    f"inherit your environment, so export {name} there and take it out here"
                )
    return notes


def notes_for(config: ClusterConfig, document: Document) -> list[str]:
    """Return the notes about a whole configuration."""
    notes = secret_notes(config.agents, document)
    notes += [
        f"{document.source}: alerts.notify[{number}] is written with its login ({mask_address(address)}); export it, "
        "and write ${NAME} in its place"
        for number, address in enumerate(config.alerts.notify)
        if "${" not in address and "***" in mask_address(address)
    ]
    notes += [
        f"{document.source}: agent {agent.name!r} acts without asking, whatever it does"
        for agent in config.agents
        if agent.permission_mode == "bypassPermissions" or _ASK_NOTHING & set(getattr(agent, "args", []))
    ]
    return notes + _cost_notes(config, document) + _silent_notes(config, document)


def _cost_notes(config: ClusterConfig, document: Document) -> list[str]:
    """Point out limits on costs that no price is known for: what nobody knows reaches no limit."""
    if config.prices:
        return []
    places = ["cluster"] if config.limits.cost_usd is not None else []
    places += [f"agent {agent.name!r}" for agent in config.agents if agent.limits.cost_usd is not None]
    return [
        f"{document.source}: 'limits.cost_usd' of {place} has no effect: no price of any model is known; set "
        "'prices' under 'cluster:', in USD per million tokens"
        for place in places
    ]


def _silent_notes(config: ClusterConfig, document: Document) -> list[str]:
    """Point out agents that have no tool to answer with, on edges that expect one."""
    if config.topology.edges is None:
        return []
    silent = [
        agent.name
        for agent in config.agents
        if agent.kind == "chat"
        and any(
            config.topology.allows(other, agent.name) and config.topology.replies(other, agent.name) == "tool"
            for other in config.names
            if other not in {agent.name, USER}
        )
    ]
    if not silent:
        return []
    note = (
        f"{document.source}: {', '.join(silent)} (kind 'chat') cannot write back by itself; "
        "set 'replies: forward' on the edges to it"
    )
    return [note]
