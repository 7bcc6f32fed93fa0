"""Any REPL-like command: nothing reports, so turns are found on the screen, as the configuration declares."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import (
    Composer,
    Evidence,
    Launch,
    LaunchContext,
    Program,
    Typed,
    Usage,
    Watch,
    find_program,
)
from orchestrator_lab.errors import ProgramNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator_lab.config import AgentConfig, ProgramAgent

__all__ = ["ProgramAdapter", "extract_reply"]


class ProgramAdapter:
    """The adapter of one program without reports."""

    kind = "program"
    reports = False
    queues_input = True
    styled = False
    interrupt_key = "C-c"
    echo_timeout_s = 0.3
    accept_timeout_s = 3.0

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:
        """Find the command on the agent's PATH."""
        command: list[str] = getattr(config, "command")  # noqa: B009 - the union's member is known by its kind
        path = find_program(command[0], environ)
        if path is None:
            raise ProgramNotFound(
                f"agent {config.name!r}: there is no program {command[0]!r} on the PATH; install it or name its path "
                "under 'command'",
                agent=config.name,
                program=command[0],
            )
        return Program((path, *command[1:]), path.rsplit("/", 1)[-1])

    def prepare(self, config: AgentConfig, program: Program, context: LaunchContext) -> Launch:  # noqa: ARG002
        """Start it as it is, in its environment."""
        return Launch(program.argv, dict(context.environ))

    def typed(self, text: str) -> Typed:
        """Return the body as it is."""
        return Typed(text, text)

    def hook(self, payload: Mapping[str, Any]) -> list[Evidence]:  # noqa: ARG002 - the protocol's signature
        """Return nothing: it has no hooks."""
        return []

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:  # noqa: ARG002
        """Return nothing: its readiness is the watch's to find."""
        return []

    def composer(self, screen: str, typed: Typed) -> Composer:  # noqa: ARG002
        """Say that an unknown program's input line cannot be read."""
        return "unknown"

    def transcript(self, path: Path, *, prompt: str, since: float) -> list[Evidence]:  # noqa: ARG002
        """Return nothing: it keeps no record."""
        return []

    def usage(self, path: Path, *, prompt_id: str | None, prompt: str | None) -> Usage | None:  # noqa: ARG002
        """Return None: it knows no tokens."""
        return None

    def watch(self, config: AgentConfig) -> Watch | None:
        """Return how this program's turns are found."""
        program: ProgramAgent = config  # type: ignore[assignment]
        end, ready = program.turn_end, program.ready
        prompt = re.compile(end.prompt) if end.prompt else None
        start = re.compile(ready.prompt) if ready is not None and ready.prompt else prompt
        return Watch(prompt, end.marker, end.quiet_s, start)


def extract_reply(text: str, typed: str, watch: Watch) -> str:
    r"""Return what a program answered, out of what its screen showed since the input was typed.

    Parameters
    ----------
    text : str
        The screen's lines from the one on which the input was typed, wrapped lines joined.
    typed : str
        The input; its echo is cut off.
    watch : Watch
        How the turn's end was found; the closing prompt or marker is cut off.

    Returns
    -------
    str
        The answer without trailing blank lines.

    Examples
    --------
    >>> extract_reply(">>> 1+1\n2\n>>> ", "1+1", Watch(prompt=re.compile(r"^>>> $")))
    '2'
    """
    lines = text.rstrip("\n").split("\n")
    echoed = [line.strip() for line in typed.split("\n") if line.strip()]
    # Every typed line is echoed once, behind whatever prompt the program shows before it.
    while echoed and lines:
        for index, line in enumerate(lines):
            if line.rstrip().endswith(echoed[0]):
                del lines[index]
                break
        echoed.pop(0)
    if watch.marker is not None:
        joined = "\n".join(lines)
        cut = joined.rfind(watch.marker)
        lines = (joined[:cut] if cut >= 0 else joined).split("\n")
    elif watch.prompt is not None:
        while lines and (not lines[-1].strip() or watch.prompt.search(lines[-1])):
            lines.pop()
    return "\n".join(line.rstrip() for line in lines).strip("\n")
