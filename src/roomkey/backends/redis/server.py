"""
A Redis as its stores use it: they say what is to be done, and what to do when it fails is decided here.

The stores of a process share one ``RedisServer``. What they ask within a tick of the loop goes out in one write per
server, and opening a connection never happens per request.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from roomkey.backends.recovery import Failure, Kind, Recovery
from roomkey.backends.redis.checks import check
from roomkey.backends.redis.connection import Argument, Command, Connection
from roomkey.backends.redis.failures import Broken, ReplyError, classify
from roomkey.backends.redis.node import Node
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.settings import RedisSettings
from roomkey.backends.redis.topology import Topology, topology_of
from roomkey.backends.redis.url import Address, Deployment, RedisUrl, check_prefix
from roomkey.errors import OutcomeUnknown, Storage

MAX_HOPS: Final = 8
"""How often one request is sent on by a cluster, or misses its script, before that counts as a failure."""


class Again:
    """
    Stands in the arguments of a script for whether an earlier try of this call may have done it already: 0 or 1.

    It makes a write repeatable: the script looks for its traces if it is 1.
    """


AGAIN: Final = Again()


class Run:
    """
    Stands in the arguments of a script for what names the process of the server that carries it out.

    Data that another process wrote may lack its end: a failover, or a restart, loses what was not copied or saved yet.
    """


RUN: Final = Run()


class Call(NamedTuple):
    """
    A script to run, and with what. All ``keys`` lie in one slot.

    ``is_numbered`` says that the script knows the call again by what is in its arguments.
    """

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[Argument | Again | Run] = ()
    is_numbered: bool = False

    @property
    def is_guarded(self) -> bool:
        """Whether it may be repeated within one call, but not as another one."""
        return self.is_numbered or AGAIN in self.arguments

    def command(self, *, again: bool, run: bytes = b"") -> Command:
        """As it is sent to a server whose process has the name ``run``."""
        number = b"1" if again else b"0"
        arguments = [
            number if isinstance(each, Again) else run if isinstance(each, Run) else each for each in self.arguments
        ]
        return self.script.call(self.keys, arguments)


class _Plain(NamedTuple):
    """A command that is no script."""

    words: Command
    script: None = None
    is_guarded: bool = False

    @property
    def keys(self) -> Sequence[bytes]:
        return (_key(self.words),)

    def command(self, *, again: bool, run: bytes) -> Command:  # noqa: ARG002
        return self.words


class RedisServer:
    """
    One Redis: a server, those that Sentinel watches, or a cluster.

    An async context manager that several stores enter: the first opens it, the last closes it.
    """

    def __init__(self, url: str, settings: RedisSettings | None = None) -> None:
        """
        Read ``url``.

        Raises:
            ConfigurationError: If it is none; nothing of it is shown.
        """
        self.settings = settings or RedisSettings()
        self._url = RedisUrl.parse(url)
        prefix = self.settings.key_prefix
        self.prefix: Final = (check_prefix(prefix) if prefix is not None else self._url.prefix).encode()
        self._topology: Topology | None = None
        self._users = 0
        self._entering = asyncio.Lock()

    async def __aenter__(self) -> Self:
        async with self._entering:
            if self._topology is None:
                self._topology = await self._open()
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._entering:
            self._users -= 1
            if self._users == 0 and self._topology is not None:
                topology, self._topology = self._topology, None
                await topology.close()

    async def _open(self) -> Topology:
        topology = topology_of(self._url, self.settings)
        try:
            await topology.open()
            for node in topology.nodes():
                await check(node.recovery.breaker.name, await node.connected(), self.settings)
        except (Broken, ReplyError) as error:
            await topology.close()
            failure = classify(error)
            raise Storage(f"the Redis does not let us begin: {failure.detail if failure else error}") from None
        except BaseException:
            await topology.close()
            raise
        return topology

    def key(self, tag: bytes, name: bytes) -> bytes:
        """The key of ``name``, in the slot of ``tag``."""
        return b"{%b:%b}%b" % (self.prefix, tag, name)

    # --- ask ------------------------------------------------------------------------------------------

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[Argument | Again | Run] = (),
        *,
        may_repeat: bool = False,
    ) -> Any:
        """
        What the script returns. ``keys`` lie in one slot.

        ``may_repeat`` says that doing it twice is the same as once, by ``AGAIN`` among the arguments or as it is;
        whoever passes ``True`` says why in a comment.

        Raises:
            Storage: If the server fails; nothing was done, unless it is ``OutcomeUnknown``.
        """
        return await self._ask(Call(script, keys, arguments), may_repeat=may_repeat)

    async def run_call(self, call: Call, *, may_repeat: bool = False) -> Any:
        """As ``run``."""
        return await self._ask(call, may_repeat=may_repeat)

    async def ask(self, command: str, key: bytes, *arguments: Argument) -> Any:
        """The reply to a command that reads ``key``."""
        return await self._ask(_Plain((command, key, *arguments)), may_repeat=True)  # it changes nothing

    async def run_many(self, calls: Sequence[Call], *, may_repeat: bool = False) -> list[Any]:
        """
        What each of them returns, sent together. They are steps of their own.

        Raises:
            Storage: As ``run``. Others of ``calls`` may have been done nevertheless.
        """
        return await self._ask_many(calls, may_repeat=may_repeat)

    async def ask_many(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        """The replies to commands that read a key each."""
        return await self._ask_many([_Plain(command) for command in commands], may_repeat=True)  # they change nothing

    async def run_durably(self, call: Call, *, may_repeat: bool = False) -> Any:
        """
        Like ``run``, and as many replicas have it as ``wait_replicas`` says.

        Raises:
            OutcomeUnknown: If it was done, and they did not say so in time.
        """
        wanted = self.settings.wait_replicas
        if not wanted:
            return await self._ask(call, may_repeat=may_repeat)
        millis = int(self.settings.wait_seconds * 1000)

        async def alone(node: Node, request: Call | _Plain, *, again: bool) -> Any:
            # Waiting holds up a connection, so this one has its own.
            command = request.command(again=again, run=b"")
            done, replicas = await node.alone([command, (b"WAIT", wanted, millis)])
            if isinstance(done, ReplyError):
                raise done
            if isinstance(replicas, ReplyError) or replicas < wanted:
                raise OutcomeUnknown("it was done, but too few replicas have said that they have it")
            return done

        return await self._ask(call, may_repeat=may_repeat, send=alone)

    async def ping(self) -> None:
        """
        Return when every server answers.

        Raises:
            Storage: If one does not.
        """
        topology = self._opened()
        for node in topology.nodes():
            used = node.connection
            try:
                await node.recovery.call(lambda node=node: _ping(node), may_repeat=True)  # it changes nothing
            except Storage:
                # Another one may have its place by now, and perhaps nobody else asks.
                await topology.look_again(node, Failure(Kind.AWAY, "it does not answer"), used)
                raise

    def degradations(self) -> Mapping[str, str]:
        """What is wrong with the servers, by their names."""
        if self._topology is None:
            return {}
        return {name: why for node in self._topology.nodes() for name, why in node.degradations().items()}

    # --- who listens ----------------------------------------------------------------------------------

    @property
    def channel_suffix(self) -> bytes:
        """What tells channels of this database from those of others: servers have them once for all databases."""
        return b"" if not self._url.database else b"@%d" % self._url.database

    @property
    def is_cluster(self) -> bool:
        """Whether keys and channels have slots."""
        return self._url.deployment is Deployment.CLUSTER

    def masters(self) -> Iterable[Node]:
        """Every server that takes writes."""
        return self._opened().nodes()

    def master_of(self, key: bytes) -> Node:
        """The server that has ``key``, as far as is known."""
        return self._opened().node_of(key)

    def moved(self, error: ReplyError, node: Node) -> Node:
        """The server that ``node`` names with ``MOVED``."""
        return self._opened().moved(*_place(error, node))

    async def look_again(self, node: Node, failure: Failure) -> None:
        """``node`` failed for whoever listens there: find out whether another server is in its place."""
        await self._opened().look_again(node, failure, node.connection)

    # --- what is done when it fails -------------------------------------------------------------------

    def _opened(self) -> Topology:
        if self._topology is None:
            raise Storage("the storage is not open")
        return self._topology

    async def _ask(
        self,
        request: Call | _Plain,
        *,
        may_repeat: bool,
        again: bool = False,
        send: "_Way | None" = None,
    ) -> Any:
        """The reply, after as many tries as make sense: as ``Recovery.call``, which knows no other servers."""
        topology = self._opened()
        send = send or _send
        number = 0
        while True:
            number += 1
            node = topology.node_of(request.keys[0])
            recovery = node.recovery
            used = node.connection
            is_probe = False
            try:
                is_probe = recovery.breaker.check()
                reply = await _follow(topology, node, request, again=again, send=send)
            except asyncio.CancelledError:
                recovery.breaker.abandoned(is_probe=is_probe)
                raise
            except (Broken, ReplyError) as error:
                failure = _failure(error)
                repeats = recovery.should_repeat(failure, may_repeat=may_repeat)
                is_final = number >= recovery.settings.tries or not repeats
                recovery.breaker.failed(failure, is_probe=is_probe, is_final=is_final)
                again = again or failure.is_open
                if is_final:
                    raise _final(recovery, failure, request, may_repeat=may_repeat, again=again) from None
                await asyncio.sleep(recovery.pause(number))
                await topology.look_again(node, failure, used)
            except OutcomeUnknown:
                raise
            except Storage as error:  # of the breaker
                if again and request.is_guarded:
                    raise OutcomeUnknown(f"{error}; {_UNKNOWN}") from None
                raise
            else:
                recovery.breaker.succeeded()
                return reply

    async def _ask_many(self, requests: Sequence[Call | _Plain], *, may_repeat: bool) -> list[Any]:
        """The replies in order. One batch per server; what does not succeed in it goes its own way."""
        replies: list[Any] = [_MISSING] * len(requests)
        unknown: set[int] = set()
        for group, outcome in await self._batches(requests):
            if isinstance(outcome, Broken):
                if outcome.failure.is_open:
                    unknown.update(group)
                continue
            for position, reply in zip(group, outcome, strict=True):
                if not isinstance(reply, ReplyError):
                    replies[position] = reply
        if unknown and not may_repeat:
            raise OutcomeUnknown(f"the Redis did not answer; {_UNKNOWN}")
        rest = [position for position, reply in enumerate(replies) if reply is _MISSING]
        tries = [self._ask(requests[each], may_repeat=may_repeat, again=each in unknown) for each in rest]
        for position, outcome in zip(rest, await _together(tries), strict=True):
            replies[position] = _or_raise(outcome)
        return replies

    async def _batches(self, requests: Sequence[Call | _Plain]) -> list[tuple[list[int], list[Any] | Broken]]:
        """What became of the batch of each server, and which of ``requests`` are in it."""
        topology = self._opened()
        groups: dict[Node, list[int]] = {}
        for position, request in enumerate(requests):
            groups.setdefault(topology.node_of(request.keys[0]), []).append(position)
        batches = [_batch(node, [requests[position] for position in group]) for node, group in groups.items()]
        outcomes = await _together(batches)
        return [
            (group, outcome if isinstance(outcome, Broken) else _or_raise(outcome))
            for group, outcome in zip(groups.values(), outcomes, strict=True)
        ]


_MISSING: Final = object()

_UNKNOWN: Final = "whether it did what it was asked for is not known"


def _failure(error: Broken | ReplyError) -> Failure:
    failure = classify(error)
    assert failure is not None  # noqa: S101  # both are failures
    return failure


def _final(recovery: Recovery, failure: Failure, request: Call | _Plain, *, may_repeat: bool, again: bool) -> Storage:
    """What callers are told. What was guarded within this call alone must not be repeated by them."""
    error = recovery.error(failure, may_repeat=may_repeat or not again)
    return OutcomeUnknown(f"{error}; {_UNKNOWN}") if again and request.is_guarded else error


class _Way(Protocol):
    """How a request comes to a server, and its reply back."""

    async def __call__(self, node: Node, request: Call | _Plain, /, *, again: bool) -> Any: ...


async def _send(node: Node, request: Call | _Plain, /, *, again: bool) -> Any:
    connection = await node.connected()
    return await connection.send(request.command(again=again, run=connection.run))


async def _follow(
    topology: Topology,
    node: Node,
    request: Call | _Plain,
    *,
    again: bool,
    send: _Way,
) -> Any:
    """The reply of whoever has the key: servers say where a slot has moved to, or that they lack a script."""
    for _ in range(MAX_HOPS):
        try:
            return await send(node, request, again=again)
        except ReplyError as error:
            # None of these was carried out.
            if error.code == "NOSCRIPT" and request.script is not None:
                await node.load(request.script)
            elif error.code == "MOVED":
                node = topology.moved(*_place(error, node))
            elif error.code == "ASK":
                _, address = _place(error, node)
                return await _asking(topology.node_at(address), request, again=again)
            else:
                raise
    raise Broken(Failure(Kind.BUSY, "the cluster sends on and on", is_undone=True))


async def _asking(node: Node, request: Call | _Plain, *, again: bool) -> Any:
    """The reply of the node that a slot is moving to, which answers just after ``ASKING``."""
    if request.script is not None:
        await node.load(request.script)
    connection = await node.connected()
    connection.send((b"ASKING",)).add_done_callback(_seen)  # nothing is awaited between the two
    return await connection.send(request.command(again=again, run=connection.run))


def _seen(future: "asyncio.Future[Any]") -> None:
    """Nobody waits for it: what goes wrong goes wrong with the one behind it."""
    if not future.cancelled():
        future.exception()


def _place(error: ReplyError, node: Node) -> tuple[int, Address]:
    """Where the slot is, as in ``MOVED 3999 127.0.0.1:6381``; without a host, it is that of whoever says so."""
    slot, _, place = error.rest.partition(" ")
    host, _, port = place.rpartition(":")
    return int(slot), Address(host or node.address.host, int(port))


async def _batch(node: Node, requests: Sequence[Call | _Plain]) -> list[Any]:
    is_probe = node.recovery.breaker.check()
    try:
        connection: Connection = await node.connected()
        replies = await connection.send_batch(
            [request.command(again=False, run=connection.run) for request in requests]
        )
    except asyncio.CancelledError:
        node.recovery.breaker.abandoned(is_probe=is_probe)
        raise
    except Broken as error:
        node.recovery.breaker.failed(error.failure, is_probe=is_probe, is_final=False)  # each has its own next try
        raise
    if is_probe or not any(isinstance(reply, ReplyError) for reply in replies):
        node.recovery.breaker.succeeded()  # else whoever asks again finds out what the matter is
    return replies


async def _together(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """What all of them return or raise; nothing is left running."""
    if len(calls) == 1:
        try:
            return [await calls[0]]
        except (Broken, Storage) as error:
            return [error]
    return await asyncio.gather(*calls, return_exceptions=True)


def _or_raise(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def _ping(node: Node) -> None:
    connection = await node.connected()
    await connection.send((b"PING",))


def _key(words: Command) -> bytes:
    key = words[1]
    assert isinstance(key, bytes)  # noqa: S101  # as `ask` has it
    return key
