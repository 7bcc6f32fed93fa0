from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from orchestrator_lab.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Alter

    from orchestrator_lab.run import Run


def wider(facts: dict[str, Any]) -> None:
    facts["config"]["cluster"]["cols"] = 120


def test_status_says_whether_they_differ(recorded: Run, alter: Alter) -> None:
    same, other = alter(), alter(manifest=wider)
    done = CliRunner().invoke(app, ["runs", "diff", str(recorded.path), str(same.path), "--exact"])
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "claude-team: two runs, the same to the last value")
    done = CliRunner().invoke(app, ["runs", "diff", str(recorded.path), str(other.path)])
    assert done.exit_code == 1
    assert done.stdout == recorded.diff(other).to_text() + "\n"
    assert "  cluster.cols: 96 → 120" in done.stdout.splitlines()
    assert done.stderr == ""


def test_json(recorded: Run, alter: Alter) -> None:
    done = CliRunner().invoke(app, ["runs", "diff", str(recorded.path), str(alter(manifest=wider).path), "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["equal"] is False
    assert told["config"] == [{"name": "cluster.cols", "a": 96, "b": 120}]
    assert told["messages"] == {"same": 21, "rows": []}
    assert {one["agent"] for one in told["costs"]} == {*recorded.agents["name"], None}


def test_a_page(recorded: Run, alter: Alter, tmp_path: Path) -> None:
    other, page = alter(manifest=wider), tmp_path / "diff.html"
    arguments = ["runs", "diff", str(recorded.path), str(other.path), "--html", str(page)]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (1, f"{page}\n")
    assert page.read_text(encoding="utf-8") == recorded.diff(other).to_html()
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "diff.html exists" in again.stderr
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 1


@pytest.mark.parametrize(
    ("second", "sentence"), [("nowhere", "'nowhere' is no running cluster"), (None, "Missing argument 'B'")]
)
def test_a_mistake_is_no_difference(
    recorded: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str | None, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["runs", "diff", str(recorded.path), *([] if second is None else [second])])
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert list(tmp_path.iterdir()) == []
