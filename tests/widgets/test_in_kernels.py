"""The controls in a real kernel, with the messages that a browser sends: in await cells, in synchronous ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def cluster(module_runtime: Any, script_config: Any) -> Iterator[Cluster]:  # noqa: ARG001 - a place of its own
    with Cluster.start(script_config("ada", "bob", name="seen", lifetime="owner")) as running:
        yield running


class Page:
    """What a browser would hold of the controls: ids of its widgets, and their state as it was told."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.ids: dict[str, str] = kernel.value(
            "{'ask': v._ask_button.model_id, 'text': v._text.model_id, 'log': v._log.model_id, "
            "'notice': v._notice.model_id, 'to': v._to.model_id}"
        )

    def told(self, message: dict[str, Any], widget: str, name: str) -> Any:
        """Return what a message tells of a widget's trait, None when it tells nothing."""
        content = message["content"]
        if message["msg_type"] != "comm_msg" or content["comm_id"] != self.ids[widget]:
            return None
        return content["data"].get("state", {}).get(name)


@pytest.fixture(scope="module")
def page(kernel: Any, cluster: Cluster) -> Page:
    code = "from orchestrator_lab import Cluster; from orchestrator_lab.widgets.controls import ClusterControls"
    kernel.run(f"{code}; c = Cluster.attach({cluster.name!r}); v = ClusterControls(c)")
    return Page(kernel)


def test_shown_with_a_fallback(kernel: Any, page: Page) -> None:  # noqa: ARG001 - it made `v`
    (shown,) = kernel.run("v")
    assert shown["msg_type"] == "display_data"
    data = shown["content"]["data"]
    assert data["text/plain"] == "ClusterControls('seen')"
    assert "Controls of cluster <b>seen</b>" in data["text/html"]
    assert WIDGET_VIEW in data


def test_they_work_while_a_cell_awaits(kernel: Any, page: Page) -> None:
    """What the browser sends is done, and its answer shown, long before the cell ends."""
    cell = kernel.send("import asyncio; done = asyncio.Event(); await asyncio.wait_for(done.wait(), 120)")
    kernel.until(lambda one: one["msg_type"] == "execute_input")
    kernel.set(page.ids["text"], value="in between")
    kernel.click(page.ids["ask"])
    read = kernel.until(lambda one: "bob: bob: in between" in str(page.told(one, "log", "value")))
    assert not any(
        one["msg_type"] == "status"
        and one["content"]["execution_state"] == "idle"
        and one["parent_header"].get("msg_id") == cell
        for one in read
    )
    kernel.manager.interrupt_kernel()
    kernel.ended(cell)


def test_a_browser_is_told_that_it_was_heard_beside_a_running_cell(kernel: Any, page: Page, tmp_path: Path) -> None:
    """A browser sends the next change of a widget only after the kernel was "idle" about the last."""
    end = tmp_path / "end"
    cell = kernel.send(f"import asyncio, os\nwhile not os.path.exists({str(end)!r}): await asyncio.sleep(0.05)")
    kernel.until(lambda one: one["msg_type"] == "execute_input")
    for text in ("one", "two"):
        sent = kernel.set(page.ids["text"], value=text)
        kernel.until(
            lambda one, sent=sent: (
                one["msg_type"] == "status"
                and one["parent_header"].get("msg_id") == sent
                and one["content"]["execution_state"] == "idle"
            )
        )
    end.touch()
    assert not [one for one in kernel.ended(cell) if one["msg_type"] == "error"]


