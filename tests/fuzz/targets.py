"""What is fuzzed: each parser with seeds and the errors that it may raise. A new one is one entry of ``TARGETS``."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
from pycrdt import Doc, Text

from roomkey.api.document_schemas import DocumentListing, ReadingQuery
from roomkey.api.http_messages import expected_tags, media_type, preferred
from roomkey.api.operations import CONTRACTS
from roomkey.api.schemas import Listing, parse_query
from roomkey.backends.cursors import decode_cursor, encode_cursor
from roomkey.backends.document_records import (
    DocumentEntry,
    decode_batch,
    decode_document,
    decode_version,
    encode_batch,
    encode_document,
    encode_version,
)
from roomkey.backends.records import decode_event, decode_session, encode_event, encode_session
from roomkey.config import load
from roomkey.documents.crdt.authorship import Authorship
from roomkey.documents.crdt.updates import MalformedUpdate, clients_of, read_update, validate, without
from roomkey.documents.service import BUNDLE_FORMAT, Bundle, read_bundle
from roomkey.domain.access import Access, Grant, access_to, check_grants
from roomkey.domain.names import check_name, without_tricks
from roomkey.domain.session import UserRevoked
from roomkey.errors import InvalidInput, RoomkeyError, Serialization
from roomkey.ports import Author, DocumentUpdate, DocumentVersion, NewVersion, Secret
from roomkey.realtime.protocol import json_messages as messages
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.protocol.shown_user import ShownUser
from roomkey.realtime.settings import AwarenessIdentity
from roomkey.security import credentials, tokens
from roomkey.security.injection import texts_in
from roomkey.security.inspection import check_document_name
from roomkey.settings import SourcedValue
from roomkey.testing.clock import ManualClock
from roomkey.threats import ledger as ledgers
from roomkey.threats import patterns
from roomkey.threats.books import UNREADABLE
from roomkey.transports.deflate import Inflater, negotiate
from roomkey.wire import lib0
from roomkey.wire.close import Violation
from tests.fuzz.genuine import GENUINE
from tests.fuzz.target import Target, header, text
from tests.support.sockets import NOON, FakeSessions


def _message(data: bytes) -> None:
    incoming = messages.decode(data, max_depth=32)
    for look in (messages.document_of, messages.status_of):
        with suppress(messages.Fault):
            look(incoming.payload)
    list(texts_in(incoming.payload))
    again = messages.encode_value(incoming.payload)
    assert messages.decode_value(again) == incoming.payload, "a payload does not survive"


def _update(data: bytes) -> None:
    structs = validate(data)
    read = read_update(data)
    clients_of(data)
    left = without(data, {block.client: 0 for block in read.blocks[:1]})
    read_update(left)
    del structs


def _awareness(data: bytes) -> None:
    entries = lib0.read_awareness(data)
    assert lib0.read_awareness(lib0.awareness(entries)) == entries


def _state(data: bytes) -> None:
    lib0.read_state(data)


_session, _ = FakeSessions(ManualClock(NOON)).issue("alice")
_shown = ShownUser(_session, AwarenessIdentity.STAMP)


def _shown_state(data: bytes) -> None:
    # As it is on its way: what is no text, or nests too deep, is refused where awareness is read.
    (entry,) = yjs.read_awareness(b"\x01\x05\x01" + lib0.number(len(data)) + data)
    data = entry.state
    said = _shown.identify(data) if _shown.concerns(data) else data
    if said is not None and said is not data:
        assert json.loads(said)["user"]["id"] == "alice", "somebody else is shown"


def _inflate(data: bytes) -> None:
    out = Inflater().inflate(data, room=64 * 1024, final=True)
    assert len(out) <= 64 * 1024


def _grants(text: str) -> None:
    pattern, _, document = text.partition("\n")
    access_to(document, check_grants((Grant(pattern, Access.READ),)))


def _credential(data: bytes) -> None:
    said = data.decode("latin-1")
    for name in ("authorization", "cookie", "x-session-id"):
        found = credentials.find({name: said})
        if found is not None:
            tokens.digest(found.secret)
            with suppress(RoomkeyError):
                tokens.session_of(found.secret)
    credentials.origin_allowed(said, said, (said,))
    credentials.client_of({"user-agent": said}, None)


def _body(data: bytes) -> None:
    """Every body of REST: whatever it is, it is decoded or a problem."""
    from roomkey.api.operations import _decode  # noqa: PLC0415  # pyright: ignore[reportPrivateUsage]

    for contract in CONTRACTS.values():
        for decoder in contract.decoders.values():
            with suppress(RoomkeyError):
                _decode(decoder, data)


def _queries(data: bytes) -> None:
    for kind in (Listing, DocumentListing, ReadingQuery):
        with suppress(RoomkeyError):
            parse_query(data, kind)


def _headers(text: str) -> None:
    for look in (
        lambda: media_type({"content-type": text, "content-encoding": text}, ("application/json", "text/plain")),
        lambda: preferred(text, ("application/json", "text/plain")),
        lambda: expected_tags(text),
        lambda: negotiate(text),
    ):
        with suppress(RoomkeyError):
            look()


def _cursor(given: str) -> None:
    position = decode_cursor(given, b"s", max_bytes=256)
    assert decode_cursor(encode_cursor(b"s", position), b"s", max_bytes=256) == position


def _document_record(data: bytes) -> None:
    entry = decode_document(data)
    assert decode_document(encode_document(entry)) == entry


def _update_record(data: bytes) -> None:
    updates = decode_batch(data, {})
    assert decode_batch(encode_batch(updates), {}) == updates


def _version_record(data: bytes) -> None:
    version = decode_version(data)
    assert decode_version(encode_version(version)) == version


def _authorship(data: bytes) -> None:
    packed = Authorship.unpack(data).pack()
    assert Authorship.unpack(packed).pack() == packed


def _bundle(data: bytes) -> None:
    bundle = read_bundle(data)
    assert read_bundle(msgspec.msgpack.encode(bundle)) == bundle


def _ledger(data: bytes) -> None:
    ledger = ledgers.decode(data)
    assert ledgers.decode(ledgers.encode(ledger)) == ledger


def _pattern(data: bytes) -> None:
    pattern = patterns.decode(data)
    assert patterns.decode(patterns.encode(pattern)) == pattern


def _config(text: str) -> None:
    name, _, value = text.partition("=")
    load(overrides={f"realtime.{name}": SourcedValue(value, "fuzz", as_text=True)}, environment={})


def _typed() -> bytes:
    doc: Doc[Any] = Doc(client_id=5)
    doc["content"] = Text()
    doc["content"] += "héllo 😀"
    return doc.get_update()


def _known() -> Authorship:
    authorship = Authorship()
    authorship.record(_CHANGE)
    return authorship


_REVOKED: Final = UserRevoked(user="alice", epoch=1, at=NOON)
_UPDATE: Final = _typed()
_CHANGE: Final = DocumentUpdate(_UPDATE, Author("user:alice", _session.id, "alice"), NOON)
_ENTRY: Final = DocumentEntry.new("plan", "lineage", NOON)
_VERSION: Final = DocumentVersion(number=1, at=NOON, author=_CHANGE.author, label="é", sequence=2, size=3)
_BUNDLE: Final = Bundle(
    roomkey=BUNDLE_FORMAT,
    name="plan",
    lineage="lineage",
    content=_UPDATE,
    authorship=_known().pack(),
    versions=[NewVersion(at=NOON, author=_CHANGE.author, label="é", sequence=2, content=_UPDATE)],
)
_JSON: Final = (
    b'{"id":"a","message_type":"realtime_edit","payload":{"document":"d","op":[1.5,null,"\\ud83d\\ude00"]}}',
    b'{"message_type":"subscribe","payload":{"document":"d","since":{"epoch":"abcdefgh","offset":1}}}',
    b'{"message_type":"user_presence","payload":{"document":"d","status":"online"},"timestamp":"2026-01-02T12:00:00Z"}',
)
_BODIES: Final = (
    b'{"user_id":"alice","metadata":{"a":[1,{"b":null}]},"grants":[{"documents":"**","access":"write"}]}',
    b'{"create":[{"user_id":"a"}],"invalidate":[],"reason":"x"}',
    b'[{"op":"add","path":"/a/b","value":1}]',
    b'{"edits":[{"root":"content","index":0,"insert":"x"}]}',
)
_SHOWN: Final = b'{"user":{"id":"bob","name":"B\\u202e","color":"#fff"},"cursor":{"anchor":1}}'
_NAMES: Final = ("Zoë".encode(), "משה".encode(), "a\u202eb".encode(), b"docs/../a", b"a/**/b\na/x/b")

TARGETS: Final[Mapping[str, Target]] = {
    "json_frames": Target(_message, (messages.Fault,), _JSON),
    "y_websocket": Target(
        yjs.decode, (lib0.Malformed,), (yjs.update(_UPDATE), yjs.sync_step2(_UPDATE), b"\x00\x00\x01\x00", b"\x03")
    ),
    "hocuspocus": Target(
        yjs.decode_addressed,
        (lib0.Malformed,),
        (yjs.address("d") + yjs.update(_UPDATE), b"\x01d\x02\x02\x05token", b"\x09"),
    ),
    "updates": Target(_update, (MalformedUpdate,), (_UPDATE, b"\x00\x00", b"\x01\x01\x05\x00\x00\x03\x00")),
    "state_vectors": Target(_state, (lib0.Malformed,), (b"\x00", b"\x01\x05\x07")),
    "awareness": Target(_awareness, (lib0.Malformed,), (b"\x01\x05\x01\x02{}",)),
    "shown_users": Target(_shown_state, (lib0.Malformed,), (_SHOWN, b'{"\\u0075ser":{"name":1e999}}')),
    "deflate": Target(_inflate, (Violation,), (b"\xcaH\xcd\xc9\xc9\x07\x00", b"\x00\x01\x00\xfe\xff\x00")),
    "rest_bodies": Target(_body, (), _BODIES),
    "rest_queries": Target(_queries, (), (b"user_id=alice&limit=5&cursor=abc", b"since=AAA=&root=c", b"prefix=%C3%A9")),
    "rest_headers": Target(header(_headers), (), (b"application/json; charset=utf-8", b'W/"3", "4"', b"text/*;q=0.5")),
    "credentials": Target(
        _credential,
        (RoomkeyError,),
        (b"Bearer " + tokens.mint_both(7)[1].encode(), b"__Host-roomkey=x; a=b", b"https://a.example:443"),
    ),
    "cursors": Target(header(_cursor), (RoomkeyError,), (b"c2FiYw", b"")),
    "grants": Target(text(_grants), (RoomkeyError,), _NAMES),
    "document_names": Target(text(check_document_name), (RoomkeyError,), _NAMES),
    "names": Target(
        text(lambda text: (without_tricks(text), check_name("user_id", "it", text))), (RoomkeyError,), _NAMES
    ),
    "session_records": Target(decode_session, (Serialization,), (encode_session(_session, Secret(current=b"s" * 32)),)),
    "event_records": Target(decode_event, (Serialization,), (encode_event(_REVOKED),)),
    "document_records": Target(_document_record, (Serialization,), (encode_document(_ENTRY), b"\x01\x92\xa1a\xc0")),
    "update_records": Target(_update_record, (Serialization,), (encode_batch([_CHANGE] * 2), b"\x01\x92\x90\x90")),
    "version_records": Target(_version_record, (Serialization,), (encode_version(_VERSION), b"\x01\x92\xa1a\xc0")),
    "authorship": Target(
        _authorship, (Serialization,), (_known().pack(), b"\x01\x9b\x90\x80\x80\x80" + b"\x91" * 3_000)
    ),
    "document_bundles": Target(
        _bundle,
        (InvalidInput,),
        (msgspec.msgpack.encode(_BUNDLE), msgspec.msgpack.encode(_BUNDLE).replace(b"plan", b"pla\xff")),
    ),
    "ledgers": Target(_ledger, UNREADABLE, (ledgers.encode(ledgers.Ledger()),)),
    "patterns": Target(_pattern, UNREADABLE, (patterns.encode(patterns.Pattern()),)),
    **GENUINE,
    "settings": Target(text(_config), (RoomkeyError,), (b"tick=5s", b"max_depth=1e3", b"history_bytes=64KiB")),
}
