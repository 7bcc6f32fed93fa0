"""What a turn costs: prices that fit, classes of tokens, and what is not known."""

from __future__ import annotations

import math
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.agents.base import Usage
from orchestrator_lab.config import ModelPrice, dated_prices, json_schema, load_config, to_dict
from orchestrator_lab.costs import Spent, cost_of, price_of
from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RATES = st.floats(0, 1000, allow_nan=False)
COUNTS = st.integers(0, 10**9)
PRICES = st.builds(
    ModelPrice, input=RATES, output=RATES, cache_read=st.none() | RATES, cache_creation=st.none() | RATES
)


@given(price=PRICES, plain=COUNTS, output=COUNTS, read=st.none() | COUNTS, made=st.none() | COUNTS)
def test_each_class_at_its_price_or_nothing(
    price: ModelPrice, plain: int, output: int, read: int | None, made: int | None
) -> None:
    cost = cost_of(Usage(plain + (read or 0) + (made or 0), output, read, made, "m"), {"m": price})
    if (read and price.cache_read is None) or (made and price.cache_creation is None):
        assert cost is None
        return
    rates = (price.input, price.output, price.cache_read or 0, price.cache_creation or 0)
    exact = sum(
        (Fraction(rate) * (tokens or 0) for rate, tokens in zip(rates, (plain, output, read, made), strict=True)),
        Fraction(0),
    )
    assert cost == pytest.approx(float(exact / 10**6), rel=1e-12, abs=1e-12)


@given(
    figures=st.tuples(*[st.none() | st.integers()] * 4),
    model=st.none() | st.text(),
    prices=st.dictionaries(st.text(min_size=1, alphabet="ab*?[]!-"), PRICES),
)
def test_any_report_gives_a_figure_that_a_journal_holds_or_none(
    figures: tuple[int | None, ...], model: str | None, prices: Mapping[str, ModelPrice]
) -> None:
    cost = cost_of(Usage(*figures, model=model), prices)
    assert cost is None or (math.isfinite(cost) and cost >= 0)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(1, 1),
        Usage(1, 1, model="unknown"),
        Usage(None, 1, model="m"),
        Usage(1, None, model="m"),
        Usage(1, 1, 2, model="m"),
        Usage(-1, 1, model="m"),
        Usage(10**400, 1, model="m"),
        Usage(1, 1, model="m", whole=False),
    ],
)
def test_what_is_not_known_is_not_estimated(usage: Usage) -> None:
    price = ModelPrice(input=1, output=1, cache_read=1, cache_creation=1)
    assert cost_of(usage, {"m": price}) is None


def test_the_most_specific_price_wins() -> None:
    prices = {
        name: ModelPrice(input=place, output=0)
        for place, name in enumerate(("*", "m-4-*", "m-*", "m-4-[1]", "m-[4-1]"))
    }

    def found(model: str) -> float | None:
        price = price_of(model, prices)
        return None if price is None else price.input

    assert [found(model) for model in ("x", "m-3", "m-4-2", "m-4-1", "m-[4-1]", "M-4-2")] == [0, 2, 1, 3, 4, 0]
    del prices["*"]
    assert found("x") is None


def test_an_hour_in_the_cache_has_its_own_price() -> None:
    price = ModelPrice(input=1, output=1, cache_creation=10, cache_creation_1h=100)
    usage = Spent(1_000_000, 0, None, 1_000_000, cache_creation_1h_input_tokens=250_000, model="m")
    assert cost_of(usage, {"m": price}) == 0.75 * 10 + 0.25 * 100
    assert cost_of(usage, {"m": price.model_copy(update={"cache_creation_1h": None})}) == 10


def test_requests_that_are_longer_than_the_price_is_for() -> None:
    price = {"m": ModelPrice(input=1, output=1, max_input=200_000)}
    assert cost_of(Spent(300_000, 1, model="m"), price) is None  # perhaps one request, perhaps many
    assert cost_of(Spent(300_000, 1, largest_input=150_000, model="m"), price) is not None
    assert cost_of(Spent(300_000, 1, largest_input=250_000, model="m"), price) is None


def test_the_dated_table_is_dated_and_has_its_sources() -> None:
    table = dated_prices()
    for price in table.values():
        assert date.fromisoformat(price.as_of or "") <= date(2026, 11, 24)
        assert (price.source or "").startswith("https://")
    assert price_of("claude-opus-4-20250514", table) == table["claude-opus-4-0"]
    assert price_of("claude-opus-4-5-20251101", table) == table["claude-opus-4-5"]
    assert price_of("claude-opus-5-5", table) != table["claude-opus-5"]
    for unknown in ("claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-9", "gpt-9", "script", "claude-opus-4-9"):
        assert price_of(unknown, table) is None


def test_a_configuration_asks_for_it_by_name(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    text = "cluster: {name: a, prices: dated}\nagents: [{name: b, kind: chat}]\n"
    file.write_text(text)
    config = load_config(file)
    assert config.prices == dated_prices()
    shown = to_dict(config)["cluster"]["prices"]["claude-haiku-4-5"]
    assert (shown["output"], shown["as_of"]) == (5, "2026-11-24")
    assert shown["source"].startswith("https://platform.claude.com/")
    jsonschema.validate(yaml.safe_load(text), json_schema())
    file.write_text(text.replace("dated", "newest"))
    with pytest.raises(ConfigError, match="'newest' is no price table; write 'dated'"):
        load_config(file)
