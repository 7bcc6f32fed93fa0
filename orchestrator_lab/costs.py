"""What a turn costs: its tokens as they were reported, by the prices of the configuration, and by nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.config import ModelPrice

__all__ = ["Spent", "cost_of", "price_of", "price_table"]

#: Prices are in USD per so many tokens.
_TOKENS = 1_000_000
#: Digits after the point: no sum of cents is a hair below the limit that it reaches.
_DIGITS = 12


class Tokens(Protocol):
    """What was used, as far as it was reported; see :class:`Spent`."""

    @property
    def input_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def cache_read_input_tokens(self) -> int | None: ...
    @property
    def cache_creation_input_tokens(self) -> int | None: ...
    @property
    def cache_creation_1h_input_tokens(self) -> int | None: ...
    @property
    def largest_input(self) -> int | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def whole(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one or several requests to one model.

    Parameters
    ----------
    input_tokens, output_tokens : int or None
        Input counts what was read from and written to the cache.
    cache_read_input_tokens, cache_creation_input_tokens : int or None
        Of the input, those.
    cache_creation_1h_input_tokens : int or None
        Of what was written to the cache, what was written for an hour.
    largest_input : int or None
        Input of the largest request; None: not known apart from the others.
    model : str or None
        The model.
    whole : bool
        Whether this is all that was used, at usual conditions.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation_1h_input_tokens: int | None = None
    largest_input: int | None = None
    model: str | None = None
    whole: bool = True


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


def cost_of(usage: Tokens, prices: Mapping[str, ModelPrice]) -> float | None:
    """Return what a turn cost in USD.

    Parameters
    ----------
    usage : Tokens
        Tokens of the turn; the input counts cached tokens too.
    prices : mapping
        Prices by name or pattern of models.

    Returns
    -------
    float or None
        None when it is not known: no single model is named, it has no price, not all tokens were reported, a class of
        tokens that is there has no price, a request may have had more input than the price is for, or the figures do
        not fit each other.

    Examples
    --------
    >>> from orchestrator_lab.config import ModelPrice
    >>> prices = {"m": ModelPrice(input=3, output=15, cache_read=0.3)}
    >>> cost_of(Spent(1_000_000, 100_000, cache_read_input_tokens=900_000, model="m"), prices)
    2.07
    >>> cost_of(Spent(1_000_000, 100_000, cache_creation_input_tokens=1, model="m"), prices) is None
    True
    """
    price = price_of(usage.model, prices) if usage.whole else None
    if price is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    read, made = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    hour = usage.cache_creation_1h_input_tokens or 0
    if price.max_input is not None and (usage.largest_input or usage.input_tokens) > price.max_input:
        return None
    classes = (
        (usage.input_tokens - read - made, price.input),
        (usage.output_tokens, price.output),
        (read, price.cache_read),
        (made - hour, price.cache_creation),
        (hour, price.cache_creation if price.cache_creation_1h is None else price.cache_creation_1h),
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


def price_table(prices: Mapping[str, ModelPrice | Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Return which prices were used, in short, for a frame's ``attrs``.

    Parameters
    ----------
    prices : mapping or None
        Prices by name or pattern, typed or as a manifest holds them.

    Returns
    -------
    dict or None
        ``models``, how many names and patterns have a price; ``as_of``, the newest date of those that have one, and
        ``sources``. None without prices.

    Examples
    --------
    >>> price_table({"m": {"input": 1, "output": 2, "as_of": "2026-11-24"}})
    {'models': 1, 'as_of': '2026-11-24', 'sources': []}
    """
    if not prices:
        return None

    def of(name: str) -> list[str]:
        told = (one.get(name) if hasattr(one, "get") else getattr(one, name) for one in prices.values())
        return [one for one in told if isinstance(one, str)]

    return {
        "models": len(prices),
        "as_of": max(of("as_of"), default=None),
        "sources": list(dict.fromkeys(of("source"))),
    }
