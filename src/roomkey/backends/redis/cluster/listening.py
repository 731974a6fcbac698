"""
Hearing what is said in rooms: a connection per server, which is kept up, and what each room has heard.

A connection that was lost is opened again, everything is subscribed in few commands, and whoever listened is told of a
gap, as soon as the server has confirmed. So is a room whose publications have a hole.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog

from roomkey.backends.recovery import Failure, Kind
from roomkey.backends.redis.cluster.layout import Place, decode_said
from roomkey.backends.redis.cluster.pubsub import PubSub
from roomkey.backends.redis.failures import Broken, ReplyError, classify
from roomkey.backends.redis.node import Node
from roomkey.backends.redis.server import MAX_HOPS, RedisServer
from roomkey.backends.redis.url import Address
from roomkey.errors import Storage
from roomkey.ports import Position, Publication, Receiver

PING_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 2.0
"""Together the time after which a connection counts as lost whose server is not heard of any more."""

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0
"""Before a connection is opened again: a random time up to a pause that doubles."""

AT_A_TIME: Final = 500
"""Channels in one command."""

_log = structlog.get_logger("roomkey.broker")


class Subscription:
    """A room that this node listens to."""

    __slots__ = ("compared", "hops", "is_known", "last", "link", "place", "ready", "receiver")

    def __init__(self, place: Place, receiver: Receiver, ready: "asyncio.Future[None]") -> None:
        self.place = place
        self.receiver = receiver
        self.ready = ready
        self.is_known = False
        """Whether the server has ever confirmed it: what it confirms once more is behind a gap."""
        self.last: Position | None = None
        """Of the last publication that was heard since the last gap."""
        self.compared: Position | None = None
        """Where the room stood when that was last looked at."""
        self.link: Link | None = None
        self.hops = 0

    def confirmed(self) -> None:
        """The server has: from here on everything is heard."""
        self.hops = 0
        if self.is_known:
            self.gap()
        self.is_known = True
        if not self.ready.done():
            self.ready.set_result(None)

    def gap(self) -> None:
        """Something may be missing."""
        self.last = self.compared = None
        self.receiver.on_gap()

    def heard(self, publication: Publication) -> None:
        """Hand it on."""
        position, last = publication.position, self.last
        if position is not None:
            follows = last is None or (position.epoch == last.epoch and position.offset == last.offset + 1)
            if not follows:
                self.gap()
            self.last = position
        self.receiver.on_publication(publication)

    def fail(self, error: Storage) -> None:
        """Tell who waits for it, if anybody does."""
        if not self.ready.done():
            self.ready.set_exception(error)


class Link:
    """The connection to one server, which is kept up as long as its task runs."""

    def __init__(self, node: Node, ears: "Ears") -> None:
        self.node = node
        self.subscriptions: dict[bytes, Subscription] = {}
        self.failure: Failure | None = None
        """Why nothing is heard."""
        self._ears = ears
        self._connection: PubSub | None = None
        self._tries = 0
        self._is_logged = False
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(_seen)

    @property
    def name(self) -> str:
        """Of the server."""
        return self.node.recovery.breaker.name

    def error(self, failure: Failure | None = None) -> Storage:
        """What is said to whom it fails."""
        failure = failure or self.failure or Failure(Kind.AWAY, "it does not answer")
        return Storage(f"what is published cannot be heard: {self.name} is {failure.kind.value}: {failure.detail}")

    async def wait_opened(self) -> None:
        """
        Return when it was connected for the first time.

        Raises:
            Storage: If it cannot be.
        """
        await asyncio.shield(self._opened)

    # --- what is listened to --------------------------------------------------------------------------

    def take(self, subscriptions: Sequence[Subscription]) -> None:
        """Listen to them, too."""
        for subscription in subscriptions:
            subscription.link = self
            self.subscriptions[subscription.place.channel] = subscription
        connection = self._connection
        if connection is not None and not connection.is_closed:
            self._ask(connection, subscriptions)
        elif self._tries > 1:  # it does not come back at once
            for subscription in subscriptions:
                subscription.fail(self.error())

    def drop(self, subscriptions: Iterable[Subscription], *, is_gone: bool = False) -> None:
        """Do not listen to them any more; ``is_gone`` says that the server knows."""
        channels = [each.place.channel for each in subscriptions if self.subscriptions.get(each.place.channel) is each]
        for channel in channels:
            del self.subscriptions[channel]
        connection = self._connection
        if is_gone or not channels or connection is None or connection.is_closed:
            return
        sharded = self._is_sharded(connection)
        for group in self._commands([*channels], sharded=sharded):
            connection.unsubscribe(group, sharded=sharded).add_done_callback(_seen)

    def _is_sharded(self, connection: PubSub) -> bool:
        return self._ears.server.is_cluster and connection.has_shards

    def _ask(self, connection: PubSub, subscriptions: Sequence[Subscription]) -> "list[asyncio.Future[list[Any]]]":
        """Send the commands that subscribe them."""
        sharded = self._is_sharded(connection)
        by_channel = {each.place.channel: each for each in subscriptions}
        asked: list[asyncio.Future[list[Any]]] = []
        for channels in self._commands([*by_channel], sharded=sharded):
            group = {channel: by_channel[channel] for channel in channels}
            future = connection.subscribe(channels, partial(self._confirmed, group), sharded=sharded)
            future.add_done_callback(partial(self._answered, connection, group))
            asked.append(future)
        return asked

    def _commands(self, channels: Sequence[bytes], *, sharded: bool) -> Iterable[Sequence[bytes]]:
        """The channels of each command: in a cluster, they have one slot."""
        groups: dict[bytes, list[bytes]] = {}
        for channel in channels:
            groups.setdefault(channel[: channel.index(b"}")] if sharded else b"", []).append(channel)
        for group in groups.values():
            for start in range(0, len(group), AT_A_TIME):
                yield group[start : start + AT_A_TIME]

    def _confirmed(self, group: Mapping[bytes, Subscription], channel: bytes) -> None:
        subscription = group.get(channel)
        if subscription is not None and self.subscriptions.get(channel) is subscription:
            subscription.confirmed()

    def _answered(
        self, connection: PubSub, group: Mapping[bytes, Subscription], future: "asyncio.Future[list[Any]]"
    ) -> None:
        """Look whether the server has refused the group."""
        error = None if future.cancelled() else future.exception()
        if not isinstance(error, ReplyError):
            return
        left = [each for channel, each in group.items() if self.subscriptions.get(channel) is each]
        if error.code == "MOVED" and all(each.hops < MAX_HOPS for each in left):
            for each in left:
                each.hops += 1
            self._ears.server.moved(error, self.node)
            self._ears.settle(self, left, is_gone=True)
            return
        failure = classify(error) or Failure(Kind.WRONG, "it refuses")
        for each in left:
            each.fail(self.error(failure))
        if any(each.is_known for each in left):
            connection.close(failure)  # and try again later

    def settle(self) -> None:
        """Hand on what another server has by now."""
        master_of = self._ears.server.master_of
        self._ears.settle(
            self, [each for each in self.subscriptions.values() if master_of(each.place.head) is not self.node]
        )

    # --- the connection -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the connection up, until it is needed no more."""
        while True:
            failure = await self._listen()
            if failure is None:
                return
            self._went_away(failure)
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._tries, 10))
            self._tries += 1
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311  # spread, not secrecy
            await self._ears.look_again(self, failure)
            if self._ears.give_up(self):
                return

    async def _listen(self) -> Failure | None:
        """Listen until that fails, and say why; or until it is needless."""
        ears = self._ears

        def make(*, timeout: float, max_in_flight: int, max_bytes: int) -> PubSub:
            return PubSub(ears, timeout=min(timeout, ANSWER_SECONDS), max_in_flight=max_in_flight, max_bytes=max_bytes)

        try:
            address, connection = await self.node.another(make)
        except Broken as error:
            return error.failure
        try:
            self._connection = connection
            if asked := self._ask(connection, [*self.subscriptions.values()]):
                await asyncio.wait(asked)
            if not connection.is_closed:
                self._came_back()
                await self._watch(connection, address)
                if ears.give_up(self):
                    return None
        except (Broken, ReplyError) as error:
            return connection.lost or classify(error) or Failure(Kind.WRONG, "it refuses")
        finally:
            self._connection = None
            connection.close(Failure(Kind.AWAY, "closed"))
            await connection.wait_closed()
        return connection.lost or Failure(Kind.AWAY, "closed")

    async def _watch(self, connection: PubSub, address: Address) -> None:
        """Return when the connection is lost, is needless, or leads to where the server is no more."""
        known = self.node.address
        while not connection.is_closed:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await connection.wait_closed()
            except TimeoutError:
                await connection.send((b"PING",))
                self.settle()
                if self.node.address not in {known, address} or self._ears.is_needless(self):
                    return  # others have found another master, or it is one no more

    def _came_back(self) -> None:
        self._tries = 0
        self.failure = None
        if not self._opened.done():
            self._opened.set_result(None)
        if self._is_logged:
            self._is_logged = False
            _log.info("broker_recovered", server=self.name)

    def _went_away(self, failure: Failure) -> None:
        self.failure = failure
        if not self._is_logged:
            self._is_logged = True
            _log.warning("broker_away", server=self.name, kind=failure.kind.value, detail=failure.detail)
        error = self.error()
        for subscription in self.subscriptions.values():
            subscription.fail(error)
        if not self._opened.done():
            self._opened.set_exception(error)


