"""The message soak: eight chat agents on the script gateway, and everybody killed at random.

``run(count, seed=…, kills=True)`` starts a cluster, lets three clients make messages (see soak_client), kills agents,
keeper, supervisor and clients as the seed says, brings back what was killed, and accounts for every message.
"""

# ruff: noqa: S311 - chance decides whom to kill, not who may enter

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from soak_client import NAMES
from soak_truth import Account, account

from orchestrator_lab import Cluster
from orchestrator_lab.errors import OrchestratorLabError
from orchestrator_lab.runtime import read_record

__all__ = ["Soak", "run"]

HERE = Path(__file__).resolve().parent
CLIENTS = 3
#: Who is killed, and how often in proportion.
VICTIMS = {"agent": 5, "supervisor": 3, "keeper": 2, "keeper and supervisor": 1, "client": 3}
SCRIPT = [{"reply": "{agent} has read it ({n})"}]


@dataclass(slots=True)
class Soak:
    """How a soak went."""

    seed: int
    seconds: float = 0.0
    account: Account = field(default_factory=Account)
    kills: Counter[str] = field(default_factory=Counter)
    #: (messages in the journal, seconds, bytes of the supervisor, bytes of the keeper, the supervisor's seconds of CPU)
    samples: list[tuple[int, float, int, int, float]] = field(default_factory=list)
    run_dir: Path = Path()


def topology() -> list[Any]:
    """Everybody may write to everybody, and gets the answer typed; the last one only to the one before."""
    *most, last = NAMES
    return [
        {"from": most, "to": list(NAMES), "replies": "forward"},
        {"from": last, "to": most[-1], "replies": "forward"},
    ]


def config(folder: Path) -> dict[str, Any]:
    for name in ("work", "runs"):
        (folder / name).mkdir()
    return {
        "cluster": {
            "name": f"soak{os.getpid()}",
            "work_dir": str(folder / "work"),
            "runs_dir": str(folder / "runs"),
            "gateway": {"mode": "script", "script": SCRIPT},
            "topology": topology(),
            # Each comes back as often as it is killed.
            "restart": {"policy": "always", "max_restarts": 100_000, "backoff_s": 0.1, "backoff_max_s": 1.0},
        },
        # The same work for the first message and for the last: a model is not sent a thousand turns.
        "agents": [{"name": name, "kind": "chat", "remember_turns": 20} for name in NAMES],
    }


class _Clients:
    """The clients' processes; one that was killed is replaced until its share is made."""

    def __init__(self, cluster: str, folder: Path, seed: int, share: int) -> None:
        self._cluster, self._folder, self._seed, self._share = cluster, folder, seed, share
        self._generation = Counter[int]()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.logs: list[Path] = []
        for lane in range(CLIENTS):
            self._start(lane)

    def _start(self, lane: int) -> None:
        made = sum(_made(path) for path in self.logs if path.name.startswith(f"client{lane}-"))
        if made >= self._share:
            return
        name = f"{lane}-{self._generation[lane]}"
        self._generation[lane] += 1
        self.logs.append(self._folder / f"client{name}.jsonl")
        self.logs[-1].touch()
        words = [self._cluster, str(self.logs[-1]), name, str(self._seed), str(self._share - made)]
        self._running[lane] = subprocess.Popen([sys.executable, str(HERE / "soak_client.py"), *words])

    def kill(self, chance: random.Random) -> bool:
        alive = sorted(lane for lane, process in self._running.items() if process.poll() is None)
        if alive:
            self._running[chance.choice(alive)].kill()
        return bool(alive)

    def tend(self) -> bool:
        """Replace who was killed; False when all have made their share."""
        for lane, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[lane]
                if process.returncode > 0:
                    raise AssertionError(f"client {lane} ended with status {process.returncode}")
                self._start(lane)
        return bool(self._running)

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


def _made(log: Path) -> int:
    """Return how many messages a client has made for certain."""
    made = 0
    weights = {"send": 1, "ask": 2, "broadcast": len(NAMES), "converse": 4, "forbidden": 1}
    ops: dict[str, str] = {}
    for line in log.read_bytes().split(b"\n")[:-1]:
        note = json.loads(line)
        if note["what"] == "done":
            return int(note["made"])
        if note["what"] == "intent":
            ops[note["tag"]] = note["op"]
        elif note["what"] == "ack":
            made += weights[ops[note["tag"]]]
    return made


