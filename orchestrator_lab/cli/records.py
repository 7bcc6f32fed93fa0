"""Commands that read what was recorded: logs, runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.common import JsonOption
from orchestrator_lab.cli.group import Commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.table import Table

    from orchestrator_lab.run import Run

__all__ = ["exchanges_table", "find_run", "logs", "messages_table", "register", "runs_dir"]

_RUN = typer.Argument(None, metavar="[RUN]", help="A run's folder or id, or a cluster's name; the newest when omitted.")
#: Columns of a terminal in which a list of runs has all its own.
_WIDE = 100
_DIR = typer.Argument(None, metavar="[DIR]", help="A folder of runs; runs_dir of this folder's cluster when omitted.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    panel = "Records"
    app.command(rich_help_panel=panel)(logs)
    from orchestrator_lab.cli import backups, bundles, comparing, keeping, replaying

    runs = typer.Typer(cls=Commands, rich_markup_mode=None, help="List the runs that were recorded, and show one.")
    runs.callback(invoke_without_command=True)(_runs)
    runs.command("list")(runs_list)
    runs.command("show")(runs_show)
    runs.command("path")(runs_path)
    runs.command("diff")(comparing.diff)
    for command in (keeping.seal, keeping.unseal, keeping.prune):
        runs.command(command.__name__)(command)
    runs.command("replay")(replaying.replay)
    runs.command("export")(bundles.export_run)
    runs.command("initial")(bundles.initial)
    runs.command("import")(bundles.import_run)
    runs.command("verify")(bundles.verify)
    runs.command("open")(bundles.open_bundled)
    app.add_typer(runs, name="runs", rich_help_panel=panel)
    backups.register(app)


# finding ----------------------------------------------------------------------------------------


def runs_dir() -> Path:
    """Return the folder of runs that the current folder's commands mean."""
    from orchestrator_lab.resuming import default_runs_dir

    return default_runs_dir()


def find_run(where: str | None) -> Run:
    """Return the run that a word means.

    Parameters
    ----------
    where : str, optional
        A running cluster's name, a run's folder, its id or the beginning of it, or the name of a cluster whose
        newest run is meant; ``last`` is the newest of all. The only cluster that runs, else the newest run, when
        omitted.

    Raises
    ------
    RunNotFound
        When nothing, or more than one run, fits.
    """
    from orchestrator_lab.errors import ClusterNotFound, RunNotFound
    from orchestrator_lab.run import Run, open_run
    from orchestrator_lab.tables import find_runs

    if where is None:
        with contextlib.suppress(ClusterNotFound):
            where = common.choose(None)
    record = _running(where)
    if record is not None:
        return open_run(record)
    if where is not None and os.path.lexists(os.path.expanduser(where)):  # noqa: PTH111 - neither raises
        return open_run(where)
    folder = runs_dir()
    known = find_runs(folder) if folder.is_dir() else []
    if where in {None, "last"}:
        if known:
            return Run(max(known, key=_begun))
        raise RunNotFound(f"no cluster is running, and there is no run in {folder.absolute()}", path=str(folder))
    by_id = [path for path in known if path.name == where] or [path for path in known if path.name.startswith(where)]
    if len(by_id) > 1:
        raise RunNotFound(f"{len(by_id)} runs in {folder.absolute()} begin with {where!r}: give more of the id")
    if by_id:
        return Run(by_id[0])
    named = [run for run in map(Run, known) if run.manifest.get("name") == where]
    if named:
        return max(named, key=lambda run: _begun(run.path))
    raise RunNotFound(
        f"{where!r} is no running cluster, and no run of that name, id or path is in {folder.absolute()}; "
        "'orchestrator-lab runs list' shows those there are",
        path=str(folder),
    )


def _running(name: str | None) -> str | None:
    """Return the run folder of a cluster that runs."""
    if name is None or os.sep in name:
        return None
    from orchestrator_lab.cluster import Cluster

    return next((one.run_dir for one in Cluster.list() if one.name == name), None)


def _begun(path: Path) -> str:
    """Return what sorts runs by time: the id's own time stamp."""
    return path.name


