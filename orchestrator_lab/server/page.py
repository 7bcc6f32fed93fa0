"""The dashboard's page and its files, under a policy that lets no text of an agent become a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from orchestrator_lab.server.handlers import LabMixin

__all__ = ["STATIC", "FileHandler", "PageHandler", "what_is_missing"]

#: Where the page's build puts its files.
STATIC = Path(__file__).parent / "static"
#: The terminal writes its styles into elements of its own; no script and no address but the server's is allowed.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self' data:; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "object-src 'none'; frame-ancestors 'self'"
)


def what_is_missing(folder: Path = STATIC) -> str | None:
    """Return a sentence when the page was not built, None when it is there."""
    if (folder / "index.html").is_file():
        return None
    return (
        f"the dashboard's page is not built: {folder / 'index.html'} is missing; install "
        "orchestrator-lab from a wheel, or again from its sources (pip install .) so that its build runs"
    )


class _Page(LabMixin, JupyterHandler):
    @property
    def content_security_policy(self) -> str:
        """Allow scripts of this server only, and none in the page itself."""
        return _POLICY

    def set_default_headers(self) -> None:
        """Add what a browser must not guess."""
        super().set_default_headers()
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")


class PageHandler(_Page):
    """Serves the page."""

    @web.authenticated
    @authorized
    def get(self) -> None:
        """Return the page, and the cookie that its requests have to repeat."""
        _ = self.xsrf_token
        missing = what_is_missing()
        if missing is not None:
            self.set_status(404)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(missing + "\n")
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish((STATIC / "index.html").read_bytes())


class FileHandler(_Page, web.StaticFileHandler):
    """Serves the page's files; Tornado refuses every path that leads out of their folder."""

    def initialize(self, name: str, *_: Any, **__: Any) -> None:  # type: ignore[override] # noqa: ANN401 - Tornado's
        """Serve one folder."""
        self.name = name
        web.StaticFileHandler.initialize(self, path=str(STATIC))

    @web.authenticated
    @authorized
    def head(self, path: str) -> Any:  # type: ignore[override] # noqa: ANN401 - Tornado's
        """Return what is said of a file."""
        return web.StaticFileHandler.get(self, path, include_body=False)

    @web.authenticated
    @authorized
    def get(self, path: str) -> Any:  # type: ignore[override] # noqa: ANN401 - Tornado's
        """Return a file."""
        return web.StaticFileHandler.get(self, path)

    def set_extra_headers(self, path: str) -> None:
        """Have the browser ask again: a new version has the same names."""
        del path
        self.set_header("Cache-Control", "no-cache")
