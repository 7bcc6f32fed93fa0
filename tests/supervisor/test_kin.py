"""What agents start is ended with them, wherever it went; what cannot be proven theirs is never touched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from care_helpers import Fakes, lives, until

from orchestrator_lab.runtime import process_start_time
from orchestrator_lab.supervisor import lifecycle as lifecycle_module
from orchestrator_lab.supervisor.kin import MARK, Kin, find_kin, signal_kin, wait_for_kin
from orchestrator_lab.supervisor.lifecycle import Lifecycle
from orchestrator_lab.tmux.process import process_started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: A shell that starts children which go astray, each in its own way, and write their pids down once they are astray.
ASTRAY = """
import os, signal, subprocess, sys, time
place = sys.argv[1]
def start(how, code="", env=None, **options):
    code += "; import os, sys, time; open(sys.argv[1], 'a').write(f'{sys.argv[2]} {os.getpid()}\\\\n'); time.sleep(600)"
    words = [sys.executable, "-S", "-c", code.lstrip("; "), place, how]
    subprocess.Popen(words, stdin=subprocess.DEVNULL, env=env, **options)
start("child")
start("session", start_new_session=True)
start("stubborn", "import signal; signal.signal(15, 1); signal.signal(1, 1)")
start("bare", env={}, start_new_session=True)
if os.fork() == 0:  # a daemon: its parent is gone at once
    os.setsid()
    if os.fork() == 0:
        with open(place, "a") as file: file.write(f"daemon {os.getpid()}\\n")
        os.closerange(0, 100)
        time.sleep(600)
    os._exit(0)
os.wait()
print("> ", end="", flush=True)
for line in sys.stdin:
    print(f"heard {line.strip()}\\n> ", end="", flush=True)
