"""Hints reach other nodes at once, all of a turn in one message, and can do no harm."""

import asyncio
from collections.abc import Sequence

from roomkey.domain.session import AnyEvent, Created, Invalidated, SessionId
from roomkey.errors import Serialization
from roomkey.neighbours import CODEC
from roomkey.ports import Publication
from roomkey.sessions.hints import CHANNEL, MAX_MESSAGE_BYTES, EventCodec, HintListener, SessionHints
from tests.support.hint_exchange import Exchange
from tests.support.loops import in_no_time
from tests.support.sessions import NOON, created


class Ears:
    def __init__(self) -> None:
        self.events: list[AnyEvent] = []
        self.gaps = 0
        self.echoes: list[float] = []

    def listener(self) -> HintListener:
        return HintListener(self.events.extend, self._gap, self.echoes.append)

    def _gap(self) -> None:
        self.gaps += 1


def invalidated(number: int = 0, cause: str | None = None) -> Invalidated:
    return Invalidated(session=SessionId(f"3a{number:026d}"), user="alice", version=2, at=NOON, reason=cause)


class Pair:
    """Two nodes that hint."""

    def __init__(self, codec: EventCodec = CODEC) -> None:
        self.exchange = Exchange()
        self.ears = Ears(), Ears()
        self.brokers = [self.exchange.broker(name) for name in "ab"]
        self.a, self.b = (
            SessionHints(broker, codec, ears.listener(), node=name)
            for broker, ears, name in zip(self.brokers, self.ears, "ab", strict=True)
        )

    async def tell(self, events: Sequence[AnyEvent]) -> None:
        """Let the first node commit these events one by one."""
        async with self.a.at_work(), self.b.at_work():
            running = asyncio.create_task(self.a.run())
            for event in events:
                self.a.announce([event])
            await asyncio.sleep(0.1)
            running.cancel()


@in_no_time
async def test_what_one_node_commits_in_one_turn_reaches_the_other_in_one_message() -> None:
    pair, events = Pair(), [invalidated(number) for number in range(20)]

    await pair.tell(events)

    assert pair.ears[1].events == events
    assert [room for room, _ in pair.exchange.sent] == [CHANNEL]


@in_no_time
async def test_the_sender_hears_only_how_far_it_hears() -> None:
    pair = Pair()

    await pair.tell([invalidated()])

    assert pair.ears[0].events == []
    assert len(pair.ears[0].echoes) == 1
    assert pair.ears[1].echoes == []


@in_no_time
async def test_of_sessions_that_have_just_begun_nobody_need_know() -> None:
    pair = Pair()

    await pair.tell([created()])

    assert isinstance(created(), Created)
    assert pair.exchange.sent == []


@in_no_time
async def test_much_at_once_goes_in_several_messages_that_are_not_too_long() -> None:
    pair, events = Pair(), [invalidated(number, cause="c" * 1000) for number in range(200)]

    await pair.tell(events)

    sizes = [len(publication.message) for _, publication in pair.exchange.sent]
    assert pair.ears[1].events == events
    assert len(sizes) > 2
    assert max(sizes) < MAX_MESSAGE_BYTES + 4096


@in_no_time
async def test_a_broker_that_is_away_loses_hints_and_nothing_else() -> None:
    pair = Pair()
    async with pair.a.at_work(), pair.b.at_work():
        pair.brokers[0].cut()
        pair.a.announce([invalidated(1)])
        lost = await pair.a.send()
        pair.brokers[0].join()
        pair.a.announce([invalidated(2)])
        sent = await pair.a.send()

    assert (lost, sent) == (False, True)
    assert pair.ears[1].events == [invalidated(2)]
    assert pair.ears[0].gaps == 1


@in_no_time
async def test_what_a_newer_node_says_is_passed_over_and_counted() -> None:
    def decode(record: bytes) -> AnyEvent:
        event = CODEC.decode(record)
        if event.reason == "of a later version":
            raise Serialization("newer")
        return event

    pair = Pair(EventCodec(CODEC.encode, decode))

    await pair.tell([invalidated(1), invalidated(2, "of a later version"), invalidated(3)])
    for message in (b"\x02anything", b"\x01", b"{}", b""):
        pair.b.on_publication(Publication(message, "a", None))

    assert pair.ears[1].events == [invalidated(1), invalidated(3)]
    assert pair.b.ignored == 5
