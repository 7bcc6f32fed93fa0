"""Checks the TypeScript of the browser's parts, strict types and format: ``python extensions/check.py [--fix]``.

They are built first when they are out of date, and nothing is needed but what the build has installed. The types of the
JupyterLab extension are checked by its build.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import build_hook

ROOT = Path(__file__).resolve().parents[1]
FORMATTED = (
    "extensions/*/src/**/*.ts",
    "extensions/jupyterlab/{schema,style}/*.{css,js,json}",
    "tests/extensions/*.ts",
)


def main(*, fix: bool) -> int:
    """Return the exit code."""
    for problem in build_hook.build_all(ROOT):
        sys.stderr.write(f"{problem}\n")
        return 1
    node, _ = build_hook.find_node()
    tools, extension = ROOT / "extensions/panes/node_modules/.bin", ROOT / "extensions/jupyterlab/node_modules/.bin"
    formatter = [extension / "prettier", "--log-level", "warn", "--write" if fix else "--check"]
    config = ["--config", "extensions/.prettierrc.json"]
    commands = [[*formatter, *config, *FORMATTED]]
    commands += [[tools / "tsc", "--noEmit", "-p", f"extensions/{part}"] for part in ("panes", "dashboard")]
    return max(subprocess.run([node, *command], cwd=ROOT, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main(fix="--fix" in sys.argv[1:]))
