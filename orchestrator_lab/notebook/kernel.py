"""What runs inside a notebook's kernel beside its cells: a watch over the files that it opens, and the last stills."""

from __future__ import annotations

import os
import sys

__all__ = ["opened", "watch"]

_opened: set[str] = set()
#: What is never a part of a run, and is opened by the thousand while modules load.
_CODE = (".py", ".pyc", ".so", ".pth", ".pyi")


def watch() -> None:
    """Remember the path of every file that this process opens from now on, code aside."""
    # An audit hook hears of all ways that lead to a file, whichever function of the package or of others is used.
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str | bytes):
        return
    path = os.fsdecode(arguments[0])
    if not path.endswith(_CODE):
        _opened.add(os.path.abspath(path))  # noqa: PTH100 - as cheap as can be: this hears of every open


def opened() -> list[str]:
    """Return what was opened since :func:`watch`, and leave stills where widgets are shown."""
    saved = sys.modules.get("orchestrator_lab.widgets.saved")
    if saved is not None:
        saved.freeze_all()
    return sorted(_opened.copy())
