"""Who writes to whom, as a matrix of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.look import FEW, axes_for, color_labels, say_empty
from orchestrator_lab.plots.reading import parties, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["counts_of", "plot_matrix", "shorten"]

#: Lanes beyond which a cell is too small for its number.
_NUMBERED = 40


def plot_matrix(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    ax: Axes | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw who writes to whom: senders as rows, recipients as columns, the count in the cell.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run or several, or their messages table; messages of several runs are added up.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure, as large as the agents need, otherwise.
    agents : iterable of str, optional
        Names in the order of rows and colours; the run's own by default.

    Returns
    -------
    matplotlib.axes.Axes
        A cell without a message is white. Every message counts, whatever became of it.

    Raises
    ------
    ConfigError
        When the table lacks a column.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> messages = build_frame("messages", {"sender": ["boss", "boss"], "recipient": ["worker", "worker"]})
    >>> [text.get_text() for text in plot_matrix(messages).texts]
    ['2']
    """
    import numpy as np

    messages = read(source, "messages", ("sender", "recipient", "source"))
    names, colors = parties(source, messages, agents)
    counts = counts_of(messages, names)
    many = len(names) > FEW
    cell = 0.26 if many else 0.52
    side = cell * max(len(names), 3)
    ax = axes_for(ax, side + 1.5, side + 1.1)
    if not counts.any():
        return say_empty(ax, "no messages")
    highest = counts.max()
    # From pale on: nought is white and everything else is not.
    drawn = ax.imshow(np.ma.masked_equal(counts, 0), cmap="Blues", vmin=-0.15 * highest, vmax=highest, zorder=1)
    size = 7 if many else 9
    if len(names) <= _NUMBERED:
        for row, column in zip(*counts.nonzero(), strict=True):
            count = int(counts[row, column])
            dark = count > 0.55 * highest
            ax.text(
                column,
                row,
                shorten(count),
                ha="center",
                va="center",
                fontsize=6 if many else 9,
                color="white" if dark else "#222222",
            )
    else:
        ax.figure.colorbar(drawn, ax=ax, label="messages", shrink=0.7)
    steep = many or max(map(len, names)) > 6
    ax.set_xticks(range(len(names)), names, fontsize=size, rotation=90 if steep else 0)
    ax.set_yticks(range(len(names)), names, fontsize=size)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("recipient")
    ax.set_ylabel("sender")
    color_labels(ax.get_xticklabels(), names, colors)
    color_labels(ax.get_yticklabels(), names, colors)
    edges = np.arange(len(names) + 1) - 0.5
    ax.set_xticks(edges, minor=True)
    ax.set_yticks(edges, minor=True)
    ax.grid(visible=True, which="minor", color="#E2E2E2", linewidth=0.6)
    ax.tick_params(which="both", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def counts_of(messages: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return how many messages went from each (rows) to each (columns)."""
    import numpy as np

    position = {name: number for number, name in enumerate(names)}
    pairs = messages[["sender", "recipient"]].dropna()
    counts = np.zeros((len(names), len(names)), dtype=int)
    if len(pairs):
        # Integers first: one pass over the texts of each column, and none over the pairs in Python.
        rows, columns = (pairs[one].map(position).to_numpy(int) for one in ("sender", "recipient"))
        np.add.at(counts, (rows, columns), 1)
    return counts


def shorten(count: float) -> str:
    """Return a count of at most four characters or so.

    Examples
    --------
    >>> [shorten(number) for number in (7, 999, 1234, 56789, 2_000_000)]
    ['7', '999', '1.2k', '57k', '2M']
    """
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            value = count / size
            return f"{value:.1f}{unit}".replace(".0", "") if value < 9.95 else f"{value:.0f}{unit}"
    return f"{count:.0f}"
