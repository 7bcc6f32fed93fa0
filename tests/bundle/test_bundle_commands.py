"""``runs export``, ``import``, ``verify`` and ``open``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from bundle_helpers import members, tell
from typer.testing import CliRunner

from orchestrator_lab.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Path:
    path = tell(folder / "runs", said="Plan the parser with eve@example.org.")
    (folder / "night.ipynb").write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def call(*words: str, status: int = 0) -> Result:
    done: Any = CliRunner().invoke(app, ["runs", *words])
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return done


def test_there_and_back(run: Path, folder: Path) -> None:
    said = call("export", run.name, "--review", "--mask", "parser", "--leave-out", "changes").output
    assert "would leave this machine; nothing was written" in said
    assert "changes is left out: as asked" in said
    assert "eve@example.org" in said
    assert "no text: not looked into" in said
    assert not list(folder.glob("*.zip"))
    done = call("export", run.name, "--mask", "parser", "--notebook", "night.ipynb")
    name = f"{run.name}.olab.zip"
    assert name in done.output
    assert "Plan the w1____ with e1_____________." in members(folder / name)["journal.jsonl"].decode()
    assert "whole" in call("verify", name).output
    shown = call("open", name, "--notebook", "mine.ipynb").output
    assert "Plan the w1____" in shown
    assert f"open_run({name!r})" in shown
    assert json.loads((folder / "mine.ipynb").read_text())["nbformat"] == 4
    back = json.loads(call("import", name, "--into", "back", "--json").output)
    assert back == {"run_id": run.name, "path": str(folder / "back" / run.name)}
    assert "duo" in call("list", "back").output
    assert "w1____" in call("show", name).output


def test_for_programs(run: Path, folder: Path) -> None:
    done = json.loads(call("export", run.name, "-o", "x.olab.zip", "--keep", "eve@*", "--json").output)
    assert done["path"] == str(folder / "x.olab.zip")
    assert done["masked"] == {"home": 1}
    assert {"text": "planted", "pattern": "home", "substitute": "u1_____"} in done["substitutes"]
    assert b"eve@example.org" in members(folder / "x.olab.zip")["journal.jsonl"]
    told = json.loads(call("verify", "x.olab.zip", "--json").output)
    assert told["ok"]
    assert told["damages"] == []


def test_unmasked_is_said(run: Path) -> None:
    assert "nothing was masked" in call("export", run.name, "-o", "x.olab.zip", "--unmasked").output


def test_damage_is_status_1_and_every_wrong_use_a_sentence(run: Path, folder: Path) -> None:
    call("export", run.name, "-o", "x.olab.zip")
    assert "x.olab.zip exists" in call("export", run.name, "-o", "x.olab.zip", status=2).output
    call("export", run.name, "-o", "x.olab.zip", "--force")
    data = bytearray((folder / "x.olab.zip").read_bytes())
    data[
        data.index(b"journal.jsonl", data.index(b"PK\x03\x04journal") if b"PK\x03\x04journal" in data else 0) + 60
    ] ^= 1
    (folder / "bad.olab.zip").write_bytes(data)
    said = call("verify", "bad.olab.zip", status=1).output
    assert "damaged" in said
    assert not json.loads(call("verify", "bad.olab.zip", "--json", status=1).output)["ok"]
    assert "is damaged, first at" in call("open", "bad.olab.zip", status=2).output
    assert "there is no such bundle" in call("verify", "none.olab.zip", status=2).output
    assert "the bundle cannot be read" in call("import", "none.olab.zip", status=2).output
    assert "there is no part 'logs' to leave out" in call("export", run.name, "--leave-out", "logs", status=2).output
    assert "holds no notebook" in call("open", "x.olab.zip", "--notebook", "n.ipynb", status=2).output
    assert "is a bundle, which is not changed" in call("seal", "x.olab.zip", status=2).output
    (folder / "x.tar").write_text("")
    assert "ends in .zip" in call("export", run.name, "-o", "y.tar", status=2).output
