"""The dashboard's page in a real browser: it shows what tmux shows, and what is done there reaches the agents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from workbench import ROWS, Bench, opened, other, until

from orchestrator_lab.client import find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page, Route

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def bench(module_runtime: Path, chromium: Browser) -> Iterator[Bench]:
    del module_runtime
    with opened("board", chromium) as made:
        yield made


@pytest.fixture(scope="module")
def page(bench: Bench) -> Iterator[Page]:
    with bench.page("orchestrator-lab/") as made:
        yield made


def shown(page: Page, agent: str) -> list[str]:
    """Return the rows of a pane as the browser shows them."""
    rows = page.locator(f'[data-agent="{agent}"] .xterm-rows > div').evaluate_all(ROWS)
    while rows and not rows[-1]:
        rows.pop()
    return rows


def same(bench: Bench, page: Page, agent: str) -> bool:
    lines = bench.screen(agent)
    while lines and not lines[-1]:
        lines.pop()
    return bool(lines) and shown(page, agent) == lines


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=re.compile(f"^{name}")).click()


def test_a_message_sent_in_the_page_reaches_the_agent_and_panes_show_what_tmux_shows(bench: Bench, page: Page) -> None:
    expect(page.get_by_role("heading", name="board")).to_be_visible()
    page.get_by_label("Recipient").select_option("ada")
    page.get_by_label("Message", exact=True).fill("grüße <b>日本</b>")
    page.get_by_role("button", name="Send", exact=True).click()
    until(lambda: [one for one in bench.events("message.answered") if one["agent"] == "ada"])
    tab(page, "panes")
    until(lambda: same(bench, page, "ada"))
    until(lambda: same(bench, page, "bob"))
    until(lambda: any("ada: grüße <b>日本</b>" in row for row in shown(page, "ada")))
    queued = bench.events("message.queued")[0]
    assert queued["source"] == "human"
    tab(page, "messages")
    row = page.locator(".message", has_text="user → ada")
    expect(row.locator(".rung")).to_have_text("answered")
    expect(row.locator(".text")).to_have_text("grüße <b>日本</b>")
    assert page.locator(".message b").count() == 0
    audit = [one["attributes"] for one in bench.events("action.requested")]
    assert [(one["action"], one["origin"]) for one in audit] == [("send", "127.0.0.1")]


def test_ask_shows_the_answer(page: Page) -> None:
    page.get_by_label("Recipient").select_option("bob")
    page.get_by_label("Message", exact=True).fill("what now?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".answer")).to_have_text("bob: bob: what now?")


def test_a_permission_dialog_answered_in_the_page_reaches_the_agent(bench: Bench, page: Page) -> None:
    bench.ask(command="rm -r <img src=x onerror=alert(1)>")
    question = page.get_by_role("region", name="asker asks")
    expect(question).to_contain_text("rm -r <img src=x onerror=alert(1)>")
    assert question.locator("img").count() == 0
    expect(page.locator(".agent.state-waiting")).to_contain_text("asker")
    question.get_by_role("button", name="Yes, and do not ask again").click()
    answered = until(lambda: bench.records("dialog_answered"))
    assert "do not ask again" in str(answered[-1])
    expect(question).to_have_count(0)
    expect(page.locator(".agent.state-waiting")).to_have_count(0)


def test_alerts_are_acknowledged_and_cleared(bench: Bench, page: Page) -> None:
    tab(page, "alerts")
    alert = page.locator(".alert", has_text="asker asks a person")
    expect(alert).to_have_count(0)  # that of the last question is resolved
    bench.ask()
    expect(alert).to_be_visible()
    alert.get_by_role("button", name="Acknowledge").click()
    expect(alert).to_contain_text("acknowledged")
    page.get_by_role("button", name="Clear all").click()
    expect(alert).to_have_count(0)
    page.get_by_label("State").select_option("resolved")
    expect(alert.first).to_contain_text("resolved")
    page.get_by_label("State").select_option("not resolved")
    page.get_by_role("region", name="asker asks").get_by_role("button", name="No, and say what to do").click()
    until(lambda: len(bench.records("dialog_answered")) == 2)


_TYPED = "the quick brown fox jumps over the lazy dog 0123456789 abcd "


def keyboard(page: Page, bench: Bench) -> tuple[Locator, int]:
    """Take a pane over; return it, and how many bytes were typed into it before."""
    tab(page, "panes")
    pane = page.locator('[data-agent="bob"]')
    until(lambda: same(bench, page, "bob"))
    pane.get_by_role("button", name="Take over").click()
    expect(pane.get_by_role("button", name="Let go")).to_be_visible()
    return pane, typed(bench)


def typed(bench: Bench) -> int:
    return sum(one["attributes"]["bytes"] for one in bench.events("agent.keys") if one["agent"] == "bob")


def test_keys_arrive_in_order_when_a_request_is_slow(bench: Bench, page: Page) -> None:
    pane, before = keyboard(page, bench)
    asked: list[Route] = []

    def hold(route: Route) -> None:
        asked.append(route)
        if len(asked) > 1:
            route.continue_()

    page.route("**/agents/bob/keys", hold)
    page.keyboard.type(_TYPED)
    until(lambda: page.wait_for_timeout(50) or asked)
    page.wait_for_timeout(300)
    assert len(asked) == 1, "requests overtake the one before"
    asked[0].continue_()
    # The page's own loop hands over the next requests, while it is waited for.
    until(lambda: page.wait_for_timeout(50) or typed(bench) - before == len(_TYPED))
    page.unroute("**/agents/bob/keys")
    assert "".join(one.request.post_data_json["data"] for one in asked) == _TYPED
    until(lambda: any(_TYPED.rstrip() in line for line in bench.screen("bob")))
    page.keyboard.press("Shift+Escape")
    expect(pane.get_by_role("button", name="Take over")).to_be_visible()


def test_after_a_key_that_failed_the_rest_is_dropped_and_the_pane_let_go(bench: Bench, page: Page) -> None:
    pane, before = keyboard(page, bench)
    asked: list[Route] = []
    page.route("**/agents/bob/keys", lambda route: asked.append(route))  # noqa: PLW0108 - playwright marks its handlers
    page.keyboard.type("rm -r x")
    until(lambda: page.wait_for_timeout(50) or asked)
    asked[0].fulfill(status=503, json={"error": {"type": "SupervisorLost", "message": "nobody answers"}})
    expect(pane.get_by_role("button", name="Take over")).to_be_visible()
    expect(page.locator(".olab-banner")).to_have_text("nobody answers")
    page.wait_for_timeout(300)
    page.unroute("**/agents/bob/keys")
    assert (len(asked), typed(bench)) == (1, before)


def test_timeline_metrics_and_logs_tell_the_run(bench: Bench, page: Page) -> None:
    tab(page, "timeline")
    until(lambda: page.locator("rect.state-waiting").count() >= 2)
    page.get_by_text("As a table").click()
    expect(page.get_by_role("row", name=re.compile("^asker.*waiting"))).to_be_visible()
    tab(page, "metrics")
    expect(page.get_by_role("img", name=re.compile("^Turns, summed: turns"))).to_be_visible()
    tab(page, "logs")
    page.get_by_label("Log of").select_option("local-model")
    log = page.locator(".log")
    expect(log).to_have_text("This log is empty.")
    path = find(bench.name) / "logs" / "local-model.log"
    path.write_text("loading <b>weights</b>\n", encoding="utf-8")
    expect(log).to_have_text("loading <b>weights</b>")
    with path.open("a", encoding="utf-8") as more:
        more.write("loaded\n")
    expect(log).to_contain_text("loaded")
    assert log.locator("b").count() == 0
    tab(page, "panes")


def test_a_reload_shows_the_same_again(bench: Bench, page: Page) -> None:
    page.reload()
    until(lambda: same(bench, page, "ada"))
    tab(page, "messages")
    expect(page.locator(".message", has_text="user → ada")).to_be_visible()


def test_it_works_by_keyboard_at_the_width_of_a_phone_in_the_dark(bench: Bench) -> None:
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    with bench.page("orchestrator-lab/", **options) as page:
        expect(page.get_by_role("tab", name="panes")).to_be_visible()
        page.get_by_role("tab", name="panes").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="messages")).to_be_focused()
        expect(page.locator(".message").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"


def test_a_cluster_of_another_program_comes_and_goes_by_push(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url) if one.url.endswith("/api/clusters") else None)
    with other("late"):
        page.get_by_role("link", name="late").click()
        expect(page.get_by_role("heading", name="late")).to_be_visible()
        expect(page.locator(".agent")).to_contain_text("○ idle")
    expect(page.get_by_text("No cluster late runs.")).to_be_visible()
    page.get_by_role("link", name="board").click()
    expect(page.locator(".agent")).to_have_count(3)
    assert not asked


def test_shutting_down_is_asked_again(bench: Bench, page: Page) -> None:
    page.get_by_role("button", name="Shut down").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert bench.cluster.status()["status"] == "running"
    page.get_by_role("button", name="Shut down").click()
    dialog.get_by_role("button", name="Shut down").click()
    expect(page.get_by_text(re.compile("No cluster"))).to_be_visible()
    assert bench.events("run.ended")
