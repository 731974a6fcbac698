"""The application is tested without a server, and without a disk: run `pytest`."""

import os
from collections.abc import AsyncGenerator

os.environ["ROOMKEY_STORAGE_URL"] = "memory"  # before the application is imported

import httpx
import pytest
from app import app, members, rooms
from starlette.testclient import TestClient

NOTE = "/rooms/documents/notes%2Fplan"


@pytest.fixture(autouse=True)
def _members() -> None:
    members["notes/plan"] = {"ada": "write", "grace": "write"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with rooms.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://notes") as client:
        yield client


@pytest.mark.anyio
async def test_who_was_removed_may_not_read_any_more(http: httpx.AsyncClient) -> None:
    await http.post("/api/login", json={"user": "grace", "password": "compiler"})
    grace = {"authorization": f"Bearer {(await http.get('/api/token')).json()['token']}"}
    before = await http.put(NOTE, json={"title": "Plan"}, headers=grace)

    await http.post("/api/login", json={"user": "ada", "password": "engine"})
    removed = await http.delete("/api/members/grace/notes/plan", params={"reason": "the plan is secret now"})
    after = await http.get(NOTE, headers=grace)

    assert (before.status_code, removed.status_code, after.status_code) == (201, 200, 404)


def test_a_page_is_told_why_it_was_removed() -> None:
    with TestClient(app) as browser:
        browser.post("/api/login", json={"user": "grace", "password": "compiler"})
        grace = {"authorization": f"Bearer {browser.get('/api/token').json()['token']}"}
        browser.post("/api/login", json={"user": "ada", "password": "engine"})

        with browser.websocket_connect("/rooms/ws", headers=grace) as socket:
            greeting = socket.receive_json()
            socket.send_json({"message_type": "subscribe", "payload": {"document": "notes/plan"}})
            subscribed = socket.receive_json()
            browser.delete("/api/members/grace/notes/plan", params={"reason": "the plan is secret now"})
            told = socket.receive_json()

    assert greeting["message_type"] == "session_connected"
    assert subscribed["payload"]["access"] == "write"
    assert told["message_type"] == "unsubscribed"
    assert told["payload"]["error"]["details"]["reason"] == "the plan is secret now"
