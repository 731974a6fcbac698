"""Simulated clients: what those of all protocols have in common, and the ones that speak JSON."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from roomkey.domain.session import SessionId
from roomkey.errors import RoomkeyError
from roomkey.realtime.transport import Accepted, Handshake, Refused
from roomkey.testing.simulation.connections import Connection
from roomkey.testing.simulation.history import What
from roomkey.testing.simulation.nodes import Services
from roomkey.wire.close import CloseCode

FINAL: Final = frozenset({CloseCode.UNAUTHENTICATED, 401, 410})
"""Answers after which a client needs a new session."""

UNWELCOME: Final = frozenset({CloseCode.FORBIDDEN, 403, 404})
"""Answers after which it stays away."""

PAUSES: Final = (0.2, 1.2)
"""Seconds within which a client comes back."""


class Surroundings(Protocol):
    """What a client needs of the simulation."""

    def note(self, what: What, **details: Any) -> None:
        """Write something down."""
        ...

    def node_for(self, client: "Client") -> Services | None:
        """A node that answers, the one that the client prefers if it does."""
        ...

    def later(self, seconds: float, work: Any, *arguments: Any) -> None:
        """Call something later, while the simulation goes on."""
        ...

    def spawn(self, work: Any) -> None:
        """Have a coroutine done in the background."""
        ...

    def connection(self, client: "Client", services: Services) -> Connection:
        """A connection that is not open yet."""
        ...

    @property
    def grants(self) -> Any:
        """What new sessions may do."""
        ...


class Client(ABC):
    """Somebody with a browser: signs in, connects, and comes back when it is sent away, as long as it wants to."""

    is_binary = True
    is_known_at_once = True
    """Whether the server knows whose the connection is when it accepts the handshake."""
    states_lineage = True
    """Whether it can say of which history its copy is."""

    def __init__(self, name: str, user: str, document: str, world: Surroundings, chance: random.Random) -> None:
        self.name = name
        self.user = user
        self.document = document
        self.world = world
        self.chance = chance
        self.session: SessionId | None = None
        self.token = ""
        self.connection: Connection | None = None
        self.wants_in = True
        self.prefers = 0
        self.says = 0
        self._is_coming = False

    # --- coming and going -----------------------------------------------------------------------------

    def come(self) -> None:
        """Connect, unless that is so already or under way."""
        if self.wants_in and self.connection is None and not self._is_coming:
            self._is_coming = True
            self.world.spawn(self._come())

    async def _come(self) -> None:
        try:
            services = self.world.node_for(self)
            if services is not None and (self.session is not None or await self._sign_in(services)):
                await self._knock(services)
        except (RoomkeyError, ConnectionError):
            pass
        finally:
            self._is_coming = False
            if self.connection is None:
                self._come_back()

    async def _sign_in(self, services: Services) -> bool:
        issued = await services.do(services.sessions.create_session(self.user, grants=self.world.grants, activate=True))
        self.session, self.token = issued.id, issued.token
        self.signed_in()
        self.world.note(What.SIGNED_IN, who=self.name, session=issued.id, text=self.user)
        return True

    async def _knock(self, services: Services) -> None:
        answer = await services.accept(self.handshake())
        if isinstance(answer, Refused):
            self.refused(answer.status)
            return
        connection = self.connection = self.world.connection(self, services)
        self.world.note(What.CONNECTED, who=self.name, node=services.id, connection=connection.name)
        if self.is_known_at_once:
            self.note_admission()
        self.greeted(answer)
        connection.open(answer.conversation)
        if self.connection is connection and connection.is_open:
            self.begin()

    def note_admission(self) -> None:
        """The server knows whose the connection is, and has let it in."""
        connection = self.connection
        if connection is not None:
            self.world.note(
                What.ADMITTED,
                who=self.name,
                node=connection.services.id,
                connection=connection.name,
                session=self.session or "",
                document=self.document,
                flag=not self.states_lineage,
            )

    def refused(self, status: int) -> None:
        """The handshake was refused, or the connection closed, with this code."""
        self.world.note(What.REFUSED, who=self.name, number=int(status), document=self.document)
        if status in FINAL:
            self.session = None
        elif status in UNWELCOME:
            self.wants_in = False

    def closed(self, connection: Connection, code: int) -> None:
        """The connection is over."""
        if self.connection is connection:
            self.connection = None
            self.over()
            self.refused(code)
            self._come_back()

    def _come_back(self) -> None:
        if self.wants_in:
            self.world.later(self.chance.uniform(*PAUSES), self.come)

    def go(self, *, politely: bool, back: bool) -> None:
        """Leave, or be cut off; with ``back`` the client comes again."""
        connection, self.connection = self.connection, None
        self.wants_in = back
        if connection is not None:
            if politely:
                connection.leave()
            else:
                connection.cut(noticed_after=self.chance.uniform(0.0, 4.0))
            self.over()
        if back:
            self._come_back()

    def say(self, message: bytes) -> None:
        """Send a message, if there is a connection."""
        if self.connection is not None and self.connection.is_open:
            self.connection.say(message, binary=self.is_binary)

    # --- what protocols say ---------------------------------------------------------------------------

    def handshake(self) -> Handshake:
        """How it knocks."""
        return self._handshake("/ws", {})

    def _handshake(self, path: str, query: Mapping[str, str]) -> Handshake:
        headers = {"authorization": f"Bearer {self.token}"}
        return Handshake(path=path, raw_path=path, query=query, headers=headers, client_ip="192.0.2.1")

    def signed_in(self) -> None:  # noqa: B027  # most have nothing to do then
        """It has another session than before."""

    def greeted(self, answer: Accepted) -> None:  # noqa: B027
        """The handshake was accepted."""

    @abstractmethod
    def begin(self) -> None:
        """The connection is open."""

    @abstractmethod
    def hear(self, connection: Connection, message: bytes) -> None:
        """A message has come."""

    def over(self) -> None:  # noqa: B027  # most have nothing to do then
        """The connection is no more."""

    # --- what its user does ---------------------------------------------------------------------------

    @abstractmethod
    def edit(self) -> None:
        """Change the document."""

    @abstractmethod
    def show(self) -> None:
        """Show itself, in another way than before."""

    @property
    def is_in(self) -> bool:
        """Whether it is in the document, as far as it knows."""
        return self.connection is not None


class JsonClient(Client):
    """
    A client of ``/ws`` that follows one document.

    As the documentation has it: it remembers its last position, subscribes again with that when a position check is
    ahead of it, and says again, under the same id, what was not acknowledged.
    """

    is_binary = False

    def __init__(self, name: str, user: str, document: str, world: Surroundings, chance: random.Random) -> None:
        super().__init__(name, user, document, world, chance)
        self.position: dict[str, Any] | None = None
        self._is_subscribed = False
        self._subscribing = ""
        self._pending: dict[str, str] = {}
        self._numbers = 0

    @property
    def is_in(self) -> bool:
        return self._is_subscribed

    def signed_in(self) -> None:
        self._pending.clear()  # ids are those of a session: under another one it would be said twice

    def begin(self) -> None:
        self._subscribe()

    def over(self) -> None:
        self._is_subscribed = False
        self._subscribing = ""

    def _subscribe(self) -> None:
        if self.connection is None:
            return
        self._is_subscribed = False
        payload: dict[str, Any] = {"document": self.document}
        if self.position is not None:
            payload["since"] = self.position
        self._subscribing = self._send("subscribe", payload)

    def _send(self, kind: str, payload: dict[str, Any], id: str = "") -> str:
        self._numbers += 1
        id = id or f"{self.name}-{self._numbers}"
        self.say(_encode({"id": id, "message_type": kind, "payload": payload}))
        return id

    # --- what its user does ---------------------------------------------------------------------------

    def edit(self) -> None:
        self.says += 1
        text = f"{self.name}:{self.says}"
        self._pending[text] = text
        self._publish(text)

    def _publish(self, text: str) -> None:
        if self._is_subscribed and text in self._pending:
            self.world.note(What.SAID, who=self.name, document=self.document, text=text, connection=self._connected())
            self._send("realtime_edit", {"document": self.document, "said": text}, text)

    def show(self) -> None:
        if self._is_subscribed:
            self.says += 1
            status = f"busy-{self.says}"
            self.world.note(What.SHOWS, who=self.name, document=self.document, text=status)
            self._send("user_presence", {"document": self.document, "status": status})
            self._send("cursor_position", {"document": self.document, "at": self.says})

    def _connected(self) -> str:
        return "" if self.connection is None else self.connection.name

    # --- what the server says -------------------------------------------------------------------------

    def hear(self, connection: Connection, message: bytes) -> None:
        if connection is not self.connection:
            return
        heard = _decode(message)
        payload = heard["payload"]
        match heard["message_type"]:
            case "realtime_edit":
                self._heard(payload)
            case "ack":
                self._acknowledged(heard["id"], payload)
            case "subscribed" if payload["document"] == self.document:
                self._subscribed(payload)
            case "unsubscribed":
                self._unsubscribed(payload)
            case "position":
                self._checked(payload["position"], is_lost=payload.get("recovered") is False)
            case "error":
                self._failed(heard["id"], payload)
            case "user_presence":
                who = payload["session_info"]["session_id"]
                self.world.note(
                    What.SAW,
                    who=self.name,
                    document=self.document,
                    session=who,
                    text=payload["status"],
                    flag=payload["status"] != "offline",
                )
            case _:
                pass

    def _heard(self, payload: dict[str, Any]) -> None:
        position = payload["position"]
        self.world.note(
            What.HEARD,
            who=self.name,
            document=self.document,
            connection=self._connected(),
            epoch=position["epoch"],
            offset=position["offset"],
            text=payload["said"],
        )
        self._advance(position)

    def _acknowledged(self, id: str, payload: dict[str, Any]) -> None:
        position = payload["position"]
        if self._pending.pop(id, None) is not None and position is not None:
            self.world.note(
                What.ACKNOWLEDGED,
                who=self.name,
                document=self.document,
                connection=self._connected(),
                epoch=position["epoch"],
                offset=position["offset"],
                text=id,
            )
            self._advance(position)

    def _advance(self, position: dict[str, Any]) -> None:
        known = self.position
        if known is None or known["epoch"] != position["epoch"] or known["offset"] < position["offset"]:
            self.position = position

    def _subscribed(self, payload: dict[str, Any]) -> None:
        position, recovered = payload["position"], payload["recovered"]
        self.world.note(
            What.JOINED,
            who=self.name,
            document=self.document,
            connection=self._connected(),
            epoch=position["epoch"],
            offset=position["offset"],
            number=len(payload["publications"]),
            flag=recovered,
            members=tuple(sorted({shown["session_info"]["session_id"] for shown in payload["presence"]})),
        )
        for publication in payload["publications"]:
            self._heard(publication["payload"])
        self.position = position
        self._is_subscribed, self._subscribing = True, ""
        for text in tuple(self._pending):
            self._publish(text)

    def _unsubscribed(self, payload: dict[str, Any]) -> None:
        self._is_subscribed = False
        self.world.note(What.LEFT, who=self.name, document=self.document, connection=self._connected())
        error = payload.get("error")
        if error is not None and error["code"] == "FORBIDDEN":
            self.wants_in = False
        else:
            self.world.later(0.1, self._subscribe)

    def _checked(self, position: dict[str, Any], *, is_lost: bool) -> None:
        self.world.note(
            What.CHECKED,
            who=self.name,
            document=self.document,
            epoch=position["epoch"],
            offset=position["offset"],
            flag=is_lost,
        )
        if is_lost:
            self.position = position  # load the document, and go on from here
            return
        known = self.position
        if known is None or known["epoch"] != position["epoch"] or known["offset"] < position["offset"]:
            self._subscribe()

    def _failed(self, id: str, payload: dict[str, Any]) -> None:
        if id == self._subscribing and payload["code"] == "FORBIDDEN":
            self.wants_in = False
        elif id == self._subscribing or payload["code"] == "NOT_SUBSCRIBED":
            self.world.later(0.5, self._subscribe_again, self.connection)
        elif id in self._pending:
            if payload["retry"]:
                self.world.later(0.5, self._publish, id)
            else:
                del self._pending[id]

    def _subscribe_again(self, connection: Connection | None) -> None:
        if connection is self.connection and not self._is_subscribed:
            self._subscribe()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
