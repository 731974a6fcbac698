"""What a connection wants done: the decisions of ``connection``, carried out by ``peer``."""

from typing import Any

from msgspec import Struct

from roomkey.domain.session import Session
from roomkey.realtime.protocol.json_messages import Fault
from roomkey.realtime.rooms.history import Position
from roomkey.wire.close import CloseCode, CloseReason


class Send(Struct, frozen=True, gc=False):
    """Tell the client. ``id`` is that of the message that this answers, if it answers one."""

    message_type: str
    payload: Any
    id: str | None = None


class Join(Struct, frozen=True, gc=False):
    """Let the client follow a document, and answer ``subscribed`` with what it missed."""

    id: str | None
    document: str
    since: Position | None


class Leave(Struct, frozen=True, gc=False):
    """Let the client follow a document no more, and answer ``unsubscribed``; ``why`` if it did not ask for it."""

    id: str | None
    document: str
    why: Fault | None = None


class Publish(Struct, frozen=True, gc=False):
    """Give a message to everyone else in the document, acknowledge it, and remember its id."""

    id: str | None
    document: str
    message_type: str
    payload: dict[str, Any]
    history: bool


class Point(Struct, frozen=True, gc=False):
    """Give a cursor to everyone else in the document."""

    document: str
    payload: dict[str, Any]


class Announce(Struct, frozen=True, gc=False):
    """Change how the session is shown to everyone else in the document."""

    id: str | None
    document: str
    status: str
    payload: dict[str, Any]


class Touch(Struct, frozen=True, gc=False):
    """Let storage know that the user was active just now."""


class Authenticate(Struct, frozen=True, gc=False):
    """Find out which session ``token`` opens, and call ``Connection.refreshed`` or ``not_refreshed``."""

    id: str | None
    token: str

    def __repr__(self) -> str:
        return f"Authenticate({self.id!r}, <hidden>)"


class Verify(Struct, frozen=True, gc=False):
    """Ask storage how the session stands now, and call ``Connection.verified`` or ``unverified``."""


class Rebind(Struct, frozen=True, gc=False):
    """The connection belongs to ``Connection.session`` from now on, and no more to ``former``."""

    former: Session


class Deliver(Struct, frozen=True, gc=False):
    """Hand a message on: the session is good, and has the budget."""

    message: bytes


class Review(Struct, frozen=True, gc=False):
    """Look again at what the session may do in the documents that it is in."""


class Admit(Struct, frozen=True, gc=False):
    """The credential that came for a document was good."""

    address: str


class Reject(Struct, frozen=True, gc=False):
    """The credential that came for a document was not good."""

    address: str
    why: Fault


class AskForToken(Struct, frozen=True, gc=False):
    """Let the client know that a newer credential is needed soon."""


class Close(Struct, frozen=True, gc=False):
    """
    End the connection with ``farewell`` as its last message.

    With ``flush`` what waits for it is sent before; without, the session may see nothing more of it.
    """

    code: CloseCode
    reason: CloseReason
    farewell: Send
    flush: bool = True


Effect = (
    Send
    | Join
    | Leave
    | Publish
    | Point
    | Announce
    | Touch
    | Authenticate
    | Verify
    | Rebind
    | Deliver
    | Review
    | Admit
    | Reject
    | AskForToken
    | Close
)
