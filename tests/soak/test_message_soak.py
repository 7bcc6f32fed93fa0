"""Three hundred messages while everybody is killed at random; ``make soak`` does the same with ten thousand."""

from __future__ import annotations

import os
import time

import pytest
import soak_messages


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("runtime")
def test_every_message_is_accounted_for_while_everybody_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() % 100_000)
    with capsys.disabled():
        soak = soak_messages.run(300, seed=seed, every=(15, 35), timeout_s=170)
    assert not soak.account.problems, f"seed {seed}: {soak.account.problems[:5]}"
    assert soak.account.messages >= 250
    assert sum(soak.kills.values()) >= 3, "nobody was killed"
    assert soak.account.rungs["answered"] > 200, soak.account.rungs
