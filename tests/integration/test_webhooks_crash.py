"""Killed at any moment, neither the server nor the receiver costs an event: each comes at least once."""

import asyncio
import json
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.receiver import SECRET, receiver_process
from tests.support.server import running_server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(port: int) -> Mapping[str, str]:
    endpoint = {"name": "search", "url": f"http://127.0.0.1:{port}/", "secrets": [SECRET], "allow_private": True}
    return {
        "ROOMKEY_WEBHOOKS_ENDPOINTS": json.dumps([endpoint]),
        "ROOMKEY_HOOKS_DEBOUNCE": "300ms",
        "ROOMKEY_HOOKS_MAX_WAIT": "1s",
    }


def changed(received: Sequence[Mapping[str, Any]]) -> set[str]:
    return {each["document"] for each in received if each["type"] == "document.changed"}


async def write_until_it_dies(url: str, life: int, acknowledged: set[str], enough: asyncio.Event) -> None:
    """Make documents one after the other, and note each whose answer came."""
    async with httpx.AsyncClient(base_url=url) as http:
        for number in range(10_000):
            name = f"life {life} {number}"
            try:
                answer = await http.put(f"/documents/{name}", json={"content": "x"})
            except httpx.HTTPError:
                return
            assert answer.status_code == 201, answer.text
            acknowledged.add(name)
            if number == 40:
                enough.set()


async def test_a_server_that_is_killed_has_lost_no_event(tmp_path: Path) -> None:
    port, acknowledged = free_port(), set[str]()
    storage = f"lmdb://{tmp_path / 'data'}"
    with receiver_process(port, tmp_path / "received") as receiver:
        for life in range(2):
            async with running_server(storage=storage, environment=environment(port)) as server:
                enough = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    for writer in range(3):
                        group.create_task(write_until_it_dies(server.url, 10 * life + writer, acknowledged, enough))
                    await enough.wait()
                    await server.stop(signal.SIGKILL)
        async with running_server(storage=storage, environment=environment(port)):
            received = await receiver.until(
                lambda received: (
                    changed(received) >= acknowledged
                    and {each["document"] for each in received if each["type"] == "document.created"} >= acknowledged
                )
            )

    assert len(acknowledged) > 100
    assert len({each["id"] for each in received if each["type"] == "document.created"}) >= len(acknowledged)


async def test_a_receiver_that_is_killed_is_sent_everything_under_the_same_ids(tmp_path: Path) -> None:
    port, names = free_port(), {f"notes {number}" for number in range(300)}
    storage = f"lmdb://{tmp_path / 'data'}"
    async with running_server(storage=storage, environment=environment(port)) as server:
        with receiver_process(port, tmp_path / "received") as receiver:
            async with httpx.AsyncClient(base_url=server.url) as http, asyncio.TaskGroup() as group:
                for name in sorted(names):
                    group.create_task(http.put(f"/documents/{name}", json={"content": "x"}))
                await receiver.until(lambda received: len(received) > 50)
                receiver.kill()
            receiver.start()
            received = await receiver.until(lambda received: changed(received) >= names)

    by_id = {each["id"]: (each["type"], each["document"]) for each in received}
    created = [document for type, document in by_id.values() if type == "document.created"]
    assert sorted(created) == sorted(names)  # what came twice came under one id


@pytest.mark.parametrize("number", [signal.SIGTERM])
async def test_a_server_that_stops_has_put_everything_in_the_outbox(tmp_path: Path, number: signal.Signals) -> None:
    port, storage = free_port(), f"lmdb://{tmp_path / 'data'}"
    async with running_server(storage=storage, environment=environment(port)) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            await http.put("/documents/plan", json={"content": "x"})
        await server.stop(number)
    with receiver_process(port, tmp_path / "received") as receiver:
        async with running_server(storage=storage, environment=environment(port)):
            received = await receiver.until(lambda received: "document.changed" in {each["type"] for each in received})

    assert {each["document"] for each in received} == {"plan"}


async def test_when_the_node_that_sends_is_killed_another_one_goes_on(tmp_path: Path) -> None:
    port, storage = free_port(), f"lmdb://{tmp_path / 'data'}"
    with receiver_process(port, tmp_path / "received") as receiver:
        async with (
            running_server(storage=storage, environment=environment(port)) as first,
            running_server(storage=storage, environment=environment(port)) as second,
        ):
            async with httpx.AsyncClient() as http:
                for number in range(5):
                    await http.put(f"{first.url}/documents/first {number}", json={"content": "x"})
                await receiver.until(lambda received: received)
                await first.stop(signal.SIGKILL)
                for number in range(5):
                    await http.put(f"{second.url}/documents/second {number}", json={"content": "x"})
            received = await receiver.until(
                lambda received: (
                    len({each["document"] for each in received if each["type"] == "document.changed"}) == 10
                )
            )

    created = [each["id"] for each in received if each["type"] == "document.created"]
    assert len(set(created)) == 10
