from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab import runtime
from orchestrator_lab.errors import ClusterNotFound, ConfigError, EnvironmentProblem
from orchestrator_lab.runtime import ClusterRecord


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the runtime folder of a cluster ``duo``, made."""
    # pytest's own paths are too long for a socket, and here is none.
    monkeypatch.setattr(runtime, "LONGEST_SOCKET_PATH", 300)
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(tmp_path / "run"))
    return runtime.private_dir(runtime.cluster_dir("duo"))


def record(**fields: object) -> ClusterRecord:
    return ClusterRecord(name="duo", run_dir="/runs/x", run_id="run_1", **fields)  # type: ignore[arg-type]


def test_runtime_dir_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATOR_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert runtime.runtime_dir() == tmp_path / f"olab-{os.getuid()}"
    assert runtime.runtime_dir().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(tmp_path / "other"))
    assert runtime.runtime_dir() == tmp_path / "other"


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(EnvironmentProblem, match="chmod 700"):
        runtime.private_dir(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(EnvironmentProblem, match="not a folder"):
        runtime.private_dir(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match="not a folder"):
        runtime.private_dir(tmp_path / "file")
    with pytest.raises(EnvironmentProblem, match="cannot make the folder"):
        runtime.private_dir(tmp_path / "file" / "below")


def test_a_folder_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(EnvironmentProblem, match="belongs to uid"):
        runtime.private_dir(tmp_path / "mine")


@pytest.mark.parametrize("name", ["", "..", "a/b", "1a", "a b", "a:b", "a.b", "é", "x" * 33, "-a", "a\n"])
def test_names_that_are_no_names(name: str, folder: Path) -> None:
    assert folder.exists()
    with pytest.raises(ConfigError, match="must be a letter"):
        runtime.cluster_dir(name)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(tmp_path / ("x" * 80)))
    with pytest.raises(EnvironmentProblem, match="set ORCHESTRATOR_RUNTIME_DIR to a shorter folder"):
        runtime.cluster_dir("duo")


@given(
    st.builds(
        ClusterRecord,
        name=st.text(),
        run_dir=st.text(),
        run_id=st.text(),
        port=st.integers(0, 65535),
        keeper_pid=st.none() | st.integers(1),
        keeper_start=st.none() | st.floats(0, 1e10),
    )
)
def test_records_round_trip(value: ClusterRecord) -> None:
    assert ClusterRecord.from_json(value.to_json()) == value


def test_records_of_later_versions_are_read_and_damaged_ones_are_not(folder: Path) -> None:
    assert runtime.read_record(folder) is None
    path = folder / "cluster.json"
    path.write_text('{"name":"duo","run_dir":"/x","run_id":"r","new_key":[1]}')
    found = runtime.read_record(folder)
    assert found is not None
    assert found.run_dir == "/x"
    for damaged in ("", "{", "[]", '{"name":"duo"}', '{"run_id":"\udcff"}'):
        path.write_text(damaged, errors="surrogateescape")
        assert runtime.read_record(folder) is None


def test_update_looks_up_start_times_and_keeps_the_rest(folder: Path) -> None:
    with pytest.raises(ClusterNotFound, match="no cluster was started here"):
        runtime.update_record(folder, port=1)
    runtime.write_record(folder, record(lifetime="owner", owner_pid=os.getpid()))
    changed = runtime.update_record(folder, port=4711, keeper_pid=os.getpid())
    assert changed == runtime.read_record(folder)
    assert (changed.lifetime, changed.port) == ("owner", 4711)
    assert changed.keeper_start == runtime.process_start_time(os.getpid()) == changed.owner_start
    assert changed.alive("keeper")
    assert changed.alive("owner")
    assert not changed.alive("tmux")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not runtime.update_record(folder, keeper_pid=gone.pid).alive("keeper")
    assert (folder / "cluster.json").stat().st_mode & 0o777 == 0o600


def test_updates_at_once_lose_nothing(folder: Path) -> None:
    runtime.write_record(folder, record())
    fields = [("port", 1), ("keeper_pid", 2), ("supervisor_pid", 3), ("version", "4"), ("session_name", "5")]

    def change(name: str, value: object) -> None:
        for _ in range(20):
            runtime.update_record(folder, **{name: value})

    threads = [threading.Thread(target=change, args=field) for field in fields]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = runtime.read_record(folder)
    assert found is not None
    assert [(name, getattr(found, name)) for name, _ in fields] == fields
    assert sorted(path.name for path in folder.iterdir()) == ["cluster.json", "cluster.json.lock"]


def test_list_clusters(folder: Path) -> None:
    assert runtime.list_clusters() == []
    runtime.write_record(folder, record())
    runtime.private_dir(runtime.cluster_dir("empty"))
    assert [found.name for found in runtime.list_clusters()] == ["duo"]


def test_lock_lives_as_long_as_one_who_inherited_it(folder: Path) -> None:
    assert not runtime.is_locked(folder)
    lock = runtime.acquire_lock(folder)
    assert lock is not None
    assert os.get_inheritable(lock)
    assert runtime.is_locked(folder)
    assert runtime.acquire_lock(folder) is None
    heir = subprocess.Popen(["/bin/cat"], pass_fds=(lock,), stdin=subprocess.PIPE)
    os.close(lock)
    assert runtime.is_locked(folder)
    heir.kill()
    heir.communicate()
    assert not runtime.is_locked(folder)
    again = runtime.acquire_lock(folder)
    assert again is not None
    os.close(again)
    assert not runtime.is_locked(folder / "nowhere")


def test_a_lock_on_a_removed_file_does_not_count(folder: Path) -> None:
    first = runtime.acquire_lock(folder)
    assert first is not None
    (folder / "lock").unlink()
    second = runtime.acquire_lock(folder)
    assert second is not None
    os.close(first)
    assert runtime.is_locked(folder)
    os.close(second)


def _compete(folder: Path, barrier, won) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    barrier.wait()
    if runtime.acquire_lock(folder) is not None:
        with won.get_lock():
            won.value += 1
    barrier.wait()


def test_of_many_who_want_the_lock_one_gets_it_though_others_look(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(5), context.Value("i", 0)
    processes = [context.Process(target=_compete, args=(folder, barrier, won)) for _ in range(4)]
    for process in processes:
        process.start()
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            runtime.is_locked(folder)

    thread = threading.Thread(target=look)
    thread.start()
    barrier.wait()
    barrier.wait()
    looking.set()
    thread.join()
    for process in processes:
        process.join()
    assert won.value == 1


def test_write_private_replaces_whole_and_cleans_up(folder: Path) -> None:
    path = folder / "token"
    runtime.write_private(path, "é")
    runtime.write_private(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        runtime.write_private(folder / "nowhere" / "token", "x")
    (folder / "full").mkdir()
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        runtime.write_private(folder / "full", "x")
    assert sorted(entry.name for entry in folder.iterdir()) == ["full", "token"]


def test_tokens_differ() -> None:
    assert len({runtime.new_token() for _ in range(100)}) == 100


def test_processes_are_known_by_their_start() -> None:
    me = os.getpid()
    start = runtime.process_start_time(me)
    assert start is not None
    assert runtime.process_alive(me)
    assert runtime.process_alive(me, start)
    assert runtime.process_alive(me, psutil.Process(me).create_time())
    assert not runtime.process_alive(me, start - 10)
    assert not runtime.process_alive(me, psutil.Process(me).create_time() - 10)
    assert not runtime.process_alive(0)
    assert not runtime.process_alive(-1)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert runtime.process_alive(child.pid)
    child.kill()
    # Killed but not yet waited for: a zombie does not live.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not runtime.process_alive(child.pid)
    child.communicate()


def test_a_program_with_brackets_in_its_name_has_a_start(tmp_path: Path) -> None:
    script = tmp_path / "a) R (b"
    script.write_text(f"#!{sys.executable}\ninput()\n")
    script.chmod(0o700)
    child = subprocess.Popen([str(script)], stdin=subprocess.PIPE)
    assert runtime.process_alive(child.pid, psutil.Process(child.pid).create_time())
    child.kill()
    child.communicate()


def test_helper_and_keeper_are_started_by_this_python(folder: Path) -> None:
    handoff = runtime.handoff_argv(folder, "boss")
    assert handoff[0] == runtime.keeper_argv(folder)[0] == sys.executable
    assert Path(handoff[3]).is_file()


def test_nobody_makes_the_folder_of_an_ended_cluster_again(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that saw the cluster an instant ago finds neither its lock nor, then, its folder."""
    from orchestrator_lab import client
    from orchestrator_lab.errors import ClusterNotFound

    gone = runtime / "gone"
    answers = iter([gone])
    found = client.find
    monkeypatch.setattr(client, "find", lambda name: next(answers, None) or found(name))
    with pytest.raises(ClusterNotFound, match="no cluster 'gone' is running here"):
        client.wake("gone")
    assert not gone.exists()
