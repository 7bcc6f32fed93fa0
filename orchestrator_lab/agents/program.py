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
    Watch,
    find_program,
)
from orchestrator_lab.agents.reading import WithoutRecord
from orchestrator_lab.errors import ProgramNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator_lab.config import AgentConfig, ProgramAgent

__all__ = ["ProgramAdapter", "extract_reply", "prompt_start", "strip_echo"]


class ProgramAdapter(WithoutRecord):
    """The adapter of one program without reports."""

    kind = "program"
    reports = False
    styled = False
    interrupt_key = "C-c"
    clear_key: str | None = None
    echo_timeout_s = 0.3
    accept_timeout_s = 3.0
    starts_on_screen = False
    doubt_quiet_s = 2.5
    question_quiet_s = 2.5
    animates = False
    idle_cpu = 0.01

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:
        """Find the command on the agent's PATH."""
        command: list[str] = getattr(config, "command")  # noqa: B009 - the union's member is known by its kind
        self.use_rules(None, config.screens)
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

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:
        """Find a question that a rule of the user's own knows: its readiness is the watch's to find."""
        asked = self.question(screen, starting=True, work_dir=str(context.work_dir), ours=context.work_dir_is_ours)
        return [] if asked is None else [asked]

    def composer(self, screen: str, typed: Typed) -> Composer:  # noqa: ARG002
        """Say that an unknown program's input line cannot be read."""
        return "unknown"

    def watch(self, config: AgentConfig) -> Watch | None:
        """Return how this program's turns are found."""
        program: ProgramAgent = config  # type: ignore[assignment]
        end, ready = program.turn_end, program.ready
        prompt = re.compile(end.prompt) if end.prompt else None
        if ready is None:
            return Watch(prompt, end.marker, end.quiet_s, prompt)
        start = re.compile(ready.prompt) if ready.prompt else None
        return Watch(prompt, end.marker, end.quiet_s, start, ready.marker, ready.quiet_s)


def extract_reply(text: str, typed: str, watch: Watch, *, prefix: str | None = None, echo: bool = True) -> str:
    r"""Return what a program answered, out of what its screen showed since the input was typed.

    Parameters
    ----------
    text : str
        The screen's lines from the one on which the input was typed to that of the cursor, wrapped lines joined.
    typed : str
        The input; its echo is cut off.
    watch : Watch
        How the turn's end was found; the closing prompt, or what follows the marker, is cut off.
    prefix : str, optional
        What stood before the cursor when the input was typed (the prompt); guessed from the echo when omitted.
    echo : bool
        Whether the program shows what is typed.

    Returns
    -------
    str
        The answer as the screen shows it, line for line: tabs are spaces there, and the blanks at the ends of lines
        cannot be told from no text at all and are cut off.

    Examples
    --------
    >>> extract_reply(">>> 1+1\n2\n>>> ", "1+1", Watch(prompt=re.compile(r"^>>> $")))
    '2'
    >>> extract_reply("$ work DONE\nhalf\nDONE 7\n$ ", "work DONE", Watch(marker="DONE"))
    'half'
    """
    lines, prefix = strip_echo(text.split("\n"), typed, watch, prefix=prefix, echo=echo)
    if watch.marker is not None:
        joined = "\n".join(lines)
        cut = joined.find(watch.marker)
        lines = (joined[:cut] if cut >= 0 else joined).split("\n")
        if cut >= 0 and len(lines) > 1 and not lines[-1].strip():
            lines.pop()
    elif watch.prompt is not None:
        if (start := prompt_start(watch.prompt, lines[-1])) is not None:
            lines[-1] = lines[-1][:start]
            if not lines[-1]:
                lines.pop()
    elif prefix and prefix.strip() and lines[-1].rstrip() == prefix.rstrip():
        lines.pop()
    if watch.quiet_s is not None and lines and not lines[-1].strip():
        # What ends with a newline leaves the cursor on a line of its own.
        lines.pop()
    return "\n".join(line.rstrip() for line in lines)


