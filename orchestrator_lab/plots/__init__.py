"""Pictures of runs: pure functions from tables to matplotlib axes.

Each takes a run, a cluster, a path or the table itself, an ``ax`` to draw in (or makes a figure of its own), and
returns the axes. None shows a figure or changes matplotlib's settings; the look of figures that are made here comes
from :data:`STYLE`, a file that ``matplotlib.style.context`` takes. An agent has the same colour in all of them.
"""

from __future__ import annotations

from orchestrator_lab.plots.comparison import compare_runs
from orchestrator_lab.plots.latency import plot_latency
from orchestrator_lab.plots.look import STATE_COLORS, STYLE, agent_colors
from orchestrator_lab.plots.network import plot_network
from orchestrator_lab.plots.sequence import plot_messages
from orchestrator_lab.plots.shares import plot_states
from orchestrator_lab.plots.spending import plot_cost, plot_tokens
from orchestrator_lab.plots.timeline import plot_timeline
from orchestrator_lab.plots.tools import plot_tools
from orchestrator_lab.plots.traffic import plot_matrix

__all__ = [
    "STATE_COLORS",
    "STYLE",
    "agent_colors",
    "compare_runs",
    "plot_cost",
    "plot_latency",
    "plot_matrix",
    "plot_messages",
    "plot_network",
    "plot_states",
    "plot_timeline",
    "plot_tokens",
    "plot_tools",
]
