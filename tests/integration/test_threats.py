"""Violations and changes of clients against running servers, over real sockets of all three protocols."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from roomkey.realtime.protocol import yjs_messages as yjs
from tests.support.server import Server, lasting_server
from tests.support.threats import CHROME, FIREFOX

PATIENCE_SECONDS: Final = 20
PATHS: Final = {"json": "/ws", "yjs": "/yjs/plan", "hocuspocus": "/hocuspocus"}

HOME: Final = {"x-forwarded-for": "203.0.113.7", "user-agent": FIREFOX}
NEXT_DOOR: Final = {"x-forwarded-for": "203.0.113.99", "user-agent": FIREFOX}
AWAY: Final = {"x-forwarded-for": "192.0.2.66", "user-agent": FIREFOX}
OTHER_BROWSER: Final = {"x-forwarded-for": "203.0.113.7", "user-agent": CHROME}


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    options = ("realtime.malformed_patience=1", "server.trusted_proxies=127.0.0.1", 'threats.weights={"malformed":2}')
    with lasting_server(arguments=[part for option in options for part in ("--set", option)]) as server:
        yield server


@pytest.fixture(scope="module")
def strict() -> Generator[Server]:
    options = (
        "server.trusted_proxies=127.0.0.1",
        "threats.on_network_change=challenge",
        "threats.on_program_change=challenge",
    )
    with lasting_server(arguments=[part for option in options for part in ("--set", option)]) as server:
        yield server


class Visitor:
    """Somebody with a session, and an operator beside them."""

    def __init__(self, server: Server, http: httpx.AsyncClient, id: str, token: str) -> None:
        self.server = server
        self.http = http
        self.id = id
        self.token = token

    def socket(self, path: str, headers: Mapping[str, str] = HOME, *, query: str = "") -> connect:
        given = dict(headers) if query else {**headers, "authorization": f"Bearer {self.token}"}
        agent = given.pop("user-agent")
        url = self.server.url.replace("http", "ws", 1) + path + query
        return connect(url, additional_headers=given, user_agent_header=agent, proxy=None)

    async def risk(self) -> dict[str, Any]:
        answer = await self.http.get(f"/sessions/{self.id}/risk")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def state(self) -> str:
        return (await self.http.get(f"/sessions/{self.id}")).json()["state"]

    async def do(self, command: str) -> dict[str, Any]:
        answer = await self.http.put(f"/sessions/{self.id}/{command}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def recorded(self, violations: int) -> dict[str, Any]:
        """The risk, once so many violations are in the history and in the ledger."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.risk())["violations_recorded"] < violations:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.05)
        return await self.risk()

    async def me(self, headers: Mapping[str, str]) -> httpx.Response:
        return await self.http.get("/sessions/me", headers={**headers, "authorization": f"Bearer {self.token}"})


@asynccontextmanager
async def visitor(server: Server, user: str) -> AsyncGenerator[Visitor]:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS) as http:
        made = await http.post("/sessions", json={"user_id": user, "activate": True}, headers=HOME)
        body = made.json()
        yield Visitor(server, http, body["session"]["id"], body["token"])


