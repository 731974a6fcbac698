"""Nodes behind nginx and HAProxy with the files in ``deploy`` as they are; an application behind those of a page."""

import asyncio
import json
import signal
import ssl
from collections.abc import Generator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.applications import uvicorn_with
from tests.support.certificates import make_certificates
from tests.support.pages import ROOT
from tests.support.proxies import proxy, proxy_of_the_recipe
from tests.support.server import Server, lasting_server, running_server
from tests.support.store_servers import ServerProcess
from tests.support.store_servers.fixtures import needs, server_folder

PATIENCE_SECONDS: Final = 20

CLIENT: Final = "127.0.0.2"
STRANGER: Final = "127.0.0.3"
"""Addresses of this machine that are not the proxy's, which is 127.0.0.1."""

DOCUMENTS: Final = [f"notes/{number}" for number in range(12)]

BURST: Final = 30
"""Handshakes of one address that a node takes."""


class Site:
    """Two nodes and a proxy in front of them, which they believe."""

    def __init__(self, front: ServerProcess, nodes: Mapping[str, Server]) -> None:
        self.url = front.url
        self.nodes = nodes

    def client(self, address: str = CLIENT, url: str | None = None) -> httpx.AsyncClient:
        """A client at ``address``, of the proxy if no other URL is given."""
        transport = httpx.AsyncHTTPTransport(local_address=address)
        return httpx.AsyncClient(base_url=url or self.url, transport=transport)

    async def session(self, **headers: str) -> dict[str, Any]:
        """A new session, asked for by the client itself."""
        async with self.client() as client:
            created = await client.post("/sessions", json={"user_id": "alice", "activate": True}, headers=headers)
            created.raise_for_status()
            return created.json()

    def socket(self, token: str, path: str = "/ws", address: str = CLIENT) -> connect:
        """A socket through the proxy."""
        return connect(
            f"ws{self.url.removeprefix('http')}{path}",
            additional_headers={"Authorization": f"Bearer {token}"},
            local_addr=(address, 0),
            proxy=None,
        )


OPTIONS: Final = (
    *("--set", "server.trusted_proxies=127.0.0.1", "--set", "server.drain=1s"),
    *("--set", f"realtime.handshake_burst={BURST}", "--set", "realtime.handshakes_per_second=0.01"),
)


def id_of(node: Server) -> str:
    return httpx.get(f"{node.url}/health/live").headers["roomkey-node"]


@contextmanager
def behind(kind: str, nodes: Sequence[Server]) -> Generator[Site]:
    """The nodes, which are two on one directory, behind a proxy of this kind."""
    with proxy(kind, server_folder(), [node.port for node in nodes]) as front:
        yield Site(front, {id_of(node): node for node in nodes})


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def shared(request: pytest.FixtureRequest) -> Generator[Site]:
    """For tests that leave the nodes alone, each of them at addresses of its own, as clients of one may be too many."""
    needs(request.param)
    with ExitStack() as stack:
        storage = f"lmdb://{server_folder()}"
        nodes = [stack.enter_context(lasting_server(storage, arguments=OPTIONS)) for _ in range(2)]
        yield stack.enter_context(behind(request.param, nodes))


async def node_of(path: str, client: httpx.AsyncClient) -> str:
    """The node that answers for this path to a client without cookies."""
    client.cookies.clear()
    answer = await client.get(path)
    return answer.headers.get("roomkey-node", f"the proxy says {answer.status_code}")


async def nodes_of_documents(client: httpx.AsyncClient) -> dict[str, str]:
    """Which node answers for each document."""
    return {name: await node_of(f"/documents/{quote(name, safe='')}", client) for name in DOCUMENTS}


