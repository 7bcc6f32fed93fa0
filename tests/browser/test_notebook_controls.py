"""The controls in JupyterLab: they work in a cell that awaits, and say so when a synchronous cell keeps the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.browser, pytest.mark.timeout(170)]

CELLS = [
    "import asyncio, os, time",
    "from orchestrator_lab import Cluster; from orchestrator_lab.widgets.controls import ClusterControls",
    "cluster = Cluster.attach('steered'); ClusterControls(cluster)",
    "open('awaiting', 'w').close()\nwhile len(cluster.run.messages) < 4: await asyncio.sleep(0.1)",
    "while not os.path.exists('end'): time.sleep(0.05)",
]


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    with Cluster.start(script_config("ada", "bob", name="steered", lifetime="owner")) as started:
        yield started


def test_in_an_awaiting_and_in_a_synchronous_cell(cluster: Cluster, open_notebook: Any) -> None:
    notebook = open_notebook("controls.ipynb", *CELLS)
    page = notebook.page
    notebook.run_cell(0)
    notebook.run_cell(1)
    notebook.run_cell(2)
    controls = page.locator(".olab-controls").first
    controls.get_by_text("idle").first.wait_for()

    # A cell awaits: what is typed and clicked reaches the agents at once, by keyboard too.
    notebook.run_cell(3, wait=False)
    notebook.wait_for(notebook.jupyter.root / "awaiting")
    controls.get_by_role("textbox").fill("from the browser")
    controls.get_by_role("button", name="Ask").press("Enter")
    controls.get_by_text("bob: bob: from the browser").wait_for()
    # What it handles beside the cell makes it "idle" for a moment.
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'"
    )
    controls.get_by_role("textbox").fill("and once more")
    controls.get_by_role("button", name="Ask").click()
    controls.get_by_text("bob: bob: and once more").wait_for()
    assert set(cluster.run.messages["source"]) == {"human"}
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
    )

    # A synchronous one: view only, and it says why; afterwards they work again.
    notebook.run_cell(4, wait=False)
    controls.get_by_text("View only until this cell ends").wait_for()
    expect(controls.get_by_role("button", name="Ask")).to_be_disabled()
    (notebook.jupyter.root / "end").touch()
    controls.get_by_text("View only until this cell ends").wait_for(state="detached")
    controls.get_by_role("textbox").fill("again")
    controls.get_by_role("button", name="Ask").click()
    controls.get_by_text("ada: ada: again").wait_for()
