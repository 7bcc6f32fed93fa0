"""Forwarded replies, and conversations that run by themselves, among real chat programs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from lab_helpers import accepted, rows, write

from orchestrator_lab import Cluster
from orchestrator_lab.errors import ConfigError, MessageRefused, OrchestratorLabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: What the agents say: each its name and a number that grows with every hop, unless the text asks for something else.
SCRIPT = [
    {"when": {"contains": "stay silent"}, "reply": ""},
    {"when": {"contains": "break down"}, "error": {"status": 400, "message": "the model broke down"}},
    {"when": {"contains": "take your time"}, "delay_s": 20, "reply": "late"},
    {"when": {"contains": "with care"}, "delay_s": 3, "reply": "{agent} took care"},
    {"when": {"contains": "slowly"}, "delay_s": 0.6, "reply": "{agent} went slowly"},
    {"reply": "<{agent}: {text}>"},
]
NAMES = ("ann", "bea", "cid", "dan", "eve")


@pytest.fixture(scope="module")
def free(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    with Cluster.start(script_config(*NAMES, script=SCRIPT, name="free")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def edges(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    """ann -> bea and ann -> cid are answered by the lab, in both directions between bea and cid; ann -> dan is not."""
    topology = [
        {"from": "ann", "to": "bea, cid", "replies": "forward"},
        {"from": "bea", "to": "cid", "both": True, "replies": "forward"},
        "ann -> dan",
    ]
    with Cluster.start(script_config(*NAMES[:4], script=SCRIPT, name="edges", topology=topology)) as cluster:
        yield cluster


# forwarded replies --------------------------------------------------------------------------------


def answers(cluster: Cluster, message: dict[str, Any]) -> list[dict[str, Any]]:
    cluster.wait(timeout=40)
    return rows(cluster, in_reply_to=message["message_id"])


def test_an_answer_is_typed_to_the_asker_once(edges: Cluster) -> None:
    asked = write(edges, "ann", "bea", "what is it?")
    (answer,) = answers(edges, asked)
    assert (answer["sender"], answer["recipient"], answer["kind"], answer["hop"]) == ("bea", "ann", "reply", 1)
    assert answer["content"] == "<bea: what is it?>"
    assert (answer["status"], answer["source"]) == ("answered", "agent")
    assert answer["conversation_id"] == asked["conversation_id"]
    # ann's turn over it has an answer of its own; that one goes nowhere.
    assert answers(edges, answer) == []


def test_in_both_directions(edges: Cluster) -> None:
    # One after the other: what an agent writes during a turn belongs to the conversation of that turn.
    there = write(edges, "bea", "cid", "there")
    assert [one["content"] for one in answers(edges, there)] == ["<cid: there>"]
    back = write(edges, "cid", "bea", "back")
    assert [one["content"] for one in answers(edges, back)] == ["<bea: back>"]
    chain = [row for row in rows(edges) if row["conversation_id"] == there["conversation_id"]]
    assert [(row["sender"], row["recipient"], row["hop"]) for row in chain] == [("bea", "cid", 0), ("cid", "bea", 1)]


def test_only_where_the_edge_says_so(edges: Cluster) -> None:
    assert answers(edges, write(edges, "ann", "dan", "no answer here")) == []
    edges["bea"].ask("from a person", timeout=30)
    assert rows(edges, sender="bea", content="<bea: from a person>") == []


def test_each_answer_to_a_broadcast(edges: Cluster) -> None:
    sent = write(edges, "ann", "all", "one for all")
    edges.wait(timeout=40)
    found = [row for row in rows(edges) if row["conversation_id"] == sent["conversation_id"]]
    assert sorted((row["sender"], row["recipient"], row["kind"]) for row in found) == [
        ("ann", "bea", "broadcast"),
        ("ann", "cid", "broadcast"),
        ("ann", "dan", "broadcast"),
        ("bea", "ann", "reply"),
        ("cid", "ann", "reply"),
    ]


def test_who_answers_by_itself_is_not_repeated(edges: Cluster) -> None:
    asked = write(edges, "ann", "bea", "with care")
    accepted(edges, asked["message_id"])
    mine = write(edges, "bea", "ann", "by my own hand", asked["message_id"])
    found = answers(edges, asked)
    assert [one["message_id"] for one in found] == [mine["message_id"]]


@pytest.mark.parametrize(
    ("text", "why"),
    [("stay silent", "its turn ended without a text"), ("break down", "the model broke down")],
)
def test_the_asker_is_told_that_there_will_be_no_answer(edges: Cluster, text: str, why: str) -> None:
    asked = write(edges, "ann", "bea", text)
    (told,) = answers(edges, asked)
    assert told["content"].startswith("(bea did not answer: ")
    assert why in told["content"]
    assert (told["sender"], told["recipient"], told["kind"], told["source"]) == ("bea", "ann", "reply", "program")
    assert answers(edges, told) == []


def test_an_interrupted_turn_is_told_too(edges: Cluster) -> None:
    asked = write(edges, "ann", "cid", "take your time")
    accepted(edges, asked["message_id"])
    edges["cid"].interrupt()
    (told,) = answers(edges, asked)
    assert told["content"].startswith("(cid did not answer: ")
    assert "interrupted" in told["content"]


# conversations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "rounds"), [(2, 3), (3, 2), (5, 1)])
def test_everybody_speaks_in_turn(free: Cluster, count: int, rounds: int) -> None:
    names = list(NAMES[:count])
    conversation = free.converse(names, "begin", rounds=rounds).wait(60)
    assert conversation.ended == "completed"
    assert conversation.ok
    found = conversation.messages
    order = (names * rounds) + names[:1]
    assert list(found["sender"]) == ["user", *order[: count * rounds - 1]]
    assert list(found["recipient"]) == order[: count * rounds]
    assert list(found["hop"]) == list(range(count * rounds))
    assert list(found["kind"]) == ["direct", *["reply"] * (count * rounds - 1)]
    assert set(found["status"]) == {"answered"}
    assert list(found["in_reply_to"].iloc[1:]) == list(found["message_id"].iloc[:-1])
    said = "begin"
    for name, content in zip(order, found["content"], strict=False):
        assert content == said
        said = f"<{name}: {said}>"


def test_what_is_said_besides_does_not_disturb(free: Cluster) -> None:
    """A person and an agent write in between; the conversation counts and passes on its own steps alone."""
    conversation = free.converse(["ann", "bea"], "slowly", rounds=2)
    besides = free["ann"].send("from a person")
    aside = write(free, "bea", "cid", "between us")
    person = besides.result(40)
    conversation.wait(60)
    assert conversation.ok
    assert person == "<ann: from a person>"
    steps = conversation.messages
    spoken = [row for row in steps.to_dict("records") if row["message_id"] != aside["message_id"]]
    assert [row["recipient"] for row in spoken] == ["ann", "bea", "ann", "bea"]
    assert rows(free, in_reply_to=aside["message_id"]) == []


def test_two_conversations_at_once_over_the_same_agents(free: Cluster) -> None:
    one = free.converse(["ann", "bea"], "one", rounds=3)
    two = free.converse(["bea", "ann"], "two", rounds=3)
    assert one.wait(90).ok
    assert two.wait(90).ok
    for conversation, names in ((one, ["ann", "bea"]), (two, ["bea", "ann"])):
        assert list(conversation.messages["recipient"]) == names * 3
        assert set(conversation.messages["conversation_id"]) == {conversation.conversation_id}


async def test_conversations_are_awaitable(free: Cluster) -> None:
    conversation = await asyncio.to_thread(free.converse, ["ann", "bea"], "await", rounds=1)
    assert (await asyncio.wait_for(conversation, 40)).ok


@pytest.mark.parametrize(
    ("text", "reason"), [("stay silent", "ann gave no answer"), ("break down", "ann: .*the model broke down")]
)
def test_it_ends_where_there_is_nothing_to_pass_on(free: Cluster, text: str, reason: str) -> None:
    conversation = free.converse(["ann", "bea"], text, rounds=2).wait(40)
    assert not conversation.ok
    assert conversation.ended is not None
    assert re.search(reason, conversation.ended)
    assert len(conversation.messages) == 1
    assert repr(conversation) == f"Conversation(ann → bea, rounds=2, {conversation.ended})"


@pytest.mark.parametrize(
    ("agents", "rounds", "why"),
    [
        (["ann"], 1, "needs two agents or more"),
        (["ann", "bea", "ann"], 1, "names each agent once"),
        (["ann", "bea"], 0, "one round or more"),
        (["ann", "nobody"], 1, "no agent 'nobody'"),
    ],
)
def test_wrong_conversations(free: Cluster, agents: list[str], rounds: int, why: str) -> None:
    with pytest.raises(OrchestratorLabError, match=why):
        free.converse(agents, "begin", rounds=rounds)
    with pytest.raises((ConfigError, MessageRefused), match="empty message"):
        free.converse(["ann", "bea"], "  ")


def test_the_topology_is_asked_before_anything_is_said(edges: Cluster) -> None:
    before = len(rows(edges))
    with pytest.raises(MessageRefused, match="does not let bea write to ann: add the edge 'bea -> ann'"):
        edges.converse(["ann", "bea"], "begin", rounds=2)
    assert len(rows(edges)) == before
    # In one round nobody writes back to the first.
    assert edges.converse(["ann", "bea"], "begin").wait(40).ok
    assert edges.converse(["bea", "cid"], "begin").wait(40).ok


def test_an_agent_that_dies(free: Cluster) -> None:
    """First in its turn, then before its turn; both end the conversation, and the others go on."""
    conversation = free.converse(["ann", "dan"], "take your time", rounds=2)
    accepted(free, conversation.messages.iloc[0]["message_id"])
    os.kill(int(free["ann"].facts["pid"]), signal.SIGKILL)
    conversation.wait(40)
    assert conversation.ended == "ann: ann ended during the turn"
    free["ann"].restart()

    free["dan"].stop()
    conversation = free.converse(["ann", "dan"], "hello", rounds=2).wait(40)
    assert conversation.ended == "dan is exited"
    free["dan"].restart()

    # dan is busy with somebody else when its step comes, and dies before it is written to.
    other = free["dan"].send("take your time").accepted(20)
    conversation = free.converse(["ann", "dan"], "hello", rounds=2)
    while len(conversation.messages) < 2:
        time.sleep(0.02)
    os.kill(int(free["dan"].facts["pid"]), signal.SIGKILL)
    conversation.wait(40)
    assert conversation.ended == "dan: dan ended before it was written to; nothing was typed"
    with pytest.raises(OrchestratorLabError, match="dan ended during the turn"):
        other.result(20)
    free["dan"].restart()
    assert free.converse(["ann", "dan"], "hello again").wait(40).ok


def test_a_conversation_needs_no_client(free: Cluster) -> None:
    """Its facts are there for whoever attaches later."""
    begun = free.converse(["ann", "bea", "cid"], "slowly", rounds=1)
    other = Cluster.attach("free")
    other.wait(timeout=60)
    found = {one["conversation_id"]: one for one in other.status()["conversations"]}
    assert found[begun.conversation_id]["ended"] == "completed"
    assert found[begun.conversation_id]["turns"] == 3
