"""The live view in a real JupyterLab: from a byte in a pane to the painted cell, and what it costs.

    python tests/benchmarks/bench_view.py [--seconds S] [--quick] [--json FILE]

Twelve panes write ten lines a second each, every line with the instant at which it was written. The page reads them
when its terminals have drawn them, after the frame was painted; both clocks are the machine's. A headless Chromium
draws without a graphics card, which is the slowest way there is.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from _lab import Figure, absolute, cluster_config, main, relative
from bench_cpu import shares

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from playwright.sync_api import Page

PANES, LINES_A_SECOND = 12, 10
_WRITER = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
due = time.monotonic() + int(sys.argv[2]) / 120
while True:
    time.sleep(max(0, due - time.monotonic()))
    due += 0.1
    sys.stdout.write(f"written {time.time_ns() // 1000} by {sys.argv[2]}\\n")
    sys.stdout.flush()
"""
#: Notes each line of each terminal when it has been painted: a message to itself is handled after the frame.
_LISTEN = """() => {
    const seen = new Set(), found = (window.olabSeen = []);
    const view = document.querySelector('.olab-view').orchestratorLab;
    for (const pane of document.querySelectorAll('.olab-pane')) {
        const terminal = view.terminal(pane.dataset.agent);
        terminal?.onRender(({start, end}) => {
            const buffer = terminal.buffer.active, lines = [];
            for (let y = start; y <= end; y++) {
                const text = buffer.getLine(buffer.viewportY + y)?.translateToString(true) ?? '';
                const told = /^written (\\d+) by/.exec(text);
                if (told && !seen.has(text)) { seen.add(text); lines.push(Number(told[1])); }
            }
            if (!lines.length) return;
            const channel = new MessageChannel();
            channel.port1.onmessage = () => {
                const now = (performance.timeOrigin + performance.now()) * 1000;
                for (const one of lines) found.push([pane.dataset.agent, now - one]);
            };
            channel.port2.postMessage(null);
        });
    }
}"""
_ROUND_TRIPS = """async count => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const times = [];
    for (let n = 0; n < count; n++) {
        const began = performance.now();
        await kernel.requestExecute({code: '1 + 1', store_history: false}).done;
        times.push((performance.now() - began) / 1000);
    }
    return times;
}"""


def browser_tests() -> Any:
    """Return what the browser's tests have: a JupyterLab, a notebook in a page."""
    place = Path(__file__).resolve().parents[1] / "browser" / "conftest.py"
    spec = importlib.util.spec_from_file_location("browser_tests", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel_pid(server: Any) -> int:
    """Return the process of the only kernel."""
    (kernel,) = [one for one in psutil.Process(server.process.pid).children() if "ipykernel" in " ".join(one.cmdline())]
    return kernel.pid


def browser_pids() -> list[int]:
    """Return the browser's processes."""
    return [one.pid for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]


def shown(notebook: Any, page: Page) -> None:
    """Show the view, and wait until every pane is live in it."""
    notebook.run_cell(1, wait=False)
    page.wait_for_function(
        """count => {
            const view = document.querySelector('.olab-view')?.orchestratorLab;
            const panes = [...document.querySelectorAll('.olab-pane')];
            return view && panes.length === count && panes.every(one => view.terminal(one.dataset.agent));
        }""",
        arg=PANES,
    )


def bench(args: argparse.Namespace, place: Path) -> Iterator[Figure]:
    from playwright.sync_api import sync_playwright

    tests = browser_tests()
    seconds = 5.0 if args.quick else args.seconds
    go = place / "go"
    agents = [
        {
            "name": f"a{number:02d}",
            "kind": "program",
            "command": [sys.executable, "-S", "-E", "-c", _WRITER, str(go), str(number)],
            "turn_end": {"quiet_s": 0.2},
        }
        for number in range(PANES)
    ]
    config = cluster_config(place, "viewed", agents, cols=60, rows=12, start_timeout_s=120)
    folder = place / "j"
    folder.mkdir()
    received = [0]

    def count(data: str | bytes) -> None:
        received[0] += len(data)

    with Cluster.start(config), sync_playwright() as playwright:
        server = tests.JupyterServer(folder)
        browser = playwright.chromium.launch(
            executable_path=tests.chromium_path(),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
        )
        try:
            server.wait()
            server.write(
                "view.ipynb",
                "from orchestrator_lab import Cluster\ncluster = Cluster.attach('viewed')",
                "view = cluster.view(); view",
                "view.close()",
            )
            page = browser.new_page(viewport={"width": 2200, "height": 2000})
            page.set_default_timeout(60_000)
            page.on(
                "websocket",
                lambda socket: socket.on(
                    "framereceived", lambda data: received.__setitem__(0, received[0] + len(data))
                ),
            )
            notebook = tests.NotebookPage(page, server, "view.ipynb")
            notebook.run_cell(0)
            shown(notebook, page)
            go.touch()
            page.wait_for_timeout(1500)
            page.evaluate(_LISTEN)
            # What was on the screens before scrolls away.
            page.wait_for_timeout(2000)
            yield from pictures(page, received, {"kernel": [kernel_pid(server)], "page": browser_pids()}, seconds)
            yield cells(notebook, page, 2 if args.quick else 5)
        finally:
            browser.close()
            server.close()


def pictures(page: Page, received: list[int], groups: dict[str, list[int]], seconds: float) -> Iterator[Figure]:
    """Measure the panes while they are looked at."""
    page.evaluate("() => { window.olabSeen.length = 0; }")
    began, before = time.monotonic(), received[0]
    # The browser's messages are taken in meanwhile.
    with ThreadPoolExecutor(1) as thread:
        measured = thread.submit(shares, groups, seconds)
        page.wait_for_timeout(seconds * 1000)
        used = measured.result()
    spent = time.monotonic() - began
    found = page.evaluate("() => window.olabSeen")
    delays = sorted(delay / 1e6 for _, delay in found)
    panes = len({agent for agent, _ in found})
    lines = f"{len(delays)} of {int(PANES * LINES_A_SECOND * spent)} lines in {panes} panes"
    yield absolute(
        "byte in a pane to the painted cell, median", statistics.median(delays), unit="s", below=None, note=lines
    )
    yield absolute("byte in a pane to the painted cell, p95", delays[int(len(delays) * 0.95)], unit="s", below=None)
    yield absolute("what the page receives", (received[0] - before) / spent / 1000, unit="kB/s", below=None)
    for name, told in (("kernel", "kernel, of one core"), ("page", "browser, all its processes, of one core")):
        yield absolute(told, used[name], unit="%", below=None)


def cells(notebook: Any, page: Page, rounds: int) -> Figure:
    """Measure cells with the view and without it, in turns; the panes write all the time."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    page.evaluate(_ROUND_TRIPS, 10)
    for _ in range(rounds):
        times["with"] += page.evaluate(_ROUND_TRIPS, 40)
        notebook.run_cell(2)
        page.wait_for_timeout(300)
        times["without"] += page.evaluate(_ROUND_TRIPS, 40)
        shown(notebook, page)
        page.wait_for_timeout(500)
    return relative(
        "a cell's round trip with the view", times["without"], times["with"], at_most=1.2, note="baseline: without it"
    )


if __name__ == "__main__":
    main(
        "Live view",
        bench,
        ("--seconds", {"type": float, "default": 15.0, "help": "how long the panes are looked at"}),
    )