async def ended(socket: ClientConnection) -> Close:
    """How the socket is closed, whatever is said before."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                await socket.recv()
    assert socket.protocol.close_rcvd is not None
    return socket.protocol.close_rcvd


async def misbehave(protocol: str, socket: ClientConnection) -> int:
    """Say what no client says until that closes the socket; returns the code."""
    with suppress(ConnectionClosed):
        for _ in range(3):
            await socket.send("{" if protocol == "json" else b"\xff\xff\xff")
    return (await ended(socket)).code


async def warning(protocol: str, socket: ClientConnection) -> Any:
    """The warning that stands among the first messages; Hocuspocus opens a document first."""
    if protocol == "hocuspocus":
        await socket.send(yjs.address("plan") + bytes((2, 0)) + yjs.text(""))
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for message in socket:
            if isinstance(message, str):
                payload = json.loads(message)["payload"]
                if payload.get("code") == "VIOLATION":
                    return payload["details"]["violations"]
            elif message == yjs.denied("violations") or b"roomkey.violation" in message:
                return "told"
    return None


@pytest.mark.parametrize("protocol", PATHS)
async def test_violations_warn_suspend_and_end_a_session_however_often_it_reconnects(
    server: Server, protocol: str
) -> None:
    async with visitor(server, f"user of {protocol}") as user:
        for number in (1, 2):
            async with user.socket(PATHS[protocol]) as socket:
                assert await misbehave(protocol, socket) == 4400
            await user.recorded(number)
        risk = await user.risk()
        async with user.socket(PATHS[protocol]) as socket:
            warned = await warning(protocol, socket)
        async with user.socket(PATHS[protocol]) as socket:
            await misbehave(protocol, socket)
        await user.recorded(3)
        suspended = await user.state()
        with pytest.raises(InvalidStatus) as refused:
            async with user.socket(PATHS[protocol]):
                pass
        for number in (4, 5):
            await user.do("resume")
            async with user.socket(PATHS[protocol]) as socket:
                await misbehave(protocol, socket)
            await user.recorded(number)

        assert (risk["verdict"], risk["level"], risk["causes"]) == ("flag", 4.0, ["violations"])
        assert warned == (4.0 if protocol == "json" else "told")
        assert suspended == "suspended"
        assert refused.value.response.status_code == 401
        assert await user.state() == "invalidated"


async def test_who_moves_goes_on_and_the_risk_says_from_where(server: Server) -> None:
    async with visitor(server, "traveller") as user:
        async with user.socket("/ws", AWAY) as socket:
            await socket.recv()
        answers = [(await user.me(headers)).status_code for headers in (HOME, NEXT_DOOR, AWAY)]
        risk = await user.risk()

        assert answers == [200, 200, 200]
        assert [(each["signal"], each["value"]) for each in risk["signals"]] == [
            ("network", "192.0.2.0/24 instead of 203.0.113.0/24")
        ]
        assert risk["verdict"] == "allow"


@pytest.mark.parametrize("thief", [AWAY, OTHER_BROWSER])
@pytest.mark.parametrize("way", ["rest", *PATHS, "ticket"])
async def test_a_stolen_token_is_challenged_on_every_way_in_and_open_sockets_are_told(
    strict: Server, way: str, thief: Mapping[str, str]
) -> None:
    async with visitor(strict, f"victim by {way}") as user, user.socket("/ws") as mine:
        await mine.recv()
        assert (await user.me(NEXT_DOOR)).status_code == 200
        if way == "rest":
            assert (await user.me(thief)).status_code == 401
        else:
            query = ""
            if way == "ticket":
                bearer = {**HOME, "authorization": f"Bearer {user.token}"}
                query = f"?ticket={(await user.http.post('/sessions/me/tickets', headers=bearer)).json()['ticket']}"
            with pytest.raises(InvalidStatus) as refused:
                async with user.socket(PATHS.get(way, "/ws"), thief, query=query):
                    pass
            assert refused.value.response.status_code == 401
        closed = await ended(mine)
        await user.do("resume")
        rotated = await user.do("rotate")
        again = await user.http.get("/sessions/me", headers={**AWAY, "authorization": f"Bearer {rotated['token']}"})

        assert closed.code == 4423
        assert closed.reason.startswith("session_suspended: challenge_")
        assert again.status_code == 200


async def test_a_session_does_not_see_its_own_risk_and_what_is_kept_of_a_user_can_be_forgotten(
    server: Server,
) -> None:
    async with visitor(server, "curious") as user:
        bearer = {**HOME, "authorization": f"Bearer {user.token}"}
        own = await user.http.get(f"/sessions/{user.id}/risk", headers=bearer)
        missing = await user.http.get("/sessions/3aaaaaaaaaaaaaaaaaaaaaaaaaaaa/risk")
        await user.me(AWAY)
        before = await user.risk()
        forgotten = await user.http.delete("/users/curious/patterns")
        after = await user.risk()

        assert (own.status_code, missing.status_code, forgotten.status_code) == (403, 404, 204)
        assert before["score"] > 0
        assert (after["score"], after["since"]) == (0, None)


@pytest.mark.parametrize("size", [11_000, 70_000])
async def test_a_message_over_the_limit_is_a_violation_whether_it_is_answered_or_closes_the_socket(
    server: Server, size: int
) -> None:
    async with visitor(server, f"chatterbox of {size}") as user, user.socket("/ws") as socket:
        await socket.send(json.dumps({"id": "i", "message_type": "heartbeat", "payload": {"text": "x" * size}}))
        risk = await user.recorded(1)

        assert [each["cause"] for each in risk["violations"]] == ["oversized"]
        if size > 64 * 1024:
            assert (await ended(socket)).code == 1009
