"""From what a plot is given to the tables that it draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import ConfigError
from orchestrator_lab.plots.look import OUTSIDE, OUTSIDE_COLOR, agent_colors

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

__all__ = ["agent_names", "begin_of", "check", "choose", "parties", "read", "seconds", "text_list"]


def read(source: Any, table: str, columns: Iterable[str], *, one_run: bool = False) -> pd.DataFrame:  # noqa: ANN401
    """Return the table that is drawn, checked.

    Only the columns that are drawn are built: the texts of a long run would cost the most.
    """
    import pandas as pd

    wanted = list(columns)
    if isinstance(source, pd.DataFrame):
        frame = source
    else:
        from orchestrator_lab import frames

        frame = getattr(frames, f"{table}_df")(source, columns=["run_id", *wanted])
    check(frame, wanted, table, one_run=one_run)
    return frame


def check(frame: pd.DataFrame, columns: Iterable[str], table: str, *, one_run: bool = False) -> None:
    """Raise ConfigError when a table lacks a column, or holds more than the one run that can be drawn."""
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ConfigError(f"the {table} table given lacks {', '.join(missing)}; give the whole {table}_df(run)")
    if one_run and "run_id" in frame and len(runs := frame["run_id"].dropna().unique()) > 1:
        raise ConfigError(f"the {table} table given holds {len(runs)} runs, this figure shows one; select it by run_id")


def choose(value: str, known: Iterable[str], what: str) -> str:
    """Return an argument that is one of a few words."""
    allowed = list(known)
    if value not in allowed:
        raise ConfigError(f"{what}={value!r} is no choice of this figure; it takes: {', '.join(allowed)}")
    return value


def agent_names(source: Any, agents: Iterable[str] | None, found: Iterable[Any]) -> list[str]:  # noqa: ANN401
    """Return the names that have a lane and a colour, in their order.

    Those given or those of the run come first, then what else stands in the table (agents that a slice of another run
    names): nobody is left out.
    """
    import pandas as pd

    known: list[str] = []
    if agents is not None:
        known = text_list(agents)
    elif not isinstance(source, pd.DataFrame):
        from orchestrator_lab.frames import agents_df

        known = agents_df(source, columns=["name"])["name"].dropna().tolist()
    return list(dict.fromkeys([*known, *(str(name) for name in found if not pd.isna(name))]))


def parties(
    source: Any,  # noqa: ANN401 - see read
    messages: pd.DataFrame,
    agents: Iterable[str] | None,
) -> tuple[list[str], dict[str, str]]:
    """Return who writes and is written to, outsiders first, and their colours."""
    pairs = messages[["sender", "recipient"]].dropna()
    senders, recipients = pairs["sender"].unique().tolist(), pairs["recipient"].unique().tolist()
    # A recipient has a pane, so it is an agent; a person and a program outside have none.
    outside = {OUTSIDE}
    if "source" in messages and agents is None:
        foreign = messages.loc[messages["source"].isin(["human", "program"]), "sender"].dropna().unique().tolist()
        outside |= set(foreign) - set(recipients)
    # In the order in which they appear, one column after the other would put the senders first.
    appearing = pairs.drop_duplicates().to_numpy().ravel().tolist() if len(pairs) else []
    names = [name for name in agent_names(source, agents, appearing) if name not in outside]
    strangers = [name for name in dict.fromkeys([*senders, *recipients]) if name in outside]
    return [*strangers, *names], {**dict.fromkeys(strangers, OUTSIDE_COLOR), **agent_colors(names)}


def begin_of(source: Any, instants: Iterable[pd.Series]) -> Any:  # noqa: ANN401 - a Timestamp
    """Return the instant that is nought on the axis: the run's first state, so that all its pictures have one clock."""
    import pandas as pd

    known = [one.min() for one in instants if one.notna().any()]
    if not isinstance(source, pd.DataFrame):
        from orchestrator_lab.frames import states_df

        started = states_df(source, columns=["started_at"])["started_at"]
        known += [started.min()] if started.notna().any() else []
    return min(known) if known else pd.Timestamp(0, tz="UTC")


def seconds(instants: pd.Series, begin: Any) -> Any:  # noqa: ANN401 - an array of float64, NaN where unknown
    """Return instants as seconds since a beginning."""
    return (instants - begin).dt.total_seconds().to_numpy(float)


def text_list(names: str | Iterable[str]) -> list[str]:
    """Return one name or several as a list."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))
