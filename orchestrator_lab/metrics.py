"""A cluster's figures for Prometheus.

Examples
--------
>>> figures = {"name": "lab", "run_id": "run_x", "version": "1.0", "status": "running", "run_s": 2.5, "events": 7}
>>> print(render([figures]).splitlines()[-1])
orchestrator_lab_events_total{cluster="lab"} 7.0
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

__all__ = ["render"]

_PREFIX = "orchestrator_lab_"


def render(clusters: Sequence[Mapping[str, Any]]) -> str:
    """Write figures in the text format of Prometheus.

    Parameters
    ----------
    clusters : sequence of mapping
        What :meth:`orchestrator_lab.Cluster.figures` returned, one each.

    Returns
    -------
    str
        Version 0.0.4 of the format: what a scraper reads. What is not known is left out, never zero.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class _Figures(Collector):
        def collect(self) -> Iterable[Metric]:
            return _families(clusters)

    registry = CollectorRegistry()
    registry.register(_Figures())
    return generate_latest(registry).decode("utf-8")


def _families(clusters: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    def gauge(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(_PREFIX + name, help_, labels=["cluster", *labels])

    def counter(name: str, help_: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(_PREFIX + name, help_, labels=["cluster", *labels])

    info = gauge("info", "The cluster's run and the version that runs it.", "run_id", "version", "status")
    run_s = gauge("run_seconds", "Seconds since the start of the run.")
    agents = gauge("agents", "Agents by state.", "state")
    state_s = gauge("agent_state_seconds", "Seconds that an agent has been in its state.", "agent", "state")
    activity_s = gauge("agent_last_activity_seconds", "Seconds since an agent did anything.", "agent")
    cpu = gauge("agent_cpu_ratio", "Share of one core that an agent's processes used at the last look.", "agent")
    rss = gauge("agent_resident_memory_bytes", "Resident memory of an agent's processes.", "agent")
    queued = gauge("queued_messages", "Messages that wait for an agent.", "agent")
    restarts = counter("restarts", "Starts of an agent after the first.", "agent")
    turns = counter("turns", "Turns that ended, by why they did.", "agent", "end_reason")
    tokens = counter("tokens", "Tokens as the programs reported them.", "agent", "direction")
    messages = gauge("messages", "Messages of the run by the rung that they are on.", "status")
    alerts = gauge("alerts", "Open alerts by level.", "level")
    delivery = HistogramMetricFamily(
        _PREFIX + "delivery_seconds", "Seconds from a message's claim to its acceptance.", labels=["cluster"]
    )
    uptime = gauge("process_uptime_seconds", "Age of the lab's own processes.", "process")
    own_cpu = counter("process_cpu_seconds", "Processor time of the lab's own processes.", "process")
    own_rss = gauge("process_resident_memory_bytes", "Resident memory of the lab's own processes.", "process")
    events = counter("events", "Events in the journal.")
    for one in clusters:
        name = str(one["name"])
        info.add_metric([name, str(one["run_id"]), str(one["version"]), str(one["status"])], 1)
        run_s.add_metric([name], one["run_s"])
        events.add_metric([name], one["events"])
        described = one.get("agents", [])
        for state, count in Counter(str(agent["state"]) for agent in described).items():
            agents.add_metric([name, state], count)
        for agent in described:
            who = [name, str(agent["name"])]
            _add(state_s, [*who, str(agent["state"])], agent["state_s"])
            _add(activity_s, who, agent["last_activity_s"])
            _add(cpu, who, None if agent["cpu_percent"] is None else round(agent["cpu_percent"] / 100, 6))
            _add(rss, who, agent["rss_bytes"])
            queued.add_metric(who, agent["queued"])
            restarts.add_metric(who, agent["restarts"])
        for agent_name, reason, count in one.get("turns", []):
            turns.add_metric([name, agent_name, reason], count)
        for agent_name, direction, count in one.get("tokens", []):
            tokens.add_metric([name, agent_name, direction], count)
        for status, count in one.get("messages", {}).items():
            messages.add_metric([name, status], count)
        for level in ("info", "warning", "error", "critical"):
            alerts.add_metric([name, level], one.get("alerts", {}).get(level, 0))
        if "delivery" in one:
            delivery.add_metric([name], _buckets(one["delivery"]), one["delivery"]["sum_s"])
        for process, cost in one.get("processes", {}).items():
            _add(uptime, [name, process], cost["uptime_s"])
            _add(own_cpu, [name, process], cost["cpu_s"])
            _add(own_rss, [name, process], cost["rss_bytes"])
    yield from (info, run_s, agents, state_s, activity_s, cpu, rss, queued, restarts, turns, tokens, messages)
    yield from (alerts, delivery, uptime, own_cpu, own_rss, events)


def _add(family: Any, labels: list[str], value: float | None) -> None:  # noqa: ANN401 - any family of one value
    if value is not None:
        family.add_metric(labels, value)


def _buckets(delivery: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return counts as Prometheus has them: each bound's holds those below it."""
    total, made = 0, []
    for bound, count in zip([*map(str, delivery["bounds_s"]), "+Inf"], delivery["counts"], strict=True):
        total += count
        made.append((bound, float(total)))
    return made
