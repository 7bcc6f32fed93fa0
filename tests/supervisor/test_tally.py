"""What limits count, and how far a chain has come: the fold alone, without processes."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_lab.config import Limits
from orchestrator_lab.journal.event import Event
from orchestrator_lab.supervisor.chains import Chains, path_of
from orchestrator_lab.supervisor.tally import Tally, Trip, sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("ada", "bob", "cyd")


class Story:
    """Events in order, told in few words."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, event: str, agent: str | None = None, **facts: Any) -> Event:
        known = {key: facts.pop(key, None) for key in ("message_id", "turn_id", "source")}
        seq = len(self.events) + 1
        self.events.append(Event(seq, event, f"at {seq}", float(seq), agent, **known, attributes=facts))
        return self.events[-1]

    def sends(self, message_id: str, sender: str, recipient: str, parent: str | None = None, **facts: Any) -> None:
        self.add(
            "message.queued",
            recipient,
            message_id=message_id,
            sender=sender,
            recipient=recipient,
            in_reply_to=parent,
            **facts,
        )

    def walk(self, *names: str, prefix: str = "m") -> list[str]:
        """A chain through these agents, each message answering the one before."""
        ids = []
        for number, (sender, recipient) in enumerate(itertools.pairwise(names)):
            self.sends(f"{prefix}{number}", sender, recipient, ids[-1] if ids else None)
            ids.append(f"{prefix}{number}")
        return ids

    def tally(self, limits: Limits, upto: int | None = None) -> Tally:
        tally = Tally(limits)
        for event in self.events[:upto]:
            tally.take(event)
        return tally


def trips(tally: Tally, limits: Limits, now_s: float = 1e6) -> list[Trip]:
    return tally.reached({None: limits}, now_s=now_s)


def chain(*names: str) -> Any:
    story, chains = Story(), Chains()
    story.walk(*names)
    return [chains.take(event) for event in story.events]


# chains -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "rounds"),
    [
        ("abab", [0, 1, 1]),
        ("abababa", [0, 1, 1, 2, 2, 3]),
        ("abcabca", [0, 0, 1, 1, 1, 2]),
        ("abcdabcda", [0, 0, 0, 1, 1, 1, 1, 2]),
        ("abacad", [0, 1, 1, 1, 1]),  # one asks the others in turn: nobody goes round
    ],
)
def test_rounds_of_any_length_are_found(names: str, rounds: list[int]) -> None:
    assert [link.rounds for link in chain(*names)] == rounds


def test_a_person_is_no_step_and_no_one_to_come_back_to() -> None:
    links = chain("user", "a", "b", "a")
    assert [(link.hops, link.rounds) for link in links] == [(0, 0), (1, 0), (2, 1)]
    assert path_of(links[-1]) == ["a", "b", "a"]


def test_the_turn_in_which_a_message_was_written_is_its_cause() -> None:
    story = Story()
    story.sends("m1", "user", "ada")
    story.add("turn.started", "ada", turn_id="t1", message_ids=["m1"])
    story.sends("m2", "ada", "bob")
    story.add("turn.ended", "ada", turn_id="t1")
    story.sends("m3", "ada", "bob")
    chains = Chains()
    links = [link for event in story.events if (link := chains.take(event))]
    assert [link.parent and link.parent.message_id for link in links] == [None, "m1", None]


def test_one_that_always_answers_the_first_message_does_not_get_out_of_its_chain() -> None:
    story, last = Story(), "m0"
    story.sends("m0", "user", "ada")
    for number in range(1, 7):
        me, other = ("ada", "bob") if number % 2 else ("bob", "ada")
        story.add("turn.started", me, turn_id=f"t{number}", message_ids=[last])
        last = f"m{number}"
        story.sends(last, me, other, "m0")
        story.add("turn.ended", me, turn_id=f"t{number}")
    chains = Chains()
    links = [link for event in story.events if (link := chains.take(event))]
    assert (links[-1].hops, links[-1].rounds) == (6, 3)


