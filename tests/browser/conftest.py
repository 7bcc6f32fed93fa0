"""A real JupyterLab with a token, and a real Chromium that opens its pages; one of each for the tests of a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Locator, Page

#: Milliseconds for what a page, a kernel and a cluster do together on a loaded machine.
PATIENCE_MS = 60_000


def chromium_path() -> str:
    """Return the browser: the one that a variable names, or the system's."""
    chosen = os.environ.get("ORCHESTRATOR_LAB_TEST_CHROMIUM")
    for name in [chosen] if chosen else ["chromium", "chromium-browser", "google-chrome"]:
        found = shutil.which(name)
        if found:
            return found
    pytest.fail("there is no Chromium: apt-get install chromium, or name it in ORCHESTRATOR_LAB_TEST_CHROMIUM")


class JupyterServer:
    """JupyterLab and Notebook 7 behind one address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token, self.url = folder, secrets.token_hex(16), ""
        self.root = folder / "notebooks"
        self.root.mkdir()
        environ = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
        for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
            environ[f"JUPYTER_{name}"] = str(folder / name.lower())
        settings = folder / "settings"
        environ["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
        quiet = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True)
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        environ["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / "workspaces")
        self._log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"),
                f"--IdentityProvider.token={self.token}",
                *(f"--ServerApp.root_dir={self.root}", "--LabApp.expose_app_in_browser=True"),
                *("--JupyterNotebookApp.expose_app_in_browser=True", "--LabApp.news_url=None"),
                "--MultiKernelManager.default_kernel_name=python3",
            ],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait until it says on which port it is, one that it found free itself, and answers there."""
        deadline = time.monotonic() + 120
        while True:
            said = re.search(r"(http://127\.0\.0\.1:\d+)/lab\?token=", (self.folder / "server.log").read_text())
            if said:
                self.url = said[1]
                with contextlib.suppress(OSError, urllib.error.URLError):
                    self.api("/api/status")
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}")
            time.sleep(0.05)

    def api(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def end_kernels(self) -> None:
        for kernel in self.api("/api/kernels"):
            with contextlib.suppress(urllib.error.HTTPError):
                self.api(f"/api/kernels/{kernel['id']}", "DELETE")

    def write(self, name: str, *cells: str) -> Path:
        """Write a notebook of code cells."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        path = self.root / name
        nbformat.write(notebook, path)
        return path

    def close(self) -> None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            self.end_kernels()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._log.close()


@pytest.fixture(scope="module")
def jupyter(module_runtime: Path) -> Iterator[JupyterServer]:  # noqa: ARG001 - its kernels find the module's clusters
    """A JupyterLab server on a free port; ``.url``, ``.token``, ``.root`` for notebooks."""
    server = JupyterServer(Path(tempfile.mkdtemp(prefix="j")))
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium; module by module, since its loop would be in the way of asyncio's in other tests."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(),
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser without a past, in which nothing is loaded from elsewhere."""
    made = chromium.new_context(viewport={"width": 1400, "height": 1000})
    made.set_default_timeout(PATIENCE_MS)
    foreign: list[str] = []
    made.on(
        "request",
        lambda request: (
            foreign.append(request.url)
            if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:", "ws://127.0.0.1:"))
            else None
        ),
    )
    yield made
    made.close()
    assert not foreign, f"the page asked other machines: {foreign}"


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page in that browser."""
    return context.new_page()


class NotebookPage:
    """A notebook that is open in a page of JupyterLab or Notebook 7."""

    def __init__(self, page: Page, jupyter: JupyterServer, name: str, app: str = "lab") -> None:
        self.page, self.jupyter, self.name, self.app = page, jupyter, name, app
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        # A workspace of its own: else the tabs of earlier pages come back.
        self.path = f"lab/workspaces/{secrets.token_hex(4)}/tree" if app == "lab" else "notebooks"
        self.open()

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """Evaluate a function in the page; one that waits for what never comes fails."""
        return self.page.evaluate(
            f"""argument => Promise.race([({script})(argument),
            new Promise((_, fail) => setTimeout(() => fail(new Error('not within a minute')), {PATIENCE_MS}))])""",
            argument,
        )

    def open(self) -> None:
        self.page.goto(f"{self.jupyter.url}/{self.path}/{self.name}?token={self.jupyter.token}")
        self.page.wait_for_function(
            "name => window.jupyterapp?.shell.currentWidget?.context?.path === name", arg=self.name
        )
        self.evaluate(
            """async () => {
                await window.jupyterapp.restored;
                const panel = window.jupyterapp.shell.currentWidget;
                await panel.context.ready;
                await panel.sessionContext.ready;
            }"""
        )

    def command(self, name: str, **arguments: Any) -> None:
        """Run a command of the page's, and wait for its end."""
        self.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])

    def run(self, *, wait: bool = True) -> None:
        """Run all cells."""
        script = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
        self.evaluate(script if wait else f"() => {{ ({script})(); }}")

    def run_cell(self, number: int, *, wait: bool = True) -> None:
        """Run one cell, by its number from 0."""
        script = """async number => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = number;
            await window.jupyterapp.commands.execute('notebook:run-cell');
        }"""
        self.evaluate(script if wait else f"number => {{ ({script})(number); }}", number)

    def save(self) -> None:
        self.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

    def restart_kernel(self) -> None:
        self.evaluate(
            """async () => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                await kernel.restart();
                await kernel.info;
            }"""
        )

    @property
    def view(self) -> Locator:
        """The view of the cluster."""
        return self.page.locator(".olab-view").first

    def pane(self, agent: str) -> Locator:
        return self.view.locator(f'.olab-pane[data-agent="{agent}"]')

    def shows(self, agent: str, number: int = 0) -> str:
        """Return the text in a pane's terminal, as it is held (not as it is drawn)."""
        lines = self.page.evaluate(_LINES, [agent, number])
        return "\n".join(line.rstrip() for line in lines or []).rstrip()

    def cells(self, agent: str) -> list[list[tuple[Any, ...]]]:
        """Return each cell of a pane's terminal: character, width, colours, attributes."""
        found: list[list[tuple[Any, ...]]] = [
            [tuple(cell) for cell in line] for line in self.page.evaluate(_CELLS, agent) or []
        ]
        return found

    def cursor(self, agent: str) -> tuple[int, int, bool]:
        """Return the cursor's column and line, and whether application cursor keys are on."""
        found: tuple[int, int, bool] = tuple(self.page.evaluate(_CURSOR, agent))
        return found

    def wait_for(self, path: Path) -> None:
        """Wait until a cell has made a file."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not path.exists():
            if time.monotonic() > deadline:
                pytest.fail(f"no cell made {path.name}")
            self.page.wait_for_timeout(50)

    def until(self, agent: str, text: str) -> None:
        """Wait until a pane shows a text."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while text not in self.shows(agent):
            if time.monotonic() > deadline:
                pytest.fail(f"{agent} does not show {text!r}, but:\n{self.shows(agent)}")
            self.page.wait_for_timeout(50)


