"""
A connection that is cut anywhere within any kind of write: it is done once or not at all, and the caller is not misled.

Each write is cut at its first request, at its second, and so on until it is done before the cut.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, NamedTuple

import pytest

from roomkey.domain.lifecycle import apply
from roomkey.domain.session import Activated, Deleted, Session, Suspended, UserRevoked
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import Storage
from roomkey.ports import Append, Author, DocumentStore, DocumentUpdate, NewVersion, Page, SessionStorage
from roomkey.testing.storage import disagreements, issue
from roomkey.testing.storage.suite import MINUTE, NOON, ROOMY, fact, found, history, partition_log, store
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.deployments import Deployment, deployed
from tests.support.store_servers import ServerProcess

MOST_REQUESTS: Final = 30
"""No write has more; a test that gets there never saw its write done uncut."""

SERVERS: Final = ("redis", "postgresql", "mariadb")

ALICE: Final = Author("user:alice")


@pytest.fixture(params=SERVERS)
def deployment(request: pytest.FixtureRequest) -> Generator[Deployment]:
    server: ServerProcess = request.getfixturevalue(f"{request.param}_server")
    with deployed(server) as made:
        yield made


class Write(NamedTuple):
    """One write, what it returns, and how often it has been done."""

    act: Callable[[], Awaitable[Any]]
    expected: Any
    times_done: Callable[[], Awaitable[int]]


# --- sessions -----------------------------------------------------------------------------------------


async def create(storage: SessionStorage, user: str) -> Write:
    new = [issue(user), issue(user), issue(f"{user}-other")]

    async def times_done() -> int:
        histories = [len(await history(storage, each.session.id)) for each in new]
        assert histories[0] == histories[1]
        return max(histories)

    return Write(lambda: storage.create(new, ROOMY, NOON), [], times_done)


async def update(storage: SessionStorage, user: str) -> Write:
    session = await store(storage, user)
    event = fact(session, Activated, NOON)
    return Write(lambda: storage.update(apply(session, event), event), None, lambda: further(storage, session))


async def update_many(storage: SessionStorage, user: str) -> Write:
    sessions = [await store(storage, user, active=True), await store(storage, f"{user}-other", active=True)]
    events = [fact(session, Suspended, NOON) for session in sessions]
    changes = [(apply(session, event), event) for session, event in zip(sessions, events, strict=True)]

    async def times_done() -> int:
        return max([await further(storage, session) for session in sessions])

    return Write(lambda: storage.update_many(changes), [True, True], times_done)


async def delete(storage: SessionStorage, user: str) -> Write:
    session = await store(storage, user)
    event = fact(session, Deleted, NOON)
    return Write(lambda: storage.delete(event), True, lambda: further(storage, session))


async def revoke_user(storage: SessionStorage, user: str) -> Write:
    session = await store(storage, user)

    async def act() -> tuple[int, int]:
        done = await storage.revoke_user(user, NOON, actor="system", reason=None, except_session=None)
        return done.epoch, len(done.events)

    async def times_done() -> int:
        log = await partition_log(storage, int(session.id[:2], 16))
        revoked = sum(isinstance(event, UserRevoked) and event.user == user for event in log)
        assert await further(storage, session) == revoked
        return revoked

    return Write(act, (1, 2), times_done)


async def note_use(storage: SessionStorage, user: str) -> Write:
    session = await store(storage, user)
    use = TokenUse(Place("Firefox", "192.0.2.1"), is_current=True, first_at=NOON, last_at=NOON)

    async def times_done() -> int:
        stored = await storage.get_with_secret(session.id)
        assert stored is not None
        return len(stored[1].uses)

    return Write(lambda: storage.note_use(session.id, use, generation=0, window=MINUTE), None, times_done)


async def touch(storage: SessionStorage, user: str) -> Write:
    session = await store(storage, user, active=True)

    async def times_done() -> int:
        return int((await found(storage, session.id)).last_seen_at == NOON + MINUTE)

    return Write(lambda: storage.touch(session.id, NOON + MINUTE), None, times_done)


async def further(storage: SessionStorage, session: Session) -> int:
    """How many events there are behind those that have led to ``session``."""
    return len(await history(storage, session.id)) - session.version


# --- documents ----------------------------------------------------------------------------------------


async def create_document(documents: DocumentStore, name: str) -> Write:
    async def act() -> tuple[str, int]:
        record = await documents.create(name, "first", NOON)
        return record.lineage, record.sequence

    async def times_done() -> int:
        listed = [record.name for record in (await documents.list(name, Page())).documents]
        assert (listed == [name]) == (await documents.find(name) is not None)
        return len(listed)

    return Write(act, ("first", 0), times_done)


async def append(documents: DocumentStore, name: str) -> Write:
    await documents.create(name, "first", NOON)
    return Write(lambda: documents.append(name, "first", [an_update()]), 1, lambda: length(documents, name))


async def append_after(documents: DocumentStore, name: str) -> Write:
    await documents.create(name, "first", NOON)
    return Write(lambda: documents.append(name, "first", [an_update()], after=0), 1, lambda: length(documents, name))


async def append_each(documents: DocumentStore, name: str) -> Write:
    names = [name, f"{name}-other"]
    for each in names:
        await documents.create(each, "first", NOON)

    async def act() -> list[Any]:
        return list(await documents.append_each([Append(each, "first", [an_update()]) for each in names]))

    async def times_done() -> int:
        return max([await length(documents, each) for each in names])

    return Write(act, [1, 1], times_done)


async def compact(documents: DocumentStore, name: str) -> Write:
    await documents.create(name, "first", NOON)
    await documents.append(name, "first", [an_update()])

    async def times_done() -> int:
        stored = await documents.load(name)
        assert stored is not None
        assert (stored.snapshot, len(stored.updates)) in {(b"all", 0), (None, 1)}
        return stored.upto

    return Write(
        lambda: documents.compact(name, "first", snapshot=b"all", upto=1, authorship=b"alice"), True, times_done
    )


async def keep_version(documents: DocumentStore, name: str) -> Write:
    await documents.create(name, "first", NOON)

    async def act() -> int:
        return (await documents.keep_version(name, "first", a_version())).number

    return Write(act, 1, lambda: versions(documents, name))


async def forget_versions(documents: DocumentStore, name: str) -> Write:
    await documents.create(name, "first", NOON)
    kept = [await documents.keep_version(name, "first", a_version()) for _ in range(2)]

    async def times_done() -> int:
        return 2 - await versions(documents, name)

    return Write(lambda: documents.forget_versions(name, "first", [kept[0].number]), 1, times_done)


async def delete_document(documents: DocumentStore, name: str) -> Write:
    await documents.create(name, "first", NOON)

    async def times_done() -> int:
        return int(await documents.find(name) is None)

    return Write(lambda: documents.delete(name, "first", NOON), True, times_done)


def an_update() -> DocumentUpdate:
    return DocumentUpdate(b"keystroke", ALICE, NOON)


def a_version() -> NewVersion:
    return NewVersion(at=NOON, author=ALICE, label="draft", sequence=0, content=b"all")


async def length(documents: DocumentStore, name: str) -> int:
    stored = await documents.load(name)
    assert stored is not None
    assert len(stored.updates) == stored.record.sequence
    return len(stored.updates)


async def versions(documents: DocumentStore, name: str) -> int:
    return len((await documents.versions(name, Page())).versions)


# --- the tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", Cut)
@pytest.mark.parametrize("write", [create, update, update_many, delete, revoke_user, note_use, touch])
async def test_a_write_to_sessions_is_done_once_or_not_at_all(
    deployment: Deployment, write: Callable[[SessionStorage, str], Awaitable[Write]], where: Cut
) -> None:
    async with (
        cutting_proxy(deployment.server.port) as proxy,
        deployment.sessions(proxy.through(deployment.url)) as storage,
    ):
        for request in range(1, MOST_REQUESTS):
            if not await is_cut(proxy, where, request, await write(storage, f"user-{request}")):
                break
        else:
            pytest.fail("it was never done uncut")

        assert request > 1
        assert await disagreements(storage) == []


@pytest.mark.parametrize("where", Cut)
@pytest.mark.parametrize(
    "write",
    [
        *(create_document, append, append_after, append_each),
        *(compact, keep_version, forget_versions, delete_document),
    ],
)
async def test_a_write_to_documents_is_done_once_or_not_at_all(
    deployment: Deployment, write: Callable[[DocumentStore, str], Awaitable[Write]], where: Cut
) -> None:
    async with (
        cutting_proxy(deployment.server.port) as proxy,
        deployment.documents(proxy.through(deployment.url)) as documents,
    ):
        for request in range(1, MOST_REQUESTS):
            if not await is_cut(proxy, where, request, await write(documents, f"notes/{request}")):
                break
        else:
            pytest.fail("it was never done uncut")

        assert request > 1


async def is_cut(proxy: CuttingProxy, where: Cut, request: int, write: Write) -> bool:
    """Write while the connection is cut at ``request``, if there are as many; whether it was."""
    proxy.cuts = 0
    proxy.cut(where, request=request)
    try:
        answer = await write.act()
    except Storage:  # it may be unknown, or may be repeated
        proxy.cut_nothing()
        assert await write.times_done() in {0, 1}
    else:
        was_cut = proxy.cuts > 0
        proxy.cut_nothing()
        assert answer == write.expected
        assert await write.times_done() == 1
        return was_cut
    return True
