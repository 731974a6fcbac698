"""Tokens of issuers over REST: one session for each good one, and none for anybody else."""

from base64 import urlsafe_b64decode
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roomkey.domain.access import Access, Grant
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Session, SessionFilter
from roomkey.ports import Page
from roomkey.security.limits import LimitSettings
from roomkey.testing.clock import ManualClock
from tests.support.issuers import NAME, Provider, in_base64, new_key
from tests.support.proofs import ProofKey
from tests.support.rest import START, Answer, Rest

PATH = "/sessions/exchange"


class Place:
    """An interface, and a provider that it trusts."""

    def __init__(self, folder: Path, *, limits: LimitSettings | None = None, **settings: Any) -> None:
        self.provider = Provider(folder, ManualClock(START))
        policy = SessionPolicy(cap=1000)
        self.rest = Rest(issuers=[self.provider.issuer(**settings)], limits=limits, policy=policy)
        self.provider.clock = self.rest.clock

    async def exchange(self, token: str, *, headers: Any = (), **more: Any) -> Answer:
        return await self.rest.call("POST", PATH, json={"subject_token": token, **more}, headers=headers)

    async def sessions(self) -> list[Session]:
        page = await self.rest.sessions.list_sessions(SessionFilter(), Page(limit=500))
        return [session for session in page.sessions if session.state.is_live]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_whoever_has_a_good_token_gets_a_session(place: Place) -> None:
    answer = await place.exchange(place.provider.token("alice"), activate=True)

    assert answer.status == 201
    assert answer.header("cache-control") == "no-store"
    assert answer.header("location") == f"/sessions/{answer.json['session']['id']}"
    mine = await place.rest.call("GET", "/sessions/me", token=answer.json["token"])
    assert (mine.json["user_id"], mine.json["state"]) == ("alice", "active")


async def test_a_session_is_pending_until_it_activates_itself(place: Place) -> None:
    answer = await place.exchange(place.provider.token())
    session = answer.json["session"]

    assert session["state"] == "pending"
    activated = await place.rest.call("PUT", f"/sessions/{session['id']}/activate", token=answer.json["token"])
    assert activated.json["state"] == "active"


async def test_a_token_is_exchanged_once(place: Place) -> None:
    token = place.provider.token()

    first, second = await place.exchange(token), await place.exchange(token)

    assert (first.status, second.code) == (201, "invalid_token")
    assert "exchanged before" in second.json["detail"]
    place.rest.clock.advance(timedelta(minutes=59))
    assert (await place.exchange(token)).code == "invalid_token"
    assert len(await place.sessions()) == 1


async def test_a_signature_that_is_written_otherwise_makes_no_new_token(place: Place) -> None:
    """ECDSA: with (r, s) the pair (r, n - s) is a signature of the same, and anybody can make it."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    token = place.provider.token()
    signed, _, signature = token.rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    other = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)

    assert (await place.exchange(token)).status == 201
    assert (await place.exchange(f"{signed}.{in_base64(other)}")).code == "invalid_token"


async def test_a_token_can_be_good_for_several_sessions_where_that_is_set(tmp_path: Path) -> None:
    place = Place(tmp_path, one_use=False)
    token = place.provider.token()

    assert [(await place.exchange(token)).status for _ in range(3)] == [201] * 3


async def test_a_token_from_before_does_not_bring_back_a_user_who_was_ended(place: Place) -> None:
    before, later = place.provider.token(jti="1"), place.provider.token(jti="2")
    place.rest.clock.advance(timedelta(seconds=5))
    same = place.provider.token(jti="3")
    await place.rest.sessions.revoke_user("alice")
    assert (await place.exchange(same)).code == "invalid_token"  # in the same second, so it may have been before

    refused = await place.exchange(before)
    place.rest.clock.advance(timedelta(minutes=50))
    still = await place.exchange(later)
    fresh = await place.exchange(place.provider.token())

    assert (refused.code, still.code, fresh.status) == ("invalid_token", "invalid_token", 201)
    assert sum(each.user == "alice" for each in place.rest.reported) == 1  # nothing was made and ended again
    assert (await place.exchange(place.provider.token("bob"))).status == 201


async def test_a_user_who_is_ended_meanwhile_stays_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the token and the session that is made for it."""
    create = place.rest.sessions.create_session

    async def late(*args: Any, **more: Any) -> Any:
        place.rest.clock.advance(timedelta(seconds=1))
        await place.rest.sessions.revoke_user("alice")
        return await create(*args, **more)

    monkeypatch.setattr(place.rest.sessions, "create_session", late)

    assert (await place.exchange(place.provider.token(), activate=True)).code == "invalid_token"
    assert await place.sessions() == []


