"""Copies of the recorded run, each altered in one way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from orchestrator_lab.bundle.importing import import_bundle
from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDED = Path(__file__).resolve().parents[2] / "notebooks" / "recorded" / "claude-team.olab.zip"
Event = dict[str, Any]


class Alter(Protocol):
    def __call__(
        self,
        *changes: Callable[[list[Event]], list[Event] | None],
        manifest: Callable[[dict[str, Any]], None] | None = None,
        text: Callable[[str], str] | None = None,
    ) -> Run: ...


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run of five Claude Codes; its tables are made of the journal."""
    folder = import_bundle(RECORDED, tmp_path_factory.mktemp("runs"))
    shutil.rmtree(folder / "tables")
    return folder


@pytest.fixture
def recorded(unpacked: Path) -> Run:
    """The run of five Claude Codes."""
    return Run(unpacked)


@pytest.fixture
def alter(unpacked: Path, tmp_path: Path) -> Alter:
    """Return what makes a copy of it with other events, another manifest, or another text of both."""

    def make(
        *changes: Callable[[list[Event]], list[Event] | None],
        manifest: Callable[[dict[str, Any]], None] | None = None,
        text: Callable[[str], str] | None = None,
    ) -> Run:
        path = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(unpacked, path, ignore=shutil.ignore_patterns("panes", "transcripts", "cassettes"))
        journal, about = path / "journal.jsonl", path / "manifest.json"
        events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        for change in changes:
            events = change(events) or events
        facts = json.loads(about.read_text(encoding="utf-8"))
        if manifest is not None:
            manifest(facts)
        told = "".join(json.dumps(event) + "\n" for event in events), json.dumps(facts)
        for file, content in zip((journal, about), told, strict=True):
            file.write_text(content if text is None else text(content), encoding="utf-8")
        return Run(path)

    return make
