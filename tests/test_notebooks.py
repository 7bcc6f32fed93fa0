"""The notebooks: what is committed is whole and stable, and the one parameter gives what it promises.

That they run is checked by ``make notebooks`` (nbval, in a process of its own).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from orchestrator_lab import models
from orchestrator_lab.config import ChatAgent, ClaudeAgent, load_config
from orchestrator_lab.errors import ModelNotAvailable

HERE = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
QUICKSTART = HERE / "01_quickstart.ipynb"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _execute() -> Any:
    spec = importlib.util.spec_from_file_location("notebooks_execute", HERE / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = _execute()


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: Any) -> str:
    """Return everything that the outputs say, pictures aside."""
    found = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = dict(output.get("data", {}))
            data.pop("image/png", None)
            found.append(json.dumps([output.get("text", ""), data], ensure_ascii=False))
    return "\n".join(found)


# what is committed --------------------------------------------------------------------------------


@every_notebook
def test_it_is_executed_from_top_to_bottom(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not any(output.output_type == "error" for cell in code_cells(notebook) for output in cell.outputs)


@every_notebook
def test_outputs_hold_nothing_of_one_execution(path: Path) -> None:
    notebook = read(path)
    assert "widgets" not in notebook.metadata
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    said = texts(notebook)
    patterns = {
        "an id": r"\b(?:run|agt|msg|trn|tcl|cnv|dlg)_[0-9a-z]{26}\b",
        "an instant": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d",
        "a path": rf"(?<![\w<:/.])/(?:home|root|tmp|Users|var|private)/|{re.escape(str(HERE.parent))}",
        "a port": r"127\.0\.0\.1:\d",
        "an address": r"0x[0-9a-f]{6,}",
        "a widget": r"application/vnd\.jupyter\.widget",
        "a word on stderr": r'"name": "stderr"',
    }
    for what, pattern in patterns.items():
        assert not (found := re.search(pattern, said)), f"{what}: {found and found[0]}"


@every_notebook
def test_its_parameters_are_in_one_tagged_cell(path: Path) -> None:
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    names = re.findall(r"^(\w+) = ", tagged[0].source, re.MULTILINE)
    assert names == ["agents"] if path == QUICKSTART else names


def test_cleaning_is_idempotent_and_keeps_the_texts() -> None:
    notebook = read(QUICKSTART)
    before = nbformat.writes(notebook)
    assert nbformat.writes(execute.clean(notebook)) == before


def test_what_cleaning_replaces() -> None:
    rules = execute.sanitizers()

    def cleaned(text: str) -> str:
        for pattern, replacement in rules:
            text = pattern.sub(replacement, text)
        return text

    assert cleaned("From boss (msg_01m83k63tfy0mtr8xjy53c2k7z):") == "From boss (msg_...):"
    assert cleaned("chat · 127.0.0.1:43035") == "chat · 127.0.0.1:..."
    assert cleaned("<object at 0x7f01a2b3c4d5>") == "<object at 0x...>"
    assert cleaned("msg_short 127.0.0.1 0x7") == "msg_short 127.0.0.1 0x7"


# the one parameter --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agents", "kind", "mode"),
    [
        ("script", ChatAgent, "script"),
        ("claude", ClaudeAgent, "none"),
        ("local", ChatAgent, "local"),
        ("api", ChatAgent, "upstream"),
    ],
)
def test_one_parameter_chooses_the_agents(
    agents: str, kind: type, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "pull", lambda: None)  # what it gets is tested where it runs
    cell = next(cell for cell in read(QUICKSTART).cells if cell.id == "config")
    space: dict[str, Any] = {"agents": agents}
    exec(cell.source, space)  # noqa: S102 - our own notebook
    config = load_config(space["config"])
    assert config.names == ["teacher", "child", "physicist"]
    assert {type(agent) for agent in config.agents} == {kind}
    assert {config.gateway_of(agent).mode for agent in config.agents} == {mode}


@pytest.mark.slow
@pytest.mark.local_model
@pytest.mark.timeout(400)
def test_it_runs_on_the_local_model(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    try:
        models.pull()
    except ModelNotAvailable as error:
        pytest.fail(f"the local model cannot be got: {error.message}")
    copy = tmp_path / QUICKSTART.name
    copy.write_bytes(QUICKSTART.read_bytes())
    notebook = execute.execute(copy, parameters={"agents": "local"})
    cells = {cell.id: cell for cell in code_cells(notebook)}
    assert "completed" in cells["converse"].outputs[0]["data"]["text/plain"]
    assert cells["compare"].outputs[0]["data"]["text/plain"] == "True"
    said = next(output["text"] for output in cells["lines"].outputs if output.output_type == "stream")
    assert len(said.strip().splitlines()) >= 6
    assert "Raindrops split sunlight into its colours." not in said  # the model's own words, not the script's


@pytest.mark.slow
@pytest.mark.claude
@pytest.mark.timeout(400)
def test_it_runs_on_the_real_claude_code(
    claude_command: str, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider of its own stands for the user's: a key, a configuration folder, the gateway of another cluster."""
    from orchestrator_lab import Cluster

    key = "sk-ant-invented-for-a-test-0000000000000000"
    own = tmp_path / "claude"
    own.mkdir()
    seed = {
        "theme": "dark",
        "numStartups": 1,
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [key[-20:]], "rejected": []},
    }
    (own / ".claude.json").write_text(json.dumps(seed), encoding="utf-8")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(Path(claude_command).resolve())
    copy = tmp_path / QUICKSTART.name
    copy.write_bytes(QUICKSTART.read_bytes())
    script = [{"reply": "Answer {n}."}]
    provider = {
        "cluster": {"name": "provider", "work_dir": str(tmp_path), "runs_dir": str(tmp_path / "runs")},
        "agents": [{"name": "one", "kind": "chat", "gateway": {"script": script}}],
    }
    with Cluster.start(provider):
        settings = json.loads((runtime / "provider" / "agents" / "one" / "settings.json").read_text(encoding="utf-8"))
        monkeypatch.setenv("ANTHROPIC_BASE_URL", settings["base_url"])
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)
        monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(own))
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        notebook = execute.execute(copy, parameters={"agents": "claude"})
    cells = {cell.id: cell for cell in code_cells(notebook)}
    assert cells["ask"].outputs[0]["data"]["text/plain"] == "'Answer 1.'"
    assert "completed" in cells["converse"].outputs[0]["data"]["text/plain"]
    assert cells["compare"].outputs[0]["data"]["text/plain"] == "True"
    said = next(output["text"] for output in cells["lines"].outputs if output.output_type == "stream")
    assert re.findall(r"^ *(\w+): ", said, re.MULTILINE) == ["user", *["teacher", "child", "physicist"] * 2][:6]
    assert "teacher (claude)" in cells["reopen"].outputs[0]["data"]["text/plain"]
