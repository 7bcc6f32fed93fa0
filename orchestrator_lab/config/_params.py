"""A run's parameters as people type them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["parse_params"]


def parse_params(pairs: Iterable[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` pairs as a mapping; values are JSON where they can be, else text.

    Parameters
    ----------
    pairs : iterable of str
        One parameter each.

    Returns
    -------
    dict
        In their order; of two with the same key, the last.

    Raises
    ------
    ConfigError
        When one is no such pair.

    Examples
    --------
    >>> parse_params(["n=3", "style=short"])
    {'n': 3, 'style': 'short'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--param {pair!r}: expected KEY=VALUE")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found
