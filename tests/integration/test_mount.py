"""Roomkey inside somebody else's application, which may or may not tell it when it starts and stops."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

import roomkey
from roomkey.config import Config
from roomkey.errors import ConfigurationError
from roomkey.mount import RoomkeyApp

PATIENCE_SECONDS = 5


def rooms_in(folder: Path) -> RoomkeyApp:
    return roomkey.asgi(storage={"url": f"lmdb://{folder}"}, server={"dev": True})


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host")


async def test_without_a_lifespan_it_starts_with_the_first_request(tmp_path: Path) -> None:
    host = Starlette()
    host.mount("/rooms", rooms_in(tmp_path))

    async with client_of(host) as client:
        answers = await asyncio.gather(*(client.post("/rooms/sessions", json={"user_id": "ada"}) for _ in range(5)))

    assert [answer.status_code for answer in answers] == [201] * 5
    assert answers[0].json()["websocket_url"] == "ws://host/rooms/ws"


async def test_sockets_are_opened_at_the_path_that_is_configured_below_the_mount() -> None:
    rooms = roomkey.asgi(storage={"url": "memory"}, server={"dev": True}, realtime={"path": "/live"})
    host = Starlette()
    host.mount("/rooms", rooms)

    async with client_of(host) as client:
        answer = await client.post("/rooms/sessions", json={"user_id": "ada"})

    assert answer.json()["websocket_url"] == "ws://host/rooms/live"


async def test_a_server_without_websockets_is_told_what_it_needs() -> None:
    host = Starlette()
    host.mount("/rooms", roomkey.asgi(storage={"url": "memory"}, server={"dev": True}))

    async with client_of(host) as client:
        answer = await client.get("/rooms/yjs/notes/plan", headers={"connection": "Upgrade", "upgrade": "websocket"})

    assert answer.status_code == 404
    assert "uvicorn[standard]" in answer.json()["detail"]


def test_what_started_by_itself_ends_with_its_loop_and_starts_again_in_another(tmp_path: Path) -> None:
    rooms = rooms_in(tmp_path)

    async def create() -> str:
        async with client_of(rooms) as client:
            answer = await client.post("/sessions", json={"user_id": "ada"})
            return answer.json()["session"]["id"]

    async def count() -> int:
        async with client_of(rooms) as client:
            answer = await client.get("/sessions")
            return len(answer.json()["sessions"])

    for _ in range(2):
        asyncio.run(create())

    assert asyncio.run(count()) == 2


async def test_a_storage_that_does_not_open_is_tried_again_by_the_next_request(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    rooms = rooms_in(folder)  # makes the folder, with the master key in it
    key = folder / "master.key"
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    folder.write_text("in the way")

    async with client_of(rooms) as client:
        with pytest.raises(roomkey.errors.Storage):
            await client.get("/health/live")
        folder.unlink()
        moved.rename(folder)
        answer = await client.get("/health/live")

    assert answer.status_code == 200
    assert key.exists()


async def test_its_lifespan_may_be_entered_more_than_once(tmp_path: Path) -> None:
    rooms = rooms_in(tmp_path)
    async with client_of(rooms) as client:
        async with rooms.lifespan():
            issued = await rooms.sessions.create_session("ada")
            first = await client.get("/health/ready")
        async with rooms.lifespan():
            again = await rooms.sessions.get_session(issued.id)
            second = await client.get("/health/ready")

    assert again is not None
    assert (first.status_code, second.status_code) == (200, 200)


async def test_alone_it_follows_the_lifespan_of_its_server(tmp_path: Path) -> None:
    rooms = rooms_in(tmp_path)
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE_SECONDS):
        group.create_task(rooms({"type": "lifespan"}, told.get, sent.put))
        told.put_nowait({"type": "lifespan.startup"})
        started = await sent.get()
        await rooms.sessions.create_session("ada")
        told.put_nowait({"type": "lifespan.shutdown"})
        stopped = await sent.get()

    assert started == {"type": "lifespan.startup.complete"}
    assert stopped == {"type": "lifespan.shutdown.complete"}


async def test_a_server_learns_why_it_cannot_start(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    rooms = rooms_in(folder)
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("in the way")
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    told.put_nowait({"type": "lifespan.startup"})

    with pytest.raises(roomkey.errors.Storage):
        await rooms({"type": "lifespan"}, told.get, sent.put)

    failed = sent.get_nowait()
    assert failed["type"] == "lifespan.startup.failed"
    assert str(folder) in failed["message"]


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"storrage": {}}, "did you mean storage"),
        ({"storage": {"uri": "memory"}}, "did you mean url"),
        ({"sessions": {"lifetime": "soon"}}, "not a duration"),
    ],
)
def test_what_cannot_be_is_said_at_once(sections: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        roomkey.asgi(**sections)


def test_a_whole_configuration_takes_no_sections() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        roomkey.asgi(Config(), storage={"url": "memory"})
