"""Every side of the comparison of clusters: its stores, its servers, and the people who come to them."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct

from benchmarks import databases
from benchmarks.databases import Database
from benchmarks.editing import HOCUSPOCUS, ROOMKEY, ROOMKEY_HOCUSPOCUS
from benchmarks.joined import (
    Documents,
    Joined,
    Rooms,
    documents_of,
    documents_of_hocuspocus,
    hocuspocuses,
    people,
    roomkeys,
    rooms_of,
    rooms_of_socketio,
    socketios,
)
from benchmarks.node import Missing
from benchmarks.processes import Secrets, new_secrets

REDIS: Final = "Redis"
POSTGRESQL: Final = "PostgreSQL"

NODES: Final = 3

HOCUSPOCUS_REDIS: Final = f"{HOCUSPOCUS}, Redis and Database (SQLite) extensions"
SOCKETIO: Final = "Socket.IO, Redis streams adapter"


def roomkey_on(store: str, *, hocuspocus: bool = False) -> str:
    """What a side is called."""
    return f"{ROOMKEY_HOCUSPOCUS if hocuspocus else ROOMKEY}, {store}"


class Ours(Struct, frozen=True):
    """Nodes of Roomkey on one store, and people for them."""

    store: str
    secrets: Secrets
    documents: Documents
    as_hocuspocus: Documents
    rooms: Rooms

    @property
    def joined(self) -> Joined:
        """The nodes."""
        return self.documents.joined


class Sides(Struct, frozen=True):
    """All servers, running; or why some are not."""

    ours: Mapping[str, Ours]
    hocuspocus: Documents | Missing
    socketio: Rooms | Missing
    missing: Mapping[str, str]
    """Stores that are not on this machine."""


STORES: Final[Mapping[str, Callable[[Path], AbstractContextManager[Database | Missing]]]] = {
    REDIS: databases.redis,
    POSTGRESQL: databases.postgresql,
}


@contextmanager
def all_sides(members: int) -> Generator[Sides]:
    """Every side, with people for rooms of so many members."""
    with ExitStack() as stack:
        ours: dict[str, Ours] = {}
        missing: dict[str, str] = {}
        for name in STORES:
            store = stack.enter_context(running(name))
            if isinstance(store, Missing):
                missing[name] = store.reason
                continue
            secrets = new_secrets()
            joined = stack.enter_context(roomkeys(NODES, store, secrets))
            tokens = people(joined, members)
            ours[name] = Ours(
                name,
                secrets,
                documents_of(joined, tokens),
                documents_of(joined, tokens, as_hocuspocus=True),
                rooms_of(joined, tokens),
            )
        yield Sides(ours, *_peers(stack, members), missing)


def _peers(stack: ExitStack, members: int) -> tuple[Documents | Missing, Rooms | Missing]:
    """Two of each peer, each pair on a Redis of its own."""
    stores = [stack.enter_context(running(REDIS)) for _ in range(2)]
    found: list[Joined | Missing] = []
    for store, start in zip(stores, (hocuspocuses, socketios), strict=True):
        found.append(store if isinstance(store, Missing) else stack.enter_context(start(2, store)))
    hocuspocus, socketio = found
    return (
        hocuspocus if isinstance(hocuspocus, Missing) else documents_of_hocuspocus(hocuspocus),
        socketio if isinstance(socketio, Missing) else rooms_of_socketio(socketio, members),
    )


@contextmanager
def running(name: str) -> Generator[Database | Missing]:
    """A store of its own."""
    with TemporaryDirectory(prefix="roomkey-benchmark-") as folder, STORES[name](Path(folder)) as store:
        yield store
