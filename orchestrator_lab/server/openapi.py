"""The OpenAPI document, made from the routes and from the models that check what is asked."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from orchestrator_lab import __version__
from orchestrator_lab.server import models
from orchestrator_lab.server.errors import STATUSES
from orchestrator_lab.server.routes import API, PLACES, ROUTES
from orchestrator_lab.server.spoken import described

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaMode

    from orchestrator_lab.server.routes import Route

__all__ = ["document"]

_REF = "#/components/schemas/{model}"


def document(base_url: str = "/") -> dict[str, Any]:
    """Return the document.

    Parameters
    ----------
    base_url : str
        The Jupyter server's.

    Returns
    -------
    dict
        OpenAPI 3.1.

    Examples
    --------
    >>> document()["paths"]["/clusters"]["get"]["summary"]
    'Return the clusters that run'
    """
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(models.ErrorReply, "serialization")]
    wanted += [(route.reply, "serialization") for route in ROUTES]
    wanted += [(route.body, "validation") for route in ROUTES if route.body is not None]
    refs, schemas = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orchestrator Lab",
            "version": __version__,
            "description": "Clusters of command-line agents, under the login of a Jupyter server.",
        },
        "servers": [{"url": f"{base_url.rstrip('/')}{API.rstrip('/')}"}],
        "security": [{"token": []}],
        "paths": paths,
        "x-websocket": described(),
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "'token ' and the server's token",
                }
            },
        },
    }


def _operation(route: Route, refs: Mapping[Any, Any]) -> dict[str, Any]:
    parameters = [
        {"name": place, "in": "path", "required": True, "schema": PLACES[place].json_schema()}
        for place in re.findall(r"{(\w+)}", route.path)
    ]
    asked = route.query.model_json_schema()
    for name, schema in asked.get("properties", {}).items():
        plain = {key: value for key, value in schema.items() if key not in {"title", "description"}}
        # A query holds no null: what may be left out is left out.
        choices = [one for one in plain.pop("anyOf", []) if one.get("type") != "null"]
        if plain.get("default", "") is None:
            del plain["default"]
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": schema.get("description", ""),
                "schema": {**plain, **(choices[0] if choices else {})},
            }
        )
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": _response("Done.", refs[route.reply, "serialization"]),
            **{
                str(status): _response(HTTPStatus(status).phrase, refs[models.ErrorReply, "serialization"])
                for status in STATUSES
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": bool(route.body.model_json_schema().get("required")),
            "content": {"application/json": {"schema": refs[route.body, "validation"]}},
        }
    return operation


def _response(meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}
