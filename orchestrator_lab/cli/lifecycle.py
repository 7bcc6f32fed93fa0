"""Commands for a cluster's life: init, start, status, list, attach, stop, restart, shutdown."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestrator_lab.cli import common
from orchestrator_lab.cli.asked import tell_dialogs
from orchestrator_lab.cli.common import ClusterOption, JsonOption
from orchestrator_lab.cli.guards import tell_guards

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator_lab.cluster import Cluster

__all__ = ["attach", "init", "list_", "register", "restart", "shutdown", "start", "status", "stop"]

_FILE = "cluster.yaml"
_NAME = typer.Argument(None, metavar="[NAME]", help="Which cluster; see 'list'.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    panel = "Clusters"
    app.command(rich_help_panel=panel)(init)
    app.command(rich_help_panel=panel)(start)
    app.command(rich_help_panel=panel)(status)
    app.command("list", rich_help_panel=panel)(list_)
    app.command(rich_help_panel=panel)(attach)
    app.command(rich_help_panel=panel)(stop)
    app.command(rich_help_panel=panel)(restart)
    app.command(rich_help_panel=panel)(shutdown)


def init(
    template: str = typer.Argument("duo", help="Which template; 'init --list' shows them."),
    kind: str | None = typer.Option(None, help="Kind of its agents: claude, or chat (needs no login)."),
    force: bool = typer.Option(False, "--force", help="Replace files that are there."),
    show: bool = typer.Option(False, "--list", help="List the templates and end."),
) -> None:
    """Write a commented cluster.yaml to start from."""
    from orchestrator_lab.config import template_files, template_names, template_text
    from orchestrator_lab.errors import ConfigError

    if show:
        lines = common.table("template", "what it is")
        for name in template_names():
            first = template_text(name).partition("\n")[0].lstrip("# ")
            lines.add_row(name, first)
        common.out().print(lines)
        return
    files = template_files(template, kind)
    there = [name for name in files if Path(name).exists()]
    if there and not force:
        listed = ", ".join(there)
        raise ConfigError(f"{listed} exists already in {Path.cwd()}; --force replaces it, or choose another folder")
    for name, text in files.items():
        path = Path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {path.absolute()}: {error.strerror}") from error
        typer.echo(f"wrote {name}")
    typer.echo("now look it over, and run: orchestrator-lab start")


def start(
    source: str | None = typer.Argument(
        None,
        metavar="[FILE|template:NAME]",
        help="What to start; cluster.yaml (or cc-cluster.yaml) of this folder when omitted.",
    ),
    name: str | None = typer.Option(None, "--name", help="Name of the cluster, instead of the configured one."),
    experiment: str | None = typer.Option(None, "--experiment", help="Experiment that the run belongs to."),
    param: list[str] = typer.Option([], "--param", metavar="KEY=VALUE", help="A condition of the run (repeatable)."),
    tag: list[str] = typer.Option([], "--tag", help="A label of the run (repeatable)."),
    seed: int | None = typer.Option(None, "--seed", help="Kept with the run."),
    mode: str | None = typer.Option(
        None,
        "--mode",
        metavar="MODE",
        help="live, record (the default), replay or replay_strict: how the agents' models answer; auto: replay if the "
        "run is there, else record.",
    ),
    run: str | None = typer.Option(
        None, "--run", metavar="RUN", help="The run that is replayed: its id, its folder, or 'last'."
    ),
    level: str | None = typer.Option(
        None,
        "--level",
        metavar="LEVEL",
        help="How it is replayed: terminal (default: programs are played), or model (they run, on recorded answers).",
    ),
    speed: str | None = typer.Option(
        None, "--speed", metavar="TIMES", help="How fast a terminal is played: 1 is as recorded, max as fast as it can."
    ),
    resume: str | None = typer.Option(
        None,
        "--resume",
        metavar="RUN",
        help="Go on with a run that has no end, as after a reboot: its id, its folder, or 'last'.",
    ),
    attach_after: bool = typer.Option(False, "--attach", help="Attach this terminal once it runs."),
    as_json: bool = JsonOption,
) -> None:
    """Start a cluster and wait until its agents take messages."""
    from orchestrator_lab.cli.progress import interruptible, starting
    from orchestrator_lab.config import load_config, parse_params
    from orchestrator_lab.errors import ConfigError
    from orchestrator_lab.modes import choose_mode, recorded_run
    from orchestrator_lab.resuming import prepare

    if resume is not None:
        if (
            any(given is not None for given in (source, name, seed, mode, run, level, speed))
            or experiment
            or param
            or tag
        ):
            raise ConfigError("--resume goes on with what the run had: give it alone, or with --attach and --json")
        found = prepare(resume, dict(os.environ))
        with interruptible("Ending what was started"):
            cluster = starting(found.config, quiet=as_json, resume=found.run_dir)
        _say_started(cluster, found.config, attach_after=attach_after, as_json=as_json)
        return
    mode = choose_mode(mode, run)
    replays = run is not None and mode.startswith("replay")
    config = recorded_run(str(run), level, speed).config() if replays and source is None else load_config(source)
    if replays and source is None:
        # Whoever recorded it may have ended it with a notebook; this command is over in a moment.
        config = config.model_copy(update={"lifetime": "detached"})
    if name is not None:
        config = config.renamed(name)
    given = {"experiment": experiment, "params": parse_params(param), "tags": tag, "seed": seed}
    with interruptible("Ending what was started"):
        cluster = starting(config, quiet=as_json, mode=mode, run=run, level=level, speed=speed, **given)
    _say_started(cluster, config, attach_after=attach_after, as_json=as_json)


def _say_started(cluster: Cluster, config: Any, *, attach_after: bool, as_json: bool) -> None:  # noqa: ANN401
    facts = cluster.status()
    if as_json:
        common.print_json({**facts, "notes": config.notes})
    else:
        _tell_started(facts, config.notes, lifetime=config.lifetime)
    if attach_after:
        _exec_attach(cluster, None, read_only=False)
    elif config.lifetime == "owner":
        common.say_note("lifetime: owner ends this cluster now, with the command that started it")


def _tell_started(facts: dict[str, Any], notes: list[str], *, lifetime: str) -> None:
    console = common.out()
    console.print()
    console.print(_agents_table(facts))
    console.print()
    _say_places(facts)
    if lifetime != "owner":
        console.print(f"[bold]{'end':<7}[/bold]orchestrator-lab shutdown {facts['name']}", soft_wrap=True)
    for note in notes:
        common.say_note(note)
    tell_dialogs(facts)


def _say_places(facts: dict[str, Any]) -> None:
    console = common.out()
    lines = [("attach", facts["attach"]), ("run", facts["run_dir"])]
    if facts["mode"] != "record":
        lines.append(("mode", facts["mode"]))
    for label, text in lines:
        console.print(f"[bold]{label:<7}[/bold]", end="")
        console.print(text, markup=False, soft_wrap=True)


def _agents_table(facts: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    names = [agent["name"] for agent in facts["agents"]]
    rows = common.table(
        ("agent", {"no_wrap": True}),
        ("state", {"no_wrap": True}),
        ("kind", {"no_wrap": True}),
        ("role", {"overflow": "fold"}),
        ("model", {"overflow": "fold"}),
        ("queued", {"justify": "right"}),
    )
    for agent in facts["agents"]:
        kind = agent["kind"] if agent["program"] in {None, agent["kind"]} else f"{agent['kind']} ({agent['program']})"
        rows.add_row(
            Text(agent["name"], style=common.agent_style(agent["name"], names)),
            common.state_text(agent["state"]),
            kind,
            Text(agent["role"] or ""),
            Text(agent["model"] or ""),
            Text(str(agent["queued"]) if agent["queued"] else "", style="yellow"),
        )
    return rows


def status(
    name: str | None = _NAME,
    watch: bool = typer.Option(False, "--watch", "-w", help="Stay, and show what changes; Ctrl-C ends it."),
    as_json: bool = JsonOption,
) -> None:
    """Show a cluster's agents, their states and what needs attention."""
    cluster = common.pick(name)
    if watch:
        from orchestrator_lab.cli.watch import watch_status

        watch_status(cluster)
        return
    facts = cluster.status()
    if as_json:
        common.print_json(facts)
        return
    _show_status(facts)


