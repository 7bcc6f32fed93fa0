"""A request of the web API, checked: what its function is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from pydantic import BaseModel

if TYPE_CHECKING:
    from pathlib import Path

    from jupyter_server_terminals.terminalmanager import TerminalManager

    from orchestrator_lab.acting import Actor
    from orchestrator_lab.cluster import Cluster
    from orchestrator_lab.server.clusters import Clusters, Tables
    from orchestrator_lab.server.models import TableName
    from orchestrator_lab.server.pages import EventPages

__all__ = ["Asked"]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Parameters
    ----------
    clusters : Clusters
        Where clusters are found.
    actor : Actor
        Who asks, and from where.
    root : Path
        The server's root folder.
    places : dict of str to str
        The variable parts of the path, checked.
    query, body : pydantic.BaseModel or None
        What else was asked, checked.
    terminals : TerminalManager or None
        Jupyter's terminals; None where they are switched off.
    """

    clusters: Clusters
    actor: Actor
    root: Path
    places: dict[str, str] = field(default_factory=dict)
    query: BaseModel | None = None
    body: BaseModel | None = None
    terminals: TerminalManager | None = None

    @property
    def name(self) -> str | None:
        """The cluster's name, None where the request is for none."""
        return self.places.get("cluster")

    @property
    def cluster(self) -> Cluster:
        """The cluster; finding it makes blocking calls."""
        return self.clusters.get(self.places["cluster"])

    async def attached(self) -> Cluster:
        """Return the cluster without blocking the loop."""
        return await self.clusters.call(self.name, lambda: self.cluster)

    @property
    def tables(self) -> Tables:
        """The tables of the cluster's run."""
        return self.clusters.tables(self.places["cluster"])

    @property
    def events(self) -> EventPages:
        """The journal of the cluster's run."""
        return self.clusters.events(self.places["cluster"])

    @property
    def agent(self) -> str:
        """Name of the agent."""
        return self.places["agent"]

    @property
    def message(self) -> str:
        """Id of the message."""
        return self.places["message"]

    @property
    def alert(self) -> str:
        """Id of the alert."""
        return self.places["alert"]

    @property
    def table(self) -> TableName:
        """Name of the table."""
        return cast("TableName", self.places["table"])

    def query_as(self, model: type[M]) -> M:
        """Return the query as what its route says that it is."""
        assert isinstance(self.query, model)  # noqa: S101 - the route's own model checked it
        return self.query

    def body_as(self, model: type[M]) -> M:
        """Return the body as what its route says that it is."""
        assert isinstance(self.body, model)  # noqa: S101 - the route's own model checked it
        return self.body