def strip_echo(
    lines: list[str], typed: str, watch: Watch, *, prefix: str | None = None, echo: bool = True
) -> tuple[list[str], str]:
    """Take the echo of an input out of what a screen shows.

    Parameters
    ----------
    lines : list of str
        The screen's lines from the one on which the input was typed.
    typed : str
        The input. Each of its lines is shown once, in order, behind whatever prompt stands there; what the program
        writes may come between.
    watch, prefix, echo
        As for :func:`extract_reply`.

    Returns
    -------
    tuple of (list of str, str)
        The lines without the echo, never empty, and the prompt that stood before the first one.
    """
    if not echo:
        prefix = prefix or ""
        first = lines[0].removeprefix(prefix) if lines[0].startswith(prefix) else lines[0]
        return ([first, *lines[1:]] if first or not prefix else lines[1:]) or [""], prefix
    wanted = typed.split("\n")
    begin = next((index for index, line in enumerate(lines) if _echoes(line, wanted[0])), None)
    if begin is None:
        return lines or [""], prefix or ""
    if prefix is None:
        prefix = _before(lines[begin], wanted[0])
    seen = {prefix.rstrip(), ""}
    kept: list[str] = []
    position = begin + 1
    for line in wanted[1:]:
        found = _find_echo(lines, position, line, seen, watch)
        if found is None:
            continue
        seen.add(_before(lines[found], line).rstrip())
        kept += lines[position:found]
        position = found + 1
    return [*kept, *lines[position:]] or [""], prefix


def _find_echo(lines: list[str], position: int, typed: str, seen: set[str], watch: Watch) -> int | None:
    """Return the line that echoes one typed line: the next one, or the next that stands behind a prompt."""
    if position >= len(lines):
        return None

    def prompted(before: str) -> bool:
        return not any(sign.isalnum() for sign in before) or bool(watch.prompt and watch.prompt.search(before))

    if not typed.strip():
        # A blank line is echoed as the prompt alone.
        if lines[position].rstrip() in seen or prompted(lines[position]):
            return position
        prompts = seen - {""} or seen
        return next((at for at in range(position, len(lines) - 1) if lines[at].rstrip() in prompts), None)
    echoes = {at: _before(lines[at], typed) for at in range(position, len(lines)) if _echoes(lines[at], typed)}
    # Behind a prompt that is known, or in a row (a program that takes a paste as one), or behind what may be a prompt.
    for at, before in echoes.items():
        if before.rstrip() in seen - {""} or (before and watch.prompt is not None and watch.prompt.search(before)):
            return at
    if echoes.get(position) == "":
        return position
    for at, before in echoes.items():
        if before and prompted(before):
            return at
    if seen == {""}:
        # A program without prompts: the kernel's echo, or the program's own.
        return next((index for index in range(position, len(lines)) if lines[index].rstrip() == typed.rstrip()), None)
    return None


def _echoes(line: str, typed: str) -> bool:
    # A screen shows tabs as spaces, and wraps as it likes.
    return "".join(line.split()).endswith("".join(typed.split()))


def _before(line: str, typed: str) -> str:
    """Return what stands before the echo of a typed line."""
    bare = typed.rstrip()
    if line.rstrip().endswith(bare):
        return line.rstrip()[: len(line.rstrip()) - len(bare)] if bare else line
    left = len("".join(line.split())) - len("".join(typed.split()))
    for index, sign in enumerate(line):
        if left <= 0:
            return line[:index]
        left -= not sign.isspace()
    return line


def prompt_start(pattern: re.Pattern[str], line: str, *, anywhere: bool = True) -> int | None:
    """Return where in a line the prompt begins that ends it, None when none does.

    Parameters
    ----------
    pattern : re.Pattern
        The prompt, as configured.
    line : str
        The cursor's line.
    anywhere : bool
        Also behind an output that ended without a newline, where the pattern asks for the beginning of a line.

    Examples
    --------
    >>> prompt_start(re.compile(r"^>>> $"), "no newline>>> ")
    10
    """
    for text in (line, line.rstrip()):
        if (found := pattern.search(text)) is not None:
            return found.start()
    if anywhere and pattern.pattern.startswith("^"):
        loose = re.compile(pattern.pattern[1:], pattern.flags)
        for text in (line, line.rstrip()):
            matches = [one for one in loose.finditer(text) if one.end() == len(text) and one.group().strip()]
            if matches:
                return matches[0].start()
    return None
