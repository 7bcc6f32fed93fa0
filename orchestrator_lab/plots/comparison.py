"""Runs beside each other: one figure of each, by condition."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.plots.look import axes_for, say_empty
from orchestrator_lab.plots.reading import text_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["compare_runs", "interval"]

_DOT, _MEAN = "#56B4E9", "#222222"
#: Student's t for 95 percent, from one degree of freedom on; beyond them the normal distribution's is close.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
#: A figure's name on the axis.
_UNITS = {"_s": " (s)", "_usd": " (USD)"}


def compare_runs(
    source: Any,  # noqa: ANN401 - runs, a folder of runs, or a DataFrame
    value: str = "duration_s",
    *,
    by: str | Iterable[str] | None = None,
    pair: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one figure of several runs by condition, with means, intervals and lines between pairs.

    Parameters
    ----------
    source : list of runs, path, glob or pandas.DataFrame
        Runs, a folder of them, or the runs table; a table may have columns of your own beside it.
    value : str
        The figure: a column of numbers, such as ``duration_s``, ``message_count``, ``output_tokens``, ``cost_usd``.
    by : str or iterable of str, optional
        What makes a condition: columns, or keys of ``params``; by default each run stands for itself.
    pair : str, optional
        What joins runs of different conditions, such as ``seed`` or a key of ``params``: a column, or a key.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure otherwise.

    Returns
    -------
    matplotlib.axes.Axes
        A dot a run; a bar at the mean of a condition, with the 95 percent interval of Student's t from two runs on.
        With ``pair`` a line joins the runs of a pair, and for two conditions the title says the mean difference within
        pairs with its interval. A run whose figure is not known is left out, and the axis says how many are.

    Raises
    ------
    ConfigError
        When a column or key does not exist, the figure is no number, or two runs of one condition have the same pair.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from orchestrator_lab.schema import build_frame
    >>> runs = build_frame(
    ...     "runs",
    ...     {
    ...         "run_id": ["a", "b", "c", "d"],
    ...         "params": ['{"topology": "ring"}', '{"topology": "star"}'] * 2,
    ...         "seed": [1, 1, 2, 2],
    ...         "duration_s": [3.0, 5.0, 4.0, 7.0],
    ...     },
    ... )
    >>> axes = compare_runs(runs, by="topology", pair="seed")
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['ring', 'star']
    """
    import numpy as np
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        runs = source
    else:
        from orchestrator_lab.frames import runs_df

        runs = runs_df(source)
    figure = _column(runs, value)
    if not pd.api.types.is_numeric_dtype(figure) or pd.api.types.is_bool_dtype(figure):
        raise ConfigError(f"{value!r} of the runs is no number ({figure.dtype}): compare a column of numbers")
    labels, conditions = _conditions(runs, by)
    table = pd.DataFrame({"condition": labels, "value": figure.to_numpy(dtype=float, na_value=np.nan)})
    if pair is not None:
        table["pair"] = _column(runs, pair).astype(object).to_numpy()
        twice = table.dropna().duplicated(["condition", "pair"])
        if twice.any():
            one = table.dropna()[twice].iloc[0]
            raise ConfigError(
                f"two runs of the condition {one['condition']!r} have the same {pair} ({one['pair']}): "
                "pairs join one run of each condition, so select them or name another key"
            )
    known = table.dropna(subset=["value"])
    ax = axes_for(ax, min(max(3.4, 1.5 + 0.95 * len(conditions)), 12.0), 3.8)
    if not len(table):
        return say_empty(ax, "no runs")
    if known.empty:
        return say_empty(ax, f"{value}: not known of any run")
    _draw(ax, known, conditions, paired=pair is not None)
    long = len(conditions) > FEW_CONDITIONS or max(map(len, conditions)) > LONG_LABEL
    ax.set_xticks(range(len(conditions)), conditions, fontsize=7 if long else 9, rotation=90 if long else 0)
    ax.set_xlim(-0.6, len(conditions) - 0.4)
    if known["value"].min() >= 0:
        ax.set_ylim(0, max(ax.get_ylim()[1], 1e-12))
    ax.set_ylabel(next((value.removesuffix(end) + unit for end, unit in _UNITS.items() if value.endswith(end)), value)
                  .replace("_", " "))  # fmt: skip
    unknown = len(table) - len(known)
    names = "" if by is None else ", ".join(text_list(by))
    note = "" if not unknown else f"{unknown} of {len(table)} runs: not known"
    ax.set_xlabel("; ".join(part for part in (names, note) if part))
    ax.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.6)
    ax.tick_params(axis="x", length=0)
    if pair is not None and len(conditions) == 2:
        ax.set_title(_difference(known, conditions), fontsize=8.5, loc="left")
    return ax


FEW_CONDITIONS, LONG_LABEL = 10, 12


