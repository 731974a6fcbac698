"""
Three nodes on one Redis, or on PostgreSQL alone, each with a line of its own to it: what happens when lines, nodes and
the store fail while people write on all three.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from shutil import rmtree
from typing import Final

import pytest

from roomkey.backends import open_documents
from roomkey.membership import LIFETIME
from roomkey.sessions.sight import BLIND_AFTER
from tests.support.crowd import Person, crowd, guest, marks_in
from tests.support.documents import AWARENESS, YClient, connected_to, entries_of, shown
from tests.support.room_member import RoomMember, in_room
from tests.support.server import running_server
from tests.support.serving_nodes import ServingNode, ServingNodes, serving_nodes
from tests.support.store_servers import PostgreSQLProcess, RedisProcess, redis
from tests.support.store_servers.fixtures import needs, server_folder
from tests.support.typist import Typist, typing

ENVIRONMENT: Final = {
    "ROOMKEY_MASTER_KEY": "k" * 43,
    "ROOMKEY_NODES_BLIND_GRACE": "2s",
    "ROOMKEY_STORAGE_MIGRATE": "true",
    "ROOMKEY_STORAGE_POOL_SIZE": "4",
    "ROOMKEY_STORAGE_TIMEOUT": "3s",
}

LONG: Final = os.environ.get("FAULTS") == "long"
"""Whether lines are away for a minute, and 200 people write: as it may be, and longer than every run should take."""

SLOW_SECONDS: Final = 1.0 if LONG else 0.6
"""In either direction: what a node asks for takes twice as long."""

CUT_SECONDS: Final = 60.0 if LONG else 0.0
"""For how much longer than others need to go on."""

CUT_PACE_SECONDS: Final = 1.0 if LONG else 0.05
"""Between two things that everybody writes: what is said meanwhile comes all at once, and may not be too much."""

BOUND_SECONDS: Final = BLIND_AFTER.total_seconds() + 2 + 1
"""Whoever is revoked is out then: with the grace above, and a moment for a machine that has much to do."""

ROUNDS: Final = 12
TYPISTS: Final = 200 if LONG else 24
DOCUMENTS: Final = 20 if LONG else 5
PACE_SECONDS: Final = 1.0 if LONG else 0.15
"""Between two marks of a typist."""

GHOST: Final = 1111
"""The Yjs client of somebody who does not come back."""

_NUMBERS: Final = count(1)


@pytest.fixture(scope="module")
def redis_of_nodes() -> Generator[RedisProcess]:
    """A server that nobody else loses anything with."""
    needs("redis")
    with redis(server_folder()) as server:
        yield server


@pytest.fixture(scope="module")
def nodes_on_redis(redis_of_nodes: RedisProcess) -> Generator[ServingNodes]:
    with serving_nodes(redis_of_nodes.url, redis_of_nodes.port, ENVIRONMENT) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def nodes_on_postgresql(postgresql_server: PostgreSQLProcess) -> Generator[ServingNodes]:
    with postgresql_server.database() as database:
        url = postgresql_server.url_of(database)
        with serving_nodes(url, postgresql_server.port, ENVIRONMENT) as nodes:
            yield nodes


@pytest.fixture(params=["redis", "postgresql"])
def nodes(request: pytest.FixtureRequest) -> ServingNodes:
    return request.getfixturevalue(f"nodes_on_{request.param}")


@pytest.fixture
def name() -> str:
    """The name of a document that nobody has yet."""
    return f"plan-{next(_NUMBERS)}"


# --- lines ----------------------------------------------------------------------------------------------


async def test_the_line_of_one_node_is_cut_while_people_write_on_all_three(nodes: ServingNodes, name: str) -> None:
    cut = nodes.nodes[1]
    async with crowd(nodes, name) as people:
        one, there, other = people.people
        await people.has_gone_on()

        cut.line.cut()
        await asyncio.gather(one.has_gone_on(), other.has_gone_on())
        await cut.wait_health(says_it_is_cut)
        told = there.typist.degraded + there.member.degraded
        await asyncio.gather(one.has_gone_on(), other.has_gone_on())
        cut.line.mend()
        await people.has_gone_on()
        await people.settle()

        assert told
        await people.check_document()
        await people.check_room()
        await cut.wait_well()


async def test_a_line_is_slow_then_cut_then_back_and_whoever_is_revoked_meanwhile_is_out(
    nodes: ServingNodes, name: str
) -> None:
    home, cut = nodes.nodes[:2]
    loop = asyncio.get_running_loop()
    async with (
        crowd(nodes, name, pace=CUT_PACE_SECONDS) as people,
        guest(cut, name, pace=CUT_PACE_SECONDS) as early,
        guest(cut, name, pace=CUT_PACE_SECONDS) as late,
    ):
        one, there, other = people.people
        await people.has_gone_on()
        await asyncio.gather(early.has_gone_on(), late.has_gone_on())

        cut.line.slow(SLOW_SECONDS)
        await asyncio.gather(one.has_gone_on(), other.has_gone_on())
        await home.revoke(early.session)
        await_early = loop.time() + BOUND_SECONDS
        await asyncio.gather(one.has_gone_on(), other.has_gone_on())
        cut.line.cut()
        await home.revoke(late.session)
        await_late = loop.time() + BOUND_SECONDS
        await there.typist.wait(lambda: 1013 in there.typist.codes)
        beyond = [await written_until(early, await_early), await written_until(late, await_late)]
        await asyncio.gather(one.has_gone_on(), other.has_gone_on())
        said = await cut.wait_health(says_it_is_cut)
        await asyncio.sleep(CUT_SECONDS)
        await asyncio.gather(one.has_gone_on(), other.has_gone_on())
        cut.line.mend()
        await people.has_gone_on()
        await people.settle()

        assert "blind" in said
        for gone, first in zip((early, late), beyond, strict=True):
            refused = set(gone.typist.typed[first:])
            assert refused
            assert not [mark for mark in refused if mark in one.typist.text]
            assert not refused & gone.typist.saved
            assert not refused & gone.member.acknowledged
            assert not refused & set(one.member.heard.values())
        await people.check_document(others=(early, late))
        await people.check_room()
        await cut.wait_well()


def says_it_is_cut(status: str, checks: Mapping[str, str]) -> bool:
    """Whether health names both what it has of the store."""
    return status != "healthy" and "away" in checks["storage"] and checks["broker"] != "ok"


async def written_until(person: Person, time: float) -> int:
    """How many marks the person has written at this time of the loop."""
    await asyncio.sleep(max(0.0, time - asyncio.get_running_loop().time()))
    return len(person.typist.typed)


async def test_on_postgresql_alone_an_edit_at_one_node_reaches_people_at_the_others(
    nodes_on_postgresql: ServingNodes, name: str
) -> None:
    async with crowd(nodes_on_postgresql, name, writes=False) as people:
        one, *others = people.people

        one.write(1)
        (mark,) = one.typist.typed

        for other in others:
            await other.typist.wait(lambda other=other: other.typist.text == mark)
            await other.member.wait(lambda other=other: list(other.member.heard.values()) == [mark])
            assert other.typist.connections == other.member.connections == 1


# --- documents ------------------------------------------------------------------------------------------


async def test_nodes_that_found_delete_and_found_again_one_document_at_once_agree(
    nodes: ServingNodes, name: str
) -> None:
    lineages = set[str]()
    async with AsyncExitStack() as stack:
        https = [await stack.enter_async_context(node.http()) for node in nodes]
        tokens = [(await node.session(f"{name}-{number}"))[1] for number, node in enumerate(nodes)]
        bases = [node.base for node in nodes]

        async def found(number: int, mark: str) -> None:
            async with typing(bases[number], tokens[number], name) as typist:
                typist.type(mark)
                await typist.wait(lambda: mark in typist.saved or 4410 in typist.codes)

        for round in range(ROUNDS):
            marks = [f"[{round}.{number}]" for number in range(4)]
            async with asyncio.TaskGroup() as group:
                group.create_task(found(0, marks[0]))
                group.create_task(found(1, marks[1]))
                for http in https[:2]:
                    group.create_task(http.delete(f"/documents/{name}"))
                group.create_task(found(2, marks[2]))
            gone = (await https[round % 3].delete(f"/documents/{name}")).status_code
            await found((round + 1) % 3, marks[3])

            answers = [await http.get(f"/documents/{name}?root=content") for http in https]
            assert gone in (204, 404)
            assert [answer.json()["content"] for answer in answers] == [marks[3]] * 3
            lineage = {answer.headers["roomkey-lineage"] for answer in answers}
            assert len(lineage) == 1
            assert not lineage & lineages
            lineages |= lineage
            assert await nodes.stored(name) == marks[3]


# --- nodes ----------------------------------------------------------------------------------------------


async def test_a_node_is_killed_among_many_who_write(nodes: ServingNodes, name: str) -> None:
    async with (
        running_server(storage=nodes.url, environment=ENVIRONMENT) as victim,
        AsyncExitStack() as stack,
    ):
        bases = [lambda: victim.url.replace("http", "ws", 1), *(node.base for node in nodes)]
        at = [number % len(bases) for number in range(TYPISTS)]
        documents = [f"{name}-{number}" for number in range(DOCUMENTS)]
        sessions = [await nodes.nodes[0].session(f"{name}-{number}") for number in range(TYPISTS)]
        typists = [
            await stack.enter_async_context(
                typing(lambda number=number: bases[at[number]](), token, documents[number % DOCUMENTS])
            )
            for number, (_, token) in enumerate(sessions)
        ]
        ghosts = await stack.enter_async_context(ghosts_of(bases[0], nodes.nodes[0], name))
        async with writing(typists):
            await asyncio.gather(*(typist.wait(lambda typist=typist: len(typist.saved) >= 5) for typist in typists))
            await victim.stop(signal.SIGKILL)
            leaving = asyncio.ensure_future(ghosts.time_to_go())
            stack.callback(leaving.cancel)
            at[:] = [there or 1 + number % 3 for number, there in enumerate(at)]
            before = [len(typist.saved) for typist in typists]
            for typist, saved in zip(typists, before, strict=True):
                await typist.wait(lambda typist=typist, saved=saved: len(typist.saved) > saved + 5)

        for typist in typists:
            await typist.wait(lambda typist=typist: typist.saved >= set(typist.typed))
        for number, document in enumerate(documents):
            here = typists[number::DOCUMENTS]
            marks = {mark for typist in here for mark in typist.typed}
            for typist in here:
                await typist.wait(lambda typist=typist, marks=marks: marks_in(typist.text).keys() >= marks)
            assert {typist.text for typist in here} == {await nodes.stored(document)}
            assert marks_in(here[0].text) == dict.fromkeys(marks, 1)
        assert await leaving < LIFETIME.total_seconds() + 5


class Ghosts:
    """Somebody in a room and in a document who does not come back, and those who see them at another node."""

    def __init__(self, session: str, witness: RoomMember, watcher: YClient) -> None:
        self._session = session
        self._witness = witness
        self._watcher = watcher

    async def are_there(self) -> None:
        await self._witness.wait(lambda: self._session in self._witness.shown)
        await self._awareness(b"{}")

    async def time_to_go(self) -> float:
        """Seconds from now until nobody sees them any more."""
        begun = asyncio.get_running_loop().time()
        await self._witness.wait(lambda: self._session not in self._witness.shown)
        await self._awareness(b"null")
        return asyncio.get_running_loop().time() - begun

    async def _awareness(self, wanted: bytes) -> None:
        async with asyncio.timeout(LIFETIME.total_seconds() + 20):
            while True:
                with suppress(TimeoutError):
                    entries = entries_of(await self._watcher.next(AWARENESS))
                    if (GHOST, wanted) in [(client, state) for client, _, state in entries]:
                        return


@asynccontextmanager
async def ghosts_of(there: Callable[[], str], here: ServingNode, document: str) -> AsyncGenerator[Ghosts]:
    (session, token), (_, other) = await here.session("ghost"), await here.session("witness")
    async with (
        in_room(here.base, other, document) as witness,
        in_room(there, token, document) as member,
        connected_to(here.base(), other, document) as watcher,
        connected_to(there(), token, document) as client,
    ):
        await witness.wait(lambda: witness.is_in)
        await member.wait(lambda: member.is_in)
        member.show("here")
        await client.send(shown((GHOST, 1, b"{}")))
        ghosts = Ghosts(session, witness, watcher)
        await ghosts.are_there()
        yield ghosts


@asynccontextmanager
async def writing(typists: Sequence[Typist]) -> AsyncGenerator[None]:
    """All of them write, one after the other, until this is left."""

    async def write() -> None:
        for number in count():
            for index, typist in enumerate(typists):
                typist.type(f"[{index}.{number}]")
                await asyncio.sleep(PACE_SECONDS / len(typists))

    running = asyncio.ensure_future(write())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


# --- the store ------------------------------------------------------------------------------------------


async def test_postgresql_is_started_again_under_three_nodes(
    nodes_on_postgresql: ServingNodes, postgresql_server: PostgreSQLProcess, name: str
) -> None:
    async with crowd(nodes_on_postgresql, name) as people:
        await people.has_gone_on()

        await asyncio.to_thread(postgresql_server.stop)
        for node in nodes_on_postgresql:
            await node.wait_health(lambda status, _: status != "healthy")
        await asyncio.to_thread(postgresql_server.start)
        await people.has_gone_on()
        await people.settle()

        await people.check_document()
        assert [person.member.faults for person in people.people] == [[]] * 3
        assert {code for person in people.people for code in person.typist.codes} <= {1013}
        for node in nodes_on_postgresql:
            await node.wait_well()


async def test_redis_comes_back_empty_and_nobody_writes_over_that(
    nodes_on_redis: ServingNodes, redis_of_nodes: RedisProcess, name: str
) -> None:
    # The last one, because there is no way back but by an operator.
    async with crowd(nodes_on_redis, name) as people:
        await people.has_gone_on()
        token = (await nodes_on_redis.nodes[0].session("ada"))[1]

        await asyncio.to_thread(redis_of_nodes.kill)
        rmtree(redis_of_nodes.folder / "appendonlydir")
        await asyncio.to_thread(redis_of_nodes.start)

        for node in nodes_on_redis:
            await node.wait_health(lambda _, checks: "documents_lost" in checks and checks["storage"] == "ok")
            async with node.http() as http:
                session = await http.get("/sessions/me", headers={"authorization": f"Bearer {token}"})
                document = await http.get(f"/documents/{name}")
            assert session.status_code == 401
            assert (document.status_code, document.json()["code"]) == (503, "storage_lost")
        async with open_documents(nodes_on_redis.url) as store:
            assert await store.load(name) is None
        for person in people.people:
            assert person.typist.codes[-1] in (1013, 4401)