def run(
    count: int,
    *,
    seed: int,
    kills: bool = True,
    every: tuple[int, int] = (30, 90),
    timeout_s: float = 3600.0,
    say: Any = print,
) -> Soak:
    """Run a soak of about `count` messages with a kill each `every` of them, and account for all."""
    say(f"soak of {count} messages, seed {seed}, {'with' if kills else 'without'} kills", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="s"))
    soak = Soak(seed)
    began = time.monotonic()
    deadline = began + timeout_s
    with Cluster.start(config(folder)) as cluster:
        soak.run_dir = cluster.run_dir
        began = time.monotonic()
        clients = _Clients(cluster.name, folder, seed, count // CLIENTS)
        stop = threading.Event()
        helpers = [threading.Thread(target=_sample, args=(cluster, soak, stop, began))]
        if kills:
            helpers.append(threading.Thread(target=_kill, args=(cluster, clients, soak, stop, every)))
        for helper in helpers:
            helper.start()
        try:
            while clients.tend():
                assert time.monotonic() < deadline, f"the clients are not done after {timeout_s:g} s"
                time.sleep(0.05)
        finally:
            stop.set()
            clients.end()
            for helper in helpers:
                helper.join()
        _settle(cluster, max(60.0, deadline - time.monotonic()))
        soak.seconds = time.monotonic() - began
        with contextlib.suppress(psutil.Error):  # one that was killed last may be coming back just now
            soak.samples.append(_measure(cluster, began))
    soak.account = account(soak.run_dir, clients.logs, NAMES)
    return soak


def _settle(cluster: Cluster, timeout_s: float) -> None:
    """Wait until everybody is back and nothing is on its way."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OrchestratorLabError):
            cluster.wait(timeout=min(10.0, timeout_s))
            if all(agent["state"] == "idle" for agent in cluster.status()["agents"]):
                return
        assert time.monotonic() < deadline, f"not settled after {timeout_s:g} s: {cluster.status()}"
        time.sleep(0.1)


def _kill(cluster: Cluster, clients: _Clients, soak: Soak, stop: threading.Event, every: tuple[int, int]) -> None:
    """Kill somebody each time that some more messages were queued: a slow machine has as many kills as a quick one."""
    chance = random.Random(soak.seed)
    folder = cluster.client.folder
    journal = (cluster.run_dir / "journal.jsonl").open("rb")
    seen, due = 0, chance.randint(*every)
    with journal:
        while not stop.wait(0.01):
            seen += journal.read().count(b'"event":"message.queued"')
            if seen >= due and not stop.wait(chance.uniform(0.0, 0.2)):
                due = seen + chance.randint(*every)
                victim = chance.choices(list(VICTIMS), weights=list(VICTIMS.values()))[0]
                soak.kills[victim] += _kill_one(victim, chance, folder, clients)


def _kill_one(victim: str, chance: random.Random, folder: Path, clients: _Clients) -> bool:
    """Kill one of a kind; False when there was none."""
    name = chance.choice(NAMES)
    if victim == "client":
        return clients.kill(chance)
    record = read_record(folder)
    if record is None:
        return False
    if victim == "agent":
        found = _agent_pids(record.tmux_pid).get(name)
        pids = [] if found is None else [found]
    else:
        pids = [pid for one in victim.split(" and ") if (pid := getattr(record, f"{one}_pid")) is not None]
    killed = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed = True
    return killed


def _agent_pids(tmux_pid: int | None) -> dict[str, int]:
    """Return the programs in the panes, by agent, without asking anybody who may be dead."""
    found: dict[str, int] = {}
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(tmux_pid).children():
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                if "--settings" in words:
                    found[Path(words[words.index("--settings") + 1]).parent.name] = child.pid
    return found


def _sample(cluster: Cluster, soak: Soak, stop: threading.Event, began: float) -> None:
    while not stop.wait(0.5):
        with contextlib.suppress(OrchestratorLabError, psutil.Error, TypeError):
            soak.samples.append(_measure(cluster, began))


def _measure(cluster: Cluster, began: float) -> tuple[int, float, int, int, float]:
    record = read_record(cluster.client.folder)
    assert record is not None
    supervisor, keeper = (psutil.Process(pid) for pid in (record.supervisor_pid, record.keeper_pid))
    used = supervisor.cpu_times()
    messages = int(cluster.status()["messages"])
    rss = supervisor.memory_info().rss, keeper.memory_info().rss
    return messages, time.monotonic() - began, *rss, used.user + used.system
