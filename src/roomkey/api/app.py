"""The REST interface as one ASGI application: every route and every middleware, in order."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from roomkey.api import documents, health, openapi, rest
from roomkey.api.authentication import Authenticator, SecurityConfig
from roomkey.api.idempotency import Idempotency
from roomkey.api.middleware import CommonHeadersMiddleware, CorsMiddleware, ProblemMiddleware
from roomkey.api.operations import CONTRACTS, ApiSettings, Handler, Operation, Resource, Services
from roomkey.api.pages import BUILT, BuiltPage
from roomkey.api.routing import SegmentRoute
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.documents import DocumentService
from roomkey.domain.policy import SessionPolicy
from roomkey.errors import NotFound
from roomkey.health import Health
from roomkey.ports import OneTime, OneTimeLimits
from roomkey.realtime.transport import HandshakeHandler
from roomkey.security.apikeys import ApiKeys
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.transports import DEFAULTS, TransportSettings
from roomkey.transports.asgi import WebSocketEndpoint

Routes = Mapping[str, Mapping[str, Handler]]

ROUTES: Final[Routes] = {
    "/sessions": {"GET": rest.list_sessions, "POST": rest.create_session},
    "/sessions/me": {"GET": rest.get_mine, "DELETE": rest.delete_mine},
    "/sessions/batch": {"POST": rest.batch},
    "/sessions/{id}": {"GET": rest.get_session, "DELETE": rest.delete_session},
    "/sessions/me/tickets": {"POST": rest.create_ticket},
    "/sessions/{id}/activate": {"PUT": rest.activate},
    "/sessions/{id}/suspend": {"PUT": rest.suspend},
    "/sessions/{id}/resume": {"PUT": rest.resume},
    "/sessions/{id}/expire": {"PUT": rest.expire},
    "/sessions/{id}/invalidate": {"PUT": rest.invalidate},
    "/sessions/{id}/extend": {"PUT": rest.extend},
    "/sessions/{id}/grants": {"PUT": rest.change_grants},
    "/sessions/{id}/rotate": {"PUT": rest.rotate},
    "/users/{user_id:path}/sessions": {"GET": rest.list_user_sessions, "DELETE": rest.revoke_user},
    "/health": {"GET": health.health},
    "/health/live": {"GET": health.live},
    "/health/ready": {"GET": health.ready},
    "/openapi.json": {"GET": health.openapi_json},
    "/docs": {"GET": health.docs},
}
"""Tried from the top; ids of users may contain slashes, percent-encoded."""

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
    "/documents/{name}/blame": {"GET": documents.blame_document},
    "/documents/{name}/export": {"GET": documents.export_document},
    "/documents/{name}/import": {"POST": documents.import_document},
}
"""Every parameter is one segment as it was sent: slashes in names are percent-encoded."""

EVERY_ROUTE: Final[Routes] = {**ROUTES, **DOCUMENT_ROUTES}


def create_app(  # noqa: PLR0913  # each is a part that may be left out
    sessions: SessionManager,
    *,
    documents: DocumentService | None = None,
    health: Health | None = None,
    settings: ApiSettings | None = None,
    keys: ApiKeys | None = None,
    tickets: Tickets | None = None,
    answers: OneTime | None = None,
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
        health: Speaks for everything that must work; without one only ``sessions`` are asked.
        tickets: Where tickets are issued; the handshake handler must redeem them from the same.
        answers: Where the answers are kept that idempotency keys stand for; without it, in the memory of this process.
        node: The name of this process, which every response says.
        handshake_handler: Answers WebSocket handshakes; without one there are no sockets here.
        transport: The limits of those sockets.
        dev: Lets everybody who presents no credential do everything, and serves the demo.
        draining: Whether ``/health/ready`` should send requests elsewhere.
    """
    settings = settings or ApiSettings()
    security = SecurityConfig(allowed_origins=settings.allowed_origins)
    described = contracts(ROUTES if documents is None else EVERY_ROUTE)
    services = Services(
        sessions=sessions,
        documents=documents,
        health=health or Health(sessions),
        authenticator=Authenticator(sessions, keys=keys, security=security, dev=dev),
        tickets=Tickets(MemoryOneTime(sessions.clock, TICKET_LIMITS)) if tickets is None else tickets,
        idempotency=Idempotency(
            answers or MemoryOneTime(sessions.clock, OneTimeLimits(bytes=settings.idempotency_max_bytes)),
            window=settings.idempotency_window,
        ),
        settings=settings,
        publication=openapi.publication(openapi.describe(described, sessions.policy, dev=dev)),
        draining=draining,
    )
    routes: list[BaseRoute] = [
        (SegmentRoute if path in DOCUMENT_ROUTES else Route)(path, Resource(methods, services))
        for path, methods in described.items()
    ]
    if dev:
        routes += BuiltPage("/demo", BUILT / "demo").routes()
    sockets: ASGIApp = (
        WebSocketClose() if handshake_handler is None else WebSocketEndpoint(handshake_handler, transport)
    )
    app: ASGIApp = Router(routes, redirect_slashes=False, default=_Elsewhere(sockets))
    # From the inside out. A limit on requests belongs between the problems and the routes: behind it nothing
    # has been spent on a caller, in front of it a refusal becomes a problem.
    app = ProblemMiddleware(app)
    if settings.allowed_origins:
        app = CorsMiddleware(app, settings.allowed_origins)
    return CommonHeadersMiddleware(app, node)


def contracts(routes: Routes = EVERY_ROUTE) -> dict[str, dict[str, Operation]]:
    """Every operation by its path and method."""
    return {
        path: {method: CONTRACTS[handler] for method, handler in methods.items()} for path, methods in routes.items()
    }


def document() -> dict[str, Any]:
    """The OpenAPI document of a server with default settings."""
    return openapi.describe(contracts(), SessionPolicy())


class _Elsewhere:
    """Where no route leads: nothing is there, but every socket belongs to the handshake handler, whatever its path."""

    def __init__(self, sockets: ASGIApp) -> None:
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise NotFound("there is nothing here")
        await self._sockets(scope, receive, send)
