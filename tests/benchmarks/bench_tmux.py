"""The tmux driver against libtmux, on the same panes in the same run.

    python tests/benchmarks/bench_tmux.py [--quick] [--json FILE]

Every row compares one thing a user wants with what libtmux (which forks a tmux process for each command) offers for
it. Single commands run on a server with 20 panes, the rest on one with 100. The exit rows compare with asking
libtmux every 250 ms, the usual way to notice that a program has died.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import libtmux

sys.path.insert(0, str(Path(__file__).parent))

from _stats import Ratio, compare, interleave, report

from orchestrator_lab.tmux import PaneExit, TmuxDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT = "エージェント hello; 'quoted' \\ 日本 "


def wait_until(condition: Callable[[], bool], seconds: float = 30.0, pause: float = 0.0) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError
        time.sleep(pause)


class Bench:
    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.quick = quick
        self.folder = folder
        self.few, self.many = 20, 100
        self.driver = TmuxDriver.start(folder / "tmux.sock", session="bench", cols=200, rows=50)
        script = f"for i in $(seq 1 48); do echo '{TEXT}line' $i; done; stty -echo; exec cat > /dev/null"
        self.argv = ["sh", "-c", script]
        self.ids: list[str] = []
        self.fill(self.few)
        self.theirs = libtmux.Server(socket_path=str(folder / "tmux.sock"))
        self.their_pane = self.theirs.panes.get(pane_id=self.ids[0])

    def fill(self, count: int) -> None:
        """Bring the server to so many panes: each costs tmux a little of every command."""
        for i in range(len(self.ids), count):
            self.ids.append(self.driver.create_pane(f"p{i}", self.argv, cwd=self.folder).pane_id)
        time.sleep(1)

    def rounds(self, full: int) -> int:
        return max(5, full // 8) if self.quick else full

    def pair(
        self,
        name: str,
        theirs: Callable[[], object],
        ours: Callable[[], object],
        *,
        rounds: int,
        target: float | None,
        repeat: int = 1,
        note: str = "",
    ) -> Ratio:
        times = interleave({"theirs": theirs, "ours": ours}, rounds=self.rounds(rounds), repeat={"ours": repeat})
        return compare(name, times["theirs"], times["ours"], target=target, note=note)

    # -- single commands

    def single(self) -> Iterator[Ratio]:
        driver, pane, first = self.driver, self.their_pane, self.ids[0]
        their_cmd, our_cmd = pane.cmd, driver.server.cmd
        yield self.pair(
            "send keys",
            lambda: pane.send_keys("hello", enter=False),
            lambda: driver.run("send-keys", "-t", first, "-l", "hello"),
            rounds=120,
            repeat=5,
            target=20,
        )
        yield self.pair(
            "send a text and Enter",
            lambda: pane.send_keys("hello", enter=True),
            lambda: (driver.paste(first, "hello"), driver.enter(first)),
            rounds=80,
            repeat=5,
            target=None,
            note="ours: set-buffer, paste-buffer twice",
        )
        yield self.pair(
            "capture one pane (50 rows)",
            pane.capture_pane,
            lambda: driver.capture(first),
            rounds=120,
            repeat=5,
            target=12,
        )
        yield self.pair(
            "capture through libtmux's own object",
            pane.capture_pane,
            driver.pane(first).capture_pane,
            rounds=80,
            repeat=5,
            target=5,
        )
        yield self.pair(
            "one question (display-message)",
            lambda: their_cmd("display-message", "-p", "#{pane_pid}"),
            lambda: our_cmd("display-message", "-p", "-t", first, "#{pane_pid}"),
            rounds=120,
            repeat=5,
            target=18,
        )

    # -- all panes

    def all_panes(self) -> Iterator[Ratio]:
        self.fill(self.many)
        driver, ids = self.driver, self.ids
        panes = list(self.theirs.panes)
        yield self.pair(
            f"capture all {self.many} panes",
            lambda: [pane.capture_pane() for pane in panes],
            lambda: driver.captures(ids),
            rounds=24,
            target=40,
            repeat=2,
        )
        yield self.pair(
            f"state of all {self.many} panes: life and status",
            lambda: self.theirs.panes,
            driver.pulses,
            rounds=80,
            target=25,
            repeat=3,
        )
        yield self.pair(
            f"state of all {self.many} panes: every PaneInfo field",
            lambda: self.theirs.panes,
            driver.panes,
            rounds=80,
            target=12,
            repeat=3,
        )
        count = 200
        commands = [["display-message", "-p", "-t", ids[i % self.many], "#{pane_pid}"] for i in range(count)]

        def forked() -> float:
            started = time.perf_counter()
            for command in commands[:10]:
                self.theirs.cmd(*command)
            return (time.perf_counter() - started) / 10

        def pipelined() -> float:
            started = time.perf_counter()
            driver.batch(commands)
            return (time.perf_counter() - started) / count

        yield self.pair(f"one of {count} pipelined commands", forked, pipelined, rounds=60, target=80)

    # -- echo and size

    def echo(self) -> Iterator[Ratio]:
        driver = self.driver
        # cat echoes at once: the best case for whoever polls
        pane_id = driver.create_pane("echo", ["cat"], cwd=self.folder).pane_id
        pane = self.theirs.panes.get(pane_id=pane_id)
        numbers = iter(range(1_000_000))

        def theirs() -> float:
            mark = f"mark{next(numbers)}"
            started = time.perf_counter()
            pane.send_keys(mark, enter=False)
            while not any(mark in line for line in pane.capture_pane()):
                pass
            seen = time.perf_counter() - started
            driver.press(pane_id, "C-u")
            return seen

        def ours() -> float:
            mark = f"mark{next(numbers)}"
            started = time.perf_counter()
            driver.paste(pane_id, mark)
            while mark not in driver.capture(pane_id):
                pass
            seen = time.perf_counter() - started
            driver.press(pane_id, "C-u")
            return seen

        yield self.pair("prompt typed -> echo seen", theirs, ours, rounds=80, target=10)
        driver.kill_pane(pane_id)

    def big(self) -> Iterator[Ratio]:
        driver = self.driver
        out = self.folder / "got"
        pane_id = driver.create_pane("big", ["sh", "-c", f"stty raw -echo; exec cat > {out}"], cwd=self.folder).pane_id
        wait_until(lambda: out.exists() and not driver.terminal_modes(pane_id).canonical)
        pane = self.theirs.panes.get(pane_id=pane_id)
        text = (TEXT * 3000)[:64_000]
        data = text.encode()
        got = [0]

        def arrived(size: int) -> None:
            wait_until(lambda: out.stat().st_size >= got[0] + size)
            got[0] += size

        def theirs() -> None:
            # libtmux loses more than 16 KB in silence: the largest pieces that it does deliver
            for start in range(0, len(text), 5_000):
                pane.send_keys(text[start : start + 5_000], enter=False, literal=True)
            arrived(len(data))

        def ours() -> None:
            driver.paste(pane_id, text)
            arrived(len(data))

        ratio = self.pair("64 000 characters typed, all arrived", theirs, ours, rounds=24, target=None)
        exact = out.read_bytes().endswith(data) and out.stat().st_size % len(data) == 0
        yield Ratio(
            *(getattr(ratio, f) for f in ("name", "baseline_s", "ours_s", "ratio", "low", "high", "rounds", "target")),
            note=f"byte-exact: {exact}; goal 10 ms; libtmux in pieces of 5 000",
        )
        driver.kill_pane(pane_id)

    # -- exits

    def exits(self) -> Iterator[Ratio]:
        driver = self.driver
        told: dict[int, tuple[float, PaneExit]] = {}
        changed = threading.Condition()

        def callback(exit_: PaneExit) -> None:
            with changed:
                told[exit_.pid] = (time.perf_counter(), exit_)
                changed.notify_all()

        driver.watch_exits(callback)
        victim = driver.create_pane("victim", ["sleep", "1000"], cwd=self.folder)
        pane = self.theirs.panes.get(pane_id=victim.pane_id)
        ours: list[float] = []
        theirs: list[float] = []
        missed = 0
        rounds = 12 if self.quick else 60
        for turn in range(rounds):
            info = driver.respawn(victim.pane_id, ["sleep", "1000"], cwd=self.folder)
            time.sleep(0.03)
            # the poller is somewhere within its period when the program dies
            phase = 0.25 * ((turn * 0.618) % 1)
            killed = time.perf_counter()
            os.kill(info.pid, signal.SIGKILL)
            with changed:
                changed.wait_for(lambda pid=info.pid: pid in told, timeout=30)
            if info.pid not in told or told[info.pid][1].signal != signal.SIGKILL:
                missed += 1
            else:
                ours.append(told[info.pid][0] - killed)
            time.sleep(max(0.0, phase - (time.perf_counter() - killed)))
            while True:
                pane.refresh()
                if pane.pane_dead == "1":
                    break
                time.sleep(0.25)
            theirs.append(time.perf_counter() - killed)
        spent = sorted(ours)
        note = f"with status; missed {missed} of {rounds}; p95 {spent[int(len(spent) * 0.95)] * 1e3:.1f} ms; goal 10 ms"
        yield compare("exit told (against polling every 250 ms)", theirs, ours, target=None, note=note)
        driver.kill_pane(victim.pane_id)

    def exits_at_once(self) -> None:
        driver = self.driver
        told: list[tuple[float, PaneExit]] = []
        driver.watch_exits(lambda exit_: told.append((time.perf_counter(), exit_)))
        victims = [driver.create_pane(f"v{i}", ["sleep", "1000"], cwd=self.folder) for i in range(50)]
        killed = time.perf_counter()
        for victim in victims:
            os.kill(victim.pid, signal.SIGTERM)
        wait_until(lambda: len(told) >= 50, pause=0.001)
        right = sum(exit_.signal == signal.SIGTERM for _, exit_ in told)
        last = max(at for at, _ in told) - killed
        print(f"50 programs killed at once: {right} of 50 told with their signal, the last after {last * 1e3:.0f} ms")
        for victim in victims:
            driver.kill_pane(victim.pane_id)

    def close(self) -> None:
        self.driver.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="olab-bench-") as folder:
        bench = Bench(Path(folder), quick=options.quick)
        try:
            parts = (bench.single, bench.echo, bench.big, bench.all_panes, bench.exits)
            ratios = [ratio for part in parts for ratio in part()]
            bench.exits_at_once()
            versions = {"tmux": bench.driver.version, "libtmux": libtmux.__about__.__version__}
        finally:
            bench.close()
    report(ratios, versions=versions, json_path=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
