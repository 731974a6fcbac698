"""
The deployment in ``deploy/compose.yaml`` without Docker: its commands and variables, on ports of this machine.

What Docker adds, which is names, images and networks, is not tried.
"""

import asyncio
import json
import re
import shlex
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final

import httpx
import pytest
import yaml
from websockets.asyncio.client import connect

from roomkey.security import apikeys, masterkey
from tests.support.commands import plain_environment
from tests.support.documents import UPDATE, YClient, edit, text_of
from tests.support.proxies import DEPLOY, proxy
from tests.support.server import LISTENING, outcome
from tests.support.store_servers import ServerProcess
from tests.support.store_servers.fixtures import needs, server_folder
from tests.support.store_servers.process import found

PATIENCE_SECONDS: Final = 30

NODES: Final = ("node-1", "node-2", "node-3")

TOKEN, DIGEST = apikeys.mint()
VARIABLES: Final = {"ROOMKEY_MASTER_KEY": masterkey.generate(), "ROOMKEY_API_KEYS": f"backend:admin:{DIGEST}"}
"""What the operator has to give."""

SERVICES: Final[Mapping[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]


class Here:
    """Where on this machine the containers' names and ports are."""

    def __init__(self) -> None:
        self.places = {"0.0.0.0": "127.0.0.1", "172.30.0.0/24": "127.0.0.1/32", "--port 3000": "--port 0"}

    def text(self, text: str) -> str:
        """The text with its variables, and with what its names stand for here."""
        text = re.sub(r"\$\{(\w+):\?\}", lambda match: VARIABLES[match[1]], text)
        for place, there in self.places.items():
            text = text.replace(place, there)
        return text

    def command(self, service: str) -> list[str]:
        """The command of a service as the words that a container would run."""
        return shlex.split(self.text(SERVICES[service]["command"]))

    def environment(self, service: str) -> dict[str, str]:
        """Its variables."""
        return {name: self.text(value) for name, value in SERVICES[service]["environment"].items()}


@contextmanager
def redis_of(here: Here) -> Generator[None]:
    folder = server_folder()
    program, *options = here.command("redis")

    def command(port: int) -> list[str]:
        here.places["redis:6379"] = f"127.0.0.1:{port}"
        return [found(program), *options, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]

    log = folder / "redis.log"
    server = ServerProcess(command, url="", log=log, answers=lambda: "Ready to accept connections" in server.log)
    try:
        server.start()
        yield
    finally:
        server.kill()


@asynccontextmanager
async def node_of(here: Here, service: str) -> AsyncGenerator[tuple[Process, str]]:
    """The process of a node, and where it listens."""
    program, *arguments = here.command(service)
    assert program == "roomkey"
    variables = plain_environment(**here.environment(service))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "roomkey", *arguments), stdout=PIPE, stderr=errors, env=variables, cwd=folder
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE_SECONDS):
                line = (await process.stdout.readline()).decode().strip()
            errors.seek(0)
            assert line.startswith(LISTENING), errors.read()
            yield process, line.removeprefix(LISTENING)
            process.terminate()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def deployed(here: Here) -> AsyncGenerator[tuple[str, list[str]]]:
    """Everything, in the order in which it depends on one another; the addresses of nginx and of the nodes."""
    async with AsyncExitStack() as stack:
        stack.enter_context(redis_of(here))
        nodes = [await stack.enter_async_context(node_of(here, service)) for service in NODES]
        urls = [url for _, url in nodes]
        assert here.command("nginx") == ["nginx", "-g", "daemon off;"]
        assert SERVICES["nginx"]["volumes"] == ["./nginx.conf:/etc/nginx/conf.d/default.conf:ro"]
        ports = [int(url.rpartition(":")[2]) for url in urls]
        front = stack.enter_context(proxy("nginx", server_folder(), ports))
        yield front.url, urls


def editor(url: str, token: str) -> connect:
    address = f"ws{url.removeprefix('http')}/yjs/notes/plan"
    return connect(address, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None)


async def test_three_nodes_redis_and_nginx_start_with_these_commands_and_act_as_one() -> None:
    needs("redis")
    needs("nginx")
    here = Here()
    async with deployed(here) as (site, urls), asyncio.timeout(PATIENCE_SECONDS):
        async with httpx.AsyncClient(base_url=site, headers={"Authorization": f"Bearer {TOKEN}"}) as backend:
            grants = [{"documents": "notes/**", "access": "write"}]
            body = {"user_id": "ada", "activate": True, "grants": grants}
            issued = (await backend.post("/sessions", json=body)).json()
            async with editor(site, issued["token"]) as through_nginx:
                await YClient(through_nginx).send(edit("through nginx"))
                await YClient(through_nginx).missing()
            async with (
                editor(urls[0], issued["token"]) as first,
                editor(urls[2], issued["token"]) as last,
            ):
                writer, reader = YClient(first), YClient(last)
                await writer.missing()
                await reader.missing()
                await writer.send(edit("and to another node, "))
                await reader.next(UPDATE)
                seen = text_of(await reader.missing())
                await backend.delete("/users/ada/sessions")
                await last.wait_closed()
        async with httpx.AsyncClient() as probe:
            readiness = [(await probe.get(f"{url}/health/ready")).status_code for url in urls]

        code, said, _ = await outcome("nodes", "--json", environment=here.environment("node-2"))

    assert code == 0
    listed = json.loads(said)["nodes"]
    assert [each["id"].rpartition("-")[0] for each in listed] == list(NODES)
    assert [each["address"] for each in listed] == urls
    assert "and to another node, " in seen
    assert last.close_code == 4401
    assert readiness == [200, 200, 200]


def test_the_health_of_a_node_is_asked_where_it_listens() -> None:
    for service in NODES:
        port = SERVICES[service]["command"].rpartition("--port ")[2]
        check = SERVICES[service]["healthcheck"]["test"]

        assert check == f"curl --fail --silent http://localhost:{port}/health/ready"


@pytest.mark.parametrize("missing", VARIABLES)
def test_without_its_keys_it_does_not_start(missing: str) -> None:
    texts = [value for service in NODES for value in SERVICES[service]["environment"].values()]

    assert texts.count(f"${{{missing}:?}}") == len(NODES)
