"""Two servers on one Redis are one server to sessions: revokes, tickets, idempotency keys, limits and caps."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_hex
from time import perf_counter
from typing import Final

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from roomkey.backends import SharedSettings, StoreOptions, Stores
from roomkey.backends.memory.counters import MemoryCounters
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import SessionFilter, SessionState
from roomkey.errors import CapReached
from roomkey.leasing import Chore
from roomkey.ports import OneTimeLimits, Rate, SystemClock
from roomkey.security.budgets import SharedBudgets
from roomkey.sessions.manager import SessionManager
from tests.support.cutting_proxy import cutting_proxy
from tests.support.server import Server, lasting_server, running_server
from tests.support.store_servers.fixtures import with_prefix
from tests.support.store_servers.redis import RedisProcess

ENVIRONMENT: Final = {"ROOMKEY_MASTER_KEY": "k" * 43, "ROOMKEY_REALTIME_MAX_CONNECTIONS_PER_SESSION": "4"}
PATIENCE_SECONDS: Final = 20

Servers = tuple[Server, Server]


@pytest.fixture(scope="module")
def servers(redis_server: RedisProcess) -> Generator[Servers]:
    url = with_prefix(redis_server.url)
    with lasting_server(url, ENVIRONMENT) as first, lasting_server(url, ENVIRONMENT) as second:
        yield first, second


class Client:
    """Somebody who may do everything on one of the servers."""

    def __init__(self, server: Server, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http

    async def session(self, user: str | None = None) -> tuple[str, str]:
        """The id and the token of a new session."""
        made = await self.http.post("/sessions", json={"user_id": user or token_hex(8), "activate": True})
        token = made.json()["token"]
        return token.partition(".")[0], token

    async def socket(self, token: str) -> ClientConnection:
        return await connect(self.server.websocket_url, additional_headers={"authorization": f"Bearer {token}"})

    async def checks(self) -> dict[str, str]:
        return (await self.http.get("/health")).json()["checks"]


@asynccontextmanager
async def clients_of(servers: Servers) -> AsyncGenerator[tuple[Client, Client]]:
    async with AsyncExitStack() as stack:
        one, other = [
            Client(
                server,
                await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS)),
            )
            for server in servers
        ]
        yield one, other


async def closed(socket: ClientConnection) -> tuple[int, float]:
    """The code with which it was closed, and when."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await socket.wait_closed()
    return socket.close_code or 0, perf_counter()


