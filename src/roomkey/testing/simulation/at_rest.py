"""What is looked at when a history is over: stores, copies, rooms and queues."""

from typing import Any

from roomkey.documents.loading import everything
from roomkey.domain.session import SessionFilter, SessionState
from roomkey.ports import Page
from roomkey.testing.simulation.clients import Client, JsonClient
from roomkey.testing.simulation.editors import Copy, Editor
from roomkey.testing.simulation.history import VISITOR, What
from roomkey.testing.simulation.network import at_once
from roomkey.testing.simulation.nodes import Services
from roomkey.testing.simulation.world import World
from roomkey.wire.lib0 import read_state


def visit(world: World) -> None:
    """Have somebody look into every room on every node: what they are shown is who is there."""
    for number in range(len(world.nodes)):
        for document in sorted({client.document for client in world.clients.values()}):
            name = f"{VISITOR}-{number}-{document}"
            visitor = JsonClient(name, name, document, world, world.fork(name))
            visitor.prefers = number
            visitor.come()


def look(world: World) -> None:
    """Write down how everything stands."""
    for user in sorted({client.user for client in world.clients.values()}):
        count_sessions(world, user)
    for document in sorted({client.document for client in world.clients.values()}):
        _look_at_document(world, document)
        position = at_once(world.deployment.broker.since(document, None)).position
        world.note(What.HEAD, document=document, epoch=position.epoch, offset=position.offset)
    for client in world.clients.values():
        _look_at_client(world, client)
    for services in world.nodes:
        if services is not None:
            _look_at_node(world, services)


def _look_at_document(world: World, document: str) -> None:
    stored = at_once(world.deployment.documents.load(document))
    if stored is None:
        return
    copy = Copy(1)
    for update in everything(stored):
        copy.take(update.data)
    state = dict(sorted(read_state(copy.doc.get_state()).items()))
    world.note(What.STORED, document=document, lineage=stored.record.lineage, text=str(copy), state=state)


def _look_at_client(world: World, client: Client) -> None:
    connection = client.connection
    about: dict[str, Any] = {
        "who": client.name,
        "document": client.document,
        "connection": "" if connection is None else connection.name,
        "node": "" if connection is None else connection.services.id,
        "session": client.session or "",
        "flag": client.is_in,
        "size": int(client.wants_in),
    }
    if isinstance(client, Editor):
        members = tuple(map(str, client.visible()))
        world.note(What.HOLDS, text=str(client.copy), number=client.copy.client, members=members, **about)
    elif isinstance(client, JsonClient) and client.position is not None:
        position = client.position
        world.note(What.HOLDS, epoch=position["epoch"], offset=position["offset"], **about)
    else:
        world.note(What.HOLDS, **about)


def _look_at_node(world: World, services: Services) -> None:
    if not services.is_up:
        world.note(What.DEFECT, node=services.id, text=f"does not run: {services.failure!r}")
        return
    look_at_queues(services, world)


def look_at_queues(services: Services, world: World) -> None:
    """Write down how much waits on a node, and how much may."""
    statistics = services.documents.statistics()
    limit = world.settings.documents.max_unsaved_bytes
    world.note(What.QUEUE, node=services.id, text="unsaved bytes", number=statistics.unsaved_bytes, size=limit)


def count_sessions(world: World, user: str) -> None:
    """Write down how many live sessions the store has of a user."""
    page = at_once(world.deployment.sessions.list(SessionFilter(user_id=user), Page(limit=500)))
    live = [session for session in page if session.state not in (SessionState.EXPIRED, SessionState.INVALIDATED)]
    world.note(What.LIVE, text=user, number=len(live), size=world.settings.policy.cap)
