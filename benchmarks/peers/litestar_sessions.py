"""Sessions as Litestar does them on the side of the server: an id in a cookie, the session in the store in memory."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportUnknownParameterType=false
# It runs in an environment of its own, where other things are installed.

from typing import Any

from litestar import Litestar, Request, get, post
from litestar.exceptions import NotAuthorizedException
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.memory import MemoryStore
from msgspec import Struct
from serving import serve

LIFETIME_SECONDS = 24 * 3600


class Wanted(Struct):
    """For whom a session is made."""

    user_id: str


@post("/sessions")
async def create(data: Wanted, request: Request[Any, Any, Any]) -> dict[str, str]:
    """Make a session; its cookie is in the answer."""
    request.set_session({"user_id": data.user_id})
    return {"id": request.get_session_id() or "", "user_id": data.user_id}


@get("/sessions/me")
async def mine(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Show the session of the cookie."""
    user = request.session.get("user_id")
    if user is None:
        raise NotAuthorizedException
    return {"id": request.get_session_id() or "", "user_id": user}


@get("/health")
async def health() -> dict[str, str]:
    """Answer."""
    return {"status": "ok"}


application = Litestar(
    [create, mine, health],
    middleware=[ServerSideSessionConfig(max_age=LIFETIME_SECONDS, exclude="^/health$").middleware],
    stores={"sessions": MemoryStore()},
    logging_config=None,
)

if __name__ == "__main__":
    serve(application)
