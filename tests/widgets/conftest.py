"""A cluster of chat, program and fake agents, and real kernels that are driven as a notebook drives them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.manager import start_new_kernel

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAKE = Path(__file__).resolve().parents[1] / "fake_agent" / "fake_agent.py"


def until(what: Callable[[], Any], seconds: float = 20.0, says: Callable[[], str] = str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"did not happen {says()}"
        time.sleep(0.01)
    return found


class Mixed:
    """A running cluster: ada and bob chat, dot may have one turn, cat is a program, fay is the fake agent."""

    def __init__(self, config: dict[str, Any]) -> None:
        place = Path(tempfile.mkdtemp(prefix="w"))
        self._log = place / "fay.log"
        fake = [sys.executable, "-S", "-E", str(FAKE), "--log", str(self._log)]
        config["agents"] += [
            {"name": "cat", "kind": "program", "command": ["cat"], "turn_end": {"quiet_s": 0.2}},
            {"name": "fay", "kind": "chat", "command": fake},
        ]
        self.cluster = Cluster.start(config)

    def tell_fay(self, **action: Any) -> None:
        with Path(f"{self._log}.ctl").open("w") as pipe:
            pipe.write(json.dumps(action) + "\n")


@pytest.fixture(scope="module")
def mixed(module_runtime: Path, script_config: Any) -> Iterator[Mixed]:  # noqa: ARG001 - a place of its own
    script = [
        {"when": {"contains": "slow"}, "reply": "at last", "delay_s": 30},
        {"when": {"contains": "later"}, "reply": "{agent}: {text}", "delay_s": 0.5},
        {"reply": "{agent}: {text}"},
    ]
    agents = {"dot": {"limits": {"turns": 1}}}
    made = Mixed(script_config("ada", "bob", "dot", agents=agents, script=script, lifetime="owner"))
    with made.cluster:
        yield made


class Kernel:
    """A real kernel, driven over its channels."""

    def __init__(self) -> None:
        # A kernel over files is no server: it warns of nothing.
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def send(self, code: str) -> str:
        return str(self.client.execute(code))

    def until(self, done: Callable[[dict[str, Any]], object], seconds: float = 60.0) -> list[dict[str, Any]]:
        """Read what the kernel publishes until one message fits; return all of them."""
        read: list[dict[str, Any]] = []
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"did not come; what came: {[one['content'] for one in read]}"
            read.append(self.client.get_iopub_msg(timeout=left))
            if done(read[-1]):
                return read

    def ended(self, request: str, seconds: float = 60.0) -> list[dict[str, Any]]:
        def idle(message: dict[str, Any]) -> bool:
            content = message["content"]
            mine = message["parent_header"].get("msg_id") == request
            return mine and message["msg_type"] == "status" and content["execution_state"] == "idle"

        return self.until(idle, seconds)

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell; return its outputs, and nothing that a widget sends."""
        shown = {"stream", "display_data", "execute_result", "error", "update_display_data"}
        return [one for one in self.ended(self.send(code)) if one["msg_type"] in shown]

    def value(self, code: str) -> Any:
        """Return what an expression is, as JSON."""
        # A view that freezes may be told of in any cell.
        shown = self.run(f"import json; print(json.dumps({code}))")
        (said,) = [one for one in shown if one["msg_type"] != "update_display_data"]
        return json.loads(said["content"]["text"])

    def comm(self, comm_id: str, data: dict[str, Any]) -> str:
        """Send what a browser sends to a widget; return the message's id."""
        message = self.client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def click(self, button: str) -> None:
        self.comm(button, {"method": "custom", "content": {"event": "click"}})

    def set(self, widget: str, **state: Any) -> str:
        return self.comm(widget, {"method": "update", "state": state, "buffer_paths": []})

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel(module_runtime: Path) -> Iterator[Kernel]:  # noqa: ARG001 - its clusters are the module's
    """A kernel in an empty folder, without the lab's own variables."""
    before = Path.cwd()
    os.chdir(tempfile.mkdtemp(prefix="w"))
    try:
        made = Kernel()
    finally:
        os.chdir(before)
    yield made
    made.close()


@pytest.fixture(scope="session", name="until")
def _until() -> Any:
    return until
