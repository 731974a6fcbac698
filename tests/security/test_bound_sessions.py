"""Sessions that are bound to a key: whoever has nothing but the token has nothing, over REST and at handshakes."""

import asyncio
from datetime import timedelta
from typing import Final

import pytest

from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.errors import HolderUnproven, InvalidInput, InvalidProof
from roomkey.realtime.transport import Accepted, Refused
from roomkey.security.certificates import PeerCertificate
from roomkey.security.possession import PROOF_LIMITS, Attempt, Possession
from tests.support.handshakes import endpoint, handshake
from tests.support.proofs import ProofKey
from tests.support.rest import Answer, Rest

SITE: Final = "http://rooms.example.com"


class Program:
    """A program with a key, and a session that is bound to it."""

    def __init__(self, rest: Rest, token: str, key: ProofKey) -> None:
        self.rest = rest
        self.token = token
        self.key = key

    def proof(self, method: str, path: str, **claims: object) -> str:
        now = self.rest.clock.now().timestamp()
        return self.key.proof(method, SITE + path, at=now, **{"token": self.token} | claims)  # pyright: ignore[reportArgumentType]

    async def call(self, method: str, path: str, proof: str | None = None, scheme: str = "DPoP") -> Answer:
        headers = {"authorization": f"{scheme} {self.token}", "dpop": proof or self.proof(method, path)}
        return await self.rest.call(method, path, headers=headers)


@pytest.fixture
def rest() -> Rest:
    return Rest()


async def bound(rest: Rest, key: ProofKey | None = None) -> Program:
    key = key or ProofKey()
    created = await rest.call(
        "POST",
        "/sessions",
        token=rest.service,
        json={"user_id": "alice", "activate": True, "dpop_jkt": key.thumbprint},
    )
    assert created.status == 201, created.body
    return Program(rest, created.json["token"], key)


@pytest.fixture
def program(rest: Rest) -> Program:
    return asyncio.run(bound(rest))


async def test_whoever_has_the_key_uses_the_session(program: Program) -> None:
    answer = await program.call("GET", "/sessions/me")

    assert answer.status == 200
    assert answer.json["bound_to"] == f"jkt:{program.key.thumbprint}"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_a_stolen_token_is_worth_nothing_even_with_a_proof_beside_it(program: Program, scheme: str) -> None:
    alone = await program.rest.call("GET", "/sessions/me", token=program.token)
    as_bearer = await program.call("GET", "/sessions/me", scheme=scheme)

    assert (alone.code, as_bearer.code) == ("holder_unproven", "holder_unproven")
    assert alone.header("www-authenticate").startswith("DPoP ")
    assert "session_hijacking" in [event.type for event in program.rest.reported]


@pytest.mark.parametrize("header", ["x-session-id", "cookie"])
async def test_no_other_place_for_a_token_does_without_the_proof(program: Program, header: str) -> None:
    value = f"__Host-roomkey={program.token}" if header == "cookie" else program.token

    assert (await program.rest.call("GET", "/sessions/me", headers={header: value})).code == "holder_unproven"


async def test_the_key_of_somebody_else_proves_nothing(program: Program) -> None:
    thief = Program(program.rest, program.token, ProofKey())

    assert (await thief.call("GET", "/sessions/me")).code == "holder_unproven"


async def test_a_proof_comes_once(program: Program) -> None:
    proof = program.proof("GET", "/sessions/me")

    first = await program.call("GET", "/sessions/me", proof)
    second = await program.call("GET", "/sessions/me", proof)

    assert (first.status, second.code) == (200, "invalid_dpop_proof")
    assert 'error="invalid_dpop_proof"' in second.header("www-authenticate")


async def test_a_proof_of_the_future_does_not_come_twice_either(program: Program) -> None:
    later = program.rest.clock.now().timestamp() + 59
    proof = program.proof("GET", "/sessions/me", iat=later)
    await program.call("GET", "/sessions/me", proof)

    program.rest.clock.advance(timedelta(seconds=117))

    assert (await program.call("GET", "/sessions/me", proof)).code == "invalid_dpop_proof"


async def test_a_token_that_is_bound_to_nothing_is_no_dpop_token(rest: Rest) -> None:
    program = Program(rest, (await rest.session()).token, ProofKey())

    assert (await program.call("GET", "/sessions/me")).code == "holder_unproven"


async def test_a_proof_is_needed_where_the_token_says_so(program: Program) -> None:
    answer = await program.rest.call("GET", "/sessions/me", headers={"authorization": f"DPoP {program.token}"})

    assert answer.code == "invalid_dpop_proof"


async def test_two_proofs_are_no_proof(program: Program) -> None:
    pairs = [
        ("authorization", f"DPoP {program.token}"),
        ("dpop", program.proof("GET", "/sessions/me")),
        ("dpop", program.proof("GET", "/sessions/me")),
    ]

    assert (await program.rest.call("GET", "/sessions/me", headers=pairs)).code == "malformed_request"


async def test_rotation_keeps_the_key(program: Program) -> None:
    id = program.token.partition(".")[0]
    rotated = await program.call("PUT", f"/sessions/{id}/rotate")

    successor = Program(program.rest, rotated.json["token"], program.key)

    assert (await program.rest.call("GET", "/sessions/me", token=successor.token)).code == "holder_unproven"
    assert (await successor.call("GET", "/sessions/me")).status == 200


