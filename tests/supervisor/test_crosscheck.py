"""The program's record against what the gateway saw: the comparing alone, and in clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from care_helpers import until
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab import Cluster
from orchestrator_lab.agents.base import Usage
from orchestrator_lab.supervisor.crosscheck import Account, CrossCheck, account_of, differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIGURE = st.none() | st.integers(0, 10**6)
ACCOUNT = st.builds(Account, FIGURE, st.none() | st.frozensets(st.sampled_from("abc"), min_size=1), *[FIGURE] * 4)


@given(ACCOUNT, ACCOUNT)
def test_only_what_both_know_and_tell_otherwise(one: Account, other: Account) -> None:
    found = differences(one, other)
    assert differences(one, one) == {}
    assert {name: (both["gateway"], both["transcript"]) for name, both in differences(other, one).items()} == {
        name: (both["transcript"], both["gateway"]) for name, both in found.items()
    }
    for name in Account.__slots__:
        first, second = getattr(one, name), getattr(other, name)
        assert (name in found) == (first is not None and second is not None and first != second)


@given(st.lists(ACCOUNT, max_size=5))
def test_sums_are_known_only_where_each_is(accounts: list[Account]) -> None:
    total = account_of(accounts)
    for name in ("requests", "input_tokens", "output_tokens"):
        figures = [getattr(one, name) for one in accounts]
        assert getattr(total, name) == (None if None in figures else sum(figures))


class Rig:
    def __init__(self) -> None:
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.check = CrossCheck(lambda _, turn, found: self.found.append((turn, found)))
        self.number = 0

    def asks(self, *, purpose: str = "main", path: str = "/v1/messages") -> str:
        self.number += 1
        request = f"r{self.number}"
        self.check.saw("gateway.request", {"agent": "a", "request_id": request, "path": path, "purpose": purpose})
        return request

    def answers(self, request: str, output: int, *, status: int = 200, model: str = "m", **more: Any) -> None:
        facts = {"agent": "a", "request_id": request, "status": status, "model": model, "reply_id": f"id-{request}"}
        self.check.saw("gateway.response", {**facts, "input_tokens": 10, "output_tokens": output, **more})

    def over(self, turn: str, output: int, *ids: str, given: int = 10, completed: bool = True, **more: Any) -> None:
        usage = Usage(given, output, model="m", message_ids=frozenset(ids), **more)
        self.check.turn_over("a", turn, usage, completed=completed)


def test_answers_are_known_by_their_ids() -> None:
    rig = Rig()
    rig.answers(rig.asks(purpose="title"), 99)
    rig.answers(rig.asks(), 1, cache_read_input_tokens=5)
    rig.over("t1", 1, "id-r2", given=15)
    assert rig.found == []
    rig.answers(rig.asks(), 2)
    rig.over("t2", 3, "id-r3", "id-lost")
    assert rig.found == [
        (
            "t2",
            {"requests": {"transcript": 2, "gateway": 1}, "output_tokens": {"transcript": 3, "gateway": 2}},
        )
    ]


def test_without_ids_what_passed_since_the_last_turn_counts() -> None:
    rig = Rig()
    rig.answers(rig.asks(path="/v1/responses"), 1)
    rig.answers(rig.asks(path="/v1/responses"), 0, status=500)
    rig.over("t1", 1)
    rig.over("cut off", 5, completed=False)
    rig.answers(rig.asks(path="/v1/responses"), 4, model="other")
    rig.over("t2", 4)
    assert rig.found == [("t2", {"models": {"transcript": ["m"], "gateway": ["other"]}})]


def test_an_answer_that_is_still_being_journalled_is_waited_for() -> None:
    rig = Rig()
    request = rig.asks()
    rig.over("t1", 7, f"id-{request}")
    assert rig.found == []
    rig.answers(request, 7)
    assert rig.found == []
    request = rig.asks()
    rig.over("t2", 7, f"id-{request}")
    rig.answers(request, 8)
    assert [turn for turn, _ in rig.found] == ["t2"]


def test_agents_without_a_gateway_are_not_compared() -> None:
    rig = Rig()
    rig.over("t1", 1, "id")
    assert rig.found == []


def test_a_new_supervisor_goes_on_where_its_predecessor_was() -> None:
    rig = Rig()
    rig.answers(rig.asks(path="/v1/responses"), 1)
    rig.check.passed("a")
    rig.answers(rig.asks(path="/v1/responses"), 2)
    rig.check.restore(0.0)
    rig.answers(rig.asks(path="/v1/responses"), 3)
    rig.over("t2", 5, given=20)
    assert rig.found == []
    rig.answers(rig.asks(path="/v1/responses"), 3)
    rig.check.restore(0.0)
    rig.over("t3", 4)
    assert rig.found == [("t3", {"output_tokens": {"transcript": 4, "gateway": 3}})]


def test_an_answer_that_a_supervisor_was_killed_over_is_not_held_against_a_record() -> None:
    rig = Rig()
    first = rig.asks()
    rig.check.restore(0.0)
    rig.answers(rig.asks(), 3)
    # Whether the first answer came to the program nobody knows; where all that it counts was seen, it did not.
    rig.over("t1", 7, f"id-{first}", "id-r2", given=20)
    assert rig.found == []
    second = rig.asks()
    rig.check.restore(0.0)
    rig.answers(rig.asks(), 3)
    rig.over("t2", 4, "id-r4")
    assert [turn for turn, _ in rig.found] == ["t2"]
    rig.answers(rig.asks(), 3)
    rig.over("t3", 4, "id-r5", f"id-{second}")
    assert [turn for turn, _ in rig.found] == ["t2", "t3"]
    rig.asks(path="/v1/responses")
    rig.check.restore(0.0)
    rig.answers(rig.asks(path="/v1/responses"), 3)
    rig.over("t4", 9)
    assert [turn for turn, _ in rig.found] == ["t2", "t3"]


def test_the_chat_program_and_the_gateway_agree(
    runtime: Path,  # noqa: ARG001 - the place of its sockets
    script_config: Callable[..., dict[str, Any]],
) -> None:
    with Cluster.start(script_config("ann", agents={"oai": {"api": "openai"}}, name="agrees")) as cluster:
        for name in ("ann", "oai"):
            assert cluster[name].ask("one", timeout=30).reply
            assert cluster[name].ask("two", timeout=30).reply
        # The program may tell of an answer before its gateway has journalled it.
        until(lambda: [event.event for event in cluster.events()].count("gateway.response") >= 4)
    events = [event.event for event in cluster.run.events()]
    assert events.count("gateway.response") == 4
    assert "record.disagrees" not in events
