"""What a whole node says about itself while its parts work, and when one does not."""

from roomkey.errors import Storage
from tests.support.documents import FailingStore, a_site, y_client


class StoreThatIsAway(FailingStore):
    async def ping(self) -> None:
        raise Storage("the documents are away")


async def test_a_node_whose_documents_are_away_is_alive_and_not_ready() -> None:
    async with a_site(store=StoreThatIsAway) as site:
        ready = await site.caller.http.get("/health/ready")
        alive = await site.caller.http.get("/health/live")

    assert ready.status_code == 503
    assert ready.headers["content-type"] == "application/problem+json"
    assert ready.headers["retry-after"]
    assert ready.json()["code"] == "storage"
    assert alive.status_code == 200


async def test_a_node_whose_parts_all_answer_is_ready() -> None:
    async with a_site() as site:
        answer = await site.caller.http.get("/health/ready")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_the_figures_of_a_node_count_the_bytes_of_its_sockets() -> None:
    async with a_site() as site:
        before = await site.node.health.metrics()
        async with y_client(site, await site.token()) as alice:
            await alice.missing()
            after = await site.node.health.metrics()

    assert (before.total_sessions, before.total_bytes_transferred) == (0, 0)
    assert after.active_sessions == 1
    assert after.total_bytes_transferred > 0
