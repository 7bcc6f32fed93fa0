"""The sequence diagram: each message as an arrow between the lanes of sender and recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.glyphs import families, fold
from orchestrator_lab.plots.look import FEW, OUTSIDE_COLOR, axes_for, color_labels, legend_above, say_empty, time_limits
from orchestrator_lab.plots.reading import begin_of, choose, parties, read, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_messages"]

#: Messages up to which they stand one below the other, with their texts.
_TOLD = 40
_COLUMNS = ("sender", "recipient", "queued_at", "accepted_at", "status")


def plot_messages(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    *,
    ax: Axes | None = None,
    direction: str = "down",
    spacing: str = "auto",
    labels: bool | None = None,
    agents: Iterable[str] | None = None,
) -> Axes:
    """Draw a sequence diagram: a lane an agent, an arrow a message.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run, or its messages table.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure, as large as lanes and messages need, otherwise.
    direction : {"down", "right"}
        Where time goes.
    spacing : {"auto", "even", "time"}
        ``even`` puts the messages at equal distances in their order, with their seconds on the axis; ``time`` puts them
        at their instants, so that an arrow leans by the time that its delivery took. ``auto`` is ``even`` up to 40
        messages.
    labels : bool, optional
        Write the beginning of each text at its arrow; by default up to 40 evenly spaced messages that go down.
    agents : iterable of str, optional
        Names in the order of lanes and colours; the run's own by default.

    Returns
    -------
    matplotlib.axes.Axes
        Seconds since the run's first state (or the table's first message). An arrow has its sender's colour and goes
        from the instant of queuing to that of acceptance; a message without proof of acceptance is dashed and ends in a
        cross.

    Raises
    ------
    ConfigError
        When the table holds more than one run, lacks a column, or an argument is no choice.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> at = ["2026-11-23T06:00:00Z", "2026-11-23T06:00:02Z"]
    >>> messages = build_frame(
    ...     "messages",
    ...     {"sender": ["user", "boss"], "recipient": ["boss", "worker"], "queued_at": at, "accepted_at": at},
    ... )
    >>> [label.get_text() for label in plot_messages(messages).get_xticklabels()]
    ['user', 'boss', 'worker']
    """
    choose(direction, ("down", "right"), "direction")
    choose(spacing, ("auto", "even", "time"), "spacing")
    columns = [*_COLUMNS, "source"]
    if labels is not False:
        columns.append("content")
    frame = read(source, "messages", columns, one_run=True)
    messages = frame.dropna(subset=["sender", "recipient", "queued_at"]).sort_values("queued_at", kind="stable")
    even = spacing == "even" or (spacing == "auto" and len(messages) <= _TOLD)
    lanes, colors = parties(source, messages, agents)
    down = direction == "down"
    ax = axes_for(ax, *_size(len(lanes), len(messages), even=even, down=down))
    if messages.empty:
        return say_empty(ax, "no messages")
    begin = begin_of(source, [messages["queued_at"]])
    began = seconds(messages["queued_at"], begin)
    ended = seconds(messages["accepted_at"], begin)
    place = _Place(began, ended, even=even)
    _draw(ax, messages, lanes, colors, place, down=down)
    if labels or (labels is None and even and down and len(messages) <= _TOLD):
        _label(ax, messages, lanes, place, down=down)
    _dress(ax, lanes, colors, place, down=down)
    return ax


class _Place:
    """Where each message begins and ends on the axis of time."""

    def __init__(self, began: np.ndarray, ended: np.ndarray, *, even: bool) -> None:
        import numpy as np

        self.began, self.even = began, even
        self.arrived = ~np.isnan(ended)
        rows = np.arange(len(began), dtype=float)
        self.start = rows if even else began
        # A wall clock that was set back must not turn an arrow round.
        self.stop = rows if even else np.where(self.arrived, np.maximum(ended, began), began)


def _size(lanes: int, messages: int, *, even: bool, down: bool) -> tuple[float, float]:
    across = max(lanes, 2) * (1.45 if lanes <= FEW and down else 0.42)
    along = 1.2 + 0.27 * min(messages, 110) if even else 7.0
    if down:
        return min(max(across, 4.5), 14.0), min(max(along, 2.4), 32.0)
    return min(max(along, 9.0), 32.0), min(max(across, 2.0) + 0.9, 14.0)


def _draw(
    ax: Axes,
    messages: pd.DataFrame,
    lanes: list[str],
    colors: dict[str, str],
    place: _Place,
    *,
    down: bool,
) -> None:
    """Draw arrows: one collection for the shafts and one for the heads of each way, however many there are."""
    import numpy as np
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba_array

    position = {name: number for number, name in enumerate(lanes)}
    source = messages["sender"].map(position).to_numpy(float)
    target = messages["recipient"].map(position).to_numpy(float)
    # Who writes to itself gets a stub beside its lane.
    source = np.where(source == target, target + 0.35, source)
    forward = target > source
    few = len(messages) <= 4 * _TOLD
    palette = to_rgba_array([colors[name] for name in lanes])
    inks = palette[messages["sender"].map(position).to_numpy(int)]
    if not few:
        inks[:, 3] = max(0.25, min(0.9, 2000 / len(messages)))
    # A lost message ends before its lane: nothing proves that it came there.
    reach = np.where(place.arrived, target, target - 0.4 * np.sign(target - source))
    begins, ends = np.stack([source, place.start], axis=1), np.stack([reach, place.stop], axis=1)
    if not down:
        begins, ends = begins[:, ::-1], ends[:, ::-1]
    shafts = np.stack([begins, ends], axis=1)
    width = 1.3 if few else 0.7
    for chosen, style in ((place.arrived, "solid"), (~place.arrived, (0, (3, 2)))):
        if chosen.any():
            lines = LineCollection(shafts[chosen], colors=inks[chosen], linewidths=width, linestyles=style, zorder=3)
            ax.add_collection(lines, autolim=False)
    shape: dict[tuple[bool, bool], Any] = {(True, True): 5, (True, False): 4, (False, True): 7, (False, False): 6}
    for way in (True, False):
        chosen = place.arrived & (forward == way)
        if chosen.any():
            # The caret markers have their tip at the point itself; up and down swap, for the axis is inverted.
            marker = shape[down, way]
            xs, ys = ends[chosen].T
            ax.scatter(xs, ys, s=34 if few else 8, c=inks[chosen], marker=marker, linewidths=0, zorder=4)
    lost = ~place.arrived
    if lost.any():
        xs, ys = ends[lost].T
        ax.scatter(xs, ys, s=26 if few else 8, c=inks[lost], marker="x", linewidths=1.4, zorder=4)
    if few:
        xs, ys = begins.T
        ax.scatter(xs, ys, s=11, c=inks, linewidths=0, zorder=4)


def _label(ax: Axes, messages: pd.DataFrame, lanes: list[str], place: _Place, *, down: bool) -> None:
    position = {name: number for number, name in enumerate(lanes)}
    # Where the axes is now: layouts that act when the picture is drawn change it by a little only.
    box, family = ax.get_window_extent(), families()
    lane = (box.width if down else box.height) / _dpi(ax) / max(len(lanes), 2)
    columns = (messages["sender"], messages["recipient"], messages["content"])
    for number, (sender, recipient, content) in enumerate(zip(*(one.tolist() for one in columns), strict=True)):
        here, there = position[sender], position[recipient]
        # Some 19 letters of this size to the inch; between neighbours a text may reach over the lanes a little.
        room = int(19 * lane * max(abs(there - here), 1.15))
        text = fold(content, max(room, 8))
        at = (here + there) / 2 if here != there else here + 0.2
        along = place.start[number]
        if down:
            place_of, turn = (at, along - 0.1), 0
        else:
            place_of, turn = (along - 0.1, at), 90
        ax.text(
            *place_of,
            text,
            ha="center" if down else "right",
            va="bottom" if down else "center",
            rotation=turn,
            fontfamily=family,
            fontsize=6.5,
            color="#333333",
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85},
        )


def _dpi(ax: Axes) -> float:
    return float(ax.figure.dpi)


def _dress(ax: Axes, lanes: list[str], colors: dict[str, str], place: _Place, *, down: bool) -> None:
    from matplotlib.lines import Line2D

    many = len(lanes) > FEW
    size = 7 if many else 9
    for number, name in enumerate(lanes):
        line = ax.axvline if down else ax.axhline
        line(number, color="#BBBBBB" if name else OUTSIDE_COLOR, linewidth=0.8, zorder=1)
    low, high = float(place.start.min()), float(place.stop.max())
    margin = 0.9 if place.even else (high - low) * 0.02 or 0.5
    if down:
        ax.set_xticks(range(len(lanes)), lanes, fontsize=size, rotation=90 if many else 0)
        ax.xaxis.tick_top()
        ax.set_xlim(-0.6, len(lanes) - 0.4)
        ax.set_ylim(high + margin * 0.7, low - margin)
        color_labels(ax.get_xticklabels(), lanes, colors)
        along: Any = ax.yaxis
    else:
        ax.set_yticks(range(len(lanes)), lanes, fontsize=size)
        ax.set_ylim(len(lanes) - 0.4, -0.6)
        time_limits(ax, low - margin, high + margin)
        color_labels(ax.get_yticklabels(), lanes, colors)
        along = ax.xaxis
    along.set_label_text("time (s)")
    if place.even:
        step = max(1, len(place.began) // 60)
        rows = range(0, len(place.began), step)
        digits = 1 if place.began.max() < 1000 else 0
        texts = [f"{place.began[row]:.{digits}f}" for row in rows]
        along.set_ticks(rows, texts, fontsize=7, rotation=0 if down else 90)
    for axis in ("x", "y"):
        ax.tick_params(axis=axis, length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if not place.arrived.all():
        handle = Line2D([], [], color="#555555", linestyle=(0, (3, 2)), marker="x", markersize=5, label="not accepted")
        if down:
            ax.legend(handles=[handle], loc="upper right", bbox_to_anchor=(1.0, 0.0), frameon=False, fontsize=8)
        else:
            legend_above(ax, [handle])