def test_a_message_that_joined_a_turn_counts_as_its_cause() -> None:
    story = Story()
    story.sends("m1", "user", "ada")
    story.walk("cyd", "bob", "ada", prefix="x")
    story.add("turn.started", "ada", turn_id="t1", message_ids=["m1"])
    story.add("message.accepted", "ada", message_id="x1", turn_id="t1")
    story.sends("m2", "ada", "bob")
    assert story.tally(Limits(hops=2)).reached({None: Limits(hops=2)}, now_s=0)[0].value == 3


def test_independent_chains_are_not_mixed_up() -> None:
    story = Story()
    for turn in range(6):
        story.walk("ada", "bob", "ada", prefix=f"c{turn}-")
    assert trips(story.tally(Limits(loops=2, hops=2)), Limits(loops=2, hops=2)) == []


def test_a_declared_conversation_is_bounded_by_itself() -> None:
    story, limits = Story(), Limits(loops=1, hops=2, messages=10)
    last = None
    for number in range(11):
        me, other = ("ada", "bob") if number % 2 else ("bob", "ada")
        story.sends(f"m{number}", me, other, last, step=number)
        last = f"m{number}"
    assert [trip.rule for trip in trips(story.tally(limits), limits)] == ["messages"]
    # What is said besides, in one of its turns, is a chain like any other.
    story.add("turn.started", "ada", turn_id="t", message_ids=[last])
    story.sends("x", "ada", "cyd")
    assert story.tally(limits).reached({None: limits}, now_s=0)[0].rule == "messages"


@given(st.lists(st.sampled_from(NAMES), min_size=2, max_size=40))
def test_rounds_are_those_of_a_plain_count(names: list[str]) -> None:
    names = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    links = chain(*names)
    most, edges, seen = 0, Counter[tuple[str, str]](), {names[0]}
    for link, edge in zip(links, itertools.pairwise(names), strict=True):
        if edge[1] in seen:
            edges[edge] += 1
            most = max(most, edges[edge])
        seen.add(edge[1])
        assert (link.rounds, path_of(link)[-1]) == (most, edge[1])


@settings(max_examples=20)
@given(st.lists(st.sampled_from(NAMES), min_size=200, max_size=200))
def test_no_walk_among_few_agents_goes_on_for_ever(names: list[str]) -> None:
    names = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    if len(names) > 50:
        assert chain(*names)[-1].rounds >= (len(names) - 3) // 6


# figures ----------------------------------------------------------------------------------------------


def test_what_may_be_reached_and_what_may_be_passed() -> None:
    story, limits = Story(), Limits(turns=2, messages=2, hops=2, loops=2)
    story.walk("ada", "bob", "cyd")
    story.add("turn.ended", "ada")
    assert trips(story.tally(limits), limits) == []
    story.add("turn.ended", "bob")
    assert [(trip.rule, trip.value) for trip in trips(story.tally(limits), limits)] == [("turns", 2)]
    story.sends("m9", "cyd", "ada", "m1")
    assert {trip.rule for trip in trips(story.tally(limits), limits)} == {"turns", "messages", "hops"}


def test_late_tokens_amend() -> None:
    story = Story()
    story.add("turn.usage", "ada", turn_id="t1", input_tokens=10, output_tokens=1)
    story.add("turn.usage", "ada", turn_id="t1", input_tokens=30, output_tokens=3)
    story.add("turn.usage", "ada", turn_id="t2", output_tokens=5)
    story.add("turn.usage", "ada", turn_id="t3", model="unknown figures")
    tally = story.tally(Limits())
    assert (tally.figure("ada", "tokens", 0), tally.figure(None, "tokens", 0)) == (38, 38)


def test_cost_is_unknown_and_reaches_nothing() -> None:
    limits = Limits(cost_usd=0.01)
    story = Story()
    story.add("turn.usage", "ada", turn_id="t1", input_tokens=10**9)
    assert story.tally(limits).figure(None, "cost_usd", 1e9) is None
    assert trips(story.tally(limits), limits, 1e9) == []


