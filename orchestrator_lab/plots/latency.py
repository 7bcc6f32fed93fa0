"""How long each rung of the delivery ladder took."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.look import FEW, agent_colors, axes_for, bars, color_labels, legend_above, ramp, say_empty
from orchestrator_lab.plots.reading import agent_names, choose, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_latency"]

_LADDER = ("queued", "claimed", "written", "submitted", "accepted", "started", "answered")
_NEEDED = tuple(f"{rung}_at" for rung in _LADDER if rung != "submitted")
#: What is shorter is drawn here: the clock says no more, and a logarithmic axis has no nought.
_SHORTEST_S = 1e-3
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), "solid", (0, (3, 1)))


def plot_latency(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    by: str = "rung",
    ax: Axes | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw how long messages took from rung to rung of the delivery ladder.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run or several, or their messages table. A run also tells when Enter was pressed; a table does when it has a
        column ``submitted_at``.
    by : {"rung", "agent"}
        ``rung``: a curve a step, the share of messages that took at most so long. ``agent``: a bar a recipient, split
        into the mean of each step over the messages that were answered.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure otherwise.
    agents : iterable of str, optional
        Names in the order of the lanes; the run's own by default.

    Returns
    -------
    matplotlib.axes.Axes
        A step counts where both of its instants are known. On the logarithmic axis of the curves what took less than a
        millisecond stands at one.

    Raises
    ------
    ConfigError
        When the table lacks a column, or ``by`` is no choice.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> messages = build_frame(
    ...     "messages",
    ...     {
    ...         "recipient": ["boss"],
    ...         "queued_at": ["2026-11-23T06:00:00Z"],
    ...         "claimed_at": ["2026-11-23T06:00:02Z"],
    ...     },
    ... )
    >>> [line.get_label() for line in plot_latency(messages).lines]
    ['queued → claimed: 2 s (1)']
    """
    choose(by, ("rung", "agent"), "by")
    messages = _with_submitted(source, read(source, "messages", ("message_id", "recipient", *_NEEDED)))
    rungs = [rung for rung in _LADDER if f"{rung}_at" in messages]
    steps = {
        (start, stop): (messages[f"{stop}_at"] - messages[f"{start}_at"]).dt.total_seconds().to_numpy(float)
        for start, stop in pairwise(rungs)
    }
    return _by_rung(steps, ax) if by == "rung" else _by_agent(source, messages, steps, ax, agents)


