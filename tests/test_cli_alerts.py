"""What operators see: alerts, metrics and status --watch, in real processes, on a real cluster and a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator_lab import Cluster
from orchestrator_lab.cli.watch import picture
from orchestrator_lab.errors import AlertNotFound
from orchestrator_lab.metrics import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = [sys.executable, "-m", "orchestrator_lab"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=120, check=False)


def good(*words: str) -> str:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:
    alerts = {"check_s": 0.2, "idle_s": [0.3, None, None]}
    with Cluster.start(script_config("ada", "bob", name="ops", alerts=alerts)) as running:
        running["ada"].ask("hello", timeout=20)
        yield running
    assert not (module_runtime / "ops").exists()


def two_alerts(cluster: Cluster) -> list[dict[str, Any]]:
    """Wait for both agents to be idle for too long."""
    deadline = time.monotonic() + 30
    while True:
        rows = cluster.client.get("/alerts", timeout_s=10.0)["alerts"]
        if {row["agent"] for row in rows} >= {"ada", "bob"}:
            return list(rows)
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)


def test_list_acknowledge_and_clear(cluster: Cluster) -> None:
    rows = two_alerts(cluster)
    said = good("alerts")
    assert "warning ada has been idle for more than 0.3 s" in said
    assert rows[0]["alert_id"] in said
    listed = json.loads(good("alerts", "list", "--json", "--level", "warning"))
    assert [one["rule"] for one in listed] == ["idle", "idle"]
    assert good("alerts", "list", "--level", "error") == "ops: no alert is open\n"
    ids = {one["agent"]: one["alert_id"] for one in rows}
    assert good("alerts", "ack", ids["ada"]) == f"acknowledged {ids['ada']}\n"
    assert good("alerts", "ack", "all") == f"acknowledged {ids['bob']}\n"
    assert good("alerts", "ack", "all") == "nothing to acknowledge\n"
    assert "acknowledged" in good("alerts", "list")
    assert "ada has been idle" in good("status")
    assert good("alerts", "clear", ids["ada"]) == f"cleared {ids['ada']}\n"
    assert [one["agent"] for one in json.loads(good("alerts", "--json"))] == ["bob"]
    everything = json.loads(good("alerts", "--all", "--json"))
    assert {one["alert_id"] for one in everything} >= set(ids.values())
    assert next(one for one in everything if one["alert_id"] == ids["ada"])["resolved_at"]
    wrong = run("alerts", "ack", "alr_nothing")
    assert wrong.returncode == 2
    assert f"no open alert 'alr_nothing' in cluster 'ops'; open: {ids['bob']} (idle)" in wrong.stderr
    assert "is no level; use info, warning, error, critical" in run("alerts", "--level", "bad").stderr
    shown = good("logs", "ops")
    assert "alert.opened" in shown
    assert "idle, by human" in shown


def test_alerts_in_python(cluster: Cluster) -> None:
    cluster["ada"].ask("again", timeout=20)
    two_alerts(cluster)
    frame = cluster.alerts()
    assert set(frame["rule"]) == {"idle"}
    assert frame["resolved_at"].isna().all()
    assert str(frame["level"].dtype) == "category"
    identity = frame.loc[frame["agent"] == "ada", "alert_id"].iloc[0]
    assert cluster.acknowledge(identity, by="eve") == [identity]
    assert cluster.acknowledge(identity) == []
    assert cluster.alerts().set_index("alert_id").loc[identity, "acknowledged_at"] is not None
    assert identity in cluster.clear()
    assert cluster.alerts().empty
    assert len(cluster.alerts(all=True)) >= 3
    with pytest.raises(AlertNotFound, match="open: none"):
        cluster.clear(identity)
    alerts = [one for one in cluster.events() if one.event == "alert.acknowledged"]
    assert alerts[-1].attributes["by"] == "eve"


def test_metrics_are_what_prometheus_reads(cluster: Cluster) -> None:
    cluster.wait(timeout=20)
    text = good("metrics", "ops")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return samples[f"orchestrator_lab_{name}", frozenset({"cluster": "ops", **labels}.items())]

    assert all(name.startswith("orchestrator_lab_") and family.documentation for name, family in families.items())
    assert value("agents", state="idle") == 2
    answered = value("messages", status="answered")
    assert answered >= 1
    assert value("turns_total", agent="ada", end_reason="completed") == answered
    assert value("tokens_total", agent="ada", direction="input") > 0
    assert value("queued_messages", agent="bob") == 0
    assert value("restarts_total", agent="ada") == 0
    assert value("agent_resident_memory_bytes", agent="ada") > 1_000_000
    assert value("delivery_seconds_count") == answered
    assert value("delivery_seconds_bucket", le="+Inf") == answered
    assert 0 < value("delivery_seconds_sum") < 20 * answered
    assert value("alerts", level="critical") == 0
    for process in ("supervisor", "keeper"):
        assert value("process_uptime_seconds", process=process) > 0
        assert value("process_resident_memory_bytes", process=process) > 1_000_000
    assert families["orchestrator_lab_turns"].type == "counter"
    assert families["orchestrator_lab_delivery_seconds"].type == "histogram"
    assert run("metrics", "nobody").returncode == 2


def test_every_metric_is_documented(cluster: Cluster) -> None:
    from pathlib import Path as Place

    page = (Place(__file__).parent.parent / "docs" / "operations" / "monitoring.md").read_text(encoding="utf-8")
    names = {family.name for family in text_string_to_metric_families(render([cluster.figures()]))}
    counters = {"events", "process_cpu_seconds", "restarts", "tokens", "turns"}
    named = {f"{name}_total" if name.removeprefix("orchestrator_lab_") in counters else name for name in names}
    assert {name for name in named if f"`{name}`" not in page} == set()


# status --watch -----------------------------------------------------------------------------------


class Terminal:
    """A program in a terminal of 80 columns, and what it draws."""

    def __init__(self, *words: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [*PROGRAM, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        )
        os.close(slave)
        self.text = ""

    def until(self, pattern: str, timeout_s: float = 30.0) -> str:
        """Wait until what is drawn from now on matches; return it without colours."""
        deadline = time.monotonic() + timeout_s
        self.text = ""
        while not re.search(pattern, plain(self.text)):
            left = deadline - time.monotonic()
            assert left > 0, plain(self.text)
            if select.select([self._master], [], [], left)[0]:
                try:
                    data = os.read(self._master, 65_536)
                except OSError:
                    data = b""
                if not data:
                    break
                self.text += data.decode("utf-8", "replace")
        return plain(self.text)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._master)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_watch_shows_what_changes_and_ends_on_ctrl_c(cluster: Cluster) -> None:
    terminal = Terminal("status", "ops", "--watch")
    try:
        first = terminal.until(r"bob\s+● idle")
        assert max(len(line) for line in first.splitlines()) <= 80
        turns = cluster["ada"].facts["turns"]
        cluster["ada"].ask("while somebody watches", timeout=20)
        terminal.until(rf"ada\s+● idle\s+\d+s\s+\d+s\s+{turns + 1}\b")
        # Ages go on without anything happening.
        terminal.until(r"ada\s+● idle\s+[1-9]\d*s")
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.until(r"\Z.^|$")
        assert terminal.process.wait(30) == 0
        assert "Traceback" not in plain(terminal.text)
    finally:
        terminal.close()


def test_watch_survives_another_supervisor_and_ends_with_the_cluster(
    runtime: Path, script_config: Callable[..., dict[str, Any]]
) -> None:
    del runtime
    with Cluster.start(script_config("ada", name="gone")) as cluster:
        terminal = Terminal("status", "gone", "--watch")
        try:
            terminal.until(r"ada\s+● idle")
            from orchestrator_lab.runtime import read_record

            record = read_record(cluster.client.folder)
            assert record is not None
            assert record.supervisor_pid is not None
            os.kill(record.supervisor_pid, signal.SIGKILL)
            cluster["ada"].ask("are you there?", timeout=30)
            terminal.until(r"1 messages, 1 turns")
            cluster.shutdown()
            terminal.until(r"cluster gone was shut down")
            assert terminal.process.wait(30) == 0
        finally:
            terminal.close()


def test_watch_needs_a_terminal(cluster: Cluster) -> None:
    del cluster
    done = run("status", "ops", "--watch")
    assert done.returncode == 2
    assert "status --watch needs a terminal" in done.stderr


def test_the_picture_fits_80_columns_whatever_it_shows() -> None:
    from rich.console import Console

    agent = {
        "name": "a-name-of-thirty-two-characters-x",
        "state": "starting",
        "state_s": 200_000.0,
        "last_activity_s": None,
        "turns": 123_456,
        "queued": 1234,
        "restarts": 99,
        "cpu_percent": 1599.6,
        "rss_bytes": 9_999_000_000,
    }
    alert = {"level": "critical", "message": "long " * 60, "rule": "idle", "alert_id": "alr_x", "opened_at": None}
    facts = {
        "name": "cluster",
        "status": "running",
        "agents": [agent, {**agent, "name": "b", "cpu_percent": None, "rss_bytes": None, "state_s": None}],
        "alerts": [alert] * 10,
        "problem": "the disk is full",
        "totals": {"messages": {"answered": 3}, "turns": 3, "cpu_percent": 1.0, "rss_bytes": 5},
    }
    console = Console(width=80, force_terminal=True, color_system=None, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(picture(facts, 1.0))
        shown = console.export_text()
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "2d 7h" in shown
    assert "and 2 more: orchestrator-lab alerts" in shown
