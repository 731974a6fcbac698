"""The REST interface as one ASGI application: every route and every middleware, in order."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from roomkey.api import about, openapi, rest
from roomkey.api.callers import Authenticator, SecurityConfig
from roomkey.api.idempotency import Idempotency
from roomkey.api.middleware import CorsMiddleware, ProblemMiddleware, SecurityHeadersMiddleware
from roomkey.api.operations import CONTRACTS, ApiSettings, Handler, Operation, Resource, Services
from roomkey.domain.policy import SessionPolicy
from roomkey.errors import NotFound
from roomkey.realtime.socket import Doorkeeper
from roomkey.security.apikeys import ApiKeys
from roomkey.security.tickets import Tickets
from roomkey.sessions.manager import SessionManager
from roomkey.transports import DEFAULTS, TransportSettings
from roomkey.transports.asgi import WebSocketEndpoint

ROUTES: Final[Mapping[str, Mapping[str, Handler]]] = {
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
    "/sessions/{id}/rotate": {"PUT": rest.rotate},
    "/users/{user_id:path}/sessions": {"GET": rest.list_user_sessions, "DELETE": rest.revoke_user},
    "/health": {"GET": about.health},
    "/health/live": {"GET": about.live},
    "/health/ready": {"GET": about.ready},
    "/openapi.json": {"GET": about.openapi_json},
    "/docs": {"GET": about.docs},
}
"""Tried from the top; ids of users may contain slashes, percent-encoded."""


def create_app(
    sessions: SessionManager,
    *,
    settings: ApiSettings | None = None,
    keys: ApiKeys | None = None,
    tickets: Tickets | None = None,
    doorkeeper: Doorkeeper | None = None,
    transport: TransportSettings = DEFAULTS,
    dev: bool = False,
    draining: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """
    The interface to ``sessions``. It may be mounted under any path of another ASGI application.

    Args:
        tickets: Where tickets are issued; the doorkeeper must redeem them from the same.
        doorkeeper: Answers WebSocket handshakes; without one there are no sockets here.
        transport: The limits of those sockets.
        dev: Lets everybody who presents no credential do everything.
        draining: Whether ``/health/ready`` should send requests elsewhere.
    """
    settings = settings or ApiSettings()
    security = SecurityConfig(allowed_origins=settings.allowed_origins, max_violations=settings.max_violations)
    services = Services(
        sessions=sessions,
        authenticator=Authenticator(sessions, keys=keys, security=security, dev=dev),
        tickets=Tickets() if tickets is None else tickets,
        idempotency=Idempotency(
            sessions.clock, window=settings.idempotency_window, max_bytes=settings.idempotency_max_bytes
        ),
        settings=settings,
        documents=openapi.documents(openapi.describe(contracts(), sessions.policy, dev=dev)),
        draining=draining,
    )
    routes: list[BaseRoute] = [Route(path, Resource(methods, services)) for path, methods in contracts().items()]
    if doorkeeper is not None:
        routes.append(WebSocketRoute("/{path:path}", WebSocketEndpoint(doorkeeper, transport)))
    app: ASGIApp = Router(routes, redirect_slashes=False, default=_nothing_here)
    # From the inside out. A limit on requests belongs between the problems and the routes: behind it nothing
    # has been spent on a caller, in front of it a refusal becomes a problem.
    app = ProblemMiddleware(app)
    app = CorsMiddleware(app, settings.allowed_origins)
    return SecurityHeadersMiddleware(app)


def contracts() -> dict[str, dict[str, Operation]]:
    """Every operation by its path and method."""
    return {
        path: {method: CONTRACTS[handler] for method, handler in methods.items()} for path, methods in ROUTES.items()
    }


def document() -> dict[str, Any]:
    """The OpenAPI document of a server with default settings."""
    return openapi.describe(contracts(), SessionPolicy())


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        raise NotFound("there is nothing here")
    await WebSocketClose()(scope, receive, send)
