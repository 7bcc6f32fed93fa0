"""The controls of a cluster: each does what it says to real agents, and says what became of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab.widgets.controls import ALL, ClusterControls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Hand:
    """A person's hand on the controls, and eyes on what they say."""

    def __init__(self, controls: ClusterControls, until: Callable[..., Any]) -> None:
        self.controls = controls
        self._until = until

    def press(self, label: str) -> None:
        def able() -> Any:
            found = [one for one in self.controls._inputs() if getattr(one, "description", "") == label]
            return next((one for one in found if not one.disabled), None)

        # What was pressed before it is told first, and then its buttons are free.
        self._until(able, 20.0, lambda: f"no {label!r}: {self.labels()}, {self.controls._facts}, {self.said}").click()

    def _inputs(self) -> list[Any]:
        return list(self.controls._inputs())

    def labels(self) -> list[str]:
        return [one.description for one in self._inputs() if hasattr(one, "click")]

    def choose(self, *names: str) -> None:
        self.controls._to.value = names

    def write(self, text: str) -> None:
        self.controls._text.value = text

    @property
    def said(self) -> list[str]:
        return [text for _, text in self.controls._said]

    def hears(self, words: str, seconds: float = 20.0) -> str:
        def heard() -> str | None:
            return next((one for one in self.said if words in one), None)

        return str(self._until(heard, seconds, lambda: f"it said {self.said}"))

    def sees(self, what: Callable[[], Any]) -> Any:
        return self._until(what, 20.0, lambda: f"{self.controls._facts}")


@pytest.fixture
def hand(mixed: Any, until: Any) -> Iterator[Hand]:
    controls = ClusterControls(mixed.cluster)
    yield Hand(controls, until)
    controls.close()


def test_they_show_the_agents_and_their_states(hand: Hand) -> None:
    assert tuple(hand.controls._to.options) == (ALL, "ada", "bob", "dot", "cat", "fay")
    assert "<b>ada</b>" in hand.controls._states.value
    assert "idle" in hand.controls._states.value


def test_ask_one(hand: Hand, mixed: Any) -> None:
    hand.choose("ada")
    hand.write("good morning")
    hand.press("Ask")
    hand.hears("ada: ada: good morning")
    hand.hears("→ ada: good morning")  # by another thread
    assert hand.controls._text.value == ""
    row = mixed.cluster.run.messages.iloc[-1]
    assert (row["recipient"], row["source"], row["kind"], row["sender"]) == ("ada", "human", "direct", "user")


def test_ask_several_and_a_program(hand: Hand) -> None:
    hand.choose("bob", "cat")
    hand.write("to both")
    hand.press("Ask")
    hand.hears("bob: bob: to both")
    hand.hears("cat: ")
    hand.hears("→ bob, cat: to both")


def test_send_shows_no_answer_but_its_failure(hand: Hand, mixed: Any) -> None:
    hand.choose("ada")
    hand.write("no answer wanted")
    hand.press("Send")
    hand.hears("→ ada: no answer wanted")
    mixed.cluster.wait("ada", timeout=20)
    assert not [one for one in hand.said if one.startswith("ada: ada")]


def test_an_empty_message_is_told_in_one_sentence(hand: Hand) -> None:
    hand.write("  \n")
    hand.press("Ask")
    assert hand.said == ["There is no message to send: write one first."]
    hand.choose()
    hand.write("somebody?")
    hand.press("Send")
    assert hand.said[0] == "Nobody is chosen: choose to whom the message goes."


def test_everybody_gets_a_broadcast(mixed: Any, until: Any) -> None:
    controls = ClusterControls(mixed.cluster)
    hand = Hand(controls, until)
    hand.choose(ALL)
    hand.write("all of you, later")
    hand.press("Ask")
    for name in ("ada", "bob", "dot"):
        hand.hears(f"{name}: {name}: all of you")
    rows = mixed.cluster.run.messages
    assert set(rows[rows["content"] == "all of you, later"]["kind"]) == {"broadcast"}
    controls.close()


def test_a_guard_is_lifted_and_its_alert_acknowledged_and_cleared(hand: Hand, mixed: Any) -> None:
    # dot had its one turn with the broadcast
    hand.choose("dot")
    hand.write("one more")
    hand.press("Ask")
    hand.sees(lambda: hand.controls._facts.guards and hand.controls._facts.alerts)
    hand.sees(lambda: {"Lift", "Acknowledge", "Clear"} <= set(hand.labels()))
    hand.press("Acknowledge")
    hand.hears("acknowledged: ")
    hand.sees(lambda: "Acknowledge" not in hand.labels())
    assert mixed.cluster.alerts()["acknowledged_at"].notna().all()
    hand.press("Clear")
    hand.hears("cleared: ")
    hand.sees(lambda: not hand.controls._facts.alerts)
    hand.press("Lift")
    hand.hears("lifted: ")
    hand.hears("dot: dot: one more")
    assert [event.attributes["by"] for event in mixed.cluster.run.events() if event.event == "guard.lifted"] == [
        "human"
    ]


