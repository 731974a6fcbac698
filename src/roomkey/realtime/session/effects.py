"""Effects of a guard, the same in every protocol. Each client adds its own effects."""

from msgspec import Struct

from roomkey.domain.session import Session
from roomkey.realtime.protocol.json_messages import Fault
from roomkey.wire.close import CloseReason, close_text


class Touch(Struct, frozen=True, gc=False):
    """Tell storage that the user was active just now."""


class Authenticate(Struct, frozen=True, gc=False):
    """
    Find out which session ``token`` opens, and call ``SessionGuard.refreshed`` or ``not_refreshed``.

    ``id`` says what the client meant: its message, or a document's address. ``proof`` is of DPoP.
    """

    id: str | None
    token: str
    proof: str | None = None

    def __repr__(self) -> str:
        return f"Authenticate({self.id!r}, <hidden>)"


class Verify(Struct, frozen=True, gc=False):
    """Ask storage how the session stands now, and call ``SessionGuard.verified`` or ``unverified``."""


class Rebind(Struct, frozen=True, gc=False):
    """The connection belongs to ``SessionGuard.session`` from now on, and no more to ``former``."""

    former: Session


class Review(Struct, frozen=True, gc=False):
    """
    Check the session's access to its documents again: its grants may have changed.

    ``reason`` is what somebody wants it to be told of a document that it may not use any more.
    """

    reason: str | None = None


class Renewed(Struct, frozen=True, gc=False):
    """Tell the client that its new token is accepted."""

    question: Authenticate


class NotRenewed(Struct, frozen=True, gc=False):
    """Tell the client that its new token is not accepted."""

    question: Authenticate
    why: Fault


class ExpiringSoon(Struct, frozen=True, gc=False):
    """Tell the client that its session will expire soon."""


class Farewell(Struct, frozen=True, gc=False):
    """The last message to a client, if its protocol has one."""

    message_type: str
    payload: object


class Close(Struct, frozen=True, gc=False):
    """
    End the connection with ``farewell`` as its last message.

    With ``flush`` what waits for it is sent before; without, the session may see nothing more of it. ``cause`` is
    what was given as the reason for the session's end. Each protocol has its own code for ``reason``. An end that
    ``is_violation`` counts against the session.
    """

    reason: CloseReason
    farewell: Farewell
    cause: str | None = None
    flush: bool = True
    is_violation: bool = False

    @property
    def text(self) -> str:
        """What the client is told in the close frame."""
        return close_text(self.reason, self.cause)


Question = Authenticate | Verify
"""What only storage can answer."""

GuardEffect = Touch | Authenticate | Verify | Rebind | Review | Renewed | NotRenewed | ExpiringSoon | Close
