"""The demonstration, as it is seen."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from orchestrator_lab.cli import common

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator_lab.cluster import Cluster

__all__ = ["run_demo"]


def run_demo(*, rounds: int, keep: bool, script: bool, runs_dir: str) -> None:
    """Start the demonstration's cluster, show who says what, and what was recorded.

    Parameters
    ----------
    rounds : int
        How often each agent speaks.
    keep : bool
        Leave the cluster running.
    script : bool
        Fixed answers instead of a language model.
    runs_dir : str
        Where the run is recorded.
    """
    from orchestrator_lab import demo
    from orchestrator_lab.cli.progress import interruptible, starting
    from orchestrator_lab.cli.setup import pull_with_progress
    from orchestrator_lab.models import DEFAULT_MODEL

    console = common.out()
    demo.check_machine(script=script)
    if demo.needs_model(script=script):
        pull_with_progress(DEFAULT_MODEL)
    config = demo.demo_config(runs_dir=runs_dir, script=script)
    model = "fixed answers" if script else f"{DEFAULT_MODEL}, a small language model of this machine"
    console.print(
        f"[bold]{len(config.agents)} agents[/bold] in tmux panes on {model}: no key, no login", soft_wrap=True
    )
    ended = False
    with interruptible("Ending the demonstration"):
        cluster = starting(config)
        try:
            _talk(console, cluster, rounds)
            if not keep:
                with common.busy("Shutting down"):
                    cluster.shutdown()
            ended = True
        finally:
            if not ended:
                with contextlib.suppress(Exception):
                    cluster.shutdown("cancelled")
    _conclude(console, cluster, keep=keep)


def _talk(console: Console, cluster: Cluster, rounds: int) -> None:
    """Let the agents talk, and show it."""
    from rich.padding import Padding
    from rich.text import Text

    from orchestrator_lab import demo
    from orchestrator_lab.cli.words import seconds

    names = cluster.names
    width = max(len(name) for name in [*names, "you"])
    if console.is_terminal:
        watch = f"orchestrator-lab attach --read-only --cluster {cluster.name}"
        console.print(Text.assemble(("watch them from another terminal: ", "dim"), watch), soft_wrap=True)
    console.print()

    def speech(who: str, text: str, took: str) -> None:
        style = common.agent_style(who, names)
        head = Text.assemble((who.rjust(width), style), "  ", (took, "dim"))
        console.print(head)
        console.print(Padding(Text(text.strip()), (0, 2, 1, width + 2)))

    speech("you", demo.OPENING, "")
    conversation = cluster.converse(names, demo.OPENING, rounds=rounds)
    begun: dict[str, float] = {}
    spinner = console.status("", spinner="dots") if console.is_terminal else None
    with spinner or contextlib.nullcontext():
        for moment in demo.follow(cluster, conversation.conversation_id):
            if moment.kind in {"asked", "thinking"}:
                begun[moment.agent] = moment.monotonic_s
                if spinner is not None:
                    spinner.update(Text(f"{moment.agent} is thinking", style="dim"))
            elif moment.kind == "said":
                at = begun.get(moment.agent)
                speech(moment.agent, moment.text, seconds(None if at is None else moment.monotonic_s - at))
            elif moment.text != "completed":
                common.say_note(f"the conversation ended early: {moment.text}")
    _settle(cluster)


def _settle(cluster: Cluster) -> None:
    """Wait for usage figures, which may come after the end of a turn."""
    with contextlib.suppress(Exception):
        cluster.wait(timeout=5)


def _conclude(console: Console, cluster: Cluster, *, keep: bool) -> None:
    from orchestrator_lab.cli.records import exchanges_table, tell_how_to_open

    tables = cluster.run.tables
    agents, messages, turns = (tables.fold(name).rows() for name in ("agents", "messages", "turns"))
    names = [agent["name"] for agent in agents]
    console.print(exchanges_table(messages, turns, names))
    console.print()
    console.print(_totals(turns))
    console.print()
    tell_how_to_open(cluster.run_dir)
    if keep:
        for label, text in (
            ("attach", f"orchestrator-lab attach --cluster {cluster.name}"),
            ("end", f"orchestrator-lab shutdown {cluster.name}"),
        ):
            console.print(f"[bold]{label:<8}[/bold]{text}", soft_wrap=True)


def _totals(turns: list[dict[str, Any]]) -> str:
    from orchestrator_lab.cli.words import amount, seconds

    busy = sum(turn["duration_s"] for turn in turns if turn.get("duration_s") is not None)
    tokens = sum(turn["output_tokens"] for turn in turns if turn.get("output_tokens") is not None)
    return f"{len(turns)} turns, {seconds(busy)} of work, {amount(tokens)} tokens written"
