"""The door is shut to whoever has no business here: no token, another origin, another user, too much, elsewhere."""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import socket
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from web_helpers import BASE, Door, attributes, deeds, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator_lab import Cluster

LOOKS = ["api/clusters", "api/clusters/lab/status", "api/openapi.json", "metrics", "api/nothing/at/all"]


@pytest.fixture
def anonymous(door: Door) -> Iterator[httpx.Client]:
    with door.client(headers={}) as client:
        yield client


@pytest.fixture
def browser(door: Door) -> Iterator[httpx.Client]:
    """A browser that has logged in: it has the cookies, and no token in its requests."""
    with door.client(headers={}) as client:
        client.get("", params={"token": door.token})
        assert client.get("api/clusters").status_code == 200
        yield client


# login --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LOOKS)
def test_without_a_token_there_is_no_data(anonymous: httpx.Client, cluster: Cluster, path: str) -> None:
    for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": "Bearer x"}):
        answer = anonymous.get(path, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "Forbidden"
        assert cluster.run_id not in answer.text


@pytest.mark.parametrize("path", ["", "static/dashboard.js", "static/../app.py"])
def test_without_a_token_there_is_no_page(anonymous: httpx.Client, path: str) -> None:
    answer = anonymous.get(path)
    assert answer.status_code in {302, 403}
    if answer.status_code == 302:
        assert "/login" in answer.headers["location"]


def test_without_a_token_nothing_is_done(anonymous: httpx.Client, door: Door, cluster: Cluster) -> None:
    before = deeds(cluster)
    for path in ("stop", "messages", "agents/ada/terminal", "shutdown"):
        assert anonymous.post(f"api/clusters/lab/{path}", json={}).status_code == 403
    assert anonymous.post("api/clusters", json={"template": "duo"}).status_code == 403
    assert deeds(cluster) == before
    assert door.get("api/clusters/lab/status").json()["status"] == "running"


# other pages --------------------------------------------------------------------------------------


def test_a_page_of_another_origin_gets_no_data(browser: httpx.Client) -> None:
    answer = browser.get("api/clusters", headers={"Origin": "http://evil.example"})
    assert answer.status_code in {403, 404}
    assert "access-control-allow-origin" not in answer.headers or not answer.headers["access-control-allow-origin"]


def test_a_request_to_another_host_is_refused(door: Door) -> None:
    """DNS rebinding: the name of another site leads here."""
    assert door.get("api/clusters", headers={"Host": "evil.example"}).status_code == 403


def test_a_cookie_alone_changes_nothing(browser: httpx.Client, cluster: Cluster) -> None:
    before = deeds(cluster)
    refused = browser.post("api/clusters/lab/messages", json={"to": "ada", "text": "forged"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "Forbidden")
    wrong = browser.post("api/clusters/lab/stop", json={}, headers={"X-XSRFToken": "guessed"})
    assert wrong.status_code == 403
    assert deeds(cluster) == before
    token = browser.cookies.get("_xsrf")
    sent = browser.post(
        "api/clusters/lab/messages", json={"to": "ada", "text": "mine"}, headers={"X-XSRFToken": str(token)}
    )
    assert sent.status_code == 200, sent.text


def test_the_page_lets_no_text_become_a_script(door: Door) -> None:
    policy = door.get("").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";") if " " in rule.strip())
    assert rules["script-src"] == "'self'"
    assert rules["default-src"] == "'none'"
    assert (rules["base-uri"], rules["object-src"], rules["frame-ancestors"]) == ("'none'", "'none'", "'self'")
    answer = door.get("api/clusters")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].startswith("application/json")


# too much, and elsewhere --------------------------------------------------------------------------


def test_a_body_that_is_too_long_gets_413_whether_it_says_so_or_not(door: Door, cluster: Cluster) -> None:
    before = deeds(cluster)
    long = b'{"to": "ada", "text": "' + b"x" * (11 * 1024 * 1024) + b'"}'
    with door.client() as client:
        said = client.post("api/clusters/lab/messages", content=long)
        # Without a length: chunked.
        pieces = (long[start : start + 65536] for start in range(0, len(long), 65536))
        unsaid = client.post("api/clusters/lab/messages", content=pieces)
    for answer in (said, unsaid):
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "BodyTooLarge")
        assert "max_body_bytes" in answer.json()["error"]["message"]
    assert deeds(cluster) == before


