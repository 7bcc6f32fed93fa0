"""Recording and replaying, with real clients on real ports."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import stat
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from gateway_helpers import Running, asks, running_gateway, serving, settings
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_lab.cassette import Take, read_cassette
from orchestrator_lab.cassette_writer import CassetteWriter, rewrite_cassette
from orchestrator_lab.errors import CassetteDamaged, ConfigError, ReplayDiverged
from orchestrator_lab.gateway.plain import Places
from orchestrator_lab.gateway.player import Player
from orchestrator_lab.gateway.recorder import Recorder
from orchestrator_lab.journal.writer import SecretMask

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

SCRIPT = [
    {
        "when": {"contains": "busy"},
        "times": 1,
        "error": {"status": 529, "type": "overloaded_error", "message": "Busy."},
    },
    {"when": {"contains": "slow"}, "reply": "abcdefgh" * 8, "tokens_per_s": 20},
    {"when": {"contains": "twice"}, "sequence": [{"reply": "first"}, {"reply": "second"}]},
    {"reply": "You said: {text}", "chunk": 3},
]
HERE, THERE = Places({"work": "/home/ada/work"}), Places({"work": "/srv/elsewhere"})
ID, OTHER_ID = "msg_01m8m33s40aa9r6p1j99ncsrrs", "msg_01m8m33sc4y92nasbsx13r18qs"


@asynccontextmanager
async def recording(folder: Path, *agents: str, secrets: tuple[str, ...] = (), **config: Any) -> Any:
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - a Path's own way is forbidden in coroutines
    holes: list[str] = []
    recorder = Recorder(folder, mask=SecretMask(secrets), failed=lambda agent, why: holes.append(f"{agent}: {why}"))
    async with running_gateway(recorder=recorder) as running:
        running.holes = holes
        for agent in agents:
            running.gateway.bind(agent, f"secret-{agent}", settings(**(config or {"script": SCRIPT})), places=HERE)
        yield running


@asynccontextmanager
async def replaying(folder: Path, *agents: str, strict: bool = True) -> Any:
    told: list[dict[str, Any]] = []
    stopped: list[ReplayDiverged] = []

    def tell(agent: str, kind: str, sentence: str, **facts: Any) -> None:
        told.append({"agent": agent, "kind": kind, "sentence": sentence, **facts})

    player = Player(folder, strict=strict, tell=tell)
    async with running_gateway(player=player, diverged=stopped.append) as running:
        running.player, running.told, running.stopped = player, told, stopped
        for agent in agents:
            # What the configuration names is of no meaning: no script, no key, no provider.
            config = settings("upstream", base_url="http://127.0.0.1:9")
            running.gateway.bind(agent, f"secret-{agent}", config, places=THERE)
        yield running


async def say(
    running: Running, client: httpx.AsyncClient, text: str, agent: str = "ada", **more: Any
) -> httpx.Response:
    return await client.post(f"{running.url(f'secret-{agent}')}/v1/messages", json=asks(text, **more))


async def test_the_same_bytes_again(tmp_path: Path, client: httpx.AsyncClient) -> None:
    async def story(running: Running) -> list[tuple[int, str, bytes]]:
        answers = [
            await say(running, client, "hello", stream=True),
            await say(running, client, "are you busy"),
            await say(running, client, "are you busy"),
            await say(running, client, "twice"),
            await say(running, client, "twice"),
            await client.post(f"{running.url('secret-oai')}/v1/chat/completions", json={**asks("hi"), "stream": True}),
            await client.post(f"{running.url('secret-oai')}/v1/responses", json={"input": "hi", "stream": True}),
        ]
        return [(one.status_code, one.headers["content-type"], one.content) for one in answers]

    async with recording(tmp_path / "c", "ada", "oai") as running:
        recorded = await story(running)
        await running.wait_for("gateway.response", len(recorded))
        usage = [{**e, "duration_s": 0, "first_byte_s": 0} for e in running.of("gateway.response")]
    assert [status for status, _, _ in recorded] == [200, 529, 200, 200, 200, 200, 200]
    for name in ("ada", "oai"):
        assert stat.S_IMODE((tmp_path / "c" / f"{name}.jsonl.zst").stat().st_mode) == 0o600
    async with replaying(tmp_path / "c", "ada", "oai") as running:
        assert await story(running) == recorded
        assert running.told == []
        again = await running.wait_for("gateway.response", len(recorded))
        for was, now in zip(usage, again, strict=True):
            for key in ("status", "model", "input_tokens", "output_tokens", "reply_id"):
                assert was.get(key) == now.get(key), key
        assert {event["mode"] for event in running.of("gateway.request")} == {"replay"}
        assert running.player.missing() == {}


async def test_a_new_supervisor_goes_on_with_the_recording(tmp_path: Path, client: httpx.AsyncClient) -> None:
    """Numbers and clock go on, over all agents; what a successor is told was answered is not answered again."""
    for texts in (("one", "twice"), ("twice", "two")):
        async with recording(tmp_path, "ada", "bob") as running:
            for text in texts:
                await say(running, client, text)
                await say(running, client, text, "bob")
    takes = sorted([*read(tmp_path, "ada"), *read(tmp_path, "bob")], key=lambda take: take.n)
    assert [(take.n, take.agent) for take in takes] == list(enumerate(["ada", "bob"] * 4, start=1))
    assert [take.at_s for take in takes] == sorted(take.at_s for take in takes)
    async with replaying(tmp_path, "ada", "bob") as running:
        running.player.restore([1, 2, 3])
        assert [(await say(running, client, "twice", agent)).status_code for agent in ("bob", "ada", "bob")] == [
            200
        ] * 3
        assert running.told == []
        assert running.player.missing() == {"ada": [7], "bob": [8]}


async def test_order_decides_only_among_equals(tmp_path: Path, client: httpx.AsyncClient) -> None:
    async with recording(tmp_path, "ada") as running:
        for text in ("one", "twice", "two", "twice"):
            await say(running, client, text)
    async with replaying(tmp_path, "ada") as running:
        answers = [(await say(running, client, text)).json() for text in ("two", "twice", "twice", "one")]
    texts = [answer["content"][0]["text"] for answer in answers]
    assert texts == ["You said: two", "first", "second", "You said: one"]


@pytest.mark.parametrize("strict", [True, False])
async def test_another_request_is_a_divergence(tmp_path: Path, client: httpx.AsyncClient, strict: bool) -> None:
    async with recording(tmp_path, "ada") as running:
        await say(running, client, "add 2 and 2", system="Be brief.")
        await say(running, client, "thanks", system="Be brief.")
    async with replaying(tmp_path, "ada", strict=strict) as running:
        answer = await say(running, client, "add 2 and 3", system="Be brief.")
        (told,) = running.told
        assert (told["agent"], told["kind"], told["take"], told["strict"]) == ("ada", "request", 1, strict)
        assert told["diff"].split("\n")[-2:] == ["-user: add 2 and 2", "+user: add 2 and 3"]
        if strict:
            assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
            assert "something else than the recording's request 1" in answer.json()["error"]["message"]
            (stopped,) = running.stopped
            assert "+user: add 2 and 3" in stopped.message
            return
        # It goes on where the recording is.
        assert answer.json()["content"][0]["text"] == "You said: add 2 and 2"
        assert (await say(running, client, "thanks", system="Be rude.")).json()["content"][0]["text"].endswith("thanks")
        assert [one["kind"] for one in running.told] == ["request", "setting"]
        assert running.told[1]["diff"].split("\n")[-2:] == ["-system: Be brief.", "+system: Be rude."]
        beyond = await say(running, client, "and more")
        assert beyond.status_code == 400
        assert (running.told[2]["kind"], running.told[2]["take"]) == ("surplus", None)
        assert running.stopped == []


async def test_what_is_asked_on_the_side_needs_no_recording(tmp_path: Path, client: httpx.AsyncClient) -> None:
    async with recording(tmp_path, "ada") as running:
        await say(running, client, "hello")
    async with replaying(tmp_path, "ada") as running:
        assert (await say(running, client, "quota", max_tokens=1)).json()["content"][0]["text"] == "."
        counted = await client.post(f"{running.url('secret-ada')}/v1/messages/count_tokens", json=asks("hello"))
        assert counted.json()["input_tokens"] > 0
        assert (await client.get(f"{running.url('secret-ada')}/v1/models")).json()["data"][0]["id"] == "script"
        assert (await say(running, client, "hello")).status_code == 200
        assert running.told == []


async def test_ids_and_places_in_answers_are_those_of_now(tmp_path: Path, client: httpx.AsyncClient) -> None:
    body = {"id": "x", "content": [{"type": "text", "text": f"I answer {ID} in /home/ada/work/a.txt"}]}
    app = Provider(json.dumps(body).encode())
    async with serving(app) as port:
        url = f"http://127.0.0.1:{port}"
        async with recording(tmp_path, "ada", mode="upstream", base_url=url) as running:
            await say(running, client, f"From bob ({ID}):\nread /home/ada/work/a.txt")
    async with replaying(tmp_path, "ada") as running:
        answer = await say(running, client, f"From bob ({OTHER_ID}):\nread /srv/elsewhere/a.txt")
    assert answer.json()["content"][0]["text"] == f"I answer {OTHER_ID} in /srv/elsewhere/a.txt"


async def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


class Provider:
    """Answers everything with the same bytes."""

    def __init__(self, body: bytes, *headers: tuple[bytes, bytes], pieces: int = 1) -> None:
        self.body = body
        self.headers = [(b"content-type", b"application/json"), *headers]
        self.pieces = pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = self.headers
        if scope["method"] == "GET":
            headers = [(b"content-type", b"application/json"), (b"x-ratelimit-left", b"7")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        size = -(-len(self.body) // self.pieces)
        for start in range(0, len(self.body), size):
            await send({"type": "http.response.body", "body": self.body[start : start + size], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def test_compressed_answers_and_lookups_of_a_provider(tmp_path: Path, client: httpx.AsyncClient) -> None:
    plain = json.dumps({"content": [{"type": "text", "text": "né " * 500}]}, ensure_ascii=False).encode()
    app = Provider(gzip.compress(plain), (b"content-encoding", b"gzip"), pieces=7)
    async with serving(app) as port:
        url = f"http://127.0.0.1:{port}"
        async with recording(tmp_path, "ada", mode="upstream", base_url=url) as running:
            assert (await say(running, client, "hi")).content == plain
            app.body = b'{"data": []}'
            await client.get(f"{running.url('secret-ada')}/v1/models?limit=3")
    async with replaying(tmp_path, "ada") as running:
        assert (await say(running, client, "hi")).content == plain
        for _ in range(2):
            listed = await client.get(f"{running.url('secret-ada')}/v1/models?limit=3")
            assert (listed.json(), listed.headers["x-ratelimit-left"]) == ({"data": []}, "7")
        assert (await client.get(f"{running.url('secret-ada')}/v1/other")).status_code == 404


async def test_no_secret_is_written_also_one_that_the_stream_cuts(tmp_path: Path, client: httpx.AsyncClient) -> None:
    secret = "sk-very-secret-0123456789"
    script = [{"reply": f"it is {secret}, yes", "chunk": 4}]
    async with recording(tmp_path, "ada", secrets=(secret,), script=script) as running:
        answer = await say(running, client, f"my key is {secret}", stream=True)
        assert secret not in answer.text
        assert '"-ver"' in answer.text
    packed = (tmp_path / "ada.jsonl.zst").read_bytes()
    text = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read().decode()
    deltas = [part.split('\\"')[0] for part in text.split('\\"text\\":\\"')[1:]]
    assert "it is " + "*" * len(secret) + ", yes" in "".join(deltas)
    for start in range(len(secret) - 5):
        assert secret[start : start + 5] not in text
    async with replaying(tmp_path, "ada") as running:
        # The one who replays may have another secret, or none.
        assert (await say(running, client, "my key is " + "*" * len(secret), stream=True)).status_code == 200
        assert running.told == []


async def test_an_answer_that_nobody_waited_for(tmp_path: Path, client: httpx.AsyncClient) -> None:
    async def impatient(running: Running) -> str:
        url = f"{running.url('secret-ada')}/v1/messages"
        async with client.stream("POST", url, json=asks("slow", stream=True)) as answer:
            async for piece in answer.aiter_text():
                return piece
        return ""

    async with recording(tmp_path, "ada") as running:
        first = await impatient(running)
        await running.wait_for("gateway.response")
        await say(running, client, "after it")
    takes = read(tmp_path, "ada")
    assert [(take.ended, take.status) for take in takes] == [("client", 200), ("complete", 200)]
    async with replaying(tmp_path, "ada") as running:
        url = f"{running.url('secret-ada')}/v1/messages"
        got, recorded = b"", "".join(takes[0].pieces).encode()
        async with client.stream("POST", url, json=asks("slow", stream=True)) as answer:
            pieces = answer.aiter_bytes()
            while len(got) < len(recorded):
                got += await anext(pieces)
            # The recorded answer has no end.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(pieces), 0.3)
        assert got.decode().startswith(first)
        assert got == recorded
        assert (await say(running, client, "after it")).status_code == 200


async def test_agents_go_on_in_the_recorded_order(
    tmp_path: Path, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bob's answer begins first and ends last, as it did: what bob does next comes after what ada did meanwhile."""
    async with recording(tmp_path, "ada", "bob") as running:
        slow = asyncio.create_task(say(running, client, "slow", "bob", stream=True))
        await running.wait_for("gateway.request")
        await say(running, client, "one")
        await say(running, client, "two")
        await slow
    monkeypatch.setattr("orchestrator_lab.gateway.player._ORDER_S", 60.0)
    async with replaying(tmp_path, "ada", "bob") as running:
        order: list[str] = []

        async def bob() -> None:
            url = f"{running.url('secret-bob')}/v1/messages"
            async with client.stream("POST", url, json=asks("slow", stream=True)) as answer:
                async for piece in answer.aiter_text():
                    order.extend(["begins"] * ("content_block_delta" in piece))
            order.append("ends")

        last = asyncio.create_task(bob())
        await until(lambda: "begins" in order)
        for text in ("one", "two"):
            await say(running, client, text)
            order.append(text)
        await last
        assert [word for word in order if word != "begins"] == ["one", "two", "ends"]
        assert running.told == []


