"""The dashboard by itself: a Jupyter Server with this extension and terminals, without notebooks, files and kernels."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from jupyter_server.serverapp import ServerApp

from orchestrator_lab.server.app import OrchestratorLab

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Dashboard", "arguments", "exposed", "run"]


class DashboardServer(ServerApp):
    """A Jupyter Server that offers only what a dashboard needs."""

    name = "jupyter-server"
    # No contents, files, kernels, sessions, nbconvert or shutdown: what is not there needs no defence.
    default_services = ("api", "auth", "security")  # type: ignore[assignment]


class Dashboard(OrchestratorLab):
    """The extension, started by itself."""

    serverapp_class = DashboardServer
    # Jupyter's terminals are how a pane is watched or taken over from the page.
    serverapp_config: dict[str, Any] = {"jpserver_extensions": {"jupyter_server_terminals": True}}  # noqa: RUF012 - Jupyter's

    @classmethod
    def get_extension_package(cls) -> str:
        """Return the module that names the extension."""
        return "orchestrator_lab.server"


def arguments(
    *,
    port: int,
    ip: str,
    certfile: str | None,
    keyfile: str | None,
    browser: bool,
    more: Sequence[str] = (),
) -> list[str]:
    """Return what Jupyter's command line is given.

    Parameters
    ----------
    port : int
        Where it listens; the next free one when it is taken.
    ip : str
        Address that it listens on.
    certfile, keyfile : str or None
        For TLS.
    browser : bool
        Whether a browser is opened.
    more : sequence of str
        Jupyter's own options.

    Returns
    -------
    list of str
        Options of ``jupyter server``.

    Examples
    --------
    >>> arguments(port=8000, ip="127.0.0.1", certfile=None, keyfile=None, browser=True)[:2]
    ['--ServerApp.port=8000', '--ServerApp.ip=127.0.0.1']
    """
    given = [
        f"--ServerApp.port={port}",
        f"--ServerApp.ip={ip}",
        f"--ServerApp.open_browser={browser}",
        f"--ExtensionApp.open_browser={browser}",
        "--ServerApp.allow_unauthenticated_access=False",
    ]
    if certfile is not None:
        given.append(f"--ServerApp.certfile={certfile}")
    if keyfile is not None:
        given.append(f"--ServerApp.keyfile={keyfile}")
    return [*given, *more]


def exposed(ip: str, certfile: str | None) -> bool:
    """Tell whether other machines reach the server, and what they send can be read on the way.

    Examples
    --------
    >>> exposed("127.0.0.1", None), exposed("0.0.0.0", None), exposed("0.0.0.0", "cert.pem")
    (False, True, False)
    """
    if certfile is not None or ip == "localhost":
        return False
    try:
        return not ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return True


def run(argv: Sequence[str]) -> None:
    """Serve until it is interrupted."""
    Dashboard.launch_instance(list(argv))  # type: ignore[no-untyped-call]