def test_costs_are_summed_as_they_are_known_and_late_ones_amend() -> None:
    limits, story = Limits(cost_usd=1), Story()
    for number in range(9):
        turn = {"turn_id": f"t{number}", "input_tokens": 1, "output_tokens": 1}
        story.add("turn.usage", "ada", **turn, cost_usd=5.0)
        story.add("turn.usage", "ada", **turn, cost_usd=0.1)
    story.add("turn.usage", "bob", turn_id="u1", input_tokens=10**9)
    story.add("turn.usage", "bob", turn_id="u2", input_tokens=1, cost_usd=3.0)
    story.add("turn.usage", "bob", turn_id="u2", input_tokens=2)  # the last account knows of no cost
    assert trips(story.tally(limits), limits) == []
    story.add("turn.usage", "bob", turn_id="u3", input_tokens=1, cost_usd=0.1)
    (trip,) = trips(story.tally(limits), limits)
    assert (trip.agent, trip.rule, trip.value) == (None, "cost_usd", 1.0)
    assert sentence(trip) == "1 USD were spent, limit cost_usd: 1"
    assert sentence(Trip("ada", "cost_usd", 0.00005, 0.0000512)) == (
        "0.0000512 USD of ada were spent, limit cost_usd: 0.00005"
    )
    assert story.tally(limits).figure("ada", "cost_usd", 0) == 0.9


def test_refused_messages_were_not_taken_in() -> None:
    story = Story()
    story.walk("ada", "bob", "cyd")
    story.add("message.refused", "cyd", message_id="m1")
    assert story.tally(Limits()).figure(None, "messages", 0) == 1


def test_time_counts_from_the_start_of_the_run_and_of_the_agent() -> None:
    story = Story()
    story.add("run.started")
    for _ in range(9):
        story.add("note")
    story.add("agent.started", "ada")
    story.add("agent.started", "ada", restart=1)
    tally, limits = story.tally(Limits(wall_s=100)), {None: Limits(wall_s=100), "ada": Limits(wall_s=50)}
    assert tally.next_wall_s(limits) == 61.0
    assert [(trip.agent, trip.value) for trip in tally.reached(limits, now_s=61.0)] == [("ada", 50.0)]


def test_an_agent_that_left_takes_its_figures_along() -> None:
    story = Story()
    story.add("turn.ended", "ada")
    story.add("guard.tripped", "ada", guard_id="g", rule="turns", limit=1, value=1)
    story.add("agent.removed", "ada")
    tally = story.tally(Limits(turns=5))
    assert (tally.figure("ada", "turns", 0), tally.figure(None, "turns", 0), tally.guards) == (0, 1, {})


# lifting ----------------------------------------------------------------------------------------------


class Judge:
    """Trips and lifts in a story, as a supervisor would."""

    def __init__(self, story: Story, limits: Limits) -> None:
        self.story, self.limits, self.guards = story, limits, 0

    def settle(self) -> list[str]:
        found = trips(self.story.tally(self.limits), self.limits, now_s=0)
        for trip in found:
            self.guards += 1
            self.story.add(
                "guard.tripped",
                trip.agent,
                guard_id=f"g{self.guards}",
                rule=trip.rule,
                limit=trip.limit,
                value=trip.value,
            )
        return [trip.rule for trip in found]

    def lift(self, **facts: Any) -> None:
        self.story.add("guard.lifted", guard_id=f"g{self.guards}", **facts)


def test_after_lifting_as_much_again_is_allowed() -> None:
    story = Story()
    judge = Judge(story, Limits(turns=3))
    tripped = []
    for turn in range(1, 11):
        story.add("turn.ended", "ada")
        if judge.settle():
            tripped.append(turn)
            assert judge.settle() == []
            judge.lift(rule="turns", allowance=3)
    assert tripped == [3, 6, 9]


def test_a_new_limit_is_the_limit_from_then_on() -> None:
    story = Story()
    judge = Judge(story, Limits(messages=2))
    tripped = []
    for number in range(12):
        story.sends(f"m{number}", "user", "ada")
        if judge.settle():
            tripped.append(number + 1)
            judge.lift(rule="messages", limit=7 if len(tripped) == 1 else 100)
    assert tripped == [3, 8]


