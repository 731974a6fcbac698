"""What one address may have of a server, over real sockets: others have the rest."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from roomkey.realtime.transport import Accepted, Handshake, Refused
from roomkey.transports import TransportSettings
from tests.support.attacks import Target, under_attack
from tests.support.rawsocket import Conversation, Door, RawClient, connected, serving

BEHIND_A_PROXY: Final = ("--set", 'server.trusted_proxies=["127.0.0.0/8"]')
PART: Final = 60_000
"""Of a body: it is in memory, and the rest does not come."""


def of(address: str) -> bytes:
    return b"x-forwarded-for: %b\r\n" % address.encode()


async def opened_from(stack: AsyncExitStack, target: Target, address: str, token: str) -> int:
    """The status of a handshake; the connection stays."""
    client = await stack.enter_async_context(connected(target.server.port))
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
    return (await client.upgrade("/ws", headers)).status


async def test_an_address_has_only_so_many_sockets_and_a_64_of_ipv6_is_one_address() -> None:
    async with under_attack("--set", "limits.max_sockets_per_address=3", *BEHIND_A_PROXY) as target:
        token = await target.session()
        async with AsyncExitStack() as stack:
            statuses = [await opened_from(stack, target, "203.0.113.7", token) for _ in range(5)]
            others = [await opened_from(stack, target, f"2001:db8:0:1::{number}", token) for number in range(1, 6)]
            next_64 = await opened_from(stack, target, "2001:db8:0:2::1", token)
        async with AsyncExitStack() as stack, asyncio.timeout(30):
            while await opened_from(stack, target, "203.0.113.7", token) != 101:
                pass  # until the server has heard that the others have gone

        assert statuses == others == [101, 101, 101, 429, 429]
        assert next_64 == 101
        assert target.server.errors.count("too_many_connections") == 2


async def test_requests_are_counted_by_64_and_another_one_has_its_own_budget() -> None:
    few = ("--set", "limits.address_request_burst=5", "--set", "limits.address_requests_per_second=0.001")
    async with under_attack(*few, *BEHIND_A_PROXY) as target, connected(target.server.port) as client:

        async def status(address: str) -> int:
            client.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\n", of(address), b"\r\n")
            return (await client.response()).status

        own = [await status(f"2001:db8:0:1:{number:x}::1") for number in range(1, 8)]
        assert own == [200] * 5 + [429] * 2
        assert await status("2001:db8:0:2::1") == 200
        assert await status("::ffff:203.0.113.9") == 200
        assert [await status("203.0.113.9") for _ in range(5)] == [200] * 4 + [429]


@asynccontextmanager
async def arriving(target: Target, token: str, addresses: Sequence[str]) -> AsyncGenerator[list[RawClient]]:
    """A body from each address, of which a part has come."""
    head = b"PUT /documents/a HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 1000000\r\n"
    async with AsyncExitStack() as stack:
        clients: list[RawClient] = []
        for address in addresses:
            client = await stack.enter_async_context(connected(target.server.port))
            client.send(head, of(address), b"authorization: Bearer %b\r\n\r\n" % token.encode(), b"x" * PART)
            clients.append(client)
        yield clients


async def refused(clients: Sequence[RawClient], count: int) -> list[int]:
    """The statuses of the first ``count`` that are answered before their bodies are whole."""
    statuses: list[int] = []
    async with asyncio.timeout(30):
        for answered in asyncio.as_completed([client.response() for client in clients]):
            statuses.append((await answered).status)
            if len(statuses) == count:
                return statuses
    return statuses


async def test_an_address_holds_only_so_many_bytes_of_bodies() -> None:
    share = ("--set", f"limits.max_address_body_bytes={3 * PART + 1000}")
    async with under_attack(*share, *BEHIND_A_PROXY) as target:
        token = await target.session()
        others = ["2001:db8:0:1::1", "203.0.113.8"]
        async with arriving(target, token, others) as honest:
            async with arriving(target, token, [f"2001:db8:0:2::{number}" for number in range(1, 7)]) as clients:
                assert await refused(clients, 3) == [429] * 3
            honest[0].send(b"x" * (1_000_000 - PART))  # beyond the share of the address
            assert (await honest[0].response()).status == 429
        assert await target.is_served()


async def test_all_bodies_together_are_only_so_many_bytes() -> None:
    most = ("--set", f"limits.max_body_bytes={3 * PART + 1000}")
    async with under_attack(*most, *BEHIND_A_PROXY) as target:
        token = await target.session()
        async with arriving(target, token, [f"203.0.113.{number}" for number in range(1, 7)]) as clients:
            assert await refused(clients, 3) == [503] * 3
        assert await target.is_served()


async def test_one_address_has_half_of_the_handshakes_that_are_being_decided() -> None:
    deciding, go = asyncio.Event(), asyncio.Event()
    waiting: list[str | None] = []

    async def slow(handshake: Handshake) -> Accepted | Refused:
        waiting.append(handshake.client_ip)
        if len(waiting) == 3:
            deciding.set()
        await go.wait()
        return Accepted(conversation=Conversation(), max_message_bytes=1000)

    settings = TransportSettings(max_handshakes=6)
    async with serving("picows", Door(slow), settings) as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(5)]
        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            first = [group.create_task(client.upgrade()) for client in clients[:3]]
            await deciding.wait()
            refusals = [(await client.upgrade()).status for client in clients[3:]]
            go.set()

    assert refusals == [503, 503]
    assert [task.result().status for task in first] == [101] * 3
    assert waiting == ["127.0.0.1"] * 3
