"""Imports point downwards only, and what must start quickly imports nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator_lab

PACKAGE = Path(orchestrator_lab.__file__).parent
NAME = "orchestrator_lab"

#: For each part: the parts that it may import. A part is a module or a package directly below orchestrator_lab.
BASE = {"errors", "runtime", "schema", "config"}
RECORD = BASE | {"journal", "mirrors"}
CLIENT = RECORD | {
    "annotations",
    "bundle",
    "records",
    "cassette",
    "cassette_writer",
    "beginning",
    "modes",
    "sealing",
    "choosing",
    "comparing",
    "costs",
    "importing",
    "initial",
    "folds",
    "tables",
    "frames",
    "plots",
    "run",
    "reading",
    "resuming",
    "stills",
    "orphans",
    "acting",
    "wire",
    "client",
    "ndstream",
    "panestream",
    "messagenews",
    "live",
    "dialog",
    "exchange",
    "cluster",
}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "runtime": {"errors"},
    "schema": {"errors"},
    "mirrors": set(),
    "records": set(),
    "cassette": {"errors"},
    "cassette_writer": {"cassette", "errors"},
    "initial": {"config", "errors", "mirrors"},
    "beginning": {"errors", "runtime", "schema"},
    "modes": RECORD | {"beginning", "bundle", "cassette", "initial", "reading", "resuming", "run", "tables"},
    "costs": {"config"},
    "config": {"errors"},
    "journal": BASE | {"mirrors"},
    # the client side
    "annotations": BASE | {"mirrors"},
    "sealing": {"errors", "mirrors", "runtime", "schema"},
    "bundle": RECORD | {"cassette", "cassette_writer", "sealing"},
    "choosing": {"errors", "schema"},
    "folders": set(),
    "discovery": {"errors", "folders", "runtime"},
    "retention": {"annotations", "errors", "folders", "frames", "tables"},
    "backup": RECORD | {"bundle", "folders", "initial", "resuming", "retention", "run", "tables"},
    "folds": RECORD,
    "importing": RECORD | {"records", "costs"},
    "tables": RECORD | {"bundle", "choosing", "costs", "folds", "importing", "sealing"},
    "frames": RECORD | {"annotations", "choosing", "folds", "importing", "tables"},
    "plots": RECORD | {"folds", "frames"},
    "reading": RECORD | {"annotations", "choosing", "folds", "frames", "plots", "stills", "tables"},
    "comparing": RECORD | {"folds", "plots", "reading", "tables"},
    "run": RECORD
    | {
        "annotations",
        "beginning",
        "bundle",
        "cassette",
        "cassette_writer",
        "comparing",
        "folds",
        "frames",
        "initial",
        "plots",
        "reading",
        "sealing",
        "stills",
        "tables",
    },
    "acting": set(),
    "wire": set(),
    "resuming": RECORD | {"bundle", "tables"},
    "client": RECORD | {"acting", "wire", "orphans"},
    "stills": {"errors"},
    "ndstream": {"wire"},
    "panestream": set(),
    "messagenews": set(),
    "live": RECORD | {"client", "ndstream", "panestream"},
    "dialog": {"errors", "schema", "client"},
    "exchange": CLIENT - {"cluster", "exchange"},
    "cluster": CLIENT - {"cluster"},
    "rehearsing": CLIENT | {"apart"},
    "apart": CLIENT,
    "notebook": CLIENT | {"apart"},
    "pytest_plugin": CLIENT | {"apart", "notebook"},
    "metrics": {"errors"},
    "demo": CLIENT | {"models", "doctor"},
    "cli": CLIENT
    | {
        "backup",
        "retention",
        "widgets",
        "server",
        "programs",
        "models",
        "doctor",
        "demo",
        "metrics",
        "notebook",
        "rehearsing",
    },
    "widgets": CLIENT | {"discovery"},
    "server": CLIENT | {"discovery", "folders", "metrics"},
    # the cluster side
    "keeper": {"runtime", "journal", "errors"},
    "tmux": {"errors"},
    "gateway": BASE | {"cassette", "cassette_writer", "models"},
    "agents": BASE | {"tmux", "records"},
    "supervisor": RECORD
    | {"cassette", "costs", "agents", "folders", "initial", "tmux", "gateway", "models", "orphans"},
    # programs that run in panes, and what both sides may use
    "programs": {"errors"},
    "models": {"errors", "config", "runtime"},
    "orphans": {"runtime"},
    # looks at both sides, and is no part of either
    "doctor": {"errors", "runtime", "models", "client", "tmux", "agents", "orphans", "resuming"},
}
CLIENT_SIDE = (
    {
        "apart",
        "backup",
        "rehearsing",
        "cli",
        "notebook",
        "pytest_plugin",
        "widgets",
        "server",
        "folds",
        "metrics",
        *CLIENT,
    }
    - RECORD
    - {"orphans", "records", "cassette", "cassette_writer", "costs", "initial"}
)
#: One thing in two files: the second is the half of the first that needs pandas.
HALVES = {"casting": "schema"}
CLUSTER_SIDE = {"supervisor", "agents", "tmux", "gateway", "keeper"}

HEAVY = {
    "IPython",
    "anyio",
    "anywidget",
    "apprise",
    "httpx",
    "ipywidgets",
    "jupyter_server",
    "libtmux",
    "matplotlib",
    "mcp",
    "numpy",
    "pandas",
    "prometheus_client",
    "pyarrow",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
}
HEAVIER_STILL = HEAVY | {"asyncio", "prompt_toolkit", "psutil", "pydantic", "pydantic_settings", "yaml"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts)


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    name = first.removesuffix(".py")
    return HALVES.get(name, name)


def imports(path: Path) -> set[tuple[str, int]]:
    """Return the parts of this package that a module imports, with lines, functions' imports included.

    Imports under TYPE_CHECKING cost nothing and may point to where the types are, but sides stay apart there too.
    """
    found: set[tuple[str, int]] = set()
    module = [NAME, *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module[: len(module) - node.level] if node.level else []
            origin = ".".join([*package, *([node.module] if node.module else [])])
            # `from orchestrator_lab import config` names the part behind the import
            names = [f"{origin}.{alias.name}" if origin == NAME else origin for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == NAME and len(parts) > 1:
                found.add((HALVES.get(parts[1], parts[1]), node.lineno))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    part = part_of(path)
    if part in {"__init__", "__main__"}:
        return  # the public names and the command line stand above everything
    assert part in ALLOWED, f"{part} is new: say in tests/test_layering.py what it may import"
    wrong = [
        f"line {line}: {part} imports {other}"
        for other, line in sorted(imports(path))
        if other not in {part, "__version__"} and other not in ALLOWED[part]
    ]
    assert not wrong


def test_the_rules_keep_the_sides_apart() -> None:
    for part, allowed in ALLOWED.items():
        if part in CLIENT_SIDE:
            assert not allowed & CLUSTER_SIDE
        if part in CLUSTER_SIDE:
            assert not allowed & CLIENT_SIDE
        for other in allowed:
            assert part not in ALLOWED[other] or part == other, f"{part} and {other} import each other"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nimport json\nprint(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_import_of_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import orchestrator_lab") & HEAVY


def test_the_keeper_starts_light() -> None:
    assert not loaded_by("import orchestrator_lab.keeper") & HEAVIER_STILL


def program_modules() -> list[str]:
    found = sorted(
        ".".join([NAME, *path.relative_to(PACKAGE).with_suffix("").parts])
        for path in (PACKAGE / "programs").rglob("*.py")
    )
    return [name.removesuffix(".__init__") for name in found if not name.endswith("__main__")]


@pytest.mark.parametrize("module", program_modules())
def test_programs_start_light(module: str) -> None:
    # prompt_toolkit is what the chat program is made of; httpx costs more than its own HTTP needs
    assert not loaded_by(f"import {module}") & (HEAVY - {"httpx", "anyio"})


def test_configuration_needs_no_frames() -> None:
    assert not loaded_by("import orchestrator_lab.config") & (HEAVY | {"pydantic_settings"})
