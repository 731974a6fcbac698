"""Three nodes publish in the same rooms while connections break, stall and are refused, and the Redis stands still."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from random import Random
from typing import Final

import pytest

from roomkey.backends.redis.cluster import Histories, RedisBroker
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.redis.settings import RedisSettings
from roomkey.errors import OutcomeUnknown, Storage
from roomkey.ports import Position, Publication
from roomkey.testing.broker import Listener
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.deployments import QUICK, until
from tests.support.store_servers import RedisProcess

HISTORIES: Final = Histories(
    publications=100_000, age=timedelta(minutes=5), size=1 << 28, repeat_window=timedelta(minutes=2)
)
ROOMS: Final = ("d", "e", "f")
BLOWS: Final = 12


class Room(Listener):
    """Notes where a publication does not follow the one before though nobody spoke of a gap."""

    def __init__(self) -> None:
        super().__init__()
        self.holes: list[tuple[Position, Position]] = []
        self._last: Position | None = None

    def on_gap(self) -> None:
        super().on_gap()
        self._last = None

    def on_publication(self, publication: Publication) -> None:
        super().on_publication(publication)
        here, last = publication.position, self._last
        assert here is not None
        if last is not None and here != Position(last.epoch, last.offset + 1):
            self.holes.append((last, here))
        self._last = here


class Writer:
    """Publishes in a room, one after the other, and keeps what it was told."""

    def __init__(self, broker: RedisBroker, room: str, name: str) -> None:
        self.room = room
        self.name = name
        self.acknowledged: dict[bytes, Position | None] = {}
        self.unknown: set[bytes] = set()
        self.refused = 0
        self._broker = broker

    async def run(self, pause: Random) -> None:
        number = 0
        while True:
            number += 1
            message = f"{self.name} {number:06}".encode()
            try:
                published = await self._broker.publish(self.room, message, origin=self.name)
            except OutcomeUnknown:
                self.unknown.add(message)
            except Storage:
                self.refused += 1
            except asyncio.CancelledError:
                self.unknown.add(message)
                raise
            else:
                self.acknowledged[message] = published.position
            await asyncio.sleep(pause.random() / 100)

    def contradictions(self, history: Sequence[Publication]) -> list[str]:
        """What the history has otherwise than it was told."""
        own = {each.message: each.position for each in history if each.origin == self.name}
        found = [
            f"{message!r} is not where it was said"
            for message in self.acknowledged
            if own.get(message) != self.acknowledged[message]
        ]
        found += [
            f"{message!r} was refused" for message in own if message not in self.acknowledged.keys() | self.unknown
        ]
        return found if [*own] == sorted(own) else [*found, f"{self.name} is out of order"]


async def strike(random: Random, proxy: CuttingProxy, server: RedisProcess) -> None:
    """Do some harm, and put it right."""
    match random.randrange(5):
        case 0:
            proxy.cut_all()
        case 1:
            proxy.stall()
            await asyncio.sleep(random.random())
            proxy.resume()
        case 2:
            proxy.refuses = True
            proxy.cut_all()
            await asyncio.sleep(random.random() / 2)
            proxy.refuses = False
        case 3:
            server.pause()
            await asyncio.sleep(random.random())
            server.resume()
        case _:
            proxy.stall()
            await asyncio.sleep(random.random() / 2)
            proxy.cut_all()
            proxy.resume()


async def history_of(broker: RedisBroker, room: str) -> Sequence[Publication]:
    async with asyncio.timeout(20):
        while True:
            with suppress(Storage):
                epoch = (await broker.since(room, None)).position.epoch
                return (await broker.since(room, Position(epoch, 0))).publications or ()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", [1])
async def test_in_turmoil_everything_is_published_once_and_in_order_and_no_hole_is_silent(
    redis_server: RedisProcess, redis_url: str, seed: int
) -> None:
    random = Random(seed)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(cutting_proxy(redis_server.port)) for _ in range(3)]
        brokers = [
            await stack.enter_async_context(
                RedisBroker(RedisServer(proxy.through(redis_url), RedisSettings(recovery=QUICK)), f"n{n}", HISTORIES)
            )
            for n, proxy in enumerate(proxies)
        ]
        heard = [Room() for _ in brokers for _ in ROOMS]
        writers: list[Writer] = []
        for number, broker in enumerate(brokers):
            for place, room in enumerate(ROOMS):
                await broker.subscribe(room, heard[number * len(ROOMS) + place])
                writers += [Writer(broker, room, f"{name}{number}{room}") for name in "ab"]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(writer.run(random)) for writer in writers]
            for _ in range(BLOWS):
                await asyncio.sleep(random.random() / 5)
                await strike(random, random.choice(proxies), redis_server)
            for task in tasks:
                task.cancel()
        await until(lambda: not any(broker.degradations() for broker in brokers), "that all is heard again")

        for room in ROOMS:
            history = await history_of(brokers[0], room)
            assert len({each.message for each in history}) == len(history) > 0
            for writer in writers:
                if writer.room == room:
                    assert writer.contradictions(history) == []
        assert [each.holes for each in heard] == [[]] * len(heard)
        assert sum(each.gaps for each in heard) > 0
        assert sum(writer.refused + len(writer.unknown) for writer in writers) > 0
