"""What the doctor finds on machines that are well, ill, and littered."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator_lab import doctor
from orchestrator_lab.cluster import Cluster
from orchestrator_lab.runtime import (
    ClusterRecord,
    is_locked,
    private_dir,
    process_start_time,
    read_record,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def levels(findings: list[doctor.Finding]) -> set[str]:
    return {finding.level for finding in findings}


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_tmux_is_told_apart(tmp_path: Path) -> None:
    assert levels(doctor.check_tmux()) == {"ok"}
    (missing,) = doctor.check_tmux(str(tmp_path / "tmux"))
    assert missing.level == "fail"
    assert "install" in missing.advice
    (old,) = doctor.check_tmux(str(program(tmp_path, "tmux", "echo tmux 2.9")))
    assert old.level == "fail"
    assert "3.2a" in old.found
    (new,) = doctor.check_tmux(str(program(tmp_path, "tmux3", "echo tmux 3.6")))
    assert (new.level, new.advice) == ("ok", "")


def test_locale_must_be_utf_8_and_exist() -> None:
    assert levels(doctor.check_locale({"LANG": "C.UTF-8"})) == {"ok"}
    assert levels(doctor.check_locale({})) == {"ok"}
    (foreign,) = doctor.check_locale({"LC_ALL": "ja_JP.SJIS"})
    assert foreign.level == "fail"
    assert "LC_ALL" in foreign.found
    (absent,) = doctor.check_locale({"LANG": "xx_YY.UTF-8"})
    assert absent.level == "warn"


def test_terminfo_is_looked_up() -> None:
    assert levels(doctor.check_terminfo(dict(os.environ))) == {"ok"}


def test_runtime_folder_must_be_private_and_short(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert levels(doctor.check_runtime_dir()) == {"ok"}
    runtime.chmod(0o755)
    (wide,) = doctor.check_runtime_dir()
    assert wide.level == "fail"
    assert "chmod 700" in wide.found
    runtime.chmod(0o700)
    for length, level in ((100, "fail"), (70, "warn")):
        place = tmp_path.parent / ("x" * (length - len(str(tmp_path.parent)) - 1))
        monkeypatch.setenv("ORCHESTRATOR_RUNTIME_DIR", str(place))
        assert levels(doctor.check_runtime_dir()) == {level}


def test_agents_say_their_versions(tmp_path: Path) -> None:
    program(tmp_path, "claude", "echo '2.1.0 (Claude Code)'")
    claude, codex = doctor.check_agents({"PATH": str(tmp_path)})
    assert (claude.level, codex.level) == ("ok", "ok")
    assert "2.1.0" in claude.found
    assert "npm install" in codex.advice
    program(tmp_path, "claude", "echo broken >&2; exit 3")
    claude, _ = doctor.check_agents({"PATH": str(tmp_path)})
    assert claude.level == "warn"
    assert "broken" in claude.found


def test_login_is_told_without_a_call(tmp_path: Path) -> None:
    program(tmp_path, "claude", "exit 1")
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert levels(doctor.check_claude_login(env)) == {"warn"}
    assert levels(doctor.check_claude_login({**env, "CLAUDE_CODE_USE_BEDROCK": "1"})) == {"ok"}
    (tmp_path / ".claude.json").write_text('{"oauthAccount": {"uuid": "x"}}', encoding="utf-8")
    assert levels(doctor.check_claude_login(env)) == {"ok"}
    assert doctor.check_claude_login({"PATH": "", "HOME": str(tmp_path)}) == []


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({}, "ok"),
        ({"disableAllHooks": True}, "fail"),
        ({"allowManagedHooksOnly": True}, "fail"),
        ({"allowedHttpHookUrls": ["https://corp.example/*"]}, "fail"),
        ({"allowedHttpHookUrls": ["http://127.0.0.1:*"]}, "ok"),
    ],
)
def test_settings_that_forbid_hooks_are_found(tmp_path: Path, settings: dict[str, Any], level: str) -> None:
    program(tmp_path, "claude", "exit 1")
    managed = tmp_path / "managed-settings.json"
    managed.write_text(json.dumps(settings), encoding="utf-8")
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    assert levels(doctor.check_claude_settings(env, [managed])) == {level}


def test_a_proxy_must_spare_loopback() -> None:
    assert levels(doctor.check_loopback({})) == {"ok"}
    proxy = {"HTTP_PROXY": "http://proxy:3128"}
    assert levels(doctor.check_loopback(proxy)) == {"warn"}
    assert levels(doctor.check_loopback({**proxy, "no_proxy": "localhost, 127.0.0.1"})) == {"ok"}


def test_disk_of_a_folder_that_does_not_exist_yet(runtime: Path, tmp_path: Path) -> None:
    found = doctor.check_disk(tmp_path / "not" / "there" / "yet")
    assert len(found) == 2
    assert str(runtime) in found[1].found
    assert levels(found) <= {"ok", "warn"}


def test_leftovers_of_the_dead_are_removed_and_nothing_else(runtime: Path) -> None:
    dead = private_dir(runtime / "dead")
    (dead / "api.sock").touch()
    write_record(dead, ClusterRecord(name="dead", run_dir="/x", run_id="run_x", supervisor_pid=2**22 + 1))
    foreign = private_dir(runtime / "photographs")
    (foreign / "cat.jpg").touch()
    young = private_dir(runtime / "young")
    (young / "config.json").touch()
    findings = doctor.check_leftovers()
    assert [finding.leftover.path for finding in findings if finding.leftover] == [str(dead)]
    assert doctor.repair(findings) == [f"removed {dead}"]
    assert not dead.exists()
    assert (foreign / "cat.jpg").exists()
    assert young.exists()
    assert levels(doctor.check_leftovers()) == {"ok"}


def test_a_running_cluster_is_well_and_left_alone(runtime: Path, script_config: Callable[..., dict[str, Any]]) -> None:
    with Cluster.start(script_config("ada", name="alive")) as cluster:
        found = [*doctor.check_clusters(), *doctor.check_leftovers(), *doctor.check_processes()]
        mine = [finding for finding in found if str(runtime) in finding.found or finding.check == "cluster"]
        assert levels(mine) == {"ok"}
        forged = doctor.Finding("leftover", "warn", "", "", doctor.Leftover("folder", str(runtime / "alive")))
        assert "left alone" in doctor.repair([forged])[0]
        assert cluster["ada"].ask("still here?", timeout=30).reply == "ada: still here?"


def test_orphans_are_found_and_ended(runtime: Path, script_config: Callable[..., dict[str, Any]]) -> None:
    cluster = Cluster.start(script_config("ada", name="lost"))
    folder = runtime / "lost"
    record = read_record(folder)
    assert record is not None
    for pid in (record.keeper_pid, record.supervisor_pid):
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    for pid in (record.keeper_pid, record.supervisor_pid):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    cluster.client.close()
    wait_until(lambda: not record.alive("keeper") and not record.alive("supervisor"))
    wait_until(lambda: not is_locked(folder))  # a killed process lets go of its files a moment after it is gone
    (half,) = (finding for finding in doctor.check_clusters() if "lost" in finding.found)
    assert half.level == "warn"
    assert "brings them back" in half.advice
    # Now nothing names the tmux server any more.
    (folder / "cluster.json").unlink()
    orphans = [finding for finding in doctor.check_processes() if finding.leftover is not None]
    found = [one.leftover for one in orphans if one.leftover is not None]
    assert [one.pid for one in found if one.kind == "process"] == [record.tmux_pid]
    assert {one.path for one in found} == {str(folder)}
    said = doctor.repair(orphans)
    assert said[0] == f"ended tmux server {record.tmux_pid} of {folder}"
    assert all("of agent ada" in line for line in said[1:])
    assert not record.alive("tmux")


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_process_of_that_number_is_not_enough(runtime: Path, spawn: Callable[..., Any]) -> None:
    innocent = spawn(["sleep", "60"])
    leftover = doctor.Leftover("process", str(runtime / "x"), innocent.pid, 0.0)
    said = doctor.repair([doctor.Finding("orphan", "warn", "", "", leftover)])
    assert "had ended already" in said[0]
    assert psutil.pid_exists(innocent.pid)


def test_the_command_says_it_to_people_and_to_programs(runtime: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "orchestrator_lab", "doctor"]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False, cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert done.returncode == (0 if facts["ok"] else 1)
    assert {"tmux", "locale", "runtime folder", "disk"} <= {check["check"] for check in facts["checks"]}
    env = {**os.environ, "LC_ALL": "de_DE.ISO-8859-1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert "to repair" in done.stdout
    assert runtime.is_dir()


# what looks like a cluster's, and is not ------------------------------------------------------------


PAUSE = "import time; time.sleep(60)"


@contextlib.contextmanager
def running(*words: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, with these arguments and this environment."""
    argv = [sys.executable, "-c", PAUSE, *words]
    with subprocess.Popen(argv, env={**os.environ, **environ}, start_new_session=True) as process:
        wait_until(lambda: PAUSE in psutil.Process(process.pid).cmdline())
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def killed_at_last(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_look_alikes_are_told_and_left_alone(runtime: Path) -> None:
    folder = private_dir(runtime / "dead")
    write_record(folder, ClusterRecord(name="dead", run_dir="/x", run_id="run_x", keeper_pid=2**22 + 1))
    other = str(runtime.with_name("another") / "dead")
    with (
        running("-m", "orchestrator_lab.keeper", str(folder)) as same_words,
        running("-m", "orchestrator_lab.keeper", str(folder), ORCHESTRATOR_LAB_CLUSTER=other) as anothers,
        running("something", "else", ORCHESTRATOR_LAB_CLUSTER=str(folder)) as only_the_mark,
        running("-m", "orchestrator_lab.gateway.local_server") as only_a_model,
        running("-m", "orchestrator_lab.keeper", str(folder), ORCHESTRATOR_LAB_CLUSTER=str(folder)) as ours,
    ):
        findings = doctor.check_processes()
        provable = [one.leftover.pid for one in findings if one.leftover is not None]
        assert provable == [ours.pid]
        told = " ".join(one.found for one in findings if one.leftover is None)
        assert f"process {same_words.pid} looks like a keeper" in told
        assert f"process {anothers.pid} looks like a keeper" in told
        assert str(only_the_mark.pid) not in told
        # A finding that somebody made up changes nothing.
        start = process_start_time(same_words.pid)
        forged = doctor.Leftover("process", str(folder), same_words.pid, start)
        assert doctor.repair([doctor.Finding("orphan", "warn", "", "", forged)]) == [
            f"process {same_words.pid} is not proved to be a dead cluster's: left alone"
        ]
        assert doctor.repair(findings)[0] == f"ended keeper {ours.pid} of {folder}"
        assert ours.wait(30) is not None
        assert all(one.poll() is None for one in (same_words, anothers, only_the_mark, only_a_model))


def test_a_tmux_server_of_somebody_else_is_left_alone(runtime: Path, tmp_path: Path) -> None:
    short = Path(tempfile.mkdtemp(prefix="x"))
    inside = private_dir(runtime / "mine")
    sockets = [short / "tmux.sock", inside / "tmux.sock"]
    try:
        for socket in sockets:
            subprocess.run(["tmux", "-f", "/dev/null", "-S", str(socket), "new-session", "-d", "sleep 60"], check=True)
        findings = doctor.check_processes()
        assert not [one for one in findings if one.leftover is not None]
        assert any("looks like a tmux server" in one.found for one in findings)
        doctor.repair(findings)
        for socket in sockets:
            assert subprocess.run(["tmux", "-S", str(socket), "has-session"], check=False).returncode == 0
    finally:
        for socket in sockets:
            subprocess.run(["tmux", "-S", str(socket), "kill-server"], check=False)
        shutil.rmtree(short)
        shutil.rmtree(inside)
    assert tmp_path.is_dir()


def test_a_crash_of_everything_is_cleared_away(
    runtime: Path, script_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = ["/bin/sh", "-c", "trap '' HUP TERM; printf stubborn; while :; do sleep 1; done"]
    config = script_config("ada", name="crashed")
    config["agents"].append(
        {
            "name": "mule",
            "kind": "program",
            "command": stubborn,
            "ready": {"prompt": "^stubborn"},
            "turn_end": {"quiet_s": 0.5},
        }
    )
    cluster = Cluster.start(config)
    folder, run_dir = runtime / "crashed", cluster.run_dir
    ada, mule = (cluster[name].facts["pid"] for name in ("ada", "mule"))
    record = read_record(folder)
    assert record is not None
    pids = [record.keeper_pid, record.supervisor_pid, record.tmux_pid]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            assert pid is not None
            os.kill(pid, number)
    cluster.client.close()
    wait_until(lambda: not any(record.alive(who) for who in ("keeper", "supervisor", "tmux")))
    wait_until(lambda: not is_locked(folder))
    wait_until(lambda: process_start_time(ada) is None)
    assert process_start_time(mule) is not None
    with killed_at_last(subprocess.Popen(stubborn, start_new_session=True)) as twin:
        findings = doctor.examine(runs_dir=run_dir.parent)
        assert any(f"{folder} live on without it (mule)" in one.found for one in findings)
        assert any(f"start --resume {run_dir}" in one.advice for one in findings)
        said = doctor.repair(findings)
        assert f"ended process {mule} of agent mule of {folder}" in said
        assert f"removed {folder}" in said
        assert twin.poll() is None
    assert process_start_time(mule) is None
    assert not folder.exists()
    monkeypatch.chdir(run_dir.parent)
    with Cluster.start(resume=run_dir) as cluster:
        assert cluster["ada"].ask("hello", timeout=30).reply == "ada: hello"
        assert levels(doctor.check_runs(run_dir.parent)) == {"ok"}
        assert not [one for one in doctor.examine(runs_dir=run_dir.parent) if one.leftover is not None]


def test_screens_of_a_newer_version_are_told(tmp_path: Path) -> None:
    for version, level in (("2.1.197", "ok"), ("9.0.1", "warn")):
        package = tmp_path / version
        (package / "bin").mkdir(parents=True)
        (package / "package.json").write_text(
            json.dumps({"name": "@anthropic-ai/claude-code", "version": version}), encoding="utf-8"
        )
        (package / "bin" / "claude").write_text("#!/bin/sh\n", encoding="utf-8")
        (package / "bin" / "claude").chmod(0o755)
        [found] = doctor.check_screen_rules({"PATH": str(package / "bin")})
        assert (found.level, version in found.found) == (level, True)