def test_a_lifted_chain_goes_on_and_others_start_from_the_limit() -> None:
    story = Story()
    judge = Judge(story, Limits(loops=2))
    story.walk("ada", "bob", "ada", "bob", "ada", prefix="a")
    assert judge.settle() == ["loops"]
    story.sends("a4", "ada", "bob", "a3")  # while it is held
    judge.lift(rule="loops", allowance=2)
    assert judge.settle() == []
    story.sends("a5", "bob", "ada", "a4")
    story.sends("a6", "ada", "bob", "a5")
    assert judge.settle() == []
    story.sends("a7", "bob", "ada", "a6")
    assert judge.settle() == ["loops"]
    judge.lift(rule="loops", limit=9)
    story.walk("cyd", "bob", "cyd", "bob", "cyd", prefix="c")
    assert judge.settle() == []


# as one fold ------------------------------------------------------------------------------------------

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from((*NAMES, "user")), st.sampled_from(NAMES), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 30)),
        st.tuples(st.just("end"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 30)),
        st.tuples(st.just("usage"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 30)),
        st.tuples(st.just("lift"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 4)),
    ),
    max_size=40,
)


def live(steps: Sequence[tuple[str, str, str, int]], limits: Limits) -> Story:
    """What a supervisor that never dies writes."""
    story, judge, sent = Story(), None, []
    judge = Judge(story, limits)
    for number, (what, one, other, figure) in enumerate(steps):
        if what == "send":
            story.sends(f"m{number}", one, other, sent[figure % len(sent)] if sent and figure % 3 else None)
            sent.append(f"m{number}")
        elif what == "turn":
            story.add("turn.started", one, turn_id=f"t{figure}", message_ids=sent[-1:])
        elif what == "end":
            story.add("turn.ended", one, turn_id=f"t{figure}")
        elif what == "usage":
            story.add("turn.usage", one, turn_id=f"t{figure}", input_tokens=figure, output_tokens=1)
        elif judge.guards:
            judge.lift(rule=story.events[-1].attributes.get("rule"), allowance=figure)
        judge.settle()
    return story


@settings(max_examples=30)
@given(_steps, st.data())
def test_a_new_supervisor_comes_to_the_same_figures_wherever_the_last_one_died(steps: Any, data: Any) -> None:
    limits = Limits(turns=3, messages=8, tokens=40, hops=4, loops=1)
    story = live(steps, limits)
    cut = data.draw(st.integers(0, len(story.events)))
    # The journal's own form, as a successor reads it.
    read = [Event.from_json(event.to_json()) for event in story.events]
    successor = Tally(limits)
    for event in read[:cut]:
        successor.take(event)
    due = [(trip.agent, trip.rule, trip.value) for trip in trips(successor, limits, now_s=0)]
    following = [event for event in story.events[cut : cut + len(due)] if event.event == "guard.tripped"]
    assert [(one.agent, one.attributes["rule"], one.attributes["value"]) for one in following] == due
    for event in read[cut:]:
        successor.take(event)
    whole = story.tally(limits)
    assert successor.guards == whole.guards
    for agent in (None, *NAMES):
        for rule in ("turns", "messages", "tokens"):
            assert successor.figure(agent, rule, 0) == whole.figure(agent, rule, 0)
            assert successor.bound(agent, rule, limits) == whole.bound(agent, rule, limits)


def test_sentences() -> None:
    links = chain(*("boss", "manager") * 3, "boss")
    assert sentence(Trip(None, "loops", 3, 3, links[-1])) == (
        "boss -> manager -> boss -> manager -> boss -> manager -> ...: 6 messages in 3 rounds, limit loops: 3"
    )
    assert sentence(Trip("ada", "tokens", 1e6, 1234567)) == "1234567 tokens of ada were used, limit tokens: 1000000"
    assert sentence(Trip(None, "messages", 2, 3)) == "3 messages were taken in, limit messages: 2"
    assert sentence(Trip(None, "wall_s", 1.5, 1.6)) == "2 s have passed, limit wall_s: 1.5"
    assert sentence(Trip(None, "hops", 1, 2, links[1])) == (
        "boss -> manager -> boss: a chain of 2 messages, limit hops: 1"
    )
