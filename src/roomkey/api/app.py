"""The REST interface as one ASGI application: every route and every middleware, in order."""

from collections.abc import Callable, Mapping, Sequence
from os import urandom
from typing import Any, Final

from msgspec.structs import replace
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from roomkey.access.groups import Groups
from roomkey.access.rechecks import Rechecks
from roomkey.access.service import AccessService
from roomkey.api import (
    asyncapi,
    audit_log,
    audit_trail,
    connected,
    documents,
    exchange,
    groups,
    health,
    keys,
    openapi,
    rest,
    rights,
    webhooks,
)
from roomkey.api import login as logging_in
from roomkey.api import threats as risks
from roomkey.api.audited import Auditing
from roomkey.api.authentication import Authenticator, SecurityConfig
from roomkey.api.idempotency import Idempotency
from roomkey.api.limits import Bodies, LimitMiddleware
from roomkey.api.middleware import CommonHeadersMiddleware, CorsMiddleware, ProblemMiddleware
from roomkey.api.operations import CONTRACTS, ApiSettings, Handler, Login, Operation, Resource, Services
from roomkey.api.pages import BUILT, BuiltPage
from roomkey.api.routing import FixedPaths, SegmentRoute
from roomkey.api.security import Security
from roomkey.audit.log import AuditLog
from roomkey.audit.trail import AuditTrail
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.documents.interface import DocumentService
from roomkey.domain.policy import SessionPolicy
from roomkey.errors import NotFound
from roomkey.health import Health
from roomkey.hooks.service import WebhookService
from roomkey.issuers.exchange import TokenExchange
from roomkey.keys import KeyRegistry
from roomkey.ports import OneTime, OneTimeLimits
from roomkey.realtime.roll_call import RollCall
from roomkey.realtime.transport import HandshakeHandler
from roomkey.security.apikeys import ApiKeys
from roomkey.security.authorization import Action
from roomkey.security.budgets import Budgets
from roomkey.security.events import SecurityEvents
from roomkey.security.injection import InspectionSettings, Inspector
from roomkey.security.limits import LimitSettings, RequestLimits
from roomkey.security.possession import PROOF_LIMITS, Possession
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.transports import DEFAULTS, TransportSettings
from roomkey.transports.asgi import WebSocketEndpoint

Routes = Mapping[str, Mapping[str, Handler]]

ROUTES: Final[Routes] = {
    "/login": {"POST": logging_in.login},
    "/logout": {"POST": logging_in.logout},
    "/sessions": {"GET": rest.list_sessions, "POST": rest.create_session},
    "/sessions/exchange": {"POST": exchange.exchange_token},
    "/sessions/me": {"GET": rest.get_mine, "DELETE": rest.delete_mine},
    "/sessions/batch": {"POST": rest.batch},
    "/sessions/{id}": {"GET": rest.get_session, "DELETE": rest.delete_session},
    "/sessions/me/tickets": {"POST": rest.create_ticket},
    "/sessions/{id}/events": {"GET": rest.list_events},
    "/sessions/{id}/activate": {"PUT": rest.activate},
    "/sessions/{id}/suspend": {"PUT": rest.suspend},
    "/sessions/{id}/resume": {"PUT": rest.resume},
    "/sessions/{id}/expire": {"PUT": rest.expire},
    "/sessions/{id}/invalidate": {"PUT": rest.invalidate},
    "/sessions/{id}/extend": {"PUT": rest.extend},
    "/sessions/{id}/grants": {"PUT": rest.change_grants},
    "/sessions/{id}/recheck": {"PUT": rights.recheck_session},
    "/sessions/{id}/rotate": {"PUT": rest.rotate},
    "/sessions/{id}/reauthenticate": {"PUT": logging_in.reauthenticate},
    "/users/{user_id:path}/sessions": {"GET": rest.list_user_sessions, "DELETE": rest.revoke_user},
    "/groups": {"GET": groups.list_groups},
    "/groups/{group}": {"GET": groups.get_group, "PUT": groups.put_group, "DELETE": groups.delete_group},
    "/keys": {"GET": keys.list_keys, "POST": keys.create_key},
    "/keys/{key_name}": {"GET": keys.get_key, "DELETE": keys.revoke_key},
    "/keys/{key_name}/rotate": {"POST": keys.rotate_key},
    "/health": {"GET": health.health},
    "/health/live": {"GET": health.live},
    "/health/ready": {"GET": health.ready},
    "/openapi.json": {"GET": health.openapi_json},
    "/asyncapi.json": {"GET": health.asyncapi_json},
    "/docs": {"GET": health.docs},
}
"""
Those without parameters are found first, the others tried from the top; ids of users may contain slashes,
percent-encoded.
"""

