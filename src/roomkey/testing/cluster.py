"""
The conformance suites of what nodes know of each other: ``PresenceStore`` and ``NodeRegistry``.

A backend author subclasses them as those in ``roomkey.testing.shared``; the one of brokers is in
``roomkey.testing.broker``. Time is the store's: a suite waits, or moves the clock of the store.
"""
# ruff: noqa: D102, S101  # tests are sentences; tests assert

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Final, NamedTuple

from msgspec.structs import replace

from roomkey.ports import NodeRegistry, NodeStatus, Presence, PresenceChange, PresenceStore
from roomkey.testing.shared.timed import TimedSuite

STARTED: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


def status(id: str, sockets: int = 0) -> NodeStatus:
    """A node of this name."""
    return NodeStatus(id=id, version="1.2.3", started_at=STARTED, sockets=sockets)


class NodeRegistryConformance(TimedSuite):
    """All of ``NodeRegistry``. Subclasses say how to ``open`` it, with no node at first."""

    def open(self) -> AbstractAsyncContextManager[NodeRegistry]:
        raise NotImplementedError

    async def _living(self, nodes: NodeRegistry) -> list[str]:
        return [each.id for each in await nodes.nodes()]

    async def test_whoever_says_that_it_lives_hears_of_all_that_do_by_their_ids(self) -> None:
        async with self.open() as nodes:
            heard = [await nodes.renew(status(id), 9 * self.moment) for id in ("b", "c", "a")]

            assert [[each.id for each in living] for living in heard] == [["b"], ["b", "c"], ["a", "b", "c"]]
            assert await self._living(nodes) == ["a", "b", "c"]

    async def test_all_that_a_node_says_of_itself_is_kept_and_the_latest_holds(self) -> None:
        said = NodeStatus(
            id="ä",
            version="1.2.3",
            started_at=STARTED,
            address="[::1]:8000",
            sockets=12,
            rooms=3,
            lag_ms=40,
            draining=True,
            messages=(1, 2),
        )
        async with self.open() as nodes:
            await nodes.renew(status("ä", sockets=1), 9 * self.moment)
            (renewed,) = await nodes.renew(said, 9 * self.moment)
            (found,) = await nodes.nodes()

        for each in (renewed, found):
            assert replace(each, messages=tuple(each.messages)) == said

    async def test_who_says_nothing_for_its_lifetime_lives_no_more(self) -> None:
        async with self.open() as nodes:
            await nodes.renew(status("short"), 2 * self.moment)
            await nodes.renew(status("long"), 20 * self.moment)
            before = await self._living(nodes)

            await self.pass_time(2 * self.moment)

            assert before == ["long", "short"]
            assert await self._living(nodes) == ["long"]
            assert [each.id for each in await nodes.renew(status("long"), 20 * self.moment)] == ["long"]

    async def test_who_says_so_in_time_goes_on_living(self) -> None:
        async with self.open() as nodes:
            await nodes.renew(status("a"), 3 * self.moment)
            for _ in range(3):
                await self.pass_time(2 * self.moment)
                await nodes.renew(status("a"), 3 * self.moment)

            assert await self._living(nodes) == ["a"]

    async def test_who_leaves_is_gone_at_once_and_may_leave_twice_and_come_back(self) -> None:
        async with self.open() as nodes:
            await nodes.renew(status("a"), 9 * self.moment)
            await nodes.renew(status("b"), 9 * self.moment)

            await nodes.leave("a")
            await nodes.leave("a")
            await nodes.leave("never there")
            left = await self._living(nodes)
            await nodes.renew(status("a"), 9 * self.moment)

            assert left == ["b"]
            assert await self._living(nodes) == ["a", "b"]

    async def test_many_come_at_once(self) -> None:
        ids = [f"{number:02}" for number in range(50)]
        async with self.open() as nodes:
            await asyncio.gather(*(nodes.renew(status(id), 50 * self.moment) for id in reversed(ids)))

            assert await self._living(nodes) == ids


class Seat(NamedTuple):
    """What a node has of a cluster: where it says that it lives, and where it says whom it shows."""

    nodes: NodeRegistry
    presence: PresenceStore


def shows(room: str, member: str, shown: bytes | None = b"here") -> PresenceChange:
    """A change."""
    return PresenceChange(room, member, shown)


