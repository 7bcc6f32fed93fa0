"""Workshops: gone at the end, kept when renamed, cleared away when their process was killed, and only then."""

from __future__ import annotations

import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from bundle_helpers import tell

from orchestrator_lab.bundle.importing import import_bundle
from orchestrator_lab.bundle.staging import clear_abandoned, workshop
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOLD = """
import pathlib, sys
from orchestrator_lab.bundle.staging import workshop
with workshop(pathlib.Path(sys.argv[1]), ".making-") as shop:
    (shop / "half").write_text("half")
    print(shop, flush=True)
    sys.stdin.read()
"""


def test_a_workshop_is_private_and_gone_unless_it_was_renamed(tmp_path: Path) -> None:
    def fail() -> None:
        with workshop(tmp_path, ".making-") as shop:
            assert stat.S_IMODE(shop.stat().st_mode) == 0o700
            (shop / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with workshop(tmp_path, ".making-") as shop:
        (shop / "whole").write_text("whole")
        shop.rename(tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "whole").read_text() == "whole"


def test_what_a_killed_process_left_is_cleared_away_and_nothing_else(
    tmp_path: Path, spawn: Callable[..., subprocess.Popen[Any]]
) -> None:
    other = spawn([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    place = other.stdout.readline().strip()
    (tmp_path / ".making-file").write_text("no folder")
    (tmp_path / ".making-link").symlink_to(tmp_path)
    (tmp_path / "made").mkdir()
    with workshop(tmp_path, ".making-") as shop:
        there = {path.name for path in tmp_path.iterdir()}
    assert there == {place.rpartition("/")[2], shop.name, ".making-file", ".making-link", "made"}
    other.kill()
    other.wait()
    clear_abandoned(tmp_path, ".making-")
    assert {path.name for path in tmp_path.iterdir()} == {".making-file", ".making-link", "made"}
    clear_abandoned(tmp_path / "nowhere", ".making-")


def test_an_import_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    bundle = tmp_path / "run.olab.zip"
    Run(tell(tmp_path / "runs")).export(bundle, mask=False)
    (tmp_path / "new" / ".importing-x").mkdir(parents=True)
    path = import_bundle(bundle, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == [path]


def test_what_is_private_is_still_configured_where_nothing_was_masked(tmp_path: Path) -> None:
    config = b"cluster: {name: duo, privacy: {words: [Zorro]}}\nagents: [{name: boss, kind: chat}]\n"
    run = Run(tell(tmp_path / "runs", parts={"config.yaml": config}))
    run.export(tmp_path / "own.olab.zip", mask=False)
    run.export(tmp_path / "others.olab.zip")
    own, others = (import_bundle(tmp_path / f"{name}.olab.zip", tmp_path / name) for name in ("own", "others"))
    assert (own / "config.yaml").read_bytes() == config
    assert "Zorro" not in (others / "config.yaml").read_text()
