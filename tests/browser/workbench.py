"""What the tests of the JupyterLab extension and of the dashboard share: one server, one cluster, one browser.

The server is JupyterLab as users start it, which serves the dashboard's page too. Two chat agents answer by a script; a
third, the fake agent, asks what it is told to ask and keeps the truth of what reached it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from orchestrator_lab import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "fake_agent" / "fake_agent.py"
#: Rows of a terminal, joined as a program wrote them; the DOM renderer keeps one element a row.
ROWS = "rows => [...rows].map(row => row.textContent.replace(/\\u00a0/g, ' ').trimEnd())"
expect.set_options(timeout=30_000)


def until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true within {timeout_s} s")
        time.sleep(0.02)
    return found


@dataclass
class Bench:
    """A cluster, and a server and a browser to see it with."""

    cluster: Cluster
    root: Path
    url: str
    token: str
    browser: Browser

    @property
    def name(self) -> str:
        return self.cluster.name

    def ask(self, kind: str = "permission", command: str | None = None) -> None:
        """Have the fake agent ask a person."""
        action = {"do": "dialog", "kind": kind} | ({"command": command} if command else {})
        with Path(f"{self.root / 'asker.log'}.ctl").open("w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(action) + "\n")

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return what the fake agent logged; the last line may be half written."""
        lines = (self.root / "asker.log").read_bytes().split(b"\n")[:-1]
        return [one for one in map(json.loads, lines) if one["event"] == event]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return events of the journal; its last line may be half written."""
        lines = (self.cluster.run_dir / "journal.jsonl").read_bytes().split(b"\n")[:-1]
        return [one for one in map(json.loads, lines) if one["event"] == name]

    def screen(self, agent: str) -> list[str]:
        """Return what tmux shows."""
        return [line.rstrip() for line in str(self.cluster[agent].screen()).splitlines()]

    @contextlib.contextmanager
    def page(self, path: str, **options: Any) -> Iterator[Page]:
        """Open a page, logged in; fail when its scripts do."""
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        outside: list[str] = []
        page.on("request", lambda asked: outside.append(asked.url) if _foreign(asked.url, self.url) else None)
        page.set_default_timeout(30_000)
        try:
            page.goto(f"{self.url}/{path}{'&' if '?' in path else '?'}token={self.token}")
            yield page
            assert not wrong, wrong
            assert not outside, "the page loads something from elsewhere"
        finally:
            context.close()


def _foreign(asked: str, url: str) -> bool:
    own = url.removeprefix("http")
    return not asked.startswith(("data:", "blob:", "about:", f"http{own}", f"ws{own}"))


def built() -> None:
    """Build what the pages load, unless that is up to date."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "extensions" / "build_hook.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def config(root: Path, *, name: str) -> dict[str, Any]:
    """Return the configuration of the cluster that is looked at."""
    (root / "asker.json").write_text("{}")
    fake = [sys.executable, "-S", "-E", str(FAKE), "--log", str(root / "asker.log")]
    return {
        "cluster": {
            "name": name,
            "lifetime": "owner",
            "work_dir": str(root),
            "runs_dir": str(root / "runs"),
            "cols": 80,
            "rows": 20,
            "gateway": {"mode": "script", "script": [{"reply": "{agent}: {text}"}]},
        },
        "agents": [
            {"name": "ada", "kind": "chat", "role": "plans"},
            {"name": "bob", "kind": "chat", "role": "writes"},
            {"name": "asker", "kind": "chat", "command": [*fake, "--script", str(root / "asker.json")]},
        ],
    }


def other(name: str) -> Cluster:
    """Start a cluster of one agent, as another program would."""
    root = Path(tempfile.mkdtemp(prefix="wb"))
    cluster: dict[str, Any] = {"name": name, "lifetime": "owner", "work_dir": str(root), "runs_dir": str(root / "runs")}
    cluster["gateway"] = {"mode": "script", "script": [{"reply": "Done."}]}
    return Cluster.start({"cluster": cluster, "agents": [{"name": "eve", "kind": "chat"}]})


@contextlib.contextmanager
def jupyter(root: Path) -> Iterator[tuple[str, str]]:
    """Start JupyterLab with this package's extensions on a free port; yield its address and token."""
    place = root / "jupyter"
    labextensions = place / "labextensions"
    labextensions.mkdir(parents=True)
    (labextensions / "orchestrator-lab").symlink_to(ROOT / "orchestrator_lab" / "labextension")
    (place / "lab" / "settings").mkdir(parents=True)
    token = uuid.uuid4().hex
    # Neither news nor updates are looked for: the tests stay on this machine.
    overrides = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (place / "lab" / "settings" / "overrides.json").write_text(json.dumps(overrides))
    (place / "jupyter_server_config.json").write_text(
        json.dumps(
            {
                "ServerApp": {
                    "jpserver_extensions": {"orchestrator_lab.server": True},
                    "root_dir": str(root),
                    "open_browser": False,
                    "allow_root": True,
                    "port": 0,
                },
                "IdentityProvider": {"token": token},
                "LabApp": {
                    "expose_app_in_browser": True,
                    "extra_labextensions_path": [str(labextensions)],
                    "user_settings_dir": str(place / "user"),
                    "workspaces_dir": str(place / "workspaces"),
                    "app_settings_dir": str(place / "lab" / "settings"),
                },
            }
        )
    )
    environ = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(place),
        "JUPYTER_DATA_DIR": str(place / "data"),
        "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
        "HOME": str(place),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--config", str(place / "jupyter_server_config.json")],
        cwd=root,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield _address(process), token
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait(10)


def _address(process: subprocess.Popen[bytes]) -> str:
    """Return where the server says that it is; go on reading what it says."""
    assert process.stderr is not None
    said = b""
    deadline = time.monotonic() + 120
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while not (found := re.search(rb"(http://(?:localhost|127\.0\.0\.1):\d+)/lab\?token=", said)):
            assert selector.select(max(0.0, deadline - time.monotonic())), f"no address: {said.decode()}"
            piece = os.read(process.stderr.fileno(), 65536)
            assert piece, f"it ended: {said.decode()}"
            said += piece
    log = process.stderr

    def drain() -> None:
        with log:
            for line in log:
                sys.stderr.write(line.decode("utf-8", "replace"))

    threading.Thread(target=drain, daemon=True).start()
    return found[1].decode()


@contextlib.contextmanager
def opened(name: str, browser: Browser) -> Iterator[Bench]:
    """Start a cluster and a server for a browser."""
    built()
    root = Path(tempfile.mkdtemp(prefix="wb"))
    with Cluster.start(config(root, name=name)) as cluster, jupyter(root) as (url, token):
        yield Bench(cluster, root, url, token, browser)
