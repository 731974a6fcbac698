"""Records keep what they are given, old ones stay readable, and damaged ones show nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.backends.records import (
    EVENT_UPGRADES,
    SESSION_UPGRADES,
    decode_event,
    decode_session,
    decode_session_only,
    encode_event,
    encode_session,
)
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import (
    Activated,
    AnyEvent,
    Client,
    Created,
    Deleted,
    Evicted,
    Expired,
    Extended,
    GrantsChanged,
    Invalidated,
    Resumed,
    Session,
    SessionId,
    SessionState,
    Suspended,
    TokenRotated,
    UserRevoked,
    ViolationRecorded,
)
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import Serialization
from roomkey.ports import Secret

moments = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
durations = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=20_000))
texts = st.text(st.characters(codec="utf-8"), max_size=40)
names = st.none() | texts
ids = st.builds(SessionId, texts)
clients = st.none() | st.builds(Client, names, names, names)
of_groups = st.builds(Grant, group=st.sampled_from(["team-7", "a:b@c"]))
grants = st.lists(st.builds(Grant, texts, st.sampled_from(Access)) | of_groups, max_size=3).map(tuple)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
metadata = st.none() | st.dictionaries(texts, plain, max_size=3)
digests = st.binary(min_size=32, max_size=32)

sessions = st.builds(
    Session,
    id=ids,
    user_id=texts,
    state=st.sampled_from(SessionState),
    created_at=moments,
    expires_at=moments,
    idle_timeout=st.none() | durations,
    activation_timeout=durations,
    last_seen_at=moments,
    version=st.integers(1, 2**40),
    client=clients,
    grants=grants,
    metadata=metadata,
    violations=st.integers(0, 2**40),
    reason=names,
)
secrets = st.builds(
    Secret,
    current=digests,
    generation=st.integers(0, 2**40),
    previous=st.none() | digests,
    rotated_at=st.none() | moments,
    uses=st.lists(st.builds(TokenUse, st.builds(Place, names, names), st.booleans(), moments, moments), max_size=3).map(
        tuple
    ),
)
common: dict[str, Any] = {
    "session": ids,
    "user": texts,
    "version": st.integers(1, 2**40),
    "at": moments,
    "actor": texts,
    "reason": names,
}
events = st.one_of(
    st.builds(
        Created,
        **common,
        expires_at=moments,
        idle_timeout=st.none() | durations,
        activation_timeout=durations,
        client=clients,
        grants=grants,
        metadata=metadata,
    ),
    st.builds(Extended, **common, expires_at=moments),
    st.builds(GrantsChanged, **common, grants=grants),
    *(
        st.builds(kind, **common)
        for kind in (
            Activated,
            Suspended,
            Resumed,
            TokenRotated,
            Expired,
            Invalidated,
            Deleted,
            Evicted,
            ViolationRecorded,
        )
    ),
    st.builds(
        UserRevoked,
        user=texts,
        epoch=st.integers(1, 2**40),
        at=moments,
        actor=texts,
        reason=names,
        session=st.none() | ids,
    ),
)

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
SESSION = Session(
    id=SessionId("3a" + "a" * 26),
    user_id="alice",
    state=SessionState.ACTIVE,
    created_at=NOON,
    expires_at=NOON + timedelta(days=14),
    idle_timeout=timedelta(hours=1),
    activation_timeout=timedelta(minutes=10),
    last_seen_at=NOON + timedelta(minutes=3),
    version=2,
    client=Client("192.0.2.1", "Mozilla/5.0", None),
    grants=(Grant("notes/*", Access.WRITE),),
    metadata={"theme": "dark"},
    violations=1,
)
SECRET = Secret(current=b"c" * 32, generation=1, previous=b"p" * 32, rotated_at=NOON)
GRANTS_CHANGED = GrantsChanged(
    session=SESSION.id, user="alice", version=3, at=NOON, actor="key:x", grants=SESSION.grants
)
EVENT = Extended(session=SESSION.id, user="alice", version=3, at=NOON, actor="key:x", expires_at=NOON)

# Written by the first version and never to be changed: what lies on disks must stay readable.
FIRST_SESSION_RECORD = bytes.fromhex(
    "01dc0011bc33616161616161616161616161616161616161616161616161616161a5616c696365a6616374697665d7ff1d6f"
    "28006957b340d7ff1d6f2800696a2840a750543336303053a6505436303053d7ff1d6f28006957b3f40293a93139322e302e"
    "322e31ab4d6f7a696c6c612f352e30c09192a76e6f7465732f2aa5777269746581a57468656d65a46461726b01c420636363"
    "636363636363636363636363636363636363636363636363636363636301c420707070707070707070707070707070707070"
    "7070707070707070707070707070d7ff1d6f28006957b340"
)
FIRST_EVENT_RECORD = bytes.fromhex(
    "0188a474797065a8657874656e646564a773657373696f6ebc33616161616161616161616161616161616161616161616161"
    "616161a475736572a5616c696365a776657273696f6e03a26174d7ff1d6f28006957b340a56163746f72a56b65793a78a563"
    "61757365c0aa657870697265735f6174d7ff1d6f28006957b340"
)
FIRST_GRANTS_CHANGED_RECORD = bytes.fromhex(
    "0188a474797065ae6772616e74735f6368616e676564a773657373696f6ebc33616161616161616161616161616161616161"
    "616161616161616161a475736572a5616c696365a776657273696f6e03a26174d7ff1d6f28006957b340a56163746f72a56b"
    "65793a78a56361757365c0a66772616e74739182a9646f63756d656e7473a76e6f7465732f2aa6616363657373a577726974"
    "65"
)


@given(sessions, secrets)
def test_a_session_comes_back_as_it_was(session: Session, secret: Secret) -> None:
    record = encode_session(session, secret)

    assert decode_session(record) == (session, secret)
    assert decode_session_only(record) == session


@given(events)
def test_an_event_comes_back_as_it_was(event: AnyEvent) -> None:
    assert decode_event(encode_event(event)) == event


def test_records_of_the_first_version_are_read_for_ever() -> None:
    assert decode_session(FIRST_SESSION_RECORD) == (SESSION, SECRET)
    assert decode_event(FIRST_EVENT_RECORD) == EVENT
    assert decode_event(FIRST_GRANTS_CHANGED_RECORD) == GRANTS_CHANGED


def test_a_session_without_extras_is_small() -> None:
    bare = Session(
        id=SESSION.id,
        user_id="alice",
        state=SessionState.PENDING,
        created_at=NOON,
        expires_at=NOON,
        idle_timeout=timedelta(hours=1),
        activation_timeout=timedelta(minutes=10),
        last_seen_at=NOON,
        version=1,
    )

    assert len(encode_session(bare, Secret(current=b"c" * 32))) < 160


def test_an_old_version_is_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    old = b"\0" + encode_session(SESSION, SECRET)[1:]
    monkeypatch.setitem(SESSION_UPGRADES, 0, lambda fields: [fields[0], fields[1].upper(), *fields[2:]])

    session, secret = decode_session(old)

    assert session.user_id == "ALICE"
    assert session.idle_timeout == SESSION.idle_timeout
    assert secret == SECRET


def test_an_old_event_is_upgraded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    old = b"\0" + encode_event(EVENT)[1:]
    monkeypatch.setitem(EVENT_UPGRADES, 0, lambda fields: {**fields, "cause": "upgraded"})

    event = decode_event(old)

    assert isinstance(event, Extended)
    assert event.reason == "upgraded"
    assert event.expires_at == EVENT.expires_at


def test_fields_that_only_a_newer_roomkey_knows_are_passed_over() -> None:
    fields = msgspec.msgpack.decode(encode_session(SESSION, SECRET)[1:])
    event = msgspec.msgpack.decode(encode_event(EVENT)[1:])

    newer_session = b"\x01" + msgspec.msgpack.encode([*fields, "something", {"of": "tomorrow"}])
    newer_event = b"\x01" + msgspec.msgpack.encode({**event, "of_tomorrow": [1, 2]})

    assert decode_session(newer_session) == (SESSION, SECRET)
    assert decode_event(newer_event) == EVENT


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(Serialization):
        decode_session(bytes([version]) + encode_session(SESSION, SECRET)[1:])
    with pytest.raises(Serialization):
        decode_event(bytes([version]) + encode_event(EVENT)[1:])


def test_a_record_that_was_cut_is_refused() -> None:
    session, event = encode_session(SESSION, SECRET), encode_event(EVENT)

    for length in range(len(session)):
        with pytest.raises(Serialization):
            decode_session(session[:length])
    for length in range(len(event)):
        with pytest.raises(Serialization):
            decode_event(event[:length])


@given(st.integers(1, 200), st.binary(min_size=1, max_size=8))
def test_damage_raises_nothing_but_serialization(place: int, rubbish: bytes) -> None:
    refusals: list[Serialization] = []
    for decode, record in (
        (decode_session, encode_session(SESSION, SECRET)),
        (decode_event, encode_event(EVENT)),
    ):
        try:
            decode(record[:place] + rubbish + record[place + len(rubbish) :])  # some damage cannot be seen
        except Serialization as error:
            refusals.append(error)

    assert all("alice" not in str(error) for error in refusals)
    assert all(error.__cause__ is None and error.__suppress_context__ for error in refusals)


def test_endless_nesting_is_damage() -> None:
    with pytest.raises(Serialization):
        decode_session(b"\x01" + b"\x91" * 100_000)
    with pytest.raises(Serialization):
        decode_event(b"\x00" + b"\x91" * 100_000)
