"""What other processes commit arrives: all of it, in order."""

from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.session import AnyEvent
from roomkey.sessions.event_follower import EventFollower
from tests.support.sessions import Desk


async def test_only_what_is_committed_after_the_start_arrives_and_each_once() -> None:
    desk = Desk()
    before = await desk.active()
    heard: list[AnyEvent] = []
    follower = EventFollower(desk.storage, heard.extend)
    await follower.start()

    await desk.sessions.suspend_session(before.id)
    later = await desk.active("bob")
    passed = await follower.follow()

    assert passed == len(heard) == 3
    assert sorted((event.session or "", event.tag()) for event in heard) == sorted(
        [(before.id, "suspended"), (later.id, "created"), (later.id, "activated")]
    )
    assert await follower.follow() == 0


async def test_a_log_that_was_purged_meanwhile_does_not_stop_the_relay() -> None:
    desk = Desk(MemorySessionStorage(events_per_partition=2))
    heard: list[AnyEvent] = []
    follower = EventFollower(desk.storage, heard.extend)
    await follower.start()
    session = await desk.active()
    await desk.sessions.suspend_session(session.id)

    await follower.follow()
    await desk.sessions.resume_session(session.id)
    await follower.follow()

    assert [event.tag() for event in heard] == ["activated", "suspended", "resumed"]
