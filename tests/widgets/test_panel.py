"""The control panel: it follows clusters that anybody starts and ends, and starts and ends some itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import orchestrator_lab
from orchestrator_lab import Cluster
from orchestrator_lab.errors import ClusterNotFound, ConfigError
from orchestrator_lab.live import Feed
from orchestrator_lab.widgets import opened
from orchestrator_lab.widgets.controls import ClusterControls
from orchestrator_lab.widgets.starting import written
from orchestrator_lab.widgets.view import ClusterView

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab.widgets.panel import ControlPanel


@pytest.fixture
def panel(module_runtime: Path) -> Iterator[ControlPanel]:  # noqa: ARG001 - a place of its own
    made = orchestrator_lab.panel()
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Any) -> Iterator[Cluster]:  # noqa: ARG001 - a place of its own
    config = script_config("ada", "bob", agents={"dot": {"limits": {"turns": 1}}}, name="mine", lifetime="owner")
    with Cluster.start(config) as running:
        yield running


def test_without_clusters_it_says_so(panel: ControlPanel) -> None:
    assert panel.clusters == []
    assert "No cluster is running." in panel._list.children[0].value
    assert repr(panel) == "ControlPanel()"
    bundle = panel._repr_mimebundle_()
    assert (bundle["text/plain"], bundle["text/html"]) == ("ControlPanel()", panel.still_html())


def test_a_cluster_that_somebody_starts_appears_and_goes(panel: ControlPanel, script_config: Any, until: Any) -> None:
    with Cluster.start(script_config("ada", name="other", lifetime="owner")):
        until(lambda: panel.clusters == ["other"])
        row = panel._rows["other"]
        until(lambda: "1 idle" in row._text.value, says=lambda: row._text.value)
    until(lambda: panel.clusters == [])


def deafen(panel: ControlPanel) -> None:
    """Have a panel hear of clusters no more: of what was written before it came, it may hear late."""
    for end in panel._ends:
        end()
    for thread in threading.enumerate():
        if thread.name == "orchestrator-lab-discovery":
            thread.join(20)


def test_closed_while_it_looks(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that hears of clusters is at work as its panel goes: nothing follows on behind it."""
    panel = orchestrator_lab.panel()
    deafen(panel)
    row = panel._rows.pop(cluster.name)
    row.leave()
    attach = Cluster.attach

    def closing(name: str) -> Cluster:
        found = attach(name)
        panel.close()
        return found

    monkeypatch.setattr(Cluster, "attach", closing)
    panel._show([cluster.name])
    assert panel.clusters == []
    panel._found()
    assert panel.clusters == []


def test_a_cluster_that_ends_while_it_is_shown_is_told_in_its_row(
    cluster: Cluster, panel: ControlPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    deafen(panel)
    panel._rows.pop(cluster.name).leave()

    def gone(name: str) -> Feed:
        raise ClusterNotFound(f"no cluster {name!r} is running here; running: none", cluster=name)

    monkeypatch.setattr(Feed, "of", gone)
    panel._show([cluster.name])
    row = panel._rows[cluster.name]
    assert not row.follows
    assert "no cluster" in row._text.value
    monkeypatch.undo()
    panel._show([cluster.name])
    assert panel._rows[cluster.name].follows


def test_states_and_alerts(cluster: Cluster, panel: ControlPanel, until: Any) -> None:
    row = panel._rows["mine"]
    until(lambda: "3 idle" in row._text.value)
    cluster["dot"].ask("once", timeout=20)
    cluster["dot"].send("twice")
    until(lambda: "delivery to dot is paused" in row._alerts.value)
    cluster.clear()
    until(lambda: not row._alerts.value)


def test_a_view_is_opened_counted_and_closed(cluster: Cluster, panel: ControlPanel, until: Any) -> None:
    row = panel._rows["mine"]
    elsewhere = cluster.view()
    until(lambda: "1 open view" in row._text.value)
    row._open.click()
    view, controls = row.children[2:]
    assert isinstance(view, ClusterView)
    assert isinstance(controls, ClusterControls)
    until(lambda: "2 open views" in row._text.value)
    row._close.click()
    assert len(row.children) == 2
    elsewhere.close()
    until(lambda: "open view" not in row._text.value)
    assert opened.views("mine") == []


def test_shut_down_asks_first(panel: ControlPanel, script_config: Any, until: Any) -> None:
    cluster = Cluster.start(script_config("ada", name="doomed"))
    until(lambda: "doomed" in panel.clusters)
    row = panel._rows["doomed"]
    row._shut.click()
    assert row._bar.children[1:] == (row._really, row._keep)
    row._keep.click()
    assert row._bar.children[1:] == (row._open, row._shut)
    assert cluster.status()["status"] == "running"
    row._shut.click()
    row._really.click()
    until(lambda: "doomed" not in panel.clusters)
    until(lambda: "Cluster doomed was shut down" in panel._said.value, says=lambda: panel._said.value)


def test_start_from_a_template(
    panel: ControlPanel, until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator_lab.widgets.panel.written", lambda *chosen: _scripted(written(*chosen)))
    panel._kind.value = "chat"
    panel._name.value = "from-panel"
    panel._folder.value = str(tmp_path / "new")
    panel._start_button.click()
    assert panel._start_button.disabled
    until(lambda: "Cluster from-panel is running: writer, critic." in panel._said.value, 30, lambda: panel._said.value)
    until(lambda: "from-panel" in panel.clusters)
    Cluster.attach("from-panel").shutdown()
    until(lambda: "from-panel" not in panel.clusters)


def _scripted(path: Path) -> Path:
    """Replace the local model, which takes long to load, by a script."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("gateway: {mode: local}", "gateway: {mode: script, script: [{reply: hello}]}"))
    return path


def test_a_start_that_is_not_possible_is_told(panel: ControlPanel, until: Any, tmp_path: Path) -> None:
    panel._name.value = "no/name"
    panel._folder.value = str(tmp_path / "never")
    panel._start_button.click()
    until(lambda: "Nothing was started: " in panel._said.value)
    assert "no/name" in panel._said.value
    assert not (tmp_path / "never").exists()
    assert not panel._start_button.disabled


# what it is made of -------------------------------------------------------------------------------


def test_written_twice_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written("boss-manager-specialists", "chat", "crew", str(tmp_path))
    assert first == tmp_path / "cluster.yaml"
    assert "name: crew" in first.read_text()
    assert (tmp_path / "instructions" / "boss.md").is_file()
    before = first.stat().st_mtime_ns
    assert written("boss-manager-specialists", "chat", "crew", str(tmp_path)) == first
    assert first.stat().st_mtime_ns == before
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"cluster\.yaml in .* is there already and says something else"):
        written("duo", None, "", "")


def test_nothing_is_written_where_it_may_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write into"):
        written("duo", None, "", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="name"):
        written("duo", None, "../x", str(tmp_path / "sub"))
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
