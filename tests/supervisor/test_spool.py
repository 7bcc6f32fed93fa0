from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.codex import _HOOK, hooks_folder
from orchestrator_lab.supervisor.spool import take_reports

if TYPE_CHECKING:
    from pathlib import Path


def report(folder: Path, payload: dict[str, Any]) -> None:
    environ = {**os.environ, "ORCHESTRATOR_LAB_AGENT_HOOKS": str(folder)}
    subprocess.run(["/bin/sh", "-c", _HOOK], input=json.dumps(payload).encode(), env=environ, check=True, timeout=10)


def test_reports_wait_whole_and_in_order_for_whoever_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready.fifo")
    pipe = os.open(tmp_path / "ready.fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        folder = hooks_folder(tmp_path)
        for number in range(15):
            report(folder, {"number": number, "text": "x" * 100_000})
        assert all(file.stat().st_mode & 0o077 == 0 for file in folder.glob("*.json"))
        assert os.read(pipe, 100) == b"x" * 15
        (folder / ".1234-5").write_text("half a rep")
        found: list[dict[str, Any]] = []
        assert take_reports(folder, found.append) == 15
        assert [one["number"] for one in found] == list(range(15))
        assert take_reports(folder, found.append) == 0
    finally:
        os.close(pipe)


def test_one_report_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "1000000000000000001-1.json").write_text("{")
    (tmp_path / "1000000000000000002-1.json").write_text('{"a": 1}')
    (tmp_path / "1000000000000000003-1.json").write_text('{"a": 2}')
    (tmp_path / "1000000000N-9.json").write_text('{"a": 3}')
    seen: list[int] = []

    def deal(found: dict[str, Any]) -> None:
        seen.append(found["a"])
        if found["a"] == 1:
            raise ValueError("no")

    assert take_reports(tmp_path, deal) == 4
    assert seen == [1, 2, 3]  # where no nanoseconds are in the name, the file's time tells
    assert list(tmp_path.iterdir()) == []


def test_no_report_is_lost_when_its_reader_dies(tmp_path: Path) -> None:
    (tmp_path / "1000000000000000001-1.json").write_text('{"a": 1}')

    def die(found: dict[str, Any]) -> None:
        raise KeyboardInterrupt(found)

    try:
        take_reports(tmp_path, die)
    except KeyboardInterrupt:
        assert take_reports(tmp_path, lambda _: None) == 1
