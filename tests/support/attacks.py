"""A running server that is attacked with real sockets, and an honest user of it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import psutil

from roomkey.security.apikeys import mint
from tests.support.rawsocket import DEFLATE, RawClient, connected
from tests.support.server import RunningServer, running_server

HONEST: Final = "127.0.0.2"
"""An address of this machine that attacks do not come from."""

MEMORY_BYTES: Final = 64 * 1024 * 1024
"""What the server may grow by, whatever is done to it."""


class Target:
    """A server under attack, and an honest user of it."""

    def __init__(self, server: RunningServer, key: str) -> None:
        self.server = server
        self.backend = key
        self._memory = psutil.Process(server.process.pid).memory_info().rss
        transport = httpx.AsyncHTTPTransport(local_address=HONEST, verify=False)
        self.honest = httpx.AsyncClient(base_url=server.url, transport=transport, timeout=30)
        self.token = ""

    async def sign_in(self) -> None:
        self.token = await self.session("alice")

    async def session(self, user: str = "mallory") -> str:
        """The token of a session that may write everywhere."""
        grants = [{"documents": "**", "access": "write"}]
        body = {"user_id": user, "activate": True, "grants": grants}
        created = await self.honest.post("/sessions", json=body, headers={"authorization": f"Bearer {self.backend}"})
        return created.json()["token"]

    @asynccontextmanager
    async def socket(self, path: str, token: str, **headers: str) -> AsyncGenerator[RawClient]:
        """An open socket that speaks whatever it likes."""
        async with connected(self.server.port) as client:
            response = await client.upgrade(path, {"Authorization": f"Bearer {token}", **DEFLATE, **headers})
            assert response.status == 101, response
            yield client

    async def is_served(self, times: int = 10) -> bool:
        headers = {"authorization": f"Bearer {self.token}"}
        return all([(await self.honest.get("/sessions/me", headers=headers)).status_code == 200 for _ in range(times)])

    @property
    def connections(self) -> int:
        """How many connections of clients it has."""
        return len(
            [each for each in psutil.Process(self.server.process.pid).net_connections() if each.status == "ESTABLISHED"]
        )

    @property
    def peak(self) -> int:
        """What it has grown by at any time; now, where the system does not say."""
        with suppress(OSError):
            status = Path(f"/proc/{self.server.process.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024 - self._memory
        return self.growth

    @property
    def growth(self) -> int:
        return psutil.Process(self.server.process.pid).memory_info().rss - self._memory


@asynccontextmanager
async def under_attack(*arguments: str) -> AsyncGenerator[Target]:
    key, digest = mint()
    environment = {"ROOMKEY_API_KEYS": f"backend:service:{digest}"}
    async with running_server(*arguments, dev=False, environment=environment) as server:
        target = Target(server, key)
        async with target.honest:
            await target.sign_in()
            yield target


@asynccontextmanager
async def crowd(port: int, count: int, *opening: bytes) -> AsyncGenerator[Sequence[RawClient]]:
    """So many connections of a stranger, on each of which one of ``opening`` has been said."""
    async with AsyncExitStack() as stack:
        clients: list[RawClient] = []
        for number in range(count):
            client = await stack.enter_async_context(connected(port))
            client.send(opening[number % len(opening)])
            clients.append(client)
        yield clients
