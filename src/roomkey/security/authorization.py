"""
Who may do what: one table of actions, and the pure functions that read it.

Every interface asks here, whatever it speaks. A caller is first asked what it is (``check``), then whether it may do
that to what it named (``check_session``, ``check_user``, ``check_document``). What a caller may not see is answered
like what does not exist.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum, auto
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.access import Access, Role, access_to, allows
from roomkey.domain.session import Session, SessionFilter, SessionId, SessionState
from roomkey.errors import CapReached, CredentialsMissing, DocumentNotFound, Forbidden, NotFound, SessionPending
from roomkey.ports import Author
from roomkey.security.apikeys import ApiKey
from roomkey.security.inspection import check_document_name

# --- callers ------------------------------------------------------------------------------------------


class CallerKind(StrEnum):
    """What a caller is to us."""

    ADMIN = "admin"
    SERVICE = "service"
    SESSION = "session"
    PENDING = "pending session"
    STRANGER = "stranger"


class Caller:
    """
    Whoever asks for something. ``actor`` is how events name it.

    A session's ``token`` is what it presented, for rotating it; it is not shown anywhere.
    """

    __slots__ = ("_token", "actor", "kind", "session")

    def __init__(self, kind: CallerKind, actor: str, session: Session | None = None, token: str | None = None) -> None:
        self.kind = kind
        self.actor = actor
        self.session = session
        self._token = token

    @classmethod
    def of_key(cls, key: ApiKey) -> "Caller":
        """Whoever holds an API key."""
        return cls(_KINDS_OF_KEYS[key.role], key.actor)

    @classmethod
    def of_session(cls, session: Session, token: str | None = None) -> "Caller":
        """The holder of a session that is pending or active."""
        kind = CallerKind.PENDING if session.state is SessionState.PENDING else CallerKind.SESSION
        return cls(kind, actor_of(session), session, token)

    @property
    def token(self) -> str | None:
        """The secret that was presented, if it was a session's."""
        return self._token

    @property
    def author(self) -> Author:
        """As whom the caller writes."""
        return Author(self.actor) if self.session is None else author_of(self.session)

    def __repr__(self) -> str:
        return f"Caller({self.kind}, {self.actor})"


_KINDS_OF_KEYS: Final[Mapping[Role, CallerKind]] = {
    Role.ADMIN: CallerKind.ADMIN,
    Role.SERVICE: CallerKind.SERVICE,
}

STRANGER: Final = Caller(CallerKind.STRANGER, "anonymous")
DEVELOPER: Final = Caller(CallerKind.ADMIN, "dev")
"""Who does not say who they are, on a server that was started with ``--dev``."""


def actor_of(session: Session) -> str:
    """How events name the holder of ``session``."""
    return f"user:{session.user_id}"


def author_of(session: Session) -> Author:
    """As whom the holder of ``session`` writes."""
    return Author(actor_of(session), session.id, session.user_id)


# --- the table ----------------------------------------------------------------------------------------


class Action(Enum):
    """What can be asked for."""

    CREATE_SESSIONS = auto()
    CHANGE_MANY_SESSIONS = auto()
    LIST_SESSIONS = auto()
    READ_SESSION = auto()
    ACTIVATE_SESSION = auto()
    SUSPEND_SESSION = auto()
    RESUME_SESSION = auto()
    EXPIRE_SESSION = auto()
    INVALIDATE_SESSION = auto()
    EXTEND_SESSION = auto()
    CHANGE_GRANTS = auto()
    ROTATE_TOKEN = auto()
    DELETE_SESSION = auto()
    READ_OWN_SESSION = auto()
    LOG_OUT = auto()
    TAKE_TICKET = auto()
    LIST_SESSIONS_OF_USER = auto()
    REVOKE_USER = auto()
    SEE_PUBLIC = auto()
    SEE_HEALTH = auto()
    SEE_FIGURES = auto()
    LIST_DOCUMENTS = auto()
    READ_DOCUMENT = auto()
    WRITE_DOCUMENT = auto()
    DELETE_DOCUMENT = auto()
    IMPORT_DOCUMENT = auto()


class Reach(Enum):
    """To which sessions a session may do something; a key may do it to all."""

    NONE = auto()
    ITSELF = auto()
    ITS_USER = auto()
    """Those of its own user."""


class Rule(Struct, frozen=True):
    """
    Who may do an action. ``reach`` says to which sessions, ``access`` what a session's grants must give.

    To keys every session, every user and every document is open. If it ``is_public``, it is not even asked who is
    calling, and a bad credential does no harm.
    """

    who: frozenset[CallerKind]
    reach: Reach = Reach.NONE
    access: Access | None = None
    is_public: bool = False


KEYS: Final = frozenset({CallerKind.ADMIN, CallerKind.SERVICE})
SESSIONS: Final = frozenset({CallerKind.SESSION})
SESSIONS_EVEN_PENDING: Final = frozenset({CallerKind.SESSION, CallerKind.PENDING})
ANYONE: Final = frozenset(CallerKind)
"""Nobody has to say who they are, but who does must be right."""