async def until_nodes_are(expected: set[str], client: httpx.AsyncClient) -> None:
    """Return when the proxy has found out who is there."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while set((await nodes_of_documents(client)).values()) != expected:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.05)


def node_behind(socket: ClientConnection) -> str:
    assert socket.response is not None
    return socket.response.headers["roomkey-node"]


async def close_code_of(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code


async def node_for(document: str, site: Site, token: str) -> str:
    """The node that a new editor of the document gets, at once: nobody is refused."""
    async with site.socket(token, f"/yjs/{document}") as editor:
        return node_behind(editor)


async def node_and_cookie(site: Site, token: str, cookie: str = "") -> tuple[str, str]:
    """The node that a socket gets on which no path names a document, and the cookie that its client has afterwards."""
    headers = {"Authorization": f"Bearer {token}", **({"Cookie": cookie} if cookie else {})}
    address = f"ws{site.url.removeprefix('http')}/ws"
    async with connect(address, additional_headers=headers, local_addr=("127.0.0.12", 0), proxy=None) as socket:
        assert socket.response is not None
        given = socket.response.headers.get("set-cookie", cookie)
        return node_behind(socket), given.partition(";")[0]


async def refusal_of(site: Site, token: str, address: str) -> int | None:
    """The status with which a handshake is refused; ``None`` if it is not."""
    try:
        async with site.socket(token, address=address) as socket:
            assert json.loads(await socket.recv())["message_type"] == "session_connected"
    except InvalidStatus as refused:
        return refused.response.status_code
    return None


async def test_clients_are_known_by_their_own_address_and_cannot_claim_another(shared: Site) -> None:
    honest = await shared.session()
    forged = await shared.session(**{"X-Forwarded-For": "203.0.113.7"})
    direct = next(iter(shared.nodes.values())).url
    async with shared.client(STRANGER, direct) as stranger:
        past_the_proxy = await stranger.post(
            "/sessions", json={"user_id": "eve"}, headers={"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}
        )

    assert honest["session"]["client"]["ip"] == CLIENT
    assert forged["session"]["client"]["ip"] == CLIENT
    assert past_the_proxy.json()["session"]["client"]["ip"] == STRANGER


async def test_handshakes_count_for_the_address_of_the_client(shared: Site) -> None:
    token = (await shared.session())["token"]

    # Each of the two nodes lets so many in, and the proxy need not give both as many.
    refusals = [await refusal_of(shared, token, "127.0.0.10") for _ in range(2 * BURST + 1)]
    somebody_else = await refusal_of(shared, token, "127.0.0.11")

    assert 429 in refusals
    assert refusals[0] is somebody_else is None


async def test_a_document_has_a_node_of_its_own_and_a_client_keeps_the_one_that_it_had(shared: Site) -> None:
    token = (await shared.session())["token"]
    async with shared.client() as client:
        by_rest = await nodes_of_documents(client)
        of_a_version = await node_of(f"/documents/{quote(DOCUMENTS[0], safe='')}/versions", client)
        client.cookies.clear()
        kept = [(await client.get("/health/live")).headers["roomkey-node"] for _ in range(6)]
    by_socket = {name: await node_for(name, shared, token) for name in DOCUMENTS}
    visits = [await node_and_cookie(shared, token)]
    for _ in range(4):
        visits.append(await node_and_cookie(shared, token, visits[0][1]))

    assert len({node for node, _ in visits}) == 1
    assert by_socket == by_rest
    assert of_a_version == by_rest[DOCUMENTS[0]]
    assert set(by_rest.values()) == set(shared.nodes)
    assert len(set(kept)) == 1


async def test_what_is_too_large_is_refused_before_it_gets_to_a_node(shared: Site) -> None:
    _, port = shared.url.rsplit(":", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(b"POST /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        status = await reader.readline()
    writer.close()

    assert b" 413 " in status


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_nobody_is_refused_while_nodes_are_upgraded_one_after_the_other_or_killed(
    kind: str, tmp_path: Path
) -> None:
    """One is drained, ends and comes back; its clients are with the other meanwhile, at their first try."""
    needs(kind)
    storage = f"lmdb://{tmp_path}"
    async with AsyncExitStack() as stack:
        starting = [stack.enter_async_context(running_server(*OPTIONS, storage=storage)) for _ in range(2)]
        old, other = [await each for each in starting]
        site = stack.enter_context(behind(kind, [old, other]))
        leaving, staying = site.nodes
        client = await stack.enter_async_context(site.client())
        token = (await site.session())["token"]
        await until_nodes_are({leaving, staying}, client)
        mine = [name for name, node in (await nodes_of_documents(client)).items() if node == leaving]
        editors = [await stack.enter_async_context(site.socket(token, f"/yjs/{name}")) for name in mine]

        old.process.send_signal(signal.SIGTERM)
        await old.says("stopping")
        codes: list[int | None] = []
        taken: list[str] = []
        for editor, name in zip(editors, mine, strict=True):
            codes.append(await close_code_of(editor))
            taken.append(await node_for(name, site, token))
        ended = await old.process.wait()
        new = await stack.enter_async_context(running_server(*OPTIONS, storage=storage, port=old.port))
        upgraded = id_of(new)
        await until_nodes_are({upgraded, staying}, client)
        back = [await node_for(name, site, token) for name in mine]

        await new.stop(signal.SIGKILL)
        after_the_kill = await node_for(mine[0], site, token)
        await until_nodes_are({staying}, client)

    assert ended == 0
    assert set(codes) == {1012}
    assert set(taken) == {staying}
    assert set(back) == {upgraded}
    assert after_the_kill == staying


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
async def test_an_application_behind_the_proxy_of_the_recipe_has_sockets_and_knows_its_clients(
    kind: str, tmp_path: Path
) -> None:
    needs(kind)
    certificates = make_certificates(tmp_path)
    trusted = ssl.create_default_context(cafile=str(certificates.authority))
    environment = {"ROOMKEY_STORAGE_URL": "memory", "ROOMKEY_SERVER_DEV": "true"}
    async with uvicorn_with("examples.fastapi_app:app", ROOT, environment=environment) as application:
        port = int(application.rpartition(":")[2])
        with proxy_of_the_recipe(kind, server_folder(), port, certificates) as front:
            transport = httpx.AsyncHTTPTransport(local_address=CLIENT, verify=trusted)
            async with httpx.AsyncClient(base_url=front.url, transport=transport) as client:
                forged = {"X-Forwarded-For": "203.0.113.7"}
                body = {"user_id": "alice", "activate": True}
                created = (await client.post("/rooms/sessions", json=body, headers=forged)).json()
                large = await client.put("/rooms/documents/large", json={"content": "word " * 400_000})
            headers = {"Authorization": f"Bearer {created['token']}"}
            url = created["websocket_url"]
            async with connect(url, additional_headers=headers, ssl=trusted, proxy=None) as socket:
                greeting = json.loads(await socket.recv())

    assert created["session"]["client"]["ip"] == CLIENT
    assert url == f"wss://127.0.0.1:{front.port}/rooms/ws"
    assert greeting["message_type"] == "session_connected"
    assert large.status_code == 201
