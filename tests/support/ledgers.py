"""Writers who go on while a store fails, and note what it has acknowledged, so that one can look what became of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

from msgspec import Struct

from roomkey.domain.lifecycle import apply
from roomkey.domain.session import (
    Activated,
    Deleted,
    Session,
    SessionEvent,
    SessionId,
    SessionState,
    Suspended,
)
from roomkey.errors import OutcomeUnknown, Storage
from roomkey.ports import Append, Author, DocumentStore, DocumentUpdate, Page, SessionStorage
from roomkey.testing.storage import disagreements, issue
from roomkey.testing.storage.suite import NOON, ROOMY, fact
from tests.support.deployments import until

WRITERS: Final = 6


class Ledger(Protocol):
    """What was acknowledged, and what must be so because of it."""

    acknowledged: int
    is_over: bool

    async def write(self, writer: int) -> None:
        """Write one thing after the other as ``writer`` until it is over."""
        ...

    async def contradictions(self) -> list[str]:
        """Where what is stored is not what was acknowledged; the store must answer again."""
        ...

    def degradations(self) -> Mapping[str, str]:
        """Those of the store."""
        ...

    async def ping(self) -> None:
        """That of the store."""
        ...


@asynccontextmanager
async def load(ledger: Ledger) -> AsyncGenerator[None]:
    """Several writers at once, who end what they have begun."""
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(ledger.write(number))
        yield
        ledger.is_over = True


async def some_writes(ledger: Ledger, number: int = 30) -> None:
    """Return when so many more were acknowledged."""
    enough = ledger.acknowledged + number
    await until(lambda: ledger.acknowledged >= enough, f"the acknowledgement of {number} writes")


class _Life(Struct):
    """What was last acknowledged of a session, and whether something may have happened since then."""

    session: Session | None
    is_certain: bool = True
    is_revoked: bool = False


class SessionLedger:
    """Sessions that are created, activated, suspended, deleted, and revoked, each user one."""

    def __init__(self, storage: SessionStorage) -> None:
        self.acknowledged = 0
        self.unknown = 0
        self.is_over = False
        self._storage = storage
        self._lives: dict[SessionId, _Life] = {}
        self._users = 0

    async def write(self, writer: int) -> None:
        while not self.is_over:
            number = self._users = self._users + 1  # others count on while this one waits
            new = issue(f"user-{writer}-{number}")
            life = self._lives[new.session.id] = _Life(None, is_certain=False)
            if await self._succeeds(self._storage.create([new], ROOMY, NOON)):
                life.session, life.is_certain = new.session, True
                await self._live(life, number)

    async def _live(self, life: _Life, number: int) -> None:
        for kind in (Activated, Suspended):
            assert life.session is not None
            event: SessionEvent = fact(life.session, kind, NOON)
            after = apply(life.session, event)
            life.is_certain = False  # should this writer be stopped meanwhile
            life.is_certain = await self._succeeds(self._storage.update(after, event))
            if not life.is_certain:
                return
            life.session = after
        match number % 3:
            case 0:
                life.is_certain = False
                if await self._succeeds(self._storage.delete(fact(life.session, Deleted, NOON))):
                    life.session, life.is_certain = None, True
            case 1:
                revoke = self._storage.revoke_user(
                    life.session.user_id, NOON, actor="system", reason=None, except_session=None
                )
                life.is_certain = False
                life.is_certain = life.is_revoked = await self._succeeds(revoke)
            case _:
                pass

    async def _succeeds(self, write: Awaitable[object]) -> bool:
        try:
            await write
        except Storage as error:
            self.unknown += isinstance(error, OutcomeUnknown)
            await asyncio.sleep(0.01)
            return False
        self.acknowledged += 1
        return True

    async def contradictions(self) -> list[str]:
        found = await self._storage.get_many(list(self._lives))
        wrong = [
            f"{id}: acknowledged was {life}, and there is {session}"
            for (id, life), session in zip(self._lives.items(), found, strict=True)
            if not _may_be(life, session)
        ]
        return wrong + await disagreements(self._storage)

    def degradations(self) -> Mapping[str, str]:
        return self._storage.degradations()

    async def ping(self) -> None:
        await self._storage.ping()


def _may_be(life: _Life, found: Session | None) -> bool:
    known = life.session
    if known is None:
        return found is None or not life.is_certain
    if found is None:
        return not life.is_certain and known.version == 3  # it may have been deleted
    if life.is_revoked:
        return found.state is SessionState.INVALIDATED
    versions = {known.version} if life.is_certain else {known.version, known.version + 1}
    return found.version in versions


class DocumentLedger:
    """Updates that are appended to a document of each writer, and one more, all at once with ``append_each``."""

    def __init__(self, store: DocumentStore) -> None:
        self.acknowledged = 0
        self.unknown = 0
        self.is_over = False
        self._store = store
        self._number = 0
        self._lineages: dict[str, str] = {}
        self._stored: dict[str, list[bytes]] = {}
        self._uncertain: dict[str, set[bytes]] = {}

    async def write(self, writer: int) -> None:
        names = [f"notes/{writer}", f"todo/{writer}"]
        for name in names:
            self._stored.setdefault(name, [])
            self._uncertain.setdefault(name, set())
            while name not in self._lineages and not self.is_over:
                try:
                    self._lineages[name] = (await self._store.create(name, f"lineage-{name}", NOON)).lineage
                except Storage:
                    await asyncio.sleep(0.01)
        while not self.is_over:
            self._number += 1
            data = b"%d" % self._number
            for name in names:
                self._uncertain[name].add(data)
            await self._append(names if self._number % 2 else names[:1], data)

    async def _append(self, names: list[str], data: bytes) -> None:
        update = DocumentUpdate(data, Author("user:alice"), NOON)
        try:
            if len(names) == 1:
                await self._store.append(names[0], self._lineages[names[0]], [update])
                outcomes: list[object] = [1]
            else:
                appends = [Append(name, self._lineages[name], [update]) for name in names]
                outcomes = list(await self._store.append_each(appends))
        except Storage as error:
            self.unknown += isinstance(error, OutcomeUnknown)
            await asyncio.sleep(0.01)
            return
        for name, outcome in zip(names, outcomes, strict=True):
            assert isinstance(outcome, int), outcome
            self._stored[name].append(data)
            self._uncertain[name].discard(data)
            self.acknowledged += 1

    async def contradictions(self) -> list[str]:
        wrong: list[str] = []
        for name, lineage in self._lineages.items():
            document = await self._store.load(name)
            assert document is not None
            assert document.record.lineage == lineage
            there = [update.data for update in document.updates]
            wrong += [f"{name} has {data!r} {number} times" for data, number in Counter(there).items() if number > 1]
            wrong += [f"{name} has not {data!r}" for data in self._stored[name] if data not in there]
            wrong += [
                f"{name} has {data!r}, which nobody wrote"
                for data in there
                if data not in self._stored[name] and data not in self._uncertain[name]
            ]
            if (known := [data for data in there if data in set(self._stored[name])]) != self._stored[name]:
                wrong.append(f"{name} has another order: {known}")
            head = (await self._store.heads([name]))[0]
            if document.record.sequence != len(there) or head is None or head.sequence != len(there):
                wrong.append(f"{name} says it has {document.record.sequence}, and has {len(there)}")
        page = await self._store.list("", Page(limit=500))
        listed = {record.name for record in page.documents}
        wrong += [f"{name} is not listed" for name in self._lineages if name not in listed]
        return wrong

    def degradations(self) -> Mapping[str, str]:
        return self._store.degradations()

    async def ping(self) -> None:
        await self._store.ping()
