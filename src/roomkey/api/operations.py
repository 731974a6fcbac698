"""What the interface can do: each operation with its contract, and how a request becomes a call of it."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypedDict, TypeVar, cast

import msgspec
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from roomkey.access.service import AccessService
from roomkey.api.audited import Auditing
from roomkey.api.authentication import Authenticator, address_of
from roomkey.api.flaws import flaw_in_body
from roomkey.api.http_messages import Reply, check_json, empty_reply, headers_of, media_type, read_body
from roomkey.api.idempotency import Idempotency
from roomkey.api.limits import SPENT, Bodies, charge
from roomkey.api.schemas import parse_query
from roomkey.api.settings import ApiSettings
from roomkey.audit.log import AuditLog
from roomkey.audit.trail import AuditTrail
from roomkey.documents.interface import MAX_VALUE_DEPTH, DocumentService
from roomkey.domain.access import Access
from roomkey.domain.session import SessionId
from roomkey.errors import (
    Flaw,
    InvalidInput,
    KeyRefused,
    MalformedRequest,
    MethodNotAllowed,
    OutcomeUnknown,
    RoomkeyError,
    SchemaViolation,
    UnknownCursor,
)
from roomkey.health import Health
from roomkey.hooks.service import WebhookService
from roomkey.issuers.exchange import TokenExchange
from roomkey.keys import KeyRegistry
from roomkey.realtime.roll_call import RollCall
from roomkey.security.authorization import (
    RULES,
    SENSITIVE,
    STRANGER,
    Action,
    Rule,
    check,
    check_document,
    check_recent,
    key_access,
)
from roomkey.security.events import SecurityEvents
from roomkey.security.injection import Inspector
from roomkey.security.inspection import check_document_name, is_deeper
from roomkey.security.limits import RequestLimits, Spent
from roomkey.security.login import LoginSettings
from roomkey.security.tickets import Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.threats.watch import ThreatWatch
from roomkey.transports import BODY_DEADLINE

KEY_REFUSED: Final = "key_refused"
"""What events say of a key that opens nothing; to whoever presents it every wrong credential is the same."""

ACCESS_HEADER: Final = b"roomkey-access"
"""What the caller may do in the document that was asked for."""

LINGERING_SECONDS: Final = 0.1
"""If a body takes longer, its sender's rights are looked at again: what was taken away meanwhile must not be used."""


class Description(Struct, frozen=True):
    """What the interface promises, in JSON; ``tag`` is its strong entity tag."""

    content: bytes
    tag: bytes


class Publication(Struct, frozen=True):
    """What the interface says about itself: its two descriptions, and the page that shows the first."""

    openapi: Description
    asyncapi: Description
    page: bytes
    page_policy: str


class Login(Struct, frozen=True, kw_only=True):
    """What logging in needs: its settings, and the key that signs what pages send back."""

    settings: LoginSettings = LoginSettings()
    csrf_key: bytes

    def __repr__(self) -> str:
        return f"Login({self.settings!r})"


class Services(Struct, frozen=True, kw_only=True):
    """
    Everything that operations work with. Without ``documents``, ``connected``, ``threats``, ``audit`` or
    ``webhooks`` there are no operations on them.
    """

    sessions: SessionManager
    documents: DocumentService | None
    access: AccessService
    connected: Callable[[], RollCall] | None = None
    audit: AuditLog | None
    webhooks: WebhookService | None = None
    health: Health
    authenticator: Authenticator
    login: Login
    issuers: TokenExchange
    keys: KeyRegistry
    tickets: Tickets
    idempotency: Idempotency
    events: SecurityEvents
    auditing: Auditing | None
    limits: RequestLimits
    bodies: Bodies
    inspector: Inspector
    threats: ThreatWatch | None = None
    settings: ApiSettings
    publication: Publication
    draining: Callable[[], bool]


class Whereabouts(TypedDict):
    """The part of a security event that says who it was."""

    actor: str
    session: SessionId | None
    user: str | None
    address: str | None


