"""Recorded agents: a program of the lab's that plays what another one did, whichever kind that was."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping  # noqa: TC003 - the protocol's signature
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents import adapter_for
from orchestrator_lab.agents.base import (
    Accepted,
    Composer,
    DialogClosed,
    DialogSeen,
    Evidence,
    FirstOutput,
    Launch,
    LaunchContext,
    Program,
    Ready,
    Recorded,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Typed,
    Watch,
)
from orchestrator_lab.agents.reading import WithoutRecord
from orchestrator_lab.runtime import write_private

if TYPE_CHECKING:
    from orchestrator_lab.config import AgentConfig

__all__ = ["ReplayAdapter"]

#: Others wait for their turn; nobody is late here.
_FOR_EVER_S = 1e6


class ReplayAdapter(WithoutRecord):
    """The adapter of one recorded agent.

    Parameters
    ----------
    kind : str
        What kind of agent was recorded.
    program : Program
        The program that was recorded: name, version and provider; its command is not used.
    reels : list of list of dict
        The lines of one reel for each start of the program.
    """

    kind = "replay"
    reports = True
    styled = False
    interrupt_key = "C-c"
    clear_key: str | None = None
    echo_timeout_s = 0.0
    accept_timeout_s = _FOR_EVER_S
    starts_on_screen = False
    doubt_quiet_s = _FOR_EVER_S
    question_quiet_s = _FOR_EVER_S
    animates = False
    idle_cpu = 1.0

    def __init__(self, kind: str, program: Program, reels: list[list[dict[str, Any]]]) -> None:
        self._program = program
        self._reels = reels
        self._started = 0
        #: The recorded program's words for yes and no.
        self.screens = adapter_for(kind).screens

    def locate(self, config: AgentConfig, environ: Mapping[str, str]) -> Program:  # noqa: ARG002 - the protocol's
        """Return this Python, playing, under the recorded program's name."""
        argv = (sys.executable, "-m", "orchestrator_lab.programs.replay")
        return Program(argv, self._program.name, self._program.version, self._program.provider)

    def prepare(self, config: AgentConfig, program: Program, context: LaunchContext) -> Launch:
        """Write the reel of the program's next life."""
        lines = self._reels[self._started] if self._started < len(self._reels) else [{}]
        self._started += 1
        reel = context.folder / "reel.jsonl"
        write_private(reel, "".join(json.dumps(line) + "\n" for line in lines))
        return Launch((*program.argv, str(reel)), dict(context.environ), model=config.model)

    def typed(self, text: str) -> Typed:
        """Return the body as it is."""
        return Typed(text, text)

    def hook(self, payload: Mapping[str, Any]) -> list[Evidence]:
        """Read one report."""
        if payload.get("hook_event_name") != "Recorded":
            return []
        facts = {key: value for key, value in payload.items() if key not in {"hook_event_name", "do", "at", "place"}}
        what, source = str(facts.pop("what", "")), str(facts.pop("source", "hook"))
        options = tuple(facts.get("options") or ())
        match what:
            case "ready":
                return [Ready(source, facts.get("session_id"))]
            case "accepted":
                return [
                    Accepted(
                        source,
                        str(facts.get("prompt")),
                        facts.get("prompt_id"),
                        facts.get("session_id"),
                        joined=bool(facts.get("joined")),
                    )
                ]
            case "first_output":
                return [FirstOutput(source)]
            case "tool_started":
                return [ToolStarted(source, str(facts.get("tool_call_id")), str(facts.get("name")), facts.get("input"))]
            case "tool_ended":
                return [
                    ToolEnded(
                        source,
                        str(facts.get("tool_call_id")),
                        facts.get("output"),
                        facts.get("status") or "ok",
                        facts.get("error_message"),
                    )
                ]
            case "turn_ended":
                return [
                    TurnEnded(
                        source,
                        facts.get("reply"),
                        str(facts.get("end_reason")),
                        facts.get("prompt_id"),
                        facts.get("error_message"),
                    )
                ]
            case "dialog":
                return [
                    DialogSeen(
                        source,
                        str(facts.get("kind")),
                        str(facts.get("subject") or ""),
                        options,
                        facts.get("answer"),
                        tool=facts.get("tool"),
                        tool_input=facts.get("tool_input"),
                        by_hook=bool(facts.get("by_hook")),
                        rule=facts.get("rule"),
                    )
                ]
            case "dialog_closed":
                return [DialogClosed(source, facts.get("subject"), facts.get("decision"))]
        return [Recorded(source, what, facts)]

    def startup(self, screen: str, *, context: LaunchContext) -> list[Evidence]:  # noqa: ARG002
        """Return nothing: what the program asked is reported."""
        return []

    def composer(self, screen: str, typed: Typed) -> Composer:  # noqa: ARG002
        """Say that the input line is not read: the program waits for what was typed."""
        return "unknown"

    def watch(self, config: AgentConfig) -> Watch | None:  # noqa: ARG002 - the protocol's signature
        """Return None: it reports."""
        return None

    def permission_reply(self, decision: str, reason: str) -> dict[str, Any] | None:
        """Return what the recorded program was told."""
        return {"decision": decision, "reason": reason}
