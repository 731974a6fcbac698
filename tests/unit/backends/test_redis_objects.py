"""What Redis sends of objects is what was asked for."""

from roomkey.backends.redis.objects import RedisObjectStore
from roomkey.backends.redis.server import RedisServer
from tests.support.store_servers import RedisProcess


def sent(server: RedisProcess) -> int:
    """How many bytes it has sent so far, to whomever."""
    return server.ask("INFO", "stats")["total_net_output_bytes"]


async def test_a_list_brings_nothing_of_what_lies_behind_its_prefix(redis_url: str, redis_server: RedisProcess) -> None:
    async with RedisServer(redis_url) as server, RedisObjectStore(server) as objects:
        await objects.commit("audit", {"log/batch/1": b"small", "log/entries/1": bytes(500_000)})

        before = sent(redis_server)
        found = await objects.list("audit", prefix="log/batch/")
        after = sent(redis_server)

    assert [each.name for each in found] == ["log/batch/1"]
    assert after - before < 100_000
