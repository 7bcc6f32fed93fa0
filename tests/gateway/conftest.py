"""Fixtures of the gateway's tests."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from gateway_helpers import running_gateway


@pytest.fixture
async def running() -> Any:
    async with running_gateway() as value:
        yield value


@pytest.fixture
async def client() -> Any:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as value:
        yield value
