"""What commands share: where they print, how they find a cluster, how a value becomes text."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.errors import ClusterNotFound, OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

    from orchestrator_lab.cluster import Cluster

__all__ = [
    "ClusterOption",
    "JsonOption",
    "agent_style",
    "busy",
    "debugging",
    "err",
    "fold",
    "harmless",
    "out",
    "pick",
    "print_json",
    "say_error",
    "say_note",
    "say_unexpected",
    "table",
]

DEBUG = False

JsonOption = typer.Option(False, "--json", help="Print JSON for a program to read.")
ClusterOption = typer.Option(None, "--cluster", "-c", metavar="NAME", help="Which cluster; see 'list'.")

#: Width of tables that no terminal limits.
_PIPED_WIDTH = 160
#: Distinguishable in light and dark terminals, also for colour-blind eyes: never red against green.
_AGENT_STYLES = ("cyan", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_yellow", "bright_blue")
_STATE_STYLES = {
    "idle": "green",
    "busy": "yellow",
    "starting": "cyan",
    "waiting": "bold magenta",
    "limited": "bold magenta",
    "failed": "bold red",
    "exited": "dim",
    "unknown": "dim",
    "running": "green",
    "completed": "green",
    "stopped": "dim",
    "cancelled": "yellow",
}


def debugging() -> bool:
    """Tell whether tracebacks are wanted."""
    return DEBUG or os.environ.get("ORCHESTRATOR_DEBUG", "") not in {"", "0"}


def out() -> Console:
    """Return the console of results."""
    return _console(stderr=False)


def err() -> Console:
    """Return the console of progress, notes and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    """Return a console that shows what others wrote, and does nothing that it says."""
    from rich.console import Console
    from rich.segment import Segment

    class Inert(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(harmless(segment.text), segment.style)

    console = Inert(stderr=stderr, highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _PIPED_WIDTH
    return console


def harmless(text: str) -> str:
    r"""Return a text that somebody else wrote without what a terminal would act upon: its picture stands there.

    Examples
    --------
    >>> harmless("a\x1b[2Jb")
    'a␛[2Jb'
    """
    from orchestrator_lab.reading.texts import clean

    return text if text.isascii() and text.isprintable() else clean(text)


def say_error(message: str) -> None:
    """Print an error's sentence; what follows its first line (a screen, a log) is set off."""
    first, _, rest = message.rstrip().partition("\n")
    typer.echo(typer.style("error: ", fg="red", bold=True) + harmless(first), err=True)
    if rest:
        typer.echo(typer.style("\n".join(f"  {harmless(line)}" for line in rest.splitlines()), dim=True), err=True)


def say_note(message: str) -> None:
    """Print a remark beside the result."""
    typer.echo(typer.style("note: ", fg="yellow") + harmless(message), err=True)


def say_unexpected(error: BaseException) -> None:
    """Print one line for an error that nobody foresaw, and keep its traceback in a file."""
    import traceback

    place = ""
    try:
        from orchestrator_lab.runtime import runtime_dir, write_private

        log = runtime_dir() / "last-error.log"
        write_private(log, "".join(traceback.format_exception(error)))
        place = f"; the traceback is in {log}"
    except OrchestratorLabError:
        pass
    text = str(error).strip().partition("\n")[0]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    say_error(f"this is a bug: {said}{place} (or run again with --debug)")


def is_usage(error: BaseException) -> bool:
    """Tell whether an exception is typer's own way to end a command or to complain about its arguments."""
    return any(
        one.__name__ in {"ClickException", "Exit", "Abort"} and one.__module__.split(".")[0] in {"click", "typer"}
        for one in type(error).__mro__
    )


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a value as JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_json_line(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a value as one line of JSON, at once."""
    typer.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))
    sys.stdout.flush()


def fold(text: str, length: int) -> str:
    r"""Return a text on one line, cut with an ellipsis.

    Examples
    --------
    >>> fold("two\nlines of text", 12)
    'two lines o…'
    """
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def table(*columns: str | tuple[str, dict[str, Any]], title: str | None = None) -> Table:
    """Return a table in the house's style: no frame, one rule under the head."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        name, options = (column, {}) if isinstance(column, str) else column
        made.add_column(name, **options)
    return made


def state_text(state: str | None) -> Text:
    """Return a state as a coloured word; the word alone says it too."""
    from rich.text import Text

    word = state or "unknown"
    return Text(f"● {word}", style=_STATE_STYLES.get(word, ""))


def agent_style(name: str, names: Sequence[str]) -> str:
    """Return an agent's colour: the same wherever the cluster is shown."""
    return _AGENT_STYLES[list(names).index(name) % len(_AGENT_STYLES)] if name in names else "bold"


def busy(text: str) -> AbstractContextManager[Any]:
    """Return a spinner that turns while something takes time, where somebody can see it."""
    import contextlib

    if not sys.stderr.isatty():
        return contextlib.nullcontext()
    return err().status(text, spinner="dots")


def read_text(text: str) -> str:
    """Return a text argument; ``-`` stands for the standard input."""
    if text != "-":
        return text
    from orchestrator_lab.errors import ConfigError

    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the standard input is not UTF-8 (byte {error.start}): a message is text") from error


def file_name_here() -> str | None:
    """Return the cluster that the configuration of the current folder names, None when there is none."""
    from orchestrator_lab.config import FILE_NAMES, load_config

    if not any(Path(name).is_file() for name in FILE_NAMES):
        return None
    try:
        return load_config().name
    except OrchestratorLabError:
        return None


def running_names() -> list[str]:
    """Return the names of the clusters that run."""
    from orchestrator_lab.cluster import Cluster

    return [one.name for one in Cluster.list()]


def choose(name: str | None, *, careful: bool = False) -> str:
    """Return the name of the cluster that a command means.

    Parameters
    ----------
    name : str, optional
        What the user said.
    careful : bool
        For commands that end something: the only cluster that runs is not taken when the current folder
        is another cluster's.

    Raises
    ------
    ClusterNotFound
        When none runs, or several do and nothing says which.
    """
    if name:
        return name
    names = running_names()
    if not names:
        raise ClusterNotFound("no cluster is running; start one: orchestrator-lab start")
    if len(names) == 1 and not careful:
        return names[0]
    here = file_name_here()
    if here in names:
        return here
    listed = ", ".join(names)
    if len(names) == 1:
        if here is None:
            return names[0]
        raise ClusterNotFound(
            f"cluster {here!r} of this folder is not running; {listed} is: name it to mean it", running=names
        )
    raise ClusterNotFound(f"several clusters are running ({listed}): say which one you mean", running=names)


def pick(name: str | None, *, careful: bool = False) -> Cluster:
    """Return the cluster that a command means, attached; see :func:`choose`."""
    from orchestrator_lab.cluster import Cluster

    return Cluster.attach(choose(name, careful=careful))
