"""The OpenAPI document is valid, complete, and true: whatever it allows, and what it does not, is answered in order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import jsonschema
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from orchestrator_lab.server.openapi import document
from orchestrator_lab.server.routes import ROUTES

if TYPE_CHECKING:
    from web_helpers import Door

    from orchestrator_lab import Cluster

#: What would end the cluster of these tests or its programs, or start others: tried elsewhere.
_APART = {
    "doing_start",
    "doing_shutdown",
    "doing_stop",
    "doing_restart",
    "doing_stop_agent",
    "doing_restart_agent",
    "doing_keys",
}
_EXAMPLES = 8


def test_every_route_is_in_the_document_once() -> None:
    made = document("/hub/")
    listed = [(method.upper(), path.lstrip("/")) for path, one in made["paths"].items() for method in one]
    assert sorted(listed) == sorted((route.method, route.path) for route in ROUTES)
    names = [one["operationId"] for path in made["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names)
    assert made["servers"] == [{"url": "/hub/orchestrator-lab/api"}]
    refs = set(re.findall(r"#/components/schemas/(\w+)", str(made)))
    assert refs <= set(made["components"]["schemas"])


def test_the_websocket_is_in_the_document_as_in_the_documentation(door: Door) -> None:
    spoken = document()["x-websocket"]
    page = (Path(__file__).parents[2] / "docs" / "web-api.md").read_text(encoding="utf-8").partition("## Websocket")[2]
    told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) | {"event"}
    assert set(spoken["events"]) == told
    mapping = spoken["requests"]["discriminator"]["mapping"]
    assert set(mapping) == set(re.findall(r'^\| `\{"op": "(\w+)"', page, re.MULTILINE))
    socket = door.socket()
    socket.send('{"op": "get_status", "cluster": "nobody"}')
    socket.send('{"op": "ping"}')
    waited = {"connected", "clusters", "error", "pong"}
    while waited:
        frame = json.loads(socket.recv())
        jsonschema.validate(frame["data"], spoken["events"][frame["event"]]["data"])
        waited.discard(frame["event"])


def test_the_server_serves_the_document(door: Door) -> None:
    served = door.get("api/openapi.json").json()
    assert served == document("/base/")


def operations(door: Door) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document("/base/"))
    schema.config.update(base_url=f"{door.url}/base/orchestrator-lab/api")
    found = [result.ok() for result in schema.get_all_operations()]
    return [one for one in found if one.definition.raw["operationId"] not in _APART]


def test_no_request_makes_the_server_fail(door: Door, cluster: Cluster) -> None:
    """Each operation with values that its schema allows, and values that it does not; real names among them."""
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    tried = 0
    for operation in operations(door):
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            @hypothesis.settings(
                max_examples=_EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=hypothesis.strategies.booleans())
            def attempt(case: Any, real: bool) -> None:
                nonlocal tried
                tried += 1
                parameters = case.path_parameters or {}
                if real and "cluster" in parameters:
                    parameters["cluster"] = "lab"
                    if "agent" in parameters:
                        parameters["agent"] = "ada"
                    case.path_parameters = parameters
                if isinstance(case.body, dict) and "timeout_s" in case.body:
                    case.body["timeout_s"] = 0.01
                if isinstance(case.query, dict) and "timeout_s" in case.query:
                    case.query["timeout_s"] = "0.01"
                case.call_and_validate(headers=door.authorization, checks=checks, timeout=20)

            try:
                attempt()
            except hypothesis.errors.Unsatisfiable:
                continue  # no request of this operation is wrong in this way
    assert tried > 350
    assert cluster.status()["status"] == "running"
