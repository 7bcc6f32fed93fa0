"""The JupyterLab extension in a real browser: panels, status bar, notifications, terminals, viewers."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
import zstandard
from playwright.sync_api import expect
from workbench import ROWS, Bench, opened, other, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def bench(module_runtime: Path, chromium: Browser) -> Iterator[Bench]:
    del module_runtime
    with opened("lab-ext", chromium) as made:
        made.cluster.ask("ada", "hello", timeout=30)
        yield made


@pytest.fixture(scope="module")
def page(bench: Bench) -> Iterator[Page]:
    with bench.page("lab?reset") as made:
        expect(made.locator(".jp-Launcher").first).to_be_visible(timeout=60_000)
        yield made


def execute(page: Page, name: str, **args: object) -> None:
    """Execute a command as a menu does."""
    page.evaluate("([id, args]) => void window.jupyterapp.commands.execute(id, args)", [name, args])


def command(page: Page, name: str, **args: object) -> None:
    execute(page, f"orchestrator-lab:{name}", **args)


def panel(page: Page) -> Locator:
    command(page, "show-panel")
    shown = page.get_by_role("region", name="Agent clusters")
    expect(shown).to_be_visible()
    return shown


def rows(terminal: Locator) -> list[str]:
    found = terminal.locator(".xterm-rows > div").evaluate_all(ROWS)
    while found and not found[-1]:
        found.pop()
    return found


def terminal_text(page: Page, name: str) -> str:
    """Return what a terminal of Jupyter shows: it is drawn on a canvas, its buffer is its truth."""
    script = """name => {
        for (const widget of window.jupyterapp.shell.widgets('main')) {
            const terminal = widget.content && widget.content._term;
            if (terminal && widget.content.session.name === name) {
                const buffer = terminal.buffer.active;
                const line = (_, y) => buffer.getLine(y).translateToString(true);
                return Array.from({length: buffer.length}, line).join('\\n');
            }
        }
        return '';
    }"""
    return str(page.evaluate(script, name))


def test_the_status_bar_counts_and_opens_the_panel(bench: Bench, page: Page) -> None:
    del bench
    item = page.locator("button.ol-status")
    expect(item).to_have_text(re.compile(r"^0 busy · 0 waiting · \d+ tokens$"))
    item.click()
    shown = page.get_by_role("region", name="Agent clusters")
    expect(shown.get_by_role("region", name="Cluster lab-ext")).to_contain_text("1 turn")
    expect(shown.locator(".ol-agent")).to_have_count(3)
    expect(shown.locator(".ol-agent").first).to_contain_text("○ idle")


def test_a_question_is_told_and_answered_on_its_notification(bench: Bench, page: Page) -> None:
    bench.ask(command="rm -r <b>build</b>")
    told = page.locator(".Toastify__toast", has_text="asker (lab-ext) asks, permission")
    expect(told).to_contain_text("rm -r <b>build</b>")
    assert told.locator("b").count() == 0
    expect(page.locator("button.ol-status")).to_contain_text("1 waiting")
    shown = panel(page)
    expect(shown.get_by_role("group", name="asker asks").get_by_role("button")).to_have_count(3)
    told.get_by_role("button", name="Yes, and do not ask again").click()
    answered = until(lambda: bench.records("dialog_answered"))
    assert "do not ask again" in str(answered[-1])
    expect(told).to_have_count(0)
    expect(page.locator("button.ol-status")).to_contain_text("0 waiting")
    expect(shown.locator(".ol-dialog")).to_have_count(0)


def test_an_answer_given_elsewhere_takes_the_notification_away(bench: Bench, page: Page) -> None:
    bench.ask()
    told = page.locator(".Toastify__toast", has_text="asker (lab-ext) asks, permission")
    expect(told).to_be_visible()
    until(lambda: bench.cluster.dialogs and bench.cluster.dialogs[0].options)
    bench.cluster.dialogs[0].answer("deny")
    expect(told).to_have_count(0)


def test_an_alert_is_shown_told_and_acknowledged(bench: Bench, page: Page) -> None:
    shown = panel(page)
    bench.ask()
    alert = shown.locator(".ol-alert", has_text="asker asks a person")
    expect(alert).to_be_visible()
    alert.get_by_role("button", name="Acknowledge").click()
    expect(alert).to_contain_text("acknowledged")
    audit = [one["attributes"] for one in bench.events("action.requested")]
    assert "acknowledge" in [one["action"] for one in audit]
    shown.get_by_role("group", name="asker asks").get_by_role("button", name="Yes", exact=True).click()
    expect(alert).to_have_count(0)


def test_the_running_panel_opens_an_agent_read_only_and_another_terminal_takes_over(bench: Bench, page: Page) -> None:
    page.locator('[data-id="jp-running-sessions"]').click()
    item = page.locator(".ol-running-agent", has_text="ada")
    expect(item).to_be_visible()
    item.locator(".jp-RunningSessions-itemLabel").click()
    until(lambda: "ada: hello" in terminal_text(page, "lab_lab_ext_ada_1"))
    page.locator(".jp-Terminal:visible .xterm-screen").click()
    page.keyboard.type("not taken")
    command(page, "take-over-agent", cluster="lab-ext", agent="bob")
    until(lambda: "Write a message" in terminal_text(page, "lab_lab_ext_bob_1"))
    page.locator(".jp-Terminal:visible .xterm-screen").click()
    page.keyboard.type("by hand\r")
    until(lambda: "bob: by hand" in terminal_text(page, "lab_lab_ext_bob_1"))
    assert "bob: by hand" in str(bench.cluster["bob"].screen())
    assert "not taken" not in str(bench.cluster["ada"].screen())
    attached = [
        one["attributes"] for one in bench.events("action.requested") if one["attributes"]["action"] == "attach"
    ]
    assert [one["details"]["read_only"] for one in attached] == [True, False]


def test_a_recording_is_played_and_searched(bench: Bench, page: Page) -> None:
    """A second of red, and a jump back: what is shown is what the recording had at that instant."""
    header = {"version": 3, "term": {"cols": 40, "rows": 4}, "title": "torture"}
    # A mode is asked for (the answer must go nowhere), a link and a clipboard write must do nothing.
    events = [
        [0.5, "o", "first\r\n"],
        [0.5, "o", "\x1b[?2026$p\x1b]52;c;aGk=\x07\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07\r\n"],
        [1.0, "r", "50x5"],
        [1.0, "o", "\x1b[31m日本 last\x1b[0m"],
    ]
    path = bench.root / "one.cast"
    path.write_text("\n".join(map(json.dumps, [header, *events])) + '\n[0.1, "o", "torn')
    execute(page, "docmanager:open", path="one.cast")
    viewer = page.locator(".ol-cast")
    until(lambda: rows(viewer) == ["first", "link", "日本 last"])
    expect(viewer.get_by_role("status")).to_contain_text("line 6 cannot be read")
    slider = viewer.get_by_role("slider")
    slider.fill("0.7")
    until(lambda: rows(viewer) == ["first"])
    expect(slider).to_have_attribute("aria-valuetext", "0:00.7 / 0:03.0")
    viewer.get_by_role("button", name="Play").click()
    until(lambda: rows(viewer) == ["first", "link", "日本 last"])
    expect(viewer.get_by_role("button", name="Play")).to_be_visible()


def test_a_recording_that_unpacks_without_end_is_refused(bench: Bench, page: Page) -> None:
    packed = zstandard.ZstdCompressor().compress(b'{"version":3}\n' + b"\n" * (101 * 1024 * 1024))
    assert len(packed) < 100_000
    (bench.root / "bomb.cast.zst").write_bytes(packed)
    execute(page, "docmanager:open", path="bomb.cast.zst")
    expect(page.get_by_text("this recording is longer than 100 MB")).to_be_visible()


def test_a_run_is_opened_without_a_kernel(bench: Bench, page: Page) -> None:
    folder = bench.root / "received"
    shutil.copytree(bench.cluster.run_dir, folder)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    command(page, "open-run", path="received")
    viewer = page.locator(".ol-run")
    expect(viewer.get_by_role("heading", name="Run lab-ext: no end recorded")).to_be_visible()
    expect(viewer.get_by_role("row", name=re.compile("user ada answered hello"))).to_be_visible()
    agent = viewer.get_by_role("row", name=re.compile("^ada chat plans 1 1"))
    agent.get_by_role("button", name="Open").click()
    recording = page.locator(".ol-cast:visible")
    until(lambda: any("ada: hello" in row for row in rows(recording)))
    execute(page, "docmanager:open", path="asker.json", factory="Agent Run")
    expect(page.get_by_text("asker.json is no manifest of a run")).to_be_visible()


def test_a_double_click_on_a_manifest_opens_a_run_and_another_programs_as_ever(bench: Bench, page: Page) -> None:
    for folder, text in (("run", None), ("app", '{"name": "an app", "icons": []}')):
        place = bench.root / "manifests" / folder
        place.mkdir(parents=True)
        manifest = (bench.cluster.run_dir / "manifest.json").read_text(encoding="utf-8") if text is None else text
        (place / "manifest.json").write_text(manifest, encoding="utf-8")
    listing = page.locator(".jp-DirListing-item", has_text="manifest.json")
    execute(page, "filebrowser:open-path", path="manifests/run")
    listing.dblclick()
    expect(page.locator(".ol-run:visible").get_by_role("heading", name="Run lab-ext")).to_be_visible()
    opened = page.locator(".ol-run").count()
    execute(page, "filebrowser:open-path", path="manifests/app")
    expect(page.locator(".jp-BreadCrumbs")).to_contain_text("app")
    listing.dblclick()
    expect(page.locator(".jp-Document:visible", has_text="an app")).to_be_visible()
    expect(page.locator(".ol-run")).to_have_count(opened)
    command(page, "open-run", path="manifests/app")
    expect(page.locator(".Toastify__toast", has_text="app/manifest.json is no manifest of a run")).to_be_visible()


def test_palette_launcher_and_dashboard(bench: Bench, page: Page) -> None:
    execute(page, "launcher:create")
    page.locator(".jp-LauncherCard:visible", has_text="Agent Clusters").click()
    frame = page.frame_locator("#orchestrator-lab-dashboard iframe")
    expect(frame.get_by_role("heading", name=bench.name)).to_be_visible()
    # A link that an agent printed opens a tab of its own.
    sandbox = page.locator("#orchestrator-lab-dashboard iframe").get_attribute("sandbox") or ""
    assert {"allow-popups", "allow-popups-to-escape-sandbox"} <= set(sandbox.split())
    page.keyboard.press("Control+Shift+C")
    page.locator(".lm-CommandPalette-input").fill("take over agent")
    expect(page.locator(".lm-CommandPalette-item", has_text="Take Over Agent in Terminal").first).to_be_visible()
    page.keyboard.press("Escape")


def test_a_cluster_of_another_program_comes_and_goes_by_push(page: Page) -> None:
    shown = panel(page)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if one.url.endswith("/api/clusters") else None)
    with other("late"):
        late = shown.get_by_role("region", name="Cluster late")
        expect(late.locator(".ol-agent")).to_contain_text("○ idle")
    expect(late).to_have_count(0)
    assert not asked


def test_a_cluster_is_shut_down_after_a_question(bench: Bench, page: Page) -> None:
    shown = panel(page)
    shown.get_by_role("button", name="Shut down").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Shut Down").click()
    expect(shown).to_contain_text("No cluster runs")
    assert bench.events("run.ended")
    expect(page.locator("button.ol-status")).to_be_hidden()