class Ears:
    """All that this node listens to."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.unknown = 0
        """Number of messages that were not understood, and ignored."""
        self._subscriptions: dict[bytes, Subscription] = {}
        self._links: dict[Node, Link] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def open(self, tasks: asyncio.TaskGroup) -> None:
        """
        Connect to every server; ``tasks`` keep it so.

        Raises:
            Storage: If one is away.
        """
        self._tasks = tasks
        links = [self._link(node) for node in self.server.masters()]
        for link in links:
            await link.wait_opened()

    def close(self) -> None:
        """Listen no more; whoever waits is told."""
        for task in self._running:
            task.cancel()
        for subscription in self._subscriptions.values():
            subscription.fail(Storage("the broker is closed"))
        self._subscriptions.clear()
        self._links.clear()
        self._tasks = None

    # --- rooms ----------------------------------------------------------------------------------------

    async def subscribe(self, place: Place, receiver: Receiver) -> None:
        """
        Let ``receiver`` hear the room; returns when the server has confirmed it.

        Raises:
            Storage: If it cannot be heard.
        """
        subscription = self._subscriptions.get(place.channel)
        if subscription is None:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            ready.add_done_callback(_seen)
            subscription = self._subscriptions[place.channel] = Subscription(place, receiver, ready)
            self._link(self.server.master_of(place.head)).take([subscription])
        else:
            subscription.receiver = receiver
            link = subscription.link
            if link is not None and link.failure is not None:
                raise link.error()
        try:
            await asyncio.shield(subscription.ready)
        except Storage as error:
            self._forget(subscription)
            raise Storage(str(error)) from None  # others may wait for the same

    def unsubscribe(self, place: Place) -> None:
        """Hear the room no more."""
        subscription = self._subscriptions.get(place.channel)
        if subscription is not None:
            self._forget(subscription)
            subscription.fail(Storage("nobody listens to the room any more"))

    def _forget(self, subscription: Subscription) -> None:
        if self._subscriptions.get(subscription.place.channel) is subscription:
            del self._subscriptions[subscription.place.channel]
        if subscription.link is not None:
            subscription.link.drop([subscription])

    @property
    def rooms(self) -> Sequence[Subscription]:
        """What this node listens to."""
        return list(self._subscriptions.values())

    def __contains__(self, subscription: Subscription) -> bool:
        return self._subscriptions.get(subscription.place.channel) is subscription

    # --- what connections say -------------------------------------------------------------------------

    def heard(self, channel: bytes, said: bytes) -> None:
        """Hand it to its room."""
        subscription = self._subscriptions.get(channel)
        if subscription is None:
            return
        publication = decode_said(said)
        if publication is None:
            self.unknown += 1
        else:
            subscription.heard(publication)

    def taken_away(self, channel: bytes) -> None:
        """Ask for it again; the server says who has it."""
        subscription = self._subscriptions.get(channel)
        if subscription is not None and subscription.link is not None:
            self.settle(subscription.link, [subscription], is_gone=True)

    # --- servers --------------------------------------------------------------------------------------

    def _link(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            if self._tasks is None:
                raise Storage("the broker is not open")
            link = self._links[node] = Link(node, self)
            task = self._tasks.create_task(link.run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return link

    def settle(self, link: Link, subscriptions: Sequence[Subscription], *, is_gone: bool = False) -> None:
        """Let those be heard where their slots are now that ``link`` had so far."""
        groups: dict[Node, list[Subscription]] = {}
        for subscription in subscriptions:
            groups.setdefault(self.server.master_of(subscription.place.head), []).append(subscription)
        link.drop(subscriptions, is_gone=is_gone)
        for node, group in groups.items():
            self._link(node).take(group)

    async def look_again(self, link: Link, failure: Failure) -> None:
        """Find out who has the slots of a server that failed, and listen there."""
        with suppress(Broken, Storage):  # nobody knows
            await self.server.look_again(link.node, failure)
            link.settle()

    def is_needless(self, link: Link) -> bool:
        """Whether the server has no slots any more."""
        return not link.subscriptions and link.node not in self.server.masters()

    def give_up(self, link: Link) -> bool:
        """Forget the connection if it is needless, and say whether it is."""
        if not self.is_needless(link):
            return False
        if self._links.get(link.node) is link:
            del self._links[link.node]
        return True

    def degradations(self) -> Mapping[str, str]:
        """What cannot be heard."""
        away = [link.error() for link in self._links.values() if link.failure is not None]
        return {"broker": "; ".join(str(error) for error in away)} if away else {}


def _seen(future: "asyncio.Future[Any]") -> None:
    """Should nobody wait for it any more."""
    if not future.cancelled():
        future.exception()
