"""
Who may do what: one table of actions, and the pure functions that read it.

Every interface asks here, whatever it speaks. A caller is first asked what it is (``check``), then whether it may do
that to what it named (``check_session``, ``check_user``, ``check_document``). What a caller may not see is answered
like what does not exist.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.access import Access, Grants, Role, reaches
from roomkey.domain.session import Session, SessionFilter, SessionId, SessionState
from roomkey.errors import (
    CapReached,
    CredentialsMissing,
    DocumentNotFound,
    Forbidden,
    NotFound,
    ReauthenticationNeeded,
    SessionPending,
)
from roomkey.ports import Author
from roomkey.security.apikeys import ApiKey
from roomkey.security.inspection import check_document_name
from roomkey.security.narrowing import EVERYTHING, Narrowing, Scope

# --- callers ------------------------------------------------------------------------------------------


class CallerKind(StrEnum):
    """What a caller is to us."""

    ADMIN = "admin"
    SERVICE = "service"
    AUDITOR = "auditor"
    SUPPORT = "support"
    SESSION = "session"
    PENDING = "pending session"
    STRANGER = "stranger"


# What every caller is compared with. Python 3.11 takes a tenth of a microsecond to find a member in its class.
_SESSION, _PENDING_SESSION, _PENDING = CallerKind.SESSION, CallerKind.PENDING, SessionState.PENDING


class Caller:
    """
    Whoever asks for something. ``actor`` is how events name it.

    A session's ``token`` is what it presented, for rotating it; it is not shown anywhere. ``by_cookie`` says that a
    browser presented it, whose scripts must not see the next one either. ``only`` narrows what a key may do.
    """

    __slots__ = ("_token", "actor", "by_cookie", "kind", "only", "session")

    def __init__(
        self,
        kind: CallerKind,
        actor: str,
        session: Session | None = None,
        token: str | None = None,
        *,
        by_cookie: bool = False,
        only: Narrowing = EVERYTHING,
    ) -> None:
        self.by_cookie = by_cookie
        self.kind = kind
        self.actor = actor
        self.session = session
        self.only = only
        self._token = token

    @classmethod
    def of_key(cls, key: ApiKey) -> "Caller":
        """Whoever holds an API key."""
        return cls(_KINDS_OF_KEYS[key.role], key.actor, only=key.only)

    @classmethod
    def of_session(cls, session: Session, token: str | None = None, *, by_cookie: bool = False) -> "Caller":
        """The holder of a session that is pending or active."""
        kind = _PENDING_SESSION if session.state is _PENDING else _SESSION
        return cls(kind, actor_of(session), session, token, by_cookie=by_cookie)

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
    Role.AUDITOR: CallerKind.AUDITOR,
    Role.SUPPORT: CallerKind.SUPPORT,
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

    __hash__ = object.__hash__  # that of enumerations is written in Python, and every request looks up its rule

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
    REAUTHENTICATE_SESSION = auto()
    SEE_RISK = auto()
    FORGET_PATTERNS = auto()
    DELETE_SESSION = auto()
    READ_OWN_SESSION = auto()
    EXCHANGE_TOKEN = auto()
    LOG_IN = auto()
    LOG_OUT = auto()
    LEAVE = auto()
    TAKE_TICKET = auto()
    LIST_SESSIONS_OF_USER = auto()
    REVOKE_USER = auto()
    SEE_PUBLIC = auto()
    SEE_HEALTH = auto()
    SEE_FIGURES = auto()
    LIST_DOCUMENTS = auto()
    LIST_VERSIONS = auto()
    READ_DOCUMENT = auto()
    WRITE_DOCUMENT = auto()
    DELETE_DOCUMENT = auto()
    RECHECK_SESSION = auto()
    RECHECK_DOCUMENT = auto()
    EXPLAIN_ACCESS = auto()
    SEE_GROUPS = auto()
    CHANGE_GROUPS = auto()
    IMPORT_DOCUMENT = auto()
    SEE_CONNECTED = auto()
    DISCONNECT_FROM_DOCUMENT = auto()
    DISCONNECT_SESSION = auto()
    SEE_HISTORY = auto()
    SEE_KEYS = auto()
    CHANGE_KEYS = auto()
    READ_AUDIT_TREE = auto()
    READ_AUDIT_ENTRIES = auto()
    SEE_PERSONS_IN_AUDIT = auto()
    SEE_WEBHOOKS = auto()
    CHANGE_WEBHOOKS = auto()


class Reach(Enum):
    """To which sessions a session may do something; a key may do it to all."""

    NONE = auto()
    ITSELF = auto()
    ITS_USER = auto()
    """Those of its own user."""


class Rule(Struct, frozen=True):
    """
    Who may do an action. ``reach`` says to which sessions, ``access`` what a session's grants must give.

    To keys every session, every user and every document is open that they are not narrowed away from; a key that is
    narrowed to scopes needs ``scope``. If it ``is_public``, it is not even asked who is calling, and a bad credential
    does no harm.
    """

    who: frozenset[CallerKind]
    reach: Reach = Reach.NONE
    access: Access | None = None
    is_public: bool = False
    scope: Scope | None = None


ADMINS: Final = frozenset({CallerKind.ADMIN})
KEYS: Final = frozenset({CallerKind.ADMIN, CallerKind.SERVICE})
STOPPERS: Final = KEYS | {CallerKind.SUPPORT}
"""Who may stop and end the sessions of others."""
WATCHERS: Final = KEYS | {CallerKind.AUDITOR}
EVERY_KEY: Final = KEYS | {CallerKind.AUDITOR, CallerKind.SUPPORT}
SESSIONS: Final = frozenset({CallerKind.SESSION})
SESSIONS_EVEN_PENDING: Final = frozenset({CallerKind.SESSION, CallerKind.PENDING})
AUDITORS: Final = frozenset({CallerKind.ADMIN, CallerKind.AUDITOR})
ANYONE: Final = frozenset(CallerKind)
"""Nobody has to say who they are, but who does must be right."""

_READ, _ISSUE, _WRITE = Scope.SESSIONS_READ, Scope.SESSIONS_ISSUE, Scope.SESSIONS_WRITE

RULES: Final[Mapping[Action, Rule]] = {
    Action.CREATE_SESSIONS: Rule(KEYS, scope=_ISSUE),
    Action.CHANGE_MANY_SESSIONS: Rule(KEYS, scope=_ISSUE),
    Action.LIST_SESSIONS: Rule(EVERY_KEY | SESSIONS, Reach.ITS_USER, scope=_READ),
    Action.READ_SESSION: Rule(EVERY_KEY | SESSIONS_EVEN_PENDING, Reach.ITS_USER, scope=_READ),
    Action.ACTIVATE_SESSION: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITSELF, scope=_ISSUE),
    Action.SUSPEND_SESSION: Rule(STOPPERS, scope=_WRITE),
    Action.RESUME_SESSION: Rule(STOPPERS, scope=_WRITE),
    Action.EXPIRE_SESSION: Rule(STOPPERS, scope=_WRITE),
    Action.INVALIDATE_SESSION: Rule(STOPPERS | SESSIONS_EVEN_PENDING, Reach.ITSELF, scope=_WRITE),
    Action.EXTEND_SESSION: Rule(KEYS, scope=_ISSUE),
    Action.CHANGE_GRANTS: Rule(KEYS, scope=_ISSUE),
    Action.ROTATE_TOKEN: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITSELF, scope=_ISSUE),
    Action.REAUTHENTICATE_SESSION: Rule(KEYS, scope=_ISSUE),
    Action.SEE_RISK: Rule(EVERY_KEY, scope=_READ),  # not its user: whoever has stolen it would read what was noticed
    Action.FORGET_PATTERNS: Rule(KEYS, scope=_WRITE),
    Action.DELETE_SESSION: Rule(KEYS | SESSIONS_EVEN_PENDING, Reach.ITS_USER, scope=_WRITE),
    Action.READ_OWN_SESSION: Rule(SESSIONS_EVEN_PENDING, Reach.ITSELF),
    Action.LOG_OUT: Rule(SESSIONS_EVEN_PENDING, Reach.ITSELF),
    # These find out themselves who is calling: a token in a body, and cookies that may be worth nothing any more.
    Action.EXCHANGE_TOKEN: Rule(ANYONE, is_public=True),
    Action.LOG_IN: Rule(ANYONE, is_public=True),
    Action.LEAVE: Rule(SESSIONS_EVEN_PENDING, is_public=True),
    Action.TAKE_TICKET: Rule(SESSIONS, Reach.ITSELF),
    Action.LIST_SESSIONS_OF_USER: Rule(EVERY_KEY | SESSIONS, Reach.ITS_USER, scope=_READ),
    Action.REVOKE_USER: Rule(STOPPERS | SESSIONS, Reach.ITS_USER, scope=_WRITE),
    Action.SEE_PUBLIC: Rule(ANYONE, is_public=True),
    Action.SEE_HEALTH: Rule(ANYONE),
    Action.SEE_FIGURES: Rule(ADMINS | {CallerKind.AUDITOR}, scope=Scope.FIGURES_READ),
    Action.LIST_DOCUMENTS: Rule(WATCHERS | SESSIONS, scope=Scope.DOCUMENTS_READ),
    Action.LIST_VERSIONS: Rule(WATCHERS | SESSIONS, access=Access.READ, scope=Scope.DOCUMENTS_READ),
    Action.READ_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.READ, scope=Scope.DOCUMENTS_READ),
    Action.WRITE_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.WRITE, scope=Scope.DOCUMENTS_WRITE),
    Action.DELETE_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.ADMIN, scope=Scope.DOCUMENTS_ADMIN),
    Action.IMPORT_DOCUMENT: Rule(KEYS | SESSIONS, access=Access.ADMIN, scope=Scope.DOCUMENTS_ADMIN),
    # Whoever may read a document is shown who is in it by its sockets, too.
    Action.SEE_CONNECTED: Rule(EVERY_KEY | SESSIONS, access=Access.READ, scope=_READ),
    Action.DISCONNECT_FROM_DOCUMENT: Rule(STOPPERS | SESSIONS, access=Access.ADMIN, scope=_WRITE),
    Action.DISCONNECT_SESSION: Rule(STOPPERS | SESSIONS, Reach.ITS_USER, scope=_WRITE),
    Action.SEE_HISTORY: Rule(EVERY_KEY, scope=_READ),  # not its user, as with what counts against it
    # Whatever the application says then, it would say anyway when its answers have aged.
    Action.RECHECK_SESSION: Rule(KEYS, scope=_WRITE),
    Action.RECHECK_DOCUMENT: Rule(KEYS, scope=_WRITE),
    Action.EXPLAIN_ACCESS: Rule(EVERY_KEY, scope=_READ),
    Action.SEE_GROUPS: Rule(EVERY_KEY, scope=_READ),
    Action.CHANGE_GROUPS: Rule(KEYS, scope=_ISSUE),
    Action.SEE_KEYS: Rule(ADMINS, scope=Scope.KEYS_READ),
    Action.CHANGE_KEYS: Rule(ADMINS, scope=Scope.KEYS_WRITE),
    # The tree says how much happens and nothing else; ``audit.public_tree`` opens it to everybody.
    Action.READ_AUDIT_TREE: Rule(AUDITORS, scope=Scope.AUDIT_READ),
    Action.READ_AUDIT_ENTRIES: Rule(AUDITORS, scope=Scope.AUDIT_READ),
    Action.SEE_PERSONS_IN_AUDIT: Rule(AUDITORS, scope=Scope.AUDIT_READ),
    # Deliveries name documents and users of everybody.
    Action.SEE_WEBHOOKS: Rule(ADMINS, scope=Scope.WEBHOOKS_READ),
    Action.CHANGE_WEBHOOKS: Rule(ADMINS, scope=Scope.WEBHOOKS_WRITE),
}
"""The only place where it is decided who may do what."""


SENSITIVE: Final = frozenset({Action.REVOKE_USER, Action.DELETE_DOCUMENT})
"""What a user who proved long ago who they are must prove again for, if an operator wants that (ASVS 7.5.1)."""


def check_recent(caller: Caller, action: Action, now: datetime, age: timedelta | None) -> None:
    """
    Raise if the session's user must prove again who they are before this.

    Raises:
        ReauthenticationNeeded: If so.
    """
    session = caller.session
    if age is None or session is None or action not in SENSITIVE:
        return
    if now - session.authenticated_at > age:
        raise ReauthenticationNeeded(f"for this, users prove who they are at least every {age}")


def permits(caller: Caller, action: Action) -> bool:
    """Whether callers like this one may do it at all."""
    rule = RULES[action]
    return caller.kind in rule.who and (rule.who is ANYONE or caller.session is not None or caller.only.has(rule.scope))


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
    who = RULES[action].who
    if caller.kind is CallerKind.PENDING and CallerKind.SESSION in who:
        raise SessionPending("activate the session first")
    if caller.session is not None:
        raise Forbidden("only an API key may do this")
    if who <= SESSIONS_EVEN_PENDING:
        raise Forbidden("only a session may do this")
    raise Forbidden("the API key may not do this" if caller.kind in who else f"a key of the role {caller.kind} may not")


def check_sees_all(caller: Caller) -> None:
    """
    Raise unless documents and users of everybody are open to the key.

    Raises:
        Forbidden: If it is narrowed to some.
    """
    if caller.only.narrows_sessions:
        raise Forbidden("the API key is narrowed to some documents or users, and this is about all")


# --- sessions and users -------------------------------------------------------------------------------


def sees_user(caller: Caller, user_id: str) -> bool:
    """Whether the caller may know of the user: a session knows its own, a key those that it is narrowed to."""
    own = caller.session
    return caller.only.sees_user(user_id) if own is None else own.user_id == user_id


def is_open(caller: Caller, id: SessionId) -> bool:
    """Whether the caller may do to the session what it may do at all, whosever it is; a session only to itself."""
    own = caller.session
    return not caller.only.narrows_sessions if own is None else own.id == id


def check_session(caller: Caller, action: Action, session: Session | None) -> Session:
    """
    The session that the caller named, if it may do ``action`` to it. ``None`` stands for one that does not exist.

    Raises:
        NotFound: If there is none, or the caller may not know of its user.
        SessionPending: If the caller is not active yet, and named another one than itself.
        Forbidden: If it may do that to no other session than itself, or would get more than it may have.
    """
    if session is not None and is_open(caller, session.id):
        return session
    if caller.kind is CallerKind.PENDING:
        raise SessionPending("activate the session first")
    if session is None or not sees_user(caller, session.user_id):
        raise NotFound("there is no such session")
    if caller.session is not None and RULES[action].reach is not Reach.ITS_USER:
        raise Forbidden("a session may only do this to itself")
    if action is Action.ROTATE_TOKEN:
        # Who is shown the token may use the session.
        check_given(caller, session.grants)
    return session


def check_user(caller: Caller, user_id: str) -> None:
    """
    Raise unless the caller may know of the user.

    Raises:
        NotFound: If not.
    """
    if not sees_user(caller, user_id):
        raise NotFound("there is no such user")


def check_issued(caller: Caller, user_id: str, grants: Grants) -> None:
    """
    Raise unless the key may issue a session to this user with these grants.

    Raises:
        Forbidden: If not.
    """
    if not sees_user(caller, user_id):
        raise Forbidden("the API key may not issue sessions to this user")
    check_given(caller, grants)


def check_given(caller: Caller, grants: Grants) -> None:
    """
    Raise unless the key may have a session with these grants: nobody gives more than they have.

    Raises:
        Forbidden: If not.
    """
    if not caller.only.gives(grants):
        raise Forbidden("the grants cover documents that the API key may not use")


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
        Forbidden: If it asked for those of a user whom it may not know of, or, being narrowed to some, for everybody's.
    """
    own = caller.session
    if own is not None and wanted.user_id is None:
        return replace(wanted, user_id=own.user_id)
    if wanted.user_id is None and caller.only.users is not None:
        raise Forbidden("the API key sees the sessions of one user at a time: say whose")
    if wanted.user_id is not None and not sees_user(caller, wanted.user_id):
        raise Forbidden("a session sees those of its own user" if own else "the API key may not see this user")
    return wanted


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


