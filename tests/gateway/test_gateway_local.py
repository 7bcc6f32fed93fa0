"""The real local model, in its own process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from gateway_helpers import asks, running_gateway, settings

from orchestrator_lab import models
from orchestrator_lab.errors import GatewayError, ModelNotAvailable
from orchestrator_lab.gateway.local import LocalModel

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


@pytest.fixture(scope="module")
def model() -> Any:
    return models.pull()


@pytest.mark.local_model
async def test_agents_share_one_model(model: Path, client: httpx.AsyncClient, tmp_path: Path) -> None:
    log = tmp_path / "local-model.log"
    async with running_gateway(local_log=log) as running:
        for secret in "abcde":
            running.gateway.bind(secret, secret, settings("local"))
        local = await running.gateway.start_local()
        assert local.load_s is not None
        pid = local.pid
        assert pid is not None
        assert (await running.gateway.start_local(models.DEFAULT_MODEL)) is local
        assert (await running.gateway.start_local(str(model))) is local

        answers = await asyncio.gather(
            *(
                client.post(f"{running.url(s)}/v1/messages", json=asks(f"I am {s}. Say hello.", max_tokens=16))
                for s in "abcde"
            )
        )
        for answer in answers:
            value = answer.json()
            assert answer.status_code == 200, value
            assert value["model"] == "smollm2-135m"
            assert value["content"][0]["text"].strip()
        done = await running.wait_for("gateway.response", 5)
        assert all(1 <= e["output_tokens"] <= 16 and e["input_tokens"] > 0 for e in done)

        streamed = await client.post(f"{running.url('a')}/v1/messages", json=asks("Hi", stream=True))
        assert streamed.text.rstrip().endswith('"message_stop"}')
        chat = await client.post(f"{running.url('a')}/v1/chat/completions", json=asks("Hi", max_tokens=4))
        assert chat.status_code == 200, chat.text
        assert chat.json()["usage"]["completion_tokens"] >= 1
        counted = await client.post(f"{running.url('a')}/v1/messages/count_tokens", json=asks("Hi"))
        assert counted.json()["input_tokens"] > 1
        assert (await client.head(running.url("a"))).status_code == 200
        # Without the gateway's key its port answers nobody.
        assert (await client.post(f"{local.base_url}/v1/messages", json=asks("Hi"))).status_code == 401

        long = await client.post(f"{running.url('a')}/v1/messages", json=asks("tea " * 9000))
        assert long.status_code == 400
        message = long.json()["error"]["message"]
        assert message.startswith("prompt is too long: ")
        assert "4096 maximum of the local model smollm2-135m" in message

        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while local.running:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        again = await client.post(f"{running.url('a')}/v1/messages", json=asks("Hi", max_tokens=2))
        assert again.status_code == 200
        new = (await running.gateway.start_local()).pid
        assert new is not None
        assert new != pid
        assert log.stat().st_mode & 0o777 == 0o600
    assert not psutil.pid_exists(new)


@pytest.mark.local_model
@pytest.mark.usefixtures("model")
def test_it_dies_with_its_parent() -> None:
    code = (
        "import asyncio\nfrom orchestrator_lab.gateway.local import LocalModel\n"
        "async def main():\n    m = LocalModel(None)\n    await m.start()\n"
        "    print(m.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(30)


@pytest.mark.local_model
async def test_a_broken_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    log = tmp_path / "log"
    with pytest.raises(GatewayError, match=r"broken.gguf could not be loaded .*its log") as caught:
        await LocalModel(str(path), log).start()
    assert "log" in str(caught.value)


def test_a_missing_model_is_told_when_the_agent_is_bound() -> None:
    from orchestrator_lab.gateway import Gateway

    with pytest.raises(ModelNotAvailable, match=r"no model 'nowhere\.gguf'"):
        Gateway(lambda *_a, **_k: None).bind("a", "s", settings("local", model="nowhere.gguf"))