DOCUMENT_ROUTES: Final[Routes] = {
    "/documents": {"GET": documents.list_documents},
    "/documents/{name}": {
        "GET": documents.get_document,
        "PUT": documents.put_document,
        "PATCH": documents.patch_document,
        "DELETE": documents.delete_document,
    },
    "/documents/{name}/versions": {"GET": documents.list_versions, "POST": documents.keep_version},
    "/documents/{name}/versions/{number}": {"GET": documents.get_version},
    "/documents/{name}/versions/{number}/diff": {"GET": documents.get_difference},
    "/documents/{name}/versions/{number}/restore": {"POST": documents.restore_version},
    "/documents/{name}/access": {"GET": rights.explain_access},
    "/documents/{name}/recheck": {"PUT": rights.recheck_document},
    "/documents/{name}/blame": {"GET": documents.blame_document},
    "/documents/{name}/export": {"GET": documents.export_document},
    "/documents/{name}/import": {"POST": documents.import_document},
}
"""Every parameter is one segment as it was sent: slashes in names are percent-encoded."""

CONNECTED_ROUTES: Final[Routes] = {
    "/documents/{name}/sessions": {"GET": connected.list_connected, "DELETE": connected.disconnect_everybody},
    "/documents/{name}/sessions/{id}": {"DELETE": connected.disconnect_from_document},
    "/sessions/{id}/connections": {"DELETE": connected.disconnect_session},
}

THREAT_ROUTES: Final[Routes] = {
    "/sessions/{id}/risk": {"GET": risks.get_risk},
    "/users/{user_id:path}/patterns": {"DELETE": risks.forget_patterns},
}

AUDIT_ROUTES: Final[Routes] = {
    "/audit/log/checkpoint": {"GET": audit_log.get_checkpoint},
    "/audit/log/tile/entries/{file:path}": {"GET": audit_log.get_entries},
    "/audit/log/tile/{file:path}": {"GET": audit_log.get_tile},
    "/audit/keys": {"GET": audit_log.get_keys},
    "/audit/{index}/receipt": {"GET": audit_log.get_receipt},
}

TRAIL_ROUTES: Final[Routes] = {
    "/audit": {"GET": audit_trail.search_audit},
    "/audit/verify": {"GET": audit_trail.verify_audit},
    "/audit/{index}": {"GET": audit_trail.get_audit_entry},
}

WEBHOOK_ROUTES: Final[Routes] = {
    "/webhooks": {"GET": webhooks.list_webhooks},
    "/webhooks/{webhook}": {"GET": webhooks.get_webhook},
    "/webhooks/{webhook}/deliveries": {"GET": webhooks.list_deliveries},
    "/webhooks/{webhook}/deliveries/{delivery}/replay": {"POST": webhooks.replay_delivery},
    "/webhooks/{webhook}/enable": {"PUT": webhooks.enable_webhook},
}

EVERY_ROUTE: Final[Routes] = {
    **ROUTES,
    **THREAT_ROUTES,
    **DOCUMENT_ROUTES,
    **CONNECTED_ROUTES,
    **AUDIT_ROUTES,
    **TRAIL_ROUTES,
    **WEBHOOK_ROUTES,
}


def _grants_alone(sessions: SessionManager) -> AccessService:
    """Access by grants, with the groups of this process."""

    async def nobody(_: object) -> None: ...

    objects = MemoryObjectStore()
    return AccessService(sessions, Groups(objects, Rechecks(objects, nobody, node=""), sessions.clock))


