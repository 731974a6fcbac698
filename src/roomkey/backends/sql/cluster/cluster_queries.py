"""The statements of what joins nodes."""

from typing import NamedTuple

from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.statements import Query, load


class ClusterQueries(NamedTuple):
    """The statements of ``queries/cluster.sql``."""

    channel: Query
    heads: Query
    found: Query
    publish: Query
    news: Query
    look: Query
    found_rooms: Query
    let_go: Query
    sweep_passing: Query
    crowded: Query
    trim: Query
    forget_keys: Query
    forget_rooms: Query
    forget_senders: Query
    show: Query
    here: Query
    forget_node: Query
    forget_strangers: Query
    renew: Query
    leave: Query
    nodes: Query
    bury: Query

    @classmethod
    def load(cls) -> "ClusterQueries":
        """Those of PostgreSQL, which alone joins nodes."""
        return load("cluster", Dialect.POSTGRESQL, cls)