RULES: Final[Mapping[Action, Rule]] = {
    Action.CREATE_SESSIONS: Rule(KEYS),
    Action.CHANGE_MANY_SESSIONS: Rule(KEYS),
    Action.LIST_SESSIONS: Rule(KEYS | SESSIONS, Reach.ITS_USER),
    Action.READ_SESSION: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITS_USER),
    Action.ACTIVATE_SESSION: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITSELF),
    Action.SUSPEND_SESSION: Rule(KEYS),
    Action.RESUME_SESSION: Rule(KEYS),
    Action.EXPIRE_SESSION: Rule(KEYS),
    Action.INVALIDATE_SESSION: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITSELF),
    Action.EXTEND_SESSION: Rule(KEYS),
    Action.CHANGE_GRANTS: Rule(KEYS),
    Action.ROTATE_TOKEN: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITSELF),
    Action.DELETE_SESSION: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITS_USER),
    Action.READ_OWN_SESSION: Rule(SESSIONS_EVEN_PENDING, Reach.ITSELF),
    Action.LOG_OUT: Rule(SESSIONS_EVEN_PENDING, Reach.ITSELF),
    Action.TAKE_TICKET: Rule(SESSIONS, Reach.ITSELF),
    Action.LIST_SESSIONS_OF_USER: Rule(KEYS | SESSIONS, Reach.ITS_USER),
    Action.REVOKE_USER: Rule(KEYS | SESSIONS, Reach.ITS_USER),
    Action.SEE_PUBLIC: Rule(ANYONE, is_public=True),
    Action.SEE_HEALTH: Rule(ANYONE),
    Action.SEE_FIGURES: Rule(frozenset({CallerKind.ADMIN})),
    Action.LIST_DOCUMENTS: Rule(KEYS | SESSIONS),
    Action.READ_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.READ),
    Action.WRITE_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.WRITE),
    Action.DELETE_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.ADMIN),
    Action.IMPORT_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.ADMIN),
}
"""The only place where it is decided who may do what."""


def permits(caller: Caller, action: Action) -> bool:
    """Whether callers like this one may do it at all."""
    return caller.kind in RULES[action].who


def check(caller: Caller, action: Action) -> None:
    """
    Raise unless callers like this one may do it at all.

    Raises:
        CredentialsMissing, SessionPending, Forbidden: As they say.
    """
    if permits(caller, action):
        return
    if caller is STRANGER or caller is DEVELOPER:
        raise CredentialsMissing("a credential is needed here")
    if caller.kind is CallerKind.PENDING and CallerKind.SESSION in RULES[action].who:
        raise SessionPending("activate the session first")
    if caller.session is None:
        raise Forbidden("only a session may do this")
    raise Forbidden("only an API key may do this")


# --- sessions and users -------------------------------------------------------------------------------


def is_open(caller: Caller, id: SessionId) -> bool:
    """Whether the caller may do to the session what it may do at all: a key to any, a session to itself."""
    return caller.session is None or caller.session.id == id


def check_session(caller: Caller, action: Action, session: Session | None) -> Session:
    """
    The session that the caller named, if it may do ``action`` to it. ``None`` stands for one that does not exist.

    Raises:
        NotFound: If there is none, or it belongs to another user.
        SessionPending: If the caller is not active yet, and named another one than itself.
        Forbidden: If it may do that to no other session than itself.
    """
    if session is not None and is_open(caller, session.id):
        return session
    if caller.kind is CallerKind.PENDING:
        raise SessionPending("activate the session first")
    own = caller.session
    if session is None or (own is not None and own.user_id != session.user_id):
        raise NotFound("there is no such session")
    if RULES[action].reach is not Reach.ITS_USER:
        raise Forbidden("a session may only do this to itself")
    return session


def check_user(caller: Caller, user_id: str) -> None:
    """
    Raise unless the caller may know of the user: a session knows its own.

    Raises:
        NotFound: If not.
    """
    if caller.session is not None and caller.session.user_id != user_id:
        raise NotFound("there is no such user")


def own_session(caller: Caller) -> Session:
    """
    The session that is calling.

    Raises:
        Forbidden: If it is none that calls.
    """
    if caller.session is None:
        raise Forbidden("only a session has a current session")
    return caller.session


def visible(caller: Caller, wanted: SessionFilter) -> SessionFilter:
    """
    What the caller sees of the sessions that it wants to see: a session those of its own user.

    Raises:
        Forbidden: If it asked for those of another user.
    """
    own = caller.session
    if own is None:
        return wanted
    if wanted.user_id not in (None, own.user_id):
        raise Forbidden("a session sees those of its own user")
    return replace(wanted, user_id=own.user_id)


def check_batch(user_ids: Iterable[str], cap: int) -> None:
    """
    Raise if a batch has more sessions of one user than a user may have.

    A storage decides user by user, when the sessions of others have been created already; this is asked before.

    Raises:
        CapReached: If so.
    """
    if max(Counter(user_ids).values(), default=0) > cap:
        raise CapReached(f"a user has at most {cap} live sessions, and this batch has more of one")


# --- documents ----------------------------------------------------------------------------------------


def sees_document(caller: Caller, document: str) -> bool:
    """Whether the caller may know of the document: a session if a grant covers it."""
    return caller.session is None or access_to(document, caller.session.grants) is not None


def check_document(caller: Caller, action: Action, document: str) -> None:
    """
    Raise unless the caller may do ``action`` to the document: a key with every one, a session by its grants.

    Raises:
        InvalidInput: If no document can have that name.
        DocumentNotFound: If no grant covers it, whether or not there is such a document.
        Forbidden: If the grants do not reach so far.
    """
    check_document_name(document)
    wanted, session = RULES[action].access, caller.session
    if session is None or wanted is None:
        return
    if not sees_document(caller, document):
        raise DocumentNotFound("there is no such document")
    if not allows(session.grants, document, wanted):
        raise Forbidden(f"the session may not {wanted} this document")