async def test_with_a_proof_the_session_is_bound_to_its_key(place: Place) -> None:
    key, url = ProofKey(), f"http://rooms.example.com{PATH}"
    proof = key.proof("POST", url, at=place.rest.clock.now().timestamp())

    bound = await place.exchange(place.provider.token(), headers={"dpop": proof})
    again = await place.exchange(place.provider.token("bob"), headers={"dpop": proof})
    wrong = await place.exchange(place.provider.token("eve"), headers={"dpop": proof[:-4] + "AAAA"})

    assert bound.json["session"]["bound_to"] == f"jkt:{key.thumbprint}"
    assert (await place.rest.call("GET", "/sessions/me", token=bound.json["token"])).code == "holder_unproven"
    assert (again.code, wrong.code) == ("invalid_dpop_proof", "invalid_dpop_proof")


async def test_what_users_may_do_is_as_it_was_configured(tmp_path: Path) -> None:
    place = Place(tmp_path, grants=(Grant("shared/**", Access.READ),), user_prefix="acme:")

    answer = await place.exchange(place.provider.token())

    assert answer.json["session"]["grants"] == [{"documents": "shared/**", "access": "read"}]
    assert answer.json["session"]["user_id"] == "acme:alice"


async def test_a_stranger_to_the_configuration_gets_nothing(place: Place) -> None:
    other = place.provider.signed(place.provider.claims(iss="https://evil.example/"), key=new_key())
    session = await place.rest.session()

    for token in (other, place.provider.signed(place.provider.claims(), key=new_key()), "x.y.z", session.token):
        answer = await place.exchange(token)
        assert answer.code == "invalid_token"
        assert token not in answer.body.decode()
    assert [each.id for each in await place.sessions()] == [session.id]


async def test_without_issuers_nobody_gets_in() -> None:
    rest = Rest()

    assert (await rest.call("POST", PATH, json={"subject_token": "a.b.c"})).code == "invalid_token"


async def test_a_token_of_an_issuer_opens_nothing_else(place: Place) -> None:
    token = place.provider.token()

    assert (await place.rest.call("GET", "/sessions/me", token=token)).code == "invalid_token"
    assert (await place.rest.call("POST", "/sessions", token=token, json={"user_id": "a"})).code == "invalid_token"


@pytest.mark.parametrize(
    "body", [{}, {"subject_token": ""}, {"subject_token": "a" * 16_385}, {"subject_token": 7}, {"token": "a.b.c"}]
)
async def test_what_comes_is_bounded_and_as_the_contract_has_it(place: Place, body: dict[str, Any]) -> None:
    assert (await place.rest.call("POST", PATH, json=body)).code == "invalid_input"


async def test_whoever_guesses_waits(tmp_path: Path) -> None:
    place = Place(tmp_path, limits=LimitSettings(failures_per_second=0.001, failure_burst=3))
    forged = [place.provider.signed(place.provider.claims(), key=new_key()) for _ in range(5)]

    codes = [(await place.exchange(token)).code for token in forged]

    assert codes == ["invalid_token"] * 4 + ["rate_limited"]


async def test_keys_that_cannot_be_had_are_the_servers_trouble_and_named_in_its_log_only(place: Place) -> None:
    place.provider.file.unlink()

    answer = await place.exchange(place.provider.token())

    assert (answer.status, answer.code) == (503, "issuer_away")
    assert answer.header("retry-after") == "1"
    assert str(place.provider.file) not in answer.body.decode()


async def test_what_happened_is_reported_without_the_token(place: Place) -> None:
    token = place.provider.token()
    answer = await place.exchange(token)
    await place.exchange(token)

    done, refused = place.rest.reported
    assert (done.type, done.cause, done.details["issuer"]) == ("session_auth", "token_exchanged", NAME)
    assert (done.user, done.session) == ("alice", answer.json["session"]["id"])
    assert (refused.cause, refused.session) == ("invalid_token", None)
    assert token not in repr(place.rest.reported)
