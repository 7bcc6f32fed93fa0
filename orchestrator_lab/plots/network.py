"""Who writes to whom, as a network on a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.look import FEW, OUTSIDE_COLOR, axes_for, say_empty, shade
from orchestrator_lab.plots.reading import parties, read
from orchestrator_lab.plots.traffic import counts_of, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from matplotlib.axes import Axes

__all__ = ["plot_network"]

#: Edges up to which each has its count written at it.
_COUNTED = 14


def plot_network(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    ax: Axes | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw who writes to whom as a network: agents on a circle, an arrow as wide as there are messages.

    Parameters
    ----------
    source, ax, agents
        As for :func:`plot_matrix`.

    Returns
    -------
    matplotlib.axes.Axes
        An arrow has its sender's colour and is curved to the left of its way, so both directions of a pair are seen; a
        dot's area grows with what an agent sent and was sent. What an agent writes to itself is in the dot only.

    Raises
    ------
    ConfigError
        When the table lacks a column.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> messages = build_frame("messages", {"sender": ["boss", "worker"], "recipient": ["worker", "boss"]})
    >>> len(plot_network(messages).collections[0].get_segments())
    2
    """
    import numpy as np

    messages = read(source, "messages", ("sender", "recipient", "source"))
    names, colors = parties(source, messages, agents)
    many = len(names) > FEW
    ax = axes_for(ax, *((7.0, 7.0) if many else (5.6, 4.8)))
    counts = counts_of(messages, names)
    if not counts.any():
        return say_empty(ax, "no messages")
    # Clockwise from the top, as one reads a clock.
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / len(names)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    _draw_edges(ax, counts, points, [colors[name] for name in names], many=many)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    sizes = (24 if many else 110) + (130 if many else 420) * total / total.max()
    inks = [colors[name] for name in names]
    ax.scatter(points[:, 0], points[:, 1], s=sizes, c=inks, edgecolors="white", linewidths=1.2, zorder=4)
    for name, angle, (x, y) in zip(names, angles, points, strict=True):
        side = float(np.cos(angle))
        look: dict[str, Any] = {"ha": "center" if abs(side) < 0.2 else "left" if side > 0 else "right"}
        if many:  # along the ray: names do not meet, however many
            turn = float(np.degrees(angle))
            look = {"ha": "left" if side >= 0 else "right", "rotation_mode": "anchor"}
            look["rotation"] = turn if side >= 0 else turn + 180
        ax.text(
            x * (1.07 if many else 1.17),
            y * (1.07 if many else 1.17),
            name,
            va="center",
            fontsize=7 if many else 9,
            fontweight="bold",
            color=shade(colors[name], 1) if colors[name] != OUTSIDE_COLOR else OUTSIDE_COLOR,
            **look,
        )
    ax.set_aspect("equal")
    longest = max(map(len, names))
    wide, high = (1.12 + 0.026 * longest,) * 2 if many else (1.28 + 0.05 * longest, 1.32)
    ax.set_xlim(-wide, wide)
    ax.set_ylim(-high, high)
    ax.set_axis_off()
    return ax


def _draw_edges(ax: Axes, counts: np.ndarray, points: np.ndarray, inks: list[str], *, many: bool) -> None:
    import numpy as np
    from matplotlib.collections import LineCollection, PolyCollection

    senders, recipients = np.nonzero(counts * (1 - np.eye(len(counts), dtype=int)))
    if not len(senders):
        return
    number = counts[senders, recipients]
    widths = 0.5 + (2.2 if many else 5.5) * number / number.max()
    start, stop = points[senders], points[recipients]
    way = stop - start
    length = np.linalg.norm(way, axis=1, keepdims=True)
    left = np.stack([-way[:, 1], way[:, 0]], axis=1) / length
    # Edges end before the dot, so that the head is seen.
    gap = np.minimum(0.06 if many else 0.17, length * 0.2)
    start, stop = start + way / length * gap, stop - way / length * gap
    # Many edges are bundled towards the middle, where there is room; a few are bent aside only.
    bend = (start + stop) / 2 * (0.72 if many else 1.0) + left * length * (0.07 if many else 0.16)
    half = (0.010 + 0.006 * widths)[:, None] * (0.75 if many else 1.0)
    # A shaft ends within its head.
    t = np.linspace(0, 1, 24)[:, None, None] * (1 - half / length)
    curves = ((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * stop).transpose(1, 0, 2)
    alpha = 0.55 if many else 0.85
    # The heaviest last, on top.
    order = np.argsort(number, kind="stable")
    chosen = [inks[senders[one]] for one in order]
    ax.add_collection(
        LineCollection(curves[order], colors=chosen, linewidths=widths[order], alpha=alpha, zorder=2),
        autolim=False,
    )
    tip, ahead = stop, stop - bend
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    across = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    base = tip - ahead * 2 * half
    heads: Any = np.stack([tip + ahead * half, base + across * half, base - across * half], axis=1)
    ax.add_collection(
        PolyCollection(heads[order], facecolors=chosen, linewidths=0, alpha=alpha, zorder=3),
        autolim=False,
    )
    if len(number) <= _COUNTED:
        for count, (x, y) in zip(number, curves[:, 13], strict=True):
            ax.text(
                x,
                y,
                shorten(int(count)),
                ha="center",
                va="center",
                fontsize=7.5,
                color="#222222",
                zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.9},
            )
