"""Notes: an application with its own users and log-in. Roomkey, below /rooms, keeps its pages together, and apart."""

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Cookie, Depends, FastAPI, HTTPException, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

import roomkey

# --- what the application has already: users, and who may do what ---


@dataclass
class User:
    id: str
    name: str
    password: str  # yours is a hash in a database
    is_admin: bool = False


@dataclass
class Login:
    """A browser that has logged in, with its session of Roomkey."""

    user: User
    issued: roomkey.IssuedSession


users = {"ada": User("ada", "Ada", "engine", is_admin=True), "grace": User("grace", "Grace", "compiler")}
members = {"notes/plan": {"ada": "write", "grace": "write"}}
logins: dict[str, Login] = {}

# --- Roomkey ---


async def authorize(session: roomkey.Session, document: str) -> str | None:
    """What somebody may do in a document: "read", "write", "admin", or None for nothing."""
    return members.get(document, {}).get(session.user_id)


rooms = roomkey.asgi(
    authorize=authorize,
    # What every session is issued with. Of that it may do what `authorize` says.
    access={"default_grants": [{"documents": "notes/**", "access": "write"}]},
    sessions={"lifetime": "8h"},
)


async def issue(user: User) -> roomkey.IssuedSession:
    return await rooms.sessions.create_session(user.id, activate=True)


# --- the log-in ---

app = FastAPI(lifespan=rooms.lifespan)


class Credentials(BaseModel):
    user: str
    password: str


async def current_login(login: Annotated[str, Cookie()] = "") -> Login:
    if login not in logins:
        raise HTTPException(401, "Log in first.")
    return logins[login]


CurrentLogin = Annotated[Login, Depends(current_login)]


@app.post("/api/login")
async def log_in(credentials: Credentials, response: Response) -> dict[str, Any]:
    user = users.get(credentials.user)
    if user is None or not secrets.compare_digest(user.password.encode(), credentials.password.encode()):
        raise HTTPException(401, "Name or password are wrong.")
    key = secrets.token_urlsafe()
    logins[key] = Login(user, await issue(user))
    # With HTTPS also secure=True.
    response.set_cookie("login", key, httponly=True, samesite="lax")
    return await me(logins[key])


@app.get("/api/me")
async def me(login: CurrentLogin) -> dict[str, Any]:
    return {"id": login.user.id, "name": login.user.name, "isAdmin": login.user.is_admin}


@app.post("/api/logout")
async def log_out(login: CurrentLogin, response: Response) -> None:
    for key in [key for key, other in logins.items() if other is login]:
        del logins[key]
    response.delete_cookie("login")
    await rooms.sessions.invalidate_session(login.issued.id, reason="logged out")


@app.get("/api/token")
async def token(login: CurrentLogin) -> dict[str, str]:
    """The token for the page. The windows of a browser share a session; after it has expired there is a new one."""
    session = await rooms.sessions.get_session(login.issued.id)
    if session is None or session.state == "expired":
        login.issued = await issue(login.user)
    return {"token": login.issued.token}


# --- what administrators do ---


async def administrator(login: CurrentLogin) -> None:
    if not login.user.is_admin:
        raise HTTPException(403, "Only an administrator may do that.")


for_administrators = [Depends(administrator)]


class Role(BaseModel):
    may: Literal["read", "write"]


class Suspension(BaseModel):
    reason: str


@app.get("/api/members/{document:path}", dependencies=for_administrators)
async def list_members(document: str) -> list[dict[str, Any]]:
    here = {session.user_id for session in (await rooms.presence(document)).sessions}
    return [
        {
            "user": user,
            "may": may,
            "isHere": user in here,
            "isSuspended": await sessions_that_are("suspended", user) != [],
        }
        for user, may in members.get(document, {}).items()
    ]


@app.put("/api/members/{user}/{document:path}", dependencies=for_administrators)
async def change_role(user: str, document: str, role: Role) -> None:
    members.setdefault(document, {})[user] = role.may
    # Pages that are open obey before this returns.
    await rooms.access.recheck_document(document)


@app.delete("/api/members/{user}/{document:path}", dependencies=for_administrators)
async def remove_member(user: str, document: str, reason: str) -> None:
    members.get(document, {}).pop(user, None)
    # Whoever may do nothing there any more has to leave, and the reason reaches the page.
    await rooms.access.recheck_document(document, reason=reason)


@app.put("/api/suspensions/{user}", dependencies=for_administrators)
async def suspend(user: str, suspension: Suspension) -> None:
    for session in await sessions_that_are("active", user):
        await rooms.sessions.suspend_session(session.id, reason=suspension.reason)


@app.delete("/api/suspensions/{user}", dependencies=for_administrators)
async def resume(user: str) -> None:
    for session in await sessions_that_are("suspended", user):
        await rooms.sessions.resume_session(session.id)


async def sessions_that_are(state: str, user: str) -> list[roomkey.Session]:
    wanted = roomkey.SessionFilter(user_id=user, state=roomkey.SessionState(state))
    return [session async for session in rooms.sessions.iterate_sessions(wanted)]


# --- Roomkey's API and sockets, and the pages that Vite has built ---

app.mount("/rooms", rooms)
app.mount("/", StaticFiles(directory="dist", html=True, check_dir=False))
