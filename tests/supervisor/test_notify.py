"""Channels are told of alerts, by real mail and a real webhook; what fails is journalled; secrets stay secret."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from listeners import Heard, mail_server, webhook

from orchestrator_lab import Cluster
from orchestrator_lab.config import (
    AlertsConfig,
    address_secrets,
    load_config,
    mask_address,
    notify_addresses,
    to_dict,
    to_yaml,
)
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.journal.reader import read_events
from orchestrator_lab.journal.writer import JournalWriter, SecretMask
from orchestrator_lab.supervisor.alerts import Alerts
from orchestrator_lab.supervisor.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def hook() -> Iterator[Heard]:
    with webhook("correct-horse-battery") as heard:
        yield heard


@pytest.fixture(autouse=True)
def forget(hook: Heard) -> None:
    hook.told.clear()


class Lab:
    """Alerts and their channels on a journal."""

    def __init__(self, folder: Path, *notify: str, environ: dict[str, str] | None = None, **alerts: Any) -> None:
        self.path = folder / "journal.jsonl"
        self.mask = SecretMask()
        self.journal = JournalWriter(self.path, run_id="run_x", mask=self.mask)
        self.config = SimpleNamespace(name="lab", alerts=AlertsConfig(notify=list(notify), **alerts))
        self.environ = environ or {}
        self.record = SimpleNamespace(run_id="run_x")
        self.alerts = Alerts(self)  # type: ignore[arg-type]
        self.notifier = Notifier(self)  # type: ignore[arg-type]
        self._news = asyncio.Event()
        self.journal.subscribe(lambda _: self._news.set())

    def notified(self) -> list[tuple[str, int, bool]]:
        facts = [one.attributes for one in read_events(self.path)[0] if one.event == "alert.notified"]
        return [(one["channel"], one["number"], one["ok"]) for one in facts]

    async def until_notified(self, times: int) -> list[tuple[str, int, bool]]:
        async with asyncio.timeout(60):
            while len(self.notified()) < times:
                self._news.clear()
                await self._news.wait()
        return self.notified()

    async def close(self) -> None:
        await self.notifier.close()
        self.alerts.stop()
        self.journal.close()


async def test_mail_and_webhook_are_told_and_neither_holds_up_the_caller(tmp_path: Path, hook: Heard) -> None:
    with mail_server() as mail:
        lab = Lab(tmp_path, mail.address, hook.address)
        heard = threading.Event()
        hook.on_request = lambda: heard.wait(30)
        identity = lab.alerts.open("waiting", "ada asks a person (permission: Bash)", agent="ada")
        lab.alerts.open("note", "nobody is told of this", level="info")
        assert hook.told == mail.told == []
        heard.set()  # no channel answered before this
        assert sorted(await lab.until_notified(2)) == [("json", 2, True), ("mailto", 1, True)]
        (told,) = hook.told
        assert told["title"] == "[lab] warning: waiting (ada)"
        assert told["type"] == "warning"
        assert "ada asks a person (permission: Bash)" in told["message"]
        assert f"orchestrator-lab alerts ack {identity}" in told["message"]
        (letter,) = mail.told
        assert letter["to"] == ["eve@example.org"]
        assert letter["subject"] == "[lab] warning: waiting (ada)"
        assert "permission: Bash" in letter["text"]
        await lab.close()


async def test_what_fails_is_tried_again_by_apprise_and_then_journalled(tmp_path: Path, hook: Heard) -> None:
    lab = Lab(tmp_path, f"{hook.address}?wait=0.1", "json://127.0.0.1:9/?retry=0&cto=1")
    hook.answers[:] = [500, 503]
    lab.alerts.open("disk", "the disk is full", level="critical")
    assert sorted(await lab.until_notified(2)) == [("json", 1, True), ("json", 2, False)]
    assert [one["status"] for one in hook.told] == [500, 503, 200]
    failed = [one for one in read_events(lab.path)[0] if one.attributes.get("ok") is False]
    assert failed[0].level == "warning"
    assert failed[0].attributes["error"]
    text = lab.path.read_text()
    assert "correct-horse-battery" not in text
    assert "127.0.0.1" not in text.replace(failed[0].attributes["error"], "")
    await lab.close()


async def test_graver_is_told_again_and_alerts_that_come_together_are_one_process(
    tmp_path: Path, hook: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 0
    begin = asyncio.create_subprocess_exec

    async def counted(*words: Any, **rest: Any) -> asyncio.subprocess.Process:
        nonlocal begun
        begun += 1
        return await begin(*words, **rest)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    lab = Lab(tmp_path, hook.address, notify_level="error")
    lab.alerts.open("idle", "ada is idle", agent="ada")
    for number in range(5):
        lab.alerts.open("idle", f"agent {number} is idle", agent=f"a{number}", level="error")
    await lab.until_notified(5)
    lab.alerts.open("idle", "ada is still idle", agent="ada", level="error")
    await lab.until_notified(6)
    assert begun == 2
    assert [one["message"].split("\n")[0] for one in hook.told] == [
        *(f"agent {number} is idle" for number in range(5)),
        "ada is still idle",
    ]
    await lab.close()


async def test_a_channel_that_never_answers_does_not_hold_up_the_end(tmp_path: Path) -> None:
    # Connections are made, and never accepted.
    server = socket.create_server(("127.0.0.1", 0))
    lab = Lab(tmp_path, f"json://127.0.0.1:{server.getsockname()[1]}")
    lab.alerts.open("disk", "the disk is full", level="critical")
    called, _, _ = await asyncio.to_thread(select.select, [server], [], [], 30)
    assert called
    lab.alerts.open("tmux", "tmux died", level="critical")
    await lab.close()
    assert lab.notified() == [("json", 1, False), ("json", 1, False)]
    # It did not wait for the channel to give up by itself, which takes much longer.
    failed = [one for one in read_events(lab.path)[0] if one.event == "alert.notified"]
    assert [one.attributes["error"] for one in failed] == ["the cluster ended meanwhile", "the cluster ended"]
    left = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    assert not [one for one in left if "orchestrator_lab.supervisor.tell" in one.cmdline()]
    server.close()


async def test_a_successor_tells_what_its_predecessor_could_not(tmp_path: Path, hook: Heard) -> None:
    first = Lab(tmp_path)
    first.alerts.open("disk", "the disk was full", level="critical")
    first.alerts.resolve("disk")
    told = first.alerts.open("idle", "ada is idle", agent="ada")
    first.alerts.notified(first.alerts.open_alerts[0], 1, "json", ok=True)
    await first.close()

    second = Lab(tmp_path, hook.address)
    second.alerts.restore(read_events(second.path)[0])
    assert [one.alert_id for one in second.alerts.open_alerts] == [told]
    await second.until_notified(2)
    await second.close()
    assert [one["message"].split("\n")[0] for one in hook.told] == ["the disk was full"]

    third = Lab(tmp_path, hook.address)
    third.alerts.restore(read_events(third.path)[0])
    await third.close()
    assert len(hook.told) == 1


# addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("mailto://lab:s3cret-word@example.org:587/?to=eve@example.org", "mailto://***@example.org:587"),
        ("json://127.0.0.1:8080/token-in-path", "json://127.0.0.1:8080"),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/x", "https://hooks.slack.com"),
        ("tgram://123456789:abcdefg_hijklmnop/12315544", "tgram://***"),
        ("slack://${SLACK_TOKENS}", "slack://***"),
        ("${CHANNEL}", "${CHANNEL}"),
    ],
)
def test_only_scheme_and_host_are_shown(address: str, shown: str) -> None:
    assert mask_address(address) == shown
    assert AlertsConfig(notify=[shown]).notify == [shown]


def test_secrets_of_an_address_are_its_password_and_its_tokens() -> None:
    assert "correct horse" in address_secrets("mailto://lab:correct%20horse@example.org")
    assert {"123456789", "abcdefg_hijklmnop"} <= set(address_secrets("tgram://123456789:abcdefg_hijklmnop/12"))


def test_variables_are_filled_in_and_a_password_may_hold_anything() -> None:
    environ = {"WORD": "a/b@c:d", "HOOK": "json://127.0.0.1/a/b"}
    addresses = ["mailto://lab:${WORD}@example.org", "${HOOK}", "json://127.0.0.1/${WORD}"]
    assert notify_addresses(addresses, environ) == [
        "mailto://lab:a%2Fb%40c%3Ad@example.org",
        "json://127.0.0.1/a/b",
        "json://127.0.0.1/a/b@c:d",
    ]


def test_wrong_addresses_are_told_at_once(script_config: Callable[..., dict[str, Any]], runtime: Path) -> None:
    for address, said in (
        ("example.org", "an address of apprise is expected"),
        ("mailto://${SMTP-WORD}@example.org", r"a variable is written \$\{NAME\}"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(script_config("ada", alerts={"notify": [address]}))
    for address, said in (
        ("mailto://lab:${OLAB_NO_SUCH_WORD}@example.org", r"notify\[0\] names \$\{OLAB_NO_SUCH_WORD\}, which is not"),
        ("foo://secret-token/there", r"notify\[0\]: apprise does not understand foo://\*\*\*"),
    ):
        with pytest.raises(ConfigError, match=said):
            Cluster.start(script_config("ada", alerts={"notify": [address]}))
    assert list(runtime.iterdir()) == []


def test_a_configuration_is_shown_without_logins(script_config: Callable[..., dict[str, Any]]) -> None:
    config = load_config(script_config("ada", alerts={"notify": ["slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlaz"]}))
    assert "notify[0] is written with its login (slack://***)" in "".join(config.notes)
    assert to_dict(config)["cluster"]["alerts"] == {"notify": ["slack://***"]}
    assert "A1BRTD4JD" not in to_yaml(config)
    assert "A1BRTD4JD" in json.dumps(to_dict(config, masked=False))