def test_a_dialog_is_answered_with_its_own_options(hand: Hand, mixed: Any) -> None:
    mixed.tell_fay(do="dialog", kind="permission")
    options = ["Yes", "Yes, and do not ask again", "No, and say what to do"]
    hand.sees(lambda: set(options) <= set(hand.labels()))
    hand.press("Yes, and do not ask again")
    hand.hears("fay: answered 'Yes, and do not ask again'")
    hand.sees(lambda: not hand.controls._facts.dialogs and not set(options) & set(hand.labels()))
    row = mixed.cluster.run.dialogs.iloc[-1]
    assert (row["answered_by"], row["agent"]) == ("human", "fay")


def test_a_dialog_that_somebody_else_answers_goes_away(hand: Hand, mixed: Any) -> None:
    mixed.tell_fay(do="dialog", kind="permission")
    hand.sees(lambda: "Yes" in hand.labels())
    mixed.cluster.dialogs[0].answer("deny")
    hand.sees(lambda: "Yes" not in hand.labels())


def test_interrupt_stop_and_restart(hand: Hand, mixed: Any) -> None:
    hand.choose("bob")
    hand.sees(lambda: any(one.name == "bob" and one.state == "idle" for one in hand.controls._facts.agents))
    hand.press("Interrupt")
    assert hand.said[0] == "Nothing to interrupt: bob has no turn now."
    hand.write("be slow")
    hand.press("Ask")
    hand.sees(lambda: any(one.name == "bob" and one.state == "busy" for one in hand.controls._facts.agents))
    hand.press("Interrupt")
    hand.hears("bob: interrupted")
    hand.hears("message to bob:")
    hand.press("Stop")
    hand.hears("bob: stopped")
    hand.sees(lambda: "exited" in hand.controls._states.value)
    hand.write("anybody there?")
    hand.press("Send")
    hand.sees(lambda: not hand.controls._doing)
    assert hand.said[0].startswith("message to bob: ")
    assert hand.controls._text.value == "anybody there?"
    hand.press("Restart")
    hand.hears("bob: restarted")
    hand.sees(lambda: "exited" not in hand.controls._states.value)
    assert mixed.cluster["bob"].ask("again", timeout=20).reply == "bob: again"


def test_agents_that_join_and_leave_change_the_list(hand: Hand, mixed: Any) -> None:
    hand.choose("ada")
    mixed.cluster.add({"name": "eve", "kind": "chat"})
    # The choice is set after the list.
    hand.sees(lambda: "eve" in hand.controls._to.options and hand.controls._to.value == ("ada",))
    hand.choose("eve")
    mixed.cluster.remove("eve")
    hand.sees(lambda: "eve" not in hand.controls._to.options and hand.controls._to.value == (ALL,))


def test_what_agents_say_is_never_html(hand: Hand) -> None:
    hand.choose("ada")
    hand.write("<script>alert(1)</script>")
    hand.press("Ask")
    hand.hears("ada: ada: <script>")
    hand.sees(lambda: "ada: ada: &lt;script&gt;" in hand.controls._log.value)
    assert "<script>" not in hand.controls._log.value


def test_traits_are_written_by_nobody_but_the_stage(hand: Hand) -> None:
    """Without a kernel the stage makes one change at a time, whatever threads there are."""
    seen: list[int] = []
    inside = threading.Lock()

    def change() -> None:
        assert inside.acquire(blocking=False)
        seen.append(1)
        inside.release()

    threads = [threading.Thread(target=hand.controls._stage.change, args=(change,)) for _ in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(seen) == 20


def test_fallbacks_are_stable(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    assert repr(hand.controls) == "ClusterControls('lab')"
    live = hand.controls._repr_mimebundle_()
    assert live["text/plain"] == "ClusterControls('lab')"
    assert "Controls of cluster <b>lab</b>" in live["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in live
    monkeypatch.setenv("ORCHESTRATOR_LAB_WIDGETS", "static")
    assert set(hand.controls._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_shut_down_is_shown(module_runtime: Any, script_config: Any, until: Any) -> None:  # noqa: ARG001
    from orchestrator_lab import Cluster

    cluster = Cluster.start(script_config("ada", name="short", lifetime="owner"))
    controls = ClusterControls(cluster)
    cluster.shutdown()
    until(lambda: "Cluster short was shut down." in controls._notice.value)
    until(lambda: all(one.disabled for one in controls._inputs()))
    until(lambda: controls._listener is None)
