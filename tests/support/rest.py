"""The REST interface in a test: called in process without a server, or served on a free port."""

import json
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import uvicorn
import uvloop
from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roomkey.api.app import create_app
from roomkey.api.operations import ApiSettings, Login
from roomkey.api.security import Security
from roomkey.audit.log import AuditLog
from roomkey.audit.trail import AuditTrail
from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.service import DocumentService
from roomkey.domain.access import Grant, Role
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import IssuedSession
from roomkey.health import Health
from roomkey.hooks.outbox import Outbox
from roomkey.hooks.service import WebhookService
from roomkey.issuers.exchange import TokenExchange
from roomkey.issuers.settings import Issuer
from roomkey.keys import KeyRegistry
from roomkey.ports import Clock, SessionStorage
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.security.apikeys import ApiKey, ApiKeys, mint
from roomkey.security.attempts import Attempts
from roomkey.security.budgets import Budgets
from roomkey.security.certificates import EXTENSION, ClientCertificate, ClientCertificates, PeerCertificate
from roomkey.security.events import SecurityEvent, SecurityEvents
from roomkey.security.injection import Inspector
from roomkey.security.limits import LimitSettings, RequestLimits
from roomkey.security.login import LoginSettings
from roomkey.security.possession import PROOF_LIMITS, Possession
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from roomkey.threats.settings import ThreatSettings
from roomkey.threats.watch import ThreatWatch

CSRF_KEY = bytes(range(32))
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Pairs = Sequence[tuple[str, str]]


class Answer(Struct):
    """A response. ``headers`` keeps repeated ones; a missing one is an empty text."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)

    @property
    def told(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """All that it says of what was asked for: how much may still be asked for depends on what was before."""
        return self.status, [header for header in self.headers if header[0] != "ratelimit"], self.body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the problem that this is, after looking whether it is a proper one (RFC 9457)."""
        assert self.header("content-type") == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["type"] == f"urn:roomkey:problem:{self.json['code']}"
        assert self.json["title"]
        assert self.json["detail"]
        return self.json["code"]


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: Pairs = (),
    body: bytes | Sequence[bytes] = b"",
    scheme: str = "http",
    root: str = "",
    client: str = "198.51.100.1",
    certificate: PeerCertificate | None = None,
) -> Answer:
    """
    Send one request to ``app``: ``path`` is percent-encoded, as on the wire.

    A ``body`` in parts arrives in parts, without a content-length.
    """
    route, _, query = path.partition("?")
    parts = [body] if isinstance(body, bytes) else list(body)
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if isinstance(body, bytes) and body and not any(name == b"content-length" for name, _ in raw):
        raw.append((b"content-length", str(len(body)).encode()))
    if not any(name == b"host" for name, _ in raw):
        raw.append((b"host", b"rooms.example.com"))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": root + unquote(route),
        "raw_path": (root + route).encode(),
        "query_string": query.encode("latin-1"),
        "root_path": root,
        "headers": raw,
        "client": (client, 50_000),
        "server": ("127.0.0.1", 3000),
    }
    if certificate is not None:
        scope["extensions"] = {EXTENSION: certificate}
    incoming = iter(parts)
    left = len(parts)
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal left
        if not left:
            return {"type": "http.disconnect"}
        left -= 1
        return {"type": "http.request", "body": next(incoming), "more_body": left > 0}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers_sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    return Answer(sent[0]["status"], headers_sent, b"".join(message.get("body", b"") for message in sent[1:]))


