from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.errors import TmuxMissing, TmuxTooOld
from orchestrator_lab.tmux import FLOOR, find_tmux
from orchestrator_lab.tmux.binary import client_environ, parse_version

if TYPE_CHECKING:
    from pathlib import Path


def fake(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "tmux"
    path.write_text(f"#!/bin/sh\necho '{line}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("line", ["tmux 3.2a", "tmux 3.3a", "tmux 3.7", "tmux next-3.6", "tmux master"])
def test_new_enough(tmp_path: Path, line: str) -> None:
    assert find_tmux(fake(tmp_path, line)).number >= FLOOR


@pytest.mark.parametrize("line", ["tmux 3.1c", "tmux 3.2", "tmux 2.9a", "tmux 1.8"])
def test_too_old(tmp_path: Path, line: str) -> None:
    with pytest.raises(TmuxTooOld, match=r"is version .*, but 3\.2a or newer is needed; install"):
        find_tmux(fake(tmp_path, line))


def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TmuxMissing, match=r"^there is no tmux on the PATH; install it"):
        find_tmux()
    with pytest.raises(TmuxMissing, match="there is no tmux at /nowhere/tmux"):
        find_tmux("/nowhere/tmux")
    with pytest.raises(TmuxMissing, match="does not look like tmux"):
        find_tmux(fake(tmp_path, "GNU screen"))


@given(st.text())
def test_any_output_is_a_version_or_none(text: str) -> None:
    parse_version(text)
    parse_version(f"tmux {text}")


def test_clients_get_a_scrubbed_environment_with_utf_8() -> None:
    told = client_environ({"SECRET": "x", "TMUX": "y", "PATH": "/p", "HOME": "/h", "LC_ALL": "C"})
    assert told["LC_CTYPE"].endswith("UTF-8")
    assert {"SECRET", "TMUX", "LC_ALL"}.isdisjoint(told)
    assert client_environ({"LANG": "ja_JP.UTF-8"})["LANG"] == "ja_JP.UTF-8"
    assert "LC_CTYPE" not in client_environ({"LANG": "ja_JP.UTF-8"})
