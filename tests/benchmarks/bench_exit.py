"""From kill -9 of an agent to the journalled event with its signal, against a look at the pane each second.

    python tests/benchmarks/bench_exit.py [--quick] [--json FILE]

Both sides kill a program at an instant that no clock knows. The baseline asks tmux once a second whether the pane is
dead and how. The lab's time is that of the event itself, ``agent.exited``, as the journal has it; each agent is started
again by its supervision, which is timed too, without the pause that the policy asks for.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, cluster_config, main, relative, shuffled

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_POLL_S = 1.0
_BACKOFF_S = 0.05
_PROGRAM = "import sys; print('> ', end='', flush=True); [print('> ', end='', flush=True) for _ in sys.stdin]"


class Poller:
    """Looks at a plain tmux pane once a second, from a thread of its own, and remembers when it saw what."""

    def __init__(self, tmux: list[str], command: list[str]) -> None:
        self._tmux, self._command = tmux, command
        self.seen = threading.Event()
        self.at, self.status = 0.0, ""
        self._over = threading.Event()
        self._ask("new-session", "-d", "-s", "poll", *command, ";", "set", "-g", "remain-on-exit", "on")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _ask(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True).stdout.strip()

    def _run(self) -> None:
        while not self._over.wait(_POLL_S):
            told = self._ask("list-panes", "-F", "#{pane_dead} #{pane_dead_status} #{pane_dead_signal}")
            if told.startswith("1") and not self.seen.is_set():
                self.at, self.status = time.time(), told
                self.seen.set()

    def kill(self) -> float:
        """Kill the program; return the seconds until it was seen."""
        pid = int(self._ask("list-panes", "-F", "#{pane_pid}"))
        self.seen.clear()
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        assert self.seen.wait(30)
        self._ask("respawn-pane", "-k", *self._command)
        return self.at - killed

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        subprocess.run([*self._tmux, "kill-server"], check=False)


def instant(event: Any) -> float:
    return datetime.fromisoformat(event.at).timestamp()


def killed(cluster: Cluster, turn: int) -> tuple[float, float]:
    """Kill an agent; return the seconds to its event, and from there to its next start, less the pause."""
    facts = cluster["ada"].facts
    at = time.time()
    os.kill(facts["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while len(started := [one for one in cluster.events() if one.event == "agent.started"]) < turn + 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    exited = [one for one in cluster.events() if one.event == "agent.exited"][-1]
    planned = [one for one in cluster.events() if one.event == "agent.restarting"][-1]
    assert exited.attributes["signal"] == signal.SIGKILL
    again = instant(started[-1]) - instant(exited) - planned.attributes["delay_s"]
    while not cluster["ada"].facts["ready"]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return instant(exited) - at, again


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    command = [sys.executable, "-S", "-c", _PROGRAM]
    restart = {"policy": "always", "backoff_s": _BACKOFF_S, "backoff_max_s": _BACKOFF_S, "max_restarts": 1000}
    agent = {"name": "ada", "kind": "program", "command": command, "turn_end": {"prompt": "> "}, "restart": restart}
    poller = Poller(["tmux", "-S", str(place / "poll.sock"), "-f", "/dev/null", "-u"], command)
    times: dict[str, list[float]] = {"poll": [], "lab": []}
    again: list[float] = []
    pause = random.Random(5)  # noqa: S311 - an instant, not a secret
    try:
        with Cluster.start(cluster_config(place, "exits", [agent])) as cluster:
            for turn, side in shuffled(list(times), 10 if args.quick else 80):
                time.sleep(pause.uniform(0.0, 0.4))
                if side == "poll":
                    times[side].append(poller.kill())
                else:
                    seconds, restarted = killed(cluster, turn)
                    times[side].append(seconds)
                    again.append(restarted)
    finally:
        poller.close()
    yield relative("kill -9 to the event with its signal, median", times["poll"], times["lab"], times_faster=20)
    worst = {side: [max(found)] for side, found in times.items()}
    yield relative("kill -9 to the event with its signal, worst", worst["poll"], worst["lab"])
    again.sort()
    note = f"worst {again[-1] * 1000:.0f} ms; the policy's pause is left out"
    yield Figure("from the event to the next start", None, again[len(again) // 2], rounds=len(again), note=note)


if __name__ == "__main__":
    main("From kill -9 of an agent to its event", bench)