def check_document(caller: Caller, action: Action, document: str, access: Access | None) -> None:
    """
    Raise unless the caller may do ``action`` to the document: a session if that is among its ``access`` there.

    Raises:
        InvalidInput: If no document can have that name.
        DocumentNotFound: If the caller may not know of it, whether or not there is such a document.
        Forbidden: If its access does not reach so far.
    """
    check_document_name(document)
    wanted, is_session = RULES[action].access, caller.session is not None
    is_seen = access is not None if is_session else caller.only.sees_document(document)
    if not is_seen:
        raise DocumentNotFound("there is no such document")
    if is_session and wanted is not None and not reaches(access, wanted):
        raise Forbidden(f"the session may not {wanted} this document")


def key_access(caller: Caller) -> Access | None:
    """The most that a key may do in the documents that it sees."""
    return next((access for access, action in _DONE_WITH if permits(caller, action)), None)


_DONE_WITH: Final = (
    (Access.ADMIN, Action.DELETE_DOCUMENT),
    (Access.WRITE, Action.WRITE_DOCUMENT),
    (Access.READ, Action.READ_DOCUMENT),
)


# --- keys ---------------------------------------------------------------------------------------------


def check_key(caller: Caller, only: Narrowing) -> None:
    """
    Raise unless the caller may make, renew or end a key that is narrowed to ``only``: none that can do more than it.

    Raises:
        Forbidden: If not.
    """
    if not caller.only.includes(only):
        raise Forbidden("the API key may not change keys that can do more than itself")