def test_a_hopeless_length_is_refused_before_the_body(door: Door) -> None:
    place = urlsplit(door.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
    headers = {**door.authorization, "Content-Length": str(400 * 1024 * 1024), "Content-Type": "application/json"}
    connection.putrequest("POST", f"{BASE}/api/clusters/lab/messages")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "api/clusters/..%2F..%2Fetc/status",
        "api/clusters/%2e%2e/status",
        "api/clusters/lab%00/status",
        "api/clusters/lab/agents/..%2Fboss/screen",
        "api/clusters/lab/messages/..%2f..%2fstatus",
        "static/..%2f..%2fapp.py",
        "static/%2e%2e/%2e%2e/app.py",
        "static//etc/passwd",
        "static/..%5capp.py",
    ],
)
def test_names_lead_nowhere_else(door: Door, path: str) -> None:
    place = urlsplit(door.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
    # httpx would tidy the path up.
    connection.request("GET", f"{BASE}/{path}", headers=door.authorization)
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status in {400, 403, 404}
    assert "import" not in text
    assert "root:" not in text
    connection.close()


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"to": "ada", "text": NaN}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(door: Door, raw: bytes) -> None:
    with door.client() as client:
        answer = client.post("api/clusters/lab/messages", content=raw)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "ConfigError")


def test_a_name_in_the_audit_cannot_forge_a_header_or_a_line(cluster: Cluster) -> None:
    from orchestrator_lab.acting import acting

    with acting("eve\r\nX-Lab-From: here\n\x1b[31m" + "x" * 999, origin="::1\r\n"):
        cluster.wait(timeout=20)
        cluster["ada"].restart()
        cluster.wait(timeout=20)
    (entry,) = attributes(cluster, "restart")
    assert entry["by"].startswith("eve\ufffd\ufffdX-Lab-From: here\ufffd\ufffd[31mxxx")
    assert (len(entry["by"]), entry["origin"], entry["agent"]) == (200, "::1\ufffd\ufffd", "ada")


# other users --------------------------------------------------------------------------------------

_INTRUDER = """
import os, socket, sys
folder = sys.argv[1]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
tried = 0
for name in ("", "/lab", "/lab/api.sock", "/lab/keeper.sock", "/lab/tmux.sock", "/lab/environ.json", "/lab/agents"):
    for action in (os.listdir, open, lambda path: socket.socket(socket.AF_UNIX).connect(path)):
        try:
            action(folder + name)
        except OSError as error:
            tried += 1
            assert error.errno in (13, 20, 21), (name, error)
        else:
            raise SystemExit(f"{folder + name} was open")
print(tried)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_of_the_machine_gets_nowhere(cluster: Cluster, module_runtime: Path) -> None:
    del cluster
    # The folders above are a test's own, and closed as well: the cluster's must hold by itself.
    parents = [parent for parent in module_runtime.parents if parent.stat().st_mode & 0o077 == 0]
    modes = {parent: parent.stat().st_mode & 0o777 for parent in parents}
    try:
        for parent in parents:
            parent.chmod(0o711)
        tried = subprocess.run(
            [sys.executable, "-I", "-c", _INTRUDER, str(module_runtime)],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    finally:
        for parent, mode in modes.items():
            parent.chmod(mode)
    assert tried.returncode == 0, tried.stderr
    assert int(tried.stdout) == 21


def test_the_run_and_the_runtime_folder_are_the_users_own(cluster: Cluster, module_runtime: Path) -> None:
    assert module_runtime.stat().st_mode & 0o777 == 0o700
    assert cluster.run_dir.stat().st_mode & 0o777 == 0o700
    for path in (module_runtime / "lab").rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # what is written is renamed at any time
            if not path.is_symlink():
                assert path.stat().st_mode & 0o077 == 0 or path.is_dir(), path


# the server itself --------------------------------------------------------------------------------


def test_the_dashboard_offers_no_files_no_kernels_and_no_way_to_end_it(door: Door) -> None:
    with httpx.Client(base_url=f"{door.url}/base", headers=door.authorization) as client:
        for path in ("api/contents", "api/kernels", "api/sessions", "api/kernelspecs", "files/x", "nbconvert/html/x"):
            assert client.get(path).status_code == 404
        assert client.post("api/shutdown").status_code == 404
        assert client.get("api/terminals").status_code == 200


def test_tls_is_jupyters_own(tmp_path: Path, runtime: Path) -> None:
    del runtime
    subprocess.run(
        shlex.split(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost "
            "-addext subjectAltName=IP:127.0.0.1"
        ),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    with served("--certfile", str(tmp_path / "cert.pem"), "--keyfile", str(tmp_path / "key.pem")) as door:
        assert door.url.startswith("https://")
        import ssl

        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        with door.client(verify=trusted) as client:
            assert client.get("api/clusters").json() == {"clusters": []}
        # In the clear there is nothing to hear.
        place = urlsplit(door.url)
        with socket.create_connection((str(place.hostname), place.port), timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1 200" not in plain.recv(1000)
