"""What joins nodes on PostgreSQL alone: what they publish, whom they show, which of them live."""

from roomkey.backends.sql.cluster.broker import PostgreSQLBroker
from roomkey.backends.sql.cluster.presence import PostgreSQLPresenceStore
from roomkey.backends.sql.cluster.registry import PostgreSQLNodeRegistry
from roomkey.backends.sql.cluster.trimming import Histories
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.dialects import Dialect
from roomkey.ports import Cluster

__all__ = ["Histories", "PostgreSQLBroker", "PostgreSQLNodeRegistry", "PostgreSQLPresenceStore", "open_cluster"]


def open_cluster(database: Database, node: str, kept: Histories) -> Cluster | None:
    """What joins the nodes on ``database``; ``None`` if it is none of PostgreSQL: the others can tell nobody."""
    if database.dialect is not Dialect.POSTGRESQL:
        return None
    return Cluster(
        PostgreSQLBroker(database, node, kept),
        PostgreSQLPresenceStore(database, node),
        PostgreSQLNodeRegistry(database),
    )
