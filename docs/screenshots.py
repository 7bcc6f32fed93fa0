# ruff: noqa: INP001 - a script beside what it makes
"""Make the pictures of the workbench: live panes and played ones, the dashboard, the side panel; light and dark.

    python docs/screenshots.py [CLAUDE]

Three real Claude Codes talk by a script, and one of them asks for a permission. Needed are Chromium and what the
browser tests need, whose server this uses. CLAUDE is the path of Claude Code; the one of the tests by default.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from orchestrator_lab import Cluster

IMAGES = ROOT / "docs" / "images"
#: Bytes that a picture may have at most.
LARGEST = 150_000
CELLS = (
    "from orchestrator_lab import Cluster\n\ncluster = Cluster.attach('rainbow')\ncluster",
    "await cluster['scout'].send('Measure the angle of the bow.')",
)
PLAY = "from orchestrator_lab import open_run\n\nrun = open_run('runs')\nrun.play(at=run.turns['turn_id'][3])"


def rules() -> list[dict[str, Any]]:
    """Return what the agents say."""

    def says(agent: str, *replies: str) -> dict[str, Any]:
        return {"when": {"agent": agent}, "sequence": [{"reply": reply} for reply in replies]}

    command = "python measure.py --angle"
    return [
        {
            "when": {"contains": "Measure the angle"},
            "tool": {"name": "Bash", "input": {"command": command, "description": "Measure the angle of the bow"}},
            "then": {"reply": "42 degrees for red, 40 for violet."},
        },
        says(
            "teacher",
            "Raindrops split sunlight into its colours: each drop is a small prism.",
            "The ground hides the lower half of the ring of drops.",
        ),
        says("child", "Why is it a bow, and not a line?", "Can I see the whole ring?"),
        says("scout", "All drops that send you red light lie on one circle.", "Yes: from an aeroplane."),
    ]


def config(work: Path, program: str) -> dict[str, Any]:
    """Return the cluster that is shown."""
    roles = {"teacher": "explains", "child": "asks about what it hears", "scout": "measures"}
    return {
        "cluster": {
            "name": "rainbow",
            "lifetime": "owner",
            "work_dir": str(work),
            "runs_dir": str(work / "runs"),
            "cols": 76,
            "rows": 22,
            "start_timeout_s": 120,
            "gateway": {"mode": "script", "script": rules()},
        },
        "agents": [{"name": name, "role": role, "kind": "claude", "command": program} for name, role in roles.items()],
    }


def keep(page: Page, name: str, *, of: str | None = None) -> None:
    """Write a picture of the page, or of one element, with few colours."""
    raw = page.locator(of).first.screenshot() if of else page.screenshot()
    picture = Image.open(io.BytesIO(raw)).convert("RGB").quantize(200, dither=Image.Dither.NONE)
    path = IMAGES / f"{name}.png"
    picture.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size:,} bytes")  # noqa: T201 - a script prints
    if size > LARGEST:
        sys.exit(f"{path} has {size} bytes, more than {LARGEST}")


def dashboard(browser: Browser, url: str, token: str) -> None:
    """Take the dashboard."""
    for shade in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1560, "height": 800}, color_scheme=shade)
        page = context.new_page()
        page.goto(f"{url}/orchestrator-lab/?token={token}")
        page.locator(".xterm-rows").nth(2).wait_for()
        page.wait_for_timeout(1500)  # for the fonts and the last picture of each pane
        keep(page, f"dashboard-{shade}")
        context.close()


def opened(browser: Browser, url: str, token: str, notebook: str, shade: str, height: int) -> Page:
    """Open a notebook in JupyterLab, run its first cell, and wait for what it shows."""
    page = browser.new_context(viewport={"width": 1520, "height": height}).new_page()
    page.goto(f"{url}/lab/tree/{notebook}?reset&token={token}")
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.context")
    page.evaluate(
        """async shade => {
            const app = window.jupyterapp;
            await app.restored;
            await app.shell.currentWidget.context.ready;
            await app.shell.currentWidget.sessionContext.ready;
            await app.commands.execute('apputils:change-theme', {theme: `JupyterLab ${shade}`});
            app.shell.collapseLeft();
            await app.commands.execute('notebook:run-cell-and-select-next');
        }""",
        shade.capitalize(),
    )
    page.locator(".olab-pane .xterm-rows").nth(2).wait_for()
    page.locator(".olab-view").first.scroll_into_view_if_needed()
    page.wait_for_timeout(2500)
    page.evaluate("() => document.querySelectorAll('.Toastify__close-button').forEach(one => one.click())")
    page.wait_for_timeout(800)
    return page


def closed(page: Page) -> None:
    """End what a page has started."""
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    page.context.close()


def jupyterlab(browser: Browser, url: str, token: str) -> None:
    """Take the notebook with its panes, the side panel beside a terminal, and a run that is played."""
    for shade in ("light", "dark"):
        page = opened(browser, url, token, "rainbow.ipynb", shade, 820)
        keep(page, f"notebook-{shade}")
        page.evaluate(
            """async () => {
                const commands = window.jupyterapp.commands;
                await commands.execute('orchestrator-lab:show-panel');
                await commands.execute('orchestrator-lab:watch-agent', {cluster: 'rainbow', agent: 'scout'});
            }"""
        )
        page.locator(".jp-Terminal:visible .xterm-screen").wait_for()
        page.set_viewport_size({"width": 1160, "height": 680})
        page.wait_for_timeout(2500)
        keep(page, f"panel-{shade}")
        closed(page)
        page = opened(browser, url, token, "playback.ipynb", shade, 960)
        page.add_style_tag(content=".Toastify { display: none }")  # of the cluster, which goes on
        keep(page, f"playback-{shade}", of=".olab-view")
        closed(page)


def ask(cluster: Cluster) -> None:
    """Have the agents talk, and one ask for a permission."""
    cluster.converse(["teacher", "child", "scout"], "Explain what a rainbow is.", rounds=2).wait(180)
    cluster.wait(timeout=60)
    cluster["scout"].send("Measure the angle of the bow.")
    deadline = time.monotonic() + 60
    while not (cluster.dialogs and cluster.dialogs[0].options):
        if time.monotonic() > deadline:
            sys.exit("no agent asked for a permission within 60 s")
        time.sleep(0.1)


def main(argv: list[str] | None = None) -> int:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    own = ROOT / "tests" / "agents" / "node_modules" / ".bin" / "claude"
    parser.add_argument("claude", nargs="?", metavar="CLAUDE", default=own, help="path of Claude Code")
    program = str(Path(parser.parse_args(argv).claude).resolve())

    # Paths stand in the pictures: short ones.
    with tempfile.TemporaryDirectory(prefix="lab") as place:
        work = Path(place) / "rainbow"
        work.mkdir()
        # The user's own clusters are no part of the pictures; every process of ours is told so by its environment.
        os.environ["ORCHESTRATOR_RUNTIME_DIR"] = str(Path(place) / "runtime")
        (work / "measure.py").write_text("print('42 degrees')\n", encoding="utf-8")
        for name, cells in (("rainbow", CELLS), ("playback", (PLAY,))):
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
            nbformat.write(notebook, work / f"{name}.ipynb")
        take(work, program)
    return 0


def take(work: Path, program: str) -> None:
    """Start cluster, server and browser, and take the pictures."""
    from conftest import chromium_path
    from playwright.sync_api import sync_playwright
    from workbench import built, jupyter

    from orchestrator_lab import Cluster

    built()
    with Cluster.start(config(work, program)) as cluster, jupyter(work) as (url, token), sync_playwright() as driver:
        ask(cluster)
        argv = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=chromium_path(), args=argv)
        dashboard(browser, url, token)
        jupyterlab(browser, url, token)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
