"""The recorded panes of a run in a notebook: played on one clock, with the conversation beside them."""

from __future__ import annotations

import html
import queue
import threading
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from orchestrator_lab.reading.film import Film
from orchestrator_lab.widgets.saved import Saved, static_only
from orchestrator_lab.widgets.stage import sentence_of
from orchestrator_lab.widgets.view import part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchestrator_lab.frames import RunTables
    from orchestrator_lab.reading.film import Shown

__all__ = ["Projector", "RunPlayer"]

#: Characters of output in one message, of all panes together, and of one pane at least.
_MOST, _LEAST = 1 << 19, 1 << 14


class Projector:
    """Tells the views of one player what they ask for, and nothing else: a page that asks for nothing gets nothing.

    What is asked is answered in order on a thread of its own, which ends with the player.

    Parameters
    ----------
    film : Film
        What is played.
    send : callable
        Takes a message and buffers for the browser.
    """

    def __init__(self, film: Film, send: Callable[[dict[str, Any], list[bytes]], None]) -> None:
        self._film, self._send = film, send
        self._asked: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._closed = False

    def ask(self, message: object) -> None:
        """Take in what a view says; it is done on another thread."""
        if not isinstance(message, dict) or self._closed:
            return
        self._asked.put(message)
        with self._lock:
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="orchestrator-lab-player", daemon=True)
                self._worker.start()

    def close(self) -> None:
        """Answer nothing more, and close the recordings."""
        self._closed = True
        self._asked.put(None)
        with self._lock:
            if self._worker is None:
                self._film.close()

    def _work(self) -> None:
        with self._film:
            while (message := self._asked.get()) is not None:
                about = {"view": message.get("view"), "n": message.get("n")}
                try:
                    answer, buffers = self._answer(message, about)
                except Exception as error:  # noqa: BLE001 - whatever it is, the page is told, and goes on
                    answer, buffers = {"type": "error", "message": sentence_of(error)}, []
                if not self._closed:
                    self._send({**answer, **about}, buffers)

    def _answer(self, message: dict[str, Any], about: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        if message.get("type") == "talk":
            return {"type": "talk", **self._film.talk(_seconds(message.get("at")))}, []
        wants = [one for one in message.get("wants", ()) if one.get("agent") in self._film.agents]
        most = max(_LEAST, _MOST // max(1, len(wants)))
        shown = [self._shown(want, most, about) for want in wants]
        heads = [one.head for one in shown]
        return {"type": "shown", "panes": heads}, [part for one in shown for part in (one.picture, one.output)]

    def _shown(self, want: dict[str, Any], most: int, about: dict[str, Any]) -> Shown:
        agent = want["agent"]

        def progress(done: float) -> None:
            if not self._closed:
                self._send({"type": "progress", "agent": agent, "done": round(done, 3), **about}, [])

        anew = bool(want.get("anew"))
        return self._film.shown(agent, _seconds(want.get("at")), anew=anew, most=most, progress=progress)


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _options(film: Film, at_s: float) -> dict[str, Any]:
    """Return what a page knows of a film before it asks for anything."""
    return {
        "film": {
            "title": film.title,
            "at": at_s,
            "duration": film.duration_s,
            "agents": film.known(at_s),
            "colors": film.colors,
            "marks": film.marks(),
            "lacks": film.lacks,
        }
    }


class RunPlayer(Saved, anywidget.AnyWidget):
    """Recorded panes on one clock, with a scrubber and the conversation.

    ``Run.play()`` makes one. It needs neither the cluster nor tmux, only the run's folder.

    Parameters
    ----------
    tables : RunTables
        The run; as far as it has come when this is made.
    agent : str or iterable of str, optional
        Whose panes; all that were recorded by default.
    at : float, datetime, str or None
        Where it begins; the end when omitted, from where Play begins at the beginning.
    theme : {"auto", "light", "dark"}
        Colours; those of the page by default.

    Raises
    ------
    AgentNotFound
        When nobody of this name is in the run.
    ConfigError
        When no pane was recorded, or there is no such instant or id.
    EnvironmentProblem
        When this installation lacks the browser's part.

    Examples
    --------
    >>> from orchestrator_lab import open_run
    >>> open_run("runs/run_x").play()  # doctest: +SKIP
    RunPlayer(agents=2)
    """

    options = traitlets.Dict().tag(sync=True)

    # Also of one whose making failed: ipywidgets closes it all the same.
    _projector: Projector | None = None

    def __init__(
        self,
        tables: RunTables,
        agent: str | Iterable[str] | None = None,
        at: object = None,
        *,
        theme: str = "auto",
    ) -> None:
        film = Film(tables, agent)
        try:
            at_s = film.seconds(at)
            self._count, self._title, self._at_s, self._ends_s = len(film.agents), film.title, at_s, film.duration_s
            self._screens = film.screens(at_s)
            if static_only():
                film.close()
                super().__init__()
                return
            self._esm, self._css = part("panes.js"), part("panes.css")
            super().__init__(options={**_options(film, at_s), "theme": theme})
        except BaseException:
            film.close()
            raise
        projector = self._projector = Projector(film, self._to_browser)
        self.on_msg(lambda _, content, __: projector.ask(content))
        self.kept()

    def __repr__(self) -> str:
        return f"RunPlayer(agents={self._count})"

    def _to_browser(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(message, buffers)

    def still_html(self) -> str:
        """Return the panes as they were at the instant where it begins, with their colours."""
        name = html.escape(self._title)
        where = f"{self._at_s:.1f} s of {self._ends_s:.1f} s"
        return f"<div><b>{name}</b>: {self._count} panes, {where}</div>{self._screens._repr_html_()}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # noqa: ANN401 - IPython's
        if self._projector is None:
            return self._still()
        data, _ = anywidget.AnyWidget._repr_mimebundle_(self, **kwargs) or ({}, {})
        return {**data, **self._still()}

    def freeze(self) -> None:
        """Replace each place where this is shown by stills, which is what a saved notebook keeps, and close it."""
        if self._projector is not None:
            super().freeze()
            self.close()

    def close(self) -> None:
        """Close the player; the run stays."""
        if self._projector is not None:
            self._projector.close()
            self._projector = None
        super().close()
        # ipywidgets takes this away from what is closed; a still can be shown all the same.
        self.__dict__.pop("_repr_mimebundle_", None)
