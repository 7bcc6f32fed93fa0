"""The view in an empty page, with a host that says what the test wants: what it draws, and what it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.widgets.view import part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(150)]

SCRIPT = """async ([code, css]) => {
    document.head.appendChild(document.createElement('style')).textContent = css;
    const { createView } = await import(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
    const bytes = text => new DataView(new TextEncoder().encode(text).buffer);
    const page = window.host = { said: [], deaf: false };
    const handlers = new Set();
    const tell = (message, buffers = []) => { for (const one of [...handlers]) one(message, buffers); };
    const hear = message => {
        page.said.push(message);
        if (!page.deaf) setTimeout(() => tell({ type: 'ack', view: message.view, n: message.n }), 5);
    };
    page.tell = tell;
    page.draw = (agent, text, repaint) => tell(
        { type: 'tick', panes: [{ agent, repaint, cols: 40, rows: 5 }] }, [bytes(text)]);
    page.listens = () => {
        page.deaf = false;
        for (const { view, n } of page.said) tell({ type: 'ack', view, n });
    };
    const still = { agents: [{ name: 'ada', state: 'idle' }],
        screens: { ada: { cols: 40, rows: 5, data: bytes('\\x1bcan old picture') } } };
    page.view = createView(document.body.appendChild(document.createElement('div')),
        { send: hear, onMessage: one => { handlers.add(one); return () => handlers.delete(one); } },
        { acks: true, controls: true, still });
    page.shows = () => page.view.terminal('ada')?.buffer.active.getLine(0).translateToString(true);
}"""


@pytest.fixture
def view(page: Page) -> Iterator[Page]:
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.route("http://127.0.0.1:9/", lambda route: route.fulfill(content_type="text/html", body="<body></body>"))
    page.goto("http://127.0.0.1:9/")
    page.evaluate(SCRIPT, [part("panes.js"), part("panes.css")])
    page.wait_for_function("() => host.shows() === 'an old picture' && host.said.some(one => one.type === 'watch')")
    yield page
    assert wrong == []


def said(page: Page, *types: str) -> list[Any]:
    found: list[Any] = page.evaluate("types => host.said.filter(one => types.includes(one.type))", list(types))
    return found


def test_output_means_nothing_before_the_first_repaint(view: Page) -> None:
    view.evaluate("() => host.draw('ada', '\\x1b[1;4Hwrong', false)")
    view.evaluate("() => host.draw('ada', ' place', false)")
    assert [one["agent"] for one in said(view, "repaint")] == ["ada"]
    view.wait_for_timeout(100)
    assert view.evaluate("() => host.shows()") == "an old picture"
    view.evaluate("() => { host.draw('ada', '\\x1bcnow', true); host.draw('ada', ' and then', false); }")
    view.wait_for_function("() => host.shows() === 'now and then'")
    assert len(said(view, "repaint")) == 1


def test_asked_again_it_says_what_it_watches(view: Page) -> None:
    before = len(said(view, "hello", "watch"))
    view.evaluate("() => host.tell({ type: 'again', view: null })")
    view.evaluate("() => host.tell({ type: 'again', view: 'another' })")
    view.evaluate("() => host.tell({ type: 'again', view: host.said[0].view })")
    told = said(view, "hello", "watch")[before:]
    assert [one["type"] for one in told] == ["watch", "hello", "watch"]
    assert [one["agents"] for one in told if one["type"] == "watch"] == [["ada"], ["ada"]]


def test_what_is_typed_to_a_host_that_does_not_listen_is_not_sent_later(view: Page) -> None:
    view.evaluate("() => host.draw('ada', '\\x1bcready', true)")
    pane = view.locator(".olab-pane")
    pane.hover()
    pane.get_by_role("button", name="Take over").click()
    pane.get_by_role("button", name="Let go").wait_for()
    view.evaluate("() => { host.deaf = true; }")
    view.keyboard.type("rm -r\r")
    view.get_by_text("What you typed last into ada was not sent").wait_for()
    pane.get_by_role("button", name="Take over").wait_for()
    assert [one["data"] for one in said(view, "keys")] == ["r"]
    view.evaluate("() => host.listens()")
    view.wait_for_timeout(100)
    assert [one["data"] for one in said(view, "keys")] == ["r"]
    assert view.get_by_text("View only").count() == 0
    pane.get_by_role("button", name="Take over").click()
    pane.get_by_role("button", name="Let go").wait_for()
    assert view.get_by_text("was not sent").count() == 0
    view.keyboard.type("ls")
    view.wait_for_function("() => host.said.filter(one => one.type === 'keys').map(one => one.data).join('') === 'rls'")
