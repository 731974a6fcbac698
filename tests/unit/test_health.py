"""What a node says about itself, made of what its parts say."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.documents.open_documents import OpenDocuments
from roomkey.errors import Storage
from roomkey.health import PING_SECONDS, Health
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from tests.support.exchange import Exchange
from tests.support.loops import in_no_time
from tests.support.rest import a_library


class Ailing:
    def degradations(self) -> Mapping[str, str]:
        return {"janitor": "failed at 12:00:00Z"}


class Well:
    def degradations(self) -> Mapping[str, str]:
        return {}


class BrokenStorage(MemorySessionStorage):
    async def ping(self) -> None:
        raise Storage("the disk is full")


class AilingStorage(MemorySessionStorage):
    def degradations(self) -> Mapping[str, str]:
        return {"damaged sessions": "1 record"}


class AilingDocuments(MemoryDocumentStore):
    def degradations(self) -> Mapping[str, str]:
        return {"damaged documents": "1 record"}


class SilentStorage(MemorySessionStorage):
    async def ping(self) -> None:
        await asyncio.Event().wait()


class SilentDocuments(MemoryDocumentStore):
    async def ping(self) -> None:
        await asyncio.Event().wait()


async def test_a_part_that_is_degraded_degrades_the_whole_and_is_named() -> None:
    well = await Health(SessionManager(MemorySessionStorage()), background=Well()).status()
    ailing = await Health(SessionManager(MemorySessionStorage()), background=Ailing()).status()

    assert (well.status, well.checks) == ("healthy", {"storage": "ok"})
    assert (ailing.status, ailing.checks) == ("degraded", {"storage": "ok", "janitor": "failed at 12:00:00Z"})


async def test_stores_are_asked_what_is_wrong_with_them() -> None:
    documents = OpenDocuments(AilingDocuments(), clock=ManualClock(datetime(2026, 1, 2, tzinfo=UTC)))

    status = await Health(SessionManager(AilingStorage()), documents=documents).status()

    assert status.status == "degraded"
    assert status.checks == {"storage": "ok", "damaged sessions": "1 record", "damaged documents": "1 record"}


async def test_a_broker_that_is_away_is_named_with_what_to_do_about_it() -> None:
    exchange = Exchange(ManualClock(datetime(2026, 1, 2, tzinfo=UTC)))
    broker, _ = await exchange.join("n1")
    health = Health(SessionManager(MemorySessionStorage()), broker=broker)
    well = await health.status()
    broker.away = True

    ailing = await health.status()

    assert well.status == "healthy"
    assert ailing.status == "degraded"
    assert ailing.checks["broker"].startswith("it does not answer; ")
    assert "broker.url" in ailing.checks["broker"]


async def test_a_degraded_part_does_not_make_light_of_a_storage_that_is_away() -> None:
    status = await Health(SessionManager(BrokenStorage()), background=Ailing()).status()

    assert status.status == "unhealthy"
    assert status.checks == {"storage": "the disk is full", "janitor": "failed at 12:00:00Z"}


async def test_without_the_storage_of_sessions_nothing_is_ready() -> None:
    health = Health(SessionManager(BrokenStorage()), documents=a_library())

    with pytest.raises(Storage, match="the disk is full"):
        await health.check_readiness()


@in_no_time
async def test_a_storage_of_sessions_that_does_not_answer_in_time_is_away() -> None:
    health = Health(SessionManager(SilentStorage()))

    with pytest.raises(Storage, match="did not answer"):
        await health.check_readiness()

    assert asyncio.get_running_loop().time() == pytest.approx(PING_SECONDS)


@in_no_time
async def test_a_storage_of_documents_that_does_not_answer_in_time_is_away() -> None:
    documents = a_library()
    documents.store = SilentDocuments()
    health = Health(SessionManager(MemorySessionStorage()), documents=documents)

    with pytest.raises(Storage, match="did not answer"):
        await health.check_readiness()

    assert asyncio.get_running_loop().time() == pytest.approx(PING_SECONDS)
