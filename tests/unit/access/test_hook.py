"""The application's hook is asked in a signed request, and only a clear answer from where it was configured counts."""

import hmac
import json
from base64 import b64decode, b64encode
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from roomkey.access.decisions import NoAnswer
from roomkey.access.hook import MAX_ANSWER_BYTES, AccessHook
from roomkey.access.settings import AccessSettings, check_secret, check_url
from roomkey.domain.access import Access
from roomkey.testing.clock import ManualClock
from tests.support.access import NOON, SECRET, Hook, a_hook, a_session

ALICE = a_session()
WRITE = (200, b'{"access": "write"}')


async def asked(hook: Hook, **settings: Any) -> Access | None:
    asking = AccessHook(AccessSettings(url=hook.url, secret=SECRET, **settings), ManualClock(NOON))
    async with asking.at_work():
        return await asking(ALICE, "plan/a")


@pytest.mark.parametrize(
    ("body", "access"),
    [(b'{"access": "read"}', Access.READ), (b'{"access": null}', None), (b'{"access":"admin","x":1}', Access.ADMIN)],
)
async def test_the_answer_says_what_the_session_may_do(body: bytes, access: Access | None) -> None:
    async with a_hook((200, body)) as hook:
        assert await asked(hook) is access


async def test_whoever_has_the_secret_can_verify_who_asks() -> None:
    async with a_hook(WRITE) as hook:
        await asked(hook)

    headers, body = hook.headers[0], hook.bodies[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(b64decode(SECRET.removeprefix("whsec_")), signed, sha256).digest()
    assert headers["webhook-signature"] == "v1," + b64encode(expected).decode()
    assert headers["webhook-timestamp"] == str(int(NOON.timestamp()))
    question = json.loads(body)
    assert (question["document"], question["session"]["user_id"]) == ("plan/a", "alice")
    assert question["session"]["id"] == ALICE.id


async def test_it_is_asked_again_by_the_same_id_if_it_may_know_better_in_a_moment() -> None:
    async with a_hook((503, b""), WRITE) as hook:
        assert await asked(hook) is Access.WRITE

    assert len({headers["webhook-id"] for headers in hook.headers}) == 1
    assert len(hook.headers) == 2


@pytest.mark.parametrize("status", [201, 204, 302, 307, 400, 401, 403, 404, 500, 502, 503])
async def test_no_other_status_is_an_answer_and_no_redirect_is_followed(status: int) -> None:
    async with a_hook(WRITE) as elsewhere, a_hook((status, WRITE[1])) as hook:
        hook.more_headers = f"location: {elsewhere.url}\r\n"
        with pytest.raises(NoAnswer):
            await asked(hook)

    assert not elsewhere.headers


NONSENSE = [b"", b"null", b"{}", b'"write"', b'{"access": "owner"}', b'{"access": true}', b"\xff", b"[" * 4000]


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: str(body[:12]))
async def test_nonsense_is_no_answer(body: bytes) -> None:
    async with a_hook((200, body)) as hook:
        with pytest.raises(NoAnswer, match="did not answer"):
            await asked(hook)


async def test_a_long_answer_is_not_read() -> None:
    async with a_hook((200, b'{"access": "write"}' + b" " * MAX_ANSWER_BYTES)) as hook:
        with pytest.raises(NoAnswer, match="more than"):
            await asked(hook)


async def test_what_is_slow_or_not_there_is_away() -> None:
    async with a_hook(WRITE) as hook:
        hook.may_answer.clear()
        with pytest.raises(NoAnswer, match="within") as slow:
            await asked(hook, timeout=timedelta(milliseconds=40))
        hook.may_answer.set()
    with pytest.raises(NoAnswer, match="cannot be reached") as gone:
        await asked(hook)

    assert slow.value.is_away
    assert gone.value.is_away


@pytest.mark.parametrize("url", ["ftp://a/b", "https://", "nowhere", "https://me:hunter2@app/x", "http://a:b/", "/x"])
def test_an_address_that_cannot_be_asked_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(is not a URL|has no user)") as refused:
        check_url(url)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!", SECRET.removeprefix("whsec_"), "whsec_é"]
)
def test_a_secret_that_is_too_short_or_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 random bytes"):
        check_secret(secret)
