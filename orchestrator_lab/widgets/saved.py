"""What stays of a widget in a saved notebook: text and plain HTML that need no kernel, and do not change."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from typing import Any
from uuid import uuid4

__all__ = ["Saved", "freeze_all", "static_only"]

_VARIABLE = "ORCHESTRATOR_LAB_WIDGETS"
#: Those that leave a still behind when the kernel ends.
_kept: weakref.WeakSet[Saved] = weakref.WeakSet()


def static_only() -> bool:
    """Tell whether notebooks show stills instead of widgets, as ``ORCHESTRATOR_LAB_WIDGETS=static`` asks."""
    return os.environ.get(_VARIABLE, "").strip().lower() == "static"


class Saved:
    """A part of a widget: shown with a fallback, and replaced by it when the widget has nothing more to do.

    The class that takes part has ``still_html()``, and a ``repr`` without addresses, ids, paths and times.
    """

    _shown_as: tuple[str, ...] = ()

    def still_html(self) -> str:
        """Return what a notebook without a kernel shows."""
        raise NotImplementedError

    def _still(self) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self.still_html()}

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - IPython's
        if static_only():
            return self._still()
        # ipywidgets gives the view; without a front end it may give a text of its own.
        live = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        return {**(live or {}), **self._still()}

    def _ipython_display_(self, **kwargs: Any) -> None:  # noqa: ANN401 - IPython's
        from IPython.display import display

        # Shown under an id, so that freeze() can replace it.
        shown_as = uuid4().hex
        self._shown_as = (*self._shown_as, shown_as)
        display(self._repr_mimebundle_(**kwargs), raw=True, display_id=shown_as)

    def freeze(self) -> None:
        """Replace each view of this widget by its still: what a saved notebook keeps."""
        from IPython.display import update_display

        for shown_as in self._shown_as:
            update_display(self._still(), display_id=shown_as, raw=True)

    def kept(self) -> None:
        """Have a still left in each place where this is shown as the kernel ends: it cannot be found again then."""
        _kept.add(self)

    def leave(self) -> None:
        """Leave a still behind, as the kernel ends."""
        self.freeze()


def freeze_all() -> None:
    """Replace every widget by its still, after a last look: the notebook is about to be stored without its kernel."""
    for widget in list(_kept):
        with contextlib.suppress(Exception):
            widget.freeze()


@atexit.register
def _leave_all() -> None:
    for widget in list(_kept):
        with contextlib.suppress(Exception):
            widget.leave()
