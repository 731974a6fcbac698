"""
Roomkey inside a FastAPI application: rooms under ``/rooms``, and pages that only sessions may see.

With the package fastapi installed, run it from the checkout: ``uvicorn examples.fastapi_app:app``. ``/rooms`` has
everything that a server of its own would have at ``/``: ``/rooms/sessions``, ``/rooms/ws``, ``/rooms/docs``.

With ``--workers 2`` both workers use the same directory, ``data``: sessions, tickets, idempotency keys and documents
are those of all workers, and editors on ``/rooms/yjs`` see one another within a second, whichever worker they are on.
Rooms of ``/rooms/ws`` are of each worker alone: what is published there is heard by the clients of the same worker
only, and nobody can choose a worker behind one port. An application that uses ``/rooms/ws`` runs with one worker, or as
several processes with a port each, behind a proxy that sends all clients of a document to the same one.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel

import roomkey
from roomkey import Access, Grant, SecurityConfig, Session, SessionSecurityMiddleware, current_session

# Everything else comes from roomkey.toml and the environment.
rooms = roomkey.asgi(sessions={"lifetime": "8h"})

CurrentSession = Annotated[Session, Depends(current_session)]
"""The session of whoever is calling. Without a live one nobody comes as far as this."""

public = APIRouter()
private = APIRouter()


class SignIn(BaseModel):
    """What the login form sends; checking the password is the application's part."""

    name: str


@public.post("/login")
async def login(form: SignIn) -> dict[str, Any]:
    """Issue a session to somebody whose password was right."""
    issued = await rooms.sessions.create_session(form.name, grants=[Grant("notes/**", Access.WRITE)], activate=True)
    return {"token": issued.token}


@private.get("/profile")
async def profile(session: CurrentSession) -> dict[str, str]:
    """Say who is calling."""
    return {"user": session.user_id, "session": session.id}


@private.post("/notes/{name}")
async def note(name: str, text: str, session: CurrentSession) -> dict[str, int]:
    """Write a note as whoever is calling, with the rights of the session; editors that have it open see it at once."""
    written = await rooms.documents.write(f"notes/{name}", {"content": text}, session=session)
    return {"version": written.revision.version}


@private.post("/logout")
async def logout(session: CurrentSession) -> dict[str, bool]:
    """End the session, and with it every socket that it has open in a room."""
    await rooms.sessions.invalidate_session(session.id, reason="logout", actor=f"user:{session.user_id}")
    return {"goodbye": True}


members = FastAPI()
members.include_router(private)

# The lifespan opens the storage before the first request, and drains sockets at the end.
app = FastAPI(lifespan=rooms.lifespan)
app.include_router(public)
app.mount("/members", SessionSecurityMiddleware(members, rooms.sessions, SecurityConfig()))
app.mount("/rooms", rooms)
