import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from roomkey.cli.clients import AppClient, Request
from roomkey.cli.http_client import HttpClient, authorities
from roomkey.cli.outcome import unseen
from roomkey.errors import Storage
from tests.support.certificates import make_certificates

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Server:
    """Answers every request with the same bytes, and keeps the heads of what it was asked."""

    def __init__(self, answer: bytes, *, reads: int | None) -> None:
        self.heads: list[list[str]] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self._answer = answer
        self._reads = reads

    async def __call__(self, reader: StreamReader, writer: StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.heads.append([line for line in head if line])
        if self._reads is not None:
            self.bodies.append(await reader.readexactly(self._reads))
        writer.write(self._answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(
    answer: bytes = ANSWER, *, reads: int | None = None, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Server]:
    server = Server(answer, reads=reads)
    async with await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls) as listener:
        server.url = f"http{'s' if tls else ''}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield server


async def parts(*content: bytes) -> AsyncIterator[bytes]:
    for part in content:
        yield part


async def test_a_request_goes_below_the_path_of_the_address_and_says_who_asks() -> None:
    async with serving() as server, HttpClient(f"{server.url}/rooms/", {"authorization": "Bearer rkey_a"}) as client:
        answer = await client.call(Request("GET", "/sessions?limit=1"))

    assert answer == (200, b"hello")
    (head,) = server.heads
    assert head[0] == "GET /rooms/sessions?limit=1 HTTP/1.1"
    assert f"host: {server.url.removeprefix('http://')}" in head
    assert "authorization: Bearer rkey_a" in head


async def test_user_and_password_of_the_address_are_sent_and_not_shown() -> None:
    async with serving() as server:
        address = server.url.replace("//", "//ann:se%20cret@")
        async with HttpClient(address, {}) as client:
            await client.call(Request("GET", "/"))
    async with HttpClient(address, {}) as client:
        with pytest.raises(Storage) as raised:
            await client.call(Request("GET", "/"))

    assert "authorization: Basic YW5uOnNlIGNyZXQ=" in server.heads[0]
    assert str(raised.value).startswith(f"no answer from {server.url}: ")


async def test_a_body_in_parts_arrives_whole() -> None:
    async with serving(reads=len("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) as server, HttpClient(server.url, {}) as client:
        await client.call(Request("POST", "/", content=parts(b"abc", b"de")))

    assert server.bodies == [b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"]


async def test_that_there_is_no_body_is_said_where_one_could_be() -> None:
    async with serving() as server, HttpClient(server.url, {}) as client:
        await client.call(Request("PUT", "/"))

    assert "Content-Length: 0" in server.heads[0]


async def test_an_answer_that_is_cut_off_is_none() -> None:
    async with serving(ANSWER[:-1]) as server, HttpClient(server.url, {}) as client:
        with pytest.raises(Storage, match="no answer from"):
            await client.call(Request("GET", "/"))


async def test_an_answer_that_is_too_long_is_none() -> None:
    async with serving() as server, HttpClient(server.url, {}) as client:
        with pytest.raises(Storage, match="more than 4 bytes"):
            await client.call(Request("GET", "/", most_bytes=4))


async def test_how_much_has_arrived_is_told() -> None:
    told: list[tuple[int, int | None]] = []

    def tell(done: int, size: int | None) -> None:
        told.append((done, size))

    async with serving() as server, HttpClient(server.url, {}) as client:
        await client.call(Request("GET", "/", advance=tell))

    assert told[-1] == (5, 5)


async def test_a_server_with_a_certificate_of_nobody_known_gets_nothing(tmp_path: Path) -> None:
    async with serving(tls=context(tmp_path)) as server, HttpClient(server.url, {}) as client:
        with pytest.raises(Storage, match="certificate verify failed"):
            await client.call(Request("GET", "/"))

    assert not server.heads


async def test_the_environment_names_the_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))

    async with serving(tls=tls) as server, HttpClient(server.url, {}) as client:
        answer = await client.call(Request("GET", "/"))

    assert answer.status == 200


def test_who_names_authorities_trusts_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))

    trusted = authorities()

    assert trusted is not None
    assert [each["subject"] for each in trusted.get_ca_certs()] == [((("commonName", "Test authority"),),)]


def context(folder: Path) -> ssl.SSLContext:
    made = make_certificates(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.certificate, made.key)
    return tls


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
async def test_the_environment_names_a_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as proxy:
        monkeypatch.setenv(name, proxy.url.replace("//", "//ann:secret@"))
        async with HttpClient("http://rooms.example.com", {}) as client:
            answer = await client.call(Request("GET", "/sessions"))

    assert answer.status == 200
    assert proxy.heads[0][0] == "GET http://rooms.example.com/sessions HTTP/1.1"
    assert "Proxy-Authorization: Basic YW5uOnNlY3JldA==" in proxy.heads[0]


async def test_the_environment_names_who_is_asked_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    async with serving() as server, HttpClient(server.url, {}) as client:
        answer = await client.call(Request("GET", "/"))

    assert answer.status == 200


@pytest.mark.parametrize(
    "url", ["localhost:3000", "ftp://localhost", "http://", "http://a:b", "http://a:0", "http://[::"]
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        HttpClient(url, {})


@pytest.mark.parametrize("url", ["http://bücher.example/räume", "http://[::1]:3000/a b"])
def test_an_address_may_have_any_characters(url: str) -> None:
    HttpClient(url, {})


Send = Callable[[Mapping[str, Any]], Any]


async def test_an_application_is_called_as_a_server_would() -> None:
    async def app(scope: Mapping[str, Any], receive: Callable[[], Any], send: Send) -> None:
        body = bytearray()
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        heard = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode() + body
        await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": heard[:4], "more_body": True})
        await send({"type": "http.response.body", "body": heard[4:]})
        assert (await receive())["type"] == "http.disconnect"

    client = AppClient(app, {}, on_failure=lambda: pytest.fail("it did not"))

    answer = await client.call(Request("POST", "/a%2Fb?c=d", content=parts(b"e", b"f"), advance=unseen))

    assert answer == (201, b"POST /a/b c=d ef")


async def test_an_application_that_fails_is_told_of() -> None:
    async def app(_scope: Mapping[str, Any], _receive: Callable[[], Any], send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body"})

    failures: list[bool] = []
    client = AppClient(app, {}, on_failure=lambda: failures.append(True))

    answer = await client.call(Request("GET", "/"))

    assert answer == (500, b"")
    assert failures == [True]
