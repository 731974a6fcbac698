"""On the servers that nodes share nobody reads who has a session, and two nodes find the same ones."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import pytest

from roomkey.backends import StoreOptions, Stores, open_storage
from roomkey.backends.redis import RedisServer
from roomkey.domain.policy import OnCap, SessionPolicy
from roomkey.domain.session import SessionFilter, SessionState, UserRevoked, partition_of
from roomkey.encrypted_stores import decide_what_keys_begin_with
from roomkey.encryption.service import Encryption, Places
from roomkey.encryption.settings import EncryptionSettings, Mode
from roomkey.encryption.user_ids import MAX_HIDDEN_BYTES
from roomkey.errors import CapReached
from roomkey.ports import MovableSessions, Page, SessionStorage
from roomkey.testing.clock import ManualClock
from roomkey.testing.storage.suite import NOON, SECOND, issue, store

ON: Final = EncryptionSettings(mode=Mode.ON)
OPTIONS: Final = StoreOptions(migrate=True, timeout=timedelta(seconds=60))
ADA: Final = "ada-lovelace@example.org"
READ: Final = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", "0", "-1"),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", "0", "-1"),
    b"stream": ("XRANGE", "-", "+"),
}
"""What shows all of a key of each type; the key comes behind the first word."""
LONGEST: Final = "x" * MAX_HIDDEN_BYTES


@asynccontextmanager
async def node(url: str) -> AsyncGenerator[SessionStorage]:
    """The sessions as a node on the server has them."""
    encryption = Encryption(ON, Places(lasting=True, local=False), ManualClock(NOON), master=b"m" * 32)
    stores = Stores(OPTIONS, encryption.codec)
    sessions = encryption.sessions(stores.sessions(url))
    async with (
        stores.objects(url) as objects,
        encryption.at_work(objects),
        sessions,
        stores.documents(url) as documents,
    ):
        await decide_what_keys_begin_with(encryption, sessions, documents, objects)
        yield sessions


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "redis", "cluster"])
async def test_users_are_found_counted_capped_and_ended_by_names_that_say_nothing(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    async with node(url) as one, node(url) as other:
        for user in (ADA, LONGEST):
            stored = [await store(one, user), await store(other, user)]
            with pytest.raises(CapReached):
                await other.create([issue(user)], SessionPolicy(cap=2, on_cap=OnCap.REFUSE), NOON)

            assert await one.count(SessionFilter(user_id=user)) == 2
            assert {each.id for each in (await other.list(SessionFilter(user_id=user), Page())).sessions} == {
                each.id for each in stored
            }

            done = await one.revoke_user(user, NOON + SECOND, actor="system", reason=None, except_session=None)

            assert {event.user for event in done.events} == {user}
            assert isinstance(done.events[0], UserRevoked)
            for each in await other.get_many([each.id for each in stored]):
                assert each is not None
                assert (each.user_id, each.state) == (user, SessionState.INVALIDATED)
            assert {each.event.user for each in await other.events(partition_of(user))} == {user}

        assert isinstance(one, MovableSessions)
        assert {item.user for batch in [b async for b in one.export_epochs()] for item in batch} == {ADA, LONGEST}  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


async def test_nothing_in_redis_says_who_has_a_session(redis_url: str) -> None:
    async with node(redis_url) as sessions:
        await store(sessions, ADA)
        await sessions.revoke_user(ADA, NOON + SECOND, actor="system", reason=None, except_session=None)
    async with open_storage(redis_url) as plain:
        await store(plain, "grace-hopper")

    async with RedisServer(redis_url) as server:
        everything = ""
        for key in await server.ask("KEYS", b"*"):
            command, *arguments = READ[bytes(await server.ask("TYPE", key))]
            everything += repr((key, await server.ask(command, key, *arguments)))

    assert "hopper" in everything, "what is looked at is what was stored"
    assert "lovelace" not in everything
