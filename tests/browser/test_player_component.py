"""The player in an empty page, with a host that answers what the test wants, or nothing."""

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
    const { createPlayer } = await import(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
    const bytes = text => new DataView(new TextEncoder().encode(text).buffer);
    const page = window.host = { asked: [], answers: true, wrong: null, html: '<div><b>entry</b></div>' };
    let handler = () => undefined;
    const pane = want => ({
        agent: want.agent, to: null, next: null, picture: want.anew ? [40, 5] : null, facts: { state: 'idle' },
        events: [],
    });
    const answer = question => {
        const about = { view: question.view, n: question.n };
        if (page.wrong) return handler({ ...about, type: 'error', message: page.wrong }, []);
        if (question.type === 'talk') return handler({
            ...about, type: 'talk', html: page.html, entries: [{ anchor: 'a', at: 5 }], from: null, to: null,
            before: 0, after: 3,
        }, []);
        const said = want => [bytes(`\\x1bc${want.agent} at ${want.at}`), bytes('')];
        return handler({ ...about, type: 'shown', panes: question.wants.map(pane) }, question.wants.flatMap(said));
    };
    const send = question => {
        page.asked.push(question);
        if (page.answers) setTimeout(() => answer(question), 5);
    };
    const agents = ['ada', 'bob'].map(name => ({ name }));
    const film = { title: 'a run', at: 10, duration: 20, agents, colors: {}, marks: [] };
    page.late = () => { page.answers = true; page.asked.slice().forEach(answer); };
    page.player = createPlayer(document.body.appendChild(document.createElement('div')),
        { send, onMessage: one => { handler = one; return () => { handler = () => undefined; }; } }, { film });
    page.shows = agent => page.player.view.terminal(agent)?.buffer.active.getLine(0).translateToString(true);
}"""


@pytest.fixture
def player(page: Page) -> Iterator[Page]:
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.route("http://127.0.0.1:9/", lambda route: route.fulfill(content_type="text/html", body="<body></body>"))
    page.goto("http://127.0.0.1:9/")
    page.evaluate(SCRIPT, [part("panes.js"), part("panes.css")])
    shown(page, "bob at 10")
    page.locator(".olab-entry").wait_for()
    yield page
    assert wrong == []


def shown(page: Page, text: str) -> None:
    page.wait_for_function("text => host.shows(text.split(' ')[0]) === text", arg=text)


def asked(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate("() => host.asked.splice(0)")
    return found


def test_what_all_panes_need_is_asked_for_in_one_message_and_nothing_while_it_rests(player: Page) -> None:
    first = asked(player)
    needs = [{want["agent"] for want in one["wants"]} for one in first if one["type"] == "need"]
    assert needs == [{"ada", "bob"}]
    player.evaluate("() => { for (const at of [9, 8, 7, 6, 3]) host.player.head.seek(at); }")
    shown(player, "ada at 3")
    shown(player, "bob at 3")
    wants = [want for one in asked(player) if one["type"] == "need" for want in one["wants"]]
    assert [want["at"] for want in wants if want["agent"] == "ada"] == [9, 3]  # what was passed meanwhile is left out
    assert [want["at"] for want in wants if want["agent"] == "bob"] == [9, 3]
    player.wait_for_timeout(300)
    assert asked(player) == []


def test_a_host_that_does_not_answer_is_told_of_and_waited_for(player: Page) -> None:
    player.evaluate("() => { host.answers = false; host.player.head.seek(2); }")
    player.get_by_text("The kernel does not answer").wait_for()
    asked_then = player.evaluate("() => host.asked.length")
    player.wait_for_timeout(200)
    assert player.evaluate("() => host.asked.length") == asked_then
    player.evaluate("() => host.late()")
    shown(player, "ada at 2")
    player.get_by_text("The kernel does not answer").wait_for(state="hidden")


def test_what_failed_is_said_and_asked_for_again(player: Page) -> None:
    player.evaluate("() => { host.wrong = 'cannot read the recording'; host.player.head.seek(2); }")
    player.locator(".olab-banner").get_by_text("cannot read the recording").wait_for()
    player.evaluate("() => { host.wrong = null; host.player.head.seek(1); }")
    shown(player, "ada at 1")
    player.locator(".olab-banner").wait_for(state="hidden")


def test_nothing_in_the_conversation_is_more_than_text(player: Page) -> None:
    bad = (
        '<div id="host" style="color: red" onclick="window.hacked=1"><script>window.hacked=1</script>'
        '<img src=x onerror="window.hacked=1"><a href="javascript:window.hacked=1">link</a>'
        '<a href="#here">there</a><form><input name="x"></form><b>text</b></div><iframe src="about:blank"></iframe>'
    )
    # Another window of the conversation, with what no host of ours says.
    player.evaluate(
        """html => {
            host.html = html;
            host.player.dispose();
        }""",
        bad,
    )
    player.evaluate(
        SCRIPT.replace("'<div><b>entry</b></div>'", "window.host.html"), [part("panes.js"), part("panes.css")]
    )
    entry = player.locator(".olab-entry")
    entry.get_by_text("text").wait_for()
    names = player.evaluate("() => [...document.querySelectorAll('.olab-entries *')].map(one => one.tagName)")
    assert set(names) <= {"DIV", "A", "B"}
    assert player.locator(".olab-entries [onclick], .olab-entries [id]").count() == 0
    assert player.evaluate(
        "() => [...document.querySelectorAll('.olab-entries a')].map(one => one.getAttribute('href'))"
    ) == [
        None,
        "#here",
    ]
    entry.locator("a").first.click()
    shown(player, "ada at 5")
    assert player.evaluate("() => window.hacked") is None
    assert player.url == "http://127.0.0.1:9/"