class Request:
    """
    A request as operations see it: whoever sent it may do this, and what came with it fits the contract.

    ``media`` is the type of the body where the contract knows several.
    """

    __slots__ = ("access", "action", "body", "caller", "headers", "media", "query", "scope", "services")

    def __init__(self, action: Action, scope: Scope, services: Services, headers: Mapping[str, str]) -> None:
        self.action = action
        self.scope = scope
        self.services = services
        self.headers = headers
        self.caller = STRANGER
        self.access: Access | None = None
        """What the caller may do in the document that the request is about."""
        self.body: Any = None
        self.media = "application/json"
        self.query: Any = None

    @property
    def sessions(self) -> SessionManager:
        """The commands on sessions."""
        return self.services.sessions

    @property
    def documents(self) -> DocumentService:
        """The commands on documents."""
        documents = self.services.documents
        if documents is None:
            raise LookupError("this interface was made without documents")
        return documents

    @property
    def connected(self) -> RollCall:
        """Who is connected to documents."""
        connected = self.services.connected
        if connected is None:
            raise LookupError("this interface was made without sockets")
        return connected()

    @property
    def keys(self) -> KeyRegistry:
        """The commands on API keys."""
        return self.services.keys

    @property
    def session_id(self) -> SessionId | None:
        """The session that asks, if it is one."""
        return None if self.caller.session is None else self.caller.session.id

    @property
    def threats(self) -> ThreatWatch:
        """The watch over the sessions."""
        threats = self.services.threats
        if threats is None:
            raise LookupError("this interface was made without a watch over sessions")
        return threats

    @property
    def audit(self) -> AuditLog:
        """The audit log."""
        audit = self.services.audit
        if audit is None:
            raise LookupError("this interface was made without an audit log")
        return audit

    @property
    def webhooks(self) -> WebhookService:
        """The commands on webhooks."""
        webhooks = self.services.webhooks
        if webhooks is None:
            raise LookupError("this interface was made without webhooks")
        return webhooks

    @property
    def trail(self) -> AuditTrail:
        """What was recorded in the audit log."""
        auditing = self.services.auditing
        if auditing is None:
            raise LookupError("this interface was made without an audit trail")
        return auditing.trail

    @property
    def rule(self) -> Rule:
        """Who may do what was asked for."""
        return RULES[self.action]

    def path(self, name: str) -> str:
        """The part of the path that the route calls ``name``."""
        return self.scope["path_params"][name]

    def report(self, error: RoomkeyError, operation: "Operation") -> None:
        """Let those who watch know that the request was refused, if that may mean something to them."""
        code = KEY_REFUSED if isinstance(error, KeyRefused) else error.code
        self.services.events.refused(code, **self.whereabouts, place=operation.name)

    @property
    def whereabouts(self) -> Whereabouts:
        """Who sent it, and from where, as security events name them."""
        session = self.caller.session
        return {
            "actor": self.caller.actor,
            "session": self.session_id,
            "user": None if session is None else session.user_id,
            "address": address_of(self.scope),
        }

    @property
    def root(self) -> str:
        """The path under which the interface is mounted, without a slash at its end."""
        return cast("str", self.scope.get("root_path", "")).rstrip("/")

    @property
    def public_url(self) -> str | None:
        """Where clients reach the interface, if the settings say it; without a slash at its end."""
        public = self.services.settings.public_url
        if public is None:
            return None
        is_origin = "/" not in public.partition("://")[2]
        return public + self.root if is_origin else public.rstrip("/")


Handler = Callable[[Request], Awaitable[Reply]]


class Answer(Struct, frozen=True):
    """
    One way in which an operation succeeds: with ``body`` as JSON, or something else of a type in ``media``, or empty.

    With ``etag`` the version of a session comes with it, with ``revision`` that of a document and its lineage, with
    ``location`` the address of what was made.
    """

    description: str
    body: type[Struct] | None = None
    media: tuple[str, ...] = ()
    etag: bool = False
    revision: bool = False
    location: bool = False


Contents = Mapping[str, Any]
"""
What a body may be, by its media type: ``bytes`` as they come, ``str`` in UTF-8, or what JSON is decoded as.

Such bodies go into documents, and may be as large.
"""


class Operation(Struct, frozen=True, kw_only=True):
    """
    An operation and its contract, from which both the checks and the OpenAPI document are made.

    If its ``action`` is about one document, it is the one that the path calls ``name``.
    """

    handler: Handler
    name: str
    summary: str
    description: str
    tag: str
    action: Action
    answers: Mapping[int, Answer]
    errors: Sequence[type[RoomkeyError]]
    body: type[Struct] | None
    body_required: bool
    contents: Contents
    query: type[Struct] | None
    conditional: bool
    idempotent: bool
    decoders: Mapping[str, msgspec.json.Decoder[Any]]

    @property
    def rule(self) -> Rule:
        """Who may do it."""
        return RULES[self.action]