def _column(runs: pd.DataFrame, name: str) -> pd.Series:
    """Return a column of the runs, or what their params hold under a key."""
    import pandas as pd

    if name in runs:
        return runs[name]
    found = [json.loads(text) if isinstance(text, str) else {} for text in runs.get("params", [])]
    if not any(isinstance(one, dict) and name in one for one in found):
        if not len(runs):
            return pd.Series([], dtype=float)
        keys = sorted({key for one in found if isinstance(one, dict) for key in one})
        raise ConfigError(
            f"the runs have no column or parameter {name!r}; their params hold: {', '.join(keys) or 'nothing'}"
        )
    return pd.Series([one.get(name) if isinstance(one, dict) else None for one in found], index=runs.index)


def _conditions(runs: pd.DataFrame, by: str | Iterable[str] | None) -> tuple[list[str], list[str]]:
    """Return the condition of each run, and the conditions in their order: of numbers, or of appearance."""
    if by is None:
        # A run's id begins with its instant; its end tells runs apart.
        ids = [str(run)[-8:] for run in runs["run_id"]] if "run_id" in runs else [str(one) for one in runs.index]
        return ids, list(dict.fromkeys(ids))
    columns = [_column(runs, name).astype(object).tolist() for name in text_list(by)]
    rows = list(zip(*columns, strict=True))
    labels = [", ".join(_word(one) for one in row) for row in rows]
    numbers = [isinstance(one, int | float) and one == one for row in rows for one in row]  # noqa: PLR0124 - not NaN
    order = sorted(range(len(rows)), key=lambda number: rows[number]) if all(numbers) else range(len(rows))
    return labels, list(dict.fromkeys(labels[number] for number in order))


def _word(value: Any) -> str:  # noqa: ANN401 - a cell
    import pandas as pd

    if isinstance(value, list | dict):
        return json.dumps(value)
    return "not known" if pd.isna(value) else str(value)


def _draw(ax: Axes, known: pd.DataFrame, conditions: list[str], *, paired: bool) -> None:
    import numpy as np
    from matplotlib.collections import LineCollection

    position = {name: number for number, name in enumerate(conditions)}
    groups = {name: known.loc[known["condition"] == name] for name in conditions}
    # Side by side in the order of the table: nothing random in a picture that is made again.
    spread = {name: np.linspace(-0.12, 0.12, len(rows)) if len(rows) > 1 else np.zeros(len(rows))
              for name, rows in groups.items()}  # fmt: skip
    if paired:
        spread = {name: np.zeros(len(rows)) for name, rows in groups.items()}
        wide = _by_pair(known, conditions)
        paths = [
            [(number, row[number]) for number in range(len(conditions)) if not np.isnan(row[number])]
            for row in wide.to_numpy(float)
        ]
        lines = [path for path in paths if len(path) > 1]
        ax.add_collection(LineCollection(lines, colors="#AAAAAA", linewidths=0.9, zorder=1), autolim=False)
    for name, rows in groups.items():
        values = rows["value"].to_numpy(float)
        if not len(values):
            continue
        # Means stand beside the dots, so that they hide none.
        x = position[name]
        ax.scatter(x + spread[name], values, s=24, c=_DOT, edgecolors="white", linewidths=0.6, zorder=3)
        if len(values) > 1:
            mean, low, high = interval(values)
            ax.errorbar(x + 0.22, mean, yerr=[[mean - low], [high - mean]], fmt="_", markersize=9, color=_MEAN,
                        capsize=3, linewidth=1.3, markeredgewidth=1.6, zorder=4)  # fmt: skip


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean, and the ends of its 95 percent interval by Student's t.

    Examples
    --------
    >>> import numpy as np
    >>> [round(end, 2) for end in interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    """
    import numpy as np

    mean = float(np.mean(values))
    freedom = len(values) - 1
    if freedom < 1:
        return mean, mean, mean
    t = _T[freedom - 1] if freedom <= len(_T) else 1.96
    half = t * float(np.std(values, ddof=1)) / float(np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _by_pair(known: pd.DataFrame, conditions: list[str]) -> pd.DataFrame:
    """Return a row a pair, a column a condition."""
    table = known.pivot_table(index="pair", columns="condition", values="value", aggfunc="first")
    return table.reindex(columns=conditions)


def _difference(known: pd.DataFrame, conditions: list[str]) -> str:
    first, second = conditions
    wide = _by_pair(known, conditions)
    apart = (wide[second] - wide[first]).dropna().to_numpy(float)
    if not len(apart):
        return "no pair is complete"
    mean, low, high = interval(apart)
    span = f" [{low:.3g}, {high:.3g}]" if len(apart) > 1 else ""
    told = f"{mean:+.3g}{span}".replace("-", "−")
    return f"{second} − {first}: {told}, {len(apart)} " + ("pairs" if len(apart) > 1 else "pair")