class Rest:
    """An interface of its own, on a storage in memory and a clock that stands still, with a key for each role."""

    def __init__(
        self,
        *,
        policy: SessionPolicy | None = None,
        settings: ApiSettings | None = None,
        dev: bool = False,
        open_documents: OpenDocuments | None = None,
        login: LoginSettings | None = None,
        certificates: Sequence[ClientCertificate] = (),
        nonce_key: bytes | None = None,
        limits: LimitSettings | None = None,
        trail: Callable[[SessionStorage, Clock], tuple[AuditLog, AuditTrail]] | None = None,
        inspector: Inspector | None = None,
        threats: bool = False,
        issuers: Sequence[Issuer] = (),
    ) -> None:
        self.clock = ManualClock(START)
        self.events = SecurityEvents(self.clock)
        limits = limits or LimitSettings()
        self.storage = MemorySessionStorage()
        self.sessions = SessionManager(
            self.storage, policy=policy, clock=self.clock, attempts=Attempts(limits, now=self._seconds)
        )
        self.tickets = Tickets(MemoryOneTime(self.clock, TICKET_LIMITS))
        self.admin, admin_digest = mint()
        self.service, service_digest = mint()
        self.draining = False
        self.reported: list[SecurityEvent] = []
        self.events.listen(self.reported.append)
        self.open_documents = open_documents
        self.document_store = None if open_documents is None else open_documents.store
        self.log, self.trail = (None, None) if trail is None else trail(self.storage, self.clock)
        keys = ApiKeys([ApiKey("operator", Role.ADMIN, admin_digest), ApiKey("backend", Role.SERVICE, service_digest)])
        self.objects = MemoryObjectStore()
        self.keys = KeyRegistry(keys, self.objects, self.clock)
        self.sockets = SessionWebSocketHandler(
            self.sessions,
            clock=self.clock,
            tickets=self.tickets,
            counters=MemoryCounters(self.clock),
            open_documents=open_documents,
        )
        self.app = create_app(
            self.sessions,
            documents=None if open_documents is None else DocumentService(open_documents),
            sockets=lambda: self.sockets.roll_call,
            health=Health(self.sessions, documents=open_documents),
            settings=settings,
            security=Security(
                keys=self.keys,
                tickets=self.tickets,
                events=self.events,
                limits=RequestLimits(limits, Budgets(now=self._seconds)),
                issuers=TokenExchange(
                    issuers, used=MemoryOneTime(self.clock, PROOF_LIMITS), log=self.storage, clock=self.clock
                ),
                login=Login(settings=login or LoginSettings(), csrf_key=CSRF_KEY),
                possession=Possession(MemoryOneTime(self.clock, PROOF_LIMITS), self.clock, nonce_key=nonce_key),
                certificates=ClientCertificates(certificates),
                threats=self._watch() if threats else None,
                inspector=inspector,
            ),
            audit=self.log,
            trail=self.trail,
            hooks=WebhookService((), Outbox(self.objects, self.clock, node="", endpoints=(), bound=1), self.objects),
            dev=dev,
            draining=lambda: self.draining,
        )

    def _watch(self) -> ThreatWatch:
        return ThreatWatch(
            self.objects,
            self.sessions,
            settings=ThreatSettings(),
            clock=self.clock,
            events=self.events,
            key=CSRF_KEY,
        )

    def _seconds(self) -> float:
        return self.clock.now().timestamp()

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json: Any = None,
        headers: Mapping[str, str] | Pairs = (),
        body: bytes | Sequence[bytes] = b"",
        scheme: str = "http",
        root: str = "",
        certificate: PeerCertificate | None = None,
        client: str = "198.51.100.1",
    ) -> Answer:
        """Send a request with ``token`` as its bearer token and ``json`` as its body."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if token is not None:
            pairs.append(("authorization", f"Bearer {token}"))
        if json is not None:
            body = _encode(json)
        if body and not any(name.lower() == "content-type" for name, _ in pairs):
            pairs.append(("content-type", "application/json"))
        return await call(
            self.app,
            method,
            path,
            headers=pairs,
            body=body,
            scheme=scheme,
            root=root,
            client=client,
            certificate=certificate,
        )

    async def session(self, user_id: str = "alice", *grants: Grant, active: bool = True) -> IssuedSession:
        """A session of ``user_id`` and its token."""
        issued = await self.sessions.create_session(user_id, grants=grants or None)
        if active:
            await self.sessions.activate_session(issued.id)
        return issued


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def a_library(clock: Clock | None = None) -> OpenDocuments:
    """Documents in memory, not yet at work."""
    return OpenDocuments(MemoryDocumentStore(), clock=clock or ManualClock(START))


@asynccontextmanager
async def documents_at_work(**settings: Any) -> AsyncGenerator[Rest]:
    """An interface with documents in memory."""
    open_documents = a_library()
    async with open_documents.store, open_documents.at_work():
        yield Rest(open_documents=open_documents, **settings)


@contextmanager
def served(app: ASGIApp, open_documents: OpenDocuments | None = None, *, lifespan: bool = False) -> Generator[str]:
    """
    The address of a server that serves ``app`` in a thread, documents at work, until the block is left.

    With ``lifespan`` the application is told that it starts and stops.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    if open_documents is not None:
        app, lifespan = _at_work(app, open_documents), True
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical" if lifespan else "warning", lifespan="on" if lifespan else "off")
    )
    thread = threading.Thread(target=uvloop.run, args=(server.serve(sockets=[listener]),), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def _at_work(app: ASGIApp, open_documents: OpenDocuments) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        async with open_documents.store, open_documents.at_work():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return serve
