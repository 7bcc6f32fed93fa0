"""What part of its time an agent was in which state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.look import (
    FEW,
    STATE_COLORS,
    agent_colors,
    axes_for,
    bars,
    color_labels,
    legend_above,
    say_empty,
    state_look,
)
from orchestrator_lab.plots.reading import agent_names, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes

__all__ = ["plot_states"]

#: Share from which on its figure fits into the bar.
_WRITTEN = 0.07


def plot_states(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    ax: Axes | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw what share of its time each agent was in which state.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run, or its states table.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure, as high as the agents need, otherwise.
    agents : iterable of str, optional
        Names in the order of the lanes; the run's own by default.

    Returns
    -------
    matplotlib.axes.Axes
        A bar an agent, from 0 to 100 percent of the time in which its state is on record. An interval that lasts counts
        to the last instant known.

    Raises
    ------
    ConfigError
        When the table holds more than one run, or lacks a column.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> states = build_frame(
    ...     "states",
    ...     {
    ...         "agent": ["boss", "boss"],
    ...         "state": ["idle", "busy"],
    ...         "started_at": ["2026-11-23T06:00:00Z", "2026-11-23T06:00:03Z"],
    ...         "ended_at": ["2026-11-23T06:00:03Z", "2026-11-23T06:00:04Z"],
    ...     },
    ... )
    >>> [text.get_text() for text in plot_states(states).texts]
    ['75', '25']
    """
    import numpy as np
    import pandas as pd
    from matplotlib.patches import Patch

    states = read(source, "states", ("agent", "state", "started_at", "ended_at"), one_run=True)
    last = pd.concat([states["started_at"], states["ended_at"]]).max()
    length = (states["ended_at"].fillna(last) - states["started_at"]).dt.total_seconds().clip(lower=0)
    plain = pd.DataFrame(
        {"agent": states["agent"].astype(object), "state": states["state"].astype(object), "s": length}
    )
    sums = plain.dropna().pivot_table(index="agent", columns="state", values="s", aggfunc="sum", fill_value=0.0)
    total = sums.sum(axis=1)
    names = agent_names(source, agents, states["agent"].dropna().unique())
    lanes = [name for name in names if total.get(name, 0.0) > 0]
    many = len(lanes) > FEW
    ax = axes_for(ax, 7.5, 1.2 + (0.25 if many else 0.42) * max(len(lanes), 1))
    if not lanes:
        return say_empty(ax, "no state lasted")
    share = sums.loc[lanes].div(total[lanes], axis=0)
    left = np.zeros(len(lanes))
    handles = []
    for state in [one for one in STATE_COLORS if one in share]:
        width = share[state].to_numpy(float)
        look = state_look(state) | {"edgecolor": state_look(state).get("edgecolor", "white"), "linewidth": 0.4}
        bars(ax, np.arange(len(lanes)), left, width, 0.66, zorder=2, label=state, **look)
        handles.append(Patch(label=state, **look))
        for lane in np.nonzero(width >= _WRITTEN)[0].tolist():
            ax.text(
                left[lane] + width[lane] / 2,
                lane,
                f"{100 * width[lane]:.0f}",
                ha="center",
                va="center",
                fontsize=6.5 if many else 8,
                color="white" if state == "failed" else "#222222",
                zorder=3,
                bbox={"facecolor": STATE_COLORS[state], "edgecolor": "none", "pad": 0.6},
            )
        left += width
    ax.set_yticks(range(len(lanes)), lanes, fontsize=7 if many else 9)
    color_labels(ax.get_yticklabels(), lanes, agent_colors(names))
    ax.set_ylim(len(lanes) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    ax.set_xlabel("share of the time")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    legend_above(ax, handles)
    return ax
