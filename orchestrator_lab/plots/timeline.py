"""The timeline: who did what when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.plots.look import (
    FEW,
    OUTSIDE_COLOR,
    STATE_COLORS,
    agent_colors,
    axes_for,
    bars,
    color_labels,
    legend_above,
    say_empty,
    state_look,
    time_limits,
)
from orchestrator_lab.plots.reading import check, read

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_timeline"]

#: Arrows up to which each has a border.
_BORDERED = 2000


def plot_timeline(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    messages: pd.DataFrame | None = None,
    *,
    turns: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw who did what when: a lane an agent, its states as bars, its turns within, messages as arrows.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run, or its states table (``started_at`` and ``ended_at`` as UTC instants).
    messages : pandas.DataFrame, optional
        The messages table of the same run; read from the run when ``source`` is one.
    turns : pandas.DataFrame, optional
        The turns table of the same run, likewise; drawn as a thin dark band within the states.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure, as high as the agents need, otherwise.

    Returns
    -------
    matplotlib.axes.Axes
        Time in seconds since the first state or message. An interval that lasts is drawn to the
        last instant known. An arrow goes from sender to recipient at the instant of acceptance, in
        the sender's colour; messages that were never accepted have none.

    Raises
    ------
    ConfigError
        When the tables hold more than one run, or lack a column.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> at = ["2026-11-23T06:00:00Z", "2026-11-23T06:00:02Z"]
    >>> states = build_frame(
    ...     "states",
    ...     {"agent": ["boss", "boss"], "state": ["idle", "busy"], "started_at": at},
    ... )
    >>> plot_timeline(states).get_xlabel()
    'time (s)'
    """
    states = read(source, "states", ("agent", "state", "started_at", "ended_at"), one_run=True)
    messages = _beside(source, messages, "messages", ("sender", "recipient", "accepted_at"))
    turns = _beside(source, turns, "turns", ("agent", "started_at", "ended_at"))
    if messages is not None:
        messages = messages.dropna(subset=["sender", "recipient", "accepted_at"])
    begin, end = _span(states, messages, turns)
    lanes, colors = _lanes(states, messages)
    lane = 0.42 if len(lanes) <= FEW else 0.26
    ax = axes_for(ax, 9.0, 1.25 + lane * max(len(lanes), 1))
    if not lanes:
        return say_empty(ax, "no states, no messages")
    position = {name: number for number, name in enumerate(lanes)}
    handles = _draw_states(ax, states, position, begin, end)
    if turns is not None:
        handles += _draw_turns(ax, turns, position, begin, end)
    if messages is not None and len(messages):
        handles.append(_draw_messages(ax, messages, position, colors, begin))
    _dress(ax, lanes, colors, (end - begin).total_seconds(), handles)
    return ax


def _beside(
    source: Any,  # noqa: ANN401 - see plot_timeline
    given: pd.DataFrame | None,
    table: str,
    columns: tuple[str, ...],
) -> pd.DataFrame | None:
    """Return a second table: the one given, or that of the run; None beside a bare states table."""
    import pandas as pd

    if given is not None:
        check(given, columns, table, one_run=True)
        return given
    return None if isinstance(source, pd.DataFrame) else read(source, table, columns, one_run=True)


def _span(states: pd.DataFrame, messages: pd.DataFrame | None, turns: pd.DataFrame | None) -> tuple[Any, Any]:
    """Return the first and the last instant known."""
    import pandas as pd

    instants = [states["started_at"], states["ended_at"]]
    if messages is not None:
        instants.append(messages["accepted_at"])
    if turns is not None:
        instants += [turns["started_at"], turns["ended_at"]]
    known = pd.concat([instant.dropna() for instant in instants], ignore_index=True)
    if known.empty:
        now = pd.Timestamp(0, tz="UTC")
        return now, now
    return known.min(), known.max()


def _lanes(states: pd.DataFrame, messages: pd.DataFrame | None) -> tuple[list[str], dict[str, str]]:
    """Return the lanes from top to bottom, outsiders first, and the agents' colours."""
    agents = list(dict.fromkeys(states["agent"].dropna().tolist()))
    parties: list[str] = []
    if messages is not None:
        parties = [*messages["sender"].tolist(), *messages["recipient"].tolist()]
    outside = [name for name in dict.fromkeys(parties) if name not in set(agents)]
    # Colours by the agents' own order, so that a message from outside does not shift them.
    colors = agent_colors(agents)
    return [*outside, *agents], {**dict.fromkeys(outside, OUTSIDE_COLOR), **colors}


