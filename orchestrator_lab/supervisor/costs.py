"""What a turn costs: its tokens as they were reported, by the prices of the configuration, and by nothing else."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.agents.base import Usage
    from orchestrator_lab.config import ModelPrice

__all__ = ["cost_of", "price_of"]

#: Prices are in USD per so many tokens.
_TOKENS = 1_000_000
#: Digits after the point: no sum of cents is a hair below the limit that it reaches.
_DIGITS = 12


def price_of(model: str | None, prices: Mapping[str, ModelPrice]) -> ModelPrice | None:
    """Return the price that fits a model best.

    Parameters
    ----------
    model : str or None
        Name of the model, as its program reports it; None when it is not known.
    prices : mapping
        Prices by name or pattern.

    Returns
    -------
    ModelPrice or None
        That of exactly this name, else of the longest pattern that fits (the first of several); None when none does.

    Examples
    --------
    >>> from orchestrator_lab.config import ModelPrice
    >>> prices = {"m-*": ModelPrice(input=1, output=2), "m-4-*": ModelPrice(input=3, output=4)}
    >>> price_of("m-4-large", prices).input
    3.0
    """
    if model is None:
        return None
    if model in prices:
        return prices[model]
    fitting = [pattern for pattern in prices if fnmatchcase(model, pattern)]
    return prices[max(fitting, key=len)] if fitting else None


def cost_of(usage: Usage, prices: Mapping[str, ModelPrice]) -> float | None:
    """Return what a turn cost in USD.

    Parameters
    ----------
    usage : Usage
        Tokens of the turn; the input counts cached tokens too.
    prices : mapping
        Prices by name or pattern of models.

    Returns
    -------
    float or None
        None when it is not known: no single model is named, it has no price, not all tokens were reported, a class of
        tokens that is there has no price, or the figures do not fit each other.

    Examples
    --------
    >>> from orchestrator_lab.agents.base import Usage
    >>> from orchestrator_lab.config import ModelPrice
    >>> prices = {"m": ModelPrice(input=3, output=15, cache_read=0.3)}
    >>> cost_of(Usage(1_000_000, 100_000, cache_read_input_tokens=900_000, model="m"), prices)
    2.07
    >>> cost_of(Usage(1_000_000, 100_000, cache_creation_input_tokens=1, model="m"), prices) is None
    True
    """
    price = price_of(usage.model, prices) if usage.whole else None
    if price is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    read, made = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    classes = (
        (usage.input_tokens - read - made, price.input),
        (usage.output_tokens, price.output),
        (read, price.cache_read),
        (made, price.cache_creation),
    )
    cost = 0.0
    for tokens, rate in classes:
        if tokens < 0 or (tokens > 0 and rate is None):
            return None
        try:
            cost += tokens * (rate or 0.0) / _TOKENS
        except OverflowError:  # a program may report any number
            return None
    return round(cost, _DIGITS) if math.isfinite(cost) else None
