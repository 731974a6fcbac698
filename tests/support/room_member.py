"""Somebody in a room over real sockets, who comes back when the connection is lost, and notices gaps and repeats."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.ws_messages import heard

PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 30
DO_NOT_COME_BACK = range(4400, 4500)

Message = dict[str, Any]


class RoomMember:
    """
    A client as our documentation tells it to be: it remembers its position, and repeats what was not acknowledged.

    ``heard`` are the texts by their offsets since it last had to load the document, which was ``loaded`` so often;
    ``acknowledged`` are its own that the server has confirmed, and ``faults`` what no client should ever see.
    ``degraded`` and ``restored`` count how often it was told that rooms go on locally, and that they do not any more.
    """

    def __init__(self, base: Callable[[], str], token: str, document: str) -> None:
        """``base`` says where the server is now, like ``ws://127.0.0.1:3000``."""
        self.heard: dict[int, str] = {}
        self.loaded = 0
        self.acknowledged: set[str] = set()
        self.faults: list[str] = []
        self.shown: dict[str, str] = {}
        self.codes: list[int] = []
        self.degraded = 0
        self.restored = 0
        self.connections = 0
        self._base = base
        self._headers = {"Authorization": f"Bearer {token}"}
        self._document = document
        self._position: Message | None = None
        self._unsaid: dict[str, Message] = {}
        self._subscription = ""
        self.is_in = False
        self._outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self._changed = asyncio.Event()

    def say(self, text: str) -> None:
        """Say something in the room; the text is its id, too, and is used once."""
        self._unsaid[text] = {"document": self._document, "text": text}
        if self.is_in:
            self._send_text(text)

    def show(self, status: str) -> None:
        """Show presence."""
        self._send("user_presence", {"document": self._document, "status": status}, f"presence-{status}")

    @property
    def has_said_all(self) -> bool:
        """Whether everything is acknowledged."""
        return not self._unsaid

    async def wait(self, condition: Callable[[], bool], patience: float = PATIENCE_SECONDS) -> None:
        """Wait for something that changes with what the server says."""
        try:
            async with asyncio.timeout(patience):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"it did not come: {len(self._unsaid)} unsaid {self.codes} {self.faults} {self.shown}"
            ) from None

    # --- the connection -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be connected, again and again, until told not to come back."""
        while not self.codes or self.codes[-1] not in DO_NOT_COME_BACK:
            try:
                async with connect(self._base() + "/ws", additional_headers=self._headers, proxy=None) as socket:
                    await self._converse(socket)
            except (OSError, InvalidHandshake, EOFError, TimeoutError):
                await asyncio.sleep(PAUSE_SECONDS)
            except ConnectionClosed as closed:
                self.codes.append(closed.rcvd.code if closed.rcvd else 1006)
                await asyncio.sleep(PAUSE_SECONDS)
            self._changed.set()

    async def _converse(self, socket: ClientConnection) -> None:
        self.connections += 1
        self._outgoing = asyncio.Queue()
        writer = asyncio.ensure_future(self._write(socket, self._outgoing))
        self._subscribe()
        try:
            while True:
                message = heard(await socket.recv())
                self._hear(message["message_type"], message["payload"], message["id"])
                self._changed.set()
        finally:
            self.is_in = False
            writer.cancel()

    async def _write(self, socket: ClientConnection, outgoing: "asyncio.Queue[Message]") -> None:
        with suppress(ConnectionClosed):
            while True:
                await socket.send(json.dumps(await outgoing.get()))

    def _send(self, message_type: str, payload: Message, id: str) -> None:
        self._outgoing.put_nowait({"id": id, "message_type": message_type, "payload": payload})

    def _send_text(self, text: str) -> None:
        if text in self._unsaid:
            self._send("realtime_edit", self._unsaid[text], text)

    def _subscribe(self) -> None:
        since = {} if self._position is None else {"since": self._position}
        self._subscription = f"subscribe-{self.connections}"
        self._send("subscribe", {"document": self._document, **since}, self._subscription)

    # --- what it hears --------------------------------------------------------------------------------

    def _hear(self, message_type: str, payload: Message, id: str) -> None:
        match message_type:
            case "subscribed":
                self._enter(payload)
            case "realtime_edit":
                self._take(payload["text"], payload["position"])
            case "ack":
                self._unsaid.pop(id, None)
                self.acknowledged.add(id)
                self._take_own(id, payload["position"])
            case "position" if payload.get("recovered") is False:
                self._load(payload["position"])
            case "position" if payload["position"] != self._position:
                self.faults.append(f"it is at {self._position}, and the server at {payload['position']}")
            case "user_presence":
                self._show(payload["session_info"]["session_id"], payload["status"])
            case "error":
                self._take_error(payload, id)
            case "service_restored":
                self.restored += 1
            case _:
                pass

    def _enter(self, payload: Message) -> None:
        self.is_in = True
        self.shown = {each["session_info"]["session_id"]: each["status"] for each in payload["presence"]}
        if not payload["recovered"]:
            self._load(payload["position"])
        for publication in payload["publications"]:
            self._take(publication["payload"]["text"], publication["payload"]["position"])
        if payload["position"] != self._position:
            self.faults.append(f"it is at {self._position} after what it missed, and the server at {payload}")
        for text in list(self._unsaid):
            self._send_text(text)

    def _take_own(self, text: str, position: Message) -> None:
        """The place of what it said, which it may know already if the acknowledgement comes for the second time."""
        at = self._position
        assert at is not None
        if at["epoch"] == position["epoch"] and position["offset"] <= at["offset"]:
            if self.heard.get(position["offset"], text) != text:
                self.faults.append(f"{text} is said to be where {self.heard[position['offset']]} was")
        else:
            self._take(text, position)

    def _take(self, text: str, position: Message) -> None:
        at = self._position
        if at is None or position != {"epoch": at["epoch"], "offset": at["offset"] + 1}:
            self.faults.append(f"{text} at {position} came after {at}")
        if text in self.heard.values():
            self.faults.append(f"{text} came twice")
        self._position = position
        self.heard[position["offset"]] = text

    def _load(self, position: Message) -> None:
        if self._position is not None:
            self.loaded += 1
        self._position, self.heard = position, {}

    def _show(self, session: str, status: str) -> None:
        if status == "offline":
            self.shown.pop(session, None)
        else:
            self.shown[session] = status

    def _take_error(self, payload: Message, id: str) -> None:
        if payload.get("details", {}).get("degraded"):
            self.degraded += 1
        elif payload["code"] not in ("SERVER_ERROR", "RATE_LIMITED"):
            self.faults.append(f"{id} was answered with {payload}")
        elif id == self._subscription:
            self._later_by(payload, self._subscribe, self.connections)
        else:
            self._later_by(payload, lambda: self._send_text(id), self.connections)

    def _later_by(self, payload: Message, do: Callable[[], None], connection: int) -> None:
        """Do it when the server says, if the connection is still the same then."""

        def due() -> None:
            if self.connections == connection:
                do()

        pause = payload.get("details", {}).get("retry_after_ms", 100) / 1000
        asyncio.get_running_loop().call_later(pause, due)


@asynccontextmanager
async def in_room(base: Callable[[], str], token: str, document: str) -> AsyncGenerator[RoomMember]:
    """Somebody in a room until the block is left."""
    member = RoomMember(base, token, document)
    running = asyncio.ensure_future(member.run())
    try:
        yield member
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
