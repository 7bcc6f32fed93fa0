"""What a person presses is journalled first, and reaches no program that has ended meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator_lab.errors import ClusterStopped
from orchestrator_lab.supervisor.hands import Hands
from orchestrator_lab.supervisor.lifecycle import Lifecycle


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("what", ["type", "interrupt"])
def test_a_key_comes_after_the_journal_and_only_to_its_program(what: str, ends: bool) -> None:
    done: list[str] = []
    runner = SimpleNamespace(
        name="ada", running=True, pane_id="%1", pid=7, turn=None, adapter=SimpleNamespace(interrupt_key="C-c")
    )

    async def asynced() -> None:
        done.append("synced")
        if ends:
            runner.pid = 8  # another program is in the pane by now

    async def run(function: str, *_: Any, **__: Any) -> None:
        done.append(function)

    cluster: Any = SimpleNamespace(
        runner=lambda _: runner,
        journal=SimpleNamespace(append=lambda *_, **__: done.append("journalled"), asynced=asynced),
        tmux=SimpleNamespace(run=run),
        driver=SimpleNamespace(paste="pressed", press="pressed"),
    )

    async def act() -> None:
        await (Hands(cluster).type("ada", "x") if what == "type" else Lifecycle(cluster).interrupt("ada"))

    if ends:
        with pytest.raises(ClusterStopped, match="has just ended"):
            asyncio.run(act())
    else:
        asyncio.run(act())
    assert done == ["journalled", "synced", *([] if ends else ["pressed"])]
