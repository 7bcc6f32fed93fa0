"""Which views of clusters are open in this kernel."""

from __future__ import annotations

import contextlib
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator_lab.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_lab.cluster import Cluster

__all__ = ["closed", "listen", "opened", "view_of", "views"]

_views: weakref.WeakSet[Any] = weakref.WeakSet()
_listeners: list[Callable[[], None]] = []


def view_of(cluster: Cluster, agents: list[str] | None = None) -> Any:  # noqa: ANN401 - a widget
    """Return a live view of a cluster.

    Parameters
    ----------
    cluster : Cluster
        A running cluster.
    agents : list of str, optional
        Whose panes; all by default.

    Raises
    ------
    EnvironmentProblem
        When this installation lacks the part that draws panes in a browser.
    """
    try:
        module = import_module("orchestrator_lab.widgets.view")
    except ImportError as error:
        raise EnvironmentProblem(
            f"this installation has no live view ({error}): install orchestrator-lab again, with its requirements"
        ) from error
    return module.ClusterView(cluster, agents=agents)


def opened(view: Any) -> None:  # noqa: ANN401 - a widget with `cluster_name` and `close()`
    """Count a view as open, until :func:`closed` or until nobody holds it."""
    _views.add(view)
    _tell()


def closed(view: Any) -> None:  # noqa: ANN401 - as above
    """Count a view as open no longer."""
    if view in _views:
        _views.discard(view)
        _tell()


def views(cluster: str | None = None) -> list[Any]:
    """Return the views that are open, of one cluster or of all."""
    return [one for one in _views if cluster is None or one.cluster_name == cluster]


def listen(on_change: Callable[[], None]) -> Callable[[], None]:
    """Have each change told, on the thread where it happens; return what ends that."""
    _listeners.append(on_change)

    def end() -> None:
        with contextlib.suppress(ValueError):
            _listeners.remove(on_change)

    return end


def _tell() -> None:
    for listener in _listeners:
        listener()
