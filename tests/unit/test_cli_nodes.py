"""``roomkey nodes``: who works together, and what is said where nothing joins anybody."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from roomkey.cli import main
from roomkey.cli.outcome import Exit
from roomkey.security import apikeys, masterkey
from tests.support.server import outcome, running_server

PATIENCE_SECONDS = 20

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("storage", ["memory", "lmdb"])
def test_where_nothing_joins_nodes_it_is_said_with_what_would(storage: str, tmp_path: Path, capsys: Capture) -> None:
    place = storage if storage == "memory" else f"lmdb://{tmp_path}"

    code = main(("nodes", "--storage", place))
    said = capsys.readouterr().out
    main(("nodes", "--storage", place, "--json"))
    for_programs = json.loads(capsys.readouterr().out)

    assert code == Exit.DONE
    assert "every server of this configuration is a node alone" in said
    assert 'url = "redis://' in said
    assert for_programs == {"joined": False, "nodes": []}
    assert list(tmp_path.iterdir()) == []


async def test_it_lists_those_that_live_and_says_which_of_them_drain(redis_url: str) -> None:
    token, digest = apikeys.mint()
    keys = {"ROOMKEY_MASTER_KEY": masterkey.generate(), "ROOMKEY_API_KEYS": f"backend:admin:{digest}"}
    options = ("--workers", "2", "--set", "server.node=here", "--set", "http.body_timeout=10m")
    async with running_server(*options, storage=redis_url, dev=False, environment=keys) as server:
        _, table, errors = await outcome("nodes", "--storage", redis_url, environment=keys)
        async with unfinished_request(server.port, token):
            server.process.send_signal(signal.SIGTERM)
            await server.says("stopping")
            _, for_programs, _ = await outcome("nodes", "--storage", redis_url, "--json", environment=keys)
    code, afterwards, _ = await outcome("nodes", "--storage", redis_url, environment=keys)

    head, *rows = [line.split() for line in table.splitlines()]
    assert " ".join(head) == "node version up address sockets rooms lag ms state"
    assert [row[0].startswith("here-") for row in rows] == [True, True]
    assert {row[3] for row in rows} == {server.url}
    assert {row[-1] for row in rows} == {"serving"}
    assert errors == ""
    assert {node["draining"] for node in json.loads(for_programs)["nodes"]} == {True}  # perhaps one has ended already
    assert code == 0
    assert afterwards.startswith("No node lives")


@asynccontextmanager
async def unfinished_request(port: int, token: str) -> AsyncGenerator[None]:
    """A request that keeps its worker from ending: it has been taken, and its body does not come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert b" 100 " in await reader.readline()
    yield
    writer.close()