def _show_status(facts: dict[str, Any]) -> None:
    from rich.text import Text

    console = common.out()
    line = Text.assemble((facts["name"], "bold"), "  ", common.state_text(facts["status"]))
    line.append(f"  {len(facts['agents'])} agents, {facts['messages']} messages", style="dim")
    console.print(line)
    console.print()
    console.print(_agents_table(facts))
    console.print()
    _say_places(facts)
    for conversation in facts["conversations"]:
        if conversation["ended"] is None:
            done, planned = conversation["turns"], conversation["turns_planned"]
            console.print(f"[bold]{'talk':<7}[/bold]{' → '.join(conversation['agents'])}, turn {done} of {planned}")
    for agent in facts["agents"]:
        if agent["error"]:
            common.say_error(f"{agent['name']}: {agent['error']}")
        if agent["restarting"]:
            common.say_note(f"{agent['name']} ended and is about to be started again; messages to it wait")
    if facts["problem"]:
        common.say_error(facts["problem"])
    if facts["alerts"]:
        from orchestrator_lab.cli.alerts import alert_lines

        console.print()
        console.print(alert_lines(facts["alerts"]))
    tell_dialogs(facts)
    tell_guards(facts["guards"])


def list_(as_json: bool = JsonOption) -> None:
    """List the clusters that run here."""
    from dataclasses import asdict

    from orchestrator_lab.cluster import Cluster

    records = Cluster.list()
    if as_json:
        common.print_json([asdict(record) for record in records])
        return
    if not records:
        typer.echo("no cluster is running; start one: orchestrator-lab start")
        return
    from orchestrator_lab.cli.words import moment

    rows = common.table(
        ("cluster", {"no_wrap": True, "style": "bold"}), "started", "version", ("run", {"overflow": "fold"})
    )
    for record in records:
        rows.add_row(record.name, moment(record.started_at), record.version, record.run_dir)
    common.out().print(rows)


