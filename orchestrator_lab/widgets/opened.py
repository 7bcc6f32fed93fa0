"""Which views of clusters are open in this kernel."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["closed", "listen", "opened", "views"]

_views: weakref.WeakSet[Any] = weakref.WeakSet()
_listeners: list[Callable[[], None]] = []


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
