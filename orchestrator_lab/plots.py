"""Pictures of runs: pure functions from tables to matplotlib axes.

Each takes an ``ax`` to draw in, or makes a figure of its own, and returns the axes. None shows a
figure or changes matplotlib's settings; the look of figures that are made here comes from
:data:`STYLE`, a file that ``matplotlib.style.context`` takes.
"""

from __future__ import annotations

import colorsys
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["STATE_COLORS", "STYLE", "agent_colors", "plot_timeline"]

#: Path of the shipped matplotlib style.
STYLE = str(files("orchestrator_lab") / "styles" / "orchestrator_lab.mplstyle")

#: Colour of each state, from the palette of Okabe and Ito, which colour-blind readers can tell
#: apart; lightness differs too, for print without colour.
STATE_COLORS = {
    "starting": "#B5DFCB",
    "idle": "#E6E6E6",
    "busy": "#63B3E4",
    "waiting": "#F0C05A",
    "limited": "#D55E00",
    "exited": "#8C8C8C",
    "failed": "#222222",
    "unknown": "#FFFFFF",
}
_HATCHES = {"waiting": "////", "unknown": "....", "limited": "xxxx"}

# Okabe and Ito without black and the yellow that is too light for lines, then Paul Tol's muted.
_PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#332288",
    "#882255",
    "#999933",
    "#44AA99",
)
#: Whoever is no agent: people and programs outside.
_OUTSIDE = "user"
_OUTSIDE_COLOR = "#555555"
_SMALL = 12