def read(folder: Path, agent: str) -> list[Take]:
    return list(read_cassette(folder / f"{agent}.jsonl.zst")[1])


async def test_an_order_that_cannot_be_followed_holds_nobody_up_for_long(
    tmp_path: Path, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(tmp_path, "ada", "bob") as running:
        await say(running, client, "one", "bob")
        await say(running, client, "two")
    monkeypatch.setattr("orchestrator_lab.gateway.player._ORDER_S", 0.2)
    async with replaying(tmp_path, "ada", "bob") as running:
        assert (await say(running, client, "two")).status_code == 200
        assert running.told == []
        assert running.player.missing() == {"bob": [1]}


# the file -----------------------------------------------------------------------------------------


def writer(path: Path) -> CassetteWriter:
    return CassetteWriter(path, agent="ada", places={"work": "/w"}, mask=lambda text: text)


def fill(path: Path, *texts: str) -> None:
    made = writer(path)
    for text in texts:
        take = Take(made.last + 1, "ada", "POST", "/v1/messages", "main", None, 0.0, status=200, ended="complete")
        take.body = made.apart(asks(text, tools=[{"name": "Read"}]))
        take.pieces = [f"answer to {text}"]
        made.add(take)
    made.close()


def frames(path: Path) -> list[bytes]:
    """The frames of a cassette, as they lie in the file."""
    data, found = path.read_bytes(), []
    while data:
        unpacked = zstandard.ZstdDecompressor().decompressobj()
        unpacked.decompress(data)
        found.append(data[: len(data) - len(unpacked.unused_data)])
        data = unpacked.unused_data
    return found


def edit(path: Path, old: str, new: str) -> None:
    """Change a cassette as somebody would who knows its format."""
    changed = [zstandard.ZstdDecompressor().decompress(one).decode().replace(old, new) for one in frames(path)]
    path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(one.encode()) for one in changed))


