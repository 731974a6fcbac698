"""Responses as they go over the wire: whole ones in one write, all others as they are, and none that deceives."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.rawsocket import Door, RawClient, connected, serving

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

FIVE: Headers = [(b"content-length", b"5")]


def answering(status: int, headers: Headers, *parts: bytes | None) -> Any:
    """An application with one answer; ``None`` is a part that has no body at all."""

    async def app(_scope: Any, _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts, 1):
            body = {} if part is None else {"body": part}
            await send({"type": "http.response.body", "more_body": number < len(parts), **body})

    return app


async def everything(client: RawClient, *lines: str) -> tuple[str, list[str], bytes]:
    """Ask once and hang up: the status line, the other lines of the head, and all that follows."""
    client.send("\r\n".join([*lines, "host: x", "", ""]).encode())
    client.writer.write_eof()
    async with asyncio.timeout(30):
        head, _, body = (await client.reader.read(-1)).partition(b"\r\n\r\n")
    status, *rest = head.decode().split("\r\n")
    return status, [line for line in rest if not line.startswith(("date:", "server:"))], body


async def asked(app: Any, method: str = "GET") -> tuple[str, list[str], bytes]:
    """What comes back from ``app`` on a connection that is closed afterwards."""
    async with serving("picows", Door(), app=app) as port, connected(port) as client:
        return await everything(client, f"{method} / HTTP/1.1", "connection: close")


async def test_a_whole_response_says_what_it_is_and_that_the_connection_ends() -> None:
    status, lines, body = await asked(answering(200, FIVE, b"hello"))

    assert status == "HTTP/1.1 200 OK"
    assert sorted(lines) == ["connection: close", "content-length: 5"]
    assert body == b"hello"


async def test_a_connection_that_is_kept_is_used_again() -> None:
    async with serving("picows", Door(), app=answering(200, FIVE, b"hello")) as port, connected(port) as client:
        for _ in range(3):
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            response = await client.response()

            assert (response.status, response.body) == (200, b"hello")
            assert "connection" not in response.headers


async def test_head_and_body_arrive_in_one_piece() -> None:
    async with serving("picows", Door(), app=answering(200, FIVE, b"hello")) as port, connected(port) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        assert (await client.reader.read(65536)).endswith(b"\r\n\r\nhello")


async def test_the_answer_to_a_head_request_has_no_body() -> None:
    status, lines, body = await asked(answering(200, FIVE, b"hello"), "HEAD")

    assert status == "HTTP/1.1 200 OK"
    assert "content-length: 5" in lines
    assert body == b""


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_that_has_no_body_gets_none(status: int) -> None:
    line, lines, body = await asked(answering(status, [], None))

    assert line.startswith(f"HTTP/1.1 {status} ")
    assert lines == ["connection: close"]
    assert body == b""


async def test_an_empty_response_may_leave_its_body_out() -> None:
    status, _, body = await asked(answering(200, [(b"content-length", b"0")], None))

    assert (status, body) == ("HTTP/1.1 200 OK", b"")


async def test_a_response_in_parts_arrives_whole() -> None:
    _, _, body = await asked(answering(200, FIVE, b"he", b"llo"))

    assert body == b"hello"


async def test_a_response_of_unknown_length_is_chunked() -> None:
    _, lines, body = await asked(answering(200, [], b"hello"))

    assert "transfer-encoding: chunked" in lines
    assert body == b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("name", [b"connection", b"Connection"])
async def test_an_application_may_end_the_connection(name: bytes) -> None:
    app = answering(200, [*FIVE, (name, b"close")], b"hello")
    async with serving("picows", Door(), app=app) as port, connected(port) as client:
        client.send(2 * b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")

        async with asyncio.timeout(30):
            received = await client.reader.read(-1)

    assert received.endswith(b"\r\n\r\nhello")
    assert received.count(b"HTTP/1.1 200 OK") == 1


@pytest.mark.parametrize("name", [b"transfer-encoding", b"Transfer-Encoding"])
async def test_a_response_whose_head_says_that_it_is_chunked_is_chunked(name: bytes) -> None:
    _, lines, body = await asked(answering(200, [*FIVE, (name, b"chunked")], b"hello"))

    assert "transfer-encoding: chunked" in [line.lower() for line in lines]
    assert body == b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b=c", b"a\nb", b"a\rb", b"a\x00b", b"a\x7f"])
async def test_a_header_cannot_begin_another(value: bytes) -> None:
    status, lines, _ = await asked(answering(200, [*FIVE, (b"x-said", value)], b"hello"))

    assert status in {"HTTP/1.1 500 Internal Server Error", ""}
    assert not [line for line in lines if line.startswith(("set-cookie", "x-said"))]


@pytest.mark.parametrize("body", [b"hell", b"hello!"])
async def test_a_response_of_another_length_than_announced_does_not_pass_for_a_good_one(body: bytes) -> None:
    _, lines, received = await asked(answering(200, FIVE, body))

    assert "content-length: 5" not in lines or len(received) < 5


async def test_an_application_that_fails_after_its_head_is_answered_with_500() -> None:
    async def failing(_scope: Any, _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": FIVE})
        raise ValueError("broken")

    status, _, _ = await asked(failing)

    assert status == "HTTP/1.1 500 Internal Server Error"
