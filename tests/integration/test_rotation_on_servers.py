"""Data keys are rotated on every storage that nodes share: while they write, and after a rotation was killed."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from roomkey.backends import StoreOptions, Stores
from roomkey.backends.redis import RedisServer
from roomkey.backends.redis.layout import Header, id_key, partitions
from roomkey.backends.redis.resealing import Place, Resealer
from roomkey.backends.resealing import Sealed
from roomkey.domain.session import Activated, Invalidated, Session, partition_of_id
from roomkey.encryption.records import KEYS_SPACE
from roomkey.encryption.rotation import ROTATION, Outcome, Rotation
from roomkey.encryption.service import Encryption, Places
from roomkey.encryption.settings import EncryptionSettings, Mode
from roomkey.errors import Conflict
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    DocumentStore,
    DocumentUpdate,
    ObjectStore,
    RecordKind,
    Repairable,
    Resealable,
    Resealed,
    SealingCodec,
    SessionStorage,
)
from roomkey.testing.clock import ManualClock
from roomkey.testing.documents.suite import NOON, loaded, log_of, make, update, updates, version, versions_of
from roomkey.testing.storage.suite import change, disagreements, found, store

ON: Final = EncryptionSettings(mode=Mode.ON)
SHARED: Final = Places(lasting=True, local=False)
OPTIONS: Final = StoreOptions(migrate=True, timeout=timedelta(seconds=60))

ROUNDS: Final = 20
"""Least number of rounds of a load."""

STEPS_PER_ROUND: Final = 8
"""
Steps of the rotation after which a load goes on, once it has begun.

