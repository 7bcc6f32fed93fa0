"""Tokens and cost as they add up over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.look import FEW, agent_colors, axes_for, legend_beside, say_empty, time_limits
from orchestrator_lab.plots.reading import agent_names, begin_of, choose, read, seconds
from orchestrator_lab.plots.stacks import draw_stack
from orchestrator_lab.plots.traffic import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_cost", "plot_tokens"]

_KINDS = {
    "total": ("input_tokens", "output_tokens"),
    "input": ("input_tokens",),
    "output": ("output_tokens",),
}


def plot_tokens(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    kind: str = "total",
    stack: str | None = None,
    ax: Axes | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw how many tokens each agent had used by when.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run, or its turns table.
    kind : {"total", "input", "output"}
        What is added up; input includes cached tokens.
    stack : {"agent", "class"}, optional
        Areas one upon the other instead of lines, whose upper edge is the whole: of each agent, or of new input, input
        read from a cache, input written to one, and output. Input of turns that tell of no cache is a class of its own.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure otherwise.
    agents : iterable of str, optional
        Names in the order of colours; the run's own by default.

    Returns
    -------
    matplotlib.axes.Axes
        A line an agent, that steps up at the end of each turn. A turn whose tokens are not known adds nothing: a hollow
        mark stands there and the legend says how many there are, so the line is the least that was used. An agent of
        which nothing is known has no line.

    Raises
    ------
    ConfigError
        When the table holds more than one run, lacks a column, or ``kind`` or ``stack`` is no choice.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> turns = build_frame(
    ...     "turns",
    ...     {
    ...         "agent": ["boss", "boss", "worker"],
    ...         "started_at": ["2026-11-23T06:00:00Z"] * 3,
    ...         "ended_at": ["2026-11-23T06:00:02Z", "2026-11-23T06:00:04Z", "2026-11-23T06:00:04Z"],
    ...         "input_tokens": [100, 200, None],
    ...         "output_tokens": [10, 20, None],
    ...     },
    ... )
    >>> [text.get_text() for text in plot_tokens(turns).get_legend().get_texts()]
    ['boss  330', 'worker  not known (1 turn)']
    >>> [text.get_text() for text in plot_tokens(turns, stack="class").get_legend().get_texts()]
    ['output  30', 'input, not split  300', 'not known  1 turn']
    """
    columns = _KINDS[choose(kind, _KINDS, "kind")]
    title = f"{kind} tokens" if kind != "total" else "tokens"
    if stack is not None:
        return draw_stack(source, choose(stack, ("agent", "class"), "stack"), columns, title, ax, agents)
    return _cumulative(source, columns, title, shorten, ax, agents)


def plot_cost(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    ax: Axes | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw what each agent had cost by when.

    Parameters
    ----------
    source, ax, agents
        As for :func:`plot_tokens`.

    Returns
    -------
    matplotlib.axes.Axes
        As for :func:`plot_tokens`, in US dollars by the prices of the configuration.

    Raises
    ------
    ConfigError
        When the table holds more than one run, or lacks a column.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import empty_frame
    >>> plot_cost(empty_frame("turns")).texts[0].get_text()
    'no turns'
    """
    return _cumulative(source, ("cost_usd",), "cost (USD)", _dollars, ax, agents)


def _dollars(amount: float) -> str:
    return rf"\${amount:.2f}" if amount >= 1 or amount == 0 else rf"\${amount:.2g}"


def _cumulative(
    source: Any,  # noqa: ANN401 - see plot_tokens
    columns: tuple[str, ...],
    title: str,
    tell: Callable[[float], str],
    ax: Axes | None,
    agents: Iterable[str] | None,
) -> Axes:
    turns = read(source, "turns", ("agent", "started_at", "ended_at", *columns), one_run=True)
    at = turns["ended_at"].fillna(turns["started_at"])
    names = agent_names(source, agents, turns["agent"].dropna().unique())
    present = set(turns["agent"].dropna())
    ax = axes_for(ax, 8.0, 3.4 if len(present) <= FEW else 4.8)
    # A sum of several columns is known where all of them are.
    amount = sum(turns[name].astype("Float64") for name in columns[1:]) + turns[columns[0]].astype("Float64")
    usable = pd_frame(turns["agent"], at, amount).dropna(subset=["agent", "at"]).sort_values("at", kind="stable")
    if usable.empty:
        return say_empty(ax, "no turns")
    if usable["amount"].isna().all():
        return say_empty(ax, f"{title}: not known of any turn")
    begin = begin_of(source, [turns["started_at"], usable["at"]])
    end = max(float(seconds(usable["at"], begin).max()), 0.0)
    lines = {name: usable[usable["agent"] == name] for name in names if name in present}
    _draw_lines(ax, lines, agent_colors(names), begin, end, tell)
    time_limits(ax, 0.0, end * 1.01 or 1.0)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("time (s)")
    ax.set_ylabel(title)
    ax.yaxis.set_major_formatter(lambda value, _: tell(value) if value else "0")
    ax.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    return ax


def pd_frame(agent: pd.Series, at: pd.Series, amount: pd.Series) -> pd.DataFrame:
    """Return the three columns that are drawn, as one frame."""
    import pandas as pd

    return pd.DataFrame({"agent": agent.astype(object), "at": at, "amount": amount})


def _draw_lines(
    ax: Axes,
    lines: dict[str, pd.DataFrame],
    colors: dict[str, str],
    begin: Any,  # noqa: ANN401 - a Timestamp
    end: float,
    tell: Callable[[float], str],
) -> None:
    import numpy as np
    from matplotlib.lines import Line2D

    many = len(lines) > FEW
    handles = []
    for number, (name, turns) in enumerate(lines.items()):
        at = seconds(turns["at"], begin)
        amount = turns["amount"].to_numpy(dtype=float, na_value=np.nan)
        known = ~np.isnan(amount)
        missing = int((~known).sum())
        label = f"{name}  not known ({_turns(missing)})"
        total = -1.0
        if known.any():
            level = np.cumsum(np.where(known, amount, 0.0))
            total = float(level[-1])
            # Dashes tell apart, in print, colours that repeat.
            look = {"color": colors[name], "linewidth": 1.2 if many else 1.7, "linestyle": _dashes(number)}
            xs = np.concatenate([[0.0], at[known], [end]])
            ys = np.concatenate([[0.0], level[known], [total]])
            ax.plot(xs, ys, drawstyle="steps-post", label=name, **look)
            if missing:
                ax.scatter(at[~known], level[~known], s=18, facecolors="white", edgecolors=colors[name],
                           clip_on=False, zorder=4)  # fmt: skip
            label = f"{name}  {tell(total)}" + (f" (+ {_turns(missing)} not known)" if missing else "")
            handle = Line2D([], [], label=label, **look)
        else:
            handle = Line2D([], [], linestyle="", marker="o", markersize=4, markerfacecolor="white", label=label,
                            markeredgecolor=colors[name])  # fmt: skip
        handles.append((-total, number, handle))
    legend_beside(ax, [handle for *_, handle in sorted(handles, key=lambda one: one[:2])])


def _turns(count: int) -> str:
    return "1 turn" if count == 1 else f"{count} turns"


def _dashes(number: int) -> Any:  # noqa: ANN401 - matplotlib's line styles
    return ("solid", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))[number % 4]
