"""Pages whose handshake is refused, from the outside and on both transports."""

from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.support.documents import ASK, LIMIT, Site, a_site
from tests.support.rawsocket import TRANSPORTS, connected

both = pytest.mark.parametrize("transport", TRANSPORTS)
everywhere = pytest.mark.parametrize("path", ["/ws", "/yjs/notes/today", "/hocuspocus"])


async def visit(site: Site, path: str, token: str, *first: str | bytes) -> tuple[int, str, list[Any]]:
    """What a page is told that shows a token and says something at once: code, reason, and what came before."""
    heard: list[Any] = []
    async with connect(
        site.address(path),
        origin=Origin(f"http://127.0.0.1:{site.port}"),
        subprotocols=[Subprotocol("roomkey.v1"), Subprotocol(f"roomkey.token.{token}")],
        max_size=LIMIT,
        proxy=None,
    ) as socket:
        assert socket.subprotocol == "roomkey.v1"
        with suppress(ConnectionClosed):
            for message in first:
                await socket.send(message)
            while True:
                heard.append(await socket.recv())
        await socket.wait_closed()
    return socket.close_code or 0, socket.close_reason or "", heard


@both
@everywhere
async def test_a_page_whose_session_was_ended_is_told_so_with_the_reason(transport: str, path: str) -> None:
    async with a_site(transport) as site:
        id, token = await site.session()
        await site.caller.put(id, "invalidate", "spam and " + "é" * 80)

        code, reason, heard = await visit(site, path, token, ASK, b"x" * 10_000, "text")

    assert (code, heard) == (4401, [])
    assert reason.startswith("session_invalidated: spam and éé")
    assert len(reason.encode()) <= 123


@both
@everywhere
async def test_a_page_whose_user_was_revoked_is_told_so(transport: str, path: str) -> None:
    async with a_site(transport) as site:
        _, token = await site.session("mallory")
        await site.node.sessions.revoke_user("mallory", reason="spam")

        code, reason, _ = await visit(site, path, token)

    assert (code, reason) == (4401, "session_invalidated: spam")


@both
@pytest.mark.parametrize(("path", "code"), [("/ws", 4423), ("/yjs/plan", 4503), ("/hocuspocus", 4503)])
async def test_a_page_whose_session_is_suspended_may_come_back(transport: str, path: str, code: int) -> None:
    async with a_site(transport, realtime={"refusal_hold": "0.1s"}) as site:
        id, token = await site.session()
        await site.caller.put(id, "suspend", "under review")

        told = await visit(site, path, token, ASK, b"x" * 10_000)

    assert told[:2] == (code, "session_suspended: under review")


@both
async def test_a_page_without_the_right_is_told_so(transport: str) -> None:
    async with a_site(transport) as site:
        token = await site.token("alice", ("other", "write"))

        assert await visit(site, "/yjs/plan", token, ASK) == (4403, "forbidden", [])


@both
@everywhere
async def test_the_operator_decides_how_handshakes_are_refused(transport: str, path: str) -> None:
    page = {"Origin": "https://app.example.com", "Authorization": "Bearer forged"}
    statuses: dict[str, list[int]] = {}
    for mode in ("auto", "http", "close"):
        async with a_site(transport, realtime={"refuse": mode}) as site:
            for headers in (page, {"Authorization": "Bearer forged"}):
                async with connected(site.port) as client:
                    statuses.setdefault(mode, []).append((await client.upgrade(path, headers)).status)

    assert statuses == {"auto": [101, 401], "http": [401, 401], "close": [101, 101]}
