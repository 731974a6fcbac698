"""
The conformance suite of ``Broker``: what the port promises, as tests that any broker can run.

A broker's author subclasses ``BrokerConformance`` in a test module, says in ``open`` how the broker is made, and runs
the coroutines with pytest-asyncio in its auto mode or a hook of one's own.
``pytest.register_assert_rewrite("roomkey.testing.broker")`` in ``conftest.py`` makes failures speak.
"""
# ruff: noqa: S101, D102  # tests assert, and their names say what they promise

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from roomkey.errors import Conflict
from roomkey.ports import Broker, MessageKey, Position, Publication


class Listener:
    """A ``Receiver`` that keeps what it is handed."""

    def __init__(self) -> None:
        self.heard: list[Publication] = []

    def on_publication(self, publication: Publication) -> None:
        """Keep it."""
        self.heard.append(publication)

    @property
    def messages(self) -> list[bytes]:
        """What was said, in order."""
        return [publication.message for publication in self.heard]

    @property
    def offsets(self) -> list[int]:
        """Where it stands, as far as it has a position."""
        return [publication.position.offset for publication in self.heard if publication.position is not None]


class BrokerConformance:
    """Subclasses say how to ``open`` the broker under test, and how long ``settle`` waits for what is on its way."""

    def open(self) -> AbstractAsyncContextManager[Broker]:
        """A broker in which nothing was ever published; it keeps at least 100 publications per room."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Return when everything that was published has reached its receivers."""
        await asyncio.sleep(0)

    async def publish(self, broker: Broker, messages: Sequence[str], room: str = "d", origin: str = "c1") -> None:
        for message in messages:
            await broker.publish(room, message.encode(), origin=origin)

    # --- publications ---------------------------------------------------------------------------------

    async def test_offsets_begin_at_one_and_have_no_holes(self) -> None:
        async with self.open() as broker:
            listener = Listener()
            await broker.subscribe("d", listener)

            published = [await broker.publish("d", b"x", origin="c1") for _ in range(20)]
            await self.settle()

            offsets = [each.position.offset for each in published if each.position is not None]
            assert offsets == listener.offsets == list(range(1, 21))
            assert len({each.position.epoch for each in published if each.position is not None}) == 1

    async def test_everybody_is_handed_everything_in_one_order_the_sender_too(self) -> None:
        async with self.open() as broker:
            listener = Listener()
            await broker.subscribe("d", listener)

            await asyncio.gather(
                *(self.publish(broker, [f"{origin}{number}" for number in range(20)], origin=origin) for origin in "ab")
            )
            await self.settle()
            kept = await broker.since("d", Position(await self.epoch(broker), 0))

            assert kept.publications is not None
            assert [each.message for each in kept.publications] == listener.messages
            assert {each.origin for each in listener.heard} == {"a", "b"}
            for origin in "ab":
                own = [each.message.decode() for each in listener.heard if each.origin == origin]
                assert own == [f"{origin}{number}" for number in range(20)]

    async def test_rooms_do_not_hear_each_other(self) -> None:
        async with self.open() as broker:
            here, there = Listener(), Listener()
            await broker.subscribe("d", here)
            await broker.subscribe("D", there)

            await self.publish(broker, ["here"])
            await self.publish(broker, ["there"], room="D")
            await self.settle()

            assert (here.messages, there.messages) == ([b"here"], [b"there"])
            assert here.offsets == there.offsets == [1]

    async def test_what_is_not_kept_reaches_who_listens_and_takes_no_position(self) -> None:
        async with self.open() as broker:
            listener = Listener()
            await broker.subscribe("d", listener)

            passing = await broker.publish("d", b"passing", origin="c1", keep=False)
            kept = await broker.publish("d", b"kept", origin="c1")
            await self.settle()

            assert passing.position is None
            assert kept.position is not None
            assert kept.position.offset == 1
            assert listener.messages == [b"passing", b"kept"]

    async def test_whoever_does_not_listen_any_more_is_handed_nothing(self) -> None:
        async with self.open() as broker:
            listener = Listener()
            await broker.subscribe("d", listener)
            await broker.unsubscribe("d")
            await broker.unsubscribe("d")

            await self.publish(broker, ["unheard"])
            await self.settle()

            assert listener.messages == []
            assert (await broker.since("d", None)).position.offset == 1

    # --- repetitions ----------------------------------------------------------------------------------

    async def test_a_repeated_message_is_not_published_again_and_has_the_position_of_the_first(self) -> None:
        async with self.open() as broker:
            listener = Listener()
            await broker.subscribe("d", listener)
            key = MessageKey("alice", "m1", 1)

            first = await broker.publish("d", b"x", origin="c1", key=key)
            await self.publish(broker, ["between"])
            again = await broker.publish("d", b"x", origin="c2", key=key)
            await self.settle()

            assert (first.repeated, again.repeated) == (False, True)
            assert again.position == first.position
            assert listener.messages == [b"x", b"between"]

    async def test_ids_of_different_senders_are_different(self) -> None:
        async with self.open() as broker:
            published = [
                await broker.publish("d", b"x", origin="c1", key=MessageKey(sender, "m1", 1))
                for sender in ("alice", "bob")
            ]

            assert [each.repeated for each in published] == [False, False]

    async def test_an_id_that_is_used_for_something_else_is_a_conflict_and_publishes_nothing(self) -> None:
        async with self.open() as broker:
            listener = Listener()
            await broker.subscribe("d", listener)
            await broker.publish("d", b"x", origin="c1", key=MessageKey("alice", "m1", 1))

            try:
                await broker.publish("d", b"y", origin="c1", key=MessageKey("alice", "m1", 2))
            except Conflict:
                refused = True
            else:
                refused = False
            await self.settle()

            assert refused
            assert listener.messages == [b"x"]

    async def test_one_of_many_who_repeat_at_the_same_time_publishes(self) -> None:
        async with self.open() as broker:
            key = MessageKey("alice", "m1", 1)

            published = await asyncio.gather(*(broker.publish("d", b"x", origin="c1", key=key) for _ in range(20)))

            assert sum(not each.repeated for each in published) == 1
            assert len({each.position.offset for each in published if each.position is not None}) == 1

    # --- recovery -------------------------------------------------------------------------------------

    async def test_everything_after_a_position_is_there_in_order(self) -> None:
        async with self.open() as broker:
            await self.publish(broker, [str(number) for number in range(10)])
            epoch = await self.epoch(broker)

            found = [(await broker.since("d", Position(epoch, offset))).publications for offset in (0, 4, 10)]

            texts = [None if part is None else [each.message.decode() for each in part] for part in found]
            assert texts == [[str(n) for n in range(10)], [str(n) for n in range(4, 10)], []]

    async def test_a_position_that_is_not_ours_gives_nothing(self) -> None:
        async with self.open() as broker:
            await self.publish(broker, ["x"])
            epoch = await self.epoch(broker)

            found = [
                await broker.since("d", position)
                for position in (None, Position("otherone", 0), Position(epoch, 2), Position(epoch, -1))
            ]

            assert [each.publications for each in found] == [None] * 4
            assert {each.position for each in found} == {Position(epoch, 1)}

    async def test_who_subscribes_first_and_reads_then_misses_nothing(self) -> None:
        async with self.open() as broker:
            await self.publish(broker, ["before"])
            epoch = await self.epoch(broker)
            listener = Listener()
            await broker.subscribe("d", listener)

            writing = asyncio.create_task(self.publish(broker, [str(number) for number in range(50)]))
            recovered = await broker.since("d", Position(epoch, 0))
            await writing
            await self.settle()

            assert recovered.publications is not None
            have = {each.position.offset for each in recovered.publications if each.position is not None}
            assert have | set(listener.offsets) == set(range(1, 52))

    async def epoch(self, broker: Broker, room: str = "d") -> str:
        """Of the room's history."""
        return (await broker.since(room, None)).position.epoch