F = TypeVar("F", bound=Handler)

CONTRACTS: Final[dict[Handler, Operation]] = {}
"""The operations by their functions."""


_NO_CONTENTS: Final[Contents] = {}


def operation(  # noqa: PLR0913  # a contract has as many parts
    summary: str,
    *,
    tag: str,
    action: Action,
    answers: Mapping[int, Answer],
    errors: Sequence[type[RoomkeyError]] = (),
    body: type[Struct] | None = None,
    body_required: bool = True,
    contents: Contents = _NO_CONTENTS,
    query: type[Struct] | None = None,
    conditional: bool = False,
    idempotent: bool = False,
) -> Callable[[F], F]:
    """
    Declare the contract of a function; its docstring is the description that outsiders read.

    Args:
        action: What is done, by which it is known who may do it.
        errors: What it raises besides what the checks in front of it do.
        body: What the body is, in JSON.
        contents: What the body is instead, by media type.
        conditional: Whether it obeys If-Match.
        idempotent: Whether it obeys Idempotency-Key.
    """

    def declare(handler: F) -> F:
        CONTRACTS[handler] = Operation(
            handler=handler,
            name=handler.__name__,
            summary=summary,
            description=inspect.getdoc(handler) or summary,
            tag=tag,
            action=action,
            answers=answers,
            errors=errors,
            body=body,
            body_required=body_required,
            contents=contents,
            query=query,
            conditional=conditional,
            idempotent=idempotent,
            decoders={media: msgspec.json.Decoder(kind) for media, kind in _in_json(body, contents)},
        )
        return handler

    return declare


@contextmanager
def following(cursor: str | None) -> Generator[None]:
    """Where a ``cursor`` that is none of ours is a page that does not exist."""
    try:
        yield
    except InvalidInput:
        if cursor is None:
            raise
        raise UnknownCursor("the cursor was not issued for this list") from None


