"""Sessions as FastAPI and starsessions do them: an id in a cookie, the session in the store in memory."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false, reportUnusedFunction=false
# It runs in an environment of its own, where other things are installed.

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from serving import serve
from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware, get_session_id
from starsessions.session import regenerate_session_id

LIFETIME_SECONDS = 24 * 3600

application = FastAPI()
application.add_middleware(SessionAutoloadMiddleware)
application.add_middleware(SessionMiddleware, store=InMemoryStore(), lifetime=LIFETIME_SECONDS, cookie_https_only=False)


class Wanted(BaseModel):
    """For whom a session is made."""

    user_id: str


@application.post("/sessions", status_code=201)
async def create(wanted: Wanted, request: Request) -> dict[str, str]:
    """Make a session; its cookie is in the answer."""
    request.session["user_id"] = wanted.user_id
    return {"id": regenerate_session_id(request), "user_id": wanted.user_id}


@application.get("/sessions/me", response_model=None)
async def mine(request: Request) -> dict[str, str] | JSONResponse:
    """Show the session of the cookie."""
    user = request.session.get("user_id")
    if user is None:
        return JSONResponse({"code": "unauthorized"}, 401)
    return {"id": get_session_id(request) or "", "user_id": user}


@application.get("/health")
async def health() -> dict[str, str]:
    """Answer."""
    return {"status": "ok"}


if __name__ == "__main__":
    serve(application)
