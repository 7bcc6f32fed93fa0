from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from typer.testing import CliRunner

from orchestrator_lab.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator_lab.run import Run


def test_tables_by_the_command(told: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "export",
        str(told.path),
        "--to",
        "parquet",
        "--output",
        "out",
        "--table",
        "turns",
        "--table",
        "messages",
    ]
    done = CliRunner().invoke(app, [*arguments, "--agent", "worker"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == ["out/turns.parquet", "out/messages.parquet"]
    assert pd.read_parquet("out/messages.parquet")["message_id"].tolist() == ["msg_2", "msg_3", "msg_4"]
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "error: out is not empty" in again.stderr
    forced = CliRunner().invoke(app, [*arguments, "--force", "--json"])
    assert json.loads(forced.stdout)["files"] == [
        str(tmp_path / "out" / f"{name}.parquet") for name in ("turns", "messages")
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "xls", "--output", "a"], "no format 'xls' to export to"),
        (["--to", "html", "--output", "a", "--agent", "bos"], "nobody called 'bos'"),
        (["--to", "html"], "Missing option '--output'"),
    ],
)
def test_wrong_arguments_end_with_2(
    told: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", str(told.path), *arguments])
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert list(tmp_path.iterdir()) == []
