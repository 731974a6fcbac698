"""What waits for an endpoint is sent at least once and in order, whatever the endpoint and the processes do."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.errors import InvalidInput
from roomkey.hooks import deliveries
from roomkey.hooks.events import AnyHookEvent, DocumentChanged, DocumentEntered
from roomkey.hooks.outbox import SPACE, Outbox, decode_entry, out_of
from roomkey.hooks.posting import Answer, NoAnswer
from roomkey.hooks.sending import Sender
from roomkey.hooks.settings import WebhookEndpoint, WebhookSettings
from roomkey.leasing import Chore
from roomkey.testing.clock import ManualClock
from tests.support.receiver import SECRET

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
PATIENCE = 20


def changed(document: str, version: int = 1) -> DocumentChanged:
    return DocumentChanged(document=document, lineage="one", version=version, at=NOON, actor="user:alice")


def entered(document: str, user: str) -> DocumentEntered:
    return DocumentEntered(document=document, at=NOON, actor=f"user:{user}", user_id=user)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # of what happens inside nobody is told
            await asyncio.sleep(0.01)


class Endpoint:
    """What messages are posted to: ``answer`` says what comes of each."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.ids: list[str] = []
        self.is_away = False
        self.poison: set[bytes] = set()
        self.status = 204
        self.attempts = 0

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise NoAnswer("it cannot be reached")
        if any(word in body for word in self.poison):
            return Answer(500)
        if self.status == 204:
            self.bodies.append(body)
            self.ids.append(headers["webhook-id"])
        return Answer(self.status)

    def hold(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Have answers wait: the first event is set when one does, and the second lets them go."""
        held, may_answer = asyncio.Event(), asyncio.Event()
        plain = self.post

        async def hold(headers: Mapping[str, str], body: bytes) -> Answer:
            held.set()
            await may_answer.wait()
            return await plain(headers, body)

        self.post = hold
        return held, may_answer

    def close(self) -> None: ...


class Unread:
    async def attach(self, event: AnyHookEvent, form: str, most: int) -> AnyHookEvent:
        raise AssertionError((event, form, most))


class Post:
    """An outbox and a sender on one store."""

    def __init__(self, objects: MemoryObjectStore | None = None, **settings: Any) -> None:
        self.clock = ManualClock(NOON)
        self.objects = objects or MemoryObjectStore()
        endpoint = WebhookEndpoint(name="search", url="https://app.example.com/", secrets=(SECRET,))
        self.endpoint = Endpoint()
        self.outbox = Outbox(
            self.objects,
            self.clock,
            node="n",
            endpoints=(endpoint,),
            bound=100_000,
            written=lambda _: self.sender.put_in(),
        )
        self.sender = Sender(
            endpoint,
            WebhookSettings(endpoints=(endpoint,), **settings),
            node="n",
            objects=self.objects,
            outbox=self.outbox,
            contents=Unread(),
            posting=self.endpoint,
            clock=self.clock,
            chore=Chore(MemoryLeases(self.clock), "webhook", "n"),
        )

    @asynccontextmanager
    async def sending(self) -> AsyncGenerator[None]:
        running = asyncio.ensure_future(self.sender.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def waiting(self) -> int:
        found = 0
        after = ""
        while some := await self.objects.list(SPACE, prefix=out_of("search"), after=after, limit=1000):
            found += len(some)
            after = some[-1].name
        return found

    async def until_sent(self, *, but: int = 0) -> None:
        """Return when no more than so many messages wait."""
        async with asyncio.timeout(PATIENCE):
            while await self.waiting() > but:  # noqa: ASYNC110  # a store tells nobody
                await asyncio.sleep(0.01)


async def test_what_happens_to_a_document_is_sent_in_its_order() -> None:
    post = Post()
    for number in range(30):
        post.outbox.tell(entered("plan", f"user-{number:02}"))
    await post.outbox.flush()
    async with post.sending():
        await post.until_sent()

    users = [body.split(b'"user_id":"')[1][:7].decode() for body in post.endpoint.bodies]
    assert users == [f"user-{number:02}" for number in range(30)]
    assert len(set(post.endpoint.ids)) == 30


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_while_a_receiver_is_away_there_is_one_change_for_each_document_and_it_comes_when_it_is_back(
    count: int,
) -> None:
    post = Post()
    post.endpoint.is_away = True
    async with post.sending():
        for version in range(1, 4):
            for number in range(count):
                post.outbox.tell(changed(f"document {number}", version))
            await post.outbox.flush()
        waiting, attempts = await post.waiting(), post.endpoint.attempts
        post.endpoint.is_away = False
        await post.until_sent()

    assert waiting == count
    assert attempts < 200  # it is not besieged while it is away
    newest = [body for body in post.endpoint.bodies if b'"version":3' in body]
    assert len(newest) == len(post.endpoint.bodies) == count


async def test_a_message_that_always_fails_holds_up_nothing_but_its_document() -> None:
    post = Post()
    post.endpoint.poison = {b"poison"}
    for number in range(20):
        post.outbox.tell(changed(f"document {number}"))
    post.outbox.tell(changed("poison"))
    await post.outbox.flush()
    async with post.sending():
        await post.until_sent(but=1)

    assert len(post.endpoint.bodies) == 20


async def test_a_message_that_cannot_be_made_holds_up_nothing_but_its_document() -> None:
    post = Post()
    plain = post.endpoint.post

    async def trip(headers: Mapping[str, str], body: bytes) -> Answer:
        if b"poison" in body:
            raise ZeroDivisionError
        return await plain(headers, body)

    post.endpoint.post = trip
    for name in ("poison", "one", "two"):
        post.outbox.tell(changed(name))
    await post.outbox.flush()
    async with post.sending():
        await post.until_sent(but=1)

    assert len(post.endpoint.bodies) == 2


async def test_what_fails_for_too_long_is_given_up_and_recorded() -> None:
    post = Post(retry_for=timedelta(hours=1))
    post.endpoint.poison = {b"poison"}
    post.outbox.tell(changed("poison"))
    await post.outbox.flush()
    post.clock.advance(hours=2)
    async with post.sending():
        await post.until_sent()

    (delivery,) = (await deliveries.page_of(post.objects, "search", None, 10)).deliveries
    assert (delivery.state, delivery.status, delivery.reason) == ("failed", 500, "it answered 500")


async def test_what_is_under_way_is_not_sent_twice_when_more_is_read() -> None:
    post = Post()
    held, may_answer = post.endpoint.hold()
    async with post.sending():
        for number in range(3):
            held.clear()
            post.outbox.tell(entered(f"document {number}", "alice"))
            await post.outbox.flush()
            await held.wait()
        may_answer.set()
        await post.until_sent()

    assert len(post.endpoint.ids) == len(set(post.endpoint.ids)) == 3


async def test_what_comes_while_a_change_is_under_way_is_sent_after_it() -> None:
    post = Post()
    held, may_answer = post.endpoint.hold()
    async with post.sending():
        post.outbox.tell(changed("plan", 1))
        await post.outbox.flush()
        await held.wait()
        post.outbox.tell(changed("plan", 2))
        await post.outbox.flush()
        may_answer.set()
        await post.until_sent()

    assert [b'"version":1' in body for body in post.endpoint.bodies] == [True, False]


async def test_a_message_whose_record_was_not_kept_is_sent_again_under_its_id() -> None:
    objects = MemoryObjectStore()
    first, second = Post(objects), Post(objects)
    first.outbox.tell(changed("plan"))
    await first.outbox.flush()
    commit = objects.commit

    async def lost(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    objects.commit = lost  # it dies before it can write down what it has sent
    async with first.sending():
        await until(lambda: first.endpoint.ids)
    objects.commit = commit
    async with second.sending():
        await second.until_sent()

    assert first.endpoint.ids == second.endpoint.ids


async def test_410_disables_an_endpoint_until_somebody_enables_it() -> None:
    post = Post()
    post.endpoint.status = 410
    post.outbox.tell(changed("before"))
    await post.outbox.flush()
    async with post.sending():
        await until(lambda: post.outbox.disabled)
        attempts = post.endpoint.attempts
        post.outbox.tell(changed("meanwhile"))
        await post.outbox.flush()
        post.endpoint.status = 204
        disabled = post.outbox.disabled["search"]
        await post.outbox.enable("search")
        await post.until_sent()

    assert attempts == 1
    assert "410" in disabled.reason
    assert [b"before" in body for body in post.endpoint.bodies] == [True]


async def test_more_than_may_wait_is_dropped_from_the_front_and_counted() -> None:
    post = Post(max_waiting=50)
    post.endpoint.is_away = True
    for number in range(80):
        post.clock.advance(seconds=1)
        post.outbox.tell(entered("plan", f"user-{number:02}"))
    await post.outbox.flush()
    async with post.sending():
        await post.until_sent(but=50)
        await until(lambda: post.sender.figures is not None and post.sender.figures.dropped)
        assert post.sender.figures is not None
        dropped = post.sender.figures.dropped
        post.endpoint.is_away = False
        await post.until_sent()

    assert dropped == 30


async def test_deliveries_are_kept_in_pages_the_newest_first_and_not_more_than_asked_for() -> None:
    post = Post(keep_deliveries=25)
    async with post.sending():
        for number in range(60):
            post.outbox.tell(changed(f"document {number:02}"))
            if number % 10 == 9:
                post.clock.advance(seconds=1)
                await post.outbox.flush()
                await post.until_sent()
    listed, cursor = list[str](), None
    while True:
        page = await deliveries.page_of(post.objects, "search", cursor, 7)
        listed += [getattr(delivery.event, "document", "") for delivery in page.deliveries]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert 25 <= len(listed) <= 35
    assert {name[:10] for name in listed[:10]} == {"document 5"}
    with pytest.raises(InvalidInput):
        await deliveries.page_of(post.objects, "search", "nonsense", 7)


async def test_an_outbox_whose_store_was_away_has_everything_in_the_end() -> None:
    post = Post()
    for number in range(10):
        post.outbox.tell(changed(f"document {number}"))
    commit = post.objects.commit

    async def fail(*_: Any, **__: Any) -> None:
        post.outbox.tell(changed("document 0", 2))  # while the first one is on its way
        raise ConnectionError

    post.objects.commit = fail
    with pytest.raises(ConnectionError):
        await post.outbox.flush()
    post.objects.commit = commit
    await post.outbox.flush()

    stored = await post.objects.list(SPACE, prefix=out_of("search"))
    events: list[Any] = [decode_entry(each.value).event for each in stored]
    assert len(events) == 10
    assert [event.version for event in events if event.document == "document 0"] == [2]
