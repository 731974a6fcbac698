"""The proxy that cuts connections cuts them where a test says."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.support.cutting_proxy import HOST, Cut, CuttingProxy, cutting_proxy


class Answering:
    """A server that answers each request with twice its bytes."""

    def __init__(self) -> None:
        self.port = 0
        self.heard = b""
        self.hears = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(1024):
            self.heard += request
            self.hears.set()
            writer.write(2 * request)
        writer.close()


@asynccontextmanager
async def a_server_behind_a_proxy() -> AsyncGenerator[tuple[Answering, CuttingProxy]]:
    server = Answering()
    listener = await asyncio.start_server(server.serve, HOST, 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with cutting_proxy(server.port) as proxy:
        yield server, proxy
    listener.close()


async def asked(proxy: CuttingProxy, request: bytes) -> bytes:
    """All that comes back until as much has come as the server sends, or the connection is cut."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    answer = b""
    try:
        writer.write(request)
        while len(answer) < 2 * len(request) and (part := await reader.read(1024)):
            answer += part
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


async def test_everything_passes_that_is_not_to_be_cut() -> None:
    async with a_server_behind_a_proxy() as (_, proxy):
        answers = [await asked(proxy, b"SET"), await asked(proxy, b"GET")]

        assert answers == [b"SETSET", b"GETGET"]
        assert (proxy.connections, proxy.requests, proxy.cuts) == (2, 2, 0)


@pytest.mark.parametrize(
    ("where", "heard", "answer"),
    [(Cut.BEFORE_REQUEST, b"", b""), (Cut.BEFORE_ANSWER, b"SET", b""), (Cut.WITHIN_ANSWER, b"SET", b"SET")],
)
async def test_a_connection_is_cut_where_it_was_said_and_only_once(where: Cut, heard: bytes, answer: bytes) -> None:
    async with a_server_behind_a_proxy() as (server, proxy):
        proxy.cut(where)

        first = await asked(proxy, b"SET")
        await proxy.wait_cut()
        heard_first = server.heard
        second = await asked(proxy, b"GET")

        assert (heard_first, first, second) == (heard, answer, b"GETGET")


async def test_the_request_that_is_cut_is_the_one_of_this_number_that_contains_this() -> None:
    async with a_server_behind_a_proxy() as (_, proxy):
        proxy.cut(Cut.BEFORE_REQUEST, request=2, containing=b"COMMIT")

        answers = [await asked(proxy, each) for each in (b"COMMIT", b"BEGIN", b"COMMIT", b"COMMIT")]

        assert [len(answer) for answer in answers] == [12, 10, 0, 12]


async def test_what_is_stalled_comes_when_it_may_flow_again() -> None:
    async with a_server_behind_a_proxy() as (server, proxy), asyncio.TaskGroup() as group:
        proxy.stall()
        answer = group.create_task(asked(proxy, b"SET"))
        while not proxy.requests:  # noqa: ASYNC110  # a turn of the loop or two
            await asyncio.sleep(0)
        heard = server.heard
        proxy.resume()

        assert (heard, await answer) == (b"", b"SETSET")


async def test_a_proxy_that_refuses_cuts_new_connections_and_no_others() -> None:
    async with a_server_behind_a_proxy() as (_, proxy):
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"SET")
        await reader.read(1024)

        proxy.refuses = True
        refused = await asked(proxy, b"SET")
        writer.write(b"GET")
        answer = await reader.read(1024)
        writer.close()

        assert (refused, answer) == (b"", b"GETGET")


async def test_what_is_slowed_down_arrives_all_the_same() -> None:
    async with a_server_behind_a_proxy() as (_, proxy):
        proxy.delay = 0.02

        assert await asked(proxy, b"SET") == b"SETSET"


async def test_an_url_leads_through_the_proxy() -> None:
    async with a_server_behind_a_proxy() as (server, proxy):
        url = proxy.through(f"redis://me:secret@127.0.0.1:{server.port}/0?prefix=x")

        assert url == f"redis://me:secret@127.0.0.1:{proxy.port}/0?prefix=x"
