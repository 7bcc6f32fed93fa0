"""The notebooks: what is committed is whole and stable, and the one parameter gives what it promises.

That they run is checked by ``make notebooks`` (nbval, in a process of its own).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections import Counter
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import yaml
import zstandard
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator_lab import models, open_run
from orchestrator_lab.bundle.verifying import verify_bundle
from orchestrator_lab.config import ChatAgent, ClaudeAgent, load_config
from orchestrator_lab.errors import ModelNotAvailable
from orchestrator_lab.notebook.executing import execute
from orchestrator_lab.notebook.sanitizing import REFERENCE, clean, sanitized, sanitizers

HERE = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
QUICKSTART = HERE / "01_quickstart.ipynb"
EXPERIMENT = HERE / "03_comparing_conditions.ipynb"
ANALYSIS = HERE / "02_analysing_conversations.ipynb"
RECORDED = HERE / "recorded"
TEAM = RECORDED / "claude-team.olab.zip"
#: What the cell tagged "parameters" sets, in each notebook.
PARAMETERS = {
    "01_quickstart": ["agents", "mode"],
    "02_analysing_conversations": ["bundle"],
    "03_comparing_conditions": ["agents", "repeats", "mode"],
    "04_record_and_replay": ["mode", "reading_s"],
    "05_share_a_run": ["mode"],
    "06_live_view": ["mode", "pause_s"],
}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"notebooks_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recorder = _script("record")


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
    said = re.sub(r"/home/(?:maria|u1___)", "", texts(notebook))  # made up, to be masked
    patterns = {
        "an id": r"\b(?:run|agt|msg|trn|tcl|cnv|dlg)_[0-9a-z]{26}\b",
        "an instant": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d",
        "a path": rf"(?<![\w<:/.])/(?:home|root|tmp|Users|var|private)/|{re.escape(str(HERE.parent))}",
        "a port": r"127\.0\.0\.1:\d",
        "an address": r"0x[0-9a-f]{6,}",
        "a widget": r"application/vnd\.jupyter\.widget",
        "a word on stderr": r'"name": "stderr"',
    }
    if path == ANALYSIS:  # its instants are those of the recording
        del patterns["an instant"]
    for what, pattern in patterns.items():
        assert not (found := re.search(pattern, said)), f"{what}: {found and found[0]}"


@every_notebook
def test_it_is_frozen_with_the_runs_that_are_here(path: Path) -> None:
    """Whoever records a run again makes the outputs of its notebooks again."""
    runs = read(path).metadata[REFERENCE]["runs"]
    assert {one["file"] for one in runs} >= {
        f"recorded/{name}.olab.zip" for name in recorder.BUNDLES.get(path.stem, ())
    }
    for one in runs:
        assert "outside" not in one
        assert hashlib.sha256((HERE / one["file"]).read_bytes()).hexdigest() == one["sha256"], one["file"]


@every_notebook
def test_its_parameters_are_in_one_tagged_cell(path: Path) -> None:
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    names = re.findall(r"^(\w+) = ", tagged[0].source, re.MULTILINE)
    assert names == PARAMETERS[path.stem]


@every_notebook
def test_every_cell_that_draws_has_its_picture(path: Path) -> None:
    for cell in code_cells(read(path)):
        if re.search(r"\b(?:plot_\w+|compare_runs)\(", cell.source) and "def " not in cell.source:
            assert [list(output.data) for output in cell.outputs if "image/png" in output.get("data", {})], cell.id


def test_cleaning_is_idempotent_and_keeps_the_texts() -> None:
    notebook = read(QUICKSTART)
    before = nbformat.writes(notebook)
    assert nbformat.writes(clean(notebook)) == before


def test_what_cleaning_replaces() -> None:
    def cleaned(text: str) -> Any:
        return sanitized(text, sanitizers())

    assert cleaned("From boss (msg_01m83k63tfy0mtr8xjy53c2k7z):") == "From boss (msg_...):"
    assert cleaned("chat · 127.0.0.1:43035") == "chat · 127.0.0.1:..."
    assert cleaned("<object at 0x7f01a2b3c4d5>") == "<object at 0x...>"
    assert cleaned("msg_short 127.0.0.1 0x7") == "msg_short 127.0.0.1 0x7"


# Binder -------------------------------------------------------------------------------------------


def _imported() -> set[str]:
    found = set()
    for path in NOTEBOOKS:
        for cell in code_cells(read(path)):
            for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names


def test_binder_installs_what_the_notebooks_need() -> None:
    """In a folder named binder, repo2docker would look for everything, and overlook what lies in the root."""
    root = HERE.parent
    assert not (root / "binder").exists()
    assert not (root / ".binder").exists()
    packages = [line.partition("#")[0].split() for line in (root / "apt.txt").read_text(encoding="utf-8").splitlines()]
    assert ["tmux"] in packages
    # repo2docker refuses whatever does not look like a package.
    assert all(re.fullmatch(r"[a-z0-9.+-]+", one) for line in packages for one in line)
    wanted = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert {"pip": ["-e ."]} in wanted
    assert {str(one).split()[0] for one in wanted if isinstance(one, str)} >= {"python", "tmux", "jupyterlab", "pip"}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(one) for one in project["dependencies"]]
    installed = {"orchestrator-lab"}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in installed and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            installed.add(name)
            waiting += [Requirement(one) for one in distribution(name).requires or []]
    homes = packages_distributions()
    missing = {
        name
        for name in _imported() - {"orchestrator_lab"}
        if not {canonicalize_name(one) for one in homes[name]} & installed
    }
    assert not missing


# the recorded runs --------------------------------------------------------------------------------


def bundles() -> list[Path]:
    return sorted(RECORDED.rglob("*.olab.zip"))


def test_the_recorded_runs_are_those_that_can_be_recorded_again() -> None:
    kept = {path.relative_to(RECORDED).as_posix().removesuffix(".olab.zip") for path in bundles()}
    assert kept == {place for places in recorder.BUNDLES.values() for place in places}
    assert sum(path.stat().st_size for path in bundles()) < recorder.LARGEST
    for name, places in recorder.BUNDLES.items():
        for place in places:
            assert f"recorded/{place.partition('/')[0]}" in (HERE / f"{name}.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("bundle", bundles(), ids=lambda path: path.name.partition(".")[0])
def test_a_recorded_run_is_whole_and_tells_nothing_of_whoever_recorded_it(bundle: Path) -> None:
    assert verify_bundle(bundle)
    assert recorder.told(bundle, recorder.private_words()) == []
    run = open_run(bundle)
    assert run.status == "completed"
    assert run.manifest["name"] == bundle.name.removesuffix(".olab.zip")
    assert run.manifest["mode"] == "record"
    assert all("model" in levels for levels in run.replayable().values())


def test_the_team_has_all_that_its_notebooks_speak_of() -> None:
    run = open_run(TEAM)
    assert list(run.agents["name"]) == ["boss", "manager", "coder", "researcher", "tester"]
    assert set(run.agents["program"]) == {"claude-code"}
    assert Counter(run.messages["status"]) == {"answered": len(run.messages) - 1, "refused": 1}
    assert set(run.messages["kind"]) == {"direct", "reply", "broadcast"}
    assert set(run.tool_calls["status"]) == {"ok", "error", "denied"}
    assert sorted(zip(run.dialogs["answered_by"], run.dialogs["decision"], strict=True)) == [
        ("human", "allow"), ("human", "allow"), ("policy", "allow"), ("policy", "allow"), ("policy", "deny"),
    ]  # fmt: skip
    assert run.turns["cost_usd"].notna().all()
    assert (run.turns["lines_removed"] > 0).any()
    assert "Do you want to proceed?" in run.screen(
        "tester", run.dialogs.query("answered_by == 'human'")["dialog_id"].iloc[0]
    )
    assert run.annotations.empty


def test_the_pair_is_of_two_programs_that_write_to_each_other() -> None:
    run = open_run(RECORDED / "claude-codex-pair.olab.zip")
    assert dict(zip(run.agents["name"], run.agents["program"], strict=True)) == {
        "writer": "claude-code",
        "critic": "codex",
    }
    assert list(zip(run.messages["sender"], run.messages["recipient"], strict=True)) == [
        ("user", "writer"), ("writer", "critic"), ("critic", "writer"), ("writer", "critic"), ("critic", "writer"),
    ]  # fmt: skip
    assert set(run.tool_calls["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("journal.jsonl", '{"cwd": "/home/ada/work"}'),
        ("manifest.json", '{"started_by": "key sk-ant-api03-invented"}'),
        ("environment.txt", "-e /opt/glados/lab"),
        ("panes/boss.cast.zst", '[0.1, "o", "ada@glados:~$ "]'),
    ],
)
def test_a_run_that_tells_of_its_recorder_is_found_out(name: str, text: str, tmp_path: Path) -> None:
    bundle = tmp_path / "x.olab.zip"

    def write(data: bytes) -> None:
        half = len(data) // 2  # a recording has many frames
        frames = b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:]))
        with zipfile.ZipFile(bundle, "w") as archive:
            archive.writestr(name, frames if name.endswith(".zst") else data)

    write(f"harmless\n{text}\n".encode())
    assert {one.split(":")[0] for one in recorder.told(bundle, ["glados"])} == {name}
    write(b"harmless, and no gladostone")
    assert recorder.told(bundle, ["glados"]) == []


@pytest.mark.slow
@pytest.mark.claude
@pytest.mark.codex
@pytest.mark.timeout(400)
def test_anyone_can_record_it_again(
    claude_command: str, codex_command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same is said by the same agents; without the script's pauses, the bundle has what the shipped one has."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, place in {"claude": claude_command, "codex": codex_command}.items():
        (programs / name).symlink_to(Path(place).resolve())
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    quick = tmp_path / "recorded"
    quick.mkdir()
    for source in RECORDED.glob("*.yaml"):
        text = re.sub(r"<<: &pace \{.*?\}", "<<: &pace {delay_s: 0}", source.read_text(encoding="utf-8"))
        (quick / source.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(recorder, "RECORDED", quick)
    monkeypatch.setattr(recorder, "HERE", tmp_path)
    shutil.copyfile(HERE / "05_share_a_run.ipynb", tmp_path / "05_share_a_run.ipynb")
    folder = Path(tempfile.mkdtemp(prefix="f"))
    recorder.keep(recorder.record("05_share_a_run", folder))
    again, before = open_run(quick / "claude-codex-pair.olab.zip"), open_run(RECORDED / "claude-codex-pair.olab.zip")

    def said(run: Any) -> list[tuple[Any, ...]]:
        return list(
            run.messages[["sender", "recipient", "kind", "status", "content"]].itertuples(index=False, name=None)
        )

    def done(run: Any) -> list[tuple[Any, ...]]:
        return sorted(run.tool_calls[["agent", "name", "status"]].itertuples(index=False, name=None))

    assert said(again) == said(before)
    assert done(again) == done(before)


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


@pytest.mark.parametrize(("agents", "mode"), [("script", "script"), ("local", "local")])
@pytest.mark.parametrize("topology", ["chain", "star"])
def test_a_pair_of_the_experiment_differs_in_its_topology_only(
    agents: str, mode: str, topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "pull", lambda: None)
    cells = {cell.id: cell.source for cell in read(EXPERIMENT).cells}
    space: dict[str, Any] = {"agents": agents}
    exec(cells["design"] + "\n" + cells["config"], space)  # noqa: S102 - our own notebook
    config = load_config(space["config"](topology, seed=4))
    assert {config.gateway_of(agent).mode for agent in config.agents} == {mode}
    assert config.topology.allows("biologist", "editor")
    assert config.topology.allows("geologist", "chemist") == (topology == "chain")
    if agents == "script":
        said = space["script"]
        assert said("chain", 4)[:3] == said("star", 4)[:3]
        assert said("chain", 4)[:3] != said("chain", 5)[:3]


@pytest.mark.parametrize(
    ("chain", "star", "p"),
    [
        ([4.0, 5.0, 6.0], [3.0, 4.5, 4.0], 0.25),
        ([4.0, 5.0, 6.0], [3.0, 5.5, 4.0], 0.5),  # by hand: 1 - 0.5 + 2 is reached or passed by 4 of the 8 signs
        ([1.0] * 6, [2.0, 2.5, 1.5, 3.0, 2.0, 1.25], 2 / 64),
    ],
)
def test_its_permutation_test_is_exact(chain: list[float], star: list[float], p: float) -> None:
    runs = pd.DataFrame({"repeat": [*range(len(chain))] * 2, "topology": ["chain"] * len(chain) + ["star"] * len(star)})
    space: dict[str, Any] = {"runs": runs.assign(answer_s=chain + star)}
    cell = next(cell for cell in read(EXPERIMENT).cells if cell.id == "paired-def")
    exec(cell.source, space)  # noqa: S102 - our own notebook
    found = space["paired"]("answer_s")
    assert found["p"] == p
    assert found["smallest p possible"] == 2 / 2 ** len(chain)
    assert found["star - chain"] == pytest.approx(sum(star) / len(star) - sum(chain) / len(chain))


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
    notebook = execute(copy, parameters={"agents": "local"}).notebook
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
        notebook = execute(copy, parameters={"agents": "claude"}).notebook
    cells = {cell.id: cell for cell in code_cells(notebook)}
    assert cells["ask"].outputs[0]["data"]["text/plain"] == "'Answer 1.'"
    assert "completed" in cells["converse"].outputs[0]["data"]["text/plain"]
    assert cells["compare"].outputs[0]["data"]["text/plain"] == "True"
    said = next(output["text"] for output in cells["lines"].outputs if output.output_type == "stream")
    assert re.findall(r"^ *(\w+): ", said, re.MULTILINE) == ["user", *["teacher", "child", "physicist"] * 2][:6]
    assert "teacher (claude)" in cells["reopen"].outputs[0]["data"]["text/plain"]
