"""The look of all pictures: the style, the colours, and what every axes has in common."""

from __future__ import annotations

import colorsys
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

__all__ = [
    "ERROR_COLOR",
    "FEW",
    "OUTSIDE",
    "OUTSIDE_COLOR",
    "STATE_COLORS",
    "STYLE",
    "agent_colors",
    "axes_for",
    "bars",
    "color_labels",
    "legend_above",
    "legend_beside",
    "ramp",
    "say_empty",
    "shade",
    "state_look",
    "time_limits",
]

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
OUTSIDE = "user"
OUTSIDE_COLOR = "#555555"
#: What went wrong; always hatched as well, since an agent may be red, too.
ERROR_COLOR = "#A50026"
#: Lanes up to which texts are large.
FEW = 12


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
        if name == OUTSIDE:
            colors[name] = OUTSIDE_COLOR
            continue
        base, again = _PALETTE[number % len(_PALETTE)], number // len(_PALETTE)
        colors[name] = shade(base, again)
        number += 1
    return colors


def shade(color: str, step: int) -> str:
    """Return a colour made darker (odd steps) or lighter (even steps)."""
    if step == 0:
        return color
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    depth = min(0.2 * ((step + 1) // 2), 0.6)
    light = light * (1 - depth) if step % 2 else light + (1 - light) * depth
    channels = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(channel * 255):02X}" for channel in channels)


def ramp(count: int) -> list[str]:
    """Return colours from dark to light for what has an order and is no agent: rungs, tools.

    Examples
    --------
    >>> ramp(1)
    ['#00224E']
    """
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    scale = mpl.colormaps["cividis"]
    # The yellow end is too light for lines on white.
    return [to_hex(scale(0.88 * number / max(count - 1, 1))).upper() for number in range(count)]


def state_look(state: str) -> dict[str, Any]:
    """Return how a state is filled."""
    look: dict[str, Any] = {"facecolor": STATE_COLORS[state], "linewidth": 0.0}
    if state in _HATCHES:
        # Hatches take the edge's colour.
        look |= {"hatch": _HATCHES[state], "edgecolor": "#7A5200"}
    if state == "unknown":
        look |= {"edgecolor": "#999999"}
    return look


def axes_for(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the axes to draw in: those given, or those of a new figure in our style."""
    import matplotlib.pyplot as plt

    if ax is not None:
        return ax
    with plt.style.context(STYLE):
        _, made = plt.subplots(figsize=(width, height))
        interactive = plt.isinteractive()
    # The first figure of a notebook makes matplotlib interactive, which the context would undo with the style: cells
    # after this one would show no figure any more.
    if interactive:
        plt.ion()
    return made


def time_limits(ax: Axes, low: float, high: float) -> None:
    """Set how much time an axes shows; what is drawn on axes that share it stays in sight."""
    sharing = [other for other in ax.get_shared_x_axes().get_siblings(ax) if other is not ax]
    if any(other.has_data() for other in sharing):
        before = ax.get_xlim()
        low, high = min(low, before[0]), max(high, before[1])
    ax.set_xlim(low, high)


def say_empty(ax: Axes, words: str) -> Axes:
    """Say in the middle of an empty axes why nothing is drawn."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color="#777777", fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def bars(
    ax: Axes,
    lanes: Any,  # noqa: ANN401 - arrays of numbers
    left: Any,  # noqa: ANN401
    width: Any,  # noqa: ANN401
    height: float,
    **look: Any,  # noqa: ANN401 - a collection's properties
) -> Any:  # noqa: ANN401 - the collection
    """Draw horizontal bars as one artist, however many there are."""
    import numpy as np
    from matplotlib.collections import PolyCollection

    lanes, left, width = (np.asarray(values, dtype=float) for values in (lanes, left, width))
    right, top, bottom = left + width, lanes - height / 2, lanes + height / 2
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    shapes: Any = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    drawn = PolyCollection(shapes, **look)
    ax.add_collection(drawn, autolim=False)
    return drawn


def color_labels(labels: Sequence[Any], names: Sequence[str], colors: dict[str, str]) -> None:
    """Give the labels of lanes their agents' colours, dark enough to be read."""
    for label, name in zip(labels, names, strict=True):
        label.set_color(shade(colors[name], 1) if colors[name] != OUTSIDE_COLOR else OUTSIDE_COLOR)
        label.set_fontweight("bold")


def legend_above(ax: Axes, handles: Sequence[Any], columns: int | None = None) -> None:
    """Put a legend over the axes, out of the data's way."""
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns or len(handles),
        frameon=False,
        fontsize=8,
        handlelength=1.6,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def legend_beside(ax: Axes, handles: Sequence[Any]) -> None:
    """Put a legend to the right of the axes, small when it is long."""
    many = len(handles) > FEW
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        ncols=1 + (len(handles) - 1) // 36,
        frameon=False,
        fontsize=7 if many else 8,
        labelspacing=0.25 if many else 0.5,
        handlelength=1.8,
        borderaxespad=0.0,
    )
