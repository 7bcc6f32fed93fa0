"""The price table that comes with the package: dated, with its sources, and used only where somebody asks for it."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from orchestrator_lab.config._care import ModelPrice

__all__ = ["DATED", "dated_prices"]

#: The word that stands for the table.
DATED = "dated"
_FILE = Path(__file__).with_name("prices.toml")


@cache
def dated_prices() -> dict[str, ModelPrice]:
    """Return the prices that come with the package, each with the date and the address where it was read.

    Returns
    -------
    dict of str to ModelPrice
        By name or pattern of models. Not to be changed.

    Examples
    --------
    >>> price = dated_prices()["claude-haiku-4-5"]
    >>> price.input, price.output, price.source
    (1.0, 5.0, 'https://platform.claude.com/docs/en/about-claude/pricing')
    """
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    prices: dict[str, ModelPrice] = {}
    for source in table["source"]:
        for row in source["models"]:
            rates = {key: value for key, value in row.items() if key not in {"name", "dated"}}
            price = ModelPrice(**rates, as_of=table["as_of"], source=source["url"])
            prices |= {row[key]: price for key in ("name", "dated") if key in row}
    return prices
