"""Which tools agents used, how often they failed and how long they took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.latency import told
from orchestrator_lab.plots.look import (
    ERROR_COLOR,
    FEW,
    agent_colors,
    axes_for,
    bars,
    color_labels,
    legend_beside,
    ramp,
    say_empty,
)
from orchestrator_lab.plots.reading import agent_names, choose, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_tools"]

#: Tools that have a colour of their own; the rest is one.
_NAMED = 6
_HATCHES = ("", "////", "", "....", "", "xxxx")
_REST = "others"


def plot_tools(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    by: str = "agent",
    ax: Axes | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw which tools agents called, how often the calls failed, and how long they took.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run or several, or their tool_calls table.
    by : {"agent", "tool"}
        What has a lane: an agent, whose bar is split by tools, or a tool, whose bar is split by agents.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure, as high as the lanes need, otherwise.
    agents : iterable of str, optional
        Names in the order of lanes and colours; the run's own by default.

    Returns
    -------
    matplotlib.axes.Axes
        The bar is the number of calls; the thin hatched one below it those that failed or were denied. Beside them
        stand the figures and the median duration, where one is known. A call whose end is not known counts as no error.

    Raises
    ------
    ConfigError
        When the table lacks a column, or ``by`` is no choice.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> calls = build_frame(
    ...     "tool_calls",
    ...     {"agent": ["boss"] * 2, "name": ["Bash"] * 2, "status": ["ok", "error"], "duration_s": [1.0, 3.0]},
    ... )
    >>> plot_tools(calls).texts[0].get_text().strip()
    '2, 1 failed, 2 s'
    """
    import numpy as np
    from matplotlib.patches import Patch

    choose(by, ("agent", "tool"), "by")
    frame = read(source, "tool_calls", ("agent", "name", "status", "duration_s"))
    frame = frame.dropna(subset=["agent"]).assign(name=lambda one: one["name"].fillna("unknown").astype(object))
    names = agent_names(source, agents, frame["agent"].unique())
    tools = frame["name"].value_counts()
    # Equal counts in the order of their names, so that a picture does not depend on the order of rows.
    ordered = sorted(tools.index, key=lambda tool: (-tools[tool], tool))
    colors = agent_colors(names)
    used = set(frame["agent"])
    lanes = [name for name in names if name in used] if by == "agent" else ordered
    ax = axes_for(ax, 8.5, 1.0 + (0.45 if len(lanes) <= FEW else 0.27) * max(len(lanes), 1))
    if frame.empty:
        return say_empty(ax, "no tool calls")
    parts = _parts(ordered, names, used, colors, by)
    position = {lane: number for number, lane in enumerate(lanes)}
    lane_of = frame["agent" if by == "agent" else "name"].map(position).to_numpy(int)
    part_of = frame["name" if by == "agent" else "agent"]
    left = np.zeros(len(lanes))
    handles = []
    for part, look in parts:
        mine = (~part_of.isin([one for one, _ in parts])) if part == _REST else part_of == part
        width = np.bincount(lane_of[mine.to_numpy(bool)], minlength=len(lanes))
        if width.any():
            bars(ax, np.arange(len(lanes)) - 0.06, left, width, 0.5, zorder=2, label=part, **look)
            handles.append(Patch(label=part, **look))
            left += width
    wrong = frame["status"].isin(["error", "denied"]).to_numpy(bool)
    failed = np.bincount(lane_of[wrong], minlength=len(lanes))
    if failed.any():
        look = {"facecolor": "white", "edgecolor": ERROR_COLOR, "hatch": "//////", "linewidth": 0.8}
        there = failed > 0
        bars(ax, np.arange(len(lanes))[there] + 0.28, 0 * failed[there], failed[there], 0.14, label="failed", **look)
        handles.append(Patch(label="failed or denied", **look))
    _write(ax, frame, lane_of, left, failed)
    _dress(ax, lanes, colors, float(left.max()), by)
    legend_beside(ax, handles)
    return ax


def _parts(
    tools: list[str], names: list[str], used: set[str], colors: dict[str, str], by: str
) -> list[tuple[str, dict[str, Any]]]:
    """Return what a bar is made of, and how each part looks."""
    edge = {"edgecolor": "white", "linewidth": 0.5}
    if by == "tool":
        return [(name, {"facecolor": colors[name], **edge}) for name in names if name in used]
    # One tool that is left over needs no bag of its own.
    named = tools if len(tools) <= _NAMED + 1 else tools[:_NAMED]
    looks = [
        (tool, {"facecolor": color, "hatch": _HATCHES[number % len(_HATCHES)], **edge})
        for number, (tool, color) in enumerate(zip(named, ramp(len(named)), strict=True))
    ]
    return looks if named is tools else [*looks, (_REST, {"facecolor": "#DDDDDD", **edge})]


def _write(ax: Axes, frame: pd.DataFrame, lane_of: Any, left: Any, failed: Any) -> None:  # noqa: ANN401 - arrays
    median = frame["duration_s"].astype(float).groupby(lane_of).median()
    for lane, count in enumerate(left):
        words = [f"{count:.0f}"]
        if failed[lane]:
            words.append(f"{failed[lane]} failed")
        if median.get(lane, 0.0) > 0.0:  # NaN is not
            words.append(told(float(median[lane])))
        size = 7 if len(left) > FEW else 8
        ax.text(count, lane - 0.06, "  " + ", ".join(words), va="center", fontsize=size, color="#333333")


def _dress(ax: Axes, lanes: list[str], colors: dict[str, str], longest: float, by: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_yticks(range(len(lanes)), lanes, fontsize=7 if len(lanes) > FEW else 9)
    if by == "agent":
        color_labels(ax.get_yticklabels(), lanes, colors)
    ax.set_ylim(len(lanes) - 0.4, -0.6)
    # Room for the figures beside the longest bar.
    ax.set_xlim(0, longest * 1.36)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("calls (beside the bar: calls, failed or denied, median duration)")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