_VIEW = "document.querySelectorAll('.olab-view')"
_LINES = f"""([agent, number]) => {{
    const terminal = {_VIEW}[number]?.orchestratorLab.terminal(agent);
    if (!terminal) return null;
    const buffer = terminal.buffer.active;
    return Array.from({{length: terminal.rows}}, (_, y) => buffer.getLine(buffer.baseY + y).translateToString(true));
}}"""
_CELLS = f"""agent => {{
    const terminal = {_VIEW}[0]?.orchestratorLab.terminal(agent);
    if (!terminal) return null;
    const buffer = terminal.buffer.active;
    const colour = (isDefault, isRGB, number) =>
        isDefault ? null : isRGB ? '#' + number.toString(16).padStart(6, '0') : number;
    return Array.from({{length: terminal.rows}}, (_, y) => {{
        const line = buffer.getLine(buffer.baseY + y);
        return Array.from({{length: terminal.cols}}, (_, x) => {{
            const cell = line.getCell(x);
            return [
                cell.getChars() || (cell.getWidth() ? ' ' : ''), cell.getWidth(),
                colour(cell.isFgDefault(), cell.isFgRGB(), cell.getFgColor()),
                colour(cell.isBgDefault(), cell.isBgRGB(), cell.getBgColor()),
                !!cell.isBold(), !!cell.isDim(), !!cell.isItalic(), !!cell.isUnderline(), !!cell.isInverse(),
                !!cell.isStrikethrough(), !!cell.isBlink(),
            ];
        }});
    }});
}}"""
_CURSOR = f"""agent => {{
    const terminal = {_VIEW}[0].orchestratorLab.terminal(agent);
    const buffer = terminal.buffer.active;
    return [buffer.cursorX, buffer.cursorY, terminal.modes.applicationCursorKeysMode];
}}"""


#: Errors of Notebook 7.6's own pages; they come without any extension of ours, too.
_NOTEBOOK_7 = (
    "Cannot read properties of undefined (reading 'schema')",
    "Command 'filebrowser:open-path' not registered.",
)


@pytest.fixture
def open_notebook(page: Page, jupyter: JupyterServer) -> Iterator[Any]:
    """Open a new notebook with cells: ``open_notebook("name.ipynb", "cell", …, app="notebook")``."""
    opened: list[NotebookPage] = []

    def open_(name: str, *cells: str, app: str = "lab", page: Page = page) -> NotebookPage:
        if cells:
            jupyter.write(name, *cells)
        opened.append(NotebookPage(page, jupyter, name, app))
        return opened[-1]

    yield open_
    pictures = os.environ.get("OLAB_TEST_PICTURES")
    for number, one in enumerate(opened if pictures else []):
        one.page.screenshot(path=f"{pictures}/{Path(one.name).stem}-{number}.png")
    jupyter.end_kernels()
    assert [error for one in opened for error in one.errors if one.app == "lab" or error not in _NOTEBOOK_7] == []
