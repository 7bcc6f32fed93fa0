from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab import runtime
from orchestrator_lab.journal.recording import read_cast, to_cast
from orchestrator_lab.keeper.mask import Mask
from orchestrator_lab.keeper.modes import ModeTracker
from orchestrator_lab.keeper.supervise import restart_delay

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

STANDIN = str(Path(__file__).parent / "standin_supervisor.py")
TMUX = shutil.which("tmux")


def until(condition: Callable[[], Any], timeout: float = 30.0, what: str = "the condition") -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"{what} did not come true within {timeout} s")


class Lab:
    """A real keeper with a stand-in supervisor, and a real tmux server where one is asked for."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kp", dir="/tmp"))
        # An orderly end takes the runtime folder away; what a run keeps lies elsewhere.
        self.run = Path(tempfile.mkdtemp(prefix="kr", dir="/tmp"))
        runtime.private_dir(self.folder / "logs")
        self.keeper = runtime.keeper_argv(self.folder)[:-1]
        self.standin = [sys.executable, STANDIN]
        self.processes: list[subprocess.Popen] = []
        self.tmux_pid: int | None = None

    def write_record(self, **fields: Any) -> None:
        # Our own pid stands for a living tmux server unless a test says otherwise.
        fields = {"tmux_pid": os.getpid(), **fields}
        record = runtime.ClusterRecord(name="lab", run_dir=str(self.run), run_id="run_1", **fields)
        runtime.write_record(self.folder, record)

    def spawn(self) -> subprocess.Popen:
        argv = [*self.keeper, str(self.folder), "--supervisor-cmd", json.dumps(self.standin)]
        with (self.run / "keeper.log").open("ab") as log:
            process = subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def start(self, **fields: Any) -> subprocess.Popen:
        self.write_record(**fields)
        process = self.spawn()
        until(lambda: self.record.supervisor_pid, what="a supervisor")
        assert self.ask("state")["restart"] == 0
        return process

    @property
    def record(self) -> runtime.ClusterRecord:
        found = runtime.read_record(self.folder)
        assert found is not None
        return found

    @property
    def log(self) -> str:
        return (self.run / "keeper.log").read_text()

    def connect(self, name: str = "api.sock") -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(str(self.folder / name))
        return connection

    def ask(self, command: str, connection: socket.socket | None = None) -> Any:
        with connection or self.connect() as open_connection:
            open_connection.sendall(command.encode() + b"\n")
            return json.loads(open_connection.makefile().readline())

    def tell(self, **message: Any) -> None:
        assert self.ask("keeper " + json.dumps(message)) == "ok"

    def said(self, op: str) -> list[dict]:
        return [message for message in self.ask("said") if message["op"] == op]

    def status(self) -> dict:
        with self.connect("keeper.sock") as connection:
            connection.sendall(b'{"op":"status"}\n')
            return json.loads(connection.makefile().readline())

    def kill_supervisor(self) -> int:
        pid, start = self.record.supervisor_pid, self.record.supervisor_start
        os.kill(pid, signal.SIGKILL)
        until(lambda: not runtime.process_alive(pid, start))
        return pid

    def subscribe(self, agents: list[str] | None = None) -> socket.socket:
        connection = self.connect("keeper.sock")
        connection.sendall(json.dumps({"op": "subscribe", "agents": agents}).encode() + b"\n")
        return connection

    # tmux

    def tmux(self, *arguments: str) -> str:
        argv = [TMUX, "-u", "-S", str(self.folder / "tmux.sock"), "-f", "/dev/null", *arguments]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def pane(self, agent: str, program: str, *, record: bool = True) -> tuple[str, Path]:
        """Run a Python program in a raw pane that waits for its ``go`` file; hand its output over."""
        go = self.folder / f"{agent}.go"
        script = self.folder / f"{agent}.py"
        script.write_text(
            "import os, sys, time, tty\n"
            "tty.setraw(1)\n"
            f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
            "def put(data):\n"
            "    while data: data = data[os.write(1, data):]\n" + program
        )
        command = f"exec {shlex.join([sys.executable, str(script)])}"
        if self.tmux_pid is None:
            self.tmux("new-session", "-d", "-x", "100", "-y", "30", "-s", "lab", "sleep 3600")
            self.tmux("set-option", "-g", "remain-on-exit", "on")
            self.tmux_pid = int(self.tmux("display-message", "-p", "#{pid}"))
        pane = self.tmux("new-window", "-d", "-P", "-F", "#{pane_id}", command)
        path = self.run / f"{agent}.cast.zst"
        if record:
            self.record_pane(agent, pane, path)
        self.pipe(agent, pane)
        return pane, go

    def record_pane(self, agent: str, pane: str, path: Path, **more: Any) -> None:
        known = len(self.said("recording"))
        self.tell(op="record", agent=agent, pane=pane, cols=100, rows=30, path=str(path), **more)
        until(lambda: self.said("recording")[known:], what=f"the recording of {agent}")

    def pipe(self, agent: str, pane: str) -> None:
        self.tmux("pipe-pane", "-t", pane, shlex.join(runtime.handoff_argv(self.folder, agent)))
        until(lambda: self.described(agent)["open"], what=f"the pane of {agent}")

    def hand_over(self, agent: str, descriptor: int) -> None:
        with self.connect("keeper.sock") as connection:
            header = json.dumps({"op": "pane", "agent": agent}).encode() + b"\n"
            socket.send_fds(connection, [header], [descriptor])
            assert connection.recv(1) == b"+"

    def described(self, agent: str) -> dict:
        found = {pane["agent"]: pane for pane in self.status()["panes"]}
        return found.get(agent, {"open": False, "bytes": 0})

    def clean(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for process in self.processes:
                process.poll()
            if not runtime.is_locked(self.folder):
                break
            for pid, start in (
                (self.record.keeper_pid, self.record.keeper_start),
                (self.record.supervisor_pid, self.record.supervisor_start),
            ):
                if pid and runtime.process_alive(pid, start):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for process in self.processes:
            process.kill()
            process.wait()
        if self.tmux_pid is not None:
            # Its socket may have gone with the runtime folder.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.tmux_pid, signal.SIGTERM)
            until(lambda: not runtime.process_alive(self.tmux_pid))
        assert not runtime.is_locked(self.folder)
        for folder in (self.folder, self.run):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.clean()


needs_tmux = pytest.mark.skipif(TMUX is None, reason="there is no tmux")


def test_starts_serves_and_ends_in_an_orderly_way(lab: Lab) -> None:
    keeper = lab.start()
    record = lab.record
    assert record.keeper_pid == keeper.pid
    assert record.port > 0
    assert record.alive("keeper")
    assert record.alive("supervisor")
    assert runtime.is_locked(lab.folder)
    for name in ("api.sock", "keeper.sock"):
        assert (lab.folder / name).stat().st_mode & 0o077 == 0
    by_tcp = lab.ask("state", socket.create_connection(("127.0.0.1", record.port)))
    assert by_tcp == {"pid": record.supervisor_pid, "restart": 0, "gap_since": None, "keepers": 0}
    assert until(lambda: lab.said("hello"))[0]["pid"] == keeper.pid
    lab.ask("bye")
    assert keeper.wait(30) == 0
    assert not (lab.folder / "api.sock").exists()
    assert not (lab.folder / "keeper.sock").exists()
    assert not runtime.is_locked(lab.folder)


def test_exit_status_zero_is_orderly_and_any_other_is_not(lab: Lab) -> None:
    keeper = lab.start()
    first = lab.record.supervisor_pid
    lab.ask("crash 7")
    until(lambda: lab.record.supervisor_pid != first)
    assert lab.ask("state")["restart"] == 1
    lab.ask("crash 0")
    assert keeper.wait(30) == 0


def test_killed_supervisor_is_replaced_and_connections_wait_for_the_new_one(lab: Lab) -> None:
    lab.start()
    port = lab.record.port
    descriptors = _descriptors(lab.record.keeper_pid)
    first = lab.kill_supervisor()
    until(lambda: lab.record.supervisor_pid != first)
    assert lab.ask("state")["restart"] == 1
    # While the keeper is held, nobody starts another one.
    os.kill(lab.record.keeper_pid, signal.SIGSTOP)
    killed_at = time.time()
    second = lab.kill_supervisor()
    waiting = [lab.connect(), socket.create_connection(("127.0.0.1", port))]
    for connection in waiting:
        connection.sendall(b"state\n")
    assert runtime.is_locked(lab.folder)
    os.kill(lab.record.keeper_pid, signal.SIGCONT)
    for connection in waiting:
        with connection:
            answer = json.loads(connection.makefile().readline())
        assert answer["pid"] not in {first, second}
        assert answer["restart"] == 2
        assert killed_at - 0.1 <= answer["gap_since"] <= time.time()
    assert lab.record.port == port
    assert lab.status()["restarts"] == 2
    until(lambda: _descriptors(lab.record.keeper_pid) == descriptors, what="no leaked descriptor")


def test_killed_keeper_is_replaced_under_the_same_lock_and_port(lab: Lab) -> None:
    keeper = lab.start()
    port, supervisor = lab.record.port, lab.record.supervisor_pid
    free = threading.Event()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not runtime.is_locked(lab.folder):
                free.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    keeper.kill()
    keeper.wait()
    # The API answers all the while: the supervisor has the listeners too.
    assert lab.ask("state")["pid"] == supervisor
    until(lambda: lab.record.keeper_pid != keeper.pid)
    until(lambda: lab.said("hello")[-1:] and lab.said("hello")[-1]["pid"] == lab.record.keeper_pid)
    assert lab.record.port == port
    assert lab.status()["supervisor_pid"] == supervisor
    assert lab.ask("state", socket.create_connection(("127.0.0.1", port)))["keepers"] == 1
    # The new keeper watches a supervisor that is not its child, and replaces it too.
    lab.kill_supervisor()
    until(lambda: lab.record.supervisor_pid != supervisor)
    assert lab.ask("state", socket.create_connection(("127.0.0.1", port)))["restart"] == 1
    done.set()
    watcher.join()
    assert not free.is_set()
    adopted = lab.record
    lab.ask("bye")
    until(lambda: not runtime.process_alive(adopted.keeper_pid, adopted.keeper_start))
    assert not runtime.is_locked(lab.folder)
    assert not (lab.folder / "api.sock").exists()


def test_adopted_supervisor_that_says_goodbye_ends_the_keeper(lab: Lab) -> None:
    keeper = lab.start()
    keeper.kill()
    keeper.wait()
    until(lambda: lab.record.keeper_pid != keeper.pid)
    until(lambda: lab.said("hello")[-1:] and lab.said("hello")[-1]["pid"] == lab.record.keeper_pid)
    lab.ask("bye")
    until(lambda: not runtime.is_locked(lab.folder))
    assert "bye True" in lab.log
    assert not (lab.folder / "keeper.sock").exists()


def test_a_removed_record_means_the_end(lab: Lab) -> None:
    keeper = lab.start()
    record = lab.record
    (lab.folder / "cluster.json").unlink()
    os.kill(record.supervisor_pid, signal.SIGKILL)
    assert keeper.wait(30) == 0
    assert not runtime.is_locked(lab.folder)


def test_without_pidfd_an_end_is_noticed_too(lab: Lab) -> None:
    program = (
        "import os, sys; del os.pidfd_open\nfrom orchestrator_lab.keeper.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    lab.keeper = [sys.executable, "-P", "-c", program]
    keeper = lab.start()
    first = lab.kill_supervisor()
    until(lambda: lab.record.supervisor_pid != first)
    assert lab.ask("state")["restart"] == 1
    lab.ask("bye")
    assert keeper.wait(30) == 0


def test_after_both_are_killed_a_new_keeper_binds_the_same_port(lab: Lab) -> None:
    keeper = lab.start()
    port = lab.record.port
    lab.ask("nobye")
    keeper.kill()
    keeper.wait()
    lab.kill_supervisor()
    until(lambda: not runtime.is_locked(lab.folder))
    assert (lab.folder / "api.sock").exists()
    replacement = lab.spawn()
    until(lambda: lab.record.keeper_pid == replacement.pid)
    until(lambda: lab.record.alive("supervisor"))
    assert lab.ask("state", socket.create_connection(("127.0.0.1", port)))["restart"] == 0


def test_a_taken_port_is_replaced_by_another(lab: Lab) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        lab.start(port=other.getsockname()[1])
        assert lab.record.port not in {0, other.getsockname()[1]}
    assert "is taken by another program" in lab.log


def test_of_keepers_started_at_once_exactly_one_lives(lab: Lab) -> None:
    lab.write_record()
    keepers = [lab.spawn() for _ in range(6)]
    until(lambda: sum(keeper.poll() is not None for keeper in keepers) == 5, 30)
    living = [keeper for keeper in keepers if keeper.poll() is None]
    assert sorted(keeper.poll() for keeper in keepers if keeper not in living) == [75] * 5
    until(lambda: lab.record.supervisor_pid)
    assert lab.record.keeper_pid == living[0].pid
    assert lab.ask("state")["restart"] == 0


def test_term_is_passed_on_and_nothing_restarts(lab: Lab) -> None:
    keeper = lab.start()
    supervisor = lab.record
    keeper.terminate()
    assert keeper.wait(30) == 0
    assert not supervisor.alive("supervisor")
    assert not runtime.is_locked(lab.folder)
    assert not (lab.folder / "keeper.sock").exists()


def test_supervisor_that_never_starts_is_given_up_when_there_are_no_agents(lab: Lab) -> None:
    lab.standin += ["--die", "1"]
    lab.write_record(tmux_pid=None)
    keeper = lab.spawn()
    began = time.monotonic()
    assert keeper.wait(60) == 3
    assert time.monotonic() - began > 0.5
    assert lab.log.count("ended unexpectedly") == 3
    assert "giving up" in lab.log
    assert not (lab.folder / "api.sock").exists()


def test_supervisor_program_that_is_missing_is_reported(lab: Lab) -> None:
    lab.standin = ["/nonexistent/python"]
    lab.write_record(tmux_pid=None)
    assert lab.spawn().wait(60) == 3
    assert "cannot start the supervisor /nonexistent/python" in lab.log


def test_supervisor_that_dies_at_once_does_not_make_the_keeper_spin(lab: Lab) -> None:
    lab.standin += ["--die", "1"]
    lab.write_record()  # its tmux server lives: the keeper goes on
    began = time.monotonic()
    keeper = lab.spawn()
    ends = until(lambda: lab.log.count("ended unexpectedly") >= 5 and lab.log.count("ended unexpectedly"))
    # It waited between them, for as long as it should.
    assert sum(map(restart_delay, range(1, ends))) <= time.monotonic() - began
    until(lambda: lab.status()["supervisor_pid"] is None)
    assert keeper.poll() is None
    keeper.terminate()
    assert keeper.wait(30) == 0


def test_keeper_does_not_outlive_an_owner_whose_supervisor_cannot_start(lab: Lab) -> None:
    owner = subprocess.Popen(["/bin/sleep", "60"])
    agents = subprocess.Popen(["/bin/sleep", "60"])  # stands for the tmux server
    lab.standin += ["--die", "1"]
    lab.write_record(lifetime="owner", owner_pid=owner.pid, tmux_pid=agents.pid)
    keeper = lab.spawn()
    time.sleep(1.0)
    assert keeper.poll() is None
    owner.kill()
    owner.wait()
    assert keeper.wait(60) == 3
    assert agents.wait(30) == -signal.SIGTERM


def test_restart_delays() -> None:
    assert [restart_delay(n) for n in (1, 2, 3, 4, 5, 6, 7, 99)] == [0, 0.5, 1, 2, 4, 8, 10, 10]


def test_keeper_without_a_record_says_what_is_missing(lab: Lab) -> None:
    keeper = lab.spawn()
    assert keeper.wait(30) == 1
    assert "cluster.json is missing" in lab.log


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"[]\n",
        b'{"op":"nothing"}\n',
        b'{"op":"pane","agent":"x"}\n',
        b'{"op":"subscribe","agents":5}\n',
        b"\xff\xfe\n",
        b"x" * 100_000,
    ],
)
def test_a_wrong_request_harms_nobody(lab: Lab, request_line: bytes) -> None:
    lab.start()
    with lab.connect("keeper.sock") as connection, contextlib.suppress(OSError):
        connection.sendall(request_line)
        connection.recv(4096)
    assert lab.status()["subscribers"] == 0
    lab.tell(op="nothing")
    lab.tell(op="record")
    assert lab.status()["panes"] == []


# panes ------------------------------------------------------------------------------------------


@needs_tmux
def test_recording_of_a_real_pane_equals_what_the_program_wrote(lab: Lab) -> None:
    lab.start()
    chunks = [
        "日本語 🎉 ".encode(),
        b"caf\xc3",
        b"\xa9 \xff\xfe\xc3( \xed\xa0\x80",
        "混".encode()[:1],
        "混".encode()[1:2],
        "混".encode()[2:],
        b'\x1b[31m"quoted\\" \x00\x01\x7f\r\n',
        "é".encode() * 70_001,
    ]
    # It ends once all was seen: tmux drops what the kernel still holds when a program exits.
    end = lab.folder / "boss.end"
    program = (
        f"for chunk in {chunks!r}:\n    put(chunk)\n    time.sleep(0.02)\n"
        f"while not os.path.exists({str(end)!r}): time.sleep(0.005)\nsys.exit(5)\n"
    )
    pane, go = lab.pane("boss", program)
    started = lab.said("recording")[0]
    assert abs(started["started_at"] - time.time()) < 60
    assert until(lambda: lab.said("pane_opened")) == [{"op": "pane_opened", "agent": "boss"}]
    go.touch()
    total = sum(map(len, chunks))
    until(lambda: lab.described("boss")["bytes"] >= total)
    lab.tell(op="resize", agent="boss", cols=120, rows=40)
    lab.tell(op="mark", agent="boss", label="here")
    end.touch()
    until(lambda: lab.tmux("display-message", "-p", "-t", pane, "#{pane_dead}") == "1")
    lab.tell(op="end", agent="boss", status=5)
    path = lab.run / "boss.cast.zst"
    until(lambda: [event for event in read_cast(path).events if event.code == "x"])
    recording = read_cast(path)
    assert recording.torn_bytes == 0
    assert recording.header["term"] == {"cols": 100, "rows": 30, "type": "tmux-256color"}
    expected = b"".join(chunks)
    # tmux adds a line of its own about the dead pane to the screen, not to the pipe.
    assert recording.output() == expected
    assert [(event.code, event.data) for event in recording.events if event.code != "o"] == [
        ("r", "120x40"),
        ("m", "here"),
        ("x", "5"),
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    plain = to_cast(path, lab.run / "boss.cast")
    lines = plain.read_text().splitlines()
    assert json.loads(lines[0])["version"] == 3
    for line in lines[1:]:
        interval, code, data = json.loads(line)
        assert interval >= 0
        assert code in {"o", "r", "m", "x"}
        data.encode()  # no lone surrogate


@needs_tmux
def test_flood_is_drained_while_one_subscriber_never_reads(lab: Lab) -> None:
    lab.start()
    size = 50 << 20
    line = (b"0123456789abcdef" * 6) + b"\r\n"
    count = size // len(line)
    program = (
        f"block = {line!r} * 512\nfor _ in range({count} // 512): put(block)\nput(b'the end\\n')\ntime.sleep(60)\n"
    )
    deaf = lab.subscribe()
    reader = lab.subscribe(["boss"])
    other = lab.subscribe(["nobody"])
    got: dict = {"bytes": 0, "repaints": 0, "tail": b"", "behind": False}
    reader.settimeout(60)

    def read() -> None:
        for text in reader.makefile():
            message = json.loads(text)
            got["behind"] = "repaint" in message
            if message.get("repaint"):
                got["repaints"] += 1
            elif "data" in message:
                data = base64.b64decode(message["data"])
                got["bytes"] += len(data)
                got["tail"] = (got["tail"] + data)[-32:]

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    _pane, go = lab.pane("boss", program)
    memory = _peak_rss(lab.record.keeper_pid)
    go.touch()
    expected = count // 512 * 512 * len(line) + len(b"the end\n")
    until(lambda: lab.described("boss")["bytes"] == expected, 90, "the flood")
    assert _peak_rss(lab.record.keeper_pid) - memory < 40 << 20
    status = lab.status()
    assert status["subscribers"] == 3
    assert status["cut_backs"] >= 1

    def caught_up() -> bool:
        # On a busy machine it may read too slowly itself: a last repaint stands for the end then.
        return got["tail"].endswith(b"the end\n") or (got["behind"] and got["repaints"] > 1)

    until(caught_up, 60, "the end at the subscriber that reads")
    # What the reader missed, it was told of.
    assert got["bytes"] == expected or got["repaints"] > 1
    # The deaf one finds the past cut back, and is told so when it reads at last.
    lines = deaf.makefile()
    assert json.loads(lines.readline()) == {"op": "subscribed", "agents": None}
    while not json.loads(lines.readline()).get("repaint"):
        pass
    other.setblocking(False)
    assert json.loads(other.recv(1000)) == {"op": "subscribed", "agents": ["nobody"]}
    for connection in (deaf, reader, other):
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
    thread.join(30)
    until(lambda: lab.status()["subscribers"] == 0)
    lab.tell(op="end", agent="boss")
    until(lambda: lab.described("boss")["recording"] is None)
    recorded = read_cast(lab.run / "boss.cast.zst").output()
    assert len(recorded) == expected
    assert recorded.endswith(line + b"the end\n")


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _peak_rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@needs_tmux
def test_killed_keeper_loses_at_most_a_second_and_the_recording_goes_on(lab: Lab) -> None:
    keeper = lab.start()
    program = "n = 0\nwhile True:\n    put(b'%d %.3f\\n' % (n, time.time())); n += 1; time.sleep(0.01)\n"
    pane, go = lab.pane("boss", program)
    path = lab.run / "boss.cast.zst"
    read: list[tuple[int, float]] = []

    def watch(lines: Any) -> None:
        read.extend((one["bytes"], one["at"]) for one in map(json.loads, lines) if "data" in one)

    with lab.subscribe(["boss"]) as watching, watching.makefile() as lines:
        watcher = threading.Thread(target=watch, args=(lines,))
        watcher.start()
        go.touch()
        until(lambda: read_cast(path).output())
        written = lab.described("boss")["bytes"]
        until(lambda: lab.described("boss")["bytes"] > written + 2500)  # more than a hundred lines, some 1.5 s
        keeper.kill()
        keeper.wait()
        watcher.join(30)
    before = read_cast(path)
    # By the keeper's own clock: a busy machine may not have let it run for a while before it was killed.
    lost = [at for count, at in read if count > len(before.output())]
    assert len(lost) < len(read)
    assert not lost or lost[-1] - lost[0] < 1.3
    until(lambda: lab.record.keeper_pid != keeper.pid)
    until(lambda: lab.said("hello")[-1:] and lab.said("hello")[-1]["pid"] == lab.record.keeper_pid)
    # A write may have been cut in the middle.
    with path.open("ab") as torn:
        torn.write(b"\x5c\x2a\x4d\x18garbage")
    lab.record_pane("boss", pane, path, modes={"bracketed_paste": True})
    lab.pipe("boss", pane)
    assert lab.described("boss")["modes"]["bracketed_paste"]
    told = lab.said("recording")[1]
    assert told["started_at"] == pytest.approx(lab.said("recording")[0]["started_at"])
    assert told["gap_s"] > 0
    until(lambda: lab.described("boss")["bytes"] > 2000)  # a hundred lines, a second
    lab.tell(op="end", agent="boss", status=0)
    until(lambda: lab.described("boss")["recording"] is None)
    after = read_cast(path)
    assert after.torn_bytes == 0
    assert after.events[: len(before.events)] == before.events
    assert [event.data for event in after.events if event.code == "m"] == ["recording resumed"]
    # Times go on from the recording's own beginning: each line says when it was written, and was read then or later.
    late = []
    resumed = [event.code for event in after.events].index("m")
    for event in after.events[resumed:]:
        if event.code == "o" and (words := event.data.splitlines()[-1].split()):
            with contextlib.suppress(IndexError, ValueError):
                late.append(told["started_at"] + event.time_s - float(words[1]))
    assert -0.1 < min(late) < 0.4


@needs_tmux
def test_activity_and_modes_are_told_at_once_and_not_too_often(lab: Lab) -> None:
    lab.start()
    told_on = lab.folder / "boss.told"
    program = (
        "put(b'\\x1b[?20'); time.sleep(0.05); put(b'04h')\n"
        f"while not os.path.exists({str(told_on)!r}): time.sleep(0.005)\n"
        "put(b'\\x1b]0;Wor'); time.sleep(0.05); put('é'.encode() + b'\\x07'); time.sleep(0.3)\n"
        "put(b'\\x1b]133;A\\x1b'); time.sleep(0.05); put(b'\\\\'); time.sleep(0.3)\n"
        "put(b'\\x1b]133;C\\x07\\x1b]133;D;1\\x07\\x1b[?1049h\\x1b[?2004l'); time.sleep(0.3)\n"
        "for n in range(200): put(b'.'); time.sleep(0.005)\n"
        "time.sleep(0.3); put(b'!')\n"
        "time.sleep(60)\n"
    )
    _pane, go = lab.pane("boss", program, record=False)
    go.touch()
    until(lambda: [one for one in lab.said("activity") if one["modes"].get("bracketed_paste")])
    told_on.touch()
    begun, total = 61, 61 + 200 + 1
    until(lambda: [one for one in lab.said("activity") if one["bytes"] == total])
    told = lab.said("activity")
    assert told[-1]["modes"] == {"bracketed_paste": False, "alternate_screen": True}
    assert told[-1]["title"] == "Woré"
    assert [mark for message in told for mark in message.get("marks", [])] == ["A", "C", "D;1"]
    assert told[-1]["bytes"] == lab.described("boss")["bytes"] == total
    dots = [message["monotonic_s"] for message in told if message["bytes"] > begun]
    # Two hundred writes in a second, told at most each 10 ms; the first and the last may be told a little later.
    assert (len(dots) - 2) * 0.0099 <= dots[-1] - dots[0]
    assert abs(told[-1]["at"] - time.time()) < 60


@needs_tmux
def test_recordings_and_panes_survive_a_killed_supervisor(lab: Lab) -> None:
    lab.start()
    program = "n = 0\nwhile True:\n    put(b'%d\\n' % n); n += 1; time.sleep(0.01)\n"
    pane, go = lab.pane("boss", program)
    go.touch()
    until(lambda: lab.described("boss")["bytes"] > 500)
    first = lab.kill_supervisor()
    until(lambda: lab.record.supervisor_pid != first)
    hello = until(lambda: lab.said("hello"))[0]
    path = lab.run / "boss.cast.zst"
    assert hello["restarts"] == 1
    assert [(p["agent"], p["pane"], p["open"], p["recording"]) for p in hello["panes"]] == [
        ("boss", pane, True, str(path))
    ]
    lab.record_pane("boss", pane, path)
    assert until(lambda: lab.said("recording"))[0]["offset_s"] > 0.4
    lab.ask("bye")
    until(lambda: not runtime.is_locked(lab.folder))
    lines = read_cast(path).output().split(b"\n")[:-1]
    assert lines == [b"%d" % n for n in range(len(lines))]
    assert len(lines) > 100


@needs_tmux
def test_a_pane_handed_over_again_loses_nothing(lab: Lab) -> None:
    lab.start()
    program = "n = 0\nwhile True:\n    put(b'%d\\n' % n); n += 1; time.sleep(0.002)\n"
    pane, go = lab.pane("boss", program)
    go.touch()
    until(lambda: lab.described("boss")["bytes"] > 300)
    lab.tmux("pipe-pane", "-t", pane)
    until(lambda: lab.said("pane_closed"))
    assert not lab.described("boss")["open"]
    lab.pipe("boss", pane)
    lab.tell(op="forget", agent="boss")
    until(lambda: lab.status()["panes"] == [])
    assert len(read_cast(lab.run / "boss.cast.zst").output()) > 100


def test_a_recording_that_cannot_be_opened_is_told(lab: Lab) -> None:
    lab.start()
    lab.tell(op="record", agent="boss", pane="%1", cols=80, rows=24, path="/nonexistent/boss.cast.zst")
    failed = until(lambda: lab.said("recording_failed"))[0]
    assert "/nonexistent/boss.cast.zst" in failed["error"]


@needs_tmux
def test_secrets_stay_out_of_the_recording(lab: Lab) -> None:
    # A piece that is due between the halves of the secret would hold the first one.
    program = (
        "import sys\nfrom orchestrator_lab.keeper import pane\npane.PIECE_EVERY_S = 3600\n"
        "from orchestrator_lab.keeper.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    lab.keeper = [sys.executable, "-P", "-c", program]
    lab.start()
    secret = runtime.new_token()
    program = f"put(b'TOKEN={secret[:20]}'); time.sleep(0.1); put(b'{secret[20:]} {secret[:5]}')\ntime.sleep(60)\n"
    pane, go = lab.pane("boss", program, record=False)
    path = lab.run / "boss.cast.zst"
    lab.record_pane("boss", pane, path, mask=[secret, "", "x"])
    go.touch()
    expected = b"TOKEN=" + b"*" * 64 + b" " + secret[:5].encode()
    until(lambda: lab.described("boss")["bytes"] == len(expected))
    lab.tell(op="end", agent="boss")
    until(lambda: lab.described("boss")["recording"] is None)
    assert read_cast(path).output() == expected


def test_an_end_is_recorded_even_when_all_is_over_or_begins_again_at_once(lab: Lab) -> None:
    keeper = lab.start()
    path = lab.run / "boss.cast.zst"
    ours, theirs = socket.socketpair()
    lab.record_pane("boss", "%1", path)
    with theirs:
        lab.hand_over("boss", theirs.fileno())
    ours.sendall(b"fir\x1b[?2004hst")
    lab.tell(op="end", agent="boss", status=1)
    lab.record_pane("boss", "%1", path)
    ours.sendall(b"second")
    until(lambda: lab.described("boss")["bytes"] == 19)
    # A new program in the pane has none of the modes of the one before.
    assert until(lambda: lab.said("activity"))[0]["modes"] == {"bracketed_paste": True}
    assert lab.described("boss")["modes"] == {}
    # The keeper is held: all of it comes to it at once.
    keeper.send_signal(signal.SIGSTOP)
    lab.tell(op="end", agent="boss", status=2)
    lab.ask("bye")
    ours.sendall(b"third")
    keeper.send_signal(signal.SIGCONT)
    assert keeper.wait(30) == 0
    ours.close()
    recording = read_cast(path)
    assert [event.data for event in recording.events if event.code == "x"] == ["1", "2"]
    assert recording.output() == b"fir\x1b[?2004hstsecondthird"


def test_an_agent_that_ended_before_its_pane_came_is_forgotten_and_its_successor_recorded(lab: Lab) -> None:
    lab.start()
    lab.record_pane("boss", "%1", lab.run / "first.cast.zst")
    lab.tell(op="end", agent="boss", status=1)
    lab.tell(op="forget", agent="boss")
    lab.record_pane("boss", "%2", lab.run / "second.cast.zst")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lab.hand_over("boss", theirs.fileno())
        ours.sendall(b"hello")
        until(lambda: lab.described("boss")["bytes"] == 5)
        assert [(pane["agent"], pane["pane"]) for pane in lab.status()["panes"]] == [("boss", "%2")]
        lab.tell(op="end", agent="boss", status=2)
        until(lambda: lab.described("boss")["recording"] is None)
    ends = [read_cast(lab.run / f"{name}.cast.zst").events[-1] for name in ("first", "second")]
    assert [(one.code, one.data) for one in ends] == [("x", "1"), ("x", "2")]
    assert read_cast(lab.run / "second.cast.zst").output() == b"hello"


def test_a_pane_waits_for_a_keeper_that_is_being_restarted(lab: Lab) -> None:
    lab.write_record()
    ours, theirs = socket.socketpair()
    with theirs:
        helper = subprocess.Popen(runtime.handoff_argv(lab.folder, "boss"), stdin=theirs)
    time.sleep(0.2)
    assert helper.poll() is None
    lab.start()
    assert helper.wait(30) == 0
    ours.sendall(b"hello")
    until(lambda: lab.described("boss")["bytes"] == 5)
    ours.close()
    until(lambda: lab.said("pane_closed"))


SECRET = b"abcabcabd"


@given(st.lists(st.sampled_from([b"a", b"ab", b"abc", b"abcabc", b"d", SECRET, b"abcabcabc", b"\xff"]), max_size=12))
def test_a_mask_does_not_depend_on_where_reads_are_split(parts: list[bytes]) -> None:
    mask = Mask([SECRET.decode()])
    masked = b"".join(mask.feed(part) for part in parts) + mask.rest()
    assert masked == b"".join(parts).replace(SECRET, b"*" * len(SECRET))


# modes --------------------------------------------------------------------------------------------

SEQUENCES = st.sampled_from(
    [
        b"\x1b[?2004h",
        b"\x1b[?2004l",
        b"\x1b[?1049h",
        b"\x1b[?25;1049l",
        b"\x1b]0;title\x07",
        b"\x1b]2;\xe6\xb7\xb7\x1b\\",
        b"\x1b]133;A\x07",
        b"\x1b]133;D;0\x1b\\",
        b"\x1b]8;;http://x\x1b\\",
        b"\x1bc",
        b"\x1b[31m",
        b"text",
        b"\x1b",
        b"\x1b]0;never ended\x1b[0m",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(SEQUENCES, max_size=20), st.randoms(use_true_random=False))
def test_modes_do_not_depend_on_where_reads_are_split(parts: list[bytes], rng: random.Random) -> None:
    data = b"".join(parts)
    whole, split = ModeTracker(), ModeTracker()
    whole.feed(data)
    position = 0
    while position < len(data):
        step = rng.randint(1, 7)
        split.feed(data[position : position + step])
        position += step
    assert (whole.modes, whole.title, whole.osc133, whole.marks) == (
        split.modes,
        split.title,
        split.osc133,
        split.marks,
    )


def test_a_title_that_never_ends_is_not_kept() -> None:
    tracker = ModeTracker()
    tracker.feed(b"\x1b]0;")
    for _ in range(1000):
        tracker.feed(b"x" * 1000)
    assert len(tracker._carry) < 8192
    tracker.feed(b"\x07\x1b[?2004h")
    assert tracker.modes["bracketed_paste"]