def _with_submitted(source: Any, messages: pd.DataFrame) -> pd.DataFrame:  # noqa: ANN401
    """Add when Enter was pressed, which is in the events of a run and no column of its messages."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return messages
    from orchestrator_lab.frames import events_df

    events = events_df(source, columns=["run_id", "message_id", "at"], where={"event": "message.submitted"})
    # Enter may be pressed again; the one that led to acceptance is the last.
    last = events.drop_duplicates(["run_id", "message_id"], keep="last")
    if last.empty:
        return messages
    return messages.merge(last.rename(columns={"at": "submitted_at"}), on=["run_id", "message_id"], how="left")


def _by_rung(steps: dict[tuple[str, str], np.ndarray], ax: Axes | None) -> Axes:
    import numpy as np

    ax = axes_for(ax, 7.5, 4.0)
    known = {step: values[~np.isnan(values)] for step, values in steps.items()}
    if not any(len(values) for values in known.values()):
        return say_empty(ax, "no step of a message is known")
    for (start, stop), color, dashes in zip(known, ramp(len(known)), _DASHES, strict=False):
        values = known[start, stop]
        if not len(values):
            continue
        drawn = np.maximum(values, _SHORTEST_S)
        label = f"{start} → {stop}: {told(float(np.median(values)))} ({len(values)})"
        ax.ecdf(drawn, color=color, linestyle=dashes, linewidth=1.8, label=label)
        if len(values) == 1:  # a curve of one step is hardly seen
            ax.scatter(drawn, [1.0], s=16, color=color)
    ax.set_xscale("log")
    low, high = _ends(known)
    ax.set_xlim(low, high)
    ax.xaxis.set_major_formatter(lambda value, _: told(value))
    ax.xaxis.set_minor_formatter(lambda *_: "")
    ax.set_ylim(0.0, 1.02)
    ax.set_xlabel("took at most")
    ax.set_ylabel("share of the messages")
    ax.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    ax.legend(
        title="step: median (messages)",
        title_fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8,
        handlelength=2.6,
        alignment="left",
    )
    return ax


def _ends(known: dict[tuple[str, str], np.ndarray]) -> tuple[float, float]:
    """Return whole powers of ten around everything, at least two."""
    import numpy as np

    every = np.maximum(np.concatenate(list(known.values())), _SHORTEST_S)
    low, high = np.floor(np.log10(every.min())), np.ceil(np.log10(every.max()))
    return float(10 ** (low - 0.05)), float(10 ** (max(high, low + 2) + 0.05))


def told(duration_s: float) -> str:
    """Return a duration with a unit, short.

    Examples
    --------
    >>> [told(value) for value in (0.0004, 0.012, 1.5, 20, 100, 90_000)]
    ['<1 ms', '12 ms', '1.5 s', '20 s', '100 s', '25 h']
    """
    if duration_s < _SHORTEST_S * 0.999:
        return "<1 ms"
    if duration_s < 1:
        return f"{duration_s * 1000:.3g} ms"
    return f"{duration_s:.3g} s" if duration_s < 9999.5 else f"{duration_s / 3600:.3g} h"


def _by_agent(
    source: Any,  # noqa: ANN401 - see plot_latency
    messages: pd.DataFrame,
    steps: dict[tuple[str, str], np.ndarray],
    ax: Axes | None,
    agents: Iterable[str] | None,
) -> Axes:
    import numpy as np
    import pandas as pd
    from matplotlib.patches import Patch

    whole = ~np.isnan(np.stack(list(steps.values()))).any(axis=0)
    present = set(messages.loc[whole, "recipient"].dropna())
    names = agent_names(source, agents, messages["recipient"].dropna().unique())
    lanes = [name for name in names if name in present]
    ax = axes_for(ax, 8.0, 1.3 + (0.42 if len(lanes) <= FEW else 0.24) * max(len(lanes), 1))
    if not lanes:
        return say_empty(ax, "no message has all its steps")
    table = pd.DataFrame(dict(enumerate(steps.values())))[whole]
    means = table.groupby(messages["recipient"].to_numpy()[whole]).mean().loc[lanes]
    # A wall clock that was set back gives less than nothing.
    means = means.clip(lower=0.0)
    left = np.zeros(len(lanes))
    handles = []
    hatches = ("", "", "////", "", "....", "")
    for (start, stop), color, number in zip(steps, ramp(len(steps)), range(len(steps)), strict=True):
        width = means[number].to_numpy(float)
        look: dict[str, Any] = {"facecolor": color, "edgecolor": "white", "linewidth": 0.4, "hatch": hatches[number]}
        label = f"{start} → {stop}"
        bars(ax, np.arange(len(lanes)), left, width, 0.62, label=label, zorder=2, **look)
        handles.append(Patch(label=label, **look))
        left += width
    numbers = messages.loc[whole, "recipient"].value_counts()
    for lane, name in enumerate(lanes):
        text = f" {told(left[lane])} ({numbers[name]})"
        ax.text(left[lane], lane, text, va="center", fontsize=7 if len(lanes) > FEW else 8, color="#333333")
    ax.set_yticks(range(len(lanes)), lanes, fontsize=7 if len(lanes) > FEW else 9)
    color_labels(ax.get_yticklabels(), lanes, agent_colors(names))
    ax.set_ylim(len(lanes) - 0.4, -0.6)
    ax.set_xlim(0, left.max() * 1.16 or 1.0)
    ax.set_xlabel("mean time of an answered message (s)")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
    legend_above(ax, handles, 3)
    return ax
