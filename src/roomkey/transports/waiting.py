"""Connections that wait for their clients: who must go when there are too many."""

from collections import OrderedDict
from typing import Final, Generic, Protocol, TypeVar

SHARE: Final = 4
"""A network with more than one part in so many makes room for its own newcomers."""

C = TypeVar("C")


class Droppable(Protocol):
    """A connection that can be told to make room."""

    def crowded_out(self) -> None:
        """Close: there are too many."""
        ...


class Waiting(Generic[C]):
    """
    The connections, the one that waits longest first, and by network.

    When there are too many, the one that has waited longest goes; of the newcomer's own network if that has its share,
    so that whoever opens connections and says nothing drives out his own and nobody else's.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._networks: OrderedDict[C, str] = OrderedDict()
        self._of_network: dict[str, OrderedDict[C, None]] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def __contains__(self, connection: object) -> bool:
        return connection in self._networks

    def enter(self, connection: C, network: str) -> C | None:
        """Add a connection that was not there; the one that must go, if there are too many."""
        self._networks[connection] = network
        neighbours = self._of_network.setdefault(network, OrderedDict())
        neighbours[connection] = None
        if len(self._networks) <= self._most:
            return None
        return next(iter(neighbours if len(neighbours) * SHARE > self._most else self._networks))

    def leave(self, connection: C) -> None:
        """It waits no more, if it did."""
        network = self._networks.pop(connection, None)
        if network is None:
            return
        neighbours = self._of_network[network]
        del neighbours[connection]
        if not neighbours:
            del self._of_network[network]
