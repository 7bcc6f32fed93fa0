"""What is done for a run when it has ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.journal import JournalWriter
from orchestrator_lab.sealing import open_seal
from orchestrator_lab.supervisor import ending

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Four of them make a journal that is long: it holds each as a message, as a reply and as its turn's.
TEXT = "a line of a long report\n" * 30_000


@pytest.mark.parametrize("wanted", [True, False])
def test_a_long_run_is_sealed_when_it_ends(
    script_config: Callable[..., dict[str, Any]], runtime: Path, *, wanted: bool
) -> None:
    del runtime
    with Cluster.start(script_config("ada", lifetime="owner", seal=wanted)) as cluster:
        for _ in range(4):
            cluster["ada"].ask(TEXT, timeout=60)
        path = cluster.run.path
    deadline = time.monotonic() + 60
    while wanted and (seal := open_seal(path)) is None:
        assert time.monotonic() < deadline, (path / "logs" / "seal.log").read_text()
        time.sleep(0.05)  # a process that nobody waits for
    if wanted:
        assert seal is not None
        assert seal.rows["messages"] == 4
        assert open_run(path).messages["status"].tolist() == ["answered"] * 4
        assert (path / "logs" / "seal.log").stat().st_mode & 0o777 == 0o600
    else:
        assert not (path / "logs" / "seal.log").exists()


def test_a_short_run_is_left_as_it_is_and_a_run_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path / "journal.jsonl", run_id="run_x")
    journal.append("run.ended", status="completed")
    journal.close()
    assert ending.seal_when_long(journal) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "LONG", 1)
        (tmp_path / "journal.jsonl").unlink()
        process = ending.seal_when_long(journal)
        assert process is not None
        assert process.wait(60) == 2  # a user's mistake, as it were: there is no such run
        said = (tmp_path / "logs" / "seal.log").read_text()
        assert "Traceback" not in said

        assert "holds 0 runs" in said
