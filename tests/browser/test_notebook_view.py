"""The live view in JupyterLab and Notebook 7: it shows what tmux shows, types when it may, survives what happens."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect
from tmux_cells import run, tmux_cells, tmux_cursor

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.browser, pytest.mark.timeout(170)]

#: Writes what it is told, base64 in and raw bytes out; anything else it repeats.
PROGRAM = """
import base64, os, sys, tty
tty.setraw(0)
out = sys.stdout.buffer
out.write(b'ready\\r\\n'); out.flush()
held = b''
while data := os.read(0, 65536):
    held += data
    while b'\\r' in held:
        line, _, held = held.partition(b'\\r')
        word, _, rest = line.partition(b' ')
        if word == b'flood':
            one = b'\\x1b[%d;%dH\\x1b[3%dm*\\x1b[?25l\\x1b]0;%d\\x07'
            piece = b''.join(one % (n % 40, n % 100, n % 8, n) for n in range(40000))
            for _ in range(int(rest) // len(piece)):
                out.write(piece)
        elif word == b'raw':
            out.write(base64.b64decode(rest))
        else:
            out.write(b'got %r\\r\\n' % line)
        out.flush()
"""
TORTURE = (
    "\x1b[2J\x1b[H\x1b[1mbold\x1b[0m \x1b[2mdim\x1b[0m \x1b[3mitalic\x1b[0m \x1b[4munder\x1b[0m \x1b[7minverse\x1b[0m "
    "\x1b[9mstruck\x1b[0m \x1b[1;3;4;38;5;45mall\x1b[0m\r\n"
    + "".join(f"\x1b[{30 + n}mf{n}\x1b[{90 + n}mF{n}\x1b[0;{40 + n}mb{n}\x1b[{100 + n}mB{n}\x1b[0m" for n in range(8))
    + "\r\n"
    + "".join(f"\x1b[38;5;{n}m{n:x}" for n in range(0, 256, 7))
    + "\x1b[0m\r\n\x1b[38;2;12;200;99mtrue\x1b[48;2;90;0;90mcolour\x1b[0m plain\r\n"
    "日本語 한국어 漢字 ｆｕｌｌ 😀 e\u0301 \x1b(0lqqk\x1b(B\r\n"
    "\x1b[10;20Hplaced\x1b[12;1Hone\x1b[2Gtwo\x1b[13;5Hgone\x1b[2K\x1b[14;1Hinsert\x1b[1G\x1b[4@\x1b[15;1Hdelete\x1b[1G\x1b[2P"
    "\x1b[16;20r\x1b[20;1Ha\nb\nc\nd\x1b[r\x1b[21;1H" + "x" * 200 + "y\x1b[5;30H\x1b[?1h\x1b[?25l"
)
SHOW = ["from orchestrator_lab import Cluster", "cluster = Cluster.attach('seen')", "view = cluster.view(); view"]


#: A view lets go of a pane whose host has not answered for 700 ms: on a busy machine that must not end what is typed.
PATIENT = """() => {
    const soon = window.setTimeout;
    window.setTimeout = (call, ms, ...rest) => soon(call, ms === 700 ? 20_000 : ms, ...rest);
}"""


def program(name: str, **keys: Any) -> dict[str, Any]:
    command = [sys.executable, "-S", "-E", "-c", PROGRAM]
    return {"name": name, "kind": "program", "command": command, "turn_end": {"quiet_s": 0.1}, **keys}


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    config = script_config("ada", name="seen", lifetime="owner", script=[{"reply": "{agent} says: {text}"}])
    config["agents"] += [program("one", role="torture"), program("two")]
    with Cluster.start(config) as started:
        yield started


def tell(cluster: Cluster, agent: str, keys: str) -> None:
    cluster.client.post(f"/agents/{agent}/keys", {"keys": keys})


def write(cluster: Cluster, agent: str, text: str) -> None:
    """Have a program write to its terminal."""
    tell(cluster, agent, f"raw {base64.b64encode(text.encode()).decode()}\r")


def same(cluster: Cluster, notebook: Any, agent: str, seconds: float = 20.0) -> None:
    """Compare page and tmux, cell by cell."""
    deadline = time.monotonic() + seconds
    while True:
        there, here = tmux_cells(cluster, agent), notebook.cells(agent)
        cursors = tmux_cursor(cluster, agent), notebook.cursor(agent) if here else None
        if there == here and cursors[0] == cursors[1]:
            return
        if time.monotonic() > deadline:
            break
        notebook.page.wait_for_timeout(100)
    assert len(there) == len(here)
    for y, (one, other) in enumerate(zip(there, here, strict=True)):
        for x, (a, b) in enumerate(zip(one, other, strict=True)):
            assert a == b, f"line {y}, column {x}: tmux has {a}, the page {b}"
    assert cursors[0] == cursors[1]


def reset(cluster: Cluster, agent: str) -> None:
    write(cluster, agent, "\x1bc\x1b[?1l\x1b[?25hready\r\n")


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_panes_show_what_tmux_shows(cluster: Cluster, open_notebook: Any, app: str) -> None:
    reset(cluster, "one")
    notebook = open_notebook(f"show-{app}.ipynb", *SHOW, app=app)
    notebook.run()
    notebook.until("one", "ready")
    write(cluster, "one", TORTURE)  # as it is written
    same(cluster, notebook, "one")
    notebook.page.evaluate("() => document.querySelector('.olab-view').orchestratorLab.repaint('one')")
    notebook.page.wait_for_timeout(300)  # as it is repainted
    same(cluster, notebook, "one")
    write(cluster, "one", "\x1b[?25h\x1b[?1049h\x1b[2J\x1b[3;3Hanother screen")
    same(cluster, notebook, "one")
    write(cluster, "one", "\x1b[?1049l")
    same(cluster, notebook, "one")
    # A query that badly bundled terminals stumble over, and the others that are not to be answered.
    before = len(cluster.events())
    write(
        cluster, "one", "\x1b[?2026$p\x1b[c\x1b[>c\x1b[6n\x1b]11;?\x07\x1b[>q\x1b[18t\x1bP$qm\x1b\\\x1b[?1004hhere I am"
    )
    notebook.until("one", "here I am")
    cluster["ada"].ask("how are you?\nin two lines", timeout=30)
    row = notebook.view.locator(".olab-message", has_text="how are you?").last
    row.locator('[data-rung="answered"]').wait_for()
    assert "user" in row.inner_text()
    notebook.pane("ada").get_by_text("turn").wait_for()
    notebook.page.locator('.olab-view [aria-label="Agent ada: idle"]').first.wait_for()
    keys = [event for event in cluster.events()[before:] if event.event == "agent.keys"]
    assert len(keys) == 1  # the test's own: no answer was typed
    write(cluster, "one", "")  # what tmux answered stands before the next line


def test_typing_needs_a_click_and_is_journalled(cluster: Cluster, open_notebook: Any) -> None:
    reset(cluster, "two")
    notebook = open_notebook("type.ipynb", *SHOW)
    notebook.run()
    notebook.until("two", "ready")
    page, pane = notebook.page, notebook.pane("two")
    page.evaluate(PATIENT)
    before = len(cluster.events())
    pane.locator(".olab-frame").click()
    page.wait_for_timeout(200)
    page.keyboard.type("not for the agent")
    page.wait_for_timeout(300)
    assert not [event for event in cluster.events()[before:] if event.event == "agent.keys"]
    # The notebook's own shortcuts may have met the keys: the view has to be there still.
    pane.hover()
    pane.get_by_role("button", name="Take over").click()
    pane.get_by_role("button", name="Let go").wait_for()
    page.keyboard.type("dd aa héllo")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Control+c")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    notebook.until("two", r"got b'dd aa h\xc3\xa9llo\x1b[A\x03\x1b'")

    def typed() -> list[Any]:
        return [event for event in cluster.events()[before:] if event.event == "agent.keys"]

    # The pane may show them before the journal tells of them.
    size, deadline = len("dd aa héllo\x1b[A\x03\x1b\r".encode()), time.monotonic() + 20
    while sum(event.attributes["bytes"] for event in typed()) != size:
        assert time.monotonic() < deadline, typed()
        page.wait_for_timeout(50)
    keys = typed()
    assert {event.source for event in keys} == {"human"}
    page.keyboard.press("Shift+Escape")
    pane.get_by_role("button", name="Take over").wait_for()
    page.keyboard.type("zzz")
    page.wait_for_timeout(300)
    assert len(typed()) == len(keys)


def test_a_cell_that_does_not_await_leaves_the_view_alive_and_view_only(cluster: Cluster, open_notebook: Any) -> None:
    reset(cluster, "two")
    notebook = open_notebook(
        "busy.ipynb",
        *SHOW,
        "import os, time; open('holds', 'w').close()\nwhile not os.path.exists('let go'): time.sleep(0.05)",
        "import asyncio; open('awaits', 'w').close()\nwhile not os.path.exists('end'): await asyncio.sleep(0.05)",
    )
    root = notebook.jupyter.root
    for number in range(3):
        notebook.run_cell(number)
    notebook.until("two", "ready")
    page, pane = notebook.page, notebook.pane("two")
    notebook.run_cell(3, wait=False)
    notebook.wait_for(root / "holds")
    pane.hover()
    pane.get_by_role("button", name="Take over").click()
    # A kernel that handles the view's messages beside the cell (ipykernel does, or not, by who published last) lets
    # itself be typed into; one that does not is waited for in vain, and the view says so.
    taken, told = pane.get_by_role("button", name="Let go"), notebook.view.get_by_text("View only").first
    taken.or_(told).first.wait_for()
    if not told.is_visible():
        page.keyboard.type("meanwhile\r")
        notebook.until("two", "got b'meanwhile'")
        taken.click()
    write(cluster, "two", "still alive")
    notebook.until("two", "still alive")
    (root / "let go").touch()
    page.locator(".olab-banner").wait_for(state="hidden")
    page.evaluate(PATIENT)
    notebook.run_cell(4, wait=False)
    notebook.wait_for(root / "awaits")
    pane.hover()
    pane.get_by_role("button", name="Take over").click()
    pane.get_by_role("button", name="Let go").wait_for()
    page.keyboard.type("awaited\r")
    notebook.until("two", "got b'awaited'")
    (root / "end").touch()


def test_hostile_output_is_shown_and_does_nothing(cluster: Cluster, open_notebook: Any) -> None:
    reset(cluster, "one")
    notebook = open_notebook("hostile.ipynb", *SHOW)
    notebook.run()
    notebook.until("one", "ready")
    page = notebook.page
    title = page.title()
    page.evaluate("() => { window.opened = []; window.open = (...all) => { window.opened.push(all); return null; }; }")
    bad = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    clip = base64.b64encode(b"stolen").decode()
    write(
        cluster,
        "one",
        f"\x1b]0;{bad}\x07\x1b]52;c;{clip}\x07{bad}\r\n"
        "\x1b]8;;javascript:window.hacked=1\x1b\\evil link\x1b]8;;\x1b\\\r\n"
        "\x1b]8;;https://example.org/\x1b\\good link\x1b]8;;\x1b\\\r\nend of it",
    )
    notebook.until("one", "end of it")
    assert bad in notebook.shows("one")
    cluster["ada"].ask(bad, timeout=30)
    notebook.view.locator(".olab-message", has_text="window.hacked").last.wait_for()
    box = notebook.pane("one").locator(".xterm-screen").bounding_box()
    cell = page.evaluate(
        """() => { const t = document.querySelector('.olab-view').orchestratorLab.terminal('one');
        const s = t.element.querySelector('.xterm-screen');
        return [s.clientWidth / t.cols, s.clientHeight / t.rows]; }"""
    )
    for text, leads in (("evil link", False), ("good link", True)):
        line = next(y for y, shown in enumerate(notebook.shows("one").split("\n")) if text in shown)
        x, y = box["x"] + 3.5 * cell[0], box["y"] + (line + 0.5) * cell[1]
        opened: set[str] = set()
        deadline = time.monotonic() + 20
        while not opened and time.monotonic() < deadline:
            page.mouse.move(x + 1, y)
            page.mouse.move(x, y)
            page.wait_for_timeout(150)  # the terminal looks for a link under the mouse, and opens it, when it can
            page.mouse.click(x, y)
            page.wait_for_timeout(150)
            opened = {one[0] for one in page.evaluate("() => window.opened")}
            if not leads:
                break
        assert opened == ({"https://example.org/"} if leads else set())
    assert page.evaluate("() => window.hacked") is None
    assert page.evaluate("() => document.querySelectorAll('.olab-view script, .olab-view img').length") == 0
    assert "script" not in page.title()
    assert page.title().split(" ")[0] == title.split(" ")[0]


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_a_hundred_megabytes_leave_page_and_kernel_responsive(cluster: Cluster, open_notebook: Any) -> None:
    reset(cluster, "one")
    notebook = open_notebook("flood.ipynb", *SHOW, "1 + 1")
    for number in range(3):
        notebook.run_cell(number)
    notebook.until("one", "ready")
    page = notebook.page
    tell(cluster, "one", "flood 100000000\r")
    write(cluster, "one", "\x1b[0m\x1b[2J\x1b[H\x1b[?25hthe end of the flood")
    slowest, cell = 0.0, 0.0
    deadline = time.monotonic() + 270  # tmux itself takes a minute or two where it has half a core
    while "the end of the flood" not in notebook.shows("one"):
        assert time.monotonic() < deadline, notebook.shows("one")[-500:]
        begun = time.monotonic()
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => done(1)))")
        slowest = max(slowest, time.monotonic() - begun)
        if not cell:
            begun = time.monotonic()
            notebook.run_cell(3)
            cell = time.monotonic() - begun
        page.wait_for_timeout(100)
    assert slowest < 3.0
    assert cell < 10.0
    same(cluster, notebook, "one")
    heap = page.evaluate("() => performance.memory.usedJSHeapSize")
    assert heap < 400e6


def test_reload_kernel_restart_and_several_views(cluster: Cluster, open_notebook: Any) -> None:
    reset(cluster, "one")
    notebook = open_notebook("lives.ipynb", *SHOW, "cluster.view(agents=['one'], controls=False, theme='dark')")
    notebook.run()
    notebook.until("one", "ready")
    page = notebook.page
    page.locator(".olab-view").nth(1).scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelectorAll('.olab-view')[1]?.orchestratorLab.terminal('one')")
    assert page.locator(".olab-view").nth(1).get_attribute("data-shade") == "dark"
    assert page.locator(".olab-view").nth(1).locator(".olab-pane").count() == 1
    write(cluster, "one", "before the reload\r\n")
    deadline = time.monotonic() + 20
    while "before the reload" not in notebook.shows("one", 1):
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    notebook.save()
    notebook.open()
    notebook.view.wait_for()
    notebook.view.scroll_into_view_if_needed()
    notebook.until("one", "before the reload")
    write(cluster, "one", "after the reload\r\n")
    notebook.until("one", "after the reload")
    same(cluster, notebook, "one")
    # The kernel goes, the cluster stays: a new kernel attaches, and its view is right from the first moment.
    notebook.restart_kernel()
    notebook.run()
    notebook.view.scroll_into_view_if_needed()  # who runs all cells is led to the last one
    notebook.until("one", "after the reload")
    write(cluster, "one", "after the restart\r\n")
    notebook.until("one", "after the restart")
    same(cluster, notebook, "one")


def test_saved_notebooks_show_stills(
    open_notebook: Any, context: BrowserContext, jupyter: Any, script_config: Callable[..., dict[str, Any]]
) -> None:
    config = script_config("ada", name="saved", script=[{"reply": "red words of {agent}"}])
    notebook = open_notebook(
        "saved.ipynb",
        "import json; from orchestrator_lab import Cluster\n"
        f"cluster = Cluster.start(json.loads({json.dumps(config)!r}))",
        "cluster",
        "await cluster['ada'].send('hello'); None",
        "await cluster.ashutdown(); None",
    )
    notebook.run()
    page = notebook.page
    page.locator(".jp-OutputArea pre", has_text="words of ada").first.wait_for()
    page.wait_for_function("() => !document.querySelector('.olab-view')")
    notebook.save()
    jupyter.end_kernels()
    text = (jupyter.root / "saved.ipynb").read_text()
    assert "widget-view+json" not in text
    assert "ClusterView(agents=1)" in text
    trusted = open_notebook("saved.ipynb", page=context.new_page())
    trusted.page.locator(".jp-OutputArea pre", has_text="words of ada").first.wait_for()
    assert "model not found" not in trusted.page.locator("body").inner_text()
    # The same from somebody else: nobody here has signed it.
    (jupyter.root / "foreign.ipynb").write_text(text.replace("words of ada", "words of someone"))
    foreign = open_notebook("foreign.ipynb", page=context.new_page())
    shown = foreign.page.locator(".jp-OutputArea pre", has_text="words of someone").first
    shown.wait_for()
    assert "model not found" not in foreign.page.locator("body").inner_text()


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_notebook_saved_while_its_view_lives_keeps_its_newest_still(
    cluster: Cluster, open_notebook: Any, context: BrowserContext, jupyter: Any, app: str
) -> None:
    reset(cluster, "one")
    name = f"alive-{app}.ipynb"
    notebook = open_notebook(name, *SHOW, app=app)
    notebook.run()
    notebook.until("one", "ready")
    write(cluster, "one", f"news for {app}\r\n")
    notebook.until("one", f"news for {app}")
    notebook.page.wait_for_function(
        "text => document.querySelector('.olab-view').orchestratorLab.stillHtml().includes(text)", arg=f"news for {app}"
    )
    notebook.save()
    assert notebook.view.is_visible()
    text = (jupyter.root / name).read_text()
    assert "widget-view+json" in text  # a page that is loaded again finds its view
    assert f"news for {app}" in text
    jupyter.end_kernels()
    again = open_notebook(name, page=context.new_page(), app=app)
    again.page.locator(".jp-OutputArea pre", has_text=f"news for {app}").first.wait_for()
    again.page.locator(".jp-OutputArea-output", has_text="model not found").first.wait_for(state="hidden")


def test_thirty_agents_stay_readable_and_cost_nothing_out_of_sight(
    open_notebook: Any, script_config: Callable[..., dict[str, Any]]
) -> None:
    config = script_config(name="thirty", lifetime="owner", cols=100, rows=30)
    config["agents"] = [program(f"agent-{number:02}", role="one of many") for number in range(30)]
    with Cluster.start(config) as cluster:
        notebook = open_notebook(
            "thirty.ipynb", "from orchestrator_lab import Cluster", "Cluster.attach('thirty').view(controls=False)"
        )
        notebook.run()
        page = notebook.page
        notebook.until("agent-00", "ready")
        page.wait_for_function("() => document.querySelectorAll('.olab-pane').length === 30")
        drawn = """() => [...document.querySelectorAll('.olab-pane')]
            .filter(pane => document.querySelector('.olab-view').orchestratorLab.terminal(pane.dataset.agent)).length"""
        page.wait_for_function(f"() => ({drawn})() >= 3")
        assert page.evaluate(drawn) < 30  # those in sight
        size = page.evaluate(
            "() => document.querySelector('.olab-view').orchestratorLab.terminal('agent-00').options.fontSize"
        )
        assert size >= 8
        names = page.locator(".olab-pane .olab-name").all_inner_texts()
        assert names == [f"agent-{number:02}" for number in range(30)]
        expect(page.locator('.olab-pane[data-agent="agent-29"] .olab-state')).to_have_text(
            re.compile("^idle"), use_inner_text=True
        )
        notebook.pane("agent-29").scroll_into_view_if_needed()
        notebook.until("agent-29", "ready")
        same(cluster, notebook, "agent-29")
        notebook.pane("agent-29").get_by_role("button", name="Maximise").click()
        page.locator(".olab-pane.olab-maximised").wait_for()
        assert page.locator(".olab-pane:visible").count() == 1
        page.keyboard.press("Escape")
        page.wait_for_function("() => !document.querySelector('.olab-maximised')")
        if place := os.environ.get("OLAB_TEST_PICTURES"):
            notebook.view.scroll_into_view_if_needed()
            page.screenshot(path=f"{place}/thirty.png")


@pytest.mark.claude
def test_claude_code_looks_as_in_tmux(
    open_notebook: Any, script_config: Callable[..., dict[str, Any]], claude_command: str
) -> None:
    reply = "Here is **bold** text, a list:\n\n- one\n- two\n\n```python\nprint('日本語')\n```"
    config = script_config(name="real", lifetime="owner", script=[{"reply": reply}], cols=120, rows=40)
    config["agents"] = [{"name": "clara", "kind": "claude", "command": claude_command, "config": "isolated"}]
    with Cluster.start(config) as cluster:
        notebook = open_notebook("real.ipynb", "from orchestrator_lab import Cluster", "Cluster.attach('real').view()")
        notebook.run()
        notebook.view.wait_for()
        cluster["clara"].ask("Show me everything.", timeout=100)
        notebook.until("clara", "Show me everything.")
        same(cluster, notebook, "clara")
        assert "Claude Code" in run(cluster, "capture-pane", "-p", "-t", cluster["clara"].facts["pane_id"])
