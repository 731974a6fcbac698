"""Targets that must tell what is genuine from what is nearly so: proofs, tickets, signed heads, sealed records."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from random import Random
from typing import Final

from roomkey.api.http_messages import Reply
from roomkey.api.idempotency import Idempotency
from roomkey.audit import checkpoints, notes, proofs, records, tiles
from roomkey.audit.checkpoints import Checkpoint
from roomkey.audit.merkle import leaf_hash, node_hash
from roomkey.audit.notes import Note, SignatureType, Signer
from roomkey.audit.proofs import Receipt
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.errors import IdempotencyKeyReused, InvalidInput, MalformedRequest, NotProven, RoomkeyError, Serialization
from roomkey.ports import RecordKind
from roomkey.security import csrf, dpop
from roomkey.security.credentials import cookie
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.testing.clock import ManualClock
from roomkey.transports.proxies import SCHEMES, TrustedProxies
from tests.fuzz.target import Target, header, now, text
from tests.support.proofs import ProofKey
from tests.support.sealed_records import SealedRecords
from tests.support.sockets import NOON, FakeSessions

_session, _ = FakeSessions(ManualClock(NOON)).issue("alice")

# --- proofs of a key ----------------------------------------------------------------------------------

URL: Final = "https://rooms.example/sessions?x=1"
KEYS: Final = (ProofKey(), ProofKey("EdDSA"))
PROOFS: Final = tuple(key.proof("GET", URL, at=NOON.timestamp(), token="t", nonce="n") for key in KEYS)
_GENUINE: Final = [dpop.read(proof) for proof in PROOFS]


def _proof(given: str) -> None:
    assert dpop.read(given) in _GENUINE, "a proof that nobody made"


def _claims(data: bytes) -> None:
    """Whatever the holder of a key signs is read, and is about this request or refused."""
    key = KEYS[1]
    head = json.dumps({"typ": "dpop+jwt", "alg": key.algorithm, "jwk": key.jwk}).encode()
    proof = dpop.read(key.encoded(head, data))
    assert proof.key == key.thumbprint
    dpop.check(proof, method="GET", urls=[URL], token="t", now=NOON.timestamp(), age=60.0)
    assert (proof.method, abs(proof.issued_at - NOON.timestamp()) <= 60) == ("GET", True)


def _address(given: str) -> None:
    same = dpop.same_address(given)
    assert same is None or dpop.same_address(same) == same, "one address has two spellings"


CLAIMS: Final = json.dumps(
    {"jti": "a", "htm": "GET", "htu": URL, "iat": NOON.timestamp(), "ath": dpop.hash_of("t"), "nonce": "n"}
).encode()

# --- one use ------------------------------------------------------------------------------------------


def _ticket(given: str) -> None:
    tickets = Tickets(MemoryOneTime(ManualClock(NOON), TICKET_LIMITS))
    issued = now(tickets.issue(_session.id))
    assert (now(tickets.redeem(given)) is None) == (given != issued)
    assert now(tickets.redeem(issued)) == (None if given == issued else _session.id)


def _idempotency_key(data: bytes) -> None:
    key, _, request = data.decode("latin-1").partition("|")
    answers = Idempotency(MemoryOneTime(ManualClock(NOON), TICKET_LIMITS), window=timedelta(minutes=1))
    reply = Reply(201, b"{}", [])
    assert now(_attempt(answers, "alice", key, request, reply)) is None
    repeated = now(_attempt(answers, "alice", key, request, reply))
    assert repeated is not None
    assert (repeated.status, repeated.body) == (201, b"{}")
    assert now(_attempt(answers, "bob", key, request, reply)) is None, "a key of somebody else"
    with suppress(IdempotencyKeyReused):
        now(_attempt(answers, "alice", key, request + "x", reply))
        raise AssertionError("another request is answered alike")


async def _attempt(answers: Idempotency, caller: str, key: str, request: str, reply: Reply) -> Reply | None:
    async with answers.attempt(caller, key, request.encode()) as attempt:
        attempt.reply = reply
        return attempt.earlier


# --- who asks -----------------------------------------------------------------------------------------

NEXT_TO_US: Final = "203.0.113.9"
"""The peer of the only trusted proxy: whatever it sends, nobody else can be meant."""

_PROXY: Final = "10.0.0.1"
_X_FORWARDED: Final = TrustedProxies([_PROXY])
_FORWARDED: Final = TrustedProxies([_PROXY], "forwarded")
_BELIEVING: Final = TrustedProxies(["*"]), TrustedProxies(["*"], "forwarded")


def _forwarded(data: bytes) -> None:
    shown = [(b"x-forwarded-for", data), (b"x-forwarded-proto", data), (b"forwarded", data)]
    for proxies in _BELIEVING:
        client, scheme = proxies.client(_PROXY, "http", shown)
        assert client is not None
        ip_address(client)
        assert scheme in SCHEMES
    client, _ = _X_FORWARDED.client(_PROXY, "http", [(b"x-forwarded-for", data + b", " + NEXT_TO_US.encode())])
    assert client == NEXT_TO_US
    client, _ = _FORWARDED.client(_PROXY, "http", [(b"forwarded", data), (b"forwarded", b"for=" + NEXT_TO_US.encode())])
    assert client == NEXT_TO_US
    assert _X_FORWARDED.client(NEXT_TO_US, "https", shown) == (NEXT_TO_US, "https")


_CSRF_KEY: Final = b"k" * 32
_CSRF: Final = csrf.mint(_session.id, _CSRF_KEY)


def _cookie(given: str) -> None:
    found = cookie(given, csrf.COOKIE)
    assert ";" not in found
    assert found in given
    seen = {"cookie": given, "x-csrf-token": found, "host": "rooms.example"}
    try:
        csrf.check_cookie(seen, _session.id, key=_CSRF_KEY, allowed_origins=())
    except RoomkeyError:
        assert found != _CSRF
    else:
        assert found == _CSRF, "a token that nobody minted"


def _page(given: str) -> None:
    for name in ("referer", "origin"):
        if csrf.witness({name: given, "host": "rooms.example"}, ()) is csrf.Witness.OURS:
            assert "rooms.example" in given.lower()


# --- the audit log ------------------------------------------------------------------------------------

ORIGIN: Final = "rooms.example/audit/log"
_SIGNER: Final = Signer(ORIGIN, b"1" * 32)
_WITNESS: Final = Signer("witness.example", b"2" * 32, SignatureType.COSIGNATURE)
_RECORD: Final = records.AuditRecord(type="session.created", at=NOON, user="alice", details={"a": [1, None]})
_LINE: Final = records.divide(_RECORD).line
_SALT: Final = Random(1).randbytes(records.SALT_BYTES)
ENTRY: Final = records.encode(_LINE, _SALT)
_HEAD: Final = Checkpoint(ORIGIN, 2, node_hash(leaf_hash(ENTRY), leaf_hash(b"other")))
NOTE: Final = Note(_HEAD.text, (_SIGNER.sign(_HEAD.text), _WITNESS.sign(_HEAD.text, NOON)))
RECEIPTS: Final = tuple(
    str(Receipt(index=0, hashes=[leaf_hash(b"other")], head=NOTE, entry=entry)).encode() for entry in (ENTRY, None)
)


def _note(data: bytes) -> None:
    given = notes.note(data)
    assert notes.note(str(given)) == given
    if given.verified([_SIGNER.key, _WITNESS.key]):
        assert given.text == _HEAD.text, "a signature of another text"


def _checkpoint(given: str) -> None:
    head = checkpoints.checkpoint(given)
    assert head.text == given, "a head has two spellings"


def _receipt(data: bytes) -> None:
    given = proofs.receipt(data)
    assert proofs.receipt(str(given).encode()) == given
    proven = proofs.verify(given, keys=[_SIGNER.key], entry=given.entry or ENTRY)
    assert (proven.index, proven.entry, proven.head) == (0, ENTRY, _HEAD), "proven, and never recorded"


def _key(given: str) -> None:
    assert str(notes.verifier_key(given)) == given.strip()


def _bundle(data: bytes) -> None:
    assert tiles.bundle_of(tiles.entries_of(data)) == data


def _entry(data: bytes) -> None:
    line = records.decode(data)
    assert records.decode(records.encode(line, _SALT)) == line


def _file(given: str) -> None:
    file = tiles.file_at(given)
    assert file is None or file.path == given


# --- at rest ------------------------------------------------------------------------------------------

_CODEC: Final = SealedRecords()
_ELSEWHERE: Final = (RecordKind.EVENT, b"id", 3), (RecordKind.SESSION, b"ie", 3), (RecordKind.SESSION, b"id", 4)
_SEALED: Final = _CODEC.encode(RecordKind.SESSION, b"id", 3, b"a record")


def _sealed(data: bytes) -> None:
    assert _CODEC.decode(RecordKind.SESSION, b"id", 3, data) == b"a record"
    assert data == _SEALED, "a sealed record has two spellings"
    for kind, id, version in _ELSEWHERE:
        with suppress(Serialization):
            _CODEC.decode(kind, id, version, data)
            raise AssertionError("a record is read at another place")


GENUINE: Final[Mapping[str, Target]] = {
    "dpop_proofs": Target(header(_proof), (RoomkeyError,), [proof.encode() for proof in PROOFS]),
    "dpop_claims": Target(_claims, (RoomkeyError,), (CLAIMS,)),
    "dpop_addresses": Target(
        header(_address), (), (URL.encode(), b"wss://[::1]:443/a%2fb/../c", b"https://a.example:0080/%C3%A9?q#f")
    ),
    "tickets": Target(text(_ticket), (), (b"x" * 43, b"\xed\xa0\x80")),
    "idempotency_keys": Target(_idempotency_key, (MalformedRequest,), (b"key-1|POST /sessions", b"!~|")),
    "forwarded": Target(
        _forwarded,
        (),
        (
            b"192.0.2.1, 10.0.0.1",
            b'for="[2001:db8::1]:47";proto=https, for=192.0.2.1;by=10.0.0.1',
            b"[::ffff:192.0.2.1]:80,, unknown",
            b'for="\\1\\2"',
        ),
    ),
    "cookies": Target(header(_cookie), (), (f'a=b; {csrf.COOKIE}="{_CSRF}"'.encode(), b"=;;=a", b"a")),
    "pages": Target(header(_page), (), (b"https://rooms.example/a", b"http://rooms.example:80@evil.example/")),
    "audit_notes": Target(_note, (InvalidInput, NotProven), (str(NOTE).encode(),)),
    "audit_checkpoints": Target(
        text(_checkpoint), (InvalidInput,), (_HEAD.text.encode(), b"o\n0\n" + b"A" * 43 + b"=\nx\n")
    ),
    "audit_receipts": Target(_receipt, (InvalidInput, NotProven), RECEIPTS),
    "audit_keys": Target(text(_key), (InvalidInput,), (str(_SIGNER.key).encode(), str(_WITNESS.key).encode())),
    "audit_bundles": Target(_bundle, (tiles.MalformedBundle,), (tiles.bundle_of([ENTRY, b"", b"x"]),)),
    "audit_entries": Target(
        _entry,
        (Serialization,),
        (ENTRY, ENTRY.replace(b"created", b"crea\xcd"), ENTRY.replace(b"null", b"[" * 3_000)),
    ),
    "audit_files": Target(text(_file), (), (b"tile/0/x001/234.p/7", b"0/000", b"entries/x001/000.p/255")),
    "sealed_records": Target(_sealed, (Serialization,), (_SEALED,)),
}
"""By name; each accepts its seeds."""