def test_a_part_stands_in_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl.zst"
    fill(path, "one")
    before = path.stat().st_size
    made = writer(path)
    body = asks("one", tools=[{"name": "Read"}])
    assert made.apart(body) == made.apart(body)
    made.close()
    assert path.stat().st_size == before


def keep(made: CassetteWriter, body: Any) -> None:
    take = Take(made.last + 1, "ada", "POST", "/v1/messages", "main", None, 0.0, status=200, ended="complete")
    take.body = made.apart(body)
    made.add(take)
    made.flush()


def test_a_cassette_grows_with_the_conversation_and_not_with_its_square(tmp_path: Path) -> None:
    sizes = []
    for turns in (100, 400):
        made = writer(tmp_path / f"{turns}.jsonl.zst")
        messages: list[Any] = []
        for turn in range(turns):
            messages = [*messages, {"role": "user", "content": f"turn {turn}"}, {"role": "assistant", "content": "ok"}]
            keep(made, {"model": "m", "messages": messages})
        made.close()
        sizes.append(made.path.stat().st_size)
        assert [len(take.body["messages"]) for take in read(tmp_path, str(turns))] == list(range(2, 2 * turns + 2, 2))
    assert sizes[1] < 5 * sizes[0]


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner, max_size=2),
    max_leaves=4,
)
_messages = st.lists(st.dictionaries(st.sampled_from("ab"), _values, max_size=2), max_size=5)


