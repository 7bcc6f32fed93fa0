"""A laboratory for real command-line agents in tmux, driven from notebooks.

The public names load when they are first used, so that ``import orchestrator_lab`` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.config import load_config
    from orchestrator_lab.frames import agents_df, events_df, messages_df, runs_df, states_df, turns_df
    from orchestrator_lab.plots import plot_timeline
    from orchestrator_lab.run import Run, open_run
    from orchestrator_lab.widgets.panel import panel

__all__ = [
    "Cluster",
    "Run",
    "agents_df",
    "events_df",
    "load_config",
    "messages_df",
    "open_run",
    "panel",
    "plot_timeline",
    "runs_df",
    "states_df",
    "turns_df",
]

_HOMES = {
    "Cluster": "cluster",
    "Run": "run",
    "agents_df": "frames",
    "events_df": "frames",
    "load_config": "config",
    "messages_df": "frames",
    "open_run": "run",
    "panel": "widgets.panel",
    "plot_timeline": "plots",
    "runs_df": "frames",
    "states_df": "frames",
    "turns_df": "frames",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def load_ipython_extension(shell: Any) -> None:  # noqa: ANN401 - IPython's
    """Give a notebook the magics: ``%load_ext orchestrator_lab``."""
    from orchestrator_lab.widgets.magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:  # noqa: ANN401 - IPython's
    """Take the magics away again."""
    from orchestrator_lab.widgets.magics import unload

    unload(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Tell Jupyter where the prebuilt JupyterLab extension lies in a working copy (`jupyter-builder develop`)."""
    return [{"src": "labextension", "dest": "orchestrator-lab"}]
