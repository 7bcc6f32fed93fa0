"""Gateways in running clusters: OpenAI's protocol, one gateway behind another, what is journalled and what never is."""

from __future__ import annotations

import os
import secrets as random
from typing import TYPE_CHECKING, Any

import pytest
from lab_helpers import address, kept

from orchestrator_lab import Cluster, turns_df
from orchestrator_lab.errors import OrchestratorLabError, TurnFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = [
    {"when": {"contains": "break"}, "error": {"status": 400, "message": "no such thing"}},
    {"reply": "{agent}: {text}"},
]


def traffic(cluster: Cluster, agent: str) -> list[dict[str, Any]]:
    return [
        {"event": event.event, **event.attributes}
        for event in cluster.events()
        if event.event.startswith("gateway.") and event.agent == agent
    ]


def test_openai_and_a_chain_of_gateways(
    runtime: Path,
    script_config: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """far answers by script; near reaches it through an upstream gateway, with a key that stays out of the run."""
    key = f"sk-{random.token_hex(20)}"
    monkeypatch.setenv("FAR_KEY", key)
    with Cluster.start(script_config("ann", agents={"oai": {"api": "openai"}}, script=SCRIPT, name="far")) as far:
        assert far["oai"].ask("over OpenAI's protocol", timeout=30).reply == "oai: over OpenAI's protocol"
        with pytest.raises(TurnFailed, match="no such thing"):
            far["oai"].ask("break", timeout=30)
        first, last = traffic(far, "oai")[:2]
        assert (first["event"], first["mode"], first["path"]) == ("gateway.request", "script", "/v1/chat/completions")
        assert (last["event"], last["status"], last["request_id"]) == ("gateway.response", 200, first["request_id"])
        assert 0 <= last["first_byte_s"] <= last["duration_s"]
        turn = turns_df(far.run).iloc[0]
        assert turn["input_tokens"] > 0
        assert turn["output_tokens"] > 0

        def upstream(name: str, api: str) -> dict[str, Any]:
            base = f"{address(far)}/gateway/{kept(far, name)['gateway_secret']}"
            url = base if api == "anthropic" else f"{base}/v1"
            return {"api": api, "gateway": {"mode": "upstream", "base_url": url, "api": api, "key_env": "FAR_KEY"}}

        agents = {"one": upstream("ann", "anthropic"), "two": upstream("oai", "openai")}
        with Cluster.start(script_config(agents=agents, name="near")) as near:
            assert near["one"].ask("through two", timeout=30).reply == "ann: through two"
            assert near["two"].ask("through two", timeout=30).reply == "oai: through two"
            with pytest.raises(TurnFailed, match="no such thing"):
                near["one"].ask("break", timeout=30)
            for name in ("one", "two"):
                request, response = traffic(near, name)[:2]
                assert (request["mode"], response["status"]) == ("upstream", 200)
                assert 0 < response["first_byte_s"] <= response["duration_s"]
                assert response["input_tokens"] > 0
                assert response["output_tokens"] > 0
            tokens = turns_df(near.run).set_index("agent")["output_tokens"]
            assert (tokens.loc["two"] > 0).all()
            run_dirs = [near.shutdown()]
        run_dirs.append(far.run_dir)
        far_secret = kept(far, "ann")["gateway_secret"]
    for run_dir in run_dirs:
        for path in run_dir.rglob("*"):
            if path.is_file():
                assert key.encode() not in path.read_bytes(), path
    assert far_secret.encode() not in (run_dirs[1] / "journal.jsonl").read_bytes()
    assert list(runtime.glob("*/api.sock")) == []


def test_a_missing_key_is_one_sentence(
    runtime: Path,  # noqa: ARG001 - the place of its sockets
    script_config: Callable[..., dict[str, Any]],
) -> None:
    assert "NOT_THERE_KEY" not in os.environ
    gateway = {"mode": "upstream", "key_env": "NOT_THERE_KEY"}
    with pytest.raises(OrchestratorLabError, match="NOT_THERE_KEY") as caught:
        Cluster.start(script_config(agents={"ada": {"gateway": gateway}}, name="keyless"))
    assert "'ada'" in caught.value.message
    assert "\n" not in caught.value.message