async def test_a_revoke_on_one_server_closes_sockets_on_the_other_at_once(servers: Servers) -> None:
    took = list[float]()
    async with clients_of(servers) as (one, other):
        for _ in range(20):
            id, token = await one.session()
            socket = await other.socket(token)
            asking = asyncio.create_task(closed(socket))
            began = perf_counter()
            await one.http.put(f"/sessions/{id}/invalidate")
            code, at = await asking
            took.append(at - began)
            refused = await other.http.get("/sessions/me", headers={"authorization": f"Bearer {token}"})

            assert code == 4401
            assert refused.status_code == 410

    took.sort()
    assert took[len(took) // 2] < 0.25  # 20 ms and less on a machine at rest: the log alone takes half a second


async def test_a_revoked_user_and_a_suspended_session_are_out_on_the_other_server(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        user = token_hex(8)
        (first, token), (_, second_token) = await one.session(user), await other.session(user)
        suspended, still = await other.socket(token), await other.socket(second_token)

        await one.http.put(f"/sessions/{first}/suspend")
        codes = [(await closed(suspended))[0]]
        await one.http.delete(f"/users/{user}/sessions")
        codes.append((await closed(still))[0])

        assert codes == [4423, 4401]


async def test_of_two_that_redeem_a_ticket_at_once_on_two_servers_one_gets_in(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        _, token = await one.session()
        bearer = {"authorization": f"Bearer {token}"}
        for _ in range(10):
            ticket = (await one.http.post("/sessions/me/tickets", headers=bearer)).json()["ticket"]

            answers = await asyncio.gather(
                *(connect(f"{each.server.websocket_url}?ticket={ticket}") for each in (one, other)),
                return_exceptions=True,
            )

            opened = [each for each in answers if isinstance(each, ClientConnection)]
            refused = [each.response.status_code for each in answers if isinstance(each, InvalidStatus)]
            for socket in opened:
                await socket.close()
            assert (len(opened), refused) == (1, [401])


async def test_a_request_that_is_sent_to_two_servers_at_once_is_done_once(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        for _ in range(10):
            user, key = token_hex(8), {"idempotency-key": token_hex(8)}

            answers = await asyncio.gather(
                *(each.http.post("/sessions", json={"user_id": user}, headers=key) for each in (one, other))
            )
            there = (await one.http.get("/sessions", params={"user_id": user})).json()

            assert len(there["sessions"]) == 1
            assert 201 in [answer.status_code for answer in answers]
            assert {answer.status_code for answer in answers} <= {201, 409}


async def test_a_session_has_four_connections_on_both_servers_together(servers: Servers) -> None:
    async with clients_of(servers) as (one, other):
        _, token = await one.session()
        sockets = [await each.socket(token) for each in (one, other, one, other)]

        with pytest.raises(InvalidStatus) as fifth:
            await one.socket(token)
        await sockets.pop().close()
        for _ in range(100):
            try:
                sockets.append(await one.socket(token))
                break
            except InvalidStatus:
                await asyncio.sleep(0.05)
        for socket in sockets:
            await socket.close()

        assert fifth.value.response.status_code == 429
        assert len(sockets) == 4


async def test_health_and_the_log_say_what_is_joined(servers: Servers) -> None:
    async with clients_of(servers) as (_, other):
        checks = await other.checks()  # it came second, so it knows both from the start

        assert checks["nodes"].startswith("2: ")
        assert {"broker", "event log", "near cache"} <= checks.keys()
        assert "storage_shared" in servers[1].errors
        assert "messages per session" in servers[1].errors.rpartition("of_each_process_alone")[2]


# --- caps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
async def test_of_a_hundred_that_are_created_on_three_nodes_at_once_as_many_are_live_as_the_cap_says(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    policy = SessionPolicy(cap=7)
    async with AsyncExitStack() as stack:
        stores = [Stores(StoreOptions(migrate=True)).sessions(url) for _ in range(3)]
        managers = [SessionManager(await stack.enter_async_context(store), policy=policy) for store in stores]

        made = await asyncio.gather(
            *(managers[number % 3].create_session("ada", activate=False) for number in range(100)),
            return_exceptions=True,
        )
        live = await managers[0].count_sessions(SessionFilter(user_id="ada", state=SessionState.PENDING))

    assert [each for each in made if isinstance(each, BaseException) and not isinstance(each, CapReached)] == []
    assert live == 7


async def test_an_address_has_one_budget_and_the_janitor_one_lease_on_two_nodes(redis_url: str) -> None:
    clock = SystemClock()
    settings = SharedSettings(tickets=OneTimeLimits(), answers=OneTimeLimits(), clock=clock, secret=b"s" * 32)
    rate = Rate(per_second=0.01, burst=4)
    async with AsyncExitStack() as stack:
        budgets, chores = list[SharedBudgets](), list[Chore]()
        for name in ("one", "other"):
            shared = Stores().shared(redis_url, settings)
            await shared.join(name)
            stack.push_async_callback(shared.leave)
            budgets.append(SharedBudgets(shared.counters, MemoryCounters(clock)))
            chores.append(Chore(shared.leases, "janitor", name, keeps=True))

        waits = [await budgets[number % 2].take("192.0.2.1", rate) for number in range(12)]
        turns = [await chore.attempt(_token) is not None for chore in (*chores, *chores)]
        await chores[0].release()

        assert waits.count(0.0) == 4
        assert turns == [True, False, True, False]
        assert await chores[1].attempt(_token) is not None


async def _token(token: int) -> int:
    return token


# --- a server that is cut off ---------------------------------------------------------------------------


async def test_a_server_that_is_cut_off_from_redis_lets_nobody_in_closes_its_sockets_and_comes_back(
    redis_server: RedisProcess, redis_url: str
) -> None:
    environment = {**ENVIRONMENT, "ROOMKEY_NODES_BLIND_GRACE": "2s"}
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(cutting_proxy(redis_server.port))
        one, cut = [
            await stack.enter_async_context(running_server(storage=url, environment=environment))
            for url in (redis_url, proxy.through(redis_url))
        ]
        here, there = await stack.enter_async_context(clients_of((one, cut)))
        (revoked, token), (_, other_token) = await here.session(), await here.session()
        gone, stays = await there.socket(token), await here.socket(other_token)

        proxy.stall()
        began = perf_counter()
        await here.http.put(f"/sessions/{revoked}/invalidate")
        code, at = await closed(gone)
        with pytest.raises(InvalidStatus) as refused:
            await there.socket(other_token)
        proxy.resume()
        back = await let_in(there, other_token)
        with pytest.raises(InvalidStatus) as ended:
            await there.socket(token)

        assert code == 1013
        assert 3.0 < at - began < 6.0
        assert refused.value.response.status_code == 503
        assert ended.value.response.status_code == 410
        assert "blind" in cut.errors
        assert stays.close_code is None
        for socket in (back, stays):
            await socket.close()


async def let_in(client: Client, token: str) -> ClientConnection:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await client.socket(token)
            except InvalidStatus:
                await asyncio.sleep(0.1)
