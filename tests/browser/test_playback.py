"""A run that is played in a notebook, in the file of one that was saved, and in asciinema's own player."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from played_run import write_played
from playwright.sync_api import expect

from orchestrator_lab.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(150)]

PLAYER = Path(__file__).parent / "node_modules" / "asciinema-player" / "dist" / "bundle"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(write_played(tmp_path_factory.mktemp("played"), flood_bytes=3_000_000))


def shows(notebook: Any, run: Run, at: float) -> None:
    """Wait until both panes show what they had shown at an instant, which another terminal knows."""
    for agent in ("ada", "bob"):
        wanted = run.screen(agent, at).text
        deadline = time.monotonic() + 20
        while (shown := notebook.shows(agent)) != wanted:
            assert time.monotonic() < deadline, f"{agent} at {at} s shows:\n{shown}\nand not:\n{wanted}"
            notebook.page.wait_for_timeout(50)


def test_two_panes_are_played_on_one_clock(played: Run, open_notebook: Any) -> None:
    notebook = open_notebook(
        "play.ipynb", "from orchestrator_lab import open_run", f"open_run({str(played.path)!r}).play(at='msg_2')"
    )
    notebook.run()
    page, view = notebook.page, notebook.view
    clock, entries = view.locator(".olab-play-time"), view.locator(".olab-entry")
    slider = view.get_by_role("slider")
    clock.get_by_text("0:12.2 / 1:00.0").wait_for()
    shows(notebook, played, 12.2)
    # Character, width, colours of text and background, bold: as the program wrote them, out of a picture.
    first = notebook.cells("ada")[0]
    assert first[0][:5] == ("a", 1, "#0cc863", None, False)
    assert first[4][:5] == ("i", 1, "#0cc863", 201, True)
    assert first[7][:5] == ("r", 1, None, None, False)
    # Both panes, and what is known of their agents, are of the same instant, in whatever order it is looked for.
    for at in ("25.31", "3", "38.5", "20.04", "33"):
        slider.fill(at)
        shows(notebook, played, float(at))
    view.get_by_text("asks: May bob multiply?").wait_for()
    view.locator('[aria-label="Agent bob, answers: waiting"]').wait_for()
    # A click on a turn goes to where its reply stands, and its entry is the current one; what is to come is pale.
    expect(entries.nth(3)).to_have_attribute("class", "olab-entry olab-to-come")
    entries.nth(3).get_by_text("forty-two").click()
    clock.get_by_text("0:40.2 / 1:00.0").wait_for()
    expect(entries.nth(3)).to_have_attribute("aria-current", "true")
    shows(notebook, played, 40.2)
    assert "forty-two ✓ 四十二 [40 s]" in notebook.shows("bob")
    view.get_by_text("asks: May bob multiply?").wait_for(state="hidden")
    view.get_by_role("button", name="Previous message, turn or question").click()
    clock.get_by_text("0:31.2 / 1:00.0").wait_for()
    view.locator('.olab-play-mark[title*="What is seven times six?"]').click(force=True)
    clock.get_by_text("0:12.2 / 1:00.0").wait_for()
    # Played, the flood comes by in pieces, and the pauses pass quickly; it ends at the end, and begins anew.
    view.get_by_role("combobox", name="Speed").select_option("32")
    view.get_by_role("button", name="Play").click()
    clock.get_by_text("1:00.0 / 1:00.0").wait_for()
    view.get_by_role("button", name="Play").wait_for()
    shows(notebook, played, 60.0)
    assert "good night" in notebook.shows("ada")
    view.get_by_role("combobox", name="Speed").select_option("1")
    view.get_by_role("button", name="Play").click()
    notebook.until("bob", "bob is ready [1.5 s]")
    deadline = time.monotonic() + 20
    while "good night" in notebook.shows("ada"):  # until its pane has begun anew, too
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    # A click into a pane and a key: the notebook around it does not take them for its own.
    notebook.pane("ada").locator(".olab-frame").click()
    page.keyboard.press("Space")
    view.get_by_role("button", name="Play").wait_for()
    page.keyboard.press("End")
    clock.get_by_text("1:00.0 / 1:00.0").wait_for()
    page.keyboard.press("Shift+ArrowLeft")
    clock.get_by_text("0:30.0 / 1:00.0").wait_for()
    page.keyboard.type("dd")
    shows(notebook, played, 30.0)


def test_a_saved_notebook_shows_stills_and_its_links_do_no_harm(
    played: Run, open_notebook: Any, context: BrowserContext, jupyter: Any
) -> None:
    notebook = open_notebook(
        "played.ipynb",
        f"from orchestrator_lab import open_run; run = open_run({str(played.path)!r})",
        "run.play('bob', at=33)",
        "run.conversation()",
    )
    notebook.run()
    notebook.until("bob", "May bob multiply?")
    link = notebook.page.locator(".jp-OutputArea-output a", has_text=re.compile(r"^\+40\.0 s$")).last
    address = notebook.page.url
    link.click()
    notebook.page.wait_for_timeout(300)
    assert notebook.page.url.partition("#")[0] == address.partition("#")[0]
    assert notebook.view.locator(".olab-play-time").inner_text() == "0:33.0 / 0:40.2"
    notebook.save()
    jupyter.end_kernels()
    text = (jupyter.root / "played.ipynb").read_text()
    assert "RunPlayer(agents=1)" in text
    assert len(text) < 60_000
    again = open_notebook("played.ipynb", page=context.new_page())
    again.page.locator(".jp-OutputArea pre", has_text="May bob multiply?").first.wait_for()
    again.page.locator(".jp-OutputArea-output", has_text="model not found").first.wait_for(state="hidden")
    assert again.page.locator(".olab-view").count() == 0


def test_exported_recordings_open_in_asciinemas_own_player(played: Run, page: Page, tmp_path: Path) -> None:
    if not PLAYER.is_dir():
        pytest.fail(f"asciinema's player is not in {PLAYER}: run 'npm ci' in {Path(__file__).parent}")
    files = {path.name: path for path in played.export_as("cast", tmp_path / "casts")}
    parts = {f"/{name}": PLAYER / name for name in ("asciinema-player.min.js", "asciinema-player.css")}
    parts |= {f"/{name}": path for name, path in files.items()}
    html = (
        '<!doctype html><link rel="stylesheet" href="/asciinema-player.css"><div id="player"></div>'
        '<script src="/asciinema-player.min.js"></script>'
    )

    def serve(route: Any) -> None:
        path = route.request.url.removeprefix("http://127.0.0.1:9")
        if path in parts:
            route.fulfill(path=parts[path])
        else:
            route.fulfill(content_type="text/html", body=html)

    page.route("http://127.0.0.1:9/**", serve)
    # A recording's own clock begins with it: bob's one and a half seconds after the run.
    for agent, begins, at, text in (("ada", 0.5, 10.7, "thinking 11 [11 s]"), ("bob", 1.5, 38.6, "forty-two ✓ 四十二")):
        page.goto("http://127.0.0.1:9/")
        page.evaluate(
            """([name, at]) => AsciinemaPlayer.create(`/${name}.cast`, document.getElementById('player'),
                { preload: true, startAt: at, poster: `npt:${at}` })""",
            [agent, at],
        )
        lines = page.locator(".ap-term .ap-line")
        wanted, deadline = played.screen(agent, begins + at).text, time.monotonic() + 20
        assert text in wanted
        while (shown := "\n".join(lines.all_text_contents()).replace("\u00a0", " ")).split() != wanted.split():
            assert time.monotonic() < deadline, shown
            page.wait_for_timeout(50)
        assert "\n".join(line.rstrip() for line in shown.split("\n")).rstrip() == wanted