# logs -------------------------------------------------------------------------------------------


def logs(
    where: str | None = typer.Argument(
        None, metavar="[NAME|RUN]", help="A running cluster, a run's folder or id; the newest when omitted."
    ),
    *,
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on with events as they come."),
    agent: list[str] = typer.Option([], "--agent", "-a", help="Only this agent's (repeatable)."),
    events: list[str] = typer.Option(
        [], "--events", "-e", metavar="GLOB", help="Only these events, such as 'message.*' (repeatable)."
    ),
    last: int | None = typer.Option(None, "--last", "-n", metavar="N", help="Only the last N events."),
    as_json: bool = typer.Option(False, "--json", help="Print the journal's own JSON lines."),
) -> None:
    """Show what happened, one event a line."""
    from orchestrator_lab.errors import ConfigError

    if last is not None and last < 0:
        raise ConfigError(f"--last {last}: expected 0 or more")
    run = find_run(where)
    known = [event.to_json() for event in run.events()]
    printer = _printer(as_json=as_json, agents=agent, globs=events)
    past = [_loads(line) for line in known]
    wanted = [event for event in past if printer.wants(event)]
    printer.learn(past)
    for event in wanted if last is None else wanted[max(0, len(wanted) - last) :]:
        printer.show(event)
    if not follow:
        return
    if run.status != "running":
        common.say_note("this run is over")
        return
    for event in _coming(str(run.manifest.get("name")), past[-1]["seq"] if past else 0):
        printer.learn([event])
        if printer.wants(event):
            printer.show(event)


def _loads(line: str) -> dict[str, Any]:
    import json

    return dict(json.loads(line))


def _coming(name: str, since: int) -> Iterator[dict[str, Any]]:
    """Yield a running cluster's events as they come, over restarts of its supervisor."""
    import time

    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.errors import ClusterNotFound

    while True:
        try:
            for event in Cluster.attach(name).client.events(since):
                since = event["seq"]
                yield event
                if event["event"] == "run.ended":
                    return
        except ClusterNotFound:
            return
        except ConnectionError:
            time.sleep(0.1)  # its supervisor is being restarted: the stream goes on where it ended


