"""A dashboard and a cluster of chat agents, both shared by the tests of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from web_helpers import Door, served

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def door(module_runtime: Path) -> Iterator[Door]:
    del module_runtime
    with served() as one:
        yield one


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:
    del module_runtime
    rules = [
        {"when": {"contains": "slowly"}, "delay_s": 60, "reply": "at last"},
        {"reply": "{agent}: {text}"},
    ]
    with Cluster.start(script_config("ada", "bob", script=rules)) as made:
        yield made
