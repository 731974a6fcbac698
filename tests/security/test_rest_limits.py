"""Limits of REST: who is refused, what it is told, and who is not."""

from datetime import timedelta

import pytest

from roomkey.security.events import SecurityEvent
from roomkey.security.limits import LimitSettings
from tests.support.rest import Rest, documents_at_work

FEW = LimitSettings(
    session_requests_per_second=1,
    session_request_burst=3,
    key_requests_per_second=2,
    key_request_burst=4,
    address_requests_per_second=1,
    address_request_burst=10,
    failures_per_second=1,
    failure_burst=2,
)


def reported(rest: Rest) -> list[SecurityEvent]:
    events: list[SecurityEvent] = []
    rest.events.listen(events.append)
    return events


async def test_a_session_has_a_budget_and_is_told_what_is_left_of_it() -> None:
    rest = Rest(limits=FEW)
    token = (await rest.session()).token
    events = reported(rest)

    answers = [await rest.call("GET", "/sessions/me", token=token) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert {answer.header("ratelimit-policy") for answer in answers} == {'"session";q=3;w=3'}
    assert [answer.header("ratelimit") for answer in answers] == [
        '"session";r=2;t=1',
        '"session";r=1;t=2',
        '"session";r=0;t=3',
        '"session";r=0;t=3',
    ]
    assert (answers[3].code, answers[3].header("retry-after")) == ("rate_limited", "1")
    assert [(event.type, event.cause, event.user) for event in events] == [
        ("rate_limit_exceeded", "rate_limited", "alice")
    ]


async def test_who_comes_back_when_told_is_answered() -> None:
    rest = Rest(limits=FEW)
    token = (await rest.session()).token
    for _ in range(3):
        await rest.call("GET", "/sessions/me", token=token)
    refused = await rest.call("GET", "/sessions/me", token=token)

    rest.clock.advance(timedelta(seconds=int(refused.header("retry-after"))))

    assert (await rest.call("GET", "/sessions/me", token=token)).status == 200


async def test_sessions_do_not_share_a_budget_and_one_has_it_from_wherever_it_asks() -> None:
    rest = Rest(limits=FEW)
    alice, bob = (await rest.session()).token, (await rest.session("bob")).token

    answers = [
        await rest.call("GET", "/sessions/me", token=alice, client=f"198.51.100.{number}") for number in range(4)
    ]

    assert answers[-1].status == 429
    assert (await rest.call("GET", "/sessions/me", token=bob)).status == 200


async def test_a_key_has_a_budget_of_its_own() -> None:
    rest = Rest(limits=FEW)

    statuses = [(await rest.call("GET", "/sessions", token=rest.admin)).status for _ in range(5)]
    other = await rest.call("GET", "/sessions", token=rest.service)

    assert statuses == [200, 200, 200, 200, 429]
    assert other.header("ratelimit-policy") == '"key";q=4;w=2'


async def test_an_address_has_a_budget_whatever_it_asks_for() -> None:
    rest = Rest(limits=FEW)
    events = reported(rest)

    answers = [await rest.call("GET", path) for path in ["/health/live", "/nothing"] * 6]

    assert [answer.status for answer in answers] == [200, 404] * 5 + [429, 429]
    assert answers[1].header("ratelimit") == '"address";r=8;t=2'
    assert answers[10].header("ratelimit") == '"address";r=0;t=10'
    assert [event.address for event in events] == ["198.51.100.1"] * 2
    assert (await rest.call("GET", "/health/live", client="198.51.100.2")).status == 200


async def test_addresses_of_one_ipv6_network_share_a_budget() -> None:
    rest = Rest(limits=FEW)

    statuses = [
        (await rest.call("GET", "/health/live", client=f"2001:db8::{number:x}")).status for number in range(1, 12)
    ]

    assert statuses == [200] * 10 + [429]
    assert (await rest.call("GET", "/health/live", client="2001:db8:0:1::1")).status == 200


async def test_what_an_operator_exempts_is_not_counted() -> None:
    limits = LimitSettings(
        key_request_burst=1, address_request_burst=1, exempt_networks=("198.51.100.0/24",), exempt_keys=("operator",)
    )
    rest = Rest(limits=limits)

    answers = [await rest.call("GET", "/sessions", token=rest.admin) for _ in range(5)]

    assert [answer.status for answer in answers] == [200] * 5
    assert not answers[0].header("ratelimit")


async def test_wrong_tokens_and_keys_make_an_address_wait_longer_each_time() -> None:
    rest = Rest(limits=FEW)
    right = (await rest.session()).token
    assert (await rest.call("GET", "/sessions/me", token=right)).status == 200

    statuses: list[tuple[int, str]] = []
    for token in ("rkey_wrong", "wrong", "rkey_wrong", "wrong", "wrong"):
        answer = await rest.call("GET", "/sessions/me", token=token)
        statuses.append((answer.status, answer.header("retry-after")))
    kept_out = await rest.call("GET", "/sessions", token=rest.admin)
    still_in = await rest.call("GET", "/sessions/me", token=right)

    assert statuses == [(401, "")] * 3 + [(429, "1")] * 2
    assert (kept_out.status, kept_out.code) == (429, "rate_limited")
    assert still_in.status == 200
    rest.clock.advance(timedelta(seconds=1))
    assert (await rest.call("GET", "/sessions/me", token="wrong")).status == 401
    assert (await rest.call("GET", "/sessions/me", token="wrong")).header("retry-after") == "2"


async def test_a_session_that_has_ended_is_no_wrong_token() -> None:
    rest = Rest(limits=FEW)
    issued = await rest.session()
    await rest.sessions.invalidate_session(issued.id)

    statuses = [(await rest.call("GET", "/sessions/me", token=issued.token)).status for _ in range(10)]

    assert statuses == [410] * 10


@pytest.mark.parametrize("path", ["/documents/notes", "/sessions"])
async def test_a_refused_request_costs_neither_a_body_nor_a_question_to_storage(path: str) -> None:
    async with documents_at_work(limits=FEW) as rest:
        token = (await rest.session()).token
        for _ in range(3):
            await rest.call("GET", "/sessions/me", token=token)

        refused = await rest.call("PUT" if "doc" in path else "POST", path, token=token, body=[b"x"] * 100)

        assert refused.status == 429
