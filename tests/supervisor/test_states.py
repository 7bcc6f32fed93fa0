"""The published state, decided from the facts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.schema import TABLES
from orchestrator_lab.supervisor.states import Facts, decide, deciding

sources = st.sampled_from([None, "hook", "transcript", "screen"])
facts = st.builds(
    Facts,
    running=st.booleans(),
    ready=sources,
    dialog=sources,
    turn=sources,
    composing=st.booleans(),
    doubt=st.sampled_from([None, "holds text"]),
    failed=st.booleans(),
    shown=st.sampled_from([None, "offers to interrupt"]),
    hidden=st.sampled_from([None, "not in sight"]),
)


@pytest.mark.parametrize(
    ("known", "decided"),
    [
        (Facts(running=False), ("exited", "process")),
        (Facts(running=False, failed=True, turn="hook"), ("failed", "process")),
        (Facts(running=True), ("starting", "process")),
        (Facts(running=True, dialog="screen"), ("waiting", "screen")),
        (Facts(running=True, ready="hook"), ("idle", "hook")),
        (Facts(running=True, ready="hook", turn="hook"), ("busy", "hook")),
        (Facts(running=True, ready="hook", composing=True), ("busy", "terminal")),
        (Facts(running=True, ready="hook", doubt="holds text"), ("unknown", "screen")),
        (Facts(running=True, ready="hook", hidden="not in sight"), ("unknown", "screen")),
        (Facts(running=True, ready="hook", shown="offers to interrupt", hidden="x"), ("busy", "screen")),
        (Facts(running=True, ready="hook", turn="hook", doubt="holds text"), ("busy", "hook")),
        (Facts(running=True, ready="hook", turn="hook", dialog="hook"), ("waiting", "hook")),
    ],
)
def test_states(known: Facts, decided: tuple[str, str]) -> None:
    assert decide(known) == decided


@given(facts)
def test_idle_only_when_nothing_speaks_against_it(known: Facts) -> None:
    state, source = decide(known)
    column = next(column for column in TABLES["states"] if column.name == "state")
    assert state in column.categories
    assert source
    against = (known.dialog, known.turn, known.composing, known.doubt, known.shown, known.hidden)
    idle = known.running and known.ready and not any(against)
    assert (state == "idle") == bool(idle)
    assert known.votes()[0]["says"] == ("alive" if known.running else "gone")
    decided_by = deciding(known)[2]
    assert [vote for vote in known.votes() if vote["fact"] == decided_by and vote["source"] == source]
