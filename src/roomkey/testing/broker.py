"""
The conformance suites of ``Broker``: what the port promises, as tests that any broker can run.

A broker's author subclasses ``BrokerConformance`` in a test module, says in ``open`` how the broker is made, and runs
the coroutines with pytest-asyncio in its auto mode or a hook of one's own. One that joins nodes runs
``SharedBrokerConformance`` besides.
``pytest.register_assert_rewrite("roomkey.testing.broker")`` in ``conftest.py`` makes failures speak.
"""
# ruff: noqa: S101, D102  # tests assert, and their names say what they promise

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from roomkey.errors import Conflict, Storage
from roomkey.ports import Broker, MessageKey, Position, Publication

LONGEST_SECONDS: Final = 30.0
"""How long a suite waits for what must come: longer than any broker needs on a machine that is busy."""


class Listener:
    """A ``Receiver`` that keeps what it is handed."""

    def __init__(self) -> None:
        self.heard: list[Publication] = []
        self.gaps = 0
        self._changed = asyncio.Event()

    def on_publication(self, publication: Publication) -> None:
        """Keep it."""
        self.heard.append(publication)
        self._changed.set()

    def on_gap(self) -> None:
        """Count it."""
        self.gaps += 1
        self._changed.set()

    async def wait(self, condition: Callable[["Listener"], bool]) -> None:
        """Return when ``condition`` is true of it."""
        async with asyncio.timeout(LONGEST_SECONDS):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def wait_heard(self, message: bytes) -> None:
        """Return when it has been handed ``message``."""
        await self.wait(lambda self: message in self.messages)

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