class _printer:  # noqa: N801 - a helper of one command
    """Chooses events and prints them."""

    def __init__(self, *, as_json: bool, agents: Sequence[str], globs: Sequence[str]) -> None:
        self._agents = set(agents)
        self._globs = list(globs)
        self._names: list[str] = []
        self._console = None if as_json else common.out()

    def learn(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Note the agents' names, in their order: that is their colour."""
        for event in events:
            if event["event"] == "agent.added" and event.get("agent") not in self._names:
                self._names.append(str(event.get("agent")))

    def wants(self, event: Mapping[str, Any]) -> bool:
        """Tell whether an event was asked for."""
        from fnmatch import fnmatchcase

        if self._agents and event.get("agent") not in self._agents:
            facts = event.get("attributes") or {}
            if facts.get("sender") not in self._agents:
                return False
        return not self._globs or any(fnmatchcase(str(event["event"]), glob) for glob in self._globs)

    def show(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        if self._console is None:
            common.print_json_line(event)
            return
        from orchestrator_lab.cli.eventlines import event_line

        line = event_line(event, self._names)
        if self._console.is_terminal:
            line.truncate(self._console.width, overflow="ellipsis")
        self._console.print(line, soft_wrap=True)


# runs -------------------------------------------------------------------------------------------


def _runs(context: typer.Context, as_json: bool = JsonOption) -> None:
    """List the runs that were recorded, and show one."""
    if context.invoked_subcommand is None:
        runs_list(None, as_json=as_json)


def runs_list(folder: str | None = _DIR, *, as_json: bool = JsonOption) -> None:
    """List the runs of a folder, the newest last."""
    from orchestrator_lab.errors import OrchestratorLabError, RunNotFound
    from orchestrator_lab.run import Run
    from orchestrator_lab.tables import find_runs

    # Not Path.expanduser(), which raises where there is no such user.
    place = Path(os.path.expanduser(folder)) if folder else runs_dir()  # noqa: PTH111
    if folder is None and not place.is_dir():
        paths: list[Path] = []
    else:
        paths = find_runs(place)
        if not paths and place.is_file():
            raise RunNotFound(
                f"{place} is neither a run nor a folder of runs: expected a folder with manifest.json or journal.jsonl",
                path=str(place),
            )
    rows = []
    for path in paths:
        try:
            run = Run(path)
            row = _row(run)
        except OrchestratorLabError as error:  # one damaged run must not hide the others
            common.say_note(error.message)
            continue
        rows.append({"cluster": run.manifest.get("name"), **row, "path": str(path)})
    if as_json:
        common.print_json(rows)
        return
    if not rows:
        typer.echo(f"no runs in {place.absolute()}")
        return
    _show_runs(rows)


def _row(run: Run) -> dict[str, Any]:
    return {name: values[0] for name, values in run.tables.columns("runs").items()}


def _show_runs(rows: list[dict[str, Any]]) -> None:
    from orchestrator_lab.cli.words import amount, moment, seconds

    # Whole ids and names, which people copy, before figures, which `runs show` has too.
    wide = common.out().width >= _WIDE
    experiments = wide and any(row.get("experiment") for row in rows)
    columns: list[str | tuple[str, dict[str, Any]]] = [("run", {"no_wrap": True}), ("cluster", {"style": "bold"})]
    columns += ["experiment"] if experiments else []
    columns += [("started", {"no_wrap": True}), ("status", {"no_wrap": True})]
    columns += [(name, {"justify": "right", "no_wrap": True}) for name in ("took", "agents", "messages") if wide]
    shown = common.table(*columns)
    for row in rows:
        cells: list[Any] = [row["run_id"], row["cluster"] or ""]
        cells += [row.get("experiment") or ""] if experiments else []
        cells += [moment(row.get("started_at")), common.state_text(row.get("status") or "unknown")]
        figures = [seconds(row.get("duration_s")), amount(row["agent_count"]), amount(row["message_count"])]
        shown.add_row(*cells, *(figures if wide else []))
    common.out().print(shown)


def runs_path(run: str | None = _RUN) -> None:
    """Print a run's folder, for other commands."""
    typer.echo(str(find_run(run).path.resolve()))


def runs_show(
    run: str | None = _RUN,
    *,
    full: bool = typer.Option(False, "--full", help="Whole texts instead of their beginnings."),
    as_json: bool = JsonOption,
) -> None:
    """Show one run: its conditions, agents and exchanges, and how to open it."""
    found = find_run(run)
    tables = found.tables
    agents, messages, turns = (tables.fold(name).rows() for name in ("agents", "messages", "turns"))
    if as_json:
        row = {"cluster": found.manifest.get("name"), **_row(found), "path": str(found.path.resolve())}
        common.print_json({"run": row, "agents": agents, "messages": messages, "turns": turns})
        return
    show_run(found, agents, messages, turns, full=full)


def show_run(
    run: Run,
    agents: list[dict[str, Any]],
    messages: list[dict[str, Any]],
    turns: list[dict[str, Any]],
    *,
    full: bool = False,
) -> None:
    """Print a run for people."""
    from rich.text import Text

    from orchestrator_lab.cli.words import amount, moment, seconds

    console, row = common.out(), _row(run)
    head = Text.assemble((str(run.manifest.get("name") or "a run"), "bold"), "  ", common.state_text(row["status"]))
    head.append(f"  {moment(row.get('started_at'))}  {seconds(row.get('duration_s'))}", style="dim")
    console.print(head)
    for label in ("experiment", "params", "tags", "seed", "error_message"):
        value = row.get(label)
        if value not in {None, "", "{}", "[]"}:
            console.print(Text.assemble((f"{label.replace('_message', ''):<11}", "bold"), str(value)))
    console.print()
    names = [one["name"] for one in agents]
    shown = common.table(
        ("agent", {"no_wrap": True}),
        "kind",
        ("model", {"overflow": "fold"}),
        ("role", {"overflow": "fold"}),
        ("messages", {"justify": "right"}),
        ("tokens in", {"justify": "right"}),
        ("out", {"justify": "right"}),
    )
    for one in agents:
        shown.add_row(
            Text(one["name"], style=common.agent_style(one["name"], names)),
            one.get("kind") or "",
            one.get("model") or "",
            one.get("role") or "",
            amount(one.get("message_count")),
            amount(one.get("input_tokens")),
            amount(one.get("output_tokens")),
        )
    console.print(shown)
    console.print()
    console.print(exchanges_table(messages, turns, names, full=full) if messages else "no messages")
    console.print()
    tell_how_to_open(run.path)


def tell_how_to_open(path: Path) -> None:
    """Say where a run is, and what opens it."""
    console = common.out()
    for label, text in (
        ("bundle" if path.is_file() else "folder", str(path.resolve())),
        ("shell", f"orchestrator-lab runs show {_quoted(path)}"),
        ("Python", f"from orchestrator_lab import open_run; open_run({_shown(path)!r}).messages"),
    ):
        console.print(f"[bold]{label:<8}[/bold]", end="")
        console.print(text, markup=False, soft_wrap=True)


def _shown(path: Path) -> str:
    """Return a path as short as it can be typed here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path.resolve())


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(_shown(path))


def messages_table(rows: list[dict[str, Any]]) -> Table:
    """Return messages as a table: who wrote what to whom, and what became of it."""
    from rich.text import Text

    names = list(dict.fromkeys(str(row["recipient"]) for row in rows))
    shown = common.table(
        ("id", {"no_wrap": True, "style": "dim"}),
        ("from → to", {"no_wrap": True}),
        ("text", {"ratio": 1, "overflow": "ellipsis", "no_wrap": True}),
        ("status", {"no_wrap": True}),
    )
    shown.expand = True  # else the texts would squeeze the other columns
    for row in rows:
        shown.add_row(
            str(row["message_id"]),
            _route(row, names),
            Text(common.fold(row["content"] or "", 500)),
            row["status"] or "",
        )
    return shown


def _route(row: Mapping[str, Any], names: Sequence[str]) -> Any:  # noqa: ANN401 - a Text
    from rich.text import Text

    sender, recipient = str(row["sender"]), str(row["recipient"])
    return Text.assemble(
        (sender, common.agent_style(sender, names)), (" → ", "dim"), (recipient, common.agent_style(recipient, names))
    )


def exchanges_table(
    messages: list[dict[str, Any]], turns: list[dict[str, Any]], names: Sequence[str], *, full: bool = False
) -> Table:
    """Return messages with the turns that answered them as a table.

    Parameters
    ----------
    messages, turns : list of dict
        Rows of the two tables.
    names : sequence of str
        The agents, for their colours.
    full : bool
        Whole texts instead of their beginnings.

    Returns
    -------
    rich.table.Table
        From and to, text, reply, seconds, tokens.
    """
    from rich.text import Text

    from orchestrator_lab.cli.words import seconds

    text: Callable[[str | None], Text] = lambda said: Text(  # noqa: E731 - two uses, one line
        (said or "") if full else common.fold(said or "", 160)
    )
    by_id = {turn["turn_id"]: turn for turn in turns}
    one_line: dict[str, Any] = {} if full else {"no_wrap": True, "overflow": "ellipsis"}
    shown = common.table(
        ("from → to", {"no_wrap": True}),
        ("message", {"ratio": 1, **one_line}),
        ("reply", {"ratio": 1, **one_line}),
        ("time", {"justify": "right", "no_wrap": True}),
        ("tokens", {"justify": "right", "no_wrap": True}),
    )
    for row in messages:
        turn = by_id.get(row.get("turn_id"), {})
        reply = text(turn.get("reply"))
        if row["status"] != "answered":
            reply = Text(f"{row['status']}: {row.get('error_message') or ''}".rstrip(": "), style="yellow")
        tokens = "" if turn.get("output_tokens") is None else f"{turn.get('input_tokens')}+{turn['output_tokens']}"
        shown.add_row(_route(row, names), text(row["content"]), reply, seconds(row.get("response_s")), tokens)
    shown.show_lines = full
    shown.expand = True  # else the texts would squeeze the other columns
    return shown
