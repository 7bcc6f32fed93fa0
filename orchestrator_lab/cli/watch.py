"""``status --watch``: a picture of the cluster that changes when something happens, and ticks meanwhile."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from orchestrator_lab.cli import common
from orchestrator_lab.cli.alerts import alert_lines
from orchestrator_lab.cli.words import ago, amount, bytes_
from orchestrator_lab.errors import ClusterNotFound, EnvironmentProblem, OrchestratorLabError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator_lab.cluster import Cluster

__all__ = ["picture", "watch_status"]

#: Shortest pause between two questions to the supervisor, and the longest without an event, in seconds.
_ASK_S, _ASK_AT_LEAST_S = 0.25, 30.0
#: Seconds between two ticks of the ages; they cost no question.
_TICK_S = 1.0
#: Pause before the stream of a supervisor that went away is asked for again, in seconds.
_AGAIN_S = 0.5
#: Alerts that are shown.
_SHOWN = 8


class _Follower:
    """Follows the events of a cluster on a thread of its own, to say that something happened."""

    def __init__(self, cluster: Cluster, since: int) -> None:
        from orchestrator_lab.client import Client

        self.news = threading.Event()
        self.over = False
        self._since = since
        self._client = Client(cluster.client.folder, cluster.name)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                for event in self._client.events(self._since):
                    self._since = int(event["seq"])
                    self.over = self.over or event["event"] == "run.ended"
                    self.news.set()
            except ConnectionError:  # the supervisor is replaced: whoever draws asks it back
                self.news.set()
            except OrchestratorLabError:
                self.over = True
                self.news.set()
            if self.over:
                return
            self._stopped.wait(_AGAIN_S)

    def stop(self) -> None:
        self._stopped.set()
        self._client.hang_up()
        self._thread.join(2)


def watch_status(cluster: Cluster) -> None:
    """Show a cluster until Ctrl-C, or until it is shut down.

    Parameters
    ----------
    cluster : Cluster
        It runs.

    Raises
    ------
    EnvironmentProblem
        When the output is no terminal.
    """
    from rich.live import Live

    console = common.out()
    if not console.is_terminal:
        raise EnvironmentProblem(
            "status --watch needs a terminal; a program reads 'status --json' and 'logs --follow --json'"
        )
    facts = cluster.status()
    follower = _Follower(cluster, int(facts["events"]))
    asked = time.monotonic()
    ended = False
    try:
        with Live(picture(facts, 0.0), console=console, auto_refresh=False, vertical_overflow="crop") as live:
            live.refresh()
            while not ended:
                news = follower.news.wait(_TICK_S)
                age = time.monotonic() - asked
                if news or age >= _ASK_AT_LEAST_S:
                    if age < _ASK_S:  # what comes in one go is asked for once
                        time.sleep(_ASK_S - age)
                    follower.news.clear()
                    try:
                        facts, asked = cluster.status(), time.monotonic()
                    except ClusterNotFound:
                        ended = True
                    ended = ended or follower.over
                live.update(picture(facts, time.monotonic() - asked), refresh=True)
    except KeyboardInterrupt:
        return
    finally:
        follower.stop()
    common.say_note(f"cluster {cluster.name} was shut down; its run is in {facts['run_dir']}")


def picture(facts: dict[str, Any], age_s: float) -> RenderableType:
    """Return what is shown of a status, not wider than 80 columns need be.

    Parameters
    ----------
    facts : dict
        What the supervisor said.
    age_s : float
        Seconds since then: ages go on, figures stay.
    """
    from rich.console import Group
    from rich.text import Text

    totals = facts["totals"]
    head = Text.assemble((facts["name"], "bold"), "  ", common.state_text(facts["status"]), end="")
    head.append(
        f"  {sum(totals['messages'].values())} messages, {totals['turns']} turns"
        + _memory(totals["cpu_percent"], totals["rss_bytes"]),
        style="dim",
    )
    names = [agent["name"] for agent in facts["agents"]]
    rows = common.table(
        # The one column that may be narrower than what it holds.
        ("agent", {"overflow": "fold", "min_width": 8}),
        ("state", {"no_wrap": True}),
        ("for", {"no_wrap": True, "justify": "right"}),
        ("active", {"no_wrap": True, "justify": "right"}),
        ("turns", {"no_wrap": True, "justify": "right"}),
        ("queued", {"no_wrap": True, "justify": "right"}),
        ("starts", {"no_wrap": True, "justify": "right"}),
        ("cpu", {"no_wrap": True, "justify": "right"}),
        ("memory", {"no_wrap": True, "justify": "right"}),
    )
    for agent in facts["agents"]:
        rows.add_row(
            Text(agent["name"], style=common.agent_style(agent["name"], names)),
            common.state_text(agent["state"]),
            ago(_later(agent["state_s"], age_s)),
            ago(_later(agent["last_activity_s"], age_s)),
            amount(agent["turns"] or None),
            Text(str(agent["queued"] or ""), style="yellow"),
            str(agent["restarts"] + 1),
            "" if agent["cpu_percent"] is None else f"{agent['cpu_percent']:.0f} %",
            "" if agent["rss_bytes"] is None else bytes_(agent["rss_bytes"]),
        )
    parts: list[RenderableType] = [head, Text(), rows]
    alerts = sorted(facts["alerts"], key=lambda one: _GRAVEST.get(one["level"], 9))
    if alerts:
        parts += [Text(), alert_lines(alerts[:_SHOWN])]
    if len(alerts) > _SHOWN:
        parts.append(Text(f"and {len(alerts) - _SHOWN} more: orchestrator-lab alerts", style="dim"))
    if facts["problem"]:
        parts += [Text(), Text(facts["problem"], style="bold red")]
    return Group(*parts)


_GRAVEST = {"critical": 0, "error": 1, "warning": 2, "info": 3}


def _later(value: float | None, age_s: float) -> float | None:
    return None if value is None else value + age_s


def _memory(cpu_percent: float | None, rss_bytes: int | None) -> str:
    cpu = "" if cpu_percent is None else f", {cpu_percent:.0f} % cpu"
    return cpu + ("" if rss_bytes is None else f", {bytes_(rss_bytes)}")
