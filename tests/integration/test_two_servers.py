"""Two servers on one directory are one server to their clients, but for what is said in the documentation."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.documents import REFUSED, UPDATE, HocuspocusClient, connected_to, edit, reason_of
from tests.support.editor import editing
from tests.support.server import Server, lasting_server, outcome

PATIENCE_SECONDS = 20

Servers = tuple[Server, Server]


class Peer:
    """One of the servers, and a client of it that may do everything; ``notes`` is a document of the test alone."""

    def __init__(self, server: Server, http: httpx.AsyncClient, name: str) -> None:
        self.server = server
        self.http = http
        self.name = name
        self.notes = f"/documents/{name}"

    async def token(self) -> str:
        made = await self.http.post("/sessions", json={"user_id": "ada", "activate": True})
        return made.json()["token"]

    async def content(self) -> str:
        return (await self.http.get(self.notes)).json()["content"]

    async def put(self, content: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return await self.http.put(self.notes, json={"content": content}, headers=headers)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def servers(directory: Path) -> Generator[Servers]:
    """The second one starts after the first."""
    with lasting_server(f"lmdb://{directory}") as first, lasting_server(f"lmdb://{directory}") as second:
        yield first, second


@asynccontextmanager
async def clients_of(servers: Servers) -> AsyncGenerator[tuple[Peer, Peer]]:
    name = token_hex(8)
    async with AsyncExitStack() as stack:
        peers = [
            Peer(
                server,
                await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS)),
                name,
            )
            for server in servers
        ]
        yield peers[0], peers[1]


# --- documents ------------------------------------------------------------------------------------------


async def test_what_one_server_writes_the_other_reads_and_writes_upon(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        await one.put("one")
        first = await other.content()
        await one.put("two")
        second = await other.content()
        await other.put("three")

        assert (first, second) == ("one", "two")
        assert (await one.content(), await other.content()) == ("three", "three")


async def test_of_writers_on_both_servers_one_is_last_and_nothing_is_mixed(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        await one.put("to begin with")
        for number in range(10):
            texts = f"the first {number}", f"and another {number}"
            await asyncio.gather(one.put(texts[0]), other.put(texts[1]))

            seen = await asyncio.gather(one.content(), other.content())

            assert seen[0] == seen[1]
            assert seen[0] in texts


async def test_of_many_with_the_same_etag_one_succeeds_whichever_server_they_ask(
    servers: Servers,
) -> None:
    async with clients_of(servers) as (one, other):
        etag = (await one.put("seen by all")).headers["etag"]

        answers = await asyncio.gather(
            *(peer.put(f"by {number}", {"if-match": etag}) for number, peer in enumerate([one, other] * 4))
        )

        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_a_document_that_one_server_has_deleted_is_gone_on_the_other(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        await one.put("old")
        await other.content()

        await one.http.delete(one.notes)
        gone = await other.http.get(other.notes)
        await one.put("new")

        assert gone.status_code == 404
        assert await other.content() == "new"


async def test_who_wrote_what_is_known_on_both_servers(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        await one.put("written on one server")
        await other.content()
        await one.put("written on one server, and more")

        blamed = await other.http.get(f"{other.notes}/blame", params={"root": "content"})

        assert sum(part["end"] - part["start"] for part in blamed.json()["ranges"]) == len(
            "written on one server, and more"
        )


async def test_editors_on_both_servers_see_what_each_other_types_within_a_second(
    servers: Servers,
) -> None:
    async with clients_of(servers) as (one, other):
        tokens = [await peer.token() for peer in (one, other)]
        async with (
            connected_to(one.server.url.replace("http", "ws", 1), tokens[0], one.name) as ada,
            connected_to(other.server.url.replace("http", "ws", 1), tokens[1], one.name) as ben,
        ):
            await ada.send(edit("typed on one server"))

            async with asyncio.timeout(PATIENCE_SECONDS):
                await ben.next(UPDATE)

            assert await one.content() == await other.content() == "typed on one server"


# --- tickets and idempotency keys -----------------------------------------------------------------------


async def test_a_ticket_of_one_server_is_good_once_on_either(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        bearer = {"authorization": f"Bearer {await one.token()}"}
        ticket = (await one.http.post("/sessions/me/tickets", headers=bearer)).json()["ticket"]

        async with connect(f"{other.server.websocket_url}?ticket={ticket}") as socket:
            greeting = json.loads(await socket.recv())
        with pytest.raises(InvalidStatus) as again:
            async with connect(f"{one.server.websocket_url}?ticket={ticket}"):
                pass

        assert greeting["message_type"] == "session_connected"
        assert again.value.response.status_code == 401


async def test_a_request_with_an_idempotency_key_is_done_once_whichever_server_it_is_sent_to(
    servers: Servers,
) -> None:
    async with clients_of(servers) as (one, other):
        key = {"idempotency-key": one.name}

        first = await one.http.post("/sessions", json={"user_id": "ada"}, headers=key)
        second = await other.http.post("/sessions", json={"user_id": "ada"}, headers=key)

        assert (first.status_code, second.json()) == (201, first.json())
        assert second.headers["idempotent-replayed"] == "true"


# --- which server it was --------------------------------------------------------------------------------


async def test_every_answer_and_handshake_says_which_server_it_was(servers: Servers) -> None:
    async with clients_of(servers) as peers:
        bearer = {"authorization": f"Bearer {await peers[0].token()}"}
        names = list[set[str]]()
        for peer in peers:
            answers = [await peer.http.get("/health/live"), await peer.http.get("/nowhere")]
            async with connect(peer.server.websocket_url, additional_headers=bearer) as socket:
                accepted = socket.response
                greeting = json.loads(await socket.recv())
            with pytest.raises(InvalidStatus) as refused:
                async with connect(peer.server.websocket_url):
                    pass

            assert accepted is not None
            responses = [*answers, accepted, refused.value.response]
            names.append({*(response.headers["roomkey-node"] for response in responses), greeting["payload"]["node"]})

        assert [len(name) for name in names] == [1, 1]
        assert names[0] != names[1]


async def test_the_second_server_and_the_doctor_say_what_two_servers_do_not_share(
    servers: Servers, directory: Path, tmp_path: Path
) -> None:
    async with clients_of(servers) as peers:
        nodes = [(await peer.http.get("/health/live")).headers["roomkey-node"] for peer in peers]

    _, found, _ = await outcome("doctor", "--storage", f"lmdb://{directory}", "--port", "0", "--dev", "--json")
    _, alone, _ = await outcome("doctor", "--storage", f"lmdb://{tmp_path}", "--port", "0", "--dev", "--json")

    assert "storage_shared" not in servers[0].errors
    assert "storage_shared" in servers[1].errors
    assert nodes[0] in servers[1].errors
    assert all(node in found for node in nodes)
    assert "other servers" not in alone


# --- rights ---------------------------------------------------------------------------------------------


async def test_grants_that_one_server_changes_hold_on_the_sockets_of_the_other(servers: Servers) -> None:
    async with clients_of(servers) as (one, other), AsyncExitStack() as stack:
        made = (await one.http.post("/sessions", json={"user_id": "ada", "activate": True})).json()
        id, token = made["session"]["id"], made["token"]
        base = other.server.url.replace("http", "ws", 1)
        json_editor = await stack.enter_async_context(editing(other.server.websocket_url, token))
        await json_editor.subscribe(other.name)
        yjs_editor = await stack.enter_async_context(connected_to(base, token, other.name))
        many = HocuspocusClient(await stack.enter_async_context(connect(f"{base}/hocuspocus", proxy=None)))
        await many.show(other.name, token)

        grants = {"grants": [{"documents": "elsewhere", "access": "write"}]}
        await one.http.put(f"/sessions/{id}/grants", json=grants)
        rest = await other.http.get(other.notes, headers={"authorization": f"Bearer {token}"})

        assert rest.json()["code"] == "document_not_found"  # at once: requests ask storage
        assert (await json_editor.next("unsubscribed"))["error"]["code"] == "FORBIDDEN"
        assert await yjs_editor.end() == (4403, "forbidden")
        assert reason_of(await many.hear(other.name, REFUSED)) == "forbidden"


async def test_a_key_that_one_server_revokes_opens_nothing_on_the_other(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        made = await one.http.post("/keys", json={"name": one.name, "role": "service"})
        bearer = {"authorization": f"Bearer {made.json()['secret']}"}
        here = await one.http.get("/sessions", headers=bearer)
        revoked = await one.http.delete(f"/keys/{one.name}")
        after = await one.http.get("/sessions", headers=bearer)

        assert (here.status_code, revoked.status_code, after.status_code) == (200, 204, 401)
        assert (await other.http.get("/sessions", headers=bearer)).status_code == 401