class SharedBrokerConformance:
    """
    What brokers promise besides that reach other nodes.

    Subclasses say how to ``open_nodes``, how to ``cut`` what one of them hears by, and how ``lose`` loses everything.
    """

    def open_nodes(self, number: int) -> AbstractAsyncContextManager[Sequence[Broker]]:
        """
        The brokers of so many nodes, in which nothing was ever published; they keep at least 100 publications per room.

        A node may leave before the others: one that is exited already is not exited again.
        """
        raise NotImplementedError

    def cut(self, broker: Broker) -> AbstractAsyncContextManager[None]:
        """While this is entered, the broker hears nothing, and cannot connect to hear anything."""
        raise NotImplementedError

    async def lose(self) -> None:
        """Lose all histories, as a store does that was restarted empty."""
        raise NotImplementedError

    async def _listening(self, brokers: Sequence[Broker], room: str = "d") -> list[Listener]:
        listeners = [Listener() for _ in brokers]
        for broker, listener in zip(brokers, listeners, strict=True):
            await broker.subscribe(room, listener)
        return listeners

    async def _publish(self, broker: Broker, messages: Sequence[str], origin: str = "c1") -> None:
        for message in messages:
            await broker.publish("d", message.encode(), origin=origin)

    async def test_it_says_that_it_is_shared(self) -> None:
        async with self.open_nodes(1) as (broker,):
            assert broker.shared
            assert broker.degradations() == {}

    async def test_nodes_hear_each_other(self) -> None:
        async with self.open_nodes(2) as brokers:
            listeners = await self._listening(brokers)

            published = [await broker.publish("d", b"%d" % n, origin=f"c{n}") for n, broker in enumerate(brokers)]

            for listener in listeners:
                await listener.wait_heard(b"1")
                assert [each.position for each in listener.heard] == [each.position for each in published]
                assert [(each.message, each.origin) for each in listener.heard] == [(b"0", "c0"), (b"1", "c1")]
                assert listener.offsets == [1, 2]

    async def test_whoever_has_subscribed_hears_what_is_published_then(self) -> None:
        async with self.open_nodes(2) as (one, other):
            for number in range(20):
                listener = Listener()
                await other.subscribe(f"d{number}", listener)
                await one.publish(f"d{number}", b"x", origin="c1")

                await listener.wait_heard(b"x")
                await other.unsubscribe(f"d{number}")

    async def test_there_is_one_order_for_all_nodes_and_in_it_that_of_each_origin(self) -> None:
        async with self.open_nodes(3) as brokers:
            listeners = await self._listening(brokers)

            await asyncio.gather(
                *(
                    self._publish(broker, [f"{origin}{n}" for n in range(20)], origin)
                    for origin, broker in zip("abc", brokers, strict=True)
                )
            )

            for listener in listeners:
                await listener.wait(lambda self: len(self.heard) == 60)
                assert listener.messages == listeners[0].messages
                assert listener.offsets == list(range(1, 61))
                for origin in "abc":
                    own = [each.message.decode() for each in listener.heard if each.origin == origin]
                    assert own == [f"{origin}{n}" for n in range(20)]

    async def test_publications_that_are_begun_at_once_stay_in_the_order_of_the_calls(self) -> None:
        async with self.open_nodes(2) as brokers:
            _, listener = await self._listening(brokers)

            await asyncio.gather(*(brokers[0].publish("d", b"%d" % n, origin="c1", keep=n % 3 > 0) for n in range(60)))

            await listener.wait(lambda self: len(self.heard) == 60)
            assert listener.messages == [b"%d" % n for n in range(60)]

    async def test_what_is_not_kept_reaches_other_nodes_and_takes_no_position(self) -> None:
        async with self.open_nodes(2) as brokers:
            listeners = await self._listening(brokers, "\0s")

            published = await brokers[0].publish("\0s", b"\1\0\xff", origin="n1", keep=False)

            assert published.position is None
            for listener in listeners:
                await listener.wait_heard(b"\1\0\xff")
                assert listener.heard == [Publication(b"\1\0\xff", "n1", None)]

    async def test_a_node_that_does_not_listen_any_more_leaves_the_others_listening(self) -> None:
        async with self.open_nodes(2) as brokers:
            here, there = await self._listening(brokers)
            await brokers[0].unsubscribe("d")

            await self._publish(brokers[0], ["x"])

            await there.wait_heard(b"x")
            again = Listener()
            await brokers[0].subscribe("d", again)
            await self._publish(brokers[1], ["y"])
            await again.wait_heard(b"y")
            assert (here.messages, again.messages) == ([], [b"y"])

    async def test_what_was_published_by_way_of_one_node_is_a_repetition_on_another(self) -> None:
        async with self.open_nodes(2) as brokers:
            _, listener = await self._listening(brokers)
            key = MessageKey("alice", "m1", 2**64 - 1)

            first = await brokers[0].publish("d", b"x", origin="c1", key=key)
            again = await brokers[1].publish("d", b"x", origin="c2", key=key)
            await self._publish(brokers[1], ["last"])

            await listener.wait_heard(b"last")
            assert (first.repeated, again.repeated) == (False, True)
            assert again.position == first.position
            assert listener.messages == [b"x", b"last"]

    async def test_an_id_that_was_used_by_way_of_another_node_for_something_else_is_a_conflict(self) -> None:
        async with self.open_nodes(2) as brokers:
            _, listener = await self._listening(brokers)
            await brokers[0].publish("d", b"x", origin="c1", key=MessageKey("alice", "m1", 1))

            try:
                await brokers[1].publish("d", b"y", origin="c2", key=MessageKey("alice", "m1", 2))
            except Conflict:
                refused = True
            else:
                refused = False
            await self._publish(brokers[1], ["last"])

            await listener.wait_heard(b"last")
            assert refused
            assert listener.messages == [b"x", b"last"]

    async def test_of_many_who_repeat_on_all_nodes_at_once_one_publishes(self) -> None:
        async with self.open_nodes(2) as brokers:
            key = MessageKey("alice", "m1", 1)

            published = await asyncio.gather(
                *(broker.publish("d", b"x", origin="c1", key=key) for broker in brokers for _ in range(10))
            )

            assert sum(not each.repeated for each in published) == 1
            assert len({each.position for each in published}) == 1

    async def test_a_history_outlives_the_node_that_wrote_it(self) -> None:
        async with self.open_nodes(2) as (one, other):
            await self._publish(one, ["1", "2", "3"])
            position = (await one.since("d", None)).position
            await one.__aexit__(None, None, None)

            found = await other.since("d", Position(position.epoch, 1))

            assert found.position == position
            assert found.publications is not None
            assert [each.message for each in found.publications] == [b"2", b"3"]
            assert [each.position for each in found.publications] == [Position(position.epoch, n) for n in (2, 3)]
            assert {each.origin for each in found.publications} == {"c1"}

    async def test_whoever_could_not_hear_is_told_of_a_gap_and_can_read_what_was_missed(self) -> None:
        async with self.open_nodes(2) as (one, other):
            _, listener = await self._listening([one, other])
            quiet = Listener()
            await other.subscribe("quiet", quiet)
            await self._publish(one, ["before"])
            await listener.wait_heard(b"before")

            async with self.cut(other):
                await self._publish(one, ["meanwhile"])
                await self._until(lambda: "broker" in other.degradations())
            await listener.wait(lambda self: self.gaps > 0)
            await quiet.wait(lambda self: self.gaps > 0)
            missed = await other.since("d", listener.heard[0].position)
            await self._publish(one, ["after"])

            assert missed.publications is not None
            assert [each.message for each in missed.publications] == [b"meanwhile"]
            await listener.wait_heard(b"after")
            assert other.degradations() == {}

    async def test_a_history_that_is_lost_begins_a_new_epoch_and_whoever_listens_is_told(self) -> None:
        async with self.open_nodes(2) as brokers:
            listeners = await self._listening(brokers)
            await self._publish(brokers[0], ["1", "2"])
            for listener in listeners:
                await listener.wait_heard(b"2")
            former = (await brokers[0].since("d", None)).position

            await self.lose()
            await self._publish_somehow(brokers[1], b"anew")

            for listener in listeners:
                await listener.wait_heard(b"anew")
                assert listener.gaps > 0
                assert listener.heard[-1].position is not None
                assert listener.heard[-1].position.epoch != former.epoch
                assert listener.heard[-1].position.offset == 1
            found = await brokers[0].since("d", former)
            assert found.publications is None
            assert found.position == listeners[0].heard[-1].position

    async def _publish_somehow(self, broker: Broker, message: bytes) -> None:
        """Publish it once the broker is there again."""
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                try:
                    await broker.publish("d", message, origin="c1", key=MessageKey("c1", "once", 1))
                except Storage:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONGEST_SECONDS):
            while not condition():  # noqa: ASYNC110  # nobody is told when it becomes true
                await asyncio.sleep(0.01)
