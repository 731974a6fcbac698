"""The session of a request, for applications behind ``SessionSecurityMiddleware``."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from roomkey.domain.session import Session


def current_session(connection: HTTPConnection) -> Session:
    """
    The session of a request or socket, as ``SessionSecurityMiddleware`` has found it.

    A dependency of FastAPI, ``Depends(current_session)``; elsewhere it is called with a request or a WebSocket.

    Raises:
        HTTPException: 401, if there is none and the middleware lets such requests pass.
        LookupError: If no ``SessionSecurityMiddleware`` stands in front of the application.
    """
    return _session_in(connection.scope)


def provide_current_session() -> Any:
    """
    The same for Litestar: a dependency that its applications and handlers are given by name.

    Raises:
        ImportError: If Litestar is not installed.
    """
    from litestar.di import Provide  # noqa: PLC0415  # only applications of Litestar have it
    from litestar.types import Scope  # noqa: PLC0415

    def current(scope: Scope) -> Session:
        return _session_in(cast("Mapping[str, Any]", scope))

    return Provide(current, sync_to_thread=False)


def _session_in(scope: Mapping[str, Any]) -> Session:
    if "session" not in scope or not isinstance(scope["session"], Session | None):
        raise LookupError("the current session needs roomkey.SessionSecurityMiddleware in front of the application")
    if scope["session"] is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "a session is needed here", {"WWW-Authenticate": "Bearer"})
    return scope["session"]
