"""Two servers on one Redis: whoever is in a document meets everybody in it, and one that is killed leaves no ghosts."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from time import perf_counter

import httpx

from roomkey.documents.following import INTERVAL
from roomkey.membership import LIFETIME
from roomkey.wire import lib0
from tests.support.documents import (
    AWARENESS,
    STEP1,
    UPDATE,
    YClient,
    connected_to,
    content_of,
    edit,
    entries_of,
    shown,
    text_of,
)
from tests.support.open_documents import Writer
from tests.support.server import RunningServer, running_server

ALICE, BOB = 1111, 2222


@asynccontextmanager
async def two_servers(url: str) -> AsyncGenerator[tuple[RunningServer, RunningServer]]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running_server(storage=url))
        other = await stack.enter_async_context(running_server(storage=url))
        yield one, other


@asynccontextmanager
async def editor_at(server: RunningServer, user: str, document: str = "plan") -> AsyncGenerator[YClient]:
    async with httpx.AsyncClient(base_url=server.url) as http:
        made = await http.post("/sessions", json={"user_id": user, "activate": True})
    async with connected_to(server.url.replace("http", "ws", 1), made.json()["token"], document) as client:
        await client.next(STEP1)
        yield client


async def shown_to(client: YClient, yjs_client: int) -> tuple[int, bytes]:
    """Clock and state of a client, as soon as something is said about it."""
    while True:
        for shown_client, clock, state in entries_of(await client.next(AWARENESS)):
            if shown_client == yjs_client:
                return clock, state


async def _next_of_another(client: YClient, writer: Writer) -> bytes:
    """The next change that is not the client's own."""
    while True:
        field = await client.next(UPDATE)
        if content_of(field) not in writer.updates:
            return field


async def _gone(client: YClient, yjs_client: int) -> tuple[int, bytes]:
    while True:
        try:
            clock, state = await shown_to(client, yjs_client)
        except TimeoutError:
            continue
        if state == b"null":
            return clock, state


async def test_two_servers_have_one_document_until_one_is_killed_and_leaves_nobody_behind(redis_url: str) -> None:
    # One test, because servers take long to begin.
    async with two_servers(redis_url) as (one, other):
        await _delete_on_one(one, other)
        async with editor_at(one, "alice") as alice, editor_at(other, "bob") as bob:
            await _meet(alice, bob)
            written = await _write(alice, bob)

            await one.stop(signal.SIGKILL)
            async with asyncio.timeout(LIFETIME.total_seconds() + 10):
                assert await _gone(bob, ALICE) == (2, b"null")
            assert sorted(text_of(await bob.missing())) == sorted(written)

            async with editor_at(other, "alice") as back:
                await back.send(edit("!"))
                # After the echo of his own.
                assert "!" in {text_of(content_of(await bob.next(UPDATE))) for _ in range(2)}


async def _delete_on_one(one: RunningServer, other: RunningServer) -> None:
    async with editor_at(other, "bob", "short-lived") as bob:
        await bob.send(edit("old"))
        await bob.next(UPDATE)
        async with httpx.AsyncClient(base_url=one.url) as http:
            assert (await http.delete("/documents/short-lived")).status_code == 204
        assert await bob.end() == (4410, "document_deleted")

    async with editor_at(one, "alice", "short-lived") as alice:
        await alice.send(edit("new"))
        await alice.next(UPDATE)
        async with editor_at(other, "bob", "short-lived") as again:
            assert text_of(await again.missing()) == "new"


async def _meet(alice: YClient, bob: YClient) -> None:
    await alice.send(shown((ALICE, 1, b"{}")))
    assert (await shown_to(bob, ALICE))[0] == 1
    await bob.send(shown((BOB, 1, b"{}")))
    assert (await shown_to(alice, BOB))[0] == 1


async def _write(alice: YClient, bob: YClient) -> str:
    """Both write; what the document says then."""
    writer, took = Writer(), list[float]()
    for letter in "hello":
        begun = perf_counter()
        await alice.send(UPDATE + lib0.sized(writer.type(letter)))
        assert content_of(await bob.next(UPDATE)) == writer.updates[-1]
        took.append(perf_counter() - begun)
    assert median(took) < INTERVAL.total_seconds(), "sooner than the log is looked at"
    await bob.send(edit("world"))
    theirs = content_of(await _next_of_another(alice, writer))
    assert sorted(text_of(*writer.updates, theirs)) == sorted("helloworld")
    return "helloworld"
