"""Tokens as areas one upon the other: by agent, or by what they were charged as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.look import FEW, agent_colors, axes_for, legend_beside, ramp, say_empty
from orchestrator_lab.plots.reading import agent_names, begin_of, read, seconds
from orchestrator_lab.plots.traffic import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw_stack"]

_READ, _WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"
#: Classes from the lowest area up. The one that nobody split is hatched as well.
_CLASSES = ("cache read", "cache written", "new input", "input, not split", "output")
_HATCHES = {"input, not split": "////"}


def draw_stack(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    stack: str,
    columns: tuple[str, ...],
    title: str,
    ax: Axes | None,
    agents: Iterable[str] | None,
) -> Axes:
    """Draw how many tokens had been used by when, as areas one upon the other.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run, or its turns table.
    stack : {"agent", "class"}
        What an area is.
    columns : tuple of str
        ``input_tokens``, ``output_tokens`` or both.
    title : str
        Of the axis.
    ax : matplotlib.axes.Axes or None
        Where to draw; a new figure otherwise.
    agents : iterable of str or None
        Names in the order of areas and colours; the run's own by default.

    Returns
    -------
    matplotlib.axes.Axes
        As :func:`orchestrator_lab.plots.plot_tokens` tells.
    """
    needed = ("agent", "started_at", "ended_at", *columns)
    split = stack == "class" and "input_tokens" in columns
    turns = read(source, "turns", (*needed, _READ, _WRITTEN) if split else needed, one_run=True)
    names = agent_names(source, agents, turns["agent"].dropna().unique())
    present = [name for name in names if name in set(turns["agent"].dropna())]
    ax = axes_for(ax, 8.0, 3.4 if stack == "class" or len(present) <= FEW else 4.8)
    turns = turns.assign(at=turns["ended_at"].fillna(turns["started_at"])).dropna(subset=["agent", "at"])
    turns = turns.sort_values("at", kind="stable")
    if turns.empty:
        return say_empty(ax, "no turns")
    known = turns[list(columns)].notna().all(axis=1)
    if not known.any():
        return say_empty(ax, f"{title}: not known of any turn")
    begin = begin_of(source, [turns["started_at"], turns["at"]])
    at = seconds(turns["at"], begin)
    if stack == "agent":
        whole = turns[list(columns)].astype("Float64").sum(axis=1)
        parts = {name: whole.where(turns["agent"] == name, 0) for name in present}
        looks: dict[str, dict[str, Any]] = {name: {"facecolor": agent_colors(names)[name]} for name in present}
    else:
        parts = _classes(turns, columns)
        colors = dict(zip(_CLASSES, ramp(len(_CLASSES)), strict=True))
        looks = {name: {"facecolor": colors[name], "hatch": _HATCHES.get(name)} for name in parts}
    amounts = {name: part[known].to_numpy(dtype=float, na_value=0.0) for name, part in parts.items()}
    _draw(ax, {name: part for name, part in amounts.items() if part.any()}, looks, at, known.to_numpy(bool))
    end = max(float(at.max()), 0.0)
    ax.set_xlim(0.0, end * 1.01 or 1.0)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("time (s)")
    ax.set_ylabel(title)
    ax.yaxis.set_major_formatter(lambda value, _: shorten(value) if value else "0")
    ax.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def _classes(turns: pd.DataFrame, columns: tuple[str, ...]) -> dict[str, pd.Series]:
    """Return the tokens of each turn by what they were charged as."""
    parts: dict[str, pd.Series] = {}
    if "input_tokens" in columns:
        whole, read_, written = (turns[name].astype("Float64") for name in ("input_tokens", _READ, _WRITTEN))
        told = read_.notna() | written.notna()
        read_, written = read_.fillna(0), written.fillna(0)
        parts = {
            "cache read": read_,
            "cache written": written,
            "new input": (whole - read_ - written).clip(lower=0).where(told, 0),
            "input, not split": whole.where(~told, 0),
        }
    if "output_tokens" in columns:
        parts["output"] = turns["output_tokens"].astype("Float64")
    return parts


def _draw(ax: Axes, parts: Mapping[str, Any], looks: Mapping[str, dict[str, Any]], at: Any, known: Any) -> None:  # noqa: ANN401 - arrays
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    # A little beyond the last turn, whose step would have no width.
    xs = np.concatenate([[0.0], at[known], [max(float(at.max()), 0.0) * 1.01 or 1.0]])
    base = np.zeros(len(xs))
    handles: list[Any] = []
    for name, amount in parts.items():
        level = np.cumsum(amount)
        top = base + np.concatenate([[0.0], level, level[-1:]])
        look = {**looks[name], "edgecolor": "white", "linewidth": 0.4}
        ax.fill_between(xs, base, top, step="post", label=name, **look)
        handles.append(Patch(label=f"{name}  {shorten(float(level[-1]))}", **look))
        base = top
    handles.reverse()  # as the areas stand
    missing = int((~known).sum())
    if missing:
        height = base[np.searchsorted(at[known], at[~known], side="right")]
        ax.scatter(at[~known], height, s=18, facecolors="white", edgecolors="#555555", clip_on=False, zorder=4)
        handles.append(
            Line2D([], [], linestyle="", marker="o", markersize=4, markerfacecolor="white", markeredgecolor="#555555",
                   label=f"not known  {missing} turn{'s' if missing != 1 else ''}")
        )  # fmt: skip
    legend_beside(ax, handles)
