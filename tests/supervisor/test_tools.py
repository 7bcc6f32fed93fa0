"""The lab's tools, called by the official MCP client over HTTP, on a running cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from lab_helpers import address, call, kept, rows, tools, write

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def cluster(module_runtime: Path, script_config: Callable[..., dict[str, Any]]) -> Iterator[Cluster]:  # noqa: ARG001
    """boss -> ada, boss -> bob, ada <-> bob: nobody may begin with boss."""
    config = script_config(
        "boss",
        "ada",
        "bob",
        agents={"boss": {"role": "asks"}, "ada": {"role": "knows"}},
        name="tools",
        topology=["boss -> ada, bob", "ada <-> bob"],
    )
    with Cluster.start(config) as started:
        yield started


async def test_the_tools_and_what_they_say_of_themselves(cluster: Cluster) -> None:
    async with tools(cluster, "boss") as session:
        listed = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert set(listed) == {"send_message", "broadcast", "list_agents", "read_messages"}
    assert all(tool.description for tool in listed.values())
    assert set(listed["send_message"].input_schema["properties"]) == {"to", "text", "in_reply_to"}
    assert listed["send_message"].input_schema["required"] == ["to", "text"]


async def test_send_message(cluster: Cluster) -> None:
    text = "Schreib 'etwas' \"mit\" $(nichts);\n日本語 😀 \\ \tund Ende"
    async with tools(cluster, "boss") as session:
        wrong, sent = await call(session, "send_message", to="ada", text=text)
    assert not wrong
    assert (sent["to"], sent["status"]) == ("ada", "queued"), "it is told at once, whatever becomes of it"
    await asyncio.to_thread(cluster.wait, timeout=30)
    (row,) = rows(cluster, message_id=sent["message_id"])
    assert (row["sender"], row["recipient"], row["kind"], row["source"]) == ("boss", "ada", "direct", "agent")
    assert row["content"] == text
    assert (row["status"], row["acceptance_source"]) == ("answered", "hook")
    prompt = next(
        event for event in cluster.events() if event.event == "message.queued" and event.message_id == row["message_id"]
    )
    assert prompt.attributes["header"] == f"From boss ({row['message_id']}):"


async def test_broadcast_reaches_whom_the_sender_may_write_to(cluster: Cluster) -> None:
    async with tools(cluster, "boss") as boss, tools(cluster, "ada") as ada:
        wrong, sent = await call(boss, "broadcast", text="to all of you")
        _, other = await call(ada, "broadcast", text="to the one I may")
    assert not wrong
    assert set(sent["message_ids"]) == {"ada", "bob"}
    assert set(other["message_ids"]) == {"bob"}
    await asyncio.to_thread(cluster.wait, timeout=30)
    found = [row for row in rows(cluster) if row["message_id"] in sent["message_ids"].values()]
    assert [row["kind"] for row in found] == ["broadcast", "broadcast"]
    assert len({row["conversation_id"] for row in found}) == 1


async def test_list_agents(cluster: Cluster) -> None:
    async with tools(cluster, "ada") as session:
        wrong, found = await call(session, "list_agents")
    assert not wrong
    assert [(one["name"], one["role"], one["kind"], one["you"], one["you_may_write"]) for one in found] == [
        ("boss", "asks", "chat", False, False),
        ("ada", "knows", "chat", True, False),
        ("bob", "", "chat", False, True),
    ]


async def test_read_messages(cluster: Cluster) -> None:
    async with tools(cluster, "boss") as boss, tools(cluster, "ada") as ada, tools(cluster, "bob") as bob:
        _, first = await call(boss, "send_message", to="ada", text="number one")
        ids = [(await call(boss, "send_message", to="ada", text=f"more {at}"))[1]["message_id"] for at in range(3)]
        await asyncio.to_thread(cluster.wait, timeout=30)
        wrong, after = await call(ada, "read_messages", since=first["message_id"])
        assert not wrong
        assert [one["message_id"] for one in after] == ids
        assert [one["content"] for one in after] == ["more 0", "more 1", "more 2"]
        # From a known one on, pages go forward; without one they are the newest.
        assert [
            one["message_id"] for one in (await call(ada, "read_messages", since=first["message_id"], limit=2))[1]
        ] == ids[:2]
        assert [one["message_id"] for one in (await call(ada, "read_messages", limit=2))[1]] == ids[1:]
        # Another agent's messages are not bob's to read, nor to page from; nor is what another's turn said.
        assert not any(one["message_id"] in ids for one in (await call(bob, "read_messages"))[1])
        wrong, why = await call(bob, "read_messages", since=ids[0])
        assert wrong
        assert "that you sent or got" in why
        assert "reply" not in after[0]


@pytest.mark.parametrize("token", [" ", "wrong", "ümläut", "x" * 5000])
def test_who_has_no_secret_is_refused(cluster: Cluster, token: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"accept": "application/json, text/event-stream"}
    for extra in ({}, {"authorization": f"Bearer {token}".encode() + b"."}):
        answer = httpx.post(f"{address(cluster)}/mcp", json=body, headers={**headers, **extra})
        assert answer.status_code == 403
        assert answer.json() == {"error": "this secret belongs to no agent of the cluster"}


async def test_a_sender_cannot_be_forged(cluster: Cluster) -> None:
    """A name among the arguments is not listened to: the message comes from the owner of the secret."""
    async with tools(cluster, "ada") as session:
        wrong, sent = await call(
            session, "send_message", to="bob", text="I am the boss", sender="boss", **{"from": "boss"}
        )
    await asyncio.to_thread(cluster.wait, timeout=30)
    found = rows(cluster, content="I am the boss")
    assert wrong or sent["status"] == "queued"
    assert all(row["sender"] == "ada" for row in found)


async def test_calls_in_parallel(cluster: Cluster) -> None:
    """Two agents with four calls each at once: every one counts once, with its own sender."""
    async with tools(cluster, "boss") as boss, tools(cluster, "ada") as ada:
        calls = [call(one, "send_message", to="bob", text=f"parallel {at}") for at in range(4) for one in (boss, ada)]
        results = await asyncio.gather(*calls)
    assert not any(wrong for wrong, _ in results)
    await asyncio.to_thread(cluster.wait, timeout=60)
    found = [row for row in rows(cluster, recipient="bob") if row["content"].startswith("parallel")]
    assert sorted((row["sender"], row["content"]) for row in found) == sorted(
        (name, f"parallel {at}") for at in range(4) for name in ("boss", "ada")
    )
    assert {row["status"] for row in found} == {"answered"}
    assert len({row["turn_id"] for row in found}) == 8


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"to": "nobody", "text": "x"}, "no agent 'nobody' in cluster 'tools'; it has: boss, ada, bob"),
        ({"to": "user", "text": "x"}, "end your turn with what you want to say"),
        ({"to": "bob", "text": ""}, "an empty message cannot be typed"),
        ({"to": "bob", "text": " \x1b\x07 "}, "an empty message cannot be typed"),
        ({"to": "bob", "text": "x", "in_reply_to": "msg_unknown"}, "there is no message 'msg_unknown'"),
        ({"to": "bob"}, "text"),
    ],
)
async def test_wrong_arguments_are_told(cluster: Cluster, arguments: dict[str, Any], why: str) -> None:
    before = len(rows(cluster))
    async with tools(cluster, "ada") as session:
        wrong, told = await call(session, "send_message", **arguments)
    assert wrong
    assert why in told
    assert len(rows(cluster)) == before


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("boss", "the topology does not let ada write to boss; ada may write to: bob"),
        ("ada", "ada cannot write to itself"),
    ],
)
async def test_what_the_topology_forbids_is_refused_and_kept(cluster: Cluster, to: str, why: str) -> None:
    async with tools(cluster, "ada") as session, tools(cluster, to) as other:
        wrong, told = await call(session, "send_message", to=to, text=f"not for {to}")
        assert wrong
        assert why in told
        assert to == "ada" or not any(
            one["content"] == f"not for {to}" for one in (await call(other, "read_messages"))[1]
        )
    (row,) = rows(cluster, content=f"not for {to}")
    assert (row["status"], row["error_type"], row["error_message"]) == ("refused", "topology", why)
    assert f"not for {to}" not in cluster[to].screen().text


async def test_who_was_asked_may_answer(cluster: Cluster) -> None:
    """boss -> ada is a one-way street: ada may not begin, but may answer what she was asked, and nobody else may."""
    async with tools(cluster, "boss") as boss, tools(cluster, "ada") as ada, tools(cluster, "bob") as bob:
        _, asked = await call(boss, "send_message", to="ada", text="a question")
        await asyncio.to_thread(cluster.wait, timeout=30)
        wrong, sent = await call(ada, "send_message", to="boss", text="the answer", in_reply_to=asked["message_id"])
        assert not wrong, sent
        wrong, told = await call(bob, "send_message", to="boss", text="me too", in_reply_to=asked["message_id"])
        assert wrong
        assert "that you sent or got" in told
    await asyncio.to_thread(cluster.wait, timeout=30)
    (row,) = rows(cluster, message_id=sent["message_id"])
    assert (row["kind"], row["in_reply_to"], row["hop"], row["status"]) == ("reply", asked["message_id"], 1, "answered")
    (question,) = rows(cluster, message_id=asked["message_id"])
    assert row["conversation_id"] == question["conversation_id"]


async def test_a_megabyte(cluster: Cluster) -> None:
    text = "".join(f"{number:07d}日\n" for number in range(100_000))
    assert len(text.encode()) > 1_000_000
    async with tools(cluster, "ada") as session:
        wrong, sent = await call(session, "send_message", to="bob", text=text)
    assert not wrong, sent
    await asyncio.to_thread(cluster.wait, timeout=90)
    (row,) = rows(cluster, message_id=sent["message_id"])
    assert row["content"] == text
    assert row["status"] == "answered"


def test_the_same_from_a_pane(cluster: Cluster) -> None:
    """The route that `orchestrator-lab send` uses inside a pane follows the same rules."""
    asked = write(cluster, "boss", "ada", "from a pane")
    cluster.wait(timeout=30)
    answer = write(cluster, "ada", "boss", "back from a pane", asked["message_id"])
    cluster.wait(timeout=30)
    (row,) = rows(cluster, message_id=answer["message_id"])
    assert (row["kind"], row["status"], row["hop"]) == ("reply", "answered", 1)
    with pytest.raises(Exception, match=r"409 .*refused: the topology does not let ada write to boss"):
        write(cluster, "ada", "boss", "refused from a pane")
    assert rows(cluster, content="refused from a pane")[0]["status"] == "refused"
    with pytest.raises(Exception, match="no agent 'nobody'"):
        write(cluster, "ada", "nobody", "x")
    assert kept(cluster, "ada")["token"] != kept(cluster, "bob")["token"]
