"""Documents, presence and the current session for the application that Roomkey runs in."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
import httpx
import litestar
import litestar.di
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import roomkey
from roomkey import (
    Page,
    RoomkeyApp,
    SecurityConfig,
    Session,
    SessionSecurityMiddleware,
    TextEdit,
    current_session,
    errors,
    provide_current_session,
)
from roomkey.domain.session import SessionId
from tests.support.documents import a_site
from tests.support.editor import editing


@asynccontextmanager
async def at_work() -> AsyncGenerator[RoomkeyApp]:
    rooms = roomkey.asgi(storage={"url": "memory"}, server={"dev": True})
    async with rooms.lifespan():
        yield rooms


def grant(documents: str, access: str) -> dict[str, str]:
    return {"documents": documents, "access": access}


async def test_an_application_that_decides_is_asked_as_at_every_door_and_never_about_what_is_no_name() -> None:
    asked: list[str] = []

    def authorize(_session: Session, document: str) -> str | None:
        asked.append(document)
        return "read" if document == "plan" else None

    rooms = roomkey.asgi(authorize=authorize, storage={"url": "memory"}, server={"dev": True})
    async with rooms.lifespan():
        await rooms.documents.write("plan", {"content": "Plan"})
        ada = await rooms.sessions.create_session("ada", activate=True)

        assert (await rooms.documents.read("plan", session=ada)).content == {"content": "Plan"}
        with pytest.raises(errors.Forbidden):
            await rooms.documents.write("plan", {"content": ""}, session=ada)
        with pytest.raises(errors.DocumentNotFound):
            await rooms.documents.read("secret", session=ada)
        with pytest.raises(errors.InvalidInput):
            await rooms.documents.read("../secret", session=ada)
        assert {*asked} == {"plan", "secret"}


# --- documents ------------------------------------------------------------------------------------------


async def test_documents_are_written_edited_and_read_as_over_rest() -> None:
    async with at_work() as rooms:
        made = await rooms.documents.write("notes/today", {"content": "Hello", "tasks": ["write"]})
        edited = await rooms.documents.edit("notes/today", [TextEdit("content", 5, 0, ", world")])
        again = await rooms.documents.write("notes/today", "Hello, world!", root="content")
        same = await rooms.documents.write("notes/today", {"tasks": ["write"]})
        found = await rooms.documents.read("notes/today")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(rooms), base_url="http://rooms") as http:
            over_rest = (await http.get("/documents/notes%2Ftoday")).json()

        assert (made.created, made.changed, edited.created, same.changed) == (True, True, False, False)
        assert found.content == over_rest == {"content": "Hello, world!", "tasks": ["write"]}
        assert found.version == again.revision.version == same.revision.version > edited.revision.version


async def test_who_wrote_it_is_the_holder_of_the_session_or_who_the_application_says() -> None:
    async with at_work() as rooms:
        ada = await rooms.sessions.create_session("ada", activate=True)
        await rooms.documents.write("d", {"content": "one "}, session=ada)
        await rooms.documents.edit("d", [{"root": "content", "index": 4, "insert": "two"}], actor="key:importer")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(rooms), base_url="http://rooms") as http:
            ranges = (await http.get("/documents/d/blame")).json()["ranges"]

        assert [(each["actor"], each["session_id"]) for each in ranges] == [
            ("user:ada", ada.id),
            ("key:importer", None),
        ]


async def test_versions_are_listed_and_read() -> None:
    async with at_work() as rooms, httpx.AsyncClient(transport=httpx.ASGITransport(rooms), base_url="http://r") as http:
        await rooms.documents.write("d", {"content": "draft"})
        await http.post("/documents/d/versions", json={"label": "first draft"})
        await rooms.documents.write("d", {"content": "final"})

        page = await rooms.documents.versions("d", Page(limit=10))
        old = await rooms.documents.read("d", at=page.versions[0].number)

        assert [version.label for version in page.versions] == ["first draft"]
        assert old.content == {"content": "draft"}
        with pytest.raises(errors.DocumentNotFound):
            await rooms.documents.read("d", at=9)


async def test_a_session_may_do_what_its_grants_say_and_is_refused_as_over_rest() -> None:
    async with at_work() as rooms:
        documents, sessions = rooms.documents, rooms.sessions
        await documents.write("team/plan", {"content": "Plan"})
        reader = await sessions.create_session("ada", grants=[grant("team/*", "read")], activate=True)
        stranger = await sessions.create_session("bob", grants=[grant("else/*", "admin")], activate=True)
        pending = await sessions.create_session("cyd", grants=[grant("**", "admin")])

        assert (await documents.read("team/plan", session=reader)).content == {"content": "Plan"}
        assert (await documents.versions("team/plan", session=reader.session)).versions == []
        for refused in (
            documents.write("team/plan", {"content": ""}, session=reader),
            documents.edit("team/plan", [TextEdit("content", 0, 1)], session=reader),
        ):
            with pytest.raises(errors.Forbidden):
                await refused
        for unseen in (
            documents.read("team/plan", session=stranger),
            documents.write("team/plan", {"content": ""}, session=stranger),
            documents.versions("team/plan", session=stranger),
        ):
            with pytest.raises(errors.DocumentNotFound):
                await unseen
        with pytest.raises(errors.SessionPending):
            await documents.read("team/plan", session=pending)


async def test_a_session_that_was_kept_opens_nothing_after_it_has_ended_or_lost_its_rights() -> None:
    async with at_work() as rooms:
        await rooms.documents.write("d", {"content": "secret"})
        kept = await rooms.sessions.create_session("ada", grants=[grant("d", "write")], activate=True)

        await rooms.sessions.change_grants(kept.id, [grant("d", "read")])
        with pytest.raises(errors.Forbidden):
            await rooms.documents.write("d", {"content": ""}, session=kept)
        await rooms.sessions.suspend_session(kept.id)
        with pytest.raises(errors.Suspended):
            await rooms.documents.read("d", session=kept)
        await rooms.sessions.invalidate_session(kept.id)
        with pytest.raises(errors.Invalidated):
            await rooms.documents.read("d", session=kept)
        await rooms.sessions.delete_session(kept.id)
        with pytest.raises(errors.NotFound):
            await rooms.documents.read("d", session=kept)

        assert (await rooms.documents.read("d")).content == {"content": "secret"}


async def test_a_write_happens_at_the_version_that_it_was_meant_for() -> None:
    async with at_work() as rooms:
        documents = rooms.documents
        first = (await documents.write("d", {"content": "one"}, if_version=0)).revision.version
        with pytest.raises(errors.VersionMismatch):
            await documents.write("d", {"content": "two"}, if_version=0)
        await documents.edit("d", [TextEdit("content", 0, 3, "two")], if_version=first)
        with pytest.raises(errors.VersionMismatch):
            await documents.edit("d", [TextEdit("content", 0, 3, "three")], if_version=first)
        with pytest.raises(errors.VersionMismatch):
            await documents.write("other", {"content": ""}, if_version=7)

        assert (await documents.read("d")).content == {"content": "two"}


@pytest.mark.parametrize("name", ["", "../up", "a\x00b", 7, None])
async def test_names_that_no_document_can_have_are_refused_in_a_sentence(name: Any) -> None:
    async with at_work() as rooms:
        with pytest.raises(errors.InvalidInput):
            await rooms.documents.read(name)


async def test_what_cannot_be_written_is_refused_in_a_sentence_and_makes_nothing() -> None:
    async with at_work() as rooms:
        wrong: Any
        for wrong in (7, None, b"bytes", ["a"], {"content": 7}):
            with pytest.raises(errors.InvalidInput):
                await rooms.documents.write("d", wrong)
        for wrong in ("text", {"root": "content"}, [7], [TextEdit("content", 99, 1)], [{"root": "content"}]):
            with pytest.raises((errors.InvalidInput, errors.DocumentNotFound)):
                await rooms.documents.edit("d", wrong)
        wrong = "alice"
        with pytest.raises(errors.InvalidInput, match="session must be"):
            await rooms.documents.read("d", session=wrong)
        with pytest.raises(errors.DocumentNotFound):
            await rooms.documents.read("d")


# --- presence -------------------------------------------------------------------------------------------


async def test_the_application_sees_who_is_there_and_disconnects_them() -> None:
    async with a_site() as site:
        connected = site.node.connected
        id, token = await site.session("ada", ("plan", "read"))
        own = await site.node.sessions.get_session(SessionId(id))
        async with editing(site.address("/ws"), token) as client:
            await client.subscribe("plan")

            page = await connected.presence("plan", None, None)
            seen = await connected.presence("plan", Page(limit=1), own)
            with pytest.raises(errors.Forbidden):
                await connected.disconnect(None, "plan", None, own)
            with pytest.raises(errors.DocumentNotFound):
                await connected.presence("else", None, own)
            done = await connected.disconnect(SessionId(id), "plan", "enough", None)
            itself = await connected.disconnect(SessionId(id), None, None, own)

            assert [(each.id, each.access) for each in page.sessions] == [(id, "read")]
            assert seen == page
            assert (done.disconnected, itself.disconnected) == (1, 1)
            assert (await client.next("unsubscribed"))["error"]["details"] == {"reason": "enough"}


async def test_a_session_disconnects_no_session_of_another_user() -> None:
    async with at_work() as rooms:
        ada = await rooms.sessions.create_session("ada", activate=True)
        bob = await rooms.sessions.create_session("bob", activate=True)

        with pytest.raises(errors.NotFound):
            await rooms.disconnect(bob.id, session=ada)
        with pytest.raises(errors.InvalidInput):
            await rooms.disconnect()
        with pytest.raises(errors.InvalidInput):
            await rooms.disconnect(bob.id, reason="a\u202eb")
        with pytest.raises(errors.InvalidInput):
            await rooms.presence("d", Page(limit=0))

        assert (await rooms.disconnect(bob.id)).disconnected == 0
        assert (await rooms.presence("d")).sessions == []


@pytest.mark.parametrize("reason", ["a\u202eb", "", "x" * 801, 5])
async def test_what_cannot_be_told_as_a_reason_is_refused_in_a_sentence(reason: Any) -> None:
    async with at_work() as rooms:
        ada = await rooms.sessions.create_session("ada", activate=True)

        for refused in (
            rooms.disconnect(ada.id, reason=reason),
            rooms.access.recheck_document("plan", reason=reason),
            rooms.access.recheck_session(ada.id, reason=reason),
        ):
            with pytest.raises(errors.InvalidInput, match="reason"):
                await refused


# --- the current session --------------------------------------------------------------------------------


def a_starlette() -> ASGIApp:
    async def me(request: Request) -> Response:
        return PlainTextResponse(current_session(request).user_id)

    return Starlette(routes=[Route("/me", me)])


def a_fastapi() -> ASGIApp:
    app = fastapi.FastAPI()

    async def me(session: Annotated[Session, fastapi.Depends(current_session)]) -> Response:
        return PlainTextResponse(session.user_id)

    app.get("/me")(me)
    return app


def a_litestar() -> ASGIApp:
    @litestar.get("/me", media_type="text/plain")
    async def me(session: litestar.di.NamedDependency[Session]) -> str:
        return session.user_id

    app: Any = litestar.Litestar([me], dependencies={"session": provide_current_session()})
    return app


FRAMEWORKS = [a_starlette, a_fastapi, a_litestar]


@pytest.mark.parametrize("make", FRAMEWORKS)
async def test_the_current_session_is_a_dependency(make: Any) -> None:
    async with at_work() as rooms:
        ada = await rooms.sessions.create_session("ada", activate=True)
        guarded = SessionSecurityMiddleware(make(), rooms.sessions, SecurityConfig(require_session_validation=False))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://app") as http:
            known = await http.get("/me", headers={"authorization": f"Bearer {ada.token}"})
            unknown = await http.get("/me")

        assert (known.status_code, known.text) == (200, "ada")
        assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
        assert "a session is needed here" in unknown.text


def test_without_the_middleware_the_current_session_says_what_is_missing() -> None:
    scope: Any
    for scope in ({"type": "http"}, {"type": "http", "session": {"cookie": "of somebody else"}}):
        with pytest.raises(LookupError, match="SessionSecurityMiddleware"):
            current_session(HTTPConnection(scope))