def test_view_only_while_a_synchronous_cell_runs(kernel: Any, page: Page, cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.status()["messages"]
    end = tmp_path / "end"
    cell = kernel.send(f"import os, time\nwhile not os.path.exists({str(end)!r}): time.sleep(0.05)")
    kernel.until(lambda one: "View only until this cell ends" in str(page.told(one, "notice", "value")))
    kernel.until(lambda one: page.told(one, "ask", "disabled") is True)
    # The page has disabled its controls; what was clicked before waits in the kernel.
    kernel.set(page.ids["text"], value="afterwards")
    kernel.click(page.ids["ask"])
    assert cluster.status()["messages"] == before
    end.touch()
    read = kernel.ended(cell)
    assert not any("afterwards" in str(page.told(one, "log", "value")) for one in read)
    shown: dict[str, Any] = {}

    def usable(message: dict[str, Any]) -> bool:
        """Whether it is answered, and the controls are as ever; in what order that is told is nobody's business."""
        for widget, name in (("log", "value"), ("notice", "value"), ("ask", "disabled")):
            if (said := page.told(message, widget, name)) is not None:
                shown[widget] = said
        return "bob: bob: afterwards" in str(shown.get("log")) and shown["notice"] == "" and shown["ask"] is False

    for one in read:
        usable(one)
    kernel.until(usable)


def test_a_click_does_not_hold_up_the_kernel(kernel: Any, page: Page, tmp_path: Path) -> None:
    """The supervisor does not answer before the next cell has run."""
    answers = tmp_path / "answers"
    wait = f"    while not os.path.exists({str(answers)!r}): time.sleep(0.05)\n"
    kernel.run(f"import os, time\nslow = c.send\ndef held(*a, **k):\n{wait}    return slow(*a, **k)\nc.send = held")
    kernel.set(page.ids["text"], value="slowly")
    kernel.click(page.ids["ask"])
    kernel.until(lambda one: page.told(one, "ask", "disabled") is True)
    assert kernel.value("1 + 1") == 2
    answers.touch()
    kernel.until(lambda one: "ada: ada: slowly" in str(page.told(one, "log", "value")))
    kernel.run("c.send = slow")


def test_an_error_is_one_sentence(kernel: Any, page: Page) -> None:
    kernel.set(page.ids["text"], value=" ")
    kernel.click(page.ids["ask"])
    read = kernel.until(lambda one: "There is no message to send" in str(page.told(one, "log", "value")))
    assert not [one for one in read if one["msg_type"] in {"stream", "error"}]


def test_static_notebooks_hold_the_still_only(kernel: Any, page: Page) -> None:  # noqa: ARG001 - it made `v`
    kernel.run("import os; os.environ['ORCHESTRATOR_LAB_WIDGETS'] = 'static'")
    (shown,) = kernel.run("v")
    assert set(shown["content"]["data"]) == {"text/plain", "text/html"}
    kernel.run("del os.environ['ORCHESTRATOR_LAB_WIDGETS']")


def test_frozen_at_the_end(kernel: Any, page: Page) -> None:  # noqa: ARG001 - it made `v`
    """Each place where the controls were shown keeps what needs no kernel."""
    (shown,) = kernel.run("v")
    frozen = [one for one in kernel.run("v.freeze()") if one["msg_type"] == "update_display_data"]
    assert shown["content"]["transient"] in [one["content"]["transient"] for one in frozen]
    assert all(set(one["content"]["data"]) == {"text/plain", "text/html"} for one in frozen)


@pytest.mark.claude
def test_claude_is_answered_from_the_controls_while_its_answer_is_awaited(kernel: Any, claude_command: str) -> None:
    """A cell awaits the answer; Claude Code asks for permission meanwhile, and the button in the notebook gives it."""
    config = {
        "cluster": {
            "name": "asks",
            "work_dir": "asks",
            "create_work_dir": True,
            "runs_dir": "runs",
            "lifetime": "owner",
            "start_timeout_s": 120,
            "gateway": {
                "mode": "script",
                "script": [
                    {
                        "when": {"contains": "file"},
                        "tool": {"name": "Bash", "input": {"command": "touch one", "description": "d"}},
                        "then": {"reply": "it is there"},
                    }
                ],
            },
        },
        "agents": [{"name": "ada", "kind": "claude", "command": claude_command}],
    }
    kernel.run("from orchestrator_lab import Cluster; from orchestrator_lab.widgets.controls import ClusterControls")
    kernel.ended(kernel.send(f"c = await Cluster.astart({config!r}); v = ClusterControls(c); v"), 120)
    cell = kernel.send("print(await c['ada'].send('make the file'))")
    read = kernel.until(
        lambda one: (
            one["msg_type"] == "comm_open" and one["content"]["data"].get("state", {}).get("description") == "Yes"
        ),
        60,
    )
    kernel.click(read[-1]["content"]["comm_id"])
    said = [one["content"]["text"] for one in kernel.ended(cell) if one["msg_type"] == "stream"]
    assert said == ["it is there\n"]
    row = kernel.value("c.run.dialogs[['answered_by', 'decision']].to_dict('records')")
    assert row == [{"answered_by": "human", "decision": "allow"}]
    kernel.ended(kernel.send("await c.ashutdown()"))


def test_the_end_of_the_kernel_leaves_stills_behind(kernel: Any, cluster: Cluster) -> None:
    """The last test of this file: the cluster runs on, its view cannot."""
    kernel.run(f"from orchestrator_lab import Cluster; shown = Cluster.attach({cluster.name!r}).view()")
    (shown,) = [one for one in kernel.run("shown") if one["msg_type"] == "display_data"]
    kernel.manager.request_shutdown()

    def replaced(message: dict[str, Any]) -> bool:
        content = message["content"]
        return message["msg_type"] == "update_display_data" and content["transient"] == shown["content"]["transient"]

    still = kernel.until(replaced)[-1]["content"]["data"]
    assert set(still) == {"text/plain", "text/html"}
    assert "orchestrator-lab-still" in still["text/html"]
