"""While a deployment is upgraded, nodes of two versions are on one storage: what only the newer know harms nobody."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from roomkey.backends.lmdb import FileSystemSessionStorage
from roomkey.domain.session import Event, Invalidated, Session, Suspended, partition_of
from roomkey.ports import EventConsumer, LoggedEvent, SessionStorage
from roomkey.sessions.event_follower import EventFollower
from roomkey.testing.storage.suite import NOON, change, store


class OfTomorrow(Event, frozen=True, kw_only=True, gc=False, tag="of_tomorrow"):
    """What a newer node writes into the log."""


class Heard(EventConsumer):
    """What a follower of this version makes of the log."""

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.gaps: list[tuple[int, int]] = []

    async def consume(self, partition: int, events: Sequence[LoggedEvent]) -> None:
        del partition
        self.tags += [each.event.tag() for each in events]

    async def gap(self, partition: int, first_missing: int, last_missing: int) -> None:
        del partition
        self.gaps.append((first_missing, last_missing))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@asynccontextmanager
async def followed(folder: Path) -> AsyncGenerator[tuple[SessionStorage, EventFollower, Heard]]:
    heard = Heard()
    async with FileSystemSessionStorage(folder) as storage:
        follower = EventFollower(storage, heard, name="sockets")
        await follower.start()
        yield storage, follower, heard


async def happens_tomorrow(storage: SessionStorage, session: Session) -> Session:
    """A newer node does something to the session that this version does not know."""
    event = OfTomorrow(session=session.id, user=session.user_id, version=session.version + 1, at=NOON)
    after = replace(session, version=session.version + 1)
    await storage.update(after, event)  # pyright: ignore[reportArgumentType]
    return after


async def test_an_event_of_tomorrow_is_a_gap_and_what_follows_it_arrives(folder: Path) -> None:
    async with followed(folder) as (storage, follower, heard):
        session = await store(storage, active=True)
        session = await change(storage, session, Suspended, NOON)
        session = await happens_tomorrow(storage, session)
        await change(storage, session, Invalidated, NOON)

        with capture_logs():
            await follower.follow()
            await follower.follow()

        assert heard.tags == ["created", "activated", "suspended", "invalidated"]
        assert heard.gaps == [(4, 4)]
        assert (await storage.heads())[partition_of("alice")] == 5


async def test_a_session_to_which_something_of_tomorrow_happened_can_still_be_ended(folder: Path) -> None:
    async with followed(folder) as (storage, _, _):
        session = await happens_tomorrow(storage, await store(storage, active=True))

        await change(storage, session, Invalidated, NOON)

        found = await storage.get(session.id)
        assert found is not None
        assert (found.state, found.version) == ("invalidated", 4)