class Resource:
    """An ASGI application for one path: one operation for each method, 405 for every other."""

    def __init__(self, operations: Mapping[str, Operation], services: Services) -> None:
        self._services = services
        self._operations = dict(operations)
        if "GET" in self._operations:
            self._operations["HEAD"] = self._operations["GET"]
        self._allow = ", ".join(sorted({*self._operations, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise what is wrong with it."""
        method = scope["method"]
        chosen = self._operations.get(method)
        if chosen is not None:
            reply = await self._perform(chosen, scope, receive)
        elif method == "OPTIONS":
            reply = empty_reply(204, (b"allow", self._allow.encode()))
        else:
            raise MethodNotAllowed(self._allow)
        await reply.send(send, head=method == "HEAD")

    async def _perform(self, chosen: Operation, scope: Scope, receive: Receive) -> Reply:
        request, auditing = Request(chosen.action, scope, self._services, headers_of(scope)), self._services.auditing
        try:
            reply = await self._perform_for(request, chosen, receive)
        except RoomkeyError as error:
            request.report(error, chosen)
            if auditing is not None and isinstance(error, OutcomeUnknown):
                auditing.unknown(request, chosen)
            raise
        if request.access is not None:
            reply = Reply(reply.status, reply.body, [*reply.headers, (ACCESS_HEADER, request.access.value.encode())])
        return reply if auditing is None else await auditing.performed(request, chosen, reply)

    async def _perform_for(self, request: Request, chosen: Operation, receive: Receive) -> Reply:
        # Before the body: whoever may not do this has nothing to send.
        await self._admit(request, chosen)
        if chosen.query is not None:
            request.query = parse_query(request.scope["query_string"], chosen.query)
        if not chosen.contents and chosen.body is None:
            return await self._once(chosen, request, b"")
        now = asyncio.get_running_loop().time
        begun = now()
        if chosen.contents or chosen.body is None:
            raw = await self._read_content(chosen, request, receive)
        else:
            raw = await self._read_json(chosen, chosen.body, request, receive)
        if raw and now() - begun > LINGERING_SECONDS and not chosen.rule.is_public:
            request.caller = await self._services.authenticator.again(request.caller, request.headers, request.scope)
            await self._authorize(request, chosen)
        return await self._once(chosen, request, raw)

    async def _admit(self, request: Request, chosen: Operation) -> None:
        """Find out who is calling, and whether such a caller may do this."""
        if not chosen.rule.is_public:
            request.caller = await self._services.authenticator.caller(request.headers, request.scope)
            self._charge(request)
        await self._authorize(request, chosen)

    def _charge(self, request: Request) -> None:
        """Charge the request to its caller, unless somebody in front of us has."""
        already: Spent | None = request.scope.get(SPENT)
        if request.session_id is None or already is None or already.policy.name != "session":
            charge(request.scope, self._services.limits.of_caller(request.caller.actor, request.session_id))

    async def _authorize(self, request: Request, chosen: Operation) -> None:
        """Raise unless such a caller may do this, and to this document."""
        self._check(request, chosen)
        if chosen.rule.access is None:
            return
        session, name = request.caller.session, check_document_name(request.path("name"))
        if session is None:
            request.access = key_access(request.caller)
        else:
            request.access = await self._services.access.decisions.decide(session, name)
        check_document(request.caller, chosen.action, name, request.access)

    def _check(self, request: Request, chosen: Operation) -> None:
        """Raise unless such a caller may do this."""
        services, rule = self._services, chosen.rule
        if not rule.is_public:
            check(request.caller, chosen.action)
            if chosen.action in SENSITIVE:
                now = services.sessions.clock.now()
                check_recent(request.caller, chosen.action, now, services.login.settings.reauthentication_age)
        if services.auditing is not None:
            services.auditing.check(request, chosen)

    async def _read_json(self, chosen: Operation, body: type[Struct], request: Request, receive: Receive) -> bytes:
        headers, settings = request.headers, self._services.settings
        announced = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if announced:
            check_json(headers)
        raw = await self._body(request, receive, settings.max_body_bytes)
        if raw:
            if not announced:  # as in HTTP/2
                check_json(headers)
            request.body = _decode(chosen.decoders[request.media], raw)
        elif chosen.body_required:
            raise MalformedRequest("a body is needed")
        else:
            request.body = body()
        return raw

    async def _read_content(self, chosen: Operation, request: Request, receive: Receive) -> bytes:
        headers, settings = request.headers, self._services.settings
        request.media = media_type(headers, tuple(chosen.contents))
        raw = await self._body(request, receive, settings.max_document_bytes)
        kind = chosen.contents[request.media]
        if kind is bytes:
            request.body = raw
        elif kind is str:
            request.body = _text(raw)
        else:
            request.body = _decode(chosen.decoders[request.media], raw)
            _check_depth(request.body)
        return raw

    async def _body(self, request: Request, receive: Receive, limit: int) -> bytes:
        arrival = self._services.bodies.arrival(address_of(request.scope))
        return await read_body(receive, request.headers, limit, self._patience(request), arrival=arrival)

    def _patience(self, request: Request) -> timedelta | None:
        """How long a body may take; ``None`` if the server has a deadline of its own."""
        has_deadline = BODY_DEADLINE in request.scope.get("extensions", ())
        return None if has_deadline else self._services.settings.body_timeout

    async def _once(self, chosen: Operation, request: Request, raw: bytes) -> Reply:
        key = request.headers.get("idempotency-key") if chosen.idempotent else None
        if key is None:
            return await chosen.handler(request)
        session = request.caller.session
        owner = request.caller.actor if session is None else f"session:{session.id}"
        place = "\n".join((chosen.name, *request.scope["path_params"].values()))
        async with self._services.idempotency.attempt(owner, key, place.encode() + b"\n" + raw) as attempt:
            if attempt.earlier is not None:
                return attempt.earlier
            attempt.reply = await chosen.handler(request)
            return attempt.reply


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise SchemaViolation(flaw_in_body(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MalformedRequest("the body is not JSON (RFC 8259)") from None
    except RecursionError:
        raise MalformedRequest("the body is nested too deep") from None


def _in_json(body: type[Struct] | None, contents: Contents) -> Iterable[tuple[str, Any]]:
    if body is not None:
        yield "application/json", body
    yield from ((media, kind) for media, kind in contents.items() if kind not in (bytes, str))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedRequest("the body is not text in UTF-8") from None


def _check_depth(value: Any) -> None:
    if is_deeper(value, MAX_VALUE_DEPTH):
        raise SchemaViolation(Flaw(detail=f"nested more than {MAX_VALUE_DEPTH} deep", pointer="#"))
