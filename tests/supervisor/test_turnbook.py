"""What the end of a turn is learnt from, where two look at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from orchestrator_lab.supervisor.turnbook import TurnBook


async def test_a_prompt_that_was_given_back_is_cleared_once() -> None:
    """A person's interrupt and the pane's quiet both lead to a look: a second key in an empty line ends the program."""
    line, pressed, turn = ["the prompt"], [], SimpleNamespace(prompt="the prompt", prompt_id=None, began_at=0.0)
    turn.message_ids = ["msg"]

    async def screen(*_: Any, **__: Any) -> str:
        await asyncio.sleep(0.01)
        return line[0]

    async def run(press: Any, *_: Any) -> None:
        await asyncio.sleep(0.01)
        press()

    def press(*_: Any) -> None:
        pressed.append(line[0])
        line[0] = ""

    adapter = SimpleNamespace(
        clear_key="C-c",
        transcript=lambda *_, **__: [],
        restored=lambda shown, text: shown == text,
        composer=lambda shown, _: "empty" if not shown else "other",
    )
    supervisor = SimpleNamespace(
        screen=screen,
        ledger={"msg": SimpleNamespace(claimed_at=1.0)},
        driver=SimpleNamespace(press=press),
        tmux=SimpleNamespace(run=run),
    )
    runner: Any = SimpleNamespace(
        turn=turn, transcript="record", pane_id="%1", delivering=None, adapter=adapter, supervisor=supervisor
    )
    runner.apply = lambda _: setattr(runner, "turn", None)
    book = TurnBook(runner)
    assert await asyncio.gather(*(book.reconcile() for _ in range(3))) == [True] * 3
    assert pressed == ["the prompt"]