class PresenceStoreConformance(TimedSuite):
    """All of ``PresenceStore``. Subclasses say how to ``open`` what nodes of these names have, with nobody shown."""

    def open(self, *nodes: str) -> AbstractAsyncContextManager[Sequence[Seat]]:
        raise NotImplementedError

    async def _live(self, seats: Sequence[Seat], moments: int = 50) -> None:
        for name, seat in zip("ab", seats, strict=False):
            await seat.nodes.renew(status(name), moments * self.moment)

    async def _here(self, seat: Seat, room: str = "r") -> list[tuple[str, str, bytes]]:
        return sorted((each.node, each.member, each.shown) for each in await seat.presence.here(room))

    async def test_everybody_sees_whom_each_node_shows(self) -> None:
        async with self.open("a", "b") as seats:
            await self._live(seats)
            one, other = seats
            await one.presence.change([shows("r", "alice", b"\0\xff")])
            await other.presence.change([shows("r", "bob", b"")])

            found = [await self._here(seat) for seat in seats]

            assert found == [[("a", "alice", b"\0\xff"), ("b", "bob", b"")]] * 2
            assert set(await one.presence.here("r")) == {
                Presence("a", "alice", b"\0\xff"),
                Presence("b", "bob", b""),
            }

    async def test_nobody_is_in_a_room_of_which_nothing_was_said(self) -> None:
        async with self.open("a") as (seat,):
            await self._live([seat])

            assert await self._here(seat) == []

    async def test_rooms_and_members_of_any_name_are_apart(self) -> None:
        names = ("r", "R", "r/1", "ä", "{r}", "r:b", "\0r")
        async with self.open("a") as (seat,):
            await self._live([seat])
            await seat.presence.change([shows(name, f"m{name}", name.encode()) for name in names])

            found = [await self._here(seat, name) for name in names]

            assert found == [[("a", f"m{name}", name.encode())] for name in names]

    async def test_the_last_that_was_said_of_a_member_holds_and_saying_it_again_does_not_matter(self) -> None:
        async with self.open("a") as (seat,):
            await self._live([seat])
            said = [shows("r", "alice", b"1"), shows("r", "bob"), shows("r", "alice", b"2"), shows("r", "bob", None)]
            await seat.presence.change(said)
            await seat.presence.change(said)
            await seat.presence.change([])

            assert await self._here(seat) == [("a", "alice", b"2")]

    async def test_who_is_shown_no_more_is_gone_and_may_come_back(self) -> None:
        async with self.open("a") as (seat,):
            await self._live([seat])
            await seat.presence.change([shows("r", "alice"), shows("r", "bob")])
            await seat.presence.change([shows("r", "alice", None), shows("r", "nobody", None)])
            without = await self._here(seat)
            await seat.presence.change([shows("r", "alice", b"back")])

            assert without == [("a", "bob", b"here")]
            assert await self._here(seat) == [("a", "alice", b"back"), ("a", "bob", b"here")]

    async def test_a_member_by_way_of_two_nodes_stays_until_both_say_that_it_is_gone(self) -> None:
        async with self.open("a", "b") as seats:
            await self._live(seats)
            one, other = seats
            await one.presence.change([shows("r", "alice", b"1")])
            await other.presence.change([shows("r", "alice", b"2")])
            both = await self._here(one)
            await one.presence.change([shows("r", "alice", None)])

            assert both == [("a", "alice", b"1"), ("b", "alice", b"2")]
            assert await self._here(one) == [("b", "alice", b"2")]

    async def test_nobody_is_there_by_way_of_a_node_that_lives_no_more(self) -> None:
        async with self.open("a", "b") as seats:
            one, other = seats
            await one.nodes.renew(status("a"), 2 * self.moment)
            await other.nodes.renew(status("b"), 50 * self.moment)
            await one.presence.change([shows("r", "alice")])
            await other.presence.change([shows("r", "bob")])
            before = await self._here(other)

            await self.pass_time(2 * self.moment)

            assert before == [("a", "alice", b"here"), ("b", "bob", b"here")]
            assert await self._here(other) == [("b", "bob", b"here")]

    async def test_nobody_is_there_by_way_of_a_node_that_never_said_that_it_lives(self) -> None:
        async with self.open("a", "b") as seats:
            one, other = seats
            await other.nodes.renew(status("b"), 50 * self.moment)
            await one.presence.change([shows("r", "alice")])

            assert await self._here(other) == []

    async def test_nobody_is_there_by_way_of_a_node_that_left(self) -> None:
        async with self.open("a", "b") as seats:
            await self._live(seats)
            one, other = seats
            await one.presence.change([shows("r", "alice")])
            await one.nodes.leave("a")

            assert await self._here(other) == []

    async def test_what_a_node_said_that_lives_on_stands(self) -> None:
        async with self.open("a") as (seat,):
            await self._live([seat], moments=4)
            await seat.presence.change([shows("r", "alice")])
            for _ in range(3):
                await self.pass_time(2 * self.moment)
                await self._live([seat], moments=4)

            assert await self._here(seat) == [("a", "alice", b"here")]

    async def test_what_was_forgotten_does_not_come_back_with_its_node(self) -> None:
        async with self.open("a", "b") as seats:
            await self._live(seats)
            one, other = seats
            await one.presence.change([shows(f"r{number}", "alice") for number in range(20)])
            await other.presence.change([shows("r0", "bob")])
            await one.nodes.leave("a")

            await other.presence.forget("a")
            await other.presence.forget("a")
            await other.presence.forget("never there")
            await self._live(seats)

            found = [await self._here(other, f"r{number}") for number in range(20)]
            assert found == [[("b", "bob", b"here")]] + [[]] * 19

    async def test_what_a_node_says_after_it_was_forgotten_stands(self) -> None:
        async with self.open("a", "b") as seats:
            one, other = seats
            await self._live(seats)
            await one.presence.change([shows("r", "alice")])
            await other.presence.forget("a")

            await one.presence.change([shows("r", "carol")])
            without = await self._here(other)
            await one.presence.change([shows("r", "alice", b"again")])

            assert without == [("a", "carol", b"here")]
            assert await self._here(other) == [("a", "alice", b"again"), ("a", "carol", b"here")]

    async def test_changes_of_many_rooms_at_once_all_hold(self) -> None:
        async with self.open("a", "b") as seats:
            await self._live(seats)
            one, other = seats
            await asyncio.gather(
                *(
                    seat.presence.change([shows(f"r{number}", f"m{member}") for number in range(10)])
                    for seat in seats
                    for member in range(5)
                )
            )
            await asyncio.gather(*(one.presence.change([shows(f"r{number}", "m0", None)]) for number in range(10)))

            found = [await self._here(other, f"r{number}") for number in range(10)]

            members = [("a", f"m{n}", b"here") for n in range(1, 5)] + [("b", f"m{n}", b"here") for n in range(5)]
            assert found == [members] * 10
