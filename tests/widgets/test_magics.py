"""The magics in a real kernel, with real clusters; a user's mistake is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from orchestrator_lab import Cluster
from orchestrator_lab.widgets.magics import awaited

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cluster(kernel: Any, script_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster that the kernel's magics have started."""
    script = [{"when": {"contains": "slow"}, "reply": "late", "delay_s": 120}, {"reply": "{agent}: {text}"}]
    config = script_config("ada", "bob", name="magic", script=script)
    place = tmp_path_factory.mktemp("magic") / "cluster.yaml"
    place.write_text(yaml.safe_dump(config))
    kernel.run("%load_ext orchestrator_lab")
    assert kernel.run(f"place, seed = {str(place)!r}, 7") == []
    (shown,) = kernel.run("%cluster start {place} --experiment trial --param n=3 --tag quick --seed $seed")
    assert shown["content"]["data"]["text/plain"] == "ClusterView(agents=2)"
    with Cluster.attach("magic") as running:
        yield running


_INTERRUPT = """
import asyncio
async def interrupt():
    while cluster["bob"].state != "busy":
        await asyncio.sleep(0.05)
    cluster["bob"].interrupt()
interrupting = asyncio.create_task(interrupt())
"""


def error(outputs: list[dict[str, Any]]) -> str:
    """Return the one line that a failed cell shows."""
    shown = [one for one in outputs if one["msg_type"] != "update_display_data"]
    one = shown[0]
    if one["msg_type"] == "stream":
        # A kernel that is busy may send one line in two pieces.
        assert {(part["msg_type"], part["content"]["name"]) for part in shown} == {("stream", "stderr")}
        return "".join(str(part["content"]["text"]) for part in shown).strip()
    assert len(shown) == 1
    assert one["msg_type"] == "error"
    (line,) = one["content"]["traceback"]
    assert one["content"]["ename"] in line
    return str(line)


def test_start_puts_the_cluster_into_a_variable(kernel: Any, cluster: Cluster) -> None:
    assert kernel.value("cluster.name") == "magic"
    manifest = cluster.run.manifest
    assert (manifest["experiment"], manifest["params"], manifest["tags"], manifest["seed"]) == (
        *("trial", {"n": 3}),
        *(["quick"], 7),
    )


def test_ask_shows_an_exchange(kernel: Any, cluster: Cluster) -> None:
    (shown,) = kernel.run("%%ask ada\nhow are you?\nand your cat?")
    assert shown["msg_type"] == "execute_result"
    assert shown["content"]["data"]["text/plain"].startswith("Exchange(user → ada: 'how are you?")
    assert "<th" in shown["content"]["data"]["text/html"]
    assert kernel.value("_.reply") == "ada: how are you?\nand your cat?"
    assert cluster.run.messages.iloc[-1]["source"] == "human"


