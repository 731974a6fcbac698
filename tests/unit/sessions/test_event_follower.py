"""What other processes commit arrives: all of it, in order."""

from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.session import AnyEvent
from roomkey.sessions.event_follower import Relay
from tests.support.sessions import Desk


async def test_only_what_is_committed_after_the_start_arrives_and_each_once() -> None:
    desk = Desk()
    before = await desk.active()
    heard: list[AnyEvent] = []
    relay = Relay(desk.storage, heard.extend)
    await relay.start()

    await desk.sessions.suspend_session(before.id)
    later = await desk.active("bob")
    passed = await relay.follow()

    assert passed == len(heard) == 3
    assert sorted((event.session or "", event.tag()) for event in heard) == sorted(
        [(before.id, "suspended"), (later.id, "created"), (later.id, "activated")]
    )
    assert await relay.follow() == 0


async def test_a_log_that_was_purged_meanwhile_does_not_stop_the_relay() -> None:
    desk = Desk(MemorySessionStorage(events_per_partition=2))
    heard: list[AnyEvent] = []
    relay = Relay(desk.storage, heard.extend)
    await relay.start()
    session = await desk.active()
    await desk.sessions.suspend_session(session.id)

    await relay.follow()
    await desk.sessions.resume_session(session.id)
    await relay.follow()

    assert [event.tag() for event in heard] == ["activated", "suspended", "resumed"]
