"""Nodes as users have them: processes that serve on one store, each reaching it through a proxy of its own."""

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

import httpx

from roomkey.backends import open_documents
from tests.support.cutting_proxy import LastingProxy, lasting_proxy
from tests.support.documents import text_of
from tests.support.server import Server, lasting_server

PATIENCE_SECONDS: Final = 20


class ServingNode:
    """A server, and its line to the store."""

    def __init__(self, server: Server, line: LastingProxy) -> None:
        self.server = server
        self.line = line

    def base(self) -> str:
        """Where its sockets are."""
        return self.server.url.replace("http", "ws", 1)

    def http(self) -> httpx.AsyncClient:
        """Somebody who may do everything there."""
        return httpx.AsyncClient(base_url=self.server.url, timeout=PATIENCE_SECONDS)

    async def session(self, user: str) -> tuple[str, str]:
        """The id and the token of a new session."""
        async with self.http() as http:
            made = await http.post("/sessions", json={"user_id": user, "activate": True})
        assert made.status_code == 201, made.text
        token = made.json()["token"]
        return token.partition(".")[0], token

    async def revoke(self, session: str) -> None:
        """End a session."""
        async with self.http() as http:
            answer = await http.put(f"/sessions/{session}/invalidate")
        assert answer.status_code == 200, answer.text

    async def health(self) -> tuple[str, Mapping[str, str]]:
        """How it is doing, and what it says of its parts."""
        async with self.http() as http:
            said = (await http.get("/health")).json()
        return said["status"], said["checks"]

    async def wait_health(self, condition: Callable[[str, Mapping[str, str]], bool]) -> Mapping[str, str]:
        """Ask until its health is so; what it says of its parts then."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition(*(said := await self.health())):  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it does not say so: {await self.health()}") from None
        return said[1]

    async def wait_well(self) -> None:
        """Ask until it is."""
        await self.wait_health(lambda status, _: status == "healthy")


class ServingNodes:
    """Three of them, and the store as an operator sees it, without a proxy."""

    def __init__(self, url: str, nodes: Sequence[ServingNode]) -> None:
        self.url = url
        self.nodes = nodes

    def __iter__(self) -> Iterator[ServingNode]:
        return iter(self.nodes)

    async def stored(self, document: str) -> str:
        """What is in the store of a document."""
        async with open_documents(self.url) as store:
            found = await store.load(document)
        assert found is not None
        assert not found.lost
        snapshot = [] if found.snapshot is None else [found.snapshot]
        return text_of(*snapshot, *(update.data for update in found.updates))


@contextmanager
def serving_nodes(url: str, port: int, environment: Mapping[str, str], number: int = 3) -> Generator[ServingNodes]:
    """So many nodes on the store at ``url``, whose server listens on ``port``; they begin at once."""
    with ExitStack() as stack:
        lines = [stack.enter_context(lasting_proxy(port)) for _ in range(number)]
        begun = [lasting_server(url.replace(f":{port}", f":{line.port}"), environment) for line in lines]
        with ThreadPoolExecutor(number) as threads:
            servers: list[Server] = list(threads.map(stack.enter_context, begun))
        yield ServingNodes(url, [ServingNode(*pair) for pair in zip(servers, lines, strict=True)])
