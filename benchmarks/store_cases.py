"""What is done with every backend: commands by many callers at once, pages of lists, changes of documents."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from benchmarks.harness import Measures, Plan, quantiles
from benchmarks.httpload import Unexpected
from benchmarks.store_sides import PAGE, SESSIONS_PER_USER, Side, user
from roomkey.domain.lifecycle import apply
from roomkey.domain.session import Extended, SessionFilter
from roomkey.ports import Append, Author, DocumentUpdate, Page
from roomkey.sessions.issuing import SessionRequest

CALLERS: Final = 256
QUICK_CALLERS: Final = 16
GROUP_CALLERS: Final = 8
GROUP: Final = 100
QUICK_GROUP: Final = 10

CREATE: Final = "create"
CREATE_GROUPS: Final = "create in groups"
GET: Final = "get"
REQUEST: Final = "authenticated request"
UPDATE: Final = "update"
TOUCH: Final = "touch"
FIRST_PAGE: Final = f"first page of {PAGE}"
LAST_PAGE: Final = f"last page of {PAGE}"
REVOKE: Final = "revoke_user"

DOCUMENTS: Final = 1_000
QUICK_DOCUMENTS: Final = 50
PACE: Final = 20
"""Updates of each document per second, and commits of all of them."""

PACED: Final = f"changes of documents, {PACE}/s in each"
SATURATED: Final = "changes of documents, as fast as it goes"

_UPDATE_BYTES: Final = 30
"""As large as a Yjs update of one letter."""

_numbers = count(10**9)
"""Of users that were not there when the storage was filled."""


async def in_flight(callers: int, seconds: float, call: Callable[[int], Awaitable[object]]) -> Measures:
    """So many callers, each of which calls again as soon as it has its answer; ``call`` is told which one it is."""
    durations: list[float] = []
    clock = time.perf_counter
    begun, used = clock(), time.process_time()
    end = begun + seconds

    async def call_again_and_again(caller: int) -> None:
        while (sent := clock()) < end:
            await call(caller)
            durations.append(clock() - sent)

    async with asyncio.TaskGroup() as group:
        for caller in range(callers):
            group.create_task(call_again_and_again(caller))
    elapsed, used = clock() - begun, time.process_time() - used
    return {
        "operations": (len(durations) / elapsed, "/s"),
        "CPU per operation": (used / len(durations) * 1e6, "µs"),
        **quantiles(durations),
    }


class SessionCases:
    """The cases about sessions on one side."""

    def __init__(self, side: Side, plan: Plan) -> None:
        self._side = side
        self._callers = plan.size(CALLERS, QUICK_CALLERS)
        self._group = plan.size(GROUP, QUICK_GROUP)
        self._revocations = plan.size(1_000, 20)

    async def create(self, seconds: float) -> Measures:
        """One after the other for new users, all of them different."""
        sessions = self._side.sessions
        return await in_flight(self._callers, seconds, lambda _caller: sessions.create_session(_new_user()))

    async def create_groups(self, seconds: float) -> Measures:
        """Many in one call, as an import brings them; each counts."""
        found = await in_flight(GROUP_CALLERS, seconds, lambda _caller: self._create_group(self._group))
        operations, unit = found["operations"]
        return {"operations": (operations * self._group, unit)}

    async def _create_group(self, size: int) -> Sequence[str]:
        users = [_new_user() for _ in range(size)]
        await self._side.sessions.create_sessions([SessionRequest(user_id=name) for name in users])
        return users

    async def get(self, seconds: float) -> Measures:
        """The session of an id, as the port has it."""
        ids, get, turn = self._side.ids, self._side.storage.get, count()
        return await in_flight(self._callers, seconds, lambda _caller: get(ids[next(turn) * 7919 % len(ids)]))

    async def request(self, seconds: float) -> Measures:
        """What a request with a token needs: the session and its secret, compared, with all deadlines."""
        tokens, authenticate, turn = self._side.tokens, self._side.sessions.authenticate, count()
        return await in_flight(
            self._callers, seconds, lambda _caller: authenticate(tokens[next(turn) * 7919 % len(tokens)])
        )

    async def update(self, seconds: float) -> Measures:
        """A change of a session that is known, with its event, as the port has it; each caller has its own."""
        storage = self._side.storage
        held = await storage.get_many(self._side.ids[: self._callers])

        async def update(caller: int) -> None:
            session = held[caller]
            if session is None:
                raise Unexpected("a session is gone")
            event = Extended(
                session=session.id,
                user=session.user_id,
                version=session.version + 1,
                at=datetime.now(UTC),
                expires_at=session.expires_at + timedelta(microseconds=1),
            )
            changed = apply(session, event)
            await storage.update(changed, event)
            held[caller] = changed

        return await in_flight(len(held), seconds, update)

    async def touch(self, seconds: float) -> Measures:
        """Activity, as the port has it: it may become durable later."""
        ids, touch, turn = self._side.ids, self._side.storage.touch, count()
        return await in_flight(
            self._callers, seconds, lambda _caller: touch(ids[next(turn) * 7919 % len(ids)], datetime.now(UTC))
        )

    async def first_page(self, seconds: float) -> Measures:
        """By one caller."""
        return await self._page(Page(limit=PAGE), seconds)

    async def last_page(self, seconds: float) -> Measures:
        """By one caller."""
        return await self._page(self._side.last_page, seconds)

    async def _page(self, page: Page, seconds: float) -> Measures:
        listing = self._side.storage.list
        found = dict(await in_flight(1, seconds, lambda _caller: listing(SessionFilter(), page)))
        del found["operations"]
        return found

    async def revoke(self, _seconds: float) -> Measures:
        """Users with their sessions, made before the clock starts."""
        users = [_new_user() for _ in range(self._revocations)]
        requests = [SessionRequest(user_id=name) for name in users for _ in range(SESSIONS_PER_USER)]
        for first in range(0, len(requests), 500):
            await self._side.sessions.create_sessions(requests[first : first + 500])
        revoke = self._side.sessions.revoke_user
        durations: list[float] = []
        clock, waiting = time.perf_counter, iter(users)

        async def revoke_the_next() -> None:
            for name in waiting:
                begun = clock()
                found = await revoke(name)
                durations.append(clock() - begun)
                if found.revoked != SESSIONS_PER_USER:
                    raise Unexpected(f"{found.revoked} sessions were revoked")

        begun = clock()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._callers):
                group.create_task(revoke_the_next())
        return {"operations": (len(users) / (clock() - begun), "/s"), **quantiles(durations)}


def _new_user() -> str:
    return user(next(_numbers) * SESSIONS_PER_USER)


# --- documents ------------------------------------------------------------------------------------------


class DocumentCases:
    """The cases about documents on one side: the changes of all of them go into one commit after the other."""

    def __init__(self, side: Side, plan: Plan) -> None:
        self._store = side.documents
        self._names = [f"document-{number:06d}" for number in range(plan.size(DOCUMENTS, QUICK_DOCUMENTS))]
        self._lineages: list[str] = []
        self._appended = 0

    async def prepare(self) -> None:
        """Make the documents."""
        now = datetime.now(UTC)
        for name in self._names:
            record = await self._store.create(name, f"lineage-{name}", now)
            self._lineages.append(record.lineage)

    async def paced(self, seconds: float) -> Measures:
        """
        In every document a change every twentieth of a second, all at the same moment.

        How long it takes is measured from when a change is made: those that come while a commit is on its way wait.
        """
        clock, durations, done = time.perf_counter, list[float](), 0
        used = time.process_time()
        begun = clock()
        while done < int(seconds * PACE):
            made = int((clock() - begun) * PACE) + 1 - done
            if made <= 0:
                await asyncio.sleep(begun + done / PACE - clock())
                continue
            await self._append(made)
            finished = clock() - begun
            durations += [finished - number / PACE for number in range(done, done + made)]
            done += made
        elapsed, used = clock() - begun, time.process_time() - used
        await self._check()
        return {
            "updates": (done * len(self._names) / elapsed, "/s"),
            "CPU per update": (used / done / len(self._names) * 1e6, "µs"),
            **quantiles(durations, "durable "),
        }

    async def saturated(self, seconds: float) -> Measures:
        """One change of each document in every commit."""
        clock, durations = time.perf_counter, list[float]()
        begun, used = clock(), time.process_time()
        while (sent := clock()) < begun + seconds:
            await self._append(1)
            durations.append(clock() - sent)
        elapsed, used = clock() - begun, time.process_time() - used
        await self._check()
        updates = len(durations) * len(self._names)
        return {
            "updates": (updates / elapsed, "/s"),
            "CPU per update": (used / updates * 1e6, "µs"),
            **quantiles(durations, "commit "),
        }

    async def _append(self, each: int) -> None:
        updates = [DocumentUpdate(bytes(_UPDATE_BYTES), _AUTHOR, datetime.now(UTC))] * each
        appends = [Append(name, lineage, updates) for name, lineage in zip(self._names, self._lineages, strict=True)]
        outcomes = await self._store.append_each(appends)
        self._appended += each
        if any(outcome != self._appended for outcome in outcomes):
            raise Unexpected(f"{set(outcomes)} is the number of the last update, and not {self._appended}")

    async def _check(self) -> None:
        """Everything is there that was called stored."""
        heads = await self._store.heads(self._names)
        if any(head is None or head.sequence != self._appended for head in heads):
            raise Unexpected("updates are missing")


_AUTHOR: Final = Author(actor="user:alice", user="alice")