def _draw_states(
    ax: Axes,
    states: pd.DataFrame,
    position: dict[str, int],
    begin: Any,  # noqa: ANN401 - a Timestamp
    end: Any,  # noqa: ANN401 - a Timestamp
) -> list[Any]:
    from matplotlib.patches import Patch

    left = (states["started_at"] - begin).dt.total_seconds()
    width = (states["ended_at"].fillna(end) - states["started_at"]).dt.total_seconds()
    lane = states["agent"].map(position)
    names = states["state"].astype(object)
    handles = []
    for state in STATE_COLORS:
        chosen = (names == state) & lane.notna() & width.notna()
        if not chosen.any():
            continue
        look = state_look(state)
        bars(ax, lane[chosen], left[chosen], width[chosen], 0.56, zorder=2, label=state, **look)
        handles.append(Patch(label=state, **look))
    return handles


def _draw_turns(
    ax: Axes,
    turns: pd.DataFrame,
    position: dict[str, int],
    begin: Any,  # noqa: ANN401 - a Timestamp
    end: Any,  # noqa: ANN401 - a Timestamp
) -> list[Any]:
    from matplotlib.patches import Patch

    left = (turns["started_at"] - begin).dt.total_seconds()
    width = (turns["ended_at"].fillna(end) - turns["started_at"]).dt.total_seconds()
    lane = turns["agent"].map(position)
    chosen = lane.notna() & width.notna()
    if not chosen.any():
        return []
    # A white edge parts turns that follow each other at once.
    look: dict[str, Any] = {"facecolor": "#1F3B57", "edgecolor": "white", "linewidth": 0.5}
    bars(ax, lane[chosen], left[chosen], width[chosen], 0.16, zorder=2.5, label="turn", **look)
    return [Patch(label="turn", **look)]


def _draw_messages(
    ax: Axes,
    messages: pd.DataFrame,
    position: dict[str, int],
    colors: dict[str, str],
    begin: Any,  # noqa: ANN401 - a Timestamp
) -> Any:  # noqa: ANN401 - an artist for the legend
    from matplotlib import patheffects
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    at = (messages["accepted_at"] - begin).dt.total_seconds().to_numpy(float)
    senders, recipients = messages["sender"].tolist(), messages["recipient"].tolist()
    few = len(at) <= 150 and len(position) <= FEW
    wide, size, halo = (1.4, 30.0, 1.6) if few else (0.9, 15.0, 0.9)
    shafts: list[list[tuple[float, float]]] = []
    inks: list[str] = []
    heads: dict[tuple[bool, str], list[tuple[float, float]]] = {}
    for x, sender, recipient in zip(at.tolist(), senders, recipients, strict=True):
        start, stop = position[sender], position[recipient]
        down = stop >= start
        # The head ends at the edge of the recipient's bar, so that its state stays visible.
        gap = 0.06 if colors[recipient] == OUTSIDE_COLOR else 0.30
        tip = stop - gap if down else stop + gap
        shafts.append([(x, start), (x, tip)])
        inks.append(colors[sender])
        heads.setdefault((down, colors[sender]), []).append((x, tip - 0.06 if down else tip + 0.06))
    for name, lane in position.items():
        if colors[name] == OUTSIDE_COLOR:  # no states, so a line stands for the lane
            ax.axhline(lane, color="#BBBBBB", linewidth=0.8, zorder=1)
    # A white border keeps an arrow legible where it crosses bars.
    border = patheffects.withStroke(linewidth=wide + halo, foreground="white", alpha=0.8)
    lines = LineCollection(shafts, colors=inks, linewidths=wide, zorder=3, capstyle="butt")
    if len(at) <= _BORDERED:  # a border each would double the time of a picture that is black with arrows
        lines.set_path_effects([border])
    ax.add_collection(lines)
    ax.scatter(
        at,
        [position[name] for name in senders],
        s=size * 0.5,
        c=inks,
        edgecolors="white",
        linewidths=0.7,
        zorder=4,
    )
    for (down, ink), points in heads.items():
        xs, ys = zip(*points, strict=True)
        # The axis is inverted: later lanes are further down.
        ax.scatter(
            xs,
            ys,
            s=size,
            c=ink,
            marker="v" if down else "^",
            edgecolors="white",
            linewidths=0.5,
            zorder=5,
        )
    return Line2D([], [], color="#555555", linewidth=1.2, marker=">", markersize=4, label="message")


def _dress(ax: Axes, lanes: list[str], colors: dict[str, str], length_s: float, handles: list[Any]) -> None:
    small = len(lanes) > FEW
    ax.set_yticks(range(len(lanes)), lanes, fontsize=7 if small else 9)
    color_labels(ax.get_yticklabels(), lanes, colors)
    ax.set_ylim(max(len(lanes), 1) - 0.4, -0.6)
    margin = length_s * 0.012 or 0.5
    time_limits(ax, -margin, length_s + margin)
    ax.set_xlabel("time (s)")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6, zorder=0)
    for side in ("left", "top", "right"):
        ax.spines[side].set_visible(False)
    if handles:
        legend_above(ax, handles)