def attach(
    agent: str | None = typer.Argument(None, help="Agent to look at; without it all of them."),
    cluster: str | None = ClusterOption,
    read_only: bool = typer.Option(False, "--read-only", "-r", help="Watch only: keys do nothing but detach."),
    show: bool = typer.Option(False, "--print", help="Print the command instead of running it."),
) -> None:
    """Attach this terminal to a cluster's tmux session (C-b d leaves it)."""
    found = common.pick(cluster)
    if show:
        typer.echo(shlex.join(_attach_argv(found, agent, read_only=read_only)))
        return
    _exec_attach(found, agent, read_only=read_only)


def _attach_argv(cluster: Cluster, agent: str | None, *, read_only: bool) -> list[str]:
    path = f"/agents/{agent}/attach" if agent else "/attach"
    reply = cluster.client.get(path, timeout_s=20.0, **({"read_only": "1"} if read_only else {}))
    return [str(part) for part in reply["argv"]]


def _exec_attach(cluster: Cluster, agent: str | None, *, read_only: bool) -> None:
    """Become tmux."""
    from orchestrator_lab.errors import EnvironmentProblem

    argv = _attach_argv(cluster, agent, read_only=read_only)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise EnvironmentProblem(f"attaching needs a terminal; run this in one: {shlex.join(argv)}")
    outer = os.environ.pop("TMUX", None)
    if outer is not None:
        if outer.split(",")[0] == str(cluster.client.folder / "tmux.sock"):
            raise EnvironmentProblem(
                f"this terminal is inside cluster {cluster.name!r} already: choose a window with C-b w, or leave "
                "with C-b d"
            )
        # tmux refuses to run inside tmux by that variable alone; its prefix then has to be typed twice.
        os.environ.pop("TMUX_PANE", None)
        common.say_note("you are inside tmux already: type its prefix twice here (C-b C-b d leaves the cluster)")
    sys.stdout.flush()
    cluster.client.close()
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted


def stop(
    name: str | None = _NAME,
    agent: list[str] = typer.Option([], "--agent", "-a", help="Only this agent (repeatable)."),
) -> None:
    """End the agents; tmux session and run stay, 'restart' goes on."""
    cluster = common.pick(name, careful=True)
    with common.busy(f"Stopping {cluster.name}"):
        for one in agent:
            cluster[one].stop()
        if not agent:
            cluster.stop()
    typer.echo(f"stopped {', '.join(agent) or cluster.name}; go on with: orchestrator-lab restart {cluster.name}")


def restart(
    name: str | None = _NAME,
    agent: list[str] = typer.Option([], "--agent", "-a", help="Only this agent (repeatable)."),
) -> None:
    """Start the agents anew in the same run; sessions go on where a program can resume."""
    cluster = common.pick(name, careful=True)
    with common.busy(f"Restarting {cluster.name}"):
        for one in agent:
            cluster[one].restart()
        if not agent:
            cluster.restart()
    typer.echo(f"restarted {', '.join(agent) or cluster.name}")
    tell_dialogs(cluster.status())


def shutdown(
    name: str | None = _NAME,
    everything: bool = typer.Option(False, "--all", help="Every cluster that runs."),
) -> None:
    """End agents, tmux session and run."""
    names = common.running_names() if everything else [common.choose(name, careful=True)]
    if everything and not names:
        typer.echo("no cluster is running")
    for one in names:
        cluster = common.pick(one)
        with common.busy(f"Shutting {one} down"):
            run_dir = cluster.shutdown()
        typer.echo(f"shut down {one}; its run is in {run_dir}")