@given(
    st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {"model": st.sampled_from("mn")}, optional={"messages": _messages, "input": _messages}
            )
            | st.fixed_dictionaries({"system": st.text(max_size=2) | _messages, "tools": _messages}),
            st.text(max_size=3),
        ),
        max_size=8,
    ),
    st.integers(0, 8),
)
def test_any_requests_come_back_as_they_were(bodies: list[Any], reopened: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ada.jsonl.zst"
        made = writer(path)
        for number, body in enumerate(bodies):
            if number == reopened:
                made.close()
                made = writer(path)
            keep(made, body)
        made.close()
        takes = read(Path(folder), "ada")
    assert [take.n for take in takes] == list(range(1, len(bodies) + 1))
    assert repr([take.body for take in takes]) == repr([_sorted_lists_last(body) for body in bodies])
    assert not any(take.changed for take in takes)


def _sorted_lists_last(body: Any) -> Any:
    """Return a request with its lists behind everything else, in the order in which a cassette puts them back."""
    names = ("messages", "input", "system", "tools")
    if not isinstance(body, dict):
        return body
    return {key: value for key, value in body.items() if key not in names} | {
        name: body[name] for name in names if name in body
    }


def test_a_list_of_which_one_name_was_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl.zst"
    made = writer(path)
    one, two, three = ({"role": "user", "content": text} for text in ("one", "two", "three"))
    for messages in ([one], [one, two], [one, two, three], [two]):
        keep(made, {"messages": messages})
    made.close()
    lines = [json.loads(line) for frame in frames(path) for line in zstandard.decompress(frame).splitlines()]
    second = [line for line in lines if "list" in line][1]
    assert second["first"] == 1
    edit(path, '"first":1', '"first":0')
    assert [take.changed for take in read(tmp_path, "ada")] == [False, True, True, False]


def test_what_was_lost_with_a_full_disk_is_written_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer(tmp_path / "ada.jsonl.zst")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            keep(made, asks("one"))
    keep(made, asks("one"))
    made.close()
    assert [take.body for take in read(tmp_path, "ada")] == [asks("one")]


def test_a_cassette_of_the_first_format_is_read(tmp_path: Path) -> None:
    """Its takes named all their messages."""

    def named(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    rest, hello = '{"model":"m"}', '{"role":"user","content":"hello"}'
    facts = {"n": 1, "method": "POST", "path": "/v1/messages", "purpose": "main"}
    facts |= {"body": {"rest": named(rest), "messages": [named(hello)]}, "at_s": 0.0, "after": 1, "until": 1}
    facts |= {"began_s": 0.1, "ended_s": 0.2, "status": 200, "headers": [], "usage": {}, "ended": "complete"}
    take = json.dumps({**facts, "pieces": ["hi"]}, separators=(",", ":"))
    lines = ['{"cassette":1,"agent":"ada","places":{}}']
    lines += [f'{{"part":"{named(text)}","value":{text}}}' for text in (rest, hello)]
    lines += [f'{{"take":{take},"sha256":"{named(take)}"}}', ""]
    path = tmp_path / "ada.jsonl.zst"
    path.write_bytes(zstandard.compress("\n".join(lines).encode()))
    (found,) = read(tmp_path, "ada")
    assert (found.body, found.pieces, found.changed) == (
        {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
        ["hi"],
        False,
    )
    made = writer(path)  # and gone on with
    keep(made, found.body)
    made.close()
    assert [take.body for take in read(tmp_path, "ada")] == [found.body] * 2


def test_a_killed_writers_end_is_cut_off_and_numbers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl.zst"
    fill(path, "one", "two")
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(frames(path)[-1][:-3])
    assert [take.n for take in read(tmp_path, "ada")] == [1, 2]
    fill(path, "three")
    assert [(take.n, take.pieces) for take in read(tmp_path, "ada")][1:] == [
        (2, ["answer to two"]),
        (3, ["answer to three"]),
    ]
    assert path.stat().st_size > whole


@pytest.mark.parametrize(("old", "new"), [("answer to two", "answer to twO"), ('"content":"two"', '"content":"tw0"')])
def test_one_byte_changed_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "ada.jsonl.zst"
    fill(path, "one", "two", "three")
    edit(path, old, new)
    assert [take.changed for take in read(tmp_path, "ada")] == [False, True, False]
    told: list[Any] = []
    with pytest.raises(ReplayDiverged, match="agent 'ada': request 2 of its cassette is not what was recorded"):
        Player(tmp_path, strict=True, tell=lambda *facts, **_: told.append(facts))
    Player(tmp_path, strict=False, tell=lambda *facts, **_: told.append(facts))
    assert [one[:2] for one in told] == [("ada", "changed"), ("ada", "changed")]
    with pytest.raises(CassetteDamaged, match=r"was changed since it was recorded \(request 2\)"):
        rewrite_cassette(path, tmp_path / "other.jsonl.zst", str)


def test_a_flipped_bit_in_the_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl.zst"
    fill(path, "one", "two", "three")
    whole = path.read_bytes()
    clean = [(take.n, take.pieces, take.body) for take in read(tmp_path, "ada")]
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            takes = read(tmp_path, "ada")
        except CassetteDamaged:
            continue
        # What a torn end could be is left out; nothing else passes for what was recorded.
        same = [(take.n, take.pieces, take.body) for take in takes if not take.changed]
        assert same == clean[: len(same)]
        assert len(same) < len(clean) or same == clean


def listed(name: str, of: str, first: int, then: list[str]) -> bytes:
    line = {"list": name, "of": of, "first": first, "then": then}
    return zstandard.compress(b'{"cassette":2,"places":{}}\n' + json.dumps(line).encode() + b"\n")


def test_a_list_that_begins_beyond_any_other_is_not_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "ada.jsonl.zst"
    fill(path, "one")
    edit(path, '"first":0', f'"first":{1 << 70}')
    assert [take.changed for take in read(tmp_path, "ada")] == [True]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"this is a text, and no cassette at all", "is damaged at byte 0"),
        (zstandard.compress(b'{"cassette": 99}\n'), "is of format 99"),
        (zstandard.compress(b'{"cassette": 1, "places": 3}\n'), "is not one"),
        (zstandard.compress(b'{"cassette": 1, "places": {}}\n{"take": {}}\n'), "is not one"),
        (zstandard.compress(b"no json\n"), "is not one"),
        (listed("a", "b", 0, ["c"]), "stands twice, or before the one that it goes on from"),
        (listed("a", "", 0, ["c"]) + listed("a", "a", 1, ["c"]), "stands twice"),
        (zstandard.compress(bytes(257 << 20)), "more than any request has"),
    ],
)
def test_what_is_no_cassette_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "ada.jsonl.zst"
    path.write_bytes(content)
    with pytest.raises(CassetteDamaged, match=words):
        list(read_cassette(path)[1])


