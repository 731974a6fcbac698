"""One post is one request on a kept connection to an address that was looked at, and its answer is bounded."""

import asyncio
import socket
from typing import Any

import pytest

from roomkey.hooks.posting import NoAnswer, Poster
from tests.support.receiver import Receiver, a_receiver


def poster(receiver: Receiver, *, timeout: float = 5.0) -> Poster:
    return Poster(receiver.url, timeout=timeout, allow_private=True)


async def test_what_is_posted_arrives_as_it_was_signed() -> None:
    async with a_receiver() as receiver:
        answer = await poster(receiver).post({"webhook-id": "msg_1"}, b'{"type":"x"}')

        (message,) = receiver.messages
        assert answer.status == 204
        assert (message.id, message.body) == ("msg_1", b'{"type":"x"}')
        assert message.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert message.headers["content-type"] == "application/json"


async def test_a_connection_is_kept_and_replaced_when_it_was_closed() -> None:
    async with a_receiver() as receiver:
        sender = poster(receiver)
        for _ in range(3):
            await sender.post({"webhook-id": "msg_1"}, b"{}")
        receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
        await sender.post({"webhook-id": "msg_1"}, b"{}")
        receiver.answer = lambda _: 204

        assert (await sender.post({"webhook-id": "msg_1"}, b"{}")).status == 204
        assert receiver.attempts == 5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "closed the connection without an answer"),
        (b"SMTP ready\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "not HTTP|too long"),
    ],
)
async def test_nonsense_is_no_answer(answer: bytes | None, reason: str) -> None:
    async with a_receiver() as receiver:
        receiver.answer = lambda _: answer

        with pytest.raises(NoAnswer, match=reason):
            await poster(receiver).post({"webhook-id": "msg_1"}, b"{}")


async def test_who_does_not_answer_is_not_waited_for() -> None:
    async with a_receiver() as receiver:
        receiver.may_answer.clear()

        with pytest.raises(NoAnswer, match="did not answer within"):
            await poster(receiver, timeout=0.05).post({"webhook-id": "msg_1"}, b"{}")
        receiver.may_answer.set()


async def test_of_an_endless_answer_the_status_counts_and_the_connection_ends() -> None:
    async with a_receiver() as receiver:
        receiver.answer = lambda _: b"HTTP/1.1 201 Created\r\ncontent-length: 10000000\r\n\r\n" + b"x" * 200_000

        assert (await poster(receiver).post({"webhook-id": "msg_1"}, b"{}")).status == 201


async def test_redirects_are_not_followed_and_a_wish_to_wait_is_heard() -> None:
    async with a_receiver() as receiver:
        sender = poster(receiver)
        receiver.answer = lambda _: b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"
        redirected = await sender.post({"webhook-id": "msg_1"}, b"{}")
        receiver.answer = lambda _: b"HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"
        busy = await sender.post({"webhook-id": "msg_1"}, b"{}")

        assert redirected.status == 307
        assert (busy.status, busy.retry_after) == (429, 7.0)
        assert receiver.attempts == 2


async def test_an_address_that_is_not_public_is_not_connected_to() -> None:
    async with a_receiver() as receiver:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            with pytest.raises(NoAnswer, match="not public"):
                await Poster(f"http://{host}:{receiver.port}/", timeout=5, allow_private=False).post({}, b"{}")

        assert receiver.attempts == 0


async def test_a_name_is_resolved_and_looked_at_for_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with a_receiver() as receiver:
        sender = Poster(f"http://app.example.com:{receiver.port}/", timeout=5, allow_private=True)
        receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        for _ in range(2):
            await sender.post({"webhook-id": "msg_1"}, b"{}")
        with pytest.raises(NoAnswer, match="not public"):
            await Poster(f"http://app.example.com:{receiver.port}/", timeout=5, allow_private=False).post({}, b"{}")

        assert asked.count("app.example.com") == 3
        assert receiver.attempts == 2


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with a_receiver() as receiver:
        assert (await poster(receiver).post({"webhook-id": "msg_1"}, b"{}")).status == 204


async def test_where_nobody_listens_there_is_no_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: Any = unused.getsockname()[1]

        with pytest.raises(NoAnswer, match="cannot be reached"):
            await Poster(f"http://127.0.0.1:{port}/", timeout=5, allow_private=True).post({}, b"{}")
