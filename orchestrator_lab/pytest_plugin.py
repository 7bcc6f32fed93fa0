"""For tests of experiments and notebooks: clusters that end with their test, replays, and what nbval sanitizes with.

pytest loads this by itself. Until a fixture is used it imports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.run import Run

__all__ = ["SANITIZER", "cluster", "replay_run"]

#: ``--nbval-sanitize-with`` takes this word for the file that comes with the package.
SANITIZER = "orchestrator-lab"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put the path of the file where nbval was told the word."""
    if getattr(config.option, "nbval_sanitize_with", None) == SANITIZER:
        from orchestrator_lab.notebook import SANITIZERS

        config.option.nbval_sanitize_with = str(SANITIZERS)


@pytest.fixture
def _cluster_home(tmp_path: Path) -> Iterator[Path]:
    """Give the clusters of one test a runtime folder, and their runs a folder; nothing may be left of the first."""
    from orchestrator_lab.apart import apart, environment

    runs = tmp_path / "runs"
    with apart() as home, environment({"ORCHESTRATOR_RUNS_DIR": str(runs), "ORCHESTRATOR_LAB_MODE": None}):
        yield runs
    if home.left:
        pytest.fail("this test left processes behind (ended now):\n  " + "\n  ".join(home.left), pytrace=False)


@pytest.fixture
def cluster(_cluster_home: Path) -> Callable[..., Cluster]:
    """Start clusters that nobody else sees: ``cluster(config, …)`` takes what ``Cluster.start`` takes.

    They run in a runtime folder of the test's own, are recorded in ``tmp_path / "runs"``, and are ended after the test,
    which fails when a process of theirs survives that.
    """
    from orchestrator_lab.cluster import Cluster

    return Cluster.start


@pytest.fixture
def replay_run(_cluster_home: Path, tmp_path: Path) -> Callable[..., Cluster]:
    """Replay recorded runs: ``replay_run("night.olab.zip")`` gives a cluster whose models answer as recorded.

    It takes a bundle, a run's folder or a ``Run``; ``strict=False`` goes on where something differs. Other keywords are
    those of ``Cluster.start``. A work folder that is not on this machine is made in ``tmp_path``.
    """
    import contextlib
    import os
    from pathlib import Path

    from orchestrator_lab.cluster import Cluster

    def start(run: str | os.PathLike[str] | Run, *, strict: bool = True, **options: Any) -> Cluster:  # noqa: ANN401 - what start takes
        named = run if isinstance(run, str | os.PathLike) else run.path
        place = Path(named).expanduser().absolute()
        mode = "replay_strict" if strict else "replay"
        if "config" in options:
            return Cluster.start(mode=mode, run=place, **options)
        # Without a configuration, what is missing is made in the current folder.
        with contextlib.chdir(tmp_path):
            return Cluster.start(mode=mode, run=place, **options)

    return start