def test_ask_several_shows_each(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is asked
    shown = [one for one in kernel.run("%%ask all\nhello") if one["msg_type"] == "display_data"]
    recipients = [one["content"]["data"]["text/plain"].split("→ ")[1][:3] for one in shown]
    assert sorted(recipients) == ["ada", "bob"]


def test_ask_leaves_the_kernel_free(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is asked
    """The loop goes on while an answer is awaited: what it does then ends the turn, long before the answer."""
    kernel.run(_INTERRUPT)
    assert "interrupted" in error(kernel.run("%%ask bob\nbe slow"))
    assert kernel.value("interrupting.done()")


def test_ask_in_a_cell_with_more_blocks(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is asked
    (said,) = kernel.run("x = get_ipython().run_cell_magic('ask', 'ada', 'once')\nprint(x.reply)")
    assert said["content"]["text"] == "ada: once\n"


def test_ask_gives_up_in_time(kernel: Any, cluster: Cluster, until: Any) -> None:
    said = error(kernel.run("%%ask bob --timeout 0.5\nbe slow"))
    assert said.startswith("ExchangeTimeout: bob has not answered within 0.5 s")
    until(lambda: cluster["bob"].state == "busy")  # the message may be on its way still
    cluster["bob"].interrupt()
    cluster.wait("bob", timeout=20)


def test_send_goes_on_at_once(kernel: Any, cluster: Cluster) -> None:
    (shown,) = kernel.run("%%send ada\nno hurry")
    assert shown["content"]["data"]["text/plain"].startswith("Exchange(user → ada: 'no hurry'")
    cluster.wait("ada", timeout=20)


def test_status_and_list(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is shown
    (shown,) = kernel.run("%cluster status")
    assert "ada" in shown["content"]["data"]["text/plain"]
    assert kernel.value("list(_['kind'])") == ["chat", "chat"]
    kernel.run("x = %cluster list")
    assert kernel.value("list(x.index)") == ["magic"]


def test_attach_under_another_name(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is attached
    kernel.run("%cluster attach magic --as mine")
    assert kernel.value("mine.name") == "magic"


def test_stop_and_restart(kernel: Any, cluster: Cluster) -> None:
    assert kernel.run("%cluster stop") == []
    assert {agent.state for agent in cluster} == {"exited"}
    assert kernel.run("%cluster restart") == []
    assert cluster["ada"].ask("there?", timeout=20).reply == "ada: there?"


def test_panes_are_live(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is shown
    (shown,) = kernel.run("%panes bob")
    assert shown["content"]["data"]["text/plain"] == "ClusterView(agents=1)"
    assert "application/vnd.jupyter.widget-view+json" in shown["content"]["data"]
    kernel.run("_.close()")


def test_panes_as_stills(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is shown
    (shown,) = kernel.run("%panes --still ada")
    assert shown["content"]["data"]["text/plain"].startswith("── ada ──")
    assert kernel.value("list(_._screens)") == ["ada"]
    kernel.run("import os; os.environ['ORCHESTRATOR_LAB_WIDGETS'] = 'static'")
    (shown,) = kernel.run("%panes")
    assert set(shown["content"]["data"]) == {"text/plain", "text/html"}
    kernel.run("del os.environ['ORCHESTRATOR_LAB_WIDGETS']")


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("%cluster", "UsageError: the following arguments are required: action"),
        ("%cluster dance", "UsageError: argument action: invalid choice: 'dance'"),
        ("%cluster attach nobody", "ClusterNotFound: no cluster 'nobody' is running here; running: magic"),
        ("%cluster start nowhere.yaml", "ConfigError: the configuration"),
        ("%cluster start --param n", "ConfigError: --param 'n': expected KEY=VALUE"),
        ("%cluster start template:duo --name a/b", "ConfigError:"),
        ("%cluster start template:duo --mode replay", "ConfigError: mode replay needs the run that is to be replayed"),
        ("%cluster start --run run_x --level deep", "ConfigError: there is no level 'deep' of replay"),
        ("%cluster start --run run_x --speed fast", "ConfigError: speed='fast' is no speed of a replay"),
        ("%cluster start --mode replay --run run_x", "RunNotFound: there is no run 'run_x'"),
        ("%cluster start --resume last --name x", "UsageError: --resume goes on with what the run had: give it alone"),
        ("%cluster attach magic --as 1x", "UsageError: --as 1x: that is no name of a variable"),
        ("%%ask\nhello", "UsageError: the following arguments are required: to"),
        ("%%ask zed\nhello", "AgentNotFound: no agent 'zed' in cluster 'magic'; it has: ada, bob"),
        ("%%ask ada\n \n", "ConfigError: there is no message: write it below the first line of the cell"),
        ("%%ask ada --timeout 0\nhello", "UsageError: --timeout 0"),
        ("%%ask ada -c other\nhello", "ClusterNotFound: no cluster 'other' is running here"),
        ("%%send zed\nhello", "AgentNotFound: no agent 'zed' in cluster 'magic'; it has: ada, bob"),
        ("%panes zed", "AgentNotFound: no agent 'zed' in cluster 'magic'; it has: ada, bob"),
    ],
)
def test_a_mistake_is_one_sentence(kernel: Any, cluster: Cluster, cell: str, sentence: str) -> None:  # noqa: ARG001
    assert error(kernel.run(cell)).startswith(sentence)


def test_other_cells_are_untouched(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - the magics are loaded
    (shown,) = kernel.run("1/0")
    assert len(shown["content"]["traceback"]) > 1
    for cell in ("x = 1\n", "%%time\nx = 1\n", "%cluster status\n", "x = 1\n%cluster stop\n", "%%askew\n"):
        assert "".join(awaited(cell.splitlines(keepends=True))) == cell


def test_shutdown_and_unload(kernel: Any, cluster: Cluster) -> None:  # noqa: ARG001 - it is shut down
    shown = kernel.run("%cluster shutdown")
    # The view's still is drawn by the kernel's loop, at the latest a moment after the cell.
    assert {one["msg_type"] for one in shown} - {"update_display_data"} == {"execute_result"}
    (shown,) = [one for one in shown if one["msg_type"] == "execute_result"]
    assert shown["content"]["data"]["text/plain"].startswith("Run magic: completed")
    assert kernel.value("len(_.messages)") > 5
    assert error(kernel.run("%cluster attach")).startswith(
        "ClusterNotFound: no cluster is named, and none is running: %cluster attach NAME"
    )
    unloaded = kernel.run("%unload_ext orchestrator_lab")
    assert [one for one in unloaded if one["msg_type"] != "update_display_data"] == []
    assert "not found" in error(kernel.run("%cluster list"))
    assert Cluster.list() == []