def agent_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each agent, the same in every figure made with the same names.

    Parameters
    ----------
    names : iterable of str
        Names of the agents, such as ``run.agents["name"]``; the order decides.

    Returns
    -------
    dict of str to str
        Hexadecimal RGB by name. The first ten are as far apart as can be, also for colour-blind
        readers; later ones repeat them darker and lighter. ``user`` is always grey.

    References
    ----------
    M. Okabe and K. Ito, Color Universal Design, 2008; P. Tol, Colour Schemes, 2021.

    Examples
    --------
    >>> agent_colors(["boss", "worker"])
    {'boss': '#0072B2', 'worker': '#D55E00'}
    """
    colors: dict[str, str] = {}
    number = 0
    for name in dict.fromkeys(names):
        if name == _OUTSIDE:
            colors[name] = _OUTSIDE_COLOR
            continue
        base, again = _PALETTE[number % len(_PALETTE)], number // len(_PALETTE)
        colors[name] = _shade(base, again)
        number += 1
    return colors


def plot_timeline(
    source: Any,  # noqa: ANN401 - a run, a cluster, a path or a DataFrame
    messages: pd.DataFrame | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw who did what when: a lane an agent, its states as bars, messages as arrows.

    Parameters
    ----------
    source : Run, Cluster, path or pandas.DataFrame
        One run, or its states table (``started_at`` and ``ended_at`` as UTC instants).
    messages : pandas.DataFrame, optional
        The messages table of the same run; read from the run when ``source`` is one.
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
    import matplotlib.pyplot as plt

    states, messages = _tables(source, messages)
    _check(states, ("agent", "state", "started_at", "ended_at"), "states")
    columns = ("sender", "recipient", "accepted_at")
    if messages is not None:
        _check(messages, columns, "messages")
        messages = messages.dropna(subset=list(columns))
    begin, end = _span(states, messages)
    lanes, colors = _lanes(states, messages)
    if ax is None:
        lane = 0.42 if len(lanes) <= _SMALL else 0.26
        with plt.style.context(STYLE):
            _, ax = plt.subplots(figsize=(9.0, 1.25 + lane * max(len(lanes), 1)))
    position = {name: number for number, name in enumerate(lanes)}
    handles = _draw_states(ax, states, position, begin, end)
    if messages is not None and len(messages):
        handles.append(_draw_messages(ax, messages, position, colors, begin))
    _dress(ax, lanes, colors, (end - begin).total_seconds(), handles)
    return ax


def _tables(source: Any, messages: pd.DataFrame | None) -> tuple[pd.DataFrame, Any]:  # noqa: ANN401
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return source, messages
    from orchestrator_lab.frames import messages_df, states_df

    # Only the columns that are drawn: the texts of a long run would cost the most to build.
    states = states_df(source, columns=["run_id", "agent", "state", "started_at", "ended_at"])
    if messages is None:
        messages = messages_df(source, columns=["run_id", "sender", "recipient", "accepted_at"])
    return states, messages


def _check(frame: pd.DataFrame, columns: tuple[str, ...], table: str) -> None:
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ConfigError(f"the {table} table given lacks {', '.join(missing)}; give the whole {table}_df(run)")
    if "run_id" in frame and len(runs := frame["run_id"].dropna().unique()) > 1:
        raise ConfigError(f"the {table} table given holds {len(runs)} runs, a timeline shows one; select it by run_id")


def _span(states: pd.DataFrame, messages: pd.DataFrame | None) -> tuple[Any, Any]:
    """Return the first and the last instant known."""
    import pandas as pd

    instants = [states["started_at"], states["ended_at"]]
    if messages is not None:
        instants.append(messages["accepted_at"])
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
    return [*outside, *agents], {**dict.fromkeys(outside, _OUTSIDE_COLOR), **colors}


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
    for state, color in STATE_COLORS.items():
        chosen = (names == state) & lane.notna() & width.notna()
        if not chosen.any():
            continue
        look: dict[str, Any] = {"facecolor": color, "linewidth": 0.0}
        if state in _HATCHES:
            # Hatches take the edge's colour.
            look |= {"hatch": _HATCHES[state], "edgecolor": "#7A5200"}
        if state == "unknown":
            look |= {"edgecolor": "#999999"}
        ax.barh(
            lane[chosen].to_numpy(float),
            width[chosen].to_numpy(float),
            left=left[chosen].to_numpy(float),
            height=0.56,
            zorder=2,
            **look,
        )
        handles.append(Patch(label=state, **look))
    return handles


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
    few = len(at) <= 150 and len(position) <= _SMALL
    wide, size, halo = (1.4, 30.0, 1.6) if few else (0.9, 15.0, 0.9)
    shafts: list[list[tuple[float, float]]] = []
    inks: list[str] = []
    heads: dict[tuple[bool, str], list[tuple[float, float]]] = {}
    for x, sender, recipient in zip(at.tolist(), senders, recipients, strict=True):
        start, stop = position[sender], position[recipient]
        down = stop >= start
        # The head ends at the edge of the recipient's bar, so that its state stays visible.
        gap = 0.06 if colors[recipient] == _OUTSIDE_COLOR else 0.30
        tip = stop - gap if down else stop + gap
        shafts.append([(x, start), (x, tip)])
        inks.append(colors[sender])
        heads.setdefault((down, colors[sender]), []).append((x, tip - 0.06 if down else tip + 0.06))
    for name, lane in position.items():
        if colors[name] == _OUTSIDE_COLOR:  # no states, so a line stands for the lane
            ax.axhline(lane, color="#BBBBBB", linewidth=0.8, zorder=1)
    # A white border keeps an arrow legible where it crosses bars.
    border = patheffects.withStroke(linewidth=wide + halo, foreground="white", alpha=0.8)
    lines = LineCollection(shafts, colors=inks, linewidths=wide, zorder=3, capstyle="butt")
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
    small = len(lanes) > _SMALL
    ax.set_yticks(range(len(lanes)), lanes, fontsize=7 if small else 9)
    for label, name in zip(ax.get_yticklabels(), lanes, strict=True):
        label.set_color(_shade(colors[name], 1) if name != _OUTSIDE else _OUTSIDE_COLOR)
        label.set_fontweight("bold")
    ax.set_ylim(max(len(lanes), 1) - 0.4, -0.6)
    margin = length_s * 0.012 or 0.5
    ax.set_xlim(-margin, length_s + margin)
    ax.set_xlabel("time (s)")
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6, zorder=0)
    for side in ("left", "top", "right"):
        ax.spines[side].set_visible(False)
    if handles:
        ax.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=len(handles),
            frameon=False,
            fontsize=8,
            handlelength=1.6,
            columnspacing=1.2,
            borderaxespad=0.2,
        )


def _shade(color: str, step: int) -> str:
    """Return a colour made darker (odd steps) or lighter (even steps)."""
    if step == 0:
        return color
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    depth = min(0.2 * ((step + 1) // 2), 0.6)
    light = light * (1 - depth) if step % 2 else light + (1 - light) * depth
    channels = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(channel * 255):02X}" for channel in channels)
