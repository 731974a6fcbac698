"""Two servers on one storage keep one audit log, which a verifier that others have written accepts."""

import asyncio
import os
import shutil
import signal
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from roomkey.security.apikeys import mint
from tests.support.server import RunningServer, running_server
from tests.support.store_servers.fixtures import with_prefix

GO: Final = shutil.which("go")
GO_PACKAGES: Final = Path("/usr/share/gocode")
VERIFIER: Final = Path(__file__).parents[1] / "clients" / "go" / "verify.go"

KEY, DIGEST = mint()
ENVIRONMENT: Final = {"ROOMKEY_MASTER_KEY": "k" * 43, "ROOMKEY_API_KEYS": f"ops:admin:{DIGEST}"}
PATIENCE_SECONDS: Final = 60
SESSIONS: Final = 120
USERS: Final = 6

pytestmark = pytest.mark.skipif(
    GO is None or not (GO_PACKAGES / "src/golang.org/x/mod/sumdb").exists(),
    reason="needs golang-go and golang-golang-x-mod-dev",
)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert GO is not None
    program = tmp_path_factory.mktemp("go") / "verify"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PACKAGES), "GOFLAGS": ""}
    subprocess.run([GO, "build", "-o", program, VERIFIER], check=True, env=environment)
    return program


@pytest.fixture(params=["redis", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        return with_prefix(request.getfixturevalue("redis_server").url)
    return request.getfixturevalue("postgresql_url")


class Client:
    """Somebody who may do everything on one of the servers, and keeps every head of the log that it is shown."""

    def __init__(self, server: RunningServer, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http
        self.heads: list[str] = []

    async def sign_in(self, count: int) -> list[str]:
        """The ids of new sessions. For each of them it looks at all sessions, which this server records itself."""
        ids: list[str] = []

        async def sign_in(user: str) -> None:
            for _ in range(count // USERS):
                made = await self.http.post("/sessions", json={"user_id": user, "activate": True})
                ids.append(made.raise_for_status().json()["session"]["id"])
                (await self.http.get("/sessions", params={"limit": 1})).raise_for_status()
                await self.look()

        await asyncio.gather(*(sign_in(f"user-{number}") for number in range(USERS)))
        return ids

    async def look(self) -> int:
        """How many entries the head covers that is published now."""
        answer = await self.http.get("/audit/log/checkpoint")
        if answer.status_code != 200:
            return 0
        if answer.text not in self.heads:
            self.heads.append(answer.text)
        return size_of(answer.text)

    async def recorded(self, ids: list[str]) -> list[str]:
        """
        The sessions that the log says were created, once these are among them and as often somebody looked at all.

        All that is published by then.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                entries, views = await self._entries("session.created"), await self._entries("view")
                views = [each for each in views if each["type"] != "view.search_audit"]
                found = [each["session"] for each in entries]
                is_all = {*ids} <= {*found} and len(views) >= len(ids)
                if is_all and await self.look() > max(entries[-1]["index"], views[-1]["index"]):
                    assert len(views) == len(ids)
                    return found
                await asyncio.sleep(0.1)

    async def _entries(self, type: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        asked = {"type": type, "order": "oldest"}
        while page := (await self.http.get("/audit", params=asked)).raise_for_status().json():
            if not page["entries"]:
                break
            entries += page["entries"]
            asked["cursor"] = page["next_cursor"]
        return entries


def size_of(head: str) -> int:
    return int(head.splitlines()[1])


async def test_two_servers_keep_one_log_also_when_the_one_that_signs_is_killed(
    url: str, verifier: Path, tmp_path: Path
) -> None:
    options = ("--set", "storage.migrate=true", "--set", "audit.publish_interval=100ms")
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for _ in range(2):
            server = await stack.enter_async_context(
                running_server(*options, storage=url, dev=False, environment=ENVIRONMENT)
            )
            headers = {"authorization": f"Bearer {KEY}"}
            http = httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS, headers=headers)
            clients.append(Client(server, await stack.enter_async_context(http)))
        first, second = clients
        ids = [id for each in await asyncio.gather(*(each.sign_in(SESSIONS) for each in clients)) for id in each]
        await first.recorded(ids)

        await first.server.stop(signal.SIGKILL)
        ids += await second.sign_in(SESSIONS)
        found = await second.recorded(ids)

        assert sorted(found) == sorted(ids)
        heads = sorted({*first.heads, *second.heads}, key=size_of)
        assert len({size_of(head) for head in heads}) > 2
        (key,) = (await second.http.get("/audit/keys")).json()["keys"]
        last = str(await second.look() - 1)
        for number, head in enumerate((heads[0], heads[len(heads) // 2], heads[-1])):
            old = tmp_path / f"old {number}"
            old.write_text(head, encoding="utf-8")
            done = await asyncio.to_thread(
                subprocess.run,
                [verifier, f"{second.server.url}/audit/log", key, str(old), "0", last],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "CREDENTIAL": KEY},
            )
            assert done.returncode == 0, done.stdout + done.stderr