def test_lists_that_repeat_one_another_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator_lab.cassette._MOST", 10_000)
    path = tmp_path / "ada.jsonl.zst"
    pieces = [listed("long", "", 0, ["x"] * 1000), *(listed(f"n{number}", "long", 1000, ["y"]) for number in range(20))]
    path.write_bytes(b"".join(pieces))
    with pytest.raises(CassetteDamaged, match="repeats more than conversations do"):
        read(tmp_path, "ada")


def test_a_cassette_with_other_words(tmp_path: Path) -> None:
    path, target = tmp_path / "ada.jsonl.zst", tmp_path / "out" / "ada.jsonl.zst"
    target.parent.mkdir()
    fill(path, "ada@example.org", "two")
    rewrite_cassette(path, target, lambda text: text.replace("ada@example.org", "<e-mail>").replace("/w", "/home"))
    places, found = read_cassette(target)
    takes = list(found)
    assert places == {"work": "/home"}
    assert [(take.pieces, take.changed) for take in takes] == [
        (["answer to <e-mail>"], False),
        (["answer to two"], False),
    ]
    assert takes[0].body["messages"][0]["content"] == "<e-mail>"


def test_an_agent_without_a_cassette_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "ada.jsonl.zst", "one")
    player = Player(tmp_path, strict=True, tell=lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"agent 'bob' cannot be replayed: .* it has those of: ada"):
        player.open("bob", THERE)


