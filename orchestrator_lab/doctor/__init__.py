"""What this machine needs to run clusters, and what dead clusters left on it.

Each check is a function that looks and returns findings; nothing is changed but by :func:`repair`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from orchestrator_lab.doctor._clusters import check_clusters, check_leftovers, check_processes, check_runs
from orchestrator_lab.doctor._findings import Finding, Leftover
from orchestrator_lab.doctor._machine import (
    check_agents,
    check_claude_login,
    check_claude_settings,
    check_disk,
    check_local_model,
    check_locale,
    check_loopback,
    check_python,
    check_runtime_dir,
    check_screen_rules,
    check_terminfo,
    check_tmux,
)
from orchestrator_lab.doctor._repair import repair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = [
    "Finding",
    "Leftover",
    "check_agents",
    "check_claude_login",
    "check_claude_settings",
    "check_clusters",
    "check_disk",
    "check_leftovers",
    "check_local_model",
    "check_locale",
    "check_loopback",
    "check_processes",
    "check_runs",
    "check_runtime_dir",
    "check_screen_rules",
    "check_terminfo",
    "check_tmux",
    "examine",
    "repair",
]


def examine(*, runs_dir: Path, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Run every check.

    Parameters
    ----------
    runs_dir : pathlib.Path
        Where runs are recorded.
    environ : mapping, optional
        The environment that clusters would start with; this process's when omitted.

    Returns
    -------
    list of Finding
        In the order of the checks.
    """
    env = dict(os.environ if environ is None else environ)
    checks: list[Callable[[], list[Finding]]] = [
        check_python,
        check_tmux,
        lambda: check_locale(env),
        lambda: check_terminfo(env),
        check_runtime_dir,
        lambda: check_agents(env),
        lambda: check_claude_login(env),
        lambda: check_claude_settings(env),
        lambda: check_screen_rules(env),
        check_local_model,
        lambda: check_disk(runs_dir),
        lambda: check_loopback(env),
        check_clusters,
        check_leftovers,
        check_processes,
        lambda: check_runs(runs_dir),
    ]
    with ThreadPoolExecutor(4) as pool:
        return [finding for found in pool.map(_guarded, checks) for finding in found]


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Run a check; one that fails itself must not hide the others."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        name = getattr(check, "__name__", "check").removeprefix("check_")
        return [Finding(name, "warn", f"could not be checked: {type(error).__name__}: {error}")]
