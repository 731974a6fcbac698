"""Keys of issuers are fetched when they are needed, and no oftener; nobody gets in with one that is not there."""

import asyncio
from collections.abc import Generator

import pytest

from roomkey.errors import IssuerAway
from roomkey.issuers.key_sets import AGAIN_SECONDS, FRESH_SECONDS, MAX_SET_BYTES, STALE_SECONDS, KeySets
from roomkey.issuers.settings import Issuer
from tests.support.issuers import AUDIENCE, NAME, KeyServer, key_server, key_set, new_key

FIRST, SECOND = new_key(id="first"), new_key(id="second")


class Timer:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Generator[KeyServer]:
    with key_server(key_set(FIRST)) as server:
        yield server


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def issuer(server: KeyServer) -> Issuer:
    return Issuer(issuer=NAME, audience=AUDIENCE, key_set=server.url)


@pytest.fixture
def sets(issuer: Issuer, timer: Timer) -> KeySets:
    return KeySets([issuer], now=timer)


async def ids(sets: KeySets, issuer: Issuer, id: str | None, algorithm: str = "ES256") -> list[str | None]:
    return [key.kid for key in await sets.find(issuer, id, algorithm)]


async def test_keys_are_fetched_once_however_many_ask(server: KeyServer, issuer: Issuer, sets: KeySets) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ids(sets, issuer, "first")) for _ in range(50)]

    assert {tuple(each.result()) for each in asked} == {("first",)}
    assert server.asked == 1
    assert not sets.degradations()


async def test_a_key_that_is_new_is_fetched(server: KeyServer, issuer: Issuer, sets: KeySets, timer: Timer) -> None:
    await ids(sets, issuer, "first")
    server.content = key_set(FIRST, SECOND)
    timer.now += AGAIN_SECONDS

    assert await ids(sets, issuer, "second") == ["second"]
    assert server.asked == 2


async def test_keys_that_nobody_has_are_asked_for_now_and_then(
    server: KeyServer, issuer: Issuer, sets: KeySets, timer: Timer
) -> None:
    for number in range(100):
        assert await ids(sets, issuer, f"made up {number}") == []
    assert server.asked == 1

    timer.now += AGAIN_SECONDS
    assert await ids(sets, issuer, "made up") == []
    assert server.asked == 2


async def test_a_key_that_was_withdrawn_opens_nothing_soon(
    server: KeyServer, issuer: Issuer, sets: KeySets, timer: Timer
) -> None:
    await ids(sets, issuer, "first")
    server.content = key_set(SECOND)

    timer.now += FRESH_SECONDS + 1
    assert await ids(sets, issuer, "first") == []


async def test_while_the_issuer_is_away_its_keys_go_on_for_a_day_and_health_says_so(
    server: KeyServer, issuer: Issuer, sets: KeySets, timer: Timer
) -> None:
    await ids(sets, issuer, "first")
    server.status = 500

    timer.now += FRESH_SECONDS + 1
    assert await ids(sets, issuer, "first") == ["first"]
    assert "answered 500" in sets.degradations()[f"issuer {NAME}"]

    timer.now += STALE_SECONDS
    with pytest.raises(IssuerAway):
        await ids(sets, issuer, "first")

    server.status = 200
    timer.now += AGAIN_SECONDS
    assert await ids(sets, issuer, "first") == ["first"]
    assert not sets.degradations()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a JWK set"),
        (b"<html>", "not a JWK set"),
        (b"[]", "not a JWK set"),
        (b'{"keys": {}}', "not a JWK set"),
        (b'{"keys": [7]}', "not a JWK set"),
        (b'{"keys": [{"kty": "EC", "crv": "\xe2"}]}', "not a JWK set"),
        (b"[" * 100_000, "not a JWK set"),
        (b'{"keys": []}', "no key"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "no key"),
        (key_set(FIRST) + b" " * MAX_SET_BYTES, "more than 256 KiB"),
    ],
)
async def test_what_is_no_key_set_lets_nobody_in(
    server: KeyServer, issuer: Issuer, sets: KeySets, content: bytes, why: str
) -> None:
    server.content = content

    with pytest.raises(IssuerAway, match=why):
        await sets.find(issuer, None, "ES256")


async def test_redirects_are_not_followed(server: KeyServer, issuer: Issuer, sets: KeySets) -> None:
    with key_server(key_set(SECOND)) as other:
        server.status, server.headers = 302, {"location": other.url}

        with pytest.raises(IssuerAway, match="answered 302"):
            await sets.find(issuer, None, "ES256")
        assert other.asked == 0


async def test_a_server_that_is_not_there_is_said(sets: KeySets) -> None:
    with key_server() as gone:
        issuer = Issuer(issuer=NAME, audience=AUDIENCE, key_set=gone.url)

    with pytest.raises(IssuerAway, match="cannot be reached: ConnectError"):
        await sets.find(issuer, None, "ES256")


async def test_an_address_that_is_none_lets_nobody_in() -> None:
    issuer = Issuer(issuer=NAME, audience=AUDIENCE, key_set="https://a\tb.example:99999/keys")

    with pytest.raises(IssuerAway):
        await KeySets([issuer]).find(issuer, None, "ES256")


async def test_the_key_fits_the_algorithm_as_far_as_it_says(issuer: Issuer, server: KeyServer, sets: KeySets) -> None:
    server.content = key_set(new_key(id="a", alg="ES512"), new_key(id="b", alg="ES256"), new_key(id="c"))

    assert await ids(sets, issuer, None) == ["b", "c"]
    assert await ids(sets, issuer, "a") == []