def full(*_: Any) -> int:
    raise OSError(28, "No space left on device")


async def test_a_full_disk_ends_the_recording_not_the_agents(
    tmp_path: Path, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(tmp_path, "ada") as running:
        await say(running, client, "one")
        await until(lambda: bool(read(tmp_path, "ada")))

        monkeypatch.setattr("orchestrator_lab.cassette_writer.os.write", full)
        assert (await say(running, client, "two")).status_code == 200
        assert (await say(running, client, "three")).status_code == 200
        await until(lambda: bool(running.holes))
        monkeypatch.undo()
    assert running.holes == [
        "ada: its cassette cannot be written (No space left on device): the run cannot be replayed from here on"
    ]
    assert [take.body["messages"][0]["content"] for take in read(tmp_path, "ada")] == ["one"]


async def test_an_answer_whose_request_was_lost_with_a_full_disk_is_not_written_behind_the_hole(
    tmp_path: Path, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(tmp_path, "ada") as running:
        await say(running, client, "one")
        await until(lambda: bool(read(tmp_path, "ada")))

        with monkeypatch.context() as patched:
            patched.setattr("orchestrator_lab.cassette_writer.os.write", full)
            slow = asyncio.create_task(say(running, client, "slow", stream=True))
            await until(lambda: bool(running.holes))
        assert (await slow).status_code == 200
    assert [take.body["messages"][0]["content"] for take in read(tmp_path, "ada")] == ["one"]
