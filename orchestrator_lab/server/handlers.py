"""Tornado handlers of the REST API: login, size, names and models are checked here, once for all routes."""

from __future__ import annotations

import contextlib
import inspect
import json
from typing import TYPE_CHECKING, Any, cast

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from pydantic import ValidationError
from tornado import web
from tornado.iostream import StreamClosedError

from orchestrator_lab.acting import Actor, acting
from orchestrator_lab.errors import OrchestratorLabError, addressed, to_payload
from orchestrator_lab.server.asked import Asked
from orchestrator_lab.server.errors import http_problem, status_of, wrong_request
from orchestrator_lab.server.openapi import document
from orchestrator_lab.server.routes import API, PLACES, ROUTES, Route, pattern

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from pydantic import BaseModel

    from orchestrator_lab.server.app import OrchestratorLab
    from orchestrator_lab.server.clusters import Clusters

__all__ = ["AUTH_RESOURCE", "LabMixin", "api_handlers"]

#: What Jupyter's authorizer is asked about.
AUTH_RESOURCE = "orchestrator_lab"
#: A body that is declared longer than this is not even read to its end.
_HOPELESS = 64 * 1024 * 1024


class LabMixin(ExtensionHandlerMixin):
    """What every handler of the extension shares."""

    auth_resource = AUTH_RESOURCE
    request: Any
    current_user: Any

    @property
    def clusters(self) -> Clusters:
        """The clusters of this machine."""
        return cast("Clusters", self.settings["orchestrator_lab_clusters"])

    @property
    def actor(self) -> Actor:
        """Who asks, and from where: what the audit says."""
        user = self.current_user
        return Actor(str(getattr(user, "username", None) or user), self.request.remote_ip)


@web.stream_request_body
class LabHandler(LabMixin, APIHandler):
    """Base of the handlers of the API: bodies of a bounded size, errors of one shape."""

    def initialize(self, name: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Tornado's
        """Begin with no body."""
        super().initialize(name, *args, **kwargs)
        self._received = bytearray()
        self._too_long = False

    @property
    def _longest(self) -> int:
        return cast("OrchestratorLab", self.extensionapp).max_body_bytes

    async def prepare(self) -> None:  # type: ignore[override] # as in Jupyter's own
        """Check the login first, and then what the body is said to be."""
        declared = self.request.headers.get("Content-Length", "")
        length = int(declared) if declared.isdigit() else 0
        try:
            await super().prepare()
        except web.HTTPError:
            self._too_long = True
            if length <= _HOPELESS:
                await self._let_pass()
            raise
        self._too_long = length > self._longest
        if length > _HOPELESS:
            self._refuse_length()

    async def _let_pass(self) -> None:
        """Let a body that nobody reads go by: a connection that is closed over it can lose the answer."""
        if self._prepared_future is not None and not self._prepared_future.done():
            self._prepared_future.set_result(None)
        with contextlib.suppress(StreamClosedError):
            await self.request._body_future  # noqa: SLF001 - Tornado has no other word for the body's end

    def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body; of one that is too long nothing is kept, so that memory is bounded."""
        if self._too_long or len(self._received) + len(chunk) > self._longest:
            self._too_long = True
            self._received.clear()
        else:
            self._received += chunk

    def body(self) -> bytes:
        """Return the body, or refuse it."""
        if self._too_long:
            self._refuse_length()
        return bytes(self._received)

    def _refuse_length(self) -> None:
        raise web.HTTPError(
            413, f"the request's body is longer than {self._longest} bytes (OrchestratorLab.max_body_bytes)"
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # noqa: ANN401 - Tornado's
        """Tell an error in the one shape."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        message = error.log_message if isinstance(error, web.HTTPError) else None
        self.tell(status_code, http_problem(status_code, message if status_code in {400, 413} else None))

    def tell(self, status: int, payload: dict[str, Any]) -> None:
        """Answer with an error."""
        self.set_status(status)
        self.finish(json.dumps({"error": payload}))


class RouteHandler(LabHandler):
    """Answers the routes of one path."""

    def initialize(self, name: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Tornado's
        """Keep the routes, one a method."""
        self._routes: dict[str, Route] = kwargs.pop("routes")
        super().initialize(name, *args, **kwargs)

    @web.authenticated
    @authorized
    async def get(self, **places: str) -> None:
        """Look."""
        await self._answer(places)

    @web.authenticated
    @authorized
    async def post(self, **places: str) -> None:
        """Act."""
        await self._answer(places)

    async def _answer(self, places: dict[str, str]) -> None:
        route = self._routes.get(self.request.method or "")
        if route is None:
            self.set_header("Allow", ", ".join(self._routes))
            raise web.HTTPError(405)
        if route.terminals and not await ensure_async(
            self.authorizer.is_authorized(self, self.current_user, "write", "terminals")
        ):
            raise web.HTTPError(403)
        about: dict[str, str] = {}
        try:
            asked = self._check(route, places)
            about = asked.places
            reply = await self._call(route, asked)
        except OrchestratorLabError as error:
            told = addressed(error, cluster=about.get("cluster"), agent=about.get("agent"))
            self.tell(status_of(error), to_payload(told))
            return
        self.finish(json.dumps(reply))

    def _check(self, route: Route, places: dict[str, str]) -> Asked:
        """Return the request, checked by the models of its route."""
        part = "path"
        try:
            checked = {}
            for place, text in places.items():
                part = f"path ({place})"
                checked[place] = PLACES[place].validate_python(text)
            part = "query"
            given = {key: self.get_query_argument(key) for key in self.request.query_arguments}
            query = route.query.model_validate(given)
            part = "body"
            body = None if route.body is None else _body(route.body, self.body())
        except ValidationError as error:
            raise wrong_request(error, part) from error
        settings = self.settings
        return Asked(
            self.clusters,
            self.actor,
            cast("Path", settings["orchestrator_lab_root"]),
            checked,
            query,
            body,
            settings.get("terminal_manager") if settings.get("terminals_available") else None,
        )

    async def _call(self, route: Route, asked: Asked) -> dict[str, Any]:
        """Make the call, and have the supervisor know for whom."""
        with acting(asked.actor.by, origin=asked.actor.origin):
            if inspect.iscoroutinefunction(route.call):
                return await cast("Awaitable[dict[str, Any]]", route.call(asked))
            if route.files:
                return await self.clusters.read(lambda: cast("dict[str, Any]", route.call(asked)))
            return await self.clusters.call(asked.name, lambda: cast("dict[str, Any]", route.call(asked)))


def _body(model: type[BaseModel], raw: bytes) -> BaseModel:
    return model.model_validate_json(raw) if raw.strip() else model.model_validate({})


class OpenApiHandler(LabHandler):
    """Serves the OpenAPI document."""

    @web.authenticated
    @authorized
    def get(self) -> None:
        """Return the document."""
        self.finish(json.dumps(document(self.base_url)))


class NothingHandler(LabHandler):
    """Says that there is nothing here, to those who may know."""

    async def prepare(self) -> None:  # type: ignore[override] # as in Jupyter's own
        """Check the login, and give up."""
        await super().prepare()
        if not self.current_user:
            raise web.HTTPError(403)
        raise web.HTTPError(404)


def api_handlers() -> list[tuple[str, type[LabHandler], dict[str, Any]]]:
    """Return what Tornado is given: a handler for each path."""
    paths: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = route
    return [
        *((pattern(path), RouteHandler, {"routes": routes}) for path, routes in paths.items()),
        (f"{API}openapi\\.json", OpenApiHandler, {}),
    ]
