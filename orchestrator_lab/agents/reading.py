"""What every adapter does with screen rules: choose them, find a question, find a state, name an answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator_lab.agents.base import DialogSeen
from orchestrator_lab.agents.menu import question, read_menu
from orchestrator_lab.agents.screens import NO_RULES, choose, load_file, matching

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator_lab.agents.base import Evidence, Usage
    from orchestrator_lab.agents.screens import Answers, Rule, ScreenRules

__all__ = ["ScreenReader", "WithoutRecord", "labels", "option_for"]

#: Characters of a screen that a dialog nobody knows has as its subject.
_SUBJECT = 2000


def labels(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return labels without what stands beside them."""
    return tuple(re.split(r" {2,}", option)[0] for option in options)


def option_for(wanted: str, options: tuple[str, ...], answers: Answers) -> str | None:
    """Return the label that an answer means.

    Parameters
    ----------
    wanted : str
        A label, its beginning, or ``allow`` or ``deny``.
    options : tuple of str
        The labels that are offered.
    answers : Answers
        The program's words for ``allow`` and ``deny``.

    Returns
    -------
    str or None
        None when no option, or more than one, fits.

    Examples
    --------
    >>> from orchestrator_lab.agents.screens import Answers
    >>> option_for("allow", ("Yes, and do not ask again", "Yes", "No, and say what to do"), Answers())
    'Yes'
    >>> option_for("no", ("Yes", "No, and say what to do"), Answers())
    'No, and say what to do'
    """
    asked = wanted.casefold().strip()
    exact = [option for option in options if option.casefold() == asked]
    if asked in {"allow", "deny"} and not exact:
        words = answers.allow if asked == "allow" else answers.deny
        return next((option for option in options if words.search(option)), None)
    found = exact or [option for option in options if asked and option.casefold().startswith(asked)]
    return found[0] if len(found) == 1 else None


class ScreenReader:
    """Base of the adapters: their screen rules, and what is read by them."""

    kind = ""
    screens: ScreenRules = NO_RULES
    #: What is to be said about the choice of the rules.
    screens_note: str | None = None

    def use_rules(self, version: str | None, own: Path | None = None) -> None:
        """Take the rules for a version of the program, those of a user's own file before them."""
        rules, self.screens_note = choose(self.kind, version)
        if own is not None:
            mine = load_file(own, self.kind)
            kept = mine.answers if "answers" in mine.model_fields_set else rules.answers
            rules = rules.model_copy(
                update={
                    "rules": [*mine.rules, *rules.rules],
                    "answers": kept,
                    "layout": {**rules.layout, **mine.layout},
                    "file": f"{mine.file}, {rules.file}".rstrip(", "),
                }
            )
            self.screens_note = None
        self.screens = rules

    def parts(self, screen: str) -> Mapping[str, str]:  # noqa: ARG002 - for those that know their input line
        """Return the regions ``input`` and ``below input``."""
        return {}

    def matches(self, screen: str, *, starting: bool = False, title: str = "") -> list[tuple[Rule, str]]:
        """Return the rules that fit a screen without escapes."""
        return matching(self.screens, screen, starting=starting, title=title, parts=self.parts(screen))

    def question(
        self, screen: str, *, starting: bool = False, work_dir: str = "", ours: bool = False
    ) -> DialogSeen | None:
        """Return the question that a screen without an input line asks, as far as a rule knows it.

        Parameters
        ----------
        screen : str
            A capture without escapes.
        starting : bool
            Whether the program starts.
        work_dir : str
            Its work folder.
        ours : bool
            Whether the lab itself made that folder.
        """
        for rule, line in self.matches(screen, starting=starting):
            if rule.dialog is None:
                continue
            menu = read_menu(screen)
            options = labels(menu.options) if menu is not None else ()
            subject = rule.subject or line
            answer = None
            if rule.own_folder is not None:
                subject = work_dir
                known = menu is not None and menu.find(rule.own_folder) is not None
                answer = rule.own_folder if ours and known else None
            return DialogSeen("screen", rule.dialog, subject, options, answer, rule=rule.name)
        return None

    def unknown(self, screen: str) -> DialogSeen:
        """Return a screen that no rule knows as a dialog of its own kind, with whatever options it shows."""
        menu = read_menu(screen)
        if menu is not None:
            lines = question(screen).splitlines()
            above = lines[: len(lines) - len(menu.options)] or lines
            return DialogSeen("screen", "unknown", "\n".join(above)[-_SUBJECT:], labels(menu.options))
        text = "\n".join(line.rstrip() for line in screen.splitlines() if line.strip())
        return DialogSeen("screen", "unknown", text[-_SUBJECT:])

    def state_rule(self, screen: str, *, title: str = "") -> Rule | None:
        """Return the rule that tells a state from a screen, None where none does."""
        return next((rule for rule, _ in self.matches(screen, title=title) if rule.state is not None), None)

    def permission_reply(self, decision: str, reason: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Return what a waiting hook is told; None when the program takes no answer from its hooks."""
        return None


class WithoutRecord(ScreenReader):
    """Base of the adapters of programs that keep no record of their own."""

    def restored(self, screen: str, prompt: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False: this program never gives a prompt back."""
        return False

    def transcript(self, path: Path, *, prompt: str, since: float) -> list[Evidence]:  # noqa: ARG002
        """Return nothing: it keeps no record."""
        return []

    def usage(self, path: Path, *, prompt_id: str | None, prompt: str | None) -> Usage | None:  # noqa: ARG002
        """Return None: it knows no tokens."""
        return None

    def resumable(self, path: Path) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False: nobody knows how."""
        return False

    def turn_over(self, path: Path, prompt_id: str | None) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return True: a turn whose end was reported takes no more text."""
        return True