def create_app(  # noqa: PLR0913  # each is a part that may be left out
    sessions: SessionManager,
    *,
    documents: DocumentService | None = None,
    sockets: Callable[[], RollCall] | None = None,
    access: AccessService | None = None,
    audit: AuditLog | None = None,
    public_tree: bool = False,
    health: Health | None = None,
    settings: ApiSettings | None = None,
    security: Security | None = None,
    answers: OneTime | None = None,
    trail: AuditTrail | None = None,
    hooks: WebhookService | None = None,
    node: str | None = None,
    handshake_handler: HandshakeHandler | None = None,
    transport: TransportSettings = DEFAULTS,
    dev: bool = False,
    draining: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """
    The interface to ``sessions``. It may be mounted under any path of another ASGI application.

    Args:
        documents: The commands on documents; without them there are no documents here.
        sockets: Knows who is connected by which socket, whenever it is called; without it nobody is asked for that.
        access: Decides what sessions may do in documents; without it their grants alone do.
        audit: The audit log; without one there is none here.
        public_tree: Whether anybody may read the hashes and the head of the audit log.
        health: Speaks for everything that must work; without one only ``sessions`` are asked.
        security: Who is calling and what they may ask for, see there.
        answers: Where the answers are kept that idempotency keys stand for; without it, in the memory of this process.
        trail: What is recorded in the audit log; without it nothing is.
        hooks: The commands on webhooks; without them there are no webhooks here.
        node: The name of this process, which every response says.
        handshake_handler: Answers WebSocket handshakes; without one there are no sockets here.
        transport: The limits of those sockets.
        dev: Lets everybody who presents no credential do everything, and serves the demo.
        draining: Whether ``/health/ready`` should send requests elsewhere.
    """
    settings, given = settings or ApiSettings(), security or Security()
    login = given.login or Login(csrf_key=urandom(32))
    keys = given.keys or KeyRegistry(ApiKeys(), MemoryObjectStore(), sessions.clock)
    limits = given.limits or RequestLimits(LimitSettings(), Budgets())
    proofs = MemoryOneTime(sessions.clock, PROOF_LIMITS)
    parts: Sequence[tuple[object, Routes]] = (
        (documents, DOCUMENT_ROUTES),
        (sockets, CONNECTED_ROUTES),
        (given.threats, THREAT_ROUTES),
        (audit, AUDIT_ROUTES),
        (trail if audit is not None else None, TRAIL_ROUTES),
        (hooks, WEBHOOK_ROUTES),
    )
    routed = {path: methods for part, routes in parts if part is not None for path, methods in routes.items()}
    described = contracts({**ROUTES, **routed}, public_tree=public_tree)
    services = Services(
        sessions=sessions,
        documents=documents,
        connected=sockets,
        access=access or _grants_alone(sessions),
        audit=audit,
        webhooks=hooks,
        health=health or Health(sessions),
        authenticator=Authenticator(
            sessions,
            keys=keys,
            security=SecurityConfig(allowed_origins=settings.allowed_origins),
            dev=dev,
            csrf_key=login.csrf_key,
            possession=given.possession or Possession(proofs, sessions.clock),
            certificates=given.certificates,
            public_url=settings.public_url,
        ),
        keys=keys,
        login=login,
        issuers=given.issuers or TokenExchange((), used=proofs, log=sessions.storage, clock=sessions.clock),
        tickets=given.tickets or Tickets(MemoryOneTime(sessions.clock, TICKET_LIMITS)),
        idempotency=Idempotency(
            answers or MemoryOneTime(sessions.clock, OneTimeLimits(bytes=settings.idempotency_max_bytes)),
            window=settings.idempotency_window,
        ),
        events=given.events or SecurityEvents(sessions.clock),
        limits=limits,
        bodies=Bodies(limits.settings),
        threats=given.threats,
        auditing=None if trail is None else Auditing(trail),
        inspector=given.inspector or Inspector(InspectionSettings(), None),
        settings=settings,
        publication=openapi.publication(
            openapi.describe(described, sessions.policy, dev=dev), asyncapi.describe(public_url=settings.public_url)
        ),
        draining=draining,
    )
    resources = {path: Resource(methods, services) for path, methods in described.items()}
    fixed: Mapping[str, ASGIApp] = {path: resource for path, resource in resources.items() if "{" not in path}
    routes: list[BaseRoute] = [
        (SegmentRoute if path.startswith("/documents") else Route)(path, resource)
        for path, resource in resources.items()
        if path not in fixed
    ]
    if dev:
        routes += BuiltPage("/demo", BUILT / "demo").routes()
    endpoint: ASGIApp = (
        WebSocketClose() if handshake_handler is None else WebSocketEndpoint(handshake_handler, transport)
    )
    app: ASGIApp = FixedPaths(fixed, Router(routes, redirect_slashes=False, default=_Elsewhere(endpoint)))
    # From the inside out. Before the limit on requests nothing has been spent on a caller, and behind it a refusal
    # becomes a problem.
    app = ProblemMiddleware(LimitMiddleware(app, limits, services.events))
    if settings.allowed_origins:
        app = CorsMiddleware(app, settings.allowed_origins)
    return CommonHeadersMiddleware(app, node)


def contracts(routes: Routes = EVERY_ROUTE, *, public_tree: bool = False) -> dict[str, dict[str, Operation]]:
    """Every operation by its path and method."""
    return {
        path: {method: _contract(handler, public_tree=public_tree) for method, handler in methods.items()}
        for path, methods in routes.items()
    }


def _contract(handler: Handler, *, public_tree: bool) -> Operation:
    contract = CONTRACTS[handler]
    if public_tree and contract.action is Action.READ_AUDIT_TREE:
        return replace(contract, action=Action.SEE_PUBLIC)
    return contract


def document() -> dict[str, Any]:
    """The OpenAPI document of a server with default settings."""
    return {"servers": [{"url": openapi.SERVER}], **openapi.describe(contracts(), SessionPolicy())}


_NO_SOCKETS: Final = (
    "this asks for a WebSocket, and came as a request: the server that runs the application knows no WebSockets"
    " (uvicorn needs the package websockets: pip install 'uvicorn[standard]')"
)


class _Elsewhere:
    """Where no route leads: nothing is there, but every socket belongs to the handshake handler, whatever its path."""

    def __init__(self, sockets: ASGIApp) -> None:
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if Headers(scope=scope).get("upgrade", "").lower() == "websocket":
                raise NotFound(_NO_SOCKETS)
            raise NotFound("there is nothing here")
        await self._sockets(scope, receive, send)
