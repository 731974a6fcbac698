"""Three nodes on one exchange, and clients of them that know what they have heard."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from roomkey.testing.clock import ManualClock
from tests.support.exchange import Exchange, ExchangeBroker, ExchangePresence
from tests.support.sockets import NOON, Caller, Node

NODES = ("n1", "n2", "n3")
TURNS = 40
"""More than anything is on its way for."""


class Cluster:
    """Three nodes on one exchange, and what the clients of all of them have said and heard."""

    def __init__(self, delays: Sequence[int] = (0,), **options: Any) -> None:
        self.clock = ManualClock(NOON)
        self.exchange = Exchange(self.clock, delays, **options)
        self.nodes: dict[str, Node] = {}
        self.stores: dict[str, ExchangePresence] = {}
        self.readers: list[Reader] = []

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for number, name in enumerate(NODES):
                broker, presence = await self.exchange.join(name)
                node = Node(
                    broker=broker,
                    presence=presence,
                    node=name,
                    clock=self.clock,
                    first_session=1000 * number,
                    living=lambda: NODES,
                )
                self.nodes[name] = node
                self.stores[name] = presence
                await stack.enter_async_context(node.at_work())
            yield

    async def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
            for node in self.nodes.values():
                node.turns.settle()
            for reader in self.readers:
                reader.listen()

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)
        for node in self.nodes.values():
            node.handler.tick()
        await self.turn(TURNS)

    async def rest(self) -> None:
        """Everything is mended, and as much time passes as is needed for everybody to notice."""
        for broker in self.exchange.nodes.values():
            broker.away = broker.deaf = False
        # Who has stopped trying begins again within seconds of the loop, whose time jumps.
        await asyncio.sleep(10)
        await self.turn(TURNS)
        for reader in self.readers:
            if reader.turned_away:
                reader.subscribe()
        for seconds in (1, 1, 41, 21, 21, 2, 2):
            await self.pass_time(seconds)
            await asyncio.sleep(1)
        await self.turn(TURNS)

    def broker(self, node: str) -> ExchangeBroker:
        """The broker of this node."""
        return self.exchange.nodes[node]

    async def member(self, node: str, user: str) -> "Reader":
        """A client that is in the document."""
        reader = await self.enter(node, user)
        reader.subscribe()
        await self.turn(TURNS)
        return reader

    async def enter(self, node: str, user: str) -> "Reader":
        reader = Reader(await self.nodes[node].client(user))
        self.readers.append(reader)
        return reader

    async def enter_again(self, reader: "Reader", node: str) -> "Reader":
        """Another connection of the reader's session, by this node."""
        self.nodes[node].sessions.adopt(reader.caller.session)
        again = Reader(await self.nodes[node].enter(f"{reader.session}.{'s' * 43}"))
        self.readers.append(again)
        return again


class Reader:
    """
    A client as our documentation tells it to be: it knows how far it is, and loads the document when told to.

    ``heard`` are the texts since it last loaded the document, the last of which is at ``position``.
    """

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.position: dict[str, Any] | None = None
        self.asked: dict[str, Any] | None = None
        self.heard: list[str] = []
        self.loaded_at = 0
        self.shown: dict[str, str] = {}
        self.is_in = False
        self.told: list[tuple[str, str]] = []
        self.cursors: list[tuple[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self.subscriptions: set[str] = set()
        self.written: set[str] = set()
        self.unsure: set[str] = set()
        self.turned_away = False
        self.restored = 0

    @property
    def session(self) -> str:
        return self.caller.session.id

    def subscribe(self) -> None:
        self.turned_away = False
        self.asked = self.position
        since = {} if self.position is None else {"since": self.position}
        self.subscriptions.add(self.caller.whisper("subscribe", {"document": "d", **since}))

    def write(self, *texts: str) -> None:
        for text in texts if self.is_in else ():
            self.written.add(text)
            self.caller.whisper("realtime_edit", {"document": "d", "text": text}, id=text)

    def point(self, at: int) -> None:
        self.caller.whisper("cursor_position", {"document": "d", "at": at})

    def show(self, status: str) -> None:
        if self.is_in:
            self.caller.whisper("user_presence", {"document": "d", "status": status})

    def listen(self) -> None:
        for message in self.caller.news():
            self._hear(message["message_type"], message["payload"], message["id"])

    def _hear(self, message_type: str, payload: dict[str, Any], id: str) -> None:
        match message_type:
            case "subscribed":
                self._subscribed(payload)
            case "realtime_edit":
                # What this one wrote it knows, unless it was told that it may not have been taken.
                assert payload["text"] not in self.written - self.unsure
                self._apply(payload["text"], payload["position"])
            case "ack" if self._lacks(payload["position"]) and id not in self.heard:
                self._apply(id, payload["position"])
            case "position" if payload.get("recovered") is False:
                self._load(payload["position"])
            case "position":
                assert payload["position"] == self.position
            case "user_presence":
                self._show(payload["session_info"]["session_id"], payload["status"])
            case "cursor_position":
                self.cursors.append((payload["session_info"]["user_id"], payload["at"]))
            case "error":
                self._refused(payload, id)
            case "service_restored":
                self.restored += 1
            case _:
                pass

    def _refused(self, payload: dict[str, Any], id: str) -> None:
        self.errors.append(payload)
        self.unsure.add(id)
        if id in self.subscriptions:
            self.is_in, self.turned_away = False, True

    def _subscribed(self, payload: dict[str, Any]) -> None:
        self.is_in = True
        self.shown = {each["session_info"]["session_id"]: each["status"] for each in payload["presence"]}
        assert len(self.shown) == len(payload["presence"])
        if not payload["recovered"]:
            self._load(payload["position"])
            return
        assert self.position is not None
        assert self.asked is not None
        # What was on its way when this one asked has arrived since, and is in the answer, too.
        if self.position != self.asked:
            self.heard = self.heard[: self.asked["offset"] - self.position["offset"]]
            self.position = self.asked
        for publication in payload["publications"]:
            self._apply(publication["payload"]["text"], publication["payload"]["position"])
        assert self.position == payload["position"]

    def _lacks(self, position: dict[str, Any]) -> bool:
        """Whether what stands there is not in the document that was loaded last, whose history may be a later one."""
        at = self.position
        return at is None or (at["epoch"] == position["epoch"] and position["offset"] > self.loaded_at)

    def _load(self, position: dict[str, Any]) -> None:
        self.position, self.heard, self.loaded_at = position, [], position["offset"]

    def _apply(self, text: str, position: dict[str, Any]) -> None:
        assert self.position is not None
        assert position == {"epoch": self.position["epoch"], "offset": self.position["offset"] + 1}, (
            position,
            self.position,
        )
        self.position = position
        self.heard.append(text)

    def _show(self, session: str, status: str) -> None:
        self.told.append((session, status))
        if status == "offline":
            assert session in self.shown
            del self.shown[session]
        else:
            self.shown[session] = status
