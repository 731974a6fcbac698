"""What happens to nodes, to stores and to sessions: one function for each act of a plan."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from roomkey.domain.access import Access, Grant, Grants
from roomkey.domain.session import SessionId
from roomkey.errors import RoomkeyError
from roomkey.realtime.transport import Accepted, Handshake
from roomkey.testing.simulation.at_rest import count_sessions
from roomkey.testing.simulation.clients import Client
from roomkey.testing.simulation.history import FAILOVER, What
from roomkey.testing.simulation.nodes import Services
from roomkey.testing.simulation.plan import Act, Step
from roomkey.testing.simulation.stores import Follower
from roomkey.testing.simulation.world import World

READABLE: Final[Grants] = (Grant("**", Access.READ),)

SLOWNESS_SECONDS: Final = ((0.01, 0.1), (0.1, 0.6), (0.6, 1.5))

# --- nodes and stores -----------------------------------------------------------------------------


def crash(world: World, step: Step) -> None:
    services = world.nodes[step.number]
    if services is None or not services.is_up:
        return
    world.note(What.FAULT, node=services.id, text="down")
    services.kill()
    world.nodes[step.number] = None
    for connection in [each for each in world.connections if each.services is services]:
        connection.node_died()
    world.loop.call_later(step.seconds, world.restart, step.number, services.id)


async def drain(world: World, step: Step) -> None:
    services = world.nodes[step.number]
    if services is None or not services.is_up:
        return
    world.note(What.FAULT, node=services.id, text="down")
    world.nodes[step.number] = None
    try:
        async with asyncio.timeout(10):
            await services.stop(timedelta(seconds=step.seconds / 2))
    except TimeoutError:
        services.kill()
    services.store_link.is_dead = services.broker_link.is_dead = True
    world.restart(step.number, services.id)


def cut_store(world: World, step: Step) -> None:
    _fault(world, step, "store", lambda services, on: setattr(services.store_link, "is_cut", on))


def cut_broker(world: World, step: Step) -> None:
    def cut(services: Services, on: bool) -> None:  # noqa: FBT001  # as faults are called
        services.broker_link.is_cut = on
        _cut_feed(services, on)

    _fault(world, step, "broker", cut)


def cut_feed(world: World, step: Step) -> None:
    _fault(world, step, "feed", _cut_feed)


def _cut_feed(services: Services, on: bool) -> None:  # noqa: FBT001  # as faults are called
    if on:
        services.broker.disconnect()
    else:
        services.broker.reconnect()


def slow(world: World, step: Step) -> None:
    slowness = world.chance.uniform(*world.chance.choice(SLOWNESS_SECONDS))
    _fault(world, step, "slow", lambda services, on: setattr(services.store_link, "slowness", slowness * on))


def _fault(world: World, step: Step, text: str, set_to: Callable[[Services, bool], None]) -> None:
    services = world.nodes[step.number]
    if services is not None and services.is_up:
        _fault_of(world, services, step.seconds, text, set_to)


def _fault_of(
    world: World, services: Services, seconds: float, text: str, set_to: Callable[[Services, bool], None]
) -> None:
    def end() -> None:
        set_to(services, False)
        world.note(What.OVER, node=services.id, text=text)

    world.note(What.FAULT, node=services.id, text=text)
    set_to(services, True)
    world.loop.call_later(seconds, end)


def store_away(world: World, step: Step) -> None:
    for services in world.nodes:
        if services is not None and services.is_up:
            _fault_of(
                world, services, step.seconds, "store", lambda services, on: setattr(services.store_link, "is_cut", on)
            )


def broker_lost(world: World, step: Step) -> None:
    del step
    world.note(What.FAULT, text="history")
    world.deployment.lose_what_is_shared_in_memory()
    for services in world.nodes:
        if services is not None:
            services.broker.disconnect()
            world.loop.call_later(world.chance.uniform(0.01, 0.5), services.broker.reconnect)
    world.loop.call_later(0.5, lambda: world.note(What.OVER, text="history"))


def fail_over(world: World, step: Step) -> None:
    """What was appended from now on until the failover is lost, though it was acknowledged."""
    follower = Follower(world.deployment.documents)

    def take_over() -> None:
        world.note(What.FAULT, text=FAILOVER)
        follower.take_over(world.deployment.documents)

    world.loop.call_later(step.seconds, take_over)


# --- clients --------------------------------------------------------------------------------------


def stall(world: World, step: Step) -> None:
    connection = world.clients[step.number].connection
    if connection is not None:
        connection.stall()
        world.loop.call_later(step.seconds, connection.go_on_reading)


# --- operators ------------------------------------------------------------------------------------


Order = Callable[[Services, SessionId, Client], Coroutine[Any, Any, Any]]


async def _command(world: World, step: Step, text: str, order: Order) -> None:
    client = world.clients[step.number]
    services = world.any_node()
    session = client.session
    if services is None or session is None:
        return
    about = {"session": session, "text": text, "who": client.user, "document": client.document}
    world.note(What.ASKED, **about)
    try:
        await services.do(order(services, session, client))
    except (RoomkeyError, ConnectionError) as error:
        world.note(What.FAILED, **about | {"document": type(error).__name__})
    else:
        world.note(What.DONE, **about)


async def suspend(world: World, step: Step) -> None:
    await _command(world, step, "suspend", lambda on, session, _: on.sessions.suspend_session(session))


async def resume(world: World, step: Step) -> None:
    await _command(world, step, "resume", lambda on, session, _: on.sessions.resume_session(session))


async def revoke(world: World, step: Step) -> None:
    """Before it, while it happens, and after it the client sends requests."""
    client = world.clients[step.number]
    window = world.chance.choice((0.02, 0.2, 2.0))
    for _ in range(6):
        world.later(world.chance.uniform(0.0, window), ask, world, step)
    await asyncio.sleep(world.chance.uniform(0.0, window))
    session, token = client.session, client.token
    await _command(world, step, "revoke", lambda on, session, _: on.sessions.invalidate_session(session))
    for seconds in (0.06, 0.15, 0.3, 0.6):
        world.later(seconds, ask, world, step, session, token)


async def revoke_user(world: World, step: Step) -> None:
    await _command(world, step, "revoke user", lambda on, _, client: on.sessions.revoke_user(client.user))


async def shrink(world: World, step: Step) -> None:
    await _command(world, step, "read only", lambda on, session, _: on.sessions.change_grants(session, READABLE))


async def ban(world: World, step: Step) -> None:
    await _command(world, step, "no grants", lambda on, session, _: on.sessions.change_grants(session, ()))


async def delete(world: World, step: Step) -> None:
    await _command(world, step, "delete document", lambda on, _, client: on.service.delete(client.document))


def ask(world: World, step: Step, session: SessionId | None = None, token: str = "") -> None:
    client = world.clients[step.number]
    session, token = session or client.session, token or client.token
    for services in world.nodes:
        if services is not None and services.is_up and session is not None:
            world.spawn(_ask(world, services, session, token))


async def _ask(world: World, services: Services, session: SessionId, token: str) -> None:
    begun = int(world.loop.time() * 1_000_000)
    with suppress(RoomkeyError, ConnectionError):
        await services.do(services.sessions.authenticate(token))
        world.note(What.SERVED, node=services.id, session=session, number=begun)


async def ticket(world: World, step: Step) -> None:
    """One ticket comes to two nodes at once."""
    client, services = world.clients[step.number], world.any_node()
    if services is None or client.session is None:
        return
    try:
        ticket = await services.do(services.tickets.issue(client.session))
    except (RoomkeyError, ConnectionError):
        return
    nodes = [each for each in world.nodes if each is not None and each.is_up]
    name = f"ticket-{step.at}"
    await asyncio.gather(*(_redeem(world, each, ticket, name) for each in nodes))


async def _redeem(world: World, services: Services, ticket: str, name: str) -> None:
    handshake = Handshake(path="/ws", raw_path="/ws", query={"ticket": ticket}, headers={}, client_ip="192.0.2.1")
    try:
        answer = await services.accept(handshake)
    except ConnectionError:
        return
    if isinstance(answer, Accepted):
        answer.conversation.closed(1006)
        world.note(What.REDEEMED, node=services.id, text=name)


async def crowd(world: World, step: Step) -> None:
    """A user signs in on all nodes at once, several times."""
    nodes = [each for each in world.nodes if each is not None and each.is_up]
    await asyncio.gather(*(_crowd(world, each, world.clients[step.number].user) for each in nodes for _ in range(2)))


async def _crowd(world: World, services: Services, user: str) -> None:
    try:
        issued = await services.do(services.sessions.create_session(user, grants=world.grants, activate=True))
    except (RoomkeyError, ConnectionError):
        return
    world.note(What.SIGNED_IN, session=issued.id, text=user)
    count_sessions(world, user)


ACTS: Final[dict[Act, Callable[[World, Step], Coroutine[Any, Any, None] | None]]] = {
    Act.EDIT: lambda world, step: world.clients[step.number].edit(),
    Act.SHOW: lambda world, step: world.clients[step.number].show(),
    Act.CUT: lambda world, step: world.clients[step.number].go(politely=False, back=True),
    Act.LEAVE: lambda world, step: world.clients[step.number].go(politely=True, back=True),
    Act.GO: lambda world, step: world.clients[step.number].go(politely=True, back=False),
    Act.STALL: stall,
    Act.SUSPEND: suspend,
    Act.RESUME: resume,
    Act.REVOKE: revoke,
    Act.REVOKE_USER: revoke_user,
    Act.SHRINK: shrink,
    Act.BAN: ban,
    Act.TICKET: ticket,
    Act.CROWD: crowd,
    Act.DELETE: delete,
    Act.ASK: ask,
    Act.CRASH: crash,
    Act.DRAIN: drain,
    Act.CUT_STORE: cut_store,
    Act.CUT_BROKER: cut_broker,
    Act.CUT_FEED: cut_feed,
    Act.SLOW: slow,
    Act.STORE_AWAY: store_away,
    Act.BROKER_LOST: broker_lost,
    Act.STORE_FAILS_OVER: fail_over,
}
