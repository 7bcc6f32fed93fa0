"""Tells when the kernel cannot take what a browser sends: while a synchronous cell holds its event loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["CellWatch"]

#: Seconds that a cell may run before the loop is asked for a sign of life: most cells are over by then.
_QUICK_S = 0.4
#: Seconds within which a free loop answers.
_ANSWER_S = 0.4


class CellWatch:
    """Watches the event loop of a kernel while cells run; one a kernel.

    When a cell takes longer than a moment, the loop is asked once for a sign of life. As long as there is none, the
    cell is synchronous (or its synchronous part runs), and clicks wait in the kernel.

    Parameters
    ----------
    shell : InteractiveShell
        Tells when cells begin and end.
    loop : asyncio.AbstractEventLoop
        The loop of the kernel's main thread.
    """

    _only: ClassVar[CellWatch | None] = None

    def __init__(self, shell: Any, loop: asyncio.AbstractEventLoop) -> None:  # noqa: ANN401 - IPython's, untyped
        self._shell, self._loop = shell, loop
        self._changed = threading.Condition()
        # The cell that makes the first widget has begun before anybody watched.
        self._begun, self._ended = 1, 0
        self._listeners: list[Callable[[bool], None]] = []
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)
        threading.Thread(target=self._watch, name="orchestrator-lab-cells", daemon=True).start()

    @classmethod
    def here(cls) -> CellWatch | None:
        """Return the watch of this kernel, None outside of one."""
        from orchestrator_lab.widgets.stage import kernel_loop

        if cls._only is None:
            from IPython.core.getipython import get_ipython

            shell, loop = get_ipython(), kernel_loop()
            if shell is None or loop is None or not hasattr(shell, "kernel"):
                return None
            cls._only = cls(shell, loop)
        return cls._only

    @property
    def running(self) -> bool:
        """Whether a cell runs now."""
        return self._begun > self._ended

    def receipt(self, widget: Any) -> None:  # noqa: ANN401 - any ipywidget
        """Have a widget's browser told that the kernel has taken what it set, also while a cell runs.

        A browser holds back what a person sets next in a widget until the kernel has said "idle" about the last. A
        kernel that handles a message beside an awaiting cell (ipykernel 7.4) never says so.

        Parameters
        ----------
        widget : ipywidgets.Widget
            With a trait that the browser sets.
        """
        if widget.comm is None:
            return

        def handle(message: dict[str, Any]) -> None:
            beside = self.running
            widget._handle_msg(message)  # noqa: SLF001 - what ipywidgets itself gives to the comm
            if beside and message["content"]["data"].get("method") == "update":
                kernel, cell = self._shell.kernel, self._shell.kernel.get_parent("shell")
                for word, parent in (("idle", message), ("busy", cell)):
                    kernel.session.send(
                        kernel.iopub_socket, "status", {"execution_state": word}, parent=parent, ident=b"status"
                    )

        widget.comm.on_msg(handle)

    def listen(self, on_change: Callable[[bool], None]) -> Callable[[], None]:
        """Have each change told, from the watch's own thread; return what ends that.

        Parameters
        ----------
        on_change : callable
            Called with True when the kernel takes no messages any more, with False when it does again.
        """
        self._listeners.append(on_change)
        return lambda: self._listeners.remove(on_change) if on_change in self._listeners else None

    def _begin(self, *_: object) -> None:
        with self._changed:
            self._begun += 1
            self._changed.notify()

    def _end(self, *_: object) -> None:
        with self._changed:
            self._ended = self._begun
            self._changed.notify()

    def _watch(self) -> None:
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._begun > seen)  # type: ignore[misc]
                seen = self._begun
                if self._changed.wait_for(lambda seen=seen: self._ended >= seen, _QUICK_S):  # type: ignore[misc]
                    continue
            answered = threading.Event()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop is closed: the kernel ends
                return
            if answered.wait(_ANSWER_S) or not self._listeners:
                continue
            self._tell(blocked=True)
            answered.wait()
            self._tell(blocked=False)

    def _tell(self, *, blocked: bool) -> None:
        for listener in list(self._listeners):
            listener(blocked)