async def test_nonces_are_demanded_where_that_is_set() -> None:
    program = await bound(Rest(nonce_key=bytes(32)))

    refused = await program.call("GET", "/sessions/me")
    nonce = refused.header("dpop-nonce")
    accepted = await program.call("GET", "/sessions/me", program.proof("GET", "/sessions/me", nonce=nonce))
    program.rest.clock.advance(timedelta(minutes=5))
    outdated = await program.call("GET", "/sessions/me", program.proof("GET", "/sessions/me", nonce=nonce))

    assert (refused.code, accepted.status, outdated.code) == ("use_dpop_nonce", 200, "use_dpop_nonce")


async def test_logging_in_with_a_proof_binds_the_session_and_gives_no_cookie(rest: Rest) -> None:
    issued, key = await rest.session(), ProofKey()
    page = Program(rest, issued.token, key)

    answer = await rest.call(
        "POST", "/login", headers={"dpop": page.proof("POST", "/login")}, json={"token": issued.token}
    )

    assert answer.header("set-cookie") == ""
    assert answer.json["session"]["bound_to"] == f"jkt:{key.thumbprint}"
    assert (await rest.call("GET", "/sessions/me", token=answer.json["token"])).code == "holder_unproven"
    assert (await Program(rest, answer.json["token"], key).call("GET", "/sessions/me")).status == 200


async def test_a_bound_session_does_not_become_a_cookie(program: Program) -> None:
    ticket = (await program.call("POST", "/sessions/me/tickets")).json["ticket"]

    by_token = await program.rest.call("POST", "/login", json={"token": program.token})
    by_ticket = await program.rest.call("POST", "/login", json={"ticket": ticket})

    assert (by_token.code, by_ticket.code) == ("holder_unproven", "holder_unproven")


async def test_a_session_cannot_be_bound_anew(program: Program) -> None:
    thief = Program(program.rest, program.token, ProofKey())

    answer = await program.rest.call(
        "POST", "/login", headers={"dpop": thief.proof("POST", "/login")}, json={"token": program.token}
    )

    assert answer.code == "holder_unproven"


async def test_applications_that_use_the_library_are_told_too(program: Program) -> None:
    with pytest.raises(HolderUnproven):
        await program.rest.sessions.authenticate(program.token)


async def test_nodes_that_share_what_was_used_take_a_proof_once(rest: Rest) -> None:
    used = MemoryOneTime(rest.clock, PROOF_LIMITS)
    one, other = Possession(used, rest.clock), Possession(used, rest.clock)
    proof = ProofKey().proof("GET", SITE + "/ws", at=rest.clock.now().timestamp())
    attempt = Attempt(method="GET", urls=[SITE + "/ws"], proof=proof)

    await one.accept(one.look(attempt, None))

    with pytest.raises(InvalidProof):
        await other.accept(other.look(attempt, None))


async def test_who_has_no_session_does_not_make_us_remember_proofs(rest: Rest) -> None:
    used = MemoryOneTime(rest.clock, PROOF_LIMITS)
    door, strange = endpoint(rest, used), Program(rest, f"00{'a' * 26}.{'A' * 43}", ProofKey())
    proof = strange.proof("GET", "/ws")

    await door.accept(handshake(authorization=f"DPoP {strange.token}", dpop=proof))

    assert not len(used)


# --- handshakes -----------------------------------------------------------------------------------------


async def test_a_program_opens_a_socket_with_a_proof_and_nobody_without(program: Program) -> None:
    door = endpoint(program.rest)
    proof = program.proof("GET", "/ws", htu="ws://rooms.example.com/ws")

    stolen = await door.accept(handshake(authorization=f"Bearer {program.token}"))
    unproven = await door.accept(handshake(authorization=f"DPoP {program.token}"))
    as_bearer = await door.accept(handshake(authorization=f"Bearer {program.token}", dpop=proof))
    proven = await door.accept(handshake(authorization=f"DPoP {program.token}", dpop=proof))
    again = await door.accept(handshake(authorization=f"DPoP {program.token}", dpop=proof))

    assert [type(each) for each in (stolen, unproven, as_bearer, proven, again)] == [
        Refused,
        Refused,
        Refused,
        Accepted,
        Refused,
    ]
    assert isinstance(stolen, Refused)
    assert b"holder_unproven" in stolen.body


async def test_a_ticket_that_was_taken_with_a_proof_opens_a_socket(program: Program) -> None:
    ticket = (await program.call("POST", "/sessions/me/tickets")).json["ticket"]

    assert isinstance(await endpoint(program.rest).accept(handshake(ticket=ticket)), Accepted)


async def test_a_session_that_is_bound_to_a_certificate_opens_with_it_alone(rest: Rest) -> None:
    mine = PeerCertificate(fingerprint="0" * 64, thumbprint="A" * 43, subject="CN=mine", names=())
    other = PeerCertificate(fingerprint="1" * 64, thumbprint="B" * 43, subject="CN=other", names=())
    issued = await rest.sessions.create_session("alice", activate=True, bound_to=f"x5t#S256:{'A' * 43}")
    door, authorization = endpoint(rest), f"Bearer {issued.token}"

    assert isinstance(await door.accept(handshake(mine, authorization=authorization)), Accepted)
    assert isinstance(await door.accept(handshake(other, authorization=authorization)), Refused)
    assert isinstance(await door.accept(handshake(authorization=authorization)), Refused)
    assert (await rest.call("GET", "/sessions/me", token=issued.token, certificate=mine)).status == 200
    assert (await rest.call("GET", "/sessions/me", token=issued.token, certificate=other)).code == "holder_unproven"


@pytest.mark.parametrize("text", ["jkt:short", "jkt", f"other:{'A' * 43}", f"jkt:{'A' * 43}=", ""])
async def test_sessions_are_bound_to_nothing_else(rest: Rest, text: str) -> None:
    with pytest.raises(InvalidInput, match="thumbprint"):
        await rest.sessions.create_session("alice", bound_to=text)