It writes from the first step to the last, but not faster than the rotation seals: it would take ever longer.
"""

OF_SEVERAL_PARTS: Final = 120
"""So long is a log that is not written anew at once."""

KINDS: Final = ("sqlite", "postgresql", "mariadb", "redis", "cluster")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/roomkey.db"
        case kind:
            return request.getfixturevalue(f"{kind}_url")


class Node(NamedTuple):
    """The stores of a process, and what encrypts them. In its ``turn`` it either writes or looks for keys."""

    encryption: Encryption
    sessions: SessionStorage
    documents: DocumentStore
    objects: ObjectStore
    turn: asyncio.Lock


class Deployment:
    """A storage, the nodes on it, and a clock that a rotation moves when it waits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = ManualClock(NOON)
        self.nodes: list[Node] = []
        self.late: list[Node] = []
        self.loads: Sequence[Load] = ()
        self._steps = count(1)

    @asynccontextmanager
    async def plain(self) -> AsyncGenerator[tuple[SessionStorage, DocumentStore]]:
        """The stores before encryption was on."""
        stores = Stores(OPTIONS, CHECKSUMMED_RECORDS)
        async with stores.sessions(self.url) as sessions, stores.documents(self.url) as documents:
            yield sessions, documents

    @asynccontextmanager
    async def node(self) -> AsyncGenerator[Node]:
        encryption = Encryption(ON, SHARED, self.clock, master=b"m" * 32)
        stores = Stores(OPTIONS, encryption.codec)
        sessions, documents = stores.sessions(self.url), stores.documents(self.url)
        objects = stores.objects(self.url)
        async with objects, encryption.at_work(objects), sessions, documents:
            node = Node(encryption, sessions, documents, objects, asyncio.Lock())
            self.nodes.append(node)
            try:
                yield node
            finally:
                self.nodes.remove(node)

    async def sleep(self, seconds: float) -> None:
        """Time passes, in which nodes look for keys. Those that are late know a new one, and seal with the old one."""
        if seconds >= 1:
            self._go_on(ROUNDS // 2)  # some stores are sealed in few steps, and the next begin now
        elif next(self._steps) % STEPS_PER_ROUND == 0:
            self._go_on(1)
        late, self.late = self.late, []
        for node in late:
            await node.encryption.refresh(node.objects)
        self.clock.advance(timedelta(seconds=seconds))
        for node in self.nodes:
            if node not in late:
                async with node.turn:
                    await node.encryption.refresh(node.objects)

    def _go_on(self, rounds: int) -> None:
        for load in self.loads:
            for _ in range(rounds):
                load.may_go_on.release()

    async def rotate(self, node: Node, *, killed_after: int | None = None) -> Outcome:
        sessions: object = node.sessions if killed_after is None else Killed(node.sessions, killed_after)
        stores = {"sessions": sessions, "documents": node.documents}
        return await Rotation(node.encryption, node.objects, stores, self.clock, sleep=self.sleep).run()


class Killed:
    """Sessions whose process is killed after some parts, which are small."""

    def __init__(self, sessions: object, parts: int) -> None:
        assert isinstance(sessions, Resealable)
        self._sessions = sessions
        self._parts = parts

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        del limit
        if not self._parts:
            raise Cut
        self._parts -= 1
        return await self._sessions.reseal(after, 1, only_counts=only_counts)


class Cut(Exception):
    """A process is killed."""


class Load:
    """Somebody who works on a node without a pause, and remembers what was acknowledged."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = name
        self.sessions: list[Session] = []
        self.updates: list[DocumentUpdate] = []
        self.versions = 0
        self.may_go_on = asyncio.Semaphore(0)

    async def work(self, ended: asyncio.Event) -> None:
        await make(self._node.documents, self.name)
        for round in count():
            if round > ROUNDS:
                await self.may_go_on.acquire()
            async with self._node.turn:
                await self._sign_in(round)
                await self._edit(round)
            if ended.is_set() and round > ROUNDS:
                break

    async def _sign_in(self, round: int) -> None:
        sessions = self._node.sessions
        session = await change(sessions, await store(sessions, f"{self.name}-{round % 7}"), Activated, NOON)
        await sessions.touch(session.id, NOON + timedelta(minutes=1))
        self.sessions.append(session)
        earlier = await found(sessions, self.sessions[round // 2].id)
        if earlier.state.is_live:
            self.sessions[round // 2] = await change(sessions, earlier, Invalidated, NOON)

    async def _edit(self, round: int) -> None:
        documents = self._node.documents
        some = updates(2, first=1 + 2 * round)
        last = await documents.append(self.name, "first", some)
        self.updates += some
        assert last == len(self.updates)
        if round % 5 == 0:
            await documents.compact(
                self.name, "first", snapshot=b"snapshot of %d" % last, upto=last, authorship=b"by both"
            )
        if round % 7 == 0:
            await documents.keep_version(self.name, "first", version(b"version at %d" % last, round))
            self.versions += 1


async def outdated(node: Node) -> tuple[int, int]:
    """How many records are not under the key that seals, and how many cannot be read."""
    resealed = left = 0
    for each in (node.sessions, node.documents):
        assert isinstance(each, Resealable)
        after: bytes | None = b""
        while after is not None:
            part = await each.reseal(after, 100, only_counts=True)
            after, resealed, left = part.next, resealed + part.resealed, left + part.left
    return resealed, left


async def check_whole(node: Node, *loads: Load) -> None:
    """Everything that was acknowledged is there, and nothing is damaged."""
    for load in loads:
        for each in load.sessions:
            assert (await found(node.sessions, each.id)).state is each.state
        stored = await loaded(node.documents, load.name)
        assert stored.upto + len(stored.updates) == len(load.updates)
        assert [*stored.updates] == load.updates[stored.upto :]
        assert stored.snapshot in (None, b"snapshot of %d" % stored.upto)
        kept = await versions_of(node.documents, load.name)
        assert len(kept) == load.versions
        for each in kept:
            assert await node.documents.version(load.name, each.number) is not None
    assert isinstance(node.sessions, Repairable)
    assert isinstance(node.documents, Repairable)
    assert [*await node.sessions.damaged(), *await node.documents.damaged()] == []
    assert await disagreements(node.sessions) == []
    assert await outdated(node) == (0, 0)


async def fill(deployment: Deployment) -> list[Session]:
    """Sessions, their events, and a document with everything that one has; half of it not encrypted."""
    async with deployment.plain() as (sessions, documents):
        made = [await store(sessions, f"early-{number}", active=True) for number in range(20)]
        await make(documents, "early", updates(30))
        await documents.append("early", "first", [update(b"x" * 700_000)])
        await documents.compact("early", "first", snapshot=b"s" * 700_000, upto=20, authorship=b"a" * 10)
        await documents.keep_version("early", "first", version(b"v" * 700_000))
    async with deployment.node() as node:
        await deployment.sleep(60)
        made += [await store(node.sessions, f"early-{number}", active=True) for number in range(20)]
        await node.documents.append("early", "first", updates(10))
        await make(node.documents, "another")
        for each in updates(OF_SEVERAL_PARTS):
            await node.documents.append("another", "first", [each])
    return made


async def check_filled(node: Node, made: list[Session]) -> None:
    assert [await node.sessions.get(each.id) for each in made] == made
    early = await loaded(node.documents, "early")
    assert early.snapshot == b"s" * 700_000
    assert [*early.updates] == [*updates(10, first=21), update(b"x" * 700_000), *updates(10)]
    assert await log_of(node.documents, "another") == updates(OF_SEVERAL_PARTS)
    kept = await node.documents.version("early", 1)
    assert kept is not None
    assert kept[1] == b"v" * 700_000


async def test_nothing_is_lost_and_all_is_under_the_new_key_when_nodes_write_while_keys_are_rotated(url: str) -> None:
    deployment = Deployment(url)
    made = await fill(deployment)
    async with deployment.node() as one, deployment.node() as other, deployment.node() as rotating:
        deployment.loads = loads = Load(one, "one"), Load(other, "other")
        deployment.late = [other]
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for load in loads:
                group.create_task(load.work(ended))
            outcome = await deployment.rotate(rotating)
            ended.set()
            for load in loads:
                load.may_go_on.release()

    async with deployment.node() as node:
        assert outcome.is_complete
        assert len(outcome.retired) == 1
        assert node.encryption.keys is not None
        assert [*node.encryption.keys.keys] == [outcome.key]
        await check_whole(node, *loads)
        await check_filled(node, made)


async def test_a_rotation_that_is_killed_keeps_the_old_key_and_is_gone_on_with(url: str) -> None:
    deployment = Deployment(url)
    made = await fill(deployment)
    async with deployment.node() as node:
        assert node.encryption.keys is not None
        (old,) = node.encryption.keys.keys

        with pytest.raises(Cut):
            await deployment.rotate(node, killed_after=5)

        begun = await node.objects.get(KEYS_SPACE, ROTATION)
        assert begun is not None
        assert (await outdated(node))[0] > 0
    async with deployment.node() as node:
        assert node.encryption.keys is not None
        assert [*node.encryption.keys.keys] == [old, begun.value]
        await check_filled(node, made)

        outcome = await deployment.rotate(node)

        assert (outcome.key, outcome.retired, outcome.is_complete) == (begun.value, (old,), True)
        await check_filled(node, made)
        await check_whole(node)


async def test_of_two_rotations_at_once_one_does_all_and_nothing_is_lost(url: str) -> None:
    deployment = Deployment(url)
    made = await fill(deployment)
    async with deployment.node() as one, deployment.node() as other:
        outcomes = await asyncio.gather(deployment.rotate(one), deployment.rotate(other), return_exceptions=True)

    done = [each for each in outcomes if isinstance(each, Outcome)]
    assert done
    assert all(each.is_complete for each in done)
    assert all(isinstance(each, Conflict) for each in outcomes if each not in done)
    async with deployment.node() as node:
        assert node.encryption.keys is not None
        assert len(node.encryption.keys.keys) == 1
        assert await node.objects.get(KEYS_SPACE, ROTATION) is None
        await check_filled(node, made)
        await check_whole(node)


async def test_a_session_that_has_changed_since_it_was_read_is_not_put_back(redis_url: str) -> None:
    deployment = Deployment(redis_url)
    async with deployment.node() as node, RedisServer(redis_url) as server:
        await deployment.sleep(60)
        session = await store(node.sessions, active=True)
        partition = partitions(server.prefix)[partition_of_id(session.id)]
        id = id_key(session.id)
        assert id is not None
        key, _ = partition.read_keys(id)
        value = await server.ask("HGET", key, id)
        header, record = Header.of(value)
        read = Sealed(Place(id, len(value) - len(record)), RecordKind.SESSION, session.id.encode(), 2, record)
        assert header.version == read.version
        changed = await change(node.sessions, session, Invalidated, NOON)
        keys = node.encryption.data_keys(node.objects)
        await keys.add()
        await deployment.sleep(60)
        codec = node.encryption.codec
        assert isinstance(codec, SealingCodec)

        resealer = Resealer(server, codec.within("sessions"), only_counts=False)
        await resealer.hash(key, [read])

        assert tuple(resealer.tally) == (1, 1, 0)
        assert await found(node.sessions, session.id) == changed
