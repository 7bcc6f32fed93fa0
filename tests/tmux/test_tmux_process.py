from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from orchestrator_lab.tmux.process import process_ending, process_started

#: Much memory takes a while to be given back; a process in its end has closed its files, or is about to.
_HOLD = "held = bytearray(b'x') * (300 << 20); print('full', flush=True); input()"


def _seen_in_its_end() -> bool:
    """Kill a process; return whether it was seen in its end before it was gone."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        assert not process_ending(process.pid)
        process.send_signal(signal.SIGKILL)
        while not process_ending(process.pid):
            pass
        seen = process_started(process.pid) is not None
    assert process_ending(process.pid)
    assert process_started(process.pid) is None
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_killed_process_is_in_its_end_before_it_is_gone() -> None:
    assert any(_seen_in_its_end() for _ in range(20))  # on a busy machine we may look too late