"""
HOW = {"child", "session", "stubborn", "bare", "daemon"}


@pytest.fixture(scope="module")
def lab(module_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    del module_runtime
    fakes = Fakes(tmp_path_factory.mktemp("kin"))
    (fakes.place / "astray.py").write_text(ASTRAY)
    with fakes.cluster:
        yield fakes


@pytest.fixture
def bystander(lab: Fakes) -> Iterator[int]:
    """A process that looks like an agent's and is another's: same command, another mark."""
    code = "import time; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], env={**os.environ, MARK: "agt_somebody_else"})
    del lab
    yield process.pid
    assert process.poll() is None, "a process of somebody else was ended"
    process.kill()
    process.wait()


def astray(lab: Fakes, name: str, **keys: Any) -> dict[str, int]:
    """Add an agent whose children go astray; return their pids."""
    pids = lab.place / f"{name}.pids"
    command = [sys.executable, str(lab.place / "astray.py"), str(pids)]
    lab.cluster.add({"name": name, "kind": "program", "command": command, "turn_end": {"prompt": "> "}, **keys})
    until(lambda: pids.read_text().count("\n") == len(HOW))
    words = [line.split() for line in pids.read_text().splitlines()]
    found = {how: int(pid) for how, pid in words}
    assert set(found) == HOW
    assert all(lives(pid) for pid in found.values())
    return found


def left(lab: Fakes, name: str, action: str) -> set[int]:
    events = [one for one in lab.events(name, "agent.left") if one.attributes["action"] == action]
    return {one["pid"] for event in events for one in event.attributes["processes"]}


def test_a_stop_ends_all_that_the_program_started(lab: Fakes, bystander: int) -> None:
    children = astray(lab, "ada")
    lab.cluster["ada"].stop()
    assert not any(lives(pid) for pid in children.values())
    assert lives(bystander)
    told = left(lab, "ada", "ended")
    # What ends with its terminal needs no more; what does not is told.
    assert {children[how] for how in ("session", "stubborn", "bare", "daemon")} <= told <= set(children.values())
    assert left(lab, "ada", "survived") == set()


def test_what_a_killed_program_leaves_is_told_and_ended_with_the_agent(lab: Fakes, bystander: int) -> None:
    children = astray(lab, "eve")
    lab.kill("eve")
    until(lambda: lab.events("eve", "agent.left"))
    kept = left(lab, "eve", "kept")
    assert {children["session"], children["daemon"]} <= kept
    kept -= {children["child"]}  # which may be about to end with its terminal
    assert all(lives(pid) for pid in kept)
    lab.cluster.remove("eve")
    assert not any(lives(pid) for pid in kept)
    assert lives(bystander)
    # With an empty environment and without a parent nothing proves it to be the agent's: it is left alone.
    with contextlib.suppress(ProcessLookupError):
        os.kill(children["bare"], signal.SIGKILL)


def test_what_is_left_is_ended_before_the_program_starts_again(lab: Fakes) -> None:
    children = astray(lab, "bob", restart={"policy": "on-failure", "backoff_s": 0.2})
    lab.kill("bob")
    lab.restarted("bob", 1)
    marked = {how: pid for how, pid in children.items() if how != "bare"}
    assert not any(lives(pid) for pid in marked.values())
    ended = lab.events("bob", "agent.left")[0]
    assert ended.attributes["action"] == "ended"
    assert ended.seq < lab.starts("bob")[-1].seq
    assert left(lab, "bob", "kept") == set()
    os.kill(children["bare"], signal.SIGKILL)


def test_a_shutdown_ends_what_a_dead_program_left(runtime: Path, tmp_path: Path) -> None:
    del runtime
    lab = Fakes(tmp_path)
    (tmp_path / "astray.py").write_text(ASTRAY)
    children = astray(lab, "ada")
    lab.kill("ada")
    until(lambda: lab.events("ada", "agent.left"))
    lab.cluster.shutdown()
    assert not any(lives(pid) for how, pid in children.items() if how != "bare")
    os.kill(children["bare"], signal.SIGKILL)


# finding and signalling ---------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[Callable[..., int]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **environ: str) -> int:
        command = [sys.executable, "-S", "-c", "import time; time.sleep(600)", *words]
        started.append(subprocess.Popen(command, env={**os.environ, **environ}))
        pid = started[-1].pid
        until(lambda: find_kin({environ.get(MARK, "-"): None}))
        return pid

    yield start
    for one in started:
        one.kill()
        one.wait()


def pids(kin: list[Kin]) -> set[int]:
    return {one.pid for one in kin}


def test_processes_are_found_by_their_mark_and_by_descent(sleeper: Callable[..., int]) -> None:
    mine, other, none = sleeper(**{MARK: "agt_mine"}), sleeper(**{MARK: "agt_other"}), sleeper()
    # The kernel shows a new program's environment a moment after it began.
    until(lambda: [pids(one) for one in find_kin({"agt_mine": None, "agt_other": None}).values()] == [{mine}, {other}])
    found = find_kin({"agt_mine": mine, "agt_other": None})
    assert pids(found["agt_mine"]) == set(), "the program in the pane is no child of itself"
    assert pids(found["agt_other"]) == {other}
    assert none not in pids([one for kin in found.values() for one in kin])


def test_a_cluster_that_an_agent_started_is_not_its_kin(sleeper: Callable[..., int]) -> None:
    keeper = sleeper("-m", "orchestrator_lab.keeper", "/tmp/x", **{MARK: "agt_mine"})
    plain = sleeper(**{MARK: "agt_mine"})
    until(lambda: pids(find_kin({"agt_mine": None})["agt_mine"]) == {plain})
    assert lives(keeper)


def test_a_process_is_signalled_only_while_it_is_the_one_that_was_meant(sleeper: Callable[..., int]) -> None:
    pid = sleeper()
    signal_kin([Kin(pid, "1", "another process with this pid")], signal.SIGKILL)
    signal_kin([Kin(999_999_999, "1", "nobody")], signal.SIGKILL)
    assert lives(pid)
    kin = Kin(pid, str(process_started(pid)), "sleeper")
    assert kin.lives
    begun = time.monotonic()
    assert wait_for_kin([kin], 0.1) == [kin]
    assert time.monotonic() - begun > 0.09
    signal_kin([kin], signal.SIGKILL)
    assert wait_for_kin([kin], 30.0) == []
    assert process_start_time(pid) is None


def test_what_does_not_end_is_told(sleeper: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    pid = sleeper(**{MARK: "agt_mine"})
    until(lambda: pids(find_kin({"agt_mine": None})["agt_mine"]) == {pid})
    told: list[tuple[str, str, list[Any]]] = []

    def append(event: str, *, level: str, action: str, processes: list[Any], **_: Any) -> None:
        told.append((event, f"{level} {action}", [one["pid"] for one in processes]))

    monkeypatch.setattr(lifecycle_module, "signal_kin", lambda *_: None)
    for name in ("_CHILDREN_END_S", "_CHILD_TERM_S", "_CHILD_KILL_S"):
        monkeypatch.setattr(lifecycle_module, name, 0.01)
    cluster: Any = SimpleNamespace(journal=SimpleNamespace(append=append))
    runner: Any = SimpleNamespace(name="ada", agent_id="agt_mine")
    asyncio.run(Lifecycle(cluster).end_left([runner]))
    assert told == [("agent.left", "warning ended", [pid]), ("agent.left", "error survived", [pid])]
